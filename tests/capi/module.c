/* module.c -- a shared library of tasks, loaded by path in the workers: ffi.c calls it. */
#include <ray.h>
#include <string.h>

static ray_code module_add(ray_task* task, void* user) {
  const ray_buffer* args;
  int64_t a, b, sum;
  ray_value value = ray_plain(&sum, sizeof sum, RAY_FMT_RAW);
  (void)user;
  if (ray_task_args(task, &args) != 2 || args[0].size != 8 || args[1].size != 8) {
    ray_task_fail(task, ray_cstr("two numbers, please"), NULL);
    return RAY_TASK_FAILED;
  }
  memcpy(&a, args[0].data, 8);
  memcpy(&b, args[1].data, 8);
  sum = a + b;
  return ray_task_return(task, 0, &value, NULL);
}

RAY_API void ray_module_init(void);
RAY_API void ray_module_init(void) {
  ray_register_function(ray_cstr("module_add"), module_add, NULL, NULL);
}
