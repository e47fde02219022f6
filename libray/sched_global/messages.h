// What goes into the global scheduler and what comes out of it: plain values. What of it travels between nodes has its form
// in libray/cluster (messages.h, place.h).
//
// Who: scheduler.h and groups.h read and make them; libray/node/global_side for the head. Whatever may be
// lost or come twice is numbered: heartbeats by (epoch, version), placements and preparations by the number that their
// instance gave them, demands by (id, attempt, hops), group messages by (group, plan).
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "libray/base/ids.h"
#include "libray/sched/local_scheduler.h"

namespace ray::global {

using sched::Amount;
using sched::kUnit;
using sched::Resources;
using NodeIndex = uint32_t;   // of the control store, never given twice
using InstanceId = uint32_t;  // of a global scheduler, random at its start
using Labels = std::map<std::string, std::string>;
inline constexpr NodeIndex kNoNode = UINT32_MAX;

// ---- in

// A node's state as it is now. Levels, not changes: a lost one is made good by the next.
struct Heartbeat {
  NodeIndex node = kNoNode;
  uint32_t epoch = 0;
  uint64_t version = 0;  // rising within the epoch
  Resources total, available;
  Resources held;    // by actors and groups, for good: part of what is not available
  Resources queued;  // what all tasks that wait there need in sum
  Labels labels;
  uint32_t running = 0, waiting = 0;  // tasks
  bool draining = false;              // takes nothing new
  struct Ran {
    uint64_t function;
    uint32_t count;
    int64_t ns;  // of all of them
  };
  std::vector<Ran> ran;  // since the last heartbeat
  uint64_t moved_bytes = 0;
  int64_t moved_ns = 0;  // inputs that were fetched since then
  struct Seen {
    InstanceId instance;
    uint64_t seq;  // the highest number of that instance that has arrived; what it stands for is counted above
  };
  std::vector<Seen> seen;
};

struct Input {
  ObjectId id;
  int64_t size = -1;          // unknown
  std::vector<NodeIndex> at;  // who has it
};

struct LabelRule {
  std::string key;
  std::vector<std::string> values;  // one of these; empty: any
  bool negate = false;
};

enum class Work : uint8_t { kTask, kActor };
// A guess of the submitter, for functions that nobody has seen run.
enum class SizeClass : uint8_t { kUnknown, kShort, kLong };

// A task or an actor that its node does not want to run, or cannot. (id, attempt, hops) is one question: however often
// and whomever it is put, the asker takes the first answer and drops the rest.
struct Demand {
  TaskId id;
  uint32_t attempt = 0;  // the asker's: begins anew when a node died with it or gave it back at its end
  uint32_t hops = 0;     // moves from one living node to another, of this attempt
  NodeIndex from = kNoNode;  // where it waits now
  Work work = Work::kTask;
  uint64_t function = 0;
  SizeClass size = SizeClass::kUnknown;
  int32_t priority = 0;  // of those that wait here, the higher first
  Resources resources;
  std::vector<Input> inputs;
  NodeIndex affinity = kNoNode;
  bool soft_affinity = false;
  std::vector<LabelRule> labels, soft_labels;
  bool spread = false;
  std::vector<NodeIndex> refused;  // nodes that would not take it, of this attempt
};

enum class Strategy : uint8_t { kPack, kSpread, kStrictPack, kStrictSpread };

struct BundlePlace {
  NodeIndex node = kNoNode;  // none: it is to be placed
  uint32_t epoch = 0;
  uint64_t plan = 0;  // by which it came there
};

// A placement group as the control store has it. `plan`: the last one that was recorded; 0: none was.
struct GroupRow {
  Id group;
  Strategy strategy = Strategy::kPack;
  std::vector<Resources> bundles;
  uint64_t plan = 0;
  std::vector<BundlePlace> places;
};

// ---- out

struct Bundle {
  uint32_t index = 0;
  Resources resources;
};

struct Action {
  enum Kind : uint8_t {
    // To Demand::from, about (id, attempt, hops).
    kPlace,       // node, epoch, moved (hops at its new place), pinned; the task travels with (instance, seq)
    kWait,        // text; keep it, and ask again after again_ns
    kInfeasible,  // text: why, and what would do; the same
    // To a node, about a group. Repeated until answered.
    kPrepare,  // id, plan, node, epoch, bundles, seq; answered by prepared()
    kCommit,   // id, plan, node, epoch; answered by committed()
    kAbort,    // id, plan, node, epoch; answered by aborted()
    kRemove,   // id, node, epoch; answered by removed()
    // To the control store.
    kRecord,  // id, plan, places, base: write the row if the plan there is still `base`; answered by recorded()
    // To whoever waits for the group.
    kGroupReady,       // id, places: all bundles are reserved
    kGroupWaits,       // id, text: cannot be placed now
    kGroupInfeasible,  // id, text: on no node that there is
    kGroupLost,        // id, bundles (indexes): their node died; kGroupReady follows when they are placed again
    kGroupGone,        // id: it was removed, and every node has given its bundles back or is dead
  } kind;
  bool pinned = false;
  uint32_t attempt = 0, hops = 0, moved = 0;
  NodeIndex to = kNoNode, node = kNoNode;
  uint32_t epoch = 0;
  Id id;
  uint64_t seq = 0, plan = 0, base = 0;
  int64_t again_ns = 0;
  std::string text;
  std::vector<Bundle> bundles;
  std::vector<BundlePlace> places;
};
using Actions = std::vector<Action>;

}  // namespace ray::global
