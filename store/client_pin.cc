// Pins: hazard pointers over the segments of all clients. See client_impl.h.
//
// A pin stores the object's place in a hold word of its own table, and only then looks whether the
// object is still there. The daemon changes the object's state first and then looks at the hold
// words. Both use sequentially consistent accesses, so at least one of the two sees the other.
#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <set>

#include "libray/base/fault.h"
#include "store/client_impl.h"

namespace ray::store {

namespace {
constexpr int64_t kAnswerNs = 5000000000;  // a question that needs no memory
constexpr int64_t kGlanceNs = 100000000;   // the same, of who does not want to wait
constexpr uint64_t kApart = uint64_t{1} << 63;  // in the cookie of a pin whose bytes are a copy, with the request's number
constexpr uint64_t kMappedApart = 256 << 10;  // bytes from which the copy stays a mapping

bool same_id(const ObjectHeader* h, const ObjectId& id) {
  uint64_t have[3], want[3];
  auto* words = reinterpret_cast<const uint64_t*>(h->id.b);
  for (int i = 0; i < 3; ++i) have[i] = __atomic_load_n(words + i, __ATOMIC_ACQUIRE);
  std::memcpy(want, id.b, sizeof want);
  return have[0] == want[0] && have[1] == want[1] && have[2] == want[2];
}

}  // namespace

bool ClientImpl::take_hold(uint64_t word, uint32_t* out) {
  std::lock_guard lock(hold_mu_);
  if (free_holds_.empty()) {
    if (hold_limit_ == kHolds) return false;
    *out = hold_limit_++;
    control_page_->hold_limit.store(hold_limit_, std::memory_order_seq_cst);
  } else {
    *out = free_holds_.back();
    free_holds_.pop_back();
  }
  if (word) {
    auto* log = reinterpret_cast<std::atomic<uint64_t>*>(control_.data() + kRecentAt);
    log[recent_ % kRecent].store(word, std::memory_order_relaxed);
    control_page_->recent_count.store(++recent_, std::memory_order_release);
  }
  return true;
}

void ClientImpl::give_hold(uint32_t hold) {
  std::lock_guard lock(hold_mu_);
  free_holds_.push_back(hold);
}

void ClientImpl::clear_hold(uint32_t hold) {
  hold_words()[hold].exchange(0, std::memory_order_seq_cst);
  if (control_page_->unpin_wanted.load(std::memory_order_seq_cst) == 0) return;
  {
    std::lock_guard lock(mu_);
    push(kUnpinned, nullptr, 0);
  }
  wake_daemon(true);
}

MappedSegment* ClientImpl::find_segment(uint32_t segment) const {
  for (MappedSegment* m = segments_[segment % kSegmentTable].load(std::memory_order_acquire); m;
       m = m->next.load(std::memory_order_acquire))
    if (m->segment == segment) return m;
  return nullptr;
}

// The whole read path: no lock but the one of the hold list, no syscall.
ClientImpl::Try ClientImpl::try_pin(const ObjectId& id, const Location& at, uint32_t hold,
                                    Pin* out) {
  if (at.offset % kLine != 0 || at.offset >= geometry_.arena_bytes) return Try::kMiss;
  MappedSegment* m = find_segment(at.segment);
  if (!m) return Try::kUnmapped;
  hold_words()[hold].exchange(hold_word(at.segment, at.offset), std::memory_order_seq_cst);
  RAY_FAULT("store.pin.held");
  uint8_t* base = m->base.load(std::memory_order_seq_cst);
  if (!base) {
    clear_hold(hold);
    return Try::kUnmapped;
  }
  auto* h = reinterpret_cast<const ObjectHeader*>(base + geometry_.arena_at() + at.offset);
  bool same = h->state.load(std::memory_order_seq_cst) == state_word(at.generation, kSealed);
  // Atomic, because for a stale hint somebody may be writing other bytes here.
  uint64_t size = __atomic_load_n(&h->size, __ATOMIC_ACQUIRE);
  same = same && same_id(h, id) && size <= geometry_.arena_bytes &&
         footprint(size) <= geometry_.arena_bytes - at.offset;
  // The lease last: if the bytes above belong to a later lease, this changed before they did.
  auto* units = reinterpret_cast<const std::atomic<uint32_t>*>(base);
  if (!same || units[at.offset / kUnit].load(std::memory_order_acquire) != at.generation) {
    clear_hold(hold);
    return Try::kMiss;
  }
  out->data = reinterpret_cast<const uint8_t*>(h + 1);
  out->size = size;
  out->cookie = hold + 1ull;
  return Try::kPinned;
}

Status ClientImpl::pin(const ObjectId& id, const Location& hint, int64_t timeout_ns, int64_t within_ns, Pin* out,
                       bool may_be_apart) {
  if (forked()) return forked_error();
  if (__builtin_expect(any_inherited_.load(std::memory_order_relaxed), 0)) look_for_children(false);
  uint32_t hold;
  if (!take_hold(hint.segment ? hold_word(hint.segment, hint.offset) : 0, &hold))
    return error(RAY_OUT_OF_MEMORY, "this process pins %u objects already: release some", kHolds);
  if (hint.segment && try_pin(id, hint, hold, out) == Try::kPinned) return Status();
  Status s = pin_slow(id, hint, timeout_ns, within_ns, hold, out, may_be_apart);
  if (!s.ok() || (out->cookie & kApart)) give_hold(hold);
  return s;
}

// The copy that the daemon made. Nobody else has it; what is small does not take one of the process's few mappings.
Status ClientImpl::take_apart(Fd fd, uint64_t request, Pin* out) {
  struct stat st;
  if (::fstat(fd.get(), &st) != 0 || st.st_size <= 0)
    return errno_error(RAY_OBJECT_LOST, "the copy of an object has no bytes");
  const auto size = static_cast<uint64_t>(st.st_size);
  auto map = map_shared(fd.get(), size, false);
  if (!map.ok()) return map.status();
  if (size < kMappedApart) {
    auto* copy = static_cast<uint8_t*>(std::aligned_alloc(kLine, round_up(size, kLine)));
    if (!copy) return error(RAY_OUT_OF_MEMORY, "no memory for an object of %llu bytes", static_cast<unsigned long long>(size));
    std::memcpy(copy, map->data(), size);
    out->data = copy;
  } else {
    out->data = map->data();
    new (&*map) Mapping();  // the pin's now
  }
  out->size = size;
  out->cookie = kApart | request;
  return Status();
}

// Pins at `at`, mapping its segment first if need be.
Status ClientImpl::pin_located(const ObjectId& id, const Location& at, int64_t within_ns, uint32_t hold, Pin* out,
                               bool* missed) {
  *missed = false;
  Try t = try_pin(id, at, hold, out);
  if (t == Try::kUnmapped) {
    Status s = map_segment(at.segment, within_ns);
    if (!s.ok() && s.code() != RAY_NOT_FOUND) return s;
    t = try_pin(id, at, hold, out);
  }
  *missed = t != Try::kPinned;
  return Status();
}

Status ClientImpl::pin_slow(const ObjectId& id, const Location& hint, int64_t timeout_ns,
                            int64_t within_ns, uint32_t hold, Pin* out, bool may_be_apart) {
  const CopyName copy = hint.segment ? copy_name(hint) : 0;
  const int64_t start = within_ns > 0 ? steady_ns() : 0;
  bool missed;
  if (hint.segment && !find_segment(hint.segment)) {
    RAY_TRY(pin_located(id, hint, within_ns, hold, out, &missed));
    if (!missed) return Status();
  }
  for (int round = 0;; ++round) {
    DirectoryRow row;
    if (directory_.find(id, copy, &row) && row.state == kDirMemory) {
      RAY_TRY(pin_located(id, row.location, within_ns, hold, out, &missed));
      if (!missed) return Status();
    }
    // Not where the directory says, spilled, or unknown: the daemon knows, and keeps the object
    // where it is until this process's hold word is set.
    Request r;
    enlist(&r);
    {
      std::lock_guard lock(mu_);
      LocateRecord l{r.number, id, copy, within_ns == 0 ? 0 : timeout_ns, may_be_apart, 0};
      push(kLocate, &l, sizeof l);
    }
    int64_t within = within_ns == 0 ? kGlanceNs : within_ns < 0 ? -1 : std::max<int64_t>(0, within_ns - (steady_ns() - start));
    RAY_TRY(await(&r, within_ns == 0 ? kAnswerNs : timeout_ns, within));
    if (r.fd.valid()) {
      Status taken = take_apart(std::move(r.fd), r.number, out);
      if (!taken.ok()) give_apart_back(r.number);
      return taken;
    }
    Status s = pin_located(id, r.located.location, within_ns, hold, out, &missed);
    {
      std::lock_guard lock(mu_);
      AckRecord a{r.number};
      push(kAck, &a, sizeof a);
    }
    wake_daemon(false);
    if (!s.ok() || !missed) return s;
    // The daemon keeps a located object in place, so this is not a race: its owner broke the
    // header.
    if (round > 0)
      return error(RAY_OBJECT_LOST, "object %s in store segment %u is damaged by its owner",
                   id.hex().c_str(), r.located.location.segment);
  }
}

void ClientImpl::unpin(Pin* p) {
  if (!p || p->cookie == 0) return;
  if (p->cookie & kApart) {
    const uint64_t request = p->cookie & ~kApart;
    if (p->size < kMappedApart) std::free(const_cast<uint8_t*>(p->data));
    else ::munmap(const_cast<uint8_t*>(p->data), p->size);
    *p = Pin{};
    if (!forked()) give_apart_back(request);
    return;
  }
  uint32_t hold = static_cast<uint32_t>(p->cookie - 1);
  *p = Pin{};
  if (forked()) return;
  if (__builtin_expect(any_inherited_.load(std::memory_order_relaxed), 0) && kept_for_children(hold)) return;
  RAY_FAULT("store.unpin");
  clear_hold(hold);
  give_hold(hold);
}

// The daemon counts what it made.
void ClientImpl::give_apart_back(uint64_t request) {
  {
    std::lock_guard lock(mu_);
    AckRecord a{request};
    push(kAck, &a, sizeof a);
  }
  wake_daemon(false);
}

// With segments_mu_, so that what a hold word names stays mapped; a pin that ends meanwhile costs a wrong figure at most.
uint64_t ClientImpl::pinned_bytes() {
  if (forked()) return 0;
  std::lock_guard lock(segments_mu_);
  constexpr uint32_t kMost = 1 << 16;  // of these it is worth the time
  const uint32_t limit = std::min(kMost, control_page_->hold_limit.load(std::memory_order_seq_cst));
  std::set<uint64_t> seen;
  uint64_t bytes = 0;
  for (uint32_t i = 0; i < limit; ++i) {
    const uint64_t w = hold_words()[i].load(std::memory_order_seq_cst);
    const uint64_t offset = (w & ((uint64_t{1} << 40) - 1)) * kLine;
    if (!w || offset >= geometry_.arena_bytes || !seen.insert(w).second) continue;
    MappedSegment* m = find_segment(static_cast<uint32_t>(w >> 40));
    uint8_t* base = m ? m->base.load(std::memory_order_seq_cst) : nullptr;
    if (!base) continue;
    auto* h = reinterpret_cast<const ObjectHeader*>(base + geometry_.arena_at() + offset);
    bytes += footprint(std::min(__atomic_load_n(&h->size, __ATOMIC_ACQUIRE), geometry_.arena_bytes));
  }
  return bytes;
}

Status pin_or_copy(Client& client, const ObjectId& id, const Location& hint, int64_t timeout_ns, int64_t within_ns, Pin* out) {
  return static_cast<ClientImpl&>(client).pin(id, hint, timeout_ns, within_ns, out, true);
}

// Many who time out at once, or one in slices, would stand in each other's way.
uint64_t ClientImpl::pinned_lately() {
  constexpr int64_t kSecond = 1000000000;
  const int64_t now = steady_ns();
  int64_t seen = pinned_seen_ns_.load(std::memory_order_acquire);
  if ((seen == 0 || now - seen >= kSecond) && pinned_seen_ns_.compare_exchange_strong(seen, now))
    pinned_seen_.store(pinned_bytes(), std::memory_order_release);
  return pinned_seen_.load(std::memory_order_acquire);
}

uint64_t pinned_lately(const Client& client) {
  return const_cast<ClientImpl&>(static_cast<const ClientImpl&>(client)).pinned_lately();
}

uint64_t pinned_by(const Client& client) {
  return const_cast<ClientImpl&>(static_cast<const ClientImpl&>(client)).pinned_bytes();
}

// ---- segments of others ------------------------------------------------------------------------

Status ClientImpl::map_segment(uint32_t segment, int64_t within_ns) {
  unmap_retired();
  if (MappedSegment* m = find_segment(segment); m && m->base.load(std::memory_order_acquire))
    return Status();
  Request r;
  enlist(&r);
  SegmentMessage m{kMsgSegment, segment, r.number, 0, 0};
  Status sent = send_with_fds(socket_.get(), &m, sizeof m, nullptr, 0);
  if (!sent.ok()) {
    forget(&r);
    if (sent.code() == RAY_UNAVAILABLE) disconnected_.store(true, std::memory_order_relaxed);
    return sent;
  }
  RAY_TRY(await(&r, kAnswerNs, within_ns == 0 ? kGlanceNs : -1));
  auto map = map_shared(r.fd.get(), geometry_.total(), false);
  if (!map.ok()) return map.status();
  std::lock_guard lock(segments_mu_);
  MappedSegment* at = find_segment(segment);
  if (!at) {
    at = new MappedSegment;
    at->segment = segment;
    auto& slot = segments_[segment % kSegmentTable];
    at->next.store(slot.load(std::memory_order_relaxed), std::memory_order_relaxed);
    slot.store(at, std::memory_order_release);
  }
  if (at->base.load(std::memory_order_relaxed)) return Status();  // another thread was faster
  ::madvise(map->data(), map->size(), MADV_DONTDUMP);
  at->base.store(map->data(), std::memory_order_seq_cst);
  new (&*map) Mapping();  // owned by the table now
  return Status();
}

// Segments whose owner died and whose last object is gone. A thread may be trying a stale hint
// there right now: it has set its hold word first, so the mapping goes only when no hold word names
// it.
void ClientImpl::unmap_retired() {
  const DirectoryHeader* d = directory_.header();
  std::lock_guard lock(segments_mu_);
  uint64_t count = d->retired_count.load(std::memory_order_acquire);
  if (count - retired_seen_ > kRetiredLog) retired_seen_ = count - kRetiredLog;
  for (; retired_seen_ < count; ++retired_seen_) {
    uint32_t segment = d->retired[retired_seen_ % kRetiredLog].load(std::memory_order_relaxed);
    MappedSegment* m = find_segment(segment);
    if (!m || segment == segment_) continue;
    if (uint8_t* base = m->base.exchange(nullptr, std::memory_order_seq_cst))
      to_unmap_.push_back({segment, base});
  }
  if (to_unmap_.empty()) return;
  std::vector<uint32_t> held;
  uint32_t limit = control_page_->hold_limit.load(std::memory_order_seq_cst);
  for (uint32_t i = 0; i < limit; ++i)
    if (uint64_t w = hold_words()[i].load(std::memory_order_seq_cst))
      held.push_back(static_cast<uint32_t>(w >> 40));
  std::erase_if(to_unmap_, [&](auto& x) {
    if (std::find(held.begin(), held.end(), x.first & 0xFFFFFF) != held.end()) return false;
    ::munmap(x.second, geometry_.total());
    return true;
  });
}

}  // namespace ray::store
