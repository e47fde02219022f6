/* tasks.c -- tasks in plain C: arguments, results, options, errors, nesting, retries, cancellation,
 * resources, ids. */
#define _POSIX_C_SOURCE 200809L
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kit.h"
#include "remote.h"

/* ---- the remote side ---- */

static ray_code nothing(ray_task* task, void* user) {
  (void)task, (void)user;
  return RAY_OK;
}

static ray_code user_data(ray_task* task, void* user) {
  return kit_return_text(task, (const char*)user);
}

static ray_code divide(ray_task* task, void* user) { /* returns quotient and remainder */
  int64_t a = kit_arg_i64(task, 0), b = kit_arg_i64(task, 1);
  (void)user;
  if (b == 0) {
    ray_value payload = ray_plain("\x93\x01\x02\x03", 4, RAY_FMT_MSGPACK);
    ray_task_fail(task, ray_cstr("division by zero"), &payload);
    return RAY_TASK_FAILED;
  }
  kit_return_i64(task, 0, a / b);
  return kit_return_i64(task, 1, a % b);
}

static ray_code echo(ray_task* task, void* user) { /* whatever came, format and all */
  const ray_buffer* args;
  ray_value value = RAY_VALUE_INIT;
  (void)user;
  if (ray_task_args(task, &args) != 1) return RAY_TASK_FAILED;
  value.data = args[0].data;
  value.size = (size_t)args[0].size;
  value.format = args[0].format;
  value.oob = args[0].oob;
  value.n_oob = (size_t)args[0].n_oob;
  return ray_task_return(task, 0, &value, NULL);
}

static ray_code fibonacci(ray_task* task, void* user) { /* every call submits two */
  int64_t n = kit_arg_i64(task, 0), a, b;
  ray_runtime* here = (ray_runtime*)user;
  (void)here;
  if (n < 2) return kit_return_i64(task, 0, n);
  a = kit_take_i64(kit_submit_i64("fibonacci", n - 1, 0));
  b = kit_take_i64(kit_submit_i64("fibonacci", n - 2, 0));
  return kit_return_i64(task, 0, a + b);
}

static ray_code stubborn(ray_task* task, void* user) { /* says that it runs, then never ends */
  char path[512];
  (void)user;
  kit_touch(kit_arg_text(task, 0, path, sizeof path));
  while (pause() != 0) continue; /* a signal is no reason */
  return RAY_OK;
}

static ray_code announce(ray_task* task, void* user) { /* touches args[0], then waits for args[1] */
  char path[512];
  (void)user;
  kit_touch(kit_arg_text(task, 0, path, sizeof path));
  kit_arg_text(task, 1, path, sizeof path);
  while (!kit_exists(path)) {
    if (ray_task_is_cancelled(task)) return RAY_CANCELLED;
    kit_pause();
  }
  return kit_return_i64(task, 0, 7);
}

/* Appends one byte to the file args[0] at each execution; dies as long as there are fewer than
 * args[1]. */
static ray_code die_until(ray_task* task, void* user) {
  char path[512];
  int64_t lives = kit_arg_i64(task, 1);
  ray_task_info info;
  struct stat st;
  FILE* file = fopen(kit_arg_text(task, 0, path, sizeof path), "a");
  (void)user;
  CHECK(file != NULL);
  fputc('x', file);
  fclose(file);
  CHECK(stat(path, &st) == 0);
  if (st.st_size < lives) raise(SIGKILL);
  info.struct_size = sizeof info;
  CHECK_EQ(ray_task_get_info(task, &info), RAY_OK);
  CHECK(ray_task_runtime(task) != NULL && ray_task_runtime(NULL) == NULL);
  return kit_return_i64(task, 0, (int64_t)info.attempt);
}

static ray_code fail_until(ray_task* task,
                           void* user) { /* the same with failures instead of deaths */
  char path[512];
  int64_t lives = kit_arg_i64(task, 1);
  struct stat st;
  FILE* file = fopen(kit_arg_text(task, 0, path, sizeof path), "a");
  (void)user;
  CHECK(file != NULL);
  fputc('x', file);
  fclose(file);
  CHECK(stat(path, &st) == 0);
  if (st.st_size < lives) {
    ray_task_fail(task, ray_cstr("not yet"), NULL);
    return RAY_TASK_FAILED;
  }
  return kit_return_i64(task, 0, (int64_t)st.st_size);
}

static ray_code family(ray_task* task,
                       void* user) { /* ids of a child's result and of a put, then dies once */
  ray_value value = ray_plain("x", 1, RAY_FMT_RAW);
  char path[512];
  ray_ref *child = kit_submit_i64("add", 1, 2), *put;
  ray_id ids[2];
  FILE* file;
  (void)user;
  CHECK_OK(ray_put(rt, &value, &put, &err));
  ids[0] = ray_ref_id(child);
  ids[1] = ray_ref_id(put);
  file = fopen(kit_arg_text(task, 0, path, sizeof path), "ab");
  CHECK(file != NULL && fwrite(ids, sizeof ids, 1, file) == 1);
  fclose(file);
  if (!kit_exists(kit_arg_text(task, 1, path, sizeof path))) {
    kit_touch(path);
    raise(SIGKILL);
  }
  ray_ref_release(child);
  ray_ref_release(put);
  return kit_return_i64(task, 0, 1);
}

