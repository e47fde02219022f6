/* weak.c -- handles of actors that keep nobody alive: found by name, made from an id. */
#define _POSIX_C_SOURCE 200809L
#include <unistd.h>

#include "kit.h"

/* ---- the remote side: a counter that touches a file when it ends ---- */

typedef struct counter {
  int64_t n;
  char gone[512];
} counter;

static ray_code counter_create(ray_task* task, void* user) {
  counter* self = calloc(1, sizeof *self);
  const ray_buffer* args;
  (void)user;
  if (ray_task_args(task, &args) > 0) kit_arg_text(task, 0, self->gone, sizeof self->gone);
  return ray_task_set_self(task, self, NULL);
}

static void counter_destroy(void* self, void* user) {
  (void)user;
  if (((counter*)self)->gone[0]) kit_touch(((counter*)self)->gone);
  free(self);
}

static ray_code counter_append(ray_task* task, void* user) {
  (void)user;
  return kit_return_i64(task, 0, ++((counter*)ray_task_self(task))->n);
}

static ray_code counter_pid(ray_task* task, void* user) {
  (void)user;
  return kit_return_i64(task, 0, (int64_t)getpid());
}

static ray_code counter_wait(ray_task* task, void* user) { /* touches args[0], waits for args[1] */
  char path[512];
  (void)user;
  kit_touch(kit_arg_text(task, 0, path, sizeof path));
  kit_await(kit_arg_text(task, 1, path, sizeof path));
  return kit_return_i64(task, 0, 7);
}

/* A task whose process keeps the handle that it finds for as long as it lives. */
static ray_code find_and_keep(ray_task* task, void* user) {
  ray_actor* actor;
  char name[64];
  (void)user;
  CHECK_OK(ray_actor_find(rt, ray_cstr(kit_arg_text(task, 0, name, sizeof name)), ray_cstr(""), &actor, &err));
  return kit_return_i64(task, 0, kit_call_i64(actor, "append", 66));
}

static void register_all(void) {
  CHECK_OK(ray_register_actor(ray_cstr("Counter"), counter_create, counter_destroy, NULL, &err));
  CHECK_OK(ray_register_method(ray_cstr("Counter"), ray_cstr("append"), counter_append, NULL, &err));
  CHECK_OK(ray_register_method(ray_cstr("Counter"), ray_cstr("pid"), counter_pid, NULL, &err));
  CHECK_OK(ray_register_method(ray_cstr("Counter"), ray_cstr("wait"), counter_wait, NULL, &err));
  CHECK_OK(ray_register_function(ray_cstr("find_and_keep"), find_and_keep, NULL, &err));
}

/* ---- tests ---- */

static bool is_dead(void* actor) {
  ray_ref* ref = kit_call((ray_actor*)actor, "pid", NULL, 0);
  ray_code code = kit_get_code(ref);
  ray_ref_release(ref);
  return code == RAY_ACTOR_DIED;
}

/* All that was dropped before this has come to the daemon and to an end: a younger actor has. */
static void let_the_dropped_end(const char* file) {
  ray_function* klass;
  ray_actor* actor;
  ray_arg arg = kit_text(kit_path(file));
  CHECK_OK(ray_function_get(rt, ray_cstr("Counter"), &klass, &err));
  CHECK_OK(ray_actor_create(rt, klass, &arg, 1, NULL, &actor, &err));
  CHECK_EQ(kit_call_i64(actor, "append", 1), 1);
  ray_actor_release(actor);
  ray_function_release(klass);
  kit_await(kit_path(file));
}

/* A handle that was found, or made from an id, does not keep an actor, in this process or in another, however busily it
 * is used. */
