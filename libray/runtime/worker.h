// WorkerSide: the part of a runtime that serves tasks, in processes that the node started as
// workers.
//
// Threads: `next` and everything on an Execution belong to the thread that took it; add_link,
// client_died, become_actor, unwanted and stop come from the receiver; on_pulse from the pulse
// thread (cancellations, giving back unstarted tasks while the task thread is inside user code).
// Locks: a ServeLink's mutex covers its rings and claims; links_mutex_ the list, and is taken first.
// groups_mutex_ (call_groups.cc) comes before them.
//
// Invariants: a task record is claimed once, under the link's mutex; the ring space of a record is
// freed only after its result was published, so that a client can run it again if we die; `started`
// moves before user code runs.
#pragma once
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "libray/base/ring.h"
#include "libray/base/shm.h"
#include "libray/base/spin.h"
#include "libray/base/spin_budget.h"
#include "libray/runtime/types.h"

namespace ray {

class Runtime;
class WorkerSide;
struct Execution;

// An object under construction through ray_writer_*: a put, or a result of a task.
struct WriterState {
  Runtime* runtime = nullptr;
  std::shared_ptr<store::Client> store;  // the memory to be written stays mapped, also after the shutdown
  ObjectId id;
  store::Building building;
  uint32_t format = 0;
  std::vector<wire::PackedRef> refs;
  std::vector<Object*> contained;  // retained
  std::vector<uint8_t*> oob;
  uint8_t* data = nullptr;
  bool sealed = false;
  bool dropped = false;  // a result that nobody asked for
  Execution* execution = nullptr;  // results only
  void* task_handle = nullptr;
  uint32_t index = 0;
  Status open(Runtime* rt, const ObjectId& object, const ray_value& shape);
};

struct Claim {
  uint64_t end;
  bool done;
};

// Our side of a link to a client.
struct ServeLink {
  uint32_t id = 0, client = 0;
  Mapping map;
  wire::LinkHeader* header = nullptr;
  SpinLock mutex;
  RingConsumer tasks;
  uint64_t next_at = UINT64_MAX, next_stamp = 0;  // where the next call lies, and when it was submitted
  RingProducer results;
  std::deque<Claim> claims;
  uint32_t give_back_seen = 0, cancel_seen = 0;
  std::vector<uint64_t> cancelled;      // calls that nobody has found yet: they may begin later
  std::vector<uint64_t> fresh_cancels;  // those of them that were not looked for among what runs
  std::atomic<bool> any_cancelled{false};  // `cancelled` is not empty
  std::atomic<bool> dead{false};
  // Its task ring holds garbage, of an actor: nothing more is taken from it. What runs is answered, then the link is given up.
  std::atomic<bool> broken{false};
  bool takes() const { return !dead && !broken; }
  std::atomic<bool> unrung{false};  // its client sleeps lazily; see ring_unrung()
};

// One execution of a task: what a ray_task stands for.
struct Execution {
  WorkerSide* side = nullptr;
  void* handle = nullptr;
  std::shared_ptr<ServeLink> link;  // null: the creation of an actor
  wire::TaskHeader header;
  std::string record_copy;  // actor creation: backs `record`
  const uint8_t* record = nullptr;
  uint32_t record_size = 0;
  uint64_t end = 0;
  TaskContext context;
  std::string name, method;
  std::vector<ray_buffer> args;
  store::Pin args_pin;
  bool args_pinned = false;
  struct Out {
    wire::ArgHeader header;
    std::string bytes;
    bool given = false;
  };
  std::vector<Out> results;
  std::string error_image;
  std::atomic<uint32_t> yielded{0};
  bool listed = false;    // among the actor's generators that count against its limit
  bool reserved = false;  // one place under that limit is for its next item
  uint64_t actor_pos = 0;
  int64_t start_wall = 0, start_stamp = 0, end_stamp = 0;
  std::atomic<bool> cancelled{false};
  FunctionDefinition definition;
  bool definition_known = false;  // `definition` is that of definition_key, which may be an earlier task's function
  uint64_t definition_key = 0;
  bool no_retry = false;
  uint64_t number = 0;      // of a stand-in's, once it was forwarded; under run_mutex_, as the next
  uint32_t cancel_how = 0;  // RAY_CANCEL_*, of what was asked for
  uint32_t done_bits = 0;   // wire::kDoneDied, kDoneTold
  bool registered = false;  // a registered function runs it: its return ends it
  uint32_t group = 0;
  uint32_t slot = 0;  // of wire::ChannelHeader::running
  uint32_t n_gpus = 0;  // that come with its lease; an actor's belong to its constructor here
};

// A concurrency group of an actor: its calls that were taken from the links and wait for their turn.
struct CallGroup {
  uint32_t limit = 1;
  std::atomic<uint32_t> outstanding{0};
  std::deque<Execution*> ready;  // under groups_mutex_
  Fd event;
};

class WorkerSide {
 public:
  explicit WorkerSide(Runtime* runtime) : runtime_(runtime) {}
  ~WorkerSide();
  Runtime* runtime() const { return runtime_; }

