// Mistakes that were made once, and rules that are easily forgotten: the simulator makes them again, one at a time, to see
// that its checkers find them (libray/sim/world.h). A kit's flaw() says which; that of the product says none, and the
// compiler removes the question.
#pragma once
#include <cstdint>

namespace ray::task {

enum class Flaw : uint8_t {
  kNone,
  kShutWorks,       // a lease that takes nothing counts as one that works: a task waits for its own child for ever
  kKeepsWants,      // what is wanted is not taken back
  kKeepsLeases,     // a lease that rests is kept
  kReusesRecord,    // the room of a record that may come back is used again
  kRunsAgain,       // a task that began runs again without a retry
  kUnbegunFails,    // a task that had not begun fails with its worker
  kHoldsUp,         // calls behind a cancelled one stay where they are
  kOutOfOrder,      // a call that comes back goes behind those that came after it
};

}  // namespace ray::task
