// See node.h. Carrying out what the scheduler, the directory and the actor manager decided.
#include <cstring>

#include "gcs/ops.h"
#include "libray/base/clock.h"
#include "libray/base/fault.h"
#include "libray/base/log.h"
#include "libray/lineage/record.h"
#include "libray/node/demands.h"
#include "libray/wire/cursor.h"
#include "libray/node/node.h"
#include "libray/wire/packed.h"

namespace ray::node {
namespace {

constexpr int64_t kStopGraceNs = 10'000'000'000;       // for an idle worker that is told to end
constexpr int64_t kActorExitGraceNs = 30'000'000'000;  // for what an actor does at its end
constexpr size_t kMaxActors = 65536;  // the dead that are remembered included
constexpr size_t kMaxRecord =
    wire::kDatagramMax - 4096;  // a creation record travels in one datagram

const char* state_name(uint32_t state) {
  switch (state) {
    case wire::kActorPending: return "PENDING";
    case wire::kActorAlive: return "ALIVE";
    case wire::kActorRestarting: return "RESTARTING";
    default: return "DEAD";
  }
}

}  // namespace

// ---- scheduler
// -------------------------------------------------------------------------------------

// In a cluster: why the resources of other nodes are of no use.
static constexpr char kActorStays[] = "; an actor runs on the node of its program, whatever other nodes have";
static constexpr char kTaskStays[] =
    "; with references, a runtime environment, a group or an affinity a task stays on the node of its program";

void Node::apply(sched::Actions& actions) {
  for (sched::Action& a : actions) {
    switch (a.kind) {
      case sched::Action::kGrant: {
        uint32_t link = connect_link(a.client, a.worker);
        if (link == 0) {  // one of them is on its way out, or there is no memory
          (void)scheduler_.return_lease(a.client, a.worker, a.lease, steady_ns());
          break;
        }
        RAY_FAULT("node.grant");
        wire::DnLease grant{a.shape, a.worker, a.lease, link};
        auto gpus = accelerators_of(a.worker);
        send(process(a.client), wire::kDnLeaseGrant, &grant, sizeof grant, gpus.data(),
             gpus.size() * sizeof(uint32_t));
        break;
      }
      case sched::Action::kReclaim: {
        wire::DnLease lease{a.shape, a.worker, a.lease, 0};
        send(process(a.client), wire::kDnLeaseReclaim, &lease, sizeof lease);
        break;
      }
      case sched::Action::kInfeasible:  // said when no other node can do it either: Spills
        if (!spills_) tell_infeasible(a.client, a.shape, a.id, a.text);
        else if (!a.elsewhere) tell_infeasible(a.client, a.shape, a.id, a.text + kTaskStays);
        break;
      case sched::Action::kActorInfeasible: {
        const std::string text = a.text + (spills_ ? kActorStays : "");
        report(lineage::kError, 0, {{"kind", "infeasible"}, {"actor", a.id.hex()}, {"message", text}});
        log(kLogWarning, "node", "infeasible", "actor %s %s; it waits", a.id.hex().c_str(), text.c_str());
        break;
      }
      case sched::Action::kAssignActor: {
        actor::Actions more;
        actors_.worker_assigned(a.id, a.worker, &more);
        apply(more);
        waits_no_more(a.id);
        break;
      }
      case sched::Action::kStartWorkers:
        for (uint32_t i = 0; i < a.count; ++i) start_worker(a.pool);
        break;
      case sched::Action::kGroupReady: group_ready(a.id); break;
      case sched::Action::kGroupInfeasible:
        report(lineage::kError, 0, {{"kind", "infeasible"}, {"group", a.id.hex()}, {"message", a.text}});
        log(kLogWarning, "node", "infeasible", "placement group %s %s; it waits", a.id.hex().c_str(),
            a.text.c_str());
        break;
      case sched::Action::kStopWorker:
        if (Spawn* s = foreign_of(a.worker)) {
          close_foreign(s, false);
          break;
        }
        send(process(a.worker), wire::kDnExit, nullptr, 0);
        expect_exit(process(a.worker), kStopGraceNs);
        break;
    }
  }
}

void Node::tell_infeasible(uint32_t client, uint32_t shape, const TaskId& task, const std::string& why) {
  wire::DnLease lease{shape, 0, 0, 0};
  std::string text = "task " + task.hex() + " " + why;
  send(process(client), wire::kDnInfeasible, &lease, sizeof lease, text.data(), text.size());
  report(lineage::kError, client, {{"kind", "infeasible"}, {"task", task.hex()}, {"message", why}});
  log(kLogWarning, "node", "infeasible", "%s; it waits", text.c_str());
}

// ---- directory
// -------------------------------------------------------------------------------------

void Node::apply(object::Actions& actions) {
  for (object::Action& a : actions) {
    switch (a.kind) {
      case object::Action::kFree:
        RAY_FAULT("node.object.free");
        if (store_) store_->drop(a.id, a.location);
        break;
      case object::Action::kKeep:
        if (store_) store_->keep(a.id, a.location);
        break;
      case object::Action::kTell: {
        wire::DnObjState s{a.id, a.location, a.state, a.code};
        send(process(a.process), wire::kDnObjState, &s, sizeof s);
        break;
      }
      case object::Action::kCancel: {
        wire::ObjCancel c{a.id, a.flags, 0};
        send(process(a.process), wire::kDnObjCancel, &c, sizeof c);
        break;
      }
      case object::Action::kActorUnreferenced: {
        actor::Actions more;
        actors_.unreferenced(a.id, &more);
        apply(more);
        break;
      }
    }
  }
}

// ---- actors
// ----------------------------------------------------------------------------------------

Status Node::acceptable(const actor::Spec& spec) const {
  if (spec.record.size() > kMaxRecord)
    return error(RAY_INVALID_ARGUMENT,
                 "arguments of an actor's constructor take %zu bytes, more "
                 "than %zu: put large ones first",
                 spec.record.size(), kMaxRecord);
  return room_for_actor(spec.id);
}

Status Node::room_for_actor(const ActorId& id) const {
  if (actors_.all().size() < kMaxActors || actors_.find(id)) return Status();
  return error(RAY_UNAVAILABLE, "this node has %zu actors, which is its limit: end some, or let one serve more callers",
               actors_.all().size());
}

// There will be no such actor: its creator, who holds it already, is told as of a death.
void Node::refuse_actor(Process* p, const ActorId& id, const Status& s) {
  wire::DnActorState dead{};
  dead.id = id;
  dead.state = wire::kActorDead;
  dead.code = s.code();
  dead.size = static_cast<uint32_t>(s.message().size());
  send(p, wire::kDnActorState, &dead, sizeof dead, s.message().data(), s.message().size());
}

Status Node::up_actor_create(Process* p, const std::string& payload) {
  wire::UpActorCreate c;
  if (payload.size() < sizeof c)
    return error(RAY_INVALID_ARGUMENT, "it wrote a malformed actor record");
  std::memcpy(&c, payload.data(), sizeof c);
  uint64_t sizes = uint64_t{c.name_size} + c.ns_size + c.class_size + c.metadata_size +
                   c.resources_size + c.record_size + uint64_t{c.n_dependencies} * kIdSize;
  if (sizes > payload.size() - sizeof c)
    return error(RAY_INVALID_ARGUMENT, "it wrote a malformed actor record");
  size_t at = sizeof c;
  auto next = [&payload, &at](uint64_t n) {
    std::string s = payload.substr(at, n);
    at += n;
    return s;
  };
  actor::Spec spec;
  spec.id = c.id;
  spec.creator = p->index;
  spec.job = p->job;
  spec.req_id = c.req_id;
  spec.language = c.language;
  spec.max_restarts = c.max_restarts;
  spec.max_task_retries = c.max_task_retries;
  spec.lifetime = c.lifetime;
  spec.max_concurrency = c.max_concurrency ? c.max_concurrency : 1;
  spec.flags = c.flags;
  spec.max_pending_calls = c.max_pending_calls;
  spec.function = c.function;
  spec.name = next(c.name_size);
  spec.ns = next(c.ns_size);
  spec.klass = next(c.class_size);
  spec.metadata = next(c.metadata_size);
  spec.resources = next(c.resources_size);
  spec.record = next(c.record_size);
  spec.dependencies.resize(c.n_dependencies);
  for (ObjectId& d : spec.dependencies) std::memcpy(d.b, next(kIdSize).data(), kIdSize);
  if (spec.ns.empty()) spec.ns = job_of(*p).ns;
  Status s = acceptable(spec);
  std::map<std::string, double> amounts;
  sched::Pool pool{c.language, p->job};
  if (s.ok()) s = read_needs(spec.resources, &amounts, &pool);
  drop_env(pool.env);  // it is looked up again when a worker is wanted
  sched::Resources resources;
  for (const auto& [name, amount] : amounts)
    if (s.ok()) s = resources.add(name, amount);
  if (!s.ok()) {
    if (spec.req_id) reply(p->index, spec.req_id, s.code(), s.message());
    refuse_actor(p, spec.id, s);
    actor::Actions refused;  // whoever was told of it before hears that it will not be
    actors_.constructed(p->index, spec.id, 0, s.code(), s.message(), &refused);
    apply(refused);
    return Status();
  }
  // The creator's handle is a reference to the actor's pseudo-object.
  object::Actions objects;
  if (!actors_.find(spec.id))
    directory_.share(p->index, spec.id, wire::kObjPending, 0, {}, nullptr, 0, &objects);
  apply(objects);
  actor::Actions actions;
  actors_.create(std::move(spec), &actions);
  apply(actions);
  return Status();
}

Status Node::up_actor(Process* p, uint16_t type, const std::string& payload) {
  wire::UpActor u;
  if (payload.size() < sizeof u)
    return error(RAY_INVALID_ARGUMENT, "it wrote a malformed actor record");
  std::memcpy(&u, payload.data(), sizeof u);
  std::string bytes = payload.substr(sizeof u);
  if (u.size > bytes.size())
    return error(RAY_INVALID_ARGUMENT, "it wrote a malformed actor record");
  bytes.resize(u.size);
  actor::Actions actions;
  switch (type) {
    case wire::kUpActorConnect:
      if (u.flags & 1) {
        if (Status s = room_for_actor(u.id); !s.ok()) {
          refuse_actor(p, u.id, s);
          return Status();
        }
        wire::ActorFacts facts{};
        if (bytes.size() < sizeof facts) return error(RAY_INVALID_ARGUMENT, "it wrote a malformed actor record");
        std::memcpy(&facts, bytes.data(), sizeof facts);
        actors_.announce(u.id, p->index, p->job, facts);
      }
      if (!actors_.find(u.id)) {
        // Its creator wrote first, but perhaps to a ring that this pass had gone by already: all
        // rings are read once more before anyone is told that there is no such actor.
        deferred_.push_back([this, id = u.id, index = p->index] { connect_late(id, index); });
        return Status();
      }
      actors_.connect(u.id, p->index, &actions);
      break;
    case wire::kUpActorKill:
      if (!actors_.find(u.id)) {  // as above
        ++late_kills_;
        deferred_.push_back([this, id = u.id, may_restart = (u.flags & 1) != 0] { kill_late(id, may_restart); });
        return Status();
      }
      actors_.kill(u.id, (u.flags & 1) != 0, &actions);
      break;
    case wire::kUpActorReady:
      actors_.constructed(p->index, u.id, u.incarnation, u.code, bytes, &actions);
      break;
    case wire::kUpActorExit:
      actors_.exiting(p->index, u.id, bytes, &actions);
      if ((u.flags & 1) && actors_.of_worker(p->index)) expect_exit(p, kActorExitGraceNs);
      break;
  }
  apply(actions);
  return Status();
}

void Node::connect_late(const ActorId& id, uint32_t index) {
  read_all_rings();
  actor::Actions actions;
  if (may_hold(index)) actors_.connect(id, index, &actions);
  apply(actions);
}

void Node::kill_late(const ActorId& id, bool may_restart) {
  read_all_rings();
  actor::Actions actions;
  actors_.kill(id, may_restart, &actions);
  apply(actions);
  --late_kills_;
}

// What a process is told about an actor: its state, and a link to its worker when there is one.
void Node::tell_actor(const ActorId& id, uint32_t index) {
  Process* p = process(index);
  if (!p) return;
  const actor::Actor* a = actors_.find(id);
  wire::DnActorState s{};
  s.id = id;
  std::string cause;
  if (!a) {
    s.state = wire::kActorDead;
    s.code = RAY_ACTOR_DIED;
    cause =
        wire::pack_error(RAY_ACTOR_DIED, "actor " + id.hex() + " is not known on this node", 0, "");
  } else {
    s.state = a->state;
    s.incarnation = a->incarnation;
    s.max_task_retries = a->spec.max_task_retries;
    s.max_concurrency = a->spec.max_concurrency;
    s.flags = a->spec.flags;
    s.max_pending_calls = a->spec.max_pending_calls;
    if (a->state == wire::kActorAlive) {
      s.worker = a->worker;
      s.link = connect_link(index, a->worker);
      if (s.link == 0) return;  // one of them is dying: the next state follows
    }
    if (a->state == wire::kActorDead) {
      s.code = a->code;
      cause = a->cause;
      wire::PackedView view;
      if (!wire::unpack(cause.data(), cause.size(), &view))
        cause = wire::pack_error(RAY_ACTOR_DIED,
                                 "actor " + (a->spec.klass.empty() ? id.hex() : a->spec.klass) +
                                     " (" + id.hex() + ") died before finishing this task. The actor is dead because " +
                                     cause + ".", 0, "");
    }
  }
  size_t at = 0;
  for (; cause.size() - at > wire::kErrorPart; at += wire::kErrorPart)
    send(p, wire::kDnActorText, id.b, kIdSize, cause.data() + at, wire::kErrorPart);
  s.size = static_cast<uint32_t>(cause.size() - at);
  send(p, wire::kDnActorState, &s, sizeof s, cause.data() + at, s.size);
}

void Node::want_worker(const actor::Actor& a) {
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
    scheduling_needed_ = true;
    return;
  }
  waits_no_more(a.spec.id);
  actor::Actions more;
  actors_.fail(ActorId(a.spec.id), place.code(), place.message(), &more);
  apply(more);
}

