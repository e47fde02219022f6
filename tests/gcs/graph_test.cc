// The computation graph from the shards' files alone: a random program's edges against an oracle, after
// everything was killed; and broken graphs, each of which must be noticed.
#include "gcs/graph.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>

#include "tests/gcs/shard_process.h"

namespace ray::gcs {
namespace {

using namespace test;

struct Oracle {
  std::set<std::pair<std::string, std::string>> data, control, stateful;
  uint64_t tasks = 0;
};

// Writes the lineage of a random program: nested tasks, data edges, actors with several incarnations.
class Program {
 public:
  Program(uint32_t shards, uint32_t seed) : random_(seed), batches_(shards), counts_(shards) {
    job_ = node_of(42);
    root_ = root_task(job_);
  }
  void run(uint32_t n) {
    grow(root_, n, 0);
    for (uint32_t a = 0; a < 3; ++a) actor(a + 1000000);
  }
  void finish(Client* c) {
    std::string args;
    wire::Writer(&args).array(2).id(job_).map(1).str("state").str("ALIVE");
    for (uint32_t k = 0; k < c->shards(); ++k) {
      call(c, k, kJobPut, args);
      if (counts_[k]) append(c, k, batches_[k], counts_[k]);
    }
  }
  Oracle oracle;
  TaskId root_;
  JobId job_;

 private:
  uint32_t shard_of(const TaskId& t) const { return gcs_slot(t) % static_cast<uint32_t>(batches_.size()); }
  void note(const TaskId& task, const TaskId& parent, const std::vector<ObjectId>& refs) {
    ++oracle.tasks;
    oracle.control.insert({parent.hex(), task.hex()});
    for (const ObjectId& r : refs) oracle.data.insert({producer_of(r).hex(), task.hex()});
  }
  std::vector<ObjectId> some_refs(const TaskId& parent) {
    std::vector<ObjectId> refs;
    for (uint32_t k = random_() % 3; k > 0 && !objects_.empty(); --k) refs.push_back(objects_[random_() % objects_.size()]);
    if (random_() % 10 == 0) refs.push_back(put_object(parent, random_() % 5));
    return refs;
  }
  void grow(const TaskId& parent, uint32_t n, int depth) {
    Origin origin = origin_of(parent);
    for (uint32_t k = 0; k < n; ++k) {
      TaskId t = child_task(origin, k * (1 + random_() % 1 + 97));
      auto refs = some_refs(parent);
      uint32_t returns = 1 + random_() % 3, s = shard_of(t);
      add_task(&batches_[s], t, parent, 1000 + ++clock_, refs, returns);
      counts_[s] += 2;
      note(t, parent, refs);
      for (uint32_t r = 0; r < returns; ++r) objects_.push_back(return_object(t, r));
      if (depth < 3 && random_() % 5 == 0) grow(t, random_() % 6, depth + 1);
    }
  }
  void record(const TaskId& t, const TaskId& parent, const ActorId& actor, uint32_t kind, uint32_t incarnation,
              uint64_t pos, uint32_t execution, bool submit) {
    uint32_t s = shard_of(t);
    if (submit) {
      lineage::SubmitIn in;
      in.fixed.task = t;
      in.fixed.parent = parent;
      in.fixed.actor = actor;
      in.fixed.kind = kind;
      in.fixed.n_returns = 1;
      in.fixed.submit_ns = ++clock_;
      in.name = "Counter";
      in.method = kind == 2 ? "add" : "";
      lineage::append(&batches_[s], in);
      ++counts_[s];
      note(t, parent, {});
    }
    lineage::ExecIn e;
    e.fixed.task = t;
    e.fixed.actor = actor;
    e.fixed.kind = kind;
    e.fixed.incarnation = incarnation;
    e.fixed.actor_pos = pos;
    e.fixed.execution = execution;
    e.fixed.end_ns = ++clock_;
    lineage::append(&batches_[s], e);
    ++counts_[s];
  }
  // Two incarnations; the last method of the first one runs again in the second.
  void actor(uint32_t index) {
    TaskId creation = child_task(origin_of(root_), index);
    ActorId a = actor_of(creation);
    std::vector<TaskId> order = {creation};
    record(creation, root_, a, 1, 0, 0, 0, true);
    TaskId m;
    uint64_t pos = 0;
    for (uint32_t k = 1; k <= 20; ++k) {
      m = child_task(origin_of(root_), index + k * 300);
      record(m, root_, a, 2, 0, pos++, 0, true);
      order.push_back(m);
    }
    record(creation, root_, a, 1, 1, 0, 1, false);
    record(m, root_, a, 2, 1, 0, 1, false);
    for (uint32_t k = 0; k < 10; ++k) {
      m = child_task(origin_of(root_), index + (50 + k) * 300);
      record(m, root_, a, 2, 1, 1 + k, 0, true);
      order.push_back(m);
    }
    for (size_t k = 1; k < order.size(); ++k) oracle.stateful.insert({order[k - 1].hex(), order[k].hex()});
  }

