// Deaths in the middle of spilling and restoring: of the daemon at every fault point on the way, and of
// clients whose objects are being moved. Spilled bytes come back whole or not at all.
#include <gtest/gtest.h>

#include <filesystem>

#include "libray/base/clock.h"
#include "store/inspect.h"
#include "tests/store/process.h"

namespace ray::store {
namespace {

constexpr uint64_t kCapacity = 8 << 20, kSize = 700'000;

size_t named_files(const std::string& dir) {
  std::error_code e;
  size_t n = 0;
  for ([[maybe_unused]] const auto& f : std::filesystem::directory_iterator(dir, e)) ++n;
  return n;
}

// The daemon dies there: whoever waits is told, what is pinned stays readable, no spill file stays.
TEST(SpillCrash, TheDaemonDiesAtEveryPoint) {
  for (const char* point : {"store.spill.write", "store.spill.written", "store.spill.evicted",
                            "store.restore.read", "store.restore.sealed"})
    for (const char* passage : {"1", "4"}) {
      DaemonProcess d;
      ASSERT_TRUE(d.start(kCapacity, true,
                          {std::string("LIBRAY_FAULTS=") + point + "=kill@" + passage}));
      auto c = d.connect();
      Location at;
      ASSERT_TRUE(put(c.get(), 1, kSize, &at).ok());
      Pin held;
      ASSERT_TRUE(c->pin(make_id(1), at, kWait, &held).ok());
      Status s;
      uint64_t n = 2, whole = 0;
      for (; s.ok() && n < 60; ++n) s = put(c.get(), n, kSize, &at);
      for (uint64_t k = 2; s.ok() && k < n; ++k) {  // brings back what was spilled
        Pin p;
        s = c->pin(make_id(k), {}, kWait, &p);
        if (!s.ok()) break;
        ASSERT_TRUE(p.size == kSize && matches(p.data, p.size, k)) << point << ", object " << k;
        ++whole;
        c->unpin(&p);
      }
      EXPECT_EQ(s.code(), RAY_UNAVAILABLE) << point << "@" << passage << ": " << s.message();
      int status = 0;
      ASSERT_EQ(::waitpid(d.pid, &status, 0), d.pid);
      d.pid = -1;
      EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << point;
      EXPECT_TRUE(held.size == kSize && matches(held.data, held.size, 1)) << point;
      EXPECT_EQ(named_files(d.dir.path() + "/spill"), 0u) << point;
      c->unpin(&held);
    }
}

// Clients die while the daemon, slowed down at a point, moves their objects: others get each of them
// whole, and nothing is left when they are dropped.
TEST(SpillCrash, ClientsDieWhileTheirObjectsMove) {
  for (const char* point : {"store.spill.write", "store.spill.written", "store.spill.evicted",
                            "store.restore.read", "store.restore.sealed"}) {
    DaemonProcess d;
    ASSERT_TRUE(d.start(kCapacity, true,
                        {std::string("LIBRAY_FAULTS=") + point + "=delay:2ms@0"}));
    auto survivor = d.connect();
    uint64_t next = 1;
    for (int round = 0; round < 4; ++round) {
      uint64_t first = next;
      next += 16;
      pid_t child = ::fork();
      if (child == 0) {
        auto mine = d.connect();
        Location at;
        for (uint64_t n = first; n < next; ++n)
          if (!put(mine.get(), n, kSize, &at).ok()) ::_exit(1);
        for (uint64_t n = first;; n = n + 1 < next ? n + 1 : first) {  // restores until it is killed
          Pin p;
          if (!mine->pin(make_id(n), {}, kWait, &p).ok()) ::_exit(2);
          mine->unpin(&p);
        }
      }
      // Its last object is there: it is among the restores now.
      Pin last;
      int64_t until = steady_ns() + kWait;
      while (!survivor->pin(make_id(next - 1), {}, kWait, &last).ok() && steady_ns() < until)
        ::usleep(500);
      survivor->unpin(&last);
      ::usleep(3000 * round);
      ::kill(child, SIGKILL);
      int status = 0;
      ASSERT_EQ(::waitpid(child, &status, 0), child);
      ASSERT_TRUE(WIFSIGNALED(status)) << point << ": it ended by itself, " << WEXITSTATUS(status);
      for (uint64_t n = first; n < next; ++n) {
        Pin p;
        Status s = survivor->pin(make_id(n), {}, kWait, &p);
        ASSERT_TRUE(s.ok()) << point << ", object " << n << ": " << s.message();
        ASSERT_TRUE(p.size == kSize && matches(p.data, p.size, n)) << point << ", object " << n;
        survivor->unpin(&p);
        survivor->drop(make_id(n), {});
      }
    }
    int64_t until = steady_ns() + kWait;
    DaemonStats left;
    do {
      auto i = inspect(d.pid, 1000);
      ASSERT_TRUE(i.ok()) << i.status().message();
      left = i->stats;
    } while ((left.objects > 0 || left.clients != 1 || left.pinned > 0) && steady_ns() < until);
    EXPECT_EQ(left.objects, 0u) << point;
    EXPECT_EQ(left.clients, 1u) << point;
    EXPECT_EQ(left.pinned, 0u) << point;
  }
}

}  // namespace
}  // namespace ray::store
