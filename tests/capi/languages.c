/* languages.c -- workers of several languages in one job: where their code lies, functions by name, who calls whom. The
 * program stands for a binding: with KIT_LANGUAGE in its environment its workers say that they are of that language. */
#define _POSIX_C_SOURCE 200809L
#include <unistd.h>

#include "kit.h"

/* ---- in workers ---- */

static ray_code double_it(ray_task* task, void* user) {
  (void)user;
  return kit_return_i64(task, 0, 2 * kit_arg_i64(task, 0));
}

static ray_code who(ray_task* task, void* user) { /* 100 * its own language + its caller's */
  const char* own = getenv("KIT_LANGUAGE");
  ray_task_info info = RAY_TASK_INFO_INIT;
  (void)user;
  ray_task_get_info(task, &info);
  return kit_return_i64(task, 0, 100 * (own ? atol(own) : 0) + info.caller_language);
}

static ray_code ask_native(ray_task* task, void* user) { /* who() as a native worker sees this one */
  ray_runtime* runtime = ray_task_runtime(task);
  ray_function* f;
  ray_ref* ref;
  ray_buffer out = RAY_BUFFER_INIT;
  int64_t seen;
  (void)user;
  if (ray_function_named(runtime, RAY_LANG_NATIVE, ray_cstr(""), ray_cstr("who"), &f, NULL) != RAY_OK ||
      ray_submit(runtime, f, NULL, 0, NULL, &ref, NULL) != RAY_OK || ray_get(runtime, &ref, 1, -1, &out, NULL) != RAY_OK)
    return RAY_TASK_FAILED;
  memcpy(&seen, out.data, sizeof seen);
  ray_buffer_release(&out);
  ray_ref_release(ref);
  ray_function_release(f);
  return kit_return_i64(task, 0, seen);
}

static ray_code environment(ray_task* task, void* user) {
  const char* value = getenv("KIT_MARK");
  (void)user;
  return kit_return_text(task, value ? value : "");
}

static ray_code box_create(ray_task* task, void* user) {
  static int64_t concurrency;
  ray_task_info info = RAY_TASK_INFO_INIT;
  (void)user;
  ray_task_get_info(task, &info);
  concurrency = info.max_concurrency;
  return ray_task_set_self(task, &concurrency, NULL);
}

static ray_code box_concurrency(ray_task* task, void* user) {
  ray_task_info info = RAY_TASK_INFO_INIT;
  (void)user;
  ray_task_get_info(task, &info);
  if (info.max_concurrency != 0) return RAY_TASK_FAILED; /* of constructors alone */
  return kit_return_i64(task, 0, *(int64_t*)ray_task_self(task));
}

static void register_all(void) {
  CHECK_OK(ray_register_function(ray_cstr("double_it"), double_it, NULL, &err));
  CHECK_OK(ray_register_function(ray_cstr("shop::double_it"), double_it, NULL, &err));
  CHECK_OK(ray_register_function(ray_cstr("who"), who, NULL, &err));
  CHECK_OK(ray_register_function(ray_cstr("ask_native"), ask_native, NULL, &err));
  CHECK_OK(ray_register_function(ray_cstr("environment"), environment, NULL, &err));
  CHECK_OK(ray_register_actor(ray_cstr("Box"), box_create, NULL, NULL, &err));
  CHECK_OK(ray_register_method(ray_cstr("Box"), ray_cstr("concurrency"), box_concurrency, NULL, &err));
}

/* ---- the driver ---- */

static char program[4096];

static const char* own_program(void) {
  ssize_t n = readlink("/proc/self/exe", program, sizeof program - 1);
  CHECK(n > 0);
  program[n] = 0;
  return program;
}

static ray_function* named(int32_t language, const char* container, const char* member) {
  ray_function* f;
  CHECK_OK(ray_function_named(rt, language, ray_cstr(container), ray_cstr(member), &f, &err));
  return f;
}

