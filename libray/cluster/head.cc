// See head.h.
#include "libray/cluster/head.h"

#include <algorithm>
#include <utility>

namespace ray::cluster {

namespace {

constexpr size_t kPartBytes = 512 << 10;  // of a table: little enough that heartbeats travel between parts

double seconds(int64_t ns) { return static_cast<double>(ns) / 1e9; }

void say(std::string text, HeadActions* out) {
  HeadAction a{HeadAction::kLog};
  a.text = std::move(text);
  out->push_back(std::move(a));
}

Message about(Kind kind, std::string text, int32_t code = RAY_OK) {
  Message m;
  m.kind = kind;
  m.text = std::move(text);
  m.code = code;
  return m;
}

}  // namespace

Head::Head(About self, const Id& cluster, const HeadOptions& options, int64_t now, HeadActions* out)
    : cluster_(cluster), options_(options) {
  Known& k = nodes_[next_];
  k.row.index = next_++;
  k.row.epoch = ++view_;
  k.row.since_ns = now + options_.wall_offset_ns;
  k.row.about = std::move(self);
  by_id_[k.row.about.id] = k.row.index;
  changed(k, out);
  changed_.clear();  // there is nobody to tell
  ticked_at_ = now;
}

const Row* Head::find(NodeIndex node) const {
  auto it = nodes_.find(node);
  return it == nodes_.end() ? nullptr : &it->second.row;
}

const Load* Head::load(NodeIndex node) const {
  auto it = nodes_.find(node);
  return it == nodes_.end() || it->second.row.state == State::kDead ? nullptr : &it->second.load;
}

std::vector<Row> Head::rows() const {
  std::vector<Row> out;
  for (const auto& [index, k] : nodes_) out.push_back(k.row);
  return out;
}

Head::Known* Head::known(const NodeId& id) {
  auto it = by_id_.find(id);
  return it == by_id_.end() ? nullptr : &nodes_.at(it->second);
}

void Head::send_to(Peer peer, const Message& m, HeadActions* out) {
  HeadAction a{HeadAction::kSend};
  a.peer = peer;
  a.urgent = m.kind != Kind::kRequest && m.kind != Kind::kAnswer;
  a.text = encode(m);
  out->push_back(std::move(a));
}

void Head::changed(const Known& k, HeadActions* out) {
  changed_.insert(k.row.index);
  HeadAction a{HeadAction::kRow};
  a.row = k.row;
  out->push_back(std::move(a));
}

// A living node has been told of every change since it joined: sessions lose nothing while it lives.
void Head::publish(HeadActions* out) {
  if (changed_.empty()) return;
  std::vector<Row> rows;
  std::vector<Peer> to;
  for (NodeIndex index : changed_) rows.push_back(nodes_.at(index).row);
  for (NodeIndex index : living_) to.push_back(nodes_.at(index).peer);
  changed_.clear();
  Message last;
  last.kind = Kind::kTable;
  send_table(to, rows, std::move(last), out);
}

// In as many parts as it takes; `last` has the rest.
void Head::send_table(const std::vector<Peer>& to, const std::vector<Row>& rows, Message last, HeadActions* out) const {
  Message part;
  part.kind = Kind::kTable;
  size_t bytes = 0;
  for (const Row& row : rows) {
    const size_t more = encoded_size(row.about) + row.cause.size();
    if (bytes + more > kPartBytes && !part.rows.empty()) {
      for (Peer peer : to) send_to(peer, part, out);
      part.rows.clear();
      bytes = 0;
    }
    bytes += more;
    part.rows.push_back(row);
  }
  last.rows = std::move(part.rows);
  for (Peer peer : to) send_to(peer, last, out);
}

// ---- of the transport

void Head::on_up(Peer peer, const NodeId& who, int64_t now, HeadActions* out) {
  peers_[peer] = who;
  Known* k = known(who);
  if (!k) return;  // it will say that it joins
  if (k->row.state == State::kDead) return say_fenced(*k, peer, out);
  k->up = true;
  k->peer = peer;
  k->heard = now;
}

void Head::on_down(Peer peer, int64_t now, HeadActions*) {
  auto it = peers_.find(peer);
  if (it == peers_.end()) return;
  Known* k = known(it->second);
  peers_.erase(it);
  if (!k || k->row.state == State::kDead) return;
  k->up = false;
  k->down_at = now;
}

void Head::on_message(Peer peer, Message m, int64_t now, HeadActions* out) {
  auto it = peers_.find(peer);
  if (it == peers_.end()) return;
  const NodeId who = it->second;
  Known* k = known(who);
  if (k && k->row.state == State::kDead) return say_fenced(*k, peer, out);
  if (m.kind == Kind::kJoin) return join(peer, who, std::move(m.about), now, out);
  if (!k) return send_to(peer, about(Kind::kRefused, "this node has not joined", RAY_WRONG_STATE), out);
  const bool own = m.index == k->row.index && m.epoch == k->row.epoch;
  switch (m.kind) {
    case Kind::kBeat:
      if (own) beat(k, m, now, out);
      break;
    case Kind::kLeave:
      if (own) die(k, m.text.substr(0, kMaxCause), now, out), publish(out);
      break;
    case Kind::kRelay:
      if (own) relay(k, m.text, out);
      break;
    case Kind::kRequest:
    case Kind::kAnswer: route(k, std::move(m), out); break;
    default: say(strprintf("node %u said what only the head says", k->row.index), out);
  }
}

void Head::join(Peer peer, const NodeId& who, About self, int64_t now, HeadActions* out) {
  Known* k = known(who);
  std::string no;
  const size_t size = encoded_size(self);
  if (self.id != who) no = "the node gives itself another id than its connection has";
  else if (size > kMaxAbout)
    no = strprintf("what it says of itself (resources, labels, names) has %zu bytes, and %zu are the most", size, kMaxAbout);
  else if (ended_) no = "the head is ending";
  else if (!k && living_.size() >= options_.max_nodes) no = strprintf("the cluster has %u nodes already", options_.max_nodes);
  if (!no.empty()) {
    say("refused a node: " + no, out);
    return send_to(peer, about(Kind::kRefused, no, RAY_WRONG_STATE), out);
  }
  if (!k) {
    k = &nodes_[next_];
    k->row.index = next_++;
    k->row.epoch = ++view_;
    k->row.since_ns = now + options_.wall_offset_ns;
    k->row.about = std::move(self);
    by_id_[who] = k->row.index;
    changed(*k, out);
    Load load;
    load.available = k->row.about.resources;
    take_load(k, std::move(load), out);
    publish(out);  // before it is one of the living: the welcome says the same
    living_.insert(k->row.index);
    say(strprintf("node %u joined: %s on %s", k->row.index, k->row.about.address.c_str(), k->row.about.host.c_str()), out);
  }
  k->up = true;
  k->peer = peer;
  k->heard = now;
  Message m;
  m.kind = Kind::kWelcome;
  m.index = k->row.index, m.epoch = k->row.epoch, m.cluster = cluster_;
  send_table({peer}, rows(), std::move(m), out);
}

void Head::beat(Known* k, const Message& m, int64_t now, HeadActions* out) {
  k->heard = now;
  if (m.number <= k->beat) return;
  k->beat = m.number;
  const bool back = std::exchange(k->row.silent, false);
  if (back) changed(*k, out);
  take_load(k, m.load, out);
  if (back) publish(out);
}

// Of what it does not have, nothing is kept.
void Head::take_load(Known* k, Load load, HeadActions* out) {
  for (wire::Resources* amounts : {&load.available, &load.held, &load.queued})
    std::erase_if(*amounts, [k](const auto& a) { return !k->row.about.resources.count(a.first); });
  k->load = std::move(load);
  HeadAction a{HeadAction::kLoad};
  a.node = k->row.index;
  out->push_back(std::move(a));
}

// A relay is started again when it dies, and then listens elsewhere.
void Head::relay(Known* k, const std::string& address, HeadActions* out) {
  if (address.size() > kMaxRelay) return say(strprintf("node %u gives its relay an address that is too long", k->row.index), out);
  if (k->row.about.relay == address) return;
  k->row.about.relay = address;
  changed(*k, out);
  publish(out);
}

// Requests and answers of a node: for this one, or handed on to the one that they are for.
void Head::route(Known* k, Message m, HeadActions* out) {
  m.from = k->row.index;
  pass(std::move(m), out);
}

void Head::pass(Message m, HeadActions* out) {
  if (m.to == kHead) {
    HeadAction a{m.kind == Kind::kRequest ? HeadAction::kServe : HeadAction::kAnswer};
    a.message = std::move(m);
    out->push_back(std::move(a));
    return;
  }
  if (living_.count(m.to)) return send_to(nodes_.at(m.to).peer, m, out);
  if (m.kind == Kind::kAnswer) return;
  Message no = about(Kind::kAnswer, strprintf("node %u is not alive", m.to), RAY_NODE_DIED);
  no.from = m.to, no.to = m.from, no.number = m.number;
  pass(std::move(no), out);
}

// ---- death

void Head::say_fenced(const Known& k, Peer peer, HeadActions* out) {
  Message m = about(Kind::kFenced, k.row.cause);
  m.epoch = k.row.epoch;
  send_to(peer, m, out);
}

void Head::die(Known* k, const std::string& cause, int64_t now, HeadActions* out) {
  k->row.state = State::kDead;
  k->row.silent = false;
  k->row.died = ++view_;
  k->row.cause = cause;
  k->row.since_ns = now + options_.wall_offset_ns;
  k->load = Load{};
  k->forget_at = now + options_.forget_ns;
  living_.erase(k->row.index);
  dead_.emplace(k->row.died, k->row.index);
  dying_.insert(k->row.index);
  changed(*k, out);
  if (k->up) say_fenced(*k, k->peer, out);
}

// Of the dead that nobody answers any more the rows of the oldest deaths go. The others do the same with what they have.
void Head::trim_dead() {
  while (dead_.size() > options_.max_dead) {
    const NodeIndex oldest = dead_.begin()->second;
    if (dying_.count(oldest)) return;  // and so are all that died later
    by_id_.erase(nodes_.at(oldest).row.about.id);
    nodes_.erase(oldest);
    dead_.erase(dead_.begin());
  }
}

// ---- this node

void Head::set_load(Load load, HeadActions* out) { take_load(&nodes_.at(kHead), std::move(load), out); }

void Head::set_relay(const std::string& address, HeadActions* out) { relay(&nodes_.at(kHead), address, out); }

void Head::drain(NodeIndex node, int64_t now, HeadActions* out) {
  auto it = nodes_.find(node);
  if (it == nodes_.end() || it->second.row.state != State::kAlive) return;
  it->second.row.state = State::kDraining;
  it->second.row.since_ns = now + options_.wall_offset_ns;
  changed(it->second, out);
  publish(out);
}

void Head::end(const std::string& why, HeadActions* out) {
  ended_ = true;
  for (NodeIndex index : living_) send_to(nodes_.at(index).peer, about(Kind::kEnding, why), out);
}

// ---- time

void Head::look(Known* k, int64_t now, HeadActions* out) {
  if (!k->up && now - k->down_at >= options_.grace_ns)
    return die(k, strprintf("its connection ended, and it did not come back within %.1f s", seconds(options_.grace_ns)),
               now, out);
  if (now - k->heard >= options_.dead_ns)
    return die(k, strprintf("nothing was heard of it for %.1f s", seconds(options_.dead_ns)), now, out);
  if (now - k->heard < options_.quiet_ns || k->row.silent) return;
  k->row.silent = true;
  changed(*k, out);
}

void Head::tick(int64_t now, HeadActions* out) {
  const bool paused = now - ticked_at_ > options_.pause_ns;
  ticked_at_ = now;
  const std::vector<NodeIndex> living(living_.begin(), living_.end());
  for (NodeIndex index : living) {
    Known& k = nodes_.at(index);
    if (paused) k.heard = now, k.down_at = now;  // its words may lie in a buffer of this process
    look(&k, now, out);
  }
  publish(out);
  const std::vector<NodeIndex> dying(dying_.begin(), dying_.end());
  for (NodeIndex index : dying) {
    if (now < nodes_.at(index).forget_at) continue;
    dying_.erase(index);
    HeadAction a{HeadAction::kForget};
    a.id = nodes_.at(index).row.about.id;
    out->push_back(std::move(a));
  }
  trim_dead();
}

int64_t Head::deadline() const {
  if (living_.empty() && dying_.empty()) return INT64_MAX;
  int64_t at = INT64_MAX;
  for (NodeIndex index : dying_) at = std::min(at, nodes_.at(index).forget_at);
  for (NodeIndex index : living_) {
    const Known& k = nodes_.at(index);
    if (!k.up) at = std::min(at, k.down_at + options_.grace_ns);
    at = std::min(at, k.heard + (k.row.silent ? options_.dead_ns : options_.quiet_ns));
  }
  return living_.empty() ? at : std::min(at, ticked_at_ + options_.pause_ns / 2);  // a late tick shows a pause
}

}  // namespace ray::cluster
