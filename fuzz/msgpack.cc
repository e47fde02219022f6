// The MessagePack reader: same verdict as msgpack-c, nothing read outside, renderings well formed.
#include <algorithm>
#include <msgpack.hpp>
#include <string>
#include <vector>

#include "fuzz/fuzz.h"
#include "libray/wire/msgpack.h"

using namespace ray::wire;

namespace {

struct Visitor : msgpack::null_visitor {
  uint32_t depth = 0;
  std::vector<uint32_t> sizes;
  bool enter(uint32_t n) {
    sizes.push_back(n);
    return n == 0 || ++depth <= kMaxDepth;
  }
  bool leave() {
    if (sizes.back() != 0) --depth;
    sizes.pop_back();
    return true;
  }
  bool start_array(uint32_t n) { return enter(n); }
  bool start_map(uint32_t n) { return enter(n); }
  bool end_array() { return leave(); }
  bool end_map() { return leave(); }
  void parse_error(size_t, size_t) {}
  void insufficient_bytes(size_t, size_t) {}
};

// Pulls every value with the getter of its type and writes it again.
bool copy(Reader& r, Writer& w) {
  uint32_t n;
  int8_t ext;
  int64_t i;
  uint64_t u;
  double d;
  bool b;
  std::string_view s;
  switch (r.peek()) {
    case Type::kNil: return r.nil() && w.nil().out();
    case Type::kBool: return r.boolean(&b) && w.boolean(b).out();
    case Type::kInt: return r.int64(&i) && w.int64(i).out();
    case Type::kUint: return r.uint64(&u) && w.uint64(u).out();
    case Type::kFloat: return r.float64(&d) && w.float64(d).out();
    case Type::kStr: return r.str(&s) && w.str(s).out();
    case Type::kBin: return r.bin(&s) && w.bin(s).out();
    case Type::kExt: return r.ext(&ext, &s) && w.ext(ext, s).out();
    case Type::kArray:
    case Type::kMap: {
      bool map = r.peek() == Type::kMap;
      if (!(map ? r.map(&n) : r.array(&n))) return false;
      map ? w.map(n) : w.array(n);
      for (uint64_t k = 0; k < (map ? 2 : 1) * uint64_t{n}; ++k)
        if (!copy(r, w)) return false;
      return true;
    }
    case Type::kEnd:
    case Type::kBad: return false;
  }
  return false;
}

}  // namespace

FUZZ_TARGET(msgpack) {
  Visitor visitor;
  size_t used = 0;
  bool oracle = msgpack::parse(input.data(), input.size(), used, visitor);
  Reader skipper(input);
  bool mine = skipper.skip();
  FUZZ_CHECK(mine == oracle);
  FUZZ_CHECK(!mine || skipper.offset() == used);

  Reader reader(input);
  std::string again, third;
  Writer writer(&again);
  FUZZ_CHECK(copy(reader, writer) == mine);
  if (mine) {  // what was written reads back as the same bytes
    Reader second(again);
    Writer rewriter(&third);
    FUZZ_CHECK(copy(second, rewriter) && second.at_end());
    FUZZ_CHECK(third == again);
    FUZZ_CHECK(is_utf8(to_json(again)) && !to_json(again).empty());
  } else {
    FUZZ_CHECK(input.empty() || reader.peek() == Type::kBad);
  }
  FUZZ_CHECK(is_utf8(to_text(input)));
  FUZZ_CHECK(to_text(input, 20).size() <= 23);
  auto resources = parse_resources(input);
  if (resources.ok()) {
    auto back = parse_resources(pack_resources(*resources));
    FUZZ_CHECK(back.ok() && *back == *resources);
  }
}
