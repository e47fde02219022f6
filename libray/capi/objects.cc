// ray.h sections 6 to 8: values, references, waiting. See boundary.h.
#include <sys/eventfd.h>
#include <unistd.h>

#include "libray/capi/boundary.h"

using namespace ray;
using namespace ray::capi;

void ray_buffer_release(ray_buffer* buffer) {
  if (!buffer || !buffer->release) return;
  buffer->release(buffer);
  buffer->release = nullptr;
}

ray_code ray_buffer_ref(const ray_buffer* buffer, uint32_t index, ray_ref** out, ray_error** err) {
  return ray_buffer_refs(buffer, index, 1, out, err);
}

ray_code ray_buffer_refs(const ray_buffer* buffer, uint32_t first, uint32_t n, ray_ref** out,
                         ray_error** err) {
  return guard(err, [&]() -> Status {
    if (!buffer || !out) return null_argument(buffer ? "out" : "buffer");
    uint64_t end = uint64_t{first} + n;
    if (end > buffer->n_refs || (n && buffer->release != release_view_buffer))
      return error(RAY_INVALID_ARGUMENT, "reference %lu: the value contains %u",
                   static_cast<unsigned long>(end ? end - 1 : 0),
                   buffer->release ? buffer->n_refs : 0);
    if (n == 0) return Status();
    auto* view = static_cast<BufferView*>(buffer->private_data);
    RAY_TRY(view->runtime->usable());
    return view->runtime->objects().import_contained(*view, first, n, out);
  });
}

ray_code ray_put(ray_runtime* runtime, const ray_value* value, ray_ref** out, ray_error** err) {
  return guard(err, [&]() -> Status {
    Runtime* rt;
    RAY_TRY(runtime_of(runtime, &rt));
    RAY_TRY(value_arg(value, "value"));
    if (!out) return null_argument("out");
    Object* o;
    RAY_TRY(rt->put(*value, &o));
    *out = o->handle();
    return Status();
  });
}

ray_code ray_put_error(ray_runtime* runtime, ray_code code, ray_str message,
                       const ray_value* payload, ray_ref** out, ray_error** err) {
  return guard(err, [&]() -> Status {
    Runtime* rt;
    RAY_TRY(runtime_of(runtime, &rt));
    if (!out) return null_argument("out");
    RAY_TRY(error_arg(code));
    RAY_TRY(payload_arg(payload));
    Object* o;
    RAY_TRY(rt->put_error(code, text(message), payload, &o));
    *out = hand_out(o);
    return Status();
  });
}

static WriterState* take_writer(ray_writer* writer) {
  return static_cast<WriterState*>(HandleTable::instance().release(writer, kHandleWriter));
}

static void end_writer(WriterState* w) {
  if (w->runtime->foreign()) return delete w;
  if (!w->sealed && w->store) w->store->abort(&w->building);
  for (Object* o : w->contained) w->runtime->objects().release(o);
  delete w;
}

static void give_writer(WriterState* w, ray_writer** out, ray_layout* layout) {
  layout->data = w->data;
  layout->oob = reinterpret_cast<void**>(w->oob.data());
  *out = make_handle_of<ray_writer>(kHandleWriter, w);
}

ray_code ray_writer_open(ray_runtime* runtime, const ray_value* shape, ray_writer** out,
                         ray_layout* layout, ray_error** err) {
  return guard(err, [&]() -> Status {
    Runtime* rt;
    RAY_TRY(runtime_of(runtime, &rt));
    RAY_TRY(value_arg(shape, "shape", true));
    if (!out || !layout) return null_argument("out or layout");
    auto w = std::make_unique<WriterState>();
    store::Interruptible scope(rt->objects().stop_waiting());
    RAY_TRY(w->open(rt, rt->next_put_id(), *shape));
    give_writer(w.release(), out, layout);
    return Status();
  });
}

ray_code ray_writer_seal(ray_writer* writer, ray_ref** out, ray_error** err) {
  return guard(err, [&]() -> Status {
    WriterState* w = take_writer(writer);
    if (!w) return bad_handle("writer");
    Status s = w->runtime->usable();
    Object* o = nullptr;
    if (s.ok() && w->execution) s = w->runtime->worker()->seal_result(w);
    else if (s.ok() && !out) s = null_argument("out");
    else if (s.ok()) s = w->runtime->objects().seal_put(w, &o);
    end_writer(w);
    if (o) *out = hand_out(o);
    return s;
  });
}

