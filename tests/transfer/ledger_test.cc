// The rules of the ledger, one by one, between a few ledgers whose messages the test delivers.
#include <gtest/gtest.h>

#include <deque>

#include "libray/transfer/ledger.h"

namespace ray::transfer {
namespace {

ObjectId id_of(uint8_t number) {
  ObjectId id;
  id.b[0] = number;
  return id;
}

// Nodes 1 to n. Messages wait until they are delivered.
struct Cluster {
  struct Flying {
    Place from, to;
    LedgerMessage m;
  };
  explicit Cluster(uint32_t n) {
    for (uint32_t i = 1; i <= n; ++i) ledgers.emplace(i, Ledger(place(i)));
    for (uint32_t i = 1; i <= n; ++i) {
      ++view;
      for (auto& [k, l] : ledgers) run(k, [&](auto* out) { l.joined(view, place(i), now, out); });
    }
  }
  static Place place(uint32_t i) { return {i, 1}; }
  Ledger& at(uint32_t i) { return ledgers.at(i); }
  template <class F>
  void run(uint32_t i, F what) {
    LedgerActions out;
    what(&out);
    for (auto& a : out) {
      if (a.kind == LedgerAction::kSend) flying.push_back({place(i), a.place, a.message});
      if (a.kind == LedgerAction::kFreed) freed.push_back(a.id);
      if (a.kind == LedgerAction::kDrop) dropped.push_back({i, a.id});
    }
  }
  void hold(uint32_t i, uint8_t id, uint32_t home) {
    run(i, [&](auto* out) { at(i).hold(id_of(id), place(home), now, out); });
  }
  void store(uint32_t i, uint8_t id, uint32_t home) {
    run(i, [&](auto* out) { at(i).stored(id_of(id), place(home), now, out); });
  }
  void release(uint32_t i, uint8_t id) {
    run(i, [&](auto* out) { at(i).release(id_of(id), now, out); });
  }
  void give(uint32_t i, const Flying& f) {
    run(i, [&](auto* out) { at(i).message(f.from, f.m, now, out); });
  }
  void deliver() {
    while (!flying.empty()) {
      const Flying f = flying.front();
      flying.pop_front();
      if (ledgers.count(f.to.node)) give(f.to.node, f);
    }
  }
  void die(uint32_t i) {
    ledgers.erase(i);
    ++view;
    for (auto& [k, l] : ledgers) run(k, [&](auto* out) { l.died(view, place(i), now, out); });
  }
  void wait() {
    now += 1'000'000'000;
    for (auto& [k, l] : ledgers) run(k, [&](auto* out) { l.tick(now, out); });
    deliver();
  }

