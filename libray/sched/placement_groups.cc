// See placement_groups.h.
#include "libray/sched/placement_groups.h"

#include <algorithm>
#include <utility>

namespace ray::sched {
namespace {

constexpr Amount kMostInAll = Amount{1} << 62;  // of one resource: more than any node has, and sums do not overflow

}  // namespace

Status PlacementGroups::create(const Id& id, const std::vector<Resources>& bundles, bool apart, Group** made) {
  if (groups_.count(id)) return error(RAY_ALREADY_EXISTS, "placement group %s exists", id.hex().c_str());
  Group& g = groups_[id];
  g.kind = Request::kGroup;
  g.id = id;
  std::map<uint32_t, Amount> sum;
  for (const Resources& bundle : bundles) {
    g.text += (g.text.empty() ? "" : "}, {") + bundle.to_string();
    g.bundles.emplace_back();
    g.bundles.back().need = table_->need_of(bundle, &g.never);
    for (const auto& [entry, a] : g.bundles.back().need.items) sum[entry] = std::min(sum[entry] + a, kMostInAll);
  }
  g.need.items.assign(sum.begin(), sum.end());
  if (apart && bundles.size() > 1)
    g.never = strprintf("wants its %zu bundles on different nodes (STRICT_SPREAD), but this is the only node",
                        bundles.size());
  *made = &g;
  return Status();
}

Group* PlacementGroups::find(const Id& id) {
  auto g = groups_.find(id);
  return g == groups_.end() ? nullptr : &g->second;
}

const Group* PlacementGroups::living(const Id& id) const {
  auto g = groups_.find(id);
  return g == groups_.end() || g->second.removed ? nullptr : &g->second;
}

Status PlacementGroups::place(Request* r, const Placement& placement) {
  if (placement.group.is_nil()) return Status();
  if (!living(placement.group))
    return error(RAY_NOT_FOUND, "placement group %s does not exist", placement.group.hex().c_str());
  Group* g = find(placement.group);
  if (placement.bundle >= static_cast<int32_t>(g->bundles.size()) || placement.bundle < -1)
    return error(RAY_INVALID_ARGUMENT, "placement group %s has %zu bundles, none of index %d",
                 placement.group.hex().c_str(), g->bundles.size(), placement.bundle);
  r->group = g;
  r->bundle = placement.bundle;
  return Status();
}

void PlacementGroups::reserve(Group* g) {
  g->ready = true;
  for (Bundle& b : g->bundles) table_->reserve(&b);
}

bool PlacementGroups::leave(Group* g, uint32_t worker) {
  g->users.erase(worker);
  return g->users.empty() && g->removed;
}

void PlacementGroups::give_back(Group* g) {
  if (g->ready)
    for (Bundle& b : g->bundles) table_->give_back(&b);
  groups_.erase(Id(g->id));
}

bool PlacementGroups::in_bundle(const Group& g, const Request& r, size_t bundle, Need* out) const {
  out->group = const_cast<Group*>(&g);
  return g.ready && table_->in_bundle(g.bundles[bundle], r.need, out) && table_->fits(*out, table_->empty());
}

bool PlacementGroups::choose_bundle(Request* r, const View& free) const {
  const Group& g = *r->group;
  size_t first = r->bundle < 0 ? 0 : static_cast<size_t>(r->bundle);
  size_t last = r->bundle < 0 ? g.bundles.size() : first + 1;
  r->placed = Need{};
  for (size_t i = first; i < last; ++i) {
    Need n;
    if (!in_bundle(g, *r, i, &n)) continue;
    bool room = table_->fits(n, free);
    if (room || !r->placed.group) r->placed = std::move(n);
    if (room) return true;
  }
  return false;
}

std::string PlacementGroups::infeasible(const Request& r) const {
  if (!r.group->ready) return "";
  for (size_t i = 0; i < r.group->bundles.size(); ++i) {
    if (r.bundle >= 0 && static_cast<size_t>(r.bundle) != i) continue;
    if (Need n; in_bundle(*r.group, r, i, &n)) return "";
  }
  return strprintf("needs {%s}, which %s of placement group %s ({%s}) has", r.text.c_str(),
                   r.bundle < 0 ? "no bundle" : strprintf("not even bundle %d", r.bundle).c_str(),
                   r.group->id.hex().c_str(), r.group->text.c_str());
}

std::string PlacementGroups::check(const std::map<const Group*, std::set<uint32_t>>& users) const {
  for (const auto& [id, g] : groups_) {
    auto u = users.find(&g);
    if (g.users != (u == users.end() ? std::set<uint32_t>() : u->second)) return "a group's set of users is wrong";
    if (g.removed && g.users.empty()) return "a removed group holds resources for nobody";
    if (g.removed && (!g.shapes.empty() || !g.actors.empty())) return "something waits for a removed group";
    for (const Bundle& b : g.bundles)
      if (b.slots.size() != (g.ready ? b.need.items.size() : 0)) return "a group has entries and is not reserved, or has none";
  }
  return "";
}

}  // namespace ray::sched
