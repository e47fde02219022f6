// How a client waits for its daemon. See client_impl.h.
//
// Answers come through the return ring (or the socket, when they carry a descriptor). Whoever waits
// first spins, draining the ring; then one thread, the leader, sleeps on the socket for all: the
// daemon sends a wake-up there when it published something and client_asleep is odd. The socket's
// end also tells that the daemon died.
#include <poll.h>
#include <sys/socket.h>

#include "libray/base/fault.h"
#include "store/client_impl.h"

namespace ray::store {

namespace {
constexpr int64_t kSpinNs = 30000;
constexpr int64_t kNapNs = 200000000, kInterruptNs = 50000000;
constexpr int64_t kPatienceNs =
    5000000000;  // for the daemon itself, beyond what it was asked to wait
thread_local const std::function<bool()>* t_stop = nullptr;
}  // namespace

Interruptible::Interruptible(const std::function<bool()>* stop) : before_(t_stop) { t_stop = stop; }
Interruptible::~Interruptible() { t_stop = before_; }

bool ClientImpl::interrupted() { return t_stop && *t_stop && (*t_stop)(); }

Usage ClientImpl::usage() const {
  if (forked()) return {};  // the directory is not mapped in the child
  const DirectoryHeader* d = directory_.header();
  return {d->capacity, d->used.load(std::memory_order_relaxed), d->waiting.load(std::memory_order_relaxed)};
}

Usage usage_of(const Client& client) { return static_cast<const ClientImpl&>(client).usage(); }

void ClientImpl::enlist(Request* r) {
  std::lock_guard lock(wait_mu_);
  r->number = next_request_.fetch_add(1, std::memory_order_relaxed);
  r->status = Status();
  r->done.store(false, std::memory_order_relaxed);
  requests_[r->number] = r;
}

void ClientImpl::forget(Request* r) {
  std::lock_guard lock(wait_mu_);
  requests_.erase(r->number);
}

void ClientImpl::drain_returns() {
  RecordView view;
  for (;;) {
    auto next = returns_.next(&view);
    if (next != RingConsumer::Next::kRecord) {
      if (next == RingConsumer::Next::kCorrupt) disconnected_.store(true);
      break;
    }
    answer(view);
    returns_.release_to(view.end);
  }
}

void ClientImpl::answer(const RecordView& v) {
  uint64_t number = 0;
  if (v.size < sizeof number) return;
  std::memcpy(&number, v.data, sizeof number);
  auto it = requests_.find(number);
  Request* r = it == requests_.end() ? nullptr : it->second;
  if (v.type == kGrant && v.size == sizeof(GrantRecord)) {
    GrantRecord g;
    std::memcpy(&g, v.data, sizeof g);
    if (r)
      r->grant = g;
    else {  // nobody waits any more: give it back
      {
        std::lock_guard lock(mu_);
        CloseRecord c{g.extent, 0};
        push(kClose, &c, sizeof c);
      }
      wake_daemon(true);
    }
  } else if (v.type == kLocated && v.size == sizeof(LocatedRecord)) {
    if (r)
      std::memcpy(&r->located, v.data, sizeof r->located);
    else {
      {
        std::lock_guard lock(mu_);
        AckRecord a{number};
        push(kAck, &a, sizeof a);
      }
      wake_daemon(true);
    }
  } else if (v.type == kRefused && v.size >= sizeof(RefusedRecord)) {
    RefusedRecord f;
    std::memcpy(&f, v.data, sizeof f);
    if (r) {
      size_t n = std::min<size_t>(f.size, v.size - sizeof f);
      r->status = Status(f.code, std::string(reinterpret_cast<const char*>(v.data) + sizeof f, n));
    }
  }
  if (!r) return;
  requests_.erase(it);
  r->done.store(true, std::memory_order_release);
}

// Waits for the answer, no longer than within_ns (negative: for ever). The daemon keeps timeout_ns, which
// is without progress; here is only the limit for a daemon that does not react at all.
Status ClientImpl::await(Request* r, int64_t timeout_ns, int64_t within_ns) {
  wake_daemon(true);
  int64_t start = steady_ns();
  const int64_t until = within_ns < 0 || within_ns > INT64_MAX - start ? INT64_MAX : start + within_ns;
  while (!r->done.load(std::memory_order_acquire) && steady_ns() - start < kSpinNs) {
    if (wait_mu_.try_lock()) {
      drain_returns();
      wait_mu_.unlock();
    }
    for (int i = 0; i < 16; ++i) cpu_relax();
  }
  uint64_t progress = directory_.header()->progress.load(std::memory_order_acquire);
  std::unique_lock lock(wait_mu_);
  while (!r->done.load(std::memory_order_acquire)) {
    uint64_t seen = directory_.header()->progress.load(std::memory_order_acquire);
    int64_t now = steady_ns();
    if (seen != progress) start = now, progress = seen;
    bool late = timeout_ns >= 0 && now - start > timeout_ns + kPatienceNs;
    if (now >= until && !r->done.load(std::memory_order_acquire)) {
      drain_returns();
      if (r->done.load(std::memory_order_acquire)) break;
      give_up(r);
      return error(RAY_TIMED_OUT, "the object is being restored from disk");
    }
    if (late || disconnected_.load(std::memory_order_relaxed)) {
      drain_returns();
      if (r->done.load(std::memory_order_acquire)) break;
      requests_.erase(r->number);
      return late ? error(RAY_UNAVAILABLE, "the object store's daemon does not react")
                  : error(RAY_UNAVAILABLE, "the object store's daemon is gone");
    }
    int64_t nap = std::min(t_stop ? kInterruptNs : kNapNs, until - now);
    if (leader_) {
      wait_cv_.wait_until(lock, WaitClock::now() + std::chrono::nanoseconds(nap));
    } else {
      leader_ = true;
      lock.unlock();
      poll_socket(nap);
      lock.lock();
      drain_returns();
      leader_ = false;
      wait_cv_.notify_all();
    }
    if (!t_stop || r->done.load(std::memory_order_acquire)) continue;
    lock.unlock();
    bool stop = interrupted();
    lock.lock();
    if (!stop || r->done.load(std::memory_order_acquire)) continue;
    give_up(r);
    return error(RAY_CANCELLED, "the wait for the object store was interrupted");
  }
  return r->status;
}

// What comes for it all the same is given back: see answer(). wait_mu_ held.
void ClientImpl::give_up(Request* r) {
  requests_.erase(r->number);
  {
    std::lock_guard lock(mu_);
    AckRecord a{r->number};
    push(kForget, &a, sizeof a);
  }
  wake_daemon(true);  // others may stand behind it
}

// The leader's sleep.
void ClientImpl::poll_socket(int64_t timeout_ns) {
  control_page_->client_asleep.store(++naps_, std::memory_order_seq_cst);  // odd
  bool empty;
  {
    std::lock_guard lock(wait_mu_);
    empty = returns_.empty();
  }
  if (empty) {
    pollfd p{socket_.get(), POLLIN, 0};
    timespec ts{timeout_ns / 1000000000, timeout_ns % 1000000000};
    ::ppoll(&p, 1, &ts, nullptr);
  }
  control_page_->client_asleep.store(++naps_, std::memory_order_seq_cst);  // even
  read_socket();
}

void ClientImpl::read_socket() {
  for (int n = 0; n < 64; ++n) {
    char buffer[kMessageMax];
    std::vector<Fd> fds;
    bool lost = false;
    auto size = recv_with_fds(socket_.get(), buffer, sizeof buffer, &fds, &lost);
    if (!size.ok() && size.status().code() == RAY_TIMED_OUT) return;
    if (!size.ok() || *size == 0) {
      disconnected_.store(true, std::memory_order_relaxed);
      return;
    }
    SegmentMessage m{};
    std::memcpy(&m, buffer, std::min(*size, sizeof m));
    if ((m.type != kMsgSegment && m.type != kMsgApart) || *size != sizeof m) continue;
    std::lock_guard lock(wait_mu_);
    take_socket_answer(m, fds.empty() ? Fd() : std::move(fds[0]), lost);
  }
}

void ClientImpl::take_socket_answer(const SegmentMessage& m, Fd fd, bool lost) {
  auto it = requests_.find(m.request);
  if (m.type == kMsgApart && (it == requests_.end() || !fd.valid())) give_apart_back(m.request);
  if (it == requests_.end()) return;
  Request* r = it->second;
  if (lost) {
    errno = EMFILE;
    r->status = m.type == kMsgApart ? errno_error(RAY_UNAVAILABLE, "the copy of an object cannot be taken")
                                    : errno_error(RAY_UNAVAILABLE, "store segment %u cannot be mapped", m.segment);
  } else if (m.code != RAY_OK || !fd.valid())
    r->status =
        error(m.code == RAY_OK ? RAY_INTERNAL : m.code, "store segment %u is gone", m.segment);
  r->fd = std::move(fd);
  requests_.erase(it);
  r->done.store(true, std::memory_order_release);
}

}  // namespace ray::store
