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
    if (run_posted()) t = std::chrono::seconds(0);
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
  bool run_posted() {
    std::deque<std::function<void()>> now;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      now.swap(posted_);
    }
    for (auto& f : now) f();
    return !now.empty();
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
void tell(Handle* what, Then then) {
  if (event_loop* loop = t_loop) {
    ray_notify n;
    auto shared = std::make_shared<Then>(std::move(then));
    const uint64_t tag = loop->expect([shared] { (*shared)(); }, &n);
    if (failure f = notify(what, n)) {
      loop->drop(tag);
      raise(std::move(f));
    }
    return;
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
  raise_if(notify(what, n));
  (void)boxed.release();
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
template <class T>
struct stream_awaiter : awaiting<ray_stream> {
  explicit stream_awaiter(stream<T> s) : awaiting<ray_stream>(s.raw()), stream_(std::move(s)) {}
  // What is there is taken at once. Another consumer may be faster: then the item after that is
  // waited for.
  bool await_ready() {
    ray_ref* r = nullptr;
    ray_error* err = nullptr;
    ray_code code = ray_stream_next(what_, 0, &r, &err);
    taken_ = made(code, err);
    item_ = ref<T>(r);
    return code != RAY_TIMED_OUT;
  }
  std::optional<T> await_resume() {
    if (taken_.code() == RAY_TIMED_OUT) return stream_.next();
    if (taken_.code() == RAY_STREAM_END) return std::nullopt;
    raise_if(taken_);
    return item_.get();
  }
  stream<T> stream_;
  failure taken_;
  ref<T> item_;
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
  std::coroutine_handle<> continuation = std::noop_coroutine();
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
      return h.promise().continuation;
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
  async(async&& o) noexcept : h_(std::exchange(o.h_, nullptr)) {}
  async& operator=(async&& o) noexcept { return std::swap(h_, o.h_), *this; }
  ~async() {
    if (h_) h_.destroy();
  }
  /// Runs to the first wait; the rest when it is awaited or by the loop.
  void start() {
    if (!started_ && (started_ = true)) h_.resume();
  }
  bool done() const { return h_.done(); }
  /// Of one that is done: its value, or what it threw.
  T take() { return h_.promise().take(); }

  bool await_ready() const { return h_.done(); }
  std::coroutine_handle<> await_suspend(std::coroutine_handle<> who) {
    h_.promise().continuation = who;
    if (started_) return std::noop_coroutine();
    started_ = true;
    return h_;
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
