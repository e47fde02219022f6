// See server.h.
#include "libray/transfer/server.h"

#include <algorithm>

namespace ray::transfer {

namespace {

constexpr size_t kMaxEarly = 1024;  // questions that wait for the store's answer about one copy
constexpr size_t kMaxDone = 8;

ServeAction action(ServeAction::Kind kind, const Copy& copy) {
  ServeAction a{};
  a.kind = kind;
  a.copy = copy;
  return a;
}

}  // namespace

void Server::say(Place place, uint32_t channel, Message m, ServeActions* out) const {
  ServeAction a = action(ServeAction::kSend, m.copy);
  a.place = place;
  a.channel = channel;
  a.message = std::move(m);
  out->push_back(std::move(a));
}

size_t Server::receivers(const Copy& copy) const {
  auto it = copies_.find(copy);
  return it == copies_.end() ? 0 : it->second.receivers.size();
}

Server::Serving* Server::entry(const Copy& copy) {
  Serving& s = copies_[copy];
  if (s.serial == 0) s.serial = next_serial_++;
  return &s;
}

// ---- other nodes

void Server::message(Place from, uint32_t channel, const Message& m, int64_t now, ServeActions* out) {
  if (m.kind == Kind::kStop) {
    auto it = copies_.find(m.copy);
    if (it == copies_.end()) return;
    Serving& s = it->second;
    const bool was_receiver = s.receivers.count(from) > 0;
    forget(from, m.copy, &s, out);
    if (was_receiver && m.why == Why::kDone && std::find(s.done.begin(), s.done.end(), from) == s.done.end()) {
      s.done.push_back(from);
      if (s.done.size() > kMaxDone) s.done.pop_front();
    }
    consider(m.copy, out);
    return pump(out);
  }
  if (m.kind != Kind::kAsk) return;
  if (copies_.empty()) tick_at_ = now + options_.idle_ns;
  Serving* s = entry(m.copy);
  const Early q{from, channel, m.chunk, m.size};
  if (s->state != Serving::kUnknown) {
    ask(q, m.copy, s, now, out);
    consider(m.copy, out);
    return pump(out);
  }
  for (const Early& e : s->early)
    if (e.place == from && e.chunk == m.chunk) return;
  if (s->early.size() >= kMaxEarly) return deny(q, m.copy, s, Why::kBusy, out);
  s->early.push_back(q);
  if (!s->pinning) out->push_back(action(ServeAction::kPin, m.copy));
  s->pinning = true;
}

void Server::ask(const Early& q, const Copy& copy, Serving* s, int64_t now, ServeActions* out) {
  const bool partial = s->state == Serving::kPartial;
  if (q.size != kUnknownSize && q.size != s->size) return deny(q, copy, s, Why::kAbsent, out);
  if (q.chunk == kNoChunk) {
    if (partial && s->interested.size() < 64) s->interested[q.place] = q.channel;
    return tell_have(q.place, q.channel, copy, *s, out);
  }
  if (q.size == kUnknownSize && s->size > options_.inline_max) return deny(q, copy, s, Why::kLarge, out);
  if (q.chunk >= chunks_of(s->size, options_.chunk)) return deny(q, copy, s, Why::kAbsent, out);
  if (partial && !s->have.test(q.chunk)) {
    if (s->interested.size() < 64) s->interested[q.place] = q.channel;
    return deny(q, copy, s, Why::kNotYet, out);
  }
  if (s->size > options_.inline_max && !take(q, copy, s, now, out)) return deny(q, copy, s, Why::kBusy, out);
  Peer& peer = peers_[q.place];
  if (peer.known.count({copy, q.chunk})) return;
  if (peer.questions.size() >= options_.waiting) return deny(q, copy, s, Why::kBusy, out);
  peer.known.insert({copy, q.chunk});
  peer.questions.push_back({q.channel, copy, q.chunk});
  ++s->queued;
}

// Whether it is, or becomes, one of the receivers. All of them learn of a new one, and it of them.
bool Server::take(const Early& q, const Copy& copy, Serving* s, int64_t now, ServeActions* out) {
  auto it = s->receivers.find(q.place);
  if (it != s->receivers.end()) {
    it->second = {q.channel, now};
    return true;
  }
  std::erase_if(s->waiting, [&](auto& w) { return w.first == q.place; });
  if (s->receivers.size() >= options_.receivers) {
    s->waiting.push_back({q.place, q.channel});
    return false;
  }
  s->receivers[q.place] = {q.channel, now};
  for (auto& [place, r] : s->receivers) {
    Message m;
    m.kind = Kind::kPeers;
    m.copy = copy;
    m.size = s->size;
    m.peers = peers_for(place, *s);
    if (!m.peers.empty()) say(place, r.channel, std::move(m), out);
  }
  return true;
}

std::vector<Place> Server::peers_for(Place place, const Serving& s) const {
  std::vector<Place> peers;
  for (auto& [other, r] : s.receivers)
    if (other != place && peers.size() < kMaxPeers) peers.push_back(other);
  for (Place other : s.done)
    if (other != place && peers.size() < kMaxPeers) peers.push_back(other);
  return peers;
}

void Server::deny(const Early& to, const Copy& copy, const Serving* s, Why why, ServeActions* out) const {
  Message m;
  m.kind = Kind::kDeny;
  m.why = why;
  m.copy = copy;
  m.chunk = to.chunk;
  if (s) m.size = s->size;
  if (why == Why::kBusy) m.peers = peers_for(to.place, *s);
  if (why == Why::kNotYet) m.have = s->have;
  say(to.place, to.channel, std::move(m), out);
}

void Server::tell_have(Place to, uint32_t channel, const Copy& copy, const Serving& s, ServeActions* out) const {
  Message m;
  m.kind = Kind::kHave;
  m.copy = copy;
  m.size = s.size;
  m.have = s.have;
  if (s.state == Serving::kWhole) {
    m.have = Bits(chunks_of(s.size, options_.chunk));
    for (size_t i = 0; i < m.have.words(); ++i) m.have.set_word(i, ~uint64_t{0});
  }
  say(to, channel, std::move(m), out);
}

void Server::tell_interested(const Copy& copy, Serving* s, ServeActions* out) const {
  s->untold = 0;
  for (auto& [place, channel] : s->interested) tell_have(place, channel, copy, *s, out);
}

// It is not served this copy any more, unless it asks again.
void Server::forget(Place place, const Copy& copy, Serving* s, ServeActions* out) {
  const bool receiver = s->receivers.erase(place) > 0;
  std::erase_if(s->waiting, [&](auto& w) { return w.first == place; });
  std::erase_if(s->early, [&](auto& e) { return e.place == place; });
  s->interested.erase(place);
  drop_questions(place, &copy, nullptr);
  if (receiver) wake_waiting(copy, s, out);
}

void Server::wake_waiting(const Copy& copy, Serving* s, ServeActions* out) const {
  if (s->waiting.empty() || s->receivers.size() >= options_.receivers) return;
  Message m;
  m.kind = Kind::kTurn;
  m.copy = copy;
  m.size = s->size;
  say(s->waiting.front().first, s->waiting.front().second, std::move(m), out);
  s->waiting.pop_front();
}

// Of all copies and channels, or of one.
void Server::drop_questions(Place place, const Copy* copy, const uint32_t* channel) {
  auto it = peers_.find(place);
  if (it == peers_.end()) return;
  Peer& peer = it->second;
  std::erase_if(peer.questions, [&](const Question& q) {
    if ((copy && !(q.copy == *copy)) || (channel && q.channel != *channel)) return false;
    peer.known.erase({q.copy, q.chunk});
    --copies_[q.copy].queued;
    return true;
  });
  if (peer.questions.empty() && peer.flying.empty()) peers_.erase(it);
}

void Server::down(Place place, uint32_t channel, int64_t now, ServeActions* out) {
  drop_questions(place, nullptr, &channel);
  for (auto& [number, t] : tickets_)  // what was under way may have to be sent again
    if (t.place == place && t.channel == channel) peers_[place].known.erase({t.copy, t.chunk});
  std::vector<Copy> touched;
  for (auto& [copy, s] : copies_) {
    touched.push_back(copy);
    std::erase_if(s.waiting, [&](auto& w) { return w.first == place && w.second == channel; });
    std::erase_if(s.early, [&](auto& e) { return e.place == place && e.channel == channel; });
    std::erase_if(s.interested, [&](auto& i) { return i.first == place && i.second == channel; });
    auto r = s.receivers.find(place);
    if (r == s.receivers.end() || r->second.channel != channel) continue;
    s.receivers.erase(r);
    wake_waiting(copy, &s, out);
  }
  for (const Copy& copy : touched) consider(copy, out);
  tick(now, out);
  pump(out);
}

void Server::died(Place place, int64_t now, ServeActions* out) {
  std::vector<Copy> touched;
  for (auto& [copy, s] : copies_) {
    touched.push_back(copy);
    forget(place, copy, &s, out);
    std::erase(s.done, place);
  }
  for (const Copy& copy : touched) consider(copy, out);
  tick(now, out);
  pump(out);
}

// ---- the store

void Server::answer_early(const Copy& copy, Serving* s, int64_t now, ServeActions* out) {
  const std::deque<Early> early = std::move(s->early);
  s->early.clear();
  for (const Early& q : early) ask(q, copy, s, now, out);
  consider(copy, out);
  pump(out);
}

void Server::pinned(const Copy& copy, uint64_t size, bool on_disk, int64_t now, ServeActions* out) {
  auto it = copies_.find(copy);
  if (it == copies_.end() || !it->second.pinning || !size_is_fine(size, options_.chunk))
    return out->push_back(action(ServeAction::kUnpin, copy));
  Serving& s = it->second;
  s.pinning = false;
  s.pinned = true;
  s.on_disk = on_disk;
  s.size = size;
  s.state = Serving::kWhole;
  answer_early(copy, &s, now, out);
}

void Server::absent(const Copy& copy, int64_t now, ServeActions* out) {
  auto it = copies_.find(copy);
  if (it == copies_.end() || !it->second.pinning) return;
  Serving& s = it->second;
  s.pinning = false;
  if (s.state == Serving::kPartial) return answer_early(copy, &s, now, out);
  for (const Early& q : s.early) deny(q, copy, nullptr, Why::kAbsent, out);
  refuse_all(copy, &s, out);
  pump(out);
}

void Server::moved(const Copy& copy, bool on_disk) {
  auto it = copies_.find(copy);
  if (it != copies_.end()) it->second.on_disk = on_disk;
}

// Nothing of it is here any more: whoever waits for some of it hears that.
void Server::refuse_all(const Copy& copy, Serving* s, ServeActions* out) {
  std::set<Place> told;
  for (auto& [place, peer] : peers_)
    for (const Question& q : peer.questions)
      if (q.copy == copy) {
        deny({place, q.channel, q.chunk, s->size}, copy, s, Why::kAbsent, out);
        told.insert(place);
      }
  for (Place place : told) drop_questions(place, &copy, nullptr);
  for (auto& [place, channel] : s->interested)
    if (!told.count(place)) deny({place, channel, kNoChunk, s->size}, copy, s, Why::kAbsent, out);
  if (s->pinned) out->push_back(action(ServeAction::kUnpin, copy));
  copies_.erase(copy);
}

// ---- the node's own planner

// From then on others may ask for what will come.
void Server::started(const Copy& copy, uint64_t size, int64_t now, ServeActions* out) {
  if (copies_.empty()) tick_at_ = now + options_.idle_ns;
  Serving* s = entry(copy);
  if (s->state == Serving::kWhole || !size_is_fine(size, options_.chunk)) return;
  s->have = Bits(chunks_of(size, options_.chunk));
  s->state = Serving::kPartial;
  s->size = size;
  if (!s->early.empty()) answer_early(copy, s, now, out);
}

void Server::got(const Copy& copy, uint64_t size, uint32_t chunk, int64_t now, ServeActions* out) {
  auto it = copies_.find(copy);
  if (it == copies_.end() || it->second.state != Serving::kPartial) started(copy, size, now, out);
  Serving* s = entry(copy);
  if (s->state != Serving::kPartial || s->size != size || chunk >= s->have.size()) return;
  s->have.set(chunk);
  if (++s->untold >= 1 + s->have.size() / 256) tell_interested(copy, s, out);
}

void Server::complete(const Copy& copy, int64_t now, ServeActions* out) {
  auto it = copies_.find(copy);
  if (it == copies_.end() || it->second.state != Serving::kPartial) return;
  Serving& s = it->second;
  s.state = Serving::kWhole;
  tell_interested(copy, &s, out);
  s.interested.clear();
  consider(copy, out);
  if (!copies_.count(copy)) return;
  if (!s.pinning) out->push_back(action(ServeAction::kPin, copy));  // the planner's own pin may go any time
  s.pinning = true;
  tick(now, out);
}

void Server::gone(const Copy& copy, int64_t now, ServeActions* out) {
  auto it = copies_.find(copy);
  if (it == copies_.end() || it->second.state != Serving::kPartial) return;
  if (it->second.pinning) {  // the store's answer is the next thing to know about it
    it->second.state = Serving::kUnknown;
    it->second.have = Bits();
    return;
  }
  refuse_all(copy, &it->second, out);
  tick(now, out);
  pump(out);
}

// Whether anybody still needs it.
void Server::consider(const Copy& copy, ServeActions* out) {
  auto it = copies_.find(copy);
  if (it == copies_.end()) return;
  Serving& s = it->second;
  if (s.state != Serving::kWhole || s.pinning || s.flying > 0 || s.queued > 0) return;
  if (!s.receivers.empty() || !s.waiting.empty() || !s.early.empty()) return;
  if (s.pinned) out->push_back(action(ServeAction::kUnpin, copy));
  copies_.erase(it);
}

// ---- sending

// One chunk for each in turn, beginning behind who had the last one.
void Server::pump(ServeActions* out) {
  for (bool more = true; more;) {
    more = false;
    std::vector<Place> order;
    for (auto it = peers_.upper_bound(turn_); it != peers_.end(); ++it) order.push_back(it->first);
    for (auto it = peers_.begin(); it != peers_.upper_bound(turn_); ++it) order.push_back(it->first);
    for (Place place : order) {
      if (tickets_.size() >= options_.flying) return;
      if (!send_one(place, &peers_[place], out)) continue;
      turn_ = place;
      more = true;
    }
  }
}

bool Server::send_one(Place place, Peer* peer, ServeActions* out) {
  for (auto q = peer->questions.begin(); q != peer->questions.end(); ++q) {
    Serving& s = copies_[q->copy];
    if (s.state == Serving::kUnknown || (s.on_disk && disk_ >= options_.disk)) continue;
    auto flying = peer->flying.find(q->channel);
    if (flying != peer->flying.end() && flying->second >= options_.window) continue;
    ++peer->flying[q->channel];
    ++s.flying;
    --s.queued;
    disk_ += s.on_disk;
    ServeAction a = action(ServeAction::kBytes, q->copy);
    a.place = place;
    a.channel = q->channel;
    a.chunk = q->chunk;
    a.size = s.size;
    a.from_disk = s.on_disk;
    a.ticket = next_ticket_++;
    tickets_[a.ticket] = {place, q->channel, q->copy, q->chunk, s.on_disk, s.serial};
    out->push_back(std::move(a));
    peer->questions.erase(q);
    return true;
  }
  return false;
}

void Server::sent(uint64_t ticket, bool well, int64_t now, ServeActions* out) {
  auto it = tickets_.find(ticket);
  if (it == tickets_.end()) return;
  const Ticket t = it->second;
  tickets_.erase(it);
  disk_ -= t.disk;
  auto peer = peers_.find(t.place);
  if (peer != peers_.end()) {
    peer->second.known.erase({t.copy, t.chunk});
    auto flying = peer->second.flying.find(t.channel);
    if (flying != peer->second.flying.end() && --flying->second == 0) peer->second.flying.erase(flying);
    if (peer->second.questions.empty() && peer->second.flying.empty()) peers_.erase(peer);
  }
  auto s = copies_.find(t.copy);
  if (s != copies_.end() && s->second.serial == t.serial) {
    --s->second.flying;
    auto r = s->second.receivers.find(t.place);
    if (r != s->second.receivers.end()) r->second.asked_at = std::max(r->second.asked_at, now);
    if (!well) {
      deny({t.place, t.channel, t.chunk, s->second.size}, t.copy, &s->second, Why::kAbsent, out);
      refuse_all(t.copy, &s->second, out);
    } else {
      consider(t.copy, out);
    }
  }
  pump(out);
}

void Server::tick(int64_t now, ServeActions* out) {
  if (now < tick_at_) return;
  tick_at_ = now + options_.idle_ns / 2;
  std::vector<std::pair<Copy, Place>> idle;
  for (auto& [copy, s] : copies_) {
    for (auto& [place, r] : s.receivers) {
      auto peer = peers_.find(place);
      const bool busy = peer != peers_.end() && (!peer->second.questions.empty() || !peer->second.flying.empty());
      if (!busy && now - r.asked_at >= options_.idle_ns) idle.push_back({copy, place});
    }
    if (s.receivers.empty()) wake_waiting(copy, &s, out);
  }
  for (auto& [copy, place] : idle) {
    Serving& s = copies_[copy];
    s.receivers.erase(place);
    wake_waiting(copy, &s, out);
  }
  std::vector<Copy> all;
  for (auto& [copy, s] : copies_) all.push_back(copy);
  for (const Copy& copy : all) consider(copy, out);
  pump(out);
}

}  // namespace ray::transfer
