/* endings.c -- how things end: shutdown from odd places, waits that it ends, notifications and what belongs to them,
 * cancelled waits, tasks that end themselves, releases too many. */
#define _POSIX_C_SOURCE 200809L
#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kit.h"
#include "remote.h"

static ray_code pass(ray_task* task, void* user) {
  (void)user;
  return kit_return_i64(task, 0, kit_arg_i64(task, 0));
}

static ray_code shut_down(ray_task* task, void* user) {
  (void)user;
  return kit_return_i64(task, 0, ray_shutdown(ray_task_runtime(task), 0, NULL));
}

static ray_code serve(ray_task* task, void* user) {
  (void)user;
  return kit_return_i64(task, 0, ray_worker_run(ray_task_runtime(task), NULL));
}

static ray_code finish_itself(ray_task* task, void* user) {
  (void)user;
  return kit_return_i64(task, 0, ray_task_finish(task, RAY_OK));
}

static ray_code fail_and_return_ok(ray_task* task, void* user) {
  (void)user;
  CHECK_EQ(ray_task_fail(task, ray_cstr("said before"), NULL), RAY_OK);
  return RAY_OK;
}

static ray_code make_any(ray_task* task, void* user) {
  (void)task, (void)user;
  return RAY_OK;
}

static ray_code leave_a_byte(ray_task* task, void* user) {
  char path[512];
  FILE* file = fopen(kit_arg_text(task, 0, path, sizeof path), "a");
  (void)user;
  if (file == NULL) return RAY_TASK_FAILED;
  fputc('x', file);
  fclose(file);
  return RAY_OK;
}

static ray_code return_a_number(ray_task* task, void* user) {
  (void)user;
  return (ray_code)kit_arg_i64(task, 0);
}

/* Appends a byte to a file, and gives results in every way. */
static ray_code give_everything(ray_task* task, void* user) {
  char path[512];
  ray_value value = ray_plain("x", 1, RAY_FMT_RAW);
  ray_layout layout = RAY_LAYOUT_INIT;
  ray_writer* writer;
  FILE* file = fopen(kit_arg_text(task, 0, path, sizeof path), "a");
  ray_code code;
  (void)user;
  CHECK(file != NULL);
  fputc('x', file);
  fclose(file);
  code = ray_task_return(task, 0, &value, NULL);
  if (code == RAY_OK) code = ray_task_return(task, 2, &value, NULL);
  if (code == RAY_OK) code = ray_task_return_error(task, 1, RAY_TASK_FAILED, ray_cstr("x"), NULL, NULL);
  if (code == RAY_OK) code = ray_task_return_open(task, 3, &value, &writer, &layout, NULL);
  if (code == RAY_OK) memset(layout.data, 'x', 1);
  if (code == RAY_OK) code = ray_writer_seal(writer, NULL, NULL);
  return code;
}

/* Waits for a placement group that asks for more than there is. */
static ray_code wait_for_group(ray_runtime* runtime) {
  static const char bundles[] = "\x91\x81\xa3" "CPU\xcd\x03\xe8"; /* [{"CPU": 1000}] */
  ray_group_options options = RAY_GROUP_OPTIONS_INIT;
  ray_id group;
  options.bundles_msgpack.data = bundles;
  options.bundles_msgpack.size = sizeof bundles - 1;
  CHECK_OK(ray_group_create(runtime, &options, &group, &err));
  return ray_group_wait(runtime, &group, -1, NULL);
}

/* Puts until the store is full of what this task reads, so that nothing of it can go to disk. */
static ray_code put_until_full(ray_runtime* runtime) {
  enum { kSize = 8 << 20, kMost = 32 };
  static uint8_t bytes[kSize];
  ray_value value = ray_plain(bytes, kSize, RAY_FMT_RAW);
  ray_buffer held[kMost];
  ray_ref* refs[kMost];
  ray_code code = RAY_OK;
  int n = 0, i;
  while (n < kMost && code == RAY_OK) {
    code = ray_put(runtime, &value, &refs[n], NULL);
    if (code != RAY_OK) break;
    code = ray_try_get(refs[n], &held[n], NULL);
    if (code != RAY_OK) ray_ref_release(refs[n]);
    else n++;
  }
  for (i = 0; i < n; i++) {
    ray_buffer_release(&held[i]);
    ray_ref_release(refs[i]);
  }
  return code;
}