  // ---- receiver thread
  void add_link(const wire::DnLink& l, Mapping map);
  void client_died(uint32_t process);
  void become_actor(const wire::ActorInitRecord& r);
  void unwanted();
  void leave();  // takes no more tasks, and stops when what it has submitted is done
  void stop();
  void stop_reader();  // what it has not read stays unread
  void let_go();  // after everything stopped: unmaps the links

  // ---- pulse thread
  bool on_pulse();  // true: there are tasks

  // ---- task threads
  Status next(int64_t timeout_ns, Execution** out, uint32_t group = 0);
  int event_fd(uint32_t group = 0);
  Status poll(uint32_t group, int64_t timeout_ns, int wake_fd);
  // Whether a descriptor is to announce what comes: not while its loop polls. Any thread.
  bool wants_event() const { return event_used_ && event_wanted_; }
  Status set_groups(const uint32_t* limits, size_t n);
  size_t n_groups() const { return has_groups_ ? groups_.size() : 1; }
  Status exit_actor(const std::string& why);
  Status limit_streams(uint32_t items);
  Status self_actor(Actor** out);  // a weak handle
  void enter(Execution* e);  // what this thread runs from now on; nullptr = nothing
  static Status check_result(const Execution* e, uint32_t index, bool* dropped);
  Status set_result(Execution* e, uint32_t index, const ray_value& v);
  Status set_error_result(Execution* e, uint32_t index, ray_code code, const std::string& message,
                          const ray_value* payload);
  Status open_result(Execution* e, uint32_t index, const ray_value& shape, WriterState* w);
  Status seal_result(WriterState* w);
  Status yield(Execution* e, const ray_value& v, int64_t timeout_ns);
  Status await_room(Execution* e, int64_t timeout_ns);
  void fail(Execution* e, const std::string& message, const ray_value* payload);
  Status finish(Execution* e, ray_code code);
  Status take_arg(Execution* e, size_t index, ray_buffer* out);
  Status definition(Execution* e);
  void set_interrupt(ray_interrupt_fn fn, void* user);
  bool has_interrupt() const { return has_interrupt_.load(std::memory_order_relaxed); }
  Status run();
  void end_forked_child(ray_code code);
  bool runs(const TaskContext* context);  // whether it is that of a task that is not finished
  void set_self(void* self) { self_ = self; }
  void* self() const { return self_; }
  // Units of one kind (index in wire::kAccelerators) that this task or actor has: up to `capacity` numbers; how
  // many there are.
  size_t accelerators_of(const Execution* e, uint32_t kind, uint32_t* out, size_t capacity) const;
  const std::string& class_name() const { return class_name_; }
  uint64_t class_key() const { return class_key_; }
  uint32_t max_concurrency() const { return max_concurrency_; }
  const JobId& job() const;
  const std::string& function_name(Execution* e);
  void request_stop() { stop_ = true; }  // async-signal-safe
  // This process takes no more tasks and waits for what it submitted: what it held is free from now
  // on, and what clients still send goes back to them.
  void retire();

