// Time: steady nanoseconds for waits and deadlines, wall nanoseconds for records people read.
// Protocol cores never call these; they are given `now`.
#pragma once
#include <cstdint>
#include <ctime>

namespace ray {

inline int64_t steady_ns() {
  timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return ts.tv_sec * 1000000000ll + ts.tv_nsec;
}
inline int64_t wall_ns() {
  timespec ts;
  clock_gettime(CLOCK_REALTIME, &ts);
  return ts.tv_sec * 1000000000ll + ts.tv_nsec;
}
// For time stamps on the hot path: as steady_ns(), a third of the cost. May differ from it by some
// microseconds, and from one thread to another; never for deadlines or sleeping.
int64_t stamp_ns();
// The wall clock at a stamp.
int64_t wall_of(int64_t stamp);

// A number that grows, on one machine and across its processes; no unit. Of two events of which one made
// the other happen the later one has the greater number, where the processors' counters run together.
inline uint64_t order_stamp() {
#if defined(__x86_64__)
  return __builtin_ia32_rdtsc();
#else
  return static_cast<uint64_t>(steady_ns());
#endif
}

inline void cpu_relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  __asm__ volatile("" ::: "memory");
#endif
}

}  // namespace ray
