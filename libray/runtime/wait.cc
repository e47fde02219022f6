// Waiting: get, wait, and being told; what is put. See runtime.h.
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <unordered_set>
#include <utility>

#include "libray/runtime/runtime.h"
#include "libray/runtime/runtime_inl.h"
#include "store/apart.h"
#include "store/usage.h"

namespace ray {

bool Runtime::poll(Object* o) {
  if (o->done()) return true;
  {
    std::lock_guard lock(mutex_);
    objects_.resolve(o);
    progress();
  }
  after_unlock(0);
  return o->done();
}

// For whoever waited in vain, perhaps for want of room; empty when there is some.
static std::string store_note(const std::shared_ptr<store::Client>& client) {
  const store::Usage u = client ? store::usage_of(*client) : store::Usage();
  if (u.waiting == 0) return "";
  constexpr double kMiB = 1 << 20;
  return strprintf("; the object store is full: %.1f of %.1f MiB are in use, values that this process holds take %.1f MiB "
                   "of them, and %llu requests wait for room",
                   static_cast<double>(u.used) / kMiB, static_cast<double>(u.capacity) / kMiB,
                   static_cast<double>(store::pinned_lately(*client)) / kMiB, static_cast<unsigned long long>(u.waiting));
}

// What the last slice of a wait has got for that object already: a copy, which a full store leaves to a reader, is there once.
static bool take_same(ray_buffer* kept, const Object* o, ray_buffer* out) {
  if (kept->release != release_view_buffer || static_cast<BufferView*>(kept->private_data)->owner != o) return false;
  *out = *kept;
  kept->release = nullptr;
  return true;
}

Status Runtime::get(Object* const* objects, size_t n, int64_t timeout_ns, ray_buffer* out,
                    ErrorBox** failure) {
  size_t first = 0;
  bool asked = false, failed = false;
  uint64_t errors = 0;
  // One failure is enough: what else hangs is not waited for. mutex_ held.
  auto any_failed = [&] {
    if (errors == n_errors_) return false;
    errors = n_errors_;
    for (size_t i = first; i < n && !failed; ++i)
      failed = objects[i]->state.load(std::memory_order_relaxed) == ObjState::kError;
    return failed;
  };
  auto advance = [&] {
    for (; first < n && objects[first]->done(); ++first)
      failed |= objects[first]->state.load(std::memory_order_relaxed) == ObjState::kError;
    return first == n || failed;
  };
  auto all_there = [&] {
    if (!asked) {
      asked = true;
      for (size_t i = 0; i < n; ++i)
        if (objects[i]->state.load(std::memory_order_relaxed) == ObjState::kUnresolved)
          objects_.resolve(objects[i]);
    }
    return advance() || any_failed();
  };
  const int64_t start = timeout_ns > 0 ? steady_ns() : 0;
  constexpr size_t kMuch = 16;
  auto much = [&] { return n - first >= kMuch; };
  const bool there = advance();
  for (size_t i = first; i < n && !there; ++i)
    if (objects[i]->id.object_index() == kActorIndex)
      return error(RAY_INVALID_ARGUMENT, "object %s %s", objects[i]->id.hex().c_str(), kIsActor);
  if (!there && !wait_until(all_there, timeout_ns, much)) {
    if (timeout_ns != 0) RAY_TRY(wait_ended());
    size_t missing = 0;
    for (size_t i = 0; i < n; ++i) missing += !objects[i]->done();
    const std::string note = timeout_ns ? store_note(objects_.store()) : "";
    return error(RAY_TIMED_OUT, "%zu of %zu objects are not ready%s", missing, n, note.c_str());
  }
  std::vector<ray_buffer> kept;
  if (__builtin_expect(kept_.any(), 0)) kept_.take(&kept);
  size_t i = 0;
  Status s;
  for (; i < n; ++i) {
    if (objects[i]->state.load(std::memory_order_acquire) == ObjState::kError) {
      *failure = objects[i]->error;
      {
        std::lock_guard lock(mutex_);
        UnreadErrors::excuse(objects, n);
      }
      s = Status((*failure)->code);
      break;
    }
    if (failed) continue;  // its error is all that is wanted
    if (i < kept.size() && take_same(&kept[i], objects[i], &out[i])) continue;
    int64_t within = timeout_ns;
    if (timeout_ns > 0 && objects[i]->where == Where::kStore)
      within = std::max<int64_t>(0, timeout_ns - (steady_ns() - start));
    s = objects_.fill_buffer(objects[i], within, &out[i]);
    if (!s.ok()) break;
  }
  if (!failed && s.code() == RAY_TIMED_OUT && timeout_ns > 0) {  // and not an object whose error that is
    s = error(RAY_TIMED_OUT, "%s%s", s.message().c_str(), store_note(objects_.store()).c_str());
    kept_.keep(out, i);
  } else if (!s.ok() && !failed) while (i-- > 0) ray_buffer_release(&out[i]);
  for (ray_buffer& b : kept) ray_buffer_release(&b);
  return s;
}

Status Runtime::wait(Object* const* objects, size_t n, size_t want, int64_t timeout_ns,
                     uint8_t* ready, size_t* n_ready) {
  if (want > n) return error(RAY_INVALID_ARGUMENT, "cannot wait for %zu of %zu objects", want, n);
  {
    std::lock_guard lock(mutex_);
    uint32_t mark = ++wait_mark_;
    if (mark == 0) {  // once around: old marks are forgotten
      Object* o;
      for (uint64_t i = 0; (o = object_slab().at(i)); ++i)
        if (o->runtime == this) o->wait_mark = 0;
      mark = wait_mark_ = 1;
    }
    for (size_t i = 0; i < n; ++i) {
      if (objects[i]->wait_mark == mark)
        return error(RAY_INVALID_ARGUMENT, "object %s is listed twice", objects[i]->id.hex().c_str());
      objects[i]->wait_mark = mark;
    }
  }
  bool asked = false, failures = false;
  auto enough = [&] {
    size_t count = 0;
    for (size_t i = 0; i < n && count < want; ++i) {
      if (!asked) objects_.resolve(objects[i]);
      count += objects[i]->done();
    }
    asked = true;
    failures = n_errors_ > 0;
    return count >= want;
  };
  if (!wait_until(enough, timeout_ns) && timeout_ns != 0) RAY_TRY(wait_ended());
  size_t count = 0, i = 0;
  for (; i < n && count < want; ++i) count += ready[i] = objects[i]->done();
  std::memset(ready + i, 0, n - i);
  if (failures) UnreadErrors::saw(objects, ready, i);
  *n_ready = count;
  return Status();
}

Status Runtime::wait_any(Object* const* objects, size_t n_objects, Stream* const* streams,
                         size_t n_streams, size_t want, int64_t timeout_ns, uint8_t* ready_objects,
                         uint8_t* ready_streams) {
  if (want > n_objects + n_streams)
    return error(RAY_INVALID_ARGUMENT, "cannot wait for %zu of %zu", want, n_objects + n_streams);
  std::unordered_set<const void*> seen(objects, objects + n_objects);
  seen.insert(streams, streams + n_streams);
  if (seen.size() != n_objects + n_streams)
    return error(RAY_INVALID_ARGUMENT, "something is listed twice");
  bool asked = false, failures = false;
  auto enough = [&] {
    size_t count = 0;
    for (size_t i = 0; i < n_objects; ++i) {
      if (!asked) objects_.resolve(objects[i]);
      count += ready_objects[i] = objects[i]->done();
    }
    for (size_t i = 0; i < n_streams; ++i)
      count += ready_streams[i] = !streams[i]->items.empty() || streams[i]->ended || streams[i]->released;
    asked = true;
    failures = n_errors_ > 0;
    return count >= want;
  };
  if (!wait_until(enough, timeout_ns) && timeout_ns != 0) RAY_TRY(wait_ended());
  if (failures) UnreadErrors::saw(objects, ready_objects, n_objects);
  return Status();
}

// ---- values

Status Runtime::put(const ray_value& v, Object** out) {
  RAY_TRY(check_value(v));
  return objects_.put(next_put_id(), v, out);
}

Status Runtime::put_error(ray_code code, const std::string& message, const ray_value* payload, Object** out) {
  Object* o = objects_.make(next_put_id());
  if (!o) return error(RAY_OUT_OF_MEMORY, "no memory for another reference");
  std::string bytes;
  if (payload && payload->size) bytes.assign(static_cast<const char*>(payload->data), payload->size);
  ErrorBox* e = make_error(code, message, payload ? payload->format : 0, std::move(bytes));
  {
    std::lock_guard lock(mutex_);
    complete_error(o, e);
  }
  e->release();
  *out = o;
  return Status();
}

ObjectId Runtime::next_put_id() {
  TaskContext* c = context();
  return nth_put(c->id, c->next_put.fetch_add(1, std::memory_order_relaxed));
}

// ---- for whoever waits for an answer of the daemon

Status Runtime::why_over() {
  if (node_dead()) return error(RAY_NODE_DIED, "%s", death_.c_str());
  if (stopped_) return error(RAY_CANCELLED, "%s", kWasShutDown);
  return cancelled_here() ? waiter_cancelled() : Status();
}

const void* Runtime::sleeps() { return worker_ ? worker_->lend() : nullptr; }

void Runtime::woke(const void* slept) { worker_->take_back(static_cast<const TaskContext*>(slept)); }

// ---- notifications
// ---------------------------------------------------------------------------------------

Status Runtime::on_ready(Object* o, const ray_notify& notify, uint64_t* token) {
  constexpr int kNested = 8;  // callbacks inside callbacks; more go to the pulse thread
  static thread_local int depth = 0;
  Notification n;
  RAY_TRY(notifications_.read(notify, &n));
  n.object = o;
  bool inline_now = false;
  {
    std::lock_guard lock(mutex_);
    if (closed_) return error(RAY_WRONG_STATE, "this runtime was shut down");
    RAY_TRY(notifications_.check_queue(n));
    const uint64_t t = notifications_.next_token();
    if (token) *token = t;
    objects_.resolve(o);
    if (o->done()) {
      inline_now = n.fn && (n.flags & RAY_NOTIFY_MAY_RUN_INLINE) && depth < kNested;
      ErrorBox* e = o->state.load() == ObjState::kError ? o->error : nullptr;
      if (!inline_now) notifications_.deliver(n, o, RAY_COMPLETION_READY, e);
    } else {
      retain(o);
      notifications_.add(t, n);
      o->waiters = new Waiter{o->waiters, nullptr, t};
      urgent_work_ = true;
    }
  }
  if (!inline_now) {
    bells_.ring_pulse();
    return Status();
  }
  ++depth;
  notifications_.run_inline(n, o);
  --depth;
  return Status();
}

Status Runtime::cancel_notify(uint64_t token) {
  Notification n;
  {
    std::lock_guard lock(mutex_);
    if (!notifications_.cancel(token, &n))
      return error(RAY_NOT_FOUND, "notification %lu was delivered or never existed", token);
  }
  if (n.object) objects_.release(n.object);
  n.over();
  return Status();
}

void Runtime::add_queue(Queue* queue) {
  std::lock_guard lock(mutex_);
  notifications_.add_queue(queue);
}

// Nobody polls it any more.
void Runtime::drop_queue(Queue* queue) {
  std::vector<uint64_t> tokens;
  {
    std::lock_guard lock(mutex_);
    tokens = notifications_.remove_queue(queue);
  }
  for (uint64_t t : tokens) (void)cancel_notify(t);
  for (auto& c : queue->items) {
    ray_ref_release(c.ref);
    ray_error_release(c.error);
  }
  delete queue;
}

}  // namespace ray
