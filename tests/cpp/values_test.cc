// Values: what goes through a task comes back as it was, and what does not fit is an error that
// says so.
#include <cmath>
#include <limits>

#include "fixture.h"

using namespace std::string_literals;

struct Inner {
  std::string name;
  std::vector<double> numbers;
  MSGPACK_DEFINE(name, numbers)
  bool operator==(const Inner&) const = default;
};
struct Outer {
  int64_t id = 0;
  std::map<std::string, Inner> parts;
  std::optional<int> maybe;
  ray::array<float> large;
  MSGPACK_DEFINE_MAP(id, parts, maybe, large)
};
struct Particle {
  double x, y;
  int32_t charge;
};
RAY_RAW(Particle);
enum class Color : uint8_t { red, green = 200 };

template <class T>
T same(const T& v) {
  return v;
}
double sum_of_span(std::span<const double> v) {
  double s = 0;
  for (double x : v) s += x;
  return s;
}
std::string text_of_view(std::string_view v) { return std::string(v) + "!"; }
std::uintptr_t address_of(const ray::array<double>& a) {
  return reinterpret_cast<std::uintptr_t>(a.data());
}
bool is_aligned(std::span<const double> a) {
  return reinterpret_cast<std::uintptr_t>(a.data()) % 64 == 0;
}
int32_t narrow(int32_t x) { return x; }
uint8_t octet(uint8_t x) { return x; }
bool flag(bool b) { return !b; }
ray::array<double> keeps(ray::array<double> a) {
  static std::vector<ray::array<double>> kept;  // beyond the task that brought it
  kept.push_back(a);
  return kept.front();
}
ray::array_builder<int32_t> grid(size_t rows, size_t columns) {
  ray::array_builder<int32_t> out(ray::as_result, {rows, columns});
  for (size_t i = 0; i < out.size(); ++i) out[i] = static_cast<int32_t>(i);
  return out;
}
ray::array_builder<int32_t> wrong_builder() { return ray::array_builder<int32_t>(4); }
ray::ref<int64_t> put_inside(int64_t x) { return ray::put(x); }
int64_t sum_of_refs(const std::vector<ray::ref<int64_t>>& refs) {
  int64_t s = 0;
  for (int64_t x : ray::get(refs)) s += x;
  return s;
}

using Text = std::string;
using Bytes = std::vector<std::byte>;
using Doubles = std::vector<double>;
using Particles = std::vector<Particle>;
using Floats = ray::array<float>;
using Tree = std::map<std::string, std::vector<std::tuple<int, std::string>>>;
using Time = std::chrono::system_clock::time_point;
RAY_REMOTE(same<int64_t>, same<uint64_t>, same<float>, same<double>, same<Text>, same<Bytes>,
           same<Doubles>, same<Particles>, same<Tree>, same<Inner>, same<Outer>, same<Color>,
           same<Floats>, same<Time>, same<std::vector<bool>>, same<std::array<int, 3>>);
RAY_REMOTE(sum_of_span, text_of_view, address_of, is_aligned, narrow, octet, flag, keeps, grid,
           wrong_builder, put_inside, sum_of_refs);

template <class T>
T round_trip(const T& v) {
  return ray::task(same<T>)(v).get();
}

TEST(Values, IntegersAtTheirLimits) {
  for (int64_t v :
       {int64_t{0}, int64_t{127}, int64_t{128}, int64_t{-32}, int64_t{-33}, int64_t{255},
        int64_t{65536}, int64_t{-129}, int64_t{-32769}, int64_t{-2147483649}, int64_t{4294967296},
        std::numeric_limits<int64_t>::min(), std::numeric_limits<int64_t>::max()})
    EXPECT_EQ(round_trip(v), v);
  EXPECT_EQ(round_trip(std::numeric_limits<uint64_t>::max()), std::numeric_limits<uint64_t>::max());
}

TEST(Values, OtherScalars) {
  EXPECT_EQ(round_trip(1.5f), 1.5f);
  EXPECT_EQ(round_trip(-1e300), -1e300);
  EXPECT_EQ(round_trip(Color::green), Color::green);
  EXPECT_TRUE(ray::task(flag)(false).get());
  const Time now = std::chrono::system_clock::now();
  EXPECT_EQ(round_trip(now), now);
}

