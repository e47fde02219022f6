// Completion queues for Python: many pending awaits behind one descriptor. An event loop watches
// fd(); a helper thread blocks in poll(). Each registration carries a Python object (a future or a
// callback) that comes back with the value.
#include <algorithm>
#include <cstddef>
#include <unordered_map>
#include <vector>

#include "refs.h"
#include "value.h"

namespace libray_py {

PyTypeObject QueueType = {PyVarObject_HEAD_INIT(nullptr, 0)};

namespace {

struct Waiting {
  PyObject* target;  // owned
  uint64_t token;    // of the notification
};
using Targets = std::unordered_map<uint64_t, Waiting>;

struct QueueObject {
  PyObject_HEAD ray_queue* queue;  // null: closed
  uint64_t next_tag;
  uint64_t generation;
  Targets* targets;
  std::vector<ray_completion>* backlog;  // taken, but there was no memory for their values: in order
};
QueueObject* as_queue(PyObject* o) { return reinterpret_cast<QueueObject*>(o); }

bool is_current(const QueueObject* q) {
  return q->queue != nullptr && g_process.runtime != nullptr && q->generation == g_process.generation;
}

PyObject* queue_new(PyTypeObject* type, PyObject*, PyObject*) {
  ray_runtime* rt = ensure_runtime();
  if (rt == nullptr) return nullptr;
  ray_queue* queue = nullptr;
  ray_error* err = nullptr;
  const ray_code code = ray_queue_create(rt, &queue, &err);
  if (code != RAY_OK) return raise_code(code, err);
  auto* q = reinterpret_cast<QueueObject*>(type->tp_alloc(type, 0));
  if (q == nullptr) {
    ray_queue_release(queue);
    return nullptr;
  }
  q->queue = queue;
  q->generation = g_process.generation;
  q->targets = new Targets();
  q->backlog = new std::vector<ray_completion>();
  return reinterpret_cast<PyObject*>(q);
}

// Futures refer to their loop, which refers to the queue: a cycle that the collector must see.
int queue_traverse(PyObject* self, visitproc visit, void* arg) {
  const QueueObject* q = as_queue(self);
  if (q->targets == nullptr) return 0;
  for (auto& entry : *q->targets) Py_VISIT(entry.second.target);
  return 0;
}

int queue_clear(PyObject* self) {
  QueueObject* q = as_queue(self);
  if (q->targets == nullptr) return 0;
  Targets targets;
  targets.swap(*q->targets);
  for (auto& entry : targets) Py_DECREF(entry.second.target);
  return 0;
}

// close(): nothing is delivered any more; the descriptor and the results that wait are let go.
PyObject* queue_close(PyObject* self, PyObject*) {
  QueueObject* q = as_queue(self);
  queue_clear(self);
  for (ray_completion& c : *q->backlog) {
    ray_ref_release(c.ref);
    ray_error_release(c.error);
  }
  q->backlog->clear();
  ray_queue_release(std::exchange(q->queue, nullptr));
  Py_RETURN_NONE;
}

void queue_dealloc(PyObject* self) {
  PyObject_GC_UnTrack(self);
  QueueObject* q = as_queue(self);
  if (q->targets != nullptr) Py_DECREF(queue_close(self, nullptr));
  delete q->targets;
  delete q->backlog;
  Py_TYPE(self)->tp_free(self);
}

size_t poll_queue(ray_queue* queue, ray_completion* out, size_t max, int64_t ns) {
  size_t n = 0;
  (void)ray_queue_poll(queue, out, max, ns, &n, nullptr);
  return n;
}

PyObject* raise_closed() {
  PyErr_SetString(PyExc_RuntimeError, "the completion queue is closed");
  return nullptr;
}

// add(ref or stream, target) -> tag
PyObject* queue_add(PyObject* self, PyObject* args) {
  PyObject *object, *target;
  if (!PyArg_ParseTuple(args, "OO", &object, &target)) return nullptr;
  if (ref_check(object) && ref_get(object) == nullptr) return raise_no_object(object);
  QueueObject* q = as_queue(self);
  if (q->queue == nullptr) return raise_closed();
  const bool is_stream = PyObject_TypeCheck(object, &StreamType);
  if (!is_stream && !ref_check(object)) {
    PyErr_SetString(PyExc_TypeError, "an ObjectRef or an ObjectRefGenerator is needed");
    return nullptr;
  }
  ray_notify notify = RAY_NOTIFY_INIT;
  notify.queue = q->queue;
  notify.tag = ++q->next_tag;
  Owned tag(PyLong_FromUnsignedLongLong(notify.tag));
  if (!tag) return nullptr;
  Waiting& entry = (*q->targets)[notify.tag];
  entry.target = new_ref(target);
  ray_error* err = nullptr;
  const ray_code code =
      is_stream ? ray_stream_on_next(reinterpret_cast<StreamObject*>(object)->stream, &notify,
                                     &entry.token, &err)
                : ray_on_ready(ref_get(object), &notify, &entry.token, &err);
  if (code == RAY_OK) return tag.release();
  q->targets->erase(notify.tag);
  Py_DECREF(target);
  return raise_code(code, err);
}

// discard(tag): nobody waits for that any more.
PyObject* queue_discard(PyObject* self, PyObject* tag) {
  QueueObject* q = as_queue(self);
  const unsigned long long which = PyLong_AsUnsignedLongLong(tag);
  if (PyErr_Occurred()) return nullptr;
  const auto it = q->targets->find(which);
  if (it == q->targets->end()) Py_RETURN_NONE;
  const Waiting gone = it->second;
  q->targets->erase(it);
  if (is_current(q)) (void)ray_cancel_notify(g_process.runtime, gone.token, nullptr);
  Py_DECREF(gone.target);
  Py_RETURN_NONE;
}

// The exception that is set now; there always is one: in the worst case, that memory is out.
PyObject* take_exception() {
  if (!PyErr_Occurred()) PyErr_NoMemory();
  PyObject *t, *v, *tb;
  PyErr_Fetch(&t, &v, &tb);
  PyErr_NormalizeException(&t, &v, &tb);
  if (tb != nullptr && v != nullptr) PyException_SetTraceback(v, tb);
  Py_XDECREF(t);
  Py_XDECREF(tb);
  return v;
}

// What a completion of a reference means: its value, or an exception, or, with Ellipsis as the exception,
// the reference itself: the value is on disk, and reading it takes its time.
void value_of(ray_completion* c, PyObject** value, PyObject** exception) {
  if (c->kind == RAY_COMPLETION_STREAM_ITEM || c->kind == RAY_COMPLETION_STREAM_END) return;
  if (c->kind != RAY_COMPLETION_READY || c->code != RAY_OK) {
    *exception = error_to_exception(c->code, std::exchange(c->error, nullptr));
    if (*exception == nullptr) *exception = take_exception();
    return;
  }
  ray_buffer buffer = RAY_BUFFER_INIT;
  ray_error* err = nullptr;
  const ray_code code = try_get_ref(c->ref, &buffer, &err);
  if (code == RAY_TIMED_OUT) {
    ray_error_release(err);
    *value = ref_new(std::exchange(c->ref, nullptr));
    *exception = *value != nullptr ? new_ref(Py_Ellipsis) : take_exception();
    return;
  }
  *value = code == RAY_OK ? decode_owned(&buffer) : raise_code(code, err);
  if (*value != nullptr) return;
  if (code == RAY_OK) {
    Owned ref(ref_new(std::exchange(c->ref, nullptr)));
    raise_unreadable(ref ? PyUnicode_FromFormat("the value of %R", ref.get()) : nullptr);
  }
  *exception = take_exception();
}

// (target, value, exception) of one completion, which it consumes; of one that nobody waits for, three
// times None. Null, with nothing consumed, when there is no memory. Of a generator: value is None, and its
// next item or its end is there to be taken.
PyObject* result_of(QueueObject* q, ray_completion* c) {
  Owned row(PyTuple_New(3));
  if (!row) return nullptr;
  PyObject *target = nullptr, *value = nullptr, *exception = nullptr;
  const auto it = q->targets->find(c->tag);
  if (it != q->targets->end()) {
    target = it->second.target;
    q->targets->erase(it);
    value_of(c, &value, &exception);
  }
  ray_ref_release(c->ref);
  ray_error_release(c->error);
  PyObject* parts[3] = {target, value, exception};
  for (int i = 0; i < 3; ++i)
    PyTuple_SET_ITEM(row.get(), i, parts[i] != nullptr ? parts[i] : new_ref(Py_None));
  return row.release();
}

// poll(seconds or None) -> list of (target, value, exception). What cannot be told for want of memory is
// kept for the next call.
PyObject* queue_poll(PyObject* self, PyObject* timeout) {
  QueueObject* q = as_queue(self);
  int64_t ns;
  if (q->queue == nullptr) return raise_closed();
  if (!parse_timeout(timeout, &ns)) return nullptr;
  std::vector<ray_completion>& backlog = *q->backlog;
  ray_completion batch[64];
  size_t n = backlog.size() < 64 ? backlog.size() : 64;
  if (__builtin_expect(n != 0, 0)) {
    std::copy_n(backlog.begin(), n, batch);
    backlog.erase(backlog.begin(), backlog.begin() + static_cast<ptrdiff_t>(n));
  } else {
    n = poll_queue(q->queue, batch, 64, 0);
    if (n == 0 && ns != 0) {
      Py_BEGIN_ALLOW_THREADS n = poll_queue(q->queue, batch, 64, ns);
      Py_END_ALLOW_THREADS
    }
  }
  Owned list(PyList_New(static_cast<Py_ssize_t>(n)));
  size_t done = 0;
  for (; list && done < n; ++done) {
    PyObject* row = result_of(q, &batch[done]);
    if (row == nullptr) break;
    PyList_SET_ITEM(list.get(), static_cast<Py_ssize_t>(done), row);
  }
  if (__builtin_expect(done == n && list, 1)) return list.release();
  backlog.insert(backlog.begin(), batch + done, batch + n);
  if (done == 0) return PyErr_NoMemory();
  PyErr_Clear();
  return PyList_GetSlice(list.get(), 0, static_cast<Py_ssize_t>(done));
}

// abandon() -> the objects that still wait; nothing will be delivered to them any more.
PyObject* queue_abandon(PyObject* self, PyObject*) {
  Targets targets;
  targets.swap(*as_queue(self)->targets);
  Owned list(PyList_New(0));
  for (auto& entry : targets) {
    if (list && PyList_Append(list.get(), entry.second.target) != 0) list = Owned();
    Py_DECREF(entry.second.target);
  }
  return list.release();
}

PyObject* queue_wake(PyObject* self, PyObject*) {
  if (as_queue(self)->queue != nullptr) ray_queue_wake(as_queue(self)->queue);
  Py_RETURN_NONE;
}
PyObject* queue_fd(PyObject* self, PyObject*) {
  return PyLong_FromLong(ray_queue_fd(as_queue(self)->queue));
}
PyObject* queue_pending(PyObject* self, PyObject*) {
  return PyLong_FromSize_t(as_queue(self)->targets->size());
}
PyObject* queue_current(PyObject* self, void*) { return PyBool_FromLong(is_current(as_queue(self))); }
PyObject* queue_backlog(PyObject* self, void*) {
  return PyBool_FromLong(!as_queue(self)->backlog->empty());
}

PyMethodDef queue_methods[] = {{"add", queue_add, METH_VARARGS, nullptr},
                               {"discard", queue_discard, METH_O, nullptr},
                               {"close", queue_close, METH_NOARGS, nullptr},
                               {"poll", queue_poll, METH_O, nullptr},
                               {"wake", queue_wake, METH_NOARGS, nullptr},
                               {"abandon", queue_abandon, METH_NOARGS, nullptr},
                               {"fd", queue_fd, METH_NOARGS, nullptr},
                               {"pending", queue_pending, METH_NOARGS, nullptr},
                               {nullptr, nullptr, 0, nullptr}};
PyGetSetDef queue_getset[] = {{"current", queue_current, nullptr, nullptr, nullptr},
                              {"backlog", queue_backlog, nullptr, nullptr, nullptr},
                              {nullptr, nullptr, nullptr, nullptr, nullptr}};

}  // namespace

bool init_queue_types(PyObject* module) {
  QueueType.tp_name = "libray._libray.Queue";
  QueueType.tp_basicsize = sizeof(QueueObject);
  QueueType.tp_dealloc = queue_dealloc;
  QueueType.tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC;
  QueueType.tp_traverse = queue_traverse;
  QueueType.tp_clear = queue_clear;
  QueueType.tp_new = queue_new;
  QueueType.tp_methods = queue_methods;
  QueueType.tp_getset = queue_getset;
  if (PyType_Ready(&QueueType) != 0) return false;
  return PyModule_AddObject(module, "Queue", new_ref(reinterpret_cast<PyObject*>(&QueueType))) == 0;
}

}  // namespace libray_py
