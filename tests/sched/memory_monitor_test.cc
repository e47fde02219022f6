// The memory monitor: who is ended, and who is not.
#include "libray/sched/memory_monitor.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace ray::sched {
namespace {

constexpr uint64_t kMb = 1 << 20;
constexpr uint32_t kNobody = MemoryMonitor::kNobody;
using Users = std::vector<MemoryUser>;

TEST(MemoryMonitor, EndsNobodyBelowTheLimit) {
  MemoryMonitor m;
  Users users{{1, MemoryUser::kTask, 10, 900 * kMb}};
  EXPECT_EQ(m.step({1000 * kMb, 1000 * kMb}, users, 1), kNobody);
  EXPECT_EQ(m.step({1000 * kMb, 0}, users, 2), kNobody);
  EXPECT_EQ(m.step({1001 * kMb, 1000 * kMb}, users, 3), 1u);
}

TEST(MemoryMonitor, NewestTaskFirstThenActorsThatRestart) {
  MemoryMonitor m;
  Users users{{1, MemoryUser::kActor, 50, 300 * kMb},
              {2, MemoryUser::kRestartableActor, 40, 300 * kMb},
              {3, MemoryUser::kTask, 10, 300 * kMb},
              {4, MemoryUser::kTask, 20, 300 * kMb}};
  const MemoryState over{2000 * kMb, 1000 * kMb};
  int64_t now = 1;
  for (uint32_t expected : {4u, 3u, 2u, 1u}) {
    EXPECT_EQ(m.step(over, users, now), expected);
    m.gone(expected);
    std::erase_if(users, [&](const MemoryUser& u) { return u.worker == expected; });
    ++now;
  }
  EXPECT_EQ(m.step(over, users, now), kNobody);
}

TEST(MemoryMonitor, PassesOverWhoCannotHelp) {
  MemoryMonitor m;
  Users users{{1, MemoryUser::kTask, 10, 800 * kMb}, {2, MemoryUser::kTask, 20, 5 * kMb}};
  EXPECT_EQ(m.step({1100 * kMb, 1000 * kMb}, users, 1), 1u);
  MemoryMonitor small;  // five are enough here
  EXPECT_EQ(small.step({1004 * kMb, 1000 * kMb}, users, 1), 2u);
  MemoryMonitor many;  // nobody holds as much as is missing
  Users equal{{1, MemoryUser::kTask, 10, 100 * kMb}, {2, MemoryUser::kTask, 20, 90 * kMb}};
  EXPECT_EQ(many.step({1500 * kMb, 1000 * kMb}, equal, 1), 2u);
}

TEST(MemoryMonitor, WaitsForTheVictim) {
  MemoryMonitor m(1000);
  Users users{{1, MemoryUser::kTask, 10, 500 * kMb}, {2, MemoryUser::kTask, 20, 500 * kMb}};
  const MemoryState over{1500 * kMb, 1000 * kMb};
  EXPECT_EQ(m.step(over, users, 1), 2u);
  EXPECT_EQ(m.step(over, users, 900), kNobody);
  m.gone(1);  // another one
  EXPECT_EQ(m.step(over, users, 950), kNobody);
  EXPECT_EQ(m.step(over, users, 1001), 2u);  // it does not die: asked again
  m.gone(2);
  EXPECT_EQ(m.step(over, {users[0]}, 1002), 1u);
}

// Whatever the users: as long as they hold what is over the limit, the end is below it, and a task never
// outlives an actor of the same size.
TEST(MemoryMonitor, ComesBelowTheLimit) {
  for (uint32_t seed = 0; seed < 500; ++seed) {
    std::mt19937 rng(seed);
    MemoryMonitor m;
    Users users;
    uint64_t used = 100 * kMb;
    for (uint32_t i = 0, n = 1 + rng() % 12; i < n; ++i) {
      auto cost = static_cast<MemoryUser::Cost>(rng() % 3);
      users.push_back({i, cost, static_cast<int64_t>(rng() % 1000), (rng() % 400) * kMb});
      used += users.back().bytes;
    }
    const uint64_t limit = 200 * kMb;
    for (int64_t now = 1; used > limit; ++now) {
      uint32_t victim = m.step({used, limit}, users, now);
      ASSERT_NE(victim, kNobody) << "seed " << seed;
      auto v = std::find_if(users.begin(), users.end(), [&](auto& u) { return u.worker == victim; });
      ASSERT_NE(v, users.end());
      for (const MemoryUser& u : users)
        EXPECT_FALSE(u.cost < v->cost && u.bytes >= v->bytes && u.bytes > 0) << "seed " << seed;
      used -= v->bytes;
      m.gone(victim);
      users.erase(v);
    }
  }
}

}  // namespace
}  // namespace ray::sched
