// MessagePack helpers: every encoding against msgpack-c, limits, hostile bytes, renderings,
// resources.
#include "libray/wire/cursor.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <msgpack.hpp>
#include <random>

namespace ray::wire {
namespace {

std::string pack(const std::function<void(Writer&)>& fill) {
  std::string s;
  Writer w(&s);
  fill(w);
  return s;
}
std::string bytes(std::initializer_list<int> list) {
  std::string s;
  for (int b : list) s.push_back(static_cast<char>(b));
  return s;
}

TEST(Writer, EveryIntegerReadsBackAndIsShortest) {
  std::vector<int64_t> values;
  for (int bit = 0; bit < 63; ++bit)
    for (int64_t d : {-1, 0, 1}) {
      values.push_back((int64_t{1} << bit) + d);
      values.push_back(-(int64_t{1} << bit) + d);
    }
  values.push_back(INT64_MAX);
  values.push_back(INT64_MIN);
  for (int64_t v : values) {
    std::string s = pack([&](Writer& w) { w.int64(v); });
    msgpack::sbuffer oracle;
    msgpack::pack(oracle, v);
    ASSERT_EQ(s, std::string(oracle.data(), oracle.size())) << v;
    Reader r(s);
    int64_t got;
    ASSERT_TRUE(r.int64(&got)) << v;
    EXPECT_EQ(got, v);
    EXPECT_TRUE(r.at_end());
    Reader typed(s);
    EXPECT_EQ(typed.peek(), v < 0 ? Type::kInt : Type::kUint) << v;
    int32_t i32;
    EXPECT_EQ(typed.int32(&i32), v >= INT32_MIN && v <= INT32_MAX) << v;
    Reader r32(s);
    uint32_t u32;
    EXPECT_EQ(r32.uint32(&u32), v >= 0 && v <= UINT32_MAX) << v;
    Reader r64(s);
    uint64_t u64;
    EXPECT_EQ(r64.uint64(&u64), v >= 0) << v;
  }
}

TEST(Reader, LargeUnsignedIsNotInt64) {
  std::string s = pack([](Writer& w) { w.uint64(UINT64_MAX); });
  Reader r(s);
  int64_t i;
  int32_t i32;
  EXPECT_FALSE(r.int64(&i));
  EXPECT_FALSE(r.int32(&i32));
  EXPECT_TRUE(r.ok());
  uint64_t u;
  EXPECT_TRUE(r.uint64(&u));
  EXPECT_EQ(u, UINT64_MAX);
}

TEST(Reader, SignedEncodingsOfSmallNumbersAreAccepted) {
  // int64 and int8 encodings of 5, which other writers may choose.
  for (auto& s : {bytes({0xd3, 0, 0, 0, 0, 0, 0, 0, 5}), bytes({0xd0, 5})}) {
    Reader r(s);
    uint64_t u;
    ASSERT_TRUE(r.uint64(&u));
    EXPECT_EQ(u, 5u);
  }
}

TEST(Reader, FloatsKeepTheirBits) {
  for (double v : {0.0, -0.0, 1.5, 3.0, 1e308, 5e-324, HUGE_VAL, -HUGE_VAL}) {
    std::string s = pack([&](Writer& w) { w.float64(v); });
    EXPECT_EQ(s.size(), 9u);
    Reader r(s);
    double got;
    ASSERT_TRUE(r.float64(&got));
    EXPECT_EQ(std::memcmp(&got, &v, sizeof v), 0);
  }
  std::string nan = pack([](Writer& w) { w.float64(std::nan("")).float32(0.5f); });
  Reader r(nan);
  double d, f;
  ASSERT_TRUE(r.float64(&d));
  EXPECT_TRUE(std::isnan(d));
  ASSERT_TRUE(r.float64(&f));
  EXPECT_EQ(f, 0.5);
}

TEST(Reader, StringsOfEverySizeClass) {
  for (size_t n : {0u, 31u, 32u, 255u, 256u, 65535u, 65536u}) {
    std::string body(n, 'x');
    std::string s = pack([&](Writer& w) { w.str(body).bin(body).ext(-7, body); });
    Reader r(s);
    std::string_view text;
    EXPECT_FALSE(r.bin(&text));
    ASSERT_TRUE(r.str(&text));
    EXPECT_EQ(text, body);
    EXPECT_FALSE(r.str(&text));
    ASSERT_TRUE(r.bin(&text));
    EXPECT_EQ(text, body);
    int8_t type;
    ASSERT_TRUE(r.ext(&type, &text)) << n;
    EXPECT_EQ(type, -7);
    EXPECT_EQ(text, body);
    EXPECT_TRUE(r.at_end());
    std::string one = pack([&](Writer& w) { w.bin(body); });
    EXPECT_TRUE(is_one_value(one));
    for (size_t cut = 1; cut < 6 && cut < one.size(); ++cut)
      EXPECT_FALSE(is_one_value(std::string_view(one).substr(0, one.size() - cut)));
  }
}

TEST(Reader, ContainersNestAndEnd) {
  std::string s =
      pack([](Writer& w) { w.array(3).map(1).str("k").array(0).int64(1).map(0).boolean(true); });
  Reader r(s);
  uint32_t n;
  std::string_view key;
  int64_t v;
  bool flag;
  ASSERT_TRUE(r.array(&n));
  EXPECT_EQ(n, 3u);
  ASSERT_TRUE(r.map(&n));
  EXPECT_EQ(n, 1u);
  ASSERT_TRUE(r.str(&key));
  ASSERT_TRUE(r.array(&n));
  EXPECT_EQ(n, 0u);
  ASSERT_TRUE(r.int64(&v));
  ASSERT_TRUE(r.map(&n));
  EXPECT_EQ(r.peek(), Type::kBool);
  ASSERT_TRUE(r.boolean(&flag));
  EXPECT_EQ(r.peek(), Type::kEnd);
  EXPECT_TRUE(r.ok());
}

TEST(Reader, SkipAndRawTakeOneValueAtAnyDepth) {
  std::string inner = pack([](Writer& w) { w.array(2).array(1).nil().map(1).int64(1).str("x"); });
  std::string s = pack([&](Writer& w) { w.array(3).raw(inner).raw(inner).int64(9); });
  Reader r(s);
  uint32_t n;
  ASSERT_TRUE(r.array(&n));
  std::string_view raw;
  ASSERT_TRUE(r.raw(&raw));
  EXPECT_EQ(raw, inner);
  ASSERT_TRUE(r.skip());
  int64_t v;
  ASSERT_TRUE(r.int64(&v));
  EXPECT_EQ(v, 9);
  EXPECT_FALSE(r.skip());
  EXPECT_TRUE(r.ok());
}

TEST(Reader, AWrongTypeConsumesNothing) {
  std::string s = pack([](Writer& w) { w.str("abc"); });
  Reader r(s);
  int64_t i;
  double d;
  uint32_t n;
  bool b;
  EXPECT_FALSE(r.int64(&i));
  EXPECT_FALSE(r.float64(&d));
  EXPECT_FALSE(r.array(&n));
  EXPECT_FALSE(r.map(&n));
  EXPECT_FALSE(r.boolean(&b));
  EXPECT_FALSE(r.nil());
  EXPECT_EQ(r.offset(), 0u);
  EXPECT_TRUE(r.ok());
  std::string_view text;
  EXPECT_TRUE(r.str(&text));
}

TEST(Reader, MissingElementsAreMalformed) {
  std::string s = bytes({0x92, 0x91, 0x01});  // [[1], and nothing more
  Reader r(s);
  uint32_t n;
  int64_t v;
  ASSERT_TRUE(r.array(&n));
  ASSERT_TRUE(r.array(&n));
  ASSERT_TRUE(r.int64(&v));
  EXPECT_EQ(r.peek(), Type::kBad);
  EXPECT_FALSE(r.int64(&v));
  EXPECT_FALSE(r.ok());
  EXPECT_EQ(r.status().code(), RAY_INVALID_ARGUMENT);
  EXPECT_NE(r.status().message().find("byte 3"), std::string::npos);
}

TEST(Reader, ClaimedSizesAreChecked) {
  for (auto& s :
       {bytes({0xdd, 0xff, 0xff, 0xff, 0xff}), bytes({0xdf, 0xff, 0xff, 0xff, 0xff}),
        bytes({0xdb, 0xff, 0xff, 0xff, 0xff, 'a'}), bytes({0xc6, 0, 0, 0, 2, 'a'}),
        bytes({0xdf, 0, 0, 0, 1, 0xc0}), bytes({0xc1}), bytes({0xcf, 1, 2}), bytes({0xc9, 0, 0})}) {
    Reader r(s);
    uint32_t n;
    std::string_view v;
    EXPECT_EQ(r.peek(), Type::kBad);
    EXPECT_FALSE(r.array(&n));
    EXPECT_FALSE(r.ok());
    EXPECT_FALSE(r.bytes(&v));
    EXPECT_FALSE(is_one_value(s));
  }
}

TEST(Reader, NestingIsBounded) {
  std::string deep(kMaxDepth, static_cast<char>(0x91));
  EXPECT_TRUE(is_one_value(deep + bytes({0xc0})));
  EXPECT_FALSE(is_one_value(bytes({0x91}) + deep + bytes({0xc0})));
  std::string hostile(1 << 20, static_cast<char>(0x91));
  hostile += bytes({0xc0});
  EXPECT_FALSE(is_one_value(hostile));
  EXPECT_NE(to_text(hostile).find("malformed"), std::string::npos);
  Reader r(hostile);
  uint32_t n, depth = 0;
  while (r.array(&n)) ++depth;
  EXPECT_EQ(depth, kMaxDepth);
  EXPECT_FALSE(r.ok());
}

// msgpack-c's own verdict on one value at the front, within the reader's limits.
bool oracle_accepts(const std::string& s, size_t* used) {
  struct Visitor : msgpack::null_visitor {
    uint32_t depth = 0;
    bool enter(uint32_t n) { return n == 0 || ++depth <= kMaxDepth; }
    bool start_array(uint32_t n) {
      arrays.push_back(n);
      return enter(n);
    }
    bool start_map(uint32_t n) {
      arrays.push_back(n);
      return enter(n);
    }
    bool leave() {
      if (arrays.back() != 0) --depth;
      arrays.pop_back();
      return true;
    }
    bool end_array() { return leave(); }
    bool end_map() { return leave(); }
    void parse_error(size_t, size_t) {}
    void insufficient_bytes(size_t, size_t) {}
    std::vector<uint32_t> arrays;
  } visitor;
  *used = 0;
  return msgpack::parse(s.data(), s.size(), *used, visitor);
}

TEST(Reader, AgreesWithMsgpackOnRandomBytes) {
  std::mt19937 random(1);
  std::string good = pack([](Writer& w) {
    w.map(3)
        .str("key")
        .array(3)
        .int64(-70000)
        .uint64(UINT64_MAX)
        .float64(1.5)
        .bin("bin")
        .ext(3, "12345678");
    w.nil().map(1).boolean(true).float32(2);
  });
  size_t accepted = 0;
  for (int round = 0; round < 200000; ++round) {
    std::string s = good;
    if (round % 2) {
      s.assign(random() % 24, '\0');
      for (char& c : s) c = static_cast<char>(random());
    } else {
      for (size_t n = 1 + random() % 3; n > 0; --n)
        s[random() % s.size()] = static_cast<char>(random());
      s.resize(random() % (s.size() + 1));
    }
    size_t used;
    bool oracle = oracle_accepts(s, &used);
    Reader r(s);
    bool mine = r.skip();
    ASSERT_EQ(mine, oracle) << to_text(s);
    if (mine) {
      ASSERT_EQ(r.offset(), used);
      EXPECT_NE(to_json(s.substr(0, used)), "");
    }
    accepted += mine;
  }
  EXPECT_GT(accepted, 10000u);
}

TEST(Reader, EmptyInput) {
  Reader r{std::string_view()};
  std::string_view v;
  EXPECT_EQ(r.peek(), Type::kEnd);
  EXPECT_FALSE(r.str(&v));
  EXPECT_FALSE(r.skip());
  EXPECT_TRUE(r.ok());
  EXPECT_FALSE(is_one_value(""));
}

TEST(Text, RendersEveryType) {
  std::string s = pack([](Writer& w) {
    w.map(2).str("a\n\"").array(5).nil().boolean(false).int64(-3).float64(2.5).float64(3);
    w.bin("hello").ext(5, "xy");
  });
  EXPECT_EQ(
      to_text(s),
      "{\"a\\n\\\"\": [null, false, -3, 2.5, 3.0], <5 bytes 68656c6c6f>: <ext 5, 2 bytes 7879>}");
  EXPECT_EQ(to_json(s), "{\"a\\n\\\"\": [null, false, -3, 2.5, 3.0], \"hello\": \"0x7879\"}");
}

TEST(Text, IsCutAndNeverFails) {
  std::string s = pack([](Writer& w) {
    w.array(10000);
    for (int i = 0; i < 10000; ++i) w.int64(i);
  });
  std::string t = to_text(s, 50);
  EXPECT_EQ(t.size(), 53u);
  EXPECT_EQ(t.substr(50), "...");
  std::string umlauts;
  for (int i = 0; i < 100; ++i) umlauts += "\xc3\xa4";
  for (size_t limit = 0; limit < 60; ++limit)
    EXPECT_TRUE(is_utf8(to_text(pack([&](Writer& w) { w.str(umlauts); }), limit))) << limit;
  EXPECT_EQ(to_text(bytes({0x93, 1, 0xc1, 2})), "[1, <malformed at byte 2>");
  EXPECT_EQ(to_json(bytes({0x93, 1, 0xc1, 2})), "");
  EXPECT_EQ(to_text(""), "");
}

TEST(Text, JsonIsAlwaysJson) {
  EXPECT_EQ(to_json(pack([](Writer& w) { w.float64(HUGE_VAL); })), "\"inf\"");
  EXPECT_EQ(to_json(pack([](Writer& w) { w.map(2).int64(1).nil().array(1).int64(2).nil(); })),
            "{\"1\": null, \"[2]\": null}");
  EXPECT_EQ(json_quote(bytes({'a', 0xff, 1})), "\"a\xef\xbf\xbd\\u0001\"");
  EXPECT_FALSE(is_utf8(bytes({0xed, 0xa0, 0x80})));  // a surrogate
  EXPECT_FALSE(is_utf8(bytes({0xc0, 0x80})));        // overlong
  EXPECT_FALSE(is_utf8(bytes({0xf4, 0x90, 0x80, 0x80})));
}

TEST(ResourceMap, ReadsBackWhatItWrote) {
  Resources in{{"CPU", 1}, {"GPU", 0.25}, {"disk", 0.0001}};
  auto out = parse_resources(pack_resources(in));
  ASSERT_TRUE(out.ok());
  EXPECT_EQ(*out, in);
  EXPECT_TRUE(parse_resources("")->empty());
  EXPECT_TRUE(parse_resources(bytes({0xc0}))->empty());
  auto whole = parse_resources(pack([](Writer& w) { w.map(1).str("CPU").int64(3); }));
  ASSERT_TRUE(whole.ok());
  EXPECT_EQ(whole->at("CPU"), 3.0);
  auto rounded = parse_resources(pack([](Writer& w) { w.map(1).str("CPU").float64(1.0 / 3); }));
  EXPECT_NEAR(rounded->at("CPU"), 0.3333, 1e-12);
}

TEST(ResourceMap, NamesWhatIsWrong) {
  auto message = [](const std::function<void(Writer&)>& fill) {
    auto r = parse_resources(pack(fill));
    EXPECT_FALSE(r.ok());
    EXPECT_EQ(r.status().code(), RAY_INVALID_ARGUMENT);
    return r.status().message();
  };
  EXPECT_NE(message([](Writer& w) { w.map(1).str("GPU").float64(-1); }).find("'GPU'"),
            std::string::npos);
  EXPECT_NE(message([](Writer& w) { w.map(1).str("GPU").float64(std::nan("")); }).find("finite"),
            std::string::npos);
  EXPECT_NE(message([](Writer& w) { w.map(1).str("GPU").float64(0.00001); }).find("0.0001"),
            std::string::npos);
  EXPECT_NE(
      message([](Writer& w) { w.map(1).str("GPU").str("1"); }).find("must be a number, got str"),
      std::string::npos);
  EXPECT_NE(message([](Writer& w) { w.map(1).str("").int64(1); }).find("name 0"),
            std::string::npos);
  EXPECT_NE(message([](Writer& w) { w.map(1).int64(1).int64(1); }).find("must be a str"),
            std::string::npos);
  EXPECT_NE(message([](Writer& w) { w.array(0); }).find("got array"), std::string::npos);
  EXPECT_NE(message([](Writer& w) { w.map(0).nil(); }).find("after the map"), std::string::npos);
  EXPECT_NE(message([](Writer& w) { w.map(2).str("a").int64(1).str("a").int64(2); }).find("twice"),
            std::string::npos);
  // A runtime environment travels among the resources and is none.
  auto with_env = parse_resources(pack([](Writer& w) {
    w.map(2).str("runtime_env").map(1).str("env_vars").map(1).str("A").str("1");
    w.str("CPU").float64(2);
  }));
  ASSERT_TRUE(with_env.ok());
  EXPECT_EQ(*with_env, (Resources{{"CPU", 2.0}}));
  EXPECT_FALSE(parse_resources(pack([](Writer& w) { w.map(1).str("runtime_env").float64(1); })).ok());
  EXPECT_FALSE(parse_resources(bytes({0x81, 0xa1})).ok());
}

TEST(ResourceMap, GivesTheRuntimeEnvironmentToWhoAsks) {
  std::string env, packed = pack([](Writer& w) {
    w.map(2).str("CPU").int64(1).str("runtime_env").map(1).str("cwd").str("/");
  });
  ASSERT_TRUE(parse_resources(packed, &env).ok());
  EXPECT_EQ(to_json(env), "{\"cwd\": \"/\"}");
}

TEST(Cursor, AnswersZeroAfterTheFirstMismatch) {
  Id id;
  id.b[3] = 7;
  std::string packed = pack([&](Writer& w) {
    w.array(6).uint64(UINT64_MAX).int64(-5).float64(0.5).id(id).nil().str("end");
  });
  Cursor good(packed);
  good.array_of(6);
  EXPECT_EQ(good.uint64(), UINT64_MAX);
  EXPECT_EQ(good.int64(), -5);
  EXPECT_EQ(good.float64(), 0.5);
  EXPECT_EQ(good.id(), id);
  EXPECT_FALSE(good.done());
  EXPECT_TRUE(good.id().is_nil());
  EXPECT_EQ(good.text(), "end");
  EXPECT_TRUE(good.done());
  EXPECT_EQ(good.int64(), 0);  // nothing is left
  EXPECT_FALSE(good.ok());

  Cursor wrong(packed);
  wrong.array_of(5);
  EXPECT_FALSE(wrong.ok());
  EXPECT_EQ(wrong.uint64(), 0u);
  EXPECT_EQ(wrong.bytes(), "");
  EXPECT_EQ(wrong.value(), "");
  EXPECT_EQ(wrong.rest(), "");
  EXPECT_EQ(wrong.array(), 0u);
  EXPECT_FALSE(wrong.done());
  std::string minus = pack([](Writer& w) { w.int64(-1); });
  Cursor negative(minus);
  EXPECT_EQ(negative.uint64(), 0u);
  EXPECT_FALSE(negative.ok());
}

}  // namespace
}  // namespace ray::wire