static ray_code who(ray_task* task, void* user) {
  ray_context context;
  (void)user, (void)task;
  context.struct_size = sizeof context;
  CHECK_OK(ray_runtime_context(rt, &context, &err));
  return kit_return_i64(task, 0, (int64_t)context.pid);
}

static ray_code name_of(ray_task* task, void* user) {
  ray_task_info info;
  char text[128];
  (void)user;
  info.struct_size = sizeof info;
  CHECK_EQ(ray_task_get_info(task, &info), RAY_OK);
  snprintf(text, sizeof text, "%.*s/%.*s/%u/%d", (int)info.function.size, info.function.data,
           (int)info.name.size, info.name.data, info.num_returns, info.is_stream);
  return kit_return_text(task, text);
}

static ray_code two_levels(ray_task* task, void* user) { /* a child that waits for the file */
  char path[512];
  ray_arg arg = kit_text(kit_arg_text(task, 0, path, sizeof path));
  ray_ref* child = kit_submit("await_file", &arg, 1, NULL);
  ray_code code;
  (void)user;
  code = kit_get_code(child);
  ray_ref_release(child);
  return code == RAY_OK ? kit_return_i64(task, 0, 1) : code;
}

static ray_code partly(ray_task* task, void* user) { /* a value, and an error of its own */
  ray_value payload = ray_plain("why", 3, RAY_FMT_RAW);
  (void)user;
  CHECK_OK(ray_task_return_error(task, 1, RAY_TASK_FAILED, ray_cstr("half"), &payload, &err));
  CHECK_CODE(RAY_WRONG_STATE,
             ray_task_return_error(task, 1, RAY_TASK_FAILED, ray_cstr("again"), NULL, &err));
  CHECK_CODE(RAY_INVALID_ARGUMENT,
             ray_task_return_error(task, 0, RAY_OK, ray_cstr("no error"), NULL, &err));
  return kit_return_i64(task, 0, 7);
}

static ray_code fail_for_good(ray_task* task, void* user) { /* leaves a byte for each attempt */
  char path[512];
  FILE* file = fopen(kit_arg_text(task, 0, path, sizeof path), "a");
  (void)user;
  CHECK(file != NULL);
  fputc('x', file);
  fclose(file);
  CHECK_EQ(ray_task_no_retry(task), RAY_OK);
  ray_task_fail(task, ray_cstr("for good"), NULL);
  return RAY_TASK_FAILED;
}

static ray_code gpus(ray_task* task, void* user) { /* a digit for each: 2 is GPU 1, below zero TPU 1 */
  uint32_t ids[4] = {9, 9, 9, 9};
  size_t tpus = ray_task_accelerators(task, ray_cstr("TPU"), NULL, 0);
  ray_task_info info;
  size_t n = ray_task_gpus(task, ids, 4), i;
  int64_t digits = 0;
  (void)user;
  info.struct_size = sizeof info;
  CHECK_EQ(ray_task_get_info(task, &info), RAY_OK);
  CHECK_EQ(info.has_gpus, n + tpus > 0);
  CHECK_EQ(ray_task_accelerators(task, ray_cstr("GPU"), NULL, 0), n);
  CHECK_EQ(ray_task_accelerators(task, (ray_str){NULL, RAY_NUL}, NULL, 0), 0);
  CHECK_EQ(ray_task_accelerators(task, (ray_str){"GPU", (size_t)-2}, NULL, 0), 0);
  CHECK_EQ(ray_task_accelerators(task, ray_cstr("CPU"), ids, 4), 0);
  CHECK_EQ(ray_task_gpus(task, NULL, 0), n);
  CHECK_EQ(ray_task_accelerators(task, (ray_str){NULL, RAY_NUL}, NULL, 0), 0);
  CHECK_EQ(ray_task_accelerators(task, (ray_str){"GPU", (size_t)-2}, NULL, 0), 0);
  for (i = 0; i < n; i++) digits = 10 * digits + ids[i] + 1;
  if (tpus > 0) CHECK_EQ(ray_task_accelerators(task, ray_cstr("TPU"), ids, 4), tpus);
  for (i = 0; i < tpus; i++) digits = 10 * digits - ids[i] - 1;
  return kit_return_i64(task, 0, digits);
}

/* Two names that a fast hash does not tell apart: its first factor is zero, so what follows counts for nothing. The
 * function of one is not run for the other. */
#define KINDRED(rest) "\x2e\x68\xe1\x9a\x91\xa4\x4b\xbe" rest "of two functions"

static void register_all(void) {
  static const remote_function all[] = {{"nothing", nothing},
             {"add", add},
             {"divide", divide},
             {"echo", echo},
             {"fibonacci", fibonacci},
             {"await_file", await_file},
             {"stubborn", stubborn},
             {"announce", announce},
             {"die_until", die_until},
             {"fail_until", fail_until},
             {"family", family},
             {"who", who},
             {"name_of", name_of},
             {"two_levels", two_levels},
             {"partly", partly},
             {"fail_for_good", fail_for_good},
             {"gpus", gpus}};
  remote_register(all, sizeof all / sizeof all[0]);
  CHECK_OK(ray_register_function(ray_cstr(KINDRED("the one ")), nothing, NULL, &err));
  CHECK_OK(
      ray_register_function(ray_cstr("user_data"), user_data, (void*)"the user's pointer", &err));
}

