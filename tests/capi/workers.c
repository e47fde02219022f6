/* workers.c -- workers beside what they run: a task that waits lends its CPU, a worker that is not needed ends after what
 * it has submitted, a cancellation is for one call, and calls of a client that is gone do not begin. */
#define _POSIX_C_SOURCE 200809L
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "kit.h"
#include "remote.h"

static ray_code seven(ray_task* task, void* user) {
  (void)user;
  return kit_return_i64(task, 0, 7);
}

static ray_code get_seven(ray_runtime* runtime) {
  ray_buffer buffer;
  ray_function* function;
  ray_ref* ref;
  ray_code code;
  CHECK_OK(ray_function_get(runtime, ray_cstr("seven"), &function, &err));
  CHECK_OK(ray_submit(runtime, function, NULL, 0, NULL, &ref, &err));
  code = ray_get(runtime, &ref, 1, -1, &buffer, NULL);
  if (code == RAY_OK) ray_buffer_release(&buffer);
  ray_ref_release(ref);
  ray_function_release(function);
  return code;
}

/* A group of as much as this task has. */
static ray_code wait_for_group(ray_task* task, void* user) {
  static const char bundles[] = "\x91\x81\xa3" "CPU\x01"; /* [{"CPU": 1}] */
  ray_group_options options = RAY_GROUP_OPTIONS_INIT;
  ray_runtime* runtime = ray_task_runtime(task);
  ray_code code;
  ray_id group;
  (void)user;
  options.bundles_msgpack.data = bundles;
  options.bundles_msgpack.size = sizeof bundles - 1;
  CHECK_OK(ray_group_create(runtime, &options, &group, &err));
  code = ray_group_wait(runtime, &group, -1, NULL);
  CHECK_OK(ray_group_remove(runtime, &group, &err));
  return kit_return_i64(task, 0, code);
}

/* The completion of a task that needs the CPU of this one. */
static ray_code poll_for_child(ray_task* task, void* user) {
  ray_runtime* runtime = ray_task_runtime(task);
  ray_notify notify = RAY_NOTIFY_INIT;
  ray_completion done = RAY_COMPLETION_INIT;
  ray_function* function;
  ray_queue* queue;
  ray_code code;
  ray_ref* ref;
  size_t n;
  (void)user;
  CHECK_OK(ray_function_get(runtime, ray_cstr("seven"), &function, &err));
  CHECK_OK(ray_queue_create(runtime, &queue, &err));
  CHECK_OK(ray_submit(runtime, function, NULL, 0, NULL, &ref, &err));
  notify.queue = queue;
  CHECK_OK(ray_on_ready(ref, &notify, NULL, &err));
  code = ray_queue_poll(queue, &done, 1, 40000000000, &n, NULL);
  ray_ref_release(done.ref);
  ray_ref_release(ref);
  ray_queue_release(queue);
  ray_function_release(function);
  return kit_return_i64(task, 0, code);
}

/* It is created when its argument is there, which another task makes. */
static ray_code create_named(ray_task* task, void* user) {
  ray_actor_options options = RAY_ACTOR_OPTIONS_INIT;
  ray_runtime* runtime = ray_task_runtime(task);
  ray_function *function, *klass;
  ray_actor* actor;
  ray_ref* ref;
  ray_arg arg;
  ray_code code;
  (void)user;
  CHECK_OK(ray_function_get(runtime, ray_cstr("seven"), &function, &err));
  CHECK_OK(ray_function_get(runtime, ray_cstr("Actor"), &klass, &err));
  CHECK_OK(ray_submit(runtime, function, NULL, 0, NULL, &ref, &err));
  arg = kit_ref(ref);
  options.name = ray_cstr("named");
  code = ray_actor_create(runtime, klass, &arg, 1, &options, &actor, NULL);
  if (code == RAY_OK) ray_actor_release(actor);
  ray_ref_release(ref);
  ray_function_release(function);
  ray_function_release(klass);
  return kit_return_i64(task, 0, code);
}

