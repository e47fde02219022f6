// The simulated node (libray/sim): some seeds, that a seed is a whole run, and that each checker complains of the fault
// that is made for it. `./dev sim --seeds N` runs more.
#include <gtest/gtest.h>

#include <string>

#include "libray/sim/world.h"

namespace ray::sim {
namespace {

constexpr uint64_t kSeeds = 60;

Outcome run_seed(uint64_t seed, Fault fault = Fault::kNone) {
  WorldOptions o;
  o.seed = seed;
  o.fault = fault;
  o.lines = 40;
  return run(o);
}

TEST(Sim, SeedsBreakNothing) {
  uint64_t tasks = 0, grants = 0, deaths = 0;
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    Outcome out = run_seed(seed);
    ASSERT_EQ(out.broken, "") << out.history << "again: ./dev sim --seeds 1 --seed " << seed << " --trace";
    tasks += out.tasks, grants += out.grants, deaths += out.deaths;
  }
  // They are runs in which something happens.
  EXPECT_GT(tasks, 50 * kSeeds);
  EXPECT_GT(grants, 20 * kSeeds);
  EXPECT_GT(deaths, 5 * kSeeds);
}

TEST(Sim, ASeedIsARun) {
  for (uint64_t seed : {3, 11, 12}) EXPECT_EQ(run_seed(seed).digest, run_seed(seed).digest);
  EXPECT_NE(run_seed(3).digest, run_seed(4).digest);
}

// In one of so many seeds at the latest.
void expect_complaint(Fault fault, const std::string& checker) {
  for (uint64_t seed = 1; seed <= 400; ++seed) {
    std::string broken = run_seed(seed, fault).broken;
    if (broken.rfind(checker + ":", 0) == 0) return;
  }
  FAIL() << "the checker '" << checker << "' sees nothing";
}

TEST(Sim, ALeaseThatIsGivenBackTooEarlyIsSeen) { expect_complaint(Fault::kEarlyReturn, "resources"); }
TEST(Sim, CpuThatNobodyLentIsSeen) { expect_complaint(Fault::kFalseBlock, "resources"); }
TEST(Sim, WhoWaitsForEverIsSeen) { expect_complaint(Fault::kLostReturn, "starts"); }
TEST(Sim, AResultThatComesTwiceIsSeen) { expect_complaint(Fault::kTwice, "once"); }
TEST(Sim, ALeaseThatDoesNotComeBackIsSeen) { expect_complaint(Fault::kLostReturn, "zero"); }
TEST(Sim, ADeathThatNobodyHearsOfIsSeen) { expect_complaint(Fault::kLostDeath, "zero"); }
TEST(Sim, ASchedulerWithoutRestIsSeen) { expect_complaint(Fault::kRestless, "rest"); }
TEST(Sim, RingsThatWereNotReadAreSeen) { expect_complaint(Fault::kHasty, "told"); }
TEST(Sim, AHoldThatIsLostIsSeen) { expect_complaint(Fault::kLostHold, "holds"); }
TEST(Sim, AnActorsFateThatIsNotToldIsSeen) { expect_complaint(Fault::kLostTell, "told"); }
TEST(Sim, ANameWithTwoOwnersIsSeen) { expect_complaint(Fault::kTwoOwners, "names"); }
TEST(Sim, ANameThatIsNotFreeAfterItsOwnersDeathIsSeen) { expect_complaint(Fault::kKeptName, "names"); }
TEST(Sim, AWorkerOfAJobThatIsOverIsSeen) { expect_complaint(Fault::kSpared, "left"); }
// Rules of a client that are left out: each was a fault once, or would be one.
TEST(Sim, WhoWaitsForItsOwnChildForEverIsSeen) { expect_complaint(Fault::kShutWorks, "starts"); }
TEST(Sim, AWantThatStaysIsSeen) { expect_complaint(Fault::kKeepsWants, "wants"); }
TEST(Sim, ALeaseThatIsKeptForNothingIsSeen) { expect_complaint(Fault::kKeepsLeases, "zero"); }
TEST(Sim, ARecordThatIsLostBeforeItComesBackIsSeen) { expect_complaint(Fault::kReusesRecord, "unbegun"); }
TEST(Sim, ATaskThatRunsAgainIsSeen) { expect_complaint(Fault::kRunsAgain, "again"); }
TEST(Sim, ATaskThatFailsUnbegunIsSeen) { expect_complaint(Fault::kUnbegunFails, "unbegun"); }
TEST(Sim, CallsThatHangBehindACancelledOneAreSeen) { expect_complaint(Fault::kHoldsUp, "held"); }
TEST(Sim, CallsOutOfOrderAreSeen) { expect_complaint(Fault::kOutOfOrder, "order"); }

}  // namespace
}  // namespace ray::sim
