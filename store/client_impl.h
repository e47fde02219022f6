// The client's insides. See client.h for what it promises and docs/store.md for why it is safe.
//
// Locks (process-private; no other process ever waits for them), in the order in which they may be
// nested: refill_mu_ > wait_mu_ > mu_. hold_mu_ stands alone.
#pragma once
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <thread>
#include <vector>

#include "libray/base/clock.h"
#include "libray/base/shm.h"
#include "store/apart.h"
#include "store/client.h"
#include "store/directory.h"
#include "store/layout.h"
#include "store/usage.h"

namespace ray::store {

class SpinLock {
 public:
  void lock() {
    for (int n = 0; word_.exchange(true, std::memory_order_acquire); ++n) pause(n);
  }
  bool try_lock() { return !word_.exchange(true, std::memory_order_acquire); }
  void unlock() { word_.store(false, std::memory_order_release); }

 private:
  static void pause(int n);
  std::atomic<bool> word_{false};
};

struct Lease {  // an extent that this client writes
  uint32_t extent = 0, generation = 0;
  uint64_t offset = 0, size = 0, cursor = 0;
  uint32_t building = 0;  // created, neither sealed nor aborted
  bool done = false;      // nothing more is created here
};

struct MappedSegment {  // another client's data memfd (or the own one), read-only; never freed
  uint32_t segment = 0;
  std::atomic<uint8_t*> base{nullptr};  // null = unmapped
  std::atomic<MappedSegment*> next{nullptr};
};

struct Request {  // an answer that somebody waits for
  std::atomic<bool> done{false};
  uint64_t number = 0;
  Status status;
  GrantRecord grant{};
  LocatedRecord located{};
  Fd fd;              // of a segment, or of a copy
};

// For waits with an end. ThreadSanitizer does not know waits on the steady clock.
#ifdef __SANITIZE_THREAD__
using WaitClock = std::chrono::system_clock;
#else
using WaitClock = std::chrono::steady_clock;  // the other one may be set back
#endif

class ClientImpl final : public Client {
 public:
  Usage usage() const;
  uint64_t pinned_bytes();
  uint64_t pinned_lately();
  bool disconnected() const override { return disconnected_.load(std::memory_order_relaxed); }
  ~ClientImpl() override;
  static Result<std::unique_ptr<Client>> open(const std::string& path, const std::string& token,
                                              uint32_t process);
  Status create(const ObjectId& id, uint64_t size, int64_t timeout_ns, Building* out) override;
  Status seal(Building* building, Location* out) override;
  void abort(Building* building) override;
  Status pin(const ObjectId& id, const Location& hint, int64_t timeout_ns, int64_t within_ns, Pin* out) override {
    return pin(id, hint, timeout_ns, within_ns, out, false);
  }
  Status pin(const ObjectId& id, const Location& hint, int64_t timeout_ns, int64_t within_ns, Pin* out, bool may_be_apart);
  void unpin(Pin* pin) override;
  void drop(const ObjectId& id, const Location& hint) override;

 private:
  // ---- client.cc: connection, creation
  Status hello(const std::string& path, const std::string& token, uint32_t process);
  Status map(StoreWelcome w, std::vector<Fd> fds);
  bool forked() const { return guard_->load(std::memory_order_relaxed) == 0; }
  Status forked_error() const;
  ObjectHeader* header_of(uint64_t offset) const {
    return reinterpret_cast<ObjectHeader*>(arena_.data() + offset);
  }
  Status create_small(uint64_t need, int64_t timeout_ns, Lease** lease, uint64_t* offset);
  Status create_large(uint64_t size, int64_t timeout_ns, Lease** lease, uint64_t* offset);
  bool bump(uint64_t need, Lease** lease, uint64_t* offset);  // under mu_
  Status refill(int64_t timeout_ns);
  Lease* adopt(const GrantRecord& g);
  void ask_ahead();                    // under mu_
  bool finish_building(Lease* lease);  // under mu_: true = nothing more will be published in it
  void protect(const Lease& lease);    // under mu_
  void protect_now(uint64_t offset, uint64_t size);
  void protect_survivors();  // under mu_
  void unprotect(uint64_t offset, uint64_t size);
  void commit_object(Lease* lease, uint64_t offset, const ObjectId& id, const Building& b);

  // ---- the publish ring, under mu_
  bool room(uint64_t bytes);
  void push(uint16_t type, const void* data, uint32_t size);  // queues what does not fit
  void flush_overflow();
  Status wait_for_room(int64_t timeout_ns);
  // After the release of mu_. Urgent: somebody waits for what was committed.
  void wake_daemon(bool urgent);
  void start_flusher();
  void flush_until_empty();

