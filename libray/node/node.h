// `rayd node`: one node of a cluster. Owns the processes of the node (drivers, workers, zygotes, control
// store shards), gives out leases and links, keeps the object directory and the actors, answers requests.
//
// One thread (the main thread) runs everything here: an epoll loop that drains the up rings, feeds the
// pure cores (scheduler, directory, actor manager), carries out their actions, and sends what is in the
// outboxes. Other threads (journal pump, store daemon, NNG) hand results over with post().
// Invariants: nothing here blocks; nothing that another process wrote is trusted; a process that breaks
// the protocol is cut off with a log line; every child dies with this process.
#pragma once
#include <atomic>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "gcs/client.h"
#include "libray/actor/manager.h"
#include "libray/base/shm.h"
#include "libray/node/function_cache.h"
#include "libray/node/function_users.h"
#include "libray/node/channel.h"
#include "libray/node/cluster_side.h"
#include "libray/node/environments.h"
#include "libray/node/journal_pump.h"
#include "libray/node/outbox.h"
#include "libray/node/relay_link.h"
#include "libray/session/session.h"
#include "libray/node/spill.h"
#include "libray/node/worker_command.h"
#include "libray/node/worker_logs.h"
#include "libray/node/zygote.h"
#include "libray/object/directory.h"
#include "libray/sched/local_scheduler.h"
#include "libray/sched/memory_monitor.h"
#include "libray/wire/protocol.h"
#include "store/daemon.h"

namespace ray::node {

struct NodeOptions {
  std::string session_dir;
  int parent_pid = 0;  // 0: lives until it is told to end
  int ready_fd = -1;
  double num_cpus = 0;
  std::string resources_msgpack;
  uint64_t store_bytes = 0, spill_bytes = 0;
  uint32_t gcs_shards = 2;
  uint32_t max_workers = 1024;
  std::string program;  // path of rayd itself: to start shards
  ClusterOptions cluster;
};

// Work for the main thread from other threads. Kept by shared_ptr: a late answer finds it closed.
class Mailbox {
 public:
  Mailbox();
  int fd() const { return event_.get(); }
  void post(std::function<void()> work);
  void run();   // main thread
  void close();

 private:
  std::mutex mutex_;
  Fd event_;
  bool closed_ = false;
  std::vector<std::function<void()>> queue_;
};

class Node {
 public:
  explicit Node(NodeOptions options);
  ~Node();
  Status start();
  int run();  // until the end; the exit code

 private:
  friend struct NodeFuzz;  // fuzz/node_up.cc: the cores behind the rings, without processes
  struct Job {
    uint32_t index = 0;
    JobId id;
    uint32_t driver = 0;
    int32_t language = 0;
    std::map<int32_t, WorkerCommand> commands;  // by language; its own from the hello
    std::string cwd, name, ns;
    std::map<std::string, std::string> env;
    bool ended = false;
    bool gateway = false;     // its program is on another node; this one's relay speaks for it
    uint32_t described = 0;   // the incarnation of the relay that knows what it says of itself; 0: none
    bool stale = false;       // and it says something else now
    uint32_t spawns = 0;  // that are not buried
    std::map<int32_t, std::unique_ptr<Zygote>> zygotes;  // by language
  };
  // A worker from the decision to start it to its death.
  struct Spawn {
    uint64_t number = 0;
    sched::Pool pool;
    int pid = -1;
    Fd pidfd;
    bool by_zygote = false;
    bool reaped = false;      // wait_status is known
    bool exited = false;      // its pidfd said so
    bool told_to_end = false;
    bool counted = true;      // the scheduler still counts it as starting
    int wait_status = -1;
    int64_t give_up_at = 0;   // no hello, no end, no word from its zygote how it died: wait no longer
    uint32_t process = kNone;
    uint32_t cause = wire::kDeathCrash;
    uint32_t memory_mb = 0;   // that it held when it was ended for it
    StopWatch stop;
    // A stand-in for a worker of another node: no process of its own, the relay speaks for it. pid stays -1.
    bool foreign = false, closing = false;   // closing: the relay was told to end it
    uint32_t node = UINT32_MAX;
    uint64_t opening = 0;                    // number at Spills; 0: it has come
    SpillKey wanted_by;
    std::string why;                         // of its end, if the relay or the cluster said so
  };
  struct Link {
    uint32_t id = 0;
  };
  struct Request {
    uint32_t op = 0;
    std::string body;
  };
  struct Process {
    uint32_t index = 0;
    int pid = 0;
    int32_t language = 0;
    bool driver = false, goodbye = false, closing = false, buried = false, want_write = false;
    bool foreign = false;  // a stand-in: its pid is the relay's
    uint32_t job = 0;
    uint64_t spawn = 0;
    Fd socket, pidfd;
    std::shared_ptr<Channel> channel;
    Outbox out;
    std::map<uint64_t, Request> fragments;
    size_t fragment_bytes = 0;
    uint64_t pass_to = 0;  // where its up ring ended when the running pass began
    std::map<uint32_t, uint32_t> envs;   // shape -> its runtime environment, if it has one of its own
    std::map<uint32_t, Link> as_client;  // worker -> link
    std::set<uint32_t> as_worker;        // clients with a link to this worker
  };
  struct Shard {
    uint32_t index = 0;
    std::string url;
    Spawned process;
    Fd ready;  // readable when it answers requests
    bool again = false, came_up = false;  // it was started again; it has answered requests
    int64_t started_at = 0;
    uint32_t failures = 0;
    int64_t restart_at = 0;
    StopWatch stop;
  };
  struct Pending {  // connected, has not said hello
    uint64_t id = 0;
    Fd socket;
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
  };
  static constexpr uint32_t kNone = 0xFFFFFFFFu;

