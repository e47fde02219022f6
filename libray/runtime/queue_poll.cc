// Polling a completion queue: the one wait that is not for a result or an answer. See Queue in types.h.
//
// Threads: any that has the queue's handle; no lock but the queue's own, which is not held in a sleep.
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "libray/base/clock.h"
#include "libray/runtime/notifications.h"
#include "libray/runtime/runtime.h"
#include "libray/runtime/worker.h"

namespace ray {

// Until there may be something. False: somebody has closed the queue's descriptors.
static bool sleep_on(Queue* q, int64_t left_ns) {
  pollfd fds[2] = {{q->event.get(), POLLIN, 0}, {q->wake.get(), POLLIN, 0}};
  timespec ts{static_cast<time_t>(left_ns / 1000000000), static_cast<long>(left_ns % 1000000000)};
  return ::ppoll(fds, 2, left_ns < 0 ? nullptr : &ts, nullptr) <= 0 || !((fds[0].revents | fds[1].revents) & POLLNVAL);
}

namespace {
// The CPU of a task that sleeps in a poll, as of one that sleeps in get (wait_until).
class Lending {
 public:
  explicit Lending(WorkerSide* worker) : worker_(worker) {}
  ~Lending() {
    if (waits_) worker_->take_back(waits_);
  }
  Lending(const Lending&) = delete;
  Lending& operator=(const Lending&) = delete;
  // Before a sleep: how long it may be. The first is so short that it is not worth a word to the node.
  int64_t before(int64_t left_ns) {
    constexpr int64_t kGlanceNs = 100'000;
    if (!worker_) return left_ns;
    if (!std::exchange(looked_, true)) return left_ns < 0 ? kGlanceNs : std::min(left_ns, kGlanceNs);
    if (!waits_) waits_ = worker_->lend();
    else worker_->give_back_all();
    return left_ns;
  }

 private:
  WorkerSide* worker_;
  const TaskContext* waits_ = nullptr;
  bool looked_ = false;
};
}  // namespace

// A wake is sticky: the next poll that finds nothing takes it. That of a closed queue stays, for all pollers. Who was
// woken for what another poller took, or by a signal, sleeps again.
Status queue_poll(Queue* q, ray_completion* out, size_t max, int64_t timeout_ns, size_t* n) {
  uint64_t drain;
  const int64_t start = timeout_ns > 0 ? steady_ns() : 0;
  Lending lending(q->runtime->worker());
  std::unique_lock lock(q->mutex);
  for (int64_t left = timeout_ns;;) {
    if (q->items.empty() && left != 0 && !q->runtime->cancelled_here()) {
      lock.unlock();
      if (!sleep_on(q, lending.before(left))) return error(RAY_UNAVAILABLE, "the descriptors of this queue were closed");
      lock.lock();
    }
    for (; *n < max && !q->items.empty(); q->items.pop_front()) out[(*n)++] = q->items.front();
    if (q->items.empty()) (void)!::read(q->event.get(), &drain, sizeof drain);
    if (*n) return Status();
    if (q->closed) return error(RAY_WRONG_STATE, "the runtime was shut down, or the queue released: nothing comes");
    const bool woken = ::read(q->wake.get(), &drain, sizeof drain) > 0;
    if (timeout_ns != 0 && q->runtime->cancelled_here()) return q->runtime->waiter_cancelled();
    if (woken) return Status();
    if (timeout_ns >= 0) left = std::max<int64_t>(0, timeout_ns - (steady_ns() - start));
    if (timeout_ns == 0 || left == 0) return Status(RAY_TIMED_OUT, "no completion came");
  }
}

}  // namespace ray
