// What may go to other nodes, and the stand-ins of workers there: rules one by one, and random runs beside local workers.
#include <gtest/gtest.h>

#include <random>
#include <set>

#include "scheduler_bench.h"

namespace ray::sched {
namespace {

constexpr int64_t kMs = 1'000'000;
constexpr int64_t kSpillNs = 10 * kMs;

struct ForeignBench : Bench {
  explicit ForeignBench(std::map<std::string, double> total, int64_t spill_ns = kSpillNs)
      : Bench([&] {
          SchedulerOptions o;
          o.total = make(std::move(total));
          o.instanced = {"GPU"};
          o.checks = true;
          o.spill_ns = spill_ns;
          return o;
        }()) {}
  void shape(uint32_t client, uint32_t shape, std::map<std::string, double> need, Pool pool = kPool, Placement where = {}) {
    ASSERT_TRUE(s.define_shape(client, shape, make(std::move(need)), pool, where).ok());
  }
  // Clients and shapes.
  std::set<std::pair<uint32_t, uint32_t>> spilled() {
    std::set<std::pair<uint32_t, uint32_t>> out;
    for (const Spill& x : s.spills(now)) out.insert({x.client, x.shape});
    EXPECT_EQ(s.check(), "");
    return out;
  }
  Action foreign(uint32_t worker, uint32_t client, uint32_t shape) {
    s.foreign_ready(worker, client, shape);
    EXPECT_LE(s.next_deadline(now), now);
    EXPECT_GT(s.next_deadline(now), 0);
    turn();
    auto grants = take(Action::kGrant);
    return grants.size() == 1 ? grants[0] : Action{Action::kInfeasible};
  }
};
using Pairs = std::set<std::pair<uint32_t, uint32_t>>;

TEST(Spills, WhatTheNodeCanNeverDoAtOnceTheRestWhenItHasWaited) {
  ForeignBench b({{"CPU", 1}});
  b.shape(1, 0, {{"CPU", 1}});
  b.shape(1, 1, {{"gold", 1}});
  b.shape(2, 0, {{"CPU", 2}});
  b.want(1, 0, 3);
  b.want(1, 1, 2);
  b.want(2, 0, 1);
  EXPECT_EQ(b.spilled(), (Pairs{{1, 1}, {2, 0}}));
  for (const Action& a : b.take(Action::kInfeasible)) EXPECT_TRUE(a.elsewhere);
  b.now += kSpillNs - 1;
  EXPECT_EQ(b.spilled(), (Pairs{{1, 1}, {2, 0}}));
  b.now += 1;
  EXPECT_EQ(b.spilled(), (Pairs{{1, 0}, {1, 1}, {2, 0}}));
  for (const Spill& x : b.s.spills(b.now)) {
    if (x.client == 1 && x.shape == 0) {
      EXPECT_EQ(x.more, 2u);  // it has one
      EXPECT_FALSE(x.never);
      EXPECT_EQ(x.resources.to_string(), "CPU: 1");
      EXPECT_EQ(x.since, b.now - kSpillNs);
    } else {
      EXPECT_TRUE(x.never);
      EXPECT_FALSE(x.why.empty());
    }
    EXPECT_EQ(x.resources.to_string(), x.client == 2 ? "CPU: 2" : x.shape == 1 ? "gold: 1" : "CPU: 1");
  }
  b.want(1, 1, 0);
  b.want(1, 0, 1);
  EXPECT_EQ(b.spilled(), (Pairs{{2, 0}}));
  (void)b.s.client_gone(2, b.now);
  EXPECT_EQ(b.spilled(), Pairs{});
  EXPECT_EQ(b.s.next_spill(), 0);
  b.want(1, 1, 1);  // reported once, spilled again
  EXPECT_TRUE(b.take(Action::kInfeasible).empty());
  EXPECT_EQ(b.spilled(), (Pairs{{1, 1}}));
}

TEST(Spills, AGrantBeginsTheTimeAnew) {
  ForeignBench b({{"CPU", 1}});
  b.shape(1, 0, {{"CPU", 1}});
  b.want(1, 0, 2);
  auto first = b.take(Action::kGrant).at(0);
  b.now += kSpillNs - 1;
  b.give(first);
  ASSERT_EQ(b.take(Action::kGrant).size(), 1u);
  b.now += kSpillNs - 1;
  EXPECT_EQ(b.spilled(), Pairs{});
  EXPECT_EQ(b.s.next_spill(), b.now + 1);
  b.now += 1;
  EXPECT_EQ(b.spilled(), (Pairs{{1, 0}}));
}

TEST(Spills, NotWhatAWorkerIsBeingStartedFor) {
  ForeignBench b({{"CPU", 1}});
  b.start_at_once = false;
  b.shape(1, 0, {{"CPU", 1}});
  b.want(1, 0, 1);
  ASSERT_EQ(b.started, 1u);
  b.now += 100 * kSpillNs;
  EXPECT_EQ(b.spilled(), Pairs{});
  b.s.worker_ready(7, kPool, b.now);
  b.turn();
  EXPECT_EQ(b.take(Action::kGrant).size(), 1u);
}

TEST(Spills, OnlyWhatMayRunAnywhere) {
  ForeignBench b({{"CPU", 1}, {"GPU", 1}});
  ASSERT_TRUE(b.s.create_group(id_of(1), {make({{"GPU", 1}})}, false).ok());
  b.turn();
  Pool with_env = kPool;
  with_env.env = 3;
  b.shape(9, 0, {{"CPU", 1}});
  b.want(9, 0, 1);
  Placement here, never, group;
  here.here = true;
  never.never = "wants a label";
  group.group = id_of(1);
  b.shape(1, 0, {{"CPU", 1}}, with_env);
  b.shape(1, 1, {{"CPU", 1}}, kPool, here);
  b.shape(1, 2, {{"CPU", 1}}, kPool, never);
  b.shape(1, 3, {{"GPU", 2}}, kPool, group);
  b.shape(1, 4, {});
  b.shape(1, 5, {{"CPU", 1}});
  b.shape(1, 6, {{"gold", 1}}, with_env);
  b.shape(1, 7, {{"gold", 1}}, kPool, here);
  for (uint32_t i = 0; i < 8; ++i) b.want(1, i, 4);
  b.now += kSpillNs;
  EXPECT_EQ(b.spilled(), (Pairs{{1, 5}}));
  for (const Action& a : b.take(Action::kInfeasible)) EXPECT_FALSE(a.elsewhere) << a.text;
}

TEST(Spills, ActorsToo) {
  ForeignBench b({{"CPU", 1}});
  b.s.want_actor(id_of(1), make({{"CPU", 1}}), kPool);
  b.s.want_actor(id_of(2), make({{"CPU", 1}}), kPool);
  b.s.want_actor(id_of(3), make({{"gold", 1}}), kPool);
  b.turn();
  b.now += kSpillNs;
  auto spills = b.s.spills(b.now);
  ASSERT_EQ(spills.size(), 2u);
  EXPECT_EQ(spills[0].actor, id_of(3));
  EXPECT_EQ(spills[1].actor, id_of(2));
  (void)b.take(Action::kAssignActor);
  b.s.foreign_actor_ready(500, id_of(3));
  b.s.foreign_actor_ready(501, id_of(2));
  b.s.foreign_actor_ready(502, id_of(1));  // it has a worker already
  b.turn();
  auto assigned = b.take(Action::kAssignActor);
  ASSERT_EQ(assigned.size(), 2u);
  EXPECT_EQ(assigned[0].worker, 500u);
  auto stopped = b.take(Action::kStopWorker);
  ASSERT_EQ(stopped.size(), 1u);
  EXPECT_EQ(stopped[0].worker, 502u);
  EXPECT_TRUE(b.s.spills(b.now).empty());
  EXPECT_STREQ(b.s.worker_state(500), "actor");
  EXPECT_EQ(b.s.busy_since(500), b.now);
  b.s.worker_gone(500, b.now);
  EXPECT_EQ(b.s.check(), "");
}

TEST(Spills, OffWithoutOtherNodes) {
  ForeignBench b({{"CPU", 1}}, 0);
  b.shape(1, 0, {{"CPU", 1}});
  b.shape(1, 1, {{"gold", 1}});
  b.want(1, 0, 3);
  b.want(1, 1, 3);
  b.now += 100 * kSpillNs;
  EXPECT_EQ(b.spilled(), Pairs{});
  EXPECT_EQ(b.s.next_spill(), 0);
  for (const Action& a : b.take(Action::kInfeasible)) EXPECT_FALSE(a.elsewhere);
}

TEST(Spills, OneCallLooksAtABoundedNumberAndAllHaveTheirTurn) {
  ForeignBench b({{"CPU", 1}});
  constexpr uint32_t kShapes = 1000;
  for (uint32_t i = 0; i < kShapes; ++i) {
    b.shape(1, i, {{"CPU", 1}});
    ASSERT_TRUE(b.s.want(1, i, 1, TaskId{}).ok());
  }
  b.turn();
  b.now += kSpillNs;
  Pairs all;
  for (uint32_t i = 0; i < kShapes / 64 + 2; ++i) {
    const uint64_t before = b.s.looks();
    Pairs some = b.spilled();
    EXPECT_LE(b.s.looks() - before, 64u);
    all.insert(some.begin(), some.end());
  }
  EXPECT_EQ(all.size(), kShapes - 1);
}

TEST(Foreign, HasItsLeaseHoldsNothingAndEndsWithIt) {
  ForeignBench b({{"CPU", 1}, {"GPU", 1}});
  b.shape(1, 0, {{"CPU", 1}, {"GPU", 1}});
  b.want(1, 0, 2);
  auto local = b.take(Action::kGrant).at(0);
  EXPECT_EQ(b.s.instances(local.worker, "GPU"), std::vector<uint32_t>{0});
  const Action f = b.foreign(500, 1, 0);
  ASSERT_EQ(f.kind, Action::kGrant);
  EXPECT_EQ(f.worker, 500u);
  EXPECT_EQ(f.client, 1u);
  EXPECT_NE(f.lease, local.lease);
  EXPECT_TRUE(b.s.holds(1, 500, f.lease));
  EXPECT_FALSE(b.s.holds(1, 500, local.lease));
  EXPECT_FALSE(b.s.holds(2, 500, f.lease));
  EXPECT_TRUE(b.s.held(500).empty());
  EXPECT_TRUE(b.s.instances(500, "GPU").empty());
  EXPECT_EQ(b.s.busy_since(500), b.now);
  EXPECT_STREQ(b.s.worker_state(500), "leased");
  EXPECT_EQ(b.s.counts().leased, 1u);
  EXPECT_EQ(b.s.counts().foreign, 1u);
  EXPECT_EQ(b.s.counts().waiting, 0u);
  const std::vector<uint32_t> both = {local.worker, 500};
  EXPECT_EQ(b.s.workers_of(1), both);
  b.s.worker_blocked(500, true);  // it has nothing to lend
  b.turn();
  EXPECT_EQ(b.s.available().at("CPU"), 0);
  b.now += 10'000 * kMs;
  EXPECT_TRUE(b.s.overdue(b.now).empty());
  EXPECT_TRUE(b.take(Action::kReclaim).empty());
  b.give(f);
  auto stopped = b.take(Action::kStopWorker);
  ASSERT_EQ(stopped.size(), 1u);
  EXPECT_EQ(stopped[0].worker, 500u);
  EXPECT_FALSE(b.s.holds(1, 500, f.lease));
  EXPECT_EQ(b.s.busy_since(500), -1);
  b.turn();
  EXPECT_TRUE(b.take(Action::kGrant).empty());  // it is not used again, though one is wanted
  EXPECT_EQ(b.s.counts().waiting, 1u);
  b.s.worker_gone(500, b.now);
  EXPECT_EQ(b.s.counts().foreign, 0u);
  EXPECT_EQ(b.s.check(), "");
}

TEST(Foreign, WhatNobodyWantsAnyMoreEnds) {
  ForeignBench b({{"CPU", 1}});
  b.shape(1, 0, {{"CPU", 1}});
  b.want(1, 0, 2);
  (void)b.take(Action::kGrant);
  b.want(1, 0, 1);
  EXPECT_EQ(b.foreign(500, 1, 0).kind, Action::kInfeasible);  // no grant
  EXPECT_EQ(b.foreign(501, 7, 0).kind, Action::kInfeasible);  // nobody
  EXPECT_EQ(b.take(Action::kStopWorker).size(), 2u);
  b.want(1, 0, 2);
  b.s.pause_client(1, true);
  EXPECT_EQ(b.foreign(502, 1, 0).kind, Action::kInfeasible);
  b.s.pause_client(1, false);
  b.s.foreign_ready(503, 1, 0);
  b.s.worker_killed(503);
  b.turn();
  EXPECT_TRUE(b.take(Action::kGrant).empty());
  b.s.foreign_ready(504, 1, 0);
  b.s.worker_gone(504, b.now);
  b.turn();
  EXPECT_TRUE(b.take(Action::kGrant).empty());
}

TEST(Foreign, DeathsOnBothSides) {
  ForeignBench b({{"CPU", 1}});
  b.shape(1, 0, {{"gold", 1}});
  b.want(1, 0, 2);
  ASSERT_EQ(b.foreign(500, 1, 0).kind, Action::kGrant);
  ASSERT_EQ(b.foreign(501, 1, 0).kind, Action::kGrant);
  EXPECT_EQ(b.spilled(), Pairs{});
  b.s.worker_gone(500, b.now);  // its client wants another one
  EXPECT_EQ(b.spilled(), (Pairs{{1, 0}}));
  EXPECT_EQ(b.s.spills(b.now).at(0).more, 1u);
  EXPECT_EQ(b.s.client_gone(1, b.now), std::vector<uint32_t>{501});  // to be killed by who asked
  b.s.worker_killed(501);
  b.turn();
  EXPECT_TRUE(b.take(Action::kStopWorker).empty());
  b.s.worker_gone(501, b.now);
  EXPECT_EQ(b.s.counts().foreign, 0u);
  EXPECT_EQ(b.s.check(), "");
}

// What runs elsewhere comes back when there is room here that nobody waits for; each is asked once.
TEST(Foreign, ComesHomeToRoomThatNobodyWaitsFor) {
  ForeignBench b({{"CPU", 2}});
  b.shape(1, 0, {{"CPU", 1}});
  b.shape(1, 1, {{"gold", 1}});
  b.shape(2, 0, {{"CPU", 1}});
  b.want(2, 0, 2);
  auto local = b.take(Action::kGrant);
  b.want(1, 0, 2);
  b.want(1, 1, 1);
  ASSERT_EQ(b.foreign(500, 1, 1).kind, Action::kGrant);  // never here
  ASSERT_EQ(b.foreign(501, 1, 0).kind, Action::kGrant);
  ASSERT_EQ(b.foreign(502, 1, 0).kind, Action::kGrant);
  b.take(Action::kReclaim);  // of client 2, before client 1 had anything
  b.now += 1000 * kMs;
  b.turn();
  EXPECT_TRUE(b.take(Action::kReclaim).empty());
  b.want(2, 0, 1);
  b.give(local[0]);
  auto asked = b.take(Action::kReclaim);
  ASSERT_EQ(asked.size(), 1u);  // for one there is room
  EXPECT_EQ(asked[0].worker, 501u);
  b.now += 1000 * kMs;
  b.turn();
  EXPECT_TRUE(b.take(Action::kReclaim).empty());  // and it is on its way
  b.give(asked[0]);
  auto grants = b.take(Action::kGrant);
  ASSERT_EQ(grants.size(), 1u);
  EXPECT_GE(grants[0].worker, 1000u);
  EXPECT_FALSE(b.s.held(grants[0].worker).empty());
}

TEST(Foreign, AShapeThatIsInUseElsewhereIsNotDefinedAnew) {
  ForeignBench b({{"CPU", 1}});
  b.shape(1, 0, {{"gold", 1}});
  b.want(1, 0, 1);
  const Action f = b.foreign(500, 1, 0);
  b.want(1, 0, 0);
  EXPECT_FALSE(b.s.define_shape(1, 0, make({{"CPU", 1}}), kPool).ok());
  b.give(f);
  EXPECT_TRUE(b.s.define_shape(1, 0, make({{"CPU", 1}}), kPool).ok());
}

// What a client has elsewhere makes it no richer here: it goes before one that has a lease of this node's, and what it has
// of this node is not asked back sooner.
TEST(Foreign, DoesNotMakeItsClientRicher) {
  ForeignBench b({{"CPU", 2}});
  b.shape(1, 0, {{"CPU", 1}});
  b.shape(2, 0, {{"CPU", 1}});
  b.shape(3, 0, {{"CPU", 1}});
  b.want(3, 0, 2);
  auto both = b.take(Action::kGrant);
  ASSERT_EQ(both.size(), 2u);
  b.want(1, 0, 10);
  for (uint32_t w = 500; w < 505; ++w) ASSERT_EQ(b.foreign(w, 1, 0).kind, Action::kGrant);
  b.want(2, 0, 10);
  b.give(both[0]);
  auto grants = b.take(Action::kGrant);
  ASSERT_EQ(grants.size(), 1u);
  EXPECT_EQ(grants[0].client, 1u);  // it waited first, and has as few of this node as client 2
  b.give(both[1]);
  grants = b.take(Action::kGrant);
  ASSERT_EQ(grants.size(), 1u);
  EXPECT_EQ(grants[0].client, 2u);
  ASSERT_TRUE(b.s.want(3, 0, 0, TaskId{}).ok());
  // Everybody has one: nobody gives way to the other.
  b.take(Action::kReclaim);
  b.now += 20 * kMs;
  b.turn();
  EXPECT_TRUE(b.take(Action::kReclaim).empty());
}

// All local workers wait, at the limit of processes: the way out is found whatever runs elsewhere.
TEST(Foreign, DoesNotHideThatAllWorkersWait) {
  SchedulerOptions o;
  o.total = make({{"CPU", 4}});
  o.max_workers = 1;
  o.spill_ns = kSpillNs;
  o.checks = true;
  LocalScheduler s(o);
  int64_t now = 1'000'000'000;
  ASSERT_TRUE(s.define_shape(1, 0, make({{"CPU", 1}}), kPool).ok());
  ASSERT_TRUE(s.want(1, 0, 2, TaskId{}).ok());
  Actions out;
  s.schedule(now, &out);
  s.worker_ready(5, kPool, now);
  s.foreign_ready(500, 1, 0);
  out.clear();
  s.schedule(now, &out);
  ASSERT_EQ(s.counts().leased, 1u);
  ASSERT_EQ(s.busy_since(500), now);
  ASSERT_TRUE(s.define_shape(5, 0, make({{"CPU", 1}}), kPool).ok());
  ASSERT_TRUE(s.want(5, 0, 1, TaskId{}).ok());
  s.worker_blocked(5, true);
  uint32_t started = 0;
  for (int i = 0; i < 20 && !started; ++i) {
    now += 1'000'000'000;
    out.clear();
    s.schedule(now, &out);
    ASSERT_EQ(s.check(), "");
    for (const Action& a : out) started += a.kind == Action::kStartWorkers ? a.count : 0;
  }
  EXPECT_EQ(started, 1u);
}

// ---- random runs

class ForeignRun {
 public:
  explicit ForeignRun(uint32_t seed) : random_(seed), b_({{"CPU", 1 + static_cast<double>(seed % 3)}, {"GPU", 1}}) {
    static const std::map<std::string, double> kNeeds[] = {{{"CPU", 1}}, {{"GPU", 0.5}}, {{"gold", 1}}, {{"CPU", 64}}, {}};
    for (uint32_t c = 1; c <= kClients; ++c)
      for (uint32_t s = 0; s < kShapes; ++s) b_.shape(c, s, kNeeds[s]);
  }
  void run() {
    for (int i = 0; i < 1500 && !::testing::Test::HasFailure(); ++i) {
      b_.now += pick(3'000'000);
      mutate();
      turn();
    }
    // Calm: other nodes serve all that is spilled. Everybody gets something.
    std::set<std::pair<uint32_t, uint32_t>> waiting;
    for (uint32_t c = 1; c <= kClients; ++c)
      for (uint32_t s = 0; s < kShapes; ++s) {
        ASSERT_TRUE(b_.s.want(c, s, 1, TaskId{}).ok());
        waiting.insert({c, s});
      }
    for (int i = 0; i < 3000 && !waiting.empty() && !::testing::Test::HasFailure(); ++i) {
      b_.now += 1'000'000;
      open();
      if (!held_.empty() && pick(3) == 0) end(held_.begin()->first);
      turn();
      for (const auto& [w, g] : held_) waiting.erase({g.client, g.shape});
    }
    EXPECT_TRUE(waiting.empty()) << waiting.size() << " demands starved";
  }

