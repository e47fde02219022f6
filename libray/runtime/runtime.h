// Runtime: one connection of this process to a node; what ray_init makes. It starts and stops, drives the parts below on
// callers' threads and on two of its own, and is the submitter: tasks over links to leased workers, and their results.
//
// Parts, members by value, each with its own header. A part calls those below it, and what it must tell upwards goes to a
// `User` that Runtime is, on cold paths alone; nothing below Runtime includes this header but buffers.cc and queue_poll.cc.
//
//   Runtime          start, stop, threads, waits; submitter (submit.cc, results.cc, cancel_tasks.cc, records.cc, actor_calls.cc)
//     ActorClients   entries, handles and facts of actors     → Objects, DaemonChannel
//     Streams        items of generators                      → Objects, Notifications, Callbacks, Bells
//     Objects        objects, references, the store           → UnreadErrors, DaemonChannel, Bells
//     Notifications  tokens, completion queues                → Callbacks, Bells
//     Functions      what is called, what is run              → DaemonChannel
//     UnreadErrors   errors that nobody saw                   → Callbacks
//     Callbacks      what runs without a lock                 → Bells
//     KeptBuffers, OwnNode, WakeChain                         → nothing of these
//     DaemonChannel  rings up, requests, datagrams down       → nothing of these
//     Bells          doorbells of the node's processes        → nothing of these
//   WorkerSide (worker.h) serves tasks, beside the submitter; it calls Runtime and its parts.
//
// Threads. Callers' threads do the work: whoever waits drains the result rings itself, so a result
// reaches the waiter without a hop. Two threads of our own: `receiver` blocks on the daemon's
// socket (grants, deaths, states); `pulse` steps in where no caller waits (dependencies,
// notifications, backlog, idle leases) and sleeps otherwise. The worker side (worker.h) adds none.
//
// Locks: mutex_ guards everything here that is not atomic, and of Functions, Notifications, Objects, Streams and ActorClients
// what they say: a task that is submitted and its result change several of them, and one lock for all costs less than one
// each. Never held while blocking: store calls and callbacks run after it was dropped (after_unlock). Below it, and leaves:
// the locks of DaemonChannel, Callbacks, UnreadErrors and KeptBuffers, those of Functions' definitions, of the store's
// pointer and of a Queue.
//
// Files besides: down.cc what the daemon says · wait.cc get, wait, being told, put · stream_calls.cc · relayed.cc tasks of
// other nodes · stopped.cc peers that do not move · queries.cc what it tells of itself · task_results.cc, running.cc,
// execute.cc and others of WorkerSide.
#pragma once
#include <atomic>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "libray/base/log.h"
#include "libray/base/shm.h"
#include "libray/base/spin.h"
#include "libray/base/spin_budget.h"
#include "libray/lineage/record.h"
#include "libray/runtime/actor_clients.h"
#include "libray/runtime/bells.h"
#include "libray/runtime/daemon_channel.h"
#include "libray/runtime/functions.h"
#include "libray/runtime/kept_buffers.h"
#include "libray/runtime/notifications.h"
#include "libray/runtime/object.h"
#include "libray/runtime/objects.h"
#include "libray/runtime/own_node.h"
#include "libray/runtime/streams.h"
#include "libray/runtime/types.h"
#include "libray/runtime/unread_errors.h"
#include "libray/runtime/wake_chain.h"

namespace ray {

class WorkerSide;
struct WriterState;

class Runtime final : private DaemonChannel::User, private Objects::User, private Streams::User {
 public:
  // ---- life (runtime.cc)
  static Status start(const ray_runtime_options& options, Runtime** out) { return start(options, nullptr, out); }
  static Status start(const ray_runtime_options& options, const StartAs* as, Runtime** out);
  Status shutdown(int64_t drain_timeout_ns);
  Status shutdown_aside();
  // Whether the calling thread runs a callback of this runtime, which cannot wait for its end.
  bool in_callback() const;
  // RAY_OK while usable; else why not (shut down, forked, node dead).
  Status usable() const {
    const bool over = foreign() | stopping_.load(std::memory_order_relaxed) | node_dead();
    return __builtin_expect(over, 0) ? why_unusable() : Status();
  }
  // It belongs to the process that this one was forked from: nothing of it may be touched but plain memory.
  bool foreign() const { return fork_generation_ != fork_generation(); }
  int32_t mode() const { return mode_; }
  const std::string& session_dir() const { return session_dir_; }
  void* self_handle = nullptr;
  WorkerSide* worker() { return worker_.get(); }
  void fill_context(ray_context* out) const;

