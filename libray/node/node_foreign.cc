// See node.h. What goes to other nodes: the relay process, and what the core says to it and to the head. Only in a cluster;
// docs/node.md, "Other nodes", says how it behaves, core/foreign.cc has the rules. Main thread.
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
constexpr size_t kJobPart = 48 << 10;

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
  step(event::RelayBegan{relay_->incarnation()});
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
  if (m.type == Control::kFailed) step(event::RelayFailed{m.spawn, m.text});
}

void Node::relay_gone() {
  if (!relay_ || !relay_->running()) return;
  unwatch(relay_->socket());
  unwatch(relay_->pidfd());
  relay_waits_ = false;
  step(event::RelayEnded{death_text(relay_->reap(steady_ns()), wire::kDeathCrash)});
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
  step(event::NodeRow{std::move(p)});
}

// ---- what the core says

void Node::carry_out(const action::AskPlace& a) {
  cluster_->place(a.id, a.attempt, amounts(a.resources), a.actor, [this, number = a.number](const Placed& p) {
    step(event::Placed{number, p.node, p.epoch, p.again_ns, p.infeasible, p.text});
  });
}

void Node::carry_out(const action::TellPeer& a) {
  if (!relay_) return;
  ControlMessage m;
  m.type = Control::kPeer;
  m.peer = a.peer;
  relay_->send(m);
}

// The body of its gateway's hello, which the other node's admit_driver reads.
void Node::carry_out(const action::DescribeJob& a) {
  const Job& job = jobs_.at(a.job);
  wire::Packer w;
  w.map(7).str("language").int64(job.language).str("cwd").str(job.cwd).str("job_name").str(job.name);
  w.str("ns").str(job.ns).str("job").id(job.id);
  w.str("env").map(static_cast<uint32_t>(job.env.size()));
  for (const auto& [name, value] : job.env) w.str(name).str(value);
  w.str("commands");
  pack_commands(job.commands, &w);
  ControlMessage m;
  m.type = Control::kJob;
  m.id = job.id;
  const std::string& body = w.bytes();
  for (size_t at = 0; at < body.size(); at += kJobPart) {
    m.text = body.substr(at, kJobPart);
    m.more = at + kJobPart < body.size();
    relay_->send(m);
  }
}

void Node::carry_out(const action::JobOverElsewhere& a) {
  ControlMessage m;
  m.type = Control::kJobOver;
  m.id = a.id;
  relay_->send(m);
}

void Node::carry_out(const action::OpenStandIn& a) {
  ControlMessage m;
  m.type = Control::kOpen;
  m.spawn = a.spawn;
  m.node = a.node;
  m.id = a.job;
  m.language = a.language;
  m.resources = wire::pack_resources(amounts(a.resources));
  relay_->send(m);
}

void Node::carry_out(const action::CloseStandIn& a) {
  ControlMessage m;
  m.type = Control::kClose;
  m.spawn = a.spawn;
  m.force = a.force;
  relay_->send(m);
}

void Node::carry_out(const action::KillRelay&) { relay_->kill(); }

}  // namespace ray::node
