// MessagePack for the control store: a writer that appends to a string and a reader that walks bytes
// in place. Any thread; no state beyond the cursor.
//
// Why not a parser that builds a tree: frames come from other processes and may be hostile. This reader
// allocates nothing, follows no length beyond the bytes it has, bounds the depth, and after the first
// mismatch answers zeros with ok() false, so callers check once at the end.
#pragma once
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

#include "libray/base/ids.h"

namespace ray::gcs {

class Writer {
 public:
  explicit Writer(std::string* out) : out_(out) {}
  Writer& nil() { return byte(0xc0); }
  Writer& boolean(bool v) { return byte(v ? 0xc3 : 0xc2); }
  Writer& u(uint64_t v);
  Writer& i(int64_t v);
  Writer& f(double v);
  Writer& str(std::string_view v);
  Writer& bin(std::string_view v);
  Writer& id(const Id& v) { return bin({reinterpret_cast<const char*>(v.b), kIdSize}); }
  Writer& hex(const Id& v) { return v.is_nil() ? str("") : str(v.hex()); }
  Writer& array(size_t n);
  Writer& map(size_t n);
  // One value that is MessagePack already.
  Writer& raw(std::string_view v) {
    out_->append(v);
    return *this;
  }

 private:
  Writer& byte(unsigned v) {
    out_->push_back(static_cast<char>(v));
    return *this;
  }
  Writer& big(unsigned tag, uint64_t v, int bytes);
  std::string* out_;
};

class Reader {
 public:
  enum class Type { kNil, kBool, kInt, kFloat, kStr, kBin, kArray, kMap, kExt, kEnd };
  static constexpr int kMaxDepth = 32;

  explicit Reader(std::string_view bytes) : rest_(bytes) {}
  bool ok() const { return ok_; }
  // Everything was read, and well.
  bool done() const { return ok_ && rest_.empty(); }
  Type peek() const;
  bool is_nil() const { return peek() == Type::kNil; }
  // Number of elements; never more than the bytes that are left.
  size_t array();
  size_t map();
  void array_of(size_t n) {
    if (array() != n) fail();
  }
  uint64_t u();
  int64_t i();
  double f();       // any number
  bool boolean();
  std::string_view bytes();  // str or bin
  Id id();                   // bin or str of 24 bytes; nil and empty give the nil id
  std::string_view value();  // one whole value, skipped
  std::string_view rest() const { return rest_; }
  void fail() {
    ok_ = false;
    rest_ = {};
  }

 private:
  uint8_t head(bool* have) const;
  bool take_big(int bytes, uint64_t* out);
  bool skip(int depth);
  bool skip_many(uint64_t n, int depth);
  std::string_view rest_;
  bool ok_ = true;
};

// Readable text of one MessagePack value: JSON, with bin and extensions as strings of hex ("0x…",
// "ext 0x…"). At most about `limit` bytes; what is left out shows as "…".
std::string to_text(std::string_view value, size_t limit);
// Text in quotes, with JSON's escapes; cut: "…" before the closing quote.
void quote(std::string* out, std::string_view s, bool cut);
void append_hex(std::string* out, std::string_view bytes);
bool is_printable_utf8(std::string_view bytes);

}  // namespace ray::gcs
