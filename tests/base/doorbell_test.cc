// Who is woken at once, who when there is no more, and that neither sleeps through a ring.
#include "libray/base/doorbell.h"

#include <gtest/gtest.h>

#include <thread>

#include "libray/base/clock.h"

namespace ray {
namespace {

TEST(Doorbell, WhoIsAwakeCostsNothing) {
  std::atomic<uint32_t> word{kAwake};
  EXPECT_FALSE(ring_unless_lazy(&word));
  ring(&word);
  EXPECT_EQ(word, kAwake);
}

TEST(Doorbell, ALazySleeperIsLeftAloneUntilItIsRung) {
  std::atomic<uint32_t> word{kAwake};
  const uint32_t how = arm_lazily(&word);
  EXPECT_TRUE(ring_unless_lazy(&word));
  EXPECT_EQ(word, kLazily);
  std::thread sleeper([&] { sleep_armed(&word, how, -1); });
  ring(&word);
  sleeper.join();
  EXPECT_EQ(word, kAwake);
}

TEST(Doorbell, WhoWantsToBeWokenAtOnceComesFirst) {
  std::atomic<uint32_t> word{kAwake};
  arm_lazily(&word);
  arm(&word);
  EXPECT_FALSE(ring_unless_lazy(&word));
  EXPECT_EQ(word, kAwake);
  const uint32_t how = arm(&word);
  EXPECT_EQ(arm_lazily(&word), how);
  EXPECT_EQ(word, how);
  EXPECT_EQ(arm(&word), how);  // two that sleep do not wake each other
  std::thread sleeper([&] { sleep_armed(&word, how, -1); });
  EXPECT_FALSE(ring_unless_lazy(&word));
  sleeper.join();
}

TEST(Doorbell, ALazySleepEndsByItself) {
  std::atomic<uint32_t> word{kAwake};
  const uint32_t how = arm_lazily(&word);
  int64_t began = steady_ns();
  sleep_armed(&word, how, 1000000);
  EXPECT_GE(steady_ns() - began, 1000000);
  EXPECT_EQ(word, kLazily);
}

// Rung between its look and its sleep, it does not wait for what another thread has announced since.
TEST(Doorbell, ARingIsNotLostToWhoArmsNext) {
  std::atomic<uint32_t> word{kAwake};
  const uint32_t first = arm(&word);
  ring(&word);
  const uint32_t second = arm(&word);
  EXPECT_NE(first, second);
  sleep_armed(&word, first, -1);  // returns
  EXPECT_EQ(word, second);
}

}  // namespace
}  // namespace ray
