// Runtime: one connection of this process to a node; what ray_init makes. It keeps this process's
// objects, submits tasks over links to leased workers, drains their results and waits.
//
// Threads. Callers' threads do the work: whoever waits drains the result rings itself, so a result
// reaches the waiter without a hop. Two threads of our own: `receiver` blocks on the daemon's
// socket (grants, deaths, states); `pulse` steps in where no caller waits (dependencies,
// notifications, backlog, idle leases) and sleeps otherwise. The worker side (worker.h) adds none.
//
// Locks: mutex_ guards everything here that is not atomic. Never held while blocking: store calls
// and callbacks run after it was dropped (after_unlock). Below it: up_mutex_, lineage_mutex_,
// calls_mutex_, store_mutex_ (leaves).
//
// Files: runtime.cc start, stop, threads · requests.cc what the daemon answers · refs.cc objects and sharing ·
// relayed.cc tasks of other nodes · functions.cc · submit.cc encoding, dispatch · leases.cc · cancel_tasks.cc · results.cc ·
// wait.cc get, wait, notifications · actors.cc, streams.cc · down.cc the daemon's messages · stopped.cc peers that do
// not move · unread.cc errors that nobody saw, references counted · worker.cc serving tasks · task_results.cc what
// they give.
#pragma once
#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "libray/base/doorbell.h"
#include "libray/base/log.h"
#include "libray/base/shm.h"
#include "libray/base/spin.h"
#include "libray/base/spin_budget.h"
#include "libray/lineage/delta.h"
#include "libray/lineage/record.h"
#include "libray/runtime/object.h"
#include "libray/runtime/object_table.h"
#include "libray/runtime/types.h"
#include "libray/runtime/wake_chain.h"
#include "store/client.h"

namespace ray {

class WorkerSide;
struct WriterState;

class Runtime {
 public:
  static constexpr int64_t kStoreTimeoutNs = 10000000000;  // back-pressure without progress
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

  // ---- objects (refs.cc)
  Status put(const ray_value& value, Object** out);
  Status put_error(ray_code code, const std::string& message, const ray_value* payload,
                   Object** out);
  Status import(const ObjectId& id, const wire::Location& hint, Object** out);
  Status import_contained(const BufferView& view, uint32_t first, uint32_t n, ray_ref** out);
  // All of them, as long as the buffer: it is kept longer than what its value was part of.
  Status hold_contained(BufferView* view);
  void release(Object* o) {
    if (o->drop()) free_object(o);
  }
  // A caller's handle; nothing happens when there is none any more.
  void release_handle(Object* o) {
    if (take_back(o) == TakenBack::kLast) free_object(o);
  }
  // Makes the object known to the node, so that a reference to it may leave this process.
  Status share(Object* o, int64_t patience_ns = kStoreTimeoutNs);
  Status fill_buffer(Object* o, int64_t within_ns, ray_buffer* out);
  wire::PackedRef packed_ref(Object* o);
  Status export_hold(Object* o);
  // Whoever may wait in it keeps it: after the shutdown there is none.
  std::shared_ptr<store::Client> store() const {
    std::lock_guard lock(store_mutex_);
    return store_;
  }
  Status open_store(std::shared_ptr<store::Client>* out) const;  // or why not
  void unpin(store::Pin* pin);
  // Packs a value with its refs shared; small ones into *image.
  Status pack_inline(const ray_value& v, std::string* image);
  Status pack_to_store(const ray_value& v, const ObjectId& id, wire::Location* out, uint32_t owner = 0,
                       uint32_t attempt = 0, int64_t patience_ns = kStoreTimeoutNs);
  Status pack_refs(const ray_value& v, std::vector<wire::PackedRef>* out);
  Object* make_put_object(const ObjectId& id);
  Object* find_object(const ObjectId& id);  // one that this process refers to; retained, or nullptr
  ObjectId next_put_id();
  // Asked now and then by a put that waits for room; set before there are any.
  void on_wait(std::function<bool()> stop) {
    stop_waiting_ = [this, stop = std::move(stop)] { return closed_waits() || (stop && stop()); };
  }
  const std::function<bool()>* stop_waiting() const { return &stop_waiting_; }

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
  void keep(ray_buffer* buffers, size_t n);
  void take_kept(std::vector<ray_buffer>* out);
  void release_kept();

