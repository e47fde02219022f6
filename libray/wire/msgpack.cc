// See msgpack.h. Encoding is msgpack-c's packer. Decoding looks at one head at a time: msgpack-c's
// own parser builds a tree or calls a visitor and allocates either way; tests and the fuzzer
// compare this reader with it on every input.
#include "libray/wire/msgpack.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <msgpack.hpp>

#include "libray/wire/limits.h"

namespace ray::wire {
namespace {

struct StringSink {
  std::string* out;
  void write(const char* data, size_t size) { out->append(data, size); }
};
msgpack::packer<StringSink> pack(std::string* out, StringSink* sink) {
  sink->out = out;
  return msgpack::packer<StringSink>(sink);
}
uint32_t clamp32(size_t n) {
  return static_cast<uint32_t>(std::min<size_t>(n, std::numeric_limits<uint32_t>::max()));
}

// Big-endian unsigned of `width` bytes.
uint64_t load_be(const uint8_t* p, size_t width) {
  uint64_t v = 0;
  for (size_t i = 0; i < width; ++i) v = v << 8 | p[i];
  return v;
}

}  // namespace

#define PACKER(statement)          \
  StringSink sink;                 \
  auto packer = pack(out_, &sink); \
  statement;                       \
  return *this

Writer& Writer::nil() { PACKER(packer.pack_nil()); }
Writer& Writer::boolean(bool v) { PACKER(v ? packer.pack_true() : packer.pack_false()); }
Writer& Writer::int64(int64_t v) { PACKER(packer.pack_int64(v)); }
Writer& Writer::uint64(uint64_t v) { PACKER(packer.pack_uint64(v)); }
Writer& Writer::array(uint32_t n) { PACKER(packer.pack_array(n)); }
Writer& Writer::map(uint32_t n) { PACKER(packer.pack_map(n)); }
// Not through the packer: it turns whole floats into integers on some versions, and a result of
// type f64 must come back as a float.
Writer& Writer::float64(double v) {
  uint64_t bits;
  std::memcpy(&bits, &v, sizeof bits);
  bits = __builtin_bswap64(bits);
  out_->push_back(static_cast<char>(0xcb));
  out_->append(reinterpret_cast<const char*>(&bits), sizeof bits);
  return *this;
}
Writer& Writer::float32(float v) {
  uint32_t bits;
  std::memcpy(&bits, &v, sizeof bits);
  bits = __builtin_bswap32(bits);
  out_->push_back(static_cast<char>(0xca));
  out_->append(reinterpret_cast<const char*>(&bits), sizeof bits);
  return *this;
}
Writer& Writer::str(std::string_view v) {
  uint32_t n = clamp32(v.size());
  PACKER(packer.pack_str(n); packer.pack_str_body(v.data(), n));
}
Writer& Writer::bin(std::string_view v) {
  uint32_t n = clamp32(v.size());
  PACKER(packer.pack_bin(n); packer.pack_bin_body(v.data(), n));
}
Writer& Writer::bin(const void* data, size_t size) {
  return bin(std::string_view(static_cast<const char*>(data), size));
}
Writer& Writer::ext(int8_t type, std::string_view v) {
  uint32_t n = clamp32(v.size());
  PACKER(packer.pack_ext(n, type); packer.pack_ext_body(v.data(), n));
}
Writer& Writer::id(const Id& v) { return bin(v.b, kIdSize); }
Writer& Writer::hex(const Id& v) { return str(v.is_nil() ? std::string() : v.hex()); }
Writer& Writer::raw(std::string_view encoded) {
  out_->append(encoded);
  return *this;
}
#undef PACKER

// ---- Reader -------------------------------------------------------------------------------------

struct Reader::Head {
  Type type = Type::kBad;
  int8_t ext_type = 0;
  uint32_t head_size = 0;  // bytes before the body
  uint64_t size = 0;       // of the body (str, bin, ext) or elements (array, map)
  uint64_t bits = 0;       // bool, integers (two's complement), floats as bits of a double
};

const char* type_name(Type type) {
  static const char* const names[] = {"nothing", "nil",   "bool", "integer",
                                      "integer", "float", "str",  "binary",
                                      "array",   "map",   "ext",  "malformed bytes"};
  auto i = static_cast<size_t>(type);
  return i < std::size(names) ? names[i] : "unknown";
}

namespace {

// First bytes 0xc0 to 0xdf: the type and how many bytes of number follow (kExt: then its type
// byte).
struct Format {
  Type type;
  uint8_t width;
};
constexpr Format kFormats[32] = {
    {Type::kNil, 0},   {Type::kBad, 0},   {Type::kBool, 0},  {Type::kBool, 0},   // c0
    {Type::kBin, 1},   {Type::kBin, 2},   {Type::kBin, 4},   {Type::kExt, 1},    // c4
    {Type::kExt, 2},   {Type::kExt, 4},   {Type::kFloat, 4}, {Type::kFloat, 8},  // c8
    {Type::kUint, 1},  {Type::kUint, 2},  {Type::kUint, 4},  {Type::kUint, 8},   // cc
    {Type::kInt, 1},   {Type::kInt, 2},   {Type::kInt, 4},   {Type::kInt, 8},    // d0
    {Type::kExt, 0},   {Type::kExt, 0},   {Type::kExt, 0},   {Type::kExt, 0},    // d4: fixed sizes
    {Type::kExt, 0},   {Type::kStr, 1},   {Type::kStr, 2},   {Type::kStr, 4},    // d8
    {Type::kArray, 2}, {Type::kArray, 4}, {Type::kMap, 2},   {Type::kMap, 4},    // dc
};

uint64_t double_bits_of_float(uint32_t raw) {
  float f;
  std::memcpy(&f, &raw, sizeof f);
  double d = f;
  uint64_t bits;
  std::memcpy(&bits, &d, sizeof bits);
  return bits;
}

}  // namespace

// A first byte that says everything itself; false = kFormats tells.
bool Reader::short_head(uint8_t c, Head* h) {
  h->head_size = 1;
  if (c < 0x80) {
    h->type = Type::kUint, h->bits = c;
  } else if (c < 0x90) {
    h->type = Type::kMap, h->size = c & 15;
  } else if (c < 0xa0) {
    h->type = Type::kArray, h->size = c & 15;
  } else if (c < 0xc0) {
    h->type = Type::kStr, h->size = c & 31;
  } else if (c >= 0xe0) {
    h->type = Type::kInt, h->bits = static_cast<uint64_t>(int64_t{static_cast<int8_t>(c)});
  } else {
    return false;
  }
  return true;
}

// The head at at_: false = malformed, cut off or nothing left. Bodies are checked to lie within the
// view, element counts against the bytes that are left.
bool Reader::head(Head* h) const {
  size_t avail = static_cast<size_t>(end_ - at_);
  *h = Head();
  if (bad_ || avail == 0) return false;
  uint8_t c = *at_;
  if (!short_head(c, h)) {
    Format f = kFormats[c - 0xc0];
    size_t extra = f.type == Type::kExt ? 1 : 0;
    if (f.type == Type::kBad || avail < 1 + f.width + extra) return false;
    h->type = f.type;
    h->head_size = static_cast<uint32_t>(1 + f.width + extra);
    uint64_t number = load_be(at_ + 1, f.width);
    switch (f.type) {
      case Type::kBool: h->bits = c & 1; break;
      case Type::kFloat:
        h->bits = f.width == 8 ? number : double_bits_of_float(static_cast<uint32_t>(number));
        break;
      case Type::kUint: h->bits = number; break;
      case Type::kInt: {  // sign extension; zero and above count as unsigned
        int shift = 64 - 8 * f.width;
        int64_t v = static_cast<int64_t>(number << shift) >> shift;
        h->type = v < 0 ? Type::kInt : Type::kUint;
        h->bits = static_cast<uint64_t>(v);
        break;
      }
      case Type::kExt:
        h->size = f.width == 0 ? uint64_t{1} << (c - 0xd4) : number;
        h->ext_type = static_cast<int8_t>(at_[1 + f.width]);
        break;
      default: h->size = number;
    }
  }
  bool container = h->type == Type::kArray || h->type == Type::kMap;
  uint64_t least =
      h->type == Type::kMap ? 2 * h->size : h->size;  // an element takes a byte or more
  return least <= avail - h->head_size && !(container && h->size > 0 && depth_ >= kMaxDepth);
}

Type Reader::peek() const {
  Head h;
  if (head(&h)) return h.type;
  return !bad_ && nothing_left() ? Type::kEnd : Type::kBad;
}

Status Reader::status() const {
  if (!bad_) return Status();
  return error(RAY_INVALID_ARGUMENT, "malformed MessagePack at byte %zu", offset());
}

// One value is complete: containers that it completes are complete too.
void Reader::close_value() {
  while (depth_ > 0 && --left_[depth_ - 1] == 0) --depth_;
}

void Reader::take(const Head& h) {
  bool body = h.type == Type::kStr || h.type == Type::kBin || h.type == Type::kExt;
  at_ += h.head_size + (body ? h.size : 0);
  close_value();
}

bool Reader::scalar(Type a, Type b, Head* h) {
  if (!head(h)) return nothing_left() ? false : fail();
  return h->type == a || h->type == b;
}

bool Reader::enter(Type type, uint32_t* n) {
  Head h;
  if (!scalar(type, type, &h)) return false;
  at_ += h.head_size;
  *n = static_cast<uint32_t>(h.size);
  if (h.size == 0)
    close_value();
  else
    left_[depth_++] = type == Type::kMap ? 2 * h.size : h.size;
  return true;
}

bool Reader::nil() {
  Head h;
  if (!scalar(Type::kNil, Type::kNil, &h)) return false;
  take(h);
  return true;
}
bool Reader::boolean(bool* out) {
  Head h;
  if (!scalar(Type::kBool, Type::kBool, &h)) return false;
  *out = h.bits != 0;
  take(h);
  return true;
}
bool Reader::int64(int64_t* out) {
  Head h;
  if (!scalar(Type::kInt, Type::kUint, &h)) return false;
  if (h.type == Type::kUint && h.bits > static_cast<uint64_t>(INT64_MAX)) return false;
  *out = static_cast<int64_t>(h.bits);
  take(h);
  return true;
}
bool Reader::uint64(uint64_t* out) {
  Head h;
  if (!scalar(Type::kUint, Type::kUint, &h)) return false;
  *out = h.bits;
  take(h);
  return true;
}
bool Reader::int32(int32_t* out) {
  Head h;
  if (!scalar(Type::kInt, Type::kUint, &h)) return false;
  auto v = static_cast<int64_t>(h.bits);
  if (v < INT32_MIN || v > INT32_MAX || (h.type == Type::kUint && v < 0)) return false;
  *out = static_cast<int32_t>(v);
  take(h);
  return true;
}
bool Reader::uint32(uint32_t* out) {
  Head h;
  if (!scalar(Type::kUint, Type::kUint, &h) || h.bits > UINT32_MAX) return false;
  *out = static_cast<uint32_t>(h.bits);
  take(h);
  return true;
}
bool Reader::float64(double* out) {
  Head h;
  if (!head(&h)) return nothing_left() ? false : fail();
  if (h.type == Type::kFloat)
    std::memcpy(out, &h.bits, sizeof *out);
  else if (h.type == Type::kInt)
    *out = static_cast<double>(static_cast<int64_t>(h.bits));
  else if (h.type == Type::kUint)
    *out = static_cast<double>(h.bits);
  else
    return false;
  take(h);
  return true;
}
bool Reader::str(std::string_view* out) {
  Head h;
  if (!scalar(Type::kStr, Type::kStr, &h)) return false;
  *out = {reinterpret_cast<const char*>(at_) + h.head_size, h.size};
  take(h);
  return true;
}
bool Reader::bin(std::string_view* out) {
  Head h;
  if (!scalar(Type::kBin, Type::kBin, &h)) return false;
  *out = {reinterpret_cast<const char*>(at_) + h.head_size, h.size};
  take(h);
  return true;
}
bool Reader::bytes(std::string_view* out) {
  Head h;
  if (!scalar(Type::kStr, Type::kBin, &h)) return false;
  *out = {reinterpret_cast<const char*>(at_) + h.head_size, h.size};
  take(h);
  return true;
}
bool Reader::array(uint32_t* n) { return enter(Type::kArray, n); }
bool Reader::map(uint32_t* n) { return enter(Type::kMap, n); }
bool Reader::ext(int8_t* type, std::string_view* out) {
  Head h;
  if (!scalar(Type::kExt, Type::kExt, &h)) return false;
  *type = h.ext_type;
  *out = {reinterpret_cast<const char*>(at_) + h.head_size, h.size};
  take(h);
  return true;
}

// Walks over one value with the same stack that guards the getters, so nesting stays bounded.
bool Reader::skip() {
  Head h;
  if (!head(&h)) return nothing_left() ? false : fail();
  uint32_t outer = depth_;
  uint64_t outer_left = depth_ > 0 ? left_[depth_ - 1] : 0;
  for (;;) {
    if (h.type == Type::kArray || h.type == Type::kMap) {
      uint32_t n;
      enter(h.type, &n);
    } else {
      take(h);
    }
    bool done =
        depth_ < outer || (depth_ == outer && (outer == 0 || left_[outer - 1] != outer_left));
    if (done) return true;
    if (!head(&h)) return fail();
  }
}

bool Reader::raw(std::string_view* out) {
  const uint8_t* from = at_;
  if (!skip()) return false;
  *out = {reinterpret_cast<const char*>(from), static_cast<size_t>(at_ - from)};
  return true;
}

bool is_one_value(std::string_view bytes) {
  Reader r(bytes);
  return r.skip() && r.at_end();
}

std::string empty_array() { return std::string(1, '\x90'); }

// ---- Resources ----------------------------------------------------------------------------------

std::string with_entry(std::string_view map, std::string_view key, std::string_view value) {
  Reader r(map);
  uint32_t n = 0;
  std::string out, entries;
  if (!map.empty() && !r.nil() && !r.map(&n)) return std::string(map);
  for (uint32_t i = 0; i < n; ++i) {
    std::string_view name, amount;
    if (!r.str(&name) || name == key || !r.raw(&amount)) return std::string(map);
    Writer(&entries).str(name).raw(amount);
  }
  Writer(&out).map(n + 1).str(key).raw(value);
  return out + entries;
}

Result<Resources> parse_resources(std::string_view bytes, std::string* env, bool* placed) {
  Resources out;
  Reader r(bytes);
  if (bytes.empty() || (r.nil() && r.at_end())) return out;
  if (bytes.size() > kMaxResourceBytes)
    return error(RAY_INVALID_ARGUMENT, "resources: a map of %zu bytes; at most %zu are allowed", bytes.size(),
                 kMaxResourceBytes);
  uint32_t n = 0;
  if (!r.map(&n)) {
    if (!r.ok()) return error(RAY_INVALID_ARGUMENT, "resources: %s", r.status().message().c_str());
    return error(RAY_INVALID_ARGUMENT, "resources must be a map of name -> number, got %s",
                 type_name(r.peek()));
  }
  for (uint32_t i = 0; i < n; ++i) {
    std::string_view name;
    double amount;
    if (!r.str(&name))
      return error(RAY_INVALID_ARGUMENT, "resources: name %u must be a str, got %s", i,
                   type_name(r.peek()));
    if (name.empty() || name.size() > kMaxResourceName || name.find('\0') != name.npos ||
        !is_utf8(name))
      return error(RAY_INVALID_ARGUMENT, "resources: name %u must be 1 to %zu bytes of UTF-8 text",
                   i, kMaxResourceName);
    std::string key(name);
    if (key == kRuntimeEnv) {
      std::string_view described;
      if (r.peek() != Type::kMap || !r.raw(&described))
        return error(RAY_INVALID_ARGUMENT, "resources: 'runtime_env' must be a map");
      if (described.size() > kRuntimeEnvMax)
        return error(RAY_INVALID_ARGUMENT, "runtime_env has %zu bytes; at most %zu are allowed",
                     described.size(), kRuntimeEnvMax);
      if (env) *env = described;
      continue;
    }
    if (key == kPlacement) {
      std::string_view placement;
      if (r.peek() != Type::kMap || !r.raw(&placement))
        return error(RAY_INVALID_ARGUMENT, "resources: 'placement' must be a map");
      if (placed) *placed = true;
      continue;
    }
    if (!r.float64(&amount))
      return error(RAY_INVALID_ARGUMENT, "resources: '%s' must be a number, got %s", key.c_str(),
                   type_name(r.peek()));
    if (!std::isfinite(amount) || amount < 0 || amount > kMaxResourceAmount)
      return error(RAY_INVALID_ARGUMENT,
                   "resources: '%s' must be a finite number from 0 to %g, got %g",
                   key.c_str(), kMaxResourceAmount, amount);
    double rounded = std::round(amount / kResourceUnit) * kResourceUnit;
    if (amount > 0 && rounded == 0)
      return error(RAY_INVALID_ARGUMENT, "resources: '%s' is %g; the smallest amount is 0.0001",
                   key.c_str(), amount);
    if (!out.emplace(key, rounded).second)
      return error(RAY_INVALID_ARGUMENT, "resources: '%s' is named twice", key.c_str());
  }
  if (!r.at_end())
    return error(RAY_INVALID_ARGUMENT, "resources: %zu bytes after the map",
                 bytes.size() - r.offset());
  return out;
}

std::string pack_resources(const Resources& resources) {
  std::string out;
  Writer w(&out);
  w.map(static_cast<uint32_t>(resources.size()));
  for (const auto& [name, amount] : resources) w.str(name).float64(amount);
  return out;
}

}  // namespace ray::wire
