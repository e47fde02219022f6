// ray.h sections 9 to 11 and 13: functions, tasks, streams, actors, cluster, key-value, C symbols.
// See boundary.h.
#include "libray/base/clock.h"
#include "libray/capi/boundary.h"
#include "libray/ffi/ffi.h"
#include "libray/wire/limits.h"
#include "libray/wire/msgpack.h"
#include "libray/wire/named.h"

using namespace ray;
using namespace ray::capi;

// ---- functions --------------------------------------------------------------------------------------

static Status define(ray_runtime* runtime, int32_t language, uint32_t kind, ray_str name,
                     const std::string& definition, ray_function** out) {
  Runtime* rt;
  RAY_TRY(runtime_of(runtime, &rt));
  if (!out) return null_argument("out");
  if (language < 0 || language >= RAY_LANG_COUNT)
    return error(RAY_INVALID_ARGUMENT, "language %d is none of RAY_LANG_*", language);
  std::string n;
  RAY_TRY(name_arg(name, "the name of a function", &n));
  RAY_TRY(rt->functions().check_language(language));
  Function* f;
  RAY_TRY(rt->functions().define(language, kind, n, definition, &f));
  *out = make_handle_of<ray_function>(kHandleFunction, f);
  return Status();
}

ray_code ray_function_get(ray_runtime* runtime, ray_str name, ray_function** out, ray_error** err) {
  return guard(err, [&] { return define(runtime, RAY_LANG_NATIVE, wire::kFnNative, name, "", out); });
}

ray_code ray_function_define(ray_runtime* runtime, int32_t language, ray_str name,
                             ray_bytes definition, ray_function** out, ray_error** err) {
  return guard(err, [&]() -> Status {
    std::string d;
    RAY_TRY(bytes_arg(definition, "a definition", wire::kMaxDefinition, &d));
    return define(runtime, language, wire::kFnOpaque, name, d, out);
  });
}

ray_code ray_function_named(ray_runtime* runtime, int32_t language, ray_str container, ray_str member,
                            ray_function** out, ray_error** err) {
  return guard(err, [&]() -> Status {
    std::string c, m;
    RAY_TRY(name_arg(container, "container", &c));
    RAY_TRY(name_arg(member, "member", &m));
    const bool registered = language == RAY_LANG_NATIVE || language == RAY_LANG_RUST;
    if (m.empty() && (registered || c.empty() || language == RAY_LANG_PYTHON))
      return error(RAY_INVALID_ARGUMENT, "member is empty: name the function or class");
    if (c.empty() && !registered)
      return error(RAY_INVALID_ARGUMENT, "container is empty: name the %s of '%s'",
                   language == RAY_LANG_PYTHON ? "module" : "class", m.c_str());
    std::string name = c;
    if (!c.empty() && !m.empty()) name += registered ? "::" : ".";
    name += m;
    if (language == RAY_LANG_NATIVE)
      return define(runtime, language, wire::kFnNative, ray_str{name.data(), name.size()}, "", out);
    return define(runtime, language, wire::kFnOpaque, ray_str{name.data(), name.size()}, wire::pack_named(c, m), out);
  });
}

ray_code ray_define_library(ray_runtime* runtime, ray_str name, ray_str path, ray_function** out,
                            ray_error** err) {
  return guard(err, [&]() -> Status {
    std::string p;
    RAY_TRY(name_arg(path, "path", &p));
    if (p.empty()) return error(RAY_INVALID_ARGUMENT, "path is empty");
    return define(runtime, RAY_LANG_NATIVE, wire::kFnLibrary, name, p, out);
  });
}

