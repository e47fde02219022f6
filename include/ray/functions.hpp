// functions.hpp -- part of ray.hpp: RAY_REMOTE, and what runs a registered function in a worker:
// arguments come out of values, results go into them, and whatever the function throws becomes the
// error of its task.
//
// Thread: registration happens before main (or when a shared library is loaded), calls from any
// thread, functions run on the thread that serves this worker. Invariant: nothing is thrown through
// ray.h.
#pragma once
#include <cxxabi.h>
#include <unistd.h>

#include <exception>

#include "refs.hpp"

namespace ray {

class call;
template <class T>
class sink;
template <class T>
class generator;
template <class T>
class array_builder;

/// What the task that runs on this thread can ask and say.
namespace this_task {
/// Whether it is to end: ask in long loops.
inline bool is_cancelled() { return detail::t_task && ray_task_is_cancelled(detail::t_task); }
/// Throws ray::cancelled if it is: for loops that have nothing to tidy up.
inline void check_cancelled() {
  if (is_cancelled()) detail::raise(failure(RAY_CANCELLED, "the task was cancelled"));
}
/// Which execution this is: 1 is the first.
inline uint32_t attempt() {
  ray_task_info info = RAY_TASK_INFO_INIT;
  return ray_task_get_info(detail::t_task, &info) == RAY_OK ? info.attempt : 0;
}
/// Name in options, or the function's.
inline std::string name() {
  ray_task_info info = RAY_TASK_INFO_INIT;
  return ray_task_get_info(detail::t_task, &info) == RAY_OK ? std::string(detail::view(info.name)) : std::string();
}
/// A failure from now on is final, also with task_options::retry_on_error.
inline void no_retry() { (void)ray_task_no_retry(detail::t_task); }
/// Numbers of the accelerators ("GPU", "TPU", ...) that are this task's own.
inline std::vector<uint32_t> accelerators(std::string_view resource = "GPU") {
  std::vector<uint32_t> ids(ray_task_accelerators(detail::t_task, detail::str(resource), nullptr, 0));
  (void)ray_task_accelerators(detail::t_task, detail::str(resource), ids.data(), ids.size());
  return ids;
}
/// The task of ray.h; null outside of one.
inline ray_task* raw() { return detail::t_task; }
}  // namespace this_task

namespace detail {

struct function_entry : registration {
  ray_task_fn run = nullptr;
  std::atomic<uint64_t> epoch{0};
  std::atomic<ray_function*> handle{nullptr};

  // The handle in the runtime that there is now.
  failure resolve(ray_function** out) {
    if (__builtin_expect(epoch.load(std::memory_order_acquire) == process_state::epoch.load(std::memory_order_relaxed),
                         1) &&
        (*out = handle.load(std::memory_order_relaxed)))
      return {};
    return resolve_slowly(out);
  }

