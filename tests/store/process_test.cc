// The store between processes: deaths at every stage, forks, read-only memory, leaks, a stopped
// daemon.
#include <dirent.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <random>

#include "libray/base/fault.h"
#include "libray/base/shm.h"
#include "store/inspect.h"
#include "store/layout.h"
#include "tests/store/process.h"

namespace ray::store {
namespace {

int count_fds(pid_t pid) {
  std::string dir = pid ? "/proc/" + std::to_string(pid) + "/fd" : "/proc/self/fd";
  int n = 0;
  DIR* d = ::opendir(dir.c_str());
  while (d && ::readdir(d)) ++n;
  if (d) ::closedir(d);
  return n;
}

// Lines of /proc/PID/maps, and resident pages without shared ones.
uint64_t count_maps(pid_t pid) {
  FILE* f = std::fopen(("/proc/" + std::to_string(pid) + "/maps").c_str(), "r");
  uint64_t n = 0;
  for (int c; f && (c = std::fgetc(f)) != EOF;) n += c == '\n';
  if (f) std::fclose(f);
  return n;
}
uint64_t status_kb(pid_t pid, const std::string& key) {
  FILE* f = std::fopen(("/proc/" + std::to_string(pid) + "/status").c_str(), "r");
  char line[256];
  uint64_t kb = 0;
  while (f && std::fgets(line, sizeof line, f))
    if (std::string(line).rfind(key + ":", 0) == 0)
      kb = std::strtoull(line + key.size() + 1, nullptr, 10);
  if (f) std::fclose(f);
  return kb;
}
uint64_t cpu_ticks(pid_t pid) {
  FILE* f = std::fopen(("/proc/" + std::to_string(pid) + "/stat").c_str(), "r");
  unsigned long user = 0, system = 0;
  if (f) {
    (void)!std::fscanf(f, "%*d %*s %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user,
                       &system);
    std::fclose(f);
  }
  return user + system;
}

DaemonStats stats_of(const DaemonProcess& d) {
  auto i = inspect(d.pid, 0);
  EXPECT_TRUE(i.ok()) << i.status().message();
  return i.ok() ? i->stats : DaemonStats{};
}
template <class F>
bool eventually(F condition) {
  int64_t until = steady_ns() + kWait;
  while (!condition())
    if (steady_ns() > until)
      return false;
    else
      ::usleep(500);
  return true;
}

class StoreProcess : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_TRUE(daemon_.start(16 << 20, true)); }
  DaemonProcess daemon_;
};

TEST_F(StoreProcess, ObjectsOfADeadProcessStayUntilDropped) {
  int status = in_child([&] {
    auto c = daemon_.connect();
    Location at;
    EXPECT_TRUE(put(c.get(), 1, 1000, &at).ok());
    EXPECT_TRUE(put(c.get(), 2, 3 << 20, &at).ok());
    ::raise(SIGKILL);
  });
  EXPECT_EQ(WTERMSIG(status), SIGKILL);
  auto c = daemon_.connect();
  EXPECT_TRUE(holds(c.get(), 1, 1000, {}));
  EXPECT_TRUE(holds(c.get(), 2, 3 << 20, {}));
  c->drop(make_id(1), {});
  c->drop(make_id(2), {});
  EXPECT_TRUE(eventually([&] { return stats_of(daemon_).used <= (1 << 20); }));
}

TEST_F(StoreProcess, PinsOfADeadProcessVanish) {
  auto c = daemon_.connect();
  Location at;
  ASSERT_TRUE(put(c.get(), 1, 1 << 20, &at).ok());
  in_child([&] {
    auto other = daemon_.connect();
    Pin p;
    for (int i = 0; i < 5; ++i) EXPECT_TRUE(other->pin(make_id(1), at, kWait, &p).ok());
    ::raise(SIGKILL);
  });
  c->drop(make_id(1), at);
  EXPECT_TRUE(eventually([&] {
    DaemonStats s = stats_of(daemon_);
    return s.pinned == 0 && s.objects == 0 && s.used < (1 << 20);
  }));
}

