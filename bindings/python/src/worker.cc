// The worker's side: takes tasks, runs them, gives results. The loop keeps the GIL while there is
// work and gives it up only to wait. One task runs per thread; an asyncio actor takes tasks from
// its event loop instead (loop_worker.cc).
//
// Cancellation: the runtime's thread calls on_interrupt, which sends SIGINT to the main thread if
// that runs the task; the Python handler raises KeyboardInterrupt only when the task that runs then
// is a cancelled one. A method of an actor is not interrupted, for that could leave the actor's state
// half changed: it may ask (is_canceled), runs to its end, and its caller is told that it was cancelled.
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <deque>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "worker.h"

#include "surroundings.h"
#include "title.h"

namespace libray_py {

constinit thread_local ray_task* t_task = nullptr;
constinit thread_local bool* t_exits = nullptr;
bool g_output_waits = false;

namespace {

struct Loaded {
  PyObject* callable = nullptr;
  uint32_t max_calls = 0, calls = 0;  // this process ends after so many (0: never)
  uint32_t users = 0;                 // calls of it that are under way
  size_t size = 0;                    // of its definition
  uint64_t used = 0;                  // when, in loads and calls
};
std::unordered_map<uint64_t, Loaded> g_functions;      // function_key -> callable or class
constexpr size_t kFunctionBytes = 32u << 20;           // of their definitions: above, the least recently used go
size_t g_function_bytes = 0;
uint64_t g_function_clock = 0;
bool g_retire = false;                                 // this process takes no more tasks
std::unordered_map<std::string, PyObject*> g_methods;  // of the actor's instance: bound methods
PyObject* g_instance = nullptr;                        // of the actor that this worker is
PyObject* g_actor_exit = nullptr;                 // exception class: the actor ends by its own will
PyObject* g_unknown_function = nullptr;           // exception -> whether a name led to nothing
std::atomic<ray_task*> g_main_task{nullptr};      // what the main thread runs
std::atomic<bool> g_interruptible{false};         // it runs the user's function, which is no method of an actor
bool g_interrupt_given = false;  // to the main thread's task: once, so that clean-up code can run
pthread_t g_main_thread;
std::atomic<bool> g_exiting{false};   // exit_actor was called
PyObject* g_flush = nullptr;  // flushes the output streams
// The threads of a concurrency group that have nothing to run. One of them waits for a call, the others are parked, for
// whoever wakes takes a turn at the GIL. Who takes a call sees to it that another one waits: as long as one is parked,
// one waits or is on its way. The main thread is never parked, since signals are its. With the GIL, but for the semaphore.
struct Idle {
  uint32_t waiting = 0, parked = 0;
  uint32_t coming = 0;  // were started or unparked, and have not run since
  sem_t unpark;
  Idle() { sem_init(&unpark, 0, 0); }
};
std::deque<Idle>& g_idle = *new std::deque<Idle>;  // of each group; not destroyed under threads that are parked
std::atomic<ray_runtime*> g_serving{nullptr};  // looked at by the handler of SIGTERM
pid_t g_serving_pid = 0;
struct sigaction g_python_sigterm;
std::atomic<bool> g_terminated{false};  // SIGTERM came

void on_interrupt(ray_task* task, void*) {  // on a runtime thread, without the GIL
  if (task == nullptr) return;
  if (task == g_main_task.load() && g_interruptible.load()) pthread_kill(g_main_thread, SIGINT);
  tell_loops(task);
}

// ---- arguments and results ----------------------------------------------------------------------

// "argument 2", or "argument 'name'" of one that was given by keyword, for an error.
PyObject* name_of_argument(const CallArgs& a, size_t index, size_t n) {
  const Py_ssize_t n_kw = a.kwnames ? PyTuple_GET_SIZE(a.kwnames.get()) : 0;
  const Py_ssize_t keyword = static_cast<Py_ssize_t>(index + n_kw) - static_cast<Py_ssize_t>(n);
  if (keyword < 0) return PyUnicode_FromFormat("argument %zu", index + 1);
  return PyUnicode_FromFormat("argument %R", PyTuple_GET_ITEM(a.kwnames.get(), keyword));
}

}  // namespace

bool decode_arguments(ray_task* task, CallArgs* out, Note* note) {
  const ray_buffer* buffers = nullptr;
  size_t n = ray_task_args(task, &buffers), size;
  if (n != 0) {
    if (const char* text = decode_note(&buffers[n - 1], &size)) {
      note->bytes = Owned(PyBytes_FromStringAndSize(text, static_cast<Py_ssize_t>(size)));
      if (!note->bytes) return false;
      --n;
    }
  }
  if (n != 0) {
    PyObject* names = nullptr;
    const int r = decode_kwnames(&buffers[n - 1], &names);
    if (r < 0) return false;
    if (r > 0) {
      out->kwnames = Owned(names);
      --n;
    }
  }
  out->items.reserve(n + 1);
  out->items.push_back(nullptr);  // room that vectorcall may use
  for (size_t i = 0; i < n; ++i) {
    PyObject* value;
    if (buffers[i].n_oob == 0 && buffers[i].format != RAY_FMT_PICKLE5) {
      value = decode_borrowed(&buffers[i]);
    } else {
      ray_buffer own = RAY_BUFFER_INIT;
      ray_error* err = nullptr;
      const ray_code code = ray_task_take_arg(task, i, &own, &err);
      if (code != RAY_OK) return raise_code(code, err) != nullptr;
      value = decode_owned(&own);
    }
    if (value == nullptr) return raise_unreadable(name_of_argument(*out, i, n)) != nullptr;
    out->items.push_back(value);
  }
  const Py_ssize_t n_kw = out->kwnames ? PyTuple_GET_SIZE(out->kwnames.get()) : 0;
  out->n_positional = static_cast<Py_ssize_t>(n) - n_kw;
  if (out->n_positional < 0) {
    PyErr_SetString(PyExc_ValueError, "malformed arguments: more keyword names than values");
    return false;
  }
  return true;
}

PyObject* call(PyObject* callable, const CallArgs& a) {
  PyObject* result = PyObject_Vectorcall(callable, a.items.data() + 1,
                                         static_cast<size_t>(a.n_positional) | PY_VECTORCALL_ARGUMENTS_OFFSET,
                                         a.kwnames.get());
  end_forked_child();
  return result;
}

void leave_forked_child(bool suspended) {
  if (suspended)
    PyErr_SetString(PyExc_RuntimeError,
                    "a process that was forked in an asyncio actor cannot go on with its parent's event loop");
  PyObject *type, *value, *trace;
  PyErr_Fetch(&type, &value, &trace);
  PyErr_NormalizeException(&type, &value, &trace);
  if (trace != nullptr && value != nullptr) PyException_SetTraceback(value, trace);
  PyObject_CallFunctionObjArgs(g_hooks.leave_child, value != nullptr ? value : Py_None, nullptr);
  _exit(1);  // it does not return
}

ray_code next_task(ray_runtime* rt, uint32_t group, ray_task** task, ray_error** err) {
  const YieldWhenWaiting scope;
  return ray_worker_next_in(rt, group, 0, task, err);
}

namespace {

bool encode_result(Encoder* encoder, PyObject* object, bool exact, Encoded* out) {
  return encoder->add(object, exact, out) || (!exact && raise_not_portable(object, PyUnicode_FromString("the result")));
}

bool return_value(ray_task* task, uint32_t index, PyObject* object, bool exact) {
  Encoder encoder;
  Encoded encoded;
  if (!encode_result(&encoder, object, exact, &encoded)) return false;
  const ray_value value = encoder.view(encoded);
  ray_error* err = nullptr;
  ray_code code;
  if (encoder.total() > (64 << 10)) {
    Py_BEGIN_ALLOW_THREADS code = ray_task_return(task, index, &value, &err);
    Py_END_ALLOW_THREADS
  } else {
    code = ray_task_return(task, index, &value, &err);
  }
  if (code == RAY_OK) return true;
  raise_code(code, err);
  return false;
}

PyObject* next_item(PyObject* iterator) {
  PyObject* item = PyIter_Next(iterator);
  end_forked_child();
  return item;
}

PyObject* dump_for_result(ray_task* task, PyObject* name);

// Result `index` is the exception that was dumped.
bool return_error(ray_task* task, uint32_t index, PyObject* dump) {
  ray_str message;
  if (!str_view(PyTuple_GET_ITEM(dump, 0), &message)) return false;
  PyObject* body = PyTuple_GET_ITEM(dump, 1);
  const ray_value payload =
      ray_plain(PyBytes_AS_STRING(body), PyBytes_GET_SIZE(body), RAY_FMT_MSGPACK);
  ray_error* err = nullptr;
  const ray_code code =
      ray_task_return_error(task, index, RAY_TASK_FAILED, message, &payload, &err);
  if (code == RAY_OK) return true;
  raise_code(code, err);
  return false;
}

// The items of a generator as the results of a task with a fixed number of them. What came before
// an exception keeps its value, unless that is the end of the whole task; more items than results are dropped.
bool return_items(ray_task* task, uint32_t n, PyObject* generator, PyObject* name, bool whole, bool exact) {
  for (uint32_t i = 0; i < n; ++i) {
    Owned item(next_item(generator));
    if (item && return_value(task, i, item.get(), exact)) continue;
    if (!item && !PyErr_Occurred()) {
      PyErr_Format(PyExc_ValueError,
                   "Task %S returned %u objects, but num_returns=%u: its generator ended early.",
                   name, i, n);
    }
    if (i == 0 || whole) return false;  // the task as a whole failed, and may be tried again
    Owned dump(dump_for_result(task, name));
    for (; dump && i < n; ++i) {
      if (!return_error(task, i, dump.get())) return false;
    }
    return static_cast<bool>(dump);
  }
  return true;
}

// "f", "Class.method" or the name that the caller gave: what errors and the runtime context show.
PyObject* label_of(const ray_task_info& info) {
  const std::string name(info.name.data, info.name.size);
  const std::string function(info.function.data, info.function.size);
  if (name != function) return PyUnicode_DecodeUTF8(name.data(), name.size(), "replace");
  std::string label = function.substr(function.rfind('.') + 1);
  if (info.kind == RAY_KIND_ACTOR_CALL)
    label += "." + std::string(info.method.data, info.method.size);
  if (info.kind == RAY_KIND_ACTOR_CREATE) label += ".__init__";
  return PyUnicode_DecodeUTF8(label.data(), label.size(), "replace");
}

bool return_all(ray_task* task, uint32_t n, PyObject* result, const ray_task_info& info, const Note& note) {
  const bool exact = for_python(info, note);
  if (__builtin_expect(PyGen_CheckExact(result) && info.kind != RAY_KIND_ACTOR_CREATE, 0)) {
    Owned name(label_of(info));
    return name && return_items(task, n, result, name.get(), note.has(Note::kAllOrNothing), exact);
  }
  if (n == 1) return return_value(task, 0, result, exact);
  if (n == 0) return true;
  Owned fast(
      PySequence_Fast(result, "a task with num_returns > 1 must return an iterable of its values"));
  if (!fast) return false;
  const Py_ssize_t got = PySequence_Fast_GET_SIZE(fast.get());
  if (got != static_cast<Py_ssize_t>(n)) {
    PyErr_Format(PyExc_ValueError, "Task returned %zd objects, but num_returns=%u.", got, n);
    return false;
  }
  for (uint32_t i = 0; i < n; ++i) {
    if (!return_value(task, i, PySequence_Fast_GET_ITEM(fast.get(), i), exact)) return false;
  }
  return true;
}

}  // namespace

// One item of a generator: RAY_OK, RAY_CANCELLED, RAY_TIMED_OUT, or -1 with an exception set.
int yield_item(ray_task* task, PyObject* object, bool exact, bool wait) {
  Encoder encoder;
  Encoded encoded;
  if (!encode_result(&encoder, object, exact, &encoded)) return -1;
  const ray_value value = encoder.view(encoded);
  ray_error* err = nullptr;
  ray_code code = ray_task_yield(task, &value, 0, &err);
  if (code == RAY_TIMED_OUT && wait) {
    bool interrupted = false;
    code = wait_in_slices(-1, &interrupted, [&](int64_t ns) {
      ray_error_release(std::exchange(err, nullptr));
      return ray_task_yield(task, &value, ns, &err);
    });
    if (interrupted) {
      ray_error_release(err);
      return -1;
    }
  }
  if (code == RAY_OK) return RAY_OK;
  if (code == RAY_CANCELLED || code == RAY_TIMED_OUT) {
    ray_error_release(err);
    return code;
  }
  raise_code(code, err);
  return -1;
}

PyObject* yielded_group(PyObject* item, unsigned n) {
  Owned group(PySequence_Fast(item, "a generator with _num_objects_per_yield > 1 yields sequences"));
  if (!group) return nullptr;
  if (PySequence_Fast_GET_SIZE(group.get()) == static_cast<Py_ssize_t>(n)) return group.release();
  PyErr_Format(PyExc_ValueError, "a `yield` gave %zd objects, but _num_objects_per_yield=%u",
               PySequence_Fast_GET_SIZE(group.get()), n);
  return nullptr;
}

namespace {

// Waits until one more item may be made. RAY_OK, RAY_CANCELLED, or -1 with an exception set.
int await_room(ray_task* task) {
  ray_code code = ray_task_await_room(task, 0, nullptr);
  if (code != RAY_TIMED_OUT) return code;
  bool interrupted = false;
  code = wait_in_slices(-1, &interrupted,
                        [&](int64_t ns) { return ray_task_await_room(task, ns, nullptr); });
  return interrupted ? -1 : static_cast<int>(code);
}

// Gives what one `yield` gave: one object, or `per_yield` of them.
int yield_all(ray_task* task, PyObject* item, unsigned per_yield, bool exact) {
  if (__builtin_expect(per_yield == 1, 1)) return yield_item(task, item, exact, true);
  Owned group(yielded_group(item, per_yield));
  if (!group) return -1;
  int r = RAY_OK;
  for (unsigned i = 0; i < per_yield && r == RAY_OK; ++i)
    r = yield_item(task, PySequence_Fast_GET_ITEM(group.get(), i), exact, true);
  return r;
}

// Runs a generator to its end. Returns the code to finish with, or -1 with an exception set.
int run_stream(ray_task* task, PyObject* result, const Note& note, bool exact) {
  Owned iterator(PyObject_GetIter(result));
  if (!iterator) return -1;
  for (;;) {
    int r = await_room(task);
    if (r == RAY_OK) {
      Owned item(next_item(iterator.get()));
      if (!item) return PyErr_Occurred() ? -1 : static_cast<int>(RAY_OK);
      r = yield_all(task, item.get(), note.per_yield(), exact);
    }
    if (r == RAY_OK) continue;
    if (r == RAY_CANCELLED && PyGen_Check(iterator.get())) {
      Owned closed(PyObject_CallMethod(iterator.get(), "close", nullptr));
      if (!closed) PyErr_Clear();
    }
    return r;
  }
}

// num_returns="dynamic": every item becomes an object; the result is the list of their references.
// An exception is the last of them, unless it is to be retried or is the end of the whole task.
int run_dynamic(ray_task* task, PyObject* result, const ray_task_info& info, const Note& note) {
  const bool retried = note.has(Note::kAllOrNothing), exact = for_python(info, note);
  if (PyAsyncGen_CheckExact(result)) {
    PyErr_SetString(PyExc_TypeError,
                    "an asynchronous generator cannot have num_returns=\"dynamic\": use \"streaming\"");
    return -1;
  }
  Owned refs(PyList_New(0)), iterator(refs ? PyObject_GetIter(result) : nullptr);
  if (!iterator) return -1;
  for (bool more = true; more;) {
    ray_ref* ref = nullptr;
    ray_error* err = nullptr;
    ray_code code;
    Owned item(next_item(iterator.get()));
    if (item) {
      Encoder encoder;
      Encoded encoded;
      if (!encode_result(&encoder, item.get(), exact, &encoded)) return -1;
      const ray_value value = encoder.view(encoded);
      Py_BEGIN_ALLOW_THREADS code = ray_put(g_process.runtime, &value, &ref, &err);
      Py_END_ALLOW_THREADS
    } else {
      if (!PyErr_Occurred()) break;
      if (retried) return -1;
      more = false;
      Owned name(label_of(info));
      Owned dump(name ? dump_for_result(task, name.get()) : nullptr);
      ray_str message;
      if (!dump || !str_view(PyTuple_GET_ITEM(dump.get(), 0), &message)) return -1;
      PyObject* body = PyTuple_GET_ITEM(dump.get(), 1);
      const ray_value payload =
          ray_plain(PyBytes_AS_STRING(body), PyBytes_GET_SIZE(body), RAY_FMT_MSGPACK);
      code = ray_put_error(g_process.runtime, RAY_TASK_FAILED, message, &payload, &ref, &err);
    }
    if (code != RAY_OK) return raise_code(code, err), -1;
    Owned object(ref_new(ref));
    if (!object || PyList_Append(refs.get(), object.get()) != 0) return -1;
  }
  Owned made(PyObject_CallFunctionObjArgs(g_hooks.make_dynamic, refs.get(), nullptr));
  return made && return_value(task, 0, made.get(), true) ? static_cast<int>(RAY_OK) : -1;
}

constexpr char kExitActor[] = "it ended itself: exit_actor() is called";
constexpr char kSysExit[] = "it ended itself: its code called sys.exit(0)";

}  // namespace

int give_result(ray_task* task, PyObject* result, const ray_task_info& info, const Note& note) {
  if (__builtin_expect(note.has(Note::kDynamic), 0)) return run_dynamic(task, result, info, note);
  return return_all(task, info.num_returns, result, info, note) ? static_cast<int>(RAY_OK) : -1;
}

// A call that ended its actor: its caller sees the end of the actor. Consumes the task.
void finish_exiting(ray_task* task, const char* why) {
  if (why == nullptr) why = kExitActor;
  ray_error* err = nullptr;
  if (ray_worker_exit(g_process.runtime, ray_cstr(why), &err) != RAY_OK) ray_error_release(err);
  g_exiting = true;
  const std::string text = std::string("The actor is dead because ") + why + ".";
  ray_task_fail(task, ray_str{text.data(), text.size()}, nullptr);
  ray_task_finish(task, RAY_ACTOR_DIED);
}

namespace {

// sys.exit(0) ends an actor in order; every other status is a crash.
bool is_orderly_exit(PyObject* value) {
  if (!PyErr_GivenExceptionMatches(value, PyExc_SystemExit)) return false;
  Owned code(PyObject_GetAttrString(value, "code"));
  if (!code) PyErr_Clear();
  return code && PyLong_CheckExact(code.get()) && PyLong_AsLong(code.get()) == 0;
}

// The exception that is set now, normalised, with its traceback; null when none is.
Owned take_exception() {
  PyObject *type, *value, *trace;
  PyErr_Fetch(&type, &value, &trace);
  PyErr_NormalizeException(&type, &value, &trace);
  Owned t(type), v(value), tb(trace);
  if (trace != nullptr && value != nullptr) PyException_SetTraceback(value, trace);
  return v;
}

// (message, payload, False) of the exception that is set now, for one result of several. Null, with an exception set, when
// the whole task ends with it: as cancelled, or with the process or the actor.
PyObject* dump_for_result(ray_task* task, PyObject* name) {
  if (ray_task_is_cancelled(task)) return nullptr;
  Owned value(take_exception());
  Owned dump(PyObject_CallFunctionObjArgs(g_hooks.dump_error, value.get(), name, nullptr));
  if (!dump || PyTuple_GET_ITEM(dump.get(), 2) != Py_True) return dump.release();
  PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(value.get())), value.get());
  return nullptr;
}