  enum Source : uint32_t {  // epoll tags: source << 32 | index
    kListen = 1, kDoorbell, kMailbox, kSignal, kParent, kPendingSocket, kSocket, kPidFd, kSpawnFd,
    kZygoteFd, kShardFd, kShardReadyFd, kRelayFd, kRelayExit,
  };

  // node.cc: the loop
  Status open_node_page();
  Status listen();
  Status watch(int fd, Source source, uint32_t index, uint32_t events);
  void unwatch(int fd);
  void handle(uint64_t tag, uint32_t events);
  void pass();
  int next_timeout(bool* armed);
  void run_scheduler();
  void check_invariants(int64_t now);
  void flush_outboxes();
  void timers(int64_t now);
  void on_signal();
  void check_parent();
  void write_ready(const std::string& line);
  Status write_session_file();
  void begin_shutdown(const std::string& why, bool tell = false);  // tell: the processes, too
  void advance_shutdown();
  void post(std::function<void()> work) { mailbox_->post(std::move(work)); }

  // node_processes.cc: hello, rings, death
  void accept_all();
  static void refuse(int fd, const Status& s);
  static void answer_hello(int fd, const Status& s, const std::string& text);
  void on_hello(uint64_t pending);
  Status admit(Fd socket, const std::string& datagram, const std::vector<Fd>& fds);
  Status admit_worker(const wire::Hello& hello, Fd pidfd, Process* p);
  Status admit_driver(const wire::Hello& hello, const std::string& body, Fd pidfd, Process* p);
  void was_admitted(const Process& p);
  Status give_job_id(Job* job) const;
  Result<uint32_t> new_index();
  void welcome(Process* p);
  void drain_up(Process* p, uint32_t limit);
  Status handle_up(Process* p, uint16_t type, uint16_t flags, const std::string& payload);
  Status up_reference(Process* p, uint16_t type, const std::string& payload);
  Status up_object(Process* p, uint16_t type, const std::string& payload);
  Status up_result(const std::string& payload);
  Status up_count(Process* p, uint16_t type, const std::string& payload);
  Status up_shape(Process* p, const std::string& payload);
  std::vector<uint32_t> accelerators_of(uint32_t worker) const;
  Status read_needs(std::string_view bytes, std::map<std::string, double>* amounts, sched::Pool* pool);
  void drop_env(uint32_t env);
  void read_all_rings();
  Status up_kill_worker(Process* p, const std::string& payload);
  void on_socket(uint32_t index, uint32_t events);
  void expect_exit(Process* p, int64_t grace_ns);
  void cut_off(Process* p, const std::string& why);
  void process_gone(uint32_t index, int wait_status, uint32_t cause, const std::string& why = "");
  void end_job(uint32_t job);
  std::set<uint32_t> spared_of(uint32_t job) const;
  void end_rest(uint32_t job, bool with_starting);
  void actor_ended(uint32_t job, bool detached);
  bool job_over(uint32_t job) const;
  void close_job(uint32_t job);
  void forget_job(uint32_t job);
  const Job& job_of(const Process& p) const;
  Process* process(uint32_t index);
  bool may_hold(uint32_t index);
  void wake_process(uint32_t index);
  void send(Process* p, uint16_t type, const void* head, size_t size, const void* tail = nullptr,
            size_t tail_size = 0, uint16_t flags = 0, std::shared_ptr<Fd> fd = nullptr);
  uint32_t connect_link(uint32_t client, uint32_t worker);  // 0 = impossible
  void report(uint16_t type, uint32_t process, std::map<std::string, std::string> fields);

