// tasks, actors, objects, errors, events, functions, jobs: what the control store's tables hold.
// Column names are those of the SQL views in the shards' files.
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <map>
#include <set>

#include "libray/base/clock.h"
#include "libray/base/ids.h"
#include "libray/cli/commands.h"
#include "libray/cli/running.h"
#include "libray/cli/session_files.h"
#include "libray/wire/msgpack.h"

// A field of the row's JSON, null when it has none; long rows are cut and then no JSON at all.
#define OTHER_FIELDS                                                                \
  "CASE WHEN json_valid(info) THEN (SELECT group_concat(key||'='||value,' ') FROM " \
  "json_each(info) "                                                                \
  "WHERE key<>'kind') END"
#define JSON(field) "CASE WHEN json_valid(info) THEN json_extract(info,'$." field "') END"

namespace ray::cli {
namespace {

Result<Records> open(const Common& c, std::string* directory = nullptr) {
  auto session = find_session(c.session);
  if (!session.ok()) return session.status();
  if (directory) *directory = *session;
  return Records::open(*session);
}

std::string id_text(const Common& c, const Cell& id) {
  return c.full ? id.to_string() : short_id(id.to_string());
}
// Ids within a text, for tables.
std::string brief(const Common& c, const std::string& text) {
  return c.full ? text : shorten_ids(text);
}
std::string time_text(const Cell& ns, int64_t now) {
  return ns.kind == Cell::kInteger ? local_time(ns.integer, now) : "";
}
std::string age_text(const Cell& ns, int64_t now) {
  return ns.kind == Cell::kInteger ? ago(ns.integer, now) : "";
}
std::string span_text(const Cell& from, const Cell& to) {
  return from.is_null() || to.is_null() ? "" : human_duration(std::max<int64_t>(0, to.integer - from.integer));
}
std::string size_text(const Cell& bytes) {
  return bytes.is_null() ? "" : human_bytes(static_cast<uint64_t>(bytes.integer));
}

void print_table(const Common& c, const Table& table, const char* what, size_t asked) {
  if (table.size() == 0) {
    std::printf("no %s\n", what);
    return;
  }
  table.print(stdout, c.full ? 0 : terminal_width());
  if (asked > 0 && table.size() == asked)
    std::printf("(the first %zu %s; --limit 0 shows all)\n", asked, what);
}

// Rows that every shard keeps a copy of appear once; the copy that says more wins.
void keep_distinct(Rows* rows, const char* key) {
  int k = rows->column(key);
  if (k < 0) return;
  auto said = [](const std::vector<Cell>& row) {
    return std::count_if(row.begin(), row.end(),
                         [](const Cell& c) { return !c.to_string().empty(); });
  };
  std::map<std::string, size_t> seen;
  std::vector<std::vector<Cell>> kept;
  for (auto& row : rows->rows) {
    auto [it, fresh] = seen.emplace(row[static_cast<size_t>(k)].to_string(), kept.size());
    if (fresh)
      kept.push_back(std::move(row));
    else if (said(row) > said(kept[it->second]))
      kept[it->second] = std::move(row);
  }
  rows->rows = std::move(kept);
}

std::string upper(std::string s) {
  for (char& c : s) c = static_cast<char>(c >= 'a' && c <= 'z' ? c - 32 : c);
  return s;
}
std::string lower(std::string s) {
  for (char& c : s) c = static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c);
  return s;
}

// Conditions joined by AND, with their parameters.
struct Where {
  std::string sql;
  std::vector<Param> params;
  void add(const std::string& condition, Param value) {
    sql += (sql.empty() ? " WHERE " : " AND ") + condition;
    params.push_back(std::move(value));
  }
};

// "1cdf5a68..2a" (the short form, ":r0" and so on ignored), or the beginning of the 48 digits.
Status match_id(const std::string& column, const std::string& text, Where* where) {
  std::string id = lower(text.substr(0, text.find(':')));
  auto is_hex = [](const std::string& s) {
    return s.find_first_not_of("0123456789abcdef") == s.npos;
  };
  if (size_t dots = id.find(".."); dots != id.npos) {
    std::string head = id.substr(0, dots), index = id.substr(dots + 2);
    if (!is_hex(head) || !is_hex(index) || index.empty() || index.size() > 8)
      return error(RAY_INVALID_ARGUMENT, "'%s' is not an id", text.c_str());
    where->add(column + " LIKE ?", head + "%");
    where->add("substr(" + column + ",33,8)=?", std::string(8 - index.size(), '0') + index);
    return Status();
  }
  if (id.empty() || !is_hex(id) || id.size() > 2 * kIdSize)
    return error(RAY_INVALID_ARGUMENT,
                 "'%s' is not an id: hexadecimal digits, or the short form 1cdf5a68..2a",
                 text.c_str());
  where->add(column + " LIKE ?", id + "%");
  return Status();
}

std::string task_name(const Rows& rows, size_t i) {
  std::string name = rows.at(i, "name").to_string(), method = rows.at(i, "method").to_string();
  return method.empty() ? name : name + "." + method;
}

// What a traceback ends with: the exception itself.
std::string last_line(const std::string& text) {
  size_t end = text.find_last_not_of(" \n\r\t");
  if (end == text.npos) return "";
  size_t from = text.rfind('\n', end);
  from = from == text.npos ? 0 : text.find_first_not_of(" \t", from + 1);
  return text.substr(from, end + 1 - from);
}

// Everything about one task, one line per field.
Status show_one_task(Records& records, const Rows& rows) {
  int64_t now = wall_ns();
  std::string task = rows.at(0, "task").to_string();
  auto line = [](const char* what, const std::string& text) {
    if (!text.empty()) std::printf("%-12s %s\n", what, printable(text).c_str());
  };
  line("task", task);
  line("name", task_name(rows, 0));
  for (const char* c : {"kind", "state", "code", "function", "parent", "actor", "actor_pos"})
    line(c, rows.at(0, c).to_string());
  line("submitted", time_text(rows.at(0, "submit_ns"), now) + " (" +
                        age_text(rows.at(0, "submit_ns"), now) + ")");
  line("started", time_text(rows.at(0, "start_ns"), now));
  line("waited", span_text(rows.at(0, "submit_ns"), rows.at(0, "start_ns")));
  line("ran", span_text(rows.at(0, "start_ns"), rows.at(0, "end_ns")));
  for (const char* c : {"node", "worker", "pid", "attempt"}) line(c, rows.at(0, c).to_string());
  line("arguments", rows.at(0, "args").to_string());
  line("result", rows.at(0, "result").to_string());
  std::string text = rows.at(0, "error").to_string();
  if (!text.empty()) std::printf("%-12s\n", "error");
  for (size_t at = 0; at < text.size();) {  // tracebacks keep their lines
    size_t end = std::min(text.find('\n', at), text.size());
    std::printf("  %s\n", printable(std::string_view(text).substr(at, end - at)).c_str());
    at = end + 1;
  }
  auto args =
      records.query("SELECT idx, object, producer FROM task_args WHERE task=?", {task}, "idx");
  if (!args.ok()) return args.status();
  for (size_t i = 0; i < args->rows.size(); ++i)
    line(strprintf("needs arg %s", args->at(i, "idx").to_string().c_str()).c_str(),
         args->at(i, "object").to_string());
  return Status();
}

// The tables learn of a task when it is submitted and when it ends; what runs, its process tells.
void mark_running(const std::map<std::string, RunningRow>& running, Rows* rows) {
  int id = rows->column("task"), state = rows->column("state");
  int start = rows->column("start_ns"), pid = rows->column("pid");
  if (id < 0 || state < 0 || start < 0 || pid < 0) return;
  for (auto& row : rows->rows) {
    auto found = running.find(row[static_cast<size_t>(id)].to_string());
    if (found == running.end() || row[static_cast<size_t>(state)].text != "SUBMITTED") continue;
    row[static_cast<size_t>(state)] = Cell::of(std::string("RUNNING"));
    row[static_cast<size_t>(start)] = Cell::of(found->second.task.start_ns);
    row[static_cast<size_t>(pid)] = Cell::of(int64_t{found->second.pid});
  }
}

// "running" is none of the tables' states: it stands for those submitted ones that run.
void add_states(const std::vector<std::string>& states,
                const std::map<std::string, RunningRow>& running, Where* where) {
  std::string marks, ids;
  for (const auto& [id, row] : running) ids += (ids.empty() ? "'" : ",'") + id + "'";
  std::string runs = "(state='SUBMITTED' AND task IN (" + ids + "))", sql;
  for (const auto& s : states) {
    std::string one = upper(s) == "RUNNING" ? runs
                      : upper(s) == "SUBMITTED" ? "(state='SUBMITTED' AND task NOT IN (" + ids + "))"
                                                : "state=?";
    if (one == "state=?") where->params.push_back(upper(s));
    sql += (sql.empty() ? "(" : " OR ") + one;
  }
  where->sql += (where->sql.empty() ? " WHERE " : " AND ") + sql + ")";
}

Status tell_pruned(Records& records) {
  int64_t pruned = 0;
  RAY_TRY(records.each("SELECT value FROM meta WHERE key='pruned_tasks'", {}, [&](const std::vector<Cell>& r) {
    pruned += r[0].integer;
    return true;
  }));
  if (pruned)
    std::printf("%lld tasks that ended before these are gone from the records: LIBRAY_TASK_ROWS, in the environment "
                "of the program that starts the node, is how many a shard keeps\n",
                static_cast<long long>(pruned));
  return Status();
}

}  // namespace

