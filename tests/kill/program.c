/* program.c -- the C program of the kill matrix: tasks, actors, generators, nested references, puts
 * and large objects, each with an answer that is known beforehand. tests/kill/matrix.py runs it and
 * kills parts of its cluster meanwhile.
 *
 * KILL_DIR      directory of this run: `ready` is made when the first round begins, the program ends
 *               after the round in which it sees `stop`
 * KILL_SEED     seed of the order of its steps
 * KILL_VICTIMS  roles that may be killed ("worker,shard,node"): only what their deaths explain is
 *               an error that a get may give
 * Status 0 = every value was right, every error allowed, and this process holds nothing afterwards.
 */
#define _POSIX_C_SOURCE 200809L
#include <unistd.h>

#include "kit.h"
#include "processes.h"

/* ---- what workers run ---- */

static ray_code add(ray_task* task, void* user) {
  (void)user;
  return kit_return_i64(task, 0, kit_arg_i64(task, 0) + kit_arg_i64(task, 1));
}

enum { kLarge = 700000 }; /* bytes: several do not fit into the store together */

static uint8_t pattern(int64_t seed, size_t at) { return (uint8_t)(seed * 31 + (int64_t)at / 4096); }

static ray_value large_value(int64_t seed) {
  uint8_t* data = malloc(kLarge);
  size_t i;
  CHECK(data != NULL);
  for (i = 0; i < kLarge; i++) data[i] = pattern(seed, i);
  return ray_plain(data, kLarge, RAY_FMT_RAW);
}

static bool is_large_value(const ray_buffer* buffer, int64_t seed) {
  const uint8_t* data = buffer->data;
  size_t i;
  if (buffer->size != kLarge) return false;
  for (i = 0; i < kLarge; i += 1021)
    if (data[i] != pattern(seed, i)) return false;
  return data[kLarge - 1] == pattern(seed, kLarge - 1);
}

static ray_code fill(ray_task* task, void* user) {
  ray_value value = large_value(kit_arg_i64(task, 0));
  ray_code code = ray_task_return(task, 0, &value, NULL);
  (void)user;
  free((void*)value.data);
  return code;
}

static ray_code check_fill(ray_task* task, void* user) { /* (seed, large value) -> seed */
  const ray_buffer* args = NULL;
  int64_t seed = kit_arg_i64(task, 0);
  (void)user;
  CHECK(ray_task_args(task, &args) == 2);
  return kit_return_i64(task, 0, is_large_value(&args[1], seed) ? seed : -1);
}

static ray_code fib(ray_task* task, void* user) { /* waits for its children */
  int64_t n = kit_arg_i64(task, 0), zero = 0;
  ray_task_options options = RAY_TASK_OPTIONS_INIT;
  ray_ref* refs[2];
  int64_t values[2], k;
  ray_arg args[2];
  (void)user;
  if (n < 2) return kit_return_i64(task, 0, n);
  options.max_retries = RAY_RETRIES_INFINITE;
  for (k = 0; k < 2; k++) {
    int64_t m = n - 1 - k;
    args[0] = kit_i64(&m);
    args[1] = kit_i64(&zero);
    refs[k] = kit_submit("fib", args, 2, &options);
  }
  for (k = 0; k < 2; k++) values[k] = kit_take_i64(refs[k]);
  return kit_return_i64(task, 0, values[0] + values[1]);
}

static ray_code count_up(ray_task* task, void* user) { /* yields base, base + 1, ... */
  int64_t n = kit_arg_i64(task, 0), base = kit_arg_i64(task, 1), i, item;
  ray_value value = ray_plain(&item, sizeof item, RAY_FMT_RAW);
  ray_code code = RAY_OK;
  (void)user;
  for (i = 0; i < n && code == RAY_OK; i++) {
    item = base + i;
    code = ray_task_yield(task, &value, -1, NULL);
  }
  return code;
}

enum { kNested = 6 }; /* references in a returned value: puts, large puts, results of tasks */

