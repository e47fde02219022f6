// Time stamps follow the steady and the wall clock, on every thread, before and after the rate of the
// counter is known.
#include <gtest/gtest.h>

#include <cstdlib>
#include <thread>

#include "libray/base/clock.h"

namespace ray {
namespace {

void follow(int64_t for_ns) {
  int64_t end = steady_ns() + for_ns;
  while (steady_ns() < end) {
    int64_t before = steady_ns(), stamp = stamp_ns(), after = steady_ns();
    // A thread that loses its processor between the looks proves nothing.
    if (after - before > 100000) continue;
    EXPECT_GT(stamp, before - 50000);
    EXPECT_LT(stamp, after + 50000);
    int64_t wall = wall_of(stamp), now = wall_ns();
    if (steady_ns() - before < 100000) EXPECT_LT(std::llabs(now - wall), 5000000);
  }
}

TEST(Stamp, FollowsTheClocks) {
  follow(60'000'000);
  std::thread other([] { follow(30'000'000); });
  other.join();
}

}  // namespace
}  // namespace ray
