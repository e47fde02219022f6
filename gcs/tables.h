// The control store's state machine: tables in RAM, operations on them, deduplication. Pure: no I/O, no
// threads, no clock. Driven by gcs/service.cc; unit tests drive it directly.
//
// How it is driven: step() evaluates one operation and applies it at once; what must be journaled comes
// back as a record with its sequence number sn. The driver gathers steps into a batch, writes their
// records, then calls commit(), or rollback() if they could not be written: then the tables are as
// before the batch. Nothing is answered or published before the commit.
//
// Invariants: (1) sn counts from 1 without gaps, one per record; (2) recover(record) after a restart
// gives the same tables and the same answers to repeated requests as step() gave; (3) a row is in RAM
// unless it was evicted, and only rows that the materialised tables hold (sn <= their watermark) are;
// step() names an evicted row that it needs and is called again after load(); (4) RAM is bounded by the
// cap plus what is not yet materialised.
#pragma once
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "gcs/ops.h"
#include "libray/base/ids.h"
#include "ray.h"

namespace ray::gcs {

struct Request {
  uint64_t client = 0, seq = 0, ack_below = 0;
  uint32_t op = 0;
  std::string_view args;  // one MessagePack array
};

struct Row {
  uint64_t version = 0;  // only grows, also over the deletion of the key
  uint64_t sn = 0;       // of the last change
  bool erased = false;   // kept until the materialised tables know
  bool has_value = true; // false: key known, value on disk
  bool touched = false;  // since the eviction hand passed
  std::string value;
};
struct Change {
  uint64_t sn = 0;
  Table table = Table::kKv;
  std::string key;
  uint64_t version = 0;
  bool erased = false;
  std::string value;
};

// Rows of one table with first <= key < end (end empty = to the last one).
struct Range {
  Table table = Table::kKv;
  std::string first, end;
  bool values = false;  // values too, not only keys and versions
  friend bool operator==(const Range&, const Range&) = default;
};

struct Outcome {
  // kNeed: load the row `need.first` (end is a single nul more), or the range, and step again.
  // kPark: a poll without news: step again after the next commit that changed something.
  enum Kind { kDone, kNeedRow, kNeedRange, kPark } kind = kDone;
  int32_t code = RAY_OK;
  std::string text;    // one line, when code is not RAY_OK
  std::string answer;  // MessagePack array; may be empty when code is not RAY_OK
  uint64_t sn = 0;     // of the record; 0 = nothing changed
  std::string record;  // to be journaled when sn != 0
  Range need;
};

struct LineageOutcome {
  enum Kind { kAccepted, kDuplicate, kGap, kOverlap, kFenced } kind = kAccepted;
  uint64_t sn = 0;         // kAccepted: of the journal record
  uint64_t committed = 0;  // highest lsn of this node's journal
};

// What one journaled control record holds.
struct Record {
  uint64_t client = 0, seq = 0, ack_below = 0;
  int32_t code = 0;
  std::string_view text, answer;
  std::vector<Change> changes;  // sn filled from the caller's
};
bool parse_record(uint64_t sn, std::string_view bytes, Record* out);

class Tables {
 public:
  static constexpr size_t kMaxClients = 4096;       // deduplication windows kept; least recent goes first
  static constexpr size_t kMaxWindow = 4096;        // unacknowledged answers kept per client
  static constexpr size_t kRecentBytes = 4u << 20;  // of changes kept for subscribers that lag

  // Refuse records with this text (RAY_UNAVAILABLE), answer reads. Empty = normal.
  void refuse_writes(std::string why) { refusal_ = std::move(why); }
  bool refusing() const { return !refusal_.empty(); }
  const std::string& refusal() const { return refusal_; }

  // loaded: the ranges that this very request asked for earlier (kNeedRange) and that were loaded.
  Outcome step(const Request& request, int64_t now_ns, const std::vector<Range>& loaded = {});
  LineageOutcome append(const NodeId& node, uint32_t epoch, uint64_t lsn_from, uint32_t n);
  uint64_t committed_lsn(const NodeId& node, uint32_t epoch) const;

