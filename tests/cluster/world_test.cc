// Membership under everything that a network and a cluster do to it. A failing seed prints how to run it again.
#include <gtest/gtest.h>

#include <cstdlib>

#include "tests/cluster/world.h"

namespace ray::cluster {
namespace {

using sim::kSecond;

struct Sum {
  uint64_t deaths = 0, answered = 0, failed = 0, zombies = 0;
};

Sum many(const char* name, WorldOptions options, uint64_t seeds, int64_t ns = 40 * kSecond) {
  const char *one = std::getenv("SEED"), *more = std::getenv("SEEDS");  // SEEDS: how many times the usual number
  if (more) seeds *= std::strtoull(more, nullptr, 10);
  Sum sum;
  for (uint64_t seed = one ? std::strtoull(one, nullptr, 10) : 1, end = one ? seed : seeds; seed <= end; ++seed) {
    options.seed = seed;
    World world(options);
    world.trouble(ns);
    world.calm(40 * kSecond);
    EXPECT_EQ(world.verdict(), "") << "again: SEED=" << seed << " cluster_test --gtest_filter=*" << name;
    if (::testing::Test::HasFailure()) return sum;
    sum.deaths += world.deaths(), sum.answered += world.answered(), sum.failed += world.failed();
    sum.zombies += world.zombies();
  }
  EXPECT_GT(sum.answered, 50 * seeds);
  return sum;
}

TEST(ClusterWorld, Quiet) {
  const Sum s = many("Quiet", {}, 5);
  EXPECT_EQ(s.deaths, 0u);
  EXPECT_EQ(s.failed, 0u);
}

TEST(ClusterWorld, CutsThatComeBackKillNobody) {
  WorldOptions o;
  o.cuts = true;
  EXPECT_EQ(many("CutsThatComeBackKillNobody", o, 20).deaths, 0u);
}

TEST(ClusterWorld, JoinsLeavesAndCrashes) {
  WorldOptions o;
  o.joins = o.leaves = o.crashes = o.cuts = true;
  EXPECT_GT(many("JoinsLeavesAndCrashes", o, 20).deaths, 0u);
}

TEST(ClusterWorld, NodesThatAreCutOffOrStoppedEndWhenTheyComeBack) {
  WorldOptions o;
  o.joins = o.partitions = o.silent_cuts = o.pauses = true;
  EXPECT_GT(many("NodesThatAreCutOffOrStoppedEndWhenTheyComeBack", o, 20).zombies, 0u);
}

TEST(ClusterWorld, AHeadThatWasStoppedBlamesNobodyForIt) {
  WorldOptions o;
  o.head_pauses = true;
  EXPECT_EQ(many("AHeadThatWasStoppedBlamesNobodyForIt", o, 20).deaths, 0u);
}

TEST(ClusterWorld, Everything) {
  WorldOptions o;
  o.joins = o.leaves = o.crashes = o.cuts = o.silent_cuts = o.partitions = o.pauses = o.head_pauses = true;
  o.nodes = 6;
  many("Everything", o, 40);
}

TEST(ClusterWorld, WithoutAHeadAllEnd) {
  WorldOptions o;
  o.joins = o.crashes = o.cuts = o.pauses = o.head_dies = true;
  const char* one = std::getenv("SEED");
  for (uint64_t seed = one ? std::strtoull(one, nullptr, 10) : 1, end = one ? seed : 20; seed <= end; ++seed) {
    o.seed = seed;
    World world(o);
    world.trouble(60 * kSecond);
    world.calm(40 * kSecond);
    ASSERT_EQ(world.verdict(), "") << "again: SEED=" << seed << " cluster_test --gtest_filter=*WithoutAHeadAllEnd";
  }
}

// ---- the checkers find what they are for

void expect_found(Fault fault, const char* words) {
  std::string said;
  for (uint64_t seed = 1; seed <= 10 && said.empty(); ++seed) {
    WorldOptions o;
    o.seed = seed;
    o.fault = fault;
    o.joins = true;
    o.crashes = o.partitions = fault != Fault::kLoseBeats && fault != Fault::kWrongAnswer && fault != Fault::kLoseAnswers &&
                               fault != Fault::kLoseTables;
    o.head_dies = fault == Fault::kDeafMembers;
    World world(o);
    world.trouble(40 * kSecond);
    world.calm(40 * kSecond);
    said = world.verdict();
  }
  EXPECT_NE(said.find(words), std::string::npos) << "said: " << said;
}

TEST(ClusterWorld, PlantedAnIndexIsGivenTwice) { expect_found(Fault::kSameIndex, "an index that is another's"); }
TEST(ClusterWorld, PlantedADeadNodeLivesAgain) { expect_found(Fault::kRevive, "a dead row changed"); }
TEST(ClusterWorld, PlantedATableIsLost) { expect_found(Fault::kLoseTables, "sees another table"); }
TEST(ClusterWorld, PlantedAZombieIsNotTold) { expect_found(Fault::kHideFencing, "is dead for the cluster and goes on"); }
TEST(ClusterWorld, PlantedHeartbeatsAreLost) { expect_found(Fault::kLoseBeats, "declared dead without a reason"); }
TEST(ClusterWorld, PlantedTheHeadSeesNoEnds) { expect_found(Fault::kBlindHead, "does not notice a death"); }
TEST(ClusterWorld, PlantedRequestsAreLost) { expect_found(Fault::kLoseAnswers, "have not ended"); }
TEST(ClusterWorld, PlantedAWrongAnswer) { expect_found(Fault::kWrongAnswer, "instead of"); }
TEST(ClusterWorld, PlantedMembersDoNotHearOfTheHeadsEnd) { expect_found(Fault::kDeafMembers, "goes on without a head"); }
TEST(ClusterWorld, PlantedARequestOfADeadNodeIsServed) { expect_found(Fault::kServeDead, "knows it to be dead"); }

}  // namespace
}  // namespace ray::cluster
