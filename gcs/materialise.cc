// See materialise.h.
#include "gcs/materialise.h"

#include <dirent.h>
#include <lz4.h>
#include <sqlite3.h>

#include <algorithm>
#include <ctime>
#include <map>

#include "gcs/lock.h"
#include "libray/wire/cursor.h"
#include "gcs/schema.h"
#include "gcs/spare_time.h"
#include "gcs/table_ops.h"
#include "gcs/tables.h"
#include "gcs/text.h"
#include "libray/base/fault.h"
#include "libray/base/log.h"
#include "libray/lineage/delta.h"
#include "libray/lineage/reader.h"

namespace ray::gcs {
namespace {

constexpr uint64_t kMaxRaw = 64u << 20;  // of one lineage batch, decompressed
constexpr uint64_t kMaxWalFrames = 4096;  // 32 MiB

int64_t thread_cpu_ns() {
  timespec ts;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
  return ts.tv_sec * 1000000000ll + ts.tv_nsec;
}

std::string_view view(const Id& id) { return {reinterpret_cast<const char*>(id.b), kIdSize}; }

// Methods have one; the creation comes before all of them.
bool has_position(const lineage::ExecRecord& r) {
  return !r.actor.is_nil() && r.kind != RAY_KIND_ACTOR_CREATE;
}

#define SUBMIT_COLUMNS \
  "id,parent,actor,fn,name,method,kind,handle_seq,submit_ns,submit_node,submit_process,n_args,n_returns,args"
#define EXEC_COLUMNS \
  "actor_pos,incarnation,execution,start_ns,end_ns,node,process,pid,code,r_size,r_format,r_in_store,result,error"
// A worker that tells of the execution later is right: its version is no lower.
#define SUBMITTER_LEFT \
  "end_ns=?3, execution=max(COALESCE(execution,0),COALESCE(again,0)), incarnation=COALESCE(incarnation,0), code=?4, " \
  "error='the process that submitted it is gone' WHERE submit_node=?1 AND submit_process=?2"
constexpr int kSubmitFirst = 1, kSubmitColumns = 14, kExecColumns = 14;

constexpr char kInsertBoth[] =
    "INSERT OR IGNORE INTO task_rows(" SUBMIT_COLUMNS "," EXEC_COLUMNS ") VALUES(?1,?2,?3,?4,?5,?6,?7,?8,"
    "?9,?10,?11,?12,?13,?14,?15,?16,?17,?18,?19,?20,?21,?22,?23,?24,?25,?26,?27,?28)";
// An end that no worker told of is one of its submitter: for another that submits the task it has not ended.
#define ANEW(column) \
  column "=CASE WHEN end_ns IS NOT NULL AND pid IS NULL AND (submit_node IS NOT excluded.submit_node OR " \
  "submit_process IS NOT excluded.submit_process) THEN NULL ELSE " column " END"
constexpr char kUpsertSubmit[] =
    "INSERT INTO task_rows(" SUBMIT_COLUMNS ") VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14) "
    "ON CONFLICT(id) DO UPDATE SET parent=excluded.parent, actor=COALESCE(excluded.actor,actor), "
    "fn=excluded.fn, name=excluded.name, method=excluded.method, kind=excluded.kind, "
    "handle_seq=excluded.handle_seq, submit_ns=COALESCE(submit_ns,excluded.submit_ns), "
    "submit_node=excluded.submit_node, submit_process=excluded.submit_process, "
    "n_args=excluded.n_args, n_returns=excluded.n_returns, args=excluded.args, " ANEW("end_ns") ", " ANEW("code") ", "
    ANEW("error") ", " ANEW("execution") ", " ANEW("again");
// Versions only rise; the same version again writes the same.
constexpr char kUpsertExec[] =
    "INSERT INTO task_rows(id,actor,kind," EXEC_COLUMNS ") VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,"
    "?13,?14,?15,?16,?17) ON CONFLICT(id) DO UPDATE SET actor=COALESCE(actor,excluded.actor), "
    "kind=COALESCE(kind,excluded.kind), actor_pos=excluded.actor_pos, incarnation=excluded.incarnation, "
    "execution=excluded.execution, start_ns=excluded.start_ns, end_ns=excluded.end_ns, "
    "node=excluded.node, process=excluded.process, pid=excluded.pid, code=excluded.code, "
    "r_size=excluded.r_size, r_format=excluded.r_format, r_in_store=excluded.r_in_store, "
    "result=excluded.result, error=excluded.error WHERE execution IS NULL OR "
    "(excluded.incarnation, excluded.execution) >= (incarnation, execution)";
constexpr char kKeepExecution[] =
    "INSERT OR IGNORE INTO execution_rows SELECT id,incarnation,execution,actor_pos,start_ns,end_ns,node,"
    "process,pid,code,error FROM task_rows WHERE id=? AND execution IS NOT NULL";
constexpr char kAddExecution[] =
    "INSERT OR IGNORE INTO execution_rows VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11)";

}  // namespace

// What one transaction gathers, and the statements that write it.
class MaterialiseBatch {
 public:
  explicit MaterialiseBatch(Materialiser& m) : m_(m) {}
  Status prepare();
  bool full() const { return bytes_ >= Materialiser::kBatchBytes; }
  size_t bytes() const { return bytes_; }
  uint64_t items() const { return items_.size(); }
  uint64_t events() const { return events_.size(); }
  // False: damaged, nothing taken.
  bool add(const Entry& e);
  // An error: something could not be read while the batch was gathered.
  const Status& status() const { return status_; }
  Status write(uint64_t watermark);
  void clear();
  void rollback();

