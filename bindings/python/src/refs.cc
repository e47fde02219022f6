// ObjectRef and the other handle types. An ObjectRef holds one count of a ray_ref and no Python
// object, so it is not tracked by the garbage collector. In the pickle of a value it becomes an index
// into the value's references (value.cc); in every other pickle it is exported, which keeps its object
// until the job ends.
#include "refs.h"

#include <sys/random.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <unordered_map>

namespace libray_py {

constinit thread_local ray_buffer* t_unpickled = nullptr;
PyTypeObject RefType = {PyVarObject_HEAD_INIT(nullptr, 0)};
PyTypeObject FunctionType = {PyVarObject_HEAD_INIT(nullptr, 0)};
PyTypeObject ActorType = {PyVarObject_HEAD_INIT(nullptr, 0)};
PyTypeObject StreamType = {PyVarObject_HEAD_INIT(nullptr, 0)};

namespace {

PyObject* g_module_ref_at = nullptr;  // functions that pickles name
PyObject* g_module_ref_import = nullptr;

constexpr int kFreeMax = 4096;
RefObject* g_free_refs[kFreeMax];  // under the GIL
int g_n_free = 0;

RefObject* as_ref(PyObject* o) { return reinterpret_cast<RefObject*>(o); }

// The 28 bytes that programs see: the task's 24 and the index of the object, little endian.
constexpr size_t kBinarySize = RAY_ID_SIZE + 4;
using Binary = std::array<uint8_t, kBinarySize>;

// Ids that a program made itself: they name no object that this process could get, so `ref` is null.
std::unordered_map<PyObject*, Binary> g_bare;

void ref_dealloc(PyObject* self) {
  RefObject* r = as_ref(self);
  if (r->weakrefs != nullptr) PyObject_ClearWeakRefs(self);
  if (__builtin_expect(r->ref == nullptr, 0)) g_bare.erase(self);
  ray_ref_release(r->ref);
  if (g_n_free < kFreeMax) {
    g_free_refs[g_n_free++] = r;
    return;
  }
  PyObject_Free(self);
}

Binary binary_of(PyObject* self) {
  if (as_ref(self)->ref == nullptr) return g_bare[self];
  const ray_id id = ray_ref_id(as_ref(self)->ref);
  Binary out{};
  memcpy(out.data(), id.b, RAY_ID_SIZE - 4);
  for (size_t i = 0; i < 4; ++i) out[RAY_ID_SIZE + i] = id.b[RAY_ID_SIZE - 1 - i];
  return out;
}

Py_hash_t ref_hash(PyObject* self) {
  ray_id id;
  if (__builtin_expect(as_ref(self)->ref == nullptr, 0)) {  // the same as of the object so named
    const Binary b = binary_of(self);
    memcpy(id.b, b.data(), RAY_ID_SIZE - 4);
    for (size_t i = 0; i < 4; ++i) id.b[RAY_ID_SIZE - 1 - i] = b[RAY_ID_SIZE + i];
  } else {
    id = ray_ref_id(as_ref(self)->ref);
  }
  uint64_t a = 0x9e3779b97f4a7c15u;
  for (size_t i = 0; i < RAY_ID_SIZE; i += 8) {
    uint64_t w;
    memcpy(&w, id.b + i, 8);
    a = (a ^ w) * 0xff51afd7ed558ccdu;
    a ^= a >> 32;
  }
  const auto h = static_cast<Py_hash_t>(a);
  return h == -1 ? -2 : h;
}

PyObject* ref_compare(PyObject* a, PyObject* b, int op) {
  // As in Ray they have no order: `<` is a mistake.
  if (!ref_check(a) || !ref_check(b) || (op != Py_EQ && op != Py_NE)) Py_RETURN_NOTIMPLEMENTED;
  int c;
  if (__builtin_expect(as_ref(a)->ref == nullptr || as_ref(b)->ref == nullptr, 0)) {
    c = memcmp(binary_of(a).data(), binary_of(b).data(), kBinarySize);
  } else {
    const ray_id x = ray_ref_id(as_ref(a)->ref), y = ray_ref_id(as_ref(b)->ref);
    c = memcmp(x.b, y.b, RAY_ID_SIZE);
  }
  Py_RETURN_RICHCOMPARE(c, 0, op);
}

std::string hex_of(const Binary& b) {
  static const char digits[] = "0123456789abcdef";
  std::string out;
  for (const uint8_t byte : b) {
    out += digits[byte >> 4];
    out += digits[byte & 15];
  }
  return out;
}

PyObject* ref_repr(PyObject* self) {
  return PyUnicode_FromFormat("ObjectRef(%s)", hex_of(binary_of(self)).c_str());
}

PyObject* ref_hex(PyObject* self, PyObject*) {
  return PyUnicode_FromString(hex_of(binary_of(self)).c_str());
}

PyObject* ref_binary(PyObject* self, PyObject*) {
  const Binary b = binary_of(self);
  return PyBytes_FromStringAndSize(reinterpret_cast<const char*>(b.data()), kBinarySize);
}

PyObject* ref_is_nil(PyObject* self, PyObject*) {
  const Binary b = binary_of(self);
  return PyBool_FromLong(std::count(b.begin(), b.end(), 0xff) == kBinarySize ||
                         std::count(b.begin(), b.end(), 0) == kBinarySize);
}

// ---- references that a program makes from bytes

// A real reference when this process has one to that object, else one that only names it.
PyObject* bare_ref(const uint8_t* bytes) {
  ray_id id;
  ray_ref* found = nullptr;
  memcpy(id.b, bytes, RAY_ID_SIZE - 4);
  for (size_t i = 0; i < 4; ++i) id.b[RAY_ID_SIZE - 1 - i] = bytes[RAY_ID_SIZE + i];
  const bool ours = memcmp(bytes + RAY_ID_SIZE - 4, "\0\0\0", 4) == 0;  // as binary() writes it
  if (ours && g_process.runtime != nullptr &&
      ray_ref_find(g_process.runtime, &id, &found, nullptr) == RAY_OK) {
    return ref_new(found);
  }
  PyObject* self = ref_new(nullptr);
  if (self != nullptr) memcpy(g_bare[self].data(), bytes, kBinarySize);
  return self;
}

PyObject* ref_from_binary(PyObject*, PyObject* id) {
  if (!PyBytes_Check(id)) {
    PyErr_Format(PyExc_TypeError, "Unsupported type: %S, expected bytes", Py_TYPE(id));
    return nullptr;
  }
  if (PyBytes_GET_SIZE(id) != static_cast<Py_ssize_t>(kBinarySize)) {
    PyErr_Format(PyExc_ValueError, "ID string needs to have length %zu, got %zd", kBinarySize,
                 PyBytes_GET_SIZE(id));
    return nullptr;
  }
  return bare_ref(reinterpret_cast<const uint8_t*>(PyBytes_AS_STRING(id)));
}

PyObject* ref_make(PyTypeObject*, PyObject* args, PyObject* kwargs) {
  static const char* names[] = {"id", "owner_addr", "call_site_data", "skip_adding_local_ref",
                                nullptr};
  PyObject *id, *owner = nullptr, *site = nullptr, *skip = nullptr;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|OOO:ObjectRef", const_cast<char**>(names), &id,
                                   &owner, &site, &skip)) {
    return nullptr;
  }
  return ref_from_binary(nullptr, id);
}

