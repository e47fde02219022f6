/* control.c -- key-value store, cluster queries, context, logging, fault points. */
#define _POSIX_C_SOURCE 200809L
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kit.h"
#include "remote.h"

/* Increments a counter in the key-value store args[0] times by compare-and-swap. */
static ray_code increment(ray_task* task, void* user) {
  int64_t times = kit_arg_i64(task, 0), i, value;
  ray_bytes key = {"counter", 7}, bytes = {&value, sizeof value};
  ray_buffer old;
  uint64_t version;
  (void)user;
  for (i = 0; i < times;) {
    if (ray_kv_get(rt, ray_cstr("cas"), key, &old, &version, NULL) == RAY_OK) {
      memcpy(&value, old.data, sizeof value);
      ray_buffer_release(&old);
    } else {
      value = 0;
      version = 0;
    }
    value++;
    if (ray_kv_put(rt, ray_cstr("cas"), key, bytes, version, &version, NULL) == RAY_OK) i++;
  }
  return kit_return_i64(task, 0, times);
}

static ray_code context_of(ray_task* task, void* user) {
  ray_context context;
  ray_value value = ray_plain(&context, sizeof context, RAY_FMT_RAW);
  (void)user;
  memset(&context, 0, sizeof context);
  context.struct_size = sizeof context;
  CHECK_OK(ray_runtime_context(rt, &context, &err));
  return ray_task_return(task, 0, &value, NULL);
}

static ray_code keeper_create(ray_task* task, void* user) {
  (void)task, (void)user;
  return RAY_OK;
}

static void register_all(void) {
  CHECK_OK(ray_register_function(ray_cstr("add"), add, NULL, &err));
  CHECK_OK(ray_register_function(ray_cstr("increment"), increment, NULL, &err));
  CHECK_OK(ray_register_function(ray_cstr("context_of"), context_of, NULL, &err));
  CHECK_OK(ray_register_actor(ray_cstr("Keeper"), keeper_create, NULL, NULL, &err));
  CHECK_OK(ray_register_method(ray_cstr("Keeper"), ray_cstr("context"), context_of, NULL, &err));
}

static ray_bytes bytes_of(const char* text) {
  ray_bytes view;
  view.data = text;
  view.size = strlen(text);
  return view;
}

/* A program that was started without them, or has closed them: what is opened next gets their numbers. */
static void without_standard_descriptors(void) {
  int fd;
  for (fd = 0; fd < 3; fd++) close(fd);
  kit_init();
  for (fd = 0; fd < 3; fd++) CHECK_EQ(open("/dev/null", O_RDWR), fd); /* nothing of libray's lies there */
  CHECK_EQ(kit_get_i64(kit_submit_i64("add", 1, 2)), 3);
}

/* What fits into a request comes back in an answer; what does not is refused, and nobody is cut off for it. */
static void large_values(void) {
  enum { kFits = 80 << 20, kTooLarge = 105 << 20 };
  char* bytes = malloc(kTooLarge);
  ray_bytes value = {bytes, kFits};
  ray_buffer buffer = RAY_BUFFER_INIT;
  uint64_t version;
  kit_init();
  CHECK(bytes != NULL);
  memset(bytes, 'v', kTooLarge);
  CHECK_OK(ray_kv_put(rt, ray_cstr("n"), bytes_of("k"), value, RAY_KV_ANY, &version, &err));
  CHECK_OK(ray_kv_get(rt, ray_cstr("n"), bytes_of("k"), &buffer, &version, &err));
  CHECK_EQ(buffer.size, kFits);
  CHECK(memcmp(buffer.data, bytes, kFits) == 0);
  ray_buffer_release(&buffer);
  value.size = kTooLarge;
  CHECK_CODE(RAY_INVALID_ARGUMENT, ray_kv_put(rt, ray_cstr("n"), bytes_of("k"), value, RAY_KV_ANY, &version, &err));
  CHECK_OK(ray_kv_delete(rt, ray_cstr("n"), bytes_of("k"), RAY_KV_ANY, &err));
  free(bytes);
}

