// Submission: argument encoding, dispatch to leased workers. Which lease, and how many, libray/task says (leases.cc).
// See runtime.h for locks. The hot path is start_task -> push_prepared: no allocation but the
// pooled task and object entries, no syscall while the worker is awake.
#include <algorithm>

#include "libray/base/fault.h"
#include "libray/base/log.h"
#include "libray/runtime/runtime.h"
#include "libray/runtime/runtime_inl.h"
#include "libray/wire/limits.h"
#include "libray/wire/msgpack.h"

namespace ray {

Slab<PendingTask>& task_slab() {
  static auto* slab = new Slab<PendingTask>;
  return *slab;
}

namespace {

bool plain_inline(const ray_value& v) {
  return v.n_refs == 0 && v.n_oob == 0 && v.size <= wire::kInlineValueMax;
}

std::string resources_of(ray_bytes b) {
  return b.size ? std::string(static_cast<const char*>(b.data), b.size) : std::string();
}

}  // namespace

PendingTask* pending_task_at(uint32_t index) { return task_slab().at(index); }

Shape* Runtime::shape(const std::string& resources, int32_t language) {
  std::string key = std::to_string(language) + ":" + resources;
  auto it = shapes_.find(key);
  if (it != shapes_.end()) return it->second.get();
  if (shape_list_.size() >= wire::kMaxShapes) return nullptr;
  auto s = std::make_unique<Shape>();
  s->index = static_cast<uint32_t>(shape_list_.size());
  s->language = language;
  s->resources = resources;
  std::string bytes = resources;
  if (bytes.empty()) wire::Writer(&bytes).map(1).str("CPU").float64(1);
  daemon_.up(wire::kUpShape, wire::UpShape{s->index, language}, bytes.data(), bytes.size());
  shape_list_.push_back(s.get());
  return (shapes_[key] = std::move(s)).get();
}

// ---- tasks and arguments
// -------------------------------------------------------------------------------

PendingTask* Runtime::new_task() {
  uint32_t index;
  PendingTask* t = task_slab().alloc(&index);
  if (!t) return nullptr;
  t->index = index;
  t->tag = ++t->uses << kTaskIndexBits | index;
  task::enter<TaskKit>(t, TaskState::kWaiting);
  t->kind = RAY_KIND_TASK;
  t->retry_on_error = t->cancelled = t->forced = t->shrinking = t->started = t->keeps_actor = t->actor_retries = false;
  t->retries_left = 0;
  t->attempt = t->n_returns = t->deps_left = 0;
  t->function = nullptr;
  t->shape = nullptr;
  t->link = nullptr;
  t->lease = nullptr;
  t->actor = nullptr;
  t->stream = nullptr;
  t->seq = 0;
  t->est_ns = 0;
  t->prev = t->next = nullptr;
  t->record = nullptr;
  t->return0 = nullptr;
  return t;
}

void Runtime::free_task(PendingTask* t) {
  task::enter<TaskKit>(t, TaskState::kFree);
  t->tag = kNoTag;
  t->more_returns.clear();
  if (!t->spec.empty()) std::string().swap(t->spec);
  if (!t->error_parts.empty()) std::string().swap(t->error_parts);
  if (__builtin_expect(t->relayed != nullptr, 0)) t->relayed.reset();
  t->name.clear();
  t->method.clear();
  t->prepared.reset();
  t->creation.reset();
  t->held.clear();
  task_slab().free(t, t->index);
}

// Private formats are for one language.
static bool can_read(int32_t language, uint32_t format) {
  if (format == RAY_FMT_PICKLE5) return language == RAY_LANG_PYTHON;
  if (format == RAY_FMT_JAVA) return language == RAY_LANG_JAVA;
  return true;
}

static Status unreadable(size_t index, int32_t language, uint32_t format) {
  static const char* names[] = {"native", "Python", "Java", "Rust"};
  const char* what = format == RAY_FMT_PICKLE5 ? "a pickle of Python's" : "an object that Java serialised for itself";
  return error(RAY_INVALID_ARGUMENT,
               "argument %zu (counted from 0) is %s, in a private format that a %s function cannot read: its maker is to "
               "give plain values, arrays or tables",
               index, what, names[language]);
}

// With a reference its value does not count, but for the words that may mean something one day.
static Status check_arg(const ray_arg& a) {
  if (!a.ref) return check_value(a.value);
  ray_value v = RAY_VALUE_INIT;
  std::memcpy(v.reserved, a.value.reserved, sizeof v.reserved);
  return check_value(v);
}

// Looks every argument up, retains references, packs and stores what does not travel as plain
// bytes. No lock held: storing may wait for room.
Status Runtime::prepare_args(int32_t language, const ray_arg* args, size_t n, Prepared* out) {
  out->args.resize(n);
  for (size_t i = 0; i < n; ++i) {
    PreparedArg& p = out->args[i];
    if (Status s = check_arg(args[i]); __builtin_expect(!s.ok(), 0))
      return error(s.code(), "argument %zu: %s", i, s.message().c_str());
    if (args[i].ref) {
      Object* o = object_of(args[i].ref);
      if (!o || o->runtime != this)
        return error(RAY_INVALID_ARGUMENT, "argument %zu is a stale reference", i);
      if (o->id.object_index() == kActorIndex) return error(RAY_INVALID_ARGUMENT, "argument %zu %s", i, kIsActor);
      p.ref = retain(o);
      if (o->state.load(std::memory_order_acquire) == ObjState::kReady &&
          !can_read(language, o->format))
        return unreadable(i, language, o->format);
      continue;
    }
    const ray_value& v = args[i].value;
    if (!can_read(language, v.format)) return unreadable(i, language, v.format);
    p.format = v.format;
    if (plain_inline(v)) {
      p.where = wire::kPlain;
      p.data = v.data;
      p.size = v.size;
      continue;
    }
    uint64_t size;
    RAY_TRY(wire::packed_size(v, &size));
    if (size > wire::kInlineValueMax) {
      RAY_TRY(put(v, &p.ref));
      p.ref->counts.fetch_sub(Object::kHandles, std::memory_order_relaxed);  // the task's alone: no caller has a handle
      continue;
    }
    for (uint32_t r = 0; r < v.n_refs; ++r)
      if (Object* o = object_of(v.refs[r])) out->held.push_back(retain(o));
    store::Interruptible scope(objects_.stop_waiting());  // what the references stand for may have to be stored first
    RAY_TRY(objects_.pack_inline(v, &p.owned));
    p.where = wire::kPacked;
    p.data = p.owned.data();
    p.size = p.owned.size();
  }
  return Status();
}

void Runtime::release_prepared(Prepared* p) {
  for (auto& a : p->args)
    if (a.ref) objects_.release(a.ref);
  for (Object* o : p->held) objects_.release(o);
  p->args.clear();
  p->held.clear();
}

static uint64_t arg_bytes(const PreparedArg& a) {
  if (!a.ref) return a.size;
  return a.ref->where == Where::kStore ? sizeof(wire::StoreRef) : a.ref->size;
}

uint64_t Runtime::encoded_size(const PendingTask* t, const Prepared& p) const {
  uint64_t n = wire::task_head_size(t->name.size(), t->method.size());
  for (const auto& a : p.args) n += wire::value_size(arg_bytes(a));
  return n;
}

static uint8_t* encode_arg(const PreparedArg& a, uint8_t* at) {
  const Object* o = a.ref;
  if (!o) return wire::put_value(at, {a.format, a.where, 0, a.size}, a.data);
  if (o->where == Where::kStore) {
    const wire::StoreRef r{o->id, o->location};
    return wire::put_value(at, {o->format, wire::kStore, 0, sizeof r}, &r);
  }
  return wire::put_value(at, {o->format, o->packed ? wire::kPacked : wire::kPlain, 0, o->size}, o->bytes());
}

// Header, name and method; `at` is aligned to 8. Made in place: a header that was copied right after it was written
// would be waited for.
uint8_t* Runtime::encode_head(const PendingTask* t, size_t n_args, uint32_t flags, uint8_t* at) const {
  const auto caller = static_cast<uint32_t>(t->relayed ? t->relayed->task.caller : language_);
  new (at) wire::TaskHeader{
      .task = t->id,
      .parent = t->parent,
      .tag = t->tag,
      .function = t->function->key,
      .actor = t->actor ? t->actor->id : ActorId{},
      .seq = t->seq,
      .kind = static_cast<uint32_t>(t->kind),
      .attempt = t->attempt,
      .n_args = static_cast<uint32_t>(n_args),
      .n_returns = t->n_returns,
      .stream_ack = t->stream ? t->stream->consumed : 0,
      .stream_window = t->stream ? t->stream->window : 0,
      .name_size = static_cast<uint16_t>(t->name.size()),
      .method_size = static_cast<uint16_t>(t->method.size()),
      .flags = uint32_t{t->group} << wire::kGroupShift | caller << wire::kCallerShift | flags,
      .submitted = t->submitted,
  };
  at = wire::put_padded(at + sizeof(wire::TaskHeader), t->name.data(), t->name.size());
  return wire::put_padded(at, t->method.data(), t->method.size());
}

void Runtime::encode(const PendingTask* t, const Prepared& p, uint8_t* at) const {
  at = encode_head(t, p.args.size(), 0, at);
  for (const auto& a : p.args) at = encode_arg(a, at);
}

// Arguments too large for a ring go to the store as one object. No lock held.
Status Runtime::shrink(PendingTask* t, Prepared* p, int64_t patience_ns) {
  uint64_t size = 0;
  for (const auto& a : p->args) size += wire::value_size(arg_bytes(a));
  ObjectId id = put_object(t->id, kArgumentsPut);
  std::shared_ptr<store::Client> store;
  RAY_TRY(objects_.open_store(&store));
  store::Building b;
  RAY_TRY(objects_.of_store(store->create(id, size, patience_ns, &b)));
  uint8_t* at = b.data;
  for (const auto& a : p->args) at = encode_arg(a, at);
  Object* o = objects_.make(id);  // before the value is sealed, which nobody could refer to
  if (!o) {
    store->abort(&b);
    return error(RAY_OUT_OF_MEMORY, "no memory for another reference");
  }
  wire::Location loc;
  if (Status s = objects_.of_store(store->seal(&b, &loc)); !s.ok()) {
    objects_.release(o);
    return s;
  }
  o->where = Where::kStore;
  o->location = loc;
  o->size = size;
  o->state.store(ObjState::kReady, std::memory_order_release);
  t->held.push_back(o);
  wire::StoreRef r{id, loc};
  t->spec.resize(wire::task_head_size(t->name.size(), t->method.size()) + sizeof r);
  uint8_t* spec = encode_head(t, p->args.size(), wire::kArgsInStore, reinterpret_cast<uint8_t*>(t->spec.data()));
  wire::put_head(spec, r);
  return Status();
}

// The submission is journaled before a worker can see the task.
void Runtime::lineage_submit(const PendingTask* t, const Prepared& p) {
  // The name is in the record, so that every shard's file can be read alone.
  bool named = !t->name.empty() || t->kind == RAY_KIND_ACTOR_CALL;
  const std::string& name = named ? t->name : t->function->name;
  const uint64_t head = sizeof(lineage::SubmitRecord) + pad8(name.size()) + pad8(t->method.size());
  uint64_t size = head;
  for (const auto& a : p.args) size += sizeof(lineage::ArgRecord) + pad8(a.ref ? kIdSize : a.size);
  bool whole = size <= wire::kInlineRecordMax * 2;  // else by reference to the stored arguments
  if (!whole) size = head;
  daemon_.lineage(lineage::kSubmit, static_cast<uint32_t>(size), [&](uint8_t* at) {
    auto& r = *new (at) lineage::SubmitRecord{};  // in place: copied right after it was written it would be waited for
    r.task = t->id;
    r.parent = t->parent;
    if (t->actor) r.actor = t->actor->id;
    r.function = t->function->key;
    r.handle_seq = t->seq;
    r.submit_ns = wall_of(stamp_ns());
    r.kind = t->kind;
    r.n_args = whole ? static_cast<uint32_t>(p.args.size()) : 0;
    r.n_returns = t->n_returns;
    r.process = process();
    r.name_size = static_cast<uint32_t>(name.size());
    r.method_size = static_cast<uint32_t>(t->method.size());
    at = wire::put_padded(at + sizeof r, name.data(), name.size());
    at = wire::put_padded(at, t->method.data(), t->method.size());
    for (size_t i = 0; whole && i < p.args.size(); ++i) {
      const auto& a = p.args[i];
      lineage::ArgRecord ar{a.ref ? 1u : 0u, a.format, a.ref ? kIdSize : a.size};
      at = wire::put_padded(wire::put_head(at, ar), a.ref ? a.ref->id.b : a.data, ar.size);
    }
  });
}

// Another execution is to come: until it has ended the task has not. As note_end().
void Runtime::lineage_again(const PendingTask* t) {
  if (!daemon_.journaled() || node_dead()) return;
  const lineage::AgainRecord r{t->id, t->attempt, 0};
  to_journal_.push_back({lineage::kAgain, std::string(reinterpret_cast<const char*>(&r), sizeof r)});
  have_deferred_ = true;
}

// It has failed, and no worker tells of that: it never ran, or died with its worker. Written when the lock has been
// dropped, for the ring may have no room. mutex_ held.
void Runtime::note_end(const PendingTask* t, const ErrorBox* e) {
  if (!daemon_.journaled() || node_dead()) return;
  const std::string_view text = std::string_view(e->message).substr(0, 1024);
  const lineage::EndRecord r{t->id, wall_of(stamp_ns()), t->attempt, e->code, static_cast<uint32_t>(text.size()), 0};
  to_journal_.push_back({lineage::kEnd, std::string(sizeof r + pad8(text.size()), '\0')});
  std::string& record = to_journal_.back().bytes;
  wire::put_padded(wire::put_padded(reinterpret_cast<uint8_t*>(record.data()), &r, sizeof r), text.data(), text.size());
  have_deferred_ = true;
}

void Runtime::write_ends() {
  std::vector<ToJournal> ends;
  {
    std::lock_guard lock(mutex_);
    ends.swap(to_journal_);
  }
  for (const auto& [type, bytes] : ends)
    daemon_.lineage(type, static_cast<uint32_t>(bytes.size()), [&](uint8_t* at) { std::memcpy(at, bytes.data(), bytes.size()); });
}

// ---- submit
// ----------------------------------------------------------------------------------------------

Status Runtime::submit(Function* f, const ray_arg* args, size_t n_args, const ray_task_options& o,
                       std::unique_ptr<Relayed> relayed, Object** returns, Stream** stream) {
  Prepared p;
  Status s = prepare_args(f->language, args, n_args, &p);
  if (!s.ok()) {
    release_prepared(&p);
    return s;
  }
  PendingTask* t = new_task();
  if (!t) {
    release_prepared(&p);
    return error(RAY_OUT_OF_MEMORY, "no memory for another task");
  }
  t->function = f;
  t->retries_left = o.max_retries == RAY_RETRIES_DEFAULT ? 3 : o.max_retries;
  if (o.resources_msgpack.size || !f->default_shape) {
    std::string resources = resources_of(o.resources_msgpack);
    if (auto r = wire::parse_resources(resources); !r.ok()) {
      release_prepared(&p);
      free_task(t);
      return r.status();
    }
    {
      std::lock_guard lock(mutex_);
      t->shape = shape(resources, f->language);
      if (t->shape && resources.empty()) f->default_shape = t->shape;
    }
    if (!t->shape) {
      release_prepared(&p);
      free_task(t);
      return error(RAY_INVALID_ARGUMENT,
                   "this process has asked for %zu different combinations of resources: round the "
                   "amounts, so that tasks of similar size ask for the same",
                   wire::kMaxShapes);
    }
  } else {
    t->shape = f->default_shape;
  }
  t->relayed = std::move(relayed);
  if (t->relayed) *t->relayed->tag = t->tag;
  return start_task(t, std::move(p), o, returns, stream);
}

Stream* Runtime::make_stream(PendingTask* t, const ray_task_options& o) {
  t->stream = new Stream;
  t->stream->runtime = this;
  t->stream->task = t;
  t->stream->id = t->id;
  t->stream->window = o.stream_window ? o.stream_window : 64;
  t->stream->to_end = o.flags & RAY_TASK_RUN_TO_END;
  return t->stream;
}

// All that was there has failed already. mutex_ held.
void Runtime::fail_late(PendingTask* t, Prepared* p) {
  hold_arguments(t, p);
  ErrorBox* e = over_error();
  fail_task(t, e);
  e->release();
}

// That of the node which it came from.
static void take_identity(PendingTask* t) {
  const RelayedTask& r = t->relayed->task;
  t->id = r.id, t->parent = r.parent, t->attempt = r.attempt;
}

// Everything that is common to tasks and actor calls, once function, actor and shape are set.
Status Runtime::start_task(PendingTask* t, Prepared&& p, const ray_task_options& o,
                           Object** returns, Stream** stream) {
  TaskContext* c = context();
  if (__builtin_expect(t->relayed != nullptr, 0)) take_identity(t);
  else t->parent = c->id;
  if (t->kind != RAY_KIND_ACTOR_CREATE && !t->relayed)  // whose id is known already
    t->id = nth_task(c->id, c->origin, c->next_submit.fetch_add(1, std::memory_order_relaxed));
  t->submitted = order_stamp();
  t->retry_on_error = o.flags & RAY_TASK_RETRY_ON_ERROR;
  t->group = static_cast<uint16_t>(std::min<uint32_t>(o.group, UINT16_MAX));
  if (o.name.size) t->name = view_string(o.name).substr(0, 255);
  t->n_returns = stream ? 0 : o.num_returns;
  if (stream) *stream = make_stream(t, o);
  for (uint32_t i = 0; i < t->n_returns; ++i) {
    Object* r = objects_.make(return_object(t->id, i), Object::kOwned + 1);  // the caller's and the task's
    if (!r) return error(RAY_OUT_OF_MEMORY, "no memory for another reference");
    r->producer = t;
    if (i == 0)
      t->return0 = r;
    else
      t->more_returns.push_back(r);
    returns[i] = r;
  }
  if (t->kind == RAY_KIND_ACTOR_CALL) t->seq = t->actor->next_seq.fetch_add(1, std::memory_order_relaxed);
  lineage_submit(t, p);
  RAY_FAULT("client.submit");
  std::unique_lock lock(mutex_);
  if (t->kind == RAY_KIND_ACTOR_CALL) {
    ++t->actor->n_pending;
    t->actor->n_keeping += t->keeps_actor;
    if (t->actor_retries) t->retries_left = t->actor->max_task_retries;
  } else {
    functions_.use(t->function);
    t->est_ns = t->function->run_ns < 0 ? LeasePolicy::kUnknownNs : t->function->run_ns;
  }
  ++n_pending_;
  if (t->shape) leases_.submitted(t->shape, t->est_ns);
  if (__builtin_expect(closed_ || node_dead(), 0)) {  // since the look of the caller
    fail_late(t, &p);
    lock.unlock();
    after_unlock();
    return Status();
  }
  bool waits = register_dependencies(t, p);
  // Under the lock: an argument that arrives meanwhile makes the record longer.
  uint64_t size = encoded_size(t, p);
  bool big = size > wire::kInlineRecordMax;
  if (waits || big) {
    park(t, std::move(p), big);
    lock.unlock();
    if (big) after_unlock();
    return Status();
  }
  hold_arguments(t, &p);
  if (!push_prepared(t, p)) {
    t->spec.resize(size);
    encode(t, p, reinterpret_cast<uint8_t*>(t->spec.data()));
    enqueue(t);
    if (std::exchange(results_wait_, false)) progress();
  }
  lock.unlock();
  if (have_deferred_.load(std::memory_order_relaxed)) after_unlock();
  return Status();
}

// How many arguments are not there yet; asks the daemon about borrowed ones. mutex_ held.
bool Runtime::register_dependencies(PendingTask* t, const Prepared& p) {
  for (const auto& a : p.args) {
    if (!a.ref || a.ref->state.load(std::memory_order_relaxed) == ObjState::kReady) continue;
    if (a.ref->done()) {  // failed: the task fails with it, once it stands in the queue
      t->deps_left += 1;
      failed_dependencies_.push_back({t, t->tag, retain(a.ref)});
      have_deferred_ = true;
      continue;
    }
    objects_.resolve(a.ref);
    ++t->deps_left;
    a.ref->waiters = new Waiter{a.ref->waiters, t, t->tag};
  }
  return t->deps_left > 0;
}

// Keeps a task that cannot be encoded yet: arguments missing, or to be stored first. mutex_ held.
void Runtime::park(PendingTask* t, Prepared&& p, bool big) {
  t->prepared = std::make_unique<Prepared>(std::move(p));
  for (auto& a : t->prepared->args) {
    if (a.ref || !a.owned.empty()) continue;
    a.owned.assign(static_cast<const char*>(a.data), a.size);
    a.data = a.owned.data();
  }
  for (auto& a : t->prepared->args)
    if (!a.ref && !a.owned.empty()) a.data = a.owned.data();
  ++needs_pulse_;
  if (t->shape) ++t->shape->parked;
  if (t->deps_left == 0 && big) {
    t->deps_left = 1;
    t->shrinking = true;
    to_shrink_.push_back(t);
    have_deferred_ = true;
  } else {
    urgent_work_ = true;
    bells_.poke();
  }
  if (t->actor && t->kind == RAY_KIND_ACTOR_CALL) {
    t->actor->park(t, t->actor->out_of_order);
    actors_.keep_for_call(t);
  } else {
    waiting_tasks_.push_back(t);
    if (t->actor) actors_.announce(t);
  }
}

// The references stay alive until the task is done.
void Runtime::hold_arguments(PendingTask* t, Prepared* p) {
  for (auto& a : p->args)
    if (a.ref) t->held.push_back(a.ref);
  for (Object* o : p->held) t->held.push_back(o);
  p->held.clear();
}

// An argument arrived (or one more step of preparation is over). mutex_ held.
void Runtime::task_ready(PendingTask* t) {
  if (--t->deps_left > 0) return;
  uint64_t size = encoded_size(t, *t->prepared);
  if (size > wire::kInlineRecordMax) {
    t->deps_left = 1;
    t->shrinking = true;
    to_shrink_.push_back(t);
    have_deferred_ = true;
    return;
  }
  t->spec.resize(size);
  encode(t, *t->prepared, reinterpret_cast<uint8_t*>(t->spec.data()));
  encoded(t);
}

// The record is in t->spec: off to the queue.
void Runtime::encoded(PendingTask* t) {
  unpark(t);
  if (t->actor && t->kind == RAY_KIND_ACTOR_CALL) {
    t->actor->complete(t);
    pump_actor(t->actor);
    return;
  }
  waiting_tasks_.remove(t);
  enqueue(t);
}

// It waits no more, and what it waited for may never come: there no trace of it stays, nor of others before it. Among
// many that wait for one object it is not looked for long. mutex_ held.
void Runtime::forget_waiter(const PendingTask* t) {
  constexpr int kFew = 64;
  for (const PreparedArg& a : t->prepared->args) {
    if (!a.ref || a.ref->done()) continue;
    int left = kFew;
    for (Waiter** at = &a.ref->waiters; *at && left > 0; --left) {
      Waiter* w = *at;
      const bool gone = w->task && (w->task == t || w->task->tag != w->token);
      if (!gone) {
        at = &w->next;
        continue;
      }
      *at = w->next;
      delete w;
    }
  }
}

// Its arguments stay held until it is done.
void Runtime::unpark(PendingTask* t) {
  if (!t->prepared) return;
  --needs_pulse_;
  if (t->shape) --t->shape->parked;
  if (t->deps_left > 0) forget_waiter(t);
  hold_arguments(t, t->prepared.get());
  t->prepared.reset();
}

void Runtime::shrink_parked(int64_t patience_ns) {
  for (;;) {
    PendingTask* t;
    {
      std::lock_guard lock(mutex_);
      if (to_shrink_.empty()) return;
      t = to_shrink_.back();
      to_shrink_.pop_back();
    }
    if (!store_arguments(t, patience_ns, patience_ns != 0)) later({.shrink = t});
    if (stopped_) callbacks_.run();  // the pulse thread has gone
  }
}

// False: there is no room now.
bool Runtime::store_arguments(PendingTask* t, int64_t patience_ns, bool last) {
  Status s = shrink(t, t->prepared.get(), patience_ns);
  std::lock_guard lock(mutex_);
  if (no_room(s) && !last && !t->cancelled) return false;
  if (s.ok() && node_dead()) s = error(RAY_NODE_DIED, "%s", death_.c_str());  // what waited has failed already
  else if (s.ok() && closed_) s = error(RAY_CANCELLED, "%s", kWasShutDown);
  t->deps_left = 0;
  t->shrinking = false;
  if (s.ok() && !t->cancelled) {
    encoded(t);
    return true;
  }
  if (t->cancelled) s = error(RAY_CANCELLED, "task %s was cancelled", t->id.hex().c_str());
  ErrorBox* e = make_error(s.code(), s.message());
  fail_waiting(t, e);
  e->release();
  return true;
}

void Runtime::enqueue(PendingTask* t) {
  task::enter<TaskKit>(t, TaskState::kQueued);
  if (t->kind == RAY_KIND_ACTOR_CREATE) return send_actor_create(t);
  if (t->actor) {
    t->actor->queue.push_back(t);
    pump_actor(t->actor);
    if (t->state != TaskState::kQueued) return;
    actors_.keep_for_call(t);
    if (t->actor->link) feed();
    return;
  }
  t->shape->backlog.push_back(t);
  pump(t->shape);
  if (t->state == TaskState::kQueued && !t->shape->leases.empty()) feed();
}

// ---- dispatch
// ---------------------------------------------------------------------------------------------

bool Runtime::push_prepared(PendingTask* t, const Prepared& p) {
  ClientLink* link;
  Lease* lease = nullptr;
  if (t->kind == RAY_KIND_ACTOR_CREATE) return false;
  if (t->actor) {
    link = t->actor->queue.empty() ? t->actor->link : nullptr;
    if (!link) return false;
  } else {
    if (!t->shape->backlog.empty() || !(lease = leases_.choose(t->shape, t->function->run_ns))) return false;
    link = lease->link;
  }
  uint32_t size = static_cast<uint32_t>(encoded_size(t, p));
  uint8_t* at = task_room(link, size);
  if (!at) return false;
  encode(t, p, at);
  pushed(t, link, lease, at, size);
  link->tasks.publish();
  wake(link);
  if (t->shape && (t->shape->pending > 1 || t->shape->want_sent == 0)) raise_want(t->shape);
  return true;
}

bool Runtime::push_spec(PendingTask* t, ClientLink* link) {
  uint32_t size = static_cast<uint32_t>(t->spec.size());
  uint8_t* at = task_room(link, size);
  if (!at) return false;
  std::memcpy(at, t->spec.data(), size);
  std::memcpy(at + offsetof(wire::TaskHeader, attempt), &t->attempt, sizeof t->attempt);
  if (t->stream)  // consumed since it was encoded
    std::memcpy(at + offsetof(wire::TaskHeader, stream_ack), &t->stream->consumed, sizeof(uint32_t));
  std::string().swap(t->spec);
  pushed(t, link, t->lease, at, size);
  return true;
}

// Room for a task record. The worker gives a record back as soon as it has answered it; what the answer asks
// for (another run, the task back) is made from that record, so it is kept until we have read the answer.
uint8_t* Runtime::task_room(ClientLink* link, uint32_t size) {
  if (void* at = link->tasks.reserve(wire::kLinkTask, size)) return static_cast<uint8_t*>(at);
  const bool kept = link->tasks.refresh(task::needed_from<TaskKit>(*link, link->tasks.tail()));
  void* at = link->tasks.reserve(wire::kLinkTask, size);
  results_wait_ |= !at && kept;
  return static_cast<uint8_t*>(at);
}

// The ring holds the record until its result is there: it is what a retry would use.
void Runtime::pushed(PendingTask* t, ClientLink* link, Lease* lease, const uint8_t* at,
                     uint32_t size) {
  task::enter<TaskKit>(t, TaskState::kPushed);
  t->link = link;
  t->lease = lease;
  remember_record(t, at, size);
  t->ring_end = link->tasks.tail();
  if (t->stream) t->stream->from_attempt = 0;
  if (link->inflight.empty()) link->last_result_ns = steady_ns();
  link->inflight.push_back(t);
  if (lease) LeasePolicy::pushed(lease, t->est_ns);
  if (!link->busy) {
    link->busy = true;
    busy_links_.push_back(link);
  }
}

// Moves the backlog into rings as far as there is room. mutex_ held.
void Runtime::pump(Shape* s) {
  if (__builtin_expect(s->gone_code != RAY_OK, 0)) return fail_backlog(s);
  ClientLink* ring_me[16];
  size_t n_ring = 0;
  leases_.pump(s, [&](PendingTask* t, Lease* l) {
    t->lease = l;
    if (!push_spec(t, l->link)) {
      t->lease = nullptr;
      return false;
    }
    bool known = false;
    for (size_t i = 0; i < n_ring; ++i) known |= ring_me[i] == l->link;
    if (known) return true;
    if (n_ring == 16) flush_rings(ring_me, &n_ring);
    ring_me[n_ring++] = l->link;
    return true;
  });
  flush_rings(ring_me, &n_ring);
  raise_want(s);
}

void Runtime::fail_backlog(Shape* s) {
  while (PendingTask* t = s->backlog.head) {
    s->backlog.remove(t);
    ErrorBox* e =
        make_error(s->gone_code, "task " + task_name(t) + " (" + t->id.hex() + ") " + s->gone_text);
    fail_task(t, e);
    e->release();
  }
}

void Runtime::flush_rings(ClientLink** links, size_t* n) {
  for (size_t i = 0; i < *n; ++i) {
    links[i]->tasks.publish();
    RAY_FAULT("client.pushed");  // and the worker is not woken
    wake(links[i]);
  }
  *n = 0;
}

}  // namespace ray
