// See worker_pools.h.
#include "libray/sched/worker_pools.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace ray::sched {
namespace {

constexpr int64_t kRetryNs = 500'000'000;    // after a second failure; twice as long after each further one
constexpr uint32_t kMaxStarting = 16;        // workers of one pool that start at the same time
constexpr int64_t kStartNs = 5'000'000'000;  // one that starts is counted on for so long
constexpr int64_t kLeaveNs = 5'000'000'000;  // so is one that was told to end, or killed
constexpr size_t kLook = 32;                 // idle workers among which a client's own is looked for

}  // namespace

WorkerPools::State* WorkerPools::find(const Pool& pool) {
  auto p = pools_.find(pool);
  return p == pools_.end() ? nullptr : &p->second;
}

const WorkerPools::State* WorkerPools::find(const Pool& pool) const { return const_cast<WorkerPools*>(this)->find(pool); }

Worker* WorkerPools::find(uint32_t worker) {
  auto w = workers_.find(worker);
  return w == workers_.end() ? nullptr : &w->second;
}

const Worker* WorkerPools::find(uint32_t worker) const { return const_cast<WorkerPools*>(this)->find(worker); }

void WorkerPools::tidy(const Pool& pool) {
  const State* p = find(pool);
  if (p && p->idle.empty() && !p->starting && !p->failures) pools_.erase(pool);
}

// ---- what happens to them

// One of those that start there is ready, or has failed.
WorkerPools::State* WorkerPools::not_starting(const Pool& pool) {
  State* p = find(pool);
  if (p && p->starting > 0) --p->starting, --starting_;
  return p;
}