static void key_value(void) {
  ray_str ns = ray_cstr("settings");
  ray_buffer buffer = RAY_BUFFER_INIT;
  uint64_t version = 77;
  kit_init();
  CHECK_CODE(RAY_NOT_FOUND, ray_kv_get(rt, ns, bytes_of("a"), &buffer, &version, &err));
  CHECK_OK(ray_kv_put(rt, ns, bytes_of("a"), bytes_of("one"), 0, &version, &err)); /* must be new */
  CHECK_EQ(version, 1);
  CHECK_CODE(RAY_CONFLICT, ray_kv_put(rt, ns, bytes_of("a"), bytes_of("x"), 0, &version, &err));
  CHECK_OK(ray_kv_put(rt, ns, bytes_of("a"), bytes_of("two"), 1, &version, &err));
  CHECK_EQ(version, 2);
  CHECK_CODE(RAY_CONFLICT, ray_kv_put(rt, ns, bytes_of("a"), bytes_of("x"), 1, &version, &err));
  CHECK_OK(ray_kv_put(rt, ns, bytes_of("a"), bytes_of("three"), RAY_KV_ANY, &version, &err));
  CHECK_EQ(version, 3);
  CHECK_OK(ray_kv_get(rt, ns, bytes_of("a"), &buffer, &version, &err));
  CHECK_EQ(version, 3);
  CHECK(buffer.size == 5 && memcmp(buffer.data, "three", 5) == 0);
  ray_buffer_release(&buffer);
  CHECK_CODE(RAY_NOT_FOUND, ray_kv_get(rt, ray_cstr("other"), bytes_of("a"), &buffer, NULL, &err));
  CHECK_CODE(RAY_CONFLICT, ray_kv_delete(rt, ns, bytes_of("a"), 2, &err));
  CHECK_OK(ray_kv_delete(rt, ns, bytes_of("a"), 3, &err));
  CHECK_CODE(RAY_NOT_FOUND, ray_kv_get(rt, ns, bytes_of("a"), &buffer, &version, &err));
  CHECK_OK(ray_kv_put(rt, ns, bytes_of(""), bytes_of(""), RAY_KV_ANY, NULL, &err));
  CHECK_OK(ray_kv_get(rt, ns, bytes_of(""), &buffer, NULL, &err));
  CHECK_EQ(buffer.size, 0);
  ray_buffer_release(&buffer);
}

static void key_list(void) {
  static const char* keys[] = {"fruit/apple", "fruit/pear", "fruit/plum", "stone/granite"};
  ray_str ns = ray_cstr("things");
  ray_buffer buffer = RAY_BUFFER_INIT;
  size_t i;
  mp in;
  kit_init();
  for (i = 0; i < 4; i++)
    CHECK_OK(ray_kv_put(rt, ns, bytes_of(keys[i]), bytes_of("x"), RAY_KV_ANY, NULL, &err));
  CHECK_OK(ray_kv_list(rt, ns, bytes_of("fruit/"), &buffer, &err));
  in = mp_of(buffer.data, (size_t)buffer.size);
  CHECK_EQ(mp_next(&in).size, 3);
  for (i = 0; i < 3; i++) {
    mp_item key = mp_next(&in);
    CHECK_EQ(key.type, MP_BIN);
    CHECK(key.size > 6 && memcmp(key.data, "fruit/", 6) == 0);
  }
  ray_buffer_release(&buffer);
  CHECK_OK(ray_kv_list(rt, ns, bytes_of("metal/"), &buffer, &err));
  CHECK_EQ(mp_rows(mp_of(buffer.data, (size_t)buffer.size)), 0);
  ray_buffer_release(&buffer);
  CHECK_OK(ray_kv_list(rt, ns, bytes_of(""), &buffer, &err));
  CHECK_EQ(mp_rows(mp_of(buffer.data, (size_t)buffer.size)), 4);
  ray_buffer_release(&buffer);
}