// Its worker, if it has one, keeps the environment from now on.
void Node::waits_no_more(const ActorId& id) {
  auto env = actor_envs_.find(id);
  if (env == actor_envs_.end()) return;
  drop_env(env->second);
  actor_envs_.erase(env);
}

void Node::apply(actor::Actions& actions) {
  for (actor::Action& x : actions) {
    const actor::Actor* a = actors_.find(x.id);
    switch (x.kind) {
      case actor::Action::kReply: {
        if (x.other && a && may_hold(x.process)) directory_.hold(x.id, x.process, 1);  // get_if_exists
        wire::Packer w;
        w.array(1).id(x.id);
        reply(x.process, x.req_id, x.code, x.code == RAY_OK ? w.bytes() : x.text);
        break;
      }
      case actor::Action::kClaimName: claim_late(x.id); break;
      case actor::Action::kReleaseName:
        if (a) release_name(x.id, a->spec.ns, a->spec.name);
        break;
      case actor::Action::kWantWorker:
        if (a) want_worker(*a);
        break;
      case actor::Action::kCancelWorker:
        scheduler_.cancel_actor(x.id);
        waits_no_more(x.id);
        scheduling_needed_ = true;
        break;
      case actor::Action::kInit: {
        if (!a) break;
        RAY_FAULT("node.actor.init");
        auto gpus = accelerators_of(x.process);
        wire::DnActorInit init{x.id, x.incarnation, a->spec.max_concurrency,
                               static_cast<uint32_t>(a->spec.record.size()),
                               static_cast<uint32_t>(gpus.size())};
        std::string tail = a->spec.record;
        tail.append(reinterpret_cast<const char*>(gpus.data()), gpus.size() * sizeof(uint32_t));
        send(process(x.process), wire::kDnActorInit, &init, sizeof init, tail.data(), tail.size());
        break;
      }
      case actor::Action::kTell: tell_actor(x.id, x.process); break;
      case actor::Action::kKill: kill_worker(x.process, wire::kDeathForced); break;
      case actor::Action::kWanted: {
        wire::DnActorState s{};
        s.id = x.id;
        send(process(x.process), wire::kDnActorWanted, &s, sizeof s);
        break;
      }
      case actor::Action::kHold:
        if (!a) break;
        function_users_.hold(a->spec.function);
        actor_functions_[x.id] = a->spec.function;
        if (a->spec.dependencies.empty()) break;
        for (const ObjectId& d : a->spec.dependencies) directory_.hold(d, object::kDaemonHolder, 1);
        actor_dependencies_[x.id] = a->spec.dependencies;
        break;
      case actor::Action::kDrop: {
        if (auto f = actor_functions_.find(x.id); f != actor_functions_.end()) {
          if (function_users_.release(f->second)) forget_function(f->second);
          actor_functions_.erase(f);
        }
        auto it = actor_dependencies_.find(x.id);
        if (it == actor_dependencies_.end()) break;
        for (const ObjectId& d : it->second) directory_.release(d, object::kDaemonHolder, 1);
        actor_dependencies_.erase(it);
        break;
      }
      case actor::Action::kChanged:
        journal_actor(x.id);
        if (a && a->state == wire::kActorDead) actor_ended(a->spec.job, a->spec.lifetime == RAY_LIFETIME_DETACHED);
        break;
    }
  }
}

