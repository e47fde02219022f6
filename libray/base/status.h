// Status: a code of ray.h with an optional one-line message; Result<T>: a value or a Status.
// Internal code never throws for expected failures; the C boundary turns a Status into
// (ray_code, ray_error). Messages are lower case, name the thing and, where there is one, the remedy.
#pragma once
#include <cstdarg>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "ray.h"

namespace ray {

// One word: 0 is RAY_OK, an odd one a code alone, else a Failure. Nearly all that there are say RAY_OK, several in
// each call of the API: making, handing on and ending one of those is a store and a test.
class [[nodiscard]] Status {
 public:
  Status() = default;
  explicit Status(ray_code code) : word_(code == RAY_OK ? 0 : uint64_t{static_cast<uint32_t>(code)} << 1 | 1) {}
  Status(ray_code code, std::string message);
  Status(const Status& s) : word_(s.failure() ? copy_of(s) : s.word_) {}
  Status(Status&& s) noexcept : word_(std::exchange(s.word_, 0)) {}
  Status& operator=(Status s) noexcept {
    std::swap(word_, s.word_);
    return *this;
  }
  ~Status() {
    if (__builtin_expect(failure() != nullptr, 0)) end();
  }
  bool ok() const { return word_ == 0; }
  ray_code code() const { return failure() ? failure()->code : static_cast<ray_code>(word_ >> 1); }
  const std::string& message() const;

 private:
  struct Failure {
    ray_code code;
    std::string message;
  };
  Failure* failure() const { return word_ & 1 ? nullptr : reinterpret_cast<Failure*>(word_); }
  static uintptr_t copy_of(const Status& s);
  void end();
  uintptr_t word_ = 0;
};

// "RAY_OBJECT_LOST"; "RAY_UNKNOWN" for a number that is no code. Static storage.
const char* code_name(ray_code code);

// printf-style, so that headers stay free of heavy formatting includes.
Status error(ray_code code, const char* format, ...) __attribute__((format(printf, 2, 3)));
// The same with ": <strerror(errno)>" appended.
Status errno_error(ray_code code, const char* format, ...) __attribute__((format(printf, 2, 3)));
std::string strprintf(const char* format, ...) __attribute__((format(printf, 1, 2)));

template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}
  Result(Status status) : status_(std::move(status)) {}
  bool ok() const { return value_.has_value(); }
  const Status& status() const { return status_; }
  T& operator*() { return *value_; }
  T* operator->() { return &*value_; }
  const T& operator*() const { return *value_; }
  const T* operator->() const { return &*value_; }

 private:
  std::optional<T> value_;
  Status status_;
};

#define RAY_TRY(expr)                           \
  do {                                          \
    ::ray::Status ray_try_status_ = (expr);     \
    if (!ray_try_status_.ok()) return ray_try_status_; \
  } while (0)

}  // namespace ray
