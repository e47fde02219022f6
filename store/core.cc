// The store's records, leases and bookkeeping. See core.h.
#include "store/core.h"

#include <algorithm>

#include "libray/base/clock.h"
#include "libray/base/fault.h"
#include "libray/base/log.h"

namespace ray::store {

namespace {
constexpr uint32_t kMaxRequests = 4096;  // unanswered or, of places, not acknowledged; per client
constexpr uint32_t kMaxClients = 4096;
constexpr int64_t kRestoreNs = 10000000000;  // limit of a restore that nobody waits for

uint64_t pick_small_extent(uint64_t capacity) {
  uint64_t n = kUnit;
  while (n < capacity / 256 && n < kMaxSmallExtent) n *= 2;
  return std::max<uint64_t>(n, 64 << 10);
}
}  // namespace

Core::Core(const DaemonOptions& options, std::function<void(uint32_t)> wake_peer, std::function<void()> wake_self,
           SendApart send_apart)
    : options_(options),
      wake_peer_(std::move(wake_peer)),
      send_apart_(std::move(send_apart)),
      owners_(wire::kMaxProcesses),
      spill_(options.spill_dir, options.spill_bytes),
      jobs_(std::make_unique<JobPool>(2, std::move(wake_self))) {}

Core::~Core() { jobs_.reset(); }

Status Core::init() {
  if (options_.capacity_bytes < (256 << 10))
    return error(RAY_INVALID_ARGUMENT, "an object store needs at least 256 KiB, not %llu bytes",
                 static_cast<unsigned long long>(options_.capacity_bytes));
  small_extent_ = pick_small_extent(options_.capacity_bytes);
  // Address space is not memory: four times the capacity keeps large runs findable.
  arena_bytes_ = std::min(round_up(options_.capacity_bytes * 4, 2 << 20), kMaxArena);
  auto dir = DirectoryWriter::create(options_.capacity_bytes, static_cast<uint32_t>(small_extent_),
                                     arena_bytes_);
  if (!dir.ok()) return dir.status();
  directory_ = std::move(*dir);
  auto own = Segment::create(next_segment_, arena_bytes_, false, 0);
  if (!own.ok()) return own.status();
  segments_[next_segment_++] = std::move(*own);
  last_progress_ns_ = steady_ns();
  return Status();
}

Peer* Core::peer(uint32_t number) {
  auto it = peers_.find(number);
  return it == peers_.end() ? nullptr : it->second.get();
}

Segment* Core::segment(uint32_t number) const {
  auto it = segments_.find(number);
  return it == segments_.end() ? nullptr : it->second.get();
}

Result<Fd> Core::segment_fd(uint32_t number) const {
  Segment* s = segment(number);
  if (!s) return error(RAY_NOT_FOUND, "store segment %u is gone", number);
  return s->readonly_fd();
}

Result<Peer*> Core::attach(int pid, uint32_t process) {
  if (peers_.size() >= kMaxClients)
    return error(RAY_UNAVAILABLE, "the object store serves %u clients already", kMaxClients);
  uint32_t number = next_segment_++;
  auto seg = Segment::create(number, arena_bytes_, true, pid);
  if (!seg.ok()) return seg.status();
  auto p = std::make_unique<Peer>();
  p->number = number;
  p->process = process;
  owners_[process].dead = false;
  p->pid = pid;
  p->segment = seg->get();
  p->segment->control()->unpin_wanted.store(unpins_wanted_, std::memory_order_relaxed);
  ControlHeader* c = p->segment->control();
  p->publish = RingConsumer(&c->publish, p->segment->control_base() + kPublishAt, kPublishBytes);
  p->returns = RingProducer(&c->returns, p->segment->control_base() + kReturnsAt, kReturnsBytes);
  segments_[number] = std::move(*seg);
  Peer* out = p.get();
  peers_[number] = std::move(p);
  peer_list_.push_back(out);
  return out;
}

// The client is gone: its holds and leases end. What it committed stays until it is known, by
// process_died, which of it others have taken over.
bool Core::bury(uint32_t number, bool heirs) {
  Peer* p = peer(number);
  if (!p) return false;
  RAY_FAULT("store.daemon.bury");
  drain(p);
  std::shared_ptr<Segment> seg = segments_[number];
  for (auto& [request, object] : p->grants)
    if (objects_[object].grants > 0) --objects_[object].grants;
  for (auto* queue : {&restores_, &creates_})
    std::erase_if(*queue, [&](const Waiting& w) { return w.peer == number; });
  for (auto& [object, waiters] : restore_waiters_)
    std::erase_if(waiters, [&](const RestoreWaiter& w) { return w.peer == number; });
  bury_apart(p);
  if (heirs) {
    Heirs h{p->pid, {}};
    read_holds(*p, &h.words);
    heirs = !h.words.empty();
    if (heirs) heirs_[number] = std::move(h);
  }
  std::erase(peer_list_, p);
  peers_.erase(number);
  seg->drop_control();
  rescan_ = true;
  std::vector<uint32_t> leased;
  for (auto& [offset, extent] : seg->extents)
    if (extents_[extent].state == Extent::kLeased) leased.push_back(extent);
  for (uint32_t extent : leased) close_extent(extent);
  while (auto run = seg->space.take_to_cool(UINT64_MAX)) {
    seg->punch(run->offset, run->size);
    committed_ -= run->size;
    seg->space.give(*run, false);
    progress(run->size);
  }
  retire_if_empty(number);
  return heirs;
}

void Core::heirs_ended(uint32_t number) {
  heirs_.erase(number);
  rescan_ = true;
}

void Core::retire_if_empty(uint32_t number) {
  if (number == kDaemonSegment || peers_.count(number)) return;
  Segment* s = segment(number);
  if (!s || !s->extents.empty()) return;
  segments_.erase(number);
  DirectoryHeader* h = header();
  uint64_t n = h->retired_count.load(std::memory_order_relaxed);
  h->retired[n % kRetiredLog].store(number, std::memory_order_relaxed);
  h->retired_count.store(n + 1, std::memory_order_release);
}

// ---- records -----------------------------------------------------------------------------------

bool Core::drain_all(std::vector<uint32_t>* bad) {
  bool worked = false;
  for (size_t i = 0; i < peer_list_.size(); ++i) {
    Peer* p = peer_list_[i];
    if (p->publish.empty()) continue;
    worked = true;
    if (!drain(p)) bad->push_back(p->number);
  }
  return worked;
}

// Everything that was committed when the pass began, however small the records are, and no more. The word is the
// client's, so it is no further than a ring can be.
bool Core::drain(Peer* p) {
  const uint64_t end = std::min(p->segment->control()->publish.tail.load(std::memory_order_acquire),
                                p->publish.position() + kPublishBytes);
  for (int n = 0;; ++n) {
    RecordView view;
    switch (p->publish.next(&view)) {
      case RingConsumer::Next::kEmpty: p->publish.release(); return true;
      case RingConsumer::Next::kCorrupt: return false;
      case RingConsumer::Next::kRecord: break;
    }
    if (!handle(p, view)) return false;
    if (p->publish.position() >= end) break;
    if (n % 64 == 63) p->publish.release();
  }
  p->publish.release();
  return true;
}

static CopyName copy_of(const Location& hint) { return hint.segment ? copy_name(hint) : 0; }

template <class T>
static bool copy_record(const RecordView& view, T* out) {
  if (view.size != sizeof(T)) return false;
  std::memcpy(out, view.data, sizeof(T));  // the client may change the bytes: look at them once
  return true;
}

bool Core::handle(Peer* p, const RecordView& view) {
  switch (view.type) {
    case kPublish: {
      PublishRecord r;
      return copy_record(view, &r) && on_publish(p, r);
    }
    case kDrop: {
      DropRecord r;
      if (!copy_record(view, &r)) return false;
      drop(r.id, copy_of(r.hint));
      return true;
    }
    case kClose: {
      CloseRecord r;
      return copy_record(view, &r) && on_close(p, r.extent);
    }
    case kLease: {
      ++questions_;
      LeaseRecord r;
      if (!copy_record(view, &r) || ++p->requests > kMaxRequests) return false;
      creates_.push_back({p->number, r.request, kNone, 0, r.bytes, r.flags, r.timeout_ns, now_});
      retry_pump_ = true;
      return true;
    }
    case kLocate: {
      ++questions_;
      LocateRecord r;
      if (!copy_record(view, &r) || (r.request && ++p->requests + p->grants.size() > kMaxRequests)) return false;
      on_locate(p, r, false);
      return true;
    }
    case kAck: {
      AckRecord r;
      if (!copy_record(view, &r)) return false;
      on_ack(p, r.request);
      return true;
    }
    case kForget: {
      AckRecord r;
      if (!copy_record(view, &r)) return false;
      on_forget(p, r.request);
      return true;
    }
    case kUnpinned: rescan_ = true; return true;
    default: return false;
  }
}

bool Core::owned_lease(const Peer* p, uint32_t extent) const {
  return extent < extents_.size() && extents_[extent].state == Extent::kLeased &&
         extents_[extent].segment == p->number;
}

bool Core::on_publish(Peer* p, const PublishRecord& r) {
  if (!owned_lease(p, r.extent)) return false;
  Extent& e = extents_[r.extent];
  if (r.offset < e.offset || r.offset % kLine != 0 || r.size > e.size || r.id.is_nil())
    return false;
  if (r.offset - e.offset > e.size || footprint(r.size) > e.size - (r.offset - e.offset))
    return false;
  if (r.owner >= wire::kMaxProcesses) return false;
  // Places do not overlap, so together they are no more than the extent.
  if (footprint(r.size) > e.size - e.cursor) return false;
  e.cursor += footprint(r.size);
  uint32_t object = new_object(r);
  Object& o = objects_[object];
  // A copy for somebody who is gone is of no use.
  if (owners_[r.owner].dead || !directory_.insert({r.id, kDirMemory, location(o), object, o.copy})) {
    o.state = Object::kGone;
    condemn(object);
  } else {
    own(object, r.owner);
  }
  if (r.closes) close_extent(r.extent);
  return true;
}

bool Core::on_close(Peer* p, uint32_t extent) {
  if (!owned_lease(p, extent)) return false;
  close_extent(extent);
  return true;
}

void Core::drop(const ObjectId& id, CopyName copy) {
  DirectoryRow row;
  // Else its publish record may still wait in a ring that this pass has not reached.
  if (directory_.find(id, copy, &row)) drop_object(row.object);
  else deferred_next_.push_back({Deferred::kDropped, id, copy, 0, 0, 0, {}});
}

void Core::keep(const ObjectId& id, CopyName copy) {
  DirectoryRow row;
  if (directory_.find(id, copy, &row)) disown(row.object);
  else deferred_next_.push_back({Deferred::kKept, id, copy, 0, 0, 0, {}});
}

void Core::discard(const ObjectId& id, uint32_t owner, uint32_t attempt) {
  deferred_next_.push_back({Deferred::kDiscarded, id, 0, 0, owner, attempt, {}});
}

void Core::process_died(uint32_t process) {
  if (process == 0 || process >= wire::kMaxProcesses) return;
  deferred_next_.push_back({Deferred::kDied, {}, 0, next_segment_, process, 0, {}});
}

// ---- whose copy it is -------------------------------------------------------------------------

void Core::own(uint32_t object, uint32_t owner) {
  Object& o = objects_[object];
  o.owner = static_cast<uint16_t>(owner);
  if (owner == 0) return;
  uint32_t& newest = owners_[owner].newest;
  o.next_owned = newest;
  if (newest != kNone) objects_[newest].previous_owned = object;
  newest = object;
}

void Core::disown(uint32_t object) {
  Object& o = objects_[object];
  if (o.owner == 0) return;
  (o.previous_owned == kNone ? owners_[o.owner].newest : objects_[o.previous_owned].next_owned) =
      o.next_owned;
  if (o.next_owned != kNone) objects_[o.next_owned].previous_owned = o.previous_owned;
  o.owner = 0;
  o.next_owned = o.previous_owned = kNone;
}

void Core::drop_object(uint32_t object) {
  Object& o = objects_[object];
  directory_.erase(o.id, o.copy);
  disown(object);
  switch (o.state) {
    case Object::kMemory:
      o.state = Object::kGone;
      condemn(object);
      break;
    case Object::kSpilled:
      release_copy(object);
      free_number(object);
      break;
    case Object::kRestoring: o.state = Object::kGone; break;  // finish_restore frees it
    default: break;
  }
}

void Core::on_locate(Peer* p, const LocateRecord& r, bool final) {
  DirectoryRow row;
  if (!directory_.find(r.id, r.copy, &row)) {
    if (final) {
      if (r.request)
        refuse(p, r.request, RAY_NOT_FOUND, "object " + r.id.hex() + " is not in the store");
    } else {
      deferred_next_.push_back({Deferred::kLocated, r.id, r.copy, p->number, 0, 0, r});
    }
    return;
  }
  Object& o = objects_[row.object];
  if (o.state == Object::kMemory) {
    if (r.request) answer_located(p, r.request, row.object);
    return;
  }
  if (r.request && r.may_be_apart == 1 && join_apart(p, row.object, r)) return;
  if (r.request && r.timeout_ns == 0) {  // bring it back, but the asker does not wait
    refuse(p, r.request, RAY_TIMED_OUT, "object " + r.id.hex() + " is being restored from disk");
    add_waiter(row.object, p, {0, r.id, r.copy, kRestoreNs, 0, 0});
    return;
  }
  add_waiter(row.object, p, r);
}

void Core::answer_located(Peer* p, uint64_t request, uint32_t object) {
  Object& o = objects_[object];
  if (!p->grants.emplace(request, object).second)
    return refuse(p, request, RAY_INVALID_ARGUMENT, "request number is in use");
  ++o.grants;
  lru_touch(o.extent);
  LocatedRecord out{request, location(o)};
  reply(p, kLocated, &out, sizeof out);
}

void Core::on_ack(Peer* p, uint64_t request) {
  auto it = p->grants.find(request);
  if (it == p->grants.end()) {
    if (auto copy = p->apart.find(request); copy != p->apart.end()) {
      apart_bytes_ -= copy->second;
      p->apart.erase(copy);
    }
    return;
  }
  Object& o = objects_[it->second];
  if (o.grants > 0) --o.grants;
  if (o.state == Object::kGone) rescan_ = true;
  p->grants.erase(it);
}

// What was begun for it goes on; an answer that is on its way is given back.
void Core::on_forget(Peer* p, uint64_t request) {
  size_t found = std::erase_if(
      creates_, [&](const Waiting& w) { return w.peer == p->number && w.request == request; });
  for (auto& [object, waiters] : restore_waiters_)
    found += std::erase_if(waiters, [&, object = object](const RestoreWaiter& w) {
      if (w.peer != p->number || w.request != request) return false;
      remember_apart(object, w);
      return true;
    });
  found += forget_apart(p, request);
  found += p->committing.erase(request);
  if (!found) return;
  retry_pump_ = true;  // who stood behind it may have room
  if (p->requests > 0) --p->requests;
}

// ---- replies -----------------------------------------------------------------------------------

void Core::refuse(Peer* p, uint64_t request, ray_code code, const std::string& text) {
  RefusedRecord r{request, code, static_cast<uint32_t>(text.size())};
  reply(p, kRefused, &r, sizeof r, text);
}

void Core::reply(Peer* p, uint16_t type, const void* data, uint32_t size, const std::string& tail) {
  std::string record(reinterpret_cast<const char*>(&type), sizeof type);
  record.append(static_cast<const char*>(data), size);
  record.append(tail);
  p->overflow.push_back(std::move(record));
  flush_overflow(p);
}

void Core::flush_overflow(Peer* p) {
  bool wrote = false;
  while (!p->overflow.empty()) {
    const std::string& record = p->overflow.front();
    uint16_t type;
    std::memcpy(&type, record.data(), sizeof type);
    uint32_t size = static_cast<uint32_t>(record.size() - sizeof type);
    void* at = p->returns.reserve(type, size);
    if (!at) break;
    std::memcpy(at, record.data() + sizeof type, size);
    p->overflow.pop_front();
    if (p->requests > 0) --p->requests;
    wrote = true;
  }
  if (!wrote) return;
  p->returns.publish();
  std::atomic_thread_fence(std::memory_order_seq_cst);
  uint32_t nap = p->segment->control()->client_asleep.load(std::memory_order_relaxed);
  if ((nap & 1) && nap != p->woken_nap) {
    p->woken_nap = nap;
    wake_peer_(p->number);
  }
}

// ---- extents and objects -----------------------------------------------------------------------

uint32_t Core::new_extent(Segment* s, uint64_t offset, uint64_t size, bool small) {
  uint32_t n;
  if (!free_extents_.empty()) {
    n = free_extents_.back();
    free_extents_.pop_back();
  } else {
    n = static_cast<uint32_t>(extents_.size());
    extents_.emplace_back();
  }
  Extent& e = extents_[n];
  std::vector<uint32_t> keep = std::move(e.objects);
  e = Extent{};
  keep.clear();
  e.objects = std::move(keep);
  e.segment = s->number();
  e.offset = offset;
  e.size = e.resident = size;
  e.small = small;
  e.generation = next_generation();
  e.state = Extent::kCommitting;
  s->used_ns = now_;
  s->extents[offset] = n;
  s->set_generation(offset, size, e.generation);
  return n;
}

void Core::close_extent(uint32_t extent) {
  Extent& e = extents_[extent];
  e.state = Extent::kClosed;
  if (e.live > 0) lru_touch(extent);
  maybe_free(extent);
}

// Frees an extent once it is closed and empty. Its generation changes first (I3).
void Core::maybe_free(uint32_t extent) {
  Extent& e = extents_[extent];
  if (e.state != Extent::kClosed || e.live > 0 || e.busy > 0) return;
  lru_remove(extent);
  Segment* s = segment(e.segment);
  s->set_generation(e.offset, e.size, 0);
  s->extents.erase(e.offset);
  bool keep_warm = e.resident == e.size && (e.segment == kDaemonSegment || peers_.count(e.segment));
  if (!keep_warm) {
    s->punch(e.offset, e.size);
    committed_ -= e.resident;
  }
  s->space.give({e.offset, e.size}, keep_warm);
  s->used_ns = now_;
  if (keep_warm && cool_at_ns_ == 0) cool_at_ns_ = now_ + kWarmNs;
  e.state = Extent::kFree;
  e.objects.clear();
  if (e.objects.capacity() > 4096) e.objects.shrink_to_fit();
  free_extents_.push_back(extent);
  progress(e.size);
  retire_if_empty(e.segment);
}

uint32_t Core::new_object(const PublishRecord& r) {
  uint32_t n;
  if (!free_objects_.empty()) {
    n = free_objects_.back();
    free_objects_.pop_back();
  } else {
    n = static_cast<uint32_t>(objects_.size());
    objects_.emplace_back();
  }
  Object& o = objects_[n];
  uint32_t serial = o.serial + 1;
  o = Object{};
  o.serial = serial;
  o.id = r.id;
  o.state = Object::kMemory;
  o.extent = r.extent;
  o.offset = r.offset;
  o.size = r.size;
  o.attempt = r.attempt;
  o.copy = copy_name(location(o));
  Extent& e = extents_[r.extent];
  ++e.live;
  e.live_bytes += footprint(r.size);
  e.objects.push_back(n);
  return n;
}

void Core::free_number(uint32_t object) {
  objects_[object].state = Object::kFree;
  objects_[object].extent = kNone;
  free_objects_.push_back(object);
}

Location Core::location(const Object& o) const {
  const Extent& e = extents_[o.extent];
  return {e.segment, e.generation, o.offset, o.size};
}

uint64_t Core::word_of(const Object& o) const {
  return hold_word(extents_[o.extent].segment, o.offset);
}

void Core::lru_remove(uint32_t extent) {
  Extent& e = extents_[extent];
  if (e.newer == kNone && e.older == kNone && newest_ != extent) return;
  (e.newer == kNone ? newest_ : extents_[e.newer].older) = e.older;
  (e.older == kNone ? oldest_ : extents_[e.older].newer) = e.newer;
  e.newer = e.older = kNone;
}

void Core::lru_touch(uint32_t extent) {
  if (extent == kNone || extents_[extent].state != Extent::kClosed || newest_ == extent) return;
  lru_remove(extent);
  Extent& e = extents_[extent];
  e.older = newest_;
  if (newest_ != kNone) extents_[newest_].newer = extent;
  newest_ = extent;
  if (oldest_ == kNone) oldest_ = extent;
}

void Core::progress(uint64_t bytes) {
  last_progress_ns_ = now_;
  retry_pump_ = true;
  header()->progress.fetch_add(bytes, std::memory_order_release);
}

// ---- one round ---------------------------------------------------------------------------------

bool Core::tick(int64_t now) {
  now_ = now;
  next_deadline_ = 0;
  bool worked = jobs_->finish();
  retry_pump_ |= worked || rescan_;
  worked |= reap();
  std::vector<Deferred> due;
  due.swap(deferred_);
  deferred_.swap(deferred_next_);
  for (auto& d : due) settle(d);
  worked |= !due.empty() || !deferred_.empty();
  worked |= cool_idle(now);
  expire_apart(now);
  pump(now);
  for (Peer* p : peer_list_)
    if (!p->overflow.empty()) flush_overflow(p);
  publish_counters(worked);
  // A request whose time is over leaves its place to the next one: that is looked at before any sleep.
  return worked || (retry_pump_ && !(creates_.empty() && restores_.empty()));
}

void Core::settle(const Deferred& d) {
  DirectoryRow row;
  switch (d.kind) {
    case Deferred::kDropped:
      if (directory_.find(d.id, d.copy, &row)) drop_object(row.object);
      break;
    case Deferred::kKept:
      if (directory_.find(d.id, d.copy, &row)) disown(row.object);
      break;
    case Deferred::kDiscarded: {
      std::vector<DirectoryRow> copies;
      directory_.find_all(d.id, &copies);
      for (const DirectoryRow& c : copies) {
        const Object& o = objects_[c.object];
        if (o.owner == d.process && o.attempt == d.attempt) drop_object(c.object);
      }
      break;
    }
    case Deferred::kDied: {
      Owner& owner = owners_[d.process];
      while (owner.newest != kNone) drop_object(owner.newest);
      owner.dead = true;  // unless its index is another process's by now
      for (const Peer* p : peer_list_)
        if (p->process == d.process && p->number >= d.peer) owner.dead = false;
      break;
    }
    case Deferred::kLocated:
      if (Peer* p = peer(d.peer)) on_locate(p, d.locate, true);
      break;
  }
}

// For the inspector, which may look at a daemon that hangs: never older than a few passes.
void Core::publish_counters(bool worked) {
  if (worked && ++counters_age_ % 16 != 0) return;
  DirectoryHeader* h = header();
  auto set = [](std::atomic<uint64_t>& w, uint64_t v) {
    if (w.load(std::memory_order_relaxed) != v) w.store(v, std::memory_order_relaxed);
  };
  set(h->used, committed_ - warm_bytes());
  set(h->objects, directory_.size());
  set(h->spilled_bytes, spilled_bytes_);
  set(h->spilled_objects, spilled_objects_);
  set(h->restored_objects, restored_objects_);
  set(h->waiting, creates_.size() + restores_.size());
  set(h->clients, peers_.size());
}

void Core::before_sleep() {
  for (auto& [n, s] : segments_) s->forget_mappings(0, s->geometry().arena_bytes);
  directory_.shrink_if_sparse();
}

}  // namespace ray::store
