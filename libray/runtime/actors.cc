// Actors as their callers see them: creation, calls in order, state changes, the end. See
// runtime.h. The daemon runs the life cycle (actor/manager.h); calls go over a link straight to the
// worker.
#include <algorithm>

#include "libray/base/fault.h"
#include "libray/base/log.h"
#include "libray/runtime/runtime.h"
#include "libray/runtime/runtime_inl.h"
#include "libray/wire/msgpack.h"

namespace ray {

// The entry of an actor; makes it on first sight. mutex_ held.
Actor* Runtime::actor_entry(const ActorId& id) {
  auto& slot = actors_[id];
  if (!slot) {
    slot = std::make_unique<Actor>();
    slot->runtime = this;
    slot->id = id;
    slot->call_function = std::make_unique<Function>();
    slot->call_function->runtime = this;
    slot->call_function->name = "actor";
    slot->call_function->language = language_;  // of an actor made elsewhere: most likely ours
  }
  return slot.get();
}

void Runtime::connect_actor(Actor* a) {
  if (a->connected) return;
  a->connected = true;
  up(wire::kUpActorConnect, wire::UpActor{a->id, 0, RAY_OK, 0, 0});
}

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
  Object* ref = new_object(ray::actor_of(t->id));
  if (!ref) return error(RAY_OUT_OF_MEMORY, "no memory for another reference");
  std::shared_ptr<Call> call;
  if (!name.empty()) create->req_id = begin_call(&call, true, ref->id);
  uint64_t req_id = create->req_id;
  {
    std::lock_guard lock(mutex_);
    ref->shared = ref->in_table = true;
    ref->holds = 1;
    table_.set(ref);
    up(wire::kUpObjShare, wire::UpObj{ref->id, {}, wire::kObjPending, RAY_OK, 0, 0});
    Actor* a = actor_entry(ref->id);
    a->ref = retain(ref);
    a->handles = 1;
    a->class_name = a->call_function->name = klass->name;
    a->call_function->key = klass->key;
    a->call_function->language = klass->language.load();
    a->max_task_retries = o.max_task_retries == RAY_RETRIES_DEFAULT ? 0 : o.max_task_retries;
    a->max_pending = o.max_pending_calls;
    a->out_of_order = o.flags & RAY_ACTOR_OUT_OF_ORDER;
    a->metadata = create->metadata;
    a->info_known = true;
    a->facts_known.store(true, std::memory_order_release);
    t->actor = a;
    a->creating = a->made_here = true;
    t->creation = std::move(create);
    *out = a;
  }
  release(ref);  // the entry keeps one
  ray_task_options to = RAY_TASK_OPTIONS_INIT;
  to.num_returns = 0;
  s = start_task(t, std::move(p), to, nullptr, nullptr);
  if (s.ok() && call) s = finish_named(req_id, call, o.flags, out, found);
  return s;
}

// The name decides which actor it is: ours, an older one, or an error.
Status Runtime::finish_named(uint64_t req_id, std::shared_ptr<Call> call, uint32_t flags, Actor** out, bool* found) {
  std::string answer;
  Status s = await_call(req_id, call, &answer, -1);
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
    if (*found) adopt_held(other, out);
  }
  actor_release(mine, false);
  return s;
}

// The daemon made us a holder of this actor, so that it is there when we hear of it: a weak handle has no hold, but
// we are told of its end.
void Runtime::adopt_held(const ActorId& id, Actor** out) {
  std::lock_guard lock(mutex_);
  *out = weak_entry(id);
  up(wire::kUpObjRelease, wire::UpObjCount{id, process_, 1});
}

Status Runtime::actor_from_id(const ActorId& id, Actor** out) {
  if (id.object_index() != kActorIndex)
    return error(RAY_INVALID_ARGUMENT, "%s is not the id of an actor", id.hex().c_str());
  std::lock_guard lock(mutex_);
  *out = weak_entry(id);
  return Status();
}

// One more weak handle. mutex_ held.
Actor* Runtime::weak_entry(const ActorId& id) {
  Actor* a = actor_entry(id);
  ++a->weak;
  connect_actor(a);
  return a;
}

// From now on the directory counts us, unless it does already. mutex_ held.
Status Runtime::keep_actor(Actor* a) { return a->ref ? Status() : import_one(a->id, {}, nullptr, &a->ref); }

