/* waiting.c -- try_get, get, wait, completion queues, callbacks. */
#define _POSIX_C_SOURCE 200809L
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include "kit.h"
#include "remote.h"

static ray_code fail(ray_task* task, void* user) {
  (void)user;
  ray_task_fail(task, ray_cstr("on purpose"), NULL);
  return RAY_TASK_FAILED;
}

enum { kBlob = 8000 }; /* lies in the process until it is shared */
static char g_blob[kBlob];
static ray_code blob(ray_task* task, void* user) {
  const ray_value value = ray_plain(g_blob, kBlob, RAY_FMT_RAW);
  char path[512];
  (void)user;
  kit_await(kit_arg_text(task, 0, path, sizeof path));
  return ray_task_return(task, 0, &value, NULL);
}
static ray_code seven(ray_task* task, void* user) {
  (void)user;
  return kit_return_i64(task, 0, 7);
}
static ray_code create(ray_task* task, void* user) {
  (void)task, (void)user;
  return RAY_OK;
}

/* Takes its argument without memory for the second reference in it; how much of that it refers to then. */
static ray_code take_without_memory(ray_task* task, void* user) {
  ray_bytes all = {NULL, 0};
  ray_buffer buffer = RAY_BUFFER_INIT;
  size_t rows;
  (void)user;
  CHECK_OK(ray_test_fault(ray_cstr("client.import"), ray_cstr("fail@2"), &err));
  CHECK_CODE(RAY_OUT_OF_MEMORY, ray_task_take_arg(task, 0, &buffer, &err));
  CHECK_OK(ray_test_fault(ray_cstr("client.import"), ray_cstr(""), &err));
  CHECK_OK(ray_cluster_query(ray_task_runtime(task), ray_cstr("references"), all, &buffer, &err));
  rows = mp_rows(mp_of(buffer.data, (size_t)buffer.size));
  ray_buffer_release(&buffer);
  return kit_return_i64(task, 0, (int64_t)rows);
}

static void register_all(void) {
  CHECK_OK(ray_register_function(ray_cstr("take_without_memory"), take_without_memory, NULL, &err));
  CHECK_OK(ray_register_function(ray_cstr("blob"), blob, NULL, &err));
  CHECK_OK(ray_register_function(ray_cstr("seven"), seven, NULL, &err));
  CHECK_OK(ray_register_actor(ray_cstr("Actor"), create, NULL, NULL, &err));
  CHECK_OK(ray_register_method(ray_cstr("Actor"), ray_cstr("seven"), seven, NULL, &err));
  CHECK_OK(ray_register_function(ray_cstr("await_file"), await_file, NULL, &err));
  CHECK_OK(ray_register_function(ray_cstr("add"), add, NULL, &err));
  CHECK_OK(ray_register_function(ray_cstr("fail"), fail, NULL, &err));
}

static void timeouts(void) {
  ray_buffer buffers[2];
  ray_ref* refs[2];
  kit_init();
  buffers[0].release = NULL;
  refs[0] = kit_submit_i64("add", 1, 2);
  refs[1] = waiting_for("go");
  CHECK_CODE(RAY_TIMED_OUT, ray_try_get(refs[1], &buffers[1], &err));
  CHECK_CODE(RAY_TIMED_OUT, ray_get(rt, &refs[1], 1, 0, &buffers[1], &err));
  CHECK_CODE(RAY_TIMED_OUT, ray_get(rt, refs, 2, 20000000, buffers, &err));
  CHECK(buffers[0].release == NULL); /* nothing was filled */
  kit_touch(kit_path("go"));
  CHECK_OK(ray_get(rt, refs, 2, -1, buffers, &err));
  ray_buffer_release(&buffers[0]);
  ray_buffer_release(&buffers[1]);
  CHECK_OK(ray_try_get(refs[1], &buffers[1], &err));
  ray_buffer_release(&buffers[1]);
  ray_ref_release(refs[0]);
  ray_ref_release(refs[1]);
}

/* An object whose error has the code of a wait that was too short is there all the same. */
static void an_error_that_says_timed_out(void) {
  const ray_value value = ray_plain("here", 4, RAY_FMT_RAW);
  ray_buffer buffers[2];
  ray_ref* refs[2];
  kit_init();
  CHECK_OK(ray_put(rt, &value, &refs[0], &err));
  CHECK_OK(ray_put_error(rt, RAY_TIMED_OUT, ray_cstr("on purpose"), NULL, &refs[1], &err));
  memset(buffers, 0x5a, sizeof buffers);
  CHECK_CODE(RAY_TIMED_OUT, ray_get(rt, refs, 2, 1000000000, buffers, &err));
  CHECK_MESSAGE("on purpose");
  CHECK_OK(ray_get(rt, refs, 1, 1000000000, buffers, &err)); /* which would release what a short wait had left */
  ray_buffer_release(&buffers[0]);
  ray_ref_release(refs[0]);
  ray_ref_release(refs[1]);
}

