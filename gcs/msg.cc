// See msg.h.
#include "gcs/msg.h"

#include <cmath>
#include <cstdio>

namespace ray::gcs {

Writer& Writer::big(unsigned tag, uint64_t v, int bytes) {
  char b[9];
  b[0] = static_cast<char>(tag);
  for (int k = 0; k < bytes; ++k) b[1 + k] = static_cast<char>(v >> (8 * (bytes - 1 - k)));
  out_->append(b, 1 + bytes);
  return *this;
}

Writer& Writer::u(uint64_t v) {
  if (v < 0x80) return byte(static_cast<unsigned>(v));
  if (v <= 0xff) return big(0xcc, v, 1);
  if (v <= 0xffff) return big(0xcd, v, 2);
  if (v <= 0xffffffff) return big(0xce, v, 4);
  return big(0xcf, v, 8);
}

Writer& Writer::i(int64_t v) {
  if (v >= 0) return u(static_cast<uint64_t>(v));
  uint64_t w = static_cast<uint64_t>(v);
  if (v >= -32) return byte(static_cast<unsigned>(w & 0xff));
  if (v >= INT8_MIN) return big(0xd0, w, 1);
  if (v >= INT16_MIN) return big(0xd1, w, 2);
  if (v >= INT32_MIN) return big(0xd2, w, 4);
  return big(0xd3, w, 8);
}

Writer& Writer::f(double v) {
  uint64_t w;
  std::memcpy(&w, &v, 8);
  return big(0xcb, w, 8);
}

Writer& Writer::str(std::string_view v) {
  size_t n = v.size();
  if (n < 32) byte(0xa0 | static_cast<unsigned>(n));
  else if (n <= 0xff) big(0xd9, n, 1);
  else if (n <= 0xffff) big(0xda, n, 2);
  else big(0xdb, n, 4);
  return raw(v);
}

Writer& Writer::bin(std::string_view v) {
  size_t n = v.size();
  if (n <= 0xff) big(0xc4, n, 1);
  else if (n <= 0xffff) big(0xc5, n, 2);
  else big(0xc6, n, 4);
  return raw(v);
}

Writer& Writer::array(size_t n) {
  if (n < 16) return byte(0x90 | static_cast<unsigned>(n));
  if (n <= 0xffff) return big(0xdc, n, 2);
  return big(0xdd, n, 4);
}

Writer& Writer::map(size_t n) {
  if (n < 16) return byte(0x80 | static_cast<unsigned>(n));
  if (n <= 0xffff) return big(0xde, n, 2);
  return big(0xdf, n, 4);
}

uint8_t Reader::head(bool* have) const {
  *have = !rest_.empty();
  return *have ? static_cast<uint8_t>(rest_[0]) : 0;
}

Reader::Type Reader::peek() const {
  bool have;
  uint8_t h = head(&have);
  if (!have) return Type::kEnd;
  if (h < 0x80 || h >= 0xe0 || (h >= 0xcc && h <= 0xd3)) return Type::kInt;
  if (h < 0x90 || h == 0xde || h == 0xdf) return Type::kMap;
  if (h < 0xa0 || h == 0xdc || h == 0xdd) return Type::kArray;
  if (h < 0xc0 || (h >= 0xd9 && h <= 0xdb)) return Type::kStr;
  if (h == 0xc0) return Type::kNil;
  if (h == 0xc2 || h == 0xc3) return Type::kBool;
  if (h >= 0xc4 && h <= 0xc6) return Type::kBin;
  if (h == 0xca || h == 0xcb) return Type::kFloat;
  return h == 0xc1 ? Type::kEnd : Type::kExt;
}

// Skips the tag byte and reads a big-endian number of 1, 2, 4 or 8 bytes.
bool Reader::take_big(int bytes, uint64_t* out) {
  if (rest_.size() < 1 + static_cast<size_t>(bytes)) {
    fail();
    return false;
  }
  uint64_t v = 0;
  for (int k = 0; k < bytes; ++k) v = v << 8 | static_cast<uint8_t>(rest_[1 + k]);
  rest_.remove_prefix(1 + bytes);
  *out = v;
  return true;
}

size_t Reader::array() {
  bool have;
  uint8_t h = head(&have);
  uint64_t n = 0;
  if (have && (h & 0xf0) == 0x90) {
    n = h & 15;
    rest_.remove_prefix(1);
  } else if (h == 0xdc || h == 0xdd) {
    if (!take_big(h == 0xdc ? 2 : 4, &n)) return 0;
  } else {
    fail();
  }
  if (n > rest_.size()) {
    fail();
    return 0;
  }
  return n;
}

size_t Reader::map() {
  bool have;
  uint8_t h = head(&have);
  uint64_t n = 0;
  if (have && (h & 0xf0) == 0x80) {
    n = h & 15;
    rest_.remove_prefix(1);
  } else if (h == 0xde || h == 0xdf) {
    if (!take_big(h == 0xde ? 2 : 4, &n)) return 0;
  } else {
    fail();
  }
  if (2 * n > rest_.size()) {
    fail();
    return 0;
  }
  return n;
}

int64_t Reader::i() {
  bool have;
  uint8_t h = head(&have);
  uint64_t v = 0;
  if (!have) return fail(), 0;
  if (h < 0x80 || h >= 0xe0) {
    rest_.remove_prefix(1);
    return static_cast<int8_t>(h);
  }
  switch (h) {
    case 0xcc: take_big(1, &v); return static_cast<int64_t>(v);
    case 0xcd: take_big(2, &v); return static_cast<int64_t>(v);
    case 0xce: take_big(4, &v); return static_cast<int64_t>(v);
    case 0xcf:
      take_big(8, &v);
      if (v > INT64_MAX) return fail(), 0;
      return static_cast<int64_t>(v);
    case 0xd0: take_big(1, &v); return static_cast<int8_t>(v);
    case 0xd1: take_big(2, &v); return static_cast<int16_t>(v);
    case 0xd2: take_big(4, &v); return static_cast<int32_t>(v);
    case 0xd3: take_big(8, &v); return static_cast<int64_t>(v);
    default: return fail(), 0;
  }
}

uint64_t Reader::u() {
  bool have;
  uint64_t v = 0;
  if (head(&have) == 0xcf) {
    take_big(8, &v);
    return v;
  }
  int64_t s = i();
  if (s < 0) return fail(), 0;
  return static_cast<uint64_t>(s);
}

double Reader::f() {
  bool have;
  uint8_t h = head(&have);
  uint64_t v = 0;
  if (h == 0xcb) {
    take_big(8, &v);
    double d;
    std::memcpy(&d, &v, 8);
    return d;
  }
  if (h == 0xca) {
    take_big(4, &v);
    uint32_t w = static_cast<uint32_t>(v);
    float x;
    std::memcpy(&x, &w, 4);
    return x;
  }
  if (h == 0xcf) return static_cast<double>(u());
  return static_cast<double>(i());
}

bool Reader::boolean() {
  Type t = peek();
  if (t != Type::kBool) return fail(), false;
  bool v = static_cast<uint8_t>(rest_[0]) == 0xc3;
  rest_.remove_prefix(1);
  return v;
}

std::string_view Reader::bytes() {
  bool have;
  uint8_t h = head(&have);
  uint64_t n = 0;
  if (have && (h & 0xe0) == 0xa0) {
    n = h & 31;
    rest_.remove_prefix(1);
  } else if (h == 0xd9 || h == 0xc4) {
    take_big(1, &n);
  } else if (h == 0xda || h == 0xc5) {
    take_big(2, &n);
  } else if (h == 0xdb || h == 0xc6) {
    take_big(4, &n);
  } else {
    fail();
  }
  if (!ok_ || n > rest_.size()) return fail(), std::string_view{};
  std::string_view v = rest_.substr(0, n);
  rest_.remove_prefix(n);
  return v;
}

Id Reader::id() {
  Id out;
  if (is_nil()) {
    rest_.remove_prefix(1);
    return out;
  }
  std::string_view v = bytes();
  if (v.size() == kIdSize) std::memcpy(out.b, v.data(), kIdSize);
  else if (!v.empty()) fail();
  return out;
}

bool Reader::skip_many(uint64_t n, int depth) {
  for (; n > 0; --n)
    if (!skip(depth)) return false;
  return true;
}

bool Reader::skip(int depth) {
  if (depth > kMaxDepth || !ok_) return fail(), false;
  switch (peek()) {
    case Type::kNil: rest_.remove_prefix(1); return true;
    case Type::kBool: boolean(); return ok_;
    case Type::kInt: rest_[0] == '\xcf' ? (void)u() : (void)i(); return ok_;
    case Type::kFloat: f(); return ok_;
    case Type::kStr:
    case Type::kBin: bytes(); return ok_;
    case Type::kArray: return skip_many(array(), depth + 1) && ok_;
    case Type::kMap: return skip_many(2 * map(), depth + 1) && ok_;
    case Type::kExt: {
      uint8_t h = static_cast<uint8_t>(rest_[0]);
      uint64_t n = 0;
      if (h >= 0xd4 && h <= 0xd8) {
        n = uint64_t{1} << (h - 0xd4);
        rest_.remove_prefix(1);
      } else {
        take_big(h == 0xc7 ? 1 : h == 0xc8 ? 2 : 4, &n);
      }
      if (!ok_ || n + 1 > rest_.size()) return fail(), false;
      rest_.remove_prefix(n + 1);
      return true;
    }
    case Type::kEnd: break;
  }
  return fail(), false;
}

std::string_view Reader::value() {
  std::string_view before = rest_;
  if (!skip(0)) return {};
  return before.substr(0, before.size() - rest_.size());
}

void append_hex(std::string* out, std::string_view bytes) {
  static const char digits[] = "0123456789abcdef";
  for (unsigned char c : bytes) {
    out->push_back(digits[c >> 4]);
    out->push_back(digits[c & 15]);
  }
}

bool is_printable_utf8(std::string_view s) {
  for (size_t k = 0; k < s.size();) {
    unsigned char c = static_cast<unsigned char>(s[k]);
    size_t n = c < 0x80 ? 1 : (c >> 5) == 6 ? 2 : (c >> 4) == 14 ? 3 : (c >> 3) == 30 ? 4 : 0;
    if (n == 0 || k + n > s.size() || (n == 1 && ((c < 32 && c != '\n' && c != '\t') || c == 127)))
      return false;
    for (size_t m = 1; m < n; ++m)
      if ((static_cast<unsigned char>(s[k + m]) >> 6) != 2) return false;
    // Overlong forms, surrogates and what lies beyond U+10FFFF are no UTF-8.
    unsigned char d = n > 1 ? static_cast<unsigned char>(s[k + 1]) : 0;
    if (c == 0xc0 || c == 0xc1 || c > 0xf4 || (c == 0xe0 && d < 0xa0) || (c == 0xed && d >= 0xa0) ||
        (c == 0xf0 && d < 0x90) || (c == 0xf4 && d >= 0x90))
      return false;
    k += n;
  }
  return true;
}

void quote(std::string* out, std::string_view s, bool cut) {
  out->push_back('"');
  for (char c : s) {
    if (c == '"' || c == '\\') out->push_back('\\');
    if (c == '\n') out->append("\\n");
    else if (c == '\t') out->append("\\t");
    else out->push_back(c);
  }
  out->append(cut ? "…\"" : "\"");
}

namespace {

struct Text {
  std::string out;
  size_t limit;
  bool full() const { return out.size() >= limit; }