// Every named stage of a client's life, with a kill in it: the object is whole or never was.
TEST_F(StoreProcess, KillsAtEveryFaultPoint) {
  struct Stage {
    const char* point;
    bool committed;
  };
  const Stage stages[] = {{"store.create.building", false},
                          {"store.seal.sealed", false},
                          {"store.seal.before_commit", false},
                          {"store.seal.committed", true},
                          {"store.pin.held", true},
                          {"store.unpin", true}};
  auto survivor = daemon_.connect();
  uint64_t n = 100;
  for (const Stage& stage : stages)
    for (uint64_t size : {500, 2 << 20}) {
      ++n;
      int status = in_child([&] {
        auto c = daemon_.connect();
        Location at;
        set_fault(stage.point, "kill");
        (void)!put(c.get(), n, size, &at).ok();
        Pin p;
        (void)!c->pin(make_id(n), at, kWait, &p).ok();
        c->unpin(&p);
      });
      ASSERT_TRUE(WIFSIGNALED(status)) << stage.point;
      Pin p;
      Status s = survivor->pin(make_id(n), {}, kWait, &p);
      EXPECT_EQ(s.code(), stage.committed ? RAY_OK : RAY_NOT_FOUND)
          << stage.point << " " << s.message();
      if (s.ok()) {
        EXPECT_TRUE(p.size == size && matches(p.data, size, n)) << stage.point;
        survivor->unpin(&p);
      }
      survivor->drop(make_id(n), {});
    }
  EXPECT_TRUE(eventually([&] {
    DaemonStats s = stats_of(daemon_);
    return s.objects == 0 && s.clients == 1 && s.pinned == 0 && s.used <= (1 << 20);
  }));
}

TEST_F(StoreProcess, WritingToAPinnedObjectIsASegmentationFault) {
  auto c = daemon_.connect();
  Location at;
  ASSERT_TRUE(put(c.get(), 1, 100, &at).ok());
  ASSERT_TRUE(put(c.get(), 2, 1 << 20, &at).ok());
  for (uint64_t n : {1, 2}) {
    int status = in_child([&] {
      ::signal(SIGSEGV, SIG_DFL);
      auto other = daemon_.connect();
      Pin p;
      if (!other->pin(make_id(n), {}, kWait, &p).ok()) ::_exit(9);
      const_cast<uint8_t*>(p.data)[0] = 1;
      ::_exit(0);
    });
    EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV) << status;
    status = in_child([&] {  // nor can the protection be lifted
      auto other = daemon_.connect();
      Pin p;
      if (!other->pin(make_id(n), {}, kWait, &p).ok()) ::_exit(9);
      auto page = reinterpret_cast<uintptr_t>(p.data) & ~uintptr_t{4095};
      ::_exit(::mprotect(reinterpret_cast<void*>(page), 4096, PROT_READ | PROT_WRITE) == 0 ? 1 : 0);
    });
    EXPECT_EQ(status, 0);
  }
  // The owner itself: a pin of its own object is read-only, and so is a sealed large object's
  // memory.
  int status = in_child([&] {
    ::signal(SIGSEGV, SIG_DFL);
    auto owner = daemon_.connect();
    Building b;
    if (!owner->create(make_id(3), 1 << 20, kWait, &b).ok()) ::_exit(9);
    uint8_t* stale = b.data;
    if (!owner->seal(&b, nullptr).ok()) ::_exit(9);
    stale[0] = 1;
    ::_exit(0);
  });
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV) << status;
}

TEST_F(StoreProcess, AForkedChildIsRefusedAndHarmless) {
  auto c = daemon_.connect();
  Location at;
  ASSERT_TRUE(put(c.get(), 1, 1000, &at).ok());
  Pin p;
  ASSERT_TRUE(c->pin(make_id(1), at, kWait, &p).ok());
  int status = in_child([&] {
    Building b;
    Pin q;
    EXPECT_EQ(c->create(make_id(2), 100, kWait, &b).code(), RAY_WRONG_STATE);
    EXPECT_EQ(c->pin(make_id(1), at, kWait, &q).code(), RAY_WRONG_STATE);
    c->drop(make_id(1), at);
    c->unpin(&p);
    c.reset();  // its destructor in the child must not hang up for the parent
    auto own = daemon_.connect();
    EXPECT_TRUE(holds(own.get(), 1, 1000, at));
  });
  EXPECT_EQ(status, 0);
  EXPECT_TRUE(matches(p.data, p.size, 1));
  c->unpin(&p);
  Location more;
  EXPECT_TRUE(put(c.get(), 3, 1000, &more).ok());
  EXPECT_TRUE(holds(c.get(), 3, 1000, more));
  EXPECT_TRUE(holds(c.get(), 1, 1000, at));
}

