// Calls that their client has cancelled: the part of WorkerSide (worker.h) that takes their positions out of a
// link, finds them among what runs or waits, and remembers those that have yet to begin. Threads: scan_cancels
// and what it calls in the pulse thread; the rest also in task threads.
//
// A call is named by the place of its record in the task ring, which no other call of the link ever has: what is
// known of one that has ended is forgotten, and never meant for another.
#include <unistd.h>

#include <algorithm>

#include "libray/base/fault.h"
#include "libray/runtime/runtime.h"
#include "libray/runtime/worker.h"

namespace ray {

// Whether the call whose record ends there was answered or given back. link.mutex held.
static bool has_ended(const ServeLink& link, uint64_t end) {
  if (end > link.tasks.position()) return false;  // still in the ring
  for (const Claim& c : link.claims)
    if (c.end == end) return c.done;
  return true;
}

// Takes what the client has cancelled out of the link, so that it has room for more. link->mutex
// held.
void WorkerSide::absorb_cancels(ServeLink* link) {
  uint32_t count = link->header->cancel_count.load(std::memory_order_acquire);
  uint32_t left = std::min(count - link->cancel_seen, wire::kLinkCancelSlots);
  if (left == 0) return;
  link->cancel_seen = count;
  for (; left > 0; --left) {
    std::atomic<uint64_t>& slot =
        link->header->cancels[(count - left) % wire::kLinkCancelSlots];
    uint64_t word = slot.exchange(0, std::memory_order_acq_rel);
    // Of a call that has ended meanwhile: nothing is kept of it.
    if (word == 0 || has_ended(*link, word & ~wire::kCancelFlags)) continue;
    link->cancelled.push_back(word);
    link->fresh_cancels.push_back(word);
    link->any_cancelled.store(true, std::memory_order_relaxed);
  }
  // More than a ring holds: garbage of a client.
  constexpr size_t kMost = 65536;
  for (auto* list : {&link->cancelled, &link->fresh_cancels})
    if (list->size() > kMost) list->clear();
}

// Whether the call whose record ends there was to be cancelled; it is forgotten. link->mutex held.
bool WorkerSide::forget_cancel(ServeLink* link, uint64_t end) {
  if (link->cancelled.empty()) return false;
  auto erase = [end](std::vector<uint64_t>* list) {
    auto it = std::find_if(list->begin(), list->end(),
                           [end](uint64_t word) { return (word & ~wire::kCancelFlags) == end; });
    if (it == list->end()) return false;
    list->erase(it);
    return true;
  };
  erase(&link->fresh_cancels);
  bool found = erase(&link->cancelled);
  link->any_cancelled.store(!link->cancelled.empty(), std::memory_order_relaxed);
  return found;
}

// Of a call that has not begun. link->mutex held.
bool WorkerSide::was_cancelled(ServeLink* link, uint64_t end) {
  absorb_cancels(link);
  return forget_cancel(link, end);
}

// False when it is not among what runs or waits here.
bool WorkerSide::cancel_running(uint64_t word, ServeLink* link) {
  const uint64_t end = word & ~wire::kCancelFlags;
  TaskId id;
  if (!cancel_waiting(end, link, &id)) {
    std::lock_guard lock(run_mutex_);
    auto it = std::find_if(running_.begin(), running_.end(),
                           [&](Execution* e) { return e->link.get() == link && e->end == end; });
    if (it == running_.end()) return false;
    RAY_FAULT("worker.cancel.found");
    (*it)->cancelled = true;
    id = (*it)->header.task;
    interrupt(*it);
    if (stand_in_) {
      uint32_t flags = word & wire::kCancelForce ? uint32_t{RAY_CANCEL_FORCE} : 0;
      if (word & wire::kCancelRecursive) flags |= RAY_CANCEL_RECURSIVE;
      cancel_forwarded(*it, flags);
      return true;
    }
  }
  if (word & wire::kCancelRecursive) runtime_->cancel_children(id);
  if (word & wire::kCancelForce) die(link, end);
  return true;
}

// Ends this process for a task that was cancelled by force, unless that has ended. Nothing else begins meanwhile:
// who ends a task, and who begins one, needs the lock.
void WorkerSide::die(ServeLink* link, uint64_t end) {
  if (is_actor_) return;
  std::lock_guard lock(run_mutex_);
  if (std::none_of(running_.begin(), running_.end(),
                   [&](Execution* e) { return e->link.get() == link && e->end == end; }))
    return;
  runtime_->daemon().up(wire::kUpKillWorker, wire::UpLeaseReturn{runtime_->process(), 0});
  while (!runtime_->node_dead()) ::usleep(100000);
  ::_exit(1);
}

void WorkerSide::scan_cancels(const std::shared_ptr<ServeLink>& link) {
  std::vector<uint64_t> words;
  {
    std::lock_guard lock(link->mutex);
    absorb_cancels(link.get());
    if (link->fresh_cancels.empty()) return;
    words.swap(link->fresh_cancels);
  }
  for (uint64_t word : words) {
    const uint64_t end = word & ~wire::kCancelFlags;
    const bool found = cancel_running(word, link.get());
    std::lock_guard lock(link->mutex);
    if (found || has_ended(*link, end)) forget_cancel(link.get(), end);
  }
  has_interrupt() ? runtime_->bells().poke() : runtime_->wake_waiters();  // who waits in that task looks at `cancelled`
}

}  // namespace ray
