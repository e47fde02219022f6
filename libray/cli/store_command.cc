// store: what lies in a node's object store, read from the daemon's memory maps without asking it,
// so that a hung or stopped daemon is shown like any other.
#include "libray/base/clock.h"
#include "libray/cli/commands.h"
#include "libray/cli/session_files.h"
#include "store/inspect.h"

namespace ray::cli {
namespace {

int64_t i64(uint64_t v) { return static_cast<int64_t>(v); }

Rows object_rows(const store::Inspection& in) {
  Rows rows;
  rows.columns = {"object", "state", "size", "pins", "segment"};
  for (const auto& o : in.objects)
    rows.rows.push_back({Cell::of(o.id.hex()), Cell::of(std::string(o.state)),
                         Cell::of(i64(o.size)), Cell::of(int64_t{o.pins}),
                         Cell::of(int64_t{o.segment})});
  return rows;
}

void print_clients(const store::Inspection& in) {
  if (in.clients.empty()) return;
  Table t;
  t.column("CLIENT PID", Table::kRight);
  t.column("SEGMENT", Table::kRight);
  t.column("PINS", Table::kRight);
  t.column("UNREAD", Table::kRight);
  for (const auto& c : in.clients)
    t.row({std::to_string(c.pid), std::to_string(c.segment), std::to_string(c.pins),
           human_bytes(c.unread_records)});
  std::printf("\n");
  t.print(stdout, 0);
}

}  // namespace

Status show_store(const Common& common, int pid) {
  std::string where = "process " + std::to_string(pid);
  bool stopped = false;
  if (pid <= 0) {
    auto session = find_living_session(common.session);
    if (!session.ok()) return session.status();
    NodeFile f = read_node_file(*session);
    NodeState state = node_state(*session, f);
    if (state == NodeState::kDead)
      return error(RAY_NODE_DIED,
                   "node of '%s' is dead, and its memory with it; what it spilled is in %s/spill until the next "
                   "session starts",
                   session->c_str(), session->c_str());
    pid = f.pid;
    where = *session;
    stopped = state == NodeState::kStopped;
  }
  size_t limit = common.limit == 0 ? UINT32_MAX : common.limit;
  auto in = store::inspect(pid, static_cast<uint32_t>(limit));
  if (!in.ok()) return in.status();
  const store::DaemonStats& s = in->stats;
  Rows rows = object_rows(*in);
  if (common.json) {
    std::printf(
        "{\"pid\": %d, \"capacity\": %llu, \"used\": %llu, \"objects\": %llu, \"pinned\": %llu, "
        "\"clients\": %llu, "
        "\"spilled_bytes\": %llu, \"spilled_objects\": %llu, \"waiting_creates\": %llu, \"list\": ",
        in->daemon_pid, static_cast<unsigned long long>(s.capacity),
        static_cast<unsigned long long>(s.used), static_cast<unsigned long long>(s.objects),
        static_cast<unsigned long long>(s.pinned), static_cast<unsigned long long>(s.clients),
        static_cast<unsigned long long>(s.spilled_bytes),
        static_cast<unsigned long long>(s.spilled_objects),
        static_cast<unsigned long long>(s.waiting_creates));
    print_json(stdout, rows);
    std::printf("}\n");
    return Status();
  }
  double share =
      s.capacity ? 100.0 * static_cast<double>(s.used) / static_cast<double>(s.capacity) : 0;
  std::printf("store of %s (pid %d%s)\n", where.c_str(), in->daemon_pid,
              stopped ? ", stopped" : "");
  std::printf("memory   %s of %s (%.0f %%)\n", human_bytes(s.used).c_str(),
              human_bytes(s.capacity).c_str(), share);
  std::printf("objects  %s, %s of them pinned; %s clients\n", with_commas(s.objects).c_str(),
              with_commas(s.pinned).c_str(), with_commas(s.clients).c_str());
  std::printf("spilled  %s in %s objects; restored %s\n", human_bytes(s.spilled_bytes).c_str(),
              with_commas(s.spilled_objects).c_str(), with_commas(s.restored_objects).c_str());
  if (s.waiting_creates)
    std::printf("waiting  %s creates wait for room\n", with_commas(s.waiting_creates).c_str());
  print_clients(*in);
  if (rows.rows.empty()) return Status();
  Table t;
  t.column("OBJECT");
  t.column("STATE");
  t.column("SIZE", Table::kRight);
  t.column("PINS", Table::kRight);
  t.column("SEGMENT", Table::kRight);
  for (const auto& o : in->objects)
    t.row({common.full ? o.id.hex() : short_id(o.id.hex()), o.state, human_bytes(o.size),
           std::to_string(o.pins), std::to_string(o.segment)});
  std::printf("\n");
  t.print(stdout, 0);
  if (rows.rows.size() == limit)
    std::printf("(the first %zu objects; --limit 0 shows all)\n", limit);
  return Status();
}

}  // namespace ray::cli
