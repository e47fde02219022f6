// See node.h. The control store's shards as children of the node, and the rows that the node writes
// about itself and its jobs.
#include <fcntl.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "gcs/ops.h"
#include "libray/base/clock.h"
#include "libray/base/log.h"
#include "libray/lineage/record.h"
#include "libray/node/node.h"
#include "libray/wire/cursor.h"

namespace ray::node {
namespace {
// Deaths in a row within seconds: it does not come up, it is not just killed.
constexpr uint32_t kBadStarts = 3;
}  // namespace

Status Node::start_shards() {
  shards_.resize(options_.gcs_shards);
  for (uint32_t i = 0; i < options_.gcs_shards; ++i) {
    shards_[i].index = i;
    shards_[i].url = "ipc://" + session_.dir + "/gcs-" + std::to_string(i) + ".sock";
    RAY_TRY(start_shard(&shards_[i]));
  }
  return Status();
}

Status Node::start_shard(Shard* s) {
  SpawnOptions o;
  o.argv = {options_.program, "gcs", "--session", session_.dir, "--index", std::to_string(s->index),
            "--url", s->url, "--parent-pid", std::to_string(::getpid()),
            "--driver-pid", std::to_string(options_.parent_pid)};
  o.death_signal = SIGTERM;  // it writes what it has, then ends
  o.hold_signals = true;     // also when the node is killed before the shard can listen to signals
  auto out = open_log(shard_log(s->index));
  if (!out.ok()) return out.status();
  o.out_fd = o.err_fd = out->get();
  int ready[2] = {-1, -1};
  s->again = gcs_ != nullptr;
  s->came_up = false;
  if (::pipe2(ready, O_CLOEXEC | O_NONBLOCK) == 0) {
    o.pass_fd = ready[1];
    o.argv.insert(o.argv.end(), {"--ready-fd", std::to_string(ready[1])});
  }
  Fd told(ready[1]);
  s->ready = Fd(ready[0]);
  auto process = spawn(o);
  if (!process.ok()) return process.status();
  s->process = std::move(*process);
  s->started_at = steady_ns();
  if (s->ready.valid()) RAY_TRY(watch(s->ready.get(), kShardReadyFd, s->index, EPOLLIN));
  else if (gcs_) gcs_->reconnect(s->index);  // no descriptor is left: at least nothing of the old connection
  return watch(s->process.pidfd.get(), kShardFd, s->index, EPOLLIN);
}

// What waits for it goes over a new connection at once: the client, which knows of no process, tries in intervals that
// grow, and finds a connection that broke unnoticed only when it looks for it.
void Node::on_shard_ready(uint32_t index) {
  Shard& s = shards_.at(index);
  char byte;
  const ssize_t n = ::read(s.ready.get(), &byte, 1);
  if (n < 0 && errno == EAGAIN) return;  // this event was of one that has been replaced
  unwatch(s.ready.get());
  s.ready = Fd();
  if (n != 1) return;  // it has ended without: that shows here before on_shard_exit
  s.came_up = true;
  if (gcs_ && s.again) gcs_->reconnect(index);
}

std::string Node::shard_log(uint32_t index) const {
  return session_.dir + "/logs/gcs-" + std::to_string(index) + ".log";
}

// It does not come up, for whatever reason: tasks need no shard, but some calls do.
void Node::shard_missing(const Shard& s, const std::string& why) {
  note_shortage(
      "shard-start",
      strprintf("shard %u of the control store does not start, and what needs it waits (names "
                "of actors, keys and values, lists of tasks, the journal); other tasks go on. "
                "It is tried again; the last time: %s; see %s",
                s.index, why.c_str(), shard_log(s.index).c_str()));
}

// At the end of the node a shard that died is started again at once, unless that is of no use: then
// the rest of the journal cannot be written.
bool Node::shard_lost() const {
  return std::any_of(shards_.begin(), shards_.end(),
                     [](const Shard& s) { return s.process.pid <= 0; });
}

Status Node::connect_shards() {
  gcs::ClientOptions o;
  for (const Shard& s : shards_) o.urls.push_back(s.url);
  o.token = session_.token;
  o.node = id_;
  auto client = gcs::Client::connect(o);
  if (!client.ok()) return client.status();
  gcs_ = std::move(*client);
  return Status();
}

void Node::on_shard_exit(uint32_t index) {
  Shard& s = shards_.at(index);
  if (s.process.pid <= 0) return;
  int status = -1;
  unwatch(s.process.pidfd.get());
  ::waitpid(s.process.pid, &status, 0);
  int pid = s.process.pid;
  s.process = Spawned{};
  unwatch(s.ready.get());
  s.ready = Fd();
  int64_t now = steady_ns();
  s.failures = now - s.started_at < 2'000'000'000 ? s.failures + 1 : 0;
  bool hopeless = s.failures >= kBadStarts;
  if (phase_ != Phase::kRunning) {
    // Ended before its time: the rest of the journal still needs it.
    if (phase_ != Phase::kClosing && !hopeless) (void)start_shard(&s);
    return;
  }
  std::string how = death_text(status, wire::kDeathCrash);
  log(kLogError, "node", "shard-died",
      "shard %u (pid %d) died: %s; it is started again; see logs/gcs-%u.log", index, pid,
      how.c_str(), index);
  report(lineage::kError, 0,
         {{"kind", "shard-died"}, {"shard", std::to_string(index)}, {"message", how}});
  // At once, unless it dies again and again: ever later when it does not come up at all.
  s.restart_at = hopeless ? now + (100'000'000ll << std::min(s.failures - kBadStarts, s.came_up ? 1u : 6u)) : now;
  if (hopeless && !s.came_up)
    shard_missing(s,
                  strprintf("%s, saying \"%s\"", how.c_str(), last_line(shard_log(index)).c_str()));
  session_changed_ = true;
}

void Node::register_node(const char* state) {
  wire::Packer w;
  w.array(2).id(id_).map(5);
  w.str("state").str(state);
  w.str("session").str(session_.dir);
  w.str("pid").int64(::getpid());
  w.str("start_ns").int64(started_at_);
  auto total = core_.scheduler().total();
  w.str("resources").map(static_cast<uint32_t>(total.size()));
  for (const auto& [name, amount] : total) w.str(name).float64(amount);
  for (uint32_t i = 0; i < gcs_->shards(); ++i)
    gcs_->call(i, gcs::kNodePut, w.bytes(), [](Status s, std::string) {
      if (!s.ok()) log(kLogWarning, "node", "node-row", "%s", s.message().c_str());
    });
}

void Node::register_job(const Job& job, const char* state) {
  if (!gcs_) return;  // the node is closing
  wire::Packer w;
  Process* driver = process(job.driver);
  w.array(2).id(job.id).map(6);
  w.str("state").str(state);
  w.str("name").str(job.name);
  w.str("ns").str(job.ns);
  w.str("language").int64(job.language);
  w.str("node").bin({reinterpret_cast<const char*>(id_.b), kIdSize});
  if (driver)
    w.str("driver_pid").int64(driver->pid);
  else
    w.str("updated_ns").int64(wall_ns());
  for (uint32_t i = 0; i < gcs_->shards(); ++i)
    gcs_->call(i, gcs::kJobPut, w.bytes(), [](Status s, std::string) {
      if (!s.ok()) log(kLogWarning, "node", "job-row", "%s", s.message().c_str());
    });
}

}  // namespace ray::node
