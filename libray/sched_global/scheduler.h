// The global scheduler: which node shall run what its own node does not want or cannot (the bottom-up scheduler of the
// OSDI'18 paper). A pure state machine: events in, actions out, no I/O, no clock. Driven by the head's daemon
// (libray/node/global_side) and by tests/sched_global. docs/global_scheduler.md has the messages and the reasons.
//
// Terms. A *demand* is a task or an actor that some node hands over. It *fits* a node that has the labels, whose totals
// are enough, where enough is not held for good by actors and groups, and that is not draining, silent or full. What is
// answered is a place, *wait* (some node could take it later) or *infeasible now* (none that there is).
//
// Rules. (1) The place is the node with the least cost = wait + transfer: how long what stands in line there takes, and
// the inputs that are not there at the average bandwidth (or the greater of the two, as an option). (2) Costs within
// 5 % of the least are equal; of those, nodes where it starts at once come by load, the rest is left to seeded dice.
// (3) What this instance placed itself counts from that moment (view.h), so nothing is placed in herds. (4) A demand
// stays where it is unless moving it gains more than a hop costs, and more than 30 % once it has moved. After two moves
// its node must take it, after three it is moved no more in this attempt. (5) Hard rules (affinity, labels) filter, soft
// ones are tried first. SPREAD looks at the lines alone, not at inputs, nor at where it comes from. (6) An actor takes a
// node where it can have its resources for good; how full the node is of tasks is no bar. (7) Instances share nothing
// but heartbeats. A demand that comes again is answered with what it was answered before, as long as that node lives
// and could run it; another instance may answer differently, and the asker takes the first answer of its question.
// Whatever waits is kept here only so that it need not be asked for again at once: the asker asks again in any case.
//
// Cost of a decision: O(buckets * look) nodes looked at, each O(resources), and O(log nodes) to count it; buckets are
// powers of two of node sizes, so there are a few. More nodes are passed over only where those that are least loaded
// fail a rule that no index has: a second resource, a label of more than `look_labelled` nodes, refusals. Saying why
// nothing fits is O(nodes), once per kind of demand and change of the cluster.
#pragma once
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "libray/sched_global/decisions.h"
#include "libray/sched_global/groups.h"
#include "libray/sched_global/messages.h"
#include "libray/sched_global/view.h"

namespace ray::global {

struct Options {
  ViewOptions view;
  GroupOptions groups;
  bool overlap = false;         // cost = max(wait, transfer) instead of the sum
  bool locality = true;         // false: as if no node had any input; for measurements
  double equal = 0.05;          // costs
  double hop_ns = 1e6;          // what a move costs besides
  double stay = 0.3;            // of the cost, once it has moved
  uint32_t pin_hops = 2, max_hops = 3;
  uint32_t look = 8;            // nodes that fit, per bucket
  uint32_t look_holders = 8;    // of the nodes that have the most of its inputs
  uint32_t look_labelled = 64;
  uint64_t unknown_size = 1 << 20;  // of an input
  size_t remember = 4096;       // decisions
  size_t max_waiting = 65536;
  int64_t wait_ns = 100'000'000, infeasible_ns = 1'000'000'000;  // ask again after
  int64_t forget_ns = 3'000'000'000;  // what waits and was not asked for again
  int64_t serve_ns = 5'000'000;       // what waits is looked at that often when something changed
  uint32_t serve_lines = 64, serve_places = 4096;  // at a time
};

class GlobalScheduler {
 public:
  explicit GlobalScheduler(const Options& options);

  // ---- events
  void heartbeat(const Heartbeat& h, int64_t now, Actions* out);
  void node_dead(NodeIndex node, uint32_t epoch, int64_t now, Actions* out);  // by the control store
  void demand(const Demand& d, int64_t now, Actions* out);
  void withdraw(const TaskId& id);  // it waits no more; harmless when it does not
  void tick(int64_t now, Actions* out);
  int64_t deadline() const;  // of the next tick; INT64_MAX = never
  // Placement groups: groups.h has the events.
  Groups& groups() { return groups_; }

  // ---- questions
  std::string why(const TaskId& id) const;  // "" when it is not remembered
  const View& view() const { return view_; }
  size_t waiting() const { return waiting_.size(); }
  std::string check() const;  // "" or the invariant that is broken

 private:
  enum class Fit : uint8_t { kFits, kFull, kHeld, kSilent, kRefused, kDraining, kLabels, kSmall, kFits_ };
  static constexpr size_t kFits = static_cast<size_t>(Fit::kFits_);
  struct Candidate : Term {
    const View::Node* at = nullptr;
  };
  struct Wait {
    Demand demand;
    int64_t asked_at = 0;
  };
  struct Verdict {
    Action::Kind kind = Action::kWait;
    std::string text;
  };
  struct Line {  // demands that fit the same nodes: when the first has no place, the rest has none
    std::map<std::pair<int64_t, uint64_t>, Wait> demands;  // by priority, then as they came
    uint64_t generation = 0;  // of the view when the verdict was found
    Verdict verdict;
  };
  using Place = std::pair<std::map<std::string, Line>::iterator, std::pair<int64_t, uint64_t>>;

  // decide.cc
  bool decide(const Demand& d);
  void weigh_inputs(const Demand& d);
  uint64_t bytes_at(NodeIndex node) const;
  Fit fit(const View::Node& n, const Demand& d, bool soft) const;
  bool consider(const View::Node* n, const Demand& d, bool soft);
  void walk(const Demand& d, bool soft);
  bool walk_labelled(const Demand& d, bool soft);
  void walk_line(const View::Line& line, const Demand& d, bool soft);
  void choose_of_all(const Demand& d, bool soft);
  void choose(const Demand& d);
  Verdict explain(const Demand& d) const;
  std::string largest(const Demand& d) const;

  // scheduler.cc
  bool still_fits(const View::Node& n, const Demand& d);
  bool answer_again(const Demand& d, Actions* out);
  void place(const Demand& d, int64_t now, Actions* out);
  Decision* record(const Demand& d, int64_t now);
  void tell(const Demand& d, const Verdict& v, Actions* out) const;
  void keep(const Demand& d, int64_t now, Actions* out);
  bool ask_again(const Demand& d, int64_t now, Actions* out);
  void forget(std::unordered_map<TaskId, Place>::iterator it);
  void serve(int64_t now, Actions* out);
  bool serve_line(std::map<std::string, Line>::iterator line, uint32_t* places, int64_t now, Actions* out);
  uint64_t dice();

  const Options options_;
  View view_;
  Groups groups_;
  Decisions decisions_;
  uint64_t dice_;
  std::map<std::string, Line> lines_;              // by what makes demands alike
  std::unordered_map<TaskId, Place> waiting_;      // looked up, never walked
  std::set<std::pair<int64_t, TaskId>> asked_;     // when
  std::string next_line_;                          // where serve() goes on
  uint64_t next_wait_ = 1;
  bool changed_ = false;   // all lines are to be looked at,
  size_t to_serve_ = 0;    // and so many since the last change were not yet
  int64_t served_at_ = 0;

  // Of the decision that is being made.
  Needs needs_;
  std::vector<Candidate> candidates_;
  std::vector<std::pair<NodeIndex, uint64_t>> local_;  // bytes of inputs, by node
  uint64_t input_bytes_ = 0;
  double run_ns_ = 0, best_ = -1;
  uint32_t looked_ = 0;
  const Candidate* chosen_ = nullptr;
  const char* rule_ = "";
};

}  // namespace ray::global
