// See node_core.h. Workers: they are started, are late, are killed, are stopped, end.
#include <sys/wait.h>

#include <algorithm>
#include <csignal>
#include <cstring>

#include "libray/lineage/record.h"
#include "libray/node/core/node_core.h"

namespace ray::node {
namespace {

constexpr int64_t kSecond = 1'000'000'000;
constexpr int64_t kStartGraceNs = 120 * kSecond;  // from the start of a worker to its hello
constexpr int64_t kZygoteGraceNs = kSecond;       // for its word on how a child died
constexpr int64_t kKillAgainNs = kSecond;
constexpr uint32_t kBadStarts = 3;  // workers in a row that died before they joined: nobody's bad luck any more
// Of those that a signal has stopped:
constexpr int64_t kIdleGraceNs = kSecond;        // one that has begun nothing loses nothing
constexpr int64_t kReportsEndNs = 5 * kSecond;   // no report for so long: it had gone on meanwhile
constexpr int64_t kClientGraceNs = 2 * kSecond;  // from the reclaim of a lease to the look at who holds it

}  // namespace

std::string death_text(int wait_status, uint32_t cause) {
  if (cause == wire::kDeathMemory && wait_status >> 16 > 0)
    return strprintf("ended because the node ran short of memory, of which it held %d MiB", wait_status >> 16);
  if (cause == wire::kDeathMemory) return "killed by the kernel: the machine ran out of memory";
  if (cause == wire::kDeathStopped)
    return strprintf("a signal had stopped it for %d s while calls waited, so it was ended: resume such a process with "
                     "`kill -CONT`, or set LIBRAY_STOPPED_WORKER_SECONDS", wait_status >> 16);
  if (cause == wire::kDeathForced) return "killed by libray";
  if (cause == wire::kDeathNode) return "the node that it ran on died or cannot be reached";
  if (wait_status == -1) return "it is gone";
  if (WIFSIGNALED(wait_status))
    return strprintf("killed by signal %d (%s)", WTERMSIG(wait_status), ::strsignal(WTERMSIG(wait_status)));
  if (WIFEXITED(wait_status)) return strprintf("exited with status %d", WEXITSTATUS(wait_status));
  return strprintf("ended with wait status %d", wait_status);
}

NodeCore::Spawn* NodeCore::spawn(uint64_t number) {
  auto it = spawns_.find(number);
  return it == spawns_.end() ? nullptr : &it->second;
}

NodeCore::Spawn* NodeCore::spawn_of(uint32_t index) {
  const Process* p = process(index);
  return p && !p->driver ? spawn(p->spawn) : nullptr;
}

bool NodeCore::is_foreign(uint64_t number) const {
  auto it = spawns_.find(number);
  return it != spawns_.end() && it->second.foreign;
}

bool NodeCore::joined(uint64_t number) const {
  auto it = spawns_.find(number);
  return it != spawns_.end() && it->second.process != kNone;
}

bool NodeCore::unexplained(uint64_t number) const {
  auto it = spawns_.find(number);
  return !ending_ && it != spawns_.end() && it->second.cause == wire::kDeathCrash;
}

bool NodeCore::has_workers(uint32_t job, int32_t language) const {
  return std::any_of(spawns_.begin(), spawns_.end(),
                     [&](const auto& s) { return s.second.pool.job == job && s.second.pool.language == language; });
}

// ---- starting

void NodeCore::start_worker(sched::Pool pool) {
  if (job_over(pool.job) || !envs_.known(pool.env)) return scheduler_.worker_start_failed(pool, now_);
  Spawn& s = spawns_[next_spawn_];
  s.number = next_spawn_++;
  s.pool = pool;
  s.give_up_at = now_ + kStartGraceNs;
  ++jobs_.at(pool.job).spawns;
  envs_.keep(pool.env);
  put(action::StartWorker{s.number, pool});
}

void NodeCore::on(const event::SpawnFailed& e) {
  Spawn* s = spawn(e.spawn);
  if (!s) return;
  const sched::Pool pool = s->pool;
  spawns_.erase(e.spawn);
  --jobs_.at(pool.job).spawns;
  drop_env(pool.env);
  scheduler_.worker_start_failed(pool, now_);
  start_failed(e.why, "");
  forget_job(pool.job);
}

// A worker never came to be; `why` is empty when it died of its own doing.
void NodeCore::start_failed(const std::string& why, const std::string& how) {
  try_again();  // the scheduler waits longer, but has to be asked
  if (!why.empty())
    return note_shortage("worker-start", "no worker can be started, and what needs one waits: " + why);
  if (++bad_starts_ >= kBadStarts)
    note_shortage("worker-start", strprintf("the last %u workers died before they had joined the node, and what "
                                            "needs one waits: %s; see %s",
                                            bad_starts_, how.c_str(), options_.logs.c_str()));
}

// ---- their end

void NodeCore::give_up(int64_t now) {
  std::vector<uint64_t> late;
  for (const auto& [number, s] : spawns_)
    if (s.give_up_at && s.give_up_at <= now) late.push_back(number);
  for (uint64_t number : late) {
    Spawn* s = spawn(number);
    if (!s) continue;
    if (s->foreign) {
      foreign_late(s);
      continue;
    }
    s->give_up_at = now + kKillAgainNs;
    put(action::GiveUp{number});
  }
}

void NodeCore::on(const event::SpawnExited& e) {
  if (Spawn* s = spawn(e.spawn)) s->give_up_at = now_ + kZygoteGraceNs;
}

uint32_t NodeCore::cause_of(const Spawn& s, const event::SpawnEnded& e) const {
  uint32_t cause = ending_ ? uint32_t{wire::kDeathForced} : s.cause;
  const bool killed = e.reaped && WIFSIGNALED(e.wait_status) && WTERMSIG(e.wait_status) == SIGKILL;
  if (killed && cause == wire::kDeathCrash && e.out_of_memory) cause = wire::kDeathMemory;
  const bool in_order = e.reaped && WIFEXITED(e.wait_status) && WEXITSTATUS(e.wait_status) == 0;
  const Process* p = process(s.process);
  if (cause == wire::kDeathCrash && in_order && p && p->goodbye) cause = wire::kDeathExit;
  return cause;
}

void NodeCore::on(const event::SpawnEnded& e) {
  const Spawn* s = spawn(e.spawn);
  if (!s) return;
  const uint32_t cause = cause_of(*s, e), index = s->process;
  const sched::Pool pool = s->pool;
  const bool counted = s->counted;
  int status = e.reaped ? e.wait_status : -1;
  const uint32_t detail = s->memory_mb ? s->memory_mb : s->stopped_s;  // see DnPeerDied
  if (detail) status = SIGKILL | static_cast<int>(detail << 16);
  spawns_.erase(e.spawn);
  const std::string how = death_text(status, cause);
  if (process(index)) {
    process_gone(index, status, cause);
  } else if (counted) {
    scheduler_.worker_start_failed(pool, now_);
    decide_ = true;
    if (!ending_ && !job_over(pool.job) && e.pid > 0)
      start_failed("", e.said.empty() ? how : how + ", saying \"" + e.said + "\"");
  }
  say_ended(e, index, cause, how, ending_ || job_over(pool.job) || cause == wire::kDeathExit);
  drop_env(pool.env);
  if (auto job = jobs_.find(pool.job); job != jobs_.end()) --job->second.spawns;
  forget_job(pool.job);
}

void NodeCore::say_ended(const event::SpawnEnded& e, uint32_t index, uint32_t cause, const std::string& how, bool expected) {
  const bool joined = index != kNone;
  const std::string pid = std::to_string(e.pid);
  report(lineage::kEvent, joined ? index : 0, {{"kind", "worker-stop"}, {"pid", pid}, {"message", how}});
  if (expected || cause == wire::kDeathForced) return;
  const std::string number = std::to_string(e.spawn);
  log(kLogWarning, "worker-died", "worker " + number + " (pid " + pid + ") died: " + how +
      (e.log.empty() ? "" : "; see ") + e.log);
  report(lineage::kError, joined ? index : 0,
         {{"kind", joined ? "worker-died" : "worker-start"}, {"pid", pid}, {"worker", number}, {"message", how}});
}

void NodeCore::kill_worker(uint32_t index, uint32_t cause) {
  Spawn* s = spawn_of(index);
  if (!s) return;
  s->cause = cause;
  scheduler_.worker_killed(index);
  if (s->foreign) return close_foreign(s, true);
  put(action::KillSpawn{s->number});
}

void NodeCore::on(const event::KillWorker& e) {
  if (Spawn* s = spawn_of(e.process); s && e.memory_mb) s->memory_mb = e.memory_mb;
  kill_worker(e.process, e.cause);
}

// Only who holds the lease may, and the worker itself; a stale one means that it is somebody else's by now.
void NodeCore::on(const event::KillAsked& e) {
  decide_ = true;
  if (e.worker == e.process || scheduler_.holds(e.process, e.worker, e.lease)) kill_worker(e.worker, wire::kDeathForced);
}

void NodeCore::on(const event::Retire& e) {
  decide_ = true;
  Spawn* s = spawn_of(e.process);
  if (!s) return;
  scheduler_.worker_gone(e.process, now_);
  s->give_up_at = 0;  // it ends in its own time
}

// ---- stopped by a signal

// A client waits for a worker of its and found it stopped, as it is.
void NodeCore::on(const event::StoppedWorker& e) {
  decide_ = true;
  const Process* w = process(e.worker);
  Spawn* s = w && links_.find(e.process, e.worker) ? spawn_of(e.worker) : nullptr;
  if (!s || s->foreign) return;  // of a stand-in that is the relay, which others look after
  const bool idle = e.started == 0 && !actors_.of_worker(e.worker);
  if (!s->stopped_since || now_ - s->stopped_seen > kReportsEndNs) {
    s->stopped_since = now_;
    if (!idle)
      log(kLogWarning, "worker-stopped",
          strprintf("worker %u (pid %d) is stopped by a signal, and tasks wait for it: `kill -CONT %d` resumes it", e.worker,
                    w->pid, w->pid));
  }
  s->stopped_seen = now_;
  const int64_t since = now_ - s->stopped_since, grace = options_.stopped_worker_ns;
  if (since < (idle ? kIdleGraceNs : grace) || (!idle && grace == 0)) return;
  s->stopped_s = static_cast<uint32_t>(std::clamp<int64_t>(since / kSecond, 1, 0x7FFF));
  std::string text = strprintf("worker %u (pid %d) was stopped by a signal for %u s and is ended", e.worker, w->pid,
                               s->stopped_s);
  log(kLogWarning, "worker-stopped", text);
  report(lineage::kError, e.worker, {{"kind", "worker-stopped"}, {"message", text}});
  kill_worker(e.worker, wire::kDeathStopped);
}

std::vector<uint32_t> NodeCore::suspects(int64_t now) const {
  std::set<uint32_t> all = paused_;
  for (const auto& o : scheduler_.overdue(now - kClientGraceNs)) all.insert(o.client);
  return {all.begin(), all.end()};
}

// A client that a signal has stopped gives back nothing that is reclaimed. Its workers that others wait for are told
// to end after what they run now: their results stay in their rings, and what they had not begun goes elsewhere when
// the client goes on and learns of their end as of any other. Nothing is lost, nothing runs twice.
void NodeCore::on(const event::StoppedClients& e) {
  const std::set<uint32_t> stopped(e.stopped.begin(), e.stopped.end());
  for (const auto& o : scheduler_.overdue(now_ - kClientGraceNs)) {
    const Process* p = process(o.client);
    if (!p || !stopped.count(o.client)) continue;
    pause_client(*p);
    Spawn* s = spawn_of(o.worker);
    if (!s || std::exchange(s->told_to_end, true)) continue;
    scheduler_.worker_killed(o.worker);  // or it would have others once its lease is back
    put(action::Exit{o.worker});
  }
  for (uint32_t index : std::set<uint32_t>(paused_)) {
    if (stopped.count(index)) continue;
    paused_.erase(index);
    scheduler_.pause_client(index, false);
    decide_ = true;
  }
}

void NodeCore::pause_client(const Process& p) {
  if (!paused_.insert(p.index).second) return;
  scheduler_.pause_client(p.index, true);
  decide_ = true;
  std::string text = strprintf("%s %u (pid %d) is stopped by a signal, and others wait for its workers: those end after "
                               "their task; `kill -CONT %d` (or `fg`) resumes it",
                               p.driver ? "driver" : "worker", p.index, p.pid, p.pid);
  log(kLogWarning, "client-stopped", text);
  report(lineage::kError, p.index, {{"kind", "client-stopped"}, {"message", text}});
}

}  // namespace ray::node
