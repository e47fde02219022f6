// A thin owner for SQLite connections and statements: closing by scope, errors as Status. Used by the
// journal, the materialiser, queries and tools; one connection is used by one thread at a time.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

#include "libray/base/status.h"

struct sqlite3;
struct sqlite3_stmt;

namespace ray::gcs {

class Statement {
 public:
  Statement() = default;
  Statement(Statement&& o) noexcept : stmt_(o.stmt_) { o.stmt_ = nullptr; }
  Statement& operator=(Statement&& o) noexcept;
  ~Statement();
  Status prepare(sqlite3* db, const char* sql);
  explicit operator bool() const { return stmt_ != nullptr; }
  // Parameters count from 1, columns from 0. Bound views must live until the step is over.
  Statement& bind(int at, int64_t v);
  Statement& bind_blob(int at, std::string_view v);
  Statement& bind_text(int at, std::string_view v);
  Statement& bind_null(int at);
  // One row is there. On an error false too: see error(). When false it is reset.
  bool row();
  // The last row() answered false because there is none, and not because it cannot be read now.
  bool done() const;
  // Runs to the end and resets.
  Status run();
  void reset();
  int64_t integer(int column) const;
  std::string_view blob(int column) const;  // or text; valid until the next row() or reset()
  bool is_null(int column) const;
  int last() const { return last_; }  // SQLite result code of the last step

 private:
  sqlite3_stmt* stmt_ = nullptr;
  int last_ = 0;
};

class Database {
 public:
  Database() = default;
  Database(Database&& o) noexcept : db_(o.db_) { o.db_ = nullptr; }
  Database& operator=(Database&& o) noexcept;
  ~Database() { close(); }
  // cache_kib: how much page cache it may use. RAY_INVALID_ARGUMENT: the file is no database; RAY_UNAVAILABLE: it
  // cannot be opened now.
  static Result<Database> open(const std::string& path, bool create, int cache_kib);
  void close();
  sqlite3* get() const { return db_; }
  explicit operator bool() const { return db_ != nullptr; }
  Status exec(const char* sql);
  // "shard.db: disk I/O error (778)" of the last failure.
  Status error(const char* what) const;
  int last_error() const;  // extended code
  int64_t changes() const;  // rows that the last statement changed

 private:
  sqlite3* db_ = nullptr;
};

}  // namespace ray::gcs