ray_code ray_define_symbol(ray_runtime* runtime, ray_str name, ray_str library, ray_str symbol,
                           ray_str signature, ray_function** out, ray_error** err) {
  return guard(err, [&]() -> Status {
    std::string l, s, sig;
    RAY_TRY(name_arg(library, "library", &l));
    RAY_TRY(name_arg(symbol, "symbol", &s));
    RAY_TRY(name_arg(signature, "signature", &sig));
    if (s.empty()) return error(RAY_INVALID_ARGUMENT, "symbol is empty");
    if (auto parsed = ffi::Signature::parse(sig); !parsed.ok()) return parsed.status();
    return define(runtime, RAY_LANG_NATIVE, wire::kFnSymbol, name, ffi::Symbol::pack_definition(l, s, sig), out);
  });
}

ray_function* ray_function_retain(ray_function* function) {
  return HandleTable::instance().retain(function, kHandleFunction) ? function : nullptr;
}

void ray_function_release(ray_function* function) {
  if (void* p = HandleTable::instance().release(function, kHandleFunction)) {
    auto* f = static_cast<Function*>(p);
    f->runtime->function_release(f);
  }
}

// ---- tasks --------------------------------------------------------------------------------------------

namespace {

Status function_of(ray_runtime* runtime, ray_function* function, Runtime** rt, Function** f) {
  RAY_TRY(runtime_of(runtime, rt));
  *f = from_handle<Function>(function, kHandleFunction);
  if (!*f || (*f)->runtime != *rt) return bad_handle("function");
  return Status();
}

Status task_options(const ray_task_options* in, ray_task_options* out) {
  RAY_TRY(read_options(in, "ray_task_options", out));
  if (out->num_returns > RAY_MAX_RETURNS)
    return error(RAY_INVALID_ARGUMENT, "num_returns %u is more than %d", out->num_returns, RAY_MAX_RETURNS);
  if (out->max_retries < RAY_RETRIES_DEFAULT)
    return error(RAY_INVALID_ARGUMENT, "max_retries %d is negative", out->max_retries);
  if (out->flags & ~uint32_t{RAY_TASK_RETRY_ON_ERROR | RAY_TASK_RUN_TO_END} || out->reserved)
    return error(RAY_INVALID_ARGUMENT, "unknown flags %u or reserved word %u of ray_task_options", out->flags,
                 out->reserved);
  if (out->group > UINT16_MAX)
    return error(RAY_INVALID_ARGUMENT, "concurrency group %u: no actor has that many", out->group);
  if (__builtin_expect(out->name.size != 0, 0)) {
    std::string checked;
    RAY_TRY(name_arg(out->name, "the name of a task", &checked));
  }
  return view_arg(out->resources_msgpack, "resources_msgpack");
}

// Calls `submit(Object**)` and turns the objects into handles, in place for one result.
template <class Submit>
Status with_returns(uint32_t n, ray_ref** out_refs, Submit submit) {
  if (n && !out_refs) return null_argument("out_refs");
  static_assert(sizeof(Object*) == sizeof(ray_ref*));
  Object** objects = reinterpret_cast<Object**>(out_refs);
  Object* one[1];
  std::vector<Object*> many;
  if (n == 1) {
    objects = one;
  } else {
    many.resize(n);
    objects = many.data();
  }
  RAY_TRY(submit(objects));
  for (uint32_t i = 0; i < n; ++i) out_refs[i] = objects[i]->handle();
  return Status();
}

}  // namespace

