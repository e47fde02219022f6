// Who holds an object, over all nodes: when it is freed, and that it is freed then. Pure: events in, actions out; driven
// by tests/transfer, by no daemon yet. Inside a node the directory (libray/object) counts; here a node is one holder.
//
// *Levels.* A node tells an object's home at which level it is: whether it holds the object, whether it stores a copy. A
// level has a version, of a counter of the node; the home takes a level that is newer than what it has, so what comes
// twice, late or in another order changes nothing. The node repeats a level until the home has acknowledged it, and says
// below which version nothing is outstanding (`floor`), so that the home can forget who is at no level.
//
// *In transit.* Who sends a reference goes on holding it until the receiver's level has been acknowledged by the home
// and the receiver has said so.
//
// *Deaths.* A node that sees a death fences the dead: nothing that comes from it later counts. Once everything that it
// told homes until then has been acknowledged, it tells all others that it is through with that view: its *barrier*. A
// home lets go of a dead node's holds, and a sender of what it sent to a dead node, only when all who live are through
// with the last death: until then what the dead sent may be on its way to be registered. When more die meanwhile, that
// waits for the later barrier, too.
//
// *Homes that die.* Holders and storers tell the next home (members.h) as part of the same view, before their barrier;
// the next home frees nothing of what it inherited before all barriers are there.
//
// Invariants: an object that is held by a living node, or in a message that a living node may still accept, is not
// freed; one that is neither is freed, and its copies are dropped, once the barriers of all deaths are through.
#pragma once
#include <map>
#include <set>
#include <vector>

#include "libray/transfer/members.h"
#include "libray/transfer/messages.h"

namespace ray::transfer {

inline constexpr uint8_t kHeld = 1, kStored = 2;

struct LedgerOptions {
  int64_t retry_ns = 500'000'000;  // what was not acknowledged is said again
};

struct LedgerAction {
  enum Kind {
    kSend,   // place, message
    kFreed,  // id: nobody holds it; said by its home, once for each time that this comes about
    kDrop,   // id: the copy that this node stores goes
  } kind;
  ObjectId id;
  Place place;
  LedgerMessage message;
};
using LedgerActions = std::vector<LedgerAction>;

class Ledger {
 public:
  explicit Ledger(Place self, const LedgerOptions& options = {}) : self_(self), options_(options) {}

  // ---- the control store: views in their order, this node's own joining among them
  bool joined(uint64_t view, Place place, int64_t now, LedgerActions* out);
  bool died(uint64_t view, Place place, int64_t now, LedgerActions* out);
  const Members& members() const { return members_; }

  // ---- this node's directory. `origin`: the first home, which travels with the reference.
  void hold(const ObjectId& id, Place origin, int64_t now, LedgerActions* out);
  void release(const ObjectId& id, int64_t now, LedgerActions* out);
  void stored(const ObjectId& id, Place origin, int64_t now, LedgerActions* out);
  void unstored(const ObjectId& id, int64_t now, LedgerActions* out);
  // A reference is about to be sent: the number goes with it. Only for what is held, to one who is alive.
  uint64_t sends(const ObjectId& id, Place to);
  void unsent(uint64_t transit, int64_t now, LedgerActions* out);  // it will not be
  // A reference has come, and hold() was called for it just before. To be asked first: accepts().
  bool accepts(Place from) const { return members_.alive(from); }
  void received(Place from, uint64_t transit, const ObjectId& id, int64_t now, LedgerActions* out);

  // ---- other ledgers
  void message(Place from, const LedgerMessage& m, int64_t now, LedgerActions* out);
  void tick(int64_t now, LedgerActions* out);
  int64_t deadline() const { return retry_at_; }
  void reconnected(Place place, int64_t now, LedgerActions* out);  // what was said to it may be lost

  bool quiet() const;  // all who live are through with the last death
  size_t homed() const { return entries_.size(); }
  size_t levels() const { return mine_.size(); }
  size_t transits() const { return transits_.size(); }
  size_t remembered() const;  // levels that are zero and not forgotten yet
  bool held(const ObjectId& id) const;  // as its home

