// See node_core.h. Placement groups: created, waited for, removed on the request of processes or with their job; the
// scheduler reserves what they hold. Also: whether a task or actor may run on this node at all.
//
// Invariants: whoever waits for a group waits for one that is pending; a group is removed exactly when the scheduler has it no
// more; of removed ones a bounded number is remembered, for queries.
#include <algorithm>
#include <cstring>

#include "libray/lineage/record.h"
#include "libray/node/core/demands.h"
#include "libray/node/core/node_core.h"
#include "libray/wire/cursor.h"

namespace ray::node {
namespace {

constexpr size_t kGroupIdBytes = 18;   // the rest is zero: as long as bindings are used to
constexpr size_t kMaxBundles = 4096;
constexpr size_t kMaxGroups = 16384;   // that are not removed
constexpr size_t kMaxRemoved = 1000;   // removed groups that queries still tell of,
constexpr size_t kMaxRemovedBytes = 16u << 20;  // and what they take
constexpr size_t kMaxWaiters = 4096;   // of one group
constexpr size_t kMaxGroupBytes = 1u << 20;    // of bundles and names, of one group
constexpr size_t kMaxGroupsBytes = 64u << 20;  // and of all that are not removed

const char* strategy_name(int32_t strategy) {
  static const char* names[] = {"PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"};
  return names[strategy];
}

// Every bundle must ask for something, or nothing could be placed in it.
Status read_bundles(std::string_view packed, std::vector<sched::Resources>* out) {
  wire::Cursor r(packed);
  uint32_t n = r.array();
  if (!r.ok() || n == 0)
    return error(RAY_INVALID_ARGUMENT, "a placement group needs at least one bundle of resources");
  if (n > kMaxBundles)
    return error(RAY_INVALID_ARGUMENT, "a placement group of %u bundles: at most %zu", n, kMaxBundles);
  for (uint32_t i = 0; i < n && r.ok(); ++i) {
    std::map<std::string, double> amounts;
    sched::Resources bundle;
    RAY_TRY(read_resources(r.value(), &amounts));
    for (const auto& [name, amount] : amounts) RAY_TRY(bundle.add(name, amount));
    if (bundle.empty())
      return error(RAY_INVALID_ARGUMENT, "bundle %u of the placement group has no resources", i);
    out->push_back(std::move(bundle));
  }
  if (!r.done()) return error(RAY_INVALID_ARGUMENT, "bundles are not an array of maps of name to number");
  return Status();
}

}  // namespace

// ---- requests

Status NodeCore::room_for_group(const Group& g) const {
  size_t bytes = g.bytes();
  if (bytes > kMaxGroupBytes)
    return error(RAY_INVALID_ARGUMENT, "a placement group described in %zu bytes: at most %zu", bytes, kMaxGroupBytes);
  if (groups_.size() >= kMaxGroups + removed_groups_.size())
    return error(RAY_UNAVAILABLE, "this node has %zu placement groups, which is its limit: remove some", kMaxGroups);
  const bool large = bytes > kMaxGroupsBytes / kMaxGroups;  // so many small ones take no more by themselves
  if (!large && g.name.empty()) return Status();
  for (const auto& [id, other] : groups_) {
    if (large) bytes += other.bytes();
    if (!g.name.empty() && other.name == g.name && other.ns == g.ns && scheduler_.has_group(id))
      return error(RAY_ALREADY_EXISTS, "a placement group named '%s' exists in namespace '%s'", g.name.c_str(), g.ns.c_str());
  }
  if (large && bytes > kMaxGroupsBytes + removed_bytes_)
    return error(RAY_UNAVAILABLE, "descriptions of placement groups take too much memory: remove some");
  return Status();
}

void NodeCore::on(event::GroupCreate& e) {
  const Process* p = process(e.process);
  if (!p || e.strategy < 0 || e.strategy > RAY_GROUP_STRICT_SPREAD)
    return reply(e.process, e.req_id, RAY_INVALID_ARGUMENT, "malformed placement group");
  Group g;
  g.id = e.id;
  std::memset(g.id.b + kGroupIdBytes, 0, kIdSize - kGroupIdBytes);
  g.bundles = std::move(e.bundles);
  g.strategy = e.strategy;
  g.lifetime = e.lifetime;
  g.name = std::move(e.name);
  g.ns = e.ns.empty() ? job_of(e.process).ns : std::move(e.ns);
  g.job = p->job;
  g.job_id = job_of(e.process).id;
  std::vector<sched::Resources> bundles;
  Status s = room_for_group(g);
  if (s.ok()) s = read_bundles(g.bundles, &bundles);
  if (s.ok()) s = scheduler_.create_group(g.id, bundles, g.strategy == RAY_GROUP_STRICT_SPREAD);
  if (!s.ok()) return reply(e.process, e.req_id, s.code(), s.message());
  g.number = next_group_++;
  report(lineage::kEvent, e.process, {{"kind", "group"}, {"group", g.id.hex()}, {"state", g.state}});
  decide_ = true;
  wire::Packer w;
  w.array(1).id(g.id);
  groups_[g.id] = std::move(g);
  reply(e.process, e.req_id, RAY_OK, w.bytes());
}

void NodeCore::on(const event::GroupWait& e) {
  auto g = groups_.find(e.id);
  if (g == groups_.end() || !scheduler_.has_group(e.id))
    return reply(e.process, e.req_id, RAY_NOT_FOUND, "placement group " + e.id.hex() + " does not exist");
  if (std::strcmp(g->second.state, "CREATED") == 0) return reply(e.process, e.req_id, RAY_OK, wire::empty_array());
  auto& waiters = g->second.waiters;
  const std::string text = "placement group " + e.id.hex() + " waits for its resources";
  if (!e.wait) return reply(e.process, e.req_id, RAY_TIMED_OUT, text);
  // Who waits in slices leaves a waiter behind each time, which nobody tells of; one that still waits asks again.
  if (waiters.size() >= kMaxWaiters) {
    reply(waiters.front().first, waiters.front().second, RAY_TIMED_OUT, text);
    waiters.pop_front();
  }
  waiters.emplace_back(e.process, e.req_id);
}

void NodeCore::on(const event::GroupRemove& e) {
  auto g = groups_.find(e.id);
  if (g == groups_.end() || !scheduler_.has_group(e.id))
    return reply(e.process, e.req_id, RAY_NOT_FOUND, "placement group " + e.id.hex() + " does not exist");
  remove_group(&g->second, "was removed");
  reply(e.process, e.req_id, RAY_OK, wire::empty_array());
}

// ---- life

void NodeCore::group_ready(const Id& id) {
  auto it = groups_.find(id);
  if (it == groups_.end()) return;
  Group& g = it->second;
  g.state = "CREATED";
  report(lineage::kEvent, 0, {{"kind", "group"}, {"group", id.hex()}, {"state", g.state}});
  for (auto [process, req_id] : g.waiters) reply(process, req_id, RAY_OK, wire::empty_array());
  g.waiters.clear();
  decide_ = true;  // for what waits to be placed in it
}

void NodeCore::remove_group(Group* g, const std::string& why) {
  std::string text = "was to run in placement group " + g->id.hex() + ", which " + why;
  sched::LocalScheduler::Removed left = scheduler_.remove_group(g->id);
  // Clients hear of it before their workers die: what they retry then fails at once.
  for (auto [client, shape] : left.shapes) unplaceable(client, shape, Status(RAY_GROUP_REMOVED, text));
  actor::Actions actions;
  for (const ActorId& id : left.actors) actors_.fail(id, RAY_GROUP_REMOVED, "it " + text, &actions);
  for (uint32_t worker : left.workers) {
    const actor::Actor* a = actors_.of_worker(worker);
    if (a) actors_.fail(a->spec.id, RAY_ACTOR_DIED, "its placement group " + why, &actions);
    kill_worker(worker, wire::kDeathForced);
  }
  apply(actions);
  for (auto [process, req_id] : g->waiters)
    reply(process, req_id, RAY_NOT_FOUND, "placement group " + g->id.hex() + " " + why);
  g->waiters.clear();
  g->state = "REMOVED";
  report(lineage::kEvent, 0, {{"kind", "group"}, {"group", g->id.hex()}, {"state", g->state}});
  decide_ = true;
  removed_groups_.push_back(g->id);
  removed_bytes_ += g->bytes();
  forget_old_groups();
}

void NodeCore::forget_old_groups() {
  while (removed_groups_.size() > kMaxRemoved || (removed_bytes_ > kMaxRemovedBytes && removed_groups_.size() > 1)) {
    auto oldest = groups_.find(removed_groups_.front());
    removed_bytes_ -= oldest->second.bytes();
    groups_.erase(oldest);
    removed_groups_.pop_front();
  }
}

void NodeCore::drop_group_waiters(uint32_t process) {
  for (auto& [id, g] : groups_) std::erase_if(g.waiters, [&](const auto& w) { return w.first == process; });
}

void NodeCore::remove_groups_of(uint32_t job) {
  std::vector<Id> ids;
  for (const auto& [id, g] : groups_)
    if (g.job == job && g.lifetime != RAY_LIFETIME_DETACHED && scheduler_.has_group(id)) ids.push_back(id);
  for (const Id& id : ids)
    if (auto g = groups_.find(id); g != groups_.end()) remove_group(&g->second, "ended with its job");
}

// Oldest first. "mine": in the namespace of the process that asks.
std::string NodeCore::groups_msgpack(uint32_t index) const {
  const Process* p = process(index);
  std::vector<const Group*> all;
  for (const auto& [id, g] : groups_) all.push_back(&g);
  std::sort(all.begin(), all.end(), [](auto* a, auto* b) { return a->number < b->number; });
  wire::Packer w;
  w.array(static_cast<uint32_t>(all.size()));
  for (const Group* g : all) {
    w.map(9);
    w.str("id").str(g->id.hex());
    w.str("name").str(g->name);
    w.str("namespace").str(g->ns);
    w.str("mine").boolean(p && job_of(index).ns == g->ns);
    w.str("state").str(g->state);
    w.str("strategy").str(strategy_name(g->strategy));
    w.str("detached").boolean(g->lifetime == RAY_LIFETIME_DETACHED);
    w.str("job").str(g->job_id.hex());
    w.str("bundles").raw(g->bundles);
  }
  return w.bytes();
}

// ---- placement

// RAY_UNSCHEDULABLE, RAY_GROUP_REMOVED: it can never run here. `out->never` is for now only.
Status NodeCore::find_place(std::string_view resources, sched::Placement* out) const {
  Placement p;
  RAY_TRY(read_placement(resources, &p));
  out->group = p.group;
  out->bundle = p.bundle;
  out->never = p.never;
  out->here = p.here || !p.node.is_nil();
  if (!p.node.is_nil() && p.node != options_.id && !p.soft)
    return error(RAY_UNSCHEDULABLE, "must run on node %s, which is not alive", p.node.hex().c_str());
  if (p.group.is_nil()) return Status();
  auto g = groups_.find(p.group);
  if (g == groups_.end() || !scheduler_.has_group(p.group))
    return error(RAY_GROUP_REMOVED, "was to run in placement group %s, which was removed",
                 p.group.hex().c_str());
  uint32_t bundles = wire::Cursor(g->second.bundles).array();
  if (p.bundle < -1 || p.bundle >= static_cast<int32_t>(bundles))
    return error(RAY_UNSCHEDULABLE, "was to run in bundle %d of placement group %s, which has %u", p.bundle,
                 p.group.hex().c_str(), bundles);
  return Status();
}

std::string NodeCore::check_groups() const {
  size_t bytes = 0, removed = 0;
  for (const auto& [id, g] : groups_) {
    const bool gone = std::strcmp(g.state, "REMOVED") == 0;
    if (gone == scheduler_.has_group(id)) return "a group is removed that the scheduler has, or the other way around";
    if (!g.waiters.empty() && std::strcmp(g.state, "PENDING") != 0) return "somebody waits for a group that is not pending";
    for (const auto& [index, req_id] : g.waiters)
      if (!process(index)) return "a process that is gone waits for a group";
    if (gone) ++removed, bytes += g.bytes();
  }
  if (removed != removed_groups_.size() || bytes != removed_bytes_) return "the list of removed groups is wrong";
  return "";
}

}  // namespace ray::node
