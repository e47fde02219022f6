// The parts of the simulated node that client.cc, daemon.cc, mischief.cc and world.cc share; see world.h. Not for others.
#pragma once
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "libray/sched/local_scheduler.h"
#include "libray/sim/checkers.h"
#include "libray/sim/clock.h"
#include "libray/sim/history.h"
#include "libray/sim/random.h"
#include "libray/sim/world.h"

namespace ray::sim {

using sched::Pool;

struct Task {
  uint64_t id = 0;
  uint32_t shape = 0;
  int64_t length = 0;  // < 0: until it is told to end
  uint32_t children = 0, depth = 0;
  int32_t retries = 0;
  bool again = false;  // its client submits another like it when it ends: a stream
};

// What a client has of one shape, and what the daemon was told of it.
struct Shape {
  Resources need;
  Pool pool;
  Where where;
  bool gone = false, hopeless = false;
  std::deque<Task> pending;
  uint32_t running = 0, told = 0;
  uint32_t want = 0;            // as the daemon was told
  uint64_t grants = 0;
};

struct Held {
  uint32_t shape = 0, lease = 0;
  uint64_t worker = 0;
  std::unique_ptr<Task> task;
  bool reclaimed = false;
  uint64_t lingers = 0;  // changes whenever it gets a task
};

// A driver or a worker, by a number that is never used again; its index is, when it is buried.
struct Process {
  uint64_t number = 0;
  uint32_t index = 0, job = 0;
  bool driver = false, alive = true, stopped = false, paused = false, killed = false, buried = false;
  int64_t up_at = 0, down_at = 0;                // when the last message arrives
  std::vector<std::function<void()>> held_back;  // while it is stopped
  std::map<uint32_t, Shape> shapes;
  std::map<uint32_t, Held> leases;  // by lease
  std::set<uint64_t> clients;       // that have had it as a worker
  Pool pool;
  // What it runs.
  uint64_t client = 0, runs = 0, done = 0;  // done: the last task that it finished
  uint32_t lease = 0, open_children = 0;
  Task task;
  Id actor;
  bool ending = false;  // after its task
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
  uint64_t worker = 0;
  bool waits = false, hopeless = false;
  int32_t restarts = 0;
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
  void look();
  std::vector<Waits::Request> waiting();
  bool pool_is_well(const Pool& pool) const;
  bool planted(Fault fault);
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
  void up(Process* p, std::function<void(Process*)> what);
  void down(Process* p, std::function<void(Process*)> what);
  void link(uint64_t to, std::function<void(Process*)> what);
  void define(Process* p, uint32_t number, Shape shape);
  void submit(Process* p, Task task);
  void feed(Process* p, uint32_t shape);
  void tell_want(Process* p, uint32_t shape);
  void run_next(Process* p, Held* h);
  void rest_or_return(Process* p, uint32_t lease);
  void give_back(Process* p, uint32_t lease);
  void granted(Process* p, uint32_t shape, uint32_t lease, uint64_t worker);
  void reclaimed(Process* p, uint32_t lease);
  void result(Process* p, uint32_t lease, uint64_t task);
  void ended(Process* p, const Task& task, const char* how);
  void peer_died(Process* p, uint64_t worker);
  void unplaceable(Process* p, uint32_t shape);
  void cancel(Process* p, uint32_t shape);
  void begin(Process* w, uint64_t client, uint32_t lease, const Task& task);
  void wait_for_children(Process* w);
  void finish(Process* w, uint64_t task);

  // daemon.cc
  void need_decision();
  void decide();
  void apply(const sched::Action& a);
  void grant(const sched::Action& a);
  void assign(const sched::Action& a);
  void infeasible(const sched::Action& a);
  void start_worker(const Pool& pool);
  void worker_ready(const Pool& pool);
  uint32_t take_index();
  void kill(uint64_t number);
  void die(Process* p);
  void bury(uint64_t number);
  void orphan(Process* p);
  void end_job(uint32_t job);
  void forget_job(uint32_t job);
  void watch_clients();
  void want_actor(Actor* a);
  void actor_down(const Id& id);
  void create_group(Group g);
  void remove_group(const Id& id);
  std::vector<uint32_t> units(uint32_t index);

  std::string broken_;
  WorldOptions options_;
  Random random_;
  Clock clock_;
  History history_;
  sched::SchedulerOptions limits_;
  sched::LocalScheduler s_;
  Ledger ledger_;
  Tasks tasks_;
  Waits waits_;
  std::map<uint64_t, Process> processes_;
  std::map<uint32_t, Leased> leases_;     // as the daemon knows them
  std::map<uint32_t, uint64_t> indexes_;  // of those that are not buried
  std::map<Id, Actor> actors_;
  std::map<Id, Group> groups_;
  std::map<Pool, int64_t> trouble_;  // when a worker of it last failed
  std::set<uint32_t> failing_envs_, jobs_;
  uint64_t next_process_ = 1;
  uint32_t next_job_ = 1, next_id_ = 1;
  std::map<uint32_t, uint32_t> starting_;  // by job
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
  Outcome outcome_;
};

}  // namespace ray::sim
