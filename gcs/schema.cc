// See schema.h. Times are nanoseconds since 1970 (…_ns) and ISO 8601 text beside them.
#include "gcs/schema.h"

#include <sqlite3.h>

#include "libray/base/codes.h"

namespace ray::gcs {
namespace {

constexpr int kSchemaVersion = 2;

// Also for databases of before that have another.
constexpr char kUnfinished[] =
    "DROP INDEX IF EXISTS unfinished_by_node;"
    "CREATE INDEX IF NOT EXISTS unfinished_by_submitter ON task_rows(submit_node, submit_process) WHERE end_ns IS NULL";

constexpr char kTables[] = R"(
CREATE TABLE IF NOT EXISTS meta(key TEXT PRIMARY KEY, value) WITHOUT ROWID;
-- Rows of the state machine (gcs/tables.h), by table number and key.
CREATE TABLE IF NOT EXISTS state(tbl INTEGER, key BLOB, version INTEGER, sn INTEGER, value BLOB,
  json TEXT, PRIMARY KEY(tbl, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS dedup(client INTEGER, seq INTEGER, ack_below INTEGER, code INTEGER, text TEXT,
  answer BLOB, PRIMARY KEY(client, seq)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS node_rows(idx INTEGER PRIMARY KEY, node BLOB UNIQUE, epoch INTEGER,
  lsn INTEGER, horizon_ns INTEGER);
CREATE TABLE IF NOT EXISTS function_rows(fn INTEGER PRIMARY KEY, name TEXT, language INTEGER,
  kind INTEGER, size INTEGER);
CREATE TABLE IF NOT EXISTS task_rows(id BLOB PRIMARY KEY, parent BLOB, actor BLOB, fn INTEGER, name TEXT,
  method TEXT, kind INTEGER, handle_seq INTEGER, submit_ns INTEGER, submit_node INTEGER,
  submit_process INTEGER, n_args INTEGER, n_returns INTEGER, args TEXT,
  actor_pos INTEGER, incarnation INTEGER, execution INTEGER, start_ns INTEGER, end_ns INTEGER,
  node INTEGER, process INTEGER, pid INTEGER, code INTEGER, r_size INTEGER, r_format INTEGER,
  r_in_store INTEGER, result TEXT, error TEXT, again INTEGER) WITHOUT ROWID;
-- again: the execution that is about to be, or was; higher than the last that ended = it has not ended.
CREATE INDEX IF NOT EXISTS runs_again ON task_rows(again) WHERE again IS NOT NULL;
CREATE INDEX IF NOT EXISTS stored_by_node ON task_rows(node) WHERE r_in_store = 1;
CREATE INDEX IF NOT EXISTS calls_by_actor ON task_rows(actor, actor_pos) WHERE actor IS NOT NULL;
-- Executions of tasks that ran more than once.
CREATE TABLE IF NOT EXISTS execution_rows(task BLOB, incarnation INTEGER, execution INTEGER,
  actor_pos INTEGER, start_ns INTEGER, end_ns INTEGER, node INTEGER, process INTEGER, pid INTEGER,
  code INTEGER, error TEXT, PRIMARY KEY(task, incarnation, execution)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS arg_rows(task BLOB, idx INTEGER, object BLOB, PRIMARY KEY(task, idx))
  WITHOUT ROWID;
-- Results but the first, which is in the task's row.
CREATE TABLE IF NOT EXISTS object_rows(id BLOB PRIMARY KEY, size INTEGER, format INTEGER,
  in_store INTEGER, node INTEGER, value TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS location_rows(node BLOB, object BLOB, size INTEGER, PRIMARY KEY(node, object))
  WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS event_rows(kind INTEGER, sn INTEGER, idx INTEGER, time_ns INTEGER,
  node INTEGER, process INTEGER, json TEXT, PRIMARY KEY(kind, sn, idx)) WITHOUT ROWID;
)";

#define ISO(ns)                                                                         \
  "CASE WHEN " ns " IS NOT NULL THEN strftime('%Y-%m-%dT%H:%M:%S', " ns                 \
  "/1000000000, 'unixepoch')||printf('.%09dZ', " ns "%1000000000) END"
#define HEX(id) "lower(hex(" id "))"
#define WHEN_CODE(name, number) " WHEN " #number " THEN '" #name "'"
#define CODE(c) "CASE " c RAY_FOR_EACH_CODE(WHEN_CODE) " ELSE " c " END"
#define TASK_COLUMNS                                                                               \
  HEX("t.id") " AS task, " HEX("t.parent") " AS parent, "                                          \
  "COALESCE(NULLIF(t.name,''), f.name, printf('%016x', t.fn)) AS name, "    \
  "NULLIF(t.method,'') AS method, CASE t.kind WHEN 0 THEN 'TASK' WHEN 1 THEN 'ACTOR_CREATE' "      \
  "WHEN 2 THEN 'ACTOR_CALL' END AS kind, "                                                         \
  "CASE WHEN t.actor IS NOT NULL THEN " HEX("t.actor") " END AS actor, t.actor_pos AS actor_pos, " \
  "t.execution AS attempt, t.incarnation AS incarnation, "                                         \
  "CASE WHEN t.end_ns IS NULL THEN 'SUBMITTED' WHEN t.code=0 THEN 'FINISHED' WHEN t.code=1 THEN "  \
  "'CANCELLED' ELSE 'FAILED' END AS state, "                                                       \
  HEX("n.node") " AS node, t.pid AS pid, t.process AS worker, "                                    \
  "t.args AS args, t.result AS result, " CODE("t.code") " AS code, t.error AS error, "             \
  ISO("t.submit_ns") " AS submitted, " ISO("t.start_ns") " AS started, "                           \
  ISO("t.end_ns") " AS ended, t.submit_ns AS submit_ns, t.start_ns AS start_ns, "                  \
  "t.end_ns AS end_ns, " HEX("m.node") " AS submit_node, "                                         \
  "t.submit_process AS submit_process, t.handle_seq AS handle_seq, t.n_args AS n_args, "           \
  "t.n_returns AS n_returns, printf('%016x', t.fn) AS function"
#define TASK_FROM                                                                             \
  " FROM task_rows t LEFT JOIN node_rows n ON n.idx=t.node LEFT JOIN node_rows m ON "         \
  "m.idx=t.submit_node LEFT JOIN function_rows f ON f.fn=t.fn"

// The first return of every task, the other results, and objects that only their locations tell of.
#define OBJECT_BASE                                                                               \
  "(SELECT t.id AS producer, CAST(substr(t.id,1,20)||x'00000001' AS BLOB) AS id, t.r_size AS "    \
  "size, t.r_format AS format, t.r_in_store AS in_store, t.node AS node, t.result AS value, "     \
  "CASE WHEN t.end_ns IS NULL THEN 'PENDING' WHEN t.code=0 THEN 'READY' ELSE 'ERROR' END AS "     \
  "state FROM task_rows t WHERE t.n_returns>0 OR t.r_size IS NOT NULL "                           \
  "UNION ALL SELECT CAST(substr(o.id,1,20)||x'00000000' AS BLOB), o.id, o.size, o.format, "       \
  "o.in_store, o.node, o.value, 'READY' FROM object_rows o)"
#define OBJECT_SELECT                                                                             \
  "SELECT " HEX("b.id") " AS object, " HEX("b.producer") " AS producer, b.state AS state, "       \
  "b.size AS size, CASE b.format WHEN 0 THEN 'RAW' WHEN 1 THEN 'MSGPACK' WHEN 2 THEN 'PICKLE5' "  \
  "WHEN 3 THEN 'ARROW' WHEN 4 THEN 'JAVA' ELSE b.format END AS format, b.in_store AS in_store, "  \
  HEX("n.node") " AS node, b.value AS value FROM " OBJECT_BASE                                    \
  " b LEFT JOIN node_rows n ON n.idx=b.node"

constexpr char kViews[] =
    "CREATE VIEW IF NOT EXISTS functions AS SELECT printf('%016x', fn) AS function, name, CASE language "
    "WHEN 0 THEN 'NATIVE' WHEN 1 THEN 'PYTHON' WHEN 2 THEN 'JAVA' WHEN 3 THEN 'RUST' ELSE language END "
    "AS language, kind, size FROM function_rows;"
    "CREATE VIEW IF NOT EXISTS tasks AS SELECT " TASK_COLUMNS TASK_FROM ";"
    "CREATE VIEW IF NOT EXISTS executions AS SELECT " HEX("e.task") " AS task, e.incarnation, "
    "e.execution AS attempt, e.actor_pos, " HEX("n.node") " AS node, e.pid, e.process AS worker, "
    CODE("e.code") " AS code, e.error, " ISO("e.start_ns") " AS started, " ISO("e.end_ns") " AS ended, "
    "e.start_ns, e.end_ns FROM (SELECT * FROM execution_rows UNION SELECT id, incarnation, execution, "
    "actor_pos, start_ns, end_ns, node, process, pid, code, error FROM task_rows WHERE end_ns IS NOT "
    "NULL) e LEFT JOIN node_rows n ON n.idx=e.node;"
    "CREATE VIEW IF NOT EXISTS task_args AS SELECT " HEX("task") " AS task, idx, " HEX("object")
    " AS object, " HEX("CAST(substr(object,1,20)||x'00000000' AS BLOB)") " AS producer FROM arg_rows;"
    "CREATE VIEW IF NOT EXISTS objects AS " OBJECT_SELECT ";"
    "CREATE VIEW IF NOT EXISTS locations AS SELECT " HEX("object") " AS object, " HEX("node")
    " AS node, size FROM location_rows;"
    "CREATE VIEW IF NOT EXISTS actors AS SELECT " HEX("key") " AS actor, "
    "json_extract(json,'$.state') AS state, json_extract(json,'$.name') AS name, "
    "json_extract(json,'$.ns') AS ns, json_extract(json,'$.class') AS class, "
    "json_extract(json,'$.incarnation') AS incarnation, json_extract(json,'$.node') AS node, "
    "json_extract(json,'$.pid') AS pid, json_extract(json,'$.cause') AS cause, "
    ISO("json_extract(json,'$.created_ns')") " AS created, json AS info FROM state WHERE tbl=3;"
    "CREATE VIEW IF NOT EXISTS nodes AS SELECT " HEX("key") " AS node, json_extract(json,'$.state') AS "
    "state, " ISO("json_extract(json,'$.created_ns')") " AS created, json AS info FROM state WHERE "
    "tbl=7;"
    "CREATE VIEW IF NOT EXISTS jobs AS SELECT " HEX("key") " AS job, json_extract(json,'$.state') AS "
    "state, json_extract(json,'$.name') AS name, " ISO("json_extract(json,'$.created_ns')")
    " AS created, json AS info FROM state WHERE tbl=8;"
    "CREATE VIEW IF NOT EXISTS kv AS SELECT CAST(substr(key,1,instr(key,x'00')-1) AS TEXT) AS ns, "
    "CAST(substr(key,instr(key,x'00')+1) AS TEXT) AS key, version, CAST(value AS TEXT) AS value, "
    "length(value) AS size, hex(value) AS value_hex FROM state WHERE tbl=11;"
    "CREATE VIEW IF NOT EXISTS events AS SELECT " ISO("e.time_ns") " AS time, " HEX("n.node")
    " AS node, e.process, e.json AS info, e.time_ns FROM event_rows e LEFT JOIN node_rows n ON "
    "n.idx=e.node WHERE e.kind=9;"
    "CREATE VIEW IF NOT EXISTS errors AS SELECT " ISO("e.time_ns") " AS time, " HEX("n.node")
    " AS node, e.process, e.json AS info, e.time_ns FROM event_rows e LEFT JOIN node_rows n ON "
    "n.idx=e.node WHERE e.kind=10;"
    "CREATE VIEW IF NOT EXISTS node_journals AS SELECT " HEX("node") " AS node, epoch, lsn FROM "
    "node_rows WHERE epoch IS NOT NULL;";

}  // namespace

const char kSelectTasks[] = "SELECT " TASK_COLUMNS TASK_FROM;
const char kSelectObjects[] = OBJECT_SELECT;

std::string database_path(const std::string& dir, uint32_t shard) {
  return strprintf("%s/gcs-%u.db", dir.c_str(), shard);
}

Result<Database> open_database(const std::string& path, bool create, int cache_kib) {
  auto db = Database::open(path, create, cache_kib);
  if (!db.ok()) return db;
  if (!create) return db;
  // auto_vacuum off, small pages of 8 KiB; temp tables in memory so that nothing else is left on disk.
  RAY_TRY(db->exec("PRAGMA page_size=8192; PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;"
                   "PRAGMA temp_store=MEMORY; PRAGMA journal_size_limit=4194304"));
  Statement version;
  RAY_TRY(version.prepare(db->get(), "PRAGMA user_version"));
  if (!version.row()) return db->error("read the schema's version");
  int64_t found = version.integer(0);
  version = Statement();
  if (found == kSchemaVersion) {
    RAY_TRY(db->exec(kUnfinished));
    return db;
  }
  if (found != 0)
    return ray::error(RAY_UNSUPPORTED, "%s has schema %lld, this version knows %d: use another folder",
                 path.c_str(), static_cast<long long>(found), kSchemaVersion);
  RAY_TRY(db->exec("BEGIN IMMEDIATE"));
  RAY_TRY(db->exec(kTables));
  RAY_TRY(db->exec(kUnfinished));
  RAY_TRY(db->exec(kViews));
  RAY_TRY(db->exec(("PRAGMA user_version=" + std::to_string(kSchemaVersion)).c_str()));
  RAY_TRY(db->exec("COMMIT"));
  return db;
}

}  // namespace ray::gcs
