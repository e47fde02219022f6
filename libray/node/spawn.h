// Starting child processes that die with this one. Called by the node daemon's main thread only: the
// kernel's parent-death signal is tied to the thread that forked.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "libray/base/shm.h"
#include "libray/base/status.h"

namespace ray::node {

struct SpawnOptions {
  std::vector<std::string> argv;           // argv[0] is looked up in PATH when it has no slash
  std::map<std::string, std::string> env;  // set on top of this process's environment
  std::string cwd;                         // empty or missing: where this process is
  int out_fd = -1, err_fd = -1;            // become descriptors 1 and 2
  int pass_fd = -1;                        // stays open in the child under the same number,
  int pass_as = -1;                        // or under this one
  int death_signal = 9;                    // sent to the child when this process dies
  bool hold_signals = false;               // the child begins with SIGTERM, SIGINT and SIGHUP blocked
  bool new_group = true;                   // a process group of its own: the terminal's signals are not for it
};
struct StopWatch {  // of a child that a signal has stopped: node_stopped.cc
  int64_t since = 0, seen = 0;
  uint32_t seconds = 0;  // that it was stopped before it was ended
};
struct Spawned {
  int pid = -1;
  Fd pidfd;  // what signals go through: the number may mean another process once this one was waited for
};
Result<Spawned> spawn(const SpawnOptions& options);

// Appending log file, 0600, close-on-exec.
Result<Fd> open_log(const std::string& path);
// Every process costs the daemon a few descriptors: as many as may be had. Not for its children.
void raise_file_limit();
// The count of processes that the kernel killed for lack of memory since boot; -1 = unknown.
int64_t oom_kills();

}  // namespace ray::node
