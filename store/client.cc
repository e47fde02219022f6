// The store's client: connection, creation, commit, drop. See client_impl.h.
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "libray/base/fault.h"
#include "libray/base/thread.h"
#include "libray/base/trust.h"
#include "store/client_impl.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

namespace ray::store {

namespace {
constexpr int kHelloMs = 10000;
constexpr uint64_t kRecordBytes = 64;  // of a publish record in the ring, with header
constexpr uint32_t kRecycledOften = 4;
constexpr int64_t kMomentNs = 10000000;
constexpr uint32_t kMaxProtected = 8192;  // mappings are a limited resource of the process
}  // namespace

void SpinLock::pause(int n) {
  if (n % 64 == 63)
    ::sched_yield();
  else
    cpu_relax();
}

Result<std::unique_ptr<Client>> Client::connect(const std::string& path, const std::string& token,
                                                uint32_t process) {
  return ClientImpl::open(path, token, process);
}

// ---- connection --------------------------------------------------------------------------------

Result<std::unique_ptr<Client>> ClientImpl::open(const std::string& path, const std::string& token,
                                                 uint32_t process) {
  auto c = std::make_unique<ClientImpl>();
  c->process_ = process;
  Status s = c->hello(path, token, process);
  if (!s.ok()) return s;
  return std::unique_ptr<Client>(std::move(c));
}

Status ClientImpl::hello(const std::string& path, const std::string& token, uint32_t process) {
  if (token.size() > kTokenMax) return error(RAY_INVALID_ARGUMENT, "the store's token is too long");
  auto socket = connect_own(path, SOCK_SEQPACKET);
  if (!socket.ok()) return error(socket.status().code(), "the object store: %s", socket.status().message().c_str());
  socket_ = out_of_the_way(std::move(*socket));
  StoreHello h{};
  h.magic = kStoreMagic;
  h.version = kStoreVersion;
  h.token_size = static_cast<uint32_t>(token.size());
  h.process = process;
  std::memcpy(h.token, token.data(), token.size());
  RAY_TRY(send_with_fds(socket_.get(), &h, sizeof h, nullptr, 0));
  pollfd p{socket_.get(), POLLIN, 0};
  int n;
  do n = ::poll(&p, 1, kHelloMs);
  while (n < 0 && errno == EINTR);
  if (n <= 0)
    return error(RAY_UNAVAILABLE, "the object store at '%s' does not answer", path.c_str());
  StoreWelcome w{};
  std::vector<Fd> fds;
  auto size = recv_with_fds(socket_.get(), &w, sizeof w, &fds);
  if (!size.ok()) return size.status();
  if (*size != sizeof w || w.type != kMsgWelcome)
    return error(RAY_UNAVAILABLE, "the object store at '%s' closed the connection", path.c_str());
  w.text[sizeof w.text - 1] = 0;
  if (w.code != RAY_OK) return Status(w.code, w.text);
  if (fds.size() != 3)
    return error(RAY_UNAVAILABLE, "the object store at '%s' sent no memory", path.c_str());
  RAY_TRY(map(w, std::move(fds)));
  PlainMessage m{kMsgMapped};
  RAY_TRY(send_with_fds(socket_.get(), &m, sizeof m, nullptr, 0));
  ::fcntl(socket_.get(), F_SETFL, O_NONBLOCK);
  return Status();
}

Status ClientImpl::map(StoreWelcome w, std::vector<Fd> fds) {
  segment_ = w.segment;
  auto page = ::mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) return errno_error(RAY_OUT_OF_MEMORY, "cannot map a page");
  guard_page_ = Mapping(page, kPage);
  guard_ = new (page) std::atomic<uint32_t>(1);
  ::madvise(page, kPage, MADV_WIPEONFORK);

