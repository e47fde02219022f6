// ray.h section 12: being a worker. See boundary.h.
#include "libray/capi/boundary.h"
#include "libray/runtime/registry.h"

using namespace ray;
using namespace ray::capi;

ray_code ray_register_function(ray_str name, ray_task_fn fn, void* user, ray_error** err) {
  return guard(err, [&]() -> Status {
    RAY_TRY(Registry::instance().open());
    std::string n;
    RAY_TRY(name_arg(name, "the name of a function", &n));
    if (n.empty() || !fn) return error(RAY_INVALID_ARGUMENT, "a function needs a name and an address");
    return Registry::instance().add_function(n, {fn, user});
  });
}

ray_code ray_register_actor(ray_str klass, ray_task_fn create, void (*destroy)(void*, void*),
                            void* user, ray_error** err) {
  return guard(err, [&]() -> Status {
    RAY_TRY(Registry::instance().open());
    std::string n;
    RAY_TRY(name_arg(klass, "the name of a class", &n));
    if (n.empty() || !create) return error(RAY_INVALID_ARGUMENT, "a class needs a name and a constructor");
    return Registry::instance().add_class(n, {create, user}, destroy);
  });
}

ray_code ray_register_method(ray_str klass, ray_str method, ray_task_fn fn, void* user,
                             ray_error** err) {
  return guard(err, [&]() -> Status {
    RAY_TRY(Registry::instance().open());
    std::string k, m;
    RAY_TRY(name_arg(klass, "the name of a class", &k));
    RAY_TRY(name_arg(method, "the name of a method", &m));
    if (m.empty() || !fn) return error(RAY_INVALID_ARGUMENT, "a method needs a name and an address");
    return Registry::instance().add_method(k, m, {fn, user});
  });
}

// The worker side of a runtime; unlike elsewhere a dead node is no error: the loop must end in order.
static Status side_of(const ray_runtime* runtime, WorkerSide** out) {
  auto* rt = from_handle<Runtime>(runtime, kHandleRuntime);
  if (!rt) return bad_handle("runtime");
  if (rt->foreign()) return rt->usable();
  if (!rt->worker()) return error(RAY_WRONG_STATE, "this process is a driver, not a worker");
  *out = rt->worker();
  return Status();
}

ray_code ray_worker_run(ray_runtime* runtime, ray_error** err) {
  return guard(err, [&]() -> Status {
    WorkerSide* w;
    RAY_TRY(side_of(runtime, &w));
    return w->run();
  });
}

ray_code ray_worker_next(ray_runtime* runtime, int64_t timeout_ns, ray_task** out, ray_error** err) {
  return guard(err, [&]() -> Status {
    WorkerSide* w;
    RAY_TRY(side_of(runtime, &w));
    RAY_TRY(check_timeout(timeout_ns));
    if (!out) return null_argument("out");
    Execution* e;
    RAY_TRY(w->next(timeout_ns, &e));
    *out = static_cast<ray_task*>(e->handle);
    return Status();
  });
}

ray_code ray_worker_set_groups(ray_runtime* runtime, const uint32_t* limits, size_t n_groups,
                               ray_error** err) {
  return guard(err, [&]() -> Status {
    WorkerSide* w;
    RAY_TRY(side_of(runtime, &w));
    if (!limits) return null_argument("limits");
    return w->set_groups(limits, n_groups);
  });
}

ray_code ray_worker_limit_streams(ray_runtime* runtime, uint32_t items, ray_error** err) {
  return guard(err, [&]() -> Status {
    WorkerSide* w;
    RAY_TRY(side_of(runtime, &w));
    return w->limit_streams(items);
  });
}

ray_code ray_worker_next_in(ray_runtime* runtime, uint32_t group, int64_t timeout_ns, ray_task** out,
                            ray_error** err) {
  return guard(err, [&]() -> Status {
    WorkerSide* w;
    RAY_TRY(side_of(runtime, &w));
    RAY_TRY(check_timeout(timeout_ns));
    if (!out) return null_argument("out");
    if (group != 0 && group >= w->n_groups())
      return error(RAY_INVALID_ARGUMENT, "concurrency group %u of %zu does not exist", group, w->n_groups());
    Execution* e;
    RAY_TRY(w->next(timeout_ns, &e, group));
    *out = static_cast<ray_task*>(e->handle);
    return Status();
  });
}

int ray_worker_group_fd(ray_runtime* runtime, uint32_t group) {
  WorkerSide* w;
  return side_of(runtime, &w).ok() ? w->event_fd(group) : -1;
}

