/* puller.c -- a worker as a binding writes one: it pulls its tasks itself with ray_worker_next. */
#define _POSIX_C_SOURCE 200809L
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>

#include "kit.h"

/* ---- the worker: an interpreter for functions whose definition is one word ---- */

static volatile sig_atomic_t g_interrupted;

static void on_interrupt(ray_task* task, void* user) {
  (void)user;
  if (task != NULL) g_interrupted = 1;
}

static ray_code run_echo(ray_task* task) {
  ray_value value = RAY_VALUE_INIT;
  const ray_buffer* args;
  CHECK_EQ(ray_task_args(task, &args), 1);
  value.data = args[0].data;
  value.size = (size_t)args[0].size;
  value.format = args[0].format;
  return ray_task_return(task, 0, &value, NULL);
}

static ray_code run_open(ray_task* task) { /* a result straight in shared memory */
  ray_value shape = ray_plain(NULL, 1 << 20, RAY_FMT_USER + 9);
  ray_layout layout;
  ray_writer* writer;
  CHECK_OK(ray_task_return_open(task, 0, &shape, &writer, &layout, &err));
  memset(layout.data, 'w', 1 << 20);
  CHECK_OK(ray_writer_seal(writer, NULL, &err));
  return RAY_OK;
}

static ray_code run_interruptible(ray_task* task) { /* only the interrupt ends it */
  char path[512];
  g_interrupted = 0;
  kit_touch(kit_arg_text(task, 0, path, sizeof path));
  while (!g_interrupted) kit_pause();
  return ray_task_is_cancelled(task) ? RAY_CANCELLED : RAY_TASK_FAILED;
}

static ray_code run_misuse(ray_task* task) { /* what a task may not do */
  ray_value value = ray_plain("x", 1, RAY_FMT_RAW);
  ray_buffer buffer = RAY_BUFFER_INIT;
  ray_task_info info;
  CHECK_CODE(RAY_INVALID_ARGUMENT, ray_task_return(task, 5, &value, &err)); /* no such result */
  CHECK_OK(ray_task_return(task, 0, &value, &err));
  CHECK_CODE(RAY_WRONG_STATE, ray_task_return(task, 0, &value, &err)); /* given already */
  CHECK_CODE(RAY_WRONG_STATE, ray_task_yield(task, &value, 0, &err));  /* not a generator */
  CHECK_CODE(RAY_INVALID_ARGUMENT, ray_task_take_arg(task, 9, &buffer, &err));
  CHECK_CODE(RAY_WRONG_STATE, ray_task_set_self(task, &info, &err)); /* not an actor */
  CHECK(ray_task_self(task) == NULL);
  info.struct_size = 1;
  CHECK_EQ(ray_task_get_info(task, &info), RAY_INVALID_ARGUMENT);
  return RAY_OK;
}

static ray_runtime* here; /* this worker's */
static int grouped;       /* it is an actor with concurrency groups */
static int threaded;      /* it is an actor that several threads serve */
static int aside;         /* it is an actor whose calls other threads finish than the one that takes them */