/* ---- tests ---- */

static void one_task(void) {
  kit_init();
  CHECK_EQ(kit_take_i64(kit_submit_i64("add", 40, 2)), 42);
}

static void many_tasks(void) {
  enum { kN = 3000 };
  static ray_ref* refs[kN];
  static ray_buffer out[kN];
  int64_t a, b = 5, value;
  ray_function* fn;
  ray_arg args[2];
  int i;
  kit_init();
  CHECK_OK(ray_function_get(rt, ray_cstr("add"), &fn, &err));
  for (i = 0; i < kN; i++) {
    a = i;
    args[0] = kit_i64(&a);
    args[1] = kit_i64(&b);
    CHECK_OK(ray_submit(rt, fn, args, 2, NULL, &refs[i], &err));
  }
  CHECK_OK(ray_get(rt, refs, kN, -1, out, &err));
  for (i = 0; i < kN; i++) {
    memcpy(&value, out[i].data, 8);
    CHECK_EQ(value, i + 5);
    ray_buffer_release(&out[i]);
    ray_ref_release(refs[i]);
  }
  ray_function_release(fn);
}

static void pointer_of_the_user(void) {
  char text[64];
  ray_ref* ref;
  kit_init();
  ref = kit_submit("user_data", NULL, 0, NULL);
  kit_get_text(ref, text, sizeof text);
  CHECK(strcmp(text, "the user's pointer") == 0);
  ray_ref_release(ref);
}

static void references_as_arguments(void) {
  ray_arg args[2];
  ray_ref *first, *second, *third;
  int64_t five = 5;
  kit_init();
  first = kit_submit_i64("add", 1, 2);
  args[0] = kit_ref(first);
  args[1] = kit_i64(&five);
  second = kit_submit("add", args, 2, NULL); /* 8, maybe before the 3 is there */
  args[1] = kit_ref(second);
  third = kit_submit("add", args, 2, NULL);
  ray_ref_release(first); /* the tasks keep it alive */
  ray_ref_release(second);
  CHECK_EQ(kit_take_i64(third), 11);
}

static void long_chain(void) {
  ray_ref *ref, *next;
  ray_arg args[2];
  int64_t one = 1;
  int i;
  kit_init();
  ref = kit_submit_i64("add", 0, 0);
  for (i = 0; i < 500; i++) {
    args[0] = kit_ref(ref);
    args[1] = kit_i64(&one);
    next = kit_submit("add", args, 2, NULL);
    ray_ref_release(ref);
    ref = next;
  }
  CHECK_EQ(kit_take_i64(ref), 500);
}

static void several_returns(void) {
  ray_task_options options = RAY_TASK_OPTIONS_INIT;
  ray_ref* refs[3];
  ray_buffer buffer = RAY_BUFFER_INIT;
  ray_function* fn;
  ray_arg args[2];
  int64_t a = 17, b = 5;
  kit_init();
  CHECK_OK(ray_function_get(rt, ray_cstr("divide"), &fn, &err));
  args[0] = kit_i64(&a);
  args[1] = kit_i64(&b);
  options.num_returns = 3;
  CHECK_OK(ray_submit(rt, fn, args, 2, &options, refs, &err));
  CHECK_EQ(kit_take_i64(refs[1]), 2);
  CHECK_EQ(kit_take_i64(refs[0]), 3);
  CHECK_OK(ray_get(rt, &refs[2], 1, -1, &buffer, &err)); /* not given: nil */
  CHECK_EQ(buffer.format, RAY_FMT_MSGPACK);
  CHECK(buffer.size == 1 && *(const uint8_t*)buffer.data == 0xc0);
  ray_buffer_release(&buffer);
  ray_ref_release(refs[2]);
  ray_function_release(fn);
}

static void no_returns(void) {
  ray_task_options options = RAY_TASK_OPTIONS_INIT;
  ray_function* fn;
  ray_ref* untouched = (ray_ref*)&options;
  ray_arg args[2];
  kit_init();
  CHECK_OK(ray_function_get(rt, ray_cstr("announce"), &fn, &err));
  options.num_returns = 0;
  kit_touch(kit_path("go"));
  args[0] = kit_text(kit_path("ran"));
  args[1] = kit_text(kit_path("go"));
  CHECK_OK(ray_submit(rt, fn, args, 2, &options, &untouched, &err));
  CHECK(untouched == (ray_ref*)&options);
  kit_await(kit_path("ran"));
  ray_function_release(fn);
}

static void errors_carry_payload(void) {
  ray_error* kept;
  ray_ref *ref, *dependent;
  ray_arg args[2];
  ray_bytes payload;
  uint32_t format = 0;
  int64_t one = 1;
  kit_init();
  ref = kit_submit_i64("divide", 1, 0);
  CHECK_CODE(RAY_TASK_FAILED, kit_get_code(ref));
  CHECK_MESSAGE("division by zero");
  CHECK_MESSAGE("divide");
  payload = ray_error_payload(err, &format);
  CHECK_EQ(payload.size, 4);
  CHECK_EQ(format, RAY_FMT_MSGPACK);
  CHECK(memcmp(payload.data, "\x93\x01\x02\x03", 4) == 0);
  CHECK(ray_error_payload(err, NULL).size == 4);
  kept = ray_error_retain(err);
  CHECK(kept == err);
  args[0] = kit_ref(ref); /* an error goes through to who depends on it */
  args[1] = kit_i64(&one);
  dependent = kit_submit("add", args, 2, NULL);
  CHECK_CODE(RAY_TASK_FAILED, kit_get_code(dependent));
  CHECK_MESSAGE("division by zero");
  CHECK_EQ(ray_error_code(kept), RAY_TASK_FAILED);
  ray_error_release(kept);
  ray_ref_release(ref);
  ray_ref_release(dependent);
}

