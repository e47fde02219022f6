/* actors.c -- actors in plain C: state, order, names, lifetime, death, restart, handles inside
 * values. */
#define _POSIX_C_SOURCE 200809L
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include "kit.h"

/* ---- the remote side: a log of numbers ---- */

typedef struct log {
  int64_t values[4096];
  int64_t n;
  char gone[512]; /* touched by destroy */
} log_t;

static ray_code log_create(ray_task* task, void* user) {
  log_t* self = calloc(1, sizeof *self);
  const ray_buffer* args;
  (void)user;
  if (ray_task_args(task, &args) > 0) kit_arg_text(task, 0, self->gone, sizeof self->gone);
  return ray_task_set_self(task, self, NULL);
}

static void log_destroy(void* self, void* user) {
  log_t* log = (log_t*)self;
  (void)user;
  if (log->gone[0]) kit_touch(log->gone);
  free(log);
}

static ray_code log_append(ray_task* task, void* user) { /* returns how many there are */
  log_t* self = (log_t*)ray_task_self(task);
  (void)user;
  self->values[self->n++ % 4096] = kit_arg_i64(task, 0);
  return kit_return_i64(task, 0, self->n);
}

static ray_code log_all(ray_task* task, void* user) {
  log_t* self = (log_t*)ray_task_self(task);
  ray_value value = ray_plain(self->values, (size_t)self->n * 8, RAY_FMT_RAW);
  (void)user;
  return ray_task_return(task, 0, &value, NULL);
}

static ray_code log_pid(ray_task* task, void* user) {
  (void)user;
  return kit_return_i64(task, 0, (int64_t)getpid());
}

static ray_code log_fail(ray_task* task, void* user) {
  (void)user;
  ray_task_fail(task, ray_cstr("the log is full"), NULL);
  return RAY_TASK_FAILED;
}