  std::map<uint32_t, Ledger> ledgers;
  std::deque<Flying> flying;
  std::vector<ObjectId> freed;
  std::vector<std::pair<uint32_t, ObjectId>> dropped;
  uint64_t view = 0;
  int64_t now = 0;
};

TEST(Ledger, FreedWhenTheLastHolderLetsGoAndDroppedWhereItIsStored) {
  Cluster c(3);
  c.hold(1, 7, 1);
  c.hold(2, 7, 1);
  c.store(3, 7, 1);
  c.deliver();
  c.release(1, 7);
  c.deliver();
  EXPECT_TRUE(c.freed.empty());
  c.release(2, 7);
  c.deliver();
  EXPECT_EQ(c.freed.size(), 1u);
  ASSERT_EQ(c.dropped.size(), 1u);
  EXPECT_EQ(c.dropped[0].first, 3u);
  for (int i = 0; i < 3; ++i) c.wait();
  for (auto& [k, l] : c.ledgers) EXPECT_EQ(l.homed() + l.levels() + l.remembered(), 0u);
}

TEST(Ledger, RepeatsAndReorderChangeNothing) {
  Cluster c(2);
  c.hold(1, 7, 1);
  c.hold(2, 7, 1);
  c.release(2, 7);
  ASSERT_EQ(c.flying.size(), 2u);
  const auto hold = c.flying[0], release = c.flying[1];
  c.flying.clear();
  c.give(1, release);
  c.give(1, hold);  // late
  c.release(1, 7);
  EXPECT_EQ(c.freed.size(), 1u);
  for (int i = 0; i < 3; ++i) c.wait();
  EXPECT_EQ(c.at(1).remembered(), 0u);
  c.give(1, hold);  // very late: the home has forgotten, but knows that nothing so old is outstanding
  EXPECT_EQ(c.at(1).homed(), 0u);
}

TEST(Ledger, AReferenceOnItsWayHolds) {
  Cluster c(3);
  c.hold(1, 7, 1);
  const uint64_t transit = c.at(1).sends(id_of(7), c.place(2));
  c.release(1, 7);
  EXPECT_TRUE(c.freed.empty());
  c.hold(2, 7, 1);
  c.run(2, [&](auto* out) { c.at(2).received(c.place(1), transit, id_of(7), c.now, out); });
  EXPECT_EQ(c.at(1).transits(), 1u);
  c.deliver();
  EXPECT_EQ(c.at(1).transits(), 0u);
  EXPECT_TRUE(c.freed.empty());
  c.release(2, 7);
  c.deliver();
  EXPECT_EQ(c.freed.size(), 1u);
}

TEST(Ledger, AReferenceThatIsNotSentHoldsNoLonger) {
  Cluster c(2);
  c.hold(1, 7, 1);
  const uint64_t transit = c.at(1).sends(id_of(7), c.place(2));
  c.release(1, 7);
  c.run(1, [&](auto* out) { c.at(1).unsent(transit, c.now, out); });
  EXPECT_EQ(c.freed.size(), 1u);
  EXPECT_EQ(c.at(1).sends(id_of(7), c.place(2)), 0u);
}

TEST(Ledger, HoldsOfTheDeadGoWhenAllAreThroughWithTheDeath) {
  Cluster c(3);
  c.hold(1, 7, 1);
  c.hold(2, 7, 1);
  c.deliver();
  c.release(1, 7);
  // Node 2 sent the reference to node 3, which has it and has not told the home yet.
  const uint64_t transit = c.at(2).sends(id_of(7), c.place(3));
  c.hold(3, 7, 1);
  c.run(3, [&](auto* out) { c.at(3).received(c.place(2), transit, id_of(7), c.now, out); });
  const auto hold = c.flying.front();
  c.flying.clear();
  c.die(2);
  c.deliver();  // 3 cannot be through: what it told is not acknowledged
  EXPECT_FALSE(c.at(1).quiet());
  EXPECT_TRUE(c.freed.empty());
  c.give(1, hold);
  c.deliver();
  EXPECT_TRUE(c.at(1).quiet());
  EXPECT_TRUE(c.freed.empty());
  c.release(3, 7);
  c.deliver();
  EXPECT_EQ(c.freed.size(), 1u);
}

TEST(Ledger, WhatWasSentToTheDeadHoldsUntilThen) {
  Cluster c(3);
  c.hold(1, 7, 1);
  c.at(1).sends(id_of(7), c.place(2));
  c.release(1, 7);
  c.die(2);
  EXPECT_TRUE(c.freed.empty());
  c.deliver();
  EXPECT_EQ(c.freed.size(), 1u);
}

TEST(Ledger, TheNextHomeFreesNothingBeforeAllHaveToldIt) {
  Cluster c(4);
  c.hold(2, 7, 1);
  c.hold(3, 7, 1);
  c.store(4, 7, 1);
  c.deliver();
  c.die(1);
  Place home;
  ASSERT_TRUE(c.at(2).members().home(id_of(7), c.place(1), &home));
  c.release(2, 7);
  c.deliver();
  EXPECT_TRUE(c.at(home.node).held(id_of(7)));
  EXPECT_TRUE(c.dropped.empty());
  c.release(3, 7);
  c.deliver();
  c.wait();
  EXPECT_EQ(c.dropped.size(), 1u);
  for (int i = 0; i < 3; ++i) c.wait();
  for (auto& [k, l] : c.ledgers) EXPECT_EQ(l.homed() + l.levels() + l.remembered(), 0u);
}

TEST(Ledger, ACopyThatNobodyHoldsGoesWithItsHome) {
  Cluster c(3);
  c.hold(1, 7, 1);
  c.store(2, 7, 1);
  c.deliver();
  c.die(1);
  c.deliver();
  c.wait();
  EXPECT_EQ(c.dropped.size(), 1u);
}

TEST(Ledger, AnOldDropDoesNotHurtWhoHoldsItAgain) {
  Cluster c(2);
  c.hold(1, 7, 1);
  c.store(2, 7, 1);
  c.deliver();
  c.release(1, 7);
  const auto drop = c.flying.front();
  ASSERT_EQ(drop.m.kind, LedgerKind::kDrop);
  c.flying.clear();
  c.hold(1, 7, 1);  // made again, by who runs again
  c.hold(2, 7, 1);
  c.give(2, drop);
  EXPECT_TRUE(c.dropped.empty());
  c.deliver();
  EXPECT_TRUE(c.at(1).held(id_of(7)));
}

TEST(Ledger, WhatIsLostOnTheWayIsSaidAgain) {
  Cluster c(2);
  c.hold(1, 7, 1);
  c.hold(2, 7, 1);
  c.flying.clear();
  c.wait();
  c.release(1, 7);
  c.deliver();
  EXPECT_TRUE(c.freed.empty());
}

TEST(Members, JoinsDoNotMoveHomes) {
  Members m;
  for (uint32_t i = 1; i <= 5; ++i) ASSERT_TRUE(m.joined(i, {i, 1}));
  ASSERT_FALSE(m.joined(5, {9, 1}));
  Place before, after;
  ASSERT_TRUE(m.died(6, {1, 1}));
  ASSERT_TRUE(m.home(id_of(3), {1, 1}, &before));
  for (uint32_t i = 7; i <= 30; ++i) ASSERT_TRUE(m.joined(i, {i, 1}));
  ASSERT_TRUE(m.home(id_of(3), {1, 1}, &after));
  EXPECT_EQ(before, after);
  EXPECT_FALSE(m.home(id_of(3), {99, 1}, &after));
}

}  // namespace
}  // namespace ray::transfer
