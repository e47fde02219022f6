// See ledger_world.h.
#include "tests/transfer/ledger_world.h"

#include <algorithm>
#include <cstring>

namespace ray::transfer {

namespace {
constexpr int64_t kMs = 1'000'000;
}

LedgerWorld::LedgerWorld(uint64_t seed, const Options& options) : options_(options), rng_(seed) {
  nodes_.reserve(1000);
  for (uint32_t i = 0; i < options.nodes; ++i) join(i);
}

LedgerWorld::Node* LedgerWorld::living(Place place) {
  Node& n = nodes_[place.node - 1];
  return n.alive ? &n : nullptr;
}

void LedgerWorld::at_node(int64_t time, Place place, std::function<void(Node&)> what) {
  at(time, [this, place, what = std::move(what)]() mutable {
    Node* n = living(place);
    if (!n) return;
    if (n->paused_until > now_) return at_node(n->paused_until, place, std::move(what));
    what(*n);
  });
}

// ---- views

// A view for all who live, in order; who joins is told all of them before it does anything.
void LedgerWorld::join(uint32_t index) {
  nodes_.emplace_back();
  Node& n = nodes_.back();
  n.place = {index + 1, 1};
  n.ledger = std::make_unique<Ledger>(n.place, LedgerOptions{50 * kMs});
  views_.push_back({n.place, true});
  tell_view(n, views_.size());
  for (Node& other : nodes_)
    if (other.alive && !(other.place == n.place)) {
      other.view_at = std::max(other.view_at, now_ + static_cast<int64_t>(random(100)) * kMs);
      at_node(other.view_at, other.place, [this, view = views_.size()](Node& node) { tell_view(node, view); });
    }
}

void LedgerWorld::kill(uint32_t index) {
  Node& n = nodes_[index];
  n.alive = false;
  ++deaths_;
  views_.push_back({n.place, false});
  for (Node& other : nodes_) {
    if (!other.alive) continue;
    other.view_at = std::max(other.view_at, now_ + static_cast<int64_t>(random(300)) * kMs);
    at_node(other.view_at, other.place, [this, view = views_.size()](Node& node) { tell_view(node, view); });
    if (options_.fault == kFalseBarriers)
      for (Node& to : nodes_) forge(other.place, to.place, LedgerKind::kBarrier, 0, views_.size());
  }
}

void LedgerWorld::tell_view(Node& n, size_t last) {
  LedgerActions out;
  for (size_t view = n.ledger->members().view() + 1; view <= last; ++view) {
    const auto [place, came] = views_[view - 1];
    const bool taken = came ? n.ledger->joined(view, place, now_, &out) : n.ledger->died(view, place, now_, &out);
    if (!taken) fail("a view in its order was not taken");
  }
  apply(n, out);
}

// ---- messages

void LedgerWorld::apply(Node& n, LedgerActions& actions) {
  for (const LedgerAction& a : actions) {
    if (a.kind == LedgerAction::kSend) post(n, a.place, a.message);
    if (a.kind == LedgerAction::kFreed) check_unused(a.id, "freed"), ++freed_;
    if (a.kind == LedgerAction::kDrop) check_unused(a.id, "dropped"), n.stored.erase(a.id);
  }
  if (n.ledger->deadline() == INT64_MAX) return;
  at_node(std::max(n.ledger->deadline(), now_), n.place, [this](Node& node) {
    LedgerActions out;
    node.ledger->tick(now_, &out);
    if (!out.empty()) apply(node, out);
  });
}

void LedgerWorld::post(Node& n, Place to, const LedgerMessage& m) {
  if (options_.fault == kNoDrops && m.kind == LedgerKind::kDrop) return;
  if (options_.fault == kNoReleases && m.kind == LedgerKind::kLevel && m.bits == 0 && n.place.node == 1) return;
  std::string bytes;
  encode(m, &bytes);
  int copies = 1;
  if (options_.losses && harmful_ && random(10) == 0) copies = static_cast<int>(random(3));
  for (; copies > 0; --copies)
    at_node(now_ + static_cast<int64_t>(random(random(10) ? 10 : 200)) * kMs, to, [this, from = n.place, bytes](Node& node) {
      LedgerMessage read;
      if (!decode(bytes, &read).ok()) return fail("a message that cannot be read");
      LedgerActions out;
      node.ledger->message(from, read, now_, &out);
      apply(node, out);
    });
}

void LedgerWorld::forge(Place from, Place to, LedgerKind kind, uint64_t version, uint64_t view) {
  at_node(now_, to, [this, from, kind, version, view](Node& node) {
    LedgerMessage m;
    m.kind = kind;
    m.version = version;
    m.view = view;
    LedgerActions out;
    node.ledger->message(from, m, now_, &out);
    apply(node, out);
  });
}

// References go in order and once, as sessions carry them; from one who died they come until the receiver knows it.
void LedgerWorld::send_reference(Node& n) {
  if (n.held.empty()) return;
  auto it = n.held.begin();
  std::advance(it, random(n.held.size()));
  const auto all = n.ledger->members().living();
  const Place to = all[random(all.size())];
  if (to == n.place) return;
  const uint64_t transit = n.ledger->sends(it->first, to), number = next_reference_++;
  if (transit == 0) return fail("what is held cannot be sent");
  flying_[number] = {n.place, to, it->first};
  int64_t& last = last_[{n.place, to}];
  last = std::max(last, now_ + static_cast<int64_t>(random(random(8) ? 20 : 400)) * kMs);
  at_node(last, to, [this, number, transit, origin = it->second](Node& node) { arrive(node, number, transit, origin); });
  if (options_.fault == kFalseArrivals) forge(to, n.place, LedgerKind::kArrived, transit, 0);
}

void LedgerWorld::arrive(Node& n, uint64_t reference, uint64_t transit, Place origin) {
  const Reference r = flying_[reference];
  flying_.erase(reference);
  if (!n.ledger->members().known(r.from)) {  // its joining is not known here yet: no session either
    flying_[reference] = r;
    return at_node(now_ + 5 * kMs, n.place, [=, this](Node& node) { arrive(node, reference, transit, origin); });
  }
  if (!n.ledger->accepts(r.from)) return;
  LedgerActions out;
  n.held[r.id] = origin;
  n.ledger->hold(r.id, origin, now_, &out);
  n.ledger->received(r.from, transit, r.id, now_, &out);
  apply(n, out);
}

// ---- what nodes do

void LedgerWorld::act() {
  const auto some = static_cast<uint32_t>(random(nodes_.size()));
  Node& n = nodes_[some];
  if (!n.alive || n.paused_until > now_) return;
  LedgerActions out;
  const uint64_t what = random(12);
  if (what < 2) {
    ObjectId id;
    std::memcpy(id.b, &next_id_, sizeof next_id_);
    ++next_id_;
    n.held[id] = n.place;
    n.ledger->hold(id, n.place, now_, &out);
  } else if (what < 7) {
    send_reference(n);
  } else if (!n.held.empty()) {
    auto it = n.held.begin();
    std::advance(it, random(n.held.size()));
    const auto [id, origin] = *it;
    if (what < 9 && n.stored.insert(id).second) n.ledger->stored(id, origin, now_, &out);
    if (what >= 9) n.held.erase(id), n.ledger->release(id, now_, &out);
  }
  apply(n, out);
  if (options_.pauses && random(300) == 0) n.paused_until = now_ + static_cast<int64_t>(random(1500)) * kMs;
  const auto living = std::count_if(nodes_.begin(), nodes_.end(), [](auto& node) { return node.alive; });
  if (!options_.deaths || random(80)) return;
  if (living > 2) kill(some);
  if (living < 4 || random(2)) join(static_cast<uint32_t>(nodes_.size()));
}

void LedgerWorld::check_unused(const ObjectId& id, const char* what) {
  for (Node& n : nodes_)
    if (n.alive && n.held.count(id)) return fail(std::string(what) + " while node " + std::to_string(n.place.node) + " holds it");
  for (auto& [number, r] : flying_) {
    if (!(r.id == id) || !living(r.to)) continue;
    Ledger& to = *living(r.to)->ledger;
    if (to.accepts(r.from) || !to.members().known(r.from)) return fail(std::string(what) + " while a reference is on its way");
  }
}

void LedgerWorld::run(int64_t ns) {
  const int64_t until = now_ + ns;
  int64_t next = now_;
  while (wrong_.empty()) {
    const int64_t event = events_.empty() ? INT64_MAX : events_.begin()->first.first;
    const int64_t other = harmful_ ? next : INT64_MAX;
    if (std::min(event, other) > until) break;
    now_ = std::max(now_, std::min(event, other));
    if (other <= event) {
      next += 2 * kMs;
      act();
      continue;
    }
    auto what = std::move(events_.begin()->second);
    events_.erase(events_.begin());
    what();
  }
  now_ = std::max(now_, until);
}

void LedgerWorld::calm(int64_t ns) {
  harmful_ = false;
  run(3000 * kMs);  // what is on its way arrives, and who stands still goes on
  for (Node& n : nodes_) {
    LedgerActions out;
    for (auto& [id, origin] : n.held)
      if (n.alive) n.ledger->release(id, now_, &out);
    n.held.clear();
    if (n.alive) apply(n, out);
  }
  run(ns);
}

std::string LedgerWorld::verdict() {
  if (!wrong_.empty()) return wrong_;
  for (Node& n : nodes_)
    if (n.alive && !n.stored.empty()) return "a copy that nobody holds is kept";
  for (Node& n : nodes_) {
    if (!n.alive) continue;
    const std::string who = " at node " + std::to_string(n.place.node);
    if (n.ledger->transits()) return "a reference is still on its way" + who;
    if (n.ledger->levels()) return "a level is left" + who;
    if (n.ledger->homed()) return "an entry is left" + who;
    if (n.ledger->remembered()) return "a level of zero is remembered" + who;
  }
  return "";
}

}  // namespace ray::transfer
