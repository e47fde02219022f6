/* ffi.c -- C symbols as tasks through libffi, and shared libraries of tasks loaded by path. */
#define _POSIX_C_SOURCE 200809L
#include <math.h>
#include <unistd.h>

#include "kit.h"

static void register_all(void) {}

static ray_function* symbol(const char* library, const char* name, const char* signature) {
  ray_function* fn = NULL;
  CHECK_OK(ray_define_symbol(rt, ray_cstr(name), ray_cstr(library), ray_cstr(name),
                             ray_cstr(signature), &fn, &err));
  return fn;
}

/* Calls with MessagePack arguments given as bytes, e.g. "\x01" for the number 1; or in another format. */
typedef struct packed {
  const char* data;
  size_t size;
  uint32_t format;
} packed;

static ray_ref* call(ray_function* fn, const packed* arguments, size_t n) {
  ray_arg args[4];
  ray_ref* ref;
  size_t i;
  for (i = 0; i < n; i++) {
    args[i].ref = NULL;
    args[i].value = ray_plain(arguments[i].data, arguments[i].size, arguments[i].format);
  }
  CHECK_OK(ray_submit(rt, fn, args, n, NULL, &ref, &err));
  return ref;
}

static mp_item result(ray_ref* ref) {
  static char copy[256];
  ray_buffer buffer = RAY_BUFFER_INIT;
  mp in;
  CHECK_OK(ray_get(rt, &ref, 1, -1, &buffer, &err));
  CHECK_EQ(buffer.format, RAY_FMT_MSGPACK);
  CHECK(buffer.size <= sizeof copy);
  memcpy(copy, buffer.data, (size_t)buffer.size);
  in = mp_of(copy, (size_t)buffer.size);
  ray_buffer_release(&buffer);
  ray_ref_release(ref);
  return mp_next(&in);
}

static void power(void) {
  ray_function* fn;
  uint8_t two[9], half[9];
  packed args[2] = {{NULL, 0, RAY_FMT_MSGPACK}, {NULL, 0, RAY_FMT_MSGPACK}};
  mp_item item;
  kit_init();
  fn = symbol("libm.so.6", "pow", "f64(f64,f64)");
  mp_put_f64(two, 2.0);
  mp_put_f64(half, 0.5);
  args[0].data = (const char*)two;
  args[1].data = (const char*)half;
  args[0].size = args[1].size = 9;
  item = result(call(fn, args, 2));
  CHECK_EQ(item.type, MP_FLOAT);
  CHECK(item.f == sqrt(2.0));
  args[0].data = "\x03"; /* an integer where a float is expected is a float */
  args[0].size = 1;
  args[1].data = "\x04";
  args[1].size = 1;
  CHECK(result(call(fn, args, 2)).f == 81.0);
  ray_function_release(fn);
}

static void checksum(void) {
  static const char text[] = "123456789";
  ray_function* fn;
  packed args[3] = {{NULL, 0, RAY_FMT_MSGPACK}, {NULL, 0, RAY_FMT_MSGPACK}, {NULL, 0, RAY_FMT_MSGPACK}};
  char bin[16];
  mp_item item;
  kit_init();
  fn = symbol("libz.so.1", "crc32", "u64(u64,bytes,u32)");
  bin[0] = (char)0xc4;
  bin[1] = 9;
  memcpy(bin + 2, text, 9);
  args[0].data = "\x00";
  args[0].size = 1;
  args[1].data = bin;
  args[1].size = 11;
  args[2].data = "\x09";
  args[2].size = 1;
  item = result(call(fn, args, 3));
  CHECK_EQ(item.type, MP_INT);
  CHECK_EQ(item.i, 0xcbf43926);
  ray_function_release(fn);
}

