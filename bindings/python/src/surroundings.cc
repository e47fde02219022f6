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
  Owned all(PyDict_New());
  for (const char* resource : {"GPU", "TPU", "neuron_cores", "NPU", "HPU", "RBLN", "FURIOSA"}) {
    const ray_str name = ray_cstr(resource);
    std::vector<uint32_t> ids(ray_task_accelerators(task, name, nullptr, 0));
    ids.resize(std::min(ids.size(), ray_task_accelerators(task, name, ids.data(), ids.size())));
    if (ids.empty()) continue;
    Owned list(PyList_New(0));
    for (const uint32_t id : ids) {
      Owned number(PyLong_FromUnsignedLong(id));
      if (!list || !number || PyList_Append(list.get(), number.get()) != 0) return PyErr_Clear();
    }
    if (!all || PyDict_SetItemString(all.get(), resource, list.get()) != 0) return PyErr_Clear();
  }
  if (!all) return PyErr_Clear();
  tell(g_hooks.enter_gpus, all.get());
}

void leave_gpus() { tell(g_hooks.enter_gpus, Py_None); }

}  // namespace libray_py
