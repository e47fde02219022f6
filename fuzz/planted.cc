// A parser with a bug that was planted: reads one byte too far when a map of two has the key "boom". Shows
// that the fuzzers' build finds such things; not one of the targets, and never linked into a test.
#include <algorithm>
#include <memory>

#include "fuzz/fuzz.h"
#include "libray/wire/msgpack.h"

FUZZ_TARGET(planted) {
  auto copy = std::make_unique<char[]>(input.size());  // on the heap: asan sees one byte too far
  std::copy(input.begin(), input.end(), copy.get());
  ray::wire::Reader r(copy.get(), input.size());
  uint32_t pairs = 0;
  std::string_view key;
  if (!r.map(&pairs) || pairs != 2 || !r.str(&key) || key != "boom") return;
  volatile char beyond = copy[input.size()];
  (void)beyond;
}
