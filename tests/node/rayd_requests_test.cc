// rayd's requests: key-value, functions, queries, named actors; and what happens when a shard is killed.
#include "cluster.h"
#include "libray/lineage/record.h"

namespace ray::test {
namespace {

using wire::Cursor;
using wire::Packer;

struct Answer {
  int32_t code = -1;
  std::string body;
};

Answer ask(RawClient* c, uint32_t op, const std::string& args) {
  Answer a;
  EXPECT_TRUE(c->answer(c->request(op, args), &a.code, &a.body)) << "no answer to operation " << op;
  return a;
}

std::string kv(const std::string& ns, const std::string& key) {
  Packer w;
  w.array(2).str(ns).bin(key);
  return w.bytes();
}
std::string kv_put(const std::string& key, const std::string& value, uint64_t expected) {
  Packer w;
  w.array(4).str("ns").bin(key).bin(value).uint64(expected);
  return w.bytes();
}
std::string query(const std::string& what) {
  Packer w;
  w.array(2).str(what).map(0);
  return w.bytes();
}
// Rows of a query answer, as maps of strings (numbers in decimal, anything else empty).
std::vector<std::map<std::string, std::string>> rows_of(const Answer& a) {
  std::vector<std::map<std::string, std::string>> rows;
  Cursor r(a.body);
  EXPECT_EQ(r.array(), 1u);
  uint32_t n = r.array();
  for (uint32_t i = 0; i < n && r.ok(); ++i) {
    std::map<std::string, std::string> row;
    uint32_t m = r.map();
    for (uint32_t k = 0; k < m && r.ok(); ++k) {
      std::string name = r.text();
      std::string_view raw = r.value();
      Cursor text(raw), number(raw);
      std::string s = text.text();
      int64_t v = number.int64();
      row[name] = text.ok() ? s : number.ok() ? std::to_string(v) : "";
    }
    rows.push_back(row);
  }
  EXPECT_TRUE(r.done());
  return rows;
}

TEST(RaydRequests, KeyValueWithCompareAndSwap) {
  Cluster cluster;
  auto d = cluster.driver();
  EXPECT_EQ(ask(d.get(), wire::kOpKvGet, kv("ns", "a")).code, RAY_NOT_FOUND);
  Answer put = ask(d.get(), wire::kOpKvPut, kv_put("a", "one", 0));
  ASSERT_EQ(put.code, RAY_OK) << put.body;
  EXPECT_EQ(ask(d.get(), wire::kOpKvPut, kv_put("a", "two", 0)).code, RAY_CONFLICT);
  EXPECT_EQ(ask(d.get(), wire::kOpKvPut, kv_put("a", "two", 1)).code, RAY_OK);
  Answer got = ask(d.get(), wire::kOpKvGet, kv("ns", "a"));
  ASSERT_EQ(got.code, RAY_OK);
  Cursor r(got.body);
  EXPECT_EQ(r.array(), 2u);
  EXPECT_EQ(r.uint64(), 2u);
  EXPECT_EQ(r.text(), "two");
  for (int i = 0; i < 20; ++i)
    ask(d.get(), wire::kOpKvPut, kv_put("list" + std::to_string(i), "x", UINT64_MAX));
  Answer list = ask(d.get(), wire::kOpKvList, kv("ns", "list"));
  Cursor l(list.body);
  EXPECT_EQ(l.array(), 1u);
  EXPECT_EQ(l.array(), 20u);  // from all shards
}

TEST(RaydRequests, LargeValuesTravelInFragments) {
  Cluster cluster;
  auto d = cluster.driver();
  std::string big(1'000'000, 'x');
  for (size_t i = 0; i < big.size(); ++i) big[i] = static_cast<char>(i * 7);
  std::string args = kv_put("big", big, UINT64_MAX);
  constexpr uint64_t kId = 1000;
  for (size_t at = 0; at < args.size();) {
    size_t n = std::min<size_t>(args.size() - at, wire::kFragmentMax);
    bool more = at + n < args.size();
    d->up(wire::kUpRequest, wire::UpRequest{kId, wire::kOpKvPut, 0}, args.substr(at, n),
          more ? wire::kMore : 0);
    at += n;
  }
  Answer a;
  ASSERT_TRUE(d->answer(kId, &a.code, &a.body));
  ASSERT_EQ(a.code, RAY_OK) << a.body;
  Answer got = ask(d.get(), wire::kOpKvGet, kv("ns", "big"));
  Cursor r(got.body);
  r.array();
  r.uint64();
  EXPECT_EQ(r.text(), big);
}

TEST(RaydRequests, FunctionsAreKnownToAllAndAcrossProcesses) {
  Cluster cluster;
  auto d = cluster.driver(), other = cluster.driver();
  Packer define;
  define.array(5).uint64(42).int64(RAY_LANG_PYTHON).uint64(wire::kFnOpaque).str("f").bin("definition");
  EXPECT_EQ(ask(d.get(), wire::kOpFunctionDefine, define.bytes()).code, RAY_OK);
  EXPECT_EQ(ask(other.get(), wire::kOpFunctionDefine, define.bytes()).code, RAY_OK);
  Packer changed;
  changed.array(5).uint64(42).int64(RAY_LANG_PYTHON).uint64(wire::kFnOpaque).str("f").bin("another");
  EXPECT_EQ(ask(other.get(), wire::kOpFunctionDefine, changed.bytes()).code, RAY_CONFLICT);
  Packer key;
  key.array(1).uint64(42);
  Answer got = ask(other.get(), wire::kOpFunctionGet, key.bytes());
  ASSERT_EQ(got.code, RAY_OK);
  Cursor r(got.body);
  EXPECT_EQ(r.array(), 4u);
  EXPECT_EQ(r.int64(), RAY_LANG_PYTHON);
  EXPECT_EQ(r.uint64(), static_cast<uint64_t>(wire::kFnOpaque));
  EXPECT_EQ(r.text(), "f");
  EXPECT_EQ(r.text(), "definition");
  Packer unknown;
  unknown.array(1).uint64(43);
  EXPECT_EQ(ask(d.get(), wire::kOpFunctionGet, unknown.bytes()).code, RAY_NOT_FOUND);
}

TEST(RaydRequests, ADefinitionGoesWithItsLastUser) {
  Cluster cluster;
  auto d = cluster.driver(), other = cluster.driver();
  auto define = [](uint64_t key) {
    Packer w;
    w.array(5).uint64(key).int64(RAY_LANG_PYTHON).uint64(wire::kFnOpaque).str("f").bin("definition");
    return w.bytes();
  };
  auto get = [](RawClient* c, uint64_t key) {
    Packer w;
    w.array(1).uint64(key);
    return ask(c, wire::kOpFunctionGet, w.bytes()).code;
  };
  auto drop = [](RawClient* c, uint64_t key, uint64_t count) { c->up(wire::kUpFunctionDrop, wire::UpFunctionDrop{key, count}); };
  for (RawClient* c : {d.get(), d.get(), other.get()}) EXPECT_EQ(ask(c, wire::kOpFunctionDefine, define(42)).code, RAY_OK);
  drop(d.get(), 42, 1);  // it has defined it twice
  drop(other.get(), 42, 9);
  EXPECT_EQ(get(other.get(), 42), RAY_OK);
  drop(d.get(), 42, 1);
  EXPECT_TRUE(eventually([&] { return get(other.get(), 42) == RAY_NOT_FOUND; }));
  // Again and again, faster than the control store answers.
  for (int i = 0; i < 100; ++i) {
    d->request(wire::kOpFunctionDefine, define(42));
    EXPECT_EQ(get(d.get(), 42), RAY_OK) << i;
    if (i < 99) drop(d.get(), 42, 1);
  }
  for (uint64_t key = 100; key < 200; ++key) EXPECT_EQ(ask(other.get(), wire::kOpFunctionDefine, define(key)).code, RAY_OK);
  EXPECT_EQ(cluster.tables(d.get()).at("function_users"), 101u);
  other.reset();
  EXPECT_TRUE(eventually([&] { return cluster.tables(d.get()).at("function_users") == 1; }));
  for (uint64_t key = 100; key < 200; ++key)
    EXPECT_TRUE(eventually([&] { return get(d.get(), key) == RAY_NOT_FOUND; })) << key;
  EXPECT_EQ(get(d.get(), 42), RAY_OK);
}

TEST(RaydRequests, MalformedRequestsGetAnError) {
  Cluster cluster;
  auto d = cluster.driver();
  for (uint32_t op = wire::kOpFunctionDefine; op <= wire::kOpWorkerCheck; ++op) {
    if (op == wire::kOpShutdown) continue;  // what comes with it is not read
    EXPECT_NE(ask(d.get(), op, "").code, RAY_OK) << op;
    EXPECT_NE(ask(d.get(), op, "\x93\x01\x02").code, RAY_OK) << op;
    EXPECT_NE(ask(d.get(), op, std::string("\xdd\xff\xff\xff\xff", 5)).code, RAY_OK) << op;
  }
  for (int32_t language : {-1, int32_t{RAY_LANG_COUNT}, INT32_MAX}) {
    Packer command, check;
    command.array(3).int64(language).array(1).str("program").str("");
    check.array(1).int64(language);
    EXPECT_EQ(ask(d.get(), wire::kOpWorkerCommand, command.bytes()).code, RAY_INVALID_ARGUMENT) << language;
    EXPECT_EQ(ask(d.get(), wire::kOpWorkerCheck, check.bytes()).code, RAY_INVALID_ARGUMENT) << language;
  }
  EXPECT_EQ(ask(d.get(), 9999, "\x90").code, RAY_UNSUPPORTED);
  EXPECT_EQ(ask(d.get(), wire::kOpPing, "\x90").code, RAY_OK);
}

TEST(RaydRequests, QueriesOfTheNode) {
  Cluster cluster(3);
  auto d = cluster.driver();
  Answer total = ask(d.get(), wire::kOpQuery, query("resources"));
  Cursor r(total.body);
  EXPECT_EQ(r.array(), 1u);
  EXPECT_EQ(r.map(), 1u);
  EXPECT_EQ(r.text(), "CPU");
  EXPECT_EQ(r.float64(), 3);
  d->shape(0, {{"CPU", 1}});
  want(d.get(), 0, 1);
  grant(d.get());
  Answer free = ask(d.get(), wire::kOpQuery, query("available"));
  Cursor f(free.body);
  f.array();
  f.map();
  f.text();
  EXPECT_EQ(f.float64(), 3);  // nothing runs on that lease
  int leased = 0, drivers = 0;
  for (auto& row : rows_of(ask(d.get(), wire::kOpQuery, query("workers")))) {
    leased += row["state"] == "leased";
    drivers += row["kind"] == "driver";
  }
  EXPECT_EQ(leased, 1);
  EXPECT_EQ(drivers, 1);
  auto nodes = rows_of(ask(d.get(), wire::kOpQuery, query("nodes")));
  ASSERT_EQ(nodes.size(), 1u);
  EXPECT_EQ(nodes[0]["state"], "ALIVE");
  auto jobs = rows_of(ask(d.get(), wire::kOpQuery, query("jobs")));
  ASSERT_EQ(jobs.size(), 1u);
  EXPECT_EQ(jobs[0]["name"], "test");
  EXPECT_EQ(ask(d.get(), wire::kOpQuery, query("nonsense")).code, RAY_INVALID_ARGUMENT);
}

std::string submit_record(RawClient* d, uint32_t index) {
  lineage::SubmitRecord s{};
  s.task = child_task(origin_of(d->welcome.root), index);
  s.parent = d->welcome.root;
  s.submit_ns = wall_ns();
  s.n_returns = 1;
  s.process = d->process();
  s.name_size = 4;
  return std::string(reinterpret_cast<const char*>(&s), sizeof s) + std::string("noop\0\0\0\0", 8);
}

TEST(RaydRequests, AQueryOfTasksSeesWhatWasSubmittedBefore) {
  Cluster cluster;
  auto d = cluster.driver();
  for (uint32_t i = 1; i <= 1000; ++i)
    while (!d->lineage(lineage::kSubmit, submit_record(d.get(), i))) ::usleep(100);
  EXPECT_EQ(rows_of(ask(d.get(), wire::kOpQuery, query("tasks"))).size(), 1000u);
}

TEST(RaydRequests, AShardThatIsKilledComesBackWithWhatItKnew) {
  Cluster cluster;
  auto d = cluster.driver();
  for (int i = 0; i < 20; ++i)
    ASSERT_EQ(ask(d.get(), wire::kOpKvPut, kv_put("k" + std::to_string(i), "v", 0)).code, RAY_OK);
  for (uint32_t i = 1; i <= 500; ++i)
    while (!d->lineage(lineage::kSubmit, submit_record(d.get(), i))) ::usleep(100);
  auto pids = cluster.shard_pids();
  ASSERT_EQ(pids.size(), 2u);
  for (int pid : pids) ::kill(pid, SIGKILL);
  // Asked while they are dead: answered when they are back.
  for (int i = 0; i < 20; ++i)
    EXPECT_EQ(ask(d.get(), wire::kOpKvGet, kv("ns", "k" + std::to_string(i))).code, RAY_OK) << i;
  for (uint32_t i = 501; i <= 1000; ++i)
    while (!d->lineage(lineage::kSubmit, submit_record(d.get(), i))) ::usleep(100);
  EXPECT_EQ(rows_of(ask(d.get(), wire::kOpQuery, query("tasks"))).size(), 1000u);
  bool told = false;
  for (auto& row : rows_of(ask(d.get(), wire::kOpQuery, query("errors"))))
    for (auto& [column, value] : row) told |= value.find("shard-died") != std::string::npos;
  EXPECT_TRUE(told) << "the error table does not tell of it";
}

TEST(RaydRequests, AShardThatCannotComeUpIsToldOfAndTriedAgain) {
  Cluster cluster;
  auto d = cluster.driver();
  ASSERT_EQ(ask(d.get(), wire::kOpKvPut, kv_put("k", "v", 0)).code, RAY_OK);
  const std::filesystem::path sockets[] = {cluster.session.dir + "/gcs-0.sock", cluster.session.dir + "/gcs-1.sock"};
  for (const auto& path : sockets) {
    std::filesystem::remove(path);
    std::filesystem::create_directory(path);  // nothing can listen here
  }
  for (int pid : cluster.shard_pids()) ::kill(pid, SIGKILL);
  Record told;
  EXPECT_TRUE(d->wait([](const Record& r) {
    return r.type == wire::kDnNotice && r.payload.find("does not start") != std::string::npos;
  }, &told)) << "the driver waits and is not told for what";
  for (const auto& path : sockets) std::filesystem::remove(path);
  EXPECT_EQ(ask(d.get(), wire::kOpKvGet, kv("ns", "k")).code, RAY_OK);
}

TEST(RaydRequests, DeathOfADriverLosesNoLineage) {
  Cluster cluster;
  auto keeper = cluster.driver();
  {
    auto d = cluster.driver();
    for (uint32_t i = 1; i <= 5000; ++i)
      while (!d->lineage(lineage::kSubmit, submit_record(d.get(), i))) ::usleep(100);
  }  // gone right after the last record
  EXPECT_EQ(rows_of(ask(keeper.get(), wire::kOpQuery, query("tasks"))).size(), 5000u);
}

TEST(RaydRequests, NamedActors) {
  Cluster cluster;
  auto d = cluster.driver(), other = cluster.driver();
  ActorMaker m{d.get()};
  ActorId id = m.create("counter", "make", 0, 900);
  Answer a;
  ASSERT_TRUE(d->answer(900, &a.code, &a.body));
  EXPECT_EQ(a.code, RAY_OK) << a.body;
  wire::DnActorState s;
  ASSERT_TRUE(m.wait(id, wire::kActorAlive, &s));
  m.create("counter", "make", 0, 901);
  ASSERT_TRUE(d->answer(901, &a.code, &a.body));
  EXPECT_EQ(a.code, RAY_ALREADY_EXISTS);
  EXPECT_NE(a.body.find("counter"), std::string::npos) << a.body;
  m.create("counter", "make", 0, 902, RAY_ACTOR_GET_IF_EXISTS);
  ASSERT_TRUE(d->answer(902, &a.code, &a.body));
  EXPECT_EQ(a.code, RAY_OK);
  ActorId got;
  Cursor r(a.body);
  r.array();
  ASSERT_TRUE(r.id(&got));
  EXPECT_EQ(got, id);
  Packer name;
  name.array(2).str("counter").str(d->text);
  Answer found = ask(other.get(), wire::kOpActorFind, name.bytes());
  ASSERT_EQ(found.code, RAY_OK) << found.body;
  // The finder holds it: the creator's handles may go.
  d->up(wire::kUpObjRelease, wire::UpObjCount{id, d->process(), 2});
  ask(d.get(), wire::kOpPing, "\x90");
  EXPECT_EQ(ask(other.get(), wire::kOpActorFind, name.bytes()).code, RAY_OK);
  other->up(wire::kUpObjRelease, wire::UpObjCount{id, other->process(), 2});
  ASSERT_TRUE(m.wait(id, wire::kActorDead, &s));
  EXPECT_EQ(ask(other.get(), wire::kOpActorFind, name.bytes()).code, RAY_NOT_FOUND);
  // The name is free again.
  ActorId next = m.create("counter", "make", 0, 903);
  ASSERT_TRUE(d->answer(903, &a.code, &a.body));
  EXPECT_EQ(a.code, RAY_OK) << a.body;
  ASSERT_TRUE(m.wait(next, wire::kActorAlive, &s));
}

// Those that wait for the arguments of their constructor count too.
TEST(RaydRequests, AnActorTooManyIsRefused) {
  Cluster cluster;
  auto d = cluster.driver();
  ActorMaker m{d.get()};
  constexpr uint32_t kMost = 65536;
  const Origin origin = origin_of(d->welcome.root);
  for (uint32_t i = 0; i < kMost; ++i)
    ASSERT_TRUE(announce(d.get(), actor_of(child_task(origin, 1000 + i))));
  wire::DnActorState s;
  std::string why;
  const ActorId another = actor_of(child_task(origin, 1000 + kMost));
  announce(d.get(), another);
  ASSERT_TRUE(m.wait(another, wire::kActorDead, &s, &why));
  EXPECT_EQ(s.code, RAY_UNAVAILABLE);
  EXPECT_NE(why.find("65536 actors"), std::string::npos) << why;
  Answer a;
  const ActorId named = m.create("one too many", "make", 0, 900);
  ASSERT_TRUE(d->answer(900, &a.code, &a.body));
  EXPECT_EQ(a.code, RAY_UNAVAILABLE);
  EXPECT_NE(a.body.find("which is its limit"), std::string::npos) << a.body;
  ASSERT_TRUE(m.wait(named, wire::kActorDead, &s, &why));
  EXPECT_EQ(cluster.tables(d.get()).at("actors"), kMost);
  d.reset();  // they end with the job, all but the dead that are remembered
  auto other = cluster.driver();
  ActorMaker n{other.get()};
  ASSERT_TRUE(eventually([&] { return cluster.tables(other.get()).at("actors") <= 4096; }));
  ActorId id = n.create("", "make", 0);
  ASSERT_TRUE(n.wait(id, wire::kActorAlive, &s));
}

TEST(RaydRequests, AGroupTooManyIsRefused) {
  Cluster cluster;
  auto d = cluster.driver();
  Packer group;  // the first takes both processors, the others wait
  group.array(5).array(1).map(1).str("CPU").float64(2).int64(RAY_GROUP_PACK).int64(RAY_LIFETIME_COUNTED).str("").str("");
  constexpr int kMost = 16384;
  std::vector<uint64_t> asked;
  for (int i = 0; i < kMost; ++i) asked.push_back(d->request(wire::kOpGroupCreate, group.bytes()));
  Answer last;
  for (uint64_t each : asked) {
    ASSERT_TRUE(d->answer(each, &last.code, &last.body, 120000));
    ASSERT_EQ(last.code, RAY_OK) << last.body;
  }
  Answer a = ask(d.get(), wire::kOpGroupCreate, group.bytes());
  EXPECT_EQ(a.code, RAY_UNAVAILABLE);
  EXPECT_NE(a.body.find("16384 placement groups"), std::string::npos) << a.body;
  EXPECT_EQ(ask(d.get(), wire::kOpGroupRemove, last.body).code, RAY_OK);
  EXPECT_EQ(ask(d.get(), wire::kOpGroupCreate, group.bytes()).code, RAY_OK);
}

// Who waits in slices leaves requests behind that nobody takes back: the oldest go, the latest waits.
TEST(RaydRequests, AGroupIsWaitedForHoweverOften) {
  Cluster cluster;
  auto d = cluster.driver();
  Packer group;
  group.array(5).array(1).map(1).str("CPU").float64(2).int64(RAY_GROUP_PACK).int64(RAY_LIFETIME_COUNTED).str("").str("");
  const std::string first = ask(d.get(), wire::kOpGroupCreate, group.bytes()).body;
  const std::string second = ask(d.get(), wire::kOpGroupCreate, group.bytes()).body;
  Packer wait;
  wire::Cursor r(second);
  Id id;
  ASSERT_TRUE(r.array() == 1 && r.id(&id));
  wait.array(2).id(id).uint64(1);
  const uint64_t oldest = d->request(wire::kOpGroupWait, wait.bytes());
  uint64_t latest = 0;
  for (int i = 0; i < 4096; ++i) latest = d->request(wire::kOpGroupWait, wait.bytes());
  Answer a;
  ASSERT_TRUE(d->answer(oldest, &a.code, &a.body));
  EXPECT_EQ(a.code, RAY_TIMED_OUT);
  EXPECT_EQ(ask(d.get(), wire::kOpGroupRemove, first).code, RAY_OK);
  ASSERT_TRUE(d->answer(latest, &a.code, &a.body));
  EXPECT_EQ(a.code, RAY_OK);
}

// Who has heard of an actor's death, from whomever, may have its name, though the daemon reads his record first.
TEST(RaydRequests, ANameIsFreeForWhoHeardOfTheDeath) {
  Cluster cluster;
  auto d = cluster.driver(), other = cluster.driver();
  ActorMaker m{d.get()};
  wire::DnActorState s;
  Answer a;
  ActorId first = m.create("counter", "make", 0, 900);
  ASSERT_TRUE(m.wait(first, wire::kActorAlive, &s));
  ::kill(cluster.pid, SIGSTOP);
  other->up(wire::kUpActorKill, wire::UpActor{first, 0, 0, 0, 0});
  ActorId second = m.create("counter", "make", 0, 901);
  ::kill(cluster.pid, SIGCONT);
  ASSERT_TRUE(d->answer(901, &a.code, &a.body));
  EXPECT_EQ(a.code, RAY_OK) << a.body;
  ASSERT_TRUE(m.wait(second, wire::kActorAlive, &s));
  ::kill(cluster.pid, SIGSTOP);
  other->up(wire::kUpActorKill, wire::UpActor{second, 0, 0, 0, 0});
  Packer name;
  name.array(2).str("counter").str("");
  uint64_t asked = d->request(wire::kOpActorFind, name.bytes());
  ::kill(cluster.pid, SIGCONT);
  ASSERT_TRUE(d->answer(asked, &a.code, &a.body));
  EXPECT_EQ(a.code, RAY_NOT_FOUND);
}

// Nor does the order in which the daemon reads rings decide whether a kill is one.
TEST(RaydRequests, AKillThatIsReadBeforeTheCreation) {
  Cluster cluster;
  std::unique_ptr<RawClient> drivers[] = {cluster.driver(), cluster.driver()};
  for (int killer : {0, 1}) {
    RawClient *d = drivers[1 - killer].get(), *other = drivers[killer].get();
    ActorMaker m{d};
    ::kill(cluster.pid, SIGSTOP);
    const ActorId id = m.create("", "make", 0);
    other->up(wire::kUpActorKill, wire::UpActor{id, 0, 0, 0, 0});
    const uint64_t asked = other->request(wire::kOpPing, "\x90");
    ::kill(cluster.pid, SIGCONT);
    Answer a;
    ASSERT_TRUE(other->answer(asked, &a.code, &a.body));
    wire::DnActorState s;
    ASSERT_TRUE(m.wait(id, wire::kActorDead, &s));
  }
}

// One that is announced has the restarts that its creator gave it.
TEST(RaydRequests, AKillBeforeTheConstructorsArgumentsAreThere) {
  Cluster cluster;
  auto d = cluster.driver();
  ActorMaker m{d.get()};
  wire::DnActorState s;
  for (const int32_t restarts : {0, 1}) {
    const ActorId id = actor_of(child_task(origin_of(d->welcome.root), m.next));
    ASSERT_TRUE(announce(d.get(), id, {restarts, 0, 0, 0}));
    d->up(wire::kUpActorKill, wire::UpActor{id, 0, 0, 1, 0});
    ASSERT_EQ(m.create("", "make", restarts), id);
    ASSERT_TRUE(m.wait(id, restarts ? wire::kActorAlive : wire::kActorDead, &s));
  }
}

// The creator of a detached actor dies while the control store is slow; whoever runs its task again makes the same
// actor, and is answered.
TEST(RaydRequests, ACreatorThatDiesDuringTheClaimAndRunsAgainIsAnswered) {
  Cluster cluster;
  auto keeper = cluster.driver(), first = cluster.driver();
  for (int pid : cluster.shard_pids()) ::kill(pid, SIGSTOP);
  ActorMaker one{first.get()};
  ActorId id = one.create("keeper", "make", 0, 900, 0, RAY_LIFETIME_DETACHED);
  ask(first.get(), wire::kOpPing, "\x90");  // it has been read
  first.reset();
  ASSERT_TRUE(eventually([&] {
    int drivers = 0;
    for (auto& row : rows_of(ask(keeper.get(), wire::kOpQuery, query("workers")))) drivers += row["kind"] == "driver";
    return drivers == 1;
  }));
  auto again = cluster.driver();
  ActorMaker two{again.get()};
  two.create_as(id, "keeper", "make", 0, 77, 0, RAY_LIFETIME_DETACHED);
  ask(again.get(), wire::kOpPing, "\x90");
  for (int pid : cluster.shard_pids()) ::kill(pid, SIGCONT);
  Answer a;
  ASSERT_TRUE(again->answer(77, &a.code, &a.body));
  EXPECT_EQ(a.code, RAY_OK) << a.body;
  wire::DnActorState s;
  EXPECT_TRUE(two.wait(id, wire::kActorAlive, &s));
  again->up(wire::kUpActorKill, wire::UpActor{id, 0, 0, 0, 0});
  EXPECT_TRUE(two.wait(id, wire::kActorDead, &s));
}

TEST(RaydRequests, DetachedActorsOutliveTheirJobAndRestart) {
  Cluster cluster;
  auto d = cluster.driver(), other = cluster.driver();
  ActorMaker m{d.get()};
  ActorId id = m.create("keeper", "make", 1, 900, 0, RAY_LIFETIME_DETACHED);
  Answer a;
  ASSERT_TRUE(d->answer(900, &a.code, &a.body));
  wire::DnActorState s;
  ASSERT_TRUE(m.wait(id, wire::kActorAlive, &s));
  std::string ns = d->text;
  d->close();
  Packer name;
  name.array(2).str("keeper").str(ns);
  ASSERT_EQ(ask(other.get(), wire::kOpActorFind, name.bytes()).code, RAY_OK);
  ActorMaker finder{other.get()};
  other->up(wire::kUpActorConnect, wire::UpActor{id, 0, 0, 0, 0});
  ASSERT_TRUE(finder.wait(id, wire::kActorAlive, &s));
  wire::DoneHeader done;
  ASSERT_TRUE(other->push(s.link, 1, 1, RAY_KIND_ACTOR_CALL));
  ASSERT_TRUE(other->result(s.link, &done));
  ASSERT_TRUE(other->push(s.link, 2, 3, RAY_KIND_ACTOR_CALL));  // abort
  ASSERT_TRUE(finder.wait(id, wire::kActorRestarting, &s));
  ASSERT_TRUE(finder.wait(id, wire::kActorAlive, &s));
  EXPECT_EQ(s.incarnation, 1u);
  other->up(wire::kUpActorKill, wire::UpActor{id, 0, 0, 0, 0});
  ASSERT_TRUE(finder.wait(id, wire::kActorDead, &s));
}

TEST(RaydRequests, OnlyTheStarterMayEndTheNode) {
  int parent = fake_parent();
  Cluster cluster(1, parent);
  auto d = cluster.driver();
  EXPECT_EQ(ask(d.get(), wire::kOpShutdown, "\x90").code, RAY_WRONG_STATE);
  EXPECT_EQ(ask(d.get(), wire::kOpPing, "\x90").code, RAY_OK);
  ::kill(parent, SIGKILL);
  ::waitpid(parent, nullptr, 0);
}

// ---- zygotes ---------------------------------------------------------------------------------------

TEST(RaydZygote, WorkersAreForkedServeAndAreMissedWhenTheyDie) {
  Cluster cluster;
  auto d = cluster.driver(RAY_LANG_PYTHON);
  d->shape(0, {{"CPU", 1}}, RAY_LANG_PYTHON);
  want(d.get(), 0, 2);
  auto a = grant(d.get()), b = grant(d.get());
  wire::DoneHeader done;
  ASSERT_TRUE(d->push(a.link, 1, 1));
  ASSERT_TRUE(d->result(a.link, &done));
  int pid = pid_of(d.get(), a.worker), second = pid_of(d.get(), b.worker);
  EXPECT_NE(pid, second);
  ASSERT_TRUE(d->push(a.link, 2, 3));  // abort
  Record r;
  ASSERT_TRUE(d->wait_type(wire::kDnPeerDied, &r));
  auto died = r.as<wire::DnPeerDied>();
  EXPECT_EQ(static_cast<int>(died.pid), pid);
  EXPECT_TRUE(WIFSIGNALED(died.wait_status) && WTERMSIG(died.wait_status) == SIGABRT)
      << died.wait_status;
  auto c = grant(d.get());
  ASSERT_TRUE(d->push(c.link, 3, 1));
  ASSERT_TRUE(d->result(c.link, &done));
  d->close();
  EXPECT_TRUE(eventually([&] { return !running(second); }));
}

TEST(RaydZygote, KillNineOfRaydLeavesNoForkedWorker) {
  Cluster cluster;
  auto d = cluster.driver(RAY_LANG_PYTHON);
  d->shape(0, {{"CPU", 1}}, RAY_LANG_PYTHON);
  want(d.get(), 0, 2);
  auto a = grant(d.get());
  grant(d.get());
  ASSERT_TRUE(d->push(a.link, 1, 5));
  EXPECT_GE(processes_of(cluster.session.dir).size(), 6u);  // rayd, shards, zygote, workers
  ::kill(cluster.pid, SIGKILL);
  cluster.wait();
  EXPECT_TRUE(eventually([&] { return processes_of(cluster.session.dir).empty(); }));
  EXPECT_TRUE(eventually([&] { return !cluster.has_sockets(); }));
}

// A worker's number may be another process's by now: it is only signalled through its descriptor.
TEST(RaydZygote, SignalsGoToNoReusedNumber) {
  int innocent = ::fork();
  if (innocent == 0) {
    ::setpgid(0, 0);
    for (;;) ::pause();
  }
  ::setpgid(innocent, innocent);
  ::setenv("LIBRAY_TEST_NUMBER_NOW", std::to_string(innocent).c_str(), 1);
  {
    Cluster cluster;
    ::unsetenv("LIBRAY_TEST_NUMBER_NOW");
    auto d = cluster.driver(RAY_LANG_PYTHON);
    d->shape(0, {{"CPU", 1}}, RAY_LANG_PYTHON);
    want(d.get(), 0, 1);
    auto a = grant(d.get());
    ASSERT_TRUE(d->push(a.link, 1, 5));
    d->up(wire::kUpKillWorker, wire::UpLeaseReturn{a.worker, a.lease});
    Record r;
    ASSERT_TRUE(d->wait_type(wire::kDnPeerDied, &r));
    auto b = grant(d.get());
    ASSERT_TRUE(d->push(b.link, 2, 5));
  }  // the end of the node kills all workers
  EXPECT_TRUE(running(innocent));
  ::kill(innocent, SIGKILL);
  ::waitpid(innocent, nullptr, 0);
}

TEST(RaydZygote, ADeadZygoteIsReplaced) {
  Cluster cluster;
  auto d = cluster.driver(RAY_LANG_PYTHON);
  d->shape(0, {{"CPU", 1}}, RAY_LANG_PYTHON);
  want(d.get(), 0, 1);
  auto a = grant(d.get());
  int worker = pid_of(d.get(), a.worker);
  std::ifstream f("/proc/" + std::to_string(worker) + "/stat");
  std::string text;
  std::getline(f, text);
  int zygote = 0;
  ASSERT_EQ(std::sscanf(text.c_str() + text.rfind(')') + 2, "%*c %d", &zygote), 1);
  ::kill(zygote, SIGKILL);
  // The other worker of the dead zygote may still be given out once before it is missed.
  wire::DoneHeader done{};
  for (int i = 0; i < 5 && done.tag == 0; ++i) {
    Record r;
    ASSERT_TRUE(d->wait_type(wire::kDnPeerDied, &r));
    auto b = grant(d.get());
    ASSERT_TRUE(d->push(b.link, 1, 1));
    d->result(b.link, &done, i == 4 ? 20000 : 1000);
  }
  EXPECT_EQ(done.tag, 1u);
}

TEST(RaydWorkers, ACommandThatCrashesAtStartIsReportedAndTriedAgain) {
  Cluster cluster;
  std::ofstream(cluster.session.dir + "/crash-at-start") << "yes";
  auto d = cluster.driver();
  d->shape(0, {{"CPU", 1}});
  want(d.get(), 0, 1);
  ASSERT_TRUE(eventually([&] { return cluster.log().find("worker-died") != std::string::npos; }));
  std::filesystem::remove(cluster.session.dir + "/crash-at-start");
  grant(d.get());
  bool told = false;
  for (auto& row : rows_of(ask(d.get(), wire::kOpQuery, query("errors"))))
    for (auto& [column, value] : row) told |= value.find("worker-start") != std::string::npos;
  EXPECT_TRUE(told);
}

}  // namespace
}  // namespace ray::test
