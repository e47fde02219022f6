// remote.hpp -- part of ray.hpp: ray::task and what arguments become on their way to it.
//
// Thread: any. What can be checked of a call while it is compiled is: the number of its arguments
// and their types.
#pragma once
#include "streams.hpp"

namespace ray {

/// How a task, or a call of an actor, is to run: ray::task(f, {.max_retries = 0})(x).
struct task_options {
  std::string name{};                     ///< for people: errors, tools
  ray::resources resources{};             ///< {{"CPU", 2}}; empty = one CPU. Of calls of actors ignored
  int max_retries = RAY_RETRIES_DEFAULT;  ///< executions after a crash of the worker; -1 = without end
  bool retry_on_error = false;            ///< max_retries counts what the function throws too
  uint32_t stream_window = 0;             ///< items that the caller has not taken before a generator waits; 0 = 64
  bool run_to_end = false;                ///< a generator goes on when its stream is gone
  std::optional<placement> place{};       ///< where
  ray::runtime_env env{};
};

namespace detail {

inline std::string pack_env(const runtime_env& env) {
  bytes_out out;
  pack_text(out, "runtime_env");
  pack_map(out, !env.env_vars.empty() + !env.working_dir.empty());
  if (!env.env_vars.empty()) {
    pack_text(out, "env_vars");
    pack_map(out, env.env_vars.size());
    for (const auto& [k, v] : env.env_vars) {
      pack_text(out, k);
      pack_text(out, v);
    }
  }
  if (!env.working_dir.empty()) {
    pack_text(out, "working_dir");
    pack_text(out, env.working_dir);
  }
  return std::string(out.view());
}
inline std::string pack_resources(const resources& amounts, const runtime_env& env, bool task) {
  bytes_out out;
  const resources one_cpu{{"CPU", 1}};
  const bool none = amounts.empty() && env.empty();
  if (!none)
    pack_amounts(out, amounts.empty() && task ? one_cpu : amounts, !env.empty(),
                 env.empty() ? std::string() : pack_env(env));
  return std::string(out.view());
}
inline ray_placement pack_placement(const placement& p) {
  ray_placement out = RAY_PLACEMENT_INIT;
  out.group = p.group.raw;
  out.bundle = p.bundle;
  out.node = p.node.raw;
  out.flags = flag_if(p.soft, RAY_PLACEMENT_SOFT);
  return out;
}

// Options as ray.h takes them: made once, used by any number of calls.
class packed_options {
 public:
  explicit packed_options(const task_options& o) : name_(o.name), resources_(pack_resources(o.resources, o.env, true)) {
    raw.name = str(name_);
    raw.resources_msgpack = {resources_.data(), resources_.size()};
    raw.max_retries = o.max_retries;
    raw.stream_window = o.stream_window;
    raw.flags = flag_if(o.retry_on_error, RAY_TASK_RETRY_ON_ERROR) | flag_if(o.run_to_end, RAY_TASK_RUN_TO_END);
    if (o.place) {
      placement_ = pack_placement(*o.place);
      raw.placement = &placement_;
    }
  }
  packed_options(const packed_options&) = delete;
  packed_options& operator=(const packed_options&) = delete;
  ray_task_options raw = RAY_TASK_OPTIONS_INIT;

