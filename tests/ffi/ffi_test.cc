// Signatures and dynamic C calls: real functions of libc, libm and libz, every type at its limits,
// every mistake with its message.
#include "libray/ffi/ffi.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <random>
#include <thread>

namespace ray::ffi {
namespace {

using wire::Reader;
using wire::Writer;

std::string pack(const std::function<void(Writer&)>& fill) {
  std::string s;
  Writer w(&s);
  fill(w);
  return s;
}
std::string of_int(int64_t v) {
  return pack([&](Writer& w) { w.int64(v); });
}
std::string of_uint(uint64_t v) {
  return pack([&](Writer& w) { w.uint64(v); });
}
std::string of_float(double v) {
  return pack([&](Writer& w) { w.float64(v); });
}
std::string of_str(std::string_view v) {
  return pack([&](Writer& w) { w.str(v); });
}
std::string of_bin(std::string_view v) {
  return pack([&](Writer& w) { w.bin(v); });
}
std::string of_nil() {
  return pack([](Writer& w) { w.nil(); });
}

std::shared_ptr<const Symbol> open(const std::string& library, const std::string& name,
                                   const std::string& signature) {
  auto s = Symbol::open(library, name, signature);
  EXPECT_TRUE(s.ok()) << s.status().message();
  return s.ok() ? *s : nullptr;
}
std::shared_ptr<const Symbol> sample(const std::string& name, const std::string& signature) {
  return open(FFI_SAMPLE, name, signature);
}
Status call(const Symbol& symbol, const std::vector<std::string>& args, std::string* out) {
  std::vector<ArgView> views;
  for (const auto& a : args) views.push_back({a.data(), a.size()});
  out->clear();
  Writer w(out);
  return symbol.call(views.data(), views.size(), &w);
}
// The result as text; an error as "!message".
std::string run(const Symbol& symbol, const std::vector<std::string>& args) {
  std::string out;
  Status s = call(symbol, args, &out);
  EXPECT_TRUE(!s.ok() || wire::is_one_value(out));
  return s.ok() ? wire::to_text(out) : "!" + s.message();
}

TEST(Signature, ParsesEveryType) {
  auto s = Signature::parse("void(bool,i8,u8,i16,u16,i32,u32,i64,u64,f32,f64,str,bytes,ptr_len)");
  ASSERT_TRUE(s.ok()) << s.status().message();
  EXPECT_EQ(s->args.size(), 14u);
  EXPECT_EQ(s->text(), "void(bool,i8,u8,i16,u16,i32,u32,i64,u64,f32,f64,str,bytes,ptr_len)");
  for (const char* none : {"f64()", "f64(void)", " f64 ( void ) ", "\tf64 ( )"}) {
    auto n = Signature::parse(none);
    ASSERT_TRUE(n.ok()) << none;
    EXPECT_EQ(n->text(), "f64()");
  }
}

TEST(Signature, ErrorsPointAtTheCharacter) {
  struct Case {
    const char* text;
    const char* why;
    size_t at;
  };
  for (const Case& c :
       std::initializer_list<Case>{{"", "expected a result type, found the end", 0},
                                   {"f64", "expected '(', found the end", 3},
                                   {"f64(", "expected an argument type, found the end", 4},
                                   {"f64(i33)", "unknown type 'i33'", 4},
                                   {"f64(int)", "write 'i32'", 4},
                                   {"double(f64)", "write 'f64'", 0},
                                   {"f64(i32 f64)", "expected ',' or ')', found 'f'", 8},
                                   {"f64(i32,)", "expected an argument type, found ')'", 8},
                                   {"f64(,i32)", "expected an argument type, found ','", 4},
                                   {"f64(i32,void)", "'void' cannot be an argument", 8},
                                   {"f64(void,i32)", "'void' cannot be an argument", 4},
                                   {"bytes(i32)", "'bytes' cannot be a result", 0},
                                   {" ptr_len()", "'ptr_len' cannot be a result", 1},
                                   {"f64(i32)x", "nothing may follow ')'", 8},
                                   {"f64(i32*)", "expected ',' or ')', found '*'", 7},
                                   {"F64()", "unknown type 'F64'", 0},
                                   {"f64\n()", "found byte 0x0a", 3}}) {
    auto s = Signature::parse(c.text);
    ASSERT_FALSE(s.ok()) << c.text;
    EXPECT_EQ(s.status().code(), RAY_INVALID_ARGUMENT);
    const std::string& m = s.status().message();
    EXPECT_NE(m.find(c.why), std::string::npos) << m;
    EXPECT_NE(m.find("(character " + std::to_string(c.at) + ")"), std::string::npos) << m;
    EXPECT_EQ(m.find('\n'), std::string::npos) << m;
  }
}

TEST(Signature, ArgumentsAreLimited) {
  auto with = [](size_t n) {
    std::string s = "void(";
    for (size_t i = 0; i < n; ++i) s += i ? ",i32" : "i32";
    return s + ")";
  };
  EXPECT_TRUE(Signature::parse(with(kMaxArgs)).ok());
  EXPECT_FALSE(Signature::parse(with(kMaxArgs + 1)).ok());
}

TEST(Signature, WhatParsesIsStableUnderPrinting) {
  std::mt19937 random(1);
  const std::string alphabet[] = {"f64", "i32", "void", "ptr_len", "bytes", "str",
                                  "(",   ")",   ",",    " ",       "x",     "\xff"};
  size_t parsed = 0;
  for (int round = 0; round < 100000; ++round) {
    std::string text;
    for (size_t n = random() % 8; n > 0; --n) text += alphabet[random() % std::size(alphabet)];
    auto s = Signature::parse(text);
    if (!s.ok()) continue;
    ++parsed;
    auto again = Signature::parse(s->text());
    ASSERT_TRUE(again.ok()) << text;
    EXPECT_EQ(again->text(), s->text());
    EXPECT_EQ(again->args, s->args);
  }
  EXPECT_GT(parsed, 40u);
}

TEST(Call, RealLibraries) {
  auto pow = open("libm.so.6", "pow", "f64(f64,f64)");
  EXPECT_EQ(run(*pow, {of_float(2), of_float(10)}), "1024.0");
  EXPECT_EQ(run(*pow, {of_int(3), of_uint(4)}), "81.0");
  auto crc = open("libz.so.1", "crc32", "u64(u64,ptr_len)");
  EXPECT_EQ(run(*crc, {of_int(0), of_bin("123456789")}), std::to_string(0xcbf43926u));
  EXPECT_EQ(run(*crc, {of_int(0), of_nil()}), "0");
  auto length = open("", "strlen", "u64(str)");
  EXPECT_EQ(run(*length, {of_str("h\xc3\xa4llo")}), "6");
  EXPECT_EQ(run(*length, {of_str("")}), "0");
  EXPECT_EQ(run(*open("", "abs", "i32(i32)"), {of_int(-5)}), "5");
  EXPECT_EQ(run(*open("", "labs", "i64(i64)"), {of_int(-5000000000)}), "5000000000");
  EXPECT_EQ(run(*open("", "cos", "f64(f64)"), {of_int(0)}),
            "1.0");  // libm belongs to the C library
  EXPECT_EQ(run(*open("", "strtol", "i64(str,bytes,i32)"), {of_str("7f"), of_nil(), of_int(16)}),
            "127");
  EXPECT_EQ(run(*open("", "toupper", "i32(i32)"), {of_int('q')}), "81");
}

template <class T>
void check_limits(const std::string& type) {
  auto same = sample("same_" + type, type + "(" + type + ")");
  constexpr auto lo = std::numeric_limits<T>::min();
  constexpr auto hi = std::numeric_limits<T>::max();
  for (T v : {lo, static_cast<T>(lo + 1), T{0}, T{1}, static_cast<T>(hi - 1), hi}) {
    std::string in =
        std::is_signed_v<T> ? of_int(static_cast<int64_t>(v)) : of_uint(static_cast<uint64_t>(v));
    EXPECT_EQ(run(*same, {in}), std::to_string(v)) << type;
  }
  auto rejected = [&](const std::string& in, const std::string& shown) {
    EXPECT_EQ(run(*same, {in}), "!same_" + type + ": argument 0: expected " + type + " (" +
                                    std::to_string(lo) + " to " + std::to_string(hi) + "), got " +
                                    shown);
  };
  if (std::is_signed_v<T>) {
    if (sizeof(T) < 8) {
      rejected(of_int(static_cast<int64_t>(lo) - 1), std::to_string(static_cast<int64_t>(lo) - 1));
      rejected(of_int(static_cast<int64_t>(hi) + 1), std::to_string(static_cast<int64_t>(hi) + 1));
    }
  } else {
    rejected(of_int(-1), "-1");
    if (sizeof(T) < 8) rejected(of_uint(uint64_t{hi} + 1), std::to_string(uint64_t{hi} + 1));
  }
  if (sizeof(T) == 8 && std::is_signed_v<T>)
    rejected(of_uint(uint64_t{1} << 63), "9223372036854775808");
  rejected(of_float(1.0), "1.0");
  rejected(of_str("1"), "\"1\"");
  rejected(of_nil(), "null");
}

TEST(Call, IntegersAtTheirLimits) {
  check_limits<int8_t>("i8");
  check_limits<uint8_t>("u8");
  check_limits<int16_t>("i16");
  check_limits<uint16_t>("u16");
  check_limits<int32_t>("i32");
  check_limits<uint32_t>("u32");
  check_limits<int64_t>("i64");
  check_limits<uint64_t>("u64");
}

TEST(Call, BoolsAndFloats) {
  auto b = sample("same_bool", "bool(bool)");
  EXPECT_EQ(run(*b, {pack([](Writer& w) { w.boolean(true); })}), "true");
  EXPECT_EQ(run(*b, {of_int(0)}), "false");
  EXPECT_NE(run(*b, {of_int(2)}).find("expected bool (true, false, 0 or 1), got 2"),
            std::string::npos);
  auto f = sample("same_f32", "f32(f32)");
  EXPECT_EQ(run(*f, {of_float(0.5)}), "0.5");
  EXPECT_EQ(run(*f, {of_float(std::numeric_limits<float>::max())}), "3.4028234663852886e+38");
  EXPECT_NE(run(*f, {of_float(1e39)}).find("expected f32"), std::string::npos);
  EXPECT_EQ(run(*f, {of_float(-HUGE_VAL)}), "-inf");
  auto d = sample("same_f64", "f64(f64)");
  EXPECT_EQ(run(*d, {of_float(5e-324)}), "4.94065645841247e-324");
  EXPECT_EQ(run(*d, {of_float(std::nan(""))}).find("nan"), 0u);
  EXPECT_NE(run(*d, {of_str("x")}).find("argument 0: expected f64, got \"x\""), std::string::npos);
}

TEST(Call, IntegersThatAFloatDoesNotHaveAreRefused) {
  auto f = sample("same_f32", "f32(f32)");
  auto d = sample("same_f64", "f64(f64)");
  EXPECT_EQ(run(*f, {of_int(1 << 24)}), "16777216.0");
  EXPECT_NE(run(*f, {of_int((1 << 24) + 1)}).find("expected f32 (which has no such number), got 16777217"), std::string::npos);
  EXPECT_EQ(run(*d, {of_int(-(int64_t{1} << 53))}), "-9007199254740992.0");
  for (const std::string& n : {of_int((int64_t{1} << 53) + 1), of_int(std::numeric_limits<int64_t>::max()),
                               of_uint(std::numeric_limits<uint64_t>::max())})
    EXPECT_NE(run(*d, {n}).find("expected f64"), std::string::npos) << run(*d, {n});
}

// As Java writes an int.
TEST(Call, NamedValuesAreTheirValues) {
  auto i = sample("same_i32", "i32(i32)");
  EXPECT_EQ(run(*i, {"\xd6\x13\x92\xa1I\x05"}), "5");
  EXPECT_NE(run(*i, {"\xd6\x13\x93\xa1I\x05"}).find("expected i32"), std::string::npos);
  EXPECT_NE(run(*i, {"\xd6\x10\x92\xa1I\x05"}).find("expected i32"), std::string::npos);
}

TEST(Call, StringsAndBytes) {
  auto s = sample("same_str", "str(str)");
  EXPECT_EQ(run(*s, {of_str("abc")}), "\"abc\"");
  std::string large(1 << 20, 'x'), out;
  ASSERT_TRUE(call(*s, {of_str(large)}, &out).ok());
  EXPECT_EQ(out, of_str(large));
  EXPECT_NE(run(*s, {of_str(std::string("a\0b", 3))}).find("str without a nul byte"),
            std::string::npos);
  EXPECT_NE(run(*s, {of_bin("abc")}).find("argument 0: expected str, got <3 bytes 616263>"),
            std::string::npos);
  EXPECT_NE(run(*s, {of_nil()}).find("expected str, got null"), std::string::npos);
  EXPECT_EQ(run(*sample("no_str", "str()"), {}), "null");
  EXPECT_EQ(run(*sample("latin1", "str()"), {}), "<1 byte e4>");
  auto is_null = sample("is_null", "bool(bytes)");
  EXPECT_EQ(run(*is_null, {of_nil()}), "true");
  EXPECT_EQ(run(*is_null, {of_bin("")}), "false");
  EXPECT_EQ(run(*sample("sum_bytes", "u64(ptr_len)"), {of_bin("\x01\x02\x03")}), "6");
  EXPECT_EQ(run(*sample("sum_bytes", "u64(ptr_len)"), {of_str("\x01\x02")}), "3");
  double numbers[3] = {1, 2, 3.5};
  EXPECT_EQ(run(*sample("sum_doubles", "f64(bytes,u64)"),
                {of_bin({reinterpret_cast<const char*>(numbers), sizeof numbers}),
                 of_int(sizeof numbers)}),
            "6.5");
}

TEST(Call, BytesAsTheyAreGoToPointers) {
  auto call_raw = [](const Symbol& symbol, std::string_view bytes) {
    const ArgView view{bytes.data(), bytes.size(), true};
    std::string out;
    Writer w(&out);
    const Status s = symbol.call(&view, 1, &w);
    return s.ok() ? wire::to_text(out) : "!" + s.message();
  };
  EXPECT_EQ(call_raw(*sample("sum_bytes", "u64(ptr_len)"), "\x01\x02\x03"), "6");
  EXPECT_EQ(call_raw(*sample("sum_bytes", "u64(ptr_len)"), ""), "0");
  EXPECT_EQ(call_raw(*sample("is_null", "bool(bytes)"), ""), "false");
  EXPECT_EQ(call_raw(*open("", "strlen", "u64(str)"), "text"),
            "!strlen: argument 0: expected str, got 4 bytes, which a parameter 'bytes' or 'ptr_len' takes");
  EXPECT_EQ(call_raw(*sample("same_i8", "i8(i8)"), "a"),
            "!same_i8: argument 0: expected i8, got 1 bytes, which a parameter 'bytes' or 'ptr_len' takes");
  EXPECT_EQ(run(*sample("is_null", "bool(bytes)"), {""}), "true");  // a value of no bytes is nil
}

TEST(Call, BuffersAreAlignedPrivateCopies) {
  auto aligned = sample("is_aligned", "bool(bytes)");
  for (size_t n : {1u, 63u, 64u, 1000u, 5000u, 1000000u})
    EXPECT_EQ(run(*aligned, {of_bin(std::string(n, 'x'))}), "true") << n;
  std::string mine = of_bin("do not touch"), before = mine;
  EXPECT_EQ(run(*sample("scribble", "u64(ptr_len)"), {mine}), "12");
  EXPECT_EQ(mine, before);
}

TEST(Call, ManyArgumentsOfEveryClass) {
  auto mix =
      sample("mix", "f64(i8,f64,u64,f32,i32,str,u16,f64,i64,ptr_len,f64,f32,f64,f64,f64,f64)");
  std::vector<std::string> args = {of_int(-1),   of_float(2),        of_int(3),    of_float(4),
                                   of_int(5),    of_str("sixsix"),   of_int(7),    of_float(8),
                                   of_int(-9),   of_bin("\x01\x0a"), of_float(11), of_float(12),
                                   of_float(13), of_float(14),       of_float(15), of_float(16)};
  EXPECT_EQ(run(*mix, args), "116.0");
}

TEST(Call, VoidIsNilAndTheFunctionRan) {
  auto count = sample("call_count", "i32()");
  std::string before = run(*count, {});
  EXPECT_EQ(run(*sample("count_call", "void()"), {}), "null");
  EXPECT_EQ(std::stoi(run(*count, {})), std::stoi(before) + 1);
}

TEST(Call, AMistakeNamesTheArgumentAndCallsNothing) {
  auto pow = open("libm.so.6", "pow", "f64(f64,f64)");
  EXPECT_EQ(run(*pow, {of_float(2)}), "!pow takes 2 arguments, got 1");
  EXPECT_EQ(run(*pow, {of_float(2), of_float(2), of_float(2)}), "!pow takes 2 arguments, got 3");
  EXPECT_EQ(run(*pow, {of_float(2), of_str("b")}), "!pow: argument 1: expected f64, got \"b\"");
  EXPECT_EQ(run(*pow, {of_float(2), ""}), "!pow: argument 1: expected f64, got null");
  EXPECT_EQ(run(*pow, {of_float(2) + of_nil(), of_float(2)}),
            "!pow: argument 0: not one MessagePack value");
  auto i = sample("same_i8", "i8(i8)");
  std::string out = "kept";
  std::string bad = of_int(300);
  ArgView view{bad.data(), bad.size()};
  Writer w(&out);
  EXPECT_EQ(i->call(&view, 1, &w).code(), RAY_INVALID_ARGUMENT);
  EXPECT_EQ(out, "kept");
}

TEST(Open, MistakesAreNamed) {
  auto message = [](const std::string& library, const std::string& name,
                    const std::string& signature, ray_code code) {
    auto s = Symbol::open(library, name, signature);
    EXPECT_FALSE(s.ok());
    EXPECT_EQ(s.status().code(), code);
    return s.status().message();
  };
  EXPECT_NE(message("libnothing.so.9", "f", "void()", RAY_NOT_FOUND)
                .find("cannot load library 'libnothing.so.9': "),
            std::string::npos);
  EXPECT_NE(message("libz.so.1", "crc33", "void()", RAY_NOT_FOUND)
                .find("no symbol 'crc33' in library 'libz.so.1'"),
            std::string::npos);
  EXPECT_EQ(message("", "no_such_function", "void()", RAY_NOT_FOUND),
            "no symbol 'no_such_function' in the C library");
  EXPECT_NE(message("libz.so.1", "crc32", "u64(", RAY_INVALID_ARGUMENT).find("character 4"),
            std::string::npos);
  EXPECT_NE(message("", "", "void()", RAY_INVALID_ARGUMENT).find("empty"), std::string::npos);
  EXPECT_NE(message(FFI_SAMPLE, "ffi_sample_variable", "void()", RAY_INVALID_ARGUMENT)
                .find("is a variable"),
            std::string::npos);
  EXPECT_NE(message("", std::string("a\0b", 3), "void()", RAY_INVALID_ARGUMENT).find("nul byte"),
            std::string::npos);
}

TEST(Open, DefinitionsTravel) {
  std::string packed = Symbol::pack_definition("libm.so.6", "pow", "f64(f64,f64)");
  auto s = Symbol::open_definition(packed);
  ASSERT_TRUE(s.ok());
  EXPECT_EQ((*s)->signature().text(), "f64(f64,f64)");
  EXPECT_EQ(run(**s, {of_int(2), of_int(3)}), "8.0");
  for (size_t n = 0; n < packed.size(); ++n)
    EXPECT_FALSE(Symbol::open_definition(packed.substr(0, n)).ok());
  EXPECT_FALSE(Symbol::open_definition(packed + of_nil()).ok());
}

TEST(Call, ManyThreadsShareOneSymbol) {
  auto pow = open("libm.so.6", "pow", "f64(f64,f64)");
  auto length = open("", "strlen", "u64(str)");
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      for (int i = 0; i < 2000; ++i) {
        EXPECT_EQ(run(*pow, {of_int(t + 2), of_int(2)}), std::to_string((t + 2) * (t + 2)) + ".0");
        std::string text(static_cast<size_t>(t * 1000 + i % 7), 'x');
        EXPECT_EQ(run(*length, {of_str(text)}), std::to_string(text.size()));
      }
    });
  for (auto& t : threads) t.join();
}

}  // namespace
}  // namespace ray::ffi
