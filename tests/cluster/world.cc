// See world.h.
#include "tests/cluster/world.h"

#include <algorithm>

namespace ray::cluster {

using sim::kMs;
using sim::kSecond;

namespace {

constexpr int64_t kSilent = 5 * kSecond;  // a session gives up a connection on which nothing was heard
constexpr int64_t kSlack = 2 * kSecond;   // of bounds: timers, delays, redials
constexpr int kToHead = 0, kToMember = 1;

NodeId id_of(uint64_t number) {
  NodeId id;
  std::memcpy(id.b, &number, sizeof number);
  id.b[23] = 1;
  return id;
}

std::string echo(const std::string& text) { return "echo of " + text; }

std::string text_of(const std::map<NodeIndex, Row>& rows) {
  Message m;
  m.kind = Kind::kTable;
  for (const auto& [index, row] : rows) m.rows.push_back(row);
  return encode(m);
}

}  // namespace

World::World(const WorldOptions& options) : options_(options), random_(options.seed) {
  Node* h = &nodes_[0];
  h->id = id_of(0);
  About self;
  self.id = h->id;
  self.address = "head";
  numbers_[h->id] = 0;
  HeadActions actions;
  head_ = std::make_unique<Head>(self, id_of(777), head_options_, clock_.now(), &actions);
  apply(std::move(actions));
  timer(h);
  for (uint32_t i = 0; i < options.nodes; ++i) add_node();
  run(kSecond);
}

void World::add_node() {
  const uint64_t number = next_++;
  Node& n = nodes_[number];
  n.number = number;
  n.id = id_of(number);
  numbers_[n.id] = number;
  About self;
  self.id = n.id;
  self.address = strprintf("n%llu", static_cast<unsigned long long>(number));
  self.resources["CPU"] = 1 + random_.below(8);
  n.member = std::make_unique<Member>(self, "head", member_options_, clock_.now());
  links_[number];
  redial(number, kMs);
  timer(&n);
}

// ---- connections

// What happens at a node waits, in order, while it is stopped, and is nothing once it is gone.
void World::at_node(uint64_t number, std::function<void(Node*)> what) {
  Node& n = nodes_.at(number);
  if (!n.running) return;
  if (n.paused_until > clock_.now() || !n.inbox.empty()) {
    n.inbox.push_back(std::move(what));
    if (n.inbox.size() == 1) clock_.at(n.paused_until, [this, number] { go_on(number); });
    return;
  }
  what(&n);
  timer(&n);
}

void World::go_on(uint64_t number) {
  Node& n = nodes_.at(number);
  if (n.paused_until > clock_.now()) return clock_.at(n.paused_until, [this, number] { go_on(number); });
  while (n.running && !n.inbox.empty()) {
    n.inbox.front()(&n);
    n.inbox.pop_front();
  }
  timer(&n);
}

void World::redial(uint64_t number, int64_t after) {
  const uint64_t turn = ++links_.at(number).turn;
  clock_.after(after, [this, number, turn] {
    if (links_.at(number).turn == turn) connect(number);
  });
}

void World::connect(uint64_t number) {
  Link& l = links_.at(number);
  Node& n = nodes_.at(number);
  if (!n.running || l.up) return;
  if (n.paused_until > clock_.now() || head()->paused_until > clock_.now() || l.cut_off_until > clock_.now() ||
      !head()->running)
    return redial(number, 20 * kMs + random_.below(1000) * kMs);
  if (l.forgotten)
    return at_node(number, [this](Node* at) {
      MemberActions out;
      at->member->on_refused("dead for this cluster", clock_.now(), &out);
      apply(at, std::move(out));
    });
  l.up = true;
  for (int side : {kToHead, kToMember}) {
    if (l.up_at[side]) notice(number, side);
    l.up_at[side] = true;
  }
  at_node(0, [this, number](Node*) {
    HeadActions out;
    head_->on_up(static_cast<Peer>(number), nodes_.at(number).id, clock_.now(), &out);
    apply(std::move(out));
  });
  at_node(number, [this](Node* at) {
    MemberActions out;
    at->member->on_up(1, head()->id, clock_.now(), &out);
    apply(at, std::move(out));
  });
  for (int side : {kToHead, kToMember})
    for (int lane : {0, 1}) move(number, side, lane);
}

// One side learns that its connection is gone.
void World::notice(uint64_t number, int side) {
  Link& l = links_.at(number);
  if (!l.up_at[side]) return;
  l.up_at[side] = false;
  if (side == kToHead)
    at_node(0, [this, number](Node*) {
      HeadActions out;
      if (!faulty(Fault::kBlindHead)) head_->on_down(static_cast<Peer>(number), clock_.now(), &out);
      apply(std::move(out));
    });
  else
    at_node(number, [this](Node* at) {
      MemberActions out;
      if (!faulty(Fault::kDeafMembers)) at->member->on_down(1, clock_.now(), &out);
      apply(at, std::move(out));
    });
}

void World::cut(uint64_t number, bool silent) {
  Link& l = links_.at(number);
  l.harmed_at = clock_.now();
  if (!l.up) return;
  l.up = false;
  const uint64_t turn = ++l.turn;
  for (int side : {kToHead, kToMember})
    clock_.after(silent ? kSilent : kMs, [this, number, side, turn] {
      Link& at = links_.at(number);
      if (at.turn != turn) return;  // it is another connection by now
      at.harmed_at = clock_.now();
      notice(number, side);
      if (side == kToMember) redial(number, 20 * kMs + random_.below(60) * kMs);
    });
}

void World::push(uint64_t number, int side, bool urgent, std::string text) {
  Link& l = links_.at(number);
  const int lane = urgent ? 0 : 1;
  l.lane[side][lane].queue.push_back(std::move(text));
  move(number, side, lane);
}

void World::move(uint64_t number, int side, int lane) {
  Lane& w = links_.at(number).lane[side][lane];
  if (w.moving || w.queue.empty() || !links_.at(number).up) return;
  w.moving = true;
  clock_.after(random_.between(kMs / 10, 3 * kMs), [this, number, side, lane] {
    Link& l = links_.at(number);
    Lane& at = l.lane[side][lane];
    at.moving = false;
    if (!l.up) return;  // it is sent again over the next connection
    const std::string text = std::move(at.queue.front());
    at.queue.pop_front();
    at_node(side == kToHead ? 0 : number, [this, number, side, text](Node*) { arrive(number, side, text); });
    move(number, side, lane);
  });
}

void World::arrive(uint64_t number, int side, const std::string& text) {
  Message m;
  const Status s = decode(text, &m);
  if (!s.ok()) return fail(s.message());
  if (side == kToHead) {
    if (faulty(Fault::kLoseBeats) && number == 1 && m.kind == Kind::kBeat && harmful_) return;
    HeadActions out;
    head_->on_message(static_cast<Peer>(number), std::move(m), clock_.now(), &out);
    return apply(std::move(out));
  }
  if (faulty(Fault::kLoseTables) && m.kind == Kind::kTable && number == 1 && harmful_) return;
  if (faulty(Fault::kHideFencing) && m.kind == Kind::kFenced) return;
  if (faulty(Fault::kSameIndex) && m.kind == Kind::kWelcome && number == 2) m.index = 1;
  MemberActions out;
  Node* n = &nodes_.at(number);
  if (faulty(Fault::kServeDead) && m.kind == Kind::kTable && !n->seen.empty())
    for (const Row& row : m.rows)
      if (row.state == State::kDead) {  // it is told, and then served all the same
        Message late;
        late.from = row.index, late.to = n->member->index(), late.number = 1 << 20;
        apply(n, [&] { MemberActions a; n->member->on_message(1, m, clock_.now(), &a); return a; }());
        return served(n, late);
      }
  n->member->on_message(1, std::move(m), clock_.now(), &out);
  apply(n, std::move(out));
}

// ---- actions

void World::apply(HeadActions actions) {
  for (HeadAction& a : actions) switch (a.kind) {
      case HeadAction::kSend: push(a.peer, kToMember, a.urgent, std::move(a.text)); break;
      case HeadAction::kRow: head_row(a.row); break;
      case HeadAction::kForget:
        if (faulty(Fault::kHideFencing)) break;
        links_.at(numbers_.at(a.id)).forgotten = true;
        cut(numbers_.at(a.id), false);
        break;
      case HeadAction::kServe: served(head(), a.message); break;
      case HeadAction::kAnswer: {
        CallActions out;
        head()->calls.on_answer(a.message, &out);
        apply(head(), std::move(out));
        break;
      }
      case HeadAction::kLoad:
      case HeadAction::kLog: break;
    }
}

void World::apply(Node* n, MemberActions actions) {
  for (MemberAction& a : actions) switch (a.kind) {
      case MemberAction::kSend: push(n->number, kToHead, a.urgent, std::move(a.text)); break;
      case MemberAction::kJoined: {
        auto it = given_.find(n->member->index());
        if (it == given_.end() || it->second != n->id) fail("a node was told an index that is another's");
        break;
      }
      case MemberAction::kRow: check_row(n, a.row); break;
      case MemberAction::kServe: served(n, a.message); break;
      case MemberAction::kAnswer: {
        CallActions out;
        n->calls.on_answer(a.message, &out);
        apply(n, std::move(out));
        break;
      }
      case MemberAction::kEnd:
        if (a.code != RAY_NODE_DIED && links_.at(n->number).harmed_at == INT64_MIN && head_harmed_at_ == INT64_MIN)
          fail("a node that nothing happened to ended: " + a.text);
        stop(n, false);
        break;
      case MemberAction::kLog: break;
    }
}

void World::apply(Node* n, CallActions actions) {
  for (CallAction& a : actions) switch (a.kind) {
      case CallAction::kSend:
        if (faulty(Fault::kWrongAnswer) && a.message.kind == Kind::kAnswer && random_.one_in(20)) a.message.text += "?";
        if (n->number == 0) {
          HeadActions out;
          a.message.from = kHead;
          head_->pass(std::move(a.message), &out);
          apply(std::move(out));
        } else {
          MemberActions out;
          n->member->pass(std::move(a.message), &out);
          apply(n, std::move(out));
        }
        break;
      case CallAction::kServe: {  // answered a moment later
        const Message m = a.message;
        clock_.after(random_.between(0, 20 * kMs), [this, number = n->number, m] {
          at_node(number, [this, m](Node* at) {
            CallActions out;
            at->calls.answer(m.from, m.number, RAY_OK, echo(m.text), &out);
            apply(at, std::move(out));
          });
        });
        break;
      }
      case CallAction::kDone: done(n, a); break;
    }
}

void World::served(Node* n, const Message& m) {
  auto it = n->seen.find(m.from);
  if (it != n->seen.end() && it->second.state == State::kDead)
    fail(strprintf("a request of node %u is served by one that knows it to be dead", m.from));
  CallActions out;
  n->calls.on_request(m, &out);
  if (random_.one_in(10)) n->calls.on_request(m, &out);  // as if it had come twice
  apply(n, std::move(out));
}

void World::done(Node* n, const CallAction& a) {
  auto it = n->pending.find(a.number);
  if (it == n->pending.end()) return fail("a call ended twice");
  const Pending p = it->second;
  n->pending.erase(it);
  if (clock_.now() > p.until + kSlack && n->paused_until == 0) fail("a call ended too late");
  if (a.code == RAY_OK) {
    ++answered_;
    if (a.text != p.want) fail("a call was answered with '" + a.text + "' instead of '" + p.want + "'");
    return;
  }
  ++failed_;
  if (!given_.count(p.to) || (!excused(given_[p.to]) && !excused(n->id)))
    fail(strprintf("a call of node %u failed without a reason: %s", p.to, a.text.c_str()));
}

// Whether there was trouble lately that explains what happens to this node.
bool World::excused(const NodeId& id) {
  const uint64_t number = numbers_.at(id);
  const int64_t since = clock_.now() - head_options_.dead_ns - kSilent - kSlack;
  if (head_harmed_at_ >= since || !head()->running) return true;
  if (number == 0) return false;
  for (const auto& [index, row] : head()->seen)
    if (row.about.id == id && row.state == State::kDead) return true;
  return !nodes_.at(number).running || links_.at(number).harmed_at >= since;
}

// ---- books

void World::head_row(const Row& row) {
  const bool blameless = row.state == State::kDead && !excused(row.about.id);
  check_row(head(), row);
  auto [it, fresh] = given_.try_emplace(row.index, row.about.id);
  if (!fresh && it->second != row.about.id) fail("an index was given twice");
  if (fresh && row.epoch != ++view_) fail("the view of a join is not the next one");
  if (row.state != State::kDead) return;
  ++deaths_;
  if (row.died != ++view_) fail("the view of a death is not the next one");
  const Node& n = nodes_.at(numbers_.at(row.about.id));
  if (n.running) ++zombies_;
  if (blameless)
    fail(strprintf("node %u was declared dead without a reason: %s", row.index, row.cause.c_str()));
  std::erase_if(to_notice_, [&](const Dead& d) { return d.id == row.about.id; });
  if (faulty(Fault::kRevive)) {
    Message m;
    m.kind = Kind::kTable;
    m.rows.push_back(row);
    m.rows[0].state = State::kAlive;
    m.rows[0].died = 0;
    clock_.after(kSecond, [this, text = encode(m)] {
      for (auto& [number, l] : links_) push(number, kToMember, true, text);
    });
  }
}

void World::check_row(Node* n, const Row& row) {
  auto it = n->seen.find(row.index);
  if (it != n->seen.end()) {
    const Row& old = it->second;
    if (old.about.id != row.about.id || old.epoch != row.epoch) fail("a row is another node's than before");
    if (old.state == State::kDead && (row.state != State::kDead || row.died != old.died)) fail("a dead row changed");
  }
  if ((row.state == State::kDead) != (row.died != 0)) fail("a row is dead without a view of it");
  n->seen[row.index] = row;
  if (row.state != State::kDead) return;
  CallActions out;
  n->calls.on_dead(row, &out);
  apply(n, std::move(out));
}

// ---- time

void World::timer(Node* n) {
  if (!n->running) return;
  const int64_t core = n->number ? n->member->deadline() : head_->deadline();
  const int64_t at = faulty(Fault::kLoseAnswers) ? core : std::min(core, n->calls.deadline());
  const uint64_t turn = ++n->turn;
  if (at == INT64_MAX) return;
  clock_.at(at, [this, number = n->number, turn] {
    if (nodes_.at(number).turn != turn) return;
    at_node(number, [this](Node* at_it) {
      const int64_t now = clock_.now();
      CallActions calls;
      if (!faulty(Fault::kLoseAnswers)) at_it->calls.tick(now, &calls);
      apply(at_it, std::move(calls));
      if (at_it->number == 0) {
        HeadActions out;
        head_->tick(now, &out);
        apply(std::move(out));
      } else {
        MemberActions out;
        at_it->member->tick(now, &out);
        apply(at_it, std::move(out));
      }
    });
  });
}

void World::stop(Node* n, bool crash) {
  n->running = false;
  n->pending.clear();
  Link& l = links_.at(n->number);
  l.harmed_at = clock_.now();
  ++l.turn;
  l.up = false;
  clock_.after(kMs, [this, number = n->number] { notice(number, kToHead); });
  const Row* row = head_->find(n->member->index());
  if (!crash || !row || row->state == State::kDead || !head()->running) return;
  const bool late = clock_.now() < head_harmed_at_ + kSlack;  // it was stopped, and everybody has as long again
  to_notice_.push_back({n->id, std::max(clock_.now(), head_harmed_at_) + kSlack +
                                   (late ? head_options_.dead_ns : head_options_.grace_ns)});
}

void World::pause(Node* n, int64_t ns) {
  n->paused_until = std::max(n->paused_until, clock_.now() + ns);
  (n->number ? links_.at(n->number).harmed_at : head_harmed_at_) = n->paused_until;
  for (auto& [number, l] : links_) {
    if ((n->number && number != n->number) || !l.up || ns <= kSilent) continue;
    cut(number, true);
  }
  for (Dead& d : to_notice_)
    if (n->number == 0) d.by = std::max(d.by, n->paused_until + head_options_.dead_ns + kSlack);
}

void World::kill_head() {
  Node* h = &nodes_[0];
  h->running = false;
  head_harmed_at_ = clock_.now();
  to_notice_.clear();
  for (auto& [number, l] : links_) {
    if (!l.up) continue;
    l.up = false;
    ++l.turn;
    clock_.after(kMs, [this, number = number] {
      notice(number, kToMember);
      redial(number, 20 * kMs);
    });
  }
}

// ---- the mix

void World::call() {
  std::vector<uint64_t> callers;
  for (auto& [number, n] : nodes_)
    if (n.running && n.paused_until <= clock_.now() && (number == 0 || n.member->joined())) callers.push_back(number);
  if (callers.empty() || given_.empty()) return;
  const uint64_t number = callers[random_.below(static_cast<uint32_t>(callers.size()))];
  const NodeIndex to = random_.below(static_cast<uint32_t>(given_.size()));
  at_node(number, [this, to](Node* n) {
    const std::string text = strprintf("%llu", static_cast<unsigned long long>(random_.next()));
    CallActions out;
    const int64_t until = clock_.now() + kSecond;
    n->pending[n->calls.call(to, 1, text, until, &out)] = {echo(text), until, to};
    if (faulty(Fault::kLoseAnswers) && random_.one_in(10)) out.clear();
    apply(n, std::move(out));
  });
}

void World::harm() {
  std::vector<uint64_t> members;
  for (auto& [number, n] : nodes_)
    if (number && n.running) members.push_back(number);
  const auto any = [&] { return members[random_.below(static_cast<uint32_t>(members.size()))]; };
  if (options_.joins && random_.one_in(100) && members.size() < 12) add_node();
  if (options_.head_pauses && random_.one_in(400)) pause(head(), random_.between(0, 4 * kSecond));
  if (options_.head_dies && random_.one_in(300) && head()->running) kill_head();
  if (members.empty()) return;
  if (options_.cuts && random_.one_in(30)) cut(any(), false);
  if (options_.silent_cuts && random_.one_in(100)) cut(any(), true);
  if (options_.partitions && random_.one_in(100)) {
    const uint64_t number = any();
    links_.at(number).cut_off_until = clock_.now() + random_.between(0, 15 * kSecond);
    cut(number, random_.one_in(2));
    links_.at(number).harmed_at = links_.at(number).cut_off_until;
  }
  if (options_.pauses && random_.one_in(100)) pause(&nodes_.at(any()), random_.between(0, 15 * kSecond));
  if (options_.crashes && random_.one_in(150)) stop(&nodes_.at(any()), true);
  if (options_.leaves && random_.one_in(150))
    at_node(any(), [this](Node* n) {
      MemberActions out;
      n->member->leave("it leaves", &out);
      apply(n, std::move(out));
      links_.at(n->number).harmed_at = clock_.now();
      clock_.after(50 * kMs, [this, number = n->number] {
        if (nodes_.at(number).running) stop(&nodes_.at(number), true);
      });
    });
}

void World::run(int64_t ns) {
  const int64_t until = clock_.now() + ns;
  bool over = false;
  clock_.at(until, [&over] { over = true; });
  while (!over && wrong_.empty() && clock_.step()) {
    for (const Dead& d : to_notice_)
      if (clock_.now() > d.by && head()->running) fail("the head does not notice a death");
  }
}

void World::trouble(int64_t ns) {
  harmful_ = true;
  for (int64_t left = ns; left > 0 && wrong_.empty(); left -= 50 * kMs) {
    if (random_.one_in(3)) call();
    harm();
    run(50 * kMs);
  }
  harmful_ = false;
}

void World::calm(int64_t ns) {
  for (auto& [number, l] : links_) l.cut_off_until = 0;
  run(20 * kSecond + ns / 2);
  if (wrong_.empty() && head()->running && options_.fault == Fault::kNone) {
    for (int i = 0; i < 50; ++i) {
      run(20 * kMs);
      call();
    }
    run(kSlack);
  }
  run(ns / 2);
}

std::string World::verdict() {
  if (!wrong_.empty()) return wrong_;
  const std::string truth = text_of(head()->seen);
  for (auto& [number, n] : nodes_) {
    if (!n.pending.empty() && n.running) return strprintf("%zu calls have not ended", n.pending.size());
    if (number == 0 || !n.running) continue;
    const std::string name = strprintf("node %llu", static_cast<unsigned long long>(number));
    if (!head()->running) return name + " goes on without a head";
    auto row = head()->seen.find(n.member->index());
    if (row == head()->seen.end()) return name + " has not joined";
    if (row->second.state == State::kDead) return name + " is dead for the cluster and goes on";
    if (text_of(n.seen) != truth) return name + " sees another table than the head";
  }
  return "";
}

}  // namespace ray::cluster
