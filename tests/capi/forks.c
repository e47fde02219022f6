/* forks.c -- a forked child: every function of ray.h and every release in it changes nothing of the parent's, and
 * answers at once, in a driver and in a task. capi_symbols checks that the tables here leave no function out. */
#define _POSIX_C_SOURCE 200809L
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kit.h"
#include "remote.h"

/* ---- what runs in workers ---- */

static ray_code add_one(ray_task* task, void* user) {
  (void)user;
  return kit_return_i64(task, 0, kit_arg_i64(task, 0) + 1);
}

static ray_code count_up(ray_task* task, void* user) { /* three items, as slowly as they are taken */
  int64_t i;
  (void)user;
  for (i = 0; i < 3; i++) {
    ray_value value = ray_plain(&i, sizeof i, RAY_FMT_RAW);
    ray_code code = ray_task_yield(task, &value, -1, NULL);
    if (code != RAY_OK) return code;
  }
  return RAY_OK;
}

static ray_code counter_create(ray_task* task, void* user) {
  static int64_t zero;
  (void)user;
  return ray_task_set_self(task, &zero, NULL);
}

static ray_code counter_next(ray_task* task, void* user) {
  int64_t* self = (int64_t*)ray_task_self(task);
  (void)user;
  return kit_return_i64(task, 0, ++*self);
}

/* ---- the child's tables ---- */

static int bad;
static void expect(const char* what, long expected, long got) {
  if (expected == got) return;
  fprintf(stderr, "in the child %s is %ld, not %ld\n", what, got, expected);
  bad++;
}
#define REFUSED(call) expect(#call, RAY_WRONG_STATE, (call))
#define GIVES(expected, call) expect(#call, (long)(expected), (long)(call))

static struct {
  ray_function* function;
  ray_ref *ref, *pending;
  ray_actor* actor;
  ray_stream* stream;
  ray_queue* queue;
  ray_writer* writers[2];
  ray_buffer small, stored, packed;
  ray_error* error;
  ray_bytes exported;
  uint8_t bytes[256];
  uint64_t token;
} g;

static int called;
static void on_done(const ray_completion* completion, void* user) {
  (void)user;
  ray_ref_release(completion->ref);
  ray_error_release(completion->error);
  called++;
}

static void objects_in_the_child(void) {
  ray_value value = ray_plain("abc", 3, RAY_FMT_RAW);
  ray_notify notify = RAY_NOTIFY_INIT;
  ray_buffer buffer = RAY_BUFFER_INIT;
  ray_context context = RAY_CONTEXT_INIT;
  ray_layout layout;
  ray_writer* writer;
  ray_completion completion;
  ray_queue* queue;
  ray_ref* ref = NULL;
  ray_id id = ray_ref_id(g.ref);
  uint8_t ready[2];
  size_t n = 0, size = sizeof g.bytes;
  uint64_t count;
  ray_actor* actor;
  notify.fn = on_done;
  REFUSED(ray_runtime_context(rt, &context, NULL));
  REFUSED(ray_on_wait(rt, NULL, NULL, NULL));
  REFUSED(ray_put(rt, &value, &ref, NULL));
  REFUSED(ray_put_error(rt, RAY_TASK_FAILED, ray_cstr("x"), NULL, &ref, NULL));
  REFUSED(ray_writer_open(rt, &value, &writer, &layout, NULL));
  REFUSED(ray_writer_seal(g.writers[0], &ref, NULL));
  REFUSED(ray_writer_abort(g.writers[1]));
  REFUSED(ray_buffer_ref(&g.packed, 0, &ref, NULL));
  REFUSED(ray_buffer_refs(&g.packed, 0, 1, &ref, NULL));
  REFUSED(ray_ref_find(rt, &id, &ref, NULL));
  REFUSED(ray_ref_export(g.ref, g.bytes, &size, NULL));
  REFUSED(ray_ref_import(rt, g.exported, &ref, NULL));
  REFUSED(ray_actor_to_ref(g.actor, &ref, NULL));
  REFUSED(ray_actor_from_ref(g.ref, &actor, NULL));
  REFUSED(ray_try_get(g.ref, &buffer, NULL));
  REFUSED(ray_get(rt, &g.pending, 1, -1, &buffer, NULL));
  REFUSED(ray_wait(rt, &g.pending, 1, 1, -1, ready, &n, NULL));
  REFUSED(ray_wait_any(rt, &g.pending, 1, &g.stream, 1, 1, -1, ready, ready + 1, NULL));
  REFUSED(ray_queue_create(rt, &queue, NULL));
  GIVES(-1, ray_queue_fd(g.queue));
  REFUSED(ray_queue_poll(g.queue, &completion, 1, -1, &n, NULL));
  ray_queue_wake(g.queue);
  REFUSED(ray_on_ready(g.ref, &notify, NULL, NULL));
  REFUSED(ray_cancel_notify(rt, g.token, NULL));
  REFUSED(ray_test_ref_count(g.ref, &count, NULL));
  GIVES(true, ray_ref_retain(g.ref) == g.ref);
}

