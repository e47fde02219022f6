// Tasks that came from another node (relayed.h): submitted under the ids that they have, and their ends; and, on the node
// that they come from, tasks that turned out to be bound to it. See runtime.h for locks.
//
// Who: the relay's gateways, on threads of their own; results.cc and submit.cc with mutex_ held. Invariant: whatever is
// submitted here ends once, and its user is told once.
#include "libray/runtime/relayed.h"

#include "libray/runtime/runtime.h"
#include "libray/runtime/runtime_inl.h"
#include "libray/wire/msgpack.h"

namespace ray {

// Nobody waits for such tasks: the pulse thread drains their results, and sleeps where their workers ring.
void Runtime::set_relayed_user(RelayedUser* user) {
  {
    std::lock_guard lock(mutex_);
    relayed_user_ = user;
    ++needs_pulse_;
  }
  bells_.poke();
}

Status Runtime::submit_relayed(const RelayedTask& task, Function* f, const ray_arg* args, size_t n_args,
                               const ray_task_options& options, Object** returns, uint64_t* tag) {
  auto relayed = std::make_unique<Relayed>();
  relayed->task = task;
  relayed->end.number = task.number;
  relayed->tag = tag;
  return submit(f, args, n_args, options, std::move(relayed), returns, nullptr);
}

void Runtime::cancel_relayed(uint64_t tag, uint32_t flags) {
  {
    std::lock_guard lock(mutex_);
    PendingTask* t = pending_task_at(task_index(tag));
    if (t && t->tag == tag && t->relayed) (void)cancel_task(t, flags);
  }
  after_unlock();
}

void Runtime::recall(uint64_t tag) {
  {
    std::lock_guard lock(mutex_);
    PendingTask* t = pending_task_at(task_index(tag));
    if (!t || t->tag != tag || !t->relayed || t->cancelled) return;
    t->relayed->recalled = true;  // should its worker give it back, for whatever reason, it goes home
    if (t->shrinking) return;
    if (t->state == TaskState::kPushed) {
      if (t->ring_end > t->link->header->started.load(std::memory_order_acquire)) ask_give_back(t->link);
      return;
    }
    Shape* s = t->shape;
    t->relayed->end.returned = true;
    ErrorBox* e = make_error(RAY_CANCELLED, "it went back to its node");
    fail_waiting(t, e);
    e->release();
    withdraw_want(s);
  }
  after_unlock();
}

// A worker gave back a task that was recalled. mutex_ held.
void Runtime::return_relayed(PendingTask* t) {
  unlink(t);
  t->relayed->end.returned = true;
  ErrorBox* e = make_error(RAY_CANCELLED, "it went back to its node");
  fail_task(t, e);
  e->release();
}

// It is over. mutex_ held.
void Runtime::end_relayed(PendingTask* t) {
  if (ErrorBox* e = t->relayed->end.error) e->seen.store(true, std::memory_order_relaxed);  // its node tells of it
  relayed_ends_.push_back(t->relayed->end);
  if (relayed_ends_.size() > 1) return;
  callbacks_.add_and_ring([this] { deliver_relayed(); });
}

void Runtime::deliver_relayed() {
  std::vector<RelayedEnd> ends;
  {
    std::lock_guard lock(mutex_);
    ends.swap(relayed_ends_);
  }
  relayed_user_->ended(std::move(ends));
}

// A stand-in gave it back: it cannot run elsewhere. From now on it is of a shape of its own, which nobody places on another
// node. False: there is no such shape. mutex_ held.
bool Runtime::bind_to_node(PendingTask* t) {
  Shape* from = t->shape;
  std::string resources = from->resources, place;
  if (resources.empty()) wire::Writer(&resources).map(1).str("CPU").float64(1);
  wire::Writer(&place).map(1).str("node").id(node_);
  Shape* to = shape(wire::with_entry(resources, wire::kPlacement, place), from->language);
  if (!to || to == from) return false;  // as many shapes as there may be, or placed already
  to->bound = true;
  leases_.ended(from, t->est_ns);
  leases_.submitted(to, t->est_ns);
  t->shape = to;
  return true;
}

}  // namespace ray
