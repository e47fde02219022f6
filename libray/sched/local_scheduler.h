// The node's scheduler: who may use which worker, with which resources. A pure state machine:
// events in, actions out, no I/O, no clock. Driven by the node daemon's main thread and by tests.
//
// Terms. A *pool* is the workers of one (language, job). A *demand* is what one client wants of one
// shape (resources + pool): level-triggered, "so many leases in all". A *lease* gives one worker to one
// client and holds the shape's resources until it is returned. An actor holds a worker and its
// resources for life. A *group* (placement group) takes the resources of its bundles out of the node's,
// all at once; what is placed in it draws from one of its bundles and from nothing else. A bundle is
// kept as further entries behind the node's own in the tables of totals and free amounts, so that one
// set of rules serves both.
//
// Rules. (1) The sum of what leases and actors hold never exceeds the node's totals, except by the CPU
// of blocked workers: it is lent to others and taken back at once on return (oversubscribed until leases
// come back). (2) The client with the fewest leases goes first, then whoever waits longest: deep
// recursion needs a worker per level, not per task. (3) Who has waited too long gets a *turn*: it goes
// first, leases of whoever are reclaimed for it, and until it has got its worker, or its turn is over,
// nobody else gets what it waits for. Turns are in the order in which they fell due. None begins unless
// all that it needs can come back: what actors and groups hold does not, nor what a lease holds that was
// reclaimed and did not come back within an earlier turn. So nobody is kept from what he could have by
// something that cannot be placed, and whatever fits starts in a time that others cannot prolong.
// (4) When nothing is free, leases are reclaimed from those who hold more than the one who waits, or,
// when he holds none, from whoever has had one for a quantum. (5) A group that is removed gives its
// resources back when the last of its workers is gone.
// (6) The units of some resources (GPUs) are told apart: each is an *instance* with a number, a further
// entry in the tables that a need takes besides the resource's own. A whole unit is an instance that
// nobody uses, a fraction is a share of one instance: the fullest that has room.
// (7) Resources are set aside for a worker that is being started only while it may come at any moment.
//
// Cost: one schedule() looks at a bounded number of requests of each client, whatever waits; those that
// were not looked at have their turn in the next ones.
#pragma once
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "libray/base/ids.h"
#include "libray/base/status.h"

namespace ray::sched {

using Amount = int64_t;  // fixed point: 1e-4 of a unit
inline constexpr Amount kUnit = 10000;

// Name -> amount; names sorted, no zeros.
class Resources {
 public:
  // Refuses names that are empty or longer than 64 bytes, and amounts that are negative, not
  // finite, above a million, or not zero but below 0.0001.
  Status add(const std::string& name, double amount);
  Amount get(const std::string& name) const;
  const std::map<std::string, Amount>& items() const { return items_; }
  bool empty() const { return items_.empty(); }
  std::string to_string() const;  // "CPU: 1, GPU: 0.5"

 private:
  std::map<std::string, Amount> items_;
};

struct Pool {
  int32_t language = 0;
  uint32_t job = 0;
  uint32_t env = 0;  // number of the runtime environment; 0 = the job's own
  bool gpus = false;  // what runs there holds some: a library fixes what it sees of them at its first use
  friend auto operator<=>(const Pool&, const Pool&) = default;
};

// Where a demand may be placed.
struct Placement {
  Id group;             // zero: in no group
  int32_t bundle = -1;  // -1: in any bundle that has room
  std::string never;    // why nothing on this node will do; it waits, and is reported once
};

struct Action {
  enum Kind {
    kGrant,            // client, shape, worker, lease
    kReclaim,          // client, shape, worker, lease
    kInfeasible,       // client, shape, task, text
    kActorInfeasible,  // actor, text
    kAssignActor,      // actor, worker
    kStartWorkers,     // pool, count
    kStopWorker,       // worker: idle for long, end it in order
    kGroupReady,       // group: its bundles are reserved
    kGroupInfeasible,  // group, text
  } kind;
  uint32_t client = 0, shape = 0, worker = 0, lease = 0, count = 0;
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
  struct Counts {
    uint32_t idle = 0, leased = 0, actors = 0, blocked = 0, starting = 0, waiting = 0;
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
  std::string check() const;                                  // "" or the invariant that is broken

