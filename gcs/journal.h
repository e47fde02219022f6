// The journal of a shard: what was acknowledged, in order of sequence numbers (sn).
//
// It is a row of segment files "gcs-<shard>.log.<first sn, 16 hex digits>", each a SQLite database in WAL
// mode with one sequential table. Writes are group commits (one transaction per batch); nothing is
// indexed by key. A segment is never checkpointed while it grows and never shrinks: when everything in it
// has been materialised the file is unlinked, so each byte is written once. Its size is what its files
// have on disk: a small commit is a record of a hundred bytes and pages of 16 KiB.
//
// Who uses it: the service's commit thread writes; readers (the materialiser, tools) have their own
// JournalReader. Durability: "os": an acknowledged record survives kill -9 of everything, not the power.
// Invariants: sn are dense; every record carries a checksum over all its fields; open() cuts the journal
// at the first record that is missing or does not match. A commit that fails leaves nothing behind: SQLite
// may fail when all of a transaction, its mark included, is in the file, so the file is cut to where the
// last good commit ended, and records of a segment from the first number of the next segment on are none.
// What cannot be read now (too many files, no memory, a disk that answers with errors) is no damage: then
// open() fails and nothing is touched.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "gcs/sqlite.h"
#include "libray/base/ids.h"
#include "libray/base/status.h"

namespace ray::gcs {

enum class Codec : uint32_t { kNone = 0, kLz4 = 1, kDelta = 2 };  // kDelta: lineage/delta.h

struct Entry {
  enum Kind : int { kControl = 1, kLineage = 2 };
  uint64_t sn = 0;
  int kind = kControl;
  // kLineage: a batch of n records of one node's journal, from lsn on, compressed.
  NodeId node;
  uint32_t epoch = 0, n = 0;
  uint64_t lsn = 0;
  Codec codec = Codec::kNone;
  uint64_t raw_size = 0;
  std::string_view blob;
};

struct JournalFile {
  uint64_t first_sn;
  std::string path;
};
// Segments of a shard on disk, in order. An error when the directory cannot be read: none is not known.
Result<std::vector<JournalFile>> list_segments(const std::string& dir, uint32_t shard);
void remove_segment(const std::string& path);  // with its WAL

class Journal {
 public:
  struct Options {
    std::string dir;
    uint32_t shard = 0;
    uint64_t segment_bytes = 32u << 20;
  };
  // Replays everything after `after_sn` in order; `replay` false = the record is malformed: cut there.
  static Result<std::unique_ptr<Journal>> open(const Options& options, uint64_t after_sn,
                                               const std::function<bool(const Entry&)>& replay);
  // One transaction. Entries' sn go on where the journal ends.
  Status commit(const std::vector<Entry>& entries);
  // Removes the oldest segments that hold nothing after sn, as long as `retain_bytes` remain.
  void drop_through(uint64_t sn, uint64_t retain_bytes);
  const std::vector<JournalFile>& segments() const { return segments_; }
  // What its files have on disk.
  uint64_t bytes() const;
  uint64_t last_sn() const { return last_sn_; }

 private:
  explicit Journal(Options options) : options_(std::move(options)) {}
  Status replay_segment(const JournalFile& file, uint64_t end_sn, uint64_t after_sn, bool* cut,
                        const std::function<bool(const Entry&)>& replay);
  Status open_segment(uint64_t first_sn);
  Status write(const std::vector<Entry>& entries);
  void take_back();

  Options options_;
  Database hot_;
  Statement insert_, begin_, commit_, rollback_;
  uint64_t last_sn_ = 0;
  uint64_t hot_frames_ = 0;  // in the WAL of the segment that is written, after its last good commit
  bool hot_broken_ = false;
  std::vector<JournalFile> segments_;
  std::vector<uint64_t> sizes_;
};

// Reads committed entries in order, across segments. One thread.
class JournalReader {
 public:
  // Entries with sn > after, until `visit` answers false. Bytes are valid during the call only. A record
  // that does not match its checksum ends the reading with an error.
  Status read(const std::vector<JournalFile>& segments, uint64_t after,
              const std::function<bool(const Entry&)>& visit);

 private:
  Status select(const JournalFile& file);
  std::string path_;
  Database db_;
  Statement select_;
};

}  // namespace ray::gcs
