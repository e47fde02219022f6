// Large arrays lie in shared memory: written there once, read in place by any number of processes.
#include <ray.hpp>

#include <iostream>
#include <numeric>

// A span parameter is the array in shared memory itself.
double sum(std::span<const float> part) { return std::accumulate(part.begin(), part.end(), 0.0); }

// An array that is made in shared memory: it is never copied.
ray::array_builder<float> ramp(size_t n) {
  ray::array_builder<float> out(ray::as_result, n);
  std::iota(out.begin(), out.end(), 0.0f);
  return out;
}
RAY_REMOTE(sum, ramp);

int main() {
  ray::session session;

  std::vector<float> ones(1 << 20, 1.0f);
  ray::ref<std::vector<float>> put = ray::put(ones);  // one copy, into shared memory
  double total = 0;
  for (int i = 0; i < 4; ++i) total += ray::task(sum)(put).get();  // none here

  ray::array<float> made = ray::task(ramp)(1 << 20).get();  // a view; its memory stays as long as it does
  std::span<const float> view = made;
  std::cout << total << " " << made.size() << " " << view[1000] << "\n";
}