Result<std::string> find_task(const std::string& session, const std::string& text) {
  TaskId id;
  if (TaskId::from_hex(text, &id)) return id.hex();
  Where where;
  RAY_TRY(match_id("task", text, &where));
  auto records = Records::open(session);
  if (!records.ok()) return records.status();
  auto rows = records->query("SELECT task FROM tasks" + where.sql + " LIMIT 2", where.params);
  if (!rows.ok()) return rows.status();
  if (rows->rows.empty()) return error(RAY_NOT_FOUND, "no task '%s'", text.c_str());
  if (rows->rows.size() > 1) return error(RAY_INVALID_ARGUMENT, "'%s' is the beginning of several tasks", text.c_str());
  return rows->rows[0][0].to_string();
}

Status show_tasks(const Common& common, const TaskFilter& f) {
  std::string session;
  auto records = open(common, &session);
  if (!records.ok()) return records.status();
  Where where;
  if (!f.id.empty()) RAY_TRY(match_id("task", f.id, &where));
  if (!f.actor.empty()) RAY_TRY(match_id("actor", f.actor, &where));
  auto running = running_tasks(session);
  if (!f.states.empty()) add_states(f.states, running, &where);
  if (!f.function.empty())
    where.add("(task_name(name,function)||COALESCE('.'||method,'')) GLOB ?", f.function);
  std::string columns = "SELECT *, task_name(name,function) AS known_name FROM tasks";
  std::vector<Param> params = where.params;
  if (common.limit > 0) {
    // Finds the time of the last row first, so that only rows that are shown are rendered and
    // sorted.
    std::string oldest = "(SELECT submit_ns FROM tasks" + where.sql +
                         " ORDER BY submit_ns DESC LIMIT 1 OFFSET " +
                         std::to_string(common.limit - 1) + ")";
    where.sql += (where.sql.empty() ? " WHERE " : " AND ") +
                 ("(submit_ns IS NULL OR submit_ns>=COALESCE(" + oldest + ",-1))");
    params.insert(params.end(), where.params.begin(), where.params.end());
  }
  auto rows = records->query(columns + where.sql, params, "submit_ns", true, common.limit);
  if (!rows.ok()) return rows.status();
  auto shown = static_cast<size_t>(rows->column("name"));
  for (auto& row : rows->rows) {
    row[shown] = std::move(row.back());
    row.pop_back();
  }
  rows->columns.pop_back();
  mark_running(running, &*rows);
  if (common.json) {
    print_json(stdout, *rows);
    return Status();
  }
  if (!f.id.empty() && rows->rows.empty())
    return error(RAY_NOT_FOUND, "no task '%s'", f.id.c_str());
  if (!f.id.empty() && rows->rows.size() == 1) return show_one_task(*records, *rows);
  Table t;
  t.column("TASK");
  t.column("NAME", Table::kLeft, 16);
  t.column("STATE");
  t.column("PID", Table::kRight);
  t.column("SUBMITTED");
  t.column("AGE");
  t.column("WAITED", Table::kRight);
  t.column("RAN", Table::kRight);
  t.column("ARGUMENTS", Table::kLeft, 12);
  t.column("RESULT", Table::kLeft, 16);
  int64_t now = wall_ns();
  for (size_t i = 0; i < rows->rows.size(); ++i) {
    auto cell = [&](const char* name) -> const Cell& { return rows->at(i, name); };
    Cell until = cell("state").text == "RUNNING" ? Cell::of(now) : cell("end_ns");
    std::string outcome = last_line(cell("error").to_string());
    if (outcome.empty() && cell("result").to_string() != "0x") outcome = cell("result").to_string();
    t.row({id_text(common, cell("task")), task_name(*rows, i), cell("state").to_string(),
           cell("pid").to_string(), time_text(cell("submit_ns"), now),
           age_text(cell("submit_ns"), now), span_text(cell("submit_ns"), cell("start_ns")),
           span_text(cell("start_ns"), until), brief(common, cell("args").to_string()),
           brief(common, outcome)});
  }
  print_table(common, t, "tasks", common.limit);
  return tell_pruned(*records);
}

