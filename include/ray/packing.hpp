// packing.hpp -- part of ray.hpp: MessagePack of plain things (numbers, texts, bytes, heads of
// arrays and maps), without exceptions and without memory of its own for small values. Whatever is
// larger goes through the msgpack library (values.hpp); this is the path of small tasks, and what
// programs without exceptions have.
//
// Invariants: a `cursor` never reads outside its view; after malformed bytes it is `bad` and stays
// so.
#pragma once
#include "base.hpp"

namespace ray::detail {

// Bytes that grow; the first ones lie in the object. Where msgpack::packer writes to.
class bytes_out {
 public:
  bytes_out() = default;
  bytes_out(const bytes_out&) = delete;
  bytes_out& operator=(const bytes_out&) = delete;
  ~bytes_out() {
    if (data_ != inline_) std::free(data_);
  }
  void write(const char* data, size_t size) {
    char* at = grow(size);
    if (size) std::memcpy(at, data, size);
  }
  char* grow(size_t n) {
    if (__builtin_expect(size_ + n > capacity_, 0)) reserve(size_ + n);
    char* at = data_ + size_;
    size_ += n;
    return at;
  }
  const char* data() const { return data_; }
  size_t size() const { return size_; }
  std::string_view view() const { return {data_, size_}; }

 private:
  void reserve(size_t need) {
    size_t capacity = need > 2 * capacity_ ? need : 2 * capacity_;
    char* larger = static_cast<char*>(std::malloc(capacity));
    if (!larger) no_memory();
    std::memcpy(larger, data_, size_);
    if (data_ != inline_) std::free(data_);
    data_ = larger;
    capacity_ = capacity;
  }
  [[noreturn]] static void no_memory() {
#if defined(RAY_HAS_EXCEPTIONS)
    throw std::bad_alloc();
#else
    std::abort();
#endif
  }
  char inline_[96];
  char* data_ = inline_;
  size_t size_ = 0, capacity_ = sizeof inline_;
};

// ---- writing

inline void put_big_endian(char* at, uint64_t v, int bytes) {
  for (int i = bytes - 1; i >= 0; --i, v >>= 8) at[i] = static_cast<char>(v);
}
inline void pack_tagged(bytes_out& out, uint8_t tag, uint64_t v, int bytes) {
  char* at = out.grow(1 + static_cast<size_t>(bytes));
  at[0] = static_cast<char>(tag);
  put_big_endian(at + 1, v, bytes);
}
inline void pack_byte(bytes_out& out, uint8_t b) { *out.grow(1) = static_cast<char>(b); }
inline void pack_nil(bytes_out& out) { pack_byte(out, 0xc0); }
inline void pack_bool(bytes_out& out, bool v) { pack_byte(out, v ? 0xc3 : 0xc2); }
inline void pack_unsigned(bytes_out& out, uint64_t v) {
  if (v < 0x80) return pack_byte(out, static_cast<uint8_t>(v));
  if (v <= 0xff) return pack_tagged(out, 0xcc, v, 1);
  if (v <= 0xffff) return pack_tagged(out, 0xcd, v, 2);
  if (v <= 0xffffffff) return pack_tagged(out, 0xce, v, 4);
  pack_tagged(out, 0xcf, v, 8);
}
inline void pack_signed(bytes_out& out, int64_t v) {
  if (v >= 0) return pack_unsigned(out, static_cast<uint64_t>(v));
  const auto bits = static_cast<uint64_t>(v);
  if (v >= -32) return pack_byte(out, static_cast<uint8_t>(bits));
  if (v >= INT8_MIN) return pack_tagged(out, 0xd0, bits, 1);
  if (v >= INT16_MIN) return pack_tagged(out, 0xd1, bits, 2);
  if (v >= INT32_MIN) return pack_tagged(out, 0xd2, bits, 4);
  pack_tagged(out, 0xd3, bits, 8);
}
inline void pack_float(bytes_out& out, float v) {
  uint32_t bits;
  std::memcpy(&bits, &v, sizeof bits);
  pack_tagged(out, 0xca, bits, 4);
}
inline void pack_double(bytes_out& out, double v) {
  uint64_t bits;
  std::memcpy(&bits, &v, sizeof bits);
  pack_tagged(out, 0xcb, bits, 8);
}
// The head of a container of n elements: fix form with up to fix_max, then the 8, 16 and 32 bit
// tags (0 = none).
inline void pack_head(bytes_out& out, uint8_t fix, uint32_t fix_max, uint8_t t8, uint8_t t16, uint8_t t32, size_t n) {
  if (fix && n <= fix_max) return pack_byte(out, static_cast<uint8_t>(fix | n));
  if (t8 && n <= 0xff) return pack_tagged(out, t8, n, 1);
  if (n <= 0xffff) return pack_tagged(out, t16, n, 2);
  pack_tagged(out, t32, n, 4);
}
inline void pack_array(bytes_out& out, size_t n) { pack_head(out, 0x90, 15, 0, 0xdc, 0xdd, n); }
inline void pack_map(bytes_out& out, size_t n) { pack_head(out, 0x80, 15, 0, 0xde, 0xdf, n); }
inline void pack_text(bytes_out& out, std::string_view s) {
  pack_head(out, 0xa0, 31, 0xd9, 0xda, 0xdb, s.size());
  out.write(s.data(), s.size());
}
// Whether others read it as a text. Most texts are ASCII: eight bytes at a time.
inline bool is_utf8(std::string_view s) {
  const auto* at = reinterpret_cast<const uint8_t*>(s.data());
  for (const uint8_t* const end = at + s.size(); at < end;) {
    uint64_t eight;
    if (end - at >= 8 && (std::memcpy(&eight, at, 8), (eight & 0x8080808080808080) == 0)) {
      at += 8;
      continue;
    }
    const uint8_t c = *at++;
    if (c < 0x80) continue;
    const int more = c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : 1;
    if (c < 0xc2 || c > 0xf4 || end - at < more) return false;
    // Not what fewer bytes would say, no surrogates, nothing beyond U+10FFFF.
    const uint8_t least = c == 0xe0 ? 0xa0 : c == 0xf0 ? 0x90 : 0x80, most = c == 0xed ? 0x9f : c == 0xf4 ? 0x8f : 0xbf;
    if (*at < least || *at > most) return false;
    for (int i = 1; i < more; ++i)
      if ((at[i] & 0xc0) != 0x80) return false;
    at += more;
  }
  return true;
}
inline void pack_bin(bytes_out& out, std::string_view s) {
  pack_head(out, 0, 0, 0xc4, 0xc5, 0xc6, s.size());
  out.write(s.data(), s.size());
}
// Extension 1 or 2: the index-th reference of the value.
inline void pack_reference(bytes_out& out, int8_t type, uint32_t index) {
  char* at = out.grow(6);
  at[0] = static_cast<char>(0xd6);
  at[1] = static_cast<char>(type);
  put_big_endian(at + 2, index, 4);
}
// {name: amount}; of `more` the bytes of further pairs.
inline void pack_amounts(bytes_out& out, const resources& amounts, size_t n_more = 0, std::string_view more = {}) {
  pack_map(out, amounts.size() + n_more);
  for (const auto& [name, amount] : amounts) {
    pack_text(out, name);
    pack_double(out, amount);
  }
  out.write(more.data(), more.size());
}

// ---- reading

enum class kind : uint8_t { nil, boolean, integer, real, text, bin, array, map, ext, bad };
inline const char* name_of(kind k) {
  static const char* const names[] = {"nil",   "a boolean", "an integer", "a number",     "a text",
                                      "bytes", "an array",  "a map",      "an extension", "malformed bytes"};
  return names[static_cast<int>(k)];
}

struct item {
  kind what = kind::bad;
  bool negative = false;  // of an integer: `number` is its two's complement
  int8_t ext_type = 0;
  uint64_t number = 0;  // integer; boolean; count of elements (array) or pairs (map)
  double real = 0;
  std::string_view bytes;  // text, bin, ext
};

class cursor {
 public:
  explicit cursor(std::string_view bytes)
      : at_(reinterpret_cast<const uint8_t*>(bytes.data())), end_(at_ + bytes.size()) {}
  bool at_end() const { return at_ == end_; }
  bool bad() const { return bad_; }
  std::string_view rest() const { return {reinterpret_cast<const char*>(at_), static_cast<size_t>(end_ - at_)}; }
  // The next value, or the head of the next container.
  item next() {
    item out;
    if (!has(1)) return out;
    const uint8_t tag = *at_++;
    if (tag < 0x80) return integer(tag, false);
    if (tag >= 0xe0) return integer(static_cast<uint64_t>(int64_t{static_cast<int8_t>(tag)}), true);
    if (tag < 0x90) return counted(kind::map, tag & 15u);
    if (tag < 0xa0) return counted(kind::array, tag & 15u);
    if (tag < 0xc0) return run(kind::text, tag & 31u);
    return tagged(tag);
  }
  // Passes over one whole value.
  bool skip() {
    for (uint64_t left = 1; left > 0; --left) {
      item i = next();
      if (i.what == kind::bad) return false;
      if (i.what == kind::array) left += i.number;
      if (i.what == kind::map) left += 2 * i.number;
    }
    return true;
  }