static ray_code create(ray_task* task, void* user) {
  const uint32_t limit = 1;
  (void)user;
  CHECK_OK(ray_worker_set_groups(ray_task_runtime(task), &limit, 1, &err));
  return RAY_OK;
}

static ray_code create_plainly(ray_task* task, void* user) {
  (void)task, (void)user;
  return RAY_OK;
}

static ray_code wait_for_child(ray_task* task, void* user) {
  (void)user;
  return kit_return_i64(task, 0, get_seven(ray_task_runtime(task)));
}

static const char* file_of(ray_task* task, const char* name, char* out) { /* args[0] is the directory */
  char directory[400];
  kit_arg_text(task, 0, directory, sizeof directory);
  snprintf(out, 512, "%s/%s", directory, name);
  return out;
}

/* Runs until its cancellation has found it, and pauses there. */
static ray_code meet_cancellation(ray_task* task, void* user) {
  char path[512];
  (void)user;
  kit_touch(file_of(task, "runs", path));
  while (!kit_exists(file_of(task, "worker.cancel.found", path))) kit_pause();
  return kit_return_i64(task, 0, 7);
}

enum { kParents = 8 };
static const char kTenth[] = "\x81\xa3" "CPU\xca\x3d\xcc\xcc\xcd"; /* {"CPU": 0.1} */

static const char* numbered(ray_task* task, const char* what, int64_t i, char* out) {
  char name[32];
  snprintf(name, sizeof name, "%s%d", what, (int)i);
  return file_of(task, name, out);
}

static ray_code child(ray_task* task, void* user) {
  char path[512];
  (void)user;
  kit_touch(numbered(task, "child", kit_arg_i64(task, 1), path));
  kit_await(file_of(task, "go", path));
  return kit_return_i64(task, 0, 7);
}

/* Gives the reference to what it has submitted, when all parents run at the same time. */
static ray_code parent(ray_task* task, void* user) {
  ray_task_options options = RAY_TASK_OPTIONS_INIT;
  ray_runtime* runtime = ray_task_runtime(task);
  ray_value value = ray_plain("", 0, RAY_FMT_RAW);
  int64_t me = kit_arg_i64(task, 1);
  char path[512], directory[400];
  ray_function* function;
  ray_arg args[2];
  ray_code code;
  ray_ref* ref;
  int i;
  (void)user;
  kit_touch(numbered(task, "parent", me, path));
  for (i = 0; i < kParents; i++) kit_await(numbered(task, "parent", i, path));
  options.resources_msgpack.data = kTenth;
  options.resources_msgpack.size = sizeof kTenth - 1;
  args[0] = kit_text(kit_arg_text(task, 0, directory, sizeof directory));
  args[1] = kit_i64(&me);
  CHECK_OK(ray_function_get(runtime, ray_cstr("child"), &function, &err));
  CHECK_OK(ray_submit(runtime, function, args, 2, &options, &ref, &err));
  value.refs = &ref;
  value.n_refs = 1;
  code = ray_task_return(task, 0, &value, NULL);
  ray_ref_release(ref);
  ray_function_release(function);
  return code;
}

/* A call that runs until "go", and takes what others send meanwhile from their links. */
static ray_code hold(ray_task* task, void* user) {
  ray_runtime* runtime = ray_task_runtime(task);
  ray_bytes all = {NULL, 0};
  char path[512];
  ray_buffer buffer;
  ray_task* none;
  (void)user;
  kit_touch(file_of(task, "held", path));
  kit_await(file_of(task, "sent", path));
  CHECK_CODE(RAY_TIMED_OUT, ray_worker_next_in(runtime, 0, 0, &none, &err));
  kit_touch(file_of(task, "taken", path));
  kit_await(file_of(task, "go", path));
  /* Behind the news of the client's death, which the driver has already. */
  CHECK_OK(ray_cluster_query(runtime, ray_cstr("available"), all, &buffer, &err));
  ray_buffer_release(&buffer);
  return kit_return_i64(task, 0, 7);
}

