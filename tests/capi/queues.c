/* queues.c -- what waits behind something else: calls behind one that was cancelled or failed, tasks in a worker's
 * ring behind another, records that come back from a ring. */
#define _POSIX_C_SOURCE 200809L
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "kit.h"
#include "remote.h"

/* ---- the remote side ---- */

static ray_code leave_a_byte(ray_task* task, size_t index) { /* how often it began: the size of the file */
  char path[512];
  struct stat st;
  FILE* file = fopen(kit_arg_text(task, index, path, sizeof path), "a");
  CHECK(file != NULL);
  fputc('x', file);
  fclose(file);
  CHECK(stat(path, &st) == 0);
  return (ray_code)st.st_size;
}

static ray_code echo(ray_task* task, void* user) { /* args[0], once all arguments are there */
  (void)user;
  return kit_return_i64(task, 0, kit_arg_i64(task, 0));
}

static ray_code fail_when_told(ray_task* task, void* user) {
  char path[512];
  (void)user;
  kit_await(kit_arg_text(task, 0, path, sizeof path));
  ray_task_fail(task, ray_cstr("told to"), NULL);
  return RAY_TASK_FAILED;
}

/* Without arguments nothing. Else it leaves a byte in args[0], waits for args[1], returns the bytes. */
static ray_code count_and_wait(ray_task* task, void* user) {
  const ray_buffer* args;
  char path[512];
  int64_t n;
  (void)user;
  if (ray_task_args(task, &args) == 0) return kit_return_i64(task, 0, 0);
  n = leave_a_byte(task, 0);
  kit_await(kit_arg_text(task, 1, path, sizeof path));
  return kit_return_i64(task, 0, n);
}

/* A call of an actor whose calls do not wait for each other waits for the reference in args[0], which never comes and
 * is no child of this task. */
static ray_code waiting_child(ray_task* task, void* user) {
  ray_actor_options options = RAY_ACTOR_OPTIONS_INIT;
  const ray_buffer* given;
  ray_ref *never, *call;
  uint8_t ready = 0;
  ray_actor* actor;
  ray_arg args[2];
  size_t n = 0;
  char path[512];
  int64_t one = 1;
  ray_code code;
  (void)user;
  options.flags = RAY_ACTOR_OUT_OF_ORDER;
  actor = kit_actor("Echo", &options);
  CHECK_EQ(ray_task_args(task, &given), 4);
  CHECK_OK(ray_buffer_ref(&given[0], 0, &never, &err));
  args[0] = kit_i64(&one);
  args[1] = kit_ref(never);
  call = kit_call(actor, "echo", args, 2);
  kit_touch(kit_arg_text(task, 1, path, sizeof path));
  while (n == 0) { /* no wait that the cancellation of this task could end */
    CHECK_OK(ray_wait(rt, &call, 1, 1, 0, &ready, &n, &err));
    kit_pause();
  }
  code = kit_get_code(call);
  kit_touch(kit_arg_text(task, code == RAY_CANCELLED ? 2 : 3, path, sizeof path));
  return kit_return_i64(task, 0, code);
}

/* Without arguments nothing. Else args[0] is a file, args[1] to args[7] are large and full of 'a'. The first execution
 * leaves a byte in the file and fails; the next checks the others. */
enum { kLarge = 8000, kArgs = 8 };
static ray_code fail_first(ray_task* task, void* user) {
  const ray_buffer* args;
  size_t n = ray_task_args(task, &args), i, k;
  (void)user;
  if (n == 0) return kit_return_i64(task, 0, 0);
  if (leave_a_byte(task, 0) == 1) {
    ray_task_fail(task, ray_cstr("the first one"), NULL);
    return RAY_TASK_FAILED;
  }
  for (i = 1; i < n; i++)
    for (k = 0; k < kLarge; k++) CHECK_EQ(((const uint8_t*)args[i].data)[k], 'a');
  return kit_return_i64(task, 0, 7);
}

static ray_code swallow(ray_task* task, void* user) {
  (void)user;
  return kit_return_i64(task, 0, 1);
}

static ray_code echo_create(ray_task* task, void* user) {
  (void)task, (void)user;
  return RAY_OK;
}

static void register_all(void) {
  static const remote_function all[] = {{"await_file", await_file},         {"fail_when_told", fail_when_told},
             {"count_and_wait", count_and_wait}, {"waiting_child", waiting_child},
             {"fail_first", fail_first},         {"swallow", swallow}};
  remote_register(all, sizeof all / sizeof all[0]);
  CHECK_OK(ray_register_actor(ray_cstr("Echo"), echo_create, NULL, NULL, &err));
  CHECK_OK(ray_register_method(ray_cstr("Echo"), ray_cstr("echo"), echo, NULL, &err));
  CHECK_OK(ray_register_method(ray_cstr("Echo"), ray_cstr("fail_first"), fail_first, NULL, &err));
  CHECK_OK(ray_register_method(ray_cstr("Echo"), ray_cstr("swallow"), swallow, NULL, &err));
}