  auto dir = map_shared(fds[2].get(), kDirectoryBytes, false);
  if (!dir.ok()) return dir.status();
  directory_map_ = std::move(*dir);
  directory_ = DirectoryReader(directory_map_.data());
  const DirectoryHeader* d = directory_.header();
  if (d->magic != kStoreMagic || d->arena_bytes > kMaxArena)
    return error(RAY_UNSUPPORTED, "the object store speaks another version");
  geometry_.arena_bytes = d->arena_bytes;
  small_limit_ = d->small_extent / 4;
  protected_.resize(geometry_.units());
  retired_seen_ = d->retired_count.load(std::memory_order_acquire);

  auto control = map_shared(fds[0].get(), kControlBytes, true);
  if (!control.ok()) return control.status();
  control_ = std::move(*control);
  control_page_ = reinterpret_cast<ControlHeader*>(control_.data());
  publish_ = RingProducer(&control_page_->publish, control_.data() + kPublishAt, kPublishBytes);
  returns_ = RingConsumer(&control_page_->returns, control_.data() + kReturnsAt, kReturnsBytes);

  auto arena = map_shared(fds[1].get(), geometry_.arena_bytes, true, geometry_.arena_at());
  if (!arena.ok()) return arena.status();
  arena_ = std::move(*arena);
  // A second, read-only mapping of the own memory: pins of own objects use it like everybody's.
  auto own = map_shared(fds[1].get(), geometry_.total(), false);
  if (!own.ok()) return own.status();
  auto* m = new MappedSegment;
  m->segment = segment_;
  m->base.store(own->data(), std::memory_order_relaxed);
  new (&*own) Mapping();  // its life ends with this client: see the destructor
  segments_[segment_ % kSegmentTable].store(m, std::memory_order_release);
  enlist(&ahead_);
  watch_forks();
  for (Mapping* x : {&control_, &arena_, &directory_map_}) {
    ::madvise(x->data(), x->size(), MADV_DONTFORK);
    ::madvise(x->data(), x->size(), MADV_DONTDUMP);
  }
  return Status();
}

ClientImpl::~ClientImpl() {
  bool child = guard_ && forked();
  forget_forks();
  stop_.store(true);
  if (child) {
    if (flusher_.joinable()) flusher_.detach();  // it does not exist here
  } else if (flusher_.joinable()) {
    flusher_.join();
  }
  // shutdown, not just close: a forked child may still have the descriptor. If it reads what was pinned here, that
  // keeps its pins.
  if (socket_.valid() && !child && !read_by_children()) ::shutdown(socket_.get(), SHUT_RDWR);
  for (auto& slot : segments_)
    for (MappedSegment* m = slot.load(); m;) {
      MappedSegment* next = m->next.load();
      if (uint8_t* base = m->base.load()) ::munmap(base, geometry_.total());
      delete m;
      m = next;
    }
  for (auto& [segment, base] : to_unmap_) ::munmap(base, geometry_.total());
  if (child) {  // these were not inherited; the addresses may be somebody else's by now
    for (Mapping* x : {&control_, &arena_, &directory_map_}) new (x) Mapping();
  }
}

Status ClientImpl::forked_error() const {
  return error(RAY_WRONG_STATE,
               "the object store's client does not survive fork: connect again in the child");
}

// ---- the publish ring --------------------------------------------------------------------------

// Whether `bytes` fit and every outstanding building still finds room for its publish record.
bool ClientImpl::room(uint64_t bytes) {
  uint64_t need = bytes + (outstanding_ + 2) * kRecordBytes;
  if (publish_.tail() - head_seen_ + need <= kPublishBytes) return true;
  head_seen_ = publish_.tail() - publish_.used();
  return publish_.tail() - head_seen_ + need <= kPublishBytes;
}

