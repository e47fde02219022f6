// The local scheduler: rules one by one, recursion on one CPU, and random runs whose every step is checked:
// nothing is given out twice, nobody starves.
#include "libray/sched/local_scheduler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <set>

#include "scheduler_bench.h"

namespace ray::sched {
namespace {

struct TaskBench : Bench {
  using Bench::Bench;
  void shape(uint32_t client, uint32_t shape, std::map<std::string, double> need, Pool pool = kPool) {
    ASSERT_TRUE(s.define_shape(client, shape, make(std::move(need)), pool).ok());
  }
};

TEST(Resources, FixedPointAndLimits) {
  Resources r;
  EXPECT_TRUE(r.add("CPU", 0.0001).ok());
  EXPECT_EQ(r.get("CPU"), 1);
  EXPECT_TRUE(r.add("CPU", 1.5).ok());
  EXPECT_EQ(r.get("CPU"), 15000);
  EXPECT_FALSE(r.add("CPU", 0.00001).ok());
  EXPECT_FALSE(r.add("CPU", -1).ok());
  EXPECT_FALSE(r.add("CPU", 1e14).ok());
  EXPECT_FALSE(r.add("CPU", std::numeric_limits<double>::quiet_NaN()).ok());
  EXPECT_FALSE(r.add("", 1).ok());
  EXPECT_FALSE(r.add(std::string(256, 'x'), 1).ok());
  EXPECT_TRUE(r.add("GPU", 0.25).ok());
  EXPECT_EQ(r.to_string(), "CPU: 1.5, GPU: 0.25");
}

TEST(Scheduler, GrantsUpToTheTotal) {
  TaskBench b({{"CPU", 2}});
  b.shape(1, 0, {{"CPU", 1}});
  b.want(1, 0, 5);
  auto grants = b.take(Action::kGrant);
  ASSERT_EQ(grants.size(), 2u);
  EXPECT_NE(grants[0].worker, grants[1].worker);
  EXPECT_EQ(b.started, 2u);
  EXPECT_EQ(b.s.available().at("CPU"), 0);
  b.give(grants[0]);
  EXPECT_EQ(b.take(Action::kGrant).size(), 1u);  // it still wants five
  EXPECT_EQ(b.started, 2u);                      // and the worker is used again
}

TEST(Scheduler, LevelNotEdge) {
  TaskBench b({{"CPU", 4}});
  b.shape(1, 0, {{"CPU", 1}});
  for (int i = 0; i < 10; ++i) b.want(1, 0, 2);
  EXPECT_EQ(b.take(Action::kGrant).size(), 2u);
}

TEST(Scheduler, FractionsShareAProcessor) {
  TaskBench b({{"CPU", 1}, {"GPU", 1}});
  b.shape(1, 0, {{"CPU", 0.25}, {"GPU", 0.5}});
  b.want(1, 0, 10);
  EXPECT_EQ(b.take(Action::kGrant).size(), 2u);  // the GPU is the limit
  EXPECT_DOUBLE_EQ(b.s.available().at("CPU"), 0.5);
  EXPECT_DOUBLE_EQ(b.s.available().at("GPU"), 0);
}

TEST(Scheduler, TasksThatNeedNothingAreBounded) {
  TaskBench b({{"CPU", 2}});
  b.shape(1, 0, {});
  b.want(1, 0, 100);
  EXPECT_EQ(b.take(Action::kGrant).size(), 2u);
}

TEST(Scheduler, InfeasibleIsReportedOnceAndWaits) {
  TaskBench b({{"CPU", 2}});
  b.shape(1, 0, {{"CPU", 3}});
  b.shape(1, 1, {{"TPU", 1}});
  b.want(1, 0, 1);
  b.want(1, 1, 1);
  b.want(1, 0, 2);
  auto told = b.take(Action::kInfeasible);
  ASSERT_EQ(told.size(), 2u);
  EXPECT_NE(told[0].text.find("only 2 of 'CPU'"), std::string::npos) << told[0].text;
  EXPECT_NE(told[1].text.find("no resource 'TPU'"), std::string::npos) << told[1].text;
  EXPECT_TRUE(b.take(Action::kGrant).empty());
  EXPECT_EQ(b.started, 0u);
  EXPECT_EQ(b.s.counts().waiting, 2u);
}

TEST(Scheduler, BlockedWorkersLendTheirCpuOnly) {
  TaskBench b({{"CPU", 1}, {"GPU", 1}});
  b.shape(1, 0, {{"CPU", 1}, {"GPU", 1}});
  b.shape(2, 0, {{"CPU", 1}, {"GPU", 1}});
  b.shape(3, 0, {{"CPU", 1}});
  b.want(1, 0, 1);
  auto a = b.take(Action::kGrant).at(0);
  b.want(2, 0, 1);
  b.want(3, 0, 1);
  b.s.worker_blocked(a.worker, true);
  b.turn();
  auto c = b.take(Action::kGrant);
  ASSERT_EQ(c.size(), 1u);
  EXPECT_EQ(c[0].client, 3u);
  // It goes on at once: one CPU too many is in use until the other lease ends.
  b.s.worker_blocked(a.worker, false);
  b.turn();
  EXPECT_TRUE(b.take(Action::kGrant).empty());
  b.give(c[0]);
  EXPECT_TRUE(b.take(Action::kGrant).empty());
  ASSERT_TRUE(b.s.want(1, 0, 0, TaskId{}).ok());
  b.give(a);
  EXPECT_EQ(b.take(Action::kGrant).size(), 1u);
}

TEST(Scheduler, ALeaseThatEndsWhileBlockedGivesBackWhatItHolds) {
  TaskBench b({{"CPU", 1}, {"GPU", 1}});
  b.shape(1, 0, {{"CPU", 1}, {"GPU", 1}});
  b.want(1, 0, 1);
  auto a = b.take(Action::kGrant).at(0);
  b.s.worker_blocked(a.worker, true);
  b.s.worker_blocked(a.worker, true);
  b.s.worker_gone(a.worker, b.now);
  b.turn();
  EXPECT_EQ(b.take(Action::kGrant).size(), 1u);
  EXPECT_EQ(b.s.available().at("CPU"), 0);
}

TEST(Scheduler, WhoHasLessGoesFirst) {
  TaskBench b({{"CPU", 4}});
  for (uint32_t c : {1, 2}) b.shape(c, 0, {{"CPU", 1}});
  b.start_at_once = false;
  b.want(1, 0, 4);
  b.want(2, 0, 4);
  for (uint32_t i = 0; i < 4; ++i) b.s.worker_ready(10 + i, kPool, b.now);
  b.turn();
  std::map<uint32_t, int> got;
  for (const Action& a : b.take(Action::kGrant)) ++got[a.client];
  EXPECT_EQ(got[1], 2);
  EXPECT_EQ(got[2], 2);
}

TEST(Scheduler, ReclaimsFromWhoHoldsMore) {
  TaskBench b({{"CPU", 4}});
  for (uint32_t c : {1, 2}) b.shape(c, 0, {{"CPU", 1}});
  b.want(1, 0, 4);
  auto mine = b.take(Action::kGrant);
  ASSERT_EQ(mine.size(), 4u);
  b.want(2, 0, 4);
  auto reclaims = b.take(Action::kReclaim);
  EXPECT_EQ(reclaims.size(), 1u);
  for (int i = 0; i < 10 && !reclaims.empty(); ++i) {
    for (const Action& r : reclaims) b.give(r);
    reclaims = b.take(Action::kReclaim);
  }
  std::map<uint32_t, int> got;
  for (const Action& a : b.take(Action::kGrant)) ++got[a.client];
  EXPECT_EQ(got[2], 2);          // half each, and there it rests
  EXPECT_TRUE(reclaims.empty());
}

TEST(Scheduler, TakesTurnsOnOneProcessorAfterAQuantum) {
  TaskBench b({{"CPU", 1}});
  for (uint32_t c : {1, 2}) b.shape(c, 0, {{"CPU", 1}});
  b.want(1, 0, 1);
  auto a = b.take(Action::kGrant).at(0);
  b.want(2, 0, 1);
  EXPECT_TRUE(b.take(Action::kReclaim).empty());
  int64_t at = b.s.next_deadline(b.now);
  ASSERT_GT(at, b.now);
  b.now = at;
  b.turn();
  ASSERT_EQ(b.take(Action::kReclaim).size(), 1u);
  b.turn();
  EXPECT_TRUE(b.take(Action::kReclaim).empty());  // asked once
  b.give(a);
  auto second = b.take(Action::kGrant);
  ASSERT_EQ(second.size(), 1u);
  EXPECT_EQ(second[0].client, 2u);
}

TEST(Scheduler, LargeShapesDoNotStarve) {
  TaskBench b({{"CPU", 4}});
  b.shape(1, 0, {{"CPU", 4}});
  b.shape(2, 0, {{"CPU", 1}});
  b.shape(3, 0, {{"CPU", 1}});
  b.want(2, 0, 4);
  b.want(3, 0, 4);
  b.want(1, 0, 1);
  std::vector<Action> held = b.take(Action::kGrant);
  bool granted = false;
  // Small leases come and go; nobody heeds reclaims but by ending in turn.
  for (int i = 0; i < 400 && !granted; ++i) {
    b.now += 5'000'000;
    ASSERT_FALSE(held.empty());
    Action oldest = held.front();
    held.erase(held.begin());
    b.give(oldest);
    for (const Action& g : b.take(Action::kGrant)) {
      granted |= g.client == 1;
      held.push_back(g);
    }
  }
  EXPECT_TRUE(granted);
}

TEST(Scheduler, ActorsHoldForLife) {
  TaskBench b({{"CPU", 2}});
  ActorId id = actor_of(child_task(origin_of(TaskId{}), 1));
  b.s.want_actor(id, make({{"CPU", 1}}), kPool);
  b.turn();
  auto assigned = b.take(Action::kAssignActor);
  ASSERT_EQ(assigned.size(), 1u);
  EXPECT_EQ(assigned[0].id, id);
  b.shape(1, 0, {{"CPU", 1}});
  b.want(1, 0, 2);
  EXPECT_EQ(b.take(Action::kGrant).size(), 1u);
  b.s.worker_gone(assigned[0].worker, b.now);
  b.turn();
  EXPECT_EQ(b.take(Action::kGrant).size(), 1u);
}

// One that was killed is there until its end is known: an actor that got it would be dead before it began.
TEST(Scheduler, NothingIsGivenToAWorkerThatWasKilled) {
  TaskBench b({{"CPU", 2}});
  b.shape(1, 0, {{"CPU", 1}});
  b.want(1, 0, 2);
  auto grants = b.take(Action::kGrant);
  ASSERT_EQ(grants.size(), 2u);
  b.give(grants[0]);
  b.want(1, 0, 0);
  b.s.worker_killed(grants[0].worker);  // idle
  b.s.worker_killed(grants[1].worker);  // busy, and its lease ends before it does
  b.give(grants[1]);
  EXPECT_EQ(b.s.check(), "");
  b.s.want_actor(actor_of(child_task(origin_of(TaskId{}), 1)), make({{"CPU", 1}}), kPool);
  b.turn();
  auto assigned = b.take(Action::kAssignActor);
  ASSERT_EQ(assigned.size(), 1u);
  for (const Action& g : grants) EXPECT_NE(assigned[0].worker, g.worker);
  for (const Action& g : grants) b.s.worker_gone(g.worker, b.now);
  EXPECT_EQ(b.s.check(), "");
}

TEST(Scheduler, ActorsWithoutResourcesComeWhenEverythingIsTaken) {
  TaskBench b({{"CPU", 1}});
  b.shape(1, 0, {{"CPU", 1}});
  b.want(1, 0, 1);
  for (uint32_t i = 0; i < 20; ++i)
    b.s.want_actor(actor_of(child_task(origin_of(TaskId{}), i)), make({}), kPool);
  b.turn();
  EXPECT_EQ(b.take(Action::kAssignActor).size(), 20u);
}

TEST(Scheduler, CancelledActorsAreForgotten) {
  TaskBench b({{"CPU", 1}});
  b.start_at_once = false;
  ActorId id = actor_of(child_task(origin_of(TaskId{}), 1));
  b.s.want_actor(id, make({{"CPU", 1}}), kPool);
  b.turn();
  b.s.cancel_actor(id);
  b.s.worker_ready(7, kPool, b.now);
  b.turn();
  EXPECT_TRUE(b.take(Action::kAssignActor).empty());
  EXPECT_EQ(b.s.available().at("CPU"), 1);
}

TEST(Scheduler, StartsNoMoreWorkersThanTheLimit) {
  TaskBench b({{"CPU", 100}}, 8);
  b.shape(1, 0, {{"CPU", 1}});
  b.want(1, 0, 100);
  EXPECT_EQ(b.take(Action::kGrant).size(), 8u);
  EXPECT_EQ(b.started, 8u);
}

TEST(Scheduler, AtTheLimitIdleWorkersOfOthersMakeRoom) {
  TaskBench b({{"CPU", 2}}, 2);
  Pool other{1, 1};
  b.shape(1, 0, {{"CPU", 1}});
  b.shape(1, 1, {{"CPU", 1}}, other);
  b.want(1, 0, 2);
  auto grants = b.take(Action::kGrant);
  b.want(1, 0, 0);
  for (const Action& g : grants) b.give(g);
  b.want(1, 1, 1);
  auto stop = b.take(Action::kStopWorker);
  ASSERT_EQ(stop.size(), 1u);
  b.s.worker_gone(stop[0].worker, b.now);
  b.turn();
  EXPECT_EQ(b.take(Action::kGrant).size(), 1u);
}

TEST(Scheduler, ACrashingCommandIsTriedLessAndLess) {
  TaskBench b({{"CPU", 4}});
  b.start_at_once = false;
  b.shape(1, 0, {{"CPU", 1}});
  b.want(1, 0, 4);
  EXPECT_EQ(b.started, 4u);
  for (int i = 0; i < 4; ++i) b.s.worker_start_failed(kPool, b.now);
  b.turn();
  EXPECT_EQ(b.started, 4u);
  for (int i = 0; i < 10 && b.started == 4; ++i) {
    int64_t at = b.s.next_deadline(b.now);
    ASSERT_GT(at, b.now);
    b.now = at;
    b.turn();
  }
  EXPECT_EQ(b.started, 5u);  // one, to see whether it works now
  b.s.worker_ready(1, kPool, b.now);
  b.turn();
  EXPECT_EQ(b.started, 8u);
}

TEST(Scheduler, PrestartsAndTrimsIdleWorkers) {
  TaskBench b({{"CPU", 2}});
  b.s.prestart(kPool, 2);
  b.turn();
  EXPECT_EQ(b.started, 2u);
  b.shape(1, 0, {{"CPU", 0.1}});
  b.want(1, 0, 20);
  auto grants = b.take(Action::kGrant);
  EXPECT_EQ(grants.size(), 20u);
  b.want(1, 0, 0);
  for (const Action& g : grants) b.give(g);
  EXPECT_EQ(b.s.counts().idle, 20u);
  b.now = b.s.next_deadline(b.now);
  b.turn();
  auto stopped = b.take(Action::kStopWorker);
  EXPECT_EQ(stopped.size(), 18u);  // two stay warm
  for (const Action& a : stopped) b.s.worker_gone(a.worker, b.now);
  b.turn();
  EXPECT_EQ(b.s.next_deadline(b.now), 0);  // and then nothing wakes the daemon
}

// One whose link could not be made: the daemon decides again when something happens, not at once and for ever.
TEST(Scheduler, ALeaseThatComesStraightBackIsNoReasonToDecideAgain) {
  TaskBench b({{"CPU", 1}});
  b.shape(1, 0, {{"CPU", 0.5}});
  b.want(1, 0, 2);
  auto grants = b.take(Action::kGrant);
  ASSERT_EQ(grants.size(), 2u);
  b.want(1, 0, 0);
  b.give(grants[0]);  // and is idle for long; one is not too many
  b.now += 3600 * 1'000'000'000ll;
  b.turn();
  ASSERT_TRUE(b.s.return_lease(1, grants[1].worker, grants[1].lease, b.now).ok());
  b.want(1, 0, 1);
  auto again = b.take(Action::kGrant);
  ASSERT_EQ(again.size(), 1u);
  ASSERT_TRUE(b.s.return_lease(1, again[0].worker, again[0].lease, b.now).ok());
  const int64_t at = b.s.next_deadline(b.now);
  EXPECT_TRUE(at == 0 || at > b.now);
  b.want(1, 0, 0);
  EXPECT_EQ(b.take(Action::kStopWorker).size(), 1u);
}

TEST(Scheduler, AClientsDeathFreesItsLeases) {
  TaskBench b({{"CPU", 2}});
  for (uint32_t c : {1, 2}) b.shape(c, 0, {{"CPU", 1}});
  b.want(1, 0, 2);
  b.want(2, 0, 2);
  auto workers = b.s.client_gone(1, b.now);
  EXPECT_EQ(workers.size(), 2u);
  for (uint32_t w : workers) b.s.worker_gone(w, b.now);
  b.turn();
  size_t second = 0;
  for (const Action& g : b.take(Action::kGrant)) second += g.client == 2;
  EXPECT_EQ(second, 2u);
}

// A stopped driver answers no reclaim: whoever drives the scheduler sees which workers to end, and nothing is given
// to it meanwhile, however long it has waited.
TEST(Scheduler, APausedClientIsPassedOver) {
  TaskBench b({{"CPU", 2}});
  b.shape(1, 0, {{"CPU", 1}});
  b.shape(2, 0, {{"CPU", 1}});
  b.want(1, 0, 4);
  auto held = b.take(Action::kGrant);
  ASSERT_EQ(held.size(), 2u);
  b.want(2, 0, 2);
  b.now += 10'000'000;  // the quantum is over
  b.turn();
  ASSERT_EQ(b.take(Action::kReclaim).size(), 1u);
  EXPECT_TRUE(b.s.overdue(b.now - 10'000'001).empty());
  ASSERT_EQ(b.s.overdue(b.now).size(), 1u);
  EXPECT_EQ(b.s.overdue(b.now)[0].client, 1u);
  b.s.pause_client(1, true);
  b.turn();
  EXPECT_TRUE(b.take(Action::kGrant).empty());
  b.s.worker_gone(b.s.overdue(b.now)[0].worker, b.now);  // told to end, as a stopped client's
  b.turn();
  auto grants = b.take(Action::kGrant);
  ASSERT_EQ(grants.size(), 1u);
  EXPECT_EQ(grants[0].client, 2u);
  ASSERT_EQ(b.take(Action::kReclaim).size(), 1u);  // fairness would leave it the other one: it is not there to use it
  b.s.worker_gone(b.s.overdue(b.now)[0].worker, b.now);
  b.turn();
  grants = b.take(Action::kGrant);
  ASSERT_EQ(grants.size(), 1u);
  EXPECT_EQ(grants[0].client, 2u);
  b.s.pause_client(1, false);
  b.now += 10'000'000;
  b.turn();
  EXPECT_EQ(b.take(Action::kReclaim).size(), 1u);  // its turn again
  b.give(grants[0]);
  grants = b.take(Action::kGrant);
  ASSERT_EQ(grants.size(), 1u);
  EXPECT_EQ(grants[0].client, 1u);
}

// A worker that waits for what it submitted itself is not to be ended for others.
TEST(Scheduler, AWorkerWithTasksOfItsOwnIsNotOverdue) {
  TaskBench b({{"CPU", 1}});
  b.shape(1, 0, {{"CPU", 1}});
  b.shape(2, 0, {{"CPU", 1}});
  b.want(1, 0, 1);
  uint32_t worker = b.take(Action::kGrant).at(0).worker;
  b.want(2, 0, 1);
  b.now += 10'000'000;
  b.turn();
  ASSERT_EQ(b.s.overdue(b.now).size(), 1u);
  b.shape(worker, 0, {{"CPU", 1}});
  b.want(worker, 0, 1);
  EXPECT_TRUE(b.s.overdue(b.now).empty());
  b.want(worker, 0, 0);
  EXPECT_EQ(b.s.overdue(b.now).size(), 1u);
}

TEST(Scheduler, PrefersTheWorkerItKnows) {
  TaskBench b({{"CPU", 2}});
  for (uint32_t c : {1, 2}) b.shape(c, 0, {{"CPU", 1}});
  b.want(1, 0, 1);
  auto one = b.take(Action::kGrant).at(0);
  b.want(2, 0, 1);
  auto two = b.take(Action::kGrant).at(0);
  b.want(1, 0, 0);
  b.want(2, 0, 0);
  b.give(one);
  b.give(two);
  b.want(1, 0, 1);
  EXPECT_EQ(b.take(Action::kGrant).at(0).worker, one.worker);
}

TEST(Scheduler, RefusesWhatWasNeverDefined) {
  TaskBench b({{"CPU", 1}});
  EXPECT_FALSE(b.s.want(1, 0, 1, TaskId{}).ok());
  b.shape(1, 0, {{"CPU", 1}});
  EXPECT_FALSE(b.s.want(1, 1, 1, TaskId{}).ok());
  EXPECT_FALSE(b.s.want(2, 0, 1, TaskId{}).ok());
  b.want(1, 0, 1);
  EXPECT_FALSE(b.s.define_shape(1, 0, make({{"CPU", 1}}), kPool).ok());  // in use
  EXPECT_TRUE(b.s.return_lease(1, 77, 88, b.now).ok());                  // stale: ignored
}

// ---- recursion -------------------------------------------------------------------------------------

// fib(n) as nested tasks: a task wants leases for its two children, waits for both (blocked), then goes on
// and ends. Clients give leases back when they have nothing more to run, or when asked.
class Recursion {
 public:
  Recursion(double cpus, int n) : b_({{"CPU", cpus}}) {
    b_.shape(1, 0, {{"CPU", 1}});
    root_ = std::make_unique<Task>();
    root_->n = n;
    client_of_root_.todo.push_back(root_.get());
    clients_[1] = &client_of_root_;
  }

