// The parts of the simulated node that its files (client, worker, calls, daemon, control, actors, mischief, world) share; see
// world.h. Not for others.
#pragma once
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "libray/node/core/node_core.h"
#include "libray/sim/books.h"
#include "libray/sim/checkers.h"
#include "libray/sim/clock.h"
#include "libray/sim/history.h"
#include "libray/sim/random.h"
#include "libray/sim/world.h"
#include "libray/task/call_queue.h"
#include "libray/task/cancellation.h"
#include "libray/task/lease_policy.h"
#include "libray/task/pending.h"
#include "libray/wire/cursor.h"

namespace ray::sim {

using sched::Pool;

struct Ring;
struct Shape;
struct Pending;
struct Process;

// What the rules of libray/task are told of a simulated client; see lease_policy.h there.
struct Kit {
  using Task = Pending;
  using Link = Ring;
  using Shape = sim::Shape;
  static int64_t run_ns(const Pending* t);
  static void forget_run_ns(Pending* t);
  static uint64_t record_begin(const Pending* t);
  static bool flaw(task::Flaw f) { return f == planted; }
  static bool checked() { return true; }
  static void broken(const char* what) { wrong = what; }
  static inline task::Flaw planted = task::Flaw::kNone;
  static inline std::string wrong;  // what does not hold
};
using Policy = task::LeasePolicy<Kit>;

// What is to be done, as its worker reads it.
struct Task {
  uint64_t id = 0;
  uint32_t shape = 0;
  int64_t length = 0;  // < 0: until it is told to end
  uint32_t children = 0, depth = 0;
  int32_t retries = 0;
  bool again = false;  // its client submits another like it when it ends: a stream
  bool fails = false, on_error = false;  // it ends with an error; that is a reason to try it again
  uint64_t handle = 0, seq = 0;          // of a call: which process called which actor, in which order
  bool any_order = false;
  uint64_t of_run = 0;  // which execution of its client's waits for it
  uint64_t needs = 0;   // another task of its client, whose end it waits for before its own
};

struct Caller;

// The same as its client knows it: what the rules look at has the names that it has in libray/runtime.
struct Pending : Task {
  task::State state = task::State::kFree;
  bool cancelled = false, forced = false, started = false, shrinking = false, aside = false, retry_on_error = false;
  int32_t retries_left = 0;
  uint32_t attempt = 0;
  uint64_t tag = 0, submitted = 0, ring_end = 0;
  int64_t est_ns = 0;
  Pending *prev = nullptr, *next = nullptr;
  task::Lease<Kit>* lease = nullptr;
  Ring* link = nullptr;
  Shape* in = nullptr;       // or it is a call:
  Caller* actor = nullptr;
};

// What a client has of one shape, and what the daemon was told of it.
struct Shape : task::Shape<Kit> {
  uint32_t number = 0;
  Resources need;
  Pool pool;
  Where where;
  bool hopeless = false;
  int64_t run_ns = -1;   // running average of its tasks
  uint32_t want = 0;     // as the daemon was told
  int64_t for_nothing_since = 0;  // it has wanted something, and had no task
  uint64_t grants = 0;
};

// A link: memory that its client and its worker share. A record lies where it was written until the room is used again.
struct Ring : task::Link<Kit> {
  static constexpr uint64_t kRoom = 16;
  struct Record {
    Task task;
    uint64_t end;
  };
  struct Result {
    enum Kind : uint8_t { kDone, kFailed, kCancelled, kReturned } kind;
    uint64_t task;
    bool blocked;  // kReturned: its worker's task waits
    int64_t run_ns;
  };
  struct Cancel {
    uint64_t end;
    bool force;
  };
  uint64_t client = 0, worker = 0;
  Caller* actor = nullptr;
  std::map<uint64_t, Record> records;  // by where they begin
  uint64_t tail = 0, head = 0;         // written to here; room up to there plus kRoom
  uint64_t next = 0, started = 0;      // the worker's: what it takes next, the end of what it began last
  uint64_t freed = 0;                  // before that everything was answered
  std::map<uint64_t, bool> claims;     // by end, of what it took: answered
  std::deque<Result> results;
  std::vector<Cancel> cancels;  // that the worker has not seen
  std::set<uint64_t> cancelled;  // that it has, of what it had not begun
  uint32_t give_back = 0, give_back_seen = 0;
};

// A process's handle of an actor, and what it was told of that.
struct Caller : task::CallQueue<Kit> {
  uint64_t handle = 0;
  uint32_t state = wire::kActorPending, incarnation = 0;
  Ring* ring = nullptr;
  bool any_order = false;
  uint64_t next_seq = 0;
  int64_t could_since = 0;  // go on: 0: it cannot, or does
};

// What a process has written and the daemon has not read.
struct Unread {
  uint64_t number = 0;
  std::function<void(Process*)> read;
};

// A driver or a worker, by a number that is never used again; its index is, when it is buried.
struct Process {
  uint64_t number = 0;
  uint32_t index = 0, job = 0;
  bool driver = false, alive = true, stopped = false, paused = false, killed = false, buried = false;
  int64_t up_at = 0, down_at = 0;                // when the last message arrives
  std::vector<std::function<void()>> held_back;  // while it is stopped
  std::deque<Unread> unread;
  uint64_t written = 0;
  // As a client.
  std::map<uint32_t, Shape> shapes;
  std::map<uint64_t, std::unique_ptr<Ring>> rings;  // by worker
  std::map<uint64_t, std::unique_ptr<Pending>> tasks;
  std::map<Id, Caller> callers;
  Policy policy;
  Policy::Actions todo;
  task::Cancellation<Kit> cancels;
  bool ticks = false;
  uint32_t ticked = 0;
  int32_t shape_of_short = -1;  // see submit_short()
  std::map<Id, int64_t> refs;    // objects and handles of actors that it has
  std::set<uint64_t> functions;  // that it has defined
  // As a worker, and what it runs.
  std::set<uint64_t> clients;  // that have had it as a worker
  Pool pool;
  uint64_t client = 0, runs = 0, end = 0;
  uint32_t open_children = 0;
  bool waits = false;  // for its children
  uint64_t ends_for = 0;  // it is being killed for a task that was cancelled by force
  int64_t began = 0;
  Task task;
  Id actor;
  bool ending = false;  // after its task
  uint64_t spawn = 0;
};

struct Leased {
  uint64_t client = 0, worker = 0;
  uint32_t shape = 0;
};

struct Actor {
  Id id;
  uint32_t job = 0;
  Resources need;
  Pool pool;
  Where where;
  uint64_t worker = 0, creator = 0, function = 0;
  bool waits = false;
  bool owns = false, gave_back = false;  // its name: its creator was told that it has it; it has it no more
  bool detached = false, get_if_exists = false;
  int32_t restarts = 0;
  std::string name;
  Id holds;  // an argument of its constructor
};

// Of a worker that was asked for and has not said hello.
struct Starting {
  Pool pool;
  bool killed = false;
};

// What the control store has, and what it is being asked.
struct ControlStore {
  std::map<std::pair<std::string, std::string>, Id> names;
  std::map<Id, const char*> rows;
  std::set<Id> writing;
  std::set<uint64_t> functions, forgetting;
  std::map<uint64_t, uint32_t> storing;
};

struct Group {
  Id id;
  uint32_t job = 0;
  std::vector<Resources> bundles;
  bool ready = false, hopeless = false, removed = false;
};

class World {
 public:
  explicit World(const WorldOptions& options);
  Outcome run();

