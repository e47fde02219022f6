// Being told: co_await on references and streams, event loops, continuations on threads of the
// runtime.
#include <poll.h>

#include <condition_variable>
#include <fstream>
#include <thread>

#include "fixture.h"

int64_t square(int64_t x) { return x * x; }
int64_t fails(int64_t x) { throw std::runtime_error("not " + std::to_string(x)); }
ray::generator<int> count(int n) {
  for (int i = 0; i < n; ++i) co_yield i;
}
// The second item comes when the file is there; 100 if it never is.
ray::generator<int> two_when(std::string file) {
  co_yield 1;
  int i = 0;
  while (access(file.c_str(), F_OK) != 0 && ++i < 10000) usleep(1000);
  co_yield i < 10000 ? 10 : 100;
}
void waits_for_cancel() {
  while (!ray::this_task::is_cancelled()) usleep(1000);
}
RAY_REMOTE(square, fails, count, two_when, waits_for_cancel);

ray::async<int64_t> sum_of_squares(int64_t n) {
  std::vector<ray::ref<int64_t>> refs;
  for (int64_t i = 0; i < n; ++i) refs.push_back(ray::task(square)(i));
  int64_t sum = 0;
  for (auto& r : refs) sum += co_await r;
  co_return sum;
}
ray::async<int> sum_of_stream(int n) {
  int sum = 0;
  ray::stream<int> s = ray::task(count)(n);
  while (auto x = co_await s) sum += *x;
  co_return sum;
}
ray::async<std::string> catches() {
  try {
    co_await ray::task(fails)(7);
  } catch (const ray::task_error& e) {
    co_return e.remote_message();
  }
  co_return "nothing";
}
ray::async<void> throws_on() { co_await ray::task(fails)(1); }
ray::async<int64_t> nested() {
  auto a = sum_of_squares(10);
  auto b = sum_of_stream(100);
  a.start();
  b.start();
  co_return co_await a + co_await b;
}

TEST(Async, AwaitsReferencesAndStreams) {
  EXPECT_EQ(ray::run(sum_of_squares(300)), 8955050);
  EXPECT_EQ(ray::run(sum_of_stream(500)), 124750);
  EXPECT_EQ(ray::run(nested()), 285 + 4950);
  EXPECT_EQ(ray::run(catches()), "not 7");
  EXPECT_THROW(ray::run(throws_on()), ray::task_error);
}

TEST(Async, WhatIsPostedBehindSomethingThatThrowsStillRuns) {
  ray::event_loop loop;
  int done = 0;
  loop.post([&] { ++done; });
  loop.post([] { throw std::runtime_error("once"); });
  for (int i = 0; i < 3; ++i) loop.post([&] { ++done; });
  EXPECT_THROW(loop.poll(), std::runtime_error);
  EXPECT_EQ(done, 1);
  EXPECT_TRUE(loop.busy());
  loop.poll(std::chrono::seconds(30));
  EXPECT_EQ(done, 4);
}

// The one that the item does not go to waits on, and the loop with it does not stand still.
TEST(Async, TwoCoroutinesShareAStream) {
  const std::string file = testing::TempDir() + "shared_stream" + std::to_string(getpid());
  ray::stream<int> s = ray::task(two_when)(file);
  int sum = 0;
  auto one = [](ray::stream<int> from, int* to) -> ray::async<void> { *to += (co_await from).value_or(1000); };
  ray::event_loop loop;
  std::vector<ray::async<void>> both;
  loop.post([&] {
    for (int i = 0; i < 2; ++i) both.push_back(one(s, &sum)), both.back().start();
  });
  while (sum == 0) loop.poll(std::chrono::seconds(30));
  std::ofstream(file) << "go";
  loop.run();
  EXPECT_EQ(sum, 1 + 10);
  unlink(file.c_str());
}

