// See endpoint.h.
#include "libray/net/core/endpoint.h"

#include <algorithm>
#include <cstring>

namespace ray::net {

namespace {

constexpr uint32_t kLinesAMinute = 20;
constexpr int64_t kMinute = 60'000'000'000;

Action act(Action::Kind kind) {
  Action a;
  a.kind = kind;
  return a;
}

Action act_on(Action::Kind kind, Peer peer) {
  Action a = act(kind);
  a.peer = peer;
  return a;
}

}  // namespace

Endpoint::Endpoint(const Identity& self, std::string token, Random random, const EndpointOptions& options)
    : self_(self), token_(std::move(token)), random_(std::move(random)), options_(options) {}

std::string Endpoint::fresh(size_t bytes) {
  std::string out;
  while (out.size() < bytes) {
    const uint64_t word = random_();
    out.append(reinterpret_cast<const char*>(&word), std::min(sizeof word, bytes - out.size()));
  }
  return out;
}

// Whoever connects over and over fills no disk.
void Endpoint::say(std::string text, int64_t now, Actions* out) {
  if (now - said_since_ >= kMinute || said_since_ == 0) {
    if (unsaid_ > 0) text += strprintf(" (and %u lines like this in the minute before)", unsaid_);
    said_since_ = now;
    said_ = unsaid_ = 0;
  }
  if (++said_ > kLinesAMinute) {
    ++unsaid_;
    return;
  }
  Action a = act(Action::kLog);
  a.text = std::move(text);
  out->push_back(std::move(a));
}

Endpoint::Connection* Endpoint::connection(Conn conn) {
  auto it = connections_.find(conn);
  return it == connections_.end() ? nullptr : it->second.get();
}

Endpoint::Known* Endpoint::find(const Identity& who, uint32_t channel) const {
  auto it = by_name_.find({who.node, channel});
  return it == by_name_.end() ? nullptr : peers_.at(it->second).get();
}

const Identity* Endpoint::find(Peer peer) const {
  auto it = peers_.find(peer);
  return it == peers_.end() ? nullptr : &it->second->who;
}

uint32_t Endpoint::channel_of(Peer peer) const {
  auto it = peers_.find(peer);
  return it == peers_.end() ? 0 : it->second->channel;
}

bool Endpoint::is_up(Peer peer) const {
  auto it = peers_.find(peer);
  return it != peers_.end() && it->second->conn != 0;
}

bool Endpoint::is_proven(Conn conn) const {
  auto it = connections_.find(conn);
  return it != connections_.end() && it->second->peer != 0;
}

bool Endpoint::owes_urgent() const {
  for (const auto& [number, p] : peers_)
    if (p->conn != 0 && p->session->owes(kUrgent)) return true;
  return false;
}

// ---- the user

void Endpoint::dial(Target target, std::string address, uint32_t channel, int64_t now, Actions* out) {
  Called& t = targets_[target];
  t = Called{};
  t.address = std::move(address);
  t.channel = channel;
  dial_targets(now, out);
}

void Endpoint::hang_up(Target target, Actions* out) {
  auto it = targets_.find(target);
  if (it == targets_.end()) return;
  const Conn conn = it->second.conn;
  targets_.erase(it);
  if (Connection* c = connection(conn)) end(c, ticked_at_, out);
}

bool Endpoint::enqueue(Peer peer, Lane lane, Message message, int64_t now, Actions* out) {
  auto it = peers_.find(peer);
  if (it == peers_.end()) return true;
  Known& p = *it->second;
  const bool more = p.session->enqueue(lane, std::move(message));
  if (Connection* c = connection(p.conn)) pump(c, now, out);
  return more;
}

void Endpoint::consumed(Peer peer, Lane lane, uint64_t bytes, int64_t now, Actions* out) {
  auto it = peers_.find(peer);
  if (it == peers_.end()) return;
  it->second->session->consumed(lane, bytes);
  if (Connection* c = connection(it->second->conn)) pump(c, now, out);
}

void Endpoint::fence(const NodeId& node, uint32_t epoch, Actions* out) {
  auto [fenced, first] = fenced_.try_emplace(node, epoch);
  fenced->second = std::max(fenced->second, epoch);
  if (first) fenced_order_.push_back(node);
  while (fenced_order_.size() > options_.max_fenced) {  // the layer above knows none of that node either by then
    fenced_.erase(fenced_order_.front());
    fenced_order_.pop_front();
  }
  for (auto it = peers_.begin(); it != peers_.end();) {
    Known& p = *it->second;
    if (p.who.node != node || p.who.epoch > epoch) {
      ++it;
      continue;
    }
    if (Connection* c = connection(p.conn)) end(c, ticked_at_, out);
    by_name_.erase({p.who.node, p.channel});
    it = peers_.erase(it);
  }
}

// ---- connections

Endpoint::Connection* Endpoint::add(Conn conn, std::string from, int64_t now) {
  auto c = std::make_unique<Connection>();
  c->number = conn;
  c->host = from.substr(0, from.rfind(':'));
  c->from = std::move(from);
  c->give_up_at = now + options_.handshake_ns;
  return (connections_[conn] = std::move(c)).get();
}

void Endpoint::dialled(Target target, Conn conn, int64_t now, Actions* out) {
  auto it = targets_.find(target);
  if (it == targets_.end() || it->second.conn != 0) {  // hung up meanwhile
    Action a = act(Action::kClose);
    a.conn = conn;
    out->push_back(std::move(a));
    return;
  }
  it->second.dialling = false;
  it->second.conn = conn;
  Connection* c = add(conn, it->second.address, now);
  c->dialler = true;
  c->target = target;
  c->channel = it->second.channel;
  c->handshake = std::make_unique<Handshake>(
      true, token_, Greeting{kNetVersion, self_, c->channel, fresh(16)});
  c->greetings.push_back({c->handshake->hello(), nullptr});
  pump(c, now, out);
}

void Endpoint::dial_failed(Target target, const std::string& why, int64_t now, Actions* out) {
  auto it = targets_.find(target);
  if (it == targets_.end()) return;
  Called& t = it->second;
  t.dialling = false;
  redial(&t, now);
  if (t.said == why) return;
  t.said = why;
  say(strprintf("cannot reach %s: %s", t.address.c_str(), why.c_str()), now, out);
}

// Of too many strangers, in all or of one address, the one that was silent for longest, else the oldest: who is there
// and says nothing keeps nobody out. Null: there is room.
Endpoint::Connection* Endpoint::to_make_room(const std::string& host) {
  uint32_t all = 0, there = 0;
  Connection *of_all = nullptr, *of_host = nullptr;
  const auto greeted = [](const Connection* c) { return c->handshake && c->handshake->greeted(); };
  for (auto& [number, c] : connections_) {  // oldest first
    if (!is_stranger(*c)) continue;
    ++all;
    if (!of_all || (greeted(of_all) && !greeted(c.get()))) of_all = c.get();
    if (c->host != host) continue;
    ++there;
    if (!of_host || (greeted(of_host) && !greeted(c.get()))) of_host = c.get();
  }
  if (there >= std::max(1u, options_.max_strangers / 4)) return of_host;
  return all >= options_.max_strangers ? of_all : nullptr;
}

void Endpoint::accepted(Conn conn, std::string from, int64_t now, Actions* out) {
  if (const Connection* old = to_make_room(from.substr(0, from.rfind(':')))) {
    say(strprintf("refused a connection from %s: it has not proved who it is, and others wait", old->from.c_str()), now, out);
    Action a = act(Action::kClose);
    const Conn dropped = a.conn = old->number;
    out->push_back(std::move(a));
    connections_.erase(dropped);
  }
  add(conn, std::move(from), now);
}

void Endpoint::received(Conn conn, std::string_view bytes, int64_t now, Actions* out) {
  Connection* c = connection(conn);
  if (!c || c->closing) return;
  c->reader.feed(bytes);
  for (;;) {
    Head head;
    std::string_view body;
    std::string why;
    const auto next = c->reader.next(&head, &body, &why);
    if (next == FrameReader::Next::kMore) break;
    const Status s = next == FrameReader::Next::kBad ? error(RAY_INVALID_ARGUMENT, "%s", why.c_str())
                                                     : on_frame(c, head, body, now, out);
    if (!s.ok()) return broken(c, s, now, out);
    c = connection(conn);
    if (!c || c->closing) return;
  }
  pump(c, now, out);
}

void Endpoint::written(Conn conn, int64_t now, Actions* out) {
  if (Connection* c = connection(conn)) {
    c->writing = false;
    pump(c, now, out);
  }
}

void Endpoint::closed(Conn conn, const std::string& why, int64_t now, Actions* out) {
  Connection* c = connection(conn);
  if (!c) return;
  if (c->dialler && c->peer == 0)  // or it is dialled again and again without a word
    if (auto it = targets_.find(c->target); it != targets_.end() && it->second.said.empty()) {
      it->second.said = why;
      say(strprintf("%s closed the connection: %s", c->from.c_str(), why.c_str()), now, out);
    }
  forget(conn, now, out);
}

// Tells the other side why, and ends the connection once that is written.
void Endpoint::broken(Connection* c, const Status& why, int64_t now, Actions* out) {
  const bool stranger = c->peer == 0;
  if (stranger && c->dialler) {
    Action a = act(Action::kRefused);
    a.target = c->target;
    a.text = why.message();
    out->push_back(std::move(a));
    if (auto it = targets_.find(c->target); it != targets_.end()) {
      it->second.wait = options_.max_redial_ns;
      it->second.said = why.message();
    }
  }
  if (!stranger || !c->dialler)
    say(strprintf("%s %s: %s", stranger ? "refused a connection from" : "gave up the connection with", c->from.c_str(),
                  why.message().c_str()), now, out);
  c->greetings.push_back({frame_of(Kind::kBye, std::string_view(why.message()).substr(0, kMaxGreeting)), nullptr});
  end(c, now, out);
}

// What is to be written as a greeting still goes out; nothing is read any more, and the session is free at once.
void Endpoint::end(Connection* c, int64_t now, Actions* out) {
  c->closing = true;
  c->give_up_at = now + options_.handshake_ns;
  if (auto it = peers_.find(c->peer); it != peers_.end() && it->second->conn == c->number) {
    it->second->conn = 0;
    it->second->session->detach();
    out->push_back(act_on(Action::kDown, c->peer));
  }
  if (auto it = targets_.find(c->target); c->dialler && it != targets_.end() && it->second.conn == c->number) {
    it->second.conn = 0;
    redial(&it->second, now);
  }
  pump(c, now, out);
}

void Endpoint::forget(Conn conn, int64_t now, Actions* out) {
  Connection* c = connection(conn);
  c->greetings.clear();
  c->writing = true;  // whatever ends it, nothing is written any more
  end(c, now, out);
  connections_.erase(conn);
}

// ---- frames

Status Endpoint::on_frame(Connection* c, const Head& head, std::string_view body, int64_t now, Actions* out) {
  if (head.kind == Kind::kBye) {
    if (c->peer != 0) return error(RAY_UNAVAILABLE, "it says: %.*s", static_cast<int>(body.size()), body.data());
    return error(RAY_INVALID_ARGUMENT, "%s says: %.*s", c->from.c_str(), static_cast<int>(body.size()), body.data());
  }
  if (c->peer != 0) return on_session_frame(c, head, body, now, out);
  const bool greeted = c->handshake && c->handshake->greeted();
  if (head.kind == Kind::kHello && !greeted) return on_hello(c, body);
  if (head.kind == Kind::kProof && greeted) return on_proof(c, body, now, out);
  return error(RAY_INVALID_ARGUMENT, "the other side is no node of libray");
}

Status Endpoint::welcome(const Identity& who, uint32_t channel) const {
  if (who.node == self_.node)
    return error(RAY_INVALID_ARGUMENT, who.incarnation == self_.incarnation ? "this address is that of the node itself"
                                                                             : "another daemon has the id of this node");
  const std::string name = who.node.hex().substr(0, 8);
  if (auto it = fenced_.find(who.node); it != fenced_.end() && who.epoch <= it->second)
    return error(RAY_NODE_DIED, "node %s is dead for this cluster since epoch %u: start it again", name.c_str(),
                 it->second);
  const Known* p = find(who, channel);
  if (p && (who.epoch < p->who.epoch || (who.epoch == p->who.epoch && who.incarnation != p->who.incarnation)))
    return error(RAY_CONFLICT, "node %s is another daemon's now, of epoch %u", name.c_str(), p->who.epoch);
  return Status();
}

Resume Endpoint::resume_for(const Greeting& peer) const {
  const Known* p = find(peer.who, peer.channel);
  if (p && p->who.incarnation == peer.who.incarnation) return p->session->resume();
  return Session(options_.session).resume();
}

Status Endpoint::on_hello(Connection* c, std::string_view body) {
  if (!c->dialler) {
    // Of which session, only the greeting tells: the own one names the same channel.
    Handshake first(false, token_, Greeting{});
    RAY_TRY(first.on_hello(body));
    c->channel = first.peer().channel;
    c->handshake = std::make_unique<Handshake>(false, token_, Greeting{kNetVersion, self_, c->channel, fresh(16)});
  }
  RAY_TRY(c->handshake->on_hello(body));
  const Greeting& peer = c->handshake->peer();
  if (peer.channel != c->channel) return error(RAY_INVALID_ARGUMENT, "the other node answers on another channel");
  if (c->dialler) c->told = resume_for(peer);
  c->greetings.push_back({c->dialler ? c->handshake->proof(c->told) : c->handshake->hello(), nullptr});
  return Status();
}

// The peer that has proved itself. Its session is a fresh one if another daemon answered before.
Endpoint::Known* Endpoint::know(const Greeting& peer, Actions* out) {
  Known* p = find(peer.who, peer.channel);
  if (!p) {
    auto fresh = std::make_unique<Known>();
    p = fresh.get();
    p->number = next_peer_++;
    p->who = peer.who;
    p->channel = peer.channel;
    p->session = std::make_unique<Session>(options_.session);
    by_name_[{peer.who.node, peer.channel}] = p->number;
    peers_[p->number] = std::move(fresh);
  } else if (p->who.incarnation != peer.who.incarnation) {
    if (Connection* old = connection(p->conn)) end(old, ticked_at_, out);
    p->who = peer.who;
    p->session = std::make_unique<Session>(options_.session);
    out->push_back(act_on(Action::kReset, p->number));
  }
  return p;
}

// Two live connections of one session. The newer one counts when the same side dialled both: that side has lost the
// older one. Else both sides must choose the same.
bool Endpoint::keep_other(const Connection& c, const Known& p) {
  const Connection* other = connection(p.conn);
  if (!other || other->dialler == c.dialler) return false;
  const NodeId& by = other->dialler ? self_.node : p.who.node;
  return by == std::min(self_.node, p.who.node);
}

Status Endpoint::on_proof(Connection* c, std::string_view body, int64_t now, Actions* out) {
  Resume theirs;
  RAY_TRY(c->handshake->on_proof(body, &theirs));
  const Greeting& peer = c->handshake->peer();
  RAY_TRY(welcome(peer.who, peer.channel));  // not before: what this node knows of others is told to nodes alone
  if (!c->dialler) c->told = resume_for(peer);
  Known* p = know(peer, out);
  c->peer = p->number;
  c->reader.limit(kMaxMessage);
  if (!c->dialler) c->greetings.push_back({c->handshake->proof(c->told), nullptr});
  if (auto it = targets_.find(c->target); c->dialler && it != targets_.end()) {
    it->second.peer = p->number;
    it->second.said.clear();
    it->second.wait = 0;
  }
  if (keep_other(*c, *p)) {
    end(c, now, out);
    return Status();
  }
  if (Connection* old = connection(p->conn)) end(old, now, out);
  RAY_TRY(p->session->attach(now, c->told, theirs));
  p->conn = c->number;
  out->push_back(act_on(Action::kUp, p->number));
  return Status();
}

Status Endpoint::on_session_frame(Connection* c, const Head& head, std::string_view body, int64_t now, Actions* out) {
  Known& p = *peers_.at(c->peer);
  if (p.conn != c->number) return Status();
  bool message = false;
  RAY_TRY(p.session->on_frame(now, head, body, &message));
  if (message) {
    Action a = act_on(Action::kDeliver, c->peer);
    a.lane = static_cast<Lane>(head.lane);
    a.text = body;
    out->push_back(std::move(a));
  }
  for (Lane lane : {kUrgent, kNormal})
    if (p.session->became_writable(lane)) {
      Action a = act_on(Action::kWritable, c->peer);
      a.lane = lane;
      out->push_back(std::move(a));
    }
  return Status();
}

// ---- writing and time

void Endpoint::pump(Connection* c, int64_t now, Actions* out) {
  if (c->writing) return;
  Action a = act(Action::kWrite);
  a.conn = c->number;
  a.pieces = std::move(c->greetings);
  c->greetings.clear();
  size_t bytes = 0;
  auto it = peers_.find(c->peer);
  if (!c->closing && it != peers_.end() && it->second->conn == c->number)
    for (Piece piece; bytes < options_.write_bytes && it->second->session->next(now, &piece);) {
      bytes += piece.head.size() + (piece.body ? piece.body->size() : 0);
      a.pieces.push_back(std::move(piece));
    }
  if (!a.pieces.empty()) {
    c->writing = true;
    out->push_back(std::move(a));
  } else if (c->closing) {
    Action close = act(Action::kClose);
    close.conn = c->number;
    out->push_back(std::move(close));
    connections_.erase(c->number);
  }
}

// Waits longer after each failure, and never exactly as long as others do.
void Endpoint::redial(Called* t, int64_t now) {
  t->wait = std::clamp(2 * t->wait, options_.redial_ns, options_.max_redial_ns);
  t->at = now + t->wait / 2 + static_cast<int64_t>(random_() % static_cast<uint64_t>(t->wait / 2 + 1));
}

void Endpoint::dial_targets(int64_t now, Actions* out) {
  for (auto& [target, t] : targets_) {
    if (t.conn != 0 || t.dialling || now < t.at || is_up(t.peer)) continue;
    t.dialling = true;
    Action a = act(Action::kDial);
    a.target = target;
    a.text = t.address;
    out->push_back(std::move(a));
  }
}

void Endpoint::tick(int64_t now, Actions* out) {
  const bool paused = ticked_at_ != 0 && now - ticked_at_ > options_.session.silent_ns / 2;
  ticked_at_ = now;
  std::vector<Conn> all;
  for (auto& [number, c] : connections_) all.push_back(number);
  for (Conn number : all) {
    Connection* c = connection(number);
    if (!c) continue;
    auto it = peers_.find(c->peer);
    const bool carries = it != peers_.end() && it->second->conn == number;
    if (carries && paused) it->second->session->pardon(now);  // its words may lie in a buffer of this process
    if (carries) {
      const Status s = it->second->session->tick(now);
      if (!s.ok()) broken(c, s, now, out);
      else pump(c, now, out);
    } else if (now >= c->give_up_at) {
      if (c->closing) {
        Action a = act(Action::kClose);
        a.conn = number;
        out->push_back(std::move(a));
        connections_.erase(number);
      } else {
        broken(c, error(RAY_TIMED_OUT, "it did not say who it is for %.0f s",
                        static_cast<double>(options_.handshake_ns) / 1e9), now, out);
      }
    }
  }
  dial_targets(now, out);
}

int64_t Endpoint::deadline() const {
  int64_t at = INT64_MAX;
  for (auto& [number, c] : connections_) {
    auto it = peers_.find(c->peer);
    if (it != peers_.end() && it->second->conn == number) at = std::min(at, it->second->session->deadline());
    else at = std::min(at, c->give_up_at);
  }
  for (auto& [target, t] : targets_)
    if (t.conn == 0 && !t.dialling && !is_up(t.peer)) at = std::min(at, t.at);
  return at;
}

}  // namespace ray::net
