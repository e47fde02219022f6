// See unread_errors.h.
#include "libray/runtime/unread_errors.h"

#include "libray/base/clock.h"
#include "libray/base/log.h"
#include "libray/wire/msgpack.h"

namespace ray {

UnreadErrors::~UnreadErrors() {
  for (ErrorBox* e : list_) e->release();
}

void UnreadErrors::excuse(Object* const* objects, size_t n) {
  for (size_t i = 0; i < n; ++i) {
    objects[i]->excused = true;
    if (objects[i]->state.load(std::memory_order_relaxed) == ObjState::kError)
      objects[i]->error->seen.store(true, std::memory_order_relaxed);
  }
}

void UnreadErrors::saw(Object* const* objects, const uint8_t* ready, size_t n) {
  for (size_t i = 0; i < n; ++i)
    if (ready[i] && objects[i]->state.load(std::memory_order_acquire) == ObjState::kError)
      objects[i]->error->seen.store(true, std::memory_order_relaxed);
}

// Failures of the user's code and of its process are told; a task that was cancelled, or an actor that
// ended, is what somebody wanted. Nor is one that another process is to look at.
static bool is_missed(const Object* o) {
  const ray_code code = o->error->code;
  return (code == RAY_TASK_FAILED || code == RAY_WORKER_CRASHED) && !o->borrowed && !o->excused &&
         !o->error->seen.load(std::memory_order_relaxed);
}

// Takes over a reference.
void UnreadErrors::note(ErrorBox* e) {
  e->seen.store(true, std::memory_order_relaxed);
  std::lock_guard lock(mutex_);
  if (list_.size() == kMost) {
    list_.front()->release();
    list_.pop_front();
  }
  list_.push_back(e);
}

void UnreadErrors::freed(Object* o) {
  ErrorBox* e = o->error;
  if (stopped_ || !is_missed(o)) return e->release();
  note(e->retain());
  callbacks_.add_and_ring([e] {
    log(kLogError, "runtime", "unread-error", "nobody looked at this error: %s", e->message.c_str());
    e->release();
  });
}

void UnreadErrors::find_neglected(const Runtime* runtime, uint64_t n_errors) {
  constexpr int64_t kPatienceNs = 5000000000;
  std::lock_guard steady(object_slab().mutex());
  if (n_errors == looked_) return;
  bool later = false;
  Object* o;
  for (uint64_t i = 0; (o = object_slab().at(i)); ++i) {
    if (o->refs() == 0 || o->runtime != runtime) continue;
    if (o->state.load(std::memory_order_acquire) != ObjState::kError || !is_missed(o)) continue;
    if (steady_ns() - o->error->since_ns < kPatienceNs) later = true;
    else note(o->error->retain());
  }
  if (!later) looked_ = n_errors;
}

void UnreadErrors::take(std::string* answer) {
  std::deque<ErrorBox*> list;
  {
    std::lock_guard lock(mutex_);
    list.swap(list_);
  }
  wire::Writer w(answer);
  w.array(static_cast<uint32_t>(list.size()));
  for (ErrorBox* e : list) {
    w.map(4).str("code").int64(e->code).str("message").bin(e->message);
    w.str("format").uint64(e->payload_format).str("payload").bin(e->payload);
    e->release();
  }
}

std::string UnreadErrors::check() {
  std::lock_guard lock(mutex_);
  if (list_.size() > kMost) return "more unread errors are kept than may be";
  for (ErrorBox* e : list_)
    if (!e->seen) return "an unread error would be noted again";
  return "";
}

}  // namespace ray
