// Moves lineage records from the processes' rings to the control store's shards, in batches, off every
// critical path. Two threads of its own take turns: a patient one of low weight, and a hasty one of more while a ring
// fills. "The pump's thread" is the one that has the turn.
//
// Who calls it: the node daemon's main thread (attach, detach, add, flush, poke, stop); the control
// store's client answers on its own threads. The pump alone reads lineage rings.
// Invariants: records of one process that belong to one shard keep their order; a batch is kept until
// its shard has committed it, or until the shard calls it malformed; what waits in memory never exceeds kMaxStash
// (as it is coded). Above kSpoolAbove whole batches go to disk (spool.h), the latest first, so that a control
// store that is slow or dead for a while slows nobody down. Only when that is full too rings are not drained,
// and submitters feel the back-pressure; a detached (dead) process is drained to its tail first, and every shard is told
// that it is gone (lineage::LeftRecord).
#pragma once
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "gcs/client.h"
#include "libray/lineage/delta.h"
#include "libray/node/channel.h"
#include "libray/node/spool.h"

namespace ray::node {

class JournalPump {
 public:
  static constexpr size_t kBatchBytes = 4 << 20;
  static constexpr size_t kSpoolAbove = 16u << 20, kMaxStash = 64u << 20;
  static constexpr uint32_t kInFlight = 2;  // batches per shard

  // on_corrupt(process): its ring is broken; called on the pump's thread.
  // spool_dir: where what waits may go, at most spool_bytes; empty = nowhere.
  JournalPump(gcs::Client* gcs, wire::NodePage* page, std::function<void(uint32_t)> on_corrupt,
              const std::string& spool_dir = {}, uint64_t spool_bytes = 0);
  Status started() const { return started_; }  // an error: it has no thread
  ~JournalPump();  // stops at once; call flush() before if the rest matters

  void attach(std::shared_ptr<Channel> channel);
  void detach(uint32_t process);
  // A record of the daemon itself: an event or an error (lineage::RecordType), MessagePack map.
  void add(uint16_t type, uint32_t process, const std::string& map);
  // `done` is called on the pump's or a client's thread when everything that was in the rings at this
  // moment is committed, or when the pump stops.
  void flush(std::function<void()> done);
  // The main thread calls this when a process rang the daemon.
  void poke_if_wanted();

  struct Stats {
    uint64_t records = 0, bytes = 0, batches = 0, stash = 0, spooled = 0, dropped = 0;
    uint64_t hasty_rounds = 0;
  };
  Stats stats();

 private:
  struct Batch {
    lineage::DeltaEncoder coder;  // coded as they come: what waits is small, and read from a ring once
    bool sent = false, acked = false, spooled = false;
    uint64_t spool_at = 0, spool_size = 0;
    int64_t retry_at = 0;
  };
  struct Shard {
    std::deque<std::shared_ptr<Batch>> batches;  // oldest first; the last one may still grow
    uint64_t first = 0;                          // number of batches.front()
    uint32_t in_flight = 0;
  };
  struct Source {
    std::shared_ptr<Channel> channel;
    lineage::DeltaMirror mirror;  // of what its process codes
    bool leaving = false, touched = false;
    uint32_t process = 0;  // when leaving
    int64_t left_ns = 0;
  };
  struct Flush {
    std::function<void()> done;
    bool drained = false;
    std::map<uint64_t, uint64_t> tails;  // source -> ring position to be read first
    std::vector<uint64_t> upto;          // per shard: number of batches to be committed
  };
  struct Shared;  // outlives the pump: late answers of the client find it closed

  void run(bool hasty);
  bool round(std::unique_lock<std::mutex>* lock);
  void end();
  uint64_t fullest();
  void make_changes();
  size_t drain_all();
  size_t drain(Source* s);
  void append(uint32_t shard, uint16_t type, const uint8_t* data, uint32_t size);
  void append_to_all(uint16_t type, const void* record, uint32_t size);
  void append_left(uint32_t process, int64_t time_ns);
  void send(std::unique_lock<std::mutex>* lock);
  void spool(std::unique_lock<std::mutex>* lock);
  bool spool_one(std::unique_lock<std::mutex>* lock);
  void mark(bool all_read);
  void begin_flushes();
  void mark_drained();
  void finish_flushes(std::unique_lock<std::mutex>* lock);
  void sleep(std::unique_lock<std::mutex>* lock, bool drained);
  bool rings_empty();
  uint32_t shard_for(uint16_t type, const uint8_t* data, uint32_t size) const;

  gcs::Client* gcs_;
  wire::NodePage* page_;
  std::function<void(uint32_t)> on_corrupt_;
  std::shared_ptr<Shared> shared_;
  std::map<uint64_t, Source> sources_;  // pump thread only; by a number of its own: a process's index is used again
  uint64_t next_source_ = 0;            // pump thread only
  std::deque<Flush> flushes_;           // pump thread only
  Spool spool_;                         // pump thread only
  // Pump thread only. What the shards are told: up to when they have everything (lineage::MarkRecord).
  int64_t mark_ns_ = 0, marked_at_ = 0;  // wall clock of the mark under way, 0 = none; when the last one was begun
  std::map<uint64_t, uint64_t> mark_tails_;
  uint64_t unmarked_ = 0;  // records since the last mark
  uint64_t trimmed_at_ = 0;             // pump thread only: bytes moved when the heap was last trimmed
  std::thread patient_, hasty_;
  Status started_;
};

}  // namespace ray::node
