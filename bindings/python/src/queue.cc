// Completion queues for Python: many pending awaits behind one descriptor. An event loop watches
// fd(); a helper thread blocks in poll(). Each registration carries a Python object (a future or a
// callback) that comes back with the value.
#include <cstddef>
#include <unordered_map>

#include "refs.h"
#include "value.h"

namespace libray_py {

PyTypeObject QueueType = {PyVarObject_HEAD_INIT(nullptr, 0)};

namespace {

struct QueueObject {
  PyObject_HEAD ray_queue* queue;
  uint64_t next_tag;
  uint64_t generation;
  std::unordered_map<uint64_t, PyObject*>* targets;
};
QueueObject* as_queue(PyObject* o) { return reinterpret_cast<QueueObject*>(o); }

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
  q->targets = new std::unordered_map<uint64_t, PyObject*>();
  return reinterpret_cast<PyObject*>(q);
}

void queue_dealloc(PyObject* self) {
  QueueObject* q = as_queue(self);
  ray_queue_release(q->queue);
  if (q->targets != nullptr) {
    for (auto& entry : *q->targets) Py_DECREF(entry.second);
    delete q->targets;
  }
  Py_TYPE(self)->tp_free(self);
}

PyObject* queue_add(PyObject* self, PyObject* args) {  // add(ref or stream, target)
  PyObject *object, *target;
  if (!PyArg_ParseTuple(args, "OO", &object, &target)) return nullptr;
  if (ref_check(object) && ref_get(object) == nullptr) return raise_no_object(object);
  QueueObject* q = as_queue(self);
  ray_notify notify = RAY_NOTIFY_INIT;
  notify.queue = q->queue;
  notify.tag = ++q->next_tag;
  (*q->targets)[notify.tag] = new_ref(target);
  ray_error* err = nullptr;
  ray_code code;
  if (ref_check(object)) {
    code = ray_on_ready(ref_get(object), &notify, nullptr, &err);
  } else if (PyObject_TypeCheck(object, &StreamType)) {
    code = ray_stream_on_next(reinterpret_cast<StreamObject*>(object)->stream, &notify, nullptr, &err);
  } else {
    q->targets->erase(notify.tag);
    Py_DECREF(target);
    PyErr_SetString(PyExc_TypeError, "an ObjectRef or an ObjectRefGenerator is needed");
    return nullptr;
  }
  if (code == RAY_OK) Py_RETURN_NONE;
  q->targets->erase(notify.tag);
  Py_DECREF(target);
  return raise_code(code, err);
}

// (target, value, exception) of one completion; consumes it. Of a generator: value is None, and its next
// item or its end is there to be taken.
PyObject* result_of(QueueObject* q, ray_completion* c) {
  PyObject* target = nullptr;
  const auto it = q->targets->find(c->tag);
  if (it != q->targets->end()) {
    target = it->second;
    q->targets->erase(it);
  }
  Owned keep(target);
  PyObject *value = nullptr, *exception = nullptr;
  if (c->kind == RAY_COMPLETION_READY && c->code == RAY_OK) {
    ray_buffer buffer = RAY_BUFFER_INIT;
    ray_error* err = nullptr;
    const ray_code code = ray_try_get(c->ref, &buffer, &err);
    value = code == RAY_OK ? decode_owned(&buffer) : raise_code(code, err);
    if (value == nullptr) {
      PyObject *t, *v, *tb;
      PyErr_Fetch(&t, &v, &tb);
      PyErr_NormalizeException(&t, &v, &tb);
      Py_XDECREF(t);
      Py_XDECREF(tb);
      exception = v;
    }
  } else if (c->kind != RAY_COMPLETION_STREAM_ITEM && c->kind != RAY_COMPLETION_STREAM_END) {
    exception = error_to_exception(c->code, std::exchange(c->error, nullptr));
  }
  if (c->ref != nullptr) ray_ref_release(c->ref);
  if (c->error != nullptr) ray_error_release(c->error);
  Owned v(value != nullptr ? value : new_ref(Py_None)),
      e(exception != nullptr ? exception : new_ref(Py_None));
  return PyTuple_Pack(3, target != nullptr ? target : Py_None, v.get(), e.get());
}

PyObject* queue_poll(PyObject* self, PyObject* timeout) {  // poll(seconds or None) -> list
  QueueObject* q = as_queue(self);
  int64_t ns;
  if (!parse_timeout(timeout, &ns)) return nullptr;
  ray_completion batch[64];
  size_t n;
  (void)ray_queue_poll(q->queue, batch, 64, 0, &n, nullptr);
  if (n == 0 && ns != 0) {
    Py_BEGIN_ALLOW_THREADS (void)ray_queue_poll(q->queue, batch, 64, ns, &n, nullptr);
    Py_END_ALLOW_THREADS
  }
  Owned list(PyList_New(0));
  for (size_t i = 0; i < n; ++i) {
    Owned item(result_of(q, &batch[i]));
    if (list && (!item || PyList_Append(list.get(), item.get()) != 0)) list = Owned();
  }
  return list.release();
}

// abandon() -> the objects that still wait; nothing will be delivered to them any more.
PyObject* queue_abandon(PyObject* self, PyObject*) {
  std::unordered_map<uint64_t, PyObject*> targets;
  targets.swap(*as_queue(self)->targets);
  Owned list(PyList_New(0));
  for (auto& entry : targets) {
    if (list && PyList_Append(list.get(), entry.second) != 0) list = Owned();
    Py_DECREF(entry.second);
  }
  return list.release();
}

PyObject* queue_wake(PyObject* self, PyObject*) {
  ray_queue_wake(as_queue(self)->queue);
  Py_RETURN_NONE;
}
PyObject* queue_fd(PyObject* self, PyObject*) {
  return PyLong_FromLong(ray_queue_fd(as_queue(self)->queue));
}
PyObject* queue_pending(PyObject* self, PyObject*) {
  return PyLong_FromSize_t(as_queue(self)->targets->size());
}
PyObject* queue_current(PyObject* self, void*) {
  return PyBool_FromLong(g_process.runtime != nullptr &&
                         as_queue(self)->generation == g_process.generation);
}

PyMethodDef queue_methods[] = {{"add", queue_add, METH_VARARGS, nullptr},
                               {"poll", queue_poll, METH_O, nullptr},
                               {"wake", queue_wake, METH_NOARGS, nullptr},
                               {"abandon", queue_abandon, METH_NOARGS, nullptr},
                               {"fd", queue_fd, METH_NOARGS, nullptr},
                               {"pending", queue_pending, METH_NOARGS, nullptr},
                               {nullptr, nullptr, 0, nullptr}};
PyGetSetDef queue_getset[] = {{"current", queue_current, nullptr, nullptr, nullptr},
                              {nullptr, nullptr, nullptr, nullptr, nullptr}};

}  // namespace

bool init_queue_types(PyObject* module) {
  QueueType.tp_name = "libray._libray.Queue";
  QueueType.tp_basicsize = sizeof(QueueObject);
  QueueType.tp_dealloc = queue_dealloc;
  QueueType.tp_flags = Py_TPFLAGS_DEFAULT;
  QueueType.tp_new = queue_new;
  QueueType.tp_methods = queue_methods;
  QueueType.tp_getset = queue_getset;
  if (PyType_Ready(&QueueType) != 0) return false;
  return PyModule_AddObject(module, "Queue", new_ref(reinterpret_cast<PyObject*>(&QueueType))) == 0;
}

}  // namespace libray_py
