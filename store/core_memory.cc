// The store's memory: which space a lease gets, and who waits for it. See core.h.
#include <algorithm>

#include "libray/base/fault.h"
#include "libray/base/log.h"
#include "store/core.h"

namespace ray::store {

namespace {
constexpr uint64_t kInlineCommit = 4 << 20;  // larger cold leases are committed on a job thread
constexpr uint64_t kMaxAhead = 256 << 20;
constexpr uint32_t kTouchAfter = 2;  // cold large leases of a client before the next is pre-touched
}  // namespace

uint64_t Core::warm_bytes() const {
  uint64_t warm = 0;
  for (auto& [n, s] : segments_) warm += s->space.warm_bytes();
  return warm;
}

// Returns pages of free extents to the system until `bytes` more may be committed.
bool Core::cool(uint64_t bytes) {
  while (committed_ + bytes > options_.capacity_bytes) {
    Segment* most = nullptr;
    for (auto& [n, s] : segments_)
      if (s->space.warm_bytes() > 0 && (!most || s->space.warm_bytes() > most->space.warm_bytes()))
        most = s.get();
    if (!most) return false;
    // In whole units: trimmed extents make committed_ any number of pages.
    auto run =
        most->space.take_to_cool(round_up(committed_ + bytes - options_.capacity_bytes, kUnit));
    if (!run) return false;
    most->punch(run->offset, run->size);
    committed_ -= run->size;
    most->space.give(*run, false);
  }
  return true;
}

// Pages that are kept for the next lease go back to the system when it does not come. In pieces: a client
// may ask for something meanwhile.
bool Core::cool_idle(int64_t now) {
  constexpr uint64_t kPiece = 32 << 20;
  if (cool_at_ns_ == 0) return false;
  if (now < cool_at_ns_) {
    if (next_deadline_ == 0 || cool_at_ns_ < next_deadline_) next_deadline_ = cool_at_ns_;
    return false;
  }
  cool_at_ns_ = 0;
  bool worked = false;
  for (auto& [number, s] : segments_) {
    if (s->space.warm_bytes() == 0) continue;
    int64_t at = s->used_ns + kWarmNs;
    if (!worked && at <= now) {
      auto run = s->space.take_to_cool(kPiece);
      s->punch(run->offset, run->size);
      committed_ -= run->size;
      s->space.give(*run, false);
      worked = true;
    }
    if (s->space.warm_bytes() > 0 && (cool_at_ns_ == 0 || at < cool_at_ns_)) cool_at_ns_ = at;
  }
  if (cool_at_ns_ && (next_deadline_ == 0 || cool_at_ns_ < next_deadline_)) next_deadline_ = cool_at_ns_;
  return worked;
}

// Warm space of this segment first; else cold space, for which other segments' warm space is
// cooled.
bool Core::find_space(Segment* s, uint64_t bytes, Found* out) {
  if (auto run = s->space.take_warm(bytes)) {
    *out = {run->offset, false};
    return true;
  }
  if (committed_ + bytes > options_.capacity_bytes + warm_bytes() || !cool(bytes)) return false;
  auto run = s->space.take_cold(bytes);
  if (!run) {  // warm runs cut the address space: give them up
    while (auto warm = s->space.take_to_cool(UINT64_MAX)) {
      s->punch(warm->offset, warm->size);
      committed_ -= warm->size;
      s->space.give(*warm, false);
    }
    run = s->space.take_cold(bytes);
    if (!run) return false;
  }
  committed_ += bytes;
  *out = {run->offset, true};
  return true;
}

// Undoes find_space for an extent that nobody got.
void Core::abandon_extent(uint32_t extent) {
  Extent& e = extents_[extent];
  lru_remove(extent);  // an old pin of what was here before may have put it there
  Segment* s = segment(e.segment);
  s->set_generation(e.offset, e.size, 0);
  s->extents.erase(e.offset);
  s->punch(e.offset, e.size);
  committed_ -= e.resident;
  s->space.give({e.offset, e.size}, false);
  e.state = Extent::kFree;
  free_extents_.push_back(extent);
  progress(e.size);
  retire_if_empty(e.segment);
}

uint64_t Core::lease_bytes(const Waiting& w) const {
  if (w.peer == 0) {
    uint64_t need = footprint(w.bytes);
    return need <= small_extent_ / 4 ? small_extent_ : round_up(need, kUnit);
  }
  if (w.flags & kLeaseSmall) return small_extent_;
  if (w.bytes > kMaxArena) return kMaxArena;  // refused: no store is that large
  return round_up(footprint(w.bytes), kUnit);
}

// How much of the capacity a request may use. While objects are on disk, creates leave room for the
// largest of them: when memory and disk are full, everything can still be read, one after the
// other.
uint64_t Core::limit_of(const Waiting& w) const {
  uint64_t capacity = options_.capacity_bytes;
  if (w.peer == 0 || spilled_objects_ == 0) return capacity;
  uint64_t reserve = round_up(std::max(footprint(largest_spilled_), small_extent_), kUnit);
  if (reserve > capacity / 4 || lease_bytes(w) > capacity - reserve) return capacity;
  return capacity - reserve;
}

Core::Take Core::serve(const Waiting& w) { return w.peer ? serve_lease(w) : serve_restore(w); }

Core::Take Core::serve_lease(const Waiting& w) {
  Peer* p = peer(w.peer);
  if (!p) return Take::kDone;
  uint64_t bytes = lease_bytes(w);
  bool ahead = w.flags & kLeaseAhead, small = w.flags & kLeaseSmall;
  if (bytes > options_.capacity_bytes) {
    refuse(p, w.request, RAY_STORE_FULL,
           strprintf("an object of %llu bytes does not fit the object store of %llu bytes: raise "
                     "store_bytes (object_store_memory in Python), or keep the value in pieces",
                     static_cast<unsigned long long>(w.bytes),
                     static_cast<unsigned long long>(options_.capacity_bytes)));
    return Take::kDone;
  }
  bool tight = committed_ + bytes > options_.capacity_bytes / 4 * 3 &&
               p->segment->space.warm_bytes() < bytes;
  uint64_t limit = limit_of(w);
  bool over = limit < options_.capacity_bytes && committed_ - warm_bytes() + bytes > limit;
  Found found;
  if ((ahead && tight) || over || !find_space(p->segment, bytes, &found)) {
    if (!ahead) return Take::kFull;
    refuse(p, w.request, RAY_TIMED_OUT, "memory is short");
    return Take::kDone;
  }
  uint32_t extent = new_extent(p->segment, found.offset, bytes, small);
  if (!small) {
    p->large_cold = found.cold ? p->large_cold + 1 : 0;
    if (p->large_cold >= kTouchAfter) touch_ahead(p, bytes);
  }
  if (!found.cold) {
    grant(p, w.request, extent, false);
    return Take::kDone;
  }
  if (bytes > kInlineCommit || ahead) {
    commit_then_grant(w, extent, ahead);
    return Take::kStarted;
  }
  Status s = p->segment->commit_pages(found.offset, bytes, false);
  if (!s.ok()) {
    abandon_extent(extent);
    refuse(p, w.request, s.code(), s.message());
    return Take::kDone;
  }
  grant(p, w.request, extent, true);
  return Take::kDone;
}

void Core::commit_then_grant(const Waiting& w, uint32_t extent, bool touch) {
  std::shared_ptr<Segment> seg = segments_[w.peer];
  uint64_t offset = extents_[extent].offset, size = extents_[extent].size;
  ++extents_[extent].busy;
  peer(w.peer)->committing.insert(w.request);
  jobs_->run([this, seg, offset, size, touch, w, extent]() -> JobPool::Done {
    Status s = seg->commit_pages(offset, size, touch);
    return [this, s, w, extent] {
      --extents_[extent].busy;
      Peer* p = peer(w.peer);
      const bool wanted = p && p->committing.erase(w.request) > 0;
      if (wanted && s.ok()) return grant(p, w.request, extent, true);
      if (p && s.ok()) return close_extent(extent);  // its memory is the client's next lease
      abandon_extent(extent);
      if (wanted) refuse(p, w.request, s.code(), s.message());
    };
  });
}

void Core::grant(Peer* p, uint64_t request, uint32_t extent, bool cold) {
  Extent& e = extents_[extent];
  e.state = Extent::kLeased;
  GrantRecord g{request, extent, e.generation, e.offset, e.size, cold ? 1u : 0u, 0};
  reply(p, kGrant, &g, sizeof g);
}

// A client that keeps putting large objects finds the next run's pages cleared already.
void Core::touch_ahead(Peer* p, uint64_t bytes) {
  if (p->touching || bytes > kMaxAhead) return;
  if (committed_ + bytes > options_.capacity_bytes / 4 * 3) return;
  auto run = p->segment->space.take_cold(bytes);
  if (!run) return;
  committed_ += bytes;
  p->touching = true;
  std::shared_ptr<Segment> seg = segments_[p->number];
  uint32_t number = p->number;
  jobs_->run([this, seg, run = *run, number]() -> JobPool::Done {
    Status s = seg->commit_pages(run.offset, run.size, true);
    return [this, seg, run, number, s] {
      Peer* owner = peer(number);
      bool warm = owner && s.ok();
      if (!warm) {
        seg->punch(run.offset, run.size);
        committed_ -= run.size;
      }
      seg->space.give({run.offset, run.size}, warm);
      if (warm && cool_at_ns_ == 0) cool_at_ns_ = now_ + kWarmNs;
      if (owner) owner->touching = false;
    };
  });
}

// ---- waiting requests --------------------------------------------------------------------------

void Core::pump(int64_t now) {
  if (restores_.empty() && creates_.empty()) {
    want_unpins(!condemned_pinned_.empty());
    return;
  }
  if (!spill_error_.ok() && now >= spill_retry_ns_) retry_pump_ = true;
  if (retry_pump_) {
    retry_pump_ = false;
    if (pump_queue(&restores_, now)) pump_queue(&creates_, now);
  }
  read_apart(now);
  if (restores_.empty() && creates_.empty()) return;
  bool stuck = deadlocked();
  check_deadlines(&restores_, now, stuck);
  check_waiters(now);
  check_deadlines(&creates_, now, stuck);
  if (!spill_error_.ok() && spill_retry_ns_ > now &&
      (next_deadline_ == 0 || spill_retry_ns_ < next_deadline_))
    next_deadline_ = spill_retry_ns_;
}

// First come, first served; true = the queue is empty.
bool Core::pump_queue(std::deque<Waiting>* queue, int64_t) {
  while (!queue->empty()) {
    Waiting w = queue->front();
    Take t = serve(w);
    if (t != Take::kFull) {
      queue->pop_front();
      continue;
    }
    uint64_t wanted = 0;
    for (auto& q : *queue) wanted += lease_bytes(q);
    wanted = std::min(wanted, std::max(options_.capacity_bytes / 4, lease_bytes(w)));
    uint64_t available = limit_of(w) + warm_bytes() + spilling_bytes_;
    available -= std::min(available, committed_);
    // Free space that does not help (pieces) must not stop the spilling.
    uint64_t need = wanted > available ? wanted - available : spilling_bytes_ ? 0 : lease_bytes(w);
    if (need == 0 || reclaim(need) == 0) break;
  }
  // Speculative requests never wait.
  for (auto it = queue->begin(); it != queue->end();) {
    if (!(it->flags & kLeaseAhead)) {
      ++it;
      continue;
    }
    if (Peer* p = peer(it->peer)) refuse(p, it->request, RAY_TIMED_OUT, "memory is short");
    it = queue->erase(it);
  }
  return queue->empty();
}

// Everybody who holds a pin waits for memory, and nothing is on its way: nobody can move.
bool Core::deadlocked() const {
  if (jobs_->in_flight() > 0 || holds_ == 0 || !heirs_.empty()) return false;
  for (const Peer* p : peer_list_) {
    if (p->holds == 0 && p->grants.empty()) continue;
    bool waits = false;
    for (auto& w : creates_) waits |= w.peer == p->number;
    for (auto& w : restores_) {
      auto it = restore_waiters_.find(w.object);
      if (it == restore_waiters_.end()) continue;
      for (auto& r : it->second) waits |= r.peer == p->number;
    }
    if (!waits) return false;
  }
  return true;
}

void Core::check_deadlines(std::deque<Waiting>* queue, int64_t now, bool stuck) {
  constexpr int64_t kSecond = 1000000000;
  bool first = true;
  for (auto it = queue->begin(); it != queue->end();) {
    int64_t base = std::max(it->since_ns, last_progress_ns_);
    int64_t limit = limit_ns(it->timeout_ns);
    int64_t grace = std::clamp(limit / 2, kSecond / 10, 5 * kSecond);
    bool dead = stuck && first && now - base >= grace;
    first = false;
    if (dead || now - base >= limit) {
      Waiting w = *it;
      it = queue->erase(it);
      last_progress_ns_ =
          std::max(last_progress_ns_, dead ? now : 0);  // the next head gets its turn
      retry_pump_ = true;
      fail(w, dead ? "deadlock: every client that pins objects waits for memory" : "");
      if (dead) break;
      continue;
    }
    int64_t next = stuck ? std::min(grace, limit) : limit;
    if (next != INT64_MAX) wake_by(base + next);
    ++it;
  }
}

// Each of those that wait for one restore has a limit of its own.
void Core::check_waiters(int64_t now) {
  for (const Waiting& w : restores_) {
    auto waiters = restore_waiters_.find(w.object);
    if (waiters == restore_waiters_.end()) continue;
    std::erase_if(waiters->second, [&](const RestoreWaiter& r) {
      const int64_t end = ends_ns(r.timeout_ns, std::max(r.since_ns, last_progress_ns_));
      if (now < end) {
        if (end != INT64_MAX) wake_by(end);
        return false;
      }
      if (Peer* p = peer(r.peer)) refuse(p, r.request, RAY_STORE_FULL, full_text(w, ""));
      return true;
    });
  }
}

void Core::fail(const Waiting& w, const std::string& why) {
  constexpr int64_t kShortNs = 1000000000;  // who waits no longer asks again, or has something else to do
  std::string text = full_text(w, why);
  if (w.timeout_ns < 0 || w.timeout_ns >= kShortNs) log(kLogWarning, "store", "store-full", "%s", text.c_str());
  if (w.peer) {
    if (Peer* p = peer(w.peer)) refuse(p, w.request, RAY_STORE_FULL, text);
    return;
  }
  auto waiters = std::move(restore_waiters_[w.object]);
  end_restore(w);
  for (auto& r : waiters)
    if (Peer* p = peer(r.peer)) refuse(p, r.request, RAY_STORE_FULL, text);
}

}  // namespace ray::store
