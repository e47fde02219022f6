// The node's directory of shared objects: who holds them, what they contain, where their value is,
// when they may be freed. A pure state machine, driven by the node daemon's main thread and by
// tests.
//
// A holder is a process, by index, or the daemon itself (kDaemonHolder). Counts come from different
// rings in no particular order, so a count may be negative for a while and a hold may come before
// the object was shared: both make a placeholder. An object is alive while any process's count is
// not zero or a living object contains it. When that ends it becomes a candidate; only a complete
// pass over all up rings that began later, and found no newer hold, frees it (wire/protocol.h,
// "Rule for counts"). Actor ids are pseudo-objects without a value: at the end of their count the
// actor is unreferenced.
//
// Results. Whoever runs a task registers what a result contains, in the name of the process that is to
// have the result, before that process hears of it. The registration counts as one hold of that process and
// contains the references for as long as the object lives, whether the result travels in a ring or lies in
// the store. `attempt` names one making of it, that is an attempt of one call (making_of() of the runtime): a process
// makes the call of an id twice when a parent that runs again comes back to it. An attempt whose result is not
// wanted is discarded, with its hold; who cannot know whether there was one discards all the same.
//
// An id that is made again, by a task or by a parent that runs again, has a new owner, and the owner's last
// value counts for whoever asks from then on. Values that were told before stay until the entry goes.
#pragma once
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "libray/base/ids.h"
#include "libray/wire/protocol.h"
#include "ray.h"

namespace ray::object {

using wire::Location;

inline constexpr uint32_t kDaemonHolder = 0xFFFFFFFFu;
inline constexpr uint32_t kNobody = 0xFFFFFFFEu;

struct Action {
  enum Kind {
    kFree,               // id, location (size 0: it has no value in the store)
    kTell,               // process, id, state, code, location
    kActorUnreferenced,  // id
    kCancel,             // process (the owner), id, flags
    kKeep,               // id, location: this copy in the store is the directory's from now on
  } kind;
  ObjectId id;
  Location location;
  uint32_t process = 0;
  uint32_t state = wire::kObjPending;
  int32_t code = 0;
  uint32_t flags = 0;
};
using Actions = std::vector<Action>;

class Directory {
 public:
  // `owner` made the object and counts as one holder of it, each time: a process may have two entries of
  // one id (but for an actor, that its creator shares twice). state != kObjPending: as ready() at the same
  // time. state kObjPending with contained ids: a first part of a long list.
  void share(uint32_t owner, const ObjectId& id, uint32_t state, int32_t code,
             const Location& location, const ObjectId* contained, size_t n_contained, Actions* out);
  void ready(const ObjectId& id, uint32_t state, int32_t code, const Location& location,
             const ObjectId* contained, size_t n_contained, Actions* out, uint32_t from = kNobody);
  // What this attempt's result contains; `holder` is to have it. May come in parts. A holder that is not
  // alive any more may have passed it on before: then it contains, but nobody counts.
  void result(const ObjectId& id, uint32_t holder, bool alive, uint32_t attempt, const ObjectId* contained,
              size_t n_contained);
  // `holder` does not have it, or not any more. Takes effect after a whole pass: the result itself may still
  // lie in a ring that was not read yet.
  void discard(const ObjectId& id, uint32_t holder, uint32_t attempt) {
    discards_fresh_.push_back({id, holder, attempt});
  }
  void hold(const ObjectId& id, uint32_t process, int64_t count);
  void release(const ObjectId& id, uint32_t process, int64_t count) { hold(id, process, -count); }
  // Tells `process` once: now, or when the object is ready, failed or lost.
  void resolve(const ObjectId& id, uint32_t process, Actions* out);
  // Whether resolve() has an answer at once.
  bool settled(const ObjectId& id) const {
    auto it = entries_.find(id);
    return it != entries_.end() && it->second.state != wire::kObjPending;
  }
  // Asks the owner of a pending object to cancel its task: now, or when the owner is known.
  void cancel(const ObjectId& id, uint32_t flags, Actions* out);
  // Its counts end; what it owned and had not finished is lost.
  void process_died(uint32_t process, Actions* out);

