// Results: draining result rings, completing objects, retries, deaths of workers. See runtime.h.
#include <signal.h>
#include <sys/wait.h>

#include <algorithm>
#include <cstdlib>

#include "libray/base/log.h"
#include "libray/runtime/runtime.h"
#include "libray/runtime/runtime_inl.h"

namespace ray {

// Reads everything that workers have published. mutex_ held.
void Runtime::progress() {
  ++progress_count_;
  for (size_t i = 0; i < busy_links_.size();) {
    ClientLink* link = busy_links_[i];
    drain(link);
    if (link->inflight.empty() && link->busy) {
      link->busy = false;
      busy_links_[i] = busy_links_.back();
      busy_links_.pop_back();
    } else {
      ++i;
    }
  }
}

void Runtime::drain(ClientLink* link) {
  RecordView r;
  bool any = false;
  for (;;) {
    auto next = link->results.next(&r);
    if (next == RingConsumer::Next::kEmpty) break;
    if (next == RingConsumer::Next::kCorrupt) {
      if (link->dead) break;
      link->dead = true;  // said once; what is in flight is settled when its death is known
      callbacks_.log_later(kLogError, "corrupt-ring", strprintf("worker pid %u wrote garbage: killing it", link->peer_pid));
      if (Actor* a = link->actor)
        daemon_.up(wire::kUpActorKill, wire::UpActor{a->id, a->incarnation, RAY_OK, 1, 0});
      else
        daemon_.up(wire::kUpKillWorker,
           wire::UpLeaseReturn{link->peer, link->lease ? link->lease->lease : 0});
      break;
    }
    any = true;
    switch (r.type) {
      case wire::kLinkDone: on_done(link, r); break;
      case wire::kLinkItem: on_item(link, r); break;
      case wire::kLinkReturned: on_returned(link, r); break;
      case wire::kLinkPart: on_part(link, r); break;
      default: break;
    }
  }
  if (!any) return;
  ++results_seen_;
  link->results.release();
  link->last_result_ns = steady_ns();
  if (Lease* l = link->lease) {
    Shape* s = l->shape;
    LeasePolicy::heard(l);
    if (link->inflight.empty()) leases_.idle(l, link->last_result_ns, &todo_);
    carry_out();
    if (!s->backlog.empty()) pump(s);
  }
  if (link->actor && !link->actor->queue.empty()) pump_actor(link->actor);
  if (sleepers_.load(std::memory_order_relaxed)) bells_.ring_own();
}

PendingTask* Runtime::task_of(ClientLink* link, uint64_t tag) {
  PendingTask* t = pending_task_at(task_index(tag));
  if (!t || t->tag != tag || t->state != TaskState::kPushed || t->link != link) return nullptr;
  return t;
}

// Out of the link it was pushed to.
void Runtime::unlink(PendingTask* t) {
  ClientLink* link = t->link;
  link->inflight.remove(t);
  if (t->lease) LeasePolicy::left(t->lease, t);
  t->link = nullptr;
  t->lease = nullptr;
}

namespace {

// One result of a record; false when it does not fit.
bool next_result(const uint8_t*& at, const uint8_t* end, wire::ArgHeader* h,
                 const uint8_t** bytes) {
  if (static_cast<size_t>(end - at) < sizeof *h) return false;
  std::memcpy(h, at, sizeof *h);
  at += sizeof *h;
  if (h->size > static_cast<uint64_t>(end - at)) return false;
  *bytes = at;
  at += std::min<uint64_t>(pad8(h->size), static_cast<uint64_t>(end - at));
  return h->where != wire::kStore || h->size >= sizeof(wire::StoreRef);
}

}  // namespace

void Runtime::on_done(ClientLink* link, const RecordView& r) {
  wire::DoneHeader d;
  if (r.size < sizeof d) return;
  std::memcpy(&d, r.data, sizeof d);
  PendingTask* t = task_of(link, d.tag);
  if (!t) return;
  Function* f = t->function;
  int64_t run = static_cast<int64_t>(std::min<uint64_t>(d.run_ns, INT64_MAX / 16));
  f->run_ns = f->run_ns < 0 ? run : (f->run_ns * 7 + run) / 8;
  if (t->lease) LeasePolicy::answered(t->lease);
  link->give_back_asked = false;
  if (__builtin_expect(t->relayed != nullptr, 0)) t->relayed->end.run_ns = d.run_ns;
  const uint8_t *at = r.data + sizeof d, *end = r.data + r.size, *bytes = nullptr;
  wire::ArgHeader h;
  if (d.code != RAY_OK) {
    ray_code code = d.code;
    std::string message = "task failed", payload;
    uint32_t format = 0;
    if (next_result(at, end, &h, &bytes)) {
      if (t->error_parts.empty()) {
        wire::unpack_error(bytes, h.size, &code, &message, &format, &payload);
      } else {
        t->error_parts.append(reinterpret_cast<const char*>(bytes), h.size);
        wire::unpack_error(t->error_parts.data(), t->error_parts.size(), &code, &message, &format, &payload);
      }
    }
    const bool died = code == RAY_WORKER_CRASHED || d.n_results & wire::kDoneDied;
    const bool might_not = code == RAY_TASK_FAILED && !(d.n_results & wire::kDoneNoRetry);
    const task::Stop how = died ? task::Stop::kDied  // the worker ends itself, or was that of another node
                                : might_not ? task::Stop::kFailed : task::Stop::kFailedForGood;
    if (task::fate_of<TaskKit>(t, how, t->kind == RAY_KIND_ACTOR_CALL) == task::Fate::kAgain) {
      lineage_again(t);
      return requeue(t, true);
    }
    unlink(t);
    if (!(d.n_results & wire::kDoneTold))
      message = "task " + task_name(t) + " (" + t->id.hex() + ", attempt " + std::to_string(t->attempt + 1) +
                ") on worker pid " + std::to_string(link->peer_pid) + " of node " + node_.hex() + ": " + message;
    if (t->relayed) t->relayed->end.died = died, t->relayed->end.final = d.n_results & wire::kDoneNoRetry;
    ErrorBox* e = make_error(code, std::move(message), format, std::move(payload));
    fail_task(t, e, code != RAY_WORKER_CRASHED);
    return e->release();
  }
  unlink(t);
  const uint32_t making = making_of(t->tag, t->attempt);
  for (uint32_t i = 0; i < t->n_returns; ++i) {
    Object* o = t->result(i);
    if (i < d.n_results && next_result(at, end, &h, &bytes)) {
      complete_from(o, h, bytes, making);
    } else {
      complete_from(o, wire::ArgHeader{RAY_FMT_MSGPACK, wire::kNone, 0, 0}, nullptr, making);
    }
  }
  if (t->stream) streams_.end(t, nullptr);
  finish_task(t);
}

void Runtime::on_item(ClientLink* link, const RecordView& r) {
  wire::ItemHeader i;
  if (r.size < sizeof i) return;
  std::memcpy(&i, r.data, sizeof i);
  PendingTask* t = task_of(link, i.tag);
  if (!t || !t->stream) return;
  const uint8_t *at = r.data + sizeof i, *bytes = nullptr;
  wire::ArgHeader h;
  if (next_result(at, r.data + r.size, &h, &bytes)) stream_item(t, i.index, h, bytes);
}

void Runtime::on_part(ClientLink* link, const RecordView& r) {
  uint64_t tag;
  if (r.size < sizeof tag) return;
  std::memcpy(&tag, r.data, sizeof tag);
  if (PendingTask* t = task_of(link, tag))
    t->error_parts.append(reinterpret_cast<const char*>(r.data) + sizeof tag, r.size - sizeof tag);
}

void Runtime::on_returned(ClientLink* link, const RecordView& r) {
  wire::ReturnedHeader h;
  if (r.size < sizeof h) return;
  std::memcpy(&h, r.data, sizeof h);
  link->give_back_asked = false;
  PendingTask* t = task_of(link, h.tag);
  if (!t) return;
  if (h.blocked && t->lease) t->lease->shut |= task::kBlocked;
  if (task::fate_of<TaskKit>(t, task::Stop::kReturned, false) == task::Fate::kCancel) {
    unlink(t);
    ErrorBox* e =
        make_error(RAY_CANCELLED, "task " + task_name(t) + " (" + t->id.hex() + ") was cancelled");
    fail_task(t, e);
    return e->release();
  }
  if (__builtin_expect(h.bound != 0, 0)) return return_bound(t);
  requeue(t, false);
}

// From a stand-in: it cannot run on another node.
void Runtime::return_bound(PendingTask* t) {
  if (bind_to_node(t)) {
    Shape* s = t->shape;
    requeue(t, false);
    return pump(s);
  }
  unlink(t);
  ErrorBox* e = make_error(RAY_UNSUPPORTED, "task " + task_name(t) + " (" + t->id.hex() +
                                                ") was placed on another node, and its arguments cannot go there yet: give it "
                                                "plain values instead of references and handles of actors");
  fail_task(t, e);
  e->release();
}

// From a ring back to the queue: to its place, or to the end when it has begun, so that one that kills its worker time
// and again does not keep others from theirs. Pumping is left to the caller of drain().
void Runtime::requeue(PendingTask* t, bool begun) {
  if (__builtin_expect(t->relayed && t->relayed->recalled && !begun, 0)) return return_relayed(t);
  const uint32_t pid = t->link->peer_pid;
  const bool intact = take_back_record(t);
  unlink(t);
  if (!intact) return fail_overwritten(t, pid);
  if (!t->error_parts.empty()) std::string().swap(t->error_parts);
  if (t->actor && t->kind == RAY_KIND_ACTOR_CALL) {
    t->actor->give_back(t);
  } else {
    task::enter<TaskKit>(t, TaskState::kQueued);
    begun ? t->shape->backlog.push_back(t) : t->shape->backlog.give_back(t);
  }
  if (t->shape) raise_want(t->shape);
}

// ---- completion
// -----------------------------------------------------------------------------------------

void Runtime::complete_from(Object* o, const wire::ArgHeader& h, const uint8_t* bytes, uint32_t making) {
  if (o->done()) return objects_.discard(o->id, making, h, bytes);
  if (h.format == wire::kFmtError && h.where == wire::kStore) {
    // It is read without the lock.
    wire::StoreRef r;
    std::memcpy(&r, bytes, sizeof r);
    objects_.read_error_later({retain(o), r.location, true});
    return;
  }
  if (h.format == wire::kFmtError) return complete_error_from(o, bytes, h.size);
  if (h.flags & wire::kRegistered) {
    o->registered = true;
    ++o->holds;
  }
  o->format = h.format;
  o->size = h.size;
  o->packed = h.where == wire::kPacked;
  if (h.where == wire::kNone) {
    o->small[0] = 0xC0;  // MessagePack nil
    o->size = 1;
    o->where = Where::kSmall;
  } else if (h.where == wire::kStore) {
    wire::StoreRef r;
    std::memcpy(&r, bytes, sizeof r);
    o->location = r.location;
    o->size = r.location.size;
    o->where = Where::kStore;
    o->packed = true;
  } else if (h.size <= Object::kSmallMax) {
    if (h.size) std::memcpy(o->small, bytes, h.size);
    o->where = Where::kSmall;
  } else {
    auto* heap = static_cast<uint8_t*>(std::malloc(h.size));
    if (!heap) {
      ErrorBox* e = make_error(RAY_OUT_OF_MEMORY, "no memory for a result");
      complete_error(o, e);
      return e->release();
    }
    std::memcpy(heap, bytes, h.size);
    o->heap = heap;
    o->where = Where::kHeap;
  }
  o->state.store(ObjState::kReady, std::memory_order_release);
  completed(o);
}

// A result that is an error of its own.
void Runtime::complete_error_from(Object* o, const uint8_t* image, uint64_t size) {
  ray_code code = RAY_TASK_FAILED;
  std::string message = "task failed", payload;
  uint32_t format = 0;
  wire::unpack_error(image, size, &code, &message, &format, &payload);
  ErrorBox* e = make_error(code, std::move(message), format, std::move(payload));
  complete_error(o, e);
  e->release();
}

void Runtime::complete_error(Object* o, ErrorBox* e) {
  if (o->done()) return;
  ++n_errors_;
  o->error = e->retain();
  o->state.store(ObjState::kError, std::memory_order_release);
  completed(o);
}

void Runtime::completed(Object* o) {
  o->producer = nullptr;
  objects_.publish_if_awaited(o);
  while (o->waiters) {
    Waiter* w = o->waiters;
    o->waiters = w->next;
    run_waiter(w, o);
  }
}

void Runtime::run_waiter(Waiter* w, Object* o) {
  if (PendingTask* t = w->task) {
    if (t->tag == w->token && t->state == TaskState::kWaiting) {
      if (o->state.load(std::memory_order_relaxed) == ObjState::kReady) {
        task_ready(t);
      } else {
        failed_dependencies_.push_back({t, w->token, retain(o)});
        have_deferred_ = true;
      }
    }
  } else {
    Notification n;
    if (notifications_.take(w->token, &n)) {
      ErrorBox* e = o->state.load() == ObjState::kError ? o->error : nullptr;
      notifications_.deliver(n, o, RAY_COMPLETION_READY, e);
      objects_.release_later(o);  // what the notification held
    }
  }
  delete w;
}

// The error of a task whose argument failed: that of the argument, with the task's name before it.
// Long chains name the first few.
static ErrorBox* dependency_error(const PendingTask* t, ErrorBox* cause) {
  constexpr size_t kMost = 1024;
  cause->seen.store(true, std::memory_order_relaxed);  // it goes on as the error of that task
  if (cause->message.size() > kMost) return cause->retain();
  return make_error(cause->code,
                    "an argument of task " + task_name(t) + " failed: " + cause->message,
                    cause->payload_format, cause->payload);
}

// Tasks whose argument failed fail with its error.
void Runtime::fail_dependents() {
  std::vector<FailedDependency> list;
  {
    std::lock_guard lock(mutex_);
    list.swap(failed_dependencies_);
    for (auto& d : list) {
      PendingTask* t = d.task;
      if (t->tag != d.tag || t->state != TaskState::kWaiting || t->shrinking) continue;
      ErrorBox* e = dependency_error(t, d.cause->error);
      fail_waiting(t, e);
      e->release();
    }
  }
  for (auto& d : list) objects_.release(d.cause);
}

// Every result becomes this error; the task is in no list any more. `journaled`: its worker has told of the failure.
void Runtime::fail_task(PendingTask* t, ErrorBox* e, bool journaled) {
  if (!journaled) note_end(t, e);
  if (__builtin_expect(t->relayed != nullptr, 0)) t->relayed->end.error = e->retain();
  for (uint32_t i = 0; i < t->n_returns; ++i) complete_error(t->result(i), e);
  if (t->stream) streams_.end(t, e);
  if (t->kind == RAY_KIND_ACTOR_CREATE) creation_failed(t, e);
  finish_task(t);
}

// The same for one that stands in a queue. Calls of an actor that waited behind it go on.
void Runtime::fail_waiting(PendingTask* t, ErrorBox* e) {
  Actor* a = t->kind == RAY_KIND_ACTOR_CALL ? t->actor : nullptr;
  const bool others_go_on = detach(t);
  if (a) ++a->n_pending;  // keeps the entry while it is looked at
  fail_task(t, e);
  if (sleepers_.load(std::memory_order_relaxed)) bells_.ring_own();
  if (!a) return;
  if (others_go_on) pump_actor(a);
  --a->n_pending;
  actors_.maybe_done(a);
}

void Runtime::finish_task(PendingTask* t) {
  unpark(t);
  if (__builtin_expect(t->relayed != nullptr, 0)) end_relayed(t);
  if (--n_pending_ == 0) nearer_to_end();
  if (t->shape) leases_.ended(t->shape, t->est_ns);
  std::vector<Object*> more;
  for (uint32_t i = 0; i < t->n_returns; ++i) {
    Object* o = t->result(i);
    o->producer = nullptr;
    if (o->drop()) objects_.free_one(o, &more);
  }
  if (!t->held.empty() || !more.empty()) {
    for (Object* o : t->held) objects_.release_later(o);
    for (Object* o : more) objects_.release_later(o);
  }
  Actor* a = t->actor;
  const bool call = t->kind == RAY_KIND_ACTOR_CALL, keeps = t->keeps_actor;
  if (!call) functions_.drop(t->function);
  free_task(t);
  if (!a) return;
  if (call) {
    --a->n_pending;
    a->n_keeping -= keeps;
  } else {
    a->creating = false;
  }
  actors_.maybe_done(a);
}

// What may not happen under the lock: storing, reading the store, releasing. Whoever drained does
// it; one who has a time limit of his own (patience 0) leaves what does not fit the store to the pulse thread.
void Runtime::after_unlock(int64_t patience_ns) {
  while (have_deferred_.exchange(false)) {
    Objects::Deferred objects;
    {
      std::lock_guard lock(mutex_);
      objects_.take_deferred(&objects);
    }
    fail_dependents();
    write_ends();
    shrink_parked(patience_ns);
    create_ready_actors(patience_ns);
    bool full = false;
    for (Object* o : objects.publish) {
      full = full || !objects_.publish(o, patience_ns, patience_ns != 0);
      if (full) later({.publish = o});
      else objects_.release(o);
    }
    if (!objects.publish.empty() && objects_.end_publishing()) nearer_to_end();
    for (const Objects::StoredError& e : objects.errors) {
      if (objects_.read_error(e, patience_ns, patience_ns != 0)) objects_.release(e.object);
      else later({.error = e});
    }
    for (Object* o : objects.release) objects_.release(o);
  }
}

void Runtime::later(Later what) {
  what.since_ns = steady_ns();
  {
    std::lock_guard lock(mutex_);
    later_.push_back(what);
    urgent_work_ = true;
  }
  bells_.poke();
}

// A little at a time: other work of the pulse thread waits meanwhile. Whatever has had no room for as long as
// any other call would have waited fails.
void Runtime::do_later() {
  constexpr int64_t kTryNs = 50'000'000, kAgainNs = 20'000'000;
  for (;;) {
    Later l;
    {
      std::lock_guard lock(mutex_);
      if (later_.empty()) return;
      l = later_.front();
      later_.pop_front();
      if (l.publish) objects_.begin_publishing();
    }
    const bool last = stopping_ || steady_ns() - l.since_ns > Objects::kStoreTimeoutNs;
    bool done = true;
    if (l.publish) done = objects_.publish(l.publish, kTryNs, last);
    else if (l.shrink) done = store_arguments(l.shrink, kTryNs, last);
    else if (l.create) done = create_actor(l.create, kTryNs, last);
    else done = objects_.read_error(l.error, kTryNs, last);
    if (done && l.publish) objects_.release(l.publish);
    if (done && l.error.object) objects_.release(l.error.object);
    std::lock_guard lock(mutex_);
    if (l.publish) (void)objects_.end_publishing();
    if (later_.empty()) nearer_to_end();
    if (done) continue;
    later_.push_back(l);  // others may fit
    later_at_ns_ = steady_ns() + kAgainNs;
    return;
  }
}

// ---- deaths
// -----------------------------------------------------------------------------------------------

static std::string describe_status(const wire::DnPeerDied& d) {
  if (d.cause == wire::kDeathMemory && d.wait_status >> 16 > 0)
    return "was ended because the node ran short of memory, of which it held " +
           std::to_string(d.wait_status >> 16) + " MiB,";
  if (d.cause == wire::kDeathMemory) return "was killed because the node ran out of memory";
  if (d.cause == wire::kDeathStopped)
    return "had been stopped by a signal for " + std::to_string(d.wait_status >> 16) +
           " s (`kill -CONT` resumes such a process; LIBRAY_STOPPED_WORKER_SECONDS is how long it may be) and was ended";
  if (d.wait_status < 0) return "died";
  if (WIFSIGNALED(d.wait_status)) {
    int sig = WTERMSIG(d.wait_status);
    return "was killed by signal " + std::to_string(sig) + " (" + strsignal(sig) + ")";
  }
  return "exited with status " + std::to_string(WEXITSTATUS(d.wait_status));
}

std::string task_name(const PendingTask* t) {
  if (!t->name.empty()) return t->name;
  return t->method.empty() ? t->function->name : t->function->name + "." + t->method;
}

std::string Runtime::crash_message(const PendingTask* t, const wire::DnPeerDied& d, std::string_view why) const {
  std::string name = task_name(t);
  if (d.cause == wire::kDeathNode)
    return std::string(why.empty() ? "another node died or cannot be reached" : why) + " while it ran task " + name + " (" +
           t->id.hex() + ", attempt " + std::to_string(t->attempt + 1) + "); raise max_retries to run it again";
  return "worker pid " + std::to_string(d.pid) + " of node " + node_.hex() + " " + describe_status(d) + " while it ran task " +
         name + " (" + t->id.hex() + ", attempt " + std::to_string(t->attempt + 1) +
         "); its log is in " + session_dir_ + "/logs; raise max_retries to run it again";
}

void Runtime::link_died(ClientLink* link, const wire::DnPeerDied& death, std::string_view why) {
  drain(link);
  link->dead = true;
  uint64_t started = link->header->started.load(std::memory_order_acquire);
  Shape* s = nullptr;
  if (link->lease) {
    s = link->lease->shape;
    for (PendingTask* t = link->inflight.head; t; t = t->next) t->lease = nullptr;
    leases_.lost(link->lease, &todo_);
    carry_out();  // what still waits asks again below
  }
  if (link->actor) return actor_link_died(link->actor, link);
  while (PendingTask* t = link->inflight.head) {
    const bool ran = t->ring_end <= started;
    if (ran) discard_attempt(t);
    const task::Fate fate = task::fate_of<TaskKit>(t, ran ? task::Stop::kDied : task::Stop::kUnbegun, false);
    if (fate == task::Fate::kSame || fate == task::Fate::kAgain) {
      if (ran) lineage_again(t);
      requeue(t, ran);
      continue;
    }
    if (t->relayed) t->relayed->end.died = ran;
    ray_code code = death.cause == wire::kDeathMemory ? RAY_OUT_OF_MEMORY : RAY_WORKER_CRASHED;
    std::string message = crash_message(t, death, why);
    if (t->forced)
      message = "task " + t->id.hex() + " was cancelled by force";
    else if (fate == task::Fate::kCancel)
      code = RAY_CANCELLED, message = "task " + t->id.hex() + " was cancelled";
    unlink(t);
    ErrorBox* e = make_error(code, message);
    fail_task(t, e);
    e->release();
  }
  drop_link(link);
  if (s) pump(s);
}

void Runtime::drop_link(ClientLink* link) {
  std::erase(busy_links_, link);
  auto peer = link_of_peer_.find(link->peer);
  if (peer != link_of_peer_.end() && peer->second == link) link_of_peer_.erase(peer);
  links_.erase(link->id);  // frees it
}

}  // namespace ray