TEST(Values, TextsAndBytesOfEverySize) {
  for (size_t n : {0u, 1u, 31u, 32u, 255u, 256u, 65536u, 1000000u}) {
    EXPECT_EQ(round_trip(Text(n, 'x')), Text(n, 'x')) << n;
    EXPECT_EQ(round_trip(Bytes(n, std::byte{7})), Bytes(n, std::byte{7})) << n;
  }
  EXPECT_EQ(round_trip(Text("\0mid\0", 5)), Text("\0mid\0", 5));
  EXPECT_EQ(ray::task(text_of_view)("literal").get(), "literal!");
}

TEST(Values, ArraysOfNumbersAndPlainStructs) {
  for (size_t n : {0u, 1u, 1000u, 300000u})
    EXPECT_EQ(round_trip(Doubles(n, 0.5)), Doubles(n, 0.5)) << n;
  Particles p = round_trip(Particles{{1, 2, -3}, {4, 5, 6}});
  ASSERT_EQ(p.size(), 2u);
  EXPECT_EQ(p[0].charge, -3);
  EXPECT_EQ(p[1].y, 5);
  EXPECT_EQ(round_trip(std::vector<bool>{true, false}), (std::vector<bool>{true, false}));
  EXPECT_EQ(round_trip(std::array<int, 3>{1, 2, 3}), (std::array<int, 3>{1, 2, 3}));
}

TEST(Values, ContainersAndStructs) {
  Tree tree{{"a", {{1, "x"}, {2, "y"}}}, {"b", {}}};
  EXPECT_EQ(round_trip(tree), tree);
  Inner inner{"name", {1, 2, 3}};
  EXPECT_EQ(round_trip(inner), inner);
  Outer outer;
  outer.id = 7;
  outer.parts["p"] = inner;
  outer.large = ray::put(std::vector<float>(5000, 2.5f)).view();
  Outer back = round_trip(outer);
  EXPECT_EQ(back.id, 7);
  EXPECT_EQ(back.parts["p"], inner);
  EXPECT_FALSE(back.maybe);
  ASSERT_EQ(back.large.size(), 5000u);
  EXPECT_EQ(back.large[4999], 2.5f);
}

TEST(Values, SpansArraysAndVectorsAreTheSameToAFunction) {
  Doubles v(2000, 1.0);
  EXPECT_EQ(ray::task(sum_of_span)(v).get(), 2000);
  EXPECT_EQ(ray::task(sum_of_span)(std::span<const double>(v).subspan(500)).get(), 1500);
  EXPECT_EQ(ray::task(sum_of_span)(ray::put(v)).get(), 2000);
  EXPECT_EQ(ray::task(sum_of_span)(ray::put(v).view()).get(), 2000);
  EXPECT_EQ(ray::task(same<Doubles>)(std::span<double>(v)).get(), v);
  EXPECT_TRUE(ray::task(is_aligned)(v).get());
}

TEST(Values, ViewsShareTheMemoryOfTheStore) {
  ray::ref<Doubles> put = ray::put(Doubles(100000, 3.0));
  ray::array<double> a = put.view(), b = put.view();
  EXPECT_EQ(a.data(), b.data());  // the same memory, not two copies
  put = {};
  b = {};
  EXPECT_EQ(a[99999], 3.0);  // the view keeps it
  ray::array<double> kept = ray::task(keeps)(a).get();
  a = {};
  EXPECT_EQ(ray::task(keeps)(Doubles{1}).get().size(),
            kept.size());  // the worker's, from an earlier task
}

