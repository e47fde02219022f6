// Delta coding of lineage records: neighbours in a journal differ in an index and a time, so a record
// is written as its difference from the last one of the same type and size. Some ten bytes a task.
//
// Who calls it: the journal pump and the control store's client encode, readers of the journal decode.
// Threads: any; an encoder belongs to one. Invariant: each word of a record is read once (it may lie in
// a ring that its producer can still write to); a decoder follows no length that does not fit.
//
// Stream: per record one control byte: 0 = RecordHeader and padded payload follow as they are;
// 0xFF = forget the last records (begins every stream, so streams may be joined); else the type: a bit
// per 8-byte word of the payload follows (1 = changed), then for each changed word the zigzag varint
// of its difference.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace ray::lineage {

class DeltaEncoder {
 public:
  // Appends one record with `size` payload bytes, readable up to the next multiple of 8.
  void add(uint16_t type, const uint8_t* payload, uint32_t size);
  // All records of a batch (record.h); false = damaged, nothing was added.
  bool add_batch(std::string_view batch);
  const std::string& bytes() const { return out_; }
  std::string take() { return std::move(out_); }
  uint64_t raw_size() const { return raw_; }
  uint32_t records() const { return n_; }

 private:
  static constexpr uint32_t kTypes = 5, kMaxWords = 48;
  struct Last {
    uint32_t size = 0;
    uint64_t words[kMaxWords];
  };
  void add_whole(uint16_t type, const uint8_t* payload, uint32_t size);

  std::string out_;
  uint64_t raw_ = 0;
  uint32_t n_ = 0;
  Last last_[kTypes];
};

// Back to a batch of `raw_size` bytes; false = damaged.
bool delta_decode(std::string_view stream, uint64_t raw_size, std::string* batch);

}  // namespace ray::lineage
