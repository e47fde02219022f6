// What a task costs beside time: processor time of every process, memory while it is queued, latency
// with sleeping peers; and how all of it grows with tasks, rings and live references (--growth).
#include <dirent.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>

#include "bench.h"

namespace bench {
namespace {

// Processor time in ns of this process and all below it, by what they are.
std::map<std::string, double> cpu_by_kind() {
  std::map<int, int> parents;
  DIR* proc = opendir("/proc");
  while (dirent* e = proc ? readdir(proc) : nullptr) {
    int pid = atoi(e->d_name), parent = 0;
    FILE* f = pid > 0 ? fopen(("/proc/" + std::to_string(pid) + "/stat").c_str(), "r") : nullptr;
    if (!f) continue;
    if (fscanf(f, "%*d (%*[^)]) %*c %d", &parent) == 1) parents[pid] = parent;
    fclose(f);
  }
  if (proc) closedir(proc);
  std::map<std::string, double> total;
  for (auto [pid, parent] : parents) {
    int depth = 0;
    for (int p = pid; p != getpid() && depth < 4; ++depth) p = parents.count(p) ? parents[p] : 0;
    int top = pid;
    for (int i = 0; i < depth; ++i) top = parents.count(top) ? parents[top] : 0;
    if (top != getpid()) continue;
    std::string base = "/proc/" + std::to_string(pid), kind = "driver";
    if (pid != getpid()) {
      char line[512] = "";
      FILE* f = fopen((base + "/cmdline").c_str(), "r");
      size_t n = f ? fread(line, 1, sizeof line - 2, f) : 0;
      if (f) fclose(f);
      const char* second = n ? line + strlen(line) + 1 : "";
      kind = strcmp(second, "node") == 0 ? "daemon" : strcmp(second, "gcs") == 0 ? "shards" : "worker";
    }
    DIR* tasks = opendir((base + "/task").c_str());
    while (dirent* e = tasks ? readdir(tasks) : nullptr) {
      FILE* f = fopen((base + "/task/" + e->d_name + "/schedstat").c_str(), "r");
      double ns = 0;
      if (f && fscanf(f, "%lf", &ns) == 1) total[kind] += ns;
      if (f) fclose(f);
    }
    if (tasks) closedir(tasks);
  }
  return total;
}

double rss_bytes() {
  long pages = 0;
  FILE* f = fopen("/proc/self/statm", "r");
  if (f && fscanf(f, "%*d %ld", &pages) != 1) pages = 0;
  if (f) fclose(f);
  return static_cast<double>(pages) * static_cast<double>(sysconf(_SC_PAGESIZE));
}

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
      double before = rss_bytes();
      tasks.submit(n);
      b.add("memory_per_queued_task", "B", {(rss_bytes() - before) / static_cast<double>(n)});
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
