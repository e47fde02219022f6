// One round of decisions: who is due for a turn, everybody else in order, workers to start, leases to reclaim, idle
// workers to end. Made by LocalScheduler::schedule for each call; not for others.
//
// Turns. Who is due (demands.h) and does not fit gets a *turn*: it goes first, leases of whoever are reclaimed for it, and
// until it has got its worker, or its turn is over, nobody else gets what it waits for. Turns are in the order in which
// they fell due. None begins unless all that it needs can come back: what actors and groups hold does not, nor what a
// lease holds that was reclaimed and did not come back within an earlier turn. So nobody is kept from what he could have
// by something that cannot be placed, and whatever fits starts in a time that others cannot prolong.
//
// Invariants: what is set aside in a round is free again at its end. In a round nobody else gets of an entry that is
// barred. A round ends with no request that was placed twice beyond what it wants.
#pragma once
#include <cstdint>
#include <set>
#include <vector>

#include "libray/sched/local_scheduler.h"

namespace ray::sched {

class Round {
 public:
  Round(LocalScheduler* s, int64_t now, Actions* out)
      : s_(*s), table_(s->table_), groups_(s->groups_), leases_(s->leases_), demands_(s->demands_), pools_(s->pools_),
        options_(s->options_), now_(now), out_(out) {}
  void run();

 private:
  struct Waiting {
    uint32_t leases;  // of its client
    Request* request;
    Demand* demand() const {
      return request->kind == Request::kDemand ? static_cast<Demand*>(request) : nullptr;
    }
  };
  enum class Placed { kGranted, kPlanned, kNoWorker, kUnfit };

  // round.cc
  Placed place(const Waiting& w);
  void grant(const Waiting& w, const Need& need, Worker* worker);
  void reserve(Group* group);
  void place_in_order();
  void report();
  void start_workers();
  void stop_worker(Worker* w);
  void trim();
  void reclaim_all();
  void reclaim_for(const Waiting& w, const View& free);
  void reclaim(uint32_t lease);
  void wake_at(int64_t at) {
    if (!s_.retry_at_ || at < s_.retry_at_) s_.retry_at_ = at;
  }
  View soon();

  // foreign.cc
  void settle_foreign();
  void come_home();

  // turns.cc
  void take_turns();
  void take_turn(Request* q);
  bool has_turn(const Waiting& w);
  void begin_turn(Request* q);
  void end_turn(Request* q);
  int64_t extra_pause(bool same_shape) const;
  void ask_for_process(Request* q);
  void bar(const Need& need);
  bool barred(const Need& need) const;
  bool stuck();
  void relieve();
  void check_turns();

  LocalScheduler& s_;
  ResourceTable& table_;
  PlacementGroups& groups_;
  Leases& leases_;
  Demands& demands_;
  WorkerPools& pools_;
  const SchedulerOptions& options_;
  const int64_t now_;
  Actions* out_;
  std::set<uint32_t> barred_;   // entries, by somebody's turn
  std::vector<Need> turns_;     // of those who have one
  std::vector<Waiting> unfit_;  // in order of priority
};

}  // namespace ray::sched
