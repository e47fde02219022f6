// See graph.h.
#include "gcs/graph.h"

#include <dirent.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <set>

#include "gcs/materialise.h"
#include "gcs/text.h"
#include "libray/wire/cursor.h"
#include "gcs/schema.h"

namespace ray::gcs {
namespace {

constexpr size_t kMaxViolations = 100;

Id id_of(std::string_view bytes) {
  Id id;
  if (bytes.size() == kIdSize) std::memcpy(id.b, bytes.data(), kIdSize);
  return id;
}

Status load_tasks(sqlite3* db, Graph* g) {
  Statement s;
  RAY_TRY(s.prepare(db, "SELECT id,parent,actor,name,method,kind,n_returns,submit_ns,start_ns,end_ns,code,"
                        "incarnation,execution,actor_pos FROM task_rows"));
  while (s.row()) {
    GraphTask t;
    t.id = id_of(s.blob(0));
    t.parent = id_of(s.blob(1));
    t.actor = id_of(s.blob(2));
    t.name = s.blob(3);
    if (!s.blob(4).empty()) t.name = (t.name.empty() ? "" : t.name + ".") + std::string(s.blob(4));
    t.kind = static_cast<uint32_t>(s.integer(5));
    t.n_returns = static_cast<uint32_t>(s.integer(6));
    t.submitted = !s.is_null(7);
    t.submit_ns = s.integer(7);
    t.start_ns = s.integer(8);
    t.finished = !s.is_null(9);
    t.end_ns = s.integer(9);
    t.code = static_cast<int32_t>(s.integer(10));
    t.incarnation = static_cast<uint32_t>(s.integer(11));
    t.execution = static_cast<uint32_t>(s.integer(12));
    if (!s.is_null(13)) t.actor_pos = s.integer(13);
    g->tasks.push_back(std::move(t));
  }
  return {};
}

Status load_edges(sqlite3* db, Graph* g) {
  Statement s;
  RAY_TRY(s.prepare(db, "SELECT task,idx,object FROM arg_rows"));
  while (s.row())
    g->data.push_back({id_of(s.blob(0)), static_cast<uint32_t>(s.integer(1)), id_of(s.blob(2))});
  // Every execution counts for the positions, also those that a later one replaced.
  RAY_TRY(s.prepare(db, "SELECT t.actor,e.incarnation,e.actor_pos FROM execution_rows e JOIN task_rows t ON "
                        "t.id=e.task WHERE e.actor_pos IS NOT NULL AND t.actor IS NOT NULL AND "
                        "(t.incarnation,t.execution)<>(e.incarnation,e.execution) UNION ALL "
                        "SELECT actor,incarnation,actor_pos FROM task_rows WHERE actor IS NOT NULL AND "
                        "actor_pos IS NOT NULL"));
  while (s.row())
    g->positions[{id_of(s.blob(0)), static_cast<uint32_t>(s.integer(1))}].push_back(
        static_cast<uint64_t>(s.integer(2)));
  RAY_TRY(s.prepare(db, "SELECT key FROM state WHERE tbl=8"));
  while (s.row()) g->jobs.push_back(id_of(s.blob(0)));
  return {};
}

std::vector<std::string> databases(const std::string& dir) {
  std::vector<std::string> all;
  DIR* d = opendir(dir.c_str());
  if (!d) return all;
  while (dirent* e = readdir(d)) {
    unsigned shard;
    std::string name = e->d_name;
    if (std::sscanf(e->d_name, "gcs-%u.db", &shard) == 1 && name == "gcs-" + std::to_string(shard) + ".db")
      all.push_back(dir + "/" + name);
  }
  closedir(d);
  std::sort(all.begin(), all.end());
  return all;
}

// What needs all shards: order, duplicates, roots, chains of actors.
void arrange(Graph* g) {
  std::sort(g->tasks.begin(), g->tasks.end(),
            [](const GraphTask& x, const GraphTask& y) { return x.id < y.id; });
  for (size_t k = 1; k < g->tasks.size(); ++k)
    if (g->tasks[k].id == g->tasks[k - 1].id) g->twice.push_back(g->tasks[k].id);
  std::sort(g->data.begin(), g->data.end(), [](const DataEdge& x, const DataEdge& y) {
    return x.consumer != y.consumer ? x.consumer < y.consumer : x.argument < y.argument;
  });
  std::sort(g->jobs.begin(), g->jobs.end());
  g->jobs.erase(std::unique(g->jobs.begin(), g->jobs.end()), g->jobs.end());
  std::set<TaskId> roots;
  std::map<ActorId, std::vector<const GraphTask*>> chains;
  for (const GraphTask& t : g->tasks) {
    if (t.submitted && !g->find(t.parent)) roots.insert(t.parent);
    if (!t.actor.is_nil() && t.finished && t.actor_pos >= 0) chains[t.actor].push_back(&t);
  }
  g->roots.assign(roots.begin(), roots.end());
  for (auto& [actor, chain] : chains) {
    std::sort(chain.begin(), chain.end(), [](const GraphTask* x, const GraphTask* y) {
      return x->incarnation != y->incarnation ? x->incarnation < y->incarnation
                                              : x->actor_pos < y->actor_pos;
    });
    auto& out = g->stateful[actor];
    // The creation comes first, wherever its last execution stands.
    TaskId creation = producer_of(actor);
    if (g->find(creation)) out.push_back(creation);
    for (const GraphTask* t : chain)
      if (t->id != creation) out.push_back(t->id);
  }
  for (auto& [key, list] : g->positions) std::sort(list.begin(), list.end());
}

}  // namespace

const GraphTask* Graph::find(const TaskId& id) const {
  auto it = std::lower_bound(tasks.begin(), tasks.end(), id,
                             [](const GraphTask& t, const TaskId& x) { return t.id < x; });
  return it != tasks.end() && it->id == id ? &*it : nullptr;
}

Result<Graph> load_graph(const std::string& dir, bool finish) {
  if (finish) RAY_TRY(materialise_all(dir));
  Graph g;
  std::vector<std::string> all = databases(dir);
  if (all.empty()) return error(RAY_NOT_FOUND, "no control store's files in %s", dir.c_str());
  for (const std::string& path : all) {
    auto db = open_database(path, false, 2048);
    if (!db.ok()) return db.status();
    // One transaction: a graph of one moment, also while the shard lives.
    RAY_TRY(db->exec("BEGIN"));
    RAY_TRY(load_tasks(db->get(), &g));
    RAY_TRY(load_edges(db->get(), &g));
  }
  arrange(&g);
  return g;
}

// ---- checking --------------------------------------------------------------------------------------------

namespace {

class Checker {
 public:
  explicit Checker(const Graph& g) : g_(g) {}
  GraphReport run() {
    r_.tasks = g_.tasks.size();
    for (const TaskId& id : g_.twice) violation(id, "is in two shards: its objects have two producers");
    check_control();
    check_data();
    check_stateful();
    check_acyclic();
    return std::move(r_);
  }