// An exception that is no Exception ends the process, as outside of a task. Whether the task is
// tried again is its caller's affair.
void finish_fatally(ray_task* task, const ray_task_info& info, ray_str message) {
  if (info.kind != RAY_KIND_TASK && !g_terminated) {
    const std::string text(message.data, message.size);
    fprintf(stderr, "%s\n", text.c_str());
    fflush(stderr);
    fflush(stdout);
    _exit(1);
  }
  // A call of an actor that was told to end stays unfinished: the end of the process tells its caller, after the hooks.
  if (info.kind == RAY_KIND_TASK) {
    ray_task_fail(task, message, nullptr);
    ray_task_finish(task, RAY_WORKER_CRASHED);
  }
  g_retire = true;
}

}  // namespace

static bool is_unknown_function(PyObject* exception) {
  if (g_unknown_function == nullptr) return false;
  Owned answer(PyObject_CallOneArg(g_unknown_function, exception));
  if (!answer) PyErr_Clear();
  return answer.get() == Py_True;
}

// The exception that is set now becomes the task's error. Consumes the task.
void finish_with_exception(ray_task* task, const ray_task_info& info, const Note& note) {
  Owned v(take_exception());
  PyObject* value = v.get();
  auto* type = reinterpret_cast<PyObject*>(Py_TYPE(value));
  if (g_actor_exit != nullptr && PyErr_GivenExceptionMatches(type, g_actor_exit)) {
    return finish_exiting(task);
  }
  if (info.kind != RAY_KIND_TASK && is_orderly_exit(value)) return finish_exiting(task, kSysExit);
  if (ray_task_is_cancelled(task) && PyErr_GivenExceptionMatches(type, PyExc_KeyboardInterrupt)) {
    ray_task_finish(task, RAY_CANCELLED);
    return;
  }
  Owned name(label_of(info));
  Owned dump(name ? PyObject_CallFunctionObjArgs(g_hooks.dump_error, value, name.get(), nullptr)
                  : nullptr);
  ray_str message;
  if (dump && PyTuple_Check(dump.get()) && str_view(PyTuple_GET_ITEM(dump.get(), 0), &message)) {
    if (PyTuple_GET_ITEM(dump.get(), 2) == Py_True) return finish_fatally(task, info, message);
    PyObject* body = PyTuple_GET_ITEM(dump.get(), 1);
    const ray_value payload =
        ray_plain(PyBytes_AS_STRING(body), PyBytes_GET_SIZE(body), RAY_FMT_MSGPACK);
    ray_task_fail(task, message, &payload);
  } else {
    PyErr_Clear();
    ray_task_fail(task, ray_cstr("the task failed with an exception that cannot be described"),
                  nullptr);
  }
  if (note.has(Note::kRetryClasses)) {
    Owned again(
        PyObject_CallFunctionObjArgs(g_hooks.should_retry, value, note.bytes.get(), nullptr));
    if (!again) PyErr_Clear();
    if (again.get() != Py_True) ray_task_no_retry(task);
  }
  ray_task_finish(task, is_unknown_function(value) ? RAY_UNKNOWN_FUNCTION : RAY_TASK_FAILED);
}