static void first_failure_in_order(void) {
  ray_buffer buffers[3];
  ray_ref* refs[3];
  uint8_t ready[3];
  size_t n;
  kit_init();
  refs[0] = kit_submit_i64("add", 1, 2);
  refs[1] = kit_submit("fail", NULL, 0, NULL);
  refs[2] = kit_submit("no such thing", NULL, 0, NULL);
  /* In order among those that are there: get does not wait for an earlier one that may fail too. */
  CHECK_OK(ray_wait(rt, refs, 3, 3, -1, ready, &n, &err));
  CHECK_CODE(RAY_TASK_FAILED, ray_get(rt, refs, 3, -1, buffers, &err));
  CHECK_MESSAGE("on purpose");
  CHECK_CODE(RAY_TASK_FAILED, ray_try_get(refs[1], buffers, &err));
  ray_ref_release(refs[0]);
  ray_ref_release(refs[1]);
  ray_ref_release(refs[2]);
}

static void wait_for_some(void) {
  enum { kN = 10 };
  ray_ref* refs[kN];
  uint8_t ready[kN];
  size_t n = 99, i;
  kit_init();
  for (i = 0; i < kN - 1; i++) refs[i] = kit_submit_i64("add", (int64_t)i, 0);
  refs[kN - 1] = waiting_for("go");
  CHECK_OK(ray_wait(rt, refs, kN, 3, -1, ready, &n, &err));
  CHECK_EQ(n, 3);
  for (n = 0, i = 0; i < kN; i++) n += ready[i];
  CHECK_EQ(n, 3);
  CHECK_OK(ray_wait(rt, refs, kN, kN - 1, -1, ready, &n, &err));
  CHECK_EQ(n, kN - 1);
  CHECK_EQ(ready[kN - 1], 0);
  CHECK_OK(ray_wait(rt, refs, kN, kN, 20000000, ready, &n, &err)); /* the time is over */
  CHECK_EQ(n, kN - 1);
  CHECK_OK(ray_wait(rt, refs, kN, kN, 0, ready, &n, &err));
  CHECK_EQ(n, kN - 1);
  CHECK_OK(
      ray_wait(rt, refs, kN, 2, 0, ready, &n, &err)); /* at most `want`, first in input order */
  CHECK_EQ(n, 2);
  CHECK(ready[0] && ready[1] && !ready[2]);
  kit_touch(kit_path("go"));
  CHECK_OK(ray_wait(rt, refs, kN, kN, -1, ready, &n, &err));
  CHECK_EQ(n, kN);
  for (i = 0; i < kN; i++) ray_ref_release(refs[i]);
}

static void wait_counts_errors_as_ready(void) {
  ray_ref* ref;
  uint8_t ready = 0;
  size_t n = 0;
  kit_init();
  ref = kit_submit("fail", NULL, 0, NULL);
  CHECK_OK(ray_wait(rt, &ref, 1, 1, -1, &ready, &n, &err));
  CHECK(n == 1 && ready == 1);
  ray_ref_release(ref);
}

static bool readable(int fd) {
  struct pollfd p;
  p.fd = fd;
  p.events = POLLIN;
  p.revents = 0;
  return poll(&p, 1, 0) == 1 && (p.revents & POLLIN);
}

static void queue(void) {
  enum { kN = 100 };
  ray_notify notify = RAY_NOTIFY_INIT;
  ray_completion got[7];
  ray_ref* refs[kN];
  ray_queue* queue;
  uint8_t seen[kN] = {0};
  size_t n = 0, i, k;
  kit_init();
  CHECK_OK(ray_queue_create(rt, &queue, &err));
  CHECK(!readable(ray_queue_fd(queue)));
  CHECK_CODE(RAY_TIMED_OUT, ray_queue_poll(queue, got, 7, 0, &k, &err));
  CHECK_EQ(k, 0);
  notify.queue = queue;
  for (i = 0; i < kN; i++) {
    refs[i] =
        i % 10 == 3 ? kit_submit("fail", NULL, 0, NULL) : kit_submit_i64("add", (int64_t)i, 1);
    notify.tag = i;
    CHECK_OK(ray_on_ready(refs[i], &notify, NULL, &err));
    ray_ref_release(refs[i]); /* the notification holds it */
  }
  while (n < kN) {
    k = kit_poll(queue, got, 7);
    CHECK(k >= 1 && k <= 7);
    for (i = 0; i < k; i++, n++) {
      CHECK_EQ(got[i].kind, RAY_COMPLETION_READY);
      CHECK(got[i].tag < kN && !seen[got[i].tag]);
      seen[got[i].tag] = 1;
      if (got[i].tag % 10 == 3) {
        CHECK_EQ(got[i].code, RAY_TASK_FAILED);
        CHECK_EQ(ray_error_code(got[i].error), RAY_TASK_FAILED);
        ray_error_release(got[i].error);
        ray_ref_release(got[i].ref);
      } else {
        CHECK_EQ(got[i].code, RAY_OK);
        CHECK(got[i].error == NULL);
        CHECK_EQ(kit_take_i64(got[i].ref), (int64_t)got[i].tag + 1);
      }
    }
  }
  CHECK(!readable(ray_queue_fd(queue)));
  ray_queue_release(queue);
}

