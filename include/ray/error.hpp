// error.hpp -- part of ray.hpp: what went wrong. A `failure` is the value, an `error` the exception
// that carries it, a `result<T>` a value or a failure.
//
// Thread: any; a failure is immutable and counted.
#pragma once
#include <stdexcept>
#include <variant>

#include "packing.hpp"

namespace ray {

/// What went wrong: a code of ray.h and a message for people. Of a task that failed also what its
/// function threw.
class failure {
 public:
  failure() = default;
  failure(ray_code code, std::string text) : code_(code), text_(std::make_shared<const std::string>(std::move(text))) {}
  /// Takes over a count of `error`, which may be null.
  failure(ray_code code, ray_error* error) : code_(code), error_(error) {}

  /// RAY_OK of a failure that is none.
  ray_code code() const noexcept { return code_; }
  /// "RAY_OBJECT_LOST".
  const char* name() const noexcept { return ray_code_name(code_); }
  /// Whether the same call may succeed later.
  bool retryable() const noexcept { return ray_code_is_retryable(code_); }
  /// One line that names what failed and the remedy.
  std::string message() const {
    if (text_) return *text_;
    if (error_) return std::string(detail::view(ray_error_message(error_.get())));
    return ray_code_name(code_);
  }
  /// Whether there is something wrong.
  explicit operator bool() const noexcept { return code_ != RAY_OK; }

  /// What a function threw, where its language said so; each is empty where it did not.
  /// The exception's own text, without the words of the runtime around it.
  std::string remote_message() const { return detail_of("message"); }
  /// Type of the exception: "std::out_of_range", "int".
  std::string type_name() const { return detail_of("type"); }
  /// Name of the function or method that threw.
  std::string function() const { return detail_of("function"); }
  /// Where that is: "counter.cc:17, pid 4711".
  std::string place() const { return detail_of("place"); }
  /// Language of that function: "native" (C and C++), "python", "java", "rust".
  std::string language() const { return detail_of("language"); }
  /// Its stack trace, where there is one.
  std::string stack() const { return detail_of("stack"); }
  /// The exception as the failing function's language wrote it down, and the format of that
  /// (RAY_FMT_*).
  std::string_view payload(uint32_t* format = nullptr) const {
    if (format) *format = RAY_FMT_RAW;
    return error_ ? detail::view(ray_error_payload(error_.get(), format)) : std::string_view();
  }
  /// The error of ray.h, borrowed; null for one that this header found.
  ray_error* raw() const noexcept { return error_.get(); }

 private:
  std::string detail_of(std::string_view key) const {
    uint32_t format = 0;
    std::string_view bytes = payload(&format);
    return format == RAY_FMT_MSGPACK ? detail::text_in_map(bytes, key) : std::string();
  }
  ray_code code_ = RAY_OK;
  detail::error_ref error_;
  std::shared_ptr<const std::string> text_;
};

/// Base of all exceptions of libray.
class error : public std::runtime_error {
 public:
  explicit error(failure f) : std::runtime_error(f.message()), failure_(std::move(f)) {}
  ray_code code() const noexcept { return failure_.code(); }
  bool retryable() const noexcept { return failure_.retryable(); }
  const failure& details() const noexcept { return failure_; }

