// What a decision looks at does not grow with what it is not about: counted, not timed. Each test makes the same decision
// beside few and beside many clients, leases, shapes or groups, and compares LocalScheduler::looks().
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <vector>

#include "scheduler_bench.h"

namespace ray::sched {
namespace {

constexpr int64_t kMs = 1'000'000;

// Without the invariants, which do look at everything.
struct GrowthBench {
  explicit GrowthBench(std::map<std::string, double> total, uint32_t max_workers = 4000)
      : s([&] {
          SchedulerOptions o;
          o.total = make(std::move(total));
          o.instanced = {"GPU"};
          o.max_workers = max_workers;
          return o;
        }()) {}
  LocalScheduler s;
  int64_t now = 1'000'000'000;
  uint32_t next_worker = 10'000;

  void shape(uint32_t client, uint32_t shape, std::map<std::string, double> need, const Placement& where = {}) {
    ASSERT_TRUE(s.define_shape(client, shape, make(std::move(need)), kPool, where).ok());
  }
  // One decision; what it looked at, and what it said.
  uint64_t decide(std::vector<Action>* out) {
    Actions actions;
    const uint64_t before = s.looks();
    s.schedule(now, &actions);
    for (const Action& a : actions) {
      for (uint32_t n = 0; a.kind == Action::kStartWorkers && n < a.count; ++n) s.worker_ready(next_worker++, a.pool, now);
      out->push_back(a);
    }
    return s.looks() - before;
  }
  // Until nothing more is said: the most that a single decision looked at.
  uint64_t settle(std::vector<Action>* out) {
    uint64_t most = 0;
    for (int quiet = 0; quiet < 3;) {
      const size_t before = out->size();
      most = std::max(most, decide(out));
      const int64_t at = s.next_deadline(now);
      quiet = out->size() == before && !(at && at <= now) ? quiet + 1 : 0;
    }
    return most;
  }
  std::vector<Action> grants(const std::vector<Action>& all) {
    std::vector<Action> out;
    for (const Action& a : all)
      if (a.kind == Action::kGrant) out.push_back(a);
    return out;
  }
};

// The same with five times as many: what is looked at does not grow with them.
void expect_no_growth(const std::function<uint64_t(uint32_t)>& looks) {
  const uint64_t few = looks(200), many = looks(1000);
  EXPECT_LE(many, few + 8) << "beside 200 it is " << few << ", beside 1000 " << many;
}

// A lease comes back, and somebody who waits gets it.
TEST(Growth, ClientsThatWait) {
  expect_no_growth([](uint32_t n) {
    GrowthBench b({{"CPU", 1}});
    std::vector<Action> all;
    for (uint32_t c = 1; c <= n; ++c) {
      b.shape(c, 0, {{"CPU", 1}});
      EXPECT_TRUE(b.s.want(c, 0, 1, TaskId{}).ok());
    }
    b.settle(&all);
    auto held = b.grants(all);
    EXPECT_EQ(held.size(), 1u);
    all.clear();
    EXPECT_TRUE(b.s.want(held[0].client, 0, 0, TaskId{}).ok());
    EXPECT_TRUE(b.s.return_lease(held[0].client, held[0].worker, held[0].lease, b.now).ok());
    const uint64_t most = b.settle(&all);
    EXPECT_EQ(b.grants(all).size(), 1u);
    return most;
  });
}

// One request that fits somewhere behind all that do not is found, in decisions that each look at few.
TEST(Growth, TheOneThatFitsIsFound) {
  expect_no_growth([](uint32_t n) {
    GrowthBench b({{"CPU", 1}, {"disk", 1}});
    std::vector<Action> all;
    b.shape(1, 0, {{"disk", 1}});
    EXPECT_TRUE(b.s.want(1, 0, 1, TaskId{}).ok());
    b.settle(&all);
    auto disk = b.grants(all);
    EXPECT_EQ(disk.size(), 1u);
    for (uint32_t c = 2; c <= n; ++c) {
      b.shape(c, 0, {{"CPU", 1}});
      EXPECT_TRUE(b.s.want(c, 0, 1, TaskId{}).ok());
    }
    b.shape(n + 1, 0, {{"disk", 1}});
    EXPECT_TRUE(b.s.want(n + 1, 0, 1, TaskId{}).ok());
    b.settle(&all);
    all.clear();
    EXPECT_TRUE(b.s.want(1, 0, 0, TaskId{}).ok());
    EXPECT_TRUE(b.s.return_lease(1, disk[0].worker, disk[0].lease, b.now).ok());
    const uint64_t most = b.settle(&all);
    EXPECT_EQ(b.grants(all).size(), 1u);
    return most;
  });
}

// Somebody waits who has nothing: one lease is reclaimed for him, of the one who has most.
TEST(Growth, LeasesOfOthers) {
  expect_no_growth([](uint32_t n) {
    GrowthBench b({{"CPU", static_cast<double>(n)}});
    std::vector<Action> all;
    b.shape(1, 0, {{"CPU", 1}});
    EXPECT_TRUE(b.s.want(1, 0, n, TaskId{}).ok());
    b.settle(&all);
    EXPECT_EQ(b.grants(all).size(), n);
    all.clear();
    b.now += 10 * kMs;
    b.shape(2, 0, {{"CPU", 1}});
    EXPECT_TRUE(b.s.want(2, 0, 1, TaskId{}).ok());
    const uint64_t most = b.settle(&all);
    EXPECT_EQ(std::count_if(all.begin(), all.end(), [](auto& a) { return a.kind == Action::kReclaim; }), 1);
    return most;
  });
}

// The same among clients with a lease each, none of which has had it for a quantum: nobody's is reclaimed yet.
TEST(Growth, LeasesThatAreTooYoung) {
  expect_no_growth([](uint32_t n) {
    GrowthBench b({{"CPU", static_cast<double>(n)}});
    std::vector<Action> all;
    for (uint32_t c = 1; c <= n; ++c) {
      b.shape(c, 0, {{"CPU", 1}});
      EXPECT_TRUE(b.s.want(c, 0, 1, TaskId{}).ok());
    }
    b.settle(&all);
    EXPECT_EQ(b.grants(all).size(), n);
    all.clear();
    b.shape(n + 1, 0, {{"CPU", 1}});
    EXPECT_TRUE(b.s.want(n + 1, 0, 1, TaskId{}).ok());
    const uint64_t most = b.settle(&all);
    EXPECT_TRUE(all.empty());
    EXPECT_EQ(b.s.next_deadline(b.now), b.now + 5 * kMs);
    return most;
  });
}

// What would not fit although all leases came back asks for none of them.
TEST(Growth, LeasesThatWouldNotDo) {
  expect_no_growth([](uint32_t n) {
    GrowthBench b({{"CPU", static_cast<double>(n) + 1}});
    std::vector<Action> all;
    b.s.want_actor(id_of(1), make({{"CPU", 1}}), kPool);
    b.settle(&all);
    b.shape(1, 0, {{"CPU", 1}});
    EXPECT_TRUE(b.s.want(1, 0, n, TaskId{}).ok());
    b.settle(&all);
    EXPECT_EQ(b.grants(all).size(), n);
    all.clear();
    b.now += 10 * kMs;
    b.shape(2, 0, {{"CPU", static_cast<double>(n) + 1}});
    EXPECT_TRUE(b.s.want(2, 0, 1, TaskId{}).ok());
    const uint64_t most = b.settle(&all);
    EXPECT_TRUE(all.empty());
    return most;
  });
}

// One client with many shapes that do not fit.
TEST(Growth, ShapesOfOneClient) {
  expect_no_growth([](uint32_t n) {
    GrowthBench b({{"CPU", 2}});
    std::vector<Action> all;
    for (uint32_t i = 0; i < n; ++i) {
      b.shape(1, i, {{"CPU", 2}});
      EXPECT_TRUE(b.s.want(1, i, 1, TaskId{}).ok());
    }
    b.settle(&all);
    auto held = b.grants(all);
    EXPECT_EQ(held.size(), 1u);
    all.clear();
    EXPECT_TRUE(b.s.want(1, held[0].shape, 0, TaskId{}).ok());
    EXPECT_TRUE(b.s.return_lease(1, held[0].worker, held[0].lease, b.now).ok());
    const uint64_t most = b.settle(&all);
    EXPECT_EQ(b.grants(all).size(), 1u);
    return most;
  });
}

// Groups that are reserved, and leases in them, beside a client that waits outside.
TEST(Growth, GroupsAndWhatRunsInThem) {
  expect_no_growth([](uint32_t n) {
    GrowthBench b({{"CPU", static_cast<double>(n) + 1}});
    std::vector<Action> all;
    for (uint32_t g = 1; g <= n; ++g) {
      EXPECT_TRUE(b.s.create_group(id_of(g), {make({{"CPU", 1}})}, false).ok());
      b.settle(&all);
      b.shape(g, 0, {{"CPU", 1}}, {id_of(g), 0, ""});
      EXPECT_TRUE(b.s.want(g, 0, 2, TaskId{}).ok());
    }
    b.settle(&all);
    EXPECT_EQ(b.grants(all).size(), n);
    for (uint32_t g = 1; g <= n; ++g) EXPECT_TRUE(b.s.want(g, 0, 1, TaskId{}).ok());
    all.clear();
    b.shape(n + 1, 0, {{"CPU", 1}});
    EXPECT_TRUE(b.s.want(n + 1, 0, 1, TaskId{}).ok());
    const uint64_t most = b.settle(&all);
    EXPECT_EQ(b.grants(all).size(), 1u);
    return most;
  });
}

// All workers wait at the limit of processes: the deepest has one more.
TEST(Growth, TasksThatWaitAtTheLimit) {
  expect_no_growth([](uint32_t n) {
    GrowthBench b({{"CPU", 4000}}, n);
    std::vector<Action> all;
    b.shape(1, 0, {{"CPU", 1}});
    EXPECT_TRUE(b.s.want(1, 0, n, TaskId{}).ok());
    b.settle(&all);
    auto parents = b.grants(all);
    EXPECT_EQ(parents.size(), n);
    for (const Action& p : parents) {
      b.shape(p.worker, 0, {{"CPU", 1}});
      EXPECT_TRUE(b.s.want(p.worker, 0, 1, TaskId{}).ok());
      if (&p != &parents.back()) b.s.worker_blocked(p.worker, true);
    }
    all.clear();
    b.settle(&all);
    EXPECT_TRUE(b.grants(all).empty());
    b.s.worker_blocked(parents.back().worker, true);
    const uint64_t most = b.settle(&all);
    EXPECT_EQ(b.grants(all).size(), 1u);
    return most;
  });
}

// All workers wait, and nobody can be helped: a decision looks at some of them. The one who can be is found.
TEST(Growth, TasksThatCannotBeHelpedAtTheLimit) {
  expect_no_growth([](uint32_t n) {
    GrowthBench b({{"CPU", 4000}, {"disk", 1}}, 2);
    std::vector<Action> all;
    b.s.want_actor(id_of(1), make({{"disk", 1}}), kPool);
    b.shape(1, 0, {{"CPU", 1}});
    EXPECT_TRUE(b.s.want(1, 0, 1, TaskId{}).ok());
    b.settle(&all);
    auto parents = b.grants(all);
    EXPECT_EQ(parents.size(), 1u);
    b.s.worker_blocked(parents[0].worker, true);
    b.settle(&all);
    for (uint32_t c = 2; c <= n; ++c) {
      b.shape(c, 0, {{"disk", 1}});
      EXPECT_TRUE(b.s.want(c, 0, 1, TaskId{}).ok());
    }
    all.clear();
    b.settle(&all);  // once at all that is new
    b.s.worker_blocked(parents[0].worker, false);
    b.s.worker_blocked(parents[0].worker, true);
    uint64_t most = b.settle(&all);
    EXPECT_TRUE(b.grants(all).empty());
    b.shape(n + 1, 0, {{"CPU", 1}});
    EXPECT_TRUE(b.s.want(n + 1, 0, 1, TaskId{}).ok());
    most = std::max(most, b.settle(&all));
    EXPECT_EQ(b.grants(all).size(), 1u);
    return most;
  });
}

// Many wait, and one of them for many shapes: the last of these is looked at too.
TEST(Growth, TheShapeThatFitsIsFoundInALongLine) {
  GrowthBench b({{"CPU", 4}, {"disk", 1}, {"tape", 1}});
  std::vector<Action> all;
  for (uint32_t c = 1; c <= 2; ++c) {
    b.shape(c, 0, {{c == 1 ? "disk" : "tape", 1}});
    EXPECT_TRUE(b.s.want(c, 0, 1, TaskId{}).ok());
  }
  b.settle(&all);
  auto held = b.grants(all);
  ASSERT_EQ(held.size(), 2u);
  for (uint32_t c = 3; c <= 200; ++c) {
    b.shape(c, 0, {{"disk", 1}});
    EXPECT_TRUE(b.s.want(c, 0, 1, TaskId{}).ok());
  }
  for (uint32_t shape = 0; shape <= 100; ++shape) {
    b.shape(150, shape + 1, {{shape < 100 ? "disk" : "tape", 1}});
    EXPECT_TRUE(b.s.want(150, shape + 1, 1, TaskId{}).ok());
  }
  b.settle(&all);
  all.clear();
  const Action& tape = held[held[0].client == 2 ? 0 : 1];
  EXPECT_TRUE(b.s.want(2, 0, 0, TaskId{}).ok());
  EXPECT_TRUE(b.s.return_lease(2, tape.worker, tape.lease, b.now).ok());
  b.settle(&all);
  EXPECT_EQ(b.grants(all).size(), 1u);
}

// What starts for a job, or in an environment, that is gone makes room for the one among many who fits.
TEST(Growth, AStartThatIsNoLongerWantedMakesRoom) {
  for (const bool env : {false, true}) {
    GrowthBench b({{"CPU", 4}, {"disk", 1}}, 2);
    std::vector<Action> all;
    b.s.want_actor(id_of(1), make({{"disk", 1}}), kPool);
    b.settle(&all);
    Actions start;
    b.s.prestart({0, 2, 7}, 1);
    b.s.schedule(b.now, &start);
    EXPECT_EQ(b.s.counts().starting, 1u);
    for (uint32_t c = 1; c <= 200; ++c) {
      b.shape(c, 0, {{c < 200 ? "disk" : "CPU", 1}});
      EXPECT_TRUE(b.s.want(c, 0, 1, TaskId{}).ok());
    }
    b.settle(&all);
    EXPECT_TRUE(b.grants(all).empty());
    env ? b.s.env_gone(7) : b.s.job_ended(2);
    b.settle(&all);
    EXPECT_EQ(b.grants(all).size(), 1u);
  }
}

}  // namespace
}  // namespace ray::sched
