// See groups.h.
#include "libray/sched_global/groups.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "libray/base/status.h"

namespace ray::global {
namespace {

// Plans rise, and those of two instances are never equal.
uint64_t next_plan(uint64_t last, InstanceId instance) { return ((last >> 32) + 1) << 32 | instance; }

Action action(Action::Kind kind, const Id& id) {
  Action a{kind};
  a.id = id;
  return a;
}

std::string to_text(const std::vector<Resources>& bundles, const std::vector<uint32_t>& which) {
  std::string s;
  for (uint32_t b : which) {
    if (s.size() > 500) return s + ", ...";
    s += (s.empty() ? "{" : ", {") + bundles[b].to_string() + "}";
  }
  return s;
}

const char* name_of(Strategy s) {
  switch (s) {
    case Strategy::kPack: return "PACK";
    case Strategy::kSpread: return "SPREAD";
    case Strategy::kStrictPack: return "STRICT_PACK";
    case Strategy::kStrictSpread: return "STRICT_SPREAD";
  }
  return "";
}

}  // namespace

// ---- events of users and of the control store

void Groups::place(const GroupRow& row, int64_t now, Actions* out) {
  auto [it, fresh] = groups_.try_emplace(row.group);
  Group* g = &it->second;
  if (!fresh && (g->state == State::kRemoving || row.plan <= g->plan)) return;
  if (!fresh) {
    if (g->state == State::kPreparing || g->state == State::kRecording)
      for (const auto& [key, p] : g->parts) abort(row.group, key.second, key.first, p.epoch, out);
    waiting_.erase(g->order);
  }
  g->order = next_order_++;
  g->row = row;
  g->row.places.resize(row.bundles.size());
  g->plan = row.plan;
  for (BundlePlace& p : g->row.places)
    if (p.node != kNoNode && view_.fenced(p.node, p.epoch)) p = BundlePlace{};
  begin_commit(g, now, out);
}

void Groups::remove(const GroupRow& row, int64_t now, Actions* out) {
  auto [it, fresh] = groups_.try_emplace(row.group);
  Group* g = &it->second;
  if (!fresh && g->state == State::kRemoving) return;
  if (fresh) {
    g->order = next_order_++;
    g->row = row;
    g->row.places.resize(row.bundles.size());
  }
  waiting_.erase(g->order);
  std::map<PartKey, Part> parts;
  for (const BundlePlace& p : g->row.places)
    if (p.node != kNoNode && !view_.fenced(p.node, p.epoch)) parts[{p.node, 0}].epoch = p.epoch;
  for (const auto& [key, p] : g->parts) parts[{key.first, 0}].epoch = p.epoch;  // asked, and perhaps not in the row
  g->parts = std::move(parts);
  g->state = State::kRemoving;
  for (const auto& [key, p] : g->parts) tell(*g, key.first, 0, p, out);
  set_timer(g, now + options_.resend_ns);
  finish_remove(g, out);
}

void Groups::recorded(const Id& id, uint64_t plan, bool ok, int64_t now, Actions* out) {
  Group* g = find(id);
  if (!g || g->state != State::kRecording || g->plan != plan) return;
  if (ok) {
    g->row.plan = plan;
    return begin_commit(g, now, out);
  }
  for (const auto& [key, p] : g->parts) {
    view_.unplace(key.first, p.seq);
    abort(id, key.second, key.first, p.epoch, out);
  }
  set_timer(g, 0);
  groups_.erase(id);
}

// ---- events of nodes

void Groups::prepared(const Id& id, uint64_t plan, NodeIndex node, uint32_t epoch, bool ok, int64_t now, Actions* out) {
  Group* g = find(id);
  Part* p = g && g->state == State::kPreparing ? part_of(g, plan, node, epoch) : nullptr;
  if (!p) return;
  if (!ok) return give_up(g, now, out);
  p->answered = true;
  for (const auto& [key, part] : g->parts)
    if (!part.answered) return;
  g->state = State::kRecording;
  send_record(*g, out);
  set_timer(g, now + options_.resend_ns);
}

void Groups::committed(const Id& id, uint64_t plan, NodeIndex node, uint32_t epoch, bool ok, int64_t now, Actions* out) {
  Group* g = find(id);
  Part* p = g && g->state == State::kCommitting ? part_of(g, plan, node, epoch) : nullptr;
  if (!p || p->answered) return;
  p->answered = true;
  if (!ok)
    for (uint32_t b : p->bundles) g->row.places[b] = BundlePlace{};
  commit_done(g, now, out);
}

void Groups::aborted(const Id& id, uint64_t plan, NodeIndex node, uint32_t epoch) { aborts_.erase({id, plan, node, epoch}); }

void Groups::removed(const Id& id, NodeIndex node, uint32_t epoch, Actions* out) {
  Group* g = find(id);
  Part* p = g && g->state == State::kRemoving ? part_of(g, 0, node, epoch) : nullptr;
  if (!p) return;
  g->parts.erase({node, 0});
  finish_remove(g, out);
}

void Groups::node_dead(NodeIndex node, uint32_t epoch, int64_t now, Actions* out) {
  std::erase_if(aborts_, [&](const auto& a) { return a.first.node == node && a.first.epoch <= epoch; });
  std::vector<Id> touched;
  for (const auto& [id, g] : groups_) {
    bool there = false;
    for (const BundlePlace& p : g.row.places) there |= p.node == node && p.epoch <= epoch;
    for (const auto& [key, p] : g.parts) there |= key.first == node && p.epoch <= epoch;
    if (there) touched.push_back(id);
  }
  for (const Id& id : touched) lose(&groups_.at(id), node, epoch, now, out);
  changed(now, out);
}

// What of the group was on a node that is dead, or was to be there.
void Groups::lose(Group* g, NodeIndex node, uint32_t epoch, int64_t now, Actions* out) {
  if (g->state == State::kPreparing) give_up(g, now, out);  // forgets where the plan had put bundles
  Action lost = action(Action::kGroupLost, g->row.group);
  for (uint32_t b = 0; b < g->row.places.size(); ++b) {
    BundlePlace& p = g->row.places[b];
    if (p.node != node || p.epoch > epoch) continue;
    p = BundlePlace{};
    lost.bundles.push_back({b, g->row.bundles[b]});
  }
  std::erase_if(g->parts, [&](const auto& p) { return p.first.first == node && p.second.epoch <= epoch; });
  switch (g->state) {
    case State::kReady:
      out->push_back(std::move(lost));
      return wait(g, now, now);
    case State::kCommitting: return commit_done(g, now, out);
    case State::kRemoving: return finish_remove(g, out);
    case State::kWaits:
    case State::kPreparing:
    case State::kRecording: return;  // what was recorded of it is lost when that is known
  }
}

// ---- plans

std::vector<uint32_t> Groups::open_bundles(const Group& g) const {
  std::vector<uint32_t> open;
  for (uint32_t b = 0; b < g.row.places.size(); ++b)
    if (g.row.places[b].node == kNoNode) open.push_back(b);
  return open;
}

Plan Groups::plan_over(const Group& g, Over over, const std::vector<uint32_t>& open,
                       std::vector<const View::Node*>* nodes) const {
  std::map<std::string, size_t> rows;
  for (uint32_t b : open)
    for (const auto& [name, amount] : g.row.bundles[b].items()) rows.try_emplace(name, rows.size());
  std::vector<Amounts> bundles;
  for (uint32_t b : open) {
    Amounts need(rows.size(), 0);
    for (const auto& [name, amount] : g.row.bundles[b].items()) need[rows.at(name)] = amount;
    bundles.push_back(std::move(need));
  }
  std::vector<PlanNode> free;
  nodes->clear();
  for (const auto& [index, n] : view_.nodes()) {
    if (n.draining || (n.silent && over != Over::kTotal)) continue;
    PlanNode p{index, Amounts(rows.size(), 0)};
    for (const View::Stock& s : n.stocks) {
      auto row = rows.find(view_.name(s.axis));
      if (row == rows.end()) continue;
      const Amount amount = over == Over::kTotal ? s.total : over == Over::kReach ? s.reach() : s.available - s.placed;
      p.free[row->second] = std::max<Amount>(amount, 0);
    }
    free.push_back(std::move(p));
    nodes->push_back(&n);
  }
  std::vector<NodeIndex> kept;
  for (const BundlePlace& p : g.row.places)
    if (p.node != kNoNode) kept.push_back(p.node);
  return plan_bundles(g.row.strategy, bundles, free, kept, options_.plan);
}

// False: it goes on waiting.
bool Groups::try_plan(Group* g, int64_t now, Actions* out) {
  const std::vector<uint32_t> open = open_bundles(*g);
  std::vector<const View::Node*> nodes;
  Plan plan = plan_over(*g, Over::kFree, open, &nodes);
  if (!plan.found && now >= g->since + options_.patience_ns) plan = plan_over(*g, Over::kReach, open, &nodes);
  if (!plan.found) {
    say_why(g, open, out);
    if (now < g->since + options_.patience_ns) set_timer(g, g->since + options_.patience_ns);
    else set_timer(g, 0);
    return false;
  }
  begin(g, open, plan, nodes, now, out);
  return true;
}

void Groups::say_why(Group* g, const std::vector<uint32_t>& open, Actions* out) {
  if (g->generation == view_.generation() && !g->text.empty()) return;
  g->generation = view_.generation();
  std::vector<const View::Node*> nodes;
  const Plan total = plan_over(*g, Over::kTotal, open, &nodes);
  const Action::Kind kind = total.found || view_.nodes().empty() ? Action::kGroupWaits : Action::kGroupInfeasible;
  const std::string what = strprintf("%s over %zu nodes of ", name_of(g->row.strategy), nodes.size()) +
                           to_text(g->row.bundles, open);
  if (kind == Action::kGroupWaits) g->text = what + ": waits until enough of it is free";
  else if (!total.exact) g->text = what + ": no plan was found, even if all were free";
  else g->text = what + ": would not be possible if all were free; further or larger nodes would do";
  if (g->said == kind) return;
  g->said = kind;
  Action a = action(kind, g->row.group);
  a.text = g->text;
  out->push_back(std::move(a));
}

void Groups::begin(Group* g, const std::vector<uint32_t>& open, const Plan& plan, const std::vector<const View::Node*>& nodes,
                   int64_t now, Actions* out) {
  waiting_.erase(g->order);
  g->state = State::kPreparing;
  g->plan = next_plan(g->plan, view_.options().instance);
  g->parts.clear();
  std::map<NodeIndex, Resources> sums;
  for (size_t i = 0; i < open.size(); ++i) {
    const View::Node& n = *nodes[plan.at[i]];
    g->row.places[open[i]] = {n.index, n.epoch, g->plan};
    Part& p = g->parts[{n.index, g->plan}];
    p.epoch = n.epoch;
    p.bundles.push_back(open[i]);
  }
  for (auto& [key, p] : g->parts) {
    Needs needs, one;
    const std::string* missing;
    for (uint32_t b : p.bundles) {
      view_.resolve(g->row.bundles[b], &one, &missing);
      needs.insert(needs.end(), one.begin(), one.end());
    }
    p.seq = view_.place(*view_.find(key.first), needs, 0, true, now);
    tell(*g, key.first, key.second, p, out);
  }
  g->since = now;
  set_timer(g, now + options_.resend_ns);
}

// The plan under way: all of it, and a new one later.
void Groups::give_up(Group* g, int64_t now, Actions* out) {
  for (const auto& [key, p] : g->parts) {
    view_.unplace(key.first, p.seq);
    if (!view_.fenced(key.first, p.epoch)) abort(g->row.group, key.second, key.first, p.epoch, out);
    for (uint32_t b : p.bundles) g->row.places[b] = BundlePlace{};
  }
  ++g->failures;
  // Two instances that want the same nodes shall not come again at the same time.
  const int64_t pause = options_.backoff_ns << std::min(g->failures - 1, 6u);
  const auto share = static_cast<int64_t>(hash_id(g->row.group, view_.options().seed + g->failures) % 1024);
  const int64_t since = g->since;
  wait(g, now, now + pause / 2 + pause * share / 2048);
  g->since = std::min(since, now - options_.patience_ns);  // it has waited long enough
}

void Groups::wait(Group* g, int64_t now, int64_t at) {
  g->state = State::kWaits;
  g->parts.clear();
  g->since = now;
  g->text.clear();
  g->said = Action::kGroupReady;
  waiting_[g->order] = g->row.group;
  set_timer(g, at);
}

// The row is written: every node that has something of it is to keep it. Also how a new group begins, with none.
void Groups::begin_commit(Group* g, int64_t now, Actions* out) {
  g->state = State::kCommitting;
  g->parts.clear();
  for (uint32_t b = 0; b < g->row.places.size(); ++b) {
    const BundlePlace& p = g->row.places[b];
    if (p.node == kNoNode) continue;
    Part& part = g->parts[{p.node, p.plan}];
    part.epoch = p.epoch;
    part.bundles.push_back(b);
  }
  for (const auto& [key, p] : g->parts) tell(*g, key.first, key.second, p, out);
  set_timer(g, now + options_.resend_ns);
  commit_done(g, now, out);
}

void Groups::commit_done(Group* g, int64_t now, Actions* out) {
  for (const auto& [key, p] : g->parts)
    if (!p.answered) return;
  g->parts.clear();
  if (!open_bundles(*g).empty()) {
    wait(g, now, now);
    if (now >= retried_at_ + options_.retry_ns && waiting_.begin()->second == g->row.group) try_plan(g, now, out);
    return;
  }
  g->state = State::kReady;
  g->failures = 0;
  set_timer(g, 0);
  Action a = action(Action::kGroupReady, g->row.group);
  a.places = g->row.places;
  out->push_back(std::move(a));
}

void Groups::finish_remove(Group* g, Actions* out) {
  if (!g->parts.empty()) return;
  set_timer(g, 0);
  const Id id = g->row.group;
  groups_.erase(id);
  out->push_back(action(Action::kGroupGone, id));
}

// ---- messages and time

void Groups::tell(const Group& g, NodeIndex node, uint64_t plan, const Part& p, Actions* out) const {
  Action a = action(g.state == State::kPreparing    ? Action::kPrepare
                    : g.state == State::kCommitting ? Action::kCommit
                                                    : Action::kRemove,
                    g.row.group);
  a.node = node;
  a.epoch = p.epoch;
  a.plan = plan;
  a.seq = p.seq;
  if (g.state == State::kPreparing)
    for (uint32_t b : p.bundles) a.bundles.push_back({b, g.row.bundles[b]});
  out->push_back(std::move(a));
}

void Groups::send_record(const Group& g, Actions* out) const {
  Action a = action(Action::kRecord, g.row.group);
  a.plan = g.plan;
  a.base = g.row.plan;
  a.places = g.row.places;
  out->push_back(std::move(a));
}

void Groups::abort(const Id& id, uint64_t plan, NodeIndex node, uint32_t epoch, Actions* out) {
  aborts_[{id, plan, node, epoch}] = 0;
  Action a = action(Action::kAbort, id);
  a.plan = plan;
  a.node = node;
  a.epoch = epoch;
  out->push_back(std::move(a));
}

void Groups::changed(int64_t now, Actions* out) {
  changed_ = true;
  tick(now, out);
}

void Groups::tick(int64_t now, Actions* out) {
  for (auto& [a, at] : aborts_) {
    if (at == 0) at = now + options_.resend_ns;
    if (at > now) continue;
    at = 0;
    Action again = action(Action::kAbort, a.group);
    again.plan = a.plan;
    again.node = a.node;
    again.epoch = a.epoch;
    out->push_back(std::move(again));
  }
  while (!timers_.empty() && timers_.begin()->first <= now) {
    Group* g = &groups_.at(timers_.begin()->second);
    set_timer(g, 0);
    remind(g, now, out);
  }
  if (changed_ && !waiting_.empty() && now >= retried_at_ + options_.retry_ns) retry(now, out);
}

void Groups::remind(Group* g, int64_t now, Actions* out) {
  switch (g->state) {
    case State::kReady: return;
    case State::kWaits: try_plan(g, now, out); return;
    case State::kPreparing:
      if (now >= g->since + options_.prepare_ns) return give_up(g, now, out);
      break;
    case State::kRecording: send_record(*g, out); break;
    case State::kCommitting:
    case State::kRemoving: break;
  }
  if (g->state != State::kRecording)
    for (const auto& [key, p] : g->parts)
      if (!p.answered) tell(*g, key.first, key.second, p, out);
  set_timer(g, now + options_.resend_ns);
}

void Groups::retry(int64_t now, Actions* out) {
  retried_at_ = now;
  changed_ = false;
  for (uint32_t i = 0; i < options_.retry_groups; ++i) {
    auto it = waiting_.upper_bound(retried_);
    if (it == waiting_.end()) {
      retried_ = 0;
      return;
    }
    retried_ = it->first;
    Group* g = &groups_.at(it->second);
    if (g->failures > 0 && g->at > now) continue;  // it pauses
    try_plan(g, now, out);
  }
  changed_ = true;  // there are more
}

int64_t Groups::deadline() const {
  int64_t at = timers_.empty() ? INT64_MAX : timers_.begin()->first;
  for (const auto& [a, when] : aborts_) at = std::min(at, when);
  if (changed_ && !waiting_.empty()) at = std::min(at, retried_at_ + options_.retry_ns);
  return at;
}

void Groups::set_timer(Group* g, int64_t at) {
  timers_.erase({g->at, g->row.group});
  g->at = at;
  if (at > 0) timers_.insert({at, g->row.group});
}

// ---- questions

Groups::Group* Groups::find(const Id& id) {
  auto it = groups_.find(id);
  return it == groups_.end() ? nullptr : &it->second;
}

Groups::Part* Groups::part_of(Group* g, uint64_t plan, NodeIndex node, uint32_t epoch) {
  auto it = g->parts.find({node, plan});
  return it == g->parts.end() || it->second.epoch != epoch ? nullptr : &it->second;
}

const char* Groups::state(const Id& id) const {
  auto it = groups_.find(id);
  if (it == groups_.end()) return "";
  switch (it->second.state) {
    case State::kWaits: return "waits";
    case State::kPreparing: return "preparing";
    case State::kRecording: return "recording";
    case State::kCommitting: return "committing";
    case State::kReady: return "ready";
    case State::kRemoving: return "removing";
  }
  return "";
}

const std::vector<BundlePlace>* Groups::places(const Id& id) const {
  auto it = groups_.find(id);
  return it == groups_.end() ? nullptr : &it->second.row.places;
}

std::string Groups::why(const Id& id) const {
  auto it = groups_.find(id);
  return it == groups_.end() ? "" : strprintf("%s. ", state(id)) + it->second.text;
}

std::string Groups::check() const {
  for (const auto& [id, g] : groups_) {
    const std::string name = id.hex();
    if ((g.state == State::kWaits) != (waiting_.count(g.order) > 0)) return "group " + name + " waits in no line, or does not";
    if (g.state == State::kReady && !open_bundles(g).empty()) return "group " + name + " is ready without all its bundles";
    if (g.state != State::kReady && g.state != State::kWaits && g.at == 0) return "nothing will go on with group " + name;
    if (g.state == State::kPreparing || g.state == State::kRecording)
      for (const auto& [key, p] : g.parts)
        if (g.row.places.empty() || key.second != g.plan) return "group " + name + " prepares a plan that is not its own";
    if (g.state != State::kRemoving && g.row.strategy == Strategy::kStrictSpread) {
      std::set<NodeIndex> used;
      for (const BundlePlace& p : g.row.places)
        if (p.node != kNoNode && !used.insert(p.node).second) return "group " + name + " has two bundles on one node";
    }
  }
  return "";
}

}  // namespace ray::global
