// The world's schedulers, its control store, its groups and what goes wrong; see world.h.
#include <algorithm>

#include "libray/base/status.h"
#include "tests/sched_global/world.h"

namespace ray::global {

using sim::kMs;

void World::send(std::function<void()> what, bool surely) {
  if (harmful_ && !surely && options_.lose_one_in && random_.one_in(options_.lose_one_in)) return;
  clock_.after(random_.between(1, 2 * options_.delay_ns), what);
  if (harmful_ && options_.repeat_one_in && random_.one_in(options_.repeat_one_in))
    clock_.after(random_.between(1, 50 * options_.delay_ns), what);
}

// A scheduler with nothing but what the control store has: who is dead, and the groups that it is to place.
void World::start_instance(size_t i) {
  Instance& in = instances_[i];
  in.id = next_instance_++;
  Options o = options_.scheduler;
  o.view.instance = in.id;
  o.view.seed = options_.seed * 1000 + in.id;
  in.core = std::make_unique<GlobalScheduler>(o);
  in.dead.clear();
  in.timer = INT64_MAX;
  for (const auto& [index, n] : nodes_)
    if (!n.alive)
      to_instance(i, [&n = n](GlobalScheduler& s, int64_t t, Actions* out) { s.node_dead(n.index, n.epoch, t, out); });
  for (auto& [id, g] : groups_)
    if (g.owner % instances_.size() == i && !g.gone)
      to_instance(i, [&g = g](GlobalScheduler& s, int64_t now, Actions* out) {
        if (g.removed) s.groups().remove(g.row, now, out);
        else s.groups().place(g.row, now, out);
      });
}

void World::to_instance(size_t i, std::function<void(GlobalScheduler&, int64_t, Actions*)> what) {
  Actions actions;
  Instance& in = instances_[i];
  what(*in.core, now(), &actions);
  carry_out(i, actions);
  const int64_t at = std::max(in.core->deadline(), now() + 1);
  if (at >= in.timer || at == INT64_MAX) return;
  in.timer = at;
  clock_.at(at, [this, i, id = in.id, at] {
    if (instances_[i].id != id || instances_[i].timer != at) return;
    instances_[i].timer = INT64_MAX;
    to_instance(i, [](GlobalScheduler& s, int64_t t, Actions* out) { s.tick(t, out); });
  });
}

void World::carry_out(size_t i, Actions& actions) {
  for (Action& a : actions) {
    const InstanceId by = instances_[i].id;
    switch (a.kind) {
      case Action::kPlace:
        if (faulty(Fault::kWrongNode) && random_.one_in(20)) a.node = random_.below(next_node_);
        check_place(i, a);
        [[fallthrough]];
      case Action::kWait:
      case Action::kInfeasible:
        if (faulty(Fault::kLoseAnswers) && a.id.submit_index() % 50 == 0) break;
        send([this, a, by] { answer(a.to, a, by); });
        break;
      case Action::kPrepare:
      case Action::kCommit:
      case Action::kAbort:
      case Action::kRemove: send([this, i, by, a] { group_message(i, by, a); }); break;
      case Action::kRecord: send([this, i, by, a] { record(i, by, a); }); break;
      case Action::kGroupReady: group_ready(a); break;
      case Action::kGroupLost: groups_.at(a.id).ready = false; break;
      case Action::kGroupGone: groups_.at(a.id).gone = true; break;
      case Action::kGroupWaits:
      case Action::kGroupInfeasible:
        if (a.text.empty()) fail("a group waits and nobody knows why");
        break;
    }
  }
}

void World::check_place(size_t i, const Action& a) {
  const Demand& d = demands_.at(a.id);
  const Node& n = nodes_.at(a.node);
  if (!fits(n, d)) fail(strprintf("task %s was placed on node %u, which it does not fit\n", a.id.hex().c_str(), a.node) +
                        instances_[i].core->why(a.id));
  if (instances_[i].dead.count(a.node)) fail(strprintf("node %u is dead, and something was placed on it", a.node));
  if (!faulty(Fault::kBounce) && a.moved > options_.scheduler.max_hops) fail("a task is to move too often");
  if (++placed_ % 64 == 0 && instances_[i].core->why(a.id).empty()) fail("a decision was made and nobody knows why");
}

// ---- groups

Id World::create_group(Strategy strategy, std::vector<Resources> bundles) {
  Id id = object_of(child_task(origin_of(TaskId{}), next_group_), kActorIndex);
  GroupState& g = groups_[id];
  g.row.group = id;
  g.row.strategy = strategy;
  g.row.places.resize(bundles.size());
  g.row.bundles = std::move(bundles);
  g.owner = next_group_++;
  to_instance(g.owner % instances_.size(),
              [&g](GlobalScheduler& s, int64_t now, Actions* out) { s.groups().place(g.row, now, out); });
  return id;
}

void World::remove_group(const Id& id) {
  GroupState& g = groups_.at(id);
  g.removed = true;
  to_instance(g.owner % instances_.size(),
              [&g](GlobalScheduler& s, int64_t now, Actions* out) { s.groups().remove(g.row, now, out); });
}

void World::group_message(size_t i, InstanceId by, const Action& a) {
  Node* n = node(a.node);
  if (!n || n->epoch != a.epoch) return;
  MemberReplies replies;
  switch (a.kind) {
    case Action::kPrepare:
      n->seen[by] = std::max(n->seen[by], a.seq);
      n->member->prepare(a.id, a.plan, a.bundles, now(), &replies);
      break;
    case Action::kCommit:
      if (faulty(Fault::kLoseCommit) && random_.one_in(3)) {
        n->member->abort(a.id, a.plan, &replies);
        replies = {{MemberReply::kCommitted, a.id, a.plan}};
      } else {
        n->member->commit(a.id, a.plan, &replies);
      }
      break;
    case Action::kAbort: n->member->abort(a.id, a.plan, &replies); break;
    default:
      if (faulty(Fault::kLoseRemove) && random_.one_in(2)) replies.push_back({MemberReply::kRemoved, a.id});
      else n->member->remove(a.id, &replies);
      break;
  }
  n->member->room(&replies);
  for (const Bundle& b : a.bundles) n->accepted.emplace_back(now(), b.resources);  // of a kPrepare
  for (size_t k = 0; k < instances_.size(); ++k)
    if (k == i) reply(k, by, a.node, a.epoch, replies);
  pump(n);
}

void World::reply(size_t i, InstanceId to, NodeIndex n, uint32_t epoch, const MemberReplies& replies) {
  for (const MemberReply& r : replies)
    send([this, i, to, n, epoch, r] {
      if (instances_[i].id != to) return;
      to_instance(i, [&](GlobalScheduler& s, int64_t now, Actions* out) {
        switch (r.kind) {
          case MemberReply::kPrepared: s.groups().prepared(r.group, r.plan, n, epoch, r.ok, now, out); break;
          case MemberReply::kCommitted: s.groups().committed(r.group, r.plan, n, epoch, r.ok, now, out); break;
          case MemberReply::kAborted: s.groups().aborted(r.group, r.plan, n, epoch); break;
          case MemberReply::kRemoved: s.groups().removed(r.group, n, epoch, out); break;
        }
      });
    });
}

// The control store: compare and swap on the plan.
void World::record(size_t i, InstanceId by, const Action& a) {
  GroupState& g = groups_.at(a.id);
  bool ok = g.row.plan == a.plan;
  if (!ok && g.row.plan == a.base && !g.removed) {
    ok = true;
    g.row.plan = a.plan;
    g.row.places = a.places;
  }
  send([this, i, by, id = a.id, plan = a.plan, ok] {
    if (instances_[i].id != by) return;
    to_instance(i, [&](GlobalScheduler& s, int64_t now, Actions* out) { s.groups().recorded(id, plan, ok, now, out); });
  });
}

void World::group_ready(const Action& a) {
  GroupState& g = groups_.at(a.id);
  g.ready = true;
  ++ready_;
  std::set<NodeIndex> used;
  for (uint32_t b = 0; b < a.places.size(); ++b) {
    const BundlePlace& p = a.places[b];
    used.insert(p.node);
    auto it = nodes_.find(p.node);
    if (it == nodes_.end()) return fail("a bundle of a group that is ready is nowhere");
    if (!it->second.alive || it->second.epoch != p.epoch) continue;
    bool there = false;
    for (const auto& [id, bundle] : it->second.member->committed()) there |= id == a.id && bundle.index == b;
    if (!there) fail(strprintf("group %s is ready, and its bundle %u is not on node %u", a.id.hex().c_str(), b, p.node));
  }
  if (g.row.strategy == Strategy::kStrictPack && used.size() != 1) fail("STRICT_PACK on several nodes");
  if (g.row.strategy == Strategy::kStrictSpread && used.size() != a.places.size()) fail("STRICT_SPREAD twice on a node");
}

// When nothing goes wrong any more and all has come to rest.
void World::check_groups() {
  std::map<Id, std::map<uint32_t, uint32_t>> there;  // group -> bundle -> nodes that have it
  for (const auto& [index, n] : nodes_) {
    if (!n.alive) continue;
    const auto all = n.member->committed();
    for (const auto& [id, b] : all) ++there[id][b.index];
    if (n.member->promised().size() != all.size()) fail(strprintf("node %u has prepared what nobody wants", index));
  }
  for (const auto& [id, g] : groups_) {
    const auto& mine = there[id];
    const std::string name = "group " + id.hex();
    if (g.removed && (!mine.empty() || !g.gone)) fail(name + " was removed, and something of it is left");
    if (g.removed) continue;
    if (g.ready && mine.size() != g.row.bundles.size()) fail(name + " is ready without all its bundles");
    for (const auto& [b, nodes] : mine)
      if (nodes != 1) fail(strprintf("bundle %u of %s is on %u nodes", b, name.c_str(), nodes));
  }
}

// ---- what happens

void World::tell_dead(NodeIndex i) {
  const uint32_t epoch = nodes_.at(i).epoch;
  nodes_.at(i).buried = true;
  for (size_t k = 0; k < instances_.size(); ++k) {
    if (faulty(Fault::kDeadUnknown)) {
      instances_[k].dead.insert(i);
      continue;
    }
    send([this, k, i, epoch] {
      instances_[k].dead.insert(i);
      to_instance(k, [&](GlobalScheduler& s, int64_t now, Actions* out) { s.node_dead(i, epoch, now, out); });
    }, true);
  }
  // Whoever handed something over to it begins anew; what only the dead node had is submitted again elsewhere.
  std::set<TaskId> alive;
  for (auto& [index, n] : nodes_) {
    if (!n.alive) continue;
    std::vector<TaskId> anew;
    for (auto& [id, s] : n.spilled)
      if (s.sent_to == i) anew.push_back(id);
    for (const TaskId& id : anew) died_with_.insert(id), begin_anew(&n, id);
    for (const auto& [id, s] : n.spilled) alive.insert(id);
    for (const auto& [id, t] : n.running) alive.insert(id);
    for (const auto* line : {&n.queue, &n.overflow})
      for (const SimTask& t : *line) alive.insert(t.id);
  }
  std::vector<NodeIndex> homes;
  for (const auto& [index, n] : nodes_)
    if (n.alive) homes.push_back(index);
  for (auto& [id, t] : tasks_) {
    if (alive.count(id)) continue;
    died_with_.insert(id);
    t.attempt += 100;  // above whatever its nodes have counted
    Node* home = node(homes[random_.below(static_cast<uint32_t>(homes.size()))]);
    home->known.insert({id, t.attempt, 0});
    home->overflow.push_back(t);
    pump(home);
  }
}

void World::work() {
  std::vector<NodeIndex> homes;
  for (const auto& [index, n] : nodes_)
    if (n.alive) homes.push_back(index);
  const NodeIndex home = homes[random_.below(static_cast<uint32_t>(homes.size()))];
  if (random_.one_in(12)) {
    std::vector<Resources> bundles;
    for (uint32_t b = 1 + random_.below(4); b > 0; --b) bundles.push_back(make({{"CPU", 1.0}}));
    create_group(static_cast<Strategy>(random_.below(4)), std::move(bundles));
    return;
  }
  if (random_.one_in(10) && !groups_.empty()) {
    auto it = std::next(groups_.begin(), random_.below(static_cast<uint32_t>(groups_.size())));
    if (!it->second.removed) remove_group(it->first);
    return;
  }
  for (uint32_t n = 1 + random_.below(30); n > 0; --n) {
    Demand d;
    d.function = random_.below(4);
    d.resources = make({{"CPU", random_.one_in(4) ? 2.0 : 1.0}});
    if (random_.one_in(8)) d.resources = make({{"GPU", 1}});
    if (random_.one_in(10)) d.resources = Resources();
    if (random_.one_in(10)) d.labels = {{"zone", {"a"}}};
    if (random_.one_in(20)) d.affinity = homes[0], d.soft_affinity = true;
    if (random_.one_in(10)) d.spread = true;
    if (random_.one_in(20)) d.work = Work::kActor;
    if (random_.one_in(4)) d.inputs = {{ObjectId{}, random_.between(1, 1 << 24), {home}}};
    submit(home, d, random_.between(1, 40) * kMs * (d.work == Work::kActor ? 5 : 1));
  }
}

void World::harm() {
  std::vector<NodeIndex> living;
  for (const auto& [index, n] : nodes_)
    if (n.alive && !n.draining) living.push_back(index);
  const NodeIndex one = living[random_.below(static_cast<uint32_t>(living.size()))];
  if (options_.deaths && living.size() > 4 && random_.one_in(12)) kill(one);
  else if (options_.drains && living.size() > 4 && random_.one_in(15)) drain(one);
  if (options_.joins && living.size() < 2 * options_.nodes && random_.one_in(10))
    add_node(make({{"CPU", options_.cpus}, {"GPU", 1}}), {{"zone", "a"}});
  if (options_.replaces && random_.one_in(20)) start_instance(random_.below(static_cast<uint32_t>(instances_.size())));
  for (const Instance& in : instances_) {
    const std::string broken = in.core->check();
    if (!broken.empty()) fail(broken);
  }
}

void World::trouble(int64_t ns) {
  harmful_ = true;
  const int64_t end = now() + ns;
  while (now() < end && wrong_.empty()) {
    work();
    harm();
    run(random_.between(1, 100) * kMs);
  }
  harmful_ = false;
}

void World::calm(int64_t ns) {
  const int64_t end = now() + ns;
  // So that whatever anybody wants fits somewhere: a node that no group takes.
  for (auto& [id, g] : groups_)
    if (!g.removed && (!g.ready || g.owner % 2 == 0)) remove_group(id);
  run(sim::kSecond);
  add_node(make({{"CPU", options_.cpus}, {"GPU", 1}}), {{"zone", "a"}});
  while (now() < end && wrong_.empty() && !tasks_.empty()) run(100 * kMs);
  if (wrong_.empty()) run(15'000 * kMs);  // what was prepared and forgotten goes
}

std::string World::verdict() {
  for (const Instance& in : instances_)
    if (wrong_.empty() && !in.core->check().empty()) fail(in.core->check());
  if (wrong_.empty()) check_groups();
  if (wrong_.empty() && !tasks_.empty()) {
    const SimTask& t = tasks_.begin()->second;
    fail(strprintf("%zu tasks have not ended, %s for one, which wants {%s}", tasks_.size(), t.id.hex().c_str(),
                   t.wants.resources.to_string().c_str()));
    for (const Instance& in : instances_) wrong_ += "\n" + in.core->why(t.id);
    for (const auto& [index, n] : nodes_) {
      if (!n.alive) continue;
      if (n.spilled.count(t.id)) wrong_ += strprintf("it waits at node %u", index);
      if (n.running.count(t.id)) wrong_ += strprintf("it runs on node %u", index);
      for (const auto* line : {&n.queue, &n.overflow})
        for (const SimTask& q : *line)
          if (q.id == t.id) wrong_ += strprintf("it is in a line of %zu at node %u", line->size(), index);
    }
  }
  return wrong_;
}

}  // namespace ray::global
