// ray.hpp as C++17: without coroutines and spans. Ends with the counts.
#include <ray.hpp>

#include <cstdio>

static_assert(__cplusplus < 202002L, "this is to be built as C++17");

struct Point {
  int x, y;
  MSGPACK_DEFINE(x, y)
};
Point mirror(const Point& p) { return {p.y, p.x}; }
double sum(const ray::array<double>& v) {
  double s = 0;
  for (double x : v) s += x;
  return s;
}
void count(ray::sink<int> out, int n) {
  for (int i = 0; i < n && out.yield(i); ++i) continue;
}
class Counter {
 public:
  explicit Counter(int start) : n_(start) {}
  int add(int x) noexcept { return n_ += x; }

 private:
  int n_;
};
RAY_REMOTE(mirror, sum, count);
RAY_ACTOR(Counter(int), &Counter::add);

int main() {
  ray::init_options options;
  options.num_cpus = 2;
  ray::session session(options);
  int failed = 0;
  auto expect = [&](bool good, const char* what) {
    if (!good) std::fprintf(stderr, "failed: %s\n", what), ++failed;
  };
  expect(ray::task(mirror)(Point{1, 2}).get().x == 2, "a struct");
  expect(ray::task(sum)(std::vector<double>(1000, 0.5)).get() == 500, "an array");
  int n = 0;
  for (int x : ray::task(count)(10)) n += x;
  expect(n == 45, "a stream");
  auto counter = ray::actor<Counter>(1);
  expect(counter.call(&Counter::add, 2).get() == 3, "an actor");
  ray::task_options twice;
  twice.max_retries = 1;
  try {
    ray::function<void()>("nobody").with(twice)().get();
    expect(false, "an exception");
  } catch (const ray::unknown_function&) {
  }
  std::printf("%d passed, %d failed, 0 skipped\n", 5 - failed, failed);
  return failed != 0;
}
