// What the node daemon is to do: the output of NodeCore::step, in the order in which it is to be done. Plain values, one
// struct for each kind. Nothing answers at once: what fails, or is answered later, comes back as an event (event.h) with the
// key that the action has.
//
// Who carries them out: class Node (node_actions.cc), and the simulator.
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "libray/base/ids.h"
#include "libray/base/log.h"
#include "libray/sched/local_scheduler.h"
#include "libray/wire/protocol.h"
#include "libray/wire/relay_control.h"

namespace ray::node::action {

// ---- datagrams to processes; one that is gone, or is being cut off, gets none
struct Welcome {  // after its hello
  uint32_t process = 0, job = 0;
  JobId id;
  std::string ns;
  TaskId root;
};
struct Grant {
  uint32_t client = 0;
  wire::DnLease lease;
  bool new_link = false;  // make it first; if that fails: event::LinkFailed, and no grant
  std::vector<uint32_t> units;  // of accelerators, as they travel
};
struct Reclaim {
  uint32_t client = 0;
  wire::DnLease lease;
};
struct Infeasible {
  uint32_t client = 0, shape = 0;
  std::string text;
};
struct Unplaceable {
  uint32_t client = 0, shape = 0;
  int32_t code = 0;
  std::string text;
};
struct Exit { uint32_t process = 0; };  // it is told to end
struct PeerDied {
  uint32_t process = 0;  // who is told
  wire::DnPeerDied died;
  std::string why;
};
struct TellObject {
  uint32_t process = 0;
  wire::DnObjState state;
};
struct AskToCancel {
  uint32_t process = 0;  // the owner
  wire::ObjCancel cancel;
};
struct InitActor {
  uint32_t process = 0;  // its worker
  wire::DnActorInit init;
  std::string record;    // its creation record and the units of accelerators that it has
};
struct TellActor {
  uint32_t process = 0;
  wire::DnActorState state;
  bool new_link = false;  // as in Grant
  std::string cause;
};
struct ActorWanted {  // its last handle is gone
  uint32_t process = 0;
  ActorId id;
};
struct Notice {
  uint32_t process = 0;
  std::string text;
};
struct Reply {
  uint32_t process = 0;
  uint64_t req_id = 0;
  int32_t code = 0;
  std::string body;  // RAY_OK: MessagePack; else a text
};
struct CutOff {  // it broke the protocol; event::CutOff follows
  uint32_t process = 0;
  std::string why;
};
struct Buried {  // the end of a process: its index is free; these peers may sleep on a word that it was about to wake
  uint32_t process = 0;
  std::vector<uint32_t> peers;
};

// ---- processes
struct StartWorker {
  uint64_t spawn = 0;
  sched::Pool pool;
};
struct KillSpawn { uint64_t spawn = 0; };  // a signal; event::SpawnEnded follows
struct GiveUp { uint64_t spawn = 0; };     // it is late: bury it if it has ended, else kill it
struct EndZygotes { uint32_t job = 0; };
struct JobEnded { uint32_t job = 0; };     // its row
struct ForgetJob { uint32_t job = 0; };    // nobody is left who could ask for it

// ---- objects in the store
struct FreeObject {
  ObjectId id;
  wire::Location location;
};
struct KeepObject {
  ObjectId id;
  wire::Location location;
};
struct DiscardObject {
  ObjectId id;
  uint32_t holder = 0, attempt = 0;
};
struct ForgetHolder { uint32_t process = 0; };

// ---- the control store
struct ClaimName {
  ActorId id;
  std::string ns, name;
};
struct ReleaseName {
  ActorId id;
  std::string ns, name;
};
// A row that is to be written, or a change of one. Of an actor there is one at a time.
struct ActorRow {
  ActorId id;
  bool change = false;
  const char* state = "";
  uint32_t incarnation = 0, pid = 0, worker = 0;  // change
  int32_t code = 0;
  std::string cause;
  std::string ns, name, klass, metadata;  // no change
  uint64_t function = 0;
  JobId job;
  int32_t language = 0, max_restarts = 0, lifetime = 0;
};
struct WriteRow { std::shared_ptr<const ActorRow> row; };
struct StoreFunction {
  uint64_t key = 0;
  std::string body;
  uint32_t process = 0;  // these come back with the answer
  uint64_t req_id = 0;
};
struct ForgetFunction { uint64_t key = 0; };
struct AskFunction {  // hand the answer on
  uint64_t key = 0;
  uint32_t process = 0;
  uint64_t req_id = 0;
};

// ---- people
struct Report {  // an event or error for the journal
  uint16_t type = 0;
  uint32_t process = 0;
  std::map<std::string, std::string> fields;
};
struct Log {
  LogLevel level = kLogInfo;
  const char* kind = "";
  std::string text;
};

// ---- other nodes
struct AskPlace {
  uint64_t number = 0;
  TaskId id;
  uint32_t attempt = 0;
  sched::Resources resources;
  bool actor = false;
};
struct TellPeer { relay::Peer peer; };  // the relay
struct DescribeJob { uint32_t job = 0; };
struct JobOverElsewhere { JobId id; };
struct OpenStandIn {
  uint64_t spawn = 0;
  uint32_t node = 0;
  JobId job;
  int32_t language = 0;
  sched::Resources resources;
};
struct CloseStandIn {
  uint64_t spawn = 0;
  bool force = false;
};
struct KillRelay {};

}  // namespace ray::node::action

namespace ray::node {

using Action =
    std::variant<action::Welcome, action::Grant, action::Reclaim, action::Infeasible, action::Unplaceable, action::Exit,
                 action::PeerDied, action::TellObject, action::AskToCancel, action::InitActor, action::TellActor,
                 action::ActorWanted, action::Notice, action::Reply, action::CutOff, action::Buried, action::StartWorker,
                 action::KillSpawn, action::GiveUp, action::EndZygotes, action::JobEnded, action::ForgetJob,
                 action::FreeObject, action::KeepObject, action::DiscardObject, action::ForgetHolder, action::ClaimName,
                 action::ReleaseName, action::WriteRow, action::StoreFunction, action::ForgetFunction, action::AskFunction,
                 action::Report, action::Log, action::AskPlace, action::TellPeer, action::DescribeJob,
                 action::JobOverElsewhere, action::OpenStandIn, action::CloseStandIn, action::KillRelay>;
using Actions = std::vector<Action>;

}  // namespace ray::node
