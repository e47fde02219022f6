// See session_files.h.
#include "libray/cli/session_files.h"

#include <sqlite3.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <memory>

#include "gcs/materialise.h"
#include "libray/node/session.h"

namespace ray::cli {
namespace {

namespace fs = std::filesystem;

bool is_dir(const std::string& path) {
  struct stat st;
  return ::stat(path.c_str(), &st) == 0 && S_ISDIR(st.st_mode);
}

std::string absolute(const std::string& path) {
  std::error_code ec;
  std::string s = fs::weakly_canonical(path, ec).string();
  if (ec) s = path;
  while (s.size() > 1 && s.back() == '/') s.pop_back();
  return s;
}

Cell cell_of(sqlite3_stmt* s, int column) {
  Cell c;
  switch (sqlite3_column_type(s, column)) {
    case SQLITE_INTEGER: return Cell::of(static_cast<int64_t>(sqlite3_column_int64(s, column)));
    case SQLITE_FLOAT: return Cell::of(sqlite3_column_double(s, column));
    case SQLITE_NULL: return c;
    default: break;
  }
  bool blob = sqlite3_column_type(s, column) == SQLITE_BLOB;
  const void* data = sqlite3_column_blob(s, column);
  int n = sqlite3_column_bytes(s, column);
  c.kind = blob ? Cell::kBlob : Cell::kText;
  if (data) c.text.assign(static_cast<const char*>(data), static_cast<size_t>(n));
  return c;
}

struct Finalize {
  void operator()(sqlite3_stmt* s) const { sqlite3_finalize(s); }
};
using Statement = std::unique_ptr<sqlite3_stmt, Finalize>;

Result<Statement> prepare(sqlite3* db, const std::string& path, const std::string& sql,
                          const std::vector<Param>& params) {
  sqlite3_stmt* raw = nullptr;
  if (sqlite3_prepare_v2(db, sql.c_str(), static_cast<int>(sql.size()), &raw, nullptr) != SQLITE_OK)
    return error(RAY_UNAVAILABLE, "cannot read '%s': %s", path.c_str(), sqlite3_errmsg(db));
  Statement s(raw);
  for (size_t i = 0; i < params.size(); ++i) {
    int at = static_cast<int>(i + 1);
    if (params[i].is_integer)
      sqlite3_bind_int64(raw, at, params[i].integer);
    else
      sqlite3_bind_text(raw, at, params[i].text.data(), static_cast<int>(params[i].text.size()),
                        SQLITE_TRANSIENT);
  }
  return Result<Statement>(std::move(s));
}

// Read and write access, for a dead session's WAL can only be read by one who may write; the pragma
// keeps the tool from changing anything. A session on a read-only disk is opened as it lies there.
Result<sqlite3*> open_database(const std::string& path) {
  sqlite3* db = nullptr;
  int rc = sqlite3_open_v2(path.c_str(), &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, nullptr);
  if (rc != SQLITE_OK || sqlite3_db_readonly(db, "main") == 1) {
    sqlite3_close_v2(db);  // with what is prepared on it
    std::string uri = "file:" + path + "?immutable=1";
    rc = sqlite3_open_v2(uri.c_str(), &db, SQLITE_OPEN_READONLY | SQLITE_OPEN_URI, nullptr);
  }
  if (rc != SQLITE_OK) {
    Status s = error(RAY_UNAVAILABLE, "cannot open '%s': %s", path.c_str(), sqlite3_errstr(rc));
    sqlite3_close_v2(db);  // with what is prepared on it
    return s;
  }
  sqlite3_busy_timeout(db, 5000);
  sqlite3_exec(db, "PRAGMA query_only=1; PRAGMA temp_store=MEMORY", nullptr, nullptr, nullptr);
  return db;
}

std::vector<std::string> shard_files(const std::string& session) {
  std::vector<std::string> out;
  std::error_code ec;
  for (const std::string& dir : {session, session + "/gcs"})
    for (const auto& e : fs::directory_iterator(dir, ec)) {
      std::string name = e.path().filename().string();
      if (name.rfind("gcs-", 0) == 0 && name.size() > 7 && name.substr(name.size() - 3) == ".db")
        out.push_back(e.path().string());
    }
  // gcs-2 before gcs-10
  std::sort(out.begin(), out.end(), [](const auto& a, const auto& b) {
    return std::pair(a.size(), a) < std::pair(b.size(), b);
  });
  return out;
}

using Names = std::map<std::string, std::string>;

void task_name(sqlite3_context* context, int, sqlite3_value** values) {
  auto text = [&](int i) {
    auto* p = reinterpret_cast<const char*>(sqlite3_value_text(values[i]));
    return std::string(p ? p : "", static_cast<size_t>(p ? sqlite3_value_bytes(values[i]) : 0));
  };
  auto& names = *static_cast<const Names*>(sqlite3_user_data(context));
  std::string name = text(0);
  if (auto it = names.find(text(1)); it != names.end() && (name.empty() || name == it->first))
    name = it->second;
  if (name.empty()) name = text(1);
  sqlite3_result_text(context, name.data(), static_cast<int>(name.size()), SQLITE_TRANSIENT);
}

}  // namespace

std::string sessions_base() {
  return absolute(node::base_path(""));
}

Result<std::string> find_session(const std::string& requested) {
  // Nothing of a session is read, let alone its databases opened, before it is known to be this user's own.
  if (!requested.empty() && is_dir(requested)) {
    std::string path = absolute(requested);
    RAY_TRY(node::check_session(path));
    return path;
  }
  std::string base = sessions_base();
  auto all = node::list_sessions(base);
  if (requested.empty()) {
    if (!all.empty()) return all.back();
    return error(RAY_NOT_FOUND,
                 "no session in '%s': start one with ray_init, or name one with --session",
                 base.c_str());
  }
  std::vector<std::string> match;
  for (const auto& s : all) {
    std::string name = s.substr(base.size() + 1);
    if (name.find(requested) != name.npos) match.push_back(s);
  }
  if (match.size() == 1) return match[0];
  if (match.empty())
    return error(RAY_NOT_FOUND,
                 "no session '%s': it is neither a directory nor one of those in '%s'",
                 requested.c_str(), base.c_str());
  return error(RAY_INVALID_ARGUMENT, "'%s' fits %zu sessions, among them %s and %s",
               requested.c_str(), match.size(), match[0].substr(base.size() + 1).c_str(),
               match[1].substr(base.size() + 1).c_str());
}

Result<std::string> find_living_session(const std::string& requested, bool in_cluster) {
  if (!requested.empty()) return find_session(requested);
  const auto all = node::list_sessions(sessions_base());
  for (auto s = all.rbegin(); s != all.rend(); ++s)
    if (node_state(*s, read_node_file(*s)) != NodeState::kDead && (!in_cluster || read_cluster_file(*s).found)) return *s;
  return find_session(requested);
}

NodeFile read_node_file(const std::string& session) {
  NodeFile f;
  auto text = node::read_file(session + "/session.json");
  if (!text.ok()) return f;
  // SQLite has a JSON parser that survives anything; the tool needs no second one.
  sqlite3* db = nullptr;
  if (sqlite3_open(":memory:", &db) == SQLITE_OK) {
    auto s = prepare(db, "session.json",
                     "SELECT json_extract(?1,'$.pid'), json_extract(?1,'$.parent_pid'), "
                     "json_extract(?1,'$.started_ns'), json_extract(?1,'$.node'), "
                     "json_extract(?1,'$.store_bytes'), json_extract(?1,'$.gcs_shards'), "
                     "json_extract(?1,'$.gcs_pids'), json_extract(?1,'$.resources')",
                     {Param(*text)});
    if (s.ok() && sqlite3_step(s->get()) == SQLITE_ROW) {
      sqlite3_stmt* row = s->get();
      f.found = sqlite3_column_type(row, 0) == SQLITE_INTEGER;
      f.pid = sqlite3_column_int(row, 0);
      f.parent_pid = sqlite3_column_int(row, 1);
      f.started_ns = sqlite3_column_int64(row, 2);
      f.node = cell_of(row, 3).to_string();
      f.store_bytes = static_cast<uint64_t>(sqlite3_column_int64(row, 4));
      f.gcs_shards = static_cast<uint32_t>(sqlite3_column_int(row, 5));
      std::string pids = cell_of(row, 6).to_string();
      for (const char* at = pids.c_str(); *at;) {
        char* end;
        long pid = std::strtol(at, &end, 10);
        if (end == at)
          ++at;
        else
          f.gcs_pids.push_back(static_cast<int>(pid)), at = end;
      }
      f.resources_json = cell_of(row, 7).to_string();
    }
  }
  sqlite3_close_v2(db);  // with what is prepared on it
  return f;
}

ClusterFile read_cluster_file(const std::string& session) {
  ClusterFile c;
  auto text = node::read_file(session + "/cluster.json");
  sqlite3* db = nullptr;
  if (!text.ok() || sqlite3_open(":memory:", &db) != SQLITE_OK) return c;
  auto head = prepare(db, "cluster.json",
                      "SELECT json_extract(?1,'$.role'), json_extract(?1,'$.head'), json_extract(?1,'$.cluster'), "
                      "json_extract(?1,'$.ended'), json_extract(?1,'$.index'), json_extract(?1,'$.epoch')",
                      {Param(*text)});
  if (head.ok() && sqlite3_step(head->get()) == SQLITE_ROW) {
    c.found = true;
    std::string* texts[] = {&c.role, &c.head, &c.cluster, &c.ended};
    for (int i = 0; i < 4; ++i) *texts[i] = cell_of(head->get(), i).to_string();
    c.index = sqlite3_column_int64(head->get(), 4);
    c.epoch = sqlite3_column_int64(head->get(), 5);
  }
  c.nodes.columns = {"index", "epoch", "node", "state", "answers", "address", "host", "session", "pid", "start_ns",
                     "since_ns", "cause", "resources", "labels"};
  std::string columns;
  for (const auto& name : c.nodes.columns)
    columns += (columns.empty() ? "json_extract(value,'$." : ", json_extract(value,'$.") + name + "')";
  auto rows = prepare(db, "cluster.json", "SELECT " + columns + " FROM json_each(?1,'$.nodes')", {Param(*text)});
  while (rows.ok() && sqlite3_step(rows->get()) == SQLITE_ROW) {
    auto& cells = c.nodes.rows.emplace_back();
    for (size_t i = 0; i < c.nodes.columns.size(); ++i) cells.push_back(cell_of(rows->get(), static_cast<int>(i)));
  }
  sqlite3_close_v2(db);  // with what is prepared on it
  return c;
}

Status read_json_pairs(const std::string& text, std::map<std::string, std::string>* out) {
  sqlite3* db = nullptr;
  Status done = error(RAY_INVALID_ARGUMENT, "no JSON object of names and values: %s", text.c_str());
  if (sqlite3_open(":memory:", &db) == SQLITE_OK) {
    auto s = prepare(db, "JSON", "SELECT key, value, type IN ('object', 'array', 'null') FROM json_each(?1)", {Param(text)});
    int rc = SQLITE_ERROR;
    bool flat = true;
    while (s.ok() && (rc = sqlite3_step(s->get())) == SQLITE_ROW) {
      flat &= sqlite3_column_int(s->get(), 2) == 0;
      (*out)[cell_of(s->get(), 0).to_string()] = cell_of(s->get(), 1).to_string();
    }
    if (rc == SQLITE_DONE && flat) done = Status();
  }
  sqlite3_close_v2(db);  // with what is prepared on it
  return done;
}

Records::Records(Records&&) noexcept = default;
Records::~Records() {
  for (Shard& s : shards_) sqlite3_close(s.db);
}

Result<Records> Records::open(const std::string& session) {
  auto files = shard_files(session);
  if (files.empty())
    return error(RAY_NOT_FOUND, "session '%s' has no control-store files (gcs-*.db)",
                 session.c_str());
  if (node_state(session, read_node_file(session)) == NodeState::kDead) {
    // What was committed but not yet put into tables when the shards died. When it cannot be done
    // (a shard still lives, the disk is read-only) the tables are read as they are.
    for (const auto& f : files) {
      Status s = gcs::materialise_all(f);
      if (!s.ok() && s.code() == RAY_INTERNAL)
        std::fprintf(stderr, "libray: warning: %s\n", s.message().c_str());
    }
  }
  Records r;
  for (const auto& f : files) {
    auto db = open_database(f);
    if (!db.ok()) return db.status();
    r.shards_.push_back({f, *db});
  }
  RAY_TRY(r.load_names());
  return Result<Records>(std::move(r));
}

Status Records::load_names() {
  names_ = std::make_unique<Names>();
  RAY_TRY(each("SELECT function, name FROM functions WHERE name<>''", {},
               [&](const std::vector<Cell>& r) {
                 names_->emplace(r[0].text, r[1].text);
                 return true;
               }));
  for (Shard& s : shards_)
    sqlite3_create_function(s.db, "task_name", 2, SQLITE_UTF8 | SQLITE_DETERMINISTIC, names_.get(),
                            task_name, nullptr, nullptr);
  return Status();
}

Status Records::each_in(size_t index, const std::string& sql, const std::vector<Param>& params,
                        const std::function<bool(const std::vector<Cell>&)>& row) {
  Shard& shard = shards_[index];
  auto s = prepare(shard.db, shard.path, sql, params);
  if (!s.ok()) return s.status();
  int n = sqlite3_column_count(s->get());
  std::vector<Cell> cells;
  int rc;
  while ((rc = sqlite3_step(s->get())) == SQLITE_ROW) {
    cells.clear();
    for (int c = 0; c < n; ++c) cells.push_back(cell_of(s->get(), c));
    if (!row(cells)) return Status();
  }
  if (rc == SQLITE_DONE) return Status();
  return error(RAY_UNAVAILABLE, "cannot read '%s': %s", shard.path.c_str(),
               sqlite3_errmsg(shard.db));
}

Status Records::each(const std::string& sql, const std::vector<Param>& params,
                     const std::function<bool(const std::vector<Cell>&)>& row) {
  bool more = true;
  auto until = [&](const std::vector<Cell>& cells) { return more = row(cells); };
  for (size_t i = 0; i < shards_.size() && more; ++i) RAY_TRY(each_in(i, sql, params, until));
  return Status();
}

Result<Rows> Records::query(const std::string& sql, const std::vector<Param>& params,
                            const std::string& order_by, bool descending, size_t limit) {
  Rows out;
  std::string ordered = sql;
  if (!order_by.empty()) ordered += " ORDER BY " + order_by + (descending ? " DESC" : "");
  if (limit > 0) ordered += " LIMIT " + std::to_string(limit);
  {
    auto s = prepare(shards_[0].db, shards_[0].path, ordered, params);
    if (!s.ok()) return s.status();
    for (int c = 0; c < sqlite3_column_count(s->get()); ++c)
      out.columns.push_back(sqlite3_column_name(s->get(), c));
  }
  RAY_TRY(each(ordered, params, [&](const std::vector<Cell>& row) {
    out.rows.push_back(row);
    return true;
  }));
  int by = out.column(order_by);
  if (by >= 0)
    std::stable_sort(out.rows.begin(), out.rows.end(), [&](const auto& a, const auto& b) {
      const Cell &x = a[static_cast<size_t>(by)], &y = b[static_cast<size_t>(by)];
      return descending ? less(y, x) : less(x, y);
    });
  if (limit > 0 && out.rows.size() > limit) out.rows.resize(limit);
  return out;
}

}  // namespace ray::cli