  // ---- objects
  Objects& objects() { return objects_; }
  Status put(const ray_value& value, Object** out);
  Status put_error(ray_code code, const std::string& message, const ray_value* payload, Object** out);
  ObjectId next_put_id();
  // Asked now and then by a put that waits for room; set before there are any.
  void on_wait(std::function<bool()> stop) {
    objects_.set_stop_waiting([this, stop = std::move(stop)] { return closed_waits() || (stop && stop()); });
  }

  // ---- waiting (wait.cc)
  Status get(Object* const* objects, size_t n, int64_t timeout_ns, ray_buffer* out,
             ErrorBox** failure);
  Status wait(Object* const* objects, size_t n, size_t want, int64_t timeout_ns, uint8_t* ready,
              size_t* n_ready);
  Status wait_any(Object* const* objects, size_t n_objects, Stream* const* streams,
                  size_t n_streams, size_t want, int64_t timeout_ns, uint8_t* ready_objects,
                  uint8_t* ready_streams);
  // One look: true when it is there. Asks the daemon about a borrowed object the first time.
  bool poll(Object* o);
  Status on_ready(Object* o, const ray_notify& notify, uint64_t* token);
  Status cancel_notify(uint64_t token);
  void add_queue(Queue* queue);
  void drop_queue(Queue* queue);
  // The calling thread runs a task that was cancelled, and nobody else interrupts it: it may not sleep.
  bool cancelled_here();
  Status waiter_cancelled() const;
  // Calls pred under the lock until it is true or the deadline is over; drains meanwhile.
  template <class Pred, class Much>
  bool wait_until(Pred pred, int64_t timeout_ns, Much much);
  template <class Pred>
  bool wait_until(Pred pred, int64_t timeout_ns) {
    return wait_until(pred, timeout_ns, [] { return false; });
  }
  bool may_be_lazy(uint64_t* seen);
  // Nobody is to sleep here any more: shut down, or the waiting task was cancelled.
  bool closed_waits() { return stopped_.load(std::memory_order_relaxed) || (worker_ && cancelled_here()); }
  // Why a wait ended early; RAY_OK: it did not.
  Status wait_ended() {
    if (worker_ && cancelled_here()) return waiter_cancelled();
    return stopped_ ? usable() : Status();
  }

  // ---- what this process itself knows (queries.cc)
  // The answer of a query that needs no daemon, one MessagePack value; false: it is none.
  bool local_query(const std::string& what, std::string* answer);

  // ---- functions and tasks (functions.cc, submit.cc)
  Functions& functions() { return functions_; }
  void function_release(Function* f);
  // After "object ID" or "argument N": what stands for an actor never has a value.
  static constexpr const char* kIsActor = "is the reference of an actor, which has no value: call the actor";
  Status submit(Function* f, const ray_arg* args, size_t n_args, const ray_task_options& options,
                Object** returns, Stream** stream) {
    return submit(f, args, n_args, options, nullptr, returns, stream);
  }
  Status submit(Function* f, const ray_arg* args, size_t n_args, const ray_task_options& options,
                std::unique_ptr<Relayed> relayed, Object** returns, Stream** stream);
  Status cancel(Object* o, uint32_t flags);
  Status cancel_task(PendingTask* t, uint32_t flags);  // mutex_ held

  // ---- tasks of other nodes (relayed.cc)
  void set_relayed_user(RelayedUser* user);  // before the first of them
  // Its end comes to the user, and may before this returns. *tag names it for the calls below.
  Status submit_relayed(const RelayedTask& task, Function* f, const ray_arg* args, size_t n_args,
                        const ray_task_options& options, Object** returns, uint64_t* tag);
  void cancel_relayed(uint64_t tag, uint32_t flags);
  void recall(uint64_t tag);  // unless it has begun it ends, as returned

