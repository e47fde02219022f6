/* program.c -- a C program in a world of several languages: its workers run functions.c, and as a driver it calls
 * functions and classes of cross_functions.py by their names. */
#define _POSIX_C_SOURCE 200809L
#include "functions.h"
#include "pack.h"

#define MODULE "cross_functions"
#define MINUTE 60000000000ll

static ray_function* python(const char* member) {
  ray_function* f;
  CHECK_OK(ray_function_named(rt, RAY_LANG_PYTHON, ray_cstr(MODULE), ray_cstr(member), &f, &err));
  return f;
}

static ray_ref* submit(const char* member, const ray_arg* args, size_t n) {
  ray_function* f = python(member);
  ray_ref* ref;
  CHECK_OK(ray_submit(rt, f, args, n, NULL, &ref, &err));
  ray_function_release(f);
  return ref;
}

static ray_buffer get(ray_ref* ref) { /* and releases the reference */
  ray_buffer out = RAY_BUFFER_INIT;
  CHECK_OK(ray_get(rt, &ref, 1, MINUTE, &out, &err));
  ray_ref_release(ref);
  return out;
}

static int64_t get_int(ray_ref* ref) {
  ray_buffer out = get(ref);
  int64_t v = int_in(&out);
  ray_buffer_release(&out);
  return v;
}

static void check_text(ray_ref* ref, const char* expected) {
  ray_buffer out = get(ref);
  mp in = of_buffer(&out);
  if (!mp_is_text(in, expected)) kit_fail(__FILE__, __LINE__, "not the text '%s'", expected);
  ray_buffer_release(&out);
}

static ray_code code_of(ray_ref* ref) { /* the error stays in err */
  ray_buffer out = RAY_BUFFER_INIT;
  ray_code code;
  kit_clear();
  code = ray_get(rt, &ref, 1, MINUTE, &out, &err);
  ray_ref_release(ref);
  ray_buffer_release(&out);
  return code;
}

/* The map that the error in `err` carries. */
static mp payload(void) {
  uint32_t format = 99;
  ray_bytes body = ray_error_payload(err, &format);
  CHECK_EQ(format, RAY_FMT_MSGPACK);
  return mp_of(body.data, body.size);
}

static void check_said(mp map, const char* key, const char* part) {
  char text[8192];
  text_at(map, key, text, sizeof text);
  if (!strstr(text, part)) kit_fail(__FILE__, __LINE__, "no '%s' in %s: '%s'", part, key, text);
}

/* ---- functions ---- */

static void functions_by_name(void) {
  ray_arg args[3];
  kit_init();
  args[0] = arg_int(40);
  args[1] = arg_int(2);
  CHECK_EQ(get_int(submit("add", args, 2)), 42);
  args[0] = arg_str("World");
  check_text(submit("greet", args, 1), "Hello, World!");
  args[0] = arg_int(20);
  CHECK_EQ(get_int(submit("later", args, 1)), 21);     /* async def */
  CHECK_EQ(get_int(submit("decorated", args, 1)), 40); /* @libray.remote */
  kit_shutdown();
}

static void keyword_arguments(void) {
  ray_arg args[3];
  pack names;
  kit_init();
  pack_init(&names);
  pack_keywords(&names, "greeting");
  args[0] = arg_str("World");
  args[1] = arg_str("Good day");
  args[2] = pack_arg(&names);
  check_text(submit("greet", args, 3), "Good day, World!");
  kit_shutdown();
}

static void several_results(void) {
  ray_task_options options = RAY_TASK_OPTIONS_INIT;
  ray_function* f;
  ray_ref* refs[2];
  kit_init();
  f = python("pair");
  options.num_returns = 2;
  CHECK_OK(ray_submit(rt, f, NULL, 0, &options, refs, &err));
  CHECK_EQ(get_int(refs[0]), 1);
  check_text(refs[1], "two");
  ray_function_release(f);
  /* As one: a tuple is an array. */
  {
    ray_buffer out = get(submit("pair", NULL, 0));
    mp in = of_buffer(&out);
    mp_item item = mp_next(&in);
    CHECK_EQ(item.type, MP_ARRAY);
    CHECK_EQ(item.size, 2);
    ray_buffer_release(&out);
  }
  kit_shutdown();
}

