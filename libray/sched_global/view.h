// The global scheduler's view of the cluster: what each node said last, and what was placed on it since. Pure; used by
// scheduler.h and groups.h of one instance.
//
// Rules. (1) A heartbeat counts if its epoch is above the node's fence and (epoch, version) is above what was counted
// before; a later epoch is a new node of that index. (2) What this instance placed on a node counts against it until a
// heartbeat says that it arrived there, or until it must have been lost. (3) A node that is draining, or silent for
// too long, is offered nothing; only the control store says that it is dead, and nothing of a dead epoch counts again.
// (4) A node with much waiting work is *full* for a resource until it has become much less.
//
// Index: one axis per resource, in buckets of the power of two of what a node can ever give (total less what is held for
// good), each ordered by load. So whoever looks for a node never passes over those that are too small, and meets the
// least loaded first. An axis without a name has all nodes, by the number of tasks there: for demands of nothing.
// Cost: a heartbeat or a placement is O(resources of the node * log nodes).
#pragma once
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "libray/sched_global/averages.h"
#include "libray/sched_global/messages.h"

namespace ray::global {

struct ViewOptions {
  InstanceId instance = 1;
  uint64_t seed = 1;                   // orders nodes that are equal; another in each instance
  double alpha = 0.2;                  // of all averages
  double run_ns = 10e6;                // of a task, while nobody knows better
  double short_ns = 1e6, long_ns = 10e9;  // the same, by SizeClass
  double bandwidth = 1.0;              // bytes per ns between nodes, the same: 1 GB/s
  double full_ns = 2e9, room_ns = 1e9;  // of waiting: a node becomes full at the one, and is no more at the other
  int64_t silent_ns = 1'000'000'000;   // without a heartbeat
  int64_t lost_ns = 1'000'000'000;     // a placement that no heartbeat speaks of counts so long
  size_t max_functions = 65536, max_fences = 65536;
};

struct Need {
  uint32_t axis = 0;
  Amount amount = 0;
};
using Needs = std::vector<Need>;

class View {
 public:
  struct Node;
  struct Key {  // place in an index
    bool full;
    double pressure;  // up to 0: load - 1; above: ns that a task waits
    uint32_t dice;
    const Node* node;
    bool operator<(const Key& o) const {
      return std::tie(full, pressure, dice, node->index) < std::tie(o.full, o.pressure, o.dice, o.node->index);
    }
  };
  struct Stock {  // of one resource of one node
    uint32_t axis = 0;
    Amount total = 0, available = 0, held = 0, queued = 0;
    Amount placed = 0, placed_held = 0;  // not seen by the node; placed_held is a part of placed
    bool full = false, indexed = false;
    int bucket = 0;
    Key key;
    Amount busy() const { return total - available; }
    Amount reach() const { return total - held - placed_held; }
    double load(Amount more = 0) const;
  };
  struct Placed {
    uint64_t seq;
    double run_ns;
    bool for_good;
    Needs needs;
  };
  struct Node {
    NodeIndex index = kNoNode;
    uint32_t epoch = 0;
    uint64_t version = 0;
    Labels labels;
    std::vector<Stock> stocks;  // by axis
    uint32_t running = 0, waiting = 0;
    bool draining = false, silent = false;
    int64_t heard_at = 0;
    Average run, bandwidth;
    std::deque<Placed> placed;
    uint32_t placed_tasks = 0;  // of them, and
    double placed_ns = 0;       // the sum of their run times
    uint32_t dice = 0;
    bool usable() const { return !draining && !silent; }
    const Stock* stock(uint32_t axis) const;
  };
  using Line = std::set<Key>;

  explicit View(const ViewOptions& options) : options_(options), functions_(options.max_functions) { axis(""); }
  View(const View&) = delete;

  // ---- events
  // False: late, repeated, or of the dead. `better`: somebody who waits may have a chance now.
  bool heartbeat(const Heartbeat& h, int64_t now, bool* better);
  // The node of that index, if it was known in that epoch or an earlier one, is no more.
  bool dead(NodeIndex node, uint32_t epoch);
  void tick(int64_t now);
  int64_t deadline() const;  // of the next tick; INT64_MAX = never

  // Counts `needs` against the node; returns the number by which its heartbeats will speak of it.
  uint64_t place(const Node& node, const Needs& needs, double run_ns, bool for_good, int64_t now);
  void unplace(NodeIndex node, uint64_t seq);  // it will not come, or was given back

  // ---- questions
  const Node* find(NodeIndex node) const;
  const Node* find(NodeIndex node, uint32_t epoch) const;  // in this very epoch
  bool fenced(NodeIndex node, uint32_t epoch) const;
  const std::map<NodeIndex, Node>& nodes() const { return nodes_; }
  // False: no node has *missing.
  bool resolve(const Resources& resources, Needs* out, const std::string** missing) const;
  const std::string& name(uint32_t axis) const { return axes_[axis].name; }
  // By bucket; the same bucket's nodes by load.
  const std::map<int, Line>& axis_index(uint32_t axis) const { return axes_[axis].buckets; }
  static int bucket_of(Amount amount);
  const std::set<NodeIndex>* labelled(const std::string& key, const std::string& value) const;

  double run_ns(uint64_t function, SizeClass size) const;
  double line_ns(const Node& node) const;  // mean run time of what waits there
  double wait_ns(const Node& node, const Needs& needs) const;  // until a task with these needs would start
  double load(const Node& node, const Needs& needs) const;     // with it
  double bandwidth(const Node& node) const;
  double bandwidth() const { return bandwidth_.or_else(options_.bandwidth); }

  const ViewOptions& options() const { return options_; }
  uint64_t generation() const { return generation_; }  // rises when what could ever be placed may have changed
  std::string check() const;                           // "" or the invariant that is broken

 private:
  struct Axis {
    std::string name;
    uint32_t users = 0;
    std::map<int, Line> buckets;
  };
  uint32_t axis(const std::string& name);
  void release(uint32_t axis);
  Stock* stock(Node* n, uint32_t axis) { return const_cast<Stock*>(n->stock(axis)); }
  void fill(Node* n, const Heartbeat& h);
  void learn(Node* n, const Heartbeat& h);
  void relabel(Node* n, const Labels& labels);
  void index(Node* n);
  void index(Node* n, Stock* s);
  void unindex(Node* n);
  void unindex(Stock* s);
  void count(Node* n, const Placed& p, Amount sign);
  void drop_placed(Node* n, uint64_t up_to);
  void erase(std::map<NodeIndex, Node>::iterator it);
  double pressure(const Node& n, const Stock& s) const;

  struct Outstanding {
    int64_t at;
    NodeIndex node;
    uint32_t epoch;
    uint64_t seq;
  };
  const ViewOptions options_;
  std::map<NodeIndex, Node> nodes_;
  std::map<NodeIndex, uint32_t> fences_;  // dead epochs
  NodeIndex floor_ = 0;                   // whatever is below and not known is dead: its fence was forgotten
  std::set<std::pair<int64_t, NodeIndex>> heard_;  // nodes that are not silent
  std::deque<Outstanding> outstanding_;
  std::vector<Axis> axes_;
  std::unordered_map<std::string, uint32_t> by_name_;  // looked up, never walked
  std::vector<uint32_t> unused_;
  std::map<std::pair<std::string, std::string>, std::set<NodeIndex>> by_label_;
  FunctionTimes functions_;
  Average run_, bandwidth_;  // of all nodes
  uint64_t next_seq_ = 1, generation_ = 1;
};

}  // namespace ray::global
