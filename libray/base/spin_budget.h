// How long a waiter looks before it sleeps, learnt from how its last waits ended. Where the peer
// runs on another processor it answers while the waiter looks, and sleeping would cost two
// switches; where it shares the waiter's processor, or its work takes long, looking only keeps it
// from running.
//
// There are two budgets, the whole one and a short one, and nothing between: two peers that wait for
// each other with half a budget wake each other all the time, and each finds the other asleep. After
// two waits in a row that the whole budget did not see end, the short one is used; from time to time a
// few waits in a row have the whole one again, for the peer needs the first to come awake itself.
// One object per kind of wait and process; any thread, relaxed: a lost update costs a microsecond.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstdint>

namespace ray {

class SpinBudget {
 public:
  explicit constexpr SpinBudget(int64_t most_ns, int64_t least_ns = kLeastNs) : most_(most_ns), least_(least_ns) {}
  // The budget of the wait that begins now.
  int64_t ns() {
    if (failures_.load(std::memory_order_relaxed) < kFailures) return most_;
    uint32_t n = waits_.load(std::memory_order_relaxed) + 1;
    waits_.store(n, std::memory_order_relaxed);
    return n % kPeriod < kTries ? most_ : std::min(least_, most_);
  }
  void answered() { failures_.store(0, std::memory_order_relaxed); }
  void slept() {
    uint32_t n = failures_.load(std::memory_order_relaxed);
    if (n >= kFailures) return;
    failures_.store(n + 1, std::memory_order_relaxed);
    waits_.store(kTries, std::memory_order_relaxed);
  }

 private:
  static constexpr int64_t kLeastNs = 4000;  // a quick answer of a running peer fits
  static constexpr uint32_t kFailures = 2, kPeriod = 64, kTries = 3;
  const int64_t most_, least_;
  std::atomic<uint32_t> failures_{0}, waits_{0};
};

}  // namespace ray
