// See node_core.h. Shapes, wants and leases: what the scheduler is told, and what it decided.
#include "libray/lineage/record.h"
#include "libray/node/core/demands.h"
#include "libray/node/core/node_core.h"
#include "libray/wire/msgpack.h"

namespace ray::node {
namespace {

constexpr int64_t kStopGraceNs = 10'000'000'000;  // for an idle worker that is told to end
// In a cluster: why the resources of other nodes are of no use.
constexpr char kActorStays[] = "; an actor runs on the node of its program, whatever other nodes have";
constexpr char kTaskStays[] =
    "; with references, a runtime environment, a group or an affinity a task stays on the node of its program";

}  // namespace

// ---- what it is told

void NodeCore::on(const event::Want& e) {
  decide_ = true;
  cut_off(e.process, scheduler_.want(e.process, e.shape, e.want, e.example));
}

void NodeCore::on(const event::Return& e) {
  decide_ = true;
  cut_off(e.process, scheduler_.return_lease(e.process, e.worker, e.lease, now_));
}

void NodeCore::on(const event::Blocked& e) {
  decide_ = true;
  if (const Process* p = process(e.process); p && !p->driver) scheduler_.worker_blocked(e.process, e.blocked);
}

void NodeCore::on(const event::Shape& e) {
  decide_ = true;
  if (process(e.process)) cut_off(e.process, define_shape(e));
}

Status NodeCore::define_shape(const event::Shape& e) {
  Process* p = process(e.process);
  std::map<std::string, double> amounts;
  sched::Pool pool{e.language, p->job};
  Status place = read_needs(e.needs, &amounts, &pool);
  if (auto old = p->envs.find(e.shape); old != p->envs.end()) {
    drop_env(old->second);
    p->envs.erase(old);
  }
  if (pool.env) p->envs[e.shape] = pool.env;
  if (!place.ok() && place.code() != RAY_UNSCHEDULABLE) return place;
  sched::Resources resources;
  for (const auto& [name, amount] : amounts) RAY_TRY(resources.add(name, amount));
  sched::Placement placement;
  if (place.ok()) place = find_place(e.needs, &placement);
  if (place.ok()) place = stays_possible(p->job, amounts, placement);
  if (!place.ok()) placement = {};
  placement.here |= job_of(e.process).gateway;  // what came from another node is not sent on
  if (spills_) spills_->forget({e.process, e.shape, {}});
  RAY_TRY(scheduler_.define_shape(e.process, e.shape, resources, pool, placement));
  if (!place.ok()) unplaceable(e.process, e.shape, place);
  return Status();
}

// What a task or actor asks of its worker: amounts, and a pool by its accelerators and its runtime environment, which
// is counted once more.
Status NodeCore::read_needs(std::string_view bytes, std::map<std::string, double>* amounts, sched::Pool* pool) {
  std::string env;
  RAY_TRY(read_resources(bytes, amounts, &env));
  for (const char* name : wire::kAccelerators) pool->gpus |= amounts->count(name) > 0;
  if (env.empty()) return Status();
  if (env.size() > wire::kRuntimeEnvMax) return error(RAY_INVALID_ARGUMENT, "it wrote a malformed runtime environment record");
  pool->env = envs_.take(env);
  if (pool->env) return Status();
  return error(RAY_UNSCHEDULABLE,
               "cannot run: the %zu different runtime environments that are in use on this node take %zu bytes, and "
               "there is no room for more; give what differs from task to task as an argument",
               envs_.size(), envs_.bytes());
}

void NodeCore::drop_env(uint32_t env) {
  if (env && envs_.drop(env)) scheduler_.env_gone(env);
}

// ---- what it decided

void NodeCore::on(const event::Decide&) {
  decide_ = false;
  sched::Actions actions;
  scheduler_.schedule(now_, &actions);
  apply(actions);
}

void NodeCore::apply(sched::Actions& actions) {
  using sched::Action;
  for (Action& a : actions) {
    switch (a.kind) {
      case Action::kGrant: grant(a); break;
      case Action::kReclaim: put(action::Reclaim{a.client, {a.shape, a.worker, a.lease, 0}}); break;
      case Action::kInfeasible:  // said when no other node can do it either: Spills
        if (!spills_) tell_infeasible(a.client, a.shape, a.id, a.text);
        else if (!a.elsewhere) tell_infeasible(a.client, a.shape, a.id, a.text + kTaskStays);
        break;
      case Action::kActorInfeasible: {
        const std::string text = a.text + (spills_ ? kActorStays : "");
        report(lineage::kError, 0, {{"kind", "infeasible"}, {"actor", a.id.hex()}, {"message", text}});
        log(kLogWarning, "infeasible", "actor " + a.id.hex() + " " + text + "; it waits");
        break;
      }
      case Action::kAssignActor: {
        actor::Actions more;
        actors_.worker_assigned(a.id, a.worker, &more);
        apply(more);
        waits_no_more(a.id);
        break;
      }
      case Action::kStartWorkers:
        for (uint32_t i = 0; i < a.count; ++i) start_worker(a.pool);
        break;
      case Action::kGroupReady: group_ready(a.id); break;
      case Action::kGroupInfeasible:
        report(lineage::kError, 0, {{"kind", "infeasible"}, {"group", a.id.hex()}, {"message", a.text}});
        log(kLogWarning, "infeasible", "placement group " + a.id.hex() + " " + a.text + "; it waits");
        break;
      case Action::kStopWorker:
        if (Spawn* s = foreign_of(a.worker)) {
          close_foreign(s, false);
          break;
        }
        put(action::Exit{a.worker});
        expect_exit(a.worker, kStopGraceNs);
        break;
    }
  }
}

void NodeCore::grant(const sched::Action& a) {
  bool fresh = false;
  const uint32_t link = connect_link(a.client, a.worker, &fresh);
  if (link == 0) {  // one of them is on its way out, or there is no memory
    (void)scheduler_.return_lease(a.client, a.worker, a.lease, now_);
    return;
  }
  put(action::Grant{a.client, {a.shape, a.worker, a.lease, link}, fresh, accelerators_of(a.worker)});
}

// Units of accelerators that are assigned to what runs in the worker, as they travel.
std::vector<uint32_t> NodeCore::accelerators_of(uint32_t worker) const {
  std::vector<uint32_t> out;
  for (uint32_t kind = 0; kind < std::size(wire::kAccelerators); ++kind)
    for (uint32_t unit : scheduler_.instances(worker, wire::kAccelerators[kind]))
      out.push_back(kind << wire::kAcceleratorShift | unit);
  return out;
}

void NodeCore::tell_infeasible(uint32_t client, uint32_t shape, const TaskId& task, const std::string& why) {
  std::string text = "task " + task.hex() + " " + why;
  report(lineage::kError, client, {{"kind", "infeasible"}, {"task", task.hex()}, {"message", why}});
  log(kLogWarning, "infeasible", text + "; it waits");
  put(action::Infeasible{client, shape, std::move(text)});
}

void NodeCore::unplaceable(uint32_t client, uint32_t shape, const Status& why) {
  put(action::Unplaceable{client, shape, why.code(), why.message()});
}

}  // namespace ray::node
