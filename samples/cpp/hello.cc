// A first program: a function that runs in another process, and its result.
#include <ray.hpp>

#include <iostream>

int64_t square(int64_t x) { return x * x; }
RAY_REMOTE(square);

int main() {
  ray::session session;  // starts a node; in a worker, this line runs tasks and exits

  ray::ref<int64_t> a = ray::task(square)(3);  // returns at once
  ray::ref<int64_t> b = ray::task(square)(a);  // a reference as an argument stands for its value
  std::cout << a.get() << " " << b.get() << "\n";
}