  // A pass over all up rings begins; the same pass read every ring to its tail.
  void begin_pass();
  void end_pass(Actions* out);
  // Something waits for a complete pass: make one soon.
  bool wants_pass() const {
    return !fresh_.empty() || !pass_.empty() || !discards_fresh_.empty() || !discards_pass_.empty();
  }

  size_t size() const { return entries_.size(); }
  bool contains(const ObjectId& id) const { return entries_.count(id) > 0; }
  int64_t holders(const ObjectId& id) const;  // sum of counts and containers
  // Which invariant is broken; empty: none. Looks at everything.
  std::string check() const;
  // A line for each entry, for people: what it is, who holds it, what contains it.
  std::vector<std::string> describe(size_t most) const;
  // From now on passes also watch for counts that stay below zero: check() names them.
  void watch_counts() { watch_counts_ = true; }

 private:
  struct Value {
    Location location;
    uint32_t state = wire::kObjPending;
    int32_t code = 0;
  };
  struct Result {
    uint32_t holder, attempt;
    bool counted;  // the holder's count has it
    std::vector<ObjectId> contained;
  };
  struct Discard {
    ObjectId id;
    uint32_t holder, attempt;
  };
  struct Entry : Value {
    uint32_t owner = kNobody;
    bool shared = false;        // false: a placeholder
    bool owner_counts = false;  // the owner's own hold was added
    bool candidate = false;     // in fresh_ or pass_
    bool cancelled = false;     // somebody wants it cancelled, with these flags
    uint8_t cancel_flags = 0;
    uint32_t containers = 0;
    uint64_t idle_pass = 0;  // the last pass that had begun when a holder or container went
    std::map<uint32_t, int64_t> counts;  // no zeros
    std::vector<ObjectId> contained;
    std::vector<uint32_t> waiters;
    std::vector<Result> results;  // mostly one
    std::vector<Value> older;     // values of earlier owners
  };

  Entry& entry(const ObjectId& id) { return entries_[id]; }
  void add_count(const ObjectId& id, Entry* e, uint32_t process, int64_t count);
  void set_value(const ObjectId& id, Entry* e, uint32_t state, int32_t code,
                 const Location& location, const ObjectId* contained, size_t n, uint32_t from,
                 Actions* out);
  void contain(std::vector<ObjectId>* list, const ObjectId* ids, size_t n);
  void let_go(const std::vector<ObjectId>& ids);
  void apply(const Discard& d);
  void lose(const ObjectId& id, Entry* e, Actions* out);
  void erase(const ObjectId& id, Entry* e, Actions* out);
  void consider(const ObjectId& id, Entry* e);
  void tell_waiters(const ObjectId& id, Entry* e, Actions* out);
  void note(uint32_t process, const ObjectId& id) { touched_[process].insert(id); }
  static bool unused(const Entry& e) { return e.counts.empty() && e.containers == 0; }
  static void tell_owner(const ObjectId& id, Entry* e, Actions* out);
  static Action told(const ObjectId& id, const Entry& e, uint32_t process);

  std::unordered_map<ObjectId, Entry> entries_;
  // Objects that name a process (holder, owner or waiter): a death costs what it touched. May hold
  // more than is still true; it is checked against the entry.
  std::map<uint32_t, std::set<ObjectId>> touched_;
  std::vector<ObjectId> fresh_;  // candidates that no pass has begun for
  std::vector<ObjectId> pass_;   // candidates of the running pass
  std::vector<Discard> discards_fresh_, discards_pass_;
  bool watch_counts_ = false;
  uint64_t passes_ = 0;                   // that were begun
  std::map<ObjectId, uint64_t> below_;    // since which pass some count is below zero
  std::string broken_;
};

}  // namespace ray::object
