// See journal.h.
#include "gcs/journal.h"

#include <dirent.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "libray/base/fault.h"
#include "libray/base/log.h"

namespace ray::gcs {
namespace {

constexpr int kCacheKib = 512;
constexpr uint64_t kPageBytes = 8192, kFrameBytes = kPageBytes + 24, kWalHeader = 32;
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

// Whether SQLite found something wrong with the file itself, and not with what it needs to read it now.
static bool is_damage(int code) {
  int primary = code & 0xFF;
  return primary == SQLITE_CORRUPT || primary == SQLITE_NOTADB || primary == SQLITE_ERROR ||
         code == SQLITE_IOERR_SHORT_READ;
}

static uint64_t size_on_disk(const std::string& path) {
  uint64_t n = 0;
  struct stat st;
  for (const char* suffix : {"", "-wal"})
    if (::stat((path + suffix).c_str(), &st) == 0) n += static_cast<uint64_t>(st.st_size);
  return n;
}

Result<std::vector<JournalFile>> list_segments(const std::string& dir, uint32_t shard) {
  std::vector<JournalFile> files;
  std::string prefix = prefix_of(shard);
  DIR* d = opendir(dir.c_str());
  if (!d) return errno_error(RAY_UNAVAILABLE, "cannot read the journal's directory %s", dir.c_str());
  for (;;) {
    errno = 0;
    dirent* entry = readdir(d);
    if (!entry && errno != 0) {
      Status s = errno_error(RAY_UNAVAILABLE, "cannot read the journal's directory %s", dir.c_str());
      closedir(d);
      return s;
    }
    if (!entry) break;
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
  auto files = list_segments(options.dir, options.shard);
  if (!files.ok()) return files.status();
  for (size_t k = 0; k < files->size(); ++k) {
    const JournalFile& file = (*files)[k];
    const uint64_t end = k + 1 < files->size() ? (*files)[k + 1].first_sn : UINT64_MAX;
    if (!cut) RAY_TRY(j->replay_segment(file, end, after_sn, &cut, replay));
    if (cut && file.first_sn > j->last_sn_) {
      log(kLogError, "gcs", "journal-cut", "%s follows a damaged record and is set aside",
          file.path.c_str());
      std::rename(file.path.c_str(), (file.path + ".bad").c_str());
      std::rename((file.path + "-wal").c_str(), (file.path + ".bad-wal").c_str());
      ::unlink((file.path + "-shm").c_str());
      continue;
    }
    j->segments_.push_back(file);
    j->sizes_.push_back(size_on_disk(file.path));
  }
  // A new segment at each start: what a crash left in the old one is never written to again.
  RAY_TRY(j->open_segment(j->last_sn_ + 1));
  return j;
}

// Records from end_sn on were refused when they were written: their numbers were given again, to the next segment.
Status Journal::replay_segment(const JournalFile& file, uint64_t end_sn, uint64_t after_sn, bool* cut,
                               const std::function<bool(const Entry&)>& replay) {
  auto db = Database::open(file.path, false, kCacheKib);
  if (!db.ok() && db.status().code() == RAY_INVALID_ARGUMENT) {
    *cut = true;
    return {};
  }
  if (!db.ok()) return db.status();
  sqlite3_db_config(db->get(), SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, nullptr);
  Statement select;
  if (Status s = select.prepare(db->get(), kColumns); !s.ok()) {
    // Without its table it was killed while it was made. Damaged: nothing in it can be read.
    const int code = db->last_error();
    *cut = is_damage(code);
    if (*cut) return {};
    return error(RAY_UNAVAILABLE, "cannot read the journal %s: %s", file.path.c_str(), s.message().c_str());
  }
  select.bind(1, static_cast<int64_t>(after_sn));
  while (select.row()) {
    Entry e;
    bool good = entry_of(select, &e) && e.sn == last_sn_ + 1;
    if (good && e.sn >= end_sn) break;
    if (!good || !replay(e)) {
      log(kLogError, "gcs", "journal-cut", "%s: record %llu is damaged; the journal ends before it",
          file.path.c_str(), static_cast<unsigned long long>(last_sn_ + 1));
      *cut = true;
      break;
    }
    last_sn_ = e.sn;
  }
  const int last = select.last();
  if (!*cut && last != SQLITE_DONE && last != SQLITE_ROW) {
    Status why = db->error("read journal");
    if (!is_damage(db->last_error())) return error(RAY_UNAVAILABLE, "%s", why.message().c_str());
    log(kLogError, "gcs", "journal-cut", "%s cannot be read after record %llu: %s",
        file.path.c_str(), static_cast<unsigned long long>(last_sn_), why.message().c_str());
    *cut = true;
  }
  select.reset();
  if (*cut) {
    Statement erase;
    if (erase.prepare(db->get(), "DELETE FROM log WHERE sn>?").ok())
      (void)erase.bind(1, static_cast<int64_t>(last_sn_)).run();
  }
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
                    "PRAGMA wal_autocheckpoint=0"));
  hot_frames_ = 0;
  auto committed = [](void* frames, sqlite3*, const char*, int n) {
    *static_cast<uint64_t*>(frames) = static_cast<uint64_t>(n);
    return SQLITE_OK;
  };
  sqlite3_wal_hook(hot_.get(), committed, &hot_frames_);
  RAY_TRY(hot_.exec("CREATE TABLE log(sn INTEGER PRIMARY KEY, kind INTEGER, node BLOB, epoch INTEGER,"
                    " lsn INTEGER, n INTEGER, codec INTEGER, raw INTEGER, crc INTEGER, blob BLOB);"
                    "PRAGMA synchronous=NORMAL"));
  RAY_TRY(insert_.prepare(hot_.get(), "INSERT INTO log VALUES(?,?,?,?,?,?,?,?,?,?)"));
  RAY_TRY(begin_.prepare(hot_.get(), "BEGIN IMMEDIATE"));
  RAY_TRY(commit_.prepare(hot_.get(), "COMMIT"));
  RAY_TRY(rollback_.prepare(hot_.get(), "ROLLBACK"));
  hot_broken_ = false;
  segments_.push_back({first_sn, path});
  sizes_.push_back(size_on_disk(path));
  return {};
}

// What a commit that failed left in the file: all of it may be there. A crash must not bring it back.
void Journal::take_back() {
  const std::string wal = segments_.back().path + "-wal";
  const uint64_t end = kWalHeader + hot_frames_ * kFrameBytes;
  struct stat st;
  if (::stat(wal.c_str(), &st) != 0 || static_cast<uint64_t>(st.st_size) <= end) return;
  if (::truncate(wal.c_str(), static_cast<off_t>(end)) != 0)
    log(kLogError, "gcs", "journal-failed", "cannot cut %s to %llu bytes: %s", wal.c_str(),
        static_cast<unsigned long long>(end), std::strerror(errno));
}

Status Journal::commit(const std::vector<Entry>& entries) {
  if (entries.empty()) return {};
  if (hot_broken_ || !hot_ || sizes_.back() >= options_.segment_bytes) {
    Status s = open_segment(last_sn_ + 1);
    hot_broken_ = !s.ok();
    if (!s.ok()) return s;
  }
  RAY_FAULT("gcs.journal.before_commit");
  Status s = write(entries);
  if (!s.ok()) {
    // Never write again to a file that failed: what the kernel still holds of it is not known.
    hot_broken_ = true;
    take_back();
    return s;
  }
  RAY_FAULT("gcs.journal.after_commit");
  last_sn_ = entries.back().sn;
  sizes_.back() = kPageBytes + kWalHeader + hot_frames_ * kFrameBytes;
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
    const uint64_t end = k + 1 < segments.size() ? segments[k + 1].first_sn : UINT64_MAX;
    bool over = false;  // what follows was refused when it was written
    while (more && good && !over && select_.row()) {
      Entry e;
      good = entry_of(select_, &e);
      over = good && e.sn >= end;
      if (good && !over) {
        after = e.sn;
        more = visit(e);
      }
    }
    int last = over ? SQLITE_DONE : select_.last();
    select_.reset();
    if (!good) return error(RAY_INTERNAL, "%s: record after %llu is damaged", path_.c_str(),
                            static_cast<unsigned long long>(after));
    if (!more) return {};
    if (last != SQLITE_DONE) return db_.error("read journal");
  }
  return {};
}

}  // namespace ray::gcs
