// The decisions of the local scheduler; see local_scheduler.h. One round: who is due for a turn, everybody else in
// order, workers to start, leases to reclaim, idle workers to end.
#include <algorithm>
#include <queue>
#include <tuple>
#include <utility>

#include "libray/sched/local_scheduler.h"
#include "libray/sched/round.h"

namespace ray::sched {
namespace {

constexpr uint32_t kMaxStarting = 16;  // workers of one pool that start at the same time
constexpr size_t kLook = 32;           // requests of one line that a round looks at, twice: in order, and as they fit
constexpr size_t kMostUnfit = 64;      // that a round reclaims leases for
constexpr int64_t kStartNs = 5'000'000'000;    // resources are kept for a worker that starts for so long
constexpr int64_t kComingNs = 100'000'000;     // a reclaimed lease is counted on for so long, then others are too
constexpr uint32_t kBeyond = 64;               // processes beyond the limit, while all others wait

}  // namespace

// ---- what fits -------------------------------------------------------------------------------------

bool LocalScheduler::fits(const Need& need, const std::vector<Amount>& free) const {
  for (const auto& [r, a] : need.items)
    if (!enough(r, a, free)) return false;
  return true;
}

bool LocalScheduler::fits(const Request& r, const std::vector<Amount>& free) const {
  if (r.kind == Request::kGroup) return fits_group(static_cast<const Group&>(r), free);
  return fits(r.wants(), free);
}

// Tasks that ask for nothing are still bounded: as many at a time as there are processors.
uint32_t LocalScheduler::zero_limit() const {
  return std::max<uint32_t>(1, static_cast<uint32_t>((total_[kCpu] + kUnit - 1) / kUnit));
}

bool LocalScheduler::zero_room(const Demand& d) const {
  if (!d.need.items.empty()) return true;
  return d.have - d.blocked + planned_of(d) < zero_limit();
}

bool LocalScheduler::wants_more(const Request& r) const {
  if (r.kind == Request::kActor) return true;
  if (r.kind == Request::kGroup) {
    const auto& g = static_cast<const Group&>(r);
    return !g.ready && !g.removed;
  }
  const auto& d = static_cast<const Demand&>(r);
  return d.want > d.have && !d.gone && !clients_.at(d.client).paused;
}

uint32_t LocalScheduler::leases_of(const Request& r) const {
  return r.kind == Request::kDemand ? clients_.at(static_cast<const Demand&>(r).client).leases() : 0;
}

// What comes back without anybody's death: all that is leased, but by those who kept it through a whole turn.
std::vector<Amount> LocalScheduler::returnable() const {
  std::vector<Amount> all = free_;
  for (const auto& [id, lease] : leases_) {
    if (lease.slow) continue;
    const Worker& w = workers_.at(lease.worker);
    take(&all, w.held, +1);
    all[w.held.cpu_index] -= w.lent;
  }
  add_ending(&all);
  return all;
}

// What workers hold whose clients are gone: they were killed, and are about to be gone themselves.
void LocalScheduler::add_ending(std::vector<Amount>* all) const {
  for (uint32_t index : ending_) {
    const Worker& w = workers_.at(index);
    take(all, w.held, +1);
    (*all)[w.held.cpu_index] -= w.lent;
  }
}

// What is free, and what will be at once: reclaimed leases, but those that have been for long.
std::vector<Amount> LocalScheduler::coming(const Round& r) {
  std::vector<Amount> all = free_;
  for (const auto& [id, lease] : leases_) {
    int64_t until = lease.reclaimed_at + kComingNs;
    if (!lease.reclaiming || lease.slow || until <= r.now) continue;
    const Worker& w = workers_.at(lease.worker);
    take(&all, w.held, +1);
    all[w.held.cpu_index] -= w.lent;
    wake_at(until);
  }
  add_ending(&all);
  return all;
}

// ---- placing ---------------------------------------------------------------------------------------

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
  idle_.erase({workers_[worker].idle_since, worker});
  return worker;
}