  // ---- client_pin.cc
  enum class Try { kPinned, kMiss, kUnmapped };
  Try try_pin(const ObjectId& id, const Location& at, uint32_t hold, Pin* out);
  Status pin_slow(const ObjectId& id, const Location& hint, int64_t timeout_ns, int64_t within_ns,
                  uint32_t hold, Pin* out, bool may_be_apart);
  Status take_apart(Fd fd, uint64_t request, Pin* out);
  void give_apart_back(uint64_t request);
  Status pin_located(const ObjectId& id, const Location& at, int64_t within_ns, uint32_t hold, Pin* out, bool* missed);
  bool take_hold(uint64_t word, uint32_t* out);
  void clear_hold(uint32_t hold);
  void give_hold(uint32_t hold);
  MappedSegment* find_segment(uint32_t segment) const;
  Status map_segment(uint32_t segment, int64_t within_ns);
  void unmap_retired();
  std::atomic<uint64_t>* hold_words() const {
    return reinterpret_cast<std::atomic<uint64_t>*>(control_.data() + kHoldsAt);
  }

  // ---- client_fork.cc: pins that children inherited
  void watch_forks();
  void forget_forks();
  static void before_fork();
  static void after_fork();
  static void in_child();
  bool kept_for_children(uint32_t hold);
  void look_for_children(bool now);
  bool read_by_children();

  // ---- client_wait.cc: requests and answers
  void enlist(Request* r);
  Status await(Request* r, int64_t timeout_ns, int64_t within_ns = -1);
  void forget(Request* r);
  void give_up(Request* r);  // under wait_mu_
  static bool interrupted();  // see Interruptible
  void drain_returns();                 // under wait_mu_
  void answer(const RecordView& view);  // under wait_mu_
  void poll_socket(int64_t timeout_ns);
  void read_socket();
  void take_socket_answer(const SegmentMessage& m, Fd fd, bool lost);  // under wait_mu_

  Fd socket_;
  uint32_t segment_ = 0;
  uint32_t process_ = 0;
  DataGeometry geometry_;
  uint64_t small_limit_ = 0;
  Mapping guard_page_;  // wiped on fork: how a child knows
  std::atomic<uint32_t>* guard_ = nullptr;
  Mapping control_, arena_, directory_map_;
  ControlHeader* control_page_ = nullptr;
  DirectoryReader directory_;
  Location last_{};

  SpinLock mu_;  // leases and the publish ring
  RingProducer publish_;
  uint64_t head_seen_ = 0;
  uint64_t outstanding_ = 0;  // buildings: each owns room for its publish record
  struct Queued {
    uint16_t type;
    uint32_t size;
    char bytes[56];
  };
  std::vector<Queued> overflow_;
  size_t overflow_at_ = 0;
  std::atomic<bool> overflowed_{false};
  Lease* current_ = nullptr;
  std::vector<std::unique_ptr<Lease>> leases_;  // all that are open
  std::vector<Lease*> spare_leases_;
  Request ahead_;
  bool ahead_asked_ = false, ahead_refused_ = false;
  std::vector<bool> protected_;  // per unit: read-only in this process
  uint32_t protected_extents_ = 0;
  struct Unprotected {  // a closed extent that is probably leased to us again soon
    uint64_t offset, size;
    int64_t closed_ns;
  };
  std::deque<Unprotected> unprotected_;
  uint32_t recycled_ = 0;  // extents in a row that came back while still warm
  uint32_t woken_nap_ = 0;

  std::timed_mutex refill_mu_;

  SpinLock hold_mu_;
  std::vector<uint32_t> free_holds_;
  uint32_t hold_limit_ = 0;
  uint64_t recent_ = 0;
  struct Inherited {  // of one fork
    std::shared_ptr<Fd> children;  // ends when none of them is left
    std::vector<bool> holds;       // that were in use
    std::vector<uint32_t> kept;    // those of them that were unpinned here meanwhile
  };
  std::vector<Inherited> inherited_;
  std::atomic<int64_t> pinned_seen_ns_{0};  // when pinned_lately() looked
  std::atomic<uint64_t> pinned_seen_{0};
  std::atomic<bool> any_inherited_{false};
  std::atomic<int64_t> next_look_{0};

  static constexpr uint32_t kSegmentTable = 1024;
  std::atomic<MappedSegment*> segments_[kSegmentTable] = {};
  std::mutex segments_mu_;  // mapping and unmapping
  uint64_t retired_seen_ = 0;
  std::vector<std::pair<uint32_t, uint8_t*>> to_unmap_;

  std::mutex wait_mu_;
  std::condition_variable wait_cv_;
  bool leader_ = false;
  std::atomic<bool> disconnected_{false};
  std::map<uint64_t, Request*> requests_;
  std::atomic<uint64_t> next_request_{1};
  RingConsumer returns_;
  uint32_t naps_ = 0;

  std::mutex flusher_mu_;
  std::thread flusher_;  // only while something is queued that did not fit the ring
  std::atomic<bool> flusher_runs_{false}, stop_{false};
};

}  // namespace ray::store