/* Waits in one of the calls that wait, for what never comes; tells by a file when it begins. */
static ray_code wait_in(ray_task* task, void* user) {
  char how[512], path[512];
  ray_runtime* runtime = ray_task_runtime(task);
  ray_arg arg = kit_text("/never/there");
  ray_buffer buffer = RAY_BUFFER_INIT;
  ray_completion completion;
  ray_function* function;
  ray_stream* stream;
  ray_queue* queue;
  ray_code code = RAY_INTERNAL;
  ray_ref *ref, *item;
  uint8_t ready;
  size_t n;
  (void)user;
  kit_arg_text(task, 0, how, sizeof how);
  CHECK_OK(ray_function_get(runtime, ray_cstr("await_file"), &function, &err));
  CHECK_OK(ray_submit(runtime, function, &arg, 1, NULL, &ref, &err));
  CHECK_OK(ray_submit_stream(runtime, function, &arg, 1, NULL, &stream, &err));
  CHECK_OK(ray_queue_create(runtime, &queue, &err));
  kit_touch(kit_arg_text(task, 1, path, sizeof path));
  if (strcmp(how, "get") == 0) code = ray_get(runtime, &ref, 1, -1, &buffer, NULL);
  if (strcmp(how, "wait") == 0) code = ray_wait(runtime, &ref, 1, 1, -1, &ready, &n, NULL);
  if (strcmp(how, "wait_any") == 0) code = ray_wait_any(runtime, &ref, 1, NULL, 0, 1, -1, &ready, NULL, NULL);
  if (strcmp(how, "stream") == 0) code = ray_stream_next(stream, -1, &item, NULL);
  if (strcmp(how, "poll") == 0) code = ray_queue_poll(queue, &completion, 1, -1, &n, NULL);
  if (strcmp(how, "group") == 0) code = wait_for_group(runtime);
  if (strcmp(how, "put") == 0) code = put_until_full(runtime);
  CHECK_OK(ray_cancel(ref, 0, &err));
  CHECK_OK(ray_stream_cancel(stream, 0, &err));
  ray_ref_release(ref);
  ray_stream_release(stream);
  ray_queue_release(queue);
  ray_function_release(function);
  return code;
}

static void register_all(void) {
  CHECK_OK(ray_register_actor(ray_cstr("Any"), make_any, NULL, NULL, &err));
  static const remote_function all[] = {{"await_file", await_file},       {"pass", pass},
             {"shut_down", shut_down},         {"serve", serve},
             {"finish_itself", finish_itself}, {"fail_and_return_ok", fail_and_return_ok},
             {"return_a_number", return_a_number}, {"give_everything", give_everything},
             {"wait_in", wait_in},             {"leave_a_byte", leave_a_byte}};
  remote_register(all, sizeof all / sizeof all[0]);
}

/* ---- shutdown ---- */

typedef struct calls {
  ray_runtime* runtime;
  volatile int n, freed;
  volatile ray_code code, shutdown_code;
  bool release;
} calls;

static void on_done(const ray_completion* completion, void* user) {
  calls* c = (calls*)user;
  c->code = completion->code;
  ray_ref_release(completion->ref);
  ray_error_release(completion->error);
  if (c->runtime && c->release) ray_runtime_release(c->runtime);
  if (c->runtime && !c->release) c->shutdown_code = ray_shutdown(c->runtime, -1, NULL);
  c->n++;
}

static void on_free(void* user) { ((calls*)user)->freed++; }

