// What nodes say to each other about objects, as bytes: fixed little-endian fields. Pure.
//
// Who: tests/transfer and fuzz/transfer.cc; a daemon would encode what planner, server and ledger want to say. Nobody
// vouches for the bytes: decode() takes nothing that is too long, cut off or of an unknown kind, and allocates no more
// than what it was given. Whether a message fits what was asked is for the planner, the server and the ledger to judge.
//
//   kAsk    receiver to source    this chunk, please; with kNoChunk: which have you, and tell me of new ones
//   kChunk  source to receiver    the bytes
//   kDeny   source to receiver    not this chunk: kAbsent has no such copy (evidence), kBusy serves others now, who are
//                                 named, kNotYet has other chunks so far, kLarge is not sent to who does not know the size
//   kHave   source to receiver    which chunks are here
//   kPeers  source to receiver    who else is getting it, or has got it from here
//   kTurn   source to receiver    you were told kBusy: ask again
//   kStop   receiver to source    nothing more of this; kDone: because it is all here
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "libray/base/status.h"
#include "libray/transfer/copy.h"

namespace ray::transfer {

enum class Kind : uint8_t { kAsk = 1, kChunk, kDeny, kHave, kPeers, kTurn, kStop };
enum class Why : uint8_t { kNone, kAbsent, kBusy, kNotYet, kLarge, kDone };

inline constexpr uint32_t kNoChunk = UINT32_MAX;
inline constexpr size_t kMaxPeers = 16;
inline constexpr uint32_t kMaxChunkBytes = 4u << 20;

struct Message {
  Kind kind = Kind::kAsk;
  Why why = Why::kNone;
  Copy copy;
  uint64_t size = kUnknownSize;  // of the object, as far as the sender knows
  uint32_t chunk = kNoChunk;
  Bits have;                     // kHave, kDeny with kNotYet
  std::vector<Place> peers;      // kPeers, kDeny with kBusy
  std::string_view bytes;        // kChunk: lives as long as what was decoded
};

void encode(const Message& m, std::string* out);
Status decode(std::string_view bytes, Message* out);
// Head of a kChunk whose bytes the daemon appends from where they lie.
std::string chunk_head(const Copy& copy, uint64_t size, uint32_t chunk, uint32_t length);

// Between ledgers (ledger.h says what they mean).
enum class LedgerKind : uint8_t { kLevel = 64, kLevelAck, kFloor, kBarrier, kBarrierAck, kArrived, kArrivedAck, kDrop };
struct LedgerMessage {
  LedgerKind kind = LedgerKind::kLevel;
  uint8_t bits = 0;
  ObjectId id;
  Place origin;          // kLevel: the first home
  uint64_t version = 0;  // kLevel, kLevelAck, kDrop; kArrived and its answer: number of the transit
  uint64_t floor = 0;    // kLevel, kFloor
  uint64_t view = 0;     // kLevel, kBarrier, kBarrierAck
};
void encode(const LedgerMessage& m, std::string* out);
Status decode(std::string_view bytes, LedgerMessage* out);

}  // namespace ray::transfer