PyObject* ref_from_hex(PyObject*, PyObject* digits) {
  Owned bytes(PyObject_CallMethod(reinterpret_cast<PyObject*>(&PyBytes_Type), "fromhex", "O",
                                  digits));
  return bytes ? ref_from_binary(nullptr, bytes.get()) : nullptr;
}

PyObject* ref_nil(PyObject*, PyObject*) {
  Binary b;
  b.fill(0xff);
  return bare_ref(b.data());
}

PyObject* ref_from_random(PyObject*, PyObject*) {
  Binary b;
  if (getrandom(b.data(), b.size(), 0) != static_cast<ssize_t>(b.size()))
    return PyErr_SetFromErrno(PyExc_OSError);
  return bare_ref(b.data());
}

PyObject* ref_size(PyObject*, PyObject*) { return PyLong_FromSize_t(kBinarySize); }

PyObject* ref_task_id(PyObject* self, PyObject*) {
  return PyObject_CallFunction(g_hooks.ref_info, "Os", self, "task");
}
PyObject* ref_job_id(PyObject* self, PyObject*) {
  return PyObject_CallFunction(g_hooks.ref_info, "Os", self, "job");
}
PyObject* ref_owner_address(PyObject* self, PyObject*) {
  return PyObject_CallFunction(g_hooks.ref_info, "Os", self, "owner");
}
PyObject* ref_call_site(PyObject*, PyObject*) { return PyUnicode_FromString(""); }
PyObject* ref_shard_hash(PyObject* self, PyObject*) {
  return PyLong_FromSsize_t(ref_hash(self) & PY_SSIZE_T_MAX);
}