  // ---- streams (stream_calls.cc)
  Status stream_next(Stream* s, int64_t timeout_ns, Object** out);
  Status stream_on_next(Stream* s, const ray_notify& notify, uint64_t* token);
  Status stream_completed(Stream* s, Object** out);
  Status stream_cancel(Stream* s, uint32_t flags);
  void stream_release(Stream* s);  // the last handle
  void stream_unused(Stream* s);   // and the last call

  // ---- actors (actor_calls.cc)
  Status actor_create(Function* klass, const ray_arg* args, size_t n_args,
                      const ray_actor_options& options, Actor** out, bool* found);  // found: an older one, weak
  Status actor_call(Actor* a, const std::string& method, const ray_arg* args, size_t n_args,
                    const ray_task_options& options, Object** returns, Stream** stream, bool weak = false);
  // A weak handle, as from_id.
  Status actor_find(const std::string& name, const std::string& ns, Actor** out);
  Status actor_kill(Actor* a, bool may_restart);
  Status learn_actor(Actor* a);
  Status actor_from_object(Object* o, Actor** out);
  Status actor_from_id(const ActorId& id, Actor** out);  // weak
  Status actor_reference(Actor* a, Object** out);
  void actor_release(Actor* a, bool weak);

  // ---- the daemon, the doorbells of the node's processes
  DaemonChannel& daemon() { return daemon_; }
  Bells& bells() { return bells_; }
  uint32_t process() const { return bells_.process(); }

  // ---- for the worker side
  WakeChain& wakes() { return wakes_; }
  void wake(ClientLink* link);  // mutex_ held
  const JobId& job() const { return job_; }
  const NodeId& node() const { return node_; }
  TaskContext* context();  // of the calling thread
  bool in_task() { return context() != outside_.load(std::memory_order_relaxed); }
  // From now on what this process makes outside of calls descends from the actor that it is.
  void become_actor(const ActorId& actor, uint32_t incarnation);
  void set_context(TaskContext* c);
  bool node_dead() const { return node_dead_.load(std::memory_order_acquire); }
  bool daemon_gone() const;  // looks at the socket: known before the receiver has acted on it
  std::mutex& mutex() { return mutex_; }
  void cancel_children(const TaskId& parent);
  void return_idle_leases();

  // Called when the last handle is gone: the object waits, reachable, for its child handles.
  static void bury(Runtime* rt);
  ~Runtime();

 private:
  friend class WorkerSide;
  static constexpr int64_t kMarkedNs = 300000;        // a worker left asleep is looked after that often
  static constexpr int64_t kSpinNs = 30000;  // a waiter looks at most that long before it sleeps, but for a batch
  static constexpr int64_t kCrowdedSpinNs = 4000;  // when workers wait for a place
  static constexpr int64_t kLazySleepNs = 150000;  // who waits for much looks by itself after that
  static constexpr int64_t kFlowSpinNs = 1000000, kFlowLookNs = 20000;  // a batch that comes is looked at so long, so often
  SpinBudget spin_{kSpinNs}, flow_spin_{kFlowSpinNs, 0};
  Runtime() = default;

  std::function<void(const std::string&)> give_back_unless(const ActorId& mine);
  Status finish_named(uint64_t req_id, std::shared_ptr<DaemonChannel::Call> call, uint32_t flags, Actor** out, bool* found);

  // DaemonChannel::User
  void received(uint16_t type, uint16_t flags, const uint8_t* p, size_t n, std::vector<Fd>* fds, size_t* next_fd) override;
  void received_all() override;
  void lost(bool closed_here) override;
  Status why_over() override;
  bool lends() const override { return worker_ != nullptr; }
  const void* sleeps() override;
  void woke(const void* slept) override;
  void descriptors_closed(bool first) override;

  // Objects::User; of `store_lost`: the death of the node, if that is what it means
  void completed(Object* o) override;
  void failed(Object* o, ErrorBox* e) override { complete_error(o, e); }  // also Streams::User
  void awaited(Object* o) override;
  void dropped(const Object* o) override { streams_.drop_completion(o); }
  ErrorBox* over() override;
  Status store_lost(Status s) override;