/* The descriptor is readable as long as the queue is not empty: level, not edge. */
static void descriptor_is_level_triggered(void) {
  ray_notify notify = RAY_NOTIFY_INIT;
  struct pollfd p;
  ray_completion got[2];
  ray_ref* refs[2];
  ray_queue* queue;
  int fd, round, i;
  kit_init();
  CHECK_OK(ray_queue_create(rt, &queue, &err));
  fd = ray_queue_fd(queue);
  CHECK(fd >= 0);
  notify.queue = queue;
  for (round = 0; round < 20; round++) {
    for (i = 0; i < 2; i++) {
      refs[i] = kit_submit_i64("add", i, round);
      CHECK_OK(ray_on_ready(refs[i], &notify, NULL, &err));
    }
    p.fd = fd;
    p.events = POLLIN;
    CHECK_EQ(poll(&p, 1, -1), 1);
    CHECK(readable(fd)); /* looking does not change it */
    CHECK_EQ(kit_poll(queue, got, 1), 1);
    ray_ref_release(got[0].ref);
    CHECK_EQ(poll(&p, 1, -1), 1); /* one is left, or comes */
    CHECK(readable(fd));
    CHECK_EQ(kit_poll(queue, got, 2), 1);
    ray_ref_release(got[0].ref);
    CHECK(!readable(fd));
    for (i = 0; i < 2; i++) ray_ref_release(refs[i]);
  }
  ray_queue_release(queue);
}

static void* wake_soon(void* queue) {
  int i;
  for (i = 0; i < 20; i++) kit_pause();
  ray_queue_wake((ray_queue*)queue);
  return NULL;
}

static void wake_a_poller(void) {
  ray_completion got;
  ray_queue* queue;
  pthread_t thread;
  kit_init();
  CHECK_OK(ray_queue_create(rt, &queue, &err));
  CHECK_EQ(pthread_create(&thread, NULL, wake_soon, queue), 0);
  CHECK_EQ(kit_poll(queue, &got, 1), 0);
  pthread_join(thread, NULL);
  ray_queue_release(queue);
}

static void a_queue_may_go_first(void) {
  ray_notify notify = RAY_NOTIFY_INIT;
  ray_queue* queue;
  ray_ref* ref;
  kit_init();
  CHECK_OK(ray_queue_create(rt, &queue, &err));
  ref = waiting_for("go");
  notify.queue = queue;
  CHECK_OK(ray_on_ready(ref, &notify, NULL, &err));
  ray_queue_release(queue); /* its pending notifications are dropped */
  kit_touch(kit_path("go"));
  CHECK_EQ(kit_take_i64(ref), 7);
}

/* ---- callbacks ---- */

typedef struct calls {
  pthread_mutex_t lock;
  pthread_cond_t more;
  int n;
  ray_code code;
  pthread_t thread;
} calls;

static void on_done(const ray_completion* completion, void* user) {
  calls* c = (calls*)user;
  ray_ref_release(completion->ref);
  ray_error_release(completion->error);
  pthread_mutex_lock(&c->lock);
  c->n++;
  c->code = completion->code;
  c->thread = pthread_self();
  pthread_cond_broadcast(&c->more);
  pthread_mutex_unlock(&c->lock);
}

static void await_calls(calls* c, int n) {
  pthread_mutex_lock(&c->lock);
  while (c->n < n) pthread_cond_wait(&c->more, &c->lock);
  pthread_mutex_unlock(&c->lock);
}

