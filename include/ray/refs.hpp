// refs.hpp -- part of ray.hpp: typed references to values that exist or will exist, and what waits
// for them.
//
// Thread: any. A ray::ref is one count of a ray_ref and has its size; a copy is one more count.
#pragma once
#include "runtime.hpp"

namespace ray {

struct cancel_options {
  bool force = false;      ///< kill the worker
  bool recursive = false;  ///< the task's own tasks too
};

namespace detail {

// What a reference to a T gives: views become what owns their memory.
template <class T, class = void>
struct stored {
  using type = T;
};
template <>
struct stored<std::string_view> {
  using type = std::string;
};
template <>
struct stored<const char*> {
  using type = std::string;
};
template <>
struct stored<char*> {
  using type = std::string;
};
template <class T>
struct stored<shaped_view<T>> {
  using type = array<T>;
};
#if defined(RAY_HAS_SPAN)
template <class T>
struct stored<std::span<T>> {
  using type = array<std::remove_const_t<T>>;
};
#endif
template <class T>
using stored_t = typename stored<std::decay_t<T>>::type;

// Whether something in a T points at memory that it does not keep. An argument may: it lasts as long as the call.
template <class T, class = void>
struct holds_views : std::false_type {};
template <class T>
struct holds_views<const T> : holds_views<T> {};
template <>
struct holds_views<std::string_view> : std::true_type {};
template <>
struct holds_views<const char*> : std::true_type {};
#if defined(RAY_HAS_SPAN)
template <class T, size_t N>
struct holds_views<std::span<T, N>> : std::true_type {};
#endif
template <class... T>
struct holds_views<std::tuple<T...>> : std::disjunction<holds_views<T>...> {};
template <class A, class B>
struct holds_views<std::pair<A, B>> : std::disjunction<holds_views<A>, holds_views<B>> {};
template <class T>
struct holds_views<ref<T>> : std::false_type {};
template <class T>
struct holds_views<T, std::void_t<typename T::value_type>> : holds_views<typename T::value_type> {};

template <class T>
constexpr void must_own() {
  static_assert(!holds_views<T>::value,
                "ray: a std::string_view or std::span in a result points at memory that is gone when get returns: "
                "take a std::string, a std::vector or a ray::array");
}

// void as something that can be held.
template <class T>
using held = std::conditional_t<std::is_void_v<T>, std::monostate, T>;

struct buffer_guard {
  ray_buffer buffer = RAY_BUFFER_INIT;
  buffer_guard() = default;
  buffer_guard(const buffer_guard&) = delete;
  buffer_guard& operator=(const buffer_guard&) = delete;
  ~buffer_guard() {
    if (buffer.release) ray_buffer_release(&buffer);
  }
};
inline constexpr uint32_t flag_if(bool set, uint32_t flag) { return set ? flag : 0; }
inline uint32_t flags_of(cancel_options o) {
  return flag_if(o.force, RAY_CANCEL_FORCE) | flag_if(o.recursive, RAY_CANCEL_RECURSIVE);
}

template <class T>
failure fetch(ray_ref* ref, timeout t, std::optional<held<T>>& out) {
  must_own<T>();
  ray_runtime* rt = runtime();
  if (__builtin_expect(!rt, 0)) return not_started();
  buffer_guard b;
  ray_error* err = nullptr;
  ray_code code = ray_get(rt, &ref, 1, t.ns, &b.buffer, &err);
  if (__builtin_expect(code != RAY_OK, 0)) return failure(code, err);
  source s(&b.buffer);
  return codec<held<T>>::decode(s, out);
}

// The C handles of references, for calls that take arrays of them; few of them need no memory.
template <class T>
class handles {
 public:
  explicit handles(const std::vector<ref<T>>& refs) {
    at_ = refs.size() <= std::size(few_) ? few_ : (many_ = std::make_unique<ray_ref*[]>(refs.size())).get();
    for (size_t i = 0; i < refs.size(); ++i) at_[i] = refs[i].raw();
  }
  ray_ref* const* data() const { return at_; }

