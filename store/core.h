// The store's state and its rules: leases, objects, frees, spilling, restoring, waiting creates.
// One thread (the store thread) calls everything here; jobs.h carries what may block.
//
// Invariants: (1) committed_ (pages that exist) never exceeds the capacity; (2) an object's bytes
// are given back or moved only after it was condemned and a scan of all hold tables, begun later,
// did not find it; (3) a lease's generation changes before its space is leased again; (4) nothing
// read from a client's memory is used before it was checked against the daemon's own records.
#pragma once
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "store/daemon.h"
#include "store/directory.h"
#include "store/jobs.h"
#include "store/layout.h"
#include "store/segment.h"
#include "store/spill.h"

namespace ray::store {

inline constexpr uint32_t kNone = UINT32_MAX;
// Memory that was freed stays with its segment for that long after the segment was last used.
inline constexpr int64_t kWarmNs = 1500000000;

// The hold words that a scan found, with how often: a flat hash table that is refilled for every
// scan.
class HoldSet {
 public:
  void fill(const std::vector<uint64_t>& words);
  uint32_t count(uint64_t word) const;
  bool has(uint64_t word) const { return !keys_.empty() && count(word) > 0; }

 private:
  static uint64_t mix(uint64_t w) { return (w ^ w >> 31) * 0x9E3779B97F4A7C15ull >> 20; }
  std::vector<uint64_t> keys_;
  std::vector<uint32_t> counts_;
};

struct Extent {
  enum State : uint8_t { kFree, kCommitting, kLeased, kClosed };
  State state = kFree;
  bool small = false;
  uint32_t segment = 0, generation = 0;
  uint32_t live = 0;                          // objects in memory, condemned ones included
  uint32_t busy = 0;                          // jobs that read or write its bytes
  uint64_t offset = 0, size = 0, cursor = 0;  // cursor: bytes of objects so far
  uint64_t resident = 0;  // bytes whose pages exist: less than size once gaps were punched out
  uint64_t live_bytes = 0;
  std::vector<uint32_t> objects;          // numbers; may name objects that left
  uint32_t newer = kNone, older = kNone;  // LRU list of closed extents
};

struct Object {  // one copy
  // kGone: condemned for good.
  enum State : uint8_t { kFree, kMemory, kSpilled, kRestoring, kGone };
  ObjectId id;
  CopyName copy = 0;
  State state = kFree;
  bool clean = false;   // its bytes are in the spill file, too
  uint16_t owner = 0;   // process that it dies with; 0: none
  uint32_t attempt = 0;
  uint32_t next_owned = kNone, previous_owned = kNone;  // copies of the same owner
  uint32_t serial = 0;  // distinguishes uses of this number
  uint32_t extent = kNone;
  uint32_t grants = 0;  // pins that kLocated allowed and that are not acknowledged yet
  uint64_t offset = 0, size = 0;
};
struct SpillCopy {
  uint32_t run = 0;  // index of the spill run
  uint64_t at = 0, checksum = 0;
};
struct SpillRun {
  uint64_t at = 0, bytes = 0;
  uint32_t live = 0;
};

struct Peer {  // a connected client; its number is its segment's
  uint32_t number = 0;
  uint32_t process = 0;  // index on the node; 0: none
  int pid = 0;
  Segment* segment = nullptr;
  RingConsumer publish;
  RingProducer returns;
  std::deque<std::string> overflow;  // return records that did not fit: u16 type, then the payload
  std::unordered_map<uint64_t, uint32_t> grants;  // request -> object
  std::unordered_set<uint64_t> committing;        // requests whose memory a job makes
  uint32_t requests = 0;                          // unanswered
  std::unordered_map<uint64_t, uint64_t> apart;   // request -> bytes of the copy that it was answered with
  uint32_t large_cold = 0;  // large leases that found no warm run: what pre-touching goes by
  bool touching = false;
  uint64_t recent_seen = 0;
  uint32_t holds = 0;  // hold words in use at the last scan
  uint32_t woken_nap = 0;
};

// A client's number: what is above a year is for ever, and sums of times do not overflow.
inline int64_t limit_ns(int64_t timeout_ns) {
  constexpr int64_t kYear = int64_t{31536000} * 1000000000;
  return timeout_ns < 0 || timeout_ns > kYear ? INT64_MAX : timeout_ns;
}
inline int64_t ends_ns(int64_t timeout_ns, int64_t since_ns) {
  const int64_t limit = limit_ns(timeout_ns);
  return limit == INT64_MAX ? INT64_MAX : since_ns + limit;
}

struct Waiting {      // a request that memory must be found for
  uint32_t peer = 0;  // 0: a restore
  uint64_t request = 0;
  uint32_t object = kNone, serial = 0;  // restores
  uint64_t bytes = 0;
  uint32_t flags = 0;
  int64_t timeout_ns = 0, since_ns = 0;
};

class Core {
 public:
  // wake_peer: the peer sleeps and its return ring has something. wake_self: any thread. send_apart: answers a request
  // of the peer with the descriptor of a copy.
  using SendApart = std::function<bool(uint32_t peer, uint64_t request, int fd)>;
  Core(const DaemonOptions& options, std::function<void(uint32_t)> wake_peer, std::function<void()> wake_self,
       SendApart send_apart);
  ~Core();
  Status init();
  const DirectoryWriter& directory() const { return directory_; }
  DirectoryHeader* header() const { return directory_.header(); }

