// Queries over a shard's readable database: "tasks", "objects", "errors", "events". Used by the shard's
// query thread and by tools on dead sessions; one thread per object.
#pragma once
#include <atomic>
#include <string>
#include <string_view>

#include "gcs/sqlite.h"

namespace ray::gcs {

struct Filter {
  uint64_t limit = 0;
  int64_t fresh_ms = 0;
};
// The parts of a filter that are not conditions; false when it is no MessagePack map (or nil).
bool parse_filter(std::string_view filter, Filter* out);
bool is_database_query(std::string_view what);

class Query {
 public:
  explicit Query(std::string database_path) : path_(std::move(database_path)) {}
  // Answer: MessagePack array of maps, column -> value.
  Status run(std::string_view what, std::string_view filter, std::string* answer);
  void stop() { limits_.stop = true; }  // any thread: the query that runs ends soon

  struct Limits {
    int64_t deadline = 0;
    std::atomic<bool> stop{false};
  };

 private:
  std::string path_;
  Database db_;
  Limits limits_;
};

}  // namespace ray::gcs
