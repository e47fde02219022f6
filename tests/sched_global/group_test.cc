// Placement groups: plans, the coordinator's steps and a node's side, one by one.
#include <gtest/gtest.h>

#include <set>

#include "libray/sched_global/group_member.h"
#include "libray/sched_global/group_plan.h"
#include "tests/sched_global/helpers.h"

namespace ray::global {
namespace {

constexpr int64_t kMs = 1'000'000;

std::vector<PlanNode> nodes_of(std::vector<Amount> free) {
  std::vector<PlanNode> nodes;
  for (Amount f : free) nodes.push_back({static_cast<NodeIndex>(nodes.size()), {f}});
  return nodes;
}
std::vector<Amounts> bundles_of(std::vector<Amount> need) {
  std::vector<Amounts> bundles;
  for (Amount n : need) bundles.push_back({n});
  return bundles;
}
size_t distinct(const Plan& p) { return std::set<uint32_t>(p.at.begin(), p.at.end()).size(); }

TEST(GroupPlan, PackTakesTheFewestNodes) {
  // The largest first would take 6 + 3 and need a third node for the last; 6 + 4 and 5 + 3 + 2 do on two of 10.
  Plan p = plan_bundles(Strategy::kPack, bundles_of({6, 5, 4, 3, 2}), nodes_of({4, 10, 4, 10}), {});
  ASSERT_TRUE(p.found);
  EXPECT_TRUE(p.exact);
  EXPECT_EQ(distinct(p), 2u);
  p = plan_bundles(Strategy::kPack, bundles_of({4, 4, 4}), nodes_of({5, 5}), {});
  EXPECT_FALSE(p.found);
  EXPECT_TRUE(p.exact);
}

TEST(GroupPlan, PackStaysWithWhatIsKept) {
  Plan p = plan_bundles(Strategy::kPack, bundles_of({2}), nodes_of({2, 9, 3}), {2});
  ASSERT_TRUE(p.found);
  EXPECT_EQ(p.at[0], 2u);
}

TEST(GroupPlan, SpreadTakesTheMostNodes) {
  Plan p = plan_bundles(Strategy::kSpread, bundles_of({3, 3, 3}), nodes_of({3, 9, 3}), {});
  EXPECT_EQ(distinct(p), 3u);
  p = plan_bundles(Strategy::kSpread, bundles_of({3, 3, 3, 3}), nodes_of({3, 9, 3}), {});
  ASSERT_TRUE(p.found);
  EXPECT_EQ(distinct(p), 3u);
  p = plan_bundles(Strategy::kSpread, bundles_of({3}), nodes_of({3, 9}), {0});
  EXPECT_EQ(p.at[0], 1u);
}

TEST(GroupPlan, StrictPackTakesTheTightestNode) {
  Plan p = plan_bundles(Strategy::kStrictPack, bundles_of({3, 3}), nodes_of({5, 9, 7}), {});
  EXPECT_EQ(p.at, (std::vector<uint32_t>{2, 2}));
  EXPECT_FALSE(plan_bundles(Strategy::kStrictPack, bundles_of({5, 5}), nodes_of({9, 9}), {}).found);
}

TEST(GroupPlan, StrictSpreadFindsTheOneMatching) {
  // Whoever goes first must make way: only 9 fits the third, only 5 or 9 the second.
  Plan p = plan_bundles(Strategy::kStrictSpread, bundles_of({2, 4, 8}), nodes_of({9, 5, 3}), {});
  ASSERT_TRUE(p.found);
  EXPECT_EQ(p.at, (std::vector<uint32_t>{2, 1, 0}));
  EXPECT_FALSE(plan_bundles(Strategy::kStrictSpread, bundles_of({2, 4, 8}), nodes_of({9, 9, 1}), {}).found);
  EXPECT_FALSE(plan_bundles(Strategy::kStrictSpread, bundles_of({2}), nodes_of({9}), {0}).found);
}

TEST(GroupPlan, ManyBundlesGoGreedily) {
  for (Strategy s : {Strategy::kPack, Strategy::kSpread}) {
    Plan p = plan_bundles(s, bundles_of(std::vector<Amount>(100, 1)), nodes_of(std::vector<Amount>(30, 4)), {});
    ASSERT_TRUE(p.found);
    EXPECT_FALSE(p.exact);
    EXPECT_EQ(distinct(p), s == Strategy::kPack ? 25u : 30u);
  }
}

// ---- the coordinator

struct GroupsTest : testing::Test {
  GroupsTest() : view(ViewOptions{}), groups(GroupOptions{}, &view) {}
  void TearDown() override { EXPECT_EQ(groups.check(), ""); }
  void beat(NodeIndex n, double cpus, double available) {
    Heartbeat h = beat_of(n, cpus);
    h.available = make({{"CPU", available}});
    h.version = ++version;
    bool better;
    view.heartbeat(h, now, &better);
    groups.changed(now, &out);
  }
  GroupRow row(Strategy s, size_t bundles) {
    GroupRow r;
    r.group = id_of(1);
    r.strategy = s;
    r.bundles.assign(bundles, make({{"CPU", 2}}));
    r.places.resize(bundles);
    return r;
  }
  void place(const GroupRow& r) {
    groups.place(r, now, &out);
    groups.tick(now, &out);
  }
  std::vector<Action> all(Action::Kind kind) {
    std::vector<Action> found;
    for (const Action& a : out)
      if (a.kind == kind) found.push_back(a);
    return found;
  }
  void say(const Action& a, bool ok = true) {
    if (a.kind == Action::kPrepare) groups.prepared(a.id, a.plan, a.node, a.epoch, ok, now, &out);
    if (a.kind == Action::kCommit) groups.committed(a.id, a.plan, a.node, a.epoch, ok, now, &out);
    if (a.kind == Action::kAbort) groups.aborted(a.id, a.plan, a.node, a.epoch);
    if (a.kind == Action::kRecord) groups.recorded(a.id, a.plan, ok, now, &out);
    if (a.kind == Action::kRemove) groups.removed(a.id, a.node, a.epoch, &out);
  }
  void say_all(Action::Kind kind) {
    const auto actions = all(kind);
    out.clear();
    for (const Action& a : actions) say(a);
  }
  void die(NodeIndex n) {
    view.dead(n, 1);
    out.clear();
    groups.node_dead(n, 1, now, &out);
  }
  std::string state() { return groups.state(id_of(1)); }
  // Through all steps.
  void become_ready(const GroupRow& r) {
    place(r);
    say_all(Action::kPrepare);
    say_all(Action::kRecord);
    say_all(Action::kCommit);
    ASSERT_EQ(state(), "ready");
  }
  View view;
  Groups groups;
  Actions out;
  int64_t now = 1000 * kMs;
  uint64_t version = 0;
};

TEST_F(GroupsTest, PreparedRecordedCommittedReady) {
  beat(1, 4, 4);
  beat(2, 4, 4);
  place(row(Strategy::kStrictSpread, 2));
  auto prepares = all(Action::kPrepare);
  ASSERT_EQ(prepares.size(), 2u);
  EXPECT_EQ(view.find(1)->stocks[1].reach(), 2 * kUnit);  // counted against the node
  say(prepares[0]);
  say(prepares[0]);
  EXPECT_EQ(state(), "preparing");
  say(prepares[1]);
  ASSERT_EQ(all(Action::kRecord).size(), 1u);
  EXPECT_TRUE(all(Action::kCommit).empty());
  say_all(Action::kRecord);
  ASSERT_EQ(all(Action::kCommit).size(), 2u);
  auto commits = all(Action::kCommit);
  say(commits[0]);
  EXPECT_TRUE(all(Action::kGroupReady).empty());
  say(commits[1]);
  EXPECT_EQ(all(Action::kGroupReady).size(), 1u);
  EXPECT_EQ(state(), "ready");
}

TEST_F(GroupsTest, MessagesAreRepeatedUntilTheyAreAnswered) {
  beat(1, 4, 4);
  beat(2, 4, 4);
  place(row(Strategy::kStrictSpread, 2));
  say(all(Action::kPrepare)[0]);
  out.clear();
  now += 250 * kMs;
  groups.tick(now, &out);
  EXPECT_EQ(all(Action::kPrepare).size(), 1u);
}

TEST_F(GroupsTest, ARefusalAbortsEverywhereAndANewPlanFollows) {
  beat(1, 4, 4);
  beat(2, 4, 4);
  place(row(Strategy::kStrictSpread, 2));
  auto prepares = all(Action::kPrepare);
  out.clear();
  say(prepares[0]);
  say(prepares[1], false);
  auto aborts = all(Action::kAbort);
  ASSERT_EQ(aborts.size(), 2u);
  EXPECT_EQ(state(), "waits");
  EXPECT_EQ(view.find(1)->stocks[1].placed, 0);
  out.clear();
  say(aborts[0]);
  now += 250 * kMs;
  groups.tick(now, &out);
  groups.tick(now + 1, &out);
  EXPECT_EQ(all(Action::kPrepare).size(), 2u);
  EXPECT_GT(all(Action::kPrepare)[0].plan, prepares[0].plan);
}

TEST_F(GroupsTest, ANodeThatDiesBeforeTheRecordAbortsAll) {
  for (NodeIndex n = 1; n <= 3; ++n) beat(n, 4, 4);
  place(row(Strategy::kStrictSpread, 2));
  auto prepares = all(Action::kPrepare);
  say(prepares[0]);
  die(prepares[1].node);
  auto aborts = all(Action::kAbort);
  ASSERT_EQ(aborts.size(), 1u);
  EXPECT_EQ(aborts[0].node, prepares[0].node);
  now += 200 * kMs;
  groups.tick(now, &out);
  EXPECT_EQ(all(Action::kPrepare).size(), 2u);
}

TEST_F(GroupsTest, BundlesOfADeadNodeAloneArePlacedAgain) {
  for (NodeIndex n = 1; n <= 3; ++n) beat(n, 4, 4);
  become_ready(row(Strategy::kStrictSpread, 2));
  const auto places = *groups.places(id_of(1));
  die(places[0].node);
  ASSERT_EQ(all(Action::kGroupLost).size(), 1u);
  EXPECT_EQ(all(Action::kGroupLost)[0].bundles[0].index, 0u);
  groups.tick(now + 20 * kMs, &out);
  auto prepares = all(Action::kPrepare);
  ASSERT_EQ(prepares.size(), 1u);
  EXPECT_NE(prepares[0].node, places[1].node);
  say_all(Action::kPrepare);
  EXPECT_NE(all(Action::kRecord)[0].base, 0u);
  say_all(Action::kRecord);
  say_all(Action::kCommit);
  EXPECT_EQ(state(), "ready");
  EXPECT_EQ((*groups.places(id_of(1)))[1].plan, places[1].plan);
}

TEST_F(GroupsTest, ACommitThatCannotBeIsPlacedAgain) {
  beat(1, 4, 4);
  place(row(Strategy::kStrictPack, 2));
  say_all(Action::kPrepare);
  say_all(Action::kRecord);
  say(all(Action::kCommit)[0], false);
  EXPECT_TRUE(all(Action::kGroupReady).empty());
  groups.tick(now + 20 * kMs, &out);
  EXPECT_NE(state(), "ready");
}

TEST_F(GroupsTest, WhoseRecordComesSecondLetsItBe) {
  beat(1, 4, 4);
  place(row(Strategy::kPack, 1));
  say_all(Action::kPrepare);
  auto record = all(Action::kRecord)[0];
  out.clear();
  say(record, false);
  EXPECT_EQ(all(Action::kAbort).size(), 1u);
  EXPECT_EQ(state(), "");
}

TEST_F(GroupsTest, AnotherInstanceGoesOnFromTheRow) {
  beat(1, 4, 4);
  beat(2, 4, 4);
  GroupRow r = row(Strategy::kStrictSpread, 3);
  r.plan = uint64_t{7} << 32 | 9;
  r.places = {{1, 1, uint64_t{5} << 32 | 9}, {2, 1, r.plan}, {}};
  place(r);
  EXPECT_EQ(all(Action::kCommit).size(), 2u);
  beat(3, 4, 4);
  say_all(Action::kCommit);
  groups.tick(now + 20 * kMs, &out);
  auto prepares = all(Action::kPrepare);
  ASSERT_EQ(prepares.size(), 1u);
  EXPECT_EQ(prepares[0].node, 3u);
  EXPECT_GT(prepares[0].plan, r.plan);
}

TEST_F(GroupsTest, WaitsForWhatMayBecomeFreeAndSaysWhatCannotBe) {
  beat(1, 4, 0);
  place(row(Strategy::kStrictPack, 2));
  EXPECT_EQ(all(Action::kGroupWaits).size(), 1u);
  EXPECT_TRUE(all(Action::kPrepare).empty());
  now += 600 * kMs;
  groups.tick(now, &out);
  EXPECT_EQ(all(Action::kPrepare).size(), 1u);  // the node keeps it until it can
  GroupRow r = row(Strategy::kStrictPack, 3);
  r.group = id_of(2);
  place(r);
  groups.tick(now + 30 * kMs, &out);
  ASSERT_EQ(all(Action::kGroupInfeasible).size(), 1u);
  EXPECT_NE(all(Action::kGroupInfeasible)[0].text.find("STRICT_PACK over 1 nodes"), std::string::npos);
}

TEST_F(GroupsTest, GoneWhenEveryNodeHasGivenItBackOrIsDead) {
  beat(1, 4, 4);
  beat(2, 4, 4);
  const GroupRow r = row(Strategy::kStrictSpread, 2);
  become_ready(r);
  groups.remove(r, now, &out);
  auto removes = all(Action::kRemove);
  ASSERT_EQ(removes.size(), 2u);
  say(removes[0]);
  EXPECT_TRUE(all(Action::kGroupGone).empty());
  die(removes[1].node);
  EXPECT_EQ(all(Action::kGroupGone).size(), 1u);
  EXPECT_EQ(groups.size(), 0u);
}

// ---- a node's side

struct MemberTest : testing::Test {
  MemberTest()
      : member([this](const Id&, const std::vector<Bundle>& b) {
          const auto n = static_cast<int>(b.size());
          if (n > total) return GroupMember::Taken::kNever;
          if (n > free) return GroupMember::Taken::kLater;
          free -= n;
          return GroupMember::Taken::kYes;
        }, [this](const Id&, const std::vector<Bundle>& b) { free += static_cast<int>(b.size()); }, 1000, 2) {}
  MemberReply only() {
    EXPECT_EQ(out.size(), 1u);
    MemberReply r = out.empty() ? MemberReply{} : out[0];
    out.clear();
    return r;
  }
  std::vector<Bundle> bundles(size_t n) { return std::vector<Bundle>(n); }
  int total = 4, free = 4;
  GroupMember member;
  MemberReplies out;
  Id g = id_of(1), h = id_of(2);
};

TEST_F(MemberTest, EachMessageMayComeTwice) {
  for (int i = 0; i < 2; ++i) {
    member.prepare(g, 5, bundles(3), 0, &out);
    EXPECT_TRUE(only().ok);
    EXPECT_EQ(free, 1);
  }
  for (int i = 0; i < 2; ++i) {
    member.commit(g, 5, &out);
    EXPECT_TRUE(only().ok);
  }
  member.prepare(g, 5, bundles(3), 0, &out);
  EXPECT_TRUE(only().ok);
  for (int i = 0; i < 2; ++i) {
    member.remove(g, &out);
    EXPECT_EQ(only().kind, MemberReply::kRemoved);
    EXPECT_EQ(free, 4);
  }
  member.prepare(g, 5, bundles(3), 0, &out);  // late
  EXPECT_FALSE(only().ok);
}

TEST_F(MemberTest, AnAbortThatOvertakesItsPrepareCounts) {
  member.abort(g, 5, &out);
  only();
  member.prepare(g, 5, bundles(1), 0, &out);
  EXPECT_FALSE(only().ok);
  member.prepare(g, 6, bundles(1), 0, &out);
  EXPECT_TRUE(only().ok);
}

TEST_F(MemberTest, AHigherPlanTakesThePlaceOfALowerOne) {
  member.prepare(g, 5, bundles(3), 0, &out);
  only();
  member.prepare(g, 6, bundles(4), 0, &out);
  EXPECT_TRUE(only().ok);
  EXPECT_EQ(free, 0);
  member.commit(g, 5, &out);
  EXPECT_FALSE(only().ok);
  member.abort(g, 5, &out);  // not of what counts now
  only();
  member.commit(g, 6, &out);
  EXPECT_TRUE(only().ok);
}

TEST_F(MemberTest, WaitsForRoomInOrderAndRefusesWhatNeverFits) {
  member.prepare(g, 1, bundles(3), 0, &out);
  member.commit(g, 1, &out);
  out.clear();
  member.prepare(h, 1, bundles(2), 0, &out);
  member.prepare(id_of(3), 1, bundles(3), 0, &out);
  EXPECT_TRUE(out.empty());
  EXPECT_EQ(member.promised().size(), 8u);
  member.remove(g, &out);
  only();
  member.room(&out);
  EXPECT_EQ(only().group, h);
  member.prepare(id_of(4), 1, bundles(5), 0, &out);
  EXPECT_FALSE(only().ok);
}

TEST_F(MemberTest, WhatIsForgottenIsGivenBack) {
  member.prepare(g, 1, bundles(3), 0, &out);
  out.clear();
  EXPECT_EQ(member.deadline(), 1000);
  member.tick(1000);
  EXPECT_EQ(free, 4);
  member.commit(g, 1, &out);
  EXPECT_FALSE(only().ok);
  for (uint32_t i = 10; i < 20; ++i) member.abort(id_of(i), 1, &out);
  EXPECT_LE(member.groups(), 3u);
}

}  // namespace
}  // namespace ray::global
