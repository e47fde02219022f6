// values.hpp -- part of ray.hpp: C++ values <-> values of the runtime. Numbers, texts and bytes are
// MessagePack (packing.hpp); containers and MSGPACK_DEFINE structs too, by the msgpack library; a
// value that is an array of numbers travels as a tensor, whose elements lie out of band: they are
// copied once into shared memory and read there.
//
//   C++                                              | MessagePack                    | others read
//   it as bool, integers, enums, float, double             | boolean, integer, float        | the
//   same std::string                                      | str                            | text
//   std::vector of char, unsigned char, std::byte    | bin; RAW from 256 bytes on     | bytes
//   std::vector<E>, std::span<E>, ray::array<E>      | tensor (extension 3)           |
//   numpy.ndarray ... of numbers, or of structs named by RAY_RAW       | | containers, tuples,
//   optionals, MSGPACK_DEFINE    | as the msgpack library says    | lists, maps ... ray::ref<T>,
//   ray::actor_handle<C>                | extensions 1 and 2             | references, handles
//
// A vector of numbers inside of another value is a MessagePack array; a ray::array there is a
// tensor as well. Readers take what can be meant: a vector<double> is read from a tensor "<f8" and
// from an array of numbers.
//
// Thread: a value is written or read by one thread. Invariant: what an `encoder` borrows outlives
// it.
#pragma once
#include "error.hpp"

#if defined(RAY_HAS_EXCEPTIONS)
#if !defined(MSGPACK_NO_BOOST) && !__has_include(<boost/predef/other/endian.h>)
#define MSGPACK_NO_BOOST
#endif
#include <msgpack.hpp>
#endif
#include <array>
#include <complex>
#include <cstddef>
#include <limits>

#include "fits.hpp"

namespace ray {

template <class T>
class ref;

/// Whether arrays of T travel as they lie in memory: numbers, and structs named by RAY_RAW.
template <class T, class = void>
struct is_raw : std::false_type {};

namespace detail {

template <class T>
struct is_complex : std::false_type {};
template <class T>
struct is_complex<std::complex<T>> : std::is_floating_point<T> {};
template <class T>
inline constexpr bool is_number = std::is_arithmetic_v<T> && !std::is_same_v<T, bool> && sizeof(T) <= 8;

// As numpy writes it: "<f8", "|u1", "|V12".
template <class T>
std::string dtype_of() {
  const char kind = std::is_floating_point_v<T>                       ? 'f'
                    : is_complex<T>::value                            ? 'c'
                    : std::is_same_v<T, bool>                         ? 'b'
                    : !std::is_arithmetic_v<T>                        ? (std::is_same_v<T, std::byte> ? 'u' : 'V')
                    : std::is_signed_v<T> && !std::is_same_v<T, char> ? 'i'
                                                                      : 'u';
  const char order = sizeof(T) == 1 || kind == 'V' ? '|' : __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? '<' : '>';
  return std::string(1, order) + kind + std::to_string(sizeof(T));
}

}  // namespace detail

template <class T>
struct is_raw<T,
              std::enable_if_t<std::is_arithmetic_v<T> || std::is_same_v<T, std::byte> || detail::is_complex<T>::value>>
    : std::bool_constant<!std::is_same_v<T, long double>> {};
/// RAY_RAW(Particle), outside of any namespace: vectors, spans and arrays of this struct travel as
/// they lie in memory. For structs of numbers: a pointer inside would point nowhere at the other
/// end.
#define RAY_RAW(Type)                                                                  \
  template <>                                                                          \
  struct ray::is_raw<Type> : std::true_type {                                          \
    static_assert(std::is_trivially_copyable_v<Type>,                                  \
                  "RAY_RAW: " #Type " cannot be copied as bytes: use MSGPACK_DEFINE"); \
  }

/// A read-only array of T in the memory of the object store (or wherever it came from), of one or
/// more dimensions, row by row. Copies are cheap and share the memory, which stays as it is as long
/// as one of them exists.
template <class T>
class array {
 public:
  using value_type = T;
  array() = default;
  array(const T* data, std::vector<size_t> shape, std::shared_ptr<const void> owner)
      : data_(data), shape_(std::move(shape)), owner_(std::move(owner)) {
    size_ = 1;
    for (size_t n : shape_) size_ *= n;
  }
  const T* data() const noexcept { return data_; }
  size_t size() const noexcept { return size_; }
  bool empty() const noexcept { return size_ == 0; }
  const T* begin() const noexcept { return data_; }
  const T* end() const noexcept { return data_ + size_; }
  const T& operator[](size_t i) const noexcept { return data_[i]; }
  /// Element (i, j) of a matrix.
  const T& operator()(size_t i, size_t j) const noexcept { return data_[i * shape_[1] + j]; }
  const std::vector<size_t>& shape() const noexcept { return shape_; }
  std::vector<T> copy() const { return {begin(), end()}; }
#if defined(RAY_HAS_SPAN)
  /// Valid as long as this array, or a copy of it, exists.
  std::span<const T> span() const noexcept { return {data_, size_}; }
  operator std::span<const T>() const& noexcept { return span(); }
  operator std::span<const T>() && = delete;  // it would point at memory that nobody keeps
#endif