 private:
  struct Item {  // one lineage record
    Id id;
    uint32_t order;
    uint16_t type;
    int64_t node;
    std::string_view payload;
  };
  struct Left {  // a process is gone
    size_t at;   // after so many items
    int64_t node, process, time_ns;
  };
  struct Event {
    uint64_t sn;
    uint32_t index;
    Table kind;
    int64_t time_ns, node, process;
    std::string json;
  };
  struct Client {
    uint64_t ack_below = 0;
    std::map<uint64_t, std::pair<int32_t, std::pair<std::string, std::string>>> answers;
  };

  bool add_control(const Entry& e);
  bool add_lineage(const Entry& e);
  bool add_record(uint64_t sn, uint32_t index, uint16_t type, std::string_view payload, int64_t node);
  Status node_index(const Id& node, int64_t* out);
  Status write_state();
  Status write_row(const Change& c);
  Status write_function(std::string_view value);
  Status write_locations(const Change& c);
  Status write_dedup();
  Status write_journals();
  Status write_lineage();
  Status write_items(size_t from, size_t to);
  Status write_left(const Left& l);
  Status write_task(const Item* first, const Item* last);
  void bind_submit(Statement& s, const lineage::SubmitView& v, int64_t node);
  void bind_exec(Statement& s, int at, const lineage::ExecView& v, int64_t node);
  Status write_submit(int64_t node);
  Status write_exec(int64_t node);
  Status write_end(std::string_view payload);
  Status add_execution(int64_t node);
  Status write_edges();
  Status write_results(int64_t node);
  Status write_events();

