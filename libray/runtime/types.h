// The small types of the runtime: functions, shapes, leases, links, pending tasks, actors, streams,
// completion queues. All are guarded by the runtime's mutex unless a member says otherwise.
#pragma once
#include <atomic>
#include <deque>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "libray/base/ring.h"
#include "libray/base/shm.h"
#include "libray/runtime/object.h"
#include "libray/runtime/relayed.h"
#include "libray/task/call_queue.h"
#include "libray/task/cancellation.h"
#include "libray/task/lease_policy.h"
#include "libray/task/pending.h"

namespace ray {

struct Shape;
struct ClientLink;
struct PendingTask;
struct Actor;
struct Stream;

// What the rules of libray/task are told of this side; see lease_policy.h there.
struct TaskKit {
  using Task = PendingTask;
  using Link = ClientLink;
  using Shape = ray::Shape;
  static int64_t run_ns(const PendingTask* t);
  static void forget_run_ns(PendingTask* t);
  static uint64_t record_begin(const PendingTask* t);
  static constexpr bool flaw(task::Flaw) { return false; }
  static constexpr bool checked() {
#if defined(LIBRAY_SANITIZED) || !defined(NDEBUG)
    return true;
#else
    return false;
#endif
  }
  [[noreturn]] static void broken(const char* what);
};
using Lease = task::Lease<TaskKit>;
using LeasePolicy = task::LeasePolicy<TaskKit>;
using TaskState = task::State;
using TaskList = task::List<PendingTask>;

// Where a thread stands in the graph: its submissions are children of `id`, a task or a root (base/ids.h).
struct TaskContext {
  TaskId id, parent;
  ActorId actor;
  Origin origin{};
  uint32_t attempt = 0;  // not 0: a retry, or the constructor of an actor that was restarted
  std::atomic<uint64_t> next_submit{1}, next_put{1};
  std::atomic<uint32_t> turn{0};  // who stood here while it was another number stands outside now
  const std::atomic<bool>* cancelled = nullptr;  // of the task that runs; null outside of one
};

struct FunctionDefinition {
  int32_t language = 0;
  uint32_t kind = 0;
  std::string name, definition;
};

struct Function {
  Runtime* runtime = nullptr;
  uint64_t key = 0;
  std::atomic<int32_t> language{0};  // of an actor that was made elsewhere it becomes known later
  std::string name;
  uint64_t users = 0;       // handles of the program, and tasks that are not done
  uint64_t told = 0;        // how often the node was told its definition
  const std::string* digest = nullptr;      // its key in Functions
  std::list<Function*>::iterator unused{};  // without users: where it stands in the list of them
  int64_t run_ns = -1;  // running average; -1 = never seen, or found to vary
  Shape* default_shape = nullptr;
};

// One argument, ready to be written: bytes in place, or a location in the store.
struct PreparedArg {
  Object* ref = nullptr;  // retained until the task is done; its value is read when it is there
  uint32_t format = 0;
  uint16_t where = 0;  // wire::ValueWhere of `bytes`
  const void* data = nullptr;
  uint64_t size = 0;
  std::string owned;  // backs data when the caller's memory does not
};
struct Prepared {
  std::vector<PreparedArg> args;
  std::vector<Object*> held;  // contained references, retained until the task is done
};

uint64_t native_function_key(const std::string& name);
inline std::string view_string(ray_str s) {
  if (!s.data) return {};
  return s.size == RAY_NUL ? std::string(s.data) : std::string(s.data, s.size);
}

// What the daemon needs to create an actor, while its arguments are missing.
struct ActorCreation {
  ray_actor_options options;
  bool announced = false;
  std::string name, ns, resources, metadata;
  uint64_t req_id = 0;
};

// A word that is written without the lock only while the entry is nobody's. Whoever has the lock may read that of an entry
// which has meanwhile become another's: it finds a number that it does not look for.
class Tag {
 public:
  operator uint64_t() const { return word_.load(std::memory_order_relaxed); }
  Tag& operator=(uint64_t tag) {
    word_.store(tag, std::memory_order_relaxed);
    return *this;
  }