Status show_actors(const Common& common, const std::string& state) {
  auto records = open(common);
  if (!records.ok()) return records.status();
  Where where;
  if (!state.empty()) where.add("state=?", upper(state));
  auto rows =
      records->query("SELECT *, " JSON("created_ns") " AS created_ns FROM actors" + where.sql,
                     where.params, "created_ns", true, common.limit);
  if (!rows.ok()) return rows.status();
  if (common.json) {
    print_json(stdout, *rows, {"info"});
    return Status();
  }
  Table t;
  t.column("ACTOR");
  t.column("CLASS", Table::kLeft, 12);
  t.column("NAME", Table::kLeft, 12);
  t.column("STATE");
  t.column("RESTARTS", Table::kRight);
  t.column("PID", Table::kRight);
  t.column("CREATED");
  t.column("CAUSE OF DEATH", Table::kLeft, 16);
  int64_t now = wall_ns();
  for (size_t i = 0; i < rows->rows.size(); ++i) {
    auto cell = [&](const char* name) -> const Cell& { return rows->at(i, name); };
    std::string name = cell("name").to_string(), ns = cell("ns").to_string();
    t.row({id_text(common, cell("actor")), cell("class").to_string(),
           ns.empty() || name.empty() ? name : ns + "/" + name, cell("state").to_string(),
           cell("incarnation").to_string(), cell("pid").integer > 0 ? cell("pid").to_string() : "",
           age_text(cell("created_ns"), now), cell("cause").to_string()});
  }
  print_table(common, t, "actors", common.limit);
  return Status();
}

