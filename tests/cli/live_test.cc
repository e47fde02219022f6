// The tool beside a living cluster: a driver runs tasks of C functions and holds an object; the
// tool shows them, also while the daemon is stopped, ends the node, and reads what is left.
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <functional>

#include "libray/base/clock.h"
#include "libray/cli/output.h"
#include "libray/cli/session_files.h"
#include "libray/wire/msgpack.h"
#include "ray.h"
#include "tests/cli/session_builder.h"

namespace ray::cli::test {
namespace {

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

// The limit only ends a test that has failed.
bool eventually(const std::function<bool()>& what) {
  int64_t end = steady_ns() + 60 * 1000000000ll;
  while (!what()) {
    if (steady_ns() > end) return false;
    ::usleep(20000);
  }
  return true;
}

#define OK(call)                                                           \
  do {                                                                     \
    ray_error* err = nullptr;                                              \
    ASSERT_EQ((call), RAY_OK) << (err ? ray_error_message(err).data : ""); \
    ray_error_release(err);                                                \
  } while (0)

class Driver {
 public:
  explicit Driver(const std::string& base) { start(base); }
  ~Driver() {
    for (ray_ref* r : refs_) ray_ref_release(r);
    ray_function_release(pow_);
    ray_runtime_release(runtime_);
  }
  void start(const std::string& base) {
    ray_runtime_options o = RAY_RUNTIME_OPTIONS_INIT;
    o.session_dir = {base.c_str(), base.size()};
    o.num_cpus = 2;
    o.store_bytes = 64 << 20;
    OK(ray_init(&o, &runtime_, &err));
    OK(ray_define_symbol(runtime_, ray_cstr("pow"), ray_cstr("libm.so.6"), ray_cstr("pow"),
                         ray_cstr("f64(f64,f64)"), &pow_, &err));
  }
  ray_code pow(const std::string& first, const std::string& second) {
    ray_arg args[2] = {};
    args[0].value = ray_plain(first.data(), first.size(), RAY_FMT_MSGPACK);
    args[1].value = ray_plain(second.data(), second.size(), RAY_FMT_MSGPACK);
    ray_ref* ref = nullptr;
    ray_code code = ray_submit(runtime_, pow_, args, 2, nullptr, &ref, nullptr);
    if (code != RAY_OK) return code;
    refs_.push_back(ref);
    ray_buffer out = RAY_BUFFER_INIT;
    code = ray_get(runtime_, &ref, 1, -1, &out, nullptr);
    ray_buffer_release(&out);
    return code;
  }
  std::string put(size_t n) {
    std::string bytes(n, 'x');
    ray_value v = ray_plain(bytes.data(), bytes.size(), RAY_FMT_RAW);
    ray_ref* ref = nullptr;
    EXPECT_EQ(ray_put(runtime_, &v, &ref, nullptr), RAY_OK);
    refs_.push_back(ref);
    ray_id id = ray_ref_id(ref);
    char hex[2 * RAY_ID_SIZE + 1];
    ray_id_to_hex(&id, hex);
    return hex;
  }
  std::string session() const {
    ray_str s = ray_runtime_session_dir(runtime_);
    return {s.data, s.size};
  }

 private:
  ray_runtime* runtime_ = nullptr;
  ray_function* pow_ = nullptr;
  std::vector<ray_ref*> refs_;
};

std::string number(double v) {
  std::string s;
  wire::Writer(&s).float64(v);
  return s;
}

TEST(LiveTool, ShowsARunningClusterStopsItAndReadsTheRest) {
  TempDir base;
  Driver driver(base.path());
  if (HasFatalFailure()) return;
  for (int i = 0; i < 20; ++i) EXPECT_EQ(driver.pow(number(i), number(2)), RAY_OK);
  std::string text;
  wire::Writer(&text).str("three");
  EXPECT_NE(driver.pow(number(1), text), RAY_OK);
  std::string object = driver.put(5000000);
  auto run = [&](const std::vector<std::string>& args) { return run_tool(base.path(), args); };

  EXPECT_TRUE(eventually([&] { return lines(run({"tasks"}).out) == 1 + 21; }))
      << run({"tasks"}).out;
  EXPECT_TRUE(has(run({"tasks", "--function", "pow", "--state", "finished"}).out, "361"));
  EXPECT_TRUE(has(run({"errors"}).out, "argument 1: expected f64, got \"three\""))
      << run({"errors"}).out;
  NodeFile node = read_node_file(driver.session());
  ASSERT_TRUE(node.found);
  for (bool stopped : {false, true}) {
    if (stopped) {
      ASSERT_EQ(::kill(node.pid, SIGSTOP), 0);
    }
    Output store = run({"store"});
    EXPECT_EQ(store.code, 0) << store.err;
    EXPECT_TRUE(has(store.out, short_id(object)) && has(store.out, "4.77 MiB")) << store.out;
    Output status = run({"status"});
    EXPECT_TRUE(eventually([&] {
      return has((status = run({"status"})).out, stopped ? "stopped, pid" : "alive, pid");
    }));
    for (const char* role : {"\nnode ", "\ngcs ", "\nworker "})
      EXPECT_TRUE(has(status.out, role)) << status.out;
    EXPECT_EQ(json(run({"status", "--json"}).out, "$.processes[0].role"), "node");
    EXPECT_EQ(lines(run({"tasks"}).out), 1 + 21u);
  }
  EXPECT_EQ(run({"stop"}).code, 1);
  ASSERT_EQ(::kill(node.pid, SIGCONT), 0);
  Output stop = run({"stop"});
  EXPECT_EQ(stop.code, 0) << stop.err;
  EXPECT_TRUE(has(run({"status"}).out, "node       dead"));
  EXPECT_TRUE(eventually([&] { return driver.pow(number(1), number(1)) == RAY_NODE_DIED; }));
  EXPECT_EQ(lines(run({"tasks", "--state", "finished"}).out), 1 + 20u);
  Output graph = run({"graph"});
  EXPECT_EQ(graph.code, 0) << graph.err;
  EXPECT_TRUE(has(graph.out, "21 tasks, 21 finished; edges: 21 control")) << graph.out;
  EXPECT_TRUE(has(run({"timeline", "-o", "-"}).out, "\"name\":\"pow\""));
}

}  // namespace
}  // namespace ray::cli::test