void ClientImpl::push(uint16_t type, const void* data, uint32_t size) {
  flush_overflow();
  void* at = overflow_.empty() && room(kRecordBytes) ? publish_.reserve(type, size) : nullptr;
  if (!at) {
    Queued q{type, size, {}};
    if (size) std::memcpy(q.bytes, data, size);
    overflow_.push_back(q);
    overflowed_.store(true, std::memory_order_relaxed);
    return;
  }
  if (size) std::memcpy(at, data, size);
  publish_.publish();
}

void ClientImpl::flush_overflow() {
  if (overflow_.empty()) return;
  while (overflow_at_ < overflow_.size() && room(kRecordBytes)) {
    const Queued& q = overflow_[overflow_at_];
    void* at = publish_.reserve(q.type, q.size);
    if (!at) break;
    std::memcpy(at, q.bytes, q.size);
    publish_.publish();
    ++overflow_at_;
  }
  if (overflow_at_ == overflow_.size()) {
    overflow_.clear();
    overflow_at_ = 0;
    overflowed_.store(false, std::memory_order_relaxed);
  }
}

// The daemon is far behind (or stopped) and this process may never call again: a thread sees to it
// that queued drops and closes arrive.
void ClientImpl::start_flusher() {
  std::lock_guard lock(flusher_mu_);
  if (flusher_runs_.load() || stop_.load()) return;
  if (flusher_.joinable()) flusher_.join();
  flusher_runs_.store(true);
  sigset_t all, old;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, &old);
  // Without a thread the next call tries again.
  if (!start_thread(&flusher_, "a thread of the object store", [this] { flush_until_empty(); }).ok())
    flusher_runs_.store(false);
  pthread_sigmask(SIG_SETMASK, &old, nullptr);
}

void ClientImpl::flush_until_empty() {
  while (!stop_.load() && !disconnected_.load()) {
    {
      std::lock_guard lock(mu_);
      flush_overflow();
      if (overflow_.empty()) {
        flusher_runs_.store(false);
        return;
      }
    }
    wake_daemon(true);
    timespec ts{0, 200000};
    ::nanosleep(&ts, nullptr);
  }
  flusher_runs_.store(false);
}

// One message per nap of the daemon, and none while it is awake.
void ClientImpl::wake_daemon(bool urgent) {
  if (overflowed_.load(std::memory_order_relaxed) && !flusher_runs_.load(std::memory_order_relaxed))
    start_flusher();
  std::atomic_thread_fence(std::memory_order_seq_cst);  // the ring's tail before the look
  uint32_t nap = directory_.header()->daemon_nap.load(std::memory_order_relaxed);
  if (nap % 4 == kAwake) return;
  std::lock_guard lock(mu_);
  if (nap == woken_nap_) return;
  if (nap % 4 == kDozing && !urgent && publish_.used() < kPublishBytes / 4) return;
  woken_nap_ = nap;
  PlainMessage m{kMsgWake};
  (void)send_with_fds(socket_.get(), &m, sizeof m, nullptr, 0);
}

Status ClientImpl::wait_for_room(int64_t timeout_ns) {
  int64_t until = timeout_ns < 0 ? INT64_MAX : steady_ns() + timeout_ns;
  for (int n = 0;; ++n) {
    {
      std::lock_guard lock(mu_);
      flush_overflow();
      if (overflow_.empty() && room(kRecordBytes)) return Status();
    }
    wake_daemon(true);
    if (disconnected_.load(std::memory_order_relaxed))
      return error(RAY_UNAVAILABLE, "the object store's daemon is gone");
    if (n < 1000) {
      ::sched_yield();
      continue;
    }
    if (steady_ns() > until)
      return error(RAY_TIMED_OUT, "the object store's daemon does not read this process's ring");
    if (n % 64 == 0 && interrupted())
      return error(RAY_CANCELLED, "the wait for the object store was interrupted");
    // Rare: the daemon is stopped or far behind. The socket tells if it died.
    pollfd p{socket_.get(), POLLRDHUP, 0};
    if (::poll(&p, 1, 1) > 0 && (p.revents & (POLLHUP | POLLRDHUP | POLLERR)))
      disconnected_.store(true, std::memory_order_relaxed);
  }
}