static bool was_called(void* user) { return ((calls*)user)->n > 0; }
static bool was_freed(void* user) { return ((calls*)user)->freed > 0; }
static bool is_gone(void* path) { return !kit_exists((const char*)path); }

static ray_notify notify_calls(calls* c) {
  ray_notify notify = RAY_NOTIFY_INIT;
  notify.fn = on_done;
  notify.user = c;
  notify.free_user = on_free;
  return notify;
}

static void shutdown_in_a_callback(void) {
  static calls c, inside;
  ray_notify notify = notify_calls(&c);
  int64_t one = 1;
  ray_arg arg = kit_i64(&one);
  ray_ref* ref;
  kit_init();
  c.runtime = inside.runtime = rt;
  ref = kit_submit("pass", &arg, 1, NULL);
  CHECK_OK(ray_on_ready(ref, &notify, NULL, &err));
  CHECK_UNTIL(was_called, &c);
  CHECK_EQ(c.shutdown_code, RAY_WRONG_STATE);
  notify.user = &inside; /* also when it runs inside the call */
  notify.flags = RAY_NOTIFY_MAY_RUN_INLINE;
  CHECK_OK(ray_on_ready(ref, &notify, NULL, &err));
  CHECK_UNTIL(was_called, &inside);
  CHECK_EQ(inside.shutdown_code, RAY_WRONG_STATE);
  CHECK_EQ(kit_take_i64(ref), 1); /* nothing has happened */
}

static void release_in_a_callback(void) {
  static calls c;
  char socket[600];
  ray_notify notify = notify_calls(&c);
  ray_ref* ref;
  kit_init();
  snprintf(socket, sizeof socket, "%s/node.sock", ray_runtime_session_dir(rt).data);
  CHECK(kit_exists(socket));
  c.runtime = rt;
  c.release = true;
  ref = waiting_for("go");
  CHECK_OK(ray_on_ready(ref, &notify, NULL, &err));
  kit_touch(kit_path("go"));
  CHECK_UNTIL(was_called, &c);
  CHECK_UNTIL(is_gone, socket);
  ray_ref_release(ref);
  CHECK_EQ(ray_runtime_mode(rt), -1);
  rt = NULL;
}

static void shutdown_in_a_task(void) {
  int64_t one = 1;
  ray_arg arg = kit_i64(&one);
  kit_init();
  CHECK_EQ(kit_take_i64(kit_submit("shut_down", NULL, 0, NULL)), RAY_WRONG_STATE);
  CHECK_EQ(kit_take_i64(kit_submit("serve", NULL, 0, NULL)), RAY_WRONG_STATE);
  CHECK_EQ(kit_take_i64(kit_submit("pass", &arg, 1, NULL)), 1);
}

typedef struct poller {
  ray_queue* queue;
  volatile bool began;
  ray_code code;
  size_t n;
} poller;

static void* poll_for_ever(void* user) {
  poller* p = (poller*)user;
  ray_completion completion;
  p->began = true;
  p->code = ray_queue_poll(p->queue, &completion, 1, -1, &p->n, NULL);
  return NULL;
}

/* Threads in ray_queue_poll leave at a release of their queue, and at a shutdown. */
static void pollers_leave(void) {
  ray_completion completion;
  size_t n;
  poller p[2];
  pthread_t threads[2];
  int round, i;
  kit_init();
  for (round = 0; round < 2; round++) {
    CHECK_OK(ray_queue_create(rt, &p[0].queue, &err));
    for (i = 0; i < 2; i++) {
      p[i].queue = p[0].queue;
      p[i].began = false;
      CHECK_EQ(pthread_create(&threads[i], NULL, poll_for_ever, &p[i]), 0);
      while (!p[i].began) kit_pause();
    }
    for (i = 0; i < 20; i++) kit_pause(); /* they sleep, most likely; if not they must leave as well */
    if (round == 0)
      ray_queue_release(p[0].queue);
    else
      CHECK_OK(ray_shutdown(rt, 0, &err));
    for (i = 0; i < 2; i++) {
      pthread_join(threads[i], NULL);
      CHECK(p[i].code == RAY_WRONG_STATE || (round == 0 && p[i].code == RAY_INVALID_ARGUMENT));
      CHECK_EQ(p[i].n, 0);
    }
  }
  CHECK_CODE(RAY_WRONG_STATE, ray_queue_poll(p[0].queue, &completion, 1, -1, &n, &err));
  ray_queue_release(p[0].queue);
}

