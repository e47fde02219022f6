// See node.h. Processes that a signal has stopped (SIGSTOP): a worker that somebody waits for, a shard, a
// zygote. They are neither dead nor late. Each gets its time to go on; then it is killed, and its death is
// handled like any other: tasks that it had not begun go elsewhere, those that it had are tried again or fail.
// And a client, a driver above all, that holds what others wait for: it is left alone, its workers are not.
// One that a debugger holds is left alone. Main thread.
//
// Environment (of the program that starts the node): LIBRAY_STOPPED_WORKER_SECONDS = how long a stopped worker
// that runs a task or an actor is waited for (10; 0 = for ever).
#include <signal.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "libray/base/clock.h"
#include "libray/base/log.h"
#include "libray/base/proc.h"
#include "libray/lineage/record.h"
#include "libray/node/node.h"

namespace ray::node {
namespace {

constexpr int64_t kSecond = 1'000'000'000;
constexpr int64_t kIdleGraceNs = kSecond;        // one that has begun nothing loses nothing
constexpr int64_t kReportsEndNs = 5 * kSecond;   // no report for so long: it had gone on meanwhile
constexpr int64_t kLookNs = 2 * kSecond;         // at shards and zygotes
constexpr int64_t kClientGraceNs = 2 * kSecond;  // from the reclaim of a lease to the look at who holds it
constexpr int64_t kServantGraceNs = 8 * kSecond; // for them

int64_t worker_grace() {
  const char* text = std::getenv("LIBRAY_STOPPED_WORKER_SECONDS");
  double seconds = text && *text ? std::strtod(text, nullptr) : 10;
  return seconds >= 0 && seconds < 1e9 ? static_cast<int64_t>(seconds * 1e9) : 10 * kSecond;
}

}  // namespace

// A client waits for a worker of its and found it stopped. Nothing is believed but that somebody waits.
Status Node::up_stopped(Process* p, const std::string& payload) {
  wire::UpStopped u;
  if (payload.size() < sizeof u) return error(RAY_INVALID_ARGUMENT, "it wrote a malformed stopped record");
  std::memcpy(&u, payload.data(), sizeof u);
  Process* w = process(u.worker);
  auto s = w && p->as_client.count(u.worker) ? spawns_.find(w->spawn) : spawns_.end();
  if (s == spawns_.end() || w->driver || !is_stopped(w->pid)) return Status();
  if (w->foreign) return Status();  // that is the relay: watch_servants looks after it
  static const int64_t grace = worker_grace();
  int64_t now = steady_ns();
  StopWatch& stop = s->second.stop;
  bool idle = u.started == 0 && !actors_.of_worker(u.worker);
  if (!stop.since || now - stop.seen > kReportsEndNs) {
    stop.since = now;
    if (!idle)
      log(kLogWarning, "node", "worker-stopped",
          "worker %u (pid %d) is stopped by a signal, and tasks wait for it: `kill -CONT %d` resumes it", u.worker,
          w->pid, w->pid);
  }
  stop.seen = now;
  if (now - stop.since < (idle ? kIdleGraceNs : grace) || (!idle && grace == 0)) return Status();
  stop.seconds = static_cast<uint32_t>(std::clamp<int64_t>((now - stop.since) / kSecond, 1, 0x7FFF));
  std::string text = strprintf("worker %u (pid %d) was stopped by a signal for %u s and is ended", u.worker, w->pid,
                               stop.seconds);
  log(kLogWarning, "node", "worker-stopped", "%s", text.c_str());
  report(lineage::kError, u.worker, {{"kind", "worker-stopped"}, {"message", text}});
  kill_worker(u.worker, wire::kDeathStopped);
  return Status();
}

// A client that a signal has stopped gives back nothing that is reclaimed. Its workers that others wait for are told
// to end after what they run now: their results stay in their rings, and what they had not begun goes elsewhere when
// the client goes on and learns of their end as of any other. Nothing is lost, nothing runs twice.
void Node::watch_clients(int64_t now) {
  if (now < clients_at_ || phase_ != Phase::kRunning) return;
  clients_at_ = now + kSecond;
  std::map<uint32_t, bool> stopped;
  for (const auto& o : scheduler_.overdue(now - kClientGraceNs)) {
    Process* p = process(o.client);
    if (!p) continue;
    auto [it, first] = stopped.emplace(o.client, false);
    if (first) it->second = is_stopped(p->pid);
    if (!it->second) continue;
    pause_client(p);
    Process* w = process(o.worker);
    auto s = w ? spawns_.find(w->spawn) : spawns_.end();
    if (s == spawns_.end() || s->second.told_to_end) continue;
    s->second.told_to_end = true;
    scheduler_.worker_killed(o.worker);  // or it would have others once its lease is back
    send(w, wire::kDnExit, nullptr, 0);
  }
  std::set<uint32_t> paused = paused_;
  for (uint32_t index : paused) {
    Process* p = process(index);
    if (!p || !is_stopped(p->pid)) resume_client(index);
  }
}

void Node::pause_client(Process* p) {
  if (!paused_.insert(p->index).second) return;
  scheduler_.pause_client(p->index, true);
  scheduling_needed_ = true;
  std::string text = strprintf("%s %u (pid %d) is stopped by a signal, and others wait for its workers: those end after "
                               "their task; `kill -CONT %d` (or `fg`) resumes it",
                               p->driver ? "driver" : "worker", p->index, p->pid, p->pid);
  log(kLogWarning, "node", "client-stopped", "%s", text.c_str());
  report(lineage::kError, p->index, {{"kind", "client-stopped"}, {"message", text}});
}

void Node::resume_client(uint32_t index) {
  if (!paused_.erase(index)) return;
  scheduler_.pause_client(index, false);
  scheduling_needed_ = true;
}

// Without its shards the node remembers nothing, without its zygote it starts nobody.
void Node::watch_servants(int64_t now) {
  if (now < servants_at_ || phase_ != Phase::kRunning) return;
  servants_at_ = now + kLookNs;
  auto stuck = [this, now](StopWatch* stop, int pid, int pidfd, const char* what) {
    if (pid <= 0 || !is_stopped(pid)) {
      stop->since = 0;
      return;
    }
    if (!stop->since) {
      stop->since = now;
      log(kLogWarning, "node", "stopped", "the %s (pid %d) is stopped by a signal: `kill -CONT %d` resumes it", what,
          pid, pid);
    }
    if (now - stop->since < kServantGraceNs) return;
    stop->since = 0;
    log(kLogError, "node", "stopped", "the %s (pid %d) was stopped for too long: it is killed and started again",
        what, pid);
    report(lineage::kError, 0, {{"kind", "stopped"}, {"message", std::string("the ") + what + " was stopped"}});
    (void)pidfd_signal(pidfd, SIGKILL);
  };
  for (Shard& s : shards_) stuck(&s.stop, s.process.pid, s.process.pidfd.get(), "shard of the control store");
  if (relay_ && relay_->running()) stuck(&relay_->stop, relay_->pid(), relay_->pidfd(), "relay");
  bool starting = false;  // else nobody waits for a zygote, and its workers would die with it
  for (const auto& [number, s] : spawns_) starting |= s.by_zygote && s.pid <= 0;
  if (!starting) return;
  for (auto& [index, job] : jobs_)
    for (auto& [language, z] : job.zygotes) stuck(&z->stop, z->pid(), z->pidfd(), "zygote");
}

}  // namespace ray::node