static void unknown_function(void) {
  ray_ref* ref;
  kit_init();
  ref = kit_submit("no_such_function", NULL, 0, NULL);
  CHECK(kit_get_code(ref) != RAY_OK);
  CHECK_MESSAGE("no_such_function");
  ray_ref_release(ref);
  CHECK_EQ(kit_take_i64(kit_submit_i64("add", 1, 1)), 2); /* the worker lives on */
}

static void names_of_one_fast_hash(void) {
  ray_ref* ref;
  kit_init();
  ref = kit_submit(KINDRED("the one "), NULL, 0, NULL);
  CHECK_EQ(kit_get_code(ref), RAY_OK);
  ray_ref_release(ref);
  ref = kit_submit(KINDRED("another "), NULL, 0, NULL);
  CHECK(kit_get_code(ref) != RAY_OK);
  CHECK_MESSAGE("is not known to this worker");
  ray_ref_release(ref);
}

static void names(void) {
  ray_task_options options = RAY_TASK_OPTIONS_INIT;
  char text[128];
  ray_ref* ref;
  kit_init();
  ref = kit_submit("name_of", NULL, 0, NULL);
  kit_get_text(ref, text, sizeof text);
  CHECK(strcmp(text, "name_of/name_of/1/0") == 0);
  ray_ref_release(ref);
  options.name = ray_cstr("for people");
  ref = kit_submit("name_of", NULL, 0, &options);
  kit_get_text(ref, text, sizeof text);
  CHECK(strcmp(text, "name_of/for people/1/0") == 0);
  ray_ref_release(ref);
}

/* Values of all sizes around the limits of inlining, ring and store go through a task unharmed. */
static void sizes_of_values(void) {
  static const size_t sizes[] = {0,    1,     7,     8,     255,    4096,    8191,   8192,
                                 8193, 65535, 65536, 65537, 300000, 1 << 20, 5 << 20};
  uint8_t* data = malloc(5 << 20);
  ray_buffer buffer = RAY_BUFFER_INIT;
  ray_function* fn;
  ray_ref* ref;
  ray_arg arg;
  size_t i, at;
  kit_init();
  for (at = 0; at < 5u << 20; at++) data[at] = (uint8_t)(at * 2654435761u >> 13);
  CHECK_OK(ray_function_get(rt, ray_cstr("echo"), &fn, &err));
  for (i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
    arg.ref = NULL;
    arg.value = ray_plain(data, sizes[i], RAY_FMT_USER + 3);
    CHECK_OK(ray_submit(rt, fn, &arg, 1, NULL, &ref, &err));
    CHECK_OK(ray_get(rt, &ref, 1, -1, &buffer, &err));
    CHECK_EQ(buffer.size, sizes[i]);
    CHECK_EQ(buffer.format, RAY_FMT_USER + 3);
    CHECK(sizes[i] == 0 || memcmp(buffer.data, data, sizes[i]) == 0);
    ray_buffer_release(&buffer);
    ray_ref_release(ref);
  }
  ray_function_release(fn);
  free(data);
}

static void nested_on_one_cpu(void) {
  ray_runtime_options options = kit_options();
  options.num_cpus = 1;
  CHECK_OK(ray_init(&options, &rt, &err));
  CHECK_EQ(kit_take_i64(kit_submit_i64("fibonacci", 8, 0)), 21);
}

static void retried_after_a_crash(void) {
  ray_task_options options = RAY_TASK_OPTIONS_INIT;
  ray_arg args[2];
  int64_t lives = 3;
  ray_ref* ref;
  kit_init();
  args[0] = kit_text(kit_path("three"));
  args[1] = kit_i64(&lives);
  CHECK_EQ(kit_take_i64(kit_submit("die_until", args, 2, NULL)), 3); /* default: three retries */
  args[0] = kit_text(kit_path("none"));
  options.max_retries = 0;
  ref = kit_submit("die_until", args, 2, &options);
  CHECK_CODE(RAY_WORKER_CRASHED, kit_get_code(ref));
  CHECK_MESSAGE("die_until");
  ray_ref_release(ref);
  lives = 6;
  options.max_retries = RAY_RETRIES_INFINITE;
  args[0] = kit_text(kit_path("many"));
  CHECK_EQ(kit_take_i64(kit_submit("die_until", args, 2, &options)), 6);
}

