// Python objects <-> values of the runtime. Exact builtin types (and lists, tuples and dicts of
// them), references and contiguous numpy arrays travel as MessagePack, which every language reads;
// large bytes as RAW; everything else as pickle 5 with out-of-band buffers. What comes out has
// exactly the type that went in: subclasses, shared mutable containers and cycles go to pickle.
// Called by submission, results, put and get; GIL held.
#pragma once
#include <memory>
#include <vector>

#include "common.h"

namespace libray_py {

// MessagePack extension types: those of ray.h, and 18, which is this binding's own.
enum : int8_t {
  kExtTimestamp = -1,
  kExtRef = 1,
  kExtActor = 2,
  kExtTensor = 3,
  kExtArrow = 4,
  kExtTuple = 16,
  kExtKwNames = 17,
  kExtNote = 18,
  kExtNamed = 19
};

constexpr int kMaxPortableDepth = 96;  // containers within containers

// Growable bytes that start on the stack.
class Bytes {
 public:
  Bytes() = default;
  Bytes(const Bytes&) = delete;
  Bytes& operator=(const Bytes&) = delete;
  ~Bytes() {
    if (data_ != inline_) free(data_);
  }
  uint8_t* data() { return data_; }
  size_t size() const { return size_; }
  void truncate(size_t n) { size_ = n; }
  // Room for n more bytes, counted as used; null when memory is out.
  uint8_t* grow(size_t n) {
    if (__builtin_expect(size_ + n > capacity_, 0) && !reserve(size_ + n)) return nullptr;
    uint8_t* at = data_ + size_;
    size_ += n;
    return at;
  }

 private:
  bool reserve(size_t need);
  uint8_t inline_[1024];
  uint8_t* data_ = inline_;
  size_t size_ = 0, capacity_ = sizeof(inline_);
};

// One encoded value inside an Encoder.
struct Encoded {
  const void* direct =
      nullptr;  // bytes that live in a Python object; null: they are at `offset` of the buffer
  size_t offset = 0, size = 0;
  uint32_t format = RAY_FMT_MSGPACK;
  uint32_t ref_begin = 0, ref_end = 0, oob_begin = 0, oob_end = 0;
};

// Encodes any number of values (the arguments of a call) into one buffer. Views become ray_values
// when all are in.
class Encoder {
 public:
  Encoder() = default;
  ~Encoder();
  // exact: types must come back as they went in. Otherwise (a callee in another language)
  // everything is MessagePack or an error. False with an exception set.
  bool add(PyObject* object, bool exact, Encoded* out);
  bool add_kwnames(PyObject* names, Encoded* out);
  // What the caller tells the worker about a call besides its arguments (bytes, see worker.cc): the
  // last argument, of calls that need it only.
  bool add_note(PyObject* bytes, Encoded* out);
  ray_value view(const Encoded& e);
  size_t total() const { return buffer_.size() + direct_bytes_; }
  // Takes a count of ref, gives its index in the value.
  uint32_t take_ref(ray_ref* ref);

 private:
  enum class Pack { kDone, kFallback, kError };
  Pack pack(PyObject* o, int depth);
  Pack pack_int(PyObject* o);
  Pack pack_str(PyObject* o);
  Pack pack_list(PyObject* o, int depth);
  Pack pack_tuple(PyObject* o, int depth);
  Pack pack_dict(PyObject* o, int depth);
  Pack pack_tensor(PyObject* o);
  Pack pack_float(double d);
  Pack pack_bytes(PyObject* o);
  Pack pack_actor(PyObject* o);
  Pack pack_index(int8_t type, uint32_t index);
  Pack pack_portable(PyObject* o, int depth);
  Pack pack_portable_tensor(PyObject* o, int depth);
  Pack pack_arrow(PyObject* stream, int depth);
  bool too_deep(int depth) const;
  bool pack_head(uint8_t fix, uint8_t fix_max, uint8_t c8, uint8_t c16, uint8_t c32, size_t n);
  bool seen_before(PyObject* o);
  bool mentioned_before(PyObject* o);
  bool pickle(PyObject* o, Encoded* out);
  Pack no_memory();
  Pack no_match(PyObject* o);

  Bytes buffer_;
  std::vector<ray_ref*> refs_;
  std::vector<ray_bytes> oob_;
  std::vector<PyObject*> keep_;
  std::vector<std::unique_ptr<Py_buffer>> views_;
  size_t direct_bytes_ = 0;
  bool exact_ = true;
  bool is_table_ = false;  // the value is an Arrow table and nothing else
  uint32_t ref_base_ = 0, oob_base_ = 0;
  PyObject* seen_[32];
  int n_seen_ = 0;
  static constexpr size_t kFewShared = 16;
  PyObject* shared_[kFewShared];  // immutable parts that others refer to as well: the first few,
  std::vector<PyObject*> more_shared_;  // and all as a hash table once there are more
  size_t n_shared_ = 0;
};

// The exception that is set now, of a value that other languages cannot read, becomes one that says what in it is to
// blame and what would do. `what` (consumed): "argument 2". Always false.
bool raise_not_portable(PyObject* value, PyObject* what);

// The value in `buffer`, which is released or lives on in zero-copy arrays: consumed either way.
// Null with an exception set.
PyObject* decode_owned(ray_buffer* buffer);
// The value in a borrowed buffer without out-of-band parts.
PyObject* decode_borrowed(const ray_buffer* buffer);
// Whether a buffer is the list of keyword names that ends an argument list; *out is then the tuple
// of names (new reference). Returns -1 with an exception set.
int decode_kwnames(const ray_buffer* buffer, PyObject** out);

// The bytes of a note (add_note), or null when the buffer is none.
const char* decode_note(const ray_buffer* buffer, size_t* size);

bool init_value_types(PyObject* module);
bool init_decode_types();

}  // namespace libray_py
