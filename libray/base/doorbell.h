// Sleeping and waking across processes with one futex word (wire::Doorbell, NodePage): the word is not 0
// while its owner sleeps or is about to. Whoever published something that the owner may wait for
// calls ring(): one fence and one load when nobody sleeps, a syscall only when somebody does.
//
// An owner that waits for much says so (kLazily): who publishes one thing after another may then leave
// the bell alone until it has nothing more to do (ring_unless_lazy). The owner sleeps for a moment only.
//
// Several threads of the owner may sleep on one word. A ring clears the word for all of them, and one that is about to
// sleep must not take what another has announced since for its own: each ring is followed by a number that the word
// did not hold before, and whoever sleeps waits on the number that it was told when it armed.
#pragma once
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <climits>
#include <cstdint>

namespace ray {

inline long futex(std::atomic<uint32_t>* word, int op, uint32_t value, const timespec* timeout) {
  return ::syscall(SYS_futex, reinterpret_cast<uint32_t*>(word), op, value, timeout, nullptr, 0);
}
inline constexpr uint32_t kAwake = 0, kLazily = 2;  // odd: wants to be woken at once

// Call after publishing.
inline void ring(std::atomic<uint32_t>* armed) {
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (__builtin_expect(armed->load(std::memory_order_relaxed) == 0, 1)) return;
  armed->store(0, std::memory_order_release);
  futex(armed, FUTEX_WAKE, INT_MAX, nullptr);
}
// True: the owner sleeps and waits for more; call ring() before you rest.
inline bool ring_unless_lazy(std::atomic<uint32_t>* armed) {
  std::atomic_thread_fence(std::memory_order_seq_cst);
  uint32_t how = armed->load(std::memory_order_relaxed);
  if (__builtin_expect(how == kAwake, 1)) return false;
  if (how == kLazily) return true;
  ring(armed);
  return false;
}
// Announces sleep; the caller then looks at its rings once more before it gives sleep_armed() what this returned.
inline uint32_t arm(std::atomic<uint32_t>* armed) {
  static std::atomic<uint32_t> numbers{0};
  uint32_t how = armed->load(std::memory_order_relaxed);
  if (how == kAwake || how == kLazily) {  // else another thread of the owner has announced the same
    const uint32_t fresh = numbers.fetch_add(2, std::memory_order_relaxed) | 1;
    while (how == kAwake || how == kLazily)
      if (armed->compare_exchange_weak(how, fresh, std::memory_order_relaxed)) how = fresh;
  }
  std::atomic_thread_fence(std::memory_order_seq_cst);
  return how;
}
inline uint32_t arm_lazily(std::atomic<uint32_t>* armed) {
  uint32_t how = kAwake;  // another thread of the owner may have asked to be woken at once
  if (armed->compare_exchange_strong(how, kLazily, std::memory_order_relaxed)) how = kLazily;
  std::atomic_thread_fence(std::memory_order_seq_cst);
  return how;
}
inline void disarm(std::atomic<uint32_t>* armed) { armed->store(0, std::memory_order_relaxed); }
// Sleeps until somebody rings, or has rung since that arm(); timeout_ns < 0 = for ever.
inline void sleep_armed(std::atomic<uint32_t>* armed, uint32_t how, int64_t timeout_ns) {
  if (armed->load(std::memory_order_relaxed) != how) return;
  timespec ts{static_cast<time_t>(timeout_ns / 1000000000), static_cast<long>(timeout_ns % 1000000000)};
  futex(armed, FUTEX_WAIT, how, timeout_ns < 0 ? nullptr : &ts);
}

}  // namespace ray
