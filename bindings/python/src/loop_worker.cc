// Calls in the hands of an event loop: an asyncio actor's, one LoopCalls per concurrency group, used
// by _AsyncActor (worker/loops.py) in the thread of the group's loop.
//
// A call's first step runs at once, without a turn of the loop: most coroutines that never wait are
// done then, and so is the call. That step already runs as an asyncio task, which the coroutine keeps
// if it is suspended: `current_task()` in it is the spare task, a real one that waits for work. The
// coroutine is then bound to the spare's Steps, and the next call gets a new spare. A spare that a
// finished call may have left traces on (a reference, a callback, a name, a cancellation) is not used
// again. Each call has a context (contextvars) of its own.
#include <sys/eventfd.h>
#include <unistd.h>

#include <cstddef>
#include <mutex>
#include <vector>

#include "worker.h"

namespace libray_py {

PyTypeObject TaskType = {PyVarObject_HEAD_INIT(nullptr, 0)};
PyTypeObject StepsType = {PyVarObject_HEAD_INIT(nullptr, 0)};
PyTypeObject LoopCallsType = {PyVarObject_HEAD_INIT(nullptr, 0)};

namespace {

// Event loops that are told of cancelled tasks: an eventfd and a list each.
struct CancelBox {
  int fd;
  std::vector<ray_task*> tasks;
};
std::mutex g_cancel_mutex;
std::vector<CancelBox> g_cancel_boxes;

struct TaskObject {              // a call that did not end in its first step
  PyObject_HEAD ray_task* task;  // null once finished
  PyObject* note;                // bytes, or null
  bool exits;                    // the call has ended its actor: its caller sees that end
};
TaskObject* as_task(PyObject* o) { return reinterpret_cast<TaskObject*>(o); }

}  // namespace

void tell_loops(ray_task* cancelled) {
  std::lock_guard<std::mutex> lock(g_cancel_mutex);
  for (CancelBox& box : g_cancel_boxes) {
    box.tasks.push_back(cancelled);
    const uint64_t one = 1;
    (void)!write(box.fd, &one, sizeof(one));
  }
}

namespace {

PyObject* worker_fd(PyObject*, PyObject* which) {
  const unsigned long group = PyLong_AsUnsignedLong(which);
  if (PyErr_Occurred()) return nullptr;
  return PyLong_FromLong(ray_worker_group_fd(g_process.runtime, static_cast<uint32_t>(group)));
}

// _worker_poll(group, timeout, fd) -> whether there is something to take; looks for a while, but does
// not sleep. See ray_worker_poll.
PyObject* worker_poll(PyObject*, PyObject* const* args, Py_ssize_t n) {
  if (n != 3) return PyErr_Format(PyExc_TypeError, "_worker_poll takes 3 arguments");
  const unsigned long group = PyLong_AsUnsignedLong(args[0]);
  const double seconds = args[1] == Py_None ? -1 : PyFloat_AsDouble(args[1]);
  const long fd = PyLong_AsLong(args[2]);
  if (PyErr_Occurred()) return nullptr;
  ray_runtime* rt = g_process.runtime;
  const auto which = static_cast<uint32_t>(group);
  ray_code code = ray_worker_poll(rt, which, 0, -1);
  if (code == RAY_TIMED_OUT && seconds != 0) {
    const int64_t ns = seconds < 0 || seconds > 1 ? -1 : static_cast<int64_t>(seconds * 1e9);
    Py_BEGIN_ALLOW_THREADS code = ray_worker_poll(rt, which, ns, static_cast<int>(fd));
    Py_END_ALLOW_THREADS
  }
  return PyBool_FromLong(code == RAY_OK);
}

// _worker_cancel_fd() -> a new descriptor: readable when tasks were cancelled.
PyObject* cancel_fd(PyObject*, PyObject*) {
  const int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (fd < 0) return PyErr_SetFromErrno(PyExc_OSError);
  std::lock_guard<std::mutex> lock(g_cancel_mutex);
  g_cancel_boxes.push_back({fd, {}});
  return PyLong_FromLong(fd);
}

// _worker_cancelled(fd) -> addresses of tasks to cancel (Task.key).
PyObject* worker_cancelled(PyObject*, PyObject* which) {
  const long fd = PyLong_AsLong(which);
  if (PyErr_Occurred()) return nullptr;
  uint64_t count;
  (void)!read(static_cast<int>(fd), &count, sizeof(count));
  std::vector<ray_task*> tasks;
  {
    std::lock_guard<std::mutex> lock(g_cancel_mutex);
    for (CancelBox& box : g_cancel_boxes)
      if (box.fd == fd) tasks.swap(box.tasks);
  }
  Owned list(PyList_New(0));
  for (ray_task* t : tasks) {
    Owned key(PyLong_FromVoidPtr(t));
    if (!list || !key || PyList_Append(list.get(), key.get()) != 0) return nullptr;
  }
  return list.release();
}

// While it exists, this thread runs a part of that task: ids, children and cancellation are its own.
class Step {
 public:
  explicit Step(TaskObject* t) : task_(t_task), exits_(t_exits) {
    enter(t->task, &t->exits);
  }
  ~Step() { enter(task_, exits_); }
  Step(const Step&) = delete;
  Step& operator=(const Step&) = delete;