 private:
  ray_ref* few_[16];
  std::unique_ptr<ray_ref*[]> many_;
  ray_ref** at_;
};

// Buffers for a get of many. The memory is kept by the thread, for the next one.
class buffers {
 public:
  explicit buffers(size_t n) : n_(n), at_(std::move(spare().at)), room_(std::exchange(spare().room, 0)) {
    if (room_ < n) at_.reset(new ray_buffer[room_ = n]);
    for (size_t i = 0; i < n; ++i) at_[i].release = nullptr;
  }
  buffers(const buffers&) = delete;
  buffers& operator=(const buffers&) = delete;
  ~buffers() {
    for (size_t i = 0; i < n_; ++i)
      if (at_[i].release) ray_buffer_release(&at_[i]);
    if (room_ <= kKept) spare() = {std::move(at_), room_};
  }
  ray_buffer* data() { return at_.get(); }
  ray_buffer& operator[](size_t i) { return at_[i]; }

 private:
  static constexpr size_t kKept = 4096;
  struct memory {
    std::unique_ptr<ray_buffer[]> at;
    size_t room = 0;
  };
  static memory& spare() {
    static thread_local memory m;
    return m;
  }
  size_t n_;
  std::unique_ptr<ray_buffer[]> at_;
  size_t room_;
};

template <class Then>
void when_ready(ray_ref* ref, Then then);  // async.hpp

}  // namespace detail

/// A reference to a T that exists or will exist: a future that can be copied, sent and waited for.
/// `T` may be void. Given to a task as an argument it stands for its value: the task starts when
/// that is there.
template <class T>
class ref {
 public:
  using value_type = T;
  ref() = default;
  /// Takes over a count of a reference of ray.h.
  explicit ref(ray_ref* owned) noexcept : h_(owned) {}

  /// Waits for the value. Throws what the task failed with (ray::task_error and others),
  /// ray::timed_out, ray::wrong_type.
  T get(timeout t = forever) const {
    std::optional<detail::held<T>> out;
    detail::raise_if(detail::fetch<T>(h_.get(), t, out));
    if constexpr (!std::is_void_v<T>) return std::move(*out);
  }
  /// get without exceptions.
  result<T> get_result(timeout t = forever) const {
    std::optional<detail::held<T>> out;
    failure f = detail::fetch<T>(h_.get(), t, out);
    if constexpr (std::is_void_v<T>)
      return result<void>(std::move(f));
    else
      return detail::result_of(std::move(f), std::move(out));
  }
  /// The value if it is there already; never waits. Throws as get does.
  std::optional<detail::held<T>> try_get() const {
    detail::must_own<T>();
    std::optional<detail::held<T>> out;
    detail::buffer_guard b;
    ray_error* err = nullptr;
    ray_code code = ray_try_get(h_.get(), &b.buffer, &err);
    failure f = detail::made(code, err);
    if (code == RAY_TIMED_OUT) return out;
    detail::raise_if(std::move(f));
    detail::source s(&b.buffer);
    detail::raise_if(detail::codec<detail::held<T>>::decode(s, out));
    return out;
  }
  /// Waits until there is a value or an error; false when the time was over.
  bool wait(timeout t = forever) const {
    ray_ref* r = h_.get();
    uint8_t ready = 0;
    size_t n = 0;
    detail::raise_if(detail::with_runtime(
        [&](ray_runtime* rt, ray_error** err) { return ray_wait(rt, &r, 1, 1, t.ns, &ready, &n, err); }));
    return n == 1;
  }
  /// Whether there is a value or an error.
  bool ready() const { return wait(std::chrono::seconds(0)); }
  /// Calls `f(ref)` once when there is a value or an error: on the ray::event_loop that runs on
  /// this thread, else on a thread of the runtime, where it must not block.
  template <class F>
  void then(F f) const {
    detail::when_ready(h_.get(), [f = std::move(f), self = *this]() mutable { f(self); });
  }
  /// Cancels the task that makes this value. A task that is finished keeps its result.
  void cancel(cancel_options o = {}) const { cancel_result(o).value(); }
  result<void> cancel_result(cancel_options o = {}) const {
    ray_error* err = nullptr;
    ray_code code = ray_cancel(h_.get(), detail::flags_of(o), &err);
    return detail::made(code, err);
  }
  ray::id id() const { return {ray_ref_id(h_.get())}; }
  /// The same reference as one to a U: for values whose type the program knows better.
  template <class U>
  ref<U> as() const {
    detail::ref_handle copy = h_;
    return ref<U>(copy.release());
  }
  /// The bytes of a vector or a span without a copy: they stay as long as the array does.
  template <class U = T, class E = typename U::value_type>
  array<E> view(timeout t = forever) const {
    return as<array<E>>().get(t);
  }
  /// Bytes that ray::import_ref makes a reference of, in any process of the cluster. They keep the
  /// object until the job ends.
  std::string export_bytes() const {
    ray_error* err = nullptr;
    size_t n = 0;
    detail::raise_if(detail::made(ray_ref_export(h_.get(), nullptr, &n, &err), err));
    std::string out(n, '\0');
    ray_code code = ray_ref_export(h_.get(), out.data(), &n, &err);
    detail::raise_if(detail::made(code, err));
    return out.resize(n), out;
  }
  ray_ref* raw() const noexcept { return h_.get(); }
  explicit operator bool() const noexcept { return static_cast<bool>(h_); }

