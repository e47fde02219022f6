// The view of nodes: which heartbeats count, what was placed counts until it arrived, who is in the index.
#include <gtest/gtest.h>

#include "tests/sched_global/helpers.h"

namespace ray::global {
namespace {

constexpr int64_t kMs = 1'000'000;

Needs needs(const View& v, const Resources& r) {
  Needs n;
  const std::string* missing;
  EXPECT_TRUE(v.resolve(r, &n, &missing));
  return n;
}

struct ViewTest : testing::Test {
  ViewTest() : view(ViewOptions{}) {}
  bool beat(Heartbeat h, int64_t now = 0) {
    bool better;
    const bool counted = view.heartbeat(h, now, &better);
    EXPECT_EQ(view.check(), "");
    return counted;
  }
  View view;
};

TEST_F(ViewTest, LateAndRepeatedHeartbeatsChangeNothing) {
  Heartbeat h = beat_of(1, 4);
  h.version = 5;
  EXPECT_TRUE(beat(h));
  h.running = 3;
  EXPECT_FALSE(beat(h));
  h.version = 4;
  EXPECT_FALSE(beat(h));
  EXPECT_EQ(view.find(1)->running, 0u);
  h.version = 6;
  EXPECT_TRUE(beat(h));
  EXPECT_EQ(view.find(1)->running, 3u);
}

TEST_F(ViewTest, NothingOfAFencedNodeCounts) {
  EXPECT_TRUE(beat(beat_of(1, 4)));
  EXPECT_TRUE(view.dead(1, 1));
  EXPECT_EQ(view.find(1), nullptr);
  Heartbeat h = beat_of(1, 4);
  h.version = 100;
  EXPECT_FALSE(beat(h));
  h.epoch = 2;
  h.version = 1;
  EXPECT_TRUE(beat(h));
  EXPECT_FALSE(view.dead(1, 1));  // of the one before
  EXPECT_NE(view.find(1), nullptr);
}

TEST_F(ViewTest, ALaterEpochIsANewNode) {
  beat(beat_of(1, 4));
  view.place(*view.find(1), needs(view, make({{"CPU", 2}})), 1e6, false, 0);
  Heartbeat h = beat_of(1, 4);
  h.epoch = 2;
  EXPECT_TRUE(beat(h));
  EXPECT_TRUE(view.find(1)->placed.empty());
}

TEST_F(ViewTest, FencesAreBoundedAndTheDeadStayDead) {
  ViewOptions o;
  o.max_fences = 3;
  View v(o);
  bool better;
  for (NodeIndex n = 0; n < 10; ++n) v.dead(n, 1);
  for (NodeIndex n = 0; n < 10; ++n) EXPECT_FALSE(v.heartbeat(beat_of(n, 4), 0, &better)) << n;
  EXPECT_TRUE(v.heartbeat(beat_of(10, 4), 0, &better));
  EXPECT_EQ(v.check(), "");
}

TEST_F(ViewTest, WhatWasPlacedCountsUntilTheNodeHasSeenIt) {
  beat(beat_of(1, 4));
  const Needs one = needs(view, make({{"CPU", 1}}));
  const uint64_t first = view.place(*view.find(1), one, 1e6, false, 0);
  view.place(*view.find(1), one, 1e6, false, 0);
  EXPECT_DOUBLE_EQ(view.load(*view.find(1), one), 0.75);
  Heartbeat h = beat_of(1, 4);
  h.version = 2;
  beat(h);  // it was on its way before they came
  EXPECT_DOUBLE_EQ(view.load(*view.find(1), one), 0.75);
  h.version = 3;
  h.seen = {{1, first}, {2, 100}};
  h.available = make({{"CPU", 3}});
  beat(h);
  EXPECT_DOUBLE_EQ(view.load(*view.find(1), one), 0.75);  // one is counted there, one here
  view.tick(1000 * kMs);                                  // the other must have been lost
  EXPECT_DOUBLE_EQ(view.load(*view.find(1), one), 0.5);
  EXPECT_EQ(view.check(), "");
}

TEST_F(ViewTest, SilentAndDrainingNodesAreInNoIndex) {
  auto indexed = [&](uint32_t axis) {
    size_t n = 0;
    for (const auto& [bucket, line] : view.axis_index(axis)) n += line.size();
    return n;
  };
  beat(beat_of(1, 4));
  beat(beat_of(2, 4), 500 * kMs);
  const uint32_t cpu = needs(view, make({{"CPU", 1}}))[0].axis;
  EXPECT_EQ(indexed(cpu), 2u);
  view.tick(1000 * kMs);
  EXPECT_EQ(indexed(cpu), 1u);
  Heartbeat h = beat_of(1, 4);
  h.version = 2;
  beat(h, 1100 * kMs);
  EXPECT_EQ(indexed(cpu), 2u);
  h.version = 3;
  h.draining = true;
  beat(h, 1200 * kMs);
  EXPECT_EQ(indexed(cpu), 1u);
}

TEST_F(ViewTest, WaitingTimeIsTheLineByItsMeanOverWhatTheNodeHas) {
  Heartbeat h = beat_of(1, 4);
  h.available = Resources();
  h.queued = make({{"CPU", 7}});
  h.waiting = 7;
  h.ran = {{9, 10, 10 * 8 * kMs}};  // 8 ms each
  beat(h);
  const Needs one = needs(view, make({{"CPU", 1}}));
  EXPECT_DOUBLE_EQ(view.wait_ns(*view.find(1), one), 2 * 8e6);  // 8 in line before 4 processors
  view.place(*view.find(1), one, 88e6, false, 0);
  EXPECT_DOUBLE_EQ(view.line_ns(*view.find(1)), 18e6);  // seven of 8 ms and one of 88
}

TEST_F(ViewTest, AveragesAreExponential) {
  Average a;
  EXPECT_EQ(a.or_else(3), 3);
  a.add(0.2, 100);
  EXPECT_DOUBLE_EQ(a.value(), 100);
  a.add(0.2, 200);
  EXPECT_DOUBLE_EQ(a.value(), 120);
  Average b = a;
  b.add(0.2, 50, 3);
  for (int i = 0; i < 3; ++i) a.add(0.2, 50);
  EXPECT_DOUBLE_EQ(a.value(), b.value());
  FunctionTimes t(2);
  for (uint64_t f = 1; f <= 3; ++f) t.add(0.2, f, 1, 1);
  EXPECT_EQ(t.find(1), nullptr);
  EXPECT_EQ(t.size(), 2u);
}

TEST_F(ViewTest, FullAtOneBoundAndRoomAgainAtALowerOne) {
  auto full_with = [&](double queued, uint64_t version) {
    Heartbeat h = beat_of(1, 4);
    h.version = version;
    h.available = Resources();
    h.queued = make({{"CPU", queued}});
    h.waiting = static_cast<uint32_t>(queued);
    h.ran = {{1, 1, 100 * kMs}};
    beat(h);
    return view.find(1)->stocks[1].full;
  };
  EXPECT_FALSE(full_with(60, 1));  // 1.5 s
  EXPECT_TRUE(full_with(81, 2));   // more than 2 s
  EXPECT_TRUE(full_with(60, 3));
  EXPECT_FALSE(full_with(39, 4));  // less than 1 s
  EXPECT_FALSE(full_with(60, 5));
}

TEST_F(ViewTest, ResourcesComeAndGo) {
  Heartbeat h = beat_of(1, 4);
  h.total = h.available = make({{"CPU", 4}, {"x", 2}});
  beat(h);
  view.place(*view.find(1), needs(view, make({{"x", 1}})), 0, true, 0);
  h.version = 2;
  h.total = h.available = make({{"CPU", 4}});
  beat(h);
  Needs n;
  const std::string* missing;
  const Resources gone = make({{"x", 1}});  // missing points into it
  EXPECT_FALSE(view.resolve(gone, &n, &missing));
  EXPECT_EQ(*missing, "x");
  h.version = 3;
  h.total = h.available = make({{"CPU", 4}, {"y", 2}});
  beat(h);
  EXPECT_EQ(view.find(1)->stock(needs(view, make({{"y", 1}}))[0].axis)->placed, 0);
  view.dead(1, 1);
  EXPECT_EQ(view.check(), "");
}

}  // namespace
}  // namespace ray::global