// ---- create ------------------------------------------------------------------------------------

Status ClientImpl::create(const ObjectId& id, uint64_t size, int64_t timeout_ns, Building* out) {
  if (forked()) return forked_error();
  if (id.is_nil()) return error(RAY_INVALID_ARGUMENT, "an object needs an id");
  if (size > kMaxArena)
    return error(
        RAY_STORE_FULL,
        "an object of %llu bytes is larger than an object store can be: keep the value in pieces",
        static_cast<unsigned long long>(size));
  uint64_t need = footprint(size), offset = 0;
  Lease* lease = nullptr;
  Status s;
  if (need <= small_limit_) {
    bool got;
    {
      std::lock_guard lock(mu_);
      got = overflow_.empty() && bump(need, &lease, &offset);
    }
    if (!got) s = create_small(need, timeout_ns, &lease, &offset);
  } else {
    s = create_large(size, timeout_ns, &lease, &offset);
  }
  if (!s.ok()) return s;
  ObjectHeader* h = header_of(offset);
  h->state.store(state_word(lease->generation, kBuilding), std::memory_order_relaxed);
  RAY_FAULT("store.create.building");
  h->size = size;
  h->id = id;
  out->data = reinterpret_cast<uint8_t*>(h + 1);
  out->size = size;
  out->cookie = reinterpret_cast<uint64_t>(lease);
  out->owner = process_;
  out->attempt = 0;
#ifdef LIBRAY_STORE_MUTANT
  commit_object(lease, offset, id, *out);  // the bug that the crash test must catch: commit before copy
#endif
  return Status();
}

bool ClientImpl::bump(uint64_t need, Lease** lease, uint64_t* offset) {
  Lease* l = current_;
  if (!l || l->cursor + need > l->size || !room(kRecordBytes)) return false;
  *lease = l;
  *offset = l->offset + l->cursor;
  l->cursor += need;
  ++l->building;
  ++outstanding_;
  if (l->cursor * 2 > l->size && !ahead_asked_ && !ahead_refused_) ask_ahead();
  return true;
}

// The next extent is asked for while the current one is half empty: a put does not wait for it.
void ClientImpl::ask_ahead() {
  ahead_asked_ = true;
  ahead_.done.store(false, std::memory_order_relaxed);
  LeaseRecord r{ahead_.number, 0, 0, kLeaseSmall | kLeaseAhead, 0};
  push(kLease, &r, sizeof r);
}

Status ClientImpl::create_small(uint64_t need, int64_t timeout_ns, Lease** lease,
                                uint64_t* offset) {
  for (;;) {
    RAY_TRY(wait_for_room(timeout_ns));
    Lease* full = nullptr;
    {
      std::lock_guard lock(mu_);
      if (bump(need, lease, offset)) break;
      if (!room(kRecordBytes)) continue;
      full = current_;
    }
    std::unique_lock refill_lock(refill_mu_, std::defer_lock);
    if (timeout_ns < 0)
      refill_lock.lock();
    else if (!refill_lock.try_lock_until(WaitClock::now() +
                                         std::chrono::nanoseconds(timeout_ns) +
                                         std::chrono::milliseconds(timeout_ns ? 1000 : 20)))
      return error(RAY_STORE_FULL, "other threads of this process wait for store memory, too");
    bool somebody_did;
    {
      std::lock_guard lock(mu_);
      somebody_did = current_ != full;
    }
    if (!somebody_did) RAY_TRY(refill(timeout_ns));
  }
  wake_daemon(false);
  return Status();
}