Status show_objects(const Common& common, const std::string& state, bool only_store) {
  auto records = open(common);
  if (!records.ok()) return records.status();
  Where where;
  if (!state.empty()) where.add("state=?", upper(state));
  if (only_store)
    where.sql += (where.sql.empty() ? " WHERE " : " AND ") + std::string("in_store=1");
  auto rows =
      records->query("SELECT * FROM objects" + where.sql, where.params, "size", true, common.limit);
  if (!rows.ok()) return rows.status();
  if (common.json) {
    print_json(stdout, *rows);
    return Status();
  }
  Table t;
  t.column("OBJECT");
  t.column("STATE");
  t.column("SIZE", Table::kRight);
  t.column("FORMAT");
  t.column("WHERE");
  t.column("VALUE", Table::kLeft, 16);
  for (size_t i = 0; i < rows->rows.size(); ++i) {
    auto cell = [&](const char* name) -> const Cell& { return rows->at(i, name); };
    std::string place = cell("state").to_string() != "READY" ? ""
                        : cell("in_store").integer           ? "store"
                                                             : "inline";
    t.row({id_text(common, cell("object")), cell("state").to_string(), size_text(cell("size")),
           cell("format").to_string(), place, cell("value").to_string()});
  }
  print_table(common, t, "objects", common.limit);
  return Status();
}

// The error table, and the tasks that failed.
Status show_errors(const Common& common) {
  auto records = open(common);
  if (!records.ok()) return records.status();
  auto rows = records->query(
      "SELECT time_ns, COALESCE(" JSON("kind") ",'error') AS kind, process, "
      "COALESCE(" JSON("task") ",'') AS task, '' AS name, "
      "COALESCE(" JSON("message") ",info) AS message FROM errors "
      "UNION ALL SELECT end_ns, code, worker, task, task_name(name,function)||COALESCE('.'||method,''), error FROM "
      "tasks "
      "WHERE state='FAILED'",
      {}, "time_ns", true, common.limit);
  if (!rows.ok()) return rows.status();
  if (common.json) {
    print_json(stdout, *rows);
    return Status();
  }
  Table t;
  t.column("TIME");
  t.column("AGE");
  t.column("KIND");
  t.column("TASK");
  t.column("NAME", Table::kLeft, 12);
  t.column("MESSAGE", Table::kLeft, 24);
  int64_t now = wall_ns();
  for (size_t i = 0; i < rows->rows.size(); ++i) {
    auto cell = [&](const char* name) -> const Cell& { return rows->at(i, name); };
    t.row({time_text(cell("time_ns"), now), age_text(cell("time_ns"), now),
           cell("kind").to_string(), id_text(common, cell("task")), cell("name").to_string(),
           brief(common, last_line(cell("message").to_string()))});
  }
  print_table(common, t, "errors", common.limit);
  return Status();
}

