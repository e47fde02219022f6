// The paper's figures about scheduling, SIMULATED: the real scheduler, nodes as models (world.h, and a smaller one here).
// Each prints its numbers. Decisions are also timed, on whatever machine this is; no time is asserted.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <deque>
#include <map>
#include <queue>

#include "tests/sched_global/world.h"

namespace ray::global {
namespace {

using sim::kMs;

double balance(const World& world, uint32_t nodes) {
  uint64_t most = 0, all = 0;
  for (const auto& [n, ran] : world.ran()) most = std::max<uint64_t>(most, ran), all += ran;
  return static_cast<double>(most) * nodes / static_cast<double>(all);
}

double one_driver(uint32_t nodes, uint32_t tasks, int64_t run_ns) {
  WorldOptions o;
  o.nodes = nodes;
  o.queue_high = 40;  // 200 ms of work: two heartbeats
  o.scheduler.view.full_ns = 300e6;
  o.scheduler.view.room_ns = 150e6;
  World world(o);
  Demand d;
  d.function = 1;
  d.resources = make({{"CPU", 1}});
  const int64_t began = world.now();
  for (uint32_t i = 0; i < tasks; ++i) world.submit(0, d, run_ns);
  while (world.unfinished() > 0 && world.now() < began + 600 * sim::kSecond) world.run(100 * kMs);
  EXPECT_EQ(world.verdict(), "");
  const double at_best = static_cast<double>(tasks) * static_cast<double>(run_ns) / (nodes * o.cpus);
  std::printf("simulated: %u tasks of %.0f ms from one driver, %u nodes of %.0f CPUs: max/mean %.3f, %.2f of the shortest "
              "time, %.2f moves per task\n", tasks, static_cast<double>(run_ns) / 1e6, nodes, o.cpus, balance(world, nodes),
              static_cast<double>(world.last_end() - began) / at_best, static_cast<double>(world.moves()) / tasks);
  return balance(world, nodes);
}

TEST(GlobalFigures, SimulatedHundredThousandTasksOfOneDriverOver21Nodes) { EXPECT_LE(one_driver(21, 100'000, 5 * kMs), 1.1); }

TEST(GlobalFigures, SimulatedTenThousandTasksOf5MsOver8Nodes) { EXPECT_LE(one_driver(8, 10'000, 5 * kMs), 1.25); }

TEST(GlobalFigures, SimulatedHundredTasksBetweenTwoHeartbeats) {
  for (uint32_t instances : {1u, 2u, 4u}) {
    std::vector<std::unique_ptr<GlobalScheduler>> cores;
    Actions out;
    for (uint32_t i = 0; i < instances; ++i) {
      Options o;
      o.view.instance = o.view.seed = i + 1;
      cores.push_back(std::make_unique<GlobalScheduler>(o));
      for (NodeIndex n = 0; n < 10; ++n) cores[i]->heartbeat(beat_of(n, 4), 0, &out);
    }
    std::map<NodeIndex, int> count;
    for (uint32_t i = 0; i < 100; ++i) {
      out.clear();
      cores[i % instances]->demand(demand_of(i + 1), 0, &out);
      ++count[out[0].node];
    }
    int most = 0;
    for (const auto& [n, c] : count) most = std::max(most, c);
    std::printf("simulated: 100 tasks between two heartbeats, 10 idle nodes, %u instances: max/mean %.2f\n", instances,
                most / 10.0);
    if (instances == 1) {
      EXPECT_LE(most / 10.0, 1.3);
    }
  }
}

// Two nodes of four processors that fetch a task's input before it runs.
class TwoNodes {
 public:
  TwoNodes(bool locality, int64_t bytes) : random_(7), bytes_(bytes) {
    Options o;
    o.locality = locality;
    core_ = std::make_unique<GlobalScheduler>(o);
  }
  double run(uint32_t tasks) {  // ns until the last has ended
    for (uint32_t i = 0; i < tasks; ++i) owner_[id_of(i + 1)] = random_.below(2);
    for (int64_t now = 0; ended_ < tasks; now += kStep) {
      for (NodeIndex n = 0; n < 2; ++n) step(n, now);
      if (now % (100 * kMs) == 0)
        for (NodeIndex n = 0; n < 2; ++n) beat(n, now);
      core_->tick(now, &out_);
      for (; asked_ < tasks && static_cast<int64_t>(asked_) * kPause <= now; ++asked_) {
        Demand d = demand_of(asked_ + 1);
        d.function = 1;
        d.inputs = {{id_of(1'000'000 + asked_), bytes_, {owner_.at(d.id)}}};
        core_->demand(d, now, &out_);
      }
      for (const Action& a : out_)
        if (a.kind == Action::kPlace) nodes_[a.node].queue.push_back(a.id), nodes_[a.node].seen = a.seq;
      out_.clear();
      if (now > 100 * sim::kSecond) return 1e18;
    }
    return static_cast<double>(last_);
  }

 private:
  static constexpr int64_t kRun = 4 * kMs, kPause = 550'000, kStep = 50'000;
  struct Model {
    std::deque<TaskId> queue;
    std::multimap<int64_t, int64_t> running;  // end -> fetched bytes
    uint64_t seen = 0, version = 0, ran = 0, moved = 0;
  };
  void step(NodeIndex i, int64_t now) {
    Model& n = nodes_[i];
    while (!n.running.empty() && n.running.begin()->first <= now) {
      last_ = std::max(last_, n.running.begin()->first);
      n.running.erase(n.running.begin());
      ++n.ran;
      ++ended_;
    }
    while (!n.queue.empty() && n.running.size() < 4) {
      const int64_t fetch = owner_.at(n.queue.front()) == i ? 0 : bytes_;  // at 1 GB/s
      n.moved += static_cast<uint64_t>(fetch);
      n.running.emplace(now + fetch + kRun, fetch);
      n.queue.pop_front();
    }
  }
  void beat(NodeIndex i, int64_t now) {
    Model& n = nodes_[i];
    Heartbeat h = beat_of(i, 4);
    h.version = ++n.version;
    h.available = make({{"CPU", 4.0 - static_cast<double>(n.running.size())}});
    h.queued = make({{"CPU", static_cast<double>(n.queue.size())}});
    h.waiting = static_cast<uint32_t>(n.queue.size());
    if (n.ran > 0) h.ran = {{1, static_cast<uint32_t>(n.ran), static_cast<int64_t>(n.ran) * kRun}};
    h.moved_bytes = n.moved;
    h.moved_ns = static_cast<int64_t>(n.moved);
    h.seen = {{1, n.seen}};
    n.ran = n.moved = 0;
    core_->heartbeat(h, now, &out_);
  }
  sim::Random random_;
  const int64_t bytes_;
  std::unique_ptr<GlobalScheduler> core_;
  Model nodes_[2];
  std::map<TaskId, NodeIndex> owner_;
  uint32_t asked_ = 0, ended_ = 0;
  int64_t last_ = 0;
  Actions out_;
};

TEST(GlobalFigures, SimulatedLocality) {
  double least = 1e18, most = 0, unaware = 0;
  for (int64_t bytes : {100'000, 1'000'000, 10'000'000, 100'000'000}) {
    const double aware = TwoNodes(true, bytes).run(1000);
    unaware = TwoNodes(false, bytes).run(1000);
    std::printf("simulated: 1000 tasks of 4 ms, 2 nodes, inputs of %.1f MB: %.0f ms aware of where they are, %.0f ms unaware\n",
                static_cast<double>(bytes) / 1e6, aware / 1e6, unaware / 1e6);
    least = std::min(least, aware);
    most = std::max(most, aware);
  }
  EXPECT_LE(most, 1.2 * least);
  EXPECT_GE(unaware, 10 * most);
}

TEST(GlobalFigures, TimeOfADecision) {
  for (uint32_t nodes : {10u, 100u, 1000u}) {
    GlobalScheduler core{Options()};
    Actions out;
    std::vector<uint64_t> seen(nodes, 0);
    uint64_t version = 0;
    auto beat_all = [&] {
      ++version;
      for (NodeIndex n = 0; n < nodes; ++n) {
        Heartbeat h = beat_of(n, n % 8 ? 16 : 64);
        h.version = version;
        h.running = n % 5;
        h.seen = {{1, seen[n]}};
        core.heartbeat(h, 0, &out);
      }
    };
    beat_all();
    std::vector<Demand> demands;
    for (uint32_t i = 0; i < 20'000; ++i) {
      Demand d = demand_of(i + 1);
      d.function = i % 16;
      d.from = i % nodes;
      d.inputs = {{id_of(1'000'000 + i), 1 << 16, {i * 7 % nodes}},
                  {id_of(2'000'000 + i), 1 << 20, {i * 13 % nodes, i * 5 % nodes}}};
      demands.push_back(d);
    }
    std::chrono::nanoseconds took{0}, beats{0};
    for (size_t i = 0; i < demands.size(); i += 500) {
      auto began = std::chrono::steady_clock::now();
      out.clear();
      for (size_t k = i; k < i + 500; ++k) core.demand(demands[k], 0, &out);
      took += std::chrono::steady_clock::now() - began;
      for (const Action& a : out)
        if (a.kind == Action::kPlace) seen[a.node] = std::max(seen[a.node], a.seq);
      began = std::chrono::steady_clock::now();
      beat_all();
      beats += std::chrono::steady_clock::now() - began;
    }
    std::printf("measured: %u nodes: %lld ns per decision, %lld ns per heartbeat\n", nodes,
                static_cast<long long>(took.count()) / 20'000, static_cast<long long>(beats.count()) / (40 * nodes));
    EXPECT_EQ(core.check(), "");
  }
}

}  // namespace
}  // namespace ray::global
