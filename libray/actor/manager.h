// Life cycle of the node's actors. A pure state machine: events in, actions out. Driven by the node
// daemon's main thread and by tests.
//
//   [announce ->] create -> [claim name] -> kPending: wait for worker -> constructing -> kAlive -> kDead
//                                ^                                            |
//                                +---- kRestarting (incarnation + 1) <--------+  while restarts are left
//
// Invariants: an actor has at most one worker; an incarnation is never used twice; whatever is said to a
// process about an actor has the incarnation it is about; after kDead nothing changes any more. The
// creation record and the holds on its dependencies are kept exactly as long as a start is possible.
#pragma once
#include <cstdint>
#include <deque>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "libray/base/ids.h"
#include "libray/wire/protocol.h"
#include "ray.h"

namespace ray::actor {

inline constexpr uint32_t kNoProcess = 0xFFFFFFFFu;
// Bits of UpActorCreate.flags: RAY_ACTOR_*.

struct Spec {
  ActorId id;
  uint32_t creator = 0;  // process
  uint32_t job = 0;
  uint64_t req_id = 0;   // 0: no answer is wanted
  int32_t language = 0, max_restarts = 0, max_task_retries = 0, lifetime = 0;
  uint32_t max_concurrency = 1, flags = 0, max_pending_calls = 0;
  uint64_t function = 0;
  std::string name, ns, klass, metadata, resources, record;
  std::vector<ObjectId> dependencies;
};

struct Action {
  enum Kind {
    kReply,         // process, req_id, code, id (RAY_OK: the actor to use), text; other: id is not the one that
                    // was to be created, and is to be held for the process
    kClaimName,     // id: name and ns are in the spec; answer with name_claimed()
    kReleaseName,   // id
    kWantWorker,    // id: resources, language and job are in the spec
    kCancelWorker,  // id: wait no more
    kInit,          // process = worker, id, incarnation: send the creation record
    kTell,          // process: send state_of(id)
    kKill,          // process = worker
    kWanted,        // process = worker: the last handle is gone
    kHold,          // id: hold the dependencies
    kDrop,          // id: release them
    kChanged,       // id: journal the new state
  } kind;
  ActorId id;
  uint32_t process = 0;
  uint64_t req_id = 0;
  uint32_t incarnation = 0;
  int32_t code = 0;
  bool other = false;
  std::string text;
};
using Actions = std::vector<Action>;

struct Actor {
  Spec spec;
  uint32_t state = wire::kActorPending;
  uint32_t incarnation = 0;
  uint32_t worker = kNoProcess;  // has it from assignment to death
  bool announced = false;        // its creator is about to create it: of the spec there are the facts alone
  bool given_up = false;         // so it died: its creator did, or an argument failed
  bool naming = false;           // the name is being claimed
  bool named = false;
  bool waiting = false;          // for a worker
  bool ending = false;           // it said that it ends, or was told to
  std::string why;               // ending: what it said
  bool kill_for_good = false;
  bool unreferenced = false;
  int32_t restarts = 0;
  int32_t code = 0;              // kActorDead: why
  std::string cause;             // packed error (code RAY_TASK_FAILED) or text
  std::set<uint32_t> subscribers;
};

class Manager {
 public:
  // `creator` is going to create it: others may hold it, connect to it and kill it already.
  void announce(const ActorId& id, uint32_t creator, uint32_t job, const wire::ActorFacts& facts = {});
  // Idempotent by id: a second create of a known actor answers with its id.
  void create(Spec spec, Actions* out);
  // `winner`: the id that has the name now; this actor's own when it won. code != RAY_OK: the control
  // store could not answer.
  void name_claimed(const ActorId& id, int32_t code, const ActorId& winner, const std::string& text,
                    Actions* out);
  void worker_assigned(const ActorId& id, uint32_t worker, Actions* out);
  void constructed(uint32_t worker, const ActorId& id, uint32_t incarnation, int32_t code,
                   const std::string& error, Actions* out);
  void exiting(uint32_t worker, const ActorId& id, const std::string& why, Actions* out);
  void kill(const ActorId& id, bool may_restart, Actions* out);
  // It cannot be placed any more: dies with this code and text, its worker (if any) is killed.
  void fail(const ActorId& id, int32_t code, const std::string& text, Actions* out);
  void connect(const ActorId& id, uint32_t process, Actions* out);
  void unreferenced(const ActorId& id, Actions* out);
  // A process is gone: its subscriptions end; if it was an actor's worker, the actor restarts or dies.
  void process_died(uint32_t process, const std::string& how, Actions* out);
  // Actors of the job that are not detached die, but those that were created by one of these processes.
  void job_ended(uint32_t job, const std::set<uint32_t>& spared, Actions* out);

  const Actor* find(const ActorId& id) const;
  // A named actor that can be found: not dead, and not on its way there.
  const Actor* find(const std::string& name, const std::string& ns) const;
  const Actor* of_worker(uint32_t worker) const;
  const std::map<ActorId, Actor>& all() const { return actors_; }
  // Whether a detached actor of this job is not dead.
  bool keeps_job(uint32_t job) const;
  std::string check() const;

 private:
  void start(Actor* a, Actions* out);
  void change(Actor* a, uint32_t state, Actions* out);
  void give_up_name(Actor* a, Actions* out);
  void die(Actor* a, int32_t code, const std::string& cause, Actions* out);
  bool may_restart(const Actor& a) const;
  void forget_old_dead();
  void end(const Actor& a);
  void forget_given_up(const ActorId& id);
  void erase(const ActorId& id);

  std::map<ActorId, Actor> actors_;
  std::map<uint32_t, ActorId> by_worker_;
  std::map<std::pair<std::string, std::string>, ActorId> by_name_;  // (ns, name)
  // What a death looks at, so that it does not look at everybody.
  std::map<uint32_t, std::set<ActorId>> by_subscriber_;  // process
  std::map<uint32_t, std::set<ActorId>> living_;         // job -> its actors that are not dead
  std::map<uint32_t, uint32_t> detached_;                // job -> how many of these are detached
  std::set<ActorId> naming_;
  std::set<ActorId> announced_;  // may hold some that died since
  std::deque<ActorId> dead_;  // oldest first; bounded in number and bytes
  size_t dead_bytes_ = 0;
};

}  // namespace ray::actor
