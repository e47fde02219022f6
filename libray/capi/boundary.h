// The boundary of ray.h: argument checks, handles, and the exception wall. Every entry point runs its
// body in guard(): a Status becomes a code and, if asked for, a ray_error; nothing is thrown across.
// No logic lives in this folder.
#pragma once
#include <cstring>
#include <exception>
#include <new>

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
Status runtime_of(const ray_runtime* handle, Runtime** out);
Status object_arg(const ray_ref* ref, Object** out);
Status execution_of(const ray_task* task, Execution** out);

inline std::string text(ray_str s) { return view_string(s); }
inline std::string bytes(ray_bytes b) {
  return b.data ? std::string(static_cast<const char*>(b.data), b.size) : std::string();
}

// Copies an options struct of whatever size the caller was compiled with.
template <class T>
Status read_options(const T* in, const char* name, T* out) {
  if (!in) return Status();
  size_t n = in->struct_size;
  if (n < sizeof(size_t) || n > 65536)
    return error(RAY_INVALID_ARGUMENT, "%s.struct_size is %zu: make the struct with its INIT macro",
                 name, n);
  const char* raw = reinterpret_cast<const char*>(in);
  for (size_t i = sizeof(T); i < n; ++i)
    if (raw[i])
      return error(RAY_UNSUPPORTED, "%s has fields that this version of libray does not know", name);
  std::memset(static_cast<void*>(out), 0, sizeof(T));
  std::memcpy(static_cast<void*>(out), raw, n < sizeof(T) ? n : sizeof(T));
  out->struct_size = sizeof(T);
  return Status();
}

template <class T>
T* make_handle_of(HandleKind kind, void* object) {
  return static_cast<T*>(HandleTable::instance().insert(kind, object));
}

}  // namespace ray::capi
