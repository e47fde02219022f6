// What waits for resources: demands of clients for leases, actors, and placement groups that are to be reserved.
// Values of the scheduler's parts (demands.h, placement_groups.h).
#pragma once
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "libray/base/ids.h"
#include "libray/sched/resource_table.h"
#include "libray/sched/worker_pools.h"

namespace ray::sched {

// Where a demand may be placed.
struct Placement {
  Id group;             // zero: in no group
  int32_t bundle = -1;  // -1: in any bundle that has room
  std::string never;    // why nothing on this node will do; it waits, and is reported once
  bool here = false;    // another node will not do
};

struct Line;
struct Request;

// A place in a list of those who wait, by a time.
struct Due {
  int64_t at = 0;
  uint64_t seq = 0;
  Request* request = nullptr;
  bool operator<(const Due& o) const { return at != o.at ? at < o.at : seq < o.seq; }
};

struct Request {
  enum Kind { kDemand, kActor, kGroup } kind = kDemand;
  Need need;           // of the node's own resources
  Need placed;         // in a group: the same, of the bundle that was looked at last
  Group* group = nullptr;
  int32_t bundle = -1;
  Pool pool;
  std::string text;    // the resources, for people
  std::string never;   // why nothing on this node will ever do
  bool reported = false;
  bool gone = false;   // its group was removed
  Line* line = nullptr;    // where it waits; null: it does not
  uint64_t seq = 0;        // its place there
  int64_t since = 0;       // it waits, or has its last lease; 0: since the next round
  int64_t due = 0;         // for a turn
  int64_t turn_ends = 0;   // 0: it has none
  uint32_t turns = 0;      // in a row that brought nothing
  uint64_t listed = 0;     // in which round it was a candidate,
  uint64_t round = 0;      // when it was last looked at,
  uint32_t planned = 0;    // and how many workers were planned for it then
  // Of what another node may serve (see Demands).
  bool travels = false;
  Resources asks;  // what it asks for, also of what this node does not have
  Due spills;      // its place among those; no request: none
  const Need& wants() const { return group && kind != kGroup ? placed : need; }
};

struct Demand : Request {
  uint32_t client = 0, shape = 0;
  uint32_t want = 0, have = 0;  // seq is renewed at every grant
  uint32_t foreign = 0;         // stand-ins that it has besides: see foreign.h
  uint32_t blocked = 0;         // of its leases' workers
  bool open = false;            // counted in its client's
  TaskId example;
};

struct ActorDemand : Request {
  ActorId actor;
};

// What waits and should go to another node.
struct Spill {
  uint32_t client = 0, shape = 0;
  ActorId actor;         // not nil: an actor, and no client's demand
  uint32_t more = 0;     // leases
  Resources resources;
  Pool pool;
  TaskId example;
  int64_t since = 0;     // it waits, or has its last lease
  bool never = false;    // this node can never do it,
  std::string why;       // for this reason
};

struct Group : Request {  // `need` is the sum of its bundles
  Id id;
  std::vector<Bundle> bundles;
  bool ready = false, removed = false;
  std::set<uint32_t> users;                        // workers that hold something of it
  std::set<std::pair<uint32_t, uint32_t>> shapes;  // client, shape: that are to be placed in it
  std::set<ActorId> actors;                        // that wait to be
};

}  // namespace ray::sched