namespace {

// ---- what to call
// --------------------------------------------------------------------------------------------------

// Functions that are made on the fly come and never again. One that comes again is loaded again.
void forget_functions() {
  while (g_function_bytes > kFunctionBytes) {
    auto oldest = g_functions.end();
    for (auto it = g_functions.begin(); it != g_functions.end(); ++it)
      if (it->second.users == 0 && it->second.max_calls == 0 &&
          (oldest == g_functions.end() || it->second.used < oldest->second.used))
        oldest = it;
    if (oldest == g_functions.end()) return;
    PyObject* callable = oldest->second.callable;
    g_function_bytes -= oldest->second.size;
    g_functions.erase(oldest);
    Py_DECREF(callable);  // last: it may run anything
  }
}

Loaded* function_of(ray_task* task, const ray_task_info& info) {
  const auto it = g_functions.find(info.function_key);
  if (it != g_functions.end()) return &it->second;
  ray_buffer buffer = RAY_BUFFER_INIT;
  ray_error* err = nullptr;
  ray_code code;
  Py_BEGIN_ALLOW_THREADS code = ray_task_definition(task, &buffer, &err);
  Py_END_ALLOW_THREADS if (code != RAY_OK) {
    raise_code(code, err);
    return nullptr;
  }
  Owned bytes(PyBytes_FromStringAndSize(static_cast<const char*>(buffer.data),
                                        static_cast<Py_ssize_t>(buffer.size)));
  const size_t size = buffer.size;
  ray_buffer_release(&buffer);
  if (!bytes) return nullptr;
  Owned pair(PyObject_CallFunctionObjArgs(g_hooks.load_function, bytes.get(), nullptr));
  PyObject* callable;
  unsigned max_calls;
  if (!pair || !PyArg_ParseTuple(pair.get(), "OI", &callable, &max_calls)) {
    raise_unreadable(PyUnicode_FromFormat("the code of %s", std::string(info.function.data, info.function.size).c_str()));
    return nullptr;
  }
  forget_functions();
  Loaded& loaded = g_functions[info.function_key];  // its address stays while it is used
  g_function_bytes += size - loaded.size;
  loaded.size = size;
  loaded.callable = new_ref(callable);
  loaded.max_calls = max_calls;
  return &loaded;
}

}  // namespace

