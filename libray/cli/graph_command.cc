// graph: the computation graph as the shards' files have it: data, control and stateful edges.
// Needs no living process. Text shows the control tree with the inputs of each task; dot and json
// show all edges.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <map>
#include <set>

#include "gcs/graph.h"
#include "libray/cli/commands.h"
#include "libray/cli/session_files.h"

namespace ray::cli {
namespace {

using gcs::Graph;
using gcs::GraphTask;

// What the text form walks over. Positions are those in graph.tasks.
struct Tree {
  std::map<TaskId, std::vector<size_t>> children;              // by parent, in order of submission
  std::map<TaskId, std::vector<const gcs::DataEdge*>> inputs;  // by consumer
  std::map<TaskId, TaskId> previous;  // of an actor's method: the one before it
};

Tree plant(const Graph& g) {
  Tree t;
  for (size_t i = 0; i < g.tasks.size(); ++i)
    if (g.tasks[i].submitted) t.children[g.tasks[i].parent].push_back(i);
  for (const auto& e : g.data) t.inputs[e.consumer].push_back(&e);
  for (const auto& [actor, chain] : g.stateful)
    for (size_t k = 1; k < chain.size(); ++k) t.previous[chain[k]] = chain[k - 1];
  return t;
}

class TreePrinter {
 public:
  TreePrinter(const Graph& g, const Common& common) : g_(g), tree_(plant(g)), common_(common) {}

  // False = the limit was reached.
  bool below(const TaskId& parent, const std::string& indent, int depth = 0) {
    auto it = tree_.children.find(parent);
    if (it == tree_.children.end()) return true;
    if (depth == kMaxDepth) {
      std::printf("%s└ ... deeper: libray graph %s\n", indent.c_str(), text(parent).c_str());
      return true;
    }
    for (size_t k = 0; k < it->second.size(); ++k) {
      bool last = k + 1 == it->second.size();
      const GraphTask& t = g_.tasks[it->second[k]];
      if (!line(t, indent + (last ? "└ " : "├ "))) return false;
      if (!below(t.id, indent + (last ? "  " : "│ "), depth + 1)) return false;
    }
    return true;
  }
  bool line(const GraphTask& t, const std::string& head) {
    if (common_.limit > 0 && printed_ == common_.limit) return false;
    ++printed_;
    std::string s = head + (t.name.empty() ? "task" : printable(t.name)) + "  " + text(t.id);
    if (!t.finished)
      s += "  submitted";
    else if (t.code != 0)
      s += std::string("  ") + code_name(t.code);
    else
      s += "  " + human_duration(t.end_ns - t.start_ns);
    auto in = tree_.inputs.find(t.id);
    for (size_t k = 0; in != tree_.inputs.end() && k < in->second.size(); ++k)
      s += (k == 0 ? "  <- " : ", ") + text(in->second[k]->object);
    if (auto before = tree_.previous.find(t.id); before != tree_.previous.end())
      s += "  after " + text(before->second);
    std::printf("%s\n", s.c_str());
    return true;
  }