static ray_code leave_file(ray_task* task, void* user) {
  char path[512];
  (void)user;
  kit_touch(file_of(task, "begun", path));
  return kit_return_i64(task, 0, 7);
}

/* Such a call, which ends with its process. */
static ray_code die_holding(ray_task* task, void* user) {
  (void)hold(task, user);
  _exit(1);
}

/* Runs until the interrupt hook has come, and leaves the name that this knew. */
static char g_hooked_name[64];
static volatile bool g_hooked;
static void hook(ray_task* task, void* user) {
  ray_task_info info = RAY_TASK_INFO_INIT;
  (void)user;
  if (task == NULL) return;
  CHECK_OK(ray_task_get_info(task, &info));
  snprintf(g_hooked_name, sizeof g_hooked_name, "%.*s/%.*s", (int)info.function.size, info.function.data,
           (int)info.name.size, info.name.data);
  g_hooked = true;
}
static ray_code await_hook(ray_task* task, void* user) {
  char path[512], final[512];
  FILE* file;
  (void)user;
  CHECK_OK(ray_worker_on_interrupt(ray_task_runtime(task), hook, NULL, &err));
  kit_touch(file_of(task, "runs", path));
  while (!g_hooked) kit_pause();
  file = fopen(file_of(task, "name.new", path), "w");
  CHECK(file != NULL && fputs(g_hooked_name, file) >= 0);
  CHECK_EQ(fclose(file), 0);
  CHECK_EQ(rename(path, file_of(task, "name", final)), 0);
  return RAY_OK;
}

/* Makes an actor that is known by its name, and keeps the handle when it has ended. */
static ray_actor* g_kept;
static ray_code keep_actor(ray_task* task, void* user) {
  ray_actor_options options = RAY_ACTOR_OPTIONS_INIT;
  ray_runtime* runtime = ray_task_runtime(task);
  int64_t me = kit_arg_i64(task, 1);
  char path[512], name[32];
  ray_function* klass;
  int i;
  (void)user;
  kit_touch(numbered(task, "keeper", me, path));
  for (i = 0; i < kParents; i++) kit_await(numbered(task, "keeper", i, path));
  snprintf(name, sizeof name, "kept%d", (int)me);
  options.name = ray_cstr(name);
  CHECK_OK(ray_function_get(runtime, ray_cstr("Actor"), &klass, &err));
  CHECK_OK(ray_actor_create(runtime, klass, NULL, 0, &options, &g_kept, &err));
  ray_function_release(klass);
  return kit_return_i64(task, 0, 7);
}

/* Calls the actor in args[1], and is gone. */
static ray_code call_and_die(ray_task* task, void* user) {
  const ray_buffer* args;
  char directory[400], path[512];
  ray_arg arg = kit_text(kit_arg_text(task, 0, directory, sizeof directory));
  ray_actor* actor;
  ray_ref* ref;
  (void)user;
  CHECK_EQ(ray_task_args(task, &args), 2);
  CHECK_OK(ray_buffer_ref(&args[1], 0, &ref, &err));
  CHECK_OK(ray_actor_from_ref(ref, &actor, &err));
  CHECK_EQ(kit_call_i64(actor, "seven", 0), 7); /* now it has its link */
  kit_touch(file_of(task, "linked", path));
  kit_await(file_of(task, "held", path));
  (void)kit_call(actor, "leave_file", &arg, 1);
  kit_touch(file_of(task, "sent", path));
  kit_await(file_of(task, "taken", path));
  _exit(1);
}

