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
#include "libray/wire/records.h"

namespace ray::node {
namespace {

constexpr int64_t kSecond = 1'000'000'000;
constexpr int64_t kLookNs = 2 * kSecond;         // at shards and zygotes
constexpr int64_t kServantGraceNs = 8 * kSecond; // for them

}  // namespace

// A client waits for a worker of its and found it stopped. Nothing is believed but that somebody waits.
Status Node::up_stopped(Process* p, const std::string& payload) {
  wire::UpStopped u;
  if (!wire::read_head(payload, &u)) return error(RAY_INVALID_ARGUMENT, "it wrote a malformed stopped record");
  const Process* w = process(u.worker);
  if (w && !w->driver && is_stopped(w->pid)) step(event::StoppedWorker{p->index, u.worker, u.started});
  return Status();
}

void Node::watch_clients(int64_t now) {
  if (now < clients_at_ || phase_ != Phase::kRunning) return;
  clients_at_ = now + kSecond;
  const std::vector<uint32_t> suspects = core_.suspects(now);
  if (suspects.empty()) return;
  event::StoppedClients e;
  for (uint32_t index : suspects)
    if (const Process* p = process(index); p && is_stopped(p->pid)) e.stopped.push_back(index);
  step(std::move(e), now);
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
