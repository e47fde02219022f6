// A Reader for bytes of a known shape: every getter answers the value itself, or zero once anything was
// not as expected, so that a parser reads all its fields in a row and asks done() or ok() once.
//
// Who: the daemon's requests, the control store's frames and rows. Any thread; no state beyond the
// place. All bounds (depth, counts, ends) are the Reader's, see msgpack.h; nothing is allocated.
#pragma once
#include <cstring>
#include <string_view>

#include "libray/wire/msgpack.h"

namespace ray::wire {

class Cursor {
 public:
  explicit Cursor(std::string_view bytes) : bytes_(bytes), reader_(bytes) {}

  bool ok() const { return ok_; }
  bool done() const { return ok_ && reader_.at_end(); }  // everything was read, and well
  void fail() { ok_ = false; }

  Type peek() const { return ok_ ? reader_.peek() : Type::kBad; }
  bool is_nil() const { return peek() == Type::kNil; }
  bool nil() { return ok_ && reader_.nil(); }  // skips a nil, if there is one; never fails

  int32_t int32() { return get(&Reader::int32, int32_t{}); }
  uint32_t array() { return get(&Reader::array, uint32_t{}); }  // elements follow
  uint32_t map() { return get(&Reader::map, uint32_t{}); }      // pairs follow
  void array_of(uint32_t n) {
    if (array() != n) fail();
  }
  uint64_t uint64() { return get(&Reader::uint64, uint64_t{}); }
  int64_t int64() { return get(&Reader::int64, int64_t{}); }
  double float64() { return get(&Reader::float64, double{}); }  // any number
  bool boolean() { return get(&Reader::boolean, false); }
  std::string_view bytes() { return get(&Reader::bytes, std::string_view{}); }  // str or bin
  std::string text() { return std::string(bytes()); }
  std::string_view value() { return get(&Reader::raw, std::string_view{}); }  // one, still packed
  std::string_view rest() const { return ok_ ? bytes_.substr(reader_.offset()) : std::string_view{}; }
  void skip() { value(); }
  // str or bin of kIdSize bytes; nil and empty give the nil id.
  Id id() {
    Id out;
    if (nil()) return out;
    std::string_view v = bytes();
    if (v.size() == kIdSize) std::memcpy(out.b, v.data(), kIdSize);
    else if (!v.empty()) fail();
    return out;
  }
  bool id(Id* out) {
    *out = id();
    return ok_;
  }

 private:
  template <class T>
  T get(bool (Reader::*getter)(T*), T zero) {
    T out = zero;
    if (!ok_ || !(reader_.*getter)(&out)) {
      ok_ = false;
      return zero;
    }
    return out;
  }

  std::string_view bytes_;
  Reader reader_;
  bool ok_ = true;
};

}  // namespace ray::wire
