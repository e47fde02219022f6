// The journal pump against a control store that tests hold back, fail or answer as they like.
#include "libray/node/journal_pump.h"

#include <gtest/gtest.h>

#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <map>
#include <new>
#include <thread>

#include "libray/base/clock.h"
#include "libray/lineage/delta.h"
#include "libray/lineage/record.h"

namespace ray::node {
namespace {

class FakeStore : public gcs::Client {
 public:
  uint32_t shards() const override { return 2; }
  void reconnect(uint32_t) override {}
  void append_lineage(uint32_t, std::string, uint32_t, Appended) override { FAIL() << "the pump codes"; }
  void append_coded(uint32_t shard, std::string stream, uint64_t raw_size, uint32_t n, Appended done) override {
    std::string records;
    EXPECT_TRUE(lineage::delta_decode(stream, raw_size, &records));
    std::unique_lock lock(mutex);
    ++calls;
    if (fail_next > 0) {
      --fail_next;
      lock.unlock();
      return done(error(RAY_UNAVAILABLE, "not now"), 0);
    }
    if (refuse_next > 0 && n_submissions(records) > 0) {  // a batch of marks alone may come first
      --refuse_next;
      lock.unlock();
      return done(error(RAY_INVALID_ARGUMENT, "nonsense"), 0);
    }
    EXPECT_LE(++in_flight[shard], static_cast<int>(JournalPump::kInFlight));
    if (hold) {
      held.push_back([this, shard, records = std::move(records), n, done] { commit(shard, records, n, done); });
      lock.unlock();
      wake.notify_all();
      return;
    }
    lock.unlock();
    commit(shard, records, n, done);
  }
  static uint32_t n_submissions(const std::string& records) {
    uint32_t n = 0;
    RecordHeader h;
    for (size_t at = 0; at + sizeof h <= records.size(); at += pad8(h.size)) {
      std::memcpy(&h, records.data() + at, sizeof h);
      n += h.type == lineage::kSubmit;
    }
    return n;
  }
  void commit(uint32_t shard, const std::string& records, uint32_t n, Appended done) {
    {
      std::lock_guard lock(mutex);
      uint32_t seen = 0;
      for (size_t at = 0; at + sizeof(RecordHeader) <= records.size(); ++seen) {
        RecordHeader h;
        std::memcpy(&h, records.data() + at, sizeof h);
        if (h.type == lineage::kSubmit) {
          lineage::SubmitRecord s;
          std::memcpy(&s, records.data() + at + sizeof h, sizeof s);
          EXPECT_EQ(shard, gcs_slot(s.task) % 2);
          committed[{shard, s.process}].push_back(s.handle_seq);
        } else if (h.type == lineage::kMark) {
          ++marks[shard];
        } else if (h.type == lineage::kLeft) {
          lineage::LeftRecord left;
          std::memcpy(&left, records.data() + at + sizeof h, sizeof left);
          for (auto& [key, list] : committed)
            if (key.first == shard) before_left[{left.process, key.second}] += list.size();
          ++lefts[left.process];
        } else {
          ++events;
        }
        at += pad8(h.size);
      }
      EXPECT_EQ(seen, n);
      --in_flight[shard];
    }
    done(Status(), 0);
    wake.notify_all();
  }
  void release_all() {
    for (;;) {
      std::vector<std::function<void()>> work;
      {
        std::lock_guard lock(mutex);
        work.swap(held);
        if (work.empty()) hold = false;  // until then later calls queue behind: order is kept
      }
      if (work.empty()) return;
      for (auto& f : work) f();
    }
  }
  uint64_t lineage_backlog() const override { return 0; }
  void call(uint32_t, uint32_t, std::string, Answered) override {}
  void subscribe(uint32_t, const std::string&, const std::string&, Changed) override {}
  size_t total() {
    std::lock_guard lock(mutex);
    size_t n = 0;
    for (auto& [key, list] : committed) n += list.size();
    return n;
  }

