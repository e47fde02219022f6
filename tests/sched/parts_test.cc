// The parts of the local scheduler, each alone: the resource table, the order in which leases are reclaimed (against a
// sorted list), leases, worker pools, placement groups.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <tuple>
#include <vector>

#include "scheduler_bench.h"

namespace ray::sched {
namespace {

Need need(const ResourceTable& t, std::map<std::string, double> amounts) {
  std::string never;
  Need n = t.need_of(make(std::move(amounts)), &never);
  EXPECT_EQ(never, "");
  return n;
}

// ---- resource table

TEST(ResourceTable, ViewsSayWhatComesBack) {
  ResourceTable t(make({{"CPU", 4}}), {});
  const Need one = need(t, {{"CPU", 1}}), two = need(t, {{"CPU", 2}});
  Holding actor, task;
  t.hold(&actor, two, Back::kNever);
  t.hold(&task, two, Back::kLeased);
  EXPECT_EQ(t.check({&actor, &task}, {}), "");
  EXPECT_FALSE(t.fits(one, t.now()));
  EXPECT_FALSE(t.fits(one, t.soon()));
  EXPECT_TRUE(t.fits(two, t.later()));
  t.comes_back(&task, Back::kSoon);
  EXPECT_TRUE(t.fits(two, t.soon()));
  t.comes_back(&task, Back::kLate);
  EXPECT_FALSE(t.fits(one, t.soon()));
  EXPECT_TRUE(t.fits(two, t.later()));
  t.comes_back(&task, Back::kKept);
  EXPECT_FALSE(t.fits(one, t.later()));
  t.comes_back(&task, Back::kEnding);
  EXPECT_TRUE(t.fits(two, t.soon()));
  t.drop(&task);
  EXPECT_TRUE(t.fits(two, t.now()));
  EXPECT_FALSE(t.fits(need(t, {{"CPU", 3}}), t.later()));
  EXPECT_TRUE(t.fits(need(t, {{"CPU", 4}}), t.empty()));
  EXPECT_EQ(t.check({&actor}, {}), "");
  EXPECT_NE(t.check({}, {}), "");  // a holder that nobody knows is seen
}

TEST(ResourceTable, LentCpuIsFreeOnce) {
  ResourceTable t(make({{"CPU", 1}, {"disk", 1}}), {});
  const Need both = need(t, {{"CPU", 1}, {"disk", 1}}), cpu = need(t, {{"CPU", 1}});
  Holding a, b;
  t.hold(&a, both, Back::kLeased);
  t.lend(&a, true);
  EXPECT_TRUE(t.fits(cpu, t.now()));
  EXPECT_FALSE(t.fits(both, t.now()));
  EXPECT_EQ(t.later().at(kCpu), kUnit);  // not twice
  t.hold(&b, cpu, Back::kLeased);
  t.lend(&a, false);
  EXPECT_EQ(t.free(kCpu), -kUnit);
  EXPECT_EQ(t.check({&a, &b}, {}), "");
  t.drop(&a);
  t.drop(&b);
  EXPECT_EQ(t.check({}, {}), "");
}

// A view follows the table, and what was changed in it alone stays in it.
TEST(ResourceTable, AViewIsNoCopy) {
  ResourceTable t(make({{"CPU", 4}}), {});
  View v = t.now();
  v.take(need(t, {{"CPU", 1}}));
  Holding h;
  t.hold(&h, need(t, {{"CPU", 2}}), Back::kLeased);
  EXPECT_EQ(v.at(kCpu), kUnit);
  EXPECT_EQ(t.now().at(kCpu), 2 * kUnit);
  t.set_aside(need(t, {{"CPU", 2}}));
  EXPECT_EQ(t.free(kCpu), 0);
  EXPECT_NE(t.check({&h}, {}), "");  // only within a round
  t.restore();
  EXPECT_EQ(t.check({&h}, {}), "");
}

TEST(ResourceTable, BundlesHaveEntriesWhileTheyAreReserved) {
  ResourceTable t(make({{"CPU", 2}, {"GPU", 2}}), {"GPU"});
  const size_t before = t.size();
  Bundle b;
  b.need = need(t, {{"CPU", 1}, {"GPU", 1.5}});
  ASSERT_TRUE(t.fits(b.need, t.now()));
  for (int i = 0; i < 3; ++i) {
    t.reserve(&b);
    EXPECT_EQ(t.check({}, {&b}), "");
    Need in;
    ASSERT_TRUE(t.in_bundle(b, need(t, {{"CPU", 1}, {"GPU", 1}}), &in));
    EXPECT_TRUE(t.fits(in, t.now()));
    Holding h;
    t.hold(&h, t.with_instances(in, t.now()), Back::kLeased);
    EXPECT_EQ(t.instances(h, "GPU").size(), 1u);
    EXPECT_FALSE(t.fits(in, t.now()));  // half a GPU is left in it
    EXPECT_EQ(t.check({&h}, {&b}), "");
    t.drop(&h);
    t.give_back(&b);
    EXPECT_EQ(t.check({}, {}), "");
    EXPECT_LE(t.size(), before + 4);  // used again
  }
}

// ---- the order in which leases are reclaimed

struct Listed {
  uint32_t client, shape;
  ReclaimOrder::Age age;
  std::vector<uint32_t> entries;
};

struct Orders {
  ReclaimOrder order{4};  // entries 4 and up are bundles'
  std::vector<Listed> leases;
  std::map<std::pair<uint32_t, uint32_t>, bool> surplus;

