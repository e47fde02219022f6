// See messages.h.
#include "libray/cluster/messages.h"

#include <algorithm>

#include "libray/wire/cursor.h"
#include "libray/wire/limits.h"

namespace ray::cluster {
namespace {

constexpr uint32_t kMaxNames = 10'000;  // resources or labels of one node
constexpr size_t kMaxText = 64 << 10;   // of what a node says of itself

void put(const About& a, wire::Writer* w) {
  w->array(9).id(a.id).str(a.address).str(a.host).str(a.session).str(a.relay).int64(a.pid).int64(a.start_ns);
  cluster::put(a.resources, w);
  w->map(static_cast<uint32_t>(a.labels.size()));
  for (const auto& [name, value] : a.labels) w->str(name).str(value);
}

void put(const Row& r, wire::Writer* w) {
  w->array(8).uint64(r.index).uint64(r.epoch).uint64(r.died).uint64(static_cast<uint64_t>(r.state));
  w->boolean(r.silent).int64(r.since_ns).str(r.cause);
  put(r.about, w);
}

uint32_t narrow(wire::Cursor* r) {
  const uint64_t v = r->uint64();
  if (v > UINT32_MAX) r->fail();
  return static_cast<uint32_t>(v);
}

std::string text(wire::Cursor* r) {
  const std::string_view v = r->bytes();
  if (v.size() > kMaxText) r->fail();
  return r->ok() ? std::string(v) : std::string();
}

void get(wire::Cursor* r, About* out) {
  r->array_of(9);
  out->id = r->id();
  out->address = text(r), out->host = text(r), out->session = text(r), out->relay = text(r);
  if (out->relay.size() > kMaxRelay) r->fail();
  out->pid = r->int64(), out->start_ns = r->int64();
  cluster::get(r, &out->resources);
  const uint32_t n = r->map();
  if (n > kMaxNames) r->fail();
  for (uint32_t i = 0; i < n && r->ok(); ++i) {
    std::string name = text(r);
    out->labels[std::move(name)] = text(r);
  }
}

void get(wire::Cursor* r, Row* out) {
  r->array_of(8);
  out->index = narrow(r), out->epoch = narrow(r), out->died = narrow(r);
  const uint64_t state = r->uint64();
  if (state > static_cast<uint64_t>(State::kDead)) r->fail();
  out->state = static_cast<State>(state);
  out->silent = r->boolean();
  out->since_ns = r->int64();
  out->cause = text(r);
  get(r, &out->about);
}

void get(wire::Cursor* r, std::vector<Row>* out) {
  const uint32_t n = r->array();  // no more than there are bytes
  for (uint32_t i = 0; i < n && r->ok(); ++i) get(r, &out->emplace_back());
}

void put_rows(const std::vector<Row>& rows, wire::Writer* w) {
  w->array(static_cast<uint32_t>(rows.size()));
  for (const Row& row : rows) put(row, w);
}

// Fields behind the kind.
uint32_t fields(Kind kind) {
  switch (kind) {
    case Kind::kJoin:
    case Kind::kTable:
    case Kind::kEnding: return 1;
    case Kind::kRefused:
    case Kind::kFenced: return 2;
    case Kind::kLeave:
    case Kind::kRelay: return 3;
    case Kind::kBeat:
    case Kind::kWelcome: return 4;
    case Kind::kRequest:
    case Kind::kAnswer: return 5;
  }
  return UINT32_MAX;
}

}  // namespace

void put(const wire::Resources& amounts, wire::Writer* w) {
  w->map(static_cast<uint32_t>(amounts.size()));
  for (const auto& [name, amount] : amounts) w->str(name).float64(amount);
}

void get(wire::Cursor* r, wire::Resources* out) {
  const uint32_t n = r->map();
  if (n > kMaxNames) r->fail();
  for (uint32_t i = 0; i < n && r->ok(); ++i) {
    const std::string name = text(r);
    const double amount = r->float64();
    if (!(amount >= 0 && amount <= wire::kMaxResourceAmount)) r->fail();
    (*out)[name] = amount;
  }
}

void put(const Load& load, wire::Writer* w) {
  w->array(5);
  put(load.available, w);
  put(load.held, w);
  put(load.queued, w);
  w->uint64(load.running).uint64(load.waiting);
}

void get(wire::Cursor* r, Load* out) {
  r->array_of(5);
  get(r, &out->available);
  get(r, &out->held);
  get(r, &out->queued);
  out->running = r->uint64(), out->waiting = r->uint64();
}

const char* state_name(State state) {
  switch (state) {
    case State::kAlive: return "ALIVE";
    case State::kDraining: return "DRAINING";
    case State::kDead: return "DEAD";
  }
  return "?";
}

std::string encode(const Message& m) {
  std::string out;
  wire::Writer w(&out);
  w.array(1 + fields(m.kind)).uint64(static_cast<uint64_t>(m.kind));
  switch (m.kind) {
    case Kind::kJoin: put(m.about, &w); break;
    case Kind::kBeat:
      w.uint64(m.index).uint64(m.epoch).uint64(m.number);
      put(m.load, &w);
      break;
    case Kind::kLeave:
    case Kind::kRelay: w.uint64(m.index).uint64(m.epoch).str(m.text); break;
    case Kind::kWelcome:
      w.uint64(m.index).uint64(m.epoch).id(m.cluster);
      put_rows(m.rows, &w);
      break;
    case Kind::kRefused: w.int64(m.code).str(m.text); break;
    case Kind::kFenced: w.uint64(m.epoch).str(m.text); break;
    case Kind::kTable: put_rows(m.rows, &w); break;
    case Kind::kEnding: w.str(m.text); break;
    case Kind::kRequest: w.uint64(m.from).uint64(m.to).uint64(m.number).uint64(m.op).bin(m.text); break;
    case Kind::kAnswer: w.uint64(m.from).uint64(m.to).uint64(m.number).int64(m.code).bin(m.text); break;
  }
  return out;
}

Status decode(std::string_view bytes, Message* out) {
  wire::Cursor r(bytes);
  const uint32_t n = r.array();
  const uint64_t kind = r.uint64();
  out->kind = static_cast<Kind>(kind);
  if (!r.ok() || kind > UINT8_MAX || fields(out->kind) != n - 1)
    return error(RAY_INVALID_ARGUMENT, "a message of the cluster that nobody knows");
  switch (out->kind) {
    case Kind::kJoin: get(&r, &out->about); break;
    case Kind::kBeat:
      out->index = narrow(&r), out->epoch = narrow(&r), out->number = r.uint64();
      get(&r, &out->load);
      break;
    case Kind::kLeave:
    case Kind::kRelay: out->index = narrow(&r), out->epoch = narrow(&r), out->text = text(&r); break;
    case Kind::kWelcome:
      out->index = narrow(&r), out->epoch = narrow(&r), out->cluster = r.id();
      get(&r, &out->rows);
      break;
    case Kind::kRefused: out->code = r.int32(), out->text = text(&r); break;
    case Kind::kFenced: out->epoch = narrow(&r), out->text = text(&r); break;
    case Kind::kTable: get(&r, &out->rows); break;
    case Kind::kEnding: out->text = text(&r); break;
    case Kind::kRequest:
      out->from = narrow(&r), out->to = narrow(&r), out->number = r.uint64(), out->op = narrow(&r), out->text = r.text();
      break;
    case Kind::kAnswer:
      out->from = narrow(&r), out->to = narrow(&r), out->number = r.uint64(), out->code = r.int32(), out->text = r.text();
      break;
  }
  return r.done() ? Status() : error(RAY_INVALID_ARGUMENT, "a damaged message of the cluster");
}

size_t encoded_size(const About& about) {
  std::string bytes;
  wire::Writer w(&bytes);
  put(about, &w);
  return bytes.size();
}

void trim_dead(std::map<NodeIndex, Row>* rows, size_t max) {
  std::vector<std::pair<uint32_t, NodeIndex>> dead;
  for (const auto& [index, row] : *rows)
    if (row.state == State::kDead) dead.emplace_back(row.died, index);
  if (dead.size() <= max) return;
  std::sort(dead.begin(), dead.end());
  for (size_t i = 0; i < dead.size() - max; ++i) rows->erase(dead[i].second);
}

void pack_row(const Row& row, wire::Writer* w) {
  const About& a = row.about;
  w->map(15);
  w->str("node").hex(a.id);
  w->str("state").str(state_name(row.state));
  w->str("index").uint64(row.index).str("epoch").uint64(row.epoch);
  w->str("address").str(a.address).str("host").str(a.host);
  w->str("relay").str(a.relay);
  w->str("session").str(a.session).str("pid").int64(a.pid).str("start_ns").int64(a.start_ns);
  w->str("since_ns").int64(row.since_ns);
  w->str("answers").boolean(row.state != State::kDead && !row.silent);
  w->str("cause").str(row.cause);
  w->str("resources");
  put(a.resources, w);
  w->str("labels").map(static_cast<uint32_t>(a.labels.size()));
  for (const auto& [name, value] : a.labels) w->str(name).str(value);
}

}  // namespace ray::cluster
