// Placement groups in the local scheduler: reserved all at once, used by nobody else, given back when the
// last worker is gone; random runs whose every step is checked.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>

#include "scheduler_bench.h"

namespace ray::sched {
namespace {

struct GroupBench : Bench {
  using Bench::Bench;
  void group(const Id& id, std::vector<std::map<std::string, double>> bundles, bool apart = false) {
    std::vector<Resources> all;
    for (auto& b : bundles) all.push_back(make(b));
    ASSERT_TRUE(s.create_group(id, all, apart).ok());
    turn();
  }
  Status shape(uint32_t client, uint32_t shape, std::map<std::string, double> need, const Id& group,
               int32_t bundle = -1) {
    return s.define_shape(client, shape, make(std::move(need)), kPool, {group, bundle, ""});
  }
};

TEST(Groups, ReserveAllOrNothing) {
  GroupBench b({{"CPU", 4}, {"GPU", 1}});
  b.group(id_of(1), {{{"CPU", 2}}, {{"CPU", 1}, {"GPU", 1}}});
  ASSERT_EQ(b.take(Action::kGroupReady).size(), 1u);
  EXPECT_EQ(b.s.available().at("CPU"), 1);
  EXPECT_EQ(b.s.available().at("GPU"), 0);
  EXPECT_EQ(b.s.total().at("CPU"), 4);
  b.group(id_of(2), {{{"CPU", 1}}, {{"CPU", 1}}});  // one processor is left
  EXPECT_TRUE(b.take(Action::kGroupReady).empty());
  EXPECT_EQ(b.s.available().at("CPU"), 1);
  EXPECT_TRUE(b.s.remove_group(id_of(1)).workers.empty());
  b.turn();
  ASSERT_EQ(b.take(Action::kGroupReady).size(), 1u);
  EXPECT_EQ(b.s.available().at("CPU"), 2);
  EXPECT_FALSE(b.s.has_group(id_of(1)));
}

TEST(Groups, OthersDoNotGetWhatIsReserved) {
  GroupBench b({{"CPU", 2}});
  b.group(id_of(1), {{{"CPU", 2}}});
  ASSERT_TRUE(b.shape(1, 0, {{"CPU", 1}}, Id{}).ok());
  b.want(1, 0, 2);
  EXPECT_TRUE(b.take(Action::kGrant).empty());
  EXPECT_TRUE(b.take(Action::kInfeasible).empty());  // it waits, it is not hopeless
  ASSERT_TRUE(b.shape(1, 1, {{"CPU", 1}}, id_of(1)).ok());
  b.want(1, 1, 5);
  EXPECT_EQ(b.take(Action::kGrant).size(), 2u);
  EXPECT_EQ(b.s.available().at("CPU"), 0);
}

TEST(Groups, ABundleIsALimit) {
  GroupBench b({{"CPU", 4}});
  b.group(id_of(1), {{{"CPU", 1}}, {{"CPU", 2}}});
  ASSERT_TRUE(b.shape(1, 0, {{"CPU", 1}}, id_of(1), 0).ok());
  b.want(1, 0, 9);
  EXPECT_EQ(b.take(Action::kGrant).size(), 1u);
  ASSERT_TRUE(b.shape(1, 1, {{"CPU", 2}}, id_of(1)).ok());
  b.want(1, 1, 9);
  EXPECT_EQ(b.take(Action::kGrant).size(), 1u);
  ASSERT_TRUE(b.shape(1, 2, {{"CPU", 3}}, id_of(1)).ok());  // three in all, but in no bundle
  b.want(1, 2, 1);
  auto hopeless = b.take(Action::kInfeasible);
  ASSERT_EQ(hopeless.size(), 1u);
  EXPECT_NE(hopeless[0].text.find("no bundle"), std::string::npos) << hopeless[0].text;
  EXPECT_FALSE(b.shape(1, 3, {{"CPU", 1}}, id_of(1), 2).ok());
  EXPECT_FALSE(b.shape(1, 4, {{"CPU", 1}}, id_of(9)).ok());
}

TEST(Groups, WhatNeedsNothingWaitsForTheGroup) {
  GroupBench b({{"CPU", 2}});
  ASSERT_TRUE(b.shape(1, 0, {{"CPU", 2}}, Id{}).ok());
  b.want(1, 0, 1);
  auto holder = b.take(Action::kGrant);
  ASSERT_EQ(holder.size(), 1u);
  b.group(id_of(1), {{{"CPU", 1}}});
  ASSERT_TRUE(b.shape(2, 0, {}, id_of(1)).ok());
  b.want(2, 0, 1);
  EXPECT_TRUE(b.take(Action::kGrant).empty());
  b.want(1, 0, 0);
  b.give(holder[0]);
  EXPECT_EQ(b.take(Action::kGroupReady).size(), 1u);
  EXPECT_EQ(b.take(Action::kGrant).size(), 1u);
}

TEST(Groups, ReclaimsForAGroupThatWaits) {
  GroupBench b({{"CPU", 2}});
  ASSERT_TRUE(b.shape(1, 0, {{"CPU", 1}}, Id{}).ok());
  b.want(1, 0, 50);
  auto held = b.take(Action::kGrant);
  ASSERT_EQ(held.size(), 2u);
  b.group(id_of(1), {{{"CPU", 2}}});
  b.now += 10'000'000;
  b.turn();
  EXPECT_EQ(b.take(Action::kReclaim).size(), 2u);
}

TEST(Groups, RemovalTellsWhatItLeaves) {
  GroupBench b({{"CPU", 4}});
  b.group(id_of(1), {{{"CPU", 3}}});
  ASSERT_TRUE(b.shape(1, 0, {{"CPU", 1}}, id_of(1)).ok());
  b.want(1, 0, 1);
  auto grants = b.take(Action::kGrant);
  b.s.want_actor(id_of(50), make({{"CPU", 1}}), kPool, {id_of(1), 0, ""});
  b.s.want_actor(id_of(51), make({{"CPU", 3}}), kPool, {id_of(1), 0, ""});
  b.turn();
  auto assigned = b.take(Action::kAssignActor);
  ASSERT_EQ(assigned.size(), 1u);
  auto left = b.s.remove_group(id_of(1));
  EXPECT_EQ(left.shapes, (std::vector<std::pair<uint32_t, uint32_t>>{{1, 0}}));
  EXPECT_EQ(left.actors, std::vector<ActorId>{id_of(51)});
  std::set<uint32_t> workers(left.workers.begin(), left.workers.end());
  EXPECT_EQ(workers, (std::set<uint32_t>{grants[0].worker, assigned[0].worker}));
  b.want(1, 0, 7);  // its client has not heard yet
  EXPECT_TRUE(b.take(Action::kGrant).empty());
  EXPECT_EQ(b.s.available().at("CPU"), 1);  // until they are gone
  b.s.worker_gone(grants[0].worker, b.now);
  EXPECT_EQ(b.s.check(), "");
  EXPECT_EQ(b.s.available().at("CPU"), 1);
  b.s.worker_gone(assigned[0].worker, b.now);
  EXPECT_EQ(b.s.check(), "");
  EXPECT_EQ(b.s.available().at("CPU"), 4);
}

TEST(Groups, ABlockedTaskLendsWithinItsBundle) {
  GroupBench b({{"CPU", 2}});
  b.group(id_of(1), {{{"CPU", 1}}});
  ASSERT_TRUE(b.shape(1, 0, {{"CPU", 1}}, id_of(1)).ok());
  b.want(1, 0, 2);
  auto first = b.take(Action::kGrant);
  ASSERT_EQ(first.size(), 1u);
  b.s.worker_blocked(first[0].worker, true);
  b.turn();
  EXPECT_EQ(b.take(Action::kGrant).size(), 1u);
  EXPECT_EQ(b.s.available().at("CPU"), 1);  // the node's own is untouched
  b.s.worker_blocked(first[0].worker, false);
  EXPECT_EQ(b.s.check(), "");
}

TEST(Groups, HopelessOnesAreReportedOnceAndWait) {
  GroupBench b({{"CPU", 2}});
  b.group(id_of(1), {{{"GPU", 1}}});
  b.group(id_of(2), {{{"CPU", 1}}, {{"CPU", 1}}}, true);
  b.group(id_of(3), {{{"CPU", 1}}}, true);  // one bundle needs no other node
  b.turn();
  EXPECT_EQ(b.take(Action::kGroupInfeasible).size(), 2u);
  auto ready = b.take(Action::kGroupReady);
  ASSERT_EQ(ready.size(), 1u);
  EXPECT_EQ(ready[0].id, id_of(3));
}

// Groups, tasks in and out of them, deaths, in any order: check() after every step, and in the end, when all
// are removed, the node has all of its resources again.
TEST(GroupsProperty, NothingIsLost) {
  for (uint32_t seed = 1; seed <= 15 && !::testing::Test::HasFailure(); ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    auto pick = [&](uint32_t n) { return static_cast<uint32_t>(random() % n); };
    GroupBench b({{"CPU", 6}, {"GPU", 2}});
    std::vector<Id> groups;
    std::vector<Action> held;
    std::set<std::pair<uint32_t, uint32_t>> shapes;
    uint32_t next = 1;
    for (int step = 0; step < 400; ++step) {
      switch (pick(7)) {
        case 0: {
          Id id = id_of(next++);
          std::vector<std::map<std::string, double>> bundles(1 + pick(3));
          for (auto& bundle : bundles) bundle = {{"CPU", 1 + pick(3)}, {"GPU", pick(2)}};
          b.group(id, bundles);
          groups.push_back(id);
          break;
        }
        case 1:
          if (groups.empty()) break;
          std::swap(groups[pick(static_cast<uint32_t>(groups.size()))], groups.back());
          for (uint32_t w : b.s.remove_group(groups.back()).workers) {
            std::erase_if(held, [&](auto& a) { return a.worker == w; });
            b.s.worker_gone(w, b.now);
          }
          groups.pop_back();
          break;
        case 2: {
          Id group = groups.empty() || pick(3) == 0 ? Id{} : groups[pick(static_cast<uint32_t>(groups.size()))];
          uint32_t shape = next++;
          if (b.shape(pick(3), shape, {{"CPU", pick(3)}}, group).ok()) shapes.insert({0, shape});
          break;
        }
        case 3:
        case 4:
          for (auto [_, shape] : shapes)
            for (uint32_t client = 0; client < 3; ++client) (void)b.s.want(client, shape, pick(3), TaskId{});
          break;
        case 5:
          if (held.empty()) break;
          (void)b.s.return_lease(held.back().client, held.back().worker, held.back().lease, b.now);
          held.pop_back();
          break;
        case 6: {
          if (held.empty()) break;
          b.s.worker_blocked(held[pick(static_cast<uint32_t>(held.size()))].worker, pick(2) == 0);
          break;
        }
      }
      b.now += 1'000'000;
      b.turn();
      for (Action& a : b.take(Action::kGrant)) held.push_back(a);
    }
    for (uint32_t client = 0; client < 3; ++client)
      for (uint32_t w : b.s.client_gone(client, b.now)) b.s.worker_gone(w, b.now);
    for (const Id& id : groups) EXPECT_TRUE(b.s.remove_group(id).workers.empty());
    EXPECT_EQ(b.s.check(), "");
    EXPECT_EQ(b.s.available(), b.s.total());
  }
}

}  // namespace
}  // namespace ray::sched