  Materialiser& m_;
  Statement both_, submit_, exec_, keep_, add_execution_, arg_, object_, put_, delete_, get_, function_,
      event_, node_insert_, node_select_, journal_, dedup_delete_, dedup_insert_, location_insert_,
      location_delete_, meta_, kv_floor_, horizon_, again_, end_, left_, left_again_, begin_, commit_, rollback_;
  std::vector<std::string> raw_;  // decompressed batches that items point into
  std::vector<Item> items_;
  std::vector<Left> lefts_;
  std::map<std::pair<int, std::string>, Change> rows_;  // last change per key
  std::vector<std::string> forgotten_;  // rows of functions that were written and erased since
  std::map<uint64_t, Client> clients_;
  std::map<Id, std::pair<uint32_t, uint64_t>> journals_;
  std::map<int64_t, int64_t> horizons_;  // by index of the node
  std::vector<Event> events_;
  std::unordered_map<Id, int64_t> nodes_;
  size_t bytes_ = 0;
  Status status_;
  // Of the task that is being written.
  lineage::SubmitView submit_view_;
  lineage::ExecView exec_view_;
  std::string args_text_, result_text_;
};

Status MaterialiseBatch::prepare() {
  struct {
    Statement* s;
    const char* sql;
  } all[] = {
      {&both_, kInsertBoth}, {&submit_, kUpsertSubmit}, {&exec_, kUpsertExec}, {&keep_, kKeepExecution},
      {&add_execution_, kAddExecution},
      {&arg_, "INSERT OR REPLACE INTO arg_rows VALUES(?,?,?)"},
      {&object_, "INSERT OR REPLACE INTO object_rows VALUES(?,?,?,?,?,?)"},
      {&put_, "INSERT OR REPLACE INTO state VALUES(?,?,?,?,?,?)"},
      {&delete_, "DELETE FROM state WHERE tbl=? AND key=?"},
      {&get_, "SELECT value FROM state WHERE tbl=? AND key=?"},
      {&function_, "INSERT OR REPLACE INTO function_rows VALUES(?,?,?,?,?)"},
      {&event_, "INSERT OR REPLACE INTO event_rows VALUES(?,?,?,?,?,?,?)"},
      {&node_insert_, "INSERT OR IGNORE INTO node_rows(node) VALUES(?)"},
      {&node_select_, "SELECT idx FROM node_rows WHERE node=?"},
      {&journal_, "UPDATE node_rows SET epoch=?2, lsn=?3 WHERE idx=?1"},
      {&dedup_delete_, "DELETE FROM dedup WHERE client=? AND seq<?"},
      {&dedup_insert_, "INSERT OR REPLACE INTO dedup VALUES(?,?,?,?,?,?)"},
      {&location_insert_, "INSERT OR REPLACE INTO location_rows VALUES(?,?,?)"},
      {&location_delete_, "DELETE FROM location_rows WHERE node=? AND object=?"},
      {&meta_, "INSERT OR REPLACE INTO meta VALUES('materialised_sn',?)"},
      {&horizon_, "UPDATE node_rows SET horizon_ns=?2 WHERE idx=?1"},
      {&again_, "INSERT INTO task_rows(id,again) VALUES(?1,?2) ON CONFLICT(id) DO UPDATE SET "
                "again=max(COALESCE(again,0),excluded.again)"},
      // What a worker told of that execution stands.
      {&end_, "UPDATE task_rows SET end_ns=?2, execution=max(COALESCE(execution,0),?3), "
              "incarnation=COALESCE(incarnation,0), code=?4, error=?5 WHERE id=?1 AND (end_ns IS NULL OR again>execution)"},
      {&left_, "UPDATE task_rows SET " SUBMITTER_LEFT " AND end_ns IS NULL"},
      {&left_again_, "UPDATE task_rows SET " SUBMITTER_LEFT " AND again IS NOT NULL AND again>execution"},
      {&kv_floor_, "INSERT INTO meta VALUES('kv_floor',?1) ON CONFLICT(key) DO UPDATE SET value=max(value,?1)"},
      {&begin_, "BEGIN IMMEDIATE"}, {&commit_, "COMMIT"}, {&rollback_, "ROLLBACK"}};
  for (auto& a : all) RAY_TRY(a.s->prepare(m_.db_.get(), a.sql));
  return {};
}

void MaterialiseBatch::clear() {
  raw_.clear();
  items_.clear();
  if (items_.capacity() > (1u << 16)) std::vector<Item>().swap(items_);
  lefts_.clear();
  rows_.clear();
  forgotten_.clear();
  clients_.clear();
  journals_.clear();
  horizons_.clear();
  events_.clear();
  bytes_ = 0;
  status_ = {};
}

// ---- gathering ---------------------------------------------------------------------------------------------

bool MaterialiseBatch::add(const Entry& e) {
  bytes_ += e.blob.size();
  return e.kind == Entry::kLineage ? add_lineage(e) : add_control(e);
}

bool MaterialiseBatch::add_control(const Entry& e) {
  Record rec;
  if (!parse_record(e.sn, e.blob, &rec)) return false;
  if (rec.client != 0 && rec.seq != 0) {
    Client& c = clients_[rec.client];
    if (rec.ack_below <= rec.seq) c.ack_below = std::max(c.ack_below, rec.ack_below);
    c.answers[rec.seq] = {rec.code, {std::string(rec.text), std::string(rec.answer)}};
  }
  for (Change& c : rec.changes) {
    if (c.table == Table::kEvents || c.table == Table::kErrors) {
      wire::Cursor r(c.value);
      r.array_of(2);
      int64_t time_ns = r.int64();
      events_.push_back({e.sn, 0, c.table, time_ns, 0, 0, to_text(r.value(), 64 << 10)});
    }
    std::pair<int, std::string> key{static_cast<int>(c.table), c.key};
    Change& last = rows_[std::move(key)];
    if (c.table == Table::kFunctions && c.erased && !last.erased) forgotten_.push_back(std::move(last.value));
    last = std::move(c);
  }
  return true;
}

bool MaterialiseBatch::add_lineage(const Entry& e) {
  if (e.raw_size > kMaxRaw) return false;
  std::string raw;
  if (e.codec == Codec::kNone) {
    raw = e.blob;
  } else if (e.codec == Codec::kLz4) {
    raw.resize(e.raw_size);
    int n = LZ4_decompress_safe(e.blob.data(), raw.data(), static_cast<int>(e.blob.size()),
                                static_cast<int>(raw.size()));
    if (n < 0 || static_cast<uint64_t>(n) != e.raw_size) return false;
  } else if (e.codec != Codec::kDelta || !lineage::delta_decode(e.blob, e.raw_size, &raw)) {
    return false;
  }
  raw_.push_back(std::move(raw));
  bytes_ += raw_.back().size();
  journals_[e.node] = {e.epoch, e.lsn + e.n - 1};
  int64_t node = 0;
  if (status_ = node_index(e.node, &node); !status_.ok()) return true;  // not now: the batch is tried again
  lineage::BatchReader batch(raw_.back());
  uint16_t type;
  std::string_view payload;
  uint32_t index = 0;
  bool good = true;
  while (batch.next(&type, &payload)) {
    good = add_record(e.sn, index, type, payload, node) && good;
    ++index;
  }
  m_.stats_.records += index;
  return good && !batch.corrupt();
}

// The fixed part of records that begin with a task; 0 for others.
static size_t least_of_task(uint16_t type) {
  using namespace lineage;
  switch (type) {
    case kSubmit: return sizeof(SubmitRecord);
    case kExec: return sizeof(ExecRecord);
    case kAgain: return sizeof(AgainRecord);
    case kEnd: return sizeof(EndRecord);
    default: return 0;
  }
}

bool MaterialiseBatch::add_record(uint64_t sn, uint32_t index, uint16_t type, std::string_view payload,
                                  int64_t node) {
  using namespace lineage;
  if (type == kMark) {
    MarkRecord m;
    if (payload.size() != sizeof m) return false;
    std::memcpy(&m, payload.data(), sizeof m);
    horizons_[node] = std::max(horizons_[node], m.time_ns);
    return true;
  }
  if (type == kLeft) {
    LeftRecord l;
    if (payload.size() != sizeof l) return false;
    std::memcpy(&l, payload.data(), sizeof l);
    lefts_.push_back({items_.size(), node, l.process, l.time_ns});
    return true;
  }
  if (const size_t least = least_of_task(type)) {
    static_assert(offsetof(SubmitRecord, task) == 0 && offsetof(ExecRecord, task) == 0);
    static_assert(offsetof(AgainRecord, task) == 0 && offsetof(EndRecord, task) == 0);
    if (payload.size() < least || (type == kAgain && payload.size() != least)) return false;
    Item item{{}, static_cast<uint32_t>(items_.size()), type, node, payload};
    std::memcpy(item.id.b, payload.data(), kIdSize);
    items_.push_back(item);
    return true;
  }
  EventView v;
  if ((type != kEvent && type != kError) || !decode(payload, &v)) return false;
  events_.push_back({sn, index + 1, type == kEvent ? Table::kEvents : Table::kErrors, v.fixed.time_ns,
                     node, v.fixed.process, to_text(v.map, 64 << 10)});
  return true;
}

Status MaterialiseBatch::node_index(const Id& node, int64_t* out) {
  if (auto it = nodes_.find(node); it != nodes_.end()) {
    *out = it->second;
    return {};
  }
  RAY_TRY(node_insert_.bind_blob(1, view(node)).run());
  if (!node_select_.bind_blob(1, view(node)).row()) {
    Status s = m_.db_.error("read the index of a node");
    node_select_.reset();
    return s;
  }
  *out = nodes_[node] = node_select_.integer(0);
  node_select_.reset();
  return {};
}

// ---- writing ------------------------------------------------------------------------------------------------

// Who calls it rolls back what fails.
Status MaterialiseBatch::write(uint64_t watermark) {
  RAY_TRY(write_state());
  RAY_TRY(write_dedup());
  RAY_TRY(write_journals());
  RAY_TRY(write_lineage());
  RAY_TRY(write_events());
  RAY_FAULT("gcs.materialise.mid");
  RAY_TRY(meta_.bind(1, static_cast<int64_t>(watermark)).run());
  m_.spare_ = nullptr;  // a commit that is interrupted may be done all the same
  return commit_.run();
}

void MaterialiseBatch::rollback() {
  (void)rollback_.run();
  nodes_.clear();  // their indexes may be gone too
  clear();
}

Status MaterialiseBatch::write_state() {
  for (const std::string& value : forgotten_)
    if (!value.empty()) RAY_TRY(write_function(value));
  for (auto& [key, c] : rows_) RAY_TRY(write_row(c));
  m_.stats_.rows += rows_.size();
  return {};
}

// Tasks are shown by this name, also when the definition is forgotten.
Status MaterialiseBatch::write_function(std::string_view value) {
  auto integer = [&](const char* column) {
    wire::Cursor r(map_get(value, column));
    return r.peek() == wire::Type::kUint ? static_cast<int64_t>(r.uint64()) : r.int64();
  };
  wire::Cursor name(map_get(value, "name"));
  function_.bind(1, integer("key")).bind_text(2, name.bytes()).bind(3, integer("language"));
  return function_.bind(4, integer("kind")).bind(5, integer("size")).run();
}

Status MaterialiseBatch::write_row(const Change& c) {
  int table = static_cast<int>(c.table);
  if (c.table == Table::kObjects) RAY_TRY(write_locations(c));
  if (c.erased && c.table == Table::kKv) RAY_TRY(kv_floor_.bind(1, static_cast<int64_t>(c.version)).run());
  if (c.erased) return delete_.bind(1, table).bind_blob(2, c.key).run();
  bool readable = c.table == Table::kFunctions || c.table == Table::kActors ||
                  c.table == Table::kNodes || c.table == Table::kJobs;
  std::string json;
  if (readable) json = to_text(c.value, 64 << 10);
  if (c.table == Table::kFunctions) RAY_TRY(write_function(c.value));
  put_.bind(1, table).bind_blob(2, c.key).bind(3, static_cast<int64_t>(c.version));
  put_.bind(4, static_cast<int64_t>(c.sn)).bind_blob(5, c.value);
  if (readable) put_.bind_text(6, json);
  else put_.bind_null(6);
  return put_.run();
}

// The table of locations follows the rows of objects: what the old row named goes, what the new names comes.
Status MaterialiseBatch::write_locations(const Change& c) {
  std::string old;
  if (get_.bind(1, static_cast<int>(c.table)).bind_blob(2, c.key).row()) old = get_.blob(0);
  else if (!get_.done()) return m_.db_.error("read locations");
  get_.reset();
  for (bool add : {false, true}) {
    if (add ? c.erased : old.empty()) continue;
    wire::Cursor r(add ? std::string_view(c.value) : std::string_view(old));
    r.array_of(2);
    int64_t size = static_cast<int64_t>(r.uint64());
    for (size_t n = r.array(); n > 0 && r.ok(); --n) {
      Statement& s = add ? location_insert_ : location_delete_;
      r.array_of(3);
      s.bind_blob(1, r.bytes()).bind_blob(2, c.key);
      r.uint64();
      bool there = r.boolean();
      if (add && !there) continue;
      if (add) s.bind(3, size);
      RAY_TRY(s.run());
    }
  }
  return {};
}

Status MaterialiseBatch::write_dedup() {
  for (auto& [client, c] : clients_) {
    int64_t id = static_cast<int64_t>(client), below = static_cast<int64_t>(c.ack_below);
    RAY_TRY(dedup_delete_.bind(1, id).bind(2, below).run());
    for (auto& [seq, a] : c.answers) {
      if (seq < c.ack_below) continue;
      dedup_insert_.bind(1, id).bind(2, static_cast<int64_t>(seq)).bind(3, below).bind(4, a.first);
      RAY_TRY(dedup_insert_.bind_text(5, a.second.first).bind_blob(6, a.second.second).run());
    }
  }
  return {};
}

Status MaterialiseBatch::write_journals() {
  for (auto& [node, at] : journals_)
  {
    int64_t index = 0;
    RAY_TRY(node_index(node, &index));
    RAY_TRY(journal_.bind(1, index).bind(2, at.first).bind(3, static_cast<int64_t>(at.second)).run());
  }
  for (auto& [index, time_ns] : horizons_) RAY_TRY(horizon_.bind(1, index).bind(2, time_ns).run());
  return {};
}

// Process indexes are used again: a process that is gone has nothing to do with what comes after that.
Status MaterialiseBatch::write_lineage() {
  size_t from = 0;
  for (const Left& l : lefts_) {
    RAY_TRY(write_items(from, l.at));
    RAY_TRY(write_left(l));
    from = l.at;
  }
  return write_items(from, items_.size());
}

Status MaterialiseBatch::write_left(const Left& l) {
  for (Statement* s : {&left_, &left_again_})
    RAY_TRY(s->bind(1, l.node).bind(2, l.process).bind(3, l.time_ns).bind(4, RAY_CANCELLED).run());
  return {};
}

Status MaterialiseBatch::write_items(size_t from, size_t to) {
  auto less = [](const Item& x, const Item& y) {
    int c = std::memcmp(x.id.b, y.id.b, kIdSize);
    return c != 0 ? c < 0 : x.order < y.order;
  };
  // In key order, so that neighbours share pages.
  std::sort(items_.begin() + static_cast<ptrdiff_t>(from), items_.begin() + static_cast<ptrdiff_t>(to), less);
  for (size_t k = from; k < to;) {
    size_t end = k + 1;
    while (end < to && items_[end].id == items_[k].id) ++end;
    RAY_TRY(write_task(&items_[k], &items_[end - 1]));
    k = end;
  }
  return {};
}

// All records of one task in this batch. The common case is one submission and one execution: one insert.
Status MaterialiseBatch::write_task(const Item* first, const Item* last) {
  using namespace lineage;
  ++m_.stats_.rows;
  if (last == first + 1 && first->type == kSubmit && last->type == kExec &&
      decode(first->payload, &submit_view_) && decode(last->payload, &exec_view_) &&
      exec_view_.fixed.execution == 0) {
    bind_submit(both_, submit_view_, first->node);
    bind_exec(both_, kSubmitFirst + kSubmitColumns, exec_view_, last->node);
    RAY_TRY(both_.run());
    if (m_.db_.changes() > 0) {
      RAY_TRY(write_edges());
      return write_results(last->node);
    }
  }
  for (const Item* i = first; i <= last; ++i) {
    if (i->type == kAgain) {
      AgainRecord again;
      std::memcpy(&again, i->payload.data(), sizeof again);
      RAY_TRY(again_.bind_blob(1, view(again.task)).bind(2, again.execution).run());
      continue;
    }
    if (i->type == kEnd) {
      RAY_TRY(write_end(i->payload));
      continue;
    }
    bool good = i->type == kSubmit ? decode(i->payload, &submit_view_) : decode(i->payload, &exec_view_);
    if (!good) {
      ++m_.stats_.damaged;
      continue;
    }
    RAY_TRY(i->type == kSubmit ? write_submit(i->node) : write_exec(i->node));
  }
  return {};
}

void MaterialiseBatch::bind_submit(Statement& s, const lineage::SubmitView& v, int64_t node) {
  args_text_.clear();
  append_args(&args_text_, v);
  const lineage::SubmitRecord& f = submit_view_.fixed;
  s.bind_blob(1, view(f.task)).bind_blob(2, view(f.parent));
  if (f.actor.is_nil()) s.bind_null(3);
  else s.bind_blob(3, view(f.actor));
  s.bind(4, static_cast<int64_t>(f.function)).bind_text(5, v.name).bind_text(6, v.method);
  s.bind(7, f.kind).bind(8, static_cast<int64_t>(f.handle_seq)).bind(9, f.submit_ns).bind(10, node);
  s.bind(11, f.process).bind(12, f.n_args).bind(13, f.n_returns);
  if (v.args.empty()) s.bind_null(14);
  else s.bind_text(14, args_text_);
}

void MaterialiseBatch::bind_exec(Statement& s, int at, const lineage::ExecView& v, int64_t node) {
  const lineage::ExecRecord& f = v.fixed;
  if (!has_position(f)) s.bind_null(at);
  else s.bind(at, static_cast<int64_t>(f.actor_pos));
  s.bind(at + 1, f.incarnation).bind(at + 2, f.execution).bind(at + 3, f.start_ns).bind(at + 4, f.end_ns);
  s.bind(at + 5, node).bind(at + 6, f.process).bind(at + 7, f.pid).bind(at + 8, f.code);
  for (int k = 9; k < kExecColumns; ++k) s.bind_null(at + k);
  for (const lineage::ResultView& r : v.results) {
    if (r.fixed.index != 0) continue;
    s.bind(at + 9, static_cast<int64_t>(r.fixed.size)).bind(at + 10, r.fixed.format);
    s.bind(at + 11, r.fixed.in_store);
    result_text_.clear();
    if (append_result(&result_text_, r)) s.bind_text(at + 12, result_text_);
  }
  if (!v.error.empty()) s.bind_text(at + 13, v.error);
}

Status MaterialiseBatch::write_submit(int64_t node) {
  bind_submit(submit_, submit_view_, node);
  RAY_TRY(submit_.run());
  return write_edges();
}

Status MaterialiseBatch::write_exec(int64_t node) {
  const lineage::ExecRecord& f = exec_view_.fixed;
  if (f.execution > 0 || f.incarnation > 0) {
    // Not the only one: keep the one that is in the task's row, and this one.
    RAY_TRY(keep_.bind_blob(1, view(f.task)).run());
    RAY_TRY(add_execution(node));
  }
  exec_.bind_blob(1, view(f.task));
  if (f.actor.is_nil()) exec_.bind_null(2);
  else exec_.bind_blob(2, view(f.actor));
  exec_.bind(3, f.kind);
  bind_exec(exec_, 4, exec_view_, node);
  RAY_TRY(exec_.run());
  if (m_.db_.changes() == 0) {  // a later version is there already
    RAY_TRY(keep_.bind_blob(1, view(f.task)).run());
    return add_execution(node);
  }
  return write_results(node);
}

Status MaterialiseBatch::write_end(std::string_view payload) {
  lineage::EndRecord r;
  std::memcpy(&r, payload.data(), sizeof r);
  std::string_view text = payload.substr(sizeof r, std::min<size_t>(r.error_size, payload.size() - sizeof r));
  end_.bind_blob(1, view(r.task)).bind(2, r.end_ns).bind(3, r.execution).bind(4, r.code).bind_text(5, text);
  return end_.run();
}

Status MaterialiseBatch::add_execution(int64_t node) {
  const lineage::ExecRecord& f = exec_view_.fixed;
  Statement& a = add_execution_;
  a.bind_blob(1, view(f.task)).bind(2, f.incarnation).bind(3, f.execution);
  if (!has_position(f)) a.bind_null(4);
  else a.bind(4, static_cast<int64_t>(f.actor_pos));
  a.bind(5, f.start_ns).bind(6, f.end_ns).bind(7, node).bind(8, f.process).bind(9, f.pid);
  a.bind(10, f.code);
  if (exec_view_.error.empty()) a.bind_null(11);
  else a.bind_text(11, exec_view_.error);
  return a.run();
}

Status MaterialiseBatch::write_edges() {
  for (size_t k = 0; k < submit_view_.args.size(); ++k) {
    const lineage::ArgView& a = submit_view_.args[k];
    if (!a.is_ref) continue;
    arg_.bind_blob(1, view(submit_view_.fixed.task)).bind(2, static_cast<int64_t>(k));
    RAY_TRY(arg_.bind_blob(3, a.bytes).run());
    ++m_.stats_.rows;
  }
  return {};
}

Status MaterialiseBatch::write_results(int64_t node) {
  for (const lineage::ResultView& r : exec_view_.results) {
    if (r.fixed.index == 0) continue;
    ObjectId id = return_object(exec_view_.fixed.task, r.fixed.index);
    object_.bind_blob(1, view(id)).bind(2, static_cast<int64_t>(r.fixed.size)).bind(3, r.fixed.format);
    object_.bind(4, r.fixed.in_store).bind(5, node);
    result_text_.clear();
    if (append_result(&result_text_, r)) object_.bind_text(6, result_text_);
    else object_.bind_null(6);
    RAY_TRY(object_.run());
    ++m_.stats_.rows;
  }
  return {};
}

Status MaterialiseBatch::write_events() {
  for (const Event& e : events_) {
    event_.bind(1, static_cast<int64_t>(e.kind)).bind(2, static_cast<int64_t>(e.sn)).bind(3, e.index);
    event_.bind(4, e.time_ns).bind(5, e.node).bind(6, e.process).bind_text(7, e.json);
    RAY_TRY(event_.run());
    ++m_.stats_.rows;
  }
  return {};
}

// ---- Materialiser --------------------------------------------------------------------------------------------

Materialiser::~Materialiser() = default;

Result<std::unique_ptr<Materialiser>> Materialiser::open(const std::string& dir, uint32_t shard) {
  std::unique_ptr<Materialiser> m(new Materialiser);
  auto db = open_database(database_path(dir, shard), true, 1536);
  if (!db.ok()) return db.status();
  m->db_ = std::move(*db);
  RAY_TRY(m->db_.exec("PRAGMA wal_autocheckpoint=0"));
  auto committed = [](void* frames, sqlite3*, const char*, int n) {
    *static_cast<uint64_t*>(frames) = static_cast<uint64_t>(n);
    return SQLITE_OK;
  };
  sqlite3_wal_hook(m->db_.get(), committed, &m->wal_frames_);
  constexpr int kSteps = 400;  // of SQLite's machine: some 20 us
  auto interrupts = [](void* self) { return static_cast<Materialiser*>(self)->leaves() ? 1 : 0; };
  sqlite3_progress_handler(m->db_.get(), kSteps, interrupts, m.get());
  m->batch_ = std::make_unique<MaterialiseBatch>(*m);
  RAY_TRY(m->batch_->prepare());
  Statement s;
  RAY_TRY(s.prepare(m->db_.get(), "SELECT value FROM meta WHERE key='materialised_sn'"));
  if (s.row()) m->watermark_ = static_cast<uint64_t>(s.integer(0));
  else if (!s.done()) return m->db_.error("read the watermark");
  s.reset();
  RAY_TRY(m->pruner_.open(&m->db_, dir, shard, PruneLimits::from_environment()));
  return m;
}

// Nothing but what is done in spare time is ever interrupted: no rollback, for one, and no transaction after this one.
bool Materialiser::leaves() {
  if (spare_ && !left_) left_ = !spare_->goes_on();
  return spare_ && left_;
}

Status Materialiser::advance(const std::vector<JournalFile>& segments, uint64_t target, SpareTime* spare) {
  uint64_t from = watermark(), reached = from;
  if (from >= target) return {};
  int64_t began = thread_cpu_ns();
  const uint64_t before[] = {stats_.records, stats_.rows, stats_.damaged};
  RAY_TRY(db_.exec("BEGIN IMMEDIATE"));
  batch_->clear();
  spare_ = spare;
  left_ = false;
  Status s = reader_.read(segments, from, [&](const Entry& e) {
    if (leaves()) return false;
    if (!batch_->add(e)) {
      ++stats_.damaged;
      log(kLogError, "gcs", "lineage-damaged", "journal record %llu does not decode and is skipped",
          static_cast<unsigned long long>(e.sn));
    }
    reached = e.sn;
    return batch_->status().ok() && !batch_->full() && reached < target;
  });
  if (s.ok()) s = batch_->status();
  if (s.ok() && left_) s = error(RAY_CANCELLED, "the spare time is over");
  if (s.ok() && reached == from)
    s = error(RAY_INTERNAL, "the journal holds nothing after record %llu",
              static_cast<unsigned long long>(from));
  if (s.ok()) s = batch_->write(reached);
  if (!s.ok()) {
    spare_ = nullptr;
    batch_->rollback();
    stats_.records = before[0], stats_.rows = before[1], stats_.damaged = before[2];
    return left_ ? error(RAY_CANCELLED, "the spare time is over") : s;
  }
  uint64_t tasks = batch_->items(), events = batch_->events();
  batch_->clear();
  RAY_FAULT("gcs.materialise.after");
  watermark_.store(reached, std::memory_order_release);
  spare_ = spare;
  const bool tries = !pruner_.quiet();
  Status pruned = pruner_.step(tasks, events);
  spare_ = nullptr;
  if (tries) prune_left_ = !pruned.ok() && left_;
  if (!pruned.ok() && !left_)  // the rows are in: only the bound is late
    log(kLogError, "gcs", "prune-failed", "%s", pruned.message().c_str());
  stats_.busy_ns += static_cast<uint64_t>(thread_cpu_ns() - began);
  // By what the WAL has on disk: a small change writes whole pages. When a reader is in the way it is tried again a
  // little later.
  if (wal_frames_ < checkpointed_at_) checkpointed_at_ = 0;  // it began anew
  if (wal_frames_ > kMaxWalFrames && wal_frames_ - checkpointed_at_ > kMaxWalFrames / 8) checkpoint();
  return {};
}

void Materialiser::checkpoint() {
  if (wal_frames_ == checkpointed_at_) return;
  (void)db_.exec("PRAGMA wal_checkpoint(PASSIVE)");
  checkpointed_at_ = wal_frames_;
}

static Status materialise_shard(const std::string& dir, uint32_t shard) {
  auto lock = ShardLock::take(dir, shard);
  if (!lock.ok()) return lock.status();
  auto m = Materialiser::open(dir, shard);
  if (!m.ok()) return m.status();
  uint64_t end = (*m)->watermark();
  std::vector<JournalFile> segments;
  // The journal's constructor cuts what is damaged and tells where it ends.
  {
    auto j = Journal::open({dir, shard}, end, [&](const Entry& e) {
      end = e.sn;
      return true;
    });
    if (!j.ok()) return j.status();
    segments = (*j)->segments();
  }
  while ((*m)->watermark() < end) RAY_TRY((*m)->advance(segments, end));
  (*m)->checkpoint();
  for (const JournalFile& f : segments) remove_segment(f.path);
  return {};
}

Status materialise_all(const std::string& path) {
  std::string dir = path;
  long only = -1;
  if (size_t at = path.rfind("gcs-"); at != std::string::npos && path.ends_with(".db")) {
    only = std::strtol(path.c_str() + at + 4, nullptr, 10);
    dir = at == 0 ? "." : path.substr(0, at - 1);
  }
  std::vector<uint32_t> shards;
  DIR* d = opendir(dir.c_str());
  if (!d) return errno_error(RAY_NOT_FOUND, "cannot read %s", dir.c_str());
  while (dirent* entry = readdir(d)) {
    unsigned shard;
    char end;
    if (std::sscanf(entry->d_name, "gcs-%u.d%c", &shard, &end) == 2 && end == 'b' &&
        std::string(entry->d_name).ends_with(".db") && (only < 0 || only == static_cast<long>(shard)))
      shards.push_back(shard);
  }
  closedir(d);
  for (uint32_t shard : shards) RAY_TRY(materialise_shard(dir, shard));
  return {};
}

}  // namespace ray::gcs
