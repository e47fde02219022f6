// Lineage records: what is journaled about every task. Written by drivers (kSubmit, before the task
// is handed to a worker) and by workers (kExec, before its result is published) to the lineage ring of
// their channel; batched by the daemon's journal pump; appended by the control store's shards; read
// back by queries, by the SQLite views and by the graph rebuild. Layouts are packed little endian.
//
// They follow protocols.md 2.11: records are versioned by (incarnation, execution, events); actor
// methods carry a dense position in their actor's log; a node's records form one journal in order.
#pragma once
#include <cstdint>

#include "libray/base/ids.h"

namespace ray::lineage {

enum RecordType : uint16_t {  // RecordHeader.type in the ring
  kSubmit = 1,  // SubmitRecord + name + method (padded to 8 each) + n_args x (ArgRecord + bytes, padded)
  kExec = 2,    // ExecRecord + n_results x (ResultRecord + bytes padded to 8) + error text
  kEvent = 3,   // EventRecord + MessagePack map
  kError = 4,   // EventRecord + MessagePack map, for the error table
  kMark = 6,    // MarkRecord, of the journal pump: every shard gets it
  kAgain = 7,   // AgainRecord, of who submitted it: a task is about to run once more
  kEnd = 8,     // EndRecord + text, of who submitted it: a task has failed, and no worker will tell of it
  kLeft = 9,    // LeftRecord, of the journal pump: every shard gets it
  kCoded = 5,   // only in rings: one of the above as a difference from the last of its type (delta.h)
};

struct SubmitRecord {
  TaskId task, parent;
  ActorId actor;         // kinds 1 and 2
  uint64_t function;     // key in the function table
  uint64_t handle_seq;   // actor calls: counter of the handle (process) that called
  int64_t submit_ns;     // wall clock
  uint32_t kind;         // RAY_KIND_*
  uint32_t n_args, n_returns;
  uint32_t process;      // index of the submitting process
  uint32_t name_size, method_size;
};
struct ArgRecord {
  uint32_t is_ref;  // 1: an ObjectId follows (data edge from producer_of(id)); 0: the inline bytes
  uint32_t format;
  uint64_t size;    // of what follows
};
struct ExecRecord {
  TaskId task;
  ActorId actor;        // kinds 1 and 2
  uint64_t actor_pos;   // methods: dense position in the actor's total order within the incarnation, from
                        // 0 (stateful edge from pos - 1, or from the creation)
  int64_t start_ns, end_ns;
  uint32_t incarnation; // of the actor
  uint32_t execution;   // attempt of the task, from 0
  uint32_t process, pid;
  int32_t code;         // ray_code
  uint32_t n_results;
  uint32_t error_size;
  uint32_t kind;
};
inline constexpr uint32_t kResultInlineMax = 256;  // larger results are journaled by size only
struct ResultRecord {
  uint32_t index;   // of the return
  uint32_t format;
  uint64_t size;    // of the value
  uint32_t stored;  // bytes that follow (0 or size)
  uint32_t in_store;
};
// All that was in the node's rings at this time, and belongs to this shard, comes before it.
struct MarkRecord {
  int64_t time_ns;
};
// The process is gone. All of its records that belong to this shard come before it, and of those whose index or tasks are
// taken over by others, what they wrote since comes after it.
struct LeftRecord {
  int64_t time_ns;
  uint32_t process;
  uint32_t reserved;
};
struct AgainRecord {
  TaskId task;
  uint32_t execution;  // that is going to be
  uint32_t reserved;
};
struct EndRecord {
  TaskId task;
  int64_t end_ns;
  uint32_t execution;   // the last that was begun or was going to be
  int32_t code;         // what its caller was answered
  uint32_t error_size;  // of the text that follows
  uint32_t reserved;
};
struct EventRecord {
  int64_t time_ns;
  uint32_t process, size;
};

}  // namespace ray::lineage
