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

namespace ray {

struct Shape;
struct ClientLink;
struct Lease;
struct Actor;
struct Stream;

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

enum class TaskState : uint8_t { kFree, kWaiting, kQueued, kPushed, kLost };

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
  uint64_t tag = 0, uses = 0;
  Object* result(uint32_t i) const { return i == 0 ? return0 : more_returns[i - 1]; }
};
inline constexpr uint32_t kTaskIndexBits = 26;
Slab<PendingTask>& task_slab();
static_assert(Slab<PendingTask>::kChunk * Slab<PendingTask>::kChunks == uint64_t{1} << kTaskIndexBits);
inline uint32_t task_index(uint64_t tag) { return tag & ((1u << kTaskIndexBits) - 1); }
inline constexpr uint64_t kNoTag = 0;  // of an entry that is free

std::string task_name(const PendingTask* t);  // for people: "f", "Counter.add"

// Intrusive list of tasks, in order.
struct TaskList {
  PendingTask *head = nullptr, *tail = nullptr;
  size_t size = 0;
  bool empty() const { return !head; }
  void push_back(PendingTask* t) {
    t->prev = tail;
    t->next = nullptr;
    (tail ? tail->next : head) = t;
    tail = t;
    ++size;
  }
  void push_front(PendingTask* t) {
    t->next = head;
    t->prev = nullptr;
    (head ? head->prev : tail) = t;
    head = t;
    ++size;
  }
  void insert_before(PendingTask* at, PendingTask* t) {  // null: at the end
    if (!at) return push_back(t);
    if (at == head) return push_front(t);
    t->prev = at->prev;
    t->next = at;
    at->prev->next = t;
    at->prev = t;
    ++size;
  }
  void remove(PendingTask* t) {
    (t->prev ? t->prev->next : head) = t->next;
    (t->next ? t->next->prev : tail) = t->prev;
    t->prev = t->next = nullptr;
    --size;
  }
};

// Our side of a link to a worker.
struct ClientLink {
  uint32_t id = 0, peer = 0, peer_pid = 0;
  Mapping map;
  wire::LinkHeader* header = nullptr;
  RingProducer tasks;
  RingConsumer results;
  TaskList inflight;
  bool dead = false, busy = false, give_back_asked = false;
  Lease* lease = nullptr;
  Actor* actor = nullptr;
  struct Cancel {
    uint64_t tag, word;
  };
  std::vector<Cancel> cancels;  // that its header has no room for yet
  int64_t last_result_ns = 0;
  uint64_t watched_tag = 0, watched_started = 0;  // the first task in flight at the last look, since
  int64_t watched_ns = 0;                         // when it is the same: see look_for_stopped
};

struct Lease {
  uint32_t lease = 0;
  ClientLink* link = nullptr;
  Shape* shape = nullptr;
  int64_t est_ns = 0;      // of what is in flight
  int64_t idle_since = 0;  // 0 = busy
  bool reclaim = false;    // the daemon wants it back
  bool blocked = false;    // its task waits in get: nothing more until that is done
  bool slow = false;       // no result came for long: nothing more until one does
};

// What a worker must offer: resources and language.
struct Shape {
  uint32_t index = 0;
  int32_t language = 0;
  std::string resources;
  TaskList backlog;
  PendingTask* returned = nullptr;  // the last that came back, while its tag is this one and it stands in the backlog
  uint64_t returned_tag = 0;
  std::vector<std::unique_ptr<Lease>> leases;
  uint64_t pending = 0;  // backlog + in flight + parked
  uint64_t parked = 0;   // that wait for arguments: no lease is of use to them yet
  bool active = false;   // in the runtime's list of shapes that tick() looks at
  int64_t est_ns = 0;    // of all pending
  uint32_t want_sent = 0;
  ray_code gone_code = RAY_OK;  // why nothing of this shape can be placed any more
  std::string gone;
  bool warned = false;
  bool bound = false;  // of tasks that came back from a stand-in: they run on this node or nowhere
};

struct Actor {
  Runtime* runtime = nullptr;
  ActorId id;
  // The pseudo-object that the directory counts: while a counted handle is there, or a call that keeps the actor. Weak
  // handles have none, and one is taken when a reference is made from them.
  Object* ref = nullptr;
  uint32_t handles = 0, weak = 0;
  uint32_t state = wire::kActorPending;
  uint32_t incarnation = 0;
  ClientLink* link = nullptr;
  TaskList queue;                  // calls that wait for the actor, or for room
  TaskList aside;                  // out of order: calls that wait for arguments, and stop nobody
  std::vector<PendingTask*> lost;  // in flight when it died; the next state decides
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