static ray_code log_wait(ray_task* task, void* user) { /* touches args[0], waits for args[1] */
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

static ray_code log_leave(ray_task* task, void* user) { /* ends the actor, and returns normally */
  (void)user;
  kit_return_i64(task, 0, 1);
  return RAY_ACTOR_DIED;
}

static ray_code log_crash(ray_task* task, void* user) {
  (void)task, (void)user;
  raise(SIGKILL);
  return RAY_OK;
}

static ray_code broken_create(ray_task* task, void* user) {
  (void)user;
  ray_task_fail(task, ray_cstr("no disk"), NULL);
  return RAY_TASK_FAILED;
}

/* A task that calls the actor whose handle lies in args[0]. */
static ray_code call_through(ray_task* task, void* user) {
  static ray_actor* way;
  const ray_buffer* args;
  ray_actor* actor;
  ray_ref* ref;
  int64_t n;
  (void)user;
  CHECK_EQ(ray_task_args(task, &args), 1);
  CHECK_OK(ray_buffer_ref(&args[0], 0, &ref, &err));
  CHECK_OK(ray_actor_from_ref(ref, &actor, &err));
  ray_ref_release(ref);
  n = kit_call_i64(actor, "append", 55);
  ray_actor_release(way); /* this process keeps its way to the actor: later calls need none */
  way = actor;
  return kit_return_i64(task, 0, n);
}

static ray_code find_and_append(ray_task* task, void* user) {
  ray_actor* actor;
  char name[64];
  int64_t n;
  (void)user;
  CHECK_OK(ray_actor_find(rt, ray_cstr(kit_arg_text(task, 0, name, sizeof name)), ray_cstr(""),
                          &actor, &err));
  n = kit_call_i64(actor, "append", 66);
  ray_actor_release(actor);
  return kit_return_i64(task, 0, n);
}

/* A task that appends the numbers args[1] to args[2] to the actor in args[0], and waits for none of it. */
static ray_code append_range(ray_task* task, void* user) {
  const ray_buffer* args;
  ray_actor* actor;
  ray_ref* ref;
  int64_t i;
  (void)user;
  CHECK_EQ(ray_task_args(task, &args), 3);
  CHECK_OK(ray_buffer_ref(&args[0], 0, &ref, &err));
  CHECK_OK(ray_actor_from_ref(ref, &actor, &err));
  ray_ref_release(ref);
  for (i = kit_arg_i64(task, 1); i <= kit_arg_i64(task, 2); i++) {
    ray_arg arg = kit_i64(&i);
    ray_ref_release(kit_call(actor, "append", &arg, 1));
  }
  ray_actor_release(actor);
  return kit_return_i64(task, 0, 1);
}

static ray_code sum_create(ray_task* task, void* user) { /* a log of the sum of all arguments */
  log_t* self = calloc(1, sizeof *self);
  const ray_buffer* args;
  size_t i, n = ray_task_args(task, &args);
  (void)user;
  for (i = 0; i < n; i++) self->values[0] += kit_arg_i64(task, i);
  self->n = 1;
  return ray_task_set_self(task, self, NULL);
}

/* Waits for args[0], then fails with an error that is longer than a ring. */
static ray_code fail_at_length(ray_task* task, void* user) {
  static char payload[1200 << 10];
  ray_value value = ray_plain(payload, sizeof payload, RAY_FMT_RAW);
  char path[512];
  (void)user;
  kit_await(kit_arg_text(task, 0, path, sizeof path));
  ray_task_fail(task, ray_cstr("at length"), &value);
  return RAY_TASK_FAILED;
}

/* Waits for args[0], then looks for the actor args[1]: the code of that. Touches args[2] before. */
static ray_code code_of_a_find(ray_task* task, void* user) {
  char path[512], name[64];
  ray_actor* actor;
  ray_code code;
  (void)user;
  kit_touch(kit_arg_text(task, 2, path, sizeof path));
  kit_await(kit_arg_text(task, 0, path, sizeof path));
  code = ray_actor_find(rt, ray_cstr(kit_arg_text(task, 1, name, sizeof name)), ray_cstr(""), &actor, NULL);
  if (code == RAY_OK) ray_actor_release(actor);
  return code == RAY_CANCELLED ? code : kit_return_i64(task, 0, code);
}

/* What a call of the actor in args[0] comes to; touches args[1] when it is under way. */
static ray_code code_of_a_call(ray_task* task, void* user) {
  const ray_buffer* args;
  ray_actor* actor;
  ray_ref *ref, *result;
  ray_code code;
  char path[512];
  (void)user;
  CHECK_EQ(ray_task_args(task, &args), 2);
  CHECK_OK(ray_buffer_ref(&args[0], 0, &ref, &err));
  CHECK_OK(ray_actor_from_ref(ref, &actor, &err));
  ray_ref_release(ref);
  result = kit_call(actor, "pid", NULL, 0);
  kit_touch(kit_arg_text(task, 1, path, sizeof path));
  code = kit_get_code(result);
  ray_ref_release(result);
  ray_actor_release(actor);
  return kit_return_i64(task, 0, code);
}

static void register_all(void) {
  static const struct {
    const char* name;
    ray_task_fn fn;
  } methods[] = {{"append", log_append}, {"all", log_all},   {"pid", log_pid},
                 {"fail", log_fail},     {"wait", log_wait}, {"leave", log_leave},
                 {"crash", log_crash}};
  size_t i;
  CHECK_OK(ray_register_actor(ray_cstr("Log"), log_create, log_destroy, NULL, &err));
  CHECK_OK(ray_register_actor(ray_cstr("Broken"), broken_create, NULL, NULL, &err));
  for (i = 0; i < sizeof methods / sizeof methods[0]; i++) {
    ray_str name = ray_cstr(methods[i].name);
    CHECK_OK(ray_register_method(ray_cstr("Log"), name, methods[i].fn, NULL, &err));
    CHECK_OK(ray_register_method(ray_cstr("Broken"), name, methods[i].fn, NULL, &err));
  }
  CHECK_OK(ray_register_actor(ray_cstr("Sum"), sum_create, log_destroy, NULL, &err));
  CHECK_OK(ray_register_method(ray_cstr("Sum"), ray_cstr("all"), log_all, NULL, &err));
  CHECK_OK(ray_register_method(ray_cstr("Sum"), ray_cstr("pid"), log_pid, NULL, &err));
  CHECK_OK(ray_register_function(ray_cstr("fail_at_length"), fail_at_length, NULL, &err));
  CHECK_OK(ray_register_function(ray_cstr("code_of_a_call"), code_of_a_call, NULL, &err));
  CHECK_OK(ray_register_function(ray_cstr("code_of_a_find"), code_of_a_find, NULL, &err));
  CHECK_OK(ray_register_function(ray_cstr("call_through"), call_through, NULL, &err));
  CHECK_OK(ray_register_function(ray_cstr("append_range"), append_range, NULL, &err));
  CHECK_OK(ray_register_function(ray_cstr("find_and_append"), find_and_append, NULL, &err));
}

/* ---- tests ---- */

static void state_and_order(void) {
  enum { kN = 2000 };
  static ray_ref* refs[kN];
  ray_buffer buffer = RAY_BUFFER_INIT;
  ray_actor* actor;
  ray_ref* all;
  ray_arg arg;
  int64_t i;
  kit_init();
  actor = kit_actor("Log", NULL);
  for (i = 0; i < kN; i++) {
    arg = kit_i64(&i);
    refs[i] = kit_call(actor, "append", &arg, 1);
  }
  all = kit_call(actor, "all", NULL, 0);
  CHECK_OK(ray_get(rt, &all, 1, -1, &buffer, &err));
  CHECK_EQ(buffer.size, kN * 8);
  for (i = 0; i < kN; i++) {
    CHECK_EQ(((const int64_t*)buffer.data)[i], i);
    CHECK_EQ(kit_take_i64(refs[i]), i + 1);
  }
  ray_buffer_release(&buffer);
  ray_ref_release(all);
  ray_actor_release(actor);
}

static void errors_leave_it_alive(void) {
  ray_actor* actor;
  ray_ref* ref;
  kit_init();
  actor = kit_actor("Log", NULL);
  ref = kit_call(actor, "fail", NULL, 0);
  CHECK_CODE(RAY_TASK_FAILED, kit_get_code(ref));
  CHECK_MESSAGE("the log is full");
  ray_ref_release(ref);
  ref = kit_call(actor, "no_such_method", NULL, 0);
  CHECK(kit_get_code(ref) != RAY_OK);
  CHECK_MESSAGE("no_such_method");
  ray_ref_release(ref);
  CHECK_EQ(kit_call_i64(actor, "append", 1), 1);
  ray_actor_release(actor);
}

static void constructor_fails(void) {
  ray_actor* actor;
  ray_ref* ref;
  kit_init();
  actor = kit_actor("Broken", NULL);
  ref = kit_call(actor, "pid", NULL, 0);
  CHECK_CODE(RAY_ACTOR_DIED, kit_get_code(ref));
  CHECK_MESSAGE("no disk");
  ray_ref_release(ref);
  ray_actor_release(actor);
}

static void names_and_namespaces(void) {
  ray_actor_options options = RAY_ACTOR_OPTIONS_INIT;
  ray_actor *first, *second, *found = NULL;
  ray_function* klass;
  ray_id a, b;
  kit_init();
  options.name = ray_cstr("the log");
  first = kit_actor("Log", &options);
  CHECK_OK(ray_function_get(rt, ray_cstr("Log"), &klass, &err));
  CHECK_CODE(RAY_ALREADY_EXISTS, ray_actor_create(rt, klass, NULL, 0, &options, &second, &err));
  CHECK_MESSAGE("the log");
  options.ns = ray_cstr("elsewhere");
  CHECK_OK(ray_actor_create(rt, klass, NULL, 0, &options, &second, &err));
  options.ns = ray_cstr("");
  options.flags = RAY_ACTOR_GET_IF_EXISTS;
  CHECK_OK(ray_actor_create(rt, klass, NULL, 0, &options, &found, &err));
  a = ray_actor_id(first);
  b = ray_actor_id(found);
  CHECK(memcmp(&a, &b, sizeof a) == 0);
  b = ray_actor_id(second);
  CHECK(memcmp(&a, &b, sizeof a) != 0);
  CHECK_EQ(kit_call_i64(found, "append", 1), 1);
  ray_actor_release(found);
  CHECK_OK(ray_actor_find(rt, ray_cstr("the log"), ray_cstr(""), &found, &err));
  CHECK_EQ(kit_call_i64(found, "append", 1), 2);
  ray_actor_release(found);
  CHECK_OK(ray_actor_find(rt, ray_cstr("the log"), ray_cstr("elsewhere"), &found, &err));
  CHECK_EQ(kit_call_i64(found, "append", 1), 1);
  CHECK_CODE(RAY_NOT_FOUND, ray_actor_find(rt, ray_cstr("nobody"), ray_cstr(""), &found, &err));
  CHECK_MESSAGE("nobody");
  ray_actor_release(found);
  ray_actor_release(first);
  ray_actor_release(second);
  ray_function_release(klass);
}

static void found_in_a_task(void) {
  ray_actor_options options = RAY_ACTOR_OPTIONS_INIT;
  ray_actor* actor;
  ray_arg arg = kit_text("shared");
  kit_init();
  options.name = ray_cstr("shared");
  actor = kit_actor("Log", &options);
  CHECK_EQ(kit_take_i64(kit_submit("find_and_append", &arg, 1, NULL)), 1);
  CHECK_EQ(kit_call_i64(actor, "append", 1), 2);
  ray_actor_release(actor);
}

static void metadata(void) {
  ray_actor_options options = RAY_ACTOR_OPTIONS_INIT;
  ray_actor *actor, *found;
  ray_bytes bytes;
  kit_init();
  options.name = ray_cstr("with methods");
  options.metadata.data = "append,all";
  options.metadata.size = 10;
  actor = kit_actor("Log", &options);
  CHECK_OK(ray_actor_metadata(actor, &bytes, &err));
  CHECK(bytes.size == 10 && memcmp(bytes.data, "append,all", 10) == 0);
  CHECK_OK(ray_actor_find(rt, ray_cstr("with methods"), ray_cstr(""), &found, &err));
  CHECK_OK(ray_actor_metadata(found, &bytes, &err));
  CHECK(bytes.size == 10 && memcmp(bytes.data, "append,all", 10) == 0);
  ray_actor_release(found);
  ray_actor_release(actor);
}

static void handle_inside_a_value(void) {
  ray_value value = ray_plain("box", 3, RAY_FMT_RAW);
  ray_actor *actor, *back = NULL;
  ray_ref *ref, *box;
  ray_id a, b;
  ray_arg arg;
  kit_init();
  actor = kit_actor("Log", NULL);
  CHECK_OK(ray_actor_to_ref(actor, &ref, &err));
  value.refs = &ref;
  value.n_refs = 1;
  CHECK_OK(ray_put(rt, &value, &box, &err));
  CHECK_OK(ray_actor_from_ref(ref, &back, &err));
  a = ray_actor_id(actor);
  b = ray_actor_id(back);
  CHECK(memcmp(&a, &b, sizeof a) == 0);
  ray_ref_release(ref);
  ray_actor_release(actor);
  ray_actor_release(back); /* the box alone keeps it alive */
  arg = kit_ref(box);
  CHECK_EQ(kit_take_i64(kit_submit("call_through", &arg, 1, NULL)), 1);
  CHECK_EQ(kit_take_i64(kit_submit("call_through", &arg, 1, NULL)), 2);
  ray_ref_release(box);
}

/* The last handle ends it after its pending calls, gracefully: destroy runs. */
static void counted_lifetime(void) {
  ray_function* klass;
  ray_actor *actor, *same;
  ray_ref* refs[20];
  ray_arg arg;
  int64_t i, pid;
  kit_init();
  arg = kit_text(kit_path("gone"));
  CHECK_OK(ray_function_get(rt, ray_cstr("Log"), &klass, &err));
  CHECK_OK(ray_actor_create(rt, klass, &arg, 1, NULL, &actor, &err));
  same = ray_actor_retain(actor);
  CHECK(same != NULL);
  pid = kit_take_i64(kit_call(actor, "pid", NULL, 0));
  ray_actor_release(actor);
  for (i = 0; i < 20; i++) {
    arg = kit_i64(&i);
    refs[i] = kit_call(same, "append", &arg, 1);
  }
  ray_actor_release(same);
  for (i = 0; i < 20; i++) CHECK_EQ(kit_take_i64(refs[i]), i + 1);
  kit_await(kit_path("gone"));
  kit_await_gone((long)pid);
  ray_function_release(klass);
}

static bool is_dead(void* actor) { /* calls that overtake the kill may still be answered */
  ray_ref* ref = kit_call((ray_actor*)actor, "pid", NULL, 0);
  ray_code code = kit_get_code(ref);
  ray_ref_release(ref);
  return code == RAY_ACTOR_DIED;
}

static void detached(void) {
  ray_actor_options options = RAY_ACTOR_OPTIONS_INIT;
  ray_actor *actor, *found;
  kit_init();
  options.name = ray_cstr("keeper");
  options.lifetime = RAY_LIFETIME_DETACHED;
  actor = kit_actor("Log", &options);
  CHECK_EQ(kit_call_i64(actor, "append", 1), 1);
  ray_actor_release(actor);
  CHECK_OK(ray_actor_find(rt, ray_cstr("keeper"), ray_cstr(""), &found, &err));
  CHECK_EQ(kit_call_i64(found, "append", 1), 2); /* the same state: it lived on without handles */
  CHECK_OK(ray_actor_kill(found, false, &err));
  CHECK_UNTIL(is_dead, found);
  kit_clear();
  ray_actor_release(found);
}

static bool name_is_free(void* user) {
  ray_actor* found;
  (void)user;
  if (ray_actor_find(rt, ray_cstr("mortal"), ray_cstr(""), &found, NULL) != RAY_OK) return true;
  ray_actor_release(found);
  return false;
}

static void killed(void) {
  ray_actor_options options = RAY_ACTOR_OPTIONS_INIT;
  ray_actor* actor;
  ray_ref *running, *queued, *late;
  ray_arg args[2];
  int64_t pid;
  kit_init();
  options.name = ray_cstr("mortal");
  actor = kit_actor("Log", &options);
  pid = kit_take_i64(kit_call(actor, "pid", NULL, 0));
  args[0] = kit_text(kit_path("runs"));
  args[1] = kit_text(kit_path("never"));
  running = kit_call(actor, "wait", args, 2);
  queued = kit_call(actor, "pid", NULL, 0);
  kit_await(kit_path("runs"));
  CHECK_OK(ray_actor_kill(actor, false, &err));
  CHECK_CODE(RAY_ACTOR_DIED, kit_get_code(running));
  CHECK_CODE(RAY_ACTOR_DIED, kit_get_code(queued));
  late = kit_call(actor, "pid", NULL, 0); /* both calls before it are lost: it is dead */
  CHECK_CODE(RAY_ACTOR_DIED, kit_get_code(late));
  kit_await_gone((long)pid);
  CHECK_UNTIL(name_is_free, NULL);
  ray_ref_release(running);
  ray_ref_release(queued);
  ray_ref_release(late);
  ray_actor_release(actor);
}

static ray_ref* g_pending;
static volatile bool g_over;

static void* look_on(void* user) { /* does what others have left to whoever comes next */
  uint8_t ready;
  size_t n;
  (void)user;
  while (!g_over) ray_wait(rt, &g_pending, 1, 1, 0, &ready, &n, NULL);
  return NULL;
}

/* Another thread may be about to carry out the creation of what is killed. */
static void a_kill_overtakes_no_creation(void) {
  enum { kRounds = 60, kThreads = 3 };
  const int64_t one = 1;
  const ray_value value = ray_plain(&one, sizeof one, RAY_FMT_RAW);
  pthread_t threads[kThreads];
  ray_function* klass;
  ray_actor* actor;
  ray_ref *ref, *answer;
  ray_arg args[3];
  int i;
  kit_init();
  args[0] = kit_text(kit_path("never"));
  args[1] = kit_text("nobody");
  args[2] = kit_text(kit_path("began"));
  g_pending = kit_submit("code_of_a_find", args, 3, NULL);
  CHECK_OK(ray_function_get(rt, ray_cstr("Sum"), &klass, &err));
  CHECK_OK(ray_test_fault(ray_cstr("object.sealed"), ray_cstr("delay:5ms@0"), &err));
  for (i = 0; i < kThreads; i++) CHECK_EQ(pthread_create(&threads[i], NULL, look_on, NULL), 0);
  for (i = 0; i < kRounds; i++) {
    CHECK_OK(ray_put(rt, &value, &ref, &err));
    args[0] = kit_ref(ref);
    CHECK_OK(ray_actor_create(rt, klass, args, 1, NULL, &actor, &err));
    CHECK_OK(ray_actor_kill(actor, false, &err));
    answer = kit_call(actor, "pid", NULL, 0);
    CHECK_CODE(RAY_ACTOR_DIED, kit_get_code(answer));
    ray_ref_release(answer);
    ray_ref_release(ref);
    ray_actor_release(actor);
  }
  g_over = true;
  for (i = 0; i < kThreads; i++) CHECK_EQ(pthread_join(threads[i], NULL), 0);
  CHECK_OK(ray_cancel(g_pending, RAY_CANCEL_FORCE, &err));
  ray_ref_release(g_pending);
  ray_function_release(klass);
}

static void leaves_by_its_own_will(void) {
  ray_actor* actor;
  ray_ref* ref;
  kit_init();
  actor = kit_actor("Log", NULL);
  CHECK_EQ(kit_take_i64(kit_call(actor, "leave", NULL, 0)), 1);
  ref = kit_call(actor, "pid", NULL, 0);
  CHECK_CODE(RAY_ACTOR_DIED, kit_get_code(ref));
  ray_ref_release(ref);
  ray_actor_release(actor);
}

static void crash_without_restart(void) {
  ray_actor* actor;
  ray_ref *ref, *after;
  kit_init();
  actor = kit_actor("Log", NULL);
  ref = kit_call(actor, "crash", NULL, 0);
  after = kit_call(actor, "pid", NULL, 0);
  CHECK_CODE(RAY_ACTOR_DIED, kit_get_code(ref));
  CHECK_CODE(RAY_ACTOR_DIED, kit_get_code(after));
  ray_ref_release(ref);
  ray_ref_release(after);
  ray_actor_release(actor);
}

typedef struct other_pid {
  ray_actor* actor;
  int64_t than;
} other_pid;

/* A call that is made while the kill is on its way may still be answered, or lost to the restart.
 */
static bool has_another_pid(void* user) {
  other_pid* o = (other_pid*)user;
  ray_ref* ref = kit_call(o->actor, "pid", NULL, 0);
  bool is_other = false;
  if (kit_get_code(ref) == RAY_OK) is_other = kit_get_i64(ref) != o->than;
  ray_ref_release(ref);
  kit_clear();
  return is_other;
}

/* A lost call fails unless it may be retried; the actor starts anew and goes on. */
static void restarts(void) {
  ray_actor_options options = RAY_ACTOR_OPTIONS_INIT;
  ray_actor* actor;
  ray_ref* ref;
  ray_code code;
  other_pid killed;
  int64_t before, after;
  kit_init();
  options.max_restarts = 2;
  actor = kit_actor("Log", &options);
  CHECK_EQ(kit_call_i64(actor, "append", 1), 1);
  before = kit_take_i64(kit_call(actor, "pid", NULL, 0));
  ref = kit_call(actor, "crash", NULL, 0);
  code = kit_get_code(ref);
  CHECK(code == RAY_ACTOR_RESTARTING || code == RAY_ACTOR_DIED);
  CHECK(ray_code_is_retryable(code) == (code == RAY_ACTOR_RESTARTING));
  ray_ref_release(ref);
  killed.actor = actor;
  killed.than = before;
  CHECK_UNTIL(has_another_pid, &killed); /* until then calls without retries fail */
  after = kit_take_i64(kit_call(actor, "pid", NULL, 0));
  CHECK(before != after);
  CHECK_EQ(kit_call_i64(actor, "append", 1), 1); /* its state is new */
  killed.than = after;
  CHECK_OK(ray_actor_kill(actor, true, &err));
  CHECK_UNTIL(has_another_pid, &killed); /* the second restart */
  ref = kit_call(actor, "crash", NULL, 0);
  CHECK(kit_get_code(ref) != RAY_OK);
  ray_ref_release(ref);
  ref = kit_call(actor, "pid", NULL, 0);
  CHECK_CODE(RAY_ACTOR_DIED, kit_get_code(ref)); /* no third */
  ray_ref_release(ref);
  ray_actor_release(actor);
}

/* With task retries every call that was lost to the restart is made again, in order. */
static void calls_survive_a_restart(void) {
  ray_actor_options options = RAY_ACTOR_OPTIONS_INIT;
  ray_actor* actor;
  ray_ref* refs[50];
  ray_arg arg, args[2];
  ray_ref* hold;
  int64_t i, last = 0, value;
  kit_init();
  options.max_restarts = 1;
  options.max_task_retries = 3;
  actor = kit_actor("Log", &options);
  i = kit_take_i64(kit_call(actor, "pid", NULL, 0));
  args[0] = kit_text(kit_path("runs"));
  args[1] = kit_text(kit_path("go"));
  hold = kit_call(actor, "wait", args, 2);
  kit_await(kit_path("runs"));
  value = i;
  for (i = 0; i < 50; i++) {
    arg = kit_i64(&i);
    refs[i] = kit_call(actor, "append", &arg, 1);
  }
  CHECK_EQ(kill((pid_t)value, SIGKILL), 0);
  kit_touch(kit_path("go"));
  CHECK_EQ(kit_take_i64(hold), 7);
  for (i = 0; i < 50; i++) {
    value = kit_take_i64(refs[i]);
    CHECK(value == last + 1);
    last = value;
  }
  ray_actor_release(actor);
}

static void pending_calls_are_bounded(void) {
  ray_actor_options options = RAY_ACTOR_OPTIONS_INIT;
  ray_actor* actor;
  ray_ref *refs[3], *more = NULL;
  ray_arg args[2];
  int i;
  kit_init();
  options.max_pending_calls = 3;
  actor = kit_actor("Log", &options);
  args[0] = kit_text(kit_path("runs"));
  args[1] = kit_text(kit_path("go"));
  for (i = 0; i < 3; i++) refs[i] = kit_call(actor, "wait", args, 2);
  CHECK_CODE(RAY_UNAVAILABLE, ray_actor_call(actor, ray_cstr("pid"), NULL, 0, NULL, &more, &err));
  CHECK_MESSAGE("3");
  kit_touch(kit_path("go"));
  for (i = 0; i < 3; i++) CHECK_EQ(kit_take_i64(refs[i]), 7);
  CHECK(kit_take_i64(kit_call(actor, "pid", NULL, 0)) > 0);
  ray_actor_release(actor);
}

static void cancel_calls(void) {
  ray_actor* actor;
  ray_ref *running, *queued;
  ray_arg args[2];
  kit_init();
  actor = kit_actor("Log", NULL);
  args[0] = kit_text(kit_path("runs"));
  args[1] = kit_text(kit_path("never"));
  running = kit_call(actor, "wait", args, 2);
  kit_await(kit_path("runs"));
  queued = kit_call(actor, "pid", NULL, 0);
  CHECK_CODE(RAY_UNSUPPORTED, ray_cancel(running, RAY_CANCEL_FORCE, &err));
  CHECK_OK(ray_cancel(queued, 0, &err));
  CHECK_OK(ray_cancel(running, 0, &err));
  CHECK_CODE(RAY_CANCELLED, kit_get_code(running));
  CHECK_CODE(RAY_CANCELLED, kit_get_code(queued));
  CHECK_EQ(kit_call_i64(actor, "append", 5), 1); /* the actor lives */
  ray_ref_release(running);
  ray_ref_release(queued);
  ray_actor_release(actor);
}

/* Ten actors and nobody's processor: an actor holds nothing while it idles unless it asked for it.
 */
static void more_actors_than_processors(void) {
  ray_actor* actors[10];
  int64_t i;
  kit_init();
  for (i = 0; i < 10; i++) actors[i] = kit_actor("Log", NULL);
  for (i = 0; i < 10; i++) CHECK_EQ(kit_call_i64(actors[i], "append", i), 1);
  for (i = 0; i < 10; i++) CHECK_EQ(kit_call_i64(actors[i], "append", i), 2);
  for (i = 0; i < 10; i++) ray_actor_release(actors[i]);
}

static void resources_for_life(void) {
  ray_actor_options options = RAY_ACTOR_OPTIONS_INIT;
  ray_actor *first, *second;
  ray_buffer buffer = RAY_BUFFER_INIT;
  uint8_t space[32];
  ray_ref* ref;
  mp at;
  kit_init();
  options.resources_msgpack = mp_map(space, sizeof space, "CPU", 1.5, NULL);
  first = kit_actor("Log", &options);
  CHECK_EQ(kit_call_i64(first, "append", 1), 1);
  CHECK_OK(ray_cluster_query(rt, ray_cstr("available"), (ray_bytes){NULL, 0}, &buffer, &err));
  CHECK(mp_find(mp_of(buffer.data, (size_t)buffer.size), "CPU", &at) && mp_number(at) <= 0.5);
  ray_buffer_release(&buffer);
  second = kit_actor("Log", &options); /* waits for room */
  ref = kit_call(second, "pid", NULL, 0);
  CHECK_CODE(RAY_TIMED_OUT, ray_get(rt, &ref, 1, 100000000, &buffer, &err));
  ray_actor_release(first);
  CHECK(kit_take_i64(ref) > 0);
  ray_actor_release(second);
  options.resources_msgpack = mp_map(space, sizeof space, "GPU", 4.0, NULL);
  second = kit_actor("Log", &options);
  ref = kit_call(second, "pid", NULL, 0);
  CHECK_CODE(RAY_TIMED_OUT, ray_get(rt, &ref, 1, 100000000, &buffer, &err)); /* waits for a node */
  CHECK_OK(ray_actor_kill(second, false, &err));
  CHECK_CODE(RAY_ACTOR_DIED, kit_get_code(ref));
  ray_ref_release(ref);
  ray_actor_release(second);
}

static void several_returns(void) {
  ray_task_options options = RAY_TASK_OPTIONS_INIT;
  ray_actor* actor;
  ray_ref* refs[2];
  int64_t one = 1;
  ray_arg arg = kit_i64(&one);
  kit_init();
  actor = kit_actor("Log", NULL);
  options.num_returns = 2;
  CHECK_OK(ray_actor_call(actor, ray_cstr("append"), &arg, 1, &options, refs, &err));
  CHECK_EQ(kit_take_i64(refs[0]), 1);
  CHECK_OK(kit_get_code(refs[1])); /* nil */
  ray_ref_release(refs[1]);
  options.num_returns = 0;
  CHECK_OK(ray_actor_call(actor, ray_cstr("append"), &arg, 1, &options, NULL, &err));
  CHECK_EQ(kit_call_i64(actor, "append", 1), 3);
  ray_actor_release(actor);
}

/* A call runs behind the calls of other clients that were made before it, however long all of them waited. */
static void calls_run_in_the_order_of_their_submission(void) {
  ray_runtime_options options = kit_options();
  int round;
  options.num_cpus = 1; /* one worker for all tasks, so that its way to the actor is there */
  CHECK_OK(ray_init(&options, &rt, &err));
  for (round = 0; round < 20; round++) {
    ray_value value = ray_plain("box", 3, RAY_FMT_RAW);
    ray_actor* actor = kit_actor("Log", NULL);
    ray_buffer all = RAY_BUFFER_INIT;
    ray_ref *held, *ref, *box;
    ray_arg args[3];
    char name[32], begun[512], end[512];
    int64_t n = 0, first, last;
    CHECK_OK(ray_actor_to_ref(actor, &ref, &err));
    value.refs = &ref;
    value.n_refs = 1;
    CHECK_OK(ray_put(rt, &value, &box, &err));
    ray_ref_release(ref);
    args[0] = kit_ref(box);
    CHECK_EQ(kit_take_i64(kit_submit("call_through", args, 1, NULL)), ++n);
    snprintf(name, sizeof name, "begun-%d", round);
    snprintf(begun, sizeof begun, "%s", kit_path(name));
    snprintf(name, sizeof name, "end-%d", round);
    snprintf(end, sizeof end, "%s", kit_path(name));
    args[0] = kit_text(begun);
    args[1] = kit_text(end);
    held = kit_call(actor, "wait", args, 2);
    kit_await(begun);
    while (n < 40) { /* 1 to 4 by the task, then as many by this process, and so on */
      first = n + 1, last = n + 1 + n % 4;
      args[0] = kit_ref(box);
      args[1] = kit_i64(&first);
      args[2] = kit_i64(&last);
      CHECK_EQ(kit_take_i64(kit_submit("append_range", args, 3, NULL)), 1);
      for (n = last + 1; n <= last + 1 + last % 4; n++) {
        ray_arg arg = kit_i64(&n);
        ray_ref_release(kit_call(actor, "append", &arg, 1));
      }
      --n;
    }
    kit_touch(end);
    CHECK_EQ(kit_take_i64(held), 7);
    ref = kit_call(actor, "all", NULL, 0);
    CHECK_OK(ray_get(rt, &ref, 1, -1, &all, &err));
    CHECK_EQ(all.size, n * 8);
    for (first = 1; first < n; first++) CHECK_EQ(((const int64_t*)all.data)[first], first + 1);
    ray_buffer_release(&all);
    ray_ref_release(ref);
    ray_ref_release(box);
    ray_actor_release(actor);
  }
}

/* More actors than processors, each of which waits for all the others, while the driver does nothing: calls
 * that are left for when a processor is free begin all the same. */
static void calls_begin_though_others_block(void) {
  enum { kN = 12 };
  ray_actor* actors[kN];
  ray_ref* refs[kN];
  char paths[kN][512], end[512];
  int i, round;
  kit_init();
  for (i = 0; i < kN; i++) actors[i] = kit_actor("Log", NULL);
  for (i = 0; i < kN; i++) CHECK(kit_take_i64(kit_call(actors[i], "pid", NULL, 0)) > 0);
  /* Idle workers look by themselves once a second: rounds that rely on it take longer than a test may. */
  for (round = 0; round < 200; round++) {
    char name[32];
    snprintf(name, sizeof name, "end-%d", round);
    snprintf(end, sizeof end, "%s", kit_path(name));
    for (i = 0; i < kN; i++) {
      ray_arg args[2];
      snprintf(name, sizeof name, "begun-%d-%d", round, i);
      snprintf(paths[i], sizeof paths[i], "%s", kit_path(name));
      args[0] = kit_text(paths[i]);
      args[1] = kit_text(end);
      refs[i] = kit_call(actors[i], "wait", args, 2);
    }
    for (i = 0; i < kN; i++) kit_await(paths[i]);
    kit_touch(end);
    for (i = 0; i < kN; i++) CHECK_EQ(kit_take_i64(refs[i]), 7);
  }
  for (i = 0; i < kN; i++) ray_actor_release(actors[i]);
}

/* More references than one record could name: the node keeps them all for each start of the actor. */
static void many_constructor_arguments(void) {
  enum { kArgs = 30000 };
  static ray_arg args[kArgs];
  ray_actor_options options = RAY_ACTOR_OPTIONS_INIT;
  ray_function* klass;
  ray_actor* actor;
  int64_t i, pid, sum = 0;
  int start;
  kit_init();
  options.max_restarts = 1;
  CHECK_OK(ray_function_get(rt, ray_cstr("Sum"), &klass, &err));
  for (i = 0; i < kArgs; i++) {
    ray_value value = ray_plain(&i, sizeof i, RAY_FMT_RAW);
    args[i] = (ray_arg)RAY_ARG_INIT;
    CHECK_OK(ray_put(rt, &value, &args[i].ref, &err));
    sum += i;
  }
  CHECK_OK(ray_actor_create(rt, klass, args, kArgs, &options, &actor, &err));
  for (i = 0; i < kArgs; i++) ray_ref_release(args[i].ref);
  for (start = 0; start < 2; start++) {
    CHECK_EQ(kit_take_i64(kit_call(actor, "all", NULL, 0)), sum);
    pid = kit_take_i64(kit_call(actor, "pid", NULL, 0));
    if (start > 0) break;
    CHECK_OK(ray_actor_kill(actor, true, &err));
    kit_await_gone(pid);
    while (kit_get_code(kit_call(actor, "pid", NULL, 0)) == RAY_ACTOR_RESTARTING) kit_pause();
  }
  ray_actor_release(actor);
  ray_function_release(klass);
}

/* An argument of the constructor fails with much to say: whoever has the actor already hears of its end all the same. */
static void a_constructor_argument_fails_at_length(void) {
  const char *go = kit_path("go"), *waits = kit_path("waits");
  ray_arg arg = kit_text(go), two[2];
  ray_value value = ray_plain("box", 3, RAY_FMT_RAW);
  ray_function* klass;
  ray_actor* actor;
  ray_ref *failing, *handle, *other;
  kit_init();
  failing = kit_submit("fail_at_length", &arg, 1, NULL);
  arg = kit_ref(failing);
  CHECK_OK(ray_function_get(rt, ray_cstr("Sum"), &klass, &err));
  CHECK_OK(ray_actor_create(rt, klass, &arg, 1, NULL, &actor, &err));
  CHECK_OK(ray_actor_to_ref(actor, &handle, &err));
  value.refs = &handle;
  value.n_refs = 1;
  two[0] = (ray_arg)RAY_ARG_INIT;
  two[0].value = value;
  two[1] = kit_text(waits);
  other = kit_submit("code_of_a_call", two, 2, NULL);
  kit_await(waits);
  kit_touch(go);
  CHECK_EQ(kit_take_i64(other), RAY_ACTOR_DIED);
  CHECK_EQ(kit_get_code(kit_call(actor, "pid", NULL, 0)), RAY_ACTOR_DIED);
  ray_ref_release(handle);
  ray_ref_release(failing);
  ray_actor_release(actor);
  ray_function_release(klass);
}

/* The node makes who asks for an actor by its name a holder of it. When nobody waits for that answer any more, the
 * process is none: else the actor would live as long as it. */
static void a_find_that_was_given_up_holds_nothing(void) {
  const char *go = kit_path("go"), *gone = kit_path("gone"), *runs = kit_path("runs");
  ray_actor_options options = RAY_ACTOR_OPTIONS_INIT;
  ray_arg arg = kit_text(gone), three[3];
  ray_function* klass;
  ray_actor* actor;
  ray_ref* looking;
  long daemon;
  kit_init();
  CHECK_OK(ray_function_get(rt, ray_cstr("Log"), &klass, &err));
  options.name = ray_cstr("sought");
  CHECK_OK(ray_actor_create(rt, klass, &arg, 1, &options, &actor, &err));
  CHECK_EQ(kit_call_i64(actor, "append", 1), 1);
  three[0] = kit_text(go);
  three[1] = kit_text("sought");
  three[2] = kit_text(runs);
  looking = kit_submit("code_of_a_find", three, 3, NULL);
  kit_await(runs);
  daemon = kit_daemon_pid();
  CHECK_EQ(kill((pid_t)daemon, SIGSTOP), 0);
  kit_kill_at_exit(daemon);
  kit_touch(go);
  CHECK_OK(ray_cancel(looking, 0, &err));
  CHECK_EQ(kit_get_code(looking), RAY_CANCELLED);
  CHECK_EQ(kill((pid_t)daemon, SIGCONT), 0);
  ray_ref_release(looking);
  ray_actor_release(actor);
  kit_await(gone);
  ray_function_release(klass);
}

static void named_and_an_argument_fails(void) {
  ray_actor_options options = RAY_ACTOR_OPTIONS_INIT;
  ray_function* klass;
  ray_actor* actor;
  ray_ref* failed;
  ray_arg arg;
  kit_init();
  CHECK_OK(ray_function_get(rt, ray_cstr("Log"), &klass, &err));
  CHECK_OK(ray_put_error(rt, RAY_TASK_FAILED, ray_cstr("on purpose"), NULL, &failed, &err));
  arg = kit_ref(failed);
  options.name = ray_cstr("named");
  CHECK_CODE(RAY_ACTOR_DIED, ray_actor_create(rt, klass, &arg, 1, &options, &actor, &err));
  CHECK_MESSAGE("on purpose");
  actor = kit_actor("Log", &options); /* the name is free */
  CHECK_EQ(kit_call_i64(actor, "append", 1), 1);
  ray_actor_release(actor);
  ray_ref_release(failed);
  ray_function_release(klass);
}

static void a_reference_of_an_actor_has_no_value(void) {
  ray_buffer buffer = RAY_BUFFER_INIT;
  ray_function* function;
  ray_actor* actor;
  ray_ref *ref, *result;
  ray_arg arg;
  kit_init();
  actor = kit_actor("Log", NULL);
  CHECK_OK(ray_actor_to_ref(actor, &ref, &err));
  CHECK_CODE(RAY_INVALID_ARGUMENT, ray_get(rt, &ref, 1, 10000000000, &buffer, &err));
  CHECK_MESSAGE("reference of an actor");
  CHECK_OK(ray_function_get(rt, ray_cstr("append_range"), &function, &err));
  arg = kit_ref(ref);
  CHECK_CODE(RAY_INVALID_ARGUMENT, ray_submit(rt, function, &arg, 1, NULL, &result, &err));
  CHECK_MESSAGE("reference of an actor");
  ray_ref_release(ref);
  ray_actor_release(actor);
  ray_function_release(function);
}

static const kit_test tests[] = {KIT_TEST(state_and_order),
                                 KIT_TEST(named_and_an_argument_fails),
                                 KIT_TEST(a_reference_of_an_actor_has_no_value),
                                 KIT_TEST(errors_leave_it_alive),
                                 KIT_TEST(constructor_fails),
                                 KIT_TEST(names_and_namespaces),
                                 KIT_TEST(found_in_a_task),
                                 KIT_TEST(metadata),
                                 KIT_TEST(handle_inside_a_value),
                                 KIT_TEST(counted_lifetime),
                                 KIT_TEST(detached),
                                 KIT_TEST(killed),
                                 KIT_TEST(a_kill_overtakes_no_creation),
                                 KIT_TEST(leaves_by_its_own_will),
                                 KIT_TEST(crash_without_restart),
                                 KIT_TEST(restarts),
                                 KIT_TEST(calls_survive_a_restart),
                                 KIT_TEST(pending_calls_are_bounded),
                                 KIT_TEST(cancel_calls),
                                 KIT_TEST(more_actors_than_processors),
                                 KIT_TEST(resources_for_life),
                                 KIT_TEST(several_returns),
                                 KIT_TEST(many_constructor_arguments),
                                 KIT_TEST(a_find_that_was_given_up_holds_nothing),
                                 KIT_TEST(a_constructor_argument_fails_at_length),
                                 KIT_TEST(calls_run_in_the_order_of_their_submission),
                                 KIT_TEST(calls_begin_though_others_block)};
KIT_MAIN(tests, register_all)
