// What the node daemon learnt: the input of NodeCore::step. Plain values, one struct for each kind; what lies in a record or
// an answer already is named by a view or pointer that is valid during the step.
//
// Who makes them: class Node (libray/node), from records, sockets, signals and answers; the simulator (libray/sim); the
// fuzzer. Nothing in them is trusted but what the daemon knows itself: indexes of processes that wrote, pids, statuses.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "libray/actor/manager.h"
#include "libray/base/ids.h"
#include "libray/wire/protocol.h"
#include "libray/wire/relay_control.h"

namespace ray::node::event {

// ---- processes: `process` is the index of the one that it is about
struct DriverCame {
  uint32_t process = 0;
  int pid = 0;
  int32_t language = 0;
  JobId id;             // of its job
  std::string ns;       // empty: one that is made from the id
  bool gateway = false; // it is the relay, and its program is on another node
  uint32_t prestart = 0;
};
struct WorkerCame {
  uint32_t process = 0;
  int pid = 0;
  uint64_t spawn = 0;  // see NodeCore::may_join
};
struct Goodbye { uint32_t process = 0; };       // it said that it ends
struct SocketClosed { uint32_t process = 0; };  // of a worker: what it wrote has been read, its process ends
struct CutOff {                                 // it broke the protocol, or does not read: nothing more is sent to it
  uint32_t process = 0;
  std::string why;
};
struct DriverDied {
  uint32_t process = 0;
  int32_t wait_status = -1;
  uint32_t cause = wire::kDeathCrash;
};
struct KillWorker {
  uint32_t process = 0, cause = wire::kDeathForced;
  uint32_t memory_mb = 0;  // that it held when it was ended for it
};

// ---- workers that were started (action::StartWorker), by the number of the start
struct SpawnFailed {  // there is no process
  uint64_t spawn = 0;
  std::string why;
};
struct SpawnExited { uint64_t spawn = 0; };  // its process has ended; how, somebody else will say
struct SpawnEnded {  // it has, and nothing more will be heard of it
  uint64_t spawn = 0;
  int pid = -1;
  bool reaped = false;  // wait_status is known
  int wait_status = -1;
  bool out_of_memory = false;     // the kernel has killed processes for that since the last death
  std::string said, log;          // the last line of its error output, and where that lies; may be empty
};
struct ZygoteBegan { uint32_t job = 0; };
struct ZygoteGone { uint32_t job = 0; };

// ---- records of a process
struct Shape {
  uint32_t process = 0, shape = 0;
  int32_t language = 0;
  std::string_view needs;  // MessagePack, as in ray_task_options::resources_msgpack
};
struct Want {
  uint32_t process = 0, shape = 0, want = 0;
  TaskId example;
};
struct Return { uint32_t process = 0, worker = 0, lease = 0; };
struct Blocked {
  uint32_t process = 0;
  bool blocked = false;
};
struct Retire { uint32_t process = 0; };
struct KillAsked { uint32_t process = 0, worker = 0, lease = 0; };
struct StoppedWorker {  // it waits for a worker, which a signal has stopped indeed
  uint32_t process = 0, worker = 0, started = 0;
};
struct LinkLost { uint32_t process = 0, peer = 0, as_worker = 0, why = 0; };
struct Share {
  uint32_t process = 0;
  const wire::UpObj& object;
  const ObjectId* contained = nullptr;
};
struct Ready {
  uint32_t process = 0;
  const wire::UpObj& object;
  const ObjectId* contained = nullptr;
};
struct Registered {  // what the result of an attempt contains
  const wire::UpObjResult& result;
  const ObjectId* contained = nullptr;
};
struct Discarded { const wire::UpObjDiscard& result; };
struct Hold { const wire::UpObjCount& count; };
struct Release {
  uint32_t process = 0;
  const wire::UpObjCount& count;
};
struct Resolve {
  uint32_t process = 0;
  ObjectId id;
};
struct CancelTask { const wire::ObjCancel& cancel; };
struct FunctionDrop {
  uint32_t process = 0;
  uint64_t key = 0, count = 0;
};
struct ActorCreate { actor::Spec spec; };  // creator: the process that wrote it; ns may be empty
struct ActorConnect {
  uint32_t process = 0;
  ActorId id;
  const wire::ActorFacts* facts = nullptr;  // it is going to create it
};
struct ActorKill {
  ActorId id;
  bool may_restart = false;
};
struct ActorReady {  // it was constructed, or could not be
  uint32_t process = 0;
  ActorId id;
  uint32_t incarnation = 0;
  int32_t code = 0;
  std::string error;
};
struct ActorExit {
  uint32_t process = 0;
  ActorId id;
  std::string why;
  bool leaves = false;  // its process ends by itself
};

// ---- requests: answered by action::Reply with the same number
struct Ping {
  uint32_t process = 0;
  uint64_t req_id = 0;
};
struct FunctionDefine {
  uint32_t process = 0;
  uint64_t req_id = 0, key = 0;
  std::string value;  // [language, kind, name, definition]
  std::string body;   // of the request: what the control store is asked to keep
};
struct FunctionGet {
  uint32_t process = 0;
  uint64_t req_id = 0, key = 0;
};
struct ActorFind {
  uint32_t process = 0;
  uint64_t req_id = 0;
  std::string name, ns;  // ns empty: that of its job
};
struct ActorInfo {
  uint32_t process = 0;
  uint64_t req_id = 0;
  ActorId id;
};
struct GroupCreate {
  uint32_t process = 0;
  uint64_t req_id = 0;
  Id id;                // it will have
  std::string bundles;  // MessagePack: an array of maps
  int32_t strategy = 0, lifetime = 0;
  std::string name, ns;
};
struct GroupWait {
  uint32_t process = 0;
  uint64_t req_id = 0;
  Id id;
  bool wait = false;
};
struct GroupRemove {
  uint32_t process = 0;
  uint64_t req_id = 0;
  Id id;
};

// ---- answers of the control store, by the key of the action that asked
struct NameClaimed {
  ActorId id;
  int32_t code = 0;  // RAY_OK: `winner` has the name
  ActorId winner;
  std::string text;
};
struct NameReleased { std::string ns, name; };
struct RowWritten { ActorId id; };
struct FunctionStored {
  uint64_t key = 0;
  uint32_t process = 0;  // who waits for the answer: kNone nobody
  uint64_t req_id = 0;
  int32_t code = 0;
  std::string answer;  // or why not
};
struct FunctionForgotten { uint64_t key = 0; };

// ---- the loop
struct PassBegins {};  // a pass over all up rings, for the directory's rule
struct PassEnds {};    // all that was in any ring when it began has been read
struct RingsTurn {};   // all rings are going to be read to their tails,
struct RingsRead {};   // and have been
struct Timer {};
struct Decide {};      // the scheduler's round
struct StoppedClients { std::vector<uint32_t> stopped; };  // of those that NodeCore::suspects named
struct LinkFailed {  // action::Grant or action::TellActor could make none
  uint32_t client = 0, worker = 0, lease = 0;  // lease 0: of an actor
  std::string why;
};
struct Shortage {  // of what the system gives
  std::string kind, text;
  bool anew = false;  // there was none since it was said last
};
struct TryAgain {};  // what could not be done for that is tried again in a moment
struct Ending {};    // the node ends

// ---- other nodes
struct NodeRow { relay::Peer peer; };  // new or changed
struct RelayBegan { uint32_t incarnation = 0; };
struct RelayEnded { std::string how; };
struct RelayFailed {  // the relay's word on a stand-in
  uint64_t spawn = 0;
  std::string why;
};
struct StandInClosed { uint32_t process = 0; };  // its socket; what it wrote, and what the relay said, has been read
struct Placed {  // the head's answer to action::AskPlace
  uint64_t number = 0;
  uint32_t node = UINT32_MAX, epoch = 0;
  int64_t again_ns = 0;
  bool infeasible = false;
  std::string text;
};
struct Spill {};  // it is time to look at what waits
struct CommandChanged { uint32_t job = 0; };  // other nodes may have been told another

}  // namespace ray::node::event