 private:
  detail::ref_handle h_;
};

template <class T>
result<ref<detail::stored_t<T>>> put_result(const T& value) {
  using S = detail::stored_t<T>;
  detail::encoder e;
  // A view is packed as it is; what decays (a literal) becomes its own kind of value first.
  if constexpr (std::is_array_v<T> || std::is_pointer_v<std::decay_t<T>>)
    detail::codec<std::string>::encode(e, value);
  else
    detail::codec<T>::encode(e, value);
  if (e.problem) return e.problem;
  ray_value v = e.view();
  ray_ref* out = nullptr;
  if (failure f = detail::with_runtime([&](ray_runtime* rt, ray_error** err) { return ray_put(rt, &v, &out, err); }))
    return f;
  return ref<S>(out);
}
/// Puts a value into the object store: to give it to many tasks, for instance. Arrays are copied
/// once, into shared memory.
template <class T>
ref<detail::stored_t<T>> put(const T& value) {
  return put_result(value).value();
}
/// See ray::ref::export_bytes.
template <class T>
ref<T> import_ref(std::string_view exported) {
  ray_ref* out = nullptr;
  detail::raise_if(detail::with_runtime([&](ray_runtime* rt, ray_error** err) {
    return ray_ref_import(rt, {exported.data(), exported.size()}, &out, err);
  }));
  return ref<T>(out);
}

namespace detail {
template <class T>
failure fetch_all(const std::vector<ref<T>>& refs, timeout t, std::vector<held<T>>* out) {
  must_own<T>();
  handles<T> h(refs);
  buffers b(refs.size());
  failure f = with_runtime(
      [&](ray_runtime* rt, ray_error** err) { return ray_get(rt, h.data(), refs.size(), t.ns, b.data(), err); });
  if constexpr (!std::is_void_v<T>) {
    if (!f) out->reserve(refs.size());
    for (size_t i = 0; !f && i < refs.size(); ++i) {
      source s(&b[i]);
      std::optional<T> value;
      f = codec<T>::decode(s, value);
      if (!f) out->push_back(std::move(*value));
    }
  } else {
    (void)out;
  }
  return f;
}
}  // namespace detail

/// Waits for all values, in order. Throws as soon as one has failed.
template <class T>
auto get(const std::vector<ref<T>>& refs, timeout t = forever) {
  std::vector<detail::held<T>> out;
  detail::raise_if(detail::fetch_all(refs, t, &out));
  if constexpr (!std::is_void_v<T>) return out;
}
template <class T>
auto get_result(const std::vector<ref<T>>& refs, timeout t = forever) {
  std::vector<detail::held<T>> out;
  failure f = detail::fetch_all(refs, t, &out);
  if constexpr (std::is_void_v<T>)
    return result<void>(std::move(f));
  else
    return f ? result<std::vector<T>>(std::move(f)) : result<std::vector<T>>(std::move(out));
}
template <class T>
T get(const ref<T>& r, timeout t = forever) {
  return r.get(t);
}
/// auto [a, b] = ray::get(x, y);
template <class A, class B, class... Rest>
std::tuple<A, B, Rest...> get(const ref<A>& a, const ref<B>& b, const ref<Rest>&... rest) {
  return std::tuple<A, B, Rest...>{a.get(), b.get(), rest.get()...};
}

struct wait_options {
  size_t count = 1;  ///< how many are to be ready
  ray::timeout timeout = forever;
};
/// The ready ones, at most `count`, in the order they were given, and the others.
template <class T>
struct waited {
  std::vector<ref<T>> ready, pending;
};
template <class T>
result<waited<T>> wait_result(const std::vector<ref<T>>& refs, wait_options o = {}) {
  detail::handles<T> h(refs);
  std::vector<uint8_t> ready(refs.size());
  size_t n = 0;
  if (failure f = detail::with_runtime([&](ray_runtime* rt, ray_error** err) {
        return ray_wait(rt, h.data(), refs.size(), o.count, o.timeout.ns, ready.data(), &n, err);
      }))
    return f;
  waited<T> out;
  for (size_t i = 0; i < refs.size(); ++i) (ready[i] ? out.ready : out.pending).push_back(refs[i]);
  return out;
}
/// Waits until `count` of the references have a value or an error, or the time is over.
template <class T>
waited<T> wait(const std::vector<ref<T>>& refs, wait_options options = {}) {
  return wait_result(refs, options).value();
}

namespace detail {

inline failure reference_of(const source& s, const item& i, int8_t type, ray_ref** out) {
  if (i.what != kind::ext || i.ext_type != type || i.bytes.size() != 4)
    return unexpected(s, type == 1 ? "a reference" : "an actor handle");
  uint32_t index = 0;
  for (char c : i.bytes) index = index << 8 | static_cast<uint8_t>(c);
  ray_error* err = nullptr;
  ray_code code = ray_buffer_ref(&s.buffer(), index, out, &err);
  return made(code, err);
}

// A reference inside a value, as such: what receives it gets the reference, not what it refers to.
template <class T>
struct codec<ref<T>> {
  static void encode(encoder& e, const ref<T>& r) {
    if (!r) return e.fail(failure(RAY_INVALID_ARGUMENT, "an empty ray::ref cannot be sent"));
    pack_reference(e.bytes, 1, e.add(r.raw()));
  }
  static failure decode(source& s, std::optional<ref<T>>& out) {
    ray_ref* r = nullptr;
    failure f = reference_of(s, only_item(s), 1, &r);
    if (!f) out.emplace(r);
    return f;
  }
};

}  // namespace detail
}  // namespace ray

