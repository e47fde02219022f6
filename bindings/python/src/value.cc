// See value.h. The encoder and decoder are written by hand because they are the cost of a small
// task: one pass, no intermediate objects, no allocation up to 1 KiB.
#include "value.h"

#include <cstring>

#include "refs.h"

namespace libray_py {

namespace {

thread_local ray_buffer* t_buffer = nullptr;
PyObject* g_custom_types = nullptr;  // set of classes with serializers of the program's own, or null
PyObject* g_copyreg = nullptr;       // copyreg.dispatch_table

constexpr int kMaxDepth = 24;
constexpr size_t kRawMin =
    256;  // bytes from here on travel as RAW, without the copy into the encoder's buffer
constexpr Py_ssize_t kSharedMin = 16;  // a shorter string costs no more than a mention of it

// Put back at the end of a scope: pickling may nest.
template <typename T>
struct Restore {
  Restore(T& slot, T value) : slot_(slot), old_(slot) { slot = value; }
  ~Restore() { slot_ = old_; }
  T& slot_;
  T old_;
};

inline void put16(uint8_t* p, uint16_t v) {
  v = __builtin_bswap16(v);
  memcpy(p, &v, 2);
}
inline void put32(uint8_t* p, uint32_t v) {
  v = __builtin_bswap32(v);
  memcpy(p, &v, 4);
}
inline void put64(uint8_t* p, uint64_t v) {
  v = __builtin_bswap64(v);
  memcpy(p, &v, 8);
}
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

// ---- numpy, looked up when the first array comes by
// ------------------------------------------------------------

PyTypeObject* g_ndarray = nullptr;
PyObject* g_text_dtype = nullptr;  // dict: text -> dtype
PyObject* g_numpy = nullptr;

bool is_ndarray(PyObject* o) {
  PyTypeObject* type = Py_TYPE(o);
  if (g_ndarray != nullptr) return type == g_ndarray;
  if (strcmp(type->tp_name, "numpy.ndarray") != 0) return false;
  g_ndarray = type;
  return true;
}

// Whether an attribute is true; -1 = error.
int is_true(PyObject* o, const char* name) {
  Owned value(PyObject_GetAttrString(o, name));
  return value ? PyObject_IsTrue(value.get()) : -1;
}

// Whether the text of a dtype ("<f8") says all of it: a plain number of numpy's own. Not types of other
// packages (float8_e5m2 is "<f1", which names none), not what carries metadata. -1 = error.
int is_plain_number(PyObject* dtype) {
  Owned kind(PyObject_GetAttrString(dtype, "kind"));
  Owned meta(PyObject_GetAttrString(dtype, "metadata"));
  Owned builtin(PyObject_GetAttrString(dtype, "isbuiltin"));  // 1: numpy's, 2: registered by others
  if (!kind || !meta || !builtin) return -1;
  const char* k = PyUnicode_AsUTF8(kind.get());
  const long origin = PyLong_AsLong(builtin.get());
  if (k == nullptr || (origin == -1 && PyErr_Occurred())) return -1;
  if (strchr("biufc", k[0]) == nullptr || meta.get() != Py_None || origin != 1) return 0;
  return is_true(dtype, "isnative");
}

// Texts of the dtypes that came by last, by identity: dtypes that are equal may differ in metadata.
struct KnownDtype {
  PyObject *dtype, *text;
};
KnownDtype g_known_dtypes[16];

// Text of an array's dtype; borrowed; None = it does not travel as a tensor; null = error.
PyObject* dtype_text(PyObject* array) {
  Owned dtype(PyObject_GetAttrString(array, "dtype"));
  if (!dtype) return nullptr;
  KnownDtype& known = g_known_dtypes[reinterpret_cast<uintptr_t>(dtype.get()) / 16 % 16];
  if (known.dtype == dtype.get()) return known.text;
  const int plain = is_plain_number(dtype.get());
  if (plain < 0) return nullptr;
  PyObject* text = plain != 0 ? PyObject_GetAttrString(dtype.get(), "str") : new_ref(Py_None);
  if (text == nullptr) return nullptr;
  Owned old_dtype(std::exchange(known.dtype, dtype.release()));
  Owned old_text(std::exchange(known.text, text));
  return text;
}

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

// ---- references in a pickle

// table(ref) -> what stands for the reference in the one pickle that this was made for. Any other pickle
// that is made meanwhile (a cached definition, a class that pickles its members itself) has no part in
// the value's table: it exports its references and can be read alone.
struct TableObject {
  PyObject_HEAD Encoder* encoder;  // null: the pickle is complete
};
PyTypeObject TableType = {PyVarObject_HEAD_INIT(nullptr, 0)};

PyObject* table_new(Encoder* encoder) {
  auto* t = PyObject_New(TableObject, &TableType);
  if (t != nullptr) t->encoder = encoder;
  return reinterpret_cast<PyObject*>(t);
}
void table_dealloc(PyObject* self) { PyObject_Free(self); }

PyObject* table_call(PyObject* self, PyObject* args, PyObject*) {
  PyObject* ref;
  if (!PyArg_ParseTuple(args, "O!", &RefType, &ref)) return nullptr;
  Encoder* encoder = reinterpret_cast<TableObject*>(self)->encoder;
  if (encoder == nullptr || ref_get(ref) == nullptr) return PyObject_CallMethod(ref, "__reduce__", nullptr);
  return reduce_to_index(encoder->take_ref(ref_get(ref)));
}

// Whether the program has a serializer of its own for a type, by register_serializer or copyreg.
bool has_serializer(PyTypeObject* type) {
  auto* key = reinterpret_cast<PyObject*>(type);
  if (g_custom_types != nullptr && PySet_Contains(g_custom_types, key) == 1) return true;
  return g_copyreg != nullptr && PyDict_Contains(g_copyreg, key) == 1;
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
    if (!has(n) || depth >= kMaxDepth * 4) return malformed();
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
    if (!has(n) || depth >= kMaxDepth * 4) return malformed();
    Owned out(PyDict_New());
    if (!out) return nullptr;
    for (size_t i = 0; i < n; ++i) {
      Owned k(item(depth + 1));
      if (!k) return nullptr;
      Owned v(item(depth + 1));
      if (!v || PyDict_SetItem(out.get(), k.get(), v.get()) != 0) return nullptr;
    }
    return out.release();
  }
  PyObject* item(int depth);
  PyObject* wide(uint8_t c, int depth);
  PyObject* ext(size_t n, int depth);
  PyObject* tuple_body(const uint8_t* end, int depth);
  PyObject* tensor(const uint8_t* end, int depth);
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
  if (depth >= kMaxDepth * 4) return malformed();
  if (type == kExtTuple) return tuple_body(body_end, depth);
  if (type == kExtTensor) return tensor(body_end, depth);
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
  if (part.size == 0) {
    Owned array(PyObject_CallFunctionObjArgs(reinterpret_cast<PyObject*>(g_ndarray), shape.get(),
                                             dtype, nullptr));
    Owned done(array ? PyObject_CallMethod(array.get(), "setflags", "O", Py_False) : nullptr);
    return done ? array.release() : nullptr;
  }
  Owned slice(slice_new(holder_, part.data, part.size));
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
  Owned module(PyImport_ImportModule("libray._actor"));
  if (!module) return nullptr;
  return PyObject_CallMethod(module.get(), "handle_from_ref", "O", object);
}

PyObject* unpickle(ray_buffer* buffer, PyObject* holder) {
  Restore<ray_buffer*> scope(t_buffer, buffer);
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
  PyErr_Format(PyExc_TypeError, "the value has format %u, which Python cannot read", format);
  return nullptr;
}

}  // namespace

