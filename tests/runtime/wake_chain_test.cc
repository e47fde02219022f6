// Who is woken at once, who when it is its turn, and that nobody is forgotten: neither by threads
// that publish and rest at the same moments, nor when the page holds garbage.
#include "libray/runtime/wake_chain.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "libray/base/clock.h"
#include "libray/base/doorbell.h"

namespace ray {
namespace {

class WakeChainTest : public ::testing::Test {
 protected:
  void SetUp() override {
    page_.reset(static_cast<wire::NodePage*>(std::aligned_alloc(64, sizeof(wire::NodePage))));
    std::memset(static_cast<void*>(page_.get()), 0, sizeof(wire::NodePage));
    page_->wakes.n_places = 2;
    for (auto& b : page_->bells) b.alive = 1;
  }
  WakeChain chain(uint32_t process) {
    WakeChain c;
    c.attach(page_.get(), process);
    return c;
  }
  std::atomic<uint32_t>* bell(uint32_t process) { return &page_->bells[process].armed; }
  bool asleep(uint32_t process) { return bell(process)->load() != kAwake; }
  // What a worker does that finds nothing to do.
  void rest(uint32_t process) {
    WakeChain c = chain(process);
    arm(bell(process));
    c.settle();
    c.pass_on();
  }

  // All sleep, and there is work for them, in this order.
  void call(WakeChain* caller, std::initializer_list<uint32_t> workers) {
    for (uint32_t p : workers) {
      arm(bell(p));
      caller->wake(p);
    }
  }

