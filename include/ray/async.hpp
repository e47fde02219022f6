// async.hpp -- part of ray.hpp: being told instead of waiting. `co_await ref`, `co_await stream`,
// ref.then(f), and an event loop over one completion queue: any number of pending operations, one
// descriptor, no thread for each.
//
// Where a continuation runs: on the event loop that runs on the thread that asked, else on a thread
// of the runtime, where it must not block. Thread: an event_loop belongs to the thread that runs
// it; post and stop may be called from any.
#pragma once
#include <deque>
#include <unordered_map>

#include "actors.hpp"

namespace ray {

class event_loop;
namespace detail {
inline thread_local event_loop* t_loop = nullptr;
}

/// Runs continuations as their references become ready. `fd` and `poll` let another loop (epoll,
/// asio) drive it.
class event_loop {
 public:
  event_loop() {
    detail::raise_if(
        detail::with_runtime([&](ray_runtime* rt, ray_error** err) { return ray_queue_create(rt, &queue_, err); }));
  }
  event_loop(const event_loop&) = delete;
  event_loop& operator=(const event_loop&) = delete;
  ~event_loop() { ray_queue_release(queue_); }

  /// Readable when poll() has something to do because of a reference or a stream.
  int fd() const noexcept { return ray_queue_fd(queue_); }
  /// Runs `f` on the loop's thread. Any thread.
  void post(std::function<void()> f) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      posted_.push_back(std::move(f));
    }
    ray_queue_wake(queue_);
  }
  /// Makes run() return. Any thread.
  void stop() {
    stopped_ = true;
    ray_queue_wake(queue_);
  }
  /// Runs until stop(), or until nothing is pending that could wake it.
  void run() {
    stopped_ = false;
    while (!stopped_ && busy()) poll(forever);
  }
  /// Runs what is ready now, waiting up to `t` for the first.
  void poll(timeout t = std::chrono::seconds(0)) {
    detail::scoped<event_loop> scope(detail::t_loop, this);
    if (run_posted() || !ready_.empty()) t = std::chrono::seconds(0);
    ray_completion batch[32];
    size_t n = 0;
    ray_error* err = nullptr;
    ray_code code = ray_queue_poll(queue_, batch, std::size(batch), t.ns, &n, &err);
    failure f = detail::made(code, err);
    if (f && code != RAY_TIMED_OUT) detail::raise(std::move(f));
    for (size_t i = 0; i < n; ++i) {
      ray_ref_release(batch[i].ref);
      ray_error_release(batch[i].error);
      ready_.push_back(batch[i].tag);
    }
    // One that throws leaves the others to the next poll.
    while (!ready_.empty()) {
      const uint64_t tag = ready_.front();
      ready_.pop_front();
      if (auto it = waiting_.find(tag); it != waiting_.end()) {
        std::function<void()> then = std::move(it->second);
        waiting_.erase(it);
        then();
      }
    }
    run_posted();
  }
  /// Whether something is pending.
  bool busy() {
    std::lock_guard<std::mutex> lock(mutex_);
    return !waiting_.empty() || !posted_.empty() || !ready_.empty();
  }

  // For continuations: a notification that goes to this queue under a tag of its own; dropped ones
  // are never run.
  uint64_t expect(std::function<void()> then, ray_notify* n) {
    *n = ray_notify RAY_NOTIFY_INIT;
    n->queue = queue_;
    n->tag = ++last_;
    waiting_.emplace(last_, std::move(then));
    return last_;
  }
  void drop(uint64_t tag) { waiting_.erase(tag); }

 private:
  // What was posted before; what it posts itself is for the next time. One that throws leaves the others to the next poll.
  bool run_posted() {
    size_t n = 0;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      n = posted_.size();
    }
    for (size_t i = 0; i < n; ++i) {
      std::function<void()> f;
      {
        std::lock_guard<std::mutex> lock(mutex_);
        f = std::move(posted_.front());
        posted_.pop_front();
      }
      f();
    }
    return n != 0;
  }
  ray_queue* queue_ = nullptr;
  uint64_t last_ = 0;
  std::unordered_map<uint64_t, std::function<void()>> waiting_;
  std::deque<uint64_t> ready_;
  std::mutex mutex_;
  std::deque<std::function<void()>> posted_;
  std::atomic<bool> stopped_{false};
};