PyObject* ref_await(PyObject* self) {
  return PyObject_CallFunctionObjArgs(g_hooks.await_ref, self, nullptr);
}

PyObject* ref_future(PyObject* self, PyObject*) {
  return PyObject_CallFunctionObjArgs(g_hooks.ref_future, self, nullptr);
}

PyObject* ref_as_future(PyObject* self, PyObject*) {
  return PyObject_CallFunctionObjArgs(g_hooks.ref_as_future, self, nullptr);
}

PyObject* ref_on_completed(PyObject* self, PyObject* callback) {
  return PyObject_CallFunctionObjArgs(g_hooks.ref_on_completed, self, callback, nullptr);
}

// (function, (exported bytes,)): for a pickle that can be read alone.
PyObject* reduce_exported(ray_ref* ref) {
  if (g_hooks.check_export != nullptr) {  // whether this is allowed at all
    Owned ok(PyObject_CallFunctionObjArgs(g_hooks.check_export, nullptr));
    if (!ok) return nullptr;
  }
  size_t size = 0;
  ray_error* err = nullptr;
  ray_code code = ray_ref_export(ref, nullptr, &size, &err);
  if (code != RAY_OK) return raise_code(code, err);
  Owned bytes(PyBytes_FromStringAndSize(nullptr, static_cast<Py_ssize_t>(size)));
  if (!bytes) return nullptr;
  code = ray_ref_export(ref, PyBytes_AS_STRING(bytes.get()), &size, &err);
  if (code != RAY_OK) return raise_code(code, err);
  return Py_BuildValue("O(O)", g_module_ref_import, bytes.get());
}

PyObject* ref_reduce(PyObject* self, PyObject*) {
  if (as_ref(self)->ref != nullptr) return reduce_exported(as_ref(self)->ref);
  Owned bytes(ref_binary(self, nullptr));
  return bytes ? Py_BuildValue("O(O)", &RefType, bytes.get()) : nullptr;
}

PyObject* ref_copy(PyObject* self, PyObject*) { return new_ref(self); }