static void* get_for_ever(void* user) {
  ray_ref* ref = (ray_ref*)user;
  ray_buffer buffer = RAY_BUFFER_INIT;
  return (void*)(intptr_t)ray_get(rt, &ref, 1, -1, &buffer, NULL);
}

static void shutdown_ends_waits_and_notifies_once(void) {
  static calls c, late;
  ray_notify notify = notify_calls(&c), later = notify_calls(&late);
  ray_completion got;
  ray_stream* stream;
  ray_function* function;
  ray_queue* queue;
  ray_ref *ref, *done;
  pthread_t thread;
  void* code;
  size_t n;
  ray_arg arg;
  int64_t one = 1;
  kit_init();
  arg = kit_i64(&one);
  done = kit_submit("pass", &arg, 1, NULL);
  CHECK_EQ(kit_get_i64(done), 1);
  ref = waiting_for("never");
  arg = kit_text(kit_path("never"));
  CHECK_OK(ray_function_get(rt, ray_cstr("await_file"), &function, &err));
  CHECK_OK(ray_submit_stream(rt, function, &arg, 1, NULL, &stream, &err));
  CHECK_OK(ray_queue_create(rt, &queue, &err));
  CHECK_OK(ray_on_ready(ref, &notify, NULL, &err));
  notify.fn = NULL;
  notify.queue = queue;
  notify.free_user = NULL;
  notify.tag = 5;
  CHECK_OK(ray_on_ready(ref, &notify, NULL, &err));
  CHECK_EQ(pthread_create(&thread, NULL, get_for_ever, ref), 0);
  CHECK_OK(ray_shutdown(rt, 0, &err));
  pthread_join(thread, &code);
  CHECK((intptr_t)code == RAY_CANCELLED || (intptr_t)code == RAY_WRONG_STATE);
  CHECK(c.n == 1 && c.code == RAY_CANCELLED && c.freed == 1);
  CHECK_OK(ray_queue_poll(queue, &got, 1, -1, &n, &err));
  CHECK(n == 1 && got.tag == 5 && got.code == RAY_CANCELLED);
  ray_ref_release(got.ref);
  ray_error_release(got.error);
  CHECK_CODE(RAY_WRONG_STATE, ray_queue_poll(queue, &got, 1, -1, &n, &err));
  CHECK_CODE(RAY_WRONG_STATE, ray_on_ready(ref, &later, NULL, &err));
  CHECK_CODE(RAY_WRONG_STATE, ray_on_ready(done, &later, NULL, &err));
  CHECK_CODE(RAY_WRONG_STATE, ray_on_ready(done, &notify, NULL, &err));
  CHECK_CODE(RAY_WRONG_STATE, ray_stream_on_next(stream, &later, NULL, &err));
  CHECK(late.n == 0 && late.freed == 0); /* the calls failed: it is still the caller's */
  ray_stream_release(stream);
  ray_queue_release(queue);
  ray_function_release(function);
  ray_ref_release(done);
  ray_ref_release(ref);
  CHECK(c.n == 1 && c.freed == 1);
}