static void large_value(void) {
  size_t size = 300000;
  char* data = calloc(1, size);
  ray_bytes bytes;
  ray_buffer buffer = RAY_BUFFER_INIT;
  kit_init();
  memset(data, 'v', size);
  bytes.data = data;
  bytes.size = size;
  CHECK_OK(ray_kv_put(rt, ray_cstr("big"), bytes_of("k"), bytes, RAY_KV_ANY, NULL, &err));
  CHECK_OK(ray_kv_get(rt, ray_cstr("big"), bytes_of("k"), &buffer, NULL, &err));
  CHECK_EQ(buffer.size, size);
  CHECK(memcmp(buffer.data, data, size) == 0);
  ray_buffer_release(&buffer);
  free(data);
}

/* Four tasks count to 200 together; a lost update would show. */
static void compare_and_swap_from_tasks(void) {
  ray_ref* refs[4];
  ray_buffer buffer = RAY_BUFFER_INIT;
  int64_t value = 0, fifty = 50;
  ray_arg arg = kit_i64(&fifty);
  int i;
  kit_init();
  for (i = 0; i < 4; i++) refs[i] = kit_submit("increment", &arg, 1, NULL);
  for (i = 0; i < 4; i++) CHECK_EQ(kit_take_i64(refs[i]), 50);
  CHECK_OK(ray_kv_get(rt, ray_cstr("cas"), bytes_of("counter"), &buffer, NULL, &err));
  memcpy(&value, buffer.data, sizeof value);
  CHECK_EQ(value, 200);
  ray_buffer_release(&buffer);
}

/* ---- queries ---- */

static const uint8_t* g_filter;
static size_t g_filter_size;

static ray_buffer query(const char* what) {
  ray_buffer buffer = RAY_BUFFER_INIT;
  ray_bytes filter;
  filter.data = g_filter;
  filter.size = g_filter_size;
  CHECK_OK(ray_cluster_query(rt, ray_cstr(what), filter, &buffer, &err));
  CHECK_EQ(buffer.format, RAY_FMT_MSGPACK);
  return buffer;
}

static size_t rows(const char* what) {
  ray_buffer buffer = query(what);
  size_t n = mp_rows(mp_of(buffer.data, (size_t)buffer.size));
  ray_buffer_release(&buffer);
  return n;
}

static size_t rows_with(const char* what, const char* key, const char* text) {
  ray_buffer buffer = query(what);
  size_t n = mp_rows_with(mp_of(buffer.data, (size_t)buffer.size), key, text);
  ray_buffer_release(&buffer);
  return n;
}

static bool function_is_known(void* unused) {
  (void)unused;
  return rows_with("functions", "name", "module.f") == 1;
}

static bool tasks_are_known(void* n) { return rows_with("tasks", "name", "add") >= *(size_t*)n; }

static void queries(void) {
  ray_actor_options options = RAY_ACTOR_OPTIONS_INIT;
  ray_runtime_options node = kit_options();
  uint8_t space[64];
  ray_buffer buffer;
  ray_actor* actor;
  size_t expected = 5;
  int64_t i;
  mp at;
  node.resources_msgpack = mp_map(space, sizeof space, "disk", 0.5, NULL);
  node.job_name = ray_cstr("a test of queries");
  CHECK_OK(ray_init(&node, &rt, &err));
  CHECK_EQ(rows("nodes"), 1);
  buffer = query("resources");
  CHECK(mp_find(mp_of(buffer.data, (size_t)buffer.size), "CPU", &at) && mp_number(at) == 2);
  CHECK(mp_find(mp_of(buffer.data, (size_t)buffer.size), "disk", &at) && mp_number(at) == 0.5);
  ray_buffer_release(&buffer);
  for (i = 0; i < 5; i++) CHECK_EQ(kit_take_i64(kit_submit_i64("add", i, 1)), i + 1);
  CHECK_UNTIL(tasks_are_known, &expected);
  options.name = ray_cstr("the keeper");
  actor = kit_actor("Keeper", &options);
  CHECK_EQ(rows_with("actors", "name", "the keeper"), 1);
  CHECK(rows("workers") >= 1);
  CHECK(rows("jobs") >= 1);
  CHECK_OK(kit_get_code(kit_call(actor, "context", NULL, 0)));
  buffer = query("errors");
  ray_buffer_release(&buffer);
  buffer = query("functions");
  ray_buffer_release(&buffer);
  buffer = query("objects");
  ray_buffer_release(&buffer);
  buffer = query("store");
  ray_buffer_release(&buffer);
  ray_actor_release(actor);
}