 private:
  const T* data_ = nullptr;
  size_t size_ = 0;
  std::vector<size_t> shape_;
  std::shared_ptr<const void> owner_;
};

/// An array of several dimensions to be sent, borrowed from the caller:
/// ray::put(ray::shaped(v.data(), {rows, columns})).
template <class T>
struct shaped_view {
  const T* data;
  std::vector<size_t> shape;
  size_t size() const {
    size_t n = 1;
    for (size_t d : shape) n *= d;
    return n;
  }
};
template <class T>
shaped_view<std::remove_const_t<T>> shaped(T* data, std::vector<size_t> shape) {
  return {data, std::move(shape)};
}

namespace detail {

// One value on its way out.
class encoder {
 public:
  bytes_out bytes;
  failure problem;  // the first one
  // The reader is of another language: a vector of numbers is a list of numbers, for all readers
  // have lists.
  bool portable = false;

  // The whole value is these bytes, borrowed.
  void raw(const void* data, size_t size) {
    format_ = RAY_FMT_RAW;
    direct_ = data;
    direct_size_ = size;
  }
  // Borrows a count; the index of the reference in the value.
  uint32_t add(ray_ref* r) {
    more().refs.push_back(r);
    return static_cast<uint32_t>(more_->refs.size() - 1);
  }
  uint32_t add_actor(ray_actor* a) {
    ray_ref* r = nullptr;
    ray_error* err = nullptr;
    ray_code code = ray_actor_to_ref(a, &r, &err);
    if (code != RAY_OK) return fail(made(code, err)), 0;
    more().kept.emplace_back(r);
    return add(r);
  }
  uint32_t add_buffer(const void* data, size_t size) {
    more().oob.push_back(ray_bytes{data, size});
    return static_cast<uint32_t>(more_->oob.size() - 1);
  }
  // Something that is borrowed from and would not live long enough otherwise.
  void keep(std::shared_ptr<const void> what) { more().objects.push_back(std::move(what)); }
  void fail(failure f) {
    if (!problem) problem = std::move(f);
  }
  ray_value view() const {
    ray_value v = ray_plain(direct_ ? direct_ : bytes.data(), direct_ ? direct_size_ : bytes.size(), format_);
    if (more_) {
      v.refs = more_->refs.data();
      v.n_refs = static_cast<uint32_t>(more_->refs.size());
      v.oob = more_->oob.data();
      v.n_oob = more_->oob.size();
    }
    return v;
  }

 private:
  struct extras {
    std::vector<ray_ref*> refs;
    std::vector<ref_handle> kept;
    std::vector<ray_bytes> oob;
    std::vector<std::shared_ptr<const void>> objects;
  };
  extras& more() {
    if (!more_) more_ = std::make_unique<extras>();
    return *more_;
  }
  uint32_t format_ = RAY_FMT_MSGPACK;
  const void* direct_ = nullptr;
  size_t direct_size_ = 0;
  std::unique_ptr<extras> more_;
};

// One value that came in: a buffer of the reader's, or an argument of the task that runs.
class source {
 public:
  explicit source(ray_buffer* owned) : buffer_(owned) {}
  source(const ray_buffer* args, ray_task* task, size_t index) : borrowed_(args + index), task_(task), index_(index) {}
  const ray_buffer& buffer() const { return holder_ ? holder_->buffer : buffer_ ? *buffer_ : *borrowed_; }
  std::string_view data() const {
    return {static_cast<const char*>(buffer().data), static_cast<size_t>(buffer().size)};
  }
  uint32_t format() const { return buffer().format; }
  // Keeps the value's memory beyond this source.
  std::shared_ptr<const void> share() {
    if (holder_) return holder_;
    auto h = std::make_shared<holder>();
    if (task_) {
      if (ray_task_take_arg(task_, index_, &h->buffer, nullptr) != RAY_OK) return nullptr;
    } else {
      h->buffer = *buffer_;
      *buffer_ = ray_buffer RAY_BUFFER_INIT;
    }
    return holder_ = std::move(h);
  }