static void user_is_freed_once(void) {
  static calls delivered, cancelled, dropped, queued;
  ray_notify notify = notify_calls(&delivered);
  ray_completion got;
  ray_queue* queue;
  uint64_t token;
  ray_ref* ref;
  kit_init();
  ref = waiting_for("go");
  CHECK_OK(ray_queue_create(rt, &queue, &err));
  CHECK_OK(ray_on_ready(ref, &notify, NULL, &err));
  notify.user = &cancelled;
  CHECK_OK(ray_on_ready(ref, &notify, &token, &err));
  CHECK_OK(ray_cancel_notify(rt, token, &err));
  CHECK(cancelled.freed == 1 && cancelled.n == 0);
  notify.fn = NULL;
  notify.queue = queue;
  notify.user = &dropped;
  CHECK_OK(ray_on_ready(ref, &notify, NULL, &err));
  ray_queue_release(queue);
  CHECK_EQ(dropped.freed, 1);
  CHECK_OK(ray_queue_create(rt, &queue, &err));
  notify.queue = queue;
  notify.user = &queued;
  CHECK_OK(ray_on_ready(ref, &notify, NULL, &err));
  CHECK_EQ(queued.freed, 0);
  kit_touch(kit_path("go"));
  CHECK_EQ(kit_poll(queue, &got, 1), 1);
  ray_ref_release(got.ref);
  CHECK_UNTIL(was_freed, &queued);
  CHECK_UNTIL(was_freed, &delivered);
  CHECK_EQ(delivered.n, 1);
  ray_ref_release(ref);
  ray_queue_release(queue);
}

/* ---- cancelled waits ---- */

static void cancelled_waits(void) {
  static const char* const ways[] = {"get", "wait", "wait_any", "stream", "poll", "group", "put"};
  size_t i;
  kit_init();
  for (i = 0; i < sizeof ways / sizeof ways[0]; i++) {
    ray_arg args[2];
    ray_ref* ref;
    args[0] = kit_text(ways[i]);
    args[1] = kit_text(kit_path(ways[i]));
    ref = kit_submit("wait_in", args, 2, NULL);
    kit_await(kit_path(ways[i]));
    CHECK_OK(ray_cancel(ref, 0, &err));
    CHECK_EQ(kit_get_code(ref), RAY_CANCELLED);
    ray_ref_release(ref);
  }
}

/* ---- ends of tasks ---- */

static void a_function_does_not_finish_its_task(void) {
  kit_init();
  CHECK_EQ(kit_take_i64(kit_submit("finish_itself", NULL, 0, NULL)), RAY_WRONG_STATE);
  CHECK_EQ(kit_take_i64(kit_submit("finish_itself", NULL, 0, NULL)), RAY_WRONG_STATE);
}

static void what_a_task_failed_with_stands(void) {
  ray_ref* ref;
  kit_init();
  ref = kit_submit("fail_and_return_ok", NULL, 0, NULL);
  CHECK_EQ(kit_get_code(ref), RAY_TASK_FAILED);
  CHECK_MESSAGE("said before");
  CHECK_MESSAGE("attempt 1");
  CHECK_MESSAGE("node ");
  ray_ref_release(ref);
}

static void codes_of_functions(void) {
  static const struct {
    int64_t returned;
    ray_code seen;
  } all[] = {{RAY_TASK_FAILED, RAY_TASK_FAILED}, {RAY_OBJECT_LOST, RAY_OBJECT_LOST}, {-7, RAY_TASK_FAILED},
             {7777, RAY_TASK_FAILED},            {RAY_STREAM_END, RAY_TASK_FAILED},  {RAY_NOT_FOUND, RAY_TASK_FAILED},
             {RAY_CANCELLED, RAY_CANCELLED}};
  size_t i;
  kit_init();
  for (i = 0; i < sizeof all / sizeof all[0]; i++) {
    ray_arg arg = kit_i64(&all[i].returned);
    ray_ref* ref = kit_submit("return_a_number", &arg, 1, NULL);
    CHECK_EQ(kit_get_code(ref), all[i].seen);
    ray_ref_release(ref);
  }
}

static bool has_run(void* path) {
  FILE* file = fopen((const char*)path, "r");
  bool any = file != NULL && fgetc(file) == 'x';
  if (file) fclose(file);
  return any;
}

