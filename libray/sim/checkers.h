// What must hold of every run, kept by books of their own: a checker learns what the world did and what the scheduler
// said, and looks into nobody's tables. A complaint is "CHECKER: what"; the first one ends the run. One thread.
//
//   resources  what is held by whoever runs never exceeds the node, a group its bundles, a unit of a GPU itself;
//              nobody has a worker that somebody else has
//   starts     whatever fits beside what is held for good starts within its bound
//   once       each task ends once
//   again      one that began runs again only if it has a retry for that, and never once it was cancelled
//   unbegun    one that never began does not fail for its worker's death, nor for a record that was written over
//   order      calls of one handle are sent in the order in which they were made, and begin once those before are through
//   held       a call that could go does; what stood before it may have been cancelled
//   force      nothing begins where a task is to end by force
//   wants      nothing is wanted for long for tasks that are not there
//   zero       at the end nothing is held, wanted or remembered
//   rest       the scheduler does not ask for ever to be asked again
//   own        the scheduler's own invariants (LocalScheduler::check)
#pragma once
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "libray/base/ids.h"
#include "libray/sched/local_scheduler.h"

namespace ray::sim {

using sched::Amount;
using sched::Resources;
using Amounts = std::map<std::string, Amount>;

inline constexpr const char* kToldApart = "GPU";  // the resource whose units are told apart
inline constexpr int64_t kTurn = 400'000'000;         // less than half of a first turn, and its quantum
inline constexpr int64_t kForGood = 32'000'000'000;  // who runs for longer holds for good

struct Where {
  Id group;  // zero: none
  int32_t bundle = -1;
};

// The books of `resources`. A holder is a worker, from the grant until it was given back or is really dead.
class Ledger {
 public:
  Ledger(const Resources& total, std::string* broken) : total_(total), broken_(broken) {}
  struct Holder {
    Resources need;
    Where where;
    std::vector<uint32_t> units;
    int64_t since = 0;  // of what runs there now
    bool blocked = false, actor = false;
    int64_t granted_at = 0;  // a client that was stopped may begin long after
  };
  void granted(uint64_t worker, Holder holder);
  void ended(uint64_t worker) { holders_.erase(worker), tidy(); }
  void began(uint64_t worker, int64_t now);  // a task, on a lease that had another
  void blocked(uint64_t worker, bool yes);   // as the scheduler was told
  void reserved(const Id& group, const std::vector<Resources>& bundles);
  void removed(const Id& group);
  const std::map<uint64_t, Holder>& holders() const { return holders_; }
  // Whether it would fit if everything came back but what is held for good.
  bool fits_for_good(const Resources& need, const Where& where, int64_t now) const;
  bool fits_all_for_good(const std::vector<Resources>& bundles, int64_t now) const;
  bool possible(const Resources& need) const;  // on an empty node
  size_t for_good(int64_t now) const;          // workers
  bool all_wait(int64_t now) const;  // who has a lease waits, or has kept it through a turn

 private:
  struct Group {
    std::vector<Resources> bundles;
    bool removed = false;
  };
  void tidy();
  bool in_group(const Id& group) const;
  bool holds_for_good(const Holder& h, int64_t now) const {
    return h.actor || h.blocked || now - h.since > kForGood;
  }
  void check(const Holder& added);
  void check_units();
  void check_group(const Holder& added);
  void complain(const std::string& what) {
    if (broken_->empty()) *broken_ = "resources: " + what;
  }

  Resources total_;
  std::string* broken_;
  std::map<uint64_t, Holder> holders_;
  std::map<Id, Group> groups_;
};

// The books of `once`, `again`, `unbegun` and `order`.
class Tasks {
 public:
  explicit Tasks(std::string* broken) : broken_(broken) {}
  struct Terms {
    int32_t retries = 0;
    uint64_t handle = 0, seq = 0;  // of a call
    bool in_order = false;
  };
  uint64_t submitted() {
    open_.insert(++next_);
    return next_;
  }
  void terms(uint64_t task, const Terms& t);
  void sent(uint64_t task);
  void came_back(uint64_t task);
  void began(uint64_t task);
  void passed(uint64_t task);  // its worker is done with it, or will not begin it
  void cancelled(uint64_t task);
  void ended(uint64_t task, const std::string& how);
  bool is_open(uint64_t task) const { return open_.count(task) > 0; }
  const std::set<uint64_t>& open() const { return open_; }
  uint64_t count() const { return next_; }

 private:
  std::string* broken_;
  struct Book : Terms {
    int32_t began = 0, at_cancel = -1;  // how often it began: at all, and before it was cancelled
  };
  void complain(uint64_t task, const char* checker, const std::string& what) {
    if (broken_->empty()) *broken_ = std::string(checker) + ": task " + std::to_string(task) + " " + what;
  }
  std::set<uint64_t> open_;
  std::map<uint64_t, Book> books_;                      // of those that are open
  std::map<uint64_t, std::set<uint64_t>> unfinished_, unsent_;  // of a handle whose calls are in order
  uint64_t next_ = 0;
};

// The books of `starts`: since when each that waits could have been placed.
class Waits {
 public:
  explicit Waits(std::string* broken) : broken_(broken) {}
  struct Request {
    std::string name;
    bool could = false;   // it fits beside what is held for good, and a worker for it can come
    uint64_t change = 0;  // a number that changes when it gets something
    int64_t bound = 0;
  };
  void look(int64_t now, const std::vector<Request>& waiting);
  double closest() const { return closest_; }  // to its bound that anybody came

 private:
  struct Seen {
    int64_t since;
    uint64_t change;
    uint64_t look;
  };
  std::string* broken_;
  std::map<std::string, Seen> seen_;
  uint64_t looks_ = 0;
  double closest_ = 0;
};

}  // namespace ray::sim
