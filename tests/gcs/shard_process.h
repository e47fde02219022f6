// A shard in a process of its own, for tests: start, kill -9, stop, start again on the same files.
#pragma once
#include <string>
#include <vector>

#include "gcs/client.h"
#include "libray/wire/cursor.h"
#include "gcs/ops.h"
#include "libray/lineage/reader.h"

namespace ray::gcs::test {

// A folder that goes with the object.
class TempDir {
 public:
  TempDir();
  ~TempDir();
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

inline constexpr char kToken[] = "0123456789abcdef0123456789abcdef";

class ShardProcess {
 public:
  explicit ShardProcess(std::string dir, uint32_t index = 0, std::vector<std::string> options = {});
  ~ShardProcess() { kill9(); }
  // Starts and waits until it answers. faults: LIBRAY_FAULTS of the child. False when it ended instead.
  bool start(const std::string& faults = "");
  void kill9();
  // SIGTERM and the exit code; -1 when it was killed by a signal.
  int stop();
  // Waits until it is dead by itself (a fault point); the signal or 0.
  int wait_dead();
  // The same, keeping it busy with small writes meanwhile, so that it gets to where it dies.
  int drive_until_dead(Client* c);
  int pid() const { return pid_; }
  std::string url() const { return url_; }
  std::string database() const;
  uint64_t rss_kib() const;
  uint64_t cpu_ticks() const;
  int threads() const;

 private:
  std::string dir_, url_;
  uint32_t index_;
  std::vector<std::string> options_;
  int pid_ = -1;
};

std::unique_ptr<Client> connect(const std::vector<std::string>& urls, const NodeId& node, uint32_t epoch = 1,
                                const std::string& token = kToken, int64_t timeout_ns = -1);

// call(), waited for.
struct Got {
  ray_code code;
  std::string text, answer;
};
Got call(Client* c, uint32_t shard, uint32_t op, const std::string& args);
Got kv_put(Client* c, uint32_t shard, std::string_view ns, std::string_view key, std::string_view value,
           uint64_t expected = UINT64_MAX);
Got kv_get(Client* c, uint32_t shard, std::string_view ns, std::string_view key);
uint64_t first_u(const Got& g);  // first element of the answer
// Column of the stats.
uint64_t stat(Client* c, uint32_t shard, std::string_view name);
// append_lineage, waited for; the watermark.
uint64_t append(Client* c, uint32_t shard, std::string records, uint32_t n);
Got query(Client* c, uint32_t shard, std::string_view what, const std::string& filter = "");

// A finished no-op task with one small argument and one result: submission and execution records.
void add_task(std::string* batch, const TaskId& task, const TaskId& parent, int64_t time_ns,
              const std::vector<ObjectId>& refs = {}, uint32_t n_returns = 1);
NodeId node_of(uint8_t n);
// Rows of an SQL query over a database file: columns joined with "|".
std::vector<std::string> sql(const std::string& database, const std::string& query);

}  // namespace ray::gcs::test
