// How Java and C hand data to each other: through a frame, a piece of memory outside of the Java heap that belongs to
// one thread (org.libray.Frame). A native method takes its address as a number and writes its answer where the question
// was, so that a call moves plain numbers only: no array is pinned, no object is made, no exception is thrown by C.
//
//   byte 0   the error handle (ray_error*) of a call that failed, to be released by Java, or 0
//   byte 8   its code (int)
//   byte 16  the question, then the answer
//
// Everything is in the machine's byte order and aligned to 8 bytes. A text or a run of bytes is its length (8 bytes) and
// its bytes, padded. Values have two forms: `Reader::value` and `Answer::value` are the two sides of them.
#pragma once
#include <jni.h>
#include <ray.h>

#include <cstdint>
#include <cstring>
#include <vector>

namespace libray_java {

constexpr size_t kBody = 16;  // where questions and answers begin
constexpr size_t pad8(size_t n) { return (n + 7) & ~size_t{7}; }

template <typename T>
T* handle(jlong number) {
  return reinterpret_cast<T*>(static_cast<uintptr_t>(number));
}
inline jlong number(const void* pointer) {
  return static_cast<jlong>(reinterpret_cast<uintptr_t>(pointer));
}

// The first words of a frame. Each native method that may fail has one.
class Outcome {
 public:
  explicit Outcome(jlong frame) : at_(handle<uint8_t>(frame)) {}
  ray_error** err() {
    error_ = nullptr;
    return &error_;
  }
  // Notes how the call ended; gives the code back.
  jint set(ray_code code) {
    const auto e = static_cast<uint64_t>(reinterpret_cast<uintptr_t>(code == RAY_OK ? nullptr : error_));
    memcpy(at_, &e, sizeof e);
    memcpy(at_ + 8, &code, sizeof code);
    return code;
  }
  // The handle that the call made, or 0.
  jlong give(ray_code code, const void* made) {
    set(code);
    return code == RAY_OK ? number(made) : 0;
  }

 private:
  uint8_t* at_;
  ray_error* error_ = nullptr;
};

// Reads what Java wrote.
class Reader {
 public:
  explicit Reader(jlong frame) : frame_(static_cast<uint64_t>(frame)), p_(handle<uint8_t>(frame) + kBody) {}
  template <typename T>
  T next() {
    T x;
    memcpy(&x, p_, sizeof x);
    p_ += sizeof x;
    return x;
  }
  ray_str str() {
    const ray_bytes b = bytes();
    return {static_cast<const char*>(b.data), b.size};
  }
  ray_bytes bytes() {
    const auto size = static_cast<size_t>(next<uint64_t>());
    const ray_bytes b = {p_, size};
    p_ += pad8(size);
    return b;
  }
  ray_id id() {
    ray_id x;
    memcpy(x.b, p_, RAY_ID_SIZE);
    p_ += RAY_ID_SIZE;
    return x;
  }
  // n handles, in place.
  template <typename T>
  T* const* handles(size_t n) {
    auto* first = reinterpret_cast<T* const*>(p_);
    p_ += n * sizeof(T*);
    return first;
  }
  // format (4), number of references (4), number of buffers (4), how many bytes these take behind the value (4), size (8);
  // the references; place in the frame and size of each buffer; the bytes; the buffers. A writer's shape ends before the
  // bytes. Places become addresses here: the frame may have moved while Java wrote.
  ray_value value(bool has_data = true) {
    ray_value v = RAY_VALUE_INIT;
    v.format = next<uint32_t>();
    v.n_refs = next<uint32_t>();
    v.n_oob = next<uint32_t>();
    const auto behind = next<uint32_t>();
    v.size = static_cast<size_t>(next<uint64_t>());
    v.refs = handles<ray_ref>(v.n_refs);
    auto* places = reinterpret_cast<uint64_t*>(p_);
    v.oob = reinterpret_cast<const ray_bytes*>(p_);
    p_ += v.n_oob * sizeof(ray_bytes);
    if (!has_data) return v;
    for (size_t i = 0; i < v.n_oob; i++) places[2 * i] += frame_;
    v.data = p_;
    p_ += pad8(v.size) + behind;
    return v;
  }

 private:
  uint64_t frame_;
  uint8_t* p_;
};

// Writes what Java reads; never beyond `capacity`.
class Answer {
 public:
  Answer(jlong frame, jint capacity)
      : p_(handle<uint8_t>(frame) + kBody), end_(handle<uint8_t>(frame) + capacity) {}
  size_t room() const { return static_cast<size_t>(end_ - p_); }
  template <typename T>
  void put(T x) {
    memcpy(p_, &x, sizeof x);
    p_ += sizeof x;
  }
  void id(const ray_id& x) {
    memcpy(p_, x.b, RAY_ID_SIZE);
    p_ += RAY_ID_SIZE;
  }
  void bytes(const void* data, size_t size) {
    if (size != 0) memcpy(p_, data, size);
    p_ += pad8(size);
  }
  static constexpr size_t kHeader = 40;
  // Small values without references and buffers are copied and released at once; others stay where they are, in a
  // ray_buffer on the heap that Java releases when nothing shows its memory any more. `reserve`: room that must stay.
  //   format (4), references (4), buffers (4), 1 = the bytes follow (4), size (8), ray_buffer* (8), address (8), bytes
  void value(ray_buffer* buffer, size_t reserve);
  void borrowed(const ray_buffer& buffer) { header(buffer, true, nullptr), bytes(buffer.data, buffer.size); }
  bool fits(const ray_buffer& buffer, size_t reserve) const {
    return buffer.n_refs == 0 && buffer.n_oob == 0 && buffer.size <= kInline &&
           kHeader + pad8(buffer.size) + reserve <= room();
  }
  // Takes the buffer over: `own` is a copy on the heap.
  void moved(ray_buffer* own) { header(*own, false, own); }

 private:
  static constexpr uint64_t kInline = 32 << 10;
  void header(const ray_buffer& b, bool inlined, ray_buffer* own);
  uint8_t *p_, *end_;
};

// The tables of native methods, one for each file; registered when the library is loaded.
struct Table {
  const JNINativeMethod* methods;
  int count;
};
extern const Table kRuntimeMethods, kObjectMethods, kCallMethods, kClusterMethods, kWorkerMethods;

extern JavaVM* g_vm;
// The environment of the calling thread, attached as a daemon if it is none of Java's; such a thread is detached when it
// ends. NULL when the virtual machine is gone.
JNIEnv* environment();
// What C calls of class org.libray.Native: interrupted(long) is the worker's interrupt hook, waits() is told of calls that
// wait for room in the object store.
extern jclass g_native;
extern jmethodID g_interrupted, g_waits;

}  // namespace libray_java