 private:
  void violation(const Id& id, const std::string& what) {
    if (r_.violations.size() < kMaxViolations) r_.violations.push_back(id.hex() + " " + what);
  }
  // Of a driver, of a worker process, or of an incarnation of an actor.
  bool is_root(const TaskId& id) const {
    if (g_.jobs.empty()) return true;
    for (const JobId& job : g_.jobs)
      if (is_root_of(job, id)) return true;
    for (auto& [actor, chain] : g_.stateful)
      if (is_root_of(actor, id)) return true;
    return false;
  }
  size_t index(const TaskId& id) const {
    const GraphTask* t = g_.find(id);
    return t ? static_cast<size_t>(t - g_.tasks.data()) : SIZE_MAX;
  }
  void edge(size_t from, size_t to) {
    if (from == SIZE_MAX || to == SIZE_MAX) return;
    edges_.emplace_back(static_cast<uint32_t>(from), static_cast<uint32_t>(to));
  }

  void check_control() {
    for (size_t k = 0; k < g_.tasks.size(); ++k) {
      const GraphTask& t = g_.tasks[k];
      if (t.finished) ++r_.finished;
      if (!t.submitted) {
        violation(t.id, "was executed, but no submission is recorded");
        continue;
      }
      ++r_.control_edges;
      if (!is_child_of(t.parent, t.id)) violation(t.id, "is no child of its parent by its id");
      edge(index(t.parent), k);
    }
    for (const TaskId& root : g_.roots)
      if (!is_root(root)) violation(root, "is a parent, but neither a task nor a root");
  }

  void check_data() {
    const std::set<TaskId> roots(g_.roots.begin(), g_.roots.end());
    for (const DataEdge& e : g_.data) {
      ++r_.data_edges;
      TaskId producer = producer_of(e.object);
      const GraphTask* p = g_.find(producer);
      uint32_t n = e.object.object_index();
      if (!p) {
        // Roots have no record; only what was put there can be theirs.
        if (!roots.count(producer) && !is_root(producer))
          violation(e.object, "is an argument, but its producer is not known");
      } else if (n == 0) {
        violation(e.object, "is an argument, but names a task");
      } else if (n < kPutIndexBit && p->n_returns > 0 && n > p->n_returns) {
        violation(e.object, "is an argument, but its producer has fewer results");
      }
      edge(index(producer), index(e.consumer));
    }
  }

  void check_stateful() {
    std::map<ActorId, uint32_t> last;
    for (auto& [key, list] : g_.positions) last[key.first] = std::max(last[key.first], key.second);
    for (auto& [key, list] : g_.positions)
      for (size_t k = 1; k < list.size(); ++k) {
        if (list[k] == list[k - 1])
          violation(key.first, "executed two methods at position " + std::to_string(list[k]));
        else if (list[k] != list[k - 1] + 1 && key.second < last[key.first])
          r_.gaps += list[k] - list[k - 1] - 1;
        else if (list[k] != list[k - 1] + 1)
          violation(key.first, "has no method at position " + std::to_string(list[k - 1] + 1));
      }
    for (auto& [actor, chain] : g_.stateful)
      for (size_t k = 1; k < chain.size(); ++k) {
        ++r_.stateful_edges;
        edge(index(chain[k - 1]), index(chain[k]));
      }
  }

