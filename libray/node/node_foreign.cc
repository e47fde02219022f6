// See node.h. What goes to other nodes: the relay process, what the scheduler spills, stand-ins for workers elsewhere. Only in
// a cluster. docs/node.md, "Other nodes", says how it behaves.
//
// A stand-in is a worker as far as everything else here can see: a spawn record, a process index, a channel, links. But its
// process is the relay, which speaks for many. So it is never sent a signal: the relay is told to end it (kClose), and it
// is gone when its socket is closed. Main thread.
#include <sys/epoll.h>

#include <algorithm>

#include "libray/base/clock.h"
#include "libray/base/log.h"
#include "libray/lineage/record.h"
#include "libray/node/node.h"

namespace ray::node {
namespace {

using relay::Control;
using relay::ControlMessage;

constexpr int64_t kListenNs = 5'000'000'000;   // for the relay's first word, before the node joins
constexpr int64_t kHelloNs = 30'000'000'000;   // from the order to open a stand-in to its hello
constexpr int64_t kCloseNs = 30'000'000'000;   // from the order to end one to its end: else the relay hangs
constexpr int64_t kReasonNs = 500'000'000;     // from the end of one to the word why
constexpr int64_t kNotNowNs = 100'000'000;     // what cannot be opened now, for a reason that is nobody's fault
constexpr int64_t kSpillTickNs = 10'000'000, kQuietTickNs = 50'000'000;
constexpr int64_t kQuietNs = 1'000'000'000;    // without a question or an opening
constexpr size_t kMostForeign = 1024;          // stand-ins at the same time
constexpr size_t kJobPart = 48 << 10;
constexpr bool kActorsTravel = false;          // what the relay cannot do yet stays here

bool is_everywhere(const std::string& host) { return host == "0.0.0.0" || host == "[::]" || host == "*" || host == "::"; }

// HOST of tcp://HOST:PORT.
std::string host_of(const std::string& url) {
  size_t from = url.find("://");
  from = from == std::string::npos ? 0 : from + 3;
  const size_t colon = url.rfind(':');
  return url.substr(from, colon == std::string::npos || colon < from ? std::string::npos : colon - from);
}

std::string bracketed(const std::string& host) {
  return host.find(':') == std::string::npos || host.front() == '[' ? host : "[" + host + "]";
}

// The head listens for other relays where it listens for other nodes, any other node where it is known.
std::string relay_listen(const ClusterOptions& o) {
  std::string host = o.role == "head" ? host_of(o.listen) : bracketed(o.address);
  if (host.empty()) host = "127.0.0.1";
  return (o.tls_certificate.empty() ? "tcp://" : "tls+tcp://") + host + ":0";
}

wire::Resources amounts(const sched::Resources& r) {
  wire::Resources out;
  for (const auto& [name, a] : r.items()) out[name] = static_cast<double>(a) / sched::kUnit;
  return out;
}

}  // namespace

// ---- the relay process

// Before the node joins: where its relay listens is part of what it says of itself.
void Node::start_relay() {
  RelayOptions o;
  o.program = RelayLink::program();
  if (o.program.empty()) return log(kLogWarning, "node", "relay", "no program libray-relay: tasks stay on this node");
  o.session = session_.dir;
  o.self.id = id_;
  o.self.name = options_.cluster.address;
  o.listen = relay_listen(options_.cluster);
  o.certificate = options_.cluster.tls_certificate;
  o.ca = options_.cluster.tls_ca;
  relay_ = std::make_unique<RelayLink>(std::move(o));
  if (restart_relay(steady_ns()) && !relay_->await_listening(kListenNs))
    log(kLogWarning, "node", "relay", "the relay did not say in time where it listens: no task of another node comes here; see "
        "%s/logs/relay.log", session_.dir.c_str());
}

// As others dial it: where it listens everywhere, the name of the machine is what they need.
std::string Node::relay_address() const {
  if (!relay_ || relay_->address().empty()) return "";
  const std::string url = relay_->address();
  if (!is_everywhere(host_of(url)) || options_.cluster.address.empty()) return url;
  return url.substr(0, url.find("://") + 3) + bracketed(options_.cluster.address) + url.substr(url.rfind(':'));
}

bool Node::restart_relay(int64_t now) {
  Status s = relay_->start(now);
  if (s.ok()) s = watch(relay_->socket(), kRelayFd, 0, EPOLLIN);
  if (s.ok()) s = watch(relay_->pidfd(), kRelayExit, 0, EPOLLIN);
  if (!s.ok()) {
    note_shortage("relay", "the relay cannot be started, and tasks stay on this node: " + s.message());
    return false;
  }
  ControlMessage m;
  m.type = Control::kPeer;
  for (const auto& [index, peer] : peers_) m.peer = peer, relay_->send(m);
  return true;
}

void Node::on_relay(uint32_t events) {
  if (events & EPOLLOUT) flush_relay();
  read_relay();
}

void Node::flush_relay() {
  if (!relay_ || !relay_->running()) return;
  const bool waits = !relay_->flush();
  if (waits == relay_waits_) return;
  relay_waits_ = waits;
  (void)watch(relay_->socket(), kRelayFd, 0, waits ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

void Node::read_relay() {
  if (!relay_) return;
  ControlMessage m;
  while (relay_->receive(&m)) take_relay(m);
  if (relay_->over()) relay_gone();
}

void Node::take_relay(const ControlMessage& m) {
  if (m.type == Control::kListening) {
    relay_->listens(m.text);
    if (cluster_) cluster_->set_relay(relay_address());
    return;
  }
  if (m.type != Control::kFailed) return;
  auto it = spawns_.find(m.spawn);
  if (it == spawns_.end() || !it->second.foreign) return;
  Spawn& s = it->second;
  if (s.process == kNone) return foreign_failed(&s, m.text);
  if (s.why.empty()) s.why = node_text(s.node) + " could not be reached (" + m.text + ")";
  if (s.exited) foreign_ended(&s);
}

// It ended, or is ended. What it spoke for is over; the sockets say so one by one.
void Node::relay_gone() {
  if (!relay_ || !relay_->running()) return;
  unwatch(relay_->socket());
  unwatch(relay_->pidfd());
  relay_waits_ = false;
  const std::string how = death_text(relay_->reap(steady_ns()), wire::kDeathCrash);
  std::vector<uint64_t> over;
  for (auto& [number, s] : spawns_) {
    if (!s.foreign) continue;
    if (s.process == kNone || s.exited) over.push_back(number);
    if (s.why.empty())
      s.why = node_text(s.node) + " could not be reached any more (the relay of this node ended: " + how + ")";
  }
  for (uint64_t number : over) {
    auto s = spawns_.find(number);
    if (s == spawns_.end()) continue;
    if (s->second.exited) foreign_ended(&s->second);
    else foreign_failed(&s->second, "the relay of this node ended: " + how);
  }
  if (phase_ != Phase::kRunning) return;
  log(kLogError, "node", "relay-died", "the relay (tasks of other nodes, and for them) ended: %s; it is started again; see "
      "logs/relay.log", how.c_str());
  report(lineage::kError, 0, {{"kind", "relay-died"}, {"message", how}});
}

// What runs here for another node's job is not sent on. So what this node can never do would wait for ever, also for the
// driver's own node, where it might run at once.
Status Node::stays_possible(uint32_t job, const wire::Resources& needs, const sched::Placement& where) const {
  auto it = jobs_.find(job);
  if (it == jobs_.end() || !it->second.gateway || !where.group.is_nil() || !where.never.empty()) return Status();
  if (cluster::enough(scheduler_.total(), needs)) return Status();
  sched::Resources asks;
  for (const auto& [name, amount] : needs) RAY_TRY(asks.add(name, amount));
  return error(RAY_UNSUPPORTED,
               "asks for %s, which node %s does not have, and what a task starts that came from another node runs on "
               "no other yet: keep that task on its own node (ray_placement.node), or start this from the driver",
               asks.to_string().c_str(), id_.hex().c_str());
}

// ---- nodes

std::string Node::node_text(uint32_t index) const {
  auto peer = peers_.find(index);
  std::string text = "node " + std::to_string(index);
  return peer == peers_.end() || peer->second.name.empty() ? text : text + " (" + peer->second.name + ")";
}

void Node::node_changed(const cluster::Row& row) {
  relay::Peer p;
  p.index = row.index;
  p.epoch = row.epoch;
  p.id = row.about.id;
  p.relay = row.about.relay;
  p.name = row.about.host.empty() ? row.about.address : row.about.host;
  p.dead = row.state == cluster::State::kDead;
  p.cause = row.cause;
  if (!p.dead) peers_[p.index] = p;
  else if (!peers_.count(p.index)) return;  // it was gone before this node came
  if (relay_) {
    ControlMessage m;
    m.type = Control::kPeer;
    m.peer = p;
    relay_->send(m);
  }
  if (!p.dead) return;
  std::vector<uint64_t> over;
  for (auto& [number, s] : spawns_) {
    if (!s.foreign || s.node != p.index) continue;
    s.why = node_text(p.index) + " died (" + p.cause + ")";
    over.push_back(number);
  }
  for (uint64_t number : over) {
    auto s = spawns_.find(number);
    if (s == spawns_.end()) continue;
    if (s->second.process == kNone) foreign_failed(&s->second, "it died");
    else if (s->second.exited) foreign_ended(&s->second);
    else close_foreign(&s->second, true);
  }
  peers_.erase(p.index);
}

// ---- what waits and should go

void Node::run_spills(int64_t now) {
  const int64_t first = spills_ && phase_ == Phase::kRunning ? scheduler_.next_spill() : 0;
  if (!first || now < std::max(first, spill_at_)) return;
  std::vector<sched::Spill> spills = scheduler_.spills(now);
  if (!kActorsTravel) std::erase_if(spills, [](const sched::Spill& s) { return !s.actor.is_nil(); });
  SpillActions actions;
  spills_->step(spills, now, &actions);
  apply(actions);
  spill_at_ = now + (spills_->busy(now - kQuietNs) ? kSpillTickNs : kQuietTickNs);
}

void Node::apply(const SpillActions& actions) {
  for (const SpillAction& a : actions) {
    if (a.kind == SpillAction::kTell) {
      tell_infeasible(a.key.client, a.key.shape, a.id, a.text);
    } else if (a.kind == SpillAction::kOpen) {
      open_foreign(a);
    } else {
      cluster_->place(a.id, a.attempt, amounts(a.resources), !a.key.actor.is_nil(), [this, number = a.number](const Placed& p) {
        if (!spills_ || phase_ != Phase::kRunning) return;
        SpillActions more;
        spills_->placed(number, {p.node, p.epoch, p.again_ns, p.infeasible, p.text}, steady_ns(), &more);
        apply(more);
      });
    }
  }
}

void Node::open_foreign(const SpillAction& a) {
  auto job = jobs_.find(a.pool.job);
  auto peer = peers_.find(a.node);
  const bool there = peer != peers_.end() && peer->second.epoch == a.epoch;
  if (job == jobs_.end() || job_over(a.pool.job) || !there || !description_holds(&job->second))
    return spills_->dropped(a.number, steady_ns() + kNotNowNs);
  Spawn& s = spawns_[next_spawn_];
  s.number = next_spawn_++;
  s.pool = a.pool;
  s.foreign = true;
  s.counted = false;
  s.node = a.node;
  s.opening = a.number;
  s.wanted_by = a.key;
  s.give_up_at = steady_ns() + kHelloNs;
  ++job->second.spawns;
  if (peer->second.relay.empty()) return foreign_failed(&s, "it has no relay that listens");
  if (!relay_->running()) return foreign_failed(&s, "the relay of this node is being started again");
  if (scheduler_.counts().foreign >= kMostForeign) return foreign_failed(&s, "as many of its workers as there may be are in use");
  describe_job(&job->second);
  ControlMessage m;
  m.type = Control::kOpen;
  m.spawn = s.number;
  m.node = s.node;
  m.id = job->second.id;
  m.language = s.pool.language;
  m.resources = wire::pack_resources(amounts(a.resources));
  relay_->send(m);
}

// Whether other nodes know, or may be told, what the job says of itself. When it has given another command, for a language
// that runs nowhere yet, they are told anew as soon as nothing of it runs there.
bool Node::description_holds(Job* job) {
  if (!job->stale) return true;
  for (const auto& [number, s] : spawns_)
    if (s.foreign && s.pool.job == job->index) return false;
  job->stale = false;
  job_over_elsewhere(job);
  return true;
}

// Once for each incarnation of the relay: the body of its gateway's hello, which the other node's admit_driver reads.
void Node::describe_job(Job* job) {
  if (job->described == relay_->incarnation()) return;
  job->described = relay_->incarnation();
  wire::Packer w;
  w.map(7).str("language").int64(job->language).str("cwd").str(job->cwd).str("job_name").str(job->name);
  w.str("ns").str(job->ns).str("job").id(job->id);
  w.str("env").map(static_cast<uint32_t>(job->env.size()));
  for (const auto& [name, value] : job->env) w.str(name).str(value);
  w.str("commands");
  pack_commands(job->commands, &w);
  ControlMessage m;
  m.type = Control::kJob;
  m.id = job->id;
  const std::string& body = w.bytes();
  for (size_t at = 0; at < body.size(); at += kJobPart) {
    m.text = body.substr(at, kJobPart);
    m.more = at + kJobPart < body.size();
    relay_->send(m);
  }
}

void Node::job_over_elsewhere(Job* job) {
  if (!relay_ || !job->described || job->described != relay_->incarnation()) return;
  job->described = 0;
  ControlMessage m;
  m.type = Control::kJobOver;
  m.id = job->id;
  relay_->send(m);
}

// ---- stand-ins

Status Node::admit_foreign(Spawn* s, Process* p) {
  if (!is_relay(p->pid) || s->process != kNone || s->closing)
    return error(RAY_INVALID_ARGUMENT, "process %d says it is stand-in %llu, which it is not", p->pid,
                 static_cast<unsigned long long>(s->number));
  if (job_over(s->pool.job)) return error(RAY_UNAVAILABLE, "its job has ended");
  s->process = p->index;
  s->give_up_at = 0;
  p->foreign = true;
  p->spawn = s->number;
  p->job = s->pool.job;
  return Status();
}

// It has a channel and was welcomed.
void Node::foreign_came(Spawn* s) {
  spills_->opened(std::exchange(s->opening, 0));
  const SpillKey& k = s->wanted_by;
  if (k.actor.is_nil()) scheduler_.foreign_ready(s->process, k.client, k.shape);
  else scheduler_.foreign_actor_ready(s->process, k.actor);
}

Node::Spawn* Node::foreign_of(uint32_t index) {
  Process* p = process(index);
  auto s = p && p->foreign ? spawns_.find(p->spawn) : spawns_.end();
  return s == spawns_.end() ? nullptr : &s->second;
}

// It never came to be.
void Node::foreign_failed(Spawn* s, const std::string& why) {
  if (spills_->failed(s->opening, steady_ns()))
    log(kLogWarning, "node", "no-stand-in", "no worker of %s can be used: %s; tasks wait here, or go elsewhere",
        node_text(s->node).c_str(), why.c_str());
  bury_foreign(s, wire::kDeathForced, "");
}

// Its end is its socket's. The record may be gone after this.
void Node::close_foreign(Spawn* s, bool force) {
  if (s->exited) return foreign_ended(s);
  if (!s->closing || force) {
    ControlMessage m;
    m.type = Control::kClose;
    m.spawn = s->number;
    m.force = force;
    relay_->send(m);
  }
  s->closing = true;
  if (s->process == kNone) {
    spills_->dropped(s->opening);
    return bury_foreign(s, wire::kDeathForced, "");
  }
  if (!s->give_up_at) s->give_up_at = steady_ns() + kCloseNs;
}

// What is being opened for a client that is gone.
void Node::close_foreign_of(uint32_t client) {
  if (!spills_) return;
  spills_->client_gone(client);
  if (!spills_->opening()) return;
  std::vector<uint64_t> numbers;
  for (const auto& [number, s] : spawns_)
    if (s.foreign && s.process == kNone && s.wanted_by.client == client) numbers.push_back(number);
  for (uint64_t number : numbers) close_foreign(&spawns_.at(number), true);
}

// Its time is over: to come, to end, or to be told why it ended.
void Node::foreign_late(Spawn* s) {
  if (s->exited) return foreign_ended(s);
  if (s->process == kNone) {
    ControlMessage m;
    m.type = Control::kClose;
    m.spawn = s->number;
    m.force = true;
    relay_->send(m);
    return foreign_failed(s, strprintf("it did not answer within %d s", static_cast<int>(kHelloNs / 1'000'000'000)));
  }
  log(kLogError, "node", "relay", "the relay does not end stand-in %llu: the relay is ended",
      static_cast<unsigned long long>(s->number));
  s->give_up_at = steady_ns() + kCloseNs;
  relay_->kill();
}

// Its socket is closed: what it has written is there. Why, when nobody asked for it, the relay says, or the cluster does.
void Node::foreign_over(uint32_t index) {
  read_relay();
  Spawn* s = foreign_of(index);
  if (!s) return process_gone(index, -1, wire::kDeathCrash);
  s->exited = true;
  process(index)->closing = true;
  const bool known = s->closing || !s->why.empty() || s->cause != wire::kDeathCrash;
  if (known || !relay_->running()) return foreign_ended(s);
  s->give_up_at = steady_ns() + kReasonNs;
}

void Node::foreign_ended(Spawn* s) {
  uint32_t cause = s->cause;
  if (cause == wire::kDeathCrash) cause = s->why.empty() && s->closing ? wire::kDeathExit : wire::kDeathNode;
  const std::string why = s->why.empty() ? node_text(s->node) + " could not be reached" : s->why;
  bury_foreign(s, cause, cause == wire::kDeathNode ? why : "");
}

void Node::bury_foreign(Spawn* s, uint32_t cause, const std::string& why) {
  const uint32_t index = s->process, job_index = s->pool.job;
  const uint64_t number = s->number;
  spawns_.erase(number);
  if (Process* p = process(index)) {
    report(lineage::kEvent, index, {{"kind", "worker-stop"}, {"pid", std::to_string(p->pid)},
                                    {"message", why.empty() ? death_text(-1, cause) : why}});
    process_gone(index, -1, cause, why);
  }
  if (auto job = jobs_.find(job_index); job != jobs_.end()) --job->second.spawns;
  if (cause == wire::kDeathNode && phase_ == Phase::kRunning && !job_over(job_index)) {
    log(kLogWarning, "node", "worker-died", "stand-in %llu: %s", static_cast<unsigned long long>(number), why.c_str());
    report(lineage::kError, index, {{"kind", "worker-died"}, {"worker", std::to_string(number)}, {"message", why}});
  }
  forget_job(job_index);
}

}  // namespace ray::node