// A child that inherited the socket must not keep its dead parent alive for the daemon.
TEST_F(StoreProcess, DeathIsSeenThoughAChildHoldsTheSocket) {
  int pipe_fds[2];
  ASSERT_EQ(::pipe(pipe_fds), 0);
  in_child([&] {
    auto c = daemon_.connect();
    pid_t helper = ::fork();
    if (helper == 0) {
      char x;
      ::close(pipe_fds[1]);
      (void)!::read(pipe_fds[0], &x, 1);  // lives until the test ends
      ::_exit(0);
    }
    ::raise(SIGKILL);
  });
  EXPECT_TRUE(eventually([&] { return stats_of(daemon_).clients == 0; }));
  ::close(pipe_fds[0]);
  ::close(pipe_fds[1]);
}

// What was pinned at the fork stays as it is for the child, whoever writes meanwhile, until it ends.
TEST_F(StoreProcess, AForkedChildReadsOnAfterItsParentsDeath) {
  constexpr uint64_t kSize = 4 << 20;
  int go[2], result[2];
  ASSERT_EQ(::pipe(go), 0);
  ASSERT_EQ(::pipe(result), 0);
  in_child([&] {
    auto c = daemon_.connect();
    Location at;
    Pin p;
    EXPECT_TRUE(put(c.get(), 1, kSize, &at).ok());
    EXPECT_TRUE(c->pin(make_id(1), at, kWait, &p).ok());
    if (::fork() == 0) {
      char x;
      (void)!::read(go[0], &x, 1);
      x = matches(p.data, p.size, 1) ? 'y' : 'n';
      (void)!::write(result[1], &x, 1);
      (void)!::read(go[0], &x, 1);
      ::_exit(0);
    }
    c->drop(make_id(1), at);
    ::raise(SIGKILL);
  });
  EXPECT_TRUE(eventually([&] { return stats_of(daemon_).clients == 0; }));
  auto other = daemon_.connect();
  Location at;
  for (uint64_t n = 10; n < 20; ++n) EXPECT_TRUE(put(other.get(), n, 3 << 20, &at).ok());
  char x = 0;
  EXPECT_EQ(::write(go[1], "g", 1), 1);
  EXPECT_EQ(::read(result[0], &x, 1), 1);
  EXPECT_EQ(x, 'y');
  EXPECT_EQ(::write(go[1], "e", 1), 1);
  EXPECT_TRUE(put(other.get(), 20, 14 << 20, &at).ok());  // it needs what the child had
  for (int fd : {go[0], go[1], result[0], result[1]}) ::close(fd);
}

// A client that says each word of the greeting by itself.
template <class Daemon>
Fd connect_to(const Daemon& daemon) {
  sockaddr_un addr{};
  addr.sun_family = AF_UNIX;
  std::memcpy(addr.sun_path, daemon.socket.c_str(), daemon.socket.size());
  Fd fd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  EXPECT_EQ(::connect(fd.get(), reinterpret_cast<sockaddr*>(&addr), sizeof addr), 0);
  return fd;
}

template <class Daemon>
void say_hello(const Daemon& daemon, const Fd& fd) {
  StoreHello h{};
  h.magic = kStoreMagic;
  h.version = kStoreVersion;
  h.token_size = static_cast<uint32_t>(daemon.token.size());
  std::memcpy(h.token, daemon.token.data(), daemon.token.size());
  EXPECT_TRUE(send_with_fds(fd.get(), &h, sizeof h, nullptr, 0).ok());
}

bool is_welcome(const Fd& fd) {
  StoreWelcome w{};
  std::vector<Fd> fds;
  auto n = recv_with_fds(fd.get(), &w, sizeof w, &fds);
  return n.ok() && *n == sizeof w && w.code == RAY_OK;
}

