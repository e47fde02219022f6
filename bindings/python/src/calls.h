// What a call is made of: the prepared options and signature of a function or method, and its
// encoded arguments.
#pragma once
#include <memory>

#include "common.h"
#include "value.h"

namespace libray_py {

struct SpecObject {
  PyObject_HEAD PyObject *method, *name,
      *resources;   // the strings that `options` and `method_view` point into
  PyObject* bind;   // (args, kwargs) -> None, raises TypeError; None: the signature is not known
  PyObject* extra;  // for the Python half
  PyObject* note;   // bytes that travel with each call (Encoder::add_note), or null
  ray_task_options options;
  ray_str method_view;
  int min_pos, max_pos;  // positional arguments that need no look at the signature
  bool stream;
  bool native, keywords;  // known by its name alone: portable values; keywords: it may take some (it is Python)
};
struct RemoteObject {
  PyObject_HEAD PyObject* spec;
  PyObject* function;  // FunctionObject or null
  PyObject* weakrefs;
};
extern PyTypeObject SpecType;
extern PyTypeObject RemoteType;

// Encoded arguments of one call; on the stack up to kFew of them.
class Arguments {
 public:
  // Checks the signature and encodes; false with an exception set. kwnames: as in vectorcall, may
  // be null.
  bool add_all(const SpecObject* spec, PyObject* const* args, Py_ssize_t n, PyObject* kwnames);
  bool encode(PyObject* const* args, Py_ssize_t n, PyObject* kwnames, bool exact,
              PyObject* note = nullptr);
  const ray_arg* data() const { return args_; }
  size_t size() const { return count_; }
  size_t total() const { return encoder_.total(); }
  // After encode failed: the argument that could not be encoded, or null (borrowed).
  PyObject* culprit() const { return culprit_; }

 private:
  static constexpr size_t kFew = 8;
  ray_arg few_args_[kFew];
  Encoded few_encoded_[kFew];
  std::unique_ptr<ray_arg[]> many_args_;
  std::unique_ptr<Encoded[]> many_encoded_;
  ray_arg* args_ = few_args_;
  Encoded* encoded_ = few_encoded_;
  size_t count_ = 0;
  PyObject* culprit_ = nullptr;
  Encoder encoder_;
};

getattrofunc actor_getattr_hook();

}  // namespace libray_py