// Grants, plans a worker, or says why not.
LocalScheduler::Placed LocalScheduler::place(Round* r, const Waiting& w) {
  Request& q = *w.request;
  if (q.round != round_) q.round = round_, q.planned = 0;
  if (q.group) choose_bundle(&q, free_);
  const Need& need = q.wants();
  if (barred(need) || !fits(q, free_)) return Placed::kUnfit;
  if (q.kind == Request::kGroup) {
    reserve(r, static_cast<Group*>(&q));
    return Placed::kGranted;
  }
  auto p = pools_.find(q.pool);
  Need exact = with_instances(need, free_);
  if (p != pools_.end() && !p->second.idle.empty()) {
    grant(r, w, exact, pick_idle(&p->second, w.demand() ? w.demand()->client : UINT32_MAX));
    return Placed::kGranted;
  }
  const uint32_t starting = p == pools_.end() ? 0 : p->second.starting;
  const bool one_more = ++r->planned[q.pool] > starting;  // than those that start already
  // Nothing is set aside for a worker that may not come: others can use it meanwhile.
  if (starting && (r->now - p->second.starting_since > kStartNs || p->second.failures > 1)) return Placed::kNoWorker;
  if (!starting && p != pools_.end() && p->second.retry_at > r->now) return Placed::kNoWorker;
  if (one_more && r->room == 0) return Placed::kNoWorker;
  if (one_more) --r->room, ++r->may_start[q.pool];
  ++q.planned;
  take(&free_, exact, -1);
  r->set_aside.push_back(std::move(exact));
  return Placed::kPlanned;
}

void LocalScheduler::grant(Round* r, const Waiting& w, const Need& need, uint32_t index) {
  Worker& worker = workers_[index];
  hold(&worker, need);
  Action action{Action::kGrant};
  action.worker = index;
  if (Demand* d = w.demand()) {
    worker.state = kLeased;
    worker.last_client = d->client;
    while (next_lease_ == 0 || leases_.count(next_lease_)) ++next_lease_;  // around once, in weeks: 0 is none
    worker.lease = next_lease_++;
    leases_[worker.lease] = {worker.lease, d->client, d->shape, index, level(d->client), r->now};
    clients_.at(d->client).held.insert(worker.lease);
    ++d->have;
    count_open(d);
    leave(d);  // and to the end of its line, if it wants more
    d->turns = 0;
    settle(d);
    if (d->line) wait_anew(d, r->now);
    action.client = d->client;
    action.shape = d->shape;
    action.lease = worker.lease;
  } else {
    worker.state = kActor;
    action.kind = Action::kAssignActor;
    action.id = static_cast<ActorDemand*>(w.request)->actor;
    cancel_actor(action.id);  // it waits no more
  }
  r->out->push_back(action);
}

// ---- turns -----------------------------------------------------------------------------------------

void LocalScheduler::bar(Round* r, const Need& need) {
  Need rest;
  for (const auto& [res, a] : need.items)
    if (enough(res, a, free_) && !instances_.count(res))
      rest.items.emplace_back(res, a);  // of what is there in plenty others may have the rest
    else
      barred_[res] = round_;
  take(&free_, rest, -1);
  r->set_aside.push_back(std::move(rest));
}

bool LocalScheduler::barred(const Need& need) const {
  for (const auto& [res, a] : need.items)
    if (barred_[res] == round_) return true;
  return false;
}

// It brought nothing: what was reclaimed for it and is still away is held by something that takes long.
void LocalScheduler::end_turn(Request* q, int64_t now) {
  int64_t length = options_.turn_ns << std::min(q->turns, options_.max_turn_shift);
  for (auto& [id, lease] : leases_)
    if (lease.reclaiming && lease.reclaimed_at <= now - length / 2 && !std::exchange(lease.slow, true)) {
      slowed_at_ = now;  // who has been looked at and counted on it finds that out in the next decision
      wake_at(now + 1);
    }
  ++q->turns;
  q->turn_ends = 0;
  ++freed_;
  set_due(q, now + options_.age_ns);
}

