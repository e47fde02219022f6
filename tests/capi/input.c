/* input.c -- what is refused now, so that it can mean something later: unknown flags, enumerators, formats, reserved
 * words, sizes, foreign handles and exports, garbage; and what nothing may do, as to throw, or to recurse without end. */
#define _POSIX_C_SOURCE 200809L
#include <stddef.h>
#include <unistd.h>

#include "kit.h"

static ray_code add_one(ray_task* task, void* user) {
  (void)user;
  return kit_return_i64(task, 0, kit_arg_i64(task, 0) + 1);
}

static ray_code many(ray_task* task, void* user) { /* as many results as there may be, all of them long */
  char text[200];
  ray_value value = ray_plain(text, sizeof text, RAY_FMT_RAW);
  uint32_t i;
  (void)user;
  for (i = 0; i < RAY_MAX_RETURNS; i++) {
    memset(text, (int)('a' + i % 26), sizeof text);
    if (ray_task_return(task, i, &value, &err) != RAY_OK) return RAY_TASK_FAILED;
  }
  return RAY_OK;
}

static void register_all(void) {
  CHECK_OK(ray_register_function(ray_cstr("add_one"), add_one, NULL, &err));
  CHECK_OK(ray_register_function(ray_cstr("many"), many, NULL, &err));
}

#define REFUSED(call) CHECK_CODE(RAY_INVALID_ARGUMENT, call)

static ray_function* function_of(const char* name) {
  ray_function* function;
  CHECK_OK(ray_function_get(rt, ray_cstr(name), &function, &err));
  return function;
}

static void on_done(const ray_completion* completion, void* user) {
  (void)user;
  ray_ref_release(completion->ref);
  ray_error_release(completion->error);
}

static void flags_and_enumerators(void) {
  ray_task_options task = RAY_TASK_OPTIONS_INIT;
  ray_actor_options actor = RAY_ACTOR_OPTIONS_INIT;
  ray_group_options group = RAY_GROUP_OPTIONS_INIT;
  ray_runtime_options runtime = kit_options();
  ray_notify notify = RAY_NOTIFY_INIT;
  ray_runtime* other;
  ray_function* function;
  ray_stream* stream;
  ray_actor* made;
  ray_ref* ref;
  ray_id id;
  int64_t one = 1;
  ray_arg arg = kit_i64(&one);
  kit_init();
  function = function_of("add_one");
  task.flags = 0x80;
  REFUSED(ray_submit(rt, function, &arg, 1, &task, &ref, &err));
  REFUSED(ray_submit_stream(rt, function, &arg, 1, &task, &stream, &err));
  task.flags = 0;
  task.reserved = 5;
  REFUSED(ray_submit(rt, function, &arg, 1, &task, &ref, &err));
  task.reserved = 0;
  task.group = 70000;
  REFUSED(ray_submit(rt, function, &arg, 1, &task, &ref, &err));
  actor.flags = 0x80;
  REFUSED(ray_actor_create(rt, function, NULL, 0, &actor, &made, &err));
  actor.flags = 0;
  actor.lifetime = 7;
  REFUSED(ray_actor_create(rt, function, NULL, 0, &actor, &made, &err));
  actor.lifetime = 0;
  actor.max_task_retries = -3;
  REFUSED(ray_actor_create(rt, function, NULL, 0, &actor, &made, &err));
  group.bundles_msgpack = (ray_bytes){"\x91\x81\xa3"
                                      "CPU\x01", 7};
  group.lifetime = 9;
  REFUSED(ray_group_create(rt, &group, &id, &err));
  ref = kit_submit("add_one", &arg, 1, NULL);
  notify.fn = on_done;
  notify.flags = 0x40;
  REFUSED(ray_on_ready(ref, &notify, NULL, &err));
  notify.flags = 0;
  notify.reserved = 1;
  REFUSED(ray_on_ready(ref, &notify, NULL, &err));
  REFUSED(ray_cancel(ref, 0x40, &err));
  REFUSED(ray_shutdown(rt, -2, &err));
  runtime.gcs_shards = RAY_MAX_SHARDS + 1;
  REFUSED(ray_init(&runtime, &other, &err));
  runtime.gcs_shards = 0;
  runtime.language = 77;
  REFUSED(ray_init(&runtime, &other, &err));
  CHECK_EQ(kit_take_i64(ref), 2);
  ray_function_release(function);
}

