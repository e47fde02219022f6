/* groups.c -- placement groups and node affinity: reserved, waited for, removed; wrong arguments. */
#define _POSIX_C_SOURCE 200809L
#include <unistd.h>

#include "kit.h"
#include "remote.h"

static ray_code next(ray_task* task, void* user) {
  (void)user;
  return kit_return_i64(task, 0, kit_arg_i64(task, 0) + 1);
}

/* Says that it runs, then runs until it is killed. */
static ray_code for_ever(ray_task* task, void* user) {
  char path[512];
  (void)user;
  kit_touch(kit_arg_text(task, 0, path, sizeof path));
  while (!ray_task_is_cancelled(task)) kit_pause();
  return RAY_OK;
}

static ray_code holder_create(ray_task* task, void* user) {
  (void)task, (void)user;
  return RAY_OK;
}

static void register_all(void) {
  CHECK_OK(ray_register_function(ray_cstr("add"), add, NULL, &err));
  CHECK_OK(ray_register_function(ray_cstr("for_ever"), for_ever, NULL, &err));
  CHECK_OK(ray_register_actor(ray_cstr("Holder"), holder_create, NULL, NULL, &err));
  CHECK_OK(ray_register_method(ray_cstr("Holder"), ray_cstr("next"), next, NULL, &err));
}

/* [{"CPU": cpus}, ...] with n bundles. */
static ray_bytes bundles_of(uint8_t* space, size_t n, double cpus) {
  ray_bytes view;
  size_t at = 1, i;
  space[0] = (uint8_t)(0x90 + n);
  for (i = 0; i < n; i++) {
    ray_bytes map = mp_map(space + at, 64, "CPU", cpus, NULL);
    at += map.size;
  }
  view.data = space;
  view.size = at;
  return view;
}

static ray_code create(size_t n, double cpus, int32_t strategy, const char* name, ray_id* out) {
  ray_group_options options = RAY_GROUP_OPTIONS_INIT;
  uint8_t space[512];
  options.bundles_msgpack = bundles_of(space, n, cpus);
  options.strategy = strategy;
  options.name = ray_cstr(name);
  return ray_group_create(rt, &options, out, &err);
}

static double available(const char* name) {
  ray_buffer buffer = RAY_BUFFER_INIT;
  double amount = -1;
  mp at;
  CHECK_OK(ray_cluster_query(rt, ray_cstr("available"), (ray_bytes){NULL, 0}, &buffer, &err));
  if (mp_find(mp_of(buffer.data, (size_t)buffer.size), name, &at)) amount = mp_number(at);
  ray_buffer_release(&buffer);
  return amount;
}

static bool all_is_free(void* cpus) { return available("CPU") == *(double*)cpus; }

static size_t groups_in(const char* state) {
  ray_buffer buffer = RAY_BUFFER_INIT;
  size_t n;
  CHECK_OK(ray_cluster_query(rt, ray_cstr("groups"), (ray_bytes){NULL, 0}, &buffer, &err));
  n = mp_rows_with(mp_of(buffer.data, (size_t)buffer.size), "state", state);
  ray_buffer_release(&buffer);
  return n;
}

static ray_ref* add_in(const ray_placement* placement) {
  ray_task_options options = RAY_TASK_OPTIONS_INIT;
  int64_t a = 1, b = 2;
  ray_arg args[2];
  args[0] = kit_i64(&a);
  args[1] = kit_i64(&b);
  options.placement = placement;
  return kit_submit("add", args, 2, &options);
}

