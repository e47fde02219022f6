// `rayd node`: one node of a cluster. Owns the processes of the node (drivers, workers, zygotes, control
// store shards), gives out leases and links, keeps the object directory and the actors, answers requests.
//
// The rules are those of NodeCore (core/node_core.h); here are descriptors, processes and bytes. One thread (the main thread)
// runs everything: an epoll loop that drains the up rings, decodes what is in them into events, steps the core, carries out
// its actions (node_actions.cc), and sends what is in the outboxes. Other threads (journal pump, store daemon, NNG) hand results
// over with post().
// Invariants: nothing here blocks; nothing that another process wrote is trusted; a process that breaks
// the protocol is cut off with a log line; every child dies with this process. What was read of a process before its death is
// known to the core before that death is.
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
#include "libray/base/clock.h"
#include "libray/base/shm.h"
#include "libray/node/channel.h"
#include "libray/node/cluster_side.h"
#include "libray/node/core/node_core.h"
#include "libray/node/journal_pump.h"
#include "libray/node/outbox.h"
#include "libray/node/relay_link.h"
#include "libray/node/worker_command.h"
#include "libray/node/worker_logs.h"
#include "libray/node/zygote.h"
#include "libray/sched/memory_monitor.h"
#include "libray/session/session.h"
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
  friend struct NodeFuzz;  // fuzz/node_up.cc: the core behind the rings, without processes
  // What is here of a job, a start, a process; the rest is in the core, under the same number.
  struct Job {
    uint32_t index = 0;
    JobId id;
    uint32_t driver = 0;
    int32_t language = 0;
    std::map<int32_t, WorkerCommand> commands;  // by language; its own from the hello
    std::string cwd, name, ns;
    std::map<std::string, std::string> env;
    std::map<int32_t, std::unique_ptr<Zygote>> zygotes;  // by language
  };
  struct Spawn {  // no stand-in has one
    uint64_t number = 0;
    sched::Pool pool;
    int pid = -1;
    Fd pidfd;
    bool by_zygote = false;
    bool reaped = false;      // wait_status is known
    bool exited = false;      // its pidfd said so
    int wait_status = -1;
    uint32_t process = kNone;
  };
  struct Request {
    uint32_t op = 0;
    std::string body;
  };
  struct Process {
    uint32_t index = 0;
    int pid = 0;
    int32_t language = 0;
    bool driver = false, closing = false, want_write = false;
    bool foreign = false;  // a stand-in: its pid is the relay's
    uint32_t job = 0;
    uint64_t spawn = 0;
    Fd socket, pidfd;
    std::shared_ptr<Channel> channel;
    Outbox out;
    std::map<uint64_t, Request> fragments;
    size_t fragment_bytes = 0;
    uint64_t pass_to = 0;  // where its up ring ended when the running pass began
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
  static constexpr uint32_t kNone = NodeCore::kNone;
  static constexpr size_t kKeptActions = 4096;  // room for so many: the end of a process may free a million objects

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
  void decide();
  void check_invariants(int64_t now);
  // Steps the core and carries out what it says. `now` may be that of the loop where nothing depends on it.
  template <class Event>
  void step(Event&& e, int64_t now) {
    Actions out = std::move(actions_);
    core_.step(std::forward<Event>(e), now, &out);
    if (!out.empty()) carry_out(&out);
    if (out.capacity() > actions_.capacity() && out.capacity() <= kKeptActions) actions_ = std::move(out);
  }
  template <class Event>
  void step(Event&& e) { step(std::forward<Event>(e), steady_ns()); }
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
  Status admit_driver(const wire::Hello& hello, const std::string& body, Fd pidfd, Process* p, Job* job);
  void came(Process* p, Job job);
  Result<uint32_t> new_index();
  void drain_up(Process* p, uint32_t limit);
  void read_all_rings();
  void on_socket(uint32_t index, uint32_t events);
  void cut_off(Process* p, const std::string& why);
  void driver_gone(uint32_t index, int wait_status, uint32_t cause);
  const Job& job_of(const Process& p) const;
  Process* process(uint32_t index);
  void wake_process(uint32_t index);
  void send(Process* p, uint16_t type, const void* head, size_t size, const void* tail = nullptr,
            size_t tail_size = 0, uint16_t flags = 0, std::shared_ptr<Fd> fd = nullptr);
  bool make_link(uint32_t client, uint32_t worker, uint32_t link, uint32_t lease);

  // node_records.cc: up records, decoded
  Status handle_up(Process* p, uint16_t type, uint16_t flags, const std::string& payload);
  Status up_reference(Process* p, uint16_t type, const std::string& payload);
  Status up_object(Process* p, uint16_t type, const std::string& payload);
  Status up_result(const std::string& payload);
  Status up_lease(Process* p, uint16_t type, const std::string& payload);
  Status up_actor_create(Process* p, const std::string& payload);
  Status up_actor(Process* p, uint16_t type, const std::string& payload);

  // node_workers.cc: starting and burying workers
  Status start_worker(Spawn* s);
  Status spawn_worker(Job* job, Spawn* s, int out_fd, int err_fd);
  Result<Zygote*> zygote(Job* job, int32_t language);
  Status worker_command(const Job& job, int32_t language, std::vector<std::string>* argv) const;
  std::map<std::string, std::string> worker_env(const Job& job, int32_t language) const;
  void on_zygote(uint32_t index);
  void zygote_gone(uint32_t job, int32_t language);
  void on_spawn_exit(uint64_t number);
  void bury(uint64_t number);
  size_t end_orphans();
  void report(uint16_t type, uint32_t process, const std::map<std::string, std::string>& fields);

  // node_memory.cc
  void start_memory_monitor();
  sched::MemoryState memory_now() const;
  void watch_memory(int64_t now);

  // node_shortage.cc
  void note_shortage(const std::string& kind, const std::string& text, bool anew = false);
  void refuse_without_descriptors();
  void listen_again(int64_t now);
  void note_no_log(const std::string& why);
  void watch_logs(int64_t now);

  // node_stopped.cc
  Status up_stopped(Process* p, const std::string& payload);
  void watch_servants(int64_t now);
  void watch_clients(int64_t now);

  // node_actions.cc: carrying out what the core decided
  void carry_out(Actions* actions);
  void carry_out(const action::Welcome& a);
  void carry_out(const action::Grant& a);
  void carry_out(const action::Reclaim& a);
  void carry_out(const action::Infeasible& a);
  void carry_out(const action::Unplaceable& a);
  void carry_out(const action::Exit& a);
  void carry_out(const action::PeerDied& a);
  void carry_out(const action::TellObject& a);
  void carry_out(const action::AskToCancel& a);
  void carry_out(const action::InitActor& a);
  void carry_out(const action::TellActor& a);
  void carry_out(const action::ActorWanted& a);
  void carry_out(const action::Notice& a);
  void carry_out(const action::Reply& a);
  void carry_out(const action::CutOff& a);
  void carry_out(const action::Buried& a);
  void carry_out(const action::StartWorker& a);
  void carry_out(const action::KillSpawn& a);
  void carry_out(const action::GiveUp& a);
  void carry_out(const action::EndZygotes& a);
  void carry_out(const action::JobEnded& a);
  void carry_out(const action::ForgetJob& a);
  void carry_out(const action::FreeObject& a);
  void carry_out(const action::KeepObject& a);
  void carry_out(const action::DiscardObject& a);
  void carry_out(const action::ForgetHolder& a);
  void carry_out(const action::ClaimName& a);
  void carry_out(const action::ReleaseName& a);
  void carry_out(const action::WriteRow& a);
  void carry_out(const action::StoreFunction& a);
  void carry_out(const action::ForgetFunction& a);
  void carry_out(const action::AskFunction& a);
  void carry_out(const action::Report& a);
  void carry_out(const action::Log& a);
  // node_foreign.cc
  void carry_out(const action::AskPlace& a);
  void carry_out(const action::TellPeer& a);
  void carry_out(const action::DescribeJob& a);
  void carry_out(const action::JobOverElsewhere& a);
  void carry_out(const action::OpenStandIn& a);
  void carry_out(const action::CloseStandIn& a);
  void carry_out(const action::KillRelay& a);

  // node_requests.cc
  Status up_request(Process* p, uint16_t flags, const std::string& payload);
  void handle_request(uint32_t process, uint64_t req_id, uint32_t op, const std::string& body);
  void reply(uint32_t process, uint64_t req_id, int32_t code, const std::string& body);
  void forward(uint32_t process, uint64_t req_id, uint32_t shard, uint32_t op, std::string args);
  void function_define(uint32_t process, uint64_t req_id, const std::string& body);
  bool simple_request(uint32_t process, uint64_t req_id, uint32_t op, const std::string& body);
  void group_create(uint32_t process, uint64_t req_id, const std::string& body);
  void query(uint32_t process, uint64_t req_id, const std::string& body);
  std::string query_local(const std::string& what);
  std::string running_msgpack();
  std::string tables_msgpack() const;
  std::vector<uint32_t> unused_leases() const;
  bool runs_something(const Process& p) const;
  void set_worker_command(uint32_t index, uint64_t req_id, const std::string& body);
  void check_worker_command(uint32_t index, uint64_t req_id, const std::string& body);

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
  bool is_relay(int pid) const { return relay_ && relay_->running() && relay_->pid() == pid; }

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

  NodeCore core_;
  Actions actions_;                  // empty, with room
  std::set<uint32_t> lost_links_;    // that could not be made, in this iteration
  int64_t loop_now_ = 0;             // of this iteration

  std::map<uint64_t, Pending> pending_;
  uint64_t next_pending_ = 1;
  std::vector<std::unique_ptr<Process>> processes_;
  std::set<uint32_t> live_;          // indexes of processes_
  std::deque<uint32_t> free_indexes_;
  std::map<uint64_t, Spawn> spawns_;
  WorkerLogs logs_;
  std::map<uint32_t, Job> jobs_;
  std::map<uint32_t, std::pair<uint32_t, int32_t>> zygotes_;  // epoll index -> job, language
  uint32_t next_zygote_ = 1;
  std::set<uint32_t> dirty_;         // processes with something in their outbox
  std::vector<uint32_t> gone_later_;  // drivers that were cut off: buried later in this iteration
  std::set<uint32_t> broken_;         // whose sockets take nothing more: likewise, not while a record of theirs is handled
  bool session_changed_ = false;      // its file is to be written anew, likewise
  bool passing_ = false;                         // a pass has begun, and has not read all that there was then
  int64_t oom_seen_ = -1;
  sched::MemoryMonitor memory_monitor_;
  int64_t memory_period_ns_ = 0, memory_at_ = 0;  // when to look again, while anybody has work
  double memory_part_ = 0;
  uint64_t memory_limit_ = 0;
  int64_t listen_at_ = 0;  // no look at the socket until then; 0: it is looked at
  int64_t logs_at_ = 0;  // when to look at the room for logs again, while anybody has work
  bool logs_full_ = false;
  int64_t clients_at_ = 0;   // when to look for stopped clients again, while anybody has work
  int64_t servants_at_ = 0;  // when to look at shards and zygotes again, while anybody has work

  uint32_t lazy_records_ = 0, urgent_records_ = 0;  // of this iteration
  int64_t urgent_at_ = 0;
  const bool checks_;
  int64_t check_at_ = 0;

  enum class Phase { kRunning, kKilling, kFlushing, kClosing, kDone } phase_ = Phase::kRunning;
  int64_t phase_deadline_ = 0;
  bool flushed_ = false;
  std::vector<std::pair<uint32_t, uint64_t>> shutdown_replies_;
};

}  // namespace ray::node