static void retried_after_an_error(void) {
  ray_task_options options = RAY_TASK_OPTIONS_INIT;
  ray_arg args[2];
  int64_t lives = 3;
  ray_ref* ref;
  kit_init();
  args[0] = kit_text(kit_path("plain"));
  args[1] = kit_i64(&lives);
  ref = kit_submit("fail_until", args, 2, NULL); /* not by default */
  CHECK_CODE(RAY_TASK_FAILED, kit_get_code(ref));
  CHECK_MESSAGE("not yet");
  ray_ref_release(ref);
  options.flags = RAY_TASK_RETRY_ON_ERROR;
  args[0] = kit_text(kit_path("retried"));
  CHECK_EQ(kit_take_i64(kit_submit("fail_until", args, 2, &options)), 3);
}

static void final_error_is_not_retried(void) {
  ray_task_options options = RAY_TASK_OPTIONS_INIT;
  ray_arg arg;
  ray_ref* ref;
  struct stat st;
  kit_init();
  options.flags = RAY_TASK_RETRY_ON_ERROR;
  arg = kit_text(kit_path("attempts"));
  ref = kit_submit("fail_for_good", &arg, 1, &options);
  CHECK_CODE(RAY_TASK_FAILED, kit_get_code(ref));
  CHECK_MESSAGE("for good");
  ray_ref_release(ref);
  CHECK_EQ(stat(kit_path("attempts"), &st), 0);
  CHECK_EQ(st.st_size, 1);
}

static void one_of_two_results_failed(void) {
  ray_task_options options = RAY_TASK_OPTIONS_INIT;
  ray_function* fn;
  ray_ref* refs[2];
  kit_init();
  options.num_returns = 2;
  CHECK_OK(ray_function_get(rt, ray_cstr("partly"), &fn, &err));
  CHECK_OK(ray_submit(rt, fn, NULL, 0, &options, refs, &err));
  ray_function_release(fn);
  CHECK_EQ(kit_take_i64(refs[0]), 7);
  CHECK_CODE(RAY_TASK_FAILED, kit_get_code(refs[1]));
  CHECK_MESSAGE("half");
  CHECK_EQ(ray_error_payload(err, NULL).size, 3);
  ray_ref_release(refs[1]);
}

/* A failed object of the caller's own, also as an argument. */
static void put_of_an_error(void) {
  ray_value payload = ray_plain("why", 3, RAY_FMT_RAW);
  ray_ref *ref, *task;
  ray_arg arg;
  kit_init();
  CHECK_OK(ray_put_error(rt, RAY_TASK_FAILED, ray_cstr("made up"), &payload, &ref, &err));
  CHECK_CODE(RAY_TASK_FAILED, kit_get_code(ref));
  CHECK_MESSAGE("made up");
  CHECK_EQ(ray_error_payload(err, NULL).size, 3);
  arg = kit_ref(ref);
  task = kit_submit("echo", &arg, 1, NULL);
  CHECK_CODE(RAY_TASK_FAILED, kit_get_code(task));
  CHECK_MESSAGE("made up");
  ray_ref_release(task);
  ray_ref_release(ref);
  CHECK_CODE(RAY_INVALID_ARGUMENT, ray_put_error(rt, RAY_OK, ray_cstr(""), NULL, &ref, &err));
}

static void found_by_id(void) {
  ray_value value = ray_plain("x", 1, RAY_FMT_RAW);
  ray_ref *ref, *same = NULL;
  ray_id id;
  kit_init();
  CHECK_OK(ray_put(rt, &value, &ref, &err));
  id = ray_ref_id(ref);
  CHECK_OK(ray_ref_find(rt, &id, &same, &err));
  ray_ref_release(ref);
  CHECK_EQ(kit_get_code(same), RAY_OK); /* it counts */
  ray_ref_release(same);
  CHECK_CODE(RAY_NOT_FOUND, ray_ref_find(rt, &id, &same, &err));
  CHECK_CODE(RAY_INVALID_ARGUMENT, ray_ref_find(rt, NULL, &same, &err));
}

/* One failure is enough: what hangs is not waited for. */
static void get_fails_at_the_first_error(void) {
  ray_buffer out[2];
  ray_ref* refs[2];
  ray_arg arg;
  kit_init();
  arg = kit_text(kit_path("go"));
  refs[0] = kit_submit("await_file", &arg, 1, NULL);
  refs[1] = kit_submit_i64("divide", 1, 0);
  CHECK_CODE(RAY_TASK_FAILED, ray_get(rt, refs, 2, 60000000000, out, &err));
  CHECK_MESSAGE("division by zero");
  kit_touch(kit_path("go"));
  ray_ref_release(refs[0]);
  ray_ref_release(refs[1]);
}

/* A task that runs again makes the same ids for its children and puts. */
static void ids_are_deterministic(void) {
  ray_id ids[4];
  ray_arg args[2];
  FILE* file;
  kit_init();
  args[0] = kit_text(kit_path("ids"));
  args[1] = kit_text(kit_path("died"));
  CHECK_EQ(kit_take_i64(kit_submit("family", args, 2, NULL)), 1);
  file = fopen(kit_path("ids"), "rb");
  CHECK(file != NULL && fread(ids, sizeof ids, 1, file) == 1);
  fclose(file);
  CHECK(memcmp(&ids[0], &ids[2], sizeof ids[0]) == 0);
  CHECK(memcmp(&ids[1], &ids[3], sizeof ids[1]) == 0);
  CHECK(memcmp(&ids[0], &ids[1], sizeof ids[0]) != 0);
}

