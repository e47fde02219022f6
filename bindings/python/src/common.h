// What every file of the extension shares: owned pointers, process state, the hooks into the Python
// half of the package, and the rules. Two kinds of code live here: the hot path (submit, get,
// execute) in the raw CPython API, and the rest in pybind11 (module.cc). The files include each other one way:
// common, refs, value (with decode, portable), calls, worker, module (`./dev check` looks). Everything runs with the
// GIL held unless a comment says otherwise; the GIL is given up only around a call that is known to
// wait. Nothing but ray.h of the core is used.
#pragma once
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#include <cstdint>
#include <string>
#include <utility>

#include "ray.h"

namespace libray_py {

// One owned reference to a Python object.
class Owned {
 public:
  Owned() = default;
  explicit Owned(PyObject* p) : p_(p) {}
  Owned(Owned&& o) noexcept : p_(std::exchange(o.p_, nullptr)) {}
  Owned& operator=(Owned&& o) noexcept {
    if (this != &o) {
      Py_XDECREF(p_);
      p_ = std::exchange(o.p_, nullptr);
    }
    return *this;
  }
  Owned(const Owned&) = delete;
  Owned& operator=(const Owned&) = delete;
  ~Owned() { Py_XDECREF(p_); }
  PyObject* get() const { return p_; }
  PyObject* release() { return std::exchange(p_, nullptr); }
  explicit operator bool() const { return p_ != nullptr; }

