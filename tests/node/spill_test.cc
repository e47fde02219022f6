// Who is asked about, what is opened, and when again: the policy of what goes to other nodes, as a pure class.
#include "libray/node/core/spill.h"

#include <gtest/gtest.h>

#include <random>
#include <set>

namespace ray::node {
namespace {

constexpr int64_t kMs = 1'000'000;
constexpr uint32_t kSelf = 3, kNowhere = UINT32_MAX;

sched::Resources of(const std::string& name, double amount) {
  sched::Resources r;
  EXPECT_TRUE(r.add(name, amount).ok());
  return r;
}

sched::Spill waits(uint32_t client, uint32_t shape, uint32_t more, const std::string& name = "CPU") {
  sched::Spill s;
  s.client = client;
  s.shape = shape;
  s.more = more;
  s.resources = of(name, 1);
  s.pool = {0, 7};
  s.example.b[0] = static_cast<uint8_t>(client);
  s.since = 1;
  return s;
}

struct Bench {
  bool fits = true;
  int64_t now = 1'000'000'000;
  Spills s{kSelf, [this](const sched::Resources&) { return fits; }};
  SpillActions seen;

  void step(const std::vector<sched::Spill>& spills) { s.step(spills, now, &seen); }
  std::vector<SpillAction> take(SpillAction::Kind kind) {
    std::vector<SpillAction> out;
    for (const SpillAction& a : seen)
      if (a.kind == kind) out.push_back(a);
    std::erase_if(seen, [&](const SpillAction& a) { return a.kind == kind; });
    return out;
  }
  SpillAction ask() {
    auto asks = take(SpillAction::kAsk);
    EXPECT_EQ(asks.size(), 1u);
    return asks.empty() ? SpillAction{SpillAction::kAsk} : asks[0];
  }
  SpillAction open() {
    auto opens = take(SpillAction::kOpen);
    EXPECT_EQ(opens.size(), 1u);
    return opens.empty() ? SpillAction{SpillAction::kOpen} : opens[0];
  }
  void place(const SpillAction& question, uint32_t node, int64_t again = 0) {
    s.placed(question.number, {node, 5, again, false, ""}, now, &seen);
  }
};

TEST(Spill, AsksOpensAndGoesOnUntilThereAreEnough) {
  Bench b;
  b.step({waits(1, 0, 2)});
  const SpillAction first = b.ask();
  EXPECT_EQ(first.resources.to_string(), "CPU: 1");
  EXPECT_EQ(first.id.b[0], 1);
  b.step({waits(1, 0, 2)});  // one question at a time
  EXPECT_TRUE(b.seen.empty());
  b.place(first, 4);
  const SpillAction open = b.open();
  EXPECT_EQ(open.node, 4u);
  EXPECT_EQ(open.epoch, 5u);
  EXPECT_EQ(open.pool.job, 7u);
  EXPECT_EQ(open.key, (SpillKey{1, 0, {}}));
  const SpillAction second = b.ask();  // at once: two are wanted
  EXPECT_NE(second.attempt, first.attempt);
  b.place(second, 5);
  EXPECT_EQ(b.open().node, 5u);
  EXPECT_TRUE(b.seen.empty());
  b.step({waits(1, 0, 2)});  // both are on their way
  EXPECT_TRUE(b.seen.empty());
  b.s.opened(open.number);
  b.step({waits(1, 0, 1)});  // it has the one, and the other is on its way
  EXPECT_TRUE(b.seen.empty());
  EXPECT_EQ(b.s.opening(), 1u);
}

TEST(Spill, NowhereNowIsAskedAgainAsTheSameQuestion) {
  Bench b;
  b.step({waits(1, 0, 1)});
  const SpillAction first = b.ask();
  b.place(first, kNowhere, 300 * kMs);
  b.now += 299 * kMs;
  b.step({waits(1, 0, 1)});
  EXPECT_TRUE(b.seen.empty());
  b.now += 2 * kMs;
  b.step({waits(1, 0, 1)});
  const SpillAction again = b.ask();
  EXPECT_EQ(again.attempt, first.attempt);
  EXPECT_EQ(again.id, first.id);
  b.place(again, kSelf);  // it is best where it is
  EXPECT_TRUE(b.take(SpillAction::kOpen).empty());
  b.step({waits(1, 0, 1)});
  EXPECT_TRUE(b.seen.empty());
  b.now += 1000 * kMs;
  b.step({waits(1, 0, 1)});
  EXPECT_NE(b.ask().attempt, first.attempt);
}

TEST(Spill, WhatNoNodeCanDoIsSaidOnceAndTriedAgain) {
  Bench b;
  b.fits = false;
  sched::Spill s = waits(1, 0, 1, "gold");
  s.never = true;
  s.why = "needs {gold: 1}";
  b.step({s, waits(2, 0, 1)});  // who could run here is told nothing
  auto told = b.take(SpillAction::kTell);
  ASSERT_EQ(told.size(), 1u);
  EXPECT_EQ(told[0].text, "needs {gold: 1}");
  EXPECT_EQ(told[0].key.client, 1u);
  EXPECT_TRUE(b.seen.empty());  // and nobody is asked
  b.fits = true;
  b.now += 100 * kMs;
  b.step({s});
  b.s.placed(b.ask().number, {kNowhere, 0, 0, true, "no node has gold"}, b.now, &b.seen);
  EXPECT_TRUE(b.take(SpillAction::kTell).empty());  // it knows
  b.s.client_gone(1);
  b.step({s});
  b.s.placed(b.ask().number, {kNowhere, 0, 0, true, "no node has gold"}, b.now, &b.seen);
  told = b.take(SpillAction::kTell);
  ASSERT_EQ(told.size(), 1u);
  EXPECT_EQ(told[0].text, "no node has gold");
  b.now += 2000 * kMs;
  b.step({s});
  b.place(b.ask(), 4);  // one has come
  EXPECT_EQ(b.open().node, 4u);
}

TEST(Spill, WhatCannotBeOpenedIsLeftAloneEverLonger) {
  Bench b;
  b.step({waits(1, 0, 1)});
  b.place(b.ask(), 4);
  EXPECT_TRUE(b.s.failed(b.open().number, b.now));  // news
  int64_t pause = 0, last = 0;
  for (int i = 0; i < 12; ++i) {
    const int64_t from = b.now;
    while (b.seen.empty()) b.now += kMs, b.step({waits(1, 0, 1)});
    pause = b.now - from;
    EXPECT_GE(pause, last);
    last = pause;
    b.place(b.ask(), 4);
    EXPECT_FALSE(b.s.failed(b.open().number, b.now));
  }
  EXPECT_GE(pause, 10'000 * kMs);
  EXPECT_LE(pause, 20'000 * kMs);
  // Another client that is sent there waits too, and one that is sent elsewhere does not.
  b.step({waits(2, 0, 1), waits(3, 0, 1)});
  auto asks = b.take(SpillAction::kAsk);
  ASSERT_EQ(asks.size(), 2u);
  b.place(asks[0], 4);
  EXPECT_TRUE(b.take(SpillAction::kOpen).empty());
  b.place(asks[1], 5);
  const SpillAction open = b.open();
  b.s.opened(open.number);
  EXPECT_TRUE(b.s.failed([&] {
    b.step({waits(3, 0, 1)});
    b.place(b.ask(), 5);
    return b.open().number;
  }(), b.now));  // it was well in between: news again
}

TEST(Spill, WhatIsOnItsWayIsBounded) {
  Bench b;
  std::vector<sched::Spill> many;
  for (uint32_t c = 1; c <= 20; ++c) many.push_back(waits(c, 0, 1000));
  for (int i = 0; i < 200; ++i) {
    b.step(many);
    auto asks = b.take(SpillAction::kAsk);
    std::set<uint32_t> clients;
    for (const SpillAction& a : asks) EXPECT_TRUE(clients.insert(a.key.client).second);
    for (const SpillAction& a : asks) b.place(a, 4);
  }
  std::map<uint32_t, uint32_t> of;
  for (const SpillAction& a : b.take(SpillAction::kOpen)) ++of[a.key.client];
  for (auto [client, n] : of) EXPECT_LE(n, SpillOptions{}.each);
  EXPECT_GE(b.s.opening(), SpillOptions{}.all);
  EXPECT_LE(b.s.opening(), SpillOptions{}.all + 20);  // questions that were under way
}

TEST(Spill, AnswersForWhoIsGoneCountForNobody) {
  Bench b;
  b.step({waits(1, 0, 1)});
  const SpillAction question = b.ask();
  b.s.client_gone(1);
  b.place(question, 4);
  EXPECT_TRUE(b.seen.empty());
  b.step({waits(1, 0, 1)});  // another process with that index
  const SpillAction own = b.ask();
  b.place(question, 4);
  EXPECT_TRUE(b.seen.empty());
  b.place(own, 4);
  const SpillAction open = b.open();
  b.s.forget({1, 0, {}});
  b.s.opened(open.number);
  b.s.opened(open.number);
  EXPECT_FALSE(b.s.failed(open.number, b.now));
  EXPECT_EQ(b.s.opening(), 0u);
  EXPECT_EQ(b.s.asking(), 0u);
}

TEST(Spill, ForgetsWhoWaitsNoMore) {
  Bench b;
  for (uint32_t i = 0; i < 100; ++i) {
    b.step({waits(1, i, 1)});
    b.place(b.ask(), kNowhere);
    b.now += 1000 * kMs;
  }
  EXPECT_LE(b.s.size(), 30u);
}

// Whatever comes, in whatever order: what is open and asked is what the books say, and nothing is opened twice.
TEST(Spill, RandomRuns) {
  for (uint32_t seed = 1; seed <= 50; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    auto pick = [&](uint32_t n) { return std::uniform_int_distribution<uint32_t>(0, n - 1)(random); };
    Bench b;
    std::vector<uint64_t> asked, open;
    std::set<uint64_t> numbers;
    for (int i = 0; i < 2000; ++i) {
      b.now += pick(20) * kMs;
      const uint32_t what = pick(10);
      auto draw = [&](std::vector<uint64_t>* from) {
        if (from->empty()) return uint64_t{0};
        std::swap(from->back(), (*from)[pick(static_cast<uint32_t>(from->size()))]);
        const uint64_t n = from->back();
        from->pop_back();
        return n;
      };
      if (what < 4) {
        std::vector<sched::Spill> some;
        for (uint32_t k = pick(4); k > 0; --k) some.push_back(waits(1 + pick(3), pick(3), 1 + pick(4)));
        b.step(some);
      } else if (what < 7) {
        b.s.placed(draw(&asked), {pick(2) ? 4 + pick(2) : kNowhere, 1, 0, pick(20) == 0, ""}, b.now, &b.seen);
      } else if (what == 7) {
        b.s.opened(draw(&open));
      } else if (what == 8) {
        if (pick(2)) b.s.failed(draw(&open), b.now);
        else b.s.dropped(draw(&open));
      } else {
        b.s.client_gone(1 + pick(3));
        b.fits = pick(4) > 0;
      }
      for (const SpillAction& a : std::exchange(b.seen, {})) {
        if (a.kind == SpillAction::kTell) continue;
        ASSERT_TRUE(numbers.insert(a.number).second);
        (a.kind == SpillAction::kAsk ? asked : open).push_back(a.number);
      }
      ASSERT_EQ(b.s.opening(), open.size());
      ASSERT_LE(b.s.asking(), asked.size());
    }
  }
}

}  // namespace
}  // namespace ray::node