  // Streams::User
  void ended(Object* completion, ErrorBox* e) override;
  void unwatched(uint64_t tag) override;

  // runtime.cc
  Status why_unusable() const;
  Status connect(const ray_runtime_options& options, const StartAs* as);
  Status hello(const ray_runtime_options& options, const StartAs* as);
  Status start_node(const ray_runtime_options& options);
  Status start_threads();
  void pulse_loop();
  void tick();
  void look_after_marked(int64_t now);
  void look_for_stopped(int64_t now);
  void reap_strays();
  static constexpr const char* kDaemonDied = "the node daemon died";
  std::string death_text(const char* why) const;
  static constexpr const char* kWasShutDown = "the runtime was shut down";
  ErrorBox* over_error() const;
  void fail_everything(ray_code code, const std::string& why);
  bool drained();
  void check_parts(int64_t now);
  bool may_leave();
  void nearer_to_end();
  void stop_threads();
  void let_go();
  void watch_bell();
  bool pulse_needed() const { return needs_pulse_ + notifications_.size() + objects_.n_awaited() > 0; }  // mutex_ held
  void feed();
  void wake_waiters();
  bool ticking() const;

  // relayed.cc
  void end_relayed(PendingTask* t);
  void return_relayed(PendingTask* t);
  void deliver_relayed();
  bool bind_to_node(PendingTask* t);

  void discard_attempt(const PendingTask* t);

  // queries.cc
  void list_references(std::string* answer);
  void count_tables(std::string* answer);

  // leases.cc
  void raise_want(Shape* s) {
    if (leases_.raise_want(s)) send_want(s, s->want_sent);
  }
  void withdraw_want(Shape* s);
  void send_want(const Shape* s, uint32_t want);
  void ask_give_back(ClientLink* link);
  void carry_out();
  void look_after_leases(int64_t now);

  // submit.cc
  struct Encoded;
  Status prepare_args(int32_t language, const ray_arg* args, size_t n, Prepared* out);
  PendingTask* new_task();
  void free_task(PendingTask* t);
  uint64_t encoded_size(const PendingTask* t, const Prepared& p) const;
  void encode(const PendingTask* t, const Prepared& p, uint8_t* at) const;
  Status shrink(PendingTask* t, Prepared* p, int64_t patience_ns);
  void enqueue(PendingTask* t);
  void task_ready(PendingTask* t);
  bool push_prepared(PendingTask* t, const Prepared& p);
  bool push_spec(PendingTask* t, ClientLink* link);
  void pushed(PendingTask* t, ClientLink* link, Lease* lease, const uint8_t* at, uint32_t size);
  void pump(Shape* s);
  Shape* shape(const std::string& resources, int32_t language);
  void lineage_submit(const PendingTask* t, const Prepared& p);
  void lineage_again(const PendingTask* t);
  void note_end(const PendingTask* t, const ErrorBox* e);
  void write_ends();
  Status start_task(PendingTask* t, Prepared&& p, const ray_task_options& options, Object** returns,
                    Stream** stream);
  Stream* make_stream(PendingTask* t, const ray_task_options& options);
  void fail_late(PendingTask* t, Prepared* p);
  void release_prepared(Prepared* p);
  uint8_t* encode_head(const PendingTask* t, size_t n_args, uint32_t flags, uint8_t* at) const;
  bool register_dependencies(PendingTask* t, const Prepared& p);
  void park(PendingTask* t, Prepared&& p, bool big);
  void unpark(PendingTask* t);
  static void forget_waiter(const PendingTask* t);
  void hold_arguments(PendingTask* t, Prepared* p);
  void encoded(PendingTask* t);
  void shrink_parked(int64_t patience_ns);
  bool store_arguments(PendingTask* t, int64_t patience_ns, bool last);
  uint8_t* task_room(ClientLink* link, uint32_t size);
  void fail_backlog(Shape* s);
  void flush_rings(ClientLink** links, size_t* n);
  bool detach(PendingTask* t);
  void flush_cancels(ClientLink* link);
  void press_on(int64_t now);
  static bool has_begun(const PendingTask* t);

