// DaemonChannel: the way between this process and the daemon of its node. Up: records in a ring (`up`), requests, which are
// records that an answer comes back for (`request`), and what is journaled (`lineage`). Down: datagrams, which a User gets
// record by record. It knows nothing of tasks and objects.
//
// Who: Runtime and its parts, WorkerSide, the C API for requests. Threads: any sends and asks; `receive` is the receiver
// thread's; connect, detach and close are for a start and an end, when nobody else is here. Files: daemon_channel.cc,
// requests.cc.
//
// Locks, all its own: up_mutex_ and lineage_mutex_ are held for a copy, never for a wait; room_mutex_ is of who waits for
// room in the up ring and comes before up_mutex_; requests_mutex_ comes before both; calls_mutex_ is a leaf. Any of them may
// be taken with Runtime's mutex held, and Runtime's with none of them.
//
// Invariants: (1) what a thread sends up arrives in its order, and the pieces of two requests do not mix; (2) whoever clears
// an armed word of the daemon is the one who rings; (3) the number of a call is never used again, and its entry goes with its
// answer or with whoever waited, whichever is later if the answer makes us hold something, else the latter; (4) nobody waits
// for room once it is known that nobody reads.
#pragma once
#include <atomic>
#include <condition_variable>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "libray/base/ring.h"
#include "libray/base/shm.h"
#include "libray/base/spin.h"
#include "libray/base/status.h"
#include "libray/lineage/delta.h"
#include "libray/lineage/record.h"
#include "libray/wire/protocol.h"

namespace ray {

class DaemonChannel {
 public:
  // Who gets what comes down, and stands behind whoever waits for an answer.
  class User {
   public:
    virtual ~User() = default;
    // Receiver thread, without a lock. A descriptor that belongs to the record is the first of `fds` from *next_fd on.
    virtual void received(uint16_t type, uint16_t flags, const uint8_t* p, size_t n, std::vector<Fd>* fds, size_t* next_fd) = 0;
    virtual void received_all() = 0;       // of a datagram
    virtual void lost(bool closed_here) = 0;  // the last that comes; closed_here: this process has closed the socket
    // A thread that waits for an answer. Why it is not to wait any longer, RAY_OK: it is; under calls_mutex_.
    virtual Status why_over() = 0;
    // It waits for long from here on; what it gets is given back afterwards, null: nothing. Without a lock.
    virtual bool lends() const = 0;  // whether that may be something
    virtual const void* sleeps() = 0;
    virtual void woke(const void* slept) = 0;
    // Any thread, with or without a lock: this process has closed our descriptors. `first`: it was not known before.
    virtual void descriptors_closed(bool first) = 0;
  };
  // A call under way; under calls_mutex_.
  struct Call {
    bool done = false;
    bool abandoned = false;  // nobody waits, and `unclaimed` is to be told
    std::function<void(const std::string& answer)> unclaimed;  // an answer RAY_OK that nobody waits for any more; may be none
    ray_code code = RAY_OK;
    std::string answer;
  };
  static constexpr int64_t kRequestNs = 30000000000;

  explicit DaemonChannel(User* user) : user_(user) {}

  // Says hello in a session, with `extra` as the body of the hello; *text is what the welcome ends with.
  Status connect(const std::string& session_dir, const wire::Hello& hello, const std::string& extra, wire::Welcome* out,
                 std::string* text);
  void set_journaled(bool on) { journaled_ = on; }
  bool journaled() const { return journaled_; }
  wire::NodePage* page() { return page_; }
  wire::ChannelHeader* header() { return channel_; }
  int daemon_pid() const { return daemon_pid_; }

  // ---- up
  template <class Header>
  void up(uint16_t type, const Header& header, const void* tail = nullptr, size_t tail_size = 0) {
    up_bytes(type, &header, sizeof header, tail, tail_size);
  }
  void up_bytes(uint16_t type, const void* a, size_t a_size, const void* b, size_t b_size, uint16_t flags = 0);
  // Writes one lineage record; `fill` writes `size` bytes.
  template <class Fill>
  void lineage(uint16_t type, uint32_t size, Fill fill);

  // ---- requests (requests.cc)
  static Status check_request(const std::string& args);  // the daemon cuts off whoever sends more
  Status request(uint32_t op, const std::string& args, std::string* answer, int64_t timeout_ns = kRequestNs);
  // The same without waiting for the answer.
  void tell(uint32_t op, const std::string& args);
  // In steps: for a call whose number goes up in another record, and for one that must not lose its answer.
  uint64_t begin_call(std::shared_ptr<Call>* out, std::function<void(const std::string&)> unclaimed = nullptr);
  Status transact(uint64_t id, const std::shared_ptr<Call>& call, uint32_t op, const std::string& args, std::string* answer,
                  int64_t timeout_ns);
  Status await_call(uint64_t id, const std::shared_ptr<Call>& call, std::string* answer, int64_t timeout_ns);
  // The daemon was not asked, and will not be.
  void answer_here(uint64_t id, ray_code code, const std::string& text);
  void wake_calls();  // why_over() may say something else now

