// Functions, tasks, streams and actors, from the caller's side. See frame.h for how data moves.
#include "frame.h"

namespace libray_java {
namespace {

// The arguments of a call: a count (8), then for each 1 (8) and a reference (8), or 0 (8) and a value. That tag alone says
// what follows: a reference of 0 must not make this read what nobody wrote.
class Arguments {
 public:
  explicit Arguments(Reader* in) : n_(static_cast<size_t>(in->next<uint64_t>())) {
    if (n_ > kFew) many_.resize(n_);
    ray_arg* args = data();
    for (size_t i = 0; i < n_; i++) {
      args[i] = RAY_ARG_INIT;
      if (in->next<uint64_t>() == 0) args[i].value = in->value();
      else args[i].ref = handle<ray_ref>(in->next<jlong>());
    }
  }
  ray_arg* data() { return many_.empty() ? few_ : many_.data(); }
  size_t size() const { return n_; }

 private:
  static constexpr size_t kFew = 8;
  size_t n_;
  ray_arg few_[kFew];
  std::vector<ray_arg> many_;
};

// 0 = none (8), or 1, group (24), bundle (4), flags (4), node (24).
bool read_placement(Reader* in, ray_placement* out) {
  *out = RAY_PLACEMENT_INIT;
  if (in->next<uint64_t>() == 0) return false;
  out->group = in->id();
  out->bundle = in->next<int32_t>();
  out->flags = in->next<uint32_t>();
  out->node = in->id();
  return true;
}

// 0 = none (8), or 1, name, resources, retries, results, window, flags, group, 0 (4 each), placement.
class TaskOptions {
 public:
  explicit TaskOptions(Reader* in) {
    if (in->next<uint64_t>() == 0) return;
    given_ = true;
    o_.name = in->str();
    o_.resources_msgpack = in->bytes();
    o_.max_retries = in->next<int32_t>();
    o_.num_returns = in->next<uint32_t>();
    o_.stream_window = in->next<uint32_t>();
    o_.flags = in->next<uint32_t>();
    o_.group = in->next<uint32_t>();
    in->next<uint32_t>();
    if (read_placement(in, &placement_)) o_.placement = &placement_;
  }
  const ray_task_options* get() const { return given_ ? &o_ : nullptr; }
  uint32_t results() const { return o_.num_returns; }

 private:
  bool given_ = false;
  ray_task_options o_ = RAY_TASK_OPTIONS_INIT;
  ray_placement placement_ = RAY_PLACEMENT_INIT;
};

// name (text), resources, metadata (bytes), namespace (text), restarts, retries, concurrency, lifetime, pending, flags
// (4 each), placement.
class ActorOptions {
 public:
  explicit ActorOptions(Reader* in) {
    o_.name = in->str();
    o_.resources_msgpack = in->bytes();
    o_.metadata = in->bytes();
    o_.ns = in->str();
    o_.max_restarts = in->next<int32_t>();
    o_.max_task_retries = in->next<int32_t>();
    o_.max_concurrency = in->next<uint32_t>();
    o_.lifetime = in->next<int32_t>();
    o_.max_pending_calls = in->next<uint32_t>();
    o_.flags = in->next<uint32_t>();
    if (read_placement(in, &placement_)) o_.placement = &placement_;
  }
  const ray_actor_options* get() const { return &o_; }

