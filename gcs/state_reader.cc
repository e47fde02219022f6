// See state_reader.h.
#include "gcs/state_reader.h"

#include <cstring>

#include "gcs/schema.h"

namespace ray::gcs {

namespace {
constexpr size_t kEagerValue = 64u << 10;  // larger values are read when they are needed
}

Result<std::unique_ptr<StateReader>> StateReader::open(const std::string& path) {
  auto s = std::make_unique<StateReader>();
  auto db = open_database(path, false, 256);
  if (!db.ok()) return db.status();
  s->db_ = std::move(*db);
  RAY_TRY(s->row_.prepare(s->db_.get(), "SELECT version,sn,value FROM state WHERE tbl=? AND key=?"));
  RAY_TRY(s->range_.prepare(s->db_.get(),
                            "SELECT key,version,sn,CASE WHEN ?4 THEN value END FROM state WHERE tbl=?1 "
                            "AND key>=?2 AND (?3 IS NULL OR key<?3)"));
  return s;
}

Status StateReader::restore(Tables* tables, uint64_t ram_bytes) {
  Statement s;
  RAY_TRY(s.prepare(db_.get(), "SELECT client,ack_below,seq,code,text,answer FROM dedup"));
  while (s.row())
    tables->restore_dedup(static_cast<uint64_t>(s.integer(0)), static_cast<uint64_t>(s.integer(1)),
                          static_cast<uint64_t>(s.integer(2)), static_cast<int32_t>(s.integer(3)),
                          std::string(s.blob(4)), std::string(s.blob(5)));
  if (!s.done()) return db_.error("read answers");
  RAY_TRY(s.prepare(db_.get(), "SELECT node,epoch,lsn FROM node_rows WHERE epoch IS NOT NULL"));
  while (s.row()) {
    Id node;
    std::string_view b = s.blob(0);
    if (b.size() == kIdSize) std::memcpy(node.b, b.data(), kIdSize);
    tables->restore_journal(node, static_cast<uint32_t>(s.integer(1)),
                            static_cast<uint64_t>(s.integer(2)));
  }
  if (!s.done()) return db_.error("read journals");
  RAY_TRY(s.prepare(db_.get(), "SELECT value FROM meta WHERE key='kv_floor'"));
  if (s.row()) tables->restore_kv_floor(static_cast<uint64_t>(s.integer(0)));
  else if (!s.done()) return db_.error("read the versions of deleted keys");
  // Small tables first; logs, events and task records are read when somebody asks.
  constexpr Table kEager[] = {Table::kFunctions, Table::kActors, Table::kNames,   Table::kActorEnds,
                              Table::kNodes,     Table::kJobs,   Table::kKv,      Table::kObjects};
  bool all = true;
  RAY_TRY(s.prepare(db_.get(), "SELECT key,version,sn,value FROM state WHERE tbl=?1 AND length(value)<=?2"));
  for (Table table : kEager) {
    s.bind(1, static_cast<int64_t>(table)).bind(2, kEagerValue);
    while (all && s.row()) {
      tables->load(table, s.blob(0), static_cast<uint64_t>(s.integer(1)),
                   static_cast<uint64_t>(s.integer(2)), true, s.blob(3));
      all = tables->ram_bytes() < ram_bytes;
    }
    if (all && !s.done()) return db_.error("read rows");
    s.reset();
  }
  if (all) {
    RAY_TRY(s.prepare(db_.get(), "SELECT count(*) FROM state"));
    if (!s.row()) return db_.error("count rows");
    all = static_cast<uint64_t>(s.integer(0)) == tables->rows();
  }
  tables->set_on_disk(!all);
  return {};
}

Status StateReader::load_row(Tables* tables, Table table, std::string_view key) {
  row_.bind(1, static_cast<int64_t>(table)).bind_blob(2, key);
  if (row_.row())
    tables->load(table, key, static_cast<uint64_t>(row_.integer(0)), static_cast<uint64_t>(row_.integer(1)),
                 true, row_.blob(2));
  else if (row_.done())
    tables->load_absent(table, key);
  else {
    row_.reset();
    return db_.error("read row");
  }
  row_.reset();
  return {};
}

Status StateReader::load_range(Tables* tables, const Range& r) {
  range_.bind(1, static_cast<int64_t>(r.table)).bind_blob(2, r.first);
  if (r.end.empty()) range_.bind_null(3);
  else range_.bind_blob(3, r.end);
  range_.bind(4, r.values);
  while (range_.row())
    tables->load(r.table, range_.blob(0), static_cast<uint64_t>(range_.integer(1)),
                 static_cast<uint64_t>(range_.integer(2)), r.values, range_.blob(3));
  bool done = range_.done();
  range_.reset();
  return done ? Status{} : db_.error("read rows");
}

}  // namespace ray::gcs