  // node_workers.cc: starting and burying workers
  void start_worker(sched::Pool pool);
  Status spawn_worker(Job* job, Spawn* s, int out_fd, int err_fd);
  Result<Zygote*> zygote(Job* job, int32_t language);
  Status worker_command(const Job& job, int32_t language, std::vector<std::string>* argv) const;
  bool has_workers(const Job& job, int32_t language) const;
  std::map<std::string, std::string> worker_env(const Job& job, int32_t language) const;
  void on_zygote(uint32_t index);
  void zygote_gone(uint32_t job, int32_t language);
  void on_spawn_exit(uint64_t number);
  void bury(Spawn* s);
  void kill_worker(uint32_t process, uint32_t cause);
  size_t end_orphans();
  std::string death_text(int wait_status, uint32_t cause) const;

  // node_memory.cc
  void start_memory_monitor();
  sched::MemoryState memory_now() const;
  void watch_memory(int64_t now);

  // node_shortage.cc
  void note_shortage(const std::string& kind, const std::string& text);
  void start_failed(const std::string& why, const std::string& how);
  void refuse_without_descriptors();
  void link_later(uint32_t client, uint32_t worker);
  Status up_link_lost(Process* p, const std::string& payload);
  void relink(int64_t now);
  bool short_of_links(uint32_t client) const;
  void note_no_log(const std::string& why);
  void watch_logs(int64_t now);

  // node_stopped.cc
  Status up_stopped(Process* p, const std::string& payload);
  void watch_servants(int64_t now);
  void watch_clients(int64_t now);
  void pause_client(Process* p);
  void resume_client(uint32_t index);

  // node_actions.cc: carrying out what the cores decided
  void apply(sched::Actions& actions);
  void apply(object::Actions& actions);
  void apply(actor::Actions& actions);
  void want_worker(const actor::Actor& a);
  void connect_late(const ActorId& id, uint32_t index);
  void kill_late(const ActorId& id, bool may_restart);
  void resolve_late(const ObjectId& id, uint32_t index);
  void waits_no_more(const ActorId& id);
  void tell_actor(const ActorId& id, uint32_t process);
  Status up_actor_create(Process* p, const std::string& payload);
  Status acceptable(const actor::Spec& spec) const;
  Status room_for_actor(const ActorId& id) const;
  void refuse_actor(Process* p, const ActorId& id, const Status& s);
  Status up_actor(Process* p, uint16_t type, const std::string& payload);
  void claim_name(const ActorId& id);
  void claim_late(const ActorId& id);
  void name_claimed(const ActorId& id, const Status& s, const std::string& answer);
  void release_name(const ActorId& id, const std::string& ns, const std::string& name);
  void journal_actor(const ActorId& id);
  using WriteRow = std::function<void(gcs::Client::Answered)>;
  void write_actor_row(const ActorId& id, WriteRow write, bool change);
  void write_next_row(const ActorId& id);