ray_buffer* current_buffer() { return t_buffer; }

bool Bytes::reserve(size_t need) {
  size_t capacity = capacity_ * 2;
  if (capacity < need) capacity = need + need / 2;
  auto* bigger =
      static_cast<uint8_t*>(data_ == inline_ ? malloc(capacity) : realloc(data_, capacity));
  if (bigger == nullptr) return false;
  if (data_ == inline_) memcpy(bigger, inline_, size_);
  data_ = bigger;
  capacity_ = capacity;
  return true;
}

Encoder::~Encoder() {
  for (auto& v : views_) PyBuffer_Release(v.get());
  for (PyObject* p : keep_) Py_DECREF(p);
  for (ray_ref* r : refs_) ray_ref_release(r);
}

Encoder::Pack Encoder::no_memory() {
  PyErr_NoMemory();
  return Pack::kError;
}

Encoder::Pack Encoder::no_match(PyObject* o) {
  if (exact_) return Pack::kFallback;
  PyErr_Format(PyExc_TypeError,
               "an object of type '%.100s' cannot be passed to a function of another language",
               Py_TYPE(o)->tp_name);
  return Pack::kError;
}

uint32_t Encoder::take_ref(ray_ref* ref) {
  refs_.push_back(ray_ref_retain(ref));
  return static_cast<uint32_t>(refs_.size()) - 1 - ref_base_;
}

