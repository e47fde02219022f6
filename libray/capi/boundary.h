// The boundary of ray.h: argument checks, handles, and the exception wall. Every entry point runs its
// body in guard(): a Status becomes a code and, if asked for, a ray_error; nothing is thrown across.
// No logic lives in this folder.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstring>
#include <exception>
#include <new>
#include <utility>

#include "libray/runtime/runtime.h"
#include "libray/runtime/worker.h"

namespace ray::capi {

// Fills *err and returns the code. `box`: the failed object's own error, if there is one.
ray_code report(const Status& s, ray_error** err, ErrorBox* box = nullptr);
ray_code report_exception(ray_error** err);

template <class Body>
ray_code guard(ray_error** err, Body body) {
  try {
    Status s = body();
    if (__builtin_expect(s.ok(), 1)) return RAY_OK;
    return report(s, err);
  } catch (...) {
    return report_exception(err);
  }
}

Status bad_handle(const char* what);
Status null_argument(const char* what);
Status check_timeout(int64_t timeout_ns);

// A live runtime, or why not.
inline Status runtime_of(const ray_runtime* handle, Runtime** out) {
  *out = from_handle<Runtime>(handle, kHandleRuntime);
  return __builtin_expect(*out != nullptr, 1) ? (*out)->usable() : bad_handle("runtime");
}
inline Status object_arg(const ray_ref* ref, Object** out) {
  *out = object_of(ref);
  if (__builtin_expect(*out == nullptr, 0)) return bad_handle("ref");
  return __builtin_expect((*out)->runtime->foreign(), 0) ? (*out)->runtime->usable() : Status();
}
// A stream that a call may wait for: it outlives its last handle until the call is over.
class StreamUse {
 public:
  explicit StreamUse(const ray_stream* handle)
      : handle_(handle), stream_(static_cast<Stream*>(HandleTable::instance().use(handle, kHandleStream))) {}
  StreamUse(StreamUse&& o) noexcept : handle_(o.handle_), stream_(std::exchange(o.stream_, nullptr)) {}
  ~StreamUse() {
    if (stream_ && HandleTable::instance().unuse(handle_)) stream_->runtime->stream_unused(stream_);
  }
  Stream* stream() const { return stream_; }

 private:
  const ray_stream* handle_;
  Stream* stream_;
};
Status execution_of(const ray_task* task, Execution** out);

// Whether it is the code of an error that this version knows.
bool is_error_code(ray_code code);
// A text that names something: at most RAY_MAX_NAME bytes.
Status name_arg(ray_str s, const char* what, std::string* out);
Status bytes_arg(ray_bytes b, const char* what, size_t most, std::string* out);
// Bytes that are looked at where they lie.
Status view_arg(ray_bytes b, const char* what);
// A value that is to be read; of a shape the sizes alone count.
Status value_arg(const ray_value* v, const char* what, bool shape = false);
// What an error carries: bytes, for nobody keeps references or buffers for it. May be NULL.
Status payload_arg(const ray_value* v);
Status error_arg(ray_code code);

inline std::string text(ray_str s) { return view_string(s); }
inline std::string bytes(ray_bytes b) {
  return b.data ? std::string(static_cast<const char*>(b.data), b.size) : std::string();
}

// The sizes that headers before this one gave a struct, besides today's: a size between them cuts a field.
template <class T>
inline constexpr size_t kOlderSize = sizeof(T);
template <>
inline constexpr size_t kOlderSize<ray_runtime_options> = offsetof(ray_runtime_options, job_name);
template <>
inline constexpr size_t kOlderSize<ray_task_options> = offsetof(ray_task_options, stream_window);
template <>
inline constexpr size_t kOlderSize<ray_task_info> = offsetof(ray_task_info, caller_language);

template <class T>
Status check_size(const T* s, const char* name) {
  size_t n = s->struct_size;
  if ((n >= sizeof(T) && n <= 65536) || n == kOlderSize<T>) return Status();
  return error(RAY_INVALID_ARGUMENT, "%s.struct_size is %zu: make the struct with its INIT macro", name, n);
}

// Copies an options struct of whatever size the caller was compiled with.
template <class T>
Status read_options(const T* in, const char* name, T* out) {
  if (!in) return Status();
  RAY_TRY(check_size(in, name));
  size_t n = in->struct_size;
  const char* raw = reinterpret_cast<const char*>(in);
  for (size_t i = sizeof(T); i < n; ++i)
    if (raw[i])
      return error(RAY_UNSUPPORTED, "%s has fields that this version of libray does not know", name);
  std::memset(static_cast<void*>(out), 0, sizeof(T));
  std::memcpy(static_cast<void*>(out), raw, n < sizeof(T) ? n : sizeof(T));
  out->struct_size = sizeof(T);
  return Status();
}

// Fills a struct of the caller's, of whatever size it has; what this version does not know is zero.
template <class T>
Status write_info(T* out, const char* name, const T& info) {
  if (!out) return null_argument("out");
  RAY_TRY(check_size(out, name));
  size_t n = out->struct_size;
  std::memcpy(static_cast<void*>(out), &info, std::min(n, sizeof(T)));
  if (n > sizeof(T)) std::memset(reinterpret_cast<char*>(out) + sizeof(T), 0, n - sizeof(T));
  out->struct_size = n;
  return Status();
}

template <class T>
T* make_handle_of(HandleKind kind, void* object) {
  return static_cast<T*>(HandleTable::instance().insert(kind, object));
}

}  // namespace ray::capi
