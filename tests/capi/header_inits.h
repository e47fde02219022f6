/* header_inits.h -- every struct of ray.h with its INIT macro; included by header.c (C99) and header.cc (C++17, with
 * -Wzero-as-null-pointer-constant). */
#ifndef TESTS_CAPI_HEADER_INITS_H
#define TESTS_CAPI_HEADER_INITS_H
#include <ray.h>

static inline int header_inits(void) {
  ray_str str = RAY_STR_INIT;
  ray_bytes bytes = RAY_BYTES_INIT;
  ray_id id = RAY_ID_INIT;
  ray_runtime_options runtime = RAY_RUNTIME_OPTIONS_INIT;
  ray_context context = RAY_CONTEXT_INIT;
  ray_value value = RAY_VALUE_INIT;
  ray_buffer buffer = RAY_BUFFER_INIT;
  ray_layout layout = RAY_LAYOUT_INIT;
  ray_completion completion = RAY_COMPLETION_INIT;
  ray_notify notify = RAY_NOTIFY_INIT;
  ray_arg arg = RAY_ARG_INIT;
  ray_placement placement = RAY_PLACEMENT_INIT;
  ray_task_options task = RAY_TASK_OPTIONS_INIT;
  ray_actor_options actor = RAY_ACTOR_OPTIONS_INIT;
  ray_group_options group = RAY_GROUP_OPTIONS_INIT;
  ray_task_info info = RAY_TASK_INFO_INIT;
  ray_value plain = ray_plain("a", 1, RAY_FMT_RAW);
  return !(str.data == RAY_NULL && bytes.size == 0 && id.b[23] == 0 && runtime.struct_size == sizeof runtime &&
           runtime.worker_argv == RAY_NULL && runtime.gcs_shards == 0 && runtime.job_name.size == 0 &&
           context.struct_size == sizeof context && value.data == RAY_NULL && value.refs == RAY_NULL &&
           value.oob == RAY_NULL && value.reserved[1] == 0 && buffer.release == RAY_NULL &&
           buffer.private_data == RAY_NULL && buffer.reserved[1] == 0 && layout.oob == RAY_NULL &&
           completion.error == RAY_NULL && completion.reserved[1] == 0 && notify.struct_size == sizeof notify &&
           notify.free_user == RAY_NULL && arg.ref == RAY_NULL && arg.value.size == 0 &&
           placement.struct_size == sizeof placement && placement.bundle == -1 && task.struct_size == sizeof task &&
           task.max_retries == RAY_RETRIES_DEFAULT && task.num_returns == 1 && task.placement == RAY_NULL &&
           actor.struct_size == sizeof actor && actor.max_task_retries == RAY_RETRIES_DEFAULT &&
           actor.placement == RAY_NULL && group.struct_size == sizeof group && info.struct_size == sizeof info &&
           !info.has_gpus && plain.reserved[0] == 0 && ray_cstr("a").size == RAY_NUL);
}
#endif