  // ---- a stand-in: its tasks run on another node (forwarding.cc). Any thread, unless said
  void stand_in_for(StandInUser* user, uint32_t window);  // before the first task
  void forwarded(Execution* e, uint64_t number);  // from now on its cancellation is told under this number
  // An answer, by the thread that ends what was forwarded. The image is a packed error, for a code that is not RAY_OK.
  void finish_forwarded(Execution* e, ray_code code, uint32_t done_bits, bool no_retry, std::string image, uint64_t run_ns);
  // Back to its client, which counts it as not begun; bound: and does not send it to another node again.
  void return_forwarded(Execution* e, bool bound);
  void drop_forwarded(Execution* e);  // no answer: this stand-in is to end
  void abandon_links();               // whoever waits for room in them goes on
  bool ends() const { return leaving(); }

  bool departs() const { return leaves_ && retiring_; }  // as soon as nothing is left to do

  // ---- blocking inside a task
  const TaskContext* lend();  // not null: take_back of it must follow
  void take_back(const TaskContext* waited);
  void give_back_all();

 private:
  static constexpr int64_t kIdleSpinNs =
      50000;  // a worker looks at most that long before it sleeps
  SpinBudget idle_spin_{kIdleSpinNs};
  // The same while others wait for its place: no longer than a switch to one of them and back costs.
  static constexpr int64_t kCrowdedSpinNs = 2000;
  SpinBudget crowded_spin_{kCrowdedSpinNs, 0};
  bool claim(std::shared_ptr<ServeLink> from, Execution** out);
  bool claim_any(Execution** out, uint32_t group);
  bool take_place();
  void give_place(CallGroup* group);
  class AsleepAtLimit;
  bool claim_grouped(Execution** out, uint32_t group);
  std::shared_ptr<ServeLink> oldest_link();
  bool route(uint32_t mine);
  static void say_begun(const Execution* e, bool begun);
  bool full(uint32_t group);
  bool group_waits();
  bool anything_for(uint32_t group);
  bool cancel_waiting(uint64_t end, ServeLink* link, TaskId* id);
  void cancel_waiting_of(const ServeLink* link);
  void ring_events(bool always, bool work);
  Execution* start(Execution* e, bool may_block);
  Execution* ready(Execution* e, const Status& s);
  void drop_args(Execution* e);
  void read_later(Execution* e);
  void read_aside();
  bool take_read(Execution** out, Status* s, uint32_t group);
  bool any_read(uint32_t group);
  Execution* new_execution();
  Status read_args(Execution* e, bool may_block);
  Status read_arg(const wire::Value& v, bool may_block, ray_buffer* out);
  bool give_back(ServeLink* link, bool blocked);
  void* result_room(ServeLink* link, std::unique_lock<SpinLock>* lock, uint16_t type,
                    uint32_t size);
  void publish(ServeLink* link);
  void publish_lazily(ServeLink* link);
  void ring_unrung();
  void complete_claim(ServeLink* link, uint64_t end);
  static bool given_up(const ServeLink* link) { return link->broken && link->claims.empty(); }
  void give_up(ServeLink* link);
  void scan_cancels(const std::shared_ptr<ServeLink>& link);
  void absorb_cancels(ServeLink* link);
  bool forget_cancel(ServeLink* link, uint64_t end);
  bool was_cancelled(ServeLink* link, uint64_t end);
  bool cancel_running(uint64_t word, ServeLink* link);
  void die(ServeLink* link, uint64_t end);
  void cancel_forwarded(Execution* e, uint32_t flags);
  static std::string error_image(ray_code code, const std::string& message,
                                 const ray_value* payload);
  void write_done(Execution* e, ray_code code);
  void write_lineage(Execution* e, ray_code code);
  void finish_creation(Execution* e, ray_code code);
  static uint32_t unconsumed(const Execution* e);
  bool reserve_item(Execution* e);
  void count_item(Execution* e);
  void leave_streams(Execution* e);
  Status encode_result(Execution* e, uint32_t index, const ray_value& v, Execution::Out* out);
  uint32_t holder_of(const Execution* e) const;
  void register_result(Execution* e, const ObjectId& id, const std::vector<ObjectId>& contained);
  void discard_result(Execution* e, uint32_t index, Execution::Out* out);
  void discard_results(Execution* e);
  void write_error_parts(Execution* e);
  void recycle(Execution* e);
  void interrupt(Execution* e);
  bool read_names(Execution* e);
  void show(Execution* e);
  void hide(const Execution* e);
  Status fit_results(Execution* e);
  void execute(Execution* e);
  bool has_work();
  bool leaving() const;
  bool about_to_leave() const;
  void depart();
  void running_changed();
  void tell_lent();