ray_code ray_worker_poll(ray_runtime* runtime, uint32_t group, int64_t timeout_ns, int wake_fd) {
  WorkerSide* w;
  Status s = side_of(runtime, &w);
  return s.ok() ? w->poll(group, timeout_ns, wake_fd).code() : s.code();
}

ray_code ray_worker_exit(ray_runtime* runtime, ray_str why, ray_error** err) {
  return guard(err, [&]() -> Status {
    WorkerSide* w;
    RAY_TRY(side_of(runtime, &w));
    return w->exit_actor(text(why));
  });
}

ray_code ray_worker_actor(ray_runtime* runtime, ray_actor** out, ray_error** err) {
  return guard(err, [&]() -> Status {
    WorkerSide* w;
    RAY_TRY(side_of(runtime, &w));
    if (!out) return null_argument("out");
    Actor* a;
    RAY_TRY(w->self_actor(&a));
    *out = make_handle_of<ray_actor>(kHandleWeakActor, a);
    return Status();
  });
}

ray_code ray_worker_enter(ray_runtime* runtime, ray_task* task, ray_error** err) {
  return guard(err, [&]() -> Status {
    WorkerSide* w;
    RAY_TRY(side_of(runtime, &w));
    if (!task) {
      w->enter(nullptr);
      return Status();
    }
    Execution* e;
    RAY_TRY(execution_of(task, &e));
    w->enter(e);
    return Status();
  });
}

int ray_worker_fd(ray_runtime* runtime) {
  WorkerSide* w;
  return side_of(runtime, &w).ok() ? w->event_fd() : -1;
}

// No errors are made here, and so no memory taken: it may be called in a signal handler.
void ray_worker_stop(ray_runtime* runtime) {
  auto* rt = from_handle<Runtime>(runtime, kHandleRuntime);
  if (rt && !rt->foreign() && rt->worker()) rt->worker()->request_stop();
}

ray_code ray_worker_on_interrupt(ray_runtime* runtime, ray_interrupt_fn fn, void* user,
                                 ray_error** err) {
  return guard(err, [&]() -> Status {
    WorkerSide* w;
    RAY_TRY(side_of(runtime, &w));
    w->set_interrupt(fn, user);
    return Status();
  });
}

// ---- one execution -------------------------------------------------------------------------------------

static ray_id id_of(const Id& id) {
  ray_id out;
  std::memcpy(out.b, id.b, kIdSize);
  return out;
}

ray_runtime* ray_task_runtime(const ray_task* task) {
  Execution* e;
  return execution_of(task, &e).ok() ? static_cast<ray_runtime*>(e->side->runtime()->self_handle) : nullptr;
}

ray_code ray_task_get_info(const ray_task* task, ray_task_info* out) {
  return guard(nullptr, [&]() -> Status {
    Execution* e;
    RAY_TRY(execution_of(task, &e));
    const wire::TaskHeader& h = e->header;
    ray_task_info info = RAY_TASK_INFO_INIT;
    info.id = id_of(h.task);
    info.parent = id_of(h.parent);
    info.job = id_of(e->side->job());
    info.actor = id_of(h.actor);
    const std::string& f = e->side->function_name(e);
    info.function = {f.data(), f.size()};
    info.method = {e->method.data(), e->method.size()};
    info.name = e->name.empty() ? info.function : ray_str{e->name.data(), e->name.size()};
    info.function_key = h.kind == RAY_KIND_ACTOR_CALL ? e->side->class_key() : h.function;
    info.kind = h.kind;
    info.attempt = h.attempt + 1;
    info.num_returns = h.n_returns;
    info.is_stream = h.stream_window > 0;
    info.has_gpus = e->n_gpus > 0 && h.kind != RAY_KIND_ACTOR_CALL;
    info.caller_language = static_cast<int32_t>(h.flags >> wire::kCallerShift & 0xff);
    info.max_concurrency = h.kind == RAY_KIND_ACTOR_CREATE ? e->side->max_concurrency() : 0;
    return write_info(out, "ray_task_info", info);
  });
}

size_t ray_task_accelerators(const ray_task* task, ray_str resource, uint32_t* ids, size_t capacity) {
  size_t n = 0;
  (void)guard(nullptr, [&]() -> Status {
    Execution* e;
    std::string name;
    RAY_TRY(execution_of(task, &e));
    RAY_TRY(name_arg(resource, "resource", &name));
    for (uint32_t kind = 0; kind < std::size(wire::kAccelerators) && (ids || !capacity); ++kind)
      if (name == wire::kAccelerators[kind]) n = e->side->accelerators_of(e, kind, ids, capacity);
    return Status();
  });
  return n;
}

