// The rules of a node as a pure machine: step(event, now) -> actions. It owns the scheduler, the directory of objects, the
// actor manager, jobs, placement groups, links, names, rows, definitions of functions, runtime environments, and what goes to
// other nodes; the order of things at a death, at the end of a job, at the start of a worker is decided here and nowhere else.
//
// Who drives it: class Node (libray/node) on its main thread, which keeps descriptors, processes and bytes; the simulator
// (libray/sim); fuzz/node_up. No clock, no thread, no descriptor, no I/O. What was asked of others is answered by an event
// with the same key, never by a call.
//
//   node_core.cc   the machine as a whole: passes, late work, timers, invariants
//   processes.cc   coming, links, death
//   jobs.cc        the end of a job, and who is spared
//   workers.cc     starting them, their ends, kills, stopped ones
//   leases.cc      shapes, wants, leases, what the scheduler decided
//   objects.cc     the directory's events and actions
//   actors.cc      creation, connect, kill, what is told of them
//   actor_rows.cc  names and rows in the control store
//   groups.cc      placement groups, and where something may run
//   functions.cc   definitions: defined, stored, forgotten
//   foreign.cc     what goes to other nodes, stand-ins
//
// Invariants, besides those of its parts (check() looks at all of them): a process has a job that is known; a worker has the
// record of its start, a stand-in too, and of each record the job is counted; a link has two living ends; environments are
// counted by shapes, by actors that wait, and by workers, and by nobody else; what is said of an actor's class and arguments is
// held exactly as long as it may start. Iteration over a hash map decides nothing.
#pragma once
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "libray/actor/manager.h"
#include "libray/base/status.h"
#include "libray/node/core/action.h"
#include "libray/node/core/control_rows.h"
#include "libray/node/core/environments.h"
#include "libray/node/core/event.h"
#include "libray/node/core/function_cache.h"
#include "libray/node/core/function_users.h"
#include "libray/node/core/late.h"
#include "libray/node/core/links.h"
#include "libray/node/core/spill.h"
#include "libray/object/directory.h"
#include "libray/sched/local_scheduler.h"

namespace ray::node {

struct CoreOptions {
  NodeId id;
  sched::SchedulerOptions scheduler;
  std::string logs;                                // where people find them: for texts
  int64_t stopped_worker_ns = 10'000'000'000;      // 0: for ever
  bool watch_counts = false;                       // see Directory::watch_counts
};

class NodeCore {
 public:
  static constexpr uint32_t kNone = 0xFFFFFFFFu;

  explicit NodeCore(CoreOptions options);
  // `out` gets what is to be done, behind what it has. Not from within a step.
  template <class Event>
  void step(Event&& e, int64_t now, Actions* out) {
    now_ = now;
    out_ = out;
    on(e);
  }

  // ---- what the driver of this machine has to ask before it says that something came
  Status may_join(const event::WorkerCame& worker, bool relay) const;
  Status may_join(const JobId& job) const;
  bool is_foreign(uint64_t spawn) const;  // a stand-in's
  // Whether the scheduler is to be asked, by event::Decide.
  bool wants_decision(int64_t now) const;
  bool wants_pass() const { return directory_.wants_pass(); }
  bool has_late_work() const { return !late_.empty(); }
  // When a timer is due; 0: never. The scheduler's are among them.
  int64_t next_deadline(int64_t now) const;
  bool wants_spill(int64_t now) const;  // event::Spill
  // Clients whose leases others wait for, and those that were stopped: are they? By event::StoppedClients.
  std::vector<uint32_t> suspects(int64_t now) const;
  bool has_paused() const { return !paused_.empty(); }

  // ---- for queries
  const sched::LocalScheduler& scheduler() const { return scheduler_; }
  const actor::Manager& actors() const { return actors_; }
  const object::Directory& directory() const { return directory_; }
  const Environments& environments() const { return envs_; }
  bool job_over(uint32_t job) const;
  bool knows_job(uint32_t job) const { return jobs_.count(job) > 0; }
  bool has_workers(uint32_t job, int32_t language) const;
  bool joined(uint64_t spawn) const;  // it said hello
  bool unexplained(uint64_t spawn) const;  // nobody here ends it: if it was killed, somebody else did
  bool rows_written() const { return rows_.size() == 0; }
  const relay::Peer* peer(uint32_t index) const;
  const std::map<uint32_t, relay::Peer>& peers() const { return peers_; }
  std::string node_of(uint32_t process) const;  // of a stand-in: which node it stands for
  std::string groups_msgpack(uint32_t process) const;
  std::vector<std::pair<const char*, uint64_t>> sizes() const;  // of its tables
  std::string check() const;  // "" or the invariant that is broken