// It is due, and does not fit. Whether it has its turn now.
bool LocalScheduler::has_turn(Round* r, const Waiting& w) {
  Request* q = w.request;
  if (q->turn_ends && q->turn_ends <= r->now) {
    end_turn(q, r->now);
    return false;
  }
  std::vector<Amount> all = returnable();
  if (q->group) choose_bundle(q, all);
  if (!q->turn_ends && barred(q->wants())) return false;  // somebody else's turn: its own comes next
  if (!fits(*q, all)) {
    if (q->turn_ends) ++freed_;
    q->turn_ends = 0;
    set_due(q, r->now + options_.age_ns);
    return false;
  }
  if (q->turn_ends) return true;
  q->turn_ends = r->now + (options_.turn_ns << std::min(q->turns, options_.max_turn_shift));
  return true;
}

// Calls of a recursion wait for leases of the shape that their client has already.
int64_t LocalScheduler::extra_pause(bool same_shape) const {
  const double levels = blocked_ / 8.0, squared = levels * levels;
  return static_cast<int64_t>(static_cast<double>(options_.age_ns) * (1 + (same_shape ? squared * squared : squared)));
}

// Those who have waited too long, in the order in which they were due. Who has leases already may go first only
// now and then, and the less often the more workers are blocked: these are levels of a recursion, whose calls
// would else run side by side and need ever more workers.
void LocalScheduler::take_turns(Round* r) {
  size_t looks = 0;
  for (auto it = due_.begin(); it != due_.end() && it->at <= r->now && looks < kLook; ++looks) {
    Request* q = (it++)->request;
    Waiting w{leases_of(*q), q};
    bool extra = w.leases > 0 && !q->turn_ends;
    const bool same_shape = w.leases > 0 && w.demand()->have > 0;
    int64_t& next_extra = next_extra_turn_[same_shape];
    if (extra && r->now < next_extra) {
      set_due(q, next_extra);
      continue;
    }
    if (w.demand() && !zero_room(*w.demand())) {
      set_due(q, r->now + options_.age_ns);
      continue;
    }
    Placed placed = place(r, w);
    if (placed == Placed::kNoWorker) ask_for_process(r, q);
    if (placed == Placed::kUnfit && !has_turn(r, w)) continue;
    if (extra && placed != Placed::kNoWorker) next_extra = r->now + extra_pause(same_shape);
    if (placed != Placed::kUnfit) continue;
    std::vector<Amount> free = coming(*r);
    if (!fits(*q, free)) pick_victims(r, w, &free);
    bar(r, q->wants());
    r->turns.push_back(q->wants());
    wake_at(q->turn_ends);
  }
}

// It fits, but there is no worker for it. When the node has as many processes as it may have, an idle one of another
// pool ends for it, or the oldest lease of a worker that does not wait comes back.
void LocalScheduler::ask_for_process(Round* r, Request* q) {
  auto p = pools_.find(q->pool);
  bool comes = p != pools_.end() && (p->second.starting > 0 || p->second.retry_at > r->now);
  if (r->room > 0 || comes) {  // a turn was for what it has found now; its worker comes, or does not, by itself
    if (std::exchange(q->turn_ends, 0)) ++freed_;
    return set_due(q, r->now + options_.age_ns);
  }
  if (q->turn_ends && q->turn_ends <= r->now) return end_turn(q, r->now);
  if (!q->turn_ends) q->turn_ends = r->now + (options_.turn_ns << std::min(q->turns, options_.max_turn_shift));
  wake_at(q->turn_ends);
  bar(r, q->wants());
  if (!leaving_.empty()) return;  // that one makes room
  for (const auto& [since, index] : idle_)
    if (Worker& w = workers_.at(index); w.pool != q->pool) return stop_worker(&w, r->out);
  Lease* oldest = nullptr;
  int64_t comes_until = 0;
  for (auto& [id, lease] : leases_) {
    if (lease.slow || workers_.at(lease.worker).blocked || demand_of(lease) == q) continue;
    if (lease.reclaiming) {
      int64_t until = lease.reclaimed_at + kComingNs;
      if (until > r->now && (!comes_until || until < comes_until)) comes_until = until;
      continue;
    }
    if (lease.granted_at + options_.quantum_ns > r->now) continue;
    if (!oldest || std::pair(lease.granted_at, id) < std::pair(oldest->granted_at, oldest->id)) oldest = &lease;
  }
  if (comes_until) return wake_at(comes_until);
  if (oldest) reclaim(r, oldest);
}

