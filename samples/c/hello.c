/* hello.c -- tasks, an actor, get, wait, and a function of the C library as a task. The program is
 * its own worker: libray starts it again, and then ray_runtime_mode says so. */
#include <ray.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static ray_error* err;
/* Ends the program with the error's message unless the call went well. */
static void check(ray_code code) {
  if (code == RAY_OK) return;
  ray_str why = ray_error_message(err);
  fprintf(stderr, "%s: %.*s\n", ray_code_name(code), (int)why.size, why.data);
  exit(1);
}

/* ---- what runs elsewhere: a task, and an actor with one method ---- */
static ray_code give(ray_task* task, int64_t number) {
  ray_value value = ray_plain(&number, sizeof number, RAY_FMT_RAW);
  return ray_task_return(task, 0, &value, NULL);
}

static int64_t number_of(const ray_buffer* buffer) {
  int64_t number;
  memcpy(&number, buffer->data, sizeof number);
  return number;
}

static ray_code square(ray_task* task, void* user) {
  const ray_buffer* args;
  ray_task_args(task, &args);
  return give(task, number_of(&args[0]) * number_of(&args[0]));
}

static ray_code counter_create(ray_task* task, void* user) {
  return ray_task_set_self(task, calloc(1, sizeof(int64_t)), NULL);
}

static ray_code counter_add(ray_task* task, void* user) {
  const ray_buffer* args;
  ray_task_args(task, &args);
  return give(task, *(int64_t*)ray_task_self(task) += number_of(&args[0]));
}

static void counter_destroy(void* self, void* user) { free(self); }

/* ---- the driver ---- */
int main(void) {
  ray_runtime* rt;
  check(ray_register_function(ray_cstr("square"), square, NULL, &err));
  check(ray_register_actor(ray_cstr("Counter"), counter_create, counter_destroy, NULL, &err));
  check(ray_register_method(ray_cstr("Counter"), ray_cstr("add"), counter_add, NULL, &err));
  check(ray_init(NULL, &rt, &err));
  if (ray_runtime_mode(rt) == RAY_MODE_WORKER) return ray_worker_run(rt, NULL) != RAY_OK;

  ray_function *fn, *klass, *power;
  check(ray_function_get(rt, ray_cstr("square"), &fn, &err));
  check(ray_function_get(rt, ray_cstr("Counter"), &klass, &err));
  ray_actor* counter;
  check(ray_actor_create(rt, klass, NULL, 0, NULL, &counter, &err));

  ray_ref *squares[10], *total = NULL; /* futures: the calls return at once */
  for (int64_t i = 0; i < 10; i++) {
    ray_arg arg = {NULL, ray_plain(&i, sizeof i, RAY_FMT_RAW)};
    check(ray_submit(rt, fn, &arg, 1, NULL, &squares[i], &err));
  }
  uint8_t ready[10];
  size_t n_ready = 0;
  check(ray_wait(rt, squares, 10, 3, -1, ready, &n_ready, &err));
  printf("%zu of 10 squares are there\n", n_ready);
  for (int i = 0; i < 10; i++) { /* a future is an argument like any other */
    ray_arg arg = {squares[i], ray_plain(NULL, 0, RAY_FMT_RAW)};
    ray_ref_release(total);
    check(ray_actor_call(counter, ray_cstr("add"), &arg, 1, NULL, &total, &err));
  }
  ray_buffer sum;
  check(ray_get(rt, &total, 1, -1, &sum, &err));
  printf("their sum is %lld\n", (long long)number_of(&sum));

  /* Any C symbol is a task; its arguments and its result are MessagePack: here 2.0 and 0.5. */
  ray_str pow = ray_cstr("pow"), libm = ray_cstr("libm.so.6");
  check(ray_define_symbol(rt, pow, libm, pow, ray_cstr("f64(f64,f64)"), &power, &err));
  ray_arg args[2] = {{NULL, ray_plain("\xcb\x40\0\0\0\0\0\0\0", 9, RAY_FMT_MSGPACK)},
                     {NULL, ray_plain("\xcb\x3f\xe0\0\0\0\0\0\0", 9, RAY_FMT_MSGPACK)}};
  ray_ref* root;
  check(ray_submit(rt, power, args, 2, NULL, &root, &err));
  ray_buffer_release(&sum);
  check(ray_get(rt, &root, 1, -1, &sum, &err));
  double result;
  uint64_t bits = 0; /* a tag, then eight bytes, the highest first */
  for (int i = 1; i < 9; i++) bits = bits << 8 | ((const uint8_t*)sum.data)[i];
  printf("pow(2, 0.5) = %g\n", *(double*)memcpy(&result, &bits, sizeof result));

  ray_buffer_release(&sum);
  for (int i = 0; i < 10; i++) ray_ref_release(squares[i]);
  ray_ref_release(total), ray_ref_release(root), ray_actor_release(counter);
  ray_function_release(fn), ray_function_release(klass), ray_function_release(power);
  ray_runtime_release(rt); /* ends the cluster that this program started */
}