  // The node belongs to a cluster, is node `self` there, and has a relay. `may_fit`: by the table, some other node could.
  void join(uint32_t self, Spills::MayFit may_fit);
  void leave() { spills_.reset(); }

 private:
  friend struct NodeFuzz;
  struct Process {
    uint32_t index = 0, job = 0;
    int pid = 0;
    uint64_t spawn = 0;
    bool driver = false, foreign = false, goodbye = false;
    bool closing = false;  // nothing more is sent to it
    bool buried = false;
    std::map<uint32_t, uint32_t> envs;  // shape -> its runtime environment, if it has one of its own
  };
  struct Job {
    uint32_t index = 0, driver = 0;
    JobId id;
    std::string ns;
    bool ended = false;
    bool gateway = false;    // its program is on another node; this one's relay speaks for it
    uint32_t described = 0;  // the incarnation of the relay that knows what it says of itself; 0: none
    bool stale = false;      // and it says something else now
    uint32_t spawns = 0, zygotes = 0;
  };
  // A worker from the decision to start it to its death.
  struct Spawn {
    uint64_t number = 0;
    sched::Pool pool;
    uint32_t process = kNone;
    bool counted = true;      // the scheduler still counts it as starting
    bool told_to_end = false;
    int64_t give_up_at = 0;   // no hello, no end, no word how it died: wait no longer
    uint32_t cause = wire::kDeathCrash;
    uint32_t memory_mb = 0;   // that it held when it was ended for it
    int64_t stopped_since = 0, stopped_seen = 0;
    uint32_t stopped_s = 0;   // for how long it was, when it was ended for it
    // A stand-in for a worker of another node: no process of its own, the relay speaks for it.
    bool foreign = false, closing = false, exited = false;  // closing: the relay was told to end it
    uint32_t node = UINT32_MAX;
    uint64_t opening = 0;     // number at Spills; 0: it has come
    SpillKey wanted_by;
    std::string why;          // of its end, if the relay or the cluster said so
  };
  struct Group {
    Id id;
    std::string name, ns, bundles;  // bundles as they came: MessagePack
    int32_t strategy = 0, lifetime = 0;
    uint32_t job = 0;
    JobId job_id;
    const char* state = "PENDING";
    uint64_t number = 0;
    std::deque<std::pair<uint32_t, uint64_t>> waiters;  // process, request; oldest first
    size_t bytes() const { return bundles.size() + name.size() + ns.size(); }
  };

  // node_core.cc
  void on(const event::PassBegins&) { directory_.begin_pass(); }
  void on(const event::PassEnds&);
  void on(const event::RingsTurn&) { late_.begin(); }
  void on(const event::RingsRead&);
  void on(const event::Timer&);
  void on(const event::Ending&) { ending_ = true; }
  void on(const event::Shortage& e);
  void on(const event::TryAgain&) { try_again(); }
  void carry_out(const Late& work);
  void note_shortage(const std::string& kind, const std::string& text);
  void try_again();
  void again(int64_t now);
  void report(uint16_t type, uint32_t process, std::map<std::string, std::string> fields);
  void log(LogLevel level, const char* kind, std::string text);
  void reply(uint32_t process, uint64_t req_id, int32_t code, std::string body);
  void cut_off(uint32_t process, const Status& why);
  template <class A>
  void put(A&& a) { out_->emplace_back(std::forward<A>(a)); }
  std::string check_processes() const;
  std::string check_counts() const;

  // processes.cc
  void on(const event::DriverCame& e);
  void on(const event::WorkerCame& e);
  void on(const event::Goodbye& e);
  void on(const event::SocketClosed& e);
  void on(const event::CutOff& e);
  void on(const event::DriverDied& e);
  void on(const event::LinkFailed& e);
  void on(const event::LinkLost& e);
  Process* process(uint32_t index) { return const_cast<Process*>(std::as_const(*this).process(index)); }
  const Process* process(uint32_t index) const;
  bool may_hold(uint32_t index) const;
  bool reachable(uint32_t index) const;
  Process* add_process(uint32_t index);
  void expect_exit(uint32_t process, int64_t grace_ns);
  void process_gone(uint32_t index, int wait_status, uint32_t cause, const std::string& why = "");
  std::vector<uint32_t> tell_peers(const Process& p, int wait_status, uint32_t cause, const std::string& why);
  uint32_t connect_link(uint32_t client, uint32_t worker, bool* fresh);  // 0 = impossible
  void link_later(uint32_t client, uint32_t worker);