/* A value that is bytes alone, as other languages send it, is what `bytes` and `ptr_len` take. */
static void raw_bytes(void) {
  ray_function* fn;
  packed args[2] = {{"\x00", 1, RAY_FMT_MSGPACK}, {"123456789", 9, RAY_FMT_RAW}};
  ray_ref* ref;
  kit_init();
  fn = symbol("libz.so.1", "crc32", "u64(u64,ptr_len)");
  CHECK_EQ(result(call(fn, args, 2)).i, 0xcbf43926);
  args[1].size = 0;
  CHECK_EQ(result(call(fn, args, 2)).i, 0);
  args[1].data = NULL; /* no bytes of MessagePack are nil */
  args[1].format = RAY_FMT_MSGPACK;
  CHECK_EQ(result(call(fn, args, 2)).i, 0);
  args[1].data = "no table";
  args[1].size = 8;
  args[1].format = RAY_FMT_ARROW_IPC;
  ref = call(fn, args, 2);
  CHECK(kit_get_code(ref) != RAY_OK);
  CHECK_MESSAGE("argument 1");
  CHECK_MESSAGE("an Arrow table: give its bytes");
  ray_ref_release(ref);
  ray_function_release(fn);
  fn = symbol("", "strlen", "u64(str)");
  args[0].data = "text";
  args[0].size = 4;
  args[0].format = RAY_FMT_RAW;
  ref = call(fn, args, 1);
  CHECK(kit_get_code(ref) != RAY_OK);
  CHECK_MESSAGE("argument 0: expected str, got 4 bytes");
  CHECK_MESSAGE("ptr_len");
  ray_ref_release(ref);
  ray_function_release(fn);
}

static void strings_and_the_c_library(void) {
  ray_function* fn;
  packed arg = {NULL, 0, RAY_FMT_MSGPACK};
  mp_item item;
  kit_init();
  fn = symbol("", "strlen", "u64(str)");
  arg.data = "\xa5hello";
  arg.size = 6;
  CHECK_EQ(result(call(fn, &arg, 1)).i, 5);
  ray_function_release(fn);
  fn = symbol("", "abs", "i32(i32)");
  arg.data = "\xd0\x85"; /* -123 */
  arg.size = 2;
  CHECK_EQ(result(call(fn, &arg, 1)).i, 123);
  arg.data = "\xce\xff\xff\xff\xff"; /* does not fit an i32 */
  arg.size = 5;
  {
    ray_ref* ref = call(fn, &arg, 1);
    CHECK(kit_get_code(ref) != RAY_OK);
    CHECK_MESSAGE("argument");
    CHECK_MESSAGE("i32");
    ray_ref_release(ref);
  }
  arg.data = "\xa5hello"; /* not a number */
  arg.size = 6;
  {
    ray_ref* ref = call(fn, &arg, 1);
    CHECK(kit_get_code(ref) != RAY_OK);
    CHECK_MESSAGE("argument");
    ray_ref_release(ref);
  }
  {
    ray_ref* ref = call(fn, NULL, 0); /* too few */
    CHECK(kit_get_code(ref) != RAY_OK);
    ray_ref_release(ref);
  }
  ray_function_release(fn);
  fn = symbol("", "getenv", "str(str)");
  arg.data = "\xaeNO_SUCH_SYMBOL";
  arg.size = 15;
  item = result(call(fn, &arg, 1));
  CHECK_EQ(item.type, MP_NIL); /* a null string */
  ray_function_release(fn);
}

static void bad_signatures(void) {
  static const char* bad[] = {"",          "f64",          "f64(",      "f64(f64",
                              "f64(f65)",  "complex(f64)", "f64(f64,)", "f64(,f64)",
                              "f64(f64)x", "f64(f64;f64)", "f64((f64))"};
  ray_function* fn = NULL;
  size_t i;
  kit_init();
  for (i = 0; i < sizeof bad / sizeof bad[0]; i++)
    CHECK_CODE(RAY_INVALID_ARGUMENT,
               ray_define_symbol(rt, ray_cstr("bad"), ray_cstr("libm.so.6"), ray_cstr("pow"),
                                 ray_cstr(bad[i]), &fn, &err));
  CHECK(fn == NULL);
}

