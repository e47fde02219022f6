// Notifications: who is told, once, that something is there, by a completion in a queue or by a callback; and the queues that
// the program has. Each notification has a token, by which an object (Object::waiters) or a stream (Stream::waiters) names it.
//
// Who: wait.cc when a program asks, results.cc when an object is complete, Streams. Threads: any; the caller holds Runtime's
// mutex but where a call says otherwise. A Queue has a mutex of its own, taken below that one: it is emptied without it.
//
// Invariants: (1) a token is used once; (2) a notification is taken out exactly once, by its delivery or its cancellation,
// and whoever takes it ends what it held: `object` is released, `over()` called; (3) as long as there is one, the pulse
// thread sleeps on the doorbell (size()); (4) a queue that is not among ours gets nothing more.
#pragma once
#include <cstdint>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "libray/runtime/bells.h"
#include "libray/runtime/callbacks.h"
#include "libray/runtime/types.h"

namespace ray {

class Notifications {
 public:
  Notifications(Runtime* runtime, Callbacks& callbacks, Bells& bells)
      : runtime_(runtime), callbacks_(callbacks), bells_(bells) {}

  // From what the program gave; without the mutex. Of a queue of this runtime, or none.
  Status read(const ray_notify& notify, Notification* out) const;
  Status check_queue(const Notification& n) const;  // whether its queue is still there
  uint64_t next_token() { return next_token_++; }
  void add(uint64_t token, const Notification& n) { waiting_[token] = n; }
  bool take(uint64_t token, Notification* out);
  // The same, and neither object nor stream names it any more.
  bool cancel(uint64_t token, Notification* out);
  // One completion, to a queue or to a callback on the pulse thread.
  void deliver(const Notification& n, Object* o, uint32_t kind, ErrorBox* e);
  // Of an object that is there, by the calling thread; without the mutex.
  void run_inline(const Notification& n, Object* o);
  size_t size() const { return waiting_.size(); }
  template <class F>
  void for_each(F&& f) const {
    for (const auto& [token, n] : waiting_) f(n);
  }

  void add_queue(Queue* queue);
  // It gets nothing more, and is still the caller's to delete; these were to go there.
  std::vector<uint64_t> remove_queue(Queue* queue);
  void close_queues();
  void wake_pollers();
  std::string check() const;  // what is wrong, empty: nothing

 private:
  Runtime* const runtime_;
  Callbacks& callbacks_;
  Bells& bells_;
  std::unordered_map<uint64_t, Notification> waiting_;
  std::unordered_set<Queue*> queues_;
  bool closed_ = false;  // queues that come from now on are closed at once
  uint64_t next_token_ = 1;
};

ray_error* error_handle(ErrorBox* e);  // a new handle, or NULL
Status queue_poll(Queue* q, ray_completion* out, size_t max, int64_t timeout_ns, size_t* n);

}  // namespace ray