// Whether a mutable container was met before in this value: then its identity matters and pickle
// must do it. More containers than fit count as met.
bool Encoder::seen_before(PyObject* o) {
  for (int i = 0; i < n_seen_; ++i) {
    if (seen_[i] == o) return true;
  }
  if (n_seen_ == 32) return true;
  seen_[n_seen_++] = o;
  return false;
}

// Whether this string, these bytes or this tuple was met before in this value: pickle then stores it
// once and keeps its identity. What nobody else refers to cannot come twice.
bool Encoder::mentioned_before(PyObject* o) {
  if (Py_REFCNT(o) == 1) return false;
  if (n_shared_ < kFewShared) {
    for (size_t i = 0; i < n_shared_; ++i) {
      if (shared_[i] == o) return true;
    }
    shared_[n_shared_++] = o;
    return false;
  }
  const auto slot = [&](PyObject* p) {
    const size_t mask = more_shared_.size() - 1;
    size_t at = (reinterpret_cast<uintptr_t>(p) >> 4) * 0x9e3779b97f4a7c15u >> 20 & mask;
    while (more_shared_[at] != nullptr && more_shared_[at] != p) at = (at + 1) & mask;
    return at;
  };
  if (n_shared_ == kFewShared || n_shared_ * 2 > more_shared_.size()) {
    std::vector<PyObject*> old(n_shared_ == kFewShared ? std::vector<PyObject*>(shared_, shared_ + n_shared_)
                                                       : std::move(more_shared_));
    more_shared_.assign(n_shared_ == kFewShared ? 4 * kFewShared : 2 * old.size(), nullptr);
    for (PyObject* p : old) {
      if (p != nullptr) more_shared_[slot(p)] = p;
    }
  }
  const size_t at = slot(o);
  if (more_shared_[at] == o) return true;
  more_shared_[at] = o;
  ++n_shared_;
  return false;
}

bool Encoder::pack_head(uint8_t fix, uint8_t fix_max, uint8_t c8, uint8_t c16, uint8_t c32,
                        size_t n) {
  uint8_t* p;
  if (n <= fix_max && fix != 0) {
    if ((p = buffer_.grow(1)) == nullptr) return false;
    p[0] = static_cast<uint8_t>(fix | n);
  } else if (n <= 0xff && c8 != 0) {
    if ((p = buffer_.grow(2)) == nullptr) return false;
    p[0] = c8;
    p[1] = static_cast<uint8_t>(n);
  } else if (n <= 0xffff) {
    if ((p = buffer_.grow(3)) == nullptr) return false;
    p[0] = c16;
    put16(p + 1, static_cast<uint16_t>(n));
  } else {
    if ((p = buffer_.grow(5)) == nullptr) return false;
    p[0] = c32;
    put32(p + 1, static_cast<uint32_t>(n));
  }
  return true;
}

Encoder::Pack Encoder::pack_int(PyObject* o) {
  int overflow = 0;
  const long long v = PyLong_AsLongLongAndOverflow(o, &overflow);
  uint8_t* p;
  if (overflow < 0) return no_match(o);
  if (overflow > 0) {
    const unsigned long long u = PyLong_AsUnsignedLongLong(o);
    if (u == static_cast<unsigned long long>(-1) && PyErr_Occurred()) {
      PyErr_Clear();
      return no_match(o);
    }
    if ((p = buffer_.grow(9)) == nullptr) return no_memory();
    p[0] = 0xcf;
    put64(p + 1, u);
  } else if (v >= -32 && v <= 127) {
    if ((p = buffer_.grow(1)) == nullptr) return no_memory();
    p[0] = static_cast<uint8_t>(v);
  } else if (v >= INT32_MIN && v <= INT32_MAX) {
    if ((p = buffer_.grow(5)) == nullptr) return no_memory();
    p[0] = 0xd2;
    put32(p + 1, static_cast<uint32_t>(v));
  } else {
    if ((p = buffer_.grow(9)) == nullptr) return no_memory();
    p[0] = 0xd3;
    put64(p + 1, static_cast<uint64_t>(v));
  }
  return Pack::kDone;
}

