// fits.hpp -- part of ray.hpp: whether a value that came in is one of that C++ type, for what the msgpack library would
// take though something of it is lost: a list of another length for a tuple, a std::array or a MSGPACK_DEFINE struct, a
// number that a float or double does not have, a time that the clock does not have, bytes for a text and a text for bytes.
//
// It follows the types of standard containers and of MSGPACK_DEFINE structs; what is of another kind than the type is left
// to the library, which refuses it. Thread: any.
#pragma once
#include "packing.hpp"

namespace ray::detail {

template <class T>
inline constexpr bool is_octet =
    std::is_same_v<T, char> || std::is_same_v<T, unsigned char> || std::is_same_v<T, std::byte>;

// The whole number as a float of that type; false when it has no such number.
template <class T>
bool whole_as_real(bool negative, uint64_t number, T* out) {
  *out = negative ? static_cast<T>(static_cast<int64_t>(number)) : static_cast<T>(number);
  if (negative) return static_cast<uint64_t>(static_cast<int64_t>(*out)) == number;
  return *out < static_cast<T>(18446744073709551616.0) && static_cast<uint64_t>(*out) == number;
}
// The nearest float of that type; false when it would become infinite.
template <class T>
bool real_as_real(double number, T* out) {
  *out = static_cast<T>(number);
  const double most = std::numeric_limits<double>::max();
  return (*out >= -std::numeric_limits<T>::max() && *out <= std::numeric_limits<T>::max()) ||
         !(number >= -most && number <= most);
}

// Seconds and nanoseconds since 1970 as so many ticks of a clock.
template <class Duration>
bool clock_has(int64_t seconds, int64_t nanoseconds) {
  using period = typename Duration::period;
  if (!std::is_integral_v<typename Duration::rep>) return true;
  if (seconds <= 0 && nanoseconds > 0) seconds += 1, nanoseconds -= 1000000000;  // as the library adds them
  int64_t ticks = 0;
  if (__builtin_mul_overflow(seconds, int64_t{period::den}, &ticks)) return false;
  const auto part = std::chrono::duration_cast<Duration>(std::chrono::nanoseconds(nanoseconds)).count();
  return !__builtin_add_overflow(ticks / period::num, part, &ticks) &&
         ticks >= std::numeric_limits<typename Duration::rep>::min() &&
         ticks <= std::numeric_limits<typename Duration::rep>::max();
}

#if defined(RAY_HAS_EXCEPTIONS)

// `matters`: whether there is something to look at.
template <class T, class = void>
struct fit {
  static constexpr bool matters = false;
  static bool check(const msgpack::object&) { return true; }
};
template <class T>
using fit_of = fit<std::remove_cv_t<std::remove_reference_t<T>>>;

template <class T>
bool all_fit(const msgpack::object& o) {
  if (!fit_of<T>::matters || o.type != msgpack::type::ARRAY) return true;
  for (uint32_t i = 0; i < o.via.array.size; ++i)
    if (!fit_of<T>::check(o.via.array.ptr[i])) return false;
  return true;
}

template <class T>
struct fit<T, std::enable_if_t<std::is_floating_point_v<T>>> {
  static constexpr bool matters = true;
  static bool check(const msgpack::object& o) {
    T out;
    if (o.type == msgpack::type::POSITIVE_INTEGER) return whole_as_real(false, o.via.u64, &out);
    if (o.type == msgpack::type::NEGATIVE_INTEGER) return whole_as_real(true, static_cast<uint64_t>(o.via.i64), &out);
    const bool real = o.type == msgpack::type::FLOAT32 || o.type == msgpack::type::FLOAT64;
    return !real || real_as_real(o.via.f64, &out);
  }
};

template <class Clock, class Duration>
struct fit<std::chrono::time_point<Clock, Duration>> {
  static constexpr bool matters = true;
  static bool check(const msgpack::object& o) {
    if (o.type != msgpack::type::EXT || o.via.ext.type() != -1) return true;
    const auto* at = reinterpret_cast<const uint8_t*>(o.via.ext.data());
    auto read = [&](int from, int n) {
      uint64_t v = 0;
      for (int i = from; i < from + n; ++i) v = v << 8 | at[i];
      return v;
    };
    if (o.via.ext.size == 4) return clock_has<Duration>(static_cast<int64_t>(read(0, 4)), 0);
    if (o.via.ext.size == 8) {
      const uint64_t both = read(0, 8);
      return clock_has<Duration>(static_cast<int64_t>(both & 0x3ffffffff), static_cast<int64_t>(both >> 34));
    }
    return o.via.ext.size != 12 ||
           clock_has<Duration>(static_cast<int64_t>(read(4, 8)), static_cast<int64_t>(read(0, 4)));
  }
};

template <class T, size_t N>
struct fit<std::array<T, N>> {
  static constexpr bool matters = true;
  static bool check(const msgpack::object& o) {
    if (o.type == msgpack::type::BIN) return o.via.bin.size == N;
    if (o.type == msgpack::type::STR) return false;
    return o.type != msgpack::type::ARRAY || (o.via.array.size == N && all_fit<T>(o));
  }
};

template <class... T>
struct fit<std::tuple<T...>> {
  static constexpr bool matters = true;
  static bool check(const msgpack::object& o) {
    if (o.type != msgpack::type::ARRAY) return true;
    return o.via.array.size == sizeof...(T) && members(o, std::index_sequence_for<T...>());
  }
  template <size_t... I>
  static bool members(const msgpack::object& o, std::index_sequence<I...>) {
    return (fit_of<T>::check(o.via.array.ptr[I]) && ...);
  }
};
template <class A, class B>
struct fit<std::pair<A, B>> : fit<std::tuple<A, B>> {};

template <class T>
struct fit<std::optional<T>> : fit_of<T> {};  // nil is of no kind that is looked at

// Texts and bytes; lists and sets; maps, whose value_type is a pair.
template <class T>
struct fit<T, std::void_t<typename T::value_type, typename T::allocator_type, typename T::const_iterator>> {
  using value = typename T::value_type;
  static constexpr bool is_text = std::is_convertible_v<const T&, std::string_view>;
  static constexpr bool matters = is_text || is_octet<value> || fit_of<value>::matters;
  static bool check(const msgpack::object& o) {
    if (is_text) return o.type != msgpack::type::BIN;
    if (is_octet<value>) return o.type != msgpack::type::STR;
    return pairs<value>(o, nullptr) && all_fit<value>(o);
  }

