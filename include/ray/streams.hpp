// streams.hpp -- part of ray.hpp: results that come one by one, from both ends, and results that
// are made in shared memory.
//
// A function makes a stream in one of two ways: it takes a `ray::sink<T>` first and gives items to
// it, or it is a coroutine that returns `ray::generator<T>`. The caller has a `ray::stream<T>` in
// both cases. Thread: a sink and a builder are for the task's own thread; a stream for any.
#pragma once
#include <iterator>

#include "functions.hpp"

namespace ray {

/// What a function that makes a stream gives its items to: void count(ray::sink<int> out, int n).
template <class T>
class sink {
 public:
  explicit sink(ray_task* task) : task_(task) {}
  /// Gives an item; waits while the caller has taken none of the last `stream_window` ones. false:
  /// nobody wants more, the function is to return.
  bool yield(const T& item) {
    if (status_) return false;
    status_ = detail::yield_item(task_, item);
    return !status_;
  }
  /// What the last yield failed with.
  const failure& status() const { return status_; }

 private:
  ray_task* task_;
  failure status_;
};

#if defined(RAY_HAS_COROUTINES)
/// A coroutine that makes a stream: ray::generator<int> count(int n) { for (int i = 0; i < n; ++i)
/// co_yield i; }
template <class T>
class generator {
 public:
  struct promise_type {
    const T* item = nullptr;
#if defined(RAY_HAS_EXCEPTIONS)
    std::exception_ptr thrown;
    void unhandled_exception() { thrown = std::current_exception(); }
#else
    void unhandled_exception() {}
#endif
    generator get_return_object() { return generator(std::coroutine_handle<promise_type>::from_promise(*this)); }
    std::suspend_always initial_suspend() noexcept { return {}; }
    std::suspend_always final_suspend() noexcept { return {}; }
    std::suspend_always yield_value(const T& value) noexcept { return item = &value, std::suspend_always(); }
    void return_void() {}
  };
  explicit generator(std::coroutine_handle<promise_type> h) : h_(h) {}
  generator(generator&& o) noexcept : h_(std::exchange(o.h_, nullptr)) {}
  generator& operator=(generator&& o) noexcept { return std::swap(h_, o.h_), *this; }
  ~generator() {
    if (h_) h_.destroy();
  }
  /// Runs to the next item; null at the end.
  const T* next() {
    h_.resume();
#if defined(RAY_HAS_EXCEPTIONS)
    if (h_.promise().thrown) std::rethrow_exception(h_.promise().thrown);
#endif
    return h_.done() ? nullptr : h_.promise().item;
  }

 private:
  std::coroutine_handle<promise_type> h_;
};
#endif

namespace detail {
template <class T>
failure drive(ray_task* task, generator<T> g) {
  for (;;) {  // room first, so that no item is made that nobody has asked for
    ray_error* err = nullptr;
    ray_code code = ray_task_await_room(task, -1, &err);
    if (code != RAY_OK) return made(code, err);
    const T* item = g.next();
    if (!item) return {};
    if (failure f = yield_item(task, *item)) return f;
  }
}
}  // namespace detail

/// The results of a generator task, in order. `for (int x : stream)`, next(), or `co_await stream`
/// (async.hpp).
template <class T>
class stream {
 public:
  stream() = default;
  /// Takes over a count of a stream of ray.h.
  explicit stream(ray_stream* owned) noexcept : h_(owned) {}

  /// The reference of the next item, which is ready; nothing at the end. Throws ray::timed_out.
  std::optional<ref<T>> next_ref(timeout t = forever) const { return next_ref_result(t).value(); }
  result<std::optional<ref<T>>> next_ref_result(timeout t = forever) const {
    ray_ref* r = nullptr;
    ray_error* err = nullptr;
    ray_code code = ray_stream_next(h_.get(), t.ns, &r, &err);
    failure f = detail::made(code, err);
    if (f.code() == RAY_STREAM_END) return std::optional<ref<T>>();
    if (f) return f;
    return std::optional<ref<T>>(ref<T>(r));
  }
  /// The next item; nothing at the end. Throws what the generator failed with, as its last item. `t` is how long to wait for
  /// it; one that has come is read to the end, from the disk too, for nobody else could take it any more.
  std::optional<T> next(timeout t = forever) const {
    std::optional<ref<T>> r = next_ref(t);
    return r ? std::optional<T>(r->get()) : std::nullopt;
  }
  result<std::optional<T>> next_result(timeout t = forever) const {
    result<std::optional<ref<T>>> r = next_ref_result(t);
    if (!r) return r.error();
    if (!*r) return std::optional<T>();
    result<T> value = (*r)->get_result();
    if (!value) return value.error();
    return std::optional<T>(std::move(*value));
  }
  /// Ready when the generator is over: its get throws what it failed with.
  ref<void> completed() const { return completed_result().value(); }
  result<ref<void>> completed_result() const {
    ray_ref* r = nullptr;
    ray_error* err = nullptr;
    ray_code code = ray_stream_completed(h_.get(), &r, &err);
    if (failure f = detail::made(code, err)) return f;
    return ref<void>(r);
  }
  /// Ends the generator.
  void cancel(cancel_options o = {}) const { cancel_result(o).value(); }
  result<void> cancel_result(cancel_options o = {}) const {
    ray_error* err = nullptr;
    ray_code code = ray_stream_cancel(h_.get(), detail::flags_of(o), &err);
    return detail::made(code, err);
  }
  /// Id of the generator's task.
  ray::id id() const { return {ray_stream_id(h_.get())}; }
  ray_stream* raw() const noexcept { return h_.get(); }
  explicit operator bool() const noexcept { return static_cast<bool>(h_); }