// Whether all that is leased waits, at the limit of processes: nothing comes back before somebody else has a worker.
bool LocalScheduler::stuck() const {
  if (workers_.size() + starting_ < options_.max_workers || !blocked_ || !ending_.empty()) return false;
  return std::none_of(leases_.begin(), leases_.end(), [this](const auto& l) {
    return !l.second.slow && !workers_.at(l.second.worker).blocked;
  });
}

// Then one that waits has a worker, beyond the limit if need be: of those for whom tasks wait the deepest, so that it
// takes as many more as the recursion has levels, and not as many as it has calls.
void LocalScheduler::relieve(Round* r) {
  if (!stuck()) return;
  const std::vector<Waiting> all = deepest_first();
  auto has_idle = [this](const Pool& pool) {
    auto p = pools_.find(pool);
    return p != pools_.end() && !p->second.idle.empty();
  };
  for (const Waiting& w : all)  // by whoever is there already
    if (has_idle(w.request->pool) && place(r, w) == Placed::kGranted) return;
  const bool may_exceed = !starting_ && leaving_.empty() && idle_.empty() && workers_.size() < options_.max_workers + kBeyond;
  for (const Waiting& w : all) {
    r->room = may_exceed;
    const Placed placed = place(r, w);
    r->room = 0;
    if (placed == Placed::kPlanned) return;
    if (placed != Placed::kNoWorker) continue;
    if (leaving_.empty() && !idle_.empty()) return stop_worker(&workers_.at(idle_.begin()->second), r->out);
    if (!may_exceed) return;
  }
}

// Those whose client has the most levels above it, then those whose client has fewest leases.
std::vector<LocalScheduler::Waiting> LocalScheduler::deepest_first() {
  std::vector<std::tuple<int64_t, uint32_t, uint32_t>> order;  // -level, leases, client
  for (uint32_t client : waiting_clients_)
    order.emplace_back(-static_cast<int64_t>(level(client)), clients_.at(client).leases(), client);
  std::sort(order.begin(), order.end());
  std::vector<Waiting> all;
  auto add = [&all, this](const Line& line, uint32_t leases) {
    size_t n = 0;
    for (auto it = line.by_seq.begin(); it != line.by_seq.end() && n < kLook; ++it, ++n) {
      Waiting w{leases, it->second};
      if (!w.demand() || zero_room(*w.demand())) all.push_back(w);
    }
  };
  for (const auto& [level, leases, client] : order) add(clients_.at(client).line, leases);
  add(actor_line_, 0);
  return all;
}

// How many tasks above wait for its tasks: none for a driver's.
uint32_t LocalScheduler::level(uint32_t client) const {
  auto w = workers_.find(client);
  auto lease = w == workers_.end() ? leases_.end() : leases_.find(w->second.lease);
  return lease == leases_.end() ? 0 : lease->second.level + 1;
}

// ---- everybody else, in order ----------------------------------------------------------------------