  Result<Peer*> attach(int pid, uint32_t process);
  // heirs: forked children read on. True = it had pins, which stay until heirs_ended().
  bool bury(uint32_t peer, bool heirs);
  void heirs_ended(uint32_t peer);
  const std::unordered_map<uint32_t, std::unique_ptr<Peer>>& peers() const { return peers_; }
  // Read-only descriptor of a living segment.
  Result<Fd> segment_fd(uint32_t segment) const;

  // One pass over all publish rings. Appends peers that broke the protocol to *bad.
  bool drain_all(std::vector<uint32_t>* bad);
  void drop(const ObjectId& id, CopyName copy);
  // See Daemon.
  void keep(const ObjectId& id, CopyName copy);
  void discard(const ObjectId& id, uint32_t owner, uint32_t attempt);
  void process_died(uint32_t process);
  // After a pass: deferred requests, frees, waiting requests, replies that did not fit. True =
  // worked.
  bool tick(int64_t now);
  // Leases and questions so far: whoever asks once is likely to ask again soon.
  uint64_t questions() const { return questions_; }
  int64_t next_deadline() const { return next_deadline_; }  // 0 = none
  void before_sleep();                                      // gives page-table memory back

  DaemonStats stats();
  std::string list_msgpack(uint32_t limit);

 private:
  // ---- core.cc: records and leases
  bool drain(Peer* p);
  bool handle(Peer* p, const RecordView& view);
  bool on_publish(Peer* p, const PublishRecord& r);
  bool on_close(Peer* p, uint32_t extent);
  void on_locate(Peer* p, const LocateRecord& r, bool final);
  void answer_located(Peer* p, uint64_t request, uint32_t object);
  void refuse(Peer* p, uint64_t request, ray_code code, const std::string& text);
  void reply(Peer* p, uint16_t type, const void* data, uint32_t size, const std::string& tail = {});
  void flush_overflow(Peer* p);
  void on_ack(Peer* p, uint64_t request);
  void on_forget(Peer* p, uint64_t request);
  bool owned_lease(const Peer* p, uint32_t extent) const;

