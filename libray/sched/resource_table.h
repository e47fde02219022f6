// The node's resources: how much there is of each, who holds what, and what comes back when. One table for all of them:
// a resource of the node, the numbered unit of one (an *instance*, such as a GPU), and what a placement group's bundle
// has of either are all *entries* with a total and a free amount, so that one set of rules serves them.
//
// Used by the local scheduler alone; a pure structure, on its thread.
//
// Invariants (check()):
//  - total = free + what is held - what is lent of it + what is set aside, for every entry. Bundles that are reserved
//    hold what they have of the node's own entries.
//  - Nothing but CPU is ever free below zero: CPU is lent by who waits and taken back at once.
//  - Who holds of a resource with instances holds as much of its instances: a whole unit is one that nobody else uses, a
//    fraction is a share of one of them, the fullest that had room.
//  - For each entry, and each way of coming back (`Back`), the table knows how much is held that comes back so. What
//    would be free then is read from a View, whose cost does not depend on who holds how many.
#pragma once
#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "libray/sched/resources.h"

namespace ray::sched {

struct Group;

inline constexpr uint32_t kCpu = 0;  // the entry of the node's "CPU"

// What is taken together.
struct Need {
  std::vector<std::pair<uint32_t, Amount>> items;  // entry -> amount
  uint32_t cpu_entry = kCpu;                       // where its CPUs come from
  Group* group = nullptr;                          // whose entries they are; null: the node's own
  Amount cpu() const;
};

// How what is held comes back.
enum class Back : uint8_t {
  kNever,   // actors
  kLeased,  // when its task is done and others want it
  kSoon,    // it was reclaimed
  kLate,    // and is not back yet, so that it is not counted on at once
  kKept,    // through a whole turn
  kEnding,  // its holder was killed
  kCount,
};

struct Holding {
  Need need;
  Amount lent = 0;  // of its CPUs, while it waits
  Back back = Back::kNever;
};

// What a bundle of a placement group takes from the node, and its own entries while it has that.
struct Bundle {
  Need need;                           // of the node's entries
  Need taken;                          // the same with instances, while it is reserved
  std::map<uint32_t, uint32_t> slots;  // the node's entry -> its own
};

class ResourceTable;

// What is, or would be, free. It follows the table: what is held, dropped or reclaimed after it was made counts in it.
class View {
 public:
  Amount at(uint32_t entry) const;
  void take(const Need& need);
  void give(const Holding& held);
  void change(uint32_t entry, Amount by) { changes_[entry] += by; }
  View if_all_are_reclaimed() const;  // and what leases hold that were not asked back

 private:
  friend class ResourceTable;
  View(const ResourceTable* table, uint32_t backs, bool all = false) : table_(table), backs_(backs), all_(all) {}
  const ResourceTable* table_;
  uint32_t backs_;  // of these kinds all counts as free
  bool all_;        // everything does
  std::map<uint32_t, Amount> changes_;
};

class ResourceTable {
 public:
  ResourceTable(const Resources& total, const std::vector<std::string>& instanced);

  // ---- names
  // Of a resource that the node does not have, *never says why what is asked for can never run.
  Need need_of(const Resources& resources, std::string* never) const;
  size_t size() const { return entries_.size(); }
  size_t own() const { return own_; }  // entries 0 up to here are the node's resources
  const std::string& name(uint32_t entry) const { return entries_[entry].name; }
  Amount total(uint32_t entry) const { return entries_[entry].total; }
  Amount free(uint32_t entry) const { return entries_[entry].free; }
  bool is_instance(uint32_t entry) const { return entries_[entry].instance >= 0; }
  bool has_instances(uint32_t entry) const { return !entries_[entry].instances.empty(); }
  // Numbers of the instances of a resource that somebody holds (shares of), in order.
  std::vector<uint32_t> instances(const Holding& held, const std::string& name) const;
  // Tasks that ask for nothing are still bounded: as many at a time as there are processors.
  uint32_t processors() const;

  // ---- what fits
  View now() const { return View(this, 0); }
  View soon() const;        // and what is about to come back
  View later() const;       // and all that may come back without anybody's death
  View empty() const { return View(this, 0, true); }
  bool enough(uint32_t entry, Amount amount, const View& free) const;
  bool fits(const Need& need, const View& free) const;
  bool fits(const std::vector<Bundle>& bundles, View free) const;  // all of them together
  Need with_instances(const Need& need, const View& free) const;   // it fits

  // ---- who holds what
  void hold(Holding* h, const Need& need, Back back);
  void drop(Holding* h);
  void lend(Holding* h, bool yes);
  void comes_back(Holding* h, Back back);
  // For the rest of a round of decisions; restore() ends it.
  void set_aside(Need need);
  void restore();

  // ---- bundles
  void reserve(Bundle* bundle);  // it fits
  void give_back(Bundle* bundle);
  // The need in the bundle's own entries. False: it has none of something.
  bool in_bundle(const Bundle& bundle, const Need& need, Need* out) const;

  std::string check(const std::vector<const Holding*>& held, const std::vector<const Bundle*>& reserved) const;

 private:
  friend class View;
  static constexpr size_t kBacks = static_cast<size_t>(Back::kCount);
  struct Entry {
    std::string name;
    Amount total = 0, free = 0;
    std::array<Amount, kBacks> held{};   // less what is lent
    int32_t instance = -1;               // its number, when it is one
    std::vector<uint32_t> instances;     // entries of this one's
  };
  int32_t find(const std::string& name) const;
  uint32_t add(const std::string& name);
  void make_instances(const std::string& name);
  bool pick(uint32_t entry, Amount amount, const View& free, Need* out) const;
  void count(const Holding& h, Amount sign);
  void drop_entry(uint32_t entry);

  std::vector<Entry> entries_;
  size_t own_ = 0;
  std::vector<uint32_t> unused_;
  std::vector<Need> aside_;
};

}  // namespace ray::sched