/* A result that nobody asked for is dropped: the task is done, and is not tried again. */
static void results_that_nobody_asked_for(void) {
  ray_task_options options = RAY_TASK_OPTIONS_INIT;
  ray_function* function;
  const char* path;
  ray_arg arg;
  FILE* file;
  int n = 0;
  kit_init();
  path = kit_path("runs");
  arg = kit_text(path);
  options.num_returns = 0;
  options.flags = RAY_TASK_RETRY_ON_ERROR;
  CHECK_OK(ray_function_get(rt, ray_cstr("give_everything"), &function, &err));
  CHECK_OK(ray_submit(rt, function, &arg, 1, &options, NULL, &err));
  CHECK_UNTIL(has_run, (void*)path);
  CHECK_OK(ray_shutdown(rt, -1, &err)); /* waits for retries too */
  file = fopen(path, "r");
  while (fgetc(file) != EOF) n++;
  fclose(file);
  CHECK_EQ(n, 1);
  ray_function_release(function);
}

static bool all_have_run(void* path) {
  struct stat st;
  return stat((const char*)path, &st) == 0 && st.st_size == 30000;
}

/* Nobody waits for anything, so no caller makes room in the rings: the tasks run all the same, and are forgotten. */
static void tasks_that_nobody_waits_for(void) {
  ray_task_options options = RAY_TASK_OPTIONS_INIT;
  ray_function* function;
  const char* path;
  ray_arg arg;
  int i;
  kit_init();
  path = kit_path("bytes");
  arg = kit_text(path);
  options.num_returns = 0;
  CHECK_OK(ray_function_get(rt, ray_cstr("leave_a_byte"), &function, &err));
  for (i = 0; i < 30000; i++) CHECK_OK(ray_submit(rt, function, &arg, 1, &options, NULL, &err));
  CHECK_UNTIL(all_have_run, (void*)path);
  ray_function_release(function);
}

static void unknown_functions_have_a_code(void) {
  ray_actor* actor;
  ray_ref* ref;
  kit_init();
  ref = kit_submit("nowhere", NULL, 0, NULL);
  CHECK_EQ(kit_get_code(ref), RAY_UNKNOWN_FUNCTION);
  CHECK_MESSAGE("nowhere");
  ray_ref_release(ref);
  actor = kit_actor("Nowhere", NULL);
  ref = kit_call(actor, "x", NULL, 0);
  CHECK_EQ(kit_get_code(ref), RAY_ACTOR_DIED);
  CHECK_MESSAGE("Nowhere");
  ray_ref_release(ref);
  ray_actor_release(actor);
}

/* ---- releases too many ---- */

static void too_many_releases_take_nothing(void) {
  enum { kN = 50 };
  static calls c;
  ray_notify notify = notify_calls(&c);
  ray_ref *ref, *dependent, *innocent[kN];
  ray_arg arg;
  int i, k;
  kit_init();
  for (k = 0; k < 10; k++) { /* of tasks that are not done: their entries come free later */
    ref = waiting_for("first");
    ray_ref_release(ref);
    ray_ref_release(ref);
  }
  for (i = 0; i < kN; i++) {
    int64_t number = i;
    ray_value value = ray_plain(&number, sizeof number, RAY_FMT_RAW);
    CHECK_OK(ray_put(rt, &value, &innocent[i], &err));
  }
  kit_touch(kit_path("first"));
  ref = waiting_for("go"); /* an argument, and waited for */
  arg = kit_ref(ref);
  dependent = kit_submit("pass", &arg, 1, NULL);
  CHECK_OK(ray_on_ready(ref, &notify, NULL, &err));
  for (k = 0; k < 5; k++) ray_ref_release(ref);
  CHECK(ray_ref_retain(ref) == NULL); /* what the runtime holds is not the caller's */
  kit_touch(kit_path("go"));
  CHECK_EQ(kit_take_i64(dependent), 7);
  CHECK_UNTIL(was_called, &c);
  CHECK_EQ(c.code, RAY_OK);
  for (i = 0; i < kN; i++) CHECK_EQ(kit_take_i64(innocent[i]), i);
}

