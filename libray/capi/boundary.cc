// See boundary.h.
#include "libray/capi/boundary.h"

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

Status runtime_of(const ray_runtime* handle, Runtime** out) {
  auto* rt = from_handle<Runtime>(handle, kHandleRuntime);
  if (!rt) return bad_handle("runtime");
  RAY_TRY(rt->usable());
  *out = rt;
  return Status();
}

Status object_arg(const ray_ref* ref, Object** out) {
  Object* o = object_of(ref);
  if (!o) return bad_handle("ref");
  *out = o;
  return Status();
}

Status execution_of(const ray_task* task, Execution** out) {
  auto* e = from_handle<Execution>(task, kHandleTask);
  if (!e) return bad_handle("task");
  *out = e;
  return Status();
}

}  // namespace ray::capi