  // Cut on a character boundary; false when something was left out.
  std::string_view fit(std::string_view s) {
    size_t room = limit > out.size() ? limit - out.size() : 0;
    if (s.size() <= room) return s;
    while (room > 0 && (static_cast<unsigned char>(s[room]) >> 6) == 2) --room;
    return s.substr(0, room);
  }
  void hex(const char* prefix, std::string_view bytes, bool cut) {
    (out += '"') += prefix;
    append_hex(&out, bytes);
    out.append(cut ? "…\"" : "\"");
  }
  void list(Reader& r, size_t n, bool is_map) {
    out.push_back(is_map ? '{' : '[');
    for (size_t k = 0; k < n && r.ok(); ++k) {
      if (k) out.append(", ");
      if (full()) {
        out.append("…");
        break;
      }
      one(r);
      if (is_map) {
        out.append(": ");
        one(r);
      }
    }
    out.push_back(is_map ? '}' : ']');
  }
  void one(Reader& r) {
    char b[40];
    switch (r.peek()) {
      case Reader::Type::kNil: r.value(); out.append("null"); return;
      case Reader::Type::kBool: out.append(r.boolean() ? "true" : "false"); return;
      case Reader::Type::kInt:
        if (r.rest()[0] == '\xcf') std::snprintf(b, sizeof b, "%llu", (unsigned long long)r.u());
        else std::snprintf(b, sizeof b, "%lld", (long long)r.i());
        out.append(b);
        return;
      case Reader::Type::kFloat: {
        double v = r.f();
        if (std::isfinite(v)) std::snprintf(b, sizeof b, "%.17g", v);
        else std::snprintf(b, sizeof b, "\"%s\"", std::isnan(v) ? "nan" : v > 0 ? "inf" : "-inf");
        out.append(b);
        return;
      }
      case Reader::Type::kStr: {
        std::string_view s = r.bytes(), cut = fit(s);
        if (is_printable_utf8(cut)) quote(&out, cut, cut.size() < s.size());
        else hex("0x", cut, cut.size() < s.size());
        return;
      }
      case Reader::Type::kBin: {
        std::string_view s = r.bytes(), cut = s.substr(0, 64);
        hex("0x", cut, cut.size() < s.size());
        return;
      }
      case Reader::Type::kArray: list(r, r.array(), false); return;
      case Reader::Type::kMap: list(r, r.map(), true); return;
      case Reader::Type::kExt: {
        std::string_view v = r.value();
        hex("ext 0x", v.substr(0, 32), v.size() > 32);
        return;
      }
      case Reader::Type::kEnd: r.fail(); return;
    }
  }
};

}  // namespace

std::string to_text(std::string_view value, size_t limit) {
  Reader check(value);
  check.value();  // bounds the depth before anything recurses
  Text t{{}, limit};
  if (!check.done()) {
    append_hex(&(t.out += "0x"), value.substr(0, limit / 2));
    return t.out;
  }
  Reader r(value);
  t.one(r);
  return t.out;
}

}  // namespace ray::gcs
