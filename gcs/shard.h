// A shard of the control store as a process: `rayd gcs` calls gcs_main; tests call it in a child.
// docs/gcs.md tells what a shard promises.
#pragma once
#include <cstdint>
#include <string>

namespace ray::gcs {

struct ShardOptions {
  uint32_t index = 0;          // of this shard
  std::string dir;             // where its files go (mode 0700): gcs-<index>.db and .log.*
  std::string url;             // "ipc:///path" (at most 107 bytes of path) or "tcp://host:port"
  std::string token;           // that every request must show
  int parent_pid = 0;          // ends when this process does; 0 = nobody's child
  int driver_pid = 0;          // of whom the parent is: when it is gone and the parent stopped, that is killed
  int ready_fd = -1;           // gets one byte when the shard answers requests; then it is closed
  uint64_t ram_bytes = 64u << 20;      // rows of tables in RAM; what is over is read back from disk
  uint64_t segment_bytes = 32u << 20;  // of the journal
  uint64_t retain_bytes = 0;   // of journal kept after it was materialised
  uint64_t backlog_bytes = 1u << 30;   // of journal not yet materialised: over it appends wait
  int64_t flush_ns = 2'000'000'000;    // how long the end may take to materialise; the rest stays journaled
};

// Runs until SIGTERM, SIGINT or the parent's death. 0 = ended in order; else the reason is in the log.
// Uses the calling thread for signals and starts its own; blocks SIGTERM, SIGINT and SIGHUP in them.
int gcs_main(const ShardOptions& options);

}  // namespace ray::gcs