 private:
  static void enter(ray_task* task, bool* exits) {
    t_task = task;
    t_exits = exits;
    (void)ray_worker_enter(g_process.runtime, task, nullptr);
  }
  ray_task* task_;
  bool* exits_;
};

PyObject* task_new(ray_task* task, Note* note, bool exits) {
  auto* t = PyObject_New(TaskObject, &TaskType);
  if (t == nullptr) {
    ray_task_finish(task, RAY_TASK_FAILED);
    return nullptr;
  }
  t->task = task;
  t->note = note->bytes.release();
  t->exits = exits;
  return reinterpret_cast<PyObject*>(t);
}

bool alive(TaskObject* t) {
  if (t->task != nullptr) return true;
  PyErr_SetString(PyExc_RuntimeError, "the task is finished");
  return false;
}

PyObject* task_end_stream(PyObject* self, PyObject*) {
  TaskObject* t = as_task(self);
  if (!alive(t)) return nullptr;
  ray_task_finish(std::exchange(t->task, nullptr), RAY_OK);
  Py_RETURN_NONE;
}

PyObject* task_fail(PyObject* self, PyObject* exception) {
  TaskObject* t = as_task(self);
  if (!alive(t)) return nullptr;
  if (t->exits) {
    finish_exiting(std::exchange(t->task, nullptr));
    Py_RETURN_NONE;
  }
  ray_task_info info;
  info.struct_size = sizeof(info);
  ray_task_get_info(t->task, &info);
  PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(exception)), exception);
  Note note;
  if (t->note != nullptr) note.bytes = Owned(new_ref(t->note));
  finish_with_exception(std::exchange(t->task, nullptr), info, note);
  Py_RETURN_NONE;
}

// The call ends as cancelled, also when it was no caller who cancelled it: a CancelledError that leaves a method must not
// reach its caller as such, where it would cancel whatever awaits the call. Consumes the task.
void finish_cancelled(ray_task* task) {
  if (!ray_task_is_cancelled(task))
    ray_task_fail(task, ray_cstr("the method let a CancelledError out"), nullptr);
  ray_task_finish(task, RAY_CANCELLED);
}

PyObject* task_finish_cancelled(PyObject* self, PyObject*) {
  TaskObject* t = as_task(self);
  if (!alive(t)) return nullptr;
  finish_cancelled(std::exchange(t->task, nullptr));
  Py_RETURN_NONE;
}

// room_now() -> True (there is room for one more item), None (not now), False (nobody wants more).
PyObject* task_room(PyObject* self, PyObject*) {
  TaskObject* t = as_task(self);
  if (!alive(t)) return nullptr;
  const ray_code r = ray_task_await_room(t->task, 0, nullptr);
  return new_ref(r == RAY_OK ? Py_True : r == RAY_TIMED_OUT ? Py_None : Py_False);
}

// yield_now(value) -> True (given), None (the window is full), False (nobody wants more).
PyObject* task_yield(PyObject* self, PyObject* value) {
  TaskObject* t = as_task(self);
  if (!alive(t)) return nullptr;
  ray_task_info info;
  info.struct_size = sizeof(info);
  ray_task_get_info(t->task, &info);
  Note note;
  if (t->note != nullptr) note.bytes = Owned(new_ref(t->note));
  const int r = yield_item(t->task, value, for_python(info, note), false);
  if (r == -1) return nullptr;
  return new_ref(r == RAY_OK ? Py_True : r == RAY_TIMED_OUT ? Py_None : Py_False);
}

