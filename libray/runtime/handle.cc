// See handle.h.
#include "libray/runtime/handle.h"

#include <mutex>
#include <new>

namespace ray {

HandleTable& HandleTable::instance() {
  static auto* table = new HandleTable;  // outlives every thread
  return *table;
}

void* HandleTable::insert(HandleKind kind, void* object) {
  uint32_t index;
  Entry* e = slab_.alloc(&index);
  if (!e) return nullptr;
  e->kind = kind;
  e->object = object;
  e->counts.store(1, std::memory_order_release);
  return make_handle(kind, e->gen.load(std::memory_order_relaxed), index);
}

bool HandleTable::retain(const void* handle, HandleKind kind) {
  auto* e = const_cast<Entry*>(find(handle, kind));
  if (!e) return false;
  e->counts.fetch_add(1, std::memory_order_relaxed);
  return true;
}

void* HandleTable::release(const void* handle, HandleKind kind) {
  auto* e = const_cast<Entry*>(find(handle, kind));
  if (!e || e->counts.fetch_sub(1, std::memory_order_acq_rel) != 1) return nullptr;
  void* object = e->object;
  e->object = nullptr;
  slab_.free(e, static_cast<uint32_t>(handle_index(handle)));
  return object;
}

void* HandleTable::renew(const void* handle) {
  uint64_t index = handle_index(handle);
  Entry* e = slab_.at(index);
  uint32_t gen = (handle_gen(handle) + 1) & kHandleGenMask;
  e->gen.store(gen, std::memory_order_release);
  return make_handle(handle_kind(handle), gen, index);
}

}  // namespace ray