 private:
  // world.cc
  static sched::SchedulerOptions options_of(Random* random, uint64_t seed);
  bool over() const { return !broken_.empty(); }
  void run_until(const std::function<bool()>& done, int64_t limit);
  void drain();
  void end_everything();
  void leave();
  void check_at_rest();
  void look_at_jobs();
  void look_at_wants();
  void look();
  std::vector<Waits::Request> waiting();
  bool pool_is_well(const Pool& pool) const;
  bool planted(Fault fault);
  bool always(Fault fault) const { return options_.fault == fault; }
  Process* process(uint64_t number);
  Process* by_index(uint32_t index);
  void complain(const std::string& what) {
    if (broken_.empty()) broken_ = what;
  }

  // mischief.cc
  Resources some_need();
  Pool some_pool(uint32_t job);
  Where some_place(uint32_t job);
  Process* some_driver();
  uint64_t some_worker();
  uint32_t new_shape(Process* p);
  Task some_task(uint32_t shape, uint32_t depth);
  void new_driver();
  void submit_some();
  void submit_short();
  void submit_a_short_one(Process* p, int64_t longest, bool pair);
  void start_stream();
  void mischief();
  void do_mischief();
  void process_mischief();
  void group_mischief();
  void actor_mischief();
  void odd_messages();
  void stop(Process* p);
  void go_on(uint64_t number);