static ray_code nest(ray_task* task, void* user) { /* (base) -> value with references */
  int64_t base = kit_arg_i64(task, 0), one = 1;
  ray_task_options options = RAY_TASK_OPTIONS_INIT;
  ray_ref* refs[kNested];
  ray_value value = RAY_VALUE_INIT, item;
  ray_arg args[2];
  ray_code code;
  int64_t i;
  (void)user;
  options.max_retries = RAY_RETRIES_INFINITE;
  for (i = 0; i < kNested; i++) {
    int64_t x = base + i;
    if (i % 3 == 0) {
      item = ray_plain(&x, sizeof x, RAY_FMT_RAW);
      CHECK_OK(ray_put(rt, &item, &refs[i], &err));
    } else if (i % 3 == 1) {
      item = large_value(x);
      CHECK_OK(ray_put(rt, &item, &refs[i], &err));
      free((void*)item.data);
    } else {
      args[0] = kit_i64(&x);
      args[1] = kit_i64(&one);
      refs[i] = kit_submit("add", args, 2, &options);
    }
  }
  value.format = RAY_FMT_RAW;
  value.refs = refs;
  value.n_refs = kNested;
  code = ray_task_return(task, 0, &value, NULL);
  for (i = 0; i < kNested; i++) ray_ref_release(refs[i]);
  return code;
}

static int64_t g_count;
static ray_code counter_create(ray_task* task, void* user) {
  (void)user;
  g_count = 0;
  return ray_task_set_self(task, &g_count, NULL);
}
static ray_code counter_next(ray_task* task, void* user) {
  (void)user;
  return kit_return_i64(task, 0, ++g_count);
}
static ray_code counter_echo(ray_task* task, void* user) {
  (void)user;
  return kit_return_i64(task, 0, kit_arg_i64(task, 0));
}

static void register_all(void) {
  CHECK_OK(ray_register_function(ray_cstr("add"), add, NULL, &err));
  CHECK_OK(ray_register_function(ray_cstr("fill"), fill, NULL, &err));
  CHECK_OK(ray_register_function(ray_cstr("check_fill"), check_fill, NULL, &err));
  CHECK_OK(ray_register_function(ray_cstr("fib"), fib, NULL, &err));
  CHECK_OK(ray_register_function(ray_cstr("count_up"), count_up, NULL, &err));
  CHECK_OK(ray_register_function(ray_cstr("nest"), nest, NULL, &err));
  CHECK_OK(ray_register_actor(ray_cstr("Counter"), counter_create, NULL, NULL, &err));
  CHECK_OK(ray_register_method(ray_cstr("Counter"), ray_cstr("next"), counter_next, NULL, &err));
  CHECK_OK(ray_register_method(ray_cstr("Counter"), ray_cstr("echo"), counter_echo, NULL, &err));
}

/* ---- verdicts of the driver ---- */

static bool g_workers, g_node, g_node_died;
static long g_values, g_errors;

/* Whether the death of the node explains a code: it ends everything, at whatever stage it was. */
static bool node_explains(ray_code code) {
  bool yes = g_node && (code == RAY_NODE_DIED || code == RAY_WORKER_CRASHED ||
                        code == RAY_OBJECT_LOST || code == RAY_CANCELLED ||
                        code == RAY_UNAVAILABLE || code == RAY_ACTOR_DIED ||
                        code == RAY_STORE_FULL);
  if (yes) g_node_died = true;
  return yes;
}

/* An error that came instead of a value. `worker_codes`: what deaths of workers may cause here. */
static void expect_allowed(const char* step, ray_code code, const ray_code* worker_codes) {
  g_errors++;
  if (kit_message()[0] == 0)
    kit_fail(__FILE__, __LINE__, "%s: %s without a message", step, ray_code_name(code));
  for (; g_workers && worker_codes && *worker_codes; worker_codes++)
    if (*worker_codes == code) return;
  if (node_explains(code)) return;
  kit_fail(__FILE__, __LINE__, "%s: %s: %s", step, ray_code_name(code), kit_message());
}

static ray_code take(ray_ref* ref, ray_buffer* out) {
  ray_code code;
  kit_clear();
  code = ray_get(rt, &ref, 1, -1, out, &err);
  return code;
}

static const ray_code kNone[] = {RAY_OK};
static const ray_code kCrashed[] = {RAY_WORKER_CRASHED, RAY_OK};
static const ray_code kOwnerGone[] = {RAY_OBJECT_LOST, RAY_WORKER_CRASHED, RAY_OK};
static const ray_code kActorGone[] = {RAY_ACTOR_DIED, RAY_OK};
static const ray_code kActorRestarts[] = {RAY_ACTOR_RESTARTING, RAY_OK};