// group(item) -> the objects that one `yield` gave.
PyObject* task_group(PyObject* self, PyObject* item) {
  TaskObject* t = as_task(self);
  Note note;
  if (t->note != nullptr) note.bytes = Owned(new_ref(t->note));
  const unsigned n = note.per_yield();
  return n == 1 ? PyTuple_Pack(1, item) : yielded_group(item, n);
}

PyObject* task_key(PyObject* self, void*) { return PyLong_FromVoidPtr(as_task(self)->task); }
PyObject* task_is_cancelled(PyObject* self, void*) {
  return PyBool_FromLong(as_task(self)->task != nullptr &&
                         ray_task_is_cancelled(as_task(self)->task));
}

void task_dealloc(PyObject* self) {  // a task that was dropped must still end
  if (as_task(self)->task != nullptr) {
    ray_task_fail(as_task(self)->task, ray_cstr("the task was dropped by its event loop"), nullptr);
    ray_task_finish(as_task(self)->task, RAY_TASK_FAILED);
  }
  Py_XDECREF(as_task(self)->note);
  PyObject_Free(self);
}

// ---- Steps: a coroutine whose every step runs as a part of its call

struct LoopCallsObject;
struct StepsObject {
  PyObject_HEAD PyObject* coroutine;  // null: a spare, or over
  PyObject* task;
  LoopCallsObject* calls;  // ends the call with the coroutine; null: the coroutine does so itself
  PyObject* first;         // what the first step waits for, not yet handed on to asyncio
  PyObject* context;       // contextvars; null: those of the asyncio task
  PyObject* parking;       // the future that a spare waits for
  bool used_up;            // a spare that is to end
};
StepsObject* as_steps(PyObject* o) { return reinterpret_cast<StepsObject*>(o); }

struct LoopCallsObject {
  PyObject_HEAD PyObject* loop;
  PyObject* on_suspend;  // (key, asyncio task, Task) -> None
  PyObject* on_stream;   // (Task, iterator) -> None
  PyObject* on_end;      // (key) -> None: a suspended call is over
  PyObject* spare;       // an asyncio task over `steps`; both null: to be made
  StepsObject* steps;
  PyObject* name;  // of the spare
  uint32_t group;
};
LoopCallsObject* as_calls(PyObject* o) { return reinterpret_cast<LoopCallsObject*>(o); }

struct Names {  // of asyncio and its objects, made once
  PyObject *enter_task, *leave_task, *register_task, *unregister_task, *iscoroutine, *cancelled_error,
      *count_weakrefs;
  PyObject *create_task, *create_future, *blocking, *set_result, *done, *cancel, *send, *throw_,
      *callbacks, *must_cancel, *get_name, *log_destroy_pending;
};
Names g_names;

bool load_names() {
  if (g_names.log_destroy_pending != nullptr) return true;
  Owned tasks(PyImport_ImportModule("asyncio.tasks")), weak(PyImport_ImportModule("weakref"));
  Owned asyncio(PyImport_ImportModule("asyncio"));
  if (!tasks || !weak || !asyncio) return false;
  const auto from = [](const Owned& module, const char* name, PyObject** out) {
    return (*out = PyObject_GetAttrString(module.get(), name)) != nullptr;
  };
  const auto text = [](const char* name, PyObject** out) {
    return (*out = PyUnicode_InternFromString(name)) != nullptr;
  };
  Names& n = g_names;
  return from(tasks, "_enter_task", &n.enter_task) && from(tasks, "_leave_task", &n.leave_task) &&
         from(tasks, "_register_task", &n.register_task) &&
         from(tasks, "_unregister_task", &n.unregister_task) &&
         from(asyncio, "iscoroutine", &n.iscoroutine) &&
         from(asyncio, "CancelledError", &n.cancelled_error) &&
         from(weak, "getweakrefcount", &n.count_weakrefs) && text("create_task", &n.create_task) &&
         text("create_future", &n.create_future) &&
         text("_asyncio_future_blocking", &n.blocking) && text("set_result", &n.set_result) &&
         text("done", &n.done) && text("cancel", &n.cancel) && text("send", &n.send) &&
         text("throw", &n.throw_) && text("_callbacks", &n.callbacks) &&
         text("_must_cancel", &n.must_cancel) && text("get_name", &n.get_name) &&
         text("_log_destroy_pending", &n.log_destroy_pending);
}

enum class Sent { kNext, kReturn, kError };  // a coroutine is suspended, over, or raised

