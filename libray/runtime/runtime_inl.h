// Templates of Runtime: included by the runtime's own .cc files only.
#pragma once
#include "libray/base/clock.h"
#include "libray/base/doorbell.h"
#include "libray/runtime/runtime.h"
#include "libray/runtime/worker.h"

namespace ray {

// Which making of a result it is, among all of its id for one process: that may submit a call twice (a parent that
// runs again on the same worker), and each call has attempts. Records to the node and the store call it the attempt.
// Equal for two makings only by a chance of 2^-32.
inline uint32_t making_of(uint64_t tag, uint32_t attempt) {
  return static_cast<uint32_t>((tag * 0x9e3779b97f4a7c15u) >> 32) + attempt;
}

// Nobody but the caller depends on a result, and there were some since its last look (*seen).
inline bool Runtime::may_be_lazy(uint64_t* seen) {
  std::lock_guard lock(mutex_);
  bool moved = *seen != results_seen_;
  *seen = results_seen_;
  return moved && !pulse_needed() && !waiting_tasks_.head;
}

// Drains result rings until pred() is true. Spins first, because a running peer answers within
// microseconds, then sleeps on this process's doorbell. A worker lends its CPU before it sleeps.
// much(): the caller needs so many results that one more does not help it. Then workers need not wake it
// before they run out of tasks; it looks by itself as long as that shows progress, for a short batch without sleeping.
template <class Pred, class Much>
bool Runtime::wait_until(Pred pred, int64_t timeout_ns, Much much) {
  int64_t start = 0, deadline = 0, spin = 0, flow = 0;
  uint64_t seen = UINT64_MAX, looked = UINT64_MAX;
  bool looked_on = false, slept = false, result;
  const TaskContext* lent = nullptr;
  for (int round = 0;; ++round) {
    {
      std::lock_guard lock(mutex_);
      progress();
      result = pred();
    }
    after_unlock(0);  // the room may be what the caller itself has pinned: what has to wait for it does so beside the rest
    if (result || timeout_ns == 0) {
      if (round > 0 && !slept) (looked_on ? flow_spin_ : spin_).answered();
      break;
    }
    if (__builtin_expect(closed_waits(), 0)) break;
    int64_t now = steady_ns();
    if (round == 0) {
      start = now;
      spin = spin_.ns();
      deadline = timeout_ns < 0 ? INT64_MAX
                                : (timeout_ns > INT64_MAX - now ? INT64_MAX : now + timeout_ns);
    }
    if (now >= deadline) break;
    if (now - start < (wakes_.crowded() ? std::min(spin, kCrowdedSpinNs) : spin)) {
      for (int i = 0; i < 20; ++i) cpu_relax();
      continue;
    }
    if (!looked_on && !slept) {
      spin_.slept();
      flow = wakes_.crowded() ? 0 : flow_spin_.ns();
    }
    // Results come all the time, and sleeping costs more than what is still to come.
    if (now - start < flow && !slept && much() && may_be_lazy(&looked)) {
      looked_on = true;
      for (const int64_t until = now + kFlowLookNs; steady_ns() < until;)
        for (int i = 0; i < 20; ++i) cpu_relax();
      continue;
    }
    if (looked_on && !slept) flow_spin_.slept();
    slept = true;
    if (worker_ && !lent) lent = worker_->lend();
    auto* word = bells_.own();
    bool alone = sleepers_.fetch_add(1, std::memory_order_relaxed) == 0;
    bool lazily = alone && much() && may_be_lazy(&seen);
    const uint32_t how = lazily ? arm_lazily(word) : arm(word);
    {
      std::lock_guard lock(mutex_);
      progress();
      result = pred();
    }
    after_unlock(0);
    if (!result) {
      if (lent) worker_->give_back_all();
      wakes_.pass_on();
      sleep_armed(word, how, std::min<int64_t>(deadline - now, lazily ? kLazySleepNs : 1000000000));
    }
    sleepers_.fetch_sub(1, std::memory_order_relaxed);
    if (result) break;
  }
  if (lent) worker_->take_back(lent);
  return result;
}

}  // namespace ray
