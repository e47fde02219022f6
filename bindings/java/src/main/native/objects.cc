// Values, references, waiting and the completion queue. See frame.h for how data moves.
#include <cstdlib>

#include "frame.h"

namespace libray_java {
namespace {

enum Kind { kRef = 0, kActor = 1, kStream = 2, kFunction = 3, kBuffer = 4 };

void release_one(uint64_t kind, jlong which) {
  switch (kind) {
    case kRef: return ray_ref_release(handle<ray_ref>(which));
    case kActor: return ray_actor_release(handle<ray_actor>(which));
    case kStream: return ray_stream_release(handle<ray_stream>(which));
    case kFunction: return ray_function_release(handle<ray_function>(which));
    case kBuffer: {
      auto* buffer = handle<ray_buffer>(which);
      ray_buffer_release(buffer);
      return free(buffer);
    }
    default: return;
  }
}

// n pairs of kind and handle.
void release(JNIEnv*, jclass, jlong pairs, jint n) {
  const auto* p = handle<const uint64_t>(pairs);
  for (jint i = 0; i < n; i++) release_one(p[2 * i], static_cast<jlong>(p[2 * i + 1]));
}

void ref_retain(JNIEnv*, jclass, jlong ref) { ray_ref_retain(handle<ray_ref>(ref)); }

// The id of a handle of that kind, into the frame.
void id_of(JNIEnv*, jclass, jint kind, jlong which, jlong frame) {
  const ray_id id = kind == kRef     ? ray_ref_id(handle<ray_ref>(which))
                    : kind == kActor ? ray_actor_id(handle<ray_actor>(which))
                                     : ray_stream_id(handle<ray_stream>(which));
  Answer(frame, 64).id(id);
}

// A value; answers the reference.
jlong put(JNIEnv*, jclass, jlong runtime, jlong frame) {
  Outcome outcome(frame);
  const ray_value value = Reader(frame).value();
  ray_ref* ref = nullptr;
  const ray_code code = ray_put(handle<ray_runtime>(runtime), &value, &ref, outcome.err());
  return outcome.give(code, ref);
}

// A shape; answers the writer, and in the frame the addresses of the data and of each buffer.
jlong writer_open(JNIEnv*, jclass, jlong runtime, jlong frame) {
  Outcome outcome(frame);
  const ray_value shape = Reader(frame).value(false);
  ray_writer* writer = nullptr;
  ray_layout layout = RAY_LAYOUT_INIT;
  const ray_code code =
      ray_writer_open(handle<ray_runtime>(runtime), &shape, &writer, &layout, outcome.err());
  if (code == RAY_OK) {
    Answer answer(frame, 1 << 20);
    answer.put(number(layout.data));
    for (size_t i = 0; i < shape.n_oob; i++) answer.put(number(layout.oob[i]));
  }
  return outcome.give(code, writer);
}

// `wants_ref`: false for the result of a task, which has none.
jlong writer_seal(JNIEnv*, jclass, jlong writer, jboolean wants_ref, jlong frame) {
  Outcome outcome(frame);
  ray_ref* ref = nullptr;
  const ray_code code =
      ray_writer_seal(handle<ray_writer>(writer), wants_ref ? &ref : nullptr, outcome.err());
  return outcome.give(code, ref);
}

void writer_abort(JNIEnv*, jclass, jlong writer) { ray_writer_abort(handle<ray_writer>(writer)); }

jint get(JNIEnv*, jclass, jlong runtime, jlong ref, jlong timeout_ns, jlong frame, jint capacity) {
  Outcome outcome(frame);
  auto* one = handle<ray_ref>(ref);
  ray_buffer buffer = RAY_BUFFER_INIT;
  const ray_code code =
      ray_get(handle<ray_runtime>(runtime), &one, 1, timeout_ns, &buffer, outcome.err());
  if (code == RAY_OK) Answer(frame, capacity).value(&buffer, 0);
  return outcome.set(code);
}

jint try_get(JNIEnv*, jclass, jlong ref, jlong frame, jint capacity) {
  Outcome outcome(frame);
  ray_buffer buffer = RAY_BUFFER_INIT;
  const ray_code code = ray_try_get(handle<ray_ref>(ref), &buffer, outcome.err());
  if (code == RAY_OK) Answer(frame, capacity).value(&buffer, 0);
  return outcome.set(code);
}

// n references; answers n values. The frame has room for n headers at least.
jint get_many(JNIEnv*, jclass, jlong runtime, jint n, jlong timeout_ns, jlong frame, jint capacity) {
  Outcome outcome(frame);
  const auto count = static_cast<size_t>(n);
  thread_local std::vector<ray_buffer> buffers;
  buffers.resize(count);
  ray_ref* const* refs = Reader(frame).handles<ray_ref>(count);
  const ray_code code = ray_get(handle<ray_runtime>(runtime), refs, count, timeout_ns,
                                buffers.data(), outcome.err());
  if (code == RAY_OK) {
    Answer answer(frame, capacity);
    for (size_t i = 0; i < count; i++)
      answer.value(&buffers[i], (count - i - 1) * Answer::kHeader);
  }
  return outcome.set(code);
}

// n references; answers a byte for each.
jint wait(JNIEnv*, jclass, jlong runtime, jint n, jint want, jlong timeout_ns, jlong frame) {
  Outcome outcome(frame);
  const auto count = static_cast<size_t>(n);
  std::vector<uint8_t> ready(count);
  size_t n_ready = 0;
  const ray_code code = ray_wait(handle<ray_runtime>(runtime), Reader(frame).handles<ray_ref>(count), count,
                                 static_cast<size_t>(want), timeout_ns, ready.data(), &n_ready, outcome.err());
  if (code == RAY_OK) memcpy(handle<uint8_t>(frame) + kBody, ready.data(), count);
  return outcome.set(code);
}

// The references inside a value, into the frame.
jint buffer_refs(JNIEnv*, jclass, jlong buffer, jlong frame) {
  Outcome outcome(frame);
  const auto* b = handle<const ray_buffer>(buffer);
  auto* out = reinterpret_cast<ray_ref**>(handle<uint8_t>(frame) + kBody);
  return outcome.set(ray_buffer_refs(b, 0, b->n_refs, out, outcome.err()));
}

// Address and size of each of its out-of-band buffers, into the frame.
void buffer_oob(JNIEnv*, jclass, jlong buffer, jlong frame) {
  const auto* b = handle<const ray_buffer>(buffer);
  for (uint64_t i = 0; i < b->n_oob; i++) {
    const uint64_t pair[2] = {static_cast<uint64_t>(number(b->oob[i].data)), b->oob[i].size};
    memcpy(handle<uint8_t>(frame) + kBody + i * sizeof pair, pair, sizeof pair);
  }
}

jint cancel(JNIEnv*, jclass, jlong ref, jint flags, jlong frame) {
  Outcome outcome(frame);
  return outcome.set(
      ray_cancel(handle<ray_ref>(ref), static_cast<uint32_t>(flags), outcome.err()));
}

// ---- completions ---------------------------------------------------------------------------------

jlong queue_create(JNIEnv*, jclass, jlong runtime, jlong frame) {
  Outcome outcome(frame);
  ray_queue* queue = nullptr;
  const ray_code code = ray_queue_create(handle<ray_runtime>(runtime), &queue, outcome.err());
  return outcome.give(code, queue);
}

void queue_release(JNIEnv*, jclass, jlong queue) { ray_queue_release(handle<ray_queue>(queue)); }

ray_notify notification(jlong queue, jlong tag) {
  ray_notify notify = RAY_NOTIFY_INIT;
  notify.queue = handle<ray_queue>(queue);
  notify.tag = static_cast<uint64_t>(tag);
  return notify;
}

jint on_ready(JNIEnv*, jclass, jlong ref, jlong queue, jlong tag, jlong frame) {
  Outcome outcome(frame);
  const ray_notify notify = notification(queue, tag);
  return outcome.set(ray_on_ready(handle<ray_ref>(ref), &notify, nullptr, outcome.err()));
}

jint stream_on_next(JNIEnv*, jclass, jlong stream, jlong queue, jlong tag, jlong frame) {
  Outcome outcome(frame);
  const ray_notify notify = notification(queue, tag);
  return outcome.set(
      ray_stream_on_next(handle<ray_stream>(stream), &notify, nullptr, outcome.err()));
}

// Waits for completions; answers how many (i64) and the tag of each. What became of the object is seen by who takes it,
// so references and errors of the completions are let go here.
jint queue_poll(JNIEnv*, jclass, jlong queue, jlong timeout_ns, jlong frame, jint capacity) {
  constexpr size_t kMax = 256;
  Outcome outcome(frame);
  ray_completion completions[kMax];
  size_t n = 0;
  const ray_code code = ray_queue_poll(handle<ray_queue>(queue), completions, kMax, timeout_ns, &n, outcome.err());
  Answer answer(frame, capacity);
  answer.put(static_cast<int64_t>(n));
  for (size_t i = 0; i < n; i++) {
    answer.put(completions[i].tag);
    ray_ref_release(completions[i].ref);
    ray_error_release(completions[i].error);
  }
  return outcome.set(code);
}

#define METHOD(name, signature, function) \
  { const_cast<char*>(name), const_cast<char*>(signature), reinterpret_cast<void*>(function) }
const JNINativeMethod kMethods[] = {
    METHOD("release", "(JI)V", release),
    METHOD("refRetain", "(J)V", ref_retain),
    METHOD("idOf", "(IJJ)V", id_of),
    METHOD("put", "(JJ)J", put),
    METHOD("writerOpen", "(JJ)J", writer_open),
    METHOD("writerSeal", "(JZJ)J", writer_seal),
    METHOD("writerAbort", "(J)V", writer_abort),
    METHOD("get", "(JJJJI)I", get),
    METHOD("tryGet", "(JJI)I", try_get),
    METHOD("getMany", "(JIJJI)I", get_many),
    METHOD("wait", "(JIIJJ)I", wait),
    METHOD("bufferRefs", "(JJ)I", buffer_refs),
    METHOD("bufferOob", "(JJ)V", buffer_oob),
    METHOD("cancel", "(JIJ)I", cancel),
    METHOD("queueCreate", "(JJ)J", queue_create),
    METHOD("queueRelease", "(J)V", queue_release),
    METHOD("onReady", "(JJJJ)I", on_ready),
    METHOD("streamOnNext", "(JJJJ)I", stream_on_next),
    METHOD("queuePoll", "(JJJI)I", queue_poll),
};

}  // namespace

const Table kObjectMethods = {kMethods, sizeof kMethods / sizeof *kMethods};

}  // namespace libray_java