  // jobs.cc
  void on(const event::ZygoteBegan& e);
  void on(const event::ZygoteGone& e);
  void end_job(uint32_t job);
  std::set<uint32_t> spared_of(uint32_t job) const;
  void end_rest(uint32_t job, bool with_starting);
  void actor_ended(uint32_t job, bool detached);
  void close_job(uint32_t job);
  void forget_job(uint32_t job);
  const Job& job_of(uint32_t process) const;

  // workers.cc
  void on(const event::SpawnFailed& e);
  void on(const event::SpawnExited& e);
  void on(const event::SpawnEnded& e);
  void on(const event::KillWorker& e);
  void on(const event::KillAsked& e);
  void on(const event::Retire& e);
  void on(const event::StoppedWorker& e);
  void on(const event::StoppedClients& e);
  void start_worker(sched::Pool pool);
  void start_failed(const std::string& why, const std::string& how);
  void kill_worker(uint32_t process, uint32_t cause);
  void pause_client(const Process& p);
  void give_up(int64_t now);
  Spawn* spawn(uint64_t number);
  Spawn* spawn_of(uint32_t process);
  uint32_t cause_of(const Spawn& s, const event::SpawnEnded& e) const;
  void say_ended(const event::SpawnEnded& e, uint32_t process, uint32_t cause, const std::string& how, bool expected);

  // leases.cc
  void on(const event::Decide&);
  void on(const event::Shape& e);
  void on(const event::Want& e);
  void on(const event::Return& e);
  void on(const event::Blocked& e);
  void apply(sched::Actions& actions);
  void grant(const sched::Action& a);
  Status define_shape(const event::Shape& e);
  Status read_needs(std::string_view bytes, std::map<std::string, double>* amounts, sched::Pool* pool);
  void drop_env(uint32_t env);
  std::vector<uint32_t> accelerators_of(uint32_t worker) const;
  void tell_infeasible(uint32_t client, uint32_t shape, const TaskId& task, const std::string& why);
  void unplaceable(uint32_t client, uint32_t shape, const Status& why);

  // objects.cc
  void on(const event::Share& e);
  void on(const event::Ready& e);
  void on(const event::Registered& e);
  void on(const event::Discarded& e);
  void on(const event::Hold& e);
  void on(const event::Release& e);
  void on(const event::Resolve& e);
  void on(const event::CancelTask& e);
  void apply(object::Actions& actions);

  // actors.cc
  void on(event::ActorCreate& e);
  void on(const event::ActorConnect& e);
  void on(const event::ActorKill& e);
  void on(event::ActorReady& e);
  void on(event::ActorExit& e);
  void on(event::ActorFind& e);
  void on(const event::ActorInfo& e);
  void apply(actor::Actions& actions);
  void apply(const actor::Action& x);
  Status acceptable(const actor::Spec& spec);
  Status room_for_actor(const ActorId& id) const;
  void refuse_actor(uint32_t process, const ActorId& id, const Status& s);
  void find_late(const Late& work);
  void info_late(const Late& work);
  void tell_actor(const ActorId& id, uint32_t process);
  void init_actor(const actor::Actor& a, uint32_t worker, uint32_t incarnation);
  void want_worker(const actor::Actor& a);
  void waits_no_more(const ActorId& id);
  void hold_for(const actor::Actor& a);
  void drop_for(const ActorId& id);

  // actor_rows.cc
  void on(const event::NameClaimed& e);
  void on(const event::NameReleased& e);
  void on(const event::RowWritten& e);
  void claim_name(const ActorId& id);
  void release_name(const actor::Actor& a);
  void journal_actor(const ActorId& id);

