// See messages.h.
#include "libray/relay/messages.h"

#include "libray/wire/msgpack.h"

namespace ray::relay {
namespace {

using wire::Cursor;
using wire::Writer;

uint32_t narrow(Cursor* r) {
  const uint64_t v = r->uint64();
  if (v > UINT32_MAX) r->fail();
  return static_cast<uint32_t>(v);
}

// Fields behind the kind.
uint32_t fields(Kind kind) {
  switch (kind) {
    case Kind::kJob: return 3;
    case Kind::kLane: return 4;
    case Kind::kUnlane: return 2;
    case Kind::kFunction: return 7;
    case Kind::kForget: return 2;
    case Kind::kArgument:
    case Kind::kResult: return 4;
    case Kind::kArgumentPart:
    case Kind::kResultPart: return 2;
    case Kind::kTask: return 10;
    case Kind::kCancel: return 3;
    case Kind::kRecall: return 1;
    case Kind::kTaskRoom:
    case Kind::kResultRoom: return 2;
    case Kind::kJobOver: return 1;
    case Kind::kLaneOpen: return 1;
    case Kind::kLaneOver: return 3;
    case Kind::kDone: return 6;
    case Kind::kReturned: return 4;
  }
  return UINT32_MAX;
}

bool of_job(Kind kind) {
  return kind == Kind::kJob || kind == Kind::kFunction || kind == Kind::kForget || kind == Kind::kJobOver;
}

// nil: none. Else [format, data, buffer...], where bytes that lie apart are told by their number.
void put(const Value& v, Writer* w) {
  if (!v.given) {
    w->nil();
    return;
  }
  const size_t n = v.apart ? v.oob_sizes.size() : v.oob.size();
  w->array(static_cast<uint32_t>(3 + n)).boolean(v.apart).uint64(v.format);
  if (v.apart) {
    w->uint64(v.size);
    for (uint64_t size : v.oob_sizes) w->uint64(size);
  } else {
    w->bin(v.data);
    for (std::string_view b : v.oob) w->bin(b);
  }
}

void get(Cursor* r, Value* out) {
  if (r->nil()) return;
  const uint32_t n = r->array();
  if (n < 3 || n > 3 + kMaxBuffers) return r->fail();
  out->given = true;
  out->apart = r->boolean();
  out->format = narrow(r);
  if (out->apart) {
    out->size = r->uint64();
    for (uint32_t i = 3; i < n && r->ok(); ++i) out->oob_sizes.push_back(r->uint64());
  } else {
    out->data = r->bytes();
    out->size = out->data.size();
    for (uint32_t i = 3; i < n && r->ok(); ++i) out->oob.push_back(r->bytes());
  }
  // A sum that wraps around would be taken for a small one.
  uint64_t sum = out->size;
  for (uint64_t size : out->oob_sizes) {
    if (size > INT64_MAX || sum > INT64_MAX) return r->fail();
    sum += size;
  }
  if (sum > INT64_MAX) r->fail();
}

void put(const std::vector<Value>& values, Writer* w) {
  w->array(static_cast<uint32_t>(values.size()));
  for (const Value& v : values) put(v, w);
}

void get(Cursor* r, std::vector<Value>* out) {
  const uint32_t n = r->array();
  if (n > kMaxValues) return r->fail();
  for (uint32_t i = 0; i < n && r->ok(); ++i) get(r, &out->emplace_back());
}

void put(const Task& t, Writer* w) {
  w->uint64(t.number).id(t.id).id(t.parent).uint64(t.attempt).uint64(t.function).str(t.name).uint64(t.n_returns);
  w->int64(t.caller);
  put(t.args, w);
}

void get(Cursor* r, Task* out) {
  out->number = r->uint64(), out->id = r->id(), out->parent = r->id(), out->attempt = narrow(r);
  out->function = r->uint64(), out->name = r->bytes(), out->n_returns = narrow(r), out->caller = r->int32();
  get(r, &out->args);
  if (out->number == 0 || out->id.is_nil() || out->n_returns > RAY_MAX_RETURNS) r->fail();
}

void put(const Done& d, Writer* w) {
  w->uint64(d.number).int64(d.code).uint64(d.flags).uint64(d.run_ns);
  put(d.results, w);
}

void get(Cursor* r, Done* out) {
  out->number = r->uint64(), out->code = r->int32(), out->flags = narrow(r), out->run_ns = r->uint64();
  get(r, &out->results);
}

void get(Cursor* r, Record* out) {
  if (of_job(out->kind)) out->job = r->id();
  else out->lane = r->uint64();
  switch (out->kind) {
    case Kind::kJob: out->more = r->boolean(), out->bytes = r->bytes(); break;
    case Kind::kLane: out->job = r->id(), out->language = r->int32(), out->bytes = r->bytes(); break;
    case Kind::kUnlane: out->flags = narrow(r); break;
    case Kind::kFunction:
      out->key = r->uint64(), out->language = r->int32(), out->function_kind = narrow(r), out->name = r->bytes();
      out->more = r->boolean(), out->bytes = r->bytes();
      break;
    case Kind::kForget: out->key = r->uint64(); break;
    case Kind::kArgument:
    case Kind::kResult:
      out->number = r->uint64(), out->index = narrow(r);
      get(r, &out->value);
      if (!out->value.given || !out->value.apart) r->fail();
      break;
    case Kind::kArgumentPart:
    case Kind::kResultPart: out->bytes = r->bytes(); break;
    case Kind::kTask: get(r, &out->task); break;
    case Kind::kCancel: out->number = r->uint64(), out->flags = narrow(r); break;
    case Kind::kTaskRoom:
    case Kind::kResultRoom: out->bytes_done = r->uint64(); break;
    case Kind::kLaneOver: out->code = r->int32(), out->bytes = r->bytes(); break;
    case Kind::kDone: get(r, &out->done); break;
    case Kind::kReturned: out->number = r->uint64(), out->flags = narrow(r), out->bytes = r->bytes(); break;
    case Kind::kRecall:
    case Kind::kJobOver:
    case Kind::kLaneOpen: break;
  }
}

}  // namespace

uint64_t Value::bytes() const {
  uint64_t n = apart ? size : data.size();
  for (uint64_t s : oob_sizes) n += s;
  for (std::string_view b : oob) n += b.size();
  return n;
}

bool is_counted(Kind kind) {
  return kind == Kind::kArgument || kind == Kind::kArgumentPart || kind == Kind::kTask || kind == Kind::kResult ||
         kind == Kind::kResultPart || kind == Kind::kDone;
}

bool fits_in_place(uint64_t bytes, uint64_t in_record) { return bytes <= kInPlace && in_record + bytes <= kPart; }

uint64_t encode(const Record& r, std::string* out) {
  const size_t before = out->size();
  Writer w(out);
  w.array(1 + fields(r.kind)).uint64(static_cast<uint64_t>(r.kind));
  if (of_job(r.kind)) w.id(r.job);
  else w.uint64(r.lane);
  switch (r.kind) {
    case Kind::kJob: w.boolean(r.more).bin(r.bytes); break;
    case Kind::kLane: w.id(r.job).int64(r.language).bin(r.bytes); break;
    case Kind::kUnlane: w.uint64(r.flags); break;
    case Kind::kFunction:
      w.uint64(r.key).int64(r.language).uint64(r.function_kind).str(r.name).boolean(r.more).bin(r.bytes);
      break;
    case Kind::kForget: w.uint64(r.key); break;
    case Kind::kArgument:
    case Kind::kResult:
      w.uint64(r.number).uint64(r.index);
      put(r.value, &w);
      break;
    case Kind::kArgumentPart:
    case Kind::kResultPart: w.bin(r.bytes); break;
    case Kind::kTask: put(r.task, &w); break;
    case Kind::kCancel: w.uint64(r.number).uint64(r.flags); break;
    case Kind::kTaskRoom:
    case Kind::kResultRoom: w.uint64(r.bytes_done); break;
    case Kind::kLaneOver: w.int64(r.code).bin(r.bytes); break;
    case Kind::kDone: put(r.done, &w); break;
    case Kind::kReturned: w.uint64(r.number).uint64(r.flags).bin(r.bytes); break;
    case Kind::kRecall:
    case Kind::kJobOver:
    case Kind::kLaneOpen: break;
  }
  return out->size() - before;
}

bool RecordReader::next(Record* out) {
  if (!status_.ok() || before_ == message_.size()) return false;
  *out = Record();
  const uint32_t n = at_.array();
  const uint64_t kind = at_.uint64();
  out->kind = static_cast<Kind>(kind);
  if (at_.ok() && kind <= UINT8_MAX && fields(out->kind) != UINT32_MAX && n == 1 + fields(out->kind)) get(&at_, out);
  else at_.fail();
  if (!at_.ok()) {
    status_ = error(RAY_INVALID_ARGUMENT, "a message between relays is damaged at byte %zu", before_);
    return false;
  }
  const size_t now = message_.size() - at_.rest().size();
  out->size = now - before_;
  before_ = now;
  return true;
}

}  // namespace ray::relay