namespace {

bool is_zero(const ray_id& id) {
  static const ray_id zero = {};
  return std::memcmp(id.b, zero.b, sizeof zero.b) == 0;
}

Status pack_placement(const ray_placement* in, std::string* out) {
  ray_placement p = RAY_PLACEMENT_INIT;
  RAY_TRY(read_options(in, "ray_placement", &p));
  if (p.flags & ~uint32_t{RAY_PLACEMENT_SOFT})
    return error(RAY_INVALID_ARGUMENT, "unknown flags %u of ray_placement", p.flags);
  if (p.bundle < -1 || (p.bundle >= 0 && is_zero(p.group)))
    return error(RAY_INVALID_ARGUMENT, "bundle %d of ray_placement: -1, or an index with a group", p.bundle);
  wire::Writer w(out);
  w.map(4).str("group").bin(p.group.b, sizeof p.group.b).str("bundle").int64(p.bundle);
  w.str("node").bin(p.node.b, sizeof p.node.b).str("soft").boolean(p.flags & RAY_PLACEMENT_SOFT);
  return Status();
}

// Adds options->placement to the resources, which are what the scheduler sees; `backs` keeps the bytes.
template <class Options>
Status place(Options* o, bool task, std::string* backs) {
  if (__builtin_expect(!o->placement, 1)) return Status();
  std::string placement, resources = bytes(o->resources_msgpack);
  bool placed = false;
  if (auto r = wire::parse_resources(resources, nullptr, &placed); !r.ok()) return r.status();
  if (placed) return error(RAY_INVALID_ARGUMENT, "placement is given twice: by itself and in resources_msgpack");
  if (resources.empty() && task) wire::Writer(&resources).map(1).str("CPU").float64(1);
  RAY_TRY(pack_placement(o->placement, &placement));
  *backs = wire::with_entry(resources, wire::kPlacement, placement);
  o->resources_msgpack = {backs->data(), backs->size()};
  return Status();
}

}  // namespace

ray_code ray_submit(ray_runtime* runtime, ray_function* function, const ray_arg* args, size_t n_args,
                    const ray_task_options* options, ray_ref** out_refs, ray_error** err) {
  return guard(err, [&]() -> Status {
    Runtime* rt;
    Function* f;
    RAY_TRY(function_of(runtime, function, &rt, &f));
    if (n_args && !args) return null_argument("args");
    ray_task_options o = RAY_TASK_OPTIONS_INIT;
    if (options) RAY_TRY(task_options(options, &o));
    std::string resources;
    RAY_TRY(place(&o, true, &resources));
    return with_returns(o.num_returns, out_refs, [&](Object** objects) {
      return rt->submit(f, args, n_args, o, objects, nullptr);
    });
  });
}

ray_code ray_submit_stream(ray_runtime* runtime, ray_function* function, const ray_arg* args,
                           size_t n_args, const ray_task_options* options, ray_stream** out,
                           ray_error** err) {
  return guard(err, [&]() -> Status {
    Runtime* rt;
    Function* f;
    RAY_TRY(function_of(runtime, function, &rt, &f));
    if ((n_args && !args) || !out) return null_argument(out ? "args" : "out");
    ray_task_options o = RAY_TASK_OPTIONS_INIT;
    RAY_TRY(task_options(options, &o));
    std::string resources;
    RAY_TRY(place(&o, true, &resources));
    Stream* s = nullptr;
    RAY_TRY(rt->submit(f, args, n_args, o, nullptr, &s));
    *out = make_handle_of<ray_stream>(kHandleStream, s);
    return Status();
  });
}

ray_code ray_stream_next(ray_stream* stream, int64_t timeout_ns, ray_ref** out, ray_error** err) {
  return guard(err, [&]() -> Status {
    StreamUse use(stream);
    if (!use.stream()) return bad_handle("stream");
    if (!out) return null_argument("out");
    RAY_TRY(check_timeout(timeout_ns));
    Object* o;
    RAY_TRY(use.stream()->runtime->stream_next(use.stream(), timeout_ns, &o));
    *out = hand_out(o);
    return Status();
  });
}

ray_code ray_stream_completed(ray_stream* stream, ray_ref** out, ray_error** err) {
  return guard(err, [&]() -> Status {
    auto* s = from_handle<Stream>(stream, kHandleStream);
    if (!s) return bad_handle("stream");
    if (!out) return null_argument("out");
    Object* o;
    RAY_TRY(s->runtime->stream_completed(s, &o));
    *out = hand_out(o);
    return Status();
  });
}

ray_id ray_stream_id(const ray_stream* stream) {
  ray_id id = {};
  if (auto* s = from_handle<Stream>(stream, kHandleStream)) std::memcpy(id.b, s->id.b, kIdSize);
  return id;
}

