// The service of a shard: NNG in front, the state machine (tables.h) in the middle, the journal behind.
//
// Threads: NNG's threads receive frames, check them and queue them; the commit thread takes all that is
// queued, steps the tables, writes one group commit, then answers and wakes polls; the materialiser
// thread (lowest priority) follows the journal; the query thread answers queries over the materialised
// tables. Invariants: a change is answered and shown to subscribers only after its commit; if a commit
// fails the tables go back to before the batch, writes are refused with the reason, reads go on.
#pragma once
#include <memory>

#include "gcs/shard.h"
#include "libray/base/status.h"

namespace ray::gcs {

class Service {
 public:
  // Recovers from the files, then listens.
  static Result<std::unique_ptr<Service>> start(const ShardOptions& options);
  // Stops listening, commits what was received, materialises for at most options.flush_ns.
  virtual ~Service() = default;
};

}  // namespace ray::gcs
