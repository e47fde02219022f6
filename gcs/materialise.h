// The materialiser: decodes the journal of a shard, in order, into its readable database (schema.h).
//
// Who runs it: a thread of the shard (follower.h), or a tool on a dead session (materialise_all). One thread at a
// time per shard. Invariants: one transaction holds the rows and the watermark (sn up to which all is in the
// tables), so a kill at any instruction resumes exactly; rows are merged by version (incarnation, execution), so a
// record that is seen twice or late changes nothing; memory is bounded by the size of one batch (kBatchBytes).
#pragma once
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "gcs/journal.h"
#include "gcs/prune.h"
#include "gcs/sqlite.h"
#include "libray/base/status.h"

namespace ray::gcs {

class MaterialiseBatch;
class SpareTime;

struct MaterialiseStats {
  std::atomic<uint64_t> records{0};  // lineage records decoded
  std::atomic<uint64_t> rows{0};     // rows written
  std::atomic<uint64_t> damaged{0};  // batches that did not decode, skipped and logged
  std::atomic<uint64_t> busy_ns{0};   // processor time
};

class Materialiser {
 public:
  static constexpr size_t kBatchBytes = 6u << 20;  // of decoded records per transaction

  static Result<std::unique_ptr<Materialiser>> open(const std::string& dir, uint32_t shard);
  ~Materialiser();
  uint64_t watermark() const { return watermark_.load(std::memory_order_acquire); }
  // One transaction towards `target`: the watermark rises unless it is there. `spare`: nothing is changed and the answer is
  // RAY_CANCELLED when the spare time is over before it is done; it looks every twenty microseconds or so.
  Status advance(const std::vector<JournalFile>& segments, uint64_t target, SpareTime* spare = nullptr);
  // The last one was done, but what should have been pruned after it was not: the spare time was over before.
  bool prune_left() const { return prune_left_; }
  // Copies the WAL into the database file, so that it stays small. Cheap when there is little.
  void checkpoint();
  const MaterialiseStats& stats() const { return stats_; }

 private:
  friend class MaterialiseBatch;
  Materialiser() = default;
  Status prepare();
  bool leaves();

  Database db_;
  SpareTime* spare_ = nullptr;  // in which the transaction runs
  bool left_ = false;           // it was over
  bool prune_left_ = false;
  JournalReader reader_;
  std::atomic<uint64_t> watermark_{0};
  MaterialiseStats stats_;
  std::unique_ptr<MaterialiseBatch> batch_;
  uint64_t wal_frames_ = 0;       // pages in the WAL after the last commit
  uint64_t checkpointed_at_ = 0;  // of them, when it was last tried
  Pruner pruner_;
};

// Materialises what a dead shard left in its journal. `path`: a session directory (all shards in it), or
// one shard's .db file. Harmless when nothing is left; refused while the shard lives.
Status materialise_all(const std::string& path);

}  // namespace ray::gcs
