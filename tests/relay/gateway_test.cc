// The side of a relay where tasks of other nodes run: a node, its relay, and the other node's relay by hand.
#include "harness.h"

namespace ray::test {
namespace {

struct Far {
  Place place;
  RelayProcess relay;
  Opener opener;
  JobId job = random_id();
  explicit Far(double cpus = 2) : place(cpus), relay(place, 1), opener(relay.peer.relay) {}
  // A job with one lane and those functions.
  void open(const std::vector<std::string>& functions, uint64_t lane = 1) {
    opener.tell_job(job, job_body(job, {relay_worker()}));
    std::string why;
    ASSERT_EQ(opener.open_lane(job, lane, one_cpu(), &why), RAY_OK) << why << relay.log();
    for (const auto& name : functions) opener.define(job, name);
  }
  std::string path(const std::string& name) const { return place.session.dir + "/" + name; }
  bool is_there(const std::string& name) const { return std::filesystem::exists(path(name)); }
  int pid_in(const std::string& name) const {
    int pid = 0;
    std::ifstream(path(name)) >> pid;
    return pid;
  }
};

TEST(Gateway, RunsTasksUnderTheIdsTheyHave) {
  Far far;
  far.open({"add", "context", "nested", "nothing"});
  EXPECT_EQ(far.opener.call(1, "add", {"20", "22"}), "42");
  const relay::Task t = far.opener.task("context", {});
  far.opener.send_task(1, t);
  EXPECT_EQ(far.opener.answer(t.number).values.at(0), far.job.hex() + " " + t.id.hex() + " " + far.place.id.hex());
  const relay::Task parent = far.opener.task("nested", {});
  far.opener.send_task(1, parent);
  const TaskId child = child_task(origin_of(parent.id), 1);
  EXPECT_EQ(far.opener.answer(parent.number).values.at(0), return_object(child, 0).hex() + " 3");
  const Opener::Answer none = far.opener.answer(far.opener.run(1, "nothing", {}, 0));
  EXPECT_EQ(none.code, RAY_OK);
  EXPECT_TRUE(none.values.empty());
}

TEST(Gateway, SeveralResultsAndThoseThatAreErrors) {
  Far far;
  far.open({"echo", "half"});
  Opener::Answer a = far.opener.answer(far.opener.run(1, "echo", {"one", "", std::string(20000, 'x')}, 4));
  ASSERT_EQ(a.code, RAY_OK) << a.message;
  ASSERT_EQ(a.values.size(), 4u);
  EXPECT_EQ(a.values[0], "one");
  EXPECT_EQ(a.values[1], "");
  EXPECT_EQ(a.values[2], std::string(20000, 'x'));
  EXPECT_EQ(a.values[3], "\xc0") << "the one that was not given is nil";
  a = far.opener.answer(far.opener.run(1, "half", {}, 2));
  ASSERT_EQ(a.code, RAY_OK);
  EXPECT_TRUE(a.is_error.at(0));
  EXPECT_EQ(a.payload, "pay");
  EXPECT_EQ(a.message, "the first half");
  EXPECT_EQ(a.values.at(1), "second");
}

TEST(Gateway, LongValuesWithinTheWindow) {
  Far far;
  far.open({"sum", "echo", "fill"});
  const std::string large(40 << 20, '\1');
  relay::Task t = far.opener.task("sum", {"", ""});
  far.opener.send_argument(1, t.number, 0, "ab", {large, "", "c"});
  t.args.resize(1);
  t.args[0].apart = true;
  far.opener.send_task(1, t);
  const std::string expected = "2:195," + std::to_string(large.size()) + ":" + std::to_string(large.size()) + ",0:0,1:99";
  EXPECT_EQ(far.opener.answer(t.number).values.at(0), expected);
  EXPECT_LE(far.opener.most_under_way(), relay::kWindowBytes + relay::kPart + 256);

  t = far.opener.task("echo", {""});
  std::string data(3 << 20, 'q');
  for (size_t i = 0; i < data.size(); i += 4096) data[i] = static_cast<char>(i >> 12);
  far.opener.send_argument(1, t.number, 0, data, {std::string(1 << 20, 'z'), "end"});
  t.args[0].apart = true;
  t.args[0].data = {};
  far.opener.grant_results(false);
  far.opener.send_task(1, t);
  EXPECT_TRUE(eventually([&] { return far.opener.results_under_way() >= relay::kWindowBytes; }));
  ::usleep(200000);  // no more comes: were there no limit it would
  EXPECT_LE(far.opener.results_under_way(), relay::kWindowBytes + relay::kPart + 256);
  EXPECT_FALSE(far.opener.answered(t.number));
  far.opener.grant_all(1);
  const Opener::Answer a = far.opener.answer(t.number);
  ASSERT_EQ(a.code, RAY_OK) << a.message;
  EXPECT_TRUE(a.values.at(0) == data);
  ASSERT_EQ(a.buffers.at(0).size(), 2u);
  EXPECT_TRUE(a.buffers[0][0] == std::string(1 << 20, 'z'));
  EXPECT_EQ(a.buffers[0][1], "end");
  const std::string result = far.opener.call(1, "fill", {std::to_string(30 << 20)});
  EXPECT_EQ(result.size(), size_t{30} << 20);
  EXPECT_EQ(result.find_first_not_of('f'), std::string::npos);
}

TEST(Gateway, MoreThanTheStoreHoldsFailsAndTheNextTaskRuns) {
  Far far;  // a store of 64 MiB
  far.open({"sum", "add"});
  relay::Task t = far.opener.task("sum", {""});
  far.opener.send_argument(1, t.number, 0, std::string(80 << 20, 'x'));
  t.args[0].apart = true;
  t.args[0].data = {};
  far.opener.send_task(1, t);
  const Opener::Answer a = far.opener.answer(t.number, 120);
  EXPECT_EQ(a.code, RAY_STORE_FULL) << a.message;
  EXPECT_NE(a.message.find("sum"), std::string::npos) << a.message;
  EXPECT_EQ(far.opener.call(1, "add", {"1", "1"}), "2");
}

TEST(Gateway, BytesThatDoNotComeAreNoValue) {
  Far far;
  far.open({"sum", "add"});
  relay::Task t = far.opener.task("sum", {""});
  far.opener.send_argument(1, t.number, 0, std::string(100000, 'x'), {}, 1);  // one byte too few
  t.args[0].apart = true;
  t.args[0].data = {};
  far.opener.send_task(1, t);
  EXPECT_EQ(far.opener.answer(t.number).code, RAY_INTERNAL);
  t = far.opener.task("sum", {""});
  t.args[0].apart = true;
  t.args[0].data = {};
  far.opener.send_task(1, t);
  EXPECT_EQ(far.opener.answer(t.number).code, RAY_INTERNAL);
  EXPECT_EQ(far.opener.call(1, "add", {"1", "1"}), "2");
}

TEST(Gateway, ErrorsKeepWhatTheyAre) {
  Far far;
  far.open({"fail", "no such function"});
  Opener::Answer a = far.opener.answer(far.opener.run(1, "fail", {"5"}));
  EXPECT_EQ(a.code, RAY_TASK_FAILED);
  EXPECT_EQ(a.payload, "ppppp");
  EXPECT_EQ(a.flags, 0u);
  EXPECT_NE(a.message.find("it does not like it"), std::string::npos) << a.message;
  EXPECT_NE(a.message.find(far.place.id.hex()), std::string::npos) << a.message;
  a = far.opener.answer(far.opener.run(1, "fail", {std::to_string(5 << 20)}));
  EXPECT_EQ(a.code, RAY_TASK_FAILED);
  EXPECT_EQ(a.payload.size(), size_t{5} << 20);
  a = far.opener.answer(far.opener.run(1, "no such function", {}));
  EXPECT_EQ(a.code, RAY_UNKNOWN_FUNCTION) << a.message;
  a = far.opener.answer(far.opener.run(1, "never told", {}));
  EXPECT_EQ(a.kind, relay::Kind::kReturned);
  EXPECT_EQ(a.flags, relay::kUnknownFunction);
}

TEST(Gateway, AResultWithReferencesIsRefused) {
  Far far;
  far.open({"refers"});
  const Opener::Answer a = far.opener.answer(far.opener.run(1, "refers", {}));
  EXPECT_EQ(a.code, RAY_UNSUPPORTED);
  EXPECT_EQ(a.flags, relay::kFinal);
  EXPECT_NE(a.message.find("refers"), std::string::npos) << a.message;
  EXPECT_NE(a.message.find("node 1"), std::string::npos) << a.message;
}

TEST(Gateway, AWorkerThatDiesIsToldAsThat) {
  Far far;
  far.open({"await", "die", "add"});
  const uint64_t n = far.opener.run(1, "await", {far.path("runs"), far.path("never")});
  ASSERT_TRUE(eventually([&] { return far.is_there("runs"); }));
  ::kill(far.pid_in("runs"), SIGKILL);
  Opener::Answer a = far.opener.answer(n);
  EXPECT_EQ(a.code, RAY_WORKER_CRASHED);
  EXPECT_EQ(a.flags, relay::kDied);
  EXPECT_NE(a.message.find("signal 9"), std::string::npos) << a.message;
  EXPECT_NE(a.message.find(far.place.id.hex()), std::string::npos) << a.message;
  a = far.opener.answer(far.opener.run(1, "die", {far.path("count"), "1"}));
  EXPECT_EQ(a.flags, relay::kDied) << "nothing is tried again here";
  EXPECT_EQ(far.opener.call(1, "die", {far.path("count"), "1"}), "1");
  EXPECT_EQ(far.opener.call(1, "add", {"1", "1"}), "2");
}

TEST(Gateway, TasksRunBesideEachOther) {
  Far far;
  far.open({"await"});
  const uint64_t a = far.opener.run(1, "await", {far.path("a"), far.path("b")});
  const uint64_t b = far.opener.run(1, "await", {far.path("b"), far.path("a")});
  EXPECT_EQ(far.opener.answer(a).code, RAY_OK);
  EXPECT_EQ(far.opener.answer(b).code, RAY_OK);
}

TEST(Gateway, Cancels) {
  Far far(1);
  far.open({"await", "add"});
  const uint64_t runs = far.opener.run(1, "await", {far.path("runs"), far.path("never")});
  ASSERT_TRUE(eventually([&] { return far.is_there("runs"); }));
  const uint64_t waits = far.opener.run(1, "await", {far.path("waits"), far.path("never")});
  far.opener.send_number(relay::Kind::kCancel, 1, waits);
  EXPECT_EQ(far.opener.answer(waits).code, RAY_CANCELLED);
  EXPECT_FALSE(far.is_there("waits"));
  far.opener.send_number(relay::Kind::kCancel, 1, runs);
  EXPECT_EQ(far.opener.answer(runs).code, RAY_CANCELLED);
  EXPECT_TRUE(far.is_there("runs.cancelled"));
  const uint64_t killed = far.opener.run(1, "await", {far.path("killed"), far.path("never"), "stubborn"});
  ASSERT_TRUE(eventually([&] { return far.is_there("killed"); }));
  const int pid = far.pid_in("killed");
  far.opener.send_number(relay::Kind::kCancel, 1, killed, RAY_CANCEL_FORCE);
  EXPECT_EQ(far.opener.answer(killed).code, RAY_WORKER_CRASHED);
  EXPECT_TRUE(eventually([&] { return !running(pid); }));
  EXPECT_EQ(far.opener.call(1, "add", {"1", "1"}), "2");
}

TEST(Gateway, GivesBackWhatHasNotBegun) {
  Far far(1);
  far.open({"await", "add"});
  const uint64_t runs = far.opener.run(1, "await", {far.path("runs"), far.path("go")});
  ASSERT_TRUE(eventually([&] { return far.is_there("runs"); }));
  const uint64_t waits = far.opener.run(1, "await", {far.path("waits"), far.path("never")});
  far.opener.send_number(relay::Kind::kRecall, 1);
  const Opener::Answer a = far.opener.answer(waits);
  EXPECT_EQ(a.kind, relay::Kind::kReturned);
  EXPECT_EQ(a.flags, 0u);
  EXPECT_FALSE(far.opener.answered(runs));
  std::ofstream(far.path("go")) << 1;
  EXPECT_EQ(far.opener.answer(runs).code, RAY_OK) << "what runs goes on";
  EXPECT_FALSE(far.is_there("waits"));
  EXPECT_EQ(far.opener.call(1, "add", {"1", "1"}), "2");
}

TEST(Gateway, AClosedLaneEndsWhatRunsForIt) {
  Far far;
  far.open({"await", "add"});
  ASSERT_EQ(far.opener.open_lane(far.job, 2), RAY_OK);
  far.opener.run(1, "await", {far.path("one"), far.path("never")});
  const uint64_t other = far.opener.run(2, "await", {far.path("two"), far.path("go")});
  ASSERT_TRUE(eventually([&] { return far.is_there("one") && far.is_there("two"); }));
  const int pid = far.pid_in("one");
  far.opener.send_number(relay::Kind::kUnlane, 1, 0, 1);
  EXPECT_TRUE(eventually([&] { return !running(pid); }));
  std::ofstream(far.path("go")) << 1;
  EXPECT_EQ(far.opener.answer(other).code, RAY_OK);
  far.opener.send_task(1, far.opener.task("add", {"1", "1"}));  // of nobody
  EXPECT_EQ(far.opener.call(2, "add", {"1", "1"}), "2");
}

TEST(Gateway, AJobEndsWithWhoSentIt) {
  Far far;
  far.open({"await", "add"});
  far.opener.run(1, "await", {far.path("runs"), far.path("never")});
  ASSERT_TRUE(eventually([&] { return far.is_there("runs"); }));
  const int pid = far.pid_in("runs");
  relay::Record r;
  r.kind = relay::Kind::kJobOver;
  r.job = far.job;
  far.opener.send(r);
  EXPECT_TRUE(eventually([&] { return !running(pid); }));
  // It may come again.
  far.open({"add"}, 2);
  EXPECT_EQ(far.opener.call(2, "add", {"1", "1"}), "2");
  // A second node has tasks of the same job: it goes on when the first has none any more.
  Opener second(far.relay.peer.relay);
  second.tell_job(far.job, job_body(far.job, {relay_worker()}));
  ASSERT_EQ(second.open_lane(far.job, 2), RAY_OK);
  second.define(far.job, "await");
  second.run(2, "await", {far.path("second"), far.path("never")});
  ASSERT_TRUE(eventually([&] { return far.is_there("second"); }));
  far.opener.send(r);
  second.define(far.job, "add");
  EXPECT_EQ(second.call(2, "add", {"1", "1"}), "2");
  EXPECT_TRUE(running(far.pid_in("second")));
  // And ends when that node is dead.
  relay::Peer dead;
  dead.id = second.node;
  dead.index = 5;
  dead.dead = true;
  far.relay.meet(dead);
  EXPECT_TRUE(eventually([&] { return !running(far.pid_in("second")); }));
}

TEST(Gateway, ForgetsFunctionsAndIsToldAgain) {
  Far far;
  far.open({"add"});
  relay::Record r;
  r.kind = relay::Kind::kForget;
  r.job = far.job;
  r.key = function_key("add");
  far.opener.send(r);
  const Opener::Answer a = far.opener.answer(far.opener.run(1, "add", {"1", "1"}));
  EXPECT_EQ(a.kind, relay::Kind::kReturned);
  EXPECT_EQ(a.flags, relay::kUnknownFunction);
  far.opener.define(far.job, "add");
  EXPECT_EQ(far.opener.call(1, "add", {"1", "1"}), "2");
  // A definition that is not what its key stands for is no function.
  r = {};
  r.kind = relay::Kind::kFunction;
  r.job = far.job;
  r.key = function_key("sum");
  r.name = "add";
  far.opener.send(r);
  EXPECT_EQ(far.opener.answer(far.opener.run(1, "sum", {"1", "1"})).code, RAY_INTERNAL);
}

TEST(Gateway, AJobThatIsHereIsRefused) {
  Far far;
  auto driver = std::make_unique<RawClient>();
  ASSERT_EQ(driver->hello(far.place.session.dir, far.place.session.token, RAY_MODE_DRIVER, RAY_LANG_JAVA, 0,
                          RawClient::driver_body({})), RAY_OK);
  far.opener.tell_job(driver->welcome.job, job_body(driver->welcome.job, {relay_worker()}));
  std::string why;
  EXPECT_EQ(far.opener.open_lane(driver->welcome.job, 1, one_cpu(), &why), RAY_ALREADY_EXISTS) << why;
  EXPECT_EQ(far.opener.open_lane(random_id(), 2, one_cpu(), &why), RAY_UNAVAILABLE) << why;
  far.open({"add"}, 3);
  EXPECT_EQ(far.opener.call(3, "add", {"1", "1"}), "2");
}

TEST(Gateway, WhoBreaksTheRulesLosesTheLaneAlone) {
  Far far;
  far.open({"await", "add"});
  ASSERT_EQ(far.opener.open_lane(far.job, 2), RAY_OK);
  const relay::Task t = far.opener.task("await", {far.path("runs"), far.path("never")});
  far.opener.send_task(1, t);
  far.opener.send_task(1, t);  // the same number
  EXPECT_NE(far.opener.over(1).find("twice"), std::string::npos);
  EXPECT_EQ(far.opener.call(2, "add", {"1", "1"}), "2");
}

TEST(Gateway, BytesThatNobodyUnderstandsEndWhatTheirSenderHas) {
  Far far;
  far.open({"await", "add"});
  far.opener.run(1, "await", {far.path("runs"), far.path("never")});
  ASSERT_TRUE(eventually([&] { return far.is_there("runs"); }));
  far.opener.send(std::string("\x93\xcc\xff garbage"));
  EXPECT_TRUE(eventually([&] { return !running(far.pid_in("runs")); }));
  EXPECT_TRUE(running(far.relay.pid())) << far.relay.log();
  far.open({"add"}, 2);
  EXPECT_EQ(far.opener.call(2, "add", {"1", "1"}), "2");
}

TEST(Gateway, ManyTasksComeAndGo) {
  Far far;
  far.open({"add"});
  std::deque<uint64_t> sent;
  int sum = 0, expected = 0;
  for (int i = 0; i < 5000; ++i) {
    if (sent.size() == 200) {
      sum += std::stoi(far.opener.answer(sent.front()).values.at(0));
      sent.pop_front();
    }
    sent.push_back(far.opener.run(1, "add", {std::to_string(i), "1"}));
    expected += i + 1;
  }
  for (uint64_t n : sent) sum += std::stoi(far.opener.answer(n).values.at(0));
  EXPECT_EQ(sum, expected);
  EXPECT_EQ(far.relay.end(), 0) << "it ends in order: " << far.relay.log();
}

}  // namespace
}  // namespace ray::test
