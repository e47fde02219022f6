// arrays.hpp -- part of ray.hpp: bytes and arrays as values. Elements lie out of band: copied once
// when they are sent, read in place. See values.hpp.
#pragma once
#include "values.hpp"

namespace ray::detail {

inline constexpr size_t kRawMin =
    256;  // bytes from here on travel as they are, without a copy into a MessagePack value

inline void encode_octets(encoder& e, const void* data, size_t size) {
  if (size >= kRawMin) return e.raw(data, size);
  pack_bin(e.bytes, {static_cast<const char*>(data), size});
}

// Extension 3: [dtype, shape, index of the buffer].
inline void encode_tensor(encoder& e, const void* data, size_t bytes, const std::string& dtype, const size_t* shape,
                          size_t n) {
  bytes_out body;
  pack_array(body, 3);
  pack_text(body, dtype);
  pack_array(body, n);
  for (size_t i = 0; i < n; ++i) pack_unsigned(body, shape[i]);
  pack_unsigned(body, e.add_buffer(data, bytes));
  pack_head(e.bytes, 0, 0, 0xc7, 0xc8, 0xc9, body.size());
  pack_byte(e.bytes, 3);
  e.bytes.write(body.data(), body.size());
}
template <class T>
void encode_array(encoder& e, const T* data, size_t n) {
  encode_tensor(e, data, n * sizeof(T), dtype_of<T>(), &n, 1);
}

struct tensor {
  std::string_view dtype;
  std::vector<size_t> shape;
  ray_bytes bytes = RAY_BYTES_INIT;
};
// Reads the body of an extension 3. False: malformed, or its buffer does not hold what the shape
// says.
inline bool read_tensor(std::string_view body, const ray_buffer& buffer, size_t element, tensor* out) {
  cursor c(body);
  if (item head = c.next(); head.what != kind::array || head.number != 3) return false;
  item dtype = c.next(), dims = c.next();
  if (dtype.what != kind::text || dims.what != kind::array || dims.number > 64) return false;
  out->dtype = dtype.bytes;
  size_t n = element;
  for (uint64_t i = 0; i < dims.number; ++i) {
    item d = c.next();
    if (d.what != kind::integer || d.negative || __builtin_mul_overflow(n, d.number, &n)) return false;
    out->shape.push_back(d.number);
  }
  item index = c.next();
  if (index.what != kind::integer || index.negative || index.number >= buffer.n_oob || !c.at_end()) return false;
  out->bytes = buffer.oob[index.number];
  return out->bytes.size >= n;
}
// An array of T of a tensor's body, in place; `dtype` may also be numpy's for the same bytes.
template <class T>
failure tensor_in_place(source& s, std::string_view body, std::optional<array<T>>& out) {
  tensor t;
  std::shared_ptr<const void> owner = s.share();
  if (!owner) return failure(RAY_INTERNAL, "an argument was taken twice");
  if (!read_tensor(body, s.buffer(), sizeof(T), &t)) return of_wrong_type("a tensor is malformed");
  if (t.dtype != dtype_of<T>())
    return of_wrong_type("an array of \"" + dtype_of<T>() + "\" was asked for and one of \"" + std::string(t.dtype) +
                         "\" is there");
  out.emplace(static_cast<const T*>(t.bytes.data), std::move(t.shape), std::move(owner));
  return {};
}
// The body's place in a value that is a tensor; the view moves when the value is shared, so this is
// asked again.
inline bool tensor_body(const source& s, std::string_view* body) {
  const item i = only_item(s);
  *body = i.bytes;
  return i.what == kind::ext && i.ext_type == 3;
}
// The bytes of a value that is bytes. A list of none is such too: some languages know no better.
inline bool octets_of(const source& s, std::string_view* out) {
  if (s.format() == RAY_FMT_RAW) return *out = s.data(), true;
  const item i = only_item(s);
  *out = i.bytes;
  return i.what == kind::bin || (i.what == kind::array && i.number == 0);
}

// An array in place, of a value of its own.
template <class T>
failure array_in_place(source& s, std::optional<array<T>>& out) {
  std::string_view view;
  if (tensor_body(s, &view)) {
    if (!s.share()) return failure(RAY_INTERNAL, "an argument was taken twice");
    tensor_body(s, &view);
    return tensor_in_place(s, view, out);
  }
  if constexpr (is_octet<T>) {
    if (octets_of(s, &view)) {
      std::shared_ptr<const void> owner = s.share();
      octets_of(s, &view);
      out.emplace(reinterpret_cast<const T*>(view.data()), std::vector<size_t>{view.size()}, std::move(owner));
      return {};
    }
  }
  return unexpected(s, "an array of \"" + dtype_of<T>() + "\"");
}

// Elements of a MessagePack array of numbers.
template <class T>
failure numbers_of(source& s, std::vector<T>& out) {
  if (s.format() != RAY_FMT_MSGPACK) return unexpected(s, "an array of numbers");
  cursor c(content(s));
  const item head = c.next();
  if (head.what != kind::array) return unexpected(s, "an array of numbers");
  out.reserve(head.number);
  for (uint64_t i = 0; i < head.number; ++i) {
    const item v = next_plain(c);
    T x{};
    if constexpr (std::is_floating_point_v<T>) {
      if (!is_numeric(v))
        return of_wrong_type("element " + std::to_string(i) + " is " + name_of(v.what) + ", not a number");
      if (!real_of(v, &x)) return no_real<T>(v);
    } else {
      if (v.what != kind::integer)
        return of_wrong_type("element " + std::to_string(i) + " is " + name_of(v.what) + ", not an integer");
      if (!integer_of(v, &x)) return range_error<T>(v);
    }
    out.push_back(x);
  }
  return c.at_end() ? failure() : of_wrong_type("something follows the MessagePack value");
}

// std::vector of bytes.
template <class T>
struct codec<std::vector<T>, std::enable_if_t<is_octet<T>>> {
  static void encode(encoder& e, const std::vector<T>& v) { encode_octets(e, v.data(), v.size()); }
  static failure decode(source& s, std::optional<std::vector<T>>& out) {
    std::string_view bytes;
    if (octets_of(s, &bytes)) {
      const T* data = reinterpret_cast<const T*>(bytes.data());
      return out.emplace(data, data + bytes.size()), failure();
    }
    std::optional<array<T>> a;
    failure f = array_in_place(s, a);
    if (!f) out.emplace(a->begin(), a->end());
    return f;
  }
};

// std::vector of numbers or plain structs.
template <class T>
struct codec<std::vector<T>, std::enable_if_t<is_raw<T>::value && !is_octet<T> && !std::is_same_v<T, bool>>> {
  static void encode(encoder& e, const std::vector<T>& v) {
    if constexpr (is_number<T>)
      if (e.portable) return encode_list(e, v);
    encode_array(e, v.data(), v.size());
  }
  static void encode_list(encoder& e, const std::vector<T>& v) {
    pack_array(e.bytes, v.size());
    for (T x : v) codec<T>::encode(e, x);
  }
  static failure decode(source& s, std::optional<std::vector<T>>& out) {
    std::string_view body;
    if (tensor_body(s, &body)) {
      tensor t;
      if (!read_tensor(body, s.buffer(), sizeof(T), &t)) return of_wrong_type("a tensor is malformed");
      if (t.dtype != dtype_of<T>())
        return of_wrong_type("an array of \"" + dtype_of<T>() + "\" was asked for and one of \"" +
                             std::string(t.dtype) + "\" is there");
      if (t.shape.size() != 1)
        return of_wrong_type("an array of " + std::to_string(t.shape.size()) +
                             " dimensions is there: ask for a ray::array");
      const T* data = static_cast<const T*>(t.bytes.data);
      return out.emplace(data, data + t.shape[0]), failure();
    }
    if constexpr (is_number<T>)
      return numbers_of(s, out.emplace());
    else
      return unexpected(s, "an array of \"" + dtype_of<T>() + "\"");
  }
};

// An array that was never set is one of no elements.
template <class T>
void encode_shaped(encoder& e, const array<T>& a) {
  static const std::vector<size_t> none{0};
  const std::vector<size_t>& shape = a.data() ? a.shape() : none;
  encode_tensor(e, a.data(), a.size() * sizeof(T), dtype_of<T>(), shape.data(), shape.size());
}
template <class T>
struct codec<array<T>> {
  static void encode(encoder& e, const array<T>& a) {
    if constexpr (std::is_same_v<T, std::byte>)
      encode_octets(e, a.data(), a.size());
    else
      encode_shaped(e, a);
  }
  static failure decode(source& s, std::optional<array<T>>& out) { return array_in_place(s, out); }
};

template <class T>
struct codec<shaped_view<T>> {
  static void encode(encoder& e, const shaped_view<T>& a) {
    encode_tensor(e, a.data, a.size() * sizeof(T), dtype_of<T>(), a.shape.data(), a.shape.size());
  }
};

#if defined(RAY_HAS_SPAN)
// What a function takes as a span is read in place and lasts as long as the call.
template <class T>
struct codec<std::span<T>> {
  using element = std::remove_const_t<T>;
  static void encode(encoder& e, std::span<T> v) {
    if constexpr (std::is_same_v<element, std::byte>)
      encode_octets(e, v.data(), v.size());
    else
      encode_array(e, v.data(), v.size());
  }
  static failure decode(source& s, std::optional<std::span<T>>& out) {
    static_assert(std::is_const_v<T>, "ray: values are read-only: take a std::span<const T>");
    std::optional<array<element>> a;
    failure f = array_in_place(s, a);
    if (!f) out.emplace(a->data(), a->size());  // `s` keeps the memory
    return f;
  }
};
#endif

}  // namespace ray::detail

