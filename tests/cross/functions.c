/* functions.c -- the functions and the actor class that other languages call by name: run in this program's workers.
 * Arguments and results are MessagePack. */
#include "functions.h"

#include "pack.h"

static ray_code give(ray_task* task, const pack* p) {
  ray_value value = pack_value(p);
  return ray_task_return(task, 0, &value, NULL);
}

static ray_code give_int(ray_task* task, int64_t v) {
  pack p;
  pack_init(&p);
  pack_int(&p, v);
  return give(task, &p);
}

/* Of a call that failed: its code and message go to the caller. */
static ray_code pass_on(ray_task* task, ray_code code, ray_error* error) {
  ray_task_fail(task, ray_error_message(error), NULL);
  ray_error_release(error);
  return code;
}

static ray_code area(ray_task* task, void* user) {
  const ray_buffer* args;
  pack p;
  (void)user;
  if (ray_task_args(task, &args) != 2) {
    ray_task_fail(task, ray_cstr("area takes two numbers"), NULL);
    return RAY_TASK_FAILED;
  }
  pack_init(&p);
  pack_f64(&p, mp_number(of_buffer(&args[0])) * mp_number(of_buffer(&args[1])));
  return give(task, &p);
}

/* A value with all its parts, just as it came. */
static ray_code echo(ray_task* task, void* user) {
  const ray_buffer* args;
  ray_value value = RAY_VALUE_INIT;
  ray_ref* refs[8];
  ray_code code;
  uint32_t i;
  (void)user;
  if (ray_task_args(task, &args) != 1 || args[0].n_refs > 8) return RAY_TASK_FAILED;
  value.data = args[0].data;
  value.size = (size_t)args[0].size;
  value.format = args[0].format;
  value.oob = args[0].oob;
  value.n_oob = (size_t)args[0].n_oob;
  for (i = 0; i < args[0].n_refs; i++)
    if (ray_buffer_ref(&args[0], i, &refs[i], NULL) != RAY_OK) return RAY_TASK_FAILED;
  value.refs = refs;
  value.n_refs = args[0].n_refs;
  code = ray_task_return(task, 0, &value, NULL);
  for (i = 0; i < args[0].n_refs; i++) ray_ref_release(refs[i]);
  return code;
}

/* An error in the form that every language reads, with a cause. */
static ray_code fail(ray_task* task, void* user) {
  pack p;
  ray_value payload;
  (void)user;
  pack_init(&p);
  pack_map(&p, 5);
  pack_str(&p, "language");
  pack_str(&p, "native");
  pack_str(&p, "type");
  pack_str(&p, "DomainError");
  pack_str(&p, "message");
  pack_str(&p, "no root of -1");
  pack_str(&p, "stack");
  pack_str(&p, "at root() in functions.c\nat fail() in functions.c");
  pack_str(&p, "cause");
  pack_map(&p, 3);
  pack_str(&p, "language");
  pack_str(&p, "native");
  pack_str(&p, "type");
  pack_str(&p, "SignError");
  pack_str(&p, "message");
  pack_str(&p, "it is negative");
  payload = pack_value(&p);
  ray_task_fail(task, ray_cstr("DomainError: no root of -1"), &payload);
  return RAY_TASK_FAILED;
}

static ray_code count_to(ray_task* task, void* user) { /* a stream: 0, 1, ... n - 1 */
  const ray_buffer* args;
  int64_t i, n;
  (void)user;
  if (ray_task_args(task, &args) != 1) return RAY_TASK_FAILED;
  n = (int64_t)mp_number(of_buffer(&args[0]));
  for (i = 0; i < n; i++) {
    pack p;
    ray_value value;
    ray_code code;
    pack_init(&p);
    pack_int(&p, i);
    value = pack_value(&p);
    code = ray_task_yield(task, &value, -1, NULL);
    if (code != RAY_OK) return code;
  }
  return RAY_OK;
}

