// The hot path of a caller: RemoteFunction.remote, ActorMethod.remote, get, put, wait. One C call
// each; arguments are encoded on the stack; the GIL is given up only when a value is large enough
// to wait for the store, or to block.
#include <array>
#include <cstddef>
#include <memory>
#include <vector>

#include "calls.h"
#include "refs.h"
#include "value.h"

namespace libray_py {

PyTypeObject SpecType = {PyVarObject_HEAD_INIT(nullptr, 0)};
PyTypeObject RemoteType = {PyVarObject_HEAD_INIT(nullptr, 0)};
PyTypeObject MethodType = {PyVarObject_HEAD_INIT(nullptr, 0)};

namespace {

constexpr size_t kLargeCall = 64 << 10;  // encoded bytes from which a call may wait for the store

PyTypeObject* g_stream_class = nullptr;  // ObjectRefGenerator
PyObject* g_method_options = nullptr;    // (handle, spec, kwargs) -> ActorMethod

// ---- CallSpec
// ----------------------------------------------------------------------------------------------------

SpecObject* as_spec(PyObject* o) { return reinterpret_cast<SpecObject*>(o); }

void spec_dealloc(PyObject* self) {
  PyObject_GC_UnTrack(self);
  SpecObject* s = as_spec(self);
  Py_CLEAR(s->method);
  Py_CLEAR(s->name);
  Py_CLEAR(s->resources);
  Py_CLEAR(s->bind);
  Py_CLEAR(s->extra);
  Py_CLEAR(s->note);
  Py_TYPE(self)->tp_free(self);
}
int spec_traverse(PyObject* self, visitproc visit, void* arg) {
  Py_VISIT(as_spec(self)->bind);
  Py_VISIT(as_spec(self)->extra);
  return 0;
}
int spec_clear(PyObject* self) {
  Py_CLEAR(as_spec(self)->bind);
  Py_CLEAR(as_spec(self)->extra);
  return 0;
}

PyObject* spec_new(PyTypeObject* type, PyObject* args, PyObject* kwargs) {
  static const char* names[] = {"method", "name",  "resources", "num_returns", "max_retries",
                                "window", "flags", "min_pos",   "max_pos",     "bind",
                                "native", "extra", "note",      "group",
                                nullptr};
  PyObject *method, *name, *resources, *bind = Py_None, *extra = Py_None, *note = nullptr;
  int num_returns = 1, max_retries = RAY_RETRIES_DEFAULT, min_pos = 0, max_pos = -1, native = 0;
  unsigned window = 0, flags = 0, group = 0;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "UUS|iiIIiiOiOSI", const_cast<char**>(names),
                                   &method, &name, &resources, &num_returns, &max_retries, &window,
                                   &flags, &min_pos, &max_pos, &bind, &native, &extra, &note,
                                   &group)) {
    return nullptr;
  }
  auto* s = reinterpret_cast<SpecObject*>(type->tp_alloc(type, 0));
  if (s == nullptr) return nullptr;
  Owned self(reinterpret_cast<PyObject*>(s));
  s->method = new_ref(method);
  s->name = new_ref(name);
  s->resources = new_ref(resources);
  s->bind = new_ref(bind);
  s->extra = new_ref(extra);
  if (note != nullptr && PyBytes_GET_SIZE(note) != 0) s->note = new_ref(note);
  s->stream = num_returns == -1;  // -2: "dynamic", one reference
  s->native = native != 0;
  s->keywords = native == 2;
  s->min_pos = min_pos;
  s->max_pos = max_pos;
  s->options = RAY_TASK_OPTIONS_INIT;
  s->options.num_returns = num_returns < 0 ? 1 : static_cast<uint32_t>(num_returns);
  s->options.max_retries = max_retries;
  s->options.stream_window = window;
  s->options.flags = flags;
  s->options.group = group;
  if (!str_view(s->name, &s->options.name) || !str_view(s->method, &s->method_view)) return nullptr;
  s->options.resources_msgpack.data = PyBytes_AS_STRING(resources);
  s->options.resources_msgpack.size = static_cast<size_t>(PyBytes_GET_SIZE(resources));
  return self.release();
}

PyMemberDef spec_members[] = {
    {"extra", T_OBJECT_EX, offsetof(SpecObject, extra), READONLY, nullptr},
    {"method", T_OBJECT_EX, offsetof(SpecObject, method), READONLY, nullptr},
    {"note", T_OBJECT, offsetof(SpecObject, note), READONLY, nullptr},
    {nullptr, 0, 0, 0, nullptr}};

// ---- arguments
// ---------------------------------------------------------------------------------------------------

bool check_with_bind(const SpecObject* s, PyObject* const* args, Py_ssize_t n, PyObject* kwnames) {
  if (s->bind == Py_None) return true;
  Owned positional(PyTuple_New(n));
  Owned keywords(PyDict_New());
  if (!positional || !keywords) return false;
  for (Py_ssize_t i = 0; i < n; ++i) PyTuple_SET_ITEM(positional.get(), i, new_ref(args[i]));
  for (Py_ssize_t i = 0; kwnames != nullptr && i < PyTuple_GET_SIZE(kwnames); ++i) {
    if (PyDict_SetItem(keywords.get(), PyTuple_GET_ITEM(kwnames, i), args[n + i]) != 0)
      return false;
  }
  Owned ok(PyObject_CallFunctionObjArgs(s->bind, positional.get(), keywords.get(), nullptr));
  return static_cast<bool>(ok);
}