  // As it is defined: everything, sorted.
  std::vector<uint32_t> expected(const std::vector<uint32_t>& missing) {
    std::map<uint32_t, int64_t> of;
    for (const Listed& l : leases) ++of[l.client];
    std::vector<std::tuple<bool, int64_t, ReclaimOrder::Age>> all;
    for (const Listed& l : leases)
      if (std::find_first_of(l.entries.begin(), l.entries.end(), missing.begin(), missing.end()) != l.entries.end())
        all.emplace_back(!surplus[{l.client, l.shape}], -of[l.client], l.age);
    std::sort(all.begin(), all.end());
    std::vector<uint32_t> out;
    for (const auto& [kind, n, age] : all) out.push_back(age.lease);
    return out;
  }
  std::vector<uint32_t> walked(const std::vector<uint32_t>& missing) {
    std::vector<uint32_t> out;
    ReclaimOrder::Walk walk(&order, missing);
    while (auto v = walk.next()) out.push_back(v->lease);
    return out;
  }
};

TEST(ReclaimOrder, IsThatOfASortedList) {
  for (uint32_t seed = 1; seed <= 40; ++seed) {
    std::mt19937 random(seed);
    auto pick = [&](uint32_t n) { return static_cast<uint32_t>(random() % n); };
    Orders o;
    for (uint32_t i = 1; i <= 300; ++i) {
      const uint32_t what = pick(10);
      if (what < 5) {
        std::vector<uint32_t> entries;
        for (uint32_t e = 0; e < 6; ++e)
          if (pick(3) == 0) entries.push_back(e);
        o.leases.push_back({1 + pick(5), pick(3), {pick(40), i}, entries});
        const Listed& l = o.leases.back();
        o.order.add(l.client, l.shape, l.age, l.entries);
      } else if (what < 8 && !o.leases.empty()) {
        const uint32_t at = pick(static_cast<uint32_t>(o.leases.size()));
        const Listed l = o.leases[at];
        o.leases.erase(o.leases.begin() + at);
        o.order.remove(l.client, l.shape, l.age, l.entries);
      } else {
        const std::pair<uint32_t, uint32_t> of{1 + pick(5), pick(3)};
        o.surplus[of] = pick(2);
        o.order.set_surplus(of.first, of.second, o.surplus[of]);
      }
      for (const std::vector<uint32_t>& missing : {std::vector<uint32_t>{0}, {1, 2}, {4}, {0, 5}, {3, 4, 5}})
        ASSERT_EQ(o.walked(missing), o.expected(missing)) << "seed " << seed << ", step " << i;
    }
    for (auto& [of, yes] : o.surplus) o.order.set_surplus(of.first, of.second, false);
    for (const Listed& l : o.leases) o.order.remove(l.client, l.shape, l.age, l.entries);
    EXPECT_EQ(o.order.size(), 0u);
  }
}

TEST(ReclaimOrder, WhoIsPassedOverIsNotVisited) {
  ReclaimOrder order;
  for (uint32_t i = 1; i <= 1000; ++i) order.add(1, i % 7, {i, i}, {0});
  for (uint32_t i = 1001; i <= 2000; ++i) order.add(i, 0, {i, i}, {0});
  order.add(3000, 0, {5000, 3000}, {0});
  order.set_surplus(3000, 0, true);
  ReclaimOrder::Walk walk(&order, {0});
  EXPECT_EQ(walk.next()->client, 3000u);  // wants it no more
  EXPECT_EQ(walk.next()->lease, 1u);      // then of the one who has most, the oldest
  EXPECT_EQ(walk.next()->lease, 2u);
  walk.pass_client(1);
  auto next = walk.next();
  EXPECT_EQ(next->client, 1001u);
  walk.pass_level(next->leases);
  EXPECT_FALSE(walk.next());
  EXPECT_LE(order.visited(), 20u);
}

// ---- leases

struct LeaseBench {
  ResourceTable table{make({{"CPU", 100}}), {}};
  Leases leases{&table};
  std::vector<Holding> held = std::vector<Holding>(100);
  uint32_t grant(size_t i, uint32_t client, int64_t now) {
    table.hold(&held[i], need(table, {{"CPU", 1}}), Back::kLeased);
    return leases.grant(client, 0, static_cast<uint32_t>(i), 0, &held[i], now).id;
  }
};

TEST(Leases, AskedBackExpectedLateAndKept) {
  LeaseBench b;
  const uint32_t first = b.grant(0, 1, 10), second = b.grant(1, 2, 20);
  EXPECT_EQ(b.leases.may_return(), 2u);
  EXPECT_EQ(b.leases.oldest(9, 0, 100)->id, first);
  EXPECT_EQ(b.leases.oldest(1, 0, 100)->id, second);  // not one's own
  EXPECT_EQ(b.leases.oldest(1, 0, 19), nullptr);      // too young
  b.leases.reclaim(second, 200);
  b.leases.reclaim(first, 100);
  EXPECT_EQ(b.leases.oldest(9, 0, 1000), nullptr);
  EXPECT_EQ(b.leases.expected(9, 0)->id, first);  // the one that was asked first, whatever its number
  EXPECT_EQ(b.leases.next_late(), 100 + kComingNs);
  b.leases.begin_round(100 + kComingNs);
  EXPECT_EQ(b.leases.expected(9, 0)->id, second);
  EXPECT_EQ(b.leases.check(), "");
  EXPECT_TRUE(b.leases.keep_since(150));
  EXPECT_FALSE(b.leases.keep_since(150));
  EXPECT_EQ(b.leases.may_return(), 1u);
  b.leases.waits(second, true);
  EXPECT_EQ(b.leases.may_return(), 0u);
  EXPECT_EQ(b.leases.overdue(150).size(), 1u);
  EXPECT_EQ(b.leases.overdue(250).size(), 2u);
  EXPECT_EQ(b.leases.check(), "");
  EXPECT_EQ(b.leases.end(first).client, 1u);
  EXPECT_EQ(b.leases.count(1), 0u);
  EXPECT_EQ(b.leases.check(), "");
}

TEST(Leases, TheOldestOfOthersIsFoundBehindManyOfOnesOwn) {
  LeaseBench b;
  std::vector<uint32_t> own;
  for (uint32_t i = 0; i < 50; ++i) own.push_back(b.grant(i, 1, 10 + i));
  const uint32_t other = b.grant(50, 2, 100), younger = b.grant(51, 2, 200);
  ASSERT_NE(b.leases.oldest(1, 0, 1000), nullptr);
  EXPECT_EQ(b.leases.oldest(1, 0, 1000)->id, other);
  EXPECT_EQ(b.leases.oldest(2, 0, 1000)->id, own[0]);
  b.leases.waits(own[0], true);
  EXPECT_EQ(b.leases.oldest(2, 0, 1000)->id, own[1]);
  b.leases.reclaim(other, 300);
  EXPECT_EQ(b.leases.oldest(1, 0, 1000)->id, younger);
  b.leases.end(younger);
  EXPECT_EQ(b.leases.oldest(1, 0, 1000), nullptr);
  EXPECT_EQ(b.leases.check(), "");
}

// ---- worker pools

TEST(WorkerPools, RoomIsGivenInTheOrderOfThoseWhoNeedIt) {
  WorkerPools p({3, 2, 1000});
  const Pool first{9, 1}, second{0, 1};
  p.begin_round(1);
  EXPECT_EQ(p.room(), 3u);
  EXPECT_TRUE(p.plan(first, 1));
  EXPECT_TRUE(p.plan(first, 1));
  EXPECT_TRUE(p.plan(second, 1));
  EXPECT_FALSE(p.plan(second, 1));
  int64_t again = 0;
  std::map<Pool, uint32_t> started;
  for (const auto& s : p.start(1, &again)) started[s.pool] = s.count;
  EXPECT_EQ(started, (std::map<Pool, uint32_t>{{first, 2}, {second, 1}}));
  EXPECT_EQ(p.processes(), 3u);
  EXPECT_EQ(p.check(), "");
  p.ready(1, first, 5);
  p.begin_round(5);
  EXPECT_EQ(p.room(), 0u);
  EXPECT_FALSE(p.plan(second, 5) && p.plan(second, 5));  // one that starts can be counted on, no other
  EXPECT_EQ(p.in_the_way(), p.find(1u));
  EXPECT_EQ(p.check(), "");
}

TEST(WorkerPools, NothingIsGivenToOneThatLeaves) {
  WorkerPools p({10, 1, 1000});
  const Pool pool{0, 1};
  for (uint32_t w : {1, 2, 3}) p.ready(w, pool, w);
  p.kill(p.find(2u));
  p.stop(p.find(3u), 100);
  p.begin_round(200);
  const int64_t until = p.leaves_until();
  EXPECT_GT(until, 200);
  EXPECT_EQ(p.take_idle(pool, 0)->index, 1u);
  EXPECT_EQ(p.take_idle(pool, 0), nullptr);
  p.forget(2);
  EXPECT_EQ(p.leaves_until(), until - 100);  // the other was told earlier
  p.forget(3);
  EXPECT_EQ(p.leaves_until(), 0);
  p.make_idle(p.find(1u), 50);
  EXPECT_EQ(p.check(), "");
  EXPECT_EQ(p.too_old(5000), nullptr);  // one stays
  p.ready(4, pool, 60);
  EXPECT_EQ(p.next_too_old(), 1050);
  EXPECT_EQ(p.too_old(5000), p.find(1u));
  p.job_ended(1);
  EXPECT_EQ(p.pools(), 0u);
  EXPECT_GT(p.leaves_until(), 0);
  EXPECT_EQ(p.check(), "");
}

// ---- placement groups

TEST(PlacementGroups, ARemovedGroupIsThereUntilItsLastUserIsGone) {
  ResourceTable t(make({{"CPU", 2}}), {});
  PlacementGroups groups(&t);
  Group* g = nullptr;
  ASSERT_TRUE(groups.create(id_of(1), {make({{"CPU", 1}})}, false, &g).ok());
  EXPECT_FALSE(groups.create(id_of(1), {}, false, &g).ok());
  EXPECT_EQ(groups.check({}), "");
  groups.reserve(g);
  Request r;
  EXPECT_FALSE(groups.place(&r, {id_of(1), 1, ""}).ok());  // it has one bundle
  ASSERT_TRUE(groups.place(&r, {id_of(1), 0, ""}).ok());
  r.need = need(t, {{"CPU", 1}});
  ASSERT_TRUE(groups.choose_bundle(&r, t.now()));
  Holding h;
  t.hold(&h, r.placed, Back::kLeased);
  groups.use(g, 7);
  EXPECT_FALSE(groups.choose_bundle(&r, t.now()));
  EXPECT_EQ(groups.check({{g, {7}}}), "");
  g->removed = true;
  EXPECT_EQ(groups.living(id_of(1)), nullptr);
  EXPECT_FALSE(groups.place(&r, {id_of(1), 0, ""}).ok());
  t.drop(&h);
  ASSERT_TRUE(groups.leave(g, 7));
  groups.give_back(g);
  EXPECT_EQ(groups.size(), 0u);
  EXPECT_EQ(t.free(kCpu), 2 * kUnit);
  EXPECT_EQ(t.check({}, {}), "");
}

}  // namespace
}  // namespace ray::sched
