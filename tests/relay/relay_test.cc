// Two nodes, a relay each, and a program on the first whose every worker is a stand-in for one of the second. The test plays
// the daemons' part towards the relays: a worker of the first node is a shell that says its number and sleeps, and the
// stand-in says hello in its place.
#include "harness.h"

namespace ray::test {
namespace {

struct Ref {
  ray_ref* ref = nullptr;
  Ref() = default;
  Ref(Ref&& o) noexcept : ref(std::exchange(o.ref, nullptr)) {}
  ~Ref() { ray_ref_release(ref); }
};

struct Outcome {
  ray_code code = RAY_OK;
  std::string value, message, payload;
  std::vector<std::string> buffers;
};

struct Two {
  Place a, b;
  std::unique_ptr<RelayProcess> here, there;
  ray_runtime* rt = nullptr;
  JobId job;
  std::string spawns;  // a folder: a file for each worker that node A started
  std::thread opener;
  std::atomic<bool> ends{false}, opens{true};
  std::mutex mutex;
  std::set<uint64_t> open;

  explicit Two(double cpus = 1, uint64_t store_bytes = 64 << 20) : a(cpus, store_bytes), b(2, store_bytes) {
    here = std::make_unique<RelayProcess>(a, 0);
    there = std::make_unique<RelayProcess>(b, 1);
    here->meet(there->peer);
    there->meet(here->peer);
    spawns = a.session.dir + "/spawns";
    std::filesystem::create_directory(spawns);
  }
  ~Two() {
    if (rt) {
      EXPECT_EQ(ray_shutdown(rt, 0, nullptr), RAY_OK);
      ray_runtime_release(rt);
    }
    ends = true;
    if (opener.joinable()) opener.join();
    EXPECT_EQ(here->end(), 0) << here->log();
    EXPECT_EQ(there->end(), 0) << there->log();
    if (::testing::Test::HasFailure()) std::fprintf(stderr, "A: %s\nB: %s\n", here->log().c_str(), there->log().c_str());
  }
  void join() {
    ray_runtime_options o = RAY_RUNTIME_OPTIONS_INIT;
    o.address = ray_cstr(a.session.dir.c_str());
    const char* argv[] = {"/bin/sh", "-c", "touch \"$0/$LIBRAY_WORKER\"; exec sleep 1000", spawns.c_str(), nullptr};
    o.worker_argv = argv;
    ASSERT_EQ(ray_init(&o, &rt, nullptr), RAY_OK);
    ray_context c = RAY_CONTEXT_INIT;
    ASSERT_EQ(ray_runtime_context(rt, &c, nullptr), RAY_OK);
    std::memcpy(job.b, c.job.b, kIdSize);
    tell_job();
    opener = std::thread([this] { open_all(); });
  }
  void tell_job() {
    relay::ControlMessage m;
    m.type = relay::Control::kJob;
    m.id = job;
    m.text = job_body(job, {relay_worker()});
    here->say(m);
  }
  void open_all() {
    while (!ends) {
      for (auto& e : std::filesystem::directory_iterator(spawns)) {
        const uint64_t spawn = std::stoull(e.path().filename().string());
        std::lock_guard lock(mutex);
        if (!opens || !open.insert(spawn).second) continue;
        relay::ControlMessage m;
        m.type = relay::Control::kOpen;
        m.spawn = spawn;
        m.node = 1;
        m.id = job;
        m.resources = one_cpu();
        here->say(m);
      }
      ::usleep(5000);
    }
  }
  Ref submit(const std::string& name, std::vector<std::string> args, int32_t retries = RAY_RETRIES_DEFAULT, uint32_t flags = 0) {
    std::vector<ray_arg> values(args.size(), ray_arg RAY_ARG_INIT);
    for (size_t i = 0; i < args.size(); ++i) values[i].value = ray_plain(args[i].data(), args[i].size(), RAY_FMT_RAW);
    return submit_values(name, values, retries, flags);
  }
  Ref submit_values(const std::string& name, const std::vector<ray_arg>& values, int32_t retries = RAY_RETRIES_DEFAULT,
                    uint32_t flags = 0) {
    ray_function* f = nullptr;
    EXPECT_EQ(ray_function_get(rt, ray_cstr(name.c_str()), &f, nullptr), RAY_OK);
    ray_task_options o = RAY_TASK_OPTIONS_INIT;
    o.max_retries = retries;
    o.flags = flags;
    Ref out;
    EXPECT_EQ(ray_submit(rt, f, values.data(), values.size(), &o, &out.ref, nullptr), RAY_OK);
    ray_function_release(f);
    return out;
  }
  Outcome get(const Ref& ref, int seconds = 60) {
    Outcome out;
    ray_buffer b = RAY_BUFFER_INIT;
    ray_error* e = nullptr;
    out.code = ray_get(rt, &ref.ref, 1, int64_t{seconds} * 1000000000, &b, &e);
    if (e) {
      const ray_str text = ray_error_message(e);
      out.message.assign(text.data, text.size);
      const ray_bytes payload = ray_error_payload(e, nullptr);
      out.payload.assign(static_cast<const char*>(payload.data), payload.size);
      ray_error_release(e);
    }
    if (out.code == RAY_OK) out.value.assign(static_cast<const char*>(b.data), b.size);
    for (size_t i = 0; out.code == RAY_OK && i < b.n_oob; ++i)
      out.buffers.emplace_back(static_cast<const char*>(b.oob[i].data), b.oob[i].size);
    ray_buffer_release(&b);
    return out;
  }
  std::string call(const std::string& name, std::vector<std::string> args) {
    const Outcome o = get(submit(name, std::move(args)));
    EXPECT_EQ(o.code, RAY_OK) << o.message;
    return o.value;
  }
  std::string path(const std::string& name) const { return a.session.dir + "/" + name; }
  bool is_there(const std::string& name) const { return std::filesystem::exists(path(name)); }
  int pid_in(const std::string& name) const {
    int pid = 0;
    std::ifstream(path(name)) >> pid;
    return pid;
  }
  std::string id_of(const Ref& ref) {
    const ray_id id = ray_ref_id(ref.ref);
    Id task;
    std::memcpy(task.b, id.b, kIdSize);
    return producer_of(task).hex();
  }
};

TEST(Relay, ATaskRunsOnTheOtherNodeAsIfItWereHere) {
  Two two;
  two.join();
  const Ref ref = two.submit("context", {});
  EXPECT_EQ(two.get(ref).value, two.job.hex() + " " + two.id_of(ref) + " " + two.b.id.hex());
  EXPECT_EQ(two.call("add", {"20", "22"}), "42");
  const Ref nested = two.submit("nested", {});
  Id parent;
  ASSERT_TRUE(Id::from_hex(two.id_of(nested), &parent));
  EXPECT_EQ(two.get(nested).value, return_object(child_task(origin_of(parent), 1), 0).hex() + " 3");
}

TEST(Relay, ValuesOfAnySize) {
  Two two(1, uint64_t{512} << 20);
  two.join();
  const std::string large(100 << 20, '\2'), middle(20000, 'm');
  std::vector<ray_arg> args(1, ray_arg RAY_ARG_INIT);
  const ray_bytes oob[] = {{middle.data(), middle.size()}, {large.data(), large.size()}};
  args[0].value = ray_plain("ab", 2, RAY_FMT_MSGPACK);
  args[0].value.oob = oob;
  args[0].value.n_oob = 2;
  EXPECT_EQ(two.get(two.submit_values("sum", args)).value,
            "2:195,20000:" + std::to_string(20000 * 'm') + "," + std::to_string(large.size()) + ":" +
                std::to_string(2 * large.size()));
  const std::string result = two.call("fill", {std::to_string(100 << 20)});
  EXPECT_EQ(result.size(), size_t{100} << 20);
  EXPECT_EQ(result.find_first_not_of('f'), std::string::npos);
  args[0].value.n_oob = 1;
  const Outcome back = two.get(two.submit_values("echo", args));
  EXPECT_EQ(back.value, "ab");
  ASSERT_EQ(back.buffers.size(), 1u);
  EXPECT_TRUE(back.buffers[0] == middle);
  // A result of a task that ran there is an argument of the next.
  const Ref filled = two.submit("fill", {"3000000"});
  std::vector<ray_arg> by_ref(1, ray_arg RAY_ARG_INIT);
  by_ref[0].ref = filled.ref;
  EXPECT_EQ(two.get(two.submit_values("sum", by_ref)).value, "3000000:" + std::to_string(3000000 * 'f'));
}

TEST(Relay, ErrorsNameTheNodeWhereTheyWere) {
  Two two;
  two.join();
  Outcome o = two.get(two.submit("fail", {"5"}));
  EXPECT_EQ(o.code, RAY_TASK_FAILED);
  EXPECT_EQ(o.payload, "ppppp");
  EXPECT_NE(o.message.find("it does not like it"), std::string::npos) << o.message;
  EXPECT_NE(o.message.find("of node " + two.b.id.hex()), std::string::npos) << o.message;
  EXPECT_EQ(o.message.find(two.a.id.hex()), std::string::npos) << o.message;
  o = two.get(two.submit("fail", {"3000000"}));
  EXPECT_EQ(o.payload.size(), 3000000u);
  o = two.get(two.submit("nobody registered it", {}));
  EXPECT_EQ(o.code, RAY_UNKNOWN_FUNCTION) << o.message;
  o = two.get(two.submit("refers", {}));
  EXPECT_EQ(o.code, RAY_UNSUPPORTED);
  EXPECT_NE(o.message.find("refers"), std::string::npos) << o.message;
}

TEST(Relay, ADeadWorkerThereIsADeadWorkerHere) {
  Two two;
  two.join();
  EXPECT_EQ(two.call("die", {two.path("count"), "2"}), "2") << "it is retried";
  Outcome o = two.get(two.submit("die", {two.path("count2"), "1"}, 0));
  EXPECT_EQ(o.code, RAY_WORKER_CRASHED);
  EXPECT_NE(o.message.find("exited with status 3"), std::string::npos) << o.message;
  EXPECT_NE(o.message.find("of node " + two.b.id.hex()), std::string::npos) << o.message;
  o = two.get(two.submit("die", {two.path("count3"), "100"}, 2));
  EXPECT_EQ(o.code, RAY_WORKER_CRASHED);
  int n = 0;
  std::ifstream(two.path("count3")) >> n;
  EXPECT_EQ(n, 3) << "one execution and two retries";
}

TEST(Relay, Cancels) {
  Two two;
  two.join();
  const Ref runs = two.submit("await", {two.path("runs"), two.path("never")});
  ASSERT_TRUE(eventually([&] { return two.is_there("runs"); }));
  EXPECT_EQ(ray_cancel(runs.ref, 0, nullptr), RAY_OK);
  EXPECT_EQ(two.get(runs).code, RAY_CANCELLED);
  EXPECT_TRUE(two.is_there("runs.cancelled"));
  const Ref killed = two.submit("await", {two.path("killed"), two.path("never"), "stubborn"});
  ASSERT_TRUE(eventually([&] { return two.is_there("killed"); }));
  EXPECT_EQ(ray_cancel(killed.ref, RAY_CANCEL_FORCE, nullptr), RAY_OK);
  EXPECT_EQ(two.get(killed).code, RAY_WORKER_CRASHED);
  EXPECT_TRUE(eventually([&] { return !running(two.pid_in("killed")); }));
  EXPECT_EQ(two.call("add", {"1", "1"}), "2");
}

// Here everything is a stand-in, so it has nowhere to go back to.
TEST(Relay, WhatCannotTravelIsNotSent) {
  Two two;
  two.join();
  const ray_value inner = ray_plain("inner", 5, RAY_FMT_RAW);
  Ref ref;
  ASSERT_EQ(ray_put(two.rt, &inner, &ref.ref, nullptr), RAY_OK);
  std::vector<ray_arg> args(1, ray_arg RAY_ARG_INIT);
  args[0].value = ray_plain("outer", 5, RAY_FMT_RAW);
  args[0].value.refs = &ref.ref;
  args[0].value.n_refs = 1;
  Outcome o = two.get(two.submit_values("follow", args));
  EXPECT_EQ(o.code, RAY_UNSUPPORTED) << o.message;
  EXPECT_NE(o.message.find("follow"), std::string::npos) << o.message;
  EXPECT_NE(o.message.find("plain values"), std::string::npos) << o.message;
  EXPECT_EQ(two.call("add", {"1", "1"}), "2");
}

TEST(Relay, ManyTasks) {
  Two two;
  two.join();
  (void)two.call("add", {"1", "1"});
  const int64_t start = steady_ns();
  std::vector<Ref> refs;
  constexpr int kTasks = 5000;
  for (int i = 0; i < kTasks; ++i) refs.push_back(two.submit("add", {std::to_string(i), "1"}));
  for (int i = 0; i < kTasks; ++i) EXPECT_EQ(two.get(refs[static_cast<size_t>(i)]).value, std::to_string(i + 1));
  std::printf("%.0f tasks a second\n", kTasks * 1e9 / static_cast<double>(steady_ns() - start));
  const int64_t one = steady_ns();
  for (int i = 0; i < 200; ++i) (void)two.call("add", {"1", "1"});
  std::printf("%.0f us for one after the other\n", static_cast<double>(steady_ns() - one) / 200 / 1000);
}

TEST(Relay, ADeadNodeTakesItsStandInsWithIt) {
  Two two;
  two.join();
  const Ref once = two.submit("await", {two.path("once"), two.path("never")}, 0);
  ASSERT_TRUE(eventually([&] { return two.is_there("once"); }));
  {
    std::lock_guard lock(two.mutex);
    two.opens = false;
  }
  relay::Peer dead = two.there->peer;
  dead.dead = true;
  dead.cause = "it was silent";
  two.here->meet(dead);
  EXPECT_NE(two.here->failure(1).find("it was silent"), std::string::npos);
  const Outcome o = two.get(once);
  EXPECT_EQ(o.code, RAY_WORKER_CRASHED) << o.message;
}

TEST(Relay, TheDeathOfTheOtherDaemonIsThatOfAWorker) {
  Two two;
  two.join();
  const Ref once = two.submit("await", {two.path("once"), two.path("never")}, 0);
  ASSERT_TRUE(eventually([&] { return two.is_there("once"); }));
  {
    std::lock_guard lock(two.mutex);
    two.opens = false;
  }
  ::kill(two.b.pid, SIGKILL);
  const Outcome o = two.get(once);
  EXPECT_EQ(o.code, RAY_WORKER_CRASHED) << "not the end of its own node: " << o.message;
}

TEST(Relay, AnotherRelayOfTheNodeGoesOn) {
  Two two;
  two.join();
  const Ref again = two.submit("await", {two.path("again"), two.path("go")});
  ASSERT_TRUE(eventually([&] { return two.is_there("again"); }));
  const int pid = two.pid_in("again");
  two.there->kill();
  EXPECT_TRUE(eventually([&] { return !running(pid); })) << "the driver of its job is gone";
  std::filesystem::remove(two.path("again"));
  two.there = std::make_unique<RelayProcess>(two.b, 1);
  two.here->meet(two.there->peer);
  ASSERT_TRUE(eventually([&] { return two.is_there("again"); }, 60000)) << "it is retried over there";
  EXPECT_NE(two.pid_in("again"), pid);
  std::ofstream(two.path("go")) << 1;
  EXPECT_EQ(two.get(again).code, RAY_OK);
}

TEST(Relay, WhatADeadProgramLeftRunningIsKilled) {
  Two two;
  const int child = ::fork();
  if (child == 0) {
    two.join();
    (void)two.submit("await", {two.path("runs"), two.path("never")});
    for (;;) ::pause();
  }
  ASSERT_TRUE(eventually([&] { return two.is_there("runs"); }, 60000));
  const int pid = two.pid_in("runs");
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  EXPECT_TRUE(eventually([&] { return !running(pid); }));
}

TEST(Relay, ClosingOneThatIsIdle) {
  Two two;
  two.join();
  EXPECT_EQ(two.call("add", {"1", "1"}), "2");
  relay::ControlMessage m;
  m.type = relay::Control::kClose;
  m.spawn = 1;
  two.here->say(m);
  EXPECT_NE(two.here->failure(1), "(nothing)");
  EXPECT_EQ(two.call("add", {"2", "1"}), "3") << "another one is made";
  m.type = relay::Control::kOpen;
  m.spawn = 1000;
  m.node = 77;
  m.id = two.job;
  two.here->say(m);
  EXPECT_NE(two.here->failure(1000).find("node 77 is not known"), std::string::npos);
}

}  // namespace
}  // namespace ray::test