static void register_all(void) {
  static const remote_function all[] = {{"seven", seven},
                                        {"wait_for_group", wait_for_group},
                                        {"create_named", create_named},
                                        {"meet_cancellation", meet_cancellation},
                                        {"child", child},
                                        {"parent", parent},
                                        {"poll_for_child", poll_for_child},
                                        {"await_hook", await_hook},
                                        {"keep_actor", keep_actor},
                                        {"call_and_die", call_and_die}};
  remote_register(all, sizeof all / sizeof all[0]);
  CHECK_OK(ray_register_actor(ray_cstr("Actor"), create_plainly, NULL, NULL, &err));
  CHECK_OK(ray_register_method(ray_cstr("Actor"), ray_cstr("wait_for_child"), wait_for_child, NULL, &err));
  CHECK_OK(ray_register_method(ray_cstr("Actor"), ray_cstr("seven"), seven, NULL, &err));
  CHECK_OK(ray_register_actor(ray_cstr("Grouped"), create, NULL, NULL, &err));
  CHECK_OK(ray_register_method(ray_cstr("Grouped"), ray_cstr("hold"), hold, NULL, &err));
  CHECK_OK(ray_register_method(ray_cstr("Grouped"), ray_cstr("die_holding"), die_holding, NULL, &err));
  CHECK_OK(ray_register_method(ray_cstr("Grouped"), ray_cstr("leave_file"), leave_file, NULL, &err));
  CHECK_OK(ray_register_method(ray_cstr("Grouped"), ray_cstr("seven"), seven, NULL, &err));
}

static void start(double cpus) {
  ray_runtime_options options = kit_options();
  options.num_cpus = cpus;
  CHECK_OK(ray_init(&options, &rt, &err));
}

/* The node has one CPU, and each of these has it while it waits for what needs it too. */
static void who_waits_lends_its_cpu(void) {
  ray_actor_options options = RAY_ACTOR_OPTIONS_INIT;
  uint8_t one[32];
  uint32_t n;
  start(1);
  CHECK_EQ(kit_take_i64(kit_submit("wait_for_group", NULL, 0, NULL)), RAY_OK);
  CHECK_EQ(kit_take_i64(kit_submit("create_named", NULL, 0, NULL)), RAY_OK);
  CHECK_EQ(kit_take_i64(kit_submit("poll_for_child", NULL, 0, NULL)), RAY_OK);
  options.resources_msgpack = mp_map(one, sizeof one, "CPU", 1.0, NULL);
  for (n = 1; n <= 2; n++) {
    ray_actor* actor;
    options.max_concurrency = n;
    actor = kit_actor("Actor", &options);
    CHECK_EQ(kit_call_i64(actor, "wait_for_child", 0), RAY_OK);
    ray_actor_release(actor);
  }
}

/* A cancellation that finds its call at the moment in which that ends is not for the next one. */
static void a_cancellation_is_for_one_call(void) {
  char directory[400];
  ray_arg arg;
  ray_ref* ref;
  snprintf(directory, sizeof directory, "%s", kit_path("."));
  setenv("LIBRAY_FAULTS", "worker.cancel.found=delay:300ms", 1);
  setenv("LIBRAY_FAULT_ONCE", directory, 1);
  start(1);
  arg = kit_text(directory);
  ref = kit_submit("meet_cancellation", &arg, 1, NULL);
  kit_await(kit_path("runs"));
  CHECK_OK(ray_cancel(ref, 0, &err));
  CHECK_EQ(kit_take_i64(ref), 7);
  CHECK_EQ(kit_take_i64(kit_submit("seven", NULL, 0, NULL)), 7);
}

/* Of the parents' workers. */
static bool few_are_left(void* unused) {
  ray_buffer buffer = RAY_BUFFER_INIT;
  ray_bytes all = {NULL, 0};
  size_t idle, leased;
  (void)unused;
  CHECK_OK(ray_cluster_query(rt, ray_cstr("workers"), all, &buffer, &err));
  idle = mp_rows_with(mp_of(buffer.data, (size_t)buffer.size), "state", "idle");
  leased = mp_rows_with(mp_of(buffer.data, (size_t)buffer.size), "state", "leased");
  ray_buffer_release(&buffer);
  return idle <= 2 && leased <= kParents;
}