static void weak_handles_keep_nobody(void) {
  ray_actor_options options = RAY_ACTOR_OPTIONS_INIT;
  ray_actor *actor, *found, *same, *again;
  ray_function* klass;
  ray_arg arg = kit_text("found");
  ray_id id, other;
  kit_init();
  options.name = ray_cstr("found");
  actor = kit_actor("Counter", &options);
  CHECK_EQ(kit_take_i64(kit_submit("find_and_keep", &arg, 1, NULL)), 1);
  CHECK_OK(ray_actor_find(rt, ray_cstr("found"), ray_cstr(""), &found, &err));
  CHECK_OK(ray_actor_from_id(rt, ray_actor_id(actor), &same, &err));
  options.flags = RAY_ACTOR_GET_IF_EXISTS;
  CHECK_OK(ray_function_get(rt, ray_cstr("Counter"), &klass, &err));
  CHECK_OK(ray_actor_create(rt, klass, NULL, 0, &options, &again, &err));
  CHECK(!ray_actor_is_weak(actor) && ray_actor_is_weak(found) && ray_actor_is_weak(same) && ray_actor_is_weak(again));
  CHECK(!ray_actor_is_weak(NULL));
  id = ray_actor_id(actor), other = ray_actor_id(same);
  CHECK(memcmp(&id, &other, sizeof id) == 0);
  CHECK_EQ(kit_call_i64(same, "append", 1), 2);
  CHECK_EQ(kit_call_i64(found, "append", 1), 3);
  let_the_dropped_end("another");
  CHECK_EQ(kit_call_i64(again, "append", 1), 4); /* the counted one is enough */
  ray_actor_release(actor);
  CHECK_UNTIL(is_dead, found);
  CHECK_MESSAGE("the last handle of the actor is gone");
  kit_clear();
  CHECK_CODE(RAY_NOT_FOUND, ray_actor_find(rt, ray_cstr("found"), ray_cstr(""), &actor, &err));
  ray_actor_release(found);
  ray_actor_release(same);
  ray_actor_release(again);
  CHECK_OK(ray_actor_create(rt, klass, NULL, 0, &options, &again, &err)); /* nobody has that name now */
  CHECK(!ray_actor_is_weak(again));
  ray_actor_release(again);
  ray_function_release(klass);
  id.b[0] ^= 1; /* nobody's */
  CHECK_OK(ray_actor_from_id(rt, id, &same, &err));
  CHECK(is_dead(same));
  kit_clear();
  ray_actor_release(same);
  memset(&id, 0, sizeof id);
  CHECK_CODE(RAY_INVALID_ARGUMENT, ray_actor_from_id(rt, id, &same, &err));
  CHECK_MESSAGE("is not the id of an actor");
}

/* Calls through one are finished: those that the actor has, and one that waits for its argument. */
static void calls_through_weak_handles_are_finished(void) {
  ray_actor_options options = RAY_ACTOR_OPTIONS_INIT;
  ray_actor *actor, *other, *found;
  ray_ref *running, *queued, *waiting, *late;
  ray_arg args[2];
  kit_init();
  options.name = ray_cstr("busy");
  actor = kit_actor("Counter", &options);
  other = kit_actor("Counter", NULL);
  CHECK_OK(ray_actor_find(rt, ray_cstr("busy"), ray_cstr(""), &found, &err));
  args[0] = kit_text(kit_path("runs"));
  args[1] = kit_text(kit_path("go"));
  running = kit_call(found, "wait", args, 2);
  kit_await(kit_path("runs"));
  queued = kit_call(found, "pid", NULL, 0);
  ray_actor_release(actor);
  let_the_dropped_end("between");
  kit_touch(kit_path("go"));
  CHECK_EQ(kit_take_i64(running), 7);
  CHECK(kit_take_i64(queued) > 0);
  CHECK_UNTIL(is_dead, found);
  kit_clear();
  ray_actor_release(found);

  actor = kit_actor("Counter", &options);
  CHECK_OK(ray_actor_find(rt, ray_cstr("busy"), ray_cstr(""), &found, &err));
  args[0] = kit_text(kit_path("late runs"));
  args[1] = kit_text(kit_path("late go"));
  late = kit_call(other, "wait", args, 2);
  args[0] = kit_ref(late);
  waiting = kit_call(found, "append", args, 1);
  ray_actor_release(actor);
  let_the_dropped_end("while it waits");
  kit_touch(kit_path("late go"));
  CHECK_EQ(kit_take_i64(waiting), 1);
  CHECK_UNTIL(is_dead, found);
  kit_clear();
  ray_ref_release(late);
  ray_actor_release(found);
  ray_actor_release(other);
}

/* A reference made from a weak handle counts, and so does a handle made from that. */
static void references_of_weak_handles_count(void) {
  ray_actor_options options = RAY_ACTOR_OPTIONS_INIT;
  ray_actor *actor, *found, *counted;
  ray_ref* ref;
  kit_init();
  options.name = ray_cstr("kept");
  actor = kit_actor("Counter", &options);
  CHECK_OK(ray_actor_find(rt, ray_cstr("kept"), ray_cstr(""), &found, &err));
  CHECK_EQ(kit_call_i64(found, "append", 1), 1);
  CHECK_OK(ray_actor_to_ref(found, &ref, &err));
  ray_actor_release(actor);
  let_the_dropped_end("first");
  CHECK_EQ(kit_call_i64(found, "append", 1), 2);
  CHECK_OK(ray_actor_from_ref(ref, &counted, &err));
  CHECK(!ray_actor_is_weak(counted));
  ray_ref_release(ref);
  let_the_dropped_end("second");
  CHECK_EQ(kit_call_i64(found, "append", 1), 3);
  ray_actor_release(counted);
  CHECK_UNTIL(is_dead, found);
  kit_clear();
  ray_actor_release(found);
}

static const kit_test tests[] = {KIT_TEST(weak_handles_keep_nobody), KIT_TEST(calls_through_weak_handles_are_finished),
                                 KIT_TEST(references_of_weak_handles_count)};
KIT_MAIN(tests, register_all)
