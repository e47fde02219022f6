// bench_limits: what this machine can do without any runtime, as the yardstick of the C rows.
//   bench_limits [--json FILE] [--quick] [--growth]
// limit_openmp_batch_1000: OpenMP tasks within one process (threads; no isolation, results in place).
// limit_ring_batch_1000, limit_ring_latency_p50: two processes and a bare ring each way, 64-byte records,
// nothing else: no ids, no counts, no journal. growth_rings_bare_N (--growth, and then nothing else): a batch
// in turns over N processes.
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "bare_chain.h"
#include "libray/base/clock.h"
#include "libray/base/ring.h"

namespace {

constexpr uint64_t kRingBytes = 1 << 20;
struct Rings {
  ray::RingWords there, back;
  alignas(64) uint8_t there_data[kRingBytes], back_data[kRingBytes];
};

void answer(Rings* r) {
  ray::RingConsumer in(&r->there, r->there_data, kRingBytes);
  ray::RingProducer out(&r->back, r->back_data, kRingBytes);
  ray::RecordView v;
  for (;;) {
    if (in.next(&v) != ray::RingConsumer::Next::kRecord) {
      ray::cpu_relax();
      continue;
    }
    void* at;
    while (!(at = out.reserve(1, 56))) ray::cpu_relax();
    std::memcpy(at, v.data, 8);
    in.release();
    out.publish();
  }
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
  auto* r = static_cast<Rings*>(
      mmap(nullptr, sizeof(Rings), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  pid_t child = fork();
  if (child == 0) answer(r);
  ray::RingProducer out(&r->there, r->there_data, kRingBytes);
  ray::RingConsumer in(&r->back, r->back_data, kRingBytes);
  ray::RecordView v;
  auto batch = [&](int n) {
    for (int i = 0; i < n; ++i) {
      void* at;
      while (!(at = out.reserve(1, 56))) ray::cpu_relax();
      std::memcpy(at, &i, sizeof i);
      out.publish();
    }
    for (int i = 0; i < n;) {
      if (in.next(&v) == ray::RingConsumer::Next::kRecord) {
        in.release();
        ++i;
      } else {
        ray::cpu_relax();
      }
    }
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
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  munmap(r, sizeof(Rings));
  rows->push_back({"limit_ring_batch_1000", "tasks/s", median(rates)});
  rows->push_back({"limit_ring_latency_p50", "us", median(latencies)});
}

double openmp_rate(int rounds) {
  std::vector<double> rates;
  std::vector<int> results(1000);
  for (int k = 0; k < rounds; ++k) {
    int64_t began = ray::steady_ns();
    for (int j = 0; j < 200; ++j) {
#pragma omp parallel
#pragma omp single
      for (int i = 0; i < 1000; ++i) {
#pragma omp task firstprivate(i) shared(results)
        results[static_cast<size_t>(i)] = i;
      }
    }
    rates.push_back(200 * 1000 * 1e9 / static_cast<double>(ray::steady_ns() - began));
  }
  return median(rates);
}

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
    rows.push_back({"limit_openmp_batch_1000", "tasks/s", openmp_rate(rounds)});
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