// A descriptor's number names several connections, one after the other: an event of the first, that comes in one
// look with its end and the hello of the next, is not the next one's.
TEST_F(StoreProcess, ALateEventOfADeadClientHurtsNobody) {
  int to[2], from[2];
  ASSERT_EQ(::pipe(to), 0);
  ASSERT_EQ(::pipe(from), 0);
  auto say = [](int fd) { EXPECT_EQ(::write(fd, "x", 1), 1); };
  auto hear = [](int fd) {
    pollfd p{fd, POLLIN, 0};
    char byte;
    EXPECT_EQ(::poll(&p, 1, 20000), 1);
    EXPECT_EQ(::read(fd, &byte, 1), 1);
  };
  Fd low = connect_to(daemon_);  // so that the pidfd of the next has a lower number than its socket
  say_hello(daemon_, low);
  ASSERT_TRUE(is_welcome(low));
  const int before = count_fds(daemon_.pid);
  pid_t first = ::fork();
  if (first == 0) {
    ::close(to[1]);
    low.reset();
    Fd fd = connect_to(daemon_);
    say(from[1]), hear(to[0]);
    say_hello(daemon_, fd);
    if (!is_welcome(fd)) ::_exit(1);
    say(from[1]), hear(to[0]);
    fd.reset();
    say(from[1]), hear(to[0]);
    ::_exit(0);
  }
  hear(from[0]);
  EXPECT_TRUE(eventually([&] { return count_fds(daemon_.pid) == before + 1; }));
  low.reset();
  EXPECT_TRUE(eventually([&] { return stats_of(daemon_).clients == 0; }));
  say(to[1]), hear(from[0]);  // it is a client
  const int one = count_fds(daemon_.pid);
  Fd second = connect_to(daemon_);
  EXPECT_TRUE(eventually([&] { return count_fds(daemon_.pid) == one + 1; }));
  daemon_.stop();
  say(to[1]), hear(from[0]);  // it hung up
  say_hello(daemon_, second);
  say(to[1]);
  int status = -1;
  ::waitpid(first, &status, 0);
  EXPECT_EQ(status, 0);
  daemon_.go_on();
  EXPECT_TRUE(is_welcome(second));
  SegmentMessage m{kMsgSegment, 123456, 1, 0, 0};
  (void)send_with_fds(second.get(), &m, sizeof m, nullptr, 0);
  auto n = recv_with_fds(second.get(), &m, sizeof m, nullptr);
  EXPECT_TRUE(n.ok() && *n == sizeof m);
  for (int fd : {to[0], to[1], from[0], from[1]}) ::close(fd);
}

TEST_F(StoreProcess, AThousandConnectionsLeakNothing) {
  auto cycle = [&](uint64_t n) {
    auto c = daemon_.connect();
    Location at;
    ASSERT_TRUE(put(c.get(), n, 2000, &at).ok());
    ASSERT_TRUE(holds(c.get(), n, 2000, at));
    c->drop(make_id(n), at);
  };
  auto settled = [&] {
    return eventually([&] {
      DaemonStats s = stats_of(daemon_);
      return s.clients == 0 && s.objects == 0 && s.used == 0;
    });
  };
  for (uint64_t n = 0; n < 50; ++n) cycle(n);
  ASSERT_TRUE(settled());
  int fds_here = count_fds(0), fds_there = count_fds(daemon_.pid);
  uint64_t maps_here = count_maps(::getpid()), maps_there = count_maps(daemon_.pid);
  uint64_t anon = status_kb(daemon_.pid, "RssAnon");
  for (uint64_t n = 100; n < 1100; ++n) cycle(n);
  ASSERT_TRUE(settled());
  EXPECT_EQ(count_fds(0), fds_here);
  EXPECT_EQ(count_fds(daemon_.pid), fds_there);
  EXPECT_LE(count_maps(::getpid()), maps_here + 4);
  EXPECT_LE(count_maps(daemon_.pid), maps_there + 4);
#ifndef LIBRAY_SANITIZED
  EXPECT_LE(status_kb(daemon_.pid, "RssAnon"), anon + 2048);
#else
  (void)anon;
#endif
}

