// The part of Encoder (value.h) for readers of other languages, where pickle is no way out: what is no plain type crosses
// as one, or is refused with words about what would do. Threads and callers as there.
#include <cstring>

#include "refs.h"
#include "value.h"

namespace libray_py {

bool raise_not_portable(PyObject* value, PyObject* what) {
  Owned text(what);
  PyObject *type, *raised, *trace;
  PyErr_Fetch(&type, &raised, &trace);
  PyErr_NormalizeException(&type, &raised, &trace);
  Owned t(type), r(raised), tb(trace);
  if (!text || raised == nullptr) return false;
  Owned error(PyObject_CallFunctionObjArgs(g_hooks.not_portable, value, text.get(), raised, nullptr));
  if (error) PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(error.get())), error.get());
  return false;
}

Encoder::Pack Encoder::pack_actor(PyObject* o) {
  ray_ref* ref = nullptr;
  ray_error* err = nullptr;
  const ray_code code = ray_actor_to_ref(reinterpret_cast<ActorObject*>(o)->actor, &ref, &err);
  if (code != RAY_OK) {
    raise_code(code, err);
    return Pack::kError;
  }
  refs_.push_back(ref);
  return pack_index(kExtActor, static_cast<uint32_t>(refs_.size()) - 1 - ref_base_);
}

// For readers of other languages: what is a kind of a plain type crosses as that type; of the rest the Python half knows
// how it crosses, if it does (core/portable.py, convert): (0, another object), (extension type, its bytes), or an Arrow stream.
Encoder::Pack Encoder::pack_portable(PyObject* o, int depth) {
  if (PyLong_Check(o)) return pack_int(o);
  if (PyUnicode_Check(o)) return pack_str(o);
  if (PyFloat_Check(o)) return pack_float(PyFloat_AS_DOUBLE(o));
  if (PyBytes_Check(o)) return pack_bytes(o);
  if (PyTuple_Check(o)) return pack_tuple(o, depth);
  if (PyList_Check(o)) return pack_list(o, depth);
  if (PyDict_Check(o)) return pack_dict(o, depth);
  if (depth >= kMaxPortableDepth) return no_match(o);
  Owned made(PyObject_CallOneArg(g_hooks.portable, o));
  if (!made) return Pack::kError;
  if (made.get() == Py_None) return no_match(o);
  int type;
  PyObject* body;
  if (!PyArg_ParseTuple(made.get(), "iO", &type, &body)) return Pack::kError;
  keep_.push_back(new_ref(body));
  if (type == 0) return pack(body, depth + 1);
  if (type == kExtArrow) return pack_arrow(body, depth);
  const auto n = static_cast<size_t>(PyBytes_GET_SIZE(body));
  const size_t head = n == 4 || n == 8 ? 2 : 3;  // a timestamp: 4, 8 or 12 bytes
  uint8_t* p = buffer_.grow(n + head);
  if (p == nullptr) return no_memory();
  p[0] = n == 4 ? 0xd6 : n == 8 ? 0xd7 : 0xc7;
  if (head == 3) p[1] = static_cast<uint8_t>(n);
  p[head - 1] = static_cast<uint8_t>(type);
  memcpy(p + head, PyBytes_AS_STRING(body), n);
  return Pack::kDone;
}

Encoder::Pack Encoder::pack_arrow(PyObject* stream, int depth) {
  auto view = std::make_unique<Py_buffer>();
  if (PyObject_GetBuffer(stream, view.get(), PyBUF_SIMPLE) != 0) return Pack::kError;
  const auto index = static_cast<uint32_t>(oob_.size() - oob_base_);
  oob_.push_back(ray_bytes{view->buf, static_cast<size_t>(view->len)});
  direct_bytes_ += view->len;
  views_.push_back(std::move(view));
  is_table_ = depth == 0;
  return pack_index(kExtArrow, index);
}

}  // namespace libray_py
