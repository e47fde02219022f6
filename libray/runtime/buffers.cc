// Reading an object's value and writing it in place: what a ray_buffer holds, and how it is given back; writers. See objects.h.
//
// Threads: any; no lock. Invariant: a buffer keeps what its bytes lie in: the object, a pin in the store, or a copy.
#include <cstdlib>
#include <new>

#include "libray/runtime/objects.h"
#include "libray/runtime/runtime.h"
#include "libray/runtime/worker.h"
#include "store/apart.h"

namespace ray {

void release_plain_buffer(ray_buffer* b) {
  Object* o = static_cast<Object*>(b->private_data);
  b->release = nullptr;
  o->runtime->objects().release(o);
}

void release_view_buffer(ray_buffer* b) {
  auto* view = static_cast<BufferView*>(b->private_data);
  b->release = nullptr;
  if (view->pinned) view->store->unpin(&view->pin);
  if (view->owner) view->runtime->objects().release(view->owner);
  for (Object* o : view->contained) view->runtime->objects().release(o);
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
Status Objects::fill_buffer(Object* o, int64_t within_ns, ray_buffer* out) {
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
  view->runtime = runtime_;
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

Status Objects::fill_store_buffer(Object* o, int64_t within_ns, ray_buffer* out) {
  auto view = std::make_unique<BufferView>();
  view->runtime = runtime_;
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

// ---- writers

Status WriterState::open(Runtime* rt, const ObjectId& object, const ray_value& shape) {
  runtime = rt;
  id = object;
  format = shape.format;
  uint64_t size;
  RAY_TRY(wire::packed_size(shape, &size));
  RAY_TRY(rt->objects().pack_refs(shape, &refs));
  RAY_TRY(rt->objects().open_store(&store));
  RAY_TRY(rt->objects().of_store(store->create(id, size, Objects::kStoreTimeoutNs, &building)));
  wire::pack_frame(shape, refs.data(), building.data, &data, &oob);
  contained.reserve(shape.n_refs);
  for (uint32_t i = 0; i < shape.n_refs; ++i) contained.push_back(retain(object_of(shape.refs[i])));
  return Status();
}

}  // namespace ray