/* Gets and releases a number. Returns false after an allowed error. */
static bool take_number(const char* step, ray_ref* ref, int64_t* out, const ray_code* codes) {
  ray_buffer buffer = RAY_BUFFER_INIT;
  ray_code code;
  if (ref == NULL) return false; /* its submission failed */
  code = take(ref, &buffer);
  ray_ref_release(ref);
  if (code != RAY_OK) {
    expect_allowed(step, code, codes);
    return false;
  }
  CHECK_EQ(buffer.size, sizeof *out);
  memcpy(out, buffer.data, sizeof *out);
  ray_buffer_release(&buffer);
  g_values++;
  return true;
}

static void expect_number(const char* step, ray_ref* ref, int64_t right, const ray_code* codes) {
  int64_t value;
  if (take_number(step, ref, &value, codes) && value != right)
    kit_fail(__FILE__, __LINE__, "%s: %lld, not %lld", step, (long long)value, (long long)right);
}

static void expect_large(const char* step, ray_ref* ref, int64_t seed, const ray_code* codes) {
  ray_buffer buffer = RAY_BUFFER_INIT;
  ray_code code;
  if (ref == NULL) return;
  code = take(ref, &buffer);
  ray_ref_release(ref);
  if (code != RAY_OK) {
    expect_allowed(step, code, codes);
    return;
  }
  if (!is_large_value(&buffer, seed)) kit_fail(__FILE__, __LINE__, "%s: damaged", step);
  ray_buffer_release(&buffer);
  g_values++;
}

/* NULL after an allowed error. */
static ray_function* function_named(const char* name) {
  ray_function* handle = NULL;
  ray_code code;
  kit_clear();
  code = ray_function_get(rt, ray_cstr(name), &handle, &err);
  if (code != RAY_OK) expect_allowed(name, code, kNone);
  return handle;
}

/* Submits; NULL after an allowed error. Retries: RAY_RETRIES_INFINITE or 0. */
static ray_ref* start(const char* function, const ray_arg* args, size_t n, int32_t retries) {
  ray_task_options options = RAY_TASK_OPTIONS_INIT;
  ray_function* handle = function_named(function);
  ray_ref* ref = NULL;
  ray_code code;
  if (handle == NULL) return NULL;
  options.max_retries = retries;
  kit_clear();
  code = ray_submit(rt, handle, args, n, &options, &ref, &err);
  ray_function_release(handle);
  if (code != RAY_OK) expect_allowed(function, code, kNone);
  return code == RAY_OK ? ref : NULL;
}

static ray_ref* start_numbers(const char* function, int64_t a, int64_t b, int32_t retries) {
  ray_arg args[2];
  args[0] = kit_i64(&a);
  args[1] = kit_i64(&b);
  return start(function, args, 2, retries);
}

/* ---- steps ---- */

static int64_t g_base; /* another one in each step: stale values do not pass */

static void sums(void) { /* a chain through references beside loose tasks */
  enum { kTasks = 200, kChain = 20 };
  ray_ref *refs[kTasks], *chain = start_numbers("add", g_base, 0, RAY_RETRIES_INFINITE), *next;
  int64_t i, one = 1;
  ray_arg args[2];
  for (i = 0; i < kTasks; i++) refs[i] = start_numbers("add", g_base, i, RAY_RETRIES_INFINITE);
  for (i = 0; i < kChain && chain; i++) {
    args[0] = kit_ref(chain);
    args[1] = kit_i64(&one);
    next = start("add", args, 2, RAY_RETRIES_INFINITE);
    ray_ref_release(chain);
    chain = next;
  }
  for (i = 0; i < kTasks; i++) expect_number("sums", refs[i], g_base + i, kNone);
  expect_number("chain", chain, g_base + kChain, kNone);
}

static void without_retries(void) {
  enum { kTasks = 100 };
  ray_ref* refs[kTasks];
  int64_t i;
  for (i = 0; i < kTasks; i++) refs[i] = start_numbers("add", g_base, i, 0);
  for (i = 0; i < kTasks; i++) expect_number("without retries", refs[i], g_base + i, kCrashed);
}