static void callback(void) {
  calls c = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, 0, 0};
  ray_notify notify = RAY_NOTIFY_INIT;
  ray_ref* ref;
  int i;
  kit_init();
  notify.fn = on_done;
  notify.user = &c;
  ref = waiting_for("go");
  CHECK_OK(ray_on_ready(ref, &notify, NULL, &err));
  CHECK_EQ(c.n, 0);
  kit_touch(kit_path("go"));
  await_calls(&c, 1);
  CHECK_EQ(c.code, RAY_OK);
  CHECK(!pthread_equal(c.thread, pthread_self()));
  CHECK_OK(ray_on_ready(ref, &notify, NULL, &err)); /* ready already: still not on this thread */
  await_calls(&c, 2);
  CHECK(!pthread_equal(c.thread, pthread_self()));
  notify.flags = RAY_NOTIFY_MAY_RUN_INLINE;
  CHECK_OK(ray_on_ready(ref, &notify, NULL, &err));
  await_calls(&c, 3);
  ray_ref_release(ref);
  notify.flags = 0;
  for (i = 0; i < 200; i++) {
    ref = i % 2 ? kit_submit("fail", NULL, 0, NULL) : kit_submit_i64("add", i, 1);
    CHECK_OK(ray_on_ready(ref, &notify, NULL, &err));
    ray_ref_release(ref);
  }
  await_calls(&c, 203);
  CHECK_EQ(c.n, 203);
}

static void cancel_a_notification(void) {
  calls c = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, 0, 0};
  ray_notify notify = RAY_NOTIFY_INIT;
  uint64_t token = 0;
  ray_ref* ref;
  kit_init();
  notify.fn = on_done;
  notify.user = &c;
  ref = waiting_for("go");
  CHECK_OK(ray_on_ready(ref, &notify, &token, &err));
  CHECK_OK(ray_cancel_notify(rt, token, &err));
  CHECK_CODE(RAY_NOT_FOUND, ray_cancel_notify(rt, token, &err));
  CHECK_CODE(RAY_NOT_FOUND, ray_cancel_notify(rt, 123456789, &err));
  CHECK_OK(ray_on_ready(ref, &notify, &token, &err));
  kit_touch(kit_path("go"));
  await_calls(&c, 1);
  CHECK_CODE(RAY_NOT_FOUND, ray_cancel_notify(rt, token, &err)); /* it ran */
  CHECK_EQ(c.n, 1);
  ray_ref_release(ref);
}

/* The shutdown completes whatever waits, with RAY_CANCELLED. */
static void shutdown_completes_everything(void) {
  calls c = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, 0, 0};
  ray_notify notify = RAY_NOTIFY_INIT;
  ray_ref* ref;
  kit_init();
  notify.fn = on_done;
  notify.user = &c;
  ref = waiting_for("never");
  CHECK_OK(ray_on_ready(ref, &notify, NULL, &err));
  CHECK_OK(ray_shutdown(rt, 0, &err));
  await_calls(&c, 1);
  CHECK_EQ(c.code, RAY_CANCELLED);
  ray_ref_release(ref);
}

static void exactly_one_way(void) {
  ray_notify notify = RAY_NOTIFY_INIT;
  ray_queue* queue;
  ray_ref* ref;
  kit_init();
  CHECK_OK(ray_queue_create(rt, &queue, &err));
  ref = kit_submit_i64("add", 1, 2);
  CHECK_CODE(RAY_INVALID_ARGUMENT, ray_on_ready(ref, NULL, NULL, &err));
  CHECK_CODE(RAY_INVALID_ARGUMENT, ray_on_ready(ref, &notify, NULL, &err)); /* neither */
  notify.queue = queue;
  notify.fn = on_done;
  CHECK_CODE(RAY_INVALID_ARGUMENT, ray_on_ready(ref, &notify, NULL, &err)); /* both */
  CHECK_EQ(kit_take_i64(ref), 3);
  ray_queue_release(queue);
}

/* ---- threads ---- */

static void* submit_and_get(void* arg) {
  int64_t base = *(int64_t*)arg, i;
  for (i = 0; i < 300; i++) {
    int64_t one = 1, x = base + i;
    ray_function* fn;
    ray_arg args[2];
    ray_buffer buffer;
    ray_ref* ref;
    args[0] = kit_i64(&x);
    args[1] = kit_i64(&one);
    if (ray_function_get(rt, ray_cstr("add"), &fn, NULL) != RAY_OK) return (void*)"function";
    if (ray_submit(rt, fn, args, 2, NULL, &ref, NULL) != RAY_OK) return (void*)"submit";
    if (ray_get(rt, &ref, 1, -1, &buffer, NULL) != RAY_OK) return (void*)"get";
    memcpy(&x, buffer.data, 8);
    ray_buffer_release(&buffer);
    ray_ref_release(ref);
    ray_function_release(fn);
    if (x != base + i + 1) return (void*)"a wrong value";
  }
  return NULL;
}

static void many_threads(void) {
  enum { kThreads = 6 };
  pthread_t threads[kThreads];
  int64_t base[kThreads];
  void* problem;
  int i;
  kit_init();
  for (i = 0; i < kThreads; i++) {
    base[i] = i * 100000;
    CHECK_EQ(pthread_create(&threads[i], NULL, submit_and_get, &base[i]), 0);
  }
  for (i = 0; i < kThreads; i++) {
    pthread_join(threads[i], &problem);
    if (problem) kit_fail(__FILE__, __LINE__, "a thread says: %s", (const char*)problem);
  }
}

