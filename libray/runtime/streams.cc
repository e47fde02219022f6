// See streams.h.
#include "libray/runtime/streams.h"

#include <atomic>
#include <cstddef>
#include <string>
#include <utility>

#include "libray/base/fault.h"

namespace ray {

void Streams::add(Stream* s, Object* item) {
  if (s->released) {
    objects_.release_later(item);
    return ack(s);  // a producer that goes on does not wait for room
  }
  s->items.push_back(item);
  deliver(s);
}

void Streams::end(PendingTask* t, ErrorBox* e) {
  Stream* s = t->stream;
  t->stream = nullptr;
  s->task = nullptr;
  s->ended = true;
  if (s->starved)
    s->failure = e = make_error(RAY_OUT_OF_MEMORY, "no memory for an item of generator " + s->id.hex());
  else if (e)
    s->failure = e->retain();
  if (s->completion) complete(s);
  if (e && !s->released) {
    Object* o = RAY_FAULT_FAILS("client.item") ? nullptr : objects_.make(return_object(s->id, s->received++));
    s->untold = !o;
    if (o) {
      user_->failed(o, e);
      s->items.push_back(o);
    }
  }
  deliver(s);
  if (s->unused) free(s);
}

void Streams::complete(Stream* s) {
  Object* o = s->completion;
  if (s->watched) {
    s->completion = nullptr;
    if (!try_retain(o)) {  // it is being freed, and does not ask for its task again
      o->producer = nullptr;
      return;
    }
    objects_.release_later(o);
  }
  user_->ended(o, s->failure);
}

Object* Streams::completion(Stream* s) {
  if (s->completion) return s->completion;
  s->completion = objects_.make(return_object(s->id, kStreamEndIndex));
  if (!s->completion) return nullptr;
  s->completion->producer = s->task;
  if (s->ended) complete(s);
  return s->completion;
}

void Streams::keep_completion(Object* completion) {
  const PendingTask* t = completion->producer;
  if (!t || !t->stream || t->stream->completion != completion || !std::exchange(t->stream->watched, false)) return;
  retain(completion);
}

void Streams::drop_completion(const Object* completion) {
  const PendingTask* t = completion->producer;
  if (!t->stream || !t->stream->watched || t->stream->completion != completion) return;
  t->stream->completion = nullptr;
  t->stream->watched = false;
  callbacks_.add_and_ring([user = user_, tag = uint64_t{t->tag}] { user->unwatched(tag); });
}

// The word lies in the task's record, which stays in the ring until its result was read.
void Streams::ack(Stream* s) {
  ++s->consumed;
  PendingTask* t = s->task;
  if (!t || t->state != TaskState::kPushed) return;
  auto* at = const_cast<uint8_t*>(t->record) + offsetof(wire::TaskHeader, stream_ack);
  std::atomic_ref(*reinterpret_cast<uint32_t*>(at)).store(s->consumed, std::memory_order_release);
  bells_.ring(t->link->peer);
}

// A notification says that there is something to take, and takes nothing: whoever gives up waiting loses
// no item, and those who take items by hand get them in order beside it.
void Streams::deliver(Stream* s) {
  if (__builtin_expect(s->waiters.empty(), 1) || (s->items.empty() && !s->ended && !s->released)) return;
  const uint32_t kind = s->items.empty() ? RAY_COMPLETION_STREAM_END : RAY_COMPLETION_STREAM_ITEM;
  for (uint64_t token : s->waiters) {
    Notification n;
    if (notifications_.take(token, &n)) notifications_.deliver(n, nullptr, kind, nullptr);
  }
  s->waiters.clear();
}

bool Streams::take(Stream* s, Object** out) {
  if (s->items.empty()) return s->ended || s->released;
  *out = s->items.front();
  s->items.pop_front();
  ack(s);
  return true;
}

void Streams::tell(Stream* s, uint64_t token) {
  s->waiters.push_back(token);
  deliver(s);
}

bool Streams::release(Stream* s, std::vector<Object*>* items) {
  s->released = true;
  items->assign(s->items.begin(), s->items.end());
  s->items.clear();
  deliver(s);  // there will be nothing to take
  // Who still waits for the task's end wants it to get there; what it makes is dropped as it comes.
  const bool wanted = s->completion && s->completion->refs() > 1, goes_on = s->to_end || wanted;
  s->watched = s->task && wanted && !s->to_end && !s->completion->shared;
  const bool cancels = s->task && !goes_on;
  for (size_t i = cancels ? 0 : items->size(); i > 0; --i) ack(s);
  if (s->watched) items->push_back(s->completion);
  return cancels;
}

void Streams::unused(Stream* s) {
  s->unused = true;
  if (!s->task) free(s);  // else its end does
}

void Streams::free(Stream* s) {
  if (s->failure) s->failure->release();
  if (s->completion) objects_.release_later(s->completion);
  delete s;
}

}  // namespace ray
