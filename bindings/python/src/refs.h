// The Python types over handles of the runtime: ObjectRef, Function, ActorHandle's base, the
// stream's base.
#pragma once
#include "common.h"

namespace libray_py {

struct RefObject {
  PyObject_HEAD ray_ref* ref;
  PyObject* weakrefs;
};
extern PyTypeObject RefType;
inline bool ref_check(PyObject* o) { return Py_TYPE(o) == &RefType; }
// Null: a reference that a program made from bytes.
inline ray_ref* ref_get(PyObject* o) { return reinterpret_cast<RefObject*>(o)->ref; }
// A ValueError: the reference was made from bytes and its handle is null. Returns null.
PyObject* raise_no_object(PyObject* ref);
// Takes over the count of `ref`, also when it fails.
PyObject* ref_new(ray_ref* ref);
// ray_try_get; should it wait for what is on disk, without the GIL.
inline ray_code try_get_ref(ray_ref* ref, ray_buffer* out, ray_error** err) {
  const YieldWhenWaiting scope;
  return ray_try_get(ref, out, err);
}
// ray_get that looks at signals, see wait_in_slices. RAY_TIMED_OUT: the time is over, or that is the error of an object.
ray_code get_in_slices(ray_runtime* rt, ray_ref* const* refs, size_t n, int64_t timeout_ns, ray_buffer* out,
                       bool* interrupted, ray_error** err);
// Buffer of the value that this thread unpickles now, set while decode.cc does so; null: none.
extern constinit thread_local ray_buffer* t_unpickled;
// For the pickle of a value: the index-th of its references.
PyObject* reduce_to_index(uint32_t index);

struct FunctionObject {  // a ray_function of one runtime
  PyObject_HEAD ray_function* function;
  uint64_t generation;
};
extern PyTypeObject FunctionType;
PyObject* function_new(ray_function* function);

struct ActorObject {  // base of ActorHandle
  PyObject_HEAD ray_actor* actor;
  PyObject* methods;  // dict: name -> CallSpec; shared by all handles of a class
  PyObject* info;     // ActorInfo of the Python half: class name, metadata bytes...
  PyObject* weakrefs;
  uint8_t early;      // calls of the first two: the second may wait for what the node knows of the actor
};
extern PyTypeObject ActorType;
inline bool actor_check(PyObject* o) { return PyObject_TypeCheck(o, &ActorType); }

struct StreamObject {  // base of ObjectRefGenerator
  PyObject_HEAD ray_stream* stream;
  PyObject* pending;  // item that was taken by a look for the end, which is seen by taking alone
  bool ended;
  uint32_t taking;    // threads that wait for an item: nothing is taken past them
  PyObject* weakrefs;
};
extern PyTypeObject StreamType;
PyObject* stream_new(ray_stream* stream);

std::string id_hex(const ray_id& id);
inline bool id_is_zero(const ray_id& id) {
  for (uint8_t b : id.b) {
    if (b != 0) return false;
  }
  return true;
}

bool init_ref_types(PyObject* module);
bool init_call_types(PyObject* module);
bool init_worker_types(PyObject* module);
bool init_queue_types(PyObject* module);

}  // namespace libray_py