 private:
  failure resolve_slowly(ray_function** out) {
    ray_function* f = nullptr;
    const uint64_t now = process_state::epoch;
    if (failure p =
            with_runtime([&](ray_runtime* rt, ray_error** err) { return ray_function_get(rt, str(name), &f, err); }))
      return p;
    // The one before is of a runtime that has ended, or the same function found by two threads: its
    // count is kept, for somebody may be about to use it.
    handle.store(f, std::memory_order_relaxed);
    epoch.store(now, std::memory_order_release);
    *out = f;
    return {};
  }
};

// ---- what a function is made of

template <class T>
struct is_sink : std::false_type {};
template <class T>
struct is_sink<sink<T>> : std::true_type {
  using item = T;
};
template <class T>
struct is_generator : std::false_type {};
template <class T>
struct is_generator<generator<T>> : std::true_type {
  using item = T;
};
template <class T>
struct is_builder : std::false_type {};
template <class T>
struct is_builder<array_builder<T>> : std::true_type {
  using item = T;
};
template <class T>
struct stored<array_builder<T>> {
  using type = array<T>;
};
template <class T>
struct is_tuple : std::false_type {};
template <class... T>
struct is_tuple<std::tuple<T...>> : std::true_type {};

template <class R, class... P>
struct shape_of {  // an ordinary function
  static constexpr bool is_stream = is_generator<R>::value;
  static constexpr bool has_sink = false;
  using parameters = std::tuple<P...>;
  using result = R;
};
template <class R, class T, class... P>
struct shape_of<R, sink<T>, P...> {  // void f(ray::sink<T>, ...)
  static_assert(std::is_void_v<R>, "ray: a function that takes a ray::sink returns void");
  static constexpr bool is_stream = true;
  static constexpr bool has_sink = true;
  using parameters = std::tuple<P...>;
  using result = generator<T>;
};

// void f(ray::call&): any arguments and results.
template <class... P>
struct is_dynamic : std::false_type {};
template <>
struct is_dynamic<call&> : std::true_type {};

template <class P>
constexpr bool good_parameter() {
  static_assert(!std::is_lvalue_reference_v<P> || std::is_const_v<std::remove_reference_t<P>>,
                "ray: a parameter of a remote function is a copy: take a value or a const reference");
  static_assert(!std::is_pointer_v<decayed<P>>, "ray: a pointer means nothing in another process: take a value");
  return true;
}

// ---- what went wrong in a function

inline std::string readable(const char* mangled) {
  int status = 0;
  std::unique_ptr<char, void (*)(void*)> name(abi::__cxa_demangle(mangled, nullptr, nullptr, &status), std::free);
  return status == 0 && name ? name.get() : mangled;
}
// Ends the task as failed: the text for people, the parts for programs.
// `cause`: such a map of the error that caused it, or empty.
inline ray_code fail_task(ray_task* task, const registration& where, const std::string& type,
                          const std::string& message, ray_code code, std::string_view cause = {}) {
  bytes_out payload;
  pack_map(payload, 6 + !cause.empty());
  const std::string& title = where.title.empty() ? where.name : where.title;
  const std::string place = where.place + ", pid " + std::to_string(::getpid());
  const std::pair<const char*, std::string_view> parts[] = {
      {"language", "native"}, {"type", type}, {"message", message}, {"function", title}, {"place", place}};
  for (const auto& [key, text] : parts) {
    pack_text(payload, key);
    pack_text(payload, text);
  }
  pack_text(payload, "pid");
  pack_signed(payload, ::getpid());
  if (!cause.empty()) pack_text(payload, "cause");
  payload.write(cause.data(), cause.size());
  ray_value v = ray_plain(payload.data(), payload.size(), RAY_FMT_MSGPACK);
  const std::string text = type + ": " + message + " (C++ function " + title + " of " + where.place + ")";
  (void)ray_task_fail(task, str(text), &v);
  return code;
}
inline ray_code fail_task(ray_task* task, const registration& where, const failure& f) {
  const bool of_a_call = f.code() == RAY_CANCELLED || f.code() == RAY_OUT_OF_MEMORY || f.code() >= RAY_TASK_FAILED;
  return fail_task(task, where, is_wrong_type(f) ? std::string("ray::wrong_type") : f.name(), f.message(),
                   of_a_call ? f.code() : RAY_TASK_FAILED);
}

#if defined(RAY_HAS_EXCEPTIONS)
inline std::string what_of(const std::exception& e) {
  std::string text = e.what();
  try {
    std::rethrow_if_nested(e);
  } catch (const std::exception& cause) {
    text += "; caused by " + readable(typeid(cause).name()) + ": " + what_of(cause);
  } catch (...) {
    text += "; caused by something that is no std::exception";
  }
  return text;
}
// Of the exception that is being handled. What a cancelled wait threw is the cancellation.
inline ray_code fail_with_exception(ray_task* task, const registration& where) {
  const std::type_info* type = abi::__cxa_current_exception_type();
  const std::string name = type ? readable(type->name()) : "foreign exception";
  try {
    throw;
  } catch (const error& e) {
    uint32_t format = 0;
    const std::string_view payload = e.details().payload(&format);
    const bool is_map = format == RAY_FMT_MSGPACK && cursor(payload).next().what == kind::map;
    const bool ended = e.code() == RAY_CANCELLED && ray_task_is_cancelled(task);
    return fail_task(task, where, name, e.what(), ended ? RAY_CANCELLED : RAY_TASK_FAILED,
                     is_map ? payload : std::string_view());
  } catch (const std::exception& e) {
    return fail_task(task, where, name, what_of(e), RAY_TASK_FAILED);
  } catch (const std::string& text) {
    return fail_task(task, where, name, text, RAY_TASK_FAILED);
  } catch (const char* text) {
    return fail_task(task, where, name, text ? text : "(null)", RAY_TASK_FAILED);
  } catch (int number) {
    return fail_task(task, where, name, std::to_string(number), RAY_TASK_FAILED);
  } catch (abi::__forced_unwind&) {
    throw;  // the thread is being ended: not ours to stop
  } catch (...) {
    return fail_task(task, where, name, "an exception that is no std::exception", RAY_TASK_FAILED);
  }
}
#endif

// Runs `body`, which answers with a failure, as the task.
template <class Body>
ray_code run_guarded(ray_task* task, const registration& where, Body body) {
  scoped<ray_task> scope(t_task, task);
  if (__builtin_expect(!runtime(), 0)) adopt(ray_task_runtime(task), false);  // a library in somebody else's worker
#if defined(RAY_HAS_EXCEPTIONS)
  try {
    failure f = body();
    return __builtin_expect(static_cast<bool>(f), 0) ? fail_task(task, where, f) : RAY_OK;
  } catch (...) {
    return fail_with_exception(task, where);
  }
#else
  failure f = body();
  return f ? fail_task(task, where, f) : RAY_OK;
#endif
}

// ---- results

template <class T>
struct is_vector : std::false_type {};
template <class T>
struct is_vector<std::vector<T>> : std::true_type {};
// Asked only where it makes a difference.
template <class T>
bool caller_is_foreign(ray_task* task) {
  if constexpr (!is_vector<T>::value) return false;
  ray_task_info info = RAY_TASK_INFO_INIT;
  return ray_task_get_info(task, &info) == RAY_OK && info.caller_language != RAY_LANG_NATIVE;
}
template <class T>
failure give(ray_task* task, uint32_t index, const T& value) {
  encoder e;
  e.portable = caller_is_foreign<T>(task);
  codec<T>::encode(e, value);
  if (e.problem) return e.problem;
  ray_value v = e.view();
  ray_error* err = nullptr;
  ray_code code = ray_task_return(task, index, &v, &err);
  return made(code, err);
}
template <class Tuple, size_t... I>
failure give_each(ray_task* task, const Tuple& values, std::index_sequence<I...>) {
  failure f;
  (void)((f = give(task, I, std::get<I>(values)), !f) && ...);
  return f;
}
// A tuple is one value, or as many as the caller asked for.
template <class R>
failure give_result(ray_task* task, R&& value) {
  using T = decayed<R>;
  if constexpr (is_builder<T>::value) {
    return value.finish();
  } else if constexpr (is_tuple<T>::value) {
    ray_task_info info = RAY_TASK_INFO_INIT;
    (void)ray_task_get_info(task, &info);
    constexpr size_t n = std::tuple_size_v<T>;
    if (n > 1 && info.num_returns == n) return give_each(task, value, std::make_index_sequence<n>());
    return give(task, 0, value);
  } else {
    return give(task, 0, value);
  }
}

// One item of a stream. RAY_CANCELLED: nobody wants more.
template <class T>
failure yield_item(ray_task* task, const T& value) {
  encoder e;
  e.portable = caller_is_foreign<T>(task);
  codec<T>::encode(e, value);
  if (e.problem) return e.problem;
  ray_value v = e.view();
  ray_error* err = nullptr;
  ray_code code = ray_task_yield(task, &v, -1, &err);
  return made(code, err);
}

// ---- calling

// The arguments of a task as the function's parameters; they live as long as this does.
template <class... P>
class arguments {
 public:
  explicit arguments(ray_task* task) : task_(task) {}
  failure read() {
    const ray_buffer* args = nullptr;
    const size_t n = ray_task_args(task_, &args);
    if (n != sizeof...(P))
      return of_wrong_type(std::to_string(sizeof...(P)) + " arguments are expected and " + std::to_string(n) +
                           " were given");
    return read_each(args, std::index_sequence_for<P...>());
  }
  // f(parameters...)
  template <class F>
  decltype(auto) apply(F&& f) {
    return call(std::forward<F>(f), std::index_sequence_for<P...>());
  }