static ray_code run(ray_task* task) {
  ray_buffer definition = RAY_BUFFER_INIT;
  ray_task_info info;
  char word[32];
  memset(&info, 0, sizeof info);
  info.struct_size = sizeof info;
  CHECK_EQ(ray_task_get_info(task, &info), RAY_OK);
  CHECK(info.function_key != 0);
  CHECK_OK(ray_task_definition(task, &definition, &err));
  CHECK(definition.size < sizeof word);
  memcpy(word, definition.data, (size_t)definition.size);
  word[definition.size] = 0;
  ray_buffer_release(&definition);
  if (strcmp(word, "echo") == 0) return run_echo(task);
  if (strcmp(word, "open") == 0) return run_open(task);
  if (strcmp(word, "pid") == 0) return kit_return_i64(task, 0, (int64_t)getpid());
  if (strcmp(word, "interruptible") == 0) return run_interruptible(task);
  if (strcmp(word, "misuse") == 0) return run_misuse(task);
  if (strcmp(word, "grouped") == 0) {
    const uint32_t limits[2] = {1, 1}, none = 0;
    ray_actor* self;
    CHECK_CODE(RAY_INVALID_ARGUMENT, ray_worker_set_groups(here, &none, 1, &err));
    CHECK_OK(ray_worker_set_groups(here, limits, 2, &err));
    CHECK_CODE(RAY_WRONG_STATE, ray_worker_set_groups(here, limits, 2, &err)); /* once */
    CHECK_OK(ray_worker_actor(here, &self, &err));
    CHECK(memcmp(ray_actor_id(self).b, info.actor.b, RAY_ID_SIZE) == 0);
    ray_actor_release(self);
    grouped = 1;
    return RAY_OK;
  }
  if (strcmp(word, "threaded") == 0) return threaded = 1, RAY_OK;
  if (strcmp(word, "aside") == 0) return aside = 1, RAY_OK;
  if (strcmp(word, "aside in a group") == 0) {
    const uint32_t limit = 1;
    CHECK_OK(ray_worker_set_groups(here, &limit, 1, &err));
    return aside = 1, RAY_OK;
  }
  if (strcmp(word, "class") == 0 && info.kind == RAY_KIND_ACTOR_CREATE) return RAY_OK;
  if (strcmp(word, "class") == 0) {
    char text[64];
    snprintf(text, sizeof text, "%.*s", (int)info.method.size, info.method.data);
    return kit_return_text(task, text);
  }
  ray_task_fail(task, ray_cstr("unknown word"), NULL);
  return RAY_TASK_FAILED;
}

/* An actor with two groups: it keeps one call of group 1 until a call of group 0 says "release". */
static void serve_groups(void) {
  struct pollfd p[2];
  ray_task *held = NULL, *task = NULL;
  ray_task_info info;
  ray_code code;
  int i;
  for (i = 0; i < 2; i++) {
    p[i].fd = ray_worker_group_fd(here, (uint32_t)i);
    p[i].events = POLLIN;
    CHECK(p[i].fd >= 0);
  }
  CHECK_EQ(ray_worker_group_fd(here, 2), -1);
  CHECK_CODE(RAY_INVALID_ARGUMENT, ray_worker_next_in(here, 2, 0, &task, &err));
  CHECK_EQ(ray_worker_poll(here, 2, 0, -1), RAY_INVALID_ARGUMENT);
  for (;;) {
    kit_clear();
    code = ray_worker_next_in(here, 0, 0, &task, &err);
    if (code == RAY_TIMED_OUT) {
      if (ray_worker_poll(here, 0, -1, -1) == RAY_OK) continue;
      CHECK(poll(p, 1, -1) == 1); /* group 1 is asked when group 0 says so */
      continue;
    }
    if (code != RAY_OK) break;
    memset(&info, 0, sizeof info);
    info.struct_size = sizeof info;
    CHECK_EQ(ray_task_get_info(task, &info), RAY_OK);
    if (info.method.size == 5) { /* leave */
      CHECK_OK(ray_worker_exit(here, ray_cstr("it had enough"), &err));
      ray_task_fail(task, ray_cstr("left: it had enough"), NULL);
      CHECK_EQ(ray_task_finish(task, RAY_ACTOR_DIED), RAY_OK);
      continue;
    }
    kit_clear();
    CHECK_OK(ray_worker_next_in(here, 1, 0, &held, &err)); /* sent before the "release" */
    CHECK_OK(ray_worker_enter(here, NULL, &err));
    CHECK_OK(ray_worker_enter(here, held, &err));
    CHECK_CODE(RAY_TIMED_OUT, ray_worker_next_in(here, 1, 0, &task, &err)); /* one at a time */
    CHECK_EQ(kit_return_text(held, "held"), RAY_OK);
    CHECK_EQ(ray_task_finish(held, RAY_OK), RAY_OK);
    CHECK_EQ(kit_return_text(task, "released"), RAY_OK);
    CHECK_EQ(ray_task_finish(task, RAY_OK), RAY_OK);
  }
  CHECK_EQ(code, RAY_CANCELLED);
  CHECK_OK(ray_worker_exit(here, ray_cstr("again"), &err)); /* nothing runs: the end may come */
}