Encoder::Pack Encoder::pack_str(PyObject* o) {
  Py_ssize_t n;
  const char* s = PyUnicode_AsUTF8AndSize(o, &n);
  if (s == nullptr) {  // lone surrogates: only pickle carries them
    if (!exact_ || !PyErr_ExceptionMatches(PyExc_UnicodeError)) return Pack::kError;
    PyErr_Clear();
    return Pack::kFallback;
  }
  if (static_cast<size_t>(n) > UINT32_MAX || (exact_ && n >= kSharedMin && mentioned_before(o)))
    return no_match(o);
  uint8_t* p;
  if (!pack_head(0xa0, 31, 0xd9, 0xda, 0xdb, n) || (p = buffer_.grow(n)) == nullptr)
    return no_memory();
  memcpy(p, s, n);
  return Pack::kDone;
}

Encoder::Pack Encoder::pack_list(PyObject* o, int depth) {
  if (depth >= kMaxDepth || (exact_ && seen_before(o))) return no_match(o);
  const Py_ssize_t n = PyList_GET_SIZE(o);
  if (!pack_head(0x90, 15, 0, 0xdc, 0xdd, n)) return no_memory();
  for (Py_ssize_t i = 0; i < n; ++i) {
    // No Python code runs while packing an exact builtin, so the list cannot change under us.
    const Pack r = pack(PyList_GET_ITEM(o, i), depth + 1);
    if (r != Pack::kDone) return r;
  }
  return Pack::kDone;
}

// A tuple is an extension around an array, for lists are arrays; in other languages it is an array.
Encoder::Pack Encoder::pack_tuple(PyObject* o, int depth) {
  const Py_ssize_t n = PyTuple_GET_SIZE(o);
  if (depth >= kMaxDepth || (exact_ && n != 0 && mentioned_before(o))) return no_match(o);
  const size_t start = buffer_.size();
  if (exact_ && buffer_.grow(3) == nullptr) return no_memory();
  if (!pack_head(0x90, 15, 0, 0xdc, 0xdd, n)) return no_memory();
  for (Py_ssize_t i = 0; i < n; ++i) {
    const Pack r = pack(PyTuple_GET_ITEM(o, i), depth + 1);
    if (r != Pack::kDone) return r;
  }
  if (!exact_) return Pack::kDone;
  const size_t body = buffer_.size() - start - 3;
  if (body > UINT32_MAX) return Pack::kFallback;
  if (body > 0xff) {  // a wider head: three more bytes
    if (buffer_.grow(3) == nullptr) return no_memory();
    uint8_t* p = buffer_.data() + start;
    memmove(p + 6, p + 3, body);
    p[0] = 0xc9;
    put32(p + 1, static_cast<uint32_t>(body));
    p[5] = kExtTuple;
    return Pack::kDone;
  }
  uint8_t* p = buffer_.data() + start;
  p[0] = 0xc7;
  p[1] = static_cast<uint8_t>(body);
  p[2] = kExtTuple;
  return Pack::kDone;
}

Encoder::Pack Encoder::pack_dict(PyObject* o, int depth) {
  if (depth >= kMaxDepth || (exact_ && seen_before(o))) return no_match(o);
  if (!pack_head(0x80, 15, 0, 0xde, 0xdf, PyDict_GET_SIZE(o))) return no_memory();
  PyObject *k, *v;
  Py_ssize_t at = 0;
  while (PyDict_Next(o, &at, &k, &v)) {
    if (!PyUnicode_CheckExact(k) && !PyLong_CheckExact(k) && !PyBytes_CheckExact(k))
      return no_match(k);
    Pack r = pack(k, depth + 1);
    if (r != Pack::kDone) return r;
    r = pack(v, depth + 1);
    if (r != Pack::kDone) return r;
  }
  return Pack::kDone;
}