  uint32_t run() {
    want(1);
    for (int i = 0; i < 2'000'000 && !root_->done; ++i) {
      b_.now += 1'000'000;
      step();
      if (::testing::Test::HasFatalFailure()) return 0;
      auto n = b_.s.counts();
      most_ = std::max(most_, n.leased + n.idle);
    }
    EXPECT_TRUE(root_->done) << "deadlock";
    return most_;
  }

 private:
  struct Task {
    int n = 0;
    int open = 0;  // children that are not done
    bool started = false, done = false;
    std::vector<std::unique_ptr<Task>> children;
    Task* parent = nullptr;
  };
  struct Client {
    std::vector<Task*> todo;
    std::map<uint32_t, Action> leases;  // worker -> grant
  };
  struct Worker {
    Task* task = nullptr;
    bool blocked = false;
    Client client;
  };

  void want(uint32_t client) {
    Client* c = clients_[client];
    uint32_t running = 0;
    for (auto& [w, g] : c->leases) running += workers_[w].task != nullptr;
    ASSERT_TRUE(b_.s.want(client, 0, running + static_cast<uint32_t>(c->todo.size()), TaskId{}).ok());
  }
  void step() {
    b_.turn();
    for (const Action& g : b_.take(Action::kGrant)) clients_[g.client]->leases[g.worker] = g;
    std::set<uint32_t> asked;
    for (const Action& r : b_.take(Action::kReclaim)) asked.insert(r.worker);
    for (uint32_t index : all_clients()) {
      Client* c = clients_[index];
      for (auto it = c->leases.begin(); it != c->leases.end();) {
        Worker& w = workers_[it->first];
        if (!w.task && !c->todo.empty() && !asked.count(it->first)) start(index, it->first);
        if (w.task) {
          ++it;
          continue;
        }
        Action g = it->second;
        it = c->leases.erase(it);
        ASSERT_TRUE(b_.s.return_lease(g.client, g.worker, g.lease, b_.now).ok());
      }
      want(index);
    }
    for (auto& [index, w] : workers_) advance(index, &w);
  }
  std::vector<uint32_t> all_clients() {
    std::vector<uint32_t> out;
    for (auto& [i, c] : clients_) out.push_back(i);
    return out;
  }
  void start(uint32_t client, uint32_t worker) {
    Client* c = clients_[client];
    workers_[worker].task = c->todo.back();
    c->todo.pop_back();
  }
  void advance(uint32_t index, Worker* w) {
    Task* t = w->task;
    if (!t) return;
    if (!t->started) {
      t->started = true;
      if (t->n >= 2) {
        for (int k : {1, 2}) {
          t->children.push_back(std::make_unique<Task>());
          t->children.back()->n = t->n - k;
          t->children.back()->parent = t;
          w->client.todo.push_back(t->children.back().get());
        }
        t->open = 2;
        if (!clients_.count(index)) b_.shape(index, 0, {{"CPU", 1}});
        clients_[index] = &w->client;
        want(index);
        b_.s.worker_blocked(index, true);
        w->blocked = true;
        return;
      }
    }
    if (t->open > 0) return;
    if (w->blocked) {
      b_.s.worker_blocked(index, false);
      w->blocked = false;
      return;  // works a moment more
    }
    t->done = true;
    t->children.clear();
    if (t->parent) --t->parent->open;
    w->task = nullptr;
  }