  // ---- what this process itself knows (unread.cc)
  // The answer of a query that needs no daemon, one MessagePack value; false: it is none.
  bool local_query(const std::string& what, std::string* answer);

  // ---- functions and tasks (functions.cc, submit.cc)
  Status function(int32_t language, uint32_t kind, const std::string& name,
                  const std::string& definition, Function** out);  // one user more
  void function_release(Function* f);
  // What this job's workers of a language are, see ray_worker_command; and whether there can be any.
  Status set_worker_command(int32_t language, const std::vector<std::string>& argv, const std::string& code);
  Status check_language(int32_t language);
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

  // ---- streams (streams.cc)
  Status stream_next(Stream* s, int64_t timeout_ns, Object** out);
  Status stream_on_next(Stream* s, const ray_notify& notify, uint64_t* token);
  Status stream_completed(Stream* s, Object** out);
  Status stream_cancel(Stream* s, uint32_t flags);
  void stream_release(Stream* s);  // the last handle
  void stream_unused(Stream* s);   // and the last call

  // ---- actors (actors.cc)
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

  // ---- requests to the daemon (requests.cc)
  static constexpr int64_t kRequestNs = 30000000000;
  Status request(uint32_t op, const std::string& args, std::string* answer, int64_t timeout_ns = kRequestNs);
  static Status check_request(const std::string& args);
  // The same without waiting for the answer.
  void tell(uint32_t op, const std::string& args);

  // ---- for the worker side
  template <class Header>
  void up(uint16_t type, const Header& header, const void* tail = nullptr, size_t tail_size = 0) {
    up_bytes(type, &header, sizeof header, tail, tail_size);
  }
  void up_bytes(uint16_t type, const void* a, size_t a_size, const void* b, size_t b_size,
                uint16_t flags = 0);
  // Writes one lineage record; `fill` writes `size` bytes.
  template <class Fill>
  void lineage(uint16_t type, uint32_t size, Fill fill);
  WakeChain& wakes() { return wakes_; }
  void wake(ClientLink* link);  // mutex_ held
  std::atomic<uint32_t>* bell(uint32_t process) { return &page_->bells[process].armed; }
  // The word on which only `pulse` of a process sleeps: for work that must not wait for its
  // callers.
  std::atomic<uint32_t>* urgent_bell(uint32_t process) { return &page_->bells[process].urgent; }
  void ring_all(uint32_t process) {
    ray::ring(bell(process));
    ray::ring(urgent_bell(process));
  }
  uint32_t process() const { return process_; }
  wire::ChannelHeader* channel() { return channel_; }
  const JobId& job() const { return job_; }
  const NodeId& node() const { return node_; }
  TaskContext* context();  // of the calling thread
  bool in_task() { return context() != outside_.load(std::memory_order_relaxed); }
  // From now on what this process makes outside of calls descends from the actor that it is.
  void become_actor(const ActorId& actor, uint32_t incarnation);
  Status seal_put(WriterState* w, Object** out);
  void set_context(TaskContext* c);
  bool node_dead() const { return node_dead_.load(std::memory_order_acquire); }
  bool daemon_gone() const;  // looks at the socket: known before the receiver has acted on it
  // What the store answered; when that is "no daemon any more", the death of the node that it is.
  Status of_store(Status s) const;
  std::mutex& mutex() { return mutex_; }
  void cancel_children(const TaskId& parent);
  void return_idle_leases();
  Status task_definition(uint64_t key, FunctionDefinition* out);
  uint64_t ref_count(Object* o) const { return o->refs(); }

  // Called when the last handle is gone: the object waits, reachable, for its child handles.
  static void bury(Runtime* rt);
  ~Runtime();

