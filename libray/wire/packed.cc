// See packed.h.
#include "libray/wire/packed.h"

namespace ray::wire {
namespace {

struct ErrorHeader {
  int32_t code;
  uint32_t payload_format, message_size, reserved;
};

uint64_t align_to(uint64_t n, uint64_t a) { return (n + a - 1) & ~(a - 1); }

uint64_t frame_size(uint64_t n_oob, uint64_t n_refs) {
  return sizeof(PackedHeader) + 8 * n_oob + sizeof(PackedRef) * n_refs;
}

}  // namespace

Status packed_size(const ray_value& v, uint64_t* size) {
  constexpr uint64_t kMax = uint64_t{1} << 46;
  if (v.n_refs > kMaxRefs) return error(RAY_INVALID_ARGUMENT, "value has more than 2^24 references");
  if (v.n_oob > (1u << 24)) return error(RAY_INVALID_ARGUMENT, "value has more than 2^24 buffers");
  if (v.size > kMax) return error(RAY_INVALID_ARGUMENT, "value of %zu bytes is too large", v.size);
  uint64_t n = frame_size(v.n_oob, v.n_refs) + v.size;
  for (size_t i = 0; i < v.n_oob; ++i) {
    if (v.oob[i].size > kMax)
      return error(RAY_INVALID_ARGUMENT, "buffer %zu of %zu bytes is too large", i, v.oob[i].size);
    n = align_to(n, kOobAlign) + v.oob[i].size;
    if (n > kMax) return error(RAY_INVALID_ARGUMENT, "value is too large");
  }
  *size = n;
  return Status();
}

void pack_frame(const ray_value& v, const PackedRef* refs, uint8_t* image, uint8_t** data,
                std::vector<uint8_t*>* oob) {
  PackedHeader h{kPackedMagic, v.format, v.n_refs, static_cast<uint32_t>(v.n_oob), v.size};
  std::memcpy(image, &h, sizeof h);
  uint8_t* at = image + sizeof h;
  for (size_t i = 0; i < v.n_oob; ++i, at += 8) {
    uint64_t n = v.oob[i].size;
    std::memcpy(at, &n, 8);
  }
  if (v.n_refs) std::memcpy(at, refs, sizeof(PackedRef) * v.n_refs);
  at += sizeof(PackedRef) * v.n_refs;
  *data = at;
  uint64_t offset = static_cast<uint64_t>(at - image) + v.size;
  oob->resize(v.n_oob);
  for (size_t i = 0; i < v.n_oob; ++i) {
    offset = align_to(offset, kOobAlign);
    (*oob)[i] = image + offset;
    offset += v.oob[i].size;
  }
}

bool unpack(const void* image, uint64_t size, PackedView* out) {
  const uint8_t* p = static_cast<const uint8_t*>(image);
  PackedHeader h;
  if (size < sizeof h) return false;
  std::memcpy(&h, p, sizeof h);
  if (h.magic != kPackedMagic) return false;
  // Every product fits 64 bits: both counts are below 2^32.
  uint64_t frame = frame_size(h.n_oob, h.n_refs);
  if (frame > size || h.size > size - frame) return false;
  out->format = h.format;
  out->n_refs = h.n_refs;
  out->refs = p + sizeof h + 8 * uint64_t{h.n_oob};
  out->data = p + frame;
  out->size = h.size;
  out->oob.clear();
  out->oob.reserve(h.n_oob);
  uint64_t offset = frame + h.size;
  for (uint32_t i = 0; i < h.n_oob; ++i) {
    uint64_t n;
    std::memcpy(&n, p + sizeof h + 8 * uint64_t{i}, 8);
    offset = align_to(offset, kOobAlign);
    if (offset > size || n > size - offset) return false;
    out->oob.push_back({p + offset, static_cast<size_t>(n)});
    offset += n;
  }
  return true;
}

std::string pack_error(ray_code code, std::string_view message, uint32_t payload_format,
                       std::string_view payload) {
  ErrorHeader e{code, payload_format, static_cast<uint32_t>(message.size()), 0};
  PackedHeader h{kPackedMagic, kFmtError, 0, 0, sizeof e + message.size() + payload.size()};
  std::string s;
  s.reserve(sizeof h + h.size);
  s.append(reinterpret_cast<const char*>(&h), sizeof h);
  s.append(reinterpret_cast<const char*>(&e), sizeof e);
  s.append(message);
  s.append(payload);
  return s;
}

bool unpack_error(const void* image, uint64_t size, ray_code* code, std::string* message,
                  uint32_t* payload_format, std::string* payload) {
  PackedView v;
  ErrorHeader e;
  if (!unpack(image, size, &v) || v.format != kFmtError || v.size < sizeof e) return false;
  std::memcpy(&e, v.data, sizeof e);
  uint64_t rest = v.size - sizeof e;
  if (e.message_size > rest || e.code == RAY_OK) return false;
  const char* text = reinterpret_cast<const char*>(v.data + sizeof e);
  *code = e.code;
  message->assign(text, e.message_size);
  *payload_format = e.payload_format;
  payload->assign(text + e.message_size, rest - e.message_size);
  return true;
}

}  // namespace ray::wire
