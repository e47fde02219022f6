// The last decisions of an instance with all that they were made from, in a bounded ring: for people (why), and for
// questions that come a second time. Pure; used by scheduler.h.
#pragma once
#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "libray/sched_global/messages.h"

namespace ray::global {

struct Term {  // of a node that was looked at
  NodeIndex node = kNoNode;
  double wait_ns = 0, transfer_ns = 0, cost_ns = 0, load = 0;
};

struct Decision {
  static constexpr uint32_t kTerms = 6;
  TaskId id;
  uint32_t attempt = 0, hops = 0, moved = 0;
  NodeIndex from = kNoNode, node = kNoNode;
  uint32_t epoch = 0;
  uint64_t seq = 0;
  Action::Kind outcome = Action::kWait;
  bool pinned = false;
  int64_t at = 0;
  const char* rule = "";
  uint32_t looked = 0, terms = 0;  // nodes; of those that fit, the cheapest and the one it came from are kept
  double run_ns = 0;
  uint64_t input_bytes = 0;
  Term term[kTerms];
  std::string text;  // of a wait
  std::string to_text() const;
};

class Decisions {
 public:
  explicit Decisions(size_t most) : ring_(most) {}
  // A new one of that id; an older one is not found any more.
  Decision* add(const TaskId& id);
  const Decision* find(const TaskId& id) const {
    auto it = by_id_.find(id);
    return it == by_id_.end() ? nullptr : &ring_[it->second];
  }

 private:
  std::vector<Decision> ring_;
  size_t next_ = 0;
  std::unordered_map<TaskId, size_t> by_id_;  // looked up, never walked
};

}  // namespace ray::global