/* An actor whose calls four threads take, more than may run at once. */
static int running, most; /* calls */

static void* serve(void* unused) {
  ray_task* task;
  ray_error* e = NULL;
  int now, seen;
  (void)unused;
  while (ray_worker_next(here, -1, &task, &e) == RAY_OK) {
    now = __atomic_add_fetch(&running, 1, __ATOMIC_SEQ_CST);
    seen = __atomic_load_n(&most, __ATOMIC_RELAXED);
    while (now > seen && !__atomic_compare_exchange_n(&most, &seen, now, 0, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED)) {
    }
    sched_yield();
    kit_return_i64(task, 0, most);
    __atomic_sub_fetch(&running, 1, __ATOMIC_SEQ_CST);
    if (ray_task_finish(task, RAY_OK) != RAY_OK) abort();
  }
  ray_error_release(e);
  return NULL;
}

static void serve_threads(void) {
  pthread_t threads[4];
  int i;
  for (i = 0; i < 4; i++) CHECK_EQ(pthread_create(&threads[i], NULL, serve, NULL), 0);
  for (i = 0; i < 4; i++) pthread_join(threads[i], NULL);
}

/* A loop at the descriptor, which takes calls that other threads finish. */
static void* finish_aside(void* task) {
  kit_pause();
  if (kit_return_i64(task, 0, 7) != RAY_OK || ray_task_finish(task, RAY_OK) != RAY_OK) abort();
  return NULL;
}

static void serve_aside(void) {
  struct pollfd p;
  pthread_t thread;
  ray_task* task;
  ray_code code;
  p.fd = ray_worker_group_fd(here, 0);
  p.events = POLLIN;
  for (;;) {
    kit_clear();
    code = ray_worker_next(here, 0, &task, &err);
    if (code == RAY_TIMED_OUT) {
      CHECK_EQ(poll(&p, 1, -1), 1);
      continue;
    }
    if (code != RAY_OK) return;
    CHECK_EQ(pthread_create(&thread, NULL, finish_aside, task), 0);
    pthread_detach(thread);
  }
}

static int worker(ray_runtime* runtime) {
  struct pollfd p;
  ray_task* task;
  ray_code code;
  p.fd = ray_worker_fd(runtime);
  p.events = POLLIN;
  CHECK(p.fd >= 0);
  here = runtime;
  CHECK_OK(ray_worker_on_interrupt(runtime, on_interrupt, NULL, &err));
  for (;;) {
    kit_clear();
    code = ray_worker_next(runtime, 0, &task, &err);
    /* Sleep as an event loop does: some on the descriptor alone, some after a look at the rings. */
    if (code == RAY_TIMED_OUT) {
      if (getpid() % 2 == 0 && ray_worker_poll(runtime, 0, -1, p.fd) == RAY_OK) continue;
      CHECK_EQ(poll(&p, 1, -1), 1);
      continue;
    }
    if (code != RAY_OK) break;
    CHECK_EQ(ray_task_finish(task, run(task)), RAY_OK);
    CHECK_EQ(ray_task_finish(task, RAY_OK), RAY_INVALID_ARGUMENT); /* consumed */
    if (grouped || threaded || aside) {
      if (grouped) serve_groups();
      if (threaded) serve_threads();
      if (aside) serve_aside();
      code = RAY_CANCELLED;
      break;
    }
  }
  CHECK_EQ(code, RAY_CANCELLED);
  kit_clear();
  ray_runtime_release(runtime);
  return 0;
}

/* ---- the driver: its functions are opaque words, its workers this program ---- */

static void start(void) {
  static char self[512];
  static const char* argv[2];
  ray_runtime_options options = kit_options();
  ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
  CHECK(n > 0);
  argv[0] = self;
  options.worker_argv = argv;
  options.language = RAY_LANG_RUST; /* some language with opaque code */
  CHECK_OK(ray_init(&options, &rt, &err));
}