/* ---- tests ---- */

/* The value of a call that nothing keeps any more. */
static int64_t take_soon(ray_ref* ref) {
  ray_buffer buffer = RAY_BUFFER_INIT;
  int64_t value;
  CHECK_OK(ray_get(rt, &ref, 1, 20000000000ll, &buffer, &err));
  memcpy(&value, buffer.data, sizeof value);
  ray_buffer_release(&buffer);
  ray_ref_release(ref);
  return value;
}

static ray_ref* call_behind(ray_actor* actor, int64_t n, ray_ref* argument) {
  ray_arg args[2];
  args[0] = kit_i64(&n);
  args[1] = kit_ref(argument);
  return kit_call(actor, "echo", args, argument ? 2 : 1);
}

static void calls_behind_a_cancelled_one(void) {
  ray_ref *slow, *cancelled, *behind[3];
  ray_actor* actor;
  ray_arg arg;
  int64_t i;
  kit_init();
  actor = kit_actor("Echo", NULL);
  CHECK_EQ(take_soon(call_behind(actor, 1, NULL)), 1);
  arg = kit_text(kit_path("never"));
  slow = kit_submit("await_file", &arg, 1, NULL);
  cancelled = call_behind(actor, 2, slow);
  for (i = 0; i < 3; i++) behind[i] = call_behind(actor, 3 + i, NULL);
  CHECK_OK(ray_cancel(cancelled, 0, &err));
  CHECK_CODE(RAY_CANCELLED, kit_get_code(cancelled));
  for (i = 0; i < 3; i++) CHECK_EQ(take_soon(behind[i]), 3 + i);
  CHECK_OK(ray_cancel(slow, 0, &err));
  ray_ref_release(cancelled);
  ray_ref_release(slow);
  ray_actor_release(actor);
}

static void calls_behind_a_failed_one(void) {
  ray_ref *bad, *failed, *behind;
  ray_actor* actor;
  ray_arg arg;
  kit_init();
  actor = kit_actor("Echo", NULL);
  CHECK_EQ(take_soon(call_behind(actor, 1, NULL)), 1);
  arg = kit_text(kit_path("go"));
  bad = kit_submit("fail_when_told", &arg, 1, NULL);
  failed = call_behind(actor, 2, bad);
  behind = call_behind(actor, 3, NULL);
  kit_touch(kit_path("go"));
  CHECK_CODE(RAY_TASK_FAILED, kit_get_code(failed));
  CHECK_EQ(take_soon(behind), 3);
  ray_ref_release(bad);
  ray_ref_release(failed);
  ray_actor_release(actor);
}

/* Recursive cancellation reaches calls that wait for their arguments beside the queue of their actor. */
static void cancel_reaches_calls_out_of_order(void) {
  ray_value value = ray_plain("box", 3, RAY_FMT_RAW);
  ray_ref *parent, *never, *box;
  ray_arg args[4];
  kit_init();
  args[0] = kit_text(kit_path("never"));
  never = kit_submit("await_file", args, 1, NULL);
  value.refs = &never;
  value.n_refs = 1;
  CHECK_OK(ray_put(rt, &value, &box, &err));
  args[0] = kit_ref(box);
  args[1] = kit_text(kit_path("waits"));
  args[2] = kit_text(kit_path("cancelled"));
  args[3] = kit_text(kit_path("other"));
  parent = kit_submit("waiting_child", args, 4, NULL);
  kit_await(kit_path("waits"));
  CHECK_OK(ray_cancel(parent, RAY_CANCEL_RECURSIVE, &err));
  while (!kit_exists(kit_path("cancelled"))) {
    CHECK(!kit_exists(kit_path("other")));
    kit_pause();
  }
  CHECK_OK(ray_cancel(never, 0, &err));
  ray_ref_release(parent);
  ray_ref_release(never);
  ray_ref_release(box);
}

static int64_t bytes_in(const char* name) {
  struct stat st;
  return stat(kit_path(name), &st) == 0 ? (int64_t)st.st_size : 0;
}

/* So many short runs that calls of this function wait behind each other in one worker's ring. */
static void make_short(const char* function) {
  ray_ref* refs[100];
  int round, i;
  for (round = 0; round < 10; round++) {
    for (i = 0; i < 100; i++) refs[i] = kit_submit(function, NULL, 0, NULL);
    for (i = 0; i < 100; i++) kit_take_i64(refs[i]);
  }
}

static void init_one_processor(void) {
  ray_runtime_options options = kit_options();
  options.num_cpus = 1;
  CHECK_OK(ray_init(&options, &rt, &err));
}