PyObject* take_refs(std::unique_ptr<ray_ref*[]>& many, ray_ref** few, uint32_t n) {
  ray_ref** refs = many ? many.get() : few;
  if (n == 1) return ref_new(refs[0]);
  Owned list(PyList_New(n));
  for (uint32_t i = 0; i < n; ++i) {
    PyObject* r = list ? ref_new(refs[i]) : (ray_ref_release(refs[i]), nullptr);
    if (r == nullptr) {
      list = Owned();
      continue;
    }
    PyList_SET_ITEM(list.get(), i, r);
  }
  return list.release();
}

PyObject* new_stream(ray_stream* stream) {
  auto* s = reinterpret_cast<StreamObject*>(g_stream_class->tp_alloc(g_stream_class, 0));
  if (s == nullptr) {
    ray_stream_release(stream);
    return nullptr;
  }
  s->stream = stream;
  return reinterpret_cast<PyObject*>(s);
}

}  // namespace

bool Arguments::add_all(const SpecObject* s, PyObject* const* args, Py_ssize_t n,
                        PyObject* kwnames) {
  const Py_ssize_t n_kw = kwnames == nullptr ? 0 : PyTuple_GET_SIZE(kwnames);
  const bool fits = n_kw == 0 && n >= s->min_pos && (s->max_pos < 0 || n <= s->max_pos);
  if (!fits && !check_with_bind(s, args, n, kwnames)) return false;
  if (n_kw != 0 && s->native && !s->keywords) {
    PyErr_SetString(PyExc_TypeError, "functions of another language take no keyword arguments");
    return false;
  }
  return encode(args, n, kwnames, !s->native, s->note);
}

// Of an argument, for an error.
static PyObject* name_of(Py_ssize_t i, Py_ssize_t n_positional, PyObject* kwnames) {
  if (i < n_positional) return PyUnicode_FromFormat("argument %zd", i + 1);
  return PyUnicode_FromFormat("argument %R", PyTuple_GET_ITEM(kwnames, i - n_positional));
}

bool Arguments::encode(PyObject* const* args, Py_ssize_t n, PyObject* kwnames, bool exact,
                       PyObject* note) {
  const Py_ssize_t n_kw = kwnames == nullptr ? 0 : PyTuple_GET_SIZE(kwnames);
  count_ = static_cast<size_t>(n + n_kw + (n_kw != 0) + (note != nullptr));
  if (count_ > kFew) {
    many_args_ = std::make_unique<ray_arg[]>(count_);
    many_encoded_ = std::make_unique<Encoded[]>(count_);
    args_ = many_args_.get();
    encoded_ = many_encoded_.get();
  }
  for (Py_ssize_t i = 0; i < n + n_kw; ++i) {
    if (ref_check(args[i])) {
      args_[i].ref = ref_get(args[i]);
      if (__builtin_expect(args_[i].ref == nullptr, 0)) return raise_no_object(args[i]) != nullptr;
    } else {
      args_[i].ref = nullptr;
      if (!encoder_.add(args[i], exact, &encoded_[i])) {
        if (!exact) return raise_not_portable(args[i], name_of(i, n, kwnames));
        culprit_ = args[i];
        return false;
      }
    }
  }
  if (n_kw != 0) {
    args_[n + n_kw].ref = nullptr;
    if (!encoder_.add_kwnames(kwnames, &encoded_[n + n_kw])) return false;
  }
  if (note != nullptr) {
    args_[count_ - 1].ref = nullptr;
    if (!encoder_.add_note(note, &encoded_[count_ - 1])) return false;
  }
  for (size_t i = 0; i < count_; ++i) {
    args_[i].value =
        args_[i].ref == nullptr ? encoder_.view(encoded_[i]) : ray_value RAY_VALUE_INIT;
  }
  return true;
}

namespace {

// For actor calls "unavailable" means the limit of pending calls; the Python half learns it from
// the sign.
PyObject* raise_call(ray_code code, ray_error* err, bool actor) {
  return raise_code(actor && code == RAY_UNAVAILABLE ? -code : code, err);
}

// The rest of a call once the arguments are encoded. `submit` and `stream` are the two forms of the
// C call.
template <typename Submit, typename Stream>
PyObject* finish_call(const SpecObject* s, Arguments& a, Submit submit, Stream stream,
                      bool actor = false, bool waits = false) {
  ray_error* err = nullptr;
  ray_code code;
  const bool large = waits || a.total() > kLargeCall;
  if (s->stream) {
    ray_stream* out = nullptr;
    if (large) {
      Py_BEGIN_ALLOW_THREADS code = stream(&out, &err);
      Py_END_ALLOW_THREADS
    } else {
      code = stream(&out, &err);
    }
    return code == RAY_OK ? new_stream(out) : raise_call(code, err, actor);
  }
  const uint32_t n = s->options.num_returns;
  ray_ref* few[4];
  std::unique_ptr<ray_ref*[]> many;
  if (n > 4) many = std::make_unique<ray_ref*[]>(n);
  ray_ref** refs = many ? many.get() : few;
  if (large) {
    Py_BEGIN_ALLOW_THREADS code = submit(refs, &err);
    Py_END_ALLOW_THREADS
  } else {
    code = submit(refs, &err);
  }
  if (code != RAY_OK) return raise_call(code, err, actor);
  if (n == 0) Py_RETURN_NONE;
  return take_refs(many, few, n);
}

// ---- RemoteFunction
// ------------------------------------------------------------------------------------------------

RemoteObject* as_remote(PyObject* o) { return reinterpret_cast<RemoteObject*>(o); }

void remote_dealloc(PyObject* self) {
  PyObject_GC_UnTrack(self);
  Py_CLEAR(as_remote(self)->spec);
  Py_CLEAR(as_remote(self)->function);
  if (as_remote(self)->weakrefs != nullptr) PyObject_ClearWeakRefs(self);
  Py_TYPE(self)->tp_free(self);
}
int remote_traverse(PyObject* self, visitproc visit, void* arg) {
  Py_VISIT(as_remote(self)->spec);
  return 0;
}
int remote_clear(PyObject* self) {
  Py_CLEAR(as_remote(self)->spec);
  return 0;
}

// The function in this runtime, defined on first use by the Python half (`_define`).
bool ensure_function(PyObject* self) {
  RemoteObject* r = as_remote(self);
  if (r->spec == nullptr) {
    PyErr_SetString(PyExc_RuntimeError, "remote function without a specification");
    return false;
  }
  if (ensure_runtime() == nullptr) return false;
  if (r->function != nullptr &&
      reinterpret_cast<FunctionObject*>(r->function)->generation == g_process.generation) {
    return true;
  }
  Owned f(PyObject_CallMethod(self, "_define", nullptr));
  if (!f) return false;
  if (Py_TYPE(f.get()) != &FunctionType) {
    PyErr_SetString(PyExc_TypeError, "_define must return a Function");
    return false;
  }
  Py_XDECREF(std::exchange(r->function, f.release()));
  return true;
}

bool is_ready(const RemoteObject* r) {
  return r->function != nullptr && g_process.runtime != nullptr &&
         reinterpret_cast<FunctionObject*>(r->function)->generation == g_process.generation;
}

// An argument, or with None for `self` the value of a put, could not be pickled: the Python half says
// which, and why. Returns null with an exception set.
PyObject* explain(PyObject* self, PyObject* culprit) {
  if (culprit == nullptr || g_hooks.explain_pickle == nullptr) return nullptr;
  PyObject *type, *value, *trace;
  PyErr_Fetch(&type, &value, &trace);
  PyErr_NormalizeException(&type, &value, &trace);
  if (trace != nullptr) PyException_SetTraceback(value, trace);
  Owned t(type), v(value), tb(trace);
  Owned error(PyObject_CallFunctionObjArgs(g_hooks.explain_pickle, self, culprit, value, nullptr));
  if (error) PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(error.get())), error.get());
  return nullptr;
}

