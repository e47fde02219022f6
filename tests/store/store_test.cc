// The store as its users see it: put, pin, unpin, drop, between threads and processes.
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
  std::vector<uint64_t> sizes = {0, 1, 7, 63, 64, 65, 4096, 65000, 65536, 100000, 1 << 20, (1 << 20) + 1, 9 << 20};
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

}  // namespace
}  // namespace ray::store