static Status cancel_flags(uint32_t flags) {
  if ((flags & ~uint32_t{RAY_CANCEL_FORCE | RAY_CANCEL_RECURSIVE}) == 0) return Status();
  return error(RAY_INVALID_ARGUMENT, "unknown flags %u of a cancellation", flags);
}

ray_code ray_stream_cancel(ray_stream* stream, uint32_t flags, ray_error** err) {
  return guard(err, [&]() -> Status {
    auto* s = from_handle<Stream>(stream, kHandleStream);
    if (!s) return bad_handle("stream");
    RAY_TRY(s->runtime->usable());
    RAY_TRY(cancel_flags(flags));
    return s->runtime->stream_cancel(s, flags);
  });
}

ray_stream* ray_stream_retain(ray_stream* stream) {
  return HandleTable::instance().retain(stream, kHandleStream) ? stream : nullptr;
}

void ray_stream_release(ray_stream* stream) {
  auto& table = HandleTable::instance();
  StreamUse use(stream);
  if (!use.stream()) return;
  (void)table.release(stream, kHandleStream);
  if (!table.get(stream, kHandleStream)) use.stream()->runtime->stream_release(use.stream());
}

ray_code ray_cancel(ray_ref* ref, uint32_t flags, ray_error** err) {
  return guard(err, [&]() -> Status {
    Object* o;
    RAY_TRY(object_arg(ref, &o));
    RAY_TRY(o->runtime->usable());
    RAY_TRY(cancel_flags(flags));
    return o->runtime->cancel(o, flags);
  });
}

// ---- actors -------------------------------------------------------------------------------------------

static bool weak(const ray_actor* actor) { return handle_kind(actor) == kHandleWeakActor; }

static Actor* actor_behind(const ray_actor* actor) {
  return from_handle<Actor>(actor, weak(actor) ? kHandleWeakActor : kHandleActor);
}

static Status actor_of(const ray_actor* actor, Actor** out) {
  *out = actor_behind(actor);
  if (!*out) return bad_handle("actor");
  return (*out)->runtime->usable();
}

static Status check_actor(const ray_actor_options& o) {
  if (o.max_restarts < -1) return error(RAY_INVALID_ARGUMENT, "max_restarts %d is negative", o.max_restarts);
  if (o.max_task_retries < RAY_RETRIES_DEFAULT)
    return error(RAY_INVALID_ARGUMENT, "max_task_retries %d is negative", o.max_task_retries);
  if (o.lifetime != RAY_LIFETIME_COUNTED && o.lifetime != RAY_LIFETIME_DETACHED)
    return error(RAY_INVALID_ARGUMENT, "lifetime %d is none of RAY_LIFETIME_*", o.lifetime);
  if (o.flags & ~uint32_t{RAY_ACTOR_GET_IF_EXISTS | RAY_ACTOR_OUT_OF_ORDER})
    return error(RAY_INVALID_ARGUMENT, "unknown flags %u of ray_actor_options", o.flags);
  std::string checked;
  RAY_TRY(name_arg(o.name, "the name of an actor", &checked));
  RAY_TRY(name_arg(o.ns, "ns", &checked));
  RAY_TRY(view_arg(o.resources_msgpack, "resources_msgpack"));
  return bytes_arg(o.metadata, "metadata", RAY_MAX_METADATA, &checked);
}