static void* get_it(void* ref) {
  ray_buffer buffer;
  if (ray_get(rt, (ray_ref**)&ref, 1, -1, &buffer, NULL) != RAY_OK) return (void*)"get";
  ray_buffer_release(&buffer);
  return NULL;
}

static void one_object_many_waiters(void) {
  enum { kThreads = 8 };
  pthread_t threads[kThreads];
  ray_ref* ref;
  void* problem;
  int i;
  kit_init();
  ref = waiting_for("go");
  for (i = 0; i < kThreads; i++) CHECK_EQ(pthread_create(&threads[i], NULL, get_it, ref), 0);
  kit_touch(kit_path("go"));
  for (i = 0; i < kThreads; i++) {
    pthread_join(threads[i], &problem);
    CHECK(problem == NULL);
  }
  ray_ref_release(ref);
}

/* ---- what nobody looked at ---- */

static int told(const char* what) {
  ray_buffer buffer = RAY_BUFFER_INIT;
  ray_bytes none = {NULL, 0};
  int n;
  CHECK_OK(ray_cluster_query(rt, ray_cstr(what), none, &buffer, &err));
  n = (int)mp_rows(mp_of(buffer.data, (size_t)buffer.size));
  ray_buffer_release(&buffer);
  return n;
}

static pthread_mutex_t g_lock = PTHREAD_MUTEX_INITIALIZER;
static int g_lines; /* of the log that tell of such an error */

static void on_log(int32_t level, ray_str module, ray_str msg_id, ray_str text, void* user) {
  (void)level, (void)module, (void)user;
  pthread_mutex_lock(&g_lock);
  if (strcmp(msg_id.data, "unread-error") == 0 && strstr(text.data, "on purpose")) g_lines++;
  pthread_mutex_unlock(&g_lock);
}

static bool lines_are(void* n) {
  bool equal;
  pthread_mutex_lock(&g_lock);
  equal = g_lines == *(int*)n;
  pthread_mutex_unlock(&g_lock);
  return equal;
}

static void ask_back(int32_t level, ray_str module, ray_str msg_id, ray_str text, void* user) {
  ray_buffer buffer = RAY_BUFFER_INIT;
  ray_bytes none = {NULL, 0};
  (void)level, (void)module, (void)text, (void)user;
  if (strcmp(msg_id.data, "infeasible") != 0) return;
  if (ray_cluster_query(rt, ray_cstr("references"), none, &buffer, NULL) != RAY_OK) return;
  ray_buffer_release(&buffer);
  pthread_mutex_lock(&g_lock);
  g_lines++;
  pthread_mutex_unlock(&g_lock);
}

static void a_log_handler_may_ask_libray(void) {
  ray_task_options options = RAY_TASK_OPTIONS_INIT;
  uint8_t space[64];
  ray_ref* ref;
  int lines = 1;
  ray_set_log_handler(ask_back, RAY_LOG_WARNING, NULL);
  kit_init();
  options.resources_msgpack = mp_map(space, sizeof space, "GPU", 1.0, NULL);
  ref = kit_submit("add", NULL, 0, &options);
  CHECK_UNTIL(lines_are, &lines);
  CHECK_EQ(kit_take_i64(kit_submit_i64("add", 1, 2)), 3);
  ray_ref_release(ref);
  ray_set_log_handler(NULL, RAY_LOG_WARNING, NULL);
}

static void errors_that_nobody_looked_at(void) {
  ray_buffer buffers[2];
  ray_ref *refs[3], *more[2];
  ray_arg arg;
  uint8_t ready[3];
  size_t n;
  int lines = 2;
  ray_set_log_handler(on_log, RAY_LOG_WARNING, NULL);
  kit_init();
  ray_ref_release(kit_submit("fail", NULL, 0, NULL)); /* it goes before the error comes */
  refs[0] = kit_submit("fail", NULL, 0, NULL);
  CHECK_EQ(kit_get_code(refs[0]), RAY_TASK_FAILED); /* by get */
  refs[1] = kit_submit("fail", NULL, 0, NULL);
  CHECK_OK(ray_wait(rt, &refs[1], 1, 1, -1, ready, &n, &err)); /* by wait */
  refs[2] = kit_submit("fail", NULL, 0, NULL);
  arg = kit_ref(refs[2]);
  more[0] = kit_submit("add", &arg, 1, NULL); /* by the task that took it, whose own is looked at */
  CHECK_EQ(kit_get_code(more[0]), RAY_TASK_FAILED);
  ray_ref_release(more[0]);
  for (n = 0; n < 3; n++) ray_ref_release(refs[n]);
  more[0] = kit_submit("fail", NULL, 0, NULL);
  more[1] = kit_submit("fail", NULL, 0, NULL);
  CHECK_OK(ray_wait(rt, more, 2, 1, -1, ready, &n, &err));
  CHECK_CODE(RAY_TASK_FAILED, ray_get(rt, more, 2, -1, buffers, &err)); /* one stands for both */
  ray_ref_release(more[0]);
  ray_ref_release(more[1]);
  ray_ref_release(kit_submit("fail", NULL, 0, NULL));
  CHECK_UNTIL(lines_are, &lines);
  CHECK_EQ(told("unread"), 2);
  CHECK_EQ(told("unread"), 0); /* each is told once */
  ray_set_log_handler(NULL, RAY_LOG_WARNING, NULL);
}

