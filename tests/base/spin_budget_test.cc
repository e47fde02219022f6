// The spin budget is short after two waits in a row that ended in sleep, whole again after one that was
// answered in time, and whole for a few waits in a row now and then.
#include "libray/base/spin_budget.h"

#include <gtest/gtest.h>

namespace ray {
namespace {

TEST(SpinBudget, IsShortAfterTwoSleepsAndWholeAfterAnAnswer) {
  SpinBudget budget(32000);
  EXPECT_EQ(budget.ns(), 32000);
  budget.slept();
  EXPECT_EQ(budget.ns(), 32000);
  budget.slept();
  EXPECT_EQ(budget.ns(), 4000);
  EXPECT_EQ(budget.ns(), 4000);
  budget.answered();
  EXPECT_EQ(budget.ns(), 32000);
  budget.slept();
  EXPECT_EQ(budget.ns(), 32000);
}

TEST(SpinBudget, TriesTheWholeTimeInRowsOfThree) {
  SpinBudget budget(32000);
  for (int i = 0; i < 10; ++i) budget.slept();
  int whole = 0, rows = 0;
  bool before = false;
  for (int i = 0; i < 640; ++i) {
    bool now = budget.ns() == 32000;
    whole += now;
    rows += now && !before;
    before = now;
    budget.slept();
  }
  EXPECT_EQ(rows, 10);
  EXPECT_EQ(whole, 30);
}

TEST(SpinBudget, ABudgetBelowTheShortOneStays) {
  SpinBudget budget(1000);
  for (int i = 0; i < 10; ++i) budget.slept();
  EXPECT_EQ(budget.ns(), 1000);
}

TEST(SpinBudget, MayBeNothingAtAll) {
  SpinBudget budget(2000, 0);
  EXPECT_EQ(budget.ns(), 2000);
  budget.slept();
  budget.slept();
  EXPECT_EQ(budget.ns(), 0);
  budget.answered();
  EXPECT_EQ(budget.ns(), 2000);
}

}  // namespace
}  // namespace ray