// A call through a weak handle that has yet to reach the actor: it is to find it. One that stands in the actor's ring
// needs no hold, for an actor finishes what is there before it ends. mutex_ held.
void Runtime::keep_for_call(PendingTask* t) {
  if (t->keeps_actor || t->kind != RAY_KIND_ACTOR_CALL || !keep_actor(t->actor).ok()) return;
  t->keeps_actor = true;
  ++t->actor->n_keeping;
}

Status Runtime::actor_reference(Actor* a, Object** out) {
  std::lock_guard lock(mutex_);
  if (a->ref) {
    *out = retain(a->ref);
    return Status();
  }
  return import_one(a->id, {}, nullptr, out);
}

Status Runtime::actor_from_object(Object* o, Actor** out) {
  if (o->id.object_index() != kActorIndex)
    return error(RAY_INVALID_ARGUMENT, "object %s is not an actor", o->id.hex().c_str());
  std::lock_guard lock(mutex_);
  Actor* a = actor_entry(o->id);
  if (!a->ref) a->ref = retain(o);
  ++a->handles;
  connect_actor(a);
  *out = a;
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
    s = share(o, patience_ns);
    if (!s.ok()) break;
    deps.push_back(o->id);
    if (o->id == put_object(t->id, kArgumentsPut)) {
      deps.assign(1, o->id);  // it contains the others
      break;
    }
  }
  if (no_room(s) && !last) return false;
  if (s.ok()) tell_creation(t, deps);
  std::lock_guard lock(mutex_);
  if (s.ok()) {
    connect_actor(t->actor);
    finish_task(t);
    return true;
  }
  ErrorBox* e = make_error(s.code(), s.message());
  fail_task(t, e);
  e->release();
  return true;
}

void Runtime::tell_creation(const PendingTask* t, const std::vector<ObjectId>& deps) {
  ActorCreation& c = *t->creation;
  wire::UpActorCreate u{};
  u.id = t->actor->id;
  u.req_id = c.req_id;
  u.language = t->function->language;
  u.max_restarts = c.options.max_restarts;
  u.max_task_retries = t->actor->max_task_retries;
  u.lifetime = c.options.lifetime;
  u.max_concurrency = c.options.max_concurrency ? c.options.max_concurrency : 1;
  u.flags = c.options.flags;
  u.function = t->function->key;
  std::string tail;
  auto add = [&](const std::string& part) {
    tail += part;
    return static_cast<uint32_t>(part.size());
  };
  u.name_size = add(c.name);
  u.ns_size = add(c.ns);
  u.class_size = add(t->function->name);
  u.metadata_size = add(c.metadata);
  u.resources_size = add(c.resources);
  u.record_size = add(t->spec);
  u.n_dependencies = static_cast<uint32_t>(deps.size());
  u.max_pending_calls = c.options.max_pending_calls;
  tail.append(reinterpret_cast<const char*>(deps.data()), deps.size() * kIdSize);
  up(wire::kUpActorCreate, u, tail.data(), tail.size());
}

// Its constructor's arguments are missing, or another thread is to carry out the creation: who gets a handle meanwhile is
// to know that it will be and how it is called, and it can be killed. mutex_ held.
void Runtime::announce_actor(const PendingTask* t) {
  if (std::exchange(t->creation->announced, true)) return;
  Actor* a = t->actor;
  a->connected = true;
  const ray_actor_options& o = t->creation->options;
  const wire::ActorFacts facts{o.max_restarts, a->max_task_retries, o.flags, o.max_pending_calls};
  up(wire::kUpActorConnect, wire::UpActor{a->id, 0, RAY_OK, 1, sizeof facts}, &facts, sizeof facts);
}

// An argument has failed, or the creation was cancelled. All that hold the actor are told. mutex_ held.
void Runtime::creation_failed(const PendingTask* t, const ErrorBox* cause) {
  Actor* a = t->actor;
  const std::string why = "actor " + a->class_name + " (" + a->id.hex() + ") was not created: " + cause->message;
  ErrorBox* e = make_error(RAY_ACTOR_DIED, why, cause->payload_format, cause->payload);
  if (a->connected && !node_dead()) {
    std::string image = wire::pack_error(e->code, e->message, e->payload_format, e->payload);
    if (image.size() > wire::kActorErrorMax) image = wire::pack_error(e->code, e->message, 0, {});  // the message must do
    up(wire::kUpActorReady, wire::UpActor{a->id, 0, RAY_ACTOR_DIED, 0, static_cast<uint32_t>(image.size())},
       image.data(), image.size());
  }
  if (t->creation->req_id) answer_here(t->creation->req_id, closed_ || node_dead() ? cause->code : e->code, e->message);
  actor_dead(a, e);
}