static void values(void) {
  ray_value value = ray_plain("x", 1, RAY_FMT_RAW);
  ray_bytes part = {"y", 1};
  ray_function* function;
  ray_ref *ref, *inner;
  ray_arg arg = RAY_ARG_INIT;
  kit_init();
  function = function_of("add_one");
  CHECK_OK(ray_put(rt, &value, &inner, &err));
  value.format = 77;
  REFUSED(ray_put(rt, &value, &ref, &err));
  CHECK_MESSAGE("77");
  arg.value = value;
  REFUSED(ray_submit(rt, function, &arg, 1, NULL, &ref, &err));
  CHECK_MESSAGE("argument 0");
  value.format = UINT32_MAX; /* not even as one of the caller's own */
  REFUSED(ray_put(rt, &value, &ref, &err));
  value.format = RAY_FMT_USER;
  value.reserved[1] = 1;
  REFUSED(ray_put(rt, &value, &ref, &err));
  arg.value = value;
  arg.ref = inner;
  REFUSED(ray_submit(rt, function, &arg, 1, NULL, &ref, &err));
  value.reserved[1] = 0;
  REFUSED(ray_put_error(rt, 9999, ray_cstr("m"), NULL, &ref, &err));
  REFUSED(ray_put_error(rt, RAY_OK, ray_cstr("m"), NULL, &ref, &err));
  value.refs = &inner;
  value.n_refs = 1;
  REFUSED(ray_put_error(rt, RAY_TASK_FAILED, ray_cstr("m"), &value, &ref, &err));
  value.n_refs = 0;
  value.oob = &part;
  value.n_oob = 1;
  REFUSED(ray_put_error(rt, RAY_TASK_FAILED, ray_cstr("m"), &value, &ref, &err));
  ray_ref_release(inner);
  ray_function_release(function);
}

static void of_another_runtime(void) {
  ray_value value = ray_plain("x", 1, RAY_FMT_RAW);
  ray_runtime_options options = kit_options();
  ray_notify notify = RAY_NOTIFY_INIT;
  ray_runtime* other;
  ray_function* function;
  ray_ref *ref, *theirs, *imported;
  ray_queue* queue;
  ray_bytes exported;
  uint8_t bytes[256];
  size_t size = sizeof bytes;
  ray_arg arg;
  kit_init();
  CHECK_OK(ray_init(&options, &other, &err));
  CHECK_OK(ray_queue_create(other, &queue, &err));
  CHECK_OK(ray_put(other, &value, &theirs, &err));
  CHECK_OK(ray_put(rt, &value, &ref, &err));
  function = function_of("add_one");
  notify.queue = queue;
  REFUSED(ray_on_ready(ref, &notify, NULL, &err));
  arg = kit_ref(theirs);
  REFUSED(ray_submit(rt, function, &arg, 1, NULL, &imported, &err));
  value.refs = &theirs;
  value.n_refs = 1;
  REFUSED(ray_put(rt, &value, &imported, &err));
  CHECK_OK(ray_ref_export(theirs, bytes, &size, &err));
  exported.data = bytes;
  exported.size = size;
  REFUSED(ray_ref_import(rt, exported, &imported, &err));
  CHECK_MESSAGE("another cluster");
  CHECK_OK(ray_ref_import(other, exported, &imported, &err));
  ray_ref_release(imported);
  ray_ref_release(theirs);
  ray_ref_release(ref);
  ray_queue_release(queue);
  ray_function_release(function);
  CHECK_OK(ray_shutdown(other, 0, &err));
  ray_runtime_release(other);
}

static void registered_too_late(void) {
  ray_runtime_options options = kit_options();
  options.gcs_shards = RAY_MAX_SHARDS + 1;
  REFUSED(ray_init(&options, &rt, &err));
  CHECK_OK(ray_register_function(ray_cstr("in time"), add_one, NULL, &err)); /* that was no runtime */
  kit_init();
  CHECK_CODE(RAY_WRONG_STATE, ray_register_function(ray_cstr("late"), add_one, NULL, &err));
  CHECK_CODE(RAY_WRONG_STATE, ray_register_actor(ray_cstr("Late"), add_one, NULL, NULL, &err));
  CHECK_CODE(RAY_WRONG_STATE, ray_register_method(ray_cstr("Late"), ray_cstr("m"), add_one, NULL, &err));
  kit_shutdown();
  CHECK_CODE(RAY_WRONG_STATE, ray_register_function(ray_cstr("late"), add_one, NULL, &err));
}

