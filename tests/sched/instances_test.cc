// GPUs in the local scheduler: which units a worker gets, that no unit is given twice, that shares
// of one add up, that all come back; random runs whose every step is checked.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>

#include "scheduler_bench.h"

namespace ray::sched {
namespace {

using Ids = std::vector<uint32_t>;

struct GpuBench : Bench {
  using Bench::Bench;
  uint32_t next_shape = 0;

  // Wants `n` leases that need so much; what was granted at once.
  std::vector<Action> ask(uint32_t client, double gpus, uint32_t n, const Placement& where = {}) {
    uint32_t shape = next_shape++;
    EXPECT_TRUE(s.define_shape(client, shape, make({{"GPU", gpus}}), kPool, where).ok());
    EXPECT_TRUE(s.want(client, shape, n, TaskId{}).ok());
    turn();
    return take(Action::kGrant);
  }
  Ids ids(const Action& grant) const { return s.instances(grant.worker, "GPU"); }
};

TEST(Instances, WholeUnitsAreNobodyElses) {
  GpuBench b({{"CPU", 1}, {"GPU", 4}});
  auto two = b.ask(1, 2, 1);
  ASSERT_EQ(two.size(), 1u);
  EXPECT_EQ(b.ids(two[0]), (Ids{0, 1}));
  auto ones = b.ask(2, 1, 3);
  ASSERT_EQ(ones.size(), 2u);
  EXPECT_EQ(b.ids(ones[0]), Ids{2});
  EXPECT_EQ(b.ids(ones[1]), Ids{3});
  ASSERT_TRUE(b.s.want(1, two[0].shape, 0, TaskId{}).ok());
  b.give(two[0]);
  auto next = b.take(Action::kGrant);
  ASSERT_EQ(next.size(), 1u);
  EXPECT_EQ(b.ids(next[0]), Ids{0});
  EXPECT_EQ(b.s.total().at("GPU"), 4);
  EXPECT_EQ(b.s.available().at("GPU"), 1);
  EXPECT_EQ(b.s.held(next[0].worker), (std::map<std::string, double>{{"GPU", 1}}));
}

TEST(Instances, SharesFillOneUnitBeforeTheNext) {
  GpuBench b({{"CPU", 1}, {"GPU", 2}});
  auto half = b.ask(1, 0.5, 1), quarter = b.ask(2, 0.25, 1);
  ASSERT_EQ(half.size() + quarter.size(), 2u);
  EXPECT_EQ(b.ids(half[0]), Ids{0});
  EXPECT_EQ(b.ids(quarter[0]), Ids{0});
  auto large = b.ask(3, 0.5, 1);  // does not fit beside them
  ASSERT_EQ(large.size(), 1u);
  EXPECT_EQ(b.ids(large[0]), Ids{1});
  auto last = b.ask(4, 0.25, 1);
  ASSERT_EQ(last.size(), 1u);
  EXPECT_EQ(b.ids(last[0]), Ids{0});
}

TEST(Instances, FreePartsOfTwoUnitsAreNoUnit) {
  GpuBench b({{"CPU", 1}, {"GPU", 2}});
  auto first = b.ask(1, 0.6, 1), second = b.ask(2, 0.6, 1);
  EXPECT_EQ(b.ids(first[0]), Ids{0});
  EXPECT_EQ(b.ids(second[0]), Ids{1});
  EXPECT_TRUE(b.ask(3, 0.5, 1).empty()) << "0.8 are free, but in two parts";
  b.give(first[0]);
  auto got = b.take(Action::kGrant);
  ASSERT_EQ(got.size(), 1u);
  EXPECT_EQ(b.ids(got[0]), Ids{0});
}

// Whoever wants a whole unit gets one in the end, although parts are asked for all the time.
TEST(Instances, PartsDoNotStarveAWhole) {
  GpuBench b({{"CPU", 1}, {"GPU", 1}});
  std::vector<Action> held = b.ask(1, 0.5, 2);
  ASSERT_EQ(held.size(), 2u);
  EXPECT_TRUE(b.ask(2, 1, 1).empty());
  bool whole = false;
  for (int i = 0; i < 100 && !whole; ++i) {
    b.now += 10'000'000;
    if (held.empty()) break;
    Action oldest = held.front();
    held.erase(held.begin());
    b.give(oldest);
    for (const Action& g : b.take(Action::kGrant)) {
      whole |= g.client == 2;
      held.push_back(g);
    }
  }
  EXPECT_TRUE(whole);
}

TEST(Instances, TheUnevenRestIsAUnitOfItsOwn) {
  GpuBench b({{"CPU", 1}, {"GPU", 1.5}});
  EXPECT_EQ(b.ids(b.ask(1, 1, 1)[0]), Ids{0});
  EXPECT_EQ(b.ids(b.ask(2, 0.5, 1)[0]), Ids{1});
}

TEST(Instances, DeathGivesThemBack) {
  GpuBench b({{"CPU", 1}, {"GPU", 1}});
  ActorId id = actor_of(child_task(origin_of(TaskId{}), 1));
  b.s.want_actor(id, make({{"GPU", 1}}), kPool);
  b.turn();
  auto actor = b.take(Action::kAssignActor);
  ASSERT_EQ(actor.size(), 1u);
  EXPECT_EQ(b.ids(actor[0]), Ids{0});
  EXPECT_TRUE(b.ask(1, 1, 1).empty());
  b.s.worker_gone(actor[0].worker, b.now);
  b.turn();
  auto lease = b.take(Action::kGrant);
  ASSERT_EQ(lease.size(), 1u);
  EXPECT_EQ(b.ids(lease[0]), Ids{0});
  b.s.worker_gone(lease[0].worker, b.now);
  b.turn();
  EXPECT_EQ(b.ids(b.take(Action::kGrant).at(0)), Ids{0}) << "the same demand, another worker";
}

TEST(Instances, TheUnitsOfABundleAreThoseOfItsTasks) {
  GpuBench b({{"CPU", 1}, {"GPU", 4}});
  auto outside = b.ask(9, 1, 1);
  EXPECT_EQ(b.ids(outside[0]), Ids{0});
  ASSERT_TRUE(b.s.create_group(id_of(1), {make({{"GPU", 2}}), make({{"GPU", 0.5}})}, false).ok());
  b.turn();
  ASSERT_EQ(b.take(Action::kGroupReady).size(), 1u);
  auto whole = b.ask(1, 1, 3, {id_of(1), 0, ""});
  ASSERT_EQ(whole.size(), 2u);
  EXPECT_EQ(b.ids(whole[0]), Ids{1});
  EXPECT_EQ(b.ids(whole[1]), Ids{2});
  auto part = b.ask(2, 0.25, 3, {id_of(1), 1, ""});
  ASSERT_EQ(part.size(), 2u);
  EXPECT_EQ(b.ids(part[0]), Ids{3});
  EXPECT_EQ(b.ids(part[1]), Ids{3});
  EXPECT_EQ(b.ids(b.ask(3, 0.5, 1).at(0)), Ids{3}) << "what the bundle left of it";
  auto removed = b.s.remove_group(id_of(1));
  for (uint32_t worker : removed.workers) b.s.worker_gone(worker, b.now);
  b.turn();
  EXPECT_EQ(b.s.available().at("GPU"), 2.5);
  EXPECT_EQ(b.ids(b.ask(4, 2, 1).at(0)), (Ids{1, 2}));
}

TEST(Instances, BundlesThatNoDivisionFits) {
  GpuBench b({{"CPU", 1}, {"GPU", 2}});
  ASSERT_TRUE(b.s.create_group(id_of(1),
                               {make({{"GPU", 0.6}}), make({{"GPU", 0.6}}), make({{"GPU", 0.6}})},
                               false)
                  .ok());
  b.turn();
  EXPECT_EQ(b.take(Action::kGroupInfeasible).size(), 1u);
  ASSERT_TRUE(b.s.create_group(id_of(2), {make({{"GPU", 0.6}}), make({{"GPU", 0.6}})}, false).ok());
  b.turn();
  EXPECT_EQ(b.take(Action::kGroupReady).size(), 1u);
}

TEST(Instances, WithoutThemNothingChanges) {
  SchedulerOptions o;
  o.total = make({{"CPU", 1}, {"GPU", 2000}});
  o.instanced = {"GPU", "TPU"};
  LocalScheduler s(o);  // more than are told apart
  s.worker_ready(1, kPool, 0);
  ASSERT_TRUE(s.define_shape(1, 0, make({{"GPU", 1500}}), kPool).ok());
  ASSERT_TRUE(s.want(1, 0, 1, TaskId{}).ok());
  Actions out;
  s.schedule(1, &out);
  EXPECT_EQ(s.check(), "");
  ASSERT_EQ(out.size(), 1u);
  EXPECT_EQ(out[0].kind, Action::kGrant);
  EXPECT_EQ(s.instances(1, "GPU"), Ids{});
}

// Clients, groups and deaths in any order: what anybody holds of one unit is never more than the
// unit, and in the end all of it is free.
class RandomRun {
 public:
  explicit RandomRun(uint32_t seed) : random_(seed), b_({{"CPU", 4}, {"GPU", 1 + below(4)}}) {}