static void cancel_queued(void) {
  ray_ref *running[2], *queued;
  ray_arg args[2];
  int i;
  kit_init();
  args[1] = kit_text(kit_path("go"));
  for (i = 0; i < 2; i++) { /* both processors are taken */
    args[0] = kit_text(kit_path(i ? "b" : "a"));
    running[i] = kit_submit("announce", args, 2, NULL);
  }
  kit_await(kit_path("a"));
  kit_await(kit_path("b"));
  args[0] = kit_text(kit_path("never"));
  queued = kit_submit("announce", args, 2, NULL);
  CHECK_OK(ray_cancel(queued, 0, &err));
  CHECK_CODE(RAY_CANCELLED, kit_get_code(queued));
  kit_touch(kit_path("go"));
  CHECK_EQ(kit_take_i64(running[0]), 7);
  CHECK_EQ(kit_take_i64(running[1]), 7);
  CHECK(!kit_exists(kit_path("never")));
  ray_ref_release(queued);
}

static void cancel_running(void) {
  ray_ref* ref;
  ray_arg args[2];
  kit_init();
  args[0] = kit_text(kit_path("runs"));
  args[1] = kit_text(kit_path("never"));
  ref = kit_submit("announce", args, 2, NULL);
  kit_await(kit_path("runs"));
  CHECK_OK(ray_cancel(ref, 0, &err));
  CHECK_CODE(RAY_CANCELLED, kit_get_code(ref));
  ray_ref_release(ref);
  ref = kit_submit_i64("add", 1, 2);
  CHECK_EQ(kit_get_i64(ref), 3);
  CHECK_OK(ray_cancel(ref, 0, &err)); /* finished: keeps its result */
  CHECK_EQ(kit_take_i64(ref), 3);
}

static void cancel_by_force(void) {
  ray_ref* ref;
  ray_arg arg;
  kit_init();
  arg = kit_text(kit_path("runs"));
  ref = kit_submit("stubborn", &arg, 1, NULL);
  kit_await(kit_path("runs"));
  CHECK_OK(ray_cancel(ref, RAY_CANCEL_FORCE, &err));
  CHECK_CODE(RAY_WORKER_CRASHED, kit_get_code(ref)); /* and not retried */
  ray_ref_release(ref);
  CHECK_EQ(kit_take_i64(kit_submit_i64("add", 1, 2)), 3);
}

static void cancel_children(void) {
  ray_ref* ref;
  ray_arg arg;
  kit_init();
  arg = kit_text(kit_path("never"));
  ref = kit_submit("two_levels", &arg, 1, NULL);
  CHECK_OK(ray_cancel(ref, RAY_CANCEL_RECURSIVE, &err));
  CHECK_CODE(RAY_CANCELLED, kit_get_code(ref));
  ray_ref_release(ref);
}

static double available(const char* name) {
  ray_buffer buffer = RAY_BUFFER_INIT;
  double amount = 0;
  mp at;
  CHECK_OK(ray_cluster_query(rt, ray_cstr("available"), (ray_bytes){NULL, 0}, &buffer, &err));
  if (mp_find(mp_of(buffer.data, (size_t)buffer.size), name, &at)) amount = mp_number(at);
  ray_buffer_release(&buffer);
  return amount;
}

static bool all_is_back(void* user) {
  (void)user;
  return available("CPU") == 2 && available("disk") == 1;
}

/* Four tasks of half a processor run at the same time on two; two that want 0.6 of one custom
 * resource do not. */
static void fractional_resources(void) {
  ray_task_options options = RAY_TASK_OPTIONS_INIT;
  ray_runtime_options node = kit_options();
  uint8_t space[64], more[64];
  ray_ref* refs[4];
  ray_arg args[2];
  char name[16];
  int i;
  node.resources_msgpack = mp_map(more, sizeof more, "disk", 1.0, NULL);
  CHECK_OK(ray_init(&node, &rt, &err));
  options.resources_msgpack = mp_map(space, sizeof space, "CPU", 0.5, NULL);
  for (i = 0; i < 4; i++) {
    snprintf(name, sizeof name, "r%d", i);
    args[0] = kit_text(kit_path(name));
    args[1] = kit_text(kit_path("go"));
    refs[i] = kit_submit("announce", args, 2, &options);
  }
  for (i = 0; i < 4; i++) {
    snprintf(name, sizeof name, "r%d", i);
    kit_await(kit_path(name));
  }
  kit_touch(kit_path("go"));
  for (i = 0; i < 4; i++) CHECK_EQ(kit_take_i64(refs[i]), 7);
  options.resources_msgpack = mp_map(space, sizeof space, "disk", 0.6, NULL);
  args[0] = kit_text(kit_path("first"));
  args[1] = kit_text(kit_path("go on"));
  refs[0] = kit_submit("announce", args, 2, &options);
  kit_await(kit_path("first"));
  args[0] = kit_text(kit_path("second"));
  refs[1] = kit_submit("announce", args, 2, &options);
  CHECK_EQ(kit_take_i64(kit_submit_i64("add", 1, 2)), 3); /* others go on */
  CHECK(!kit_exists(kit_path("second")));
  kit_touch(kit_path("go on"));
  CHECK_EQ(kit_take_i64(refs[0]), 7);
  CHECK_EQ(kit_take_i64(refs[1]), 7);
  CHECK_UNTIL(all_is_back, NULL);
}

