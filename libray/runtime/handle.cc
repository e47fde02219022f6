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

bool HandleTable::add(Entry* e, uint64_t n) {
  uint64_t counts = e->counts.load(std::memory_order_relaxed);
  do
    if (!owned(counts)) return false;
  while (!e->counts.compare_exchange_weak(counts, counts + n, std::memory_order_acq_rel));
  return true;
}

bool HandleTable::retain(const void* handle, HandleKind kind) {
  auto* e = const_cast<Entry*>(find(handle, kind));
  return e && add(e, 1);
}

void* HandleTable::release(const void* handle, HandleKind kind) {
  auto* e = const_cast<Entry*>(find(handle, kind));
  if (!e) return nullptr;
  uint64_t counts = e->counts.load(std::memory_order_relaxed);
  do
    if (!owned(counts)) return nullptr;
  while (!e->counts.compare_exchange_weak(counts, counts - 1, std::memory_order_acq_rel));
  return counts == 1 ? end(e, handle) : nullptr;
}

void* HandleTable::use(const void* handle, HandleKind kind) {
  auto* e = const_cast<Entry*>(find(handle, kind));
  return e && add(e, kUse) ? e->object : nullptr;
}

void* HandleTable::unuse(const void* handle) {
  Entry* e = slab_.at(handle_index(handle));
  return e->counts.fetch_sub(kUse, std::memory_order_acq_rel) == kUse ? end(e, handle) : nullptr;
}

void* HandleTable::end(Entry* e, const void* handle) {
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
