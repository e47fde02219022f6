// The store when memory or disk is short: spilling, restoring, waiting, and the errors at the end.
#include <dirent.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>

#include <atomic>
#include <mutex>
#include <random>
#include <thread>

#include "libray/base/fault.h"
#include "libray/base/log.h"
#include "store/apart.h"
#include "store/usage.h"
#include "tests/store/store_util.h"

namespace ray::store {
namespace {

constexpr int64_t kShort = 300000000;  // for creates that must fail

#ifdef LIBRAY_SANITIZED
constexpr uint64_t kScale = 8;  // every byte is checked: slow there
#else
constexpr uint64_t kScale = 1;
#endif

class StorePressure : public ::testing::Test {
 protected:
  void SetUp() override {
    set_log_handler([](int32_t, const char*, const char*, const char*, void*) {}, kLogError,
                    nullptr);
  }
  void TearDown() override {
    set_fault("store.spill.write", "");
    set_fault("store.restore.read", "");
    set_fault("store.commit_pages", "");
    set_log_handler(nullptr, kLogWarning, nullptr);
  }
};

// Somebody who pins more than fits gets the rest as copies; who wants a pin is refused as before. A copy is read on in a
// forked child, and when the object is gone; it leaves nothing on disk.
TEST_F(StorePressure, WhatFindsNoRoomIsReadApart) {
  constexpr uint64_t kLarge = 40, kCount = 140, kCapacity = 16 << 20;
  auto size_of = [](uint64_t n) { return n < kLarge ? (1 << 20) - n : 3000 + n; };
  TestStore t(kCapacity);
  t.start();
  auto writer = t.connect(), reader = t.connect(), other = t.connect();
  std::vector<Location> at(kCount);
  std::vector<Pin> pins(kCount);
  for (uint64_t n = kCount; n-- > 0;) ASSERT_TRUE(put(writer.get(), n, size_of(n), &at[n]).ok());
  for (int round = 0; round < 2; ++round) {
    for (uint64_t n = 0; n < kCount; ++n) {
      Status s = pin_or_copy(*reader, make_id(n), at[n], kWait, -1, &pins[n]);
      ASSERT_TRUE(s.ok()) << n << ": " << s.message();
    }
    EXPECT_LE(pinned_by(*reader), kCapacity);
    EXPECT_GT(pinned_by(*reader), kCapacity / 2);
    Pin none;
    int refused = 0;
    for (uint64_t n = 0; n < kLarge && !refused; ++n) {
      refused = other->pin(make_id(n), at[n], kShort, &none).code() == RAY_STORE_FULL;
      other->unpin(&none);
    }
    EXPECT_TRUE(refused);
    if (round == 1)
      for (uint64_t n = 0; n < kCount; ++n) writer->drop(make_id(n), at[n]);
    int status = in_child([&] {
      for (uint64_t n = 0; n < kCount; ++n) EXPECT_TRUE(matches(pins[n].data, pins[n].size, n)) << n;
      for (Pin& p : pins) reader->unpin(&p);
    });
    EXPECT_EQ(status, 0);
    for (uint64_t n = 0; n < kCount; ++n) {
      EXPECT_EQ(pins[n].size, size_of(n));
      EXPECT_TRUE(matches(pins[n].data, pins[n].size, n)) << n;
      reader->unpin(&pins[n]);
    }
  }
  for (int64_t start = steady_ns(); t.daemon->stats().spilled_bytes != 0 && steady_ns() - start < kWait;) ::sched_yield();
  EXPECT_EQ(t.daemon->stats().spilled_bytes, 0u);
  EXPECT_TRUE(put(writer.get(), 1000, 12 << 20, &at[0]).ok());
}

// Seven of eight MiB are pinned by somebody else, and object 0 is on disk.
struct Crowded {
  TestStore store{8 << 20};
  std::unique_ptr<Client> holder, reader;
  Pin pins[7];
  Location at[16];
  uint64_t size;
  explicit Crowded(uint64_t objects = 1, uint64_t bytes = 4 << 20, uint64_t limit = 0) : size(bytes) {
    store.options.apart_bytes = limit;
    store.start();
    holder = store.connect();
    reader = store.connect();
    for (uint64_t n = 0; n < objects; ++n) EXPECT_TRUE(put(holder.get(), n, size, &at[n]).ok());
    Location where;
    uint64_t pinned = 0;
    for (uint64_t n = 100; pinned < 7; ++n) {
      if (!put(holder.get(), n, (1 << 20) - 4096, &where, kShort).ok()) break;
      if (holder->pin(make_id(n), where, kWait, &pins[pinned]).ok()) ++pinned;
    }
  }
};

// What was begun for a reader that gave up goes on for its next request, and each limit is shorter than the read.
TEST_F(StorePressure, ReadsApartGoOnForWhoAsksAgain) {
  Crowded c;
  ASSERT_TRUE(set_fault("store.restore.read", "delay:700ms@0"));
  Pin pin;
  Status s(RAY_TIMED_OUT);
  for (const int64_t until = steady_ns() + kWait; s.code() == RAY_TIMED_OUT && steady_ns() < until;)
    s = pin_or_copy(*c.reader, make_id(0), c.at[0], kWait, 100000000, &pin);
  set_fault("store.restore.read", "");
  ASSERT_TRUE(s.ok()) << s.message();
  EXPECT_TRUE(matches(pin.data, pin.size, 0));
  c.reader->unpin(&pin);
}

// A read that takes longer than clients are patient with a daemon that shows no sign of life.
TEST_F(StorePressure, ReadsApartShowProgress) {
  Crowded c;
  ASSERT_TRUE(set_fault("store.restore.piece", "delay:2s@0"));
  Pin pin;
  Status s = pin_or_copy(*c.reader, make_id(0), c.at[0], 1000000000, -1, &pin);
  set_fault("store.restore.piece", "");
  ASSERT_TRUE(s.ok()) << s.message();
  EXPECT_TRUE(matches(pin.data, pin.size, 0));
  c.reader->unpin(&pin);
}

// No more than the limit, whoever has them; what is let go makes room for others, also when the reader just ends.
TEST_F(StorePressure, CopiesBesideTheStoreHaveALimit) {
  Crowded c(4, 3 << 20, 7 << 20);
  auto other = c.store.connect();
  Pin first, second, third;
  ASSERT_TRUE(pin_or_copy(*c.reader, make_id(0), c.at[0], kWait, -1, &first).ok());
  ASSERT_TRUE(pin_or_copy(*other, make_id(1), c.at[1], kWait, -1, &second).ok());
  EXPECT_EQ(pin_or_copy(*c.reader, make_id(2), c.at[2], 2000000000, -1, &third).code(), RAY_STORE_FULL);
  c.reader->unpin(&first);
  Status s = pin_or_copy(*c.reader, make_id(2), c.at[2], kWait, -1, &third);
  ASSERT_TRUE(s.ok()) << s.message();
  EXPECT_TRUE(matches(third.data, third.size, 2));
  other.reset();
  s = pin_or_copy(*c.reader, make_id(3), c.at[3], kWait, -1, &first);
  ASSERT_TRUE(s.ok()) << s.message();
  c.reader->unpin(&first);
  c.reader->unpin(&third);
}

// Who holds no pins waits for the moment itself, however long ago something was freed: a limit below it ends in the error.
TEST_F(StorePressure, ReadersWithoutPinsWaitForRoomFirst) {
  Crowded c;
  Pin pin;
  ASSERT_TRUE(pin_or_copy(*c.reader, make_id(0), c.at[0], kWait, -1, &pin).ok());  // what can be spilled is, then
  c.reader->unpin(&pin);
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  bool refused = false;
  for (int i = 0; i < 50 && !refused; ++i) {  // the daemon may be late
    Status s = pin_or_copy(*c.reader, make_id(0), c.at[0], 20000000, -1, &pin);
    refused = s.code() == RAY_STORE_FULL;
    c.reader->unpin(&pin);
  }
  EXPECT_TRUE(refused);
}

// Sixteen times more than fits, from four threads with a client each, every byte compared twice.
TEST_F(StorePressure, SixtyFourMegabytesSurviveAGigabyte) {
  TestStore t(64 << 20);
  t.start();
  constexpr uint64_t kTotal = (uint64_t{1} << 30) / kScale;
  constexpr int kThreads = 4;
  std::atomic<uint64_t> restored_bytes{0};
  std::atomic<bool> failed{false};
  auto work = [&](int thread) {
    auto c = t.connect();
    std::mt19937_64 random(static_cast<uint64_t>(thread));
    std::vector<std::pair<uint64_t, Location>> mine;
    std::vector<uint64_t> sizes;
    uint64_t written = 0, n = static_cast<uint64_t>(thread) << 32;
    while (written < kTotal / kThreads && !failed) {
      uint64_t size = random() % 4 == 0 ? random() % (4 << 20) : random() % 200000;
      Location at;
      Status s = put(c.get(), ++n, size, &at);
      if (!s.ok()) {
        ADD_FAILURE() << s.message();
        failed = true;
        return;
      }
      mine.push_back({n, at});
      sizes.push_back(size);
      written += size;
    }
    for (int pass = 0; pass < 2 && !failed; ++pass)
      for (size_t i = 0; i < mine.size(); ++i) {
        size_t k = pass ? mine.size() - 1 - i : i;
        auto same = holds(c.get(), mine[k].first, sizes[k], mine[k].second);
        EXPECT_TRUE(same);
        if (!same) failed = true;
        if (failed) return;
        restored_bytes += sizes[k];
      }
    for (auto& [id, at] : mine) c->drop(make_id(id), at);
  };
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) threads.emplace_back(work, i);
  std::atomic<bool> stop{false};
  std::thread watch([&] {
    while (!stop) {
      DaemonStats s = t.daemon->stats();
      EXPECT_LE(s.used, s.capacity);
      ::usleep(2000);
    }
  });
  for (auto& th : threads) th.join();
  stop = true;
  watch.join();
  DaemonStats s = t.daemon->stats();
  EXPECT_EQ(s.objects, 0u);
  EXPECT_EQ(s.spilled_objects, 0u);
  EXPECT_EQ(s.spilled_bytes, 0u);
  EXPECT_GT(s.restored_objects, 100u);
}

TEST_F(StorePressure, NothingIsLeftInTheSpillDirectory) {
  TestStore t(4 << 20);
  t.start();
  auto c = t.connect();
  Location at[20];
  for (uint64_t n = 0; n < 20; ++n) ASSERT_TRUE(put(c.get(), n, 1 << 20, &at[n]).ok());
  EXPECT_GT(t.daemon->stats().spilled_objects, 10u);
  int files = 0;
  DIR* d = ::opendir(t.options.spill_dir.c_str());
  ASSERT_TRUE(d);
  while (dirent* e = ::readdir(d)) files += e->d_name[0] != '.';
  ::closedir(d);
  EXPECT_EQ(files, 0);  // the spill file has no name: nothing can be left behind
}

TEST_F(StorePressure, AnObjectLargerThanTheStoreIsRefusedAtOnce) {
  TestStore t(4 << 20);
  t.start();
  auto c = t.connect();
  Building b;
  Status s = c->create(make_id(1), 5 << 20, -1, &b);
  EXPECT_EQ(s.code(), RAY_STORE_FULL);
  EXPECT_NE(s.message().find("raise store_bytes"), std::string::npos) << s.message();
  EXPECT_EQ(c->create(make_id(1), UINT64_MAX, -1, &b).code(), RAY_STORE_FULL);
  EXPECT_EQ(c->create(make_id(1), uint64_t{1} << 40, -1, &b).code(), RAY_STORE_FULL);
  Location at;
  EXPECT_TRUE(put(c.get(), 2, 1000, &at).ok());
}

TEST_F(StorePressure, FullWithoutSpillingNamesWhatHoldsTheMemory) {
  TestStore t(8 << 20, false);
  t.start();
  auto a = t.connect();
  auto b = t.connect();
  Location at[7];
  for (uint64_t n = 0; n < 7; ++n) ASSERT_TRUE(put(a.get(), n, 1 << 20, &at[n]).ok()) << n;
  Pin p;
  ASSERT_TRUE(b->pin(make_id(0), at[0], kWait, &p).ok());
  Building building;
  Status s = a->create(make_id(50), 2 << 20, kShort, &building);
  EXPECT_EQ(s.code(), RAY_STORE_FULL);
  for (const char* word : {"2.0 MiB asked", "pinned 1.0 MiB by process", "in 1 pins",
                           "capacity 8.0 MiB", "allow spilling"})
    EXPECT_NE(s.message().find(word), std::string::npos) << s.message();
  b->unpin(&p);
  a->drop(make_id(0), at[0]);
  a->drop(make_id(1), at[1]);
  a->drop(make_id(2), at[2]);
  EXPECT_TRUE(put(a.get(), 51, 2 << 20, &at[0]).ok());
}

// A create that waits goes on as soon as somebody releases: by unpin, by drop, by death.
TEST_F(StorePressure, WaitingCreatesGoOnWhenMemoryIsReleased) {
  TestStore t(8 << 20, false);
  t.start();
  auto a = t.connect();
  auto b = t.connect();
  Location at;
  ASSERT_TRUE(put(a.get(), 1, 6 << 20, &at).ok());
  Pin p;
  ASSERT_TRUE(b->pin(make_id(1), at, kWait, &p).ok());
  a->drop(make_id(1), at);  // still pinned by b
  std::thread waiter([&] {
    Location where;
    EXPECT_TRUE(put(a.get(), 2, 6 << 20, &where).ok());
  });
  int64_t until = steady_ns() + kWait;
  while (t.daemon->stats().waiting_creates == 0 && steady_ns() < until) std::this_thread::yield();
  EXPECT_EQ(t.daemon->stats().waiting_creates, 1u);
  b->unpin(&p);
  waiter.join();

  ASSERT_TRUE(b->pin(make_id(2), {}, kWait, &p).ok());
  a->drop(make_id(2), {});
  std::thread second([&] {
    Location where;
    EXPECT_TRUE(put(a.get(), 3, 6 << 20, &where).ok());
  });
  while (t.daemon->stats().waiting_creates == 0 && steady_ns() < until) std::this_thread::yield();
  b.reset();  // the dead pin nothing
  second.join();
}

void wait_for_creates(const TestStore& t, uint64_t n) {
  const int64_t until = steady_ns() + kWait;
  while (t.daemon->stats().waiting_creates != n && steady_ns() < until) std::this_thread::yield();
}

// Behind a large create stands a small one that has room: it gets it when the first one is over.
TEST_F(StorePressure, WhoGivesUpLetsTheNextOnePass) {
  for (bool interrupted : {false, true}) {
    TestStore t(64 << 20, false);
    t.start();
    auto holder = t.connect(), large = t.connect(), small = t.connect();
    Location at;
    Pin p;
    ASSERT_TRUE(put(holder.get(), 1, 40 << 20, &at).ok());
    ASSERT_TRUE(holder->pin(make_id(1), at, kWait, &p).ok());
    std::atomic<bool> stop{false}, over{false};
    std::thread first([&] {
      std::function<bool()> stopped = [&] { return stop.load(); };
      Interruptible in(&stopped);
      Building b;
      EXPECT_EQ(large->create(make_id(2), 50 << 20, interrupted ? -1 : 1000000000, &b).code(),
                interrupted ? RAY_CANCELLED : RAY_STORE_FULL);
      over = true;
    });
    wait_for_creates(t, 1);
    Status s;
    std::thread second([&] {
      Location where;
      s = put(small.get(), 3, 10 << 20, &where);
    });
    // Nothing is asked of the daemon from here on: that would wake it.
    const int64_t until = steady_ns() + 30'000'000'000;
    while (usage_of(*holder).waiting != 2 && !over && steady_ns() < until) std::this_thread::yield();
    stop = interrupted;
    first.join();
    second.join();
    EXPECT_TRUE(s.ok()) << s.message();
  }
}

// What was granted while nobody waited any more is given back without the client.
TEST_F(StorePressure, WhoGivesUpWhileItsMemoryIsMadeHasNone) {
  TestStore t(64 << 20, false);
  t.start();
  auto a = t.connect(), b = t.connect();
  ASSERT_TRUE(set_fault("store.commit_pages", "delay:1000ms@1"));
  std::function<bool()> stopped = [] { return true; };
  {
    Interruptible in(&stopped);
    Building x;
    EXPECT_EQ(a->create(make_id(1), 40 << 20, -1, &x).code(), RAY_CANCELLED);
  }
  Location at;
  Status s = put(b.get(), 2, 40 << 20, &at, 5000000000);
  EXPECT_TRUE(s.ok()) << s.message();
}

TEST_F(StorePressure, ARestoreGoesOnForWhoWaitsLonger) {
  TestStore t(8 << 20);
  t.start();
  auto holder = t.connect(), a = t.connect(), b = t.connect();
  Location at, other;
  Pin p;
  ASSERT_TRUE(put(holder.get(), 1, 5 << 20, &at).ok());
  ASSERT_TRUE(put(holder.get(), 2, 5 << 20, &other).ok());
  ASSERT_TRUE(holder->pin(make_id(2), other, kWait, &p).ok());
  std::atomic<bool> over{false};
  std::thread longer([&] {
    while (usage_of(*b).waiting == 0 && !over) std::this_thread::yield();
    Pin q;
    Status s = b->pin(make_id(1), at, kWait, &q);
    EXPECT_TRUE(s.ok() && matches(q.data, q.size, 1)) << s.message();
    b->unpin(&q);
  });
  Pin q;
  EXPECT_EQ(a->pin(make_id(1), at, 1000000000, &q).code(), RAY_STORE_FULL);
  over = true;
  holder->unpin(&p);
  longer.join();
}

TEST_F(StorePressure, CreatesAreServedInTheirOrder) {
  TestStore t(8 << 20, false);
  t.start();
  auto holder = t.connect();
  Location at;
  ASSERT_TRUE(put(holder.get(), 1, 6 << 20, &at).ok());
  std::vector<int> order;
  std::mutex mu;
  std::vector<std::unique_ptr<Client>> clients;
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) {
    clients.push_back(t.connect());
    threads.emplace_back([&, i] {
      Location where;
      EXPECT_TRUE(
          put(clients[static_cast<size_t>(i)].get(), 10 + static_cast<uint64_t>(i), 5 << 20, &where)
              .ok());
      {
        std::lock_guard lock(mu);
        order.push_back(i);
      }
      clients[static_cast<size_t>(i)]->drop(make_id(10 + static_cast<uint64_t>(i)), where);
    });
    int64_t until = steady_ns() + kWait;
    while (t.daemon->stats().waiting_creates != static_cast<uint64_t>(i + 1) && steady_ns() < until)
      std::this_thread::yield();
  }
  holder->drop(make_id(1), at);
  for (auto& th : threads) th.join();
  EXPECT_EQ(order, (std::vector<int>{0, 1, 2}));
}