// Those of a line that this round looks at: the first, the new, and some more that may fit as far as the node's CPUs
// go; the next round goes on where this one stops, until nothing has been freed since the look began.
void LocalScheduler::candidates(Line* line, std::vector<Request*>* out) {
  auto add = [this, out](Request* q) {
    if (std::exchange(q->listed, round_) != round_) out->push_back(q);
  };
  size_t n = 0;
  for (auto it = line->by_seq.begin(); it != line->by_seq.end() && n < kLook; ++it, ++n) add(it->second);
  for (uint64_t seq : line->fresh) add(line->by_seq.at(seq));
  line->fresh.clear();
  if (line->by_seq.size() <= kLook) return;
  line->again |= std::exchange(line->freed, freed_) != freed_;
  if (line->done) {
    if (!line->again) return;
    line->done = line->again = false;
    line->look_at = {0, 0};
  }
  n = 0;
  for (auto it = line->by_cpu.lower_bound(line->look_at); it != line->by_cpu.end(); ++it) {
    if (it->first > 0 && it->first > free_[kCpu]) break;
    if (n++ == kLook) {
      line->look_at = *it;
      return wake_at(decided_at_);
    }
    add(line->by_seq.at(it->second));
  }
  line->done = true;
  if (line->again) wake_at(decided_at_);
}

void LocalScheduler::place_in_order(Round* r) {
  struct Walk {
    uint32_t leases;
    std::vector<Request*> todo;
    size_t at = 0;
  };
  std::vector<Walk> walks;
  auto add = [&](Line* line, uint32_t leases) {
    walks.push_back({leases, {}});
    candidates(line, &walks.back().todo);
  };
  if (!group_line_.by_seq.empty()) add(&group_line_, 0);
  if (!actor_line_.by_seq.empty()) add(&actor_line_, 0);
  for (uint32_t index : waiting_clients_) {
    Client& c = clients_.at(index);
    add(&c.line, c.leases());
  }
  // Fewest leases first, then whoever waits longest.
  using Next = std::tuple<uint32_t, uint64_t, size_t>;
  std::priority_queue<Next, std::vector<Next>, std::greater<>> queue;
  auto go_on = [&](size_t i) {
    Walk& walk = walks[i];
    if (walk.at < walk.todo.size()) queue.push({walk.leases, walk.todo[walk.at]->seq, i});
  };
  for (size_t i = 0; i < walks.size(); ++i) go_on(i);
  for (size_t steps = workers_.size() + starting_ + r->room + 64; !queue.empty();) {
    size_t i = std::get<2>(queue.top());
    queue.pop();
    Request* q = walks[i].todo[walks[i].at++];
    Waiting w{walks[i].leases, q};
    Demand* d = w.demand();
    bool more = !d || (d->line && d->have + planned_of(*d) < d->want && zero_room(*d));
    Placed placed = more && !q->turn_ends ? place(r, w) : Placed::kNoWorker;
    bool got = placed == Placed::kGranted || placed == Placed::kPlanned;
    if (placed == Placed::kUnfit && more && r->unfit.size() < kMostUnfit) r->unfit.push_back(w);
    if (got) ++walks[i].leases;
    if (got && d && d->line && steps > 0) --steps, walks[i].todo.push_back(d);
    go_on(i);
  }
}

void LocalScheduler::report(Actions* out) {
  for (Request* q : std::exchange(hopeless_, {})) {
    Action action{Action::kInfeasible};
    action.text = infeasible_reason(*q);
    if (q->kind == Request::kDemand) {
      auto* d = static_cast<Demand*>(q);
      action.id = d->example;
      action.client = d->client;
      action.shape = d->shape;
    } else if (q->kind == Request::kActor) {
      action.kind = Action::kActorInfeasible;
      action.id = static_cast<ActorDemand*>(q)->actor;
    } else {
      action.kind = Action::kGroupInfeasible;
      action.id = static_cast<Group*>(q)->id;
    }
    out->push_back(action);
  }
}