PyMethodDef ref_methods[] = {
    {"hex", ref_hex, METH_NOARGS, "The id as 56 hexadecimal digits: its task's id and an index."},
    {"binary", ref_binary, METH_NOARGS, "The id as 28 bytes."},
    {"__bytes__", ref_binary, METH_NOARGS, "The id as 28 bytes."},
    {"from_binary", ref_from_binary, METH_O | METH_CLASS, "The reference of that id."},
    {"from_hex", ref_from_hex, METH_O | METH_CLASS, "The reference of that id."},
    {"from_random", ref_from_random, METH_NOARGS | METH_CLASS, "A reference of a random id."},
    {"nil", ref_nil, METH_NOARGS | METH_CLASS, "The reference that names nothing."},
    {"size", ref_size, METH_NOARGS | METH_CLASS, "Number of bytes of an id."},
    {"task_id", ref_task_id, METH_NOARGS, "Id of the task that makes, or put, the object."},
    {"job_id", ref_job_id, METH_NOARGS, "Id of the job."},
    {"owner_address", ref_owner_address, METH_NOARGS, "Where the object was made, as bytes."},
    {"call_site", ref_call_site, METH_NOARGS, "Not recorded: an empty string."},
    {"redis_shard_hash", ref_shard_hash, METH_NOARGS, nullptr},
    {"is_nil", ref_is_nil, METH_NOARGS, "Whether this names no object."},
    {"future", ref_future, METH_NOARGS, "A concurrent.futures.Future of the value."},
    {"as_future", ref_as_future, METH_NOARGS, "An asyncio.Future of the value."},
    {"_on_completed", ref_on_completed, METH_O,
     "Calls callback(value or exception) once, on a helper thread."},
    {"__reduce__", ref_reduce, METH_NOARGS, nullptr},
    {"__copy__", ref_copy, METH_NOARGS, nullptr},
    {"__deepcopy__", ref_copy, METH_O, nullptr},
    {"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS, "ObjectRef[T] for annotations."},
    {nullptr, nullptr, 0, nullptr}};
PyAsyncMethods ref_async = {};

// ---- function, actor, stream
// ---------------------------------------------------------------------------------------

void function_dealloc(PyObject* self) {
  ray_function_release(reinterpret_cast<FunctionObject*>(self)->function);
  Py_TYPE(self)->tp_free(self);
}

ActorObject* as_actor(PyObject* o) { return reinterpret_cast<ActorObject*>(o); }

void actor_dealloc(PyObject* self) {
  PyObject_GC_UnTrack(self);
  ActorObject* a = as_actor(self);
  if (a->weakrefs != nullptr) PyObject_ClearWeakRefs(self);
  ray_actor_release(a->actor);
  Py_CLEAR(a->methods);
  Py_CLEAR(a->info);
  Py_TYPE(self)->tp_free(self);
}
int actor_traverse(PyObject* self, visitproc visit, void* arg) {
  Py_VISIT(as_actor(self)->methods);
  Py_VISIT(as_actor(self)->info);
  return 0;
}
int actor_clear(PyObject* self) {
  Py_CLEAR(as_actor(self)->methods);
  Py_CLEAR(as_actor(self)->info);
  return 0;
}
Py_hash_t actor_hash(PyObject* self) {
  const ray_id id = ray_actor_id(as_actor(self)->actor);
  uint64_t a, b;
  memcpy(&a, id.b, 8);
  memcpy(&b, id.b + 16, 8);
  const auto h = static_cast<Py_hash_t>((a * 31) ^ b);
  return h == -1 ? -2 : h;
}
PyObject* actor_compare(PyObject* a, PyObject* b, int op) {
  if (!actor_check(a) || !actor_check(b)) Py_RETURN_NOTIMPLEMENTED;
  const ray_id x = ray_actor_id(as_actor(a)->actor), y = ray_actor_id(as_actor(b)->actor);
  const int c = memcmp(x.b, y.b, RAY_ID_SIZE);
  Py_RETURN_RICHCOMPARE(c, 0, op);
}
PyObject* actor_id_hex(PyObject* self, void*) {
  return PyUnicode_FromString(id_hex(ray_actor_id(as_actor(self)->actor)).c_str());
}
PyObject* actor_weak(PyObject* self, void*) { return PyBool_FromLong(ray_actor_is_weak(as_actor(self)->actor)); }
// An ObjectRef that stands for this handle, and keeps the actor: it pickles like every reference.
PyObject* actor_as_ref(PyObject* self, PyObject*) {
  ray_ref* ref = nullptr;
  ray_error* err = nullptr;
  const ray_code code = ray_actor_to_ref(as_actor(self)->actor, &ref, &err);
  return code == RAY_OK ? ref_new(ref) : raise_code(code, err);
}
PyMethodDef actor_methods[] = {{"_as_ref", actor_as_ref, METH_NOARGS, nullptr},
                               {nullptr, nullptr, 0, nullptr}};
PyGetSetDef actor_getset[] = {{"_actor_id_hex", actor_id_hex, nullptr, nullptr, nullptr},
                              {"_weak", actor_weak, nullptr, nullptr, nullptr},
                              {nullptr, nullptr, nullptr, nullptr, nullptr}};
PyMemberDef actor_members[] = {
    {"_methods", T_OBJECT_EX, offsetof(ActorObject, methods), READONLY, nullptr},
    {"_info", T_OBJECT_EX, offsetof(ActorObject, info), READONLY, nullptr},
    {nullptr, 0, 0, 0, nullptr}};

StreamObject* as_stream(PyObject* o) { return reinterpret_cast<StreamObject*>(o); }

void stream_dealloc(PyObject* self) {
  PyObject_GC_UnTrack(self);
  StreamObject* s = as_stream(self);
  if (s->weakrefs != nullptr) PyObject_ClearWeakRefs(self);
  ray_stream_release(s->stream);
  Py_CLEAR(s->pending);
  Py_TYPE(self)->tp_free(self);
}
int stream_traverse(PyObject* self, visitproc visit, void* arg) {
  Py_VISIT(as_stream(self)->pending);
  return 0;
}
int stream_clear(PyObject* self) {
  Py_CLEAR(as_stream(self)->pending);
  return 0;
}

// The next item: RAY_OK with *out set, RAY_STREAM_END, RAY_TIMED_OUT, or -1 with an exception set.
int stream_take(StreamObject* s, int64_t timeout_ns, PyObject** out) {
  if (s->pending != nullptr) {
    *out = std::exchange(s->pending, nullptr);
    return RAY_OK;
  }
  if (s->ended) return RAY_STREAM_END;
  ray_ref* ref = nullptr;
  ray_error* err = nullptr;
  ray_code code = ray_stream_next(s->stream, 0, &ref, &err);
  if (code == RAY_TIMED_OUT && timeout_ns != 0) {
    ray_error_release(std::exchange(err, nullptr));
    bool interrupted;
    ++s->taking;
    code = wait_in_slices(timeout_ns, &interrupted, [&](int64_t ns) {
      ray_error_release(std::exchange(err, nullptr));
      return ray_stream_next(s->stream, ns, &ref, &err);
    });
    --s->taking;
    if (interrupted) {
      ray_error_release(err);
      return -1;
    }
  }
  if (code == RAY_OK) {
    *out = ref_new(ref);
    return *out != nullptr ? RAY_OK : -1;
  }
  if (code == RAY_STREAM_END || code == RAY_TIMED_OUT) {
    s->ended = code == RAY_STREAM_END;
    ray_error_release(err);
    return code;
  }
  raise_code(code, err);
  return -1;
}

PyObject* stream_next(PyObject* self) {
  PyObject* out = nullptr;
  stream_take(as_stream(self), -1, &out);
  return out;  // null without an exception is StopIteration
}
// _peek(timeout) -> True when an item is ready or the stream is over. Takes nothing from it.
PyObject* stream_peek(PyObject* self, PyObject* timeout) {
  int64_t ns;
  if (!parse_timeout(timeout, &ns)) return nullptr;
  StreamObject* s = as_stream(self);
  if (s->pending != nullptr || s->ended) Py_RETURN_TRUE;
  ray_runtime* rt = ensure_runtime();
  if (rt == nullptr) return nullptr;
  uint8_t ready = 0;
  ray_error* err = nullptr;
  bool interrupted = false;
  auto look = [&](int64_t slice) {
    const ray_code c = ray_wait_any(rt, nullptr, 0, &s->stream, 1, 1, slice, nullptr, &ready, &err);
    return c == RAY_OK && ready == 0 ? static_cast<ray_code>(RAY_TIMED_OUT) : c;
  };
  ray_code code = look(0);
  if (code == RAY_TIMED_OUT && ns != 0) code = wait_in_slices(ns, &interrupted, look);
  if (interrupted) return nullptr;
  if (code != RAY_OK && code != RAY_TIMED_OUT) return raise_code(code, err);
  return PyBool_FromLong(ready);
}
// _is_over() -> whether nothing more will come; never waits. A thread that waits for the next item is the one that learns
// of the end: taking an item past it would change the order of what it gets.
PyObject* stream_is_over(PyObject* self, PyObject*) {
  StreamObject* s = as_stream(self);
  PyObject* out = nullptr;
  if (s->pending != nullptr || (s->taking != 0 && !s->ended)) Py_RETURN_FALSE;
  Owned zero(PyLong_FromLong(0));
  Owned ready(zero ? stream_peek(self, zero.get()) : nullptr);
  if (!ready || ready.get() == Py_False) return ready.release();
  const int r = stream_take(s, 0, &out);
  if (r == -1) return nullptr;
  if (r == RAY_OK) s->pending = out;
  return PyBool_FromLong(r == RAY_STREAM_END);
}
PyObject* stream_completed(PyObject* self, PyObject*) {
  ray_ref* ref = nullptr;
  ray_error* err = nullptr;
  const ray_code code = ray_stream_completed(as_stream(self)->stream, &ref, &err);
  return code == RAY_OK ? ref_new(ref) : raise_code(code, err);
}
// _next(timeout): the item, or TimeoutError through make_error.
PyObject* stream_next_timeout(PyObject* self, PyObject* timeout) {
  int64_t ns;
  if (!parse_timeout(timeout, &ns)) return nullptr;
  PyObject* out = nullptr;
  const int r = stream_take(as_stream(self), ns, &out);
  if (r == RAY_TIMED_OUT) return raise_code(RAY_TIMED_OUT, nullptr);
  if (r == RAY_STREAM_END) PyErr_SetNone(PyExc_StopIteration);
  return out;
}
PyObject* stream_cancel(PyObject* self, PyObject* flags) {
  const unsigned long f = PyLong_AsUnsignedLong(flags);
  if (PyErr_Occurred()) return nullptr;
  ray_error* err = nullptr;
  const ray_code code = ray_stream_cancel(as_stream(self)->stream, static_cast<uint32_t>(f), &err);
  if (code != RAY_OK) return raise_code(code, err);
  Py_RETURN_NONE;
}
PyObject* stream_id(PyObject* self, PyObject*) {
  return PyUnicode_FromString(id_hex(ray_stream_id(as_stream(self)->stream)).c_str());
}
PyObject* stream_reduce(PyObject*, PyObject*) {
  PyErr_SetString(PyExc_TypeError,
                  "cannot pickle an ObjectRefGenerator object, which belongs to the process that "
                  "called the generator: pass the references that it gives");
  return nullptr;
}
// _take() -> the next item, or None when it is not there yet; StopIteration after the last.
PyObject* stream_take_now(PyObject* self, PyObject*) {
  PyObject* out = nullptr;
  const int r = stream_take(as_stream(self), 0, &out);
  if (r == RAY_TIMED_OUT) Py_RETURN_NONE;
  if (r == RAY_STREAM_END) PyErr_SetNone(PyExc_StopIteration);
  return out;
}
PyMethodDef stream_methods[] = {
    {"_peek", stream_peek, METH_O, nullptr},
    {"_is_over", stream_is_over, METH_NOARGS, nullptr},
    {"completed", stream_completed, METH_NOARGS,
     "A reference that is ready when the generator's task is over; its get raises what the "
     "generator raised."},
    {"_next", stream_next_timeout, METH_O, nullptr},
    {"_cancel", stream_cancel, METH_O, nullptr},
    {"_take", stream_take_now, METH_NOARGS, nullptr},
    {"_task_hex", stream_id, METH_NOARGS, nullptr},
    {"__reduce__", stream_reduce, METH_NOARGS, nullptr},
    {nullptr, nullptr, 0, nullptr}};
PyMemberDef stream_members[] = {
    {"_ended", T_BOOL, offsetof(StreamObject, ended), READONLY, nullptr},
    {nullptr, 0, 0, 0, nullptr}};

// ---- functions that pickles name
// -------------------------------------------------------------------------------------

PyObject* ref_at(PyObject*, PyObject* index) {
  const unsigned long i = PyLong_AsUnsignedLong(index);
  if (PyErr_Occurred()) return nullptr;
  ray_buffer* buffer = t_unpickled;
  if (buffer == nullptr) {
    PyErr_SetString(PyExc_RuntimeError,
                    "this pickle is a part of a value and can only be read together with it");
    return nullptr;
  }
  ray_ref* ref = nullptr;
  ray_error* err = nullptr;
  const ray_code code = ray_buffer_ref(buffer, static_cast<uint32_t>(i), &ref, &err);
  return code == RAY_OK ? ref_new(ref) : raise_code(code, err);
}

PyObject* ref_import(PyObject*, PyObject* bytes) {
  ray_runtime* rt = ensure_runtime();
  char* data;
  Py_ssize_t size;
  if (rt == nullptr || PyBytes_AsStringAndSize(bytes, &data, &size) != 0) return nullptr;
  ray_ref* ref = nullptr;
  ray_error* err = nullptr;
  const ray_code code = ray_ref_import(rt, ray_bytes{data, static_cast<size_t>(size)}, &ref, &err);
  return code == RAY_OK ? ref_new(ref) : raise_code(code, err);
}

PyMethodDef module_methods[] = {
    {"_ref_at", ref_at, METH_O, "A reference of the value that is being read."},
    {"_ref_import", ref_import, METH_O, "A reference from its exported bytes."},
    {nullptr, nullptr, 0, nullptr}};

void basic(PyTypeObject& t, const char* name, size_t size, destructor dealloc,
           unsigned long flags) {
  t.tp_name = name;
  t.tp_basicsize = static_cast<Py_ssize_t>(size);
  t.tp_dealloc = dealloc;
  t.tp_flags = Py_TPFLAGS_DEFAULT | flags;
}

}  // namespace