PyObject* remote_call(PyObject* self, PyObject* const* args, Py_ssize_t n, PyObject* kwnames) {
  RemoteObject* r = as_remote(self);
  Owned in_group;
  if (__builtin_expect(g_process.captures || !is_ready(r), 0)) {
    if (g_process.captures) {
      in_group = Owned(PyObject_CallOneArg(g_hooks.captured, self));
      if (!in_group) return nullptr;
      r = as_remote(self = in_group.get());
    }
    if (!is_ready(r) && !ensure_function(self)) return nullptr;
  }
  const auto* s = as_spec(r->spec);
  Arguments a;
  if (!a.add_all(s, args, n, kwnames)) return explain(self, a.culprit());
  ray_runtime* rt = g_process.runtime;
  ray_function* f = reinterpret_cast<FunctionObject*>(r->function)->function;
  return finish_call(
      s, a,
      [&](ray_ref** out, ray_error** err) {
        return ray_submit(rt, f, a.data(), a.size(), &s->options, out, err);
      },
      [&](ray_stream** out, ray_error** err) {
        return ray_submit_stream(rt, f, a.data(), a.size(), &s->options, out, err);
      });
}

PyObject* remote_set(PyObject* self, PyObject* args) {  // _set(spec, function or None)
  PyObject *spec, *function;
  if (!PyArg_ParseTuple(args, "O!O", &SpecType, &spec, &function)) return nullptr;
  if (function != Py_None && Py_TYPE(function) != &FunctionType) {
    PyErr_SetString(PyExc_TypeError, "a Function or None is needed");
    return nullptr;
  }
  Py_XDECREF(std::exchange(as_remote(self)->spec, new_ref(spec)));
  Py_XDECREF(
      std::exchange(as_remote(self)->function, function == Py_None ? nullptr : new_ref(function)));
  Py_RETURN_NONE;
}

PyMethodDef remote_methods[] = {
    {"remote", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(remote_call)),
     METH_FASTCALL | METH_KEYWORDS, "Submits a task; returns at once with its ObjectRef."},
    {"_set", remote_set, METH_VARARGS, nullptr},
    {nullptr, nullptr, 0, nullptr}};
PyMemberDef remote_members[] = {
    {"_spec", T_OBJECT_EX, offsetof(RemoteObject, spec), READONLY, nullptr},
    {"_function", T_OBJECT, offsetof(RemoteObject, function), READONLY, nullptr},
    {nullptr, 0, 0, 0, nullptr}};

// ---- ActorMethod
// ---------------------------------------------------------------------------------------------------

struct MethodObject {
  PyObject_HEAD PyObject* handle;
  PyObject* spec;
};
MethodObject* as_method(PyObject* o) { return reinterpret_cast<MethodObject*>(o); }

constexpr int kFreeMethods = 64;
MethodObject* g_free_methods[kFreeMethods];
int g_n_free_methods = 0;

PyObject* method_new(PyObject* handle, PyObject* spec) {
  MethodObject* m;
  if (g_n_free_methods > 0) {
    m = g_free_methods[--g_n_free_methods];
    (void)PyObject_Init(reinterpret_cast<PyObject*>(m), &MethodType);
  } else {
    m = PyObject_New(MethodObject, &MethodType);
    if (m == nullptr) return nullptr;
  }
  m->handle = new_ref(handle);
  m->spec = new_ref(spec);
  return reinterpret_cast<PyObject*>(m);
}

void method_dealloc(PyObject* self) {
  MethodObject* m = as_method(self);
  Py_DECREF(std::exchange(m->handle, nullptr));
  Py_DECREF(std::exchange(m->spec, nullptr));
  if (g_n_free_methods < kFreeMethods) {
    g_free_methods[g_n_free_methods++] = m;
    return;
  }
  PyObject_Free(self);
}