static ray_ref* submit(int32_t language, const char* container, const char* member, const ray_arg* args, size_t n) {
  ray_function* f = named(language, container, member);
  ray_ref* ref;
  CHECK_OK(ray_submit(rt, f, args, n, NULL, &ref, &err));
  ray_function_release(f);
  return ref;
}

/* A Rust binding that registers its functions: this program with KIT_LANGUAGE=3. */
static void rust_workers(void) {
  const char* argv[] = {"/usr/bin/env", "KIT_LANGUAGE=3", NULL, NULL};
  argv[2] = own_program();
  CHECK_OK(ray_worker_command(rt, RAY_LANG_RUST, argv, &err));
}

static void by_registered_name(void) {
  int64_t x = 21;
  ray_arg arg = kit_i64(&x);
  kit_init();
  rust_workers();
  CHECK_EQ(kit_take_i64(submit(RAY_LANG_NATIVE, "", "double_it", &arg, 1)), 42);
  CHECK_EQ(kit_take_i64(submit(RAY_LANG_NATIVE, "shop", "double_it", &arg, 1)), 42);
  CHECK_EQ(kit_take_i64(submit(RAY_LANG_RUST, "", "double_it", &arg, 1)), 42);
  CHECK_EQ(kit_take_i64(submit(RAY_LANG_RUST, "shop", "double_it", &arg, 1)), 42);
  CHECK_EQ(kit_get_code(submit(RAY_LANG_RUST, "shop", "nothing", NULL, 0)), RAY_UNKNOWN_FUNCTION);
  CHECK_MESSAGE("shop::nothing");
  kit_shutdown();
}

static void who_calls(void) {
  kit_init();
  rust_workers();
  CHECK_EQ(kit_take_i64(submit(RAY_LANG_NATIVE, "", "who", NULL, 0)), RAY_LANG_NATIVE);
  CHECK_EQ(kit_take_i64(submit(RAY_LANG_RUST, "", "who", NULL, 0)), 300 + RAY_LANG_NATIVE);
  CHECK_EQ(kit_take_i64(submit(RAY_LANG_RUST, "", "ask_native", NULL, 0)), RAY_LANG_RUST);
  kit_shutdown();
}

static void who_calls_through_the_store(void) { /* arguments that do not fit into a ring */
  static char large[1 << 20];
  ray_arg args[3];
  size_t i;
  kit_init();
  rust_workers();
  for (i = 0; i < 3; i++) {
    args[i].ref = NULL;
    args[i].value = ray_plain(large, sizeof large, RAY_FMT_RAW);
  }
  CHECK_EQ(kit_take_i64(submit(RAY_LANG_RUST, "", "who", args, 3)), 300 + RAY_LANG_NATIVE);
  kit_shutdown();
}

static void actors(void) {
  ray_actor_options options = RAY_ACTOR_OPTIONS_INIT;
  ray_function* f;
  ray_actor *box, *found;
  ray_ref* ref;
  int32_t language = -1;
  kit_init();
  rust_workers();
  f = named(RAY_LANG_RUST, "", "Box");
  options.max_concurrency = 5;
  options.name = ray_cstr("the box");
  CHECK_OK(ray_actor_create(rt, f, NULL, 0, &options, &box, &err));
  CHECK_OK(ray_actor_call(box, ray_cstr("concurrency"), NULL, 0, NULL, &ref, &err));
  CHECK_EQ(kit_take_i64(ref), 5);
  CHECK_OK(ray_actor_language(box, &language, &err));
  CHECK_EQ(language, RAY_LANG_RUST);
  CHECK_OK(ray_actor_find(rt, ray_cstr("the box"), ray_cstr(""), &found, &err));
  language = -1;
  CHECK_OK(ray_actor_language(found, &language, &err));
  CHECK_EQ(language, RAY_LANG_RUST);
  CHECK_CODE(RAY_INVALID_ARGUMENT, ray_actor_language(found, NULL, &err));
  ray_actor_release(found);
  ray_actor_release(box);
  ray_function_release(f);
  kit_shutdown();
}

