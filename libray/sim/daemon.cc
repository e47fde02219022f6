// The daemon of the simulated node; see world.h. The rules are the real ones, libray/node/core: this file tells them what
// happens, as libray/node does, and carries out what they say in a world where everything takes its time. What a process
// writes lies in its ring until it is read; a pass over all rings, and a reading of all of them to their tails, are made when
// the core wants them. control.cc is the control store, actors.cc what processes do with actors.
#include <signal.h>

#include <algorithm>
#include <utility>

#include "libray/sim/node.h"

namespace ray::sim {
namespace {

constexpr size_t kBeyond = 64;            // processes beyond the limit, while all that have one wait
constexpr uint32_t kMostRestless = 3000;  // decisions that nothing but the scheduler itself asked for, within a second
constexpr int kExitedWith1 = 1 << 8;      // as of waitpid

}  // namespace

// ---- steps

void World::carry_out_all(node::Actions* actions) {
  for (node::Action& a : *actions)
    if (!over()) std::visit([this](auto& x) { carry_out(x); }, a);
  if (core_.has_late_work() && !std::exchange(turn_due_, true))
    clock_.after(random_.between(0, 2000) * kUs, [this] { turn(); });
  if (core_.wants_pass() && !std::exchange(passing_, true)) clock_.after(random_.between(0, 500) * kUs, [this] { pass(); });
}

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
  tell(node::event::Timer{});
  tell(node::event::Decide{});
  ++outcome_.decisions;
  if (std::string own = core_.check(); !own.empty()) return complain("own: " + own);
  int64_t at = core_.next_deadline(clock_.now());
  if (planted(Fault::kRestless) || (fault_made_ && options_.fault == Fault::kRestless)) at = clock_.now();
  if (clock_.now() - restless_since_ > kSecond) restless_since_ = clock_.now(), restless_ = 0;
  if (++restless_ > kMostRestless) complain("rest: the scheduler asks for ever to be asked again");
  if (!at) return;
  uint64_t timer = ++timer_;
  clock_.at(std::max(at, clock_.now() + 20 * kUs), [this, timer] {
    if (timer == timer_ && !decision_due_) decide();
  });
}

// ---- rings

void World::read_ring(uint64_t number, uint64_t upto) {
  Process* p = process(number);
  while (!over() && !p->buried && !p->unread.empty() && p->unread.front().number <= upto) {
    auto read = std::move(p->unread.front().read);
    p->unread.pop_front();
    read(p);
    need_decision();
  }
}

std::vector<std::pair<uint64_t, uint64_t>> World::tails() const {
  std::vector<std::pair<uint64_t, uint64_t>> all;
  for (const auto& [index, number] : indexes_) all.push_back({number, processes_.at(number).written});
  return all;
}

void World::turn() {
  turn_due_ = false;
  tell(node::event::RingsTurn{});
  if (!always(Fault::kHasty))
    for (auto [number, tail] : tails()) read_ring(number, tail);
  tell(node::event::RingsRead{});
  need_decision();
}

// Begins, and is over when all that was in any ring then has been read.
void World::pass() {
  tell(node::event::PassBegins{});
  clock_.after(random_.between(1, 8000) * kUs, [this, tails = tails()] {
    for (auto [number, tail] : tails) read_ring(number, tail);
    passing_ = false;
    tell(node::event::PassEnds{});
  });
}

// ---- what the core says to processes

std::vector<uint32_t> World::units(uint32_t index) { return s_.instances(index, kToldApart); }

void World::carry_out(const node::action::Welcome& a) {
  Process* p = by_index(a.process);
  p->job = a.job;
  if (p->driver) jobs_.insert(a.job);
}

void World::carry_out(const node::action::Grant& a) {
  ++outcome_.grants;
  const wire::DnLease& l = a.lease;
  Process *c = by_index(a.client), *w = by_index(l.worker);
  if (!c || !w) return complain("own: a lease for or of somebody who is not there");
  Shape& s = c->shapes.at(l.shape);
  ++s.grants;
  history_.note(clock_.now(), "worker %u for shape %u of process %u, lease %u", l.worker, l.shape, a.client, l.lease);
  if (w->killed) return complain("own: a lease of a worker that was killed");
  ledger_.granted(w->number, {s.need, s.where, units(l.worker), clock_.now(), false, false});
  if (!w->alive) ledger_.ended(w->number);
  if (a.new_link && random_.one_in(100)) {  // none can be made
    ledger_.ended(w->number);
    tell(node::event::LinkFailed{a.client, l.worker, l.lease, "no memory"});
    return need_decision();
  }
  w->clients.insert(c->number);
  leases_[l.lease] = {c->number, w->number, l.shape};
  down(c, [this, shape = l.shape, lease = l.lease, worker = w->number](Process* p) { granted(p, shape, lease, worker); });
}

void World::carry_out(const node::action::Reclaim& a) {
  history_.note(clock_.now(), "lease %u of process %u is reclaimed", a.lease.lease, a.client);
  down(by_index(a.client), [this, lease = a.lease.lease](Process* p) { reclaimed(p, lease); });
}