// What a call of `throw`, or of `send` on something else than a coroutine, came to.
Sent outcome(PyObject* yielded, PyObject** out) {
  end_forked_child(yielded != nullptr);
  *out = yielded;
  if (yielded != nullptr) return Sent::kNext;
  if (!PyErr_ExceptionMatches(PyExc_StopIteration)) return Sent::kError;
  PyObject *type, *value, *trace;
  PyErr_Fetch(&type, &value, &trace);
  PyErr_NormalizeException(&type, &value, &trace);
  Owned t(type), v(value), tb(trace);
  *out = v ? PyObject_GetAttrString(v.get(), "value") : nullptr;
  return *out != nullptr ? Sent::kReturn : Sent::kError;
}

Sent send(PyObject* coroutine, PyObject* value, PyObject** out) {
#if PY_VERSION_HEX >= 0x030A0000
  const PySendResult r = PyIter_Send(coroutine, value, out);
  end_forked_child(r == PYGEN_NEXT);
  return r == PYGEN_NEXT ? Sent::kNext : r == PYGEN_RETURN ? Sent::kReturn : Sent::kError;
#else
  return outcome(PyObject_CallMethodOneArg(coroutine, g_names.send, value), out);
#endif
}

// The call is over: gives its result or its error. Consumes the task and the value.
void end_call(ray_task* task, Sent sent, Owned value, const Note& note, bool exits) {
  if (__builtin_expect(g_output_waits, 0)) flush_output();
  if (__builtin_expect(exits, 0)) {
    PyErr_Clear();
    return finish_exiting(task);
  }
  ray_task_info info;
  info.struct_size = sizeof(info);
  ray_task_get_info(task, &info);
  if (sent == Sent::kReturn && give_result(task, value.get(), info, note) == RAY_OK) {
    value = Owned();  // when the caller sees the result, this process holds nothing of it
    ray_task_finish(task, RAY_OK);
  } else if (sent == Sent::kError && PyErr_ExceptionMatches(g_names.cancelled_error)) {
    PyErr_Clear();
    finish_cancelled(task);
  } else {
    finish_with_exception(task, info, note);
  }
}

// A suspended call has ended with this step. To asyncio its task is over in any case.
void end_bound(StepsObject* s, Sent sent, PyObject* value) {
  TaskObject* t = as_task(s->task);
  Owned result(value), key(PyLong_FromVoidPtr(t->task));
  Note note;
  note.bytes = Owned(std::exchange(t->note, nullptr));
  end_call(std::exchange(t->task, nullptr), sent, std::move(result), note, t->exits);
  t_task = nullptr;
  t_exits = nullptr;
  Py_CLEAR(s->coroutine);
  Owned done(key ? PyObject_CallOneArg(s->calls->on_end, key.get()) : nullptr);
  if (!done) PyErr_WriteUnraisable(s->calls->on_end);
}

// What a step of a bound coroutine tells asyncio.
PyObject* after_step(StepsObject* s, Sent sent, PyObject* value) {
  if (sent == Sent::kNext) return value;
  end_bound(s, sent, value);
  PyErr_SetNone(PyExc_StopIteration);
  return nullptr;
}

// A spare's first step: it waits for the call that it will belong to.
PyObject* park(StepsObject* s) {
  Owned future(PyObject_CallMethodNoArgs(s->calls->loop, g_names.create_future));
  if (!future || PyObject_SetAttr(future.get(), g_names.blocking, Py_True) != 0) return nullptr;
  s->parking = new_ref(future.get());
  return future.release();
}

PyObject* steps_send(PyObject* self, PyObject* value) {
  StepsObject* s = as_steps(self);
  if (s->first != nullptr) return std::exchange(s->first, nullptr);
  if (s->coroutine == nullptr) {
    if (s->calls != nullptr && !s->used_up && s->parking == nullptr) return park(s);
    PyErr_SetNone(PyExc_StopIteration);
    return nullptr;
  }
  if (s->calls == nullptr) {
    const Step step(as_task(s->task));
    return PyObject_CallMethodOneArg(s->coroutine, g_names.send, value);
  }
  PyObject* out = nullptr;
  const Step step(as_task(s->task));
  if (PyContext_Enter(s->context) != 0) return nullptr;
  const Sent sent = send(s->coroutine, value, &out);
  PyContext_Exit(s->context);
  return after_step(s, sent, out);
}

