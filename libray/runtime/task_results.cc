// Results of a task while it runs: values become bytes of a record or copies in the store, what they contain
// is registered with the node, and what is not handed over in the end leaves nothing. See worker.h.
#include "libray/runtime/runtime.h"
#include "libray/runtime/runtime_inl.h"
#include "libray/runtime/worker.h"

namespace ray {

// Who is to have the results.
uint32_t WorkerSide::holder_of(const Execution* e) const {
  return e->link ? e->link->client : runtime_->process();
}

static uint32_t making(const Execution* e) { return making_of(e->header.tag, e->header.attempt); }

// The node knows what a result contains before anybody hears of it. Long lists go in pieces.
void WorkerSide::register_result(Execution* e, const ObjectId& id, const std::vector<ObjectId>& contained) {
  constexpr size_t kPiece = 4096;
  for (size_t at = 0; at < contained.size(); at += kPiece) {
    const size_t n = std::min(kPiece, contained.size() - at);
    wire::UpObjResult r{id, holder_of(e), making(e), static_cast<uint32_t>(n), 0};
    runtime_->daemon().up(wire::kUpObjResult, r, &contained[at], n * sizeof(ObjectId));
  }
}

Status WorkerSide::encode_result(Execution* e, uint32_t index, const ray_value& v, Execution::Out* out) {
  const ObjectId id = return_object(e->header.task, index);
  std::vector<ObjectId> contained;
  contained.reserve(v.n_refs);  // before anything is stored: then no memory is wanted any more
  out->header = {v.format, wire::kPlain, 0, v.size};
  uint64_t size = v.size;
  bool plain = v.n_refs == 0 && v.n_oob == 0;
  if (!plain) RAY_TRY(wire::packed_size(v, &size));
  if (size <= wire::kInlineValueMax) {
    if (plain) {
      out->bytes.assign(static_cast<const char*>(v.data), v.size);
    } else {
      RAY_TRY(runtime_->objects().pack_inline(v, &out->bytes));
      out->header.where = wire::kPacked;
      out->header.size = out->bytes.size();
    }
  } else {
    wire::StoreRef r{id, {}};
    RAY_TRY(runtime_->objects().pack_to_store(v, id, &r.location, holder_of(e), making(e)));
    out->bytes.assign(reinterpret_cast<const char*>(&r), sizeof r);
    out->header = {v.format, wire::kStore, 0, sizeof r};
  }
  if (v.n_refs == 0) return Status();
  for (uint32_t i = 0; i < v.n_refs; ++i) contained.push_back(object_of(v.refs[i])->id);
  register_result(e, id, contained);
  out->header.flags = wire::kRegistered;
  return Status();
}

// One that is not handed over: nothing of it stays.
void WorkerSide::discard_result(Execution* e, uint32_t index, Execution::Out* out) {
  if (out->header.flags & wire::kRegistered)
    runtime_->daemon().up(wire::kUpObjDiscard, wire::UpObjDiscard{return_object(e->header.task, index), holder_of(e),
                                                         making(e), 0, 0});
  if (out->header.where != wire::kStore) return;
  wire::StoreRef r;
  if (!wire::read_head(out->bytes, &r)) return;
  if (auto store = runtime_->objects().store()) store->drop(r.id, r.location);
}

void WorkerSide::discard_results(Execution* e) {
  for (size_t i = 0; i < e->results.size(); ++i) {
    Execution::Out& out = e->results[i];
    if (out.given) discard_result(e, static_cast<uint32_t>(i), &out);
    out.given = false;
    out.bytes.clear();
  }
}

// A function does not know what its caller asked for: when that is nothing, what it gives is dropped.
Status WorkerSide::check_result(const Execution* e, uint32_t index, bool* dropped) {
  *dropped = e->header.n_returns == 0 && e->header.stream_window == 0 && index < RAY_MAX_RETURNS;
  if (*dropped) return Status();
  if (e->header.stream_window)
    return error(RAY_INVALID_ARGUMENT, "result %u: the task is a generator, whose results are yielded", index);
  if (index >= e->results.size())
    return error(RAY_INVALID_ARGUMENT, "result %u: the task has %zu results", index, e->results.size());
  if (e->results[index].given) return error(RAY_WRONG_STATE, "result %u was given already", index);
  return Status();
}

Status WorkerSide::set_result(Execution* e, uint32_t index, const ray_value& v) {
  bool dropped;
  RAY_TRY(check_result(e, index, &dropped));
  if (dropped) return Status();
  Execution::Out& out = e->results[index];
  RAY_TRY(encode_result(e, index, v, &out));
  out.given = true;
  return Status();
}

Status WorkerSide::set_error_result(Execution* e, uint32_t index, ray_code code,
                                    const std::string& message, const ray_value* payload) {
  bool dropped;
  RAY_TRY(check_result(e, index, &dropped));
  if (dropped) return Status();
  Execution::Out& out = e->results[index];
  out.bytes = error_image(code, message, payload);
  out.header = {wire::kFmtError, wire::kPacked, 0, out.bytes.size()};
  out.given = true;
  return Status();
}

Status WorkerSide::open_result(Execution* e, uint32_t index, const ray_value& shape,
                               WriterState* w) {
  RAY_TRY(check_result(e, index, &w->dropped));
  w->execution = e;
  w->task_handle = e->handle;
  w->index = index;
  return w->open(runtime_, return_object(e->header.task, index), shape);
}

Status WorkerSide::seal_result(WriterState* w) {
  if (HandleTable::instance().get(w->task_handle, kHandleTask) != w->execution)
    return error(RAY_WRONG_STATE, "the task of this result is finished");
  if (w->dropped) return Status();
  Execution* e = w->execution;
  Execution::Out& out = e->results[w->index];
  if (out.given) return error(RAY_WRONG_STATE, "result %u was given already", w->index);
  wire::StoreRef r{w->id, {}};
  w->building.owner = holder_of(e);
  w->building.attempt = making(e);
  std::vector<ObjectId> contained;
  for (auto& ref : w->refs) contained.push_back(ref.id);
  out.bytes.assign(sizeof r, 0);  // from here on no memory is wanted
  RAY_TRY(runtime_->objects().of_store(w->store->seal(&w->building, &r.location)));
  w->sealed = true;
  out.bytes.assign(reinterpret_cast<const char*>(&r), sizeof r);
  out.header = {w->format, wire::kStore, 0, sizeof r};
  out.given = true;
  if (w->refs.empty()) return Status();
  register_result(e, w->id, contained);
  out.header.flags = wire::kRegistered;
  return Status();
}

std::string WorkerSide::error_image(ray_code code, const std::string& message,
                                    const ray_value* payload) {
  uint32_t format = payload ? payload->format : 0;
  std::string_view bytes;
  if (payload && payload->size) bytes = {static_cast<const char*>(payload->data), payload->size};
  return wire::pack_error(code, message.substr(0, 64 * 1024), format, bytes);
}

// Many large inline results do not fit one record: the largest move to the store. So RAY_MAX_RETURNS always fit.
static_assert(RAY_MAX_RETURNS * (sizeof(wire::ArgHeader) + sizeof(wire::StoreRef)) <=
              wire::kLinkRingBytes / 2 - 4096);
Status WorkerSide::fit_results(Execution* e) {
  uint64_t total = 0;
  for (auto& r : e->results) total += sizeof r.header + pad8(r.bytes.size());
  uint64_t limit = wire::kLinkRingBytes / 4;
  const size_t n = e->results.size();  // first those that are worth it, then whatever is longer than its place
  for (size_t k = 0; k < 2 * n && total > limit; ++k) {
    const size_t i = k % n;
    Execution::Out& r = e->results[i];
    if (!r.given || r.header.where == wire::kStore || r.bytes.size() < (k < n ? 256 : sizeof(wire::StoreRef) + 1))
      continue;
    wire::StoreRef ref{return_object(e->header.task, static_cast<uint32_t>(i)), {}};
    if (r.header.where == wire::kPlain) {
      ray_value v = ray_plain(r.bytes.data(), r.bytes.size(), r.header.format);
      RAY_TRY(runtime_->objects().pack_to_store(v, ref.id, &ref.location, holder_of(e), making(e)));
    } else {
      store::Building b;
      std::shared_ptr<store::Client> store;
      RAY_TRY(runtime_->objects().open_store(&store));
      RAY_TRY(store->create(ref.id, r.bytes.size(), Objects::kStoreTimeoutNs, &b));
      b.owner = holder_of(e);
      b.attempt = making(e);
      std::memcpy(b.data, r.bytes.data(), r.bytes.size());
      RAY_TRY(store->seal(&b, &ref.location));
    }
    total -= pad8(r.bytes.size());
    r.bytes.assign(reinterpret_cast<const char*>(&ref), sizeof ref);
    r.header = {r.header.format, wire::kStore, r.header.flags, sizeof ref};
    total += pad8(r.bytes.size());
  }
  if (total > wire::kLinkRingBytes / 2 - 4096)
    return error(RAY_INVALID_ARGUMENT, "a task cannot have that many results (%zu)",
                 e->results.size());
  return Status();
}

}  // namespace ray
