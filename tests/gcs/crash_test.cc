// A shard that is killed at chosen instructions, that cannot write, that gets garbage: nothing that
// was acknowledged is lost, nothing happens twice, nothing else suffers.
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <fstream>
#include <future>
#include <map>
#include <mutex>
#include <random>
#include <thread>

#include "gcs/frame.h"
#include "tests/gcs/shard_process.h"

namespace ray::gcs {
namespace {

using namespace test;

// Increments a counter by compare-and-swap many times over, several in flight, and appends lineage,
// while the shard dies and comes back. Every put is sent once by the program; resends are the
// client's.
class Load {
 public:
  explicit Load(Client* c) : c_(c) {}
  void start(int calls, int batches) {
    left_ = calls + batches;
    for (int k = 0; k < calls; ++k) {
      std::string args;
      // Each key is put twice: a lost deduplication shows as version 3.
      wire::Writer(&args)
          .array(4)
          .str("load")
          .bin("k" + std::to_string(k / 2))
          .bin(std::to_string(k))
          .uint64(UINT64_MAX);
      c_->call(0, kKvPut, args, [this, k](Status s, std::string answer) {
        std::lock_guard lock(mutex_);
        if (s.ok())
          acked_[k / 2] += 1;
        else
          failed_.push_back(s.message());
        (void)answer;
        if (--left_ == 0) cv_.notify_all();
      });
    }
    TaskId root = root_task(node_of(9));
    for (int k = 0; k < batches; ++k) {
      std::string b;
      for (uint32_t n = 0; n < 50; ++n)
        add_task(&b, child_task(origin_of(root), static_cast<uint32_t>(k) * 50 + n), root, 10);
      c_->append_lineage(0, b, 100, [this](Status s, uint64_t committed) {
        std::lock_guard lock(mutex_);
        if (s.ok())
          committed_ = std::max(committed_, committed);
        else
          failed_.push_back(s.message());
        if (--left_ == 0) cv_.notify_all();
      });
    }
  }
  void wait() {
    std::unique_lock lock(mutex_);
    cv_.wait(lock, [&] { return left_ == 0; });
  }
  std::mutex mutex_;
  std::condition_variable cv_;
  int left_ = 0;
  std::map<int, int> acked_;
  std::vector<std::string> failed_;
  uint64_t committed_ = 0;

