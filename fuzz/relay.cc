// Bytes from another node's relay, and from a daemon: whatever can be read means the same when it is written again.
#include "fuzz/fuzz.h"
#include "libray/relay/messages.h"
#include "libray/wire/relay_control.h"

using namespace ray;
using namespace ray::relay;

FUZZ_TARGET(relay) {
  RecordReader reader(input);
  Record r;
  uint64_t sizes = 0;
  while (reader.next(&r)) {
    sizes += r.size;
    FUZZ_CHECK(sizes <= input.size());
    FUZZ_CHECK(r.value.bytes() <= INT64_MAX);
    std::string once, twice;
    FUZZ_CHECK(encode(r, &once) == once.size());
    RecordReader again(once);
    Record same;
    FUZZ_CHECK(again.next(&same) && same.kind == r.kind && same.size == once.size());
    FUZZ_CHECK(same.task.args.size() == r.task.args.size() && same.done.results.size() == r.done.results.size());
    encode(same, &twice);
    FUZZ_CHECK(once == twice);
    FUZZ_CHECK(!again.next(&same) && again.status().ok());
  }
  FUZZ_CHECK(!reader.status().ok() || sizes == input.size());

  ControlMessage m;
  if (!decode(input, &m).ok()) return;
  ControlMessage same;
  FUZZ_CHECK(decode(encode(m), &same).ok() && encode(m) == encode(same));
}