// A cancellation that comes before asyncio knows what the first step waits for goes to that first,
// as it would had asyncio known it.
bool cancel_first(StepsObject* s, PyObject* args) {
  PyObject* what = PyTuple_GET_SIZE(args) != 0 ? PyTuple_GET_ITEM(args, 0) : nullptr;
  if (what == nullptr || s->first == Py_None) return false;
  if (!PyErr_GivenExceptionMatches(what, g_names.cancelled_error)) return false;
  Owned done(PyObject_CallMethodNoArgs(s->first, g_names.cancel));
  if (!done) PyErr_Clear();
  return done.get() == Py_True;
}

PyObject* steps_throw(PyObject* self, PyObject* args) {
  StepsObject* s = as_steps(self);
  if (s->first != nullptr) {
    if (cancel_first(s, args)) return std::exchange(s->first, nullptr);
    Py_CLEAR(s->first);
  }
  if (s->coroutine == nullptr) {  // a spare that somebody cancelled
    s->used_up = true;
    PyErr_SetNone(g_names.cancelled_error);
    return nullptr;
  }
  Owned method(PyObject_GetAttr(s->coroutine, g_names.throw_));
  if (!method) return nullptr;
  if (s->calls == nullptr) {
    const Step step(as_task(s->task));
    return PyObject_Call(method.get(), args, nullptr);
  }
  PyObject* out = nullptr;
  const Step step(as_task(s->task));
  if (PyContext_Enter(s->context) != 0) return nullptr;
  const Sent sent = outcome(PyObject_Call(method.get(), args, nullptr), &out);
  PyContext_Exit(s->context);
  return after_step(s, sent, out);
}

StepsObject* steps_new(PyObject* coroutine, PyObject* task, LoopCallsObject* calls) {
  auto* s = PyObject_GC_New(StepsObject, &StepsType);
  if (s == nullptr) return nullptr;
  s->coroutine = coroutine != nullptr ? new_ref(coroutine) : nullptr;
  s->task = task != nullptr ? new_ref(task) : nullptr;
  s->calls = calls;
  Py_XINCREF(reinterpret_cast<PyObject*>(calls));
  s->first = s->context = s->parking = nullptr;
  s->used_up = false;
  PyObject_GC_Track(reinterpret_cast<PyObject*>(s));
  return s;
}
PyObject* task_steps(PyObject* self, PyObject* coroutine) {
  return reinterpret_cast<PyObject*>(steps_new(coroutine, self, nullptr));
}
int steps_clear(PyObject* self) {
  StepsObject* s = as_steps(self);
  Py_CLEAR(s->coroutine);
  Py_CLEAR(s->task);
  Py_CLEAR(s->calls);
  Py_CLEAR(s->first);
  Py_CLEAR(s->context);
  Py_CLEAR(s->parking);
  return 0;
}
void steps_dealloc(PyObject* self) {
  PyObject_GC_UnTrack(self);
  steps_clear(self);
  PyObject_GC_Del(self);
}
int steps_traverse(PyObject* self, visitproc visit, void* arg) {
  StepsObject* s = as_steps(self);
  Py_VISIT(s->coroutine);
  Py_VISIT(s->task);
  Py_VISIT(s->calls);
  Py_VISIT(s->first);
  Py_VISIT(s->context);
  Py_VISIT(s->parking);
  return 0;
}
PyObject* steps_close(PyObject* self, PyObject*) {
  if (as_steps(self)->coroutine == nullptr) Py_RETURN_NONE;
  return PyObject_CallMethod(as_steps(self)->coroutine, "close", nullptr);
}
PyObject* steps_next(PyObject* self) { return steps_send(self, Py_None); }
PyObject* steps_self(PyObject* self) { return new_ref(self); }
PyObject* steps_get(PyObject* self, PyObject* name) {  // cr_frame, __name__, ...: the coroutine's
  PyObject* own = PyObject_GenericGetAttr(self, name);
  if (own != nullptr || !PyErr_ExceptionMatches(PyExc_AttributeError)) return own;
  if (as_steps(self)->coroutine == nullptr) return nullptr;
  PyErr_Clear();
  return PyObject_GetAttr(as_steps(self)->coroutine, name);
}
PyMethodDef steps_methods[] = {{"send", steps_send, METH_O, nullptr},
                               {"throw", steps_throw, METH_VARARGS, nullptr},
                               {"close", steps_close, METH_NOARGS, nullptr},
                               {nullptr, nullptr, 0, nullptr}};
PyAsyncMethods steps_async = {};

// ---- LoopCalls: takes calls, runs their first steps

