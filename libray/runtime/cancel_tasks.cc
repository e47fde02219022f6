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
  const bool begun = t->state == TaskState::kPushed && has_begun(t);
  const task::CancelStep step = cancels_.cancel(t, force, begun, steady_ns());
  if (step == task::CancelStep::kLater) return Status();
  if (step == task::CancelStep::kEnd) {
    ErrorBox* e =
        make_error(RAY_CANCELLED, "task " + task_name(t) + " (" + t->id.hex() + ") was cancelled");
    Shape* s = t->shape;
    fail_waiting(t, e);
    e->release();
    if (s) withdraw_want(s);
    return Status();
  }
  ClientLink* link = t->link;
  const uint64_t how = (flags & RAY_CANCEL_RECURSIVE ? wire::kCancelRecursive : 0) |
                       (force ? wire::kCancelForce : 0);
  link->cancels.push_back({t->tag, t->ring_end | how});
  flush_cancels(link);
  if (step == task::CancelStep::kAskBack) ask_give_back(link);
  return Status();
}

// Of one in a ring. mutex_ held.
bool Runtime::has_begun(const PendingTask* t) {
  return t->ring_end <= t->link->header->started.load(std::memory_order_acquire);
}

// Of those that were cancelled by force: see Cancellation. mutex_ held.
void Runtime::press_on(int64_t now) {
  cancels_.press_on(
      now,
      [](uint64_t tag) {
        PendingTask* t = pending_task_at(task_index(tag));
        return t && t->tag == tag ? t : nullptr;
      },
      [](const PendingTask* t) { return has_begun(t); },
      [this](const PendingTask* t) {
        daemon_.up(wire::kUpKillWorker, wire::UpLeaseReturn{t->link->peer, t->lease->lease});
      },
      &todo_);
  carry_out();
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

// Takes a task out of whatever queue it stands in. True: calls of an actor that waited behind it go on. mutex_ held.
bool Runtime::detach(PendingTask* t) {
  if (t->state == TaskState::kPushed) {
    unlink(t);
    return false;
  }
  bool others_go_on = false;
  if (t->actor && t->kind == RAY_KIND_ACTOR_CALL) {
    others_go_on = t->actor->remove(t);
  } else if (t->state == TaskState::kWaiting) {
    waiting_tasks_.remove(t);
  } else if (t->shape && t->state == TaskState::kQueued) {
    t->shape->backlog.remove(t);
  }
  unpark(t);
  return others_go_on;
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
      collect(actor->lost);
    }
    for (uint64_t tag : children) {
      PendingTask* t = pending_task_at(task_index(tag));
      if (t && t->tag == tag) (void)cancel_task(t, RAY_CANCEL_RECURSIVE);
    }
  }
  after_unlock();
}

}  // namespace ray
