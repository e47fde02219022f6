// What the daemons of a cluster say to each other about who belongs to it, and the rows that they keep. Plain values and
// their MessagePack form. Pure.
//
// Who: head.h, member.h and calls.h make and read them; libray/node/membership carries them over sessions (libray/net),
// which deliver in order and once. Nobody vouches for the bytes: decode() says of bad ones what is wrong.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "libray/base/ids.h"
#include "libray/base/status.h"
#include "libray/wire/msgpack.h"

namespace ray::wire {
class Cursor;
}

namespace ray::cluster {

using NodeIndex = uint32_t;  // given by the head, dense, never given twice; 0 is the head
inline constexpr NodeIndex kHead = 0, kNoNode = UINT32_MAX;

enum class State : uint8_t { kAlive, kDraining, kDead };
const char* state_name(State state);  // "ALIVE"

// What a node may say of itself, encoded; of its end; and how many of the dead every node keeps a row of. With these a
// table is bounded, and a row always fits into a message.
inline constexpr size_t kMaxAbout = 64 << 10, kMaxCause = 1 << 10, kMaxDead = 4096;
inline constexpr size_t kMaxRelay = 512;  // of the address of a relay

// What a node says of itself when it joins.
struct About {
  NodeId id;            // of the daemon: fresh at each start
  std::string address;  // for people; of the head, what others dial
  std::string host;     // its name
  std::string session;
  std::string relay;    // where its relay listens, tcp://HOST:PORT; empty: none does, so nothing is sent to this node
  int64_t pid = 0, start_ns = 0;
  wire::Resources resources;
  std::map<std::string, std::string> labels;
};

struct Row {
  NodeIndex index = kNoNode;
  // Joins and deaths are views, numbered from 1 in the order that the head gives them. A node's epoch is the view of its
  // join, so that (index, epoch) is never another daemon's; `died` is that of its death, or 0.
  uint32_t epoch = 0, died = 0;
  State state = State::kAlive;
  bool silent = false;   // nothing was heard of it for a moment
  int64_t since_ns = 0;  // wall clock, of the last change of state
  std::string cause;     // of its death
  About about;
};

// A node's state as it is now: a level, so a lost one is made good by the next.
struct Load {
  wire::Resources available;
  wire::Resources held;    // by actors and groups, for good: a part of what is not available
  wire::Resources queued;  // what all that waits there needs in sum, less what the head was asked about
  uint64_t running = 0, waiting = 0;  // tasks and leases, as its scheduler counts them
};

enum class Kind : uint8_t {
  // To the head.
  kJoin = 1,  // about
  kBeat,      // index, epoch, number (rising), load
  kLeave,     // index, epoch, text
  kRelay,     // index, epoch, text: where its relay listens now; empty: nowhere
  // From the head.
  kWelcome = 16,  // index, epoch, cluster, rows: with those of the tables before it all
  kRefused,       // code, text
  kFenced,        // epoch, text: this node is dead for the cluster
  kTable,         // rows: those that changed, whole; before kWelcome those that do not fit into it
  kEnding,        // text: the head ends, and the cluster with it
  // Between any two, through the head.
  kRequest = 32,  // from, to, number, op, text
  kAnswer,        // from, to, number, code, text
};

struct Message {
  Kind kind = Kind::kBeat;
  NodeIndex index = kNoNode;
  uint32_t epoch = 0;
  Id cluster;
  About about;
  std::vector<Row> rows;
  Load load;
  NodeIndex from = kNoNode, to = kNoNode;
  uint64_t number = 0;
  uint32_t op = 0;
  int32_t code = 0;
  std::string text;
};

// Parts of messages, for those that have them too (place.h).
void put(const wire::Resources& amounts, wire::Writer* w);
void get(wire::Cursor* r, wire::Resources* out);
void put(const Load& load, wire::Writer* w);
void get(wire::Cursor* r, Load* out);

std::string encode(const Message& m);
Status decode(std::string_view bytes, Message* out);
// A row as a map of columns: for queries, the control store and files.
void pack_row(const Row& row, wire::Writer* out);
size_t encoded_size(const About& about);
// Of the dead the rows of the last `max` deaths stay.
void trim_dead(std::map<NodeIndex, Row>* rows, size_t max = kMaxDead);

}  // namespace ray::cluster
