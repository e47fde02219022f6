// A mutex for sections of some tens of nanoseconds: spins briefly, then yields the processor, so that
// a holder that lost its core can go on (two cores, many processes). Process-private memory only.
#pragma once
#include <sched.h>

#include <atomic>

#include "libray/base/clock.h"

namespace ray {

class SpinLock {
 public:
  void lock() {
    for (int spins = 0; word_.exchange(1, std::memory_order_acquire);) {
      while (word_.load(std::memory_order_relaxed)) {
        if (spins < 100) {
          ++spins;
          cpu_relax();
        } else {
          sched_yield();
        }
      }
    }
  }
  bool try_lock() { return !word_.exchange(1, std::memory_order_acquire); }
  void unlock() { word_.store(0, std::memory_order_release); }

 private:
  std::atomic<uint32_t> word_{0};
};

}  // namespace ray