  void step() {
    b_.now += 1'000'000;
    const uint32_t what = below(8);
    if (what < 4)
      demand();
    else if (what < 6 && !held_.empty())
      end_one();
    else if (what == 6)
      ASSERT_TRUE(b_.s.create_group(id_of(++groups_), {make({{"GPU", amount(6)}}), make({{"GPU", 0.5}})},
                                    false)
                      .ok());
    else if (groups_ > 0)
      remove_group(1 + below(groups_));
    collect();
  }

  void end() {
    for (uint32_t n = 1; n <= groups_; ++n) remove_group(n);
    for (uint32_t client = 1; client < 4; ++client)
      for (uint32_t worker : b_.s.client_gone(client, b_.now)) b_.s.worker_gone(worker, b_.now);
    b_.turn();
    EXPECT_EQ(b_.s.available(), b_.s.total());
  }

 private:
  uint32_t below(uint32_t n) { return static_cast<uint32_t>(random_() % n); }
  double amount(uint32_t n) {
    const double amounts[] = {0.1, 0.25, 0.5, 0.5, 1, 1, 2};
    return amounts[below(n)];
  }

  void demand() {
    const double gpus = amount(7);
    const uint32_t shape = b_.next_shape++, client = 1 + below(3);
    Placement where;
    if (groups_ > 0 && below(3) == 0 && b_.s.has_group(id_of(groups_))) where.group = id_of(groups_);
    wanted_[shape] = gpus;
    ASSERT_TRUE(b_.s.define_shape(client, shape, make({{"GPU", gpus}}), kPool, where).ok());
    ASSERT_TRUE(b_.s.want(client, shape, 1 + below(2), TaskId{}).ok());
  }

