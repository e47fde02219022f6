// Cancellation: of tasks in any queue or ring, of what they have submitted, of tasks that others submitted. See
// runtime.h for locks.
//
// Who calls it: ray_cancel, ray_stream_cancel and the last release of a stream on callers' threads; the receiver when
// another process asks; `pulse` for forced ones whose worker had yet to begin. Invariant: a cancelled task ends once, and
// nobody else's task ends with it.
#include "libray/base/fault.h"
#include "libray/base/log.h"
#include "libray/runtime/runtime.h"
#include "libray/runtime/runtime_inl.h"

namespace ray {

Status Runtime::cancel(Object* o, uint32_t flags) {
  Status s;
  {
    std::lock_guard lock(mutex_);
    if (o->done()) return Status();
    if (o->producer) {
      s = cancel_task(o->producer, flags);
    } else if (o->borrowed) {  // its owner does it
      daemon_.up(wire::kUpObjCancel, wire::ObjCancel{o->id, flags, 0});
    }
  }
  after_unlock();
  return s;
}

// Somebody who borrowed an object of ours wants its task cancelled. mutex_ held.
void Runtime::on_obj_cancel(const wire::ObjCancel& c) {
  Object* o = objects_.known(c.id);
  if (!o || !o->producer) return;
  PendingTask* t = o->producer;
  uint32_t flags = t->actor ? c.flags & ~uint32_t{RAY_CANCEL_FORCE} : c.flags;
  (void)cancel_task(t, flags);
}

Status Runtime::cancel_task(PendingTask* t, uint32_t flags) {
  bool force = flags & RAY_CANCEL_FORCE;
  if (force && t->actor)
    return error(RAY_UNSUPPORTED,
                 "a call of an actor cannot be cancelled by force: use ray_actor_kill");
  t->cancelled = true;
  t->retries_left = 0;
  t->retry_on_error = false;
  if (t->shrinking) return Status();  // whoever stores its arguments will see it
  if (t->state != TaskState::kPushed) {
    ErrorBox* e =
        make_error(RAY_CANCELLED, "task " + task_name(t) + " (" + t->id.hex() + ") was cancelled");
    Shape* s = t->shape;
    fail_waiting(t, e);
    e->release();
    if (s) withdraw_want(s);
    return Status();
  }
  t->forced |= force;
  ClientLink* link = t->link;
  const uint64_t how = (flags & RAY_CANCEL_RECURSIVE ? wire::kCancelRecursive : 0) |
                       (force ? wire::kCancelForce : 0);
  link->cancels.push_back({t->tag, t->ring_end | how});
  flush_cancels(link);
  if (force) forced_.push_back({t->tag, steady_ns()});
  // It waits in the ring behind another: its end need not.
  if (t->lease && t->ring_end > link->header->started.load(std::memory_order_acquire)) ask_give_back(link);
  return Status();
}

// The worker ends itself if, and only if, it runs the task that was cancelled by force: what it runs next is not to
// die with it. One that does not do so in time is killed, while that task is the last one that it has begun.
// mutex_ held.
void Runtime::press_on(int64_t now) {
  constexpr int64_t kPatienceNs = 1'000'000'000;
  std::erase_if(forced_, [&](const Forced& f) {
    PendingTask* t = pending_task_at(task_index(f.tag));
    if (!t || t->tag != f.tag || t->state != TaskState::kPushed) return true;
    if (now - f.since < kPatienceNs) return false;
    ClientLink* link = t->link;
    if (link->header->started.load(std::memory_order_acquire) != t->ring_end) return false;
    daemon_.up(wire::kUpKillWorker, wire::UpLeaseReturn{link->peer, t->lease ? t->lease->lease : 0});
    return true;
  });
}

// Tells the worker what is cancelled, as far as it has taken the last ones out of the link; the
// rest a moment later, see tick(). mutex_ held.
void Runtime::flush_cancels(ClientLink* link) {
  wire::LinkHeader* h = link->header;
  uint32_t before = h->cancel_count.load(std::memory_order_relaxed), n = before;
  size_t at = 0;
  for (; at < link->cancels.size(); ++at) {
    if (!task_of(link, link->cancels[at].tag)) continue;  // it has ended
    std::atomic<uint64_t>& slot = h->cancels[n % wire::kLinkCancelSlots];
    if (slot.load(std::memory_order_acquire) != 0) break;
    slot.store(link->cancels[at].word, std::memory_order_relaxed);
    ++n;
  }
  link->cancels.erase(link->cancels.begin(), link->cancels.begin() + static_cast<long>(at));
  cancels_wait_ |= !link->cancels.empty();
  if (n == before) return;
  h->cancel_count.store(n, std::memory_order_release);
  bells_.ring_both(link->peer);
}

// Takes a task that is not in a ring out of whatever queue it stands in. mutex_ held.
void Runtime::detach(PendingTask* t) {
  if (t->state == TaskState::kPushed) return unlink(t);
  if (t->actor && t->kind == RAY_KIND_ACTOR_CALL) {
    if (t->state == TaskState::kLost)
      std::erase(t->actor->lost, t);
    else
      (t->aside ? t->actor->aside : t->actor->queue).remove(t);
    t->aside = false;
  } else if (t->state == TaskState::kWaiting) {
    waiting_tasks_.remove(t);
  } else if (t->shape && t->state == TaskState::kQueued) {
    t->shape->backlog.remove(t);
  }
  unpark(t);
}

void Runtime::cancel_children(const TaskId& parent) {
  {
    std::lock_guard lock(mutex_);
    std::vector<uint64_t> children;  // one may end when another does
    auto look = [&](const PendingTask* t) {
      if (t->parent == parent && !t->cancelled && t->kind != RAY_KIND_ACTOR_CREATE) children.push_back(t->tag);
    };
    auto collect = [&](TaskList& list) {
      for (PendingTask* t = list.head; t; t = t->next) look(t);
    };
    collect(waiting_tasks_);
    for (Shape* s : shape_list_) collect(s->backlog);
    for (auto& [id, link] : links_) collect(link->inflight);
    for (auto& [id, actor] : actors_.all()) {
      collect(actor->queue);
      collect(actor->aside);
      for (const PendingTask* t : actor->lost) look(t);
    }
    for (uint64_t tag : children) {
      PendingTask* t = pending_task_at(task_index(tag));
      if (t && t->tag == tag) (void)cancel_task(t, RAY_CANCEL_RECURSIVE);
    }
  }
  after_unlock();
}

}  // namespace ray