bool make_spare(LoopCallsObject* c) {
  StepsObject* steps = steps_new(nullptr, nullptr, c);
  if (steps == nullptr) return false;
  Owned keep(reinterpret_cast<PyObject*>(steps));
  Owned task(PyObject_CallMethodOneArg(c->loop, g_names.create_task, keep.get()));
  if (!task) return false;
  Owned gone(PyObject_CallOneArg(g_names.unregister_task, task.get()));  // not in all_tasks()
  Owned name(PyObject_CallMethodNoArgs(task.get(), g_names.get_name));
  if (!gone || !name) return false;
  if (PyObject_SetAttr(task.get(), g_names.log_destroy_pending, Py_False) != 0) PyErr_Clear();
  c->spare = task.release();
  c->name = name.release();
  c->steps = steps;
  keep.release();
  return true;
}

// The spare's task is somebody's from now on, or of no use any more.
void wake_spare(LoopCallsObject* c) {
  if (c->steps->parking != nullptr) {
    Owned is_done(PyObject_CallMethodNoArgs(c->steps->parking, g_names.done));
    if (is_done.get() == Py_False) {
      Owned set(PyObject_CallMethodOneArg(c->steps->parking, g_names.set_result, Py_None));
      if (!set) PyErr_WriteUnraisable(c->steps->parking);
    } else if (!is_done) {
      PyErr_WriteUnraisable(c->steps->parking);
    }
  }
  Py_CLEAR(c->spare);
  Py_CLEAR(c->steps);
  Py_CLEAR(c->name);
}

// Whether the call that has ended with its first step left nothing behind on the spare.
bool untouched(LoopCallsObject* c, Py_ssize_t refs_before) {
  if (Py_REFCNT(c->spare) != refs_before) return false;
  Owned callbacks(PyObject_GetAttr(c->spare, g_names.callbacks));
  if (!callbacks || PyObject_IsTrue(callbacks.get()) != 0) return false;
  Owned weak(PyObject_CallOneArg(g_names.count_weakrefs, c->spare));
  if (!weak || PyObject_IsTrue(weak.get()) != 0) return false;
  Owned name(PyObject_CallMethodNoArgs(c->spare, g_names.get_name));
  if (name.get() != c->name) return false;
  Owned cancelled(c->steps->parking != nullptr
                      ? PyObject_CallMethodNoArgs(c->steps->parking, g_names.done)
                      : PyObject_GetAttr(c->spare, g_names.must_cancel));
  return cancelled.get() == Py_False;
}

// The call waits for something: the rest of it belongs to the spare's task.
void suspend(LoopCallsObject* c, ray_task* task, Note* note, bool exits, PyObject* coroutine,
             Owned first, Owned context) {
  (void)ray_worker_enter(g_process.runtime, nullptr, nullptr);
  Owned call(task_new(task, note, exits));
  if (!call) return PyErr_WriteUnraisable(nullptr);
  StepsObject* s = c->steps;
  s->coroutine = new_ref(coroutine);
  s->task = new_ref(call.get());
  s->first = first.release();
  s->context = context.release();
  Owned spare(new_ref(c->spare)), key(PyLong_FromVoidPtr(task));
  Owned known(PyObject_CallOneArg(g_names.register_task, spare.get()));
  if (!known) PyErr_WriteUnraisable(spare.get());
  wake_spare(c);
  Owned told(key ? PyObject_CallFunctionObjArgs(c->on_suspend, key.get(), spare.get(), call.get(),
                                                nullptr)
                 : nullptr);
  if (!told) PyErr_WriteUnraisable(c->on_suspend);
}

bool is_coroutine(PyObject* o) {
  if (PyCoro_CheckExact(o)) return true;
  const PyAsyncMethods* methods = Py_TYPE(o)->tp_as_async;
  if (methods == nullptr || methods->am_await == nullptr) return false;
  Owned yes(PyObject_CallOneArg(g_names.iscoroutine, o));
  if (!yes) PyErr_Clear();
  return yes.get() == Py_True;
}

// While it exists, this thread is in a call: to asyncio and to contextvars.
class Turn {
 public:
  Turn(LoopCallsObject* c, PyObject* context) : args_{c->loop, c->spare}, context_(context) {
    // Refused where the loop runs inside a task of its own (nested loops): then without.
    entered_ = static_cast<bool>(Owned(PyObject_Vectorcall(g_names.enter_task, args_, 2, nullptr)));
    if (!entered_) PyErr_Clear();
    (void)PyContext_Enter(context_);
  }
  ~Turn() {
    PyObject *type, *value, *trace;
    PyErr_Fetch(&type, &value, &trace);
    (void)PyContext_Exit(context_);
    if (entered_) {
      Owned left(PyObject_Vectorcall(g_names.leave_task, args_, 2, nullptr));
      if (!left) PyErr_Clear();
    }
    PyErr_Restore(type, value, trace);
  }
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;

