// The computation graph, rebuilt from the shards' SQLite files alone (OSDI'18 3.2): data edges (arguments),
// control edges (parent to child), stateful edges (successive methods of an actor). Used by tools and by
// the test that kills everything. One thread; no process of the session needs to live.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "libray/base/ids.h"
#include "libray/base/status.h"

namespace ray::gcs {

struct GraphTask {
  TaskId id, parent;
  ActorId actor;  // kinds 1 (creation) and 2 (call)
  std::string name;
  uint32_t kind = 0;
  uint32_t n_returns = 0;
  bool submitted = false, finished = false;
  int32_t code = 0;
  uint32_t incarnation = 0, execution = 0;  // of the last execution
  int64_t actor_pos = -1;
  int64_t submit_ns = 0, start_ns = 0, end_ns = 0;
};
struct DataEdge {  // producer_of(object) -> consumer
  TaskId consumer;
  uint32_t argument = 0;
  ObjectId object;
};
struct Graph {
  std::vector<GraphTask> tasks;   // by id
  std::vector<TaskId> roots;      // of drivers, workers and actors: parents that no task is
  std::vector<DataEdge> data;     // by consumer, argument
  // Tasks of an actor in the order of their last executions: its creation, then its methods.
  std::map<ActorId, std::vector<TaskId>> stateful;
  // Positions that were executed, per actor and incarnation, in order.
  std::map<std::pair<ActorId, uint32_t>, std::vector<uint64_t>> positions;
  std::vector<JobId> jobs;
  std::vector<TaskId> twice;      // found in more than one shard

  const GraphTask* find(const TaskId& id) const;
};

// From the shards' files in a session directory. finish: first materialise what dead shards left in their
// journals (they must not run then); else what is materialised so far.
Result<Graph> load_graph(const std::string& dir, bool finish);

struct GraphReport {
  uint64_t tasks = 0, finished = 0, data_edges = 0, control_edges = 0, stateful_edges = 0;
  uint64_t gaps = 0;  // positions of which only a later incarnation can tell: their process was killed
  std::vector<std::string> violations;  // at most 100
  bool ok() const { return violations.empty(); }
};
// Invariants: acyclic; one producer per object, and it is known; control edges form a forest whose roots are
// drivers; the executed positions of an actor's incarnation are dense and unique.
GraphReport check_graph(const Graph& graph);

// For people: Graphviz text (solid: data, dashed: control, bold: stateful), and JSON
// {"tasks": [...], "data": [[producer, consumer, argument]...], "control": [...], "stateful": [...]}.
std::string graph_dot(const Graph& graph);
std::string graph_json(const Graph& graph);

}  // namespace ray::gcs
