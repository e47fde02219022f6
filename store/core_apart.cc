// Copies beside a full store: what finds no room is read into memory of the reader's own. See core.h; store thread, but for
// fill_apart, which runs on a job thread.
//
// Invariants: (1) at most one read per peer and object is under way; (2) who gives up and asks again within kKeepNs finds what
// was begun for it, so that a limit shorter than the read does not start it over and over; (3) apart_bytes_ counts what is being
// read, what is kept, and what clients have not given back (kAck), and does not exceed apart_limit(); what a forked child still
// maps after its parent let go is not counted.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>

#include "libray/base/clock.h"
#include "libray/base/fault.h"
#include "store/core.h"

namespace ray::store {

namespace {
constexpr int64_t kMomentNs = 100000000;
constexpr int64_t kKeepNs = 3000000000;
constexpr size_t kMostAsked = 256;  // of those that gave up and are remembered

uint64_t key_of(uint32_t peer, uint32_t object) { return uint64_t{peer} << 32 | object; }
}  // namespace

struct Core::ApartRead {
  enum State : uint8_t { kAsked, kReading, kDone } state = kAsked;
  uint32_t peer = 0, object = kNone, serial = 0;
  int64_t since_ns = 0;
  uint64_t size = 0, charged = 0;
  SpillCopy copy;
  std::vector<uint64_t> requests;              // of the peer, that wait for it
  Fd fd;                                       // kDone
  std::atomic<int64_t> until_ns{INT64_MAX};    // nobody wants it from then on; the job looks, too
};

uint64_t Core::apart_limit() const {
  if (options_.apart_bytes) return options_.apart_bytes;
  const long pages = ::sysconf(_SC_PHYS_PAGES), page = ::sysconf(_SC_PAGESIZE);
  const uint64_t memory = pages > 0 && page > 0 ? static_cast<uint64_t>(pages) * static_cast<uint64_t>(page) : 0;
  return std::max(options_.capacity_bytes, memory / 2);
}

std::shared_ptr<Core::ApartRead> Core::find_apart(uint32_t peer, uint32_t object) const {
  auto it = apart_.find(key_of(peer, object));
  return it != apart_.end() && it->second->serial == objects_[object].serial ? it->second : nullptr;
}

// Restores for which there is no room, nothing is being written that makes some, and no pin has ended for a moment: who
// can do with a copy of its own gets that, when it has waited for a moment itself. Readers that hold pins, so perhaps more than
// the store has room for, come here again and again: for them the moment is only counted from the last progress.
void Core::read_apart(int64_t now) {
  if (restores_.empty() || spilling_bytes_ > 0) return;
  if (now - last_progress_ns_ < kMomentNs) return wake_by(last_progress_ns_ + kMomentNs);
  std::erase_if(restores_, [&](const Waiting& w) {
    auto it = restore_waiters_.find(w.object);
    const Object& o = objects_[w.object];
    if (it == restore_waiters_.end() || o.serial != w.serial || o.state != Object::kRestoring || o.size == 0) return false;
    const size_t apart = std::erase_if(
        it->second, [&](const RestoreWaiter& r) { return r.may_be_apart && begin_apart(w.object, r, now); });
    if (apart == 0 || !it->second.empty()) return false;
    end_restore(w);
    return true;
  });
}

// False: it waits on, as one of the restores.
bool Core::begin_apart(uint32_t object, const RestoreWaiter& r, int64_t now) {
  const Peer* p = peer(r.peer);
  if (!p) return false;
  std::shared_ptr<ApartRead> a = find_apart(r.peer, object);
  if (a && a->state == ApartRead::kReading) {
    a->requests.push_back(r.request);
    a->until_ns = INT64_MAX;
    return true;
  }
  const int64_t since = a ? std::min(a->since_ns, r.since_ns) : r.since_ns;
  if (p->holds == 0 && p->grants.empty() && now - since < kMomentNs) {
    wake_by(since + kMomentNs);
    return false;
  }
  const uint64_t charged = round_up(objects_[object].size, kPage);
  if (apart_bytes_ + charged > apart_limit()) {
    wake_by(now + kMomentNs);  // what is given back does not wake this thread
    return false;
  }
  a = std::make_shared<ApartRead>();
  a->peer = r.peer;
  a->object = object;
  a->serial = objects_[object].serial;
  a->since_ns = since;
  a->size = objects_[object].size;
  a->charged = charged;
  a->copy = copies_[object];
  a->requests.push_back(r.request);
  apart_bytes_ += charged;
  drop_apart(key_of(r.peer, object));
  apart_[key_of(r.peer, object)] = a;
  start_apart(a);
  return true;
}

void Core::start_apart(const std::shared_ptr<ApartRead>& a) {
  a->state = ApartRead::kReading;
  ++runs_[a->copy.run].live;  // the object may be dropped meanwhile
  jobs_->run([this, a]() -> JobPool::Done {
    auto fd = std::make_shared<Fd>();
    const Status s = fill_apart(*a, fd.get());
    return [=, this] { finish_apart(a, s, fd.get()); };
  });
}

// Its bytes from the spill file into memory that is the asker's alone: no part of the capacity, gone with its mapping.
Status Core::fill_apart(const ApartRead& a, Fd* out) {
  auto wanted = [&] { return steady_ns() < a.until_ns.load(std::memory_order_relaxed); };
  if (!wanted()) return Status(RAY_CANCELLED, "nobody waits for this copy");
  auto made = create_memfd("libray-store-apart", a.size);
  if (!made.ok()) return made.status();
  if (::fallocate(made->get(), 0, 0, static_cast<off_t>(a.size)) != 0)
    return errno_error(RAY_OUT_OF_MEMORY, "no memory for a copy of %llu bytes", static_cast<unsigned long long>(a.size));
  auto map = map_shared(made->get(), a.size, true);
  if (!map.ok()) return map.status();
  RAY_TRY(spill_.read(a.copy.at, a.size, a.copy.checksum, map->data(), [&] { return tell_progress(), wanted(); }));
  auto readonly = reopen_readonly(made->get());
  if (!readonly.ok()) return readonly.status();
  *out = std::move(*readonly);
  return Status();
}

void Core::finish_apart(const std::shared_ptr<ApartRead>& a, const Status& s, Fd* fd) {
  Peer* p = peer(a->peer);
  if (s.code() == RAY_CANCELLED && p && !a->requests.empty()) {  // asked for again just then
    start_apart(a);
    return drop_run_piece(a->copy.run);
  }
  drop_run_piece(a->copy.run);
  const uint64_t key = key_of(a->peer, a->object);
  auto it = apart_.find(key);
  const bool known = it != apart_.end() && it->second == a;
  if (p && s.ok() && known && a->requests.empty()) {  // for the next time
    a->fd = std::move(*fd);
    a->state = ApartRead::kDone;
    return;
  }
  apart_bytes_ -= a->charged;
  for (uint64_t request : a->requests) {
    if (p && s.ok()) give_apart(p, request, fd->get(), a->charged);
    else if (p) refuse(p, request, s.code(), s.message());
  }
  if (known) apart_.erase(it);
}

void Core::give_apart(Peer* p, uint64_t request, int fd, uint64_t bytes) {
  if (!send_apart_(p->number, request, fd))
    return refuse(p, request, RAY_UNAVAILABLE, "this process does not read the answers of the object store");
  p->apart[request] += bytes;
  apart_bytes_ += bytes;
  if (p->requests > 0) --p->requests;
}

// True: the question is answered, or will be when the read is done.
bool Core::join_apart(Peer* p, uint32_t object, const LocateRecord& r) {
  std::shared_ptr<ApartRead> a = find_apart(p->number, object);
  if (!a || a->state == ApartRead::kAsked) return false;
  if (a->state == ApartRead::kDone) {
    give_apart(p, r.request, a->fd.get(), a->charged);
    drop_apart(key_of(p->number, object));
  } else if (r.timeout_ns == 0) {
    if (a->requests.empty()) a->until_ns = now_ + kKeepNs;
    refuse(p, r.request, RAY_TIMED_OUT, "object " + r.id.hex() + " is being read from disk");
  } else {
    a->requests.push_back(r.request);
    a->until_ns = INT64_MAX;
  }
  return true;
}

// Whoever waits in slices asks again at once: how long it has waited is remembered for a moment.
void Core::remember_apart(uint32_t object, const RestoreWaiter& r) {
  if (!r.may_be_apart || !peer(r.peer)) return;
  std::shared_ptr<ApartRead> a = find_apart(r.peer, object);
  if (!a) {
    if (apart_.size() >= kMostAsked) return;
    a = std::make_shared<ApartRead>();
    a->peer = r.peer;
    a->object = object;
    a->serial = objects_[object].serial;
    a->since_ns = r.since_ns;
    drop_apart(key_of(r.peer, object));
    apart_[key_of(r.peer, object)] = a;
  }
  if (a->state == ApartRead::kAsked) a->until_ns = now_ + kKeepNs;
}

size_t Core::forget_apart(const Peer* p, uint64_t request) {
  size_t found = 0;
  for (auto& [key, a] : apart_) {
    if (a->peer != p->number) continue;
    const size_t here = std::erase(a->requests, request);
    if (here > 0 && a->requests.empty()) a->until_ns = now_ + kKeepNs;
    found += here;
  }
  return found;
}

// What is being read is its job's to count off.
void Core::drop_apart(uint64_t key) {
  auto it = apart_.find(key);
  if (it == apart_.end()) return;
  if (it->second->state == ApartRead::kDone) apart_bytes_ -= it->second->charged;
  apart_.erase(it);
}

void Core::expire_apart(int64_t now) {
  std::erase_if(apart_, [&](const auto& entry) {
    const ApartRead& a = *entry.second;
    if (a.state == ApartRead::kReading) return false;
    const int64_t until = a.until_ns;
    if (now < until) {
      if (until != INT64_MAX) wake_by(until);
      return false;
    }
    if (a.state == ApartRead::kDone) apart_bytes_ -= a.charged;
    return true;
  });
}

// Its copies went with its mappings.
void Core::bury_apart(Peer* p) {
  for (auto& [request, bytes] : p->apart) apart_bytes_ -= bytes;
  p->apart.clear();
  for (auto& [key, a] : apart_) {
    if (a->peer != p->number) continue;
    a->requests.clear();
    a->until_ns = 0;
  }
}

}  // namespace ray::store
