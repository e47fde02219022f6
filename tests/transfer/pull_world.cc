// See pull_world.h.
#include "tests/transfer/pull_world.h"

#include <algorithm>

namespace ray::transfer {

namespace {
constexpr int64_t kMs = 1'000'000;
constexpr int64_t kSecond = 1000 * kMs;
}  // namespace

PullWorld::Options PullWorld::small() {
  Options o;
  o.pull.chunk = o.serve.chunk = 256;
  o.pull.inline_max = o.serve.inline_max = 64;
  o.pull.window = 1024;
  o.serve.flying = 16;
  o.serve.disk = 3;
  return o;
}

PullWorld::PullWorld(uint64_t seed, const Options& options) : options_(options), rng_(seed), nodes_(options.nodes) {
  for (uint32_t i = 0; i < options.nodes; ++i) boot(i, 1);
  for (uint32_t a = 0; a < options.nodes; ++a)
    for (uint32_t b = a + 1; b < options.nodes; ++b)
      for (uint32_t c = 0; c < options.channels; ++c) connect(a, b, c);
  if (!options.requests) return;
  for (uint32_t i = 0; i < options.objects; ++i) {
    const uint64_t size = random(4) ? random(options.largest) : random(100);
    const Copy copy = object(static_cast<uint32_t>(random(options.nodes)), size);
    if (random(2)) {  // a second copy, or another making with other bytes of the same length
      Copy other = copy;
      if (random(2)) other.making = 2;
      if (!contents_.count(other)) {
        contents_[other] = std::string(size, '?');
        for (char& c : contents_[other]) c = static_cast<char>(rng_());
        copies_.push_back(other);
      }
      Node& n = nodes_[random(options.nodes)];
      n.stored[other].bytes = content(other);
      directory_[other].insert(n.place);
    }
  }
}

void PullWorld::boot(uint32_t node, uint32_t epoch) {
  Node& n = nodes_[node];
  n = Node{};
  n.place = {node + 1, epoch};
  n.room = options_.room;
  PullOptions pull = options_.pull;
  if (options_.fault == kWideWindow) pull.window *= 3;
  const uint64_t room = options_.fault == kMoreRoom ? 3 * options_.room : options_.room;
  n.planner = std::make_unique<Planner>(n.place, room, room, pull);
  n.server = std::make_unique<Server>(options_.serve);
}

PullWorld::Node* PullWorld::living(Place place) {
  Node& n = nodes_[place.node - 1];
  return n.place == place && n.alive ? &n : nullptr;
}

// When the node lives then; while it stands still, later.
void PullWorld::at_node(int64_t time, Place place, std::function<void(Node&)> what) {
  at(time, [this, place, what = std::move(what)]() mutable {
    Node* n = living(place);
    if (!n) return;
    if (n->paused_until > now_) return at_node(n->paused_until, place, std::move(what));
    what(*n);
    schedule_tick(*n);
    check(*n);
  });
}

void PullWorld::schedule_tick(Node& n) {
  const int64_t due = std::max(std::min(n.planner->deadline(), n.server->deadline()), now_ + kMs);
  if (due >= n.ticking_at || due > now_ + 1000 * kSecond) return;
  n.ticking_at = due;
  at_node(due, n.place, [this](Node& node) {
    node.ticking_at = INT64_MAX;
    PullActions pulls;
    ServeActions serves;
    node.planner->tick(now_, &pulls);
    apply(node, pulls);
    node.server->tick(now_, &serves);
    apply(node, serves);
  });
}

// ---- connections

PullWorld::Connection& PullWorld::connection(uint32_t a, uint32_t b, uint32_t channel) {
  return connections_[{std::min(a, b), std::max(a, b), channel}];
}

void PullWorld::connect(uint32_t a, uint32_t b, uint32_t channel) {
  Connection& c = connection(a, b, channel);
  ++c.serial;
  c.up = true;
  for (auto [here, there] : {std::pair{a, b}, {b, a}}) {
    const Place peer = nodes_[there].place;
    at_node(now_, nodes_[here].place, [this, peer, channel](Node& n) {
      if (!living(peer)) return;
      PullActions out;
      n.planner->up(peer, channel, now_, &out);
      apply(n, out);
    });
  }
}

// What is under way is lost, and both sides hear of it.
void PullWorld::cut(uint32_t a, uint32_t b, uint32_t channel, int64_t back_ns) {
  Connection& c = connection(a, b, channel);
  if (!c.up) return;
  c.up = false;
  const uint64_t serial = ++c.serial;
  c.flying[0] = c.flying[1] = 0;
  for (auto [here, there] : {std::pair{a, b}, {b, a}}) {
    const Place peer = nodes_[there].place;
    at_node(now_, nodes_[here].place, [this, peer, channel](Node& n) {
      PullActions out;
      ServeActions serve;
      n.planner->down(peer, channel, now_, &out);
      apply(n, out);
      n.server->down(peer, channel, now_, &serve);
      apply(n, serve);
    });
  }
  at(now_ + back_ns, [this, a, b, channel, serial] {
    if (nodes_[a].alive && nodes_[b].alive && connection(a, b, channel).serial == serial) connect(a, b, channel);
  });
}

// A chunk (with a ticket) waits for connection and link; what is short overtakes it.
void PullWorld::post(Node& from, Place to, uint32_t channel, std::string bytes, uint64_t ticket) {
  const uint32_t a = from.place.node - 1, b = to.node - 1;
  Connection& c = connection(a, b, channel);
  const int side = a < b ? 0 : 1;
  const Place sender = from.place;
  int64_t leaves = now_, arrives;
  if (ticket) {
    const double size = static_cast<double>(bytes.size()), second = 1e9;
    c.free[side] = std::max(c.free[side], static_cast<double>(now_)) + size / options_.connection_rate * second;
    from.out_free = std::max(from.out_free, static_cast<double>(now_)) + size / options_.node_rate * second;
    const double out = std::max(c.free[side], from.out_free);
    Node& receiver = nodes_[b];
    receiver.in_free = std::max(receiver.in_free + size / options_.node_rate * second, out);
    leaves = static_cast<int64_t>(out);
    arrives = static_cast<int64_t>(receiver.in_free) + options_.delay_ns;
    from.bytes_out += bytes.size();
    const uint32_t limit = options_.serve.window;
    if (c.up && ++c.flying[side] > limit) fail("more chunks on their way than a connection's window");
    const uint64_t serial = c.serial;
    at_node(leaves, sender, [this, a, b, channel, side, serial, ticket](Node& n) {
      Connection& line = connection(a, b, channel);
      if (line.serial == serial) --line.flying[side];
      ServeActions out_actions;
      n.server->sent(ticket, true, now_, &out_actions);
      apply(n, out_actions);
    });
  } else {
    const int64_t more = options_.doubles ? static_cast<int64_t>(random(2 * kMs)) : 0;
    arrives = std::max(now_ + options_.delay_ns + more, c.control[side]);
    c.control[side] = arrives;
  }
  if (!c.up || !living(to) || (options_.fault == kSwallow && ticket && random(10) == 0)) return;
  for (int again = options_.doubles && random(20) == 0 ? 2 : 1; again > 0; --again) {
    const int64_t time = again == 2 ? arrives + static_cast<int64_t>(random(50 * kMs)) : arrives;
    at_node(time, to, [this, sender, channel, bytes, serial = c.serial](Node& n) {
      if (connection(sender.node - 1, n.place.node - 1, channel).serial == serial) deliver(n, sender, channel, bytes);
    });
  }
}

void PullWorld::deliver(Node& n, Place from, uint32_t channel, const std::string& bytes) {
  Message m;
  const Status s = decode(bytes, &m);
  if (!s.ok()) return fail("a message that cannot be read: " + s.message());
  PullActions pulls;
  ServeActions serves;
  if (m.kind == Kind::kAsk || m.kind == Kind::kStop) n.server->message(from, channel, m, now_, &serves);
  else n.planner->message(from, channel, m, now_, &pulls);
  if (m.kind == Kind::kChunk && std::none_of(pulls.begin(), pulls.end(), [](auto& a) { return a.kind == PullAction::kWrite; }))
    ++repeated_;
  apply(n, pulls);
  apply(n, serves);
}

// ---- what planner and server want

void PullWorld::apply(Node& n, PullActions& actions) {
  for (size_t i = 0; i < actions.size(); ++i) apply_one(n, actions[i]);
}

void PullWorld::apply_one(Node& n, const PullAction& a) {
  ServeActions serve;
  const Copy copy = a.copy;
  switch (a.kind) {
    case PullAction::kPin:
      return at_node(now_, n.place, [this, copy](Node& node) {
        PullActions out;
        auto it = node.stored.find(copy);
        if (it != node.stored.end()) ++it->second.planner_pins;
        if (it != node.stored.end()) node.planner->pinned(copy, it->second.bytes.size(), now_, &out);
        else node.planner->absent(copy, now_, &out);
        apply(node, out);
      });
    case PullAction::kUnpin:
      if (!n.stored.count(copy) || --n.stored[copy].planner_pins < 0) fail("an unpin of what is not pinned");
      return;
    case PullAction::kCreate:
      if (n.partial.count(copy)) fail("created twice");
      n.partial[copy] = std::string(a.size, '\0');
      n.server->started(copy, a.size, now_, &serve);
      return apply(n, serve);
    case PullAction::kWrite:
      if (!n.partial.count(copy)) return fail("written before it was created");
      n.partial[copy].replace(uint64_t{a.chunk} * options_.pull.chunk, a.message.bytes.size(), a.message.bytes);
      n.server->got(copy, a.size, a.chunk, now_, &serve);
      return apply(n, serve);
    case PullAction::kSeal: return seal(n, copy);
    case PullAction::kAbandon:
      n.server->gone(copy, now_, &serve);
      apply(n, serve);
      if (n.partial.erase(copy) == 0) fail("abandoned what was not there");
      return;
    case PullAction::kSend: {
      std::string bytes;
      encode(a.message, &bytes);
      return post(n, a.place, a.channel, std::move(bytes), 0);
    }
    case PullAction::kLocate:
      return at(now_ + options_.delay_ns, [this, copy, asker = n.place, round = a.round] {
        std::vector<Place> places(directory_[copy].begin(), directory_[copy].end());
        if (options_.fault == kFalseLocate) places.clear();
        answered_[{asker, copy}] = now_;
        at_node(now_ + options_.delay_ns, asker, [this, copy, round, places](Node& node) {
          PullActions out;
          node.planner->located(copy, round, content(copy).size(), places, now_, &out);
          apply(node, out);
        });
      });
    case PullAction::kRefused: return list(copy, a.place, false);
    case PullAction::kReady: return on_ready(n, a.request);
    case PullAction::kLost: return on_lost(n, a.request, copy);
    case PullAction::kTooLarge:
      n.open.erase(a.request);
      uint64_t sum = 0;
      for (const Want& w : asked_[a.request].wants) sum += content(w.copy).size();
      if (sum <= options_.room) fail("a request that fits is called too large");
  }
}

void PullWorld::seal(Node& n, const Copy& copy) {
  Stored s;
  s.bytes = std::move(n.partial[copy]);
  n.partial.erase(copy);
  s.planner_pins = 1 + n.stored[copy].planner_pins;
  s.since = now_;
  n.stored[copy] = std::move(s);
  list(copy, n.place, true);
  ServeActions serve;
  n.server->complete(copy, now_, &serve);
  apply(n, serve);
}

// The home hears of it later; what it hears of the dead it forgets.
void PullWorld::list(const Copy& copy, Place place, bool there) {
  at(now_ + options_.delay_ns, [this, copy, place, there] {
    Node* n = living(place);
    if (there && n && n->stored.count(copy)) directory_[copy].insert(place);
    if (there && n && n->stored.count(copy))  // said each time: who was refused by an earlier copy learns of this one
      for (Node& other : nodes_)
        at_node(now_ + options_.delay_ns, other.place, [this, copy, place](Node& node) {
          PullActions out;
          node.planner->location(copy, content(copy).size(), place, now_, &out);
          apply(node, out);
        });
    if (!there && !(n && n->stored.count(copy))) directory_[copy].erase(place);
  });
}

void PullWorld::on_ready(Node& n, uint64_t request) {
  if (!n.open.count(request) || !n.holds.insert(request).second) return fail("a request that is not open became ready");
  ready_at_[request] = now_;
  for (const Want& w : asked_[request].wants) {
    auto it = n.stored.find(w.copy);
    if (it == n.stored.end() || it->second.planner_pins <= 0) return fail("ready without all that was wanted");
    if (it->second.bytes != content(w.copy)) return fail("the bytes are not those of the making that was asked for");
  }
  at_node(now_ + asked_[request].keep_ns, n.place, [this, request](Node& node) {
    if (node.holds.count(request)) finish(node, request);
  });
}

void PullWorld::finish(Node& n, uint64_t request) {
  n.open.erase(request);
  n.holds.erase(request);
  PullActions out;
  n.planner->release(request, now_, &out);
  if (options_.fault == kLostPin && random(5) == 0)
    std::erase_if(out, [](auto& a) { return a.kind == PullAction::kUnpin; });
  apply(n, out);
}

// Evidence: when its home was asked, nobody who lives had had it for as long as news takes.
void PullWorld::on_lost(Node& n, uint64_t request, const Copy& copy) {
  if (!n.open.erase(request)) fail("a request that is not open was lost");
  lost_.insert(request);
  for (Node& other : nodes_) {
    auto it = other.stored.find(copy);
    if (other.alive && it != other.stored.end() && it->second.since < answered_[{n.place, copy}] - 20 * kMs)
      fail("lost, though a node that lives has it");
  }
}

void PullWorld::apply(Node& n, ServeActions& actions) {
  for (size_t i = 0; i < actions.size(); ++i) {
    const ServeAction& a = actions[i];
    const Copy copy = a.copy;
    if (a.kind == ServeAction::kPin)
      at_node(now_, n.place, [this, copy](Node& node) {
        ServeActions out;
        auto it = node.stored.find(copy);
        if (it != node.stored.end()) ++it->second.server_pins;
        if (it != node.stored.end()) node.server->pinned(copy, it->second.bytes.size(), it->second.on_disk, now_, &out);
        else node.server->absent(copy, now_, &out);
        apply(node, out);
      });
    if (a.kind == ServeAction::kUnpin && (!n.stored.count(copy) || --n.stored[copy].server_pins < 0))
      fail("the server unpins what it has not pinned");
    if (a.kind == ServeAction::kBytes) give(n, a);
    if (a.kind == ServeAction::kSend) {
      std::string bytes;
      encode(a.message, &bytes);
      post(n, a.place, a.channel, std::move(bytes), 0);
    }
  }
}

void PullWorld::give(Node& n, const ServeAction& a) {
  auto whole = n.stored.find(a.copy);
  auto part = n.partial.find(a.copy);
  if (whole == n.stored.end() && part == n.partial.end()) return fail("served what is not here");
  const std::string& all = whole != n.stored.end() ? whole->second.bytes : part->second;
  if (whole != n.stored.end() && whole->second.server_pins <= 0 && whole->second.planner_pins <= 0)
    fail("served what is not pinned");
  const uint32_t length = length_of(a.size, options_.serve.chunk, a.chunk);
  std::string bytes = chunk_head(a.copy, a.size, a.chunk, length);
  std::string_view body = std::string_view(all).substr(uint64_t{a.chunk} * options_.serve.chunk, length);
  Copy other = a.copy;
  other.making = 3 - other.making;
  if (options_.fault == kMixedMakings && contents_.count(other))
    body = std::string_view(content(other)).substr(uint64_t{a.chunk} * options_.serve.chunk, length);
  bytes += body;
  if (options_.fault == kWrongBytes && length > 0 && random(20) == 0) bytes.back() = static_cast<char>(bytes.back() + 1);
  post(n, a.place, a.channel, std::move(bytes), a.ticket);
}

// ---- checks after every event of a node

void PullWorld::check(Node& n) {
  uint64_t used = 0, needed = 0;
  for (auto& [copy, s] : n.stored) used += s.planner_pins > 0 ? s.bytes.size() : 0;
  for (auto& [copy, bytes] : n.partial) used += bytes.size();
  std::set<Copy> kept;
  for (uint64_t request : n.holds)
    for (const Want& w : asked_[request].wants)
      if (kept.insert(w.copy).second) needed += content(w.copy).size();
  if (used > n.room && used > needed) fail("more room is used than the store granted");
  for (Node& other : nodes_)
    for (uint32_t channel = 0; channel < options_.channels; ++channel)
      if (n.planner->asked(other.place, channel) > std::max<uint64_t>(options_.pull.window, options_.pull.chunk))
        fail("more is asked for than a connection's window");
  if (n.server->flying() > options_.serve.flying || n.server->from_disk() > options_.serve.disk)
    fail("the server has more on its way than it may");
}

// ---- what happens to them

Copy PullWorld::object(uint32_t node, uint64_t size) {
  Copy copy;
  copy.id.b[0] = static_cast<uint8_t>(copies_.size() + 1);
  copy.id.b[1] = static_cast<uint8_t>((copies_.size() + 1) >> 8);
  copy.making = 1;
  contents_[copy] = std::string(size, '?');
  for (char& c : contents_[copy]) c = static_cast<char>(rng_());
  copies_.push_back(copy);
  Node& n = nodes_[node];
  n.stored[copy].bytes = content(copy);
  directory_[copy].insert(n.place);
  return copy;
}

void PullWorld::spill(uint32_t node, const Copy& copy) {
  Node& n = nodes_[node];
  n.stored[copy].on_disk = !n.stored[copy].on_disk;
  n.server->moved(copy, n.stored[copy].on_disk);
}

uint64_t PullWorld::request(uint32_t node, const std::vector<Want>& wants, Rank rank, int64_t keep_ns) {
  const uint64_t number = next_request_++;
  asked_[number] = {wants, keep_ns};
  at_node(now_, nodes_[node].place, [this, number, rank, wants](Node& n) {
    n.open.insert(number);
    PullActions out;
    n.planner->request({number, rank, wants}, now_, &out);
    apply(n, out);
  });
  return number;
}

void PullWorld::ask_something() {
  const uint32_t node = static_cast<uint32_t>(random(nodes_.size()));
  if (!nodes_[node].alive || nodes_[node].open.size() > 20) return;
  std::vector<Want> wants;
  for (uint64_t k = 1 + random(3); k > 0; --k) {
    Want w;
    w.copy = copies_[random(copies_.size())];
    if (random(3)) w.size = content(w.copy).size();
    if (random(3)) w.places.assign(directory_[w.copy].begin(), directory_[w.copy].end());
    wants.push_back(w);
  }
  const uint64_t number = request(node, wants, static_cast<Rank>(random(3)), static_cast<int64_t>(random(50)) * kMs);
  if (random(8) == 0)  // given up, or wanted sooner
    at_node(now_ + static_cast<int64_t>(random(100)) * kMs, nodes_[node].place, [this, number](Node& n) {
      if (n.open.count(number) && random(2)) return finish(n, number);
      PullActions out;
      n.planner->raise(number, Rank::kNext, now_, &out);
      apply(n, out);
    });
}

void PullWorld::evict(Node& n) {
  for (auto it = n.stored.begin(); it != n.stored.end(); ++it) {
    if (it->second.planner_pins > 0 || it->second.server_pins > 0 || random(4)) continue;
    const Copy copy = it->first;
    n.stored.erase(it);
    return list(copy, n.place, false);
  }
}

void PullWorld::kill(uint32_t node) {
  Node& n = nodes_[node];
  const Place dead = n.place;
  n.alive = false;
  for (uint32_t other = 0; other < nodes_.size(); ++other) {
    if (other == node) continue;
    for (uint32_t c = 0; c < options_.channels; ++c) cut(node, other, c, kSecond);
    at_node(now_ + 200 * kMs, nodes_[other].place, [this, dead](Node& peer) {
      PullActions out;
      ServeActions serve;
      peer.planner->died(dead, now_, &out);
      apply(peer, out);
      peer.server->died(dead, now_, &serve);
      apply(peer, serve);
    });
  }
  at(now_ + 200 * kMs, [this, dead] {
    for (auto& [copy, places] : directory_) places.erase(dead);
  });
  at(now_ + 400 * kMs, [this, node, dead] {  // another one of its place
    boot(node, dead.epoch + 1);
    for (uint32_t other = 0; other < nodes_.size(); ++other)
      for (uint32_t c = 0; c < options_.channels && other != node; ++c)
        if (nodes_[other].alive) connect(node, other, c);
  });
}

void PullWorld::harm() {
  const auto some = [this] { return static_cast<uint32_t>(random(nodes_.size())); };
  const uint32_t a = some(), b = some(), channel = static_cast<uint32_t>(random(options_.channels));
  if (options_.cuts && a != b && random(20) == 0) cut(a, b, channel, static_cast<int64_t>(random(100)) * kMs);
  if (options_.cuts && a != b && random(200) == 0)  // a partition
    for (uint32_t c = 0; c < options_.channels; ++c) cut(a, b, c, kSecond + static_cast<int64_t>(random(4000)) * kMs);
  if (options_.pauses && nodes_[a].paused_until <= now_ && random(150) == 0)
    nodes_[a].paused_until = now_ + static_cast<int64_t>(random(6000)) * kMs;
  if (options_.evictions && nodes_[a].alive && random(10) == 0) evict(nodes_[a]);
  if (options_.evictions && nodes_[b].alive && random(10) == 0) {
    for (auto& [copy, s] : nodes_[b].stored)
      if (random(3) == 0) s.on_disk = !s.on_disk, nodes_[b].server->moved(copy, s.on_disk);
  }
  if (options_.room_changes && nodes_[a].alive && nodes_[a].paused_until <= now_ && random(20) == 0) {
    nodes_[a].room = options_.room / 4 + random(options_.room);
    PullActions out;
    nodes_[a].planner->room(nodes_[a].room, options_.room, now_, &out);
    apply(nodes_[a], out);
  }
  const auto down = std::count_if(nodes_.begin(), nodes_.end(), [](auto& n) { return !n.alive; });
  if (options_.deaths && down == 0 && random(150) == 0) kill(a);
}

void PullWorld::run(int64_t ns) {
  const int64_t until = now_ + ns;
  int64_t next = now_;
  while (wrong_.empty()) {
    const int64_t event = events_.empty() ? INT64_MAX : events_.begin()->first.first;
    const int64_t other = harmful_ && options_.requests ? next : INT64_MAX;
    if (std::min(event, other) > until) break;
    now_ = std::max(now_, std::min(event, other));
    if (other <= event) {
      next += 5 * kMs;
      if (random(2)) ask_something();
      harm();
      continue;
    }
    auto what = std::move(events_.begin()->second);
    events_.erase(events_.begin());
    what();
  }
  now_ = std::max(now_, until);
}

void PullWorld::calm(int64_t ns) {
  harmful_ = false;
  run(6 * kSecond);  // who stands still goes on
  for (Node& n : nodes_) {
    n.room = options_.room;
    if (!n.alive || !options_.room_changes) continue;
    PullActions out;
    n.planner->room(n.room, n.room, now_, &out);
    apply(n, out);
  }
  run(ns);
}

std::string PullWorld::verdict() {
  if (!wrong_.empty()) return wrong_;
  for (Node& n : nodes_) {
    const std::string who = " at node " + std::to_string(n.place.node);
    if (!n.alive) continue;
    if (!n.open.empty()) return "request " + std::to_string(*n.open.begin()) + " never ended" + who;
    if (n.planner->requests() || n.planner->pulls() || n.planner->used()) return "the planner has something left" + who;
    if (n.server->copies() || n.server->flying()) return "the server has something left" + who;
    if (!n.partial.empty()) return "parts of a copy are left" + who;
    for (auto& [copy, s] : n.stored)
      if (s.planner_pins || s.server_pins) return "a pin is left" + who;
  }
  return "";
}

}  // namespace ray::transfer
