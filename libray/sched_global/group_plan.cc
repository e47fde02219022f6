// See group_plan.h.
#include "libray/sched_global/group_plan.h"

#include <algorithm>
#include <limits>
#include <numeric>

namespace ray::global {
namespace {

constexpr uint32_t kNowhere = UINT32_MAX;

bool fits(const Amounts& need, const Amounts& free) {
  for (size_t r = 0; r < need.size(); ++r)
    if (need[r] > free[r]) return false;
  return true;
}

void take(const Amounts& need, Amounts* free, Amount sign) {
  for (size_t r = 0; r < need.size(); ++r) (*free)[r] -= sign * need[r];
}

// What is left of what the bundle needs, in parts of what was free.
double left(const Amounts& need, const Amounts& free) {
  double sum = 0;
  for (size_t r = 0; r < need.size(); ++r)
    if (need[r] > 0) sum += static_cast<double>(free[r] - need[r]) / static_cast<double>(free[r]);
  return sum;
}

class Planner {
 public:
  Planner(const std::vector<Amounts>& bundles, const std::vector<PlanNode>& nodes, const std::vector<NodeIndex>& kept,
          const PlanOptions& options)
      : bundles_(bundles), nodes_(nodes), options_(options), at_(bundles.size(), kNowhere), used_(nodes.size(), 0) {
    for (const PlanNode& n : nodes) free_.push_back(n.free);
    for (NodeIndex k : kept)
      for (size_t n = 0; n < nodes.size(); ++n)
        if (nodes[n].node == k) ++used_[n];
    sort_bundles();
  }

  Plan strict_pack(bool anywhere) {
    Amounts all(bundles_.empty() ? 0 : bundles_[0].size(), 0);
    for (const Amounts& b : bundles_)
      for (size_t r = 0; r < all.size(); ++r) all[r] += b[r];
    uint32_t best = kNowhere;
    for (uint32_t n = 0; n < nodes_.size(); ++n)
      if ((anywhere || used_[n]) && fits(all, free_[n]) && (best == kNowhere || better(all, n, best))) best = n;
    std::fill(at_.begin(), at_.end(), best);
    return result(best != kNowhere, true);
  }

  // Each bundle on a node of its own, and on none that has one: a matching, by paths that make it larger.
  bool match() {
    std::vector<uint32_t> owner(nodes_.size(), kNowhere);
    for (uint32_t b : order_) {
      std::vector<bool> seen(nodes_.size(), false);
      if (!find_node(b, &owner, &seen)) return false;
    }
    for (uint32_t n = 0; n < owner.size(); ++n)
      if (owner[n] != kNowhere) at_[owner[n]] = n;
    return true;
  }

  Plan pack() {
    if (bundles_.size() <= options_.exact_bundles) {
      for (uint32_t most = 0; most <= bundles_.size(); ++most)  // further nodes
        if (search(0, most, true)) return result(true, true);
      if (steps_ <= options_.exact_steps) return result(false, true);
    }
    return greedy(true);
  }

  Plan spread() {
    if (match()) return result(true, true);
    if (bundles_.size() <= options_.exact_bundles) {
      for (uint32_t most = 1; most <= bundles_.size(); ++most)  // that go where there is one already
        if (search(0, most, false)) return result(true, true);
      if (steps_ <= options_.exact_steps) return result(false, true);
    }
    return greedy(false);
  }

  Plan result(bool found, bool exact) { return {found, exact, found ? at_ : std::vector<uint32_t>()}; }

 private:
  // Largest first, by their parts of the largest node's.
  void sort_bundles() {
    order_.resize(bundles_.size());
    std::iota(order_.begin(), order_.end(), 0);
    std::vector<double> size(bundles_.size(), 0);
    for (size_t r = 0; !bundles_.empty() && r < bundles_[0].size(); ++r) {
      Amount most = 1;
      for (const PlanNode& n : nodes_) most = std::max(most, n.free[r]);
      for (size_t b = 0; b < bundles_.size(); ++b) size[b] += static_cast<double>(bundles_[b][r]) / static_cast<double>(most);
    }
    std::stable_sort(order_.begin(), order_.end(), [&](uint32_t x, uint32_t y) { return size[x] > size[y]; });
  }

