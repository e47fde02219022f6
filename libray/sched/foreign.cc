// See foreign.h. Here too: what the local scheduler makes of them.
#include "libray/sched/foreign.h"

#include <algorithm>

#include "libray/sched/local_scheduler.h"
#include "libray/sched/round.h"

namespace ray::sched {
namespace {

constexpr int64_t kAwayNs = 100'000'000;  // what runs elsewhere stays there for so long
constexpr size_t kLook = 16;              // leases elsewhere that a round looks at

}  // namespace

void Foreigners::ready(const Foreign& f) {
  forget(f.worker);
  foreign_[f.worker] = f;
  ready_.push_back(f.worker);
}

void Foreigners::lease(Foreign* f, int64_t now) {
  f->state = Foreign::kLeased;
  f->since = now;
  f->lease = next_++;
  if (next_ < kForeignLease) next_ = kForeignLease;  // around once
  of_client_[f->client].insert(f->worker);
  away_.insert({now, f->worker});
  ++working_;
}

void Foreigners::reclaim(Foreign* f) {
  f->reclaimed = true;
  ++coming_;
  away_.erase({f->since, f->worker});
}

void Foreigners::becomes_actor(Foreign* f, int64_t now) {
  f->state = Foreign::kActor;
  f->since = now;
  ++working_;
}

void Foreigners::over(Foreign* f, bool stop) {
  if (f->state == Foreign::kLeased) {
    auto of = of_client_.find(f->client);
    of->second.erase(f->worker);
    if (of->second.empty()) of_client_.erase(of);
    away_.erase({f->since, f->worker});
    coming_ -= f->reclaimed;
  }
  working_ -= f->state == Foreign::kLeased || f->state == Foreign::kActor;
  f->state = Foreign::kOver;
  f->lease = 0;
  f->since = -1;
  if (stop && !f->killed) over_.push_back(f->worker);
}

void Foreigners::forget(uint32_t worker) {
  Foreign* f = find(worker);
  if (!f) return;
  over(f, false);
  std::erase(ready_, worker);
  std::erase(over_, worker);
  foreign_.erase(worker);
}

Foreign* Foreigners::find(uint32_t worker) {
  auto f = foreign_.find(worker);
  return f == foreign_.end() ? nullptr : &f->second;
}

const Foreign* Foreigners::find(uint32_t worker) const { return const_cast<Foreigners*>(this)->find(worker); }

const std::set<uint32_t>& Foreigners::of(uint32_t client) const {
  static const std::set<uint32_t> kNone;
  auto of = of_client_.find(client);
  return of == of_client_.end() ? kNone : of->second;
}

std::string Foreigners::check() const {
  std::map<uint32_t, std::set<uint32_t>> of;
  uint32_t working = 0, coming = 0;
  size_t away = 0;
  for (const auto& [worker, f] : foreign_) {
    const bool leased = f.state == Foreign::kLeased;
    if (f.worker != worker) return "a stand-in stands under another one's number";
    if (leased != (f.lease != 0) || (f.lease && f.lease < kForeignLease)) return "a stand-in's lease is not its own";
    if ((f.since >= 0) != (leased || f.state == Foreign::kActor)) return "a stand-in that has nothing since some time";
    if (f.state == Foreign::kReady && std::count(ready_.begin(), ready_.end(), worker) != 1)
      return "a stand-in that waits is not looked at";
    if (leased) of[f.client].insert(worker);
    if (away_.count({f.since, worker}) != (leased && !f.reclaimed)) return "a stand-in's age is not listed";
    away += leased && !f.reclaimed;
    coming += leased && f.reclaimed;
    working += leased || f.state == Foreign::kActor;
  }
  for (uint32_t worker : over_)
    if (const Foreign* f = find(worker); !f || f->state != Foreign::kOver) return "a stand-in is to end that is not over";
  if (of != of_client_) return "a client's set of stand-ins is wrong";
  if (coming != coming_) return "the count of stand-ins that come back is wrong";
  if (away != away_.size()) return "a stand-in's age is listed that has none";
  return working == working_ ? "" : "the count of stand-ins that work is wrong";
}

// ---- what the scheduler makes of them

void LocalScheduler::foreign_ready(uint32_t worker, uint32_t client, uint32_t shape) {
  Foreign f;
  f.worker = worker;
  f.client = client;
  f.shape = shape;
  foreign_.ready(f);
}

void LocalScheduler::foreign_actor_ready(uint32_t worker, const ActorId& actor) {
  Foreign f;
  f.worker = worker;
  f.actor = actor;
  foreign_.ready(f);
}

void LocalScheduler::end_foreign(Foreign* f, bool stop) {
  Demand* d = f->lease ? demands_.find(f->client, f->shape) : nullptr;
  foreign_.over(f, stop);
  if (d) demands_.foreign(d, -1);
}

// Those that came since the last round have what they were opened for, if it still waits; the others, and those whose
// lease was given back, end: who needs one again waits a moment and gets one of the node that is best then.
void Round::settle_foreign() {
  Foreigners& foreign = s_.foreign_;
  for (uint32_t worker : foreign.take_ready()) {
    Foreign* f = foreign.find(worker);
    if (f->killed) {
      foreign.over(f, false);
      continue;
    }
    Action action{Action::kGrant};
    action.worker = worker;
    if (!f->actor.is_nil() && demands_.waits(f->actor)) {
      foreign.becomes_actor(f, now_);
      demands_.cancel_actor(f->actor);  // it waits no more
      action.kind = Action::kAssignActor;
      action.id = f->actor;
      out_->push_back(action);
      continue;
    }
    Demand* d = f->actor.is_nil() ? demands_.find(f->client, f->shape) : nullptr;
    if (!d || !demands_.wants_more(*d)) {
      foreign.over(f, true);
      continue;
    }
    foreign.lease(f, now_);
    demands_.foreign(d, +1);
    action.client = f->client;
    action.shape = f->shape;
    action.lease = f->lease;
    out_->push_back(action);
  }
  for (uint32_t worker : foreign.take_over()) {
    Action action{Action::kStopWorker};
    action.worker = worker;
    out_->push_back(action);
  }
}

// Nobody waits, and there is room: what runs elsewhere, and might here, comes back, as leases here are cheaper. Each is asked
// once, the oldest first, and not before it was away for a moment; no more are asked than there is room for, until these came.
void Round::come_home() {
  Foreigners& foreign = s_.foreign_;
  if (foreign.away().empty() || foreign.coming() || demands_.anybody_waits()) return;
  View free = table_.now();
  size_t n = 0;
  for (auto it = foreign.away().begin(); it != foreign.away().end() && n < kLook; ++n) {
    Foreign* f = foreign.find(it->second);
    const int64_t at = it->first + kAwayNs;
    ++it;  // it may leave the list
    const Demand* d = demands_.find(f->client, f->shape);
    if (!demands_.infeasible(*d).empty() || !demands_.fits(*d, free)) continue;
    if (now_ < at) return wake_at(at);
    free.take(table_.with_instances(d->wants(), free));
    foreign.reclaim(f);
    Action action{Action::kReclaim};
    action.client = f->client;
    action.shape = f->shape;
    action.worker = f->worker;
    action.lease = f->lease;
    out_->push_back(action);
  }
}

}  // namespace ray::sched