 private:
  std::string name_, resources_;
  ray_placement placement_ = RAY_PLACEMENT_INIT;
};

// ---- which argument goes with which parameter

template <class T>
struct element_of {
  using type = void;
};  // of what is an array of raw elements
template <class T, class A>
struct element_of<std::vector<T, A>> {
  using type = std::conditional_t<is_raw<T>::value && !std::is_same_v<T, bool>, T, void>;
};
template <class T>
struct element_of<array<T>> {
  using type = T;
};
template <class T>
struct element_of<shaped_view<T>> {
  using type = T;
};
#if defined(RAY_HAS_SPAN)
template <class T>
struct element_of<std::span<T>> {
  using type = std::remove_const_t<T>;
};
#endif
template <class T>
using element_t = typename element_of<decayed<T>>::type;

template <class T>
struct is_ref : std::false_type {
  using value_type = void;
};
template <class T>
struct is_ref<ref<T>> : std::true_type {
  using value_type = T;
};

template <class T>
inline constexpr bool is_text = std::is_same_v<T, std::string> || std::is_same_v<T, std::string_view>;

// Whether a value of type U, as it was packed elsewhere, is read as a D.
template <class U, class D>
constexpr bool read_as() {
  if constexpr (std::is_same_v<U, D> || (is_text<U> && is_text<D>))
    return true;
  else if constexpr (is_number<U> && is_number<D>)
    return !(std::is_floating_point_v<U> && std::is_integral_v<D>);
  else
    return !std::is_void_v<element_t<D>> && std::is_same_v<element_t<U>, element_t<D>>;
}
// Whether an argument A goes with a parameter P.
template <class P, class A>
constexpr bool accepts() {
  using D = decayed<P>;
  using V = std::decay_t<A>;
  if constexpr (is_ref<V>::value && !std::is_same_v<V, D>)
    return read_as<typename is_ref<V>::value_type, D>();
  else if constexpr (is_number<V> && is_number<D>)
    return !(std::is_floating_point_v<V> && std::is_integral_v<D>);
  else if constexpr (!std::is_void_v<element_t<V>> && std::is_same_v<element_t<V>, element_t<D>>)
    return true;
  else if constexpr (std::is_same_v<D, std::string_view>)
    return std::is_convertible_v<A, std::string_view>;
  else
    return std::is_convertible_v<A, D>;
}

template <class D, class A>
void encode_as(encoder& e, A&& a) {
  using V = std::decay_t<A>;
  if constexpr (std::is_same_v<V, D>) {
    codec<D>::encode(e, a);
  } else if constexpr (is_number<V> && is_number<D>) {
    const D d = static_cast<D>(a);
    if constexpr (std::is_integral_v<D>)
      if (static_cast<V>(d) != a || (a < V{}) != (d < D{})) {
        item i;
        i.negative = a < V{};
        i.number = static_cast<uint64_t>(a);
        return e.fail(range_error<D>(i));
      }
    codec<D>::encode(e, d);
  } else if constexpr (!std::is_void_v<element_t<V>> && std::is_same_v<element_t<V>, element_t<D>>) {
    codec<V>::encode(e, a);
  } else if constexpr (is_text<D>) {
    if constexpr (std::is_convertible_v<A, std::string_view>)
      codec<std::string>::encode(e, std::string_view(a));
    else
      codec<std::string>::encode(e, std::string(std::forward<A>(a)));
  } else {
    auto kept = std::make_shared<const D>(std::forward<A>(a));
    e.keep(kept);
    codec<D>::encode(e, *kept);
  }
}
template <class P, class A>
failure fill(ray_arg& out, encoder& e, A&& a) {
  using D = decayed<P>;
  using V = std::decay_t<A>;
  if constexpr (is_ref<V>::value && !std::is_same_v<V, D>) {
    if (!a) return failure(RAY_INVALID_ARGUMENT, "an empty ray::ref");
    out.ref = a.raw();
    out.value = ray_value RAY_VALUE_INIT;
    return {};
  } else {
    encode_as<D>(e, std::forward<A>(a));
    out.ref = nullptr;
    out.value = e.view();
    return std::move(e.problem);
  }
}

template <class Parameters>
struct packer_for;
template <class... P>
struct packer_for<std::tuple<P...>> {
  // Packs the arguments and hands them to submit(const ray_arg*, size_t) -> failure.
  template <class Submit, class... A>
  static failure pack(bool portable, Submit submit, A&&... a) {
    static_assert(sizeof...(A) == sizeof...(P), "ray: this function takes another number of arguments");
    if constexpr (sizeof...(A) == sizeof...(P)) {
      static_assert((accepts<P, A>() && ...),
                    "ray: an argument is of another type than the function's parameter (and no "
                    "floating-point "
                    "number becomes an integer by itself)");
      if constexpr (sizeof...(P) == 0) {
        return submit(nullptr, 0);
      } else {
        encoder encoders[sizeof...(P)];
        ray_arg args[sizeof...(P)];
        for (encoder& e : encoders) e.portable = portable;
        size_t i = 0;
        failure f;
        (void)((f = fill<P>(args[i], encoders[i], std::forward<A>(a)), ++i, !f) && ...);
        if (__builtin_expect(static_cast<bool>(f), 0))
          return failure(f.code(), "argument " + std::to_string(i - 1) + ": " + f.message());
        return submit(args, sizeof...(P));
      }
    }
  }
};

// What a call gives its caller: a reference, or a stream.
template <class R, class... P>
struct answer_of {
  using shape = shape_of<R, P...>;
  template <class S, bool = S::is_stream>
  struct pick {
    using type = ref<stored_t<typename S::result>>;
  };
  template <class S>
  struct pick<S, true> {
    using type = stream<typename is_generator<typename S::result>::item>;
  };
  using type = typename pick<shape>::type;
  static constexpr bool is_stream = shape::is_stream;
};
template <class T>
struct refs_of;
template <class... T>
struct refs_of<std::tuple<T...>> {
  using type = std::tuple<ref<stored_t<T>>...>;
};
template <class Tuple, size_t... I>
Tuple adopt_each(ray_ref** refs, std::index_sequence<I...>) {
  return Tuple{std::tuple_element_t<I, Tuple>(refs[I])...};
}

}  // namespace detail

/// An argument of ray::submit: a value, or a reference whose value the function is to see.
class argument {
 public:
  template <class T, class = std::enable_if_t<!std::is_same_v<std::decay_t<T>, argument>>>
  argument(const T& value) {  // NOLINT: arguments are written as what they are
    if constexpr (detail::is_ref<T>::value) {
      ref_ = ref<void>(ray_ref_retain(value.raw()));
      if (!ref_) e_->fail(failure(RAY_INVALID_ARGUMENT, "an empty ray::ref"));
    } else {
      kept_ = std::make_shared<const detail::stored_t<T>>(value);
      detail::codec<detail::stored_t<T>>::encode(*e_, *static_cast<const detail::stored_t<T>*>(kept_.get()));
    }
  }
  const failure& problem() const { return e_->problem; }
  ray_arg raw() const {
    ray_arg a = RAY_ARG_INIT;
    if (ref_)
      a.ref = ref_.raw();
    else
      a.value = e_->view();
    return a;
  }

