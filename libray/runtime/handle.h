// Tagged handles: what the C API hands out instead of addresses.
//
//   bits 60..63 kind (never 0) | 36..59 generation | 0..35 index into a table
//
// A null, foreign or stale handle is recognised without touching foreign memory: user-space addresses
// have no top bits, and the generation changes whenever an entry is freed. Entries live in chunks
// that are never returned, so a lookup needs no lock. Any thread.
#pragma once
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <new>

#include "libray/base/fork.h"
#include "libray/base/spin.h"

namespace ray {

enum HandleKind : uint64_t {
  kHandleRef = 1,
  kHandleRuntime = 2,
  kHandleError = 3,
  kHandleFunction = 4,
  kHandleActor = 5,
  kHandleQueue = 6,
  kHandleStream = 7,
  kHandleWriter = 8,
  kHandleTask = 9,
  kHandleWeakActor = 10,  // the same objects as kHandleActor: does not keep the actor alive
};

inline constexpr uint64_t kHandleIndexMask = (uint64_t{1} << 36) - 1;
inline constexpr uint32_t kHandleGenMask = (1u << 24) - 1;

inline void* make_handle(HandleKind kind, uint32_t gen, uint64_t index) {
  return reinterpret_cast<void*>((uint64_t{kind} << 60) |
                                 (uint64_t{gen & kHandleGenMask} << 36) | index);
}
inline HandleKind handle_kind(const void* h) {
  return static_cast<HandleKind>(reinterpret_cast<uint64_t>(h) >> 60);
}
inline uint32_t handle_gen(const void* h) {
  return static_cast<uint32_t>(reinterpret_cast<uint64_t>(h) >> 36) & kHandleGenMask;
}
inline uint64_t handle_index(const void* h) {
  return reinterpret_cast<uint64_t>(h) & kHandleIndexMask;
}

// Chunks of entries that are never freed. Entry needs `std::atomic<uint32_t> gen` and, while free,
// `uint32_t next_free`. alloc/free are serialised inside: none of them happens while somebody else has mutex().
template <class Entry>
class Slab {
 public:
  Slab() {  // it lives as long as the process
    if (!chunks_) throw std::bad_alloc();
    held_over_forks(&mutex_);
  }
  static constexpr uint64_t kChunk = 1024, kChunks = 1 << 16;
  Entry* at(uint64_t index) const {
    uint64_t chunk = index / kChunk;
    if (chunk >= kChunks) return nullptr;
    Entry* c = chunks_[chunk].load(std::memory_order_acquire);
    return c ? c + index % kChunk : nullptr;
  }
  SpinLock& mutex() { return mutex_; }
  // nullptr when 64 M entries exist or memory is out.
  Entry* alloc(uint32_t* index) {
    std::lock_guard lock(mutex_);
    if (free_ == kNone) {
      if (n_chunks_ == kChunks) return nullptr;
      Entry* c = new (std::nothrow) Entry[kChunk];
      if (!c) return nullptr;
      uint32_t base = static_cast<uint32_t>(n_chunks_ * kChunk);
      for (uint32_t i = 0; i < kChunk; ++i) c[i].next_free = i + 1 < kChunk ? base + i + 1 : kNone;
      chunks_[n_chunks_++].store(c, std::memory_order_release);
      free_ = base;
    }
    *index = free_;
    Entry* e = at(free_);
    free_ = e->next_free;
    return e;
  }
  void free(Entry* e, uint32_t index) {
    e->gen.store((e->gen.load(std::memory_order_relaxed) + 1) & kHandleGenMask,
                 std::memory_order_release);
    std::lock_guard lock(mutex_);
    e->next_free = free_;
    free_ = index;
  }

 private:
  static constexpr uint32_t kNone = 0xFFFFFFFFu;
  SpinLock mutex_;
  uint32_t free_ = kNone;
  uint64_t n_chunks_ = 0;
  // Zeros from the system, which take no memory before they are used: half a megabyte in each process.
  std::atomic<Entry*>* chunks_ = static_cast<std::atomic<Entry*>*>(std::calloc(kChunks, sizeof(std::atomic<Entry*>)));
};

// Table of all handles but references (which are entries themselves, runtime/object.h).
class HandleTable {
 public:
  static HandleTable& instance();
  void* insert(HandleKind kind, void* object);
  // The object, or nullptr for a null, stale or foreign handle.
  void* get(const void* handle, HandleKind kind) const {
    const Entry* e = find(handle, kind);
    return e ? e->object : nullptr;
  }
  bool retain(const void* handle, HandleKind kind);
  // Drops one count; returns the object when that was the last and nobody uses it, else nullptr. Counts
  // are the callers': one release too many finds none.
  void* release(const void* handle, HandleKind kind);
  // Like get, and the object outlives its last count until unuse: for calls that sleep on it. unuse
  // returns the object when its last count went meanwhile: the caller ends it.
  void* use(const void* handle, HandleKind kind);
  void* unuse(const void* handle);
  // A fresh handle to the object of an unreleased one, which becomes stale. Nobody else uses either.
  void* renew(const void* handle);

 private:
  struct Entry {
    std::atomic<uint32_t> gen{1};
    uint32_t next_free = 0;
    std::atomic<uint64_t> counts{0};  // of callers; above them kUse for each use
    HandleKind kind{};
    void* object = nullptr;
  };
  const Entry* find(const void* handle, HandleKind kind) const {
    if (handle_kind(handle) != kind) return nullptr;
    const Entry* e = slab_.at(handle_index(handle));
    if (!e || e->gen.load(std::memory_order_acquire) != handle_gen(handle) || e->kind != kind)
      return nullptr;
    return owned(e->counts.load(std::memory_order_relaxed)) ? e : nullptr;
  }
  static constexpr uint64_t kUse = uint64_t{1} << 32;
  static bool owned(uint64_t counts) { return static_cast<uint32_t>(counts) != 0; }
  void* end(Entry* e, const void* handle);
  // Adds to the counts unless there are none.
  static bool add(Entry* e, uint64_t n);
  Slab<Entry> slab_;
};

template <class T>
T* from_handle(const void* handle, HandleKind kind) {
  return static_cast<T*>(HandleTable::instance().get(handle, kind));
}

}  // namespace ray