  TaskBench b_;
  std::unique_ptr<Task> root_;
  Client client_of_root_;
  std::map<uint32_t, Client*> clients_;
  std::map<uint32_t, Worker> workers_;
  uint32_t most_ = 0;
};

TEST(SchedulerRecursion, OneProcessorDoesNotDeadlockAndNeedsAWorkerPerLevel) {
  constexpr int kDepth = 12;
  uint32_t workers = Recursion(1, kDepth).run();
  EXPECT_LE(workers, kDepth + 4u);
  EXPECT_GE(workers, kDepth - 1u);
}

TEST(SchedulerRecursion, FourProcessors) {
  constexpr int kDepth = 11;
  EXPECT_LE(Recursion(4, kDepth).run(), 4u * (kDepth + 2));
}

// Its client is gone, and it is killed: what it holds is used while it lives.
TEST(Scheduler, ADeadClientsWorkersHoldUntilTheyAreGone) {
  TaskBench b({{"CPU", 1}});
  b.shape(1, 0, {{"CPU", 1}});
  b.want(1, 0, 1);
  auto grant = b.take(Action::kGrant);
  ASSERT_EQ(grant.size(), 1u);
  b.shape(2, 0, {{"CPU", 1}});
  b.want(2, 0, 1);
  ASSERT_EQ(b.s.client_gone(1, b.now), std::vector<uint32_t>{grant[0].worker});
  b.s.worker_killed(grant[0].worker);
  b.turn();
  EXPECT_TRUE(b.take(Action::kGrant).empty());
  EXPECT_EQ(b.s.available().at("CPU"), 0);
  b.s.worker_gone(grant[0].worker, b.now);
  b.turn();
  EXPECT_EQ(b.take(Action::kGrant).size(), 1u);
}

// ---- random runs -----------------------------------------------------------------------------------

class RandomRun {
 public:
  explicit RandomRun(uint32_t seed)
      : random_(seed), b_({{"CPU", 1 + static_cast<double>(seed % 4)}, {"GPU", 1}, {"disk", 2}}, 40) {
    b_.start_at_once = false;
    static const std::map<std::string, double> kShapes[] = {
        {{"CPU", 1}}, {{"CPU", 0.5}}, {{"GPU", 0.5}}, {{"CPU", 1}, {"disk", 1}}, {}};
    for (uint32_t c = 1; c <= kClients; ++c)
      for (uint32_t s = 0; s < 5; ++s) b_.shape(c, s, kShapes[s]);
  }

