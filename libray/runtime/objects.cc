// Making, packing and freeing objects, and the store that their values lie in. See objects.h.
#include "libray/runtime/objects.h"

#include <cstdlib>

#include "libray/base/clock.h"
#include "libray/base/copy.h"
#include "libray/runtime/worker.h"

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
Object* Objects::make(const ObjectId& id, uint64_t counts) {
  uint32_t index;
  Object* o = object_slab().alloc(&index);
  if (!o) return nullptr;
  o->index = index;
  o->runtime = runtime_;
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
Object* Objects::find_object(const ObjectId& id) {
  std::lock_guard lock(object_slab().mutex());
  for (uint64_t i = 0;; ++i) {
    Object* o = object_slab().at(i);
    if (!o) return nullptr;
    if (o->refs() == 0 || o->runtime != runtime_ || o->id != id) continue;
    if (try_retain(o)) return o;
  }
}

// ---- packing ------------------------------------------------------------------------------------------

// With the place of the copy that is meant: the id alone may be made again, and the node may then not know yet which
// of the two this process has.
wire::PackedRef Objects::packed_ref(Object* o) {
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
Status Objects::pack_refs(const ray_value& v, std::vector<wire::PackedRef>* out) {
  out->reserve(v.n_refs);
  for (uint32_t i = 0; i < v.n_refs; ++i) {
    Object* o = object_of(v.refs[i]);
    if (!o || o->runtime != runtime_)
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

Status Objects::pack_inline(const ray_value& v, std::string* image) {
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
Status Objects::pack_to_store(const ray_value& v, const ObjectId& id, wire::Location* out, uint32_t owner,
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

Status Objects::put(const ObjectId& id, const ray_value& v, Object** out) {
  Object* o = make(id, Object::kOwned);
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

Status Objects::seal_put(WriterState* w, Object** out) {
  Object* o = make(w->id);  // before the value is sealed, which nobody could refer to
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

// ---- freeing --------------------------------------------------------------------------------------------

// A value that only its references knew of. Nobody has any more, so that it can go without the lock.
static bool is_alone(const Object* o) {
  return o->state.load(std::memory_order_relaxed) == ObjState::kReady && o->where != Where::kStore &&
         !(o->in_table | o->publish_on_ready | o->registered | o->shared | o->borrowed) && o->holds == 0 &&
         !o->contained && !o->lender && !o->lent && !o->waiters;
}

void Objects::free(Object* o) {
  if (fork_generation_ != fork_generation()) return;  // a forked child's copy: the parent has the object
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

// Mutex held. References that it contained go to `more`.
void Objects::free_one(Object* o, std::vector<Object*>* more) {
  ObjState state = o->state.load(std::memory_order_relaxed);
  if (o->producer) user_->dropped(o);
  if (o->in_table) table_.erase(o);
  if (o->shared) published_.erase(o);
  if (o->publish_on_ready) {
    o->publish_on_ready = false;
    --n_awaited_;
  }
  bool in_store = state == ObjState::kReady && o->where == Where::kStore;
  while (o->lent) stopped_ ? leave_lender(o->lent) : hold_lent(o->lent);
  if (o->contained)
    for (Object* c : *o->contained) more->push_back(c);
  o->contained.reset();
  if (o->lender) leave_lender(o);
  if (!stopped_) {
    if (o->holds) daemon_.up(wire::kUpObjRelease, wire::UpObjCount{o->id, bells_.process(), o->holds});
    // Else the directory knows of the copy, and drops it.
    if (in_store && !o->shared && !o->borrowed && store_) store_->drop(o->id, o->location);
  }
  if (state == ObjState::kError) unread_.freed(o);
  else if (state == ObjState::kReady && o->where == Where::kHeap) std::free(o->heap);
  while (o->waiters) {
    Waiter* w = o->waiters;
    o->waiters = w->next;
    delete w;
  }
  object_slab().free(o, o->index);
}

// A result that nobody takes. Mutex held.
void Objects::discard(const ObjectId& id, uint32_t making, const wire::ArgHeader& h, const uint8_t* bytes) {
  if (h.flags & wire::kRegistered)
    daemon_.up(wire::kUpObjDiscard, wire::UpObjDiscard{id, bells_.process(), making, 0, 0});
  if (h.where != wire::kStore) return;
  const wire::StoreRef r = wire::Value{h, bytes}.ref();
  if (store_) store_->drop(r.id, r.location);
}

// ---- the store ------------------------------------------------------------------------------------------

std::shared_ptr<store::Client> Objects::take_store() {
  std::lock_guard last(store_mutex_);
  return std::exchange(store_, nullptr);
}

void Objects::unpin(store::Pin* pin) {
  if (auto client = store()) client->unpin(pin);
}

Status Objects::open_store(std::shared_ptr<store::Client>* out) const {
  *out = store();
  return *out ? Status() : error(RAY_WRONG_STATE, "this runtime was shut down");
}

std::string Objects::check() {
  std::lock_guard steady(object_slab().mutex());  // nothing comes or goes meanwhile
  size_t awaited = 0;
  Object* o;
  for (uint64_t i = 0; (o = object_slab().at(i)); ++i) {
    if (o->refs() == 0 || o->runtime != runtime_) continue;
    awaited += o->publish_on_ready;
    if (o->in_table && !o->shared && !o->borrowed) return "object " + o->id.hex() + " is in the table, and nobody else knows it";
    if (o->lender && (o->holds || !o->lender->registered))
      return "object " + o->id.hex() + " has a lender and a hold, or a lender without one";
  }
  if (awaited > n_awaited_) return "objects that others wait for are not counted";
  for (auto& [object, at] : published_)
    if (!object->shared) return "object " + object->id.hex() + " has a copy for others, and is not shared";
  return "";
}

}  // namespace ray
