// See memory_monitor.h.
#include "libray/sched/memory_monitor.h"

#include <algorithm>

namespace ray::sched {

uint32_t MemoryMonitor::step(const MemoryState& state, const std::vector<MemoryUser>& users,
                             int64_t now) {
  if (state.limit == 0 || state.used <= state.limit) return kNobody;
  if (victim_ != kNobody && now - ended_at_ < grace_ns_) return kNobody;
  uint64_t most = 0;
  for (const MemoryUser& u : users) most = std::max(most, u.bytes);
  // Enough to get below the limit, or else a fair part of what the largest holds.
  uint64_t enough = std::min(state.used - state.limit, most / 4);
  const MemoryUser* best = nullptr;
  for (const MemoryUser& u : users) {
    if (u.bytes == 0 || u.bytes < enough) continue;
    if (!best || u.cost < best->cost || (u.cost == best->cost && u.since_ns > best->since_ns)) best = &u;
  }
  if (!best) return kNobody;
  victim_ = best->worker;
  ended_at_ = now;
  return victim_;
}

void MemoryMonitor::gone(uint32_t worker) {
  if (worker == victim_) victim_ = kNobody;
}

}  // namespace ray::sched