static void unknown_names(void) {
  ray_function* f;
  kit_init();
  CHECK_OK(ray_function_named(rt, RAY_LANG_PYTHON, ray_cstr("no_such_module"), ray_cstr("f"), &f, &err));
  {
    ray_ref* ref;
    CHECK_OK(ray_submit(rt, f, NULL, 0, NULL, &ref, &err));
    CHECK_EQ(code_of(ref), RAY_UNKNOWN_FUNCTION);
    CHECK_MESSAGE("cannot import 'no_such_module'");
  }
  ray_function_release(f);
  CHECK_EQ(code_of(submit("no_such_function", NULL, 0)), RAY_UNKNOWN_FUNCTION);
  CHECK_MESSAGE("has no 'no_such_function'");
  CHECK_EQ(code_of(submit("number", NULL, 0)), RAY_UNKNOWN_FUNCTION);
  CHECK_MESSAGE("is a int, no function or class");
  kit_shutdown();
}

/* ---- errors ---- */

static void errors(void) {
  ray_arg arg;
  mp cause;
  kit_init();
  arg = arg_str("out of luck");
  CHECK_EQ(code_of(submit("fail", &arg, 1)), RAY_TASK_FAILED);
  CHECK_MESSAGE("OwnError: out of luck");
  check_said(payload(), "language", "python");
  check_said(payload(), "type", "cross_functions.OwnError");
  check_said(payload(), "message", "out of luck");
  check_said(payload(), "function", "fail");
  check_said(payload(), "stack", "raise OwnError(text)");
  CHECK(mp_find(payload(), "cause", &cause));
  check_said(cause, "type", "KeyError");
  check_said(cause, "message", "behind it");
  kit_shutdown();
}

static void results_that_cannot_cross(void) {
  kit_init();
  CHECK_EQ(code_of(submit("unportable", NULL, 0)), RAY_TASK_FAILED);
  check_said(payload(), "message", "the result, at ['numbers'], cannot cross between languages");
  check_said(payload(), "message", "pass a list");
  kit_shutdown();
}

static void arguments_that_cannot_cross(void) {
  ray_function* f;
  ray_ref* ref;
  ray_arg arg = RAY_ARG_INIT;
  kit_init();
  f = python("echo");
  arg.value = ray_plain("\xac\xed", 2, RAY_FMT_JAVA);
  CHECK_CODE(RAY_INVALID_ARGUMENT, ray_submit(rt, f, &arg, 1, NULL, &ref, &err));
  CHECK_MESSAGE("argument 0");
  CHECK_MESSAGE("Python");
  ray_function_release(f);
  kit_shutdown();
}

/* ---- values ---- */

static void check_kind(const pack* value, const char* expected) {
  ray_arg arg = pack_arg(value);
  check_text(submit("kind", &arg, 1), expected);
}

static void types(void) {
  pack p;
  uint8_t* at;
  kit_init();
  pack_init(&p);
  pack_nil(&p);
  check_kind(&p, "builtins.NoneType");
  pack_init(&p);
  pack_f64(&p, 0.5);
  check_kind(&p, "builtins.float");
  pack_init(&p); /* a timestamp, four bytes of seconds */
  at = p.bytes;
  memcpy(at, "\xd6\xff\x65\x00\x00\x00", 6);
  p.size = 6;
  check_kind(&p, "datetime.datetime");
  pack_init(&p); /* 1 ns: more than a datetime holds */
  memcpy(p.bytes, "\xd7\xff\x00\x00\x00\x04\x00\x00\x00\x00", 10);
  p.size = 10;
  check_kind(&p, "libray.Timestamp");
  pack_init(&p); /* ext 16: a tuple */
  memcpy(p.bytes, "\xc7\x03\x10\x92\x01\x02", 6);
  p.size = 6;
  check_kind(&p, "builtins.tuple");
  pack_init(&p); /* ext 19: a name and the value */
  memcpy(p.bytes, "\xc7\x05\x13\x92\xa2IP\x07", 8);
  p.size = 8;
  check_kind(&p, "builtins.int");
  {
    ray_buffer out = get(submit("now", NULL, 0));
    const uint8_t* bytes = (const uint8_t*)out.data;
    CHECK_EQ(out.size, 10); /* fixext 8 */
    CHECK_EQ(bytes[0], 0xd7);
    CHECK_EQ((int8_t)bytes[1], -1);
    ray_buffer_release(&out);
  }
  kit_shutdown();
}