// Readers drop the mappings of segments whose owner and objects are gone.
TEST_F(StoreProcess, ReadersUnmapSegmentsOfTheDead) {
  auto reader = daemon_.connect();
  uint64_t maps = 0;
  for (uint64_t n = 0; n < 200; ++n) {
    auto writer = daemon_.connect();
    Location at;
    ASSERT_TRUE(put(writer.get(), n, 100, &at).ok());
    ASSERT_TRUE(holds(reader.get(), n, 100, at));
    reader->drop(make_id(n), at);
    writer.reset();
    ASSERT_TRUE(eventually(
        [&] { return stats_of(daemon_).clients == 1 && stats_of(daemon_).objects == 0; }));
    if (n == 20) maps = count_maps(::getpid());
  }
  EXPECT_LE(count_maps(::getpid()), maps + 20);
}

TEST_F(StoreProcess, AStoppedDaemonCanBeInspected) {
  auto c = daemon_.connect();
  Location at, late;
  ASSERT_TRUE(put(c.get(), 1, 1234, &at).ok());
  Pin p;
  ASSERT_TRUE(c->pin(make_id(1), at, kWait, &p).ok());
  ASSERT_TRUE(eventually([&] { return stats_of(daemon_).objects == 1; }));
  daemon_.stop();
  ASSERT_TRUE(put(c.get(), 2, 777, &late).ok());  // a put does not need the daemon
  EXPECT_TRUE(holds(c.get(), 2, 777, late));      // nor does a get with a good hint
  auto i = inspect(daemon_.pid, 100);
  ASSERT_TRUE(i.ok()) << i.status().message();
  EXPECT_EQ(i->daemon_pid, daemon_.pid);
  EXPECT_EQ(i->stats.capacity, 16u << 20);
  ASSERT_EQ(i->objects.size(), 2u);
  EXPECT_EQ(i->objects[0].id, make_id(1));
  EXPECT_EQ(i->objects[0].size, 1234u);
  EXPECT_EQ(i->objects[0].pins, 1u);
  EXPECT_STREQ(i->objects[0].state, "sealed");
  EXPECT_EQ(i->objects[1].id, make_id(2));
  EXPECT_STREQ(i->objects[1].state, "committed");
  ASSERT_EQ(i->clients.size(), 1u);
  EXPECT_EQ(i->clients[0].pid, ::getpid());
  daemon_.go_on();
  c->unpin(&p);
  EXPECT_FALSE(inspect(::getpid(), 1).ok());
}

// The records of a drop and of the next copy lie in different rings: the copy survives whichever
// ring is read first.
TEST_F(StoreProcess, DropThenRecreateElsewhere) {
  auto a = daemon_.connect();
  auto b = daemon_.connect();
  for (int turn = 0; turn < 2; ++turn) {
    Client *first = turn ? a.get() : b.get(), *second = turn ? b.get() : a.get();
    Location at, again;
    ASSERT_TRUE(put(first, 7, 50, &at).ok());
    ASSERT_TRUE(put(second, 8, 50, &again).ok());  // both have an extent
    ASSERT_TRUE(eventually([&] { return stats_of(daemon_).objects == 2; }));
    daemon_.stop();
    first->drop(make_id(7), at);
    ASSERT_TRUE(put(second, 7, 50, &again).ok());
    daemon_.go_on();
    // A question makes the daemon read everything first: the old place is gone, the new one is
    // known.
    Pin p;
    EXPECT_EQ(first->pin(make_id(999), {}, kWait, &p).code(), RAY_NOT_FOUND);
    ASSERT_TRUE(eventually([&] { return first->pin(make_id(7), {}, kWait, &p).ok(); }));
    EXPECT_TRUE(matches(p.data, p.size, 7));
    EXPECT_EQ(stats_of(daemon_).objects, 2u);
    first->unpin(&p);
    second->drop(make_id(7), again);
    second->drop(make_id(8), {});
    ASSERT_TRUE(eventually([&] { return stats_of(daemon_).objects == 0; }));
  }
}

