// The daemon of the simulated node; see world.h: what libray/node does with the events and actions of its scheduler.
#include <algorithm>
#include <utility>

#include "libray/sim/node.h"

namespace ray::sim {
namespace {

constexpr size_t kBeyond = 64;            // processes beyond the limit, while all that have one wait
constexpr uint32_t kMostRestless = 3000;  // decisions that nothing but the scheduler itself asked for, within a second

}  // namespace

// ---- decisions

void World::need_decision() {
  restless_ = 0;
  if (std::exchange(decision_due_, true)) return;
  clock_.after(random_.between(0, 100) * kUs, [this] {
    decision_due_ = false;
    decide();
  });
}

void World::decide() {
  if (over()) return;
  sched::Actions actions;
  s_.schedule(clock_.now(), &actions);
  ++outcome_.decisions;
  if (std::string own = s_.check(); !own.empty()) return complain("own: " + own);
  for (const sched::Action& a : actions) apply(a);
  int64_t at = s_.next_deadline(clock_.now());
  if (planted(Fault::kRestless) || (fault_made_ && options_.fault == Fault::kRestless)) at = clock_.now();
  if (clock_.now() - restless_since_ > kSecond) restless_since_ = clock_.now(), restless_ = 0;
  if (++restless_ > kMostRestless) complain("rest: the scheduler asks for ever to be asked again");
  if (!at) return;
  uint64_t timer = ++timer_;
  clock_.at(std::max(at, clock_.now() + 20 * kUs), [this, timer] {
    if (timer == timer_ && !decision_due_) decide();
  });
}

void World::apply(const sched::Action& a) {
  using sched::Action;
  switch (a.kind) {
    case Action::kGrant: return grant(a);
    case Action::kAssignActor: return assign(a);
    case Action::kInfeasible:
    case Action::kActorInfeasible:
    case Action::kGroupInfeasible: return infeasible(a);
    case Action::kReclaim:
      history_.note(clock_.now(), "lease %u of process %u is reclaimed", a.lease, a.client);
      return down(by_index(a.client), [this, lease = a.lease](Process* p) { reclaimed(p, lease); });
    case Action::kStartWorkers:
      history_.note(clock_.now(), "%u workers of environment %u are started", a.count, a.pool.env);
      for (uint32_t i = 0; i < a.count; ++i) start_worker(a.pool);
      return;
    case Action::kGroupReady: {
      Group& g = groups_.at(a.id);
      history_.note(clock_.now(), "group %u is ready", a.id.submit_index());
      g.ready = true;
      return ledger_.reserved(g.id, g.bundles);
    }
    case Action::kStopWorker:
      history_.note(clock_.now(), "worker %u is told to end", a.worker);
      return down(by_index(a.worker), [this](Process* w) { w->client ? void(w->ending = true) : die(w); });
  }
}

std::vector<uint32_t> World::units(uint32_t index) { return s_.instances(index, kToldApart); }

void World::grant(const sched::Action& a) {
  ++outcome_.grants;
  Process* c = by_index(a.client);
  Process* w = by_index(a.worker);
  if (!c || !w) return complain("own: a lease for or of somebody who is not there");
  Shape& s = c->shapes.at(a.shape);
  ++s.grants;
  history_.note(clock_.now(), "worker %u for shape %u of process %u, lease %u", a.worker, a.shape, a.client, a.lease);
  if (w->killed) return complain("own: a lease of a worker that was killed");
  ledger_.granted(w->number, {s.need, s.where, units(a.worker), clock_.now(), false, false});
  if (!w->alive) ledger_.ended(w->number);
  if (random_.one_in(200)) {  // no link can be made
    ledger_.ended(w->number);
    (void)s_.return_lease(a.client, a.worker, a.lease, clock_.now());
    return need_decision();
  }
  w->clients.insert(c->number);
  leases_[a.lease] = {c->number, w->number, a.shape};
  down(c, [this, shape = a.shape, lease = a.lease, worker = w->number](Process* p) {
    granted(p, shape, lease, worker);
  });
}

void World::assign(const sched::Action& a) {
  Process* w = by_index(a.worker);
  Actor& actor = actors_.at(a.id);
  if (!w || !actor.waits) return complain("own: an actor that does not wait, or a worker that is not there");
  history_.note(clock_.now(), "worker %u for actor %u", a.worker, a.id.submit_index());
  actor.waits = false;
  actor.worker = w->number;
  w->actor = a.id;
  ledger_.granted(w->number, {actor.need, actor.where, units(a.worker), clock_.now(), false, true});
  if (!w->alive) ledger_.ended(w->number);
}

// What is said to be impossible is; whether all that is impossible is said, drain() sees.
void World::infeasible(const sched::Action& a) {
  history_.note(clock_.now(), "%s", a.text.c_str());
  auto wrong = [&](const Resources& need, const Where& where) {
    if (where.group.is_nil() && ledger_.possible(need)) complain("own: reported as impossible, and is not: " + a.text);
  };
  if (a.kind == sched::Action::kActorInfeasible) {
    actors_.at(a.id).hopeless = true;
    return wrong(actors_.at(a.id).need, actors_.at(a.id).where);
  }
  if (a.kind == sched::Action::kGroupInfeasible) {
    groups_.at(a.id).hopeless = true;
    return;
  }
  Process* p = by_index(a.client);
  if (!p) return complain("own: a report to somebody who is not there");
  wrong(p->shapes.at(a.shape).need, p->shapes.at(a.shape).where);
  p->shapes.at(a.shape).hopeless = true;
}

// ---- workers

void World::start_worker(const Pool& pool) {
  ++starting_[pool.job];
  size_t processes = 0;  // those of jobs that are over end as fast as they can
  for (const auto& [index, number] : indexes_) processes += !processes_.at(number).driver;
  for (const auto& [job, n] : starting_) processes += jobs_.count(job) ? n : 0;
  if (processes > limits_.max_workers + (ledger_.all_wait(clock_.now()) ? kBeyond : 0))
    complain("resources: more processes than there may be");
  bool fails = failing_envs_.count(pool.env) || random_.one_in(40);
  int64_t takes = random_.one_in(30) ? random_.between(1000, 7000) * kMs : random_.between(1, 200) * kMs;
  clock_.after(takes, [this, pool, fails] {
    if (--starting_[pool.job] == 0) starting_.erase(pool.job);
    need_decision();
    if (!fails && jobs_.count(pool.job)) return worker_ready(pool);
    trouble_[pool] = clock_.now();
    history_.note(clock_.now(), "a worker of environment %u fails", pool.env);
    s_.worker_start_failed(pool, clock_.now());
    forget_job(pool.job);
  });
}

uint32_t World::take_index() {  // the lowest that is free, as the daemon does
  uint32_t index = 1;
  for (const auto& [used, number] : indexes_) {
    if (used != index) break;
    ++index;
  }
  return index;
}

void World::worker_ready(const Pool& pool) {
  Process& w = processes_[next_process_];
  w.number = next_process_++;
  w.index = take_index();
  w.job = pool.job;
  w.pool = pool;
  indexes_[w.index] = w.number;
  history_.note(clock_.now(), "worker %u is there", w.index);
  s_.worker_ready(w.index, pool, clock_.now());
}

void World::kill(uint64_t number) {
  Process* w = process(number);
  if (!w || w->buried || std::exchange(w->killed, true)) return;
  s_.worker_killed(w->index);
  int64_t takes = random_.one_in(30) ? kSecond : random_.between(50, 5000) * kUs;
  clock_.after(takes, [this, number] {
    if (Process* p = process(number); p && p->alive) die(p);
  });
}

// From now on it does nothing any more; what it said is still heard.
void World::die(Process* p) {
  if (!p->alive) return;
  ++outcome_.deaths;
  p->alive = false;
  history_.note(clock_.now(), "process %u dies", p->index);
  ledger_.ended(p->number);
  if (!p->driver && planted(Fault::kLostDeath)) return;
  int64_t seen = std::max(p->up_at, clock_.now() + random_.between(20, 3000) * kUs);
  clock_.at(seen, [this, number = p->number] { bury(number); });
}

void World::bury(uint64_t number) {
  Process* p = process(number);
  p->buried = true;
  history_.note(clock_.now(), "process %u is buried", p->index);
  for (uint32_t worker : s_.client_gone(p->index, clock_.now()))
    if (Process* w = by_index(worker)) kill(w->number);
  s_.worker_gone(p->index, clock_.now());
  for (uint64_t client : p->clients) down(process(client), [this, number](Process* c) { peer_died(c, number); });
  std::erase_if(leases_, [&](const auto& l) { return l.second.client == number || l.second.worker == number; });
  orphan(p);
  indexes_.erase(p->index);
  if (!p->actor.is_nil()) actor_down(p->actor);
  if (p->driver) end_job(p->job);
  forget_job(p->job);
  need_decision();
}

void World::end_job(uint32_t job) {
  jobs_.erase(job);
  s_.job_ended(job);
  for (auto& [id, a] : actors_) {
    if (a.job != job) continue;
    a.restarts = 0;
    if (std::exchange(a.waits, false)) s_.cancel_actor(id);
  }
  for (auto& [id, g] : groups_)
    if (g.job == job && !g.removed) remove_group(id);
  for (auto& [number, p] : processes_)
    if (p.job == job && !p.buried) kill(number);
}

// The last of its processes is gone; until then they may have asked for more.
void World::forget_job(uint32_t job) {
  if (jobs_.count(job) || starting_.count(job)) return;
  for (const auto& [index, number] : indexes_)
    if (processes_.at(number).job == job) return;
  s_.job_ended(job);
}

// As Node::watch_clients: who is stopped gives nothing back, and its workers end after what they run.
void World::watch_clients() {
  for (const auto& o : s_.overdue(clock_.now() - 2 * kSecond)) {
    Process* p = by_index(o.client);
    if (!p || !p->stopped) continue;
    if (!std::exchange(p->paused, true)) s_.pause_client(p->index, true);
    down(by_index(o.worker), [this](Process* w) { w->client ? void(w->ending = true) : die(w); });
    need_decision();
  }
  for (auto& [index, number] : indexes_)
    if (Process& p = processes_.at(number); p.paused && !p.stopped) {
      p.paused = false;
      s_.pause_client(index, false);
      need_decision();
    }
  if (!leaving_) clock_.after(kSecond, [this] { watch_clients(); });
}

// ---- actors and groups

void World::want_actor(Actor* a) {
  a->waits = true;
  history_.note(clock_.now(), "actor %u wants {%s}", a->id.submit_index(), a->need.to_string().c_str());
  s_.want_actor(a->id, a->need, a->pool, {a->where.group, a->where.bundle, ""});
  need_decision();
}

void World::actor_down(const Id& id) {
  Actor& a = actors_.at(id);
  a.worker = 0;
  auto g = groups_.find(a.where.group);
  bool placeable = a.where.group.is_nil() || (g != groups_.end() && !g->second.removed);
  if (jobs_.count(a.job) && placeable && a.restarts-- > 0) want_actor(&a);
}

void World::create_group(Group g) {
  history_.note(clock_.now(), "group %u is asked for", g.id.submit_index());
  Group& made = groups_[g.id] = std::move(g);
  Status s = s_.create_group(made.id, made.bundles, false);
  if (!s.ok()) complain("own: a group is refused");
  need_decision();
}

void World::remove_group(const Id& id) {
  groups_.at(id).removed = true;
  history_.note(clock_.now(), "group %u is removed", id.submit_index());
  sched::LocalScheduler::Removed left = s_.remove_group(id);
  for (auto [client, shape] : left.shapes)
    down(by_index(client), [this, shape = shape](Process* p) { unplaceable(p, shape); });
  for (const Id& actor : left.actors) actors_.at(actor).waits = false;
  for (uint32_t worker : left.workers)
    if (Process* w = by_index(worker)) kill(w->number);
  ledger_.removed(id);
  need_decision();
}

}  // namespace ray::sim
