// Log files of the workers: what each prints to its descriptors 1 and 2.
//
// Who calls it: rayd's main thread (node_workers.cc). Drivers read the files as they grow
// (bindings/python/libray/driver/log_monitor.py), people and the `libray` tool later.
//
// A file is worker-SPAWN-JOB.out until the process exists, then worker-SPAWN-JOB-PID.out (and
// .err); JOB is the beginning of the job's id. Everything is bounded: a file that a living worker
// lets grow loses its beginning (a hole: offsets stay what they are, only the disk blocks go),
// empty files go with their worker, and so do the files of the workers that ended longest ago.
#pragma once
#include <cstdint>
#include <deque>
#include <map>
#include <string>

#include "libray/base/ids.h"
#include "libray/base/shm.h"
#include "libray/base/status.h"

namespace ray::node {

class WorkerLogs {
 public:
  // `folder`: the session's logs/. LIBRAY_LOG_MAX_BYTES in the environment bounds the disk blocks
  // of one living worker's file.
  void configure(const std::string& folder);
  // Makes both files of a new worker. When the disk has no room for them what it prints goes nowhere, and `why`
  // says so: a worker without a log is better than none.
  Status open(uint64_t spawn, const JobId& job, Fd* out, Fd* err, std::string* why);
  // Its pid is known: the names get it. Once per worker.
  void started(uint64_t spawn, int pid);
  // Returns where its standard error can be read, below the session directory; empty when it wrote
  // none.
  std::string ended(uint64_t spawn);
  // When trim wants to be called; 0 = nothing to watch.
  int64_t next_deadline() const { return live_.empty() ? 0 : trim_at_; }
  void trim(int64_t now);

 private:
  std::string folder_;
  uint64_t max_bytes_ = 0;
  int64_t trim_at_ = 0;
  std::map<uint64_t, std::string> live_;  // base names
  std::deque<std::string> ended_;         // those of which a file is left, oldest first
};

// As open_log, but /dev/null when the disk takes no further file; `why` says so then.
Result<Fd> open_log_or_null(const std::string& path, std::string* why);

// The last line with anything in it of a file, shortened: what a process said before it ended.
// Empty if there is none.
std::string last_line(const std::string& path);

// What the disk below a folder still takes from this user; the largest number when nobody knows.
uint64_t room_below(const std::string& folder);

// Whether the first blocks of a file that is longer than `max_bytes` were given back.
bool punch_beginning(const std::string& path, uint64_t max_bytes);

}  // namespace ray::node
