// Placement groups over nodes: planned at once, prepared on every node, recorded, committed; all of it or nothing. A pure
// state machine of one instance, beside its scheduler; docs/global_scheduler.md has the messages.
//
//   waits ──plan──▶ preparing ──all have it──▶ recording ──written──▶ committing ──all said so──▶ ready
//     ▲                 │ refused, died, too late     │ another instance was first                   │
//     ├──abort all──────┘                             └──abort all, and let it be                    │ a node died
//     └───────────────────────────── its bundles alone are planned again ◀───────────────────────────┘
//
// Rules. (1) Until the row is written a plan may be given up: every node that was asked is told, until it answers or is
// dead. Once it is written it goes forward: what a node cannot commit (it died, or gave the bundles back because it
// heard nothing for long) is placed again by a later plan. The group is ready when every bundle was committed, and not
// before. (2) The row is written by compare-and-swap on the plan that was there, so two instances that plan one group
// cannot both succeed; plans of two instances are never equal. An instance that takes over begins from the row.
// (3) First over what is free now, after a while over what may become free: a node keeps such a request until it can
// take it, and the plan is given up when that takes too long. (4) Groups are tried in the order of their coming.
// (5) Each message is repeated until it was answered.
//
// Cost: a plan walks over all nodes (group_plan.h), for a few groups at a time and only when something changed.
#pragma once
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "libray/sched_global/group_plan.h"
#include "libray/sched_global/messages.h"
#include "libray/sched_global/view.h"

namespace ray::global {

struct GroupOptions {
  PlanOptions plan;
  int64_t resend_ns = 200'000'000;
  int64_t prepare_ns = 5'000'000'000;   // then a plan is given up
  int64_t backoff_ns = 50'000'000;      // after that; twice as long after each in a row, up to 64 times
  int64_t patience_ns = 500'000'000;    // then it is planned over what may become free
  int64_t retry_ns = 20'000'000;        // those that wait are looked at that often when something changed
  uint32_t retry_groups = 16;           // at a time
};

class Groups {
 public:
  Groups(const GroupOptions& options, View* view) : options_(options), view_(*view) {}

  // ---- events
  // A new group, or one that this instance takes over. Harmless when it is known with this plan or a later one.
  void place(const GroupRow& row, int64_t now, Actions* out);
  void remove(const GroupRow& row, int64_t now, Actions* out);
  void prepared(const Id& group, uint64_t plan, NodeIndex node, uint32_t epoch, bool ok, int64_t now, Actions* out);
  // ok = false: another instance has written a plan of its own.
  void recorded(const Id& group, uint64_t plan, bool ok, int64_t now, Actions* out);
  void committed(const Id& group, uint64_t plan, NodeIndex node, uint32_t epoch, bool ok, int64_t now, Actions* out);
  void aborted(const Id& group, uint64_t plan, NodeIndex node, uint32_t epoch);
  void removed(const Id& group, NodeIndex node, uint32_t epoch, Actions* out);
  void node_dead(NodeIndex node, uint32_t epoch, int64_t now, Actions* out);
  void changed(int64_t now, Actions* out);  // the view
  void tick(int64_t now, Actions* out);
  int64_t deadline() const;

  // ---- questions
  const char* state(const Id& group) const;  // "" when it is not known
  const std::vector<BundlePlace>* places(const Id& group) const;
  std::string why(const Id& group) const;    // what it waits for
  size_t size() const { return groups_.size(); }
  std::string check() const;                 // "" or the invariant that is broken

 private:
  enum class State : uint8_t { kWaits, kPreparing, kRecording, kCommitting, kReady, kRemoving };
  struct Part {  // what one node was told
    uint32_t epoch = 0;
    std::vector<uint32_t> bundles;
    uint64_t seq = 0;
    bool answered = false;
  };
  using PartKey = std::pair<NodeIndex, uint64_t>;  // node, plan
  struct Group {
    GroupRow row;  // its places: those of the plan that is under way too
    State state = State::kWaits;
    uint64_t order = 0;
    uint64_t plan = 0;            // the highest that was made here or is in the row
    std::map<PartKey, Part> parts;  // of the step that is under way
    int64_t since = 0;            // it waits, or the plan was begun
    int64_t at = 0;               // something is to be done
    uint32_t failures = 0;        // in a row
    Action::Kind said = Action::kGroupReady;
    uint64_t generation = 0;
    std::string text;
  };
  struct Abort {
    Id group;
    uint64_t plan;
    NodeIndex node;
    uint32_t epoch;
    friend auto operator<=>(const Abort& a, const Abort& b) {
      return std::tie(a.group, a.plan, a.node, a.epoch) <=> std::tie(b.group, b.plan, b.node, b.epoch);
    }
    friend bool operator==(const Abort&, const Abort&) = default;
  };
  Group* find(const Id& group);
  Part* part_of(Group* g, uint64_t plan, NodeIndex node, uint32_t epoch);
  bool try_plan(Group* g, int64_t now, Actions* out);
  enum class Over : uint8_t { kFree, kReach, kTotal };
  Plan plan_over(const Group& g, Over over, const std::vector<uint32_t>& open, std::vector<const View::Node*>* nodes) const;
  std::vector<uint32_t> open_bundles(const Group& g) const;
  void wait(Group* g, int64_t now, int64_t at);
  void say_why(Group* g, const std::vector<uint32_t>& open, Actions* out);
  void begin(Group* g, const std::vector<uint32_t>& open, const Plan& plan, const std::vector<const View::Node*>& nodes,
             int64_t now, Actions* out);
  void give_up(Group* g, int64_t now, Actions* out);
  void begin_commit(Group* g, int64_t now, Actions* out);
  void commit_done(Group* g, int64_t now, Actions* out);
  void finish_remove(Group* g, Actions* out);
  void tell(const Group& g, NodeIndex node, uint64_t plan, const Part& p, Actions* out) const;
  void send_record(const Group& g, Actions* out) const;
  void abort(const Id& group, uint64_t plan, NodeIndex node, uint32_t epoch, Actions* out);
  void lose(Group* g, NodeIndex node, uint32_t epoch, int64_t now, Actions* out);
  void remind(Group* g, int64_t now, Actions* out);
  void set_timer(Group* g, int64_t at);
  void retry(int64_t now, Actions* out);

  const GroupOptions options_;
  View& view_;
  std::map<Id, Group> groups_;
  std::set<std::pair<int64_t, Id>> timers_;
  std::map<uint64_t, Id> waiting_;   // by order
  uint64_t retried_ = 0;             // the last of them that was looked at
  std::map<Abort, int64_t> aborts_;  // not answered; when to say it again
  uint64_t next_order_ = 1;
  bool changed_ = false;
  int64_t retried_at_ = 0;
};

}  // namespace ray::global
