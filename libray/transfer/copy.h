// What travels between nodes: one copy of an object, and its chunks. Used by every part of transfer.
//
// A copy is named by the object's id and its making: an id that is made again, by a task that runs again, has another
// making, maybe with other bytes. All copies of one making are the same bytes, so a chunk of it may come from anywhere
// and as often as it likes; chunks of different makings are never put together.
#pragma once
#include <bit>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "libray/base/ids.h"

namespace ray::transfer {

// A node for as long as it lives: the cluster's index of it and an epoch, from 1. One that starts again is another place.
struct Place {
  uint32_t node = 0, epoch = 0;
  friend auto operator<=>(const Place&, const Place&) = default;
};

struct Copy {
  ObjectId id;
  uint64_t making = 0;
  friend bool operator==(const Copy& a, const Copy& b) { return a.id == b.id && a.making == b.making; }
  friend bool operator<(const Copy& a, const Copy& b) { return a.id == b.id ? a.making < b.making : a.id < b.id; }
};

inline constexpr uint64_t kUnknownSize = UINT64_MAX;
inline constexpr uint64_t kMaxObject = uint64_t{1} << 44;
inline constexpr uint32_t kMaxChunks = 1u << 20;

// All nodes of a cluster cut alike. An object of no bytes has one chunk of no bytes, so that it travels like others.
inline uint64_t chunks_of(uint64_t size, uint32_t chunk) { return size <= chunk ? 1 : (size + chunk - 1) / chunk; }
inline uint32_t length_of(uint64_t size, uint32_t chunk, uint64_t index) {
  const uint64_t at = index * chunk;
  return static_cast<uint32_t>(size - at < chunk ? size - at : chunk);
}
inline bool size_is_fine(uint64_t size, uint32_t chunk) {
  return size <= kMaxObject && chunks_of(size, chunk) <= kMaxChunks;
}

// A set of chunks.
class Bits {
 public:
  Bits() = default;
  explicit Bits(size_t n) : n_(n), words_((n + 63) / 64) {}
  size_t size() const { return n_; }
  bool test(size_t i) const { return i < n_ && (words_[i / 64] >> i % 64 & 1); }
  void set(size_t i) { words_[i / 64] |= uint64_t{1} << i % 64; }
  void clear(size_t i) {
    if (i < n_) words_[i / 64] &= ~(uint64_t{1} << i % 64);
  }
  size_t count() const {
    size_t sum = 0;
    for (uint64_t w : words_) sum += static_cast<size_t>(std::popcount(w));
    return sum;
  }
  // 64 members from i * 64 on; those beyond the end are not in it.
  uint64_t word(size_t i) const { return i < words_.size() ? words_[i] : 0; }
  size_t words() const { return words_.size(); }
  void set_word(size_t i, uint64_t w) {
    words_[i] = i + 1 == words_.size() && n_ % 64 ? w & ((uint64_t{1} << n_ % 64) - 1) : w;
  }
  friend bool operator==(const Bits&, const Bits&) = default;

 private:
  size_t n_ = 0;
  std::vector<uint64_t> words_;
};

}  // namespace ray::transfer