// Everything is pinned by clients that all wait for memory: nobody would ever move.
TEST_F(StorePressure, DeadlockIsDetected) {
  TestStore t(8 << 20);
  t.start();
  auto a = t.connect();
  auto b = t.connect();
  Location at;
  Pin pa, pb;
  ASSERT_TRUE(put(a.get(), 1, 3 << 20, &at).ok());
  ASSERT_TRUE(a->pin(make_id(1), at, kWait, &pa).ok());
  ASSERT_TRUE(put(b.get(), 2, 3 << 20, &at).ok());
  ASSERT_TRUE(b->pin(make_id(2), at, kWait, &pb).ok());
  Status sa, sb;
  std::thread ta([&] {
    Building x;
    sa = a->create(make_id(3), 4 << 20, -1, &x);  // -1: only the detector can end this
    if (!sa.ok())
      a->unpin(&pa);
    else
      a->abort(&x);
  });
  std::thread tb([&] {
    Building x;
    sb = b->create(make_id(4), 4 << 20, -1, &x);
    if (!sb.ok())
      b->unpin(&pb);
    else
      b->abort(&x);
  });
  ta.join();
  tb.join();
  // One of them fails, and what it releases lets the other go on.
  EXPECT_NE(sa.ok(), sb.ok()) << sa.message() << " | " << sb.message();
  const Status& failed = sa.ok() ? sb : sa;
  EXPECT_EQ(failed.code(), RAY_STORE_FULL);
  EXPECT_NE(failed.message().find("deadlock"), std::string::npos) << failed.message();
}

