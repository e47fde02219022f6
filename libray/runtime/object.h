// Object: one process's knowledge of one object, and what a ray_ref stands for.
//
// Threads: `counts` and `state` are atomic; a value is immutable once `state` says that it is there, so
// it may then be read without a lock. Everything else is guarded by the runtime's mutex.
// Invariants: refs() > 0 as long as a handle, a buffer, a pending task or a container uses the entry; handles()
// of them are the callers', and no caller can take others.
#pragma once
#include <atomic>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "libray/base/ids.h"
#include "libray/runtime/handle.h"
#include "libray/wire/packed.h"
#include "store/client.h"

namespace ray {

class Runtime;
struct PendingTask;
struct Object;

// What a ray_error handle stands for; also the value of a failed object.
struct ErrorBox {
  std::atomic<uint32_t> refs{1};
  ray_code code;
  std::string message;
  uint32_t payload_format = 0;
  std::string payload;
  // Somebody got it, waited for it, or took it on: it need not be told when its objects go (UnreadErrors).
  std::atomic<bool> seen{false};
  int64_t since_ns = 0;
  ErrorBox* retain() {
    refs.fetch_add(1, std::memory_order_relaxed);
    return this;
  }
  void release() {
    if (refs.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
  }
};
ErrorBox* make_error(ray_code code, std::string message, uint32_t payload_format = 0,
                     std::string payload = {});

enum class ObjState : uint8_t {
  kPending,     // ours: a task will make it
  kUnresolved,  // borrowed: the daemon knows, or will
  kReady,
  kError,
};
enum class Where : uint8_t { kSmall, kHeap, kStore };

// Somebody who is to be told when an object is there.
struct Waiter {
  Waiter* next = nullptr;
  PendingTask* task = nullptr;  // a task that has it as an argument, or else:
  uint64_t token = 0;           // a notification (Notifications)
};

struct Object {
  static constexpr uint32_t kSmallMax = 40;
  std::atomic<uint32_t> gen{1};
  uint32_t next_free = 0;
  // All references; in the upper half those of them that are callers' handles. In one word, since a handle that comes
  // or goes changes both.
  std::atomic<uint64_t> counts{0};
  uint32_t index = 0;
  std::atomic<ObjState> state{ObjState::kPending};
  Where where = Where::kSmall;
  bool packed = false;         // the bytes are a packed value, else plain ones in `format`
  bool shared = false;         // the daemon's directory counts this process as a holder
  bool borrowed = false;       // somebody else made it
  bool resolving = false;      // the daemon was asked for it
  bool publish_on_ready = false;
  bool registered = false;  // a result that contains references: the directory counts us as its holder
  bool in_table = false;
  bool excused = false;  // a get that listed it told of another failure: its own need not be told
  uint8_t holds = 0;       // that the directory has of us through this entry
  uint32_t wait_mark = 0;  // of the last ray_wait that listed it: finds what is listed twice
  Runtime* runtime = nullptr;
  ObjectId id;
  uint32_t format = 0;
  uint64_t size = 0;
  union {
    uint8_t small[kSmallMax];
    uint8_t* heap;
    wire::Location location;
    ErrorBox* error;
  };
  PendingTask* producer = nullptr;
  Waiter* waiters = nullptr;
  // Put objects: the references inside, kept as long as this entry.
  std::unique_ptr<std::vector<Object*>> contained;
  // A borrowed entry without a hold of its own at the daemon: it lives as long as this registered result
  // of ours, which contains it. When the result goes first, they get holds of their own.
  Object* lender = nullptr;
  Object *next_lent = nullptr, *previous_lent = nullptr;  // of the same lender
  Object* lent = nullptr;                                 // the first that has this one as its lender

  Object() : small{} {}
  static constexpr uint64_t kHandles = uint64_t{1} << 32, kOwned = kHandles | 1;  // one with its reference
  uint32_t refs() const { return static_cast<uint32_t>(counts.load(std::memory_order_acquire)); }
  uint64_t handles() const { return counts.load(std::memory_order_relaxed) / kHandles; }
  // One of the runtime's references goes; true: it was the last.
  bool drop() { return counts.fetch_sub(1, std::memory_order_acq_rel) == 1; }
  bool done() const { return state.load(std::memory_order_acquire) >= ObjState::kReady; }
  const uint8_t* bytes() const { return where == Where::kSmall ? small : heap; }
  ray_ref* handle() const {
    return static_cast<ray_ref*>(
        make_handle(kHandleRef, gen.load(std::memory_order_relaxed), index));
  }
};

Slab<Object>& object_slab();

// What a ray_buffer of a packed or stored value points to.
struct AlignedDelete {
  void operator()(uint8_t* p) const { ::operator delete[](p, std::align_val_t{wire::kOobAlign}); }
};
struct BufferView {
  Runtime* runtime = nullptr;
  Object* owner = nullptr;  // retained
  bool pinned = false;
  store::Pin pin;
  std::shared_ptr<store::Client> store;  // its memory stays mapped as long as the pin, also after shutdown
  wire::PackedView packed;
  std::unique_ptr<uint8_t[], AlignedDelete> aligned;
  std::vector<Object*> contained;  // retained, of an argument that was taken from its task
  // Unpacks; copies to aligned memory when there are buffers that need it.
  Status align(const uint8_t* bytes, uint64_t size, const ObjectId& id);
};
void buffer_from_view(BufferView* view, ray_buffer* out);
void release_plain_buffer(ray_buffer* b);
void release_view_buffer(ray_buffer* b);

inline Object* object_of(const ray_ref* ref) {
  if (handle_kind(ref) != kHandleRef) return nullptr;
  Object* o = object_slab().at(handle_index(ref));
  if (!o || o->gen.load(std::memory_order_acquire) != handle_gen(ref) ||
      o->handles() == 0)
    return nullptr;
  return o;
}
// A reference that the runtime owns becomes the caller's.
inline ray_ref* hand_out(Object* o) {
  o->counts.fetch_add(Object::kHandles, std::memory_order_relaxed);
  return o->handle();
}
enum class TakenBack { kNone, kSome, kLast };
// And goes, with its reference. kNone: the caller has none; kLast: the entry is to be freed.
inline TakenBack take_back(Object* o) {
  uint64_t n = o->counts.load(std::memory_order_relaxed);
  do
    if (n < Object::kHandles) return TakenBack::kNone;
  while (!o->counts.compare_exchange_weak(n, n - Object::kOwned, std::memory_order_acq_rel, std::memory_order_relaxed));
  return n == Object::kOwned ? TakenBack::kLast : TakenBack::kSome;
}
// Of an entry that the caller, or something that lives as long as the call, refers to already.
inline Object* retain(Object* o) {
  o->counts.fetch_add(1, std::memory_order_relaxed);
  return o;
}
// Another handle to it, for the caller.
inline ray_ref* retain_handle(Object* o) {
  o->counts.fetch_add(Object::kOwned, std::memory_order_relaxed);
  return o->handle();
}
// Of one that was found in a table, under the lock: false = its last reference is gone and another thread is
// about to free it.
inline bool try_retain(Object* o) {
  uint64_t n = o->counts.load(std::memory_order_acquire);
  while (n != 0 && !o->counts.compare_exchange_weak(n, n + 1)) {
  }
  return n != 0;
}

}  // namespace ray