 private:
  bool has(uint64_t n) {
    if (bad_ || n > static_cast<uint64_t>(end_ - at_)) bad_ = true;
    return !bad_;
  }
  uint64_t take(int bytes) {
    uint64_t v = 0;
    for (int i = 0; i < bytes; ++i) v = v << 8 | *at_++;
    return v;
  }
  static item integer(uint64_t bits, bool negative) {
    item i;
    i.what = kind::integer;
    i.number = bits;
    i.negative = negative;
    return i;
  }
  item counted(kind k, uint64_t n) {
    item i;
    if (n > static_cast<uint64_t>(end_ - at_)) return bad_ = true, i;  // more elements than bytes
    i.what = k;
    i.number = n;
    return i;
  }
  item run(kind k, uint64_t n) {
    item i;
    if (!has(n)) return i;
    i.what = k;
    i.bytes = {reinterpret_cast<const char*>(at_), static_cast<size_t>(n)};
    at_ += n;
    return i;
  }
  item ext(uint64_t n) {
    if (!has(1)) return item();
    const auto type = static_cast<int8_t>(*at_++);
    item i = run(kind::ext, n);
    i.ext_type = type;
    return i;
  }
  item number(uint8_t tag) {
    const int bytes = 1 << (tag & 3);  // cc..cf unsigned, d0..d3 signed
    if (!has(static_cast<uint64_t>(bytes))) return item();
    const uint64_t v = take(bytes);
    if (tag < 0xd0) return integer(v, false);
    const int shift = 64 - 8 * bytes;
    const auto value = static_cast<int64_t>(v << shift) >> shift;
    return integer(static_cast<uint64_t>(value), value < 0);
  }
  item real(uint8_t tag) {
    item i;
    if (!has(tag == 0xca ? 4 : 8)) return i;
    i.what = kind::real;
    if (tag == 0xca) {
      const auto bits = static_cast<uint32_t>(take(4));
      float f;
      std::memcpy(&f, &bits, sizeof f);
      i.real = f;
    } else {
      const uint64_t bits = take(8);
      std::memcpy(&i.real, &bits, sizeof i.real);
    }
    return i;
  }
  item tagged(uint8_t tag) {
    item i;
    if (tag == 0xc1) return bad_ = true, i;
    if (tag == 0xc0 || tag == 0xc2 || tag == 0xc3) {
      i.what = tag == 0xc0 ? kind::nil : kind::boolean;
      i.number = tag == 0xc3;
      return i;
    }
    if (tag == 0xca || tag == 0xcb) return real(tag);
    if (tag >= 0xcc && tag <= 0xd3) return number(tag);
    if (tag >= 0xd4 && tag <= 0xd8) return ext(uint64_t{1} << (tag - 0xd4));
    // c4..c6 bin, c7..c9 ext, d9..db text, dc dd array, de df map: the width of the length follows
    // from the tag
    const int width = tag >= 0xdc ? (tag & 1 ? 4 : 2) : tag >= 0xd9 ? 1 << (tag - 0xd9) : 1 << ((tag - 0xc4) % 3);
    if (!has(static_cast<uint64_t>(width))) return i;
    const uint64_t n = take(width);
    if (tag <= 0xc6) return run(kind::bin, n);
    if (tag <= 0xc9) return ext(n);
    if (tag <= 0xdb) return run(kind::text, n);
    return counted(tag <= 0xdd ? kind::array : kind::map, n);
  }
  const uint8_t *at_, *end_;
  bool bad_ = false;
};

// The text under a key of a map; empty when there is none.
inline std::string text_in_map(std::string_view bytes, std::string_view key) {
  cursor c(bytes);
  item head = c.next();
  if (head.what != kind::map) return {};
  for (uint64_t i = 0; i < head.number; ++i) {
    item k = c.next();
    if (k.what == kind::text && k.bytes == key) {
      item v = c.next();
      return v.what == kind::text ? std::string(v.bytes) : std::string();
    }
    if (k.what == kind::bad || k.what == kind::array || k.what == kind::map || !c.skip()) return {};
  }
  return {};
}

}  // namespace ray::detail