// What is said to be impossible is; whether all that is impossible is said, drain() sees.
void World::carry_out(const node::action::Infeasible& a) {
  history_.note(clock_.now(), "%s", a.text.c_str());
  Process* p = by_index(a.client);
  if (!p) return complain("own: a report to somebody who is not there");
  Shape& s = p->shapes.at(a.shape);
  if (s.where.group.is_nil() && ledger_.possible(s.need)) complain("own: reported as impossible, and is not: " + a.text);
  s.hopeless = true;
}

void World::carry_out(const node::action::Unplaceable& a) {
  down(by_index(a.client), [this, shape = a.shape](Process* p) { unplaceable(p, shape); });
}

void World::carry_out(const node::action::Exit& a) {
  history_.note(clock_.now(), "worker %u is told to end", a.process);
  down(by_index(a.process), [this](Process* w) { w->client ? void(w->ending = true) : die(w); });
}

void World::carry_out(const node::action::PeerDied& a) {
  Process *c = by_index(a.process), *dead = by_index(a.died.process);
  if (!c || !dead || !dead->clients.count(c->number)) return;
  down(c, [this, number = dead->number](Process* p) { peer_died(p, number); });
}

void World::carry_out(const node::action::CutOff& a) {
  Process* p = by_index(a.process);
  history_.note(clock_.now(), "process %u is cut off: %s", a.process, a.why.c_str());
  tell(node::event::CutOff{a.process, a.why});
  if (p && p->driver) die(p);
}

// What is told to people says what became of groups and actors.
void World::carry_out(const node::action::Report& a) {
  auto field = [&a](const char* name) {
    auto f = a.fields.find(name);
    return f == a.fields.end() ? std::string() : f->second;
  };
  if (field("kind") == "actor") return actor_became(field("actor"), field("state"));
  if (field("kind") != "group") return;
  for (auto& [id, g] : groups_) {
    if (id.hex() != field("group")) continue;
    history_.note(clock_.now(), "group %u is %s", number_of(id), field("state").c_str());
    if (field("state") == "CREATED") g.ready = true, ledger_.reserved(id, g.bundles);
    if (field("state") == "REMOVED") g.removed = true, ledger_.removed(id);
  }
}

// ---- workers

void World::carry_out(const node::action::StartWorker& a) {
  Starting& s = starting_[a.spawn];
  s.pool = {a.pool.language, a.pool.job, env_of(a.pool), a.pool.gpus};
  history_.note(clock_.now(), "a worker of environment %u is started", s.pool.env);
  size_t processes = 0;  // those that are killed before their hello, or start for a job that is over, end as fast as they can
  for (const auto& [index, number] : indexes_) processes += !processes_.at(number).driver;
  for (const auto& [spawn, other] : starting_) processes += !other.killed && !core_.job_over(other.pool.job);
  if (processes > limits_.max_workers + (ledger_.all_wait(clock_.now()) ? kBeyond : 0))
    complain("resources: more processes than there may be");
  const bool fails = failing_envs_.count(s.pool.env) || random_.one_in(40);
  if (fails && random_.one_in(5)) {
    trouble_[s.pool] = clock_.now();
    starting_.erase(a.spawn);
    return tell(node::event::SpawnFailed{a.spawn, "no process"});
  }
  int64_t takes = random_.one_in(30) ? random_.between(1000, 7000) * kMs : random_.between(1, 200) * kMs;
  clock_.after(takes, [this, spawn = a.spawn, fails] { started(spawn, fails); });
}

uint32_t World::env_of(const Pool& pool) const {
  std::string_view packed = core_.environments().packed(pool.env);
  return packed.empty() ? 0 : static_cast<uint32_t>(packed.back() - '0');
}

void World::started(uint64_t spawn, bool fails) {
  auto s = starting_.extract(spawn);
  const Pool pool = s.mapped().pool;
  need_decision();
  const node::event::WorkerCame came{take_index(), 1, spawn};
  if (!fails && !s.mapped().killed && core_.may_join(came, false).ok()) return worker_ready(came, pool);
  if (fails) trouble_[pool] = clock_.now();
  history_.note(clock_.now(), "a worker of environment %u fails", pool.env);
  tell(node::event::SpawnEnded{spawn, 1, true, s.mapped().killed ? SIGKILL : kExitedWith1, false, "", ""});
}

uint32_t World::take_index() {  // the lowest that is free
  uint32_t index = 1;
  for (const auto& [used, number] : indexes_) {
    if (used != index) break;
    ++index;
  }
  return index;
}

void World::worker_ready(const node::event::WorkerCame& came, const Pool& pool) {
  Process& w = processes_[next_process_];
  w.number = next_process_++;
  w.index = came.process;
  w.spawn = came.spawn;
  w.pool = pool;
  indexes_[w.index] = w.number;
  history_.note(clock_.now(), "worker %u is there", w.index);
  tell(came);
}

// By the daemon, for whatever reason.
void World::kill(uint64_t number) {
  Process* w = process(number);
  if (!w || w->buried || w->killed) return;
  tell(node::event::KillWorker{w->index});
  need_decision();
}

