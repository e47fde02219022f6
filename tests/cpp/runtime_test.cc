// What a runtime gives besides tasks: key-value store, context, queries, the log, shared libraries,
// a second session.
#include <algorithm>

#include "fixture.h"

std::string place_of_this() {
  return ray::context().task.hex() + " " + std::to_string(ray::context().pid);
}
RAY_REMOTE(place_of_this);

TEST(Runtime, KeysAndVersions) {
  EXPECT_FALSE(ray::kv_get("missing", "test"));
  const uint64_t first = ray::kv_put("key", std::string("a\0b", 3), 0, "test");
  EXPECT_EQ(ray::kv_get("key", "test")->value, std::string("a\0b", 3));
  EXPECT_EQ(ray::kv_get("key", "test")->version, first);
  thrown<ray::conflict>([] { ray::kv_put("key", "x", 0, "test"); });
  EXPECT_GT(ray::kv_put("key", "y", first, "test"), first);
  ray::kv_put("kez", "z", ray::kv_any, "test");
  std::vector<std::string> keys = ray::kv_list("ke", "test");
  std::sort(keys.begin(), keys.end());
  EXPECT_EQ(keys, (std::vector<std::string>{"key", "kez"}));
  ray::kv_erase("key", ray::kv_any, "test");
  EXPECT_EQ(ray::kv_list("ke", "test").size(), 1u);
}

TEST(Runtime, Context) {
  EXPECT_EQ(ray::context().pid, static_cast<uint32_t>(getpid()));
  EXPECT_FALSE(ray::context().actor);
  EXPECT_TRUE(ray::context().node);
  EXPECT_FALSE(ray::is_worker());
  ray::ref<std::string> r = ray::task(place_of_this)();
  const std::string there = r.get();
  EXPECT_FALSE(contains(there, " " + std::to_string(getpid())));
  EXPECT_FALSE(contains(there, ray::context().task.hex()));
  EXPECT_TRUE(contains(ray::session_dir(), "session-"));
}

TEST(Runtime, Queries) {
  auto nodes = ray::query("nodes").get().as<std::vector<std::map<std::string, msgpack::object>>>();
  EXPECT_EQ(nodes.size(), 1u);
  EXPECT_EQ((ray::query("resources").get().as<std::map<std::string, double>>()["CPU"]), 2);
  thrown<ray::error>([] { ray::query("nonsense"); });
}

TEST(Runtime, TheLogGoesToAHandler) {
  std::vector<std::string> seen;
  std::mutex mutex;
  ray::set_log_handler(
      [&](ray::log_level, std::string_view, std::string_view id, std::string_view) {
        std::lock_guard<std::mutex> lock(mutex);
        seen.emplace_back(id);
      },
      ray::log_level::debug);
  (void)ray::task(place_of_this, {.resources = {{"more than there is", 1e6}}})().wait(
      std::chrono::milliseconds(20));
  ray::set_log_handler({});
  std::lock_guard<std::mutex> lock(mutex);  // no further one comes
  EXPECT_NE(std::find(seen.begin(), seen.end(), "infeasible"), seen.end());
}

// A handler that says when it is destroyed, and that nobody calls it then.
struct Noted {
  explicit Noted(std::atomic<int>* destroyed) : destroyed_(destroyed) {}
  ~Noted() {
    EXPECT_EQ(inside, 0);
    ++*destroyed_;
  }
  std::atomic<int> inside{0};

 private:
  std::atomic<int>* destroyed_;
};

void log_something() {  // a warning of this very thread
  static std::atomic<int> n{0};
  EXPECT_FALSE(ray::task(place_of_this, {.resources = {{"nowhere " + std::to_string(n++), 1e6}}})()
                   .wait(std::chrono::milliseconds(20)));
}

TEST(Runtime, ALogHandlerMayReplaceItself) {
  std::atomic<int> destroyed{0}, calls{0}, after{0};
  auto noted = std::make_unique<Noted>(&destroyed);
  std::shared_ptr<Noted> kept = std::move(noted);
  ray::set_log_handler(
      [kept, &calls, &after, &destroyed](ray::log_level, std::string_view, std::string_view, std::string_view) {
        if (calls++ > 0) return;
        ++kept->inside;
        ray::set_log_handler([&after](auto...) { ++after; }, ray::log_level::debug);
        EXPECT_EQ(destroyed, 0);  // it still runs
        --kept->inside;
      },
      ray::log_level::debug);
  kept.reset();
  for (int i = 0; i < 1500 && after == 0; ++i) log_something();
  ray::set_log_handler({});
  EXPECT_GT(after, 0);
  EXPECT_EQ(destroyed, 1);
}

