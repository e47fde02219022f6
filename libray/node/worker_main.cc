// libray-worker: the generic native worker. Runs tasks of shared libraries and C symbols for programs
// that are not written in C, or that registered no functions themselves. Started by rayd only.
#include <cstdio>
#include <cstdlib>

#include "ray.h"

int main() {
  if (!std::getenv("LIBRAY_WORKER")) {
    std::fprintf(stderr, "libray-worker is started by rayd, not by people\n");
    return 2;
  }
  ray_runtime *runtime = nullptr;
  ray_error *error = nullptr;
  ray_code code = ray_init(nullptr, &runtime, &error);
  if (code == RAY_OK) code = ray_worker_run(runtime, &error);
  if (code != RAY_OK && code != RAY_CANCELLED) {
    ray_str message = ray_error_message(error);
    std::fprintf(stderr, "libray-worker: %s: %.*s\n", ray_code_name(code),
                 static_cast<int>(message.size), message.data);
  }
  ray_error_release(error);
  ray_runtime_release(runtime);
  return code == RAY_OK || code == RAY_CANCELLED ? 0 : 1;
}
