// runtime.hpp -- part of ray.hpp: the runtime of this process, and what is asked of it besides
// tasks: where one stands, the key-value store, placement groups, queries, the log.
//
// A process has one runtime at a time. Its workers are this very program: ray::init in a worker
// serves tasks and does not return. Thread: any; init and shutdown are for one thread.
#pragma once
#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

#include "arrays.hpp"

namespace ray {

/// Languages whose functions and actors can be called by name (ray::function, ray::actor_of_class).
/// Where their code lies says init_options::code: of Python directories with ':' between them, of
/// Java a class path, of Rust and native a program.
enum class language { native = RAY_LANG_NATIVE, python = RAY_LANG_PYTHON, java = RAY_LANG_JAVA, rust = RAY_LANG_RUST };

/// What ray::init starts or joins. All have defaults: ray::init({.num_cpus = 2}).
struct init_options {
  std::string address{};       ///< session directory of a cluster to join; empty: LIBRAY_ADDRESS, else
                               ///< one of our own
  std::string ns{};            ///< namespace of named actors; empty: one of its own
  std::string session_dir{};   ///< parent of the session directory
  double num_cpus = 0;         ///< 0 = the processors that this process may use
  ray::resources resources{};  ///< further resources of the node: {{"GPU", 2}}
  uint64_t store_bytes = 0;    ///< memory of the object store; 0 = 30 % of the machine's
  uint64_t spill_bytes = 0;    ///< disk of the object store; 0 = no limit
  std::string job_name{};
  std::map<ray::language, std::string> code{};  ///< of other languages, for calls of them: see ray::language
  bool serve = true;                            ///< in a worker: run tasks and exit. false: ray::init returns; ask
                                                ///< ray::is_worker, call ray::serve
};

/// An actor's or task's surroundings: variables and the folder of its worker.
struct runtime_env {
  std::map<std::string, std::string> env_vars{};
  std::string working_dir{};
  bool empty() const { return env_vars.empty() && working_dir.empty(); }
};

/// Where something may run: in a bundle of a placement group, or on a node.
struct placement {
  id group{};
  int bundle = -1;  ///< index in the group; -1 = any
  id node{};
  bool soft = false;  ///< another node will do
};

namespace detail {

struct registration {  // a function, class or method that this program offers to workers
  std::string name, place;
  std::string title;  // for errors: "Counter::add"; empty = the name
  failure (*announce)(registration*) = nullptr;
  bool announced = false;
};

struct process_state {
  std::atomic<ray_runtime*> runtime{nullptr};
  std::vector<registration*> registrations;
  std::string first_problem;
  std::mutex mutex;
  bool owns = false;
  ~process_state() {
    if (ray_runtime* rt = owns ? runtime.exchange(nullptr) : nullptr) {
      current.store(nullptr);
      ray_runtime_release(rt);
    }
  }
  inline static std::atomic<uint64_t> epoch{0};              // of the runtime: handles of functions are those of one
  inline static std::atomic<ray_runtime*> current{nullptr};  // the same: one load for those who are in a hurry
};
inline process_state& process() {
  static process_state state;
  return state;
}
inline thread_local ray_task* t_task = nullptr;  // the task that runs on this thread

inline ray_runtime* runtime() { return process_state::current.load(std::memory_order_acquire); }
inline failure not_started() { return failure(RAY_WRONG_STATE, "no runtime: call ray::init first"); }
// A call whose first argument is the runtime and whose last is the error.
template <class Call>
failure with_runtime(Call call) {
  ray_runtime* rt = runtime();
  if (!rt) return not_started();
  ray_error* err = nullptr;
  ray_code code = call(rt, &err);
  return made(code, err);
}
template <class T>
result<T> result_of(failure f, std::optional<T>&& value) {
  if (f) return f;
  return std::move(*value);
}

// Before the first ray::init, or when a shared library is loaded.
inline failure announce_all() {
  process_state& p = process();
  std::lock_guard<std::mutex> lock(p.mutex);
  if (!p.first_problem.empty()) return failure(RAY_ALREADY_EXISTS, p.first_problem);
  for (registration* r : p.registrations)
    if (!r->announced) {
      if (failure f = r->announce(r)) return failure(f.code(), r->place + ": " + r->name + ": " + f.message());
      r->announced = true;
    }
  return {};
}
inline failure check_version() {
  const uint32_t have = ray_api_version(), want = RAY_API_VERSION;
  if (have >> 16 == want >> 16 && (have >> 8 & 0xff) >= (want >> 8 & 0xff)) return {};
  return failure(RAY_UNSUPPORTED, std::string("libray ") + ray_build_info() +
                                      " is loaded; this program was built with the header of " +
                                      std::to_string(want >> 16) + "." + std::to_string(want >> 8 & 0xff));
}
inline void adopt(ray_runtime* rt, bool owned) {
  process_state& p = process();
  p.runtime = rt;
  p.owns = owned;
  ++process_state::epoch;
  process_state::current.store(rt, std::memory_order_release);
}

// Threads of an actor with max_concurrency > 1, besides the one that serves (actors.hpp).
class hands {
 public:
  template <class Body>
  void add(Body body) {
    threads_.emplace_back(std::move(body));
  }
  void join() {
    for (std::thread& t : threads_) t.join();
    threads_.clear();
  }