// Two threads replace it while a message is on its way to it, and it does so itself.
TEST(Runtime, LogHandlersReplaceEachOther) {
  std::atomic<int> destroyed{0}, made{0}, entered{0};
  std::atomic<bool> stop{false};
  std::function<ray::log_handler()> make = [&] {
    ++made;
    auto noted = std::make_shared<Noted>(&destroyed);
    return ray::log_handler([noted, &entered, &make](auto...) {
      ++noted->inside;
      if (++entered % 3 == 0) ray::set_log_handler(make(), ray::log_level::debug);
      std::this_thread::yield();
      --noted->inside;
    });
  };
  ray::set_log_handler(make(), ray::log_level::debug);
  std::vector<std::thread> threads;
  for (int i = 0; i < 2; ++i)
    threads.emplace_back([&] {
      while (!stop) ray::set_log_handler(make(), ray::log_level::debug);
    });
  for (int i = 0; i < 3000 && entered < 200; ++i) log_something();
  stop = true;
  for (std::thread& t : threads) t.join();
  ray::set_log_handler({});
  EXPECT_EQ(destroyed, made);
}

TEST(Runtime, ExportedReferences) {
  ray::ref<std::string> r = ray::put("exported");
  EXPECT_EQ(ray::import_ref<std::string>(r.export_bytes()).get(), "exported");
  thrown<ray::invalid_argument>([] { ray::import_ref<int>("nonsense"); });
}

TEST(Runtime, FunctionsAndActorsOfPython) {
  if (!std::getenv("LIBRAY_PYTHON")) GTEST_SKIP() << "no Python that has libray";
  using ray::language;
  auto mean = ray::function<double(std::vector<double>)>(language::python, "statistics", "mean");
  EXPECT_EQ(mean(std::vector<double>{1, 2, 6}).get(), 3);
  EXPECT_EQ((ray::function<std::vector<int>(std::vector<int>)>(language::python, "builtins",
                                                               "sorted")(std::vector<int>{3, 1, 2})
                 .get()),
            (std::vector<int>{1, 2, 3}));
  try {
    mean(std::vector<double>{}).get();
    FAIL();
  } catch (const ray::task_error& e) {
    EXPECT_EQ(e.language(), "python");
    EXPECT_TRUE(contains(e.type_name(), "StatisticsError")) << e.type_name();
    EXPECT_TRUE(contains(e.stack(), "statistics")) << e.stack();
  }
  auto deque = ray::actor_of_class(language::python, "collections", "deque", {});
  deque.call_named<void(int)>("append", 5).get();
  EXPECT_EQ(deque.call_named<int()>("pop").get(), 5);
}

TEST(Runtime, FunctionsOfASharedLibrary) {
  const char* module = std::getenv("LIBRAY_TEST_MODULE");
  ASSERT_NE(module, nullptr);
  auto twice = ray::library<int64_t(int64_t)>("module::twice", module);
  EXPECT_EQ(twice(21).get(), 42);
  EXPECT_TRUE(contains(
      thrown<ray::task_error>([&] { ray::library<void()>("module::fails", module)().get(); }),
      "module.cc"));
}

TEST(Runtime, TimeLimitsOfAnyUnit) {
  EXPECT_EQ(ray::timeout(std::chrono::hours(1)).ns, 3600000000000);
  EXPECT_EQ(ray::timeout(std::chrono::duration<double>(0.5)).ns, 500000000);
  EXPECT_EQ(ray::timeout(std::chrono::seconds(-5)).ns, 0);
  EXPECT_EQ(ray::timeout(std::chrono::hours::max()).ns, -1);
  EXPECT_EQ(ray::forever.ns, -1);
}

// The last one: it ends the runtime that the others use.
TEST(RuntimeLast, ASecondSessionAfterTheFirst) {
  thrown<ray::wrong_state>([] { ray::init(); });
  ray::ref<int> old = ray::put(1);
  ray::shutdown();
  EXPECT_FALSE(ray::is_initialized());
  EXPECT_TRUE(contains(thrown<ray::wrong_state>([] { ray::task(place_of_this)(); }), "ray::init"));
  thrown<ray::wrong_state>([] { ray::put(1); });
  {
    ray::session again({.num_cpus = 1, .job_name = "again"});
    EXPECT_TRUE(contains(ray::task(place_of_this)().get(), " "));
    thrown<ray::error>([&] { old.get(); });
  }
  EXPECT_FALSE(ray::is_initialized());
}
