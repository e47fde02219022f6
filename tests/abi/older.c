/* older.c -- a binding in small that was built with an older header: it checks the version as bindings do, and goes
 * through every struct that has a size. Built once per recorded header, run with today's library. */
#include <ray.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failures;

static void check(int condition, const char* what) {
  if (condition) return;
  fprintf(stderr, "failed: %s\n", what);
  failures++;
}

static void ok(ray_code code, ray_error* error, const char* what) {
  if (code == RAY_OK) return;
  fprintf(stderr, "%s: %s: %s\n", what, ray_code_name(code), error ? ray_error_message(error).data : "");
  exit(1);
}
#define OK(call)                \
  do {                          \
    ray_error* err = NULL;      \
    ray_code code = (call);     \
    ok(code, err, #call);       \
  } while (0)

/* ---- in workers: struct_size of this header, and nothing behind it is touched ---- */

static ray_code describe(ray_task* task, void* user) {
  struct {
    ray_task_info info;
    uint8_t guard[64];
  } s;
  int64_t sound = 1;
  size_t i;
  ray_value value;
  ray_task_info fresh = RAY_TASK_INFO_INIT;
  (void)user;
  memset(&s, 0x5a, sizeof s);
  s.info = fresh;
  if (ray_task_get_info(task, &s.info) != RAY_OK) sound = 0;
  if (s.info.struct_size != sizeof(ray_task_info) || s.info.num_returns != 1 || s.info.attempt != 1) sound = 0;
  if (s.info.function.size != 8 || memcmp(s.info.function.data, "describe", 8) != 0) sound = 0;
  for (i = 0; i < sizeof s.guard; i++)
    if (s.guard[i] != 0x5a) sound = 0;
  value = ray_plain(&sound, sizeof sound, RAY_FMT_RAW);
  return ray_task_return(task, 0, &value, NULL);
}

static ray_code count(ray_task* task, void* user) {
  int64_t i;
  (void)user;
  for (i = 0; i < 3; i++) {
    ray_value value = ray_plain(&i, sizeof i, RAY_FMT_RAW);
    ray_code code = ray_task_yield(task, &value, -1, NULL);
    if (code != RAY_OK) return code;
  }
  return RAY_OK;
}

static ray_code box_create(ray_task* task, void* user) {
  static int64_t state = 40;
  (void)user;
  return ray_task_set_self(task, &state, NULL);
}

static ray_code box_next(ray_task* task, void* user) {
  int64_t* state = (int64_t*)ray_task_self(task);
  ray_value value = ray_plain(state, sizeof *state, RAY_FMT_RAW);
  (void)user;
  ++*state;
  return ray_task_return(task, 0, &value, NULL);
}

/* ---- the driver ---- */

static int64_t take(ray_runtime* rt, ray_ref* ref) {
  ray_buffer out = RAY_BUFFER_INIT;
  int64_t v = -1;
  OK(ray_get(rt, &ref, 1, 60000000000ll, &out, &err));
  if (out.size == sizeof v) memcpy(&v, out.data, sizeof v);
  ray_buffer_release(&out);
  ray_ref_release(ref);
  return v;
}

static void tasks(ray_runtime* rt) {
  ray_function* f;
  ray_ref* ref;
  ray_task_options options = RAY_TASK_OPTIONS_INIT;
  ray_placement placement = RAY_PLACEMENT_INIT;
  ray_context context = RAY_CONTEXT_INIT;
  OK(ray_function_get(rt, ray_cstr("describe"), &f, &err));
  options.placement = &placement;
  OK(ray_submit(rt, f, NULL, 0, &options, &ref, &err));
  check(take(rt, ref) == 1, "what a task sees of itself");
  ray_function_release(f);
  OK(ray_runtime_context(rt, &context, &err));
  check(context.pid != 0, "the context");
}

static void streams(ray_runtime* rt) {
  ray_function* f;
  ray_stream* stream;
  ray_ref* ref;
  int64_t i;
  OK(ray_function_get(rt, ray_cstr("count"), &f, &err));
  OK(ray_submit_stream(rt, f, NULL, 0, NULL, &stream, &err));
  for (i = 0; i < 3; i++) {
    OK(ray_stream_next(stream, -1, &ref, &err));
    check(take(rt, ref) == i, "an item");
  }
  check(ray_stream_next(stream, -1, &ref, NULL) == RAY_STREAM_END, "the end of a stream");
  ray_stream_release(stream);
  ray_function_release(f);
}

static void actors(ray_runtime* rt) {
  ray_actor_options options = RAY_ACTOR_OPTIONS_INIT;
  ray_function* f;
  ray_actor* box;
  ray_ref* ref;
  OK(ray_function_get(rt, ray_cstr("Box"), &f, &err));
  OK(ray_actor_create(rt, f, NULL, 0, &options, &box, &err));
  OK(ray_actor_call(box, ray_cstr("next"), NULL, 0, NULL, &ref, &err));
  check(take(rt, ref) == 41, "a call");
  ray_actor_release(box);
  ray_function_release(f);
}

static void queues(ray_runtime* rt) {
  ray_notify notify = RAY_NOTIFY_INIT;
  ray_completion done = RAY_COMPLETION_INIT;
  ray_value value = ray_plain("x", 1, RAY_FMT_RAW);
  ray_queue* queue;
  ray_ref* ref;
  size_t n = 0;
  OK(ray_put(rt, &value, &ref, &err));
  OK(ray_queue_create(rt, &queue, &err));
  notify.queue = queue;
  notify.tag = 77;
  OK(ray_on_ready(ref, &notify, NULL, &err));
  OK(ray_queue_poll(queue, &done, 1, -1, &n, &err));
  check(n == 1 && done.tag == 77 && done.code == RAY_OK, "a completion");
  ray_ref_release(done.ref);
  ray_queue_release(queue);
  ray_ref_release(ref);
}

static void groups(ray_runtime* rt) {
  ray_group_options options = RAY_GROUP_OPTIONS_INIT;
  ray_id group;
  options.bundles_msgpack.data = "\x91\x81\xa3" "CPU\x01";
  options.bundles_msgpack.size = 7;
  OK(ray_group_create(rt, &options, &group, &err));
  OK(ray_group_wait(rt, &group, 60000000000ll, &err));
  OK(ray_group_remove(rt, &group, &err));
}

int main(void) {
  ray_runtime_options options = RAY_RUNTIME_OPTIONS_INIT;
  ray_runtime* rt;
  if (ray_api_version() >> 16 != RAY_API_VERSION >> 16 || ray_api_version() < RAY_API_VERSION) {
    fprintf(stderr, "this library is older than the header\n");
    return 1;
  }
  OK(ray_register_function(ray_cstr("describe"), describe, NULL, &err));
  OK(ray_register_function(ray_cstr("count"), count, NULL, &err));
  OK(ray_register_actor(ray_cstr("Box"), box_create, NULL, NULL, &err));
  OK(ray_register_method(ray_cstr("Box"), ray_cstr("next"), box_next, NULL, &err));
  options.num_cpus = 2;
  OK(ray_init(&options, &rt, &err));
  if (ray_runtime_mode(rt) == RAY_MODE_WORKER) return ray_worker_run(rt, NULL) != RAY_OK;
  tasks(rt);
  streams(rt);
  actors(rt);
  queues(rt);
  groups(rt);
  OK(ray_shutdown(rt, 10000000000ll, &err));
  ray_runtime_release(rt);
  printf("%d passed, %d failed, 0 skipped\n", failures ? 0 : 1, failures);
  return failures != 0;
}
