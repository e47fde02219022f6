// See control_rows.h.
#include "libray/node/core/control_rows.h"

#include <set>

namespace ray::node {

std::string NameClaims::check() const {
  std::set<ActorId> seen;
  for (const auto& [name, waiting] : releasing_)
    for (const ActorId& id : waiting)
      if (!seen.insert(id).second) return "an actor waits twice for a name";
  return "";
}

bool ActorRows::add(const Row& row) {
  std::deque<Row>& rows = rows_[row->id];
  if (rows.size() > 1 && row->change && rows.back()->change) rows.pop_back();
  rows.push_back(row);
  return rows.size() == 1;
}

ActorRows::Row ActorRows::written(const ActorId& id) {
  auto it = rows_.find(id);
  if (it == rows_.end()) return nullptr;
  it->second.pop_front();
  if (!it->second.empty()) return it->second.front();
  rows_.erase(it);
  return nullptr;
}

std::string ActorRows::check() const {
  for (const auto& [id, rows] : rows_) {
    if (rows.empty()) return "an actor without rows to write is listed among those that have some";
    for (size_t i = 2; i < rows.size(); ++i)
      if (rows[i]->change && rows[i - 1]->change) return "a change of an actor's row waits behind another";
  }
  return "";
}

}  // namespace ray::node
