// See ids.h.
#include "libray/base/ids.h"

#include <sys/random.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace ray {

std::string Id::hex() const {
  static const char digits[] = "0123456789abcdef";
  std::string s(2 * kIdSize, '0');
  for (size_t i = 0; i < kIdSize; ++i) {
    s[2 * i] = digits[b[i] >> 4];
    s[2 * i + 1] = digits[b[i] & 15];
  }
  return s;
}

bool Id::from_hex(std::string_view text, Id* out) {
  if (text.size() != 2 * kIdSize) return false;
  auto digit = [](char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
  };
  Id id;
  for (size_t i = 0; i < kIdSize; ++i) {
    int high = digit(text[2 * i]), low = digit(text[2 * i + 1]);
    if (high < 0 || low < 0) return false;
    id.b[i] = static_cast<uint8_t>(high << 4 | low);
  }
  *out = id;
  return true;
}

Origin origin_of(const TaskId& parent) {
  XXH128_canonical_t c;
  XXH128_canonicalFromHash(&c, XXH3_128bits(parent.b, kIdSize));
  Origin o;
  std::memcpy(o.b, c.digest, sizeof o.b);
  return o;
}

Id random_id() {
  Id id;
  size_t got = 0;
  while (got < kIdSize) {
    ssize_t n = ::getrandom(id.b + got, kIdSize - got, 0);
    if (n > 0) got += static_cast<size_t>(n);
  }
  return id;
}

TaskId root_task(const JobId& job) { return child_task(origin_of(job), 0); }

TaskId worker_root(const JobId& job, uint64_t spawn) {
  return child_task(origin_of(job), static_cast<uint32_t>(spawn % UINT32_MAX) + 1);
}

TaskId actor_root(const ActorId& actor, uint32_t incarnation) {
  return child_task(origin_of(actor), incarnation);
}

Origin origin_of_part(const TaskId& parent, uint32_t what, uint32_t k) {
  Id part = child_task(origin_of(parent), k);
  part.set_object_index(what);
  return origin_of(part);
}

bool is_child_of(const TaskId& parent, const TaskId& id) {
  auto has = [&id](const Origin& o) { return std::memcmp(o.b, id.b, sizeof o.b) == 0; };
  if (has(origin_of(parent))) return true;
  constexpr uint32_t kMostParts = 64, kMostAttempts = 4096;
  for (uint32_t k = 1; k <= kMostParts; ++k)
    if (has(origin_of_part(parent, kTasksPartIndex, k))) return true;
  for (uint32_t k = 1; k <= kMostAttempts; ++k)
    if (has(origin_of_part(parent, kAttemptIndex, k))) return true;
  return false;
}

bool is_root_of(const Id& job_or_actor, const TaskId& id) {
  const Origin o = origin_of(job_or_actor);
  return std::memcmp(o.b, id.b, sizeof o.b) == 0 && id.object_index() == 0;
}

uint64_t hash_id(const Id& id, uint64_t seed) {
  uint64_t w[3];
  std::memcpy(w, id.b, kIdSize);
  uint64_t h = (w[0] ^ seed) * 0x9E3779B97F4A7C15ull;
  h = (h ^ (h >> 32) ^ w[1]) * 0xC2B2AE3D27D4EB4Full;
  h = (h ^ (h >> 29) ^ w[2]) * 0x165667B19E3779F9ull;
  // The indexes are big endian: their low bytes sit at the top of w[2], where one multiplication
  // carries them nowhere. A second one brings them into every bit.
  h = (h ^ (h >> 32)) * 0xD6E8FEB86659FD93ull;
  return h ^ (h >> 32);
}

uint32_t gcs_slot(const Id& id) {
  uint64_t first = XXH3_64bits(id.b, sizeof(Origin));
  return static_cast<uint32_t>((first + (id.submit_index() >> 8)) % kGcsSlots);
}

uint32_t gcs_slot_of_key(const void* key, size_t size) {
  return static_cast<uint32_t>(XXH3_64bits(key, size) % kGcsSlots);
}

}  // namespace ray
