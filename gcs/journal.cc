// See journal.h.
#include "gcs/journal.h"

#include <dirent.h>
#include <sqlite3.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "libray/base/fault.h"
#include "libray/base/log.h"

namespace ray::gcs {
namespace {

constexpr int kCacheKib = 512;
constexpr char kColumns[] = "SELECT sn,kind,node,epoch,lsn,n,codec,raw,crc,blob FROM log WHERE sn>? "
                            "ORDER BY sn";

std::string prefix_of(uint32_t shard) { return strprintf("gcs-%u.log.", shard); }
std::string segment_path(const std::string& dir, uint32_t shard, uint64_t first_sn) {
  return strprintf("%s/%s%016llx", dir.c_str(), prefix_of(shard).c_str(),
                   static_cast<unsigned long long>(first_sn));
}

int64_t checksum(const Entry& e) {
  struct {
    uint64_t sn, lsn, raw, kind, epoch, n, codec;
    uint8_t node[kIdSize];
  } head = {e.sn, e.lsn, e.raw_size, static_cast<uint64_t>(e.kind), e.epoch, e.n,
            static_cast<uint64_t>(e.codec), {}};
  std::memcpy(head.node, e.node.b, kIdSize);
  uint64_t seed = XXH3_64bits(&head, sizeof head);
  return static_cast<int64_t>(XXH3_64bits_withSeed(e.blob.data(), e.blob.size(), seed));
}

// False when the row cannot be what was written.
bool entry_of(const Statement& s, Entry* e) {
  e->sn = static_cast<uint64_t>(s.integer(0));
  e->kind = static_cast<int>(s.integer(1));
  std::string_view node = s.blob(2);
  e->node = Id{};
  if (node.size() == kIdSize) std::memcpy(e->node.b, node.data(), kIdSize);
  e->epoch = static_cast<uint32_t>(s.integer(3));
  e->lsn = static_cast<uint64_t>(s.integer(4));
  e->n = static_cast<uint32_t>(s.integer(5));
  e->codec = static_cast<Codec>(s.integer(6));
  e->raw_size = static_cast<uint64_t>(s.integer(7));
  e->blob = s.blob(9);
  return s.integer(8) == checksum(*e);
}

}  // namespace

std::vector<JournalFile> list_segments(const std::string& dir, uint32_t shard) {
  std::vector<JournalFile> files;
  std::string prefix = prefix_of(shard);
  DIR* d = opendir(dir.c_str());
  if (!d) return files;
  while (dirent* entry = readdir(d)) {
    std::string name = entry->d_name;
    if (name.size() != prefix.size() + 16 || name.compare(0, prefix.size(), prefix) != 0) continue;
    uint64_t sn = std::strtoull(name.c_str() + prefix.size(), nullptr, 16);
    files.push_back({sn, dir + "/" + name});
  }
  closedir(d);
  std::sort(files.begin(), files.end(),
            [](const JournalFile& x, const JournalFile& y) { return x.first_sn < y.first_sn; });
  return files;
}

void remove_segment(const std::string& path) {
  ::unlink(path.c_str());
  ::unlink((path + "-wal").c_str());
  ::unlink((path + "-shm").c_str());
}

Result<std::unique_ptr<Journal>> Journal::open(const Options& options, uint64_t after_sn,
                                               const std::function<bool(const Entry&)>& replay) {
  std::unique_ptr<Journal> j(new Journal(options));
  j->last_sn_ = after_sn;
  bool cut = false;
  for (const JournalFile& file : list_segments(options.dir, options.shard)) {
    if (!cut) RAY_TRY(j->replay_segment(file, after_sn, &cut, replay));
    if (cut && file.first_sn > j->last_sn_) {
      log(kLogError, "gcs", "journal-cut", "%s follows a damaged record and is set aside",
          file.path.c_str());
      std::rename(file.path.c_str(), (file.path + ".bad").c_str());
      std::rename((file.path + "-wal").c_str(), (file.path + ".bad-wal").c_str());
      ::unlink((file.path + "-shm").c_str());
      continue;
    }
    j->segments_.push_back(file);
    j->sizes_.push_back(options.segment_bytes);
  }
  // A new segment at each start: what a crash left in the old one is never written to again.
  RAY_TRY(j->open_segment(j->last_sn_ + 1));
  return j;
}

Status Journal::replay_segment(const JournalFile& file, uint64_t after_sn, bool* cut,
                               const std::function<bool(const Entry&)>& replay) {
  auto db = Database::open(file.path, false, kCacheKib);
  Statement select;
  if (!db.ok() || !select.prepare(db->get(), kColumns).ok()) {
    // Killed while it was made, or damaged: either way nothing in it can be read.
    *cut = true;
    return {};
  }
  select.bind(1, static_cast<int64_t>(after_sn));
  while (select.row()) {
    Entry e;
    bool good = entry_of(select, &e) && e.sn == last_sn_ + 1 && replay(e);
    if (!good) {
      log(kLogError, "gcs", "journal-cut", "%s: record %llu is damaged; the journal ends before it",
          file.path.c_str(), static_cast<unsigned long long>(last_sn_ + 1));
      *cut = true;
      break;
    }
    last_sn_ = e.sn;
  }
  if (!*cut && select.last() != SQLITE_DONE) {
    log(kLogError, "gcs", "journal-cut", "%s cannot be read after record %llu: %s",
        file.path.c_str(), static_cast<unsigned long long>(last_sn_), sqlite3_errmsg(db->get()));
    *cut = true;
  }
  select.reset();
  if (*cut) {
    Statement erase;
    if (erase.prepare(db->get(), "DELETE FROM log WHERE sn>?").ok())
      (void)erase.bind(1, static_cast<int64_t>(last_sn_)).run();
  }
  sqlite3_db_config(db->get(), SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, nullptr);
  return {};
}

Status Journal::open_segment(uint64_t first_sn) {
  std::string path = segment_path(options_.dir, options_.shard, first_sn);
  for (Statement* s : {&insert_, &begin_, &commit_, &rollback_}) *s = Statement();
  hot_.close();
  remove_segment(path);  // an empty one from a start that came to nothing
  while (!segments_.empty() && segments_.back().first_sn >= first_sn) {
    segments_.pop_back();
    sizes_.pop_back();
  }
  auto db = Database::open(path, true, kCacheKib);
  if (!db.ok()) return db.status();
  hot_ = std::move(*db);
  sqlite3_db_config(hot_.get(), SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, nullptr);
  RAY_TRY(hot_.exec("PRAGMA page_size=8192; PRAGMA synchronous=OFF; PRAGMA journal_mode=WAL;"
                    "PRAGMA wal_autocheckpoint=0;"
                    "CREATE TABLE log(sn INTEGER PRIMARY KEY, kind INTEGER, node BLOB, epoch INTEGER,"
                    " lsn INTEGER, n INTEGER, codec INTEGER, raw INTEGER, crc INTEGER, blob BLOB);"
                    "PRAGMA synchronous=NORMAL"));
  RAY_TRY(insert_.prepare(hot_.get(), "INSERT INTO log VALUES(?,?,?,?,?,?,?,?,?,?)"));
  RAY_TRY(begin_.prepare(hot_.get(), "BEGIN IMMEDIATE"));
  RAY_TRY(commit_.prepare(hot_.get(), "COMMIT"));
  RAY_TRY(rollback_.prepare(hot_.get(), "ROLLBACK"));
  hot_bytes_ = hot_rows_ = 0;
  hot_broken_ = false;
  segments_.push_back({first_sn, path});
  sizes_.push_back(0);
  return {};
}

Status Journal::commit(const std::vector<Entry>& entries) {
  if (entries.empty()) return {};
  if (hot_broken_ || !hot_ || hot_bytes_ >= options_.segment_bytes) {
    Status s = open_segment(last_sn_ + 1);
    hot_broken_ = !s.ok();
    if (!s.ok()) return s;
  }
  RAY_FAULT("gcs.journal.before_commit");
  Status s = write(entries);
  if (!s.ok()) {
    // Never write again to a file that failed: what the kernel still holds of it is not known.
    hot_broken_ = true;
    return s;
  }
  RAY_FAULT("gcs.journal.after_commit");
  for (const Entry& e : entries) hot_bytes_ += e.blob.size() + 64;
  hot_rows_ += entries.size();
  last_sn_ = entries.back().sn;
  sizes_.back() = hot_bytes_;
  return {};
}

Status Journal::write(const std::vector<Entry>& entries) {
  if (RAY_FAULT_FAILS("gcs.journal.commit"))
    return error(RAY_UNAVAILABLE, "a fault point asked the commit to fail");
  RAY_TRY(begin_.run());
  Status s;
  for (const Entry& e : entries) {
    insert_.bind(1, static_cast<int64_t>(e.sn)).bind(2, e.kind);
    if (e.kind == Entry::kLineage)
      insert_.bind_blob(3, {reinterpret_cast<const char*>(e.node.b), kIdSize});
    else insert_.bind_null(3);
    insert_.bind(4, e.epoch).bind(5, static_cast<int64_t>(e.lsn)).bind(6, e.n);
    insert_.bind(7, static_cast<int64_t>(e.codec)).bind(8, static_cast<int64_t>(e.raw_size));
    insert_.bind(9, checksum(e)).bind_blob(10, e.blob);
    s = insert_.run();
    if (!s.ok()) break;
  }
  RAY_FAULT("gcs.journal.mid_commit");
  if (s.ok()) s = commit_.run();
  if (!s.ok() && !sqlite3_get_autocommit(hot_.get())) (void)rollback_.run();
  return s;
}

void Journal::drop_through(uint64_t sn, uint64_t retain_bytes) {
  uint64_t left = bytes();
  while (segments_.size() > 1 && segments_[1].first_sn <= sn + 1 && left - sizes_[0] >= retain_bytes) {
    remove_segment(segments_[0].path);
    left -= sizes_[0];
    segments_.erase(segments_.begin());
    sizes_.erase(sizes_.begin());
  }
}

uint64_t Journal::bytes() const {
  uint64_t n = 0;
  for (uint64_t s : sizes_) n += s;
  return n;
}

Status JournalReader::select(const JournalFile& file) {
  if (path_ == file.path) return {};
  select_ = Statement();
  db_.close();
  path_.clear();
  auto db = Database::open(file.path, false, 256);
  if (!db.ok()) return db.status();
  db_ = std::move(*db);
  sqlite3_db_config(db_.get(), SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, nullptr);
  RAY_TRY(select_.prepare(db_.get(), kColumns));
  path_ = file.path;
  return {};
}

Status JournalReader::read(const std::vector<JournalFile>& segments, uint64_t after,
                           const std::function<bool(const Entry&)>& visit) {
  for (size_t k = 0; k < segments.size(); ++k) {
    if (k + 1 < segments.size() && segments[k + 1].first_sn <= after + 1) continue;
    RAY_TRY(select(segments[k]));
    select_.bind(1, static_cast<int64_t>(after));
    bool more = true, good = true;
    while (more && good && select_.row()) {
      Entry e;
      good = entry_of(select_, &e);
      if (good) {
        after = e.sn;
        more = visit(e);
      }
    }
    int last = select_.last();
    select_.reset();
    if (!good) return error(RAY_INTERNAL, "%s: record after %llu is damaged", path_.c_str(),
                            static_cast<unsigned long long>(after));
    if (!more) return {};
    if (last != SQLITE_DONE) return db_.error("read journal");
  }
  return {};
}

}  // namespace ray::gcs