 private:
  ray_actor_options o_ = RAY_ACTOR_OPTIONS_INIT;
  ray_placement placement_ = RAY_PLACEMENT_INIT;
};

// The results of a call: one comes back as the answer; several lie in the frame.
jlong give_refs(Outcome* outcome, ray_code code, const std::vector<ray_ref*>& refs, jlong frame) {
  if (code == RAY_OK)
    memcpy(handle<uint8_t>(frame) + kBody, refs.data(), refs.size() * sizeof(ray_ref*));
  outcome->set(code);
  return code == RAY_OK ? static_cast<jlong>(refs.size()) : -1;
}

// name, definition.
jlong function_define(JNIEnv*, jclass, jlong runtime, jint language, jlong frame) {
  Outcome outcome(frame);
  Reader in(frame);
  const ray_str name = in.str();
  const ray_bytes definition = in.bytes();
  ray_function* function = nullptr;
  const ray_code code = ray_function_define(handle<ray_runtime>(runtime), language, name,
                                            definition, &function, outcome.err());
  return outcome.give(code, function);
}

// container, member (texts).
jlong function_named(JNIEnv*, jclass, jlong runtime, jint language, jlong frame) {
  Outcome outcome(frame);
  Reader in(frame);
  const ray_str container = in.str(), member = in.str();
  ray_function* function = nullptr;
  const ray_code code = ray_function_named(handle<ray_runtime>(runtime), language, container,
                                           member, &function, outcome.err());
  return outcome.give(code, function);
}

// options, arguments. Answers the one reference, or 0.
jlong submit(JNIEnv*, jclass, jlong runtime, jlong function, jlong frame) {
  Outcome outcome(frame);
  Reader in(frame);
  const TaskOptions options(&in);
  Arguments args(&in);
  ray_ref* ref = nullptr;
  const ray_code code = ray_submit(handle<ray_runtime>(runtime), handle<ray_function>(function),
                                   args.data(), args.size(), options.get(), &ref, outcome.err());
  return outcome.give(code, ref);
}

// The same with any number of results: answers their number, or -1.
jlong submit_many(JNIEnv*, jclass, jlong runtime, jlong function, jlong frame) {
  Outcome outcome(frame);
  Reader in(frame);
  const TaskOptions options(&in);
  Arguments args(&in);
  std::vector<ray_ref*> refs(options.results());
  const ray_code code =
      ray_submit(handle<ray_runtime>(runtime), handle<ray_function>(function), args.data(),
                 args.size(), options.get(), refs.data(), outcome.err());
  return give_refs(&outcome, code, refs, frame);
}

jlong submit_stream(JNIEnv*, jclass, jlong runtime, jlong function, jlong frame) {
  Outcome outcome(frame);
  Reader in(frame);
  const TaskOptions options(&in);
  Arguments args(&in);
  ray_stream* stream = nullptr;
  const ray_code code =
      ray_submit_stream(handle<ray_runtime>(runtime), handle<ray_function>(function), args.data(),
                        args.size(), options.get(), &stream, outcome.err());
  return outcome.give(code, stream);
}

jlong stream_next(JNIEnv*, jclass, jlong stream, jlong timeout_ns, jlong frame) {
  Outcome outcome(frame);
  ray_ref* ref = nullptr;
  const ray_code code =
      ray_stream_next(handle<ray_stream>(stream), timeout_ns, &ref, outcome.err());
  return outcome.give(code, ref);
}

jlong stream_completed(JNIEnv*, jclass, jlong stream, jlong frame) {
  Outcome outcome(frame);
  ray_ref* ref = nullptr;
  const ray_code code = ray_stream_completed(handle<ray_stream>(stream), &ref, outcome.err());
  return outcome.give(code, ref);
}

jint stream_cancel(JNIEnv*, jclass, jlong stream, jint flags, jlong frame) {
  Outcome outcome(frame);
  return outcome.set(ray_stream_cancel(handle<ray_stream>(stream), static_cast<uint32_t>(flags),
                                       outcome.err()));
}

// ---- actors --------------------------------------------------------------------------------------

jlong actor_create(JNIEnv*, jclass, jlong runtime, jlong klass, jlong frame) {
  Outcome outcome(frame);
  Reader in(frame);
  const ActorOptions options(&in);
  Arguments args(&in);
  ray_actor* actor = nullptr;
  const ray_code code =
      ray_actor_create(handle<ray_runtime>(runtime), handle<ray_function>(klass), args.data(),
                       args.size(), options.get(), &actor, outcome.err());
  return outcome.give(code, actor);
}

// method, options, arguments.
jlong actor_call(JNIEnv*, jclass, jlong actor, jlong frame) {
  Outcome outcome(frame);
  Reader in(frame);
  const ray_str method = in.str();
  const TaskOptions options(&in);
  Arguments args(&in);
  ray_ref* ref = nullptr;
  const ray_code code = ray_actor_call(handle<ray_actor>(actor), method, args.data(), args.size(),
                                       options.get(), &ref, outcome.err());
  return outcome.give(code, ref);
}

jlong actor_call_many(JNIEnv*, jclass, jlong actor, jlong frame) {
  Outcome outcome(frame);
  Reader in(frame);
  const ray_str method = in.str();
  const TaskOptions options(&in);
  Arguments args(&in);
  std::vector<ray_ref*> refs(options.results());
  const ray_code code = ray_actor_call(handle<ray_actor>(actor), method, args.data(), args.size(),
                                       options.get(), refs.data(), outcome.err());
  return give_refs(&outcome, code, refs, frame);
}

jlong actor_call_stream(JNIEnv*, jclass, jlong actor, jlong frame) {
  Outcome outcome(frame);
  Reader in(frame);
  const ray_str method = in.str();
  const TaskOptions options(&in);
  Arguments args(&in);
  ray_stream* stream = nullptr;
  const ray_code code =
      ray_actor_call_stream(handle<ray_actor>(actor), method, args.data(), args.size(),
                            options.get(), &stream, outcome.err());
  return outcome.give(code, stream);
}

// name, namespace.
jlong actor_find(JNIEnv*, jclass, jlong runtime, jlong frame) {
  Outcome outcome(frame);
  Reader in(frame);
  const ray_str name = in.str(), ns = in.str();
  ray_actor* actor = nullptr;
  const ray_code code =
      ray_actor_find(handle<ray_runtime>(runtime), name, ns, &actor, outcome.err());
  return outcome.give(code, actor);
}

jint actor_kill(JNIEnv*, jclass, jlong actor, jboolean may_restart, jlong frame) {
  Outcome outcome(frame);
  return outcome.set(ray_actor_kill(handle<ray_actor>(actor), may_restart, outcome.err()));
}

jlong actor_to_ref(JNIEnv*, jclass, jlong actor, jlong frame) {
  Outcome outcome(frame);
  ray_ref* ref = nullptr;
  const ray_code code = ray_actor_to_ref(handle<ray_actor>(actor), &ref, outcome.err());
  return outcome.give(code, ref);
}

jlong actor_from_ref(JNIEnv*, jclass, jlong ref, jlong frame) {
  Outcome outcome(frame);
  ray_actor* actor = nullptr;
  const ray_code code = ray_actor_from_ref(handle<ray_ref>(ref), &actor, outcome.err());
  return outcome.give(code, actor);
}

// Answers the language (i32).
jint actor_language(JNIEnv*, jclass, jlong actor, jlong frame) {
  Outcome outcome(frame);
  int32_t language = -1;
  const ray_code code = ray_actor_language(handle<ray_actor>(actor), &language, outcome.err());
  if (code == RAY_OK) Answer(frame, 64).put(language);
  return outcome.set(code);
}

#define METHOD(name, signature, function) \
  { const_cast<char*>(name), const_cast<char*>(signature), reinterpret_cast<void*>(function) }
const JNINativeMethod kMethods[] = {
    METHOD("functionDefine", "(JIJ)J", function_define),
    METHOD("functionNamed", "(JIJ)J", function_named),
    METHOD("submit", "(JJJ)J", submit),
    METHOD("submitMany", "(JJJ)J", submit_many),
    METHOD("submitStream", "(JJJ)J", submit_stream),
    METHOD("streamNext", "(JJJ)J", stream_next),
    METHOD("streamCompleted", "(JJ)J", stream_completed),
    METHOD("streamCancel", "(JIJ)I", stream_cancel),
    METHOD("actorCreate", "(JJJ)J", actor_create),
    METHOD("actorCall", "(JJ)J", actor_call),
    METHOD("actorCallMany", "(JJ)J", actor_call_many),
    METHOD("actorCallStream", "(JJ)J", actor_call_stream),
    METHOD("actorFind", "(JJ)J", actor_find),
    METHOD("actorLanguage", "(JJ)I", actor_language),
    METHOD("actorKill", "(JZJ)I", actor_kill),
    METHOD("actorToRef", "(JJ)J", actor_to_ref),
    METHOD("actorFromRef", "(JJ)J", actor_from_ref),
};

}  // namespace

const Table kCallMethods = {kMethods, sizeof kMethods / sizeof *kMethods};

}  // namespace libray_java
