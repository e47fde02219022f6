// See relay.h.
#include "libray/relay/relay.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>

#include "libray/base/clock.h"
#include "libray/base/log.h"
#include "libray/session/session.h"
#include "libray/runtime/runtime.h"

namespace ray::relay {
namespace {

constexpr size_t kToldFunctions = 1024;     // that another node keeps for a job of ours
constexpr size_t kComingJobs = 256;         // of other nodes that have not said all of themselves
constexpr size_t kMaxGateways = 256, kMaxLanes = 4096;
constexpr int64_t kOpenNs = 15'000'000'000;  // for a lane, from the request to the answer
constexpr int64_t kEndNs = 3'000'000'000;    // for stand-ins and gateways, when the daemon is gone
constexpr int kLookMs = 500;

// Who starts again has a later epoch: a relay that its daemon starts again must. Ten a second, from 2026 to 2039.
uint32_t epoch_now() { return static_cast<uint32_t>((wall_ns() - 1'767'225'600'000'000'000) / 100'000'000); }

std::string record(const Record& r) {
  std::string out;
  encode(r, &out);
  return out;
}

}  // namespace

// ---- main thread

int Relay::run() {
  event_ = Fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  for (bool more = true; more;) {
    pollfd p[2] = {{control_.get(), POLLIN, 0}, {event_.get(), POLLIN, 0}};
    (void)::poll(p, 2, kLookMs);
    uint64_t n;
    if (p[1].revents) (void)!::read(event_.get(), &n, sizeof n);
    if (p[0].revents) more = read_control();
    reap();
    look_after_opening();
  }
  log(kLogInfo, "relay", "ends", "the node's daemon is gone, or wants no relay any more");
  for (auto& s : stand_ins([](const StandIn&) { return true; })) s->end("the node ends");
  std::vector<std::shared_ptr<Gateway>> gateways;
  {
    std::lock_guard lock(mutex_);
    for (auto& [job, served] : gateways_) gateways.push_back(served.gateway);
  }
  for (auto& g : gateways) g->end();
  gateways.clear();
  for (const int64_t until = steady_ns() + kEndNs; steady_ns() < until;) {
    reap();
    {
      std::lock_guard lock(mutex_);
      if (stand_ins_.empty() && gateways_.empty() && ending_.empty()) break;
    }
    ::usleep(10000);
  }
  std::lock_guard lock(mutex_);
  return stand_ins_.empty() && gateways_.empty() && ending_.empty() ? 0 : 1;
}

bool Relay::read_control() {
  std::string bytes(2 * kMaxControl, '\0');
  const ssize_t n = ::recv(control_.get(), bytes.data(), bytes.size(), MSG_DONTWAIT);
  if (n < 0) return errno == EAGAIN || errno == EINTR;
  if (n == 0) return false;
  bytes.resize(static_cast<size_t>(n));
  ControlMessage m;
  if (Status s = decode(bytes, &m); !s.ok()) {
    log(kLogError, "relay", "control", "%s", s.message().c_str());
    return true;
  }
  handle(std::move(m));
  return true;
}

void Relay::handle(ControlMessage m) {
  switch (m.type) {
    case Control::kConfigure: return configure(m);
    case Control::kPeer: return on_peer(std::move(m.peer));
    case Control::kJob: {
      std::lock_guard lock(mutex_);
      jobs_[m.id] += m.text;
      return;
    }
    case Control::kOpen: return open(m);
    case Control::kClose: return close(m);
    case Control::kJobOver: return job_over(m.id);
    default: log(kLogWarning, "relay", "control", "a message that a relay does not take");
  }
}

void Relay::tell_daemon(const ControlMessage& m) {
  const std::string bytes = encode(m);
  std::lock_guard lock(control_mutex_);
  if (::send(control_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL) < 0)
    log(kLogDebug, "relay", "control", "the daemon cannot be told");
}

void Relay::failed(uint64_t spawn, const std::string& text) {
  ControlMessage m;
  m.type = Control::kFailed;
  m.spawn = spawn;
  m.text = text.substr(0, 4096);
  tell_daemon(m);
}

void Relay::configure(const ControlMessage& m) {
  if (transport_) return;
  // A relay that had been started before this one may have its epoch from this moment, and no later one.
  for (const uint32_t before = epoch_now(); epoch_now() == before;) ::usleep(5000);
  self_ = m.peer;
  session_ = m.session;
  net::TransportOptions o;
  o.self.node = self_.id;
  o.self.epoch = epoch_now();
  if (::getrandom(&o.self.incarnation, sizeof o.self.incarnation, 0) != sizeof o.self.incarnation) __builtin_trap();
  o.listen = m.listen;
  o.tls = {m.certificate, m.ca};
  auto token = session::read_file(session_ + "/cluster.token");
  if (token.ok()) o.token = *token;
  while (!o.token.empty() && (o.token.back() == '\n' || o.token.back() == '\r')) o.token.pop_back();
  if (!token.ok()) return log(kLogError, "relay", "no-network", "%s", token.status().message().c_str());
  {
    std::lock_guard lock(mutex_);  // its first calls wait for the pointer
    auto transport = net::Transport::start(std::move(o), this);
    if (!transport.ok())  // everything that is opened fails
      return log(kLogError, "relay", "no-network", "%s", transport.status().message().c_str());
    transport_ = std::move(*transport);
  }
  ControlMessage listening;
  listening.type = Control::kListening;
  listening.text = transport_->address();
  tell_daemon(listening);
  log(kLogInfo, "relay", "listens", "%s", listening.text.c_str());
}

void Relay::on_peer(Peer row) {
  if (row.id == self_.id) {  // the first one is told before this node has a number
    std::lock_guard lock(mutex_);
    self_ = std::move(row);
    return;
  }
  const bool dead = row.dead;
  const NodeId id = row.id;
  const std::string cause = row.cause;
  {
    std::lock_guard lock(mutex_);
    Node& n = nodes_[id];
    by_index_[row.index] = id;
    const bool was_dead = n.row.dead;
    n.row = std::move(row);
    if (!dead) {
      if (again_ || (!n.dialled.empty() && n.dialled != n.row.relay)) dial(&n);
      return;
    }
    if (was_dead) return;
    if (transport_) {
      hang_up(&n);
      transport_->fence(id, UINT32_MAX);
    }
    n.waiting.clear();
  }
  end_of(id, name_of(id) + " is dead" + (cause.empty() ? "" : ": " + cause));
}

// mutex_ held, as for the next.
void Relay::dial(Node* n) {
  if (!transport_ || n->row.relay.empty() || n->dialled == n->row.relay) return;
  hang_up(n);
  n->dialled = n->row.relay;
  n->target = next_target_++;
  by_target_[n->target] = n->row.id;
  transport_->dial(n->target, n->dialled, 0);
}

void Relay::hang_up(Node* n) {
  if (n->dialled.empty()) return;
  n->dialled.clear();
  by_target_.erase(n->target);
  transport_->hang_up(n->target);
}

void Relay::open(const ControlMessage& m) {
  StandInOptions o;
  o.spawn = m.spawn;
  o.job = m.id;
  o.language = m.language;
  o.session = session_;
  std::unique_lock lock(mutex_);
  auto index = by_index_.find(m.node);
  auto job = jobs_.find(m.id);
  std::string why;
  if (!transport_) why = "the relay has no network";
  else if (index == by_index_.end()) why = strprintf("node %u is not known", m.node);
  else if (nodes_[index->second].row.dead) why = name_of_locked(index->second) + " is dead";
  else if (nodes_[index->second].row.relay.empty()) why = name_of_locked(index->second) + " has no relay";
  else if (job == jobs_.end()) why = "job " + m.id.hex() + " is not known";
  else if (stand_ins_.count(m.spawn)) why = "it is open already";
  if (!why.empty()) {
    lock.unlock();
    return failed(m.spawn, why);
  }
  o.node = index->second;
  Node& n = nodes_[o.node];
  stand_ins_[m.spawn] = std::make_shared<StandIn>(o, this);
  opening_[m.spawn] = steady_ns() + kOpenNs;
  dial(&n);
  Record r;
  if (!std::exchange(n.told[m.id].job, true)) {
    r.kind = Kind::kJob;
    r.job = m.id;
    size_t at = 0;
    do {
      r.bytes = std::string_view(job->second).substr(at, kPart);
      at += r.bytes.size();
      r.more = at < job->second.size();
      send_locked(&n, record(r));
    } while (r.more);
  }
  r = {};
  r.kind = Kind::kLane;
  r.lane = m.spawn;
  r.job = m.id;
  r.language = m.language;
  r.bytes = m.resources;
  send_locked(&n, record(r));
}

void Relay::close(const ControlMessage& m) {
  std::shared_ptr<StandIn> s;
  {
    std::lock_guard lock(mutex_);
    auto it = stand_ins_.find(m.spawn);
    if (it == stand_ins_.end()) return;
    s = it->second;
  }
  if (m.force || !s->opened()) s->end("it is wanted no more");
  else s->leave();
}

void Relay::job_over(const JobId& job) {
  for (auto& s : stand_ins([&](const StandIn& x) { return x.options().job == job; })) s->end("its job is over");
  std::lock_guard lock(mutex_);
  jobs_.erase(job);
  Record r;
  r.kind = Kind::kJobOver;
  r.job = job;
  for (auto& [id, n] : nodes_)
    if (n.told.erase(job)) send_locked(&n, record(r));
}

// Threads that have ended are joined here.
void Relay::reap() {
  std::vector<std::pair<uint64_t, std::string>> stand_ins;
  std::vector<std::shared_ptr<StandIn>> gone;
  std::vector<std::shared_ptr<Gateway>> gateways;
  {
    std::lock_guard lock(mutex_);
    stand_ins.swap(over_stand_ins_);
    for (auto& [spawn, text] : stand_ins) {
      auto it = stand_ins_.find(spawn);
      if (it == stand_ins_.end()) continue;
      gone.push_back(std::move(it->second));
      stand_ins_.erase(it);
    }
    for (Gateway* over : over_gateways_) {
      std::erase_if(lanes_, [&](const auto& l) { return l.second.get() == over; });
      for (auto it = ending_.begin(); it != ending_.end(); ++it)
        if (it->get() == over) {
          gateways.push_back(std::move(*it));
          ending_.erase(it);
          break;
        }
      if (auto it = gateways_.find(over->job()); it != gateways_.end() && it->second.gateway.get() == over) {
        gateways.push_back(std::move(it->second.gateway));
        gateways_.erase(it);
      }
    }
    over_gateways_.clear();
  }
  gone.clear();
  for (auto& [spawn, text] : stand_ins) {
    opening_.erase(spawn);
    failed(spawn, text);
  }
}

void Relay::look_after_opening() {
  const int64_t now = steady_ns();
  for (auto it = opening_.begin(); it != opening_.end();) {
    std::shared_ptr<StandIn> s;
    {
      std::lock_guard lock(mutex_);
      if (auto at = stand_ins_.find(it->first); at != stand_ins_.end()) s = at->second;
    }
    const bool late = s && !s->opened() && now > it->second;
    if (late) s->end(name_of(s->options().node) + " cannot be reached, or does not answer");
    if (late || !s || s->opened()) it = opening_.erase(it);
    else ++it;
  }
}

template <class Fits>
std::vector<std::shared_ptr<StandIn>> Relay::stand_ins(Fits fits) {
  std::vector<std::shared_ptr<StandIn>> out;
  std::lock_guard lock(mutex_);
  for (auto& [spawn, s] : stand_ins_)
    if (fits(*s)) out.push_back(s);
  return out;
}

// The node is dead, or what it knew of us is lost.
void Relay::end_of(const NodeId& node, const std::string& why) {
  for (auto& s : stand_ins([&](const StandIn& x) { return x.options().node == node; })) s->end(why);
  std::vector<JobId> jobs;
  {
    std::lock_guard lock(mutex_);
    if (auto it = nodes_.find(node); it != nodes_.end()) it->second.told.clear();
    std::erase_if(coming_jobs_, [&](const auto& c) { return c.first.first == node; });
    for (auto& [job, served] : gateways_)
      if (served.nodes.count(node)) jobs.push_back(job);
  }
  for (const JobId& job : jobs) no_more_of(node, job);
}

// That node sends no more tasks of the job. When no other does, the job is over here.
void Relay::no_more_of(const NodeId& node, const JobId& job) {
  std::shared_ptr<Gateway> g;
  bool ends = false;
  {
    std::lock_guard lock(mutex_);
    auto it = gateways_.find(job);
    if (it == gateways_.end() || !it->second.nodes.erase(node)) return;
    g = it->second.gateway;
    std::erase_if(lanes_, [&](const auto& l) { return l.first.first == node && l.second == g; });
    ends = it->second.nodes.empty();
    if (ends) {  // should the job come again it gets a new one
      ending_.push_back(g);
      gateways_.erase(it);
    }
  }
  ends ? g->end() : g->node_gone(node);
}

// ---- Host

void Relay::send(const NodeId& to, std::string message) {
  std::lock_guard lock(mutex_);
  if (auto it = nodes_.find(to); it != nodes_.end()) send_locked(&it->second, std::move(message));
}

void Relay::send_locked(Node* n, std::string message) {
  if (n->row.dead || message.empty()) return;
  if (n->peer == 0) return n->waiting.push_back(std::move(message));
  const Status s = transport_->enqueue(n->peer, net::kNormal, std::make_shared<const std::string>(std::move(message)));
  if (!s.ok()) log(kLogError, "relay", "unsent", "%s", s.message().c_str());
}

bool Relay::has_function(const NodeId& to, const JobId& job, uint64_t key) {
  std::lock_guard lock(mutex_);
  if (!jobs_.count(job)) return true;  // it is over: what is sent now is for nobody
  Told& t = nodes_[to].told[job];
  auto it = t.functions.find(key);
  if (it == t.functions.end()) return false;
  t.order.splice(t.order.end(), t.order, it->second);
  return true;
}

void Relay::tell_function(const NodeId& to, const JobId& job, uint64_t key, const FunctionDefinition& d) {
  std::lock_guard lock(mutex_);
  if (!jobs_.count(job)) return;
  Node* n = &nodes_[to];
  Told* t = &n->told[job];
  Record r;
  r.job = job;
  r.kind = Kind::kFunction;
  r.key = key;
  r.language = d.language;
  r.function_kind = d.kind;
  r.name = d.name;
  size_t at = 0;
  do {
    r.bytes = std::string_view(d.definition).substr(at, kPart);
    at += r.bytes.size();
    r.more = at < d.definition.size();
    send_locked(n, record(r));
  } while (r.more);
  if (t->functions.count(key)) return;  // another stand-in was as fast: it is told twice
  t->functions[key] = t->order.insert(t->order.end(), key);
  if (t->order.size() <= kToldFunctions) return;
  r = {};
  r.kind = Kind::kForget;
  r.job = job;
  r.key = t->order.front();
  t->functions.erase(r.key);
  t->order.pop_front();
  send_locked(n, record(r));
}

void Relay::lost_function(const NodeId& to, const JobId& job, uint64_t key) {
  std::lock_guard lock(mutex_);
  if (!jobs_.count(job)) return;
  Told& t = nodes_[to].told[job];
  auto it = t.functions.find(key);
  if (it == t.functions.end()) return;
  t.order.erase(it->second);
  t.functions.erase(it);
}

std::string Relay::name_of_locked(const NodeId& node) {
  if (node == self_.id) return "node " + std::to_string(self_.index) + " (" + node.hex().substr(0, 8) + ")";
  auto it = nodes_.find(node);
  if (it == nodes_.end() || it->second.row.index == UINT32_MAX) return "node " + node.hex().substr(0, 8);
  return "node " + std::to_string(it->second.row.index) + " (" + node.hex().substr(0, 8) + ")";
}

std::string Relay::name_of(const NodeId& node) {
  std::lock_guard lock(mutex_);
  return name_of_locked(node);
}

void Relay::stand_in_over(uint64_t spawn, const std::string& text) {
  {
    std::lock_guard lock(mutex_);
    over_stand_ins_.push_back({spawn, text});
  }
  const uint64_t one = 1;
  (void)!::write(event_.get(), &one, sizeof one);
}

void Relay::gateway_over(Gateway* gateway) {
  {
    std::lock_guard lock(mutex_);
    over_gateways_.push_back(gateway);
  }
  const uint64_t one = 1;
  (void)!::write(event_.get(), &one, sizeof one);
}

// ---- the transport's thread

void Relay::on_up(net::Peer peer, const net::Identity& who, uint32_t) {
  std::lock_guard lock(mutex_);
  Node& n = nodes_[who.node];
  n.row.id = who.node;
  n.peer = peer;
  by_peer_[peer] = who.node;
  for (std::string& message : std::exchange(n.waiting, {})) send_locked(&n, std::move(message));
}

void Relay::on_reset(net::Peer peer) {
  NodeId id;
  {
    std::lock_guard lock(mutex_);
    auto it = by_peer_.find(peer);
    if (it == by_peer_.end()) return;
    id = it->second;
  }
  end_of(id, "the relay of " + name_of(id) + " has ended, and another one was started");
}

void Relay::on_refused(net::Target target, const std::string& why) {
  NodeId id;
  {
    std::lock_guard lock(mutex_);
    auto it = by_target_.find(target);
    if (it == by_target_.end()) return;
    id = it->second;
  }
  log(kLogWarning, "relay", "refused", "%s: %s", name_of(id).c_str(), why.c_str());
  for (auto& s : stand_ins([&](const StandIn& x) { return x.options().node == id && !x.opened(); }))
    s->end(name_of(id) + " cannot be reached: " + why);
}

void Relay::on_message(net::Peer peer, net::Lane lane, std::string message) {
  NodeId from;
  {
    std::lock_guard lock(mutex_);
    auto it = by_peer_.find(peer);
    if (it != by_peer_.end()) from = it->second;
  }
  const uint64_t size = message.size();
  if (!from.is_nil()) {
    const auto kept = std::make_shared<const std::string>(std::move(message));
    RecordReader reader(*kept);
    Record r;
    while (reader.next(&r)) dispatch(from, r, kept);
    if (!reader.status().ok()) {
      log(kLogError, "relay", "bad-message", "%s: %s", name_of(from).c_str(), reader.status().message().c_str());
      refuse_lanes_of(from, "what " + name_of(from) + " sent is not understood by " + name_of(self_.id) +
                                ": the log of its relay has the reason; are both of the same version?");
      end_of(from, name_of(from) + " sent what nobody understands");
    }
  }
  transport_->consumed(peer, lane, size);
}

// The session stays, so that node would wait for the answers to what it has sent.
void Relay::refuse_lanes_of(const NodeId& node, const std::string& why) {
  std::lock_guard lock(mutex_);
  Record r;
  r.kind = Kind::kLaneOver;
  r.code = RAY_INTERNAL;
  r.bytes = why;
  for (auto it = lanes_.lower_bound({node, 0}); it != lanes_.end() && it->first.first == node; ++it) {
    r.lane = it->first.second;
    send_locked(&nodes_[node], record(r));
  }
}

void Relay::dispatch(const NodeId& from, const Record& r, const std::shared_ptr<const std::string>& message) {
  if (r.kind >= Kind::kLaneOpen) return answered(from, r, message);
  if (r.kind == Kind::kJob) return take_job(from, r);
  if (r.kind == Kind::kLane) return take_lane(from, r, message);
  std::shared_ptr<Gateway> g;
  {
    std::lock_guard lock(mutex_);
    if (r.kind == Kind::kFunction || r.kind == Kind::kForget || r.kind == Kind::kJobOver) {
      if (auto it = gateways_.find(r.job); it != gateways_.end()) g = it->second.gateway;
    } else if (auto it = lanes_.find({from, r.lane}); it != lanes_.end()) {
      g = it->second;
      if (r.kind == Kind::kUnlane) lanes_.erase(it);
    }
  }
  if (r.kind == Kind::kJobOver) return no_more_of(from, r.job);
  if (g) g->on_record(from, r, message);
}

void Relay::answered(const NodeId& from, const Record& r, const std::shared_ptr<const std::string>& message) {
  std::shared_ptr<StandIn> s;
  {
    std::lock_guard lock(mutex_);
    auto it = stand_ins_.find(r.lane);
    if (it == stand_ins_.end() || it->second->options().node != from) return;
    s = it->second;
    // It may have forgotten the job: the next one that is opened there says all of it again.
    if (r.kind == Kind::kLaneOver && jobs_.count(s->options().job)) nodes_[from].told[s->options().job].job = false;
  }
  s->on_record(r, message);
}

// It has ended, and the main thread has not joined it yet. mutex_ held.
bool Relay::is_over(const Gateway& g) const {
  return std::find(over_gateways_.begin(), over_gateways_.end(), &g) != over_gateways_.end();
}

void Relay::take_job(const NodeId& from, const Record& r) {
  std::shared_ptr<Gateway> fresh;
  {
    std::lock_guard lock(mutex_);
    if (nodes_[from].row.dead) return;  // its last words, after whatever it had here was ended
    const std::pair<NodeId, JobId> id{from, r.job};
    if (!coming_jobs_.count(id) && coming_jobs_.size() >= kComingJobs) return;
    std::string& body = coming_jobs_[id];
    if (body.size() <= kMaxJob) body.append(r.bytes);
    if (r.more) return;
    const std::string whole = std::move(body);
    coming_jobs_.erase(id);
    if (whole.size() > kMaxJob) return;
    Served& s = gateways_[r.job];
    if (!s.gateway && gateways_.size() > kMaxGateways) {
      gateways_.erase(r.job);
      return;  // its lanes are told that it is not here
    }
    if (s.gateway && is_over(*s.gateway)) ending_.push_back(std::exchange(s, {}).gateway);
    if (!s.gateway) s.gateway = fresh = std::make_shared<Gateway>(r.job, session_, whole, this);
    s.nodes.insert(from);
  }
  if (!fresh) return;
  if (Status s = fresh->begin(); !s.ok()) {
    log(kLogError, "relay", "no-gateway", "%s", s.message().c_str());
    gateway_over(fresh.get());
  }
}

void Relay::take_lane(const NodeId& from, const Record& r, const std::shared_ptr<const std::string>& message) {
  std::shared_ptr<Gateway> g;
  {
    std::lock_guard lock(mutex_);
    auto it = gateways_.find(r.job);
    if (it != gateways_.end() && it->second.nodes.count(from) && !is_over(*it->second.gateway)) g = it->second.gateway;
    if (lanes_.size() >= kMaxLanes) g.reset();
    if (g) lanes_[{from, r.lane}] = g;
  }
  if (g) return g->on_record(from, r, message);
  Record back;
  back.kind = Kind::kLaneOver;
  back.lane = r.lane;
  back.code = RAY_UNAVAILABLE;
  const std::string text =
      "job " + r.job.hex() + " cannot run on " + name_of(self_.id) + " now: the log of its relay has the reason";
  back.bytes = text;
  send(from, record(back));
}

}  // namespace ray::relay