 private:
  Client* c_;
};

class CrashAt : public ::testing::TestWithParam<const char*> {};

TEST_P(CrashAt, NothingAcknowledgedIsLostAndNothingHappensTwice) {
  TempDir dir;
  ShardProcess shard(dir.path(), 0, {"segment=200000"});
  ASSERT_TRUE(shard.start(GetParam()));
  auto c = connect({shard.url()}, node_of(1));
  Load load(c.get());
  load.start(400, 60);
  EXPECT_EQ(shard.drive_until_dead(c.get()), SIGKILL);
  ASSERT_TRUE(shard.start());
  load.wait();
  EXPECT_TRUE(load.failed_.empty()) << load.failed_[0];
  EXPECT_EQ(load.committed_, 6000u);
  for (int k = 0; k < 200; ++k) {
    Got g = kv_get(c.get(), 0, "load", "k" + std::to_string(k));
    ASSERT_EQ(g.code, RAY_OK);
    EXPECT_EQ(first_u(g), 2u) << "key " << k;
  }
  Got tasks = query(c.get(), 0, "tasks");
  ASSERT_EQ(tasks.code, RAY_OK) << tasks.text;
  EXPECT_EQ(wire::Cursor(tasks.answer).array(), 3000u);
  EXPECT_EQ(
      sql(shard.database(), "SELECT count(*) FROM tasks WHERE state<>'FINISHED' OR args<>'7'")[0],
      "0");
  EXPECT_EQ(stat(c.get(), 0, "damaged"), 0u);
}

INSTANTIATE_TEST_SUITE_P(
    Points, CrashAt,
    ::testing::Values("gcs.journal.before_commit=kill@2", "gcs.journal.mid_commit=kill@3",
                      "gcs.journal.mid_commit=kill@9", "gcs.journal.after_commit=kill@1",
                      "gcs.journal.after_commit=kill@6", "gcs.reply=kill@5", "gcs.reply=kill@150",
                      "gcs.materialise.mid=kill@1", "gcs.materialise.after=kill@1"));

// Killed inside the third transaction of the materialiser, between its rows and its watermark.
TEST(Crash, TheMaterialiserGoesOnWhereItWas) {
  TempDir dir;
  ShardProcess shard(dir.path());
  ASSERT_TRUE(shard.start("gcs.materialise.mid=kill@3"));
  auto c = connect({shard.url()}, node_of(1));
  TaskId root = root_task(node_of(9));
  Origin origin = origin_of(root);
  for (uint32_t k = 0; k < 5; ++k) {
    std::string b;
    for (uint32_t n = 0; n < 100; ++n) {
      TaskId t = child_task(origin, k * 100 + n);
      std::vector<ObjectId> refs;
      if (n > 0) refs.push_back(return_object(child_task(origin, k * 100 + n - 1), 0));
      add_task(&b, t, root, 10, refs, 2);
    }
    EXPECT_EQ(append(c.get(), 0, b, 200), (k + 1) * 200);
    std::string args, key = "k" + std::to_string(k);
    if (k == 2) {
      // This question makes it materialise, and die; the answer comes from its successor.
      std::promise<Got> p;
      wire::Writer(&args).array(2).str("tasks").nil();
      c->call(0, kQuery, args, [&](Status s, std::string a) {
        p.set_value({s.code(), s.message(), a});
      });
      EXPECT_EQ(shard.wait_dead(), SIGKILL);
      ASSERT_TRUE(shard.start());
      EXPECT_EQ(wire::Cursor(p.get_future().get().answer).array(), 300u);
    } else {
      EXPECT_EQ(wire::Cursor(query(c.get(), 0, "tasks").answer).array(), (k + 1) * 100);
    }
  }
  EXPECT_EQ(
      sql(shard.database(), "SELECT count(*),count(DISTINCT task) FROM tasks WHERE result='7'")[0],
      "500|500");
  EXPECT_EQ(sql(shard.database(), "SELECT count(*) FROM task_args")[0], "495");
  EXPECT_EQ(sql(shard.database(), "SELECT count(*) FROM objects")[0], "1000");
  EXPECT_EQ(sql(shard.database(), "SELECT lsn FROM node_journals")[0], "1000");
}

// A connection that NNG takes for alive and that nobody answers: a listener that accepts and says
// nothing. Its place is then taken by a real shard, which only a new connection can reach.
TEST(Crash, AConnectionThatFellSilentIsMadeAgain) {
  TempDir dir;
  ShardProcess shard(dir.path());
  int silent = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::string path = shard.url().substr(6);
  ASSERT_LT(path.size(), sizeof address.sun_path);
  path.copy(address.sun_path, path.size());
  ASSERT_EQ(::bind(silent, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  ASSERT_EQ(::listen(silent, 16), 0);
  ClientOptions o;
  o.urls = {shard.url()};
  o.token = kToken;
  o.node = node_of(1);
  o.watch_ns = 50'000'000;
  o.ping_ns = 200'000'000;
  auto c = Client::connect(o);
  ASSERT_TRUE(c.ok());
  Load load(c->get());
  load.start(40, 6);
  int first = ::accept4(silent, nullptr, nullptr, SOCK_CLOEXEC);
  ASSERT_GE(first, 0);
  pollfd again{silent, POLLIN, 0};
  ASSERT_EQ(::poll(&again, 1, 8000), 1)
      << "not dialled again";  // NNG by itself gives up after 10 s
  ASSERT_TRUE(shard.start());
  load.wait();
  EXPECT_TRUE(load.failed_.empty()) << load.failed_[0];
  EXPECT_EQ(load.committed_, 600u);
  for (int k = 0; k < 20; ++k)
    EXPECT_EQ(first_u(kv_get(c->get(), 0, "load", "k" + std::to_string(k))), 2u);
  ::close(first);
  ::close(silent);
}

TEST(Crash, KilledAgainAndAgainUnderLoad) {
  TempDir dir;
  ShardProcess shard(dir.path(), 0, {"segment=100000"});
  ASSERT_TRUE(shard.start());
  auto c = connect({shard.url()}, node_of(1));
  Load load(c.get());
  std::mt19937 random(7);
  load.start(4000, 600);  // one start after another interrupts it
  const char* rounds = std::getenv("GCS_KILLS");
  for (int k = 0; k < (rounds ? std::atoi(rounds) : 8); ++k) {
    ::usleep(random() % 30000);
    shard.kill9();
    ASSERT_TRUE(shard.start());
  }
  load.wait();
  EXPECT_TRUE(load.failed_.empty()) << load.failed_[0];
  EXPECT_EQ(load.committed_, 60000u);
  std::string filter;
  wire::Writer(&filter).map(2).str("limit").uint64(1).str("fresh_ms").uint64(60000);
  ASSERT_EQ(query(c.get(), 0, "tasks", filter).code, RAY_OK);
  EXPECT_EQ(sql(shard.database(), "SELECT count(*) FROM tasks WHERE state='FINISHED'")[0], "30000");
  EXPECT_EQ(shard.stop(), 0);
  EXPECT_EQ(sql(shard.database(), "SELECT count(*) FROM kv WHERE version<>2")[0], "0");
  EXPECT_EQ(sql(shard.database(), "SELECT count(*) FROM kv")[0], "2000");
}

TEST(Crash, AFullDiskRefusesWritesServesReadsAndRecovers) {
  TempDir dir;
  ShardProcess shard(dir.path());
  ASSERT_TRUE(shard.start("gcs.journal.commit=fail@0"));
  shard.kill9();
  ASSERT_TRUE(shard.start());
  auto c = connect({shard.url()}, node_of(1));
  ASSERT_EQ(kv_put(c.get(), 0, "ns", "k", "v").code, RAY_OK);
  shard.kill9();
  ASSERT_TRUE(shard.start("gcs.journal.commit=fail@0"));
  Got refused = kv_put(c.get(), 0, "ns", "k", "w");
  EXPECT_EQ(refused.code, RAY_UNAVAILABLE);
  EXPECT_NE(refused.text.find("cannot write its journal"), std::string::npos) << refused.text;
  Got read = kv_get(c.get(), 0, "ns", "k");
  EXPECT_EQ(read.code, RAY_OK);
  EXPECT_EQ(first_u(read), 1u);
  EXPECT_EQ(stat(c.get(), 0, "refusing"), 1u);
  // Lineage waits inside the client until it can be written.
  std::string b;
  TaskId root = root_task(node_of(9));
  add_task(&b, child_task(origin_of(root), 1), root, 10);
  std::atomic<uint64_t> committed{0};
  std::mutex mutex;
  std::condition_variable cv;
  c->append_lineage(0, b, 2, [&](Status s, uint64_t n) {
    std::lock_guard lock(mutex);
    committed = s.ok() ? n : 77;
    cv.notify_all();
  });
  EXPECT_EQ(kv_put(c.get(), 0, "ns", "k", "w").code, RAY_UNAVAILABLE);
  EXPECT_EQ(committed.load(), 0u);
  shard.kill9();
  ASSERT_TRUE(shard.start());
  std::unique_lock lock(mutex);
  cv.wait(lock, [&] { return committed != 0; });
  EXPECT_EQ(committed.load(), 2u);
  lock.unlock();
  EXPECT_EQ(first_u(kv_put(c.get(), 0, "ns", "k", "w", 1)), 2u);
}

// A real file system of 8 MB. Needs the right to mount.
TEST(Crash, ARealFullDisk) {
  TempDir dir;
  if (::mount("tmpfs", dir.path().c_str(), "tmpfs", 0, "size=8m") != 0)
    GTEST_SKIP() << "cannot mount a tmpfs";
  {
    ShardProcess shard(dir.path());
    ASSERT_TRUE(shard.start());
    auto c = connect({shard.url()}, node_of(1));
    std::string value(100000, 'v');
    for (char& ch : value) ch = static_cast<char>(std::rand());
    int stored = 0;
    Got g{};
    while (stored < 200 &&
           (g = kv_put(c.get(), 0, "ns", "k" + std::to_string(stored), value)).code == RAY_OK)
      ++stored;
    EXPECT_EQ(g.code, RAY_UNAVAILABLE) << g.text;
    EXPECT_GT(stored, 5);
    for (int k = 0; k < stored; ++k)
      ASSERT_EQ(kv_get(c.get(), 0, "ns", "k" + std::to_string(k)).code, RAY_OK) << k;
    // Space returns.
    ASSERT_EQ(::mount("tmpfs", dir.path().c_str(), "tmpfs", MS_REMOUNT, "size=200m"), 0);
    for (int k = 0; k < 200 && g.code != RAY_OK; ++k) {
      g = kv_put(c.get(), 0, "ns", "after", value);
      if (g.code != RAY_OK) ::usleep(20000);
    }
    EXPECT_EQ(g.code, RAY_OK) << g.text;
    shard.kill9();
    ASSERT_TRUE(shard.start());
    for (int k = 0; k < stored; ++k)
      ASSERT_EQ(kv_get(c.get(), 0, "ns", "k" + std::to_string(k)).code, RAY_OK) << k;
    EXPECT_EQ(kv_get(c.get(), 0, "ns", "after").code, RAY_OK);
  }
  ::umount2(dir.path().c_str(), MNT_DETACH);
}

// A file size limit gives short writes and EFBIG: an I/O error in the middle of a commit.
TEST(Crash, WriteErrorsInTheMiddleOfACommit) {
  TempDir dir;
  ShardProcess shard(dir.path());
  ASSERT_TRUE(shard.start());
  auto c = connect({shard.url()}, node_of(1));
  rlimit small{300000, 300000}, none{};
  ASSERT_EQ(::prlimit(shard.pid(), RLIMIT_FSIZE, &small, &none), 0);
  std::string value(70000, 'v');
  int stored = 0, refused = 0;
  for (int k = 0; k < 60; ++k) {
    Got g = kv_put(c.get(), 0, "ns", "k" + std::to_string(k), value);
    if (g.code == RAY_OK)
      ++stored;
    else if (g.code == RAY_UNAVAILABLE)
      ++refused;
  }
  EXPECT_EQ(stored + refused, 60);
  EXPECT_GT(stored, 0);
  EXPECT_GT(refused, 0);
  rlimit back = none;
  (void)::prlimit(shard.pid(), RLIMIT_FSIZE, &back, nullptr);
  std::vector<bool> there(60);
  for (int k = 0; k < 60; ++k)
    there[static_cast<size_t>(k)] =
        kv_get(c.get(), 0, "ns", "k" + std::to_string(k)).code == RAY_OK;
  EXPECT_EQ(std::count(there.begin(), there.end(), true), stored);
  shard.kill9();
  ASSERT_TRUE(shard.start());
  for (int k = 0; k < 60; ++k)
    EXPECT_EQ(kv_get(c.get(), 0, "ns", "k" + std::to_string(k)).code == RAY_OK,
              there[static_cast<size_t>(k)])
        << k;
}

// ---- hostile bytes
// -----------------------------------------------------------------------------------------------

int raw_connect(const std::string& path) {
  int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_un a{};
  a.sun_family = AF_UNIX;
  std::snprintf(a.sun_path, sizeof a.sun_path, "%s", path.c_str());
  if (::connect(fd, reinterpret_cast<sockaddr*>(&a), sizeof a) == 0) return fd;
  ::close(fd);
  return -1;
}

void send_all(int fd, const std::string& s) { (void)!::send(fd, s.data(), s.size(), MSG_NOSIGNAL); }
// NNG's own framing over ipc: 0x01, length (8 bytes, big endian), then a request id and the body.
std::string framed(const std::string& body, uint64_t claimed) {
  std::string s("\x01", 1);
  for (int k = 7; k >= 0; --k) s.push_back(static_cast<char>(claimed >> (8 * k)));
  return s + body;
}

TEST(Hostile, GarbageNeverHurtsTheShard) {
  TempDir dir;
  ShardProcess shard(dir.path());
  ASSERT_TRUE(shard.start());
  auto c = connect({shard.url()}, node_of(1));
  ASSERT_EQ(kv_put(c.get(), 0, "ns", "k", "v").code, RAY_OK);
  std::string path = shard.url().substr(6), hello("\0SP\0\0\x30\0\0", 8);
  std::mt19937 random(5);
  auto noise = [&](size_t n) {
    std::string s(n, '\0');
    for (char& ch : s) ch = static_cast<char>(random());
    return s;
  };
  std::string id("\x80\0\0\1", 4);
  std::string args;
  wire::Writer(&args).array(4).str("ns").bin("k").bin("hostile").uint64(UINT64_MAX);
  std::string valid = request_head(kToken, 1, 1, 1, kKvPut) + args;
  std::string wrong = request_head("no token at all, but long enough", 1, 1, 1, kKvPut) + args;
  std::vector<std::string> streams = {noise(100),
                                      hello,
                                      hello + noise(5000),
                                      hello + framed(id, UINT64_MAX),
                                      hello + framed(id, uint64_t{1} << 40),
                                      hello + framed(id, 4),
                                      hello + framed(id + wrong, 4 + wrong.size()),
                                      hello + framed(noise(2), 2),
                                      hello + framed("", 0)};
  for (size_t cut = 0; cut < valid.size(); cut += 3)
    streams.push_back(hello + framed(id + valid.substr(0, cut), 4 + cut));
  for (int k = 0; k < 300; ++k) {
    std::string bad = wrong;
    for (int n = 0; n < 3; ++n) bad[random() % bad.size()] = static_cast<char>(random());
    streams.push_back(hello + framed(id + bad, 4 + bad.size()));
    std::string deep =
        id + std::string(1000 + random() % 5000, static_cast<char>(random() % 2 ? 0x91 : 0x81));
    streams.push_back(hello + framed(deep, deep.size()));
  }
  std::vector<int> open;
  for (const std::string& s : streams) {
    int fd = raw_connect(path);
    ASSERT_GE(fd, 0);
    send_all(fd, s);
    if (random() % 2)
      ::close(fd);
    else
      open.push_back(fd);
  }
  Got g = kv_get(c.get(), 0, "ns", "k");
  EXPECT_EQ(g.code, RAY_OK);
  EXPECT_EQ(first_u(g), 1u);
  for (int fd : open) ::close(fd);
  EXPECT_EQ(first_u(kv_put(c.get(), 0, "ns", "k", "w")), 2u);
  EXPECT_LT(shard.rss_kib(), 64u << 10);
}

TEST(Hostile, MalformedOperationsFromAnAdmittedClient) {
  TempDir dir;
  ShardProcess shard(dir.path());
  ASSERT_TRUE(shard.start());
  auto c = connect({shard.url()}, node_of(1));
  std::mt19937 random(6);
  for (uint32_t op = 0; op < 60; ++op) {
    if (op == kPoll) continue;
    for (int k = 0; k < 20; ++k) {
      std::string args;
      wire::Writer w(&args);
      size_t n = random() % 8;
      w.array(n);
      for (size_t m = 0; m < n; ++m) switch (random() % 5) {
          case 0: w.uint64(random()); break;
          case 1: w.str("x"); break;
          case 2: w.id(node_of(static_cast<uint8_t>(random()))); break;
          case 3: w.map(1).str("a").nil(); break;
          default: w.bin(std::string(random() % 50, 'b'));
        }
      call(c.get(), 0, op, args);
    }
  }
  EXPECT_EQ(kv_put(c.get(), 0, "ns", "k", "v").code, RAY_OK);
}

TEST(Crash, DiesWithItsParentAndLeavesNoSocket) {
  TempDir dir;
  ShardProcess shard(dir.path());
  int pids[2];
  ASSERT_EQ(::pipe(pids), 0);
  pid_t parent = ::fork();
  if (parent == 0) {
    ShardProcess child(dir.path());
    bool up = child.start();
    int pid = up ? child.pid() : 0;
    (void)!::write(pids[1], &pid, sizeof pid);
    ::pause();
    ::_exit(0);
  }
  int pid = 0;
  ASSERT_EQ(::read(pids[0], &pid, sizeof pid), static_cast<ssize_t>(sizeof pid));
  ASSERT_GT(pid, 0);
  auto c = connect({shard.url()}, node_of(1));
  ASSERT_EQ(kv_put(c.get(), 0, "ns", "k", "v").code, RAY_OK);
  ::kill(parent, SIGKILL);
  ::waitpid(parent, nullptr, 0);
  while (::kill(pid, 0) == 0) ::usleep(2000);  // ends by itself, in order
  EXPECT_NE(::access((dir.path() + "/gcs-0.sock").c_str(), F_OK), 0);
  EXPECT_EQ(sql(shard.database(), "SELECT value FROM kv")[0], "v");
  for (int fd : pids) ::close(fd);
}

}  // namespace
}  // namespace ray::gcs
