// The store's daemon: leases extents, keeps the directory, frees, spills, restores, buries the
// dead. Runs on a thread of its own inside the node daemon, or alone in tests; disk I/O on further
// threads.
#pragma once
#include <cstdint>
#include <memory>
#include <string>

#include "libray/base/ids.h"
#include "libray/base/status.h"
#include "libray/wire/protocol.h"

namespace ray::store {

struct DaemonOptions {
  std::string socket_path;  // made with mode 0600, unlinked at the end
  std::string token;
  std::string spill_dir;  // empty = no spilling
  uint64_t capacity_bytes = 0;
  uint64_t spill_bytes = 0;  // 0 = as much as the disk takes
  uint64_t apart_bytes = 0;  // of copies beside a full store, all together; 0 = half the machine's memory, at least the capacity
};
struct DaemonStats {  // used: bytes of leases and live objects, never above capacity; pinned: pins
                      // in force
  uint64_t capacity = 0, used = 0, objects = 0, pinned = 0, clients = 0;
  uint64_t spilled_bytes = 0, spilled_objects = 0, restored_objects = 0, waiting_creates = 0;
};

class Daemon {
 public:
  static Result<std::unique_ptr<Daemon>> start(const DaemonOptions& options);
  virtual ~Daemon() = default;  // stops its threads, frees everything
  // The next four: thread-safe, never block, and take effect in the order of the calls.
  // The node's directory says: nobody refers to this copy any more.
  virtual void drop(const ObjectId& id, const wire::Location& hint) = 0;
  // From now on this copy is the directory's: it outlives the process that it was sealed for.
  virtual void keep(const ObjectId& id, const wire::Location& hint) = 0;
  // `owner` has no use for what this attempt sealed for it and did not hand over.
  virtual void discard(const ObjectId& id, uint32_t owner, uint32_t attempt) = 0;
  // All copies that are this process's own go.
  virtual void process_died(uint32_t process) = 0;
  virtual DaemonStats stats() = 0;
  // MessagePack array of maps {id, size, state, pins, segment, spilled}: `libray store`, queries.
  virtual std::string list_msgpack(uint32_t limit) = 0;
};

}  // namespace ray::store