 private:
  static constexpr uint32_t kClients = 4, kShapes = 5;
  uint32_t pick(uint32_t n) { return std::uniform_int_distribution<uint32_t>(0, n - 1)(random_); }
  void open() {
    for (const Spill& x : b_.s.spills(b_.now))
      if (pick(2)) b_.s.foreign_ready(next_foreign_++, x.client, x.shape);
  }
  void turn() {
    Actions out;
    b_.s.schedule(b_.now, &out);
    ASSERT_EQ(b_.s.check(), "");
    for (const Action& a : out) {
      const bool foreign = a.worker >= kForeign;
      if (a.kind == Action::kGrant) {
        ASSERT_FALSE(used_.count(a.worker)) << "a stand-in was given twice, or a worker to two";
        held_[a.worker] = a;
        used_.insert(a.worker);
        ASSERT_EQ(b_.s.held(a.worker).empty(), foreign || a.shape == 4);
      } else if (a.kind == Action::kStopWorker) {
        ASSERT_FALSE(held_.count(a.worker));
        b_.s.worker_gone(a.worker, b_.now);
      } else if (a.kind == Action::kReclaim) {
        ASSERT_TRUE(!foreign || asked_back_.insert(a.worker).second) << "a stand-in was asked back twice";
      } else if (a.kind == Action::kStartWorkers) {
        for (uint32_t i = 0; i < a.count; ++i) b_.s.worker_ready(b_.next_worker++, a.pool, b_.now);
      }
    }
  }
  void end(uint32_t worker) {
    const Action g = held_.at(worker);
    held_.erase(worker);
    if (worker < kForeign) used_.erase(worker);
    ASSERT_TRUE(b_.s.return_lease(g.client, g.worker, g.lease, b_.now).ok());
  }
  void mutate() {
    const uint32_t what = pick(100);
    auto any = [&] { return std::next(held_.begin(), pick(static_cast<uint32_t>(held_.size())))->first; };
    if (what < 35) {
      ASSERT_TRUE(b_.s.want(1 + pick(kClients), pick(kShapes), pick(5), TaskId{}).ok());
    } else if (what < 55) {
      open();
    } else if (what < 60) {
      b_.s.foreign_ready(next_foreign_++, 1 + pick(kClients + 1), pick(kShapes));
    } else if (held_.empty()) {
      return;
    } else if (what < 85) {
      end(any());
    } else if (what < 90) {
      b_.s.worker_blocked(any(), pick(2));
    } else if (what < 97) {
      const uint32_t worker = any();
      held_.erase(worker);
      b_.s.worker_gone(worker, b_.now);
      used_.erase(worker);
    } else {
      const uint32_t client = 1 + pick(kClients);
      for (uint32_t worker : b_.s.client_gone(client, b_.now)) {
        ASSERT_EQ(held_.at(worker).client, client);
        held_.erase(worker);
        used_.erase(worker);
        b_.s.worker_killed(worker);
        b_.s.worker_gone(worker, b_.now);
      }
      static const std::map<std::string, double> kNeeds[] = {{{"CPU", 1}}, {{"GPU", 0.5}}, {{"gold", 1}}, {{"CPU", 64}}, {}};
      for (uint32_t s = 0; s < kShapes; ++s) b_.shape(client, s, kNeeds[s]);
    }
  }

  static constexpr uint32_t kForeign = 1'000'000;
  std::mt19937 random_;
  ForeignBench b_;
  uint32_t next_foreign_ = kForeign;
  std::map<uint32_t, Action> held_;  // by worker
  std::set<uint32_t> used_, asked_back_;
};

TEST(ForeignProperty, NothingTwiceNobodyStarves) {
  for (uint32_t seed = 1; seed <= 40 && !::testing::Test::HasFailure(); ++seed) {
    SCOPED_TRACE(seed);
    ForeignRun(seed).run();
  }
}

}  // namespace
}  // namespace ray::sched