 private:
  ref<void> ref_;
  std::shared_ptr<const void> kept_;
  std::shared_ptr<detail::encoder> e_ = std::make_shared<detail::encoder>();  // copies of an argument share it
};

namespace detail {
// What ray::submit and actor_handle::submit have in common: send(const ray_arg*, size_t, options, refs, err) -> code.
template <class T, class Send>
result<std::vector<ref<T>>> submit_dynamic(const std::vector<argument>& args, uint32_t n, const task_options& o,
                                           Send send) {
  packed_options options(o);
  options.raw.num_returns = n;
  std::vector<ray_arg> raw;
  for (const argument& a : args) {
    if (a.problem()) return a.problem();
    raw.push_back(a.raw());
  }
  std::vector<ray_ref*> refs(n);
  ray_error* err = nullptr;
  ray_code code = send(raw.data(), raw.size(), &options.raw, refs.data(), &err);
  if (failure f = made(code, err)) return f;
  std::vector<ref<T>> out;
  for (ray_ref* r : refs) out.emplace_back(r);
  return out;
}
template <class T, class Send>
result<stream<T>> submit_dynamic_stream(const std::vector<argument>& args, const task_options& o, Send send) {
  ray_stream* s = nullptr;
  auto done = submit_dynamic<void>(
      args, 0, o, [&](const ray_arg* a, size_t n, const ray_task_options* raw, ray_ref**, ray_error** err) {
        return send(a, n, raw, &s, err);
      });
  if (!done) return done.error();
  return stream<T>(s);
}
}  // namespace detail

template <class Signature>
class remote_function;
/// A function that can be called in a worker. Cheap to copy; made by ray::task, ray::function,
/// ray::symbol, ray::library.
template <class R, class... P>
class remote_function<R(P...)> {
  using answer = detail::answer_of<R, P...>;

