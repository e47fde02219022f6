// See group_member.h.
#include "libray/sched_global/group_member.h"

#include <algorithm>
#include <utility>

namespace ray::global {

void GroupMember::prepare(const Id& id, uint64_t plan, const std::vector<Bundle>& bundles, int64_t now, MemberReplies* out) {
  Group& g = groups_[id];
  if (g.committed.count(plan)) return out->push_back({MemberReply::kPrepared, id, plan});
  if (g.prepared.plan == plan) {
    g.prepared.since = now;
    if (g.prepared.taken) out->push_back({MemberReply::kPrepared, id, plan});
    return;  // else it waits, and is answered when it has something
  }
  if (plan <= g.highest) return out->push_back({MemberReply::kPrepared, id, plan, false, "this plan was given up"});
  drop_prepared(id, &g);
  g.highest = plan;
  g.prepared = {plan, bundles, false, now};
  try_take(id, &g, out);
  if (g.prepared.plan && !g.prepared.taken) line_.emplace_back(id, plan);
}

void GroupMember::try_take(const Id& id, Group* g, MemberReplies* out) {
  switch (take_(id, g->prepared.bundles)) {
    case Taken::kLater: return;
    case Taken::kYes:
      g->prepared.taken = true;
      return out->push_back({MemberReply::kPrepared, id, g->prepared.plan});
    case Taken::kNever: break;
  }
  out->push_back({MemberReply::kPrepared, id, g->prepared.plan, false, "not enough on this node that could become free"});
  drop_prepared(id, g);
  forget_some(id);
}

void GroupMember::commit(const Id& id, uint64_t plan, MemberReplies* out) {
  auto it = groups_.find(id);
  Group* g = it == groups_.end() ? nullptr : &it->second;
  if (g && g->prepared.plan == plan && g->prepared.taken) {
    g->committed[plan] = std::move(g->prepared.bundles);
    g->prepared = Prepared{};
  }
  const bool ok = g && g->committed.count(plan);
  out->push_back({MemberReply::kCommitted, id, plan, ok, ok ? "" : "nothing is prepared by this plan (any more)"});
}

void GroupMember::abort(const Id& id, uint64_t plan, MemberReplies* out) {
  Group& g = groups_[id];
  g.highest = std::max(g.highest, plan);  // its prepare may still come
  if (g.prepared.plan == plan) drop_prepared(id, &g);
  auto kept = g.committed.find(plan);
  if (kept != g.committed.end()) {
    give_(id, kept->second);
    g.committed.erase(kept);
  }
  forget_some(id);
  out->push_back({MemberReply::kAborted, id, plan});
}

void GroupMember::remove(const Id& id, MemberReplies* out) {
  Group& g = groups_[id];
  g.highest = UINT64_MAX;
  drop_prepared(id, &g);
  for (const auto& [plan, bundles] : g.committed) give_(id, bundles);
  g.committed.clear();
  forget_some(id);
  out->push_back({MemberReply::kRemoved, id});
}

void GroupMember::drop_prepared(const Id& id, Group* g) {
  const Prepared p = std::exchange(g->prepared, Prepared{});
  if (p.taken) give_(id, p.bundles);
}

// `id` may hold nothing now; of those the oldest are forgotten when there are many.
void GroupMember::forget_some(const Id& id) {
  if (groups_.at(id).empty()) empty_.push_back(id);
  while (empty_.size() > remembered_) {
    auto it = groups_.find(empty_.front());
    if (it != groups_.end() && it->second.empty()) groups_.erase(it);
    empty_.pop_front();
  }
}

void GroupMember::room(MemberReplies* out) {
  for (size_t n = line_.size(); n > 0; --n) {
    const auto [id, plan] = line_.front();
    auto it = groups_.find(id);
    const bool waits = it != groups_.end() && it->second.prepared.plan == plan && !it->second.prepared.taken;
    if (waits) try_take(id, &it->second, out);
    line_.pop_front();
    it = groups_.find(id);
    if (waits && it != groups_.end() && it->second.prepared.plan == plan && !it->second.prepared.taken) {
      line_.emplace_front(id, plan);  // nobody overtakes the first
      return;
    }
  }
}

void GroupMember::tick(int64_t now) {
  std::vector<Id> old;
  for (const auto& [id, g] : groups_)
    if (g.prepared.plan && g.prepared.since + hold_ns_ <= now) old.push_back(id);
  for (const Id& id : old) {
    drop_prepared(id, &groups_.at(id));
    forget_some(id);
  }
}

int64_t GroupMember::deadline() const {
  int64_t at = INT64_MAX;
  for (const auto& [id, g] : groups_)
    if (g.prepared.plan) at = std::min(at, g.prepared.since + hold_ns_);
  return at;
}

std::vector<Bundle> GroupMember::promised() const {
  std::vector<Bundle> all;
  for (const auto& [id, g] : groups_) {
    all.insert(all.end(), g.prepared.bundles.begin(), g.prepared.bundles.end());
    for (const auto& [plan, bundles] : g.committed) all.insert(all.end(), bundles.begin(), bundles.end());
  }
  return all;
}

std::vector<std::pair<Id, Bundle>> GroupMember::committed() const {
  std::vector<std::pair<Id, Bundle>> all;
  for (const auto& [id, g] : groups_)
    for (const auto& [plan, bundles] : g.committed)
      for (const Bundle& b : bundles) all.emplace_back(id, b);
  return all;
}

}  // namespace ray::global