static void reserved(void) {
  ray_placement in = RAY_PLACEMENT_INIT;
  ray_actor_options options = RAY_ACTOR_OPTIONS_INIT;
  ray_id group, second;
  ray_actor* actor;
  uint8_t space[64];
  double all = 2;
  kit_init();
  CHECK_OK(create(2, 1, RAY_GROUP_PACK, "pair", &group));
  CHECK_OK(ray_group_wait(rt, &group, -1, &err));
  CHECK_OK(ray_group_wait(rt, &group, 0, &err));
  CHECK_EQ(available("CPU"), 0);
  CHECK_CODE(RAY_ALREADY_EXISTS, create(1, 1, RAY_GROUP_PACK, "pair", &second));
  CHECK_OK(create(1, 1, RAY_GROUP_PACK, NULL, &second)); /* nothing is left for it */
  CHECK_CODE(RAY_TIMED_OUT, ray_group_wait(rt, &second, 0, &err));
  CHECK_CODE(RAY_TIMED_OUT, ray_group_wait(rt, &second, 20000000, &err));
  CHECK_EQ(groups_in("CREATED"), 1);
  CHECK_EQ(groups_in("PENDING"), 1);
  in.group = group;
  CHECK_EQ(kit_take_i64(add_in(&in)), 3);
  in.bundle = 1;
  CHECK_EQ(kit_take_i64(add_in(&in)), 3);
  options.placement = &in;
  options.resources_msgpack = mp_map(space, sizeof space, "CPU", 1.0, NULL);
  actor = kit_actor("Holder", &options);
  CHECK_EQ(kit_call_i64(actor, "next", 4), 5);
  CHECK_OK(ray_group_remove(rt, &group, &err));
  CHECK_CODE(RAY_NOT_FOUND, ray_group_remove(rt, &group, &err));
  CHECK_CODE(RAY_NOT_FOUND, ray_group_wait(rt, &group, -1, &err));
  CHECK_OK(ray_group_wait(rt, &second, -1, &err)); /* what the first had is its */
  CHECK_OK(ray_group_remove(rt, &second, &err));
  CHECK_UNTIL(all_is_free, &all);
  CHECK_EQ(groups_in("REMOVED"), 2);
  CHECK_CODE(RAY_ACTOR_DIED, kit_get_code(kit_call(actor, "next", NULL, 0)));
  CHECK_MESSAGE("placement group");
  ray_actor_release(actor);
}

static void placed_twice(void) {
  static const char resources[] = "\x81\xa9placement\x80"; /* {"placement": {}} */
  ray_placement in = RAY_PLACEMENT_INIT;
  ray_task_options options = RAY_TASK_OPTIONS_INIT;
  ray_function* function;
  ray_ref* ref;
  kit_init();
  CHECK_OK(create(1, 1, RAY_GROUP_STRICT_PACK, NULL, &in.group));
  CHECK_OK(ray_function_get(rt, ray_cstr("for_ever"), &function, &err));
  options.placement = &in;
  options.resources_msgpack.data = resources;
  options.resources_msgpack.size = sizeof resources - 1;
  CHECK_CODE(RAY_INVALID_ARGUMENT, ray_submit(rt, function, NULL, 0, &options, &ref, &err));
  CHECK_MESSAGE("twice");
  ray_function_release(function);
}

static void removed_under_tasks(void) {
  ray_placement in = RAY_PLACEMENT_INIT;
  ray_task_options options = RAY_TASK_OPTIONS_INIT;
  ray_actor_options actor_options = RAY_ACTOR_OPTIONS_INIT;
  const char* runs = kit_path("runs");
  ray_arg arg = kit_text(runs);
  ray_ref *running, *waiting, *retried;
  ray_actor* actor;
  ray_id group;
  uint8_t space[64];
  kit_init();
  CHECK_OK(create(1, 1, RAY_GROUP_STRICT_PACK, NULL, &group));
  in.group = group;
  options.placement = &in;
  options.max_retries = 0;
  running = kit_submit("for_ever", &arg, 1, &options);
  kit_await(runs);
  options.max_retries = 3;
  waiting = kit_submit("for_ever", &arg, 1, &options);
  actor_options.placement = &in;
  actor_options.resources_msgpack = mp_map(space, sizeof space, "CPU", 1.0, NULL);
  actor = kit_actor("Holder", &actor_options);
  CHECK_OK(ray_group_remove(rt, &group, &err));
  CHECK_CODE(RAY_WORKER_CRASHED, kit_get_code(running));
  CHECK_CODE(RAY_GROUP_REMOVED, kit_get_code(waiting));
  CHECK_MESSAGE("was removed");
  CHECK_CODE(RAY_GROUP_REMOVED, kit_get_code(kit_call(actor, "next", NULL, 0)));
  ray_actor_release(actor);
  retried = add_in(&in); /* submitted to what is gone */
  CHECK_CODE(RAY_GROUP_REMOVED, kit_get_code(retried));
  CHECK_EQ(kit_take_i64(add_in(NULL)), 3);
}

static void nodes(void) {
  ray_placement on = RAY_PLACEMENT_INIT;
  ray_context context;
  kit_init();
  memset(&context, 0, sizeof context);
  context.struct_size = sizeof context;
  CHECK_OK(ray_runtime_context(rt, &context, &err));
  on.node = context.node;
  CHECK_EQ(kit_take_i64(add_in(&on)), 3);
  on.node.b[3] ^= 0x55; /* a node that is not there */
  CHECK_CODE(RAY_UNSCHEDULABLE, kit_get_code(add_in(&on)));
  CHECK_MESSAGE("not alive");
  on.flags = RAY_PLACEMENT_SOFT;
  CHECK_EQ(kit_take_i64(add_in(&on)), 3);
}