TEST_F(StorePressure, PinnedObjectsAreNeverMoved) {
  TestStore t(8 << 20);
  t.start();
  auto c = t.connect();
  Location at, other;
  ASSERT_TRUE(put(c.get(), 1, 2 << 20, &at).ok());
  ASSERT_TRUE(put(c.get(), 2, 1000, &at).ok());
  Pin big, little;
  ASSERT_TRUE(c->pin(make_id(1), {}, kWait, &big).ok());
  ASSERT_TRUE(c->pin(make_id(2), at, kWait, &little).ok());
  for (uint64_t n = 100; n < 150; ++n) ASSERT_TRUE(put(c.get(), n, 1 << 20, &other).ok());
  EXPECT_GT(t.daemon->stats().spilled_objects, 30u);
  EXPECT_TRUE(matches(big.data, big.size, 1));
  EXPECT_TRUE(matches(little.data, little.size, 2));
  c->unpin(&big);
  c->unpin(&little);
}

TEST_F(StorePressure, RecentlyPinnedObjectsStay) {
  TestStore t(8 << 20);
  t.start();
  auto c = t.connect();
  Location at[60];
  ASSERT_TRUE(put(c.get(), 0, 1 << 20, &at[0]).ok());
  for (uint64_t n = 1; n < 60; ++n) {
    ASSERT_TRUE(put(c.get(), n, 1 << 20, &at[n]).ok());
    ASSERT_TRUE(holds(c.get(), 0, 1 << 20, at[0])) << n;
  }
  // Object 0 is the oldest, but it was used all the time: its first place still validates.
  EXPECT_GT(t.daemon->stats().spilled_objects, 40u);
  EXPECT_EQ(t.daemon->stats().restored_objects, 0u);
}