static void references_by_who_holds_them(void) {
  ray_buffer buffer = RAY_BUFFER_INIT;
  ray_bytes none = {NULL, 0};
  ray_ref *dependent, *source;
  ray_arg args[2];
  int64_t one = 1;
  mp row, at;
  int i, n;
  kit_init();
  CHECK_EQ(told("references"), 0);
  source = waiting_for("go");
  args[0] = kit_ref(source);
  args[1] = kit_i64(&one);
  dependent = kit_submit("add", args, 2, NULL);
  CHECK_OK(ray_cluster_query(rt, ray_cstr("references"), none, &buffer, &err));
  row = mp_of(buffer.data, (size_t)buffer.size);
  n = (int)mp_next(&row).size;
  CHECK_EQ(n, 2);
  for (i = 0; i < n; i++) { /* each: ours, and the task's that makes it; one is an argument too */
    double by_tasks;
    CHECK(mp_find(row, "by_results", &at) && mp_number(at) == 1);
    CHECK(mp_find(row, "by_tasks", &at));
    by_tasks = mp_number(at);
    CHECK(mp_find(row, "count", &at) && mp_number(at) == 2 + by_tasks);
    mp_skip(&row);
  }
  ray_buffer_release(&buffer);
  kit_touch(kit_path("go"));
  CHECK_EQ(kit_get_i64(dependent), 8);
  CHECK_EQ(told("references"), 2);
  ray_ref_release(source);
  ray_ref_release(dependent);
  CHECK_EQ(told("references"), 0);
}

/* An argument that could not be taken leaves nothing behind. */
static void no_memory_to_take_an_argument(void) {
  const ray_value value = ray_plain("x", 1, RAY_FMT_RAW);
  ray_ref* refs[2];
  ray_arg arg = RAY_ARG_INIT;
  int i;
  kit_init();
  for (i = 0; i < 2; i++) CHECK_OK(ray_put(rt, &value, &refs[i], &err));
  arg.value = ray_plain("", 0, RAY_FMT_RAW);
  arg.value.refs = refs;
  arg.value.n_refs = 2;
  CHECK_EQ(kit_take_i64(kit_submit("take_without_memory", &arg, 1, NULL)), 0);
  for (i = 0; i < 2; i++) ray_ref_release(refs[i]);
}

/* A value on disk that there is no room for: who does not want to wait does not, and who waits gets a copy. */
static void no_room_to_read(void) {
  enum { kValues = 40, kPins = 15, kSize = 1 << 20 };
  static ray_ref* refs[kValues];
  static ray_buffer pins[kPins];
  ray_buffer b, several[3];
  uint8_t* bytes = calloc(1, kSize);
  ray_value value = ray_plain(bytes, kSize, RAY_FMT_RAW);
  ray_runtime_options options = kit_options();
  int i;
  b.release = NULL;
  options.store_bytes = 16u << 20;
  CHECK_OK(ray_init(&options, &rt, &err));
  for (i = 0; i < kValues; i++) {
    bytes[0] = (uint8_t)i;
    CHECK_OK(ray_put(rt, &value, &refs[i], &err));
  }
  for (i = 0; i < kPins; i++) CHECK_OK(ray_get(rt, &refs[kValues - 1 - i], 1, -1, &pins[i], &err));
  for (i = 0; i < 3; i++) {
    ray_code code = ray_try_get(refs[4 + i], &b, NULL);
    CHECK(code == RAY_TIMED_OUT || code == RAY_STORE_FULL);
    code = ray_get(rt, &refs[4 + i], 1, 0, &b, NULL);
    CHECK(code == RAY_TIMED_OUT || code == RAY_STORE_FULL);
    CHECK(b.release == NULL);
    CHECK_OK(ray_get(rt, &refs[4 + i], 1, i == 0 ? -1 : 20000000000, &b, &err));
    CHECK_EQ(((const uint8_t*)b.data)[0], 4 + i);
    ray_buffer_release(&b);
    b.release = NULL;
  }
  for (i = 0; i < kPins; i++) ray_buffer_release(&pins[i]);
  CHECK_OK(ray_get(rt, &refs[4], 1, -1, &b, &err));
  CHECK_EQ(((const uint8_t*)b.data)[0], 4);
  ray_buffer_release(&b);
  CHECK_OK(ray_get(rt, refs, 3, 20000000000, several, &err)); /* one after the other, in the time of all */
  for (i = 0; i < 3; i++) {
    CHECK_EQ(((const uint8_t*)several[i].data)[0], i);
    ray_buffer_release(&several[i]);
  }
  for (i = 0; i < kValues; i++) ray_ref_release(refs[i]);
  free(bytes);
}

