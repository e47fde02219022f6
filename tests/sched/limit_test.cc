// The limit of processes: tasks that wait for their own tasks may have all workers, and what they wait for is done
// all the same. Who could give a worker back is asked first; the node goes beyond its limit only when nobody could.
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "scheduler_bench.h"

namespace ray::sched {
namespace {

constexpr int64_t kMs = 1'000'000;

struct LimitBench : Bench {
  using Bench::Bench;
  void shape(uint32_t client, uint32_t shape = 0, Pool pool = kPool) {
    ASSERT_TRUE(s.define_shape(client, shape, make({{"CPU", 1}}), pool).ok());
  }
  std::vector<Action> grants() { return take(Action::kGrant); }
  // The task that this worker runs wants `n` of its own done, and waits for them.
  void wait_for(uint32_t worker, uint32_t n, Pool pool = kPool) {
    shape(worker, 0, pool);
    ASSERT_TRUE(s.want(worker, 0, n, TaskId{}).ok());
    s.worker_blocked(worker, true);
    turn();
  }
  uint32_t processes() const {
    auto n = s.counts();
    return n.idle + n.leased + n.actors + n.starting;
  }
  // Until something comes, or for a minute.
  std::vector<Action> later() {
    std::vector<Action> got;
    for (int i = 0; i < 6000 && got.empty(); ++i) {
      now += 10 * kMs;
      turn();
      got = grants();
    }
    return got;
  }
};

TEST(Limit, WhatAllWorkersWaitForHasAWorkerBeyondIt) {
  LimitBench b({{"CPU", 8}}, 4);
  b.shape(1);
  b.want(1, 0, 20);
  auto parents = b.grants();
  ASSERT_EQ(parents.size(), 4u);
  for (size_t i = 0; i < 3; ++i) b.wait_for(parents[i].worker, 2);
  EXPECT_TRUE(b.grants().empty());  // the fourth may still end
  EXPECT_EQ(b.processes(), 4u);
  b.wait_for(parents[3].worker, 2);
  std::set<uint32_t> served;
  for (int i = 0; i < 8; ++i) {  // one at a time
    auto child = b.grants();
    ASSERT_EQ(child.size(), 1u) << "after " << i;
    EXPECT_NE(child[0].client, 1u);
    EXPECT_EQ(b.processes(), 5u);
    served.insert(child[0].client);
    b.now += 10 * kMs;
    auto counts = b.s.counts();
    EXPECT_EQ(counts.leased - counts.blocked, 1u);
    ASSERT_TRUE(b.s.want(child[0].client, 0, i < 4 ? 1 : 0, TaskId{}).ok());
    b.give(child[0]);
  }
  EXPECT_EQ(served.size(), 4u);
}

// By as many as there are levels, whatever the number of calls on each of them.
TEST(Limit, ADeepRecursionGoesBeyondItByItsLevels) {
  LimitBench b({{"CPU", 8}}, 4);
  b.shape(1);
  b.want(1, 0, 20);
  auto parents = b.grants();
  ASSERT_EQ(parents.size(), 4u);
  for (const Action& p : parents) b.wait_for(p.worker, 5);
  for (uint32_t level = 1; level <= 12; ++level) {
    auto child = b.grants();
    ASSERT_EQ(child.size(), 1u) << "at level " << level;
    EXPECT_EQ(b.processes(), 4 + level);
    b.wait_for(child[0].worker, 5);
  }
}

TEST(Limit, ItIsNotLeftBehindForGood) {
  LimitBench b({{"CPU", 8}}, 4);
  for (uint32_t i = 0; i < 4; ++i) b.s.want_actor(id_of(i), make({}), kPool);
  b.turn();
  auto actors = b.take(Action::kAssignActor);
  ASSERT_EQ(actors.size(), 4u);
  for (const Action& a : actors) b.wait_for(a.worker, 1);
  auto child = b.grants();
  ASSERT_EQ(child.size(), 1u);
  for (const Action& a : actors) {
    b.s.worker_blocked(a.worker, false);
    ASSERT_TRUE(b.s.want(a.worker, 0, 0, TaskId{}).ok());
  }
  b.give(child[0]);
  EXPECT_EQ(b.processes(), 5u);
  b.now = b.s.next_deadline(b.now);
  b.turn();
  auto stopped = b.take(Action::kStopWorker);
  ASSERT_EQ(stopped.size(), 1u);
  b.s.worker_gone(stopped[0].worker, b.now);
  b.turn();
  EXPECT_EQ(b.s.next_deadline(b.now), 0);
}

// However deep it is: that many processes more, and no further.
TEST(Limit, ItIsNotExceededForEver) {
  LimitBench b({{"CPU", 8}}, 4);
  b.shape(1);
  b.want(1, 0, 20);
  auto running = b.grants();
  for (int i = 0; i < 200 && !running.empty(); ++i) {
    for (const Action& p : running) b.wait_for(p.worker, 1);
    running = b.grants();
  }
  EXPECT_EQ(b.processes(), 4u + 64);
  EXPECT_TRUE(b.later().empty());
}

// An idle worker of another environment makes room; nothing is exceeded.
TEST(Limit, AnIdleWorkerOfAnotherPoolGoesFirst) {
  LimitBench b({{"CPU", 8}}, 3);
  const Pool other{0, 1, 7};
  b.shape(1, 0);
  b.shape(1, 1, other);
  b.want(1, 1, 1);
  auto one = b.grants();
  ASSERT_EQ(one.size(), 1u);
  b.want(1, 1, 0);
  b.give(one[0]);
  b.want(1, 0, 2);
  auto parents = b.grants();
  ASSERT_EQ(parents.size(), 2u);
  for (const Action& p : parents) b.wait_for(p.worker, 1);
  auto stopped = b.take(Action::kStopWorker);
  ASSERT_EQ(stopped.size(), 1u);
  EXPECT_EQ(stopped[0].worker, one[0].worker);
  EXPECT_TRUE(b.grants().empty());
  b.s.worker_gone(stopped[0].worker, b.now);
  b.turn();
  EXPECT_EQ(b.grants().size(), 1u);
  EXPECT_EQ(b.processes(), 3u);
}

// Nobody waits, and the one who has all workers never has enough: another client of the same pool has its turn.
TEST(Limit, AnotherClientOfTheSamePoolHasItsTurn) {
  LimitBench b({{"CPU", 8}}, 2);
  b.shape(1);
  b.shape(2);
  b.want(1, 0, 50);
  ASSERT_EQ(b.grants().size(), 2u);
  b.want(2, 0, 1);
  bool served = false;
  for (int i = 0; i < 500 && !served; ++i) {
    b.now += 10 * kMs;
    b.turn();
    for (const Action& r : b.take(Action::kReclaim)) b.give(r);
    for (const Action& g : b.grants()) served |= g.client == 2;
  }
  EXPECT_TRUE(served);
}

// One task that never ends is no reason to wait for it for ever.
TEST(Limit, WhoKeepsItsLeaseIsNotWaitedFor) {
  LimitBench b({{"CPU", 8}}, 3);
  b.shape(1);
  b.want(1, 0, 3);
  auto parents = b.grants();
  ASSERT_EQ(parents.size(), 3u);
  for (size_t i = 0; i < 2; ++i) b.wait_for(parents[i].worker, 1);
  EXPECT_TRUE(b.grants().empty());
  auto child = b.later();
  ASSERT_EQ(child.size(), 1u);
  EXPECT_NE(child[0].client, 1u);
  EXPECT_EQ(b.processes(), 4u);
}

// What is set aside for the worker that is to come is not missing: nobody's lease is asked back for it.
TEST(Limit, WhatIsPlannedBeyondItIsNotFoughtFor) {
  for (const bool actor : {false, true}) {
    LimitBench b({{"CPU", 8}, {"GPU", 2}}, 2);
    b.s.want_actor(id_of(1), make({}), kPool);
    b.turn();
    ASSERT_EQ(b.take(Action::kAssignActor).size(), 1u);
    ASSERT_TRUE(b.s.define_shape(1, 0, make({{"GPU", 1}}), kPool).ok());
    b.want(1, 0, 1);
    auto parent = b.grants();
    ASSERT_EQ(parent.size(), 1u);
    b.start_at_once = false;
    if (actor) b.s.want_actor(id_of(2), make({{"GPU", 1}}), kPool);
    ASSERT_TRUE(b.s.define_shape(parent[0].worker, 0, make({{"GPU", 1}}), kPool).ok());
    if (!actor) {
      ASSERT_TRUE(b.s.want(parent[0].worker, 0, 1, TaskId{}).ok());
    }
    b.s.worker_blocked(parent[0].worker, true);
    for (int i = 0; i < 40; ++i) {
      b.turn();
      EXPECT_EQ(b.take(Action::kReclaim).size(), 0u) << "after " << i;
      b.now += 100 * kMs;
    }
    EXPECT_EQ(b.started, 3u);
    b.s.worker_ready(b.next_worker++, kPool, b.now);
    b.turn();
    EXPECT_EQ(b.take(actor ? Action::kAssignActor : Action::kGrant).size(), 1u);
  }
}

// A process that hangs while it starts, or while it ends, is waited for no longer than some seconds.
TEST(Limit, AStartThatHangsIsNotWaitedFor) {
  LimitBench b({{"CPU", 8}}, 2);
  b.shape(1);
  b.want(1, 0, 1);
  auto parent = b.grants();
  ASSERT_EQ(parent.size(), 1u);
  b.start_at_once = false;
  b.s.prestart({0, 1, 7}, 1);
  b.turn();
  EXPECT_EQ(b.s.counts().starting, 1u);
  b.start_at_once = true;
  b.wait_for(parent[0].worker, 1);
  EXPECT_TRUE(b.grants().empty());
  EXPECT_EQ(b.later().size(), 1u);
  EXPECT_EQ(b.processes(), 3u);
}

TEST(Limit, AnEndThatHangsIsNotWaitedFor) {
  for (const bool killed : {false, true}) {
    LimitBench b({{"CPU", 8}}, 2);
    const Pool other{0, 1, 7};
    b.shape(1, 0);
    b.shape(1, 1, other);
    b.want(1, 1, 1);
    auto one = b.grants();
    ASSERT_EQ(one.size(), 1u);
    b.want(1, 1, 0);
    b.give(one[0]);
    if (killed) b.s.worker_killed(one[0].worker);
    b.want(1, 0, 1);
    auto parent = b.grants();
    ASSERT_EQ(parent.size(), 1u);
    b.wait_for(parent[0].worker, 1);
    EXPECT_EQ(b.take(Action::kStopWorker).size(), killed ? 0u : 1u);
    EXPECT_TRUE(b.grants().empty());
    EXPECT_EQ(b.later().size(), 1u);
  }
}

TEST(Limit, ADeadClientsWorkerIsNotWaitedForForEver) {
  LimitBench b({{"CPU", 8}}, 2);
  for (uint32_t client : {1, 2}) {
    b.shape(client);
    b.want(client, 0, 1);
  }
  auto both = b.grants();
  ASSERT_EQ(both.size(), 2u);
  b.s.client_gone(2, b.now);
  b.wait_for(both[0].worker, 1);
  EXPECT_TRUE(b.grants().empty());
  EXPECT_EQ(b.later().size(), 1u);
}

}  // namespace
}  // namespace ray::sched