  // groups.cc
  void on(event::GroupCreate& e);
  void on(const event::GroupWait& e);
  void on(const event::GroupRemove& e);
  Status room_for_group(const Group& g) const;
  void group_ready(const Id& id);
  void remove_group(Group* g, const std::string& why);
  void forget_old_groups();
  void remove_groups_of(uint32_t job);
  void drop_group_waiters(uint32_t process);
  Status find_place(std::string_view resources, sched::Placement* out) const;
  std::string check_groups() const;

  // functions.cc
  void on(const event::Ping& e);
  void on(event::FunctionDefine& e);
  void on(const event::FunctionGet& e);
  void on(const event::FunctionDrop& e);
  void on(const event::FunctionStored& e);
  void on(const event::FunctionForgotten& e);
  void function_late(const Late& work);
  void store_function(uint64_t key, std::string body, uint32_t process, uint64_t req_id);
  void forget_function(uint64_t key);
  std::string check_functions() const;

  // foreign.cc
  void on(const event::NodeRow& e);
  void on(const event::RelayBegan& e);
  void on(const event::RelayEnded& e);
  void on(const event::RelayFailed& e);
  void on(const event::StandInClosed& e);
  void on(const event::Placed& e);
  void on(const event::Spill&);
  void on(const event::CommandChanged& e);
  void apply(const SpillActions& actions);
  std::string node_text(uint32_t index) const;
  Status stays_possible(uint32_t job, const std::map<std::string, double>& needs, const sched::Placement& where) const;
  void open_foreign(const SpillAction& a);
  bool description_holds(Job* job);
  void describe_job(Job* job);
  void job_over_elsewhere(Job* job);
  void foreign_failed(Spawn* s, const std::string& why);
  void foreign_came(Spawn* s);
  Spawn* foreign_of(uint32_t process);  // null: it is none
  void close_foreign(Spawn* s, bool force);
  void close_foreign_of(uint32_t client);
  void foreign_ended(Spawn* s);
  void foreign_late(Spawn* s);
  void bury_foreign(Spawn* s, uint32_t cause, const std::string& why);

  const CoreOptions options_;
  // Of the running step.
  int64_t now_ = 0;
  Actions* out_ = nullptr;

  sched::LocalScheduler scheduler_;
  object::Directory directory_;
  actor::Manager actors_;
  Links links_;
  LateWork late_;
  std::vector<std::unique_ptr<Process>> processes_;  // by index
  std::set<uint32_t> live_;                          // indexes of processes_
  std::map<uint32_t, Job> jobs_;
  uint32_t next_job_ = 1;
  std::map<uint64_t, Spawn> spawns_;
  uint64_t next_spawn_ = 1;
  bool ending_ = false;

  // Actors, besides what the manager knows.
  NameClaims names_;
  ActorRows rows_;
  std::unordered_map<ActorId, std::vector<ObjectId>> actor_dependencies_;  // of actors that may start again,
  std::unordered_map<ActorId, uint64_t> actor_functions_;                  // and their classes
  std::unordered_map<ActorId, uint32_t> actor_envs_;                       // of actors that wait for a worker

  std::map<Id, Group> groups_;
  std::deque<Id> removed_groups_;  // oldest first, bounded in number and bytes
  size_t removed_bytes_ = 0;
  uint64_t next_group_ = 1;

  FunctionCache functions_;
  FunctionUsers function_users_;
  struct Definition {
    std::string body;
    uint32_t process;
    uint64_t req_id;
  };
  std::unordered_map<uint64_t, uint32_t> storing_;  // definitions on their way to the control store, by key
  // Keys that the control store is told to forget; what is defined meanwhile is sent when it has answered.
  std::unordered_map<uint64_t, std::vector<Definition>> forgetting_;

  Environments envs_;
  uint32_t bad_starts_ = 0;                      // workers in a row that died before their hello
  std::map<std::string, int64_t> shortage_said_;
  int64_t again_at_ = 0;
  std::set<uint32_t> paused_;                    // stopped clients whose leases others waited for
  bool decide_ = true;                           // something happened since the last decision

  std::unique_ptr<Spills> spills_;               // none: nothing goes elsewhere
  std::map<uint32_t, relay::Peer> peers_;        // living nodes, this one included
  uint32_t relay_ = 0;                           // incarnation of the one that runs; 0: none does
  int64_t spill_at_ = 0;                         // when to look again at what waits, if anything does
};

// For people: how a process ended.
std::string death_text(int wait_status, uint32_t cause);

}  // namespace ray::node
