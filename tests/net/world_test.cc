// Sessions under everything that a network and a cluster do to them. A failing seed prints how to run it again.
#include <gtest/gtest.h>

#include <cstdlib>

#include "tests/net/world.h"

namespace ray::net {
namespace {

void many(const char* name, World::Options options, uint64_t seeds, int64_t ns, bool must_break) {
  const char *one = std::getenv("SEED"), *more = std::getenv("SEEDS");  // SEEDS: how many times the usual number
  if (more) seeds *= std::strtoull(more, nullptr, 10);
  uint64_t broken = 0, delivered = 0;
  for (uint64_t seed = one ? std::strtoull(one, nullptr, 10) : 1, end = one ? seed + 1 : seeds; seed <= end; ++seed) {
    World world(seed, options);
    world.run(ns);
    world.calm(60'000'000'000);
    ASSERT_EQ(world.verdict(), "") << "again: SEED=" << seed << " net_core_test --gtest_filter=*" << name;
    delivered += world.delivered();
    broken += world.reconnects() > 2 * (options.nodes * (options.nodes - 1) / 2);
  }
  EXPECT_GT(delivered, 100 * seeds);
  EXPECT_EQ(broken > 0, must_break);
}

World::Options small() {
  World::Options o;
  o.endpoint.session.window[kUrgent] = 16 << 10;
  o.endpoint.session.window[kNormal] = 128 << 10;
  o.endpoint.write_bytes = 32 << 10;
  return o;
}

TEST(NetWorld, QuietNetwork) { many("QuietNetwork", small(), 3, 2'000'000'000, false); }

TEST(NetWorld, SlowConsumersStopTheSender) {
  World::Options o = small();
  o.slow_consumers = true;
  many("SlowConsumersStopTheSender", o, 5, 2'000'000'000, false);
}

TEST(NetWorld, Cuts) {
  World::Options o = small();
  o.cuts = o.slow_consumers = true;
  many("Cuts", o, 20, 3'000'000'000, true);
}

TEST(NetWorld, CutsThatNobodyNotices) {
  World::Options o = small();
  o.cuts = o.silent_cuts = true;
  many("CutsThatNobodyNotices", o, 15, 5'000'000'000, true);
}

TEST(NetWorld, BothDial) {
  World::Options o = small();
  o.both_dial = o.cuts = true;
  o.nodes = 3;
  many("BothDial", o, 10, 2'000'000'000, true);
}

TEST(NetWorld, PausedNodes) {
  World::Options o = small();
  o.pauses = o.cuts = true;
  o.nodes = 3;
  many("PausedNodes", o, 6, 10'000'000'000, true);
}

TEST(NetWorld, NodesThatStartAgain) {
  World::Options o = small();
  o.restarts = o.cuts = o.silent_cuts = o.both_dial = true;
  o.nodes = 3;
  many("NodesThatStartAgain", o, 10, 5'000'000'000, true);
}

}  // namespace
}  // namespace ray::net
