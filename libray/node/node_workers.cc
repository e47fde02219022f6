// See node.h. Workers: starting them, zygotes, learning how they died.
#include <signal.h>
#include <sys/epoll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>

#include "libray/base/clock.h"
#include "libray/base/fault.h"
#include "libray/base/log.h"
#include "libray/base/proc.h"
#include "libray/base/thread.h"
#include "libray/lineage/record.h"
#include "libray/wire/cursor.h"
#include "libray/node/node.h"

namespace ray::node {
namespace {
constexpr size_t kMaxCommand = 1 << 20;  // bytes; the kernel takes little more

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
  if (!same && (job.zygotes.count(language) || core_.has_workers(job.index, language)))  // they run, or are about to
    return reply(index, req_id, RAY_WRONG_STATE,
                 "workers of that language run already, with another command: give it before the first function is called");
  job.commands[language] = now;
  if (!same) step(event::CommandChanged{job.index});
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

Status Node::start_worker(Spawn* s) {
  auto job = jobs_.find(s->pool.job);
  if (job == jobs_.end()) return error(RAY_UNAVAILABLE, "its job has ended");
  Fd out, err;
  std::string full;
  Status status = logs_.open(s->number, job->second.id, &out, &err, &full);
  if (!full.empty()) note_no_log(full);
  if (status.ok()) status = spawn_worker(&job->second, s, out.get(), err.get());
  return status;
}

Status Node::spawn_worker(Job* job, Spawn* s, int out_fd, int err_fd) {
  if (s->pool.language == RAY_LANG_PYTHON) {
    auto z = zygote(job, s->pool.language);
    if (!z.ok()) return z.status();
    s->by_zygote = true;
    std::string_view env = s->pool.env ? core_.environments().packed(s->pool.env) : "";
    return (*z)->fork(s->number, env, out_fd, err_fd);
  }
  SpawnOptions o;
  RAY_TRY(worker_command(*job, s->pool.language, &o.argv));
  o.env = worker_env(*job, s->pool.language);
  o.env[wire::kEnvWorker] = std::to_string(s->number);
  o.cwd = job->cwd;
  if (s->pool.env) apply_runtime_env(core_.environments().packed(s->pool.env), &o);
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
  step(event::ZygoteBegan{job->index});
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
          Status why = -m.pid == EAGAIN ? no_process_error(EAGAIN, "a process in the zygote")
                                        : errno_error(RAY_UNAVAILABLE, "the zygote cannot fork");
          note_shortage("worker-start", "no worker can be started, and what needs one waits: " + why.message());
          step(event::TryAgain{});
        }
        if (m.pid <= 0 || !s->second.pidfd.valid())
          bury(m.spawn);  // the fork failed, or the child is gone already
        else
          (void)watch(s->second.pidfd.get(), kSpawnFd, static_cast<uint32_t>(m.spawn), EPOLLIN);
        break;
      }
      case Zygote::Message::kExit:
        for (auto& [number, s] : spawns_) {
          if (!s.by_zygote || s.pid != m.pid || s.pool.job != job) continue;
          s.wait_status = m.wait_status;
          s.reaped = true;
          bury(number);
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
  if (phase_ == Phase::kRunning && !core_.job_over(job)) {
    std::string how = death_text(status, wire::kDeathCrash);
    log(kLogError, "node", "zygote-died", "the zygote of job %u died: %s; see logs/zygote-%u.err", job,
        how.c_str(), job);
    report(lineage::kError, 0, {{"kind", "zygote-died"}, {"message", how}});
  }
  std::vector<uint64_t> never;
  for (auto& [number, s] : spawns_)
    if (s.by_zygote && s.pool.job == job && s.pool.language == language && s.pid <= 0)
      never.push_back(number);
  for (uint64_t number : never) bury(number);
  end_orphans();
  step(event::ZygoteGone{job});
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
  if (!s.by_zygote) return bury(number);
  auto job = jobs_.find(s.pool.job);
  if (s.reaped || job == jobs_.end() || !job->second.zygotes.count(s.pool.language)) return bury(number);
  step(event::SpawnExited{number});
}

// Its rings are read to their tails first: what it wrote counts.
void Node::bury(uint64_t number) {
  auto it = spawns_.find(number);
  if (it == spawns_.end()) return;
  Spawn s = std::move(it->second);
  spawns_.erase(it);
  if (s.pidfd.valid() && !s.exited) unwatch(s.pidfd.get());
  event::SpawnEnded e{number, s.pid, s.reaped, s.wait_status, false, "", ""};
  if (s.reaped && WIFSIGNALED(s.wait_status) && WTERMSIG(s.wait_status) == SIGKILL && core_.unexplained(number)) {
    const int64_t now = oom_kills();
    e.out_of_memory = oom_seen_ >= 0 && now > oom_seen_;
    oom_seen_ = now;
  }
  memory_monitor_.gone(s.process);
  e.log = logs_.ended(number);
  if (s.process == kNone && !e.log.empty()) e.said = last_line(session_.dir + "/" + e.log);
  if (Process* p = process(s.process)) {
    RAY_FAULT("node.bury");
    drain_up(p, UINT32_MAX);
    p->closing = true;
  }
  step(std::move(e));
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

}  // namespace ray::node