  std::mutex mutex;
  std::condition_variable wake;
  bool hold = false;
  int fail_next = 0, refuse_next = 0, calls = 0, events = 0;
  std::map<uint32_t, int> in_flight, marks, lefts;
  std::map<std::pair<uint32_t, uint32_t>, size_t> before_left;  // process that left, other -> records of the other before
  std::vector<std::function<void()>> held;
  std::map<std::pair<uint32_t, uint32_t>, std::vector<uint64_t>> committed;
};

struct Writer {
  explicit Writer(uint32_t process) : process(process) {
    channel = *Channel::create(process, ::getpid());
    header = reinterpret_cast<wire::ChannelHeader*>(channel->map.data());
    ring = RingProducer(&header->lineage, channel->map.data() + wire::kLineageOffset,
                        wire::kLineageRingBytes);
  }
  // Coded as a process does it. False: the ring is full.
  bool write(uint32_t extra = 0) {
    lineage::SubmitRecord s{};
    s.task = child_task(origin_of(TaskId{}), static_cast<uint32_t>(next) * 64);
    s.process = process;
    s.handle_seq = next;
    std::string record(reinterpret_cast<const char*>(&s), sizeof s);
    record.append(extra, 'x');
    auto size = static_cast<uint32_t>(record.size());
    uint8_t coded[lineage::DeltaCoder::kMaxCoded];
    lineage::DeltaCoder changed = coder;
    uint32_t n = changed.code(lineage::kSubmit, reinterpret_cast<const uint8_t*>(record.data()), size, coded);
    const void* bytes = n ? static_cast<const void*>(coded) : record.data();
    if (!put(n ? lineage::kCoded : lineage::kSubmit, bytes, n ? n : size)) return false;
    coder = changed;
    ++next;
    return true;
  }
  bool put(uint16_t type, const void* bytes, uint32_t size) {
    void* at = ring.reserve(type, size);
    if (!at) return false;
    std::memcpy(at, bytes, size);
    ring.publish();
    return true;
  }
  uint32_t process;
  std::shared_ptr<Channel> channel;
  wire::ChannelHeader* header;
  RingProducer ring;
  lineage::DeltaCoder coder;
  uint64_t next = 0;
};

struct PumpTest : ::testing::Test {
  void SetUp() override {
    page = std::make_unique<wire::NodePage>();
    std::memset(static_cast<void*>(page.get()), 0, sizeof(wire::NodePage));
    pump = std::make_unique<JournalPump>(&store, page.get(), [this](uint32_t p) { corrupt = p; });
  }
  // As a process and the main thread do it.
  void wake() {
    std::atomic_thread_fence(std::memory_order_seq_cst);
    if (page->lineage_armed.load() == 0) return;
    page->lineage_armed.store(0);
    pump->poke_if_wanted();
  }
  void flush() {
    std::mutex m;
    std::condition_variable cv;
    bool done = false;
    pump->flush([&] {
      std::lock_guard lock(m);
      done = true;
      cv.notify_all();
    });
    std::unique_lock lock(m);
    EXPECT_TRUE(cv.wait_for(lock, std::chrono::seconds(20), [&] { return done; }));
  }
  void expect_in_order(uint32_t process, uint64_t n) {
    std::lock_guard lock(store.mutex);
    size_t total = 0;
    for (uint32_t shard : {0, 1}) {
      auto& list = store.committed[{shard, process}];
      EXPECT_TRUE(std::is_sorted(list.begin(), list.end()));
      EXPECT_EQ(std::adjacent_find(list.begin(), list.end()), list.end());
      total += list.size();
    }
    EXPECT_EQ(total, n);
  }
  FakeStore store;
  std::unique_ptr<wire::NodePage> page;
  std::atomic<uint32_t> corrupt{0};
  std::unique_ptr<JournalPump> pump;
};

TEST_F(PumpTest, SplitsByShardKeepsOrderLosesNothing) {
  Writer a(1), b(2);
  pump->attach(a.channel);
  pump->attach(b.channel);
  std::thread other([&] {
    for (int i = 0; i < 50000; ++i) {
      while (!b.write()) std::this_thread::yield();
      wake();
    }
  });
  for (int i = 0; i < 50000; ++i) {
    while (!a.write()) std::this_thread::yield();
    wake();
  }
  other.join();
  flush();
  expect_in_order(1, 50000);
  expect_in_order(2, 50000);
  EXPECT_GT(store.committed[std::pair(0u, 1u)].size(), 10000u);
  EXPECT_GT(store.committed[std::pair(1u, 1u)].size(), 10000u);
  EXPECT_LT(store.calls, 3000);  // batches
}

// The other thread reads a ring that fills, and gives the turn back.
TEST_F(PumpTest, HastensWhileARingIsFull) {
  Writer a(1), b(2), corrupted(3);
  uint64_t n = 0;
  while (a.write(1500)) ++n;  // full
  ASSERT_GT(n, 1000u);
  pump->attach(a.channel);
  pump->attach(b.channel);
  const int64_t end = steady_ns() + 20'000'000'000;
  while (store.total() < n && steady_ns() < end) std::this_thread::yield();
  expect_in_order(1, n);
  const uint64_t rounds = pump->stats().hasty_rounds;
  EXPECT_GT(rounds, 0u);
  while (page->lineage_armed.load() == 0 && steady_ns() < end) std::this_thread::yield();
  EXPECT_EQ(page->lineage_armed.load(), 1u);  // it sleeps
  for (int i = 0; i < 1000; ++i) ASSERT_TRUE(b.write());
  wake();
  flush();
  expect_in_order(2, 1000);
  corrupted.header->lineage.tail.store(uint64_t{1} << 40);  // as much as no ring holds: no reason for haste
  pump->attach(corrupted.channel);
  while (corrupt != 3 && steady_ns() < end) std::this_thread::yield();
  EXPECT_EQ(corrupt, 3u);
  EXPECT_EQ(pump->stats().hasty_rounds, rounds);
}

TEST_F(PumpTest, WakesFromSleepForOneRecord) {
  Writer a(1);
  pump->attach(a.channel);
  for (int round = 0; round < 20; ++round) {
    int64_t end = steady_ns() + 20'000'000'000;
    while (page->lineage_armed.load() == 0 && steady_ns() < end) std::this_thread::yield();
    ASSERT_EQ(page->lineage_armed.load(), 1u);
    ASSERT_TRUE(a.write());
    wake();
    while (store.total() < static_cast<size_t>(round + 1) && steady_ns() < end)
      std::this_thread::yield();
    ASSERT_EQ(store.total(), static_cast<size_t>(round + 1));
  }
}

TEST_F(PumpTest, EveryShardIsToldUpToWhenItHasAll) {
  Writer a(1);
  pump->attach(a.channel);
  for (int k = 1; k <= 2; ++k) {
    ASSERT_TRUE(a.write());
    wake();
    std::unique_lock lock(store.mutex);
    EXPECT_TRUE(store.wake.wait_for(lock, std::chrono::seconds(20),
                                    [&] { return store.marks[0] >= k && store.marks[1] >= k; }));
  }
}

TEST_F(PumpTest, ADifferenceFromNothingCutsTheProcessOff) {
  Writer good(1), bad(2);
  pump->attach(good.channel);
  pump->attach(bad.channel);
  ASSERT_TRUE(good.write());
  ASSERT_TRUE(bad.write());
  const uint8_t exec_from_nothing[] = {lineage::kExec, 1, 0, 2};
  ASSERT_TRUE(bad.put(lineage::kCoded, exec_from_nothing, sizeof exec_from_nothing));
  ASSERT_TRUE(bad.write());
  ASSERT_TRUE(good.write());
  flush();
  EXPECT_EQ(corrupt.load(), 2u);
  expect_in_order(1, 2);
  expect_in_order(2, 1);
}

TEST_F(PumpTest, ADeadProcessIsDrainedToItsTail) {
  {
    Writer a(7);
    pump->attach(a.channel);
    for (int i = 0; i < 1000; ++i) ASSERT_TRUE(a.write());
    pump->detach(7);
  }
  flush();
  expect_in_order(7, 1000);
  std::lock_guard lock(store.mutex);
  EXPECT_EQ(store.lefts[7], 2);  // each shard is told, when it has all
  EXPECT_EQ((store.before_left[{7, 7}]), 1000u);
}

// So that what others write because a process is gone comes after what it wrote.
TEST_F(PumpTest, WhoIsGoneIsReadFirst) {
  Writer other(6), dead(7);
  pump->attach(other.channel);
  pump->attach(dead.channel);
  for (int k = 0; k < 20; ++k) {
    const uint32_t process = dead.process;
    for (int i = 0; i < 1000; ++i) ASSERT_TRUE(dead.write());
    pump->detach(process);
    for (int i = 0; i < 10; ++i) ASSERT_TRUE(other.write());
    flush();
    {
      std::lock_guard lock(store.mutex);
      EXPECT_EQ(store.lefts[process], 2);
      EXPECT_EQ((store.before_left[{process, process}]), 1000u);
      EXPECT_EQ((store.before_left[{process, 6}]), static_cast<size_t>(10 * k));
    }
    dead = Writer(process + 1);
    pump->attach(dead.channel);
  }
}

// The index of a process that is gone is the next one's, maybe before the pump has looked: neither loses a record.
TEST_F(PumpTest, AnIndexIsUsedAgain) {
  Writer first(7), second(7);
  pump->attach(first.channel);
  for (int i = 0; i < 1000; ++i) ASSERT_TRUE(first.write());
  second.next = 1000;
  pump->detach(7);
  pump->attach(second.channel);
  for (int i = 0; i < 1000; ++i) ASSERT_TRUE(second.write());
  flush();
  for (int i = 0; i < 1000; ++i) ASSERT_TRUE(second.write());
  flush();
  expect_in_order(7, 3000);
  EXPECT_EQ(corrupt, 0u);
  std::lock_guard lock(store.mutex);
  EXPECT_EQ(store.lefts[7], 2);
  EXPECT_EQ((store.before_left[{7, 7}]), 1000u);
}

TEST_F(PumpTest, FailedBatchesAreSentAgain) {
  store.fail_next = 5;
  Writer a(1);
  pump->attach(a.channel);
  for (int i = 0; i < 1000; ++i) ASSERT_TRUE(a.write());
  flush();
  std::lock_guard lock(store.mutex);
  size_t n = 0;
  for (auto& [key, list] : store.committed) n += list.size();
  EXPECT_EQ(n, 1000u);
}

TEST_F(PumpTest, FlushWaitsForTheCommit) {
  store.hold = true;
  Writer a(1);
  pump->attach(a.channel);
  ASSERT_TRUE(a.write());
  std::atomic<bool> done{false};
  pump->flush([&] { done = true; });
  {
    std::unique_lock lock(store.mutex);
    ASSERT_TRUE(store.wake.wait_for(lock, std::chrono::seconds(20), [&] { return !store.held.empty(); }));
  }
  EXPECT_FALSE(done);
  store.release_all();
  int64_t end = steady_ns() + 20'000'000'000;
  while (!done && steady_ns() < end) std::this_thread::yield();
  EXPECT_TRUE(done);
}

TEST_F(PumpTest, ALongOutageIsBackPressureNotMemory) {
  store.hold = true;
  Writer a(1);
  pump->attach(a.channel);
  // More than stash and ring together: at some point the ring stays full.
  uint64_t bytes = 0;
  int64_t stalled_since = 0;
  while (stalled_since == 0 || steady_ns() - stalled_since < 500'000'000) {
    ASSERT_LT(bytes, JournalPump::kMaxStash + 4 * wire::kLineageRingBytes) << "there is no bound";
    if (a.write(4000)) {
      bytes += 4000;
      stalled_since = 0;
      wake();
    } else {
      if (!stalled_since) stalled_since = steady_ns();
      std::this_thread::yield();
    }
  }
  EXPECT_LE(pump->stats().stash, JournalPump::kMaxStash + 8192);
  store.release_all();
  uint64_t written = a.next;
  flush();
  expect_in_order(1, written);
  ASSERT_TRUE(a.write());  // and it goes on
  wake();
  flush();
  expect_in_order(1, written + 1);
}

// A store that is silent for a long time slows nobody down: what it has not taken goes to disk, and from there to it.
TEST_F(PumpTest, ALongOutageGoesToDisk) {
  pump.reset();
  char dir[] = "/tmp/pump-test-XXXXXX";
  ASSERT_NE(::mkdtemp(dir), nullptr);
  pump = std::make_unique<JournalPump>(&store, page.get(), [this](uint32_t p) { corrupt = p; }, dir, 1u << 30);
  store.hold = true;
  Writer a(1);
  pump->attach(a.channel);
  int64_t end = steady_ns() + 60'000'000'000;
  for (uint64_t bytes = 0; bytes < 3 * JournalPump::kMaxStash; bytes += 4000) {
    while (!a.write(4000)) {
      ASSERT_LT(steady_ns(), end) << "the ring stays full";
      wake();
      std::this_thread::yield();
    }
    wake();
  }
  EXPECT_LT(pump->stats().stash, JournalPump::kMaxStash);
  EXPECT_GT(pump->stats().spooled, JournalPump::kMaxStash);
  EXPECT_TRUE(std::filesystem::is_empty(dir));  // it has no name: a kill leaves nothing
  store.release_all();
  flush();
  expect_in_order(1, a.next);
  ASSERT_TRUE(a.write());
  wake();
  flush();
  expect_in_order(1, a.next);
  EXPECT_EQ(pump->stats().spooled, 0u);
  ::rmdir(dir);
}

TEST_F(PumpTest, WhatTheStoreCallsMalformedIsDroppedAndTheRestComes) {
  store.refuse_next = 1;
  Writer a(1);
  pump->attach(a.channel);
  ASSERT_TRUE(a.write());
  wake();
  flush();
  EXPECT_EQ(store.total(), 0u);
  EXPECT_GE(pump->stats().dropped, 1u);  // a mark may be in it too
  ASSERT_TRUE(a.write());
  wake();
  flush();
  EXPECT_EQ(store.total(), 1u);
}

TEST_F(PumpTest, ABrokenRingIsReportedAndOthersGoOn) {
  Writer bad(3), good(4);
  pump->attach(bad.channel);
  pump->attach(good.channel);
  bad.header->lineage.tail.store(0xFFFFFFFFFFFFFFF8ull);
  ASSERT_TRUE(good.write());
  wake();
  flush();
  EXPECT_EQ(corrupt, 3u);
  expect_in_order(4, 1);
  pump->detach(3);
  flush();
  std::lock_guard lock(store.mutex);
  EXPECT_EQ(store.lefts[3], 2);
}

TEST_F(PumpTest, DropsWhatIsNoLineageRecord) {
  Writer a(1);
  pump->attach(a.channel);
  ASSERT_NE(a.ring.reserve(99, 64), nullptr);
  a.ring.publish();
  ASSERT_NE(a.ring.reserve(lineage::kSubmit, 8), nullptr);  // too short
  a.ring.publish();
  ASSERT_TRUE(a.write());
  wake();
  flush();
  expect_in_order(1, 1);
  EXPECT_EQ(pump->stats().dropped, 2u);
}

TEST_F(PumpTest, StoppingAnswersFlushes) {
  store.hold = true;
  Writer a(1);
  pump->attach(a.channel);
  ASSERT_TRUE(a.write());
  std::atomic<bool> done{false};
  pump->flush([&] { done = true; });
  {
    std::unique_lock lock(store.mutex);
    ASSERT_TRUE(store.wake.wait_for(lock, std::chrono::seconds(20), [&] { return !store.held.empty(); }));
  }
  pump.reset();
  EXPECT_TRUE(done);
  store.release_all();  // late answers find nobody, and that is fine
}

}  // namespace
}  // namespace ray::node
