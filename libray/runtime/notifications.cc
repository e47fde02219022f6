// See notifications.h.
#include "libray/runtime/notifications.h"

#include <unistd.h>

#include <string>
#include <utility>

namespace ray {

static void push(Queue* q, const ray_completion& c) {
  std::lock_guard lock(q->mutex);
  bool was_empty = q->items.empty();
  q->items.push_back(c);
  if (!was_empty) return;
  uint64_t one = 1;
  (void)!::write(q->event.get(), &one, sizeof one);
}

void Queue::wake_pollers() {
  uint64_t one = 1;
  (void)!::write(wake.get(), &one, sizeof one);
}

void Queue::close() {
  std::lock_guard lock(mutex);
  closed = true;
  wake_pollers();
}

ray_error* error_handle(ErrorBox* e) {
  if (!e) return nullptr;
  e->seen.store(true, std::memory_order_relaxed);
  return static_cast<ray_error*>(HandleTable::instance().insert(kHandleError, e->retain()));
}

Status Notifications::read(const ray_notify& notify, Notification* out) const {
  Queue* queue = notify.queue ? from_handle<Queue>(notify.queue, kHandleQueue) : nullptr;
  if (notify.queue && (!queue || queue->runtime != runtime_))
    return error(RAY_INVALID_ARGUMENT, "the completion queue is released, not one, or of another runtime");
  *out = Notification(notify, queue);
  return Status();
}

Status Notifications::check_queue(const Notification& n) const {
  if (!n.queue || queues_.count(n.queue)) return Status();
  return error(RAY_INVALID_ARGUMENT, "the completion queue is being released");
}

bool Notifications::take(uint64_t token, Notification* out) {
  auto it = waiting_.find(token);
  if (it == waiting_.end()) return false;
  *out = it->second;
  waiting_.erase(it);
  return true;
}

bool Notifications::cancel(uint64_t token, Notification* out) {
  if (!take(token, out)) return false;
  if (out->stream) std::erase(out->stream->waiters, token);
  Waiter* none = nullptr;
  for (Waiter** w = out->object ? &out->object->waiters : &none; *w; w = &(*w)->next)
    if (!(*w)->task && (*w)->token == token) {
      Waiter* gone = *w;
      *w = gone->next;
      delete gone;
      break;
    }
  return true;
}

void Notifications::run_inline(const Notification& n, Object* o) {
  ErrorBox* e = o->state.load() == ObjState::kError ? o->error : nullptr;
  ray_completion c{n.tag, e ? e->code : RAY_OK, RAY_COMPLETION_READY, retain_handle(o), error_handle(e), {}};
  const Callbacks* outer = Callbacks::enter(&callbacks_);
  n.fn(&c, n.user);
  n.over();
  Callbacks::enter(outer);
}

// One completion, to a queue or to a callback on the pulse thread.
void Notifications::deliver(const Notification& n, Object* o, uint32_t kind, ErrorBox* e) {
  ray_completion c{n.tag, e ? e->code : RAY_OK, kind, o ? retain_handle(o) : nullptr,
                   error_handle(e), {}};
  if (kind == RAY_COMPLETION_STREAM_END && !e) c.code = RAY_STREAM_END;
  if (n.queue) {
    push(n.queue, c);
    if (!n.free_user) return;
    callbacks_.add([n] { n.over(); });
  } else {
    callbacks_.add([n, c] {
      n.fn(&c, n.user);
      n.over();
    });
  }
  bells_.ring_pulse();
  bells_.ring_own();
}

void Notifications::add_queue(Queue* queue) {
  queues_.insert(queue);
  if (closed_) queue->close();
}

void Notifications::close_queues() {
  closed_ = true;
  for (Queue* q : queues_) q->close();
}

std::vector<uint64_t> Notifications::remove_queue(Queue* queue) {
  std::vector<uint64_t> tokens;
  queues_.erase(queue);
  for (auto& [token, n] : waiting_)
    if (n.queue == queue) tokens.push_back(token);
  return tokens;
}

void Notifications::wake_pollers() {
  for (Queue* q : queues_) q->wake_pollers();
}

std::string Notifications::check() const {
  for (auto& [token, n] : waiting_) {
    if (token >= next_token_) return "a notification has a token that nobody was given";
    if (!n.object == !n.stream) return "a notification waits for nothing, or for two things";
    if (!n.queue == !n.fn) return "a notification goes nowhere, or to two places";
  }
  return "";
}

}  // namespace ray
