// Placement groups, the state of the cluster, and the key-value store. See frame.h for how data moves.
#include "frame.h"

namespace libray_java {
namespace {

// bundles (bytes), name, namespace (texts), strategy, lifetime (4 each); answers the id.
jint group_create(JNIEnv*, jclass, jlong runtime, jlong frame) {
  Outcome outcome(frame);
  Reader in(frame);
  ray_group_options o = RAY_GROUP_OPTIONS_INIT;
  o.bundles_msgpack = in.bytes();
  o.name = in.str();
  o.ns = in.str();
  o.strategy = in.next<int32_t>();
  o.lifetime = in.next<int32_t>();
  ray_id id = RAY_ID_INIT;
  const ray_code code = ray_group_create(handle<ray_runtime>(runtime), &o, &id, outcome.err());
  if (code == RAY_OK) Answer(frame, 64).id(id);
  return outcome.set(code);
}

jint group_wait(JNIEnv*, jclass, jlong runtime, jlong timeout_ns, jlong frame) {
  Outcome outcome(frame);
  const ray_id id = Reader(frame).id();
  return outcome.set(
      ray_group_wait(handle<ray_runtime>(runtime), &id, timeout_ns, outcome.err()));
}

jint group_remove(JNIEnv*, jclass, jlong runtime, jlong frame) {
  Outcome outcome(frame);
  const ray_id id = Reader(frame).id();
  return outcome.set(ray_group_remove(handle<ray_runtime>(runtime), &id, outcome.err()));
}

// what (text), filter (bytes); answers a value.
jint query(JNIEnv*, jclass, jlong runtime, jlong frame, jint capacity) {
  Outcome outcome(frame);
  Reader in(frame);
  const ray_str what = in.str();
  const ray_bytes filter = in.bytes();
  ray_buffer buffer = RAY_BUFFER_INIT;
  const ray_code code =
      ray_cluster_query(handle<ray_runtime>(runtime), what, filter, &buffer, outcome.err());
  if (code == RAY_OK) Answer(frame, capacity).value(&buffer, 0);
  return outcome.set(code);
}

// namespace, key; answers the version (8) and a value.
jint kv_get(JNIEnv*, jclass, jlong runtime, jlong frame, jint capacity) {
  Outcome outcome(frame);
  Reader in(frame);
  const ray_str ns = in.str();
  const ray_bytes key = in.bytes();
  ray_buffer buffer = RAY_BUFFER_INIT;
  uint64_t version = 0;
  const ray_code code =
      ray_kv_get(handle<ray_runtime>(runtime), ns, key, &buffer, &version, outcome.err());
  if (code == RAY_OK) {
    Answer answer(frame, capacity);
    answer.put(version);
    answer.value(&buffer, 0);
  }
  return outcome.set(code);
}

// namespace, key, value; answers the version.
jint kv_put(JNIEnv*, jclass, jlong runtime, jlong expected, jlong frame) {
  Outcome outcome(frame);
  Reader in(frame);
  const ray_str ns = in.str();
  const ray_bytes key = in.bytes(), value = in.bytes();
  uint64_t version = 0;
  const ray_code code = ray_kv_put(handle<ray_runtime>(runtime), ns, key, value,
                                   static_cast<uint64_t>(expected), &version, outcome.err());
  if (code == RAY_OK) Answer(frame, 64).put(version);
  return outcome.set(code);
}

// namespace, key.
jint kv_delete(JNIEnv*, jclass, jlong runtime, jlong expected, jlong frame) {
  Outcome outcome(frame);
  Reader in(frame);
  const ray_str ns = in.str();
  const ray_bytes key = in.bytes();
  return outcome.set(ray_kv_delete(handle<ray_runtime>(runtime), ns, key,
                                   static_cast<uint64_t>(expected), outcome.err()));
}

// namespace, prefix; answers a value.
jint kv_list(JNIEnv*, jclass, jlong runtime, jlong frame, jint capacity) {
  Outcome outcome(frame);
  Reader in(frame);
  const ray_str ns = in.str();
  const ray_bytes prefix = in.bytes();
  ray_buffer buffer = RAY_BUFFER_INIT;
  const ray_code code =
      ray_kv_list(handle<ray_runtime>(runtime), ns, prefix, &buffer, outcome.err());
  if (code == RAY_OK) Answer(frame, capacity).value(&buffer, 0);
  return outcome.set(code);
}

// Where code of a language lies (text).
jint worker_code(JNIEnv*, jclass, jlong runtime, jint language, jlong frame) {
  Outcome outcome(frame);
  return outcome.set(ray_worker_code(handle<ray_runtime>(runtime), language, Reader(frame).str(),
                                     outcome.err()));
}

#define METHOD(name, signature, function) \
  { const_cast<char*>(name), const_cast<char*>(signature), reinterpret_cast<void*>(function) }
const JNINativeMethod kMethods[] = {
    METHOD("groupCreate", "(JJ)I", group_create),
    METHOD("groupWait", "(JJJ)I", group_wait),
    METHOD("groupRemove", "(JJ)I", group_remove),
    METHOD("query", "(JJI)I", query),
    METHOD("workerCode", "(JIJ)I", worker_code),
    METHOD("kvGet", "(JJI)I", kv_get),
    METHOD("kvPut", "(JJJ)I", kv_put),
    METHOD("kvDelete", "(JJJ)I", kv_delete),
    METHOD("kvList", "(JJI)I", kv_list),
};

}  // namespace

const Table kClusterMethods = {kMethods, sizeof kMethods / sizeof *kMethods};

}  // namespace libray_java