void WorkerPools::ready(uint32_t worker, const Pool& pool, int64_t now) {
  if (State* p = not_starting(pool)) {
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

void WorkerPools::start_failed(const Pool& pool, int64_t now) {
  State* p = not_starting(pool);
  if (!p) return;
  prestart_.erase(pool);
  ++p->failures;
  // One failure may be bad luck (killed from outside); after more, wait longer each time.
  p->retry_at = p->failures < 2 ? now : now + (kRetryNs << std::min(p->failures - 2, 5u));
}

void WorkerPools::forget(uint32_t worker) {
  Worker& w = workers_.at(worker);
  set_blocked(&w, false);
  leaving_.erase(worker);
  actors_ -= w.state == WorkerState::kActor;
  if (w.state == WorkerState::kIdle) take_out(&w);
  const Pool pool = w.pool;
  workers_.erase(worker);
  tidy(pool);
}

void WorkerPools::kill(Worker* w) {
  w->killed = true;
  if (w->state == WorkerState::kIdle && !w->stopping) stop(w);
}

void WorkerPools::leaves(Worker* w, int64_t now) {
  w->stopping = true;
  leaving_[w->index] = now;
  if (!now) told_.push_back(w->index);
}

void WorkerPools::stop(Worker* w, int64_t now) {
  if (w->state == WorkerState::kIdle) take_out(w);
  tidy(w->pool);
  leaves(w, now);
}

void WorkerPools::make_idle(Worker* w, int64_t now) {
  w->state = WorkerState::kIdle;
  w->idle_since = now;
  w->idle_place = next_place_++;
  pools_[w->pool].idle[w->idle_place] = w->index;
  idle_.insert({now, w->index});
}

void WorkerPools::take_out(Worker* w) {
  idle_.erase({w->idle_since, w->index});
  if (State* p = find(w->pool)) p->idle.erase(w->idle_place);
}

void WorkerPools::lease(Worker* w, uint32_t lease, uint32_t client) {
  w->state = WorkerState::kLeased;
  w->lease = lease;
  w->last_client = client;
}

void WorkerPools::becomes_actor(Worker* w) {
  w->state = WorkerState::kActor;
  ++actors_;
}

void WorkerPools::set_blocked(Worker* w, bool yes) {
  if (w->blocked == yes) return;
  w->blocked = yes;
  blocked_ += yes ? 1u : -1u;
}

void WorkerPools::prestart(const Pool& pool, uint32_t count) { prestart_[pool] = std::max(prestart_[pool], count); }

void WorkerPools::job_ended(uint32_t job) {
  std::erase_if(prestart_, [job](const auto& p) { return p.first.job == job; });
  std::erase_if(pools_, [this, job](const auto& p) {
    if (p.first.job != job) return false;
    starting_ -= p.second.starting;
    for (const auto& [place, index] : p.second.idle) {
      Worker& w = workers_.at(index);
      idle_.erase({w.idle_since, index});
      leaves(&w, 0);
    }
    return true;
  });
}

void WorkerPools::env_gone(uint32_t env) {
  std::erase_if(pools_, [this, env](const auto& p) {
    bool gone = p.first.env == env && p.second.idle.empty();
    if (gone) starting_ -= p.second.starting;
    return gone;
  });
}

// ---- a round

void WorkerPools::begin_round(int64_t now) {
  for (uint32_t worker : std::exchange(told_, {}))
    if (auto w = leaving_.find(worker); w != leaving_.end() && !w->second) w->second = now;
  planned_.clear();
  may_start_.clear();
  room_ = limits_.most - std::min(limits_.most, processes());
}

int64_t WorkerPools::starts_until() const {
  int64_t until = 0;
  if (!starting_) return 0;
  for (const auto& [pool, p] : pools_)
    if (p.starting) until = std::max(until, p.starting_since + kStartNs + 1);
  return until;
}

int64_t WorkerPools::leaves_until() const {
  int64_t until = 0;
  for (const auto& [worker, since] : leaving_) until = std::max(until, since + kLeaveNs);
  return until;
}

bool WorkerPools::has_idle(const Pool& pool) const {
  const State* p = find(pool);
  return p && !p->idle.empty();
}

Worker* WorkerPools::take_idle(const Pool& pool, uint32_t client) {
  State* p = find(pool);
  if (!p || p->idle.empty()) return nullptr;
  // One that already has a link to this client saves making another.
  auto chosen = std::prev(p->idle.end());
  size_t look = 0;
  for (auto it = p->idle.rbegin(); it != p->idle.rend() && look < kLook; ++it, ++look)
    if (workers_.at(it->second).last_client == client) {
      chosen = std::prev(it.base());
      break;
    }
  Worker* w = &workers_.at(chosen->second);
  take_out(w);
  return w;
}

bool WorkerPools::plan(const Pool& pool, int64_t now) {
  const State* p = find(pool);
  const uint32_t starting = p ? p->starting : 0;
  const bool one_more = ++planned_[pool] > starting;  // than those that start already
  // Nothing is set aside for a worker that may not come: others can use it meanwhile.
  if (starting && (now - p->starting_since > kStartNs || p->failures > 1)) return false;
  if (!starting && p && p->retry_at > now) return false;
  if (one_more && room_ == 0) return false;
  if (one_more) --room_, ++may_start_[pool];
  return true;
}

bool WorkerPools::comes(const Pool& pool, int64_t now) const {
  const State* p = find(pool);
  return p && (p->starting > 0 || p->retry_at > now);
}

std::vector<WorkerPools::Start> WorkerPools::start(int64_t now, int64_t* again_at) {
  *again_at = 0;
  std::vector<Start> out;
  std::map<Pool, uint32_t> needs = planned_;
  for (const auto& [pool, n] : prestart_) needs[pool] = std::max(needs[pool], n);
  for (const auto& [pool, need] : needs) {
    State& p = pools_[pool];
    if (need <= p.starting) continue;
    if (p.retry_at > now) {
      if (!*again_at || p.retry_at < *again_at) *again_at = p.retry_at;
      continue;
    }
    uint32_t n = std::min(need - p.starting, kMaxStarting - std::min(kMaxStarting, p.starting));
    if (p.failures > 0) n = std::min(n, p.starting ? 0u : 1u);  // a crashing command: one at a time
    const uint32_t allowed = may_start_[pool];
    n = std::min(n, allowed + room_);
    if (n == 0) continue;
    if (!p.starting) p.starting_since = now;
    room_ -= n - std::min(n, allowed);
    p.starting += n;
    starting_ += n;
    prestart_.erase(pool);
    out.push_back({pool, n});
  }
  for (const auto& [pool, need] : needs) tidy(pool);
  return out;
}

Worker* WorkerPools::in_the_way() {
  if (processes() < limits_.most) return nullptr;
  for (const auto& [pool, need] : planned_)
    if (Worker* w = idle_of_another(pool)) return w;
  return nullptr;
}

Worker* WorkerPools::idle_of_another(const Pool& pool) {
  for (const auto& [since, index] : idle_)
    if (Worker& w = workers_.at(index); w.pool != pool) return &w;
  return nullptr;
}

Worker* WorkerPools::longest_idle() { return idle_.empty() ? nullptr : &workers_.at(idle_.begin()->second); }

// Of the whole node's idle workers as many stay as there are processors, those that were used last, and none beyond
// the limit of processes.
bool WorkerPools::too_many_idle() const {
  if (idle_.empty()) return false;
  return idle_.size() > limits_.warm || workers_.size() > limits_.most + leaving_.size();
}

Worker* WorkerPools::too_old(int64_t now) {
  return too_many_idle() && idle_.begin()->first + limits_.idle_ns <= now ? longest_idle() : nullptr;
}

int64_t WorkerPools::next_too_old() const { return too_many_idle() ? idle_.begin()->first + limits_.idle_ns : 0; }

std::string WorkerPools::check() const {
  uint32_t starting = 0, blocked = 0, actors = 0;
  size_t idle = 0;
  for (const auto& [pool, p] : pools_) {
    starting += p.starting;
    idle += p.idle.size();
    for (const auto& [place, index] : p.idle) {
      auto w = workers_.find(index);
      if (w == workers_.end() || w->second.state != WorkerState::kIdle || w->second.stopping || w->second.killed)
        return "a worker that is not idle is listed so";
      if (w->second.idle_place != place || !idle_.count({w->second.idle_since, index}))
        return "an idle worker that the node does not list";
    }
  }
  for (const auto& [index, w] : workers_) {
    blocked += w.blocked;
    actors += w.state == WorkerState::kActor;
    if (w.stopping && w.state == WorkerState::kIdle && !leaving_.count(index)) return "a worker that leaves is not listed";
    if ((w.state == WorkerState::kLeased) != (w.lease != 0) && !w.stopping) return "a lease without its worker";
  }
  if (starting != starting_) return "the count of starting workers is wrong";
  if (blocked != blocked_) return "the count of blocked workers is wrong";
  if (actors != actors_) return "the count of actors is wrong";
  if (idle != idle_.size()) return "the node's list of idle workers is wrong";
  return "";
}

}  // namespace ray::sched
