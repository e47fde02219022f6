// Streams: the results of generator tasks, item by item, with a bounded window. The worker waits when
// it is `window` items ahead of what was consumed; the count of consumed items is a word of the link
// that only the client writes. See runtime.h.
#include "libray/runtime/runtime.h"
#include "libray/runtime/runtime_inl.h"

namespace ray {

bool Runtime::assign_stream_slot(PendingTask* t, ClientLink* link) {
  if (!t->stream) return true;
  if (link->streams_used == ~uint64_t{0}) return false;
  int slot = __builtin_ctzll(~link->streams_used);
  link->streams_used |= uint64_t{1} << slot;
  t->stream->slot = slot;
  t->stream->link = link;
  link->header->stream_acks[slot].store(t->stream->consumed, std::memory_order_release);
  return true;
}

void Runtime::free_stream_slot(PendingTask* t, ClientLink* link) {
  if (!t->stream || t->stream->slot < 0) return;
  link->streams_used &= ~(uint64_t{1} << t->stream->slot);
  t->stream->slot = -1;
  t->stream->link = nullptr;
}

// An item arrived. A generator that runs again repeats its items: those are skipped. mutex_ held.
void Runtime::stream_item(PendingTask* t, uint32_t index, const wire::ArgHeader& h,
                          const uint8_t* bytes) {
  Stream* s = t->stream;
  if (index != s->received) return;
  ++s->received;
  Object* o = new_object(return_object(s->id, index));
  if (!o) return;
  complete_from(o, h, bytes);
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
  if (e) s->failure = e->retain();
  if (s->completion) complete_stream(s);
  if (e && !s->released) {
    Object* o = new_object(return_object(s->id, s->received++));
    if (o) {
      complete_error(o, e);
      s->items.push_back(o);
    }
  }
  stream_deliver(s);
  if (s->released) free_stream(s);
}

// The object that stands for the task's end: made when somebody asks for it. mutex_ held.
void Runtime::complete_stream(Stream* s) {
  if (s->failure) return complete_error(s->completion, s->failure);
  complete_from(s->completion, wire::ArgHeader{RAY_FMT_MSGPACK, wire::kNone, 0, 0}, nullptr);
}

Status Runtime::stream_completed(Stream* s, Object** out) {
  {
    std::lock_guard lock(mutex_);
    if (!s->completion) {
      s->completion = new_object(return_object(s->id, kStreamEndIndex));
      if (!s->completion) return error(RAY_OUT_OF_MEMORY, "no memory for another reference");
      s->completion->producer = s->task;
      if (s->ended) complete_stream(s);
    }
    *out = retain(s->completion);
  }
  after_unlock();
  return Status();
}

void Runtime::stream_ack(Stream* s) {
  ++s->consumed;
  if (s->slot < 0 || !s->link) return;
  s->link->header->stream_acks[s->slot].store(s->consumed, std::memory_order_release);
  ray::ring(bell(s->link->peer));
}

void Runtime::stream_deliver(Stream* s) {
  if (!s->notify_armed || (s->items.empty() && !s->ended)) return;
  s->notify_armed = false;
  --needs_pulse_;
  if (s->items.empty()) return deliver(s->notify, nullptr, RAY_COMPLETION_STREAM_END, nullptr);
  Object* o = s->items.front();
  s->items.pop_front();
  stream_ack(s);
  ErrorBox* e = o->state.load() == ObjState::kError ? o->error : nullptr;
  deliver(s->notify, o, RAY_COMPLETION_STREAM_ITEM, e);
  deferred_release_.push_back(o);
  have_deferred_ = true;
}

Status Runtime::stream_next(Stream* s, int64_t timeout_ns, Object** out) {
  auto there = [&] { return !s->items.empty() || s->ended; };
  if (!wait_until(there, timeout_ns))
    return error(RAY_TIMED_OUT, "the next item of generator %s is not ready", s->id.hex().c_str());
  std::lock_guard lock(mutex_);
  if (s->items.empty()) return error(RAY_STREAM_END, "generator %s has ended", s->id.hex().c_str());
  *out = s->items.front();
  s->items.pop_front();
  stream_ack(s);
  return Status();
}

Status Runtime::stream_on_next(Stream* s, const ray_notify& notify) {
  Notification n{notify.queue ? from_handle<Queue>(notify.queue, kHandleQueue) : nullptr, notify.fn,
                 notify.user, notify.tag, notify.flags, nullptr, s};
  if (notify.queue && !n.queue) return error(RAY_INVALID_ARGUMENT, "stale completion queue");
  {
    std::lock_guard lock(mutex_);
    if (s->notify_armed)
      return error(RAY_WRONG_STATE, "generator %s has a notification already", s->id.hex().c_str());
    s->notify = n;
    s->notify_armed = true;
    ++needs_pulse_;
    urgent_work_ = true;
    stream_deliver(s);
  }
  after_unlock();
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
  std::vector<Object*> items;
  {
    std::lock_guard lock(mutex_);
    s->released = true;
    items.assign(s->items.begin(), s->items.end());
    s->items.clear();
    if (s->notify_armed) {
      s->notify_armed = false;
      --needs_pulse_;
    }
    // Who still waits for the task's end wants it to get there; what it makes is dropped as it comes.
    const bool goes_on = s->to_end || (s->completion && s->completion->refs.load() > 1);
    if (!s->task) free_stream(s);  // else its end does
    else if (!goes_on) (void)cancel_task(s->task, 0);
    else for (size_t i = items.size(); i > 0; --i) stream_ack(s);
  }
  for (Object* o : items) release(o);
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
