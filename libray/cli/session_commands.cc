// sessions, status, stop, logs: the session directory and its processes.
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "libray/base/clock.h"
#include "libray/base/proc.h"
#include "libray/base/shm.h"
#include "libray/cli/commands.h"
#include "libray/cli/running.h"
#include "libray/cli/session_files.h"
#include "libray/node/session.h"
#include "libray/wire/msgpack.h"
#include "libray/wire/protocol.h"

namespace ray::cli {
namespace {

namespace fs = std::filesystem;

const char* state_name(NodeState s) {
  return s == NodeState::kAlive ? "alive" : s == NodeState::kStopped ? "stopped" : "dead";
}

using node::bytes_on_disk;

// The readable tables of a session: what they hold, and the bound that they are kept in (0 = none, or none is known).
struct TableSize {
  int64_t bytes = 0, limit = 0;
};
TableSize table_size(const std::string& session) {
  TableSize t;
  auto records = Records::open(session);
  if (!records.ok()) return t;
  (void)records->each(
      "SELECT (p.page_count - f.freelist_count) * s.page_size, (SELECT value FROM meta WHERE key='limit_bytes') "
      "FROM pragma_page_count() p, pragma_freelist_count() f, pragma_page_size() s",
      {}, [&](const std::vector<Cell>& r) {
        t.bytes += r[0].integer, t.limit += r[1].is_null() ? 0 : r[1].integer;
        return true;
      });
  return t;
}

std::string base_name(const std::string& path) { return path.substr(path.rfind('/') + 1); }

int64_t modified_ns(const std::string& path) {
  struct stat st;
  if (::stat(path.c_str(), &st) != 0) return 0;
  return st.st_mtim.tv_sec * 1000000000ll + st.st_mtim.tv_nsec;
}

std::string process_json(const ProcessInfo& p) {
  return strprintf(
      "{\"pid\": %d, \"role\": %s, \"state\": \"%c\", \"cpu_seconds\": %.2f, \"rss_bytes\": %llu, "
      "\"started_ns\": %lld, \"command\": %s}",
      p.pid, wire::json_quote(p.role).c_str(), p.state, p.cpu_seconds,
      static_cast<unsigned long long>(p.rss_bytes), static_cast<long long>(p.started_ns),
      wire::json_quote(p.command).c_str());
}

const char* process_state(char c) {
  switch (c) {
    case 'R': return "running";
    case 'T':
    case 't': return "stopped";
    case 'D': return "in disk I/O";
    default: return "waiting";
  }
}

// How many tasks are in which state; empty when there are no tables.
struct TaskCounts {
  bool known = false;
  int64_t submitted = 0, running = 0, finished = 0, failed = 0;  // submitted: and not running
};
TaskCounts count_tasks(const std::string& session) {
  TaskCounts c;
  auto records = Records::open(session);
  if (!records.ok()) return c;
  Status s = records->each(
      "SELECT sum(end_ns IS NULL), sum(end_ns IS NOT NULL AND code=0), sum(end_ns IS NOT NULL AND "
      "code<>0) FROM "
      "task_rows",
      {}, [&](const std::vector<Cell>& r) {
        c.submitted += r[0].integer, c.finished += r[1].integer, c.failed += r[2].integer;
        return true;
      });
  c.known = s.ok();
  c.running = std::min(static_cast<int64_t>(running_tasks(session).size()), c.submitted);
  c.submitted -= c.running;
  return c;
}

void print_status(const std::string& session, const NodeFile& f, NodeState state,
                  const TaskCounts& tasks, const std::vector<ProcessInfo>& all, bool full) {
  int64_t now = wall_ns();
  std::printf("session    %s\n", session.c_str());
  if (!f.found)
    std::printf("node       never ready (no session.json); see: libray logs\n");
  else if (state == NodeState::kDead)
    std::printf("node       dead (was pid %d, started %s, %s)\n", f.pid,
                local_time(f.started_ns, now).c_str(), ago(f.started_ns, now).c_str());
  else
    std::printf("node       %s, pid %d, up %s%s\n", state_name(state), f.pid,
                human_duration(now - f.started_ns).c_str(),
                state == NodeState::kStopped ? " (SIGSTOP or a debugger: it answers nobody)" : "");
  if (!f.node.empty()) std::printf("node id    %s\n", f.node.c_str());
  if (const ClusterFile c = read_cluster_file(session); c.found) {
    size_t living = 0;
    for (size_t i = 0; i < c.nodes.rows.size(); ++i) living += c.nodes.at(i, "state").text != "DEAD";
    std::printf("cluster    %s, index %lld, head at %s; %zu nodes, %zu of them dead (libray nodes)\n", c.role.c_str(),
                static_cast<long long>(c.index), c.head.c_str(), c.nodes.rows.size(), c.nodes.rows.size() - living);
    if (!c.ended.empty()) std::printf("ended      %s\n", printable(c.ended).c_str());
  }
  if (!f.resources_json.empty())
    std::printf("resources  %s\n", printable(f.resources_json).c_str());
  if (f.store_bytes)
    std::printf("store      capacity %s (libray store shows what is in it)\n",
                human_bytes(f.store_bytes).c_str());
  uint64_t spilled = bytes_on_disk(session + "/spill");
  std::printf("disk       %s, of it spilled objects %s\n",
              human_bytes(bytes_on_disk(session)).c_str(), human_bytes(spilled).c_str());
  TableSize tables = table_size(session);
  std::printf("tables     %s%s\n", human_bytes(static_cast<uint64_t>(tables.bytes)).c_str(),
              tables.limit ? (" of at most " + human_bytes(static_cast<uint64_t>(tables.limit))).c_str() : "");
  const node::SessionLimits limits = node::SessionLimits::from_environment();
  const node::Pruned dead = node::prune_sessions(sessions_base(), {SIZE_MAX, UINT64_MAX}, true);
  std::printf("dead       %zu sessions, %s of at most %s\n", dead.kept, human_bytes(dead.kept_bytes).c_str(),
              human_bytes(limits.bytes).c_str());
  if (tasks.known)
    std::printf("tasks      %s finished, %s failed, %s running, %s waiting\n",
                with_commas(static_cast<uint64_t>(tasks.finished)).c_str(),
                with_commas(static_cast<uint64_t>(tasks.failed)).c_str(),
                with_commas(static_cast<uint64_t>(tasks.running)).c_str(),
                with_commas(static_cast<uint64_t>(tasks.submitted)).c_str());
  if (all.empty()) {
    std::printf("processes  none\n");
    return;
  }
  std::printf("\n");
  Table t;
  t.column("PROCESS");
  t.column("PID", Table::kRight);
  t.column("STATE");
  t.column("UP", Table::kRight);
  t.column("CPU", Table::kRight);
  t.column("MEMORY", Table::kRight);
  t.column("COMMAND", Table::kLeft, 20);
  for (const auto& p : all)
    t.row({p.role, std::to_string(p.pid), process_state(p.state),
           human_duration(now - p.started_ns),
           human_duration(static_cast<int64_t>(p.cpu_seconds * 1e9)), human_bytes(p.rss_bytes),
           p.command});
  t.print(stdout, full ? 0 : terminal_width());
}

// True = the process is gone.
bool wait_for_end(int pidfd, double seconds) {
  int64_t deadline = steady_ns() + static_cast<int64_t>(seconds * 1e9);
  for (;;) {
    int64_t left = deadline - steady_ns();
    pollfd p{pidfd, POLLIN, 0};
    int n = ::poll(
        &p, 1, left > 0 ? static_cast<int>(std::min<int64_t>(left / 1000000 + 1, INT32_MAX)) : 0);
    if (n > 0) return true;
    if (n == 0 && left <= 0) return false;
    if (n < 0 && errno != EINTR) return false;
  }
}

}  // namespace

Status show_sessions(const Common& common) {
  std::string base = sessions_base();
  auto all = node::list_sessions(base);
  std::reverse(all.begin(), all.end());
  if (common.limit > 0 && all.size() > common.limit) all.resize(common.limit);
  Rows rows;
  rows.columns = {"session", "state", "pid", "started_ns", "disk_bytes"};
  for (const auto& s : all) {
    NodeFile f = read_node_file(s);
    rows.rows.push_back({Cell::of(s), Cell::of(std::string(state_name(node_state(s, f)))),
                         f.found ? Cell::of(int64_t{f.pid}) : Cell(),
                         f.found ? Cell::of(f.started_ns) : Cell(),
                         Cell::of(static_cast<int64_t>(bytes_on_disk(s)))});
  }
  if (common.json) {
    print_json(stdout, rows);
    return Status();
  }
  if (all.empty()) {
    std::printf("no sessions in %s\n", base.c_str());
    return Status();
  }
  Table t;
  t.column("SESSION");
  t.column("NODE");
  t.column("PID", Table::kRight);
  t.column("STARTED");
  t.column("AGE");
  t.column("DISK", Table::kRight);
  int64_t now = wall_ns();
  for (size_t i = 0; i < all.size(); ++i) {
    const Cell& started = rows.at(i, "started_ns");
    t.row({base_name(all[i]), rows.at(i, "state").to_string(), rows.at(i, "pid").to_string(),
           started.is_null() ? "" : local_time(started.integer, now),
           started.is_null() ? "" : ago(started.integer, now),
           human_bytes(static_cast<uint64_t>(rows.at(i, "disk_bytes").integer))});
  }
  std::printf("in %s, newest first\n", base.c_str());
  t.print(stdout, 0);
  return Status();
}

Status clean_sessions(const Common& common, size_t keep) {
  std::string base = sessions_base();
  node::SessionLimits limits = node::SessionLimits::from_environment();
  limits.count = keep;
  node::Pruned done = node::prune_sessions(base, limits);
  if (common.json)
    std::printf("{\"removed\": %zu, \"removed_bytes\": %llu, \"kept\": %zu, \"kept_bytes\": %llu}\n", done.sessions,
                static_cast<unsigned long long>(done.bytes), done.kept,
                static_cast<unsigned long long>(done.kept_bytes));
  else
    std::printf("removed %zu dead sessions (%s) in %s; %zu are kept (%s)\n", done.sessions,
                human_bytes(done.bytes).c_str(), base.c_str(), done.kept, human_bytes(done.kept_bytes).c_str());
  return Status();
}

Status show_status(const Common& common) {
  auto session = find_session(common.session);
  if (!session.ok()) return session.status();
  NodeFile f = read_node_file(*session);
  NodeState state = node_state(*session, f);
  auto processes = session_processes(*session, f);
  TaskCounts tasks = count_tasks(*session);
  if (!common.json) {
    print_status(*session, f, state, tasks, processes, common.full);
    return Status();
  }
  TableSize tables = table_size(*session);
  const node::Pruned dead = node::prune_sessions(sessions_base(), {SIZE_MAX, UINT64_MAX}, true);
  std::string list;
  for (const auto& p : processes) list += (list.empty() ? "\n  " : ",\n  ") + process_json(p);
  std::printf(
      "{\"session\": %s, \"node\": \"%s\", \"pid\": %d, \"started_ns\": %lld, \"node_id\": %s, "
      "\"resources\": %s, \"store_bytes\": %llu, \"disk_bytes\": %llu, \"spilled_bytes\": %llu, ",
      wire::json_quote(*session).c_str(), state_name(state), f.pid,
      static_cast<long long>(f.started_ns), wire::json_quote(f.node).c_str(),
      f.resources_json.empty() ? "{}" : f.resources_json.c_str(),
      static_cast<unsigned long long>(f.store_bytes),
      static_cast<unsigned long long>(bytes_on_disk(*session)),
      static_cast<unsigned long long>(bytes_on_disk(*session + "/spill")));
  if (tasks.known)
    std::printf("\"tasks\": {\"finished\": %lld, \"failed\": %lld, \"running\": %lld, "
                "\"submitted\": %lld}, ",
                static_cast<long long>(tasks.finished), static_cast<long long>(tasks.failed),
                static_cast<long long>(tasks.running), static_cast<long long>(tasks.submitted));
  if (const ClusterFile c = read_cluster_file(*session); c.found)
    std::printf("\"cluster\": {\"role\": %s, \"head\": %s, \"index\": %lld, \"epoch\": %lld, \"ended\": %s}, ",
                wire::json_quote(c.role).c_str(), wire::json_quote(c.head).c_str(), static_cast<long long>(c.index),
                static_cast<long long>(c.epoch), wire::json_quote(c.ended).c_str());
  std::printf("\"table_bytes\": %lld, \"table_limit_bytes\": %lld, \"dead_sessions\": %zu, "
              "\"dead_session_bytes\": %llu, \"dead_session_limit_bytes\": %llu, ",
              static_cast<long long>(tables.bytes), static_cast<long long>(tables.limit), dead.kept,
              static_cast<unsigned long long>(dead.kept_bytes),
              static_cast<unsigned long long>(node::SessionLimits::from_environment().bytes));
  std::printf("\"processes\": [%s]}\n", list.c_str());
  return Status();
}

Status stop_session(const Common& common, const StopOptions& options) {
  auto session = find_living_session(common.session);
  if (!session.ok()) return session.status();
  NodeFile f = read_node_file(*session);
  if (!f.found)
    return error(RAY_NOT_FOUND, "session '%s' has no node to stop (no session.json)",
                 session->c_str());
  // The descriptor first, the check after it: the number cannot come to mean another process
  // between.
  Fd pidfd(pidfd_open(f.pid));
  if (!pidfd.valid() || !is_node_process(f, *session)) {
    std::printf("node of %s is not running\n", session->c_str());
    return Status();
  }
  bool stopped = node_state(*session, f) == NodeState::kStopped;
  if (stopped && !options.force)
    return error(RAY_UNAVAILABLE,
                 "node (pid %d) is stopped by a signal or a debugger: continue it (kill -CONT %d) "
                 "or use --force",
                 f.pid, f.pid);
  if (!stopped && !pidfd_signal(pidfd.get(), SIGTERM))
    return errno_error(RAY_UNAVAILABLE, "cannot signal the node (pid %d)", f.pid);
  if (!stopped && wait_for_end(pidfd.get(), options.timeout_s)) {
    std::printf("stopped %s (pid %d)\n", session->c_str(), f.pid);
    return Status();
  }
  if (!options.force)
    return error(RAY_TIMED_OUT,
                 "node (pid %d) did not end within %g s: wait longer (--timeout) or use --force",
                 f.pid, options.timeout_s);
  if (!pidfd_signal(pidfd.get(), SIGKILL) && errno != ESRCH)
    return errno_error(RAY_UNAVAILABLE, "cannot kill the node (pid %d)", f.pid);
  if (!wait_for_end(pidfd.get(), options.timeout_s))
    return error(RAY_TIMED_OUT, "node (pid %d) was killed but has not ended", f.pid);
  std::printf("killed %s (pid %d); its processes end with it\n", session->c_str(), f.pid);
  return Status();
}

namespace {

std::vector<std::string> log_files(const std::string& session) {
  std::vector<std::string> out;
  std::error_code ec;
  for (const auto& e : fs::directory_iterator(session + "/logs", ec))
    if (e.is_regular_file(ec)) out.push_back(e.path().string());
  std::sort(out.begin(), out.end());
  return out;
}

// Where the last `lines` lines begin.
std::streamoff tail_offset(std::ifstream& in, std::streamoff size, size_t lines) {
  constexpr std::streamoff kBlock = 64 << 10;
  std::string block;
  for (std::streamoff end = size; end > 0;) {
    std::streamoff from = std::max<std::streamoff>(0, end - kBlock);
    block.resize(static_cast<size_t>(end - from));
    in.clear();
    in.seekg(from);
    in.read(block.data(), static_cast<std::streamsize>(block.size()));
    for (size_t i = block.size(); i > 0; --i) {
      bool last =
          from + static_cast<std::streamoff>(i) == size;  // the newline at the very end ends a line
      if (block[i - 1] == '\n' && !last && --lines == 0)
        return from + static_cast<std::streamoff>(i);
    }
    end = from;
  }
  return 0;
}

Status print_log(const std::string& session, const std::string& path, const LogOptions& options) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return errno_error(RAY_NOT_FOUND, "cannot read '%s'", path.c_str());
  in.seekg(0, std::ios::end);
  std::streamoff at = options.tail > 0 ? tail_offset(in, in.tellg(), options.tail) : 0;
  std::string block(64 << 10, '\0');
  for (;;) {
    in.clear();
    in.seekg(at);
    in.read(block.data(), static_cast<std::streamsize>(block.size()));
    std::streamsize n = in.gcount();
    if (n > 0) {
      std::fwrite(block.data(), 1, static_cast<size_t>(n), stdout);
      at += n;
      continue;
    }
    std::fflush(stdout);
    if (!options.follow || std::ferror(stdout)) return Status();
    bool alive = node::session_alive(session);
    timespec pause{0, 200 * 1000 * 1000};
    ::nanosleep(&pause, nullptr);
    if (!alive && static_cast<std::streamoff>(fs::file_size(path)) <= at) return Status();
  }
}

}  // namespace