  // True when there is news for parked polls.
  bool commit();
  void rollback();
  uint64_t last_sn() const { return last_sn_; }

  // ---- recovery and eviction ----
  // A control record of the journal. False = malformed.
  bool recover(uint64_t sn, std::string_view record);
  void recover_lineage(uint64_t sn, const NodeId& node, uint32_t epoch, uint64_t lsn_to);
  // The materialised tables hold everything up to sn: called once, before recover().
  void restore_sn(uint64_t sn);
  void restore_kv_floor(uint64_t version) { kv_floor_ = batch_kv_floor_ = version; }
  void restore_journal(const NodeId& node, uint32_t epoch, uint64_t lsn);
  void restore_dedup(uint64_t client, uint64_t ack_below, uint64_t seq, int32_t code, std::string text,
                     std::string answer);
  // A row from disk; ignored when RAM knows the key (RAM is newer).
  void load(Table table, std::string_view key, uint64_t version, uint64_t sn, bool has_value,
            std::string_view value);
  // The row is not on disk either.
  void load_absent(Table table, std::string_view key);
  // There are (or may be) rows on disk that RAM does not know.
  void set_on_disk(bool any) { on_disk_ = any; }
  // Drops rows whose last change is <= sn until RAM is at most `target` bytes; at most `max_rows`
  // rows are looked at. Returns the bytes in RAM.
  uint64_t evict(uint64_t sn, uint64_t target, size_t max_rows);

  // ---- reading ----
  uint64_t ram_bytes() const { return bytes_; }
  uint64_t rows() const;
  size_t clients() const { return dedup_.size(); }
  bool on_disk() const { return on_disk_; }

 private:
  friend struct Ops;
  using Map = std::map<std::string, Row, std::less<>>;
  struct Answer {
    int32_t code;
    std::string text, answer;
    uint64_t sn;
  };
  struct ClientState {
    uint64_t ack_below = 0, last_sn = 0;
    std::map<uint64_t, Answer> answers;
  };
  struct JournalState {
    uint32_t epoch = 0;
    uint64_t lsn = 0;
  };
  struct Undo {
    enum { kRow, kAnswer, kJournal } kind;
    Table table = Table::kKv;
    std::string key;
    std::optional<Row> row;
    uint64_t client = 0, seq = 0;
    NodeId node;
    std::optional<JournalState> journal;
  };

  Map& map(Table t) { return maps_[static_cast<size_t>(t)]; }
  const Map& map(Table t) const { return maps_[static_cast<size_t>(t)]; }
  void put_row(Table table, std::string_view key, Row row);
  void drop_row(Map& m, Map::iterator it);
  void apply(const Change& change, std::string value);
  void remember(const Request& request, const Outcome& outcome);
  void forget_clients();
  bool find_repeat(const Request& request, Outcome* out);
  void finish(const Request& request, std::vector<Change> changes, Outcome* out);
  void publish_later(std::vector<Change> changes);
  void trim_recent();

  Map maps_[static_cast<size_t>(Table::kCount)];
  std::unordered_map<uint64_t, ClientState> dedup_;
  std::unordered_map<NodeId, JournalState> journals_;
  std::vector<Undo> undo_;
  std::string refusal_;
  uint64_t last_sn_ = 0, batch_sn_ = 0, bytes_ = 0;  // batch_sn_: last committed
  std::deque<Change> recent_;       // committed changes after recent_floor_, in order
  std::vector<Change> uncommitted_; // of this batch
  uint64_t recent_floor_ = 0, recent_bytes_ = 0;
  // No deleted key of kKv had a higher version: a key that comes (again) begins above it, so that who compares
  // versions never takes it for the one that went.
  uint64_t kv_floor_ = 0, batch_kv_floor_ = 0;
  bool on_disk_ = false;
  size_t hand_table_ = 1;  // eviction hand
  std::string hand_key_;
};

}  // namespace ray::gcs
