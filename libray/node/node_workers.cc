// See node.h. Workers: starting them, zygotes, learning how they died.
#include <signal.h>
#include <sys/epoll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>

#include "libray/base/clock.h"
#include "libray/base/log.h"
#include "libray/base/proc.h"
#include "libray/base/thread.h"
#include "libray/lineage/record.h"
#include "libray/node/demands.h"
#include "libray/wire/cursor.h"
#include "libray/node/node.h"

namespace ray::node {
namespace {
constexpr int64_t kZygoteGraceNs = 1'000'000'000;  // for its word on how a child died
constexpr size_t kMaxCommand = 1 << 20;  // bytes; the kernel takes little more
constexpr int64_t kStartGraceNs = 120'000'000'000;  // from the start of a worker to its hello

// Of a worker that is started by itself; a zygote's child does the same in its own language. What else the
// environment says is for bindings.
void apply_runtime_env(std::string_view packed, SpawnOptions* o) {
  wire::Cursor r(packed);
  uint32_t n = r.map();
  for (uint32_t i = 0; i < n && r.ok(); ++i) {
    std::string key = r.text();
    if (key == "env_vars") {
      uint32_t m = r.map();
      for (uint32_t k = 0; k < m && r.ok(); ++k) {
        std::string name = r.text();
        std::string value = r.text();
        if (r.ok()) o->env[name] = value;
      }
    } else if (key == "working_dir") {
      o->cwd = r.text();
    } else {
      r.skip();
    }
  }
}
}  // namespace

// ---- starting --------------------------------------------------------------------------------------

static const WorkerCommand kNoCommand;

static const WorkerCommand& given_command(const std::map<int32_t, WorkerCommand>& commands, int32_t language) {
  auto it = commands.find(language);
  return it == commands.end() ? kNoCommand : it->second;
}

Status Node::worker_command(const Job& job, int32_t language, std::vector<std::string>* argv) const {
  return make_worker_command(language, given_command(job.commands, language), job.env, session::own_folder(), argv);
}

// Whether workers of that language run, or are about to.
bool Node::has_workers(const Job& job, int32_t language) const {
  if (job.zygotes.count(language)) return true;
  for (const auto& [number, s] : spawns_)
    if (s.pool.job == job.index && s.pool.language == language) return true;
  return false;
}

void Node::set_worker_command(uint32_t index, uint64_t req_id, const std::string& body) {
  wire::Cursor r(body);
  uint32_t n = r.array();
  int32_t language = r.int32();
  WorkerCommand given;
  for (uint32_t i = 0, k = r.array(); i < k && r.ok(); ++i) given.argv.push_back(r.text());
  given.code = r.text();
  Process* p = process(index);
  const bool known = language >= 0 && language < RAY_LANG_COUNT;  // a row of the job for each
  if (n != 3 || !r.done() || !p || !known)
    return reply(index, req_id, RAY_INVALID_ARGUMENT, "malformed command of workers");
  if (body.size() > kMaxCommand)
    return reply(index, req_id, RAY_INVALID_ARGUMENT, "a command of workers has at most 1 MiB");
  Job& job = jobs_.at(p->job);
  WorkerCommand now = given_command(job.commands, language);
  if (!given.argv.empty()) now.argv = given.argv;
  if (!given.code.empty()) now.code = given.code;
  const bool same = now == given_command(job.commands, language);
  if (!same && has_workers(job, language))
    return reply(index, req_id, RAY_WRONG_STATE,
                 "workers of that language run already, with another command: give it before the first function is called");
  job.stale |= !same && job.described != 0;
  job.commands[language] = now;
  reply(index, req_id, RAY_OK, wire::empty_array());
}

void Node::check_worker_command(uint32_t index, uint64_t req_id, const std::string& body) {
  wire::Cursor r(body);
  uint32_t n = r.array();
  int32_t language = r.int32();
  Process* p = process(index);
  if (n != 1 || !r.done() || !p) return reply(index, req_id, RAY_INVALID_ARGUMENT, "malformed check of workers");
  std::vector<std::string> argv;
  Status s = worker_command(job_of(*p), language, &argv);
  reply(index, req_id, s.code(), s.ok() ? wire::empty_array() : s.message());
}

std::map<std::string, std::string> Node::worker_env(const Job& job, int32_t language) const {
  std::map<std::string, std::string> env = job.env;
  add_code_to_environment(language, given_command(job.commands, language), &env);
  env[wire::kEnvSession] = session_.dir;
  env.erase(wire::kEnvWorker);  // of a driver that a worker of another node started
  return env;
}

void Node::start_worker(sched::Pool pool) {
  auto job = jobs_.find(pool.job);
  if (job_over(pool.job) || !envs_.known(pool.env)) return scheduler_.worker_start_failed(pool, steady_ns());
  uint64_t number = next_spawn_++;
  Spawn& s = spawns_[number];
  s.number = number;
  s.pool = pool;
  s.give_up_at = steady_ns() + kStartGraceNs;
  Fd out, err;
  std::string full;
  Status status = logs_.open(number, job->second.id, &out, &err, &full);
  if (!full.empty()) note_no_log(full);
  if (status.ok()) status = spawn_worker(&job->second, &s, out.get(), err.get());
  ++job->second.spawns;
  envs_.keep(pool.env);
  if (status.ok()) return;
  logs_.ended(number);
  spawns_.erase(number);
  --job->second.spawns;
  drop_env(pool.env);
  scheduler_.worker_start_failed(pool, steady_ns());
  start_failed(status.message(), "");
}

Status Node::spawn_worker(Job* job, Spawn* s, int out_fd, int err_fd) {
  if (s->pool.language == RAY_LANG_PYTHON) {
    auto z = zygote(job, s->pool.language);
    if (!z.ok()) return z.status();
    s->by_zygote = true;
    std::string_view env = s->pool.env ? envs_.packed(s->pool.env) : "";
    return (*z)->fork(s->number, env, out_fd, err_fd);
  }
  SpawnOptions o;
  RAY_TRY(worker_command(*job, s->pool.language, &o.argv));
  o.env = worker_env(*job, s->pool.language);
  o.env[wire::kEnvWorker] = std::to_string(s->number);
  o.cwd = job->cwd;
  if (s->pool.env) apply_runtime_env(envs_.packed(s->pool.env), &o);
  o.out_fd = out_fd;
  o.err_fd = err_fd;
  auto process = spawn(o);
  if (!process.ok()) return process.status();
  s->pid = process->pid;
  logs_.started(s->number, s->pid);
  s->pidfd = std::move(process->pidfd);
  return watch(s->pidfd.get(), kSpawnFd, static_cast<uint32_t>(s->number), EPOLLIN);
}

Result<Zygote*> Node::zygote(Job* job, int32_t language) {
  auto it = job->zygotes.find(language);
  if (it != job->zygotes.end()) return it->second.get();
  SpawnOptions o;
  RAY_TRY(worker_command(*job, language, &o.argv));
  o.env = worker_env(*job, language);
  o.cwd = job->cwd;
  std::string base = session_.dir + "/logs/zygote-" + std::to_string(job->index);
  std::string full;
  auto out = open_log_or_null(base + ".out", &full), err = open_log_or_null(base + ".err", &full);
  if (!full.empty()) note_no_log(full);
  if (!out.ok()) return out.status();
  if (!err.ok()) return err.status();
  o.out_fd = out->get();
  o.err_fd = err->get();
  auto z = Zygote::start(std::move(o));
  if (!z.ok()) return z.status();
  auto owned = std::make_unique<Zygote>(std::move(*z));
  Zygote* raw = owned.get();
  uint32_t index = next_zygote_++;
  zygotes_[index] = {job->index, language};
  RAY_TRY(watch(raw->socket(), kZygoteFd, index, EPOLLIN));
  job->zygotes[language] = std::move(owned);
  return raw;
}

void Node::on_zygote(uint32_t index) {
  auto known = zygotes_.find(index);
  if (known == zygotes_.end()) return;
  auto [job, language] = known->second;
  for (;;) {
    auto owner = jobs_.find(job);
    if (owner == jobs_.end()) return;
    auto& zygotes = owner->second.zygotes;
    auto z = zygotes.find(language);
    if (z == zygotes.end()) return;
    Zygote::Message m = z->second->receive();
    switch (m.kind) {
      case Zygote::Message::kNone: return;
      case Zygote::Message::kReady: break;
      case Zygote::Message::kPid: {
        auto s = spawns_.find(m.spawn);
        if (s == spawns_.end() || !s->second.by_zygote || s->second.pid > 0) break;
        s->second.pid = m.pid;
        logs_.started(m.spawn, m.pid);
        s->second.pidfd = std::move(m.pidfd);
        if (m.pid < 0) {
          errno = -m.pid;
          start_failed(-m.pid == EAGAIN ? no_process_error(EAGAIN, "a process in the zygote").message()
                                        : errno_error(RAY_UNAVAILABLE, "the zygote cannot fork").message(),
                       "");
        }
        if (m.pid <= 0 || !s->second.pidfd.valid())
          bury(&s->second);  // the fork failed, or the child is gone already
        else
          (void)watch(s->second.pidfd.get(), kSpawnFd, static_cast<uint32_t>(m.spawn), EPOLLIN);
        break;
      }
      case Zygote::Message::kExit:
        for (auto& [number, s] : spawns_) {
          if (!s.by_zygote || s.pid != m.pid || s.pool.job != job) continue;
          s.wait_status = m.wait_status;
          s.reaped = true;
          bury(&s);
          break;
        }
        break;
      case Zygote::Message::kClosed:
      case Zygote::Message::kGarbage:
        zygotes_.erase(index);
        return zygote_gone(job, language);
    }
  }
}

// Its children are killed by the kernel; those that were only asked for never come.
void Node::zygote_gone(uint32_t job, int32_t language) {
  auto owner = jobs_.find(job);
  if (owner == jobs_.end()) return;
  auto& zygotes = owner->second.zygotes;
  auto it = zygotes.find(language);
  if (it == zygotes.end()) return;
  unwatch(it->second->socket());
  int status = -1;
  (void)pidfd_signal(it->second->pidfd(), SIGKILL);
  ::waitpid(it->second->pid(), &status, 0);
  zygotes.erase(it);
  if (phase_ == Phase::kRunning && !job_over(job)) {
    std::string how = death_text(status, wire::kDeathCrash);
    log(kLogError, "node", "zygote-died", "the zygote of job %u died: %s; see logs/zygote-%u.err", job,
        how.c_str(), job);
    report(lineage::kError, 0, {{"kind", "zygote-died"}, {"message", how}});
  }
  std::vector<uint64_t> never;
  for (auto& [number, s] : spawns_)
    if (s.by_zygote && s.pool.job == job && s.pool.language == language && s.pid <= 0)
      never.push_back(number);
  for (uint64_t number : never) bury(&spawns_.at(number));
  end_orphans();
  forget_job(job);
}

// ---- death -----------------------------------------------------------------------------------------

void Node::on_spawn_exit(uint64_t number) {
  auto it = spawns_.find(number);
  if (it == spawns_.end()) return;
  Spawn& s = it->second;
  s.exited = true;
  unwatch(s.pidfd.get());
  // Also one whose zygote has died: it is ours then.
  if (!s.reaped && ::waitpid(s.pid, &s.wait_status, WNOHANG) == s.pid) s.reaped = true;
  end_orphans();
  if (!s.by_zygote) return bury(&s);
  auto job = jobs_.find(s.pool.job);
  if (s.reaped || job == jobs_.end() || !job->second.zygotes.count(s.pool.language)) return bury(&s);
  s.give_up_at = steady_ns() + kZygoteGraceNs;
}

void Node::bury(Spawn* s) {
  if (s->pidfd.valid() && !s->exited) unwatch(s->pidfd.get());
  uint32_t cause = s->cause;
  bool killed = s->reaped && WIFSIGNALED(s->wait_status) && WTERMSIG(s->wait_status) == SIGKILL;
  if (killed && cause == wire::kDeathCrash) {
    int64_t now = oom_kills();
    if (oom_seen_ >= 0 && now > oom_seen_) cause = wire::kDeathMemory;
    oom_seen_ = now;
  }
  Process* p = process(s->process);
  bool in_order = s->reaped && WIFEXITED(s->wait_status) && WEXITSTATUS(s->wait_status) == 0;
  if (cause == wire::kDeathCrash && in_order && p && p->goodbye) cause = wire::kDeathExit;
  int status = s->reaped ? s->wait_status : -1;
  uint32_t detail = s->memory_mb ? s->memory_mb : s->stop.seconds;  // see DnPeerDied
  if (detail) status = SIGKILL | static_cast<int>(detail << 16);
  sched::Pool pool = s->pool;
  uint64_t number = s->number;
  uint32_t index = s->process;
  memory_monitor_.gone(index);
  int pid = s->pid;
  bool counted = s->counted;
  spawns_.erase(number);
  std::string err_log = logs_.ended(number);
  std::string how = death_text(status, cause);
  if (p) {
    process_gone(index, status, cause);
  } else if (counted) {
    scheduler_.worker_start_failed(pool, steady_ns());
    scheduling_needed_ = true;
    if (phase_ == Phase::kRunning && !job_over(pool.job) && pid > 0) {
      std::string said = err_log.empty() ? "" : last_line(session_.dir + "/" + err_log);
      start_failed("", said.empty() ? how : how + ", saying \"" + said + "\"");
    }
  }
  bool expected = phase_ != Phase::kRunning || job_over(pool.job) || cause == wire::kDeathExit;
  report(lineage::kEvent, p ? index : 0,
         {{"kind", "worker-stop"}, {"pid", std::to_string(pid)}, {"message", how}});
  drop_env(pool.env);
  if (auto job = jobs_.find(pool.job); job != jobs_.end()) --job->second.spawns;
  forget_job(pool.job);
  if (expected) return;
  if (cause != wire::kDeathForced) {
    log(kLogWarning, "node", "worker-died", "worker %llu (pid %d) died: %s%s%s",
        static_cast<unsigned long long>(number), pid, how.c_str(), err_log.empty() ? "" : "; see ",
        err_log.c_str());
    report(lineage::kError, p ? index : 0,
           {{"kind", p ? "worker-died" : "worker-start"},
            {"pid", std::to_string(pid)},
            {"worker", std::to_string(number)},
            {"message", how}});
  }
}

void Node::kill_worker(uint32_t index, uint32_t cause) {
  Process* p = process(index);
  if (!p || p->driver) return;
  auto s = spawns_.find(p->spawn);
  if (s == spawns_.end()) return;
  s->second.cause = cause;
  scheduler_.worker_killed(index);
  if (s->second.foreign) return close_foreign(&s->second, true);
  (void)pidfd_signal(s->second.pidfd.get(), SIGKILL);
}

// Whatever a worker started ends with it, in whatever session or process group it is: every worker is a subreaper, so that
// what its children leave behind stays below it, and what it leaves behind itself is given to this process, which is one
// too. A child of ours that we did not start is such an orphan, or a worker whose command started it and has ended. They
// are killed, then what they leave behind, until there is none. How many there still are.
size_t Node::end_orphans() {
  std::set<int> known;
  for (const Shard& s : shards_) known.insert(s.process.pid);
  for (const auto& [number, s] : spawns_) known.insert(s.pid);
  if (relay_) known.insert(relay_->pid());
  for (const auto& [index, job] : jobs_)
    for (const auto& [language, z] : job.zygotes) known.insert(z->pid());
  size_t left = 0;
  for (int pid : own_children()) {
    if (known.count(pid) || ::waitpid(pid, nullptr, WNOHANG) != 0) continue;
    ++left;
    Fd pidfd(pidfd_open(pid));  // a child that was not waited for: the number is its own
    (void)pidfd_signal(pidfd.get(), SIGKILL);
  }
  return left;  // SIGCHLD tells of their end
}

std::string Node::death_text(int wait_status, uint32_t cause) const {
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

}  // namespace ray::node