  /// One pass over the items that nobody took yet.
  class iterator {
   public:
    using iterator_category = std::input_iterator_tag;
    using iterator_concept = std::input_iterator_tag;
    using value_type = T;
    using difference_type = std::ptrdiff_t;
    using pointer = const T*;
    using reference = const T&;
    iterator() = default;
    explicit iterator(const stream* s) : stream_(s) { ++*this; }
    const T& operator*() const { return *item_; }
    const T* operator->() const { return &*item_; }
    iterator& operator++() {
      item_ = stream_->next();
      return *this;
    }
    void operator++(int) { ++*this; }
    friend bool operator==(const iterator& a, const iterator& b) { return a.item_.has_value() == b.item_.has_value(); }
    friend bool operator!=(const iterator& a, const iterator& b) { return !(a == b); }

   private:
    const stream* stream_ = nullptr;
    std::optional<T> item_;
  };
  iterator begin() const { return iterator(this); }
  iterator end() const { return {}; }

 private:
  detail::stream_ref h_;
};

/// In the constructor of an array_builder: the array is the result of the task that runs.
struct as_result_t {};
inline constexpr as_result_t as_result{};

/// An array that is written straight into shared memory: no copy at all.
///   ray::array_builder<float> b(n);  fill(b.begin(), b.end());  ray::ref<ray::array<float>> r =
///   b.seal();
/// or, as the result of a function:
///   ray::array_builder<float> make(size_t n) { ray::array_builder<float> b(ray::as_result, n);
///   ...; return b; }
template <class T>
class array_builder {
  static_assert(is_raw<T>::value, "ray: elements are numbers, or structs named by RAY_RAW");

 public:
  explicit array_builder(std::vector<size_t> shape) { open(std::move(shape), nullptr); }
  explicit array_builder(size_t n) : array_builder(std::vector<size_t>{n}) {}
  array_builder(as_result_t, std::vector<size_t> shape) {
    if (!detail::t_task) detail::raise(failure(RAY_WRONG_STATE, "ray::as_result outside of a task"));
    open(std::move(shape), detail::t_task);
  }
  array_builder(as_result_t tag, size_t n) : array_builder(tag, std::vector<size_t>{n}) {}
  array_builder(array_builder&& o) noexcept
      : writer_(std::exchange(o.writer_, nullptr)), data_(o.data_), size_(o.size_), for_task_(o.for_task_) {}
  array_builder& operator=(array_builder&&) = delete;
  ~array_builder() {
    if (writer_) (void)ray_writer_abort(writer_);
  }
  T* data() noexcept { return data_; }
  size_t size() const noexcept { return size_; }
  T* begin() noexcept { return data_; }
  T* end() noexcept { return data_ + size_; }
  T& operator[](size_t i) noexcept { return data_[i]; }
#if defined(RAY_HAS_SPAN)
  std::span<T> span() noexcept { return {data_, size_}; }
#endif
  /// Commits the array; the builder has no elements any more.
  ref<array<T>> seal() && { return finish_as_ref(); }
  ref<array<T>> seal() & { return finish_as_ref(); }
  // The end of a task's result: what a function that returns a builder does.
  failure finish() {
    if (!for_task_)
      return failure(RAY_WRONG_STATE, "a function returns an array_builder that was made without ray::as_result");
    ray_error* err = nullptr;
    ray_code code = ray_writer_seal(take_writer(), nullptr, &err);
    return detail::made(code, err);
  }

 private:
  void open(std::vector<size_t> shape, ray_task* task) {
    size_ = 1;
    for (size_t n : shape) size_ *= n;
    detail::encoder e;
    detail::encode_tensor(e, nullptr, size_ * sizeof(T), detail::dtype_of<T>(), shape.data(), shape.size());
    ray_value v = e.view();
    ray_layout at = RAY_LAYOUT_INIT;
    ray_error* err = nullptr;
    for_task_ = task != nullptr;
    if (task) {
      ray_code code = ray_task_return_open(task, 0, &v, &writer_, &at, &err);
      detail::raise_if(detail::made(code, err));
    } else {
      detail::raise_if(detail::with_runtime(
          [&](ray_runtime* rt, ray_error** e2) { return ray_writer_open(rt, &v, &writer_, &at, e2); }));
    }
    std::memcpy(at.data, e.bytes.data(), e.bytes.size());
    data_ = static_cast<T*>(at.oob[0]);
  }
  ref<array<T>> finish_as_ref() {
    ray_ref* r = nullptr;
    ray_error* err = nullptr;
    if (for_task_)
      detail::raise(failure(RAY_WRONG_STATE, "an array_builder made with ray::as_result is returned, not sealed"));
    ray_code code = ray_writer_seal(take_writer(), &r, &err);
    detail::raise_if(detail::made(code, err));
    return ref<array<T>>(r);
  }
  // Others read the memory from now on: it is out of reach.
  ray_writer* take_writer() {
    data_ = nullptr;
    size_ = 0;
    return std::exchange(writer_, nullptr);
  }
  ray_writer* writer_ = nullptr;
  T* data_ = nullptr;
  size_t size_ = 0;
  bool for_task_ = false;
};

}  // namespace ray