 private:
  std::atomic<uint64_t> word_{0};
};

struct PendingTask {
  std::atomic<uint32_t> gen{1};  // the slab's
  uint32_t next_free = 0;
  uint32_t index = 0;
  TaskState state = TaskState::kFree;
  uint8_t kind = 0;
  bool retry_on_error = false, cancelled = false, forced = false;
  bool actor_retries = false;  // actor calls: as many as the actor says
  bool started = false;    // actor calls that were lost: whether the method had begun
  bool shrinking = false;  // its arguments are being stored, without the lock
  bool aside = false;      // actor calls: stands in actor->aside
  bool keeps_actor = false;  // actor calls: counted in actor->n_keeping
  uint16_t group = 0;      // actor calls: concurrency group
  int32_t retries_left = 0;
  uint32_t attempt = 0;
  uint32_t n_returns = 0;
  uint32_t deps_left = 0;
  TaskId id, parent;
  Function* function = nullptr;
  Shape* shape = nullptr;
  ClientLink* link = nullptr;
  Lease* lease = nullptr;
  Actor* actor = nullptr;
  Stream* stream = nullptr;
  uint64_t seq = 0;
  uint64_t submitted = 0;  // order_stamp()
  int64_t est_ns = 0;
  PendingTask *prev = nullptr, *next = nullptr;  // in backlog, actor queue or link
  const uint8_t* record = nullptr;               // payload in the ring while pushed
  uint32_t record_size = 0;
  uint64_t args_check = 0;                       // of the record: records.cc
  uint64_t ring_end = 0;
  Object* return0 = nullptr;
  std::vector<Object*> more_returns;
  std::string spec;  // encoded record while it is not in a ring
  std::string error_parts;  // what has come of the error of this attempt: see wire::kLinkPart
  std::string name, method;
  std::unique_ptr<Prepared> prepared;  // while it waits for arguments
  std::unique_ptr<ActorCreation> creation;
  std::unique_ptr<Relayed> relayed;  // of a task that came from another node: relayed.h
  std::vector<Object*> held;