/* What another process made: its language is not known before the node is asked, and then private formats are refused. */
static void handles_from_elsewhere(void) {
  ray_function* f;
  ray_actor *box, *copy;
  ray_ref *ref, *none;
  ray_arg arg = RAY_ARG_INIT;
  int32_t language;
  kit_init();
  rust_workers();
  f = named(RAY_LANG_RUST, "", "Box");
  CHECK_OK(ray_actor_create(rt, f, NULL, 0, NULL, &box, &err));
  CHECK_OK(ray_actor_to_ref(box, &ref, &err));
  CHECK_OK(ray_actor_from_ref(ref, &copy, &err));
  CHECK_OK(ray_actor_language(copy, &language, &err));
  arg.value = ray_plain("\x80", 1, RAY_FMT_PICKLE5);
  CHECK_CODE(RAY_INVALID_ARGUMENT, ray_actor_call(copy, ray_cstr("concurrency"), &arg, 1, NULL, &none, &err));
  CHECK_MESSAGE("argument 0");
  CHECK_MESSAGE("Rust");
  ray_ref_release(ref);
  ray_actor_release(copy);
  ray_actor_release(box);
  ray_function_release(f);
  kit_shutdown();
}

static void code_of_a_language(void) {
  int64_t x = 4;
  ray_arg arg = kit_i64(&x);
  ray_function* f;
  const char* other[] = {"/bin/false", NULL};
  kit_init();
  CHECK_CODE(RAY_UNSUPPORTED, ray_function_named(rt, RAY_LANG_RUST, ray_cstr(""), ray_cstr("double_it"), &f, &err));
  CHECK_MESSAGE("LIBRAY_RUST_CODE");
  CHECK_CODE(RAY_UNSUPPORTED, ray_function_define(rt, RAY_LANG_JAVA, ray_cstr("f"), (ray_bytes){"x", 1}, &f, &err));
  CHECK_MESSAGE("LIBRAY_JAVA_CODE");
  CHECK_OK(ray_worker_code(rt, RAY_LANG_RUST, ray_cstr(own_program()), &err));
  CHECK_EQ(kit_take_i64(submit(RAY_LANG_RUST, "", "double_it", &arg, 1)), 8);
  /* Its workers run: the same code again is no change, another is. */
  CHECK_OK(ray_worker_code(rt, RAY_LANG_RUST, ray_cstr(own_program()), &err));
  CHECK_CODE(RAY_WRONG_STATE, ray_worker_code(rt, RAY_LANG_RUST, ray_cstr("/bin/false"), &err));
  CHECK_CODE(RAY_WRONG_STATE, ray_worker_command(rt, RAY_LANG_RUST, other, &err));
  kit_shutdown();
}

static void code_from_the_environment(void) {
  int64_t x = 5;
  ray_arg arg = kit_i64(&x);
  setenv("LIBRAY_RUST_CODE", own_program(), 1);
  kit_init();
  CHECK_EQ(kit_take_i64(submit(RAY_LANG_RUST, "", "double_it", &arg, 1)), 10);
  kit_shutdown();
}

static void a_command_goes_before_code(void) {
  const char* argv[] = {"/usr/bin/env", "KIT_MARK=of the command", NULL, NULL};
  char text[64];
  ray_ref* ref;
  argv[2] = own_program();
  kit_init();
  CHECK_OK(ray_worker_code(rt, RAY_LANG_RUST, ray_cstr("/bin/false"), &err));
  CHECK_OK(ray_worker_command(rt, RAY_LANG_RUST, argv, &err));
  ref = submit(RAY_LANG_RUST, "", "environment", NULL, 0);
  kit_get_text(ref, text, sizeof text);
  CHECK(strcmp(text, "of the command") == 0);
  ray_ref_release(ref);
  kit_shutdown();
}