 private:
  template <size_t... I>
  failure read_each(const ray_buffer* args, std::index_sequence<I...>) {
    (void)args;
    failure f;
    (void)((f = read_one<I>(args), !f) && ...);
    return f;
  }
  template <size_t I>
  failure read_one(const ray_buffer* args) {
    auto& s = std::get<I>(sources_).emplace(args, task_, I);
    auto& slot = std::get<I>(values_);
    failure f = codec<typename std::decay_t<decltype(slot)>::value_type>::decode(s, slot);
    if (f && f.code() == RAY_INVALID_ARGUMENT)
      return of_wrong_type("argument " + std::to_string(I) + ": " + without_prefix(f));
    return f;
  }
  template <class F, size_t... I>
  decltype(auto) call(F&& f, std::index_sequence<I...>) {
    return std::forward<F>(f)(static_cast<P&&>(*std::get<I>(values_))...);
  }
  template <class>
  using source_for = std::optional<source>;
  ray_task* task_;
  std::tuple<source_for<P>...> sources_;
  std::tuple<std::optional<decayed<P>>...> values_;
};

template <class T>
failure drive(ray_task* task, generator<T> g);  // streams.hpp
template <class R, class Call>
failure call_and_give(ray_task* task, Call call) {
  if constexpr (is_generator<R>::value)
    return drive(task, call());
  else if constexpr (std::is_void_v<R>)
    return call(), failure();
  else
    return give_result(task, call());
}

// Runs f(parameters...), where `f` has the signature R(P...).
template <class R, class... P>
struct invoker {
  template <class F>
  static failure run(ray_task* task, F&& f) {
    static_assert((good_parameter<P>() && ...));
    arguments<P...> a(task);
    if (failure p = a.read()) return p;
    return call_and_give<R>(task, [&]() -> R { return a.apply(f); });
  }
};
template <class R, class T, class... P>
struct invoker<R, sink<T>, P...> {
  template <class F>
  static failure run(ray_task* task, F&& f) {
    static_assert((good_parameter<P>() && ...));
    arguments<P...> a(task);
    if (failure p = a.read()) return p;
    sink<T> out(task);
    a.apply([&](auto&&... p) { f(out, static_cast<decltype(p)>(p)...); });
    return out.status();
  }
};

}  // namespace detail

/// For functions that take any number of arguments and give any number of results: void f(ray::call& c). Callers use
/// ray::submit, or call it by name from another language.
class call {
 public:
  explicit call(ray_task* task) : task_(task) {
    (void)ray_task_get_info(task, &info_);
    n_ = ray_task_args(task, &args_);
    sources_.resize(n_);
  }
  /// Number of arguments.
  size_t size() const { return n_; }
  /// Argument i as a T. Throws ray::wrong_type. A view is valid as long as this object.
  template <class T>
  T arg(size_t i) {
    if (i >= n_) detail::raise(failure(RAY_INVALID_ARGUMENT, "there is no argument " + std::to_string(i)));
    if (!sources_[i]) sources_[i].emplace(args_, task_, i);
    std::optional<T> out;
    detail::raise_if(detail::codec<T>::decode(*sources_[i], out));
    return std::move(*out);
  }
  /// How many results the caller takes.
  uint32_t num_returns() const { return info_.num_returns; }
  /// Whether the caller takes a stream: then the results are those of yield.
  bool is_stream() const { return info_.is_stream; }
  /// Gives result i; those that are not given are nil.
  template <class T>
  void give(uint32_t i, const T& value) {
    detail::raise_if(detail::give(task_, i, value));
  }
  /// Result i is an error of its own.
  void give_error(uint32_t i, std::string_view message, ray_code code = RAY_TASK_FAILED) {
    ray_error* err = nullptr;
    ray_code done = ray_task_return_error(task_, i, code, detail::str(message), nullptr, &err);
    detail::raise_if(detail::made(done, err));
  }
  /// The next item of the stream; false: nobody wants more.
  template <class T>
  bool yield(const T& item) {
    failure f = detail::yield_item(task_, item);
    if (f.code() == RAY_CANCELLED) return false;
    detail::raise_if(std::move(f));
    return true;
  }