TEST(Values, ArraysMadeInSharedMemory) {
  ray::array<int32_t> g = ray::task(grid)(300, 200).get();
  EXPECT_EQ(g.shape(), (std::vector<size_t>{300, 200}));
  EXPECT_EQ(g(299, 199), 59999);
  ray::array_builder<float> b(10);
  std::fill(b.begin(), b.end(), 2.0f);
  EXPECT_EQ(b.seal().get()[9], 2.0f);
  EXPECT_EQ(b.data(), nullptr);  // its memory is others' to read
  EXPECT_EQ(b.begin(), b.end());
  { ray::array_builder<float> dropped(10); }  // never existed
  EXPECT_TRUE(contains(thrown<ray::task_error>([] { ray::task(wrong_builder)().get(); }),
                       "ray::as_result"));
}

TEST(Values, EmptyArrays) {
  EXPECT_EQ(ray::task(same<Floats>)(Floats()).get().size(), 0u);
  EXPECT_EQ(ray::task(sum_of_span)(ray::put(std::vector<double>()).view()).get(), 0);
  double zero_dimensions = 2.5;
  EXPECT_EQ(ray::put(ray::shaped(&zero_dimensions, {})).get()[0], 2.5);
  Outer outer = round_trip(Outer());
  EXPECT_TRUE(outer.large.empty());
}

TEST(Values, ShapesAreKept) {
  std::vector<double> m{1, 2, 3, 4, 5, 6};
  ray::ref<ray::array<double>> r = ray::put(ray::shaped(m.data(), {2, 3}));
  EXPECT_EQ(r.get()(1, 2), 6);
  EXPECT_TRUE(contains(thrown<ray::wrong_type>([&] { r.as<Doubles>().get(); }), "2 dimensions"));
}

TEST(Values, ReferencesInsideStayReferences) {
  ray::ref<ray::ref<int64_t>> outer = ray::task(put_inside)(5);
  EXPECT_EQ(outer.get().get(), 5);
  std::vector<ray::ref<int64_t>> refs{ray::put(int64_t{1}), ray::task(same<int64_t>)(2),
                                      outer.get()};
  EXPECT_EQ(ray::task(sum_of_refs)(refs).get(), 8);
  EXPECT_EQ(ray::task(sum_of_refs)(ray::put(refs)).get(), 8);
}

TEST(Values, WhatDoesNotFitIsRefused) {
  EXPECT_TRUE(contains(thrown<ray::invalid_argument>([] { ray::task(narrow)(int64_t{1} << 40); }),
                       "does not fit"));
  EXPECT_TRUE(contains(thrown<ray::invalid_argument>([] { ray::task(octet)(-1); }), "argument 0"));
  EXPECT_EQ(ray::task(narrow)(uint64_t{7}).get(), 7);
  thrown<ray::invalid_argument>([] { ray::task(narrow)(ray::ref<int>()); });
  // Where the type shows only when the value is read.
  ray::ref<int64_t> large = ray::put(int64_t{1} << 40);
  EXPECT_TRUE(
      contains(thrown<ray::task_error>([&] { ray::task(narrow)(large).get(); }), "argument 0"));
  EXPECT_TRUE(contains(thrown<ray::wrong_type>([&] { large.as<std::string>().get(); }),
                       "a text was asked for and an integer is there"));
  EXPECT_TRUE(contains(thrown<ray::wrong_type>([&] { ray::put("text").as<double>().get(); }),
                       "a text is there"));
  EXPECT_TRUE(
      contains(thrown<ray::wrong_type>([] { ray::put(Doubles{1}).as<std::vector<float>>().get(); }),
               "\"<f8\""));
  EXPECT_TRUE(contains(thrown<ray::wrong_type>([] { ray::put(1).as<Inner>().get(); }),
                       "an integer is there"));
}

// What other languages write, as bytes of MessagePack.
template <class T>
T read(const std::string& bytes, uint32_t format = RAY_FMT_MSGPACK) {
  ray_value v = ray_plain(bytes.data(), bytes.size(), format);
  ray_ref* r = nullptr;
  if (ray_put(ray::detail::runtime(), &v, &r, nullptr) != RAY_OK) throw std::runtime_error("put");
  return ray::ref<T>(r).get();
}
std::string wrapped(char type, const std::string& body) {
  return std::string("\xc7") + static_cast<char>(body.size()) + type + body;
}