/* Every text of an impossible size, and every one that is over its limit. */
static void sizes(void) {
  static char page[64];
  ray_str huge[2] = {{page, (size_t)-2}, {page, (size_t)1 << 62}};
  ray_bytes some = {page, 1}, large = {page, (size_t)1 << 62};
  ray_actor_options actor = RAY_ACTOR_OPTIONS_INIT;
  ray_buffer buffer = RAY_BUFFER_INIT;
  ray_function *function, *klass;
  ray_actor* made;
  uint64_t version;
  int i;
  kit_init();
  klass = function_of("add_one");
  for (i = 0; i < 2; i++) {
    REFUSED(ray_function_get(rt, huge[i], &function, &err));
    REFUSED(ray_function_define(rt, RAY_LANG_PYTHON, huge[i], some, &function, &err));
    REFUSED(ray_define_library(rt, huge[i], ray_cstr("libm.so.6"), &function, &err));
    REFUSED(ray_define_library(rt, ray_cstr("m"), huge[i], &function, &err));
    REFUSED(ray_define_symbol(rt, ray_cstr("m"), huge[i], ray_cstr("abs"), ray_cstr("i32(i32)"), &function, &err));
    REFUSED(ray_actor_find(rt, huge[i], ray_cstr("x"), &made, &err));
    REFUSED(ray_kv_get(rt, huge[i], some, &buffer, &version, &err));
    actor.name = huge[i];
    REFUSED(ray_actor_create(rt, klass, NULL, 0, &actor, &made, &err));
  }
  actor.name = ray_cstr(NULL);
  actor.metadata = large;
  REFUSED(ray_actor_create(rt, klass, NULL, 0, &actor, &made, &err));
  REFUSED(ray_function_define(rt, RAY_LANG_PYTHON, ray_cstr("f"), large, &function, &err));
  REFUSED(ray_kv_get(rt, ray_cstr("x"), large, &buffer, &version, &err));
  REFUSED(ray_kv_put(rt, ray_cstr("x"), some, large, RAY_KV_ANY, &version, &err));
  large.data = NULL;
  REFUSED(ray_function_define(rt, RAY_LANG_PYTHON, ray_cstr("f"), large, &function, &err));
  ray_function_release(klass);
}

/* Bytes that have a size and lie nowhere, wherever they are taken; and names of tasks that nothing can have. */
static void nowhere(void) {
  static char page[8192];
  const ray_bytes nothing = {NULL, 5};
  ray_task_options task = RAY_TASK_OPTIONS_INIT;
  ray_actor_options actor = RAY_ACTOR_OPTIONS_INIT;
  ray_group_options group = RAY_GROUP_OPTIONS_INIT;
  ray_buffer buffer = RAY_BUFFER_INIT;
  int64_t one = 1;
  ray_arg arg = kit_i64(&one);
  ray_function* function;
  ray_actor* made;
  ray_ref *ref, *put;
  ray_id id;
  uint64_t before, after;
  kit_init();
  function = function_of("add_one");
  task.resources_msgpack = nothing;
  REFUSED(ray_submit(rt, function, &arg, 1, &task, &ref, &err));
  actor.resources_msgpack = nothing;
  REFUSED(ray_actor_create(rt, function, NULL, 0, &actor, &made, &err));
  group.bundles_msgpack = nothing;
  REFUSED(ray_group_create(rt, &group, &id, &err));
  REFUSED(ray_cluster_query(rt, ray_cstr("nodes"), nothing, &buffer, &err));
  REFUSED(ray_kv_put(rt, ray_cstr("x"), nothing, nothing, RAY_KV_ANY, NULL, &err));
  task = (ray_task_options)RAY_TASK_OPTIONS_INIT;
  task.name.data = memset(page, 'x', sizeof page);
  CHECK_OK(ray_put(rt, &arg.value, &put, &err));
  arg = kit_ref(put);
  CHECK_OK(ray_test_ref_count(put, &before, &err));
  task.name.size = sizeof page;
  REFUSED(ray_submit(rt, function, &arg, 1, &task, &ref, &err));
  task.name.size = (size_t)-2;
  REFUSED(ray_submit(rt, function, &arg, 1, &task, &ref, &err));
  CHECK_OK(ray_test_ref_count(put, &after, &err)); /* what is refused holds nothing */
  CHECK_EQ(before, after);
  ray_ref_release(put);
  ray_function_release(function);
}

