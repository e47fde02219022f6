// A driver that never pauses: no-op tasks in batches of 1000 for minutes, and what has come of memory and disk at the end
// (--sustained SECONDS, and then nothing else). The other rows are over before the tables' backlog or their limits are felt.
// ./dev bench runs it with the limits of the tables that programs have, unlike the rest.
#include <algorithm>
#include <cstdio>
#include <numeric>

#include "bench.h"
#include "system.h"

namespace bench {
namespace {

constexpr size_t kBatch = 1000;

// Tasks per second of a run, each counted in the second in which its batch ended.
class Seconds {
 public:
  explicit Seconds(size_t n) : tasks_(n) {}
  void count(int64_t since_began_ns, size_t tasks) {
    // The batch that ends when time is up belongs to the last second.
    const size_t second = static_cast<size_t>(since_began_ns / 1'000'000'000);
    tasks_[std::min(second, tasks_.size() - 1)] += static_cast<double>(tasks);
  }
  double rate(size_t from, size_t n) const {
    const auto begin = tasks_.begin() + static_cast<std::ptrdiff_t>(from);
    return std::accumulate(begin, begin + static_cast<std::ptrdiff_t>(n), 0.0) / static_cast<double>(n);
  }
  double least(size_t n) const {
    double found = rate(0, n);
    for (size_t from = 1; from + n <= tasks_.size(); ++from) found = std::min(found, rate(from, n));
    return found;
  }

 private:
  std::vector<double> tasks_;
};

void run_batch(ray_runtime* rt, ray_function* fn) {
  static ray_ref* refs[kBatch];
  static ray_buffer buffers[kBatch];
  for (auto& ref : refs) BENCH_CHECK(ray_submit(rt, fn, nullptr, 0, nullptr, &ref, err));
  BENCH_CHECK(ray_get(rt, refs, kBatch, -1, buffers, err));
  for (size_t i = 0; i < kBatch; ++i) {
    ray_buffer_release(&buffers[i]);
    ray_ref_release(refs[i]);
  }
}

}  // namespace

// Of 300 seconds: the first 40, the last 60, the slowest 10; of fewer the same shares.
void bench_sustained(Bench& b) {
  const size_t n = static_cast<size_t>(b.settings().sustained);
  const size_t first = std::max<size_t>(1, n * 2 / 15), last = std::max<size_t>(1, n / 5), slow = std::max<size_t>(1, n / 30);
  const std::string name = "sustained_" + std::to_string(n) + "s";
  ray_runtime* rt = nullptr;
  ray_function* fn = nullptr;
  BENCH_CHECK(ray_init(nullptr, &rt, err));
  BENCH_CHECK(ray_function_get(rt, ray_cstr("noop"), &fn, err));
  ray_str dir = ray_runtime_session_dir(rt);
  const std::string session(dir.data, dir.size);
  for (int i = 0; i < 20; ++i) run_batch(rt, fn);
  double submitted = 20 * kBatch;
  Seconds seconds(n);
  const int64_t began = now_ns(), length = static_cast<int64_t>(n) * 1'000'000'000;
  for (int64_t passed = 0; passed < length; submitted += kBatch) {
    run_batch(rt, fn);
    passed = now_ns() - began;
    seconds.count(passed, kBatch);
  }
  auto memory = rss_by_kind();
  const double disk = disk_mb(session), behind = submitted - tasks_in_tables(session);
  b.add(name, "tasks/s", {seconds.rate(0, n)});
  b.add(name + "_first_" + std::to_string(first) + "s", "tasks/s", {seconds.rate(0, first)});
  b.add(name + "_last_" + std::to_string(last) + "s", "tasks/s", {seconds.rate(n - last, last)});
  b.add(name + "_least_" + std::to_string(slow) + "s", "tasks/s", {seconds.least(slow)});
  b.add(name + "_disk", "MB", {disk});
  for (const auto& [kind, mb] : memory) b.add(name + "_rss_" + kind, "MB", {mb});
  // Not yet in the shards' tables: what is left to do for shards and disk when the driver ends.
  b.add(name + "_behind", "tasks", {behind});
  ray_function_release(fn);
  BENCH_CHECK(ray_shutdown(rt, -1, err));
  ray_runtime_release(rt);
}

}  // namespace bench