PyObject* method_remote(PyObject* self, PyObject* const* args, Py_ssize_t n, PyObject* kwnames) {
  const auto* s = as_spec(as_method(self)->spec);
  Arguments a;
  if (!a.add_all(s, args, n, kwnames)) return explain(self, a.culprit());
  auto* handle = reinterpret_cast<ActorObject*>(as_method(self)->handle);
  ray_actor* actor = handle->actor;
  const bool early = handle->early < 2;
  handle->early += early;
  return finish_call(
      s, a,
      [&](ray_ref** out, ray_error** err) {
        return ray_actor_call(actor, s->method_view, a.data(), a.size(), &s->options, out, err);
      },
      [&](ray_stream** out, ray_error** err) {
        return ray_actor_call_stream(actor, s->method_view, a.data(), a.size(), &s->options, out,
                                     err);
      },
      true, early);
}

PyObject* method_options(PyObject* self, PyObject* args, PyObject* kwargs) {
  if (PyTuple_GET_SIZE(args) != 0) {
    PyErr_SetString(PyExc_TypeError, "options takes keyword arguments only");
    return nullptr;
  }
  Owned none(kwargs == nullptr ? PyDict_New() : new_ref(kwargs));
  if (!none) return nullptr;
  return PyObject_CallFunctionObjArgs(g_method_options, as_method(self)->handle,
                                      as_method(self)->spec, none.get(), nullptr);
}

// _remote(args=(), kwargs={}, **options): the older spelling of options(...).remote(...).
PyObject* method_old_remote(PyObject* self, PyObject* args, PyObject* kwargs) {
  Owned rest(kwargs == nullptr ? PyDict_New() : PyDict_Copy(kwargs));
  if (!rest) return nullptr;
  Owned given[2];  // args, kwargs
  const char* names[2] = {"args", "kwargs"};
  for (int i = 0; i < 2; ++i) {
    PyObject* found = i < PyTuple_GET_SIZE(args) ? PyTuple_GET_ITEM(args, i)
                                                 : PyDict_GetItemString(rest.get(), names[i]);
    if (found != nullptr && found != Py_None) given[i] = Owned(new_ref(found));
    if (PyDict_GetItemString(rest.get(), names[i]) != nullptr &&
        PyDict_DelItemString(rest.get(), names[i]) != 0) {
      return nullptr;
    }
  }
  Owned positional(given[0] ? PySequence_Tuple(given[0].get()) : PyTuple_New(0));
  Owned method(PyDict_GET_SIZE(rest.get()) == 0
                   ? new_ref(self)
                   : PyObject_CallFunctionObjArgs(g_method_options, as_method(self)->handle,
                                                  as_method(self)->spec, rest.get(), nullptr));
  Owned remote(method ? PyObject_GetAttrString(method.get(), "remote") : nullptr);
  if (!positional || !remote) return nullptr;
  return PyObject_Call(remote.get(), positional.get(), given[1].get());
}

PyObject* method_direct(PyObject* self, PyObject*, PyObject*) {
  PyErr_Format(PyExc_TypeError,
               "Actor methods cannot be called directly. Instead of running 'object.%U()', try "
               "'object.%U.remote()'.",
               as_spec(as_method(self)->spec)->method, as_spec(as_method(self)->spec)->method);
  return nullptr;
}

PyObject* method_make(PyObject*,
                      PyObject* args) {  // module function: (handle, spec) -> ActorMethod
  PyObject *handle, *spec;
  if (!PyArg_ParseTuple(args, "O!O!", &ActorType, &handle, &SpecType, &spec)) return nullptr;
  return method_new(handle, spec);
}

PyMethodDef method_methods[] = {
    {"remote", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(method_remote)),
     METH_FASTCALL | METH_KEYWORDS,
     "Calls the method in the actor; returns at once with its ObjectRef."},
    {"options", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(method_options)),
     METH_VARARGS | METH_KEYWORDS, "This method with other options."},
    {"_remote", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(method_old_remote)),
     METH_VARARGS | METH_KEYWORDS, "The older spelling of options(...).remote(...)."},
    {nullptr, nullptr, 0, nullptr}};
PyMemberDef method_members[] = {
    {"_handle", T_OBJECT_EX, offsetof(MethodObject, handle), READONLY, nullptr},
    {"_spec", T_OBJECT_EX, offsetof(MethodObject, spec), READONLY, nullptr},
    {nullptr, 0, 0, 0, nullptr}};

// handle.name: a method of the actor's class first, for that is what handles are for.
PyObject* actor_getattro(PyObject* self, PyObject* name) {
  PyObject* methods = reinterpret_cast<ActorObject*>(self)->methods;
  if (methods != nullptr) {
    if (PyObject* spec = PyDict_GetItemWithError(methods, name)) return method_new(self, spec);
    if (PyErr_Occurred()) return nullptr;
  }
  return PyObject_GenericGetAttr(self, name);
}

// ---- get, put, wait
// --------------------------------------------------------------------------------------------------

ray_runtime* running() {
  if (g_process.runtime == nullptr) raise_code(RAY_WRONG_STATE, nullptr);
  return g_process.runtime;
}

// The value of `ref` out of a buffer, which is consumed.
PyObject* value_of(PyObject* ref, ray_buffer* buffer) {
  PyObject* value = decode_owned(buffer);
  if (__builtin_expect(value != nullptr, 1)) return value;
  return raise_unreadable(PyUnicode_FromFormat("the value of %R", ref));
}

