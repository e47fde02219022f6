// See table_ops.h and, for what each operation means, ops.h.
#include "gcs/table_ops.h"

namespace ray::gcs {

std::string_view map_get(std::string_view map, std::string_view column) {
  wire::Cursor r(map);
  size_t n = r.map();
  for (size_t k = 0; k < n && r.ok(); ++k) {
    wire::Cursor key(r.value());
    std::string_view value = r.value();
    if (key.peek() == wire::Type::kStr && key.bytes() == column) return value;
  }
  return {};
}

std::string map_merge(std::string_view base, std::string_view update) {
  constexpr size_t kMaxColumns = 64;
  std::vector<std::pair<std::string_view, std::string_view>> columns;
  for (std::string_view map : {base, update}) {
    wire::Cursor r(map);
    size_t n = r.map();
    for (size_t k = 0; k < n && r.ok(); ++k) {
      std::string_view key = r.value(), value = r.value();
      bool found = false;
      for (auto& c : columns)
        if (c.first == key) {
          c.second = value;
          found = true;
          break;
        }
      if (!found) columns.emplace_back(key, value);
      if (columns.size() > kMaxColumns) return {};
    }
    if (!r.done()) return {};
  }
  std::string out;
  wire::Writer w(&out);
  w.map(columns.size());
  for (auto& c : columns) w.raw(c.first).raw(c.second);
  return out;
}

bool same_value(std::string_view x, std::string_view y) {
  if (x == y) return true;
  wire::Cursor a(x), b(y);
  using wire::Type;
  auto is_text = [](Type t) { return t == Type::kStr || t == Type::kBin; };
  if (is_text(a.peek()) && is_text(b.peek())) return a.bytes() == b.bytes();
  auto is_integer = [](Type t) { return t == Type::kInt || t == Type::kUint; };
  if (is_integer(a.peek()) && is_integer(b.peek())) {
    int64_t m = a.int64(), n = b.int64();
    return a.ok() && b.ok() && m == n;
  }
  return false;
}

std::string prefix_end(std::string_view prefix) {
  std::string end(prefix);
  while (!end.empty() && end.back() == '\xff') end.pop_back();
  if (!end.empty()) end.back() = static_cast<char>(static_cast<unsigned char>(end.back()) + 1);
  return end;
}

std::string big_endian(uint64_t v) {
  std::string s(8, '\0');
  for (int k = 7; k >= 0; --k, v >>= 8) s[k] = static_cast<char>(v & 255);
  return s;
}

static std::string id_key(const Id& id) { return {reinterpret_cast<const char*>(id.b), kIdSize}; }
static std::string hex_of(const Id& id) { return id.is_nil() ? "" : id.hex(); }

static int64_t int_column(std::string_view map, std::string_view column) {
  wire::Cursor r(map_get(map, column));
  int64_t v = r.int64();
  return r.ok() ? v : 0;
}
static std::string_view text_column(std::string_view map, std::string_view column) {
  wire::Cursor r(map_get(map, column));
  return r.bytes();
}

// ---- plumbing ------------------------------------------------------------------------------------------

Row* Ops::find(Table table, std::string_view key, bool with_value) {
  auto& m = t.map(table);
  auto it = m.find(key);
  if (it == m.end() ? t.on_disk_ : (with_value && !it->second.has_value && !it->second.erased)) {
    out->kind = Outcome::kNeedRow;
    out->need = {table, std::string(key), {}, true};
    return nullptr;
  }
  if (it == m.end()) return nullptr;
  it->second.touched = true;
  return it->second.erased ? nullptr : &it->second;
}

bool Ops::have_range(Table table, std::string first, std::string end, bool values) {
  if (!t.on_disk_) return true;
  Range want{table, std::move(first), std::move(end), values};
  for (const Range& r : loaded)
    if (r == want) return true;
  out->kind = Outcome::kNeedRange;
  out->need = std::move(want);
  return false;
}

bool Ops::args_ok(size_t n) {
  if (in.done() && n_args == n) return true;
  fail(RAY_INVALID_ARGUMENT, "malformed arguments of gcs operation " + std::to_string(q.op));
  return false;
}

uint64_t Ops::next_version(Table table, const Row* old) const {
  return (old ? old->version : table == Table::kKv ? t.kv_floor_ : 0) + 1;
}

void Ops::set(Table table, std::string_view key, std::string value) {
  Row* old = find(table, key, false);
  Change c;
  c.table = table;
  c.key = key;
  c.version = next_version(table, old);
  c.value = std::move(value);
  changes.push_back(std::move(c));
}

void Ops::erase(Table table, std::string_view key) {
  Row* old = table == Table::kKv ? find(table, key, false) : nullptr;
  Change c;
  c.table = table;
  c.key = key;
  c.version = old ? old->version : 0;
  c.erased = true;
  changes.push_back(std::move(c));
}

void Ops::run() {
  n_args = in.array();
  dispatch();
  if (blocked()) {
    changes.clear();
    out->answer.clear();
  }
  if (out->code == RAY_OK && out->kind == Outcome::kDone && out->answer.empty()) answer.array(0);
}

void Ops::dispatch() {
  switch (q.op) {
    case kPing: return ping();
    case kHello: return hello();
    case kPoll: return poll();
    case kQuery: return query();
    case kFunctionDefine: return function_define();
    case kFunctionGet: return function_get();
    case kFunctionForget: return function_forget();
    case kKvGet: return kv_get();
    case kKvPut: return kv_put();
    case kKvDelete: return kv_delete();
    case kKvList: return kv_list();
    case kActorRegister: return actor_register();
    case kActorUpdate: return actor_update();
    case kActorInfo: return actor_info();
    case kNameClaim: return name_claim();
    case kNameRelease: return name_release();
    case kActorFind: return actor_find();
    case kActorLogAppend: return log_append();
    case kActorLogRead: return log_read();
    case kActorLogTrim: return log_trim();
    case kNodePut: return merge_put(Table::kNodes, "node");
    case kJobPut: return merge_put(Table::kJobs, "job");
    case kEventAdd: return record_add(Table::kEvents);
    case kErrorAdd: return record_add(Table::kErrors);
    case kObjectPut: return object_put();
    case kObjectGet: return object_get();
    case kTaskPut: return task_put();
    case kTaskGet: return task_get();
    default: fail(RAY_UNSUPPORTED, "unknown gcs operation " + std::to_string(q.op));
  }
}

// ---- service ---------------------------------------------------------------------------------------------

void Ops::ping() { answer.array(1).uint64(t.batch_sn_); }

void Ops::hello() {
  Id node = in.id();
  uint64_t epoch = in.uint64();
  if (!args_ok(2)) return;
  answer.array(1).uint64(t.committed_lsn(node, static_cast<uint32_t>(epoch)));
}

// What a subscriber is told: a kv row with its version, other rows as they are; erased: nothing.
static std::string delivered(Table table, const Change& c) {
  if (c.erased || table != Table::kKv) return c.value;
  std::string v;
  wire::Writer(&v).array(2).uint64(c.version).bin(c.value);
  return v;
}

void Ops::poll() {
  uint64_t since = in.uint64();
  size_t n = in.array();
  std::vector<std::pair<Table, std::string_view>> topics;
  for (size_t k = 0; k < n && in.ok(); ++k) {
    in.array_of(2);
    Table table{};
    if (!table_of(in.bytes(), &table)) in.fail();
    topics.emplace_back(table, in.bytes());
  }
  if (!args_ok(2)) return;
  auto wanted = [&](Table table, std::string_view key) {
    for (auto& [want, prefix] : topics)
      if (want == table && key.substr(0, prefix.size()) == prefix) return true;
    return false;
  };
  std::vector<const Change*> found;
  std::deque<Change> rows;  // of a snapshot
  bool snapshot = since < t.recent_floor_ || since > t.last_sn_;
  if (snapshot) {
    for (auto& [table, prefix] : topics)
      if (!have_range(table, std::string(prefix), prefix_end(prefix), true)) return;
    for (size_t k = 1; k < static_cast<size_t>(Table::kCount); ++k)
      for (auto& [key, row] : t.maps_[k]) {
        Table table = static_cast<Table>(k);
        if (row.erased || !row.has_value || !wanted(table, key)) continue;
        rows.push_back({row.sn, table, key, row.version, false, row.value});
        found.push_back(&rows.back());
      }
  } else {
    for (const Change& c : t.recent_)
      if (c.sn > since && wanted(c.table, c.key)) found.push_back(&c);
    if (found.empty()) {
      out->kind = Outcome::kPark;
      return;
    }
  }
  uint64_t sn = snapshot ? t.last_sn_ : t.batch_sn_;
  answer.array(3).uint64(sn).boolean(snapshot).array(found.size());
  for (const Change* c : found)
    answer.array(4).uint64(c->sn).str(table_name(c->table)).bin(c->key).bin(delivered(c->table, *c));
}

// Row of the "kv" query.
static std::string kv_row(std::string_view key, const Row& row) {
  std::string out;
  size_t nul = key.find('\0');
  wire::Writer(&out).map(4).str("ns").str(key.substr(0, nul)).str("key").bin(key.substr(nul + 1))
      .str("version").uint64(row.version).str("size").uint64(row.value.size());
  return out;
}

void Ops::query() {
  std::string_view what = in.bytes(), filter = in.is_nil() ? std::string_view{} : in.rest();
  in.value();
  if (!args_ok(2)) return;
  Table table{};
  bool known = table_of(what, &table) && (table == Table::kActors || table == Table::kNodes ||
               table == Table::kJobs || table == Table::kFunctions || table == Table::kKv);
  wire::Cursor check(filter);
  if (!filter.empty()) check.map();
  if (!known || !check.ok())
    return fail(RAY_INVALID_ARGUMENT, known ? "a query's filter is a map" :
                "cannot query \"" + std::string(what.substr(0, 40)) + "\" at a gcs shard");
  if (!have_range(table, "", "", true)) return;
  uint64_t limit = kMaxQueryRows, n = 0;
  std::vector<std::pair<std::string_view, std::string_view>> conditions;
  size_t columns = filter.empty() ? 0 : wire::Cursor(filter).map();
  wire::Cursor f(filter);
  if (!filter.empty()) f.map();
  for (size_t k = 0; k < columns && f.ok(); ++k) {
    std::string_view column = f.bytes(), value = f.value();
    if (column == "limit") limit = std::min<uint64_t>(limit, wire::Cursor(value).uint64());
    else if (column != "fresh_ms") conditions.emplace_back(column, value);
  }
  std::string rows;
  for (auto& [key, row] : t.map(table)) {
    if (n >= limit || rows.size() > kMaxFrame / 2) break;
    if (row.erased || !row.has_value) continue;
    std::string map = table == Table::kKv ? kv_row(key, row) : row.value;
    bool match = true;
    for (auto& [column, value] : conditions)
      match = match && same_value(map_get(map, column), value);
    if (!match) continue;
    rows.append(map);
    ++n;
  }
  answer.array(n).raw(rows);
}

// ---- functions ---------------------------------------------------------------------------------------------

void Ops::function_define() {
  uint64_t key = in.uint64();
  int64_t language = in.int64(), kind = in.int64();
  std::string_view name = in.bytes(), definition = in.bytes();
  if (!args_ok(5)) return;
  std::string k = big_endian(key);
  Row* old = find(Table::kDefinitions, k);
  if (blocked()) return;
  if (old) {
    if (old->value != definition)
      fail(RAY_CONFLICT, "function key of \"" + std::string(name.substr(0, 80)) +
                             "\" is taken by another definition");
    return;
  }
  std::string row;
  wire::Writer(&row).map(5).str("key").uint64(key).str("name").str(name).str("language").int64(language)
      .str("kind").int64(kind).str("size").uint64(definition.size());
  set(Table::kFunctions, k, std::move(row));
  if (blocked()) return;
  set(Table::kDefinitions, k, std::string(definition));
}

void Ops::function_get() {
  uint64_t key = in.uint64();
  if (!args_ok(1)) return;
  std::string k = big_endian(key);
  Row* row = find(Table::kFunctions, k);
  if (blocked()) return;
  Row* definition = row ? find(Table::kDefinitions, k) : nullptr;
  if (blocked()) return;
  if (!row || !definition) return fail(RAY_NOT_FOUND, "no function has key " + std::to_string(key));
  answer.array(4).raw(map_get(row->value, "language")).raw(map_get(row->value, "kind"))
      .raw(map_get(row->value, "name")).bin(definition->value);
}

// The readable table of functions keeps its row: tasks are shown by its name.
void Ops::function_forget() {
  uint64_t key = in.uint64();
  if (!args_ok(1)) return;
  std::string k = big_endian(key);
  for (Table table : {Table::kFunctions, Table::kDefinitions}) {
    Row* row = find(table, k, false);
    if (blocked()) return;
    if (row) erase(table, k);
  }
}

// ---- key-value -----------------------------------------------------------------------------------------------

bool Ops::read_kv_key(std::string* key) {
  std::string_view ns = in.bytes(), name = in.bytes();
  *key = kv_key(ns, name);
  if (ns.find('\0') == std::string_view::npos && key->size() <= kMaxKey) return true;
  fail(RAY_INVALID_ARGUMENT, "namespace holds a nul, or the key is longer than 64 KiB");
  return false;
}

void Ops::kv_get() {
  std::string key;
  if (!read_kv_key(&key) || !args_ok(2)) return;
  Row* row = find(Table::kKv, key);
  if (blocked()) return;
  if (!row) return fail(RAY_NOT_FOUND, "key does not exist");
  answer.array(2).uint64(row->version).bin(row->value);
}

void Ops::kv_put() {
  std::string key;
  if (!read_kv_key(&key)) return;
  std::string_view value = in.bytes();
  uint64_t expected = in.uint64();
  if (!args_ok(4)) return;
  Row* row = find(Table::kKv, key, false);
  if (blocked()) return;
  uint64_t version = row ? row->version : 0;
  if (expected != UINT64_MAX && expected != version) {
    answer.array(1).uint64(version);
    return fail(RAY_CONFLICT, "key has version " + std::to_string(version) + ", not " +
                                  std::to_string(expected));
  }
  set(Table::kKv, key, std::string(value));
  answer.array(1).uint64(next_version(Table::kKv, row));
}

void Ops::kv_delete() {
  std::string key;
  if (!read_kv_key(&key)) return;
  uint64_t expected = in.uint64();
  if (!args_ok(3)) return;
  Row* row = find(Table::kKv, key, false);
  if (blocked()) return;
  if (!row) return fail(RAY_NOT_FOUND, "key does not exist");
  if (expected != UINT64_MAX && expected != row->version) {
    answer.array(1).uint64(row->version);
    return fail(RAY_CONFLICT, "key has version " + std::to_string(row->version) + ", not " +
                                  std::to_string(expected));
  }
  erase(Table::kKv, key);
}

void Ops::kv_list() {
  std::string prefix;
  if (!read_kv_key(&prefix) || !args_ok(2)) return;
  std::string end = prefix_end(prefix);
  if (!have_range(Table::kKv, prefix, end, false)) return;
  size_t skip = prefix.find('\0') + 1, n = 0;
  std::string keys;
  auto& m = t.map(Table::kKv);
  for (auto it = m.lower_bound(prefix); it != m.end() && (end.empty() || it->first < end); ++it) {
    if (it->second.erased) continue;
    if (keys.size() > kMaxFrame / 2) break;
    wire::Writer(&keys).bin(std::string_view(it->first).substr(skip));
    ++n;
  }
  answer.array(1).array(n).raw(keys);
}

// ---- actors --------------------------------------------------------------------------------------------------

void Ops::actor_register() {
  Id actor = in.id();
  std::string_view columns = in.value();
  if (!args_ok(2)) return;
  std::string key = id_key(actor);
  Row* row = find(Table::kActors, key);
  if (blocked() || row) return;
  std::string base;
  wire::Writer(&base).map(4).str("actor").str(hex_of(actor)).str("state").str("PENDING")
      .str("incarnation").uint64(0).str("created_ns").int64(now);
  std::string merged = map_merge(base, columns);
  if (merged.empty()) return fail(RAY_INVALID_ARGUMENT, "columns of an actor are a map of at most 64");
  set(Table::kActors, key, std::move(merged));
}

void Ops::actor_update() {
  Id actor = in.id();
  uint64_t incarnation = in.uint64();
  std::string_view columns = in.value();
  if (!args_ok(3)) return;
  std::string key = id_key(actor);
  Row* row = find(Table::kActors, key);
  if (blocked()) return;
  if (!row) return fail(RAY_NOT_FOUND, "actor " + hex_of(actor) + " was never registered");
  uint64_t known = static_cast<uint64_t>(int_column(row->value, "incarnation"));
  bool dead = text_column(row->value, "state") == "DEAD";
  std::string_view state = text_column(columns, "state");
  if (incarnation < known || (dead && !state.empty() && state != "DEAD")) {
    answer.array(1).uint64(known);
    return fail(RAY_CONFLICT, "superseded: actor " + hex_of(actor) +
                                  (dead ? " is dead" : " has a later incarnation"));
  }
  std::string update;
  wire::Writer(&update).map(2).str("incarnation").uint64(incarnation).str("updated_ns").int64(now);
  std::string merged = map_merge(map_merge(row->value, columns), update);
  if (merged.empty()) return fail(RAY_INVALID_ARGUMENT, "columns of an actor are a map of at most 64");
  answer.array(2).str(text_column(merged, "ns")).str(text_column(merged, "name"));
  set(Table::kActors, key, std::move(merged));
}

void Ops::actor_info() {
  Id actor = in.id();
  if (!args_ok(1)) return;
  Row* row = find(Table::kActors, id_key(actor));
  if (blocked()) return;
  if (!row) return fail(RAY_NOT_FOUND, "no actor has the id " + hex_of(actor));
  answer.array(1).raw(row->value);
}

void Ops::name_claim() {
  std::string key;
  if (!read_kv_key(&key)) return;
  Id actor = in.id();
  if (!args_ok(3)) return;
  Row* row = find(Table::kNames, key);
  if (blocked()) return;
  if (row && row->value != id_key(actor)) {
    answer.array(1).bin(row->value);
    return fail(RAY_ALREADY_EXISTS, "a living actor has the name \"" +
                                        key.substr(key.find('\0') + 1, 80) + "\"");
  }
  answer.array(1).id(actor);
  if (!row) set(Table::kNames, key, id_key(actor));
}

void Ops::name_release() {
  std::string key;
  if (!read_kv_key(&key)) return;
  Id actor = in.id();
  if (!args_ok(3)) return;
  Row* row = find(Table::kNames, key);
  if (blocked()) return;
  if (row && row->value == id_key(actor)) erase(Table::kNames, key);
}

void Ops::actor_find() {
  std::string key;
  if (!read_kv_key(&key) || !args_ok(2)) return;
  Row* row = find(Table::kNames, key);
  if (blocked()) return;
  if (!row)
    return fail(RAY_NOT_FOUND, "no living actor has the name \"" +
                                   key.substr(key.find('\0') + 1, 80) + "\"");
  answer.array(1).bin(row->value);
}

// ---- actor logs (dense positions) --------------------------------------------------------------------------------

namespace {
struct LogEnd {  // value of a row of actor_ends
  uint64_t incarnation = 0, begin = 0, end = 0;
  explicit LogEnd(const Row* row) {
    if (!row) return;
    wire::Cursor r(row->value);
    r.array_of(3);
    incarnation = r.uint64();
    begin = r.uint64();
    end = r.uint64();
  }
  std::string bytes() const {
    std::string s;
    wire::Writer(&s).array(3).uint64(incarnation).uint64(begin).uint64(end);
    return s;
  }
};
}  // namespace

void Ops::log_append() {
  Id actor = in.id();
  uint64_t incarnation = in.uint64(), position = in.uint64();
  std::string_view determinant = in.bytes();
  if (!args_ok(4)) return;
  std::string key = id_key(actor), at = key + big_endian(position);
  Row* end_row = find(Table::kActorEnds, key);
  if (blocked()) return;
  LogEnd log(end_row);
  if (incarnation < log.incarnation) {
    log_end_answer(log.end);
    return fail(RAY_CONFLICT, "superseded: actor " + hex_of(actor) + " has a later incarnation");
  }
  if (position < log.end && position >= log.begin) {
    Row* row = find(Table::kActorLogs, at);
    if (blocked()) return;
    log_end_answer(log.end);
    if (row && row->value == determinant) return;
    return fail(RAY_CONFLICT, "conflict: position " + std::to_string(position) +
                                  " of the actor's log holds something else");
  }
  if (position != log.end) {
    log_end_answer(log.end);
    return fail(RAY_CONFLICT, "conflict: the actor's log ends at " + std::to_string(log.end));
  }
  log.incarnation = incarnation;
  ++log.end;
  log_end_answer(log.end);
  set(Table::kActorEnds, key, log.bytes());
  set(Table::kActorLogs, at, std::string(determinant));
}

void Ops::log_read() {
  Id actor = in.id();
  uint64_t from = in.uint64(), limit = in.uint64();
  if (!args_ok(3)) return;
  std::string key = id_key(actor);
  Row* end_row = find(Table::kActorEnds, key);
  if (blocked()) return;
  LogEnd log(end_row);
  from = std::max(from, log.begin);
  limit = std::min<uint64_t>(limit, kMaxLogRead);
  uint64_t to = from >= log.end ? from : std::min(log.end, from + limit);
  if (!have_range(Table::kActorLogs, key + big_endian(from), key + big_endian(to), true)) return;
  answer.array(2).uint64(log.end).array(to - from);
  for (uint64_t p = from; p < to; ++p) {
    Row* row = find(Table::kActorLogs, key + big_endian(p));
    if (blocked()) return;
    if (row) answer.bin(row->value);
    else answer.nil();
  }
}

void Ops::log_trim() {
  Id actor = in.id();
  uint64_t incarnation = in.uint64(), below = in.uint64();
  if (!args_ok(3)) return;
  std::string key = id_key(actor);
  Row* end_row = find(Table::kActorEnds, key);
  if (blocked()) return;
  LogEnd log(end_row);
  if (incarnation < log.incarnation || below > log.end) {
    log_end_answer(log.end);
    return fail(RAY_CONFLICT, "superseded, or the log ends before that position");
  }
  // In steps, so that one record stays small; the caller goes on until nothing is left.
  uint64_t to = std::min(below, log.begin + kMaxLogRead);
  log_end_answer(log.end);
  if (to <= log.begin) return;
  for (uint64_t p = log.begin; p < to; ++p) erase(Table::kActorLogs, key + big_endian(p));
  log.begin = to;
  set(Table::kActorEnds, key, log.bytes());
}

// ---- nodes, jobs, events, errors ----------------------------------------------------------------------------------

// A node or a job that has ended: requests keep no order, and nothing comes to life again.
static bool is_final(std::string_view row) {
  std::string_view state = text_column(row, "state");
  return state == "DEAD" || state == "FINISHED";
}

void Ops::merge_put(Table table, const char* id_column) {
  Id id = in.id();
  std::string_view columns = in.value();
  if (!args_ok(2)) return;
  std::string key = id_key(id);
  Row* row = find(table, key);
  if (blocked()) return;
  std::string base;
  wire::Writer(&base).map(2).str(id_column).str(hex_of(id)).str("created_ns").int64(now);
  std::string merged = map_merge(row ? row->value : base, columns);
  // What was under way when the end was told comes late: it adds what the row does not have, and changes nothing.
  if (row && is_final(row->value) && !is_final(merged)) merged = map_merge(merged, row->value);
  if (merged.empty()) return fail(RAY_INVALID_ARGUMENT, "columns are a map of at most 64");
  if (row && row->value == merged) return;
  set(table, key, std::move(merged));
}

void Ops::record_add(Table table) {
  std::string_view map = in.value();
  if (!args_ok(1) || wire::Cursor(map).peek() != wire::Type::kMap)
    return fail(RAY_INVALID_ARGUMENT, "an event is one MessagePack map");
  std::string value;
  wire::Writer(&value).array(2).int64(now).raw(map);
  Change c;
  c.table = table;
  c.key = big_endian(t.last_sn_ + 1);
  c.version = 1;
  c.value = std::move(value);
  changes.push_back(std::move(c));
}

// ---- objects and tasks -----------------------------------------------------------------------------------------------

// Row of an object: [size, [[node, seq, there]...]]. A location that went stays with its number, so that a change
// that was told earlier and comes later does not bring it back.
void Ops::object_put() {
  Id object = in.id();
  uint64_t size = in.uint64();
  Id node = in.id();
  uint64_t seq = in.uint64();
  bool add = in.boolean();
  if (!args_ok(5)) return;
  std::string key = id_key(object), node_key = id_key(node);
  Row* row = find(Table::kObjects, key);
  if (blocked()) return;
  std::string rest;
  uint64_t others = 0;
  if (row) {
    wire::Cursor r(row->value);
    r.array_of(2);
    uint64_t known = r.uint64();
    if (!add) size = known;
    for (size_t n = r.array(); n > 0 && r.ok(); --n) {
      std::string_view location = r.value();
      wire::Cursor l(location);
      l.array_of(3);
      if (l.bytes() != node_key) {
        rest.append(location);
        ++others;
      } else if (l.uint64() >= seq) {
        return;  // the same again, or late
      }
    }
  }
  std::string value;
  wire::Writer w(&value);
  w.array(2).uint64(size).array(others + 1).raw(rest).array(3).bin(node_key).uint64(seq).boolean(add);
  set(Table::kObjects, key, std::move(value));
}

void Ops::object_get() {
  Id object = in.id();
  if (!args_ok(1)) return;
  Row* row = find(Table::kObjects, id_key(object));
  if (blocked()) return;
  if (!row) return fail(RAY_NOT_FOUND, "no location is known of object " + hex_of(object));
  wire::Cursor r(row->value);
  r.array_of(2);
  uint64_t size = r.uint64(), there = 0;
  std::string nodes;
  for (size_t n = r.array(); n > 0 && r.ok(); --n) {
    r.array_of(3);
    std::string_view node = r.bytes();
    r.uint64();
    if (!r.boolean()) continue;
    wire::Writer(&nodes).bin(node);
    ++there;
  }
  answer.array(3).uint64(size).id(producer_of(object)).array(there).raw(nodes);
}

void Ops::task_put() {
  Id task = in.id();
  uint64_t version[3] = {in.uint64(), in.uint64(), in.uint64()};
  Id node = in.id();
  std::string_view record = in.bytes();
  if (!args_ok(6)) return;
  std::string key = id_key(task);
  Row* row = find(Table::kTasks, key);
  if (blocked()) return;
  std::string value;
  wire::Writer(&value).array(5).uint64(version[0]).uint64(version[1]).uint64(version[2]).id(node).bin(record);
  if (row) {
    wire::Cursor r(row->value);
    r.array_of(5);
    uint64_t known[3] = {r.uint64(), r.uint64(), r.uint64()};
    int order = 0;
    for (int k = 0; k < 3 && order == 0; ++k)
      order = version[k] < known[k] ? -1 : version[k] > known[k] ? 1 : 0;
    if (order < 0 || (order == 0 && row->value != value)) {
      answer.array(4).uint64(order < 0 ? 1 : 2).uint64(known[0]).uint64(known[1]).uint64(known[2]);
      return fail(RAY_CONFLICT, order < 0 ? "superseded: a later version of the task is recorded"
                                          : "conflict: another record has the same version");
    }
    if (order == 0) {
      answer.array(1).uint64(0);
      return;
    }
  }
  answer.array(1).uint64(0);
  set(Table::kTasks, key, std::move(value));
}

void Ops::task_get() {
  Id task = in.id();
  if (!args_ok(1)) return;
  Row* row = find(Table::kTasks, id_key(task));
  if (blocked()) return;
  if (!row) return fail(RAY_NOT_FOUND, "no record of task " + hex_of(task));
  answer.raw(row->value);
}

}  // namespace ray::gcs
