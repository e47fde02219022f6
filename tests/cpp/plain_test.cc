// ray.hpp in a program that is built without exceptions: everything comes back as a ray::result.
// Ends with the counts.
#include <ray.hpp>

#include <cstdio>

static int passed = 0, failed = 0;
#define EXPECT(what)                                                  \
  do {                                                                \
    if (what) {                                                       \
      ++passed;                                                       \
    } else {                                                          \
      ++failed;                                                       \
      std::fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #what); \
    }                                                                 \
  } while (0)

int64_t square(int64_t x) { return x * x; }
std::string shout(const std::string& s) { return s + "!"; }
double sum(std::span<const double> v) {
  double s = 0;
  for (double x : v) s += x;
  return s;
}
ray::generator<int> count(int n) {
  for (int i = 0; i < n; ++i) co_yield i;
}
class Counter {
 public:
  explicit Counter(int start) : n_(start) {}
  int add(int x) { return n_ += x; }

 private:
  int n_;
};
RAY_REMOTE(square, shout, sum, count);
RAY_ACTOR(Counter(int), &Counter::add);

static void run() {
  auto squared = ray::task_result(square);
  EXPECT(squared.has_value());
  auto r = squared->call_result(12);
  EXPECT(r.has_value() && r->get_result().value_or(0) == 144);
  EXPECT(ray::task_result(shout)->call_result("hey")->get_result().value_or("") == "hey!");
  std::vector<double> v(1000, 2.0);
  EXPECT(ray::task_result(sum)->call_result(v)->get_result().value_or(0) == 2000);
  auto put = ray::put_result(v);
  EXPECT(put.has_value() &&
         ray::task_result(sum)->call_result(*put)->get_result().value_or(0) == 2000);
  auto wrong = r->as<std::string>().get_result();
  EXPECT(!wrong && wrong.error().code() == RAY_INVALID_ARGUMENT);
  auto unknown = ray::function<int()>("nobody").call_result();
  EXPECT(unknown.has_value() && unknown->get_result().error().code() == RAY_UNKNOWN_FUNCTION);
  auto stream = ray::task_result(count)->call_result(5);
  int n = 0;
  for (;;) {
    auto item = stream->next_result();
    EXPECT(item.has_value());
    if (!item || !*item) break;
    n += **item;
  }
  EXPECT(n == 10);
  auto counter = ray::actor_result<Counter>({}, 5);
  EXPECT(counter.has_value());
  EXPECT(counter->call_result(&Counter::add, 2)->get_result().value_or(0) == 7);
  EXPECT(counter->kill_result().has_value());
  auto dead = counter->call_result(&Counter::add, 2);
  EXPECT(!dead || dead->get_result().error().code() == RAY_ACTOR_DIED);
}

int main() {
  auto started = ray::init_result({.num_cpus = 2, .store_bytes = 64 << 20});
  if (!started) {
    std::fprintf(stderr, "%s\n", started.error().message().c_str());
    return 1;
  }
  run();
  EXPECT(ray::shutdown_result().has_value());
  EXPECT(!ray::shutdown_result().error());
  std::printf("%d passed, %d failed, 0 skipped\n", passed, failed);
  return failed != 0;
}