PyObject* get_one(PyObject* object, PyObject* timeout) {
  ray_ref* ref = ref_get(object);
  if (__builtin_expect(ref == nullptr, 0)) return raise_no_object(object);
  ray_buffer buffer = RAY_BUFFER_INIT;
  ray_error* err = nullptr;
  ray_code code = try_get_ref(ref, &buffer, &err);
  if (code == RAY_TIMED_OUT) {
    ray_error_release(std::exchange(err, nullptr));
    int64_t ns;
    ray_runtime* rt = running();
    if (rt == nullptr || !parse_timeout(timeout, &ns)) return nullptr;
    bool interrupted = false;
    if (ns == 0) return raise_code(RAY_TIMED_OUT, nullptr);
    code = get_in_slices(rt, &ref, 1, ns, &buffer, &interrupted, &err);
    if (interrupted) {
      ray_error_release(err);
      return nullptr;
    }
  }
  return code == RAY_OK ? value_of(object, &buffer) : raise_code(code, err);
}

// _try_get(ref, default): the value if it is there, else default; never blocks.
PyObject* try_get(PyObject*, PyObject* args) {
  PyObject *ref, *otherwise;
  if (!PyArg_ParseTuple(args, "O!O", &RefType, &ref, &otherwise)) return nullptr;
  if (ref_get(ref) == nullptr) return raise_no_object(ref);
  ray_buffer buffer = RAY_BUFFER_INIT;
  ray_error* err = nullptr;
  const ray_code code = try_get_ref(ref_get(ref), &buffer, &err);
  if (code == RAY_OK) return value_of(ref, &buffer);
  if (code != RAY_TIMED_OUT) return raise_code(code, err);
  ray_error_release(err);
  return new_ref(otherwise);
}

PyObject* get_list(PyObject* list, PyObject* timeout) {
  // The list may change in other code, which runs from here on: hold its items.
  const Owned held(PyList_GetSlice(list, 0, PyList_GET_SIZE(list)));
  if (!held) return nullptr;
  const Py_ssize_t n = PyList_GET_SIZE(held.get());
  if (n == 0) return PyList_New(0);
  std::vector<ray_ref*> refs(n);
  for (Py_ssize_t i = 0; i < n; ++i) {
    PyObject* o = PyList_GET_ITEM(held.get(), i);
    if (!ref_check(o)) {
      PyErr_Format(PyExc_TypeError,
                   "Attempting to call `get` on the value %S, which is not an ray.ObjectRef.", o);
      return nullptr;
    }
    refs[i] = ref_get(o);
    if (refs[i] == nullptr) return raise_no_object(o);
  }
  int64_t ns;
  ray_runtime* rt = running();
  if (rt == nullptr || !parse_timeout(timeout, &ns)) return nullptr;
  std::vector<ray_buffer> buffers(n);
  ray_error* err = nullptr;
  bool interrupted = false;
  ray_code code;
  {
    const YieldWhenWaiting scope;
    code = ray_get(rt, refs.data(), n, 0, buffers.data(), &err);
  }
  if (code == RAY_TIMED_OUT && ns != 0)
    code = get_in_slices(rt, refs.data(), n, ns, buffers.data(), &interrupted, &err);
  if (interrupted) {
    ray_error_release(err);
    return nullptr;
  }
  if (code != RAY_OK) return raise_code(code, err);
  Owned out(PyList_New(n));
  for (Py_ssize_t i = 0; i < n; ++i) {
    PyObject* value = out ? value_of(PyList_GET_ITEM(held.get(), i), &buffers[i]) : nullptr;
    if (value == nullptr) {
      for (Py_ssize_t j = i; j < n; ++j) ray_buffer_release(&buffers[j]);
      return nullptr;
    }
    PyList_SET_ITEM(out.get(), i, value);
  }
  return out.release();
}

// Value of keyword `name`, or null; counts what was found.
PyObject* keyword(PyObject* kwnames, PyObject* const* values, const char* name, Py_ssize_t* found) {
  for (Py_ssize_t i = 0; kwnames != nullptr && i < PyTuple_GET_SIZE(kwnames); ++i) {
    if (PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(kwnames, i), name) == 0) {
      ++*found;
      return values[i];
    }
  }
  return nullptr;
}

PyObject* py_get(PyObject*, PyObject* const* args, Py_ssize_t n, PyObject* kwnames) {
  if (n == 1 && kwnames == nullptr && ref_check(args[0])) return get_one(args[0], Py_None);
  Py_ssize_t found = 0;
  PyObject* timeout = keyword(kwnames, args + n, "timeout", &found);
  if (timeout == nullptr) timeout = Py_None;
  PyObject* refs = n == 1 ? args[0] : keyword(kwnames, args + n, "object_refs", &found);
  if (kwnames != nullptr && found != PyTuple_GET_SIZE(kwnames))
    keyword(kwnames, args + n, "_use_object_store", &found);  // it has no meaning here
  if (n > 1 || refs == nullptr || (kwnames != nullptr && found != PyTuple_GET_SIZE(kwnames))) {
    PyErr_SetString(PyExc_TypeError, "get(object_refs, *, timeout=None)");
    return nullptr;
  }
  if (ref_check(refs)) return get_one(refs, timeout);
  if (PyList_Check(refs)) return get_list(refs, timeout);
  if (PyObject_TypeCheck(refs, &StreamType)) return new_ref(refs);  // as in Ray
  PyErr_Format(PyExc_ValueError,
               "Invalid type of object refs, %S, is given. 'object_refs' must either be an "
               "ObjectRef or a list of ObjectRefs.",
               Py_TYPE(refs));
  return nullptr;
}

