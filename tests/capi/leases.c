/* leases.c -- how many workers a process asks for: one more for each that takes nothing now, because it is to be given
 * back, waits, or has run the same task for long. What is left waiting may be what that task waits for. */
#define _POSIX_C_SOURCE 200809L
#include <stdlib.h>

#include "kit.h"
#include "remote.h"

static ray_code seven(ray_task* task, void* user) {
  (void)user;
  return kit_return_i64(task, 0, 7);
}

static ray_code touch(ray_task* task, void* user) {
  char path[512];
  (void)user;
  kit_touch(kit_arg_text(task, 0, path, sizeof path));
  return kit_return_i64(task, 0, 7);
}

static const char* file_of(ray_task* task, const char* name, char* out) { /* args[0] is the directory */
  char directory[400];
  kit_arg_text(task, 0, directory, sizeof directory);
  snprintf(out, 512, "%s/%s", directory, name);
  return out;
}

/* Gets the reference inside args[1]; in a directory not before its lease has been reclaimed. */
static ray_code get_inside(ray_task* task, void* user) {
  const ray_buffer* args;
  char path[512];
  ray_ref* ref;
  int i;
  (void)user;
  CHECK_EQ(ray_task_args(task, &args), 2);
  CHECK_OK(ray_buffer_ref(&args[1], 0, &ref, &err));
  if (args[0].size > 0) {
    kit_touch(file_of(task, "begun", path));
    kit_await(file_of(task, "wanted", path));
    for (i = 0; i < 200; i++) kit_pause(); /* the daemon decides; without that the test would find nothing */
  }
  return kit_return_i64(task, 0, kit_take_i64(ref));
}

/* Its child needs the node's CPU. */
static ray_code want(ray_task* task, void* user) {
  ray_runtime* runtime = ray_task_runtime(task);
  ray_function* function;
  char path[512];
  ray_buffer buffer;
  ray_ref* ref;
  (void)user;
  CHECK_OK(ray_function_get(runtime, ray_cstr("seven"), &function, &err));
  CHECK_OK(ray_submit(runtime, function, NULL, 0, NULL, &ref, &err));
  kit_touch(file_of(task, "wanted", path));
  CHECK_OK(ray_get(runtime, &ref, 1, -1, &buffer, &err));
  ray_buffer_release(&buffer);
  ray_ref_release(ref);
  ray_function_release(function);
  return kit_return_i64(task, 0, 7);
}

static ray_code create(ray_task* task, void* user) {
  (void)task, (void)user;
  return RAY_OK;
}

static void register_all(void) {
  static const remote_function all[] = {{"seven", seven}, {"touch", touch}, {"get_inside", get_inside},
                                        {"want", want}, {"await_file", await_file}};
  remote_register(all, sizeof all / sizeof all[0]);
  CHECK_OK(ray_register_actor(ray_cstr("Actor"), create, NULL, NULL, &err));
  CHECK_OK(ray_register_method(ray_cstr("Actor"), ray_cstr("await_file"), await_file, NULL, &err));
}

enum { kOften = 50 }; /* so often, and a function is known to be short */

static ray_ref* get_inside_of(const char* directory, ray_ref* ref) {
  ray_arg args[2];
  args[0] = kit_text(directory);
  args[1].ref = NULL;
  args[1].value = ray_plain("", 0, RAY_FMT_RAW);
  args[1].value.refs = &ref;
  args[1].value.n_refs = 1;
  return kit_submit("get_inside", args, 2, NULL);
}

/* One CPU. Another process wants it while a task runs, which then waits for a task that was not ready to run yet. */
static void a_lease_to_be_given_back_is_none(void) {
  ray_runtime_options options = kit_options();
  ray_task_options nothing = RAY_TASK_OPTIONS_INIT;
  char directory[400];
  uint8_t zero[32];
  ray_actor* actor;
  ray_ref *late, *child, *parent, *other;
  ray_arg arg;
  int i;
  options.num_cpus = 1;
  CHECK_OK(ray_init(&options, &rt, &err));
  snprintf(directory, sizeof directory, "%s", kit_path("."));
  nothing.resources_msgpack = mp_map(zero, sizeof zero, "CPU", 0.0, NULL);
  for (i = 0; i < kOften; i++) {
    child = kit_submit("seven", NULL, 0, NULL);
    CHECK_EQ(kit_get_i64(child), 7);
    CHECK_EQ(kit_take_i64(get_inside_of("", child)), 7);
    ray_ref_release(child);
  }
  actor = kit_actor("Actor", NULL);
  arg = kit_text(kit_path("go"));
  late = kit_call(actor, "await_file", &arg, 1);
  arg = kit_ref(late);
  child = kit_submit("seven", &arg, 1, NULL);
  parent = get_inside_of(directory, child);
  kit_await(kit_path("begun"));
  arg = kit_text(directory);
  other = kit_submit("want", &arg, 1, &nothing);
  CHECK_EQ(kit_take_i64(other), 7); /* the parent waits, and has lent its CPU */
  kit_touch(kit_path("go"));
  CHECK_EQ(kit_take_i64(parent), 7);
  ray_ref_release(child);
  ray_ref_release(late);
  ray_actor_release(actor);
}

/* Two CPUs, and a task of a function that was always short waits for the next one, in a way that nobody sees. */
static void a_task_that_takes_long_holds_nobody_up(void) {
  ray_ref* waits;
  ray_arg arg;
  int i;
  rt = kit_init();
  arg = kit_text(kit_path("there"));
  for (i = 0; i < kOften; i++) {
    CHECK_EQ(kit_take_i64(kit_submit("touch", &arg, 1, NULL)), 7);
    CHECK_EQ(kit_take_i64(kit_submit("await_file", &arg, 1, NULL)), 7);
  }
  waits = waiting_for("go");
  arg = kit_text(kit_path("go"));
  CHECK_EQ(kit_take_i64(kit_submit("touch", &arg, 1, NULL)), 7);
  CHECK_EQ(kit_take_i64(waits), 7);
}

static const kit_test tests[] = {KIT_TEST(a_lease_to_be_given_back_is_none),
                                 KIT_TEST(a_task_that_takes_long_holds_nobody_up)};
KIT_MAIN(tests, register_all)