 private:
  friend class WorkerSide;
  static constexpr int64_t kMarkedNs = 300000;        // a worker left asleep is looked after that often
  static constexpr int64_t kSpinNs = 30000;  // a waiter looks at most that long before it sleeps, but for a batch
  static constexpr int64_t kCrowdedSpinNs = 4000;  // when workers wait for a place
  static constexpr int64_t kLazySleepNs = 150000;  // who waits for much looks by itself after that
  static constexpr int64_t kKeptNs = 200000000;
  static constexpr int64_t kFlowSpinNs = 1000000, kFlowLookNs = 20000;  // a batch that comes is looked at so long, so often
  SpinBudget spin_{kSpinNs}, flow_spin_{kFlowSpinNs, 0};
  Runtime() = default;

  struct Call {
    bool done = false;
    bool names = false;      // answers with the id of an actor that we are made a holder of, unless it is `mine`
    bool abandoned = false;  // nobody waits: what it makes us hold is given back
    ActorId mine;
    ray_code code = RAY_OK;
    std::string answer;
  };
  uint64_t begin_call(std::shared_ptr<Call>* out, bool names = false, const ActorId& mine = {});
  Status transact(uint64_t id, const std::shared_ptr<Call>& call, uint32_t op, const std::string& args, std::string* answer,
                  int64_t timeout_ns);
  void give_back(const Call& call);
  Status await_call(uint64_t id, const std::shared_ptr<Call>& call, std::string* answer,
                    int64_t timeout_ns);
  Status finish_named(uint64_t req_id, std::shared_ptr<Call> call, uint32_t flags, Actor** out, bool* found);

  // runtime.cc
  Status why_unusable() const;
  Status connect(const ray_runtime_options& options, const StartAs* as);
  Status hello(const ray_runtime_options& options, const StartAs* as);
  Status map_memory(std::vector<Fd>* of_welcome);
  Status start_node(const ray_runtime_options& options);
  Status start_threads();
  void receive_loop();
  Status import_one(const ObjectId& id, const wire::Location& hint, Object* lender, Object** out);
  bool means_other(const Object* there, const wire::Location& hint) const;
  void pulse_loop();
  void tick();
  void look_after_marked(int64_t now);
  void look_for_stopped(int64_t now);
  void warn_stopped_daemon();
  void reap_strays();
  bool kill_stopped_daemon();
  static constexpr const char* kDaemonDied = "the node daemon died";
  void node_lost(const char* why);
  std::string death_text(const char* why) const;
  static constexpr const char* kWasShutDown = "the runtime was shut down";
  ErrorBox* over_error() const;
  void fail_everything(ray_code code, const std::string& why);
  void log_later(LogLevel level, const char* id, std::string text);
  bool drained();
  bool may_leave();
  void nearer_to_end();
  void stop_threads();
  void let_go();
  void end_daemon();
  void reap_daemon(int64_t patience_ns);
  void poke();
  void watch_bell();
  void feed();
  void run_callbacks();
  void run_each_callback();
  static const Runtime* enter_callback(const Runtime* rt);  // the one before
  void run_inline(const Notification& n, Object* o);
  void close_queues();
  Status check_notify(const ray_notify& notify, Queue** queue) const;
  void wake_calls();
  void wake_waiters();
  bool callbacks_empty();
  bool ticking() const;
  void wake_daemon(std::atomic<uint32_t>* armed);
  void ring_daemon();
  void knock();
  void await_room(std::atomic<uint32_t>* armed, uint32_t naps);
  bool nobody_reads(uint32_t naps);
  bool write_up(uint16_t type, const void* a, size_t a_size, const void* b, size_t b_size, uint16_t flags);
  void send_request(uint64_t id, uint32_t op, const std::string& args);
  static void too_large(const char* whom, size_t size);

  // relayed.cc
  void end_relayed(PendingTask* t);
  void return_relayed(PendingTask* t);
  void deliver_relayed();
  bool bind_to_node(PendingTask* t);

