// The decisions of the local scheduler; see round.h.
#include "libray/sched/round.h"

#include <algorithm>
#include <map>
#include <queue>
#include <tuple>
#include <utility>

namespace ray::sched {
namespace {

constexpr size_t kMostUnfit = 64;  // that a round reclaims leases for

}  // namespace

void Round::run() {
  s_.retry_at_ = 0;
  s_.decided_at_ = now_;
  pools_.begin_round(now_);
  leases_.begin_round(now_);
  if (s_.pool_retry_at_ && s_.pool_retry_at_ <= now_) s_.pool_retry_at_ = 0, demands_.stir();
  demands_.begin_round(now_);
  settle_foreign();
  relieve();
  take_turns();
  place_in_order();
  report();
  start_workers();
  if (!unfit_.empty()) reclaim_all();
  table_.restore();
  come_home();
  trim();
  if (options_.checks) check_turns();
}

// ---- placing

// Grants, plans a worker, or says why not.
Round::Placed Round::place(const Waiting& w) {
  Request& q = *w.request;
  if (q.round != demands_.round()) q.round = demands_.round(), q.planned = 0;
  const View free = table_.now();
  if (q.group) groups_.choose_bundle(&q, free);
  const Need& need = q.wants();
  if (barred(need) || !demands_.fits(q, free)) return Placed::kUnfit;
  if (q.kind == Request::kGroup) {
    reserve(static_cast<Group*>(&q));
    return Placed::kGranted;
  }
  Need exact = table_.with_instances(need, free);
  if (Worker* worker = pools_.take_idle(q.pool, w.demand() ? w.demand()->client : UINT32_MAX)) {
    grant(w, exact, worker);
    return Placed::kGranted;
  }
  if (!pools_.plan(q.pool, now_)) return Placed::kNoWorker;
  ++q.planned;
  table_.set_aside(std::move(exact));
  return Placed::kPlanned;
}

void Round::grant(const Waiting& w, const Need& need, Worker* worker) {
  Action action{Action::kGrant};
  action.worker = worker->index;
  Demand* d = w.demand();
  table_.hold(&worker->held, need, d ? Back::kLeased : Back::kNever);
  if (need.group) groups_.use(need.group, worker->index);
  if (d) {
    const Lease& lease = leases_.grant(d->client, d->shape, worker->index, s_.level(d->client), &worker->held, now_);
    pools_.lease(worker, lease.id, d->client);
    demands_.set_level(worker->index, lease.level + 1);
    demands_.granted(d, now_);
    action.client = d->client;
    action.shape = d->shape;
    action.lease = lease.id;
  } else {
    pools_.becomes_actor(worker);
    action.kind = Action::kAssignActor;
    action.id = static_cast<ActorDemand*>(w.request)->actor;
    demands_.cancel_actor(action.id);  // it waits no more
  }
  out_->push_back(action);
}

void Round::reserve(Group* g) {
  groups_.reserve(g);
  demands_.reserved(g);
  wake_at(now_);  // what was to be placed in it has not been looked at
  Action action{Action::kGroupReady};
  action.id = g->id;
  out_->push_back(action);
}

// ---- everybody who has no turn, in order

void Round::place_in_order() {
  bool again = false;
  std::vector<Demands::Walk> walks = demands_.walks(&again);
  if (again) wake_at(now_);
  // Fewest leases first, then whoever waits longest.
  using Next = std::tuple<uint32_t, uint64_t, size_t>;
  std::priority_queue<Next, std::vector<Next>, std::greater<>> queue;
  auto go_on = [&](size_t i) {
    Demands::Walk& walk = walks[i];
    if (walk.at < walk.todo.size()) queue.push({walk.leases, walk.todo[walk.at]->seq, i});
  };
  for (size_t i = 0; i < walks.size(); ++i) go_on(i);
  for (size_t steps = pools_.processes() + pools_.room() + 64; !queue.empty();) {
    size_t i = std::get<2>(queue.top());
    queue.pop();
    Request* q = walks[i].todo[walks[i].at++];
    Waiting w{walks[i].leases, q};
    Demand* d = w.demand();
    bool more = d ? d->line && d->have + d->foreign + demands_.planned(*d) < d->want && demands_.zero_room(*d)
                  : demands_.planned(*q) == 0;
    Placed placed = more && !q->turn_ends ? place(w) : Placed::kNoWorker;
    bool got = placed == Placed::kGranted || placed == Placed::kPlanned;
    if (placed == Placed::kUnfit && more && unfit_.size() < kMostUnfit) unfit_.push_back(w);
    if (got) ++walks[i].leases;
    if (got && d && d->line && steps > 0) --steps, walks[i].todo.push_back(d);
    go_on(i);
  }
}

void Round::report() {
  for (Request* q : demands_.take_hopeless()) {
    Action action{Action::kInfeasible};
    action.text = demands_.infeasible(*q);
    action.elsewhere = q->travels;
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
    out_->push_back(action);
  }
}

// ---- workers

void Round::start_workers() {
  int64_t again_at = 0;
  for (const WorkerPools::Start& start : pools_.start(now_, &again_at)) {
    Action action{Action::kStartWorkers};
    action.pool = start.pool;
    action.count = start.count;
    out_->push_back(action);
  }
  if (again_at) {
    wake_at(again_at);
    if (!s_.pool_retry_at_ || again_at < s_.pool_retry_at_) s_.pool_retry_at_ = again_at;
  }
  if (Worker* w = pools_.in_the_way()) stop_worker(w);
}

void Round::stop_worker(Worker* w) {
  pools_.stop(w, now_);
  Action action{Action::kStopWorker};
  action.worker = w->index;
  out_->push_back(action);
}

void Round::trim() {
  while (Worker* w = pools_.too_old(now_)) stop_worker(w);
}

// ---- reclaiming

// What is free, and what will be at once: reclaimed leases, but those that have been for long.
View Round::soon() {
  if (int64_t late = leases_.next_late()) wake_at(late);
  return table_.soon();
}

void Round::reclaim_all() {
  View free = soon();
  for (const Need& need : turns_)
    for (const auto& [entry, a] : need.items)
      if (barred_.count(entry)) free.change(entry, -a);  // the rest was set aside
  for (const Waiting& w : unfit_) {
    if (!demands_.fits(*w.request, free)) reclaim_for(w, free);
    if (demands_.fits(*w.request, free)) free.take(table_.with_instances(w.request->wants(), free));
  }
}

// Reclaims leases until the request fits, and the view has room for it; none when fairness does not allow enough of them.
void Round::reclaim_for(const Waiting& w, const View& free) {
  if (!demands_.fits(*w.request, free.if_all_are_reclaimed())) return;
  const bool starving = w.leases == 0 || w.request->turn_ends;
  std::vector<uint32_t> missing;
  for (const auto& [entry, a] : w.request->wants().items)
    if (!table_.enough(entry, a, free)) missing.push_back(entry);
  View after = free;
  std::vector<uint32_t> chosen;
  std::map<uint32_t, uint32_t> taken;
  int64_t wait_until = 0;
  ReclaimOrder::Walk walk(&leases_.order(), missing);
  if (w.demand() && !starving) walk.pass_client(w.demand()->client);
  while (!demands_.fits(*w.request, after)) {
    const auto v = walk.next();
    if (!v) break;
    const uint32_t left = v->leases - std::min(v->leases, taken[v->client]);
    if (!v->surplus && left < w.leases + 2) {
      const bool few = v->leases < w.leases + 2;  // from the beginning
      if (few && !starving) break;  // the others have no more
      const int64_t at = v->granted_at + options_.quantum_ns;
      if (!starving || now_ < at) {
        few ? walk.pass_level(v->leases) : walk.pass_client(v->client);  // theirs are no older
        if (starving && (!wait_until || at < wait_until)) wait_until = at;
        continue;
      }
    }
    ++taken[v->client];
    chosen.push_back(v->lease);
    after.give(*leases_.find(v->lease)->held);
  }
  if (!demands_.fits(*w.request, after)) return wait_until ? wake_at(wait_until) : void();
  for (uint32_t lease : chosen) reclaim(lease);
}

void Round::reclaim(uint32_t id) {
  leases_.reclaim(id, now_);
  const Lease& lease = *leases_.find(id);
  Action action{Action::kReclaim};
  action.client = lease.client;
  action.shape = lease.shape;
  action.worker = lease.worker;
  action.lease = lease.id;
  out_->push_back(action);
}

}  // namespace ray::sched