/* More names of resources than anything has: refused, for what is dropped on its way is waited for for ever. */
static void too_many_resources(void) {
  enum { kNames = 6000 };
  static char map[kNames * 16];
  ray_task_options task = RAY_TASK_OPTIONS_INIT;
  ray_actor_options actor = RAY_ACTOR_OPTIONS_INIT;
  ray_function* function;
  ray_actor* made;
  ray_ref* ref;
  char* at = map;
  int i;
  kit_init();
  function = function_of("add_one");
  *at++ = (char)0xde;
  *at++ = (char)(kNames >> 8);
  *at++ = (char)(kNames & 255);
  for (i = 0; i < kNames; i++) at += sprintf(at, "\xaaname-%05d%c", i, 1);
  task.resources_msgpack.data = map;
  task.resources_msgpack.size = (size_t)(at - map);
  actor.resources_msgpack = task.resources_msgpack;
  REFUSED(ray_submit(rt, function, NULL, 0, &task, &ref, &err));
  CHECK_MESSAGE("bytes; at most");
  REFUSED(ray_actor_create(rt, function, NULL, 0, &actor, &made, &err));
  ray_function_release(function);
}

static void cut_structs(void) {
  ray_task_options task = RAY_TASK_OPTIONS_INIT;
  ray_notify notify = RAY_NOTIFY_INIT;
  ray_context context = RAY_CONTEXT_INIT;
  ray_function* function;
  ray_ref* ref;
  int64_t one = 1;
  ray_arg arg = kit_i64(&one);
  size_t n;
  kit_init();
  function = function_of("add_one");
  ref = kit_submit("add_one", &arg, 1, NULL);
  notify.fn = on_done;
  for (n = 0; n < sizeof task; n++) {
    ray_ref* none = NULL;
    task.struct_size = n;
    if (n == offsetof(ray_task_options, stream_window)) continue; /* an older header's */
    REFUSED(ray_submit(rt, function, &arg, 1, &task, &none, &err));
  }
  for (n = 0; n < sizeof notify; n++) {
    notify.struct_size = n;
    REFUSED(ray_on_ready(ref, &notify, NULL, &err));
  }
  for (n = 0; n < sizeof context; n++) {
    context.struct_size = n;
    REFUSED(ray_runtime_context(rt, &context, &err));
  }
  CHECK_EQ(kit_take_i64(ref), 2);
  ray_function_release(function);
}

/* A newer program's structs that are filled here: what this library does not know is zero. */
static void longer_info(void) {
  struct {
    ray_context context;
    uint64_t more;
  } longer = {RAY_CONTEXT_INIT, 7};
  kit_init();
  longer.context.struct_size = sizeof longer;
  CHECK_OK(ray_runtime_context(rt, &longer.context, &err));
  CHECK_EQ(longer.context.struct_size, sizeof longer);
  CHECK_EQ(longer.context.pid, getpid());
  CHECK_EQ(longer.more, 0);
}

static void garbage_resources(void) {
  static const char* const garbage[] = {"\xc1", "\x93\x01\x02\x03", "\x81\xa3"
                                                                    "CPU\xa1x", "\x80\x80", "\x81"};
  ray_task_options task = RAY_TASK_OPTIONS_INIT;
  ray_actor_options actor = RAY_ACTOR_OPTIONS_INIT;
  ray_runtime_options runtime = kit_options();
  ray_function* function;
  ray_runtime* other;
  ray_actor* made;
  ray_ref* ref;
  int64_t one = 1;
  ray_arg arg = kit_i64(&one);
  size_t i;
  kit_init();
  function = function_of("add_one");
  for (i = 0; i < sizeof garbage / sizeof garbage[0]; i++) {
    ray_bytes bytes = RAY_BYTES_INIT;
    bytes.data = garbage[i];
    bytes.size = strlen(garbage[i]);
    task.resources_msgpack = actor.resources_msgpack = runtime.resources_msgpack = bytes;
    REFUSED(ray_submit(rt, function, &arg, 1, &task, &ref, &err));
    REFUSED(ray_actor_create(rt, function, &arg, 1, &actor, &made, &err));
    REFUSED(ray_init(&runtime, &other, &err));
  }
  ray_function_release(function);
}