  // Kahn: what can never be reached lies on a cycle or behind one.
  void check_acyclic() {
    std::vector<uint32_t> incoming(g_.tasks.size()), first(g_.tasks.size() + 1);
    for (auto& [from, to] : edges_) {
      ++incoming[to];
      ++first[from + 1];
    }
    for (size_t k = 1; k < first.size(); ++k) first[k] += first[k - 1];
    std::vector<uint32_t> targets(edges_.size()), fill(first.begin(), first.end() - 1), ready;
    for (auto& [from, to] : edges_) targets[fill[from]++] = to;
    for (uint32_t k = 0; k < incoming.size(); ++k)
      if (incoming[k] == 0) ready.push_back(k);
    size_t reached = 0;
    while (!ready.empty()) {
      uint32_t at = ready.back();
      ready.pop_back();
      ++reached;
      for (uint32_t k = first[at]; k < first[at + 1]; ++k)
        if (--incoming[targets[k]] == 0) ready.push_back(targets[k]);
    }
    if (reached == g_.tasks.size()) return;
    for (uint32_t k = 0; k < incoming.size(); ++k)
      if (incoming[k] > 0) {
        violation(g_.tasks[k].id, "lies on a cycle, or behind one");
        return;
      }
  }

  const Graph& g_;
  GraphReport r_;
  std::vector<std::pair<uint32_t, uint32_t>> edges_;
};

std::string short_id(const Id& id) { return id.hex().substr(24); }

}  // namespace

GraphReport check_graph(const Graph& graph) { return Checker(graph).run(); }

// ---- showing ----------------------------------------------------------------------------------------------

std::string graph_dot(const Graph& g) {
  std::string out = "digraph tasks {\n  node [shape=box];\n";
  auto node = [](const Id& id) { return "\"" + id.hex() + "\""; };
  for (const TaskId& root : g.roots)
    out += "  " + node(root) + " [shape=oval, label=\"driver " + short_id(root) + "\"];\n";
  for (const GraphTask& t : g.tasks) {
    std::string label;
    quote(&label, (t.name.empty() ? "task" : t.name) + " " + short_id(t.id), false);
    out += "  " + node(t.id) + " [label=" + label + (t.finished && t.code != 0 ? ", color=red" : "") + "];\n";
    if (t.submitted) out += "  " + node(t.parent) + " -> " + node(t.id) + " [style=dashed];\n";
  }
  for (const DataEdge& e : g.data)
    out += "  " + node(producer_of(e.object)) + " -> " + node(e.consumer) + ";\n";
  for (auto& [actor, chain] : g.stateful)
    for (size_t k = 1; k < chain.size(); ++k)
      out += "  " + node(chain[k - 1]) + " -> " + node(chain[k]) + " [style=bold];\n";
  return out + "}\n";
}

std::string graph_json(const Graph& g) {
  std::string out = "{\"tasks\": [", separator;
  auto id = [](const Id& x) { return "\"" + x.hex() + "\""; };
  for (const GraphTask& t : g.tasks) {
    out += separator + "\n{\"task\": " + id(t.id) + ", \"parent\": " + id(t.parent) + ", \"name\": ";
    quote(&out, t.name, false);
    if (!t.actor.is_nil()) out += ", \"actor\": " + id(t.actor);
    if (t.actor_pos >= 0) out += ", \"actor_pos\": " + std::to_string(t.actor_pos);
    out += strprintf(", \"kind\": %u, \"finished\": %s, \"code\": %d, \"attempt\": %u}", t.kind,
                     t.finished ? "true" : "false", t.code, t.execution);
    separator = ",";
  }
  out += "],\n\"data\": [";
  separator.clear();
  for (const DataEdge& e : g.data) {
    out += separator + "\n[" + id(producer_of(e.object)) + ", " + id(e.consumer) + ", " +
           std::to_string(e.argument) + ", " + id(e.object) + "]";
    separator = ",";
  }
  out += "],\n\"control\": [";
  separator.clear();
  for (const GraphTask& t : g.tasks) {
    if (!t.submitted) continue;
    out += separator + "\n[" + id(t.parent) + ", " + id(t.id) + "]";
    separator = ",";
  }
  out += "],\n\"stateful\": [";
  separator.clear();
  for (auto& [actor, chain] : g.stateful)
    for (size_t k = 1; k < chain.size(); ++k) {
      out += separator + "\n[" + id(chain[k - 1]) + ", " + id(chain[k]) + ", " + id(actor) + "]";
      separator = ",";
    }
  return out + "]}\n";
}

}  // namespace ray::gcs