Status show_logs(const Common& common, const LogOptions& options) {
  auto session = find_session(common.session);
  if (!session.ok()) return session.status();
  auto files = log_files(*session);
  if (options.name.empty()) {
    Rows rows;
    rows.columns = {"file", "bytes", "modified_ns"};
    Table t;
    t.column("LOG");
    t.column("SIZE", Table::kRight);
    t.column("WRITTEN");
    int64_t now = wall_ns();
    for (const auto& f : files) {
      std::error_code ec;
      auto size = static_cast<int64_t>(fs::file_size(f, ec));
      rows.rows.push_back({Cell::of(f), Cell::of(size), Cell::of(modified_ns(f))});
      t.row({base_name(f), human_bytes(static_cast<uint64_t>(size)), ago(modified_ns(f), now)});
    }
    if (common.json)
      print_json(stdout, rows);
    else if (files.empty())
      std::printf("no logs\n");
    else
      t.print(stdout, 0);
    return Status();
  }
  std::vector<std::string> match;
  for (const auto& f : files) {
    if (base_name(f) == options.name) return print_log(*session, f, options);
    if (base_name(f).find(options.name) != std::string::npos) match.push_back(f);
  }
  if (match.size() == 1) return print_log(*session, match[0], options);
  if (match.empty())
    return error(RAY_NOT_FOUND, "no log '%s' in session '%s': libray logs lists them",
                 options.name.c_str(), session->c_str());
  return error(RAY_INVALID_ARGUMENT, "'%s' fits %zu logs, among them %s and %s",
               options.name.c_str(), match.size(), base_name(match[0]).c_str(),
               base_name(match[1]).c_str());
}

}  // namespace ray::cli