/* A second client of the node of rt. */
static ray_runtime* join_again(void) {
  ray_runtime_options options = RAY_RUNTIME_OPTIONS_INIT;
  ray_runtime* other;
  options.address = ray_runtime_session_dir(rt);
  CHECK_OK(ray_init(&options, &other, &err));
  return other;
}

enum { kLarge = 24 << 20 };
static ray_writer* open_large(ray_runtime* runtime, ray_layout* layout) {
  ray_value shape = RAY_VALUE_INIT;
  ray_writer* writer = NULL;
  shape.size = kLarge;
  CHECK_OK(ray_writer_open(runtime, &shape, &writer, layout, &err));
  return writer;
}

static bool note_and_go_on(void* waits) {
  *(volatile bool*)waits = true;
  return false;
}

static void* put_large(void* runtime) {
  static uint8_t large[kLarge];
  const ray_value value = ray_plain(large, kLarge, RAY_FMT_RAW);
  ray_ref* ref;
  return (void*)(intptr_t)ray_put((ray_runtime*)runtime, &value, &ref, NULL);
}

static void shutdown_while_a_put_waits(void) {
  static volatile bool waits;
  ray_runtime* other;
  ray_writer* writers[2];
  ray_layout layout = RAY_LAYOUT_INIT;
  pthread_t thread;
  void* code;
  int i;
  kit_init();
  other = join_again();
  for (i = 0; i < 2; i++) writers[i] = open_large(rt, &layout); /* there is no room for a third */
  CHECK_OK(ray_on_wait(other, note_and_go_on, (void*)&waits, &err));
  CHECK_EQ(pthread_create(&thread, NULL, put_large, other), 0);
  while (!waits) kit_pause();
  CHECK_OK(ray_shutdown(other, 0, &err));
  pthread_join(thread, &code);
  CHECK_EQ((intptr_t)code, RAY_CANCELLED);
  ray_runtime_release(other);
  for (i = 0; i < 2; i++) CHECK_EQ(ray_writer_abort(writers[i]), RAY_OK);
}

static void a_layout_outlives_the_shutdown(void) {
  ray_runtime* other;
  ray_writer* writer;
  ray_layout layout = RAY_LAYOUT_INIT;
  ray_ref* ref;
  kit_init();
  other = join_again();
  writer = open_large(other, &layout);
  CHECK_OK(ray_shutdown(other, 0, &err));
  memset(layout.data, 1, kLarge);
  CHECK_CODE(RAY_WRONG_STATE, ray_writer_seal(writer, &ref, &err));
  ray_runtime_release(other);
}

static void* kill_soon(void* pid) {
  int i;
  for (i = 0; i < 300; i++) kit_pause();
  kill((pid_t)(intptr_t)pid, SIGKILL);
  return NULL;
}

/* The node dies between the look whether it lives and the task's place in a queue. */
static void submitted_as_the_node_dies(void) {
  const int64_t one = 1;
  ray_arg args[2];
  ray_buffer buffer = RAY_BUFFER_INIT;
  ray_function* function;
  ray_ref* ref;
  pthread_t thread;
  ray_code code;
  kit_init();
  args[0] = args[1] = kit_i64(&one);
  CHECK_EQ(kit_take_i64(kit_submit("pass", args, 1, NULL)), 1);
  CHECK_OK(ray_function_get(rt, ray_cstr("pass"), &function, &err));
  CHECK_EQ(pthread_create(&thread, NULL, kill_soon, (void*)(intptr_t)kit_daemon_pid()), 0);
  CHECK_OK(ray_test_fault(ray_cstr("client.submit"), ray_cstr("delay:2000ms"), &err));
  code = ray_submit(rt, function, args, 1, NULL, &ref, NULL);
  pthread_join(thread, NULL);
  if (code == RAY_OK) code = ray_get(rt, &ref, 1, 20000000000, &buffer, NULL);
  CHECK_EQ(code, RAY_NODE_DIED);
}

