// See query.h.
#include "gcs/query.h"

#include <sqlite3.h>

#include <vector>

#include "libray/wire/cursor.h"
#include "gcs/ops.h"
#include "gcs/schema.h"
#include "libray/base/clock.h"

namespace ray::gcs {
namespace {

constexpr int64_t kMaxQueryNs = 10'000'000'000;

struct Source {
  std::string_view what;
  const char* select;
  // Columns that hold ids: filtered on the indexed blobs behind them.
  struct {
    std::string_view column;
    const char* base;
  } ids[3];
};
const Source kSources[] = {
    {"tasks", kSelectTasks, {{"task", "t.id"}, {"actor", "t.actor"}, {"", nullptr}}},
    {"objects", kSelectObjects, {{"object", "b.id"}, {"producer", "b.producer"}, {"", nullptr}}},
    {"errors", "SELECT * FROM errors", {}},
    {"events", "SELECT * FROM events", {}},
};

const Source* source_of(std::string_view what) {
  for (const Source& s : kSources)
    if (s.what == what) return &s;
  return nullptr;
}

bool from_hex(std::string_view hex, std::string* out) {
  if (hex.size() % 2) return false;
  for (size_t k = 0; k < hex.size(); ++k) {
    char c = hex[k];
    int v = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 :
            c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
    if (v < 0) return false;
    if (k % 2 == 0) out->push_back(static_cast<char>(v << 4));
    else out->back() = static_cast<char>(out->back() | v);
  }
  return true;
}

// One condition's value; ids may come as hex or as 24 bytes.
struct Value {
  std::string_view packed;
  bool is_id = false;
};

void bind(sqlite3_stmt* s, int at, const Value& v) {
  wire::Cursor r(v.packed);
  switch (r.peek()) {
    case wire::Type::kInt: sqlite3_bind_int64(s, at, r.int64()); return;
    case wire::Type::kUint:
      sqlite3_bind_int64(s, at, static_cast<int64_t>(r.uint64()));
      return;
    case wire::Type::kBool: sqlite3_bind_int64(s, at, r.boolean()); return;
    case wire::Type::kFloat: sqlite3_bind_double(s, at, r.float64()); return;
    case wire::Type::kStr:
    case wire::Type::kBin: {
      std::string text(r.bytes()), id;
      if (v.is_id) {
        if (text.size() != kIdSize && from_hex(text, &id)) text = id;
        sqlite3_bind_blob(s, at, text.data(), static_cast<int>(text.size()), SQLITE_TRANSIENT);
      } else {
        sqlite3_bind_text(s, at, text.data(), static_cast<int>(text.size()), SQLITE_TRANSIENT);
      }
      return;
    }
    default: sqlite3_bind_null(s, at);
  }
}

void append_row(sqlite3_stmt* s, std::string* out) {
  int n = sqlite3_column_count(s);
  wire::Writer w(out);
  w.map(static_cast<size_t>(n));
  for (int c = 0; c < n; ++c) {
    w.str(sqlite3_column_name(s, c));
    int type = sqlite3_column_type(s, c);
    if (type == SQLITE_INTEGER) w.int64(sqlite3_column_int64(s, c));
    else if (type == SQLITE_FLOAT) w.float64(sqlite3_column_double(s, c));
    else if (type == SQLITE_NULL) w.nil();
    else {
      const void* data = sqlite3_column_blob(s, c);
      std::string_view v(static_cast<const char*>(data), static_cast<size_t>(sqlite3_column_bytes(s, c)));
      type == SQLITE_TEXT ? w.str(v) : w.bin(v);
    }
  }
}

int out_of_time(void* limits) {
  auto* l = static_cast<Query::Limits*>(limits);
  return l->stop || steady_ns() > l->deadline;
}

}  // namespace

bool is_database_query(std::string_view what) { return source_of(what) != nullptr; }

bool parse_filter(std::string_view filter, Filter* out) {
  out->limit = kMaxQueryRows;
  out->fresh_ms = 2000;
  wire::Cursor r(filter);
  if (r.is_nil()) return true;
  for (size_t n = r.map(); n > 0 && r.ok(); --n) {
    std::string_view column = r.bytes(), value = r.value();
    wire::Cursor v(value);
    if (column == "limit") out->limit = std::min<uint64_t>(v.uint64(), kMaxQueryRows);
    else if (column == "fresh_ms") out->fresh_ms = std::min<int64_t>(v.int64(), 60000);
    if (!v.ok()) return false;
  }
  return r.done();
}

Status Query::run(std::string_view what, std::string_view filter, std::string* answer) {
  const Source* source = source_of(what);
  Filter f;
  if (!source || !parse_filter(filter, &f)) return error(RAY_INVALID_ARGUMENT, "malformed query");
  if (!db_) {
    auto db = open_database(path_, false, 512);
    if (!db.ok()) return db.status();
    db_ = std::move(*db);
  }
  std::string inner, outer;
  std::vector<Value> inner_values, values;
  wire::Cursor r(filter);
  for (size_t n = r.is_nil() ? 0 : r.map(); n > 0; --n) {
    std::string_view column = r.bytes(), value = r.value();
    if (column == "limit" || column == "fresh_ms") continue;
    const char* base = nullptr;
    for (auto& id : source->ids)
      if (id.base && id.column == column) base = id.base;
    if (base) {
      inner += std::string(inner.empty() ? " WHERE " : " AND ") + base + "=?";
      inner_values.push_back({value, true});
      continue;
    }
    if (column.find_first_not_of("abcdefghijklmnopqrstuvwxyz_") != std::string_view::npos)
      return error(RAY_INVALID_ARGUMENT, "no column has such a name");
    outer += std::string(outer.empty() ? " WHERE [" : " AND [") + std::string(column) + "] IS ?";
    values.push_back({value, false});
  }
  std::string sql = "SELECT * FROM (" + std::string(source->select) + inner + ")" + outer + " LIMIT " +
                    std::to_string(f.limit);
  sqlite3_stmt* s = nullptr;
  if (sqlite3_prepare_v2(db_.get(), sql.c_str(), -1, &s, nullptr) != SQLITE_OK)
    return error(RAY_INVALID_ARGUMENT, "cannot query %.*s: %s", static_cast<int>(what.size()),
                 what.data(), sqlite3_errmsg(db_.get()));
  int at = 0;
  for (auto* list : {&inner_values, &values})
    for (const Value& v : *list) bind(s, ++at, v);
  limits_.deadline = steady_ns() + kMaxQueryNs;
  sqlite3_progress_handler(db_.get(), 100000, out_of_time, &limits_);
  std::string rows;
  size_t n = 0;
  int rc;
  while ((rc = sqlite3_step(s)) == SQLITE_ROW && rows.size() < kMaxFrame / 2) {
    append_row(s, &rows);
    ++n;
  }
  sqlite3_finalize(s);
  if (rc != SQLITE_DONE && rc != SQLITE_ROW)
    return error(rc == SQLITE_INTERRUPT ? RAY_TIMED_OUT : RAY_INTERNAL, "query of %.*s: %s",
                 static_cast<int>(what.size()), what.data(), sqlite3_errmsg(db_.get()));
  answer->clear();
  wire::Writer(answer).array(n).raw(rows);
  return {};
}

}  // namespace ray::gcs
