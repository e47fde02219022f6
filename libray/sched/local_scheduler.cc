// See local_scheduler.h. Here: what the events change. The decisions are in round.cc and turns.cc.
#include "libray/sched/local_scheduler.h"

#include <utility>

#include "libray/sched/round.h"

namespace ray::sched {

LocalScheduler::LocalScheduler(const SchedulerOptions& options)
    : options_(options),
      table_(options.total, options.instanced),
      groups_(&table_),
      leases_(&table_),
      demands_(&table_, &groups_, &leases_, options.age_ns, options.spill_ns),
      pools_({options.max_workers, table_.processors(), options.idle_ns}) {}

// ---- clients

Status LocalScheduler::define_shape(uint32_t client, uint32_t shape, const Resources& resources, Pool pool,
                                    const Placement& placement) {
  Status s = demands_.define(client, shape, resources, pool, placement);
  demands_.set_level(client, level(client));
  return s;
}

Status LocalScheduler::want(uint32_t client, uint32_t shape, uint32_t want, const TaskId& example) {
  return demands_.want(client, shape, want, example);
}

void LocalScheduler::pause_client(uint32_t client, bool paused) { demands_.pause(client, paused); }

std::vector<LocalScheduler::Overdue> LocalScheduler::overdue(int64_t since) const {
  std::vector<Overdue> out;
  for (const Lease* l : leases_.overdue(since))
    if (!demands_.wants_or_has(l->worker)) out.push_back({l->client, l->worker});
  return out;
}

bool LocalScheduler::holds(uint32_t client, uint32_t worker, uint32_t lease) const {
  if (const Foreign* f = foreign_.find(worker)) return f->lease && f->lease == lease && f->client == client;
  const Lease* l = leases_.find(lease);
  return l && l->client == client && l->worker == worker;
}

std::vector<uint32_t> LocalScheduler::workers_of(uint32_t client) const {
  std::vector<uint32_t> workers;
  for (uint32_t id : leases_.of(client)) workers.push_back(leases_.find(id)->worker);
  workers.insert(workers.end(), foreign_.of(client).begin(), foreign_.of(client).end());
  return workers;
}

Status LocalScheduler::return_lease(uint32_t client, uint32_t worker, uint32_t lease, int64_t now) {
  // Not an error when unknown: the worker may have died while the return was on its way.
  if (!holds(client, worker, lease)) return Status();
  if (Foreign* f = foreign_.find(worker)) end_foreign(f, true);
  else end_lease(lease, true, now);
  return Status();
}

std::vector<uint32_t> LocalScheduler::client_gone(uint32_t client, int64_t now) {
  std::vector<uint32_t> workers;
  if (!demands_.knows(client)) return workers;
  demands_.pause(client, true);  // nothing more for it
  for (uint32_t id : std::set<uint32_t>(leases_.of(client))) {
    workers.push_back(leases_.find(id)->worker);
    end_lease(id, false, now);
  }
  for (uint32_t worker : std::set<uint32_t>(foreign_.of(client))) {
    workers.push_back(worker);
    end_foreign(foreign_.find(worker), false);
  }
  demands_.forget(client);
  return workers;
}

void LocalScheduler::end_lease(uint32_t id, bool given_back, int64_t now) {
  const Lease lease = leases_.end(id);
  demands_.returned(demands_.find(lease.client, lease.shape), lease.waits, now);
  Worker* w = pools_.find(lease.worker);
  w->lease = 0;
  demands_.set_level(lease.worker, 0);
  // A worker whose client is gone may still run its task: what it holds is free when it is gone.
  if (!given_back) {
    w->stopping = true;
    ending_[lease.worker] = now;
    return table_.comes_back(&w->held, Back::kEnding);
  }
  drop_held(w);
  w->killed ? pools_.stop(w, now) : pools_.make_idle(w, now);
}

uint32_t LocalScheduler::level(uint32_t client) const {
  const Worker* w = pools_.find(client);
  const Lease* l = w ? leases_.find(w->lease) : nullptr;
  return l ? l->level + 1 : 0;
}

// ---- workers

void LocalScheduler::drop_held(Worker* w) {
  Group* group = w->held.need.group;
  table_.drop(&w->held);
  pools_.set_blocked(w, false);
  demands_.stir();
  if (group && groups_.leave(group, w->index)) give_back(group);
}

void LocalScheduler::prestart(Pool pool, uint32_t count) { pools_.prestart(pool, count); }

void LocalScheduler::worker_ready(uint32_t worker, Pool pool, int64_t now) {
  pools_.ready(worker, pool, now);
  demands_.stir();
}

void LocalScheduler::worker_start_failed(Pool pool, int64_t now) {
  pools_.start_failed(pool, now);
  demands_.stir();
}

void LocalScheduler::worker_gone(uint32_t worker, int64_t now) {
  if (Foreign* f = foreign_.find(worker)) {
    end_foreign(f, false);
    return foreign_.forget(worker);
  }
  Worker* w = pools_.find(worker);
  if (!w) return;
  if (w->lease) end_lease(w->lease, false, now);
  drop_held(w);
  ending_.erase(worker);
  pools_.forget(worker);
}

void LocalScheduler::worker_killed(uint32_t worker) {
  if (Foreign* f = foreign_.find(worker)) foreign_.kill(f);
  if (Worker* w = pools_.find(worker)) pools_.kill(w);
}

void LocalScheduler::worker_blocked(uint32_t worker, bool blocked) {
  Worker* w = pools_.find(worker);
  if (!w || w->state == WorkerState::kIdle || w->blocked == blocked) return;
  pools_.set_blocked(w, blocked);
  if (const Lease* l = leases_.find(w->lease)) {
    if (Demand* d = demands_.find(l->client, l->shape)) demands_.blocked(d, blocked);
    leases_.waits(l->id, blocked);
  } else {
    table_.lend(&w->held, blocked);
  }
  demands_.stir();
}

// What started there is counted no more: there may be room for others.
void LocalScheduler::job_ended(uint32_t job) {
  pools_.job_ended(job);
  demands_.stir();
}

void LocalScheduler::env_gone(uint32_t env) {
  pools_.env_gone(env);
  demands_.stir();
}

// ---- actors

void LocalScheduler::want_actor(const ActorId& actor, const Resources& resources, Pool pool,
                                const Placement& placement) {
  demands_.want_actor(actor, resources, pool, placement);
}

void LocalScheduler::cancel_actor(const ActorId& actor) { demands_.cancel_actor(actor); }

// ---- groups

Status LocalScheduler::create_group(const Id& group, const std::vector<Resources>& bundles, bool apart) {
  Group* made = nullptr;
  RAY_TRY(groups_.create(group, bundles, apart, &made));
  demands_.want_group(made);
  return Status();
}

bool LocalScheduler::has_group(const Id& group) const { return groups_.living(group) != nullptr; }

LocalScheduler::Removed LocalScheduler::remove_group(const Id& id) {
  Removed out;
  Group* g = groups_.find(id);
  if (!g || g->removed) return out;
  g->removed = true;
  Demands::LeftBehind left = demands_.removed(g);
  out.shapes = std::move(left.shapes);
  out.actors = std::move(left.actors);
  out.workers.assign(g->users.begin(), g->users.end());
  if (g->users.empty()) give_back(g);
  return out;
}

// The end of a removed group that nothing runs in any more.
void LocalScheduler::give_back(Group* g) {
  demands_.forget(g);
  groups_.give_back(g);
  demands_.stir();
}

// ---- decisions

void LocalScheduler::schedule(int64_t now, Actions* out) { Round(this, now, out).run(); }

int64_t LocalScheduler::next_deadline(int64_t now) const {
  int64_t at = foreign_.busy() ? 1 : 0;
  // Who was due in the last round and did not get it waits for something that happens, or for the end of a turn; and the last
  // round has ended all idle workers that were too many then: one that was granted and came straight back, for want of a link,
  // is no reason to decide once more.
  const int64_t old = pools_.next_too_old();
  for (int64_t t : {retry_at_, old > decided_at_ ? old : 0, demands_.next_due(decided_at_)})
    if (t && (!at || t < at)) at = t;
  return at && at <= now ? now : at;
}

}  // namespace ray::sched
