// Identifiers of tasks, objects, actors, nodes and jobs.
//
// An id is 24 bytes and is compared with memcmp. Task and object ids are a pure function of the
// parent task and the submit index, so that a task that runs again makes the same ids (design
// rule 6); they are hashed once per *parent*, not once per task:
//
//   bytes  0..15  origin  = hash128(id of the parent task)
//   bytes 16..19  submit index of the task within its parent, big endian
//   bytes 20..23  object index, big endian: 0 = the task itself; 1.. = its returns and stream items;
//                 0x80000000|k = the k-th object it put; 0xFFFFFFFF = the actor it created;
//                 0xFFFFFFFC..E: never of an object, see below
//
// Every submission and every put has a parent, also outside of a task: a *root*, which is no task. A driver
// has one (root_task), each worker process too (worker_root), and each incarnation of an actor (actor_root):
// the last can be computed again from what the journal says, so that a replay makes the same ids.
//
// Whoever runs again makes the same ids, with one exception: the actors that it creates, since those of its
// first run may have died with the handles of its last process. Their origin is that of the attempt
// (origin_of_part); the ids of attempt k are the same whenever that attempt is replayed. A detached actor with
// a name outlives its creator and is found by its name: its id is that of the first run.
//
// An index tells four billion children apart, and a put index one billion puts. A parent with more of them (a
// driver needs an hour for that) goes on with origins of its parts.
//
// Big-endian fields make siblings neighbours in every sorted index. Used by every layer; no state.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <string>
#include <string_view>

namespace ray {

inline constexpr size_t kIdSize = 24;

struct Id {
  uint8_t b[kIdSize] = {};
  friend bool operator==(const Id& x, const Id& y) { return std::memcmp(x.b, y.b, kIdSize) == 0; }
  friend bool operator!=(const Id& x, const Id& y) { return !(x == y); }
  friend bool operator<(const Id& x, const Id& y) { return std::memcmp(x.b, y.b, kIdSize) < 0; }
  bool is_nil() const { return *this == Id{}; }
  uint32_t submit_index() const { return load_be(16); }
  uint32_t object_index() const { return load_be(20); }
  void set_submit_index(uint32_t v) { set_indices(v, object_index()); }
  void set_object_index(uint32_t v) { set_indices(submit_index(), v); }
  // Both in one store: whoever copies the id next loads them together, and would wait for two.
  void set_indices(uint32_t submit, uint32_t object) {
    uint64_t v = __builtin_bswap64(uint64_t{submit} << 32 | object);
    std::memcpy(b + 16, &v, 8);
  }
  std::string hex() const;
  // 48 hexadecimal digits of either case; false leaves *out as it is.
  static bool from_hex(std::string_view text, Id* out);

 private:
  uint32_t load_be(size_t at) const {
    uint32_t v;
    std::memcpy(&v, b + at, 4);
    return __builtin_bswap32(v);
  }
};
static_assert(sizeof(Id) == kIdSize);

using TaskId = Id;
using ObjectId = Id;
using ActorId = Id;
using NodeId = Id;
using JobId = Id;

inline constexpr uint32_t kPutIndexBit = 0x80000000u;
inline constexpr uint32_t kActorIndex = 0xFFFFFFFFu;
inline constexpr uint32_t kAttemptIndex = 0xFFFFFFFEu;
inline constexpr uint32_t kTasksPartIndex = 0xFFFFFFFDu;
inline constexpr uint32_t kPutsPartIndex = 0xFFFFFFFCu;

// Sixteen bytes that all children of one task share. Compute once per parent.
struct Origin {
  uint8_t b[16];
};
Origin origin_of(const TaskId& parent);
// Of the children of a parent's k-th attempt or part, k > 0; `what`: kAttemptIndex, or one of the others.
Origin origin_of_part(const TaskId& parent, uint32_t what, uint32_t k);

// Bytes from the system's random source: job and node ids only, never task ids.
Id random_id();
// The driver's task of a job: the root of all control edges.
TaskId root_task(const JobId& job);
// What a worker process makes outside of a task: its `spawn`-th of the node, from 1.
TaskId worker_root(const JobId& job, uint64_t spawn);
// What an incarnation of an actor makes outside of its calls: in threads of its own, between the steps of
// an event loop.
TaskId actor_root(const Id& actor, uint32_t incarnation);
// Whether it is one of these, of this job or actor.
bool is_root_of(const Id& job_or_actor, const TaskId& id);

inline TaskId child_task(const Origin& origin, uint32_t submit_index) {
  TaskId id;
  std::memcpy(id.b, origin.b, sizeof origin.b);
  id.set_indices(submit_index, 0);
  return id;
}
inline ObjectId object_of(const TaskId& task, uint32_t object_index) {
  ObjectId id = task;
  id.set_object_index(object_index);
  return id;
}
inline ObjectId return_object(const TaskId& task, uint32_t index) {
  return object_of(task, index + 1);
}
// Return index of the object that stands for the end of a generator task.
inline constexpr uint32_t kStreamEndIndex = 0x7FFFFFFEu;
inline ObjectId put_object(const TaskId& task, uint32_t put_index) {
  return object_of(task, kPutIndexBit | put_index);
}
inline ActorId actor_of(const TaskId& creation_task) {
  return object_of(creation_task, kActorIndex);
}
// Puts of one parent, or of one of its parts. What lies above is for the runtime's own objects.
inline constexpr uint32_t kPutsOfParent = 1u << 30;
inline constexpr uint32_t kArgumentsPut = kPutsOfParent;  // the arguments of a task that did not fit its record
// The n-th of a parent's tasks and puts, from 1.
inline TaskId nth_task(const TaskId& parent, const Origin& origin, uint64_t n) {
  const auto index = static_cast<uint32_t>(n);
  if (__builtin_expect(n == index, 1)) return child_task(origin, index);
  return child_task(origin_of_part(parent, kTasksPartIndex, static_cast<uint32_t>(n >> 32)), index);
}
inline ObjectId nth_put(const TaskId& parent, uint64_t n) {
  if (__builtin_expect(n < kPutsOfParent, 1)) return put_object(parent, static_cast<uint32_t>(n));
  const auto part = static_cast<uint32_t>(n / kPutsOfParent);
  return put_object(child_task(origin_of_part(parent, kPutsPartIndex, part), 0), n % kPutsOfParent);
}
// Whether the id is that of a child: for those who check a journal.
bool is_child_of(const TaskId& parent, const TaskId& id);
inline TaskId producer_of(const ObjectId& object) { return object_of(object, 0); }

// Hash for tables. Ids have structure, so every field takes part in the mix.
uint64_t hash_id(const Id& id, uint64_t seed = 0);
// Slot of the control store that keeps everything about this task and its objects. Runs of 256
// siblings share a slot, so a batch of submissions stays one batch; the runs of one parent take the
// slots in turn, so that they spread evenly over any number of shards.
inline constexpr uint32_t kGcsSlots = 1024;
uint32_t gcs_slot(const Id& id);
uint32_t gcs_slot_of_key(const void* key, size_t size);

}  // namespace ray

template <>
struct std::hash<ray::Id> {
  size_t operator()(const ray::Id& id) const noexcept { return ray::hash_id(id); }
};
