// The worker's side: takes tasks, gives results. One call into C takes a task with its arguments; the next one gives its
// result and takes another. See frame.h for how data moves.
#include <cstdlib>

#include "frame.h"

namespace libray_java {
namespace {

// On a thread of the runtime's, with the list of running tasks locked: it only interrupts a Java thread, which asks
// nothing of the runtime.
void on_interrupt(ray_task* task, void*) {
  JNIEnv* env = environment();
  if (env == nullptr) return;
  env->CallStaticVoidMethod(g_native, g_interrupted, number(task));
  if (env->ExceptionCheck()) env->ExceptionClear();  // of this thread's own; nobody could take it
}

jint on_interrupt_start(JNIEnv*, jclass, jlong runtime, jlong frame) {
  Outcome outcome(frame);
  return outcome.set(ray_worker_on_interrupt(handle<ray_runtime>(runtime), on_interrupt, nullptr, outcome.err()));
}

constexpr size_t kTaskHeader = 120;

// The bytes that the arguments need at least: a header for each.
size_t least(size_t n_args) { return n_args * Answer::kHeader; }

void write_args(ray_task* task, Answer* answer) {
  const ray_buffer* args = nullptr;
  const size_t n = ray_task_args(task, &args);
  for (size_t i = 0; i < n; i++) {
    const size_t reserve = least(n - i - 1);
    if (answer->fits(args[i], reserve)) {
      answer->borrowed(args[i]);
      continue;
    }
    auto* own = static_cast<ray_buffer*>(calloc(1, sizeof(ray_buffer)));
    // One that could not be taken has a format that no reader knows, so that nobody takes it for empty.
    if (ray_task_take_arg(task, i, own, nullptr) != RAY_OK) own->format = UINT32_MAX;
    answer->moved(own);
  }
}

// task, key (8 each); kind, attempt, results, 1 = a stream, number of arguments, length of the method's name (4 each);
// ids of task and actor (24 each); 1 = the arguments follow (8); language of the caller, concurrency (4 each); the method's
// name; the arguments.
void write_task(ray_task* task, jlong frame, jint capacity) {
  Answer answer(frame, capacity);
  ray_task_info info = RAY_TASK_INFO_INIT;
  ray_task_get_info(task, &info);
  const ray_buffer* args = nullptr;
  const size_t n = ray_task_args(task, &args);
  const bool fit = kTaskHeader + pad8(info.method.size) + least(n) <= answer.room();
  answer.put(number(task));
  answer.put(info.function_key);
  answer.put(info.kind);
  answer.put(info.attempt);
  answer.put(info.num_returns);
  answer.put<uint32_t>(info.is_stream);
  answer.put(static_cast<uint32_t>(n));
  answer.put(static_cast<uint32_t>(info.method.size));
  answer.id(info.id);
  answer.id(info.actor);
  answer.put<uint64_t>(fit);
  answer.put(info.caller_language);
  answer.put(info.max_concurrency);
  answer.bytes(info.method.data, info.method.size);
  if (fit) write_args(task, &answer);
}

jint next(JNIEnv*, jclass, jlong runtime, jlong timeout_ns, jlong frame, jint capacity) {
  Outcome outcome(frame);
  ray_task* task = nullptr;
  const ray_code code =
      ray_worker_next(handle<ray_runtime>(runtime), timeout_ns, &task, outcome.err());
  if (code == RAY_OK) write_task(task, frame, capacity);
  return outcome.set(code);
}

// The arguments of a task for which the frame was too small.
void task_args(JNIEnv*, jclass, jlong task, jlong frame, jint capacity) {
  Answer answer(frame, capacity);
  write_args(handle<ray_task>(task), &answer);
}

// A value; becomes result `index`.
jint task_return(JNIEnv*, jclass, jlong task, jint index, jlong frame) {
  Outcome outcome(frame);
  const ray_value value = Reader(frame).value();
  return outcome.set(ray_task_return(handle<ray_task>(task), static_cast<uint32_t>(index), &value, outcome.err()));
}

jint finish(JNIEnv*, jclass, jlong task, jint code) {
  return ray_task_finish(handle<ray_task>(task), code);
}

// Result 0, the task's end, and the next task, in one step. When the result could not be given, the task goes on: the
// answer's code is that, and Java fails it. -1 = that; else the code of ray_worker_next.
jint return_finish_next(JNIEnv*, jclass, jlong runtime, jlong task, jboolean has_value, jlong timeout_ns, jlong frame,
                        jint capacity) {
  Outcome outcome(frame);
  if (has_value) {
    const ray_value value = Reader(frame).value();
    const ray_code code = ray_task_return(handle<ray_task>(task), 0, &value, outcome.err());
    if (code != RAY_OK) {
      outcome.set(code);
      return -1;
    }
  }
  ray_task_finish(handle<ray_task>(task), RAY_OK);
  ray_task* taken = nullptr;
  const ray_code code =
      ray_worker_next(handle<ray_runtime>(runtime), timeout_ns, &taken, outcome.err());
  if (code == RAY_OK) write_task(taken, frame, capacity);
  return outcome.set(code);
}

// A shape; answers the writer and the addresses, as writer_open does.
jlong return_open(JNIEnv*, jclass, jlong task, jint index, jlong frame) {
  Outcome outcome(frame);
  const ray_value shape = Reader(frame).value(false);
  ray_writer* writer = nullptr;
  ray_layout layout = RAY_LAYOUT_INIT;
  const ray_code code = ray_task_return_open(handle<ray_task>(task), static_cast<uint32_t>(index), &shape,
                                             &writer, &layout, outcome.err());
  if (code == RAY_OK) {
    Answer answer(frame, 1 << 20);
    answer.put(number(layout.data));
    for (size_t i = 0; i < shape.n_oob; i++) answer.put(number(layout.oob[i]));
  }
  return outcome.give(code, writer);
}

// message (text), payload (a value).
jint return_error(JNIEnv*, jclass, jlong task, jint index, jint code, jlong frame) {
  Outcome outcome(frame);
  Reader in(frame);
  const ray_str message = in.str();
  const ray_value payload = in.value();
  return outcome.set(ray_task_return_error(handle<ray_task>(task), static_cast<uint32_t>(index), code, message,
                                           &payload, outcome.err()));
}

// message (text), payload (a value).
jint fail(JNIEnv*, jclass, jlong task, jlong frame) {
  Outcome outcome(frame);
  Reader in(frame);
  const ray_str message = in.str();
  const ray_value payload = in.value();
  return outcome.set(ray_task_fail(handle<ray_task>(task), message, &payload));
}

// A value; the next item of a generator.
jint yield(JNIEnv*, jclass, jlong task, jlong timeout_ns, jlong frame) {
  Outcome outcome(frame);
  const ray_value value = Reader(frame).value();
  return outcome.set(
      ray_task_yield(handle<ray_task>(task), &value, timeout_ns, outcome.err()));
}

jint await_room(JNIEnv*, jclass, jlong task, jlong timeout_ns, jlong frame) {
  Outcome outcome(frame);
  return outcome.set(ray_task_await_room(handle<ray_task>(task), timeout_ns, outcome.err()));
}

jboolean is_cancelled(JNIEnv*, jclass, jlong task) {
  return ray_task_is_cancelled(handle<ray_task>(task));
}

// Answers a value: the bytes that the function was defined with.
jint definition(JNIEnv*, jclass, jlong task, jlong frame, jint capacity) {
  Outcome outcome(frame);
  ray_buffer buffer = RAY_BUFFER_INIT;
  const ray_code code = ray_task_definition(handle<ray_task>(task), &buffer, outcome.err());
  if (code == RAY_OK) Answer(frame, capacity).value(&buffer, 0);
  return outcome.set(code);
}

jint worker_exit(JNIEnv*, jclass, jlong runtime, jlong frame) {
  Outcome outcome(frame);
  return outcome.set(
      ray_worker_exit(handle<ray_runtime>(runtime), Reader(frame).str(), outcome.err()));
}

jlong worker_actor(JNIEnv*, jclass, jlong runtime, jlong frame) {
  Outcome outcome(frame);
  ray_actor* actor = nullptr;
  const ray_code code = ray_worker_actor(handle<ray_runtime>(runtime), &actor, outcome.err());
  return outcome.give(code, actor);
}

void worker_stop(JNIEnv*, jclass, jlong runtime) { ray_worker_stop(handle<ray_runtime>(runtime)); }

void enter(JNIEnv*, jclass, jlong runtime, jlong task) {
  ray_worker_enter(handle<ray_runtime>(runtime), handle<ray_task>(task), nullptr);
}

// Numbers of the units of a resource ("GPU") that the task has; answers how many, and them (4 each).
jint accelerators(JNIEnv*, jclass, jlong task, jlong frame, jint capacity) {
  const ray_str resource = Reader(frame).str();
  uint32_t ids[256];
  const size_t n = ray_task_accelerators(handle<ray_task>(task), resource, ids, 256);
  Answer answer(frame, capacity);
  for (size_t i = 0; i < n && i < 256; i++) answer.put(ids[i]);
  return static_cast<jint>(n < 256 ? n : 256);
}

#define METHOD(name, signature, function) \
  { const_cast<char*>(name), const_cast<char*>(signature), reinterpret_cast<void*>(function) }
const JNINativeMethod kMethods[] = {
    METHOD("onInterrupt", "(JJ)I", on_interrupt_start),
    METHOD("next", "(JJJI)I", next),
    METHOD("taskArgs", "(JJI)V", task_args),
    METHOD("taskReturn", "(JIJ)I", task_return),
    METHOD("finish", "(JI)I", finish),
    METHOD("returnFinishNext", "(JJZJJI)I", return_finish_next),
    METHOD("returnOpen", "(JIJ)J", return_open),
    METHOD("returnError", "(JIIJ)I", return_error),
    METHOD("fail", "(JJ)I", fail),
    METHOD("yield", "(JJJ)I", yield),
    METHOD("awaitRoom", "(JJJ)I", await_room),
    METHOD("isCancelled", "(J)Z", is_cancelled),
    METHOD("definition", "(JJI)I", definition),
    METHOD("workerExit", "(JJ)I", worker_exit),
    METHOD("workerActor", "(JJ)J", worker_actor),
    METHOD("workerStop", "(J)V", worker_stop),
    METHOD("enter", "(JJ)V", enter),
    METHOD("accelerators", "(JJI)I", accelerators),
};

}  // namespace

const Table kWorkerMethods = {kMethods, sizeof kMethods / sizeof *kMethods};

}  // namespace libray_java