static void calls_in_the_child(void) {
  ray_group_options group = RAY_GROUP_OPTIONS_INIT;
  ray_notify notify = RAY_NOTIFY_INIT;
  ray_bytes bundles = {"\x91\x81\xa3"
                       "CPU\x01", 7}, key = {"k", 1}, none = RAY_BYTES_INIT;
  ray_str name = ray_cstr("x");
  ray_buffer buffer = RAY_BUFFER_INIT;
  ray_function* function;
  ray_stream* stream;
  ray_actor* actor;
  ray_ref* ref = NULL;
  ray_id id = RAY_ID_INIT;
  uint64_t version;
  int32_t language;
  const char* argv[] = {"/bin/true", NULL};
  notify.fn = on_done;
  group.bundles_msgpack = bundles;
  REFUSED(ray_function_get(rt, name, &function, NULL));
  REFUSED(ray_function_named(rt, RAY_LANG_NATIVE, name, name, &function, NULL));
  REFUSED(ray_worker_code(rt, RAY_LANG_RUST, name, NULL));
  REFUSED(ray_worker_command(rt, RAY_LANG_RUST, argv, NULL));
  REFUSED(ray_function_define(rt, RAY_LANG_NATIVE, name, key, &function, NULL));
  REFUSED(ray_define_library(rt, name, name, &function, NULL));
  REFUSED(ray_define_symbol(rt, name, ray_cstr(""), ray_cstr("abs"), ray_cstr("i32(i32)"), &function, NULL));
  REFUSED(ray_submit(rt, g.function, NULL, 0, NULL, &ref, NULL));
  REFUSED(ray_submit_stream(rt, g.function, NULL, 0, NULL, &stream, NULL));
  REFUSED(ray_stream_next(g.stream, -1, &ref, NULL));
  REFUSED(ray_stream_completed(g.stream, &ref, NULL));
  REFUSED(ray_stream_on_next(g.stream, &notify, NULL, NULL));
  REFUSED(ray_stream_cancel(g.stream, 0, NULL));
  REFUSED(ray_cancel(g.pending, RAY_CANCEL_FORCE, NULL));
  REFUSED(ray_actor_create(rt, g.function, NULL, 0, NULL, &actor, NULL));
  REFUSED(ray_actor_call(g.actor, ray_cstr("next"), NULL, 0, NULL, &ref, NULL));
  REFUSED(ray_actor_call_stream(g.actor, ray_cstr("next"), NULL, 0, NULL, &stream, NULL));
  REFUSED(ray_actor_find(rt, name, name, &actor, NULL));
  REFUSED(ray_actor_from_id(rt, ray_actor_id(g.actor), &actor, NULL));
  REFUSED(ray_actor_kill(g.actor, false, NULL));
  REFUSED(ray_actor_metadata(g.actor, &none, NULL));
  REFUSED(ray_actor_language(g.actor, &language, NULL));
  REFUSED(ray_group_create(rt, &group, &id, NULL));
  REFUSED(ray_group_wait(rt, &id, -1, NULL));
  REFUSED(ray_group_remove(rt, &id, NULL));
  REFUSED(ray_cluster_query(rt, ray_cstr("references"), none, &buffer, NULL));
  REFUSED(ray_kv_get(rt, name, key, &buffer, &version, NULL));
  REFUSED(ray_kv_put(rt, name, key, key, RAY_KV_ANY, &version, NULL));
  REFUSED(ray_kv_delete(rt, name, key, RAY_KV_ANY, NULL));
  REFUSED(ray_kv_list(rt, name, none, &buffer, NULL));
  GIVES(true, ray_stream_retain(g.stream) == g.stream);
  GIVES(true, ray_actor_retain(g.actor) == g.actor);
  GIVES(false, ray_actor_is_weak(g.actor));
  GIVES(true, ray_function_retain(g.function) == g.function);
}