static void refused(void) {
  const char* nothing[] = {NULL};
  const char* empty[] = {"", NULL};
  ray_function* f;
  kit_init();
  CHECK_CODE(RAY_INVALID_ARGUMENT, ray_worker_code(rt, RAY_LANG_COUNT, ray_cstr("x"), &err));
  CHECK_CODE(RAY_INVALID_ARGUMENT, ray_worker_code(rt, -1, ray_cstr("x"), &err));
  CHECK_CODE(RAY_INVALID_ARGUMENT, ray_worker_code(rt, RAY_LANG_JAVA, ray_cstr(""), &err));
  CHECK_CODE(RAY_INVALID_ARGUMENT, ray_worker_code(NULL, RAY_LANG_JAVA, ray_cstr("x"), &err));
  CHECK_CODE(RAY_INVALID_ARGUMENT, ray_worker_command(rt, RAY_LANG_JAVA, NULL, &err));
  CHECK_CODE(RAY_INVALID_ARGUMENT, ray_worker_command(rt, RAY_LANG_JAVA, nothing, &err));
  CHECK_CODE(RAY_INVALID_ARGUMENT, ray_worker_command(rt, RAY_LANG_JAVA, empty, &err));
  CHECK_CODE(RAY_INVALID_ARGUMENT, ray_worker_command(rt, 99, empty, &err));
  {
    static char large[(1 << 20) + 1];
    memset(large, 'x', sizeof large - 1);
    CHECK_CODE(RAY_INVALID_ARGUMENT, ray_worker_code(rt, RAY_LANG_RUST, ray_cstr(large), &err));
    CHECK_MESSAGE("1 MiB");
  }
  CHECK_CODE(RAY_INVALID_ARGUMENT, ray_function_named(rt, RAY_LANG_NATIVE, ray_cstr(""), ray_cstr(""), &f, &err));
  CHECK_CODE(RAY_INVALID_ARGUMENT, ray_function_named(rt, RAY_LANG_RUST, ray_cstr("a"), ray_cstr(""), &f, &err));
  CHECK_CODE(RAY_INVALID_ARGUMENT, ray_function_named(rt, RAY_LANG_PYTHON, ray_cstr("a"), ray_cstr(""), &f, &err));
  CHECK_CODE(RAY_INVALID_ARGUMENT, ray_function_named(rt, RAY_LANG_PYTHON, ray_cstr(""), ray_cstr("f"), &f, &err));
  CHECK_MESSAGE("module");
  CHECK_CODE(RAY_INVALID_ARGUMENT, ray_function_named(rt, RAY_LANG_JAVA, ray_cstr(""), ray_cstr("f"), &f, &err));
  CHECK_MESSAGE("class");
  CHECK_CODE(RAY_INVALID_ARGUMENT, ray_function_named(rt, 77, ray_cstr("a"), ray_cstr("f"), &f, &err));
  CHECK_CODE(RAY_INVALID_ARGUMENT, ray_function_named(rt, RAY_LANG_NATIVE, ray_cstr(""), ray_cstr("f"), NULL, &err));
  CHECK_CODE(RAY_INVALID_ARGUMENT, ray_actor_language(NULL, NULL, &err));
  kit_shutdown();
}

static int worker(ray_runtime* runtime) { return ray_worker_run(runtime, NULL) == RAY_OK ? 0 : 1; }

static const kit_test tests[] = {
    KIT_TEST(by_registered_name),        KIT_TEST(who_calls),          KIT_TEST(who_calls_through_the_store),
    KIT_TEST(actors),                    KIT_TEST(handles_from_elsewhere), KIT_TEST(code_of_a_language),
    KIT_TEST(code_from_the_environment), KIT_TEST(a_command_goes_before_code), KIT_TEST(refused),
};

int main(int argc, char** argv) {
  return kit_main(argc, argv, tests, sizeof tests / sizeof tests[0], register_all, worker);
}
