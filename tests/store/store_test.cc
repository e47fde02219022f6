// The store as its users see it: put, pin, unpin, drop, between threads and processes.
#include <sys/stat.h>

#include <atomic>
#include <thread>

#include "tests/store/store_util.h"

namespace ray::store {
namespace {

// Statistics after everything committed so far was read.
void expect_objects(Daemon* d, uint64_t n) {
  int64_t until = steady_ns() + kWait;
  while (d->stats().objects != n && steady_ns() < until) std::this_thread::yield();
  EXPECT_EQ(d->stats().objects, n);
}

TEST(Store, PutPinUnpinDrop) {
  TestStore t;
  t.start();
  auto c = t.connect();
  ASSERT_TRUE(c);
  Location at;
  ASSERT_TRUE(put(c.get(), 1, 100, &at).ok());
  EXPECT_NE(at.segment, 0u);
  EXPECT_EQ(at.size, 100u);
  EXPECT_TRUE(holds(c.get(), 1, 100, at));
  EXPECT_TRUE(holds(c.get(), 1, 100, Location{}));
  expect_objects(t.daemon.get(), 1);
  c->drop(make_id(1), at);
  expect_objects(t.daemon.get(), 0);
  Pin p;
  EXPECT_EQ(c->pin(make_id(1), at, kWait, &p).code(), RAY_NOT_FOUND);
  EXPECT_EQ(c->pin(make_id(2), Location{}, kWait, &p).code(), RAY_NOT_FOUND);
}

TEST(Store, SizesFromNothingToLarge) {
  TestStore t;
  t.start();
  auto a = t.connect();
  auto b = t.connect();
  std::vector<uint64_t> sizes = {
      0, 1, 7, 63, 64, 65, 4096, 65000, 65536, 100000, 1 << 20, (1 << 20) + 1, 9 << 20};
  for (uint64_t i = 0; i < sizes.size(); ++i) {
    Location at;
    Building building;
    ASSERT_TRUE(a->create(make_id(i), sizes[i], kWait, &building).ok());
    EXPECT_EQ(reinterpret_cast<uintptr_t>(building.data) % 64, 0u);
    fill(building.data, sizes[i], i);
    ASSERT_TRUE(a->seal(&building, &at).ok());
    EXPECT_TRUE(holds(b.get(), i, sizes[i], at)) << sizes[i];
    EXPECT_TRUE(holds(a.get(), i, sizes[i], Location{})) << sizes[i];
  }
  expect_objects(t.daemon.get(), sizes.size());
}

TEST(Store, ManySmallObjectsAreRecycled) {
  TestStore t(4 << 20, false);
  t.start();
  auto c = t.connect();
  for (uint64_t n = 0; n < 200000; ++n) {
    Location at;
    ASSERT_TRUE(put(c.get(), n, 100, &at).ok()) << n;
    if (n % 1000 == 0) {
      ASSERT_TRUE(holds(c.get(), n, 100, at));
    }
    c->drop(make_id(n), at);
  }
  expect_objects(t.daemon.get(), 0);
}

TEST(Store, ManyLargeObjectsAreRecycled) {
  TestStore t(64 << 20, false);
  t.start();
  auto c = t.connect();
  for (uint64_t n = 0; n < 100; ++n) {
    Location at;
    ASSERT_TRUE(put(c.get(), n, 5 << 20, &at).ok()) << n;
    ASSERT_TRUE(holds(c.get(), n, 5 << 20, at));
    c->drop(make_id(n), at);
  }
  expect_objects(t.daemon.get(), 0);
}

TEST(Store, WorkloadLargerThanMemorySpillsAndRestores) {
  TestStore t(16 << 20);
  t.start();
  auto c = t.connect();
  std::vector<Location> at(120);
  for (uint64_t n = 0; n < at.size(); ++n) ASSERT_TRUE(put(c.get(), n, 1 << 20, &at[n]).ok()) << n;
  for (uint64_t n = 0; n < at.size(); ++n) ASSERT_TRUE(holds(c.get(), n, 1 << 20, at[n])) << n;
  DaemonStats s = t.daemon->stats();
  EXPECT_GT(s.restored_objects, 50u);
  EXPECT_LE(s.used, s.capacity);
  for (uint64_t n = 0; n < at.size(); ++n) c->drop(make_id(n), at[n]);
  expect_objects(t.daemon.get(), 0);
}

// A task that ran twice: each reader gets the copy that it was told of, and each is freed by itself.
TEST(Store, CopiesOfOneIdAreApart) {
  TestStore t;
  t.start();
  auto a = t.connect();
  auto b = t.connect();
  Location first, second, third;
  ASSERT_TRUE(put_other(a.get(), 1, 5000, 100, 0, 0, &first).ok());
  ASSERT_TRUE(put_other(b.get(), 1, 5000, 200, 0, 1, &second).ok());
  expect_objects(t.daemon.get(), 2);
  EXPECT_TRUE(reads(b.get(), 1, first, 100));
  EXPECT_TRUE(reads(a.get(), 1, second, 200));
  a->drop(make_id(1), first);
  expect_objects(t.daemon.get(), 1);
  EXPECT_TRUE(reads(a.get(), 1, second, 200));
  Pin p;
  EXPECT_EQ(a->pin(make_id(1), first, kWait, &p).code(), RAY_NOT_FOUND);
  EXPECT_TRUE(reads(a.get(), 1, {}, 200));  // who names no copy gets what there is
  ASSERT_TRUE(put_other(a.get(), 1, 5000, 300, 0, 2, &third).ok());
  b->drop(make_id(1), second);
  b->drop(make_id(1), second);  // a second drop of it takes no other copy along
  expect_objects(t.daemon.get(), 1);
  EXPECT_TRUE(reads(b.get(), 1, third, 300));
  a->drop(make_id(1), third);
  expect_objects(t.daemon.get(), 0);
}

// The same when they were moved: to disk and back, into the daemon's own segment.
TEST(Store, CopiesOfOneIdAreApartOnDisk) {
  TestStore t(8 << 20);
  t.start();
  auto c = t.connect();
  std::vector<Location> at(12), more(12);
  for (uint64_t n = 0; n < 12; ++n) {
    ASSERT_TRUE(put_other(c.get(), 7, 1 << 20, 100 + n, 0, static_cast<uint32_t>(n), &at[n]).ok());
    ASSERT_TRUE(put_other(c.get(), 7, 100, 200 + n, 0, static_cast<uint32_t>(n), &more[n]).ok());
  }
  EXPECT_GT(t.daemon->stats().spilled_objects, 0u);
  for (uint64_t n = 0; n < 12; ++n) {
    EXPECT_TRUE(reads(c.get(), 7, at[n], 100 + n)) << n;
    EXPECT_TRUE(reads(c.get(), 7, more[n], 200 + n)) << n;
  }
  for (uint64_t n = 0; n < 12; ++n) {
    c->drop(make_id(7), at[n]);
    if (n + 1 < 12) {
      EXPECT_TRUE(reads(c.get(), 7, at[n + 1], 101 + n)) << n;
    }
  }
  for (auto& l : more) c->drop(make_id(7), l);
  expect_objects(t.daemon.get(), 0);
}

TEST(Store, WhatIsAProcesssOwnGoesWithIt) {
  TestStore t;
  t.start();
  auto mine = t.connect(5), worker = t.connect(6);
  Location kept, at;
  for (uint64_t n = 0; n < 20; ++n) ASSERT_TRUE(put(mine.get(), n, n % 2 ? 100 : 300000, &at).ok());
  ASSERT_TRUE(put(mine.get(), 50, 1000, &kept).ok());
  t.daemon->keep(make_id(50), kept);  // others know of it
  ASSERT_TRUE(put_other(worker.get(), 60, 1000, 60, 5, 0, &at).ok());  // a result for 5
  ASSERT_TRUE(put(worker.get(), 61, 1000, &at).ok());
  expect_objects(t.daemon.get(), 23);
  mine.reset();
  expect_objects(t.daemon.get(), 23);  // whoever took it over may not have said so yet
  t.daemon->process_died(5);
  expect_objects(t.daemon.get(), 2);
  EXPECT_TRUE(reads(worker.get(), 50, kept, 50));
  ASSERT_TRUE(put_other(worker.get(), 62, 1000, 62, 5, 0, &at).ok());  // for nobody
  expect_objects(t.daemon.get(), 2);
  auto again = t.connect(5);  // another process with that index
  ASSERT_TRUE(put(again.get(), 1, 1000, &at).ok());
  expect_objects(t.daemon.get(), 3);
  t.daemon->process_died(5);
  t.daemon->process_died(6);
  expect_objects(t.daemon.get(), 1);
  t.daemon->drop(make_id(50), kept);
  expect_objects(t.daemon.get(), 0);
}

// The order in which the daemon hears of things: a copy is kept before its record was read.
TEST(Store, KeptBeforeItIsKnown) {
  TestStore t;
  t.start();
  auto mine = t.connect(5);
  for (uint64_t n = 0; n < 300; ++n) {
    Location at;
    ASSERT_TRUE(put(mine.get(), n, 100, &at).ok());
    t.daemon->keep(make_id(n), at);
  }
  t.daemon->process_died(5);
  expect_objects(t.daemon.get(), 300);
}

TEST(Store, AnAttemptIsDiscardedByItself) {
  TestStore t;
  t.start();
  auto worker = t.connect(6);
  Location first, second, other;
  ASSERT_TRUE(put_other(worker.get(), 1, 1000, 10, 5, 0, &first).ok());
  ASSERT_TRUE(put_other(worker.get(), 1, 1000, 11, 5, 1, &second).ok());
  ASSERT_TRUE(put_other(worker.get(), 1, 1000, 12, 7, 0, &other).ok());
  t.daemon->discard(make_id(1), 5, 0);
  t.daemon->discard(make_id(2), 5, 0);
  expect_objects(t.daemon.get(), 2);
  EXPECT_TRUE(reads(worker.get(), 1, second, 11));
  EXPECT_TRUE(reads(worker.get(), 1, other, 12));
}

// Memory that is not in use goes back to the system soon, not only when somebody else needs it.
TEST(Store, FreedPagesGoBack) {
  auto resident = [] {
    uint64_t sum = 0;
    for (int fd = 3; fd < 200; ++fd) {
      char target[128] = {};
      std::string path = "/proc/self/fd/" + std::to_string(fd);
      struct stat st;
      if (::readlink(path.c_str(), target, sizeof target - 1) <= 0) continue;
      if (std::strstr(target, "libray-store-data-1") || !std::strstr(target, "libray-store-data-")) continue;
      if (::fstat(fd, &st) == 0) sum += static_cast<uint64_t>(st.st_blocks) * 512;
    }
    return sum;
  };
  TestStore t(256 << 20);
  t.start();
  auto c = t.connect();
  Location at[6];
  for (uint64_t n = 0; n < 6; ++n) ASSERT_TRUE(put(c.get(), n, 20 << 20, &at[n]).ok());
  EXPECT_GT(resident(), 100ull << 20);
  for (uint64_t n = 0; n < 6; ++n) c->drop(make_id(n), at[n]);
  expect_objects(t.daemon.get(), 0);
  for (int i = 0; i < 400 && resident() > (8 << 20); ++i) ::usleep(50000);
  EXPECT_LE(resident(), 8ull << 20);
  ASSERT_TRUE(put(c.get(), 1, 20 << 20, &at[0]).ok());
  EXPECT_TRUE(holds(c.get(), 1, 20 << 20, at[0]));
}

TEST(Store, AbortedObjectsLeaveNothing) {
  TestStore t(4 << 20, false);
  t.start();
  auto c = t.connect();
  for (uint64_t n = 0; n < 2000; ++n) {
    Building b;
    ASSERT_TRUE(c->create(make_id(n), n % 10 ? 3000 : 1 << 20, kWait, &b).ok()) << n;
    c->abort(&b);
    EXPECT_EQ(b.data, nullptr);
    c->abort(&b);  // harmless
  }
  expect_objects(t.daemon.get(), 0);
  Pin p;
  EXPECT_EQ(c->pin(make_id(1), {}, kWait, &p).code(), RAY_NOT_FOUND);
  Building b;
  EXPECT_EQ(c->seal(&b, nullptr).code(), RAY_INVALID_ARGUMENT);
  EXPECT_EQ(c->create(ObjectId{}, 1, kWait, &b).code(), RAY_INVALID_ARGUMENT);
}

TEST(Store, AbandonedConstructionDoesNotBlockOthers) {
  TestStore t(4 << 20, false);
  t.start();
  auto c = t.connect();
  Building open;
  ASSERT_TRUE(c->create(make_id(1), 3000, kWait, &open).ok());  // stays under construction
  fill(open.data, 3000, 1);
  for (uint64_t n = 10; n < 20000; ++n) {
    Location at;
    ASSERT_TRUE(put(c.get(), n, 1000, &at).ok());
    c->drop(make_id(n), at);
  }
  Location at;
  ASSERT_TRUE(c->seal(&open, &at).ok());
  EXPECT_TRUE(holds(c.get(), 1, 3000, at));
}

// Small pinned objects scattered over all extents keep only their own pages from being used again.
TEST(Store, OnePinnedObjectDoesNotHoldItsExtent) {
  TestStore t(16 << 20, false);
  t.start();
  auto c = t.connect();
  std::vector<Pin> pins;
  std::vector<uint64_t> pinned;
  for (uint64_t n = 0; n < 3400; ++n) {
    Location at;
    ASSERT_TRUE(put(c.get(), n, 4000, &at).ok());
    if (n % 15 == 0) {
      Pin p;
      ASSERT_TRUE(c->pin(make_id(n), at, kWait, &p).ok());
      pins.push_back(p);
      pinned.push_back(n);
    }
  }
  for (uint64_t n = 0; n < 3400; ++n)
    if (n % 15) c->drop(make_id(n), {});
  Location at;
  ASSERT_TRUE(put(c.get(), 100000, 8 << 20, &at).ok());
  EXPECT_TRUE(holds(c.get(), 100000, 8 << 20, at));
  for (size_t i = 0; i < pins.size(); ++i) {
    EXPECT_TRUE(matches(pins[i].data, pins[i].size, pinned[i]));
    c->unpin(&pins[i]);
  }
}

// One client, many threads: they create, seal, pin, unpin, drop each other's objects.
TEST(Store, OneClientManyThreads) {
  TestStore t(16 << 20);
  t.start();
  auto c = t.connect();
  constexpr uint64_t kThreads = 4;
#ifdef LIBRAY_SANITIZED
  constexpr uint64_t kEach = 600;
#else
  constexpr uint64_t kEach = 6000;
#endif
  std::vector<std::vector<Location>> at(kThreads, std::vector<Location>(kEach));
  std::vector<std::thread> threads;
  std::vector<std::atomic<uint64_t>> done(kThreads);
  for (uint64_t w = 0; w < kThreads; ++w)
    threads.emplace_back([&, w] {
      for (uint64_t i = 0; i < kEach; ++i) {
        uint64_t size = i % 50 == 0 ? 200000 : 1 + i % 500;
        if (!put(c.get(), w * kEach + i, size, &at[w][i]).ok()) return;
        done[w].store(i + 1, std::memory_order_release);
        uint64_t other = (w + 1) % kThreads;
        uint64_t ready = done[other].load(std::memory_order_acquire);
        if (ready == 0) continue;
        uint64_t k = i * 7919 % ready, osize = k % 50 == 0 ? 200000 : 1 + k % 500;
        EXPECT_TRUE(holds(c.get(), other * kEach + k, osize, i % 3 ? at[other][k] : Location{}));
      }
    });
  for (auto& th : threads) th.join();
  for (uint64_t w = 0; w < kThreads; ++w) ASSERT_EQ(done[w].load(), kEach);
  threads.clear();
  for (uint64_t w = 0; w < kThreads; ++w)
    threads.emplace_back([&, w] {
      for (uint64_t i = 0; i < kEach; ++i) c->drop(make_id(w * kEach + i), at[w][i]);
    });
  for (auto& th : threads) th.join();
  expect_objects(t.daemon.get(), 0);
}

TEST(Store, DropByTheDaemon) {
  TestStore t;
  t.start();
  auto c = t.connect();
  Location at[100];
  for (uint64_t n = 0; n < 100; ++n) ASSERT_TRUE(put(c.get(), n, 100, &at[n]).ok());
  for (uint64_t n = 0; n < 100; ++n)
    t.daemon->drop(make_id(n), at[n]);  // not even read by the daemon yet
  expect_objects(t.daemon.get(), 0);
  t.daemon->drop(make_id(12345), {});  // unknown: ignored
}

TEST(Store, ListingIsMessagePack) {
  TestStore t;
  t.start();
  auto c = t.connect();
  Location at;
  ASSERT_TRUE(put(c.get(), 1, 100, &at).ok());
  ASSERT_TRUE(put(c.get(), 2, 100, &at).ok());
  expect_objects(t.daemon.get(), 2);
  std::string rows = t.daemon->list_msgpack(10);
  ASSERT_GT(rows.size(), 10u);
  EXPECT_EQ(static_cast<uint8_t>(rows[0]), 0x92);  // array of two
  EXPECT_EQ(static_cast<uint8_t>(rows[1]), 0x86);  // of maps with six keys
  EXPECT_NE(rows.find(make_id(1).hex()), std::string::npos);
  EXPECT_NE(rows.find("sealed"), std::string::npos);
  EXPECT_EQ(static_cast<uint8_t>(t.daemon->list_msgpack(1)[0]), 0x91);
}

}  // namespace
}  // namespace ray::store