/* [sum, inode, offset] of a tensor of <f8, with the place of its memory. */
static ray_code sum(ray_task* task, void* user) {
  const ray_buffer* args;
  const double* data;
  double total = 0;
  size_t i;
  place where;
  pack p;
  (void)user;
  if (ray_task_args(task, &args) != 1 || args[0].n_oob != 1) {
    ray_task_fail(task, ray_cstr("sum takes one tensor"), NULL);
    return RAY_TASK_FAILED;
  }
  data = (const double*)args[0].oob[0].data;
  for (i = 0; i < args[0].oob[0].size / sizeof *data; i++) total += data[i];
  where = place_of(data);
  pack_init(&p);
  pack_array(&p, 3);
  pack_f64(&p, total);
  pack_int(&p, (int64_t)where.inode);
  pack_int(&p, (int64_t)where.offset);
  return give(task, &p);
}

static ray_code who(ray_task* task, void* user) { /* language of the caller */
  ray_task_info info = RAY_TASK_INFO_INIT;
  (void)user;
  ray_task_get_info(task, &info);
  return give_int(task, info.caller_language);
}

/* call_python(module, function, x): that function's result. */
static ray_code call_python(ray_task* task, void* user) {
  const ray_buffer* args;
  ray_runtime* runtime = ray_task_runtime(task);
  ray_function* function;
  ray_error* error = NULL;
  ray_ref* ref;
  ray_buffer result = RAY_BUFFER_INIT;
  ray_arg x = RAY_ARG_INIT;
  ray_value value;
  mp_item names[2];
  ray_code code;
  int i;
  (void)user;
  if (ray_task_args(task, &args) != 3) return RAY_TASK_FAILED;
  for (i = 0; i < 2; i++) {
    mp in = of_buffer(&args[i]);
    names[i] = mp_next(&in);
  }
  code = ray_function_named(runtime, RAY_LANG_PYTHON, (ray_str){names[0].data, names[0].size},
                            (ray_str){names[1].data, names[1].size}, &function, &error);
  if (code != RAY_OK) return pass_on(task, code, error);
  x.value = ray_plain(args[2].data, (size_t)args[2].size, args[2].format);
  code = ray_submit(runtime, function, &x, 1, NULL, &ref, &error);
  ray_function_release(function);
  if (code != RAY_OK) return pass_on(task, code, error);
  code = ray_get(runtime, &ref, 1, -1, &result, &error);
  ray_ref_release(ref);
  if (code != RAY_OK) {
    uint32_t format = 0;
    ray_bytes body = ray_error_payload(error, &format);
    ray_value payload = ray_plain(body.data, body.size, format);
    ray_task_fail(task, ray_error_message(error), &payload); /* as it came: it says what it is */
    ray_error_release(error);
    return RAY_TASK_FAILED;
  }
  value = ray_plain(result.data, (size_t)result.size, result.format);
  code = ray_task_return(task, 0, &value, NULL);
  ray_buffer_release(&result);
  return code;
}

/* The value of the reference in [reference], or what method("add", 1) of the actor in [actor] gives. */
static ray_code use_reference(ray_task* task, void* user) {
  const ray_buffer* args;
  ray_runtime* runtime = ray_task_runtime(task);
  ray_error* error = NULL;
  ray_ref *inside = NULL, *ref;
  ray_buffer result = RAY_BUFFER_INIT;
  ray_value value;
  ray_code code;
  mp in;
  mp_item item;
  (void)user;
  if (ray_task_args(task, &args) != 1 || args[0].n_refs != 1) return RAY_TASK_FAILED;
  in = of_buffer(&args[0]);
  item = mp_next(&in);
  if (item.type == MP_ARRAY) item = mp_next(&in);
  if (item.type != MP_EXT || ray_buffer_ref(&args[0], 0, &inside, &error) != RAY_OK) return RAY_TASK_FAILED;
  ref = inside;
  if (item.ext == 2) {
    ray_actor* actor;
    ray_arg one = arg_int(1);
    code = ray_actor_from_ref(inside, &actor, &error);
    if (code == RAY_OK) {
      code = ray_actor_call(actor, ray_cstr("add"), &one, 1, NULL, &ref, &error);
      ray_actor_release(actor);
    }
    ray_ref_release(inside);
    if (code != RAY_OK) return pass_on(task, code, error);
  }
  code = ray_get(runtime, &ref, 1, -1, &result, &error);
  ray_ref_release(ref);
  if (code != RAY_OK) return pass_on(task, code, error);
  value = ray_plain(result.data, (size_t)result.size, result.format);
  code = ray_task_return(task, 0, &value, NULL);
  ray_buffer_release(&result);
  return code;
}

