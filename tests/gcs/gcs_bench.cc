// Benchmark of a shard: lineage records per second (append to commit), materialised rows per second, kv
// puts per second and latency, memory and idle cost. gcs_bench [tasks]; prints one line per figure.
#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <vector>

#include <unistd.h>

#include "libray/base/clock.h"
#include "libray/base/ring.h"
#include "tests/gcs/shard_process.h"

namespace ray::gcs {
namespace {

using namespace test;

struct Done {
  std::mutex mutex;
  std::condition_variable cv;
  uint64_t left = 0;
  void add(uint64_t n) {
    std::lock_guard lock(mutex);
    left += n;
  }
  void one() {
    std::lock_guard lock(mutex);
    if (--left == 0) cv.notify_all();
  }
  void wait() {
    std::unique_lock lock(mutex);
    cv.wait(lock, [&] { return left == 0; });
  }
};

double seconds(int64_t from) { return static_cast<double>(steady_ns() - from) / 1e9; }

// Batches of lineage as a journal pump makes them: about 128 KiB, submissions and executions mixed.
std::vector<std::pair<std::string, uint32_t>> batches_of(uint32_t tasks) {
  std::vector<std::pair<std::string, uint32_t>> all;
  TaskId root = root_task(node_of(1));
  Origin origin = origin_of(root);
  std::string batch;
  uint32_t n = 0;
  for (uint32_t k = 0; k < tasks; ++k) {
    add_task(&batch, child_task(origin, k), root, 1'700'000'000'000'000'000 + k * 2000ll);
    n += 2;
    if (batch.size() >= (128 << 10) || k + 1 == tasks) {
      all.emplace_back(std::move(batch), n);
      batch.clear();
      n = 0;
    }
  }
  return all;
}

void bench_lineage(Client* c, ShardProcess* shard, uint32_t tasks) {
  auto batches = batches_of(tasks);
  uint64_t bytes = 0, records = 0;
  for (auto& b : batches) bytes += b.first.size(), records += b.second;
  Done done;
  done.add(batches.size());
  uint64_t cpu = shard->cpu_ticks();
  int64_t t0 = steady_ns();
  for (auto& [b, n] : batches) {
    while (c->lineage_backlog() > (16u << 20)) ::usleep(100);
    c->append_lineage(0, std::move(b), n, [&](Status, uint64_t) { done.one(); });
  }
  done.wait();
  double s = seconds(t0);
  double shard_cpu = static_cast<double>(shard->cpu_ticks() - cpu) / static_cast<double>(sysconf(_SC_CLK_TCK));
  std::printf("lineage: %.2f M records/s (%llu records of %.0f bytes, %.0f MB/s), shard used %.2f s of cpu in %.2f s\n",
              static_cast<double>(records) / s / 1e6, static_cast<unsigned long long>(records),
              static_cast<double>(bytes) / static_cast<double>(records), static_cast<double>(bytes) / s / 1e6, shard_cpu, s);
  std::printf("journal after it: %.1f MB, rss %llu KiB\n",
              static_cast<double>(stat(c, 0, "lineage_bytes")) / 1e6,
              static_cast<unsigned long long>(shard->rss_kib()));
  t0 = steady_ns();
  uint64_t before = stat(c, 0, "materialised_rows");
  std::string filter;
  wire::Writer(&filter).map(2).str("limit").uint64(1).str("fresh_ms").uint64(60000);
  query(c, 0, "tasks", filter);
  uint64_t rows = stat(c, 0, "materialised_rows"), ns = stat(c, 0, "materialise_ns");
  std::printf("materialised: %llu rows, %.0f K rows per second of its processor time (%llu left to do at the end: %.2f s)\n",
              static_cast<unsigned long long>(rows), static_cast<double>(rows) / (static_cast<double>(ns) / 1e9) / 1e3,
              static_cast<unsigned long long>(rows - before), seconds(t0));
  std::printf("rss %llu KiB, %d threads\n", static_cast<unsigned long long>(shard->rss_kib()), shard->threads());
}

void bench_kv(Client* c, uint32_t in_flight, uint32_t total) {
  std::vector<int64_t> latency(total);
  std::atomic<uint32_t> next{0};
  Done done;
  done.add(total);
  std::string value(64, 'v');
  int64_t t0 = steady_ns();
  std::function<void()> one = [&] {
    uint32_t k = next.fetch_add(1);
    if (k >= total) return;
    std::string args, key = "key" + std::to_string(k);
    wire::Writer(&args).array(4).str("bench").bin(key).bin(value).uint64(UINT64_MAX);
    int64_t began = steady_ns();
    c->call(0, kKvPut, std::move(args), [&, k, began](Status, std::string) {
      latency[k] = steady_ns() - began;
      one();
      done.one();
    });
  };
  for (uint32_t k = 0; k < in_flight; ++k) one();
  done.wait();
  double s = seconds(t0);
  std::sort(latency.begin(), latency.end());
  std::printf("kv put, %u in flight: %.1f K/s, p50 %.0f us, p99 %.0f us\n", in_flight, total / s / 1e3,
              static_cast<double>(latency[total / 2]) / 1e3, static_cast<double>(latency[total * 99 / 100]) / 1e3);
}

}  // namespace
}  // namespace ray::gcs

int main(int argc, char** argv) {
  using namespace ray::gcs;
  uint32_t tasks = argc > 1 ? static_cast<uint32_t>(std::atoi(argv[1])) : 1'000'000;
  TempDir dir;
  ShardProcess shard(dir.path());
  if (!shard.start()) return 1;
  auto c = connect({shard.url()}, node_of(1));
  kv_put(c.get(), 0, "bench", "first", "v");
  std::printf("idle shard: rss %llu KiB, %d threads\n", static_cast<unsigned long long>(shard.rss_kib()), shard.threads());
  bench_kv(c.get(), 1, 2000);
  bench_kv(c.get(), 16, 20000);
  bench_kv(c.get(), 64, 20000);
  bench_lineage(c.get(), &shard, tasks);
  uint64_t cpu = shard.cpu_ticks();
  ::usleep(1000000);
  std::printf("idle for 1 s: %llu ticks of cpu, rss %llu KiB\n",
              static_cast<unsigned long long>(shard.cpu_ticks() - cpu),
              static_cast<unsigned long long>(shard.rss_kib()));
  int64_t t0 = ray::steady_ns();
  int code = shard.stop();
  std::printf("ordered end: code %d, %.2f s\n", code, seconds(t0));
  return code;
}