void World::carry_out(const node::action::KillSpawn& a) {
  if (auto s = starting_.find(a.spawn); s != starting_.end()) s->second.killed = true;
  for (auto& [index, number] : indexes_) {
    Process& w = processes_.at(number);
    if (w.driver || w.spawn != a.spawn || w.killed) continue;
    if (core_.job_over(w.job) && planted(Fault::kSpared)) continue;
    w.killed = true;
    int64_t takes = random_.one_in(30) ? kSecond : random_.between(50, 5000) * kUs;
    clock_.after(takes, [this, number = number] {
      if (Process* p = process(number); p && p->alive) die(p);
    });
  }
}

void World::carry_out(const node::action::GiveUp& a) {
  for (auto& [index, number] : indexes_)
    if (Process& w = processes_.at(number); !w.driver && w.spawn == a.spawn && w.alive) return die(&w);
}

// From now on it does nothing any more; what it said is still heard.
void World::die(Process* p) {
  if (!p->alive) return;
  ++outcome_.deaths;
  p->alive = false;
  history_.note(clock_.now(), "process %u dies", p->index);
  ledger_.ended(p->number);
  if (!p->driver && planted(Fault::kLostDeath)) return;
  int64_t seen = clock_.now() + random_.between(20, 3000) * kUs;
  clock_.at(seen, [this, number = p->number] { bury(number); });
}

// Its ring is read to its tail first.
void World::bury(uint64_t number) {
  read_ring(number, UINT64_MAX);
  Process* p = process(number);
  history_.note(clock_.now(), "process %u is buried", p->index);
  if (p->driver) tell(node::event::DriverDied{p->index, -1, wire::kDeathCrash});
  else tell(node::event::SpawnEnded{p->spawn, static_cast<int>(number), true, p->killed ? SIGKILL : kExitedWith1, false, "", ""});
  need_decision();
}

void World::carry_out(const node::action::Buried& a) {
  Process* p = by_index(a.process);
  p->buried = true;
  std::erase_if(leases_, [&](const auto& l) { return l.second.client == p->number || l.second.worker == p->number; });
  holds_.died(p->number);
  fates_.died(p->number);
  requests_.died(p->number);
  if (auto actor = actors_.find(p->actor); actor != actors_.end() && actor->second.worker == p->number) actor->second.worker = 0;
  orphan(p);
  indexes_.erase(p->index);
}

void World::carry_out(const node::action::JobEnded& a) { jobs_.erase(a.job); }

// Nothing of it is left.
void World::carry_out(const node::action::ForgetJob& a) {
  for (const auto& [spawn, s] : starting_)
    if (s.pool.job == a.job) complain("left: a worker is being started for a job that is forgotten");
  for (const auto& [index, number] : indexes_)
    if (const Process& p = processes_.at(number); p.job == a.job && !p.driver)
      complain("left: worker " + std::to_string(index) + " of a job that is forgotten");
}

// As Node::watch_clients: who is stopped gives nothing back, and its workers end after what they run.
void World::watch_clients() {
  node::event::StoppedClients e;
  for (uint32_t index : core_.suspects(clock_.now()))
    if (Process* p = by_index(index); p && p->stopped) e.stopped.push_back(index);
  for (auto& [index, number] : indexes_)
    processes_.at(number).paused = std::count(e.stopped.begin(), e.stopped.end(), index) > 0;
  tell(std::move(e));
  need_decision();
  if (!leaving_) clock_.after(kSecond, [this] { watch_clients(); });
}

// ---- what processes ask for

std::string World::packed(const Resources& need, const Pool& pool, const Where& where) {
  wire::Packer w;
  w.map(static_cast<uint32_t>(need.items().size()) + (pool.env ? 1 : 0) + (where.group.is_nil() ? 0 : 1));
  for (const auto& [name, a] : need.items()) w.str(name).float64(static_cast<double>(a) / sched::kUnit);
  if (pool.env) w.str(wire::kRuntimeEnv).map(1).str("number").str(std::to_string(pool.env));
  if (!where.group.is_nil()) w.str(wire::kPlacement).map(2).str("group").id(where.group).str("bundle").int64(where.bundle);
  return w.bytes();
}

void World::create_group(Process* p, Group g) {
  history_.note(clock_.now(), "group %u is asked for", number_of(g.id));
  wire::Packer w;
  w.array(static_cast<uint32_t>(g.bundles.size()));
  for (const Resources& b : g.bundles) w.raw(packed(b, {}, {}));
  node::event::GroupCreate e{p->index, new_request(p->number), g.id, w.bytes(), RAY_GROUP_PACK, 0, "", ""};
  const Id id = g.id;
  groups_[id] = std::move(g);
  tell(std::move(e));
  tell(node::event::GroupWait{p->index, new_request(p->number), id, true});
  need_decision();
}

void World::remove_group(const Id& id) {
  tell(node::event::GroupRemove{0, 0, id});
  need_decision();
}

}  // namespace ray::sim
