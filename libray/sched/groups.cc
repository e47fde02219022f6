// Placement groups in the local scheduler; see local_scheduler.h.
#include <algorithm>
#include <utility>

#include "libray/sched/local_scheduler.h"
#include "libray/sched/round.h"

namespace ray::sched {
namespace {

constexpr Amount kMostInAll = Amount{1} << 62;  // of one resource: more than any node has, and sums do not overflow

}  // namespace

Status LocalScheduler::create_group(const Id& id, const std::vector<Resources>& bundles, bool apart) {
  if (groups_.count(id)) return error(RAY_ALREADY_EXISTS, "placement group %s exists", id.hex().c_str());
  Group& g = groups_[id];
  g.kind = Request::kGroup;
  g.id = id;
  std::map<uint32_t, Amount> sum;
  for (const Resources& bundle : bundles) {
    g.text += (g.text.empty() ? "" : "}, {") + bundle.to_string();
    g.bundles.push_back(need_of(bundle, &g.never));
    for (const auto& [r, a] : g.bundles.back().items) sum[r] = std::min(sum[r] + a, kMostInAll);
  }
  g.need.items.assign(sum.begin(), sum.end());
  if (apart && bundles.size() > 1)
    g.never = strprintf("wants its %zu bundles on different nodes (STRICT_SPREAD), but this is the only node",
                        bundles.size());
  settle(&g);
  return Status();
}

bool LocalScheduler::has_group(const Id& id) const {
  auto g = groups_.find(id);
  return g != groups_.end() && !g->second.removed;
}

LocalScheduler::Removed LocalScheduler::remove_group(const Id& id) {
  Removed out;
  auto it = groups_.find(id);
  if (it == groups_.end() || it->second.removed) return out;
  Group* g = &it->second;
  g->removed = true;
  auto left_behind = [this](Request* r) {
    leave(r);
    std::erase(hopeless_, r);  // it is told that its group is gone, not that it never fits
    r->group = nullptr;
    r->placed = Need{};
    r->gone = true;
  };
  for (auto [client, shape] : std::exchange(g->shapes, {})) {
    left_behind(&clients_.at(client).demands.at(shape));
    out.shapes.emplace_back(client, shape);
  }
  for (const ActorId& actor : std::exchange(g->actors, {})) {
    left_behind(&actors_.at(actor));
    cancel_actor(actor);
    out.actors.push_back(actor);
  }
  for (const auto& [index, w] : workers_)
    if (w.held.group == g) out.workers.push_back(index);
  if (g->users == 0) give_back(g);
  return out;
}

// What its bundles hold has entries of its own from now on; before, a group costs what its text takes.
void LocalScheduler::reserve(Round* r, Group* g) {
  leave(g);
  g->ready = true;
  for (size_t i = 0; i < g->bundles.size(); ++i) {
    Need exact = with_instances(g->bundles[i], free_);
    take(&free_, exact, -1);
    std::map<uint32_t, uint32_t> slots;
    for (const auto& [res, a] : g->bundles[i].items) {
      uint32_t slot = slots[res] = new_slot(names_[res]);
      total_[slot] = free_[slot] = a;
    }
    g->slots.push_back(std::move(slots));
    reserve_instances(g, i, exact);
  }
  for (auto [client, shape] : g->shapes) settle(&clients_.at(client).demands.at(shape));
  for (const ActorId& actor : g->actors) settle(&actors_.at(actor));
  wake_at(r->now);  // what was to be placed in it has not been looked at
  Action action{Action::kGroupReady};
  action.id = g->id;
  r->out->push_back(action);
}

// The end of a removed group that nothing runs in any more.
void LocalScheduler::give_back(Group* g) {
  forget(g);
  if (g->ready) take(&free_, g->need, +1);
  drop_instances(g);
  for (const auto& slots : g->slots)
    for (const auto& [res, slot] : slots) {
      total_[slot] = free_[slot] = 0;
      unused_slots_.push_back(slot);
    }
  groups_.erase(Id(g->id));
  ++freed_;
}

LocalScheduler::Need LocalScheduler::in_bundle(const Group& g, const Need& need, size_t bundle) const {
  Need out;
  out.group = const_cast<Group*>(&g);
  for (const auto& [r, a] : need.items) {
    auto slot = g.slots[bundle].find(r);
    if (slot == g.slots[bundle].end()) return Need{};
    out.items.emplace_back(slot->second, a);
    if (r == kCpu) out.cpu_index = slot->second;
  }
  return out;
}

// Sets r->placed to the bundle that has room, else to one that could have. False: none has room.
bool LocalScheduler::choose_bundle(Request* r, const std::vector<Amount>& free) const {
  const Group& g = *r->group;
  size_t first = r->bundle < 0 ? 0 : static_cast<size_t>(r->bundle);
  size_t last = r->bundle < 0 ? g.bundles.size() : first + 1;
  r->placed = Need{};
  for (size_t i = first; i < last; ++i) {
    Need n = in_bundle(g, r->need, i);
    if (!n.group || !fits(n, total_)) continue;
    bool room = fits(n, free);
    if (room || !r->placed.group) r->placed = std::move(n);
    if (room) return true;
  }
  return false;
}

std::string LocalScheduler::infeasible_in_group(const Request& r) const {
  if (!r.group->ready) return "";
  for (size_t i = 0; i < r.group->bundles.size(); ++i) {
    if (r.bundle >= 0 && static_cast<size_t>(r.bundle) != i) continue;
    Need n = in_bundle(*r.group, r.need, i);
    if (n.group && fits(n, total_)) return "";
  }
  return strprintf("needs {%s}, which %s of placement group %s ({%s}) has", r.text.c_str(),
                   r.bundle < 0 ? "no bundle" : strprintf("not even bundle %d", r.bundle).c_str(),
                   r.group->id.hex().c_str(), r.group->text.c_str());
}

}  // namespace ray::sched