  void end_one() {
    const size_t at = below(static_cast<uint32_t>(held_.size()));
    const Action g = held_[at];
    held_.erase(held_.begin() + static_cast<long>(at));
    (void)b_.s.want(g.client, g.shape, 0, TaskId{});
    if (below(3) == 0)
      b_.s.worker_gone(g.worker, b_.now);
    else
      ASSERT_TRUE(b_.s.return_lease(g.client, g.worker, g.lease, b_.now).ok());
  }

  void remove_group(uint32_t n) {
    for (uint32_t worker : b_.s.remove_group(id_of(n)).workers) {
      b_.s.worker_gone(worker, b_.now);
      std::erase_if(held_, [&](const Action& g) { return g.worker == worker; });
    }
  }

  void collect() {
    b_.turn();
    for (const Action& g : b_.take(Action::kGrant)) {
      held_.push_back(g);
      share_[g.worker] = wanted_[g.shape];
    }
    std::map<uint32_t, double> used;
    for (const Action& g : held_) {
      const double gpus = share_[g.worker];
      const Ids ids = b_.ids(g);
      ASSERT_EQ(ids.size(), gpus < 1 ? 1u : static_cast<size_t>(gpus));
      for (uint32_t id : ids) used[id] += gpus < 1 ? gpus : 1;
    }
    for (const auto& [id, sum] : used) ASSERT_LE(sum, 1.0001);
  }

  std::mt19937 random_;
  GpuBench b_;
  std::vector<Action> held_;
  std::map<uint32_t, double> share_;   // worker -> GPUs
  std::map<uint32_t, double> wanted_;  // shape -> GPUs
  uint32_t groups_ = 0;
};

TEST(Instances, RandomRuns) {
  for (uint32_t seed = 0; seed < 60 && !HasFatalFailure(); ++seed) {
    SCOPED_TRACE(seed);
    RandomRun run(seed);
    for (int i = 0; i < 150 && !HasFatalFailure(); ++i) run.step();
    if (!HasFatalFailure()) run.end();
  }
}

}  // namespace
}  // namespace ray::sched
