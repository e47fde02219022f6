// On which nodes the bundles of a placement group go: all at once, over what is free. A pure function; used by groups.h.
//
// PACK takes few nodes, SPREAD many, STRICT_PACK one, STRICT_SPREAD another one for each bundle. STRICT_PACK and
// STRICT_SPREAD (a matching) are exact. PACK and SPREAD are exact for few bundles, as long as the search takes no more
// than its steps: then the number of nodes is the least, or the largest, that there is. Else the largest bundles go
// first, each where it is best for itself; that may fail where a plan exists, and says so (`exact`).
// Ties: the node that is left with the least, then the one with the smaller index.
//
// Cost: O(bundles * nodes) at least, O(bundles^2 * nodes) for STRICT_SPREAD at worst.
#pragma once
#include <cstdint>
#include <vector>

#include "libray/sched_global/messages.h"

namespace ray::global {

using Amounts = std::vector<Amount>;  // one for each resource of the group, in an order of the caller

struct PlanNode {
  NodeIndex node = kNoNode;
  Amounts free;
};

struct PlanOptions {
  uint32_t exact_bundles = 10;
  uint32_t exact_steps = 20000;
};

struct Plan {
  bool found = false;
  bool exact = true;          // not found: there is none
  std::vector<uint32_t> at;   // of `nodes`, by bundle
};

// `kept`: where other bundles of the group are and stay.
Plan plan_bundles(Strategy strategy, const std::vector<Amounts>& bundles, const std::vector<PlanNode>& nodes,
                  const std::vector<NodeIndex>& kept, const PlanOptions& options = {});

}  // namespace ray::global
