/* outside.c -- ids of what is made outside of a task: in threads of actors and workers, and by creators that run
 * again; the order of an actor's calls as the journal has it. */
#define _POSIX_C_SOURCE 200809L
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include "kit.h"

/* ---- the remote side ---- */

/* Ids of a put and of a task's result. */
typedef struct made {
  ray_id put, result;
} made;

static ray_code nothing(ray_task* task, void* user) {
  (void)task, (void)user;
  return RAY_OK;
}

static void* make(void* user) {
  made* out = (made*)user;
  ray_value value = ray_plain("x", 1, RAY_FMT_RAW);
  ray_ref *put, *result;
  CHECK_OK(ray_put(rt, &value, &put, &err));
  result = kit_submit("nothing", NULL, 0, NULL);
  out->put = ray_ref_id(put);
  out->result = ray_ref_id(result);
  ray_ref_release(put);
  ray_ref_release(result);
  return NULL;
}

static ray_code make_in_thread(ray_task* task, void* user) {
  made ids;
  pthread_t thread;
  ray_value value = ray_plain(&ids, sizeof ids, RAY_FMT_RAW);
  (void)user;
  kit_clear(); /* `err` is the thread's now */
  CHECK(pthread_create(&thread, NULL, make, &ids) == 0);
  CHECK(pthread_join(thread, NULL) == 0);
  return ray_task_return(task, 0, &value, NULL);
}

static ray_code create(ray_task* task, void* user) {
  (void)task, (void)user;
  return RAY_OK;
}

static ray_code die(ray_task* task, void* user) {
  (void)task, (void)user;
  raise(SIGKILL);
  return RAY_OK;
}

/* Creates an actor and appends its id to the file args[0]; dies as long as there are fewer than args[1]. */
static ray_code create_again(ray_task* task, void* user) {
  ray_actor* actor = kit_actor("Maker", NULL);
  ray_id id = ray_actor_id(actor);
  char path[512];
  FILE* file = fopen(kit_arg_text(task, 0, path, sizeof path), "ab");
  long size;
  (void)user;
  CHECK(file != NULL && fwrite(&id, sizeof id, 1, file) == 1);
  size = ftell(file);
  fclose(file);
  if (size < (long)sizeof id * kit_arg_i64(task, 1)) raise(SIGKILL);
  ray_ref_release(kit_call(actor, "nothing", NULL, 0));
  ray_actor_release(actor);
  return kit_return_i64(task, 0, 1);
}

/* Keeps the first reference that it gets inside a value, and what is written beside it; gives both. */
static ray_ref* g_kept;
static char g_bytes[256];
static size_t g_size;

static ray_code keep(ray_task* task, void* user) {
  const ray_buffer* args;
  (void)user;
  CHECK_EQ(ray_task_args(task, &args), 1);
  if (g_kept == NULL) {
    CHECK_OK(ray_buffer_ref(&args[0], 0, &g_kept, &err));
    CHECK(args[0].size <= sizeof g_bytes);
    memcpy(g_bytes, args[0].data, g_size = args[0].size);
  }
  return kit_return_i64(task, 0, 0);
}

static ray_code give(ray_task* task, void* user) {
  ray_value value = ray_plain(g_bytes, g_size, RAY_FMT_RAW);
  (void)user;
  value.refs = &g_kept;
  value.n_refs = 1;
  return ray_task_return(task, 0, &value, NULL);
}

/* Fails once. Each attempt puts a value of args[1] bytes, which begins with the attempt's number, and gives it to the
 * actor inside args[0]. Returns what the second reads: by its own reference, the actor's, and the actor's export. */
static ray_code put_again(ray_task* task, void* user) {
  ray_task_info info = RAY_TASK_INFO_INIT;
  const size_t size = (size_t)kit_arg_i64(task, 1);
  char* data = calloc(1, size);
  char exported[256];
  ray_value value = ray_plain(data, size, RAY_FMT_RAW);
  ray_arg arg = RAY_ARG_INIT;
  const ray_buffer* args;
  ray_buffer given = RAY_BUFFER_INIT, read[3];
  ray_ref *of_actor, *refs[3], *answer;
  ray_actor* actor;
  ray_bytes view;
  int64_t seen = 0;
  int i;
  (void)user;
  CHECK_OK(ray_task_get_info(task, &info));
  CHECK_EQ(ray_task_args(task, &args), 2);
  CHECK_OK(ray_buffer_ref(&args[0], 0, &of_actor, &err));
  CHECK_OK(ray_actor_from_ref(of_actor, &actor, &err));
  data[0] = (char)info.attempt;
  CHECK_OK(ray_put(rt, &value, &refs[0], &err));
  view.size = sizeof exported;
  CHECK_OK(ray_ref_export(refs[0], exported, &view.size, &err));
  arg.value = ray_plain(exported, view.size, RAY_FMT_RAW);
  arg.value.refs = refs;
  arg.value.n_refs = 1;
  answer = kit_call(actor, "keep", &arg, 1);
  CHECK_EQ(kit_take_i64(answer), 0);
  if (info.attempt == 1) {
    CHECK_OK(ray_task_fail(task, ray_cstr("the first attempt"), NULL));
    return RAY_TASK_FAILED;
  }
  answer = kit_call(actor, "give", NULL, 0);
  CHECK_OK(ray_get(rt, &answer, 1, -1, &given, &err));
  CHECK_OK(ray_buffer_ref(&given, 0, &refs[1], &err));
  view.data = given.data;
  view.size = given.size;
  CHECK_OK(ray_ref_import(rt, view, &refs[2], &err));
  CHECK_OK(ray_get(rt, refs, 3, -1, read, &err));
  for (i = 0; i < 3; i++) seen = seen * 10 + *(const char*)read[i].data;
  return kit_return_i64(task, 0, seen);
}

