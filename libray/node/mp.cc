// See mp.h.
#include "libray/node/mp.h"

#include <cstring>

#include "libray/wire/msgpack.h"

namespace ray::node::mp {

void Writer::big(uint64_t v, int n) {
  for (int i = n - 1; i >= 0; --i) byte(static_cast<uint8_t>(v >> (8 * i)));
}

Writer& Writer::array(uint32_t n) {
  if (n < 16) byte(static_cast<uint8_t>(0x90 | n));
  else if (n < 65536) byte(0xdc), big(n, 2);
  else byte(0xdd), big(n, 4);
  return *this;
}
Writer& Writer::map(uint32_t n) {
  if (n < 16) byte(static_cast<uint8_t>(0x80 | n));
  else if (n < 65536) byte(0xde), big(n, 2);
  else byte(0xdf), big(n, 4);
  return *this;
}
Writer& Writer::nil() {
  byte(0xc0);
  return *this;
}
Writer& Writer::boolean(bool v) {
  byte(v ? 0xc3 : 0xc2);
  return *this;
}
Writer& Writer::uint(uint64_t v) {
  if (v < 128) byte(static_cast<uint8_t>(v));
  else if (v < 256) byte(0xcc), big(v, 1);
  else if (v < 65536) byte(0xcd), big(v, 2);
  else if (v < (1ull << 32)) byte(0xce), big(v, 4);
  else byte(0xcf), big(v, 8);
  return *this;
}
Writer& Writer::sint(int64_t v) {
  if (v >= 0) return uint(static_cast<uint64_t>(v));
  if (v >= -32) byte(static_cast<uint8_t>(v));
  else byte(0xd3), big(static_cast<uint64_t>(v), 8);
  return *this;
}
Writer& Writer::real(double v) {
  uint64_t bits;
  std::memcpy(&bits, &v, sizeof bits);
  byte(0xcb);
  big(bits, 8);
  return *this;
}
Writer& Writer::str(std::string_view v) {
  if (v.size() < 32) byte(static_cast<uint8_t>(0xa0 | v.size()));
  else if (v.size() < 256) byte(0xd9), big(v.size(), 1);
  else if (v.size() < 65536) byte(0xda), big(v.size(), 2);
  else byte(0xdb), big(v.size(), 4);
  out_.append(v);
  return *this;
}
Writer& Writer::bin(std::string_view v) {
  if (v.size() < 256) byte(0xc4), big(v.size(), 1);
  else if (v.size() < 65536) byte(0xc5), big(v.size(), 2);
  else byte(0xc6), big(v.size(), 4);
  out_.append(v);
  return *this;
}
Writer& Writer::raw(std::string_view packed) {
  out_.append(packed);
  return *this;
}

bool Reader::fail() {
  ok_ = false;
  p_ = {};
  return false;
}
std::string_view Reader::take(uint64_t n) {
  if (!ok_ || n > p_.size()) {
    fail();
    return {};
  }
  std::string_view v = p_.substr(0, n);
  p_.remove_prefix(n);
  return v;
}
uint8_t Reader::head() {
  std::string_view v = take(1);
  return v.empty() ? 0xc1 : static_cast<uint8_t>(v[0]);  // 0xc1 is never used
}
uint64_t Reader::big(int n) {
  std::string_view v = take(static_cast<uint64_t>(n));
  uint64_t out = 0;
  for (char c : v) out = out << 8 | static_cast<uint8_t>(c);
  return out;
}
// Every element takes a byte at least, so a count beyond what is left is a lie.
uint32_t Reader::array() {
  uint8_t h = head();
  uint64_t n = 0;
  if ((h & 0xf0) == 0x90) n = h & 15;
  else if (h == 0xdc) n = big(2);
  else if (h == 0xdd) n = big(4);
  else fail();
  if (n > p_.size()) fail();
  return ok_ ? static_cast<uint32_t>(n) : 0;
}
uint32_t Reader::map() {
  uint8_t h = head();
  uint64_t n = 0;
  if ((h & 0xf0) == 0x80) n = h & 15;
  else if (h == 0xde) n = big(2);
  else if (h == 0xdf) n = big(4);
  else fail();
  if (n > p_.size() / 2) fail();
  return ok_ ? static_cast<uint32_t>(n) : 0;
}
int64_t Reader::sint() {
  uint8_t h = head();
  if (h < 0x80) return h;
  if (h >= 0xe0) return static_cast<int8_t>(h);
  switch (h) {
    case 0xcc: return static_cast<int64_t>(big(1));
    case 0xcd: return static_cast<int64_t>(big(2));
    case 0xce: return static_cast<int64_t>(big(4));
    case 0xcf: return static_cast<int64_t>(big(8));
    case 0xd0: return static_cast<int8_t>(big(1));
    case 0xd1: return static_cast<int16_t>(big(2));
    case 0xd2: return static_cast<int32_t>(big(4));
    case 0xd3: return static_cast<int64_t>(big(8));
  }
  fail();
  return 0;
}
uint64_t Reader::uint() { return static_cast<uint64_t>(sint()); }
double Reader::number() {
  if (!p_.empty() && static_cast<uint8_t>(p_[0]) == 0xcb) {
    head();
    uint64_t bits = big(8);
    double v;
    std::memcpy(&v, &bits, sizeof v);
    return v;
  }
  if (!p_.empty() && static_cast<uint8_t>(p_[0]) == 0xca) {
    head();
    uint32_t bits = static_cast<uint32_t>(big(4));
    float v;
    std::memcpy(&v, &bits, sizeof v);
    return v;
  }
  return static_cast<double>(sint());
}
std::string_view Reader::view() {
  uint8_t h = head();
  if ((h & 0xe0) == 0xa0) return take(h & 31);
  switch (h) {
    case 0xd9: case 0xc4: return take(big(1));
    case 0xda: case 0xc5: return take(big(2));
    case 0xdb: case 0xc6: return take(big(4));
  }
  fail();
  return {};
}
std::string Reader::str() { return std::string(view()); }
bool Reader::nil() {
  if (p_.empty() || static_cast<uint8_t>(p_[0]) != 0xc0) return false;
  head();
  return true;
}
bool Reader::id(Id* out) {
  *out = Id{};
  if (nil()) return true;
  std::string_view v = view();
  if (v.size() != kIdSize) return fail();
  std::memcpy(out->b, v.data(), kIdSize);
  return true;
}

bool Reader::skip_one(uint32_t depth) {
  if (depth > 64) return fail();
  if (p_.empty()) return fail();
  uint8_t h = static_cast<uint8_t>(p_[0]);
  uint64_t children = 0;
  if ((h & 0xf0) == 0x90 || h == 0xdc || h == 0xdd) children = array();
  else if ((h & 0xf0) == 0x80 || h == 0xde || h == 0xdf) children = 2ull * map();
  else if ((h & 0xe0) == 0xa0 || (h >= 0xd9 && h <= 0xdb) || (h >= 0xc4 && h <= 0xc6)) view();
  else if (h == 0xc0 || h == 0xc2 || h == 0xc3) head();
  else if (h == 0xca || h == 0xcb) number();
  else if (h >= 0xd4 && h <= 0xd8) head(), take((1ull << (h - 0xd4)) + 1);
  else if (h == 0xc7) head(), take(big(1) + 1);
  else if (h == 0xc8) head(), take(big(2) + 1);
  else if (h == 0xc9) head(), take(big(4) + 1);
  else sint();
  for (uint64_t i = 0; ok_ && i < children; ++i) skip_one(depth + 1);
  return ok_;
}
std::string_view Reader::raw() {
  std::string_view before = p_;
  if (!ok_ || !skip_one(0)) return {};
  return before.substr(0, before.size() - p_.size());
}

std::string empty_array() { return std::string(1, '\x90'); }

Status read_resources(std::string_view bytes, std::map<std::string, double>* out, std::string* env) {
  out->clear();
  if (bytes.empty()) return Status();
  Reader r(bytes);
  uint32_t n = r.map();
  for (uint32_t i = 0; i < n && r.ok(); ++i) {
    std::string name = r.str();
    if (env && name == wire::kRuntimeEnv) {
      *env = r.raw();
      continue;
    }
    if (name == wire::kPlacement) {
      r.skip();
      continue;
    }
    double amount = r.number();
    if (r.ok()) (*out)[name] = amount;
  }
  if (!r.done()) return error(RAY_INVALID_ARGUMENT, "resources are not a map of name to number");
  return Status();
}

Status read_placement(std::string_view resources, Placement* out) {
  *out = Placement{};
  if (resources.empty()) return Status();
  Reader r(resources);
  uint32_t n = r.map();
  for (uint32_t i = 0; i < n && r.ok(); ++i) {
    if (r.str() != wire::kPlacement) {
      r.skip();
      continue;
    }
    uint32_t m = r.map();
    for (uint32_t k = 0; k < m && r.ok(); ++k) {
      std::string key = r.str();
      if (key == "group") r.id(&out->group);
      else if (key == "bundle") out->bundle = static_cast<int32_t>(r.sint());
      else if (key == "node") r.id(&out->node);
      else if (key == "soft") out->soft = r.raw() == "\xc3";
      else if (key == "never") out->never = r.str();
      else r.skip();
    }
  }
  if (!r.ok()) return error(RAY_INVALID_ARGUMENT, "the placement is malformed");
  return Status();
}

std::string json_escape(const std::string& s) {
  std::string out;
  for (char c : s) {
    if (c == '"' || c == '\\') out += '\\';
    if (static_cast<uint8_t>(c) < 32) out += strprintf("\\u%04x", c);
    else out += c;
  }
  return out;
}

}  // namespace ray::node::mp
