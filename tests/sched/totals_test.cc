// What the scheduler says of itself to the cluster's: what waits in sum, what is held for good.
#include <gtest/gtest.h>

#include "libray/wire/limits.h"
#include "scheduler_bench.h"

namespace ray::sched {
namespace {

using Amounts = std::map<std::string, double>;

TEST(Totals, WhatWaitsIsAddedUp) {
  Bench b({{"CPU", 2}, {"disk", 5}});
  EXPECT_EQ(b.s.queued(), Amounts{});
  ASSERT_TRUE(b.s.define_shape(1, 0, make({{"CPU", 1}}), kPool).ok());
  ASSERT_TRUE(b.s.define_shape(2, 0, make({{"CPU", 0.5}, {"disk", 2}}), kPool).ok());
  ASSERT_TRUE(b.s.define_shape(2, 1, make({{"CPU", 3}}), kPool).ok());
  b.want(1, 0, 7);  // two have a worker
  EXPECT_EQ(b.s.queued(), (Amounts{{"CPU", 5}}));
  b.want(2, 0, 4);
  EXPECT_EQ(b.s.queued(), (Amounts{{"CPU", 7}, {"disk", 8}}));
  b.want(2, 1, 9);  // nobody here ever has it
  EXPECT_EQ(b.s.queued(), (Amounts{{"CPU", 7}, {"disk", 8}}));
  b.s.want_actor(id_of(1), make({{"CPU", 2}}), kPool);
  b.turn();
  EXPECT_EQ(b.s.queued(), (Amounts{{"CPU", 9}, {"disk", 8}}));
  ASSERT_TRUE(b.s.create_group(id_of(2), {make({{"CPU", 1}}), make({{"disk", 1}})}, false).ok());
  b.turn();
  EXPECT_EQ(b.s.queued(), (Amounts{{"CPU", 10}, {"disk", 9}}));
  b.want(1, 0, 2);
  b.want(2, 0, 0);
  EXPECT_EQ(b.s.queued(), (Amounts{{"CPU", 3}, {"disk", 1}}));
  EXPECT_EQ(b.s.held_for_good(), Amounts{});  // tasks hold nothing for good
}

TEST(Totals, AnAmountThatNobodyCouldHaveEndsTheSum) {
  Bench b({{"memory", wire::kMaxResourceAmount}});
  ASSERT_TRUE(b.s.define_shape(1, 0, make({{"memory", wire::kMaxResourceAmount}}), kPool).ok());
  b.want(1, 0, UINT32_MAX);
  EXPECT_EQ(b.s.queued(), (Amounts{{"memory", wire::kMaxResourceAmount}}));
}

TEST(Totals, ActorsAndGroupsHoldForGood) {
  Bench b({{"CPU", 8}, {"GPU", 2}});
  b.s.want_actor(id_of(1), make({{"CPU", 1}, {"GPU", 0.5}}), kPool);
  b.turn();
  ASSERT_EQ(b.take(Action::kAssignActor).size(), 1u);
  EXPECT_EQ(b.s.held_for_good(), (Amounts{{"CPU", 1}, {"GPU", 0.5}}));
  ASSERT_TRUE(b.s.create_group(id_of(2), {make({{"CPU", 2}}), make({{"CPU", 1}, {"GPU", 1}})}, false).ok());
  b.turn();
  ASSERT_EQ(b.take(Action::kGroupReady).size(), 1u);
  EXPECT_EQ(b.s.held_for_good(), (Amounts{{"CPU", 4}, {"GPU", 1.5}}));
  // What is placed in the group is a part of it, and waits for nothing else.
  b.s.want_actor(id_of(3), make({{"CPU", 2}}), kPool, {id_of(2), 0, ""});
  b.turn();
  ASSERT_EQ(b.take(Action::kAssignActor).size(), 1u);
  ASSERT_TRUE(b.s.define_shape(1, 0, make({{"CPU", 2}}), kPool, {id_of(2), 0, ""}).ok());
  b.want(1, 0, 3);
  EXPECT_EQ(b.s.held_for_good(), (Amounts{{"CPU", 4}, {"GPU", 1.5}}));
  EXPECT_EQ(b.s.queued(), Amounts{});
  b.want(1, 0, 0);
  for (uint32_t worker : b.s.remove_group(id_of(2)).workers) b.s.worker_gone(worker, b.now);
  b.turn();
  EXPECT_EQ(b.s.held_for_good(), (Amounts{{"CPU", 1}, {"GPU", 0.5}}));
}

}  // namespace
}  // namespace ray::sched
