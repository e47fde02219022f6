// What this node asks the head's scheduler about its demands, between the call and the answer: which questions are open,
// and what goes into one request.
//
// Who: cluster_side.h, on the main thread; a pure structure. A question is new unless one about the same (task, attempt)
// was answered *nowhere now* a moment ago: then it is that one, which has its place in the line at the head, and has perhaps
// found a node meanwhile. So whoever wants five workers asks five times, with one example's id if he likes.
// Invariants: what is remembered goes after kForgetNs without being asked again; open() is the sum over the open ones.
#pragma once
#include <deque>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "libray/cluster/place.h"

namespace ray::node {

// Where a demand that waits here should go.
struct Placed {
  cluster::NodeIndex node = cluster::kNoNode;  // kNoNode: nowhere now; this node: it stays
  uint32_t epoch = 0;
  int64_t again_ns = 0;     // nowhere: ask again after so long
  bool infeasible = false;  // no living node could ever take it
  std::string text;         // why nowhere
};

class Placing {
 public:
  static constexpr int64_t kForgetNs = 400'000'000;  // who still waits asks every 100 ms
  struct Asked {
    cluster::Question question;
    std::function<void(const Placed&)> placed;
    bool counted = false;  // in what waits here
  };

  // `own`: what this node has. Demands that could be served here are among those that its scheduler counts as waiting.
  explicit Placing(wire::Resources own) : own_(std::move(own)) {}
  // Whether it is the first since the last take().
  bool ask(cluster::Question q, std::function<void(const Placed&)> placed, int64_t now);
  // What was asked since, in requests.
  std::vector<std::vector<Asked>> take();
  // Each exactly once.
  void answered(const Asked& a, bool nowhere, int64_t now);
  // What waits here waits for the head as well, which must not count it twice: it is told without that.
  void subtract_open(wire::Resources* queued, int64_t now);

  size_t open() const { return open_; }

 private:
  using Key = std::pair<TaskId, uint32_t>;
  struct Again {
    int64_t at;
    Key key;
    uint64_t number;
  };
  void count(const wire::Resources& needs, int64_t sign);
  void forget(int64_t now);

  const wire::Resources own_;
  std::vector<Asked> asked_;
  struct Nowhere {
    int64_t at;
    bool counted;
    wire::Resources needs;
  };
  std::map<Key, std::map<uint64_t, Nowhere>> nowhere_;  // by number
  std::deque<Again> again_;                             // the same in the order of their answers, and some that were asked again
  std::map<std::string, int64_t> sum_;                  // of what is open and counted, in units of wire::kResourceUnit
  size_t open_ = 0;
  uint64_t next_ = 1;
};

}  // namespace ray::node