size_t ray_task_gpus(const ray_task* task, uint32_t* ids, size_t capacity) {
  return ray_task_accelerators(task, ray_cstr("GPU"), ids, capacity);
}

size_t ray_task_args(ray_task* task, const ray_buffer** out) {
  Execution* e;
  if (!execution_of(task, &e).ok()) return 0;
  if (out) *out = e->args.data();
  return e->args.size();
}

ray_code ray_task_take_arg(ray_task* task, size_t index, ray_buffer* out, ray_error** err) {
  return guard(err, [&]() -> Status {
    Execution* e;
    RAY_TRY(execution_of(task, &e));
    if (!out) return null_argument("out");
    return e->side->take_arg(e, index, out);
  });
}

ray_code ray_task_definition(ray_task* task, ray_buffer* out, ray_error** err) {
  return guard(err, [&]() -> Status {
    Execution* e;
    RAY_TRY(execution_of(task, &e));
    if (!out) return null_argument("out");
    RAY_TRY(e->side->definition(e));
    *out = RAY_BUFFER_INIT;
    auto* s = new std::string(e->definition.definition);
    out->data = s->data();
    out->size = s->size();
    out->private_data = s;
    out->release = [](ray_buffer* b) {
      b->release = nullptr;
      delete static_cast<std::string*>(b->private_data);
    };
    return Status();
  });
}

ray_code ray_task_return(ray_task* task, uint32_t index, const ray_value* value, ray_error** err) {
  return guard(err, [&]() -> Status {
    Execution* e;
    RAY_TRY(execution_of(task, &e));
    RAY_TRY(value_arg(value, "value"));
    return e->side->set_result(e, index, *value);
  });
}

ray_code ray_task_return_error(ray_task* task, uint32_t index, ray_code code, ray_str message,
                               const ray_value* payload, ray_error** err) {
  return guard(err, [&]() -> Status {
    Execution* e;
    RAY_TRY(execution_of(task, &e));
    RAY_TRY(error_arg(code));
    RAY_TRY(payload_arg(payload));
    return e->side->set_error_result(e, index, code, text(message), payload);
  });
}

ray_code ray_task_await_room(ray_task* task, int64_t timeout_ns, ray_error** err) {
  return guard(err, [&]() -> Status {
    Execution* e;
    RAY_TRY(execution_of(task, &e));
    RAY_TRY(check_timeout(timeout_ns));
    return e->side->await_room(e, timeout_ns);
  });
}

ray_code ray_task_no_retry(ray_task* task) {
  return guard(nullptr, [&]() -> Status {
    Execution* e;
    RAY_TRY(execution_of(task, &e));
    e->no_retry = true;
    return Status();
  });
}

ray_code ray_task_yield(ray_task* task, const ray_value* value, int64_t timeout_ns, ray_error** err) {
  return guard(err, [&]() -> Status {
    Execution* e;
    RAY_TRY(execution_of(task, &e));
    RAY_TRY(value_arg(value, "value"));
    RAY_TRY(check_timeout(timeout_ns));
    return e->side->yield(e, *value, timeout_ns);
  });
}

bool ray_task_is_cancelled(const ray_task* task) {
  auto* e = from_handle<Execution>(task, kHandleTask);
  return e && e->cancelled.load(std::memory_order_relaxed);
}

void* ray_task_self(const ray_task* task) {
  Execution* e;
  return execution_of(task, &e).ok() ? e->side->self() : nullptr;
}

ray_code ray_task_set_self(ray_task* task, void* self, ray_error** err) {
  return guard(err, [&]() -> Status {
    Execution* e;
    RAY_TRY(execution_of(task, &e));
    if (e->header.kind == RAY_KIND_TASK)
      return error(RAY_WRONG_STATE, "this task does not belong to an actor");
    e->side->set_self(self);
    return Status();
  });
}

ray_code ray_task_fail(ray_task* task, ray_str message, const ray_value* payload) {
  return guard(nullptr, [&]() -> Status {
    Execution* e;
    RAY_TRY(execution_of(task, &e));
    RAY_TRY(payload_arg(payload));
    e->side->fail(e, text(message), payload);
    return Status();
  });
}

ray_code ray_task_finish(ray_task* task, ray_code code) {
  return guard(nullptr, [&]() -> Status {
    Execution* e;
    RAY_TRY(execution_of(task, &e));
    if (e->registered)
      return error(RAY_WRONG_STATE, "a registered function ends its task by returning");
    return e->side->finish(e, code);
  });
}