// More drops than a ring holds, while the daemon stands still, and then no further call.
TEST_F(StoreProcess, DropsNeverBlockAndNeverGetLost) {
  auto c = daemon_.connect();
  std::vector<Location> at(5000);
  for (uint64_t n = 0; n < at.size(); ++n) ASSERT_TRUE(put(c.get(), n, 64, &at[n]).ok());
  ASSERT_TRUE(eventually([&] { return stats_of(daemon_).objects == at.size(); }));
  daemon_.stop();
  for (uint64_t n = 0; n < at.size(); ++n) c->drop(make_id(n), at[n]);
  daemon_.go_on();
  EXPECT_TRUE(eventually([&] { return stats_of(daemon_).objects == 0; }));
}

TEST_F(StoreProcess, ADeadDaemonIsAnErrorAndPinnedBytesStay) {
  auto c = daemon_.connect();
  Location at;
  ASSERT_TRUE(put(c.get(), 1, 1000, &at).ok());
  Pin p;
  ASSERT_TRUE(c->pin(make_id(1), at, kWait, &p).ok());
  ::kill(daemon_.pid, SIGKILL);
  ::waitpid(daemon_.pid, nullptr, 0);
  daemon_.pid = -1;
  EXPECT_TRUE(matches(p.data, p.size, 1));
  Building b;
  EXPECT_EQ(c->create(make_id(2), 4 << 20, -1, &b).code(), RAY_UNAVAILABLE);
  Pin q;
  EXPECT_EQ(c->pin(make_id(3), {}, -1, &q).code(), RAY_UNAVAILABLE);
  Status s;
  for (uint64_t n = 10; n < 100000 && s.ok(); ++n)
    s = put(c.get(), n, 1000, &at);  // until the lease ends
  EXPECT_EQ(s.code(), RAY_UNAVAILABLE) << s.message();
  c->unpin(&p);
  c->drop(make_id(1), at);
  EXPECT_FALSE(Client::connect(daemon_.socket, daemon_.token).ok());
}

TEST_F(StoreProcess, IdleDaemonUsesNoProcessorAndLittleMemory) {
  auto c = daemon_.connect();
  Location at;
  for (uint64_t n = 0; n < 1000; ++n) ASSERT_TRUE(put(c.get(), n, 5000, &at).ok());
  // It falls asleep for good about a second after the last work: wait until its time stands still.
  uint64_t before = 0;
  ASSERT_TRUE(eventually([&] {
    before = cpu_ticks(daemon_.pid);
    ::usleep(1500000);
    return cpu_ticks(daemon_.pid) == before;
  }));
  ::usleep(1000000);
  EXPECT_LE(cpu_ticks(daemon_.pid), before + 1);
#ifndef LIBRAY_SANITIZED
  EXPECT_LE(status_kb(daemon_.pid, "VmRSS"), 16u << 10);
#endif
  EXPECT_TRUE(holds(c.get(), 5, 5000, {}));  // and it still answers
}

