// A session as its files show it: which session, its daemon, and the readable databases of the
// control store's shards. Nothing here talks to a daemon, so dead sessions and hung nodes are read
// like others.
//
// Who: every subcommand. One thread. Databases are opened for reading only; SQLite's WAL lets the
// shards write meanwhile.
#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "libray/base/status.h"
#include "libray/cli/output.h"

struct sqlite3;

namespace ray::cli {

// Directory of sessions: LIBRAY_TMPDIR, else /tmp/libray-UID. Is not created.
std::string sessions_base();
// `requested`: a path, a name (or its beginning) under the base, or empty for the newest session.
Result<std::string> find_session(const std::string& requested);
// The same for who asks a living node: of the sessions of this user, the newest whose node lives and, if `in_cluster`,
// belongs to a cluster; when there is none, the newest.
Result<std::string> find_living_session(const std::string& requested, bool in_cluster = false);

struct NodeFile {  // session.json
  bool found = false;
  int pid = 0, parent_pid = 0;
  int64_t started_ns = 0;
  std::string node;
  uint64_t store_bytes = 0;
  uint32_t gcs_shards = 0;
  std::vector<int> gcs_pids;
  std::string resources_json;  // {"CPU": 2}
};
NodeFile read_node_file(const std::string& session);

// cluster.json: what the node knows of its cluster. Ids in hexadecimal digits.
struct ClusterFile {
  bool found = false;
  std::string role, head, cluster, ended;
  int64_t index = 0, epoch = 0;
  Rows nodes;  // columns as "nodes" queries have them; resources and labels are JSON
};
ClusterFile read_cluster_file(const std::string& session);
// A flat JSON object as names and texts.
Status read_json_pairs(const std::string& text, std::map<std::string, std::string>* out);

enum class NodeState { kAlive, kStopped, kDead };
struct ProcessInfo {
  int pid = 0, parent = 0;
  char state = '?';     // as in /proc/PID/stat; T = stopped
  std::string command;  // for people
  std::string role;     // "node", "gcs", "worker", "zygote", "driver"
  uint64_t rss_bytes = 0;
  double cpu_seconds = 0;
  int64_t started_ns = 0;  // wall clock
};
// The living processes of a session, found in /proc by their environment and by session.json.
std::vector<ProcessInfo> session_processes(const std::string& session, const NodeFile& node);
// Whether `pid` is the daemon that session.json speaks of, not a later process of the same number.
bool is_node_process(const NodeFile& node, const std::string& session);
NodeState node_state(const std::string& session, const NodeFile& node);

struct Param {  // of a query: text or integer
  Param(std::string v) : text(std::move(v)) {}
  Param(const char* v) : text(v) {}
  Param(int64_t v) : integer(v), is_integer(true) {}
  std::string text;
  int64_t integer = 0;
  bool is_integer = false;
};

// SQL of queries may call task_name(name, function): the name, or where it is only the function's
// key, what the function table of whichever shard calls it (a function's row is in one shard, its
// tasks in all).
class Records {
 public:
  // Opens the databases of all shards. For a dead session what its journals still hold is brought
  // into the tables first. RAY_NOT_FOUND = the session has none.
  static Result<Records> open(const std::string& session);
  Records(Records&&) noexcept;
  ~Records();
  // The query's rows of every shard, joined. order_by names a column; limit 0 = all. A query that a
  // shard cannot answer is an error that names the shard's file.
  Result<Rows> query(const std::string& sql, const std::vector<Param>& params = {},
                     const std::string& order_by = "", bool descending = false, size_t limit = 0);
  // Calls `row` for every row of every shard without keeping any; false ends it.
  Status each(const std::string& sql, const std::vector<Param>& params,
              const std::function<bool(const std::vector<Cell>&)>& row);
  Status each_in(size_t shard, const std::string& sql, const std::vector<Param>& params,
                 const std::function<bool(const std::vector<Cell>&)>& row);
  size_t shards() const { return shards_.size(); }

 private:
  Records() = default;
  Status load_names();
  struct Shard {
    std::string path;
    sqlite3* db;
  };
  using Names = std::map<std::string, std::string>;  // function key, 16 digits -> its name
  std::vector<Shard> shards_;
  std::unique_ptr<Names> names_;
};

}  // namespace ray::cli
