// The yardstick of Python's rows: bare rings between two processes, as in bench/c/limits.cc, with a Python call at the far
// end. An extension module for limits.py, which gives it shared memory and forks: serve() is the far end's whole life, the
// rest is the near one's. Each process has one thread and keeps the GIL throughout: what a runtime does beside the rings and
// the call is what the rows show on top of these.
#include <Python.h>
#include <signal.h>
#include <sys/prctl.h>

#include <algorithm>
#include <memory>
#include <new>
#include <vector>

#include "bare_pair.h"

namespace {

// The memory that limits.py mapped; released when it goes out of scope.
class Memory {
 public:
  explicit Memory(PyObject* from) {
    if (PyObject_GetBuffer(from, &view_, PyBUF_WRITABLE) != 0) return;
    if (view_.len >= static_cast<Py_ssize_t>(sizeof(bare::Rings)) && reinterpret_cast<uintptr_t>(view_.buf) % 64 == 0) {
      rings_ = static_cast<bare::Rings*>(view_.buf);
    } else {
      PyErr_SetString(PyExc_ValueError, "the memory is too small, or does not begin at a cache line");
    }
  }
  ~Memory() { PyBuffer_Release(&view_); }
  Memory(const Memory&) = delete;
  bare::Rings* rings() const { return rings_; }

 private:
  Py_buffer view_{};
  bare::Rings* rings_ = nullptr;
};

PyObject* gone() {
  PyErr_SetString(PyExc_RuntimeError, "the far end of the ring is gone");
  return nullptr;
}

// A record is answered with the bytes that the function returned: their size, then they.
bool call(PyObject* function, void* out) {
  PyObject* result = PyObject_CallObject(function, nullptr);
  char* bytes = nullptr;
  Py_ssize_t size = 0;
  const bool good = result && PyBytes_AsStringAndSize(result, &bytes, &size) == 0 && size <= 48;
  if (good) {
    std::memcpy(out, &size, sizeof size);
    std::memcpy(static_cast<char*>(out) + sizeof size, bytes, static_cast<size_t>(size));
  } else if (!PyErr_Occurred()) {
    PyErr_SetString(PyExc_ValueError, "more bytes than a record holds");
  }
  Py_XDECREF(result);
  return good;
}

// serve(memory, function): until it is killed, its parent ends, or a call fails.
PyObject* serve(PyObject*, PyObject* args) {
  PyObject *from, *function;
  if (!PyArg_ParseTuple(args, "OO", &from, &function)) return nullptr;
  Memory memory(from);
  if (!memory.rings()) return nullptr;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  bare::answer(memory.rings(), [&](const uint8_t*, void* out) { return call(function, out); });
  return nullptr;
}

// drive(memory, child, batches, n) -> nanoseconds of each batch of n records, sent and answered in native code.
PyObject* drive(PyObject*, PyObject* args) {
  PyObject* from;
  int child, batches, n;
  if (!PyArg_ParseTuple(args, "Oiii", &from, &child, &batches, &n)) return nullptr;
  Memory memory(from);
  if (!memory.rings()) return nullptr;
  bare::Driver driver(memory.rings(), child);
  std::vector<int64_t> took;
  for (int i = 0; i < batches; ++i) {
    const int64_t began = ray::steady_ns();
    if (!driver.batch(n)) return gone();
    took.push_back(ray::steady_ns() - began);
  }
  PyObject* list = PyList_New(batches);
  for (int i = 0; list && i < batches; ++i)
    PyList_SET_ITEM(list, i, PyLong_FromLongLong(took[static_cast<size_t>(i)]));
  return list;
}

PyMethodDef kFunctions[] = {{"serve", serve, METH_VARARGS, nullptr},
                            {"drive", drive, METH_VARARGS, nullptr},
                            {nullptr, nullptr, 0, nullptr}};
PyModuleDef kModule = {PyModuleDef_HEAD_INIT, "bare_ring", nullptr, -1, kFunctions, nullptr, nullptr, nullptr, nullptr};

}  // namespace

PyMODINIT_FUNC PyInit_bare_ring() {
  PyObject* module = PyModule_Create(&kModule);
  if (module && PyModule_AddIntConstant(module, "SIZE", sizeof(bare::Rings)) != 0) Py_CLEAR(module);
  return module;
}
