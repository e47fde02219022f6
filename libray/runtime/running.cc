// What others see of a worker: tools, which tasks run now (wire/protocol.h, RunningSlot; on the thread that
// takes or ends a task); the journal, how they went; an event loop that serves it, whether there is anything
// to do (on the loop's thread). See worker.h.
#include <poll.h>

#include <algorithm>
#include <bit>

#include "libray/runtime/runtime.h"
#include "libray/runtime/runtime_inl.h"
#include "libray/runtime/worker.h"

namespace ray {

// Tells tools what runs; run_mutex_ held.
void WorkerSide::show(Execution* e) {
  e->slot = static_cast<uint32_t>(std::countr_one(shown_));
  if (e->slot >= wire::kRunningSlots) return;
  shown_ |= 1u << e->slot;
  wire::RunningSlot& s = runtime_->daemon().header()->running[e->slot];
  s.attempt = e->header.attempt;
  s.task = e->header.task;
  s.start_ns = e->start_wall;
  s.generation.store(s.generation.load(std::memory_order_relaxed) + 1, std::memory_order_release);
}

bool WorkerSide::runs(const TaskContext* context) {
  std::lock_guard lock(run_mutex_);
  return std::any_of(running_.begin(), running_.end(), [&](const Execution* e) { return &e->context == context; });
}

void WorkerSide::hide(const Execution* e) {
  if (e->slot >= wire::kRunningSlots) return;
  shown_ &= ~(1u << e->slot);
  wire::RunningSlot& s = runtime_->daemon().header()->running[e->slot];
  s.generation.store(s.generation.load(std::memory_order_relaxed) + 1, std::memory_order_release);
  std::atomic_thread_fence(std::memory_order_release);  // before the next task's id is written
}

// For the journal: how an execution went, and its small results.
void WorkerSide::write_lineage(Execution* e, ray_code code) {
  std::string text;
  if (code != RAY_OK) {
    ray_code c;
    uint32_t format;
    std::string payload;
    wire::unpack_error(e->error_image.data(), e->error_image.size(), &c, &text, &format, &payload);
    if (text.size() > 1024) text.resize(1024);
  }
  uint64_t size = sizeof(lineage::ExecRecord) + pad8(text.size());
  size_t n = code == RAY_OK ? std::min<size_t>(e->results.size(), 1024) : 0;
  for (size_t i = 0; i < n; ++i) {
    auto& r = e->results[i];
    bool keep =
        r.given && r.header.where == wire::kPlain && r.bytes.size() <= lineage::kResultInlineMax;
    size += sizeof(lineage::ResultRecord) + (keep ? pad8(r.bytes.size()) : 0);
  }
  runtime_->daemon().lineage(lineage::kExec, static_cast<uint32_t>(size), [&](uint8_t* at) {
    auto& x = *new (at) lineage::ExecRecord{};  // in place: copied right after it was written it would be waited for
    x.task = e->header.task;
    x.actor = e->header.actor;
    x.actor_pos = e->actor_pos;
    x.start_ns = e->start_wall;
    x.end_ns = e->start_wall + (e->end_stamp - e->start_stamp);  // the clock may have been set meanwhile
    x.incarnation = is_actor_ ? incarnation_ : 0;
    x.execution = e->header.attempt;
    x.process = runtime_->process();
    x.pid = pid_;
    x.code = code;
    x.n_results = static_cast<uint32_t>(n);
    x.error_size = static_cast<uint32_t>(text.size());
    x.kind = e->header.kind;
    at += sizeof x;
    for (size_t i = 0; i < n; ++i) {
      auto& r = e->results[i];
      bool in_store = r.given && r.header.where == wire::kStore;
      bool keep =
          r.given && r.header.where == wire::kPlain && r.bytes.size() <= lineage::kResultInlineMax;
      uint64_t full = r.bytes.size();
      if (in_store) {
        wire::StoreRef ref;
        (void)wire::read_head(r.bytes, &ref);
        full = ref.location.size;
      }
      lineage::ResultRecord rr{
          static_cast<uint32_t>(i), r.given ? r.header.format : uint32_t{RAY_FMT_MSGPACK},
          r.given ? full : 0, keep ? static_cast<uint32_t>(r.bytes.size()) : 0, in_store};
      std::memcpy(at, &rr, sizeof rr);
      at += sizeof rr;
      if (!keep) continue;
      std::memcpy(at, r.bytes.data(), r.bytes.size());
      at += pad8(r.bytes.size());
    }
    std::memcpy(at, text.data(), text.size());
  });
}

// For an event loop that is about to sleep: see ray_worker_poll. The descriptors of groups are served by
// whoever routes, so they stay announced and nobody looks for long.
Status WorkerSide::poll(uint32_t group, int64_t timeout_ns, int wake_fd) {
  constexpr int64_t kLookAround = 10000;   // between two looks at wake_fd
  constexpr int64_t kWhenCrowded = 20000;  // what sleeping and waking costs a loop: others may have that long to wait
  const bool alone = !has_groups_;
  if (!alone && group >= groups_.size()) return error(RAY_INVALID_ARGUMENT, "no group %u", group);
  auto there = [&] {
    return anything_for(group) || about_to_leave();
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
