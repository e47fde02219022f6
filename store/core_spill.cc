// Freeing, eviction, spilling and restoring. See core.h.
#include <algorithm>

#include "libray/base/clock.h"
#include "libray/base/fault.h"
#include "libray/base/log.h"
#include "store/core.h"

namespace ray::store {

namespace {
constexpr int64_t kSpillRetryNs = 250000000;  // after a write error
}

// ---- hazard scan ------------------------------------------------------------------------------------------

// Collects every hold word of every client. The sequentially consistent loads pair with the client's
// store of the word and its load of the object's state: either this scan sees the hold, or the client
// sees the state that was stored before the scan.
void Core::scan_holds() {
  held_.clear();
  for (Peer* p : peer_list_) {
    p->holds = 0;
    uint32_t limit = std::min(p->segment->control()->hold_limit.load(std::memory_order_seq_cst), kHolds);
    auto* words = reinterpret_cast<std::atomic<uint64_t>*>(p->segment->control_base() + kHoldsAt);
    for (uint32_t i = 0; i < limit; ++i) {
      uint64_t w = words[i].load(std::memory_order_seq_cst);
      if (w == 0) continue;
      held_.push_back(w);
      ++p->holds;
    }
  }
  holds_ = held_.size();
  std::sort(held_.begin(), held_.end());
}

bool Core::is_held(const Object& o) const {
  return o.grants > 0 || std::binary_search(held_.begin(), held_.end(), word_of(o));
}

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
  if (condemned_.empty() && !(rescan_ && !condemned_pinned_.empty())) {
    rescan_ = false;
    return false;
  }
  if (rescan_) {
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
      if (is_held(objects_[object])) left[kept++] = object;
      else free_memory(object);
    }
    left.resize(kept);
  }
  condemned_pinned_.insert(condemned_pinned_.end(), left.begin(), left.end());
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

// ---- eviction -----------------------------------------------------------------------------------------------

// Pins are invisible to the daemon; the clients leave the places of their last ones in a circular log.
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

bool Core::has_held(uint32_t extent) const {
  for (uint32_t n : extents_[extent].objects) {
    const Object& o = objects_[n];
    if (o.extent == extent && (o.state == Object::kGone || is_held(o))) return true;
  }
  return false;
}

// Makes room for `bytes`: evicts what has a copy on disk, starts to spill the rest, oldest first.
// Returns the bytes that are free now.
uint64_t Core::reclaim(uint64_t bytes) {
  want_unpins(true);
  scan_holds();
  if (!spill_.enabled()) return 0;
  read_recent();
  uint64_t freed = 0, planned = 0;
  for (uint32_t n = oldest_; n != kNone && freed + planned < bytes;) {
    uint32_t next = extents_[n].newer;
    Extent& e = extents_[n];
    uint64_t size = e.size;
    if (e.state == Extent::kClosed && e.busy == 0 && !has_held(n)) {
      bool clean = true;
      for (uint32_t o : e.objects)
        if (objects_[o].state == Object::kMemory && objects_[o].extent == n) clean &= objects_[o].clean;
      if (clean) freed += evict(n);
      else if (start_spill(n)) planned += size;
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
    if (o.state != Object::kMemory || o.extent != extent || o.clean) continue;
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
  if (status.ok()) evict(extent);
  else maybe_free(extent);
}

// Lets go of the memory of every unheld object of this extent that has a copy on disk. Returns what
// became free: the extent's size or nothing.
uint64_t Core::evict(uint32_t extent) {
  Extent& e = extents_[extent];
  Segment* s = segment(e.segment);
  std::vector<uint32_t> out;
  for (uint32_t n : e.objects) {
    const Object& o = objects_[n];
    if (o.state != Object::kMemory || o.extent != extent || !o.clean || o.grants > 0) continue;
    s->header_at(o.offset)->state.store(state_word(e.generation, kCondemned), std::memory_order_seq_cst);
    out.push_back(n);
  }
  scan_holds();
  uint64_t size = e.size;
  for (uint32_t n : out) {
    Object& o = objects_[n];
    if (o.extent != extent || o.state != Object::kMemory) continue;  // listed twice
    if (is_held(o)) {
      s->header_at(o.offset)->state.store(state_word(e.generation, kSealed), std::memory_order_seq_cst);
      continue;
    }
    --e.live;
    e.live_bytes -= footprint(o.size);
    o.state = Object::kSpilled;
    o.extent = kNone;
    ++spilled_objects_;
    spilled_bytes_ += o.size;
    directory_.update({o.id, kDirSpilled, {0, 0, 0, o.size}, n});
  }
  progress(0);
  bool freed = e.live == 0 && e.busy == 0;
  maybe_free(extent);
  return freed ? size : 0;
}

// ---- restore ---------------------------------------------------------------------------------------------------

void Core::add_waiter(uint32_t object, Peer* p, const LocateRecord& r) {
  Object& o = objects_[object];
  if (r.request) restore_waiters_[object].push_back({p->number, r.request});
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
    Status s = ready.ok() ? spill_.read(copy.at, size, copy.checksum, out) : ready;
    if (bytes >= (1 << 20)) seg->forget_mappings(offset, bytes);
    return [=, this] {
      if (ready.ok()) return finish_restore(object, serial, extent, offset, s);
      --extents_[extent].busy;
      abandon_extent(extent);
      finish_restore(object, serial, kNone, 0, s);
    };
  });
}

void Core::finish_restore(uint32_t object, uint32_t serial, uint32_t extent, uint64_t offset, Status s) {
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
    --spilled_objects_;
    spilled_bytes_ -= o.size;
    ++restored_objects_;
    o.state = Object::kMemory;
    o.extent = extent;
    o.offset = offset;
    ++e.live;
    e.live_bytes += footprint(o.size);
    e.objects.push_back(object);
    directory_.update({o.id, kDirMemory, location(o), object});
    lru_touch(extent);
    for (auto& w : waiters)
      if (Peer* p = peer(w.peer)) answer_located(p, w.request, object);
    return;
  }
  if (wanted) o.state = Object::kSpilled;
  else if (o.serial == serial && o.state == Object::kGone) {
    release_copy(object);
    free_number(object);
    s = Status(RAY_NOT_FOUND, "the object was dropped");
  }
  if (extent != kNone) maybe_free(extent);
  for (auto& w : waiters)
    if (Peer* p = peer(w.peer)) refuse(p, w.request, s.code(), s.message());
}

}  // namespace ray::store