ray_code ray_writer_abort(ray_writer* writer) {
  return guard(nullptr, [&]() -> Status {
    WriterState* w = take_writer(writer);
    if (!w) return bad_handle("writer");
    Status s = w->runtime->foreign() ? w->runtime->usable() : Status();
    end_writer(w);
    return s;
  });
}

ray_code ray_task_return_open(ray_task* task, uint32_t index, const ray_value* shape,
                              ray_writer** out, ray_layout* layout, ray_error** err) {
  return guard(err, [&]() -> Status {
    Execution* e;
    RAY_TRY(execution_of(task, &e));
    RAY_TRY(value_arg(shape, "shape", true));
    if (!out || !layout) return null_argument("out or layout");
    auto w = std::make_unique<WriterState>();
    RAY_TRY(e->side->open_result(e, index, *shape, w.get()));
    give_writer(w.release(), out, layout);
    return Status();
  });
}

// ---- references -------------------------------------------------------------------------------------

ray_ref* ray_ref_retain(ray_ref* ref) {
  Object* o = object_of(ref);
  return o ? retain_handle(o) : nullptr;
}

void ray_ref_release(ray_ref* ref) {
  if (Object* o = object_of(ref)) o->runtime->objects().release_handle(o);
}

ray_id ray_ref_id(const ray_ref* ref) {
  ray_id id = {};
  if (Object* o = object_of(ref)) std::memcpy(id.b, o->id.b, kIdSize);
  return id;
}

namespace {
// What ray_ref_export writes. The check tells references from other bytes.
struct Exported {
  uint32_t magic, check;
  NodeId cluster;  // of the node that keeps the object for it
  wire::PackedRef ref;
};
constexpr uint32_t kExportMagic = 0x46455232;  // "2REF"

uint32_t check_of(const wire::PackedRef& r) {
  return static_cast<uint32_t>(hash_id(r.id, r.hint.offset ^ r.hint.size));
}
}  // namespace

ray_code ray_ref_export(ray_ref* ref, void* buf, size_t* inout_size, ray_error** err) {
  return guard(err, [&]() -> Status {
    Object* o;
    RAY_TRY(object_arg(ref, &o));
    if (!inout_size) return null_argument("inout_size");
    size_t capacity = *inout_size;
    *inout_size = sizeof(Exported);
    if (!buf) return Status();
    if (capacity < sizeof(Exported))
      return error(RAY_INVALID_ARGUMENT, "buffer of %zu bytes: %zu are needed", capacity,
                   sizeof(Exported));
    RAY_TRY(o->runtime->usable());
    RAY_TRY(o->runtime->objects().export_hold(o));
    Exported e{kExportMagic, 0, o->runtime->node(), o->runtime->objects().packed_ref(o)};
    e.check = check_of(e.ref);
    std::memcpy(buf, &e, sizeof e);
    return Status();
  });
}

ray_code ray_ref_find(ray_runtime* runtime, const ray_id* id, ray_ref** out, ray_error** err) {
  return guard(err, [&]() -> Status {
    Runtime* rt;
    RAY_TRY(runtime_of(runtime, &rt));
    if (!id || !out) return null_argument("id or out");
    ObjectId wanted;
    std::memcpy(wanted.b, id->b, kIdSize);
    Object* o = rt->objects().find_object(wanted);
    if (!o)
      return error(RAY_NOT_FOUND, "this process has no reference to %s", wanted.hex().c_str());
    *out = hand_out(o);
    return Status();
  });
}

ray_code ray_ref_import(ray_runtime* runtime, ray_bytes exported, ray_ref** out, ray_error** err) {
  return guard(err, [&]() -> Status {
    Runtime* rt;
    RAY_TRY(runtime_of(runtime, &rt));
    if (!out || !exported.data) return null_argument("out or exported");
    Exported e;
    if (exported.size != sizeof e)
      return error(RAY_INVALID_ARGUMENT, "%zu bytes are not an exported reference", exported.size);
    std::memcpy(&e, exported.data, sizeof e);
    if (e.magic != kExportMagic || e.check != check_of(e.ref))
      return error(RAY_INVALID_ARGUMENT, "the bytes are not an exported reference");
    if (e.cluster != rt->node())
      return error(RAY_INVALID_ARGUMENT, "object %s was exported in another cluster", e.ref.id.hex().c_str());
    Object* o;
    RAY_TRY(rt->objects().import(e.ref.id, e.ref.hint, &o));
    *out = hand_out(o);
    return Status();
  });
}

// ---- waiting ------------------------------------------------------------------------------------------