void LocalScheduler::schedule(int64_t now, Actions* out) {
  retry_at_ = 0;
  decided_at_ = now;
  ++round_;
  Round r;
  r.now = now;
  r.out = out;
  uint32_t processes = static_cast<uint32_t>(workers_.size()) + starting_;
  r.room = processes < options_.max_workers ? options_.max_workers - processes : 0;
  if (pool_retry_at_ && pool_retry_at_ <= now) pool_retry_at_ = 0, ++freed_;
  while (!due_.empty() && due_.begin()->at == 0) wait_anew(due_.begin()->request, now);
  relieve(&r);
  take_turns(&r);
  place_in_order(&r);
  report(out);
  start_workers(&r);
  if (!r.unfit.empty()) reclaim_for(&r);
  for (const Need& need : r.set_aside) take(&free_, need, +1);
  trim(now, out);
  if (options_.checks) check_turns();
}

// ---- workers ---------------------------------------------------------------------------------------

void LocalScheduler::start_workers(Round* r) {
  std::map<Pool, uint32_t> needs = r->planned;
  for (const auto& [pool, n] : prestart_) needs[pool] = std::max(needs[pool], n);
  for (const auto& [pool, need] : needs) {
    PoolState& p = pools_[pool];
    if (need <= p.starting) continue;
    if (p.retry_at > r->now) {
      wake_at(p.retry_at);
      if (!pool_retry_at_ || p.retry_at < pool_retry_at_) pool_retry_at_ = p.retry_at;
      continue;
    }
    uint32_t n = std::min(need - p.starting, kMaxStarting - std::min(kMaxStarting, p.starting));
    if (p.failures > 0) n = std::min(n, p.starting ? 0u : 1u);  // a crashing command: one at a time
    const uint32_t allowed = r->may_start[pool];
    n = std::min(n, allowed + r->room);
    if (n == 0) continue;
    if (!p.starting) p.starting_since = r->now;
    r->room -= n - std::min(n, allowed);
    p.starting += n;
    starting_ += n;
    prestart_.erase(pool);
    Action action{Action::kStartWorkers};
    action.pool = pool;
    action.count = n;
    r->out->push_back(action);
  }
  if (workers_.size() + starting_ >= options_.max_workers) make_room(r);
  for (const auto& [pool, need] : needs) tidy(pool);
}

// At the limit of processes an idle worker of another pool makes room.
void LocalScheduler::make_room(Round* r) {
  for (const auto& [pool, n] : r->planned)
    for (const auto& [since, index] : idle_) {
      Worker& w = workers_.at(index);
      if (w.pool == pool) continue;
      return stop_worker(&w, r->out);
    }
}

void LocalScheduler::stop_worker(Worker* w, Actions* out) {
  remove_idle(w);
  tidy(w->pool);
  w->stopping = true;
  leaving_.insert(w->index);
  Action action{Action::kStopWorker};
  action.worker = w->index;
  out->push_back(action);
}

// Of the whole node's idle workers as many stay as there are processors, those that were used last, and none beyond
// the limit of processes.
bool LocalScheduler::too_many_idle() const {
  if (idle_.empty()) return false;
  return idle_.size() > zero_limit() || workers_.size() > options_.max_workers + leaving_.size();
}

void LocalScheduler::trim(int64_t now, Actions* out) {
  while (too_many_idle() && idle_.begin()->first + options_.idle_ns <= now)
    stop_worker(&workers_.at(idle_.begin()->second), out);
}

int64_t LocalScheduler::next_deadline(int64_t now) const {
  int64_t at = retry_at_;
  auto earlier = [&at](int64_t t) {
    if (!at || t < at) at = t;
  };
  if (too_many_idle()) earlier(idle_.begin()->first + options_.idle_ns);
  // Who was due in the last round and did not get it waits for something that happens, or for the end of a turn.
  if (!due_.empty() && due_.begin()->at == 0) return now;
  auto due = due_.lower_bound({decided_at_ + 1, 0, nullptr});
  if (due != due_.end()) earlier(due->at);
  return at && at <= now ? now : at;
}

