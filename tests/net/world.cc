// See world.h.
#include "tests/net/world.h"

#include <algorithm>

#include "libray/wire/msgpack.h"

namespace ray::net {

namespace {
constexpr int64_t kStep = 1'000'000;  // 1 ms
}

World::World(uint64_t seed, const Options& options) : options_(options), rng_(seed), nodes_(options.nodes) {
  for (uint32_t i = 0; i < options.nodes; ++i) {
    nodes_[i].who.node.b[0] = static_cast<uint8_t>(i + 1);
    boot(i);
  }
  for (uint32_t i = 0; i < options.nodes; ++i) dial(i);
}

void World::boot(uint32_t i) {
  Node& n = nodes_[i];
  ++n.who.epoch;
  n.who.incarnation = next_incarnation_++;
  n.full.clear();
  n.endpoint = std::make_unique<Endpoint>(n.who, "the token", [this] { return rng_(); }, options_.endpoint);
}

// Node i dials those before it, or all.
void World::dial(uint32_t i) {
  Node& n = nodes_[i];
  Actions actions;
  for (uint32_t other = 0; other < nodes_.size(); ++other)
    if (other < i || (options_.both_dial && other != i))
      n.endpoint->dial(other + 1, std::to_string(other), 0, now_, &actions);
  apply(i, actions);
}

void World::apply(uint32_t node, Actions& actions) {
  for (Action& a : actions) switch (a.kind) {
      case Action::kDial: connect(node, a); break;
      case Action::kWrite: write(node, a); break;
      case Action::kClose: shut(node, a.conn); break;
      case Action::kDeliver: deliver(node, a); break;
      case Action::kUp: ++ups_; break;
      case Action::kWritable: nodes_[node].full[a.peer][a.lane] = false; break;
      case Action::kReset: nodes_[node].full[a.peer].clear(); break;
      case Action::kRefused:
      case Action::kDown: break;
      case Action::kLog: ++logged_; break;
    }
}

void World::connect(uint32_t node, const Action& a) {
  const uint32_t other = static_cast<uint32_t>(std::stoul(a.text));
  Actions mine, theirs;
  if (nodes_[other].paused_until > now_ + 1'000'000'000 && random(2)) {
    nodes_[node].endpoint->dial_failed(a.target, "refused", now_, &mine);
    return apply(node, mine);
  }
  auto p = std::make_unique<Pipe>();
  for (int side = 0; side < 2; ++side) {
    p->conn[side] = next_conn_++;
    p->node[side] = side == 0 ? node : other;
    p->incarnation[side] = nodes_[p->node[side]].who.incarnation;
  }
  const Conn own = p->conn[0], peer = p->conn[1];
  pipes_.push_back(std::move(p));
  nodes_[other].endpoint->accepted(peer, "node " + std::to_string(node), now_, &theirs);
  apply(other, theirs);
  nodes_[node].endpoint->dialled(a.target, own, now_, &mine);
  apply(node, mine);
}

void World::write(uint32_t node, const Action& a) {
  for (auto& p : pipes_)
    for (int side = 0; side < 2; ++side) {
      if (p->conn[side] != a.conn || p->node[side] != node || p->closed[side]) continue;
      std::string bytes;
      for (const Piece& piece : a.pieces) bytes += piece.head + (piece.body ? *piece.body : "");
      auto& wire = p->wire[side];
      int64_t at = now_ + static_cast<int64_t>(random(5)) * kStep;
      if (!wire.flying.empty()) at = std::max(at, wire.flying.back().first);
      while (!bytes.empty()) {  // as a stream arrives: cut anywhere
        const size_t n = random(4) ? bytes.size() : 1 + random(bytes.size());
        wire.flying.push_back({at, bytes.substr(0, n)});
        bytes.erase(0, n);
      }
      return;
    }
}

void World::shut(uint32_t node, Conn conn) {
  for (auto& p : pipes_)
    for (int side = 0; side < 2; ++side)
      if (p->conn[side] == conn && p->node[side] == node) {
        p->closed[side] = true;
        p->wire[side].end = true;
        p->wire[side].end_at = now_ + kStep;
      }
}

void World::deliver(uint32_t node, const Action& a) {
  Node& n = nodes_[node];
  wire::Reader r(a.text);
  uint32_t size;
  uint64_t from, to, number;
  if (!r.array(&size) || !r.uint64(&from) || !r.uint64(&to) || !r.uint64(&number)) return fail("a message is damaged");
  if (to != n.who.incarnation) return fail("a message for another incarnation");
  if (n.endpoint->find(a.peer)->incarnation != from) return fail("a message of another incarnation");
  const FlowKey key{from, to, a.lane};
  Flow& f = flows_[key];
  if (number != f.received + 1)
    return fail("message " + std::to_string(number) + " after " + std::to_string(f.received));
  f.received = number;
  f.waiting += a.text.size() + kHeadSize;
  if (f.waiting > options_.endpoint.session.window[a.lane] + (256 << 10)) fail("more arrived than was granted");
  ++delivered_;
  const int64_t wait = options_.slow_consumers ? static_cast<int64_t>(random(200)) * kStep : 0;
  later_.push_back({now_ + wait, node, n.who.incarnation, a.peer, a.lane, a.text.size(), key});
}

// Bytes that are due arrive; a stream's end comes behind them.
void World::move(Pipe& p) {
  for (int side = 0; side < 2; ++side) {
    Wire& w = p.wire[side];
    const int to = 1 - side;
    Node& n = nodes_[p.node[to]];
    if (n.paused_until > now_) continue;
    const bool gone = p.closed[to] || p.incarnation[to] != n.who.incarnation;
    bool sent = false;
    while (!w.flying.empty() && w.flying.front().first <= now_ && !p.silent) {
      const std::string bytes = std::move(w.flying.front().second);
      w.flying.pop_front();
      sent = true;
      if (gone || p.closed[to]) continue;
      Actions actions;
      n.endpoint->received(p.conn[to], bytes, now_, &actions);
      apply(p.node[to], actions);
    }
    Node& writer = nodes_[p.node[side]];
    if (sent && w.flying.empty() && !p.closed[side] && p.incarnation[side] == writer.who.incarnation) {
      Actions actions;
      writer.endpoint->written(p.conn[side], now_, &actions);
      apply(p.node[side], actions);
    }
    if (w.end && w.flying.empty() && now_ >= w.end_at && !p.closed[to] && !p.silent) {
      p.closed[to] = true;
      if (gone) continue;
      Actions actions;
      n.endpoint->closed(p.conn[to], "closed by the other side", now_, &actions);
      apply(p.node[to], actions);
    }
  }
}

void World::talk() {
  for (uint32_t i = 0; i < nodes_.size(); ++i) {
    Node& n = nodes_[i];
    if (n.paused_until > now_) continue;
    for (Peer peer = 1; peer < 20; ++peer) {
      if (!n.endpoint->is_up(peer)) continue;
      const uint64_t to = n.endpoint->find(peer)->incarnation;
      for (uint64_t k = random(4); k > 0; --k) {
        const Lane lane = random(5) ? kNormal : kUrgent;
        if (n.full[peer][lane]) continue;
        wire::Packer text;
        text.array(4).uint64(n.who.incarnation).uint64(to).uint64(++flows_[{n.who.incarnation, to, lane}].sent);
        text.bin(std::string(random(20) ? random(300) : random(200000), 'x'));
        Actions actions;
        n.full[peer][lane] = !n.endpoint->enqueue(peer, lane, std::make_shared<std::string>(text.bytes()), now_, &actions);
        apply(i, actions);
      }
    }
  }
}

void World::harm() {
  if (options_.cuts && !pipes_.empty() && random(60) == 0) {
    Pipe& p = *pipes_[random(pipes_.size())];
    for (Wire& w : p.wire) {
      w.flying.clear();  // what was on its way is lost with it
      w.end = true;
      w.end_at = now_;
    }
  }
  if (options_.silent_cuts && !pipes_.empty() && random(500) == 0) pipes_[random(pipes_.size())]->silent = true;
  if (options_.pauses && random(2000) == 0)
    nodes_[random(nodes_.size())].paused_until = now_ + static_cast<int64_t>(random(10000)) * kStep;
  if (options_.restarts && random(2000) == 0) {
    const uint32_t i = static_cast<uint32_t>(random(nodes_.size()));
    for (auto& p : pipes_)
      for (int side = 0; side < 2; ++side)
        if (p->node[side] == i && !p->closed[side]) shut(i, p->conn[side]);
    nodes_[i].paused_until = 0;
    boot(i);
    dial(i);
  }
}

void World::step() {
  now_ += kStep;
  for (size_t i = 0; i < pipes_.size(); ++i) move(*pipes_[i]);
  std::erase_if(pipes_, [](auto& p) { return p->closed[0] && p->closed[1]; });
  for (auto it = later_.begin(); it != later_.end();) {
    Node& n = nodes_[it->node];
    if (it->at > now_ || n.paused_until > now_) {
      ++it;
      continue;
    }
    flows_[it->flow].waiting -= it->bytes + kHeadSize;
    const Later l = *it;
    it = later_.erase(it);
    Actions actions;
    if (n.who.incarnation == l.incarnation && n.endpoint->find(l.peer)->incarnation == std::get<0>(l.flow))
      n.endpoint->consumed(l.peer, l.lane, l.bytes, now_, &actions);
    apply(l.node, actions);
    it = later_.begin();
  }
  for (uint32_t i = 0; i < nodes_.size(); ++i) {
    if (nodes_[i].paused_until > now_ || nodes_[i].endpoint->deadline() > now_) continue;
    Actions actions;
    nodes_[i].endpoint->tick(now_, &actions);
    apply(i, actions);
  }
  if (harmful_) talk(), harm();
}

void World::run(int64_t ns) {
  for (const int64_t until = now_ + ns; now_ < until && wrong_.empty();) step();
}

void World::calm(int64_t ns) {
  harmful_ = false;
  for (Node& n : nodes_) n.paused_until = 0;
  run(ns);
}

std::string World::verdict() {
  if (!wrong_.empty()) return wrong_;
  std::set<uint64_t> alive;
  for (Node& n : nodes_) alive.insert(n.who.incarnation);
  for (auto& [key, f] : flows_) {
    auto& [from, to, lane] = key;
    if (alive.count(from) && alive.count(to) && f.received != f.sent)
      return "lane " + std::to_string(lane) + " from " + std::to_string(from) + " to " + std::to_string(to) + ": " +
             std::to_string(f.received) + " of " + std::to_string(f.sent) + " messages arrived";
  }
  return "";
}

}  // namespace ray::net