void Runtime::send_actor_create(PendingTask* t) {
  announce_actor(t);
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
  if (in_callback() || wait_until(known, kRequestNs)) return Status();
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
    return actor_maybe_done(a);
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

void Runtime::actor_state(const wire::DnActorState& s, const uint8_t* tail) {
  auto it = actors_.find(s.id);
  if (it == actors_.end()) return;
  Actor* a = it->second.get();
  if (a->state == wire::kActorDead || s.incarnation < a->incarnation) return;
  ++a->n_pending;  // keeps the entry while its calls end
  take_state(a, s, tail);
  --a->n_pending;
  actor_maybe_done(a);  // what failed may have been the last that wanted it
}

// What its creator has said of it. Calls that were made before go by it too. mutex_ held.
void Runtime::take_facts(Actor* a, const wire::DnActorState& s) {
  if (a->facts_known.load(std::memory_order_relaxed)) return;
  a->max_task_retries = s.max_task_retries;
  a->max_pending = s.max_pending_calls;
  a->out_of_order = s.flags & RAY_ACTOR_OUT_OF_ORDER;
  a->facts_known.store(true, std::memory_order_release);
  for (PendingTask* t = a->queue.head; t; t = t->next)
    if (t->actor_retries && !t->cancelled) t->retries_left = a->max_task_retries;
  if (a->out_of_order) a->free_order();
}

void Runtime::take_state(Actor* a, const wire::DnActorState& s, const uint8_t* tail) {
  take_facts(a, s);
  bool restarted = s.incarnation > a->incarnation || s.state == wire::kActorRestarting;
  a->incarnation = s.incarnation;
  a->state = s.state;
  if (s.state == wire::kActorDead) {
    ray_code code = RAY_ACTOR_DIED;
    std::string message, payload;
    uint32_t format = 0;
    std::string image = std::move(a->error_parts);
    image.append(reinterpret_cast<const char*>(tail), s.size);
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
  a->resume_lost();
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
  actor_maybe_done(a);
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
    keep_for_call(t);
  }
  drop_link(link);
  if (a->state == wire::kActorDead) fail_actor_tasks(a, RAY_ACTOR_DIED, a->death);
  --a->n_pending;
  actor_maybe_done(a);
}

// After the last counted handle is gone and the last call that keeps the actor answered, our reference goes too; the
// entry, when nobody needs it any more. mutex_ held.
void Runtime::actor_maybe_done(Actor* a) {
  if (a->handles || a->n_keeping || a->creating) return;
  if (a->ref) {
    deferred_release_.push_back(std::exchange(a->ref, nullptr));
    have_deferred_ = true;
  }
  if (a->weak || a->n_pending) return;
  if (a->link) {
    if (!a->link->inflight.empty()) return;
    a->link->actor = nullptr;
  }
  if (a->death) a->death->release();
  actors_.erase(ActorId(a->id));  // frees it
}

void Runtime::actor_release(Actor* a, bool weak) {
  if (foreign()) return;
  {
    std::lock_guard lock(mutex_);
    weak ? --a->weak : --a->handles;
    actor_maybe_done(a);
    nearer_to_end();
  }
  after_unlock();
}

Status Runtime::actor_kill(Actor* a, bool may_restart) {
  up(wire::kUpActorKill, wire::UpActor{a->id, a->incarnation, RAY_OK, may_restart ? 1u : 0u, 0});
  // Answered after the kill: no call that is made from now on runs in the process that it ends.
  return request(wire::kOpPing, std::string("\x90", 1), nullptr);
}

Status Runtime::actor_find(const std::string& name, const std::string& ns, Actor** out) {
  if (name.empty()) return error(RAY_INVALID_ARGUMENT, "an actor's name is not empty");
  std::string args, answer;
  wire::Writer(&args).array(2).str(name).str(ns.empty() ? ns_ : ns);
  std::shared_ptr<Call> call;
  const uint64_t req = begin_call(&call, true);
  RAY_TRY(transact(req, call, wire::kOpActorFind, args, &answer, kRequestNs));
  wire::Reader r(answer);
  uint32_t n;
  std::string_view id;
  if (!r.array(&n) || n < 1 || !r.bin(&id) || id.size() != kIdSize)
    return error(RAY_INTERNAL, "the node daemon answered nonsense");
  ActorId actor;
  std::memcpy(actor.b, id.data(), kIdSize);
  adopt_held(actor, out);
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
  RAY_TRY(request(wire::kOpActorInfo, args, &answer));
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