static void query_filters(void) {
  uint8_t filter[64];
  size_t expected = 5, n = 0;
  int64_t i;
  kit_init();
  for (i = 0; i < 5; i++) CHECK_EQ(kit_take_i64(kit_submit_i64("add", i, 1)), i + 1);
  CHECK_UNTIL(tasks_are_known, &expected);
  filter[n++] = 0x82;
  n += mp_put_str(filter + n, "name");
  n += mp_put_str(filter + n, "add");
  n += mp_put_str(filter + n, "limit");
  n += mp_put_u64(filter + n, 3);
  g_filter = filter;
  g_filter_size = n;
  CHECK_EQ(rows("tasks"), 3);
  n = 1;
  filter[0] = 0x81;
  n += mp_put_str(filter + n, "name");
  n += mp_put_str(filter + n, "nobody");
  g_filter_size = n;
  CHECK_EQ(rows("tasks"), 0);
  filter[0] = 0xc1; /* not MessagePack */
  {
    ray_buffer buffer = RAY_BUFFER_INIT;
    ray_bytes bytes;
    bytes.data = filter;
    bytes.size = n;
    CHECK_CODE(RAY_INVALID_ARGUMENT,
               ray_cluster_query(rt, ray_cstr("tasks"), bytes, &buffer, &err));
  }
}

static void store_and_functions(void) {
  enum { kBig = 1 << 20 };
  char* big = calloc(1, kBig);
  ray_value value = ray_plain(big, kBig, RAY_FMT_RAW);
  ray_function *fn, *same, *twin;
  ray_ref* ref;
  kit_init();
  CHECK_OK(ray_put(rt, &value, &ref, &err));
  CHECK(rows("store") >= 1);
  CHECK_OK(
      ray_function_define(rt, RAY_LANG_PYTHON, ray_cstr("module.f"), bytes_of("code"), &fn, &err));
  CHECK_OK(ray_function_define(rt, RAY_LANG_PYTHON, ray_cstr("module.f"), bytes_of("code"), &same,
                               &err));
  twin = ray_function_retain(fn);
  CHECK(twin != NULL);
  CHECK_CODE(RAY_INVALID_ARGUMENT,
             ray_function_define(rt, 77, ray_cstr("module.f"), bytes_of("code"), &same, &err));
  CHECK_UNTIL(function_is_known, NULL); /* defining does not wait for the control store */
  ray_function_release(fn);
  ray_function_release(twin);
  ray_function_release(same);
  ray_ref_release(ref);
  free(big);
}

/* ---- context ---- */

static void context(void) {
  ray_context here, there;
  ray_buffer buffer = RAY_BUFFER_INIT;
  ray_actor* actor;
  ray_ref* ref;
  ray_id zero, id;
  memset(&zero, 0, sizeof zero);
  kit_init();
  here.struct_size = sizeof here;
  CHECK_OK(ray_runtime_context(rt, &here, &err));
  CHECK_EQ(here.pid, getpid());
  CHECK(memcmp(&here.actor, &zero, sizeof zero) == 0);
  CHECK(memcmp(&here.job, &zero, sizeof zero) != 0);
  CHECK(memcmp(&here.node, &zero, sizeof zero) != 0);
  ref = kit_submit("context_of", NULL, 0, NULL);
  CHECK_OK(ray_get(rt, &ref, 1, -1, &buffer, &err));
  memcpy(&there, buffer.data, sizeof there);
  ray_buffer_release(&buffer);
  CHECK(memcmp(&here.job, &there.job, sizeof zero) == 0);
  CHECK(memcmp(&here.node, &there.node, sizeof zero) == 0);
  CHECK(memcmp(&here.task, &there.task, sizeof zero) != 0);
  CHECK(here.pid != there.pid);
  id = ray_ref_id(ref); /* an object of that task */
  CHECK(memcmp(&id, &there.task, 20) == 0);
  ray_ref_release(ref);
  actor = kit_actor("Keeper", NULL);
  ref = kit_call(actor, "context", NULL, 0);
  CHECK_OK(ray_get(rt, &ref, 1, -1, &buffer, &err));
  memcpy(&there, buffer.data, sizeof there);
  ray_buffer_release(&buffer);
  id = ray_actor_id(actor);
  CHECK(memcmp(&id, &there.actor, sizeof id) == 0);
  ray_ref_release(ref);
  ray_actor_release(actor);
}