struct Deep {
  std::tuple<int, float> pair;
  std::vector<std::array<int, 2>> lists;
  MSGPACK_DEFINE(pair, lists)
};
struct Named {
  double number = 0;
  std::map<std::string, std::tuple<int, int>> pairs;
  MSGPACK_DEFINE_MAP(number, pairs)
};
// It packs itself, in its own way: one number for two members, and it reads older forms.
struct Own {
  int a = 0, b = 0;
  template <class Packer>
  void msgpack_pack(Packer& p) const {
    p.pack_array(2);
    p.pack_int(a);
    p.pack(double(b));
  }
  void msgpack_unpack(const msgpack::object& o) {
    a = o.via.array.ptr[0].as<int>();
    b = static_cast<int>(o.via.array.ptr[1].as<double>());
  }
};

TEST(Values, ListsOfAnotherLengthAreRefused) {
  using Pair = std::tuple<int, int>;
  using Three = std::array<int, 3>;
  EXPECT_EQ(read<Pair>("\x92\x01\x02"), Pair(1, 2));
  EXPECT_EQ(read<Three>("\x93\x01\x02\x03"), (Three{1, 2, 3}));
  for (const char* other : {"\x91\x01", "\x94\x01\x02\x03\x04"}) {
    EXPECT_THROW(read<Pair>(other), ray::wrong_type);
    EXPECT_THROW(read<Three>(other), ray::wrong_type);
    EXPECT_THROW(read<std::vector<Pair>>(std::string("\x91") + other), ray::wrong_type);
    EXPECT_THROW(read<std::optional<Three>>(other), ray::wrong_type);
    EXPECT_THROW((read<std::map<std::string, Pair>>(std::string("\x81\xa1k") + other)), ray::wrong_type);
  }
  EXPECT_EQ(read<Deep>("\x92\x92\x01\x02\x91\x92\x03\x04").lists[0][1], 4);
  for (const char* other : {"\x91\x92\x01\x02", "\x93\x92\x01\x02\x90\x03", "\x92\x91\x01\x90", "\x92\x92\x01\x02\x91\x91\x03"})
    EXPECT_THROW(read<Deep>(other), ray::wrong_type);
  EXPECT_EQ(std::get<1>(read<Named>("\x81\xa5pairs\x81\xa1k\x92\x01\x02").pairs["k"]), 2);
  EXPECT_THROW(read<Named>("\x81\xa5pairs\x81\xa1k\x93\x01\x02\x03"), ray::wrong_type);
  EXPECT_EQ(read<Own>("\x92\x01\xcf\x00\x20\x00\x00\x00\x00\x00\x01"s).a, 1);
}

TEST(Values, NumbersAndTimesThatDoNotFitAreRefused) {
  EXPECT_TRUE(contains(thrown<ray::wrong_type>([] { ray::put(1e300).as<float>().get(); }), "1.0000000000000001e+300"));
  EXPECT_TRUE(contains(thrown<ray::wrong_type>([] { ray::put((int64_t{1} << 53) + 1).as<double>().get(); }), "9007199254740993"));
  EXPECT_THROW(ray::put(std::numeric_limits<uint64_t>::max()).as<double>().get(), ray::wrong_type);
  EXPECT_EQ(ray::put(std::numeric_limits<int64_t>::min()).as<double>().get(), -0x1p63);
  EXPECT_EQ(ray::put(0.1).as<float>().get(), 0.1f);
  EXPECT_EQ(ray::put(-HUGE_VAL).as<float>().get(), -HUGE_VALF);
  EXPECT_TRUE(std::isnan(ray::put(std::nan("")).as<float>().get()));
  const std::string large("\x91\xcb\x7e\x37\xe4\x3c\x88\x00\x75\x9c", 10);
  EXPECT_EQ(read<std::vector<double>>(large), std::vector<double>{1e300});
  EXPECT_THROW(read<std::vector<float>>(large), ray::wrong_type);
  EXPECT_THROW(read<std::optional<float>>(large.substr(1)), ray::wrong_type);
  EXPECT_THROW(read<Named>("\x81\xa6number\xcf\x00\x20\x00\x00\x00\x00\x00\x01"s), ray::wrong_type);

  auto at = [](int64_t seconds, uint32_t nanoseconds) {
    std::string bytes = "\xc7\x0c\xff";
    for (int i = 3; i >= 0; --i) bytes += static_cast<char>(nanoseconds >> (8 * i));
    for (int i = 7; i >= 0; --i) bytes += static_cast<char>(static_cast<uint64_t>(seconds) >> (8 * i));
    return bytes;
  };
  using Seconds = std::chrono::time_point<std::chrono::system_clock, std::chrono::seconds>;
  const Time first{std::chrono::nanoseconds(std::numeric_limits<int64_t>::min())};
  const Time last{std::chrono::nanoseconds(std::numeric_limits<int64_t>::max())};
  EXPECT_EQ(read<Time>(at(-9223372037, 145224192)), first);
  EXPECT_EQ(read<Time>(at(9223372036, 854775807)), last);
  EXPECT_THROW(read<Time>(at(-9223372037, 145224191)), ray::wrong_type);
  EXPECT_THROW(read<Time>(at(9223372036, 854775808)), ray::wrong_type);
  EXPECT_THROW(read<Time>(at(253402300799, 0)), ray::wrong_type);  // the year 9999
  EXPECT_THROW(read<std::vector<Time>>("\x91" + at(-62135596800, 0)), ray::wrong_type);
  EXPECT_EQ(read<Seconds>(at(253402300799, 0)).time_since_epoch().count(), 253402300799);
}

