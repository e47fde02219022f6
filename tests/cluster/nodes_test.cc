// Nodes that join, leave, die, are stopped, and whoever has no business there.
#include <arpa/inet.h>
#include <dirent.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "libray/net/core/handshake.h"
#include "libray/wire/cursor.h"
#include "ray.h"
#include "tests/cluster/nodes.h"

namespace ray::test {
namespace {

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

size_t count(const std::string& text, const std::string& part) {
  size_t n = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
  return n;
}

// Local addresses (as /proc/net/tcp has them) of sockets of this process that listen.
std::set<std::string> listens(int pid) {
  std::set<std::string> own, out;
  const std::string dir = "/proc/" + std::to_string(pid);
  std::error_code ec;
  for (const auto& e : std::filesystem::directory_iterator(dir + "/fd", ec)) {
    const std::string to = std::filesystem::read_symlink(e.path(), ec).string();
    if (to.rfind("socket:[", 0) == 0) own.insert(to.substr(8, to.size() - 9));
  }
  for (const char* file : {"/net/tcp", "/net/tcp6"}) {
    std::ifstream in(dir + file);
    for (std::string line; std::getline(in, line);) {
      std::istringstream words(line);
      std::string number, local, remote, state, skip, inode;
      words >> number >> local >> remote >> state;
      for (int i = 0; i < 5; ++i) words >> skip;
      words >> inode;
      if (state == "0A" && own.count(inode)) out.insert(local);
    }
  }
  return out;
}

// A program on one of the nodes.
class Driver {
 public:
  explicit Driver(const TestNode& n) {
    ray_runtime_options o = RAY_RUNTIME_OPTIONS_INIT;
    o.address = {n.session.c_str(), n.session.size()};
    ray_error* err = nullptr;
    EXPECT_EQ(ray_init(&o, &runtime_, &err), RAY_OK) << (err ? ray_error_message(err).data : "");
    ray_error_release(err);
    EXPECT_EQ(ray_define_symbol(runtime_, ray_cstr("pow"), ray_cstr("libm.so.6"), ray_cstr("pow"),
                                ray_cstr("f64(f64,f64)"), &pow_, nullptr), RAY_OK);
  }
  ~Driver() {
    ray_function_release(pow_);
    ray_runtime_release(runtime_);
  }
  ray_code square(double x, double* out, std::string* why = nullptr) {
    std::string a, two;
    wire::Writer(&a).float64(x);
    wire::Writer(&two).float64(2);
    ray_arg args[2] = {};
    args[0].value = ray_plain(a.data(), a.size(), RAY_FMT_MSGPACK);
    args[1].value = ray_plain(two.data(), two.size(), RAY_FMT_MSGPACK);
    ray_ref* ref = nullptr;
    ray_error* err = nullptr;
    ray_code code = ray_submit(runtime_, pow_, args, 2, nullptr, &ref, &err);
    ray_buffer result = RAY_BUFFER_INIT;
    if (code == RAY_OK) code = ray_get(runtime_, &ref, 1, 60'000'000'000, &result, &err);
    if (code == RAY_OK)
      *out = wire::Cursor({static_cast<const char*>(result.data), result.size}).float64();
    else if (why && err)
      *why = ray_error_message(err).data;
    ray_error_release(err);
    ray_buffer_release(&result);
    ray_ref_release(ref);
    return code;
  }
  std::string query(const char* what, const std::string& filter = "") {
    ray_buffer out = RAY_BUFFER_INIT;
    ray_error* err = nullptr;
    EXPECT_EQ(ray_cluster_query(runtime_, ray_cstr(what), {filter.data(), filter.size()}, &out, &err), RAY_OK)
        << (err ? ray_error_message(err).data : "");
    ray_error_release(err);
    const std::string bytes(static_cast<const char*>(out.data), out.size);
    ray_buffer_release(&out);
    return bytes;
  }
  double amount(const char* what, const std::string& name) {
    auto all = wire::parse_resources(query(what));
    EXPECT_TRUE(all.ok()) << all.status().message();
    return all.ok() && all->count(name) ? all->at(name) : 0;
  }
  uint32_t rows(const char* what, const std::string& filter = "") { return wire::Cursor(query(what, filter)).array(); }

 private:
  ray_runtime* runtime_ = nullptr;
  ray_function* pow_ = nullptr;
};

TEST_F(Nodes, JoinLeaveAndAreKilled) {
  const TestNode h = head(), a = join({"--host", "127.0.0.2", "--labels", "zone=a"}), b = join({"--resources", "{\"x\": 2}"});
  EXPECT_EQ(h.index, 0);
  EXPECT_EQ(a.index, 1);
  EXPECT_EQ(b.index, 2);
  for (const TestNode& n : {h, a, b})
    EXPECT_TRUE(eventually([&] { return sees(n, {{0, "ALIVE"}, {1, "ALIVE"}, {2, "ALIVE"}}); }));
  EXPECT_EQ(column(b, 1, "address"), "127.0.0.2");
  EXPECT_EQ(column(b, 1, "labels"), "{\"zone\":\"a\"}");
  const cli::test::Output shown = run({"nodes", "-s", a.session});
  EXPECT_TRUE(has(shown.out, "127.0.0.2") && has(shown.out, "ALIVE")) << shown.out << shown.err;
  EXPECT_TRUE(has(run({"status", "-s", b.session}).out, "index 2, head at " + address_));

  EXPECT_EQ(run({"stop", "-s", a.session}).code, 0);
  for (const TestNode& n : {h, b})
    EXPECT_TRUE(eventually([&] { return sees(n, {{0, "ALIVE"}, {1, "DEAD"}, {2, "ALIVE"}}); }));
  EXPECT_TRUE(has(column(h, 1, "cause"), "told to end")) << column(h, 1, "cause");
  ASSERT_EQ(::kill(b.pid, SIGKILL), 0);
  EXPECT_TRUE(eventually([&] { return sees(h, {{0, "ALIVE"}, {1, "DEAD"}, {2, "DEAD"}}); }));
  EXPECT_TRUE(has(column(h, 2, "cause"), "its connection ended")) << column(h, 2, "cause");
  const TestNode c = join();
  EXPECT_EQ(c.index, 3);  // an index is given once
  EXPECT_TRUE(eventually([&] { return sees(c, {{0, "ALIVE"}, {1, "DEAD"}, {2, "DEAD"}, {3, "ALIVE"}}); }));
  // The head's control store has a row of each.
  EXPECT_TRUE(eventually([&] {
    auto records = cli::Records::open(h.session);
    if (!records.ok()) return false;
    std::map<std::string, int> states;
    (void)records->each_in(0, "SELECT state FROM nodes", {}, [&](const std::vector<cli::Cell>& r) {
      return ++states[r[0].text], true;
    });
    return states == std::map<std::string, int>{{"ALIVE", 2}, {"DEAD", 2}};
  }));
}

TEST_F(Nodes, CommandsForALivingNodeSkipDeadSessions) {
  const TestNode h = head(), a = join();
  ASSERT_EQ(::kill(a.pid, SIGKILL), 0);
  ASSERT_TRUE(eventually([&] { return is_gone(a) && sees(h, {{0, "ALIVE"}, {1, "DEAD"}}); }));
  EXPECT_TRUE(has(run({"nodes"}).out, "as node 0 of the cluster"));
  EXPECT_TRUE(has(run({"status"}).out, a.session)) << "what is read of files is the newest session's";
  const TestNode alone = start({});
  EXPECT_TRUE(has(run({"nodes"}).out, "as node 0 of the cluster"));
  EXPECT_EQ(run({"stop"}).code, 0);
  EXPECT_TRUE(eventually([&] { return is_gone(alone); }));
  EXPECT_FALSE(is_gone(h));
  EXPECT_EQ(run({"stop"}).code, 0);
  EXPECT_TRUE(eventually([&] { return is_gone(h); }));
}

TEST_F(Nodes, OneThatWasStoppedIsDeadAndEndsWhenItGoesOn) {
  const TestNode h = head(), a = join(), b = join();
  ASSERT_TRUE(eventually([&] { return sees(b, {{0, "ALIVE"}, {1, "ALIVE"}, {2, "ALIVE"}}); }));
  Driver driver(a);
  double out = 0;
  EXPECT_EQ(driver.square(3, &out), RAY_OK);
  ASSERT_EQ(::kill(a.pid, SIGSTOP), 0);
  EXPECT_TRUE(eventually([&] { return column(b, 1, "answers") == "0"; }));
  EXPECT_TRUE(eventually([&] { return sees(b, {{0, "ALIVE"}, {1, "DEAD"}, {2, "ALIVE"}}); }));
  EXPECT_FALSE(is_gone(a));
  ASSERT_EQ(::kill(a.pid, SIGCONT), 0);
  EXPECT_TRUE(eventually([&] { return is_gone(a); }));
  EXPECT_TRUE(has(ended(a), "was declared dead by the head")) << ended(a);
  EXPECT_TRUE(has(run({"status", "-s", a.session}).out, "was declared dead"));
  std::string why;
  EXPECT_EQ(driver.square(3, &out, &why), RAY_NODE_DIED);
  EXPECT_TRUE(has(why, "was declared dead by the head")) << why;
  EXPECT_FALSE(is_gone(b));
}

TEST_F(Nodes, EndWhenTheHeadIsGone) {
  const TestNode h = head(), a = join(), b = join();
  ASSERT_EQ(::kill(h.pid, SIGKILL), 0);
  for (const TestNode& n : {a, b}) {
    EXPECT_TRUE(eventually([&] { return is_gone(n); }));
    EXPECT_TRUE(has(ended(n), "the head of the cluster at " + address_ + " is gone")) << ended(n);
  }
}

TEST_F(Nodes, EndWithTheirHead) {
  const TestNode h = head(), a = join();
  EXPECT_EQ(run({"stop", "-s", h.session}).code, 0);
  EXPECT_TRUE(eventually([&] { return is_gone(a); }));
  EXPECT_TRUE(has(ended(a), "ended the cluster") || has(ended(a), "is gone")) << ended(a);
}

TEST_F(Nodes, ProgramsRunOnEachAndSeeAll) {
  const TestNode h = head({"--num-cpus", "2"}), a = join({"--resources", "x=2", "--num-cpus", "3"});
  ASSERT_TRUE(eventually([&] { return sees(a, {{0, "ALIVE"}, {1, "ALIVE"}}) && sees(h, {{0, "ALIVE"}, {1, "ALIVE"}}); }));
  for (const TestNode& n : {h, a}) {
    Driver driver(n);
    double out = 0;
    EXPECT_EQ(driver.square(7, &out), RAY_OK);
    EXPECT_EQ(out, 49);
    EXPECT_EQ(driver.rows("nodes"), 2u);
    wire::Packer filter;
    filter.map(1).str("index").uint64(1);
    EXPECT_EQ(driver.rows("nodes", filter.bytes()), 1u);
    EXPECT_EQ(driver.amount("resources", "CPU"), 5);
    EXPECT_EQ(driver.amount("resources", "x"), 2);
    EXPECT_TRUE(eventually([&] { return driver.amount("available", "CPU") == 5; }));
  }
  // One that does not answer is named, and is not waited for.
  Driver driver(h);
  ASSERT_EQ(::kill(a.pid, SIGSTOP), 0);
  EXPECT_EQ(driver.amount("available", "x"), 0);
  EXPECT_TRUE(has(log_of(h), "what node 1 has free is not counted")) << log_of(h);
  ASSERT_EQ(::kill(a.pid, SIGCONT), 0);
}

TEST_F(Nodes, ANodeThatIsAloneOpensNoPort) {
  const TestNode alone = start({}), h = head(), a = join();
  EXPECT_EQ(listens(alone.pid), std::set<std::string>{});
  EXPECT_EQ(listens(a.pid), std::set<std::string>{});
  const auto of_head = listens(h.pid);
  ASSERT_EQ(of_head.size(), 1u);
  EXPECT_EQ(of_head.begin()->substr(0, 8), "0100007F");  // 127.0.0.1
  EXPECT_FALSE(std::filesystem::exists(alone.session + "/cluster.token"));
  struct stat st;
  ASSERT_EQ(::stat(token_file_.c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 0777, 0600u);
  EXPECT_EQ(run({"start", "--port", "1"}).code, 1);
  EXPECT_TRUE(has(run({"nodes", "-s", alone.session}).err, "is in no cluster"));
}

TEST_F(Nodes, TalkOverTls) {
  const std::string folder = std::string(LIBRAY_SOURCE) + "/tests/net/certificates/";
  const std::vector<std::string> tls = {"--tls-certificate", folder + "node-of-ca.pem", "--tls-ca", folder + "ca.pem"};
  const TestNode h = head(tls), a = join(tls);
  EXPECT_TRUE(eventually([&] { return sees(h, {{0, "ALIVE"}, {1, "ALIVE"}}) && sees(a, {{0, "ALIVE"}, {1, "ALIVE"}}); }));
  // Without TLS nobody there understands it.
  const cli::test::Output out = run({"start", "--address", address_, "--token-file", token_file_});
  EXPECT_EQ(out.code, 1);
  EXPECT_TRUE(has(out.err, address_)) << out.err;
  EXPECT_TRUE(sees(h, {{0, "ALIVE"}, {1, "ALIVE"}}));
}

TEST_F(Nodes, TheTokenMayComeFromTheEnvironmentAndGoesNoFurther) {
  ASSERT_EQ(::setenv("LIBRAY_TOKEN", "a token for this test alone", 1), 0);
  const TestNode h = start({"--head"});
  const std::string environment = read_proc("/proc/" + std::to_string(h.pid) + "/environ");
  EXPECT_FALSE(has(environment, "LIBRAY_TOKEN")) << environment;
  EXPECT_EQ(start({"--address", address_}).index, 1);
  ::unsetenv("LIBRAY_TOKEN");
  EXPECT_EQ(join().index, 2);  // the head's own file has it too
}

// The environments of a process and of what it has started, together.
std::string environments(int pid) {
  const std::string dir = "/proc/" + std::to_string(pid);
  std::string out = read_proc(dir + "/environ");
  std::error_code ec;
  for (const auto& thread : std::filesystem::directory_iterator(dir + "/task", ec)) {
    std::istringstream children(read_proc(thread.path().string() + "/children"));
    for (int child; children >> child;) out += environments(child);
  }
  return out;
}

TEST_F(Nodes, TheTokenReachesNoProcessThatANodeOrAProgramStarts) {
  ASSERT_EQ(::setenv("LIBRAY_TOKEN", "a token for this test alone", 1), 0);
  const TestNode alone = start({});
  {
    Driver driver(alone);  // its environment is its workers'
    double out = 0;
    EXPECT_EQ(driver.square(3, &out), RAY_OK);
    const std::string all = environments(alone.pid);
    EXPECT_TRUE(has(all, "LIBRAY_WORKER="));
    EXPECT_FALSE(has(all, "LIBRAY_TOKEN"));
  }
  {
    const std::string base = base_.path() + "/own";
    ray_runtime_options o = RAY_RUNTIME_OPTIONS_INIT;
    o.session_dir = ray_cstr(base.c_str());
    ray_runtime* own = nullptr;
    ASSERT_EQ(ray_init(&o, &own, nullptr), RAY_OK);
    std::string all;
    for (int child : own_children()) all += environments(child);
    EXPECT_TRUE(has(all, "PATH="));
    EXPECT_FALSE(has(all, "LIBRAY_TOKEN"));
    ray_runtime_release(own);
  }
  ::unsetenv("LIBRAY_TOKEN");
}

TEST_F(Nodes, AHeadMakesItsTokenFileAndTakesNobodysPlace) {
  const std::string folder = base_.path() + "/shared", file = folder + "/token", other = folder + "/other";
  std::filesystem::create_directory(folder);
  // What somebody has prepared under the obvious name: a link to a file of the user's.
  std::ofstream(other) << "precious";
  std::filesystem::create_symlink(other, file + ".new");
  const TestNode h = head({"--token-file", file});
  std::string kept;
  std::ifstream(other) >> kept;
  EXPECT_EQ(kept, "precious");
  struct stat st;
  ASSERT_EQ(::lstat(file.c_str(), &st), 0);
  EXPECT_TRUE(S_ISREG(st.st_mode));
  EXPECT_EQ(st.st_mode & 07777, 0600u);
  EXPECT_EQ(join().index, 1);
  std::filesystem::create_symlink(folder + "/nothing", folder + "/link");
  EXPECT_EQ(run({"start", "--head", "--token-file", folder + "/link"}).code, 1);
  EXPECT_FALSE(std::filesystem::exists(folder + "/nothing"));
  std::ofstream(folder + "/long") << std::string(1 << 20, 'x');
  std::filesystem::permissions(folder + "/long", std::filesystem::perms(0600));
  EXPECT_TRUE(has(run({"start", "--head", "--token-file", folder + "/long"}).err, "too large"));
}

TEST_F(Nodes, NoCpusAreNone) {
  const TestNode h = head({"--num-cpus", "0"});
  EXPECT_EQ(Driver(h).amount("resources", "CPU"), 0);
  const TestNode a = join({"--num-cpus", "2"});
  ASSERT_TRUE(eventually([&] { return sees(h, {{0, "ALIVE"}, {1, "ALIVE"}}); }));
  EXPECT_EQ(Driver(h).amount("resources", "CPU"), 2);
}

// ---- who has no business there

class Strangers : public Nodes {
 protected:
  void TearDown() override {
    EXPECT_TRUE(sees(head_, {{0, "ALIVE"}}));
    EXPECT_EQ(join().index, 1);  // nothing else has happened
  }
  // Sends the bytes and reads until the other side ends or has nothing more to say.
  std::string say(const std::string& bytes) const {
    const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    to.sin_port = htons(static_cast<uint16_t>(std::stoi(address_.substr(address_.rfind(':') + 1))));
    EXPECT_EQ(::connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof to), 0);
    timeval patience{20, 0};
    ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    std::string out;
    if (!bytes.empty()) {
      EXPECT_EQ(::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL), static_cast<ssize_t>(bytes.size()));
      char buffer[4096];
      for (ssize_t n; (n = ::recv(fd, buffer, sizeof buffer, 0)) > 0;) out.append(buffer, static_cast<size_t>(n));
    }
    ::close(fd);
    return out;
  }
  size_t refusals() const { return count(log_of(head_), "refused a connection from 127.0.0.1"); }
  TestNode head_ = head();
};

TEST_F(Strangers, AWrongTokenIsRefused) {
  const std::string file = base_.path() + "/other";
  ASSERT_TRUE(node::write_file(file, "0123456789abcdef0123456789abcdef\n").ok());
  const cli::test::Output out = run({"start", "--address", address_, "--token-file", file, "--with-pid",
                                     std::to_string(::getpid())});
  EXPECT_EQ(out.code, 1);
  EXPECT_TRUE(has(out.err, "token")) << out.err;
  EXPECT_EQ(count(out.err, "\n"), 1u) << out.err;
  EXPECT_TRUE(eventually([&] { return refusals() == 1; })) << log_of(head_);
  EXPECT_EQ(node::list_sessions(base_.path()).size(), 1u) << "nothing is left of the one that did not start";
}

TEST_F(Strangers, ATokenThatOthersCanReadIsNotUsed) {
  const std::string file = base_.path() + "/open";
  ASSERT_TRUE(node::write_file(file, "0123456789abcdef0123456789abcdef\n", 0644).ok());
  std::filesystem::permissions(file, std::filesystem::perms(0644));
  EXPECT_EQ(run({"start", "--address", address_, "--token-file", file}).code, 1);
  EXPECT_EQ(run({"start", "--address", address_}).code, 1);  // without any
  EXPECT_EQ(refusals(), 0u);
}

TEST_F(Strangers, GarbageIsRefused) {
  EXPECT_TRUE(say(std::string(64, 'x')).size() < 256);
  EXPECT_TRUE(eventually([&] { return refusals() == 1; })) << log_of(head_);
  say("GET / HTTP/1.1\r\nHost: here\r\n\r\n and some more bytes");
  EXPECT_TRUE(eventually([&] { return refusals() == 2; })) << log_of(head_);
}

TEST_F(Strangers, AnotherVersionIsRefused) {
  net::Greeting g;
  g.version = 99;
  g.who.node.b[0] = 9;
  g.nonce = std::string(16, 'n');
  EXPECT_TRUE(has(say(net::Handshake(true, "whatever", g).hello()), "version"));
  EXPECT_TRUE(eventually([&] { return refusals() == 1; })) << log_of(head_);
}

TEST_F(Strangers, APortScanLearnsNothing) {
  for (int i = 0; i < 5; ++i) EXPECT_EQ(say(""), "");
  EXPECT_EQ(refusals(), 0u);
}

TEST_F(Strangers, NobodyThereIsSaidAtOnce) {
  const cli::test::Output out = run({"start", "--address", "127.0.0.1:1", "--token-file", token_file_});
  EXPECT_EQ(out.code, 1);
  EXPECT_TRUE(has(out.err, "no head of a cluster can be reached at 127.0.0.1:1: Connection refused")) << out.err;
}

}  // namespace
}  // namespace ray::test
