// Being told: co_await on references and streams, event loops, continuations on threads of the
// runtime.
#include <poll.h>

#include <condition_variable>
#include <thread>

#include "fixture.h"

int64_t square(int64_t x) { return x * x; }
int64_t fails(int64_t x) { throw std::runtime_error("not " + std::to_string(x)); }
ray::generator<int> count(int n) {
  for (int i = 0; i < n; ++i) co_yield i;
}
void waits_for_cancel() {
  while (!ray::this_task::is_cancelled()) usleep(1000);
}
RAY_REMOTE(square, fails, count, waits_for_cancel);

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
