// Packed values: one contiguous image of a value with its out-of-band buffers and its contained
// references. It is what lies in the store, and in rings for small values that are not plain bytes.
//
//   PackedHeader | u64 oob size [n_oob] | PackedRef [n_refs] | data | pad to 64 | oob 0 | pad | oob 1 …
//
// Offsets are relative to the image, whose start is 64-byte aligned in the store. An error is a packed
// value of format kFmtError: {i32 code, u32 payload format, u32 message size, u32 0, message, payload}.
// Pure functions; unpack() trusts nothing that it reads. Callers: runtime, tools, tests.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "libray/base/status.h"
#include "libray/wire/protocol.h"
#include "ray.h"

namespace ray::wire {

inline constexpr uint32_t kFmtError = 0xFFFFFFFFu;
inline constexpr uint32_t kPackedMagic = 0x4B434150;  // "PACK"
inline constexpr uint32_t kMaxRefs = 1u << 24;
inline constexpr uint64_t kOobAlign = 64;

struct PackedHeader {
  uint32_t magic, format;
  uint32_t n_refs, n_oob;
  uint64_t size;
};
struct PackedRef {
  ObjectId id;
  Location hint;
};

// Sizes of a value that is to be packed; RAY_INVALID_ARGUMENT for impossible ones.
Status packed_size(const ray_value& shape, uint64_t* size);
// Writes header, sizes and references into `image` and tells where data and buffers go.
// refs[i] come from the caller, who knows ids and hints.
void pack_frame(const ray_value& shape, const PackedRef* refs, uint8_t* image, uint8_t** data,
                std::vector<uint8_t*>* oob);

struct PackedView {
  uint32_t format = 0;
  const uint8_t* data = nullptr;
  uint64_t size = 0;
  const uint8_t* refs = nullptr;  // n_refs x PackedRef, unaligned
  uint32_t n_refs = 0;
  std::vector<ray_bytes> oob;
  PackedRef ref(uint32_t i) const {
    PackedRef r;
    std::memcpy(&r, refs + sizeof(PackedRef) * i, sizeof r);
    return r;
  }
};
// False when the bytes are not a packed value of at most `size` bytes.
bool unpack(const void* image, uint64_t size, PackedView* out);

std::string pack_error(ray_code code, std::string_view message, uint32_t payload_format,
                       std::string_view payload);
bool unpack_error(const void* image, uint64_t size, ray_code* code, std::string* message,
                  uint32_t* payload_format, std::string* payload);

}  // namespace ray::wire
