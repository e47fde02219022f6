// See boundary.h.
#include "libray/capi/boundary.h"

#include <stdexcept>

namespace ray::capi {

ray_code report(const Status& s, ray_error** err, ErrorBox* box) {
  if (err) {
    try {
      ErrorBox* e = box ? box->retain()
                        : make_error(s.code(), s.message().empty() ? ray_code_name(s.code()) : s.message());
      *err = make_handle_of<ray_error>(kHandleError, e);
    } catch (...) {
      *err = nullptr;
    }
  }
  return s.code();
}

ray_code report_exception(ray_error** err) {
  try {
    throw;
  } catch (const std::bad_alloc&) {
    return report(error(RAY_OUT_OF_MEMORY, "out of memory"), err);
  } catch (const std::length_error&) {
    return report(error(RAY_INVALID_ARGUMENT, "a text or bytes of a size that nothing can have"), err);
  } catch (const std::exception& e) {
    return report(error(RAY_INTERNAL, "internal error: %s", e.what()), err);
  } catch (...) {
    return report(error(RAY_INTERNAL, "internal error"), err);
  }
}

Status bad_handle(const char* what) {
  return error(RAY_INVALID_ARGUMENT, "%s is null, released or not a handle of that kind", what);
}

Status null_argument(const char* what) { return error(RAY_INVALID_ARGUMENT, "%s is NULL", what); }

Status check_timeout(int64_t timeout_ns) {
  if (timeout_ns >= -1) return Status();
  return error(RAY_INVALID_ARGUMENT, "timeout %ld ns: -1 is for ever, less is nothing",
               static_cast<long>(timeout_ns));
}

bool is_error_code(ray_code code) {
  return code != RAY_OK && std::strcmp(ray_code_name(code), "RAY_UNKNOWN") != 0;
}

Status error_arg(ray_code code) {
  if (is_error_code(code)) return Status();
  return error(RAY_INVALID_ARGUMENT, "%d is not the code of an error", code);
}

Status name_arg(ray_str s, const char* what, std::string* out) {
  size_t n = !s.data ? 0 : s.size == RAY_NUL ? ::strnlen(s.data, RAY_MAX_NAME + 1) : s.size;
  if (!s.data && s.size) return error(RAY_INVALID_ARGUMENT, "%s has a size but no data", what);
  if (n > RAY_MAX_NAME)
    return error(RAY_INVALID_ARGUMENT, "%s has more than %d bytes", what, RAY_MAX_NAME);
  out->assign(s.data ? s.data : "", n);
  return Status();
}

Status view_arg(ray_bytes b, const char* what) {
  if (b.data || !b.size) return Status();
  return error(RAY_INVALID_ARGUMENT, "%s have a size but no data", what);
}

Status bytes_arg(ray_bytes b, const char* what, size_t most, std::string* out) {
  RAY_TRY(view_arg(b, what));
  if (b.size > most)
    return error(RAY_INVALID_ARGUMENT, "%s are %zu bytes; at most %zu are allowed", what, b.size, most);
  out->clear();
  if (b.size) out->assign(static_cast<const char*>(b.data), b.size);
  return Status();
}

Status value_arg(const ray_value* v, const char* what, bool shape) {
  if (!v) return null_argument(what);
  return check_value(*v, shape);
}

Status payload_arg(const ray_value* v) {
  if (!v) return Status();
  RAY_TRY(check_value(*v, false));
  if (v->n_refs || v->n_oob)
    return error(RAY_INVALID_ARGUMENT, "the payload of an error is bytes alone: no references, no buffers");
  return Status();
}

Status execution_of(const ray_task* task, Execution** out) {
  auto* e = from_handle<Execution>(task, kHandleTask);
  if (!e) return bad_handle("task");
  if (e->side->runtime()->foreign()) return e->side->runtime()->usable();
  *out = e;
  return Status();
}

}  // namespace ray::capi
