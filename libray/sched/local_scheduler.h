// The node's scheduler: who may use which worker, with which resources. A pure state machine:
// events in, actions out, no I/O, no clock. Driven by the node daemon's main thread and by tests.
//
// Terms. A *pool* is the workers of one (language, job). A *demand* is what one client wants of one
// shape (resources + pool): level-triggered, "so many leases in all". A *lease* gives one worker to one
// client and holds the shape's resources until it is returned. An actor holds a worker and its
// resources for life. A *group* (placement group) takes the resources of its bundles out of the node's,
// all at once; what is placed in it draws from one of its bundles and from nothing else.
//
// Parts, each with the invariants of its own in its header. This class tells them what happened; a Round (round.h) makes
// the decisions.
//   ResourceTable    what there is, who holds what, what comes back       resource_table.h
//   WorkerPools      idle and starting workers, the limit of processes    worker_pools.h
//   Leases           who has which worker; whom to ask back first         leases.h, reclaim_order.h
//   Foreigners       stand-ins for workers of other nodes                 foreign.h
//   PlacementGroups  bundles and what is placed in them                   placement_groups.h
//   Demands          who waits, in which order, and the rule of fairness  demands.h
//
// Rules that several of them keep together. (1) The sum of what leases and actors hold never exceeds the node's totals,
// except by the CPU of blocked workers: it is lent to others and taken back at once on return (oversubscribed until leases
// come back). (2) The client with the fewest leases goes first, then whoever waits longest. (3) Who has waited too long
// gets a turn. (4) When nothing is free, leases are reclaimed from those who hold more than the one who waits, or,
// when he holds none, from whoever has had one for a quantum. (5) A group that is removed gives its
// resources back when the last of its workers is gone. (6) Resources are set aside for a worker that is being started only
// while it may come at any moment. (7) When all that have a worker wait, the limit of processes gives way, one by one.
// (8) What a stand-in of another node's worker does changes nothing of this but that its client wants one less.
//
// Cost: what an event or a decision costs depends on what it is about, not on how many other clients, leases, shapes and
// groups there are; a round looks at a bounded number of clients that wait and of their requests, and those that were not
// looked at have their turn in the next ones. looks() counts.
#pragma once
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "libray/base/ids.h"
#include "libray/base/status.h"
#include "libray/sched/demands.h"
#include "libray/sched/foreign.h"
#include "libray/sched/leases.h"
#include "libray/sched/placement_groups.h"
#include "libray/sched/resource_table.h"
#include "libray/sched/worker_pools.h"

namespace ray::sched {

struct Action {
  enum Kind {
    kGrant,            // client, shape, worker, lease
    kReclaim,          // client, shape, worker, lease
    kInfeasible,       // client, shape, task, text
    kActorInfeasible,  // actor, text
    kAssignActor,      // actor, worker
    kStartWorkers,     // pool, count
    kStopWorker,       // worker: idle for long, or a stand-in that is done: end it in order
    kGroupReady,       // group: its bundles are reserved
    kGroupInfeasible,  // group, text
  } kind;
  uint32_t client = 0, shape = 0, worker = 0, lease = 0, count = 0;
  bool elsewhere = false;  // kInfeasible, kActorInfeasible: another node may do it; see spills()
  Id id;  // task (kInfeasible), actor or group
  Pool pool;
  std::string text;
};
using Actions = std::vector<Action>;

struct SchedulerOptions {
  Resources total;
  std::vector<std::string> instanced;  // resources whose units are told apart
  uint32_t max_workers = 1024;      // processes on the node, actors included
  int64_t quantum_ns = 5'000'000;   // a lease is left alone that long when turns are taken
  int64_t idle_ns = 2'000'000'000;  // idle workers above the warm number end after that
  int64_t age_ns = 500'000'000;     // who has waited so long is due for a turn
  int64_t turn_ns = 1'000'000'000;  // the first turn; each further one of the same request is twice as long,
  uint32_t max_turn_shift = 5;      // up to 32 times
  int64_t spill_ns = 0;             // what waits for so long may go to another node; 0: there is none
  bool checks = false;              // also look at every round's turns; see check()
};

class LocalScheduler {
 public:
  explicit LocalScheduler(const SchedulerOptions& options);

  // ---- clients
  Status define_shape(uint32_t client, uint32_t shape, const Resources& resources, Pool pool,
                      const Placement& placement = {});
  Status want(uint32_t client, uint32_t shape, uint32_t want, const TaskId& example);
  Status return_lease(uint32_t client, uint32_t worker, uint32_t lease, int64_t now);
  // Drops its demands and leases; returns the workers that it held: they may still run its tasks, and what they hold
  // is free when they are gone. The caller kills them.
  std::vector<uint32_t> client_gone(uint32_t client, int64_t now);
  // A paused client (a stopped process) is given nothing, and its leases go first when others want them.
  void pause_client(uint32_t client, bool paused);
  struct Overdue {
    uint32_t client, worker;
  };
  // Leases that were reclaimed before `since` and have not come back. Not those of a worker that waits for what it
  // submitted itself.
  std::vector<Overdue> overdue(int64_t since) const;
  // Whether this client holds that lease of that worker (force-cancel checks it).
  bool holds(uint32_t client, uint32_t worker, uint32_t lease) const;
  std::vector<uint32_t> workers_of(uint32_t client) const;  // that it has leased

