// MessagePack: a Writer that appends values to a string, a Reader that pulls typed values out of
// bytes that nobody vouches for, and a readable rendering for tools.
//
// Who: every layer that speaks MessagePack (requests to the daemon, control-store frames, resource
// maps, dynamic C calls, the command-line tool). Threads: any; an object belongs to one thread.
//
// Invariants of the Reader: it never throws, never allocates, never reads outside its view; nesting
// is bounded (kMaxDepth) however it is used; a container cannot claim more elements than bytes are
// left. A getter that returns false consumed nothing; after malformed bytes every getter fails.
#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "libray/base/ids.h"
#include "libray/base/status.h"

namespace ray::wire {

inline constexpr uint32_t kMaxDepth = 64;  // containers within containers

// Views longer than 4 GiB cannot be expressed in MessagePack: str, bin and ext cut them off there.
class Writer {
 public:
  explicit Writer(std::string* out) : out_(out) {}
  Writer& nil();
  Writer& boolean(bool v);
  Writer& int64(int64_t v);  // both integer calls choose the shortest encoding of the number
  Writer& uint64(uint64_t v);
  Writer& float64(double v);
  Writer& float32(float v);
  Writer& str(std::string_view v);
  Writer& bin(std::string_view v);
  Writer& bin(const void* data, size_t size);
  Writer& array(uint32_t n);  // n values follow
  Writer& map(uint32_t n);    // n pairs of values follow
  Writer& ext(int8_t type, std::string_view v);
  Writer& id(const Id& v);   // bin of kIdSize bytes
  Writer& hex(const Id& v);  // str of hex digits, empty for the nil id
  Writer& raw(std::string_view encoded);  // one value that is encoded already
  std::string* out() const { return out_; }

 private:
  std::string* out_;
};

// A Writer with a string of its own.
class Packer : public Writer {
 public:
  Packer() : Writer(&bytes_) {}
  Packer(const Packer&) = delete;
  Packer& operator=(const Packer&) = delete;
  std::string& bytes() { return bytes_; }

 private:
  std::string bytes_;
};

enum class Type : uint8_t {
  kEnd,  // no further value
  kNil,
  kBool,
  kInt,   // negative
  kUint,  // zero and above, whatever its encoding
  kFloat,
  kStr,
  kBin,
  kArray,
  kMap,
  kExt,
  kBad,  // malformed or truncated
};
const char* type_name(Type type);  // "integer", "array"; static storage

class Reader {
 public:
  Reader() = default;
  explicit Reader(std::string_view bytes) : Reader(bytes.data(), bytes.size()) {}
  Reader(const void* data, size_t size)
      : begin_(static_cast<const uint8_t*>(data)), at_(begin_), end_(begin_ + size) {}

  Type peek() const;
  bool at_end() const { return at_ == end_; }
  bool ok() const { return !bad_; }
  size_t offset() const { return static_cast<size_t>(at_ - begin_); }
  // RAY_OK, or RAY_INVALID_ARGUMENT with the place: "malformed MessagePack at byte 12".
  Status status() const;

  bool nil();
  bool boolean(bool* out);
  bool int64(int64_t* out);    // also unsigned ones that fit
  bool uint64(uint64_t* out);  // not negative ones
  bool int32(int32_t* out);    // only numbers that fit
  bool uint32(uint32_t* out);
  bool float64(double* out);  // also integers
  bool str(std::string_view* out);
  bool bin(std::string_view* out);
  bool bytes(std::string_view* out);  // str or bin
  bool array(uint32_t* n);            // enters: n values follow
  bool map(uint32_t* n);              // enters: n pairs follow
  bool ext(int8_t* type, std::string_view* out);
  bool skip();                      // one whole value
  bool raw(std::string_view* out);  // one whole value, as its bytes

 private:
  struct Head;
  bool head(Head* out) const;
  static bool short_head(uint8_t c, Head* out);
  bool nothing_left() const { return at_ == end_ && depth_ == 0; }
  bool scalar(Type a, Type b, Head* out);
  bool enter(Type type, uint32_t* n);
  void take(const Head& h);
  void close_value();
  bool fail() {
    bad_ = true;
    return false;
  }

  const uint8_t* begin_ = nullptr;
  const uint8_t* at_ = nullptr;
  const uint8_t* end_ = nullptr;
  uint32_t depth_ = 0;
  bool bad_ = false;
  uint64_t left_[kMaxDepth];  // values still to come in each open container
};

// Whether the bytes are exactly one well-formed value of bounded depth.
bool is_one_value(std::string_view bytes);
std::string empty_array();  // [] packed

// For people: {"name": "x", "data": <5 bytes 68656c6c6f>}; cut after about `limit` characters with
// "...". Malformed input is shown up to the place. Never fails.
std::string to_text(std::string_view bytes, size_t limit = 200);
// JSON of one value: bin as text if it is UTF-8, else as "0x..."; map keys become strings;
// non-finite numbers become strings. Empty when malformed.
std::string to_json(std::string_view bytes);
// A quoted JSON string; bytes that are not UTF-8 become U+FFFD.
std::string json_quote(std::string_view text);
bool is_utf8(std::string_view text);

// Resources: names with amounts >= 0, kept to 1/10000. The entry "runtime_env" is none: it is a map that
// describes the environment of the worker, and travels with what else is asked of a worker.
inline constexpr std::string_view kRuntimeEnv = "runtime_env";
inline constexpr size_t kRuntimeEnvMax = 16 << 10;
// The entry "placement" is none either: a map that says where on the node it may run, see ray_placement.
inline constexpr std::string_view kPlacement = "placement";
// The map with one more entry, whose value is packed already; as it is when it has that key. Empty = no entries.
std::string with_entry(std::string_view map, std::string_view key, std::string_view value);
using Resources = std::map<std::string, double>;
inline constexpr double kResourceUnit = 0.0001;
// Empty bytes and nil = no resources. RAY_INVALID_ARGUMENT names the entry that is wrong.
// `env`, if given, gets the packed map of the entry "runtime_env"; `placed`, whether there is an entry "placement".
Result<Resources> parse_resources(std::string_view bytes, std::string* env = nullptr, bool* placed = nullptr);
std::string pack_resources(const Resources& resources);

}  // namespace ray::wire
