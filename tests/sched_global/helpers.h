// Short ways to say what unit tests of the global scheduler need.
#pragma once
#include <string>
#include <utility>

#include "libray/sched_global/scheduler.h"

namespace ray::global {

inline Resources make(std::initializer_list<std::pair<const char*, double>> items) {
  Resources r;
  for (const auto& [name, amount] : items) (void)r.add(name, amount);
  return r;
}

inline Heartbeat beat_of(NodeIndex node, double cpus) {
  Heartbeat h;
  h.node = node;
  h.epoch = 1;
  h.version = 1;
  h.total = h.available = make({{"CPU", cpus}});
  return h;
}

inline Id id_of(uint32_t n) { return child_task(origin_of(TaskId{}), n); }

inline Demand demand_of(uint32_t n, double cpus = 1) {
  Demand d;
  d.id = id_of(n);
  if (cpus > 0) d.resources = make({{"CPU", cpus}});
  return d;
}

}  // namespace ray::global