std::string id_hex(const ray_id& id) {
  char text[2 * RAY_ID_SIZE + 1];
  ray_id_to_hex(&id, text);
  return text;
}

// Whether RAY_TIMED_OUT is the error that one of the objects has. Only a notification tells the error of an object from an
// object that is not there. Without the GIL.
static bool has_own_timeout(ray_runtime* rt, ray_ref* const* refs, size_t n) {
  ray_notify notify = RAY_NOTIFY_INIT;
  if (ray_queue_create(rt, &notify.queue, nullptr) != RAY_OK) return false;
  bool found = false;
  for (size_t i = 0; i < n && !found; ++i) {
    ray_completion c = RAY_COMPLETION_INIT;
    size_t told = 0;
    if (ray_on_ready(refs[i], &notify, nullptr, nullptr) != RAY_OK ||
        ray_queue_poll(notify.queue, &c, 1, 0, &told, nullptr) != RAY_OK || told == 0)
      continue;
    found = c.code == RAY_TIMED_OUT;
    ray_ref_release(c.ref);
    ray_error_release(c.error);
  }
  ray_queue_release(notify.queue);
  return found;
}

ray_code get_in_slices(ray_runtime* rt, ray_ref* const* refs, size_t n, int64_t timeout_ns, ray_buffer* out,
                       bool* interrupted, ray_error** err) {
  using Clock = std::chrono::steady_clock;
  constexpr ray_code kOwn = -RAY_TIMED_OUT, kThere = -RAY_TIMED_OUT - 1;
  const auto start = Clock::now();
  size_t there = 0;  // so many, from the first one on, are
  auto all_there = [&] {
    for (uint8_t ready = 0; there < n; ++there, ready = 0) {
      size_t count = 0;
      if (ray_wait(rt, refs + there, 1, 1, 0, &ready, &count, nullptr) != RAY_OK || ready == 0) return false;
    }
    return true;
  };
  ray_code code = wait_in_slices(timeout_ns, interrupted, [&](int64_t slice) {
    ray_error_release(std::exchange(*err, nullptr));
    const auto began = Clock::now();
    const ray_code got = ray_get(rt, refs, n, slice, out, err);
    const bool early = Clock::now() - began < std::chrono::nanoseconds(slice / 2);
    if (got == RAY_TIMED_OUT && early && has_own_timeout(rt, refs, n)) return kOwn;
    return got == RAY_TIMED_OUT && all_there() ? kThere : got;
  });
  if (code == kThere) {
    // What is left is on disk. In one piece: the store's limits are of one request, and what it has begun to read goes on.
    // It looks at signals itself (look_at_signals).
    const int64_t spent = std::chrono::nanoseconds(Clock::now() - start).count();
    if (timeout_ns >= 0 && spent >= timeout_ns) return RAY_TIMED_OUT;
    ray_error_release(std::exchange(*err, nullptr));
    Py_BEGIN_ALLOW_THREADS code = ray_get(rt, refs, n, timeout_ns < 0 ? -1 : timeout_ns - spent, out, err);
    Py_END_ALLOW_THREADS
  }
  return code == kOwn ? static_cast<ray_code>(RAY_TIMED_OUT) : code;
}

