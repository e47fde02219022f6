// What the tests of the local scheduler share: a scheduler whose workers start when it asks for them, and which is
// checked after every step.
#pragma once
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "libray/sched/local_scheduler.h"

namespace ray::sched {

inline const Pool kPool{0, 1};

inline Resources make(std::map<std::string, double> amounts) {
  Resources r;
  for (const auto& [name, amount] : amounts) EXPECT_TRUE(r.add(name, amount).ok());
  return r;
}

inline Id id_of(uint32_t n) {
  Id id{};
  id.b[0] = static_cast<uint8_t>(n);
  id.b[1] = static_cast<uint8_t>(n >> 8);
  id.b[2] = 1;
  return id;
}

struct Bench {
  explicit Bench(const SchedulerOptions& options) : s(options) {}
  explicit Bench(std::map<std::string, double> total, uint32_t max_workers = 1024)
      : s([&] {
          SchedulerOptions o;
          o.total = make(std::move(total));
          o.instanced = {"GPU"};
          o.max_workers = max_workers;
          o.checks = true;
          return o;
        }()) {}
  LocalScheduler s;
  int64_t now = 1'000'000'000;
  bool start_at_once = true;  // workers are ready when they are asked for
  uint32_t next_worker = 1000, started = 0;
  std::vector<Action> seen;

  // Until the scheduler has nothing more to say.
  void turn() {
    for (int i = 0; i < 64; ++i) {
      Actions out;
      s.schedule(now, &out);
      ASSERT_EQ(s.check(), "");
      bool again = false;
      for (Action& a : out) {
        seen.push_back(a);
        again |= a.kind == Action::kGroupReady;
        if (a.kind != Action::kStartWorkers) continue;
        started += a.count;
        for (uint32_t n = 0; n < a.count && start_at_once; ++n) {
          s.worker_ready(next_worker++, a.pool, now);
          again = true;
        }
      }
      if (!again) return;
    }
    FAIL() << "the scheduler does not come to rest";
  }
  std::vector<Action> take(Action::Kind kind) {
    std::vector<Action> out;
    std::copy_if(seen.begin(), seen.end(), std::back_inserter(out), [&](auto& a) { return a.kind == kind; });
    std::erase_if(seen, [&](auto& a) { return a.kind == kind; });
    return out;
  }
  void want(uint32_t client, uint32_t shape, uint32_t n) {
    ASSERT_TRUE(s.want(client, shape, n, TaskId{}).ok());
    turn();
  }
  void give(const Action& grant) {
    ASSERT_TRUE(s.return_lease(grant.client, grant.worker, grant.lease, now).ok());
    turn();
  }
};

}  // namespace ray::sched