static ray_function* word(const char* definition) {
  ray_function* fn;
  ray_bytes bytes;
  bytes.data = definition;
  bytes.size = strlen(definition);
  CHECK_OK(ray_function_define(rt, RAY_LANG_RUST, ray_cstr(definition), bytes, &fn, &err));
  return fn;
}

static ray_ref* submit(const char* definition, const ray_arg* args, size_t n) {
  ray_function* fn = word(definition);
  ray_ref* ref;
  CHECK_OK(ray_submit(rt, fn, args, n, NULL, &ref, &err));
  ray_function_release(fn);
  return ref;
}

static void pulled_tasks(void) {
  char text[64];
  ray_arg arg = kit_text("over and back");
  ray_ref* refs[200];
  int i;
  start();
  for (i = 0; i < 200; i++) refs[i] = submit("echo", &arg, 1);
  for (i = 0; i < 200; i++) {
    kit_get_text(refs[i], text, sizeof text);
    CHECK(strcmp(text, "over and back") == 0);
    ray_ref_release(refs[i]);
  }
  CHECK(kit_take_i64(submit("pid", NULL, 0)) != (int64_t)getpid());
}

static void result_written_in_place(void) {
  ray_buffer buffer = RAY_BUFFER_INIT;
  ray_ref* ref;
  start();
  ref = submit("open", NULL, 0);
  CHECK_OK(ray_get(rt, &ref, 1, -1, &buffer, &err));
  CHECK_EQ(buffer.size, 1 << 20);
  CHECK_EQ(buffer.format, RAY_FMT_USER + 9);
  CHECK_EQ(((const char*)buffer.data)[(1 << 20) - 1], 'w');
  ray_buffer_release(&buffer);
  ray_ref_release(ref);
}

static void interrupt(void) {
  ray_ref* ref;
  ray_arg arg;
  start();
  arg = kit_text(kit_path("runs"));
  ref = submit("interruptible", &arg, 1);
  kit_await(kit_path("runs"));
  CHECK_OK(ray_cancel(ref, 0, &err));
  CHECK_CODE(RAY_CANCELLED, kit_get_code(ref));
  ray_ref_release(ref);
}

static void misuse(void) {
  char text[8];
  ray_ref* ref;
  start();
  ref = submit("misuse", NULL, 0);
  kit_get_text(ref, text, sizeof text);
  CHECK(strcmp(text, "x") == 0);
  ray_ref_release(ref);
}

static void unknown_word(void) {
  ray_ref* ref;
  start();
  ref = submit("dance", NULL, 0);
  CHECK_CODE(RAY_TASK_FAILED, kit_get_code(ref));
  CHECK_MESSAGE("unknown word");
  ray_ref_release(ref);
}

static void actor_of_an_opaque_class(void) {
  ray_function* klass;
  ray_actor* actor;
  char text[64];
  ray_ref* ref;
  start();
  klass = word("class");
  CHECK_OK(ray_actor_create(rt, klass, NULL, 0, NULL, &actor, &err));
  ref = kit_call(actor, "any method", NULL, 0);
  kit_get_text(ref, text, sizeof text);
  CHECK(strcmp(text, "any method") == 0);
  ray_ref_release(ref);
  ray_actor_release(actor);
  ray_function_release(klass);
}

/* A busy group stops no other; an actor that leaves says why. */
static void groups_of_an_actor(void) {
  ray_task_options options = RAY_TASK_OPTIONS_INIT;
  ray_function* klass;
  ray_actor* actor;
  ray_ref *kept[2], *ref;
  char text[64];
  int i;
  start();
  klass = word("grouped");
  CHECK_OK(ray_actor_create(rt, klass, NULL, 0, NULL, &actor, &err));
  options.group = 1;
  for (i = 0; i < 2; i++)
    CHECK_OK(ray_actor_call(actor, ray_cstr("keep me"), NULL, 0, &options, &kept[i], &err));
  for (i = 0; i < 2; i++) {
    ref = kit_call(actor, "release", NULL, 0);
    kit_get_text(ref, text, sizeof text);
    CHECK(strcmp(text, "released") == 0);
    kit_get_text(kept[i], text, sizeof text);
    CHECK(strcmp(text, "held") == 0);
    ray_ref_release(ref);
    ray_ref_release(kept[i]);
  }
  ref = kit_call(actor, "leave", NULL, 0);
  CHECK_CODE(RAY_ACTOR_DIED, kit_get_code(ref));
  CHECK_MESSAGE("it had enough");
  ray_ref_release(ref);
  ref = kit_call(actor, "release", NULL, 0);
  CHECK_CODE(RAY_ACTOR_DIED, kit_get_code(ref));
  CHECK_MESSAGE("it had enough");
  ray_ref_release(ref);
  ray_actor_release(actor);
  ray_function_release(klass);
}