  // node_requests.cc
  Status up_request(Process* p, uint16_t flags, const std::string& payload);
  void handle_request(uint32_t process, uint64_t req_id, uint32_t op, const std::string& body);
  void reply(uint32_t process, uint64_t req_id, int32_t code, const std::string& body);
  void forward(uint32_t process, uint64_t req_id, uint32_t shard, uint32_t op, std::string args);
  void function_define(uint32_t process, uint64_t req_id, const std::string& body);
  void function_get(uint32_t process, uint64_t req_id, const std::string& body);
  void store_function(uint64_t key, const std::string& body, uint32_t process, uint64_t req_id);
  void forget_function(uint64_t key);
  void query(uint32_t process, uint64_t req_id, const std::string& body);
  std::string query_local(const std::string& what);
  std::string running_msgpack();
  std::string tables_msgpack() const;
  std::vector<uint32_t> unused_leases() const;
  bool runs_something(const Process& p) const;
  void actor_find(uint32_t process, uint64_t req_id, const std::string& body);
  void find_late(uint32_t process, uint64_t req_id, const std::string& name, const std::string& ns);
  void info_late(uint32_t process, uint64_t req_id, const ActorId& id);
  void function_late(uint32_t process, uint64_t req_id, const std::string& body, uint64_t key);
  void set_worker_command(uint32_t index, uint64_t req_id, const std::string& body);
  void check_worker_command(uint32_t index, uint64_t req_id, const std::string& body);
  void actor_info(uint32_t process, uint64_t req_id, const std::string& body);

  // node_groups.cc: placement groups, and what is said of where a task or actor may run
  void group_create(uint32_t process, uint64_t req_id, const std::string& body);
  void group_wait(uint32_t process, uint64_t req_id, const std::string& body);
  void group_remove(uint32_t process, uint64_t req_id, const std::string& body);
  void group_ready(const Id& id);
  void remove_group(Group* g, const std::string& why);
  void remove_groups_of(uint32_t job);
  void drop_group_waiters(uint32_t process);
  std::string groups_msgpack(uint32_t process);
  Status find_place(std::string_view resources, sched::Placement* out);
  void unplaceable(Process* p, uint32_t shape, const Status& why);

  // node_cluster.cc
  Status join_cluster();
  void tool_asks(Fd socket, const std::string& body);
  bool query_cluster(uint32_t process, uint64_t req_id, const std::string& what, const std::string& filter);

  // node_foreign.cc: what goes to other nodes, the relay, stand-ins
  void start_relay();
  std::string relay_address() const;
  bool restart_relay(int64_t now);
  void on_relay(uint32_t events);
  void flush_relay();
  void read_relay();
  void take_relay(const relay::ControlMessage& m);
  void relay_gone();
  void node_changed(const cluster::Row& row);
  std::string node_text(uint32_t index) const;
  bool is_relay(int pid) const { return relay_ && relay_->running() && relay_->pid() == pid; }
  void run_spills(int64_t now);
  void apply(const SpillActions& actions);
  Status stays_possible(uint32_t job, const wire::Resources& needs, const sched::Placement& where) const;
  void tell_infeasible(uint32_t client, uint32_t shape, const TaskId& task, const std::string& text);
  void open_foreign(const SpillAction& a);
  bool description_holds(Job* job);
  void describe_job(Job* job);
  void job_over_elsewhere(Job* job);
  void foreign_failed(Spawn* s, const std::string& why);
  Status admit_foreign(Spawn* s, Process* p);
  void foreign_came(Spawn* s);
  Spawn* foreign_of(uint32_t process);  // null: it is none
  void close_foreign(Spawn* s, bool force);
  void close_foreign_of(uint32_t client);
  void foreign_over(uint32_t index);
  void foreign_ended(Spawn* s);
  void foreign_late(Spawn* s);
  void bury_foreign(Spawn* s, uint32_t cause, const std::string& why);

  // node_shards.cc
  Status start_shards();
  Status connect_shards();
  Status start_shard(Shard* s);
  void register_node(const char* state);
  void register_job(const Job& job, const char* state);
  std::string shard_log(uint32_t index) const;
  void shard_missing(const Shard& s, const std::string& why);
  bool shard_lost() const;
  void on_shard_exit(uint32_t index);
  void on_shard_ready(uint32_t index);

  NodeOptions options_;
  session::Session session_;
  NodeId id_;
  int64_t started_at_ = 0;
  Fd epoll_, listen_, doorbell_, signal_, parent_, page_fd_, spare_;
  Mapping page_map_;
  wire::NodePage* page_ = nullptr;
  std::shared_ptr<Mailbox> mailbox_;
  std::unique_ptr<store::Daemon> store_;
  std::unique_ptr<gcs::Client> gcs_;
  std::unique_ptr<JournalPump> pump_;
  std::vector<Shard> shards_;