static void register_all(void) {
  CHECK_OK(ray_register_function(ray_cstr("nothing"), nothing, NULL, &err));
  CHECK_OK(ray_register_function(ray_cstr("make_in_thread"), make_in_thread, NULL, &err));
  CHECK_OK(ray_register_function(ray_cstr("create_again"), create_again, NULL, &err));
  CHECK_OK(ray_register_function(ray_cstr("put_again"), put_again, NULL, &err));
  CHECK_OK(ray_register_actor(ray_cstr("Shelf"), create, NULL, NULL, &err));
  CHECK_OK(ray_register_method(ray_cstr("Shelf"), ray_cstr("keep"), keep, NULL, &err));
  CHECK_OK(ray_register_method(ray_cstr("Shelf"), ray_cstr("give"), give, NULL, &err));
  CHECK_OK(ray_register_actor(ray_cstr("Maker"), create, NULL, NULL, &err));
  CHECK_OK(ray_register_method(ray_cstr("Maker"), ray_cstr("nothing"), nothing, NULL, &err));
  CHECK_OK(ray_register_method(ray_cstr("Maker"), ray_cstr("make"), make_in_thread, NULL, &err));
  CHECK_OK(ray_register_method(ray_cstr("Maker"), ray_cstr("die"), die, NULL, &err));
}

/* ---- tests ---- */

static made take_made(ray_ref* ref) {
  ray_buffer buffer = RAY_BUFFER_INIT;
  made ids;
  CHECK_OK(ray_get(rt, &ref, 1, -1, &buffer, &err));
  CHECK_EQ(buffer.size, sizeof ids);
  memcpy(&ids, buffer.data, sizeof ids);
  ray_buffer_release(&buffer);
  ray_ref_release(ref);
  return ids;
}

static bool same(const ray_id* a, const ray_id* b) { return memcmp(a, b, sizeof *a) == 0; }

/* Threads of two actors, of one that was restarted, and of the workers of tasks: nothing has the id of another. */
static void ids_of_threads_are_their_own(void) {
  ray_actor_options options = RAY_ACTOR_OPTIONS_INIT;
  ray_actor* actors[2];
  ray_ref* dead;
  made all[6];
  int i, k;
  kit_init();
  options.max_restarts = 1;
  for (i = 0; i < 2; i++) actors[i] = kit_actor("Maker", &options);
  for (i = 0; i < 2; i++) all[i] = take_made(kit_call(actors[i], "make", NULL, 0));
  all[2] = take_made(kit_call(actors[0], "make", NULL, 0));
  dead = kit_call(actors[0], "die", NULL, 0);
  CHECK(kit_get_code(dead) != RAY_OK);
  ray_ref_release(dead);
  for (;;) { /* refused while it restarts */
    ray_ref* ref = kit_call(actors[0], "nothing", NULL, 0);
    ray_code code = kit_get_code(ref);
    ray_ref_release(ref);
    if (code == RAY_OK) break;
    kit_pause();
  }
  all[3] = take_made(kit_call(actors[0], "make", NULL, 0));
  all[4] = take_made(kit_submit("make_in_thread", NULL, 0, NULL));
  make(&all[5]); /* the driver's */
  for (i = 0; i < 6; i++)
    for (k = 0; k < i; k++) {
      CHECK(!same(&all[i].put, &all[k].put));
      CHECK(!same(&all[i].result, &all[k].result));
    }
  for (i = 0; i < 2; i++) ray_actor_release(actors[i]);
}

/* Each attempt makes actors of its own. */
static void actors_of_a_creator_that_runs_again(void) {
  int64_t lives = 3;
  ray_id ids[3];
  ray_arg args[2];
  FILE* file;
  int i, k;
  kit_init();
  args[0] = kit_text(kit_path("ids"));
  args[1] = kit_i64(&lives);
  CHECK_EQ(kit_take_i64(kit_submit("create_again", args, 2, NULL)), 1);
  file = fopen(kit_path("ids"), "rb");
  CHECK(file != NULL && fread(ids, sizeof ids, 1, file) == 1);
  fclose(file);
  for (i = 0; i < 3; i++)
    for (k = 0; k < i; k++) CHECK(!same(&ids[i], &ids[k]));
}