static void worker_calls_in_the_child(ray_runtime* runtime) {
  uint32_t limit = 1;
  ray_task* task;
  ray_actor* actor;
  REFUSED(ray_worker_run(runtime, NULL));
  REFUSED(ray_worker_next(runtime, -1, &task, NULL));
  REFUSED(ray_worker_next_in(runtime, 0, -1, &task, NULL));
  REFUSED(ray_worker_set_groups(runtime, &limit, 1, NULL));
  REFUSED(ray_worker_poll(runtime, 0, -1, -1));
  REFUSED(ray_worker_exit(runtime, ray_cstr("x"), NULL));
  REFUSED(ray_worker_actor(runtime, &actor, NULL));
  REFUSED(ray_worker_limit_streams(runtime, 1, NULL));
  REFUSED(ray_worker_enter(runtime, NULL, NULL));
  REFUSED(ray_worker_on_interrupt(runtime, NULL, NULL, NULL));
  GIVES(-1, ray_worker_fd(runtime));
  GIVES(-1, ray_worker_group_fd(runtime, 0));
  ray_worker_stop(runtime);
}

/* Each twice: what it retained, and what the parent holds. */
static void releases_in_the_child(void) {
  int i;
  for (i = 0; i < 2; i++) {
    ray_stream_release(g.stream);
    ray_actor_release(g.actor);
    ray_function_release(g.function);
    ray_ref_release(g.ref);
    ray_ref_release(g.pending);
  }
  ray_queue_release(g.queue);
  ray_buffer_release(&g.small);
  ray_buffer_release(&g.stored);
  ray_buffer_release(&g.packed);
  GIVES(RAY_INVALID_ARGUMENT, ray_error_code(g.error));
  GIVES(true, ray_error_message(g.error).size > 0 && ray_error_payload(g.error, NULL).size == 0);
  ray_error_release(ray_error_retain(g.error));
  ray_error_release(g.error);
  GIVES(RAY_MODE_DRIVER, ray_runtime_mode(rt));
  GIVES(true, ray_runtime_session_dir(rt).size > 0);
  GIVES(1, ray_actor_id(g.actor).b[0] == 0); /* released: all zero */
  GIVES(1, ray_stream_id(g.stream).b[0] == 0);
  REFUSED(ray_shutdown(rt, -1, NULL));
  ray_runtime_release(rt);
}

static void check_child(pid_t pid) {
  int status = -1;
  CHECK(pid > 0);
  CHECK(waitpid(pid, &status, 0) == pid);
  CHECK_EQ(status, 0);
}

/* ---- in a driver ---- */

static void make_handles(void) {
  static char big[100000];
  ray_value value = ray_plain("abc", 3, RAY_FMT_RAW), large = ray_plain(big, sizeof big, RAY_FMT_RAW), outer = value;
  ray_task_options options = RAY_TASK_OPTIONS_INIT;
  ray_notify notify = RAY_NOTIFY_INIT;
  ray_function* stream;
  ray_layout layout;
  ray_ref *stored, *packed;
  ray_arg arg;
  size_t size = sizeof g.bytes;
  kit_init();
  CHECK_OK(ray_function_get(rt, ray_cstr("add_one"), &g.function, &err));
  CHECK_OK(ray_function_get(rt, ray_cstr("count_up"), &stream, &err));
  arg = kit_text(kit_path("go"));
  g.pending = kit_submit("await_file", &arg, 1, NULL);
  options.stream_window = 1;
  CHECK_OK(ray_submit_stream(rt, stream, NULL, 0, &options, &g.stream, &err));
  ray_function_release(stream);
  g.actor = kit_actor("Counter", NULL);
  CHECK_EQ(kit_call_i64(g.actor, "next", 0), 1);
  CHECK_OK(ray_put(rt, &value, &g.ref, &err));
  CHECK_OK(ray_put(rt, &large, &stored, &err));
  outer.refs = &g.ref;
  outer.n_refs = 1;
  CHECK_OK(ray_put(rt, &outer, &packed, &err));
  CHECK_OK(ray_get(rt, &g.ref, 1, -1, &g.small, &err));
  CHECK_OK(ray_get(rt, &stored, 1, -1, &g.stored, &err));
  CHECK_OK(ray_get(rt, &packed, 1, -1, &g.packed, &err));
  ray_ref_release(stored);
  ray_ref_release(packed);
  CHECK_OK(ray_ref_export(g.ref, g.bytes, &size, &err));
  g.exported.data = g.bytes;
  g.exported.size = size;
  CHECK_OK(ray_writer_open(rt, &large, &g.writers[0], &layout, &err));
  CHECK_OK(ray_writer_open(rt, &large, &g.writers[1], &layout, &err));
  CHECK_OK(ray_queue_create(rt, &g.queue, &err));
  notify.queue = g.queue;
  CHECK_OK(ray_on_ready(g.ref, &notify, NULL, &err));
  notify.queue = NULL;
  notify.fn = on_done;
  CHECK_OK(ray_on_ready(g.pending, &notify, &g.token, &err));
  CHECK_EQ(ray_cancel(NULL, 0, &g.error), RAY_INVALID_ARGUMENT);
}