/* A task is told which units of the node's GPUs are its own. */
static void gpus_of_tasks(void) {
  ray_task_options options = RAY_TASK_OPTIONS_INIT;
  ray_runtime_options node = kit_options();
  uint8_t space[64], more[64];
  int64_t part;
  node.resources_msgpack = mp_map(more, sizeof more, "GPU", 2.0, "TPU", 3.0, NULL);
  CHECK_OK(ray_init(&node, &rt, &err));
  CHECK_EQ(kit_take_i64(kit_submit("gpus", NULL, 0, NULL)), 0);
  options.resources_msgpack = mp_map(space, sizeof space, "GPU", 2.0, NULL);
  CHECK_EQ(kit_take_i64(kit_submit("gpus", NULL, 0, &options)), 12);
  options.resources_msgpack = mp_map(space, sizeof space, "GPU", 0.5, NULL);
  part = kit_take_i64(kit_submit("gpus", NULL, 0, &options));
  CHECK(part == 1 || part == 2);
  CHECK_EQ(kit_take_i64(kit_submit("gpus", NULL, 0, NULL)), 0);
  CHECK_EQ(ray_task_gpus(NULL, NULL, 0), 0);
  options.resources_msgpack = mp_map(space, sizeof space, "TPU", 3.0, NULL);
  CHECK_EQ(kit_take_i64(kit_submit("gpus", NULL, 0, &options)), -123);
  CHECK_EQ(ray_task_accelerators(NULL, ray_cstr("TPU"), NULL, 0), 0);
}

static char warned[512];
static void keep_warning(int32_t level, ray_str module, ray_str id, ray_str text, void* user) {
  (void)module;
  (void)user;
  if (level <= RAY_LOG_WARNING && !strncmp(id.data, "infeasible", 10))
    snprintf(warned, sizeof warned, "%s", text.data);
}

/* What no node can run waits, for a node may come; a warning names the task and what is missing. */
static void infeasible(void) {
  ray_task_options options = RAY_TASK_OPTIONS_INIT;
  uint8_t space[64];
  ray_function* fn;
  ray_ref* ref = NULL;
  ray_buffer buffer = RAY_BUFFER_INIT;
  kit_init();
  options.resources_msgpack = mp_map(space, sizeof space, "GPU", 1.0, NULL);
  ray_set_log_handler(keep_warning, RAY_LOG_WARNING, NULL);
  ref = kit_submit("nothing", NULL, 0, &options);
  CHECK_CODE(RAY_TIMED_OUT, ray_get(rt, &ref, 1, 300000000, &buffer, &err));
  CHECK(strstr(warned, "GPU") != NULL);
  CHECK_OK(ray_cancel(ref, 0, &err));
  CHECK_CODE(RAY_CANCELLED, kit_get_code(ref));
  ray_ref_release(ref);
  options.resources_msgpack = mp_map(space, sizeof space, "CPU", 64.0, NULL);
  ref = kit_submit("nothing", NULL, 0, &options);
  CHECK_CODE(RAY_TIMED_OUT, ray_get(rt, &ref, 1, 300000000, &buffer, &err));
  CHECK(strstr(warned, "CPU") != NULL);
  ray_ref_release(ref);
  ray_set_log_handler(NULL, RAY_LOG_WARNING, NULL);
  CHECK_OK(ray_function_get(rt, ray_cstr("nothing"), &fn, &err));
  options.resources_msgpack = mp_map(space, sizeof space, "CPU", -1.0, NULL);
  CHECK_CODE(RAY_INVALID_ARGUMENT, ray_submit(rt, fn, NULL, 0, &options, &ref, &err));
  options.resources_msgpack.data = "\xff\xff";
  options.resources_msgpack.size = 2;
  CHECK_CODE(RAY_INVALID_ARGUMENT, ray_submit(rt, fn, NULL, 0, &options, &ref, &err));
  ray_function_release(fn);
}

static void two_workers_at_once(void) { /* two tasks that wait for each other need two processes */
  ray_arg args[2];
  ray_ref* refs[2];
  kit_init();
  args[0] = kit_text(kit_path("here"));
  args[1] = kit_text(kit_path("there"));
  refs[0] = kit_submit("announce", args, 2, NULL);
  args[0] = kit_text(kit_path("there"));
  args[1] = kit_text(kit_path("here"));
  refs[1] = kit_submit("announce", args, 2, NULL);
  CHECK_EQ(kit_take_i64(refs[0]), 7);
  CHECK_EQ(kit_take_i64(refs[1]), 7);
  CHECK(kit_take_i64(kit_submit_i64("who", 0, 0)) != (int64_t)getpid());
}

static void two_runtimes(void) {
  ray_runtime_options options = kit_options();
  ray_runtime *first, *second;
  ray_str a, b;
  CHECK_OK(ray_init(&options, &first, &err));
  CHECK_OK(ray_init(&options, &second, &err));
  a = ray_runtime_session_dir(first);
  b = ray_runtime_session_dir(second);
  CHECK(a.size > 0 && (a.size != b.size || memcmp(a.data, b.data, a.size) != 0));
  rt = first;
  CHECK_EQ(kit_take_i64(kit_submit_i64("add", 1, 2)), 3);
  kit_shutdown();
  rt = second;
  CHECK_EQ(kit_take_i64(kit_submit_i64("add", 3, 4)), 7);
}

