// Tasks: calls, options, errors that name where they come from, waiting, cancelling.
#include <atomic>
#include <condition_variable>
#include <csignal>
#include <fstream>
#include <thread>

#include "fixture.h"

namespace shapes {
double area(double width, double height) { return width * height; }
int over(int x) { return x; }
double over(double x) { return x / 2; }
}  // namespace shapes
int64_t square(int64_t x) noexcept { return x * x; }
int64_t fibonacci(int n) {
  if (n < 2) return n;
  auto a = ray::task(fibonacci)(n - 1), b = ray::task(fibonacci)(n - 2);
  return a.get() + b.get();
}
void nothing() {}
struct Odd {};
void throws(int how) {
  switch (how) {
    case 0: throw std::out_of_range("too far");
    case 1: throw 42;
    case 2: throw std::string("a text");
    case 3: throw "a literal";
    case 4: throw Odd();
    case 5: try { throw std::runtime_error("inner");
      } catch (...) {
        std::throw_with_nested(std::logic_error("outer"));
      }
    default: ray::task(throws)(0).get();
  }
}
int64_t descend(volatile char* page) {
  volatile char next[4096];
  next[0] = page[0];
  if (next[0] != 0) return 0;  // never
  next[7] = static_cast<char>(page[7] + 1);
  return 1 + descend(next) + next[7];
}
void dies(int how) {
  if (how == 0) std::raise(SIGKILL);
  if (how == 1) std::abort();
  if (how == 2) std::exit(3);
  if (how == 3) {
    volatile char first[4096] = {0};
    (void)descend(first);
  }
  volatile int* nowhere = nullptr;
  *nowhere = 1;
}
int attempts(int good_from, const std::string& file) {
  std::ofstream(file, std::ios::app) << "x";
  if (ray::this_task::attempt() < static_cast<uint32_t>(good_from))
    throw std::runtime_error("not yet");
  return static_cast<int>(ray::this_task::attempt());
}
int gives_up() {
  ray::this_task::no_retry();
  throw std::runtime_error("final");
}
std::string named() { return ray::this_task::name(); }
std::string variable(const std::string& name) {
  const char* v = std::getenv(name.c_str());
  return v ? v : "";
}
void waits_for_cancel() {
  for (;;) {
    ray::this_task::check_cancelled();
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}
int blocks_in_get() { return ray::task(waits_for_cancel)().as<int>().get(); }
std::tuple<int, std::string> pair_of(int x) { return {x, std::to_string(x)}; }
// Gives the sum and the first argument as often as is asked for; or items.
void dynamic(ray::call& c) {
  int64_t sum = 0;
  for (size_t i = 1; i < c.size(); ++i) sum += c.arg<int64_t>(i);
  for (uint32_t i = 0; i < c.num_returns(); ++i)
    if (i == 1)
      c.give_error(i, "on purpose");
    else if (i != 2)
      c.give(i, c.arg<std::string>(0) + std::to_string(sum));
  for (int64_t i = 0; c.is_stream() && i < sum; ++i) c.yield(i);
}
int unregistered(int x) { return x; }

RAY_REMOTE(square, fibonacci, nothing, throws, dies, attempts, gives_up, named, variable,
           waits_for_cancel, blocks_in_get, pair_of, dynamic, shapes::area);
RAY_REMOTE_AS("over of int", static_cast<int (*)(int)>(shapes::over));
RAY_REMOTE_AS("over of double", static_cast<double (*)(double)>(shapes::over));

TEST(Tasks, CallsAndReferencesAsArguments) {
  EXPECT_EQ(ray::task(square)(ray::task(square)(3)).get(), 81);
  EXPECT_EQ(ray::task(shapes::area)(2, 1.5f).get(), 3.0);
  EXPECT_EQ(ray::task(static_cast<int (*)(int)>(shapes::over))(4).get(), 4);
  EXPECT_EQ(ray::task(static_cast<double (*)(double)>(shapes::over))(4).get(), 2);
  ray::task(nothing)().get();
  EXPECT_EQ(ray::task(fibonacci)(8).get(), 21);
}

TEST(Tasks, ManyAtOnce) {
  std::vector<ray::ref<int64_t>> refs;
  for (int64_t i = 0; i < 3000; ++i) refs.push_back(ray::task(square)(i));
  std::vector<int64_t> all = ray::get(refs);
  for (int64_t i = 0; i < 3000; ++i) ASSERT_EQ(all[static_cast<size_t>(i)], i * i);
  auto [a, b, c] =
      ray::get(ray::task(square)(1), ray::task(named)(), ray::task(shapes::area)(1.0, 2.0));
  EXPECT_EQ(a, 1);
  EXPECT_EQ(b, "named");
  EXPECT_EQ(c, 2.0);
}

TEST(Tasks, SplitGivesAReferenceToEachElement) {
  auto [number, text] = ray::task(pair_of).split(7);
  EXPECT_EQ(text.get(), "7");
  EXPECT_EQ(number.get(), 7);
  EXPECT_EQ(ray::task(pair_of)(8).get(), (std::tuple<int, std::string>(8, "8")));
}

TEST(Tasks, AnExceptionNamesItsTypeFunctionPlaceAndLanguage) {
  struct Expected {
    const char *type, *message;
  } const expected[] = {
      {"std::out_of_range", "too far"},
      {"int", "42"},
      {"std::__cxx11::basic_string<char, std::char_traits<char>, std::allocator<char> >", "a text"},
      {"char const*", "a literal"},
      {"Odd", "an exception that is no std::exception"}};
  for (int how = 0; how < 5; ++how) {
    try {
      ray::task(throws)(how).get();
      FAIL() << how;
    } catch (const ray::task_error& e) {
      EXPECT_EQ(e.type_name(), expected[how].type);
      EXPECT_EQ(e.remote_message(), expected[how].message);
      EXPECT_EQ(e.function(), "throws");
      EXPECT_EQ(e.language(), "native");
      EXPECT_TRUE(contains(e.place(), "tasks_test.cc:") && contains(e.place(), "pid "))
          << e.place();
      EXPECT_TRUE(contains(e.what(), "throws") && contains(e.what(), expected[how].message))
          << e.what();
      EXPECT_EQ(e.code(), RAY_TASK_FAILED);
    }
  }
  EXPECT_EQ(ray::task(square)(2).get(), 4);  // and nobody was hurt
}

TEST(Tasks, CausesAreTold) {
  EXPECT_TRUE(contains(thrown<ray::task_error>([] { ray::task(throws)(5).get(); }),
                       "outer; caused by std::runtime_error: inner"));
  const std::string text = thrown<ray::task_error>([] { ray::task(throws)(6).get(); });
  EXPECT_TRUE(contains(text, "ray::task_error") && contains(text, "too far")) << text;
}

TEST(Tasks, AProcessThatDiesIsAnErrorThatNamesTheTask) {
  for (int how = 0; how < 5; ++how) {  // 3: there is no stack left
    const std::string text =
        thrown<ray::worker_crashed>([&] { ray::task(dies, {.max_retries = 0})(how).get(); });
    EXPECT_TRUE(contains(text, "dies")) << text;
  }
  EXPECT_EQ(ray::task(square)(2).get(), 4);
}

TEST(Tasks, AnArgumentThatFailedFailsTheCall) {
  ray::ref<int64_t> bad = ray::task(throws)(0).as<int64_t>();
  const std::string text = thrown<ray::task_error>([&] { ray::task(square)(bad).get(); });
  EXPECT_TRUE(contains(text, "square") && contains(text, "too far")) << text;
}

TEST(Tasks, RetriesOnErrorsAndNotAfterTheFinalOne) {
  const std::string file = testing::TempDir() + "attempts-" + std::to_string(getpid());
  EXPECT_EQ(ray::task(attempts, {.max_retries = 3, .retry_on_error = true})(3, file).get(), 3);
  thrown<ray::task_error>([&] { ray::task(attempts, {.max_retries = 3})(2, file).get(); });
  std::string marks;
  std::ifstream(file) >> marks;
  EXPECT_EQ(marks, "xxxx");  // three executions and one
  thrown<ray::task_error>(
      [] { ray::task(gives_up, {.max_retries = 100000, .retry_on_error = true})().get(); });
}

TEST(Tasks, OptionsReachTheTask) {
  EXPECT_EQ(ray::task(named, {.name = "a name"})().get(), "a name");
  EXPECT_EQ(ray::task(named).with({.name = "another"})().get(), "another");
  EXPECT_EQ(ray::task(variable, {.env = {.env_vars = {{"COLOUR", "green"}}}})("COLOUR").get(),
            "green");
  EXPECT_EQ(ray::task(square, {.resources = {{"CPU", 0.5}, {"slot", 1}}})(5).get(), 25);
  ray::ref<int64_t> never = ray::task(square, {.resources = {{"no such thing", 1}}})(5);
  EXPECT_FALSE(never.wait(std::chrono::milliseconds(20)));
  never.cancel();
  thrown<ray::cancelled>([&] { never.get(); });
}

TEST(Tasks, GroupsReserveResources) {
  ray::placement_group group =
      ray::make_group({{{"CPU", 1}}, {{"slot", 1}}}, {.strategy = ray::strategy::strict_pack});
  ASSERT_TRUE(group.wait());
  EXPECT_EQ(ray::task(square, {.place = group.at(0)})(6).get(), 36);
  group.remove();
  thrown<ray::error>([&] { ray::task(square, {.place = group.at(0)})(6).get(); });
}

TEST(Tasks, WaitTryGetAndTimeLimits) {
  ray::ref<void> slow = ray::task(waits_for_cancel)();
  EXPECT_FALSE(slow.try_get());
  EXPECT_FALSE(slow.ready());
  thrown<ray::timed_out>([&] { slow.get(std::chrono::milliseconds(10)); });
  EXPECT_EQ(slow.get_result(std::chrono::milliseconds(1)).error().code(), RAY_TIMED_OUT);
  ray::ref<void> quick = ray::task(nothing)();
  auto [ready, pending] = ray::wait(std::vector<ray::ref<void>>{slow, quick});
  ASSERT_EQ(ready.size(), 1u);
  EXPECT_EQ(ready[0].id(), quick.id());
  EXPECT_EQ(pending[0].id(), slow.id());
  EXPECT_TRUE(quick.try_get());
  slow.cancel();
  thrown<ray::cancelled>([&] { slow.get(); });
}

TEST(Tasks, CancellationEndsWaitsAndForceKills) {
  ray::ref<int> waits = ray::task(blocks_in_get)();
  EXPECT_FALSE(waits.wait(std::chrono::milliseconds(100)));
  waits.cancel({.recursive = true});
  thrown<ray::cancelled>([&] { waits.get(); });
  ray::ref<void> stubborn = ray::task(waits_for_cancel, {.max_retries = 0})();
  while (!stubborn.wait(std::chrono::milliseconds(50))) stubborn.cancel({.force = true});
  thrown<ray::error>([&] { stubborn.get(); });
}

TEST(Tasks, ResultsWithoutExceptions) {
  ray::result<int64_t> good = ray::task(square).call_result(4).value().get_result();
  ASSERT_TRUE(good);
  EXPECT_EQ(*good, 16);
  EXPECT_EQ(good.error().code(), RAY_OK);
  ray::result<void> bad = ray::task(throws)(0).get_result();
  ASSERT_FALSE(bad);
  EXPECT_EQ(bad.error().type_name(), "std::out_of_range");
  EXPECT_THROW(bad.value(), ray::task_error);
  EXPECT_EQ(ray::get_result(std::vector<ray::ref<int64_t>>{ray::put(int64_t{2})}).value()[0], 2);
  EXPECT_EQ(ray::task_result(unregistered).error().code(), RAY_INVALID_ARGUMENT);
  EXPECT_TRUE(
      contains(thrown<ray::invalid_argument>([] { ray::task(unregistered)(1); }), "RAY_REMOTE"));
}

TEST(Tasks, AnyArgumentsAndResults) {
  using Text = std::optional<std::string>;
  auto refs = ray::submit<Text>(
      dynamic, {"sum ", int64_t{1}, ray::put(int64_t{2}), ray::task(square)(2)}, 4);
  ASSERT_EQ(refs.size(), 4u);
  EXPECT_EQ(refs[0].get(), "sum 7");
  EXPECT_TRUE(contains(thrown<ray::task_error>([&] { refs[1].get(); }), "on purpose"));
  EXPECT_EQ(refs[2].get(), std::nullopt);  // was not given
  EXPECT_EQ(refs[3].get(), "sum 7");
  EXPECT_TRUE(ray::submit<void>(dynamic, {"nobody wants it"}, 0).empty());
  int64_t n = 0;
  for (int64_t i : ray::submit_stream<int64_t>(dynamic, {"", 5})) EXPECT_EQ(i, n++);
  EXPECT_EQ(n, 5);
  thrown<ray::task_error>([] { ray::submit<Text>(dynamic, {"x", "not a number"})[0].get(); });
  thrown<ray::invalid_argument>([] { ray::submit<Text>(dynamic, {ray::ref<int>()}); });
}

TEST(Tasks, ByNameAndForeignCode) {
  EXPECT_EQ(ray::function<int64_t(int64_t)>("square")(9).get(), 81);
  EXPECT_EQ(ray::function<double(double, double)>("shapes::area")(2, 3).get(), 6);
  thrown<ray::unknown_function>([] { ray::function<void()>("nobody")().get(); });
  EXPECT_TRUE(contains(
      thrown<ray::task_error>([] { ray::function<int64_t(int64_t, int)>("square")(9, 1).get(); }),
      "1 arguments are expected and 2"));
  EXPECT_NEAR(ray::symbol<double(double, double)>("pow", "libm.so.6")(2, 0.5).get(), 1.41421356,
              1e-8);
}

TEST(Tasks, ThenIsCalledOnceWithValueOrError) {
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<std::string> seen;
  auto note = [&](auto ref) {
    auto r = ref.get_result();
    std::lock_guard<std::mutex> lock(mutex);
    seen.push_back(r ? "value" : r.error().type_name());
    changed.notify_one();
  };
  ray::task(square)(3).then(note);
  ray::task(throws)(0).then(note);
  std::unique_lock<std::mutex> lock(mutex);
  changed.wait(lock, [&] { return seen.size() == 2; });
  std::sort(seen.begin(), seen.end());
  EXPECT_EQ(seen, (std::vector<std::string>{"std::out_of_range", "value"}));
}

TEST(Tasks, FromManyThreads) {
  std::vector<std::thread> threads;
  std::atomic<int64_t> sum{0};
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&] {
      for (int64_t i = 0; i < 200; ++i) sum += ray::task(square)(i).get();
    });
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(sum, 4 * 2646700);
}
