// See global_side.h.
#include "libray/node/global_side.h"

#include <algorithm>
#include <cstring>

#include "libray/wire/limits.h"

namespace ray::node {

using cluster::NodeIndex;
using cluster::State;

namespace {

constexpr int64_t kAgainNs = 100'000'000;   // when there is no room
constexpr size_t kRemember = 4096;          // tasks, for why()

// How long tasks run is not known here: heartbeats do not say it, so all are thought to take as long. Then what is
// called full is a number: so many that wait for each that runs. A node with less than half of that takes more. What a
// node has in line it cannot hand back, so the line is only as long as it takes to have work until the next heartbeat.
constexpr double kRunNs = 10e6, kFullNs = 2 * kRunNs, kRoomNs = 1 * kRunNs;
// Who waits asks every kAgainNs. Who no longer does has found a place, and holds up whoever waits behind.
constexpr int64_t kForgetNs = 300'000'000;

global::Options options(uint64_t seed) {
  global::Options o;
  o.view.seed = seed;
  o.view.run_ns = kRunNs;
  o.view.full_ns = kFullNs;
  o.view.room_ns = kRoomNs;
  o.wait_ns = kAgainNs;
  o.forget_ns = kForgetNs;
  o.remember = kRemember;
  return o;
}

// Amounts that other nodes gave: bounded, and never refused for being too small.
sched::Resources amounts(const wire::Resources& from) {
  sched::Resources out;
  for (const auto& [name, amount] : from)
    if (amount >= wire::kResourceUnit) (void)out.add(name, std::min(amount, wire::kMaxResourceAmount));
  return out;
}

// A question's name in the core. An index is given once, and a number too: nobody else ever has it.
TaskId name_of(NodeIndex from, uint64_t number) {
  TaskId id;
  std::memcpy(id.b, &from, sizeof from);
  std::memcpy(id.b + sizeof from, &number, sizeof number);
  return id;
}

}  // namespace

GlobalSide::GlobalSide(uint64_t seed) : scheduler_(options(seed)) {}

void GlobalSide::row(const cluster::Row& row, int64_t now) {
  auto it = nodes_.find(row.index);
  if (row.state == State::kDead) {
    if (it != nodes_.end()) nodes_.erase(it);
    global::Actions none;
    return scheduler_.node_dead(row.index, row.epoch, now, &none);
  }
  const bool takes = row.state == State::kAlive && !row.about.relay.empty();
  if (it == nodes_.end()) {
    Node& n = nodes_[row.index];
    n.epoch = row.epoch;
    n.takes = takes;
    n.draining = row.state == State::kDraining;
    n.total = row.about.resources;
    n.labels = row.about.labels;
    n.load.available = n.total;
    return tell(row.index, &n, now);
  }
  it->second.draining = row.state == State::kDraining;
  if (std::exchange(it->second.takes, takes) != takes) tell(row.index, &it->second, now);
}

void GlobalSide::load(NodeIndex node, const cluster::Load& load, int64_t now) {
  auto it = nodes_.find(node);
  if (it == nodes_.end()) return;
  it->second.load = load;
  tell(node, &it->second, now);
}

void GlobalSide::tell(NodeIndex index, Node* n, int64_t now) {
  global::Heartbeat h;
  h.node = index;
  h.epoch = n->epoch;
  h.version = ++n->version;
  h.total = amounts(n->total);
  h.available = amounts(n->load.available);
  h.held = amounts(n->load.held);
  h.queued = amounts(n->load.queued);
  h.labels = n->labels;
  h.running = static_cast<uint32_t>(std::min<uint64_t>(n->load.running, UINT32_MAX / 4));
  h.waiting = static_cast<uint32_t>(std::min<uint64_t>(n->load.waiting, UINT32_MAX / 4));
  h.draining = !n->takes;
  global::Actions unasked;  // rule (2)
  scheduler_.heartbeat(h, now, &unasked);
}

void GlobalSide::tick(int64_t now) {
  global::Actions unasked;
  scheduler_.tick(now, &unasked);
}

Result<std::string> GlobalSide::place(NodeIndex from, std::string_view body, int64_t now) {
  cluster::Questions asked;
  RAY_TRY(cluster::decode(body, &asked));
  if (!nodes_.count(from)) return error(RAY_NODE_DIED, "node %u is not alive", from);
  load(from, asked.load, now);
  std::vector<cluster::Verdict> out;
  for (const cluster::Question& q : asked.questions) out.push_back(ask(from, q, now));
  return cluster::encode(out);
}

cluster::Verdict GlobalSide::ask(NodeIndex from, const cluster::Question& q, int64_t now) {
  global::Demand d;
  d.id = name_of(from, q.number);
  d.attempt = q.attempt;
  d.from = from;
  d.work = q.actor ? global::Work::kActor : global::Work::kTask;
  d.resources = amounts(q.needs);
  remember(q.task, d.id);
  global::Actions actions;
  scheduler_.demand(d, now, &actions);
  cluster::Verdict v;
  v.again_ns = kAgainNs;
  for (const global::Action& a : actions) {
    if (a.id != d.id || a.attempt != d.attempt) continue;  // of others: rule (2)
    v.text = a.text;
    if (a.kind == global::Action::kPlace) {
      v.node = a.node;
      v.epoch = a.epoch;
      v.again_ns = 0;
      return v;
    }
    v.again_ns = a.again_ns;
    v.infeasible = a.kind == global::Action::kInfeasible && !could_some_day(q.needs);
    if (a.kind == global::Action::kInfeasible && !v.infeasible) v.again_ns = kAgainNs;
  }
  return v;
}

bool GlobalSide::could_some_day(const wire::Resources& needs) const {
  return std::any_of(nodes_.begin(), nodes_.end(), [&](const auto& n) {
    return !n.second.draining && cluster::enough(n.second.total, needs);
  });
}

void GlobalSide::remember(const TaskId& task, const TaskId& as) {
  auto [it, fresh] = asked_.try_emplace(task, as);
  if (!fresh && it->second == as) return;
  it->second = as;
  order_.emplace_back(task, as);
  while (order_.size() > kRemember) {
    auto old = asked_.find(order_.front().first);
    if (old != asked_.end() && old->second == order_.front().second) asked_.erase(old);
    order_.pop_front();
  }
}

std::string GlobalSide::why(const TaskId& task) const {
  auto it = asked_.find(task);
  if (it == asked_.end()) return "";
  std::string text = scheduler_.why(it->second);
  const std::string name = it->second.hex();
  if (text.rfind(name, 0) == 0) text.replace(0, name.size(), task.hex());
  return text;
}

}  // namespace ray::node