static void init_again(void) {
  int i;
  for (i = 0; i < 5; i++) {
    kit_init();
    CHECK_EQ(kit_take_i64(kit_submit_i64("add", i, 2)), i + 2);
    kit_shutdown();
  }
}

/* A second program's worth of runtime joins the first one's cluster by its session directory. */
static void join_by_address(void) {
  ray_runtime_options options = kit_options(), join = RAY_RUNTIME_OPTIONS_INIT;
  ray_runtime *host, *guest = NULL;
  char address[512];
  ray_str dir;
  CHECK_OK(ray_init(&options, &host, &err));
  dir = ray_runtime_session_dir(host);
  snprintf(address, sizeof address, "%.*s", (int)dir.size, dir.data);
  join.address = ray_cstr(address);
  CHECK_OK(ray_init(&join, &guest, &err));
  rt = guest;
  CHECK_EQ(kit_take_i64(kit_submit_i64("add", 1, 2)), 3);
  kit_shutdown();
  rt = host; /* the guest's end is not the cluster's */
  CHECK_EQ(kit_take_i64(kit_submit_i64("add", 2, 2)), 4);
  join.address = ray_cstr("/nonexistent/session");
  CHECK_CODE(RAY_NOT_FOUND, ray_init(&join, &guest, &err));
  CHECK_MESSAGE("/nonexistent/session");
}

static double functions_known(void) {
  ray_buffer buffer = RAY_BUFFER_INIT;
  double n = -1;
  mp at;
  CHECK_OK(ray_cluster_query(rt, ray_cstr("process"), (ray_bytes){NULL, 0}, &buffer, &err));
  if (mp_find(mp_of(buffer.data, (size_t)buffer.size), "functions", &at)) n = mp_number(at);
  ray_buffer_release(&buffer);
  return n;
}

/* A function is known as long as somebody has a handle of it, or a task of it is not done; of others the last 1024. */
static void functions_that_nobody_has_are_forgotten(void) {
  ray_function *one, *same;
  ray_arg arg;
  ray_ref* ref;
  char name[32];
  int i;
  kit_init();
  CHECK_EQ(kit_take_i64(kit_submit_i64("add", 1, 2)), 3);
  for (i = 0; i < 20000; i++) {
    snprintf(name, sizeof name, "made on the fly %d", i);
    CHECK_OK(ray_function_define(rt, RAY_LANG_PYTHON, ray_cstr(name), (ray_bytes){name, 8}, &one, &err));
    if (i % 2) ray_function_release(ray_function_retain(one));
    CHECK_OK(ray_function_define(rt, RAY_LANG_PYTHON, ray_cstr(name), (ray_bytes){name, 8}, &same, &err));
    ray_function_release(one);
    ray_function_release(same);
  }
  CHECK(functions_known() == 1024); /* the last ones: the same may be made again */
  CHECK_OK(ray_function_get(rt, ray_cstr("await_file"), &one, &err));
  arg = kit_text(kit_path("go"));
  CHECK_OK(ray_submit(rt, one, &arg, 1, NULL, &ref, &err));
  ray_function_release(one);
  CHECK(functions_known() == 1025); /* the task's is not among these */
  kit_touch(kit_path("go"));
  CHECK_EQ(kit_take_i64(ref), 7);
  CHECK(functions_known() == 1024);
  CHECK_EQ(kit_take_i64(kit_submit_i64("add", 1, 2)), 3); /* and again */
}

static const kit_test tests[] = {KIT_TEST(one_task),
                                 KIT_TEST(functions_that_nobody_has_are_forgotten),
                                 KIT_TEST(many_tasks),
                                 KIT_TEST(pointer_of_the_user),
                                 KIT_TEST(references_as_arguments),
                                 KIT_TEST(long_chain),
                                 KIT_TEST(several_returns),
                                 KIT_TEST(no_returns),
                                 KIT_TEST(errors_carry_payload),
                                 KIT_TEST(unknown_function),
                                 KIT_TEST(names),
                                 KIT_TEST(names_of_one_fast_hash),
                                 KIT_TEST(sizes_of_values),
                                 KIT_TEST(nested_on_one_cpu),
                                 KIT_TEST(retried_after_a_crash),
                                 KIT_TEST(retried_after_an_error),
                                 KIT_TEST(final_error_is_not_retried),
                                 KIT_TEST(one_of_two_results_failed),
                                 KIT_TEST(put_of_an_error),
                                 KIT_TEST(found_by_id),
                                 KIT_TEST(get_fails_at_the_first_error),
                                 KIT_TEST(ids_are_deterministic),
                                 KIT_TEST(cancel_queued),
                                 KIT_TEST(cancel_running),
                                 KIT_TEST(cancel_by_force),
                                 KIT_TEST(cancel_children),
                                 KIT_TEST(fractional_resources),
                                 KIT_TEST(gpus_of_tasks),
                                 KIT_TEST(infeasible),
                                 KIT_TEST(two_workers_at_once),
                                 KIT_TEST(two_runtimes),
                                 KIT_TEST(init_again),
                                 KIT_TEST(join_by_address)};
KIT_MAIN(tests, register_all)
