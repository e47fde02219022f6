// ActorClients: the actors that this process has handles of, or calls under way to: their entries, what is known of them, who
// holds them, and when an entry goes. The daemon runs the life cycle (actor/manager.h); calls are the submitter's
// (actor_calls.cc), and go over a link straight to the worker.
//
// Who: Runtime. Threads: any; the caller holds Runtime's mutex.
//
// Invariants: (1) an actor has one entry; (2) it has `ref`, which the directory counts, while there is a counted handle or a
// call that keeps the actor, and may have it beyond that until the next look; (3) an entry goes when it has neither handles
// nor calls and is not being created, maybe_done(): whoever ends calls counts one more until it has done; (4) what the creator
// has said of an actor (its facts) does not change once it is known.
#pragma once
#include <memory>
#include <string>
#include <unordered_map>

#include "libray/runtime/daemon_channel.h"
#include "libray/runtime/objects.h"
#include "libray/runtime/types.h"

namespace ray {

class ActorClients {
 public:
  using Table = std::unordered_map<ActorId, std::unique_ptr<Actor>>;
  ActorClients(Runtime* runtime, DaemonChannel& daemon, Objects& objects)
      : runtime_(runtime), daemon_(daemon), objects_(objects) {}
  void set_language(int32_t language) { language_ = language; }  // of an actor made elsewhere: most likely ours

  Actor* find(const ActorId& id) const {
    auto it = table_.find(id);
    return it == table_.end() ? nullptr : it->second.get();
  }
  const Table& all() const { return table_; }
  // No actor that was made here lives by a handle from here: others may call it by its name. Handles that came from elsewhere
  // do not count, or workers that keep one would become ever more.
  bool none_lives_by_us() const;

  // ---- entries and handles
  Actor* made_here(Object* ref, const Function* klass, const ray_actor_options& o, const std::string& metadata);
  Actor* counted(Object* o);        // one more counted handle, from a reference
  Actor* weak(const ActorId& id);   // one more weak handle
  Actor* adopt(const ActorId& id);  // the same of one that the daemon made us a holder of
  Status reference(Actor* a, Object** out);
  void release(Actor* a, bool weak);

  // ---- calls
  // One through a weak handle that has yet to reach the actor: it is to find it. One that stands in the actor's ring needs no
  // hold, for an actor finishes what is there before it ends.
  void keep_for_call(PendingTask* t);
  // The entry, when nobody needs it any more; after the last counted handle and the last call that keeps the actor our
  // reference goes.
  void maybe_done(Actor* a);

  // ---- what the daemon is told and tells
  void connect(Actor* a);
  // Its constructor's arguments are missing, or another thread is to carry out the creation: who gets a handle meanwhile is
  // to know that it will be and how it is called, and it can be killed.
  void announce(const PendingTask* t);
  void tell_creation(const PendingTask* t, const std::vector<ObjectId>& deps);
  void tell_failed(const Actor* a, const ErrorBox* e);
  // A piece of a long error: wire::kDnActorText.
  void add_text(const ActorId& id, std::string_view text);
  // What its creator has said of it. Calls that were made before go by it too.
  void take_facts(Actor* a, const wire::DnActorState& s);

  std::string check() const;  // what is wrong, empty: nothing

 private:
  Actor* entry(const ActorId& id);

  Runtime* const runtime_;
  DaemonChannel& daemon_;
  Objects& objects_;
  int32_t language_ = RAY_LANG_NATIVE;
  Table table_;
};

}  // namespace ray
