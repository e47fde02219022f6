// Objects of this process: making, sharing, importing, freeing, and reading their values.
// See runtime.h for locks and docs/architecture.md, "References", for the protocol.
#include <algorithm>
#include <cstdlib>
#include <new>

#include "libray/base/copy.h"
#include "libray/base/fault.h"
#include "libray/base/log.h"
#include "libray/runtime/runtime.h"
#include "libray/runtime/runtime_inl.h"
#include "store/apart.h"

namespace ray {

Slab<Object>& object_slab() {
  static auto* slab = new Slab<Object>;
  return *slab;
}

ErrorBox* make_error(ray_code code, std::string message, uint32_t payload_format,
                     std::string payload) {
  auto* e = new ErrorBox;
  e->code = code == RAY_OK ? RAY_INTERNAL : code;
  e->since_ns = steady_ns();
  e->message = std::move(message);
  e->payload_format = payload_format;
  e->payload = std::move(payload);
  return e;
}

// With these counts, owned by the caller. Needs no lock: nobody else knows it yet.
Object* Runtime::new_object(const ObjectId& id, uint64_t counts) {
  uint32_t index;
  Object* o = object_slab().alloc(&index);
  if (!o) return nullptr;
  o->index = index;
  o->runtime = this;
  o->id = id;
  o->where = Where::kSmall;
  o->packed = o->shared = o->borrowed = o->resolving = o->publish_on_ready = false;
  o->registered = o->in_table = o->excused = false;
  o->holds = 0;
  o->wait_mark = 0;  // of a runtime before this one it may be anything
  o->format = 0;     // looked at as soon as the value is there, which may come without one
  o->size = 0;
  o->producer = nullptr;
  o->waiters = nullptr;
  o->state.store(ObjState::kPending, std::memory_order_relaxed);
  o->counts.store(counts, std::memory_order_release);
  return o;
}

// Looks at every entry: for ids that a program kept as bytes. Under the slab's lock, because entries are
// freed under it: one whose id matches can be taken as long as its count is not zero.
Object* Runtime::find_object(const ObjectId& id) {
  std::lock_guard lock(object_slab().mutex());
  for (uint64_t i = 0;; ++i) {
    Object* o = object_slab().at(i);
    if (!o) return nullptr;
    if (o->refs() == 0 || o->runtime != this || o->id != id) continue;
    if (try_retain(o)) return o;
  }
}

Object* Runtime::make_put_object(const ObjectId& id) { return new_object(id); }

ObjectId Runtime::next_put_id() {
  TaskContext* c = context();
  return nth_put(c->id, c->next_put.fetch_add(1, std::memory_order_relaxed));
}

// ---- packing ------------------------------------------------------------------------------------------

// With the place of the copy that is meant: the id alone may be made again, and the node may then not know yet which
// of the two this process has.
wire::PackedRef Runtime::packed_ref(Object* o) {
  wire::PackedRef r{o->id, {}};
  if (o->state.load(std::memory_order_acquire) != ObjState::kReady) return r;
  if (o->where == Where::kStore) {
    r.hint = o->location;
  } else {
    std::lock_guard lock(mutex_);
    if (auto it = published_.find(o); it != published_.end()) r.hint = it->second;
  }
  return r;
}

// Every reference that is written into a value leaves this process: the node must know it.
Status Runtime::pack_refs(const ray_value& v, std::vector<wire::PackedRef>* out) {
  out->reserve(v.n_refs);
  for (uint32_t i = 0; i < v.n_refs; ++i) {
    Object* o = object_of(v.refs[i]);
    if (!o || o->runtime != this)
      return error(RAY_INVALID_ARGUMENT, "reference %u inside the value is null or stale", i);
    RAY_TRY(share(o));
    out->push_back(packed_ref(o));
  }
  return Status();
}

static void copy_parts(const ray_value& v, uint8_t* data, const std::vector<uint8_t*>& oob) {
  copy_large(data, v.data, v.size);
  for (size_t i = 0; i < v.n_oob; ++i) copy_large(oob[i], v.oob[i].data, v.oob[i].size);
}

Status Runtime::pack_inline(const ray_value& v, std::string* image) {
  uint64_t size;
  RAY_TRY(wire::packed_size(v, &size));
  std::vector<wire::PackedRef> refs;
  RAY_TRY(pack_refs(v, &refs));
  image->resize(size);
  uint8_t* data;
  std::vector<uint8_t*> oob;
  wire::pack_frame(v, refs.data(), reinterpret_cast<uint8_t*>(image->data()), &data, &oob);
  copy_parts(v, data, oob);
  return Status();
}

// `owner` and `making` as in store::Building; 0: it is ours.
Status Runtime::pack_to_store(const ray_value& v, const ObjectId& id, wire::Location* out, uint32_t owner,
                              uint32_t making, int64_t patience_ns) {
  uint64_t size;
  RAY_TRY(wire::packed_size(v, &size));
  std::vector<wire::PackedRef> refs;
  RAY_TRY(pack_refs(v, &refs));
  std::shared_ptr<store::Client> store;
  RAY_TRY(open_store(&store));
  store::Building b;
  RAY_TRY(of_store(store->create(id, size, patience_ns, &b)));
  if (owner) b.owner = owner, b.attempt = making;
  uint8_t* data;
  std::vector<uint8_t*> oob;
  wire::pack_frame(v, refs.data(), b.data, &data, &oob);
  copy_parts(v, data, oob);
  return of_store(store->seal(&b, out));
}

Status check_value(const ray_value& v, bool shape) {
  if (__builtin_expect(v.format > RAY_FMT_JAVA && (v.format < RAY_FMT_USER || v.format > INT32_MAX), 0))
    return error(RAY_INVALID_ARGUMENT, "format %u is none of RAY_FMT_*, and below RAY_FMT_USER or above 2^31", v.format);
  if (__builtin_expect((v.reserved[0] | v.reserved[1]) != 0, 0))
    return error(RAY_INVALID_ARGUMENT, "the reserved words of a value are not 0: make it with RAY_VALUE_INIT");
  if ((v.size && !v.data && !shape) || (v.n_refs && !v.refs) || (v.n_oob && !v.oob))
    return error(RAY_INVALID_ARGUMENT, "value has a size but no data");
  for (size_t i = 0; i < v.n_oob && !shape; ++i)
    if (v.oob[i].size && !v.oob[i].data)
      return error(RAY_INVALID_ARGUMENT, "buffer %zu of the value has a size but no data", i);
  return Status();
}

// Sets bytes that are not in the store. The object is not visible to others yet, or mutex_ is held.
static Status set_bytes(Object* o, const void* data, uint64_t size, uint32_t format, bool packed) {
  o->size = size;
  o->format = format;
  o->packed = packed;
  if (size <= Object::kSmallMax) {
    o->where = Where::kSmall;
    if (size) std::memcpy(o->small, data, size);
  } else {
    auto* heap = static_cast<uint8_t*>(std::malloc(size));
    if (!heap) return error(RAY_OUT_OF_MEMORY, "no memory for a value of %lu bytes", size);
    std::memcpy(heap, data, size);
    o->where = Where::kHeap;
    o->heap = heap;
  }
  return Status();
}

Status Runtime::put(const ray_value& v, Object** out) {
  RAY_TRY(check_value(v));
  ObjectId id = next_put_id();
  Object* o = new_object(id, Object::kOwned);
  if (!o) return error(RAY_OUT_OF_MEMORY, "no memory for another reference");
  Status s;
  store::Interruptible scope(&stop_waiting_);
  if (v.n_refs == 0 && v.n_oob == 0 && v.size <= wire::kInlineValueMax) {
    s = set_bytes(o, v.data, v.size, v.format, false);
  } else {
    uint64_t size;
    s = wire::packed_size(v, &size);
    if (s.ok() && size <= wire::kInlineValueMax) {
      std::string image;
      s = pack_inline(v, &image);
      if (s.ok()) s = set_bytes(o, image.data(), image.size(), v.format, true);
    } else if (s.ok()) {
      wire::Location loc;
      s = pack_to_store(v, id, &loc);
      o->where = Where::kStore;
      o->packed = true;
      o->location = loc;
      o->size = loc.size;
      o->format = v.format;
    }
    if (s.ok() && v.n_refs) {
      o->contained = std::make_unique<std::vector<Object*>>();
      o->contained->reserve(v.n_refs);
      for (uint32_t i = 0; i < v.n_refs; ++i) o->contained->push_back(retain(object_of(v.refs[i])));
    }
  }
  if (!s.ok()) {
    o->where = Where::kSmall;
    release_handle(o);
    return s;
  }
  o->state.store(ObjState::kReady, std::memory_order_release);
  *out = o;
  return Status();
}

Status Runtime::put_error(ray_code code, const std::string& message, const ray_value* payload,
                          Object** out) {
  Object* o = new_object(next_put_id());
  if (!o) return error(RAY_OUT_OF_MEMORY, "no memory for another reference");
  std::string bytes;
  if (payload && payload->size) bytes.assign(static_cast<const char*>(payload->data), payload->size);
  ErrorBox* e = make_error(code, message, payload ? payload->format : 0, std::move(bytes));
  {
    std::lock_guard lock(mutex_);
    complete_error(o, e);
  }
  e->release();
  *out = o;
  return Status();
}

// ---- writers --------------------------------------------------------------------------------------------

Status WriterState::open(Runtime* rt, const ObjectId& object, const ray_value& shape) {
  runtime = rt;
  id = object;
  format = shape.format;
  uint64_t size;
  RAY_TRY(wire::packed_size(shape, &size));
  RAY_TRY(rt->pack_refs(shape, &refs));
  RAY_TRY(rt->open_store(&store));
  RAY_TRY(rt->of_store(store->create(id, size, Runtime::kStoreTimeoutNs, &building)));
  wire::pack_frame(shape, refs.data(), building.data, &data, &oob);
  contained.reserve(shape.n_refs);
  for (uint32_t i = 0; i < shape.n_refs; ++i) contained.push_back(retain(object_of(shape.refs[i])));
  return Status();
}

Status Runtime::seal_put(WriterState* w, Object** out) {
  Object* o = new_object(w->id);  // before the value is sealed, which nobody could refer to
  if (!o) return error(RAY_OUT_OF_MEMORY, "no memory for another reference");
  wire::Location loc;
  if (Status s = of_store(w->store->seal(&w->building, &loc)); !s.ok()) {
    release(o);
    return s;
  }
  w->sealed = true;
  o->where = Where::kStore;
  o->packed = true;
  o->location = loc;
  o->size = loc.size;
  o->format = w->format;
  if (!w->contained.empty())
    o->contained = std::make_unique<std::vector<Object*>>(std::move(w->contained));
  w->contained.clear();
  o->state.store(ObjState::kReady, std::memory_order_release);
  *out = o;
  return Status();
}

// ---- sharing ------------------------------------------------------------------------------------------

// That the directory does not know of yet: what a result contains is registered by whoever made it.
void Runtime::contained_ids(Object* o, std::vector<ObjectId>* out) {
  if (!o->contained) return;
  for (Object* c : *o->contained) out->push_back(c->id);
}

// From now on the directory counts us as a holder of it. mutex_ held.
void Runtime::mark_shared(Object* o) {
  o->shared = true;
  ++o->holds;
  // A task that ran twice in this process made it twice: the later one is meant from now on.
  Object* before = o->in_table ? nullptr : table_.find(o->id);
  if (before && before->done()) {
    table_.erase(before);
    before->in_table = false;
    before = nullptr;
  }
  if (!o->in_table && !before) {
    table_.set(o);
    o->in_table = true;
  }
  daemon_.up(wire::kUpObjShare, wire::UpObj{o->id, {}, wire::kObjPending, RAY_OK, 0, 0});
}

// A value that is here gets its copy in the store first: without room for it nothing has happened, and the next who
// wants to share it tries again.
Status Runtime::share(Object* o, int64_t patience_ns) {
  bool ready;
  {
    std::lock_guard lock(mutex_);
    if (o->shared || o->borrowed) return Status();
    ready = o->done();
    if (!ready) {
      mark_shared(o);
      if (o->producer) keep_completion(o);
      o->publish_on_ready = true;
      ++needs_pulse_;
      urgent_work_ = true;
    }
  }
  if (!ready) {
    bells_.poke();
    return Status();
  }
  if (o->contained)
    for (Object* c : *o->contained) RAY_TRY(share(c, patience_ns));
  wire::UpObj u;
  if (Status s = copy_for_others(o, patience_ns, &u); !s.ok()) {
    {
      std::lock_guard lock(mutex_);
      if (o->shared) return Status();  // by another thread meanwhile, whose copy may be what left no room
    }
    if (u.state != wire::kObjError)
      return error(s.code(), "object %s cannot be shared: %s", o->id.hex().c_str(), s.message().c_str());
    without_copy(o, s, &u);
  }
  bool late;  // another thread was faster
  {
    std::lock_guard lock(mutex_);
    late = o->shared;
    if (!late) {
      mark_shared(o);
      note_copy(o, u);
    }
  }
  if (!late) tell_ready(o, u);
  else if (auto client = store(); client && u.location.size && o->where != Where::kStore) client->drop(o->id, u.location);
  return Status();
}

// Puts a value or an error that is here into the store, unless it lies there already. No lock held.
Status Runtime::copy_for_others(Object* o, int64_t patience_ns, wire::UpObj* u) {
  *u = {o->id, {}, wire::kObjReady, RAY_OK, 0, 0};
  auto copy = [&](const void* bytes, uint64_t size) -> Status {
    std::shared_ptr<store::Client> store;
    RAY_TRY(open_store(&store));
    store::Building b;
    RAY_TRY(of_store(store->create(o->id, size, patience_ns, &b)));
    std::memcpy(b.data, bytes, size);
    return of_store(store->seal(&b, &u->location));
  };
  if (o->state.load(std::memory_order_acquire) == ObjState::kError) {
    ErrorBox* e = o->error;
    e->seen.store(true, std::memory_order_relaxed);  // by whoever it is published for
    u->state = wire::kObjError;
    u->code = e->code;
    const std::string image = wire::pack_error(e->code, e->message, e->payload_format, e->payload);
    return copy(image.data(), image.size());
  }
  if (o->where == Where::kStore) {
    u->location = o->location;
    return Status();
  }
  if (o->packed) return copy(o->bytes(), o->size);
  return pack_to_store(ray_plain(o->bytes(), o->size, o->format), o->id, &u->location, 0, 0, patience_ns);
}

// There is no room for it: others get an error. What kind of error it is needs none.
void Runtime::without_copy(Object* o, const Status& s, wire::UpObj* u) {
  const bool failed = u->state == wire::kObjError;
  const std::string why = failed ? "; it is an error: " + o->error->message : "";
  log(kLogWarning, "runtime", "publish-failed", "object %s cannot be shared: %s%.1000s", o->id.hex().c_str(),
      s.message().c_str(), why.c_str());
  *u = {o->id, {}, wire::kObjError, failed ? u->code : s.code(), 0, 0};
}

// Of a value that lies in this process, too. mutex_ held.
void Runtime::note_copy(Object* o, const wire::UpObj& u) {
  if (u.state == wire::kObjReady && o->where != Where::kStore) published_[o] = u.location;
}

void Runtime::tell_ready(Object* o, const wire::UpObj& u) {
  std::vector<ObjectId> ids;
  if (u.state == wire::kObjReady) contained_ids(o, &ids);
  RAY_FAULT("object.sealed");  // in the store, and the node has not been told
  send_object(wire::kUpObjReady, u, ids);
  RAY_FAULT("object.published");
}

// Of an object that was shared before it was there. False: there was no room within `patience_ns`, and it is to be
// tried again; the last time it gets the error instead. No lock held.
bool Runtime::publish(Object* o, int64_t patience_ns, bool last) {
  wire::UpObj u;
  Status s = copy_for_others(o, patience_ns, &u);
  if (no_room(s) && !last) return false;
  if (!s.ok()) without_copy(o, s, &u);
  {
    std::lock_guard lock(mutex_);
    note_copy(o, u);
  }
  tell_ready(o, u);
  return true;
}

// Long lists of contained references travel in pieces: each record but the last says "pending", and
// the directory adds them up.
void Runtime::send_object(uint16_t type, wire::UpObj u, const std::vector<ObjectId>& ids) {
  constexpr size_t kPiece = 4096;
  size_t at = 0;
  for (; ids.size() - at > kPiece; at += kPiece) {
    wire::UpObj part{u.id, {}, wire::kObjPending, RAY_OK, kPiece, 0};
    daemon_.up_bytes(type, &part, sizeof part, &ids[at], kPiece * sizeof(ObjectId));
  }
  u.n_contained = static_cast<uint32_t>(ids.size() - at);
  daemon_.up_bytes(type, &u, sizeof u, ids.data() + at, u.n_contained * sizeof(ObjectId));
}

Status Runtime::export_hold(Object* o) {
  RAY_TRY(share(o));
  daemon_.up(wire::kUpObjHold, wire::UpObjCount{o->id, process(), 1});
  return Status();
}

Status Runtime::import(const ObjectId& id, const wire::Location& hint, Object** out) {
  std::lock_guard lock(mutex_);
  return import_one(id, hint, nullptr, out);
}

// References that a value contains, n of them from `first`. Nothing is imported when this fails.
Status Runtime::import_contained(const BufferView& view, uint32_t first, uint32_t n, ray_ref** out) {
  Object* lender = view.owner && view.owner->registered ? view.owner : nullptr;
  Status s;
  uint32_t i = 0;
  {
    std::lock_guard lock(mutex_);
    for (; i < n && s.ok(); ++i) {
      wire::PackedRef r = view.packed.ref(first + i);
      Object* o;
      s = import_one(r.id, r.hint, lender, &o);
      if (s.ok()) out[i] = hand_out(o);
    }
  }
  if (s.ok()) return s;
  for (--i; i-- > 0;) ray_ref_release(out[i]);
  return s;
}

Status Runtime::hold_contained(BufferView* view) {
  const uint32_t n = view->packed.n_refs;
  if (n == 0) return Status();
  std::vector<Object*> held;
  held.reserve(n);  // nothing is made that could not be kept
  Status s;
  {
    std::lock_guard lock(mutex_);
    for (uint32_t i = 0; i < n && s.ok(); ++i) {
      wire::PackedRef r = view->packed.ref(i);
      Object* o;
      s = import_one(r.id, r.hint, nullptr, &o);
      if (s.ok()) held.push_back(o);
    }
  }
  if (s.ok()) view->contained.swap(held);
  for (Object* o : held) release(o);
  return s;
}

static bool same_copy(const wire::Location& a, const wire::Location& b) {
  return a.segment == b.segment && a.generation == b.generation && a.offset == b.offset;
}

// Of an id that was made again the giver of `hint` means its copy, which may not be the one that `there` stands for:
// also when that one has no copy that anybody could know of yet, or has no value. mutex_ held.
bool Runtime::means_other(const Object* there, const wire::Location& hint) const {
  if (hint.size == 0) return false;
  if (there->state.load(std::memory_order_acquire) != ObjState::kReady) return true;
  if (there->where == Where::kStore) return !same_copy(there->location, hint);
  auto copy = published_.find(there);
  return copy == published_.end() || !same_copy(copy->second, hint);
}

// mutex_ held.
Status Runtime::import_one(const ObjectId& id, const wire::Location& hint, Object* lender,
                           Object** out) {
  Object* there = table_.find(id);
  const bool other = there && means_other(there, hint);
  if (there && !other && try_retain(there)) {
    *out = there;
    return Status();
  }
  // What we make ourselves, and what the daemon was asked for by its id alone, is still found by that.
  const bool stays = other && there->refs() != 0 && !(there->borrowed && there->done());
  if (there && !stays) {
    table_.erase(there);
    there->in_table = false;  // being freed on another thread, or from now on found by its handles alone
    if (there->lender) hold_lent(there);
  }
  Object* o = RAY_FAULT_FAILS("client.import") ? nullptr : new_object(id);
  if (!o) return error(RAY_OUT_OF_MEMORY, "no memory for another reference");
  if (!stays) table_.set(o);
  o->borrowed = true;
  o->in_table = !stays;
  if (lender) {
    lend_to(lender, o);
  } else {
    daemon_.up(wire::kUpObjHold, wire::UpObjCount{id, process(), 1});
    o->holds = 1;
  }
  if (hint.size) {
    o->where = Where::kStore;
    o->packed = true;
    o->location = hint;
    o->size = hint.size;
    o->state.store(ObjState::kReady, std::memory_order_release);
  } else {
    o->state.store(ObjState::kUnresolved, std::memory_order_release);
  }
  *out = o;
  return Status();
}

void Runtime::lend_to(Object* lender, Object* o) {
  o->lender = lender;
  o->previous_lent = nullptr;
  o->next_lent = lender->lent;
  if (lender->lent) lender->lent->previous_lent = o;
  lender->lent = o;
}

void Runtime::leave_lender(Object* o) {
  (o->previous_lent ? o->previous_lent->next_lent : o->lender->lent) = o->next_lent;
  if (o->next_lent) o->next_lent->previous_lent = o->previous_lent;
  o->lender = nullptr;
}

// A hold of its own instead of its lender. mutex_ held.
void Runtime::hold_lent(Object* o) {
  leave_lender(o);
  daemon_.up(wire::kUpObjHold, wire::UpObjCount{o->id, process(), 1});
  o->holds = 1;
}

// Asks the daemon once; when nobody will answer any more the object fails. mutex_ held.
void Runtime::resolve(Object* o) {
  if (o->resolving || o->state.load(std::memory_order_relaxed) != ObjState::kUnresolved) return;
  if (__builtin_expect(closed_ || node_dead(), 0)) {
    ErrorBox* e = over_error();
    complete_error(o, e);
    return e->release();
  }
  o->resolving = true;
  daemon_.up(wire::kUpObjResolve, wire::UpObj{o->id, {}, wire::kObjPending, RAY_OK, 0, 0});
}

void Runtime::on_obj_state(const wire::DnObjState& s) {
  Object* o = table_.find(s.id);
  if (!o) return;
  if (o->state.load(std::memory_order_relaxed) != ObjState::kUnresolved) return;
  if (s.state == wire::kObjReady) {
    o->where = Where::kStore;
    o->packed = true;
    o->location = s.location;
    o->size = s.location.size;
    o->state.store(ObjState::kReady, std::memory_order_release);
    completed(o);
  } else if (s.state == wire::kObjError && s.location.size) {
    // The error itself lies in the store: read it without the lock, then complete.
    if (!try_retain(o)) return;
    to_read_errors_.push_back({o, s.location, false});
    have_deferred_ = true;
  } else {
    ray_code code = s.state == wire::kObjLost && s.code == RAY_OK ? RAY_OBJECT_LOST : s.code;
    std::string why = s.state == wire::kObjLost
                          ? " is lost: the process that was to make it died"
                          : std::string(" could not be stored for others (") + ray_code_name(code) +
                                "); the log of the process that made it has the reason";
    ErrorBox* e = make_error(code, "object " + s.id.hex() + why);
    complete_error(o, e);
    e->release();
  }
}

// False: it lies on disk, and does not come within that time.
bool Runtime::read_shared_error(Object* o, const wire::Location& at, bool ours, int64_t patience_ns,
                                bool last) {
  store::Pin pin;
  ray_code code = RAY_OBJECT_LOST;
  std::string message = "the error of object " + o->id.hex() + " cannot be read", payload;
  uint32_t format = 0;
  const int64_t within = patience_ns == kStoreTimeoutNs ? -1 : patience_ns;
  std::shared_ptr<store::Client> store;
  Status s = open_store(&store);
  if (s.ok()) s = of_store(store->pin(o->id, at, kStoreTimeoutNs, within, &pin));
  if (no_room(s) && !last) return false;
  if (s.ok()) {
    wire::unpack_error(pin.data, pin.size, &code, &message, &format, &payload);
    store->unpin(&pin);
  } else if (s.code() == RAY_NODE_DIED) {
    code = s.code();
    message = s.message();
  }
  if (ours && store) store->drop(o->id, at);
  ErrorBox* e = make_error(code, message, format, payload);
  {
    std::lock_guard lock(mutex_);
    if (!o->done()) complete_error(o, e);
  }
  e->release();
  bells_.poke();
  return true;
}

// ---- freeing --------------------------------------------------------------------------------------------

// A value that only its references knew of. Nobody has any more, so that it can go without the lock.
static bool is_alone(const Object* o) {
  return o->state.load(std::memory_order_relaxed) == ObjState::kReady && o->where != Where::kStore &&
         !(o->in_table | o->publish_on_ready | o->registered | o->shared | o->borrowed) && o->holds == 0 &&
         !o->contained && !o->lender && !o->lent && !o->waiters;
}

void Runtime::free_object(Object* o) {
  if (foreign()) return;  // a forked child's copy: the parent has the object
  if (is_alone(o)) {
    if (o->where == Where::kHeap) std::free(o->heap);
    return object_slab().free(o, o->index);
  }
  std::vector<Object*> more;
  {
    std::lock_guard lock(mutex_);
    free_one(o, &more);
  }
  while (!more.empty()) {
    Object* c = more.back();
    more.pop_back();
    if (!c->drop()) continue;
    std::lock_guard lock(mutex_);
    free_one(c, &more);
  }
}

// mutex_ held. References that it contained go to `more`.
void Runtime::free_one(Object* o, std::vector<Object*>* more) {
  ObjState state = o->state.load(std::memory_order_relaxed);
  if (o->producer) stop_watching(o);
  if (o->in_table) table_.erase(o);
  if (o->shared) published_.erase(o);
  if (o->publish_on_ready) {
    o->publish_on_ready = false;
    --needs_pulse_;
  }
  bool in_store = state == ObjState::kReady && o->where == Where::kStore;
  while (o->lent) stopped_ ? leave_lender(o->lent) : hold_lent(o->lent);
  if (o->contained)
    for (Object* c : *o->contained) more->push_back(c);
  o->contained.reset();
  if (o->lender) leave_lender(o);
  if (!stopped_) {
    if (o->holds) daemon_.up(wire::kUpObjRelease, wire::UpObjCount{o->id, process(), o->holds});
    // Else the directory knows of the copy, and drops it.
    if (in_store && !o->shared && !o->borrowed && store_) store_->drop(o->id, o->location);
  }
  if (state == ObjState::kError) unread_errors_.freed(o);
  else if (state == ObjState::kReady && o->where == Where::kHeap) std::free(o->heap);
  while (o->waiters) {
    Waiter* w = o->waiters;
    o->waiters = w->next;
    delete w;
  }
  object_slab().free(o, o->index);
}

// A result that nobody takes. mutex_ held.
void Runtime::discard(const ObjectId& id, uint32_t making, const wire::ArgHeader& h, const uint8_t* bytes) {
  if (h.flags & wire::kRegistered)
    daemon_.up(wire::kUpObjDiscard, wire::UpObjDiscard{id, process(), making, 0, 0});
  if (h.where != wire::kStore) return;
  wire::StoreRef r;
  std::memcpy(&r, bytes, sizeof r);
  if (store_) store_->drop(r.id, r.location);
}

// Its worker is gone. What it had made of the results and not handed over, if anything, is known to the node
// and the store alone. mutex_ held.
void Runtime::discard_attempt(const PendingTask* t) {
  const uint32_t making = making_of(t->tag, t->attempt);
  auto gone = [&](uint32_t index) {
    daemon_.up(wire::kUpObjDiscard, wire::UpObjDiscard{return_object(t->id, index), process(), making, 1, 0});
  };
  for (uint32_t i = 0; i < t->n_returns; ++i) gone(i);
  if (t->stream) gone(t->stream->from_attempt);  // of the others it is known
}

// ---- reading ---------------------------------------------------------------------------------------------

void release_plain_buffer(ray_buffer* b) {
  Object* o = static_cast<Object*>(b->private_data);
  b->release = nullptr;
  o->runtime->release(o);
}

void release_view_buffer(ray_buffer* b) {
  auto* view = static_cast<BufferView*>(b->private_data);
  b->release = nullptr;
  if (view->pinned) view->store->unpin(&view->pin);
  if (view->owner) view->runtime->release(view->owner);
  for (Object* o : view->contained) view->runtime->release(o);
  delete view;
}

void buffer_from_view(BufferView* view, ray_buffer* out) {
  *out = RAY_BUFFER_INIT;
  out->data = view->packed.data;
  out->size = view->packed.size;
  out->format = view->packed.format;
  out->n_refs = view->packed.n_refs;
  out->oob = view->packed.oob.data();
  out->n_oob = view->packed.oob.size();
  out->release = release_view_buffer;
  out->private_data = view;
}

void Runtime::unpin(store::Pin* pin) {
  if (auto client = store()) client->unpin(pin);
}

Status Runtime::open_store(std::shared_ptr<store::Client>* out) const {
  *out = store();
  return *out ? Status() : error(RAY_WRONG_STATE, "this runtime was shut down");
}

// Memory for copies of the smallest values. What a thread has released it takes again, last first: a thousand values
// that are got and released together are more than malloc keeps at hand, and cost several times as much from it.
namespace {

struct SmallCopy {
  SmallCopy* next;
  uint8_t rest[Object::kSmallMax - sizeof(SmallCopy*)];
};

// Of a thread. `n` is kMost also when there is no list any more.
struct Copies {
  static constexpr uint32_t kMost = 4096;
  SmallCopy* first;
  uint32_t n;
};
// At a fixed place of a thread's memory: whoever gets a small value asks for it twice.
[[gnu::tls_model("initial-exec")]] constinit thread_local Copies t_copies{};

struct EndOfCopies {
  ~EndOfCopies() {
    Copies& list = t_copies;
    list.n = Copies::kMost;
    while (SmallCopy* c = list.first) {
      list.first = c->next;
      std::free(c);
    }
  }
};

SmallCopy* new_copy() {
  Copies& list = t_copies;
  SmallCopy* c = list.first;
  if (!c) return static_cast<SmallCopy*>(std::malloc(sizeof(SmallCopy)));
  list.first = c->next;
  --list.n;
  return c;
}

void free_copy(void* copy) {
#ifdef LIBRAY_SANITIZED
  std::free(copy);  // so that whoever reads it after the release is found
#else
  Copies& list = t_copies;
  if (list.n == 0) static thread_local EndOfCopies end;
  if (list.n == Copies::kMost) return std::free(copy);
  auto* c = static_cast<SmallCopy*>(copy);
  c->next = list.first;
  list.first = c;
  ++list.n;
#endif
}

}  // namespace

// The smallest values are copied: that costs no more than to count the reader, and what a reader writes there by
// mistake nobody else reads.
static Status copy_small(const Object* o, ray_buffer* out) {
  SmallCopy* copy = new_copy();
  if (!copy) return error(RAY_OUT_OF_MEMORY, "no memory for a value of %lu bytes", o->size);
  std::memcpy(copy, o->small, Object::kSmallMax);
  *out = RAY_BUFFER_INIT;
  out->data = copy;
  out->size = o->size;
  out->format = o->format;
  out->private_data = copy;
  out->release = [](ray_buffer* b) {
    b->release = nullptr;
    free_copy(b->private_data);
  };
  return Status();
}

// The object is kReady. Inline values are handed out in place; stored ones are pinned: one that lies on disk
// within that time (negative: as long as it comes).
Status Runtime::fill_buffer(Object* o, int64_t within_ns, ray_buffer* out) {
  if (o->where == Where::kStore) return fill_store_buffer(o, within_ns, out);
  if (!o->packed) {
    if (o->where == Where::kSmall) return copy_small(o, out);
    *out = RAY_BUFFER_INIT;
    out->data = o->bytes();
    out->size = o->size;
    out->format = o->format;
    out->release = release_plain_buffer;
    out->private_data = retain(o);
    return Status();
  }
  auto view = std::make_unique<BufferView>();
  view->runtime = this;
  // Out-of-band buffers promise 64-byte alignment, which the heap does not give.
  RAY_TRY(view->align(o->bytes(), o->size, o->id));
  view->owner = retain(o);
  buffer_from_view(view.release(), out);
  return Status();
}

Status BufferView::align(const uint8_t* bytes, uint64_t size, const ObjectId& id) {
  if (!wire::unpack(bytes, size, &packed))
    return error(RAY_INTERNAL, "value of object %s is damaged", id.hex().c_str());
  if (packed.oob.empty() || reinterpret_cast<uintptr_t>(bytes) % wire::kOobAlign == 0) return Status();
  aligned.reset(new (std::align_val_t{wire::kOobAlign}) uint8_t[size]);
  std::memcpy(aligned.get(), bytes, size);
  wire::unpack(aligned.get(), size, &packed);
  return Status();
}

Status Runtime::fill_store_buffer(Object* o, int64_t within_ns, ray_buffer* out) {
  auto view = std::make_unique<BufferView>();
  view->runtime = this;
  RAY_TRY(open_store(&view->store));
  store::Interruptible scope(&stop_waiting_);
  Status s = of_store(store::pin_or_copy(*view->store, o->id, o->location, kStoreTimeoutNs, within_ns, &view->pin));
  if (!s.ok()) {
    if (s.code() != RAY_NOT_FOUND) return s;
    return error(RAY_OBJECT_LOST, "object %s is no longer in the store: %s", o->id.hex().c_str(),
                 s.message().c_str());
  }
  view->pinned = true;
  if (!wire::unpack(view->pin.data, view->pin.size, &view->packed)) {
    view->store->unpin(&view->pin);
    return error(RAY_INTERNAL, "value of object %s is damaged", o->id.hex().c_str());
  }
  view->owner = retain(o);
  buffer_from_view(view.release(), out);
  return Status();
}

}  // namespace ray
