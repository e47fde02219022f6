// The global scheduler under everything that a cluster does to it. A failing seed prints how to run it again.
#include <gtest/gtest.h>

#include <cstdlib>

#include "tests/sched_global/world.h"

namespace ray::global {
namespace {

std::string one(WorldOptions options, int64_t ns) {
  World world(options);
  world.trouble(ns);
  world.calm(30 * sim::kSecond);
  return world.verdict();
}

void many(const char* name, WorldOptions options, uint64_t seeds, int64_t ns) {
  const char *only = std::getenv("SEED"), *more = std::getenv("SEEDS");  // SEEDS: how many times the usual number
  if (more) seeds *= std::strtoull(more, nullptr, 10);
  const uint64_t first = only ? std::strtoull(only, nullptr, 10) : 1, last = only ? first : seeds;
  uint64_t moves = 0, groups = 0;
  for (options.seed = first; options.seed <= last; ++options.seed) {
    World world(options);
    world.trouble(ns);
    world.calm(120 * sim::kSecond);
    ASSERT_EQ(world.verdict(), "") << "again: SEED=" << options.seed << " sched_global_world_test --gtest_filter=*." << name;
    moves += world.moves();
    groups += world.ready_groups();
  }
  EXPECT_GT(moves, 10 * (last - first + 1));
  EXPECT_GT(groups, 0u);
}

constexpr int64_t kLong = 4 * sim::kSecond;

WorldOptions small() {
  WorldOptions o;
  o.nodes = 6;
  return o;
}

TEST(GlobalWorld, Quiet) { many("Quiet", small(), 10, kLong); }

TEST(GlobalWorld, LateLostAndRepeated) {
  WorldOptions o = small();
  o.instances = 2;
  o.delay_ns = 20 * sim::kMs;
  o.lose_one_in = 8;
  o.repeat_one_in = 8;
  many("LateLostAndRepeated", o, 15, kLong);
}

TEST(GlobalWorld, NodesDieAndJoin) {
  WorldOptions o = small();
  o.instances = 2;
  o.deaths = o.joins = true;
  many("NodesDieAndJoin", o, 15, kLong);
}

TEST(GlobalWorld, SchedulersAreReplaced) {
  WorldOptions o = small();
  o.instances = 3;
  o.replaces = true;
  o.lose_one_in = 20;
  many("SchedulersAreReplaced", o, 15, kLong);
}

TEST(GlobalWorld, Everything) {
  WorldOptions o = small();
  o.nodes = 8;
  o.instances = 3;
  o.delay_ns = 5 * sim::kMs;
  o.lose_one_in = o.repeat_one_in = 10;
  o.deaths = o.drains = o.joins = o.replaces = true;
  many("Everything", o, 20, kLong);
}

// ---- each checker finds what is planted for it

void finds(Fault fault, const char* what, WorldOptions o = small()) {
  o.fault = fault;
  for (o.seed = 1; o.seed <= 10; ++o.seed) {
    const std::string found = one(o, kLong);
    if (found.find(what) != std::string::npos) return;
    ASSERT_EQ(found, "") << "instead of: " << what;
  }
  FAIL() << "nobody noticed that " << what;
}

TEST(GlobalWorldFault, PlacedWhereItDoesNotFit) { finds(Fault::kWrongNode, "does not fit"); }

TEST(GlobalWorldFault, MovesOnAndOn) {
  WorldOptions o = small();
  o.heartbeat_ns = sim::kSecond / 2;
  o.queue_high = 1;
  finds(Fault::kBounce, "moves for the", o);
}

TEST(GlobalWorldFault, NeverAnswered) { finds(Fault::kLoseAnswers, "have not ended"); }
TEST(GlobalWorldFault, HeldUnknown) {
  WorldOptions o = small();
  o.cpus = 1;
  finds(Fault::kHideHeld, "which nothing that came lately explains", o);
}
TEST(GlobalWorldFault, RunsTwice) {
  WorldOptions o = small();
  o.repeat_one_in = 3;
  finds(Fault::kRunTwice, "ran twice", o);
}
TEST(GlobalWorldFault, DeadNodeTaken) {
  WorldOptions o = small();
  o.deaths = o.joins = true;
  o.nodes = 8;
  finds(Fault::kDeadUnknown, "is dead, and something was placed on it", o);
}
TEST(GlobalWorldFault, CommitLost) { finds(Fault::kLoseCommit, "is ready, and its bundle"); }
TEST(GlobalWorldFault, RemoveLost) { finds(Fault::kLoseRemove, "was removed, and something of it is left"); }

}  // namespace
}  // namespace ray::global