namespace {

// Looks up n references of one runtime.
Status objects_of(Runtime* rt, ray_ref* const* refs, size_t n, Object** out) {
  if (n && !refs) return null_argument("refs");
  for (size_t i = 0; i < n; ++i) {
    out[i] = object_of(refs[i]);
    if (!out[i] || out[i]->runtime != rt)
      return error(RAY_INVALID_ARGUMENT, "refs[%zu] is null, released or of another runtime", i);
  }
  return Status();
}

// Short lists live on the stack.
class ObjectList {
 public:
  explicit ObjectList(size_t n) : heap_(n > kStack ? new Object*[n] : nullptr) {}
  Object** data() { return heap_ ? heap_.get() : stack_; }

 private:
  static constexpr size_t kStack = 16;
  Object* stack_[kStack];
  std::unique_ptr<Object*[]> heap_;
};

}  // namespace

ray_code ray_try_get(ray_ref* ref, ray_buffer* out, ray_error** err) {
  ErrorBox* failure = nullptr;
  ray_code code = guard(err, [&]() -> Status {
    Object* o;
    RAY_TRY(object_arg(ref, &o));
    if (!out) return null_argument("out");
    Status usable = o->runtime->usable();
    if (!usable.ok() && (usable.code() != RAY_NODE_DIED || !o->done())) return usable;
    if (!o->done()) {
      if (!o->runtime->poll(o)) return Status(RAY_TIMED_OUT, "the object is not ready");
    }
    if (o->state.load() == ObjState::kError) {
      failure = o->error;
      failure->seen.store(true, std::memory_order_relaxed);
      return Status(failure->code);
    }
    return o->runtime->objects().fill_buffer(o, 0, out);
  });
  if (failure && err) {
    ray_error_release(*err);
    report(Status(code), err, failure);
  }
  return code;
}

ray_code ray_get(ray_runtime* runtime, ray_ref* const* refs, size_t n, int64_t timeout_ns,
                 ray_buffer* out, ray_error** err) {
  try {
    Runtime* rt;
    Status s = runtime_of(runtime, &rt);
    if (!s.ok() && s.code() == RAY_NODE_DIED) {
      // What is here already can still be had.
      rt = from_handle<Runtime>(runtime, kHandleRuntime);
      s = Status();
    }
    if (s.ok()) s = check_timeout(timeout_ns);
    if (s.ok() && n && !out) s = null_argument("out");
    ErrorBox* failure = nullptr;
    if (s.ok()) {
      ObjectList objects(n);
      s = objects_of(rt, refs, n, objects.data());
      if (s.ok()) s = rt->get(objects.data(), n, timeout_ns, out, &failure);
    }
    return s.ok() ? RAY_OK : report(s, err, failure);
  } catch (...) {
    return report_exception(err);
  }
}

ray_code ray_wait(ray_runtime* runtime, ray_ref* const* refs, size_t n, size_t want,
                  int64_t timeout_ns, uint8_t* ready, size_t* n_ready, ray_error** err) {
  return guard(err, [&]() -> Status {
    Runtime* rt;
    RAY_TRY(runtime_of(runtime, &rt));
    RAY_TRY(check_timeout(timeout_ns));
    if (!n_ready || (n && !ready)) return null_argument("ready or n_ready");
    ObjectList objects(n);
    RAY_TRY(objects_of(rt, refs, n, objects.data()));
    return rt->wait(objects.data(), n, want, timeout_ns, ready, n_ready);
  });
}

ray_code ray_wait_any(ray_runtime* runtime, ray_ref* const* refs, size_t n_refs,
                      ray_stream* const* streams, size_t n_streams, size_t want,
                      int64_t timeout_ns, uint8_t* ready_refs, uint8_t* ready_streams,
                      ray_error** err) {
  return guard(err, [&]() -> Status {
    Runtime* rt;
    RAY_TRY(runtime_of(runtime, &rt));
    RAY_TRY(check_timeout(timeout_ns));
    if ((n_refs && !ready_refs) || (n_streams && !ready_streams)) return null_argument("ready");
    if (n_streams && !streams) return null_argument("streams");
    ObjectList objects(n_refs);
    RAY_TRY(objects_of(rt, refs, n_refs, objects.data()));
    std::vector<Stream*> list(n_streams);
    std::vector<StreamUse> uses;
    uses.reserve(n_streams);
    for (size_t i = 0; i < n_streams; ++i) {
      uses.emplace_back(streams[i]);
      list[i] = uses.back().stream();
      if (!list[i] || list[i]->runtime != rt)
        return error(RAY_INVALID_ARGUMENT, "streams[%zu] is null, released or of another runtime", i);
    }
    return rt->wait_any(objects.data(), n_refs, list.data(), n_streams, want, timeout_ns,
                        ready_refs, ready_streams);
  });
}