 public:
  using answer_type = typename answer::type;
  remote_function(detail::function_entry* entry, detail::function_ref handle, const task_options* options,
                  bool foreign = false)
      : entry_(entry), handle_(std::move(handle)), foreign_(foreign) {
    if (options) options_ = std::make_shared<detail::packed_options>(*options);
  }
  /// The same function with other options.
  remote_function with(const task_options& options) const {
    return remote_function(entry_, handle_, &options, foreign_);
  }

  /// Submits a call and returns at once. Arguments are values, or references: then the task waits
  /// for them and sees theirs.
  template <class... A>
  answer_type operator()(A&&... args) const {
    answer_type out;
    detail::raise_if(submit(out, std::forward<A>(args)...));
    return out;
  }
  /// The same without exceptions.
  template <class... A>
  result<answer_type> call_result(A&&... args) const {
    answer_type out;
    if (failure f = submit(out, std::forward<A>(args)...)) return f;
    return out;
  }
  /// Of a function that returns a std::tuple: a reference to each of its elements. auto [q, r] =
  /// ray::task(divide).split(7, 2);
  template <class... A>
  auto split(A&&... args) const {
    static_assert(detail::is_tuple<R>::value, "ray: split is for functions that return a std::tuple");
    using out_type = typename detail::refs_of<R>::type;
    constexpr size_t n = std::tuple_size_v<R>;
    ray_task_options o = options_ ? options_->raw : ray_task_options RAY_TASK_OPTIONS_INIT;
    o.num_returns = n;
    ray_ref* refs[n] = {};
    detail::raise_if(pack([&](ray_runtime* rt, ray_function* f, const ray_arg* a, size_t count,
                              ray_error** err) { return ray_submit(rt, f, a, count, &o, refs, err); },
                          std::forward<A>(args)...));
    return detail::adopt_each<out_type>(refs, std::make_index_sequence<n>());
  }

