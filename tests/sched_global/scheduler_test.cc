// The global scheduler's rules, one by one; expected places are worked out by hand.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <map>

#include "tests/sched_global/helpers.h"

namespace ray::global {
namespace {

constexpr int64_t kMs = 1'000'000;
constexpr int64_t kMb = 1'000'000;

class SchedulerTest : public testing::Test {
 protected:
  void begin(Options o = {}) { core = std::make_unique<GlobalScheduler>(o); }
  void SetUp() override { begin(); }
  void TearDown() override { EXPECT_EQ(core->check(), ""); }
  // A node with `waiting` tasks of 10 ms behind its busy processors; none: it is idle.
  Heartbeat node(NodeIndex n, double cpus, uint32_t waiting = 0) {
    Heartbeat h = beat_of(n, cpus);
    h.version = ++versions[n];
    if (waiting > 0) {
      h.available = Resources();
      h.queued = make({{"CPU", double(waiting)}});
      h.waiting = waiting;
    }
    return h;
  }
  void beat(const Heartbeat& h) { core->heartbeat(h, now, &out); }
  Action ask(const Demand& d) {
    out.clear();
    core->demand(d, now, &out);
    EXPECT_EQ(out.size(), 1u);
    return out.empty() ? Action{Action::kGroupGone} : out[0];
  }
  NodeIndex place(const Demand& d) {
    Action a = ask(d);
    EXPECT_EQ(a.kind, Action::kPlace) << a.text;
    return a.node;
  }
  std::unique_ptr<GlobalScheduler> core;
  Actions out;
  int64_t now = 1000 * kMs;
  std::map<NodeIndex, uint64_t> versions;
  Heartbeat h;
};

TEST_F(SchedulerTest, TheLeastCostIsWaitAndTransfer) {
  begin();  // 10 ms a task, 1 byte per ns
  beat(node(1, 1, 5));
  beat(node(2, 1, 2));
  EXPECT_EQ(place(demand_of(1)), 2u);  // 60 ms or 30 ms
  Demand d = demand_of(2);
  d.inputs = {{id_of(900), 50 * kMb, {1}}};  // 60 ms, or 40 ms and 50 ms of transfer
  EXPECT_EQ(place(d), 1u);
  d = demand_of(3);
  d.inputs = {{id_of(900), 5 * kMb, {1}}};  // 70 ms, or 40 ms and 5
  EXPECT_EQ(place(d), 2u);
}

TEST_F(SchedulerTest, OverlapTakesTheGreaterOfBoth) {
  for (bool overlap : {false, true}) {
    Options o;
    o.overlap = overlap;
    begin(o);
    beat(node(1, 1, 5));  // 60 ms
    beat(node(2, 1, 2));  // 30 ms, and 50 ms of transfer
    Demand d = demand_of(1);
    d.inputs = {{id_of(900), 50 * kMb, {1}}};
    EXPECT_EQ(place(d), overlap ? 2u : 1u);
  }
}

TEST_F(SchedulerTest, LargeInputsDrawAndSmallOnesDoNotPileUp) {
  for (NodeIndex n = 1; n <= 4; ++n) beat(node(n, 4));
  std::map<NodeIndex, int> count;
  for (uint32_t i = 0; i < 64; ++i) {
    Demand d = demand_of(i + 1);
    d.inputs = {{id_of(900), 1000, {1}}};
    ++count[place(d)];
  }
  for (NodeIndex n = 1; n <= 4; ++n) EXPECT_NEAR(count[n], 16, 4) << n;
  for (uint32_t i = 0; i < 8; ++i) {
    Demand d = demand_of(i + 100);
    d.inputs = {{id_of(901), 1000 * kMb, {3}}};
    EXPECT_EQ(place(d), 3u);
  }
}

TEST_F(SchedulerTest, WhatIsNotMadeYetIsThoughtToLieWhereItsTaskWas) {
  for (NodeIndex n = 1; n <= 8; ++n) beat(node(n, 16));
  const NodeIndex at = place(demand_of(1));
  for (uint32_t i = 2; i < 10; ++i) {
    Demand d = demand_of(i);
    d.inputs = {{return_object(id_of(i - 1), 0), -1, {}}};
    EXPECT_EQ(place(d), at);
  }
}

TEST_F(SchedulerTest, RunTimesAreOfTheFunction) {
  Heartbeat h = node(1, 1, 1);
  h.ran = {{7, 5, 5 * 100 * kMs}, {8, 5, 5 * kMs}};
  beat(h);
  EXPECT_DOUBLE_EQ(core->view().run_ns(7, SizeClass::kUnknown), 100e6);
  EXPECT_DOUBLE_EQ(core->view().run_ns(8, SizeClass::kLong), 1e6);
  EXPECT_DOUBLE_EQ(core->view().run_ns(9, SizeClass::kShort), 1e6);
  EXPECT_DOUBLE_EQ(core->view().run_ns(9, SizeClass::kLong), 10e9);
}

TEST_F(SchedulerTest, NoHerdBetweenTwoHeartbeats) {
  for (NodeIndex n = 1; n <= 10; ++n) beat(node(n, 4));
  std::map<NodeIndex, int> count;
  for (uint32_t i = 0; i < 100; ++i) ++count[place(demand_of(i + 1))];
  int most = 0;
  for (const auto& [n, c] : count) most = std::max(most, c);
  EXPECT_LE(most / 10.0, 1.3);
}

TEST_F(SchedulerTest, AskedAgainItAnswersTheSameAndCountsOnce) {
  for (NodeIndex n = 1; n <= 5; ++n) beat(node(n, 4));
  Action first = ask(demand_of(1)), again = ask(demand_of(1));
  EXPECT_EQ(first.node, again.node);
  EXPECT_EQ(first.seq, again.seq);
  EXPECT_EQ(core->view().find(first.node)->placed.size(), 1u);
  core->node_dead(first.node, 1, now, &out);
  again = ask(demand_of(1));
  EXPECT_EQ(again.kind, Action::kPlace);
  EXPECT_NE(first.node, again.node);
  Demand d = demand_of(1);
  d.hops = 1;
  ask(d);
  out.clear();
  core->demand(demand_of(1), now, &out);  // a question that is over
  EXPECT_TRUE(out.empty());
}

TEST_F(SchedulerTest, AskedAgainItLooksElsewhereWhenTheNodeCannotAnyMore) {
  for (NodeIndex n = 1; n <= 2; ++n) beat(node(n, 4));
  Demand d = demand_of(1);
  const NodeIndex first = place(d);
  Heartbeat h = node(first, 4);
  h.held = make({{"CPU", 4}});
  beat(h);
  EXPECT_NE(place(d), first);
  d = demand_of(2);
  const NodeIndex other = place(d);
  d.refused = {other};
  EXPECT_EQ(ask(d).kind, Action::kWait);
}

TEST_F(SchedulerTest, HeterogeneousNodesByWhatTheyHave) {
  beat(node(1, 2));
  beat(node(2, 32));
  Heartbeat h = node(3, 4);
  h.total = h.available = make({{"CPU", 4}, {"GPU", 1}});
  beat(h);
  EXPECT_EQ(place(demand_of(1, 8)), 2u);
  Demand d = demand_of(2);
  d.resources = make({{"GPU", 0.5}});
  EXPECT_EQ(place(d), 3u);
  d = demand_of(3);
  d.resources = make({{"CPU", 8}, {"GPU", 1}});
  Action a = ask(d);
  EXPECT_EQ(a.kind, Action::kInfeasible);
  EXPECT_NE(a.text.find("'GPU'"), 0u);
}

TEST_F(SchedulerTest, InfeasibleSaysWhyAndWhatWouldDoAndIsPlacedWhenItJoins) {
  EXPECT_EQ(ask(demand_of(1)).kind, Action::kWait);  // nobody is there yet
  core->withdraw(id_of(1));
  beat(node(1, 4));
  Demand d = demand_of(2, 16);
  d.from = 1;
  Action a = ask(d);
  EXPECT_EQ(a.kind, Action::kInfeasible);
  EXPECT_EQ(a.to, 1u);
  EXPECT_EQ(a.text, "no node can run {CPU: 16}: 1 too small; too much is 'CPU' of 16 (the most is 4, on node 1); a node "
                    "with {CPU: 16} would do");
  d = demand_of(3);
  d.resources = make({{"TPU", 1}});
  EXPECT_NE(ask(d).text.find("'TPU' of 1 (no node has any)"), std::string::npos);
  out.clear();
  now += 10 * kMs;
  beat(node(2, 16));
  ASSERT_EQ(out.size(), 1u);
  EXPECT_EQ(out[0].kind, Action::kPlace);
  EXPECT_EQ(out[0].id, id_of(2));
  EXPECT_EQ(out[0].node, 2u);
}

TEST_F(SchedulerTest, FullNodesLetItWaitAndThePriorityGoesFirst) {
  beat(node(1, 1, 250));
  for (uint32_t i = 1; i <= 3; ++i) {
    Demand d = demand_of(i);
    d.priority = i == 3;
    Action a = ask(d);
    EXPECT_EQ(a.kind, Action::kWait);
    EXPECT_NE(a.text.find("too much waiting work"), std::string::npos) << a.text;
  }
  out.clear();
  now += 10 * kMs;
  beat(node(1, 1, 50));
  ASSERT_EQ(out.size(), 3u);
  EXPECT_EQ(out[0].id, id_of(3));
  EXPECT_EQ(out[1].id, id_of(1));
  EXPECT_EQ(core->waiting(), 0u);
}

TEST_F(SchedulerTest, WhatWaitsIsForgottenUnlessItIsAskedForAgain) {
  beat(node(1, 4));
  ask(demand_of(1, 16));
  ask(demand_of(2, 16));
  now += 2000 * kMs;
  ask(demand_of(2, 16));
  now += 1500 * kMs;
  core->tick(now, &out);
  EXPECT_EQ(core->waiting(), 1u);
}

TEST_F(SchedulerTest, Affinity) {
  for (NodeIndex n = 1; n <= 3; ++n) beat(node(n, 2));
  Demand d = demand_of(1);
  d.affinity = 2;
  EXPECT_EQ(place(d), 2u);
  d = demand_of(2);
  d.affinity = 9;
  EXPECT_EQ(ask(d).kind, Action::kInfeasible);
  d = demand_of(3);
  d.affinity = 9;
  d.soft_affinity = true;
  ask(d);
  EXPECT_EQ(out[0].kind, Action::kPlace);
  core->node_dead(2, 1, now, &out);
  d = demand_of(4);
  d.affinity = 2;
  EXPECT_NE(ask(d).text.find("node 2, which is dead"), std::string::npos);
}

TEST_F(SchedulerTest, Labels) {
  for (NodeIndex n = 1; n <= 4; ++n) {
    Heartbeat h = node(n, 4);
    h.labels = {{"zone", n <= 2 ? "a" : "b"}, {"disk", n % 2 ? "ssd" : "hdd"}};
    beat(h);
  }
  Demand d = demand_of(1);
  d.labels = {{"zone", {"a"}}, {"disk", {"hdd"}}};
  EXPECT_EQ(place(d), 2u);
  d = demand_of(2);
  d.labels = {{"zone", {"a"}, true}, {"disk", {"hdd"}, true}};
  EXPECT_EQ(place(d), 3u);
  d = demand_of(3);
  d.labels = {{"rack", {}}};  // any
  Action a = ask(d);
  EXPECT_EQ(a.kind, Action::kInfeasible);
  EXPECT_NE(a.text.find("4 without the labels"), std::string::npos) << a.text;
  d = demand_of(4);
  d.soft_labels = {{"zone", {"b"}}};
  EXPECT_GE(place(d), 3u);
  d = demand_of(5);
  d.soft_labels = {{"zone", {"c"}}};
  place(d);
}

TEST_F(SchedulerTest, SpreadLooksAtTheLinesAlone) {
  for (NodeIndex n = 1; n <= 4; ++n) beat(node(n, 8));
  std::map<NodeIndex, int> count;
  for (uint32_t i = 0; i < 8; ++i) {
    Demand d = demand_of(i + 1, i < 4 ? 1 : 0);
    d.spread = true;
    d.from = 1;
    d.inputs = {{id_of(900), 1000 * kMb, {1}}};
    ++count[place(d)];
  }
  for (NodeIndex n = 1; n <= 4; ++n) EXPECT_EQ(count[n], 2) << n;
}

TEST_F(SchedulerTest, ActorsTakeWhatCanBeTheirsForGood) {
  Heartbeat h = node(1, 4);
  h.held = make({{"CPU", 3.5}});
  h.available = make({{"CPU", 0.5}});
  beat(h);
  beat(node(2, 4, 1000));  // full of tasks
  Demand d = demand_of(1);
  d.work = Work::kActor;
  for (uint32_t i = 1; i <= 4; ++i) {
    d.id = id_of(i);
    EXPECT_EQ(place(d), 2u);
  }
  d.id = id_of(5);
  Action a = ask(d);
  EXPECT_EQ(a.kind, Action::kWait);
  EXPECT_NE(a.text.find("where actors and groups hold"), std::string::npos) << a.text;
}

TEST_F(SchedulerTest, ItStaysUnlessAMoveGainsEnough) {
  beat(node(1, 1, 4));  // 50 ms
  beat(node(2, 1, 3));  // 40 ms
  Demand d = demand_of(1);
  d.from = 1;
  EXPECT_EQ(place(d), 2u);
  h = node(2, 1, 3);
  h.seen = {{1, 1}};
  beat(h);
  d = demand_of(2);
  d.from = 1;
  d.hops = 1;  // 50 against 40 and 30 % of it
  EXPECT_EQ(place(d), 1u);
  EXPECT_NE(core->why(d.id).find("stays"), std::string::npos);
}

TEST_F(SchedulerTest, HopsAreBounded) {
  for (NodeIndex n = 1; n <= 4; ++n) beat(node(n, 4, n == 1 ? 100 : 0));
  Demand d = demand_of(1);
  d.from = 1;
  Action a = ask(d);
  EXPECT_EQ(a.moved, 1u);
  EXPECT_FALSE(a.pinned);
  d.hops = 1;
  d.refused = {a.node};
  a = ask(d);
  EXPECT_EQ(a.moved, 2u);
  EXPECT_TRUE(a.pinned);
  EXPECT_NE(a.node, d.refused[0]);
  d.hops = 3;
  EXPECT_EQ(place(d), 1u);  // where it is, however long that line
  d.id = id_of(2);
  d.resources = make({{"CPU", 5}});
  EXPECT_NE(ask(d).text.find("begin anew"), std::string::npos);
}

TEST_F(SchedulerTest, WhyHasTheTerms) {
  beat(node(1, 1, 5));
  beat(node(2, 1, 2));
  Demand d = demand_of(1);
  d.inputs = {{id_of(900), 50 * kMb, {1}}};
  place(d);
  const std::string text = core->why(d.id);
  EXPECT_NE(text.find("placed on node 1 (epoch 1) as number 1: the least cost"), std::string::npos) << text;
  EXPECT_NE(text.find("node 1: wait 60.000 ms, transfer 0.000 ms, cost 60.000 ms"), std::string::npos) << text;
  EXPECT_NE(text.find("node 2: wait 30.000 ms, transfer 50.000 ms, cost 80.000 ms"), std::string::npos) << text;
  EXPECT_EQ(core->why(id_of(77)), "");
}

TEST_F(SchedulerTest, DecisionsAreRememberedInARing) {
  Options o;
  o.remember = 4;
  begin(o);
  beat(node(1, 100));
  for (uint32_t i = 1; i <= 6; ++i) place(demand_of(i));
  EXPECT_EQ(core->why(id_of(2)), "");
  EXPECT_NE(core->why(id_of(3)), "");
}

TEST_F(SchedulerTest, TwoInstancesOrderEqualNodesDifferently) {
  NodeIndex first[2];
  for (uint32_t i = 0; i < 2; ++i) {
    Options o;
    o.view.seed = i + 1;
    begin(o);
    versions.clear();
    for (NodeIndex n = 1; n <= 64; ++n) beat(node(n, 4));
    first[i] = place(demand_of(1));
  }
  EXPECT_NE(first[0], first[1]);
}

TEST_F(SchedulerTest, TheSameEventsGiveTheSameAnswers) {
  std::vector<NodeIndex> runs[2];
  for (auto& run : runs) {
    begin();
    versions.clear();
    for (NodeIndex n = 1; n <= 20; ++n) beat(node(n, 4, n % 3));
    for (uint32_t i = 1; i <= 200; ++i) run.push_back(place(demand_of(i, i % 3)));
  }
  EXPECT_EQ(runs[0], runs[1]);
}

TEST_F(SchedulerTest, OfAThousandNodesFewAreLookedAt) {
  for (NodeIndex n = 1; n <= 1000; ++n) {
    Heartbeat h = node(n, n % 10 ? 4 : 64, n % 7);
    if (n % 50 == 0) h.total = h.available = make({{"CPU", 64}, {"GPU", 8}});
    beat(h);
  }
  auto looked = [&](const Demand& d) {
    place(d);
    const std::string why = core->why(d.id);
    return std::strtol(why.c_str() + why.rfind(';', why.find(" nodes were looked at")) + 2, nullptr, 10);
  };
  for (uint32_t i = 1; i <= 500; ++i) {
    Demand d = demand_of(i, i % 5 ? 1 : 32);
    if (i % 9 == 0) d.resources = make({{"GPU", 1}});
    d.from = 1;
    EXPECT_LE(looked(d), 40) << core->why(d.id);
  }
}

}  // namespace
}  // namespace ray::global