 private:
  PyObject* p_ = nullptr;
};

inline PyObject* new_ref(PyObject* p) {
  Py_INCREF(p);
  return p;
}

// State of the process. Written under the GIL by init and shutdown only.
struct Process {
  ray_runtime* runtime = nullptr;
  uint64_t generation =
      0;  // grows with each init: handles of an earlier runtime are recognised by it
  bool worker = false;
  bool forked_from_worker = false;  // a child that a task forked: it has no task to answer
  bool captures = false;  // the running task's children belong in its placement group
  int pid = 0;  // of the process that called init: a forked child has no runtime
  PyObject* before_block = nullptr;  // () -> None: called when a call is about to wait, if set
};
extern Process g_process;

// Functions of the Python half, which lies above the extension: given to set_hooks at import and, for what a worker alone
// needs, when a worker starts. Names of the fields are its keys.
struct Hooks {
  PyObject* auto_init = nullptr;         // () -> None: starts the runtime on first use
  PyObject* make_error = nullptr;        // (code, message, payload, format) -> exception
  PyObject* dump_error = nullptr;        // (exception, function) -> (message, bytes, buffers)
  PyObject* dumps = nullptr;             // object -> (bytes, [PickleBuffer])
  PyObject* loads = nullptr;             // (bytes-like, [buffer]) -> object
  PyObject* await_ref = nullptr;         // ref -> iterator
  PyObject* ref_future = nullptr;        // ref -> concurrent.futures.Future
  PyObject* ref_as_future = nullptr;     // ref -> asyncio.Future
  PyObject* ref_on_completed = nullptr;  // (ref, callback) -> None
  PyObject* ref_info = nullptr;          // (ref, "task" | "job" | "owner") -> id or bytes
  PyObject* unreadable = nullptr;        // (of what, exception) -> exception: a value cannot be read
  PyObject* explain_pickle = nullptr;    // (remote function, argument, exception) -> exception
  PyObject* check_export = nullptr;      // () -> None, or an error: refs may not be pickled by hand
  PyObject* make_dynamic = nullptr;      // list of refs -> what num_returns="dynamic" returns
  PyObject* should_retry = nullptr;      // (exception, pickled classes) -> bool
  PyObject* portable = nullptr;          // object -> what crosses in its place, see Encoder::pack_portable
  PyObject* not_portable = nullptr;      // (object, what it is, exception) -> exception that says why it cannot cross
  PyObject* read_timestamp = nullptr;    // bytes of the extension -> datetime
  PyObject* read_arrow = nullptr;        // buffer with an IPC stream -> table
  PyObject* leave_child = nullptr;       // exception or None -> ends the process
  PyObject* load_function = nullptr;     // definition bytes -> (callable, max_calls)
  PyObject* captured = nullptr;          // remote function -> the same in the running task's group
  PyObject* enter_note = nullptr;        // (note or None) -> None: a task in a group begins, ends
  PyObject* enter_gpus = nullptr;        // ({resource: [number]} or None) -> None: a task with devices
  PyObject* show_unread = nullptr;       // () -> None: errors that nobody looked at are there
  PyObject* actor_handle = nullptr;      // reference of an actor in a value -> its handle
  PyObject* actor_call = nullptr;        // (instance, name of a method) -> what a call of it runs
};
extern Hooks g_hooks;

// The runtime, started when that was not done; null with an exception set.
ray_runtime* ensure_runtime_slow();
inline ray_runtime* ensure_runtime() {
  if (__builtin_expect(g_process.runtime != nullptr, 1)) return g_process.runtime;
  return ensure_runtime_slow();
}

// Sets the Python exception for a failed call; consumes err. Always returns null.
PyObject* raise_code(ray_code code, ray_error* err);
// The exception that is set now, of a value that could not be decoded, becomes one that says of what it
// is (consumes `what`; may be null, with a further exception set). Always returns null.
PyObject* raise_unreadable(PyObject* what);
// What raise_code raises as an exception object (new reference), or null with another exception set.
PyObject* error_to_exception(ray_code code, ray_error* err);

inline ray_str as_str(const char* data, Py_ssize_t size) {
  return ray_str{data, static_cast<size_t>(size)};
}
// View of a str; false with an exception set.
bool str_view(PyObject* o, ray_str* out);

// Seconds (None = for ever) to nanoseconds; false with an exception set.
bool parse_timeout(PyObject* o, int64_t* out_ns);

void call_before_block();

// While it exists, a call of the runtime that seldom waits is under way with the GIL: should it wait after all
// (for what comes back from disk), look_at_signals gives the GIL up, until the end of the scope. Signals wait
// till then.
class YieldWhenWaiting {
 public:
  explicit YieldWhenWaiting(bool has_gil = true) : outer_(std::exchange(now, this)), has_gil_(has_gil) {}
  ~YieldWhenWaiting() {
    now = outer_;
    if (saved_ != nullptr) PyEval_RestoreThread(saved_);
  }
  YieldWhenWaiting(const YieldWhenWaiting&) = delete;
  YieldWhenWaiting& operator=(const YieldWhenWaiting&) = delete;
  void yield() {
    if (has_gil_ && saved_ == nullptr) saved_ = PyEval_SaveThread();
  }
  static constinit thread_local YieldWhenWaiting* now;  // of this thread

 private:
  YieldWhenWaiting* outer_;
  bool has_gil_;
  PyThreadState* saved_ = nullptr;
};

// Runs `body(slice_ns)` without the GIL, again and again until it answers anything but
// RAY_TIMED_OUT or the whole time is over. Between the slices signals are looked at, so that Ctrl-C
// ends a wait; *interrupted tells that.
template <typename Body>
ray_code wait_in_slices(int64_t timeout_ns, bool* interrupted, Body body) {
  constexpr int64_t kSlice = 50'000'000;
  if (__builtin_expect(g_process.before_block != nullptr, 0)) call_before_block();
  *interrupted = false;
  int64_t left = timeout_ns;
  for (;;) {
    const int64_t slice = (left < 0 || left > kSlice) ? kSlice : left;
    ray_code code;
    Py_BEGIN_ALLOW_THREADS code = body(slice);
    Py_END_ALLOW_THREADS if (code != RAY_TIMED_OUT) return code;
    if (PyErr_CheckSignals() != 0) {
      *interrupted = true;
      return code;
    }
    if (left >= 0) {
      left -= slice;
      if (left <= 0) return code;
    }
  }
}

}  // namespace libray_py
