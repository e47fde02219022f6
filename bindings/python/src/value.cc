// See value.h. The encoder (and the decoder, decode.cc) are written by hand because they are the cost of a small
// task: one pass, no intermediate objects, no allocation up to 1 KiB.
#include "value.h"

#include <cstring>

#include "refs.h"

namespace libray_py {

namespace {

PyObject* g_custom_types = nullptr;  // set of classes with serializers of the program's own, or null
PyObject* g_copyreg = nullptr;       // copyreg.dispatch_table

constexpr int kMaxDepth = kMaxPortableDepth / 4;  // deeper values pickle carries
constexpr size_t kRawMin =
    256;  // bytes from here on travel as RAW, without the copy into the encoder's buffer
constexpr Py_ssize_t kSharedMin = 16;  // a shorter string costs no more than a mention of it

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

// ---- numpy, looked up when the first array comes by
// ------------------------------------------------------------

PyTypeObject* g_ndarray = nullptr;

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

bool is_contiguous(PyObject* array) {
  Py_buffer view;
  if (PyObject_GetBuffer(array, &view, PyBUF_ND | PyBUF_C_CONTIGUOUS) != 0) {
    PyErr_Clear();
    return false;
  }
  PyBuffer_Release(&view);
  return true;
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

}  // namespace

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

bool Encoder::too_deep(int depth) const { return depth >= (exact_ ? kMaxDepth : kMaxPortableDepth); }

Encoder::Pack Encoder::pack_list(PyObject* o, int depth) {
  if (!exact_) {  // Python code may run for its items: it is to find the list as it was
    Owned fixed(PyList_AsTuple(o));
    return fixed ? pack_tuple(fixed.get(), depth) : Pack::kError;
  }
  if (too_deep(depth) || seen_before(o)) return no_match(o);
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
  if (too_deep(depth) || (exact_ && n != 0 && mentioned_before(o))) return no_match(o);
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
  if (too_deep(depth) || (exact_ && seen_before(o))) return no_match(o);
  Owned fixed(exact_ ? nullptr : PyDict_Copy(o));  // see pack_list
  if (!exact_ && !fixed) return Pack::kError;
  if (fixed) o = fixed.get();
  if (!pack_head(0x80, 15, 0, 0xde, 0xdf, PyDict_GET_SIZE(o))) return no_memory();
  PyObject *k, *v;
  Py_ssize_t at = 0;
  while (PyDict_Next(o, &at, &k, &v)) {
    const bool plain = exact_ ? PyUnicode_CheckExact(k) || PyLong_CheckExact(k) || PyBytes_CheckExact(k)
                              : PyUnicode_Check(k) || PyLong_Check(k) || PyBytes_Check(k);
    if (!plain) return no_match(k);
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

Encoder::Pack Encoder::pack_float(double d) {
  uint8_t* p = buffer_.grow(9);
  if (p == nullptr) return no_memory();
  uint64_t bits;
  memcpy(&bits, &d, 8);
  p[0] = 0xcb;
  put64(p + 1, bits);
  return Pack::kDone;
}

Encoder::Pack Encoder::pack_bytes(PyObject* o) {
  const Py_ssize_t n = PyBytes_GET_SIZE(o);
  if (static_cast<size_t>(n) > UINT32_MAX || (exact_ && n >= kSharedMin && mentioned_before(o)))
    return no_match(o);
  uint8_t* p;
  if (!pack_head(0, 0, 0xc4, 0xc5, 0xc6, n) || (p = buffer_.grow(n)) == nullptr) return no_memory();
  memcpy(p, PyBytes_AS_STRING(o), n);
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
  if (type == &PyFloat_Type) return pack_float(PyFloat_AS_DOUBLE(o));
  if (type == &PyBytes_Type) return pack_bytes(o);
  if (type == &PyTuple_Type) return pack_tuple(o, depth);
  if (type == &PyList_Type) return pack_list(o, depth);
  if (type == &PyDict_Type) return pack_dict(o, depth);
  if (type == &RefType) {
    const bool custom = exact_ && g_custom_types != nullptr && has_serializer(type);
    if (ref_get(o) == nullptr || custom) return no_match(o);
    return pack_index(kExtRef, take_ref(ref_get(o)));
  }
  if (is_ndarray(o)) return exact_ ? pack_tensor(o) : pack_portable_tensor(o, depth);
  if (exact_) return no_match(o);
  return actor_check(o) ? pack_actor(o) : pack_portable(o, depth);
}

Encoder::Pack Encoder::pack_index(int8_t type, uint32_t index) {
  uint8_t* p = buffer_.grow(6);
  if (p == nullptr) return no_memory();
  p[0] = 0xd6;
  p[1] = static_cast<uint8_t>(type);
  put32(p + 2, index);
  return Pack::kDone;
}

// An array that is not one block of plain numbers as it stands is copied into one, if that can be.
Encoder::Pack Encoder::pack_portable_tensor(PyObject* o, int depth) {
  PyObject* text = dtype_text(o);
  if (text == nullptr) return Pack::kError;
  const int whole = text == Py_None ? 0 : PyObject_CheckBuffer(o) && is_contiguous(o);
  return whole ? pack_tensor(o) : pack_portable(o, depth);
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
    is_table_ = false;
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
    if (is_table_) {  // the value as a whole: the stream says it all
      buffer_.truncate(out->offset);
      out->size = 0;
      out->format = RAY_FMT_ARROW_IPC;
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
  return init_decode_types() && PyType_Ready(&TableType) == 0 && PyModule_AddFunctions(module, module_methods) == 0;
}

}  // namespace libray_py