 private:
  struct holder {
    ray_buffer buffer = RAY_BUFFER_INIT;
    holder() = default;
    holder(const holder&) = delete;
    holder& operator=(const holder&) = delete;
    ~holder() { ray_buffer_release(&buffer); }
  };
  ray_buffer* buffer_ = nullptr;
  const ray_buffer* borrowed_ = nullptr;
  ray_task* task_ = nullptr;
  size_t index_ = 0;
  std::shared_ptr<holder> holder_;
};

// The value that this thread packs or unpacks with the msgpack library: references and arrays
// inside look here.
inline thread_local encoder* t_encoder = nullptr;
inline thread_local source* t_source = nullptr;
template <class T>
class scoped {
 public:
  scoped(T*& slot, T* value) : slot_(slot), old_(slot) { slot = value; }
  scoped(const scoped&) = delete;
  scoped& operator=(const scoped&) = delete;
  ~scoped() { slot_ = old_; }

 private:
  T*& slot_;
  T* old_;
};

inline std::string kind_of(const source& s) {
  if (s.format() == RAY_FMT_RAW) return "bytes";
  if (s.format() != RAY_FMT_MSGPACK)
    return "a value in a format of another language (RAY_FMT " + std::to_string(s.format()) + ")";
  item i = cursor(s.data()).next();
  if (i.what == kind::ext)
    return i.ext_type == 3   ? "a tensor"
           : i.ext_type == 1 ? "a reference"
           : i.ext_type == 2 ? "an actor handle"
                             : "an extension";
  return name_of(i.what);
}
inline failure unexpected(const source& s, const std::string& wanted) {
  return of_wrong_type(wanted + " was asked for and " + kind_of(s) + " is there");
}
// The value's MessagePack without what others wrap it in: 19 = [name of a type of theirs, value],
// 16 = an array that is a tuple to them.
inline std::string_view content(std::string_view bytes) {
  for (int depth = 0; depth < 8; ++depth) {
    cursor c(bytes);
    const item i = c.next();
    if (i.what != kind::ext || !c.at_end() || (i.ext_type != 16 && i.ext_type != 19)) break;
    bytes = i.bytes;
    if (i.ext_type == 16) continue;
    cursor inner(bytes);
    if (item head = inner.next(); head.what != kind::array || head.number != 2 || !inner.skip()) return {};
    bytes = inner.rest();
  }
  return bytes;
}
inline std::string_view content(const source& s) { return content(s.data()); }
// The next item of a container, without what wraps it; else `bad`.
inline item next_plain(cursor& c) {
  const std::string_view before = c.rest();
  item i = c.next();
  if (i.what != kind::ext) return i;
  cursor inner(content(before.substr(0, before.size() - c.rest().size())));
  i = inner.next();
  return inner.at_end() ? i : item();
}
// The one item of a value that is a single scalar, else `bad`.
inline item only_item(const source& s) {
  if (s.format() != RAY_FMT_MSGPACK) return item();
  cursor c(content(s));
  item i = c.next();
  return c.at_end() ? i : item();
}
#if defined(RAY_HAS_EXCEPTIONS)
// Unpacks one whole value; strings and the like stay where they are. The library takes memory for
// as many elements as a head says: bytes that nobody vouches for are looked at first.
inline msgpack::object unpack_whole(msgpack::zone& zone, std::string_view bytes) {
  cursor check(bytes);
  if (!check.skip() || !check.at_end()) throw msgpack::unpack_error("malformed");
  size_t end = 0;
  bool referenced = false;
  return msgpack::unpack(zone, bytes.data(), bytes.size(), end, referenced,
                         [](msgpack::type::object_type, size_t, void*) { return true; });
}
// The same as content() all through a value that the msgpack library unpacked.
inline void unwrap(msgpack::object& o, msgpack::zone& zone, int depth) {
  if (depth > 96) throw msgpack::type_error();
  if (o.type == msgpack::type::EXT && (o.via.ext.type() == 16 || o.via.ext.type() == 19)) {
    const int8_t type = o.via.ext.type();
    const msgpack::object inner = unpack_whole(zone, {o.via.ext.data(), o.via.ext.size});
    if (inner.type != msgpack::type::ARRAY || (type == 19 && inner.via.array.size != 2)) throw msgpack::type_error();
    o = type == 19 ? inner.via.array.ptr[1] : inner;
    return unwrap(o, zone, depth + 1);
  }
  if (o.type == msgpack::type::ARRAY)
    for (uint32_t i = 0; i < o.via.array.size; ++i) unwrap(o.via.array.ptr[i], zone, depth + 1);
  if (o.type == msgpack::type::MAP)
    for (uint32_t i = 0; i < o.via.map.size; ++i) {
      unwrap(const_cast<msgpack::object&>(o.via.map.ptr[i].key), zone, depth + 1);
      unwrap(o.via.map.ptr[i].val, zone, depth + 1);
    }
}
#endif

// ---- codec<T>: encode(encoder&, const T&), and decode(source&, std::optional<T>&) -> failure

template <class T>
failure range_error(const item& i) {
  return of_wrong_type("the integer " +
                       (i.negative ? std::to_string(static_cast<int64_t>(i.number)) : std::to_string(i.number)) +
                       " does not fit " + (std::is_signed_v<T> ? "a signed" : "an unsigned") + " integer of " +
                       std::to_string(8 * sizeof(T)) + " bits");
}
template <class T>
bool integer_of(const item& i, T* out) {
  if (i.negative) {
    const auto v = static_cast<int64_t>(i.number);
    if (std::is_unsigned_v<T> || v < static_cast<int64_t>(std::numeric_limits<T>::min())) return false;
    return *out = static_cast<T>(v), true;
  }
  if (i.number > static_cast<uint64_t>(std::numeric_limits<T>::max())) return false;
  return *out = static_cast<T>(i.number), true;
}
inline bool is_numeric(const item& i) { return i.what == kind::real || i.what == kind::integer; }
// Of an item that is numeric.
template <class T>
bool real_of(const item& i, T* out) {
  return i.what == kind::real ? real_as_real(i.real, out) : whole_as_real(i.negative, i.number, out);
}
template <class T>
failure no_real(const item& i) {
  char text[40];
  std::snprintf(text, sizeof text, "%.17g", i.real);
  const std::string number = i.what == kind::real ? text
                             : i.negative         ? std::to_string(static_cast<int64_t>(i.number))
                                                  : std::to_string(i.number);
  return of_wrong_type("the number " + number + " does not fit a " + (sizeof(T) == 4 ? "float" : "double"));
}

#if defined(RAY_HAS_EXCEPTIONS)
// Whether texts may be in a value of the type: not in numbers and containers of them.
template <class T, class = void>
inline constexpr bool holds_text = !std::is_arithmetic_v<T> && !std::is_same_v<T, std::byte>;
template <class T>
inline constexpr bool holds_text<T, std::void_t<typename T::value_type, typename T::const_iterator>> =
    std::is_convertible_v<const T&, std::string_view> || holds_text<typename T::value_type>;
// What the library packed: no reader takes a text that is no UTF-8.
inline bool texts_are_utf8(std::string_view packed) {
  for (cursor c(packed); !c.at_end();) {
    const item i = c.next();
    if (i.what == kind::bad) break;  // a pack function of the program's own: its readers will say so
    if (i.what == kind::text && !is_utf8(i.bytes)) return false;
  }
  return true;
}
#endif

// Everything that is not named below: containers, MSGPACK_DEFINE.
template <class T, class = void>
struct codec {
#if defined(RAY_HAS_EXCEPTIONS)
  static void encode(encoder& e, const T& value) {
    scoped<encoder> scope(t_encoder, &e);
    try {
      const size_t begin = e.bytes.size();
      msgpack::packer<bytes_out>(e.bytes).pack(value);
      if (holds_text<T> && !texts_are_utf8(e.bytes.view().substr(begin)))
        e.fail(failure(RAY_INVALID_ARGUMENT, "a text in a value is no UTF-8: send it as bytes, a std::vector<std::byte>"));
    } catch (const msgpack::container_size_overflow& x) {
      e.fail(failure(RAY_INVALID_ARGUMENT, std::string("a value is too large for MessagePack: ") + x.what()));
    }
  }
  static failure decode(source& s, std::optional<T>& out) {
    const bool is_bytes = s.format() == RAY_FMT_RAW && s.data().size() <= UINT32_MAX;
    if (s.format() != RAY_FMT_MSGPACK && !is_bytes) return unexpected(s, "a MessagePack value");
    scoped<source> scope(t_source, &s);
    try {
      msgpack::zone zone;
      msgpack::object o;
      if (is_bytes) {
        o.type = msgpack::type::BIN;
        o.via.bin.ptr = s.data().data();
        o.via.bin.size = static_cast<uint32_t>(s.data().size());
      } else {
        o = unpack_whole(zone, s.data());
        unwrap(o, zone, 0);
      }
      if (!fit<T>::check(o))
        return of_wrong_type(kind_of(s) + " is there, and it, or something in it, has another length, is bytes for a text or a " +
                             "text for bytes, or is a number or time that does not fit the type asked for");
      if constexpr (std::is_default_constructible_v<T> && std::is_move_constructible_v<T>) {
        T value{};  // what the library makes has members that nobody wrote, until it has read them
        o.convert(value);
        out.emplace(std::move(value));
      } else {
        out.emplace(o.as<T>());
      }
      return {};
    } catch (const msgpack::type_error&) {
      return of_wrong_type(kind_of(s) + " is there, and it, or something in it, is of another type than asked for");
    } catch (const msgpack::unpack_error&) {
      return of_wrong_type("the bytes are not one MessagePack value");
    } catch (const error& x) {  // of a reference or an array inside
      return x.details();
    }
  }
#else
  static_assert(never<T>,
                "ray: this type is packed by the msgpack library, which needs exceptions: without "
                "them numbers, "
                "texts, bytes, arrays of numbers, references and actor handles can be sent");
#endif
};

// void: nil, and of a result that nobody wants anything.
template <>
struct codec<std::monostate> {
  static void encode(encoder& e, std::monostate) { pack_nil(e.bytes); }
  static failure decode(source&, std::optional<std::monostate>& out) { return out.emplace(), failure(); }
};

template <>
struct codec<bool> {
  static void encode(encoder& e, bool v) { pack_bool(e.bytes, v); }
  static failure decode(source& s, std::optional<bool>& out) {
    const item i = only_item(s);
    if (i.what != kind::boolean) return unexpected(s, "a boolean");
    return out.emplace(i.number != 0), failure();
  }
};

template <class T>
struct codec<T, std::enable_if_t<std::is_integral_v<T> && !std::is_same_v<T, bool>>> {
  static void encode(encoder& e, T v) {
    if constexpr (std::is_signed_v<T>)
      pack_signed(e.bytes, v);
    else
      pack_unsigned(e.bytes, v);
  }
  static failure decode(source& s, std::optional<T>& out) {
    const item i = only_item(s);
    T v{};
    if (i.what != kind::integer) return unexpected(s, "an integer");
    if (!integer_of(i, &v)) return range_error<T>(i);
    return out.emplace(v), failure();
  }
};

template <class T>
struct codec<T, std::enable_if_t<std::is_enum_v<T> && !std::is_same_v<T, std::byte>>> {
  using number = std::underlying_type_t<T>;
  static void encode(encoder& e, T v) { codec<number>::encode(e, static_cast<number>(v)); }
  static failure decode(source& s, std::optional<T>& out) {
    std::optional<number> n;
    failure f = codec<number>::decode(s, n);
    if (!f) out.emplace(static_cast<T>(*n));
    return f;
  }
};

template <class T>
struct codec<T, std::enable_if_t<std::is_floating_point_v<T>>> {
  static_assert(sizeof(T) <= 8, "ray: MessagePack has no long double");
  static void encode(encoder& e, T v) {
    if constexpr (sizeof(T) == 4)
      pack_float(e.bytes, v);
    else
      pack_double(e.bytes, v);
  }
  static failure decode(source& s, std::optional<T>& out) {
    const item i = only_item(s);
    T v{};
    if (!is_numeric(i)) return unexpected(s, "a number");
    if (!real_of(i, &v)) return no_real<T>(i);
    return out.emplace(v), failure();
  }
};

template <class T>
struct codec<T, std::enable_if_t<std::is_same_v<T, std::string> || std::is_same_v<T, std::string_view>>> {
  static void encode(encoder& e, std::string_view v) {
    if (v.size() > UINT32_MAX)
      return e.fail(failure(RAY_INVALID_ARGUMENT, "a text of more than 4 GiB: send it as bytes"));
    if (!is_utf8(v))
      return e.fail(failure(RAY_INVALID_ARGUMENT, "a text that is no UTF-8: send it as bytes, a std::vector<std::byte>"));
    pack_text(e.bytes, v);
  }
  static failure decode(source& s, std::optional<T>& out) {
    const item i = only_item(s);
    if (i.what != kind::text) return unexpected(s, "a text");
    return out.emplace(i.bytes), failure();
  }
};

}  // namespace detail
}  // namespace ray
