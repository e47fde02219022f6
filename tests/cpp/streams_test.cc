// Streams from both ends: generators, sinks, windows, ends, errors, cancellation.
#include <atomic>
#include <fstream>
#include <thread>

#include "fixture.h"

ray::generator<int> count(int n) {
  for (int i = 0; i < n; ++i) co_yield i;
}
void texts(ray::sink<std::string> out, const std::string& word, int n) {
  for (int i = 0; i < n; ++i)
    if (!out.yield(word + std::to_string(i))) return;
}
ray::generator<int> breaks(int n) {
  for (int i = 0; i < n; ++i) co_yield i;
  throw std::length_error("broken");
}
ray::generator<std::vector<float>> arrays(int n) {
  for (int i = 0; i < n; ++i) co_yield std::vector<float>(50000, static_cast<float>(i));
}
// Writes how many items were made.
ray::generator<int> endless(std::string file) {
  struct Made {
    std::string file;
    int n = 0;
    ~Made() { std::ofstream(file + ".end") << n << "\n"; }
  } made{file};
  for (;; ++made.n) co_yield made.n;
}
RAY_REMOTE(count, texts, breaks, arrays, endless);

static int made_by(const std::string& file) {
  int n = -1;
  for (int i = 0; n < 0 && i < 5000; ++i) {
    std::ifstream(file + ".end") >> n;
    usleep(1000);
  }
  return n;
}
static std::string fresh(const char* name) {
  return testing::TempDir() + name + std::to_string(getpid());
}

TEST(Streams, InOrderToTheEnd) {
  int expected = 0;
  ray::stream<int> s = ray::task(count)(1000);
  for (int x : s) ASSERT_EQ(x, expected++);
  EXPECT_EQ(expected, 1000);
  EXPECT_FALSE(s.next());
  s.completed().get();
  int n = 0;
  for (const std::string& t : ray::task(texts)("w", 100)) ASSERT_EQ(t, "w" + std::to_string(n++));
  for (int x : ray::task(count)(0)) ADD_FAILURE() << x;
}

TEST(Streams, AnErrorIsTheLastItem) {
  ray::stream<int> s = ray::task(breaks)(2);
  EXPECT_EQ(s.next(), 0);
  EXPECT_EQ(s.next(), 1);
  EXPECT_TRUE(contains(thrown<ray::task_error>([&] { s.next(); }), "std::length_error: broken"));
  EXPECT_FALSE(s.next());
  thrown<ray::task_error>([&] { s.completed().get(); });
  EXPECT_EQ(ray::task(breaks)(0).next_result().error().function(), "breaks");
}

TEST(Streams, LargeItems) {
  int i = 0;
  for (const std::vector<float>& a : ray::task(arrays)(20))
    ASSERT_EQ(a[49999], static_cast<float>(i++));
  EXPECT_EQ(i, 20);
  ray::stream<std::vector<float>> s = ray::task(arrays)(1);
  EXPECT_EQ(s.next_ref()->view()[7], 0.0f);
}

TEST(Streams, TheWindowHoldsTheGeneratorAndTheLastReleaseEndsIt) {
  const std::string file = fresh("endless");
  {
    ray::stream<int> s = ray::task(endless, {.stream_window = 4})(file);
    for (int i = 0; i < 10; ++i) EXPECT_EQ(s.next(), i);
    ray::stream<int> copy = s;
    s = {};
    EXPECT_EQ(copy.next(), 10);
  }
  const int made = made_by(file);
  EXPECT_GE(made, 10);
  EXPECT_LE(made, 16);  // no more than the window beyond what was taken
}

TEST(Streams, CancelEndsTheGenerator) {
  const std::string file = fresh("cancelled");
  ray::stream<int> s = ray::task(endless)(file);
  EXPECT_EQ(s.next(), 0);
  s.cancel();
  EXPECT_GE(made_by(file), 1);
}

TEST(Streams, TimeLimitsTakeNothing) {
  ray::stream<int> s = ray::task(count, {.resources = {{"no such thing", 1}}})(3);
  thrown<ray::timed_out>([&] { s.next(std::chrono::milliseconds(5)); });
  EXPECT_EQ(s.next_result(std::chrono::seconds(0)).error().code(), RAY_TIMED_OUT);
}

TEST(Streams, SeveralThreadsTakeEachItemOnce) {
  ray::stream<int> s = ray::task(count)(2000);
  std::atomic<int64_t> sum{0}, n{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t)
    threads.emplace_back([&, s] {
      while (std::optional<int> x = s.next()) sum += *x, ++n;
    });
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(n, 2000);
  EXPECT_EQ(sum, 1999000);
}
