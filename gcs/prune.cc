// See prune.h.
#include "gcs/prune.h"

#include <dirent.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "gcs/schema.h"
#include "libray/base/clock.h"
#include "libray/base/fault.h"
#include "libray/base/log.h"

namespace ray::gcs {
namespace {

uint64_t environment(const char* name, uint64_t otherwise) {
  const char* text = std::getenv(name);
  char* end = nullptr;
  uint64_t n = text && *text ? std::strtoull(text, &end, 10) : otherwise;
  return end && *end ? otherwise : n;
}

// How many rows over the limit start a round, so that rounds are rare.
uint64_t slack(uint64_t limit) { return std::max<uint64_t>(limit / 8, 1); }

// Ids are compared as blobs: `||` makes text of the same bytes.
#define TASK_OF(object) "CAST(substr(" object ",1,20)||x'00000000' AS BLOB)"

constexpr char kChoose[] =
    "INSERT INTO temp.gone SELECT id FROM task_rows t WHERE end_ns<=?1 AND NOT COALESCE(again>execution, 0) "
    "AND id NOT IN (SELECT id FROM temp.needed)";

// What must stay, as one shard's file tells it: ids of tasks.
constexpr const char* kNeeded[] = {
    "SELECT parent FROM task_rows WHERE end_ns IS NULL AND parent IS NOT NULL",
    "SELECT parent FROM task_rows WHERE again IS NOT NULL AND again>execution AND parent IS NOT NULL",
    "SELECT " TASK_OF("a.object") " FROM task_rows u JOIN arg_rows a ON a.task=u.id WHERE u.end_ns IS NULL",
    "SELECT " TASK_OF("a.object") " FROM task_rows u JOIN arg_rows a ON a.task=u.id WHERE u.again IS NOT NULL AND "
    "u.again>u.execution",
    "SELECT " TASK_OF("key") " FROM state WHERE tbl=3 AND json NOT LIKE '%\"state\": \"DEAD\"%'"};

constexpr int64_t kQuietNs = 1'000'000'000;
constexpr int64_t kStateNs = 10'000'000'000;  // how long the size of what pruning cannot take is believed
constexpr uint64_t kBlindRows = 1'000'000;  // over twice the limit: then nobody is waited for

}  // namespace

PruneLimits PruneLimits::from_environment() {
  PruneLimits l;
  l.tasks = environment("LIBRAY_TASK_ROWS", l.tasks);
  l.events = environment("LIBRAY_EVENT_ROWS", l.events);
  l.bytes = environment("LIBRAY_TABLE_BYTES", l.bytes);
  return l;
}

Result<int64_t> Pruner::number(const char* sql) {
  Statement s;
  Status made = s.prepare(db_->get(), sql);
  if (!made.ok()) return made;
  if (s.row()) return s.integer(0);
  return s.done() ? Result<int64_t>(int64_t{0}) : Result<int64_t>(db_->error(sql));
}

Status Pruner::open(Database* db, const std::string& dir, uint32_t shard, PruneLimits limits) {
  db_ = db;
  dir_ = dir;
  shard_ = shard;
  limits_ = limits;
  auto tasks = number("SELECT count(*) FROM task_rows"), events = number("SELECT count(*) FROM event_rows");
  if (!tasks.ok()) return tasks.status();
  if (!events.ok()) return events.status();
  tasks_ = static_cast<uint64_t>(*tasks);
  events_ = static_cast<uint64_t>(*events);
  RAY_TRY(page_count_.prepare(db->get(), "PRAGMA page_count"));
  RAY_TRY(free_count_.prepare(db->get(), "PRAGMA freelist_count"));
  RAY_TRY(page_size_.prepare(db->get(), "PRAGMA page_size"));
  Statement meta;  // for `libray status`
  RAY_TRY(meta.prepare(db->get(), "INSERT OR REPLACE INTO meta VALUES('limit_bytes',?)"));
  RAY_TRY(meta.bind(1, static_cast<int64_t>(limits.bytes)).run());
  return db_->exec("CREATE TEMP TABLE IF NOT EXISTS gone(id BLOB PRIMARY KEY) WITHOUT ROWID;"
                   "CREATE TEMP TABLE IF NOT EXISTS needed(id BLOB PRIMARY KEY) WITHOUT ROWID");
}

// Keys and values, actors, definitions: they go with whoever made them, and tasks do not pay for them.
Status Pruner::measure_state() {
  if (steady_ns() < measure_at_) return {};
  auto bytes = number("SELECT COALESCE(sum(length(key)+length(value)+COALESCE(length(json), 0)), 0) FROM state");
  if (!bytes.ok()) return bytes.status();
  state_bytes_ = static_cast<uint64_t>(*bytes);
  measure_at_ = steady_ns() + kStateNs;
  return {};
}

// Too many bytes: so many rows may stay that an eighth of the limit is free afterwards.
Status Pruner::weigh() {
  if (limits_.bytes == 0) return {};
  uint64_t value[3];
  Statement* all[3] = {&page_count_, &free_count_, &page_size_};
  for (int k = 0; k < 3; ++k) {
    if (!all[k]->row()) return db_->error("measure the tables");
    value[k] = static_cast<uint64_t>(all[k]->integer(0));
    all[k]->reset();
  }
  uint64_t used = (value[0] - value[1]) * value[2];
  if (used <= limits_.bytes) return {};
  RAY_TRY(measure_state());
  used -= std::min(used, state_bytes_);
  if (used <= limits_.bytes) return {};
  const double share = 0.875 * static_cast<double>(limits_.bytes) / static_cast<double>(used);
  keep_tasks_ = std::min(keep_tasks_, static_cast<uint64_t>(static_cast<double>(tasks_) * share));
  keep_events_ = std::min(keep_events_, static_cast<uint64_t>(static_cast<double>(events_) * share));
  return {};
}

bool Pruner::quiet() const { return steady_ns() < quiet_until_; }

Status Pruner::step(uint64_t tasks, uint64_t events) {
  tasks_ += tasks;
  events_ += events;
  if (quiet()) return {};
  keep_tasks_ = keep_events_ = UINT64_MAX;
  if (limits_.tasks && tasks_ >= limits_.tasks + slack(limits_.tasks)) keep_tasks_ = limits_.tasks;
  if (limits_.events && events_ >= limits_.events + slack(limits_.events)) keep_events_ = limits_.events;
  RAY_TRY(weigh());
  if (keep_tasks_ < tasks_) {
    quiet_until_ = steady_ns() + kQuietNs;  // unless it does all
    RAY_TRY(in_transaction(&Pruner::prune_tasks));
  }
  if (keep_events_ < events_) RAY_TRY(in_transaction(&Pruner::prune_events));
  return {};
}

// Ids that one file says must stay, into temp.needed.
Status Pruner::note_needed(Database* db) {
  Statement insert;
  RAY_TRY(insert.prepare(db_->get(), "INSERT OR IGNORE INTO temp.needed VALUES(?)"));
  for (const char* sql : kNeeded) {
    Statement s;
    RAY_TRY(s.prepare(db->get(), sql));
    while (s.row()) RAY_TRY(insert.bind_blob(1, s.blob(0)).run());
    if (!s.done()) return db->error("look for what is needed");
  }
  return {};
}

// What the other shards' files say must stay, and up to when they know. One that cannot be read knows nothing.
Status Pruner::ask_others(int64_t* horizon_ns) {
  DIR* d = ::opendir(dir_.c_str());
  if (!d) return errno_error(RAY_UNAVAILABLE, "cannot read %s", dir_.c_str());
  std::vector<uint32_t> others;
  while (dirent* entry = ::readdir(d)) {
    unsigned k;
    char end, more;
    if (std::sscanf(entry->d_name, "gcs-%u.d%c%c", &k, &end, &more) == 2 && end == 'b' && k != shard_) others.push_back(k);
  }
  ::closedir(d);
  for (uint32_t k : others) {
    auto db = open_database(database_path(dir_, k), false, 512);
    Statement s;
    int64_t knows = 0;
    if (db.ok() && s.prepare(db->get(), "SELECT min(horizon_ns) FROM node_rows WHERE epoch IS NOT NULL").ok() && s.row())
      knows = s.integer(0);
    s = Statement();
    // In this order: what it says after the mark holds for all before it.
    if (knows != 0 && !note_needed(&*db).ok()) knows = 0;
    *horizon_ns = std::min(*horizon_ns, knows);
  }
  return {};
}

Status Pruner::in_transaction(Status (Pruner::*body)()) {
  RAY_TRY(db_->exec("BEGIN IMMEDIATE"));
  const uint64_t tasks = tasks_, events = events_;
  Status s = (this->*body)();
  if (s.ok()) s = db_->exec("COMMIT");
  if (s.ok()) return s;
  (void)db_->exec("ROLLBACK");
  tasks_ = tasks, events_ = events;  // all are there again
  return s;
}

Status Pruner::prune_tasks() {
  auto rows = number("SELECT count(*) FROM task_rows");
  if (!rows.ok()) return rows.status();
  tasks_ = static_cast<uint64_t>(*rows);
  if (tasks_ <= keep_tasks_) return {};
  Statement oldest, choose, meta;
  RAY_TRY(oldest.prepare(db_->get(), "SELECT end_ns FROM task_rows WHERE end_ns IS NOT NULL ORDER BY end_ns LIMIT 1 "
                                     "OFFSET ?"));
  oldest.bind(1, static_cast<int64_t>(tasks_ - keep_tasks_ - 1));
  if (!oldest.row())  // nearly all of them are unfinished
    return oldest.done() ? Status{} : db_->error("look for the oldest tasks");
  int64_t until = oldest.integer(0), horizon = INT64_MAX;
  oldest.reset();
  RAY_TRY(db_->exec("DELETE FROM temp.gone; DELETE FROM temp.needed"));
  RAY_TRY(ask_others(&horizon));
  RAY_TRY(note_needed(db_));
  const bool blind = limits_.tasks && tasks_ > 2 * limits_.tasks + kBlindRows;
  RAY_TRY(choose.prepare(db_->get(), kChoose));
  RAY_TRY(choose.bind(1, blind ? until : std::min(until, horizon)).run());
  for (const char* sql : {"DELETE FROM execution_rows WHERE task IN (SELECT id FROM temp.gone)",
                          "DELETE FROM arg_rows WHERE task IN (SELECT id FROM temp.gone)",
                          "DELETE FROM object_rows WHERE " TASK_OF("id") " IN (SELECT id FROM temp.gone)",
                          "DELETE FROM task_rows WHERE id IN (SELECT id FROM temp.gone)"})
    RAY_TRY(db_->exec(sql));
  int64_t gone = db_->changes();
  RAY_FAULT("gcs.prune.mid");
  RAY_TRY(meta.prepare(db_->get(), "INSERT INTO meta VALUES('pruned_tasks',?1) ON CONFLICT(key) DO UPDATE SET "
                                   "value=value+?1"));
  RAY_TRY(meta.bind(1, gone).run());
  RAY_TRY(db_->exec("DELETE FROM temp.gone; DELETE FROM temp.needed"));
  tasks_ -= static_cast<uint64_t>(gone);
  if (2 * static_cast<uint64_t>(gone) >= tasks_ + static_cast<uint64_t>(gone) - keep_tasks_) quiet_until_ = 0;
  if (gone == 0) return {};
  log(kLogInfo, "gcs", "pruned", "%lld rows of tasks that ended long ago are gone (LIBRAY_TASK_ROWS is %llu)",
      static_cast<long long>(gone), static_cast<unsigned long long>(limits_.tasks));
  return {};
}

Status Pruner::prune_events() {
  auto rows = number("SELECT count(*) FROM event_rows");
  if (!rows.ok()) return rows.status();
  events_ = static_cast<uint64_t>(*rows);
  if (events_ <= keep_events_) return {};
  Statement s;
  RAY_TRY(s.prepare(db_->get(), "DELETE FROM event_rows WHERE sn<=(SELECT sn FROM event_rows ORDER BY sn LIMIT 1 "
                                "OFFSET ?)"));
  RAY_TRY(s.bind(1, static_cast<int64_t>(events_ - keep_events_ - 1)).run());
  events_ -= static_cast<uint64_t>(db_->changes());
  return {};
}

}  // namespace ray::gcs
