// Concurrency groups of an actor, and the end by its own will: the part of WorkerSide (worker.h) that
// only actors need; and which client's call comes next (oldest_link), for every worker. Threads: set_groups in
// the constructor's thread; oldest_link, route and claim_grouped in task threads, oldest_link, route and ring_events
// also in the pulse thread.
//
// Without groups a task thread takes a call straight from a link's ring. With groups a ring holds calls
// of all of them in the order of the client, so whoever looks first moves everything that is there to
// the queues of the groups: a call behind one of a busy group must not wait for it. The records stay in
// the rings (read in place) until their calls are done, which bounds the queues.
#include <unistd.h>

#include "libray/base/log.h"
#include "libray/runtime/runtime.h"
#include "libray/runtime/runtime_inl.h"
#include "libray/runtime/worker.h"

namespace ray {

Status WorkerSide::set_groups(const uint32_t* limits, size_t n) {
  if (!is_actor_) return error(RAY_WRONG_STATE, "this worker is not an actor");
  if (has_groups_ || actor_ready_)
    return error(RAY_WRONG_STATE, "concurrency groups are set once, in the constructor");
  if (n == 0 || n > UINT16_MAX)
    return error(RAY_INVALID_ARGUMENT, "%zu concurrency groups: 1 to 65535 are possible", n);
  for (size_t i = 0; i < n; ++i) {
    if (limits[i] == 0)
      return error(RAY_INVALID_ARGUMENT, "concurrency group %zu has room for no call at all", i);
    groups_.push_back(std::make_unique<CallGroup>());
    groups_.back()->limit = limits[i];
  }
  has_groups_.store(true, std::memory_order_release);
  return Status();
}

// Among the clients whose calls wait, the one whose next call was submitted first: a call that another one's
// submission could know of begins before it. Null: nothing waits.
std::shared_ptr<ServeLink> WorkerSide::oldest_link() {
  std::lock_guard lock(links_mutex_);
  std::shared_ptr<ServeLink>* oldest = nullptr;
  for (auto& l : links_) {
    std::lock_guard own(l->mutex);
    if (!l->takes() || l->tasks.empty()) continue;
    if (links_.size() == 1) return l;
    if (l->next_at != l->tasks.position()) {
      RingConsumer look = l->tasks;
      RecordView r;
      bool whole = look.next(&r) == RingConsumer::Next::kRecord && r.size >= sizeof(wire::TaskHeader);
      l->next_stamp = 0;  // garbage: taken at once, and found to be that
      if (whole) std::memcpy(&l->next_stamp, r.data + offsetof(wire::TaskHeader, submitted), sizeof l->next_stamp);
      l->next_at = l->tasks.position();
    }
    if (!oldest || l->next_stamp < (*oldest)->next_stamp) oldest = &l;
  }
  return oldest ? *oldest : nullptr;
}

// Moves what clients sent to the queues of its groups. True when another group than `mine` got
// something: its threads are to be woken. groups_mutex_ held.
bool WorkerSide::route(uint32_t mine) {
  bool others = false;
  while (auto link = oldest_link()) {
    Execution* e;
    if (!claim(std::move(link), &e)) continue;
    e->group = e->header.flags >> wire::kGroupShift;
    if (e->group >= groups_.size()) e->group = 0;
    groups_[e->group]->ready.push_back(e);
    others |= e->group != mine;
  }
  return others;
}

// To its client, in the record: should this process die, a call that waits for its group has not used up a retry.
void WorkerSide::say_begun(const Execution* e, bool begun) {
  auto* word = const_cast<uint8_t*>(e->record) + offsetof(wire::TaskHeader, submitted);
  std::atomic_ref(*reinterpret_cast<uint64_t*>(word))
      .store(begun ? e->header.submitted : wire::kNotBegun, std::memory_order_release);
}

bool WorkerSide::claim_grouped(Execution** out, uint32_t group) {
  if (!actor_ready_ || group >= groups_.size()) return false;
  CallGroup& g = *groups_[group];
  bool others, got = false;
  {
    std::lock_guard lock(groups_mutex_);
    others = route(group);
    if (!g.ready.empty() && g.outstanding.load(std::memory_order_relaxed) < g.limit) {
      *out = g.ready.front();
      g.ready.pop_front();
      g.outstanding.fetch_add(1, std::memory_order_relaxed);
      outstanding_.fetch_add(1);
      std::lock_guard link((*out)->link->mutex);  // cancelled since it was taken from the ring?
      if (was_cancelled((*out)->link.get(), (*out)->end)) (*out)->cancelled = true;
      say_begun(*out, true);
      got = true;
    }
  }
  if (others) runtime_->bells().poke();
  return got;
}

bool WorkerSide::full(uint32_t group) {
  if (!has_groups_) return outstanding_.load() >= max_concurrency_.load();
  return groups_[group]->outstanding.load() >= groups_[group]->limit;
}

bool WorkerSide::group_waits() {
  if (!has_groups_) return false;
  std::lock_guard lock(groups_mutex_);
  for (auto& g : groups_)
    if (!g->ready.empty()) return true;
  return false;
}

// Whether a thread of this group has reason to stay awake. Calls that nobody has routed yet may be of
// any group.
bool WorkerSide::anything_for(uint32_t group) {
  if (__builtin_expect(leaves_, 0)) return any_read(group);
  if (has_groups_) {
    std::lock_guard lock(groups_mutex_);
    if (actor_ready_ && route(group)) runtime_->bells().poke();
    return any_read(group) || (!full(group) && !groups_[group]->ready.empty());
  }
  return any_read(group) || (!full(group) && has_work());
}

// A call that was taken from its link but waits for its group.
bool WorkerSide::cancel_waiting(uint64_t end, ServeLink* link, TaskId* id) {
  if (!has_groups_) return false;
  std::lock_guard lock(groups_mutex_);
  for (auto& g : groups_)
    for (Execution* e : g->ready)
      if (e->link.get() == link && e->end == end) {
        e->cancelled = true;
        *id = e->header.task;
        return true;
      }
  return false;
}

// The same of all calls of a client that is gone: nobody wants them begun.
void WorkerSide::cancel_waiting_of(const ServeLink* link) {
  if (!has_groups_) return;
  std::lock_guard lock(groups_mutex_);
  for (auto& g : groups_)
    for (Execution* e : g->ready)
      if (e->link.get() == link) e->cancelled = true;
}

// For event loops: the descriptors of those that have something to do.
void WorkerSide::ring_events(bool always, bool work) {
  const uint64_t one = 1;
  if (!has_groups_.load(std::memory_order_acquire)) {
    if (event_.valid() && (always || (work && event_wanted_))) (void)!::write(event_.get(), &one, sizeof one);
    return;
  }
  std::lock_guard lock(groups_mutex_);
  if (work && actor_ready_ && route(UINT32_MAX)) runtime_->bells().poke();
  for (auto& g : groups_)
    if (g->event.valid() && (always || !g->ready.empty()))
      (void)!::write(g->event.get(), &one, sizeof one);
}

Status WorkerSide::self_actor(Actor** out) {
  if (!is_actor_) return error(RAY_WRONG_STATE, "this worker is not an actor");
  return runtime_->actor_from_id(actor_, out);
}

void WorkerSide::enter(Execution* e) { runtime_->set_context(e ? &e->context : nullptr); }

Status WorkerSide::exit_actor(const std::string& reason) {
  if (!is_actor_) return error(RAY_WRONG_STATE, "this worker is not an actor");
  const std::string why = reason.substr(0, 4096);  // for people, and it travels in one record
  bool first = !exiting_.exchange(true), idle = outstanding_ == 0;
  if (!first && !idle) return Status();
  wire::UpActor u{actor_, incarnation_, RAY_OK, idle ? 1u : 0u, static_cast<uint32_t>(why.size())};
  runtime_->daemon().up_bytes(wire::kUpActorExit, &u, sizeof u, why.data(), u.size);
  runtime_->bells().poke();
  return Status();
}

}  // namespace ray
