// Stand-ins for workers of other nodes: who has which. A stand-in was opened for one demand, (client, shape), or for one
// actor. It gets that if it still waits, has it once, and ends.
//
// It holds nothing of this node: no resources, no place among its processes, no place in a pool. So its lease is none of
// those that Leases has: it gives nothing back when it ends, is never asked back for somebody else, and does not count
// when clients are compared by what they have. It counts in what its client wants of that shape, and in nothing else. It is
// asked back, once, when its client could have a lease of this node instead that nobody waits for.
//
// Used by the local scheduler alone; a pure structure, on its thread.
//
// Invariants (check()):
//  - One that has a lease stands in its client's set, others in none.
//  - A stand-in that came or is over is looked at by the next round (busy()).
//  - Leases that were not asked back are listed by their age.
//  - Numbers of leases are apart from those of Leases.
#pragma once
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "libray/base/ids.h"

namespace ray::sched {

inline constexpr uint32_t kForeignLease = 0x80000000u;  // and above: leases of stand-ins

struct Foreign {
  enum State { kReady, kLeased, kActor, kOver } state = kReady;
  uint32_t worker = 0;
  uint32_t client = 0, shape = 0;  // whom it was opened for,
  ActorId actor;                   // or for which actor
  uint32_t lease = 0;
  int64_t since = -1;              // it has what it was opened for
  bool killed = false;
  bool reclaimed = false;
};

class Foreigners {
 public:
  void ready(const Foreign& f);
  void lease(Foreign* f, int64_t now);
  void becomes_actor(Foreign* f, int64_t now);
  void over(Foreign* f, bool stop);  // it has its lease no more, or gets none; stop: it is to be told to end
  void kill(Foreign* f) { f->killed = true; }
  void forget(uint32_t worker);
  std::vector<uint32_t> take_ready() { return std::exchange(ready_, {}); }
  std::vector<uint32_t> take_over() { return std::exchange(over_, {}); }
  bool busy() const { return !ready_.empty() || !over_.empty(); }
  // Leases that were not asked back, the oldest first.
  const std::set<std::pair<int64_t, uint32_t>>& away() const { return away_; }
  void reclaim(Foreign* f);
  uint32_t coming() const { return coming_; }  // that were, and are not back

  Foreign* find(uint32_t worker);
  const Foreign* find(uint32_t worker) const;
  const std::set<uint32_t>& of(uint32_t client) const;  // workers that it has leased
  size_t size() const { return foreign_.size(); }
  uint32_t working() const { return working_; }  // with a lease or an actor
  const std::map<uint32_t, Foreign>& all() const { return foreign_; }  // for queries and check()
  std::string check() const;

 private:
  std::map<uint32_t, Foreign> foreign_;
  std::map<uint32_t, std::set<uint32_t>> of_client_;
  std::vector<uint32_t> ready_, over_;
  std::set<std::pair<int64_t, uint32_t>> away_;
  uint32_t working_ = 0, coming_ = 0;
  uint32_t next_ = kForeignLease;
};

}  // namespace ray::sched