// ---- completion queues --------------------------------------------------------------------------------

ray_code ray_queue_create(ray_runtime* runtime, ray_queue** out, ray_error** err) {
  return guard(err, [&]() -> Status {
    Runtime* rt;
    RAY_TRY(runtime_of(runtime, &rt));
    if (!out) return null_argument("out");
    auto q = std::make_unique<Queue>();
    q->runtime = rt;
    q->event = Fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    q->wake = Fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!q->event.valid() || !q->wake.valid()) return errno_error(RAY_OUT_OF_MEMORY, "cannot make a completion queue");
    rt->add_queue(q.get());
    *out = make_handle_of<ray_queue>(kHandleQueue, q.release());
    return Status();
  });
}

static void end_use(Queue* q, ray_queue* handle) {
  if (HandleTable::instance().unuse(handle)) q->runtime->drop_queue(q);
}

void ray_queue_release(ray_queue* queue) {
  auto& table = HandleTable::instance();
  auto* q = static_cast<Queue*>(table.use(queue, kHandleQueue));
  if (!q) return;
  if (q->runtime->foreign()) return (void)table.unuse(queue);
  (void)table.release(queue, kHandleQueue);  // queues are not counted: that was it
  q->close();                                // whoever polls leaves, and the last one ends it
  end_use(q, queue);
}

int ray_queue_fd(const ray_queue* queue) {
  auto* q = from_handle<Queue>(queue, kHandleQueue);
  return q && !q->runtime->foreign() ? q->event.get() : -1;
}

ray_code ray_queue_poll(ray_queue* queue, ray_completion* out, size_t max, int64_t timeout_ns,
                        size_t* out_count, ray_error** err) {
  return guard(err, [&]() -> Status {
    if (!out_count) return null_argument("out_count");
    *out_count = 0;
    if (!out) return null_argument("out");
    if (!max) return error(RAY_INVALID_ARGUMENT, "there is room for no completion: max is 0");
    RAY_TRY(check_timeout(timeout_ns));
    auto* q = static_cast<Queue*>(HandleTable::instance().use(queue, kHandleQueue));
    if (!q) return bad_handle("queue");
    Status s = q->runtime->foreign() ? q->runtime->usable() : queue_poll(q, out, max, timeout_ns, out_count);
    end_use(q, queue);
    return s;
  });
}

void ray_queue_wake(ray_queue* queue) {
  auto* q = from_handle<Queue>(queue, kHandleQueue);
  if (q && !q->runtime->foreign()) q->wake_pollers();
}

static Status check_notify(const ray_notify* in, ray_notify* out) {
  if (!in) return null_argument("notify");
  RAY_TRY(read_options(in, "ray_notify", out));
  if (!out->queue == !out->fn)
    return error(RAY_INVALID_ARGUMENT, "a notification goes to exactly one of queue and fn");
  if (out->flags & ~uint32_t{RAY_NOTIFY_MAY_RUN_INLINE} || out->reserved)
    return error(RAY_INVALID_ARGUMENT, "unknown flags %u or reserved word %u of ray_notify", out->flags, out->reserved);
  return Status();
}

ray_code ray_on_ready(ray_ref* ref, const ray_notify* notify, uint64_t* out_token, ray_error** err) {
  return guard(err, [&]() -> Status {
    Object* o;
    RAY_TRY(object_arg(ref, &o));
    ray_notify n = RAY_NOTIFY_INIT;
    RAY_TRY(check_notify(notify, &n));
    Status usable = o->runtime->usable();
    if (!usable.ok() && (usable.code() != RAY_NODE_DIED || !o->done())) return usable;
    return o->runtime->on_ready(o, n, out_token);
  });
}

ray_code ray_cancel_notify(ray_runtime* runtime, uint64_t token, ray_error** err) {
  return guard(err, [&]() -> Status {
    Runtime* rt;
    RAY_TRY(runtime_of(runtime, &rt));
    return rt->cancel_notify(token);
  });
}

ray_code ray_stream_on_next(ray_stream* stream, const ray_notify* notify, uint64_t* out_token, ray_error** err) {
  return guard(err, [&]() -> Status {
    auto* s = from_handle<Stream>(stream, kHandleStream);
    if (!s) return bad_handle("stream");
    RAY_TRY(s->runtime->usable());
    ray_notify n = RAY_NOTIFY_INIT;
    RAY_TRY(check_notify(notify, &n));
    return s->runtime->stream_on_next(s, n, out_token);
  });
}