// ---- what the control store is told
// ----------------------------------------------------------------

// Whoever has the name may have said goodbye, and the creator may have been told so by the actor itself, while this
// pass had gone by its ring already: all rings are read once more before the name counts as taken.
void Node::claim_late(const ActorId& id) {
  deferred_.push_back([this, id] {
    read_all_rings();
    claim_name(id);
  });
}

void Node::claim_name(const ActorId& id) {
  const actor::Actor* a = actors_.find(id);
  if (!a || !gcs_) return;
  auto releasing = releasing_names_.find({a->spec.ns, a->spec.name});
  if (releasing != releasing_names_.end()) {  // its last owner's farewell is still on the way
    releasing->second.push_back(id);
    return;
  }
  gcs::claim_name(gcs_.get(), a->spec.ns, a->spec.name, id,
                  [this, box = mailbox_, id](Status s, std::string answer) {
                    box->post([this, id, s, answer] { name_claimed(id, s, answer); });
                  });
}

void Node::name_claimed(const ActorId& id, const Status& s, const std::string& answer) {
  ActorId winner = id;
  int32_t code = s.code();
  if (code == RAY_ALREADY_EXISTS) {
    wire::Cursor r(answer);
    if (r.array() == 1 && r.id(&winner)) code = RAY_OK;
  }
  actor::Actions actions;
  actors_.name_claimed(id, code, winner, s.message(), &actions);
  apply(actions);
}

