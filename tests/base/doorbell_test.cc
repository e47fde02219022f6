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
  sleep_armed(&word, -1);  // returns: nobody armed it
  EXPECT_EQ(word, kAwake);
}

TEST(Doorbell, ALazySleeperIsLeftAloneUntilItIsRung) {
  std::atomic<uint32_t> word{kAwake};
  arm_lazily(&word);
  EXPECT_TRUE(ring_unless_lazy(&word));
  EXPECT_EQ(word, kLazily);
  std::thread sleeper([&] { sleep_armed(&word, -1); });
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
  arm(&word);
  arm_lazily(&word);
  EXPECT_EQ(word, kAtOnce);
  std::thread sleeper([&] { sleep_armed(&word, -1); });
  EXPECT_FALSE(ring_unless_lazy(&word));
  sleeper.join();
}

TEST(Doorbell, ALazySleepEndsByItself) {
  std::atomic<uint32_t> word{kAwake};
  arm_lazily(&word);
  int64_t began = steady_ns();
  sleep_armed(&word, 1000000);
  EXPECT_GE(steady_ns() - began, 1000000);
  EXPECT_EQ(word, kLazily);
}

}  // namespace
}  // namespace ray