Encoder::Pack Encoder::pack_tensor(PyObject* o) {
  if (exact_ && (seen_before(o) || has_serializer(Py_TYPE(o)))) return no_match(o);
  PyObject* text = dtype_text(o);
  if (text == nullptr) return Pack::kError;
  if (text == Py_None) return no_match(o);
  auto view = std::make_unique<Py_buffer>();
  if (PyObject_GetBuffer(o, view.get(), PyBUF_ND | PyBUF_C_CONTIGUOUS) != 0) {
    if (!PyErr_ExceptionMatches(PyExc_BufferError) && !PyErr_ExceptionMatches(PyExc_ValueError))
      return Pack::kError;
    PyErr_Clear();
    return no_match(o);
  }
  views_.push_back(std::move(view));
  const Py_buffer& b = *views_.back();
  const size_t start = buffer_.size();
  uint8_t* p = buffer_.grow(7);
  if (p == nullptr) return no_memory();
  p[6] = 0x93;
  Pack r = pack_str(text);
  if (r != Pack::kDone) return r;
  if (!pack_head(0x90, 15, 0, 0xdc, 0xdd, b.ndim)) return no_memory();
  for (int i = 0; i <= b.ndim; ++i) {  // the dimensions, then the index of the out-of-band part
    if ((p = buffer_.grow(9)) == nullptr) return no_memory();
    p[0] = 0xcf;
    put64(p + 1, i < b.ndim ? static_cast<uint64_t>(b.shape[i]) : oob_.size() - oob_base_);
  }
  p = buffer_.data() + start;
  p[0] = 0xc9;
  put32(p + 1, static_cast<uint32_t>(buffer_.size() - start - 6));
  p[5] = kExtTensor;
  oob_.push_back(ray_bytes{b.buf, static_cast<size_t>(b.len)});
  direct_bytes_ += b.len;
  return Pack::kDone;
}

Encoder::Pack Encoder::pack(PyObject* o, int depth) {
  PyTypeObject* type = Py_TYPE(o);
  uint8_t* p;
  if (o == Py_None || type == &PyBool_Type) {
    if ((p = buffer_.grow(1)) == nullptr) return no_memory();
    p[0] = o == Py_None ? 0xc0 : o == Py_False ? 0xc2 : 0xc3;
    return Pack::kDone;
  }
  if (type == &PyLong_Type) return pack_int(o);
  if (type == &PyUnicode_Type) return pack_str(o);
  if (type == &PyFloat_Type) {
    if ((p = buffer_.grow(9)) == nullptr) return no_memory();
    const double d = PyFloat_AS_DOUBLE(o);
    uint64_t bits;
    memcpy(&bits, &d, 8);
    p[0] = 0xcb;
    put64(p + 1, bits);
    return Pack::kDone;
  }
  if (type == &PyBytes_Type) {
    const Py_ssize_t n = PyBytes_GET_SIZE(o);
    if (static_cast<size_t>(n) > UINT32_MAX || (exact_ && n >= kSharedMin && mentioned_before(o)))
      return no_match(o);
    if (!pack_head(0, 0, 0xc4, 0xc5, 0xc6, n) || (p = buffer_.grow(n)) == nullptr)
      return no_memory();
    memcpy(p, PyBytes_AS_STRING(o), n);
    return Pack::kDone;
  }
  if (type == &PyTuple_Type) return pack_tuple(o, depth);
  if (type == &PyList_Type) return pack_list(o, depth);
  if (type == &PyDict_Type) return pack_dict(o, depth);
  if (type == &RefType) {
    const bool custom = exact_ && g_custom_types != nullptr && has_serializer(type);
    if (ref_get(o) == nullptr || custom) return no_match(o);
    if ((p = buffer_.grow(6)) == nullptr) return no_memory();
    p[0] = 0xd6;
    p[1] = kExtRef;
    put32(p + 2, take_ref(ref_get(o)));
    return Pack::kDone;
  }
  if (is_ndarray(o)) return pack_tensor(o);
  if (!exact_ && actor_check(o)) {
    ray_ref* ref = nullptr;
    ray_error* err = nullptr;
    const ray_code code = ray_actor_to_ref(reinterpret_cast<ActorObject*>(o)->actor, &ref, &err);
    if (code != RAY_OK) {
      raise_code(code, err);
      return Pack::kError;
    }
    refs_.push_back(ref);
    if ((p = buffer_.grow(6)) == nullptr) return no_memory();
    p[0] = 0xd6;
    p[1] = kExtActor;
    put32(p + 2, static_cast<uint32_t>(refs_.size()) - 1 - ref_base_);
    return Pack::kDone;
  }
  return no_match(o);
}

