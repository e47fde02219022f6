// ray.h sections 1 to 5: version, codes, errors, logging, runtime, ids. See boundary.h.
#include <condition_variable>
#include <utility>

#include "libray/base/fault.h"
#include "libray/base/fork.h"
#include "libray/base/log.h"
#include "libray/capi/boundary.h"
#include "libray/runtime/registry.h"
#include "libray/wire/limits.h"
#include "libray/wire/msgpack.h"

using namespace ray;
using namespace ray::capi;

static_assert(sizeof(ray_id) == sizeof(Id) && RAY_ID_SIZE == kIdSize);

uint32_t ray_api_version(void) { return RAY_API_VERSION; }

const char* ray_build_info(void) {
  return LIBRAY_VERSION " (gcc " __VERSION__ ", " LIBRAY_BUILD
#ifdef LIBRAY_SANITIZED
                        ", sanitized"
#endif
                        ")";
}

const char* ray_code_name(ray_code code) { return code_name(code); }

bool ray_code_is_retryable(ray_code code) {
  return code == RAY_TIMED_OUT || code == RAY_UNAVAILABLE || code == RAY_CONFLICT ||
         code == RAY_ACTOR_RESTARTING || code == RAY_STORE_FULL;
}

ray_code ray_error_code(const ray_error* error) {
  auto* e = from_handle<ErrorBox>(error, kHandleError);
  return e ? e->code : RAY_INVALID_ARGUMENT;
}

ray_str ray_error_message(const ray_error* error) {
  auto* e = from_handle<ErrorBox>(error, kHandleError);
  static const char none[] = "not an error handle";
  if (!e) return {none, sizeof none - 1};
  return {e->message.data(), e->message.size()};
}

ray_bytes ray_error_payload(const ray_error* error, uint32_t* out_format) {
  auto* e = from_handle<ErrorBox>(error, kHandleError);
  if (out_format) *out_format = e ? e->payload_format : 0;
  if (!e || e->payload.empty()) return {nullptr, 0};
  return {e->payload.data(), e->payload.size()};
}

ray_error* ray_error_retain(ray_error* error) {
  return HandleTable::instance().retain(error, kHandleError) ? error : nullptr;
}

void ray_error_release(ray_error* error) {
  if (void* e = HandleTable::instance().release(error, kHandleError))
    static_cast<ErrorBox*>(e)->release();
}

// ---- logging ----------------------------------------------------------------------------------------

namespace {
struct UserLog {
  ray_log_fn fn;
  void* user;
  uint32_t running = 0;  // calls of fn; in a forked child some may be the parent's
  uint32_t generation = fork_generation();
};
struct LogState {
  std::mutex mutex;
  std::condition_variable ended;  // a call of a handler
  std::shared_ptr<UserLog> user;
  LogState() { held_over_forks(&mutex, ForkLock::kOuter); }  // the log's own is taken inside
};
LogState& log_state() {
  static auto* s = new LogState;
  return *s;
}
thread_local UserLog* t_logging = nullptr;

void forward_log(int32_t level, const char* module, const char* msg_id, const char* line, void*) {
  LogState& s = log_state();
  std::shared_ptr<UserLog> u;
  {
    std::lock_guard lock(s.mutex);
    u = s.user;
    if (!u) return;
    ++u->running;
  }
  UserLog* outer = std::exchange(t_logging, u.get());
  auto sized = [](const char* text) { return ray_str{text, std::strlen(text)}; };
  u->fn(level, sized(module), sized(msg_id), sized(line), u->user);
  t_logging = outer;
  std::lock_guard lock(s.mutex);
  if (--u->running == 0) s.ended.notify_all();
}
}  // namespace

void ray_set_log_handler(ray_log_fn fn, int32_t max_level, void* user) {
  (void)guard(nullptr, [&]() -> Status {
    LogState& s = log_state();
    std::shared_ptr<UserLog> now = fn ? std::make_shared<UserLog>(UserLog{fn, user}) : nullptr;
    std::unique_lock lock(s.mutex);
    std::shared_ptr<UserLog> old = std::exchange(s.user, now);
    set_log_handler(fn ? forward_log : nullptr, max_level, nullptr);
    if (old && old.get() != t_logging && old->generation == fork_generation())
      s.ended.wait(lock, [&] { return old->running == 0; });
    return Status();
  });
}

// ---- runtime ----------------------------------------------------------------------------------------

ray_code ray_init(const ray_runtime_options* options, ray_runtime** out, ray_error** err) {
  return guard(err, [&]() -> Status {
    if (!out) return null_argument("out");
    ray_runtime_options o = RAY_RUNTIME_OPTIONS_INIT;
    RAY_TRY(read_options(options, "ray_runtime_options", &o));
    (void)log_state();  // made before a fork can meet it half made
    if (o.language < 0 || o.language >= RAY_LANG_COUNT)
      return error(RAY_INVALID_ARGUMENT, "language %d is none of RAY_LANG_*", o.language);
    if (!(o.num_cpus >= 0 && o.num_cpus <= 1e6))
      return error(RAY_INVALID_ARGUMENT, "num_cpus %g is not between 0 and 1000000", o.num_cpus);
    if (o.gcs_shards > RAY_MAX_SHARDS)
      return error(RAY_INVALID_ARGUMENT, "gcs_shards is at most %d", RAY_MAX_SHARDS);
    std::string checked;
    RAY_TRY(name_arg(o.ns, "ns", &checked));
    RAY_TRY(name_arg(o.job_name, "job_name", &checked));
    RAY_TRY(bytes_arg(o.resources_msgpack, "resources_msgpack", wire::kMaxNodeResources, &checked));
    if (auto r = wire::parse_resources(checked); !r.ok()) return r.status();
    Runtime* rt;
    RAY_TRY(Runtime::start(o, &rt));
    Registry::instance().close();
    rt->self_handle = make_handle_of<ray_runtime>(kHandleRuntime, rt);
    *out = static_cast<ray_runtime*>(rt->self_handle);
    return Status();
  });
}

