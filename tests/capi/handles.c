/* handles.c -- bad handles, wrong sizes and wrong states of every function: a code and a message,
 * never a crash.
 *
 * A bad handle is NULL, a number that was never handed out, one that was released, or one of
 * another kind. */
#define _POSIX_C_SOURCE 200809L
#include <pthread.h>
#include <stdint.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kit.h"

static ray_code add_one(ray_task* task, void* user) {
  (void)user;
  return kit_return_i64(task, 0, kit_arg_i64(task, 0) + 1);
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

static void register_all(void) {
  CHECK_OK(ray_register_function(ray_cstr("add_one"), add_one, NULL, &err));
  CHECK_OK(ray_register_actor(ray_cstr("Counter"), counter_create, NULL, NULL, &err));
  CHECK_OK(ray_register_method(ray_cstr("Counter"), ray_cstr("next"), counter_next, NULL, &err));
}

/* One of each kind of handle, to be used as the wrong kind. */
static struct {
  ray_function* function;
  ray_ref* ref;
  ray_actor* actor;
  ray_queue* queue;
  ray_stream* stream;
  void *stale_ref, *stale_function, *stale_queue;
} g;

static void make_handles(void) {
  ray_value value = ray_plain("abc", 3, RAY_FMT_RAW);
  ray_ref* ref;
  ray_function* function;
  ray_queue* queue;
  kit_init();
  CHECK_OK(ray_function_get(rt, ray_cstr("add_one"), &g.function, &err));
  CHECK_OK(ray_put(rt, &value, &g.ref, &err));
  CHECK_OK(ray_queue_create(rt, &g.queue, &err));
  g.actor = kit_actor("Counter", NULL);
  CHECK_OK(ray_put(rt, &value, &ref, &err));
  CHECK_OK(ray_function_get(rt, ray_cstr("other"), &function, &err));
  CHECK_OK(ray_queue_create(rt, &queue, &err));
  g.stale_ref = ref;
  g.stale_function = function;
  g.stale_queue = queue;
  ray_ref_release(ref);
  ray_function_release(function);
  ray_queue_release(queue);
}

static void drop_handles(void) {
  ray_function_release(g.function);
  ray_ref_release(g.ref);
  ray_actor_release(g.actor);
  ray_queue_release(g.queue);
}

/* The i-th bad handle where `good` and everything of its kind is left out; NULL-terminated by
 * count. */
enum { kBad = 10 };
static void* bad(int i, const void* good) {
  void* all[kBad];
  all[0] = NULL;
  all[1] = (void*)(uintptr_t)16;
  all[2] = (void*)UINTPTR_MAX;
  all[3] = &g;
  all[4] = g.stale_ref;
  all[5] = g.stale_function;
  all[6] = g.stale_queue;
  all[7] = good == g.ref ? (void*)g.actor : (void*)g.ref;
  all[8] = good == g.function ? (void*)g.queue : (void*)g.function;
  all[9] = good == rt ? (void*)g.queue : (void*)rt;
  return all[i];
}
#define REFUSED(call) CHECK_CODE(RAY_INVALID_ARGUMENT, call)

static void bad_runtime(void) {
  ray_value value = ray_plain("abc", 3, RAY_FMT_RAW);
  ray_bytes bytes = {"k", 1}, none = {NULL, 0};
  ray_str name = ray_cstr("x");
  ray_context context;
  ray_ref* ref = NULL;
  ray_actor* actor = NULL;
  ray_function* function = NULL;
  ray_queue* queue = NULL;
  ray_writer* writer = NULL;
  ray_task* task = NULL;
  ray_layout layout;
  ray_buffer buffer = RAY_BUFFER_INIT;
  ray_id id = RAY_ID_INIT;
  uint8_t ready[1];
  uint32_t limit = 1;
  uint64_t version;
  size_t n;
  int i;
  make_handles();
  context.struct_size = sizeof context;
  for (i = 0; i < kBad; i++) {
    ray_runtime* r = (ray_runtime*)bad(i, rt);
    CHECK_EQ(ray_runtime_mode(r), -1);
    CHECK_EQ(ray_runtime_session_dir(r).size, 0);
    CHECK_EQ(ray_worker_fd(r), -1);
    REFUSED(ray_shutdown(r, 0, &err));
    ray_runtime_release(r);
    REFUSED(ray_runtime_context(r, &context, &err));
    REFUSED(ray_put(r, &value, &ref, &err));
    REFUSED(ray_writer_open(r, &value, &writer, &layout, &err));
    REFUSED(ray_get(r, &g.ref, 1, 0, &buffer, &err));
    REFUSED(ray_wait(r, &g.ref, 1, 1, 0, ready, &n, &err));
    REFUSED(ray_ref_import(r, bytes, &ref, &err));
    REFUSED(ray_queue_create(r, &queue, &err));
    REFUSED(ray_cancel_notify(r, 1, &err));
    REFUSED(ray_function_get(r, name, &function, &err));
    REFUSED(ray_function_define(r, RAY_LANG_PYTHON, name, bytes, &function, &err));
    REFUSED(ray_submit(r, g.function, NULL, 0, NULL, &ref, &err));
    REFUSED(ray_submit_stream(r, g.function, NULL, 0, NULL, &g.stream, &err));
    REFUSED(ray_actor_create(r, g.function, NULL, 0, NULL, &actor, &err));
    REFUSED(ray_actor_find(r, name, name, &actor, &err));
    REFUSED(ray_actor_from_id(r, id, &actor, &err));
    REFUSED(ray_cluster_query(r, ray_cstr("nodes"), none, &buffer, &err));
    REFUSED(ray_kv_get(r, name, bytes, &buffer, &version, &err));
    REFUSED(ray_kv_put(r, name, bytes, bytes, RAY_KV_ANY, &version, &err));
    REFUSED(ray_kv_delete(r, name, bytes, RAY_KV_ANY, &err));
    REFUSED(ray_kv_list(r, name, bytes, &buffer, &err));
    REFUSED(ray_worker_run(r, &err));
    REFUSED(ray_worker_next(r, 0, &task, &err));
    REFUSED(ray_worker_on_interrupt(r, NULL, NULL, &err));
    REFUSED(ray_on_wait(r, NULL, NULL, &err));
    REFUSED(ray_worker_set_groups(r, &limit, 1, &err));
    REFUSED(ray_worker_next_in(r, 0, 0, &task, &err));
    REFUSED(ray_worker_exit(r, name, &err));
    REFUSED(ray_worker_actor(r, &actor, &err));
    REFUSED(ray_worker_limit_streams(r, 1, &err));
    REFUSED(ray_worker_enter(r, NULL, &err));
    CHECK_EQ(ray_worker_group_fd(r, 0), -1);
    CHECK_EQ(ray_worker_poll(r, 0, 0, -1), RAY_INVALID_ARGUMENT);
    REFUSED(ray_define_library(r, name, name, &function, &err));
    REFUSED(ray_define_symbol(r, name, name, name, ray_cstr("i32()"), &function, &err));
    ray_worker_stop(r);
  }
  CHECK(ref == NULL && actor == NULL && function == NULL && queue == NULL && writer == NULL);
  CHECK(buffer.release == NULL);
  CHECK_EQ(kit_take_i64(kit_submit_i64("add_one", 41, 0)), 42); /* the real one is unharmed */
  drop_handles();
}

static void bad_ref(void) {
  ray_value value = ray_plain("abc", 3, RAY_FMT_RAW);
  ray_buffer buffer = RAY_BUFFER_INIT;
  ray_notify notify = RAY_NOTIFY_INIT;
  ray_actor* actor = NULL;
  ray_ref* ref = NULL;
  ray_id zero, id;
  ray_arg arg;
  uint8_t ready[1];
  uint64_t count;
  size_t n = 0;
  int i;
  make_handles();
  memset(&zero, 0, sizeof zero);
  notify.queue = g.queue;
  for (i = 0; i < kBad; i++) {
    ray_ref* r = (ray_ref*)bad(i, g.ref);
    id = ray_ref_id(r);
    CHECK(memcmp(&id, &zero, sizeof id) == 0);
    CHECK(ray_ref_retain(r) == NULL);
    ray_ref_release(r);
    REFUSED(ray_try_get(r, &buffer, &err));
    REFUSED(ray_get(rt, &r, 1, 0, &buffer, &err));
    REFUSED(ray_wait(rt, &r, 1, 1, 0, ready, &n, &err));
    REFUSED(ray_ref_export(r, NULL, &n, &err));
    REFUSED(ray_actor_from_ref(r, &actor, &err));
    REFUSED(ray_on_ready(r, &notify, NULL, &err));
    REFUSED(ray_cancel(r, 0, &err));
    REFUSED(ray_test_ref_count(r, &count, &err));
    value.refs = &r;
    value.n_refs = 1;
    REFUSED(ray_put(rt, &value, &ref, &err));
    if (r != NULL) { /* a NULL ref in an argument means: use the value */
      arg = kit_ref(r);
      REFUSED(ray_submit(rt, g.function, &arg, 1, NULL, &ref, &err));
      CHECK_MESSAGE("argument");
    }
  }
  REFUSED(ray_actor_from_ref(g.ref, &actor, &err)); /* a good reference, to no actor */
  CHECK(actor == NULL && ref == NULL);
  drop_handles();
}

static void bad_others(void) {
  ray_buffer buffer = RAY_BUFFER_INIT;
  ray_notify notify = RAY_NOTIFY_INIT;
  ray_completion completion;
  ray_ref* ref = NULL;
  ray_id zero, id;
  ray_bytes bytes;
  uint32_t format;
  size_t count;
  int i;
  make_handles();
  memset(&zero, 0, sizeof zero);
  for (i = 0; i < kBad; i++) {
    ray_queue* q = (ray_queue*)bad(i, g.queue);
    ray_stream* s = (ray_stream*)bad(i, NULL);
    ray_writer* w = (ray_writer*)bad(i, NULL);
    ray_task* t = (ray_task*)bad(i, NULL);
    ray_error* e = (ray_error*)bad(i, NULL);
    ray_task_info info;
    const ray_buffer* args;
    info.struct_size = sizeof info;
    if ((void*)q == (void*)g.queue) continue;
    CHECK_EQ(ray_queue_fd(q), -1);
    REFUSED(ray_queue_poll(q, &completion, 1, 0, &count, &err));
    ray_queue_wake(q);
    ray_queue_release(q);
    notify.queue = q;
    if (q != NULL) REFUSED(ray_on_ready(g.ref, &notify, NULL, &err));
    REFUSED(ray_stream_next(s, 0, &ref, &err));
    REFUSED(ray_stream_on_next(s, &notify, NULL, &err));
    REFUSED(ray_stream_cancel(s, 0, &err));
    id = ray_stream_id(s);
    CHECK(memcmp(&id, &zero, sizeof id) == 0);
    CHECK(ray_stream_retain(s) == NULL);
    ray_stream_release(s);
    REFUSED(ray_writer_seal(w, &ref, &err));
    CHECK_EQ(ray_writer_abort(w), RAY_INVALID_ARGUMENT);
    CHECK_EQ(ray_task_get_info(t, &info), RAY_INVALID_ARGUMENT);
    CHECK_EQ(ray_task_args(t, &args), 0);
    REFUSED(ray_task_take_arg(t, 0, &buffer, &err));
    REFUSED(ray_task_definition(t, &buffer, &err));
    REFUSED(ray_task_return(t, 0, NULL, &err));
    REFUSED(ray_task_yield(t, NULL, 0, &err));
    CHECK(!ray_task_is_cancelled(t));
    CHECK(ray_task_self(t) == NULL);
    REFUSED(ray_task_set_self(t, NULL, &err));
    CHECK_EQ(ray_task_fail(t, ray_cstr("x"), NULL), RAY_INVALID_ARGUMENT);
    CHECK_EQ(ray_task_finish(t, RAY_OK), RAY_INVALID_ARGUMENT);
    if (e != NULL) {
      CHECK_EQ(ray_error_code(e), RAY_INVALID_ARGUMENT);
      CHECK(ray_error_message(e).size < 100); /* sized, whatever it says */
      bytes = ray_error_payload(e, &format);
      CHECK_EQ(bytes.size, 0);
      CHECK(ray_error_retain(e) == NULL);
      ray_error_release(e);
    }
  }
  CHECK_EQ(ray_error_code(NULL), RAY_INVALID_ARGUMENT);
  drop_handles();
}

static void bad_functions(void) {
  ray_function* function;
  ray_actor* actor;
  ray_ref* ref = NULL;
  int i;
  make_handles();
  for (i = 0; i < kBad; i++) {
    function = (ray_function*)bad(i, g.function);
    CHECK(ray_function_retain(function) == NULL);
    ray_function_release(function);
    REFUSED(ray_submit(rt, function, NULL, 0, NULL, &ref, &err));
    REFUSED(ray_submit_stream(rt, function, NULL, 0, NULL, &g.stream, &err));
    REFUSED(ray_actor_create(rt, function, NULL, 0, NULL, &actor, &err));
  }
  drop_handles();
}

static void bad_actor(void) {
  ray_ref* ref = NULL;
  ray_stream* stream = NULL;
  ray_id zero, id;
  ray_bytes bytes;
  int i;
  make_handles();
  memset(&zero, 0, sizeof zero);
  for (i = 0; i < kBad; i++) {
    ray_actor* a = (ray_actor*)bad(i, g.actor);
    REFUSED(ray_actor_call(a, ray_cstr("next"), NULL, 0, NULL, &ref, &err));
    REFUSED(ray_actor_call_stream(a, ray_cstr("next"), NULL, 0, NULL, &stream, &err));
    REFUSED(ray_actor_kill(a, false, &err));
    REFUSED(ray_actor_metadata(a, &bytes, &err));
    REFUSED(ray_actor_to_ref(a, &ref, &err));
    id = ray_actor_id(a);
    CHECK(memcmp(&id, &zero, sizeof id) == 0);
    CHECK(ray_actor_retain(a) == NULL);
    ray_actor_release(a);
  }
  CHECK(ref == NULL && stream == NULL);
  CHECK_EQ(kit_take_i64(kit_call(g.actor, "next", NULL, 0)), 1);
  drop_handles();
}

/* Outputs and inputs that may not be NULL, and sizes that cannot be. */
static void null_arguments(void) {
  ray_value value = ray_plain("abc", 3, RAY_FMT_RAW), none = ray_plain(NULL, 8, RAY_FMT_RAW);
  ray_buffer buffer = RAY_BUFFER_INIT;
  ray_ref *ref = NULL, *twice[2];
  uint8_t ready[2];
  size_t n = 0;
  char small[1];
  make_handles();
  twice[0] = twice[1] = g.ref;
  REFUSED(ray_put(rt, NULL, &ref, &err));
  REFUSED(ray_put(rt, &value, NULL, &err));
  REFUSED(ray_put(rt, &none, &ref, &err)); /* eight bytes at NULL */
  REFUSED(ray_get(rt, NULL, 1, 0, &buffer, &err));
  REFUSED(ray_get(rt, &g.ref, 1, 0, NULL, &err));
  REFUSED(ray_try_get(g.ref, NULL, &err));
  REFUSED(ray_wait(rt, &g.ref, 1, 2, 0, ready, &n, &err));
  CHECK_MESSAGE("2");
  REFUSED(ray_wait(rt, twice, 2, 1, 0, ready, &n, &err));
  REFUSED(ray_wait(rt, &g.ref, 1, 1, 0, NULL, &n, &err));
  REFUSED(ray_submit(rt, g.function, NULL, 3, NULL, &ref, &err));
  REFUSED(ray_submit(rt, g.function, NULL, 0, NULL, NULL, &err));
  REFUSED(ray_function_get(rt, ray_cstr(NULL), NULL, &err));
  REFUSED(ray_ref_export(g.ref, NULL, NULL, &err));
  n = sizeof small;
  REFUSED(ray_ref_export(g.ref, small, &n, &err)); /* too small; n tells how much it takes */
  CHECK(n > sizeof small);
  REFUSED(ray_init(NULL, NULL, &err));
  REFUSED(ray_cluster_query(rt, ray_cstr("weather"), (ray_bytes){NULL, 0}, &buffer, &err));
  CHECK_MESSAGE("weather");
  CHECK_EQ(ray_get(rt, NULL, 0, 0, NULL, NULL), RAY_OK); /* nothing to get is no mistake */
  drop_handles();
}

/* struct_size: zero and a size smaller than the first version are refused; a longer struct with
 * zeros behind what is known is taken, with anything else it is not. */
static void struct_sizes(void) {
  struct {
    ray_task_options options;
    uint64_t tail[4];
  } future = {RAY_TASK_OPTIONS_INIT, {0, 0, 0, 0}};
  struct {
    ray_actor_options options;
    uint64_t tail[2];
  } actor_future = {RAY_ACTOR_OPTIONS_INIT, {0, 0}};
  struct {
    ray_notify notify;
    uint64_t tail;
  } notify = {RAY_NOTIFY_INIT, 0};
  ray_context context;
  ray_actor* actor = NULL;
  ray_ref* ref = NULL;
  int64_t one = 1;
  ray_arg arg = kit_i64(&one);
  make_handles();
  future.options.struct_size = 0;
  REFUSED(ray_submit(rt, g.function, &arg, 1, &future.options, &ref, &err));
  CHECK_MESSAGE("struct_size");
  future.options.struct_size = 3;
  REFUSED(ray_submit(rt, g.function, &arg, 1, &future.options, &ref, &err));
  future.options.struct_size = sizeof future;
  CHECK_OK(ray_submit(rt, g.function, &arg, 1, &future.options, &ref, &err));
  CHECK_EQ(kit_take_i64(ref), 2);
  future.tail[3] = 1;
  CHECK_CODE(RAY_UNSUPPORTED, ray_submit(rt, g.function, &arg, 1, &future.options, &ref, &err));
  actor_future.options.struct_size = sizeof actor_future;
  actor_future.tail[1] = 1;
  CHECK_CODE(RAY_UNSUPPORTED,
             ray_actor_create(rt, g.function, NULL, 0, &actor_future.options, &actor, &err));
  actor_future.options.struct_size = 1;
  REFUSED(ray_actor_create(rt, g.function, NULL, 0, &actor_future.options, &actor, &err));
  notify.notify.queue = g.queue;
  notify.notify.struct_size = 0;
  REFUSED(ray_on_ready(g.ref, &notify.notify, NULL, &err));
  notify.notify.struct_size = sizeof notify;
  notify.tail = 7;
  CHECK_CODE(RAY_UNSUPPORTED, ray_on_ready(g.ref, &notify.notify, NULL, &err));
  context.struct_size = 0;
  REFUSED(ray_runtime_context(rt, &context, &err));
  drop_handles();
}

/* The struct of a program that was built before the last fields were added. */
static void older_struct(void) {
  ray_runtime_options runtime = kit_options();
  ray_task_options task = RAY_TASK_OPTIONS_INIT;
  ray_runtime* other = NULL;
  ray_function* function;
  ray_ref* ref;
  int64_t one = 1;
  ray_arg arg = kit_i64(&one);
  runtime.struct_size = offsetof(ray_runtime_options, job_name);
  CHECK_OK(ray_init(&runtime, &rt, &err));
  CHECK_OK(ray_function_get(rt, ray_cstr("add_one"), &function, &err));
  task.struct_size = offsetof(ray_task_options, stream_window);
  task.stream_window = 12345; /* behind the size: not read */
  CHECK_OK(ray_submit(rt, function, &arg, 1, &task, &ref, &err));
  CHECK_EQ(kit_take_i64(ref), 2);
  ray_function_release(function);
  runtime.struct_size = 2;
  REFUSED(ray_init(&runtime, &other, &err));
}

/* Before there is a runtime: afterwards nothing can be registered (input.c). */
static void wrong_registrations(void) {
  CHECK_CODE(RAY_ALREADY_EXISTS, ray_register_function(ray_cstr("add_one"), add_one, NULL, &err));
  CHECK_MESSAGE("add_one");
  CHECK_CODE(RAY_ALREADY_EXISTS,
             ray_register_actor(ray_cstr("Counter"), counter_create, NULL, NULL, &err));
  CHECK_CODE(RAY_NOT_FOUND,
             ray_register_method(ray_cstr("Nobody"), ray_cstr("next"), counter_next, NULL, &err));
  REFUSED(ray_register_function(ray_cstr("nothing"), NULL, NULL, &err));
  REFUSED(ray_register_function(ray_cstr(""), add_one, NULL, &err));
}

static void wrong_states(void) {
  ray_task* task = NULL;
  make_handles();
  CHECK_EQ(ray_runtime_mode(rt), RAY_MODE_DRIVER);
  CHECK_CODE(RAY_WRONG_STATE, ray_worker_run(rt, &err));
  CHECK_CODE(RAY_WRONG_STATE, ray_worker_next(rt, 0, &task, &err));
  CHECK_EQ(ray_worker_fd(rt), -1);
  CHECK_EQ(ray_worker_poll(rt, 0, 0, -1), RAY_WRONG_STATE);
  CHECK_CODE(RAY_WRONG_STATE, ray_worker_on_interrupt(rt, NULL, NULL, &err));
  CHECK_CODE(RAY_WRONG_STATE, ray_worker_next_in(rt, 0, 0, &task, &err));
  CHECK_CODE(RAY_WRONG_STATE, ray_worker_exit(rt, ray_cstr("a driver"), &err));
  drop_handles();
}

/* Handles outlive the shutdown and answer RAY_WRONG_STATE; afterwards they can still be released in
 * any order. */
static void after_shutdown(void) {
  ray_value value = ray_plain("abc", 3, RAY_FMT_RAW);
  ray_buffer buffer = RAY_BUFFER_INIT, held = RAY_BUFFER_INIT;
  ray_ref *ref = NULL, *pending;
  ray_runtime* mine;
  ray_bytes bytes;
  make_handles();
  mine = rt;
  pending = kit_submit_i64("add_one", 1, 0);
  CHECK_OK(ray_get(rt, &g.ref, 1, -1, &held, &err));
  CHECK_OK(ray_shutdown(rt, 10000000000ll, &err));
  CHECK_OK(ray_shutdown(rt, 0, &err)); /* again: nothing */
  CHECK_CODE(RAY_WRONG_STATE, ray_put(rt, &value, &ref, &err));
  CHECK_CODE(RAY_WRONG_STATE, ray_submit(rt, g.function, NULL, 0, NULL, &ref, &err));
  CHECK_CODE(RAY_WRONG_STATE, ray_actor_call(g.actor, ray_cstr("next"), NULL, 0, NULL, &ref, &err));
  CHECK_CODE(RAY_WRONG_STATE, ray_actor_metadata(g.actor, &bytes, &err));
  CHECK_CODE(RAY_WRONG_STATE, ray_get(rt, &g.ref, 1, 0, &buffer, &err));
  CHECK_EQ(held.size, 3);
  CHECK(memcmp(held.data, "abc", 3) == 0); /* a buffer stays readable until its release */
  rt = NULL;
  ray_runtime_release(mine);
  CHECK_CODE(RAY_INVALID_ARGUMENT, ray_put(mine, &value, &ref, &err));
  CHECK_CODE(RAY_WRONG_STATE, ray_try_get(g.ref, &buffer, &err));
  CHECK_CODE(RAY_WRONG_STATE, ray_actor_call(g.actor, ray_cstr("next"), NULL, 0, NULL, &ref, &err));
  ray_buffer_release(&held);
  ray_buffer_release(&held);
  ray_ref_release(pending);
  drop_handles();
}

/* A double release of one handle must not take the count of another. */
static void double_release(void) {
  ray_value value = ray_plain("abc", 3, RAY_FMT_RAW);
  ray_buffer buffer = RAY_BUFFER_INIT;
  ray_ref *first, *second;
  int i;
  make_handles();
  CHECK_OK(ray_put(rt, &value, &first, &err));
  ray_ref_release(first);
  for (i = 0; i < 100; i++) {
    CHECK_OK(ray_put(rt, &value, &second, &err));
    ray_ref_release(first); /* stale: nothing happens, whatever slot was used again */
    CHECK_OK(ray_get(rt, &second, 1, -1, &buffer, &err));
    ray_buffer_release(&buffer);
    ray_ref_release(second);
  }
  drop_handles();
}

/* err may be NULL everywhere; so may the error of a call that succeeds. */
static void no_error_wanted(void) {
  make_handles();
  CHECK_EQ(ray_put(rt, NULL, NULL, NULL), RAY_INVALID_ARGUMENT);
  CHECK_EQ(ray_submit(NULL, NULL, NULL, 0, NULL, NULL, NULL), RAY_INVALID_ARGUMENT);
  CHECK_EQ(ray_get(rt, NULL, 1, 0, NULL, NULL), RAY_INVALID_ARGUMENT);
  CHECK_EQ(ray_cancel(NULL, 0, NULL), RAY_INVALID_ARGUMENT);
  drop_handles();
}

/* A runtime does not survive a fork: in the child its calls answer RAY_WRONG_STATE; the parent goes
 * on. */
static void fork_child(void) {
  ray_value value = ray_plain("abc", 3, RAY_FMT_RAW);
  ray_buffer buffer = RAY_BUFFER_INIT;
  ray_ref* ref = NULL;
  int status = -1;
  pid_t pid;
  make_handles();
  pid = fork();
  if (pid == 0) {
    if (ray_put(rt, &value, &ref, NULL) != RAY_WRONG_STATE) _exit(1);
    if (ray_submit(rt, g.function, NULL, 0, NULL, &ref, NULL) != RAY_WRONG_STATE) _exit(2);
    if (ray_get(rt, &g.ref, 1, 0, &buffer, NULL) != RAY_WRONG_STATE) _exit(3);
    if (ray_shutdown(rt, 0, NULL) != RAY_WRONG_STATE) _exit(4);
    _exit(0);
  }
  CHECK(waitpid(pid, &status, 0) == pid);
  CHECK_EQ(status, 0);
  CHECK_EQ(kit_take_i64(kit_submit_i64("add_one", 1, 0)), 2);
  drop_handles();
}

/* ---- other threads ---- */

enum { kMany = 6000 };
static ray_buffer g_buffers[kMany];
static ray_ref* g_refs[kMany];

static void* release_buffers(void* unused) {
  int i;
  (void)unused;
  for (i = 0; i < kMany; i++) ray_buffer_release(&g_buffers[i]);
  return NULL;
}

/* Small values that one thread gets and another one, which ends then, releases: each is its own. */
static void released_elsewhere(void) {
  int round, i;
  kit_init();
  for (i = 0; i < kMany; i++) {
    int64_t n = i;
    ray_value value = ray_plain(&n, sizeof n, RAY_FMT_RAW);
    CHECK_OK(ray_put(rt, &value, &g_refs[i], &err));
  }
  for (round = 0; round < 4; round++) {
    pthread_t thread;
    CHECK_OK(ray_get(rt, g_refs, kMany, 0, g_buffers, &err));
    for (i = 0; i < kMany; i++) {
      int64_t n;
      memcpy(&n, g_buffers[i].data, sizeof n);
      CHECK_EQ(n, i);
    }
    if (round % 2) {
      release_buffers(NULL);
      continue;
    }
    CHECK(pthread_create(&thread, NULL, release_buffers, NULL) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
  }
  for (i = 0; i < kMany; i++) ray_ref_release(g_refs[i]);
}

static const kit_test tests[] = {
    KIT_TEST(bad_runtime),    KIT_TEST(bad_ref),         KIT_TEST(bad_others), KIT_TEST(bad_functions),
    KIT_TEST(bad_actor),      KIT_TEST(null_arguments),  KIT_TEST(struct_sizes),
    KIT_TEST(older_struct),   KIT_TEST(wrong_registrations), KIT_TEST(wrong_states),    KIT_TEST(after_shutdown),
    KIT_TEST(double_release), KIT_TEST(no_error_wanted), KIT_TEST(fork_child),
    KIT_TEST(released_elsewhere)};
KIT_MAIN(tests, register_all)