/* More values than the store has room for, by a caller who waits in slices: each begins where the last one ended. */
static void slices_of_a_get_of_too_much(void) {
  enum { kValues = 200, kSize = 1 << 20 };
  static ray_ref* refs[kValues];
  static ray_buffer several[kValues];
  uint8_t* bytes = calloc(1, kSize);
  ray_value value = ray_plain(bytes, kSize, RAY_FMT_RAW);
  ray_runtime_options options = kit_options();
  ray_code code = RAY_TIMED_OUT;
  int i;
  options.store_bytes = 16u << 20;
  CHECK_OK(ray_init(&options, &rt, &err));
  for (i = 0; i < kValues; i++) {
    bytes[0] = (uint8_t)i;
    CHECK_OK(ray_put(rt, &value, &refs[i], &err));
  }
  for (i = 0; i < 1000 && code == RAY_TIMED_OUT; i++) code = ray_get(rt, refs, kValues, 50000000, several, NULL);
  CHECK_EQ(code, RAY_OK);
  for (i = 0; i < kValues; i++) {
    CHECK_EQ(((const uint8_t*)several[i].data)[0], i);
    ray_buffer_release(&several[i]);
    ray_ref_release(refs[i]);
  }
  free(bytes);
}

/* An actor whose argument has to be shared first, without room for it: who brings the news for everybody does not wait
 * for that room, so it is here that there is some in the end. */
static void a_creation_that_waits_for_room_stops_nobody(void) {
  enum { kLarge = 14, kSize = 1 << 20, kSmall = 600 };
  static ray_ref *large[kLarge], *small[kSmall];
  ray_runtime_options options = kit_options();
  uint8_t* bytes = calloc(1, kSize);
  ray_value value = ray_plain(bytes, kSize, RAY_FMT_RAW);
  ray_notify notify = RAY_NOTIFY_INIT;
  ray_completion done;
  ray_function* klass;
  ray_code code = RAY_OK;
  ray_ref *argument, *dependent, *answer;
  ray_actor* actor;
  ray_queue* queue;
  ray_arg arg;
  int i, n;
  options.store_bytes = 16u << 20;
  options.spill_bytes = 1;
  CHECK_OK(ray_init(&options, &rt, &err));
  CHECK_OK(ray_queue_create(rt, &queue, &err));
  CHECK_OK(ray_function_get(rt, ray_cstr("Actor"), &klass, &err));
  for (i = 0; i < kLarge; i++) CHECK_OK(ray_put(rt, &value, &large[i], &err));
  value.size = kBlob;
  for (n = 0; n < kSmall && code == RAY_OK; n++) {
    char exported[256];
    size_t size = sizeof exported;
    CHECK_OK(ray_put(rt, &value, &small[n], &err));
    code = ray_ref_export(small[n], exported, &size, NULL);
  }
  CHECK_EQ(code, RAY_STORE_FULL);
  arg = kit_text(kit_path("go"));
  argument = kit_submit("blob", &arg, 1, NULL);
  arg = kit_ref(argument);
  CHECK_OK(ray_actor_create(rt, klass, &arg, 1, NULL, &actor, &err));
  answer = kit_call(actor, "seven", NULL, 0);
  dependent = kit_submit("seven", &arg, 1, NULL);
  notify.queue = queue;
  CHECK_OK(ray_on_ready(dependent, &notify, NULL, &err));
  kit_touch(kit_path("go"));
  CHECK_EQ(kit_poll(queue, &done, 1), 1);
  ray_ref_release(done.ref);
  for (i = 0; i < kLarge; i++) ray_ref_release(large[i]);
  CHECK_EQ(kit_take_i64(answer), 7);
  for (i = 0; i < n; i++) ray_ref_release(small[i]);
  ray_ref_release(argument);
  ray_ref_release(dependent);
  ray_actor_release(actor);
  ray_function_release(klass);
  ray_queue_release(queue);
  free(bytes);
}