 private:
  failure failure_;
};

/// The function of a task or of an actor's call threw.
class task_error : public error {
 public:
  using error::error;
  /// See the methods of the same names of ray::failure.
  std::string remote_message() const { return details().remote_message(); }
  std::string type_name() const { return details().type_name(); }
  std::string function() const { return details().function(); }
  std::string place() const { return details().place(); }
  std::string language() const { return details().language(); }
  std::string stack() const { return details().stack(); }
};
/// The worker died while it ran the task, and no retry was left.
class worker_crashed : public error {
  using error::error;
};
/// What has to do with an actor's life.
class actor_error : public error {
  using error::error;
};
/// The actor is gone for good; details() may hold what its constructor threw.
class actor_died : public actor_error {
  using actor_error::actor_error;
};
/// The call was lost to a restart of its actor; try it again.
class actor_restarting : public actor_error {
  using actor_error::actor_error;
};
/// Every copy of the object is gone, and it cannot be made again.
class object_lost : public error {
  using error::error;
};
/// The task was cancelled, or the runtime shut down.
class cancelled : public error {
  using error::error;
};
/// The time was over.
class timed_out : public error {
  using error::error;
};
/// Memory ran out: of a process, of a node, or (store_full) of the object store and its disk.
class out_of_memory : public error {
  using error::error;
};
class store_full : public out_of_memory {
  using out_of_memory::out_of_memory;
};
/// The task can no longer be placed; group_removed: its placement group is gone.
class unschedulable : public error {
  using error::error;
};
class group_removed : public unschedulable {
  using unschedulable::unschedulable;
};
/// The node's daemon is gone: this runtime can only be shut down.
class node_died : public error {
  using error::error;
};
/// The worker knows no function, class or method of that name.
class unknown_function : public error {
  using error::error;
};
/// The caller's own mistakes, and answers to questions.
class invalid_argument : public error {
  using error::error;
};
/// A value of another type than asked for; names what was there.
class wrong_type : public invalid_argument {
  using invalid_argument::invalid_argument;
};
class not_found : public error {
  using error::error;
};
class already_exists : public error {
  using error::error;
};
class wrong_state : public error {
  using error::error;
};
class unsupported : public error {
  using error::error;
};
/// Cannot be reached or is full now; try again.
class unavailable : public error {
  using error::error;
};
/// A compare-and-swap lost.
class conflict : public error {
  using error::error;
};

namespace detail {

// Not a code of ray.h: a value that is there and has another type. It is RAY_INVALID_ARGUMENT
// outside.
inline constexpr std::string_view kWrongType = "wrong type: ";
inline failure of_wrong_type(std::string text) { return failure(RAY_INVALID_ARGUMENT, std::string(kWrongType) + text); }

inline bool is_wrong_type(const failure& f) {
  return f.code() == RAY_INVALID_ARGUMENT && !f.raw() && f.message().rfind(kWrongType, 0) == 0;
}
inline std::string without_prefix(const failure& f) {
  return is_wrong_type(f) ? f.message().substr(kWrongType.size()) : f.message();
}

#if defined(RAY_HAS_EXCEPTIONS)
[[noreturn]] inline void raise(failure f) {
  switch (f.code()) {
    case RAY_CANCELLED: throw cancelled(std::move(f));
    case RAY_INVALID_ARGUMENT:
      if (is_wrong_type(f)) throw wrong_type(std::move(f));
      throw invalid_argument(std::move(f));
    case RAY_TIMED_OUT: throw timed_out(std::move(f));
    case RAY_NOT_FOUND: throw not_found(std::move(f));
    case RAY_ALREADY_EXISTS: throw already_exists(std::move(f));
    case RAY_OUT_OF_MEMORY: throw out_of_memory(std::move(f));
    case RAY_UNAVAILABLE: throw unavailable(std::move(f));
    case RAY_WRONG_STATE: throw wrong_state(std::move(f));
    case RAY_UNSUPPORTED: throw unsupported(std::move(f));
    case RAY_CONFLICT: throw conflict(std::move(f));
    case RAY_TASK_FAILED: throw task_error(std::move(f));
    case RAY_WORKER_CRASHED: throw worker_crashed(std::move(f));
    case RAY_OBJECT_LOST: throw object_lost(std::move(f));
    case RAY_UNSCHEDULABLE: throw unschedulable(std::move(f));
    case RAY_ACTOR_DIED: throw actor_died(std::move(f));
    case RAY_ACTOR_RESTARTING: throw actor_restarting(std::move(f));
    case RAY_STORE_FULL: throw store_full(std::move(f));
    case RAY_NODE_DIED: throw node_died(std::move(f));
    case RAY_GROUP_REMOVED: throw group_removed(std::move(f));
    case RAY_UNKNOWN_FUNCTION: throw unknown_function(std::move(f));
    default: throw error(std::move(f));
  }
}
#else
[[noreturn]] inline void raise(failure f) {
  std::fprintf(stderr, "ray: %s: %s\n", f.name(), f.message().c_str());
  std::abort();
}
#endif
inline void raise_if(failure f) {
  if (__builtin_expect(static_cast<bool>(f), 0)) raise(std::move(f));
}
// Takes over *err.
inline failure made(ray_code code, ray_error* err) {
  return __builtin_expect(code == RAY_OK, 1) ? failure() : failure(code, err);
}

}  // namespace detail

/// A value or a failure. What `x.get()` throws, `x.get_result()` returns: every call that throws
/// has a form `..._result` that does not, and those are what a program without exceptions uses.
template <class T>
class [[nodiscard]] result {
 public:
  result(T value) : v_(std::in_place_index<0>, std::move(value)) {}  // NOLINT: a value is a result
  result(failure f) : v_(std::in_place_index<1>, std::move(f)) {}    // NOLINT: a failure too
  bool has_value() const noexcept { return v_.index() == 0; }
  explicit operator bool() const noexcept { return has_value(); }
  /// The value; throws the failure as an exception when there is none.
  T& value() & { return check(), *std::get_if<0>(&v_); }
  const T& value() const& { return check(), *std::get_if<0>(&v_); }
  T&& value() && { return check(), std::move(*std::get_if<0>(&v_)); }
  template <class U>
  T value_or(U&& other) const& {
    return has_value() ? *std::get_if<0>(&v_) : static_cast<T>(std::forward<U>(other));
  }
  template <class U>
  T value_or(U&& other) && {
    return has_value() ? std::move(*std::get_if<0>(&v_)) : static_cast<T>(std::forward<U>(other));
  }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }
  /// The failure; one with RAY_OK when there is a value.
  const failure& error() const noexcept {
    static const failure none;
    return has_value() ? none : *std::get_if<1>(&v_);
  }

 private:
  void check() const {
    if (!has_value()) detail::raise(*std::get_if<1>(&v_));
  }
  std::variant<T, failure> v_;
};

template <>
class [[nodiscard]] result<void> {
 public:
  result() = default;
  result(failure f) : f_(std::move(f)) {}  // NOLINT
  bool has_value() const noexcept { return !f_; }
  explicit operator bool() const noexcept { return has_value(); }
  void value() const { detail::raise_if(f_); }
  const failure& error() const noexcept { return f_; }

 private:
  failure f_;
};

}  // namespace ray
