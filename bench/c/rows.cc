// The groups of rows. What each row means stands beside it.
#include <dirent.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "bench.h"
#include "system.h"

namespace bench {
namespace {

constexpr int kBatch = 1000;

ray_runtime* start() {
  ray_runtime_options options = RAY_RUNTIME_OPTIONS_INIT;
  options.job_name = ray_cstr("bench");
  ray_runtime* rt = nullptr;
  BENCH_CHECK(ray_init(&options, &rt, err));
  return rt;
}

void stop(ray_runtime* rt) {
  BENCH_CHECK(ray_shutdown(rt, -1, err));
  ray_runtime_release(rt);
}

ray_function* function(ray_runtime* rt, const char* name) {
  ray_function* fn = nullptr;
  BENCH_CHECK(ray_function_get(rt, ray_cstr(name), &fn, err));
  return fn;
}

void get_and_release(ray_runtime* rt, ray_ref** refs, size_t n) {
  static ray_buffer buffers[kBatch];
  BENCH_CHECK(ray_get(rt, refs, n, -1, buffers, err));
  for (size_t i = 0; i < n; i++) {
    ray_buffer_release(&buffers[i]);
    ray_ref_release(refs[i]);
  }
}

// Percentiles of many samples of one operation, in microseconds, per round.
void latencies(Bench& b, const std::string& name, const std::function<void()>& once) {
  std::vector<double> p50, p99, p999;
  size_t n = b.settings().quick ? 2000 : 20000;
  for (int round = -1; round < b.settings().rounds(); round++) {
    std::vector<double> samples(n);
    for (double& s : samples) {
      int64_t began = now_ns();
      once();
      s = static_cast<double>(now_ns() - began) / 1e3;
    }
    if (round < 0) continue;  // warm-up
    std::sort(samples.begin(), samples.end());
    p50.push_back(samples[n / 2]);
    p99.push_back(samples[n * 99 / 100]);
    p999.push_back(samples[n * 999 / 1000]);
  }
  b.add(name + "_p50", "us", p50);
  b.add(name + "_p99", "us", p99);
  b.add(name + "_p99.9", "us", p999);
}

// Every submitted task must be in the files of the control store in the end.
void check_lineage(const std::string& session, double expected) {
  double found = 0;
  int64_t deadline = now_ns() + 300'000'000'000ll;
  while ((found = tasks_in_tables(session)) < expected && now_ns() < deadline) usleep(50000);
  if (found < expected) {
    fprintf(stderr, "lineage of %.0f tasks is missing: %.0f of %.0f are in %s\n", expected - found,
            found, expected, session.c_str());
    _Exit(1);
  }
  fprintf(stderr, "  (the lineage of %.0f tasks is in SQLite)\n", found);
}

}  // namespace

// ---- tasks
// ------------------------------------------------------------------------------------------

void bench_tasks(Bench& b) {
  if (!b.wants_any({"tasks_batch_1000", "submit_cost", "task_latency_p50", "task_latency_p99",
                    "task_latency_p99.9", "wait_1000"}))
    return;
  ray_runtime* rt = start();
  ray_str dir = ray_runtime_session_dir(rt);
  std::string session(dir.data, dir.size);
  ray_function* fn = function(rt, "noop");
  static ray_ref* refs[kBatch];
  double submitted = 0;
  auto submit = [&](ray_ref** out) {
    if (ray_submit(rt, fn, nullptr, 0, nullptr, out, nullptr) != RAY_OK) _Exit(1);
    submitted++;
  };
  // No-op tasks, a thousand submitted and then got, by one driver; lineage is journaled.
  b.measure("tasks_batch_1000", "tasks/s", [&] {
    return b.rate(kBatch, [&] {
      for (auto& ref : refs) submit(&ref);
      get_and_release(rt, refs, kBatch);
    });
  });
  // What ray_submit alone takes its caller.
  b.measure("submit_cost", "ns", [&] {
    int64_t spent = 0, n = b.settings().quick ? 50 : 300;
    for (int64_t i = 0; i < n; i++) {
      int64_t began = now_ns();
      for (auto& ref : refs) submit(&ref);
      spent += now_ns() - began;
      get_and_release(rt, refs, kBatch);
    }
    return static_cast<double>(spent) / static_cast<double>(n * kBatch);
  });
  // A thousand tasks, waited for one by one until none is left (quadratic on purpose).
  b.measure("wait_1000", "batches/s", [&] {
    return b.rate(1, [&] {
      for (auto& ref : refs) submit(&ref);
      std::vector<ray_ref*> left(refs, refs + kBatch);
      std::vector<uint8_t> ready(kBatch);
      while (!left.empty()) {
        size_t n = 0;
        BENCH_CHECK(ray_wait(rt, left.data(), left.size(), 1, -1, ready.data(), &n, err));
        size_t at = std::find(ready.begin(), ready.end(), 1) - ready.begin();
        ray_ref_release(left[at]);
        left.erase(left.begin() + static_cast<std::ptrdiff_t>(at));
      }
    });
  });
  if (b.wants_any({"task_latency_p50", "task_latency_p99", "task_latency_p99.9"}))
    latencies(b, "task_latency", [&] {  // submit and get of one task, peers spinning
      submit(&refs[0]);
      get_and_release(rt, refs, 1);
    });
  if (!getenv("LIBRAY_BENCH_NO_LINEAGE")) check_lineage(session, submitted);
  ray_function_release(fn);
  stop(rt);
}

void bench_actors(Bench& b) {
  if (!b.wants_any({"actor_calls_batch_1000", "actor_latency_p50", "actor_latency_p99"})) return;
  ray_runtime* rt = start();
  ray_function* klass = function(rt, "Idle");
  ray_actor* actor = nullptr;
  BENCH_CHECK(ray_actor_create(rt, klass, nullptr, 0, nullptr, &actor, err));
  static ray_ref* refs[kBatch];
  auto call = [&](ray_ref** out) {
    BENCH_CHECK(ray_actor_call(actor, ray_cstr("noop"), nullptr, 0, nullptr, out, err));
  };
  b.measure("actor_calls_batch_1000", "calls/s", [&] {
    return b.rate(kBatch, [&] {
      for (auto& ref : refs) call(&ref);
      get_and_release(rt, refs, kBatch);
    });
  });
  if (b.wants_any({"actor_latency_p50", "actor_latency_p99"}))
    latencies(b, "actor_latency", [&] {
      call(&refs[0]);
      get_and_release(rt, refs, 1);
    });
  ray_actor_release(actor);
  ray_function_release(klass);
  stop(rt);
}

// ---- objects
// ----------------------------------------------------------------------------------------

void bench_objects(Bench& b) {
  if (!b.wants_any({"put_get_small", "get_small"})) return;
  ray_runtime* rt = start();
  int64_t small = 1;
  ray_value value = ray_plain(&small, sizeof small, RAY_FMT_RAW);
  ray_buffer buffer;
  // Put eight bytes, get them, release both.
  b.measure("put_get_small", "/s", [&] {
    return b.rate(kBatch, [&] {
      for (int i = 0; i < kBatch; i++) {
        ray_ref* ref = nullptr;
        if (ray_put(rt, &value, &ref, nullptr) != RAY_OK) _Exit(1);
        if (ray_get(rt, &ref, 1, -1, &buffer, nullptr) != RAY_OK) _Exit(1);
        ray_buffer_release(&buffer);
        ray_ref_release(ref);
      }
    });
  });
  ray_ref* kept = nullptr;
  BENCH_CHECK(ray_put(rt, &value, &kept, err));
  // Get the same small object again and again.
  b.measure("get_small", "/s", [&] {
    return b.rate(kBatch, [&] {
      for (int i = 0; i < kBatch; i++) {
        if (ray_get(rt, &kept, 1, -1, &buffer, nullptr) != RAY_OK) _Exit(1);
        ray_buffer_release(&buffer);
      }
    });
  });
  ray_ref_release(kept);
  stop(rt);
}

// 800 MiB put and released, and the same bytes copied by memcpy into warm shared memory. The target lies
// as the source does within its page: otherwise memcpy takes four times as long.
void bench_large_objects(Bench& b) {
  if (!b.wants_any({"put_large", "memcpy_large"})) return;
  ray_runtime* rt = start();
  constexpr size_t kLarge = 800u << 20, kPage = 4096;
  std::unique_ptr<char[]> from(new char[kLarge]);
  memset(from.get(), 1, kLarge);
  int fd = memfd_create("target", MFD_CLOEXEC);
  BENCH_CHECK(fd >= 0 && ftruncate(fd, kLarge + kPage) == 0 ? RAY_OK : RAY_OUT_OF_MEMORY);
  void* shared = mmap(nullptr, kLarge + kPage, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  BENCH_CHECK(shared != MAP_FAILED ? RAY_OK : RAY_OUT_OF_MEMORY);
  char* to = static_cast<char*>(shared) + reinterpret_cast<uintptr_t>(from.get()) % kPage;
  memset(to, 2, kLarge);
  ray_value large = ray_plain(from.get(), kLarge, RAY_FMT_RAW);
  auto put = [&] {
    ray_ref* ref = nullptr;
    BENCH_CHECK(ray_put(rt, &large, &ref, err));
    ray_ref_release(ref);
  };
  for (int i = 0; i < 6; i++) put();  // the store sees that the memory comes back at once
  b.measure("put_large", "GB/s", [&] { return b.rate(kLarge / 1e9, put); });
  b.measure("memcpy_large", "GB/s", [&] {
    return b.rate(kLarge / 1e9, [&] {
      memcpy(to, from.get(), kLarge);
      __asm__ volatile("" ::"r"(to) : "memory");
    });
  });
  munmap(shared, kLarge + kPage);
  close(fd);
  stop(rt);
}

// ---- start and idling
// -------------------------------------------------------------------------------

namespace {

struct Process {
  int pid = 0;
  double rss_mb = 0, cpu_s = 0;
};

// The node daemons below this process: children (and theirs) called rayd.
std::vector<Process> daemons() {
  std::vector<Process> found;
  DIR* proc = opendir("/proc");
  while (dirent* e = proc ? readdir(proc) : nullptr) {
    char path[300], name[64] = "", line[256];
    int parent = 0;
    unsigned long user = 0, system = 0;
    snprintf(path, sizeof path, "/proc/%s/stat", e->d_name);
    FILE* f = atoi(e->d_name) > 0 ? fopen(path, "r") : nullptr;
    if (!f) continue;
    int n = fscanf(f, "%*d (%63[^)]) %*c %d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", name,
                   &parent, &user, &system);
    fclose(f);
    if (n != 4 || strncmp(name, "rayd", 4) != 0 || parent != getpid()) continue;
    Process p;
    p.pid = atoi(e->d_name);
    p.cpu_s = static_cast<double>(user + system) / static_cast<double>(sysconf(_SC_CLK_TCK));
    snprintf(path, sizeof path, "/proc/%d/status", p.pid);
    f = fopen(path, "r");
    while (f && fgets(line, sizeof line, f)) {
      long kb;
      if (sscanf(line, "VmRSS: %ld kB", &kb) == 1) p.rss_mb = static_cast<double>(kb) / 1024;
    }
    if (f) fclose(f);
    found.push_back(p);
  }
  if (proc) closedir(proc);
  return found;
}

// Memory that only this process has, in MB.
double private_mb(int pid) {
  char line[256];
  double kb = 0;
  FILE* f = fopen(("/proc/" + std::to_string(pid) + "/smaps_rollup").c_str(), "r");
  while (f && fgets(line, sizeof line, f)) {
    long n;
    if (sscanf(line, "Private_Clean: %ld kB", &n) == 1 || sscanf(line, "Private_Dirty: %ld kB", &n) == 1)
      kb += static_cast<double>(n);
  }
  if (f) fclose(f);
  return kb / 1024;
}

// Of the workers of these daemons: this very program below them.
std::vector<double> worker_private_mb(const std::vector<Process>& daemons) {
  std::vector<double> found;
  DIR* proc = opendir("/proc");
  while (dirent* e = proc ? readdir(proc) : nullptr) {
    char path[300], name[64] = "";
    int parent = 0;
    snprintf(path, sizeof path, "/proc/%s/stat", e->d_name);
    FILE* f = atoi(e->d_name) > 0 ? fopen(path, "r") : nullptr;
    if (!f) continue;
    int n = fscanf(f, "%*d (%63[^)]) %*c %d", name, &parent);
    fclose(f);
    bool ours = false;
    for (const Process& d : daemons) ours |= d.pid == parent;
    if (n == 2 && ours && strncmp(name, "rayd", 4) != 0) found.push_back(private_mb(atoi(e->d_name)));
  }
  if (proc) closedir(proc);
  return found;
}

}  // namespace

void bench_start(Bench& b) {
  // From ray_init to the result of a first task in hand; the cluster is started and ended each
  // time.
  if (b.wants("init_to_first_result")) {
    std::vector<double> took;
    for (int i = 0; i < (b.settings().quick ? 3 : 9); i++) {
      int64_t began = now_ns();
      ray_runtime* rt = start();
      ray_function* fn = function(rt, "noop");
      ray_ref* ref = nullptr;
      BENCH_CHECK(ray_submit(rt, fn, nullptr, 0, nullptr, &ref, err));
      get_and_release(rt, &ref, 1);
      took.push_back(static_cast<double>(now_ns() - began) / 1e9);
      ray_function_release(fn);
      stop(rt);
    }
    b.add("init_to_first_result", "s", took);
  }
  if (!b.wants_any({"idle_rayd_rss", "idle_rayd_cpu", "idle_worker_private"})) return;
  // A node with nothing to do: memory of the daemon, the share of a processor it takes, and what a worker
  // has to itself that has run a few tasks.
  ray_runtime* rt = start();
  ray_function* fn = function(rt, "noop");
  for (int i = 0; i < 100; i++) {
    ray_ref* ref = nullptr;
    BENCH_CHECK(ray_submit(rt, fn, nullptr, 0, nullptr, &ref, err));
    get_and_release(rt, &ref, 1);
  }
  ray_function_release(fn);
  sleep(1);  // workers start, buffers are touched: that is not idling
  std::vector<double> rss, cpu, worker = worker_private_mb(daemons());
  for (int i = 0; i < b.settings().rounds(); i++) {
    std::vector<Process> before = daemons();
    int64_t began = now_ns();
    usleep(b.settings().quick ? 500000 : 2000000);
    std::vector<Process> after = daemons();
    double seconds = static_cast<double>(now_ns() - began) / 1e9;
    if (before.empty() || after.empty()) continue;
    rss.push_back(after[0].rss_mb);
    cpu.push_back(100 * (after[0].cpu_s - before[0].cpu_s) / seconds);
  }
  b.add("idle_rayd_rss", "MB", rss);
  b.add("idle_rayd_cpu", "%", cpu);
  b.add("idle_worker_private", "MB", worker);
  stop(rt);
}

}  // namespace bench