TEST(Values, BytesOfEveryFormAndSize) {
  for (size_t n : {0u, 3u, 300u}) {
    const std::string raw(n, 'b');
    const std::vector<unsigned char> bytes(n, 'b');
    EXPECT_EQ(read<std::vector<unsigned char>>(raw, RAY_FMT_RAW), bytes);
    EXPECT_EQ(*read<std::optional<std::vector<unsigned char>>>(raw, RAY_FMT_RAW), bytes);
  }
  const std::string raw(300, 'b');
  EXPECT_EQ((read<std::array<unsigned char, 300>>(raw, RAY_FMT_RAW)[299]), 'b');
  EXPECT_THROW((read<std::array<unsigned char, 299>>(raw, RAY_FMT_RAW)), ray::wrong_type);
  EXPECT_THROW((read<std::array<unsigned char, 301>>(raw, RAY_FMT_RAW)), ray::wrong_type);
  EXPECT_THROW(read<Inner>(raw, RAY_FMT_RAW), ray::wrong_type);
  EXPECT_TRUE(read<Bytes>("\x90").empty());  // a list of nothing
  EXPECT_TRUE(read<ray::array<std::byte>>("\x90").empty());
}

TEST(Values, TextIsUtf8) {
  for (const char* good : {"", "plain text of some length", "\xc3\xbc", "\xed\x9f\xbf", "\xee\x80\x80", "\xf4\x8f\xbf\xbf"})
    EXPECT_EQ(ray::put(Text(good)).get(), good);
  for (const char* bad : {"\xff", "12345678\xc3", "\xc0\xaf", "\xe0\x80\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\x80"})
    EXPECT_TRUE(contains(thrown<ray::invalid_argument>([&] { ray::put(Text(bad)); }), "no UTF-8")) << bad;
}

struct Labelled {
  int number = 0;
  std::string name;
  MSGPACK_DEFINE_MAP(number, name)
};

TEST(Values, TextIsUtf8WhereverItStands) {
  const std::string bad = "\xff";
  auto refused = [](auto value) {
    return contains(thrown<ray::invalid_argument>([&] { ray::put(value); }), "no UTF-8");
  };
  EXPECT_TRUE(refused(std::vector<std::string>{"good", bad}));
  EXPECT_TRUE(refused(std::map<std::string, int>{{bad, 1}}));
  EXPECT_TRUE(refused(std::optional<std::string>(bad)));
  EXPECT_TRUE(refused(std::make_tuple(1, bad)));
  EXPECT_TRUE(refused(Labelled{1, bad}));
  const std::vector<std::vector<unsigned char>> bytes{{0xa1, 0xff}, {}};  // which look like a text
  EXPECT_EQ(ray::put(bytes).get(), bytes);
}