 private:
  ray_task* task_;
  ray_task_info info_ = RAY_TASK_INFO_INIT;
  const ray_buffer* args_ = nullptr;
  size_t n_ = 0;
  std::vector<std::optional<detail::source>> sources_;
};

namespace detail {

template <>
struct invoker<void, call&> {
  template <class F>
  static failure run(ray_task* task, F&& f) {
    call c(task);
    f(c);
    return {};
  }
};

// ---- registration

// "a::f, &C::g<int, 2>" cut at the commas that are not inside of brackets; without & and blanks at
// the ends.
inline std::vector<std::string> split_names(std::string_view text) {
  std::vector<std::string> out;
  int depth = 0;
  size_t from = 0;
  for (size_t i = 0; i <= text.size(); ++i) {
    const char c = i < text.size() ? text[i] : ',';
    if (c == '(' || c == '<' || c == '[') ++depth;
    if (c == ')' || c == '>' || c == ']') --depth;
    if (c != ',' || (depth > 0 && i < text.size())) continue;
    std::string_view name = text.substr(from, i - from);
    const size_t first = name.find_first_not_of(" &\t\n"), last = name.find_last_not_of(" \t\n");
    if (first != std::string_view::npos) out.emplace_back(name.substr(first, last - first + 1));
    from = i + 1;
  }
  return out;
}
inline std::string place_of(const char* file, int line) {
  const std::string_view path(file);
  const size_t slash = path.rfind('/');
  return std::string(slash == std::string_view::npos ? path : path.substr(slash + 1)) + ":" + std::to_string(line);
}
// Remembers what ray::init is to announce. The same thing twice (a macro in a header) is once.
inline void remember(registration* r, std::string name, const char* file, int line) {
  process_state& p = process();
  std::lock_guard<std::mutex> lock(p.mutex);
  if (!r->name.empty()) return;
  r->name = std::move(name);
  r->place = place_of(file, line);
  p.registrations.push_back(r);
}

template <class R, class... P>
using plain = R (*)(P...);

// The registered functions of one signature, by address.
template <class F>
std::vector<std::pair<F, function_entry*>>& functions_of() {
  static std::vector<std::pair<F, function_entry*>> table;
  return table;
}
inline failure announce_function(registration* r) {
  auto* e = static_cast<function_entry*>(r);
  ray_error* err = nullptr;
  ray_code code = ray_register_function(str(e->name), e->run, e, &err);
  return made(code, err);
}

template <auto F, class T = decltype(F)>
struct function_of;
template <auto F, class R, class... P>
struct function_of<F, R (*)(P...)> {
  using pointer = plain<R, P...>;
  static function_entry& entry() {
    static function_entry e;
    return e;
  }
  static ray_code run(ray_task* task, void* user) {
    return run_guarded(task, *static_cast<function_entry*>(user), [&] { return invoker<R, P...>::run(task, F); });
  }
};
template <auto F, class R, class... P>
struct function_of<F, R (*)(P...) noexcept> : function_of<F, R (*)(P...)> {};

template <auto F>
void register_one(const std::string& name, const char* file, int line) {
  using of = function_of<F>;
  function_entry& e = of::entry();
  e.run = of::run;
  e.announce = announce_function;
  remember(&e, name, file, line);
  functions_of<typename of::pointer>().emplace_back(F, &e);
}
template <auto... F>
bool register_functions(std::string_view names, const char* file, int line) {
  const std::vector<std::string> each = split_names(names);
  size_t i = 0;
  (register_one<F>(i < each.size() ? each[i++] : std::string(), file, line), ...);
  return true;
}

}  // namespace detail
}  // namespace ray

