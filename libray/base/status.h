// Status: a code of ray.h with an optional one-line message; Result<T>: a value or a Status.
// Internal code never throws for expected failures; the C boundary turns a Status into
// (ray_code, ray_error). Messages are lower case, name the thing and, where there is one, the remedy.
#pragma once
#include <cstdarg>
#include <optional>
#include <string>
#include <utility>

#include "ray.h"

namespace ray {

class [[nodiscard]] Status {
 public:
  Status() = default;
  explicit Status(ray_code code) : code_(code) {}
  Status(ray_code code, std::string message) : code_(code), message_(std::move(message)) {}
  bool ok() const { return code_ == RAY_OK; }
  ray_code code() const { return code_; }
  const std::string& message() const { return message_; }

 private:
  ray_code code_ = RAY_OK;
  std::string message_;
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