/* A reference to what an earlier attempt put reads that, whatever the id stands for by now. */
static void values_of_an_earlier_attempt(void) {
  ray_task_options options = RAY_TASK_OPTIONS_INIT;
  int64_t sizes[3] = {20, 2000, 20000};
  int i;
  kit_init();
  options.flags = RAY_TASK_RETRY_ON_ERROR;
  for (i = 0; i < 3; i++) {
    ray_actor* shelf = kit_actor("Shelf", NULL);
    ray_arg args[2] = {RAY_ARG_INIT, RAY_ARG_INIT};
    ray_ref* of_actor;
    CHECK_OK(ray_actor_to_ref(shelf, &of_actor, &err));
    args[0].value = ray_plain("", 0, RAY_FMT_RAW);
    args[0].value.refs = &of_actor;
    args[0].value.n_refs = 1;
    args[1] = kit_i64(&sizes[i]);
    CHECK_EQ(kit_take_i64(kit_submit("put_again", args, 2, &options)), 211);
    ray_ref_release(of_actor);
    ray_actor_release(shelf);
  }
}

static ray_buffer g_rows;
static bool three_calls(void* user) {
  ray_bytes filter = *(const ray_bytes*)user;
  ray_buffer_release(&g_rows);
  CHECK_OK(ray_cluster_query(rt, ray_cstr("tasks"), filter, &g_rows, &err));
  return mp_rows(mp_of(g_rows.data, (size_t)g_rows.size)) == 3;
}

/* The journal knows the order in which this process called. */
static void counter_of_a_call_is_journaled(void) {
  uint8_t bytes[64];
  ray_bytes filter;
  ray_actor* actor;
  size_t at = 0, i, seen = 0;
  mp in;
  kit_init();
  actor = kit_actor("Maker", NULL);
  for (i = 0; i < 3; i++) ray_ref_release(kit_call(actor, "nothing", NULL, 0));
  bytes[at++] = 0x81;
  at += mp_put_str(bytes + at, "method");
  at += mp_put_str(bytes + at, "nothing");
  filter.data = bytes;
  filter.size = at;
  CHECK_UNTIL(three_calls, &filter);
  in = mp_of(g_rows.data, (size_t)g_rows.size);
  CHECK_EQ(mp_next(&in).size, 3);
  for (i = 0; i < 3; i++) {
    mp value;
    CHECK(mp_find(in, "handle_seq", &value));
    seen |= (size_t)1 << (int)mp_number(value);
    mp_skip(&in);
  }
  CHECK_EQ(seen, 7); /* 0, 1 and 2 */
  ray_buffer_release(&g_rows);
  ray_actor_release(actor);
}

static bool ended_twice(void* user) {
  ray_bytes filter = *(const ray_bytes*)user;
  mp in;
  ray_buffer_release(&g_rows);
  CHECK_OK(ray_cluster_query(rt, ray_cstr("tasks"), filter, &g_rows, &err));
  in = mp_of(g_rows.data, (size_t)g_rows.size);
  return mp_rows_with(in, "state", "FAILED") == 1 && mp_rows_with(in, "state", "CANCELLED") == 1;
}

/* A task whose argument failed and one that was cancelled before it ran: no worker ever tells of their ends. */
static void ends_that_only_the_owner_knows(void) {
  ray_task_options options = RAY_TASK_OPTIONS_INIT;
  ray_ref *refs[2], *bad;
  ray_bytes filter, resources;
  uint8_t bytes[64], amounts[64];
  ray_arg arg;
  size_t at = 0;
  int i;
  kit_init();
  CHECK_OK(ray_put_error(rt, RAY_TASK_FAILED, ray_cstr("bad"), NULL, &bad, &err));
  arg = kit_ref(bad);
  options.name = ray_cstr("ended");
  refs[0] = kit_submit("nothing", &arg, 1, &options);
  resources = mp_map(amounts, sizeof amounts, "nowhere", 1.0, NULL);
  options.resources_msgpack = resources;
  refs[1] = kit_submit("nothing", NULL, 0, &options);
  CHECK_OK(ray_cancel(refs[1], 0, &err));
  CHECK_CODE(RAY_TASK_FAILED, kit_get_code(refs[0]));
  CHECK_CODE(RAY_CANCELLED, kit_get_code(refs[1]));
  bytes[at++] = 0x81;
  at += mp_put_str(bytes + at, "name");
  at += mp_put_str(bytes + at, "ended");
  filter.data = bytes;
  filter.size = at;
  CHECK_UNTIL(ended_twice, &filter);
  ray_buffer_release(&g_rows);
  for (i = 0; i < 2; i++) ray_ref_release(refs[i]);
  ray_ref_release(bad);
}

static const kit_test tests[] = {KIT_TEST(ids_of_threads_are_their_own),
                                 KIT_TEST(actors_of_a_creator_that_runs_again),
                                 KIT_TEST(values_of_an_earlier_attempt),
                                 KIT_TEST(counter_of_a_call_is_journaled),
                                 KIT_TEST(ends_that_only_the_owner_knows)};
KIT_MAIN(tests, register_all)
