// binding.cc -- a small C++ binding over ray.h and nothing else: what a language needs of it can be built from it. Tasks,
// actors, streams, and a completion queue that an event loop polls; handles release themselves, in any order.
#include <poll.h>
#include <ray.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace mini {

// ---- the binding

struct Error : std::runtime_error {
  ray_code code;
  Error(ray_code c, const std::string& text) : std::runtime_error(text), code(c) {}
};

// Runs a call that ends with `&err`.
template <typename Call>
void check(Call call) {
  ray_error* err = nullptr;
  ray_code code = call(&err);
  if (code == RAY_OK) return;
  ray_str text = ray_error_message(err);
  Error error(code, std::string(ray_code_name(code)) + ": " + std::string(text.data, text.size));
  ray_error_release(err);
  throw error;
}

// One count of a handle.
template <typename H, void (*Release)(H*)>
class Handle {
 public:
  Handle() = default;
  explicit Handle(H* h) : h_(h) {}
  Handle(Handle&& o) noexcept : h_(std::exchange(o.h_, nullptr)) {}
  Handle& operator=(Handle&& o) noexcept {
    std::swap(h_, o.h_);
    return *this;
  }
  ~Handle() { Release(h_); }
  H* get() const { return h_; }
  H** out() { return &h_; }

 private:
  H* h_ = nullptr;
};
using Runtime = Handle<ray_runtime, ray_runtime_release>;
using Ref = Handle<ray_ref, ray_ref_release>;
using Function = Handle<ray_function, ray_function_release>;
using Actor = Handle<ray_actor, ray_actor_release>;
using Stream = Handle<ray_stream, ray_stream_release>;
using Queue = Handle<ray_queue, ray_queue_release>;

ray_value value_of(const int64_t& n) { return ray_plain(&n, sizeof n, RAY_FMT_RAW); }
int64_t number_in(const ray_buffer& b) {
  int64_t n = 0;
  if (b.size == sizeof n) std::memcpy(&n, b.data, sizeof n);
  return n;
}
ray_arg arg_of(const int64_t& n) { return {nullptr, value_of(n)}; }
ray_arg arg_of(const Ref& r) {
  ray_arg a = RAY_ARG_INIT;
  a.ref = r.get();
  return a;
}

int64_t get(ray_runtime* rt, const Ref& ref, int64_t timeout_ns = -1) {
  ray_buffer b = RAY_BUFFER_INIT;
  ray_ref* r = ref.get();
  check([&](ray_error** e) { return ray_get(rt, &r, 1, timeout_ns, &b, e); });
  int64_t n = number_in(b);
  ray_buffer_release(&b);
  return n;
}

// A task from any callable: the exception of a function is the error of its task.
using Body = std::function<void(ray_task*)>;
ray_code run(ray_task* task, void* user) {
  try {
    (*static_cast<Body*>(user))(task);
    return RAY_OK;
  } catch (const Error& e) {
    ray_task_fail(task, ray_cstr(e.what()), nullptr);
    return e.code;
  } catch (const std::exception& e) {
    ray_task_fail(task, ray_cstr(e.what()), nullptr);
    return RAY_TASK_FAILED;
  }
}
void give(ray_task* task, int64_t n) {
  ray_value v = value_of(n);
  check([&](ray_error** e) { return ray_task_return(task, 0, &v, e); });
}
int64_t argument(ray_task* task, size_t i) {
  const ray_buffer* args = nullptr;
  return i < ray_task_args(task, &args) ? number_in(args[i]) : throw std::out_of_range("an argument is missing");
}

template <typename... Args>
Ref submit(ray_runtime* rt, const Function& f, const Args&... args) {
  ray_arg list[] = {arg_of(args)..., ray_arg RAY_ARG_INIT};
  Ref r;
  check([&](ray_error** e) { return ray_submit(rt, f.get(), list, sizeof...(args), nullptr, r.out(), e); });
  return r;
}
template <typename... Args>
Ref call(const Actor& a, const char* method, const Args&... args) {
  ray_arg list[] = {arg_of(args)..., ray_arg RAY_ARG_INIT};
  Ref r;
  check([&](ray_error** e) { return ray_actor_call(a.get(), ray_cstr(method), list, sizeof...(args), nullptr, r.out(), e); });
  return r;
}
Function function(ray_runtime* rt, const char* name) {
  Function f;
  check([&](ray_error** e) { return ray_function_get(rt, ray_cstr(name), f.out(), e); });
  return f;
}

