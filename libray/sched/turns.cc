// Turns of those who have waited too long, and the way out when all workers wait; see round.h.
#include <algorithm>
#include <utility>

#include "libray/sched/round.h"

namespace ray::sched {
namespace {

constexpr size_t kLook = 32;      // requests that are due that a round looks at
constexpr uint32_t kBeyond = 64;  // processes beyond the limit, while all others wait
constexpr int64_t kEndNs = 5'000'000'000;  // the worker of a client that is gone is waited for so long

}  // namespace

void Round::bar(const Need& need) {
  Need rest;
  const View free = table_.now();
  for (const auto& [entry, a] : need.items)
    if (table_.enough(entry, a, free) && !table_.has_instances(entry))
      rest.items.emplace_back(entry, a);  // of what is there in plenty others may have the rest
    else
      barred_.insert(entry);
  table_.set_aside(std::move(rest));
}

bool Round::barred(const Need& need) const {
  return !barred_.empty() &&
         std::any_of(need.items.begin(), need.items.end(), [this](const auto& i) { return barred_.count(i.first); });
}

void Round::begin_turn(Request* q) {
  q->turn_ends = now_ + (options_.turn_ns << std::min(q->turns, options_.max_turn_shift));
}

// It brought nothing: what was reclaimed for it and is still away is held by something that takes long.
void Round::end_turn(Request* q) {
  int64_t length = options_.turn_ns << std::min(q->turns, options_.max_turn_shift);
  if (leases_.keep_since(now_ - length / 2)) {
    s_.slowed_at_ = now_;  // who has been looked at and counted on it finds that out in the next decision
    wake_at(now_ + 1);
  }
  ++q->turns;
  demands_.end_turn_of(q);
  demands_.set_due(q, now_ + options_.age_ns);
}

// It is due, and does not fit. Whether it has its turn now.
bool Round::has_turn(const Waiting& w) {
  Request* q = w.request;
  if (q->turn_ends && q->turn_ends <= now_) {
    end_turn(q);
    return false;
  }
  const View all = table_.later();
  if (q->group) groups_.choose_bundle(q, all);
  if (!q->turn_ends && barred(q->wants())) return false;  // somebody else's turn: its own comes next
  if (!demands_.fits(*q, all)) {
    demands_.end_turn_of(q);
    demands_.set_due(q, now_ + options_.age_ns);
    return false;
  }
  if (!q->turn_ends) begin_turn(q);
  return true;
}

// Calls of a recursion wait for leases of the shape that their client has already.
int64_t Round::extra_pause(bool same_shape) const {
  const double levels = pools_.blocked() / 8.0, squared = levels * levels;
  return static_cast<int64_t>(static_cast<double>(options_.age_ns) * (1 + (same_shape ? squared * squared : squared)));
}

// Those who have waited too long, in the order in which they were due. Who has leases already may go first only
// now and then, and the less often the more workers are blocked: these are levels of a recursion, whose calls
// would else run side by side and need ever more workers.
void Round::take_turns() {
  demands_.each_due(now_, kLook, [this](Request* q) { take_turn(q); });
}

void Round::take_turn(Request* q) {
  if (demands_.planned(*q) > 0) return;  // by relieve(): what it needs is set aside, and seems to be missing
  Waiting w{demands_.leases_of(*q), q};
  bool extra = w.leases > 0 && !q->turn_ends;
  const bool same_shape = w.leases > 0 && w.demand()->have > 0;
  int64_t& next_extra = s_.next_extra_turn_[same_shape];
  if (extra && now_ < next_extra) return demands_.set_due(q, next_extra);
  if (w.demand() && !demands_.zero_room(*w.demand())) return demands_.set_due(q, now_ + options_.age_ns);
  Placed placed = place(w);
  if (placed == Placed::kNoWorker) ask_for_process(q);
  if (placed == Placed::kUnfit && !has_turn(w)) return;
  if (extra && placed != Placed::kNoWorker) next_extra = now_ + extra_pause(same_shape);
  if (placed != Placed::kUnfit) return;
  const View free = soon();
  if (!demands_.fits(*q, free)) reclaim_for(w, free);
  bar(q->wants());
  turns_.push_back(q->wants());
  wake_at(q->turn_ends);
}

// It fits, but there is no worker for it. When the node has as many processes as it may have, an idle one of another
// pool ends for it, or the oldest lease of a worker that does not wait comes back.
void Round::ask_for_process(Request* q) {
  if (pools_.room() > 0 || pools_.comes(q->pool, now_)) {
    demands_.end_turn_of(q);  // it was for what it has found now; its worker comes, or does not, by itself
    return demands_.set_due(q, now_ + options_.age_ns);
  }
  if (q->turn_ends && q->turn_ends <= now_) return end_turn(q);
  if (!q->turn_ends) begin_turn(q);
  wake_at(q->turn_ends);
  bar(q->wants());
  if (const int64_t until = pools_.leaves_until(); now_ < until) return wake_at(until);  // that one makes room
  if (Worker* w = pools_.idle_of_another(q->pool)) return stop_worker(w);
  const auto* d = q->kind == Request::kDemand ? static_cast<Demand*>(q) : nullptr;
  const uint32_t client = d ? d->client : UINT32_MAX, shape = d ? d->shape : 0;
  if (const Lease* l = leases_.expected(client, shape)) return wake_at(l->reclaimed_at + kComingNs);
  if (const Lease* l = leases_.oldest(client, shape, now_ - options_.quantum_ns)) reclaim(l->id);
}

// ---- when all workers wait

// Whether all that is leased waits, at the limit of processes: nothing comes back before somebody else has a worker. What
// its client's end was to end, and did not for long, is not waited for.
bool Round::stuck() {
  if (pools_.processes() < options_.max_workers || !pools_.blocked() || leases_.may_return()) return false;
  int64_t until = 0;
  for (const auto& [worker, since] : s_.ending_) until = std::max(until, since + kEndNs);
  if (now_ < until) wake_at(until);
  return until <= now_;
}

// Then one that waits has a worker, beyond the limit if need be: of those for whom tasks wait the deepest, so that it
// takes as many more as the recursion has levels, and not as many as it has calls.
void Round::relieve() {
  if (!stuck()) return;
  const Demands::Deepest clients = demands_.deepest();
  auto by_idle = [&](uint32_t leases, Request* q) {
    return pools_.has_idle(q->pool) && place({leases, q}) == Placed::kGranted;
  };
  if (pools_.idle() > 0 && demands_.deepest_first(clients, by_idle)) return;
  // Of those that start or leave one may be what is missing, but none that has taken long.
  const int64_t leave = pools_.leaves_until(), until = std::max(pools_.starts_until(), leave);
  if (now_ < until) wake_at(until);
  const bool may_exceed = until <= now_ && pools_.idle() == 0 && pools_.processes() < options_.max_workers + kBeyond;
  const bool enough = demands_.deepest_first(clients, [&](uint32_t leases, Request* q) {
    pools_.set_room(may_exceed);
    const Placed placed = place({leases, q});
    pools_.set_room(0);
    if (placed != Placed::kNoWorker) return placed == Placed::kPlanned;
    if (leave <= now_ && pools_.idle() > 0) return stop_worker(pools_.longest_idle()), true;
    return !may_exceed;
  });
  if (!enough && demands_.pass(clients)) wake_at(now_);
}

// Nobody is barred for the sake of one who cannot be placed, and no turn is longer than the longest.
void Round::check_turns() {
  std::string& broken = s_.broken_;
  const View all = table_.later();
  demands_.each_turn([&](const Request& q) {
    if (!broken.empty()) return;
    if (q.turn_ends > now_ + (options_.turn_ns << options_.max_turn_shift)) broken = "a turn that is too long";
    if (!demands_.fits(q, all) && s_.slowed_at_ != now_)
      broken = "a turn of {" + q.text + "}, which cannot be placed even if all leases come back";
  });
}

}  // namespace ray::sched
