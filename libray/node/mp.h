// MessagePack for the daemon: a writer, and a reader that refuses what it does not expect. Bytes come
// from other processes: nothing here throws, and nothing is allocated that the input does not pay for.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "libray/base/ids.h"
#include "libray/base/status.h"

namespace ray::node::mp {

class Writer {
 public:
  Writer& array(uint32_t n);
  Writer& map(uint32_t n);
  Writer& nil();
  Writer& boolean(bool v);
  Writer& uint(uint64_t v);
  Writer& sint(int64_t v);
  Writer& real(double v);
  Writer& str(std::string_view v);
  Writer& bin(std::string_view v);
  Writer& id(const Id& v) { return bin({reinterpret_cast<const char*>(v.b), kIdSize}); }
  Writer& raw(std::string_view packed);  // already MessagePack
  std::string& bytes() { return out_; }
  const std::string& bytes() const { return out_; }

 private:
  void byte(uint8_t b) { out_.push_back(static_cast<char>(b)); }
  void big(uint64_t v, int n);
  std::string out_;
};

// Walks over packed values; after the first failure every further read fails.
class Reader {
 public:
  explicit Reader(std::string_view bytes) : p_(bytes) {}
  bool ok() const { return ok_; }
  bool done() const { return ok_ && p_.empty(); }
  uint32_t array();
  uint32_t map();
  uint64_t uint();
  int64_t sint();
  double number();         // any number
  std::string str();       // also takes bin
  std::string_view view(); // str or bin, borrowed
  bool id(Id* out);        // bin of 24 bytes; nil = zero
  bool nil();              // true and skipped when a nil is next
  std::string_view raw();  // one whole value, still packed
  void skip() { raw(); }

 private:
  uint8_t head();
  uint64_t big(int n);
  std::string_view take(uint64_t n);
  bool fail();
  bool skip_one(uint32_t depth);
  std::string_view p_;
  bool ok_ = true;
};

std::string empty_array();
// {name: number}; empty bytes = nothing. `env`: the packed map of the entry "runtime_env", if any.
Status read_resources(std::string_view bytes, std::map<std::string, double>* out,
                      std::string* env = nullptr);
// The entry "placement" of resources: where a task or actor may run.
struct Placement {
  Id group, node;       // zero: any
  int32_t bundle = -1;  // -1: any
  bool soft = false;    // another node will do
  std::string never;    // why no node will do, for now
};
Status read_placement(std::string_view resources, Placement* out);
std::string json_escape(const std::string& s);

}  // namespace ray::node::mp