static void returns(void) {
  static ray_ref* refs[70000];
  ray_task_options options = RAY_TASK_OPTIONS_INIT;
  ray_function* function;
  ray_buffer buffer = RAY_BUFFER_INIT;
  uint32_t i;
  kit_init();
  function = function_of("many");
  options.num_returns = 70000;
  REFUSED(ray_submit(rt, function, NULL, 0, &options, refs, &err));
  options.num_returns = RAY_MAX_RETURNS + 1;
  REFUSED(ray_submit(rt, function, NULL, 0, &options, refs, &err));
  options.num_returns = RAY_MAX_RETURNS; /* the most there can be can be had */
  CHECK_OK(ray_submit(rt, function, NULL, 0, &options, refs, &err));
  for (i = 0; i < RAY_MAX_RETURNS; i++) {
    CHECK_OK(ray_get(rt, &refs[i], 1, -1, &buffer, &err));
    CHECK_EQ(((const char*)buffer.data)[199], 'a' + i % 26);
    ray_buffer_release(&buffer);
    ray_ref_release(refs[i]);
  }
  ray_function_release(function);
}

/* ---- callbacks in callbacks ---- */

typedef struct nest {
  ray_ref* ref;
  volatile int left, deepest;
  int depth; /* callbacks of one thread */
} nest;

static void go_on(const ray_completion* completion, void* user) {
  nest* n = (nest*)user;
  ray_notify notify = RAY_NOTIFY_INIT;
  char here;
  static char* outermost;
  ray_ref_release(completion->ref);
  ray_error_release(completion->error);
  if (n->depth++ == 0) outermost = &here;
  if (outermost - &here > n->deepest) n->deepest = (int)(outermost - &here);
  notify.fn = go_on;
  notify.user = n;
  notify.flags = RAY_NOTIFY_MAY_RUN_INLINE;
  if (n->left > 1) {
    n->left--;
    if (ray_on_ready(n->ref, &notify, NULL, NULL) != RAY_OK) n->left = -1;
  } else {
    n->left = 0;
  }
  n->depth--;
}

static bool is_over(void* user) { return ((nest*)user)->left <= 0; }

/* The stack does not grow with the number of callbacks that one ready object causes. */
static void nested_callbacks(void) {
  static nest n;
  ray_notify notify = RAY_NOTIFY_INIT;
  ray_value value = ray_plain("x", 1, RAY_FMT_RAW);
  kit_init();
  CHECK_OK(ray_put(rt, &value, &n.ref, &err));
  n.left = 200000;
  notify.fn = go_on;
  notify.user = &n;
  CHECK_OK(ray_on_ready(n.ref, &notify, NULL, &err));
  CHECK_UNTIL(is_over, &n);
  CHECK_EQ(n.left, 0);
  CHECK(n.deepest < 1 << 20);
  ray_ref_release(n.ref);
}

/* What one reader writes into the smallest values by mistake nobody else reads. */
static void small_values_are_the_readers(void) {
  int64_t five = 5;
  ray_value value = ray_plain(&five, sizeof five, RAY_FMT_RAW);
  ray_buffer buffer = RAY_BUFFER_INIT;
  ray_ref* ref;
  kit_init();
  CHECK_OK(ray_put(rt, &value, &ref, &err));
  CHECK_OK(ray_get(rt, &ref, 1, 0, &buffer, &err));
  *(char*)(uintptr_t)buffer.data = 77;
  ray_buffer_release(&buffer);
  CHECK_EQ(kit_take_i64(ref), 5);
}

static const kit_test tests[] = {KIT_TEST(flags_and_enumerators), KIT_TEST(values),
                                 KIT_TEST(of_another_runtime),    KIT_TEST(registered_too_late),
                                 KIT_TEST(sizes),                 KIT_TEST(nowhere),
                                 KIT_TEST(too_many_resources),    KIT_TEST(cut_structs),
                                 KIT_TEST(longer_info),           KIT_TEST(garbage_resources),
                                 KIT_TEST(returns),               KIT_TEST(nested_callbacks),
                                 KIT_TEST(small_values_are_the_readers)};
KIT_MAIN(tests, register_all)
