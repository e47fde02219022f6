// See tables.h. The operations themselves are in table_ops.cc.
#include "gcs/tables.h"

#include "libray/wire/cursor.h"
#include "gcs/table_ops.h"

namespace ray::gcs {

namespace {
constexpr size_t kRowOverhead = sizeof(Row) + 80;  // map node and allocator

uint64_t cost(std::string_view key, const Row& row) {
  return kRowOverhead + key.size() + row.value.size();
}

// Private to the control store, or too large to be sent around.
bool is_published(Table t) { return t != Table::kDefinitions; }
}  // namespace

// Record: [client, seq, ack_below, code, text, answer, [[table, key, version, value or nil]...]].
static std::string encode_record(const Request& q, const Outcome& out,
                                 const std::vector<Change>& changes) {
  std::string bytes;
  size_t size = 64 + out.answer.size();
  for (const Change& c : changes) size += 32 + c.key.size() + c.value.size();
  bytes.reserve(size);
  wire::Writer w(&bytes);
  w.array(7).uint64(q.client).uint64(q.seq).uint64(q.ack_below).int64(out.code).str(out.text).bin(out.answer);
  w.array(changes.size());
  for (const Change& c : changes) {
    w.array(4).uint64(static_cast<unsigned>(c.table)).bin(c.key).uint64(c.version);
    if (c.erased) w.nil();
    else w.bin(c.value);
  }
  return bytes;
}

bool parse_record(uint64_t sn, std::string_view bytes, Record* out) {
  wire::Cursor r(bytes);
  r.array_of(7);
  out->client = r.uint64();
  out->seq = r.uint64();
  out->ack_below = r.uint64();
  out->code = static_cast<int32_t>(r.int64());
  out->text = r.bytes();
  out->answer = r.bytes();
  size_t n = r.array();
  out->changes.clear();
  for (size_t k = 0; k < n && r.ok(); ++k) {
    Change c;
    r.array_of(4);
    uint64_t table = r.uint64();
    if (table == 0 || table >= static_cast<uint64_t>(Table::kCount)) r.fail();
    c.sn = sn;
    c.table = static_cast<Table>(table);
    c.key = r.bytes();
    c.version = r.uint64();
    c.erased = r.is_nil();
    if (c.erased) r.value();
    else c.value = r.bytes();
    out->changes.push_back(std::move(c));
  }
  return r.done();
}

void Tables::drop_row(Map& m, Map::iterator it) {
  bytes_ -= cost(it->first, it->second);
  m.erase(it);
}

void Tables::put_row(Table table, std::string_view key, Row row) {
  Map& m = map(table);
  auto it = m.find(key);
  bytes_ += cost(key, row);
  if (it == m.end()) {
    m.emplace(std::string(key), std::move(row));
    return;
  }
  bytes_ -= cost(key, it->second);
  it->second = std::move(row);
}

void Tables::apply(const Change& c, std::string value) {
  if (c.erased && c.table == Table::kKv && c.version > kv_floor_) kv_floor_ = c.version;
  Row row;
  row.version = c.version;
  row.sn = c.sn;
  row.erased = c.erased;
  row.value = std::move(value);
  row.touched = true;
  put_row(c.table, c.key, std::move(row));
}

bool Tables::find_repeat(const Request& q, Outcome* out) {
  if (q.client == 0 || q.seq == 0) return false;
  auto it = dedup_.find(q.client);
  if (it == dedup_.end()) return false;
  ClientState& c = it->second;
  auto answer = c.answers.find(q.seq);
  if (answer != c.answers.end()) {
    out->code = answer->second.code;
    out->text = answer->second.text;
    out->answer = answer->second.answer;
    return true;
  }
  if (q.seq < c.ack_below) {
    out->code = RAY_INVALID_ARGUMENT;
    out->text = "request was acknowledged before";
    return true;
  }
  return false;
}

void Tables::remember(const Request& q, const Outcome& out) {
  if (q.client == 0 || q.seq == 0) return;
  ClientState& c = dedup_[q.client];
  if (q.ack_below > c.ack_below && q.ack_below <= q.seq) c.ack_below = q.ack_below;
  c.last_sn = out.sn;
  c.answers[q.seq] = {out.code, out.text, out.answer, out.sn};
  c.answers.erase(c.answers.begin(), c.answers.lower_bound(c.ack_below));
  while (c.answers.size() > kMaxWindow) c.answers.erase(c.answers.begin());
  if (dedup_.size() > kMaxClients) forget_clients();
}

void Tables::forget_clients() {
  auto oldest = dedup_.begin();
  for (auto it = dedup_.begin(); it != dedup_.end(); ++it)
    if (it->second.last_sn < oldest->second.last_sn) oldest = it;
  dedup_.erase(oldest);
}

// Gives the outcome its sn and record, applies its changes.
void Tables::finish(const Request& q, std::vector<Change> changes, Outcome* out) {
  if (!refusal_.empty()) {
    *out = Outcome{};
    out->code = RAY_UNAVAILABLE;
    out->text = refusal_;
    return;
  }
  out->sn = ++last_sn_;
  out->record = encode_record(q, *out, changes);
  for (Change& c : changes) {
    c.sn = out->sn;
    Undo u{Undo::kRow};
    u.table = c.table;
    u.key = c.key;
    auto it = map(c.table).find(c.key);
    if (it != map(c.table).end()) u.row = it->second;
    undo_.push_back(std::move(u));
    if (!is_published(c.table)) {
      apply(c, std::move(c.value));  // may be large: no second copy
      continue;
    }
    apply(c, c.value);
    uncommitted_.push_back(std::move(c));
  }
  Undo u{Undo::kAnswer};
  u.client = q.client;
  u.seq = q.seq;
  undo_.push_back(std::move(u));
  remember(q, *out);
}

Outcome Tables::step(const Request& q, int64_t now_ns, const std::vector<Range>& loaded) {
  Outcome out;
  if (find_repeat(q, &out)) return out;
  Ops ops(*this, q, now_ns, loaded, &out);
  ops.run();
  if (out.kind != Outcome::kDone) return out;
  if (!ops.changes.empty()) finish(q, std::move(ops.changes), &out);
  return out;
}

LineageOutcome Tables::append(const NodeId& node, uint32_t epoch, uint64_t lsn_from, uint32_t n) {
  LineageOutcome out;
  auto it = journals_.find(node);
  JournalState now = it == journals_.end() ? JournalState{} : it->second;
  if (epoch < now.epoch) {
    out.kind = LineageOutcome::kFenced;
    return out;
  }
  if (epoch > now.epoch) now = {epoch, 0};
  out.committed = now.lsn;
  uint64_t to = lsn_from + n - 1;
  if (n == 0 || to <= now.lsn) out.kind = LineageOutcome::kDuplicate;
  else if (lsn_from > now.lsn + 1) out.kind = LineageOutcome::kGap;
  else if (lsn_from <= now.lsn) out.kind = LineageOutcome::kOverlap;
  if (out.kind != LineageOutcome::kAccepted) return out;
  Undo u{Undo::kJournal};
  u.node = node;
  if (it != journals_.end()) u.journal = it->second;
  undo_.push_back(std::move(u));
  journals_[node] = {epoch, to};
  out.committed = to;
  out.sn = ++last_sn_;
  return out;
}

uint64_t Tables::committed_lsn(const NodeId& node, uint32_t epoch) const {
  auto it = journals_.find(node);
  return it == journals_.end() || it->second.epoch != epoch ? 0 : it->second.lsn;
}

bool Tables::commit() {
  bool news = !uncommitted_.empty();
  undo_.clear();
  batch_sn_ = last_sn_;
  batch_kv_floor_ = kv_floor_;
  publish_later(std::move(uncommitted_));
  uncommitted_.clear();
  return news;
}

void Tables::publish_later(std::vector<Change> changes) {
  for (Change& c : changes) {
    recent_bytes_ += sizeof(Change) + c.key.size() + c.value.size();
    recent_.push_back(std::move(c));
  }
  trim_recent();
}

void Tables::trim_recent() {
  while (recent_bytes_ > kRecentBytes) {
    Change& c = recent_.front();
    uint64_t sn = c.sn;
    while (!recent_.empty() && recent_.front().sn == sn) {
      recent_bytes_ -= sizeof(Change) + recent_.front().key.size() + recent_.front().value.size();
      recent_.pop_front();
    }
    recent_floor_ = sn;
  }
}

void Tables::rollback() {
  for (size_t k = undo_.size(); k-- > 0;) {
    Undo& u = undo_[k];
    if (u.kind == Undo::kRow) {
      if (u.row) {
        put_row(u.table, u.key, std::move(*u.row));
      } else if (auto it = map(u.table).find(u.key); it != map(u.table).end()) {
        drop_row(map(u.table), it);
      }
    } else if (u.kind == Undo::kAnswer) {
      auto it = dedup_.find(u.client);
      if (it != dedup_.end()) it->second.answers.erase(u.seq);
    } else if (u.journal) {
      journals_[u.node] = *u.journal;
    } else {
      journals_.erase(u.node);
    }
  }
  undo_.clear();
  uncommitted_.clear();
  last_sn_ = batch_sn_;
  kv_floor_ = batch_kv_floor_;
}

bool Tables::recover(uint64_t sn, std::string_view bytes) {
  Record rec;
  if (!parse_record(sn, bytes, &rec)) return false;
  Request q{rec.client, rec.seq, rec.ack_below, 0, {}};
  Outcome out;
  out.code = rec.code;
  out.text = rec.text;
  out.answer = rec.answer;
  out.sn = sn;
  remember(q, out);
  std::vector<Change> published;
  for (Change& c : rec.changes) {
    if (!is_published(c.table)) {
      apply(c, std::move(c.value));
      continue;
    }
    apply(c, c.value);
    published.push_back(std::move(c));
  }
  publish_later(std::move(published));
  last_sn_ = batch_sn_ = sn;
  batch_kv_floor_ = kv_floor_;
  return true;
}

void Tables::recover_lineage(uint64_t sn, const NodeId& node, uint32_t epoch, uint64_t lsn_to) {
  restore_journal(node, epoch, lsn_to);
  last_sn_ = batch_sn_ = sn;
}

void Tables::restore_sn(uint64_t sn) { last_sn_ = batch_sn_ = recent_floor_ = sn; }

void Tables::restore_journal(const NodeId& node, uint32_t epoch, uint64_t lsn) {
  JournalState& j = journals_[node];
  if (epoch > j.epoch || (epoch == j.epoch && lsn > j.lsn)) j = {epoch, lsn};
}

void Tables::restore_dedup(uint64_t client, uint64_t ack_below, uint64_t seq, int32_t code,
                           std::string text, std::string answer) {
  Request q{client, seq, ack_below, 0, {}};
  Outcome out;
  out.code = code;
  out.text = std::move(text);
  out.answer = std::move(answer);
  remember(q, out);
}

void Tables::load(Table table, std::string_view key, uint64_t version, uint64_t sn, bool has_value,
                  std::string_view value) {
  auto it = map(table).find(key);
  if (it != map(table).end() && (it->second.has_value || !has_value || it->second.erased)) return;
  Row row;
  row.version = version;
  row.sn = sn;
  row.has_value = has_value;
  row.value = value;
  row.touched = true;
  put_row(table, key, std::move(row));
}

void Tables::load_absent(Table table, std::string_view key) {
  if (map(table).find(key) != map(table).end()) return;
  Row row;
  row.erased = true;
  row.touched = true;
  put_row(table, key, std::move(row));
}

// Second chance: a row that was touched since the hand came by stays for one round.
uint64_t Tables::evict(uint64_t sn, uint64_t target, size_t max_rows) {
  const size_t n_tables = static_cast<size_t>(Table::kCount);
  size_t wraps = 0;
  while (bytes_ > target && max_rows > 0 && wraps <= n_tables) {
    Map& m = maps_[hand_table_];
    auto it = m.upper_bound(hand_key_);
    if (it == m.end()) {
      hand_table_ = hand_table_ + 1 >= n_tables ? 1 : hand_table_ + 1;
      hand_key_.clear();
      ++wraps;
      continue;
    }
    hand_key_ = it->first;
    --max_rows;
    if (it->second.sn > sn) continue;
    if (it->second.touched) {
      it->second.touched = false;
      wraps = 0;
      continue;
    }
    if (!it->second.erased) on_disk_ = true;
    drop_row(m, it);
  }
  return bytes_;
}

uint64_t Tables::rows() const {
  uint64_t n = 0;
  for (const Map& m : maps_) n += m.size();
  return n;
}

}  // namespace ray::gcs
