// See clock.h. Stamps are read from the processor's time-stamp counter where it runs at one rate on all
// cores. Each thread keeps an anchor (counter, steady, wall) and takes a new one every millisecond; the
// rate is measured over the whole life of the process. Elsewhere a stamp is steady_ns().
#include "libray/base/clock.h"

#include <atomic>

#if defined(__x86_64__)
#include <cpuid.h>
#include <x86intrin.h>
#endif

namespace ray {
namespace {

struct Anchor {
  uint64_t tsc = 0, until = 0;
  int64_t steady = 0, wall = 0;  // wall: what is to be added to a stamp
};
thread_local Anchor anchor;

#if defined(__x86_64__)
constexpr int64_t kAnchorNs = 1000000, kLearnNs = 20000000;
std::atomic<double> ns_per_tick{0};

bool invariant_counter() {
  unsigned a, b, c, d;
  return __get_cpuid(0x80000007, &a, &b, &c, &d) && (d & 256);
}

// The slow path, once a millisecond and thread.
__attribute__((noinline)) int64_t new_anchor() {
  static const bool usable = invariant_counter();
  static const uint64_t first_tsc = __rdtsc();
  static const int64_t first_steady = steady_ns();
  uint64_t tsc = __rdtsc();
  int64_t steady = steady_ns();
  anchor = {tsc, tsc, steady, wall_ns() - steady};
  if (!usable || steady - first_steady < kLearnNs || tsc <= first_tsc) return steady;
  double rate = static_cast<double>(steady - first_steady) / static_cast<double>(tsc - first_tsc);
  ns_per_tick.store(rate, std::memory_order_relaxed);
  anchor.until = tsc + static_cast<uint64_t>(static_cast<double>(kAnchorNs) / rate);
  return steady;
}

int64_t read_stamp() {
  uint64_t tsc = __rdtsc();
  if (tsc - anchor.tsc >= anchor.until - anchor.tsc) return new_anchor();
  double ticks = static_cast<double>(static_cast<int64_t>(tsc - anchor.tsc));
  return anchor.steady + static_cast<int64_t>(ticks * ns_per_tick.load(std::memory_order_relaxed));
}
#else
int64_t read_stamp() {
  int64_t now = steady_ns();
  if (now - anchor.steady > 1000000 || anchor.steady == 0) anchor = {0, 0, now, wall_ns() - now};
  return now;
}
#endif

}  // namespace

int64_t stamp_ns() { return read_stamp(); }
int64_t wall_of(int64_t stamp) { return stamp + anchor.wall; }

}  // namespace ray