  // client.cc
  void local(uint64_t number, std::function<void(Process*)> what);  // at once, or when it goes on
  void later(Process* p, int64_t ns, std::function<void(Process*)> what);
  void up(Process* p, std::function<void(Process*)> what);
  void down(Process* p, std::function<void(Process*)> what);
  void link(uint64_t to, std::function<void(Process*)> what);
  void define(Process* p, uint32_t number, Shape shape);
  void submit(Process* p, Task task);
  Pending* pending(Process* p, const Task& task);
  void ready(Process* p, uint64_t task);
  void queue(Process* p, Pending* t);
  void pump(Process* p, Shape* s);
  bool push(Process* p, Ring* ring, Pending* t);
  void wake(Ring* ring);
  Ring* ring(Process* p, uint64_t worker);
  void carry_out_todo(Process* p);
  void return_lease(Process* p, uint64_t worker, uint32_t lease);
  void kill_for(Process* p, uint64_t worker, uint32_t lease, uint64_t task);
  void tell_want(Process* p, uint32_t shape, uint32_t want);
  void tick(Process* p);
  void keep_ticking(Process* p);
  void progress(Process* p);
  void drain(Process* p, Ring* ring);
  void on_result(Process* p, Ring* ring, const Ring::Result& r);
  void unlink(Pending* t);
  void requeue(Process* p, Pending* t, bool begun);
  void granted(Process* p, uint32_t shape, uint32_t lease, uint64_t worker);
  void reclaimed(Process* p, uint32_t lease);
  void ended(Process* p, Pending* t, const char* how);
  void fail_waiting(Process* p, Pending* t, const char* how);
  void peer_died(Process* p, uint64_t worker);
  void unplaceable(Process* p, uint32_t shape);
  void cancel(Process* p, uint32_t shape);
  void cancel(Process* p, Pending* t, bool force);
  void cancel_some();
  void orphan(Process* p);

  // calls.cc
  void call_some();
  void call(Process* p, Caller* c, Task task, bool waits);
  void pump_calls(Process* p, Caller* c);
  void watch_calls();
  void actor_state(Process* p, const Id& id, const Fates::Told& told);
  void fail_calls(Process* p, Caller* c);

  // worker.cc
  void work(Process* w);
  void take(Process* w, Ring* ring);
  void begin(Process* w, Ring* ring, const Ring::Record& r);
  void answer(Ring* ring, uint64_t end, Ring::Result r);
  void give_back(Process* w, Ring* ring, bool blocked);
  void look_at_cancels(Process* w, Ring* ring);
  void wait_for_children(Process* w);
  void go_on_after_children(Process* w);
  void wait_for_other(Process* w);
  void block(Process* w, bool yes);
  void finish(Process* w, uint64_t runs, bool cancelled = false);
  std::vector<Ring*> rings_of(Process* w);

  // daemon.cc
  template <class Event>
  void tell(Event&& e) {
    node::Actions actions;
    core_.step(std::forward<Event>(e), clock_.now(), &actions);
    carry_out_all(&actions);
  }
  void carry_out_all(node::Actions* actions);
  void need_decision();
  void decide();
  void read_ring(uint64_t number, uint64_t upto);
  std::vector<std::pair<uint64_t, uint64_t>> tails() const;
  void turn();
  void pass();
  template <class Action>
  void carry_out(const Action&) {}  // of no meaning here
  void carry_out(const node::action::Welcome& a);
  void carry_out(const node::action::Grant& a);
  void carry_out(const node::action::Reclaim& a);
  void carry_out(const node::action::Infeasible& a);
  void carry_out(const node::action::Unplaceable& a);
  void carry_out(const node::action::Exit& a);
  void carry_out(const node::action::PeerDied& a);
  void carry_out(const node::action::CutOff& a);
  void carry_out(const node::action::Report& a);
  void carry_out(const node::action::StartWorker& a);
  void carry_out(const node::action::KillSpawn& a);
  void carry_out(const node::action::GiveUp& a);
  void carry_out(const node::action::Buried& a);
  void carry_out(const node::action::JobEnded& a);
  void carry_out(const node::action::ForgetJob& a);
  uint32_t env_of(const Pool& pool) const;
  void started(uint64_t spawn, bool fails);
  void worker_ready(const node::event::WorkerCame& came, const Pool& pool);
  uint32_t take_index();
  void kill(uint64_t number);
  void die(Process* p);
  void bury(uint64_t number);
  void watch_clients();
  static std::string packed(const Resources& need, const Pool& pool, const Where& where);
  void create_group(Process* p, Group g);
  void remove_group(const Id& id);
  std::vector<uint32_t> units(uint32_t index);