#if defined(RAY_HAS_EXCEPTIONS)
// ray::array inside of containers and structs.
namespace msgpack {
MSGPACK_API_VERSION_NAMESPACE(MSGPACK_DEFAULT_API_NS) {
  namespace adaptor {
  template <class T>
  struct pack<ray::array<T>> {
    template <class Stream>
    msgpack::packer<Stream>& operator()(msgpack::packer<Stream>& p, const ray::array<T>& a) const {
      ray::detail::encoder* e = ray::detail::t_encoder;
      if (!e) throw ray::wrong_state(ray::failure(RAY_WRONG_STATE, "a ray::array is packed outside of a value of ray"));
      ray::detail::encode_shaped(*e, a);
      return p;
    }
  };
  template <class T>
  struct convert<ray::array<T>> {
    const msgpack::object& operator()(const msgpack::object& o, ray::array<T>& out) const {
      if (o.type != msgpack::type::EXT || o.via.ext.type() != 3 || !ray::detail::t_source) throw msgpack::type_error();
      std::optional<ray::array<T>> a;
      // The extension's body lies in memory that sharing the value leaves where it is.
      if (ray::failure f = ray::detail::tensor_in_place(*ray::detail::t_source, {o.via.ext.data(), o.via.ext.size}, a))
        ray::detail::raise(std::move(f));
      out = std::move(*a);
      return o;
    }
  };
  }  // namespace adaptor
}
}  // namespace msgpack
#endif
