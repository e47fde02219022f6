// timeline: what ran where and when, in the trace format that chrome://tracing and Perfetto read.
// One track per process of a node; arrows lead from the submission inside a running task to its
// child's start.
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <map>

#include "libray/cli/commands.h"
#include "libray/cli/session_files.h"
#include "libray/wire/msgpack.h"

namespace ray::cli {
namespace {

// Finished executions, the last of each task and the earlier ones, in one shape.
#define SPAN_COLUMNS(e)                                                                            \
  "SELECT lower(hex(t.id)) AS task, task_name(COALESCE(NULLIF(t.name,''),f.name,''),"              \
  "printf('%016x',t.fn))||"                                                                        \
  "COALESCE('.'||NULLIF(t.method,''),'') AS name, t.kind AS kind, lower(hex(t.parent)) AS "        \
  "parent, "                                                                                       \
  "t.submit_ns AS submit_ns, t.submit_node AS submit_node, t.submit_process AS submit_process, " e \
  ".node AS node, " e ".process AS process, " e ".pid AS pid, " e ".start_ns AS start_ns, " e      \
  ".end_ns AS end_ns, " e ".code AS code, " e ".execution AS attempt"
constexpr char kSpans[] =
    SPAN_COLUMNS("t") " FROM task_rows t LEFT JOIN function_rows f ON f.fn=t.fn WHERE t.end_ns IS NOT NULL "
    "AND t.start_ns IS NOT NULL "
    "UNION ALL " SPAN_COLUMNS("e") " FROM execution_rows e JOIN task_rows t ON t.id=e.task LEFT JOIN "
    "function_rows f ON f.fn=t.fn WHERE NOT (e.incarnation IS t.incarnation AND e.execution IS t.execution)";

struct Column {  // positions in kSpans
  enum {
    kTask,
    kName,
    kKind,
    kParent,
    kSubmit,
    kSubmitNode,
    kSubmitProcess,
    kNode,
    kProcess,
    kPid,
    kStart,
    kEnd,
    kCode,
    kAttempt
  };
};

class Trace {
 public:
  Trace(std::FILE* out, int64_t zero_ns) : out_(out), zero_(zero_ns) {}

  void span(const std::vector<Cell>& r) {
    static const char* const kinds[] = {"task", "actor_create", "actor_call"};
    int64_t kind = r[Column::kKind].integer;
    const char* category = kind >= 0 && kind <= 2 ? kinds[kind] : "task";
    int64_t code = r[Column::kCode].integer;
    tracks_[{r[Column::kNode].integer, r[Column::kProcess].integer}] = r[Column::kPid].integer;
    begin();
    std::fprintf(
        out_,
        "{\"ph\":\"X\",\"name\":%s,\"cat\":\"%s\",\"pid\":%lld,\"tid\":%lld,\"ts\":%s,\"dur\":%s,",
        wire::json_quote(r[Column::kName].text).c_str(), category, num(r[Column::kNode]),
        num(r[Column::kProcess]), micros(r[Column::kStart].integer - zero_).c_str(),
        micros(r[Column::kEnd].integer - r[Column::kStart].integer).c_str());
    if (code != 0) std::fputs("\"cname\":\"terrible\",", out_);
    std::fprintf(out_,
                 "\"args\":{\"task\":\"%s\",\"pid\":%lld,\"attempt\":%lld,\"code\":\"%s\",\"waited_"
                 "us\":%s}}",
                 r[Column::kTask].text.c_str(), num(r[Column::kPid]), num(r[Column::kAttempt]),
                 code_name(static_cast<ray_code>(code)),
                 micros(r[Column::kStart].integer - r[Column::kSubmit].integer).c_str());
    ++spans_;
  }

  // An arrow; the viewer binds its ends to the slices that enclose them and drops it when there is
  // none.
  void submission(const std::vector<Cell>& r) {
    if (r[Column::kAttempt].integer != 0 || r[Column::kSubmit].is_null()) return;
    uint64_t id = ++flows_;
    begin();
    std::fprintf(out_,
                 "{\"ph\":\"s\",\"name\":\"submit\",\"cat\":\"submit\",\"id\":%llu,\"pid\":%lld,"
                 "\"tid\":%lld,"
                 "\"ts\":%s},\n",
                 static_cast<unsigned long long>(id), num(r[Column::kSubmitNode]),
                 num(r[Column::kSubmitProcess]),
                 micros(r[Column::kSubmit].integer - zero_).c_str());
    std::fprintf(out_,
                 "{\"ph\":\"f\",\"bp\":\"e\",\"name\":\"submit\",\"cat\":\"submit\",\"id\":%llu,"
                 "\"pid\":%lld,"
                 "\"tid\":%lld,\"ts\":%s}",
                 static_cast<unsigned long long>(id), num(r[Column::kNode]),
                 num(r[Column::kProcess]), micros(r[Column::kStart].integer - zero_).c_str());
  }

