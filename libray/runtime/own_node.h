// OwnNode: the node daemon that this process has started. Its start, signals to it, and its end, which the process waits for.
//
// Who: Runtime, in ray_init and ray_shutdown; one thread at a time. Invariant: a daemon that was started here is reaped, or
// killed and reaped, before its session's sockets are removed.
#pragma once
#include <string>

#include "libray/base/shm.h"
#include "libray/base/status.h"

namespace ray {

class OwnNode {
 public:
  // Returns when the node accepts work. `session_dir` exists and is locked.
  Status start(const ray_runtime_options& options, const std::string& session_dir);
  bool started() const { return started_; }
  // It is to end, and cannot while it is stopped: it gets a moment to go on, then it is killed. True when it was.
  bool kill_if_stopped();
  void reap(int64_t patience_ns);
  void end();  // it is of no use without the driver that could not join it
  void close() { pidfd_.reset(); }

 private:
  std::string session_dir_;
  Fd pidfd_;
  int pid_ = -1;
  bool started_ = false;
};

}  // namespace ray
