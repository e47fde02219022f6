// Streams: the results of generator tasks, item by item, with a bounded window. The worker waits when
// it is `window` items ahead of what was consumed; the count of consumed items is a word of the task's
// record in the ring, which only the client writes. See runtime.h.
#include <atomic>
#include <cstddef>

#include "libray/base/fault.h"
#include "libray/runtime/runtime.h"
#include "libray/runtime/runtime_inl.h"

namespace ray {

// An item arrived. A generator that runs again repeats its items: those are skipped. mutex_ held.
void Runtime::stream_item(PendingTask* t, uint32_t index, const wire::ArgHeader& h,
                          const uint8_t* bytes) {
  Stream* s = t->stream;
  s->from_attempt = index + 1;
  const uint32_t making = making_of(t->tag, t->attempt);
  if (index != s->received || s->starved) return discard(return_object(s->id, index), making, h, bytes);
  Object* o = RAY_FAULT_FAILS("client.item") ? nullptr : new_object(return_object(s->id, index));
  if (!o) {
    s->starved = true;
    discard(return_object(s->id, index), making, h, bytes);
    (void)cancel_task(t, 0);  // what it goes on to make is of no use
    return;
  }
  ++s->received;
  complete_from(o, h, bytes, making);
  if (s->released) {
    deferred_release_.push_back(o);
    have_deferred_ = true;
    stream_ack(s);  // a producer that goes on does not wait for room
    return;
  }
  s->items.push_back(o);
  stream_deliver(s);
}

// The task is over. An error becomes the last item. mutex_ held.
void Runtime::stream_end(PendingTask* t, ErrorBox* e) {
  Stream* s = t->stream;
  t->stream = nullptr;
  s->task = nullptr;
  s->ended = true;
  if (s->starved)
    s->failure = e = make_error(RAY_OUT_OF_MEMORY, "no memory for an item of generator " + s->id.hex());
  else if (e)
    s->failure = e->retain();
  if (s->completion) complete_stream(s);
  if (e && !s->released) {
    Object* o = RAY_FAULT_FAILS("client.item") ? nullptr : new_object(return_object(s->id, s->received++));
    s->untold = !o;
    if (o) {
      complete_error(o, e);
      s->items.push_back(o);
    }
  }
  stream_deliver(s);
  if (s->unused) free_stream(s);
}

// The object that stands for the task's end: made when somebody asks for it. mutex_ held.
void Runtime::complete_stream(Stream* s) {
  Object* o = s->completion;
  if (s->watched) {
    s->completion = nullptr;
    if (!try_retain(o)) {  // it is being freed, and does not ask for its task again
      o->producer = nullptr;
      return;
    }
    deferred_release_.push_back(o);
    have_deferred_ = true;
  }
  if (s->failure) return complete_error(o, s->failure);
  complete_from(o, wire::ArgHeader{RAY_FMT_MSGPACK, wire::kNone, 0, 0}, nullptr, 0);
}

// Another process is to have it: from now on the task's end is waited for, whoever has references here. mutex_ held.
void Runtime::keep_completion(Object* completion) {
  const PendingTask* t = completion->producer;
  if (!t->stream || t->stream->completion != completion || !std::exchange(t->stream->watched, false)) return;
  retain(completion);
}

// The last reference to what stands for the end of a released stream went: nobody waits for its task. mutex_ held.
void Runtime::stop_watching(const Object* completion) {
  const PendingTask* t = completion->producer;
  if (!t->stream || !t->stream->watched || t->stream->completion != completion) return;
  t->stream->completion = nullptr;
  t->stream->watched = false;
  callbacks_.push_back([this, tag = uint64_t{t->tag}] {
    {
      std::lock_guard lock(mutex_);
      PendingTask* task = pending_task_at(task_index(tag));
      if (task && task->tag == tag) (void)cancel_task(task, 0);
    }
    after_unlock(0);
  });
  ring_all(process_);
}

Status Runtime::stream_completed(Stream* s, Object** out) {
  if (foreign()) return usable();
  {
    std::lock_guard lock(mutex_);
    if (!s->completion) {
      s->completion = new_object(return_object(s->id, kStreamEndIndex));
      if (!s->completion) return error(RAY_OUT_OF_MEMORY, "no memory for another reference");
      s->completion->producer = s->task;
      if (s->ended) complete_stream(s);
    }
    *out = retain(s->completion);  // which is not `watched`: there is a handle
  }
  after_unlock();
  return Status();
}

// The word lies in the task's record, which stays in the ring until its result was read. mutex_ held.
void Runtime::stream_ack(Stream* s) {
  ++s->consumed;
  PendingTask* t = s->task;
  if (!t || t->state != TaskState::kPushed) return;
  auto* at = const_cast<uint8_t*>(t->record) + offsetof(wire::TaskHeader, stream_ack);
  std::atomic_ref(*reinterpret_cast<uint32_t*>(at)).store(s->consumed, std::memory_order_release);
  ray::ring(bell(t->link->peer));
}

// A notification says that there is something to take, and takes nothing: whoever gives up waiting loses
// no item, and those who take items by hand get them in order beside it. mutex_ held.
void Runtime::stream_deliver(Stream* s) {
  if (__builtin_expect(s->waiters.empty(), 1) || (s->items.empty() && !s->ended && !s->released)) return;
  const uint32_t kind = s->items.empty() ? RAY_COMPLETION_STREAM_END : RAY_COMPLETION_STREAM_ITEM;
  for (uint64_t token : s->waiters) {
    auto it = notifications_.find(token);
    if (it == notifications_.end()) continue;
    deliver(it->second, nullptr, kind, nullptr);
    notifications_.erase(it);
    --needs_pulse_;
  }
  s->waiters.clear();
}

Status Runtime::stream_next(Stream* s, int64_t timeout_ns, Object** out) {
  if (foreign()) return usable();
  *out = nullptr;
  // Taken under the lock of the look: another consumer may be as fast.
  auto take = [&] {
    if (s->items.empty()) return s->ended || s->released;
    *out = s->items.front();
    s->items.pop_front();
    stream_ack(s);
    return true;
  };
  if (!wait_until(take, timeout_ns)) {
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
  Queue* queue;
  RAY_TRY(check_notify(notify, &queue));
  Notification n(notify, queue);
  n.stream = s;
  {
    std::lock_guard lock(mutex_);
    if (closed_) return error(RAY_WRONG_STATE, "this runtime was shut down");
    if (queue && !queues_.count(queue))
      return error(RAY_INVALID_ARGUMENT, "the completion queue is being released");
    const uint64_t t = next_token_++;
    if (token) *token = t;
    notifications_[t] = n;
    s->waiters.push_back(t);
    ++needs_pulse_;
    urgent_work_ = true;
    stream_deliver(s);
  }
  ray::ring(urgent_bell(process_));
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
    s->released = true;
    items.assign(s->items.begin(), s->items.end());
    s->items.clear();
    stream_deliver(s);  // there will be nothing to take
    // Who still waits for the task's end wants it to get there; what it makes is dropped as it comes.
    const bool wanted = s->completion && s->completion->refs() > 1, goes_on = s->to_end || wanted;
    s->watched = s->task && wanted && !s->to_end && !s->completion->shared;
    if (s->task && !goes_on) (void)cancel_task(s->task, 0);
    else for (size_t i = items.size(); i > 0; --i) stream_ack(s);
    if (s->watched) items.push_back(s->completion);
    if (sleepers_.load(std::memory_order_relaxed)) ray::ring(bell(process_));  // who waits for an item
  }
  for (Object* o : items) release(o);
  after_unlock();
}

void Runtime::stream_unused(Stream* s) {
  if (foreign()) return;
  {
    std::lock_guard lock(mutex_);
    s->unused = true;
    if (!s->task) free_stream(s);  // else its end does
  }
  after_unlock();
}

void Runtime::free_stream(Stream* s) {
  streams_.erase(s);
  if (s->failure) s->failure->release();
  if (s->completion) {
    deferred_release_.push_back(s->completion);
    have_deferred_ = true;
  }
  delete s;
}

}  // namespace ray
