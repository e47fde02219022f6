// See cluster_side.h. Placement by the own table alone: until the head is asked.
#include <algorithm>

#include "libray/node/cluster_side.h"

namespace ray::node {
namespace {

bool enough(const cluster::Row& row, const wire::Resources& needs) {
  return std::all_of(needs.begin(), needs.end(), [&](const auto& n) {
    auto has = row.about.resources.find(n.first);
    return has != row.about.resources.end() && has->second >= n.second;
  });
}

}  // namespace

void ClusterSide::place(const TaskId&, uint32_t, const wire::Resources& needs, bool,
                        std::function<void(const Placed&)> placed) {
  Placed out;
  for (const auto& [index, row] : rows_)
    if (row.state == cluster::State::kAlive && index != self().index && enough(row, needs))
      out.node = index, out.epoch = row.epoch;
  placed(out);
}

bool ClusterSide::may_fit_elsewhere(const wire::Resources& needs) const {
  return std::any_of(rows_.begin(), rows_.end(), [&](const auto& r) {
    return r.second.state == cluster::State::kAlive && r.first != self().index && enough(r.second, needs);
  });
}

}  // namespace ray::node
