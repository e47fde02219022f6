// Lineage batches: every view lies within the input; what decodes encodes to the same record. And as a
// process's ring: the journal pump restores coded records from it, or finds them damaged.
#include <algorithm>
#include <memory>

#include "fuzz/fuzz.h"
#include "libray/base/ring.h"
#include "libray/lineage/delta.h"
#include "libray/lineage/reader.h"

using namespace ray::lineage;

namespace {

bool inside(std::string_view part, std::string_view whole) {
  return part.empty() || (part.data() >= whole.data() && part.size() <= whole.size() &&
                          part.data() + part.size() <= whole.data() + whole.size());
}

void check_submit(std::string_view payload) {
  SubmitView v;
  if (!decode(payload, &v)) return;
  FUZZ_CHECK(inside(v.name, payload) && inside(v.method, payload));
  FUZZ_CHECK(v.args.size() == v.fixed.n_args);
  std::vector<ArgIn> args;
  for (const ArgView& a : v.args) {
    FUZZ_CHECK(inside(a.bytes, payload));
    FUZZ_CHECK(!a.is_ref || a.bytes.size() == ray::kIdSize);
    args.push_back({a.is_ref, a.format, a.bytes});
  }
  SubmitIn in;
  in.fixed = v.fixed;
  in.name = v.name;
  in.method = v.method;
  in.args = args.data();
  in.n_args = static_cast<uint32_t>(args.size());
  std::string again(encoded_size(in), '\0');
  FUZZ_CHECK(again.size() <= payload.size() + 7);
  encode(in, reinterpret_cast<uint8_t*>(again.data()));
  SubmitView w;
  FUZZ_CHECK(decode(again, &w));
  FUZZ_CHECK(w.name == v.name && w.method == v.method && w.args.size() == v.args.size());
  for (size_t i = 0; i < v.args.size(); ++i)
    FUZZ_CHECK(w.args[i].bytes == v.args[i].bytes && w.args[i].is_ref == v.args[i].is_ref);
}

void check_exec(std::string_view payload) {
  ExecView v;
  if (!decode(payload, &v)) return;
  FUZZ_CHECK(inside(v.error, payload));
  FUZZ_CHECK(v.results.size() == v.fixed.n_results);
  std::vector<ResultIn> results;
  for (const ResultView& r : v.results) {
    FUZZ_CHECK(inside(r.bytes, payload));
    results.push_back(
        {r.fixed.index, r.fixed.format, r.fixed.size, r.fixed.in_store != 0, r.bytes});
  }
  ExecIn in;
  in.fixed = v.fixed;
  in.results = results.data();
  in.n_results = static_cast<uint32_t>(results.size());
  in.error = v.error;
  std::string again(encoded_size(in), '\0');
  encode(in, reinterpret_cast<uint8_t*>(again.data()));
  ExecView w;
  FUZZ_CHECK(decode(again, &w));
  FUZZ_CHECK(w.error == v.error && w.results.size() == v.results.size());
}

void check_mirror(std::string_view ring) {
  DeltaMirror mirror;
  DeltaEncoder encoder;
  BatchReader reader(ring);
  uint16_t type;
  std::string_view payload;
  std::string records;
  while (reader.next(&type, &payload)) {
    auto copy = std::make_unique<uint8_t[]>(payload.size());
    std::copy(payload.begin(), payload.end(), copy.get());
    const uint8_t* bytes = copy.get();
    auto size = static_cast<uint32_t>(payload.size());
    if (!mirror.restore(&type, &bytes, &size)) return;
    FUZZ_CHECK(type != kCoded);
    encoder.add(type, bytes, size);
    FUZZ_CHECK(delta_decode(encoder.bytes(), encoder.raw_size(), &records));
    if (encoder.records() == 64) return;
  }
}

}  // namespace

FUZZ_TARGET(lineage) {
  auto copy = std::make_unique<char[]>(input.size() + 1);  // exact bounds for asan
  std::copy(input.begin(), input.end(), copy.get());
  std::string_view batch(copy.get(), input.size());
  BatchReader reader(batch);
  uint16_t type;
  std::string_view payload;
  size_t total = 0;
  while (reader.next(&type, &payload)) {
    FUZZ_CHECK(inside(payload, batch));
    total += sizeof(ray::RecordHeader) + payload.size();
    FUZZ_CHECK(total <= batch.size());
    check_submit(payload);
    check_exec(payload);
    EventView e;
    if (decode(payload, &e)) FUZZ_CHECK(inside(e.map, payload));
  }
  check_submit(batch);
  check_exec(batch);
  check_mirror(batch);
}
