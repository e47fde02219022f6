// What queries and tests see of the local scheduler, and the invariants that its parts keep together.
#include <algorithm>

#include "libray/sched/local_scheduler.h"

namespace ray::sched {

std::map<std::string, double> LocalScheduler::total() const {
  std::map<std::string, double> out;
  for (uint32_t i = 0; i < table_.own(); ++i)
    if (table_.total(i) > 0) out[table_.name(i)] = static_cast<double>(table_.total(i)) / kUnit;
  return out;
}

std::map<std::string, double> LocalScheduler::available(const std::vector<uint32_t>& unused) const {
  View left = table_.now();
  for (uint32_t index : unused)
    if (const Worker* w = pools_.find(index); w && w->lease) left.give(w->held);
  std::map<std::string, double> out;
  for (uint32_t i = 0; i < table_.own(); ++i)
    if (table_.total(i) > 0)
      out[table_.name(i)] = static_cast<double>(std::clamp<Amount>(left.at(i), 0, table_.total(i))) / kUnit;
  return out;
}

LocalScheduler::Counts LocalScheduler::counts() const {
  Counts n;
  for (const auto& [index, w] : pools_.all()) {
    n.idle += w.state == WorkerState::kIdle;
    n.leased += w.state == WorkerState::kLeased;
    n.actors += w.state == WorkerState::kActor;
  }
  n.blocked = pools_.blocked();
  n.starting = pools_.starting();
  n.waiting = demands_.waiting();
  n.foreign = static_cast<uint32_t>(foreign_.size());
  return n;
}

int64_t LocalScheduler::busy_since(uint32_t worker) const {
  if (const Foreign* f = foreign_.find(worker)) return f->since;
  const Worker* w = pools_.find(worker);
  if (!w || w->state == WorkerState::kIdle) return -1;
  const Lease* lease = leases_.find(w->lease);
  return lease ? lease->granted_at : w->idle_since;
}

bool LocalScheduler::busy() const { return leases_.size() > 0 || pools_.actors() > 0 || foreign_.working() > 0; }

const char* LocalScheduler::worker_state(uint32_t worker) const {
  if (const Foreign* f = foreign_.find(worker))
    return f->state == Foreign::kLeased ? "leased" : f->state == Foreign::kActor ? "actor" : "idle";
  const Worker* w = pools_.find(worker);
  if (!w) return "";
  switch (w->state) {
    case WorkerState::kIdle: return "idle";
    case WorkerState::kLeased: return w->blocked ? "blocked" : "leased";
    case WorkerState::kActor: return "actor";
  }
  return "";
}

std::map<std::string, double> LocalScheduler::held(uint32_t worker) const {
  std::map<std::string, double> out;
  const Worker* w = pools_.find(worker);
  if (!w) return out;
  for (const auto& [entry, amount] : w->held.need.items)
    if (!table_.is_instance(entry)) out[table_.name(entry)] = static_cast<double>(amount) / kUnit;
  return out;
}

std::vector<uint32_t> LocalScheduler::instances(uint32_t worker, const std::string& name) const {
  const Worker* w = pools_.find(worker);
  return w ? table_.instances(w->held, name) : std::vector<uint32_t>();
}

std::vector<std::pair<const char*, uint64_t>> LocalScheduler::sizes() const {
  return {{"resources", table_.size()}, {"pools", pools_.pools()}, {"prestarts", pools_.prestarts()},
          {"clients", demands_.clients()}, {"shapes", demands_.shapes()}, {"leases", leases_.size()},
          {"waiting_actors", demands_.waiting_actors()}, {"reserved_groups", groups_.size()},
          {"stand_ins", foreign_.size()}, {"spillable", demands_.spillable()}};
}

std::string LocalScheduler::check() const {
  if (!broken_.empty()) return broken_;
  std::string broken = check_holders();
  if (broken.empty()) broken = pools_.check();
  if (broken.empty()) broken = leases_.check();
  if (broken.empty()) broken = foreign_.check();
  if (broken.empty()) broken = demands_.check(foreign_.all());
  return broken;
}

// What the parts say of one another: who holds is a worker, and a lease is its worker's.
std::string LocalScheduler::check_holders() const {
  std::vector<const Holding*> held;
  std::map<const Group*, std::set<uint32_t>> users;
  for (const auto& [index, w] : pools_.all()) {
    held.push_back(&w.held);
    if (w.held.need.group) users[w.held.need.group].insert(index);
    if (!w.lease) continue;
    const Lease* l = leases_.find(w.lease);
    if (!l || l->worker != index || l->held != &w.held || l->waits != w.blocked) return "a worker's lease is not its own";
  }
  for (const auto& [id, l] : leases_.all())
    if (const Worker* w = pools_.find(l.worker); !w || w->lease != id) return "a lease of a worker that is not its own";
  std::vector<const Bundle*> reserved;
  for (const auto& [id, g] : groups_.all())
    for (const Bundle& b : g.bundles)
      if (g.ready) reserved.push_back(&b);
  std::string broken = table_.check(held, reserved);
  return broken.empty() ? groups_.check(users) : broken;
}

}  // namespace ray::sched
