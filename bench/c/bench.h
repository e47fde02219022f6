// What the C and C++ measurements share: rows, rounds, a clock, and a program with functions to call.
#pragma once
#include <ray.h>
#include <time.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace bench {

struct Row {
  std::string name, unit;
  double value = 0, deviation = 0;  // median of the rounds, their standard deviation
};

struct Settings {
  std::string filter;
  bool quick = false, growth = false;
  int sustained = 0;  // seconds
  int rounds() const { return quick ? 2 : 5; }
  int64_t round_ns() const { return quick ? 200'000'000 : 1'000'000'000; }
};

inline int64_t now_ns() {
  timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return ts.tv_sec * 1'000'000'000ll + ts.tv_nsec;
}

// Ends the program with the error's message when the call failed.
void check(ray_code code, ray_error* error, const char* what);
#define BENCH_CHECK(call)                           \
  do {                                              \
    ray_error* bench_error = nullptr;               \
    [[maybe_unused]] ray_error** err = &bench_error; \
    ray_code bench_code = (call);                   \
    ::bench::check(bench_code, bench_error, #call); \
  } while (0)

class Bench {
 public:
  explicit Bench(const Settings& s) : settings_(s) {}
  const Settings& settings() const { return settings_; }
  bool wants(const std::string& name) const {
    return name.find(settings_.filter) != std::string::npos;
  }
  bool wants_any(std::initializer_list<const char*> names) const;
  // Median of one value per round; the first call of `round` is a warm-up and does not count.
  void measure(const std::string& name, const std::string& unit,
               const std::function<double()>& round);
  void add(const std::string& name, const std::string& unit, std::vector<double> values);
  // Calls `step` (which does `per_step` operations) until the round's time is over; operations/s.
  double rate(double per_step, const std::function<void()>& step) const;
  const std::vector<Row>& rows() const { return rows_; }

 private:
  Settings settings_;
  std::vector<Row> rows_;
};

// Reads the arguments, measures, writes the rows; the value of main.
int run(int argc, char** argv, const char* language, void (*measure)(Bench&));

// One per group of rows; each starts and ends a runtime of its own.
void bench_tasks(Bench& b);
void bench_actors(Bench& b);
void bench_objects(Bench& b);
void bench_large_objects(Bench& b);
void bench_start(Bench& b);
void bench_costs(Bench& b);
void bench_growth(Bench& b);     // only with --growth
void bench_sustained(Bench& b);  // only with --sustained

}  // namespace bench