  std::shared_ptr<ClusterSide> cluster_;  // none: this node is alone
  std::unique_ptr<RelayLink> relay_;      // none: nothing goes elsewhere
  bool relay_waits_ = false;              // for room in its socket
  std::unique_ptr<Spills> spills_;
  std::map<uint32_t, relay::Peer> peers_;  // living nodes, this one included
  int64_t spill_at_ = 0;                   // when to look again at what waits, if anything does

  sched::LocalScheduler scheduler_;
  object::Directory directory_;
  actor::Manager actors_;
  std::unordered_map<ObjectId, std::vector<ObjectId>> actor_dependencies_;

  // (ns, name) -> actors that want it as soon as the control store has taken it back.
  std::map<std::pair<std::string, std::string>, std::vector<ActorId>> releasing_names_;
  // Rows of actors that the control store has not confirmed: the first of each is under way, and of the changes
  // that wait behind it the last says all.
  struct ActorRow {
    WriteRow write;
    bool change;
  };
  std::unordered_map<ActorId, std::deque<ActorRow>> actor_rows_;

  std::map<Id, Group> groups_;
  std::deque<Id> removed_groups_;  // oldest first, bounded in number and bytes
  size_t removed_bytes_ = 0;
  uint64_t next_group_ = 1;
  std::map<uint64_t, Pending> pending_;
  uint64_t next_pending_ = 1;
  std::vector<std::unique_ptr<Process>> processes_;
  std::set<uint32_t> live_;          // indexes of processes_
  std::deque<uint32_t> free_indexes_;
  std::map<uint64_t, Spawn> spawns_;
  Environments envs_;
  std::unordered_map<ActorId, uint32_t> actor_envs_;  // of actors that wait for a worker
  uint64_t next_spawn_ = 1;
  WorkerLogs logs_;
  std::map<uint32_t, Job> jobs_;
  uint32_t next_job_ = 1;
  std::map<uint32_t, std::pair<uint32_t, int32_t>> zygotes_;  // epoll index -> job, language
  uint32_t next_zygote_ = 1;
  uint32_t next_link_ = 1;
  std::set<uint32_t> dirty_;         // processes with something in their outbox
  FunctionCache functions_;
  FunctionUsers function_users_;
  std::unordered_map<ActorId, uint64_t> actor_functions_;  // of actors that may start again
  struct Definition {
    std::string body;
    uint32_t process;
    uint64_t req_id;
  };
  std::unordered_map<uint64_t, uint32_t> storing_;  // definitions on their way to the control store, by key
  // Keys that the control store is told to forget; what is defined meanwhile is sent when it has answered.
  std::unordered_map<uint64_t, std::vector<Definition>> forgetting_;
  std::vector<std::function<void()>> deferred_;  // work for later in this iteration, after the pass
  uint32_t late_kills_ = 0;                      // of these, kills of actors that nobody has told of yet
  bool rings_read_ = false;                      // to their tails, since that work began
  bool passing_ = false;                         // a pass has begun, and has not read all that there was then
  int64_t oom_seen_ = -1;
  sched::MemoryMonitor memory_monitor_;
  int64_t memory_period_ns_ = 0, memory_at_ = 0;  // when to look again, while anybody has work
  double memory_part_ = 0;
  uint64_t memory_limit_ = 0;
  std::map<std::string, int64_t> shortage_said_;
  uint32_t bad_starts_ = 0;  // workers in a row that died before their hello
  std::set<std::pair<uint32_t, uint32_t>> relink_;  // client, worker: no link could be made
  int64_t again_at_ = 0;
  bool listen_paused_ = false;
  int64_t logs_at_ = 0;  // when to look at the room for logs again, while anybody has work
  bool logs_full_ = false;
  std::set<uint32_t> paused_;  // stopped clients whose leases others waited for
  int64_t clients_at_ = 0;     // when to look at them again, while anybody has work
  int64_t servants_at_ = 0;  // when to look at shards and zygotes again, while anybody has work

  uint32_t lazy_records_ = 0, urgent_records_ = 0;  // of this iteration
  int64_t urgent_at_ = 0;
  bool scheduling_needed_ = true;
  const bool checks_;
  int64_t check_at_ = 0;

  enum class Phase { kRunning, kKilling, kFlushing, kClosing, kDone } phase_ = Phase::kRunning;
  int64_t phase_deadline_ = 0;
  bool flushed_ = false;
  std::vector<std::pair<uint32_t, uint64_t>> shutdown_replies_;
};

}  // namespace ray::node