  std::mt19937 random_;
  std::vector<std::string> batches_;
  std::vector<uint32_t> counts_;
  std::vector<ObjectId> objects_;
  int64_t clock_ = 0;
};

void expect_equal(const Graph& g, const Oracle& o) {
  std::set<std::pair<std::string, std::string>> data, control, stateful;
  for (const DataEdge& e : g.data) data.insert({producer_of(e.object).hex(), e.consumer.hex()});
  for (const GraphTask& t : g.tasks) control.insert({t.parent.hex(), t.id.hex()});
  for (auto& [actor, chain] : g.stateful)
    for (size_t k = 1; k < chain.size(); ++k) stateful.insert({chain[k - 1].hex(), chain[k].hex()});
  EXPECT_EQ(g.tasks.size(), o.tasks);
  EXPECT_TRUE(data == o.data);
  EXPECT_TRUE(control == o.control);
  EXPECT_TRUE(stateful == o.stateful);
}

TEST(Graph, IsRebuiltFromTheFilesAfterEverythingWasKilled) {
  for (uint32_t seed = 1; seed <= 3; ++seed) {
    TempDir dir;
    Program p(2, seed);
    {
      ShardProcess a(dir.path(), 0), b(dir.path(), 1);
      ASSERT_TRUE(a.start());
      ASSERT_TRUE(b.start());
      auto c = connect({a.url(), b.url()}, node_of(1));
      p.run(800);
      p.finish(c.get());
      a.kill9();
      b.kill9();
    }
    auto g = load_graph(dir.path(), true);
    ASSERT_TRUE(g.ok()) << g.status().message();
    expect_equal(*g, p.oracle);
    GraphReport r = check_graph(*g);
    EXPECT_TRUE(r.ok()) << r.violations[0];
    EXPECT_EQ(r.tasks, p.oracle.tasks);
    EXPECT_EQ(r.stateful_edges, p.oracle.stateful.size());
    EXPECT_EQ(r.gaps, 0u);
    ASSERT_EQ(g->roots.size(), 1u);
    EXPECT_EQ(g->roots[0], p.root_);
    EXPECT_NE(graph_dot(*g).find("digraph"), std::string::npos);
    EXPECT_NE(graph_json(*g).find(p.root_.hex()), std::string::npos);
    auto again = load_graph(dir.path(), false);
    ASSERT_TRUE(again.ok());
    expect_equal(*again, p.oracle);
  }
}

// A small good graph to break.
Graph good() {
  Graph g;
  JobId job = node_of(7);
  TaskId root = root_task(job);
  Origin o = origin_of(root);
  g.jobs = {job};
  g.roots = {root};
  for (uint32_t k = 0; k < 4; ++k) {
    GraphTask t;
    t.id = child_task(o, k);
    t.parent = root;
    t.n_returns = 1;
    t.submitted = t.finished = true;
    g.tasks.push_back(t);
  }
  std::sort(g.tasks.begin(), g.tasks.end(), [](auto& x, auto& y) { return x.id < y.id; });
  g.data.push_back({child_task(o, 1), 0, return_object(child_task(o, 0), 0)});
  g.data.push_back({child_task(o, 2), 0, return_object(child_task(o, 1), 0)});
  ActorId a = actor_of(child_task(o, 3));
  g.positions[{a, 0}] = {0, 1, 2};
  g.positions[{a, 1}] = {0, 1};
  return g;
}

TEST(Graph, EveryBrokenInvariantIsNoticed) {
  TaskId root = root_task(node_of(7));
  Origin o = origin_of(root);
  ActorId a = actor_of(child_task(o, 3));
  EXPECT_TRUE(check_graph(good()).ok());
  Graph g = good();
  g.data.push_back({child_task(o, 0), 0, return_object(child_task(o, 2), 0)});
  EXPECT_NE(check_graph(g).violations.at(0).find("cycle"), std::string::npos);
  g = good();
  g.stateful[a] = {child_task(o, 2), child_task(o, 1)};
  EXPECT_NE(check_graph(g).violations.at(0).find("cycle"), std::string::npos);
  g = good();
  g.data.push_back({child_task(o, 3), 0, return_object(child_task(o, 99), 0)});
  EXPECT_NE(check_graph(g).violations.at(0).find("producer is not known"), std::string::npos);
  g = good();
  g.data.push_back({child_task(o, 3), 0, return_object(child_task(o, 0), 5)});
  EXPECT_NE(check_graph(g).violations.at(0).find("fewer results"), std::string::npos);
  g = good();
  g.twice.push_back(child_task(o, 1));
  EXPECT_FALSE(check_graph(g).ok());
  g = good();
  g.tasks[1].parent = node_of(9);
  g.roots.push_back(node_of(9));
  EXPECT_FALSE(check_graph(g).ok());
  g = good();
  g.tasks[1].submitted = false;
  EXPECT_FALSE(check_graph(g).ok());
  g = good();
  g.positions[{a, 1}] = {0, 2};
  EXPECT_NE(check_graph(g).violations.at(0).find("no method at position 1"), std::string::npos);
  g = good();
  g.positions[{a, 1}] = {0, 1, 1};
  EXPECT_NE(check_graph(g).violations.at(0).find("two methods"), std::string::npos);
  // In an incarnation that was killed, a method that left no record is no fault.
  g = good();
  g.positions[{a, 0}] = {0, 1, 4};
  EXPECT_TRUE(check_graph(g).ok());
  EXPECT_EQ(check_graph(g).gaps, 2u);
}

}  // namespace
}  // namespace ray::gcs
