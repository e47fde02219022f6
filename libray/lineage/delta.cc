// See delta.h.
#include "libray/lineage/delta.h"

#include <cstring>

#include "libray/base/ring.h"
#include "libray/lineage/reader.h"
#include "libray/lineage/record.h"

namespace ray::lineage {
namespace {

constexpr uint8_t kWhole = 0, kForget = 0xFF;
constexpr size_t kGrow = 32 << 10;

uint8_t* put_varint(uint8_t* at, uint64_t difference) {
  uint64_t v = (difference << 1) ^ (0 - (difference >> 63));
  for (; v >= 0x80; v >>= 7) *at++ = static_cast<uint8_t>(v | 0x80);
  *at++ = static_cast<uint8_t>(v);
  return at;
}

uint64_t word_at(const uint8_t* at) {
  uint64_t w;
  std::memcpy(&w, at, sizeof w);
  return w;
}

bool take_varint(const uint8_t*& at, const uint8_t* end, uint64_t* difference) {
  uint64_t v = 0;
  for (int shift = 0; shift < 64; shift += 7) {
    if (at == end) return false;
    uint8_t b = *at++;
    v |= uint64_t{b & 0x7Fu} << shift;
    if (b < 0x80) {
      *difference = (v >> 1) ^ (0 - (v & 1));
      return true;
    }
  }
  return false;
}

}  // namespace

void DeltaLast::set(const uint8_t* payload, uint32_t n) {
  size = n;
  if (n % 8) words[n / 8] = 0;
  std::memcpy(words, payload, n);
}

uint32_t DeltaCoder::code(uint16_t type, const uint8_t* payload, uint32_t size, uint8_t* out) {
  if (!codable(type, size)) return 0;
  DeltaLast& last = last_[type];
  if (last.size != size) {
    last.set(payload, size);
    return 0;
  }
  const uint32_t whole = size / 8, words = (size + 7) / 8, mask_bytes = (words + 7) / 8;
  uint8_t* at = out + 1 + mask_bytes;
  uint64_t mask = 0;
  out[0] = static_cast<uint8_t>(type);
  auto put = [&](uint32_t i, uint64_t difference) {
    if (difference == 0) return;
    last.words[i] += difference;
    mask |= uint64_t{1} << i;
    at = put_varint(at, difference);
  };
  // Most words are those of the last record: four at a time.
  uint32_t i = 0;
  for (; i + 4 <= whole; i += 4) {
    const uint8_t* p = payload + 8 * i;
    const uint64_t* l = last.words + i;
    const uint64_t d0 = word_at(p) - l[0], d1 = word_at(p + 8) - l[1], d2 = word_at(p + 16) - l[2],
                   d3 = word_at(p + 24) - l[3];
    if ((d0 | d1 | d2 | d3) == 0) continue;
    put(i, d0);
    put(i + 1, d1);
    put(i + 2, d2);
    put(i + 3, d3);
  }
  for (; i < whole; ++i) put(i, word_at(payload + 8 * i) - last.words[i]);
  if (i < words) {
    uint64_t rest = 0;
    std::memcpy(&rest, payload + 8 * i, size % 8);
    put(i, rest - last.words[i]);
  }
  std::memcpy(out + 1, &mask, mask_bytes);
  return static_cast<uint32_t>(at - out);
}

bool DeltaMirror::restore(uint16_t* type, const uint8_t** payload, uint32_t* size) {
  if (*type != kCoded) {
    if (!DeltaCoder::codable(*type, *size)) return true;
    last_[*type].set(*payload, *size);
    *payload = last_[*type].bytes();
    return true;
  }
  const uint8_t *at = *payload, *end = at + *size;
  if (at == end) return false;
  const uint8_t t = *at++;
  if (t == 0 || t >= kDeltaTypes || last_[t].size == 0) return false;
  DeltaLast& last = last_[t];
  const uint32_t words = (last.size + 7) / 8, mask_bytes = (words + 7) / 8;
  if (static_cast<size_t>(end - at) < mask_bytes) return false;
  uint64_t mask = 0;
  std::memcpy(&mask, at, mask_bytes);
  at += mask_bytes;
  if (mask >> words) return false;
  for (; mask; mask &= mask - 1) {
    uint64_t difference;
    if (!take_varint(at, end, &difference)) return false;
    last.words[__builtin_ctzll(mask)] += difference;
  }
  *type = t;
  *payload = last.bytes();
  *size = last.size;
  return at == end;
}

void DeltaEncoder::add(uint16_t type, const uint8_t* payload, uint32_t size) {
  if (out_.empty()) out_.push_back(static_cast<char>(kForget));
  raw_ += sizeof(RecordHeader) + pad8(size);
  ++n_;
  uint8_t coded[DeltaCoder::kMaxCoded];
  const uint32_t n = coder_.code(type, payload, size, coded);
  if (out_.capacity() - out_.size() < sizeof coded) out_.reserve(out_.capacity() * 2 + kGrow);
  if (n) {
    out_.append(reinterpret_cast<const char*>(coded), n);
    return;
  }
  RecordHeader h{static_cast<uint32_t>(sizeof(RecordHeader) + size), type, 0};
  out_.push_back(static_cast<char>(kWhole));
  out_.append(reinterpret_cast<const char*>(&h), sizeof h);
  out_.append(reinterpret_cast<const char*>(coder_.whole(type, payload, size)), size);
  out_.append(pad8(size) - size, '\0');
}

bool DeltaEncoder::add_batch(std::string_view batch) {
  uint16_t type;
  std::string_view payload;
  BatchReader check(batch);
  while (check.next(&type, &payload)) {
  }
  if (check.corrupt()) return false;
  BatchReader reader(batch);
  while (reader.next(&type, &payload))
    add(type, reinterpret_cast<const uint8_t*>(payload.data()), static_cast<uint32_t>(payload.size()));
  return true;
}

bool delta_decode(std::string_view stream, uint64_t raw_size, std::string* batch) {
  struct {
    uint64_t at = 0;
    uint32_t size = 0;
  } last[kDeltaTypes];
  batch->clear();
  batch->reserve(raw_size);
  const auto* at = reinterpret_cast<const uint8_t*>(stream.data());
  const auto* end = at + stream.size();
  while (at != end) {
    uint8_t control = *at++;
    if (control == kForget) {
      for (auto& l : last) l.size = 0;
      continue;
    }
    RecordHeader h;
    if (control == kWhole) {
      if (static_cast<size_t>(end - at) < sizeof h) return false;
      std::memcpy(&h, at, sizeof h);
      uint64_t padded = pad8(h.size);
      if (h.size < sizeof h || padded > static_cast<uint64_t>(end - at)) return false;
      if (batch->size() + padded > raw_size) return false;
      if (DeltaCoder::codable(h.type, h.size - sizeof h)) last[h.type] = {batch->size(), h.size};
      batch->append(reinterpret_cast<const char*>(at), padded);
      at += padded;
      continue;
    }
    if (control >= kDeltaTypes || last[control].size == 0) return false;
    auto& l = last[control];
    uint64_t padded = pad8(l.size), words = padded / 8 - 1, start = batch->size(), mask = 0;
    size_t mask_bytes = (words + 7) / 8;
    if (start + padded > raw_size || static_cast<size_t>(end - at) < mask_bytes) return false;
    std::memcpy(&mask, at, mask_bytes);
    at += mask_bytes;
    if (words < 64 && mask >> words) return false;
    batch->append(batch->data() + l.at, padded);  // reserved: it does not move
    for (; mask; mask &= mask - 1) {
      char* to = batch->data() + start + sizeof h + 8 * static_cast<size_t>(__builtin_ctzll(mask));
      uint64_t w, difference;
      if (!take_varint(at, end, &difference)) return false;
      std::memcpy(&w, to, 8);
      w += difference;
      std::memcpy(to, &w, 8);
    }
    l.at = start;
  }
  return batch->size() == raw_size;
}

}  // namespace ray::lineage
