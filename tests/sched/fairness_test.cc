// The rule of fairness (docs/node.md): whatever fits beside what is held for good starts within a bound that does not
// depend on how long others go on. First the ways in which somebody was kept waiting for ever, one by one, then random
// nodes full of streams that never end.
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <map>
#include <random>
#include <set>

#include "scheduler_bench.h"

namespace ray::sched {
namespace {

constexpr int64_t kMs = 1'000'000;

struct FairBench : Bench {
  using Bench::Bench;
  void shape(uint32_t client, uint32_t shape, std::map<std::string, double> need, Pool pool = kPool,
             const Placement& where = {}) {
    ASSERT_TRUE(s.define_shape(client, shape, make(std::move(need)), pool, where).ok());
  }
  void actor(uint32_t n, std::map<std::string, double> need) {
    s.want_actor(id_of(n), make(std::move(need)), kPool);
    turn();
    ASSERT_EQ(take(Action::kAssignActor).size(), 1u);
  }
};

// Runs one task after the other on every lease, for ever; gives a lease back at the end of a task when it is asked
// to, and asks for another at once.
struct Streams {
  struct Running {
    Action grant;
    int64_t ends = 0;
    bool reclaimed = false;
  };
  explicit Streams(FairBench* bench) : b(bench) {}
  FairBench* b;
  std::map<std::pair<uint32_t, uint32_t>, int64_t> length;  // client, shape -> of its tasks; 0: they never end
  std::map<uint32_t, Running> running;                      // by lease
  std::map<std::pair<uint32_t, uint32_t>, int64_t> first;   // when its first lease came