PyObject* method_of(const ray_task_info& info) {  // borrowed
  if (g_instance == nullptr) {
    PyErr_SetString(PyExc_RuntimeError, "this worker has no actor: its constructor did not finish");
    return nullptr;
  }
  std::string name(info.method.data, info.method.size);
  const auto it = g_methods.find(name);
  if (it != g_methods.end()) return it->second;
  PyObject* method = PyObject_CallFunction(g_hooks.actor_call, "Os", g_instance, name.c_str());
  if (method != nullptr) g_methods[std::move(name)] = method;
  return method;
}

namespace {

// While it lives, a cancellation interrupts the main thread. Whoever made it looks for one that came before.
class Interruptible {
 public:
  Interruptible(ray_task* task, const ray_task_info& info)
      : on_(info.kind != RAY_KIND_ACTOR_CALL && task == g_main_task.load(std::memory_order_relaxed)) {
    if (on_) g_interruptible.store(true);
  }
  ~Interruptible() {
    if (on_) g_interruptible.store(false, std::memory_order_relaxed);
  }

 private:
  const bool on_;
};

// Decodes, calls, encodes. The code to finish with, or -1 with an exception set.
int execute(ray_task* task, const ray_task_info& info, PyObject* callable, bool* made_actor,
            Note* note) {
  CallArgs args;
  if (!decode_arguments(task, &args, note)) return -1;
  if (__builtin_expect(note->has(Note::kInGroup), 0) && !enter_group(note->bytes.get())) return -1;
  // Only from here on: an import that is interrupted half-way, while code or arguments are loaded, leaves this process
  // with modules that later tasks find broken.
  Interruptible scope(task, info);
  if (__builtin_expect(ray_task_is_cancelled(task), 0)) return RAY_CANCELLED;
  Owned result(call(callable, args));
  if (!result) return -1;
  if (info.kind == RAY_KIND_ACTOR_CREATE) {
    Py_XDECREF(std::exchange(g_instance, result.release()));
    *made_actor = true;
    return RAY_OK;
  }
  if (info.is_stream) return run_stream(task, result.get(), *note, for_python(info, *note));
  return give_result(task, result.get(), info, *note);
}

}  // namespace