  // Who remembers a task remembers this: no other task of the process ever has it, however often the entry is
  // used again. The index is in the low bits.
  Tag tag;
  uint64_t uses = 0;
  Object* result(uint32_t i) const { return i == 0 ? return0 : more_returns[i - 1]; }
};
inline constexpr uint32_t kTaskIndexBits = 26;
Slab<PendingTask>& task_slab();
static_assert(Slab<PendingTask>::kChunk * Slab<PendingTask>::kChunks == uint64_t{1} << kTaskIndexBits);
inline uint32_t task_index(uint64_t tag) { return tag & ((1u << kTaskIndexBits) - 1); }
inline constexpr uint64_t kNoTag = 0;  // of an entry that is free

std::string task_name(const PendingTask* t);  // for people: "f", "Counter.add"

inline int64_t TaskKit::run_ns(const PendingTask* t) { return t->function->run_ns; }
inline void TaskKit::forget_run_ns(PendingTask* t) { t->function->run_ns = -1; }
inline uint64_t TaskKit::record_begin(const PendingTask* t) { return t->ring_end - pad8(sizeof(RecordHeader) + t->record_size); }

// Our side of a link to a worker.
struct ClientLink : task::Link<TaskKit> {
  uint32_t id = 0, peer = 0, peer_pid = 0;
  Mapping map;
  wire::LinkHeader* header = nullptr;
  RingProducer tasks;
  RingConsumer results;
  bool busy = false;
  Actor* actor = nullptr;
  struct Cancel {
    uint64_t tag, word;
  };
  std::vector<Cancel> cancels;  // that its header has no room for yet
  uint64_t watched_tag = 0, watched_started = 0;  // the first task in flight at the last look, since
  int64_t watched_ns = 0;                         // when it is the same: see look_for_stopped
};

// What a worker must offer: resources and language.
struct Shape : task::Shape<TaskKit> {
  uint32_t index = 0;
  int32_t language = 0;
  std::string resources;
  ray_code gone_code = RAY_OK;  // why nothing of this shape can be placed any more
  std::string gone_text;
  bool warned = false;
  bool bound = false;  // of tasks that came back from a stand-in: they run on this node or nowhere
};

struct Actor : task::CallQueue<TaskKit> {
  Runtime* runtime = nullptr;
  ActorId id;
  // The pseudo-object that the directory counts: while a counted handle is there, or a call that keeps the actor. Weak
  // handles have none, and one is taken when a reference is made from them.
  Object* ref = nullptr;
  uint32_t handles = 0, weak = 0;
  uint32_t state = wire::kActorPending;
  uint32_t incarnation = 0;
  ClientLink* link = nullptr;
  std::atomic<uint64_t> next_seq{0};
  uint64_t n_pending = 0;
  uint64_t n_keeping = 0;  // of n_pending: made through a counted handle, or not yet with the actor when they were made
  int32_t max_task_retries = 0;
  uint32_t max_pending = 0;
  bool connected = false, info_known = false, out_of_order = false;
  std::atomic<bool> facts_known{false};  // max_task_retries, max_pending, out_of_order: they do not change from then on
  bool creating = false;  // we create it, and the daemon has not been told how
  bool made_here = false;
  ErrorBox* death = nullptr;
  std::string error_parts;  // of a long one: see wire::kDnActorText
  std::string class_name, metadata;
  std::unique_ptr<Function> call_function;  // stands for its methods in tasks
};

struct Queue;
struct Notification {
  Queue* queue = nullptr;
  ray_done_fn fn = nullptr;
  void* user = nullptr;
  uint64_t tag = 0;
  uint32_t flags = 0;
  void (*free_user)(void*) = nullptr;
  Object* object = nullptr;  // waited for (retained), or else:
  Stream* stream = nullptr;
  Notification() = default;
  Notification(const ray_notify& n, Queue* to)
      : queue(to), fn(n.fn), user(n.user), tag(n.tag), flags(n.flags), free_user(n.free_user) {}
  void over() const {  // `user` is of no more use; no lock held
    if (free_user) free_user(user);
  }
};

struct Stream {
  Runtime* runtime = nullptr;
  PendingTask* task = nullptr;  // while it runs
  TaskId id;
  std::deque<Object*> items;
  Object* completion = nullptr;  // ready at the end; made on demand
  bool watched = false;          // released, and the task goes on for who has that reference: it is theirs alone
  ErrorBox* failure = nullptr;   // how it ended
  uint32_t received = 0, consumed = 0;
  uint32_t from_attempt = 0;  // items that came from this attempt, those that were here already included
  uint32_t window = 64;
  bool ended = false;
  bool released = false;  // nobody has a handle
  bool unused = false;    // nor waits in a call that began with one: it goes with its task
  bool to_end = false;    // RAY_TASK_RUN_TO_END
  bool starved = false;   // there was no memory for an item: nothing comes after it but that error
  bool untold = false;    // there was none for the last item, which is `failure`
  std::vector<uint64_t> waiters;  // in Notifications: each is told once that there is something to take
};

// Completion queue. Its own mutex: filled under the runtime's, emptied without it.
struct Queue {
  Runtime* runtime = nullptr;
  std::mutex mutex;
  std::deque<ray_completion> items;
  Fd event;  // readable while there are items
  Fd wake;   // written by ray_queue_wake, which may run in a signal handler
  bool closed = false;  // nothing comes any more, and `wake` stays written
  void close();
  void wake_pollers();
};

}  // namespace ray
