// What common.h declares: the state of the process, the functions of the Python half, and errors of the runtime as
// exceptions. The bottom of the extension: of its files it includes common.h alone. GIL held.
#define RAY_ALLOW_UNSTABLE
#include "common.h"

#include <cmath>
#include <cstring>

namespace libray_py {

Process g_process;
constinit thread_local YieldWhenWaiting* YieldWhenWaiting::now = nullptr;
Hooks g_hooks;

PyObject* error_to_exception(ray_code code, ray_error* err) {
  ray_str text = {nullptr, 0};
  ray_bytes payload = {nullptr, 0};
  uint32_t format = 0;
  if (err != nullptr) {
    text = ray_error_message(err);
    payload = ray_error_payload(err, &format);
  }
  if (text.size == RAY_NUL) text.size = strlen(text.data);
  Owned message(PyUnicode_DecodeUTF8(text.data != nullptr ? text.data : "",
                                     static_cast<Py_ssize_t>(text.size), "replace"));
  Owned body(PyBytes_FromStringAndSize(static_cast<const char*>(payload.data),
                                       static_cast<Py_ssize_t>(payload.size)));
  ray_error_release(err);
  if (!message || !body) return nullptr;
  if (g_hooks.make_error == nullptr) {
    PyErr_SetString(PyExc_RuntimeError, ray_code_name(code));
    return nullptr;
  }
  return PyObject_CallFunction(g_hooks.make_error, "iOOI", code, message.get(), body.get(), format);
}

PyObject* raise_code(ray_code code, ray_error* err) {
  if (code == RAY_CANCELLED && PyErr_Occurred() != nullptr) {  // see look_at_signals
    ray_error_release(err);
    return nullptr;
  }
  Owned exception(error_to_exception(code, err));
  if (exception)
    PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(exception.get())), exception.get());
  return nullptr;
}

PyObject* raise_unreadable(PyObject* what) {
  Owned text(what);
  PyObject *type, *value, *trace;
  PyErr_Fetch(&type, &value, &trace);
  PyErr_NormalizeException(&type, &value, &trace);
  Owned t(type), v(value), tb(trace);
  if (!v) return PyErr_NoMemory();
  if (trace != nullptr) PyException_SetTraceback(value, trace);
  Owned error(text && g_hooks.unreadable != nullptr
                  ? PyObject_CallFunctionObjArgs(g_hooks.unreadable, text.get(), value, nullptr)
                  : new_ref(value));
  if (!error) PyErr_Clear();
  PyObject* raised = error && PyExceptionInstance_Check(error.get()) ? error.get() : value;
  PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(raised)), raised);
  return nullptr;
}

ray_runtime* ensure_runtime_slow() {
  Owned done(PyObject_CallFunctionObjArgs(g_hooks.auto_init, nullptr));
  if (!done) return nullptr;
  if (g_process.runtime == nullptr) PyErr_SetString(PyExc_RuntimeError, "libray did not start");
  return g_process.runtime;
}

void call_before_block() {
  PyObject* done = PyObject_CallObject(g_process.before_block, nullptr);
  if (done == nullptr) PyErr_Clear();
  Py_XDECREF(done);
}

bool str_view(PyObject* o, ray_str* out) {
  Py_ssize_t size;
  const char* data = PyUnicode_AsUTF8AndSize(o, &size);
  if (data == nullptr) return false;
  *out = as_str(data, size);
  return true;
}

bool parse_timeout(PyObject* o, int64_t* out_ns) {
  if (o == Py_None) {
    *out_ns = -1;
    return true;
  }
  const double seconds = PyFloat_AsDouble(o);
  if (seconds == -1.0 && PyErr_Occurred()) return false;
  if (std::isnan(seconds) || seconds < 0) {
    if (seconds == -1.0) {  // users of Ray write -1 for "no limit"
      *out_ns = -1;
      return true;
    }
    PyErr_SetString(PyExc_ValueError, "a timeout must be None or a number of seconds >= 0");
    return false;
  }
  *out_ns = seconds > 9e9 ? -1 : static_cast<int64_t>(seconds * 1e9);
  return true;
}

}  // namespace libray_py
