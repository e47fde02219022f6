// Values of the runtime as Python objects: the decoder, the buffers that keep a value alive while arrays stand on it.
// See value.h.
#include <cstring>
#include <vector>

#include "refs.h"
#include "value.h"

namespace libray_py {

namespace {

// Put back at the end of a scope: pickling may nest.
template <typename T>
struct Restore {
  Restore(T& slot, T value) : slot_(slot), old_(slot) { slot = value; }
  ~Restore() { slot_ = old_; }
  T& slot_;
  T old_;
};

inline uint16_t get16(const uint8_t* p) {
  uint16_t v;
  memcpy(&v, p, 2);
  return __builtin_bswap16(v);
}
inline uint32_t get32(const uint8_t* p) {
  uint32_t v;
  memcpy(&v, p, 4);
  return __builtin_bswap32(v);
}
inline uint64_t get64(const uint8_t* p) {
  uint64_t v;
  memcpy(&v, p, 8);
  return __builtin_bswap64(v);
}

// ---- numpy, imported when the first array comes by

PyTypeObject* g_ndarray = nullptr;
PyObject* g_text_dtype = nullptr;  // dict: text -> dtype
PyObject* g_numpy = nullptr;

bool load_numpy() {
  if (g_numpy != nullptr) return true;
  Owned module(PyImport_ImportModule("numpy"));
  if (!module) return false;
  Owned type(PyObject_GetAttrString(module.get(), "ndarray"));
  if (!type || (g_text_dtype = PyDict_New()) == nullptr) return false;
  g_ndarray = reinterpret_cast<PyTypeObject*>(type.release());
  g_numpy = module.release();
  return true;
}

PyObject* dtype_of(PyObject* text) {  // borrowed
  if (PyObject* known = PyDict_GetItemWithError(g_text_dtype, text)) return known;
  if (PyErr_Occurred()) return nullptr;
  Owned dtype(PyObject_CallMethod(g_numpy, "dtype", "O", text));
  if (!dtype || PyDict_SetItem(g_text_dtype, text, dtype.get()) != 0) return nullptr;
  return PyDict_GetItemWithError(g_text_dtype, text);
}

// ---- buffers that keep a value alive
// ---------------------------------------------------------------------------

struct HolderObject {
  PyObject_HEAD ray_buffer buffer;
};
struct SliceObject {  // read-only view of a part of a held value; what zero-copy arrays stand on
  PyObject_HEAD PyObject* holder;
  const void* data;
  Py_ssize_t size;
};
PyTypeObject HolderType = {PyVarObject_HEAD_INIT(nullptr, 0)};
PyTypeObject SliceType = {PyVarObject_HEAD_INIT(nullptr, 0)};

void holder_dealloc(PyObject* self) {
  ray_buffer_release(&reinterpret_cast<HolderObject*>(self)->buffer);
  Py_TYPE(self)->tp_free(self);
}
void slice_dealloc(PyObject* self) {
  Py_XDECREF(reinterpret_cast<SliceObject*>(self)->holder);
  Py_TYPE(self)->tp_free(self);
}
int slice_getbuffer(PyObject* self, Py_buffer* view, int flags) {
  auto* s = reinterpret_cast<SliceObject*>(self);
  return PyBuffer_FillInfo(view, self, const_cast<void*>(s->data), s->size, 1, flags);
}
PyBufferProcs slice_buffer = {slice_getbuffer, nullptr};

PyObject* slice_new(PyObject* holder, const void* data, uint64_t size) {
  auto* s = PyObject_New(SliceObject, &SliceType);
  if (s == nullptr) return nullptr;
  s->holder = new_ref(holder);
  s->data = data;
  s->size = static_cast<Py_ssize_t>(size);
  return reinterpret_cast<PyObject*>(s);
}

// The table whose IPC stream is a part of a held value; its columns lie in that part.
PyObject* read_arrow(PyObject* holder, const ray_bytes& part) {
  Owned slice(slice_new(holder, part.data, part.size));
  return slice ? PyObject_CallOneArg(g_hooks.read_arrow, slice.get()) : nullptr;
}

// ---- decoder
// -----------------------------------------------------------------------------------------------------

class Decoder {
 public:
  Decoder(const ray_buffer* buffer, PyObject* holder)
      : buffer_(buffer),
        holder_(holder),
        at_(static_cast<const uint8_t*>(buffer->data)),
        end_(at_ + buffer->size) {}
  ~Decoder() { drop_batch(); }
  Decoder(const Decoder&) = delete;
  Decoder& operator=(const Decoder&) = delete;
  PyObject* run() {
    PyObject* value = item(0);
    if (value != nullptr && at_ != end_) {
      Py_DECREF(value);
      return malformed();
    }
    return value;
  }

