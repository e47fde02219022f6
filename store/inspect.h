// Looks into a store from outside, read-only and without asking its daemon: works while the daemon
// hangs or is stopped. Finds the memfds of the directory and of the clients under /proc/PID/fd.
//
// Who calls it: the `libray store` command, tests. Any thread; any process of the same user.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "libray/base/status.h"
#include "store/daemon.h"

namespace ray::store {

struct InspectedObject {
  ObjectId id;
  uint64_t size = 0;
  uint32_t segment = 0;
  uint32_t pins = 0;
  // "sealed" in the directory, "spilled" on disk, "committed" by a client but not yet read by the
  // daemon
  const char* state = "";
};
struct InspectedClient {
  uint32_t segment = 0;
  int pid = 0;
  uint32_t pins = 0;
  uint64_t unread_records = 0;  // bytes of its publish ring that the daemon has not read
};
struct Inspection {
  DaemonStats stats;
  int daemon_pid = 0;
  std::vector<InspectedObject> objects;
  std::vector<InspectedClient> clients;
};

// RAY_NOT_FOUND: that process runs no object store (or is not ours to look into).
Result<Inspection> inspect(int daemon_pid, uint32_t object_limit);

}  // namespace ray::store