 private:
  template <class V>
  static bool pairs(const msgpack::object& o, typename V::second_type*) {
    if (o.type != msgpack::type::MAP) return true;
    for (uint32_t i = 0; i < o.via.map.size; ++i) {
      const msgpack::object_kv& kv = o.via.map.ptr[i];
      if (!fit_of<typename V::first_type>::check(kv.key) || !fit_of<typename V::second_type>::check(kv.val)) return false;
    }
    return true;
  }
  template <class V>
  static bool pairs(const msgpack::object&, ...) {
    return true;
  }
};

// What a struct packs itself to, member by member: this looks at the types of the members alone.
struct no_bytes {
  bool written = false;
  void write(const char*, size_t) { written = true; }
};
class member_check : public msgpack::packer<no_bytes> {
 public:
  explicit member_check(const msgpack::object& o) : msgpack::packer<no_bytes>(bytes_), o_(o) {}
  bool fits() const { return fits_; }
  member_check& pack_array(uint32_t n) {
    fits_ = fits_ && (o_.type != msgpack::type::ARRAY || o_.via.array.size == n);
    return *this;
  }
  member_check& pack_map(uint32_t) { return *this; }
  template <class M>
  member_check& pack(const M& member) {
    const uint32_t i = next_++;
    if (!fits_ || bytes_.written) return *this;  // bytes were written: a pack function of the program's own
    if (o_.type == msgpack::type::ARRAY && i < o_.via.array.size) fits_ = fit_of<M>::check(o_.via.array.ptr[i]);
    if (o_.type != msgpack::type::MAP) return *this;
    if constexpr (std::is_convertible_v<const M&, std::string_view>)
      if (i % 2 == 0) return key_ = std::string(std::string_view(member)), *this;
    for (uint32_t k = 0; fit_of<M>::matters && fits_ && k < o_.via.map.size; ++k)
      if (is_key(o_.via.map.ptr[k].key)) fits_ = fit_of<M>::check(o_.via.map.ptr[k].val);
    return *this;
  }
  template <class M>
  friend member_check& operator<<(member_check& to, const M& member) {
    return to.pack(member);
  }

 private:
  bool is_key(const msgpack::object& key) const {
    return key.type == msgpack::type::STR && std::string_view(key.via.str.ptr, key.via.str.size) == key_;
  }
  no_bytes bytes_;
  const msgpack::object& o_;
  std::string key_;
  uint32_t next_ = 0;
  bool fits_ = true;
};

template <class T>
struct fit<T, std::void_t<decltype(std::declval<const T&>().msgpack_pack(std::declval<member_check&>()))>> {
  static constexpr bool matters = std::is_default_constructible_v<T>;
  static bool check(const msgpack::object& o) {
    if constexpr (matters) {
      const T sample{};
      member_check members(o);
      sample.msgpack_pack(members);
      return members.fits();
    }
    return true;
  }
};
#endif

}  // namespace ray::detail