 private:
  PyObject* malformed() {
    if (!PyErr_Occurred()) PyErr_SetString(PyExc_ValueError, "malformed MessagePack in a value");
    return nullptr;
  }
  bool has(size_t n) const { return static_cast<size_t>(end_ - at_) >= n; }
  const uint8_t* take(size_t n) {
    const uint8_t* p = at_;
    at_ += n;
    return p;
  }
  PyObject* str(size_t n) {
    if (!has(n)) return malformed();
    return PyUnicode_DecodeUTF8(reinterpret_cast<const char*>(take(n)), static_cast<Py_ssize_t>(n),
                                nullptr);
  }
  PyObject* bin(size_t n) {
    if (!has(n)) return malformed();
    return PyBytes_FromStringAndSize(reinterpret_cast<const char*>(take(n)),
                                     static_cast<Py_ssize_t>(n));
  }
  PyObject* list(size_t n, int depth) {
    if (!has(n) || depth >= kMaxPortableDepth) return malformed();
    Owned out(PyList_New(static_cast<Py_ssize_t>(n)));
    if (!out) return nullptr;
    for (size_t i = 0; i < n; ++i) {
      PyObject* v = item(depth + 1);
      if (v == nullptr) return nullptr;
      PyList_SET_ITEM(out.get(), static_cast<Py_ssize_t>(i), v);
    }
    return out.release();
  }
  PyObject* dict(size_t n, int depth) {
    if (!has(n) || depth >= kMaxPortableDepth) return malformed();
    Owned out(PyDict_New());
    if (!out) return nullptr;
    for (size_t i = 0; i < n; ++i) {
      Owned k(item(depth + 1));
      if (!k) return nullptr;
      Owned v(item(depth + 1));
      if (!v || PyDict_SetItem(out.get(), k.get(), v.get()) != 0) return nullptr;
    }
    if (PyDict_GET_SIZE(out.get()) != static_cast<Py_ssize_t>(n)) {  // 1, 1.0 and True are one key here
      PyErr_SetString(PyExc_ValueError, "a map has keys that are equal in Python");
      return nullptr;
    }
    return out.release();
  }
  PyObject* item(int depth);
  PyObject* wide(uint8_t c, int depth);
  PyObject* ext(size_t n, int depth);
  PyObject* tuple_body(const uint8_t* end, int depth);
  PyObject* tensor(const uint8_t* end, int depth);
  PyObject* named_body(const uint8_t* end, int depth);
  PyObject* arrow(const uint8_t* p, size_t n);
  PyObject* timestamp(const uint8_t* p, size_t n);
  PyObject* reference(const uint8_t* p, size_t n, bool actor);
  ray_ref* ref_at(uint32_t index);
  void drop_batch() {
    for (ray_ref* r : batch_) ray_ref_release(r);
    batch_.clear();
  }

