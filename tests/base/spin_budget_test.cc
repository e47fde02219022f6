// The spin budget shrinks while waits end in sleep, grows when they are answered in time, and tries
// the whole time now and then.
#include "libray/base/spin_budget.h"

#include <gtest/gtest.h>

namespace ray {
namespace {

TEST(SpinBudget, ShrinksToItsLeastAndComesBack) {
  SpinBudget budget(32000);
  EXPECT_EQ(budget.ns(), 32000);
  budget.slept();
  EXPECT_EQ(budget.ns(), 16000);
  for (int i = 0; i < 10; ++i) budget.slept();
  EXPECT_EQ(budget.ns(), 4000);
  budget.answered();
  EXPECT_EQ(budget.ns(), 8000);
  for (int i = 0; i < 10; ++i) budget.answered();
  EXPECT_EQ(budget.ns(), 32000);
}

TEST(SpinBudget, TriesTheWholeTimeNowAndThen) {
  SpinBudget budget(32000);
  for (int i = 0; i < 10; ++i) budget.slept();
  int whole = 0;
  for (int i = 0; i < 640; ++i) whole += budget.ns() == 32000;
  EXPECT_EQ(whole, 10);
}

}  // namespace
}  // namespace ray