 private:
  struct Group;
  struct Line;
  struct Round;  // one schedule() call
  struct Need {
    std::vector<std::pair<uint32_t, Amount>> items;  // resource index -> amount
    uint32_t cpu_index = 0;                          // where its CPUs come from
    Group* group = nullptr;
    Amount cpu() const;
  };
  // What waits to be placed.
  struct Request {
    enum Kind { kDemand, kActor, kGroup } kind = kDemand;
    Need need;           // of the node's own resources
    Need placed;         // in a group: the same, of the bundle that was looked at last
    Group* group = nullptr;
    int32_t bundle = -1;
    Pool pool;
    std::string text;    // the resources, for people
    std::string never;   // why nothing on this node will ever do
    bool reported = false;
    bool gone = false;   // its group was removed
    Line* line = nullptr;    // where it waits; null: it does not
    uint64_t seq = 0;        // its place there
    int64_t since = 0;       // it waits, or has its last lease; 0: since the next round
    int64_t due = 0;         // for a turn
    int64_t turn_ends = 0;   // 0: it has none
    uint32_t turns = 0;      // in a row that brought nothing
    uint64_t listed = 0;     // in which round it was a candidate,
    uint64_t round = 0;      // when it was last looked at,
    uint32_t planned = 0;    // and how many workers were planned for it then
    const Need& wants() const { return group && kind != kGroup ? placed : need; }
  };
  struct Demand : Request {
    uint32_t client = 0, shape = 0;
    uint32_t want = 0, have = 0;  // seq is renewed at every grant
    uint32_t blocked = 0;         // of its leases' workers
    bool open = false;            // counted in Client::open
    TaskId example;
  };
  struct ActorDemand : Request {
    ActorId actor;
  };
  struct Group : Request {  // `need` is the sum of its bundles
    Id id;
    std::vector<Need> bundles;                        // what each takes from the node
    std::vector<std::map<uint32_t, uint32_t>> slots;  // per bundle: node's index -> the bundle's own
    bool ready = false, removed = false;
    uint32_t users = 0;                               // workers that hold something of it
    std::set<std::pair<uint32_t, uint32_t>> shapes;   // client, shape: that are to be placed in it
    std::set<ActorId> actors;                         // that wait to be
  };
  // Requests of one client that wait; or the actors, or the groups.
  struct Line {
    std::map<uint64_t, Request*> by_seq;
    std::set<std::pair<Amount, uint64_t>> by_cpu;  // of the node's that it needs
    // A look through by_cpu that may take several rounds, see candidates().
    std::pair<Amount, uint64_t> look_at{0, 0};
    uint64_t freed = 0;
    bool done = true, again = true;
    std::set<uint64_t> fresh;  // that no round has looked at
  };
  struct Due {
    int64_t at;
    uint64_t seq;
    Request* request;
    bool operator<(const Due& o) const { return at != o.at ? at < o.at : seq < o.seq; }
  };
  struct Instance {
    uint32_t entry = 0, id = 0;
  };
  struct Client {
    std::map<uint32_t, Demand> demands;
    Line line;
    std::set<uint32_t> held;  // leases
    uint32_t reclaiming = 0;
    uint32_t open = 0;        // demands that want or have something
    bool paused = false;
    uint32_t leases() const { return static_cast<uint32_t>(held.size()); }
  };
  struct Lease {
    uint32_t id = 0, client = 0, shape = 0, worker = 0;
    uint32_t level = 0;  // of its client's tasks: 0 for a driver's, one more for a task's of it
    int64_t granted_at = 0;
    bool reclaiming = false;
    bool slow = false;  // did not come back within a turn
    int64_t reclaimed_at = 0;
  };
  enum WorkerState { kIdle, kLeased, kActor };
  struct Worker {
    uint32_t index = 0;
    Pool pool;
    WorkerState state = kIdle;
    Need held;
    bool blocked = false;
    Amount lent = 0;
    uint32_t lease = 0, last_client = 0;
    int64_t idle_since = 0;
    bool stopping = false;
    bool killed = false;
  };
  struct PoolState {
    std::vector<uint32_t> idle;  // most recently used last
    uint32_t starting = 0;
    int64_t starting_since = 0;  // that nobody has come
    uint32_t failures = 0;       // in a row
    int64_t retry_at = 0;
  };
  struct Waiting {
    uint32_t leases;
    Request* request;
    Demand* demand() const {
      return request->kind == Request::kDemand ? static_cast<Demand*>(request) : nullptr;
    }
  };
  struct Victim {
    Lease* lease;
    bool surplus;
    uint32_t client_leases;
  };
  enum class Placed { kGranted, kPlanned, kNoWorker, kUnfit };

  // inspect.cc
  std::string check_amounts() const;
  std::string check_clients() const;
  std::string check_lines() const;
  void check_turns();

  // local_scheduler.cc
  int32_t known(const std::string& name) const;
  std::string infeasible_reason(const Request& r) const;
  uint32_t add_index(const std::string& name, bool slot);
  uint32_t new_slot(const std::string& name);
  Need need_of(const Resources& resources, std::string* never) const;
  Status fill(Request* r, const Resources& resources, Pool pool, const Placement& placement);
  Line* line_of(Request* r);
  void settle(Request* r);
  void enter(Request* r);
  void leave(Request* r);
  void set_due(Request* r, int64_t at);
  void wait_anew(Request* r, int64_t now);
  int64_t patience(const Request& r) const;
  void forget(Request* r);
  Demand* demand_of(const Lease& lease);
  void count_open(Demand* d);
  void take(std::vector<Amount>* free, const Need& need, Amount sign) const;
  void hold(Worker* w, const Need& need);
  void drop_held(Worker* w);
  void add_ending(std::vector<Amount>* all) const;
  void make_idle(Worker* w, int64_t now);
  void end_lease(uint32_t lease, bool given_back, int64_t now);
  void remove_idle(Worker* w);
  PoolState* not_starting(const Pool& pool);
  void tidy(const Pool& pool);

