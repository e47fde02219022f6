// Leases in the order in which they are asked back when something is missing, for every entry of the resource table that
// they hold some of: first those that their client wants no more, then those of the clients that have most, then the
// oldest. Used by Leases; a pure structure.
//
// Invariants:
//  - What the order depends on (a client's number of leases, whether a shape has more leases than it wants) is told here
//    before the next walk, and costs the client's entries, never its leases or other clients.
//  - A walk visits only what it yields: who stops early, or passes over a client or all with as many leases, pays
//    nothing for the rest. `visited()` counts.
//  - The node's own entries are kept in order. Those of a bundle have few holders, and are put in order by the walk.
#pragma once
#include <array>
#include <compare>
#include <cstdint>
#include <map>
#include <optional>
#include <queue>
#include <set>
#include <unordered_map>
#include <utility>
#include <vector>

namespace ray::sched {

class ReclaimOrder {
 public:
  explicit ReclaimOrder(uint32_t own = UINT32_MAX) : own_(own) {}  // entries below are the node's own

  struct Age {
    int64_t granted_at = 0;
    uint32_t lease = 0;
    friend auto operator<=>(const Age&, const Age&) = default;
  };
  struct Victim {
    uint32_t client = 0, lease = 0;
    int64_t granted_at = 0;
    bool surplus = false;
    uint32_t leases = 0;  // of its client, that were not asked back
  };

  // A lease that may be asked back, and the entries that its end would give back something of.
  void add(uint32_t client, uint32_t shape, Age age, const std::vector<uint32_t>& entries);
  void remove(uint32_t client, uint32_t shape, Age age, const std::vector<uint32_t>& entries);
  // Whether the shape's client wants fewer than it has. Remembered until it is taken back.
  void set_surplus(uint32_t client, uint32_t shape, bool surplus);

 private:
  struct Shape {
    bool surplus = false;
    uint32_t leases = 0;
    std::map<uint32_t, std::set<Age>> by_entry;
  };
  using Oldest = std::set<std::pair<Age, uint32_t>>;  // of each shape
  struct Client {
    uint32_t leases = 0;
    std::map<uint32_t, Shape> shapes;
    std::map<uint32_t, std::array<Oldest, 2>> by_entry;  // [surplus]
  };
  struct Head {  // a client, by its oldest lease
    uint32_t leases;
    Age age;
    uint32_t client;
    bool operator<(const Head& o) const {
      return leases != o.leases ? leases > o.leases : std::pair(age, client) < std::pair(o.age, o.client);
    }
  };
  using Heads = std::array<std::set<Head>, 2>;

 public:
  class Walk {
   public:
    // Of those that hold some of any of these entries. Nothing may change while it is used.
    Walk(const ReclaimOrder* order, const std::vector<uint32_t>& entries);
    std::optional<Victim> next();
    // From now on not those of this client, or of any that has so many: surplus ones excepted.
    void pass_client(uint32_t client) { passed_.insert(client); }
    void pass_level(uint32_t leases) { passed_level_ = leases; }

   private:
    enum class At { kClient, kShape, kLease };
    struct Cursor {
      At at;
      bool surplus;
      uint32_t leases;
      Age age;
      uint32_t entry, client, shape;
      std::set<Head>::const_iterator head;
      const std::set<Head>* heads;
      Oldest::const_iterator oldest;
      const Oldest* shapes;
      std::set<Age>::const_iterator lease;
      const std::set<Age>* ages;
      bool operator>(const Cursor& o) const {
        if (surplus != o.surplus) return o.surplus;
        if (leases != o.leases) return leases < o.leases;
        return age > o.age;
      }
    };
    void push_client(uint32_t entry, bool surplus, const std::set<Head>* heads, std::set<Head>::const_iterator head);
    void push_shape(Cursor c, Oldest::const_iterator oldest);
    void push_lease(Cursor c, std::set<Age>::const_iterator lease);
    bool passed(const Cursor& c) const;
    const ReclaimOrder* order_;
    std::priority_queue<Cursor, std::vector<Cursor>, std::greater<>> queue_;
    std::map<uint32_t, Heads> sorted_;  // of bundles' entries
    std::set<uint32_t> passed_;
    uint32_t passed_level_ = 0;  // none has so few
    uint32_t last_ = 0;          // lease: one that holds several of the entries comes once
  };
  uint64_t visited() const { return visited_; }
  size_t size() const;  // clients that are known here

 private:
  void unlink(uint32_t id, const Client& c);
  void link(uint32_t id, const Client& c);
  void tidy(uint32_t client, uint32_t shape);

  uint32_t own_;
  std::unordered_map<uint32_t, Client> clients_;  // never walked
  std::map<uint32_t, Heads> own_entries_;
  std::map<uint32_t, std::set<uint32_t>> holders_;  // of bundles' entries: clients
  mutable uint64_t visited_ = 0;
};

}  // namespace ray::sched