  void names(const std::map<int64_t, std::string>& nodes) {
    for (const auto& [index, id] : nodes) {
      begin();
      std::fprintf(
          out_,
          "{\"ph\":\"M\",\"name\":\"process_name\",\"pid\":%lld,\"args\":{\"name\":\"node %s\"}}",
          static_cast<long long>(index), id.substr(0, 12).c_str());
    }
    for (const auto& [track, pid] : tracks_) {
      begin();
      std::fprintf(
          out_,
          "{\"ph\":\"M\",\"name\":\"thread_name\",\"pid\":%lld,\"tid\":%lld,\"args\":{\"name\":"
          "\"process %lld (pid %lld)\"}}",
          static_cast<long long>(track.first), static_cast<long long>(track.second),
          static_cast<long long>(track.second), static_cast<long long>(pid));
    }
  }
  uint64_t spans() const { return spans_; }

 private:
  void begin() {
    std::fputs(first_ ? "\n" : ",\n", out_);
    first_ = false;
  }
  static long long num(const Cell& c) { return static_cast<long long>(c.integer); }
  static std::string micros(int64_t ns) {
    return strprintf("%.3f", static_cast<double>(ns) / 1000);
  }

  std::FILE* out_;
  int64_t zero_;
  bool first_ = true;
  uint64_t spans_ = 0, flows_ = 0;
  std::map<std::pair<int64_t, int64_t>, int64_t> tracks_;  // (node, process) -> pid
};

// Node numbers are each shard's own; the trace needs one numbering for all.
Status write_spans(Records& records, std::FILE* out, uint64_t* spans) {
  int64_t zero = INT64_MAX;
  RAY_TRY(
      records.each("SELECT min(min(submit_ns),min(COALESCE(start_ns,submit_ns))) FROM task_rows",
                   {}, [&](const std::vector<Cell>& r) {
                     if (!r[0].is_null()) zero = std::min(zero, r[0].integer);
                     return true;
                   }));
  if (zero == INT64_MAX) zero = 0;
  std::map<std::string, int64_t> number_of;
  std::map<int64_t, std::string> nodes;
  Trace trace(out, zero);
  std::fprintf(out,
               "{\"displayTimeUnit\":\"ms\",\"otherData\":{\"zero_ns\":\"%lld\"},\"traceEvents\":[",
               static_cast<long long>(zero));
  for (size_t shard = 0; shard < records.shards(); ++shard) {
    std::map<int64_t, int64_t> renumber;
    RAY_TRY(records.each_in(
        shard, "SELECT idx, lower(hex(node)) FROM node_rows", {}, [&](const std::vector<Cell>& r) {
          auto [it, fresh] =
              number_of.emplace(r[1].text, static_cast<int64_t>(number_of.size() + 1));
          nodes[it->second] = r[1].text;
          renumber[r[0].integer] = it->second;
          return true;
        }));
    RAY_TRY(records.each_in(shard, kSpans, {}, [&](const std::vector<Cell>& row) {
      std::vector<Cell> r = row;
      for (int c : {Column::kNode, Column::kSubmitNode})
        r[static_cast<size_t>(c)].integer = renumber[r[static_cast<size_t>(c)].integer];
      trace.span(r);
      trace.submission(r);
      return !std::ferror(out);
    }));
  }
  trace.names(nodes);
  std::fputs("\n]}\n", out);
  *spans = trace.spans();
  return Status();
}

}  // namespace

Status write_timeline(const Common& common, const std::string& file) {
  auto session = find_session(common.session);
  if (!session.ok()) return session.status();
  auto records = Records::open(*session);
  if (!records.ok()) return records.status();
  bool to_stdout = file == "-";
  std::FILE* out = to_stdout ? stdout : std::fopen(file.c_str(), "w");
  if (!out) return errno_error(RAY_UNAVAILABLE, "cannot write '%s'", file.c_str());
  uint64_t spans = 0;
  Status s = write_spans(*records, out, &spans);
  bool failed = std::ferror(out) != 0;
  if (!to_stdout) failed |= std::fclose(out) != 0;
  RAY_TRY(s);
  if (failed) return error(RAY_UNAVAILABLE, "cannot write '%s' to its end", file.c_str());
  if (!to_stdout)
    std::printf("wrote %s: %s executions; open it in https://ui.perfetto.dev or chrome://tracing\n",
                file.c_str(), with_commas(spans).c_str());
  return Status();
}

}  // namespace ray::cli