namespace detail {

inline failure notify(ray_ref* ref, const ray_notify& n) {
  ray_error* err = nullptr;
  ray_code code = ray_on_ready(ref, &n, nullptr, &err);
  return made(code, err);
}
inline failure notify(ray_stream* stream, const ray_notify& n) {
  ray_error* err = nullptr;
  ray_code code = ray_stream_on_next(stream, &n, nullptr, &err);
  return made(code, err);
}
// Calls `then` once when `what` is ready.
template <class Handle, class Then>
failure try_tell(Handle* what, Then then) {
  if (event_loop* loop = t_loop) {
    ray_notify n;
    auto shared = std::make_shared<Then>(std::move(then));
    const uint64_t tag = loop->expect([shared] { (*shared)(); }, &n);
    failure f = notify(what, n);
    if (f) loop->drop(tag);
    return f;
  }
  ray_notify n = RAY_NOTIFY_INIT;
  auto boxed = std::make_unique<Then>(std::move(then));
  n.user = boxed.get();
  n.free_user = [](void* user) { delete static_cast<Then*>(user); };
  n.fn = [](const ray_completion* c, void* user) {
    ray_ref_release(c->ref);
    ray_error_release(c->error);
    RAY_TRY_BLOCK { (*static_cast<Then*>(user))(); }
    RAY_CATCH(...) { std::fprintf(stderr, "ray: a continuation threw on a thread of the runtime: it is lost\n"); }
  };
  failure f = notify(what, n);
  if (!f) (void)boxed.release();
  return f;
}
template <class Handle, class Then>
void tell(Handle* what, Then then) {
  raise_if(try_tell(what, std::move(then)));
}
template <class Then>
void when_ready(ray_ref* ref, Then then) {
  tell(ref, std::move(then));
}

#if defined(RAY_HAS_COROUTINES)
// Whether the coroutine that waits is still there: it may be destroyed before it is resumed.
struct resumption {
  std::coroutine_handle<> who;
  std::atomic<bool> gone{false};
};
template <class Handle>
class awaiting {
 public:
  explicit awaiting(Handle* what) : what_(what) {}
  awaiting(const awaiting&) = delete;
  awaiting& operator=(const awaiting&) = delete;
  ~awaiting() {
    if (state_) state_->gone = true;
  }
  void await_suspend(std::coroutine_handle<> who) {
    state_ = std::make_shared<resumption>();
    state_->who = who;
    tell(what_, [state = state_] {
      if (!state->gone.exchange(true)) state->who.resume();
    });
  }

 protected:
  Handle* what_;

 private:
  std::shared_ptr<resumption> state_;
};
template <class T>
struct ref_awaiter : awaiting<ray_ref> {
  explicit ref_awaiter(ref<T> r) : awaiting<ray_ref>(r.raw()), ref_(std::move(r)) {}
  bool await_ready() const { return ref_.ready(); }
  T await_resume() const { return ref_.get(); }
  ref<T> ref_;
};
// What is there is taken at once. Another consumer may be faster: then the coroutine is not resumed but waits for the item
// after that.
template <class T>
class stream_awaiter {
 public:
  explicit stream_awaiter(stream<T> s) : state_(std::make_shared<state>()) { state_->from = std::move(s); }
  stream_awaiter(const stream_awaiter&) = delete;
  stream_awaiter& operator=(const stream_awaiter&) = delete;
  ~stream_awaiter() { state_->gone = true; }
  bool await_ready() { return state_->take(); }
  void await_suspend(std::coroutine_handle<> who) {
    state_->who = who;
    raise_if(wait(state_));
  }
  std::optional<T> await_resume() {
    if (state_->taken.code() == RAY_STREAM_END) return std::nullopt;
    raise_if(state_->taken);
    return state_->item.get();
  }

 private:
  struct state : resumption {
    stream<T> from;
    failure taken;
    ref<T> item;
    bool take() {
      ray_ref* r = nullptr;
      ray_error* err = nullptr;
      ray_code code = ray_stream_next(from.raw(), 0, &r, &err);
      taken = made(code, err);
      item = ref<T>(r);
      return code != RAY_TIMED_OUT;
    }
  };
  static failure wait(const std::shared_ptr<state>& s) {
    return try_tell(s->from.raw(), [s] {
      if (s->gone) return;
      if (!s->take()) {
        failure f = wait(s);
        if (!f) return;
        s->taken = std::move(f);  // the coroutine's to hear
      }
      if (!s->gone.exchange(true)) s->who.resume();
    });
  }
  std::shared_ptr<state> state_;
};
#endif

}  // namespace detail

