/* remote.h -- what several of these programs run in their workers. Include it behind kit.h. */
#ifndef LIBRAY_TESTS_REMOTE_H
#define LIBRAY_TESTS_REMOTE_H
#include "kit.h"

typedef struct remote_function {
  const char* name;
  ray_task_fn fn;
} remote_function;

static inline void remote_register(const remote_function* all, size_t n) {
  size_t i;
  for (i = 0; i < n; i++) CHECK_OK(ray_register_function(ray_cstr(all[i].name), all[i].fn, NULL, &err));
}

/* A task that waits for the file in args[0], or for its cancellation; gives 7. */
static inline ray_code await_file(ray_task* task, void* user) {
  char path[512];
  (void)user;
  kit_arg_text(task, 0, path, sizeof path);
  while (!kit_exists(path)) {
    if (ray_task_is_cancelled(task)) return RAY_CANCELLED;
    kit_pause();
  }
  return kit_return_i64(task, 0, 7);
}

/* Such a task; await_file is registered under its name. */
static inline ray_ref* waiting_for(const char* file) {
  ray_arg arg = kit_text(kit_path(file));
  return kit_submit("await_file", &arg, 1, NULL);
}

/* args[0] + args[1] */
static inline ray_code add(ray_task* task, void* user) {
  (void)user;
  return kit_return_i64(task, 0, kit_arg_i64(task, 0) + kit_arg_i64(task, 1));
}
#endif
