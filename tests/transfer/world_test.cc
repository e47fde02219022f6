// Planner, server and ledger under everything that a network and a cluster do to them, and figures of the simulation. A
// failing seed prints how to run it again.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>

#include "tests/transfer/ledger_world.h"
#include "tests/transfer/pull_world.h"

namespace ray::transfer {
namespace {

constexpr int64_t kSecond = 1'000'000'000;

struct Seeds {
  explicit Seeds(uint64_t usual) : last(usual) {
    const char *one = std::getenv("SEED"), *more = std::getenv("SEEDS");  // SEEDS: how many times the usual number
    if (more) last *= std::strtoull(more, nullptr, 10);
    if (one) first = last = std::strtoull(one, nullptr, 10);
  }
  uint64_t first = 1, last;
};

std::string again(uint64_t seed, const char* name) {
  return "again: SEED=" + std::to_string(seed) + " transfer_test --gtest_filter=*" + name;
}

// ---- pulls

void pulls(const char* name, const PullWorld::Options& options, uint64_t usual, int64_t ns, bool must_lose) {
  uint64_t ready = 0, losses = 0;
  const Seeds seeds(usual);
  for (uint64_t seed = seeds.first; seed <= seeds.last; ++seed) {
    PullWorld world(seed, options);
    world.run(ns);
    world.calm(60 * kSecond);
    ASSERT_EQ(world.verdict(), "") << again(seed, name);
    ready += world.ready();
    losses += world.losses();
  }
  EXPECT_GT(ready, 20 * (seeds.last - seeds.first + 1));
  if (seeds.first != seeds.last) { EXPECT_EQ(losses > 0, must_lose); }  // where copies go, some are the last ones
}

TEST(PullWorld, Quiet) { pulls("Quiet", PullWorld::small(), 10, 2 * kSecond, false); }

TEST(PullWorld, DoublesAndCuts) {
  auto o = PullWorld::small();
  o.doubles = o.cuts = true;
  pulls("DoublesAndCuts", o, 15, 3 * kSecond, false);
}

TEST(PullWorld, LittleRoom) {
  auto o = PullWorld::small();
  o.room = 25000;
  o.room_changes = o.evictions = true;
  pulls("LittleRoom", o, 15, 3 * kSecond, true);
}

TEST(PullWorld, NodesThatStandStill) {
  auto o = PullWorld::small();
  o.pauses = o.cuts = true;
  pulls("NodesThatStandStill", o, 10, 5 * kSecond, false);
}

TEST(PullWorld, Deaths) {
  auto o = PullWorld::small();
  o.deaths = o.cuts = o.doubles = true;
  o.nodes = 5;
  pulls("Deaths", o, 15, 3 * kSecond, true);
}

TEST(PullWorld, AllAtOnce) {
  auto o = PullWorld::small();
  o.deaths = o.cuts = o.doubles = o.pauses = o.evictions = o.room_changes = true;
  o.nodes = 5;
  o.room = 40000;
  pulls("AllAtOnce", o, 20, 4 * kSecond, true);
}

std::string pull_fault(PullWorld::Fault fault, PullWorld::Options o = PullWorld::small()) {
  o.fault = fault;
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    PullWorld world(seed, o);
    world.run(2 * kSecond);
    world.calm(30 * kSecond);
    if (world.verdict() != "") return world.verdict();
  }
  return "";
}

TEST(PullWorld, CheckersFindPlantedFaults) {
  EXPECT_EQ(pull_fault(PullWorld::kWrongBytes), "the bytes are not those of the making that was asked for");
  EXPECT_EQ(pull_fault(PullWorld::kMixedMakings), "the bytes are not those of the making that was asked for");
  EXPECT_EQ(pull_fault(PullWorld::kFalseLocate), "lost, though a node that lives has it");
  EXPECT_EQ(pull_fault(PullWorld::kWideWindow), "more is asked for than a connection's window");
  auto o = PullWorld::small();
  o.room = 25000;
  EXPECT_EQ(pull_fault(PullWorld::kMoreRoom, o), "more room is used than the store granted");
  o.room = 1 << 20;
  EXPECT_EQ(pull_fault(PullWorld::kLostPin, o).substr(0, 13), "a pin is left");
  o = PullWorld::small();
  o.pull.silent_ns = 1000 * kSecond;  // else what was swallowed is asked for again
  EXPECT_NE(pull_fault(PullWorld::kSwallow, o).find("never ended"), std::string::npos);
}

// ---- figures; a chunk takes 10 ms over a connection or a node's link, as 1 MiB does at 100 MB/s

PullWorld::Options figures(uint32_t nodes) {
  PullWorld::Options o;
  o.nodes = nodes;
  o.requests = false;
  o.room = 1 << 30;
  o.pull.chunk = o.serve.chunk = 16384;
  o.pull.inline_max = o.serve.inline_max = 1024;
  o.pull.window = 4 * o.pull.chunk;
  o.node_rate = o.connection_rate = 1638400;
  return o;
}

double seconds(const PullWorld& world, int64_t from, uint64_t request) {
  return static_cast<double>(world.ready_at(request) - from) / 1e9;
}

double broadcast(uint32_t receivers, uint64_t chunks, uint64_t* from_first) {
  PullWorld world(1, figures(receivers + 1));
  const Copy copy = world.object(0, chunks * 16384);
  world.run(1'000'000);
  const int64_t start = world.now();
  std::vector<uint64_t> requests;
  for (uint32_t i = 1; i <= receivers; ++i) requests.push_back(world.request(i, {{copy, chunks * 16384, {world.place(0)}}}));
  world.run(100 * kSecond);
  EXPECT_EQ(world.verdict(), "");
  double last = 0;
  for (uint64_t r : requests) last = std::max(last, seconds(world, start, r));
  *from_first = world.bytes_from(0) / 16384;
  return last;
}

TEST(PullFigures, BroadcastTakesLessThanThreeTimesOne) {
  uint64_t sent = 0;
  const double one = broadcast(1, 64, &sent);
  for (uint32_t n : {2u, 8u, 16u}) {
    const double many = broadcast(n, 64, &sent);
    std::printf("simulated: 64 chunks to %2u nodes in %.2f s, to one in %.2f s: %.2f times; the first node sent %llu chunks\n",
                n, many, one, many / one, static_cast<unsigned long long>(sent));
    EXPECT_LT(many, 3 * one);
  }
}

TEST(PullFigures, ASmallRemoteGetIsOneRoundTrip) {
  for (uint64_t said : {uint64_t{500}, kUnknownSize}) {
    auto o = figures(2);
    o.node_rate = o.connection_rate = 1e12;
    PullWorld world(1, o);
    const Copy copy = world.object(0, 500);
    world.run(1'000'000);
    const int64_t start = world.now();
    const uint64_t r = world.request(1, {{copy, said, {world.place(0)}}});
    world.run(kSecond);
    EXPECT_EQ(world.verdict(), "");
    const double trips = static_cast<double>(world.ready_at(r) - start) / static_cast<double>(2 * o.delay_ns);
    std::printf("simulated: a small get of %s size takes %.3f round trips\n", said == 500 ? "known" : "unknown", trips);
    EXPECT_LT(trips, 1.01);
  }
}

TEST(PullFigures, StripesAddUp) {
  double one = 0;
  for (uint32_t channels : {1u, 2u, 4u}) {
    auto o = figures(2);
    o.channels = channels;
    o.node_rate = 4 * o.connection_rate;
    PullWorld world(1, o);
    const Copy copy = world.object(0, 256 * 16384);
    world.run(1'000'000);
    const int64_t start = world.now();
    const uint64_t r = world.request(1, {{copy, 256 * 16384, {world.place(0)}}});
    world.run(100 * kSecond);
    EXPECT_EQ(world.verdict(), "");
    const double time = seconds(world, start, r);
    if (channels == 1) one = time;
    std::printf("simulated: 256 chunks over %u connections in %.2f s, %.2f times as fast as over one\n", channels, time,
                one / time);
    EXPECT_GT(one / time, 0.9 * channels);
  }
}

// ---- the ledger

void ledgers(const char* name, const LedgerWorld::Options& options, uint64_t usual, int64_t ns) {
  uint64_t freed = 0, deaths = 0;
  const Seeds seeds(usual);
  for (uint64_t seed = seeds.first; seed <= seeds.last; ++seed) {
    LedgerWorld world(seed, options);
    world.run(ns);
    world.calm(20 * kSecond);
    ASSERT_EQ(world.verdict(), "") << again(seed, name);
    freed += world.freed();
    deaths += world.deaths();
  }
  EXPECT_GT(freed, 20 * (seeds.last - seeds.first + 1));
  EXPECT_EQ(deaths > 0, options.deaths);
}

TEST(LedgerWorld, QuietNodes) { ledgers("QuietNodes", {}, 10, 2 * kSecond); }

TEST(LedgerWorld, LossesAndDoubles) {
  LedgerWorld::Options o;
  o.losses = o.pauses = true;
  ledgers("LossesAndDoubles", o, 20, 3 * kSecond);
}

TEST(LedgerWorld, NodesThatDie) {
  LedgerWorld::Options o;
  o.deaths = true;
  ledgers("NodesThatDie", o, 40, 3 * kSecond);
}

TEST(LedgerWorld, EverythingAtOnce) {
  LedgerWorld::Options o;
  o.deaths = o.losses = o.pauses = true;
  ledgers("EverythingAtOnce", o, 60, 4 * kSecond);
}

std::string ledger_fault(LedgerWorld::Fault fault) {
  LedgerWorld::Options o;
  o.deaths = true;
  o.fault = fault;
  for (uint64_t seed = 1; seed <= 100; ++seed) {
    LedgerWorld world(seed, o);
    world.run(3 * kSecond);
    world.calm(10 * kSecond);
    if (world.verdict() != "") return world.verdict();
  }
  return "";
}

TEST(LedgerWorld, CheckersFindPlantedFaults) {
  EXPECT_NE(ledger_fault(LedgerWorld::kFalseBarriers).find(" while "), std::string::npos);
  EXPECT_NE(ledger_fault(LedgerWorld::kFalseArrivals).find(" while "), std::string::npos);
  EXPECT_EQ(ledger_fault(LedgerWorld::kNoDrops), "a copy that nobody holds is kept");
  EXPECT_NE(ledger_fault(LedgerWorld::kNoReleases), "");
}

}  // namespace
}  // namespace ray::transfer
