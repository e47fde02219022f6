// What the parts of the local scheduler share: one round of decisions. Not for others.
#pragma once
#include <map>
#include <vector>

#include "libray/sched/local_scheduler.h"

namespace ray::sched {

inline constexpr uint32_t kCpu = 0;  // index of "CPU"

struct LocalScheduler::Round {
  int64_t now = 0;
  Actions* out = nullptr;
  std::vector<Need> set_aside;       // of free_ until the end of the round: for workers to come, for turns
  std::vector<Need> turns;           // of those who have one
  std::map<Pool, uint32_t> planned;  // workers that are missing
  std::vector<Waiting> unfit;        // in order of priority
  std::map<Pool, uint32_t> may_start;  // how many of these, in the order of those who need them
  uint32_t room = 0;                   // how many more
};

}  // namespace ray::sched
