// What a daemon of a cluster does with what it cannot serve: two daemons, each with a relay that this test speaks for
// (fake_relay.cc). What the real one does is tested in tests/relay and tests/cluster.
#include <cstdlib>

#include "cluster.h"
#include "libray/node/relay_link.h"
#include "libray/wire/relay_control.h"

namespace ray::test {
namespace {

constexpr char kToken[] = "0123456789abcdef0123456789abcdef";

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

struct TwoNodes {
  std::unique_ptr<Cluster> head, other;

  TwoNodes() {
    ::setenv(node::kEnvRelayProgram, (session::own_folder() + "/node_fake_relay").c_str(), 1);
    head = std::make_unique<Cluster>(1, ::getpid(), "", std::vector<std::string>{"--cluster", "head", "--cluster-listen",
                                     "tcp://127.0.0.1:0", "--cluster-address", "127.0.0.1"}, 64 << 20, kToken);
    wire::Packer gold;
    gold.map(1).str("gold").float64(4);
    std::string hex;
    for (unsigned char c : gold.bytes()) hex += strprintf("%02x", c);
    other = std::make_unique<Cluster>(1, ::getpid(), hex, std::vector<std::string>{"--cluster", "node", "--cluster-head",
                                      "tcp://" + address(), "--cluster-address", "127.0.0.1"}, 64 << 20, kToken);
    EXPECT_TRUE(eventually([&] { return has(told(), "peer 1 "); }));
  }
  ~TwoNodes() {
    other.reset();
    head.reset();
    ::unsetenv(node::kEnvRelayProgram);
  }
  std::string address() const {
    auto text = session::read_file(head->session.dir + "/cluster.json");
    size_t at = text.ok() ? text->find("\"head\":") : std::string::npos;
    if (at == std::string::npos) return "";
    at = text->find('"', at + 7) + 1;
    return text->substr(at, text->find('"', at) - at);
  }
  // What the head's relay was told.
  std::string told() const {
    auto text = session::read_file(head->session.dir + "/relay-told");
    return text.ok() ? *text : "";
  }
  size_t opens() const {
    const std::string all = told();
    size_t n = 0;
    for (size_t at = all.find("open "); at != std::string::npos; at = all.find("open ", at + 1)) ++n;
    return n;
  }
  void file(const char* name) const { std::ofstream(head->session.dir + "/" + name) << "x"; }
  void no_file(const char* name) const { std::filesystem::remove(head->session.dir + "/" + name); }
  int relay_pid() const {
    for (int p : processes_of(head->session.dir)) {
      std::ifstream f("/proc/" + std::to_string(p) + "/cmdline", std::ios::binary);
      std::string text((std::istreambuf_iterator<char>(f)), {});
      if (has(text, "node_fake_relay")) return p;
    }
    return -1;
  }
  // States and nodes of the head's workers.
  std::string workers(RawClient* c) const {
    wire::Packer w;
    w.array(2).str("workers").map(0);
    int32_t code = -1;
    std::string body;
    EXPECT_TRUE(c->answer(c->request(wire::kOpQuery, w.bytes()), &code, &body));
    return wire::to_text(body, 100000);
  }
};

TEST(StandIn, RunsWhatOnlyAnotherNodeCanDo) {
  TwoNodes two;
  auto d = two.head->driver();
  d->shape(0, {{"gold", 2}});
  want(d.get(), 0, 1);
  const wire::DnLease a = grant(d.get());
  EXPECT_EQ(pid_of(d.get(), a.worker), two.relay_pid());
  EXPECT_EQ(a.shape, 0u);
  wire::DoneHeader done;
  ASSERT_TRUE(d->push(a.link, 7, 1));
  ASSERT_TRUE(d->result(a.link, &done));
  EXPECT_EQ(done.tag, 7u);
  const std::string told = two.told();
  EXPECT_TRUE(has(told, "configure tcp://127.0.0.1:0")) << told;
  EXPECT_TRUE(has(told, "peer 1 tcp://127.0.0.1:4242")) << told;
  EXPECT_TRUE(has(told, "\"job\"") && has(told, "\"commands\"") && has(told, "node_test_worker")) << told;
  EXPECT_TRUE(has(told, "{\"gold\": 2")) << told;
  const std::string workers = two.workers(d.get());
  EXPECT_TRUE(has(workers, "\"node\": \"node 1 (")) << workers;
  // Nobody was told that it cannot be.
  EXPECT_FALSE(has(two.head->log(), "infeasible")) << two.head->log();
  // A lease that is given back is the end of its stand-in, which is nobody's misfortune.
  d->up(wire::kUpLeaseWant, wire::UpLeaseWant{0, 0, {}});
  d->up(wire::kUpLeaseReturn, wire::UpLeaseReturn{a.worker, a.lease});
  Record r;
  ASSERT_TRUE(d->wait_type(wire::kDnPeerDied, &r));
  EXPECT_EQ(r.as<wire::DnPeerDied>().cause, static_cast<uint32_t>(wire::kDeathExit));
  EXPECT_TRUE(eventually([&] { return two.head->tables(d.get())["stand_ins"] == 0; }));
  EXPECT_FALSE(has(two.head->log(), "worker-died"));
}

TEST(StandIn, WhatHasWaitedGoesToTheOtherNode) {
  TwoNodes two;
  auto d = two.head->driver();
  d->shape(0, {{"CPU", 1}});
  want(d.get(), 0, 2);
  const wire::DnLease a = grant(d.get()), b = grant(d.get());
  const int first = pid_of(d.get(), a.worker), second = pid_of(d.get(), b.worker);
  EXPECT_NE(first == two.relay_pid(), second == two.relay_pid()) << "one here, one there";
  wire::DoneHeader done;
  ASSERT_TRUE(d->push(a.link, 1, 1) && d->push(b.link, 2, 1));
  ASSERT_TRUE(d->result(a.link, &done) && d->result(b.link, &done));
}

// Its end is its socket's, whoever ended it: never a signal to the relay.
TEST(StandIn, ForceCancelEndsItAndNotTheRelay) {
  TwoNodes two;
  auto d = two.head->driver();
  d->shape(0, {{"gold", 1}});
  want(d.get(), 0, 2);
  const wire::DnLease a = grant(d.get()), b = grant(d.get());
  const int relay = two.relay_pid();
  ASSERT_TRUE(d->push(a.link, 1, 5));
  d->up(wire::kUpKillWorker, wire::UpLeaseReturn{a.worker, a.lease});
  Record r;
  ASSERT_TRUE(d->wait_type(wire::kDnPeerDied, &r));
  EXPECT_EQ(r.as<wire::DnPeerDied>().process, a.worker);
  EXPECT_EQ(r.as<wire::DnPeerDied>().cause, static_cast<uint32_t>(wire::kDeathForced));
  EXPECT_EQ(two.relay_pid(), relay);
  wire::DoneHeader done;
  ASSERT_TRUE(d->push(b.link, 2, 1));
  ASSERT_TRUE(d->result(b.link, &done));
  const wire::DnLease c = grant(d.get());  // two are wanted
  EXPECT_NE(c.worker, b.worker);
}

TEST(StandIn, TheRelaysDeathIsThatOfAllAndAnotherOneComes) {
  TwoNodes two;
  auto d = two.head->driver();
  d->shape(0, {{"gold", 1}});
  want(d.get(), 0, 2);
  const wire::DnLease a = grant(d.get()), b = grant(d.get());
  const int relay = two.relay_pid();
  ASSERT_TRUE(d->push(a.link, 1, 5));
  ::kill(relay, SIGKILL);
  std::set<uint32_t> died;
  for (int i = 0; i < 2; ++i) {
    Record r;
    ASSERT_TRUE(d->wait_type(wire::kDnPeerDied, &r));
    EXPECT_EQ(r.as<wire::DnPeerDied>().cause, static_cast<uint32_t>(wire::kDeathNode));
    EXPECT_TRUE(has(r.tail<wire::DnPeerDied>(), "node 1 (")) << r.tail<wire::DnPeerDied>();
    EXPECT_TRUE(has(r.tail<wire::DnPeerDied>(), "relay of this node ended: killed by signal 9")) << r.tail<wire::DnPeerDied>();
    died.insert(r.as<wire::DnPeerDied>().process);
  }
  EXPECT_EQ(died, (std::set<uint32_t>{a.worker, b.worker}));
  const wire::DnLease c = grant(d.get());  // from the next one, which was told everything anew
  wire::DoneHeader done;
  ASSERT_TRUE(d->push(c.link, 2, 1));
  ASSERT_TRUE(d->result(c.link, &done));
  EXPECT_NE(two.relay_pid(), relay);
  EXPECT_TRUE(has(two.told(), "configure tcp://127.0.0.1:4242"));  // where others know it
}

TEST(StandIn, TheNodesDeathIsNamed) {
  TwoNodes two;
  auto d = two.head->driver();
  d->shape(0, {{"gold", 1}});
  want(d.get(), 0, 1);
  const wire::DnLease a = grant(d.get());
  ASSERT_TRUE(d->push(a.link, 1, 5));
  ::kill(two.other->pid, SIGKILL);
  two.other->wait();
  Record r;
  ASSERT_TRUE(d->wait_type(wire::kDnPeerDied, &r, 60000));
  EXPECT_EQ(r.as<wire::DnPeerDied>().cause, static_cast<uint32_t>(wire::kDeathNode));
  const std::string text = r.tail<wire::DnPeerDied>();
  EXPECT_TRUE(has(text, "node 1 (") && has(text, " died (")) << text;
  // Now nobody can do it, and its client is told.
  ASSERT_TRUE(d->wait_type(wire::kDnInfeasible, &r));
  EXPECT_TRUE(has(two.told(), "peer 1 dead"));
}

TEST(StandIn, WhatCannotBeOpenedIsTriedAgainAndSaidOnce) {
  TwoNodes two;
  two.file("relay-fails");
  auto d = two.head->driver();
  d->shape(0, {{"gold", 1}});
  want(d.get(), 0, 1);
  ASSERT_TRUE(eventually([&] { return two.opens() >= 3; }));
  two.no_file("relay-fails");
  const wire::DnLease a = grant(d.get());
  wire::DoneHeader done;
  ASSERT_TRUE(d->push(a.link, 1, 1));
  ASSERT_TRUE(d->result(a.link, &done));
  const std::string log = two.head->log();
  const size_t said = log.find("a test wants it so");
  EXPECT_NE(said, std::string::npos);
  EXPECT_EQ(log.find("a test wants it so", said + 1), std::string::npos);
}

// Of a client, and of a job, that is over nothing stays, neither what runs nor what is being opened.
TEST(StandIn, EndsWithItsJob) {
  TwoNodes two;
  auto watcher = two.head->driver(), d = two.head->driver(), third = two.head->driver();
  d->shape(0, {{"gold", 1}});
  want(d.get(), 0, 1);
  (void)grant(d.get());
  two.file("relay-mute");
  third->shape(0, {{"gold", 1}});
  want(third.get(), 0, 1);
  ASSERT_TRUE(eventually([&] { return two.opens() >= 2; }));
  const std::string job = d->welcome.job.hex(), other = third->welcome.job.hex();
  d->close();
  third->close();
  EXPECT_TRUE(eventually([&] { return has(two.told(), "over " + job) && has(two.told(), "over " + other); })) << two.told();
  EXPECT_TRUE(eventually([&] {
    auto tables = two.head->tables(watcher.get());
    return tables["stand_ins"] == 0 && tables["jobs"] == 1 && tables["processes"] <= 2 && tables["workers"] <= 2;
  }));
  EXPECT_TRUE(has(two.told(), " force"));
}

TEST(StandIn, NobodyElseSaysHelloAsOne) {
  TwoNodes two;
  two.file("relay-mute");
  auto d = two.head->driver();
  d->shape(0, {{"gold", 1}});
  want(d.get(), 0, 1);
  ASSERT_TRUE(eventually([&] { return has(two.told(), "open "); }));
  const std::string told = two.told();
  const uint64_t spawn = std::strtoull(told.c_str() + told.find("open ") + 5, nullptr, 10);
  RawClient impostor;
  EXPECT_EQ(impostor.hello(two.head->session.dir, two.head->session.token, RAY_MODE_WORKER, RAY_LANG_NATIVE, spawn, "\x80"),
            RAY_INVALID_ARGUMENT);
  EXPECT_TRUE(has(impostor.text, "stand-in")) << impostor.text;
}

// A node in no cluster starts no relay, and what it cannot do is said as ever.
TEST(StandIn, NothingOfItWithoutACluster) {
  ::setenv(node::kEnvRelayProgram, (session::own_folder() + "/node_fake_relay").c_str(), 1);
  Cluster alone;
  ::unsetenv(node::kEnvRelayProgram);
  auto d = alone.driver();
  d->shape(0, {{"gold", 1}});
  want(d.get(), 0, 1);
  Record r;
  ASSERT_TRUE(d->wait_type(wire::kDnInfeasible, &r));
  EXPECT_TRUE(has(r.tail<wire::DnLease>(), "no resource 'gold'"));
  auto tables = alone.tables(d.get());
  EXPECT_EQ(tables["spillable"], 0u);
  EXPECT_FALSE(std::filesystem::exists(alone.session.dir + "/relay-told"));
}

}  // namespace
}  // namespace ray::test