bool Encoder::pickle(PyObject* o, Encoded* out) {
  Owned table(table_new(this));
  if (!table) return false;
  PyObject* pair = PyObject_CallFunctionObjArgs(g_hooks.dumps, o, table.get(), nullptr);
  reinterpret_cast<TableObject*>(table.get())->encoder = nullptr;
  if (pair == nullptr) return false;
  keep_.push_back(pair);
  PyObject* body = PyTuple_GET_ITEM(pair, 0);
  PyObject* parts = PyTuple_GET_ITEM(pair, 1);
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(parts); ++i) {
    auto view = std::make_unique<Py_buffer>();
    if (PyObject_GetBuffer(PyList_GET_ITEM(parts, i), view.get(), PyBUF_SIMPLE) != 0) return false;
    oob_.push_back(ray_bytes{view->buf, static_cast<size_t>(view->len)});
    direct_bytes_ += view->len;
    views_.push_back(std::move(view));
  }
  out->format = RAY_FMT_PICKLE5;
  out->direct = PyBytes_AS_STRING(body);
  out->size = static_cast<size_t>(PyBytes_GET_SIZE(body));
  direct_bytes_ += out->size;
  return true;
}

bool Encoder::add(PyObject* o, bool exact, Encoded* out) {
  exact_ = exact;
  out->direct = nullptr;
  out->format = RAY_FMT_MSGPACK;
  out->ref_begin = ref_base_ = static_cast<uint32_t>(refs_.size());
  out->oob_begin = oob_base_ = static_cast<uint32_t>(oob_.size());
  if (Py_TYPE(o) == &PyBytes_Type && static_cast<size_t>(PyBytes_GET_SIZE(o)) >= kRawMin) {
    keep_.push_back(new_ref(o));
    out->direct = PyBytes_AS_STRING(o);
    out->size = static_cast<size_t>(PyBytes_GET_SIZE(o));
    out->format = RAY_FMT_RAW;
    direct_bytes_ += out->size;
  } else {
    n_seen_ = 0;
    n_shared_ = 0;
    out->offset = buffer_.size();
    const Pack r = pack(o, 0);
    if (r == Pack::kError) return false;
    if (r == Pack::kFallback) {
      buffer_.truncate(out->offset);
      while (refs_.size() > ref_base_) {
        ray_ref_release(refs_.back());
        refs_.pop_back();
      }
      oob_.resize(oob_base_);
      if (!pickle(o, out)) return false;
    } else {
      out->size = buffer_.size() - out->offset;
    }
  }
  out->ref_end = static_cast<uint32_t>(refs_.size());
  out->oob_end = static_cast<uint32_t>(oob_.size());
  return true;
}

bool Encoder::add_kwnames(PyObject* names, Encoded* out) {
  exact_ = true;
  n_shared_ = 0;
  *out = Encoded{};
  out->ref_begin = out->ref_end = static_cast<uint32_t>(refs_.size());
  out->oob_begin = out->oob_end = static_cast<uint32_t>(oob_.size());
  out->offset = buffer_.size();
  if (pack_tuple(names, 0) != Pack::kDone) {
    if (!PyErr_Occurred()) PyErr_SetString(PyExc_TypeError, "keyword names must be plain strings");
    return false;
  }
  uint8_t* p = buffer_.data() + out->offset;
  p[p[0] == 0xc9 ? 5 : 2] = kExtKwNames;
  out->size = buffer_.size() - out->offset;
  return true;
}

