// See ledger.h.
#include "libray/transfer/ledger.h"

#include <algorithm>

namespace ray::transfer {

namespace {

const Place kNowhere{};

}  // namespace

void Ledger::say(Place to, LedgerMessage m, LedgerActions* out) const {
  LedgerAction a{};
  a.kind = LedgerAction::kSend;
  a.place = to;
  a.message = m;
  out->push_back(a);
}

// ---- as a holder

void Ledger::hold(const ObjectId& id, Place origin, int64_t now, LedgerActions* out) {
  Mine* m = mine(id, origin);
  m->held = true;
  update(id, m, now, out);
}

void Ledger::release(const ObjectId& id, int64_t now, LedgerActions* out) {
  auto it = mine_.find(id);
  if (it == mine_.end()) return;
  it->second.held = false;
  update(id, &it->second, now, out);
}

void Ledger::stored(const ObjectId& id, Place origin, int64_t now, LedgerActions* out) {
  Mine* m = mine(id, origin);
  m->stored = true;
  update(id, m, now, out);
}

void Ledger::unstored(const ObjectId& id, int64_t now, LedgerActions* out) {
  auto it = mine_.find(id);
  if (it == mine_.end()) return;
  it->second.stored = false;
  update(id, &it->second, now, out);
}

Ledger::Mine* Ledger::mine(const ObjectId& id, Place origin) {
  auto [it, fresh] = mine_.try_emplace(id);
  if (fresh) {
    it->second.origin = origin;
    if (!members_.home(id, origin, &it->second.home)) it->second.home = kNowhere;
    by_home_[it->second.home].insert(id);
  }
  return &it->second;
}

void Ledger::forget(const ObjectId& id, Mine* m) {
  auto at = by_home_.find(m->home);
  at->second.erase(id);
  if (at->second.empty()) by_home_.erase(at);
  if (m->first != 0) pending_.erase({m->first, id});
  mine_.erase(id);
}

// The level may have changed. `m` may be gone afterwards.
void Ledger::update(const ObjectId& id, Mine* m, int64_t now, LedgerActions* out) {
  const auto bits =
      static_cast<uint8_t>((m->held || m->transits > 0 ? kHeld : 0) | (m->stored ? kStored : 0));
  if (bits == m->bits) {
    if (m->version == 0) forget(id, m);  // nothing was ever said
    return;
  }
  m->bits = bits;
  tell(id, m, now, out);
}

void Ledger::tell(const ObjectId& id, Mine* m, int64_t now, LedgerActions* out) {
  m->version = ++version_;
  if (m->home == self_) {
    LedgerMessage level;
    level.id = id;
    level.bits = m->bits;
    level.origin = m->origin;
    level.version = m->version;
    level.floor = m->version - 1;  // nothing of this node is ever under way to itself
    level.view = members_.view();
    arrivals_are_due(m, m->version, now, out);
    if (m->first != 0) pending_.erase({m->first, id});
    m->first = 0;
    if (m->bits == 0) forget(id, m);
    return on_level(self_, level, now, out);
  }
  if (m->first == 0) {
    m->first = m->version;
    pending_.insert({m->first, id});
  }
  later(now);
  if (m->home != kNowhere) say_level(id, *m, out);
}

void Ledger::say_level(const ObjectId& id, const Mine& m, LedgerActions* out) {
  LedgerMessage level;
  level.id = id;
  level.bits = m.bits;
  level.origin = m.origin;
  level.version = m.version;
  level.floor = floor();
  level.view = members_.view();
  peers_[m.home].told_floor = level.floor;
  say(m.home, level, out);
}

void Ledger::acknowledge(Place home, const ObjectId& id, uint64_t version, int64_t now, LedgerActions* out) {
  auto it = mine_.find(id);
  if (it == mine_.end()) return;
  Mine& m = it->second;
  if (home != m.home || m.first == 0 || version < m.first || version > m.version) return;
  pending_.erase({m.first, id});
  m.first = version == m.version ? 0 : version + 1;
  if (m.first != 0) pending_.insert({m.first, id});
  arrivals_are_due(&m, version, now, out);
  if (m.first == 0 && m.bits == 0) forget(id, &m);
  later(now);  // to say the new floor
  settle(now, out);
}

// ---- in transit

uint64_t Ledger::sends(const ObjectId& id, Place to) {
  auto it = mine_.find(id);
  if (it == mine_.end() || !(it->second.bits & kHeld) || !members_.alive(to)) return 0;
  ++it->second.transits;
  transits_[next_transit_] = {id, to};
  return next_transit_++;
}

void Ledger::unsent(uint64_t transit, int64_t now, LedgerActions* out) { end_transit(transit, now, out); }

void Ledger::end_transit(uint64_t transit, int64_t now, LedgerActions* out) {
  auto it = transits_.find(transit);
  if (it == transits_.end()) return;
  const ObjectId id = it->second.id;
  transits_.erase(it);
  Mine& m = mine_[id];
  --m.transits;
  update(id, &m, now, out);
}

void Ledger::received(Place from, uint64_t transit, const ObjectId& id, int64_t now, LedgerActions* out) {
  if (transit == 0 || !members_.alive(from)) return;
  auto [arrival, fresh] = arrivals_.try_emplace({from, transit});
  if (!fresh) return;
  auto it = mine_.find(id);
  arrival->second.due = it == mine_.end() || it->second.first == 0;
  if (arrival->second.due) {
    say_arrived(from, transit, out);
  } else {
    arrival->second.version = it->second.version;
    it->second.arrivals.push_back({from, transit});
  }
  later(now);
}

void Ledger::say_arrived(Place to, uint64_t transit, LedgerActions* out) const {
  LedgerMessage m;
  m.kind = LedgerKind::kArrived;
  m.version = transit;
  say(to, m, out);
}

void Ledger::arrivals_are_due(Mine* m, uint64_t version, int64_t now, LedgerActions* out) {
  std::erase_if(m->arrivals, [&](auto& key) {
    auto it = arrivals_.find(key);
    if (it == arrivals_.end()) return true;  // its sender died
    if (it->second.version > version) return false;
    it->second.due = true;
    say_arrived(key.first, key.second, out);
    later(now);
    return true;
  });
}

// ---- as a home

bool Ledger::held(const ObjectId& id) const {
  auto it = entries_.find(id);
  if (it == entries_.end()) return false;
  return std::any_of(it->second.holders.begin(), it->second.holders.end(), [](auto& h) { return h.second.bits & kHeld; });
}

size_t Ledger::remembered() const {
  size_t sum = 0;
  for (auto& [place, peer] : peers_) sum += peer.zeros.size();
  return sum;
}

void Ledger::on_level(Place from, const LedgerMessage& m, int64_t now, LedgerActions* out) {
  Peer& peer = peers_[from];
  raise_floor(from, m.floor);
  auto known = entries_.find(m.id);
  const bool stale = m.version <= peer.floor || (known != entries_.end() && known->second.holders.count(from) &&
                                                 known->second.holders[from].version >= m.version);
  if (!stale) {
    Entry& e = entries_[m.id];
    e.origin = m.origin;
    if (m.origin != self_) e.since = std::max(e.since, m.view);
    e.holders[from] = {m.version, m.bits};
    by_holder_[from].insert(m.id);
    if (m.bits == 0) peer.zeros[m.version] = m.id;
    if (m.bits & kHeld) e.freed = false;
    consider(m.id, now, out);
  }
  if (from == self_) return raise_floor(self_, m.version);
  LedgerMessage answer;
  answer.kind = LedgerKind::kLevelAck;
  answer.id = m.id;
  answer.version = m.version;
  say(from, answer, out);
}

// Nothing that this node said up to there is under way any more: its levels of zero can be forgotten.
void Ledger::raise_floor(Place from, uint64_t floor) {
  Peer& peer = peers_[from];
  peer.floor = std::max(peer.floor, floor);
  while (!peer.zeros.empty() && peer.zeros.begin()->first <= peer.floor) {
    const auto [version, id] = *peer.zeros.begin();
    peer.zeros.erase(peer.zeros.begin());
    auto e = entries_.find(id);
    if (e == entries_.end()) continue;
    auto h = e->second.holders.find(from);
    if (h != e->second.holders.end() && h->second.version == version) remove_holder(id, from);
  }
}

void Ledger::remove_holder(const ObjectId& id, Place place) {
  auto by = by_holder_.find(place);
  by->second.erase(id);
  if (by->second.empty()) by_holder_.erase(by);
  auto e = entries_.find(id);
  e->second.holders.erase(place);
  if (!e->second.holders.empty() || waiting_.count(id)) return;
  dropping_.erase(id);
  entries_.erase(e);
}

// Frees it when nobody holds it and nobody can who has not said so.
void Ledger::consider(const ObjectId& id, int64_t now, LedgerActions* out) {
  auto it = entries_.find(id);
  if (it == entries_.end()) return;
  Entry& e = it->second;
  waiting_.erase(id);
  dropping_.erase(id);
  if (held(id)) return;
  if (e.origin != self_ && (members_.view() < e.since || !quiet())) {
    waiting_.insert(id);
    return;
  }
  if (!e.freed) {
    e.freed = true;
    LedgerAction a{};
    a.kind = LedgerAction::kFreed;
    a.id = id;
    out->push_back(a);
  }
  bool own = false;
  for (auto& [place, h] : e.holders) {
    if (!(h.bits & kStored)) continue;
    LedgerMessage m;
    m.kind = LedgerKind::kDrop;
    m.id = id;
    m.version = h.version;
    if (place == self_) own = true;
    else say(place, m, out), dropping_.insert(id), later(now);
  }
  if (e.holders.empty()) entries_.erase(it);
  if (!own) return;
  LedgerAction a{};
  a.kind = LedgerAction::kDrop;
  a.id = id;
  out->push_back(a);
  unstored(id, now, out);
}

// The version says which level the home decided on: meanwhile this node may hold it again.
void Ledger::on_drop(Place from, const LedgerMessage& m, int64_t now, LedgerActions* out) {
  auto it = mine_.find(m.id);
  if (it == mine_.end() || it->second.home != from || it->second.version != m.version || it->second.bits != kStored) return;
  LedgerAction a{};
  a.kind = LedgerAction::kDrop;
  a.id = m.id;
  out->push_back(a);
  unstored(m.id, now, out);
}

// ---- views

bool Ledger::quiet() const {
  for (auto& [place, peer] : peers_)
    if (peer.barrier < members_.last_death()) return false;
  return true;
}

bool Ledger::joined(uint64_t view, Place place, int64_t now, LedgerActions* out) {
  if (!members_.joined(view, place)) return false;
  peers_[place].barrier = view;  // it never accepted anything from those who died before
  re_home(kNowhere, now, out);   // it may be the home of what came with a reference before this news
  later(now);                    // to tell it this node's barrier
  settle(now, out);
  return true;
}

bool Ledger::died(uint64_t view, Place place, int64_t now, LedgerActions* out) {
  if (!members_.died(view, place)) return false;
  peers_.erase(place);
  for (auto it = arrivals_.lower_bound({place, 0}); it != arrivals_.end() && it->first.first == place;)
    it = arrivals_.erase(it);
  if (!members_.alive(self_)) return true;  // what was before this node came
  re_home(place, now, out);
  barrier_view_ = view;
  barrier_version_ = version_;
  settle(now, out);
  return true;
}

// What was told to a node that has died is told to the next home.
void Ledger::re_home(Place dead, int64_t now, LedgerActions* out) {
  auto found = by_home_.find(dead);
  if (found == by_home_.end()) return;
  const std::set<ObjectId> ids = std::move(found->second);
  by_home_.erase(found);
  for (const ObjectId& id : ids) {
    Mine& m = mine_[id];
    if (!members_.home(id, m.origin, &m.home)) m.home = kNowhere;
    by_home_[m.home].insert(id);
    if (m.bits == 0 && dead != kNowhere) {  // the next home never heard that it was more
      arrivals_are_due(&m, m.version, now, out);
      forget(id, &m);
    } else if (m.home != kNowhere) {
      tell(id, &m, now, out);
    }
  }
}

void Ledger::settle(int64_t now, LedgerActions* out) {
  auto self = peers_.find(self_);
  if (self == peers_.end()) return;
  if (self->second.barrier < barrier_view_ && (pending_.empty() || pending_.begin()->first > barrier_version_)) {
    self->second.barrier = barrier_view_;
    for (auto& [place, peer] : peers_)
      if (place != self_) say_barrier(place, out);
    later(now);
  }
  if ((passed_view_ < members_.last_death() || !waiting_.empty()) && quiet()) pass(now, out);
}

void Ledger::say_barrier(Place to, LedgerActions* out) const {
  LedgerMessage m;
  m.kind = LedgerKind::kBarrier;
  m.view = peers_.at(self_).barrier;
  say(to, m, out);
}

// All are through with the last death.
void Ledger::pass(int64_t now, LedgerActions* out) {
  if (passed_view_ < members_.last_death()) {
    passed_view_ = members_.last_death();
    std::vector<std::pair<Place, ObjectId>> gone;
    for (auto& [place, ids] : by_holder_)
      if (!members_.alive(place))
        for (const ObjectId& id : ids) gone.push_back({place, id});
    for (auto& [place, id] : gone) {
      waiting_.insert(id);  // it stays until it was considered
      remove_holder(id, place);
    }
    std::vector<uint64_t> ended;
    for (auto& [number, t] : transits_)
      if (!members_.alive(t.to)) ended.push_back(number);
    for (uint64_t number : ended) end_transit(number, now, out);
  }
  const std::set<ObjectId> waiting = waiting_;
  for (const ObjectId& id : waiting) consider(id, now, out);
}

// ---- messages and time

void Ledger::message(Place from, const LedgerMessage& m, int64_t now, LedgerActions* out) {
  auto peer = peers_.find(from);
  if (peer == peers_.end() || from == self_) return;  // dead, or its joining is not known here yet: it will say it again
  switch (m.kind) {
    case LedgerKind::kLevel: return on_level(from, m, now, out);
    case LedgerKind::kLevelAck: return acknowledge(from, m.id, m.version, now, out);
    case LedgerKind::kFloor: return raise_floor(from, m.floor);
    case LedgerKind::kDrop: return on_drop(from, m, now, out);
    case LedgerKind::kArrivedAck: arrivals_.erase({from, m.version}); return;
    case LedgerKind::kBarrierAck:
      peer->second.acknowledged = std::max(peer->second.acknowledged, m.view);
      return;
    case LedgerKind::kArrived: {
      auto t = transits_.find(m.version);
      if (t != transits_.end() && t->second.to == from) end_transit(m.version, now, out);
      LedgerMessage answer = m;
      answer.kind = LedgerKind::kArrivedAck;
      return say(from, answer, out);
    }
    case LedgerKind::kBarrier: {
      peer->second.barrier = std::max(peer->second.barrier, m.view);
      LedgerMessage answer = m;
      answer.kind = LedgerKind::kBarrierAck;
      say(from, answer, out);
      return settle(now, out);
    }
  }
}

void Ledger::reconnected(Place place, int64_t now, LedgerActions* out) {
  if (!members_.alive(place)) return;
  peers_[place].told_floor = 0;
  retry_at_ = now;
  tick(now, out);
}

void Ledger::tick(int64_t now, LedgerActions* out) {
  if (now < retry_at_) return;
  retry_at_ = INT64_MAX;
  for (auto& [first, id] : pending_)
    if (mine_[id].home != kNowhere) say_level(id, mine_[id], out), later(now);
  for (auto& [key, arrival] : arrivals_)
    if (arrival.due) say_arrived(key.first, key.second, out), later(now);
  auto self = peers_.find(self_);
  if (self == peers_.end()) return;
  for (auto& [place, peer] : peers_) {
    if (place == self_) continue;
    if (self->second.barrier == barrier_view_ && peer.acknowledged < barrier_view_) say_barrier(place, out), later(now);
    if (peer.told_floor >= floor()) continue;
    LedgerMessage m;
    m.kind = LedgerKind::kFloor;
    m.floor = peer.told_floor = floor();
    say(place, m, out);
  }
  const std::set<ObjectId> dropping = dropping_;
  for (const ObjectId& id : dropping) consider(id, now, out);
}

}  // namespace ray::transfer
