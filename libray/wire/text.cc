// Readable renderings of MessagePack (msgpack.h): text for people, JSON for scripts. Recursion is
// bounded by the Reader's own limit on nesting.
#include <cmath>
#include <cstring>

#include "libray/wire/msgpack.h"

namespace ray::wire {
namespace {

// Length of the UTF-8 sequence at s[i], or 0 when there is none (overlong, surrogate, cut off).
size_t utf8_length(std::string_view s, size_t i) {
  auto byte = [&](size_t k) { return static_cast<uint8_t>(s[k]); };
  uint8_t c = byte(i);
  if (c < 0x80) return 1;
  size_t n = c >= 0xc2 && c < 0xe0 ? 2 : c >= 0xe0 && c < 0xf0 ? 3 : c >= 0xf0 && c < 0xf5 ? 4 : 0;
  if (n == 0 || i + n > s.size()) return 0;
  for (size_t k = 1; k < n; ++k)
    if ((byte(i + k) & 0xc0) != 0x80) return 0;
  uint8_t d = byte(i + 1);
  if ((c == 0xe0 && d < 0xa0) || (c == 0xed && d >= 0xa0) || (c == 0xf0 && d < 0x90) ||
      (c == 0xf4 && d >= 0x90))
    return 0;
  return n;
}

std::string hex(std::string_view bytes, size_t most) {
  static const char digits[] = "0123456789abcdef";
  std::string s;
  for (size_t i = 0; i < bytes.size() && i < most; ++i) {
    s += digits[static_cast<uint8_t>(bytes[i]) >> 4];
    s += digits[bytes[i] & 15];
  }
  return s;
}

// Shortest decimal text that reads back as the same number.
std::string number(double v) {
  char text[40];
  for (int digits = 15; digits <= 17; ++digits) {
    std::snprintf(text, sizeof text, "%.*g", digits, v);
    if (std::strtod(text, nullptr) == v) break;
  }
  std::string s = text;
  if (std::isfinite(v) && s.find_first_of(".e") == s.npos) s += ".0";
  return s;
}

// One walk for both renderings; they differ in bytes, exts, keys and numbers that JSON lacks.
class Printer {
 public:
  Printer(std::string_view bytes, bool json, size_t limit)
      : reader_(bytes), json_(json), limit_(limit) {}

  // False = malformed; what was readable is in out().
  bool value(bool as_key) {
    if (out_.size() > limit_) return reader_.skip();
    switch (reader_.peek()) {
      case Type::kArray: return array();
      case Type::kMap: return map();
      default: break;
    }
    size_t from = out_.size();
    if (!leaf()) return false;
    if (json_ && as_key && out_[from] != '"') {  // JSON keys are strings
      out_.insert(from, 1, '"');
      out_ += '"';
    }
    return true;
  }
  Reader& reader() { return reader_; }
  std::string& out() { return out_; }

 private:
  bool array() {
    uint32_t n;
    if (!reader_.array(&n)) return false;
    out_ += '[';
    for (uint32_t i = 0; i < n; ++i) {
      if (i > 0 && out_.size() <= limit_) out_ += ", ";
      if (!value(false)) return false;
    }
    out_ += ']';
    return true;
  }
  bool map() {
    uint32_t n;
    if (!reader_.map(&n)) return false;
    out_ += '{';
    for (uint32_t i = 0; i < n; ++i) {
      if (i > 0 && out_.size() <= limit_) out_ += ", ";
      if (!key()) return false;
      if (out_.size() <= limit_) out_ += ": ";
      if (!value(false)) return false;
    }
    out_ += '}';
    return true;
  }
  bool key() {
    Type t = reader_.peek();
    if (!json_ || (t != Type::kArray && t != Type::kMap)) return value(true);
    std::string_view inner;
    if (!reader_.raw(&inner)) return false;
    out_ += json_quote(to_text(inner));
    return true;
  }
  bool leaf() {
    std::string_view text;
    int64_t i;
    uint64_t u;
    double d;
    bool flag;
    int8_t ext;
    switch (reader_.peek()) {
      case Type::kNil: out_ += "null"; return reader_.nil();
      case Type::kBool:
        if (!reader_.boolean(&flag)) return false;
        out_ += flag ? "true" : "false";
        return true;
      case Type::kInt:
        if (!reader_.int64(&i)) return false;
        out_ += std::to_string(i);
        return true;
      case Type::kUint:
        if (!reader_.uint64(&u)) return false;
        out_ += std::to_string(u);
        return true;
      case Type::kFloat:
        if (!reader_.float64(&d)) return false;
        out_ += json_ && !std::isfinite(d) ? json_quote(number(d)) : number(d);
        return true;
      case Type::kStr:
        if (!reader_.str(&text)) return false;
        out_ += json_quote(json_ ? text : text.substr(0, limit_));
        return true;
      case Type::kBin:
        if (!reader_.bin(&text)) return false;
        binary(text, "");
        return true;
      case Type::kExt:
        if (!reader_.ext(&ext, &text)) return false;
        binary(text, "ext " + std::to_string(ext) + ", ");
        return true;
      default: return false;
    }
  }
  void binary(std::string_view bytes, const std::string& what) {
    if (json_) {
      bool text = what.empty() && is_utf8(bytes) && bytes.find('\0') == bytes.npos;
      out_ += text ? json_quote(bytes) : "\"0x" + hex(bytes, bytes.size()) + '"';
      return;
    }
    constexpr size_t kShown = 16;
    out_ += '<' + what + std::to_string(bytes.size()) + (bytes.size() == 1 ? " byte" : " bytes");
    if (!bytes.empty()) out_ += ' ' + hex(bytes, kShown) + (bytes.size() > kShown ? "..." : "");
    out_ += '>';
  }

  Reader reader_;
  bool json_;
  size_t limit_;
  std::string out_;
};

}  // namespace

bool is_utf8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    size_t n = utf8_length(text, i);
    if (n == 0) return false;
    i += n;
  }
  return true;
}

std::string json_quote(std::string_view text) {
  std::string s = "\"";
  for (size_t i = 0; i < text.size();) {
    size_t n = utf8_length(text, i);
    char c = text[i];
    if (n == 0) {
      s += "\xef\xbf\xbd";
      n = 1;
    } else if (c == '"' || c == '\\') {
      s += '\\';
      s += c;
    } else if (c == '\n') {
      s += "\\n";
    } else if (c == '\t') {
      s += "\\t";
    } else if (static_cast<uint8_t>(c) < 0x20 || c == 0x7f) {
      s += strprintf("\\u%04x", c);
    } else {
      s += text.substr(i, n);
    }
    i += n;
  }
  return s + '"';
}

std::string to_text(std::string_view bytes, size_t limit) {
  Printer p(bytes, false, limit);
  while (p.reader().peek() != Type::kEnd) {
    if (!p.out().empty()) p.out() += ' ';
    if (p.value(false)) continue;
    p.out() += strprintf("<malformed at byte %zu>", p.reader().offset());
    break;
  }
  std::string s = std::move(p.out());
  if (s.size() <= limit) return s;
  size_t cut = limit;  // not inside a character
  while (cut > 0 && (static_cast<uint8_t>(s[cut]) & 0xc0) == 0x80) --cut;
  s.resize(cut);
  return s + "...";
}

std::string to_json(std::string_view bytes) {
  Printer p(bytes, true, SIZE_MAX);
  if (!p.value(false) || !p.reader().at_end()) return "";
  return std::move(p.out());
}

}  // namespace ray::wire
