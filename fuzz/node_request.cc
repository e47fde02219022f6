// The daemon's MessagePack reader, as it is used on requests of processes: accepts only what the
// checked reader of wire/msgpack.h accepts, stays within its input.
#include <algorithm>
#include <memory>

#include "fuzz/fuzz.h"
#include "libray/node/mp.h"
#include "libray/wire/msgpack.h"

using namespace ray;

FUZZ_TARGET(node_request) {
  auto copy = std::make_unique<char[]>(input.size() + 1);
  std::copy(input.begin(), input.end(), copy.get());
  std::string_view bytes(copy.get(), input.size());
  node::mp::Reader raw(bytes);
  std::string_view value = raw.raw();
  if (raw.ok() && !value.empty()) {
    wire::Reader checked(bytes);
    FUZZ_CHECK(checked.skip());
    FUZZ_CHECK(checked.offset() == value.size());
  }
  // Every getter at every value of the top level.
  node::mp::Reader list(bytes);
  for (uint32_t n = list.array(); n > 0 && list.ok(); --n) {
    std::string_view one = list.raw();
    for (int getter = 0; getter < 8; ++getter) {
      node::mp::Reader r(one);
      Id id;
      switch (getter) {
        case 0: r.array(); break;
        case 1: r.map(); break;
        case 2: r.uint(); break;
        case 3: r.sint(); break;
        case 4: r.number(); break;
        case 5: FUZZ_CHECK(r.view().size() <= one.size()); break;
        case 6: r.id(&id); break;
        default: r.nil();
      }
    }
  }
}