// Replaces the current extent. One thread at a time (refill_mu_).
Status ClientImpl::refill(int64_t timeout_ns) {
  bool asked;
  {
    std::lock_guard lock(mu_);
    asked = ahead_asked_;
    if (Lease* l = current_) {
      l->done = true;
      current_ = nullptr;
      if (l->building == 0) {
        protect(*l);
        CloseRecord r{l->extent, 0};
        push(kClose, &r, sizeof r);
        spare_leases_.push_back(l);
      }
    }
  }
  GrantRecord grant{};
  bool got = false;
  if (asked) {
    Status s = await(&ahead_, timeout_ns);
    got = s.ok();
    grant = ahead_.grant;
    enlist(&ahead_);
    std::lock_guard lock(mu_);
    ahead_asked_ = false;
    ahead_refused_ = !got;  // memory is short: ask only when it is needed
    if (s.code() == RAY_UNAVAILABLE || s.code() == RAY_CANCELLED) return s;
  }
  if (!got) {
    Request r;
    enlist(&r);
    {
      std::lock_guard lock(mu_);
      LeaseRecord l{r.number, 0, timeout_ns, kLeaseSmall, 0};
      push(kLease, &l, sizeof l);
    }
    RAY_TRY(await(&r, timeout_ns));
    grant = r.grant;
  }
  Lease* l = adopt(grant);
  std::lock_guard lock(mu_);
  current_ = l;
  if (got) ahead_refused_ = false;
  return Status();
}

Status ClientImpl::create_large(uint64_t size, int64_t timeout_ns, Lease** lease,
                                uint64_t* offset) {
  RAY_TRY(wait_for_room(timeout_ns));
  Request r;
  enlist(&r);
  {
    std::lock_guard lock(mu_);
    ++outstanding_;
    LeaseRecord l{r.number, size, timeout_ns, 0, 0};
    push(kLease, &l, sizeof l);
  }
  Status s = await(&r, timeout_ns);
  std::lock_guard lock(mu_);
  if (!s.ok()) {
    --outstanding_;
    return s;
  }
  mu_.unlock();
  Lease* l = adopt(r.grant);
  mu_.lock();
  l->done = true;
  l->building = 1;
  *lease = l;
  *offset = l->offset;
  return Status();
}

Lease* ClientImpl::adopt(const GrantRecord& g) {
  unprotect(g.offset, g.bytes);
  if (g.cold) ::madvise(arena_.data() + g.offset, g.bytes, MADV_POPULATE_WRITE);
  std::lock_guard lock(mu_);
  Lease* l;
  if (spare_leases_.empty()) {
    leases_.push_back(std::make_unique<Lease>());
    l = leases_.back().get();
  } else {
    l = spare_leases_.back();
    spare_leases_.pop_back();
  }
  *l = Lease{g.extent, g.generation, g.offset, g.bytes, 0, 0, false};
  return l;
}

// ---- seal, abort, drop -------------------------------------------------------------------------

bool ClientImpl::finish_building(Lease* l) {
  --outstanding_;
  return --l->building == 0 && l->done;
}

// A full extent of sealed objects becomes read-only in its owner, too. Before the record that
// closes it: afterwards the daemon may lease it to us again. A process whose extents come back
// right away (put, drop, put, drop) would pay two mprotect calls for each, a third of a large put:
// there only those that live longer than a moment are protected.
void ClientImpl::protect(const Lease& l) {
  if (recycled_ < kRecycledOften) return protect_now(l.offset, l.size);
  unprotected_.push_back({l.offset, l.size, steady_ns()});
}

void ClientImpl::protect_now(uint64_t offset, uint64_t size) {
  if (protected_extents_ >= kMaxProtected) return;
  if (::mprotect(arena_.data() + offset, size, PROT_READ) != 0) return;
  for (uint64_t u = offset / kUnit; u < (offset + size) / kUnit; ++u) protected_[u] = true;
  ++protected_extents_;
}

void ClientImpl::protect_survivors() {
  if (unprotected_.empty()) return;
  int64_t now = steady_ns();
  while (!unprotected_.empty() && now - unprotected_.front().closed_ns > kMomentNs) {
    Unprotected x = unprotected_.front();
    unprotected_.pop_front();
    protect_now(x.offset, x.size);
  }
}