  // ---- workers
  void prestart(Pool pool, uint32_t count);
  void worker_ready(uint32_t worker, Pool pool, int64_t now);
  void worker_start_failed(Pool pool, int64_t now);  // it died before it was ready
  void worker_gone(uint32_t worker, int64_t now);
  // It was killed and is not gone yet: nothing more is given to it.
  void worker_killed(uint32_t worker);
  void worker_blocked(uint32_t worker, bool blocked);
  // Forgets its pools. Its actors that wait are cancelled one by one, if they are to be.
  void job_ended(uint32_t job);
  // No worker of this environment is left or will be asked for: forgets its pools.
  void env_gone(uint32_t env);

  // ---- other nodes
  // What waits and should go to another node: what this one can never do, and what has waited for spill_ns and does not fit
  // now; a bounded number, with each call those that come next. Not what asks for nothing, stands in a placement group,
  // has an environment of its own, or is bound to this node.
  std::vector<Spill> spills(int64_t now) { return demands_.spills(now); }
  // When to ask, at the earliest; 0: there is nothing that might go.
  int64_t next_spill() const { return demands_.next_spill(); }
  // A worker of another node has a stand-in here, which was opened for this demand or actor. It gets that in the next
  // decision if it still waits; else, and when the lease comes back, kStopWorker: none is used again.
  void foreign_ready(uint32_t worker, uint32_t client, uint32_t shape);
  void foreign_actor_ready(uint32_t worker, const ActorId& actor);

  // ---- actors
  void want_actor(const ActorId& actor, const Resources& resources, Pool pool,
                  const Placement& placement = {});
  void cancel_actor(const ActorId& actor);  // waits no more

  // ---- groups
  // Waits for its resources; kGroupReady follows. apart: its bundles must be on different nodes.
  Status create_group(const Id& group, const std::vector<Resources>& bundles, bool apart);
  // What a group that is removed leaves behind: none of it will be placed any more. The caller kills
  // the workers.
  struct Removed {
    std::vector<std::pair<uint32_t, uint32_t>> shapes;  // client, shape
    std::vector<ActorId> actors;                        // that waited for a worker
    std::vector<uint32_t> workers;
  };
  Removed remove_group(const Id& group);
  bool has_group(const Id& group) const;  // that is not removed

  // Makes every decision that is possible now.
  void schedule(int64_t now, Actions* out);
  // When schedule() should be called again although nothing happened; 0 = never.
  int64_t next_deadline(int64_t now) const;

  // ---- for queries and tests
  std::map<std::string, double> total() const;
  // `unused`: workers with a lease that run nothing now; what they hold is available too.
  std::map<std::string, double> available(const std::vector<uint32_t>& unused = {}) const;
  // For the cluster's scheduler (totals.cc), of the node's resources; what is zero is left out. What all that waits here
  // needs in sum, but not what can never be had here; and what actors and groups hold, which does not come back.
  std::map<std::string, double> queued() const;
  std::map<std::string, double> held_for_good() const;
  struct Counts {
    uint32_t idle = 0, leased = 0, actors = 0, blocked = 0, starting = 0, waiting = 0;
    uint32_t foreign = 0;  // stand-ins, which are none of these
  };
  Counts counts() const;
  // Since when a worker has its lease, or (about) its actor; -1 = it has neither.
  int64_t busy_since(uint32_t worker) const;
  bool busy() const;  // any worker has
  // What the worker holds now: "" when unknown, "idle", "leased", "actor".
  const char* worker_state(uint32_t worker) const;
  std::map<std::string, double> held(uint32_t worker) const;  // resources that it holds now
  // Numbers of the instances that it holds (shares of): from 0 up to the node's total.
  std::vector<uint32_t> instances(uint32_t worker, const std::string& name) const;
  std::vector<std::pair<const char*, uint64_t>> sizes() const;  // of its tables
  uint64_t looks() const { return demands_.looks() + leases_.order().visited(); }  // at requests and leases, so far
  std::string check() const;                                  // "" or the invariant that is broken

 private:
  friend class Round;
  uint32_t level(uint32_t client) const;  // how many tasks above wait for its tasks: none for a driver's
  void end_lease(uint32_t lease, bool given_back, int64_t now);
  void end_foreign(Foreign* f, bool stop);
  void drop_held(Worker* w);
  void give_back(Group* g);
  std::string check_holders() const;

  SchedulerOptions options_;
  ResourceTable table_;
  PlacementGroups groups_;
  Leases leases_;
  Foreigners foreign_;
  Demands demands_;
  WorkerPools pools_;
  // Workers whose clients are gone, since when: they have no lease, and hold until they are gone.
  std::map<uint32_t, int64_t> ending_;
  // What rounds leave for the next ones.
  int64_t next_extra_turn_[2] = {0, 0};  // of clients that have leases; of those that have some of that very shape
  int64_t decided_at_ = 0;     // the last round
  int64_t slowed_at_ = 0;      // when a lease was last found to take long
  int64_t retry_at_ = 0;       // when to decide again although nothing happened
  int64_t pool_retry_at_ = 0;  // when a command that failed may be tried again
  std::string broken_;         // by the last round; see SchedulerOptions::checks
};

}  // namespace ray::sched
