// Task records that come back out of a ring. The worker can write to it, and a user's code in that worker
// may have: whatever goes to another worker is made anew or compared first.
//
// Who calls it: submit.cc when it pushes a record, results.cc and actor_calls.cc when they take one back.
// Threads: any; mutex_ held. Invariant: a record that was pushed is the one its submitter made, or its
// task fails.
#define XXH_INLINE_ALL
#include <xxhash.h>

#include <cstddef>
#include <cstring>

#include "libray/base/ring.h"
#include "libray/runtime/runtime.h"

namespace ray {
namespace {

// Some nanoseconds for arguments, nothing without.
uint64_t check_of(const uint8_t* record, size_t size, size_t head) {
  wire::TaskHeader h;
  std::memcpy(&h, record, sizeof h);
  uint64_t about = h.n_args | uint64_t{h.flags & wire::kArgsInStore} << 32;
  return size <= head ? about : XXH3_64bits(record + head, size - head) ^ about;
}

size_t head_of(const PendingTask* t) {
  return sizeof(wire::TaskHeader) + pad8(t->name.size()) + pad8(t->method.size());
}

}  // namespace

void Runtime::remember_record(PendingTask* t, const uint8_t* at, uint32_t size) {
  t->record = at;
  t->record_size = size;
  t->args_check = check_of(at, size, head_of(t));
}

// Back into t->spec; false: its arguments are not what they were.
bool Runtime::take_back_record(PendingTask* t) {
  t->spec.assign(reinterpret_cast<const char*>(t->record), t->record_size);
  t->record = nullptr;
  auto* at = reinterpret_cast<uint8_t*>(t->spec.data());
  if (check_of(at, t->spec.size(), head_of(t)) != t->args_check) return false;
  wire::TaskHeader was;
  std::memcpy(&was, at, sizeof was);
  encode_head(t, was.n_args, was.flags & wire::kArgsInStore, at);
  return true;
}

void Runtime::fail_overwritten(PendingTask* t, uint32_t worker_pid) {
  ErrorBox* e = make_error(t->actor ? RAY_ACTOR_DIED : RAY_WORKER_CRASHED,
                           "task " + task_name(t) + " (" + t->id.hex() + ") cannot run again: code in worker pid " +
                               std::to_string(worker_pid) + " has overwritten the memory in which its arguments waited");
  fail_task(t, e);
  e->release();
}

}  // namespace ray
