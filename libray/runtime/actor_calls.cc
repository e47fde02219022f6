// Actors as their callers see them: creation, calls in order, state changes, the end: the submitter's part, over the entries
// of actor_clients.h. Calls go over a link straight to the worker. See runtime.h for locks.
#include <algorithm>

#include "libray/base/fault.h"
#include "libray/base/log.h"
#include "libray/runtime/runtime.h"
#include "libray/runtime/runtime_inl.h"
#include "libray/wire/msgpack.h"

namespace ray {

Status Runtime::actor_create(Function* klass, const ray_arg* args, size_t n_args,
                             const ray_actor_options& o, Actor** out, bool* found) {
  std::string name = view_string(o.name);
  if (auto r = wire::parse_resources(
          {static_cast<const char*>(o.resources_msgpack.data), o.resources_msgpack.size});
      !r.ok())
    return r.status();
  auto create = std::make_unique<ActorCreation>();
  create->options = o;
  create->name = name;
  create->ns = o.ns.size ? view_string(o.ns) : ns_;
  create->resources.assign(static_cast<const char*>(o.resources_msgpack.data),
                           o.resources_msgpack.size);
  create->metadata.assign(static_cast<const char*>(o.metadata.data), o.metadata.size);
  Prepared p;
  Status s = prepare_args(klass->language, args, n_args, &p);
  PendingTask* t = s.ok() ? new_task() : nullptr;
  if (!t) {
    release_prepared(&p);
    return s.ok() ? error(RAY_OUT_OF_MEMORY, "no memory for another task") : s;
  }
  TaskContext* c = context();
  const uint64_t nth = c->next_submit.fetch_add(1, std::memory_order_relaxed);
  t->id = nth_task(c->id, c->origin, nth);
  // Who runs again makes other actors, see ids.h: not those that outlive him and can be found by their name.
  const bool found_by_name = !name.empty() && o.lifetime == RAY_LIFETIME_DETACHED;
  if (c->attempt > 0 && !found_by_name)
    t->id = child_task(origin_of_part(c->id, kAttemptIndex, c->attempt), static_cast<uint32_t>(nth));
  t->kind = RAY_KIND_ACTOR_CREATE;
  t->function = klass;
  Object* ref = objects_.make(ray::actor_of(t->id));
  if (!ref) return error(RAY_OUT_OF_MEMORY, "no memory for another reference");
  std::shared_ptr<DaemonChannel::Call> call;
  if (!name.empty()) create->req_id = daemon_.begin_call(&call, give_back_unless(ref->id));
  uint64_t req_id = create->req_id;
  {
    std::lock_guard lock(mutex_);
    t->actor = *out = actors_.made_here(ref, klass, o, create->metadata);
    t->creation = std::move(create);
  }
  objects_.release(ref);  // the entry keeps one
  ray_task_options to = RAY_TASK_OPTIONS_INIT;
  to.num_returns = 0;
  s = start_task(t, std::move(p), to, nullptr, nullptr);
  if (s.ok() && call) s = finish_named(req_id, call, o.flags, out, found);
  return s;
}

// The name decides which actor it is: ours, an older one, or an error.
Status Runtime::finish_named(uint64_t req_id, std::shared_ptr<DaemonChannel::Call> call, uint32_t flags, Actor** out,
                             bool* found) {
  std::string answer;
  Status s = daemon_.await_call(req_id, call, &answer, -1);
  Actor* mine = *out;
  if (s.ok()) {
    wire::Reader r(answer);
    uint32_t n;
    std::string_view id;
    if (!r.array(&n) || n < 1 || !r.bin(&id) || id.size() != kIdSize ||
        std::memcmp(id.data(), mine->id.b, kIdSize) == 0)
      return s;
    ActorId other;
    std::memcpy(other.b, id.data(), kIdSize);
    *found = flags & RAY_ACTOR_GET_IF_EXISTS;
    if (*found) {
      std::lock_guard lock(mutex_);
      *out = actors_.adopt(other);
    }
  }
  actor_release(mine, false);
  return s;
}

// Whoever asked for an actor by its name has gone, cancelled or out of time: of the one that the answer names we have been
// made a holder, unless it is `mine`.
std::function<void(const std::string&)> Runtime::give_back_unless(const ActorId& mine) {
  return [this, mine](const std::string& answer) {
    wire::Reader r(answer);
    uint32_t n;
    std::string_view id;
    if (!r.array(&n) || n < 1 || !r.bin(&id) || id.size() != kIdSize) return;
    ActorId actor;
    std::memcpy(actor.b, id.data(), kIdSize);
    if (actor != mine) objects_.give_up_hold(actor);
  };
}

Status Runtime::actor_from_id(const ActorId& id, Actor** out) {
  if (id.object_index() != kActorIndex)
    return error(RAY_INVALID_ARGUMENT, "%s is not the id of an actor", id.hex().c_str());
  std::lock_guard lock(mutex_);
  *out = actors_.weak(id);
  return Status();
}

Status Runtime::actor_reference(Actor* a, Object** out) {
  std::lock_guard lock(mutex_);
  return actors_.reference(a, out);
}

Status Runtime::actor_from_object(Object* o, Actor** out) {
  if (o->id.object_index() != kActorIndex)
    return error(RAY_INVALID_ARGUMENT, "object %s is not an actor", o->id.hex().c_str());
  std::lock_guard lock(mutex_);
  *out = actors_.counted(o);
  return Status();
}

// Arguments that went to the store contain whatever the constructor refers to: the node keeps that one object, however
// many there are. Its entry is ours alone as yet.
static void hold_in_arguments(PendingTask* t) {
  const ObjectId id = put_object(t->id, kArgumentsPut);
  for (Object* args : t->held) {
    if (args->id != id || args->contained) continue;
    args->contained = std::make_unique<std::vector<Object*>>();
    for (Object* o : t->held)
      if (o != args) args->contained->push_back(retain(o));
    return;
  }
}

// Their arguments are there.
void Runtime::create_ready_actors(int64_t patience_ns) {
  for (;;) {
    PendingTask* t;
    {
      std::lock_guard lock(mutex_);
      if (to_create_.empty()) return;
      t = to_create_.back();
      to_create_.pop_back();
    }
    if (!create_actor(t, patience_ns, patience_ns != 0)) later({.create = t});
  }
}

// Everything that must outlive us is shared, then the daemon takes over. False: there was no room for it in the store
// within `patience_ns`, and it is to be tried again; the last time it fails instead. No lock held.
bool Runtime::create_actor(PendingTask* t, int64_t patience_ns, bool last) {
  Status s;
  std::vector<ObjectId> deps;
  hold_in_arguments(t);
  for (Object* o : t->held) {
    s = objects_.share(o, patience_ns);
    if (!s.ok()) break;
    deps.push_back(o->id);
    if (o->id == put_object(t->id, kArgumentsPut)) {
      deps.assign(1, o->id);  // it contains the others
      break;
    }
  }
  if (no_room(s) && !last) return false;
  if (s.ok()) actors_.tell_creation(t, deps);
  std::lock_guard lock(mutex_);
  if (s.ok()) {
    actors_.connect(t->actor);
    finish_task(t);
    return true;
  }
  ErrorBox* e = make_error(s.code(), s.message());
  fail_task(t, e);
  e->release();
  return true;
}

// An argument has failed, or the creation was cancelled. All that hold the actor are told. mutex_ held.
void Runtime::creation_failed(const PendingTask* t, const ErrorBox* cause) {
  Actor* a = t->actor;
  const std::string why = "actor " + a->class_name + " (" + a->id.hex() + ") was not created: " + cause->message;
  ErrorBox* e = make_error(RAY_ACTOR_DIED, why, cause->payload_format, cause->payload);
  if (a->connected && !node_dead()) actors_.tell_failed(a, e);
  if (t->creation->req_id) daemon_.answer_here(t->creation->req_id, closed_ || node_dead() ? cause->code : e->code, e->message);
  actor_dead(a, e);
}

void Runtime::send_actor_create(PendingTask* t) {
  actors_.announce(t);
  to_create_.push_back(t);
  have_deferred_ = true;
}

// ---- calls
// ----------------------------------------------------------------------------------------------

Status Runtime::actor_call(Actor* a, const std::string& method, const ray_arg* args, size_t n_args,
                           const ray_task_options& o, Object** returns, Stream** stream, bool weak) {
  if (method.empty()) return error(RAY_INVALID_ARGUMENT, "a method needs a name");
  RAY_TRY(await_facts(a));
  if (a->max_pending && a->n_pending >= a->max_pending)
    return error(RAY_UNAVAILABLE,
                 "actor %s has %lu pending calls, as many as max_pending_calls allows",
                 a->class_name.c_str(), a->n_pending);
  Prepared p;
  Status s = prepare_args(a->call_function->language, args, n_args, &p);
  PendingTask* t = s.ok() ? new_task() : nullptr;
  if (!t) {
    release_prepared(&p);
    return s.ok() ? error(RAY_OUT_OF_MEMORY, "no memory for another task") : s;
  }
  t->kind = RAY_KIND_ACTOR_CALL;
  t->actor = a;
  t->method = method;
  t->keeps_actor = !weak;
  t->function = a->call_function.get();
  t->actor_retries = o.max_retries == RAY_RETRIES_DEFAULT;
  t->retries_left = t->actor_retries ? 0 : o.max_retries;
  s = start_task(t, std::move(p), o, returns, stream);
  if (s.ok() && __builtin_expect(a->state >= wire::kActorRestarting, 0)) {
    std::unique_lock lock(mutex_);
    if (a->state == wire::kActorRestarting)
      refuse_last_call(a, t);
    else
      pump_actor(a);
    lock.unlock();
    after_unlock();
  }
  return s;
}

// How many calls of an actor that was made elsewhere may be pending at a time is not known before the daemon has told. One
// may be in any case, so only the calls after it wait, but for those of a thread that the answer needs.
Status Runtime::await_facts(Actor* a) {
  if (__builtin_expect(a->facts_known.load(std::memory_order_acquire), 1)) return Status();
  auto known = [this, a] { return a->facts_known || a->n_pending == 0 || closed_ || node_dead(); };
  {
    std::lock_guard lock(mutex_);
    if (known()) return Status();
  }
  if (in_callback() || wait_until(known, DaemonChannel::kRequestNs)) return Status();
  RAY_TRY(wait_ended());
  return error(RAY_TIMED_OUT, "the node daemon did not say in time how many calls of actor %s may be pending",
               a->id.hex().c_str());
}

// A call that was made while the actor restarts, and has no retries, is not kept. mutex_ held.
void Runtime::refuse_last_call(Actor* a, PendingTask* t) {
  if (a->queue.tail != t || t->retries_left != 0 || t->shrinking) return;
  a->queue.remove(t);
  unpark(t);
  fail_restarting(t, "The actor is restarting");
}

void Runtime::fail_restarting(PendingTask* t, const std::string& why) {
  const bool ran = t->started || t->attempt > 0;  // now, or before it was tried again
  ErrorBox* e =
      t->cancelled
          ? make_error(RAY_CANCELLED,
                       "task " + task_name(t) + " (" + t->id.hex() + ") was cancelled")
          : make_error(RAY_ACTOR_RESTARTING,
                       "The actor " + t->actor->id.hex() + " is unavailable: " + why +
                           ". The call " + task_name(t) + " (" + t->id.hex() +
                           (ran ? ") may or may not have run" : ") has not run") +
                           ": call again, or set max_task_retries.");
  fail_task(t, e);
  e->release();
}

// mutex_ held.
void Runtime::pump_actor(Actor* a) {
  if (a->state == wire::kActorDead) {
    fail_actor_tasks(a, RAY_ACTOR_DIED, a->death);
    return actors_.maybe_done(a);
  }
  if (!a->link) return;
  if (!a->pump([&](PendingTask* t) { return push_spec(t, a->link); })) return;
  a->link->tasks.publish();
  RAY_FAULT("client.called");
  wake(a->link);
}

void Runtime::fail_actor_tasks(Actor* a, ray_code code, ErrorBox* cause) {
  ErrorBox* e = cause ? cause->retain() : make_error(code, "actor " + a->class_name + " died");
  ++a->n_pending;  // keeps the entry while its tasks end
  while (PendingTask* t = a->lost.pop_front()) fail_task(t, e);
  for (TaskList* list : {&a->queue, &a->aside})
    for (;;) {
      PendingTask* t = list->head;
      while (t && t->shrinking) t = t->next;  // comes back here when it is stored
      if (!t) break;
      list->remove(t);
      t->aside = false;
      unpark(t);
      fail_task(t, e);
    }
  e->release();
  --a->n_pending;
}

// ---- life
// -------------------------------------------------------------------------------------------------

void Runtime::actor_state(const wire::ActorStateRecord& r) {
  const wire::DnActorState& s = r.head;
  Actor* a = actors_.find(s.id);
  if (!a || a->state == wire::kActorDead || s.incarnation < a->incarnation) return;
  ++a->n_pending;  // keeps the entry while its calls end
  take_state(a, r);
  --a->n_pending;
  actors_.maybe_done(a);  // what failed may have been the last that wanted it
}

void Runtime::take_state(Actor* a, const wire::ActorStateRecord& r) {
  const wire::DnActorState& s = r.head;
  actors_.take_facts(a, s);
  bool restarted = s.incarnation > a->incarnation || s.state == wire::kActorRestarting;
  a->incarnation = s.incarnation;
  a->state = s.state;
  if (s.state == wire::kActorDead) {
    ray_code code = RAY_ACTOR_DIED;
    std::string message, payload;
    uint32_t format = 0;
    std::string image = std::move(a->error_parts);
    image.append(r.text);
    if (!wire::unpack_error(image.data(), image.size(), &code, &message, &format, &payload))
      message = "actor " + a->class_name + " (" + a->id.hex() + ") died: " + image;
    bool unplaceable = s.code == RAY_GROUP_REMOVED || s.code == RAY_UNSCHEDULABLE;
    return actor_dead(a,
                      make_error(unplaceable ? s.code : RAY_ACTOR_DIED, message, format, payload));
  }
  if (restarted) retry_lost_calls(a);
  if (s.state != wire::kActorAlive) return;
  auto link = links_.find(s.link);
  if (link == links_.end()) return;
  a->resume_lost([this](PendingTask* t) { fail_restarting(t, ""); });  // which says of a cancelled one that it was
  a->link = link->second.get();
  a->link->actor = a;
  pump_actor(a);
}

// Takes over the error. The entry may be gone afterwards.
void Runtime::actor_dead(Actor* a, ErrorBox* e) {
  a->state = wire::kActorDead;
  if (a->death) a->death->release();
  a->death = e;
  fail_actor_tasks(a, RAY_ACTOR_DIED, e);
  actors_.maybe_done(a);
}

// Calls that were in flight when the actor died: those that may be tried again go back to the head of the queue in their
// order.
void Runtime::retry_lost_calls(Actor* a) {
  ++a->n_pending;
  a->settle_lost([this](PendingTask* t) { fail_restarting(t, "its process died and is being replaced"); },
                 [this](PendingTask* t) { lineage_again(t); });
  --a->n_pending;
}

// Whether a call that its worker had taken did not wait for its concurrency group any more.
static bool begun(const PendingTask* t) {
  auto* word = const_cast<uint8_t*>(t->record) + offsetof(wire::TaskHeader, submitted);
  return std::atomic_ref(*reinterpret_cast<uint64_t*>(word)).load(std::memory_order_acquire) != wire::kNotBegun;
}

void Runtime::actor_link_died(Actor* a, ClientLink* link) {
  uint64_t started = link->header->started.load(std::memory_order_acquire);
  if (a->link == link) a->link = nullptr;
  ++a->n_pending;
  while (PendingTask* t = link->inflight.head) {
    bool ran = t->ring_end <= started && begun(t);
    if (ran) discard_attempt(t);
    const bool intact = take_back_record(t);
    unlink(t);
    if (!intact) {
      fail_overwritten(t, link->peer_pid);
      continue;
    }
    if (!t->error_parts.empty()) std::string().swap(t->error_parts);
    a->lose(t, ran);
    actors_.keep_for_call(t);
  }
  drop_link(link);
  if (a->state == wire::kActorDead) fail_actor_tasks(a, RAY_ACTOR_DIED, a->death);
  --a->n_pending;
  actors_.maybe_done(a);
}

void Runtime::actor_release(Actor* a, bool weak) {
  if (foreign()) return;
  {
    std::lock_guard lock(mutex_);
    actors_.release(a, weak);
    nearer_to_end();
  }
  after_unlock();
}

Status Runtime::actor_kill(Actor* a, bool may_restart) {
  daemon_.up(wire::kUpActorKill, wire::UpActor{a->id, a->incarnation, RAY_OK, may_restart ? 1u : 0u, 0});
  // Answered after the kill: no call that is made from now on runs in the process that it ends.
  return daemon_.request(wire::kOpPing, std::string("\x90", 1), nullptr);
}

Status Runtime::actor_find(const std::string& name, const std::string& ns, Actor** out) {
  if (name.empty()) return error(RAY_INVALID_ARGUMENT, "an actor's name is not empty");
  std::string args, answer;
  wire::Writer(&args).array(2).str(name).str(ns.empty() ? ns_ : ns);
  std::shared_ptr<DaemonChannel::Call> call;
  const uint64_t req = daemon_.begin_call(&call, give_back_unless({}));
  RAY_TRY(daemon_.transact(req, call, wire::kOpActorFind, args, &answer, DaemonChannel::kRequestNs));
  wire::Reader r(answer);
  uint32_t n;
  std::string_view id;
  if (!r.array(&n) || n < 1 || !r.bin(&id) || id.size() != kIdSize)
    return error(RAY_INTERNAL, "the node daemon answered nonsense");
  ActorId actor;
  std::memcpy(actor.b, id.data(), kIdSize);
  std::lock_guard lock(mutex_);
  *out = actors_.adopt(actor);
  return Status();
}

// What the node knows of an actor that was made elsewhere: metadata, name and language of its class.
Status Runtime::learn_actor(Actor* a) {
  {
    std::lock_guard lock(mutex_);
    if (a->info_known) return Status();
  }
  std::string args, answer;
  wire::Writer(&args).array(1).bin(a->id.b, kIdSize);
  RAY_TRY(daemon_.request(wire::kOpActorInfo, args, &answer));
  wire::Reader r(answer);
  uint32_t n;
  int32_t language;
  std::string_view name, ns, metadata, klass;
  uint64_t state;
  if (!r.array(&n) || n < 6 || !r.str(&name) || !r.str(&ns) || !r.bytes(&metadata) || !r.uint64(&state) ||
      !r.str(&klass) || !r.int32(&language))
    return error(RAY_INTERNAL, "the node daemon answered nonsense");
  std::lock_guard lock(mutex_);
  if (a->info_known) return Status();  // another thread asked, too: who reads its metadata keeps what it reads
  a->metadata = metadata;
  a->class_name = a->call_function->name = klass;
  a->call_function->language = language;
  a->info_known = true;
  return Status();
}

}  // namespace ray