  // ---- down
  void receive();  // until stop(), or the end of the daemon, which `lost` tells

  // ---- a daemon that does not go on
  // The daemon has read nothing since the last look although there is something; rings it. One caller at a time.
  bool look_unread();
  void warn_if_stopped();  // at most every half minute
  // The other end is closed; waits so long for that.
  bool hung_up(int patience_ms) const;
  void leave_at(int64_t ns) { leave_at_ns_ = ns; }  // of a shutdown: a stopped daemon is waited for no longer

  // ---- end
  void stop();    // `receive` returns, nobody waits for room, calls look why_over()
  void detach();  // nothing shared stays mapped; late records find zeroes
  void close();

 private:
  Status take_welcome(const wire::Welcome& w, std::vector<Fd>* fds);
  bool write_up(uint16_t type, const void* a, size_t a_size, const void* b, size_t b_size, uint16_t flags);
  void send_request(uint64_t id, uint32_t op, const std::string& args);
  void on_datagram(const uint8_t* data, size_t size, std::vector<Fd>* fds);
  void on_reply(const wire::DnReply& r, uint16_t flags, const uint8_t* p, size_t n);
  void wake_daemon(std::atomic<uint32_t>* armed);
  void ring_daemon();
  void knock();
  void await_room(std::atomic<uint32_t>* armed, uint32_t naps);
  bool nobody_reads(uint32_t naps);
  static void too_large(const char* whom, size_t size);

  User* const user_;
  std::string path_;  // of the daemon's socket
  int daemon_pid_ = -1;
  Fd socket_, daemon_event_;
  Mapping page_map_, channel_map_;
  wire::NodePage* page_ = nullptr;
  wire::ChannelHeader* channel_ = nullptr;
  SpinLock up_mutex_, lineage_mutex_;
  std::mutex room_mutex_;
  std::atomic<uint32_t> room_waits_{0};
  RingProducer up_ring_, lineage_ring_;
  lineage::DeltaCoder lineage_coder_;  // under lineage_mutex_, like the next
  alignas(8) uint8_t lineage_record_[lineage::kDeltaWords * 8] = {};
  bool journaled_ = true;  // LIBRAY_LINEAGE=0 turns it off, to measure what it costs
  std::atomic<bool> stopped_{false};
  std::atomic<bool> no_reader_{false};  // of the rings; known before the User is told
  std::atomic<int64_t> leave_at_ns_{INT64_MAX};
  std::atomic<int64_t> warned_ns_{0};
  std::atomic<bool> knocked_{false};  // our descriptors are gone, and people know
  uint64_t up_head_seen_ = 0;         // look_unread()

  std::mutex calls_mutex_, requests_mutex_;
  std::condition_variable calls_cv_;
  std::unordered_map<uint64_t, std::shared_ptr<Call>> calls_;
  uint64_t next_call_ = 1;
};

template <class Fill>
void DaemonChannel::lineage(uint16_t type, uint32_t size, Fill fill) {
  if (__builtin_expect(!journaled_, 0)) return;
  uint8_t coded[lineage::DeltaCoder::kMaxCoded];
  const bool codable = lineage::DeltaCoder::codable(type, size);
  for (uint32_t naps = 0;;) {
    {
      std::lock_guard lock(lineage_mutex_);
      // Small records go as differences from the one before: fewer lines that two processors hand over.
      uint32_t n = 0;
      if (__builtin_expect(codable, 1)) {
        fill(lineage_record_);
        n = lineage_coder_.code(type, lineage_record_, size, coded);
      }
      void* at = n ? lineage_ring_.reserve(lineage::kCoded, n) : lineage_ring_.reserve(type, size);
      if (__builtin_expect(at != nullptr, 1)) {
        if (n) std::memcpy(at, coded, n);
        else if (codable) std::memcpy(at, lineage_record_, size);
        else fill(static_cast<uint8_t*>(at));
        lineage_ring_.publish();
        break;
      }
      if (codable) lineage_coder_.forget(type);
    }
    // No room: the nap is taken without the lock, for those who wait for it would burn a processor each.
    if (nobody_reads(++naps)) return;
    if (size > lineage_ring_.max_payload()) return too_large("the journal", size);
    await_room(&page_->lineage_armed, naps);
  }
  // No fence: when the pump arms too late for this look it finds the record at its next one, before
  // it sleeps without a timer (journal_pump.cc).
  if (__builtin_expect(page_->lineage_armed.load(std::memory_order_relaxed) != 0, 0))
    wake_daemon(&page_->lineage_armed);
}

}  // namespace ray
