// See node_core.h. What goes to other nodes: what the scheduler spills, stand-ins for workers elsewhere. Only in a cluster.
// docs/node.md, "Other nodes", says how it behaves.
//
// A stand-in is a worker as far as everything else here can see: the record of a start, a process index, links. But its
// process is the relay, which speaks for many. So it is never sent a signal: the relay is told to end it, and it is gone when
// its socket is closed.
#include <algorithm>

#include "libray/cluster/place.h"
#include "libray/lineage/record.h"
#include "libray/node/core/node_core.h"

namespace ray::node {
namespace {

constexpr int64_t kHelloNs = 30'000'000'000;   // from the order to open a stand-in to its hello
constexpr int64_t kCloseNs = 30'000'000'000;   // from the order to end one to its end: else the relay hangs
constexpr int64_t kReasonNs = 500'000'000;     // from the end of one to the word why
constexpr int64_t kNotNowNs = 100'000'000;     // what cannot be opened now, for a reason that is nobody's fault
constexpr int64_t kSpillTickNs = 10'000'000, kQuietTickNs = 50'000'000;
constexpr int64_t kQuietNs = 1'000'000'000;    // without a question or an opening
constexpr size_t kMostForeign = 1024;          // stand-ins at the same time
constexpr bool kActorsTravel = false;          // what the relay cannot do yet stays here

}  // namespace

void NodeCore::join(uint32_t self, Spills::MayFit may_fit) { spills_ = std::make_unique<Spills>(self, std::move(may_fit)); }

// ---- the relay

void NodeCore::on(const event::RelayBegan& e) {
  relay_ = e.incarnation;
  for (const auto& [index, peer] : peers_) put(action::TellPeer{peer});
}

void NodeCore::on(const event::RelayFailed& e) {
  Spawn* s = spawn(e.spawn);
  if (!s || !s->foreign) return;
  if (s->process == kNone) return foreign_failed(s, e.why);
  if (s->why.empty()) s->why = node_text(s->node) + " could not be reached (" + e.why + ")";
  if (s->exited) foreign_ended(s);
}

// It ended, or is ended. What it spoke for is over; the sockets say so one by one.
void NodeCore::on(const event::RelayEnded& e) {
  relay_ = 0;
  std::vector<uint64_t> over;
  for (auto& [number, s] : spawns_) {
    if (!s.foreign) continue;
    if (s.process == kNone || s.exited) over.push_back(number);
    if (s.why.empty())
      s.why = node_text(s.node) + " could not be reached any more (the relay of this node ended: " + e.how + ")";
  }
  for (uint64_t number : over) {
    Spawn* s = spawn(number);
    if (!s) continue;
    if (s->exited) foreign_ended(s);
    else foreign_failed(s, "the relay of this node ended: " + e.how);
  }
  if (ending_) return;
  log(kLogError, "relay-died", "the relay (tasks of other nodes, and for them) ended: " + e.how +
      "; it is started again; see logs/relay.log");
  report(lineage::kError, 0, {{"kind", "relay-died"}, {"message", e.how}});
}

// What runs here for another node's job is not sent on. So what this node can never do would wait for ever, also for the
// driver's own node, where it might run at once.
Status NodeCore::stays_possible(uint32_t job, const std::map<std::string, double>& needs, const sched::Placement& where) const {
  auto it = jobs_.find(job);
  if (it == jobs_.end() || !it->second.gateway || !where.group.is_nil() || !where.never.empty()) return Status();
  if (cluster::enough(scheduler_.total(), needs)) return Status();
  sched::Resources asks;
  for (const auto& [name, amount] : needs) RAY_TRY(asks.add(name, amount));
  return error(RAY_UNSUPPORTED,
               "asks for %s, which node %s does not have, and what a task starts that came from another node runs on "
               "no other yet: keep that task on its own node (ray_placement.node), or start this from the driver",
               asks.to_string().c_str(), options_.id.hex().c_str());
}

// ---- nodes

const relay::Peer* NodeCore::peer(uint32_t index) const {
  auto it = peers_.find(index);
  return it == peers_.end() ? nullptr : &it->second;
}

std::string NodeCore::node_text(uint32_t index) const {
  const relay::Peer* p = peer(index);
  std::string text = "node " + std::to_string(index);
  return !p || p->name.empty() ? text : text + " (" + p->name + ")";
}

std::string NodeCore::node_of(uint32_t process) const {
  const Spawn* s = const_cast<NodeCore*>(this)->foreign_of(process);
  return s ? node_text(s->node) : "";
}

void NodeCore::on(const event::NodeRow& e) {
  const relay::Peer& p = e.peer;
  if (!p.dead) peers_[p.index] = p;
  else if (!peers_.count(p.index)) return;  // it was gone before this node came
  put(action::TellPeer{p});
  if (!p.dead) return;
  std::vector<uint64_t> over;
  for (auto& [number, s] : spawns_) {
    if (!s.foreign || s.node != p.index) continue;
    s.why = node_text(p.index) + " died (" + p.cause + ")";
    over.push_back(number);
  }
  for (uint64_t number : over) {
    Spawn* s = spawn(number);
    if (!s) continue;
    if (s->process == kNone) foreign_failed(s, "it died");
    else if (s->exited) foreign_ended(s);
    else close_foreign(s, true);
  }
  peers_.erase(p.index);
}

// ---- what waits and should go

bool NodeCore::wants_spill(int64_t now) const {
  const int64_t first = spills_ && !ending_ ? scheduler_.next_spill() : 0;
  return first && now >= std::max(first, spill_at_);
}

void NodeCore::on(const event::Spill&) {
  std::vector<sched::Spill> spills = scheduler_.spills(now_);
  if (!kActorsTravel) std::erase_if(spills, [](const sched::Spill& s) { return !s.actor.is_nil(); });
  SpillActions actions;
  spills_->step(spills, now_, &actions);
  apply(actions);
  spill_at_ = now_ + (spills_->busy(now_ - kQuietNs) ? kSpillTickNs : kQuietTickNs);
}

void NodeCore::apply(const SpillActions& actions) {
  for (const SpillAction& a : actions) {
    if (a.kind == SpillAction::kTell) tell_infeasible(a.key.client, a.key.shape, a.id, a.text);
    else if (a.kind == SpillAction::kOpen) open_foreign(a);
    else put(action::AskPlace{a.number, a.id, a.attempt, a.resources, !a.key.actor.is_nil()});
  }
}

void NodeCore::on(const event::Placed& e) {
  if (!spills_ || ending_) return;
  SpillActions more;
  spills_->placed(e.number, {e.node, e.epoch, e.again_ns, e.infeasible, e.text}, now_, &more);
  apply(more);
}

void NodeCore::open_foreign(const SpillAction& a) {
  auto job = jobs_.find(a.pool.job);
  const relay::Peer* to = peer(a.node);
  const bool there = to && to->epoch == a.epoch;
  if (job == jobs_.end() || job_over(a.pool.job) || !there || !description_holds(&job->second))
    return spills_->dropped(a.number, now_ + kNotNowNs);
  Spawn& s = spawns_[next_spawn_];
  s.number = next_spawn_++;
  s.pool = a.pool;
  s.foreign = true;
  s.counted = false;
  s.node = a.node;
  s.opening = a.number;
  s.wanted_by = a.key;
  s.give_up_at = now_ + kHelloNs;
  ++job->second.spawns;
  if (to->relay.empty()) return foreign_failed(&s, "it has no relay that listens");
  if (!relay_) return foreign_failed(&s, "the relay of this node is being started again");
  if (scheduler_.counts().foreign >= kMostForeign) return foreign_failed(&s, "as many of its workers as there may be are in use");
  describe_job(&job->second);
  put(action::OpenStandIn{s.number, s.node, job->second.id, s.pool.language, a.resources});
}

void NodeCore::on(const event::CommandChanged& e) {
  if (auto job = jobs_.find(e.job); job != jobs_.end()) job->second.stale |= job->second.described != 0;
}

// Whether other nodes know, or may be told, what the job says of itself. When it has given another command, for a language
// that runs nowhere yet, they are told anew as soon as nothing of it runs there.
bool NodeCore::description_holds(Job* job) {
  if (!job->stale) return true;
  for (const auto& [number, s] : spawns_)
    if (s.foreign && s.pool.job == job->index) return false;
  job->stale = false;
  job_over_elsewhere(job);
  return true;
}

// Once for each incarnation of the relay.
void NodeCore::describe_job(Job* job) {
  if (std::exchange(job->described, relay_) != relay_) put(action::DescribeJob{job->index});
}

void NodeCore::job_over_elsewhere(Job* job) {
  if (!job->described || job->described != relay_) return;
  job->described = 0;
  put(action::JobOverElsewhere{job->id});
}

// ---- stand-ins

void NodeCore::foreign_came(Spawn* s) {
  spills_->opened(std::exchange(s->opening, 0));
  const SpillKey& k = s->wanted_by;
  if (k.actor.is_nil()) scheduler_.foreign_ready(s->process, k.client, k.shape);
  else scheduler_.foreign_actor_ready(s->process, k.actor);
}

NodeCore::Spawn* NodeCore::foreign_of(uint32_t index) {
  const Process* p = process(index);
  return p && p->foreign ? spawn(p->spawn) : nullptr;
}

// It never came to be.
void NodeCore::foreign_failed(Spawn* s, const std::string& why) {
  if (spills_->failed(s->opening, now_))
    log(kLogWarning, "no-stand-in", "no worker of " + node_text(s->node) + " can be used: " + why +
        "; tasks wait here, or go elsewhere");
  bury_foreign(s, wire::kDeathForced, "");
}

// Its end is its socket's. The record may be gone after this.
void NodeCore::close_foreign(Spawn* s, bool force) {
  if (s->exited) return foreign_ended(s);
  if (!s->closing || force) put(action::CloseStandIn{s->number, force});
  s->closing = true;
  if (s->process == kNone) {
    spills_->dropped(s->opening);
    return bury_foreign(s, wire::kDeathForced, "");
  }
  if (!s->give_up_at) s->give_up_at = now_ + kCloseNs;
}

// What is being opened for a client that is gone.
void NodeCore::close_foreign_of(uint32_t client) {
  if (!spills_) return;
  spills_->client_gone(client);
  if (!spills_->opening()) return;
  std::vector<uint64_t> numbers;
  for (const auto& [number, s] : spawns_)
    if (s.foreign && s.process == kNone && s.wanted_by.client == client) numbers.push_back(number);
  for (uint64_t number : numbers) close_foreign(&spawns_.at(number), true);
}

// Its time is over: to come, to end, or to be told why it ended.
void NodeCore::foreign_late(Spawn* s) {
  if (s->exited) return foreign_ended(s);
  if (s->process == kNone) {
    put(action::CloseStandIn{s->number, true});
    return foreign_failed(s, strprintf("it did not answer within %d s", static_cast<int>(kHelloNs / 1'000'000'000)));
  }
  log(kLogError, "relay", "the relay does not end stand-in " + std::to_string(s->number) + ": the relay is ended");
  s->give_up_at = now_ + kCloseNs;
  put(action::KillRelay{});
}

// Why, when nobody asked for it, the relay says, or the cluster does.
void NodeCore::on(const event::StandInClosed& e) {
  Spawn* s = foreign_of(e.process);
  if (!s) return process_gone(e.process, -1, wire::kDeathCrash);
  s->exited = true;
  process(e.process)->closing = true;
  const bool known = ending_ || s->closing || !s->why.empty() || s->cause != wire::kDeathCrash;
  if (known || !relay_) return foreign_ended(s);
  s->give_up_at = now_ + kReasonNs;
}

void NodeCore::foreign_ended(Spawn* s) {
  uint32_t cause = ending_ ? uint32_t{wire::kDeathForced} : s->cause;
  if (cause == wire::kDeathCrash) cause = s->why.empty() && s->closing ? wire::kDeathExit : wire::kDeathNode;
  const std::string why = s->why.empty() ? node_text(s->node) + " could not be reached" : s->why;
  bury_foreign(s, cause, cause == wire::kDeathNode ? why : "");
}

void NodeCore::bury_foreign(Spawn* s, uint32_t cause, const std::string& why) {
  const uint32_t index = s->process, job_index = s->pool.job;
  const uint64_t number = s->number;
  spawns_.erase(number);
  if (const Process* p = process(index)) {
    report(lineage::kEvent, index, {{"kind", "worker-stop"}, {"pid", std::to_string(p->pid)},
                                    {"message", why.empty() ? death_text(-1, cause) : why}});
    process_gone(index, -1, cause, why);
  }
  if (auto job = jobs_.find(job_index); job != jobs_.end()) --job->second.spawns;
  if (cause == wire::kDeathNode && !ending_ && !job_over(job_index)) {
    log(kLogWarning, "worker-died", "stand-in " + std::to_string(number) + ": " + why);
    report(lineage::kError, index, {{"kind", "worker-died"}, {"worker", std::to_string(number)}, {"message", why}});
  }
  forget_job(job_index);
}

}  // namespace ray::node