int32_t ray_runtime_mode(const ray_runtime* runtime) {
  auto* rt = from_handle<Runtime>(runtime, kHandleRuntime);
  return rt ? rt->mode() : -1;
}

ray_str ray_runtime_session_dir(const ray_runtime* runtime) {
  auto* rt = from_handle<Runtime>(runtime, kHandleRuntime);
  if (!rt) return {nullptr, 0};
  return {rt->session_dir().data(), rt->session_dir().size()};
}

static Status language_arg(int32_t language) {
  if (language >= 0 && language < RAY_LANG_COUNT) return Status();
  return error(RAY_INVALID_ARGUMENT, "language %d is none of RAY_LANG_*", language);
}

ray_code ray_worker_code(ray_runtime* runtime, int32_t language, ray_str code, ray_error** err) {
  return guard(err, [&]() -> Status {
    Runtime* rt;
    std::string c;
    RAY_TRY(runtime_of(runtime, &rt));
    RAY_TRY(language_arg(language));
    // A class path may be longer than a name.
    if (!code.data && code.size) return null_argument("code");
    c = text(code);
    if (c.empty()) return error(RAY_INVALID_ARGUMENT, "code is empty: say where the code lies");
    return rt->functions().set_worker_command(language, {}, c);
  });
}

ray_code ray_worker_command(ray_runtime* runtime, int32_t language, const char* const* argv, ray_error** err) {
  return guard(err, [&]() -> Status {
    Runtime* rt;
    RAY_TRY(runtime_of(runtime, &rt));
    RAY_TRY(language_arg(language));
    if (!argv) return null_argument("argv");
    std::vector<std::string> command;
    for (; *argv; ++argv) command.push_back(*argv);
    if (command.empty() || command[0].empty()) return error(RAY_INVALID_ARGUMENT, "argv names no program");
    return rt->functions().set_worker_command(language, command, "");
  });
}

ray_code ray_shutdown(ray_runtime* runtime, int64_t drain_timeout_ns, ray_error** err) {
  return guard(err, [&]() -> Status {
    auto* rt = from_handle<Runtime>(runtime, kHandleRuntime);
    if (!rt) return bad_handle("runtime");
    RAY_TRY(check_timeout(drain_timeout_ns));
    return rt->shutdown(drain_timeout_ns);
  });
}

void ray_runtime_release(ray_runtime* runtime) {
  if (void* p = HandleTable::instance().release(runtime, kHandleRuntime)) {
    // The object stays: other handles may still point to it, in whatever order they are released.
    (void)guard(nullptr, [&]() -> Status {
      auto* rt = static_cast<Runtime*>(p);
      if (rt->foreign()) return Status();
      Runtime::bury(rt);
      return rt->in_callback() ? rt->shutdown_aside() : rt->shutdown(0);
    });
  }
}

void ray_id_to_hex(const ray_id* id, char out[2 * RAY_ID_SIZE + 1]) {
  if (!out) return;
  static const char digits[] = "0123456789abcdef";
  for (size_t i = 0; i < RAY_ID_SIZE; ++i) {
    out[2 * i] = id ? digits[id->b[i] >> 4] : '0';
    out[2 * i + 1] = id ? digits[id->b[i] & 15] : '0';
  }
  out[2 * RAY_ID_SIZE] = 0;
}

ray_code ray_runtime_context(ray_runtime* runtime, ray_context* out, ray_error** err) {
  return guard(err, [&]() -> Status {
    Runtime* rt;
    RAY_TRY(runtime_of(runtime, &rt));
    ray_context c = RAY_CONTEXT_INIT;
    rt->fill_context(&c);
    return write_info(out, "ray_context", c);
  });
}

ray_code ray_on_wait(ray_runtime* runtime, ray_wait_fn fn, void* user, ray_error** err) {
  return guard(err, [&]() -> Status {
    Runtime* rt;
    RAY_TRY(runtime_of(runtime, &rt));
    rt->on_wait(fn ? std::function<bool()>([fn, user] { return fn(user); }) : nullptr);
    return Status();
  });
}

// ---- testing -----------------------------------------------------------------------------------------

extern "C" RAY_API ray_code ray_test_fault(ray_str point, ray_str action, ray_error** err);
extern "C" RAY_API ray_code ray_test_ref_count(ray_ref* ref, uint64_t* out, ray_error** err);

ray_code ray_test_fault(ray_str point, ray_str action, ray_error** err) {
  return guard(err, [&]() -> Status {
    if (!set_fault(text(point), text(action)))
      return error(RAY_INVALID_ARGUMENT, "'%s' is no fault action: kill, stop, delay:5ms or fail, with @N",
                   text(action).c_str());
    return Status();
  });
}

ray_code ray_test_ref_count(ray_ref* ref, uint64_t* out, ray_error** err) {
  return guard(err, [&]() -> Status {
    Object* o;
    RAY_TRY(object_arg(ref, &o));
    if (!out) return null_argument("out");
    *out = o->refs();
    return Status();
  });
}