static void large_objects(void) { /* more than the store holds: spilled and restored */
  enum { kObjects = 16 };
  ray_ref *refs[kObjects], *checks[kObjects];
  ray_value value;
  ray_arg args[2];
  ray_code code;
  int64_t i;
  for (i = 0; i < kObjects; i++) {
    int64_t seed = g_base + i;
    if (i % 2) {
      args[0] = kit_i64(&seed);
      refs[i] = start("fill", args, 1, RAY_RETRIES_INFINITE);
      continue;
    }
    value = large_value(seed);
    refs[i] = NULL;
    kit_clear();
    code = ray_put(rt, &value, &refs[i], &err);
    if (code != RAY_OK) expect_allowed("put", code, kNone);
    free((void*)value.data);
  }
  for (i = 0; i < kObjects; i++) {
    int64_t seed = g_base + i;
    checks[i] = NULL;
    if (refs[i] == NULL) continue;
    args[0] = kit_i64(&seed);
    args[1] = kit_ref(refs[i]);
    checks[i] = start("check_fill", args, 2, RAY_RETRIES_INFINITE);
  }
  for (i = 0; i < kObjects; i++) expect_number("large argument", checks[i], g_base + i, kNone);
  for (i = 0; i < kObjects; i++) expect_large("large object", refs[i], g_base + i, kNone);
}

static void recursion(void) {
  expect_number("recursion", start_numbers("fib", 7, 0, RAY_RETRIES_INFINITE), 13, kNone);
}

static void generator(void) {
  enum { kItems = 60 };
  ray_task_options options = RAY_TASK_OPTIONS_INIT;
  ray_function* handle = function_named("count_up");
  ray_stream* stream = NULL;
  ray_ref* item;
  ray_arg args[2];
  ray_code code;
  int64_t n = kItems, i;
  if (handle == NULL) return;
  options.max_retries = RAY_RETRIES_INFINITE;
  options.stream_window = 8;
  args[0] = kit_i64(&n);
  args[1] = kit_i64(&g_base);
  kit_clear();
  code = ray_submit_stream(rt, handle, args, 2, &options, &stream, &err);
  ray_function_release(handle);
  if (code != RAY_OK) {
    expect_allowed("generator", code, kNone);
    return;
  }
  for (i = 0;; i++) {
    kit_clear();
    code = ray_stream_next(stream, -1, &item, &err);
    if (code != RAY_OK) break;
    CHECK(i <= kItems);
    expect_number("generator", item, g_base + i, kNone);
  }
  if (code != RAY_STREAM_END) expect_allowed("generator", code, kNone);
  if (!g_node_died) CHECK_EQ(i, kItems);
  ray_stream_release(stream);
}

static void nested_references(void) {
  enum { kValues = 5 };
  ray_ref* refs[kValues];
  ray_buffer buffer;
  ray_arg arg;
  int64_t i;
  uint32_t k;
  for (i = 0; i < kValues; i++) {
    int64_t base = g_base + 100 * i;
    arg = kit_i64(&base);
    refs[i] = start("nest", &arg, 1, RAY_RETRIES_INFINITE);
  }
  for (i = 0; i < kValues; i++) {
    int64_t base = g_base + 100 * i;
    ray_code code;
    if (refs[i] == NULL) continue;
    memset(&buffer, 0, sizeof buffer);
    code = take(refs[i], &buffer);
    ray_ref_release(refs[i]);
    if (code != RAY_OK) {
      expect_allowed("nested value", code, kNone);
      continue;
    }
    CHECK_EQ(buffer.n_refs, kNested);
    for (k = 0; k < kNested; k++) {
      ray_ref* ref = NULL;
      kit_clear();
      code = ray_buffer_ref(&buffer, k, &ref, &err);
      if (code != RAY_OK)
        expect_allowed("nested reference", code, kNone);
      else if (k % 3 == 1) /* what was put outlives the worker that put it */
        expect_large("nested large put", ref, base + k, kNone);
      else if (k % 3 == 0)
        expect_number("nested put", ref, base + k, kNone);
      else /* a task of a worker ends with it */
        expect_number("nested task", ref, base + k + 1, kOwnerGone);
    }
    ray_buffer_release(&buffer);
  }
}