bool Encoder::add_note(PyObject* bytes, Encoded* out) {
  *out = Encoded{};
  out->ref_begin = out->ref_end = static_cast<uint32_t>(refs_.size());
  out->oob_begin = out->oob_end = static_cast<uint32_t>(oob_.size());
  out->offset = buffer_.size();
  const auto n = static_cast<uint32_t>(PyBytes_GET_SIZE(bytes));
  uint8_t* p = buffer_.grow(n + 6);
  if (p == nullptr) return no_memory() == Pack::kDone;
  p[0] = 0xc9;
  for (int i = 0; i < 4; ++i) p[1 + i] = static_cast<uint8_t>(n >> (24 - 8 * i));
  p[5] = kExtNote;
  memcpy(p + 6, PyBytes_AS_STRING(bytes), n);
  out->size = buffer_.size() - out->offset;
  return true;
}

ray_value Encoder::view(const Encoded& e) {
  ray_value v = RAY_VALUE_INIT;
  v.data = e.direct != nullptr ? e.direct : buffer_.data() + e.offset;
  v.size = e.size;
  v.format = e.format;
  v.n_refs = e.ref_end - e.ref_begin;
  v.refs = v.n_refs != 0 ? refs_.data() + e.ref_begin : nullptr;
  v.n_oob = e.oob_end - e.oob_begin;
  v.oob = v.n_oob != 0 ? oob_.data() + e.oob_begin : nullptr;
  return v;
}

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
  if (!pickled && b->format != RAY_FMT_MSGPACK) {
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
  return Decoder(&holder->buffer, keep.get()).run();
}

const char* decode_note(const ray_buffer* b, size_t* size) {
  const auto* p = static_cast<const uint8_t*>(b->data);
  if (b->format != RAY_FMT_MSGPACK || b->size < 6 || p[0] != 0xc9 || p[5] != kExtNote)
    return nullptr;
  *size = b->size - 6;
  return reinterpret_cast<const char*>(p + 6);
}

int decode_kwnames(const ray_buffer* b, PyObject** out) {
  const auto* p = static_cast<const uint8_t*>(b->data);
  if (b->format != RAY_FMT_MSGPACK || b->size < 4) return 0;
  const size_t head = p[0] == 0xc7 ? 3 : p[0] == 0xc9 ? 6 : 0;
  if (head == 0 || b->size <= head || p[head - 1] != kExtKwNames) return 0;
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

namespace {

// _set_custom_types(set of classes): those with a serializer of the program's own, which no fast format
// carries.
PyObject* set_custom_types(PyObject*, PyObject* classes) {
  if (!PyAnySet_Check(classes)) return PyErr_Format(PyExc_TypeError, "a set of classes is needed");
  PyObject* now = PySet_GET_SIZE(classes) != 0 ? new_ref(classes) : nullptr;
  Py_XDECREF(std::exchange(g_custom_types, now));
  Py_RETURN_NONE;
}

PyMethodDef module_methods[] = {{"_set_custom_types", set_custom_types, METH_O, nullptr},
                                {nullptr, nullptr, 0, nullptr}};

}  // namespace

bool init_value_types(PyObject* module) {
  Owned copyreg(PyImport_ImportModule("copyreg"));
  if (!copyreg) return false;
  g_copyreg = PyObject_GetAttrString(copyreg.get(), "dispatch_table");
  if (g_copyreg == nullptr || !PyDict_Check(g_copyreg)) return false;
  TableType.tp_name = "libray._libray._Table";
  TableType.tp_basicsize = sizeof(TableObject);
  TableType.tp_dealloc = table_dealloc;
  TableType.tp_call = table_call;
  TableType.tp_flags = Py_TPFLAGS_DEFAULT;
  HolderType.tp_name = "libray._libray._Holder";
  HolderType.tp_basicsize = sizeof(HolderObject);
  HolderType.tp_dealloc = holder_dealloc;
  HolderType.tp_flags = Py_TPFLAGS_DEFAULT;
  SliceType.tp_name = "libray._libray._Slice";
  SliceType.tp_basicsize = sizeof(SliceObject);
  SliceType.tp_dealloc = slice_dealloc;
  SliceType.tp_as_buffer = &slice_buffer;
  SliceType.tp_flags = Py_TPFLAGS_DEFAULT;
  return PyType_Ready(&HolderType) == 0 && PyType_Ready(&SliceType) == 0 &&
         PyType_Ready(&TableType) == 0 && PyModule_AddFunctions(module, module_methods) == 0;
}

}  // namespace libray_py