  // What needs room in the store, which there was not while somebody with a time limit did it.
  struct Later {
    Object* publish = nullptr;      // retained; or:
    PendingTask* shrink = nullptr;  // its arguments are to be stored; or:
    Objects::StoredError error;
    PendingTask* create = nullptr;  // or: an actor whose arguments are to be shared
    int64_t since_ns = 0;
  };

  // results.cc
  void progress();  // mutex_ held
  void drain(ClientLink* link);
  void on_done(ClientLink* link, const RecordView& r);
  void on_item(ClientLink* link, const RecordView& r);
  void on_part(ClientLink* link, const RecordView& r);
  void on_returned(ClientLink* link, const RecordView& r);
  void return_bound(PendingTask* t);
  PendingTask* task_of(ClientLink* link, uint64_t tag);
  void unlink(PendingTask* t);
  void complete_from(Object* o, const wire::ArgHeader& h, const uint8_t* bytes, uint32_t attempt);
  void complete_error_from(Object* o, const uint8_t* image, uint64_t size);
  void complete_error(Object* o, ErrorBox* e);
  void fail_task(PendingTask* t, ErrorBox* e, bool journaled = false);
  void fail_waiting(PendingTask* t, ErrorBox* e);
  void finish_task(PendingTask* t);
  void requeue(PendingTask* t, bool begun);
  void link_died(ClientLink* link, const wire::DnPeerDied& death, std::string_view why);
  std::string crash_message(const PendingTask* t, const wire::DnPeerDied& death, std::string_view why) const;
  void fail_dependents();
  void drop_link(ClientLink* link);
  void run_waiter(Waiter* w, Object* o);
  void after_unlock(int64_t patience_ns = Objects::kStoreTimeoutNs);
  void later(Later what);
  void do_later();

  // records.cc
  void remember_record(PendingTask* t, const uint8_t* at, uint32_t size);
  bool take_back_record(PendingTask* t);
  void fail_overwritten(PendingTask* t, uint32_t worker_pid);

  // actor_calls.cc
  void create_ready_actors(int64_t patience_ns);
  bool create_actor(PendingTask* t, int64_t patience_ns, bool last);
  void actor_dead(Actor* a, ErrorBox* e);
  void retry_lost_calls(Actor* a);
  void refuse_last_call(Actor* a, PendingTask* t);
  void fail_restarting(PendingTask* t, const std::string& why);
  void pump_actor(Actor* a);
  void actor_state(const wire::DnActorState& s, const uint8_t* tail);
  void take_state(Actor* a, const wire::DnActorState& s, const uint8_t* tail);
  void fail_actor_tasks(Actor* a, ray_code code, ErrorBox* cause);
  void actor_link_died(Actor* a, ClientLink* link);
  void send_actor_create(PendingTask* t);
  Status await_facts(Actor* a);
  void creation_failed(const PendingTask* t, const ErrorBox* cause);
  void answer_here(uint64_t req_id, ray_code code, const std::string& text);

  // stream_calls.cc
  void stream_item(PendingTask* t, uint32_t index, const wire::ArgHeader& h, const uint8_t* bytes);

  // down.cc
  void on_link(const wire::DnLink& l, Fd fd);
  void on_actor_text(const uint8_t* p, size_t n);
  void link_lost(const wire::DnLink& l, const std::string& why);
  void on_grant(const wire::DnLease& l, const uint8_t* gpus, size_t n_gpus);
  void on_reclaim(const wire::DnLease& l);
  void on_obj_cancel(const wire::ObjCancel& c);
  void on_infeasible(const wire::DnLease& l, std::string_view text);
  void on_unplaceable(const wire::DnUnplaceable& u, std::string_view text);
  void served_died(const uint8_t* p, size_t n);
  void on_peer_died(const wire::DnPeerDied& d, std::string_view why);

