// See prune.h.
#include "gcs/prune.h"

#include <algorithm>
#include <cstdlib>

#include "gcs/tables.h"
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
#define ACTOR_OF(task) "CAST(substr(" task ",1,20)||x'FFFFFFFF' AS BLOB)"

constexpr char kChoose[] =
    "INSERT INTO temp.gone SELECT id FROM task_rows t WHERE end_ns<=?1 "
    "AND id NOT IN (SELECT parent FROM task_rows WHERE end_ns IS NULL AND parent IS NOT NULL) "
    "AND id NOT IN (SELECT " TASK_OF("a.object") " FROM task_rows u JOIN arg_rows a ON a.task=u.id "
    "WHERE u.end_ns IS NULL) "
    "AND NOT (kind=1 AND EXISTS (SELECT 1 FROM state s WHERE s.tbl=?2 AND s.key=" ACTOR_OF("t.id")
    " AND s.json NOT LIKE '%\"DEAD\"%'))";

}  // namespace

PruneLimits PruneLimits::from_environment() {
  PruneLimits l;
  l.tasks = environment("LIBRAY_TASK_ROWS", l.tasks);
  l.events = environment("LIBRAY_EVENT_ROWS", l.events);
  return l;
}

Result<int64_t> Pruner::number(const char* sql) {
  Statement s;
  Status made = s.prepare(db_->get(), sql);
  if (!made.ok()) return made;
  return s.row() ? s.integer(0) : int64_t{0};
}

Status Pruner::open(Database* db, PruneLimits limits) {
  db_ = db;
  limits_ = limits;
  auto tasks = number("SELECT count(*) FROM task_rows"), events = number("SELECT count(*) FROM event_rows");
  if (!tasks.ok()) return tasks.status();
  if (!events.ok()) return events.status();
  tasks_ = static_cast<uint64_t>(*tasks);
  events_ = static_cast<uint64_t>(*events);
  return db_->exec("CREATE TEMP TABLE IF NOT EXISTS gone(id BLOB PRIMARY KEY) WITHOUT ROWID");
}

Status Pruner::step(uint64_t tasks, uint64_t events) {
  tasks_ += tasks;
  events_ += events;
  if (limits_.tasks && tasks_ >= limits_.tasks + slack(limits_.tasks)) RAY_TRY(in_transaction(&Pruner::prune_tasks));
  if (limits_.events && events_ >= limits_.events + slack(limits_.events))
    RAY_TRY(in_transaction(&Pruner::prune_events));
  return {};
}

Status Pruner::in_transaction(Status (Pruner::*body)()) {
  RAY_TRY(db_->exec("BEGIN IMMEDIATE"));
  Status s = (this->*body)();
  if (s.ok()) s = db_->exec("COMMIT");
  if (!s.ok()) (void)db_->exec("ROLLBACK");
  return s;
}

Status Pruner::prune_tasks() {
  auto rows = number("SELECT count(*) FROM task_rows");
  if (!rows.ok()) return rows.status();
  tasks_ = static_cast<uint64_t>(*rows);
  if (tasks_ <= limits_.tasks) return {};
  Statement oldest, choose, meta;
  RAY_TRY(oldest.prepare(db_->get(), "SELECT end_ns FROM task_rows WHERE end_ns IS NOT NULL ORDER BY end_ns LIMIT 1 "
                                     "OFFSET ?"));
  oldest.bind(1, static_cast<int64_t>(tasks_ - limits_.tasks - 1));
  if (!oldest.row()) return {};  // nearly all of them are unfinished
  int64_t until = oldest.integer(0);
  oldest.reset();
  RAY_TRY(db_->exec("DELETE FROM temp.gone"));
  RAY_TRY(choose.prepare(db_->get(), kChoose));
  RAY_TRY(choose.bind(1, until).bind(2, static_cast<int>(Table::kActors)).run());
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
  RAY_TRY(db_->exec("DELETE FROM temp.gone"));
  tasks_ -= static_cast<uint64_t>(gone);
  log(kLogInfo, "gcs", "pruned", "%lld rows of tasks that ended long ago are gone (LIBRAY_TASK_ROWS is %llu)",
      static_cast<long long>(gone), static_cast<unsigned long long>(limits_.tasks));
  return {};
}

Status Pruner::prune_events() {
  auto rows = number("SELECT count(*) FROM event_rows");
  if (!rows.ok()) return rows.status();
  events_ = static_cast<uint64_t>(*rows);
  if (events_ <= limits_.events) return {};
  Statement s;
  RAY_TRY(s.prepare(db_->get(), "DELETE FROM event_rows WHERE sn<=(SELECT sn FROM event_rows ORDER BY sn LIMIT 1 "
                                "OFFSET ?)"));
  RAY_TRY(s.bind(1, static_cast<int64_t>(events_ - limits_.events - 1)).run());
  events_ -= static_cast<uint64_t>(db_->changes());
  return {};
}

}  // namespace ray::gcs