  uint32_t new_extent(Segment* s, uint64_t offset, uint64_t size, bool small);
  void close_extent(uint32_t extent);
  void maybe_free(uint32_t extent);
  void retire_if_empty(uint32_t segment);
  uint32_t new_object(const PublishRecord& r);
  void drop_object(uint32_t object);
  void own(uint32_t object, uint32_t owner);
  void disown(uint32_t object);
  uint32_t next_generation() { return ++generation_ ? generation_ : ++generation_; }
  void free_number(uint32_t object);
  Peer* peer(uint32_t number);
  Segment* segment(uint32_t number) const;
  Location location(const Object& o) const;
  uint64_t word_of(const Object& o) const;
  void lru_remove(uint32_t extent);
  void lru_touch(uint32_t extent);
  void publish_counters(bool worked);
  void progress(uint64_t bytes);

  // ---- core_memory.cc: finding memory
  enum class Take { kDone, kStarted, kFull };
  struct Found {
    uint64_t offset;
    bool cold;
  };
  bool find_space(Segment* s, uint64_t bytes, Found* out);
  bool cool(uint64_t bytes);
  bool cool_idle(int64_t now);
  Take serve(const Waiting& w);
  Take serve_lease(const Waiting& w);
  Take serve_restore(const Waiting& w);
  void grant(Peer* p, uint64_t request, uint32_t extent, bool cold);
  void touch_ahead(Peer* p, uint64_t bytes);
  void pump(int64_t now);
  bool pump_queue(std::deque<Waiting>* queue, int64_t now);
  void fail(const Waiting& w, const std::string& why);
  void check_deadlines(std::deque<Waiting>* queue, int64_t now, bool stuck);
  void check_waiters(int64_t now);
  void wake_by(int64_t at) {
    if (next_deadline_ == 0 || at < next_deadline_) next_deadline_ = at;
  }
  bool deadlocked() const;
  uint64_t warm_bytes() const;
  uint64_t lease_bytes(const Waiting& w) const;
  uint64_t limit_of(const Waiting& w) const;
  void commit_then_grant(const Waiting& w, uint32_t extent, bool touch);
  void abandon_extent(uint32_t extent);
  void want_unpins(bool wanted);
  std::string full_text(const Waiting& w, const std::string& why);

  // ---- core_spill.cc: condemned objects, eviction, restore
  void scan_holds();  // fills held_
  static void read_holds(const Peer& p, std::vector<uint64_t>* out);
  bool is_held(const Object& o) const;
  void condemn(uint32_t object);
  bool reap();
  void free_memory(uint32_t object);
  void release_copy(uint32_t object);
  void read_recent();
  uint64_t reclaim(uint64_t bytes);
  uint64_t held_bytes(uint32_t extent) const;
  uint64_t trim(uint32_t extent);
  uint64_t trim_sparse(uint64_t bytes);
  bool start_spill(uint32_t extent);
  void finish_spill(uint32_t extent, const std::vector<std::pair<uint32_t, uint32_t>>& objects,
                    const std::vector<SpillPiece>& pieces, uint32_t run, const Status& status);
  uint64_t evict(uint32_t extent);
  void start_restore(uint32_t object, uint32_t extent, uint64_t offset, bool commit);
  void finish_restore(uint32_t object, uint32_t serial, uint32_t extent, uint64_t offset, Status s);
  void drop_run_piece(uint32_t run);
  void add_waiter(uint32_t object, Peer* p, const LocateRecord& r);
  void end_restore(const Waiting& w);
  // The sign of life that clients look at, and no more: any thread.
  void tell_progress() const { header()->progress.fetch_add(1, std::memory_order_release); }

  const DaemonOptions options_;
  const std::function<void(uint32_t)> wake_peer_;
  const SendApart send_apart_;
  uint64_t small_extent_ = 0, arena_bytes_ = 0;
  DirectoryWriter directory_;
  std::unordered_map<uint32_t, std::shared_ptr<Segment>> segments_;
  std::unordered_map<uint32_t, std::unique_ptr<Peer>> peers_;
  std::vector<Peer*> peer_list_;
  uint32_t next_segment_ = kDaemonSegment;