/* What the parent made before is all there, and works. */
static void parent_goes_on(void) {
  ray_completion completion;
  ray_ref* item;
  int64_t i;
  CHECK_EQ(kit_poll(g.queue, &completion, 1), 1);
  ray_ref_release(completion.ref);
  CHECK_EQ(kit_call_i64(g.actor, "next", 0), 2);
  for (i = 0; i < 3; i++) {
    CHECK_OK(ray_stream_next(g.stream, -1, &item, &err));
    CHECK_EQ(kit_take_i64(item), i);
  }
  CHECK_CODE(RAY_STREAM_END, ray_stream_next(g.stream, -1, &item, &err));
  kit_touch(kit_path("go"));
  CHECK_EQ(kit_get_i64(g.pending), 7);
  CHECK_OK(ray_writer_seal(g.writers[0], &item, &err));
  ray_ref_release(item);
  CHECK_OK(ray_writer_abort(g.writers[1]));
  CHECK_OK(ray_ref_import(rt, g.exported, &item, &err));
  ray_ref_release(item);
  CHECK(memcmp(g.small.data, "abc", 3) == 0);
  ray_buffer_release(&g.small);
  ray_buffer_release(&g.stored);
  ray_buffer_release(&g.packed);
  CHECK_EQ(kit_take_i64(kit_submit_i64("add_one", 1, 0)), 2);
  ray_stream_release(g.stream);
  ray_actor_release(g.actor);
  ray_function_release(g.function);
  ray_ref_release(g.pending);
  ray_ref_release(g.ref);
  ray_queue_release(g.queue);
  ray_error_release(g.error);
}

static void in_a_driver(void) {
  pid_t pid;
  make_handles();
  pid = fork();
  if (pid == 0) {
    alarm(60);
    objects_in_the_child();
    calls_in_the_child();
    worker_calls_in_the_child(rt);
    releases_in_the_child();
    _exit(bad != 0);
  }
  check_child(pid);
  parent_goes_on();
}

/* The child's own cluster, with the parent's handles still there. */
static void a_cluster_of_its_own(void) {
  pid_t pid;
  ray_runtime* parents;
  make_handles();
  parents = rt;
  pid = fork();
  if (pid == 0) {
    alarm(60);
    kit_init();
    CHECK_EQ(kit_take_i64(kit_submit_i64("add_one", 4, 0)), 5);
    REFUSED(ray_submit(parents, g.function, NULL, 0, NULL, NULL, NULL));
    GIVES(RAY_INVALID_ARGUMENT, ray_submit(rt, g.function, NULL, 0, NULL, NULL, NULL));
    GIVES(RAY_INVALID_ARGUMENT, ray_get(rt, &g.ref, 1, 0, NULL, NULL));
    ray_ref_release(g.ref);
    kit_shutdown();
    _exit(bad != 0);
  }
  check_child(pid);
  parent_goes_on();
}