static ray_actor* make_actor(int32_t restarts, int32_t retries) {
  ray_actor_options options = RAY_ACTOR_OPTIONS_INIT;
  ray_function* handle = function_named("Counter");
  ray_actor* actor = NULL;
  ray_code code;
  if (handle == NULL) return NULL;
  options.max_restarts = restarts;
  options.max_task_retries = retries;
  kit_clear();
  code = ray_actor_create(rt, handle, NULL, 0, &options, &actor, &err);
  ray_function_release(handle);
  if (code != RAY_OK) expect_allowed("actor", code, kNone);
  return code == RAY_OK ? actor : NULL;
}

enum { kCalls = 60 };

static void call_all(ray_actor* actor, const char* method, ray_ref** refs) {
  ray_arg arg;
  ray_code code;
  int64_t i;
  for (i = 0; i < kCalls; i++) {
    int64_t x = g_base + i;
    arg = kit_i64(&x);
    refs[i] = NULL;
    kit_clear();
    code = ray_actor_call(actor, ray_cstr(method), &arg, 1, NULL, &refs[i], &err);
    if (code != RAY_OK) expect_allowed("call", code, kActorGone);
  }
}

/* Without restarts: 1, 2, 3, ..., then, if its worker is killed, errors to the end. */
static void mortal_actor(void) {
  ray_actor* actor = make_actor(0, 0);
  ray_ref* refs[kCalls];
  bool dead = false;
  int64_t i, value;
  if (actor == NULL) return;
  call_all(actor, "next", refs);
  for (i = 0; i < kCalls; i++) {
    if (!take_number("mortal actor", refs[i], &value, kActorGone)) {
      dead = true;
      continue;
    }
    if (dead) kit_fail(__FILE__, __LINE__, "a dead actor answered call %d", (int)i);
    CHECK_EQ(value, i + 1);
  }
  ray_actor_release(actor);
}

/* With restarts: calls are lost, never repeated; each incarnation counts from 1 in steps of 1. */
static void restarting_actor(void) {
  ray_actor* actor = make_actor(RAY_RETRIES_INFINITE, 0);
  ray_ref* refs[kCalls];
  int64_t i, value, last = 0;
  if (actor == NULL) return;
  call_all(actor, "next", refs);
  for (i = 0; i < kCalls; i++) {
    if (!take_number("restarting actor", refs[i], &value, kActorRestarts)) continue;
    if (value != last + 1 && (!g_workers || value != 1))
      kit_fail(__FILE__, __LINE__, "restarting actor: %d after %d", (int)value, (int)last);
    last = value;
  }
  ray_actor_release(actor);
}

/* With restarts and retries every call is answered. */
static void immortal_actor(void) {
  ray_actor* actor = make_actor(RAY_RETRIES_INFINITE, RAY_RETRIES_INFINITE);
  ray_ref* refs[kCalls];
  int64_t i;
  if (actor == NULL) return;
  call_all(actor, "echo", refs);
  for (i = 0; i < kCalls; i++) expect_number("immortal actor", refs[i], g_base + i, kNone);
  ray_actor_release(actor);
}

/* What ray_actor_kill ended never answers again, and its name is free at once. */
static void killed_actor(void) {
  ray_actor* actor = make_actor(RAY_RETRIES_INFINITE, 0);
  static const ray_code gone[] = {RAY_ACTOR_DIED, RAY_ACTOR_RESTARTING, RAY_OK};
  ray_ref* refs[kCalls];
  ray_code code;
  int64_t i, value;
  bool workers = g_workers;
  if (actor == NULL) return;
  call_all(actor, "next", refs);
  for (i = 0; i < kCalls; i++) take_number("before the kill", refs[i], &value, kActorRestarts);
  kit_clear();
  code = ray_actor_kill(actor, false, &err);
  if (code != RAY_OK) expect_allowed("kill", code, kNone);
  g_workers = true; /* this one is meant to die */
  call_all(actor, "next", refs);
  for (i = 0; i < kCalls; i++)
    if (take_number("after the kill", refs[i], &value, gone) && code == RAY_OK)
      kit_fail(__FILE__, __LINE__, "a killed actor answered call %d", (int)i);
  g_workers = workers;
  ray_actor_release(actor);
}