// An event loop: one descriptor, any number of pending operations.
class Loop {
 public:
  explicit Loop(ray_runtime* rt) {
    check([&](ray_error** e) { return ray_queue_create(rt, queue_.out(), e); });
  }
  void then(const Ref& ref, std::function<void(ray_code, const Ref&)> f) {
    ray_notify n = RAY_NOTIFY_INIT;
    n.queue = queue_.get();
    n.tag = ++last_;
    check([&](ray_error** e) { return ray_on_ready(ref.get(), &n, nullptr, e); });
    waiting_[n.tag] = std::move(f);
  }
  void run() {
    ray_completion batch[8];
    while (!waiting_.empty()) {
      pollfd p{ray_queue_fd(queue_.get()), POLLIN, 0};
      (void)::poll(&p, 1, -1);
      size_t n = 0;
      ray_code code = ray_queue_poll(queue_.get(), batch, 8, 0, &n, nullptr);
      if (code != RAY_OK && code != RAY_TIMED_OUT) throw Error(code, "the loop has ended");
      for (size_t i = 0; i < n; ++i) {
        Ref ref(batch[i].ref);
        ray_error_release(batch[i].error);
        auto f = std::move(waiting_[batch[i].tag]);
        waiting_.erase(batch[i].tag);
        f(batch[i].code, ref);
      }
    }
  }

 private:
  Queue queue_;
  uint64_t last_ = 0;
  std::map<uint64_t, std::function<void(ray_code, const Ref&)>> waiting_;
};

// ---- a program that uses it

Body square = [](ray_task* t) { give(t, argument(t, 0) * argument(t, 0)); };
Body nested = [](ray_task* t) {  // tasks of tasks
  ray_runtime* rt = ray_task_runtime(t);
  Function f = function(rt, "square");
  int64_t sum = 0;
  for (int64_t i = 0; i < argument(t, 0); ++i) sum += get(rt, submit(rt, f, i));
  give(t, sum);
};
Body fails = [](ray_task*) { throw std::invalid_argument("not today"); };
Body count = [](ray_task* t) {
  for (int64_t i = 0; i < argument(t, 0); ++i) {
    ray_value v = value_of(i);
    check([&](ray_error** e) { return ray_task_yield(t, &v, -1, e); });
  }
};
Body create = [](ray_task* t) {
  check([&](ray_error** e) { return ray_task_set_self(t, new int64_t(argument(t, 0)), e); });
};
Body add = [](ray_task* t) { give(t, *static_cast<int64_t*>(ray_task_self(t)) += argument(t, 0)); };
void destroy(void* self, void*) { delete static_cast<int64_t*>(self); }

void registrations() {
  auto function = [](const char* name, Body& f) {
    check([&](ray_error** e) { return ray_register_function(ray_cstr(name), run, &f, e); });
  };
  function("square", square);
  function("nested", nested);
  function("fails", fails);
  function("count", count);
  check([&](ray_error** e) { return ray_register_actor(ray_cstr("Counter"), run, destroy, &create, e); });
  check([&](ray_error** e) { return ray_register_method(ray_cstr("Counter"), ray_cstr("add"), run, &add, e); });
}

void expect(bool good, const char* what) {
  if (!good) throw std::logic_error(what);
}

void program(ray_runtime* rt) {
  Function f = function(rt, "square");
  Ref two = submit(rt, f, int64_t{2});
  expect(get(rt, submit(rt, f, two)) == 16, "a reference as an argument");
  expect(get(rt, submit(rt, function(rt, "nested"), int64_t{4})) == 14, "tasks of a task");
  try {
    get(rt, submit(rt, function(rt, "fails")));
    expect(false, "a failing task");
  } catch (const Error& e) {
    expect(e.code == RAY_TASK_FAILED && std::strstr(e.what(), "not today"), "the message of a failing task");
  }
  int64_t ten = 10;
  ray_arg start = arg_of(ten);
  Actor counter;
  Function klass = function(rt, "Counter");
  check([&](ray_error** e) { return ray_actor_create(rt, klass.get(), &start, 1, nullptr, counter.out(), e); });
  call(counter, "add", int64_t{1});
  expect(get(rt, call(counter, "add", int64_t{2})) == 13, "the state of an actor");
  Stream items;
  check([&](ray_error** e) {
    return ray_submit_stream(rt, function(rt, "count").get(), &start, 1, nullptr, items.out(), e);
  });
  int64_t sum = 0;
  for (Ref item; ray_stream_next(items.get(), -1, item.out(), nullptr) == RAY_OK; item = Ref()) sum += get(rt, item);
  expect(sum == 45, "the items of a stream");
  Loop loop(rt);
  sum = 0;
  for (int64_t i = 0; i < 100; ++i)
    loop.then(submit(rt, f, i), [&](ray_code code, const Ref& r) { sum += code == RAY_OK ? get(rt, r, 0) : -1; });
  loop.run();
  expect(sum == 328350, "what a loop was told");
}

}  // namespace mini

int main() {
  try {
    mini::registrations();
    mini::Runtime rt;
    ray_runtime_options o = RAY_RUNTIME_OPTIONS_INIT;
    o.num_cpus = 2;
    o.store_bytes = 64 << 20;
    mini::check([&](ray_error** e) { return ray_init(&o, rt.out(), e); });
    if (ray_runtime_mode(rt.get()) == RAY_MODE_WORKER) return ray_worker_run(rt.get(), nullptr) != RAY_OK;
    mini::program(rt.get());
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s\n0 passed, 1 failed, 0 skipped\n", e.what());
    return 1;
  }
  std::printf("1 passed, 0 failed, 0 skipped\n");
  return 0;
}
