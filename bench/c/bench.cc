// bench_c: the C rows of ./dev bench. Prints nothing but progress; writes its rows as JSON.
//   bench_c [--json FILE] [--filter TEXT] [--quick] [--growth] [--sustained SECONDS]
// Its own worker: libray starts the same program again for the tasks.
#include "bench.h"

#include <cstdlib>

namespace bench {
namespace {

ray_code noop(ray_task*, void*) { return RAY_OK; }

ray_code counter_create(ray_task* task, void*) {
  static int64_t zero;
  return ray_task_set_self(task, &zero, nullptr);
}

void measure(Bench& b) {
  if (b.settings().sustained > 0) return bench_sustained(b);
  if (b.settings().growth) return bench_growth(b);
  bench_start(b);
  bench_tasks(b);
  bench_actors(b);
  bench_objects(b);
  bench_large_objects(b);
  bench_costs(b);
}

}  // namespace
}  // namespace bench

int main(int argc, char** argv) {
  using bench::noop;
  BENCH_CHECK(ray_register_function(ray_cstr("noop"), noop, nullptr, err));
  BENCH_CHECK(ray_register_actor(ray_cstr("Idle"), bench::counter_create, nullptr, nullptr, err));
  BENCH_CHECK(ray_register_method(ray_cstr("Idle"), ray_cstr("noop"), noop, nullptr, err));
  if (!getenv("LIBRAY_WORKER")) return bench::run(argc, argv, "c", bench::measure);
  ray_runtime* rt = nullptr;
  BENCH_CHECK(ray_init(nullptr, &rt, err));
  ray_worker_run(rt, nullptr);
  ray_runtime_release(rt);
  return 0;
}