// put(value, *, portable=False, _owner=None, _tensor_transport=None). The object outlives whoever made it, so the
// owner is only checked.
PyObject* py_put(PyObject*, PyObject* const* args, Py_ssize_t n, PyObject* kwnames) {
  Py_ssize_t found = 0;
  PyObject* object = n == 1 ? args[0] : keyword(kwnames, args + n, "value", &found);
  PyObject* owner = keyword(kwnames, args + n, "_owner", &found);
  PyObject* portable = keyword(kwnames, args + n, "portable", &found);
  keyword(kwnames, args + n, "_tensor_transport", &found);
  if (n > 1 || object == nullptr || (kwnames != nullptr && found != PyTuple_GET_SIZE(kwnames))) {
    PyErr_SetString(PyExc_TypeError, "put(value, *, portable=False, _owner=None, _tensor_transport=None)");
    return nullptr;
  }
  if (owner != nullptr && owner != Py_None && !actor_check(owner)) {
    PyErr_Format(PyExc_TypeError, "Expect an `ray.actor.ActorHandle`, but got: %S", Py_TYPE(owner));
    return nullptr;
  }
  if (ref_check(object)) {
    PyErr_SetString(
        PyExc_TypeError,
        "Calling 'put' on an ray.ObjectRef is not allowed. The object is in the store already; put "
        "the reference into a list if the reference itself is to be stored.");
    return nullptr;
  }
  ray_runtime* rt = ensure_runtime();
  if (rt == nullptr) return nullptr;
  Encoder encoder;
  Encoded encoded;
  const int for_all = portable == nullptr ? 0 : PyObject_IsTrue(portable);
  if (for_all < 0) return nullptr;
  if (!encoder.add(object, for_all == 0, &encoded)) {
    if (for_all == 0) return explain(Py_None, object);
    raise_not_portable(object, PyUnicode_FromString("the value"));
    return nullptr;
  }
  const ray_value value = encoder.view(encoded);
  ray_ref* ref = nullptr;
  ray_error* err = nullptr;
  ray_code code;
  if (encoder.total() > kLargeCall) {
    Py_BEGIN_ALLOW_THREADS code = ray_put(rt, &value, &ref, &err);
    Py_END_ALLOW_THREADS
  } else {
    code = ray_put(rt, &value, &ref, &err);
  }
  return code == RAY_OK ? ref_new(ref) : raise_code(code, err);
}

// (ready, not ready) of `list`, which keeps its order.
PyObject* split(PyObject* list, const std::vector<uint8_t>& ready, size_t n_ready) {
  const Py_ssize_t n = PyList_GET_SIZE(list);
  Owned yes(PyList_New(static_cast<Py_ssize_t>(n_ready)));
  Owned no(PyList_New(n - static_cast<Py_ssize_t>(n_ready)));
  if (!yes || !no) return nullptr;
  Py_ssize_t a = 0, b = 0;
  for (Py_ssize_t i = 0; i < n; ++i) {
    PyObject* o = new_ref(PyList_GET_ITEM(list, i));
    if (ready[i] != 0) {
      PyList_SET_ITEM(yes.get(), a++, o);
    } else {
      PyList_SET_ITEM(no.get(), b++, o);
    }
  }
  return PyTuple_Pack(2, yes.get(), no.get());
}

bool has_duplicates(PyObject* list) {
  Owned set(PySet_New(list));
  if (!set) PyErr_Clear();
  return set && PySet_GET_SIZE(set.get()) != PyList_GET_SIZE(list);
}
PyObject* raise_duplicates(ray_error* err) {
  ray_error_release(err);
  PyErr_SetString(PyExc_ValueError, "Wait requires a list of unique ray_waitables.");
  return nullptr;
}

// wait with generators among the references. A generator is ready when its next item, or its end,
// is there; nothing is taken from it.
PyObject* wait_mixed(PyObject* list, size_t want, PyObject* timeout) {
  const Py_ssize_t n = PyList_GET_SIZE(list);
  std::vector<ray_ref*> refs;
  std::vector<ray_stream*> streams;
  std::vector<uint8_t> ready(n);
  if (has_duplicates(list)) return raise_duplicates(nullptr);
  size_t early = 0;  // generators whose item was taken already, or that are over
  for (Py_ssize_t i = 0; i < n; ++i) {
    PyObject* o = PyList_GET_ITEM(list, i);
    if (ref_check(o)) {
      if (ref_get(o) == nullptr) return raise_no_object(o);
      refs.push_back(ref_get(o));
    } else {
      auto* s = reinterpret_cast<StreamObject*>(o);
      ready[i] = s->pending != nullptr || s->ended;
      early += ready[i];
      if (ready[i] == 0) streams.push_back(s->stream);
    }
  }
  int64_t ns;
  ray_runtime* rt = running();
  if (rt == nullptr || !parse_timeout(timeout, &ns)) return nullptr;
  std::vector<uint8_t> ready_refs(refs.size() + 1), ready_streams(streams.size() + 1);
  const size_t need = want > early ? want - early : 0;
  size_t count = 0;
  ray_error* err = nullptr;
  auto look = [&](int64_t slice) {
    const ray_code c = ray_wait_any(rt, refs.data(), refs.size(), streams.data(), streams.size(),
                                    need, slice, ready_refs.data(), ready_streams.data(), &err);
    count = 0;
    for (uint8_t r : ready_refs) count += r;
    for (uint8_t r : ready_streams) count += r;
    return c == RAY_OK && count < need ? static_cast<ray_code>(RAY_TIMED_OUT) : c;
  };
  ray_code code = look(0);
  if (code == RAY_TIMED_OUT && ns != 0) {
    bool interrupted = false;
    code = wait_in_slices(ns, &interrupted, look);
    if (interrupted) return nullptr;
  }
  if (code != RAY_OK && code != RAY_TIMED_OUT) return raise_code(code, err);
  size_t r = 0, s = 0, given = 0;
  for (Py_ssize_t i = 0; i < n; ++i) {
    if (ref_check(PyList_GET_ITEM(list, i))) {
      ready[i] = ready_refs[r++];
    } else if (ready[i] == 0) {
      ready[i] = ready_streams[s++];
    }
    if (given == want) ready[i] = 0;
    given += ready[i];
  }
  return split(list, ready, given);
}

