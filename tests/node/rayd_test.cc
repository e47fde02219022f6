// rayd as a process, spoken to by hand: hello, leases, links, deaths, hostile clients, the end.
#include <sys/stat.h>

#include "cluster.h"

namespace ray::test {
namespace {

TEST(Rayd, WelcomesWithTokenOnly) {
  Cluster cluster;
  RawClient bad;
  EXPECT_EQ(bad.hello(cluster.session.dir, std::string(32, '0'), RAY_MODE_DRIVER, 0, 0, "\x80"),
            RAY_INVALID_ARGUMENT);
  EXPECT_NE(bad.text.find("token"), std::string::npos) << bad.text;
  auto good = cluster.driver();
  EXPECT_EQ(good->welcome.daemon_pid, cluster.pid);
  EXPECT_EQ(good->page->magic, wire::kMagic);
  EXPECT_EQ(good->header->process, good->process());
  EXPECT_EQ(good->welcome.root, root_task(good->welcome.job));
  // A worker that nobody started is no worker.
  RawClient fake;
  EXPECT_EQ(fake.hello(cluster.session.dir, cluster.session.token, RAY_MODE_WORKER, 0, 4242, "\x80"),
            RAY_INVALID_ARGUMENT);
  struct stat st;
  ASSERT_EQ(::stat((cluster.session.dir + "/node.sock").c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 0777, 0600u);
}

TEST(Rayd, GrantsLeaseRunsTaskReturnsLease) {
  Cluster cluster;
  auto d = cluster.driver();
  d->shape(0, {{"CPU", 1}});
  want(d.get(), 0, 2);
  auto a = grant(d.get()), b = grant(d.get());
  EXPECT_NE(a.worker, b.worker);
  wire::DoneHeader done;
  ASSERT_TRUE(d->push(a.link, 11, 1));
  ASSERT_TRUE(d->push(b.link, 22, 1));
  ASSERT_TRUE(d->result(a.link, &done));
  EXPECT_EQ(done.tag, 11u);
  ASSERT_TRUE(d->result(b.link, &done));
  EXPECT_EQ(done.tag, 22u);
  // The same worker again: same link.
  want(d.get(), 0, 0);
  d->up(wire::kUpLeaseReturn, wire::UpLeaseReturn{a.worker, a.lease});
  d->up(wire::kUpLeaseReturn, wire::UpLeaseReturn{b.worker, b.lease});
  want(d.get(), 0, 1);
  auto again = grant(d.get());
  EXPECT_TRUE(again.link == a.link || again.link == b.link);
  EXPECT_NE(again.lease, a.lease);
}

TEST(Rayd, BlockedWorkerLendsItsCpu) {
  Cluster cluster(1);
  auto d = cluster.driver();
  d->shape(0, {{"CPU", 1}});
  want(d.get(), 0, 2);
  auto a = grant(d.get());
  ASSERT_TRUE(d->push(a.link, 1, 2));  // says that it is blocked
  auto b = grant(d.get());             // hence a second worker on one CPU
  EXPECT_NE(a.worker, b.worker);
  wire::DoneHeader done;
  ASSERT_TRUE(d->push(b.link, 2, 1));
  ASSERT_TRUE(d->result(b.link, &done));
  std::ofstream(cluster.session.dir + "/go") << "go";
  ASSERT_TRUE(d->result(a.link, &done));
  EXPECT_EQ(done.tag, 1u);
}

TEST(Rayd, TellsPeersHowAWorkerDied) {
  Cluster cluster;
  auto d = cluster.driver();
  d->shape(0, {{"CPU", 1}});
  want(d.get(), 0, 1);
  auto a = grant(d.get());
  int pid = pid_of(d.get(), a.worker);
  ASSERT_TRUE(d->push(a.link, 1, 5));
  ::kill(pid, SIGKILL);
  Record r;
  ASSERT_TRUE(d->wait_type(wire::kDnPeerDied, &r));
  auto died = r.as<wire::DnPeerDied>();
  EXPECT_EQ(died.process, a.worker);
  EXPECT_EQ(static_cast<int>(died.pid), pid);
  EXPECT_TRUE(WIFSIGNALED(died.wait_status) && WTERMSIG(died.wait_status) == SIGKILL);
  EXPECT_EQ(died.cause, static_cast<uint32_t>(wire::kDeathCrash));
  // The want still stands, so another worker comes; this one crashes by itself.
  auto b = grant(d.get());
  ASSERT_TRUE(d->push(b.link, 2, 3));
  ASSERT_TRUE(d->wait_type(wire::kDnPeerDied, &r));
  died = r.as<wire::DnPeerDied>();
  EXPECT_TRUE(WIFSIGNALED(died.wait_status) && WTERMSIG(died.wait_status) == SIGABRT);
  auto c = grant(d.get());
  ASSERT_TRUE(d->push(c.link, 3, 6));
  ASSERT_TRUE(d->wait_type(wire::kDnPeerDied, &r));
  died = r.as<wire::DnPeerDied>();
  EXPECT_TRUE(WIFEXITED(died.wait_status) && WEXITSTATUS(died.wait_status) == 7);
}

TEST(Rayd, ForceCancelKillsOnlyForTheHolder) {
  Cluster cluster;
  auto d = cluster.driver(), other = cluster.driver();
  d->shape(0, {{"CPU", 1}});
  want(d.get(), 0, 1);
  auto a = grant(d.get());
  ASSERT_TRUE(d->push(a.link, 1, 5));
  other->up(wire::kUpKillWorker, wire::UpLeaseReturn{a.worker, a.lease});
  d->up(wire::kUpKillWorker, wire::UpLeaseReturn{a.worker, a.lease + 77});
  Record r;
  // Both were ignored: requests behind them are answered and the worker still lives.
  int32_t code;
  std::string body;
  ASSERT_TRUE(other->answer(other->request(wire::kOpPing, "\x90"), &code, &body));
  ASSERT_TRUE(d->answer(d->request(wire::kOpPing, "\x90"), &code, &body));
  EXPECT_FALSE(d->wait_type(wire::kDnPeerDied, &r, 50));
  d->up(wire::kUpKillWorker, wire::UpLeaseReturn{a.worker, a.lease});
  ASSERT_TRUE(d->wait_type(wire::kDnPeerDied, &r));
  EXPECT_EQ(r.as<wire::DnPeerDied>().cause, static_cast<uint32_t>(wire::kDeathForced));
}

TEST(Rayd, ReportsInfeasibleShapeOnceWithTheReason) {
  // {"GPU": 1, "disk": 0.5}
  Cluster cluster(2, ::getpid(), "82a347505501a46469736bcb3fe0000000000000");
  auto d = cluster.driver();
  d->shape(0, {{"CPU", 8}});
  want(d.get(), 0, 1);
  Record r;
  ASSERT_TRUE(d->wait_type(wire::kDnInfeasible, &r));
  EXPECT_NE(r.tail<wire::DnLease>().find("only 2 of 'CPU'"), std::string::npos);
  want(d.get(), 0, 2);
  d->shape(1, {{"TPU", 1}});
  want(d.get(), 1, 1);
  ASSERT_TRUE(d->wait_type(wire::kDnInfeasible, &r));
  EXPECT_EQ(r.as<wire::DnLease>().shape, 1u);
  EXPECT_NE(r.tail<wire::DnLease>().find("no resource 'TPU'"), std::string::npos);
  d->shape(2, {{"GPU", 1}, {"disk", 0.25}});
  want(d.get(), 2, 2);
  auto a = grant(d.get());
  EXPECT_EQ(a.shape, 2u);
  EXPECT_FALSE(d->wait_type(wire::kDnLeaseGrant, &r, 100));  // one GPU: one lease
}

TEST(Rayd, TooManyRuntimeEnvironmentsFailTheirTasksNotTheirProcess) {
  Cluster cluster;
  auto d = cluster.driver();
  const std::string padding(16'000, 'x');
  auto shape = [&padding](RawClient* client, uint32_t number, const char* kind) {
    wire::Packer w;
    w.map(2).str("CPU").float64(1).str(wire::kRuntimeEnv).map(2).str(kind).uint64(number).str("more").str(padding);
    return client->up(wire::kUpShape, wire::UpShape{number, 0}, w.bytes());
  };
  constexpr uint32_t kMost = 5000;  // more than fit into 64 MB
  for (uint32_t i = 0; i < kMost; ++i) ASSERT_TRUE(shape(d.get(), i, "first"));
  Record r;
  ASSERT_TRUE(d->wait_type(wire::kDnUnplaceable, &r));
  EXPECT_GE(r.as<wire::DnUnplaceable>().shape, 4096u);
  EXPECT_EQ(r.as<wire::DnUnplaceable>().code, RAY_UNSCHEDULABLE);
  EXPECT_NE(r.tail<wire::DnUnplaceable>().find("different runtime environments"), std::string::npos);
  d->shape(kMost + 1, {{"CPU", 1}});
  want(d.get(), kMost + 1, 1);
  EXPECT_NE(grant(d.get()).link, 0u);
  // And they go with their process: the next driver has room for its own.
  d.reset();
  auto next = cluster.driver();
  ASSERT_TRUE(eventually([&] { return cluster.tables(next.get())["environments"] == 0; }));
  ASSERT_TRUE(shape(next.get(), 0, "second"));
  want(next.get(), 0, 1);
  EXPECT_NE(grant(next.get()).link, 0u);
}

// What drivers leave behind is forgotten: jobs, environments, shapes, names of resources, pools of workers.
TEST(Rayd, DriversThatComeAndGoLeaveNothing) {
  Cluster cluster;
  auto keeper = cluster.driver();
  auto before = cluster.tables(keeper.get());
  for (uint32_t i = 0; i < 20; ++i) {
    auto d = cluster.driver();
    wire::Packer w;
    w.map(3).str("CPU").float64(1).str("only-" + std::to_string(i)).float64(1);
    w.str(wire::kRuntimeEnv).map(1).str("number").uint64(i);
    ASSERT_TRUE(d->up(wire::kUpShape, wire::UpShape{0, 0}, w.bytes()));
    want(d.get(), 0, 1);
    d->shape(1, {{"CPU", 0.5}});
    want(d.get(), 1, 1);
    EXPECT_NE(grant(d.get()).link, 0u);
  }
  EXPECT_TRUE(eventually([&] {
    auto now = cluster.tables(keeper.get());
    now["workers"] = before["workers"];  // the keeper's own may have started meanwhile
    now["processes"] = before["processes"];
    now["pools"] = before["pools"];
    now["prestarts"] = before["prestarts"];
    return now == before;
  })) << [&] {
    std::string text;
    for (auto& [name, n] : cluster.tables(keeper.get())) text += name + " " + std::to_string(n) + ", ";
    return text;
  }();
}

TEST(Rayd, SecondClientGetsItsTurn) {
  Cluster cluster(1);
  auto first = cluster.driver(), second = cluster.driver();
  first->shape(0, {{"CPU", 1}});
  second->shape(0, {{"CPU", 1}});
  want(first.get(), 0, 1);
  auto a = grant(first.get());
  want(second.get(), 0, 1);
  Record r;
  ASSERT_TRUE(first->wait_type(wire::kDnLeaseReclaim, &r));
  EXPECT_EQ(r.as<wire::DnLease>().lease, a.lease);
  first->up(wire::kUpLeaseReturn, wire::UpLeaseReturn{a.worker, a.lease});
  grant(second.get());
}

TEST(Rayd, CutsOffWhoWritesGarbage) {
  Cluster cluster;
  auto keeper = cluster.driver();
  {
    auto d = cluster.driver();
    d->up_bytes(777, "what is this");
    EXPECT_TRUE(d->wait_closed());
  }
  {
    auto d = cluster.driver();
    d->up_bytes(wire::kUpObjShare, "short");
    EXPECT_TRUE(d->wait_closed());
  }
  {
    auto d = cluster.driver();  // more contained ids than the record has bytes
    wire::UpObj o{};
    o.n_contained = 0xFFFFFFFF;
    d->up(wire::kUpObjShare, o);
    EXPECT_TRUE(d->wait_closed());
  }
  {
    auto d = cluster.driver();  // a tail that points nowhere
    d->header->up.tail.store(0xDEADBEEFDEADBEE8ull);
    d->knock();
    EXPECT_TRUE(d->wait_closed());
  }
  {
    auto d = cluster.driver();  // a record whose length leaves the ring
    uint32_t lie = 0x7FFFFFF0;
    std::memcpy(reinterpret_cast<uint8_t*>(d->header) + wire::kUpOffset, &lie, sizeof lie);
    d->header->up.tail.store(64);
    d->knock();
    EXPECT_TRUE(d->wait_closed());
  }
  {
    auto d = cluster.driver();  // the lineage ring
    d->header->lineage.tail.store(0xFFFFFFFFFFFFFFF8ull);
    d->page->lineage_armed.store(0);
    d->knock();
    EXPECT_TRUE(d->wait_closed());
  }
  {
    auto d = cluster.driver();  // talk on the socket
    (void)!::send(d->socket(), "hi", 2, MSG_NOSIGNAL);
    EXPECT_TRUE(d->wait_closed());
  }
  {
    auto d = cluster.driver();  // leases of a shape that was never defined
    want(d.get(), 99, 1);
    EXPECT_TRUE(d->wait_closed());
  }
  // A worker that does so is killed, and whoever uses it is told.
  keeper->shape(0, {{"CPU", 1}});
  want(keeper.get(), 0, 1);
  auto a = grant(keeper.get());
  ASSERT_TRUE(keeper->push(a.link, 1, 4));
  Record r;
  ASSERT_TRUE(keeper->wait_type(wire::kDnPeerDied, &r));
  EXPECT_NE(cluster.log().find("cut-off"), std::string::npos);
  int32_t code;
  std::string body;
  ASSERT_TRUE(keeper->answer(keeper->request(wire::kOpPing, "\x90"), &code, &body));
  EXPECT_EQ(code, RAY_OK);
}

TEST(Rayd, RandomBytesNeverCrashIt) {
  Cluster cluster;
  uint64_t x = 88172645463325252ull;
  auto next = [&x] {
    x ^= x << 13;
    x ^= x >> 7;
    return x ^= x << 17;
  };
  for (int round = 0; round < 60; ++round) {
    auto d = cluster.driver();
    for (int i = 0; i < 50 && !d->closed(); ++i) {
      std::string bytes(next() % 200, '\0');
      for (char& c : bytes) c = static_cast<char>(next());
      // Small counts, so that some records get past the first check.
      if (bytes.size() > 64 && next() % 2) std::memset(bytes.data() + 48, 0, 16);
      if (!d->up_bytes(static_cast<uint16_t>(1 + next() % 18), bytes)) break;
    }
    d->knock();
  }
  auto d = cluster.driver();
  int32_t code;
  std::string body;
  ASSERT_TRUE(d->answer(d->request(wire::kOpPing, "\x90"), &code, &body));
  EXPECT_EQ(code, RAY_OK);
}

TEST(Rayd, ObjectsAreToldAndLost) {
  Cluster cluster;
  auto owner = cluster.driver(), reader = cluster.driver();
  TaskId task = child_task(origin_of(owner->welcome.root), 1);
  ObjectId id = return_object(task, 0), late = return_object(task, 1);
  for (const ObjectId& o : {id, late}) {
    owner->up(wire::kUpObjShare, wire::UpObj{o, {}, wire::kObjPending, 0, 0, 0});
    owner->up(wire::kUpObjHold, wire::UpObjCount{o, reader->process(), 1});
  }
  int32_t code;
  std::string body;
  ASSERT_TRUE(owner->answer(owner->request(wire::kOpPing, "\x90"), &code, &body));
  reader->up(wire::kUpObjResolve, wire::UpObj{id, {}, 0, 0, 0, 0});
  reader->up(wire::kUpObjResolve, wire::UpObj{late, {}, 0, 0, 0, 0});
  wire::Location where{1, 1, 4096, 100};
  owner->up(wire::kUpObjReady, wire::UpObj{id, where, wire::kObjReady, 0, 0, 0});
  Record r;
  ASSERT_TRUE(reader->wait_type(wire::kDnObjState, &r));
  auto s = r.as<wire::DnObjState>();
  EXPECT_EQ(s.id, id);
  EXPECT_EQ(s.state, static_cast<uint32_t>(wire::kObjReady));
  EXPECT_EQ(s.location.offset, 4096u);
  owner->close();  // before the other one was ready
  ASSERT_TRUE(reader->wait_type(wire::kDnObjState, &r));
  s = r.as<wire::DnObjState>();
  EXPECT_EQ(s.id, late);
  EXPECT_EQ(s.state, static_cast<uint32_t>(wire::kObjLost));
  EXPECT_EQ(s.code, RAY_OBJECT_LOST);
  // What was ready stays for who holds it.
  reader->up(wire::kUpObjResolve, wire::UpObj{id, {}, 0, 0, 0, 0});
  ASSERT_TRUE(reader->wait_type(wire::kDnObjState, &r));
  EXPECT_EQ(r.as<wire::DnObjState>().state, static_cast<uint32_t>(wire::kObjReady));
}

// The ring of who asks is read before that of who makes the object again, although that was written to first.
TEST(Rayd, WhatWasSaidBeforeAQuestionCountsForItsAnswer) {
  Cluster cluster;
  auto reader = cluster.driver(), maker = cluster.driver(), first = cluster.driver();
  TaskId task = child_task(origin_of(maker->welcome.root), 1);
  ObjectId id = put_object(task, 1);
  wire::Location older{1, 1, 4096, 100}, newer{1, 1, 8192, 100};
  int32_t code = -1;
  std::string body;
  first->up(wire::kUpObjShare, wire::UpObj{id, older, wire::kObjReady, 0, 0, 0});
  first->up(wire::kUpObjHold, wire::UpObjCount{id, reader->process(), 1});
  ASSERT_TRUE(first->answer(first->request(wire::kOpPing, "\x90"), &code, &body));
  wire::Packer define, get;
  define.array(5).uint64(4711).int64(RAY_LANG_PYTHON).uint64(wire::kFnOpaque).str("f").bin("definition");
  get.array(1).uint64(4711);
  ::kill(cluster.pid, SIGSTOP);
  maker->request(wire::kOpFunctionDefine, define.bytes());
  maker->up(wire::kUpObjShare, wire::UpObj{id, {}, wire::kObjPending, 0, 0, 0});
  uint64_t asked = reader->request(wire::kOpFunctionGet, get.bytes());
  reader->up(wire::kUpObjResolve, wire::UpObj{id, {}, 0, 0, 0, 0});
  ::kill(cluster.pid, SIGCONT);
  ASSERT_TRUE(reader->answer(asked, &code, &body));
  EXPECT_EQ(code, RAY_OK) << body;
  maker->up(wire::kUpObjReady, wire::UpObj{id, newer, wire::kObjReady, 0, 0, 0});
  Record r;
  ASSERT_TRUE(reader->wait_type(wire::kDnObjState, &r));
  EXPECT_EQ(r.as<wire::DnObjState>().location.offset, newer.offset);
}

// Whoever writes without a pause keeps its ring full, and nobody's objects from being freed.
TEST(Rayd, ObjectsAreFreedWhateverOthersWrite) {
  Cluster cluster;
  auto quiet = cluster.driver();
  std::vector<std::unique_ptr<RawClient>> busy;
  std::vector<std::thread> writers;
  std::atomic<bool> stop{false};
  for (int i = 0; i < 2; ++i) {
    busy.push_back(cluster.driver());
    writers.emplace_back([&stop, c = busy.back().get()] {
      const wire::UpObjCount count{put_object(child_task(origin_of(c->welcome.root), 1), 1), c->process(), 1};
      const std::string payload(reinterpret_cast<const char*>(&count), sizeof count);
      while (!stop)
        if (!c->up_bytes(wire::kUpObjHold, payload) || !c->up_bytes(wire::kUpObjRelease, payload)) return;
    });
  }
  TaskId task = child_task(origin_of(quiet->welcome.root), 1);
  for (uint32_t i = 0; i < 100; ++i)
    quiet->up(wire::kUpObjShare, wire::UpObj{put_object(task, i), {}, wire::kObjPending, 0, 0, 0});
  EXPECT_TRUE(eventually([&] { return cluster.tables(quiet.get())["objects"] >= 100; }));
  for (uint32_t i = 0; i < 100; ++i)
    quiet->up(wire::kUpObjRelease, wire::UpObjCount{put_object(task, i), quiet->process(), 1});
  EXPECT_TRUE(eventually([&] { return cluster.tables(quiet.get())["objects"] <= 2; }));
  stop = true;
  for (auto& w : writers) w.join();
}

// It would be the end of whoever looks at it.
TEST(Rayd, NobodyCutsTheMemoryThatIsShared) {
  Cluster cluster;
  auto d = cluster.driver();
  for (const Fd* fd : {&d->memory.page, &d->memory.channel}) EXPECT_NE(::ftruncate(fd->get(), 0), 0);
  int32_t code;
  std::string body;
  ASSERT_TRUE(d->answer(d->request(wire::kOpPing, "\x90"), &code, &body));
}

// Others have been told of an actor that was to come, and the node has no place for it: they hear of that.
TEST(Rayd, AnAnnouncedActorThatIsRefusedIsDeadForAll) {
  Cluster cluster;
  auto creator = cluster.driver(), other = cluster.driver();
  ActorId id = actor_of(child_task(origin_of(creator->welcome.root), 1));
  int32_t code;
  std::string body;
  announce(creator.get(), id, {3, 5, RAY_ACTOR_OUT_OF_ORDER, 7});
  ASSERT_TRUE(creator->answer(creator->request(wire::kOpPing, "\x90"), &code, &body));
  other->up(wire::kUpActorConnect, wire::UpActor{id, 0, RAY_OK, 0, 0});
  ASSERT_TRUE(other->answer(other->request(wire::kOpPing, "\x90"), &code, &body));
  wire::UpActorCreate c{};
  c.id = id;
  c.record_size = 200 << 10;
  creator->up(wire::kUpActorCreate, c, std::string(c.record_size, 'r'));
  Record r;
  ASSERT_TRUE(other->wait_type(wire::kDnActorState, &r));  // how it is to be called, for those that call it already
  const auto pending = r.as<wire::DnActorState>();
  EXPECT_EQ(pending.state, static_cast<uint32_t>(wire::kActorPending));
  EXPECT_EQ(pending.max_task_retries, 5);
  EXPECT_EQ(pending.flags, static_cast<uint32_t>(RAY_ACTOR_OUT_OF_ORDER));
  EXPECT_EQ(pending.max_pending_calls, 7u);
  for (RawClient* each : {creator.get(), other.get()}) {
    ASSERT_TRUE(each->wait_type(wire::kDnActorState, &r));
    EXPECT_EQ(r.as<wire::DnActorState>().state, static_cast<uint32_t>(wire::kActorDead));
  }
}

TEST(Rayd, DriverDeathEndsItsWorkers) {
  Cluster cluster(2);
  auto keeper = cluster.driver();
  auto d = cluster.driver();
  d->shape(0, {{"CPU", 1}});
  want(d.get(), 0, 1);
  auto a = grant(d.get());
  int pid = pid_of(d.get(), a.worker);
  EXPECT_TRUE(running(pid));
  d->close();
  EXPECT_TRUE(eventually([pid] { return !running(pid); }));
  // Its CPU is free again.
  keeper->shape(0, {{"CPU", 2}});
  want(keeper.get(), 0, 1);
  grant(keeper.get());
}

TEST(Rayd, EndsWithTheDriverThatStartedIt) {
  int parent = fake_parent();
  Cluster cluster(2, parent);
  auto d = cluster.driver();
  d->shape(0, {{"CPU", 1}});
  want(d.get(), 0, 1);
  grant(d.get());
  ::kill(parent, SIGKILL);
  ::waitpid(parent, nullptr, 0);
  Record r;
  EXPECT_TRUE(d->wait_type(wire::kDnShutdown, &r));
  int status = cluster.wait();
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  EXPECT_TRUE(processes_of(cluster.session.dir).empty());
  EXPECT_FALSE(cluster.has_sockets());
}

TEST(Rayd, KillNineLeavesNothingBehind) {
  Cluster cluster;
  auto d = cluster.driver();
  d->shape(0, {{"CPU", 1}});
  want(d.get(), 0, 2);
  auto a = grant(d.get());
  grant(d.get());
  ASSERT_TRUE(d->push(a.link, 1, 5));
  ::kill(cluster.pid, SIGKILL);
  cluster.wait();
  EXPECT_TRUE(d->wait_closed());
  EXPECT_TRUE(eventually([&] { return processes_of(cluster.session.dir).empty(); }));
  EXPECT_TRUE(eventually([&] { return !cluster.has_sockets(); }));
}

// Who asks for the end may be dead when that is read. A sanitizer build sees what becomes of its memory.
TEST(Rayd, ShutdownOfADriverThatIsGoneIsOrderly) {
  for (int i = 0; i < 3; ++i) {
    Cluster cluster;
    auto d = cluster.driver();
    const wire::UpRequest ask{1, wire::kOpShutdown, 0};
    const std::string record = std::string(reinterpret_cast<const char*>(&ask), sizeof ask) + "\x90";
    void* at = d->up_ring()->reserve(wire::kUpRequest, static_cast<uint32_t>(record.size()), 0);
    ASSERT_NE(at, nullptr);
    std::memcpy(at, record.data(), record.size());
    d->up_ring()->publish();  // the daemon is not woken for it, and reads it when it sees the death
    d->close();
    const int status = cluster.wait();
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
    EXPECT_FALSE(cluster.has_sockets());
  }
}

TEST(Rayd, ShutdownRequestIsAnsweredAtTheEnd) {
  Cluster cluster;
  auto d = cluster.driver();
  d->shape(0, {{"CPU", 1}});
  want(d.get(), 0, 1);
  grant(d.get());
  int32_t code = -1;
  std::string body;
  ASSERT_TRUE(d->answer(d->request(wire::kOpShutdown, "\x90"), &code, &body));
  EXPECT_EQ(code, RAY_OK);
  int status = cluster.wait();
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  EXPECT_FALSE(cluster.has_sockets());
}

TEST(Rayd, SaysWhyItCannotStart) {
  auto rayd = session::find_rayd();
  ASSERT_TRUE(rayd.ok());
  int fds[2];
  ASSERT_EQ(::pipe2(fds, O_CLOEXEC), 0);
  int pid = ::fork();
  if (pid == 0) {
    ::dup2(fds[1], 9);
    ::execl(rayd->c_str(), "rayd", "node", "--session", "/nonexistent/session", "--ready-fd", "9",
            nullptr);
    ::_exit(127);
  }
  ::close(fds[1]);
  std::string said;
  char buf[512];
  ssize_t n;
  while ((n = ::read(fds[0], buf, sizeof buf)) > 0) said.append(buf, static_cast<size_t>(n));
  ::close(fds[0]);
  int status;
  ::waitpid(pid, &status, 0);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 1);
  EXPECT_EQ(said.rfind("error: ", 0), 0u) << said;
  EXPECT_NE(said.find("/nonexistent/session"), std::string::npos) << said;
}

TEST(Rayd, SleepsWhenIdle) {
  Cluster cluster;
  auto d = cluster.driver();
  d->shape(0, {{"CPU", 1}});
  want(d.get(), 0, 1);
  grant(d.get());
  auto switches = [&] {
    std::ifstream f("/proc/" + std::to_string(cluster.pid) + "/task/" + std::to_string(cluster.pid) +
                    "/status");
    std::string word;
    uint64_t n = 0;
    while (f >> word)
      if (word == "voluntary_ctxt_switches:") f >> n;
    return n;
  };
  // Armed and asleep: nothing wakes the loop any more.
  ASSERT_TRUE(eventually([&] { return d->page->daemon_armed.load() == 1; }));
  ASSERT_TRUE(eventually([&] {
    uint64_t before = switches();
    ::usleep(300000);
    return switches() == before;
  }));
}

// ---- actors ----------------------------------------------------------------------------------------

TEST(Rayd, ActorLivesAnswersAndEndsWithItsHandle) {
  Cluster cluster;
  auto d = cluster.driver();
  ActorMaker m{d.get()};
  ActorId id = m.create("", "make", 0);
  wire::DnActorState s;
  ASSERT_TRUE(m.wait(id, wire::kActorAlive, &s));
  wire::DoneHeader done;
  ASSERT_TRUE(d->push(s.link, 5, 1, RAY_KIND_ACTOR_CALL));
  ASSERT_TRUE(d->result(s.link, &done));
  EXPECT_EQ(done.tag, 5u);
  d->up(wire::kUpObjRelease, wire::UpObjCount{id, d->process(), 1});
  ASSERT_TRUE(m.wait(id, wire::kActorDead, &s));
  EXPECT_EQ(s.code, RAY_ACTOR_DIED);
}

TEST(Rayd, ActorRestartsAsOftenAsAllowed) {
  Cluster cluster;
  auto d = cluster.driver();
  ActorMaker m{d.get()};
  ActorId id = m.create("", "make", 1);
  wire::DnActorState s;
  ASSERT_TRUE(m.wait(id, wire::kActorAlive, &s));
  EXPECT_EQ(s.incarnation, 0u);
  ASSERT_TRUE(d->push(s.link, 1, 3, RAY_KIND_ACTOR_CALL));
  ASSERT_TRUE(m.wait(id, wire::kActorRestarting, &s));
  ASSERT_TRUE(m.wait(id, wire::kActorAlive, &s));
  EXPECT_EQ(s.incarnation, 1u);
  ASSERT_TRUE(d->push(s.link, 2, 3, RAY_KIND_ACTOR_CALL));
  std::string cause;
  ASSERT_TRUE(m.wait(id, wire::kActorDead, &s, &cause));
  ray_code code;
  std::string message, payload;
  uint32_t format;
  ASSERT_TRUE(wire::unpack_error(cause.data(), cause.size(), &code, &message, &format, &payload));
  EXPECT_EQ(code, RAY_ACTOR_DIED);
  EXPECT_NE(message.find("signal 6"), std::string::npos) << message;
}

TEST(Rayd, ActorKillAndFailedConstructor) {
  Cluster cluster;
  auto d = cluster.driver();
  ActorMaker m{d.get()};
  ActorId id = m.create("", "make", -1);
  wire::DnActorState s;
  ASSERT_TRUE(m.wait(id, wire::kActorAlive, &s));
  d->up(wire::kUpActorKill, wire::UpActor{id, 0, 0, 1, 0});
  ASSERT_TRUE(m.wait(id, wire::kActorRestarting, &s));
  ASSERT_TRUE(m.wait(id, wire::kActorAlive, &s));
  d->up(wire::kUpActorKill, wire::UpActor{id, 0, 0, 0, 0});
  ASSERT_TRUE(m.wait(id, wire::kActorDead, &s));
  ActorId bad = m.create("", "fail", -1);
  ASSERT_TRUE(m.wait(bad, wire::kActorDead, &s));
  EXPECT_EQ(s.code, RAY_TASK_FAILED);
  // Somebody who asks about an actor that nobody knows is told that it is dead.
  ActorId unknown = actor_of(child_task(origin_of(d->welcome.root), 999));
  d->up(wire::kUpActorConnect, wire::UpActor{unknown, 0, 0, 0, 0});
  ASSERT_TRUE(m.wait(unknown, wire::kActorDead, &s));
}

}  // namespace
}  // namespace ray::test
