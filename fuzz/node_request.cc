// What the daemon reads out of requests of processes: the cursor keeps to its input, whatever is asked
// of it; resource maps and placements that are accepted mean something.
#include <algorithm>
#include <cmath>
#include <memory>

#include "fuzz/fuzz.h"
#include "libray/node/core/demands.h"
#include "libray/wire/cursor.h"

using namespace ray;

FUZZ_TARGET(node_request) {
  auto copy = std::make_unique<char[]>(input.size() + 1);
  std::copy(input.begin(), input.end(), copy.get());
  std::string_view bytes(copy.get(), input.size());
  std::string_view value = wire::Cursor(bytes).value();
  FUZZ_CHECK(value.empty() || (value.data() == bytes.data() && value.size() <= bytes.size()));

  // Every getter at every value of the top level.
  wire::Cursor list(bytes);
  for (uint32_t n = list.array(); n > 0 && list.ok(); --n) {
    std::string_view one = list.value();
    for (int getter = 0; getter < 9; ++getter) {
      wire::Cursor r(one);
      switch (getter) {
        case 0: r.array(); break;
        case 1: r.map(); break;
        case 2: r.uint64(); break;
        case 3: r.int64(); break;
        case 4: r.float64(); break;
        case 5: FUZZ_CHECK(r.bytes().size() <= one.size()); break;
        case 6: r.id(); break;
        case 7: r.boolean(); break;
        default: r.nil();
      }
      FUZZ_CHECK(r.rest().size() <= one.size());
    }
    FUZZ_CHECK(!list.ok() || wire::is_one_value(one));
  }

  std::map<std::string, double> amounts;
  std::string env;
  if (node::read_resources(bytes, &amounts, &env).ok()) {
    for (const auto& [name, amount] : amounts)
      FUZZ_CHECK(!name.empty() && std::isfinite(amount) && amount >= 0);
    FUZZ_CHECK(env.empty() || wire::is_one_value(env));
  }
  node::Placement placement;
  (void)node::read_placement(bytes, &placement);
}
