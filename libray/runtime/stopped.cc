// Peers that a signal has stopped: a worker that tasks wait for, the node daemon. A stopped process is neither
// dead nor late; without a look at it whoever waits would wait for ever. On the pulse thread, and on callers
// that wait for the daemon; see runtime.h.
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "libray/base/log.h"
#include "libray/base/proc.h"
#include "libray/runtime/runtime.h"
#include "libray/runtime/runtime_inl.h"

namespace ray {
namespace {
constexpr int64_t kLookNs = 1000000000;
constexpr int64_t kUnstartedNs = 2000000000;  // a worker that does not begin what it was given
constexpr int64_t kRunningNs = 4000000000;    // one that does not finish what it began
constexpr int64_t kWarnAgainNs = 30000000000;
}  // namespace

// Once a second while anything is pending: workers whose first task has not moved. The daemon decides what
// becomes of a stopped one. mutex_ held.
void Runtime::look_for_stopped(int64_t now) {
  if (now < look_at_) return;
  look_at_ = now + kLookNs;
  for (ClientLink* link : busy_links_) {
    PendingTask* t = link->inflight.head;
    if (!t || link->dead) continue;
    uint64_t started = link->header->started.load(std::memory_order_acquire);
    if (link->watched_tag != t->tag || link->watched_started != started) {
      link->watched_tag = t->tag;
      link->watched_started = started;
      link->watched_ns = now;
      continue;
    }
    bool began = t->ring_end <= started;
    if (now - link->watched_ns < (began ? kRunningNs : kUnstartedNs)) continue;
    if (is_stopped(static_cast<int>(link->peer_pid)))
      up(wire::kUpStopped, wire::UpStopped{link->peer, began ? 1u : 0u});
  }
  uint64_t unread_to = up_ring_.tail() - up_ring_.used();
  if (up_ring_.used() > 0 && unread_to == up_head_seen_) {
    ring_daemon();  // whoever was to wake it may have failed: a process whose memory or descriptors are spoilt
    callbacks_.push_back([this] { warn_stopped_daemon(); });
  }
  up_head_seen_ = unread_to;
}

// Any thread, with or without the lock. Says it at most every half minute.
void Runtime::warn_stopped_daemon() {
  int64_t now = steady_ns(), last = daemon_warned_ns_.load(std::memory_order_relaxed);
  if (last && now - last < kWarnAgainNs) return;
  if (!is_stopped(daemon_pid_) || !daemon_warned_ns_.compare_exchange_strong(last, now)) return;
  log(kLogWarning, "runtime", "daemon-stopped",
      "the node daemon (pid %d) is stopped by a signal: no new workers, actors or large objects until it goes "
      "on; `kill -CONT %d` resumes it",
      daemon_pid_, daemon_pid_);
}

void Runtime::ring_daemon() {
  uint64_t one = 1;
  if (__builtin_expect(::write(daemon_event_.get(), &one, sizeof one) < 0 && errno == EBADF, 0)) knock();
}

// Somebody in this process has closed our descriptors (os.closerange). The daemon sleeps, and everybody relies on
// us to wake it, since whoever clears the word `armed` is the one who rings: it does wake for a connection. A worker
// like this is of no further use.
void Runtime::knock() {
  if (!knocked_.exchange(true))
    log(kLogError, "runtime", "descriptors-closed",
        "this process (pid %d) has closed the descriptors of libray (os.closerange?): %s", getpid(),
        worker_ ? "the worker ends after its task" : "use libray.shutdown() before closing what is not yours");
  if (worker_) worker_->request_stop();
  sockaddr_un addr{};
  addr.sun_family = AF_UNIX;
  std::string path = session_dir_ + "/" + wire::kNodeSocket;
  if (path.size() >= sizeof addr.sun_path) return;
  std::memcpy(addr.sun_path, path.c_str(), path.size() + 1);
  Fd fd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (fd.valid()) (void)::connect(fd.get(), reinterpret_cast<sockaddr*>(&addr), sizeof addr);
}

// Whether to give up waiting for room in a ring. Whoever waits may have mutex_, and so keep the receiver or a shutdown from
// going on, or be the receiver: so the socket is looked at, and what they know counts before they have the lock. What a
// process that leaves has to say is of no more use once a stopped daemon has had the time that the shutdown gave it.
bool Runtime::nobody_reads(uint32_t naps) {
  constexpr uint32_t kLook = 16, kLookStopped = 1024;  // every few milliseconds; a few times a second
  if (no_reader_.load(std::memory_order_acquire) || stopped_.load(std::memory_order_relaxed)) return true;
  if (naps % kLook != 0) return false;
  pollfd p{socket_.get(), POLLRDHUP, 0};
  bool nobody = ::poll(&p, 1, 0) > 0 && (p.revents & (POLLHUP | POLLRDHUP | POLLERR | POLLNVAL));
  if (naps % kLookStopped == 0 && steady_ns() >= leave_at_ns_.load(std::memory_order_relaxed))
    nobody |= is_stopped(daemon_pid_);
  if (nobody) no_reader_.store(true, std::memory_order_release);
  return nobody;
}

// Ours is to end, and cannot while it is stopped: it gets a moment to go on, then it is killed. True when it was.
bool Runtime::kill_stopped_daemon() {
  constexpr int kMoments = 20;
  for (int i = 0; is_stopped(daemon_pid_); ++i) {
    if (i == kMoments) {
      log(kLogWarning, "runtime", "daemon-stopped",
          "the node daemon (pid %d) is stopped by a signal and is killed: what it had not journaled is lost",
          daemon_pid_);
      (void)pidfd_signal(daemon_pidfd_.get(), SIGKILL);
      return true;
    }
    timespec ts{0, 100000000};
    nanosleep(&ts, nullptr);
  }
  return false;
}

// A worker is a subreaper: processes that its children leave behind become its own, and nobody else can wait for them when
// they end (`sh -c "something &"`). A few may lie there, for which of them the program itself will wait for cannot be told
// apart; so many that the system could run out of processes are not waited for by anybody.
void Runtime::reap_strays() {
  constexpr size_t kStrays = 256;
  constexpr int64_t kStrayLookNs = 5'000'000'000;
  const int64_t now = steady_ns();
  if (now < strays_at_ns_) return;
  strays_at_ns_ = now + kStrayLookNs;
  std::vector<int> ended = own_children();
  if (ended.size() <= kStrays) return;
  ended.erase(std::remove_if(ended.begin(), ended.end(), [](int pid) { return !is_zombie(pid); }), ended.end());
  for (size_t i = 0; i + kStrays < ended.size(); ++i) ::waitpid(ended[i], nullptr, WNOHANG);  // the oldest ones
}

}  // namespace ray