static bool no_lease_and_few_idle(void* unused) {
  ray_buffer buffer = RAY_BUFFER_INIT;
  ray_bytes all = {NULL, 0};
  size_t idle, leased;
  (void)unused;
  CHECK_OK(ray_cluster_query(rt, ray_cstr("workers"), all, &buffer, &err));
  idle = mp_rows_with(mp_of(buffer.data, (size_t)buffer.size), "state", "idle");
  leased = mp_rows_with(mp_of(buffer.data, (size_t)buffer.size), "state", "leased");
  ray_buffer_release(&buffer);
  return idle <= 2 && leased == 0;
}

/* More workers than processors are idle for a while: those that leave have each submitted something. */
static void who_is_not_needed_ends_after_what_it_submitted(void) {
  ray_task_options options = RAY_TASK_OPTIONS_INIT;
  ray_ref *parents[kParents], *children[kParents];
  char directory[400], name[32];
  int64_t i;
  start(2);
  snprintf(directory, sizeof directory, "%s", kit_path("."));
  options.resources_msgpack.data = kTenth;
  options.resources_msgpack.size = sizeof kTenth - 1;
  for (i = 0; i < kParents; i++) {
    ray_arg args[2];
    args[0] = kit_text(directory);
    args[1] = kit_i64(&i);
    parents[i] = kit_submit("parent", args, 2, &options);
  }
  for (i = 0; i < kParents; i++) {
    ray_buffer buffer;
    CHECK_OK(ray_get(rt, &parents[i], 1, -1, &buffer, &err));
    CHECK_OK(ray_buffer_ref(&buffer, 0, &children[i], &err));
    ray_buffer_release(&buffer);
  }
  for (i = 0; i < kParents; i++) {
    snprintf(name, sizeof name, "child%d", (int)i);
    kit_await(kit_path(name));
  }
  CHECK_UNTIL(few_are_left, NULL);
  kit_touch(kit_path("go"));
  for (i = 0; i < kParents; i++) {
    CHECK_EQ(kit_take_i64(children[i]), 7);
    ray_ref_release(parents[i]);
  }
}

/* Who asks in the interrupt hook what runs asks nobody else: the answer might have to come through that thread. */
static void the_hook_needs_no_daemon(void) {
  ray_task_options options = RAY_TASK_OPTIONS_INIT;
  char directory[400], name[64];
  ray_ref* ref;
  ray_arg arg;
  long daemon;
  FILE* file;
  start(1);
  snprintf(directory, sizeof directory, "%s", kit_path("."));
  arg = kit_text(directory);
  options.name = ray_cstr("named");
  ref = kit_submit("await_hook", &arg, 1, &options);
  kit_await(kit_path("runs"));
  daemon = kit_daemon_pid();
  CHECK_EQ(kill((pid_t)daemon, SIGSTOP), 0);
  kit_kill_at_exit(daemon);
  CHECK_OK(ray_cancel(ref, 0, &err));
  kit_await(kit_path("name"));
  CHECK_EQ(kill((pid_t)daemon, SIGCONT), 0);
  file = fopen(kit_path("name"), "r");
  CHECK(file != NULL && fgets(name, sizeof name, file) == name);
  fclose(file);
  CHECK_EQ(strcmp(name, "await_hook/named"), 0);
  CHECK_CODE(RAY_OK, kit_get_code(ref));
  ray_ref_release(ref);
}

