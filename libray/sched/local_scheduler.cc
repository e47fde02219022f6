// See local_scheduler.h. Here: what the events change, and who waits for what. The decisions are in decide.cc.
#include "libray/sched/local_scheduler.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "libray/wire/limits.h"

namespace ray::sched {
namespace {

constexpr int64_t kRetryNs = 500'000'000;

std::string amount_text(Amount a) {
  std::string s = strprintf("%.4f", static_cast<double>(a) / kUnit);
  while (s.back() == '0') s.pop_back();
  if (s.back() == '.') s.pop_back();
  return s;
}

}  // namespace

Status Resources::add(const std::string& name, double amount) {
  if (name.empty() || name.size() > wire::kMaxResourceName)
    return error(RAY_INVALID_ARGUMENT, "resource name '%.64s' must have 1 to %zu bytes",
                 name.c_str(), wire::kMaxResourceName);
  if (!std::isfinite(amount) || amount < 0 || amount > wire::kMaxResourceAmount)
    return error(RAY_INVALID_ARGUMENT, "resource '%s': %g is not an amount from 0 to %g",
                 name.c_str(), amount, wire::kMaxResourceAmount);
  Amount a = std::llround(amount * kUnit);
  if (a == 0 && amount > 0)
    return error(RAY_INVALID_ARGUMENT, "resource '%s': %g is less than 0.0001", name.c_str(),
                 amount);
  if (a == 0)
    items_.erase(name);
  else
    items_[name] = a;
  return Status();
}

Amount Resources::get(const std::string& name) const {
  auto it = items_.find(name);
  return it == items_.end() ? 0 : it->second;
}

std::string Resources::to_string() const {
  std::string s;
  for (const auto& [name, amount] : items_)
    s += (s.empty() ? "" : ", ") + name + ": " + amount_text(amount);
  return s.empty() ? "nothing" : s;
}

Amount LocalScheduler::Need::cpu() const {
  for (const auto& [r, a] : items)
    if (r == cpu_index) return a;
  return 0;
}

LocalScheduler::LocalScheduler(const SchedulerOptions& options) : options_(options) {
  add_index("CPU", false);
  for (const auto& [name, amount] : options.total.items()) {
    int32_t index = known(name);
    total_[index >= 0 ? static_cast<uint32_t>(index) : add_index(name, false)] = amount;
  }
  free_ = total_;
  for (const std::string& name : options.instanced) make_instances(name);
}

// The node's own resources are few, and nothing else gets a name here: what asks for others can never run.
int32_t LocalScheduler::known(const std::string& name) const {
  for (uint32_t i = 0; i < names_.size() && !is_slot_[i]; ++i)
    if (names_[i] == name) return static_cast<int32_t>(i);
  return -1;
}

uint32_t LocalScheduler::add_index(const std::string& name, bool slot) {
  names_.push_back(name);
  is_slot_.push_back(slot);
  total_.push_back(0);
  free_.push_back(0);
  barred_.push_back(0);
  instance_id_.push_back(-1);
  return static_cast<uint32_t>(names_.size() - 1);
}

uint32_t LocalScheduler::new_slot(const std::string& name) {
  if (unused_slots_.empty()) return add_index(name, true);
  uint32_t slot = unused_slots_.back();
  unused_slots_.pop_back();
  names_[slot] = name;
  return slot;
}

LocalScheduler::Need LocalScheduler::need_of(const Resources& resources, std::string* never) const {
  Need n;
  for (const auto& [name, amount] : resources.items()) {
    int32_t index = known(name);
    if (index >= 0)
      n.items.emplace_back(static_cast<uint32_t>(index), amount);
    else if (never->empty())
      *never = strprintf("needs {%s}, but the node has no resource '%s'", resources.to_string().c_str(), name.c_str());
  }
  return n;
}

Status LocalScheduler::fill(Request* r, const Resources& resources, Pool pool,
                            const Placement& placement) {
  if (!placement.group.is_nil()) {
    auto g = groups_.find(placement.group);
    if (g == groups_.end() || g->second.removed)
      return error(RAY_NOT_FOUND, "placement group %s does not exist", placement.group.hex().c_str());
    if (placement.bundle >= static_cast<int32_t>(g->second.bundles.size()) || placement.bundle < -1)
      return error(RAY_INVALID_ARGUMENT, "placement group %s has %zu bundles, none of index %d",
                   placement.group.hex().c_str(), g->second.bundles.size(), placement.bundle);
    r->group = &g->second;
    r->bundle = placement.bundle;
  }
  r->never = placement.never;
  r->need = need_of(resources, &r->never);
  r->pool = pool;
  r->text = resources.to_string();
  return Status();
}

std::string LocalScheduler::infeasible_reason(const Request& r) const {
  if (!r.never.empty()) return r.never;
  if (r.group) return infeasible_in_group(r);
  for (const auto& [res, a] : r.need.items) {
    if (a <= total_[res]) continue;
    if (total_[res] == 0)
      return strprintf("needs {%s}, but the node has no resource '%s'", r.text.c_str(),
                       names_[res].c_str());
    return strprintf("needs {%s}, but the node has only %s of '%s'", r.text.c_str(),
                     amount_text(total_[res]).c_str(), names_[res].c_str());
  }
  if (r.kind == Request::kGroup && !fits(r, total_))
    return strprintf("needs {%s}, but the node's GPUs cannot be divided like that", r.text.c_str());
  return "";
}

// ---- who waits -------------------------------------------------------------------------------------

LocalScheduler::Line* LocalScheduler::line_of(Request* r) {
  if (r->kind == Request::kActor) return &actor_line_;
  if (r->kind == Request::kGroup) return &group_line_;
  return &clients_.at(static_cast<Demand*>(r)->client).line;
}

// To be called whenever something changed that decides whether it waits.
void LocalScheduler::settle(Request* r) {
  if (!wants_more(*r)) return r->line ? leave(r) : void();
  if (r->line || (r->group && !r->group->ready)) return;  // a group that gets ready settles what waits for it
  if (infeasible_reason(*r).empty()) return enter(r);
  if (std::exchange(r->reported, true)) return;
  hopeless_.push_back(r);
}

void LocalScheduler::enter(Request* r) {
  r->line = line_of(r);
  r->seq = next_seq_++;
  r->since = r->due = 0;
  r->line->by_seq[r->seq] = r;
  r->line->by_cpu.insert({r->group ? 0 : r->need.cpu(), r->seq});
  r->line->fresh.insert(r->seq);
  due_.insert({0, r->seq, r});
  if (r->kind == Request::kDemand) waiting_clients_.insert(static_cast<Demand*>(r)->client);
}

void LocalScheduler::leave(Request* r) {
  if (!r->line) return;
  r->line->by_seq.erase(r->seq);
  r->line->by_cpu.erase({r->group ? 0 : r->need.cpu(), r->seq});
  r->line->fresh.erase(r->seq);
  due_.erase({r->due, r->seq, r});
  if (r->kind == Request::kDemand && r->line->by_seq.empty())
    waiting_clients_.erase(static_cast<Demand*>(r)->client);
  r->line = nullptr;
  if (std::exchange(r->turn_ends, 0)) ++freed_;  // it stands in nobody's way any more
}

void LocalScheduler::set_due(Request* r, int64_t at) {
  due_.erase({r->due, r->seq, r});
  r->due = at;
  due_.insert({at, r->seq, r});
}

void LocalScheduler::wait_anew(Request* r, int64_t now) {
  r->since = now;
  set_due(r, now + patience(*r));
}

// Who has leases can wait the longer the more they are.
int64_t LocalScheduler::patience(const Request& r) const {
  uint32_t have = r.kind == Request::kDemand ? static_cast<const Demand&>(r).have : 0;
  return options_.age_ns << std::min(have, 6u);
}

// It is about to be erased or defined anew.
void LocalScheduler::forget(Request* r) {
  leave(r);
  std::erase(hopeless_, r);
  if (!r->group) return;
  if (r->kind == Request::kDemand) {
    auto* d = static_cast<Demand*>(r);
    r->group->shapes.erase({d->client, d->shape});
  } else if (r->kind == Request::kActor) {
    r->group->actors.erase(static_cast<ActorDemand*>(r)->actor);
  }
}

LocalScheduler::Demand* LocalScheduler::demand_of(const Lease& lease) {
  auto c = clients_.find(lease.client);
  if (c == clients_.end()) return nullptr;
  auto d = c->second.demands.find(lease.shape);
  return d == c->second.demands.end() ? nullptr : &d->second;
}

void LocalScheduler::count_open(Demand* d) {
  bool open = d->want > 0 || d->have > 0;
  if (open == d->open) return;
  d->open = open;
  clients_.at(d->client).open += open ? 1u : -1u;
}

// ---- clients ---------------------------------------------------------------------------------------

Status LocalScheduler::define_shape(uint32_t client, uint32_t shape, const Resources& resources,
                                    Pool pool, const Placement& placement) {
  Client& c = clients_[client];
  auto old = c.demands.find(shape);
  if (old == c.demands.end() && c.demands.size() >= wire::kMaxShapes)
    return error(RAY_INVALID_ARGUMENT, "process %u uses more than %zu resource shapes", client,
                 wire::kMaxShapes);
  if (old != c.demands.end()) {
    if (old->second.have > 0) return error(RAY_INVALID_ARGUMENT, "shape %u is redefined while in use", shape);
    old->second.want = 0;
    count_open(&old->second);
    forget(&old->second);
    c.demands.erase(old);
  }
  Demand& d = c.demands[shape];
  d.client = client;
  d.shape = shape;
  Status s = fill(&d, resources, pool, placement);
  d.gone = !s.ok();
  if (d.group) d.group->shapes.insert({client, shape});
  return s;
}

Status LocalScheduler::want(uint32_t client, uint32_t shape, uint32_t want, const TaskId& example) {
  auto c = clients_.find(client);
  auto d = c == clients_.end() ? decltype(c->second.demands.begin()){} : c->second.demands.find(shape);
  if (c == clients_.end() || d == c->second.demands.end())
    return error(RAY_INVALID_ARGUMENT,
                 "process %u wants leases of shape %u, which it never defined", client, shape);
  d->second.want = want;
  d->second.example = example;
  count_open(&d->second);
  settle(&d->second);
  return Status();
}

void LocalScheduler::pause_client(uint32_t client, bool paused) {
  auto c = clients_.find(client);
  if (c == clients_.end()) return;
  c->second.paused = paused;
  for (auto& [shape, d] : c->second.demands) settle(&d);
}

std::vector<LocalScheduler::Overdue> LocalScheduler::overdue(int64_t since) const {
  std::vector<Overdue> out;
  for (const auto& [id, lease] : leases_) {
    if (!lease.reclaiming || lease.reclaimed_at > since) continue;
    auto own = clients_.find(lease.worker);
    if (own == clients_.end() || own->second.open == 0) out.push_back({lease.client, lease.worker});
  }
  return out;
}

bool LocalScheduler::holds(uint32_t client, uint32_t worker, uint32_t lease) const {
  auto it = leases_.find(lease);
  return it != leases_.end() && it->second.client == client && it->second.worker == worker;
}

Status LocalScheduler::return_lease(uint32_t client, uint32_t worker, uint32_t lease, int64_t now) {
  // Not an error when unknown: the worker may have died while the return was on its way.
  if (holds(client, worker, lease)) end_lease(lease, true, now);
  return Status();
}

std::vector<uint32_t> LocalScheduler::client_gone(uint32_t client, int64_t now) {
  std::vector<uint32_t> workers;
  auto c = clients_.find(client);
  if (c == clients_.end()) return workers;
  c->second.paused = true;  // nothing more for it
  for (uint32_t id : std::set<uint32_t>(c->second.held)) {
    workers.push_back(leases_.at(id).worker);
    end_lease(id, false, now);
  }
  for (auto& [shape, d] : c->second.demands) forget(&d);
  clients_.erase(c);
  return workers;
}

void LocalScheduler::end_lease(uint32_t id, bool given_back, int64_t now) {
  Lease lease = leases_.at(id);
  leases_.erase(id);
  auto w = workers_.find(lease.worker);
  Client& c = clients_.at(lease.client);
  c.held.erase(id);
  if (lease.reclaiming) --c.reclaiming;
  Demand& d = c.demands.at(lease.shape);
  --d.have;
  if (w != workers_.end() && w->second.blocked) --d.blocked;
  count_open(&d);
  settle(&d);
  if (d.line && !d.turn_ends) wait_anew(&d, now);
  if (w == workers_.end()) return;
  w->second.lease = 0;
  // A worker whose client is gone may still run its task: what it holds is free when it is gone.
  if (!given_back) {
    w->second.stopping = true;
    ending_.insert(lease.worker);
    return;
  }
  drop_held(&w->second);
  w->second.stopping = w->second.killed;
  w->second.killed ? void(leaving_.insert(lease.worker)) : make_idle(&w->second, now);
}

// ---- workers
// ---------------------------------------------------------------------------------------

void LocalScheduler::take(std::vector<Amount>* free, const Need& need, Amount sign) const {
  for (const auto& [r, a] : need.items) (*free)[r] += sign * a;
}

void LocalScheduler::hold(Worker* w, const Need& need) {
  w->held = need;
  if (need.group) ++need.group->users;
  take(&free_, need, -1);
}

void LocalScheduler::drop_held(Worker* w) {
  take(&free_, w->held, +1);
  free_[w->held.cpu_index] -= w->lent;
  w->lent = 0;
  if (std::exchange(w->blocked, false)) --blocked_;
  ++freed_;
  Group* group = w->held.group;
  w->held = Need{};
  if (group && --group->users == 0 && group->removed) give_back(group);
}

void LocalScheduler::make_idle(Worker* w, int64_t now) {
  w->state = kIdle;
  w->idle_since = now;
  pools_[w->pool].idle.push_back(w->index);
  idle_.insert({now, w->index});
}

void LocalScheduler::remove_idle(Worker* w) {
  idle_.erase({w->idle_since, w->index});
  auto p = pools_.find(w->pool);
  if (p != pools_.end()) std::erase(p->second.idle, w->index);
}

void LocalScheduler::prestart(Pool pool, uint32_t count) {
  prestart_[pool] = std::max(prestart_[pool], count);
}

// One of those that start there is ready, or has failed.
LocalScheduler::PoolState* LocalScheduler::not_starting(const Pool& pool) {
  auto p = pools_.find(pool);
  if (p == pools_.end()) return nullptr;
  if (p->second.starting > 0) --p->second.starting, --starting_;
  ++freed_;
  return &p->second;
}

void LocalScheduler::worker_ready(uint32_t worker, Pool pool, int64_t now) {
  if (PoolState* p = not_starting(pool)) {
    p->starting_since = now;
    p->failures = 0;
    p->retry_at = 0;
  }
  Worker& w = workers_[worker];
  w = Worker{};
  w.index = worker;
  w.pool = pool;
  make_idle(&w, now);
}

void LocalScheduler::worker_start_failed(Pool pool, int64_t now) {
  PoolState* p = not_starting(pool);
  if (!p) return;
  prestart_.erase(pool);
  ++p->failures;
  // One failure may be bad luck (killed from outside); after more, wait longer each time.
  p->retry_at = p->failures < 2 ? now : now + (kRetryNs << std::min(p->failures - 2, 5u));
}

void LocalScheduler::worker_gone(uint32_t worker, int64_t now) {
  auto it = workers_.find(worker);
  if (it == workers_.end()) return;
  if (it->second.lease) end_lease(it->second.lease, false, now);
  drop_held(&it->second);
  ending_.erase(worker);
  leaving_.erase(worker);
  if (it->second.state == kIdle) remove_idle(&it->second);
  Pool pool = it->second.pool;
  workers_.erase(it);
  tidy(pool);
}

void LocalScheduler::worker_killed(uint32_t worker) {
  auto it = workers_.find(worker);
  if (it == workers_.end()) return;
  Worker& w = it->second;
  w.killed = true;
  if (w.state != kIdle || w.stopping) return;
  remove_idle(&w);
  tidy(w.pool);
  w.stopping = true;
  leaving_.insert(worker);
}

// A pool is remembered while it has workers, or trouble in starting one.
void LocalScheduler::tidy(const Pool& pool) {
  auto p = pools_.find(pool);
  if (p != pools_.end() && p->second.idle.empty() && !p->second.starting && !p->second.failures) pools_.erase(p);
}

void LocalScheduler::worker_blocked(uint32_t worker, bool blocked) {
  auto it = workers_.find(worker);
  if (it == workers_.end()) return;
  Worker& w = it->second;
  if (w.state == kIdle || w.blocked == blocked) return;
  w.blocked = blocked;
  blocked_ += blocked ? 1u : -1u;
  if (auto lease = leases_.find(w.lease); w.lease && lease != leases_.end())
    if (Demand* d = demand_of(lease->second)) d->blocked += blocked ? 1u : -1u;
  if (blocked) w.lent = w.held.cpu();
  free_[w.held.cpu_index] += blocked ? w.lent : -w.lent;
  if (!blocked) w.lent = 0;
  ++freed_;
}

void LocalScheduler::job_ended(uint32_t job) {
  std::erase_if(prestart_, [job](const auto& p) { return p.first.job == job; });
  std::erase_if(pools_, [this, job](const auto& p) {
    if (p.first.job == job) starting_ -= p.second.starting;
    return p.first.job == job;
  });
  for (auto& [index, w] : workers_) {
    if (w.pool.job != job || w.state != kIdle) continue;
    idle_.erase({w.idle_since, w.index});
    w.stopping = true;
    leaving_.insert(index);
  }
}

void LocalScheduler::env_gone(uint32_t env) {
  std::erase_if(pools_, [this, env](const auto& p) {
    bool gone = p.first.env == env && p.second.idle.empty();
    if (gone) starting_ -= p.second.starting;
    return gone;
  });
}

// ---- actors
// ----------------------------------------------------------------------------------------

void LocalScheduler::want_actor(const ActorId& actor, const Resources& resources, Pool pool,
                                const Placement& placement) {
  cancel_actor(actor);
  ActorDemand& a = actors_[actor];
  a.kind = Request::kActor;
  a.actor = actor;
  if (!fill(&a, resources, pool, placement).ok()) {
    actors_.erase(actor);
    return;
  }
  if (a.group) a.group->actors.insert(actor);
  settle(&a);
}

void LocalScheduler::cancel_actor(const ActorId& actor) {
  auto it = actors_.find(actor);
  if (it == actors_.end()) return;
  forget(&it->second);
  actors_.erase(it);
}

}  // namespace ray::sched