 private:
  PyObject* args_[2];
  PyObject* context_;
  bool entered_;
};

// What this thread runs, until the call has ended or waits.
struct Running {
  Running(ray_task* task, bool* exits) {
    t_task = task;
    t_exits = exits;
  }
  ~Running() {
    t_task = nullptr;
    t_exits = nullptr;
  }
  Running(const Running&) = delete;
  Running& operator=(const Running&) = delete;
};

// Calls the method and runs the first step of what it returned, if that is a coroutine.
Sent begin(ray_task* task, const ray_task_info& info, Note* note, Owned* coroutine, PyObject** out) {
  PyObject* callable = method_of(info);
  Owned result;
  {
    CallArgs args;
    if (callable == nullptr || !decode_arguments(task, &args, note)) return Sent::kError;
    result = Owned(call(callable, args));
  }
  if (!result) return Sent::kError;
  if (info.is_stream || !is_coroutine(result.get())) {
    *out = result.release();
    return Sent::kReturn;
  }
  *coroutine = std::move(result);
  return send(coroutine->get(), Py_None, out);
}

void run_call(LoopCallsObject* c, ray_task* task) {
  ray_task_info info;
  info.struct_size = sizeof(info);
  if (ray_task_get_info(task, &info) != RAY_OK) {
    ray_task_finish(task, RAY_TASK_FAILED);
    return;
  }
  Note note;
  bool exits = false;
  PyObject* out = nullptr;
  Sent sent = Sent::kError;
  Owned coroutine, context(PyContext_CopyCurrent());
  if (!context || (c->spare == nullptr && !make_spare(c)))
    return end_call(task, sent, Owned(), note, false);
  const Py_ssize_t refs = Py_REFCNT(c->spare);
  const Running running(task, &exits);
  {
    const Turn turn(c, context.get());
    sent = begin(task, info, &note, &coroutine, &out);
  }
  Owned value(out);
  if (sent == Sent::kNext) {
    return suspend(c, task, &note, exits, coroutine.get(), std::move(value), std::move(context));
  }
  if (info.is_stream && sent == Sent::kReturn) {
    (void)ray_worker_enter(g_process.runtime, nullptr, nullptr);
    Owned call(task_new(task, &note, exits));
    Owned told(call ? PyObject_CallFunctionObjArgs(c->on_stream, call.get(), value.get(), nullptr)
                    : nullptr);
    if (!told) PyErr_WriteUnraisable(c->on_stream);
  } else {
    coroutine = Owned();
    end_call(task, sent, std::move(value), note, exits);
  }
  if (untouched(c, refs)) return;
  PyErr_Clear();
  c->steps->used_up = true;
  wake_spare(c);
}

// take(n): runs the first steps of at most n calls. True: there may be more; None: there is nothing;
// False: this worker is to end.
PyObject* calls_take(PyObject* self, PyObject* most) {
  LoopCallsObject* c = as_calls(self);
  Py_ssize_t left = PyLong_AsSsize_t(most);
  if (left == -1 && PyErr_Occurred()) return nullptr;
  for (; left > 0; --left) {
    ray_task* task = nullptr;
    ray_error* err = nullptr;
    const ray_code code = next_task(g_process.runtime, c->group, &task, &err);
    if (code == RAY_TIMED_OUT || code == RAY_CANCELLED) {
      ray_error_release(err);
      return new_ref(code == RAY_TIMED_OUT ? Py_None : Py_False);
    }
    if (code != RAY_OK) return raise_code(code, err);
    run_call(c, task);
  }
  Py_RETURN_TRUE;
}

