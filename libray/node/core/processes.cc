// See node_core.h. Processes: they come, are linked, and go.
#include <csignal>

#include "libray/lineage/record.h"
#include "libray/node/core/node_core.h"

namespace ray::node {
namespace {
constexpr int64_t kExitGraceNs = 3'000'000'000;  // from the end of a worker's socket to its own
}  // namespace

const NodeCore::Process* NodeCore::process(uint32_t index) const {
  return index < processes_.size() ? processes_[index].get() : nullptr;
}

// A dead process holds nothing, and of one that is being buried the counts are dropped: what other processes' rings, which
// are read meanwhile, still say of it came too late. Until then it counts, however close to its end: what it gives back was held.
bool NodeCore::may_hold(uint32_t index) const {
  const Process* p = process(index);
  return p && !p->buried;
}

bool NodeCore::reachable(uint32_t index) const {
  const Process* p = process(index);
  return p && !p->closing;
}

// ---- they come

Status NodeCore::may_join(const event::WorkerCame& worker, bool relay) const {
  auto it = spawns_.find(worker.spawn);
  const bool foreign = it != spawns_.end() && it->second.foreign;
  if (foreign && (!relay || it->second.process != kNone || it->second.closing))
    return error(RAY_INVALID_ARGUMENT, "process %d says it is stand-in %llu, which it is not", worker.pid,
                 static_cast<unsigned long long>(worker.spawn));
  if (!foreign && (it == spawns_.end() || it->second.process != kNone || !it->second.counted))
    return error(RAY_INVALID_ARGUMENT, "process %d says it is worker %llu, which nobody waits for", worker.pid,
                 static_cast<unsigned long long>(worker.spawn));
  if (job_over(it->second.pool.job)) return error(RAY_UNAVAILABLE, "its job has ended");
  return Status();
}

// One that came from another node keeps its id: its gateway (libray/relay) says it.
Status NodeCore::may_join(const JobId& job) const {
  for (const auto& [index, other] : jobs_)
    if (other.id == job && !job_over(index))
      return error(RAY_ALREADY_EXISTS, "job %s is on this node already", job.hex().c_str());
  return Status();
}

NodeCore::Process* NodeCore::add_process(uint32_t index) {
  if (index >= processes_.size()) processes_.resize(index + 1);
  processes_[index] = std::make_unique<Process>();
  processes_[index]->index = index;
  live_.insert(index);
  decide_ = true;
  return processes_[index].get();
}

void NodeCore::on(const event::DriverCame& e) {
  Process* p = add_process(e.process);
  Job& job = jobs_[next_job_];
  job.index = next_job_++;
  job.driver = e.process;
  job.id = e.id;
  job.gateway = e.gateway;
  job.ns = e.ns.empty() ? "job-" + job.id.hex().substr(0, 16) : e.ns;
  p->pid = e.pid;
  p->driver = true;
  p->job = job.index;
  put(action::Welcome{e.process, job.index, job.id, job.ns, root_task(job.id)});
  if (e.prestart && !job.gateway) scheduler_.prestart({e.language, job.index}, e.prestart);
}

void NodeCore::on(const event::WorkerCame& e) {
  Spawn& s = spawns_.at(e.spawn);
  Process* p = add_process(e.process);
  p->pid = e.pid;
  p->spawn = e.spawn;
  p->job = s.pool.job;
  p->foreign = s.foreign;
  s.process = e.process;
  s.give_up_at = 0;
  const Job& job = jobs_.at(s.pool.job);
  put(action::Welcome{e.process, job.index, job.id, job.ns, worker_root(job.id, e.spawn)});
  if (s.foreign) return foreign_came(&s);
  s.counted = false;
  bad_starts_ = 0;
  scheduler_.worker_ready(e.process, s.pool, now_);
}

// ---- links

// The link from a client to a worker, a fresh one if there was none. 0: one of them is on its way out, or lacks what links
// are made of.
uint32_t NodeCore::connect_link(uint32_t client, uint32_t worker, bool* fresh) {
  *fresh = false;
  if (!reachable(client) || !reachable(worker)) return 0;
  if (uint32_t known = links_.find(client, worker)) return known;
  if (links_.is_short(client)) {
    link_later(client, worker);
    return 0;
  }
  *fresh = true;
  return links_.add(client, worker);
}

void NodeCore::link_later(uint32_t client, uint32_t worker) {
  links_.later(client, worker);
  try_again();
}

void NodeCore::on(const event::LinkFailed& e) {
  note_shortage("no-link", "a worker cannot be linked to its caller, which waits: " + e.why);
  links_.remove(e.client, e.worker);
  link_later(e.client, e.worker);
  if (e.lease) (void)scheduler_.return_lease(e.client, e.worker, e.lease, now_);
}

// A process could not take its end of a link, or an actor found garbage among its calls. The other end forgets it too; of
// what went over it all that was begun is answered. A worker that can serve nobody is of no use, unless it is an actor.
void NodeCore::on(const event::LinkLost& e) {
  decide_ = true;
  const Process *p = process(e.process), *other = process(e.peer);
  const uint32_t client = e.as_worker ? e.peer : e.process, worker = e.as_worker ? e.process : e.peer;
  if (!p || !other || !links_.remove(client, worker)) return;
  const char* who = p->driver ? "the driver" : "worker";
  if (e.why == wire::kLinkCorrupt)
    note_shortage("corrupt-ring", strprintf("%s pid %d found garbage in the ring in which pid %d sends it calls: code in one "
                                            "of the two has overwritten memory that is not its own; what was not begun "
                                            "is sent again", who, p->pid, other->pid));
  else
    note_shortage("no-link", strprintf("%s pid %d cannot map a ring that it shares with pid %d: its limit of open files or "
                                       "of memory is reached (`ulimit -n`, `ulimit -v`)", who, p->pid, other->pid));
  const int32_t you_serve = e.as_worker ? 0 : 1;  // there may be another link, the other way around
  put(action::PeerDied{e.peer, {e.process, static_cast<uint32_t>(p->pid), you_serve, wire::kDeathUnlinked}, ""});
  link_later(client, worker);  // also so that workers that all fail are not replaced in a storm
  if (e.as_worker && !actors_.of_worker(worker)) kill_worker(worker, wire::kDeathForced);
}

// ---- they go

void NodeCore::on(const event::Goodbye& e) {
  if (Process* p = process(e.process)) p->goodbye = true;
}

// A worker is buried when its process is gone, so that its exit status is known.
void NodeCore::on(const event::SocketClosed& e) {
  Process* p = process(e.process);
  if (!p) return;
  p->closing = true;
  expect_exit(e.process, kExitGraceNs);
}

void NodeCore::on(const event::CutOff& e) {
  Process* p = process(e.process);
  if (!p) return;
  p->closing = true;
  log(kLogError, "cut-off", strprintf("%s %d (process %u) is cut off: %s", p->driver ? "driver" : "worker", p->pid, p->index,
                                      e.why.c_str()));
  report(lineage::kError, e.process, {{"kind", "protocol"}, {"message", e.why}});
  if (!p->driver) kill_worker(e.process, wire::kDeathCrash);
}

void NodeCore::on(const event::DriverDied& e) { process_gone(e.process, e.wait_status, e.cause); }

// Its worker said, or was told, that it ends: killed when it does not.
void NodeCore::expect_exit(uint32_t index, int64_t grace_ns) {
  if (Spawn* s = spawn_of(index); s && !s->give_up_at) s->give_up_at = now_ + grace_ns;
}

// The order at a death: nothing more is given to it or by it; whom it was linked with hears of it; its holds end; what was its
// own is forgotten; actors that it ran or was to create restart or die; at last its index is another one's. All that it had
// written was read before.
void NodeCore::process_gone(uint32_t index, int wait_status, uint32_t cause, const std::string& why) {
  Process* p = process(index);
  if (!p) return;
  p->closing = true;
  decide_ = true;
  // Its children's results have nowhere to go, and its retry will start them again.
  for (uint32_t worker : scheduler_.client_gone(index, now_)) kill_worker(worker, wire::kDeathForced);
  close_foreign_of(index);
  scheduler_.worker_gone(index, now_);
  for (const auto& [shape, env] : p->envs) drop_env(env);
  p->envs.clear();
  std::vector<uint32_t> peers = tell_peers(*p, wait_status, cause, why);
  p->buried = true;
  put(action::ForgetHolder{index});
  object::Actions objects;
  directory_.process_died(index, &objects);
  apply(objects);
  for (uint64_t key : function_users_.process_gone(index))
    if (!ending_) forget_function(key);
  drop_group_waiters(index);
  paused_.erase(index);
  actor::Actions actors;
  actors_.process_died(index, why.empty() ? death_text(wait_status, cause) : why, &actors);
  apply(actors);
  const uint32_t job = p->job;
  const bool driver = p->driver;
  live_.erase(index);
  processes_[index].reset();
  put(action::Buried{index, std::move(peers)});
  if (driver) end_job(job);
}

std::vector<uint32_t> NodeCore::tell_peers(const Process& p, int wait_status, uint32_t cause, const std::string& why) {
  std::vector<uint32_t> peers = links_.process_gone(p.index);
  const wire::DnPeerDied died{p.index, static_cast<uint32_t>(p.pid), wait_status, cause};
  for (uint32_t peer : peers)
    if (process(peer)) put(action::PeerDied{peer, died, why});
  return peers;
}

}  // namespace ray::node