// What a task printed without ending the line goes to the file before its result can be seen, and
// under its own name.
void flush_output() {
  g_output_waits = false;
  if (g_flush == nullptr) return;
  PyObject *type, *value, *trace;
  PyErr_Fetch(&type, &value, &trace);
  Owned done(PyObject_CallObject(g_flush, nullptr));
  if (!done) PyErr_Clear();
  PyErr_Restore(type, value, trace);
}

namespace {

// Runs one task of this thread to its end. Returns false when the loop must hand over to Python (an
// actor was made).
bool run_task(ray_task* task, bool main_thread) {
  ray_task_info info;
  info.struct_size = sizeof(info);
  const ray_code got = ray_task_get_info(task, &info);
  if (got != RAY_OK) {
    ray_task_finish(task, RAY_TASK_FAILED);
    return true;
  }
  if (main_thread) {
    g_interrupt_given = false;
    g_main_task.store(task);
    title_task(info);
  }
  bool made_actor = false, exits = false;
  t_task = task;
  t_exits = &exits;
  int code = -1;
  Loaded* loaded = nullptr;
  Note note;
  PyObject* callable = nullptr;
  if (__builtin_expect(info.has_gpus, 0)) enter_gpus(task);  // before its code is loaded
  if (info.kind == RAY_KIND_ACTOR_CALL) {
    callable = method_of(info);
  } else if ((loaded = function_of(task, info)) != nullptr) {
    callable = loaded->callable;
    ++loaded->users;
    loaded->used = ++g_function_clock;
  }
  if (callable != nullptr) code = execute(task, info, callable, &made_actor, &note);
  if (__builtin_expect(g_output_waits, 0)) flush_output();
  if (__builtin_expect(note.has(Note::kInGroup), 0)) leave_group();
  if (__builtin_expect(info.has_gpus, 0) && info.kind == RAY_KIND_TASK) leave_gpus();
  if (main_thread) g_main_task.store(nullptr);
  t_task = nullptr;
  t_exits = nullptr;
  // Arguments and result are dropped by now: when the caller sees the result, this process holds
  // nothing of it.
  if (__builtin_expect(exits, 0)) {
    PyErr_Clear();
    if (loaded != nullptr) --loaded->users;
    finish_exiting(task);
    return true;
  }
  if (code == RAY_OK && info.kind == RAY_KIND_ACTOR_CALL && ray_task_is_cancelled(task))
    code = RAY_CANCELLED;
  if (code >= 0) {
    ray_task_finish(task, code);
  } else {
    finish_with_exception(task, info, note);
  }
  if (loaded != nullptr) {
    --loaded->users;
    if (loaded->max_calls != 0 && ++loaded->calls >= loaded->max_calls) g_retire = true;
  }
  return !made_actor;
}

// Whether a thread waits, or is on its way; a parked one is sent.
bool one_waits(Idle* idle) {
  if (idle->waiting + idle->coming != 0) return true;
  if (idle->parked == 0) return false;
  --idle->parked;
  ++idle->coming;
  sem_post(&idle->unpark);
  return true;
}

// A thread that was coming is here, or will not come.
void arrived(Idle* idle) {
  if (idle->coming != 0) --idle->coming;
}

// After a thread took a task: another one is to wait for the next, so that as many threads exist as are used at a time.
// `grow` starts one and answers True, up to the group's limit.
bool pass_on(Idle* idle, PyObject* grow) {
  if (one_waits(idle) || grow == nullptr) return true;
  ++idle->coming;  // before: while a thread starts, others run
  Owned grown(PyObject_CallNoArgs(grow));
  if (grown.get() == Py_True) return true;
  arrived(idle);
  one_waits(idle);  // those that relied on the thread that did not start may be parked
  return static_cast<bool>(grown);
}

// Without anything to run: waits for a task, or parks until it is this thread's turn to wait (RAY_TIMED_OUT).
ray_code wait_for_task(Idle* idle, uint32_t group, bool main_thread, ray_task** task, ray_error** err) {
  ray_code code = RAY_TIMED_OUT;
  if (idle->waiting != 0 && !main_thread) {
    ++idle->parked;
    Py_BEGIN_ALLOW_THREADS while (sem_wait(&idle->unpark) != 0 && errno == EINTR) {
    }
    Py_END_ALLOW_THREADS
    arrived(idle);
    return code;
  }
  ++idle->waiting;
  const YieldWhenWaiting scope(false);
  Py_BEGIN_ALLOW_THREADS code = ray_worker_next_in(g_process.runtime, group, -1, task, err);
  Py_END_ALLOW_THREADS
  --idle->waiting;
  return code;
}

// A thread that leaves: the others look for themselves why.
void unpark_all(Idle* idle) {
  for (; idle->parked != 0; --idle->parked) {
    ++idle->coming;
    sem_post(&idle->unpark);
  }
}

PyObject* run_tasks(Idle* idle, uint32_t group, bool main_thread, PyObject* grow) {
  for (;;) {
    ray_task* task = nullptr;
    ray_error* err = nullptr;
    ray_code code = next_task(g_process.runtime, group, &task, &err);
    if (code == RAY_TIMED_OUT) {
      ray_error_release(std::exchange(err, nullptr));
      if (main_thread) title_idle();
      code = wait_for_task(idle, group, main_thread, &task, &err);
    }
    if (code == RAY_OK && !pass_on(idle, grow)) PyErr_WriteUnraisable(grow);
    if (code == RAY_CANCELLED) {
      ray_error_release(err);
      return PyUnicode_FromString("end");
    }
    if (code == RAY_TIMED_OUT) {
      ray_error_release(err);
    } else if (code != RAY_OK) {
      return raise_code(code, err);
    } else if (!run_task(task, main_thread)) {
      if (main_thread) title_idle();
      return PyUnicode_FromString("actor");
    } else if (g_retire) {
      return PyUnicode_FromString("retire");
    }
    if (main_thread && PyErr_CheckSignals() != 0) PyErr_Clear();  // an interrupt that came too late
  }
}

// _worker_run(main, group=0, grow=None) -> "actor" (an actor was made here), "retire" (this process is used up) or "end".
// With main=False: a further thread of an actor, which grow() started.
PyObject* worker_run(PyObject*, PyObject* args) {
  int main_thread = 0;
  unsigned group = 0;
  PyObject* grow = nullptr;
  if (!PyArg_ParseTuple(args, "p|IO", &main_thread, &group, &grow)) return nullptr;
  if (g_process.runtime == nullptr) return raise_code(RAY_WRONG_STATE, nullptr);
  if (main_thread) g_main_thread = pthread_self();
  while (g_idle.size() <= group) g_idle.emplace_back();
  Idle* idle = &g_idle[group];
  if (!main_thread) arrived(idle);
  PyObject* why = run_tasks(idle, group, main_thread, grow);
  unpark_all(idle);
  return why;
}

// Whether the task of this thread, or of the main thread (for threads of the user's own), is
// cancelled.
PyObject* task_cancelled_now(PyObject*, PyObject*) {
  ray_task* task = t_task != nullptr ? t_task : g_main_task.load();
  return PyBool_FromLong(task != nullptr && ray_task_is_cancelled(task));
}

// _worker_exit(): the actor ends after what runs now. False: nothing of an actor runs here.
PyObject* worker_exit(PyObject*, PyObject*) {
  ray_error* err = nullptr;
  const ray_code code = ray_worker_exit(g_process.runtime, ray_cstr(kExitActor), &err);
  if (code != RAY_OK) return raise_code(code, err);
  g_exiting = true;
  if (t_exits != nullptr) *t_exits = true;
  Py_RETURN_NONE;
}

// _worker_exiting() -> whether this actor ends by its own will.
PyObject* worker_exiting(PyObject*, PyObject*) { return PyBool_FromLong(g_exiting.load()); }

// _worker_groups([limit, ...]): the concurrency groups of this actor.
PyObject* worker_groups(PyObject*, PyObject* list) {
  Owned fast(PySequence_Fast(list, "a list of numbers is needed"));
  if (!fast) return nullptr;
  std::vector<uint32_t> limits;
  for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(fast.get()); ++i) {
    limits.push_back(
        static_cast<uint32_t>(PyLong_AsUnsignedLong(PySequence_Fast_GET_ITEM(fast.get(), i))));
    if (PyErr_Occurred()) return nullptr;
  }
  ray_error* err = nullptr;
  const ray_code code =
      ray_worker_set_groups(g_process.runtime, limits.data(), limits.size(), &err);
  if (code != RAY_OK) return raise_code(code, err);
  Py_RETURN_NONE;
}

