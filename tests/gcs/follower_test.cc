// The follower on a busy machine: it takes the time that is to spare, and nobody waits for a lock that it holds.
#include "gcs/follower.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

#include "libray/base/clock.h"
#include "libray/wire/cursor.h"
#include "tests/gcs/shard_process.h"

namespace ray::gcs {
namespace {

using namespace test;
using namespace std::chrono_literals;

int64_t cpu_ns() {
  timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return t.tv_sec * 1'000'000'000 + t.tv_nsec;
}

constexpr int kLast = 19;                   // the nice value of a thread of the lowest weight
constexpr int64_t kHang = 30'000'000'000;  // only a test that has failed takes that long

int own_nice() { return getpriority(PRIO_PROCESS, static_cast<id_t>(syscall(SYS_gettid))); }

// Of a process's threads.
size_t of_lowest_weight(pid_t pid) {
  size_t n = 0;
  for (const auto& task : std::filesystem::directory_iterator("/proc/" + std::to_string(pid) + "/task"))
    n += getpriority(PRIO_PROCESS, static_cast<id_t>(std::stoi(task.path().filename()))) == kLast;
  return n;
}

// How often a thread of this process has gone to sleep.
long sleeps_of(const std::string& name) {
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    std::ifstream comm(task.path() / "comm"), status(task.path() / "status");
    std::string line;
    if (!std::getline(comm, line) || line != name) continue;
    while (std::getline(status, line))
      if (line.rfind("voluntary_ctxt_switches:", 0) == 0) return std::stol(line.substr(line.find(':') + 1));
  }
  return -1;
}

// One processor for this test, and eight threads that want all of it from begin() on.
class Busy : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(sched_getaffinity(0, sizeof before_, &before_), 0);
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    ASSERT_EQ(sched_setaffinity(0, sizeof one, &one), 0);
    add_hogs(8);
    auto j = Journal::open({dir_.path(), 0, 32u << 20}, 0, [](const Entry&) { return true; });
    ASSERT_TRUE(j.ok()) << j.status().message();
    journal_ = std::move(*j);
  }
  void TearDown() override {
    over_.store(true);
    begin();
    for (auto& t : hogs_) t.join();
    sched_setaffinity(0, sizeof before_, &before_);
  }
  void add_hogs(long n) {
    for (long k = 0; k < n; ++k)
      hogs_.emplace_back([this] {
        begun_.wait(false);
        while (!over_.load(std::memory_order_relaxed))
          if (rests_.load(std::memory_order_relaxed)) std::this_thread::sleep_for(1ms);
      });
  }
  void begin() {
    begun_.store(true);
    begun_.notify_all();
  }
  void write_rows(int n) {
    write_records(n, Table::kKv, std::string(200, 'x'));
  }
  // Each is at one node.
  void write_objects(int n, char node) {
    std::string where;
    wire::Writer(&where).array(2).uint64(1).array(1).array(3).bin(std::string(kIdSize, node)).uint64(1).boolean(true);
    write_records(n, Table::kObjects, where);
  }
  void write_records(int n, Table table, const std::string& value) {
    std::vector<std::string> blobs(static_cast<size_t>(n));
    std::vector<Entry> entries;
    for (int k = 0; k < n; ++k) {
      std::string& record = blobs[static_cast<size_t>(k)];
      wire::Writer(&record).array(7).uint64(0).uint64(0).uint64(0).int64(0).str("").bin(std::string_view())
          .array(1).array(4).uint64(static_cast<uint64_t>(table)).bin("key" + std::to_string(k)).uint64(1).bin(value);
      Entry e;
      e.sn = journal_->last_sn() + 1 + entries.size();
      e.blob = record;
      entries.push_back(e);
    }
    ASSERT_TRUE(journal_->commit(entries).ok());
  }
  std::unique_ptr<Materialiser> materialiser() {
    auto m = Materialiser::open(dir_.path(), 0);
    EXPECT_TRUE(m.ok()) << m.status().message();
    return std::move(*m);
  }

  TempDir dir_;
  std::unique_ptr<Journal> journal_;
  std::atomic<bool> begun_{false}, over_{false}, rests_{false};
  std::vector<std::thread> hogs_;
  cpu_set_t before_;
};

