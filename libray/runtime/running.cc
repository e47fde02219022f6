// What others see of a worker: tools, which tasks run now (wire/protocol.h, RunningSlot; on the thread that
// takes or ends a task); an event loop that serves it, whether there is anything to do (on the loop's
// thread). See worker.h.
#include <poll.h>

#include <bit>

#include "libray/runtime/runtime.h"
#include "libray/runtime/worker.h"

namespace ray {

// Tells tools what runs; run_mutex_ held.
void WorkerSide::show(Execution* e) {
  e->slot = static_cast<uint32_t>(std::countr_one(shown_));
  if (e->slot >= wire::kRunningSlots) return;
  shown_ |= 1u << e->slot;
  wire::RunningSlot& s = runtime_->channel()->running[e->slot];
  s.attempt = e->header.attempt;
  s.task = e->header.task;
  s.start_ns = e->start_wall;
  s.generation.store(s.generation.load(std::memory_order_relaxed) + 1, std::memory_order_release);
}

void WorkerSide::hide(const Execution* e) {
  if (e->slot >= wire::kRunningSlots) return;
  shown_ &= ~(1u << e->slot);
  wire::RunningSlot& s = runtime_->channel()->running[e->slot];
  s.generation.store(s.generation.load(std::memory_order_relaxed) + 1, std::memory_order_release);
  std::atomic_thread_fence(std::memory_order_release);  // before the next task's id is written
}

// For an event loop that is about to sleep: see ray_worker_poll. The descriptors of groups are served by
// whoever routes, so they stay announced and nobody looks for long.
Status WorkerSide::poll(uint32_t group, int64_t timeout_ns, int wake_fd) {
  constexpr int64_t kLookAround = 10000;   // between two looks at wake_fd
  constexpr int64_t kWhenCrowded = 20000;  // what sleeping and waking costs a loop: others may have that long to wait
  const bool alone = !has_groups_;
  if (!alone && group >= groups_.size()) return error(RAY_INVALID_ARGUMENT, "no group %u", group);
  auto there = [&] {
    return anything_for(group) || leaving() || (unwanted_ && outstanding_ == 0);
  };
  if (alone) event_wanted_.store(false, std::memory_order_relaxed);
  if (there()) return Status();
  ring_unrung();
  if (timeout_ns == 0) return Status(RAY_TIMED_OUT);
  if (!alone) return Status(RAY_TIMED_OUT);
  const int64_t start = steady_ns(), spin = idle_spin_.ns();
  const int64_t until = timeout_ns > 0 && timeout_ns < spin ? start + timeout_ns : start + spin;
  int64_t looked = start;
  bool woken = false;
  for (int64_t now = start; now < until && !woken; now = steady_ns()) {
    if (now - start >= kWhenCrowded && runtime_->wakes().crowded()) break;
    for (int i = 0; i < 20; ++i) cpu_relax();
    if (there()) {
      idle_spin_.answered();
      return Status();
    }
    if (wake_fd < 0 || now - looked < kLookAround) continue;
    looked = now;
    pollfd p{wake_fd, POLLIN, 0};
    woken = ::poll(&p, 1, 0) > 0;
  }
  if (woken) return Status(RAY_TIMED_OUT);  // the caller does not sleep
  if (!runtime_->wakes().crowded()) idle_spin_.slept();
  event_wanted_.store(true, std::memory_order_relaxed);
  runtime_->watch_bell();
  if (!there()) {
    runtime_->wakes().pass_on();  // when pulse sleeps on the bell already; else pulse does it
    return Status(RAY_TIMED_OUT);
  }
  event_wanted_.store(false, std::memory_order_relaxed);
  return Status();
}

}  // namespace ray