  bool better(const Amounts& need, uint32_t n, uint32_t than) const {
    const double x = left(need, free_[n]), y = left(need, free_[than]);
    return x != y ? x < y : nodes_[n].node < nodes_[than].node;
  }

  bool find_node(uint32_t b, std::vector<uint32_t>* owner, std::vector<bool>* seen) {
    for (bool free_ones : {true, false})
      for (uint32_t n = 0; n < nodes_.size(); ++n) {
        if ((*seen)[n] || used_[n] || ((*owner)[n] == kNowhere) != free_ones || !fits(bundles_[b], free_[n])) continue;
        (*seen)[n] = true;
        if (!free_ones && !find_node((*owner)[n], owner, seen)) continue;
        (*owner)[n] = b;
        return true;
      }
    return false;
  }

  void put(uint32_t b, uint32_t n) {
    take(bundles_[b], &free_[n], +1);
    ++used_[n];
    at_[b] = n;
  }
  void lift(uint32_t b, uint32_t n) {
    take(bundles_[b], &free_[n], -1);
    --used_[n];
  }

  // All bundles from the i-th on; at most `most` of them where none is yet (pack), or where one is (else).
  bool search(size_t i, uint32_t most, bool pack) {
    if (i == order_.size()) return true;
    const uint32_t b = order_[i];
    for (bool fresh : {!pack, pack}) {
      const bool counts = fresh == pack;
      if (counts && most == 0) continue;
      std::vector<uint32_t> tried;
      for (uint32_t n = 0; n < nodes_.size(); ++n) {
        if ((used_[n] == 0) != fresh || !fits(bundles_[b], free_[n])) continue;
        // A node like one that did not do will not do; nor is one that is in use like one that is not.
        if (fresh && std::any_of(tried.begin(), tried.end(), [&](uint32_t t) { return free_[t] == free_[n]; })) continue;
        if (++steps_ > options_.exact_steps) return false;
        tried.push_back(n);
        put(b, n);
        if (search(i + 1, most - counts, pack)) return true;
        lift(b, n);
      }
    }
    return false;
  }

  Plan greedy(bool pack) {
    for (uint32_t b : order_) {
      uint32_t best = kNowhere;
      for (uint32_t n = 0; n < nodes_.size(); ++n) {
        if (!fits(bundles_[b], free_[n])) continue;
        if (best == kNowhere) best = n;
        else if (pack && (used_[n] > 0) != (used_[best] > 0)) best = used_[n] > 0 ? n : best;
        else if (pack && used_[n] == 0) best = better(bundles_[b], best, n) ? n : best;  // a new one: with much room
        else if (!pack && used_[n] != used_[best]) best = used_[n] < used_[best] ? n : best;
        else if (better(bundles_[b], n, best)) best = n;
      }
      if (best == kNowhere) return result(false, false);
      put(b, best);
    }
    return result(true, false);
  }

  const std::vector<Amounts>& bundles_;
  const std::vector<PlanNode>& nodes_;
  const PlanOptions& options_;
  std::vector<uint32_t> at_, order_;
  std::vector<uint32_t> used_;  // bundles of the group, by node
  std::vector<Amounts> free_;
  uint32_t steps_ = 0;
};

}  // namespace

Plan plan_bundles(Strategy strategy, const std::vector<Amounts>& bundles, const std::vector<PlanNode>& nodes,
                  const std::vector<NodeIndex>& kept, const PlanOptions& options) {
  Planner p(bundles, nodes, kept, options);
  switch (strategy) {
    case Strategy::kStrictPack: return p.strict_pack(kept.empty());
    case Strategy::kStrictSpread: return p.result(p.match(), true);
    case Strategy::kSpread: return p.spread();
    case Strategy::kPack: break;
  }
  return p.pack();
}

}  // namespace ray::global