static void wrong_arguments(void) {
  ray_group_options options = RAY_GROUP_OPTIONS_INIT;
  ray_task_options task = RAY_TASK_OPTIONS_INIT;
  ray_placement in = RAY_PLACEMENT_INIT;
  ray_function* function;
  ray_runtime* stale;
  ray_ref* ref;
  ray_id group;
  uint8_t space[512];
  memset(&group, 0, sizeof group);
  CHECK_CODE(RAY_INVALID_ARGUMENT, ray_group_create(NULL, &options, &group, &err));
  CHECK_CODE(RAY_INVALID_ARGUMENT, ray_group_wait(NULL, &group, 0, &err));
  CHECK_CODE(RAY_INVALID_ARGUMENT, ray_group_remove(NULL, &group, &err));
  kit_init();
  stale = rt;
  CHECK_CODE(RAY_INVALID_ARGUMENT, ray_group_create(rt, NULL, &group, &err));
  CHECK_CODE(RAY_INVALID_ARGUMENT, ray_group_create(rt, &options, NULL, &err));
  CHECK_CODE(RAY_INVALID_ARGUMENT, ray_group_create(rt, &options, &group, &err)); /* no bundles */
  CHECK_CODE(RAY_INVALID_ARGUMENT, create(0, 1, 0, NULL, &group));
  CHECK_CODE(RAY_INVALID_ARGUMENT, create(1, 0, 0, NULL, &group)); /* an empty one */
  CHECK_MESSAGE("bundle 0");
  CHECK_CODE(RAY_INVALID_ARGUMENT, create(1, -1, 0, NULL, &group));
  CHECK_CODE(RAY_INVALID_ARGUMENT, create(1, 1, 4, NULL, &group));
  CHECK_CODE(RAY_INVALID_ARGUMENT, create(1, 1, -1, NULL, &group));
  options.bundles_msgpack = bundles_of(space, 1, 1);
  options.struct_size = 4;
  CHECK_CODE(RAY_INVALID_ARGUMENT, ray_group_create(rt, &options, &group, &err));
  CHECK_CODE(RAY_INVALID_ARGUMENT, ray_group_wait(rt, NULL, 0, &err));
  CHECK_CODE(RAY_INVALID_ARGUMENT, ray_group_wait(rt, &group, -2, &err));
  CHECK_CODE(RAY_NOT_FOUND, ray_group_wait(rt, &group, -1, &err));
  CHECK_CODE(RAY_INVALID_ARGUMENT, ray_group_remove(rt, NULL, &err));
  CHECK_CODE(RAY_NOT_FOUND, ray_group_remove(rt, &group, &err));
  CHECK_OK(ray_function_get(rt, ray_cstr("add"), &function, &err));
  task.placement = &in;
  in.bundle = 0; /* of no group */
  CHECK_CODE(RAY_INVALID_ARGUMENT, ray_submit(rt, function, NULL, 0, &task, &ref, &err));
  in.bundle = -1;
  in.flags = 2;
  CHECK_CODE(RAY_INVALID_ARGUMENT, ray_submit(rt, function, NULL, 0, &task, &ref, &err));
  in.flags = 0;
  in.struct_size = 3;
  CHECK_CODE(RAY_INVALID_ARGUMENT, ray_submit(rt, function, NULL, 0, &task, &ref, &err));
  ray_function_release(function);
  /* A bundle that the group does not have. */
  CHECK_OK(create(1, 1, RAY_GROUP_SPREAD, NULL, &group));
  in.struct_size = sizeof in;
  in.group = group;
  in.bundle = 7;
  CHECK_CODE(RAY_UNSCHEDULABLE, kit_get_code(add_in(&in)));
  CHECK_MESSAGE("bundle 7");
  kit_shutdown();
  CHECK_CODE(RAY_INVALID_ARGUMENT, ray_group_wait(stale, &group, 0, &err));
}

static const kit_test tests[] = {KIT_TEST(reserved), KIT_TEST(placed_twice), KIT_TEST(removed_under_tasks), KIT_TEST(nodes),
                                 KIT_TEST(wrong_arguments)};
KIT_MAIN(tests, register_all)
