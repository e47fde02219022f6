// base.hpp -- part of ray.hpp: what the others stand on. The ways of this compiler, counted
// handles, time limits, ids.
//
// Thread: any, like ray.h. Invariant of a handle: it holds one count of its C handle, or null.
#pragma once
#include <ray.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#if __has_include(<span>) && __cplusplus >= 202002L
#include <span>
#define RAY_HAS_SPAN 1
#endif
#if defined(__cpp_impl_coroutine) && __has_include(<coroutine>)
#include <coroutine>
#define RAY_HAS_COROUTINES 1
#endif
#if defined(__cpp_exceptions)
#define RAY_HAS_EXCEPTIONS 1
#define RAY_TRY_BLOCK try
#define RAY_CATCH(what) catch (what)
#else
// Without exceptions a function that would throw prints its message and ends the program: use the
// forms that return a ray::result (get_result, call_result and so on).
#define RAY_TRY_BLOCK if (true)
#define RAY_CATCH(what) if (false)
#endif

namespace ray {

/// How long a call may wait: any duration of std::chrono; ray::forever is the default everywhere.
/// Negative ones count as 0.
struct timeout {
  int64_t ns = -1;
  constexpr timeout() = default;
  template <class Rep, class Period>
  constexpr timeout(std::chrono::duration<Rep, Period> d)  // NOLINT: a duration is what it is made of
      : ns(nanoseconds(d)) {}

 private:
  template <class Rep, class Period>
  static constexpr int64_t nanoseconds(std::chrono::duration<Rep, Period> d) {
    if (d <= d.zero()) return 0;
    // What no int64_t holds is for ever, as far as anybody can tell.
    using seconds = std::chrono::duration<double>;
    if (std::chrono::duration_cast<seconds>(d).count() > 9.2e9) return -1;
    return std::chrono::duration_cast<std::chrono::nanoseconds>(d).count();
  }
};
inline constexpr timeout forever{};

/// Id of a task, object, actor, node, job or placement group: a plain value.
struct id {
  ray_id raw{};
  std::string hex() const {
    char text[2 * RAY_ID_SIZE + 1];
    ray_id_to_hex(&raw, text);
    return text;
  }
  explicit operator bool() const { return *this != id{}; }
  friend bool operator==(const id& a, const id& b) { return std::memcmp(&a.raw, &b.raw, sizeof a.raw) == 0; }
  friend bool operator!=(const id& a, const id& b) { return !(a == b); }
  friend bool operator<(const id& a, const id& b) { return std::memcmp(&a.raw, &b.raw, sizeof a.raw) < 0; }
};

/// Amounts of resources by name: {{"CPU", 2}, {"GPU", 0.5}}.
using resources = std::map<std::string, double>;

namespace detail {

inline ray_str str(std::string_view s) { return ray_str{s.data(), s.size()}; }
inline std::string_view view(ray_str s) { return s.data ? std::string_view(s.data, s.size) : std::string_view(); }
inline std::string_view view(ray_bytes b) {
  return b.data ? std::string_view(static_cast<const char*>(b.data), b.size) : std::string_view();
}

// One count of a C handle: a copy is one more.
template <class H, H* (*Retain)(H*), void (*Release)(H*)>
class handle {
 public:
  handle() = default;
  explicit handle(H* h) noexcept : h_(h) {}
  handle(const handle& o) noexcept : h_(o.h_ ? Retain(o.h_) : nullptr) {}
  handle(handle&& o) noexcept : h_(std::exchange(o.h_, nullptr)) {}
  handle& operator=(handle o) noexcept {
    std::swap(h_, o.h_);
    return *this;
  }
  ~handle() {
    if (h_) Release(h_);
  }
  H* get() const noexcept { return h_; }
  H* release() noexcept { return std::exchange(h_, nullptr); }
  explicit operator bool() const noexcept { return h_ != nullptr; }

 private:
  H* h_ = nullptr;
};
using ref_handle = handle<ray_ref, ray_ref_retain, ray_ref_release>;
using actor_ref = handle<ray_actor, ray_actor_retain, ray_actor_release>;
using stream_ref = handle<ray_stream, ray_stream_retain, ray_stream_release>;
using function_ref = handle<ray_function, ray_function_retain, ray_function_release>;
using error_ref = handle<ray_error, ray_error_retain, ray_error_release>;

template <class T>
using decayed = std::remove_cv_t<std::remove_reference_t<T>>;
template <class>
inline constexpr bool never = false;  // for static_asserts that depend on a type

}  // namespace detail
}  // namespace ray
