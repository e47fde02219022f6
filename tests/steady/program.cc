// program.cc -- C++'s part of test_steady.py, which writes how many tasks to run, line by line, and measures.
#include <ray.hpp>

#include <iostream>
#include <stdexcept>
#include <vector>

static int64_t add_one(int64_t x) { return x + 1; }

class Counter {
 public:
  int64_t next() { return ++n_; }

 private:
  int64_t n_ = 0;
};
RAY_REMOTE(add_one);
RAY_ACTOR(Counter, &Counter::next);

static void expect_from(const std::vector<int64_t>& found, int64_t first) {
  for (int64_t x : found)
    if (x != first++) throw std::runtime_error("a wrong value: " + std::to_string(x));
}

int main() {
  ray::init_options options;
  options.num_cpus = 2;
  ray::session session(options);
  auto counter = ray::actor<Counter>();
  int64_t called = 0, n;
  std::cout << "ready" << std::endl;
  while (std::cin >> n) {
    for (int64_t from = 0; from < n; from += 1000) {
      std::vector<ray::ref<int64_t>> tasks, calls;
      for (int64_t x = from; x < from + 990; ++x) tasks.push_back(ray::task(add_one)(x));
      for (int i = 0; i < 10; ++i) calls.push_back(counter.call(&Counter::next));
      expect_from(ray::get(tasks), from + 1);
      expect_from(ray::get(calls), called + 1);
      called += 10;
    }
    std::cout << "done " << n << std::endl;
  }
}