/* Who does not want to wait does not wait for a daemon that cannot answer. */
static void a_glance_while_the_daemon_is_stopped(void) {
  enum { kValues = 16, kSize = 8 << 20 };
  static ray_ref* refs[kValues];
  ray_buffer buffer = RAY_BUFFER_INIT;
  uint8_t* bytes = calloc(1, kSize);
  const ray_value value = ray_plain(bytes, kSize, RAY_FMT_RAW);
  long daemon;
  int i;
  kit_init();
  for (i = 0; i < kValues; i++) CHECK_OK(ray_put(rt, &value, &refs[i], &err)); /* twice the store */
  daemon = kit_daemon_pid();
  CHECK_EQ(kill((pid_t)daemon, SIGSTOP), 0);
  kit_kill_at_exit(daemon);
  CHECK_CODE(RAY_TIMED_OUT, ray_try_get(refs[0], &buffer, &err));
  CHECK_EQ(kill((pid_t)daemon, SIGCONT), 0);
  CHECK_OK(ray_get(rt, refs, 1, -1, &buffer, &err));
  ray_buffer_release(&buffer);
  for (i = 0; i < kValues; i++) ray_ref_release(refs[i]);
  free(bytes);
}

/* What a runtime before knew of an entry that is used again is nothing to the next. */
static void wait_in_one_runtime_after_the_other(void) {
  int i;
  for (i = 0; i < 3; i++) {
    uint8_t ready;
    size_t n;
    ray_ref* ref;
    kit_init();
    ref = kit_submit_i64("add", 1, i);
    CHECK_OK(ray_wait(rt, &ref, 1, 1, -1, &ready, &n, &err));
    CHECK_EQ(n, 1);
    ray_ref_release(ref);
    kit_shutdown();
  }
}

/* A signal handler that ran is no reason to come back: a wait for ever does, and one with a limit keeps it. */
static volatile sig_atomic_t signals_taken;
static void take_signal(int number) {
  (void)number;
  signals_taken++;
}
static void* disturb(void* poller) {
  struct timespec nap = {0, 20000000};
  int i;
  for (i = 0; i < 10; i++) {
    nanosleep(&nap, NULL);
    pthread_kill(*(pthread_t*)poller, SIGUSR1);
  }
  return NULL;
}
static void a_poll_goes_on_after_a_signal(void) {
  const int64_t kLimit = 400000000;
  struct sigaction action;
  struct timespec from, to;
  pthread_t self = pthread_self(), thread;
  ray_queue* queue;
  ray_completion done;
  size_t n = 7;
  kit_init();
  CHECK_OK(ray_queue_create(rt, &queue, &err));
  memset(&action, 0, sizeof action);
  action.sa_handler = take_signal;
  CHECK_EQ(sigaction(SIGUSR1, &action, NULL), 0);
  clock_gettime(CLOCK_MONOTONIC, &from);
  CHECK_EQ(pthread_create(&thread, NULL, disturb, &self), 0);
  CHECK_CODE(RAY_TIMED_OUT, ray_queue_poll(queue, &done, 1, kLimit, &n, &err));
  clock_gettime(CLOCK_MONOTONIC, &to);
  CHECK_EQ(n, 0);
  CHECK((to.tv_sec - from.tv_sec) * 1000000000ll + to.tv_nsec - from.tv_nsec >= kLimit);
  pthread_join(thread, NULL);
  CHECK(signals_taken > 0);
  ray_queue_release(queue);
}

static const kit_test tests[] = {KIT_TEST(timeouts), KIT_TEST(no_room_to_read), KIT_TEST(slices_of_a_get_of_too_much),
                                 KIT_TEST(a_creation_that_waits_for_room_stops_nobody),
                                 KIT_TEST(a_glance_while_the_daemon_is_stopped),
                                 KIT_TEST(first_failure_in_order),
                                 KIT_TEST(an_error_that_says_timed_out),
                                 KIT_TEST(a_log_handler_may_ask_libray),
                                 KIT_TEST(wait_for_some),
                                 KIT_TEST(wait_counts_errors_as_ready),
                                 KIT_TEST(wait_in_one_runtime_after_the_other),
                                 KIT_TEST(a_poll_goes_on_after_a_signal),
                                 KIT_TEST(queue),
                                 KIT_TEST(descriptor_is_level_triggered),
                                 KIT_TEST(wake_a_poller),
                                 KIT_TEST(a_queue_may_go_first),
                                 KIT_TEST(callback),
                                 KIT_TEST(cancel_a_notification),
                                 KIT_TEST(shutdown_completes_everything),
                                 KIT_TEST(exactly_one_way),
                                 KIT_TEST(many_threads),
                                 KIT_TEST(one_object_many_waiters),
                                 KIT_TEST(errors_that_nobody_looked_at),
                                 KIT_TEST(references_by_who_holds_them),
                                 KIT_TEST(no_memory_to_take_an_argument)};
KIT_MAIN(tests, register_all)