static void tensors_are_shared(void) {
  static double data[20000];
  uint32_t shape[2] = {100, 200};
  pack p;
  ray_value value;
  ray_ref* ref;
  ray_buffer mine = RAY_BUFFER_INIT, out;
  ray_arg arg = RAY_ARG_INIT;
  mp in;
  place where;
  size_t i;
  kit_init();
  for (i = 0; i < 20000; i++) data[i] = 0.5;
  pack_init(&p);
  pack_f64_tensor(&p, data, shape, 2);
  value = pack_value(&p);
  CHECK_OK(ray_put(rt, &value, &ref, &err));
  CHECK_OK(ray_get(rt, &ref, 1, MINUTE, &mine, &err));
  where = place_of(mine.oob[0].data);
  CHECK(where.inode != 0);
  arg.ref = ref;
  out = get(submit("sum_and_place", &arg, 1));
  in = of_buffer(&out);
  CHECK_EQ(mp_next(&in).size, 4);
  CHECK(mp_next(&in).f == 10000.0);
  CHECK_EQ(mp_next(&in).i, where.inode);
  CHECK_EQ(mp_next(&in).i, where.offset);
  CHECK_EQ(mp_next(&in).i, 0); /* it cannot be written */
  ray_buffer_release(&out);
  ray_buffer_release(&mine);
  ray_ref_release(ref);
  { /* and one that Python made */
    ray_arg n = arg_int(50000);
    const double* made;
    double total = 0;
    out = get(submit("ones", &n, 1));
    CHECK_EQ(out.n_oob, 1);
    CHECK_EQ(out.oob[0].size, 50000 * sizeof(double));
    made = (const double*)out.oob[0].data;
    CHECK_EQ((uintptr_t)made % 64, 0);
    for (i = 0; i < 50000; i++) total += made[i];
    CHECK(total == 50000.0);
    ray_buffer_release(&out);
  }
  kit_shutdown();
}

static void arrow_tables(void) {
  ray_arg n;
  ray_buffer out;
  ray_arg arg = RAY_ARG_INIT;
  ray_bytes stream;
  kit_init();
  n = arg_int(3);
  out = get(submit("table", &n, 1));
  CHECK_EQ(out.format, RAY_FMT_ARROW_IPC);
  CHECK_EQ(out.size, 0);
  CHECK_EQ(out.n_oob, 1);
  CHECK(memcmp(out.oob[0].data, "\xff\xff\xff\xff", 4) == 0); /* the first message of a stream */
  arg.value = ray_plain(NULL, 0, RAY_FMT_ARROW_IPC);
  stream = out.oob[0];
  arg.value.oob = &stream;
  arg.value.n_oob = 1;
  check_text(submit("kind", &arg, 1), "pyarrow.lib.Table");
  ray_buffer_release(&out);
  kit_shutdown();
}

/* ---- references and actors ---- */

static ray_actor* python_actor(const char* klass, const ray_arg* args, size_t n, const ray_actor_options* options) {
  ray_function* f = python(klass);
  ray_actor* actor;
  CHECK_OK(ray_actor_create(rt, f, args, n, options, &actor, &err));
  ray_function_release(f);
  return actor;
}

static ray_ref* call(ray_actor* actor, const char* method, const ray_arg* args, size_t n) {
  ray_ref* ref;
  CHECK_OK(ray_actor_call(actor, ray_cstr(method), args, n, NULL, &ref, &err));
  return ref;
}

static void actors_by_name(void) {
  ray_arg ten, five, bad;
  ray_actor* counter;
  int32_t language = -1;
  kit_init();
  ten = arg_int(10);
  five = arg_int(5);
  counter = python_actor("Counter", &ten, 1, NULL);
  CHECK_OK(ray_actor_language(counter, &language, &err));
  CHECK_EQ(language, RAY_LANG_PYTHON);
  CHECK_EQ(get_int(call(counter, "add", &five, 1)), 15);
  CHECK_EQ(get_int(call(counter, "add", &five, 1)), 20);
  CHECK_EQ(code_of(call(counter, "fail", NULL, 0)), RAY_TASK_FAILED);
  check_said(payload(), "message", "at 20");
  CHECK_EQ(code_of(call(counter, "subtract", &five, 1)), RAY_UNKNOWN_FUNCTION);
  CHECK_MESSAGE("has no method 'subtract'");
  ray_actor_release(counter);
  bad = arg_int(-1);
  counter = python_actor("Counter", &bad, 1, NULL);
  CHECK_EQ(code_of(call(counter, "add", &five, 1)), RAY_ACTOR_DIED);
  check_said(payload(), "type", "ValueError");
  ray_actor_release(counter);
  kit_shutdown();
}