PyObject* calls_make(PyTypeObject* type, PyObject* args, PyObject*) {
  PyObject *loop, *on_suspend, *on_stream, *on_end;
  unsigned group;
  if (!PyArg_ParseTuple(args, "OIOOO", &loop, &group, &on_suspend, &on_stream, &on_end) ||
      !load_names()) {
    return nullptr;
  }
  auto* c = as_calls(type->tp_alloc(type, 0));
  if (c == nullptr) return nullptr;
  c->loop = new_ref(loop);
  c->on_suspend = new_ref(on_suspend);
  c->on_stream = new_ref(on_stream);
  c->on_end = new_ref(on_end);
  c->group = group;
  return reinterpret_cast<PyObject*>(c);
}
int calls_clear(PyObject* self) {
  LoopCallsObject* c = as_calls(self);
  Py_CLEAR(c->loop);
  Py_CLEAR(c->on_suspend);
  Py_CLEAR(c->on_stream);
  Py_CLEAR(c->on_end);
  Py_CLEAR(c->spare);
  Py_CLEAR(c->steps);
  Py_CLEAR(c->name);
  return 0;
}
void calls_dealloc(PyObject* self) {
  PyObject_GC_UnTrack(self);
  calls_clear(self);
  Py_TYPE(self)->tp_free(self);
}
int calls_traverse(PyObject* self, visitproc visit, void* arg) {
  LoopCallsObject* c = as_calls(self);
  Py_VISIT(c->loop);
  Py_VISIT(c->on_suspend);
  Py_VISIT(c->on_stream);
  Py_VISIT(c->on_end);
  Py_VISIT(c->spare);
  Py_VISIT(c->steps);
  return 0;
}
PyMethodDef calls_methods[] = {{"take", calls_take, METH_O, nullptr},
                               {nullptr, nullptr, 0, nullptr}};

PyMethodDef task_methods[] = {{"steps", task_steps, METH_O, nullptr},
                              {"end_stream", task_end_stream, METH_NOARGS, nullptr},
                              {"fail", task_fail, METH_O, nullptr},
                              {"finish_cancelled", task_finish_cancelled, METH_NOARGS, nullptr},
                              {"group", task_group, METH_O, nullptr},
                              {"room_now", task_room, METH_NOARGS, nullptr},
                              {"yield_now", task_yield, METH_O, nullptr},
                              {nullptr, nullptr, 0, nullptr}};
PyGetSetDef task_getset[] = {{"key", task_key, nullptr, nullptr, nullptr},
                             {"is_cancelled", task_is_cancelled, nullptr, nullptr, nullptr},
                             {nullptr, nullptr, nullptr, nullptr, nullptr}};

PyMethodDef loop_methods[] = {
    {"_worker_fd", worker_fd, METH_O, nullptr},
    {"_worker_poll", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(worker_poll)),
     METH_FASTCALL, nullptr},
    {"_worker_cancel_fd", cancel_fd, METH_NOARGS, nullptr},
    {"_worker_cancelled", worker_cancelled, METH_O, nullptr},
    {nullptr, nullptr, 0, nullptr}};

}  // namespace

bool init_loop_types(PyObject* module) {
  TaskType.tp_name = "libray._libray.Task";
  TaskType.tp_basicsize = sizeof(TaskObject);
  TaskType.tp_dealloc = task_dealloc;
  TaskType.tp_flags = Py_TPFLAGS_DEFAULT;
  TaskType.tp_methods = task_methods;
  TaskType.tp_getset = task_getset;
  StepsType.tp_name = "libray._libray.Steps";
  StepsType.tp_basicsize = sizeof(StepsObject);
  StepsType.tp_dealloc = steps_dealloc;
  StepsType.tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC;
  StepsType.tp_traverse = steps_traverse;
  StepsType.tp_clear = steps_clear;
  StepsType.tp_getattro = steps_get;
  StepsType.tp_methods = steps_methods;
  StepsType.tp_iter = steps_self;
  StepsType.tp_iternext = steps_next;
  steps_async.am_await = steps_self;
  StepsType.tp_as_async = &steps_async;
  LoopCallsType.tp_name = "libray._libray.LoopCalls";
  LoopCallsType.tp_basicsize = sizeof(LoopCallsObject);
  LoopCallsType.tp_dealloc = calls_dealloc;
  LoopCallsType.tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC;
  LoopCallsType.tp_traverse = calls_traverse;
  LoopCallsType.tp_clear = calls_clear;
  LoopCallsType.tp_methods = calls_methods;
  LoopCallsType.tp_new = calls_make;
  const auto add = [module](PyTypeObject* type, const char* name) {
    return PyType_Ready(type) == 0 &&
           PyModule_AddObject(module, name, new_ref(reinterpret_cast<PyObject*>(type))) == 0;
  };
  return PyType_Ready(&TaskType) == 0 && add(&StepsType, "Steps") &&
         add(&LoopCallsType, "LoopCalls") && PyModule_AddFunctions(module, loop_methods) == 0;
}

}  // namespace libray_py
