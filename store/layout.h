// What the store's processes share: memory layouts, ring records and socket messages. The only
// place where they are defined; client, daemon and the inspector include it. docs/store.md explains
// them.
//
// Every shared word has one writer at a time (noted beside it); hand-over is a release store that
// the other side acquires. Nothing here is trusted by the daemon when a client wrote it.
#pragma once
#include <atomic>
#include <cstdint>
#include <cstring>

#include "libray/base/ids.h"
#include "libray/base/ring.h"
#include "libray/wire/protocol.h"

namespace ray::store {

using wire::Location;

inline constexpr uint32_t kStoreMagic = 0x53594152;  // "RAYS"
inline constexpr uint32_t kStoreVersion = 2;
inline constexpr uint64_t kLine = 64;
inline constexpr uint64_t kPage = 4096;

inline constexpr uint64_t round_up(uint64_t n, uint64_t to) { return (n + to - 1) / to * to; }

// ---- names of the memfds: the inspector finds them under /proc/PID/fd --------------------------
inline constexpr char kDirectoryName[] = "libray-store-directory";
inline constexpr char kControlName[] = "libray-store-control-";  // + segment number
inline constexpr char kDataName[] = "libray-store-data-";        // + segment number

// ---- data memfd: one per client, and segment 1 for the daemon's own (restored objects)
// ----------- Lease table, then the arena. The arena is cut into *extents*, runs of whole units
// that the daemon leases to the segment's owner. Each lease has a generation of its own; the lease
// table says, for every unit, the generation of the lease it belongs to (0 = none). The table is
// written by the daemon alone: before an extent is leased again, its units change (I3), so a
// location of an earlier lease never validates, whatever bytes lie there now. Inside an extent,
// objects follow each other: ObjectHeader, payload, padding to 64 bytes.
inline constexpr uint64_t kUnit = 16 << 10;
inline constexpr uint64_t kDaemonSegment = 1;

struct DataGeometry {  // pure function of the arena's size; both sides compute it
  uint64_t arena_bytes = 0;
  uint64_t units() const { return arena_bytes / kUnit; }
  uint64_t arena_at() const { return round_up(units() * sizeof(uint32_t), 2 << 20); }
  uint64_t total() const { return arena_at() + arena_bytes; }
};

enum ObjectState : uint32_t {
  kEmpty = 0,      // never written, or the memory was given back
  kBuilding = 1,   // owner fills it
  kSealed = 2,     // the only state that a reader accepts
  kCondemned = 3,  // daemon: about to be freed or moved; new pins are refused
  kAborted = 4,    // owner gave it up
};
inline constexpr uint64_t state_word(uint32_t generation, ObjectState s) {
  return static_cast<uint64_t>(generation) << 32 | s;
}
struct alignas(64) ObjectHeader {
  // Owner until the publish record is committed, then the daemon alone.
  std::atomic<uint64_t> state;  // state_word
  uint64_t size;                // of the payload
  ObjectId id;
  uint64_t reserved[3];
};
static_assert(sizeof(ObjectHeader) == kLine);

inline constexpr uint64_t footprint(uint64_t payload) {
  return sizeof(ObjectHeader) + round_up(payload ? payload : 1, kLine);
}

// ---- control memfd: one per client; mapped by the client and the daemon only -------------------
struct ControlHeader {
  uint32_t magic, version, segment;  // daemon, before the client sees it
  int32_t pid;
  alignas(64) RingWords publish;  // client -> daemon
  alignas(64) RingWords returns;  // daemon -> client
  // Client: number of hold words that were ever used, and how many pins it ever made.
  alignas(64) std::atomic<uint32_t> hold_limit;
  std::atomic<uint64_t> recent_count;
  // Client: odd while a thread of it sleeps on its socket.
  alignas(64) std::atomic<uint32_t> client_asleep;
  // Daemon: 1 = say so (kUnpinned) when a pin ends: something condemned waits for it.
  alignas(64) std::atomic<uint32_t> unpin_wanted;
};
inline constexpr uint64_t kPublishAt = 4096;
inline constexpr uint64_t kPublishBytes = 128 << 10;
inline constexpr uint64_t kReturnsAt = kPublishAt + kPublishBytes;
inline constexpr uint64_t kReturnsBytes = 64 << 10;
inline constexpr uint64_t kRecentAt = kReturnsAt + kReturnsBytes;
// Places of the last pins (u64 each), circular: feeds the LRU order.
inline constexpr uint32_t kRecent = 1024;
inline constexpr uint64_t kHoldsAt = kRecentAt + kRecent * 8;
inline constexpr uint32_t kHolds = 1 << 20;
inline constexpr uint64_t kControlBytes = kHoldsAt + kHolds * 8ull;
static_assert(sizeof(ControlHeader) <= kPublishAt && kHoldsAt % 4096 == 0);

// A hold word: which object a pin protects. 0 = free. Never 0 for a real place: segments count
// from 1.
inline constexpr uint64_t hold_word(uint32_t segment, uint64_t offset) {
  return static_cast<uint64_t>(segment & 0xFFFFFF) << 40 | (offset / kLine);
}
inline constexpr uint64_t kMaxArena = uint64_t{1} << 42;

// ---- directory memfd: written by the daemon alone ----------------------------------------------
// An id may have several copies: a task that ran twice sealed its result twice, maybe with other bytes.
// Where a copy was sealed is its name for as long as it lives, also after it was moved: generations are
// never used again, and an extent with more than one object is smaller than 2^16 lines.
using CopyName = uint64_t;  // 0: none
inline constexpr CopyName copy_name(const Location& at) {
  return static_cast<uint64_t>(at.generation) << 16 | (at.offset / kLine & 0xFFFF);
}
inline constexpr uint64_t kMaxSmallExtent = 1 << 20;
static_assert(kMaxSmallExtent <= kLine << 16);

enum DirectoryState : uint32_t { kDirEmpty = 0, kDirMemory = 1, kDirSpilled = 2 };
struct alignas(64) DirectoryEntry {  // eight words, so that racing reads are plain atomic loads
  std::atomic<uint64_t> w[8];  // [0] sequence (low half, odd = being written) and DirectoryState
};  // [1..3] id  [4] segment, generation  [5] offset  [6] size, low end of the name  [7] object, the rest
// How deep the daemon sleeps, and hence who must wake it.
enum Nap : uint32_t {
  kAwake = 0,
  kDozing = 1,  // for a millisecond at most: only questions, and a ring that fills up, wake it
  kAsleep = 2,  // until it is woken: everything does
};
inline constexpr uint32_t kRetiredLog = 1024;
struct DirectoryHeader {
  uint32_t magic, version;
  int32_t pid;
  uint32_t small_extent;  // bytes of an extent for small objects
  uint64_t capacity;
  uint64_t arena_bytes;                          // of every segment
  alignas(64) std::atomic<uint32_t> daemon_nap;  // number of the nap * 4 + Nap
  alignas(64) std::atomic<uint64_t> table;       // log2 of the table in use
  std::atomic<uint64_t> progress;  // bytes freed or spilled so far: who waits looks here
  // Counters for the inspector.
  alignas(64) std::atomic<uint64_t> used, objects, spilled_bytes, spilled_objects,
      restored_objects, waiting, clients;
  // Segments that are gone: clients unmap them.
  alignas(64) std::atomic<uint64_t> retired_count;
  std::atomic<uint32_t> retired[kRetiredLog];
};
// The table with 2^k entries lies at byte 64 * 2^k: tables of different sizes never overlap.
inline constexpr uint32_t kMinTableLog2 = 12, kMaxTableLog2 = 26;
inline constexpr uint64_t table_at(uint32_t log2) { return sizeof(DirectoryEntry) << log2; }
inline constexpr uint64_t kDirectoryBytes = 2 * table_at(kMaxTableLog2);
static_assert(sizeof(DirectoryHeader) <= table_at(kMinTableLog2));

// ---- records of the publish ring ---------------------------------------------------------------
enum PublishType : uint16_t {
  kPublish = 1,   // PublishRecord: a sealed object. Its commit is the ring's tail
  kDrop = 2,      // DropRecord
  kClose = 3,     // CloseRecord: nothing more will be published in this extent
  kLease = 4,     // LeaseRecord -> kGrant or kRefused
  kLocate = 5,    // LocateRecord -> kLocated or kRefused
  kAck = 6,       // AckRecord: the pin that kLocated allowed is in my hold table (or not wanted)
  kUnpinned = 7,  // no payload
  kForget = 8,    // AckRecord: nobody waits for the answer to this request any more
};
struct PublishRecord {
  ObjectId id;
  uint64_t offset, size;
  uint32_t extent;   // number that the grant gave
  uint16_t closes;   // 1: kClose as well
  uint16_t owner;    // process whose copy it is: it goes when that process dies; 0: nobody's
  uint32_t attempt;  // of the task that made it
  uint32_t reserved;
};
static_assert(sizeof(PublishRecord) == 56);
struct DropRecord {
  ObjectId id;
  Location hint;  // the copy; none: any
};
struct CloseRecord {
  uint32_t extent, reserved;
};
enum LeaseFlags : uint32_t {
  kLeaseSmall = 1,  // an extent for many small objects
  kLeaseAhead = 2,  // not needed yet: refuse rather than spill
};
struct LeaseRecord {
  uint64_t request, bytes;
  int64_t timeout_ns;  // without progress
  uint32_t flags, reserved;
};
struct LocateRecord {
  uint64_t request;  // 0: bring it back, but do not answer
  ObjectId id;
  CopyName copy;  // 0: any
  int64_t timeout_ns;
  uint32_t may_be_apart, reserved;  // 1: a copy in memory of its own will do, when there is no room in the store
};
struct AckRecord {
  uint64_t request;
};

// ---- records of the return ring ----------------------------------------------------------------
enum ReturnType : uint16_t { kGrant = 1, kLocated = 2, kRefused = 3 };
struct GrantRecord {
  uint64_t request;
  uint32_t extent, generation;
  uint64_t offset, bytes;
  uint32_t cold;  // 1: pages are new to the owner: map them in one go
  uint32_t reserved;
};
struct LocatedRecord {
  uint64_t request;
  Location location;
};
struct RefusedRecord {  // + text
  uint64_t request;
  int32_t code;
  uint32_t size;
};

// ---- socket messages (SOCK_SEQPACKET) ----------------------------------------------------------
inline constexpr uint32_t kTokenMax = 128;
struct StoreHello {  // client -> daemon, first
  uint32_t magic, version;
  uint32_t token_size;
  uint32_t process;  // index on the node; 0: none
  char token[kTokenMax];
};
enum SocketType : uint32_t {
  kMsgWelcome = 1,  // daemon -> client: StoreWelcome with [control, data, directory], or a refusal
  kMsgMapped = 2,   // client -> daemon: I mapped my segment, seal it
  kMsgWake = 3,     // either way: look at the ring
  kMsgSegment = 4,  // SegmentMessage: client asks; daemon answers with a read-only descriptor
  kMsgApart = 5,    // daemon -> client: SegmentMessage that answers kLocate with a read-only descriptor of a copy
};
struct StoreWelcome {
  uint32_t type;
  int32_t code;
  uint32_t segment, reserved;
  char text[112];  // when code is not RAY_OK
};
struct SegmentMessage {
  uint32_t type, segment;
  uint64_t request;
  int32_t code;
  uint32_t reserved;
};
struct PlainMessage {
  uint32_t type;
};
inline constexpr size_t kMessageMax = 512;

}  // namespace ray::store
