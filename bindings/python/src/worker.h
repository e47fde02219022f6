// What the two halves of the worker's side share: worker.cc runs tasks to their end, one per thread;
// loop_worker.cc lets an asyncio actor's event loop run many. GIL held everywhere.
#pragma once
#include <vector>

#include "refs.h"
#include "value.h"

namespace libray_py {

// What the caller says about the call besides its arguments: one byte of flags, then its placement
// group, then the pickled exception classes that are retried, then how many objects each yield of a
// generator gives. Written by _options.note_of.
struct Note {
  static constexpr unsigned char kDynamic = 1, kRetryClasses = 2, kInGroup = 4, kAllOrNothing = 8,
                                 kPerYield = 16, kPortable = 32;
  Owned bytes;
  bool has(unsigned char flag) const {
    return bytes && PyBytes_GET_SIZE(bytes.get()) != 0 &&
           (static_cast<unsigned char>(PyBytes_AS_STRING(bytes.get())[0]) & flag) != 0;
  }
  unsigned per_yield() const {
    if (!has(kPerYield)) return 1;
    return static_cast<unsigned char>(
        PyBytes_AS_STRING(bytes.get())[PyBytes_GET_SIZE(bytes.get()) - 1]);
  }
};

struct CallArgs {
  std::vector<PyObject*> items;  // positional, then keyword values
  Py_ssize_t n_positional = 0;
  Owned kwnames;
  ~CallArgs() {
    for (PyObject* o : items) Py_XDECREF(o);
  }
};

// What this thread runs now: looked at by is_canceled and exit_actor.
extern constinit thread_local ray_task* t_task;
extern constinit thread_local bool* t_exits;  // set when the running call ends its actor
extern bool g_output_waits;                   // something was printed that is not in the file yet

// A child that the user's code forked comes back into our code, which it is only a copy of: its program is over. Ends the
// process as the end of a program does, with the exception that is set, if one is. `suspended`: at an await.
[[noreturn]] void leave_forked_child(bool suspended);
// Looks for that; to be called whenever the user's code has come back.
inline void end_forked_child(bool suspended = false) {
  if (__builtin_expect(g_process.forked_from_worker, 0)) leave_forked_child(suspended);
}

// Whether results are for Python alone: then types are kept by all means. Others get what every language reads, or the
// task fails.
inline bool for_python(const ray_task_info& info, const Note& note) {
  return info.caller_language == RAY_LANG_PYTHON && !note.has(Note::kPortable);
}

bool decode_arguments(ray_task* task, CallArgs* out, Note* note);
PyObject* call(PyObject* callable, const CallArgs& a);
PyObject* method_of(const ray_task_info& info);  // borrowed; null with an exception set
// Gives what a call that is no stream returned: RAY_OK, or -1 with an exception set.
int give_result(ray_task* task, PyObject* result, const ray_task_info& info, const Note& note);
// ray_worker_next_in without a wait for tasks; arguments on disk are waited for without the GIL.
ray_code next_task(ray_runtime* rt, uint32_t group, ray_task** task, ray_error** err);
// One item of a generator: RAY_OK, RAY_CANCELLED, RAY_TIMED_OUT, or -1 with an exception set.
int yield_item(ray_task* task, PyObject* object, bool exact, bool wait);
// What one `yield` gives when it gives several objects: a sequence of n, or null with an exception set.
PyObject* yielded_group(PyObject* item, unsigned n);
void flush_output();
// These consume the task.
void finish_exiting(ray_task* task, const char* why = nullptr);  // null: exit_actor() was called
void finish_with_exception(ray_task* task, const ray_task_info& info, const Note& note);

// loop_worker.cc
void tell_loops(ray_task* cancelled);  // on a runtime thread, without the GIL
bool init_loop_types(PyObject* module);

}  // namespace libray_py
