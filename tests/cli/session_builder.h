// A session as a node leaves it, made through the control store's own service and client, so that
// the tool reads what the product writes. Its tasks (indexes are submit indexes below the job's
// root):
//   0..19   square(i) -> i*i, finished; 3 is given the results of 1 and 2
//   20      fails with a two-line traceback      21  is submitted and never ran
//   22      crashed once, then finished          23  makes a large object in the store
//   24      creates an actor Counter, 25..27 are calls of it; 28..30 are children of task 0
#pragma once
#include <string>
#include <vector>

#include "libray/base/ids.h"

namespace ray::cli::test {

class TempDir {
 public:
  TempDir();
  ~TempDir();
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

struct SyntheticSession {
  std::string dir;
  JobId job;
  NodeId node;
  TaskId root;
  TaskId task(uint32_t index) const { return child_task(origin_of(root), index); }
  TaskId child(uint32_t index) const { return child_task(origin_of(task(0)), index); }
  ActorId actor() const { return actor_of(task(24)); }
};
// `base` gets the session. The shards have ended when it returns.
SyntheticSession build_session(const std::string& base);
// Writes session.json for this pid.
void write_node_file(const std::string& dir, int pid, int64_t started_ns);

struct Output {
  int code = -1;
  std::string out, err;
};
// Runs the tool with LIBRAY_TMPDIR = base.
Output run_tool(const std::string& base, const std::vector<std::string>& args);
// json_extract of SQLite; "<malformed>" when it is no JSON.
std::string json(const std::string& text, const std::string& path);
size_t lines(const std::string& text);

}  // namespace ray::cli::test