  int32_t mode_ = RAY_MODE_DRIVER;
  int32_t language_ = RAY_LANG_NATIVE;
  std::string session_dir_, token_, ns_;
  Fd session_lock_;
  OwnNode own_node_;
  DaemonChannel daemon_{this};
  Bells bells_;
  uint64_t spawn_ = 0;  // of a worker: which one it is
  int64_t strays_at_ns_ = 0;  // when to look again for orphans that ended; pulse alone
  bool of_relay_ = false;  // the process is not this runtime's alone
  RelayedUser* relayed_user_ = nullptr;
  std::vector<RelayedEnd> relayed_ends_;  // that its user has not been told
  NodeId node_;
  JobId job_;
  TaskContext root_, actor_root_;
  std::atomic<TaskContext*> outside_{&root_};  // one of them
  WakeChain wakes_;
  std::unique_ptr<WorkerSide> worker_;
  std::thread receiver_, pulse_;
  enum : int { kWait, kGo, kNever };
  std::atomic<int> threads_go_{kWait};  // the threads run once everything is connected
  std::atomic<bool> stopping_{false}, stopped_{false}, node_dead_{false}, pulse_ended_{false};
  uint32_t fork_generation_ = 0;
  bool checks_ = false;     // LIBRAY_CHECKS, and sanitizer builds
  int64_t check_at_ = 0;    // when check_parts() is due again
  std::string death_;  // why the node is dead

  mutable std::mutex mutex_;
  Callbacks callbacks_{bells_};
  Notifications notifications_{this, callbacks_, bells_};
  UnreadErrors unread_errors_{callbacks_};
  Functions functions_{this, mutex_, daemon_};
  std::atomic<bool> have_deferred_{false};  // something is to be done after the mutex was dropped: after_unlock()
  Objects objects_{this, this, mutex_, have_deferred_, daemon_, bells_, unread_errors_};
  ActorClients actors_{this, daemon_, objects_};
  Streams streams_{this, objects_, notifications_, callbacks_, bells_};
  std::unordered_map<std::string, std::unique_ptr<Shape>> shapes_;
  std::vector<Shape*> shape_list_;
  LeasePolicy leases_;
  task::Cancellation<TaskKit> cancels_;
  task::LeaseActions<TaskKit> todo_;  // what they have decided: carry_out()
  std::unordered_map<uint32_t, std::unique_ptr<ClientLink>> links_;  // by link id
  std::unordered_map<uint32_t, ClientLink*> link_of_peer_;
  std::vector<ClientLink*> busy_links_;
  std::vector<PendingTask*> to_create_;  // creations that are ready for the daemon
  bool closed_ = false;  // shut down: nothing begins any more
  uint32_t wait_mark_ = 0;
  KeptBuffers kept_;
  std::deque<Later> later_;  // by the pulse thread
  int64_t later_at_ns_ = 0;  // and not before this
  struct ToJournal {
    uint16_t type;
    std::string bytes;
  };
  std::vector<ToJournal> to_journal_;  // of tasks whose end no worker tells of, or that run again
  TaskList waiting_tasks_;                  // tasks that wait for arguments
  std::vector<PendingTask*> to_shrink_;
  struct FailedDependency {
    PendingTask* task;
    uint64_t tag;
    Object* cause;
  };
  std::vector<FailedDependency> failed_dependencies_;
  std::atomic<uint32_t> sleepers_{0};  // threads in wait_until that may sleep
  uint64_t n_pending_ = 0;             // tasks that are not done
  uint64_t needs_pulse_ = 0;           // reasons for pulse to sleep on the doorbell, besides notifications and objects
  uint64_t progress_count_ = 0;
  uint64_t results_seen_ = 0;  // drains that found something
  uint64_t n_errors_ = 0;  // objects that failed: get looks again when it grew
  bool cancels_wait_ = false;               // for room in some link
  bool results_wait_ = false;               // a ring is full of tasks whose results we have not read
  bool feeding_ = false;                    // tasks wait for room in some ring: see feed()
  std::atomic<bool> pulse_on_bell_{false};  // which word it sleeps on
  bool left_marked_ = false;                // workers with work were left asleep
  uint32_t passed_seen_ = 0;                // WakeChain::passed() when that was last looked after
  uint64_t marks_ = 0;                      // calls to sleeping workers since then
  int64_t marked_look_ns_ = 0;              // when to look again
  int64_t look_at_ = 0;                      // when to look for stopped peers again
  std::atomic<bool> urgent_work_{false};

  std::string ended_for_;  // why the daemon says that the node ends; of the receiving thread
};

PendingTask* pending_task_at(uint32_t index);

}  // namespace ray