void ClientImpl::unprotect(uint64_t offset, uint64_t size) {
  std::lock_guard lock(mu_);
  size_t before = unprotected_.size();
  std::erase_if(unprotected_, [&](const Unprotected& x) {
    return x.offset < offset + size && offset < x.offset + x.size;
  });
  bool any = false;
  for (uint64_t u = offset / kUnit; u < (offset + size) / kUnit; ++u) {
    any |= protected_[u];
    protected_[u] = false;
  }
  bool recycled = any || unprotected_.size() != before;
  recycled_ = recycled ? std::min(recycled_ + 1, kRecycledOften) : 0;
  protect_survivors();
  if (!any) return;
  ::mprotect(arena_.data() + offset, size, PROT_READ | PROT_WRITE);
  if (protected_extents_ > 0) --protected_extents_;
}

// The commit: everything before it is invisible, the release store of the ring's tail makes it
// true.
void ClientImpl::commit_object(Lease* lease, uint64_t offset, const ObjectId& id, const Building& b) {
  ObjectHeader* h = header_of(offset);
  h->state.store(state_word(lease->generation, kSealed), std::memory_order_release);
  RAY_FAULT("store.seal.sealed");
  std::lock_guard lock(mu_);
  bool closes = finish_building(lease);
  if (closes) protect(*lease);
  PublishRecord r{id,        offset, b.size, lease->extent, closes, static_cast<uint16_t>(b.owner),
                  b.attempt, 0};
  void* at = publish_.reserve(kPublish, sizeof r);  // create() kept room for it
  if (at) {
    std::memcpy(at, &r, sizeof r);
    RAY_FAULT("store.seal.before_commit");
    publish_.publish();
  } else {
    Queued q{kPublish, sizeof r, {}};
    std::memcpy(q.bytes, &r, sizeof r);
    overflow_.push_back(q);
    overflowed_.store(true, std::memory_order_relaxed);
  }
  RAY_FAULT("store.seal.committed");
  if (closes) spare_leases_.push_back(lease);
}

Status ClientImpl::seal(Building* b, Location* out) {
  if (forked()) return forked_error();
  if (!b || !b->data || !b->cookie)
    return error(RAY_INVALID_ARGUMENT, "this object is not under construction");
  auto* lease = reinterpret_cast<Lease*>(b->cookie);
  uint64_t offset = static_cast<uint64_t>(b->data - sizeof(ObjectHeader) - arena_.data());
  if (out) *out = {segment_, lease->generation, offset, b->size};
#ifndef LIBRAY_STORE_MUTANT
  commit_object(lease, offset, header_of(offset)->id, *b);
#endif
  *b = Building{};
  wake_daemon(false);
  return Status();
}

void ClientImpl::abort(Building* b) {
  if (forked() || !b || !b->data || !b->cookie) return;
  auto* l = reinterpret_cast<Lease*>(b->cookie);
  uint64_t offset = static_cast<uint64_t>(b->data - sizeof(ObjectHeader) - arena_.data());
  header_of(offset)->state.store(state_word(l->generation, kAborted), std::memory_order_release);
  {
    std::lock_guard lock(mu_);
    if (offset + footprint(b->size) == l->offset + l->cursor) l->cursor -= footprint(b->size);
    if (finish_building(l)) {
      CloseRecord r{l->extent, 0};
      push(kClose, &r, sizeof r);
      spare_leases_.push_back(l);
    }
  }
  *b = Building{};
  wake_daemon(false);
}

void ClientImpl::drop(const ObjectId& id, const Location& hint) {
  if (forked()) return;
  DropRecord r{id, hint};
  {
    std::lock_guard lock(mu_);
    push(kDrop, &r, sizeof r);
  }
  wake_daemon(false);
}

}  // namespace ray::store