// _limit_streams(n): of all generators of this actor together.
PyObject* limit_streams(PyObject*, PyObject* items) {
  const unsigned long n = PyLong_AsUnsignedLong(items);
  if (PyErr_Occurred()) return nullptr;
  ray_error* err = nullptr;
  const uint32_t most = n > UINT32_MAX ? UINT32_MAX : static_cast<uint32_t>(n);
  const ray_code code = ray_worker_limit_streams(g_process.runtime, most, &err);
  if (code != RAY_OK) return raise_code(code, err);
  Py_RETURN_NONE;
}

// _current_task() -> (label, function, method, attempt, id) of the task that this thread or else the
// main thread runs, or None. Attempts count from 0, as in Ray.
PyObject* current_task(PyObject*, PyObject*) {
  ray_task* task = t_task != nullptr ? t_task : g_main_task.load();
  ray_task_info info;
  info.struct_size = sizeof(info);
  if (task == nullptr || ray_task_get_info(task, &info) != RAY_OK) Py_RETURN_NONE;
  Owned label(label_of(info));
  if (!label) return nullptr;
  return Py_BuildValue("Os#s#Iy#", label.get(), info.function.data,
                       static_cast<Py_ssize_t>(info.function.size), info.method.data,
                       static_cast<Py_ssize_t>(info.method.size), info.attempt - 1,
                       reinterpret_cast<const char*>(&info.id),
                       static_cast<Py_ssize_t>(sizeof(info.id)));
}