  std::vector<Extent> extents_;
  std::vector<uint32_t> free_extents_;
  uint32_t oldest_ = kNone, newest_ = kNone;
  std::vector<Object> objects_;
  std::vector<uint32_t> free_objects_;
  struct Owner {
    uint32_t newest = kNone;  // of its copies
    bool dead = false;
  };
  std::vector<Owner> owners_;  // by process index
  uint32_t generation_ = 0;    // of the last lease
  uint64_t committed_ = 0;
  int64_t cool_at_ns_ = 0;  // when to look for warm memory that nobody uses again; 0: there is none
  uint32_t counters_age_ = 0;
  uint64_t questions_ = 0;

  // What a record said about an id may depend on a record in a ring that this pass has not reached:
  // it is looked at again after one full pass.
  struct Deferred {
    enum Kind { kDropped, kLocated, kKept, kDiscarded, kDied } kind;
    ObjectId id;
    CopyName copy;
    uint32_t peer;              // kLocated; kDied: the first one that would be another process
    uint32_t process, attempt;  // kDiscarded, kDied
    LocateRecord locate;
  };
  void settle(const Deferred& d);
  std::vector<Deferred> deferred_, deferred_next_;
  std::vector<uint32_t> condemned_;         // not scanned yet
  std::vector<uint32_t> condemned_pinned_;  // found in a hold table
  bool rescan_ = false;                     // a pin may have ended
  bool retry_pump_ = false;  // something changed since waiting requests were looked at
  std::vector<uint64_t> hold_words_;
  HoldSet held_;
  int64_t rescan_at_ns_ = 0;  // not before: scanning many holds for every unpin would cost too much
  uint64_t holds_ = 0;
  struct Heirs {
    int pid = 0;  // of the parent
    std::vector<uint64_t> words;
  };
  std::unordered_map<uint32_t, Heirs> heirs_;  // by the dead peer's number
  bool unpins_wanted_ = false;

  SpillFile spill_;
  std::vector<SpillRun> runs_;
  std::vector<uint32_t> free_runs_;
  std::unordered_map<uint32_t, SpillCopy> copies_;
  struct RestoreWaiter {
    uint32_t peer;
    uint64_t request;
    int64_t timeout_ns, since_ns;
    bool may_be_apart;
  };
  std::unordered_map<uint32_t, std::vector<RestoreWaiter>> restore_waiters_;

  // ---- core_apart.cc: copies beside a full store
  struct ApartRead;
  uint64_t apart_limit() const;
  std::shared_ptr<ApartRead> find_apart(uint32_t peer, uint32_t object) const;
  void read_apart(int64_t now);
  bool begin_apart(uint32_t object, const RestoreWaiter& r, int64_t now);
  void start_apart(const std::shared_ptr<ApartRead>& a);
  Status fill_apart(const ApartRead& a, Fd* out);
  void finish_apart(const std::shared_ptr<ApartRead>& a, const Status& s, Fd* fd);
  void give_apart(Peer* p, uint64_t request, int fd, uint64_t bytes);
  bool join_apart(Peer* p, uint32_t object, const LocateRecord& r);
  void remember_apart(uint32_t object, const RestoreWaiter& r);
  size_t forget_apart(const Peer* p, uint64_t request);
  void drop_apart(uint64_t key);
  void expire_apart(int64_t now);
  void bury_apart(Peer* p);
  std::unordered_map<uint64_t, std::shared_ptr<ApartRead>> apart_;  // by peer and object
  uint64_t apart_bytes_ = 0;

  uint32_t restore_open_ = kNone;
  uint64_t spilling_bytes_ = 0, spilled_bytes_ = 0, spilled_objects_ = 0, restored_objects_ = 0;
  uint64_t largest_spilled_ = 0;  // since something was spilled
  Status spill_error_;
  int64_t spill_retry_ns_ = 0;

  std::deque<Waiting> restores_, creates_;
  int64_t now_ = 0, last_progress_ns_ = 0, next_deadline_ = 0;
  std::unique_ptr<JobPool> jobs_;  // last: its threads use the rest
  friend class Server;

 public:
  JobPool* jobs() { return jobs_.get(); }
};

}  // namespace ray::store
