// See local_scheduler.h.
#include "libray/sched/local_scheduler.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "libray/wire/limits.h"

namespace ray::sched {
namespace {

constexpr uint32_t kCpu = 0;           // index of "CPU"
constexpr uint32_t kMaxStarting = 16;  // workers of one pool that start at the same time
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
  intern("CPU");
  for (const auto& [name, amount] : options.total.items()) total_[intern(name)] = amount;
  free_ = total_;
  for (const std::string& name : options.instanced) make_instances(name);
}

uint32_t LocalScheduler::intern(const std::string& name) {
  for (uint32_t i = 0; i < names_.size(); ++i)
    if (!is_slot_[i] && names_[i] == name) return i;
  return add_index(name, false);
}

uint32_t LocalScheduler::add_index(const std::string& name, bool slot) {
  names_.push_back(name);
  is_slot_.push_back(slot);
  total_.push_back(0);
  free_.push_back(0);
  instance_id_.push_back(-1);
  return static_cast<uint32_t>(names_.size() - 1);
}

LocalScheduler::Need LocalScheduler::need_of(const Resources& resources) {
  Need n;
  for (const auto& [name, amount] : resources.items()) n.items.emplace_back(intern(name), amount);
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
  r->need = need_of(resources);
  r->pool = pool;
  r->text = resources.to_string();
  r->never = placement.never;
  return Status();
}

// ---- clients ---------------------------------------------------------------------------------------

Status LocalScheduler::define_shape(uint32_t client, uint32_t shape, const Resources& resources,
                                    Pool pool, const Placement& placement) {
  Client& c = clients_[client];
  if (c.demands.size() >= wire::kMaxShapes)
    return error(RAY_INVALID_ARGUMENT, "process %u uses more than %zu resource shapes", client,
                 wire::kMaxShapes);
  Demand& d = c.demands[shape];
  if (d.have > 0) return error(RAY_INVALID_ARGUMENT, "shape %u is redefined while in use", shape);
  d = Demand{};
  d.client = client;
  d.shape = shape;
  Status s = fill(&d, resources, pool, placement);
  if (s.ok()) return s;
  d.gone = true;
  return s;
}

Status LocalScheduler::want(uint32_t client, uint32_t shape, uint32_t want, const TaskId& example) {
  auto c = clients_.find(client);
  if (c == clients_.end() || !c->second.demands.count(shape))
    return error(RAY_INVALID_ARGUMENT,
                 "process %u wants leases of shape %u, which it never defined", client, shape);
  Demand& d = c->second.demands[shape];
  bool waited = d.want > d.have;
  d.want = want;
  d.example = example;
  if (want > d.have && !waited) {
    d.seq = next_seq_++;
    d.skips = 0;
  }
  dirty_ = true;
  return Status();
}

bool LocalScheduler::Client::waits() const {
  for (const auto& [shape, d] : demands)
    if (d.want > 0 || d.have > 0) return true;
  return false;
}

void LocalScheduler::pause_client(uint32_t client, bool paused) {
  auto c = clients_.find(client);
  if (c == clients_.end()) return;
  c->second.paused = paused;
  dirty_ = true;
}

std::vector<LocalScheduler::Overdue> LocalScheduler::overdue(int64_t since) const {
  std::vector<Overdue> out;
  for (const auto& [id, lease] : leases_) {
    if (!lease.reclaiming || lease.reclaimed_at > since) continue;
    auto own = clients_.find(lease.worker);
    if (own == clients_.end() || !own->second.waits()) out.push_back({lease.client, lease.worker});
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
  std::vector<uint32_t> held, ids;
  for (const auto& [id, lease] : leases_)
    if (lease.client == client) ids.push_back(id);
  for (uint32_t id : ids) {
    held.push_back(leases_[id].worker);
    end_lease(id, false, now);
  }
  clients_.erase(client);
  dirty_ = true;
  return held;
}

void LocalScheduler::end_lease(uint32_t id, bool worker_lives, int64_t now) {
  Lease lease = leases_.at(id);
  leases_.erase(id);
  auto c = clients_.find(lease.client);
  if (c != clients_.end()) {
    --c->second.leases;
    if (lease.reclaiming) --c->second.reclaiming;
    auto d = c->second.demands.find(lease.shape);
    if (d != c->second.demands.end() && d->second.have > 0) {
      if (d->second.want <= d->second.have) {  // begins to wait (if it still wants): to the end
        d->second.seq = next_seq_++;
        d->second.skips = 0;
      }
      --d->second.have;
    }
  }
  auto w = workers_.find(lease.worker);
  if (w != workers_.end()) {
    drop_held(&w->second);
    w->second.lease = 0;
    // A worker whose client is gone may still run its task: it stays out of the idle list.
    w->second.stopping = !worker_lives;
    if (worker_lives) make_idle(&w->second, now);
  }
  dirty_ = true;
}

// ---- workers
// ---------------------------------------------------------------------------------------

void LocalScheduler::hold(Worker* w, const Need& need) {
  w->held = need;
  if (need.group) ++need.group->users;
  take(&free_, need, -1);
  // A blocked flag that outlived its lease must not lend what was never taken.
  w->blocked = false;
  w->lent = 0;
}

void LocalScheduler::drop_held(Worker* w) {
  take(&free_, w->held, +1);
  free_[w->held.cpu_index] -= w->lent;
  w->lent = 0;
  w->blocked = false;
  Group* group = w->held.group;
  w->held = Need{};
  if (group && --group->users == 0 && group->removed) give_back(group);
}

void LocalScheduler::make_idle(Worker* w, int64_t now) {
  w->state = kIdle;
  w->idle_since = now;
  pools_[w->pool].idle.push_back(w->index);
}

void LocalScheduler::prestart(Pool pool, uint32_t count) {
  PoolState& p = pools_[pool];
  p.prestart = std::max(p.prestart, count);
  dirty_ = true;
}

void LocalScheduler::worker_ready(uint32_t worker, Pool pool, int64_t now) {
  PoolState& p = pools_[pool];
  if (p.starting > 0) --p.starting;
  p.failures = 0;
  p.retry_at = 0;
  Worker& w = workers_[worker];
  w = Worker{};
  w.index = worker;
  w.pool = pool;
  make_idle(&w, now);
  dirty_ = true;
}

void LocalScheduler::worker_start_failed(Pool pool, int64_t now) {
  auto it = pools_.find(pool);
  if (it == pools_.end()) return;
  PoolState& p = it->second;
  if (p.starting > 0) --p.starting;
  p.prestart = 0;
  ++p.failures;
  // One failure may be bad luck (killed from outside); after more, wait longer each time.
  p.retry_at = p.failures < 2 ? now : now + (kRetryNs << std::min(p.failures - 2, 5u));
  dirty_ = true;
}

void LocalScheduler::remove_idle(Worker* w) {
  auto p = pools_.find(w->pool);
  if (p == pools_.end()) return;
  auto& idle = p->second.idle;
  idle.erase(std::remove(idle.begin(), idle.end(), w->index), idle.end());
}

void LocalScheduler::worker_gone(uint32_t worker, int64_t now) {
  auto it = workers_.find(worker);
  if (it == workers_.end()) return;
  if (it->second.lease) end_lease(it->second.lease, false, now);
  drop_held(&it->second);
  remove_idle(&it->second);
  workers_.erase(it);
  dirty_ = true;
}

void LocalScheduler::worker_blocked(uint32_t worker, bool blocked) {
  auto it = workers_.find(worker);
  if (it == workers_.end()) return;
  Worker& w = it->second;
  if (w.state == kIdle || w.blocked == blocked) return;
  w.blocked = blocked;
  if (blocked) {
    w.lent = w.held.cpu();
    free_[w.held.cpu_index] += w.lent;
  } else {
    free_[w.held.cpu_index] -= w.lent;
    w.lent = 0;
  }
  dirty_ = true;
}

void LocalScheduler::job_ended(uint32_t job) {
  for (auto it = pools_.begin(); it != pools_.end();)
    it = it->first.job == job ? pools_.erase(it) : std::next(it);
  for (auto& [index, w] : workers_)
    if (w.pool.job == job && w.state == kIdle) w.stopping = true;
  dirty_ = true;
}

// ---- actors
// ----------------------------------------------------------------------------------------

void LocalScheduler::want_actor(const ActorId& actor, const Resources& resources, Pool pool,
                                const Placement& placement) {
  ActorDemand d;
  d.actor = actor;
  if (!fill(&d, resources, pool, placement).ok()) return;
  d.seq = next_seq_++;
  actors_[actor] = d;
  dirty_ = true;
}

void LocalScheduler::cancel_actor(const ActorId& actor) { dirty_ |= actors_.erase(actor) > 0; }

struct LocalScheduler::Round {
  int64_t now;
  Actions* out;
  std::vector<Amount> free;          // what is left after what was planned for workers to come
  std::vector<bool> barred;          // resources that a starving demand waits for
  std::map<Pool, uint32_t> planned;  // workers that are missing
  std::vector<Waiting> unfit;        // in order of priority
  std::map<std::pair<uint32_t, uint32_t>, uint32_t> planned_of;  // (client, shape)
  uint32_t room = 0;  // workers that may still be started
};

// ---- groups ----------------------------------------------------------------------------------------

Status LocalScheduler::create_group(const Id& id, const std::vector<Resources>& bundles, bool apart) {
  if (groups_.count(id)) return error(RAY_ALREADY_EXISTS, "placement group %s exists", id.hex().c_str());
  Group& g = groups_[id];
  g.id = id;
  std::map<uint32_t, Amount> sum;
  for (const Resources& bundle : bundles) {
    g.bundles.push_back(need_of(bundle));
    g.text += (g.text.empty() ? "" : "}, {") + bundle.to_string();
    std::map<uint32_t, uint32_t> slots;
    for (const auto& [r, a] : g.bundles.back().items) {
      sum[r] += a;
      if (unused_slots_.empty()) unused_slots_.push_back(add_index("", true));
      slots[r] = unused_slots_.back();
      names_[slots[r]] = names_[r];
      unused_slots_.pop_back();
      spare_instances(&g, r, a);
    }
    g.slots.push_back(std::move(slots));
  }
  g.need.items.assign(sum.begin(), sum.end());
  g.seq = next_seq_++;
  if (apart && bundles.size() > 1)
    g.never = strprintf("wants its %zu bundles on different nodes (STRICT_SPREAD), but this is the only node",
                        bundles.size());
  dirty_ = true;
  return Status();
}

bool LocalScheduler::has_group(const Id& id) const {
  auto g = groups_.find(id);
  return g != groups_.end() && !g->second.removed;
}

LocalScheduler::Removed LocalScheduler::remove_group(const Id& id) {
  Removed out;
  auto it = groups_.find(id);
  if (it == groups_.end() || it->second.removed) return out;
  Group* g = &it->second;
  auto leave = [g](Request* r) {
    if (r->group != g) return false;
    r->group = nullptr;
    r->placed = Need{};
    r->gone = true;
    return true;
  };
  for (auto& [index, c] : clients_)
    for (auto& [shape, d] : c.demands)
      if (leave(&d)) out.shapes.emplace_back(index, shape);
  for (auto a = actors_.begin(); a != actors_.end();) {
    if (!leave(&a->second)) {
      ++a;
      continue;
    }
    out.actors.push_back(a->first);
    a = actors_.erase(a);
  }
  for (const auto& [index, w] : workers_)
    if (w.held.group == g) out.workers.push_back(index);
  g->removed = true;
  if (g->users == 0) give_back(g);
  dirty_ = true;
  return out;
}

void LocalScheduler::reserve(Round* r, Group* g) {
  for (size_t i = 0; i < g->bundles.size(); ++i) {
    for (const auto& [res, a] : g->bundles[i].items) {
      uint32_t slot = g->slots[i].at(res);
      total_[slot] = free_[slot] = r->free[slot] = a;
    }
    Need exact = with_instances(g->bundles[i], r->free);
    take(&free_, exact, -1);
    take(&r->free, exact, -1);
    reserve_instances(g, i, exact, &r->free);
  }
  g->ready = true;
  Action action{Action::kGroupReady};
  action.id = g->id;
  r->out->push_back(action);
}

// The end of a removed group that nothing runs in any more.
void LocalScheduler::give_back(Group* g) {
  if (g->ready) take(&free_, g->need, +1);
  drop_instances(g);
  for (const auto& slots : g->slots)
    for (const auto& [res, slot] : slots) {
      total_[slot] = free_[slot] = 0;
      unused_slots_.push_back(slot);
    }
  groups_.erase(Id(g->id));
  dirty_ = true;
}

LocalScheduler::Need LocalScheduler::in_bundle(const Group& g, const Need& need, size_t bundle) const {
  Need out;
  out.group = const_cast<Group*>(&g);
  for (const auto& [r, a] : need.items) {
    auto slot = g.slots[bundle].find(r);
    if (slot == g.slots[bundle].end()) return Need{};
    out.items.emplace_back(slot->second, a);
    if (r == kCpu) out.cpu_index = slot->second;
  }
  return out;
}

// Sets r->placed to the bundle that has room, else to one that could have. False: none has room.
bool LocalScheduler::choose_bundle(Request* r, const std::vector<Amount>& free) const {
  const Group& g = *r->group;
  size_t first = r->bundle < 0 ? 0 : static_cast<size_t>(r->bundle);
  size_t last = r->bundle < 0 ? g.bundles.size() : first + 1;
  r->placed = Need{};
  for (size_t i = first; i < last; ++i) {
    Need n = in_bundle(g, r->need, i);
    if (!n.group || !fits(n, total_)) continue;
    bool room = fits(n, free);
    if (room || !r->placed.group) r->placed = std::move(n);
    if (room) return true;
  }
  return false;
}

std::string LocalScheduler::infeasible_in_group(const Request& r) const {
  if (!r.group->ready) return "";
  for (size_t i = 0; i < r.group->bundles.size(); ++i) {
    if (r.bundle >= 0 && static_cast<size_t>(r.bundle) != i) continue;
    Need n = in_bundle(*r.group, r.need, i);
    if (n.group && fits(n, total_)) return "";
  }
  return strprintf("needs {%s}, which %s of placement group %s ({%s}) has", r.text.c_str(),
                   r.bundle < 0 ? "no bundle" : strprintf("not even bundle %d", r.bundle).c_str(),
                   r.group->id.hex().c_str(), r.group->text.c_str());
}

// ---- decisions -------------------------------------------------------------------------------------

bool LocalScheduler::fits(const Need& need, const std::vector<Amount>& free) const {
  for (const auto& [r, a] : need.items)
    if (!enough(r, a, free)) return false;
  return true;
}

void LocalScheduler::take(std::vector<Amount>* free, const Need& need, Amount sign) const {
  for (const auto& [r, a] : need.items) (*free)[r] += sign * a;
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
  return "";
}

// Tasks that ask for nothing are still bounded: as many at a time as there are processors.
uint32_t LocalScheduler::zero_limit() const {
  return std::max<uint32_t>(1, static_cast<uint32_t>((total_[kCpu] + kUnit - 1) / kUnit));
}

bool LocalScheduler::zero_room(const Demand& d) const {
  if (!d.need.items.empty()) return true;
  uint32_t running = 0;
  for (const auto& [id, lease] : leases_) {
    if (lease.client != d.client || lease.shape != d.shape) continue;
    auto w = workers_.find(lease.worker);
    running += w != workers_.end() && !w->second.blocked;
  }
  return running < zero_limit();
}

std::vector<LocalScheduler::Waiting> LocalScheduler::waiting_in_order(Actions* out) {
  std::vector<Waiting> all;
  auto add = [&](const Waiting& w, Action::Kind kind, const Id& id) {
    Request& r = *w.request;
    std::string reason = infeasible_reason(r);
    if (reason.empty()) {
      if (!r.group || r.group->ready) all.push_back(w);
      return;
    }
    if (r.reported) return;
    r.reported = true;
    Action action{kind};
    action.id = id;
    action.text = reason;
    if (w.demand) {
      action.client = w.demand->client;
      action.shape = w.demand->shape;
    }
    out->push_back(action);
  };
  for (auto& [id, a] : actors_)
    add({0, a.seq, &a, nullptr, &a, nullptr}, Action::kActorInfeasible, id);
  for (auto& [index, c] : clients_)
    for (auto& [shape, d] : c.demands)
      if (d.want > d.have && !d.gone && !c.paused)
        add({c.leases, d.seq, &d, &d, nullptr, nullptr}, Action::kInfeasible, d.example);
  return all;
}

uint32_t LocalScheduler::pick_idle(PoolState* pool, uint32_t client) {
  auto& idle = pool->idle;
  size_t look = std::min<size_t>(idle.size(), 32);
  size_t at = idle.size() - 1;
  // One that already has a link to this client saves making another.
  for (size_t i = 0; i < look; ++i)
    if (workers_[idle[idle.size() - 1 - i]].last_client == client) {
      at = idle.size() - 1 - i;
      break;
    }
  uint32_t worker = idle[at];
  idle.erase(idle.begin() + static_cast<ptrdiff_t>(at));
  return worker;
}

// Grants, plans a worker, or notes that it cannot be.
void LocalScheduler::place(Round* r, const Waiting& w) {
  Request& request = *w.request;
  if (request.group) choose_bundle(&request, r->free);
  const Need& need = w.need();
  bool barred = false;
  for (const auto& item : need.items) barred |= r->barred[item.first];
  bool room = !barred && (w.group ? fits_group(*w.group, r->free) : fits(need, r->free));
  if (!room) {
    if (request.skips >= options_.max_skips)
      for (const auto& [res, a] : need.items)
        if (!enough(res, a, r->free)) r->barred[res] = true;
    r->unfit.push_back(w);
    return;
  }
  if (w.group) return reserve(r, w.group);
  PoolState& p = pools_[request.pool];
  Need exact = with_instances(need, r->free);
  take(&r->free, exact, -1);
  if (p.idle.empty()) {
    ++r->planned[request.pool];
    if (w.demand) ++r->planned_of[{w.demand->client, w.demand->shape}];
    return;
  }
  for (const Waiting& u : r->unfit) ++u.request->skips;
  grant(r, w, exact, pick_idle(&p, w.demand ? w.demand->client : UINT32_MAX));
}

void LocalScheduler::grant(Round* r, const Waiting& w, const Need& need, uint32_t index) {
  Worker& worker = workers_[index];
  hold(&worker, need);
  Action action{Action::kGrant};
  action.worker = index;
  if (w.demand) {
    Demand& d = *w.demand;
    worker.state = kLeased;
    worker.last_client = d.client;
    worker.lease = next_lease_++;
    leases_[worker.lease] = {worker.lease, d.client, d.shape, index, r->now, false};
    ++d.have;
    ++clients_[d.client].leases;
    d.seq = next_seq_++;
    d.skips = 0;
    action.client = d.client;
    action.shape = d.shape;
    action.lease = worker.lease;
  } else {
    worker.state = kActor;
    action.kind = Action::kAssignActor;
    action.id = w.actor->actor;
    actors_.erase(ActorId(w.actor->actor));
  }
  r->out->push_back(action);
}

// Groups come first: what is placed in one of them may be waiting below.
void LocalScheduler::place_groups(Round* r) {
  std::vector<Group*> pending;
  for (auto& [id, g] : groups_)
    if (!g.ready && !g.removed) pending.push_back(&g);
  std::sort(pending.begin(), pending.end(), [](Group* a, Group* b) { return a->seq < b->seq; });
  for (Group* g : pending) {
    std::string reason = infeasible_reason(*g);
    if (reason.empty() && !fits_group(*g, total_))
      reason = strprintf("needs {%s}, but the node's GPUs cannot be divided like that", g->text.c_str());
    if (reason.empty()) {
      place(r, {0, g->seq, g, nullptr, nullptr, g});
    } else if (!g->reported) {
      g->reported = true;
      Action action{Action::kGroupInfeasible};
      action.id = g->id;
      action.text = reason;
      r->out->push_back(action);
    }
  }
}

void LocalScheduler::schedule(int64_t now, Actions* out) {
  retry_at_ = 0;
  Round r{now, out, free_, std::vector<bool>(names_.size(), false), {}, {}, {}, 0};
  uint32_t processes = static_cast<uint32_t>(workers_.size());
  for (const auto& [pool, p] : pools_) processes += p.starting;
  r.room = processes < options_.max_workers ? options_.max_workers - processes : 0;

  auto later = [](const Waiting& a, const Waiting& b) {
    return a.leases != b.leases ? a.leases < b.leases : a.seq < b.seq;
  };
  if (!groups_.empty()) place_groups(&r);
  std::multiset<Waiting, decltype(later)> queue(later);
  for (const Waiting& w : waiting_in_order(out)) queue.insert(w);
  uint32_t planned_limit = r.room + processes;
  uint32_t steps = 0;
  while (!queue.empty()) {
    Waiting w = *queue.begin();
    queue.erase(queue.begin());
    if (!w.demand) {
      place(&r, w);
      continue;
    }
    Demand& d = *w.demand;
    uint32_t planned = 0;
    if (auto it = r.planned_of.find({d.client, d.shape}); it != r.planned_of.end())
      planned = it->second;
    if (d.have + planned >= d.want || !zero_room(d)) continue;
    if (d.need.items.empty() && planned >= zero_limit()) continue;
    size_t unfit = r.unfit.size();
    place(&r, w);
    if (r.unfit.size() != unfit || ++steps > planned_limit + 64) continue;
    queue.insert({w.leases + 1, d.seq, &d, &d, nullptr, nullptr});
  }
  start_workers(&r);
  if (!r.unfit.empty()) reclaim_for(&r);
  trim(now, out);
  dirty_ = false;
}

void LocalScheduler::start_workers(Round* r) {
  for (auto& [pool, p] : pools_) {
    uint32_t need = std::max(r->planned[pool], p.prestart);
    if (need <= p.starting) continue;
    if (p.retry_at > r->now) {
      if (!retry_at_ || p.retry_at < retry_at_) retry_at_ = p.retry_at;
      continue;
    }
    uint32_t n = std::min(need - p.starting, kMaxStarting - std::min(kMaxStarting, p.starting));
    if (p.failures > 0) n = std::min(n, p.starting ? 0u : 1u);  // a crashing command: one at a time
    n = std::min(n, r->room);
    if (n == 0) continue;
    r->room -= n;
    p.starting += n;
    p.prestart = 0;
    Action action{Action::kStartWorkers};
    action.pool = pool;
    action.count = n;
    r->out->push_back(action);
  }
  if (r->room > 0) return;
  // At the limit: an idle worker of another pool makes room.
  for (auto& [pool, n] : r->planned) {
    if (n == 0) continue;
    for (auto& [other, p] : pools_) {
      if (other == pool || p.idle.empty()) continue;
      Worker& w = workers_[p.idle.front()];
      p.idle.erase(p.idle.begin());
      w.stopping = true;
      Action action{Action::kStopWorker};
      action.worker = w.index;
      r->out->push_back(action);
      return;
    }
  }
}

void LocalScheduler::reclaim_for(Round* r) {
  std::vector<Amount> free = r->free;
  for (const auto& [id, lease] : leases_) {
    if (!lease.reclaiming) continue;
    const Worker& w = workers_[lease.worker];
    take(&free, w.held, +1);
    free[w.held.cpu_index] -= w.lent;
  }
  for (const Waiting& w : r->unfit) {
    const Need& need = w.need();
    if (!fits(need, free) && !pick_victims(r, w, &free)) continue;
    take(&free, with_instances(need, free), -1);
  }
}

// Reclaims leases until the demand fits; nothing when fairness does not allow enough of them.
bool LocalScheduler::pick_victims(Round* r, const Waiting& w, std::vector<Amount>* free) {
  const Need& need = w.need();
  uint32_t mine = w.leases;
  bool starving = mine == 0 || w.request->skips >= options_.max_skips;
  struct Victim {
    bool surplus;
    uint32_t client_leases;
    int64_t granted_at;
    Lease* lease;
  };
  std::vector<Victim> victims;
  for (auto& [id, lease] : leases_) {
    if (lease.reclaiming || (w.demand && lease.client == w.demand->client && !starving)) continue;
    const Worker& worker = workers_[lease.worker];
    Client& c = clients_[lease.client];
    const Demand& d = c.demands[lease.shape];
    // What it would give back must be something that is missing.
    bool helps = false;
    for (const auto& [res, a] : need.items) {
      if (enough(res, a, *free)) continue;
      for (const auto& [held, amount] : worker.held.items)
        helps |= held == res && (res != worker.held.cpu_index || amount > worker.lent);
    }
    if (helps)
      victims.push_back({d.want < d.have || c.paused, c.leases - c.reclaiming, lease.granted_at, &lease});
  }
  std::sort(victims.begin(), victims.end(), [](const Victim& a, const Victim& b) {
    if (a.surplus != b.surplus) return a.surplus;
    if (a.client_leases != b.client_leases) return a.client_leases > b.client_leases;
    return a.granted_at < b.granted_at;
  });
  std::vector<Amount> after = *free;
  std::vector<Lease*> chosen;
  std::map<uint32_t, uint32_t> taken;
  int64_t wait_until = 0;
  for (const Victim& v : victims) {
    if (fits(need, after)) break;
    uint32_t left = v.client_leases - std::min(v.client_leases, taken[v.lease->client]);
    if (!v.surplus && left < mine + 2) {
      if (!starving) continue;
      if (r->now < v.granted_at + options_.quantum_ns) {
        int64_t at = v.granted_at + options_.quantum_ns;
        if (!wait_until || at < wait_until) wait_until = at;
        continue;
      }
    }
    ++taken[v.lease->client];
    chosen.push_back(v.lease);
    const Worker& worker = workers_[v.lease->worker];
    take(&after, worker.held, +1);
    after[worker.held.cpu_index] -= worker.lent;
  }
  if (!fits(need, after)) {
    if (wait_until && (!retry_at_ || wait_until < retry_at_)) retry_at_ = wait_until;
    return false;
  }
  for (Lease* lease : chosen) {
    lease->reclaiming = true;
    lease->reclaimed_at = r->now;
    ++clients_[lease->client].reclaiming;
    Action action{Action::kReclaim};
    action.client = lease->client;
    action.shape = lease->shape;
    action.worker = lease->worker;
    action.lease = lease->id;
    r->out->push_back(action);
  }
  *free = after;
  return true;
}

void LocalScheduler::trim(int64_t now, Actions* out) {
  for (auto& [pool, p] : pools_) {
    while (p.idle.size() > zero_limit()) {
      Worker& w = workers_[p.idle.front()];
      if (w.idle_since + options_.idle_ns > now) break;
      p.idle.erase(p.idle.begin());
      w.stopping = true;
      Action action{Action::kStopWorker};
      action.worker = w.index;
      out->push_back(action);
    }
  }
}

int64_t LocalScheduler::next_deadline(int64_t now) const {
  int64_t at = retry_at_;
  for (const auto& [pool, p] : pools_) {
    if (p.idle.size() <= zero_limit()) continue;
    int64_t t = workers_.at(p.idle.front()).idle_since + options_.idle_ns;
    if (!at || t < at) at = t;
  }
  return at && at <= now ? now : at;
}

// ---- for queries and tests
// -------------------------------------------------------------------------

std::map<std::string, double> LocalScheduler::total() const {
  std::map<std::string, double> out;
  for (size_t i = 0; i < names_.size(); ++i)
    if (total_[i] > 0 && !is_slot_[i]) out[names_[i]] = static_cast<double>(total_[i]) / kUnit;
  return out;
}

std::map<std::string, double> LocalScheduler::available() const {
  std::map<std::string, double> out;
  for (size_t i = 0; i < names_.size(); ++i)
    if (total_[i] > 0 && !is_slot_[i])
      out[names_[i]] = static_cast<double>(std::max<Amount>(0, free_[i])) / kUnit;
  return out;
}

LocalScheduler::Counts LocalScheduler::counts() const {
  Counts n;
  for (const auto& [index, w] : workers_) {
    n.idle += w.state == kIdle;
    n.leased += w.state == kLeased;
    n.actors += w.state == kActor;
    n.blocked += w.blocked;
  }
  for (const auto& [pool, p] : pools_) n.starting += p.starting;
  for (const auto& [index, c] : clients_)
    for (const auto& [shape, d] : c.demands) n.waiting += d.want > d.have && !d.gone;
  n.waiting += static_cast<uint32_t>(actors_.size());
  return n;
}

int64_t LocalScheduler::busy_since(uint32_t worker) const {
  auto it = workers_.find(worker);
  if (it == workers_.end() || it->second.state == kIdle) return -1;
  auto lease = leases_.find(it->second.lease);
  return lease == leases_.end() ? it->second.idle_since : lease->second.granted_at;
}

bool LocalScheduler::busy() const {
  if (!leases_.empty()) return true;
  for (const auto& [index, w] : workers_)
    if (w.state == kActor) return true;
  return false;
}

const char* LocalScheduler::worker_state(uint32_t worker) const {
  auto it = workers_.find(worker);
  if (it == workers_.end()) return "";
  switch (it->second.state) {
    case kIdle: return "idle";
    case kLeased: return it->second.blocked ? "blocked" : "leased";
    case kActor: return "actor";
  }
  return "";
}

std::map<std::string, double> LocalScheduler::held(uint32_t worker) const {
  std::map<std::string, double> out;
  auto it = workers_.find(worker);
  if (it == workers_.end()) return out;
  for (const auto& [resource, amount] : it->second.held.items)
    if (instance_id_[resource] < 0) out[names_[resource]] = static_cast<double>(amount) / kUnit;
  return out;
}

std::string LocalScheduler::check() const {
  std::vector<Amount> sum(names_.size(), 0), lent(names_.size(), 0);
  std::vector<bool> lendable(names_.size(), false);
  std::map<const Group*, uint32_t> users;
  for (const auto& [index, w] : workers_) {
    for (const auto& [r, a] : w.held.items) sum[r] += a;
    lent[w.held.cpu_index] += w.lent;
    if (w.held.group) ++users[w.held.group];
    if (w.lent > w.held.cpu()) return "a worker lends more than it holds";
    if ((w.state == kLeased) != (w.lease != 0) && !w.stopping) return "a lease without its worker";
  }
  lendable[kCpu] = true;
  for (const auto& [id, g] : groups_) {
    if (g.users != users[&g]) return "a group's count of users is wrong";
    if (g.removed && g.users == 0) return "a removed group holds resources for nobody";
    for (const auto& slots : g.slots)
      if (auto cpu = slots.find(kCpu); cpu != slots.end()) lendable[cpu->second] = true;
    if (!g.ready) continue;
    for (const auto& [r, a] : g.need.items) sum[r] += a;
  }
  for (size_t i = 0; i < names_.size(); ++i) {
    if (total_[i] - sum[i] + lent[i] != free_[i]) return "free amount of '" + names_[i] + "' is wrong";
    if (!lendable[i] && free_[i] < 0) return "'" + names_[i] + "' is oversubscribed";
  }
  std::map<uint32_t, uint32_t> held;
  for (const auto& [id, lease] : leases_) {
    ++held[lease.client];
    auto w = workers_.find(lease.worker);
    if (w == workers_.end() || w->second.lease != id)
      return "a lease of a worker that is not its own";
  }
  for (const auto& [index, c] : clients_) {
    if (c.leases != held[index]) return "a client's count of leases is wrong";
    uint32_t have = 0;
    for (const auto& [shape, d] : c.demands) have += d.have;
    if (have != c.leases) return "a client's demands do not add up to its leases";
  }
  return "";
}

}  // namespace ray::sched
