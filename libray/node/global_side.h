// The head's global scheduler (libray/sched_global) among the nodes of its cluster: hears how they are, answers where
// demands of theirs should go, and why.
//
// Who: membership.h, on the head alone; every call is on membership's thread. So it decides while the daemon's main loop is
// busy, and heartbeats reach it without a detour. Tests drive it alone.
//
// Rules. (1) A node that no relay listens for is offered to nobody. (2) Answers leave at once: a demand for which there is
// no room now waits in the core as well, so that it has its place in line, but whoever asked learns of a place that was
// found meanwhile only when he asks again. (3) Nodes do not say which placements have arrived, so each counts for a second,
// beside what heartbeats say of it. (4) *Infeasible* is said only when the totals of no living node would do: one that has
// said nothing for a moment, or whose relay is being started again, is waited for.
// Invariants: nothing is said of a node whose death is known; what is remembered is bounded.
#pragma once
#include <deque>
#include <map>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "libray/cluster/place.h"
#include "libray/sched_global/scheduler.h"

namespace ray::node {

class GlobalSide {
 public:
  explicit GlobalSide(uint64_t seed);
  // ---- what membership knows
  void row(const cluster::Row& row, int64_t now);  // new, or changed
  void load(cluster::NodeIndex node, const cluster::Load& load, int64_t now);
  void tick(int64_t now);
  int64_t deadline() const { return scheduler_.deadline(); }
  // ---- questions of nodes
  // The answer's body, or an error that says what is wrong with the bytes.
  Result<std::string> place(cluster::NodeIndex from, std::string_view body, int64_t now);
  // "" when nothing is remembered of it.
  std::string why(const TaskId& task) const;

  const global::GlobalScheduler& scheduler() const { return scheduler_; }

 private:
  struct Node {
    uint32_t epoch = 0;
    bool takes = false;  // what others hand over
    bool draining = false;
    wire::Resources total;
    std::map<std::string, std::string> labels;
    cluster::Load load;
    uint64_t version = 0;  // of what the core was told of it
  };
  void tell(cluster::NodeIndex index, Node* n, int64_t now);
  cluster::Verdict ask(cluster::NodeIndex from, const cluster::Question& q, int64_t now);
  bool could_some_day(const wire::Resources& needs) const;
  void remember(const TaskId& task, const TaskId& as);

  global::GlobalScheduler scheduler_;
  std::map<cluster::NodeIndex, Node> nodes_;  // that live
  // By which name the core knows what was asked of a task last: each question has one of its own.
  std::unordered_map<TaskId, TaskId> asked_;  // looked up, never walked
  std::deque<std::pair<TaskId, TaskId>> order_;
};

}  // namespace ray::node