 private:
  std::vector<std::thread> threads_;
};
inline hands& more_hands() {
  static auto* h = new hands;  // the end of the program does not wait for them
  return *h;
}

}  // namespace detail

/// Serves tasks until the node ends this worker. For programs that start with init_options::serve =
/// false.
inline result<void> serve_result() {
  failure f = detail::with_runtime([](ray_runtime* rt, ray_error** err) { return ray_worker_run(rt, err); });
  detail::more_hands().join();
  return f;
}
inline void serve() { serve_result().value(); }

/// Whether libray started this process as a worker.
inline bool is_worker() { return ray_runtime_mode(detail::runtime()) == RAY_MODE_WORKER; }
/// Whether ray::init was called, and ray::shutdown not yet.
inline bool is_initialized() { return detail::runtime() != nullptr; }

/// Starts or joins a cluster. In a process that libray started as a worker: runs the tasks of
/// RAY_REMOTE and RAY_ACTOR, and exits at the end. What stands before it in main is done by workers
/// too.
inline result<void> init_result(const init_options& o = {}) {
  if (detail::runtime()) return failure(RAY_WRONG_STATE, "ray::init was called already");
  if (failure f = detail::check_version()) return f;
  if (failure f = detail::announce_all()) return f;
  ray_runtime_options raw = RAY_RUNTIME_OPTIONS_INIT;
  detail::bytes_out amounts;
  if (!o.resources.empty()) detail::pack_amounts(amounts, o.resources);
  raw.address = detail::str(o.address);
  raw.ns = detail::str(o.ns);
  raw.session_dir = detail::str(o.session_dir);
  raw.num_cpus = o.num_cpus;
  raw.resources_msgpack = {amounts.data(), amounts.size()};
  raw.store_bytes = o.store_bytes;
  raw.spill_bytes = o.spill_bytes;
  raw.job_name = detail::str(o.job_name);
  ray_runtime* rt = nullptr;
  ray_error* err = nullptr;
  if (ray_code code = ray_init(&raw, &rt, &err)) return failure(code, err);
  const bool worker = ray_runtime_mode(rt) == RAY_MODE_WORKER;
  detail::adopt(rt, !worker);
  for (const auto& [language, code] : o.code)
    if (ray_code failed =
            worker ? RAY_OK : ray_worker_code(rt, static_cast<int32_t>(language), detail::str(code), &err))
      return failure(failed, err);
  if (worker && o.serve) std::exit(serve_result().has_value() ? 0 : 1);
  return {};
}
inline void init(const init_options& options = {}) { init_result(options).value(); }

/// Ends the job, after waiting up to `drain` for submitted tasks. What main did not end, the end of
/// the program does.
inline result<void> shutdown_result(timeout drain = std::chrono::seconds(0)) {
  detail::process_state& p = detail::process();
  ray_runtime* rt = detail::runtime();
  if (!rt) return {};
  ray_error* err = nullptr;
  if (ray_code code = ray_shutdown(rt, drain.ns, &err)) return failure(code, err);
  detail::process_state::current = nullptr;
  p.runtime = nullptr;
  p.owns = false;
  ray_runtime_release(rt);
  return {};
}
inline void shutdown(timeout drain = std::chrono::seconds(0)) { shutdown_result(drain).value(); }

/// ray::init and ray::shutdown as an object: `ray::session session;` in main.
class session {
 public:
  explicit session(const init_options& options = {}) { init(options); }
  session(const session&) = delete;
  session& operator=(const session&) = delete;
  ~session() { (void)shutdown_result(); }
};

/// Directory of this session's logs and journal.
inline std::string session_dir() { return std::string(detail::view(ray_runtime_session_dir(detail::runtime()))); }

/// Where the calling thread stands.
struct runtime_context {
  id job, node, task,
      actor;  ///< task: the one that this thread runs, or the driver's; actor: false in none
  uint32_t pid = 0, worker = 0;
};
inline result<runtime_context> context_result() {
  ray_context c = RAY_CONTEXT_INIT;
  if (failure f =
          detail::with_runtime([&](ray_runtime* rt, ray_error** err) { return ray_runtime_context(rt, &c, err); }))
    return f;
  return runtime_context{{c.job}, {c.node}, {c.task}, {c.actor}, c.pid, c.worker};
}
inline runtime_context context() { return context_result().value(); }

// ---- key-value

/// A value of the key-value store and its version, which only grows.
struct kv_value {
  std::string value;
  uint64_t version = 0;
};
inline constexpr uint64_t kv_any = RAY_KV_ANY;  ///< put and erase whatever version is there

inline result<std::optional<kv_value>> kv_get_result(std::string_view key, std::string_view ns = {}) {
  ray_buffer b = RAY_BUFFER_INIT;
  kv_value out;
  failure f = detail::with_runtime([&](ray_runtime* rt, ray_error** err) {
    return ray_kv_get(rt, detail::str(ns), {key.data(), key.size()}, &b, &out.version, err);
  });
  if (f.code() == RAY_NOT_FOUND) return std::optional<kv_value>();
  if (f) return f;
  out.value.assign(static_cast<const char*>(b.data), b.size);
  ray_buffer_release(&b);
  return std::optional<kv_value>(std::move(out));
}
/// The value of a key, or nothing.
inline std::optional<kv_value> kv_get(std::string_view key, std::string_view ns = {}) {
  return kv_get_result(key, ns).value();
}

inline result<uint64_t> kv_put_result(std::string_view key, std::string_view value, uint64_t expected = kv_any,
                                      std::string_view ns = {}) {
  uint64_t version = 0;
  failure f = detail::with_runtime([&](ray_runtime* rt, ray_error** err) {
    return ray_kv_put(rt, detail::str(ns), {key.data(), key.size()}, {value.data(), value.size()}, expected, &version,
                      err);
  });
  if (f) return f;
  return version;
}
/// Stores a value if the key has version `expected` (0 = does not exist; default: whatever it is),
/// else throws ray::conflict. Returns the new version.
inline uint64_t kv_put(std::string_view key, std::string_view value, uint64_t expected = kv_any,
                       std::string_view ns = {}) {
  return kv_put_result(key, value, expected, ns).value();
}
inline result<void> kv_erase_result(std::string_view key, uint64_t expected = kv_any, std::string_view ns = {}) {
  return detail::with_runtime([&](ray_runtime* rt, ray_error** err) {
    return ray_kv_delete(rt, detail::str(ns), {key.data(), key.size()}, expected, err);
  });
}
/// Deletes a key, under the same condition as kv_put.
inline void kv_erase(std::string_view key, uint64_t expected = kv_any, std::string_view ns = {}) {
  kv_erase_result(key, expected, ns).value();
}

inline result<std::vector<std::string>> kv_list_result(std::string_view prefix, std::string_view ns = {}) {
  ray_buffer b = RAY_BUFFER_INIT;
  failure f = detail::with_runtime([&](ray_runtime* rt, ray_error** err) {
    return ray_kv_list(rt, detail::str(ns), {prefix.data(), prefix.size()}, &b, err);
  });
  if (f) return f;
  std::vector<std::string> out;
  detail::cursor c({static_cast<const char*>(b.data), static_cast<size_t>(b.size)});
  const detail::item head = c.next();
  for (uint64_t i = 0; head.what == detail::kind::array && i < head.number; ++i) out.emplace_back(c.next().bytes);
  ray_buffer_release(&b);
  return out;
}
/// The keys that start with `prefix`.
inline std::vector<std::string> kv_list(std::string_view prefix = {}, std::string_view ns = {}) {
  return kv_list_result(prefix, ns).value();
}

// ---- placement groups

enum class strategy {
  pack = RAY_GROUP_PACK,
  spread = RAY_GROUP_SPREAD,
  strict_pack = RAY_GROUP_STRICT_PACK,
  strict_spread = RAY_GROUP_STRICT_SPREAD
};

struct group_options {
  ray::strategy strategy = ray::strategy::pack;
  std::string name{}, ns{};
  bool detached = false;  ///< stays when its job ends, until it is removed
};

/// Bundles of resources that are reserved together. A plain value: the group ends with its job, or
/// when it is removed.
class placement_group {
 public:
  placement_group() = default;
  explicit placement_group(ray::id id) : id_(id) {}
  ray::id id() const { return id_; }
  /// Waits until the resources are reserved; false when the time was over.
  bool wait(timeout t = forever) const {
    result<void> done = wait_result(t);
    if (done.error().code() == RAY_TIMED_OUT) return false;
    done.value();
    return true;
  }
  result<void> wait_result(timeout t = forever) const {
    return detail::with_runtime(
        [&](ray_runtime* rt, ray_error** err) { return ray_group_wait(rt, &id_.raw, t.ns, err); });
  }
  result<void> remove_result() const {
    return detail::with_runtime([&](ray_runtime* rt, ray_error** err) { return ray_group_remove(rt, &id_.raw, err); });
  }
  /// Kills what runs in the group and gives its resources back.
  void remove() const { remove_result().value(); }
  /// For the options of tasks and actors: in this bundle, or in any.
  placement at(int bundle = -1) const { return placement{id_, bundle, {}, false}; }