#if defined(RAY_HAS_EXCEPTIONS)
// ray::ref inside of containers and structs.
namespace msgpack {
MSGPACK_API_VERSION_NAMESPACE(MSGPACK_DEFAULT_API_NS) {
  namespace adaptor {
  template <class T>
  struct pack<ray::ref<T>> {
    template <class Stream>
    msgpack::packer<Stream>& operator()(msgpack::packer<Stream>& p, const ray::ref<T>& r) const {
      ray::detail::encoder* e = ray::detail::t_encoder;
      if (!e) throw ray::wrong_state(ray::failure(RAY_WRONG_STATE, "a ray::ref is packed outside of a value of ray"));
      ray::detail::codec<ray::ref<T>>::encode(*e, r);
      return p;
    }
  };
  template <class T>
  struct convert<ray::ref<T>> {
    const msgpack::object& operator()(const msgpack::object& o, ray::ref<T>& out) const {
      ray::detail::source* s = ray::detail::t_source;
      if (o.type != msgpack::type::EXT || !s) throw msgpack::type_error();
      ray::detail::item i;
      i.what = ray::detail::kind::ext;
      i.ext_type = o.via.ext.type();
      i.bytes = {o.via.ext.data(), o.via.ext.size};
      ray_ref* r = nullptr;
      if (ray::failure f = ray::detail::reference_of(*s, i, 1, &r)) ray::detail::raise(std::move(f));
      out = ray::ref<T>(r);
      return o;
    }
  };
  }  // namespace adaptor
}
}  // namespace msgpack
#endif
