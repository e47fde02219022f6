// Delta coding of lineage records: neighbours differ in an index and a time, so a record is written as
// its difference from the last one of the same type and size. Some ten bytes a task.
//
// Who calls it: a process codes what it writes to its lineage ring (DeltaCoder), the journal pump reads
// that (DeltaMirror) and codes anew for each shard's journal (DeltaEncoder), readers of the journal
// decode (delta_decode). Threads: any; an object belongs to one. Invariants: each byte of a ring is read
// once (its producer can still write to it); a decoder follows no length that does not fit.
//
// Coded record: the type in a byte, a bit per 8-byte word of the payload (1 = changed), then for each
// changed word the zigzag varint of its difference. In a ring it is the payload of a kCoded record, and
// records that cannot be coded stand whole between them. Stream: one after the other, each begun by its
// type; 0 instead = RecordHeader and padded payload follow as they are; 0xFF = forget the last records
// (begins every stream, so streams may be joined).
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace ray::lineage {

inline constexpr uint32_t kDeltaTypes = 5, kDeltaWords = 48;  // larger records are never coded

// The last record of a type; size 0 = there is none.
struct DeltaLast {
  uint32_t size = 0;
  alignas(8) uint64_t words[kDeltaWords];
  const uint8_t* bytes() const { return reinterpret_cast<const uint8_t*>(words); }
  void set(const uint8_t* payload, uint32_t n);
};

class DeltaCoder {
 public:
  static constexpr uint32_t kMaxCoded = 1 + kDeltaWords / 8 + kDeltaWords * 10;
  static constexpr bool codable(uint16_t type, uint32_t size) {
    return type > 0 && type < kDeltaTypes && size > 0 && size <= kDeltaWords * 8;
  }
  // Writes the coded record to `out` (kMaxCoded bytes); returns its size. 0 = write it whole, as
  // whole() has it.
  uint32_t code(uint16_t type, const uint8_t* payload, uint32_t size, uint8_t* out);
  // After a 0 of code(): the bytes that the other side must be given.
  const uint8_t* whole(uint16_t type, const uint8_t* payload, uint32_t size) const {
    return codable(type, size) ? last_[type].bytes() : payload;
  }
  // The other side is not given what was coded last of this type: the next one goes whole.
  void forget(uint16_t type) { last_[type].size = 0; }

 private:
  DeltaLast last_[kDeltaTypes];
};

// The other side of a ring.
class DeltaMirror {
 public:
  // In: a record of the ring. Out: the record as it was before it was coded, valid until the next call
  // (or as long as the ring's bytes, if it stands whole). False = damaged.
  bool restore(uint16_t* type, const uint8_t** payload, uint32_t* size);

 private:
  DeltaLast last_[kDeltaTypes];
};

class DeltaEncoder {
 public:
  // Appends one record with `size` payload bytes.
  void add(uint16_t type, const uint8_t* payload, uint32_t size);
  // All records of a batch (record.h); false = damaged, nothing was added.
  bool add_batch(std::string_view batch);
  const std::string& bytes() const { return out_; }
  std::string take() { return std::move(out_); }
  uint64_t raw_size() const { return raw_; }
  uint32_t records() const { return n_; }

 private:
  std::string out_;
  uint64_t raw_ = 0;
  uint32_t n_ = 0;
  DeltaCoder coder_;
};

// Back to a batch of `raw_size` bytes; false = damaged.
bool delta_decode(std::string_view stream, uint64_t raw_size, std::string* batch);

}  // namespace ray::lineage
