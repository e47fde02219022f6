// What the stepped client writes and the auditor expects.
#pragma once
#include <cstdint>
#include <cstring>

#include "store/client.h"

namespace ray::store {

inline constexpr uint64_t kCrashSizes[2] = {200, 1000};

inline ObjectId crash_id(uint64_t n) {
  ObjectId id;
  std::memset(id.b, 0xc5, sizeof id.b);
  std::memcpy(id.b, &n, sizeof n);
  return id;
}
inline uint64_t crash_number(const ObjectId& id) {
  uint64_t n;
  std::memcpy(&n, id.b, sizeof n);
  return n;
}
// Never zero, so that memory that was not written never passes for payload.
inline uint8_t crash_byte(uint64_t n, uint64_t i) {
  return static_cast<uint8_t>(1 + (n * 31 + i * 7) % 255);
}

}  // namespace ray::store