 private:
  static constexpr int kMaxDepth = 64;  // of lines for people
  std::string text(const Id& id) const { return common_.full ? id.hex() : short_id(id.hex()); }
  const Graph& g_;
  Tree tree_;
  const Common& common_;
  size_t printed_ = 0;
};

// The part that a task needs to be understood: itself, what it submitted, and who made their
// inputs.
Graph part_below(const Graph& g, const TaskId& top) {
  Tree tree = plant(g);
  std::set<TaskId> inside, keep;
  std::vector<TaskId> todo{top};
  while (!todo.empty()) {
    TaskId id = todo.back();
    todo.pop_back();
    if (!inside.insert(id).second) continue;
    keep.insert(id);
    if (auto it = tree.inputs.find(id); it != tree.inputs.end())
      for (const auto* e : it->second) keep.insert(producer_of(e->object));
    if (auto it = tree.children.find(id); it != tree.children.end())
      for (size_t i : it->second) todo.push_back(g.tasks[i].id);
  }
  Graph out;
  for (const auto& t : g.tasks)
    if (keep.count(t.id)) out.tasks.push_back(t);
  for (const auto& e : g.data)
    if (inside.count(e.consumer)) out.data.push_back(e);
  for (const auto& [actor, chain] : g.stateful)
    for (const TaskId& id : chain)
      if (keep.count(id)) out.stateful[actor].push_back(id);
  out.jobs = g.jobs;
  return out;
}

// One task by its id, the beginning of it or its short form.
Result<TaskId> find_task(const Graph& g, std::string text) {
  text = text.substr(0, text.find(':'));
  std::vector<TaskId> match;
  for (const auto& t : g.tasks) {
    std::string hex = t.id.hex();
    size_t dots = text.find("..");
    bool fits = dots == text.npos ? hex.rfind(text, 0) == 0
                                  : hex.rfind(text.substr(0, dots), 0) == 0 &&
                                        short_id(hex).substr(10) == text.substr(dots + 2);
    if (fits) match.push_back(t.id);
  }
  if (match.size() == 1) return match[0];
  if (match.empty()) return error(RAY_NOT_FOUND, "no task '%s'", text.c_str());
  return error(RAY_INVALID_ARGUMENT, "'%s' fits %zu tasks: give more digits", text.c_str(),
               match.size());
}

// Tasks that were submitted without a name of their own get their function's.
Status fill_names(const std::string& session, Graph* g) {
  bool complete = std::all_of(g->tasks.begin(), g->tasks.end(),
                              [](const GraphTask& t) { return !t.name.empty(); });
  if (complete) return Status();
  auto records = Records::open(session);
  if (!records.ok()) return records.status();
  return records->each(
      "SELECT id, task_name('',printf('%016x',fn))||COALESCE('.'||NULLIF(method,''),'') FROM "
      "task_rows "
      "WHERE COALESCE(name,'')=''",
      {}, [&](const std::vector<Cell>& row) {
        Id id;
        if (row[0].text.size() != kIdSize) return true;
        std::memcpy(id.b, row[0].text.data(), kIdSize);
        // find() is const; the tasks are ours.
        if (auto* t = const_cast<GraphTask*>(g->find(id)); t && t->name.empty())
          t->name = row[1].text;
        return true;
      });
}

void print_text(const Graph& g, const gcs::GraphReport& r, const TaskId* top,
                const Common& common) {
  std::printf("%s tasks, %s finished; edges: %s control, %s data, %s stateful\n",
              with_commas(r.tasks).c_str(), with_commas(r.finished).c_str(),
              with_commas(r.control_edges).c_str(), with_commas(r.data_edges).c_str(),
              with_commas(r.stateful_edges).c_str());
  if (r.gaps)
    std::printf("%s actor positions were lost with killed processes\n",
                with_commas(r.gaps).c_str());
  TreePrinter printer(g, common);
  bool all = true;
  if (top) {
    all = printer.line(*g.find(*top), "") && printer.below(*top, "");
  } else {
    for (const TaskId& root : g.roots) {
      std::printf("driver %s\n", common.full ? root.hex().c_str() : short_id(root.hex()).c_str());
      if (!(all = printer.below(root, ""))) break;
    }
  }
  if (!all) std::printf("(the first %zu tasks; --limit 0 shows all)\n", common.limit);
}

}  // namespace

Status show_graph(const Common& common, const std::string& format, const std::string& top_text) {
  auto session = find_session(common.session);
  if (!session.ok()) return session.status();
  bool dead = node_state(*session, read_node_file(*session)) == NodeState::kDead;
  std::error_code ec;
  std::string dir =
      std::filesystem::exists(*session + "/gcs/gcs-0.db", ec) ? *session + "/gcs" : *session;
  auto g = gcs::load_graph(dir, dead);
  if (!g.ok() && dead) g = gcs::load_graph(dir, false);  // a shard outlived its node: what is there
  if (!g.ok()) return g.status();
  RAY_TRY(fill_names(*session, &*g));
  gcs::GraphReport report = gcs::check_graph(*g);
  TaskId top;
  if (!top_text.empty()) {
    auto found = find_task(*g, top_text);
    if (!found.ok()) return found.status();
    top = *found;
  }
  if (format == "text") {
    print_text(*g, report, top_text.empty() ? nullptr : &top, common);
  } else {
    Graph part = top_text.empty() ? std::move(*g) : part_below(*g, top);
    std::string text = format == "dot" ? gcs::graph_dot(part) : gcs::graph_json(part);
    std::fwrite(text.data(), 1, text.size(), stdout);
  }
  // A live session's tables may lag by seconds: a submission can be missing where its execution is
  // there.
  if (report.ok() || !dead) return Status();
  for (const auto& v : report.violations) std::fprintf(stderr, "libray: %s\n", v.c_str());
  return error(RAY_INTERNAL, "the graph is not consistent: %zu violations",
               report.violations.size());
}

}  // namespace ray::cli
