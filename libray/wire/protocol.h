// The node-local protocol: what a process (driver or worker) and its node daemon say to each other,
// and what a client and a worker say to each other over a link. The only place where these layouts
// are defined; both sides include it. All fields are little endian, packed to natural alignment.
//
// Three channels join a process to its daemon:
//   node.sock   SOCK_SEQPACKET in the session directory. Hello up, then only daemon -> process:
//               datagrams of one or more records (RecordHeader + payload, padded to 8), with the
//               descriptors that their kLink records announce, in order. EOF = the other is gone.
//   up ring     process -> daemon, records below; the daemon is woken by its eventfd when armed.
//   lineage     process -> daemon, records of lineage/record.h; drained every 15 ms while there are some.
// One link joins a client and a worker: a memfd with a task ring and a result ring. The daemon
// makes it, hands it to both, and takes no part in its traffic.
//
// Rule for counts (no acknowledgements needed): a record written to an up ring *before* a record is
// published on a link is visible to the daemon before anything that the link's reader does next.
// The daemon therefore frees an object only after one full pass over every up ring that started
// after its count fell to zero.
#pragma once
#include <atomic>
#include <cstdint>

#include "libray/base/ids.h"
#include "libray/base/ring.h"

namespace ray::wire {

inline constexpr uint32_t kProtocolVersion = 4;
inline constexpr uint32_t kMagic = 0x59415231;  // "1RAY"

// ---- names in the session directory
// ---------------------------------------------------------------
inline constexpr char kNodeSocket[] = "node.sock";
inline constexpr char kStoreSocket[] = "store.sock";
inline constexpr char kTokenFile[] = "token";  // 32 hex digits, mode 0600: every link presents it
// Environment of a worker.
inline constexpr char kEnvWorker[] = "LIBRAY_WORKER";    // its spawn number, decimal
inline constexpr char kEnvSession[] = "LIBRAY_SESSION";  // path of the session directory

// ---- limits
// -----------------------------------------------------------------------------------------
inline constexpr uint32_t kMaxProcesses = 4096;  // process indexes on one node
inline constexpr uint64_t kUpRingBytes = 1 << 20;
inline constexpr uint64_t kLineageRingBytes = 8 << 20;
inline constexpr uint64_t kLinkRingBytes = 512 << 10;   // each direction
inline constexpr uint32_t kInlineValueMax = 8 << 10;    // larger values go through the store
inline constexpr uint32_t kInlineRecordMax = 64 << 10;  // all inline arguments of one task
inline constexpr uint32_t kFragmentMax = 48 << 10;      // bytes of a request or reply per record
inline constexpr uint32_t kLinkGpus = 128;  // units of accelerators that a task can be told of
// Resources whose units are told apart. On the wire a unit is its number with the index of its resource here
// in the top byte.
inline constexpr const char* kAccelerators[] = {"GPU", "TPU", "neuron_cores", "NPU", "HPU", "RBLN", "FURIOSA"};
inline constexpr uint32_t kAcceleratorShift = 24;
inline constexpr uint32_t kDatagramMax = 128 << 10;

// ---- hello
// ------------------------------------------------------------------------------------------
inline constexpr uint32_t kHelloMax = 16 << 20;  // Linux gives a new program at most 6 MiB of environment
struct Hello {  // first datagram, process -> daemon; followed by `size` bytes of MessagePack, or, where they do not
  // fit into the datagram, with a memfd that holds them:
  // {"worker_argv": [str], "cwd": str, "env": {str: str}, "job_name": str, "ns": str}; a worker
  // sends {}
  uint32_t magic, version;
  char token[32];
  uint32_t pid;
  int32_t language;  // RAY_LANG_*
  int32_t mode;      // RAY_MODE_*, or kModeTool
  uint32_t size;
  uint64_t spawn;  // workers: the number from kEnvWorker
};
// A tool asks one question, [what, filter], has one answer (a Welcome without descriptors, and its text), and is no process
// of the node.
inline constexpr int32_t kModeTool = 64;
struct Welcome {  // the answer, with descriptors: [0] node page, [1] channel, [2] daemon's eventfd
  uint32_t magic, version;
  int32_t code;      // ray_code; when not RAY_OK the rest is absent and `size` bytes of text follow
  uint32_t process;  // index of this process on the node
  Id node, job;
  TaskId root;  // that what this process makes outside of tasks descends from
  int32_t daemon_pid;
  uint32_t size;  // of text (namespace of the job when code is RAY_OK)
};

// ---- node page and channel
// --------------------------------------------------------------------------- One line per process.
// A sleeper makes `armed` non-zero, fences, looks at its rings again and then waits on the word; whoever
// published and sees it so stores 0 and wakes. Storing 0 is idempotent, so many may do it: the
// one shared word with more than one writer. A waker that dies in between is healed by the daemon,
// which wakes everyone that shared a link with the dead process, and whom it was waking.
struct alignas(64) Doorbell {
  std::atomic<uint32_t> armed;
  std::atomic<uint32_t> urgent;  // the same, for the process's own thread alone
  std::atomic<uint32_t> alive;   // written by the daemon
  std::atomic<uint32_t> place;   // which one of WakePage it has, plus 1
  std::atomic<uint32_t> waking;  // whose mark in WakePage it has taken away without having rung yet
  std::atomic<uint32_t> pad[11];
};
// Who may be awake at once, and who was left asleep though there is work for it (runtime/wake_chain.h).
// Hints: whoever finds one wrong mends it, and what they delay is looked after by who published it.
inline constexpr uint32_t kMaxPlaces = 256;
struct WakePage {
  alignas(64) std::atomic<uint32_t> n_places;  // written by the daemon: processors
  alignas(64) std::atomic<uint64_t> summary;  // a bit for each word of `waiting` that may not be 0
  std::atomic<uint32_t> passed;               // places that were passed on so far
  std::atomic<uint32_t> cursor;               // whom the last one went to
  alignas(64) std::atomic<uint32_t> places[kMaxPlaces];  // who took it last; 0: nobody
  alignas(64) std::atomic<uint64_t> waiting[kMaxProcesses / 64];  // a bit for each process
};
static_assert(kMaxProcesses / 64 == 64);
struct NodePage {
  uint32_t magic, version;
  // The daemon's own sleep state, read by all: 1 = an up record must be followed by an eventfd
  // write.
  alignas(64) std::atomic<uint32_t> daemon_armed;
  // 1 = also a lineage record must be (the journal pump sleeps without a timer).
  alignas(64) std::atomic<uint32_t> lineage_armed;
  WakePage wakes;
  Doorbell bells[kMaxProcesses];
};
// One task that a process runs now: a hint for people, written by the process alone, so that "what runs
// where" is known without a message per task and also of a process that hangs. Odd generation: the rest
// holds; a reader copies it and looks at the generation again.
struct alignas(64) RunningSlot {
  std::atomic<uint32_t> generation;
  uint32_t attempt;
  TaskId task;
  int64_t start_ns;  // wall clock
};
inline constexpr uint32_t kRunningSlots = 32;  // an actor with more calls at once shows this many
// Channel memfd: ChannelHeader, then at kUpOffset the up ring's data, then the lineage ring's.
struct ChannelHeader {
  uint32_t magic, version, process;
  uint32_t pid;  // for tools that look at the memfd
  alignas(64) RingWords up;
  alignas(64) RingWords lineage;
  RunningSlot running[kRunningSlots];
};
inline constexpr uint64_t kUpOffset = 4096;
static_assert(sizeof(ChannelHeader) <= kUpOffset);
struct RunningTask {
  TaskId task;
  uint32_t attempt = 0;
  int64_t start_ns = 0;
};
// What a channel says now; false: nothing in this slot, or it changes at this moment.
inline bool read_running(const ChannelHeader& channel, uint32_t slot, RunningTask* out) {
  const RunningSlot& s = channel.running[slot];
  uint32_t generation = s.generation.load(std::memory_order_acquire);
  if (generation % 2 == 0) return false;
  *out = {s.task, s.attempt, s.start_ns};
  std::atomic_thread_fence(std::memory_order_acquire);
  return s.generation.load(std::memory_order_relaxed) == generation;
}
inline constexpr uint64_t kLineageOffset = kUpOffset + kUpRingBytes;
inline constexpr uint64_t kChannelBytes = kLineageOffset + kLineageRingBytes;

// ---- up records: process -> daemon
// -------------------------------------------------------------------
enum UpType : uint16_t {
  kUpRequest = 1,        // UpRequest + MessagePack (or a fragment of it: flag kMore)
  kUpShape = 2,          // UpShape + MessagePack map of resources
  kUpLeaseWant = 3,      // UpLeaseWant
  kUpLeaseReturn = 4,    // UpLeaseReturn
  kUpBlocked = 5,        // UpBlocked
  kUpObjShare = 6,       // UpObj + ObjectId contained[n]: I own it and count as one holder
  kUpObjReady = 7,       // UpObj + ObjectId contained[n]: its value or error is in the store. State
                         // kObjPending: only a first part of a long list of contained ids
  kUpObjHold = 8,        // UpObjCount: `process` holds `count` more
  kUpObjRelease = 9,     // UpObjCount: I hold `count` less (process = my index)
  kUpObjResolve = 10,    // UpObj (id only): tell me once when it is ready, failed or lost
  kUpActorCreate = 11,   // UpActorCreate + bytes
  kUpActorConnect = 12,  // UpActor: I will call it: send its states and a link when it lives. Flags 1 and an
                         // ActorFacts: I am going to create it, when its constructor's arguments are there
  kUpActorKill = 13,     // UpActor: flags 1 = may restart
  kUpActorReady = 14,  // UpActor from its worker: constructor returned (code) + packed error bytes; from who
                       // was going to create it: it will not
  kUpActorExit = 15,   // UpActor + text from its worker: ends by its own will. Flags 1: nothing runs any
                       // more, what is left has a time limit
  kUpKillWorker = 16,  // UpLeaseReturn: force-cancel: kill this worker, or me
  kUpGoodbye = 17,     // nothing follows; the process leaves in order
  kUpError = 18,       // MessagePack map for the error table and the log
  kUpRetire = 25,      // from a worker: no more tasks for me; I stay until what I submitted is done
  kUpObjCancel = 24,   // ObjCancel: whoever makes this object is to cancel its task
  kUpStopped = 26,     // UpStopped: a worker that I wait for seems to be stopped
  kUpLinkLost = 27,    // UpLinkLost: I could not take or map the link that I was sent, or its tasks are garbage
  kUpObjResult = 28,   // UpObjResult + ObjectId contained[n]: the result that I am about to hand over
                       // contains these. In pieces when there are many
  kUpObjDiscard = 29,  // UpObjDiscard: that result is not wanted
  kUpFunctionDrop = 30,  // UpFunctionDrop: I am done with a function that I have defined `count` times
};
inline constexpr uint16_t kMore = 1;  // flags: further fragments with the same req_id follow

enum Op : uint32_t {  // of requests; arguments and answers are MessagePack arrays
  kOpPing = 0,           // [] -> []
  kOpFunctionDefine = 1, // [key, language, kind, name, definition] -> []
  kOpFunctionGet = 2,    // [key] -> [language, kind, name, definition]
  kOpKvGet = 3,          // [ns, key] -> [version, value]
  kOpKvPut = 4,          // [ns, key, value, expected] -> [version]
  kOpKvDelete = 5,       // [ns, key, expected] -> []
  kOpKvList = 6,         // [ns, prefix] -> [[key...]]
  kOpQuery = 7,          // [what, filter map] -> [rows]
  kOpActorFind = 8,      // [name, ns] -> [actor id]; the asker is made a holder of it
  kOpActorInfo = 9,      // [actor id] -> [name, ns, metadata, state, class, language]
  kOpShutdown = 10,      // [] -> []: the driver that started the node ends it
  kOpGroupCreate = 11,   // [[{resource: amount}...], strategy, lifetime, name, ns] -> [group id]
  kOpGroupWait = 12,     // [group id, wait] -> [] once it is reserved; wait false: RAY_TIMED_OUT at once
  kOpGroupRemove = 13,   // [group id] -> []
  kOpWorkerCommand = 14, // [language, [argument...], code] -> []: of this job's workers; see ray_worker_command
  kOpWorkerCheck = 15,   // [language] -> []: whether this job has a command for such workers
};
enum FunctionKind : uint32_t { kFnNative = 0, kFnOpaque = 1, kFnLibrary = 2, kFnSymbol = 3 };

struct UpRequest {
  uint64_t req_id;
  uint32_t op;
  uint32_t reserved;
};
struct UpShape {  // + MessagePack map of resources, as in ray_task_options
  uint32_t shape;  // index that this process chose for (resources, language)
  int32_t language;
};
// Level, not edge: "I now want `want` leases of this shape in all, those that I hold included".
struct UpLeaseWant {
  uint32_t shape, want;
  TaskId example;  // one of the tasks that wait: named when the shape cannot be satisfied
};
struct UpLeaseReturn {
  uint32_t worker;  // process index
  uint32_t lease;
};
struct UpStopped {
  uint32_t worker;   // process index
  uint32_t started;  // 0: it has begun nothing of what I gave it
};
enum LinkLoss : uint32_t { kLinkNotMapped = 0, kLinkCorrupt = 1 };
struct UpLinkLost {
  uint32_t peer;       // process index of the other end
  uint32_t as_worker;  // as in DnLink
  uint32_t why;        // LinkLoss
  uint32_t reserved;
};
struct UpBlocked {
  uint32_t blocked;  // 1: the running task waits in get, lend its CPU; 0: it goes on
  uint32_t reserved;
};
struct Location {  // of a sealed object in the store (store/client.h)
  uint32_t segment = 0, generation = 0;
  uint64_t offset = 0, size = 0;
};
struct UpObj {
  ObjectId id;
  Location location;  // kUpObjReady, or kUpObjShare with state != kObjPending
  uint32_t state;     // ObjState
  int32_t code;       // kObjError: the ray_code
  uint32_t n_contained;
  uint32_t reserved;
};
struct UpObjResult {
  ObjectId id;
  uint32_t holder;   // process that is to have it: one more hold of it
  uint32_t attempt;  // of the task
  uint32_t n_contained;
  uint32_t reserved;
};
struct UpObjDiscard {
  ObjectId id;
  uint32_t holder, attempt;  // as in UpObjResult; there may have been none
  uint32_t stored;  // 1: its copy in the store goes, too, if there is one: who made it died
  uint32_t reserved;
};
struct ObjCancel {
  ObjectId id;
  uint32_t flags;  // RAY_CANCEL_*
  uint32_t reserved;
};
enum ObjState : uint32_t { kObjPending = 0, kObjReady = 1, kObjError = 2, kObjLost = 3 };
struct UpObjCount {
  ObjectId id;
  uint32_t process, count;
};
struct UpFunctionDrop {
  uint64_t key, count;
};
struct UpActorCreate {  // + name, ns, class name, metadata, resources, creation record, dependency
                        // ids
  ActorId id;
  uint64_t req_id;  // answered by DnReply: RAY_OK, RAY_ALREADY_EXISTS, or the id that exists
  int32_t language, max_restarts, max_task_retries, lifetime;
  uint32_t max_concurrency, flags;
  uint64_t function;     // key of the class
  uint32_t name_size, ns_size, class_size, metadata_size, resources_size, record_size, n_dependencies;
  uint32_t max_pending_calls;
};
struct UpActor {
  ActorId id;
  uint32_t incarnation;
  int32_t code;
  uint32_t flags, size;
};
struct ActorFacts {  // what its callers have to know before its creation is carried out
  int32_t max_restarts, max_task_retries;
  uint32_t flags, max_pending_calls;  // RAY_ACTOR_*
};

// ---- down records: daemon -> process (datagrams)
// --------------------------------------------------------
enum DnType : uint16_t {
  kDnReply = 1,         // DnReply + bytes (flag kMore: fragment)
  kDnLink = 2,          // DnLink, with one descriptor
  kDnLeaseGrant = 3,    // DnLease + the numbers of the GPUs that come with it, uint32_t each
  kDnLeaseReclaim = 4,  // DnLease: give it back once its tasks in flight are done
  kDnInfeasible = 5,    // DnLease (shape) + text
  kDnPeerDied = 6,      // DnPeerDied: the link to it is over; its results up to the tail still count
  kDnObjState = 7,      // DnObjState
  kDnActorState = 8,    // DnActorState + packed error (cause) when dead
  kDnActorInit = 9,     // DnActorInit + creation record + GPUs: to the worker that becomes the actor
  kDnExit = 10,         // finish what runs and what was submitted, then leave
  kDnShutdown = 11,     // the node ends; a text says why, if it is for the program
  kDnActorWanted = 12,  // DnActorState to the actor's worker: id only: last handle is gone, end gracefully
  kDnUnplaceable = 13,  // DnUnplaceable + text: what waits for this shape, and all that follows, fails
  kDnNotice = 14,       // text: something that people should know; drivers log it
  kDnObjCancel = 24,    // ObjCancel: cancel the task of yours that makes it
  kDnActorText = 15,    // ActorId + bytes: the error in the next DnActorState begins so
};
struct DnReply {
  uint64_t req_id;
  int32_t code;  // RAY_OK: MessagePack array follows; else a text
  uint32_t reserved;
};
struct DnLink {
  uint32_t link;       // unique on the node
  uint32_t peer;       // process index
  uint32_t as_worker;  // 1: I am the worker side
  uint32_t peer_pid;
};
struct DnLease {
  uint32_t shape, worker, lease, link;
};
struct DnUnplaceable {
  uint32_t shape;
  int32_t code;  // RAY_GROUP_REMOVED, RAY_UNSCHEDULABLE
};
struct DnPeerDied {  // kDeathNode: + text, which node and why
  uint32_t process;
  uint32_t pid;
  int32_t wait_status;  // as of waitpid; -1 = unknown. Ended for its memory: MiB << 16, because it was
                        // stopped: seconds << 16
  uint32_t cause;       // DeathCause
};
enum DeathCause : uint32_t {
  kDeathCrash = 0,
  kDeathForced = 1,
  kDeathExit = 2,
  kDeathMemory = 3,
  kDeathStopped = 4,  // a signal had stopped it, and somebody waited
  kDeathUnlinked = 5, // it lives, but the link to it is over: nothing went over it
  kDeathNode = 6      // it stood for a worker of another node, which died or cannot be reached
};
struct DnObjState {
  ObjectId id;
  Location location;
  uint32_t state;
  int32_t code;
};
enum ActorState : uint32_t {
  kActorPending = 0,
  kActorAlive = 1,
  kActorRestarting = 2,
  kActorDead = 3
};
struct DnActorState {
  ActorId id;
  uint32_t state, incarnation;
  uint32_t worker, link;  // kActorAlive
  int32_t max_task_retries;
  uint32_t max_concurrency;
  int32_t code;                 // kActorDead: why
  uint32_t size;                // of the packed error or text
  uint32_t flags;               // RAY_ACTOR_*, as at creation
  uint32_t max_pending_calls;
};
struct DnActorInit {
  ActorId id;
  uint32_t incarnation, max_concurrency;
  uint32_t size, n_gpus;
};

// ---- links: client <-> worker
// ------------------------------------------------------------------------
inline constexpr uint32_t kLinkCancelSlots = 64;
struct LinkHeader {
  uint32_t magic, version, client, worker;
  alignas(64) RingWords tasks;    // client -> worker
  alignas(64) RingWords results;  // worker -> client
  // Written by the client.
  alignas(64) std::atomic<uint32_t> give_back;          // bumped: return what you have not started
  std::atomic<uint32_t> cancel_count;                   // number of cancellations so far
  std::atomic<uint32_t> n_gpus;                         // of the lease; changed between leases
  std::atomic<uint64_t> cancels[kLinkCancelSlots];      // the last of them, circular
  alignas(64) std::atomic<uint32_t> gpus[kLinkGpus];  // their numbers
  // Written by the worker.
  alignas(64) std::atomic<uint64_t> started;  // ring position after the last record it started
};
inline constexpr uint64_t kLinkTasksOffset = 4096;
inline constexpr uint64_t kLinkResultsOffset = kLinkTasksOffset + kLinkRingBytes;
inline constexpr uint64_t kLinkBytes = kLinkResultsOffset + kLinkRingBytes;
static_assert(sizeof(LinkHeader) <= kLinkTasksOffset);

// A call that is to be cancelled is named by the position in the task ring where its record ends, which no
// other record of the link ever has. The low bits are flags.
inline constexpr uint64_t kCancelRecursive = 1, kCancelForce = 2, kCancelFlags = 7;

enum LinkTaskType : uint16_t { kLinkTask = 1 };
enum LinkResultType : uint16_t {
  kLinkDone = 1,
  kLinkItem = 2,
  kLinkReturned = 3,
  kLinkPart = 4,  // uint64_t tag + bytes: the packed error of a task begins so; the rest comes with kLinkDone
};
inline constexpr uint32_t kErrorPart = 96 << 10;  // of a packed error, in one record
inline constexpr uint32_t kActorErrorMax = 256 << 10;  // of a constructor: the node keeps it with the actor

struct TaskHeader {  // + name, method, then n_args x (ArgHeader + bytes padded to 8)
  TaskId task, parent;
  uint64_t tag;       // the client's; comes back in results
  uint64_t function;  // key
  ActorId actor;      // kinds 1 and 2
  uint64_t seq;       // actor calls: position in this client's order
  uint32_t kind;      // RAY_KIND_*
  uint32_t attempt;
  uint32_t n_args, n_returns;
  uint32_t stream_ack, stream_window;  // window > 0: a generator. The client goes on writing `ack` while the
                                       // record lies in the ring: how many items were consumed
  uint16_t name_size, method_size;
  uint32_t flags;       // kArgsInStore; language of the client << kCallerShift; group << kGroupShift
  uint64_t submitted;   // order_stamp(): an actor begins its clients' calls in this order. Its worker makes it kNotBegun
                        // while the call, which counts as started, waits for its concurrency group
};
inline constexpr uint64_t kNotBegun = 0;
static_assert(offsetof(TaskHeader, submitted) % 8 == 0);
// The arguments are not in the record: one StoreRef follows, of an object whose plain bytes they
// are.
inline constexpr uint32_t kArgsInStore = 1;
inline constexpr uint32_t kCallerShift = 8;  // eight bits of flags: RAY_LANG_*
inline constexpr uint32_t kGroupShift = 16;  // the upper half of flags: concurrency group
enum ValueWhere : uint16_t {
  kPlain = 0,   // bytes in place, no buffers, no refs
  kPacked = 1,  // packed value in place (wire/packed.h)
  kStore = 2,   // ObjectId + Location in place: a packed value in the store
  kNone = 3,    // result that was not given
};
inline constexpr uint16_t kRegistered = 1;  // a result that contains references: see UpObjResult
struct ArgHeader {
  uint32_t format;
  uint16_t where, flags;  // kRegistered
  uint64_t size;  // of the bytes that follow (kStore: sizeof(StoreRef))
};
struct StoreRef {
  ObjectId id;
  Location location;
};
// Bits of n_results, of an error.
inline constexpr uint32_t kDoneNoRetry = 0x80000000u;  // it is final
inline constexpr uint32_t kDoneDied = 0x40000000u;     // from a stand-in: the worker of another node that ran it died
inline constexpr uint32_t kDoneTold = 0x20000000u;     // its text names task, worker and node already
struct DoneHeader {  // + n_results x (ArgHeader + bytes padded to 8); an error: one packed error
  uint64_t tag;
  int32_t code;
  uint32_t n_results;
  uint64_t run_ns;  // execution time
};
struct ItemHeader {  // + ArgHeader + bytes
  uint64_t tag;
  uint32_t index, reserved;
};
struct ReturnedHeader {
  uint64_t tag;
  uint32_t blocked;  // 1: the worker's task waits in get: push nothing until that is done
  uint32_t bound;    // 1: from a stand-in: it can run on its own node alone
};

}  // namespace ray::wire