  void add(uint32_t client, uint32_t shape, std::map<std::string, double> need, int64_t task, uint32_t want = 50) {
    b->shape(client, shape, std::move(need));
    length[{client, shape}] = task;
    b->want(client, shape, want);
  }
  // A millisecond at a time, what the scheduler asks for included.
  void run(int64_t for_ns, const std::function<bool()>& until = [] { return false; }) {
    for (int64_t end = b->now + for_ns; b->now < end && !until() && !::testing::Test::HasFatalFailure();) {
      b->now += kMs;
      for (auto it = running.begin(); it != running.end();) {
        Running& r = it->second;
        int64_t task = length[{r.grant.client, r.grant.shape}];
        if (!task || r.ends > b->now) {
          ++it;
        } else if (!r.reclaimed) {
          r.ends += task;
          ++it;
        } else {
          Action grant = r.grant;
          it = running.erase(it);
          ASSERT_TRUE(b->s.return_lease(grant.client, grant.worker, grant.lease, b->now).ok());
        }
      }
      int64_t at = b->s.next_deadline(b->now);
      if (b->now % (10 * kMs) == 0 || (at && at <= b->now)) b->turn();
      for (const Action& g : b->take(Action::kGrant)) {
        running[g.lease] = {g, b->now + length[{g.client, g.shape}]};
        first.try_emplace({g.client, g.shape}, b->now);
      }
      for (const Action& a : b->take(Action::kStopWorker)) b->s.worker_gone(a.worker, b->now);
      for (const Action& a : b->take(Action::kReclaim))
        if (auto r = running.find(a.lease); r != running.end()) r->second.reclaimed = true;
    }
  }
  bool started(uint32_t client, uint32_t shape) const { return first.count({client, shape}) > 0; }
};

// ---- what cannot be placed stops nobody

void small_ones_come_and_go(FairBench* b) {
  b->shape(2, 0, {{"CPU", 1}});
  for (int i = 0; i < 200; ++i) {
    b->want(2, 0, 1);
    auto grant = b->take(Action::kGrant);
    ASSERT_EQ(grant.size(), 1u) << "after " << i;
    b->want(2, 0, 0);
    b->now += 50 * kMs;
    b->give(grant[0]);
    b->now += 50 * kMs;
    b->turn();
  }
}

TEST(Fairness, ATaskThatWaitsForAnActorsCpuStopsNobody) {
  FairBench b({{"CPU", 2}});
  b.actor(1, {{"CPU", 1}});
  b.shape(1, 0, {{"CPU", 2}});
  b.want(1, 0, 1);
  small_ones_come_and_go(&b);
  b.want(1, 0, 0);
  EXPECT_EQ(b.s.counts().waiting, 0u);
}

TEST(Fairness, AnActorThatCannotBePlacedStopsNobody) {
  FairBench b({{"CPU", 2}});
  b.actor(1, {{"CPU", 1}});
  b.s.want_actor(id_of(2), make({{"CPU", 2}}), kPool);
  small_ones_come_and_go(&b);
}

TEST(Fairness, APendingGroupStopsNobody) {
  FairBench b({{"CPU", 2}});
  b.actor(1, {{"CPU", 1}});
  ASSERT_TRUE(b.s.create_group(id_of(9), {make({{"CPU", 2}})}, false).ok());
  small_ones_come_and_go(&b);
}

TEST(Fairness, AGroupOfBundlesThatActorsFillStopsNobodyInIt) {
  FairBench b({{"CPU", 2}});
  ASSERT_TRUE(b.s.create_group(id_of(9), {make({{"CPU", 2}})}, false).ok());
  b.turn();
  b.s.want_actor(id_of(1), make({{"CPU", 1}}), kPool, {id_of(9), -1, ""});
  b.turn();
  b.shape(1, 0, {{"CPU", 2}}, kPool, {id_of(9), -1, ""});
  b.want(1, 0, 1);
  b.shape(2, 0, {{"CPU", 1}}, kPool, {id_of(9), -1, ""});
  for (int i = 0; i < 50; ++i) {
    b.want(2, 0, 1);
    auto grant = b.take(Action::kGrant);
    ASSERT_EQ(grant.size(), 1u) << "after " << i;
    b.want(2, 0, 0);
    b.now += 100 * kMs;
    b.give(grant[0]);
  }
}

// Workers that die before they are ready: what needs one waits, others have the processor.
TEST(Fairness, ACommandThatCrashesStopsNobody) {
  FairBench b({{"CPU", 1}});
  Pool broken{0, 1, 7};
  b.shape(2, 0, {{"CPU", 1}});
  b.want(2, 0, 1);
  auto grant = b.take(Action::kGrant);
  ASSERT_EQ(grant.size(), 1u);
  b.want(2, 0, 0);
  b.give(grant[0]);
  b.start_at_once = false;
  b.shape(1, 0, {{"CPU", 1}}, broken);
  b.want(1, 0, 1);
  int64_t longest = 0;
  for (int i = 0; i < 100; ++i) {
    b.want(2, 0, 1);
    int64_t begun = b.now;
    for (grant.clear(); grant.empty() && b.now < begun + 10'000 * kMs; b.now += 10 * kMs) {
      b.turn();
      for ([[maybe_unused]] const Action& a : b.take(Action::kStartWorkers)) b.s.worker_start_failed(broken, b.now);
      grant = b.take(Action::kGrant);
    }
    ASSERT_EQ(grant.size(), 1u) << "after " << i;
    longest = std::max(longest, b.now - begun);
    b.want(2, 0, 0);
    b.give(grant[0]);
  }
  EXPECT_LE(longest, 100 * kMs);
}

// One that never says anything either.
TEST(Fairness, AWorkerThatDoesNotStartStopsNobodyForLong) {
  FairBench b({{"CPU", 1}});
  b.s.prestart(kPool, 1);
  b.turn();
  b.start_at_once = false;
  b.shape(1, 0, {{"CPU", 1}}, Pool{0, 1, 7});
  b.want(1, 0, 1);
  b.shape(2, 0, {{"CPU", 1}});
  b.want(2, 0, 1);
  b.take(Action::kStartWorkers);
  for (int i = 0; i < 100 && b.seen.empty(); ++i) {
    b.now += 100 * kMs;
    b.turn();
  }
  EXPECT_EQ(b.take(Action::kGrant).size(), 1u);
}

// ---- whatever fits has its turn

TEST(Fairness, AnotherShapeOfTheSameClient) {
  FairBench b({{"CPU", 2}});
  Streams s(&b);
  s.add(1, 0, {{"CPU", 1}}, 50 * kMs);
  s.run(500 * kMs);
  s.add(1, 1, {{"CPU", 0.5}}, 10 * kMs, 1);
  s.run(25'000 * kMs, [&] { return s.started(1, 1); });
  EXPECT_TRUE(s.started(1, 1));
  EXPECT_LE(b.now, 1'000 * kMs + 500 * kMs + 1'000 * kMs);
}

TEST(Fairness, TheNextTaskOfWhoHasALease) {
  FairBench b({{"CPU", 2}});
  Streams s(&b);
  s.add(1, 0, {{"CPU", 1}}, 0, 1);            // a task that takes for ever
  s.add(2, 0, {{"CPU", 1}}, 50 * kMs, 1);     // another client's loop
  s.run(500 * kMs);
  ASSERT_TRUE(s.started(1, 0) && s.started(2, 0));
  b.want(1, 0, 2);
  size_t before = s.running.size();
  ASSERT_EQ(before, 2u);
  bool second = false;
  s.run(5'000 * kMs, [&] {
    uint32_t mine = 0;
    for (auto& [id, r] : s.running) mine += r.grant.client == 1;
    return second |= mine == 2;
  });
  EXPECT_TRUE(second);
}

TEST(Fairness, ALargeShapeAmongStreams) {
  FairBench b({{"CPU", 4}});
  Streams s(&b);
  for (uint32_t c = 1; c <= 3; ++c) s.add(c, 0, {{"CPU", 1}}, 40 * kMs * c);
  s.run(500 * kMs);
  s.add(4, 0, {{"CPU", 4}}, 10 * kMs, 1);
  s.run(5'000 * kMs, [&] { return s.started(4, 0); });
  EXPECT_TRUE(s.started(4, 0));
}

TEST(Fairness, AGroupAmongStreams) {
  FairBench b({{"CPU", 4}});
  Streams s(&b);
  for (uint32_t c = 1; c <= 3; ++c) s.add(c, 0, {{"CPU", 1}}, 40 * kMs * c);
  s.run(500 * kMs);
  ASSERT_TRUE(b.s.create_group(id_of(9), {make({{"CPU", 2}}), make({{"CPU", 2}})}, false).ok());
  s.run(5'000 * kMs, [&] { return !b.take(Action::kGroupReady).empty(); });
  EXPECT_EQ(b.s.available().at("CPU"), 0);
  EXPECT_LT(b.now, 6'000 * kMs);
}

// The one whose lease is asked for first takes for ever: another's is asked for too.
TEST(Fairness, ALongTaskIsNotTheOnlyOneThatIsAskedToGo) {
  FairBench b({{"CPU", 2}});
  Streams s(&b);
  s.add(1, 0, {{"CPU", 1}}, 0, 1);
  s.run(20 * kMs);
  s.add(2, 0, {{"CPU", 1}}, 50 * kMs, 1);
  s.run(200 * kMs);
  s.add(3, 0, {{"CPU", 1}}, 10 * kMs, 1);
  s.run(5'000 * kMs, [&] { return s.started(3, 0); });
  EXPECT_TRUE(s.started(3, 0));
  EXPECT_LT(b.now, 3'000 * kMs);
}

// What waits for a task that takes for ever keeps others waiting once, for one turn, and not again and again.
TEST(Fairness, WaitingForALongTaskStopsOthersOnceAtMost) {
  FairBench b({{"CPU", 2}});
  Streams s(&b);
  s.add(1, 0, {{"CPU", 1}}, 0, 1);
  s.run(20 * kMs);
  s.add(2, 0, {{"CPU", 2}}, 10 * kMs, 1);
  b.shape(3, 0, {{"CPU", 1}});
  int64_t waited = 0;
  for (int i = 0; i < 300; ++i) {
    b.want(3, 0, 1);
    for (;; b.now += kMs, waited += kMs) {
      ASSERT_LT(waited, 3'000 * kMs);
      b.turn();
      b.take(Action::kReclaim);
      auto grant = b.take(Action::kGrant);
      if (grant.empty()) continue;
      b.want(3, 0, 0);
      b.now += 50 * kMs;
      b.give(grant[0]);
      break;
    }
    b.now += 50 * kMs;
    b.turn();
  }
  // And as soon as the long one is done it has its turn.
  Action held = s.running.begin()->second.grant;
  b.want(held.client, held.shape, 0);
  b.give(held);
  EXPECT_FALSE(s.started(2, 0));
  EXPECT_EQ(b.take(Action::kGrant).size(), 1u);
}

// Tasks that take longer than a first turn, one after the other on each processor, never free at the same time.
TEST(Fairness, TurnsGetLongerUntilTheyAreLongEnough) {
  FairBench b({{"CPU", 3}});
  Streams s(&b);
  for (uint32_t c = 1; c <= 3; ++c) {
    s.add(c, 0, {{"CPU", 1}}, 7'000 * kMs);
    s.run(2'000 * kMs);
  }
  int64_t begun = b.now;
  s.add(4, 0, {{"CPU", 3}}, 10 * kMs, 1);
  s.run(200'000 * kMs, [&] { return s.started(4, 0); });
  EXPECT_TRUE(s.started(4, 0));
  EXPECT_LT(b.now - begun, 120'000 * kMs);
}

// As many processes as there may be, all busy with another environment's stream.
TEST(Fairness, AnotherEnvironmentAtTheLimitOfProcesses) {
  FairBench b({{"CPU", 4}}, 2);
  Streams s(&b);
  s.add(1, 0, {{"CPU", 1}}, 50 * kMs);
  s.run(500 * kMs);
  b.shape(2, 0, {{"CPU", 1}}, Pool{0, 1, 7});
  s.length[{2, 0}] = 10 * kMs;
  b.want(2, 0, 1);
  s.run(5'000 * kMs, [&] { return s.started(2, 0); });
  EXPECT_TRUE(s.started(2, 0));
  EXPECT_LT(b.now, 4'000 * kMs);
}

// What a turn brought is there, but no worker yet: the turn is over, and nothing else keeps it from its worker.
TEST(Fairness, AWorkerThatComesLaterIsUsedAtOnce) {
  FairBench b({{"CPU", 1}});
  Pool other{0, 1, 7};
  b.shape(2, 0, {{"CPU", 1}});
  b.want(2, 0, 1);
  auto grant = b.take(Action::kGrant);
  ASSERT_EQ(grant.size(), 1u);
  b.want(2, 0, 0);
  b.start_at_once = false;
  b.s.prestart(other, 1);
  b.turn();
  for (int i = 0; i < 8; ++i) b.s.worker_start_failed(other, b.now);
  b.shape(1, 0, {{"CPU", 1}}, other);
  b.want(1, 0, 1);
  b.now += 600 * kMs;  // its turn begins: the lease is reclaimed
  b.turn();
  b.now += 100 * kMs;
  b.give(grant[0]);  // it fits; its command has failed and is not tried again for long
  EXPECT_TRUE(b.take(Action::kGrant).empty());
  b.now += 10 * kMs;
  b.s.worker_ready(50, other, b.now);
  b.turn();
  EXPECT_EQ(b.take(Action::kGrant).size(), 1u);
}

// A bundle that an actor fills is not the only one.
TEST(Fairness, AnyBundleThatCanGetRoom) {
  FairBench b({{"CPU", 2}});
  ASSERT_TRUE(b.s.create_group(id_of(9), {make({{"CPU", 1}}), make({{"CPU", 1}})}, false).ok());
  b.turn();
  b.s.want_actor(id_of(1), make({{"CPU", 1}}), kPool, {id_of(9), 0, ""});
  b.turn();
  Streams s(&b);
  b.shape(1, 0, {{"CPU", 1}}, kPool, {id_of(9), -1, ""});
  s.length[{1, 0}] = 50 * kMs;
  b.want(1, 0, 9);
  s.run(300 * kMs);
  ASSERT_TRUE(s.started(1, 0));
  b.shape(1, 1, {{"CPU", 0.5}}, kPool, {id_of(9), -1, ""});
  s.length[{1, 1}] = 10 * kMs;
  b.want(1, 1, 1);
  s.run(3'000 * kMs, [&] { return s.started(1, 1); });
  EXPECT_TRUE(s.started(1, 1));
}

// ---- costs

// More shapes than a round looks at, each with one task: all are served, whatever their order.
TEST(Fairness, ManyShapes) {
  constexpr uint32_t kShapes = 1500;
  FairBench b({{"CPU", 2}, {"disk", 2}});
  std::mt19937 random(7);
  Streams s(&b);
  std::set<uint32_t> open;
  for (uint32_t i = 0; i < kShapes; ++i) {
    std::map<std::string, double> need{{"CPU", (1 + random() % 20000) / 10000.0}};
    if (random() % 4 == 0) need["disk"] = 1 + random() % 2;
    b.shape(1, i, std::move(need));
    ASSERT_TRUE(b.s.want(1, i, 1, TaskId{}).ok());
    open.insert(i);
  }
  for (int i = 0; i < 200'000 && !open.empty() && !HasFatalFailure(); ++i) {
    b.turn();
    auto grants = b.take(Action::kGrant);
    b.take(Action::kReclaim);
    b.now += kMs;
    for (const Action& g : grants) {
      open.erase(g.shape);
      ASSERT_TRUE(b.s.want(1, g.shape, 0, TaskId{}).ok());
      ASSERT_TRUE(b.s.return_lease(g.client, g.worker, g.lease, b.now).ok());
    }
  }
  EXPECT_TRUE(open.empty()) << open.size() << " were never looked at";
}

// What cannot be placed costs its text and nothing else, however much it asks for and whatever it calls it.
TEST(Fairness, HopelessRequestsTakeNoTables) {
  FairBench b({{"CPU", 1}, {"GPU", 1}});
  b.turn();
  uint64_t before = b.s.sizes().at(0).second;
  ASSERT_STREQ(b.s.sizes()[0].first, "resources");
  ASSERT_TRUE(b.s.create_group(id_of(1), {make({{"GPU", 5e6}}), make({{"GPU", 1e13}})}, false).ok());
  std::vector<Resources> most(4096, make({{"CPU", 1e13}}));
  ASSERT_TRUE(b.s.create_group(id_of(2), most, false).ok());
  for (uint32_t i = 0; i < 1000; ++i) {
    b.shape(1, i, {{"only-" + std::to_string(i), 1}});
    ASSERT_TRUE(b.s.want(1, i, 1, TaskId{}).ok());
    ASSERT_TRUE(b.s.create_group(id_of(1000 + i), {make({{"group-" + std::to_string(i), 1}})}, false).ok());
  }
  b.turn();
  EXPECT_EQ(b.take(Action::kInfeasible).size(), 1000u);
  EXPECT_EQ(b.take(Action::kGroupInfeasible).size(), 1002u);
  EXPECT_EQ(b.s.sizes()[0].second, before);
}

TEST(Fairness, IdleWorkersAreCountedOverTheNode) {
  FairBench b({{"CPU", 2}});
  for (uint32_t env = 1; env <= 20; ++env) {
    b.shape(1, env, {{"CPU", 1}}, Pool{0, 1, env});
    b.want(1, env, 1);
    auto grant = b.take(Action::kGrant);
    ASSERT_EQ(grant.size(), 1u);
    b.want(1, env, 0);
    b.now += kMs;
    b.give(grant[0]);
  }
  EXPECT_EQ(b.s.counts().idle, 20u);
  b.now += 3'000 * kMs;
  b.turn();
  auto stopped = b.take(Action::kStopWorker);
  EXPECT_EQ(stopped.size(), 18u);  // those that were used last stay
  for (const Action& a : stopped) {
    EXPECT_LT(a.worker, 1018u);
    b.s.worker_gone(a.worker, b.now);
  }
  EXPECT_EQ(b.s.check(), "");
}

// ---- random nodes

// Streams that never end, actors, groups and tasks that hold for ever, requests that nothing can help. Now and then
// something is asked for that fits beside what is held for ever: it starts in time.
void random_node(uint32_t seed) {
  std::mt19937 random(seed);
  auto pick = [&](uint32_t n) { return static_cast<uint32_t>(random() % n); };
  double cpus = 2 + pick(6);
  FairBench b({{"CPU", cpus}, {"disk", 4}});
  Streams s(&b);
  double held = 0;
  uint32_t next = 1;
  if (pick(2)) b.actor(next++, {{"CPU", 1}}), ++held;
  if (pick(2)) s.add(100, 0, {{"CPU", 0.5}}, 0, 1), held += 0.5;
  s.run(50 * kMs);
  for (uint32_t c = 1; c <= 1 + pick(4); ++c)
    for (uint32_t shape = 0; shape <= pick(3); ++shape) {
      std::map<std::string, double> need{{"CPU", 0.5 * (1 + pick(2))}};
      if (pick(2)) need["disk"] = 1;
      s.add(c, shape, need, (1 + pick(300)) * kMs, 1 + pick(20));
    }
  if (held >= 1) {
    b.shape(101, 0, {{"CPU", cpus}});
    b.want(101, 0, 1);
    b.s.want_actor(id_of(900), make({{"CPU", cpus}}), kPool);
    ASSERT_TRUE(b.s.create_group(id_of(901), {make({{"CPU", cpus}})}, false).ok());
  }
  s.run(2'000 * kMs);
  std::map<uint32_t, int64_t> open;  // client -> since
  for (int i = 0; i < 12; ++i) {
    for (uint32_t n = 1 + pick(3); n > 0; --n) {
      uint32_t client = 200 + next++;
      double most = cpus - held;
      std::map<std::string, double> need{{"CPU", std::max(0.5, most * (1 + pick(4)) / 4)}};
      if (pick(3) == 0) need["disk"] = 1 + pick(4);
      s.add(client, 0, need, (1 + pick(100)) * kMs, 1);
      open[client] = b.now;
    }
    s.run((100 + pick(3000)) * kMs);
    for (auto it = open.begin(); it != open.end();) {
      auto first = s.first.find({it->first, 0});
      // Three at a time, with a turn each, and tasks of at most 300 ms.
      ASSERT_LT((first == s.first.end() ? b.now : first->second) - it->second, 15'000 * kMs);
      if (first == s.first.end()) {
        ++it;
        continue;
      }
      (void)b.s.want(it->first, 0, 0, TaskId{});
      for (auto& [lease, r] : s.running)
        if (r.grant.client == it->first) r.reclaimed = true;
      it = open.erase(it);
    }
    if (::testing::Test::HasFatalFailure()) return;
  }
}

TEST(Fairness, RandomNodes) {
  for (uint32_t seed = 1; seed <= 25 && !HasFatalFailure(); ++seed) {
    SCOPED_TRACE(seed);
    random_node(seed);
  }
}

}  // namespace
}  // namespace ray::sched