  void run() {
    for (int i = 0; i < 1500; ++i) {
      b_.now += pick(2'000'000);
      mutate();
      turn();
      if (::testing::Test::HasFailure()) return;
    }
    // No more deaths and no more changes of mind: everybody who wants something gets it.
    for (auto& [w, blocked] : blocked_) b_.s.worker_blocked(w, false);
    blocked_.clear();
    for (uint32_t c = 1; c <= kClients; ++c)
      for (uint32_t s = 0; s < 5; ++s) {
        ASSERT_TRUE(b_.s.want(c, s, 1 + pick(3), TaskId{}).ok());
        waiting_.insert({c, s});
      }
    for (auto& [lease, g] : held_) waiting_.erase({g.client, g.shape});
    for (int i = 0; i < 4000 && !waiting_.empty(); ++i) {
      b_.now += 1'000'000;
      finish_some_start();
      // Leases end one after the other, in the order in which they began.
      if (!held_.empty() && pick(3) == 0) end(held_.begin()->first);
      turn();
      if (::testing::Test::HasFailure()) return;
    }
    EXPECT_TRUE(waiting_.empty()) << waiting_.size() << " demands starved";
  }

 private:
  static constexpr uint32_t kClients = 5;
  uint32_t pick(uint32_t n) { return std::uniform_int_distribution<uint32_t>(0, n - 1)(random_); }