PyObject* wait_refs(PyObject* list, size_t want, PyObject* timeout) {
  const Py_ssize_t n = PyList_GET_SIZE(list);
  std::vector<ray_ref*> refs(n);
  for (Py_ssize_t i = 0; i < n; ++i) {
    refs[i] = ref_get(PyList_GET_ITEM(list, i));
    if (refs[i] == nullptr) return raise_no_object(PyList_GET_ITEM(list, i));
  }
  int64_t ns;
  ray_runtime* rt = running();
  if (rt == nullptr || !parse_timeout(timeout, &ns)) return nullptr;
  std::vector<uint8_t> ready(n);
  size_t n_ready = 0;
  ray_error* err = nullptr;
  ray_code code = ray_wait(rt, refs.data(), n, want, 0, ready.data(), &n_ready, &err);
  if (code == RAY_OK && n_ready < want && ns != 0) {
    bool interrupted = false;
    code = wait_in_slices(ns, &interrupted, [&](int64_t slice) {
      const ray_code c = ray_wait(rt, refs.data(), n, want, slice, ready.data(), &n_ready, &err);
      return c == RAY_OK && n_ready < want ? static_cast<ray_code>(RAY_TIMED_OUT) : c;
    });
    if (interrupted) return nullptr;
    if (code == RAY_TIMED_OUT) code = RAY_OK;
  }
  if (code == RAY_INVALID_ARGUMENT && has_duplicates(list)) return raise_duplicates(err);
  return code == RAY_OK ? split(list, ready, n_ready) : raise_code(code, err);
}

// When enough of the references are there already: without a copy of the list, which nobody can change
// before this returns. Null without an exception: it takes the long way.
PyObject* wait_now(PyObject* list, Py_ssize_t want) {
  const Py_ssize_t n = PyList_GET_SIZE(list);
  if (g_process.runtime == nullptr || want <= 0 || want > n) return nullptr;
  // From here on nothing is allocated that could start a collection, and with it other Python code.
  Owned yes(PyList_New(want)), no(PyList_New(n - want));
  if (!yes || !no || PyList_GET_SIZE(list) != n) return nullptr;
  static std::vector<ray_ref*> refs;  // under the GIL
  static std::vector<uint8_t> ready;
  if (refs.size() < static_cast<size_t>(n)) {
    refs.resize(n);
    ready.resize(n);
  }
  for (Py_ssize_t i = 0; i < n; ++i) {
    PyObject* o = PyList_GET_ITEM(list, i);
    if (!ref_check(o) || (refs[i] = ref_get(o)) == nullptr) return nullptr;
  }
  size_t n_ready = 0;
  ray_error* err = nullptr;
  const ray_code code = ray_wait(g_process.runtime, refs.data(), n, static_cast<size_t>(want), 0,
                                 ready.data(), &n_ready, &err);
  ray_error_release(err);
  if (code != RAY_OK || n_ready != static_cast<size_t>(want)) return nullptr;
  Py_ssize_t a = 0, b = 0;
  for (Py_ssize_t i = 0; i < n; ++i) {
    PyObject* o = new_ref(PyList_GET_ITEM(list, i));
    if (ready[i] != 0) {
      PyList_SET_ITEM(yes.get(), a++, o);
    } else {
      PyList_SET_ITEM(no.get(), b++, o);
    }
  }
  return PyTuple_Pack(2, yes.get(), no.get());
}

// Programs for Ray divide: 4 / 2 is a float.
Py_ssize_t whole_number(PyObject* o) {
  if (!PyFloat_Check(o)) return PyLong_AsSsize_t(o);
  const double d = PyFloat_AS_DOUBLE(o);
  return d > -1e15 && d < 1e15 ? static_cast<Py_ssize_t>(d) : PY_SSIZE_T_MAX;
}

PyObject* raise_no_list(PyObject* refs) {
  const bool single = ref_check(refs) || PyObject_TypeCheck(refs, &StreamType);
  PyErr_Format(PyExc_TypeError,
               single ? "wait() expected a list of ray.ObjectRef or ray.ObjectRefGenerator, got a "
                        "single ray.ObjectRef or ray.ObjectRefGenerator %S"
                      : "wait() expected a list of ray.ObjectRef or ray.ObjectRefGenerator, got %S",
               single ? refs : reinterpret_cast<PyObject*>(Py_TYPE(refs)));
  return nullptr;
}