TEST_F(StorePressure, SpillWriteErrorsAreClean) {
  TestStore t(8 << 20);
  t.start();
  auto c = t.connect();
  ASSERT_TRUE(set_fault("store.spill.write", "fail@0"));
  Location at[8];
  for (uint64_t n = 0; n < 7; ++n) ASSERT_TRUE(put(c.get(), n, 1 << 20, &at[n]).ok());
  Building b;
  Status s = c->create(make_id(50), 4 << 20, kShort, &b);
  EXPECT_EQ(s.code(), RAY_STORE_FULL);
  EXPECT_NE(s.message().find("injected write error"), std::string::npos) << s.message();
  for (uint64_t n = 0; n < 7; ++n) EXPECT_TRUE(holds(c.get(), n, 1 << 20, at[n]));
  set_fault("store.spill.write", "");
  EXPECT_TRUE(put(c.get(), 51, 4 << 20, &at[7]).ok());  // and it recovers
  for (uint64_t n = 0; n < 7; ++n) EXPECT_TRUE(holds(c.get(), n, 1 << 20, at[n]));
}

TEST_F(StorePressure, ReadErrorsLoseOnlyTheObject) {
  TestStore t(4 << 20);
  t.start();
  auto c = t.connect();
  Location at[10];
  for (uint64_t n = 0; n < 10; ++n) ASSERT_TRUE(put(c.get(), n, 1 << 20, &at[n]).ok());
  ASSERT_TRUE(set_fault("store.restore.read", "fail@1"));
  Pin p;
  EXPECT_EQ(c->pin(make_id(0), at[0], kWait, &p).code(), RAY_OBJECT_LOST);
  EXPECT_TRUE(holds(c.get(), 0, 1 << 20, at[0]));  // a second try reads it
}

