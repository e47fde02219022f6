// Shared memory, descriptor passing, doorbells across processes.
#include "libray/base/shm.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <thread>

#include "libray/base/doorbell.h"
#include "libray/base/spin.h"

namespace ray {
namespace {

bool is_open(int fd) { return ::fcntl(fd, F_GETFD) >= 0; }

TEST(Fd, ClosesOnceAndMoves) {
  int raw = ::open("/dev/null", O_RDONLY);
  {
    Fd a(raw);
    Fd b(std::move(a));
    EXPECT_FALSE(a.valid());
    a = std::move(b);
    EXPECT_EQ(a.get(), raw);
    EXPECT_TRUE(is_open(raw));
  }
  EXPECT_FALSE(is_open(raw));
}

TEST(Memory, IsSharedSparseAndPrivateToItsDescriptors) {
  constexpr size_t kSize = size_t{1} << 30;
  auto fd = create_memfd("libray-test", kSize);
  ASSERT_TRUE(fd.ok());
  EXPECT_EQ(::fcntl(fd->get(), F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
  struct stat st;
  ASSERT_EQ(::fstat(fd->get(), &st), 0);
  EXPECT_EQ(static_cast<size_t>(st.st_size), kSize);
  EXPECT_EQ(st.st_blocks, 0);
  auto writer = map_shared(fd->get(), kSize, true);
  auto reader = map_shared(fd->get(), 4096, false, 4096);
  ASSERT_TRUE(writer.ok());
  ASSERT_TRUE(reader.ok());
  writer->data()[4096] = 42;
  EXPECT_EQ(reader->data()[0], 42);
  Mapping moved = std::move(*reader);
  EXPECT_FALSE(*reader);
  EXPECT_EQ(moved.data()[0], 42);
  EXPECT_EQ(::fcntl(fd->get(), F_ADD_SEALS, F_SEAL_SHRINK), 0);
}

// Else whoever was given it could end the others, with a signal at their next look.
TEST(Memory, OfASizeKeepsIt) {
  auto fd = create_memfd("libray-test", 8192);
  ASSERT_TRUE(fd.ok());
  EXPECT_NE(::ftruncate(fd->get(), 0), 0);
  EXPECT_EQ(errno, EPERM);
  EXPECT_NE(::ftruncate(fd->get(), 16384), 0);
  auto open_ended = create_memfd("libray-test", 0);
  ASSERT_TRUE(open_ended.ok());
  EXPECT_EQ(::ftruncate(open_ended->get(), 4096), 0);
}

TEST(Memory, FailuresAreNamed) {
  auto m = map_shared(-1, 4096, true);
  ASSERT_FALSE(m.ok());
  EXPECT_EQ(m.status().code(), RAY_OUT_OF_MEMORY);
  EXPECT_NE(m.status().message().find("4096"), std::string::npos);
}

class Pair : public testing::Test {
 protected:
  void SetUp() override {
    int s[2];
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, s), 0);
    a = Fd(s[0]);
    b = Fd(s[1]);
  }
  Fd a, b;
};

TEST_F(Pair, PassesDescriptorsInOrder) {
  auto one = create_memfd("one", 4096), two = create_memfd("two", 8192);
  int fds[] = {one->get(), two->get()};
  ASSERT_TRUE(send_with_fds(a.get(), "hello", 5, fds, 2).ok());
  char text[16];
  std::vector<Fd> got;
  auto n = recv_with_fds(b.get(), text, sizeof text, &got);
  ASSERT_TRUE(n.ok());
  EXPECT_EQ(std::string(text, *n), "hello");
  ASSERT_EQ(got.size(), 2u);
  struct stat st;
  ASSERT_EQ(::fstat(got[1].get(), &st), 0);
  EXPECT_EQ(st.st_size, 8192);
  EXPECT_EQ(::fcntl(got[0].get(), F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
}

TEST_F(Pair, UnwantedDescriptorsAreClosed) {
  int pipe_fds[2];
  ASSERT_EQ(::pipe2(pipe_fds, O_CLOEXEC), 0);
  Fd read_end(pipe_fds[0]);
  {
    Fd write_end(pipe_fds[1]);
    int fds[] = {write_end.get()};
    ASSERT_TRUE(send_with_fds(a.get(), "x", 1, fds, 1).ok());
  }
  char c;
  ASSERT_TRUE(recv_with_fds(b.get(), &c, 1, nullptr).ok());
  EXPECT_EQ(::read(read_end.get(), &c, 1), 0);  // end of file: nobody holds the write end
}

TEST_F(Pair, OversizedMessagesAreRefusedWithoutLeaking) {
  int pipe_fds[2];
  ASSERT_EQ(::pipe2(pipe_fds, O_CLOEXEC), 0);
  Fd read_end(pipe_fds[0]);
  {
    Fd write_end(pipe_fds[1]);
    int fds[] = {write_end.get()};
    ASSERT_TRUE(send_with_fds(a.get(), "too long", 8, fds, 1).ok());
  }
  char text[4];
  std::vector<Fd> got;
  auto n = recv_with_fds(b.get(), text, sizeof text, &got);
  ASSERT_FALSE(n.ok());
  EXPECT_EQ(n.status().code(), RAY_INVALID_ARGUMENT);
  EXPECT_TRUE(got.empty());
  char c;
  EXPECT_EQ(::read(read_end.get(), &c, 1), 0);
}

TEST_F(Pair, TellsEndEmptyAndFull) {
  ASSERT_EQ(::fcntl(a.get(), F_SETFL, O_NONBLOCK), 0);
  ASSERT_EQ(::fcntl(b.get(), F_SETFL, O_NONBLOCK), 0);
  char c;
  auto nothing = recv_with_fds(b.get(), &c, 1, nullptr);
  ASSERT_FALSE(nothing.ok());
  EXPECT_EQ(nothing.status().code(), RAY_TIMED_OUT);
  std::string block(4096, 'x');
  Status s;
  for (int i = 0; i < 100000 && s.ok(); ++i)
    s = send_with_fds(a.get(), block.data(), block.size(), nullptr, 0);
  EXPECT_EQ(s.code(), RAY_TIMED_OUT);
  b.reset();
  EXPECT_EQ(send_with_fds(a.get(), "x", 1, nullptr, 0).code(), RAY_UNAVAILABLE);
  int nine[9] = {};
  EXPECT_EQ(send_with_fds(a.get(), "x", 1, nine, 9).code(), RAY_INVALID_ARGUMENT);
}

TEST_F(Pair, AClosedPeerIsZeroBytes) {
  a.reset();
  char c;
  auto n = recv_with_fds(b.get(), &c, 1, nullptr);
  ASSERT_TRUE(n.ok());
  EXPECT_EQ(*n, 0u);
}

TEST(Pidfd, TellsDeath) {
  int child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    ::pause();
    ::_exit(0);
  }
  Fd fd(pidfd_open(child));
  ASSERT_TRUE(fd.valid());
  pollfd p{fd.get(), POLLIN, 0};
  EXPECT_EQ(::poll(&p, 1, 0), 0);
  ASSERT_EQ(::kill(child, SIGKILL), 0);
  EXPECT_EQ(::poll(&p, 1, 60000), 1);
  ::waitpid(child, nullptr, 0);
}

// Two processes hand a counter back and forth: every wake-up that is lost hangs the test.
TEST(Doorbell, WakesAcrossProcesses) {
  struct Shared {
    std::atomic<uint32_t> bell[2];
    std::atomic<uint32_t> turn;
  };
  constexpr uint32_t kTurns = 20000;
  auto fd = create_memfd("bells", 4096);
  auto map = map_shared(fd->get(), 4096, true);
  ASSERT_TRUE(map.ok());
  auto* s = reinterpret_cast<Shared*>(map->data());
  auto play = [s](uint32_t me) {
    for (;;) {
      uint32_t turn = s->turn.load(std::memory_order_acquire);
      if (turn >= kTurns) return;
      if (turn % 2 == me) {
        s->turn.store(turn + 1, std::memory_order_release);
        ring(&s->bell[1 - me]);
        continue;
      }
      const uint32_t how = arm(&s->bell[me]);
      if (s->turn.load(std::memory_order_acquire) == turn) sleep_armed(&s->bell[me], how, -1);
      disarm(&s->bell[me]);
    }
  };
  int child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    play(1);
    ::_exit(0);
  }
  play(0);
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(s->turn.load(), kTurns);
}

TEST(Doorbell, SleepEndsByTimeoutAndDoesNotStartWhenRung) {
  std::atomic<uint32_t> bell{0};
  uint32_t how = arm(&bell);
  ring(&bell);
  EXPECT_EQ(bell.load(), 0u);
  sleep_armed(&bell, how, -1);  // was rung: returns at once
  how = arm(&bell);
  sleep_armed(&bell, how, 1000000);
  EXPECT_EQ(bell.load(), how);
}

TEST(SpinLock, Excludes) {
  SpinLock lock;
  uint64_t counter = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&] {
      for (int i = 0; i < 20000; ++i) {
        lock.lock();
        ++counter;
        lock.unlock();
      }
    });
  for (auto& t : threads) t.join();
  EXPECT_EQ(counter, 80000u);
  EXPECT_TRUE(lock.try_lock());
  EXPECT_FALSE(lock.try_lock());
  lock.unlock();
}

}  // namespace
}  // namespace ray