  // actors.cc
  void create_actor(Process* p);
  void write_creation(Process* p, const Id& id, bool announced);
  void named_creation(Process* p, const Id& id, int32_t code, const std::string& body);
  void connect(Process* p, const Id& id, bool announces);
  void spread(Process* p, const Id& id);
  void kill_actor(Process* p, const Id& id);
  void find_one(Process* p);
  uint64_t new_request(uint64_t process);
  void carry_out(const node::action::Reply& a);
  void carry_out(const node::action::TellActor& a);
  void carry_out(const node::action::InitActor& a);
  void carry_out(const node::action::ActorWanted& a);
  void actor_became(const std::string& hex, const std::string& state);
  void leave_as_actor(Process* w);
  void function_mischief();

  // control.cc
  void ask_control(std::function<void()> there, std::function<void()> back);
  void carry_out(const node::action::ClaimName& a);
  void carry_out(const node::action::ReleaseName& a);
  void carry_out(const node::action::WriteRow& a);
  void carry_out(const node::action::StoreFunction& a);
  void carry_out(const node::action::ForgetFunction& a);
  void carry_out(const node::action::AskFunction& a);
  void carry_out(const node::action::FreeObject& a);
  void check_control_store();
  void share_some();
  void pass_on(Process* p, const Id& id, uint64_t to, std::function<void(Process*)> then);
  void let_go(Process* p, const Id& id);
  Process* somebody();
  void object_mischief();

  std::string broken_;
  WorldOptions options_;
  Random random_;
  Clock clock_;
  History history_;
  sched::SchedulerOptions limits_;
  node::NodeCore core_;
  const sched::LocalScheduler& s_;  // the core's
  Ledger ledger_;
  Tasks tasks_;
  Waits waits_;
  Holds holds_;
  Fates fates_;
  Requests requests_;
  ControlStore control_;
  std::map<uint64_t, Process> processes_;
  std::map<uint32_t, Leased> leases_;     // as the daemon knows them
  std::map<uint32_t, uint64_t> indexes_;  // of those that are not buried
  std::map<Id, Actor> actors_;
  std::map<Id, Group> groups_;
  std::map<Pool, int64_t> trouble_;  // when a worker of it last failed
  std::set<uint32_t> failing_envs_, jobs_;
  uint64_t next_process_ = 1;
  uint32_t next_id_ = 1;
  std::map<uint64_t, Starting> starting_;  // by spawn
  std::map<uint64_t, std::function<void(Process*, int32_t, const std::string&)>> on_reply_;  // by request
  std::map<std::string, Id> actor_of_hex_;
  std::set<uint64_t> finds_;  // requests
  std::set<uint32_t> lost_links_;             // that could not be made
  std::map<uint64_t, int64_t> over_since_;    // workers of jobs that are over
  bool turn_due_ = false, passing_ = false;
  int64_t longest_ = 0;  // task
  bool long_tasks_ = false, streams_ = false, deadly_ = false;  // what kind of world it is
  bool crowded_ = false;  // tasks that wait for others at the limit of processes
  bool calm_ = false;    // nothing new
  bool leaving_ = false;
  bool fault_made_ = false;
  int64_t last_trouble_ = 0;  // when a process last was stopped
  bool decision_due_ = false;
  uint64_t timer_ = 0;
  uint32_t restless_ = 0;
  int64_t restless_since_ = 0;
  bool short_tasks_ = false;   // several of them wait in one ring
  uint64_t next_handle_ = 1;
  std::map<uint64_t, std::vector<std::pair<uint64_t, uint64_t>>> waiters_;  // (worker, run) that wait for a task's end
  Outcome outcome_;
};

}  // namespace ray::sim