/* More workers than processors are idle for a while, and each keeps an actor alive. */
static void who_keeps_an_actor_stays(void) {
  ray_task_options options = RAY_TASK_OPTIONS_INIT;
  ray_ref* keepers[kParents];
  char directory[400], name[32];
  int64_t i;
  start(2);
  snprintf(directory, sizeof directory, "%s", kit_path("."));
  options.resources_msgpack.data = kTenth;
  options.resources_msgpack.size = sizeof kTenth - 1;
  for (i = 0; i < kParents; i++) {
    ray_arg args[2];
    args[0] = kit_text(directory);
    args[1] = kit_i64(&i);
    keepers[i] = kit_submit("keep_actor", args, 2, &options);
  }
  for (i = 0; i < kParents; i++) CHECK_EQ(kit_take_i64(keepers[i]), 7);
  CHECK_UNTIL(no_lease_and_few_idle, NULL);
  for (i = 0; i < kParents; i++) {
    ray_actor* actor;
    snprintf(name, sizeof name, "kept%d", (int)i);
    CHECK_OK(ray_actor_find(rt, ray_cstr(name), ray_cstr(""), &actor, &err));
    CHECK_EQ(kit_call_i64(actor, "seven", 0), 7);
    ray_actor_release(actor);
  }
}

/* It waited for its turn in a concurrency group. */
static void a_call_of_a_dead_client_does_not_begin(void) {
  ray_task_options once = RAY_TASK_OPTIONS_INIT;
  ray_arg args[2], arg;
  char directory[400];
  ray_actor* actor;
  ray_ref *handle, *client, *held;
  start(2);
  snprintf(directory, sizeof directory, "%s", kit_path("."));
  actor = kit_actor("Grouped", NULL);
  CHECK_OK(ray_actor_to_ref(actor, &handle, &err));
  args[0] = arg = kit_text(directory);
  args[1].ref = NULL;
  args[1].value = ray_plain("", 0, RAY_FMT_RAW);
  args[1].value.refs = &handle;
  args[1].value.n_refs = 1;
  once.max_retries = 0;
  client = kit_submit("call_and_die", args, 2, &once);
  kit_await(kit_path("linked"));
  held = kit_call(actor, "hold", &arg, 1);
  CHECK_CODE(RAY_WORKER_CRASHED, kit_get_code(client));
  kit_touch(kit_path("go"));
  CHECK_EQ(kit_take_i64(held), 7);
  CHECK_EQ(kit_call_i64(actor, "seven", 0), 7);
  CHECK(!kit_exists(kit_path("begun")));
  ray_ref_release(client);
  ray_ref_release(handle);
  ray_actor_release(actor);
}

/* It waited for its turn in a concurrency group, of an actor that died twice: that used up none of its retries. */
static void a_call_that_has_not_begun_keeps_its_retries(void) {
  ray_actor_options options = RAY_ACTOR_OPTIONS_INIT;
  char directory[400];
  ray_actor* actor;
  ray_ref *held, *waits;
  ray_arg arg;
  start(2);
  snprintf(directory, sizeof directory, "%s", kit_path("."));
  arg = kit_text(directory);
  options.max_restarts = 2;
  options.max_task_retries = 1;
  actor = kit_actor("Grouped", &options);
  held = kit_call(actor, "die_holding", &arg, 1); /* and when it runs again */
  kit_await(kit_path("held"));
  waits = kit_call(actor, "seven", NULL, 0);
  kit_touch(kit_path("sent"));
  kit_await(kit_path("taken"));
  kit_touch(kit_path("go"));
  CHECK_CODE(RAY_ACTOR_RESTARTING, kit_get_code(held));
  CHECK_EQ(kit_take_i64(waits), 7);
  ray_ref_release(held);
  ray_actor_release(actor);
}

static const kit_test tests[] = {KIT_TEST(who_waits_lends_its_cpu), KIT_TEST(a_cancellation_is_for_one_call),
                                 KIT_TEST(who_is_not_needed_ends_after_what_it_submitted),
                                 KIT_TEST(the_hook_needs_no_daemon),
                                 KIT_TEST(who_keeps_an_actor_stays),
                                 KIT_TEST(a_call_of_a_dead_client_does_not_begin),
                                 KIT_TEST(a_call_that_has_not_begun_keeps_its_retries)};
KIT_MAIN(tests, register_all)