static void key_value(void) { /* the control store keeps what it has confirmed */
  ray_bytes key, value;
  ray_buffer buffer = RAY_BUFFER_INIT;
  uint64_t version = 0;
  ray_code code;
  char text[32];
  int64_t i;
  for (i = 0; i < 5; i++) {
    snprintf(text, sizeof text, "k%lld", (long long)(g_base + i));
    key.data = value.data = text;
    key.size = value.size = strlen(text);
    kit_clear();
    code = ray_kv_put(rt, ray_cstr("kill"), key, value, RAY_KV_ANY, &version, &err);
    if (code != RAY_OK) {
      expect_allowed("kv_put", code, kNone);
      continue;
    }
    kit_clear();
    code = ray_kv_get(rt, ray_cstr("kill"), key, &buffer, &version, &err);
    if (code != RAY_OK) {
      expect_allowed("kv_get", code, kNone);
      continue;
    }
    CHECK_EQ(buffer.size, key.size);
    CHECK(memcmp(buffer.data, text, key.size) == 0);
    ray_buffer_release(&buffer);
    g_values++;
  }
}

static void (*const kSteps[])(void) = {sums,          without_retries,  large_objects,
                                       recursion,     generator,        nested_references,
                                       mortal_actor,  restarting_actor, immortal_actor,
                                       killed_actor,  key_value};

/* ---- the run ---- */

static const char* in_run(const char* name) {
  static char path[1024];
  snprintf(path, sizeof path, "%s/%s", getenv("KILL_DIR"), name);
  return path;
}

static uint64_t g_random;
static uint64_t random_next(void) { /* xorshift64 */
  g_random ^= g_random << 13;
  g_random ^= g_random >> 7;
  g_random ^= g_random << 17;
  return g_random;
}

static void init(void) {
  ray_runtime_options options = RAY_RUNTIME_OPTIONS_INIT;
  ray_code code;
  FILE* file;
  ray_str dir;
  options.num_cpus = 2;
  options.store_bytes = 8u << 20;
  options.session_dir = ray_cstr(getenv("KILL_DIR"));
  kit_clear();
  code = ray_init(&options, &rt, &err);
  if (code != RAY_OK) { /* killed before it could serve: that is said, and nothing is left */
    expect_allowed("init", code, kNone);
    printf("no cluster: %s\n", kit_message());
    exit(0);
  }
  dir = ray_runtime_session_dir(rt);
  file = fopen(in_run("session"), "w");
  CHECK(file != NULL);
  fprintf(file, "%.*s", (int)dir.size, dir.data);
  fclose(file);
}

static void end(void) {
  ray_code code;
  kit_clear();
  code = ray_shutdown(rt, 1000000000, &err);
  if (code != RAY_OK) expect_allowed("shutdown", code, kNone);
  ray_runtime_release(rt);
  rt = NULL;
  CHECK_EQ(proc_memfds((long)getpid()), 0);
  CHECK_EQ(proc_threads((long)getpid()), 1);
}

int main(void) {
  enum { kCount = sizeof kSteps / sizeof kSteps[0] };
  const char* victims = getenv("KILL_VICTIMS");
  const char* seed = getenv("KILL_SEED");
  uint64_t start_at;
  int round = 0, i;
  register_all();
  if (getenv("LIBRAY_WORKER")) {
    ray_code code = ray_init(NULL, &rt, NULL);
    if (code == RAY_OK) code = ray_worker_run(rt, NULL);
    ray_runtime_release(rt);
    return code == RAY_OK || code == RAY_CANCELLED ? 0 : 1;
  }
  setvbuf(stdout, NULL, _IOLBF, 0);
  g_workers = victims && strstr(victims, "worker");
  g_node = victims && strstr(victims, "node");
  g_random = (seed ? strtoull(seed, NULL, 10) : 1) * 0x9E3779B97F4A7C15u + 1;
  init();
  kit_touch(in_run("ready"));
  do { /* each round: every step once, from a random one on in random strides */
    start_at = random_next();
    for (i = 0; i < kCount; i++) {
      g_base = (int64_t)(random_next() >> 20);
      kSteps[(start_at + (uint64_t)i * (1 + start_at / kCount % (kCount - 1))) % kCount]();
    }
    round++;
  } while (!g_node_died && !kit_exists(in_run("stop")));
  end();
  printf("%d rounds, %ld values, %ld errors%s\n", round, g_values, g_errors,
         g_node_died ? ", the node died" : "");
  return 0;
}
