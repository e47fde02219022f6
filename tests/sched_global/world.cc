// The world's nodes and tasks; see world.h.
#include "tests/sched_global/world.h"

#include <algorithm>

#include "libray/base/status.h"

namespace ray::global {

using sim::kMs;

World::World(const WorldOptions& options) : options_(options), random_(options.seed) {
  instances_.resize(options.instances);
  for (size_t i = 0; i < instances_.size(); ++i) start_instance(i);
  for (uint32_t i = 0; i < options.nodes; ++i) {
    Labels labels{{"zone", i % 2 ? "a" : "b"}, {"host", strprintf("h%u", i)}};
    add_node(i % 4 == 3 ? make({{"CPU", options.cpus}, {"GPU", 1}}) : make({{"CPU", options.cpus}}), labels);
  }
  run(2 * options.heartbeat_ns);
}

World::Node* World::node(NodeIndex n) {
  auto it = nodes_.find(n);
  return it == nodes_.end() || !it->second.alive ? nullptr : &it->second;
}

NodeIndex World::add_node(const Resources& total, const Labels& labels) {
  const NodeIndex index = next_node_++;
  Node& n = nodes_[index];
  n.index = index;
  n.epoch = 1 + random_.below(3);
  n.total = total;
  n.labels = labels;
  for (const auto& [name, amount] : total.items()) n.free[name] = amount;
  n.member = std::make_unique<GroupMember>(
      [this, index](const Id&, const std::vector<Bundle>& bundles) {
        Node* at = &nodes_.at(index);
        std::map<std::string, Amount> sum;
        for (const Bundle& b : bundles)
          for (const auto& [name, amount] : b.resources.items()) sum[name] += amount;
        bool now = !at->draining, ever = !at->draining;
        for (const auto& [name, amount] : sum) {
          now &= at->free[name] >= amount;
          ever &= at->total.get(name) - at->held[name] >= amount;
        }
        if (!now) return ever ? GroupMember::Taken::kLater : GroupMember::Taken::kNever;
        for (const Bundle& b : bundles) take(at, b.resources, +1, true);
        return GroupMember::Taken::kYes;
      },
      [this, index](const Id&, const std::vector<Bundle>& bundles) {
        for (const Bundle& b : bundles) take(&nodes_.at(index), b.resources, -1, true);
      },
      10'000 * kMs);
  heartbeat(index, n.epoch);
  return index;
}

bool World::fits(const Node& n, const Demand& d) const {
  for (const auto& [name, amount] : d.resources.items())
    if (n.total.get(name) < amount) return false;
  for (const LabelRule& rule : d.labels) {
    auto it = n.labels.find(rule.key);
    const bool has = it != n.labels.end() && std::find(rule.values.begin(), rule.values.end(), it->second) != rule.values.end();
    if (has == rule.negate) return false;
  }
  return d.affinity == kNoNode || d.soft_affinity || d.affinity == n.index;
}

bool World::ever_free(const Node& n, const Resources& r) const {
  for (const auto& [name, amount] : r.items()) {
    auto held = n.held.find(name);
    if (n.total.get(name) - (held == n.held.end() ? 0 : held->second) < amount) return false;
  }
  return true;
}

bool World::fits_free(const Node& n, const Resources& r) const {
  for (const auto& [name, amount] : r.items()) {
    auto it = n.free.find(name);
    if (it == n.free.end() || it->second < amount) return false;
  }
  return true;
}

void World::take(Node* n, const Resources& r, Amount sign, bool for_good) {
  for (const auto& [name, amount] : r.items()) {
    n->free[name] -= sign * amount;
    if (for_good) n->held[name] += sign * amount;
    if (n->free[name] < 0) fail(strprintf("node %u has given away more '%s' than it has", n->index, name.c_str()));
  }
}

// ---- a task's way

TaskId World::submit(NodeIndex home, Demand wants, int64_t run_ns) {
  SimTask t;
  t.id = child_task(origin_of(TaskId{}), next_task_++);
  wants.id = t.id;
  t.wants = demands_[t.id] = std::move(wants);
  t.run_ns = run_ns;
  tasks_[t.id] = t;
  Node* n = node(home);
  n->known.insert({t.id, 0, 0});
  n->overflow.push_back(t);
  pump(n);
  return t.id;
}

// What comes in goes into the queue as long as that is short; else it is handed over.
void World::pump(Node* n) {
  const size_t high = static_cast<size_t>(options_.queue_high * options_.cpus);
  auto runs_here = [&](const SimTask& t) {
    return !n->draining && fits(*n, t.wants) && ever_free(*n, t.wants.resources) && t.wants.work == Work::kTask;
  };
  while (!n->overflow.empty() && n->queue.size() < high && runs_here(n->overflow.front()) &&
         !n->overflow.front().wants.spread) {
    n->queue.push_back(n->overflow.front());
    n->overflow.pop_front();
  }
  while (!n->overflow.empty() && n->spilled.size() < options_.window) {
    SimTask t = n->overflow.front();
    n->overflow.pop_front();
    spill(n, std::move(t));
  }
  // With room again, what waits for another node and could run here does.
  if (n->queue.size() < high / 2 && !n->draining)
    for (auto it = n->spilled.begin(); it != n->spilled.end() && n->queue.size() < high;) {
      if (it->second.waits && it->second.sent_to == kNoNode && runs_here(it->second.task)) {
        const TaskId id = it->first;
        for (size_t i = 0; i < instances_.size(); ++i)
          send([this, i, id] { to_instance(i, [id](GlobalScheduler& s, int64_t, Actions*) { s.withdraw(id); }); });
        n->queue.push_back(it->second.task);
        it = n->spilled.erase(it);
      } else {
        ++it;
      }
    }
  // What actors and groups hold by now: whoever needs it looks for another node, pinned or not.
  for (auto it = n->queue.begin(); it != n->queue.end();) {
    if (ever_free(*n, it->wants.resources)) {
      ++it;
      continue;
    }
    SimTask t = *it;
    it = n->queue.erase(it);
    spill(n, std::move(t), true);
  }
  start(n);
}

void World::start(Node* n) {
  MemberReplies replies;
  while (!n->queue.empty() && fits_free(*n, n->queue.front().wants.resources)) {
    SimTask t = n->queue.front();
    n->queue.pop_front();
    const bool actor = t.wants.work == Work::kActor;
    take(n, t.wants.resources, +1, actor);
    int64_t fetch = 0;
    for (const Input& in : t.wants.inputs)
      if (std::find(in.at.begin(), in.at.end(), n->index) == in.at.end()) {
        const auto ns = static_cast<int64_t>(static_cast<double>(in.size) / options_.bandwidth);
        n->moved_bytes += static_cast<uint64_t>(in.size);
        n->moved_ns += ns;
        fetch += ns;
      }
    n->running[t.id] = t;
    const int64_t takes = fetch + t.run_ns;
    clock_.after(takes, [this, i = n->index, e = n->epoch, id = t.id] { finish(i, e, id); });
  }
}

void World::finish(NodeIndex i, uint32_t epoch, TaskId id) {
  Node* n = node(i);
  if (!n || n->epoch != epoch) return;
  auto it = n->running.find(id);
  if (it == n->running.end()) return;
  const SimTask t = it->second;
  n->running.erase(it);
  take(n, t.wants.resources, -1, t.wants.work == Work::kActor);
  Heartbeat::Ran& r = n->ran[t.wants.function];
  r.function = t.wants.function;
  ++r.count;
  r.ns += t.run_ns;
  if (tasks_.erase(id) == 0 && !died_with_.count(id)) fail("task " + id.hex() + " ran twice");
  ++finished_;
  last_end_ = now();
  ++ran_[i];
  // A group that waits for room goes first: what it needs is not given to the queue.
  MemberReplies replies;
  n->member->room(&replies);
  for (size_t k = 0; k < instances_.size(); ++k) reply(k, instances_[k].id, i, epoch, replies);
  pump(n);
}

void World::spill(Node* n, SimTask t, bool cannot) {
  const TaskId id = t.id;
  Spilled& s = n->spilled[id];
  s = Spilled{};
  s.task = std::move(t);
  if (cannot) s.refused.push_back(n->index);
  ask(n->index, n->epoch, id, ++s.turn);
}

// Asks one of the schedulers, and again until there is an answer.
void World::ask(NodeIndex i, uint32_t epoch, TaskId id, uint64_t turn) {
  Node* n = node(i);
  if (!n || n->epoch != epoch) return;
  auto it = n->spilled.find(id);
  if (it == n->spilled.end() || it->second.turn != turn || it->second.sent_to != kNoNode) return;
  Demand d = it->second.task.wants;
  d.attempt = it->second.task.attempt;
  d.hops = it->second.task.hops;
  if (faulty(Fault::kBounce)) d.hops = 0, d.attempt = 100 * d.attempt + it->second.task.moves;  // as if it had never moved
  d.from = i;
  d.refused = it->second.refused;
  const size_t to = random_.below(static_cast<uint32_t>(instances_.size()));
  send([this, to, d] { to_instance(to, [d](GlobalScheduler& s, int64_t now, Actions* out) { s.demand(d, now, out); }); });
  clock_.after(100 * kMs, [this, i, epoch, id, turn] { ask(i, epoch, id, turn); });
}

void World::answer(NodeIndex i, const Action& a, InstanceId by) {
  Node* n = node(i);
  if (!n) return;
  auto it = n->spilled.find(a.id);
  if (it == n->spilled.end() || it->second.sent_to != kNoNode) return;
  Spilled& s = it->second;
  if (!faulty(Fault::kBounce) && (s.task.attempt != a.attempt || s.task.hops != a.hops)) return;
  if (a.kind != Action::kPlace) {
    s.waits = true;
    s.refused.clear();  // they may want it by the next time
    if (a.hops >= options_.scheduler.max_hops) begin_anew(n, a.id);
    return pump(n);
  }
  SimTask t = s.task;
  t.hops = faulty(Fault::kBounce) ? t.hops + a.moved : a.moved;
  t.pinned = a.pinned && !faulty(Fault::kBounce);
  if (a.node == i) {  // it is to stay
    n->seen[by] = std::max(n->seen[by], a.seq);
    n->spilled.erase(it);
    arrive(i, n->epoch, t, kNoNode, by, a.seq);
    return;
  }
  ++t.moves;
  if (t.moves > options_.scheduler.max_hops) fail(strprintf("a task moves for the %u-th time", t.moves));
  s.sent_to = a.node;
  s.sent_hops = t.hops;
  s.sent_epoch = a.epoch;
  hand_over(i, n->epoch, a.id, ++s.turn, a.node, by, a.seq, t);
}

void World::hand_over(NodeIndex i, uint32_t epoch, TaskId id, uint64_t turn, NodeIndex to, InstanceId by, uint64_t seq,
                      SimTask t) {
  Node* n = node(i);
  if (!n || n->epoch != epoch) return;
  auto it = n->spilled.find(id);
  if (it == n->spilled.end() || it->second.turn != turn) return;
  if (nodes_.at(to).buried) {
    died_with_.insert(id);
    return begin_anew(n, id);
  }
  const uint32_t to_epoch = it->second.sent_epoch;
  send([this, to, to_epoch, t, i, by, seq] { arrive(to, to_epoch, t, i, by, seq); });
  clock_.after(50 * kMs, [=, this] { hand_over(i, epoch, id, turn, to, by, seq, t); });
}

void World::arrive(NodeIndex at, uint32_t epoch, SimTask t, NodeIndex sender, InstanceId by, uint64_t seq) {
  Node* n = node(at);
  if (!n || n->epoch != epoch) return;
  n->seen[by] = std::max(n->seen[by], seq);
  const bool stays = sender == kNoNode;
  const std::tuple key(t.id, t.attempt, t.hops);
  if (!stays && nodes_.at(sender).buried) return;  // it was submitted again
  if (n->declined.count(key)) return;              // it was told so, surely
  if (!stays && !faulty(Fault::kRunTwice) && !n->known.insert(key).second)
    return send([this, sender, id = t.id, hops = t.hops] { taken(sender, id, hops); });
  bool ok = !n->draining && fits(*n, t.wants);
  if (ok && t.wants.work == Work::kActor) {
    Amount lately = 0, short_of = 0;
    std::string name = "CPU";
    for (const auto& [r, amount] : t.wants.resources.items())
      if (n->held[r] + amount > n->total.get(r)) short_of = n->held[r] + amount - n->total.get(r), name = r, ok = false;
    for (const SimTask& q : n->queue)  // actors in the queue will hold what they need
      if (q.wants.work == Work::kActor) ok &= n->held["CPU"] + q.wants.resources.get("CPU") <= n->total.get("CPU");
    const int64_t window = options_.scheduler.view.silent_ns + 20 * options_.delay_ns + options_.heartbeat_ns;
    for (const auto& [when, r] : n->accepted)
      if (when + window >= now()) lately += r.get(name);
    if (short_of > lately)
      fail(strprintf("node %u was sent an actor that wants %g '%s' more than can be free there, which nothing that came "
                     "lately explains", at, static_cast<double>(short_of) / kUnit, name.c_str()));
    if (ok) n->accepted.emplace_back(now(), t.wants.resources);
  }
  if (!ok) {
    if (stays) return spill(n, std::move(t), true);
    ++refusals_;
    n->declined.insert(key);
    return send([this, sender, at, id = t.id, moved = t.hops] { refused(sender, at, id, moved); }, true);
  }
  if (!stays) {
    ++moves_;
    send([this, sender, id = t.id, hops = t.hops] { taken(sender, id, hops); });
  }
  const bool full = n->queue.size() >= static_cast<size_t>(2 * options_.queue_high * options_.cpus);
  if (full && !t.pinned && !stays && t.wants.work == Work::kTask && n->spilled.size() < options_.window) spill(n, std::move(t));
  else n->queue.push_back(std::move(t));
  pump(n);
}

void World::taken(NodeIndex i, TaskId id, uint32_t hops) {
  Node* n = node(i);
  if (!n) return;
  auto it = n->spilled.find(id);
  if (it == n->spilled.end() || it->second.sent_to == kNoNode || it->second.sent_hops != hops) return;
  n->spilled.erase(it);
  pump(n);
}

void World::refused(NodeIndex i, NodeIndex by, TaskId id, uint32_t moved) {
  Node* n = node(i);
  if (!n) return;
  auto it = n->spilled.find(id);
  if (it == n->spilled.end() || it->second.sent_to != by || it->second.sent_hops != moved) return;
  Spilled& s = it->second;
  s.sent_to = kNoNode;
  s.task.hops = moved;
  ++s.task.moves;
  s.refused.push_back(by);
  ask(i, n->epoch, id, ++s.turn);
}

// As a new attempt: the node that had it is dead, or it was moved as often as it may be.
void World::begin_anew(Node* n, TaskId id) {
  Spilled& s = n->spilled.at(id);
  SimTask t = s.task;
  const uint64_t turn = s.turn;
  ++t.attempt;
  t.hops = t.moves = 0;
  t.pinned = false;
  s = Spilled{};
  s.task = std::move(t);
  s.turn = turn + 1;
  ask(n->index, n->epoch, id, s.turn);
}

// ---- a node's life

void World::heartbeat(NodeIndex i, uint32_t epoch) {
  Node* n = node(i);
  if (!n || n->epoch != epoch) return;
  Heartbeat h;
  h.node = i;
  h.epoch = epoch;
  h.version = ++n->version;
  h.total = n->total;
  h.labels = n->labels;
  h.draining = n->draining;
  std::map<std::string, Amount> queued, held = n->held;
  for (const auto* line : {&n->queue, &n->overflow})
    for (const SimTask& t : *line)
      for (const auto& [name, amount] : t.wants.resources.items()) {
        queued[name] += amount;
        if (line == &n->queue && t.wants.work == Work::kActor) held[name] += amount;
      }
  auto set = [](Resources* r, const std::map<std::string, Amount>& from) {
    for (const auto& [name, amount] : from)
      if (amount > 0) (void)r->add(name, static_cast<double>(amount) / kUnit);
  };
  set(&h.available, n->free);
  set(&h.queued, queued);
  if (!faulty(Fault::kHideHeld)) set(&h.held, held);
  h.running = static_cast<uint32_t>(n->running.size());
  h.waiting = static_cast<uint32_t>(n->queue.size() + n->overflow.size());
  for (const auto& [f, r] : n->ran) h.ran.push_back(r);
  n->ran.clear();
  h.moved_bytes = n->moved_bytes;
  h.moved_ns = n->moved_ns;
  n->moved_bytes = 0;
  n->moved_ns = 0;
  for (const auto& [instance, seq] : n->seen) h.seen.push_back({instance, seq});
  while (!n->accepted.empty() && n->accepted.front().first + 3 * sim::kSecond < now()) n->accepted.pop_front();
  n->member->tick(now());
  pump(n);
  for (size_t k = 0; k < instances_.size(); ++k)
    send([this, k, h] { to_instance(k, [h](GlobalScheduler& s, int64_t t, Actions* out) { s.heartbeat(h, t, out); }); });
  clock_.after(options_.heartbeat_ns, [this, i, epoch] { heartbeat(i, epoch); });
}

void World::drain(NodeIndex i) {
  Node* n = node(i);
  n->draining = true;
  for (SimTask& t : n->queue) {  // given back, and begun anew
    ++t.attempt;
    t.hops = t.moves = 0;
    t.pinned = false;
    n->overflow.push_back(t);
  }
  n->queue.clear();
  pump(n);
}

void World::kill(NodeIndex i) {
  nodes_.at(i).alive = false;
  clock_.after(300 * kMs, [this, i] { tell_dead(i); });
}

void World::run(int64_t ns) {
  const int64_t end = now() + ns;
  bool over = false;
  clock_.at(end, [&over] { over = true; });
  while (!over && wrong_.empty() && clock_.step()) {}
  if (over || wrong_.empty()) return;
  clock_ = sim::Clock();  // nothing may point at `over` any more
}

}  // namespace ray::global