#if defined(RAY_HAS_COROUTINES)
/// co_await ref: what ref.get() gives or throws, without blocking the thread.
template <class T>
detail::ref_awaiter<T> operator co_await(const ref<T>& r) {
  return detail::ref_awaiter<T>(r);
}
/// co_await stream: the next item; nothing at the end.
template <class T>
detail::stream_awaiter<T> operator co_await(const stream<T>& s) {
  return detail::stream_awaiter<T>(s);
}

/// The result of a coroutine that uses co_await, for programs that have no such type of their own.
/// It starts when it is awaited, or by ray::run or start().
template <class T>
class async;

namespace detail {
template <class T>
struct async_promise_base {
  // Who is to go on after it: nobody yet, the address of a coroutine, or this promise's own once it has ended. It may end
  // on another thread while somebody begins to wait for it.
  std::atomic<void*> continuation{nullptr};
  bool over() const { return continuation.load(std::memory_order_acquire) == this; }
  // False when it has ended.
  bool before(std::coroutine_handle<> who) {
    void* old = continuation.load(std::memory_order_acquire);
    while (old != this && !continuation.compare_exchange_weak(old, who.address(), std::memory_order_acq_rel)) {
    }
    return old != this;
  }
#if defined(RAY_HAS_EXCEPTIONS)
  std::exception_ptr thrown;
  void unhandled_exception() { thrown = std::current_exception(); }
  void rethrow() const {
    if (thrown) std::rethrow_exception(thrown);
  }
#else
  void unhandled_exception() {}
  void rethrow() const {}
#endif
  struct resume_continuation {
    bool await_ready() noexcept { return false; }
    template <class P>
    std::coroutine_handle<> await_suspend(std::coroutine_handle<P> h) noexcept {
      void* who = h.promise().continuation.exchange(&h.promise(), std::memory_order_acq_rel);
      return who ? std::coroutine_handle<>::from_address(who) : std::noop_coroutine();
    }
    void await_resume() noexcept {}
  };
  std::suspend_always initial_suspend() noexcept { return {}; }
  resume_continuation final_suspend() noexcept { return {}; }
};
template <class T>
struct async_promise : async_promise_base<T> {
  std::optional<T> value;
  async<T> get_return_object();
  void return_value(T v) { value.emplace(std::move(v)); }
  T take() { return this->rethrow(), std::move(*value); }
};
template <>
struct async_promise<void> : async_promise_base<void> {
  async<void> get_return_object();
  void return_void() {}
  void take() { this->rethrow(); }
};
}  // namespace detail

template <class T>
class [[nodiscard]] async {
 public:
  using promise_type = detail::async_promise<T>;
  explicit async(std::coroutine_handle<promise_type> h) : h_(h) {}
  async(async&& o) noexcept : h_(std::exchange(o.h_, nullptr)), started_(o.started_) {}
  async& operator=(async&& o) noexcept { return std::swap(h_, o.h_), std::swap(started_, o.started_), *this; }
  ~async() {
    if (h_) h_.destroy();
  }
  /// Runs to the first wait; the rest when it is awaited or by the loop.
  void start() {
    if (!started_ && (started_ = true)) h_.resume();
  }
  bool done() const { return h_.promise().over(); }
  /// Of one that is done: its value, or what it threw.
  T take() { return h_.promise().take(); }

  bool await_ready() const { return done(); }
  std::coroutine_handle<> await_suspend(std::coroutine_handle<> who) {
    const bool started = std::exchange(started_, true);
    const std::coroutine_handle<promise_type> mine = h_;
    if (!mine.promise().before(who)) return who;  // else it may go on elsewhere, and this object with it
    return started ? std::noop_coroutine() : std::coroutine_handle<>(mine);
  }
  T await_resume() { return take(); }

 private:
  std::coroutine_handle<promise_type> h_;
  bool started_ = false;
};

template <class T>
async<T> detail::async_promise<T>::get_return_object() {
  return async<T>(std::coroutine_handle<async_promise<T>>::from_promise(*this));
}
inline async<void> detail::async_promise<void>::get_return_object() {
  return async<void>(std::coroutine_handle<async_promise<void>>::from_promise(*this));
}

/// Runs a coroutine, and all that it awaits, on an event loop of this thread until it is done.
template <class T>
T run(async<T> a) {
  event_loop loop;
  loop.post([&] { a.start(); });
  while (!a.done()) {
    if (!loop.busy())
      detail::raise(
          failure(RAY_WRONG_STATE, "ray::run: the coroutine waits for something that no event of this loop ends"));
    loop.poll(forever);
  }
  return a.take();
}
#endif

}  // namespace ray