// Here it holds a lock, which may be one inside malloc or SQLite, when the others begin; for as long as such a lock is held.
// Only a thread that has the weight of others gives it back soon.
TEST_F(Busy, NobodyWaitsForALockOfTheFollowers) {
  std::mutex mutex;
  std::atomic<bool> holds{false};
  std::atomic<int> nice{kLast};
  Follower follower(materialiser(), [&] {
    std::lock_guard lock(mutex);
    nice.store(own_nice());
    begin();
    holds.store(true);
    holds.notify_all();
    for (int64_t from = cpu_ns(); cpu_ns() - from < 50'000;) {}
  });
  ASSERT_TRUE(follower.started().ok());
  write_rows(1);
  follower.follow(journal_->last_sn(), journal_->segments(), false);
  holds.wait(false);
  const int64_t from = steady_ns();
  { std::lock_guard lock(mutex); }
  EXPECT_LT(steady_ns() - from, kHang);
  EXPECT_LT(nice.load(), kLast);
}

// A thread needs a processor also to die: one of the lowest weight would get it late.
TEST_F(Busy, AProcessWithOneDiesAtOnce) {
  write_rows(1);
  int ready[2];
  ASSERT_EQ(pipe(ready), 0);
  const pid_t pid = fork();
  if (pid == 0) {
    Follower follower(materialiser(), [] {});
    follower.follow(journal_->last_sn(), journal_->segments(), false);
    if (follower.wait(journal_->last_sn(), 60'000'000'000)) (void)!write(ready[1], "r", 1);
    pause();
  }
  char byte;
  ASSERT_EQ(read(ready[0], &byte, 1), 1);
  EXPECT_EQ(of_lowest_weight(pid), 0u);
  begin();
  kill(pid, SIGKILL);
  const int64_t from = steady_ns();
  EXPECT_EQ(waitpid(pid, nullptr, 0), pid);
  EXPECT_LT(steady_ns() - from, kHang);
  close(ready[0]);
  close(ready[1]);
}

// However often it has looked for such time.
TEST_F(Busy, TakesOnlyTimeToSpareUntilSomebodyWaits) {
  Follower follower(materialiser(), [] {}, INT64_MAX);
  ASSERT_TRUE(follower.started().ok());
  write_rows(30000);
  add_hogs(sysconf(_SC_NPROCESSORS_ONLN));  // it counts those of the whole machine
  begin();
  follower.follow(journal_->last_sn(), journal_->segments(), false);
  const int64_t from = steady_ns();
  const long before = sleeps_of("gcs:materialise");
  while (sleeps_of("gcs:materialise") < before + 100 && steady_ns() - from < 2 * kHang) sched_yield();
  EXPECT_GE(sleeps_of("gcs:materialise"), before + 100);
  EXPECT_LT(follower.watermark(), journal_->last_sn());
  EXPECT_TRUE(follower.wait(journal_->last_sn(), 60'000'000'000));
}

// Left again and again, it changes nothing, and what comes after is none the worse for it. 300: SQLite looks for an
// interruption every so many steps of a statement, over all of its runs.
TEST_F(Busy, TransactionsThatWereLeftDoNotStandInTheWay) {
  write_rows(10);
  auto m = materialiser();
  SpareTime spare;
  spare.hurry(true);
  for (int k = 0; k < 300; ++k)
    ASSERT_EQ(m->advance(journal_->segments(), journal_->last_sn(), &spare).code(), RAY_CANCELLED);
  EXPECT_EQ(m->watermark(), 0u);
  EXPECT_EQ(m->stats().rows, 0u);
  const Status s = m->advance(journal_->segments(), journal_->last_sn());
  EXPECT_TRUE(s.ok()) << s.message();
  EXPECT_EQ(m->watermark(), journal_->last_sn());
}

// A transaction that is left anywhere is done anew as if it had not been: here where objects leave one node for another.
TEST_F(Busy, ATransactionThatWasLeftIsDoneAnew) {
  auto m = materialiser();
  for (char node : {'a', 'b'}) {
    write_objects(3000, node);
    SpareTime spare;
    for (int k = 0; node == 'b' && k < 60; ++k) {
      spare.hurry(false);
      std::thread hurries([&] {
        std::this_thread::sleep_for(std::chrono::microseconds(2000 + 500 * k));
        spare.hurry(true);
      });
      (void)m->advance(journal_->segments(), journal_->last_sn(), &spare);
      hurries.join();
    }
    while (m->watermark() < journal_->last_sn()) {
      const Status s = m->advance(journal_->segments(), journal_->last_sn());
      ASSERT_TRUE(s.ok()) << s.message();
    }
  }
  m.reset();
  const auto rows = sql(dir_.path() + "/gcs-0.db", "SELECT count(*), sum(substr(hex(node),1,2)='62') FROM location_rows");
  EXPECT_EQ(rows, std::vector<std::string>{"3000|3000"});
}

// Crowded but for moments, each too short for the transaction.
TEST_F(Busy, ACrowdThatComesAndGoesDoesNotKeepItFromItsEnd) {
  Follower follower(materialiser(), [] {}, 300'000'000);
  ASSERT_TRUE(follower.started().ok());
  write_rows(30000);
  add_hogs(sysconf(_SC_NPROCESSORS_ONLN));
  begin();
  follower.follow(journal_->last_sn(), journal_->segments(), false);
  const int64_t from = steady_ns();
  while (follower.watermark() < journal_->last_sn() && steady_ns() - from < 120'000'000'000) {
    std::this_thread::sleep_for(150ms);
    rests_.store(true);
    std::this_thread::sleep_for(10ms);
    rests_.store(false);
  }
  EXPECT_EQ(follower.watermark(), journal_->last_sn());
}

}  // namespace
}  // namespace ray::gcs