void Node::release_name(const ActorId& id, const std::string& ns, const std::string& name) {
  if (!gcs_) return;  // the node is closing, and names end with it
  releasing_names_[{ns, name}];
  gcs::release_name(gcs_.get(), ns, name, id, [this, box = mailbox_, ns, name](Status s, std::string) {
    if (!s.ok()) log(kLogWarning, "node", "name-release", "%s", s.message().c_str());
    box->post([this, ns, name] {
      std::vector<ActorId> waiting = std::move(releasing_names_[{ns, name}]);
      releasing_names_.erase({ns, name});
      for (const ActorId& next : waiting) claim_name(next);
    });
  });
}

void Node::journal_actor(const ActorId& id) {
  const actor::Actor* a = actors_.find(id);
  if (!a || !gcs_) return;
  Process* w = process(a->worker);
  report(lineage::kEvent, w ? w->index : 0,
         {{"kind", "actor"}, {"actor", id.hex()}, {"state", state_name(a->state)}});
  if (a->state == wire::kActorPending) {
    gcs::ActorSpec spec;
    spec.actor = id;
    spec.ns = a->spec.ns;
    spec.name = a->spec.name;
    spec.class_name = a->spec.klass;
    spec.metadata = a->spec.metadata;
    spec.function = a->spec.function;
    if (auto job = jobs_.find(a->spec.job); job != jobs_.end()) spec.job = job->second.id;
    spec.node = id_;
    spec.language = a->spec.language;
    spec.max_restarts = a->spec.max_restarts;
    spec.lifetime = a->spec.lifetime;
    return write_actor_row(
        id, [this, spec](gcs::Client::Answered done) { gcs::register_actor(gcs_.get(), spec, done); }, false);
  }
  gcs::ActorChange change;
  change.actor = id;
  change.incarnation = a->incarnation;
  change.state = state_name(a->state);
  change.node = id_;
  change.pid = w ? static_cast<uint32_t>(w->pid) : 0;
  change.worker = w ? w->index : 0;
  change.code = a->code;
  ray_code code;
  uint32_t format;
  std::string message, rest;
  change.cause =
      wire::unpack_error(a->cause.data(), a->cause.size(), &code, &message, &format, &rest)
          ? message
          : a->cause;
  write_actor_row(
      id, [this, change](gcs::Client::Answered done) { gcs::update_actor(gcs_.get(), change, done); }, true);
}

// One at a time for each actor: what is sent again after a shard's restart keeps no order, and the row
// of an actor that is dead would say for ever that it is pending.
void Node::write_actor_row(const ActorId& id, WriteRow write, bool change) {
  std::deque<ActorRow>& rows = actor_rows_[id];
  if (rows.size() > 1 && change && rows.back().change) rows.pop_back();
  rows.push_back({std::move(write), change});
  if (rows.size() == 1) write_next_row(id);
}

void Node::write_next_row(const ActorId& id) {
  if (!gcs_) return;  // the node has closed
  actor_rows_.at(id).front().write([this, box = mailbox_, id](Status s, std::string) {
    if (!s.ok()) log(kLogWarning, "node", "actor-row", "%s", s.message().c_str());
    box->post([this, id] {
      std::deque<ActorRow>& rows = actor_rows_.at(id);
      rows.pop_front();
      if (!rows.empty()) return write_next_row(id);
      actor_rows_.erase(id);
    });
  });
}

}  // namespace ray::node