TEST_F(StorePressure, AMachineWithoutMemoryIsAnErrorAndNotASignal) {
  TestStore t(8 << 20);
  t.start();
  auto c = t.connect();
  ASSERT_TRUE(set_fault("store.commit_pages", "fail@0"));
  Building b;
  EXPECT_EQ(c->create(make_id(1), 100, kShort, &b).code(), RAY_STORE_FULL);
  EXPECT_EQ(c->create(make_id(2), 1 << 20, kShort, &b).code(), RAY_STORE_FULL);
  EXPECT_EQ(c->create(make_id(3), 6 << 20, kShort, &b).code(), RAY_STORE_FULL);
  set_fault("store.commit_pages", "");
  Location at;
  EXPECT_TRUE(put(c.get(), 4, 6 << 20, &at).ok());
  EXPECT_TRUE(holds(c.get(), 4, 6 << 20, at));
}

// A disk that is really full: a tiny tmpfs, seen by a child alone so that no mount can be left
// behind, or a file-size limit where mounting is not allowed.
void fill_the_disk() {
  TestStore t(8 << 20);
  ::mkdir(t.options.spill_dir.c_str(), 0700);
  bool mounted = ::unshare(CLONE_NEWNS) == 0 &&
                 ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
                 ::mount("tmpfs", t.options.spill_dir.c_str(), "tmpfs", 0, "size=3m") == 0;
  t.start();
  {
    auto c = t.connect();
    if (!mounted) {  // the store's own memory has its size by now
      rlimit small{3 << 20, 3 << 20};
      ::setrlimit(RLIMIT_FSIZE, &small);
      ::signal(SIGXFSZ, SIG_IGN);  // as daemons do: an error then
    }
    std::vector<Location> at(64);
    uint64_t n = 0;
    Status s;
    for (; n < 64; ++n) {
      s = put(c.get(), n, 1 << 20, &at[n], kShort);
      if (!s.ok()) break;
    }
    EXPECT_LT(n, 20u);
    EXPECT_EQ(s.code(), RAY_STORE_FULL);
    EXPECT_NE(s.message().find("cannot spill"), std::string::npos) << s.message();
    for (uint64_t k = 0; k < n; ++k) EXPECT_TRUE(holds(c.get(), k, 1 << 20, at[k])) << k;
    for (uint64_t k = 0; k < n; ++k) c->drop(make_id(k), at[k]);
    EXPECT_TRUE(put(c.get(), 100, 4 << 20, &at[0]).ok());
    EXPECT_TRUE(holds(c.get(), 100, 4 << 20, at[0]));
  }
  t.daemon.reset();
  if (mounted) ::umount2(t.options.spill_dir.c_str(), MNT_DETACH);
}
TEST_F(StorePressure, DiskFullIsAClearErrorAndNothingIsLost) {
  EXPECT_EQ(in_child(fill_the_disk), 0);
}

