// What this node cannot serve and other nodes may: who is asked about, what is being opened, and when to ask again. Pure:
// events in, actions out, no I/O and no clock.
//
// Who: class Node, of a node in a cluster (node_foreign.cc), on its main thread. The scheduler says what waits (spills), the
// head's global scheduler says where that should go, the relay opens a stand-in for a worker there.
//
// Invariants: of one demand there is one question under way; a question that said "not now" is asked again under the same
// number, so the head knows it again. What is being opened is bounded, for each demand and in all, and never more than the
// demand wants. A demand or a node whose stand-in could not be opened is left alone for a while, ever longer. Who waits for
// what no node can ever do is told so once.
#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "libray/base/ids.h"
#include "libray/sched/requests.h"

namespace ray::node {

// A client's demand, or an actor.
struct SpillKey {
  uint32_t client = 0, shape = 0;
  ActorId actor;
  friend bool operator<(const SpillKey& x, const SpillKey& y) {
    if (x.client != y.client) return x.client < y.client;
    return x.shape != y.shape ? x.shape < y.shape : x.actor < y.actor;
  }
  friend bool operator==(const SpillKey& x, const SpillKey& y) = default;
};

struct SpillAction {
  enum Kind {
    kAsk,   // where it should go: placed(number) answers
    kOpen,  // a stand-in on that node: opened(number), failed(number) or dropped(number) follows
    kTell,  // no node will ever do it, for this reason
  } kind;
  SpillKey key;
  uint64_t number = 0;
  TaskId id;             // kAsk: with the attempt what the question is known by; kTell: a task that waits
  uint32_t attempt = 0;
  sched::Resources resources;
  sched::Pool pool;
  uint32_t node = UINT32_MAX, epoch = 0;
  std::string text;
};
using SpillActions = std::vector<SpillAction>;

struct SpillOptions {
  uint32_t each = 16, all = 64;       // stand-ins that are being opened: of a demand, in all
  int64_t again_ns = 20'000'000;      // when the answer was "nowhere now" without a time, or "where it is"
  int64_t alone_ns = 100'000'000;     // by the table no other node could ever do it: when to look again
  int64_t hopeless_ns = 1'000'000'000;  // the head said that none could
  int64_t failed_ns = 100'000'000;    // after a first failure; twice as long after each further one, up to
  uint32_t max_shift = 7;             // so many times
  int64_t forget_ns = 10'000'000'000;
};

class Spills {
 public:
  using MayFit = std::function<bool(const sched::Resources&)>;  // by the table, some other living node could
  Spills(uint32_t self, MayFit may_fit, SpillOptions options = {})
      : self_(self), may_fit_(std::move(may_fit)), options_(options) {}

  // What the scheduler says that waits: some of it, with each call the next.
  void step(const std::vector<sched::Spill>& spills, int64_t now, SpillActions* out);
  struct Answer {
    uint32_t node = UINT32_MAX, epoch = 0;  // none: nowhere now
    int64_t again_ns = 0;
    bool infeasible = false;                // no living node could ever take it
    std::string text;
  };
  void placed(uint64_t number, const Answer& answer, int64_t now, SpillActions* out);
  void opened(uint64_t number);
  // It cannot be opened. Whether that is news: the first in a row of that node.
  bool failed(uint64_t number, int64_t now);
  // Nobody's fault. It is not asked about again before then: at the head each answer takes a place for a while.
  void dropped(uint64_t number, int64_t not_before = 0);
  void client_gone(uint32_t client);
  void forget(const SpillKey& key);  // it means something else from now on

  // Whether anything was asked or opened so recently.
  bool busy(int64_t since) const { return !asking_.empty() || !opening_.empty() || acted_at_ >= since; }
  size_t asking() const { return asking_.size(); }
  size_t opening() const { return opening_.size(); }
  size_t size() const { return entries_.size(); }

 private:
  struct Entry {
    sched::Spill spill;     // as the scheduler said it last,
    int64_t seen = 0;       // and when
    uint64_t asking = 0;    // the question under way
    uint32_t opening = 0;
    TaskId id;              // of the question,
    uint32_t attempt = 0;   // and which; 0: a new one
    int64_t not_before = 0;
    uint32_t failures = 0;
    bool told = false;
  };
  struct Opening {
    SpillKey key;
    uint32_t node;
  };
  struct Trouble {
    uint32_t failures = 0;
    int64_t until = 0;
  };
  void ask(const SpillKey& key, Entry* e, int64_t now, SpillActions* out);
  void tell(const SpillKey& key, Entry* e, const std::string& text, SpillActions* out);
  bool take(uint64_t number, Opening* out);
  int64_t pause(uint32_t failures) const;
  void tidy(int64_t now);

  const uint32_t self_;
  const MayFit may_fit_;
  const SpillOptions options_;
  std::map<SpillKey, Entry> entries_;
  std::map<uint64_t, SpillKey> asking_;
  std::map<uint64_t, Opening> opening_;
  std::map<uint32_t, Trouble> trouble_;  // nodes
  uint64_t next_ = 1;
  uint32_t next_attempt_ = 1;
  int64_t acted_at_ = 0, tidy_at_ = 0;
};

}  // namespace ray::node