  struct Free {
    void operator()(wire::NodePage* page) const { std::free(page); }
  };
  std::unique_ptr<wire::NodePage, Free> page_;
};

constexpr uint32_t kCaller = 1;

TEST_F(WakeChainTest, WhoIsAwakeIsLeftAlone) {
  WakeChain caller = chain(kCaller);
  EXPECT_FALSE(caller.wake(5));
  EXPECT_FALSE(caller.marked(5));
  EXPECT_FALSE(caller.crowded());
}

TEST_F(WakeChainTest, AFreePlaceIsTakenAtOnceAndTheNextWaits) {
  WakeChain caller = chain(kCaller);
  for (uint32_t p : {5u, 6u, 7u}) arm(bell(p));
  EXPECT_FALSE(caller.wake(5));
  EXPECT_FALSE(asleep(5));
  EXPECT_TRUE(caller.wake(6));
  EXPECT_TRUE(caller.wake(7));
  EXPECT_TRUE(caller.wake(6));  // once more: it is marked already
  EXPECT_TRUE(asleep(6) && asleep(7));
  EXPECT_TRUE(caller.crowded());
  rest(5);
  EXPECT_FALSE(asleep(6));
  EXPECT_FALSE(caller.marked(6));
  EXPECT_TRUE(asleep(7));
  rest(6);
  EXPECT_FALSE(asleep(7));
  EXPECT_EQ(caller.passed(), 2u);
  rest(7);
  EXPECT_FALSE(caller.crowded());
  EXPECT_FALSE(caller.wake(5));  // all rest: there is a place again
  EXPECT_FALSE(asleep(5));
}

TEST_F(WakeChainTest, MoreProcessorsAreMorePlaces) {
  page_->wakes.n_places = 4;
  WakeChain caller = chain(kCaller);
  for (uint32_t p = 5; p < 10; ++p) arm(bell(p));
  for (uint32_t p = 5; p < 8; ++p) EXPECT_FALSE(caller.wake(p)) << p;
  EXPECT_TRUE(caller.wake(8));
}

TEST_F(WakeChainTest, OneProcessHasOnePlace) {
  page_->wakes.n_places = 4;
  WakeChain caller = chain(kCaller);
  for (uint32_t p = 5; p < 10; ++p) arm(bell(p));
  for (int i = 0; i < 10; ++i) {  // it is woken and rests, over and over
    EXPECT_FALSE(caller.wake(5));
    if (i < 9) rest(5);
  }
  EXPECT_FALSE(caller.wake(6));
  EXPECT_FALSE(caller.wake(7));
  EXPECT_TRUE(caller.wake(8));
}

TEST_F(WakeChainTest, AWorkerThatCallsHasOnePlaceToo) {
  WakeChain caller = chain(kCaller), worker = chain(5);
  for (uint32_t p : {5u, 6u}) arm(bell(p));
  EXPECT_FALSE(caller.wake(5));
  arm(bell(kCaller));
  EXPECT_FALSE(worker.wake(6));  // it is the caller now
  EXPECT_FALSE(asleep(6));
}

TEST_F(WakeChainTest, WhoRestsFillsAllFreePlaces) {
  page_->wakes.n_places = 3;
  WakeChain caller = chain(kCaller);
  call(&caller, {5, 6, 7, 8, 9});
  ASSERT_FALSE(asleep(5) || asleep(6));
  arm(bell(5));
  rest(6);
  EXPECT_FALSE(asleep(7) || asleep(8));
  EXPECT_TRUE(asleep(9));
}

TEST_F(WakeChainTest, TheDeadKeepNoPlaceAndGetNone) {
  WakeChain caller = chain(kCaller);
  for (uint32_t p = 5; p < 9; ++p) arm(bell(p));
  EXPECT_FALSE(caller.wake(5));
  EXPECT_TRUE(caller.wake(6));
  EXPECT_TRUE(caller.wake(7));
  page_->bells[5].alive = 0;  // while it runs
  page_->bells[6].alive = 0;  // while it is marked
  EXPECT_FALSE(caller.wake(5));
  EXPECT_FALSE(caller.wake(6));
  EXPECT_FALSE(caller.wake(8));
  EXPECT_FALSE(asleep(8));
  rest(8);
  EXPECT_FALSE(asleep(7));
  EXPECT_EQ(page_->bells[8].waking, 0u);
}

TEST_F(WakeChainTest, ACallerThatDoesOtherThingsStepsAside) {
  WakeChain caller = chain(kCaller);
  call(&caller, {5, 6, 7});
  ASSERT_TRUE(asleep(6));
  caller.step_aside();
  EXPECT_FALSE(asleep(6));
  EXPECT_TRUE(asleep(7));
}

TEST_F(WakeChainTest, ACallerThatSleepsGivesItsPlaceToAWorker) {
  WakeChain caller = chain(kCaller);
  call(&caller, {5, 6, 7});
  rest(kCaller);
  EXPECT_FALSE(asleep(6));
  EXPECT_TRUE(asleep(7));
  disarm(bell(kCaller));
  EXPECT_TRUE(caller.wake(7));  // it takes its place back, and worker 5 still has the other one
}

TEST_F(WakeChainTest, AllHaveTheirTurn) {
  WakeChain caller = chain(kCaller);
  const std::vector<uint32_t> workers = {2, 3, 63, 64, 65, 700, 4000, wire::kMaxProcesses - 1};
  for (uint32_t p : workers) arm(bell(p));
  EXPECT_FALSE(caller.wake(2));
  for (int round = 0; round < 3; ++round)
    for (size_t i = 0; i < workers.size(); ++i) {
      const uint32_t next = workers[(i + 1) % workers.size()];
      for (uint32_t p : workers) caller.wake(p);  // busy callers do not let anybody overtake
      rest(workers[i]);
      ASSERT_FALSE(asleep(next)) << next << " in round " << round;
    }
}

TEST_F(WakeChainTest, AMarkOfOneThatWokeForAnotherReasonIsSkipped) {
  WakeChain caller = chain(kCaller);
  call(&caller, {5, 6, 7});
  ring(bell(6));
  rest(5);
  EXPECT_FALSE(asleep(7));
}

TEST_F(WakeChainTest, WhoRestsForgetsAMarkThatItHasSeenToItself) {
  WakeChain caller = chain(kCaller), worker = chain(6);
  arm(bell(5));
  arm(bell(6));
  caller.wake(5);
  EXPECT_TRUE(caller.wake(6));
  EXPECT_TRUE(worker.settle());
  EXPECT_FALSE(caller.marked(6));
  EXPECT_FALSE(worker.settle());
}

TEST_F(WakeChainTest, WhoWasLeftMarkedCanBeWokenNow) {
  WakeChain caller = chain(kCaller);
  call(&caller, {5, 6});
  ASSERT_TRUE(asleep(6));
  caller.wake_now(6);
  EXPECT_FALSE(asleep(6));
  EXPECT_FALSE(caller.marked(6));
}

TEST_F(WakeChainTest, GarbageInThePageEndsNothing) {
  std::mt19937_64 random(1);
  for (int i = 0; i < 2000; ++i) {
    wire::WakePage& w = page_->wakes;
    w.summary = random();
    w.cursor = static_cast<uint32_t>(random());
    for (auto& p : w.places) p = static_cast<uint32_t>(random() >> (random() % 40));
    for (auto& word : w.waiting) word = random() % 3 ? 0 : random();
    for (uint32_t p = 0; p < 100; ++p) {
      bell(p)->store(random() % 3);
      for (auto* word : {&page_->bells[p].alive, &page_->bells[p].place, &page_->bells[p].waking})
        *word = static_cast<uint32_t>(random() >> (random() % 60));
    }
    w.n_places = static_cast<uint32_t>(random() >> (random() % 60));
    for (int k = 0; k < 50; ++k) {
      const uint32_t process = 1 + static_cast<uint32_t>(random() % (wire::kMaxProcesses - 1));
      WakeChain c = chain(process);
      c.wake(1 + static_cast<uint32_t>(random() % (wire::kMaxProcesses - 1)));
      arm(bell(process));
      c.settle();
      c.pass_on();
    }
  }
}

// One worker rests at the moment in which the other is marked, over and over.
TEST_F(WakeChainTest, TheLastRestAndTheNextMarkMeet) {
  std::atomic<uint64_t> sent[2] = {}, done[2] = {};
  std::atomic<bool> stop{false};
  std::vector<std::thread> workers;
  for (uint32_t i = 0; i < 2; ++i)
    workers.emplace_back([&, i] {
      WakeChain c = chain(5 + i);
      while (!stop) {
        done[i] = sent[i].load();
        const uint32_t how = arm(bell(5 + i));
        c.settle();
        if (sent[i] != done[i] || stop) continue;
        c.pass_on();
        sleep_armed(bell(5 + i), how, -1);
      }
    });
  WakeChain caller = chain(kCaller);
  for (uint64_t n = 1; n <= 100000; ++n)
    for (uint32_t i = 0; i < 2; ++i) {
      sent[i] = n;
      caller.wake(5 + i);
      if (i == 0) {
        for (uint64_t pause = n % 64; pause > 0; --pause) cpu_relax();
        continue;
      }
      for (int looks = 0; done[0] != n || done[1] != n; ++looks)
        looks % 256 == 255 ? std::this_thread::yield() : cpu_relax();
    }
  stop = true;
  for (uint32_t i = 0; i < 2; ++i) {
    ring(bell(5 + i));
    workers[i].join();
  }
}

// Callers send to workers that sleep without a limit: one forgotten wake-up, and the test hangs.
TEST_F(WakeChainTest, NobodySleepsThroughItsWork) {
  constexpr uint32_t kCallers = 2, kWorkers = 9, kFirst = 10;
  struct alignas(64) Box {
    std::atomic<uint64_t> sent{0};
    std::atomic<uint64_t> done{0};
  };
  std::vector<Box> boxes(kWorkers);
  std::atomic<bool> stop{false};
  std::vector<std::thread> workers, callers;
  for (uint32_t i = 0; i < kWorkers; ++i)
    workers.emplace_back([&, i] {
      WakeChain c = chain(kFirst + i);
      auto* word = bell(kFirst + i);
      std::minstd_rand random(i + 1);
      auto work = [&] {
        return boxes[i].sent.load(std::memory_order_acquire) != boxes[i].done.load();
      };
      for (;;) {
        while (work()) {
          boxes[i].done.fetch_add(1);
          if (random() % 64 == 0) std::this_thread::yield();
        }
        if (stop) break;
        const uint32_t how = arm(word);
        c.settle();
        if (work() || stop) continue;
        c.pass_on();
        sleep_armed(word, how, -1);
      }
    });
  // A caller sends a few and waits until they are done, without a look at the chain.
  for (uint32_t k = 0; k < kCallers; ++k)
    callers.emplace_back([&, k] {
      WakeChain c = chain(kCaller + k);
      std::minstd_rand random(k + 100);
      for (int burst = 0; burst < 5000; ++burst) {
        uint64_t sent[kWorkers] = {};
        for (uint64_t n = 1 + random() % 20; n > 0; --n) {
          const uint32_t to = static_cast<uint32_t>(random() % kWorkers);
          sent[to] = boxes[to].sent.fetch_add(1, std::memory_order_release) + 1;
          c.wake(kFirst + to);
        }
        for (uint32_t i = 0; i < kWorkers; ++i)
          while (boxes[i].done < sent[i]) std::this_thread::yield();
      }
    });
  for (auto& t : callers) t.join();
  stop = true;
  for (uint32_t i = 0; i < kWorkers; ++i) {
    ring(bell(kFirst + i));
    workers[i].join();
  }
}

}  // namespace
}  // namespace ray