TEST_F(StorePressure, TheSpillLimitHolds) {
  TestStore t(4 << 20);
  t.options.spill_bytes = 4 << 20;
  t.start();
  auto c = t.connect();
  Location at;
  uint64_t n = 0;
  Status s;
  while (n < 30 && (s = put(c.get(), n, 1 << 20, &at, kShort)).ok()) ++n;
  EXPECT_EQ(s.code(), RAY_STORE_FULL);
  EXPECT_NE(s.message().find("spill limit"), std::string::npos) << s.message();
  EXPECT_LE(t.daemon->stats().spilled_bytes, uint64_t{4} << 20);
  EXPECT_GT(t.daemon->stats().spilled_bytes, uint64_t{2} << 20);
}

// Drops while the object is being written or read back.
TEST_F(StorePressure, DropsDuringSpillAndRestoreAreNotLost) {
  TestStore t(4 << 20);
  t.start();
  auto c = t.connect();
  std::mt19937_64 random(3);
  std::vector<std::pair<uint64_t, Location>> live;
  ASSERT_TRUE(set_fault("store.spill.write", "delay:1ms@0"));
  for (uint64_t n = 0; n < 300; ++n) {
    Location at;
    uint64_t size = n % 3 ? 300000 : 5000;
    ASSERT_TRUE(put(c.get(), n, size, &at).ok()) << n;
    live.push_back({n, at});
    if (random() % 3 == 0) {
      Pin p;
      auto& [id, where] = live[random() % live.size()];
      (void)c->pin(make_id(id), where, 0, &p);  // starts a restore and does not wait
      c->unpin(&p);
    }
    if (random() % 2) {
      size_t k = random() % live.size();
      c->drop(make_id(live[k].first), live[k].second);
      live.erase(live.begin() + static_cast<long>(k));
    }
  }
  for (auto& [n, at] : live) ASSERT_TRUE(holds(c.get(), n, n % 3 ? 300000 : 5000, at)) << n;
  for (auto& [n, at] : live) c->drop(make_id(n), at);
  int64_t until = steady_ns() + kWait;
  while ((t.daemon->stats().objects > 0 || t.daemon->stats().spilled_bytes > 0) &&
         steady_ns() < until)
    std::this_thread::yield();
  DaemonStats s = t.daemon->stats();
  EXPECT_EQ(s.objects, 0u);
  EXPECT_EQ(s.spilled_objects, 0u);
  EXPECT_EQ(s.spilled_bytes, 0u);
}

}  // namespace
}  // namespace ray::store