/* Whoever is cancelled by force dies alone: not the task that runs where it waits, nor those that wait behind it. */
static void force_spares_the_neighbours(void) {
  ray_task_options once = RAY_TASK_OPTIONS_INIT;
  ray_ref *runs, *queued, *behind;
  ray_arg args[2];
  init_one_processor();
  once.max_retries = 0;
  make_short("count_and_wait");
  args[0] = kit_text(kit_path("first"));
  args[1] = kit_text(kit_path("go"));
  runs = kit_submit("count_and_wait", args, 2, &once);
  args[0] = kit_text(kit_path("queued"));
  queued = kit_submit("count_and_wait", args, 2, &once);
  while (bytes_in("first") == 0) kit_pause();
  CHECK_OK(ray_cancel(queued, RAY_CANCEL_FORCE, &err));
  CHECK_CODE(RAY_CANCELLED, kit_get_code(queued)); /* and at once, though the other one runs */
  ray_ref_release(queued);
  kit_touch(kit_path("go"));
  CHECK_EQ(take_soon(runs), 1);
  CHECK_EQ(bytes_in("queued"), 0);

  make_short("count_and_wait");
  args[0] = kit_text(kit_path("second"));
  args[1] = kit_text(kit_path("never"));
  runs = kit_submit("count_and_wait", args, 2, &once);
  args[0] = kit_text(kit_path("behind"));
  args[1] = kit_text(kit_path("go"));
  behind = kit_submit("count_and_wait", args, 2, &once);
  while (bytes_in("second") == 0) kit_pause();
  CHECK_OK(ray_cancel(runs, RAY_CANCEL_FORCE, &err));
  CHECK_CODE(RAY_WORKER_CRASHED, kit_get_code(runs));
  CHECK_EQ(take_soon(behind), 1);
  ray_ref_release(runs);
}

/* Cancelled by force in every moment of its life: nothing that runs before or after it is lost. */
static void force_at_any_moment(void) {
  ray_task_options once = RAY_TASK_OPTIONS_INIT;
  ray_ref *cancelled, *others[4];
  int round, i;
  init_one_processor();
  once.max_retries = 0;
  make_short("count_and_wait");
  for (round = 0; round < 100; round++) {
    for (i = 0; i < 2; i++) others[i] = kit_submit("count_and_wait", NULL, 0, &once);
    cancelled = kit_submit("count_and_wait", NULL, 0, &once);
    for (i = 2; i < 4; i++) others[i] = kit_submit("count_and_wait", NULL, 0, &once);
    for (i = 0; i < round % 10 * 20; i++) CHECK(ray_runtime_mode(rt) == RAY_MODE_DRIVER);
    CHECK_OK(ray_cancel(cancelled, RAY_CANCEL_FORCE, &err));
    for (i = 0; i < 4; i++) CHECK_EQ(take_soon(others[i]), 0);
    ray_ref_release(cancelled);
  }
}

/* A task that has failed and is to run again is made from its record in the ring, which the worker has given back:
 * nothing is written over it before that. The caller only submits meanwhile, so nobody has read the answer. */
static void retried_from_the_ring(void) {
  static uint8_t large[kLarge];
  ray_task_options again = RAY_TASK_OPTIONS_INIT;
  ray_actor* actor;
  int round, by_actor, i;
  init_one_processor();
  again.flags = RAY_TASK_RETRY_ON_ERROR;
  again.max_retries = 3;
  memset(large, 'a', sizeof large);
  actor = kit_actor("Echo", NULL);
  CHECK_EQ(take_soon(call_behind(actor, 1, NULL)), 1);
  make_short("swallow");
  make_short("fail_first");
  for (round = 0; round < 10; round++)
    for (by_actor = 0; by_actor < 2; by_actor++) {
      struct timespec moment = {0, 300000};
      ray_ref *retried, *fillers[12];
      ray_arg args[kArgs];
      char name[32];
      snprintf(name, sizeof name, "failed-%d-%d", round, by_actor);
      args[0] = kit_text(kit_path(name));
      for (i = 1; i < kArgs; i++) {
        args[i].ref = NULL;
        args[i].value = ray_plain(large, sizeof large, RAY_FMT_RAW);
      }
      if (by_actor)
        CHECK_OK(ray_actor_call(actor, ray_cstr("fail_first"), args, kArgs, &again, &retried, &err));
      else
        retried = kit_submit("fail_first", args, kArgs, &again);
      kit_await(kit_path(name));
      nanosleep(&moment, NULL); /* its worker answers, and gives the record back */
      memset(large, 'b', sizeof large);
      for (i = 0; i < 12; i++)
        fillers[i] = by_actor ? kit_call(actor, "swallow", args + 1, kArgs - 1)
                              : kit_submit("swallow", args + 1, kArgs - 1, NULL);
      memset(large, 'a', sizeof large);
      CHECK_EQ(take_soon(retried), 7);
      for (i = 0; i < 12; i++) CHECK_EQ(take_soon(fillers[i]), 1);
    }
  ray_actor_release(actor);
}

static const kit_test tests[] = {KIT_TEST(calls_behind_a_cancelled_one),
                                 KIT_TEST(calls_behind_a_failed_one),
                                 KIT_TEST(cancel_reaches_calls_out_of_order),
                                 KIT_TEST(force_spares_the_neighbours),
                                 KIT_TEST(force_at_any_moment),
                                 KIT_TEST(retried_from_the_ring)};
KIT_MAIN(tests, register_all)