 private:
  template <class Call, class... A>
  failure pack(Call call, A&&... args) const {
    ray_runtime* rt = detail::runtime();
    if (__builtin_expect(!rt, 0)) return detail::not_started();
    ray_function* f = handle_.get();
    if (entry_)
      if (failure p = entry_->resolve(&f)) return p;
    return detail::packer_for<typename detail::shape_of<R, P...>::parameters>::pack(
        foreign_,
        [&](const ray_arg* a, size_t n) {
          ray_error* err = nullptr;
          ray_code code = call(rt, f, a, n, &err);
          return detail::made(code, err);
        },
        std::forward<A>(args)...);
  }
  template <class... A>
  failure submit(answer_type& out, A&&... args) const {
    const ray_task_options* o = options_ ? &options_->raw : nullptr;
    return pack(
        [&](ray_runtime* rt, ray_function* f, const ray_arg* a, size_t n, ray_error** err) {
          if constexpr (answer::is_stream) {
            ray_stream* s = nullptr;
            ray_code code = ray_submit_stream(rt, f, a, n, o, &s, err);
            if (code == RAY_OK) out = answer_type(s);
            return code;
          } else {
            ray_ref* r = nullptr;
            ray_code code = ray_submit(rt, f, a, n, o, &r, err);
            if (code == RAY_OK) out = answer_type(r);
            return code;
          }
        },
        std::forward<A>(args)...);
  }
  detail::function_entry* entry_;  // of this program's; null: handle_ is the function
  detail::function_ref handle_;
  bool foreign_;  // its language is another
  std::shared_ptr<const detail::packed_options> options_;
};

template <class T>
result<std::vector<ref<T>>> submit_result(void (*f)(call&), const std::vector<argument>& args, uint32_t num_returns = 1,
                                          const task_options& options = {});
/// Calls a function of any arguments and results: auto refs = ray::submit<int>(f, {1, "text", some_ref}, 3).
template <class T>
std::vector<ref<T>> submit(void (*f)(call&), const std::vector<argument>& args, uint32_t num_returns = 1,
                           const task_options& options = {}) {
  return submit_result<T>(f, args, num_returns, options).value();
}

namespace detail {
template <class R, class... P>
function_entry* find_function(plain<R, P...> f) {
  for (const auto& [address, entry] : functions_of<plain<R, P...>>())
    if (address == f) return entry;
  return nullptr;
}
inline failure not_registered() {
  return failure(RAY_INVALID_ARGUMENT,
                 "this function is not registered: write RAY_REMOTE(name) beside it, at namespace scope");
}
}  // namespace detail

/// ray::task(square)(12) calls a function of RAY_REMOTE in a worker and returns a ray::ref to its
/// result (of a generator, a ray::stream).
template <class R, class... P>
remote_function<R(P...)> task(R (*f)(P...)) {
  detail::function_entry* entry = detail::find_function<R, P...>(f);
  if (__builtin_expect(!entry, 0)) detail::raise(detail::not_registered());
  return remote_function<R(P...)>(entry, {}, nullptr);
}
/// ray::task(square, {.max_retries = 0})(12).
template <class R, class... P>
remote_function<R(P...)> task(R (*f)(P...), const task_options& options) {
  return task(f).with(options);
}
template <class R, class... P>
result<remote_function<R(P...)>> task_result(R (*f)(P...), const task_options& options = {}) {
  detail::function_entry* entry = detail::find_function<R, P...>(f);
  if (!entry) return detail::not_registered();
  return remote_function<R(P...)>(entry, {}, &options);
}

namespace detail {
inline failure resolve_dynamic(void (*f)(call&), ray_runtime** rt, ray_function** out) {
  function_entry* e = find_function<void, call&>(f);
  if (!e) return not_registered();
  *rt = runtime();
  return *rt ? e->resolve(out) : not_started();
}
}  // namespace detail
template <class T>
result<std::vector<ref<T>>> submit_result(void (*f)(call&), const std::vector<argument>& args, uint32_t num_returns,
                                          const task_options& options) {
  ray_runtime* rt = nullptr;
  ray_function* fn = nullptr;
  if (failure p = detail::resolve_dynamic(f, &rt, &fn)) return p;
  return detail::submit_dynamic<T>(args, num_returns, options,
                                   [&](const ray_arg* a, size_t n, const ray_task_options* o, ray_ref** refs,
                                       ray_error** err) { return ray_submit(rt, fn, a, n, o, refs, err); });
}
/// The same for a function that yields.
template <class T>
result<stream<T>> submit_stream_result(void (*f)(call&), const std::vector<argument>& args,
                                       const task_options& options = {}) {
  ray_runtime* rt = nullptr;
  ray_function* fn = nullptr;
  if (failure p = detail::resolve_dynamic(f, &rt, &fn)) return p;
  return detail::submit_dynamic_stream<T>(
      args, options, [&](const ray_arg* a, size_t n, const ray_task_options* o, ray_stream** s, ray_error** err) {
        return ray_submit_stream(rt, fn, a, n, o, s, err);
      });
}
template <class T>
stream<T> submit_stream(void (*f)(call&), const std::vector<argument>& args, const task_options& options = {}) {
  return submit_stream_result<T>(f, args, options).value();
}

/// A function or class of any language by its name, for calls of any arguments and results:
/// ray::submit_result<int>(ray::named{ray::language::python, "module", "f"}, {1, "text"}, 2).
struct named {
  language where;
  std::string container;  ///< module, Java class; empty of Rust and native code
  std::string name;
};
namespace detail {
inline failure resolve_named(const named& which, function_ref* out) {
  ray_function* f = nullptr;
  failure p = with_runtime([&](ray_runtime* rt, ray_error** err) {
    return ray_function_named(rt, static_cast<int32_t>(which.where), str(which.container), str(which.name), &f, err);
  });
  *out = function_ref(f);
  return p;
}
}  // namespace detail
template <class T>
result<std::vector<ref<T>>> submit_result(const named& which, const std::vector<argument>& args,
                                          uint32_t num_returns = 1, const task_options& options = {}) {
  detail::function_ref fn;
  if (failure p = detail::resolve_named(which, &fn)) return p;
  return detail::submit_dynamic<T>(
      args, num_returns, options,
      [&](const ray_arg* a, size_t n, const ray_task_options* o, ray_ref** refs, ray_error** err) {
        return ray_submit(detail::runtime(), fn.get(), a, n, o, refs, err);
      });
}
template <class T>
result<stream<T>> submit_stream_result(const named& which, const std::vector<argument>& args,
                                       const task_options& options = {}) {
  detail::function_ref fn;
  if (failure p = detail::resolve_named(which, &fn)) return p;
  return detail::submit_dynamic_stream<T>(
      args, options, [&](const ray_arg* a, size_t n, const ray_task_options* o, ray_stream** s, ray_error** err) {
        return ray_submit_stream(detail::runtime(), fn.get(), a, n, o, s, err);
      });
}

/// A function of another language by its name:
/// ray::function<double(std::vector<double>)>(ray::language::python, "statistics", "mean").
/// Container: module, Java class; empty for Rust. The types are yours to say; a wrong one is an
/// error of the task.
template <class Signature>
remote_function<Signature> function(language where, std::string_view container, std::string_view name) {
  ray_function* f = nullptr;
  detail::raise_if(detail::with_runtime([&](ray_runtime* rt, ray_error** err) {
    return ray_function_named(rt, static_cast<int32_t>(where), detail::str(container), detail::str(name), &f, err);
  }));
  return remote_function<Signature>(nullptr, detail::function_ref(f), nullptr, where != language::native);
}
/// A native function of another program, or of C, by its name:
/// ray::function<double(double)>("simulate"). The types are yours to say; a wrong one is an error
/// of the task.
template <class Signature>
remote_function<Signature> function(std::string_view name) {
  ray_function* f = nullptr;
  detail::raise_if(detail::with_runtime(
      [&](ray_runtime* rt, ray_error** err) { return ray_function_get(rt, detail::str(name), &f, err); }));
  return remote_function<Signature>(nullptr, detail::function_ref(f), nullptr);
}
/// A function that a shared library registers (RAY_REMOTE and RAY_MODULE there, or ray.h's own
/// way).
template <class Signature>
remote_function<Signature> library(std::string_view name, std::string_view path) {
  ray_function* f = nullptr;
  detail::raise_if(detail::with_runtime([&](ray_runtime* rt, ray_error** err) {
    return ray_define_library(rt, detail::str(name), detail::str(path), &f, err);
  }));
  return remote_function<Signature>(nullptr, detail::function_ref(f), nullptr);
}

namespace detail {
template <class T>
const char* c_type() {
  if constexpr (std::is_void_v<T>)
    return "void";
  else if constexpr (std::is_same_v<T, bool>)
    return "bool";
  else if constexpr (std::is_floating_point_v<T>)
    return sizeof(T) == 4 ? "f32" : "f64";
  else if constexpr (is_text<T> || std::is_same_v<T, const char*>)
    return "str";
  else {
    static_assert(std::is_integral_v<T>, "ray: a C function takes and gives numbers and texts");
    constexpr const char* names[2][4] = {{"u8", "u16", "u32", "u64"}, {"i8", "i16", "i32", "i64"}};
    return names[std::is_signed_v<T>][sizeof(T) == 1 ? 0 : sizeof(T) == 2 ? 1 : sizeof(T) == 4 ? 2 : 3];
  }
}
template <class S>
struct c_signature;
template <class R, class... P>
struct c_signature<R(P...)> {
  static std::string text() {
    std::string out = std::string(c_type<R>()) + "(";
    ((out += c_type<decayed<P>>(), out += ","), ...);
    if (sizeof...(P)) out.pop_back();
    return out + ")";
  }
};
}  // namespace detail

/// Any C function as a task, without a line of code at its side: ray::symbol<double(double,
/// double)>("pow", "libm.so.6").
template <class Signature>
remote_function<Signature> symbol(std::string_view name, std::string_view library = {}) {
  ray_function* f = nullptr;
  const std::string types = detail::c_signature<Signature>::text();
  detail::raise_if(detail::with_runtime([&](ray_runtime* rt, ray_error** err) {
    return ray_define_symbol(rt, detail::str(name), detail::str(library), detail::str(name), detail::str(types), &f,
                             err);
  }));
  return remote_function<Signature>(nullptr, detail::function_ref(f), nullptr);
}

}  // namespace ray