ray_code ray_actor_create(ray_runtime* runtime, ray_function* klass, const ray_arg* args,
                          size_t n_args, const ray_actor_options* options, ray_actor** out,
                          ray_error** err) {
  return guard(err, [&]() -> Status {
    Runtime* rt;
    Function* f;
    RAY_TRY(function_of(runtime, klass, &rt, &f));
    if ((n_args && !args) || !out) return null_argument(out ? "args" : "out");
    ray_actor_options o = RAY_ACTOR_OPTIONS_INIT;
    RAY_TRY(read_options(options, "ray_actor_options", &o));
    RAY_TRY(check_actor(o));
    std::string resources;
    RAY_TRY(place(&o, false, &resources));
    Actor* a = nullptr;
    bool found = false;
    RAY_TRY(rt->actor_create(f, args, n_args, o, &a, &found));
    *out = make_handle_of<ray_actor>(found ? kHandleWeakActor : kHandleActor, a);
    return Status();
  });
}

ray_code ray_actor_call(ray_actor* actor, ray_str method, const ray_arg* args, size_t n_args,
                        const ray_task_options* options, ray_ref** out_refs, ray_error** err) {
  return guard(err, [&]() -> Status {
    Actor* a;
    RAY_TRY(actor_of(actor, &a));
    if (n_args && !args) return null_argument("args");
    ray_task_options o = RAY_TASK_OPTIONS_INIT;
    if (options) RAY_TRY(task_options(options, &o));
    return with_returns(o.num_returns, out_refs, [&](Object** objects) {
      std::string m;
      RAY_TRY(name_arg(method, "the name of a method", &m));
      return a->runtime->actor_call(a, m, args, n_args, o, objects, nullptr, weak(actor));
    });
  });
}

ray_code ray_actor_call_stream(ray_actor* actor, ray_str method, const ray_arg* args, size_t n_args,
                               const ray_task_options* options, ray_stream** out, ray_error** err) {
  return guard(err, [&]() -> Status {
    Actor* a;
    RAY_TRY(actor_of(actor, &a));
    if ((n_args && !args) || !out) return null_argument(out ? "args" : "out");
    ray_task_options o = RAY_TASK_OPTIONS_INIT;
    RAY_TRY(task_options(options, &o));
    Stream* s = nullptr;
    std::string m;
    RAY_TRY(name_arg(method, "the name of a method", &m));
    RAY_TRY(a->runtime->actor_call(a, m, args, n_args, o, nullptr, &s, weak(actor)));
    *out = make_handle_of<ray_stream>(kHandleStream, s);
    return Status();
  });
}

ray_code ray_actor_find(ray_runtime* runtime, ray_str name, ray_str ns, ray_actor** out,
                        ray_error** err) {
  return guard(err, [&]() -> Status {
    Runtime* rt;
    RAY_TRY(runtime_of(runtime, &rt));
    if (!out) return null_argument("out");
    Actor* a;
    std::string n, space;
    RAY_TRY(name_arg(name, "the name of an actor", &n));
    RAY_TRY(name_arg(ns, "ns", &space));
    RAY_TRY(rt->actor_find(n, space, &a));
    *out = make_handle_of<ray_actor>(kHandleWeakActor, a);
    return Status();
  });
}

ray_code ray_actor_from_id(ray_runtime* runtime, ray_id id, ray_actor** out, ray_error** err) {
  return guard(err, [&]() -> Status {
    Runtime* rt;
    RAY_TRY(runtime_of(runtime, &rt));
    if (!out) return null_argument("out");
    ActorId actor;
    std::memcpy(actor.b, id.b, kIdSize);
    Actor* a;
    RAY_TRY(rt->actor_from_id(actor, &a));
    *out = make_handle_of<ray_actor>(kHandleWeakActor, a);
    return Status();
  });
}

bool ray_actor_is_weak(const ray_actor* actor) { return weak(actor) && actor_behind(actor); }

ray_code ray_actor_kill(ray_actor* actor, bool may_restart, ray_error** err) {
  return guard(err, [&]() -> Status {
    Actor* a;
    RAY_TRY(actor_of(actor, &a));
    return a->runtime->actor_kill(a, may_restart);
  });
}

ray_id ray_actor_id(const ray_actor* actor) {
  ray_id id = {};
  if (auto* a = actor_behind(actor)) std::memcpy(id.b, a->id.b, kIdSize);
  return id;
}