  void turn() {
    Actions out;
    b_.s.schedule(b_.now, &out);
    ASSERT_EQ(b_.s.check(), "");
    for (const Action& a : out) {
      switch (a.kind) {
        case Action::kGrant:
          ASSERT_FALSE(busy_.count(a.worker)) << "a worker was given out twice";
          busy_.insert(a.worker);
          held_[a.lease] = a;
          waiting_.erase({a.client, a.shape});
          break;
        case Action::kStartWorkers: starting_ += a.count; break;
        case Action::kStopWorker:
          ASSERT_FALSE(busy_.count(a.worker)) << "a worker in use was stopped";
          b_.s.worker_gone(a.worker, b_.now);
          break;
        case Action::kReclaim:
          ASSERT_TRUE(held_.count(a.lease));
          if (pick(2)) reclaimed_.push_back(a.lease);
          break;
        default: break;
      }
    }
    for (uint32_t lease : std::exchange(reclaimed_, {}))
      if (held_.count(lease)) end(lease);
    ASSERT_LE(busy_.size() + starting_, 40u);
  }
  void end(uint32_t lease) {
    Action g = held_[lease];
    held_.erase(lease);
    busy_.erase(g.worker);
    blocked_.erase(g.worker);
    ASSERT_TRUE(b_.s.return_lease(g.client, g.worker, g.lease, b_.now).ok());
  }
  void finish_some_start() {
    if (!starting_) return;
    --starting_;
    if (pick(10) == 0) b_.s.worker_start_failed(kPool, b_.now);
    else b_.s.worker_ready(b_.next_worker++, kPool, b_.now);
  }
  void mutate() {
    uint32_t what = pick(100);
    if (what < 30) {
      ASSERT_TRUE(b_.s.want(1 + pick(kClients), pick(5), pick(5), TaskId{}).ok());
    } else if (what < 55) {
      finish_some_start();
    } else if (what < 80) {
      if (!held_.empty()) end(std::next(held_.begin(), pick(static_cast<uint32_t>(held_.size())))->first);
    } else if (what < 95) {
      if (held_.empty()) return;
      uint32_t w = std::next(held_.begin(), pick(static_cast<uint32_t>(held_.size())))->second.worker;
      bool now = !blocked_[w];
      blocked_[w] = now;
      b_.s.worker_blocked(w, now);
    } else {
      if (held_.empty()) return;
      auto it = std::next(held_.begin(), pick(static_cast<uint32_t>(held_.size())));
      uint32_t w = it->second.worker;
      held_.erase(it);
      busy_.erase(w);
      blocked_.erase(w);
      b_.s.worker_gone(w, b_.now);
    }
  }

  std::mt19937 random_;
  TaskBench b_;
  uint32_t starting_ = 0;
  std::set<uint32_t> busy_;
  std::map<uint32_t, Action> held_;
  std::map<uint32_t, bool> blocked_;
  std::vector<uint32_t> reclaimed_;
  std::set<std::pair<uint32_t, uint32_t>> waiting_;
};

TEST(SchedulerProperty, NothingTwiceNobodyStarves) {
  for (uint32_t seed = 1; seed <= 60 && !::testing::Test::HasFailure(); ++seed) {
    SCOPED_TRACE(seed);
    RandomRun(seed).run();
  }
}

}  // namespace
}  // namespace ray::sched
