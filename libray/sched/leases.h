// Leases: which client has which worker, since when, and whether it was asked to give it back. A lease belongs to one
// shape of one client and one worker; what it holds of the resource table is the worker's.
//
// Used by the local scheduler alone; a pure structure, on its thread.
//
// Invariants (check()):
//  - A lease stands in exactly one of: not asked back; asked back and expected (kSoon); asked back some time ago (kLate);
//    kept through a whole turn (kKept). What it holds is counted in the resource table by the same word.
//  - The order in which leases are asked back (ReclaimOrder) has those that were not, with what their end would give.
//  - may_return() counts those whose worker does not wait and which were not kept: some of them end by themselves.
// Every question is answered from an index; none passes over leases that are not in the answer.
#pragma once
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "libray/sched/reclaim_order.h"
#include "libray/sched/resource_table.h"

namespace ray::sched {

inline constexpr int64_t kComingNs = 100'000'000;  // a reclaimed lease is counted on for so long, then others are too

struct Lease {
  uint32_t id = 0, client = 0, shape = 0, worker = 0;
  uint32_t level = 0;  // of its client's tasks: 0 for a driver's, one more for a task's of it
  int64_t granted_at = 0;
  int64_t reclaimed_at = 0;
  bool reclaiming = false;
  bool waits = false;  // its worker does
  Holding* held = nullptr;
  Back back() const { return held->back; }
};

class Leases {
 public:
  explicit Leases(ResourceTable* table) : table_(table), order_(static_cast<uint32_t>(table->own())) {}

  // ---- changes. `held` outlives the lease, and is held already.
  Lease& grant(uint32_t client, uint32_t shape, uint32_t worker, uint32_t level, Holding* held, int64_t now);
  // The rest is the caller's: to drop what it holds, or to say how that comes back.
  Lease end(uint32_t id);
  void waits(uint32_t id, bool yes);  // lends its CPU meanwhile
  void reclaim(uint32_t id, int64_t now);
  void set_surplus(uint32_t client, uint32_t shape, bool surplus) { order_.set_surplus(client, shape, surplus); }
  void begin_round(int64_t now);      // who was expected for long enough is late
  bool keep_since(int64_t asked_at);  // those asked back by then and still away are kept; whether there were any

  // ---- questions
  const Lease* find(uint32_t id) const;
  size_t size() const { return leases_.size(); }
  const std::set<uint32_t>& of(uint32_t client) const;
  uint32_t count(uint32_t client) const { return static_cast<uint32_t>(of(client).size()); }
  uint32_t may_return() const { return may_return_; }
  int64_t next_late() const;  // when the first that is expected will be late; 0: none is
  // The first that is expected, and the oldest that can be asked back and is so old, of a worker that does not wait and
  // of another shape than this.
  const Lease* expected(uint32_t client, uint32_t shape) const;
  const Lease* oldest(uint32_t client, uint32_t shape, int64_t granted_by) const;
  // That were asked back by then and are still away.
  std::vector<const Lease*> overdue(int64_t asked_by) const;
  const ReclaimOrder& order() const { return order_; }
  const std::unordered_map<uint32_t, Lease>& all() const { return leases_; }  // for check() alone
  std::string check() const;

 private:
  using ByTime = std::set<std::pair<int64_t, uint32_t>>;
  std::vector<uint32_t> gives(const Lease& l) const;
  ByTime* list_of(const Lease& l);
  void set_askable(const Lease& l, bool yes);
  void list(const Lease& l);
  void unlist(const Lease& l);

  ResourceTable* table_;
  std::unordered_map<uint32_t, Lease> leases_;  // never walked for an answer
  std::map<uint32_t, std::set<uint32_t>> of_client_;
  ReclaimOrder order_;
  // Not asked back, and their workers do not wait: of each client's shapes, by when they were granted; the first of each.
  std::map<std::pair<uint32_t, uint32_t>, ByTime> askable_;
  ByTime oldest_;
  ByTime soon_, late_, kept_;   // by when they were asked back
  uint32_t may_return_ = 0;
  uint32_t next_ = 1;
};

}  // namespace ray::sched