#define RAY_CONCAT_2(a, b) a##b
#define RAY_CONCAT(a, b) RAY_CONCAT_2(a, b)
#define RAY_ONCE(name) [[maybe_unused]] static const bool RAY_CONCAT(name, __COUNTER__)

/// RAY_REMOTE(square, geometry::area): these functions can be called by ray::task. At namespace
/// scope, once each, under the names that are written here; parameters and results are values (see
/// values.hpp), taken by value or const reference.
#define RAY_REMOTE(...) \
  RAY_ONCE(ray_remote_) = ::ray::detail::register_functions<__VA_ARGS__>(#__VA_ARGS__, __FILE__, __LINE__)
/// RAY_REMOTE_AS("area", static_cast<double (*)(circle)>(area)): one function, under a name of its
/// own.
#define RAY_REMOTE_AS(name, ...) \
  RAY_ONCE(ray_remote_) = (::ray::detail::register_one<__VA_ARGS__>(name, __FILE__, __LINE__), true)
/// In a shared library whose functions are given to ray::library: makes what it registers known to
/// workers.
#define RAY_MODULE()                                                                                              \
  extern "C" __attribute__((visibility("default"))) void ray_module_init(void) {                                  \
    if (::ray::failure f = ::ray::detail::announce_all()) std::fprintf(stderr, "ray: %s\n", f.message().c_str()); \
  }                                                                                                               \
  static_assert(true, "")