// _constructor_concurrency() -> how many calls at a time the actor's creator asked for; of the constructor that this
// thread runs.
PyObject* constructor_concurrency(PyObject*, PyObject*) {
  ray_task_info info;
  info.struct_size = sizeof(info);
  if (t_task == nullptr || ray_task_get_info(t_task, &info) != RAY_OK) return PyLong_FromLong(1);
  return PyLong_FromUnsignedLong(info.max_concurrency);
}

// Whether the handler of SIGINT is to raise: the main thread's task is cancelled and was not told
// yet.
PyObject* take_interrupt(PyObject*, PyObject*) {
  ray_task* task = g_main_task.load();
  const bool take = task != nullptr && g_interruptible.load() && !g_interrupt_given &&
                    ray_task_is_cancelled(task);
  if (take) g_interrupt_given = true;
  return PyBool_FromLong(take);
}

PyObject* actor_instance(PyObject*, PyObject*) {
  return new_ref(g_instance != nullptr ? g_instance : Py_None);
}

// _drop_actor(): lets go of the actor's instance, whose __del__ runs unless something else refers to it.
PyObject* drop_actor(PyObject*, PyObject*) {
  for (auto& [name, method] : std::exchange(g_methods, {})) Py_DECREF(method);
  Py_CLEAR(g_instance);
  Py_RETURN_NONE;
}

