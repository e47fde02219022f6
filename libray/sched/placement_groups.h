// Placement groups: sets of bundles that take their resources from the node's, all at once, and what is placed in them.
// What is placed in a group draws from one of its bundles and from nothing else.
//
// Used by the local scheduler alone; a pure structure, on its thread. Who waits for a group, or for something of one,
// stands in Demands.
//
// Invariants (check()):
//  - A group has entries in the resource table exactly while it is reserved (`ready`); before, it costs what its
//    description takes.
//  - `users` are the workers that hold something of it. A removed group is forgotten with its last user, and its
//    resources are the node's again then, not before.
//  - Nothing new is placed in a removed group.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "libray/base/status.h"
#include "libray/sched/requests.h"

namespace ray::sched {

class PlacementGroups {
 public:
  explicit PlacementGroups(ResourceTable* table) : table_(table) {}

  // apart: its bundles must be on different nodes.
  Status create(const Id& id, const std::vector<Resources>& bundles, bool apart, Group** made);
  Group* find(const Id& id);               // removed ones too
  const Group* living(const Id& id) const;
  Status place(Request* r, const Placement& placement);  // finds its group
  void reserve(Group* g);                  // it fits
  void use(Group* g, uint32_t worker) { g->users.insert(worker); }
  // Returns whether that was the last of a removed group, which is to be given back.
  bool leave(Group* g, uint32_t worker);
  void give_back(Group* g);                // and forgets it

  // Sets r->placed to the bundle that has room, else to one that could have. False: none has room.
  bool choose_bundle(Request* r, const View& free) const;
  bool fits(const Group& g, const View& free) const { return table_->fits(g.bundles, free); }
  std::string infeasible(const Request& r) const;  // "" or why its group will never do

  size_t size() const { return groups_.size(); }
  const std::map<Id, Group>& all() const { return groups_; }  // for check()
  std::string check(const std::map<const Group*, std::set<uint32_t>>& users) const;

 private:
  bool in_bundle(const Group& g, const Request& r, size_t bundle, Need* out) const;
  ResourceTable* table_;
  std::map<Id, Group> groups_;
};

}  // namespace ray::sched