PyObject* ref_new(ray_ref* ref) {
  RefObject* r;
  if (g_n_free > 0) {
    r = g_free_refs[--g_n_free];
    (void)PyObject_Init(reinterpret_cast<PyObject*>(r), &RefType);
  } else {
    r = PyObject_New(RefObject, &RefType);
    if (r == nullptr) {
      ray_ref_release(ref);
      return nullptr;
    }
  }
  r->ref = ref;
  r->weakrefs = nullptr;
  return reinterpret_cast<PyObject*>(r);
}

PyObject* reduce_to_index(uint32_t index) {
  return Py_BuildValue("O(I)", g_module_ref_at, static_cast<unsigned>(index));
}

PyObject* raise_no_object(PyObject* ref) {
  PyErr_Format(PyExc_ValueError,
               "%R was made from bytes and names no object that this process can get: pass the "
               "reference itself, inside a value",
               ref);
  return nullptr;
}

PyObject* function_new(ray_function* function) {
  auto* f = PyObject_New(FunctionObject, &FunctionType);
  if (f == nullptr) {
    ray_function_release(function);
    return nullptr;
  }
  f->function = function;
  f->generation = g_process.generation;
  return reinterpret_cast<PyObject*>(f);
}

bool init_ref_types(PyObject* module) {
  basic(RefType, "libray.ObjectRef", sizeof(RefObject), ref_dealloc, 0);
  RefType.tp_new = ref_make;
  RefType.tp_doc = "A reference to an object that exists or will exist: a future.";
  RefType.tp_hash = ref_hash;
  RefType.tp_richcompare = ref_compare;
  RefType.tp_repr = ref_repr;
  RefType.tp_methods = ref_methods;
  RefType.tp_weaklistoffset = offsetof(RefObject, weakrefs);
  ref_async.am_await = ref_await;
  RefType.tp_as_async = &ref_async;

  basic(FunctionType, "libray._libray.Function", sizeof(FunctionObject), function_dealloc, 0);

  basic(ActorType, "libray._libray.ActorBase", sizeof(ActorObject), actor_dealloc,
        Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC);
  ActorType.tp_traverse = actor_traverse;
  ActorType.tp_clear = actor_clear;
  ActorType.tp_hash = actor_hash;
  ActorType.tp_richcompare = actor_compare;
  ActorType.tp_methods = actor_methods;
  ActorType.tp_getset = actor_getset;
  ActorType.tp_members = actor_members;
  ActorType.tp_weaklistoffset = offsetof(ActorObject, weakrefs);

  basic(StreamType, "libray._libray.StreamBase", sizeof(StreamObject), stream_dealloc,
        Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC);
  StreamType.tp_traverse = stream_traverse;
  StreamType.tp_clear = stream_clear;
  StreamType.tp_iter = PyObject_SelfIter;
  StreamType.tp_iternext = stream_next;
  StreamType.tp_methods = stream_methods;
  StreamType.tp_members = stream_members;
  StreamType.tp_weaklistoffset = offsetof(StreamObject, weakrefs);

  PyTypeObject* types[] = {&RefType, &FunctionType, &ActorType, &StreamType};
  const char* names[] = {"ObjectRef", "Function", "ActorBase", "StreamBase"};
  for (int i = 0; i < 4; ++i) {
    if (PyType_Ready(types[i]) != 0) return false;
    if (PyModule_AddObject(module, names[i], new_ref(reinterpret_cast<PyObject*>(types[i]))) != 0)
      return false;
  }
  if (PyModule_AddFunctions(module, module_methods) != 0) return false;
  g_module_ref_at = PyObject_GetAttrString(module, "_ref_at");
  g_module_ref_import = PyObject_GetAttrString(module, "_ref_import");
  return g_module_ref_at != nullptr && g_module_ref_import != nullptr;
}

}  // namespace libray_py