 private:
  // ---- as a holder
  struct Mine {
    Place origin, home;
    uint8_t bits = 0;          // told, or to be told
    bool held = false, stored = false;
    uint32_t transits = 0;
    uint64_t version = 0;
    uint64_t first = 0;        // oldest version that is not acknowledged; 0: all are
    std::vector<std::pair<Place, uint64_t>> arrivals;  // that wait for that
  };
  struct Transit {
    ObjectId id;
    Place to;
  };
  struct Arrival {  // its sender is to be told once `version` is acknowledged, and says that it was
    uint64_t version;
    bool due;
  };
  struct Peer {  // a node that lives, this one too
    uint64_t barrier = 0;                // it is through with that view
    uint64_t acknowledged = 0;           // it knows that this node is through with that view
    uint64_t told_floor = 0;             // of this node
    uint64_t floor = 0;                  // its own
    std::map<uint64_t, ObjectId> zeros;  // its levels that are zero, by version
  };

  Mine* mine(const ObjectId& id, Place origin);
  void update(const ObjectId& id, Mine* m, int64_t now, LedgerActions* out);
  void tell(const ObjectId& id, Mine* m, int64_t now, LedgerActions* out);
  void say_level(const ObjectId& id, const Mine& m, LedgerActions* out);
  void acknowledge(Place home, const ObjectId& id, uint64_t version, int64_t now, LedgerActions* out);
  void arrivals_are_due(Mine* m, uint64_t version, int64_t now, LedgerActions* out);
  void say_arrived(Place to, uint64_t transit, LedgerActions* out) const;
  void end_transit(uint64_t transit, int64_t now, LedgerActions* out);
  void forget(const ObjectId& id, Mine* m);
  uint64_t floor() const { return pending_.empty() ? version_ : pending_.begin()->first - 1; }

  // ---- as a home
  struct Holder {
    uint64_t version = 0;
    uint8_t bits = 0;
  };
  struct Entry {
    Place origin;
    uint64_t since = 0;  // the view in which it may have been inherited
    bool freed = true;   // was said since somebody held it
    std::map<Place, Holder> holders;
  };
  void on_level(Place from, const LedgerMessage& m, int64_t now, LedgerActions* out);
  void on_drop(Place from, const LedgerMessage& m, int64_t now, LedgerActions* out);
  void consider(const ObjectId& id, int64_t now, LedgerActions* out);
  void raise_floor(Place from, uint64_t floor);
  void remove_holder(const ObjectId& id, Place place);

  // ---- views
  void re_home(Place dead, int64_t now, LedgerActions* out);
  void settle(int64_t now, LedgerActions* out);
  void pass(int64_t now, LedgerActions* out);
  void say_barrier(Place to, LedgerActions* out) const;
  void say(Place to, LedgerMessage m, LedgerActions* out) const;
  void later(int64_t now) { retry_at_ = std::min(retry_at_, now + options_.retry_ns); }

  const Place self_;
  const LedgerOptions options_;
  Members members_;
  std::map<Place, Peer> peers_;
  std::map<ObjectId, Mine> mine_;
  std::map<Place, std::set<ObjectId>> by_home_;      // of mine_; those whose home is not known yet at Place{}
  std::set<std::pair<uint64_t, ObjectId>> pending_;  // (first, id) of mine_
  std::map<uint64_t, Transit> transits_;
  std::map<std::pair<Place, uint64_t>, Arrival> arrivals_;
  std::map<ObjectId, Entry> entries_;
  std::map<Place, std::set<ObjectId>> by_holder_;    // of entries_
  std::set<ObjectId> waiting_;                       // entries that nobody holds and that may not be freed yet
  std::set<ObjectId> dropping_;                      // entries whose storers have not dropped it yet
  uint64_t version_ = 0, next_transit_ = 1;
  uint64_t barrier_view_ = 0, barrier_version_ = 0;  // through with that view when all up to that version is acknowledged
  uint64_t passed_view_ = 0;                         // the last death that all were through with
  int64_t retry_at_ = INT64_MAX;
};

}  // namespace ray::transfer