  // refs.cc
  void free_object(Object* o);
  void free_one(Object* o, std::vector<Object*>* more);
  Object* new_object(const ObjectId& id, uint64_t counts = 1);
  void mark_shared(Object* o);
  Status copy_for_others(Object* o, int64_t patience_ns, wire::UpObj* u);
  static void without_copy(Object* o, const Status& s, wire::UpObj* u);
  void note_copy(Object* o, const wire::UpObj& u);
  void tell_ready(Object* o, const wire::UpObj& u);
  bool publish(Object* o, int64_t patience_ns, bool last);
  void contained_ids(Object* o, std::vector<ObjectId>* out);
  Status fill_store_buffer(Object* o, int64_t within_ns, ray_buffer* out);
  void resolve(Object* o);  // mutex_ held
  void send_object(uint16_t type, wire::UpObj u, const std::vector<ObjectId>& ids);
  bool read_shared_error(Object* o, const wire::Location& at, bool ours, int64_t patience_ns, bool last);
  static void lend_to(Object* lender, Object* o);
  static void leave_lender(Object* o);
  void hold_lent(Object* o);
  void discard(const ObjectId& id, uint32_t attempt, const wire::ArgHeader& h, const uint8_t* bytes);
  void discard_attempt(const PendingTask* t);

  // unread.cc
  void drop_error(Object* o);  // mutex_ held
  void excuse(Object* const* objects, size_t n);
  static void saw(Object* const* objects, const uint8_t* ready, size_t n);
  void take_unread(std::string* answer);
  void find_neglected();
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
  static bool rules_checked();
  void check_rules(int64_t now);

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

  struct StoredError {
    Object* object = nullptr;  // retained
    wire::Location location;
    bool ours = false;  // it was sealed for us, and goes when it was read
  };
  // What needs room in the store, which there was not while somebody with a time limit did it.
  struct Later {
    Object* publish = nullptr;      // retained; or:
    PendingTask* shrink = nullptr;  // its arguments are to be stored; or:
    StoredError error;
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
  void completed(Object* o);
  void fail_task(PendingTask* t, ErrorBox* e, bool journaled = false);
  void fail_waiting(PendingTask* t, ErrorBox* e);
  void finish_task(PendingTask* t);
  void requeue(PendingTask* t, bool begun);
  void link_died(ClientLink* link, const wire::DnPeerDied& death, std::string_view why);
  std::string crash_message(const PendingTask* t, const wire::DnPeerDied& death, std::string_view why) const;
  void fail_dependents();
  void drop_link(ClientLink* link);
  void run_waiter(Waiter* w, Object* o);
  void after_unlock(int64_t patience_ns = kStoreTimeoutNs);
  void later(Later what);
  void do_later();
  static bool no_room(const Status& s) { return s.code() == RAY_STORE_FULL || s.code() == RAY_TIMED_OUT; }

  // records.cc
  void remember_record(PendingTask* t, const uint8_t* at, uint32_t size);
  bool take_back_record(PendingTask* t);
  void fail_overwritten(PendingTask* t, uint32_t worker_pid);

  // actors.cc
  Actor* actor_entry(const ActorId& id);
  Actor* weak_entry(const ActorId& id);
  Status keep_actor(Actor* a);
  void keep_for_call(PendingTask* t);
  void connect_actor(Actor* a);
  void adopt_held(const ActorId& id, Actor** out);
  void create_ready_actors(int64_t patience_ns);
  bool create_actor(PendingTask* t, int64_t patience_ns, bool last);
  void tell_creation(const PendingTask* t, const std::vector<ObjectId>& deps);
  void actor_dead(Actor* a, ErrorBox* e);
  void retry_lost_calls(Actor* a);
  void refuse_last_call(Actor* a, PendingTask* t);
  void fail_restarting(PendingTask* t, const std::string& why);
  void pump_actor(Actor* a);
  void actor_state(const wire::DnActorState& s, const uint8_t* tail);
  void take_state(Actor* a, const wire::DnActorState& s, const uint8_t* tail);
  void actor_maybe_done(Actor* a);
  void fail_actor_tasks(Actor* a, ray_code code, ErrorBox* cause);
  void actor_link_died(Actor* a, ClientLink* link);
  void send_actor_create(PendingTask* t);
  void announce_actor(const PendingTask* t);
  Status await_facts(Actor* a);
  void take_facts(Actor* a, const wire::DnActorState& s);
  void creation_failed(const PendingTask* t, const ErrorBox* cause);
  void answer_here(uint64_t req_id, ray_code code, const std::string& text);

