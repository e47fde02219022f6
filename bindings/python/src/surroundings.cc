// A task's placement group and GPUs, told to the Python half when such a task begins and ends;
// other tasks never come here. Called by the loop that runs tasks (worker.cc), on the task's
// thread.
#include "surroundings.h"

#include <algorithm>
#include <vector>

namespace libray_py {
namespace {

// Calls a hook; an exception that is set now stays, one of the hook's own is only reported.
void tell(PyObject* hook, PyObject* what) {
  PyObject *type, *value, *traceback;
  PyErr_Fetch(&type, &value, &traceback);
  Owned done(PyObject_CallOneArg(hook, what));
  if (!done) PyErr_WriteUnraisable(hook);
  PyErr_Restore(type, value, traceback);
}

}  // namespace

bool enter_group(PyObject* note) {
  return static_cast<bool>(Owned(PyObject_CallOneArg(g_hooks.enter_note, note)));
}

void leave_group() { tell(g_hooks.enter_note, Py_None); }

void enter_gpus(ray_task* task) {
  std::vector<uint32_t> ids(ray_task_gpus(task, nullptr, 0));
  ids.resize(std::min(ids.size(), ray_task_gpus(task, ids.data(), ids.size())));
  Owned list(PyList_New(static_cast<Py_ssize_t>(ids.size())));
  if (!list) return PyErr_Clear();
  for (size_t i = 0; i < ids.size(); ++i) {
    PyObject* number = PyLong_FromUnsignedLong(ids[i]);
    if (number == nullptr) return PyErr_Clear();
    PyList_SET_ITEM(list.get(), static_cast<Py_ssize_t>(i), number);
  }
  tell(g_hooks.enter_gpus, list.get());
}

void leave_gpus() { tell(g_hooks.enter_gpus, Py_None); }

}  // namespace libray_py