TEST_F(StoreProcess, TheSocketIsPrivate) {
  struct stat st {};
  ASSERT_EQ(::stat(daemon_.socket.c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 0777, 0600u);
}

// Puts, checks and pins what it finds, drops its oldest; never ends by itself. Exit 77: wrong
// bytes.
[[noreturn]] void work_until_killed(const DaemonProcess& daemon, uint64_t seed) {
  std::mt19937_64 random(seed);
  auto c = daemon.connect();
  std::vector<std::pair<uint64_t, Location>> mine;
  for (uint64_t k = 0; c; ++k) {
    uint64_t size = random() % 8 ? random() % 3000 : random() % 1500000;
    uint64_t n = (seed << 20 | k) << 24 | size;  // the id tells the size
    Location at;
    if (put(c.get(), n, size, &at).ok()) mine.push_back({n, at});
    auto i = inspect(daemon.pid, 8);
    for (size_t o = 0; i.ok() && o < i->objects.size(); ++o) {
      uint64_t other;
      std::memcpy(&other, i->objects[o].id.b, sizeof other);
      Pin p;
      if (!c->pin(make_id(other), {}, kWait, &p).ok()) continue;
      if (p.size != (other & 0xFFFFFF) || !matches(p.data, p.size, other)) ::_exit(77);
      if (random() % 4) c->unpin(&p);
    }
    if (mine.size() > 20) {
      c->drop(make_id(mine.front().first), mine.front().second);
      mine.erase(mine.begin());
    }
  }
  ::_exit(1);
}

// Clients that put, pin, drop and are killed in the middle of it, over and over, in a store that is
// too small: nothing they leave behind is wrong, and nothing is lost for good.
TEST_F(StoreProcess, ClientsKilledUnderLoadLeaveNothingWrong) {
#ifdef LIBRAY_SANITIZED
  constexpr uint64_t kKills = 40;
#else
  constexpr uint64_t kKills = 200;
#endif
  std::mt19937_64 random(42);
  std::vector<pid_t> running;
  for (uint64_t kill = 0; kill < kKills; ++kill) {
    while (running.size() < 3) {
      pid_t pid = ::fork();
      if (pid == 0) work_until_killed(daemon_, 1000 + kill * 4 + running.size());
      running.push_back(pid);
    }
    ::usleep(static_cast<useconds_t>(random() % 12000));
    size_t victim = random() % running.size();
    ::kill(running[victim], SIGKILL);
    int status = 0;
    ::waitpid(running[victim], &status, 0);
    ASSERT_TRUE(WIFSIGNALED(status)) << "a reader saw wrong bytes: " << WEXITSTATUS(status);
    running.erase(running.begin() + static_cast<long>(victim));
  }
  for (pid_t pid : running) {
    ::kill(pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
  }
  auto c = daemon_.connect();
  ASSERT_TRUE(eventually([&] { return stats_of(daemon_).clients == 1; }));
  auto left = inspect(daemon_.pid, 1000000);
  ASSERT_TRUE(left.ok());
  std::printf("%zu objects left, %llu spilled, %llu restored\n", left->objects.size(),
              static_cast<unsigned long long>(left->stats.spilled_objects),
              static_cast<unsigned long long>(left->stats.restored_objects));
  EXPECT_GT(left->objects.size(), 20u);
  for (auto& o : left->objects) {
    uint64_t n;
    std::memcpy(&n, o.id.b, sizeof n);
    EXPECT_TRUE(holds(c.get(), n, n & 0xFFFFFF, {}));
    c->drop(o.id, {});
  }
  EXPECT_TRUE(eventually([&] {
    DaemonStats s = stats_of(daemon_);
    // The daemon's own extent for small restored objects stays open.
    return s.objects == 0 && s.pinned == 0 && s.spilled_bytes == 0 && s.used <= (512 << 10);
  })) << stats_of(daemon_).objects
      << " objects, " << stats_of(daemon_).used << " bytes in use";
}

// Four processes write and read each other's objects through a store that is far too small.
TEST_F(StoreProcess, FourProcessesShareATightStore) {
  constexpr uint64_t kEach = 60;
  std::vector<pid_t> children;
  for (uint64_t w = 0; w < 4; ++w) {
    pid_t pid = ::fork();
    if (pid == 0) {
      auto c = daemon_.connect();
      bool ok = c != nullptr;
      for (uint64_t i = 0; i < kEach && ok; ++i) {
        Location at;
        uint64_t n = w * 1000 + i, size = (i * 7919) % 900000;
        ok = put(c.get(), n, size, &at).ok();
      }
      for (uint64_t round = 0; round < 4 && ok; ++round)
        for (uint64_t i = 0; i < kEach && ok; ++i) {
          uint64_t n = (w + round) % 4 * 1000 + i, size = (i * 7919) % 900000;
          Pin p;
          Status s(RAY_NOT_FOUND);
          for (int tries = 0; s.code() == RAY_NOT_FOUND && tries < 20000;
               ++tries) {  // until its writer is there
            s = c->pin(make_id(n), {}, kWait, &p);
            if (!s.ok()) ::usleep(1000);
          }
          ok = s.ok() && p.size == size && matches(p.data, size, n);
          if (!ok)
            std::fprintf(stderr, "object %llu: %s\n", static_cast<unsigned long long>(n),
                         s.message().c_str());
          c->unpin(&p);
        }
      ::_exit(ok ? 0 : 1);
    }
    children.push_back(pid);
  }
  for (pid_t pid : children) {
    int status = -1;
    ::waitpid(pid, &status, 0);
    EXPECT_EQ(status, 0);
  }
  EXPECT_LE(stats_of(daemon_).used, stats_of(daemon_).capacity);
}

}  // namespace
}  // namespace ray::store
