// Module _libray: everything that is not hot, in pybind11: start and stop, functions, actors,
// key-value, queries, context, testing. The top of the extension: it includes the others, none of them it.
#define RAY_ALLOW_UNSTABLE
#include "common.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <signal.h>
#include <sys/inotify.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cstring>
#include <vector>

#include "calls.h"
#include "groups.h"
#include "refs.h"
#include "stack.h"
#include "unread.h"
#include "value.h"

namespace py = pybind11;

namespace libray_py {

namespace {

[[noreturn]] void fail(ray_code code, ray_error* err) {
  raise_code(code, err);
  throw py::error_already_set();
}
// By reference: the call that is the first argument sets it.
void check(ray_code code, ray_error*& err) {
  if (code != RAY_OK) fail(code, err);
}
ray_runtime* rt() {
  ray_runtime* r = ensure_runtime();
  if (r == nullptr) throw py::error_already_set();
  return r;
}
ray_str view(const std::string& s) { return ray_str{s.data(), s.size()}; }
ray_bytes bytes_view(const py::bytes& b) {
  return ray_bytes{PyBytes_AS_STRING(b.ptr()), static_cast<size_t>(PyBytes_GET_SIZE(b.ptr()))};
}
py::bytes take_bytes(ray_buffer* b) {
  py::bytes out(static_cast<const char*>(b->data), static_cast<size_t>(b->size));
  ray_buffer_release(b);
  return out;
}
// For answers in MessagePack: decoded.
py::object take_value(ray_buffer* b) {
  PyObject* value = decode_owned(b);
  if (value == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(value);
}
ray_ref* as_ref(const py::object& o) {
  if (!ref_check(o.ptr())) throw py::type_error("an ObjectRef is needed");
  if (ref_get(o.ptr()) == nullptr) {
    raise_no_object(o.ptr());
    throw py::error_already_set();
  }
  return ref_get(o.ptr());
}
ActorObject* as_actor(const py::object& o) {
  if (!actor_check(o.ptr())) throw py::value_error("an ActorHandle is needed");
  return reinterpret_cast<ActorObject*>(o.ptr());
}
FunctionObject* as_function(const py::object& o) {
  if (Py_TYPE(o.ptr()) != &FunctionType) throw py::type_error("a Function is needed");
  return reinterpret_cast<FunctionObject*>(o.ptr());
}

// ---- start and stop
// ---------------------------------------------------------------------------------------------------

// Called by puts that wait for room in the store, and by workers whose task's arguments come back from disk,
// with or without the GIL. The exception that a signal's handler
// raised stays set: raise_code passes it on.
bool look_at_signals(void*) {
  if (YieldWhenWaiting* scope = YieldWhenWaiting::now) {
    scope->yield();
    return false;
  }
  const PyGILState_STATE state = PyGILState_Ensure();
  const bool stop = PyErr_CheckSignals() != 0;
  if (!stop) {  // small puts keep the GIL: others have their turn
    Py_BEGIN_ALLOW_THREADS Py_END_ALLOW_THREADS
  }
  PyGILState_Release(state);
  return stop;
}

py::dict init(const py::dict& o) {
  if (g_process.runtime != nullptr) throw std::runtime_error("libray runs already");
  ray_runtime_options options = RAY_RUNTIME_OPTIONS_INIT;
  auto text = [&](const char* key) {
    return o.contains(key) ? o[key].cast<std::string>() : std::string();
  };
  const std::string address = text("address"), ns = text("namespace"), dir = text("session_dir"),
                    job = text("job_name");
  const std::string resources = text("resources");
  std::vector<std::string> argv = o["worker_argv"].cast<std::vector<std::string>>();
  std::vector<const char*> argv_c;
  for (const auto& a : argv) argv_c.push_back(a.c_str());
  argv_c.push_back(nullptr);
  options.address = view(address);
  options.ns = view(ns);
  options.session_dir = view(dir);
  options.job_name = view(job);
  options.num_cpus = o["num_cpus"].cast<double>();
  options.resources_msgpack = ray_bytes{resources.data(), resources.size()};
  options.store_bytes = o["store_bytes"].cast<uint64_t>();
  options.spill_bytes = o["spill_bytes"].cast<uint64_t>();
  options.gcs_shards = o["gcs_shards"].cast<uint32_t>();
  options.language = RAY_LANG_PYTHON;
  options.worker_argv = argv_c.data();
  ray_runtime* runtime = nullptr;
  ray_error* err = nullptr;
  ray_code code;
  Py_BEGIN_ALLOW_THREADS code = ray_init(&options, &runtime, &err);
  Py_END_ALLOW_THREADS check(code, err);
  check(ray_on_wait(runtime, look_at_signals, nullptr, &err), err);
  watch_unread_errors();
  g_process.runtime = runtime;
  ++g_process.generation;
  g_process.worker = ray_runtime_mode(runtime) == RAY_MODE_WORKER;
  g_process.pid = getpid();
  py::dict out;
  const ray_str session = ray_runtime_session_dir(runtime);
  out["session_dir"] =
      session.size == RAY_NUL ? py::str(session.data) : py::str(session.data, session.size);
  out["worker"] = g_process.worker;
  return out;
}

// The runtime is unreachable for Python from the first line on; the handles that are left stay
// valid.
void shutdown(double drain_seconds) {
  ray_runtime* runtime = std::exchange(g_process.runtime, nullptr);
  if (runtime == nullptr) return;
  ray_error* err = nullptr;
  ray_code code;
  Py_BEGIN_ALLOW_THREADS code =
      ray_shutdown(runtime, static_cast<int64_t>(drain_seconds * 1e9), &err);
  ray_runtime_release(runtime);
  Py_END_ALLOW_THREADS check(code, err);
}

// In a forked child: forgets the parent's runtime without touching it.
void forget() {
  g_process.runtime = nullptr;
  g_process.worker = false;
  forget_unread_errors();
}

py::dict context() {
  ray_context c;
  memset(&c, 0, sizeof(c));
  c.struct_size = sizeof(c);
  ray_error* err = nullptr;
  check(ray_runtime_context(rt(), &c, &err), err);
  py::dict out;
  out["job"] = id_hex(c.job);
  out["node"] = id_hex(c.node);
  out["task"] = id_is_zero(c.task) ? py::object(py::none()) : py::str(id_hex(c.task));
  out["actor"] = id_is_zero(c.actor) ? py::object(py::none()) : py::str(id_hex(c.actor));
  out["pid"] = c.pid;
  out["worker"] = c.worker;
  return out;
}

// Descriptor that tells which files of a folder are written, made, renamed or removed: inotify(7)'s
// records. Not blocking.
int watch_folder(const std::string& path) {
  const int fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
  if (fd >= 0 && inotify_add_watch(fd, path.c_str(), IN_MODIFY | IN_MOVED_TO | IN_DELETE) >= 0)
    return fd;
  const int error = errno;
  if (fd >= 0) close(fd);
  errno = error;
  PyErr_SetFromErrnoWithFilename(PyExc_OSError, path.c_str());
  throw py::error_already_set();
}

// ---- functions and actors
// -----------------------------------------------------------------------------------------------

py::object wrap_function(ray_code code, ray_function* f, ray_error* err) {
  check(code, err);
  PyObject* o = function_new(f);
  if (o == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(o);
}

py::object define_function(const std::string& name, const py::bytes& definition) {
  ray_function* f = nullptr;
  ray_error* err = nullptr;
  const ray_code code =
      ray_function_define(rt(), RAY_LANG_PYTHON, view(name), bytes_view(definition), &f, &err);
  return wrap_function(code, f, err);
}
py::object find_function(const std::string& name) {
  ray_function* f = nullptr;
  ray_error* err = nullptr;
  const ray_code code = ray_function_get(rt(), view(name), &f, &err);
  return wrap_function(code, f, err);
}
py::object named_function(int language, const std::string& container, const std::string& member) {
  ray_function* f = nullptr;
  ray_error* err = nullptr;
  ray_code code;
  ray_runtime* runtime = rt();
  Py_BEGIN_ALLOW_THREADS code = ray_function_named(runtime, language, view(container), view(member), &f, &err);
  Py_END_ALLOW_THREADS return wrap_function(code, f, err);
}
void worker_code(int language, const std::string& code) {
  ray_error* err = nullptr;
  check(ray_worker_code(rt(), language, view(code), &err), err);
}
void worker_command(int language, const std::vector<std::string>& argv) {
  std::vector<const char*> words;
  for (const auto& a : argv) words.push_back(a.c_str());
  words.push_back(nullptr);
  ray_error* err = nullptr;
  check(ray_worker_command(rt(), language, words.data(), &err), err);
}
py::object define_symbol(const std::string& name, const std::string& library,
                         const std::string& symbol, const std::string& signature) {
  ray_function* f = nullptr;
  ray_error* err = nullptr;
  const ray_code code =
      ray_define_symbol(rt(), view(name), view(library), view(symbol), view(signature), &f, &err);
  return wrap_function(code, f, err);
}
py::object define_library(const std::string& name, const std::string& path) {
  ray_function* f = nullptr;
  ray_error* err = nullptr;
  const ray_code code = ray_define_library(rt(), view(name), view(path), &f, &err);
  return wrap_function(code, f, err);
}

py::object wrap_actor(ray_actor* actor, const py::type& cls, const py::object& methods,
                      const py::object& info) {
  auto* type = reinterpret_cast<PyTypeObject*>(cls.ptr());
  if (!PyType_IsSubtype(type, &ActorType))
    throw py::type_error("a subclass of ActorBase is needed");
  auto* a = reinterpret_cast<ActorObject*>(type->tp_alloc(type, 0));
  if (a == nullptr) {
    ray_actor_release(actor);
    throw py::error_already_set();
  }
  a->actor = actor;
  a->methods = new_ref(methods.ptr());
  a->info = new_ref(info.ptr());
  return py::reinterpret_steal<py::object>(reinterpret_cast<PyObject*>(a));
}

py::object actor_create(const py::object& function, const py::tuple& args, const py::dict& kwargs,
                        const py::dict& o, const py::type& cls, const py::object& methods,
                        const py::object& info) {
  ray_runtime* runtime = rt();
  std::vector<PyObject*> items;
  for (auto a : args) items.push_back(a.ptr());
  py::list names;
  for (auto kv : kwargs) {
    names.append(kv.first);
    items.push_back(kv.second.ptr());
  }
  const py::tuple kwnames(names);
  Arguments a;
  const bool exact = o["exact"].cast<bool>();
  if (!a.encode(items.data(), static_cast<Py_ssize_t>(args.size()),
                names.empty() ? nullptr : kwnames.ptr(), exact)) {
    throw py::error_already_set();
  }
  const std::string name = o["name"].cast<std::string>(), ns = o["namespace"].cast<std::string>();
  const std::string resources = o["resources"].cast<std::string>(),
                    metadata = o["metadata"].cast<std::string>();
  ray_actor_options options = RAY_ACTOR_OPTIONS_INIT;
  options.name = view(name);
  options.ns = view(ns);
  options.resources_msgpack = ray_bytes{resources.data(), resources.size()};
  options.metadata = ray_bytes{metadata.data(), metadata.size()};
  options.max_restarts = o["max_restarts"].cast<int32_t>();
  options.max_task_retries = o["max_task_retries"].cast<int32_t>();
  options.max_concurrency = o["max_concurrency"].cast<uint32_t>();
  options.max_pending_calls = o["max_pending_calls"].cast<uint32_t>();
  options.lifetime = o["detached"].cast<bool>() ? RAY_LIFETIME_DETACHED : RAY_LIFETIME_COUNTED;
  options.flags = o["get_if_exists"].cast<bool>() ? RAY_ACTOR_GET_IF_EXISTS : 0;
  if (o["out_of_order"].cast<bool>()) options.flags |= RAY_ACTOR_OUT_OF_ORDER;
  ray_actor* actor = nullptr;
  ray_error* err = nullptr;
  ray_function* f = as_function(function)->function;
  ray_code code;
  Py_BEGIN_ALLOW_THREADS code =
      ray_actor_create(runtime, f, a.data(), a.size(), &options, &actor, &err);
  Py_END_ALLOW_THREADS check(code, err);
  return wrap_actor(actor, cls, methods, info);
}

// (handle without methods, metadata): the Python half makes the real one.
py::bytes metadata_of(ray_actor* actor) {
  ray_bytes out = {nullptr, 0};
  ray_error* err = nullptr;
  ray_code code;
  Py_BEGIN_ALLOW_THREADS code = ray_actor_metadata(actor, &out, &err);
  Py_END_ALLOW_THREADS check(code, err);
  return py::bytes(static_cast<const char*>(out.data), out.size);
}
int language_of(ray_actor* actor) {  // after metadata_of: it does not wait then
  int32_t language = 0;
  ray_error* err = nullptr;
  check(ray_actor_language(actor, &language, &err), err);
  return language;
}
using Describe = py::function;  // metadata bytes, language -> (class, methods, info)
py::object describe_actor(ray_actor* actor, const Describe& describe) {
  try {
    const py::bytes metadata = metadata_of(actor);
    const py::tuple parts = describe(metadata, language_of(actor)).cast<py::tuple>();
    const py::type cls = parts[0].cast<py::type>();
    return wrap_actor(ray_actor_retain(actor), cls, parts[1], parts[2]);
  } catch (...) {
    ray_actor_release(actor);
    throw;
  }
}
py::object actor_find(const std::string& name, const std::string& ns, const Describe& describe) {
  ray_runtime* runtime = rt();
  ray_actor* actor = nullptr;
  ray_error* err = nullptr;
  ray_code code;
  Py_BEGIN_ALLOW_THREADS code = ray_actor_find(runtime, view(name), view(ns), &actor, &err);
  Py_END_ALLOW_THREADS check(code, err);
  py::object out = describe_actor(actor, describe);
  ray_actor_release(actor);
  return out;
}
// The handle of the actor that this worker is.
py::object actor_self(const Describe& describe) {
  ray_actor* actor = nullptr;
  ray_error* err = nullptr;
  check(ray_worker_actor(rt(), &actor, &err), err);
  py::object out = describe_actor(actor, describe);
  ray_actor_release(actor);
  return out;
}
py::object actor_from_id(const std::string& id, const py::type& cls, const py::object& methods, const py::object& info) {
  ray_id bytes;
  if (id.size() != sizeof bytes.b) throw py::value_error("not the id of an actor");
  memcpy(bytes.b, id.data(), sizeof bytes.b);
  ray_actor* actor = nullptr;
  ray_error* err = nullptr;
  check(ray_actor_from_id(rt(), bytes, &actor, &err), err);
  return wrap_actor(actor, cls, methods, info);
}
py::object actor_from_ref(const py::object& ref, const py::object& cls, const py::object& methods,
                          const py::object& info) {
  ray_actor* actor = nullptr;
  ray_error* err = nullptr;
  check(ray_actor_from_ref(as_ref(ref), &actor, &err), err);
  if (!cls.is_none()) return wrap_actor(actor, cls.cast<py::type>(), methods, info);
  py::object out = describe_actor(actor, methods.cast<Describe>());
  ray_actor_release(actor);
  return out;
}

void actor_kill(const py::object& handle, bool may_restart) {
  ray_error* err = nullptr;
  ray_actor* actor = as_actor(handle)->actor;
  ray_code code;
  Py_BEGIN_ALLOW_THREADS code = ray_actor_kill(actor, may_restart, &err);
  Py_END_ALLOW_THREADS check(code, err);
}

void cancel(const py::object& ref, bool force, bool recursive) {
  ray_error* err = nullptr;
  uint32_t flags = 0;
  if (force) flags |= RAY_CANCEL_FORCE;
  if (recursive) flags |= RAY_CANCEL_RECURSIVE;
  check(ray_cancel(as_ref(ref), flags, &err), err);
}

// ---- cluster, key-value, testing
// -------------------------------------------------------------------------------------------

py::object query(const std::string& what, const py::bytes& filter) {
  ray_buffer out = RAY_BUFFER_INIT;
  ray_error* err = nullptr;
  ray_runtime* runtime = rt();
  ray_code code;
  Py_BEGIN_ALLOW_THREADS code =
      ray_cluster_query(runtime, view(what), bytes_view(filter), &out, &err);
  Py_END_ALLOW_THREADS check(code, err);
  return take_value(&out);
}

py::object kv_get(const std::string& ns, const py::bytes& key) {
  ray_buffer out = RAY_BUFFER_INIT;
  uint64_t version = 0;
  ray_error* err = nullptr;
  ray_runtime* runtime = rt();
  ray_code code;
  Py_BEGIN_ALLOW_THREADS code =
      ray_kv_get(runtime, view(ns), bytes_view(key), &out, &version, &err);
  Py_END_ALLOW_THREADS if (code == RAY_NOT_FOUND) {
    ray_error_release(err);
    return py::none();
  }
  check(code, err);
  return py::make_tuple(take_bytes(&out), version);
}
uint64_t kv_put(const std::string& ns, const py::bytes& key, const py::bytes& value,
                py::object expected) {
  uint64_t version = 0;
  ray_error* err = nullptr;
  ray_runtime* runtime = rt();
  const uint64_t want = expected.is_none() ? RAY_KV_ANY : expected.cast<uint64_t>();
  ray_code code;
  Py_BEGIN_ALLOW_THREADS code =
      ray_kv_put(runtime, view(ns), bytes_view(key), bytes_view(value), want, &version, &err);
  Py_END_ALLOW_THREADS check(code, err);
  return version;
}
void kv_delete(const std::string& ns, const py::bytes& key, py::object expected) {
  ray_error* err = nullptr;
  ray_runtime* runtime = rt();
  const uint64_t want = expected.is_none() ? RAY_KV_ANY : expected.cast<uint64_t>();
  ray_code code;
  Py_BEGIN_ALLOW_THREADS code = ray_kv_delete(runtime, view(ns), bytes_view(key), want, &err);
  Py_END_ALLOW_THREADS check(code, err);
}
py::object kv_list(const std::string& ns, const py::bytes& prefix) {
  ray_buffer out = RAY_BUFFER_INIT;
  ray_error* err = nullptr;
  ray_runtime* runtime = rt();
  ray_code code;
  Py_BEGIN_ALLOW_THREADS code = ray_kv_list(runtime, view(ns), bytes_view(prefix), &out, &err);
  Py_END_ALLOW_THREADS check(code, err);
  return take_value(&out);
}

py::object ref_count(const py::object& ref) {
  uint64_t n = 0;
  ray_error* err = nullptr;
  check(ray_test_ref_count(as_ref(ref), &n, &err), err);
  return py::int_(n);
}
void test_fault(const std::string& point, const std::string& action) {
  ray_error* err = nullptr;
  check(ray_test_fault(view(point), view(action), &err), err);
}

// Round trip through the value codec alone: (format, size, n_oob) and the bytes; for tests.
py::tuple encode(const py::object& o, bool exact) {
  Encoder encoder;
  Encoded e;
  if (!encoder.add(o.ptr(), exact, &e)) throw py::error_already_set();
  const ray_value v = encoder.view(e);
  return py::make_tuple(v.format, py::bytes(static_cast<const char*>(v.data), v.size), v.n_oob,
                        v.n_refs);
}
py::object decode(const py::bytes& b, uint32_t format) {
  ray_buffer buffer = RAY_BUFFER_INIT;
  const ray_bytes v = bytes_view(b);
  buffer.data = v.data;
  buffer.size = v.size;
  buffer.format = format;
  PyObject* out = decode_borrowed(&buffer);
  if (out == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(out);
}

void set_hooks(const py::dict& d) {
  auto set = [&](const char* name, PyObject** slot) {
    if (d.contains(name)) *slot = new_ref(py::object(d[name]).ptr());
  };
  set("auto_init", &g_hooks.auto_init);
  set("make_error", &g_hooks.make_error);
  set("dump_error", &g_hooks.dump_error);
  set("dumps", &g_hooks.dumps);
  set("loads", &g_hooks.loads);
  set("await_ref", &g_hooks.await_ref);
  set("ref_future", &g_hooks.ref_future);
  set("ref_as_future", &g_hooks.ref_as_future);
  set("ref_on_completed", &g_hooks.ref_on_completed);
  set("ref_info", &g_hooks.ref_info);
  set("unreadable", &g_hooks.unreadable);
  set("explain_pickle", &g_hooks.explain_pickle);
  set("check_export", &g_hooks.check_export);
  set("should_retry", &g_hooks.should_retry);
  set("make_dynamic", &g_hooks.make_dynamic);
  set("captured", &g_hooks.captured);
  set("enter_note", &g_hooks.enter_note);
  set("enter_gpus", &g_hooks.enter_gpus);
  set("portable", &g_hooks.portable);
  set("not_portable", &g_hooks.not_portable);
  set("read_timestamp", &g_hooks.read_timestamp);
  set("read_arrow", &g_hooks.read_arrow);
  set("leave_child", &g_hooks.leave_child);
  set("load_function", &g_hooks.load_function);
  set("actor_call", &g_hooks.actor_call);
  set("show_unread", &g_hooks.show_unread);
}

// For children of the zygote: SIGKILL when the parent dies. False: it is dead already.
bool die_with_parent(int parent) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  return getppid() == parent;
}

// For the zygote: it ends when its socket does, and until then nothing is sent to it.
void outlive_parent() { prctl(PR_SET_PDEATHSIG, 0); }
// What its children leave behind becomes this process's own.
void adopt_orphans() { prctl(PR_SET_CHILD_SUBREAPER, 1); }

void define_codes(py::module_& m) {
  const ray_code codes[] = {
      RAY_OK,          RAY_CANCELLED,        RAY_INVALID_ARGUMENT, RAY_TIMED_OUT,
      RAY_NOT_FOUND,   RAY_ALREADY_EXISTS,   RAY_OUT_OF_MEMORY,    RAY_UNAVAILABLE,
      RAY_WRONG_STATE, RAY_UNSUPPORTED,      RAY_INTERNAL,         RAY_CONFLICT,
      RAY_TASK_FAILED, RAY_WORKER_CRASHED,   RAY_OBJECT_LOST,      RAY_UNSCHEDULABLE,
      RAY_ACTOR_DIED,  RAY_ACTOR_RESTARTING, RAY_STREAM_END,       RAY_STORE_FULL,
      RAY_NODE_DIED,   RAY_GROUP_REMOVED,    RAY_UNKNOWN_FUNCTION};
  for (const ray_code c : codes) m.attr(ray_code_name(c)) = c;
}

}  // namespace
}  // namespace libray_py

PYBIND11_MODULE(_libray, m) {
  using namespace libray_py;
  const uint32_t have = ray_api_version();
  if (have >> 16 != RAY_API_VERSION >> 16 || have < RAY_API_VERSION) {
    PyErr_Format(PyExc_ImportError,
                 "libray.so has API version %u.%u.%u, but this package was built with %u.%u.%u",
                 have >> 16, (have >> 8) & 0xff, have & 0xff, RAY_API_VERSION >> 16,
                 (RAY_API_VERSION >> 8) & 0xff, RAY_API_VERSION & 0xff);
    throw py::error_already_set();
  }
  ActorType.tp_getattro = actor_getattr_hook();
  PyObject* module = m.ptr();
  if (!init_value_types(module) || !init_ref_types(module) || !init_call_types(module) ||
      !init_worker_types(module) || !init_queue_types(module)) {
    throw py::error_already_set();
  }
  define_codes(m);
  m.def("set_hooks", &set_hooks);
  m.def("build_info", [] { return std::string(ray_build_info()); });
  m.def("init", &init);
  m.def("shutdown", &shutdown);
  m.def("forget", &forget);
  m.def("is_initialized", [] { return g_process.runtime != nullptr; });
  m.def("is_worker", [] { return g_process.worker; });
  m.def("generation", [] { return g_process.generation; });
  m.def("is_retryable", [](int code) { return ray_code_is_retryable(code); });
  m.def("context", &context);
  m.def("define_function", &define_function);
  m.def("find_function", &find_function);
  m.def("named_function", &named_function);
  m.def("worker_code", &worker_code);
  m.def("worker_command", &worker_command);
  m.def("define_symbol", &define_symbol);
  m.def("define_library", &define_library);
  m.def("actor_create", &actor_create);
  m.def("actor_find", &actor_find);
  m.def("actor_self", &actor_self);
  m.def("actor_from_id", &actor_from_id);
  m.def("actor_from_ref", &actor_from_ref);
  m.def("actor_kill", &actor_kill);
  m.def("cancel", &cancel);
  m.def("query", &query);
  define_groups(m);
  m.def("die_with_parent", &die_with_parent);
  m.def("outlive_parent", &outlive_parent);
  m.def("adopt_orphans", &adopt_orphans);
  m.def("_answer_stack_requests", &answer_stack_requests);
  m.def("_watch_folder", &watch_folder);
  m.def("_set_before_block", [](const py::object& callable) {
    PyObject* now = callable.is_none() ? nullptr : new_ref(callable.ptr());
    Py_XDECREF(std::exchange(g_process.before_block, now));
  });
  m.def("kv_get", &kv_get);
  m.def("kv_put", &kv_put);
  m.def("kv_delete", &kv_delete);
  m.def("kv_list", &kv_list);
  m.def("ref_count", &ref_count);
  m.def("test_fault", &test_fault);
  m.def("encode", &encode);
  m.def("decode", &decode);
}