/* Other threads hold whatever lock there is when the fork happens. */
static volatile bool stop_threads;
static void on_log(int32_t level, ray_str module, ray_str msg_id, ray_str text, void* user) {
  (void)level, (void)module, (void)msg_id, (void)text, (void)user;
}
static void* busy(void* unused) {
  static char big[20000];
  ray_value value = ray_plain(big, sizeof big, RAY_FMT_RAW);
  ray_buffer buffer = RAY_BUFFER_INIT;
  ray_error* e = NULL;
  (void)unused;
  while (!stop_threads) {
    ray_ref* ref = NULL;
    if (ray_put(rt, &value, &ref, NULL) != RAY_OK || ray_get(rt, &ref, 1, -1, &buffer, NULL) != RAY_OK) break;
    ray_buffer_release(&buffer);
    ray_ref_release(ref);
    ray_set_log_handler(on_log, RAY_LOG_WARNING, NULL);
    (void)ray_cancel(NULL, 0, &e);
    ray_error_release(e);
  }
  return NULL;
}

static void beside_busy_threads(void) {
  enum { kThreads = 3, kForks = 60 };
  pthread_t threads[kThreads];
  int i;
  kit_init();
  for (i = 0; i < kThreads; i++) CHECK_EQ(pthread_create(&threads[i], NULL, busy, NULL), 0);
  for (i = 0; i < kForks; i++) {
    pid_t pid = fork();
    if (pid == 0) {
      ray_error* e = NULL;
      ray_value value = ray_plain("a", 1, RAY_FMT_RAW);
      ray_ref* ref;
      alarm(20);
      ray_set_log_handler(NULL, RAY_LOG_WARNING, NULL);
      GIVES(RAY_INVALID_ARGUMENT, ray_cancel(NULL, 0, &e));
      ray_error_release(e);
      REFUSED(ray_put(rt, &value, &ref, NULL));
      REFUSED(ray_register_function(ray_cstr("late"), add_one, NULL, NULL));
      REFUSED(ray_register_actor(ray_cstr("Late"), add_one, NULL, NULL, NULL));
      REFUSED(ray_register_method(ray_cstr("Counter"), ray_cstr("late"), add_one, NULL, NULL));
      ray_runtime_release(rt);
      _exit(bad != 0);
    }
    check_child(pid);
  }
  stop_threads = true;
  for (i = 0; i < kThreads; i++) pthread_join(threads[i], NULL);
  CHECK_EQ(kit_take_i64(kit_submit_i64("add_one", 1, 0)), 2);
}

/* The change of a handler takes two locks, and a fork takes both. */
static void* change_handlers(void* unused) {
  (void)unused;
  while (!stop_threads) ray_set_log_handler(on_log, RAY_LOG_WARNING, NULL);
  return NULL;
}
static void beside_a_change_of_the_log_handler(void) {
  pthread_t threads[2];
  int i;
  kit_init();
  for (i = 0; i < 2; i++) CHECK_EQ(pthread_create(&threads[i], NULL, change_handlers, NULL), 0);
  for (i = 0; i < 300; i++) {
    pid_t pid = fork();
    if (pid == 0) {
      alarm(20);
      ray_set_log_handler(NULL, RAY_LOG_WARNING, NULL);
      _exit(0);
    }
    check_child(pid);
  }
  stop_threads = true;
  for (i = 0; i < 2; i++) pthread_join(threads[i], NULL);
}

/* ---- what a child reads ---- */

enum { kLarge = 24 << 20 };
static ray_ref* put_filled(char fill) {
  char* bytes = malloc(kLarge);
  ray_value value = ray_plain(bytes, kLarge, RAY_FMT_RAW);
  ray_ref* ref;
  memset(bytes, fill, kLarge);
  CHECK_OK(ray_put(rt, &value, &ref, &err));
  free(bytes);
  return ref;
}

/* A value that was read in place does not change under a child, though the parent has dropped it and filled the store
 * with others; when the child has ended its room is free. */
