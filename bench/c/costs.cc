// What a task costs beside time: processor time of every process, memory while it is queued, latency
// with sleeping peers; and how all of it grows with tasks, the queue, rings and live references (--growth).
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "bench.h"
#include "system.h"

namespace bench {
namespace {

ray_runtime* start(double cpus = 0) {
  ray_runtime_options options = RAY_RUNTIME_OPTIONS_INIT;
  if (cpus > 0) options.num_cpus = cpus;
  ray_runtime* rt = nullptr;
  BENCH_CHECK(ray_init(&options, &rt, err));
  return rt;
}

void stop(ray_runtime* rt) {
  BENCH_CHECK(ray_shutdown(rt, -1, err));
  ray_runtime_release(rt);
}

struct Tasks {
  ray_runtime* rt;
  ray_function* fn = nullptr;
  std::vector<ray_ref*> refs;
  std::vector<ray_buffer> buffers;
  explicit Tasks(ray_runtime* r) : rt(r) {
    BENCH_CHECK(ray_function_get(rt, ray_cstr("noop"), &fn, err));
    run(1000);
  }
  ~Tasks() { ray_function_release(fn); }
  void submit(size_t n) {
    refs.resize(n);
    for (auto& ref : refs)
      if (ray_submit(rt, fn, nullptr, 0, nullptr, &ref, nullptr) != RAY_OK) _Exit(1);
  }
  void finish() {
    buffers.resize(refs.size());
    BENCH_CHECK(ray_get(rt, refs.data(), refs.size(), -1, buffers.data(), err));
    for (size_t i = 0; i < refs.size(); ++i) {
      ray_buffer_release(&buffers[i]);
      ray_ref_release(refs[i]);
    }
    refs.clear();
  }
  void run(size_t n) {
    submit(n);
    finish();
  }
  // Nanoseconds a task, `total` of them in batches.
  double cost(size_t total, size_t batch) {
    int64_t began = now_ns();
    for (size_t done = 0; done < total; done += batch) run(std::min(batch, total - done));
    return static_cast<double>(now_ns() - began) / static_cast<double>(total);
  }
};

// The same number of tasks in batches of different size: wall time and processor time a task, in a cluster of its own.
void growth_queue(Bench& b, size_t queue) {
  const std::string n = std::to_string(queue);
  if (!b.wants_any({("growth_queue_" + n).c_str(), ("growth_queue_driver_" + n).c_str(),
                    ("growth_queue_shards_" + n).c_str()}))
    return;
  const size_t total = b.settings().quick ? 100'000 : 1'000'000;
  ray_runtime* rt = start();
  {
    Tasks tasks(rt);
    tasks.cost(total, queue);  // so much memory has been touched before it counts
    std::vector<double> wall, driver, shards;
    for (int i = 0; i < b.settings().rounds(); ++i) {
      auto before = cpu_by_kind();
      wall.push_back(tasks.cost(total, queue));
      auto after = cpu_by_kind();
      driver.push_back((after["driver"] - before["driver"]) / static_cast<double>(total));
      shards.push_back((after["shards"] - before["shards"]) / static_cast<double>(total));
    }
    b.add("growth_queue_" + n, "ns", wall);
    b.add("growth_queue_driver_" + n, "ns", driver);
    b.add("growth_queue_shards_" + n, "ns", shards);
  }
  stop(rt);
}

// Calls in turns to as many actors, each with a ring of its own, `batch` of them before they are got.
void growth_rings(Bench& b, const std::string& name, size_t rings, size_t batch) {
  if (!b.wants(name)) return;
  ray_runtime* rt = start(static_cast<double>(rings));
  ray_function* klass = nullptr;
  BENCH_CHECK(ray_function_get(rt, ray_cstr("Idle"), &klass, err));
  std::vector<ray_actor*> actors(rings);
  for (auto& a : actors) BENCH_CHECK(ray_actor_create(rt, klass, nullptr, 0, nullptr, &a, err));
  std::vector<ray_ref*> refs(batch);
  std::vector<ray_buffer> buffers(batch);
  auto round = [&] {
    for (size_t i = 0; i < batch; ++i)
      BENCH_CHECK(ray_actor_call(actors[i % rings], ray_cstr("noop"), nullptr, 0, nullptr, &refs[i], err));
    BENCH_CHECK(ray_get(rt, refs.data(), batch, -1, buffers.data(), err));
    for (size_t i = 0; i < batch; ++i) {
      ray_buffer_release(&buffers[i]);
      ray_ref_release(refs[i]);
    }
  };
  // Every page of every ring is touched once before it counts.
  const size_t calls = b.settings().quick ? 100'000 : 400'000, rounds = std::max<size_t>(1, calls / batch);
  for (size_t i = 0; i < rounds / 2; ++i) round();
  int64_t began = now_ns();
  for (size_t i = 0; i < rounds; ++i) round();
  b.add(name, "ns", {static_cast<double>(now_ns() - began) / static_cast<double>(rounds * batch)});
  for (auto& a : actors) ray_actor_release(a);
  ray_function_release(klass);
  stop(rt);
}

}  // namespace

void bench_costs(Bench& b) {
  bool cpu = b.wants("cpu_per_task");
  if (!cpu && !b.wants_any({"memory_per_queued_task", "queued_1M", "task_latency_sleeping_p50"})) return;
  ray_runtime* rt = start();
  {
    Tasks tasks(rt);
    tasks.cost(20000, 1000);
    if (cpu) {
      size_t n = b.settings().quick ? 100'000 : 1'000'000;
      auto before = cpu_by_kind();
      tasks.cost(n, 1000);
      for (auto& [kind, ns] : cpu_by_kind())
        b.add("cpu_per_task_" + kind, "us", {(ns - before[kind]) / static_cast<double>(n) / 1e3});
    }
    if (b.wants("task_latency_sleeping_p50")) {
      std::vector<double> us;
      for (int i = 0; i < (b.settings().quick ? 30 : 300); ++i) {
        usleep(10000);
        int64_t began = now_ns();
        tasks.run(1);
        us.push_back(static_cast<double>(now_ns() - began) / 1e3);
      }
      b.add("task_latency_sleeping_p50", "us", us);
    }
    if (b.wants("memory_per_queued_task")) {
      size_t n = b.settings().quick ? 50'000 : 500'000;
      double before = rss_bytes(getpid());
      tasks.submit(n);
      b.add("memory_per_queued_task", "B", {(rss_bytes(getpid()) - before) / static_cast<double>(n)});
      tasks.finish();
    }
    // A million tasks submitted before the first is got.
    if (b.wants("queued_1M") && !b.settings().quick) {
      std::vector<double> s;
      for (int i = 0; i < 3; ++i) {
        int64_t began = now_ns();
        tasks.run(1'000'000);
        s.push_back(static_cast<double>(now_ns() - began) / 1e9);
      }
      b.add("queued_1M", "s", s);
    }
  }
  stop(rt);
}

// Cost of one task, in ns, while something grows: rows growth_<what>_<how many>.
void bench_growth(Bench& b) {
  if (!b.settings().growth) return;
  size_t most = b.settings().quick ? 1'000'000 : 10'000'000;
  for (size_t n = 1000; n <= most; n *= 10) {
    if (!b.wants("growth_tasks_" + std::to_string(n))) continue;
    ray_runtime* rt = start();
    {
      Tasks tasks(rt);
      b.add("growth_tasks_" + std::to_string(n), "ns", {tasks.cost(n, 1000)});
    }
    stop(rt);
  }
  for (size_t queue = 1000; queue <= most / 10; queue *= 10) growth_queue(b, queue);
  for (size_t live = 1; live <= 1'000'000; live *= 10) {
    if (!b.wants("growth_refs_" + std::to_string(live))) continue;
    ray_runtime* rt = start();
    {
      Tasks tasks(rt);
      int64_t small = 1;
      ray_value value = ray_plain(&small, sizeof small, RAY_FMT_RAW);
      std::vector<ray_ref*> kept(live);
      for (auto& ref : kept) BENCH_CHECK(ray_put(rt, &value, &ref, err));
      b.add("growth_refs_" + std::to_string(live), "ns", {tasks.cost(200'000, 1000)});
      for (auto& ref : kept) ray_ref_release(ref);
    }
    stop(rt);
  }
  for (size_t rings = 1; rings <= 64; rings *= 2) {
    std::string n = std::to_string(rings);
    growth_rings(b, "growth_rings_" + n, rings, 1024);
    growth_rings(b, "growth_rings_deep_" + n, rings, 512 * rings);
  }
}

}  // namespace bench
