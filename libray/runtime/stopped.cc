// Peers that a signal has stopped: a worker that tasks wait for, the node daemon. A stopped process is neither
// dead nor late; without a look at it whoever waits would wait for ever. On the pulse thread, and on callers
// that wait for the daemon; see runtime.h.
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
      daemon_.up(wire::kUpStopped, wire::UpStopped{link->peer, began ? 1u : 0u});
  }
  if (daemon_.look_unread()) callbacks_.add([this] { daemon_.warn_if_stopped(); });
}

// A worker like this is of no further use.
void Runtime::descriptors_closed(bool first) {
  if (first)
    log(kLogError, "runtime", "descriptors-closed",
        "this process (pid %d) has closed the descriptors of libray (os.closerange?): %s", getpid(),
        worker_ ? "the worker ends after its task" : "use libray.shutdown() before closing what is not yours");
  if (worker_) worker_->request_stop();
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
