// Loading of the library; errors; start and end of a runtime; views of memory. See frame.h.
#include <pthread.h>

#include <cstdlib>

#include "frame.h"

namespace libray_java {

JavaVM* g_vm = nullptr;
jclass g_native = nullptr;
jmethodID g_interrupted = nullptr, g_waits = nullptr;

namespace {

// Detaches a thread of the runtime's when it ends.
struct Attachment {
  bool made = false;
  ~Attachment() {
    if (made && g_vm != nullptr) g_vm->DetachCurrentThread();
  }
};
thread_local Attachment t_attachment;

jbyteArray array_of(JNIEnv* env, const void* data, size_t size) {
  jbyteArray array = env->NewByteArray(static_cast<jsize>(size));
  if (array != nullptr)  // else an OutOfMemoryError is pending, and Java sees it
    env->SetByteArrayRegion(array, 0, static_cast<jsize>(size), static_cast<const jbyte*>(data));
  return array;
}

jint api_version(JNIEnv*, jclass) { return static_cast<jint>(ray_api_version()); }
jint built_with(JNIEnv*, jclass) { return static_cast<jint>(RAY_API_VERSION); }

jlong address(JNIEnv* env, jclass, jobject buffer) {
  return number(env->GetDirectBufferAddress(buffer));
}

jobject view(JNIEnv* env, jclass, jlong at, jlong size) {
  return env->NewDirectByteBuffer(handle<void>(at), size);
}

jint error_code(JNIEnv*, jclass, jlong error) { return ray_error_code(handle<ray_error>(error)); }

jbyteArray error_message(JNIEnv* env, jclass, jlong error) {
  const ray_str message = ray_error_message(handle<ray_error>(error));
  return array_of(env, message.data, message.size);
}

jbyteArray error_payload(JNIEnv* env, jclass, jlong error) {
  const ray_bytes payload = ray_error_payload(handle<ray_error>(error), nullptr);
  return array_of(env, payload.data, payload.size);
}

jint error_format(JNIEnv*, jclass, jlong error) {
  uint32_t format = 0;
  ray_error_payload(handle<ray_error>(error), &format);
  return static_cast<jint>(format);
}

void error_release(JNIEnv*, jclass, jlong error) { ray_error_release(handle<ray_error>(error)); }

jboolean code_is_retryable(JNIEnv*, jclass, jint code) { return ray_code_is_retryable(code); }

// address, namespace, parent of the session (texts), CPUs (f64), resources (bytes), store, spill (u64), shards (u32),
// language (i32), name of the job (text), number of words of the worker's command (u64), those words.
jlong init(JNIEnv*, jclass, jlong frame) {
  Outcome outcome(frame);
  Reader in(frame);
  ray_runtime_options o = RAY_RUNTIME_OPTIONS_INIT;
  o.address = in.str();
  o.ns = in.str();
  o.session_dir = in.str();
  o.num_cpus = in.next<double>();
  o.resources_msgpack = in.bytes();
  o.store_bytes = in.next<uint64_t>();
  o.spill_bytes = in.next<uint64_t>();
  o.gcs_shards = in.next<uint32_t>();
  o.language = in.next<int32_t>();
  o.job_name = in.str();
  std::vector<const char*> argv;
  const auto words = in.next<uint64_t>();
  for (uint64_t i = 0; i < words; i++) argv.push_back(in.str().data);  // Java writes a nul behind each
  argv.push_back(nullptr);
  if (words != 0) o.worker_argv = argv.data();
  ray_runtime* runtime = nullptr;
  const ray_code code = ray_init(&o, &runtime, outcome.err());
  return outcome.give(code, runtime);
}

jint mode(JNIEnv*, jclass, jlong runtime) { return ray_runtime_mode(handle<ray_runtime>(runtime)); }

jbyteArray session_dir(JNIEnv* env, jclass, jlong runtime) {
  const ray_str dir = ray_runtime_session_dir(handle<ray_runtime>(runtime));
  return array_of(env, dir.data, dir.size);
}

jint shutdown(JNIEnv*, jclass, jlong runtime, jlong drain_ns, jlong frame) {
  Outcome outcome(frame);
  return outcome.set(ray_shutdown(handle<ray_runtime>(runtime), drain_ns, outcome.err()));
}

void runtime_release(JNIEnv*, jclass, jlong runtime) {
  ray_runtime_release(handle<ray_runtime>(runtime));
}

// Answers job, node, task, actor (24 bytes each), pid, worker (u32).
jint context(JNIEnv*, jclass, jlong runtime, jlong frame) {
  Outcome outcome(frame);
  ray_context c = RAY_CONTEXT_INIT;
  const ray_code code = ray_runtime_context(handle<ray_runtime>(runtime), &c, outcome.err());
  if (code == RAY_OK) {
    Answer answer(frame, 1 << 10);
    for (const ray_id* id : {&c.job, &c.node, &c.task, &c.actor}) answer.id(*id);
    answer.put(c.pid);
    answer.put(c.worker);
  }
  return outcome.set(code);
}

// Wakes the thread that collects, and lets the call go on.
bool on_wait(void*) {
  JNIEnv* env = environment();
  if (env == nullptr) return false;
  env->CallStaticVoidMethod(g_native, g_waits);
  if (env->ExceptionCheck()) env->ExceptionClear();  // no heap left: it is asked again
  return false;
}

jint on_wait_start(JNIEnv*, jclass, jlong runtime, jlong frame) {
  Outcome outcome(frame);
  return outcome.set(ray_on_wait(handle<ray_runtime>(runtime), on_wait, nullptr, outcome.err()));
}

#define METHOD(name, signature, function) \
  { const_cast<char*>(name), const_cast<char*>(signature), reinterpret_cast<void*>(function) }
const JNINativeMethod kMethods[] = {
    METHOD("apiVersion", "()I", api_version),
    METHOD("builtWith", "()I", built_with),
    METHOD("address", "(Ljava/nio/ByteBuffer;)J", address),
    METHOD("view", "(JJ)Ljava/nio/ByteBuffer;", view),
    METHOD("errorCode", "(J)I", error_code),
    METHOD("errorMessage", "(J)[B", error_message),
    METHOD("errorPayload", "(J)[B", error_payload),
    METHOD("errorFormat", "(J)I", error_format),
    METHOD("errorRelease", "(J)V", error_release),
    METHOD("isRetryable", "(I)Z", code_is_retryable),
    METHOD("init", "(J)J", init),
    METHOD("mode", "(J)I", mode),
    METHOD("sessionDir", "(J)[B", session_dir),
    METHOD("shutdown", "(JJJ)I", shutdown),
    METHOD("runtimeRelease", "(J)V", runtime_release),
    METHOD("context", "(JJ)I", context),
    METHOD("onWait", "(JJ)I", on_wait_start),
};

}  // namespace

const Table kRuntimeMethods = {kMethods, sizeof kMethods / sizeof *kMethods};

JNIEnv* environment() {
  JNIEnv* env = nullptr;
  if (g_vm == nullptr) return nullptr;
  if (g_vm->GetEnv(reinterpret_cast<void**>(&env), JNI_VERSION_1_8) == JNI_OK) return env;
  JavaVMAttachArgs args = {JNI_VERSION_1_8, const_cast<char*>("libray-runtime"), nullptr};
  if (g_vm->AttachCurrentThreadAsDaemon(reinterpret_cast<void**>(&env), &args) != JNI_OK) return nullptr;
  t_attachment.made = true;
  return env;
}

void Answer::header(const ray_buffer& b, bool inlined, ray_buffer* own) {
  put<uint32_t>(b.format);
  put<uint32_t>(b.n_refs);
  put<uint32_t>(static_cast<uint32_t>(b.n_oob));
  put<uint32_t>(inlined);
  put<uint64_t>(b.size);
  put<uint64_t>(static_cast<uint64_t>(number(own)));
  put<uint64_t>(static_cast<uint64_t>(number(b.data)));
}

void Answer::value(ray_buffer* buffer, size_t reserve) {
  if (fits(*buffer, reserve)) {
    borrowed(*buffer);
    ray_buffer_release(buffer);
    return;
  }
  auto* own = static_cast<ray_buffer*>(malloc(sizeof(ray_buffer)));
  memcpy(own, buffer, sizeof *own);  // buffers may be moved
  moved(own);
}

}  // namespace libray_java

extern "C" JNIEXPORT jint JNICALL JNI_OnLoad(JavaVM* vm, void*) {
  using namespace libray_java;
  JNIEnv* env = nullptr;
  if (vm->GetEnv(reinterpret_cast<void**>(&env), JNI_VERSION_1_8) != JNI_OK) return JNI_ERR;
  jclass native = env->FindClass("org/libray/Native");
  if (native == nullptr) return JNI_ERR;
  for (const Table* table :
       {&kRuntimeMethods, &kObjectMethods, &kCallMethods, &kClusterMethods, &kWorkerMethods})
    if (env->RegisterNatives(native, table->methods, table->count) != JNI_OK) return JNI_ERR;
  g_native = static_cast<jclass>(env->NewGlobalRef(native));
  g_interrupted = env->GetStaticMethodID(native, "interrupted", "(J)V");
  g_waits = g_interrupted == nullptr ? nullptr : env->GetStaticMethodID(native, "waits", "()V");
  env->DeleteLocalRef(native);
  if (g_native == nullptr || g_waits == nullptr) return JNI_ERR;
  g_vm = vm;
  return JNI_VERSION_1_8;
}