  static constexpr uint32_t kBatch = 1024;
  const ray_buffer* buffer_;
  PyObject* holder_;
  std::vector<ray_ref*> batch_;  // references from index batch_first_ on; null: taken
  uint32_t batch_first_ = 0;
  const uint8_t* at_;
  const uint8_t* end_;
};

PyObject* Decoder::item(int depth) {
  if (!has(1)) return malformed();
  const uint8_t c = *take(1);
  if (c <= 0x7f) return PyLong_FromLong(c);
  if (c >= 0xe0) return PyLong_FromLong(static_cast<int8_t>(c));
  if (c <= 0x8f) return dict(c & 0x0f, depth);
  if (c <= 0x9f) return list(c & 0x0f, depth);
  if (c <= 0xbf) return str(c & 0x1f);
  return wide(c, depth);
}

PyObject* Decoder::wide(uint8_t c, int depth) {
  static const uint8_t kHead[32] = {0, 0, 0, 0, 1, 2, 4, 1, 2, 4, 4, 8, 1, 2, 4, 8,
                                    1, 2, 4, 8, 0, 0, 0, 0, 0, 1, 2, 4, 2, 4, 2, 4};
  const size_t head = kHead[c - 0xc0];
  if (!has(head)) return malformed();
  const uint8_t* p = take(head);
  const size_t n = head == 1 ? p[0] : head == 2 ? get16(p) : head == 4 ? get32(p) : 0;
  switch (c) {
    case 0xc0: Py_RETURN_NONE;
    case 0xc2: Py_RETURN_FALSE;
    case 0xc3: Py_RETURN_TRUE;
    case 0xc4:
    case 0xc5:
    case 0xc6: return bin(n);
    case 0xc7:
    case 0xc8:
    case 0xc9: return ext(n, depth);
    case 0xca: {
      const uint32_t bits = get32(p);
      float f;
      memcpy(&f, &bits, 4);
      return PyFloat_FromDouble(f);
    }
    case 0xcb: {
      const uint64_t bits = get64(p);
      double d;
      memcpy(&d, &bits, 8);
      return PyFloat_FromDouble(d);
    }
    case 0xcc:
    case 0xcd:
    case 0xce: return PyLong_FromSize_t(n);
    case 0xcf: return PyLong_FromUnsignedLongLong(get64(p));
    case 0xd0: return PyLong_FromLong(static_cast<int8_t>(p[0]));
    case 0xd1: return PyLong_FromLong(static_cast<int16_t>(get16(p)));
    case 0xd2: return PyLong_FromLong(static_cast<int32_t>(get32(p)));
    case 0xd3: return PyLong_FromLongLong(static_cast<int64_t>(get64(p)));
    case 0xd4:
    case 0xd5:
    case 0xd6:
    case 0xd7:
    case 0xd8: return ext(size_t{1} << (c - 0xd4), depth);
    case 0xd9:
    case 0xda:
    case 0xdb: return str(n);
    case 0xdc:
    case 0xdd: return list(n, depth);
    case 0xde:
    case 0xdf: return dict(n, depth);
    default: return malformed();
  }
}

PyObject* Decoder::ext(size_t n, int depth) {
  if (!has(n + 1)) return malformed();
  const int8_t type = static_cast<int8_t>(*take(1));
  const uint8_t* body_end = at_ + n;
  if (type == kExtRef || type == kExtActor) return reference(take(n), n, type == kExtActor);
  if (depth >= kMaxPortableDepth) return malformed();
  if (type == kExtTuple) return tuple_body(body_end, depth);
  if (type == kExtTensor) return tensor(body_end, depth);
  if (type == kExtNamed) return named_body(body_end, depth);
  if (type == kExtArrow) return arrow(take(n), n);
  if (type == kExtTimestamp) return timestamp(take(n), n);
  PyErr_Format(PyExc_ValueError, "MessagePack extension type %d is not known to this binding",
               type);
  return nullptr;
}

PyObject* Decoder::tuple_body(const uint8_t* end, int depth) {
  const uint8_t* outer = std::exchange(end_, end);
  Owned list(item(depth + 1));
  const bool whole = at_ == end;
  end_ = outer;
  if (!list) return nullptr;
  if (!whole || !PyList_Check(list.get())) return malformed();
  return PyList_AsTuple(list.get());
}

// [name of a type, value]: the name is for readers of the language that wrote it.
PyObject* Decoder::named_body(const uint8_t* end, int depth) {
  const uint8_t* outer = std::exchange(end_, end);
  Owned list(item(depth + 1));
  const bool whole = at_ == end;
  end_ = outer;
  if (!list) return nullptr;
  if (!whole || !PyList_Check(list.get()) || PyList_GET_SIZE(list.get()) != 2) return malformed();
  return new_ref(PyList_GET_ITEM(list.get(), 1));
}

PyObject* Decoder::timestamp(const uint8_t* p, size_t n) {
  return PyObject_CallFunction(g_hooks.read_timestamp, "y#", reinterpret_cast<const char*>(p),
                               static_cast<Py_ssize_t>(n));
}

PyObject* Decoder::arrow(const uint8_t* p, size_t n) {
  if (n != 4 || holder_ == nullptr || get32(p) >= buffer_->n_oob) return malformed();
  return read_arrow(holder_, buffer_->oob[get32(p)]);
}

PyObject* Decoder::tensor(const uint8_t* end, int depth) {
  const uint8_t* outer = std::exchange(end_, end);
  Owned parts(item(depth + 1));
  const bool whole = at_ == end;
  end_ = outer;
  if (!parts) return nullptr;
  if (!whole || !PyList_Check(parts.get()) || PyList_GET_SIZE(parts.get()) != 3 ||
      holder_ == nullptr)
    return malformed();
  PyObject* text = PyList_GET_ITEM(parts.get(), 0);
  Owned shape(PySequence_Tuple(PyList_GET_ITEM(parts.get(), 1)));
  const size_t index = PyLong_AsSize_t(PyList_GET_ITEM(parts.get(), 2));
  if (!shape || PyErr_Occurred() || !PyUnicode_Check(text) || index >= buffer_->n_oob)
    return malformed();
  if (!load_numpy()) return nullptr;
  PyObject* dtype = dtype_of(text);
  if (dtype == nullptr) return nullptr;
  const ray_bytes part = buffer_->oob[index];
  Owned slice(part.size == 0 ? PyBytes_FromStringAndSize("", 0) : slice_new(holder_, part.data, part.size));
  if (!slice) return nullptr;
  return PyObject_CallFunctionObjArgs(reinterpret_cast<PyObject*>(g_ndarray), shape.get(), dtype,
                                      slice.get(), nullptr);
}

// References usually come in the order of their indices: those that follow are taken along.
ray_ref* Decoder::ref_at(uint32_t index) {
  if (index - batch_first_ < batch_.size() && batch_[index - batch_first_] != nullptr)
    return std::exchange(batch_[index - batch_first_], nullptr);
  drop_batch();
  const uint32_t left = index < buffer_->n_refs ? buffer_->n_refs - index : 0;
  ray_ref* ref = nullptr;
  ray_error* err = nullptr;
  ray_code code;
  if (left < 8) {
    code = ray_buffer_ref(buffer_, index, &ref, &err);
  } else {
    batch_.resize(left < kBatch ? left : kBatch);
    batch_first_ = index;
    code = ray_buffer_refs(buffer_, index, static_cast<uint32_t>(batch_.size()), batch_.data(), &err);
    if (code == RAY_OK) return std::exchange(batch_[0], nullptr);
    batch_.clear();
  }
  if (code != RAY_OK) raise_code(code, err);
  return ref;
}

PyObject* Decoder::reference(const uint8_t* p, size_t n, bool actor) {
  if (n != 4) return malformed();
  ray_ref* ref = ref_at(get32(p));
  if (ref == nullptr) return nullptr;
  PyObject* object = ref_new(ref);
  if (!actor || object == nullptr) return object;
  Owned owned(object);
  return PyObject_CallOneArg(g_hooks.actor_handle, object);
}

PyObject* unpickle(ray_buffer* buffer, PyObject* holder) {
  Restore<ray_buffer*> scope(t_unpickled, buffer);
  Owned body(slice_new(holder, buffer->data, buffer->size));
  Owned parts(PyList_New(static_cast<Py_ssize_t>(buffer->n_oob)));
  if (!body || !parts) return nullptr;
  for (uint64_t i = 0; i < buffer->n_oob; ++i) {
    PyObject* s = slice_new(holder, buffer->oob[i].data, buffer->oob[i].size);
    if (s == nullptr) return nullptr;
    PyList_SET_ITEM(parts.get(), static_cast<Py_ssize_t>(i), s);
  }
  return PyObject_CallFunctionObjArgs(g_hooks.loads, body.get(), parts.get(), nullptr);
}

PyObject* decode_raw(const ray_buffer* b) {
  constexpr uint64_t kLarge = 1 << 20;  // bytes that are copied without the GIL
  const auto n = static_cast<Py_ssize_t>(b->size);
  if (b->size < kLarge) return PyBytes_FromStringAndSize(static_cast<const char*>(b->data), n);
  PyObject* bytes = PyBytes_FromStringAndSize(nullptr, n);
  if (bytes == nullptr) return nullptr;
  char* to = PyBytes_AS_STRING(bytes);
  Py_BEGIN_ALLOW_THREADS memcpy(to, b->data, b->size);
  Py_END_ALLOW_THREADS return bytes;
}

PyObject* foreign_format(uint32_t format) {
  PyErr_Format(PyExc_TypeError,
               format == RAY_FMT_JAVA
                   ? "the value is a Java object, serialised for Java alone (format %u): its maker is to give plain values"
                   : "the value has format %u, which Python cannot read",
               format);
  return nullptr;
}

}  // namespace

PyObject* decode_borrowed(const ray_buffer* b) {
  if (b->format == RAY_FMT_MSGPACK) {
    // A value without any bytes is nil: a result that was not given.
    if (b->size == 0) Py_RETURN_NONE;
    return Decoder(b, nullptr).run();
  }
  if (b->format == RAY_FMT_RAW) return decode_raw(b);
  return foreign_format(b->format);
}

PyObject* decode_owned(ray_buffer* b) {
  const bool pickled = b->format == RAY_FMT_PICKLE5;
  if (b->n_oob == 0 && !pickled) {
    PyObject* value = decode_borrowed(b);
    ray_buffer_release(b);
    return value;
  }
  const bool table = b->format == RAY_FMT_ARROW_IPC && b->n_oob == 1;
  if (!pickled && !table && b->format != RAY_FMT_MSGPACK) {
    const uint32_t format = b->format;
    ray_buffer_release(b);
    return foreign_format(format);
  }
  auto* holder = PyObject_New(HolderObject, &HolderType);
  if (holder == nullptr) {
    ray_buffer_release(b);
    return nullptr;
  }
  holder->buffer = *b;
  b->release = nullptr;
  Owned keep(reinterpret_cast<PyObject*>(holder));
  if (pickled) return unpickle(&holder->buffer, keep.get());
  if (table) return read_arrow(keep.get(), holder->buffer.oob[0]);
  return Decoder(&holder->buffer, keep.get()).run();
}

const char* decode_note(const ray_buffer* b, size_t* size) {
  const auto* p = static_cast<const uint8_t*>(b->data);
  if (b->format != RAY_FMT_MSGPACK || b->size < 6 || p[0] != 0xc9 || p[5] != kExtNote)
    return nullptr;
  *size = b->size - 6;
  return reinterpret_cast<const char*>(p + 6);
}

// Length of the head of a value that is a whole extension of that type, however it was written; 0: it is none.
static size_t head_of_ext(const uint8_t* p, size_t size, int8_t type) {
  size_t head = 0, body = 0;
  if (size < 3) return 0;
  if (p[0] >= 0xd4 && p[0] <= 0xd8) {
    head = 2;
    body = size_t{1} << (p[0] - 0xd4);
  } else if (p[0] == 0xc7) {
    head = 3;
    body = p[1];
  } else if (p[0] == 0xc8 && size > 4) {
    head = 4;
    body = get16(p + 1);
  } else if (p[0] == 0xc9 && size > 6) {
    head = 6;
    body = get32(p + 1);
  }
  return head != 0 && static_cast<int8_t>(p[head - 1]) == type && size == head + body ? head : 0;
}

int decode_kwnames(const ray_buffer* b, PyObject** out) {
  const auto* p = static_cast<const uint8_t*>(b->data);
  if (b->format != RAY_FMT_MSGPACK) return 0;
  const size_t head = head_of_ext(p, b->size, kExtKwNames);
  if (head == 0) return 0;
  ray_buffer body = *b;
  body.data = p + head;
  body.size = b->size - head;
  Owned list(Decoder(&body, nullptr).run());
  if (!list) return -1;
  if (!PyList_Check(list.get())) {
    PyErr_SetString(PyExc_ValueError, "malformed keyword names");
    return -1;
  }
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list.get()); ++i) {
    PyObject* name = PyList_GET_ITEM(list.get(), i);
    if (!PyUnicode_CheckExact(name)) {
      PyErr_SetString(PyExc_ValueError, "malformed keyword names");
      return -1;
    }
    Py_INCREF(name);
    PyUnicode_InternInPlace(&name);
    if (PyList_SetItem(list.get(), i, name) != 0) return -1;
  }
  *out = PyList_AsTuple(list.get());
  return *out != nullptr ? 1 : -1;
}

bool init_decode_types() {
  HolderType.tp_name = "libray._libray._Holder";
  HolderType.tp_basicsize = sizeof(HolderObject);
  HolderType.tp_dealloc = holder_dealloc;
  HolderType.tp_flags = Py_TPFLAGS_DEFAULT;
  SliceType.tp_name = "libray._libray._Slice";
  SliceType.tp_basicsize = sizeof(SliceObject);
  SliceType.tp_dealloc = slice_dealloc;
  SliceType.tp_as_buffer = &slice_buffer;
  SliceType.tp_flags = Py_TPFLAGS_DEFAULT;
  return PyType_Ready(&HolderType) == 0 && PyType_Ready(&SliceType) == 0;
}

}  // namespace libray_py
