// See sqlite.h.
#include "gcs/sqlite.h"

#include <sqlite3.h>

namespace ray::gcs {

Statement& Statement::operator=(Statement&& o) noexcept {
  std::swap(stmt_, o.stmt_);
  return *this;
}

Statement::~Statement() { sqlite3_finalize(stmt_); }

Status Statement::prepare(sqlite3* db, const char* sql) {
  sqlite3_finalize(stmt_);
  stmt_ = nullptr;
  if (sqlite3_prepare_v3(db, sql, -1, SQLITE_PREPARE_PERSISTENT, &stmt_, nullptr) == SQLITE_OK)
    return {};
  return ray::error(RAY_INTERNAL, "cannot prepare \"%.60s\": %s", sql, sqlite3_errmsg(db));
}

Statement& Statement::bind(int at, int64_t v) {
  sqlite3_bind_int64(stmt_, at, v);
  return *this;
}
Statement& Statement::bind_blob(int at, std::string_view v) {
  // An empty view may have no address, and SQLite would take that for NULL.
  sqlite3_bind_blob64(stmt_, at, v.empty() ? "" : v.data(), v.size(), SQLITE_STATIC);
  return *this;
}
Statement& Statement::bind_text(int at, std::string_view v) {
  sqlite3_bind_text64(stmt_, at, v.empty() ? "" : v.data(), v.size(), SQLITE_STATIC, SQLITE_UTF8);
  return *this;
}
Statement& Statement::bind_null(int at) {
  sqlite3_bind_null(stmt_, at);
  return *this;
}

// Reset at once when there is no row: a statement that has failed takes no new parameters, and would run with those of
// before, whose bytes may be gone.
bool Statement::row() {
  last_ = sqlite3_step(stmt_);
  if (last_ != SQLITE_ROW) sqlite3_reset(stmt_);
  return last_ == SQLITE_ROW;
}

bool Statement::done() const { return last_ == SQLITE_DONE; }

Status Statement::run() {
  last_ = sqlite3_step(stmt_);
  int reset = sqlite3_reset(stmt_);
  if (last_ == SQLITE_DONE || last_ == SQLITE_ROW) return {};
  (void)reset;
  sqlite3* db = sqlite3_db_handle(stmt_);
  return ray::error(RAY_INTERNAL, "%s (%d)", sqlite3_errmsg(db), sqlite3_extended_errcode(db));
}

void Statement::reset() { sqlite3_reset(stmt_); }
int64_t Statement::integer(int column) const { return sqlite3_column_int64(stmt_, column); }
std::string_view Statement::blob(int column) const {
  const void* data = sqlite3_column_blob(stmt_, column);
  int size = sqlite3_column_bytes(stmt_, column);
  return data ? std::string_view(static_cast<const char*>(data), static_cast<size_t>(size))
              : std::string_view{};
}
bool Statement::is_null(int column) const {
  return sqlite3_column_type(stmt_, column) == SQLITE_NULL;
}

Database& Database::operator=(Database&& o) noexcept {
  std::swap(db_, o.db_);
  return *this;
}

Result<Database> Database::open(const std::string& path, bool create, int cache_kib) {
  Database d;
  int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | (create ? SQLITE_OPEN_CREATE : 0);
  int rc = sqlite3_open_v2(path.c_str(), &d.db_, flags, nullptr);
  if (rc != SQLITE_OK)
    return ray::error(RAY_UNAVAILABLE, "cannot open %s: %s", path.c_str(),
                      d.db_ ? sqlite3_errmsg(d.db_) : "out of memory");
  sqlite3_extended_result_codes(d.db_, 1);
  sqlite3_busy_timeout(d.db_, 10000);
  std::string pragma = "PRAGMA cache_size=-" + std::to_string(cache_kib);
  if (Status s = d.exec(pragma.c_str()); !s.ok()) {
    const int code = d.last_error() & 0xFF;
    // SQLITE_ERROR: its header names a format that there is not.
    const bool damaged = code == SQLITE_NOTADB || code == SQLITE_CORRUPT || code == SQLITE_ERROR;
    return ray::error(damaged ? RAY_INVALID_ARGUMENT : RAY_UNAVAILABLE, "%s", s.message().c_str());
  }
  return d;
}

void Database::close() {
  if (db_) sqlite3_close_v2(db_);
  db_ = nullptr;
}

Status Database::exec(const char* sql) {
  if (sqlite3_exec(db_, sql, nullptr, nullptr, nullptr) == SQLITE_OK) return {};
  return error(sql);
}

Status Database::error(const char* what) const {
  return ray::error(RAY_INTERNAL, "\"%.40s\" in %s: %s (%d)", what, sqlite3_db_filename(db_, "main"),
                    sqlite3_errmsg(db_), sqlite3_extended_errcode(db_));
}

int Database::last_error() const { return sqlite3_extended_errcode(db_); }
int64_t Database::changes() const { return sqlite3_changes64(db_); }

}  // namespace ray::gcs