  Runtime* runtime_;
  StandInUser* stand_in_ = nullptr;
  const uint32_t pid_ = static_cast<uint32_t>(::getpid());
  std::atomic<bool> unrung_{false};  // some link is
  SpinLock links_mutex_;
  std::vector<std::shared_ptr<ServeLink>> links_;

  std::mutex run_mutex_;  // running executions, creation, pool, interrupt hook
  std::vector<Execution*> running_;
  uint32_t shown_ = 0;  // slots of wire::ChannelHeader::running in use, a bit each
  std::vector<Execution*> pool_;
  std::atomic<Execution*> spare_{nullptr};  // one more, for whoever takes it first
  std::unique_ptr<Execution> creation_;
  std::atomic<bool> have_creation_{false};
  ray_interrupt_fn interrupt_ = nullptr;
  void* interrupt_user_ = nullptr;
  std::atomic<bool> has_interrupt_{false};

  std::atomic<bool> stop_{false}, unwanted_{false}, exiting_{false}, retiring_{false}, leaves_{false};
  std::atomic<uint32_t> outstanding_{0};      // executions that were claimed and have not ended
  std::atomic<uint32_t> asleep_at_limit_{0};  // threads in next() that wait for the end of one
  std::atomic<uint32_t> max_concurrency_{1};
  std::atomic<bool> is_actor_{false};
  bool actor_ready_ = false;
  ActorId actor_;
  uint32_t incarnation_ = 0;
  std::vector<uint32_t> gpus_;  // of the actor
  std::atomic<uint64_t> next_pos_{1};  // the constructor is 0
  // Calls whose arguments lie on disk, taken by who may not wait: a thread of its own reads them, one call at a time.
  struct Read {
    Execution* e;
    Status status;
  };
  std::mutex reader_mutex_;
  std::condition_variable reader_wakes_;
  std::deque<Execution*> to_read_;
  std::deque<Read> read_;
  std::atomic<size_t> n_read_{0};  // in read_
  bool reader_ends_ = false;
  std::thread reader_;
  // Generators of an actor with a limit for all of them together. The mutex comes after the runtime's.
  uint32_t stream_limit_ = 0;
  std::mutex streams_mutex_;
  std::vector<const Execution*> streams_;  // that have begun and not ended
  uint32_t n_reserved_ = 0;
  uint64_t class_key_ = 0;
  std::string class_name_;
  void* self_ = nullptr;
  std::mutex lend_mutex_;
  std::unordered_map<const TaskContext*, uint32_t> waiting_;  // tasks that wait, and how many threads do for each
  std::atomic<size_t> n_waiting_{0};                          // such tasks
  bool lent_ = false;                                         // as the daemon was told last
  Fd event_;
  std::atomic<bool> event_used_{false};    // somebody asked for a descriptor
  std::atomic<bool> event_wanted_{true};  // its loop sleeps or may be about to

  // Concurrency groups. The list is complete before has_groups_ says that there are any, and fixed then.
  std::atomic<bool> has_groups_{false};
  std::vector<std::unique_ptr<CallGroup>> groups_;
  std::mutex groups_mutex_;  // the queues of the groups; taken before a link's mutex
};

}  // namespace ray
