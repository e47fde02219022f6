// Some nodes' ledgers, the references that travel between them, and the control store's views, which reach each node when
// they like: all of one seed. Nodes die with references on their way from them and to them, join, and stand still; what
// ledgers say to each other comes late, twice, in another order, or not at all.
//
// What is checked as it happens: nothing is freed or dropped that a living node holds or that is on its way to one who
// still accepts it. At the end, when everybody has let go of everything: no copy is left, and no ledger remembers
// anything. A Fault makes the world wrong on purpose, so that each checker can be seen to find it.
#pragma once
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "libray/transfer/ledger.h"

namespace ray::transfer {

class LedgerWorld {
 public:
  enum Fault { kNone, kFalseBarriers, kFalseArrivals, kNoDrops, kNoReleases };
  struct Options {
    uint32_t nodes = 5;
    bool deaths = false, losses = false, pauses = false;
    Fault fault = kNone;
  };
  LedgerWorld(uint64_t seed, const Options& options);
  void run(int64_t ns);
  void calm(int64_t ns);  // everybody lets go of everything, nothing more goes wrong
  std::string verdict();  // empty, or what is wrong
  uint64_t freed() const { return freed_; }
  uint64_t deaths() const { return deaths_; }

 private:
  struct Node {
    Place place;
    std::unique_ptr<Ledger> ledger;
    bool alive = true;
    int64_t paused_until = 0, view_at = 0;
    std::map<ObjectId, Place> held;  // with the origin
    std::set<ObjectId> stored;
  };
  struct Reference {
    Place from, to;
    ObjectId id;
  };

  uint64_t random(uint64_t below) { return rng_() % below; }
  void at(int64_t time, std::function<void()> what) { events_.emplace(std::pair{time, next_event_++}, std::move(what)); }
  void at_node(int64_t time, Place place, std::function<void(Node&)> what);
  Node* living(Place place);
  void join(uint32_t index);
  void kill(uint32_t index);
  void tell_view(Node& n, size_t last);
  void apply(Node& n, LedgerActions& actions);
  void post(Node& n, Place to, const LedgerMessage& m);
  void forge(Place from, Place to, LedgerKind kind, uint64_t version, uint64_t view);
  void send_reference(Node& n);
  void arrive(Node& n, uint64_t reference, uint64_t transit, Place origin);
  void act();
  void check_unused(const ObjectId& id, const char* what);
  void fail(std::string what) {
    if (wrong_.empty()) wrong_ = std::move(what);
  }

  const Options options_;
  std::mt19937_64 rng_;
  int64_t now_ = 1'000'000'000;
  bool harmful_ = true;
  std::vector<Node> nodes_;  // all that ever were
  std::vector<std::pair<Place, bool>> views_;
  std::map<std::pair<int64_t, uint64_t>, std::function<void()>> events_;
  std::map<uint64_t, Reference> flying_;
  std::map<std::pair<Place, Place>, int64_t> last_;  // when the last reference on that way comes
  uint64_t next_event_ = 0, next_id_ = 1, next_reference_ = 1, freed_ = 0, deaths_ = 0;
  std::string wrong_;
};

}  // namespace ray::transfer