static void an_actor_of_asyncio(void) {
  ray_actor_options options = RAY_ACTOR_OPTIONS_INIT;
  ray_arg three;
  ray_actor* meeting;
  ray_ref* refs[3];
  int i;
  kit_init();
  options.max_concurrency = 3;
  three = arg_int(3);
  meeting = python_actor("Meeting", &three, 1, &options);
  for (i = 0; i < 3; i++) refs[i] = call(meeting, "arrive", NULL, 0);
  for (i = 0; i < 3; i++) CHECK_EQ(get_int(refs[i]), 3);
  ray_actor_release(meeting);
  kit_shutdown();
}

static void references_and_handles(void) {
  ray_arg args[2], start;
  ray_ref *ref, *as_ref;
  ray_actor* counter;
  pack p;
  kit_init();
  args[0] = arg_int(3);
  args[1] = arg_int(4);
  ref = submit("add", args, 2);
  args[0] = kit_ref(ref);
  args[1] = arg_int(1);
  CHECK_EQ(get_int(submit("add", args, 2)), 8); /* an argument: its value */
  pack_init(&p);
  pack_array(&p, 1);
  pack_ref(&p, ref);
  args[0] = pack_arg(&p);
  CHECK_EQ(get_int(submit("value_of", args, 1)), 7); /* inside: the reference */
  ray_ref_release(ref);
  start = arg_int(10);
  counter = python_actor("Counter", &start, 1, NULL);
  CHECK_OK(ray_actor_to_ref(counter, &as_ref, &err));
  pack_init(&p);
  pack_array(&p, 1);
  pack_actor(&p, as_ref);
  args[0] = pack_arg(&p);
  CHECK_EQ(get_int(submit("add_to", args, 1)), 15);
  ray_ref_release(as_ref);
  ray_actor_release(counter);
  kit_shutdown();
}

static void streams(void) {
  ray_function* f;
  ray_stream* stream;
  ray_ref* item;
  ray_arg three;
  int64_t i;
  kit_init();
  three = arg_int(3);
  f = python("count_and_fail");
  CHECK_OK(ray_submit_stream(rt, f, &three, 1, NULL, &stream, &err));
  for (i = 0; i < 3; i++) {
    CHECK_OK(ray_stream_next(stream, MINUTE, &item, &err));
    CHECK_EQ(get_int(item), i);
  }
  CHECK_OK(ray_stream_next(stream, MINUTE, &item, &err));
  CHECK_EQ(code_of(item), RAY_TASK_FAILED);
  check_said(payload(), "message", "no more");
  CHECK_CODE(RAY_STREAM_END, ray_stream_next(stream, MINUTE, &item, &err));
  ray_stream_release(stream);
  ray_function_release(f);
  {
    ray_arg start = arg_int(0);
    ray_actor* counter = python_actor("Counter", &start, 1, NULL);
    CHECK_OK(ray_actor_call_stream(counter, ray_cstr("count_to"), &three, 1, NULL, &stream, &err));
    for (i = 0; i < 3; i++) {
      CHECK_OK(ray_stream_next(stream, MINUTE, &item, &err));
      CHECK_EQ(get_int(item), i);
    }
    CHECK_CODE(RAY_STREAM_END, ray_stream_next(stream, MINUTE, &item, &err));
    ray_stream_release(stream);
    ray_actor_release(counter);
  }
  kit_shutdown();
}

static void cancel(void) {
  ray_arg path;
  ray_ref* ref;
  kit_init();
  path = arg_str(kit_path("runs"));
  ref = submit("wait_for_cancel", &path, 1);
  kit_await(kit_path("runs"));
  CHECK_OK(ray_cancel(ref, 0, &err));
  CHECK_EQ(code_of(ref), RAY_CANCELLED);
  kit_shutdown();
}

static const kit_test tests[] = {
    KIT_TEST(functions_by_name),         KIT_TEST(keyword_arguments),           KIT_TEST(several_results),
    KIT_TEST(unknown_names),             KIT_TEST(errors),                      KIT_TEST(results_that_cannot_cross),
    KIT_TEST(arguments_that_cannot_cross), KIT_TEST(types),                     KIT_TEST(tensors_are_shared),
    KIT_TEST(arrow_tables),              KIT_TEST(actors_by_name),              KIT_TEST(an_actor_of_asyncio),
    KIT_TEST(references_and_handles),    KIT_TEST(streams),                     KIT_TEST(cancel),
};

KIT_MAIN(tests, register_functions)