 private:
  ray::id id_;
};

inline result<placement_group> make_group_result(const std::vector<resources>& bundles, const group_options& o = {}) {
  detail::bytes_out packed;
  detail::pack_array(packed, bundles.size());
  for (const resources& b : bundles) detail::pack_amounts(packed, b);
  ray_group_options raw = RAY_GROUP_OPTIONS_INIT;
  raw.bundles_msgpack = {packed.data(), packed.size()};
  raw.name = detail::str(o.name);
  raw.ns = detail::str(o.ns);
  raw.strategy = static_cast<int32_t>(o.strategy);
  raw.lifetime = o.detached ? RAY_LIFETIME_DETACHED : RAY_LIFETIME_COUNTED;
  id out;
  if (failure f = detail::with_runtime(
          [&](ray_runtime* rt, ray_error** err) { return ray_group_create(rt, &raw, &out.raw, err); }))
    return f;
  return placement_group(out);
}
/// Asks for a placement group: ray::make_group({{{"CPU", 1}}, {{"CPU", 2}}}). Its resources may
/// come later: wait for it.
inline placement_group make_group(const std::vector<resources>& bundles, const group_options& options = {}) {
  return make_group_result(bundles, options).value();
}

// ---- queries and the log

/// What ray_cluster_query answers, as the bytes of a MessagePack value.
inline result<std::string> query_result(const std::string& what) {
  ray_buffer b = RAY_BUFFER_INIT;
  failure f = detail::with_runtime([&](ray_runtime* rt, ray_error** err) {
    return ray_cluster_query(rt, detail::str(what), RAY_BYTES_INIT, &b, err);
  });
  if (f) return f;
  std::string out(static_cast<const char*>(b.data), b.size);
  ray_buffer_release(&b);
  return out;
}
#if defined(RAY_HAS_EXCEPTIONS)
/// What ray_cluster_query answers, unpacked:
/// ray::query("nodes").get().as<std::vector<std::map<std::string, msgpack::object>>>().
inline msgpack::object_handle query(const std::string& what) {
  const std::string bytes = query_result(what).value();
  return msgpack::unpack(bytes.data(), bytes.size());
}
#endif

enum class log_level { error = RAY_LOG_ERROR, warning = RAY_LOG_WARNING, info = RAY_LOG_INFO, debug = RAY_LOG_DEBUG };
/// module and msg_id are short stable names; the text is for people.
using log_handler =
    std::function<void(log_level, std::string_view module, std::string_view msg_id, std::string_view text)>;
namespace detail {
struct log_entry {
  log_handler handler;
  int running = 0;
};
// Who takes the log. Each call of a handler counts in `running` and holds its entry, so that one that replaces itself, or
// is replaced by another thread meanwhile, is destroyed after its last call.
struct log_state {
  std::mutex mutex;
  std::condition_variable ended;
  std::shared_ptr<log_entry> current;
  log_level most = log_level::warning;
  ray_log_fn fn() const;
};
inline thread_local int t_log_calls = 0;  // handlers that run on this thread, one in the other
inline log_state& the_log() {
  static log_state* state = [] {
    // A forked child finds the lock free, and no thread but its own in a handler.
    (void)pthread_atfork([] { the_log().mutex.lock(); }, [] { the_log().mutex.unlock(); },
                         [] {
                           log_state& log = the_log();
                           if (log.current) log.current->running = std::min(log.current->running, t_log_calls);
                           log.mutex.unlock();
                         });
    return new log_state;  // never destroyed: threads may log during exit
  }();
  return *state;
}

inline void forward_log(int32_t level, ray_str module, ray_str msg_id, ray_str text, void*) {
  log_state& log = the_log();
  std::shared_ptr<log_entry> entry;
  {
    std::lock_guard<std::mutex> lock(log.mutex);
    if (!(entry = log.current)) return;
    ++entry->running;
  }
  ++t_log_calls;
  RAY_TRY_BLOCK { entry->handler(static_cast<log_level>(level), view(module), view(msg_id), view(text)); }
  RAY_CATCH(...) {}  // nothing may be thrown through the runtime
  --t_log_calls;
  std::lock_guard<std::mutex> lock(log.mutex);
  if (--entry->running == 0) log.ended.notify_all();
}
inline ray_log_fn log_state::fn() const { return current ? forward_log : nullptr; }
}  // namespace detail

/// Takes the log of this process, up to `most`; an empty handler gives it back to standard error. Called on any thread.
/// When this returns, the handler before is not running any more and is gone; called from a handler, it does not wait for
/// that, and whoever runs it last destroys it.
inline void set_log_handler(log_handler handler, log_level most = log_level::warning) {
  auto next = handler ? std::make_shared<detail::log_entry>() : nullptr;
  if (next) next->handler = std::move(handler);
  detail::log_state& log = detail::the_log();
  std::unique_lock<std::mutex> lock(log.mutex);
  log.current.swap(next);
  log.most = most;
  // Without the lock, which handlers take: others may come between, and then what they left is told once more.
  ray_log_fn fn = nullptr;
  do {
    fn = log.fn();
    most = log.most;
    lock.unlock();
    ray_set_log_handler(fn, static_cast<int32_t>(most), nullptr);
    lock.lock();
  } while (fn != log.fn() || most != log.most);
  if (next && detail::t_log_calls == 0) log.ended.wait(lock, [&] { return next->running == 0; });
  lock.unlock();  // its destructor may log
}

}  // namespace ray