// SIGTERM: Python's own handler notes the signal for the main thread; a main thread that waits for a task is woken.
void on_sigterm(int signal, siginfo_t* info, void* context) {
  if (g_python_sigterm.sa_flags & SA_SIGINFO)
    g_python_sigterm.sa_sigaction(signal, info, context);
  else if (g_python_sigterm.sa_handler != SIG_DFL && g_python_sigterm.sa_handler != SIG_IGN)
    g_python_sigterm.sa_handler(signal);
  if (getpid() != g_serving_pid) return;  // a child
  g_terminated = true;
  if (ray_runtime* rt = g_serving.load()) ray_worker_stop(rt);
}

// _wake_for_sigterm(): to be called when Python's handler of SIGTERM is set.
PyObject* wake_for_sigterm(PyObject*, PyObject*) {
  g_serving_pid = getpid();
  g_serving = g_process.runtime;
  struct sigaction ours = {};
  ours.sa_sigaction = on_sigterm;
  ours.sa_flags = SA_SIGINFO | SA_ONSTACK;
  if (sigaction(SIGTERM, nullptr, &g_python_sigterm) != 0 || sigaction(SIGTERM, &ours, nullptr) != 0)
    return PyErr_SetFromErrno(PyExc_OSError);
  Py_RETURN_NONE;
}

PyObject* worker_setup(PyObject*, PyObject* args) {  // (class ActorExit, exception -> bool)
  PyObject *actor_exit, *unknown_function;
  if (!PyArg_ParseTuple(args, "OO", &actor_exit, &unknown_function)) return nullptr;
  g_actor_exit = new_ref(actor_exit);
  g_unknown_function = new_ref(unknown_function);
  g_main_thread = pthread_self();
  // However it forks: os.fork, a library's fork.
  pthread_atfork(nullptr, nullptr, [] { g_process.forked_from_worker = true; });
  ray_error* err = nullptr;
  const ray_code code = ray_worker_on_interrupt(g_process.runtime, on_interrupt, nullptr, &err);
  if (code != RAY_OK) return raise_code(code, err);
  Py_RETURN_NONE;
}

// _task_label() -> what the main thread's task is called, for people; None when it runs none.
PyObject* task_label(PyObject*, PyObject*) {
  ray_task* task = g_main_task.load();
  ray_task_info info;
  info.struct_size = sizeof(info);
  if (task == nullptr || ray_task_get_info(task, &info) != RAY_OK) Py_RETURN_NONE;
  const char* data = info.name.data;
  size_t size = info.name.size;
  if (size == info.function.size && memcmp(data, info.function.data, size) == 0) {
    // A function's own name without its module and scopes.
    for (size_t i = size; i > 0; --i) {
      if (data[i - 1] != '.') continue;
      data += i;
      size -= i;
      break;
    }
  }
  return PyUnicode_DecodeUTF8(data, static_cast<Py_ssize_t>(size), "replace");
}

// _title_room(begin, end): addresses of the arguments that the kernel shows of this process.
PyObject* title_room(PyObject*, PyObject* args) {
  unsigned long long begin, end;
  if (!PyArg_ParseTuple(args, "KK", &begin, &end)) return nullptr;
  prepare_title(reinterpret_cast<const char*>(begin), reinterpret_cast<const char*>(end));
  Py_RETURN_NONE;
}

PyObject* output_pending(PyObject*, PyObject*) {
  g_output_waits = true;
  Py_RETURN_NONE;
}

PyObject* set_flush(PyObject*, PyObject* callable) {
  Py_XDECREF(std::exchange(g_flush, new_ref(callable)));
  Py_RETURN_NONE;
}

PyMethodDef module_methods[] = {{"_worker_run", worker_run, METH_VARARGS, nullptr},
                                {"_worker_exit", worker_exit, METH_NOARGS, nullptr},
                                {"_worker_exiting", worker_exiting, METH_NOARGS, nullptr},
                                {"_limit_streams", limit_streams, METH_O, nullptr},
                                {"_worker_groups", worker_groups, METH_O, nullptr},
                                {"_worker_setup", worker_setup, METH_VARARGS, nullptr},
                                {"_task_label", task_label, METH_NOARGS, nullptr},
                                {"_title_room", title_room, METH_VARARGS, nullptr},
                                {"_title_set", title_set, METH_O, nullptr},
                                {"_title_get", title_get, METH_NOARGS, nullptr},
                                {"_output_pending", output_pending, METH_NOARGS, nullptr},
                                {"_set_flush", set_flush, METH_O, nullptr},
                                {"_constructor_concurrency", constructor_concurrency, METH_NOARGS, nullptr},
                                {"_take_interrupt", take_interrupt, METH_NOARGS, nullptr},
                                {"_main_task_cancelled", task_cancelled_now, METH_NOARGS, nullptr},
                                {"_current_task", current_task, METH_NOARGS, nullptr},
                                {"_actor_instance", actor_instance, METH_NOARGS, nullptr},
                                {"_drop_actor", drop_actor, METH_NOARGS, nullptr},
                                {"_wake_for_sigterm", wake_for_sigterm, METH_NOARGS, nullptr},
                                {nullptr, nullptr, 0, nullptr}};

}  // namespace

bool init_worker_types(PyObject* module) {
  return init_loop_types(module) && PyModule_AddFunctions(module, module_methods) == 0;
}

}  // namespace libray_py