static ray_code until_cancelled(ray_task* task, void* user) {
  char path[512];
  const ray_buffer* args;
  mp in;
  mp_item item;
  (void)user;
  if (ray_task_args(task, &args) != 1) return RAY_TASK_FAILED;
  in = of_buffer(&args[0]);
  item = mp_next(&in);
  if (item.type != MP_STR || item.size >= sizeof path) return RAY_TASK_FAILED;
  memcpy(path, item.data, item.size);
  path[item.size] = 0;
  kit_touch(path); /* it runs now */
  while (!ray_task_is_cancelled(task)) kit_pause();
  return RAY_CANCELLED;
}

static ray_code counter_create(ray_task* task, void* user) {
  const ray_buffer* args;
  int64_t* self;
  (void)user;
  if (ray_task_args(task, &args) != 1 || mp_number(of_buffer(&args[0])) < 0) {
    ray_task_fail(task, ray_cstr("a counter starts at 0 or above"), NULL);
    return RAY_TASK_FAILED;
  }
  self = (int64_t*)malloc(sizeof *self);
  *self = (int64_t)mp_number(of_buffer(&args[0]));
  return ray_task_set_self(task, self, NULL);
}

static void counter_destroy(void* self, void* user) {
  (void)user;
  free(self);
}

static ray_code counter_add(ray_task* task, void* user) {
  const ray_buffer* args;
  int64_t* self = (int64_t*)ray_task_self(task);
  (void)user;
  if (ray_task_args(task, &args) != 1) return RAY_TASK_FAILED;
  *self += (int64_t)mp_number(of_buffer(&args[0]));
  return give_int(task, *self);
}

/* A tensor of three elements whose part is empty. */
static ray_code hollow(ray_task* task, void* user) {
  const uint32_t shape[] = {3};
  pack p;
  (void)user;
  pack_init(&p);
  pack_f64_tensor(&p, NULL, shape, 1);
  p.oob[0].size = 0;
  return give(task, &p);
}

/* An error with the code that others take for "not yet". */
static ray_code own_timeout(ray_task* task, void* user) {
  (void)user;
  return ray_task_return_error(task, 0, RAY_TIMED_OUT, ray_cstr("the sensor did not answer"), NULL, NULL);
}

void register_functions(void) {
  static const struct {
    const char* name;
    ray_task_fn fn;
  } functions[] = {{"area", area},
                   {"geometry::area", area},
                   {"echo", echo},
                   {"fail", fail},
                   {"hollow", hollow},
                   {"own_timeout", own_timeout},
                   {"count_to", count_to},
                   {"sum", sum},
                   {"who", who},
                   {"call_python", call_python},
                   {"use_reference", use_reference},
                   {"until_cancelled", until_cancelled}};
  size_t i;
  for (i = 0; i < sizeof functions / sizeof functions[0]; i++)
    CHECK_OK(ray_register_function(ray_cstr(functions[i].name), functions[i].fn, NULL, &err));
  CHECK_OK(ray_register_actor(ray_cstr("Counter"), counter_create, counter_destroy, NULL, &err));
  CHECK_OK(ray_register_method(ray_cstr("Counter"), ray_cstr("add"), counter_add, NULL, &err));
  CHECK_OK(ray_register_method(ray_cstr("Counter"), ray_cstr("fail"), fail, NULL, &err));
  CHECK_OK(ray_register_method(ray_cstr("Counter"), ray_cstr("count_to"), count_to, NULL, &err));
}
