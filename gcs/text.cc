// See text.h.
#include "gcs/text.h"

#include <cmath>
#include <cstdio>

#include "libray/wire/cursor.h"
#include "ray.h"

namespace ray::gcs {

void append_hex(std::string* out, std::string_view bytes) {
  static const char digits[] = "0123456789abcdef";
  for (unsigned char c : bytes) {
    out->push_back(digits[c >> 4]);
    out->push_back(digits[c & 15]);
  }
}

// Text to show as it is: UTF-8 without control characters.
static bool is_printable(std::string_view s) {
  for (unsigned char c : s)
    if ((c < 32 && c != '\n' && c != '\t') || c == 127) return false;
  return wire::is_utf8(s);
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

using wire::Type;

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
  void list(wire::Cursor& r, size_t n, bool is_map) {
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
  void one(wire::Cursor& r) {
    char b[40];
    switch (r.peek()) {
      case Type::kNil: r.value(); out.append("null"); return;
      case Type::kBool: out.append(r.boolean() ? "true" : "false"); return;
      case Type::kInt: out.append(std::to_string(r.int64())); return;
      case Type::kUint: out.append(std::to_string(r.uint64())); return;
      case Type::kFloat: {
        double v = r.float64();
        if (std::isfinite(v)) std::snprintf(b, sizeof b, "%.17g", v);
        else std::snprintf(b, sizeof b, "\"%s\"", std::isnan(v) ? "nan" : v > 0 ? "inf" : "-inf");
        out.append(b);
        return;
      }
      case Type::kStr: {
        std::string_view s = r.bytes(), cut = fit(s);
        if (is_printable(cut)) quote(&out, cut, cut.size() < s.size());
        else hex("0x", cut, cut.size() < s.size());
        return;
      }
      case Type::kBin: {
        std::string_view s = r.bytes(), cut = s.substr(0, 64);
        hex("0x", cut, cut.size() < s.size());
        return;
      }
      case Type::kArray: list(r, r.array(), false); return;
      case Type::kMap: list(r, r.map(), true); return;
      case Type::kExt: {
        std::string_view v = r.value();
        hex("ext 0x", v.substr(0, 32), v.size() > 32);
        return;
      }
      case Type::kEnd:
      case Type::kBad: r.fail(); return;
    }
  }
};

}  // namespace

std::string to_text(std::string_view value, size_t limit) {
  wire::Cursor check(value);
  check.value();  // bounds the depth before anything recurses
  Text t{{}, limit};
  if (!check.done()) {
    append_hex(&(t.out += "0x"), value.substr(0, limit / 2));
    return t.out;
  }
  wire::Cursor r(value);
  t.one(r);
  return t.out;
}

static void append_raw(std::string* out, std::string_view bytes) {
  std::string_view cut = bytes.substr(0, kTextMax);
  while (cut.size() < bytes.size() && !cut.empty() &&
         (static_cast<unsigned char>(bytes[cut.size()]) >> 6) == 2)
    cut.remove_suffix(1);
  if (is_printable(cut)) return quote(out, cut, cut.size() < bytes.size());
  if (bytes.size() == 8 || bytes.size() == 4 || bytes.size() == 2 || bytes.size() == 1) {
    int64_t v = 0;
    std::memcpy(&v, bytes.data(), bytes.size());
    int shift = 64 - 8 * static_cast<int>(bytes.size());
    v = static_cast<int64_t>(static_cast<uint64_t>(v) << shift) >> shift;
    out->append(std::to_string(v));
    return;
  }
  out->append("0x");
  append_hex(out, bytes.substr(0, 64));
  if (bytes.size() > 64) out->append("…");
}

void append_value(std::string* out, uint32_t format, std::string_view bytes) {
  if (format == RAY_FMT_RAW) return append_raw(out, bytes);
  if (format == RAY_FMT_MSGPACK) {
    out->append(to_text(bytes, kTextMax));
    return;
  }
  out->append("0x");
  append_hex(out, bytes.substr(0, 64));
  if (bytes.size() > 64) out->append("…");
}

void append_args(std::string* out, const lineage::SubmitView& submit) {
  bool first = true;
  for (const lineage::ArgView& a : submit.args) {
    if (!first) out->append(", ");
    first = false;
    if (out->size() > 4 * kTextMax) {
      out->append("…");
      return;
    }
    if (a.is_ref) append_hex(out, a.bytes);
    else append_value(out, a.format, a.bytes);
  }
}

bool append_result(std::string* out, const lineage::ResultView& result) {
  if (result.bytes.empty() && result.fixed.size > 0) return false;
  append_value(out, result.fixed.format, result.bytes);
  return true;
}

}  // namespace ray::gcs
