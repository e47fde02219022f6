// See node_core.h. Actors: what processes ask of them, and what the actor manager decides.
#include "libray/node/core/demands.h"
#include "libray/node/core/node_core.h"
#include "libray/wire/cursor.h"
#include "libray/wire/packed.h"
#include "libray/wire/records.h"

namespace ray::node {
namespace {

constexpr int64_t kActorExitGraceNs = 30'000'000'000;  // for what an actor does at its end
constexpr size_t kMaxActors = 65536;                   // the dead that are remembered included
constexpr size_t kMaxRecord = wire::kDatagramMax - 4096;  // a creation record travels in one datagram

}  // namespace

// ---- creation

Status NodeCore::room_for_actor(const ActorId& id) const {
  if (actors_.all().size() < kMaxActors || actors_.find(id)) return Status();
  return error(RAY_UNAVAILABLE, "this node has %zu actors, which is its limit: end some, or let one serve more callers",
               actors_.all().size());
}

Status NodeCore::acceptable(const actor::Spec& spec) {
  if (spec.record.size() > kMaxRecord)
    return error(RAY_INVALID_ARGUMENT,
                 "arguments of an actor's constructor take %zu bytes, more "
                 "than %zu: put large ones first",
                 spec.record.size(), kMaxRecord);
  RAY_TRY(room_for_actor(spec.id));
  std::map<std::string, double> amounts;
  sched::Pool pool{spec.language, spec.job};
  Status s = read_needs(spec.resources, &amounts, &pool);
  drop_env(pool.env);  // it is looked up again when a worker is wanted
  sched::Resources resources;
  for (const auto& [name, amount] : amounts)
    if (s.ok()) s = resources.add(name, amount);
  return s;
}

// There will be no such actor: its creator, who holds it already, is told as of a death.
void NodeCore::refuse_actor(uint32_t process, const ActorId& id, const Status& s) {
  wire::DnActorState dead{};
  dead.id = id;
  dead.state = wire::kActorDead;
  dead.code = s.code();
  put(action::TellActor{process, dead, false, s.message()});
}

void NodeCore::on(event::ActorCreate& e) {
  actor::Spec& spec = e.spec;
  const Process* p = process(spec.creator);
  if (!p) return;
  spec.job = p->job;
  if (spec.ns.empty()) spec.ns = job_of(spec.creator).ns;
  actor::Actions actions;
  if (Status s = acceptable(spec); !s.ok()) {
    if (spec.req_id) reply(spec.creator, spec.req_id, s.code(), s.message());
    refuse_actor(spec.creator, spec.id, s);
    // Whoever was told of it before hears that it will not be.
    actors_.constructed(spec.creator, spec.id, 0, s.code(), s.message(), &actions);
    return apply(actions);
  }
  // The creator's handle is a reference to the actor's pseudo-object.
  object::Actions objects;
  if (!actors_.find(spec.id))
    directory_.share(spec.creator, spec.id, wire::kObjPending, 0, {}, nullptr, 0, &objects);
  apply(objects);
  actors_.create(std::move(spec), &actions);
  apply(actions);
}

void NodeCore::on(const event::ActorConnect& e) {
  const Process* p = process(e.process);
  if (!p) return;
  if (e.facts) {
    if (Status s = room_for_actor(e.id); !s.ok()) return refuse_actor(e.process, e.id, s);
    actors_.announce(e.id, e.process, p->job, *e.facts);
  }
  // Its creator wrote first, but perhaps to a ring that this pass had gone by already: nobody is told yet that there is no
  // such actor.
  if (!actors_.find(e.id)) return late_.add({.kind = Late::kConnect, .process = e.process, .id = e.id});
  actor::Actions actions;
  actors_.connect(e.id, e.process, &actions);
  apply(actions);
}

void NodeCore::on(const event::ActorKill& e) {
  if (!actors_.find(e.id)) return late_.add({.kind = Late::kKill, .id = e.id, .may_restart = e.may_restart});
  actor::Actions actions;
  actors_.kill(e.id, e.may_restart, &actions);
  apply(actions);
}

void NodeCore::on(event::ActorReady& e) {
  actor::Actions actions;
  actors_.constructed(e.process, e.id, e.incarnation, e.code, e.error, &actions);
  apply(actions);
}

void NodeCore::on(event::ActorExit& e) {
  actor::Actions actions;
  actors_.exiting(e.process, e.id, e.why, &actions);
  if (e.leaves && actors_.of_worker(e.process)) expect_exit(e.process, kActorExitGraceNs);
  apply(actions);
}

// ---- questions

void NodeCore::on(event::ActorFind& e) {
  if (e.ns.empty()) e.ns = job_of(e.process).ns;
  // What it has heard of the actor may stand in a ring that this pass has gone by already.
  late_.add({.kind = Late::kFind, .process = e.process, .req_id = e.req_id, .name = std::move(e.name), .ns = std::move(e.ns)});
}

void NodeCore::find_late(const Late& work) {
  if (!may_hold(work.process)) return;
  const actor::Actor* a = actors_.find(work.name, work.ns);
  if (!a)
    return reply(work.process, work.req_id, RAY_NOT_FOUND,
                 "no living actor named '" + work.name + "' in namespace '" + work.ns + "'");
  // Held for the asker before it can know the id: the actor cannot end in between.
  directory_.hold(a->spec.id, work.process, 1);
  wire::Packer w;
  w.array(1).id(a->spec.id);
  reply(work.process, work.req_id, RAY_OK, w.bytes());
}

void NodeCore::on(const event::ActorInfo& e) {
  late_.add({.kind = Late::kInfo, .process = e.process, .id = e.id, .req_id = e.req_id});
}

void NodeCore::info_late(const Late& work) {
  const actor::Actor* a = actors_.find(work.id);
  if (!a) return reply(work.process, work.req_id, RAY_NOT_FOUND, "no actor " + work.id.hex() + " on this node");
  wire::Packer w;
  w.array(6)
      .str(a->spec.name)
      .str(a->spec.ns)
      .bin(a->spec.metadata)
      .uint64(a->state)
      .str(a->spec.klass)
      .int64(a->spec.language);
  reply(work.process, work.req_id, RAY_OK, w.bytes());
}

// ---- what the manager decides

void NodeCore::apply(actor::Actions& actions) {
  for (const actor::Action& x : actions) apply(x);
}

void NodeCore::apply(const actor::Action& x) {
  using actor::Action;
  const actor::Actor* a = actors_.find(x.id);
  switch (x.kind) {
    case Action::kReply: {
      if (x.other && a && may_hold(x.process)) directory_.hold(x.id, x.process, 1);  // get_if_exists
      wire::Packer w;
      w.array(1).id(x.id);
      return reply(x.process, x.req_id, x.code, x.code == RAY_OK ? w.bytes() : x.text);
    }
    // Whoever has the name may have said goodbye, and the creator may have been told so by the actor itself, while this
    // pass had gone by its ring already.
    case Action::kClaimName: return late_.add({.kind = Late::kClaim, .id = x.id});
    case Action::kReleaseName: return a ? release_name(*a) : void();
    case Action::kWantWorker: return a ? want_worker(*a) : void();
    case Action::kCancelWorker:
      scheduler_.cancel_actor(x.id);
      waits_no_more(x.id);
      decide_ = true;
      return;
    case Action::kInit: return a ? init_actor(*a, x.process, x.incarnation) : void();
    case Action::kTell: return tell_actor(x.id, x.process);
    case Action::kKill: return kill_worker(x.process, wire::kDeathForced);
    case Action::kWanted: return put(action::ActorWanted{x.process, x.id});
    case Action::kHold: return a ? hold_for(*a) : void();
    case Action::kDrop: return drop_for(x.id);
    case Action::kChanged: {
      journal_actor(x.id);
      if (!a || a->state != wire::kActorDead) return;
      const uint32_t job = a->spec.job;
      return actor_ended(job, a->spec.lifetime == RAY_LIFETIME_DETACHED);
    }
  }
}

void NodeCore::init_actor(const actor::Actor& a, uint32_t worker, uint32_t incarnation) {
  wire::ActorInitRecord r;
  r.head.id = a.spec.id;
  r.head.incarnation = incarnation;
  r.head.max_concurrency = a.spec.max_concurrency;
  r.record = a.spec.record;
  std::string tail = wire::write(&r, accelerators_of(worker));
  action::InitActor init{worker, r.head, std::move(tail)};
  put(std::move(init));
}

// Its class and its arguments, for as long as it may start.
void NodeCore::hold_for(const actor::Actor& a) {
  function_users_.hold(a.spec.function);
  actor_functions_[a.spec.id] = a.spec.function;
  if (a.spec.dependencies.empty()) return;
  for (const ObjectId& d : a.spec.dependencies) directory_.hold(d, object::kDaemonHolder, 1);
  actor_dependencies_[a.spec.id] = a.spec.dependencies;
}

void NodeCore::drop_for(const ActorId& id) {
  if (auto f = actor_functions_.extract(id); !f.empty() && function_users_.release(f.mapped())) forget_function(f.mapped());
  if (auto held = actor_dependencies_.extract(id); !held.empty())
    for (const ObjectId& d : held.mapped()) directory_.release(d, object::kDaemonHolder, 1);
}

void NodeCore::want_worker(const actor::Actor& a) {
  std::map<std::string, double> amounts;
  sched::Pool pool{a.spec.language, a.spec.job};
  Status place = read_needs(a.spec.resources, &amounts, &pool);  // checked at creation, but for room
  sched::Resources resources;
  for (const auto& [name, amount] : amounts) (void)resources.add(name, amount);
  sched::Placement placement;
  if (place.ok()) place = find_place(a.spec.resources, &placement);
  if (place.ok()) place = stays_possible(a.spec.job, amounts, placement);
  if (pool.env) actor_envs_[a.spec.id] = pool.env;
  if (place.ok()) {
    scheduler_.want_actor(a.spec.id, resources, pool, placement);
    decide_ = true;
    return;
  }
  waits_no_more(a.spec.id);
  actor::Actions more;
  actors_.fail(ActorId(a.spec.id), place.code(), place.message(), &more);
  apply(more);
}

// Its worker, if it has one, keeps the environment from now on.
void NodeCore::waits_no_more(const ActorId& id) {
  if (auto env = actor_envs_.extract(id); !env.empty()) drop_env(env.mapped());
}

// What a process is told about an actor: its state, and a link to its worker when there is one.
void NodeCore::tell_actor(const ActorId& id, uint32_t index) {
  if (!process(index)) return;
  const actor::Actor* a = actors_.find(id);
  action::TellActor tell{index, {}, false, ""};
  wire::DnActorState& s = tell.state;
  s.id = id;
  if (!a) {
    s.state = wire::kActorDead;
    s.code = RAY_ACTOR_DIED;
    tell.cause = wire::pack_error(RAY_ACTOR_DIED, "actor " + id.hex() + " is not known on this node", 0, "");
    return put(std::move(tell));
  }
  s.state = a->state;
  s.incarnation = a->incarnation;
  s.max_task_retries = a->spec.max_task_retries;
  s.max_concurrency = a->spec.max_concurrency;
  s.flags = a->spec.flags;
  s.max_pending_calls = a->spec.max_pending_calls;
  if (a->state == wire::kActorAlive) {
    s.worker = a->worker;
    s.link = connect_link(index, a->worker, &tell.new_link);
    if (s.link == 0) return;  // one of them is dying: the next state follows
  }
  if (a->state == wire::kActorDead) {
    s.code = a->code;
    tell.cause = a->cause;
    wire::PackedView view;
    if (!wire::unpack(tell.cause.data(), tell.cause.size(), &view))
      tell.cause = wire::pack_error(RAY_ACTOR_DIED,
                                    "actor " + (a->spec.klass.empty() ? id.hex() : a->spec.klass) + " (" + id.hex() +
                                        ") died before finishing this task. The actor is dead because " + tell.cause + ".",
                                    0, "");
  }
  put(std::move(tell));
}

}  // namespace ray::node