Status show_events(const Common& common) {
  auto records = open(common);
  if (!records.ok()) return records.status();
  auto rows = records->query("SELECT time_ns, node, process, COALESCE(" JSON("kind") ",'') AS kind, "
                             "COALESCE(" JSON("message") "," OTHER_FIELDS ",info) AS message, info FROM events",
                             {}, "time_ns", true, common.limit);
  if (!rows.ok()) return rows.status();
  if (common.json) {
    print_json(stdout, *rows, {"info"});
    return Status();
  }
  Table t;
  t.column("TIME");
  t.column("AGE");
  t.column("PROCESS", Table::kRight);
  t.column("KIND");
  t.column("EVENT", Table::kLeft, 24);
  int64_t now = wall_ns();
  for (size_t i = 0; i < rows->rows.size(); ++i) {
    auto cell = [&](const char* name) -> const Cell& { return rows->at(i, name); };
    t.row({time_text(cell("time_ns"), now), age_text(cell("time_ns"), now),
           cell("process").to_string(), cell("kind").to_string(),
           brief(common, cell("message").to_string())});
  }
  print_table(common, t, "events", common.limit);
  return Status();
}

Status show_functions(const Common& common) {
  auto records = open(common);
  if (!records.ok()) return records.status();
  auto rows = records->query("SELECT * FROM functions");
  if (!rows.ok()) return rows.status();
  keep_distinct(&*rows, "function");
  // How each was used: sums over the shards.
  struct Use {
    int64_t tasks = 0, failed = 0, run_ns = 0, ran = 0;
  };
  std::map<std::string, Use> uses;
  RAY_TRY(
      records->each("SELECT printf('%016x',fn), count(*), sum(COALESCE(code,0)<>0), "
                    "sum(end_ns-start_ns), count(end_ns) FROM task_rows GROUP BY fn",
                    {}, [&](const std::vector<Cell>& r) {
                      Use& u = uses[r[0].text];
                      u.tasks += r[1].integer, u.failed += r[2].integer;
                      u.run_ns += r[3].integer, u.ran += r[4].integer;
                      return true;
                    }));
  for (const char* c : {"tasks", "failed", "mean_run_ns"}) rows->columns.push_back(c);
  for (auto& row : rows->rows) {
    const Use& u = uses[row[0].to_string()];
    for (int64_t v : {u.tasks, u.failed}) row.push_back(Cell::of(v));
    row.push_back(u.ran ? Cell::of(u.run_ns / u.ran) : Cell());
  }
  int by = rows->column("tasks");
  std::stable_sort(rows->rows.begin(), rows->rows.end(), [&](const auto& a, const auto& b) {
    return less(b[static_cast<size_t>(by)], a[static_cast<size_t>(by)]);
  });
  if (common.limit > 0 && rows->rows.size() > common.limit) rows->rows.resize(common.limit);
  if (common.json) {
    print_json(stdout, *rows);
    return Status();
  }
  Table t;
  t.column("FUNCTION");
  t.column("NAME", Table::kLeft, 16);
  t.column("LANGUAGE");
  t.column("TASKS", Table::kRight);
  t.column("FAILED", Table::kRight);
  t.column("MEAN RUN", Table::kRight);
  t.column("SIZE", Table::kRight);
  for (size_t i = 0; i < rows->rows.size(); ++i) {
    auto cell = [&](const char* name) -> const Cell& { return rows->at(i, name); };
    t.row({cell("function").to_string(), cell("name").to_string(), cell("language").to_string(),
           with_commas(static_cast<uint64_t>(cell("tasks").integer)), cell("failed").to_string(),
           cell("mean_run_ns").is_null() ? "" : human_duration(cell("mean_run_ns").integer),
           size_text(cell("size"))});
  }
  print_table(common, t, "functions", common.limit);
  return Status();
}

Status show_jobs(const Common& common) {
  auto records = open(common);
  if (!records.ok()) return records.status();
  auto rows = records->query("SELECT *, " JSON("created_ns") " AS created_ns FROM jobs", {},
                             "created_ns", true, common.limit);
  if (!rows.ok()) return rows.status();
  keep_distinct(&*rows, "job");
  if (common.json) {
    print_json(stdout, *rows, {"info"});
    return Status();
  }
  Table t;
  t.column("JOB");
  t.column("NAME", Table::kLeft, 16);
  t.column("STATE");
  t.column("CREATED");
  t.column("AGE");
  int64_t now = wall_ns();
  for (size_t i = 0; i < rows->rows.size(); ++i) {
    auto cell = [&](const char* name) -> const Cell& { return rows->at(i, name); };
    t.row({common.full ? cell("job").to_string() : cell("job").to_string().substr(0, 12),
           cell("name").to_string(), cell("state").to_string(), time_text(cell("created_ns"), now),
           age_text(cell("created_ns"), now)});
  }
  print_table(common, t, "jobs", common.limit);
  return Status();
}

}  // namespace ray::cli