static void an_inherited_array_does_not_change(void) {
  ray_buffer buffer = RAY_BUFFER_INIT;
  ray_ref *ref, *others[2];
  pid_t pid;
  int i;
  kit_init(); /* a store of 64 MB */
  ref = put_filled('a');
  CHECK_OK(ray_get(rt, &ref, 1, -1, &buffer, &err));
  pid = fork();
  if (pid == 0) {
    const char* bytes = (const char*)buffer.data;
    alarm(60);
    kit_await(kit_path("others"));
    for (i = 0; i < kLarge; i++)
      if (bytes[i] != 'a') _exit(3);
    ray_buffer_release(&buffer);
    _exit(0);
  }
  ray_buffer_release(&buffer);
  ray_ref_release(ref);
  for (i = 0; i < 8; i++) ray_ref_release(put_filled((char)('b' + i)));
  kit_touch(kit_path("others"));
  check_child(pid);
  for (i = 0; i < 2; i++) { /* both are pinned, so there is no room for the first any more */
    others[i] = put_filled('z');
    CHECK_OK(ray_get(rt, &others[i], 1, -1, &buffer, &err));
    CHECK_EQ(((const char*)buffer.data)[kLarge - 1], 'z');
    if (i == 0) ray_buffer_release(&buffer);
  }
  ray_buffer_release(&buffer);
  ray_ref_release(others[0]);
  ray_ref_release(others[1]);
}

/* ---- in a task ---- */

static void task_calls_in_the_child(ray_task* task) {
  ray_value value = ray_plain("abc", 3, RAY_FMT_RAW);
  ray_task_info info = RAY_TASK_INFO_INIT;
  ray_buffer buffer = RAY_BUFFER_INIT;
  const ray_buffer* args;
  ray_writer* writer;
  ray_layout layout;
  uint32_t gpu;
  REFUSED(ray_task_get_info(task, &info));
  REFUSED(ray_task_take_arg(task, 0, &buffer, NULL));
  REFUSED(ray_task_definition(task, &buffer, NULL));
  REFUSED(ray_task_return(task, 0, &value, NULL));
  REFUSED(ray_task_return_error(task, 0, RAY_TASK_FAILED, ray_cstr("x"), NULL, NULL));
  REFUSED(ray_task_return_open(task, 0, &value, &writer, &layout, NULL));
  REFUSED(ray_task_yield(task, &value, -1, NULL));
  REFUSED(ray_task_await_room(task, -1, NULL));
  REFUSED(ray_task_no_retry(task));
  REFUSED(ray_task_set_self(task, NULL, NULL));
  REFUSED(ray_task_fail(task, ray_cstr("x"), NULL));
  REFUSED(ray_task_finish(task, RAY_OK));
  GIVES(0, ray_task_args(task, &args));
  GIVES(0, ray_task_gpus(task, &gpu, 1));
  GIVES(0, ray_task_accelerators(task, ray_cstr("GPU"), &gpu, 1));
  GIVES(false, ray_task_is_cancelled(task));
  GIVES(true, ray_task_self(task) == NULL && ray_task_runtime(task) == NULL);
}

static ray_code forking(ray_task* task, void* user) {
  ray_runtime* runtime = ray_task_runtime(task);
  pid_t pid = fork();
  int status = -1;
  (void)user;
  if (pid == 0) {
    alarm(60);
    task_calls_in_the_child(task);
    worker_calls_in_the_child(runtime);
    REFUSED(ray_shutdown(runtime, -1, NULL));
    ray_runtime_release(runtime);
    _exit(bad != 0);
  }
  if (waitpid(pid, &status, 0) != pid) status = -2;
  return kit_return_i64(task, 0, status);
}

static void in_a_task(void) {
  int i;
  kit_init();
  for (i = 0; i < 3; i++) CHECK_EQ(kit_take_i64(kit_submit("forking", NULL, 0, NULL)), 0);
}

static void register_all(void) {
  CHECK_OK(ray_register_function(ray_cstr("await_file"), await_file, NULL, &err));
  CHECK_OK(ray_register_function(ray_cstr("add_one"), add_one, NULL, &err));
  CHECK_OK(ray_register_function(ray_cstr("count_up"), count_up, NULL, &err));
  CHECK_OK(ray_register_function(ray_cstr("forking"), forking, NULL, &err));
  CHECK_OK(ray_register_actor(ray_cstr("Counter"), counter_create, NULL, NULL, &err));
  CHECK_OK(ray_register_method(ray_cstr("Counter"), ray_cstr("next"), counter_next, NULL, &err));
}

static const kit_test tests[] = {KIT_TEST(in_a_driver), KIT_TEST(a_cluster_of_its_own),
                                 KIT_TEST(beside_busy_threads), KIT_TEST(beside_a_change_of_the_log_handler),
                                 KIT_TEST(an_inherited_array_does_not_change), KIT_TEST(in_a_task)};
KIT_MAIN(tests, register_all)