PyObject* py_wait(PyObject*, PyObject* const* args, Py_ssize_t n, PyObject* kwnames) {
  Py_ssize_t found = 0;
  PyObject* want_arg = keyword(kwnames, args + n, "num_returns", &found);
  PyObject* timeout = keyword(kwnames, args + n, "timeout", &found);
  PyObject* fetch = keyword(kwnames, args + n, "fetch_local", &found);
  PyObject* refs = n == 1 ? args[0] : keyword(kwnames, args + n, "ray_waitables", &found);
  if (n > 1 || refs == nullptr || (kwnames != nullptr && found != PyTuple_GET_SIZE(kwnames))) {
    PyErr_SetString(PyExc_TypeError,
                    "wait(ray_waitables, *, num_returns=1, timeout=None, fetch_local=True)");
    return nullptr;
  }
  if (timeout == nullptr) timeout = Py_None;
  if (!PyList_Check(refs)) return raise_no_list(refs);
  if (fetch != nullptr && !PyBool_Check(fetch) && !PyLong_Check(fetch)) {
    PyErr_Format(PyExc_TypeError, "fetch_local must be a bool, not %S", Py_TYPE(fetch));
    return nullptr;
  }
  if (timeout != Py_None) {
    const double seconds = PyFloat_AsDouble(timeout);
    if (seconds == -1.0 && PyErr_Occurred()) return nullptr;
    if (seconds < 0) {
      PyErr_Format(PyExc_ValueError, "The 'timeout' argument must be nonnegative. Received %S",
                   timeout);
      return nullptr;
    }
  }
  const Py_ssize_t want = want_arg == nullptr ? 1 : whole_number(want_arg);
  if (want == -1 && PyErr_Occurred()) return nullptr;
  PyObject* now = wait_now(refs, want);
  if (now != nullptr || PyErr_Occurred()) return now;
  Owned list(PyList_GetSlice(refs, 0, PyList_GET_SIZE(refs)));
  if (!list) return nullptr;
  const Py_ssize_t size = PyList_GET_SIZE(list.get());
  bool mixed = false;
  for (Py_ssize_t i = 0; i < size; ++i) {
    PyObject* o = PyList_GET_ITEM(list.get(), i);
    if (ref_check(o)) continue;
    if (!PyObject_TypeCheck(o, &StreamType)) {
      PyErr_Format(PyExc_TypeError,
                   "wait() expected a list of ray.ObjectRef or ray.ObjectRefGenerator, got list "
                   "containing %S",
                   Py_TYPE(o));
      return nullptr;
    }
    mixed = true;
  }
  if (size == 0) return Py_BuildValue("([][])");
  if (want <= 0) {
    if (has_duplicates(list.get())) return raise_duplicates(nullptr);
    PyErr_Format(PyExc_ValueError, "Invalid number of objects to return %zd.", want);
    return nullptr;
  }
  if (want > size) {
    if (has_duplicates(list.get())) return raise_duplicates(nullptr);
    PyErr_SetString(PyExc_ValueError,
                    "num_returns cannot be greater than the number of ray_waitables provided to "
                    "ray.wait.");
    return nullptr;
  }
  if (mixed) return wait_mixed(list.get(), static_cast<size_t>(want), timeout);
  return wait_refs(list.get(), static_cast<size_t>(want), timeout);
}

// Starts the runtime unless it runs.
PyObject* py_ensure(PyObject*, PyObject*) {
  if (ensure_runtime() == nullptr) return nullptr;
  Py_RETURN_NONE;
}

PyObject* set_classes(PyObject*, PyObject* args) {  // (ObjectRefGenerator, method_options, handle_from_ref)
  PyObject *stream, *options, *handle;
  if (!PyArg_ParseTuple(args, "O!OO", &PyType_Type, &stream, &options, &handle)) return nullptr;
  g_stream_class = reinterpret_cast<PyTypeObject*>(new_ref(stream));
  g_method_options = new_ref(options);
  g_hooks.actor_handle = new_ref(handle);
  Py_RETURN_NONE;
}

template <typename F>
PyCFunction fast(F f) {
  return reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(f));
}

PyMethodDef module_methods[] = {
    {"get", fast(py_get), METH_FASTCALL | METH_KEYWORDS,
     "get(object_refs, *, timeout=None)\n--\n\nThe value of a reference, or of each of a list."},
    {"put", fast(py_put), METH_FASTCALL | METH_KEYWORDS,
     "put(value, *, portable=False, _owner=None)\n--\n\nStores a value; returns its reference. portable: in a form that "
     "every language reads, or TypeError."},
    {"wait", fast(py_wait), METH_FASTCALL | METH_KEYWORDS,
     "wait(ray_waitables, *, num_returns=1, timeout=None, fetch_local=True)\n--\n\nSplits the list into "
     "those that are ready and the rest."},
    {"ensure", py_ensure, METH_NOARGS, nullptr},
    {"_try_get", try_get, METH_VARARGS, nullptr},
    {"_method", method_make, METH_VARARGS, nullptr},
    {"_set_classes", set_classes, METH_VARARGS, nullptr},
    {nullptr, nullptr, 0, nullptr}};

}  // namespace

bool init_call_types(PyObject* module) {
  SpecType.tp_name = "libray._libray.CallSpec";
  SpecType.tp_basicsize = sizeof(SpecObject);
  SpecType.tp_dealloc = spec_dealloc;
  SpecType.tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC;
  SpecType.tp_traverse = spec_traverse;
  SpecType.tp_clear = spec_clear;
  SpecType.tp_new = spec_new;
  SpecType.tp_members = spec_members;

  RemoteType.tp_name = "libray._libray.RemoteBase";
  RemoteType.tp_basicsize = sizeof(RemoteObject);
  RemoteType.tp_dealloc = remote_dealloc;
  RemoteType.tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE;
  RemoteType.tp_traverse = remote_traverse;
  RemoteType.tp_clear = remote_clear;
  RemoteType.tp_new = PyType_GenericNew;
  RemoteType.tp_methods = remote_methods;
  RemoteType.tp_members = remote_members;
  RemoteType.tp_weaklistoffset = offsetof(RemoteObject, weakrefs);

  MethodType.tp_name = "libray.ActorMethod";
  MethodType.tp_basicsize = sizeof(MethodObject);
  MethodType.tp_dealloc = method_dealloc;
  MethodType.tp_flags = Py_TPFLAGS_DEFAULT;
  MethodType.tp_methods = method_methods;
  MethodType.tp_members = method_members;
  MethodType.tp_call = method_direct;

  PyTypeObject* types[] = {&SpecType, &RemoteType, &MethodType};
  const char* names[] = {"CallSpec", "RemoteBase", "ActorMethod"};
  for (int i = 0; i < 3; ++i) {
    if (PyType_Ready(types[i]) != 0) return false;
    if (PyModule_AddObject(module, names[i], new_ref(reinterpret_cast<PyObject*>(types[i]))) != 0)
      return false;
  }
  return PyModule_AddFunctions(module, module_methods) == 0;
}

getattrofunc actor_getattr_hook() { return actor_getattro; }

}  // namespace libray_py