// A value of one kind is none of the other, also where its bytes would do.
TEST(Values, TextsAreNoBytes) {
  EXPECT_THROW(read<std::vector<std::string>>("\x91\xc4\x01x"), ray::wrong_type);
  EXPECT_THROW((read<std::map<std::string, int>>("\x81\xc4\x01x\x01")), ray::wrong_type);
  EXPECT_THROW((read<std::pair<int, std::string>>("\x92\x01\xc4\x01x")), ray::wrong_type);
  EXPECT_THROW(read<std::optional<std::string>>("\xc4\x01x"), ray::wrong_type);
  EXPECT_THROW(read<Labelled>("\x81\xa4name\xc4\x01x"), ray::wrong_type);
  EXPECT_THROW(read<std::vector<std::vector<unsigned char>>>("\x91\xa1x"), ray::wrong_type);
  EXPECT_THROW((read<std::array<unsigned char, 1>>("\xa1x")), ray::wrong_type);
  EXPECT_EQ(read<Labelled>("\x81\xa4name\xa1x").name, "x");
  EXPECT_EQ(read<std::vector<std::vector<unsigned char>>>("\x91\xc4\x01x")[0].size(), 1u);
}

TEST(Values, OthersTuplesAndNamedValues) {
  const std::string list = "\x93\x01\x02\x03", named = std::string("\x92\xa4Name") + list;
  EXPECT_EQ(read<std::vector<int>>(list), (std::vector<int>{1, 2, 3}));
  EXPECT_EQ(read<std::vector<int>>(wrapped(16, list)), (std::vector<int>{1, 2, 3}));
  EXPECT_EQ(read<std::vector<int>>(wrapped(19, named)), (std::vector<int>{1, 2, 3}));
  EXPECT_EQ(read<std::vector<double>>(wrapped(19, std::string("\x92\xa4Name") + wrapped(16, list))),
            (std::vector<double>{1, 2, 3}));
  EXPECT_EQ(read<int>(wrapped(19, "\x92\xa1N\x05")), 5);
  const std::string five = wrapped(19, "\x92\xa1I\x05");  // as Java writes an int
  EXPECT_EQ(read<std::vector<int>>("\x92" + five + "\x06"), (std::vector<int>{5, 6}));
  EXPECT_EQ(read<std::vector<double>>("\x92" + five + wrapped(19, "\x92\xa1I" + five)), (std::vector<double>{5, 5}));
  EXPECT_THROW(read<std::vector<int>>("\x91" + wrapped(16, "\x91\x05")), ray::wrong_type);
  const auto nested = read<std::tuple<int, std::vector<int>>>("\x92\x07" + wrapped(16, list));
  EXPECT_EQ(std::get<1>(nested), (std::vector<int>{1, 2, 3}));
}

TEST(Values, MalformedBytesAreErrors) {
  for (const std::string& bytes :
       {std::string(), std::string("\xc1"), std::string("\x93\x01"), std::string("\x01\x01"),
        std::string("\xdb\xff\xff\xff\xff"), std::string("\xdd\xff\xff\xff\xff"),
        wrapped(3, "\x93"), wrapped(3, std::string("\x93\xa3<f8\x91\x05\x00", 8)),
        wrapped(1, std::string("\0\0\0\x09", 4)), wrapped(19, "\x91\x01")}) {
    EXPECT_THROW(read<int>(bytes), ray::wrong_type);
    EXPECT_THROW(read<std::vector<double>>(bytes), ray::wrong_type);
    EXPECT_THROW(read<ray::array<double>>(bytes), ray::wrong_type);
    EXPECT_THROW(read<std::vector<std::string>>(bytes), ray::wrong_type);
    EXPECT_THROW(read<Inner>(bytes), ray::wrong_type);
    EXPECT_THROW(read<ray::ref<int>>(bytes), ray::error);
  }
  EXPECT_THROW(read<int>("pickle", RAY_FMT_PICKLE5), ray::wrong_type);
}