ray_code ray_actor_metadata(ray_actor* actor, ray_bytes* out, ray_error** err) {
  return guard(err, [&]() -> Status {
    Actor* a;
    RAY_TRY(actor_of(actor, &a));
    if (!out) return null_argument("out");
    RAY_TRY(a->runtime->learn_actor(a));
    *out = {a->metadata.data(), a->metadata.size()};
    return Status();
  });
}

ray_code ray_actor_language(ray_actor* actor, int32_t* out, ray_error** err) {
  return guard(err, [&]() -> Status {
    Actor* a;
    RAY_TRY(actor_of(actor, &a));
    if (!out) return null_argument("out");
    RAY_TRY(a->runtime->learn_actor(a));
    *out = a->call_function->language;
    return Status();
  });
}

ray_actor* ray_actor_retain(ray_actor* actor) {
  return HandleTable::instance().retain(actor, weak(actor) ? kHandleWeakActor : kHandleActor) ? actor : nullptr;
}

void ray_actor_release(ray_actor* actor) {
  if (void* p = HandleTable::instance().release(actor, weak(actor) ? kHandleWeakActor : kHandleActor)) {
    auto* a = static_cast<Actor*>(p);
    a->runtime->actor_release(a, weak(actor));
  }
}

ray_code ray_actor_to_ref(ray_actor* actor, ray_ref** out, ray_error** err) {
  return guard(err, [&]() -> Status {
    Actor* a;
    RAY_TRY(actor_of(actor, &a));
    if (!out) return null_argument("out");
    Object* o;
    RAY_TRY(a->runtime->actor_reference(a, &o));
    *out = hand_out(o);
    return Status();
  });
}

ray_code ray_actor_from_ref(ray_ref* ref, ray_actor** out, ray_error** err) {
  return guard(err, [&]() -> Status {
    Object* o;
    RAY_TRY(object_arg(ref, &o));
    RAY_TRY(o->runtime->usable());
    if (!out) return null_argument("out");
    Actor* a;
    RAY_TRY(o->runtime->actor_from_object(o, &a));
    *out = make_handle_of<ray_actor>(kHandleActor, a);
    return Status();
  });
}

// ---- cluster and key-value ------------------------------------------------------------------------------

namespace {

// A buffer that owns a string.
void own_bytes(std::string bytes, uint32_t format, ray_buffer* out) {
  auto* s = new std::string(std::move(bytes));
  *out = RAY_BUFFER_INIT;
  out->data = s->data();
  out->size = s->size();
  out->format = format;
  out->private_data = s;
  out->release = [](ray_buffer* b) {
    b->release = nullptr;
    delete static_cast<std::string*>(b->private_data);
  };
}

// The answer's only element, as it is encoded.
Status only_element(const std::string& answer, std::string* out) {
  wire::Reader r(answer);
  uint32_t n;
  std::string_view raw;
  if (!r.array(&n) || n < 1 || !r.raw(&raw)) return error(RAY_INTERNAL, "the node daemon answered nonsense");
  *out = raw;
  return Status();
}

Status key_arg(ray_str ns, ray_bytes key, std::string* space) {
  if (!key.data) return null_argument("key");
  if (key.size > RAY_MAX_KEY)
    return error(RAY_INVALID_ARGUMENT, "a key of %zu bytes; at most %d are allowed", key.size, RAY_MAX_KEY);
  return name_arg(ns, "ns", space);
}

Status kv_call(ray_runtime* runtime, uint32_t op, const std::string& args, std::string* answer) {
  Runtime* rt;
  RAY_TRY(runtime_of(runtime, &rt));
  return rt->daemon().request(op, args, answer);
}

}  // namespace