/* Writes to the daemon until it is told to stop, with the lock of the runtime. */
typedef struct talker {
  ray_id id;
  volatile long n;
  volatile bool over;
} talker;

static void* talk(void* user) {
  talker* t = (talker*)user;
  ray_actor* actor;
  while (!t->over) {
    memcpy(&t->id, (const void*)&t->n, sizeof t->n);
    if (ray_actor_from_id(rt, t->id, &actor, NULL) != RAY_OK) break;
    t->n++;
  }
  t->over = true;
  return NULL;
}

/* The daemon is stopped, and a thread waits for room in the ring to it. */
static void fill_the_ring(talker* t, pthread_t* thread, long* daemon) {
  ray_actor_options options = RAY_ACTOR_OPTIONS_INIT;
  ray_actor* actor;
  long before;
  int i;
  options.lifetime = RAY_LIFETIME_DETACHED; /* its end says nothing */
  actor = kit_actor("Any", &options);
  t->id = ray_actor_id(actor);
  *daemon = kit_daemon_pid();
  CHECK_EQ(kill((pid_t)*daemon, SIGSTOP), 0);
  kit_kill_at_exit(*daemon);
  CHECK_EQ(pthread_create(thread, NULL, talk, t), 0);
  do {
    before = t->n;
    for (i = 0; i < 500; i++) kit_pause();
  } while (before == 0 || t->n != before);
}

/* Its lock keeps nobody from seeing that the daemon is dead. */
static void no_room_as_the_node_dies(void) {
  static talker t;
  const int64_t one = 1;
  ray_value value = ray_plain(&one, sizeof one, RAY_FMT_RAW);
  pthread_t thread;
  ray_ref* ref;
  long daemon;
  kit_init();
  fill_the_ring(&t, &thread, &daemon);
  CHECK_EQ(kill((pid_t)daemon, SIGKILL), 0);
  CHECK_EQ(pthread_join(thread, NULL), 0);
  CHECK_CODE(RAY_NODE_DIED, ray_put(rt, &value, &ref, &err));
}

/* Nor does it keep the process from leaving. */
static void no_room_and_a_shutdown(void) {
  static talker t;
  pthread_t thread;
  long daemon;
  kit_init();
  fill_the_ring(&t, &thread, &daemon);
  CHECK_OK(ray_shutdown(rt, 0, &err));
  CHECK_EQ(pthread_join(thread, NULL), 0);
}

static const kit_test tests[] = {KIT_TEST(shutdown_in_a_callback),
                                 KIT_TEST(shutdown_while_a_put_waits),
                                 KIT_TEST(a_layout_outlives_the_shutdown),
                                 KIT_TEST(submitted_as_the_node_dies),
                                 KIT_TEST(no_room_as_the_node_dies),
                                 KIT_TEST(no_room_and_a_shutdown),
                                 KIT_TEST(release_in_a_callback),
                                 KIT_TEST(shutdown_in_a_task),
                                 KIT_TEST(pollers_leave),
                                 KIT_TEST(shutdown_ends_waits_and_notifies_once),
                                 KIT_TEST(user_is_freed_once),
                                 KIT_TEST(cancelled_waits),
                                 KIT_TEST(a_function_does_not_finish_its_task),
                                 KIT_TEST(what_a_task_failed_with_stands),
                                 KIT_TEST(codes_of_functions),
                                 KIT_TEST(results_that_nobody_asked_for),
                                 KIT_TEST(tasks_that_nobody_waits_for),
                                 KIT_TEST(unknown_functions_have_a_code),
                                 KIT_TEST(too_many_releases_take_nothing)};
KIT_MAIN(tests, register_all)
