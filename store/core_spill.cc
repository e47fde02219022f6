// Freeing, eviction, spilling and restoring. See core.h.
#include <algorithm>

#include "libray/base/clock.h"
#include "libray/base/fault.h"
#include "libray/base/log.h"
#include "store/core.h"

namespace ray::store {

namespace {
constexpr int64_t kSpillRetryNs = 250000000;  // after a write error
constexpr int64_t kRescanNsPerHold = 500;     // keeps re-scans below a few percent of a processor
}  // namespace

// ---- hazard scan -------------------------------------------------------------------------------

void HoldSet::fill(const std::vector<uint64_t>& words) {
  size_t size = 16;
  while (size < words.size() * 2) size *= 2;
  keys_.assign(size, 0);
  counts_.assign(size, 0);
  for (uint64_t w : words) {
    size_t i = mix(w) & (size - 1);
    while (keys_[i] != 0 && keys_[i] != w) i = (i + 1) & (size - 1);
    keys_[i] = w;
    ++counts_[i];
  }
}

uint32_t HoldSet::count(uint64_t word) const {
  size_t size = keys_.size();
  if (size == 0) return 0;
  for (size_t i = mix(word) & (size - 1); keys_[i] != 0; i = (i + 1) & (size - 1))
    if (keys_[i] == word) return counts_[i];
  return 0;
}

// Collects every hold word of every client. The sequentially consistent loads pair with the
// client's store of the word and its load of the object's state: either this scan sees the hold, or
// the client sees the state that was stored before the scan.
void Core::read_holds(const Peer& p, std::vector<uint64_t>* out) {
  uint32_t limit = std::min(p.segment->control()->hold_limit.load(std::memory_order_seq_cst), kHolds);
  auto* words = reinterpret_cast<std::atomic<uint64_t>*>(p.segment->control_base() + kHoldsAt);
  for (uint32_t i = 0; i < limit; ++i)
    if (uint64_t w = words[i].load(std::memory_order_seq_cst)) out->push_back(w);
}

void Core::scan_holds() {
  hold_words_.clear();
  for (Peer* p : peer_list_) {
    const size_t before = hold_words_.size();
    read_holds(*p, &hold_words_);
    p->holds = static_cast<uint32_t>(hold_words_.size() - before);
  }
  for (const auto& [number, h] : heirs_) hold_words_.insert(hold_words_.end(), h.words.begin(), h.words.end());
  holds_ = hold_words_.size();
  held_.fill(hold_words_);
}

bool Core::is_held(const Object& o) const { return o.grants > 0 || held_.has(word_of(o)); }

// From here on no new pin of this copy succeeds; freed once a later scan does not find it.
void Core::condemn(uint32_t object) {
  const Object& o = objects_[object];
  const Extent& e = extents_[o.extent];
  segment(e.segment)->header_at(o.offset)->state.store(state_word(e.generation, kCondemned),
                                                       std::memory_order_seq_cst);
  condemned_.push_back(object);
}

void Core::want_unpins(bool wanted) {
  if (wanted == unpins_wanted_) return;
  unpins_wanted_ = wanted;
  for (Peer* p : peer_list_) {
    p->segment->control()->unpin_wanted.store(wanted, std::memory_order_seq_cst);
  }
}

bool Core::reap() {
  if (condemned_pinned_.empty()) rescan_ = false;
  bool again = rescan_ && now_ >= rescan_at_ns_;
  if (condemned_.empty() && !again) {
    if (rescan_ && (next_deadline_ == 0 || rescan_at_ns_ < next_deadline_))
      next_deadline_ = rescan_at_ns_;
    return false;
  }
  if (again) {
    condemned_.insert(condemned_.end(), condemned_pinned_.begin(), condemned_pinned_.end());
    condemned_pinned_.clear();
    rescan_ = false;
  }
  std::vector<uint32_t> left;
  left.swap(condemned_);
  for (int round = 0; round < 2 && !left.empty(); ++round) {
    if (round == 1) want_unpins(true);  // then look once more: an unpin in between was not told
    scan_holds();
    size_t kept = 0;
    for (uint32_t object : left) {
      if (is_held(objects_[object]))
        left[kept++] = object;
      else
        free_memory(object);
    }
    left.resize(kept);
  }
  condemned_pinned_.insert(condemned_pinned_.end(), left.begin(), left.end());
  if (again)
    rescan_at_ns_ =
        now_ + static_cast<int64_t>(holds_ + condemned_pinned_.size()) * kRescanNsPerHold;
  return true;
}

// The object is gone for good: condemned, not held.
void Core::free_memory(uint32_t object) {
  Object& o = objects_[object];
  uint32_t extent = o.extent;
  Extent& e = extents_[extent];
  --e.live;
  e.live_bytes -= footprint(o.size);
  release_copy(object);
  free_number(object);
  if (!creates_.empty() || !restores_.empty()) retry_pump_ = true;  // its pages may help
  maybe_free(extent);
}

void Core::release_copy(uint32_t object) {
  auto it = copies_.find(object);
  if (it == copies_.end()) return;
  if (objects_[object].state == Object::kSpilled || objects_[object].extent == kNone) {
    --spilled_objects_;
    spilled_bytes_ -= objects_[object].size;
  }
  uint32_t run = it->second.run;
  copies_.erase(it);
  drop_run_piece(run);
}

void Core::drop_run_piece(uint32_t run) {
  SpillRun& r = runs_[run];
  if (--r.live > 0) return;
  uint64_t at = r.at, bytes = r.bytes;
  jobs_->run([this, at, bytes, run]() -> JobPool::Done {
    spill_.discard(at, bytes);
    return [this, at, bytes, run] {
      spill_.release(at, bytes);
      free_runs_.push_back(run);
    };
  });
}

// ---- eviction ----------------------------------------------------------------------------------

// Pins are invisible to the daemon; the clients leave the places of their last ones in a circular
// log.
void Core::read_recent() {
  for (Peer* p : peer_list_) {
    auto* log = reinterpret_cast<std::atomic<uint64_t>*>(p->segment->control_base() + kRecentAt);
    uint64_t count = p->segment->control()->recent_count.load(std::memory_order_acquire);
    uint64_t from = count - p->recent_seen > kRecent ? count - kRecent : p->recent_seen;
    p->recent_seen = count;
    for (uint64_t i = from; i != count; ++i) {
      uint64_t w = log[i % kRecent].load(std::memory_order_relaxed);
      Segment* s = segment(static_cast<uint32_t>(w >> 40));
      if (!s || s->extents.empty()) continue;
      uint64_t offset = (w & ((uint64_t{1} << 40) - 1)) * kLine;
      auto it = s->extents.upper_bound(offset);
      if (it != s->extents.begin()) lru_touch(std::prev(it)->second);
    }
  }
}

// Bytes of an extent that cannot leave memory now: held objects, and dropped ones that still are.
uint64_t Core::held_bytes(uint32_t extent) const {
  uint64_t held = 0;
  for (uint32_t n : extents_[extent].objects) {
    const Object& o = objects_[n];
    if (o.extent != extent || o.state == Object::kFree) continue;
    if (o.state != Object::kMemory || is_held(o)) held += footprint(o.size) + kPage;
  }
  return held;
}

// Punches the pages that no object lies on out of a closed extent: one small pinned object does not
// hold a whole extent's memory. Returns the bytes that became free.
uint64_t Core::trim(uint32_t extent) {
  Extent& e = extents_[extent];
  if (e.state != Extent::kClosed || e.busy > 0) return 0;
  std::vector<std::pair<uint64_t, uint64_t>> used;  // page ranges, relative
  for (uint32_t n : e.objects) {
    const Object& o = objects_[n];
    if (o.extent != extent || o.state == Object::kFree) continue;
    uint64_t from = o.offset - e.offset;
    used.push_back({from / kPage * kPage, round_up(from + footprint(o.size), kPage)});
  }
  std::sort(used.begin(), used.end());
  used.push_back({e.size, e.size});
  Segment* s = segment(e.segment);
  uint64_t at = 0, kept = 0;
  for (auto [from, to] : used) {
    if (from > at) s->punch(e.offset + at, from - at);
    if (to > at) kept += to - std::max(at, from);
    at = std::max(at, to);
  }
  uint64_t freed = e.resident > kept ? e.resident - kept : 0;
  e.resident -= freed;
  committed_ -= freed;
  if (freed) progress(freed);
  return freed;
}

uint64_t Core::trim_sparse(uint64_t bytes) {
  uint64_t freed = 0;
  for (uint32_t n = oldest_; n != kNone && freed < bytes; n = extents_[n].newer)
    if (extents_[n].resident >= extents_[n].live_bytes + 4 * kPage) freed += trim(n);
  return freed;
}

// Makes room for `bytes`: punches gaps out of sparse extents, evicts what has a copy on disk,
// starts to spill the rest, oldest first. Returns the bytes that are free now.
uint64_t Core::reclaim(uint64_t bytes) {
  want_unpins(true);
  scan_holds();
  uint64_t freed = trim_sparse(bytes), planned = 0;
  if (!spill_.enabled() || freed >= bytes) return freed;
  read_recent();
  for (uint32_t n = oldest_; n != kNone && freed + planned < bytes;) {
    uint32_t next = extents_[n].newer;
    Extent& e = extents_[n];
    uint64_t held = held_bytes(n), gain = e.resident > held ? e.resident - held : 0;
    if (e.state == Extent::kClosed && e.busy == 0 && gain >= kUnit / 2) {
      bool clean = true;
      for (uint32_t k : e.objects) {
        const Object& o = objects_[k];
        if (o.state == Object::kMemory && o.extent == n && !is_held(o)) clean &= o.clean;
      }
      if (clean)
        freed += evict(n);
      else if (start_spill(n))
        planned += gain;
    }
    n = next;
  }
  return freed;
}

bool Core::start_spill(uint32_t extent) {
  if (!spill_error_.ok() && now_ < spill_retry_ns_) return false;
  Extent& e = extents_[extent];
  std::vector<std::pair<uint32_t, uint32_t>> objects;  // number, serial
  std::vector<SpillPiece> pieces;
  uint64_t total = 0;
  std::sort(e.objects.begin(), e.objects.end());
  e.objects.erase(std::unique(e.objects.begin(), e.objects.end()), e.objects.end());
  Segment* s = segment(e.segment);
  for (uint32_t n : e.objects) {
    const Object& o = objects_[n];
    if (o.state != Object::kMemory || o.extent != extent || o.clean || is_held(o)) continue;
    objects.push_back({n, o.serial});
    pieces.push_back({s->arena() + o.offset + sizeof(ObjectHeader), o.size, total, 0});
    total += o.size;
  }
  auto at = spill_.reserve(std::max<uint64_t>(total, 1));
  if (!at.ok()) {
    spill_error_ = at.status();
    spill_retry_ns_ = now_ + kSpillRetryNs;
    return false;
  }
  for (auto& p : pieces) p.at += *at;
  uint32_t run;
  if (free_runs_.empty()) {
    run = static_cast<uint32_t>(runs_.size());
    runs_.emplace_back();
  } else {
    run = free_runs_.back();
    free_runs_.pop_back();
  }
  // One piece too many until the write is over, so that the run outlives objects dropped meanwhile.
  runs_[run] = {*at, std::max<uint64_t>(total, 1), 1};
  ++e.busy;
  spilling_bytes_ += e.size;
  std::shared_ptr<Segment> seg = segments_[e.segment];
  jobs_->run([this, seg, extent, run, objects, pieces]() mutable -> JobPool::Done {
    Status status = spill_.write(&pieces);
    RAY_FAULT("store.spill.written");
    for (auto& p : pieces) {
      uint64_t from = static_cast<uint64_t>(p.data - seg->arena()) / kPage * kPage;
      seg->forget_mappings(from, round_up(p.size + kPage, kPage));
    }
    return [this, extent, run, objects, pieces, status] {
      finish_spill(extent, objects, pieces, run, status);
    };
  });
  return true;
}

void Core::finish_spill(uint32_t extent, const std::vector<std::pair<uint32_t, uint32_t>>& objects,
                        const std::vector<SpillPiece>& pieces, uint32_t run, const Status& status) {
  Extent& e = extents_[extent];
  --e.busy;
  spilling_bytes_ -= e.size;
  spill_error_ = status;
  if (!status.ok()) {
    spill_retry_ns_ = now_ + kSpillRetryNs;
    log(kLogWarning, "store", "spill-failed", "%s", status.message().c_str());
  } else {
    for (size_t i = 0; i < objects.size(); ++i) {
      auto [n, serial] = objects[i];
      Object& o = objects_[n];
      if (o.serial != serial || o.state != Object::kMemory || o.extent != extent) continue;
      copies_[n] = {run, pieces[i].at, pieces[i].checksum};
      ++runs_[run].live;
      o.clean = true;
    }
  }
  drop_run_piece(run);
  if (status.ok())
    evict(extent);
  else
    maybe_free(extent);
}

// Lets go of the memory of every unheld object of this extent that has a copy on disk. Returns what
// became free.
uint64_t Core::evict(uint32_t extent) {
  Extent& e = extents_[extent];
  Segment* s = segment(e.segment);
  std::vector<uint32_t> out;
  for (uint32_t n : e.objects) {
    const Object& o = objects_[n];
    if (o.state != Object::kMemory || o.extent != extent || !o.clean || o.grants > 0) continue;
    s->header_at(o.offset)->state.store(state_word(e.generation, kCondemned),
                                        std::memory_order_seq_cst);
    out.push_back(n);
  }
  scan_holds();
  uint64_t size = e.resident;
  for (uint32_t n : out) {
    Object& o = objects_[n];
    if (o.extent != extent || o.state != Object::kMemory) continue;  // listed twice
    if (is_held(o)) {
      s->header_at(o.offset)->state.store(state_word(e.generation, kSealed),
                                          std::memory_order_seq_cst);
      continue;
    }
    --e.live;
    e.live_bytes -= footprint(o.size);
    o.state = Object::kSpilled;
    o.extent = kNone;
    largest_spilled_ = spilled_objects_++ == 0 ? o.size : std::max(largest_spilled_, o.size);
    spilled_bytes_ += o.size;
    RAY_FAULT("store.spill.evicted");  // the pages are about to go, the directory says memory
    directory_.update({o.id, kDirSpilled, {0, 0, 0, o.size}, n, o.copy});
  }
  progress(0);
  if (e.live > 0) return trim(extent);
  bool freed = e.busy == 0;
  maybe_free(extent);
  return freed ? size : 0;
}

// ---- restore -----------------------------------------------------------------------------------

void Core::add_waiter(uint32_t object, Peer* p, const LocateRecord& r) {
  Object& o = objects_[object];
  if (r.request) restore_waiters_[object].push_back({p->number, r.request, r.timeout_ns, now_, r.may_be_apart == 1});
  if (o.state == Object::kRestoring)  // it goes on for whoever waits longest
    for (Waiting& w : restores_)
      if (w.object == object && ends_ns(r.timeout_ns, now_) > ends_ns(w.timeout_ns, w.since_ns)) {
        w.timeout_ns = r.timeout_ns;
        w.since_ns = now_;
      }
  if (o.state != Object::kSpilled) return;
  o.state = Object::kRestoring;
  restores_.push_back({0, 0, object, o.serial, o.size, 0, r.timeout_ns, now_});
  retry_pump_ = true;
}

Core::Take Core::serve_restore(const Waiting& w) {
  Object& o = objects_[w.object];
  if (o.serial != w.serial) return Take::kDone;
  if (o.state == Object::kGone) {  // dropped meanwhile
    finish_restore(w.object, w.serial, kNone, 0, Status(RAY_NOT_FOUND, "the object was dropped"));
    return Take::kDone;
  }
  uint64_t need = footprint(o.size);
  bool small = need <= small_extent_ / 4;
  if (small && restore_open_ != kNone) {
    Extent& e = extents_[restore_open_];
    if (e.cursor + need <= e.size) {
      e.cursor += need;
      start_restore(w.object, restore_open_, e.offset + e.cursor - need, false);
      return Take::kStarted;
    }
    uint32_t full = restore_open_;
    restore_open_ = kNone;
    close_extent(full);
  }
  Segment* s = segment(kDaemonSegment);
  uint64_t bytes = lease_bytes(w);
  Found found;
  if (!find_space(s, bytes, &found)) return Take::kFull;
  uint32_t extent = new_extent(s, found.offset, bytes, small);
  Status committed = found.cold && small ? s->commit_pages(found.offset, bytes, false) : Status();
  if (!committed.ok()) {
    abandon_extent(extent);
    finish_restore(w.object, w.serial, kNone, 0, committed);
    return Take::kDone;
  }
  extents_[extent].state = Extent::kLeased;
  extents_[extent].cursor = need;
  if (small) restore_open_ = extent;
  start_restore(w.object, extent, found.offset, found.cold && !small);
  return Take::kStarted;
}

void Core::start_restore(uint32_t object, uint32_t extent, uint64_t offset, bool commit) {
  const Object& o = objects_[object];
  const SpillCopy& copy = copies_[object];
  ++extents_[extent].busy;
  if (restore_open_ != extent) extents_[extent].state = Extent::kClosed;
  std::shared_ptr<Segment> seg = segments_[kDaemonSegment];
  uint64_t bytes = extents_[extent].size;
  jobs_->run([=, this, serial = o.serial, size = o.size]() -> JobPool::Done {
    Status ready = commit ? seg->commit_pages(offset, bytes, false) : Status();
    uint8_t* out = seg->arena() + offset + sizeof(ObjectHeader);
    Status s = ready.ok() ? spill_.read(copy.at, size, copy.checksum, out, [this] { return tell_progress(), true; }) : ready;
    if (bytes >= (1 << 20)) seg->forget_mappings(offset, bytes);
    return [=, this] {
      if (ready.ok()) return finish_restore(object, serial, extent, offset, s);
      --extents_[extent].busy;
      abandon_extent(extent);
      finish_restore(object, serial, kNone, 0, s);
    };
  });
}

void Core::finish_restore(uint32_t object, uint32_t serial, uint32_t extent, uint64_t offset,
                          Status s) {
  Object& o = objects_[object];
  auto waiters = std::move(restore_waiters_[object]);
  restore_waiters_.erase(object);
  bool wanted = o.serial == serial && o.state == Object::kRestoring;
  if (extent != kNone) --extents_[extent].busy;
  if (wanted && s.ok()) {
    Extent& e = extents_[extent];
    ObjectHeader* h = segment(kDaemonSegment)->header_at(offset);
    h->size = o.size;
    h->id = o.id;
    h->state.store(state_word(e.generation, kSealed), std::memory_order_seq_cst);
    RAY_FAULT("store.restore.sealed");
    --spilled_objects_;
    spilled_bytes_ -= o.size;
    ++restored_objects_;
    o.state = Object::kMemory;
    o.extent = extent;
    o.offset = offset;
    ++e.live;
    e.live_bytes += footprint(o.size);
    e.objects.push_back(object);
    directory_.update({o.id, kDirMemory, location(o), object, o.copy});
    lru_touch(extent);
    for (auto& w : waiters)
      if (Peer* p = peer(w.peer)) answer_located(p, w.request, object);
    return;
  }
  if (wanted)
    o.state = Object::kSpilled;
  else if (o.serial == serial && o.state == Object::kGone) {
    release_copy(object);
    free_number(object);
    s = Status(RAY_NOT_FOUND, "the object was dropped");
  }
  if (extent != kNone) maybe_free(extent);
  for (auto& w : waiters)
    if (Peer* p = peer(w.peer)) refuse(p, w.request, s.code(), s.message());
}

// A restore that was not begun and is not wanted any more.
void Core::end_restore(const Waiting& w) {
  Object& o = objects_[w.object];
  restore_waiters_.erase(w.object);
  if (o.serial == w.serial && o.state == Object::kRestoring)
    o.state = Object::kSpilled;
  else if (o.serial == w.serial && o.state == Object::kGone) {
    release_copy(w.object);
    free_number(w.object);
  }
}

}  // namespace ray::store