// A coroutine that goes on on the runtime's threads ends while somebody begins to wait for it.
TEST(Async, WhoBeginsToWaitWhileItEndsIsResumed) {
  auto one = [](int64_t x) -> ray::async<int64_t> { co_return co_await ray::task(square)(x); };
  auto waits = [](ray::async<int64_t> a) -> ray::async<int64_t> { co_return co_await a; };
  for (int64_t i = 0; i < 500; ++i) {
    ray::async<int64_t> a = one(i);
    a.start();
    for (volatile int64_t spin = 0; spin < 100 * i;) spin = spin + 1;
    ray::async<int64_t> b = waits(std::move(a));
    b.start();
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    while (!b.done() && std::chrono::steady_clock::now() < end) std::this_thread::yield();
    ASSERT_TRUE(b.done());
    ASSERT_EQ(b.take(), i * i);
  }
}

TEST(Async, ManyPendingOperationsTakeNoThread) {
  ray::event_loop loop;
  int done = 0;
  loop.post([&] {
    for (int64_t i = 0; i < 2000; ++i)
      ray::task(square)(i).then([&, i](ray::ref<int64_t> r) {
        ASSERT_EQ(*r.try_get(), i * i);
        ++done;
      });
  });
  loop.run();  // returns when nothing is pending
  EXPECT_EQ(done, 2000);
}

TEST(Async, TheDescriptorDrivesAnotherLoop) {
  ray::event_loop loop;
  bool done = false;
  loop.post([&] { ray::task(square)(3).then([&](ray::ref<int64_t> r) { done = r.get() == 9; }); });
  loop.poll();
  while (!done) {
    pollfd p{loop.fd(), POLLIN, 0};
    ASSERT_EQ(poll(&p, 1, 30000), 1);
    loop.poll();
  }
}

TEST(Async, PostAndStopFromAnotherThread) {
  ray::event_loop loop;
  ray::ref<void> never = ray::task(waits_for_cancel)();
  loop.post([&] { never.then([](const ray::ref<void>&) {}); });
  std::thread other([&] { loop.post([&] { loop.stop(); }); });
  loop.run();
  other.join();
  never.cancel();
}

TEST(Async, AContinuationThatThrowsLeavesTheOthers) {
  ray::event_loop loop;
  int ran = 0;
  loop.post([&] {
    for (int i = 0; i < 10; ++i)
      ray::put(i).then([&](ray::ref<int> r) {
        ++ran;
        if (r.get() == 3) throw std::runtime_error("one of them");
      });
  });
  int thrown_ones = 0;
  while (loop.busy()) {
    try {
      loop.run();
    } catch (const std::runtime_error&) {
      ++thrown_ones;
    }
  }
  EXPECT_EQ(ran, 10);
  EXPECT_EQ(thrown_ones, 1);
}

TEST(Async, WithoutALoopTheRuntimeResumes) {
  struct Detached {  // a coroutine type of the program's own
    struct promise_type {
      Detached get_return_object() { return {}; }
      std::suspend_never initial_suspend() { return {}; }
      std::suspend_never final_suspend() noexcept { return {}; }
      void return_void() {}
      void unhandled_exception() { std::terminate(); }
    };
  };
  std::mutex mutex;
  std::condition_variable changed;
  int64_t got = 0;
  auto body = [&]() -> Detached {
    int64_t v = co_await ray::task(square)(11);
    std::lock_guard<std::mutex> lock(mutex);
    got = v;
    changed.notify_one();
  };
  body();
  std::unique_lock<std::mutex> lock(mutex);
  changed.wait(lock, [&] { return got != 0; });
  EXPECT_EQ(got, 121);
}

TEST(Async, ACoroutineThatIsDestroyedIsNotResumed) {
  ray::event_loop loop;
  ray::ref<void> never = ray::task(waits_for_cancel)();
  bool reached = false;
  auto body = [&]() -> ray::async<void> {
    co_await never;
    reached = true;
  };
  loop.post([&] {
    auto a = body();
    a.start();
  });  // destroyed while it waits
  loop.poll();
  never.cancel();
  loop.run();
  EXPECT_FALSE(reached);
  EXPECT_THROW(ray::run([]() -> ray::async<void> { co_await std::suspend_always(); }()),
               ray::wrong_state);  // nothing would ever wake it
}