  // streams.cc
  void stream_item(PendingTask* t, uint32_t index, const wire::ArgHeader& h, const uint8_t* bytes);
  void stream_end(PendingTask* t, ErrorBox* e);
  void complete_stream(Stream* s);
  void keep_completion(Object* completion);
  void stop_watching(const Object* completion);
  void stream_deliver(Stream* s);
  void free_stream(Stream* s);
  void stream_ack(Stream* s);

  // down.cc
  void on_datagram(const uint8_t* data, size_t size, std::vector<Fd>* fds);
  void on_down(uint16_t type, uint16_t flags, const uint8_t* p, size_t n, std::vector<Fd>* fds,
               size_t* next_fd);
  void on_link(const wire::DnLink& l, Fd fd);
  void on_actor_text(const uint8_t* p, size_t n);
  void link_lost(const wire::DnLink& l, const std::string& why);
  void on_grant(const wire::DnLease& l, const uint8_t* gpus, size_t n_gpus);
  void on_reclaim(const wire::DnLease& l);
  void on_reply(const wire::DnReply& r, uint16_t flags, const uint8_t* p, size_t n);
  void on_obj_state(const wire::DnObjState& s);
  void on_obj_cancel(const wire::ObjCancel& c);
  void on_infeasible(const wire::DnLease& l, std::string_view text);
  void on_unplaceable(const wire::DnUnplaceable& u, std::string_view text);
  void served_died(const uint8_t* p, size_t n);
  void on_peer_died(const wire::DnPeerDied& d, std::string_view why);
  void deliver(const Notification& n, Object* o, uint32_t kind, ErrorBox* e);

  int32_t mode_ = RAY_MODE_DRIVER;
  int32_t language_ = RAY_LANG_NATIVE;
  std::atomic<uint32_t> languages_{0};  // a bit for each that there are workers for, as far as this process knows
  std::function<bool()> stop_waiting_;
  std::string session_dir_, token_, ns_;
  Fd session_lock_, socket_, daemon_event_;
  Fd daemon_pidfd_;  // of the one that this process started: what it is signalled through
  int daemon_pid_ = -1;
  uint64_t spawn_ = 0;  // of a worker: which one it is
  int64_t strays_at_ns_ = 0;  // when to look again for orphans that ended; pulse alone
  bool own_node_ = false;
  bool of_relay_ = false;  // the process is not this runtime's alone
  RelayedUser* relayed_user_ = nullptr;
  std::vector<RelayedEnd> relayed_ends_;  // that its user has not been told
  uint32_t process_ = 0;
  NodeId node_;
  JobId job_;
  TaskContext root_, actor_root_;
  std::atomic<TaskContext*> outside_{&root_};  // one of them
  Mapping page_map_, channel_map_;
  wire::NodePage* page_ = nullptr;
  WakeChain wakes_;
  wire::ChannelHeader* channel_ = nullptr;
  SpinLock up_mutex_, lineage_mutex_;
  std::mutex room_mutex_;  // of who waits for room in the up ring; taken before up_mutex_
  std::atomic<uint32_t> room_waits_{0};
  RingProducer up_ring_, lineage_ring_;
  lineage::DeltaCoder lineage_coder_;  // under lineage_mutex_, like the next
  alignas(8) uint8_t lineage_record_[lineage::kDeltaWords * 8] = {};
  bool journaled_ = true;                 // LIBRAY_LINEAGE=0 turns it off, to measure what it costs
  mutable SpinLock store_mutex_;          // of the next, a leaf; who has mutex_ may read it without
  std::shared_ptr<store::Client> store_;  // buffers and writers keep it too
  std::unique_ptr<WorkerSide> worker_;
  std::thread receiver_, pulse_;
  enum : int { kWait, kGo, kNever };
  std::atomic<int> threads_go_{kWait};  // the threads run once everything is connected
  std::atomic<bool> stopping_{false}, stopped_{false}, node_dead_{false}, pulse_ended_{false};
  uint32_t fork_generation_ = 0;
  std::string death_;  // why the node is dead
  std::atomic<bool> no_reader_{false};  // of the rings to the daemon; set without mutex_, before node_dead_
  std::atomic<int64_t> leave_at_ns_{INT64_MAX};  // of a shutdown: a stopped daemon is waited for no longer