static void missing_symbols(void) {
  ray_function* fn;
  ray_ref* ref;
  kit_init();
  fn = symbol("libm.so.6", "no_such_symbol", "f64()");
  ref = call(fn, NULL, 0);
  CHECK(kit_get_code(ref) != RAY_OK);
  CHECK_MESSAGE("no_such_symbol");
  ray_ref_release(ref);
  ray_function_release(fn);
  fn = symbol("libnothing.so.9", "f", "f64()");
  ref = call(fn, NULL, 0);
  CHECK(kit_get_code(ref) != RAY_OK);
  CHECK_MESSAGE("libnothing.so.9");
  ray_ref_release(ref);
  ray_function_release(fn);
}

/* tests/capi/module.c, beside this program, registers `module_add` in ray_module_init. */
static void library_by_path(void) {
  ray_function* fn = NULL;
  int64_t a = 20, b = 22;
  ray_arg args[2];
  ray_ref* ref;
  const char* path = getenv("LIBRAY_TEST_MODULE");
  if (path == NULL)
    kit_fail(__FILE__, __LINE__, "LIBRAY_TEST_MODULE is not set: run it through ctest");
  kit_init();
  CHECK_OK(ray_define_library(rt, ray_cstr("module_add"), ray_cstr(path), &fn, &err));
  args[0] = kit_i64(&a);
  args[1] = kit_i64(&b);
  CHECK_OK(ray_submit(rt, fn, args, 2, NULL, &ref, &err));
  CHECK_EQ(kit_take_i64(ref), 42);
  ray_function_release(fn);
  CHECK_OK(ray_define_library(rt, ray_cstr("lost"), ray_cstr("/nonexistent/lost.so"), &fn, &err));
  CHECK_OK(ray_submit(rt, fn, NULL, 0, NULL, &ref, &err));
  CHECK(kit_get_code(ref) != RAY_OK);
  CHECK_MESSAGE("/nonexistent/lost.so");
  ray_ref_release(ref);
  ray_function_release(fn);
}

/* Which of two libraries has a name depends on which is loaded first, so the other one says that it is taken. */
static void a_library_with_a_taken_name(void) {
  ray_runtime_options options = kit_options();
  const char* path = getenv("LIBRAY_TEST_MODULE");
  ray_function *first, *other;
  int64_t a = 20, b = 22;
  ray_arg args[2];
  char again[512];
  ray_ref* ref;
  int i;
  if (path == NULL) kit_fail(__FILE__, __LINE__, "LIBRAY_TEST_MODULE is not set: run it through ctest");
  options.num_cpus = 1; /* one worker, which loads both */
  CHECK_OK(ray_init(&options, &rt, &err));
  snprintf(again, sizeof again, "%s", kit_path("again.so"));
  CHECK(symlink(path, again) == 0);
  CHECK_OK(ray_define_library(rt, ray_cstr("module_add"), ray_cstr(path), &first, &err));
  CHECK_OK(ray_define_library(rt, ray_cstr("another"), ray_cstr(again), &other, &err));
  args[0] = kit_i64(&a);
  args[1] = kit_i64(&b);
  for (i = 0; i < 2; i++) {
    CHECK_OK(ray_submit(rt, first, args, 2, NULL, &ref, &err));
    CHECK_EQ(kit_take_i64(ref), 42);
    CHECK_OK(ray_submit(rt, other, args, 2, NULL, &ref, &err));
    CHECK_CODE(RAY_TASK_FAILED, kit_get_code(ref));
    CHECK_MESSAGE("again.so registers 'module_add', which this worker has from elsewhere");
    ray_ref_release(ref);
  }
  ray_function_release(first);
  ray_function_release(other);
}

static const kit_test tests[] = {
    KIT_TEST(power),          KIT_TEST(checksum), KIT_TEST(raw_bytes),        KIT_TEST(strings_and_the_c_library),
    KIT_TEST(bad_signatures), KIT_TEST(missing_symbols), KIT_TEST(library_by_path),
    KIT_TEST(a_library_with_a_taken_name)};
KIT_MAIN(tests, register_all)
