// How long a waiter looks before it sleeps, learnt from how its last waits ended. Where the peer
// runs on another processor it answers while the waiter looks, and sleeping would cost two
// switches; where it shares the waiter's processor, or its work takes long, looking only keeps it
// from running. One per kind of wait and process; any thread, relaxed: a lost update costs a
// microsecond.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstdint>

namespace ray {

class SpinBudget {
 public:
  explicit constexpr SpinBudget(int64_t most_ns) : most_(most_ns), now_(most_ns) {}
  // The budget of the wait that begins now. Every 64th is the whole one: so a change for the better
  // is noticed.
  int64_t ns() {
    if ((waits_.fetch_add(1, std::memory_order_relaxed) & 63) == 63) return most_;
    return now_.load(std::memory_order_relaxed);
  }
  void answered() {
    int64_t n = now_.load(std::memory_order_relaxed);
    if (n < most_) now_.store(std::min(most_, n * 2), std::memory_order_relaxed);
  }
  void slept() {
    int64_t n = now_.load(std::memory_order_relaxed);
    if (n > kLeastNs) now_.store(std::max(kLeastNs, n / 2), std::memory_order_relaxed);
  }

 private:
  static constexpr int64_t kLeastNs = 4000;  // a quick answer of a running peer fits
  const int64_t most_;
  std::atomic<int64_t> now_;
  std::atomic<uint32_t> waits_{0};
};

}  // namespace ray
