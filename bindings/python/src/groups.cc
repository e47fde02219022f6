// Placement groups: `group_create`, `group_wait`, `group_remove`, and the switch that places what a
// task submits in the task's own group. Called by api/placement.py with the GIL held.
#include <pybind11/pybind11.h>

#include "groups.h"

namespace py = pybind11;

namespace libray_py {
namespace {

ray_runtime* running() {
  ray_runtime* runtime = ensure_runtime();
  if (runtime == nullptr) throw py::error_already_set();
  return runtime;
}

// By reference: the call that is the first argument sets it.
void check(ray_code code, ray_error*& err) {
  if (code == RAY_OK) return;
  raise_code(code, err);
  throw py::error_already_set();
}

ray_id id_of(const py::bytes& bytes) {
  ray_id id;
  if (PyBytes_GET_SIZE(bytes.ptr()) != RAY_ID_SIZE) throw py::value_error("a group id has 24 bytes");
  std::memcpy(id.b, PyBytes_AS_STRING(bytes.ptr()), RAY_ID_SIZE);
  return id;
}

py::bytes create(const py::bytes& bundles, int strategy, bool detached, const std::string& name) {
  ray_group_options options = RAY_GROUP_OPTIONS_INIT;
  options.bundles_msgpack.data = PyBytes_AS_STRING(bundles.ptr());
  options.bundles_msgpack.size = static_cast<size_t>(PyBytes_GET_SIZE(bundles.ptr()));
  options.name = as_str(name.data(), static_cast<Py_ssize_t>(name.size()));
  options.strategy = strategy;
  options.lifetime = detached ? RAY_LIFETIME_DETACHED : RAY_LIFETIME_COUNTED;
  ray_id id;
  ray_error* err = nullptr;
  ray_runtime* runtime = running();
  ray_code code;
  Py_BEGIN_ALLOW_THREADS code = ray_group_create(runtime, &options, &id, &err);
  Py_END_ALLOW_THREADS check(code, err);
  return py::bytes(reinterpret_cast<const char*>(id.b), RAY_ID_SIZE);
}

// False: not in time. A group that does not exist is a ValueError.
bool wait(const py::bytes& group, const py::object& seconds) {
  int64_t timeout_ns;
  if (!parse_timeout(seconds.ptr(), &timeout_ns)) throw py::error_already_set();
  const ray_id id = id_of(group);
  ray_runtime* runtime = running();
  ray_error* err = nullptr;
  bool interrupted;
  const ray_code code = wait_in_slices(timeout_ns, &interrupted, [&](int64_t slice_ns) {
    ray_error_release(err);
    err = nullptr;
    return ray_group_wait(runtime, &id, slice_ns, &err);
  });
  if (interrupted || code == RAY_TIMED_OUT) ray_error_release(err);
  if (interrupted) throw py::error_already_set();
  if (code == RAY_TIMED_OUT) return false;
  check(code, err);
  return true;
}

// False: there was no such group.
bool remove(const py::bytes& group) {
  const ray_id id = id_of(group);
  ray_runtime* runtime = running();
  ray_error* err = nullptr;
  ray_code code;
  Py_BEGIN_ALLOW_THREADS code = ray_group_remove(runtime, &id, &err);
  Py_END_ALLOW_THREADS if (code == RAY_NOT_FOUND) {
    ray_error_release(err);
    return false;
  }
  check(code, err);
  return true;
}

}  // namespace

void define_groups(py::module_& m) {
  m.def("group_create", &create);
  m.def("group_wait", &wait);
  m.def("group_remove", &remove);
  m.def("capture", [](bool on) { g_process.captures = on; });
}

}  // namespace libray_py