/* However many threads ask for calls, no more run at once than the actor's options say. */
static void more_threads_than_calls_may_run(void) {
  enum { kCalls = 5000, kAtOnce = 1 };
  static ray_ref* refs[kCalls];
  ray_actor_options options = RAY_ACTOR_OPTIONS_INIT;
  ray_function* klass;
  ray_actor* actor;
  int64_t most_seen = 0;
  int i;
  start();
  klass = word("threaded");
  options.max_concurrency = kAtOnce;
  CHECK_OK(ray_actor_create(rt, klass, NULL, 0, &options, &actor, &err));
  for (i = 0; i < kCalls; i++) refs[i] = kit_call(actor, "count", NULL, 0);
  for (i = 0; i < kCalls; i++) {
    int64_t n = kit_take_i64(refs[i]);
    if (n > most_seen) most_seen = n;
  }
  CHECK(most_seen <= kAtOnce);
  ray_actor_release(actor);
  ray_function_release(klass);
}

/* The end of one call lets a loop take the next at once: were it to look once a second, time would be over. */
static void calls_that_other_threads_finish(void) {
  enum { kCalls = 200 };
  static const char* const kinds[] = {"aside", "aside in a group"};
  ray_ref* refs[kCalls];
  int kind, i;
  start();
  for (kind = 0; kind < 2; kind++) {
    ray_function* klass = word(kinds[kind]);
    ray_actor* actor;
    CHECK_OK(ray_actor_create(rt, klass, NULL, 0, NULL, &actor, &err));
    for (i = 0; i < kCalls; i++) refs[i] = kit_call(actor, "any", NULL, 0);
    for (i = 0; i < kCalls; i++) CHECK_EQ(kit_take_i64(refs[i]), 7);
    ray_actor_release(actor);
    ray_function_release(klass);
  }
}

/* Readers of other languages understand RAW and MSGPACK alone; the rest fails at submit, naming the
 * argument. */
static void private_formats_stay_private(void) {
  ray_function* fn;
  ray_ref* ref = NULL;
  ray_arg args[2];
  kit_init();
  CHECK_OK(
      ray_function_define(rt, RAY_LANG_PYTHON, ray_cstr("f"), (ray_bytes){"code", 4}, &fn, &err));
  args[0] = kit_text("fine");
  args[1] = kit_text("a Java object");
  args[1].value.format = RAY_FMT_JAVA;
  CHECK_CODE(RAY_INVALID_ARGUMENT, ray_submit(rt, fn, args, 2, NULL, &ref, &err));
  CHECK_MESSAGE("1");
  ray_function_release(fn);
}

static const kit_test tests[] = {KIT_TEST(pulled_tasks),
                                 KIT_TEST(result_written_in_place),
                                 KIT_TEST(interrupt),
                                 KIT_TEST(misuse),
                                 KIT_TEST(unknown_word),
                                 KIT_TEST(actor_of_an_opaque_class),
                                 KIT_TEST(groups_of_an_actor),
                                 KIT_TEST(more_threads_than_calls_may_run),
                                 KIT_TEST(calls_that_other_threads_finish),
                                 KIT_TEST(private_formats_stay_private)};

int main(int argc, char** argv) {
  return kit_main(argc, argv, tests, sizeof tests / sizeof tests[0], NULL, worker);
}
