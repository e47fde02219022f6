// What a program, and the ring of a generator's worker, ask of a stream: the runtime's lock, its tasks and its waits around
// the rules in streams.h.
//
// Threads: callers; stream_item wherever results are drained, ended and failed too, with the mutex held; unwatched on the
// pulse thread.
#include "libray/base/fault.h"
#include "libray/runtime/runtime.h"
#include "libray/runtime/runtime_inl.h"

namespace ray {

void Runtime::stream_item(PendingTask* t, uint32_t index, const wire::ArgHeader& h, const uint8_t* bytes) {
  Stream* s = t->stream;
  const uint32_t making = making_of(t->tag, t->attempt);
  if (!Streams::expects(s, index)) return objects_.discard(return_object(s->id, index), making, h, bytes);
  Object* o = RAY_FAULT_FAILS("client.item") ? nullptr : objects_.make(return_object(s->id, index));
  if (!o) {
    s->starved = true;
    objects_.discard(return_object(s->id, index), making, h, bytes);
    (void)cancel_task(t, 0);  // what it goes on to make is of no use
    return;
  }
  ++s->received;
  complete_from(o, h, bytes, making);
  streams_.add(s, o);
}

void Runtime::ended(Object* completion, ErrorBox* e) {
  if (e) return complete_error(completion, e);
  complete_from(completion, wire::ArgHeader{RAY_FMT_MSGPACK, wire::kNone, 0, 0}, nullptr, 0);
}

void Runtime::unwatched(uint64_t tag) {
  {
    std::lock_guard lock(mutex_);
    PendingTask* t = pending_task_at(task_index(tag));
    if (t && t->tag == tag) (void)cancel_task(t, 0);
  }
  after_unlock(0);
}

void Runtime::awaited(Object* o) {
  urgent_work_ = true;
  Streams::keep_completion(o);
}

Status Runtime::stream_completed(Stream* s, Object** out) {
  if (foreign()) return usable();
  {
    std::lock_guard lock(mutex_);
    Object* o = streams_.completion(s);
    if (!o) return error(RAY_OUT_OF_MEMORY, "no memory for another reference");
    *out = retain(o);  // which is not `watched`: there is a handle
  }
  after_unlock();
  return Status();
}

Status Runtime::stream_next(Stream* s, int64_t timeout_ns, Object** out) {
  if (foreign()) return usable();
  *out = nullptr;
  // Taken under the lock of the look: another consumer may be as fast.
  if (!wait_until([&] { return streams_.take(s, out); }, timeout_ns)) {
    if (timeout_ns != 0) RAY_TRY(wait_ended());
    return error(RAY_TIMED_OUT, "the next item of generator %s is not ready", s->id.hex().c_str());
  }
  if (!*out && s->released) return error(RAY_INVALID_ARGUMENT, "the stream was released while this call waited for it");
  if (!*out && s->untold)
    return error(RAY_OUT_OF_MEMORY, "no memory for the error with which generator %s has ended: %s", s->id.hex().c_str(),
                 s->failure->message.c_str());
  if (!*out) return error(RAY_STREAM_END, "generator %s has ended", s->id.hex().c_str());
  return Status();
}

Status Runtime::stream_on_next(Stream* s, const ray_notify& notify, uint64_t* token) {
  Notification n;
  RAY_TRY(notifications_.read(notify, &n));
  n.stream = s;
  {
    std::lock_guard lock(mutex_);
    if (closed_) return error(RAY_WRONG_STATE, "this runtime was shut down");
    RAY_TRY(notifications_.check_queue(n));
    const uint64_t t = notifications_.next_token();
    if (token) *token = t;
    notifications_.add(t, n);
    urgent_work_ = true;
    streams_.tell(s, t);
  }
  bells_.ring_pulse();
  return Status();
}

Status Runtime::stream_cancel(Stream* s, uint32_t flags) {
  Status st;
  {
    std::lock_guard lock(mutex_);
    if (s->task) st = cancel_task(s->task, flags);
  }
  after_unlock();
  return st;
}

void Runtime::stream_release(Stream* s) {
  if (foreign()) return;
  std::vector<Object*> items;
  {
    std::lock_guard lock(mutex_);
    if (streams_.release(s, &items)) (void)cancel_task(s->task, 0);
    if (sleepers_.load(std::memory_order_relaxed)) bells_.ring_own();  // who waits for an item
  }
  for (Object* o : items) objects_.release(o);
  after_unlock();
}

void Runtime::stream_unused(Stream* s) {
  if (foreign()) return;
  {
    std::lock_guard lock(mutex_);
    streams_.unused(s);
  }
  after_unlock();
}

}  // namespace ray
