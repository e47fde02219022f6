// header.cc -- ray.h alone, as C++17 with -pedantic -Werror.
#include <ray.h>

#include <type_traits>

static_assert(std::is_trivially_copyable_v<ray_buffer>, "buffers are moved by memcpy");
static_assert(std::is_standard_layout_v<ray_task_options>);

extern "C" int kit_header_cxx(void);
extern "C" int kit_header_cxx(void) {
  ray_runtime_options runtime = RAY_RUNTIME_OPTIONS_INIT;
  ray_task_options task = RAY_TASK_OPTIONS_INIT;
  ray_actor_options actor = RAY_ACTOR_OPTIONS_INIT;
  ray_notify notify = RAY_NOTIFY_INIT;
  ray_value value = RAY_VALUE_INIT;
  ray_buffer buffer = RAY_BUFFER_INIT;
  bool good = runtime.struct_size == sizeof runtime && task.struct_size == sizeof task &&
              actor.struct_size == sizeof actor && notify.struct_size == sizeof notify &&
              value.size == 0 && buffer.size == 0 && ray_cstr("a").size == RAY_NUL;
  return good ? 0 : 1;
}
