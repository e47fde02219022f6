// Whom to end when memory runs short, before the kernel chooses. A pure state machine: measurements in, at
// most one victim out. Driven by the node daemon's main thread and by tests.
//
// Rules. (1) Nothing is ended below the limit. (2) One victim at a time: its memory must have come back, or
// the grace be over, before the next. (3) Cheapest first: tasks that only wait for their results (they are
// tried again), the newest of them, since it has lost least; then actors that may restart; then the others.
// (4) Within a class, whoever holds too little to help is passed over.
#pragma once
#include <cstdint>
#include <vector>

namespace ray::sched {

struct MemoryUser {
  enum Cost { kTask, kRestartableActor, kActor };
  uint32_t worker = 0;
  Cost cost = kTask;
  int64_t since_ns = 0;  // start of its lease or of the actor
  uint64_t bytes = 0;    // that would come back
};

struct MemoryState {
  uint64_t used = 0, limit = 0;  // limit 0: unknown, nothing is ended
};

class MemoryMonitor {
 public:
  static constexpr uint32_t kNobody = 0xFFFFFFFFu;
  explicit MemoryMonitor(int64_t grace_ns = 2'000'000'000) : grace_ns_(grace_ns) {}
  // The worker to end now, or kNobody.
  uint32_t step(const MemoryState& state, const std::vector<MemoryUser>& users, int64_t now);
  // A worker is gone, whoever ended it.
  void gone(uint32_t worker);

 private:
  int64_t grace_ns_;
  uint32_t victim_ = kNobody;
  int64_t ended_at_ = 0;
};

}  // namespace ray::sched