ray_code ray_group_create(ray_runtime* runtime, const ray_group_options* options, ray_id* out,
                          ray_error** err) {
  return guard(err, [&]() -> Status {
    if (!options || !out) return null_argument(out ? "options" : "out");
    ray_group_options o = RAY_GROUP_OPTIONS_INIT;
    RAY_TRY(read_options(options, "ray_group_options", &o));
    if (o.strategy < RAY_GROUP_PACK || o.strategy > RAY_GROUP_STRICT_SPREAD)
      return error(RAY_INVALID_ARGUMENT, "strategy %d is none of RAY_GROUP_*", o.strategy);
    if (o.lifetime != RAY_LIFETIME_COUNTED && o.lifetime != RAY_LIFETIME_DETACHED)
      return error(RAY_INVALID_ARGUMENT, "lifetime %d is none of RAY_LIFETIME_*", o.lifetime);
    std::string name, ns;
    RAY_TRY(name_arg(o.name, "the name of a group", &name));
    RAY_TRY(name_arg(o.ns, "ns", &ns));
    RAY_TRY(view_arg(o.bundles_msgpack, "bundles_msgpack"));
    std::string bundles = bytes(o.bundles_msgpack), args, answer;
    wire::Reader check(bundles);
    if (!wire::is_one_value(bundles) || check.peek() != wire::Type::kArray)
      return error(RAY_INVALID_ARGUMENT, "bundles_msgpack is not an array of maps of name to amount");
    wire::Writer w(&args);
    w.array(5).raw(bundles).int64(o.strategy).int64(o.lifetime).str(name).str(ns);
    RAY_TRY(kv_call(runtime, wire::kOpGroupCreate, args, &answer));
    wire::Reader r(answer);
    uint32_t n;
    std::string_view id;
    if (!r.array(&n) || n != 1 || !r.bin(&id) || id.size() != kIdSize)
      return error(RAY_INTERNAL, "the node daemon answered nonsense");
    std::memcpy(out->b, id.data(), kIdSize);
    return Status();
  });
}

ray_code ray_group_wait(ray_runtime* runtime, const ray_id* group, int64_t timeout_ns, ray_error** err) {
  return guard(err, [&]() -> Status {
    if (!group) return null_argument("group");
    RAY_TRY(check_timeout(timeout_ns));
    Runtime* rt;
    RAY_TRY(runtime_of(runtime, &rt));
    std::string args;
    wire::Writer(&args).array(2).bin(group->b, sizeof group->b).uint64(timeout_ns != 0);
    if (timeout_ns == 0) return rt->daemon().request(wire::kOpGroupWait, args, nullptr, -1);
    // The daemon lets go of its oldest waiter when it has too many: then it is asked again.
    const int64_t start = steady_ns();
    for (int64_t left = timeout_ns;;) {
      Status s = rt->daemon().request(wire::kOpGroupWait, args, nullptr, left);
      if (s.code() != RAY_TIMED_OUT) return s;
      if (timeout_ns > 0 && (left = timeout_ns - (steady_ns() - start)) <= 0) return s;
    }
  });
}

ray_code ray_group_remove(ray_runtime* runtime, const ray_id* group, ray_error** err) {
  return guard(err, [&]() -> Status {
    if (!group) return null_argument("group");
    std::string args, answer;
    wire::Writer(&args).array(1).bin(group->b, sizeof group->b);
    return kv_call(runtime, wire::kOpGroupRemove, args, &answer);
  });
}

ray_code ray_cluster_query(ray_runtime* runtime, ray_str what, ray_bytes filter, ray_buffer* out,
                           ray_error** err) {
  return guard(err, [&]() -> Status {
    if (!out) return null_argument("out");
    RAY_TRY(view_arg(filter, "filter_msgpack"));
    std::string args, answer, rows;
    Runtime* rt;
    RAY_TRY(runtime_of(runtime, &rt));
    if (rt->local_query(text(what), &rows)) {
      own_bytes(std::move(rows), RAY_FMT_MSGPACK, out);
      return Status();
    }
    wire::Writer w(&args);
    w.array(2).str(text(what));
    if (filter.size) {
      if (!wire::is_one_value({static_cast<const char*>(filter.data), filter.size}))
        return error(RAY_INVALID_ARGUMENT, "filter is not one MessagePack value");
      w.raw({static_cast<const char*>(filter.data), filter.size});
    } else {
      w.map(0);
    }
    if (text(what) == "available") rt->return_idle_leases();
    RAY_TRY(rt->daemon().request(wire::kOpQuery, args, &answer));
    RAY_TRY(only_element(answer, &rows));
    own_bytes(std::move(rows), RAY_FMT_MSGPACK, out);
    return Status();
  });
}

