// A map over many values: submit all, then get all. Structs travel as MessagePack.
#include <ray.hpp>

#include <cmath>
#include <iostream>

struct Interval {
  double from, to;
  MSGPACK_DEFINE(from, to)
};

// The area under a quarter of the unit circle, between two points.
double area(const Interval& part, int steps) {
  double sum = 0, width = (part.to - part.from) / steps;
  for (int i = 0; i < steps; ++i) {
    double x = part.from + (i + 0.5) * width;
    sum += std::sqrt(1 - x * x) * width;
  }
  return sum;
}
RAY_REMOTE(area);

int main() {
  ray::session session;

  auto remote_area = ray::task(area, {.name = "quarter", .max_retries = 2});
  std::vector<ray::ref<double>> parts;
  for (int i = 0; i < 100; ++i) parts.push_back(remote_area(Interval{i / 100.0, (i + 1) / 100.0}, 10000));

  double first_done = ray::wait(parts, {.count = 10}).ready.size();  // whatever is ready first
  double pi = 0;
  for (double part : ray::get(parts)) pi += 4 * part;
  std::cout << first_done << " were ready first; pi is " << std::round(pi * 1e4) / 1e4 << "\n";
}