// ---- reclaiming ------------------------------------------------------------------------------------

void LocalScheduler::reclaim_for(Round* r) {
  std::vector<Amount> free = coming(*r);
  for (const Need& need : r->turns)
    for (const auto& [res, a] : need.items)
      if (barred_[res] == round_) free[res] -= a;  // the rest was set aside
  for (const Waiting& w : r->unfit) {
    if (!fits(*w.request, free)) pick_victims(r, w, &free);
    if (fits(*w.request, free)) take(&free, with_instances(w.request->wants(), free), -1);
  }
}

// Leases whose end would give back something that is missing, those first that may go first.
std::vector<LocalScheduler::Victim> LocalScheduler::victims_in_order(const Waiting& w,
                                                                     const std::vector<Amount>& free) {
  std::vector<std::pair<uint32_t, Amount>> missing;
  for (const auto& [res, a] : w.request->wants().items)
    if (!enough(res, a, free)) missing.emplace_back(res, a);
  bool own = w.leases == 0 || w.request->turn_ends;
  std::vector<Victim> victims;
  for (auto& [id, lease] : leases_) {
    if (lease.reclaiming) continue;
    const Client& c = clients_.at(lease.client);
    const Demand& d = c.demands.at(lease.shape);
    const bool surplus = d.want < d.have || c.paused;
    if (w.demand() && lease.client == w.demand()->client && !own && !surplus) continue;
    const Worker& worker = workers_.at(lease.worker);
    bool helps = false;
    for (const auto& [res, a] : missing)
      for (const auto& [held, amount] : worker.held.items)
        helps |= held == res && (res != worker.held.cpu_index || amount > worker.lent);
    if (!helps) continue;
    victims.push_back({&lease, surplus, c.leases() - c.reclaiming});
  }
  std::sort(victims.begin(), victims.end(), [](const Victim& a, const Victim& b) {
    if (a.surplus != b.surplus) return a.surplus;
    if (a.client_leases != b.client_leases) return a.client_leases > b.client_leases;
    if (a.lease->granted_at != b.lease->granted_at) return a.lease->granted_at < b.lease->granted_at;
    return a.lease->id < b.lease->id;
  });
  return victims;
}

// Reclaims leases until the request fits; none when fairness does not allow enough of them.
void LocalScheduler::pick_victims(Round* r, const Waiting& w, std::vector<Amount>* free) {
  bool starving = w.leases == 0 || w.request->turn_ends;
  std::vector<Amount> after = *free;
  std::vector<Lease*> chosen;
  std::map<uint32_t, uint32_t> taken;
  int64_t wait_until = 0;
  for (const Victim& v : victims_in_order(w, *free)) {
    if (fits(*w.request, after)) break;
    uint32_t left = v.client_leases - std::min(v.client_leases, taken[v.lease->client]);
    if (!v.surplus && left < w.leases + 2) {
      if (!starving) continue;
      int64_t at = v.lease->granted_at + options_.quantum_ns;
      if (r->now < at) {
        if (!wait_until || at < wait_until) wait_until = at;
        continue;
      }
    }
    ++taken[v.lease->client];
    chosen.push_back(v.lease);
    const Worker& worker = workers_.at(v.lease->worker);
    take(&after, worker.held, +1);
    after[worker.held.cpu_index] -= worker.lent;
  }
  if (!fits(*w.request, after)) return wait_until ? wake_at(wait_until) : void();
  for (Lease* lease : chosen) reclaim(r, lease);
  *free = std::move(after);
}

void LocalScheduler::reclaim(Round* r, Lease* lease) {
  lease->reclaiming = true;
  lease->reclaimed_at = r->now;
  ++clients_.at(lease->client).reclaiming;
  Action action{Action::kReclaim};
  action.client = lease->client;
  action.shape = lease->shape;
  action.worker = lease->worker;
  action.lease = lease->id;
  r->out->push_back(action);
}

}  // namespace ray::sched