  // groups.cc
  std::string infeasible_in_group(const Request& r) const;
  Need in_bundle(const Group& group, const Need& need, size_t bundle) const;
  bool choose_bundle(Request* r, const std::vector<Amount>& free) const;
  void reserve(Round* r, Group* group);
  void give_back(Group* group);
  bool fits_group(const Group& group, std::vector<Amount> free) const;

  // instances.cc
  void make_instances(const std::string& name);
  bool enough(uint32_t resource, Amount amount, const std::vector<Amount>& free) const;
  bool pick(uint32_t resource, Amount amount, const std::vector<Amount>& free, Need* out) const;
  Need with_instances(const Need& need, const std::vector<Amount>& free) const;
  void reserve_instances(Group* group, size_t bundle, const Need& exact);
  void drop_instances(Group* group);

  // decide.cc
  bool fits(const Need& need, const std::vector<Amount>& free) const;
  bool fits(const Request& r, const std::vector<Amount>& free) const;
  void report(Actions* out);
  uint32_t zero_limit() const;
  bool zero_room(const Demand& d) const;
  bool wants_more(const Request& r) const;
  uint32_t leases_of(const Request& r) const;
  uint32_t planned_of(const Request& r) const { return r.round == round_ ? r.planned : 0; }
  uint32_t pick_idle(PoolState* pool, uint32_t client);
  Placed place(Round* r, const Waiting& w);
  void grant(Round* r, const Waiting& w, const Need& need, uint32_t worker);
  void take_turns(Round* r);
  bool has_turn(Round* r, const Waiting& w);
  int64_t extra_pause(bool same_shape) const;
  void end_turn(Request* q, int64_t now);
  void ask_for_process(Round* r, Request* q);
  void bar(Round* r, const Need& need);
  bool barred(const Need& need) const;
  std::vector<Amount> returnable() const;
  std::vector<Amount> coming(const Round& r);
  void candidates(Line* line, std::vector<Request*>* out);
  void place_in_order(Round* r);
  void start_workers(Round* r);
  void make_room(Round* r);
  bool stuck() const;
  void relieve(Round* r);
  std::vector<Waiting> deepest_first();
  uint32_t level(uint32_t client) const;
  bool too_many_idle() const;
  void reclaim_for(Round* r);
  std::vector<Victim> victims_in_order(const Waiting& w, const std::vector<Amount>& free);
  void reclaim(Round* r, Lease* lease);
  void pick_victims(Round* r, const Waiting& w, std::vector<Amount>* free);
  void stop_worker(Worker* w, Actions* out);
  void trim(int64_t now, Actions* out);
  void wake_at(int64_t at) {
    if (!retry_at_ || at < retry_at_) retry_at_ = at;
  }

  SchedulerOptions options_;
  // The node's own resources, and those of bundles, by index.
  std::vector<std::string> names_;
  std::vector<bool> is_slot_;  // of a bundle, or an instance: not a name of its own
  std::vector<Amount> total_, free_;
  std::vector<uint64_t> barred_;                       // in which round, by somebody's turn
  std::vector<int32_t> instance_id_;                   // -1: the entry is no instance
  std::map<uint32_t, std::vector<Instance>> instances_;  // by the resource, or a bundle's slot of it
  std::vector<uint32_t> unused_slots_;
  std::map<Id, Group> groups_;
  std::map<uint32_t, Client> clients_;
  std::map<ActorId, ActorDemand> actors_;
  std::unordered_map<uint32_t, Lease> leases_;
  std::map<uint32_t, Worker> workers_;
  std::set<uint32_t> ending_;  // workers whose clients are gone: they have no lease, and hold until they are gone
  std::set<uint32_t> leaving_;  // workers that were told to end, or killed, and to which nothing is given
  std::map<Pool, PoolState> pools_;   // that have workers, or trouble in starting one
  std::map<Pool, uint32_t> prestart_;
  std::set<std::pair<int64_t, uint32_t>> idle_;  // since when, worker
  uint32_t starting_ = 0, blocked_ = 0;          // workers, of all pools
  Line actor_line_, group_line_;
  std::set<uint32_t> waiting_clients_;           // whose line is not empty
  std::set<Due> due_;                            // all that waits
  std::vector<Request*> hopeless_;               // to be reported
  int64_t next_extra_turn_[2] = {0, 0};  // of clients that have leases; of those that have some of that very shape
  uint64_t freed_ = 1;  // counts what may let somebody in who did not fit
  uint64_t round_ = 0;
  uint64_t next_seq_ = 1;
  uint32_t next_lease_ = 1;
  int64_t decided_at_ = 0;  // the last round
  int64_t slowed_at_ = 0;  // when a lease was last found to take long
  int64_t retry_at_ = 0;    // when to decide again although nothing happened
  int64_t pool_retry_at_ = 0;
  std::string broken_;    // by the last round; see SchedulerOptions::checks
};

}  // namespace ray::sched
