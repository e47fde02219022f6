// What the control store is asked about actors, so that requests which overtake each other do no harm: names and rows. Pure;
// used by NodeCore.
//
// Names. Between the request to take a name back and its answer nobody claims it: who wants it then waits, and claims as soon
// as the answer is there. Rows. One at a time of each actor is under way; of the changes that wait behind it the last says
// all.
//
// Invariants: nobody waits for a name that is not being released, or twice; no queue is empty; no change waits behind another.
#pragma once
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "libray/base/ids.h"
#include "libray/node/core/action.h"

namespace ray::node {

class NameClaims {
 public:
  // Whether it may be claimed now; else `id` waits.
  bool claim(const ActorId& id, const std::string& ns, const std::string& name) {
    auto it = releasing_.find({ns, name});
    if (it == releasing_.end()) return true;
    it->second.push_back(id);
    return false;
  }
  void release(const std::string& ns, const std::string& name) { releasing_[{ns, name}]; }
  // Who waited, in order.
  std::vector<ActorId> released(const std::string& ns, const std::string& name) {
    auto it = releasing_.extract({ns, name});
    return it.empty() ? std::vector<ActorId>() : std::move(it.mapped());
  }
  size_t size() const { return releasing_.size(); }
  std::string check() const;

 private:
  std::map<std::pair<std::string, std::string>, std::vector<ActorId>> releasing_;
};

class ActorRows {
 public:
  using Row = std::shared_ptr<const action::ActorRow>;
  // Whether it is to be written now.
  bool add(const Row& row);
  // The first is: the next, or null.
  Row written(const ActorId& id);
  size_t size() const { return rows_.size(); }  // actors
  std::string check() const;

 private:
  std::map<ActorId, std::deque<Row>> rows_;
};

}  // namespace ray::node