static void session_directory(void) {
  char path[512];
  struct stat st;
  ray_str dir;
  kit_init();
  dir = ray_runtime_session_dir(rt);
  CHECK(dir.size > 0 && dir.size < sizeof path);
  memcpy(path, dir.data, dir.size);
  path[dir.size] = 0;
  CHECK_EQ(stat(path, &st), 0);
  CHECK(S_ISDIR(st.st_mode));
  CHECK_EQ(st.st_mode & 0777, 0700);
  CHECK_EQ(ray_runtime_mode(rt), RAY_MODE_DRIVER);
}

/* ---- logging ---- */

static pthread_mutex_t g_lock = PTHREAD_MUTEX_INITIALIZER;
static int g_lines;
static int32_t g_least_severe;
static char g_last[256];

static void on_log(int32_t level, ray_str module, ray_str msg_id, ray_str text, void* user) {
  pthread_mutex_lock(&g_lock);
  if (user == &g_lines && module.size > 0 && msg_id.size > 0 && text.size > 0) g_lines++;
  if (level > g_least_severe) g_least_severe = level;
  snprintf(g_last, sizeof g_last, "%.*s", (int)text.size, text.data);
  pthread_mutex_unlock(&g_lock);
}

static void log_handler(void) {
  int seen;
  unsetenv("LIBRAY_LOG");
  ray_set_log_handler(on_log, RAY_LOG_DEBUG, &g_lines);
  kit_init();
  CHECK_EQ(kit_take_i64(kit_submit_i64("add", 1, 2)), 3);
  kit_shutdown();
  pthread_mutex_lock(&g_lock);
  seen = g_lines;
  pthread_mutex_unlock(&g_lock);
  CHECK(seen > 0);
  CHECK(g_least_severe <= RAY_LOG_DEBUG);
  g_least_severe = 0;
  ray_set_log_handler(on_log, RAY_LOG_ERROR, &g_lines);
  kit_init();
  kit_shutdown();
  CHECK(g_least_severe <= RAY_LOG_ERROR);
  ray_set_log_handler(NULL, RAY_LOG_WARNING, NULL); /* standard error again */
}

/* ---- faults ---- */

static void fault_points(void) {
  kit_init();
  CHECK_CODE(RAY_INVALID_ARGUMENT, ray_test_fault(ray_cstr("a.point"), ray_cstr("dance"), &err));
  CHECK_MESSAGE("dance");
  CHECK_CODE(RAY_INVALID_ARGUMENT, ray_test_fault(ray_cstr(""), ray_cstr("fail"), &err));
  CHECK_OK(ray_test_fault(ray_cstr("a.point"), ray_cstr("delay:1ms@3"), &err));
  CHECK_OK(ray_test_fault(ray_cstr("a.point"), ray_cstr(""), &err));
  CHECK_EQ(kit_take_i64(kit_submit_i64("add", 1, 2)), 3);
}

static const kit_test tests[] = {KIT_TEST(key_value), KIT_TEST(without_standard_descriptors), KIT_TEST(large_values),
                                 KIT_TEST(key_list),
                                 KIT_TEST(large_value),
                                 KIT_TEST(compare_and_swap_from_tasks),
                                 KIT_TEST(queries),
                                 KIT_TEST(query_filters),
                                 KIT_TEST(store_and_functions),
                                 KIT_TEST(context),
                                 KIT_TEST(session_directory),
                                 KIT_TEST(log_handler),
                                 KIT_TEST(fault_points)};
KIT_MAIN(tests, register_all)