  mutable std::mutex mutex_;
  ObjectTable table_;
  // Where the store has the copies of values that lie in this process, of objects that are shared.
  std::unordered_map<const Object*, wire::Location> published_;
  void use_function(Function* f);
  void drop_function(Function* f);
  // Those without users, the longest unused first: programs make the same function again and again.
  static constexpr size_t kUnusedFunctions = 1024;
  std::list<Function*> unused_functions_;
  std::unordered_map<std::string, std::unique_ptr<Function>> functions_;
  std::unordered_map<std::string, std::unique_ptr<Shape>> shapes_;
  std::vector<Shape*> shape_list_;
  LeasePolicy leases_;
  task::Cancellation<TaskKit> cancels_;
  task::LeaseActions<TaskKit> todo_;  // what they have decided: carry_out()
  int64_t check_at_ = 0;              // when to look at their invariants again
  std::unordered_map<uint32_t, std::unique_ptr<ClientLink>> links_;  // by link id
  std::unordered_map<uint32_t, ClientLink*> link_of_peer_;
  std::vector<ClientLink*> busy_links_;
  std::unordered_map<ActorId, std::unique_ptr<Actor>> actors_;
  std::vector<PendingTask*> to_create_;  // creations that are ready for the daemon
  std::unordered_set<Stream*> streams_;
  std::unordered_map<uint64_t, Notification> notifications_;
  std::unordered_set<Queue*> queues_;
  bool closed_ = false;  // shut down: nothing begins any more
  uint64_t next_token_ = 1;
  uint32_t wait_mark_ = 0;
  std::deque<std::function<void()>> callbacks_;
  std::deque<ErrorBox*> unread_;  // errors whose objects went and that nobody saw
  uint64_t neglect_looked_ = 0;   // n_errors_ when no failed object was left that nobody had seen
  std::vector<ray_buffer> kept_;  // pinned by a get that ran out of time: see keep()
  std::atomic<bool> have_kept_{false};
  int64_t kept_ns_ = 0;
  std::vector<Object*> to_publish_;
  std::atomic<uint32_t> publishing_{0};    // threads that publish what they took from to_publish_
  std::vector<Object*> deferred_release_;  // released after the lock was dropped
  std::vector<StoredError> to_read_errors_;
  std::deque<Later> later_;  // by the pulse thread
  int64_t later_at_ns_ = 0;  // and not before this
  struct ToJournal {
    uint16_t type;
    std::string bytes;
  };
  std::vector<ToJournal> to_journal_;  // of tasks whose end no worker tells of, or that run again
  std::atomic<bool> have_deferred_{false};  // any of the lists above or to_publish_ is not empty
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
  uint64_t needs_pulse_ = 0;           // reasons for pulse to sleep on the doorbell
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
  uint64_t up_head_seen_ = 0;                // how far the daemon had read at the last look
  std::atomic<int64_t> daemon_warned_ns_{0};
  std::atomic<bool> knocked_{false};  // our descriptors are gone, and people know
  std::atomic<bool> urgent_work_{false};

  std::mutex calls_mutex_, requests_mutex_;
  std::condition_variable calls_cv_;
  std::unordered_map<uint64_t, std::shared_ptr<Call>> calls_;
  uint64_t next_call_ = 1;
  std::unordered_map<uint64_t, FunctionDefinition> definitions_;
  size_t definition_bytes_ = 0;  // in them
  std::string ended_for_;  // why the daemon says that the node ends; of the receiving thread
};

PendingTask* pending_task_at(uint32_t index);
ray_error* error_handle(ErrorBox* e);  // a new handle, or NULL
void queue_push(Queue* q, const ray_completion& c);
Status queue_poll(Queue* q, ray_completion* out, size_t max, int64_t timeout_ns, size_t* n);

}  // namespace ray
