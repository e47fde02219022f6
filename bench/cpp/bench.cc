// bench_cpp: the C++ rows of ./dev bench. The same work is done through ray.hpp and through ray.h,
// step by step in turns on one node, so that what the binding costs shows apart from what the
// machine does: NAME is the C++ figure, NAME_per_c its ratio to C's (of rates; 1 = no cost),
// NAME_over_c that of times.
#include <algorithm>
#include <cstdlib>
#include <ray.hpp>

#include "bench.h"

namespace bench {
namespace {

constexpr size_t kBatch = 1000;

void noop() {}
int64_t echo(int64_t x) { return x; }
class Idle {
 public:
  void noop() {}
};
RAY_REMOTE(noop, echo);
RAY_ACTOR(Idle, &Idle::noop);

ray_code c_noop(ray_task*, void*) { return RAY_OK; }
ray_code c_echo(ray_task* task, void*) {
  const ray_buffer* args = nullptr;
  int64_t x = 0;
  if (ray_task_args(task, &args) != 1 || args[0].size != sizeof x) return RAY_TASK_FAILED;
  memcpy(&x, args[0].data, sizeof x);
  ray_value v = ray_plain(&x, sizeof x, RAY_FMT_RAW);
  return ray_task_return(task, 0, &v, nullptr);
}
ray_code c_create(ray_task* task, void*) {
  static int64_t zero;
  return ray_task_set_self(task, &zero, nullptr);
}

// What the C side holds, made once.
struct Plain {
  ray_runtime* rt = ray::detail::runtime();
  ray_function *noop = nullptr, *echo = nullptr, *klass = nullptr;
  ray_actor* actor = nullptr;
  Plain() {
    BENCH_CHECK(ray_function_get(rt, ray_cstr("c_noop"), &noop, err));
    BENCH_CHECK(ray_function_get(rt, ray_cstr("c_echo"), &echo, err));
    BENCH_CHECK(ray_function_get(rt, ray_cstr("c_Idle"), &klass, err));
    BENCH_CHECK(ray_actor_create(rt, klass, nullptr, 0, nullptr, &actor, err));
  }
  ~Plain() {
    ray_actor_release(actor);
    for (ray_function* f : {noop, echo, klass}) ray_function_release(f);
  }
  void get(ray_ref** refs, size_t n) const {
    static ray_buffer buffers[kBatch];
    BENCH_CHECK(ray_get(rt, refs, n, -1, buffers, err));
    for (size_t i = 0; i < n; i++) {
      ray_buffer_release(&buffers[i]);
      ray_ref_release(refs[i]);
    }
  }
};

using Step = std::function<void()>;

double took_ns(const Step& step) {
  int64_t began = now_ns();
  step();
  return static_cast<double>(now_ns() - began);
}
double median(std::vector<double>& samples) {
  auto middle = samples.begin() + static_cast<std::ptrdiff_t>(samples.size() / 2);
  std::nth_element(samples.begin(), middle, samples.end());
  return *middle;
}
// Median times of two ways of doing the same, in nanoseconds: each step of one is followed by one
// of the other, so that both see the same machine.
std::pair<double, double> in_turns(Bench& b, const Step& c, const Step& cpp) {
  std::vector<double> in_c, in_cpp;
  for (int64_t end = now_ns() + 2 * b.settings().round_ns(); now_ns() < end;) {
    in_c.push_back(took_ns(c));
    in_cpp.push_back(took_ns(cpp));
  }
  return {median(in_c), median(in_cpp)};
}
// Adds NAME and its ratio to C: of rates of steps of `per_step` operations, or (0) of the time of
// one.
void compare(Bench& b, const std::string& name, const std::string& unit, size_t per_step,
             const Step& c, const Step& cpp) {
  const std::string ratio = name + (per_step ? "_per_c" : "_over_c");
  if (!b.wants_any({name.c_str(), ratio.c_str()})) return;
  std::vector<double> own, ratios;
  for (int round = -1; round < b.settings().rounds(); round++) {
    auto [in_c, in_cpp] = in_turns(b, c, cpp);
    if (round < 0) continue;  // warm-up
    own.push_back(per_step ? static_cast<double>(per_step) * 1e9 / in_cpp : in_cpp / 1e3);
    ratios.push_back(per_step ? in_c / in_cpp : in_cpp / in_c);
  }
  b.add(name, unit, own);
  b.add(ratio, "ratio", ratios);
}
void rates(Bench& b, const std::string& name, const std::string& unit, const Step& c,
           const Step& cpp) {
  compare(b, name, unit, kBatch, c, cpp);
}
void latencies(Bench& b, const std::string& name, const Step& c, const Step& cpp) {
  compare(b, name, "us", 0, c, cpp);
}

void tasks(Bench& b, const Plain& p) {
  static ray_ref* refs[kBatch];
  auto submit = [&](ray_function* f, ray_ref** out) {
    BENCH_CHECK(ray_submit(p.rt, f, nullptr, 0, nullptr, out, err));
  };
  rates(
      b, "tasks_batch_1000", "tasks/s",
      [&] {
        for (ray_ref*& r : refs) submit(p.noop, &r);
        p.get(refs, kBatch);
      },
      [&] {
        std::vector<ray::ref<void>> all;
        all.reserve(kBatch);
        for (size_t i = 0; i < kBatch; i++) all.push_back(ray::task(noop)());
        ray::get(all);
      });
  latencies(
      b, "task_latency_p50",
      [&] {
        submit(p.noop, &refs[0]);
        p.get(refs, 1);
      },
      [&] { ray::task(noop)().get(); });
  int64_t x = 7;
  ray_arg arg = {nullptr, ray_plain(&x, sizeof x, RAY_FMT_RAW)};
  rates(
      b, "tasks_with_int_batch_1000",
      "tasks/s",  // an integer there and back: C sends its bytes, C++ MessagePack
      [&] {
        for (ray_ref*& r : refs) BENCH_CHECK(ray_submit(p.rt, p.echo, &arg, 1, nullptr, &r, err));
        p.get(refs, kBatch);
      },
      [&] {
        std::vector<ray::ref<int64_t>> all;
        all.reserve(kBatch);
        for (size_t i = 0; i < kBatch; i++) all.push_back(ray::task(echo)(x));
        ray::get(all);
      });
}

void calls(Bench& b, const Plain& p) {
  static ray_ref* refs[kBatch];
  ray::actor_handle<Idle> idle = ray::actor<Idle>();
  auto call = [&](ray_ref** out) {
    BENCH_CHECK(ray_actor_call(p.actor, ray_cstr("noop"), nullptr, 0, nullptr, out, err));
  };
  rates(
      b, "actor_calls_batch_1000", "calls/s",
      [&] {
        for (ray_ref*& r : refs) call(&r);
        p.get(refs, kBatch);
      },
      [&] {
        std::vector<ray::ref<void>> all;
        all.reserve(kBatch);
        for (size_t i = 0; i < kBatch; i++) all.push_back(idle.call(&Idle::noop));
        ray::get(all);
      });
  latencies(
      b, "actor_latency_p50",
      [&] {
        call(&refs[0]);
        p.get(refs, 1);
      },
      [&] { idle.call(&Idle::noop).get(); });
}

void measure(Bench& b) {
  ray::session session({.job_name = "bench"});
  Plain plain;
  tasks(b, plain);
  calls(b, plain);
}

}  // namespace
}  // namespace bench

int main(int argc, char** argv) {
  BENCH_CHECK(ray_register_function(ray_cstr("c_noop"), bench::c_noop, nullptr, err));
  BENCH_CHECK(ray_register_function(ray_cstr("c_echo"), bench::c_echo, nullptr, err));
  BENCH_CHECK(ray_register_actor(ray_cstr("c_Idle"), bench::c_create, nullptr, nullptr, err));
  BENCH_CHECK(
      ray_register_method(ray_cstr("c_Idle"), ray_cstr("noop"), bench::c_noop, nullptr, err));
  if (getenv("LIBRAY_WORKER")) ray::init();  // does not return
  return bench::run(argc, argv, "cpp", bench::measure);
}