ray_code ray_kv_get(ray_runtime* runtime, ray_str ns, ray_bytes key, ray_buffer* out,
                    uint64_t* out_version, ray_error** err) {
  return guard(err, [&]() -> Status {
    if (!out) return null_argument("out");
    std::string space, args, answer;
    RAY_TRY(key_arg(ns, key, &space));
    wire::Writer(&args).array(2).str(space).bin(key.data, key.size);
    RAY_TRY(kv_call(runtime, wire::kOpKvGet, args, &answer));
    wire::Reader r(answer);
    uint32_t n;
    uint64_t version;
    std::string_view value;
    if (!r.array(&n) || n < 2 || !r.uint64(&version) || !r.bytes(&value))
      return error(RAY_INTERNAL, "the node daemon answered nonsense");
    if (out_version) *out_version = version;
    own_bytes(std::string(value), RAY_FMT_RAW, out);
    return Status();
  });
}

ray_code ray_kv_put(ray_runtime* runtime, ray_str ns, ray_bytes key, ray_bytes value,
                    uint64_t expected, uint64_t* out_version, ray_error** err) {
  return guard(err, [&]() -> Status {
    if (value.size && !value.data) return null_argument("value");
    if (value.size > wire::kMaxRequest)
      return error(RAY_INVALID_ARGUMENT, "a value of %zu bytes for the key-value table: put it and keep its reference, "
                   "%zu are possible", value.size, wire::kMaxRequest);
    std::string space, args, answer;
    RAY_TRY(key_arg(ns, key, &space));
    wire::Writer(&args).array(4).str(space).bin(key.data, key.size).bin(value.data, value.size)
        .uint64(expected);
    RAY_TRY(kv_call(runtime, wire::kOpKvPut, args, &answer));
    wire::Reader r(answer);
    uint32_t n;
    uint64_t version;
    if (!r.array(&n) || n < 1 || !r.uint64(&version))
      return error(RAY_INTERNAL, "the node daemon answered nonsense");
    if (out_version) *out_version = version;
    return Status();
  });
}

ray_code ray_kv_delete(ray_runtime* runtime, ray_str ns, ray_bytes key, uint64_t expected,
                       ray_error** err) {
  return guard(err, [&]() -> Status {
    std::string space, args;
    RAY_TRY(key_arg(ns, key, &space));
    wire::Writer(&args).array(3).str(space).bin(key.data, key.size).uint64(expected);
    return kv_call(runtime, wire::kOpKvDelete, args, nullptr);
  });
}

ray_code ray_kv_list(ray_runtime* runtime, ray_str ns, ray_bytes prefix, ray_buffer* out,
                     ray_error** err) {
  return guard(err, [&]() -> Status {
    if (!out) return null_argument("out");
    std::string space, args, answer, keys;
    if (prefix.data || prefix.size) RAY_TRY(key_arg(ns, prefix, &space));
    else RAY_TRY(name_arg(ns, "ns", &space));
    wire::Writer(&args).array(2).str(space).bin(prefix.data, prefix.data ? prefix.size : 0);
    RAY_TRY(kv_call(runtime, wire::kOpKvList, args, &answer));
    RAY_TRY(only_element(answer, &keys));
    own_bytes(std::move(keys), RAY_FMT_MSGPACK, out);
    return Status();
  });
}
