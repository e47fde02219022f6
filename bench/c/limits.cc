// bench_limits: what this machine can do without any runtime, as the yardstick of the C rows.
//   bench_limits [--json FILE] [--quick] [--growth]
// limit_openmp_batch_1000: OpenMP tasks within one process (threads; no isolation, results in place).
// limit_openmp_cpu_per_task: processor time of all threads for one of them, those that look for more included.
// limit_ring_batch_1000, limit_ring_latency_p50: two processes and a bare ring each way, 64-byte records (bare_pair.h).
// limit_wake_round_trip_p50: two processes that sleep, each on a futex; one is woken and wakes the other in return.
// growth_rings_bare_N (--growth, and then nothing else): a batch in turns over N processes.
// What was built without OpenMP has no rows of it: the same loops without tasks would be no yardstick.
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <string>
#include <vector>

#include "bare_chain.h"
#include "bare_pair.h"
#include "libray/base/clock.h"
#include "libray/base/doorbell.h"

namespace {

void* shared(size_t size) {
  void* memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) perror("mmap"), _Exit(1);
  return memory;
}

void end(pid_t child) {
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
}

double median(std::vector<double> v) {
  std::sort(v.begin(), v.end());
  return v[v.size() / 2];
}

struct Row {
  std::string name;
  const char* unit;
  double value;
};

void measure_rings(std::vector<Row>* rows, int rounds) {
  auto* r = static_cast<bare::Rings*>(shared(sizeof(bare::Rings)));
  pid_t child = fork();
  if (child == 0)
    bare::answer(r, [](const uint8_t* in, void* out) {
      std::memcpy(out, in, 8);
      return true;
    });
  bare::Driver driver(r, child);
  auto batch = [&](int n) {
    if (!driver.batch(n)) fprintf(stderr, "the far end of the ring is gone\n"), _Exit(1);
  };
  std::vector<double> rates, latencies;
  for (int k = 0; k < rounds; ++k) {
    int64_t began = ray::steady_ns();
    for (int i = 0; i < 500; ++i) batch(1000);
    rates.push_back(500 * 1000 * 1e9 / static_cast<double>(ray::steady_ns() - began));
  }
  for (int i = 0; i < 100000; ++i) {
    int64_t began = ray::steady_ns();
    batch(1);
    latencies.push_back(static_cast<double>(ray::steady_ns() - began) / 1e3);
  }
  end(child);
  munmap(r, sizeof(bare::Rings));
  rows->push_back({"limit_ring_batch_1000", "tasks/s", median(rates)});
  rows->push_back({"limit_ring_latency_p50", "us", median(latencies)});
}

// Both have slept for a while when it begins, as in task_latency_sleeping_p50.
void measure_wake(std::vector<Row>* rows, int samples) {
  auto* bells = new (shared(256)) std::atomic<uint32_t>[64];
  std::atomic<uint32_t>&there = bells[0], &back = bells[32];  // a cache line each
  // The word is 0 from a ring until its owner goes to sleep again; a sleep also ends for no reason.
  auto sleep_until_rung = [](std::atomic<uint32_t>& bell, uint32_t how) {
    while (bell.load(std::memory_order_acquire) != ray::kAwake) ray::sleep_armed(&bell, how, -1);
  };
  pid_t child = fork();
  while (child == 0) {
    sleep_until_rung(there, ray::arm(&there));
    ray::ring(&back);
  }
  std::vector<double> us;
  for (int i = 0; i < samples; ++i) {
    usleep(10000);
    while (there.load(std::memory_order_acquire) == ray::kAwake) usleep(100);
    int64_t began = ray::steady_ns();
    const uint32_t how = ray::arm(&back);
    ray::ring(&there);
    sleep_until_rung(back, how);
    us.push_back(static_cast<double>(ray::steady_ns() - began) / 1e3);
  }
  end(child);
  munmap(bells, 256);
  rows->push_back({"limit_wake_round_trip_p50", "us", median(us)});
}

#ifdef _OPENMP
double process_ns() {
  rusage used;
  getrusage(RUSAGE_SELF, &used);
  auto ns = [](const timeval& t) { return static_cast<double>(t.tv_sec) * 1e9 + static_cast<double>(t.tv_usec) * 1e3; };
  return ns(used.ru_utime) + ns(used.ru_stime);
}

void measure_openmp(std::vector<Row>* rows, int rounds) {
  constexpr int kBatches = 200, kTasks = 1000;
  std::vector<double> rates, cpu;
  std::vector<int> results(kTasks);
  for (int k = 0; k < rounds; ++k) {
    const int64_t began = ray::steady_ns();
    const double spent = process_ns();
    for (int j = 0; j < kBatches; ++j) {
#pragma omp parallel
#pragma omp single
      for (int i = 0; i < kTasks; ++i) {
#pragma omp task firstprivate(i) shared(results)
        results[static_cast<size_t>(i)] = i;
      }
    }
    rates.push_back(kBatches * kTasks * 1e9 / static_cast<double>(ray::steady_ns() - began));
    cpu.push_back((process_ns() - spent) / kBatches / kTasks / 1e3);
  }
  rows->push_back({"limit_openmp_batch_1000", "tasks/s", median(rates)});
  rows->push_back({"limit_openmp_cpu_per_task", "us", median(cpu)});
}
#endif

}  // namespace

int main(int argc, char** argv) {
  std::string json;
  int rounds = 5;
  bool growth = false;
  for (int i = 1; i < argc; ++i) {
    std::string a = argv[i];
    if (a == "--quick") rounds = 2;
    else if (a == "--growth") growth = true;
    else if (a == "--json" && i + 1 < argc) json = argv[++i];
    else return fprintf(stderr, "usage: bench_limits [--json FILE] [--quick] [--growth]\n"), 2;
  }
  std::vector<Row> rows;
  for (size_t n = 1; growth && n <= 64; n *= 2)
    rows.push_back({"growth_rings_bare_" + std::to_string(n), "ns", bare_chain_ns(n, 1024, 100ul * static_cast<size_t>(rounds))});
  if (!growth) {
    measure_rings(&rows, rounds);  // before OpenMP makes threads: it forks
    measure_wake(&rows, 30 * rounds);
#ifdef _OPENMP
    measure_openmp(&rows, rounds);
#endif
  }
  for (const Row& r : rows) fprintf(stderr, "  %-34s %14.6g %s\n", r.name.c_str(), r.value, r.unit);
  FILE* out = json.empty() ? nullptr : fopen(json.c_str(), "w");
  if (!out) return json.empty() ? 0 : 1;
  for (size_t i = 0; i < rows.size(); ++i)
    fprintf(out, "%s{\"name\": \"%s\", \"language\": \"c\", \"value\": %.9g, \"unit\": \"%s\", \"deviation\": 0}",
            i ? ",\n " : "[", rows[i].name.c_str(), rows[i].value, rows[i].unit);
  fprintf(out, "]\n");
  fclose(out);
  return 0;
}
