// Serving tasks: claiming, arguments, results, finishing. See worker.h; execute.cc runs native
// code.
#include "libray/runtime/worker.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>

#include "libray/base/fault.h"
#include "libray/base/log.h"
#include "libray/base/thread.h"
#include "libray/runtime/registry.h"
#include "libray/runtime/runtime.h"
#include "libray/runtime/runtime_inl.h"
#include "libray/wire/msgpack.h"

namespace ray {

WorkerSide::~WorkerSide() {
  if (Execution* e = spare_.load()) pool_.push_back(e);
  for (Execution* e : pool_) {
    HandleTable::instance().release(e->handle, kHandleTask);
    delete e;
  }
}

// ---- links
// -----------------------------------------------------------------------------------------

void WorkerSide::add_link(const wire::DnLink& l, Mapping map) {
  auto link = std::make_shared<ServeLink>();
  link->id = l.link;
  link->client = l.peer;
  link->map = std::move(map);
  uint8_t* base = link->map.data();
  link->header = reinterpret_cast<wire::LinkHeader*>(base);
  link->tasks =
      RingConsumer(&link->header->tasks, base + wire::kLinkTasksOffset, wire::kLinkRingBytes);
  link->results =
      RingProducer(&link->header->results, base + wire::kLinkResultsOffset, wire::kLinkRingBytes);
  {
    std::lock_guard lock(links_mutex_);
    links_.push_back(link);
  }
  runtime_->bells().poke();
}

void WorkerSide::client_died(uint32_t process) {
  std::shared_ptr<ServeLink> gone;
  {
    std::lock_guard lock(links_mutex_);
    for (size_t i = 0; i < links_.size(); ++i)
      if (links_[i]->client == process) {
        gone = links_[i];
        links_.erase(links_.begin() + static_cast<long>(i));
        break;
      }
  }
  if (!gone) return;
  gone->dead = true;
  cancel_waiting_of(gone.get());
  std::lock_guard lock(run_mutex_);
  for (Execution* e : running_)
    if (e->link == gone) {
      e->cancelled = true;
      interrupt(e);
      if (stand_in_) cancel_forwarded(e, RAY_CANCEL_FORCE);  // its result has nowhere to go
    }
}

void WorkerSide::become_actor(const wire::ActorInitRecord& r) {
  const wire::DnActorInit& init = r.head;
  auto e = std::make_unique<Execution>();
  e->side = this;
  e->record_copy = r.record;
  e->record = reinterpret_cast<const uint8_t*>(e->record_copy.data());
  e->record_size = init.size;
  if (!wire::read_head(r.record, &e->header)) return;
  actor_ = init.id;
  incarnation_ = init.incarnation;
  runtime_->become_actor(init.id, init.incarnation);
  e->header.actor = init.id;
  e->header.attempt = init.incarnation;
  max_concurrency_ = std::max<uint32_t>(1, init.max_concurrency);
  r.units.copy_to(&gpus_);
  e->n_gpus = init.n_gpus;
  is_actor_ = true;
  {
    std::lock_guard lock(run_mutex_);
    creation_ = std::move(e);
    have_creation_ = true;
  }
  runtime_->bells().poke();
}

void WorkerSide::unwanted() {
  unwanted_ = true;
  runtime_->bells().poke();
}

void WorkerSide::stop() {
  stop_ = true;
  runtime_->bells().poke();
  std::lock_guard lock(run_mutex_);
  interrupt(nullptr);
}

namespace {
thread_local bool t_interrupts = false;  // this thread is inside the interrupt hook, and has run_mutex_
}

// Null: the process is to end. run_mutex_ held.
void WorkerSide::interrupt(Execution* e) {
  if (!interrupt_) return;
  t_interrupts = true;
  interrupt_(static_cast<ray_task*>(e ? e->handle : nullptr), interrupt_user_);
  t_interrupts = false;
}

void WorkerSide::stop_reader() {
  {
    std::lock_guard lock(reader_mutex_);
    reader_ends_ = true;
  }
  reader_wakes_.notify_all();
  if (reader_.joinable()) reader_.join();
}

void WorkerSide::let_go() {
  std::lock_guard lock(links_mutex_);
  for (auto& l : links_) l->map.detach();
}

bool WorkerSide::leaving() const { return stop_ || exiting_; }

// ---- claiming
// ----------------------------------------------------------------------------------------

Execution* WorkerSide::new_execution() {
  if (Execution* e = spare_.exchange(nullptr, std::memory_order_acquire)) return e;
  std::lock_guard lock(run_mutex_);
  if (pool_.empty()) {
    auto* e = new Execution;
    e->side = this;
    return e;
  }
  Execution* e = pool_.back();
  pool_.pop_back();
  return e;
}

bool WorkerSide::claim(std::shared_ptr<ServeLink> from, Execution** out) {
  ServeLink* link = from.get();
  std::unique_lock lock(link->mutex);
  if (!link->takes()) return false;
  RecordView r;
  auto next = link->tasks.next(&r);
  if (next == RingConsumer::Next::kEmpty) return false;
  if (next == RingConsumer::Next::kCorrupt || r.size < sizeof(wire::TaskHeader)) {
    log(kLogError, "worker", "corrupt-ring", "client %u wrote garbage into its task ring",
        link->client);
    // Who wrote it, the client or a task of ours, is not known; the client's tasks go to another
    // worker. An actor has other clients, and what it runs for this one is still answered.
    (is_actor_ ? link->broken : link->dead) = true;
    if (!is_actor_) stop_ = true;
    const bool idle = given_up(link);
    lock.unlock();
    if (idle) give_up(link);
    return false;
  }
  Execution* e = new_execution();
  std::memcpy(&e->header, r.data, sizeof e->header);
  e->record = r.data;
  e->record_size = r.size;
  e->end = r.end;
  e->link = std::move(from);
  e->actor_pos = is_actor_ ? next_pos_.fetch_add(1, std::memory_order_relaxed) : 0;
  e->n_gpus = link->header->n_gpus.load(std::memory_order_relaxed);
  if (has_groups_) say_begun(e, false);  // before it counts as started
  link->claims.push_back({r.end, false});
  link->header->started.store(r.end, std::memory_order_release);
  if (link->header->cancel_count.load(std::memory_order_acquire) != link->cancel_seen ||
      !link->cancelled.empty()) {
    e->cancelled = was_cancelled(link, e->end);
  }
  *out = e;
  return true;
}

size_t WorkerSide::accelerators_of(const Execution* e, uint32_t kind, uint32_t* out, size_t capacity) const {
  const bool own = e->header.kind == RAY_KIND_TASK;  // an actor's are for life
  const size_t all = !own ? gpus_.size() : e->link ? std::min(e->n_gpus, wire::kLinkGpus) : 0;
  size_t n = 0;
  for (size_t i = 0; i < all; ++i) {
    const uint32_t unit = own ? e->link->header->gpus[i].load(std::memory_order_relaxed) : gpus_[i];
    if (unit >> wire::kAcceleratorShift != kind) continue;
    if (n < capacity) out[n] = unit & ((1u << wire::kAcceleratorShift) - 1);
    ++n;
  }
  return n;
}

bool WorkerSide::claim_any(Execution** out, uint32_t group) {
  if (__builtin_expect(leaves_, 0)) return false;
  if (has_groups_.load(std::memory_order_acquire)) return claim_grouped(out, group);
  if (outstanding_.load(std::memory_order_relaxed) >= max_concurrency_.load()) return false;
  if (have_creation_.load(std::memory_order_acquire)) {
    std::lock_guard lock(run_mutex_);
    if (creation_) {
      outstanding_.fetch_add(1);
      *out = creation_.release();
      have_creation_ = false;
      return true;
    }
  }
  if (is_actor_ && !actor_ready_) return false;
  while (std::shared_ptr<ServeLink> link = oldest_link()) {
    if (!take_place()) return false;
    if (!leaves_ && claim(std::move(link), out)) return true;  // whoever departs looks at the place after leaves_
    give_place(nullptr);
    if (leaves_) return false;
  }
  return false;
}

// One of the max_concurrency places: before a call is claimed, since a claimed one has begun.
bool WorkerSide::take_place() {
  uint32_t n = outstanding_.load(std::memory_order_relaxed);
  while (n < max_concurrency_.load())
    if (outstanding_.compare_exchange_weak(n, n + 1)) return true;
  return false;
}

// Whoever found no place sleeps until one is free, though no call comes then: a thread, or a loop at its descriptor.
void WorkerSide::give_place(CallGroup* group) {
  bool was_full = outstanding_.fetch_sub(1) >= max_concurrency_.load();
  if (group) was_full = group->outstanding.fetch_sub(1) >= group->limit;
  running_changed();
  if (asleep_at_limit_.load()) runtime_->bells().ring_own();
  if (event_used_ && was_full) ring_events(false, group || has_work());
}

bool WorkerSide::has_work() {
  if (have_creation_ || group_waits()) return true;
  std::lock_guard lock(links_mutex_);
  for (auto& l : links_) {
    std::lock_guard own(l->mutex);
    if (l->takes() && !l->tasks.empty()) return true;
  }
  return false;
}

// Counts a thread that sleeps because as many calls run as may. Whoever finishes one looks at the count after it gave
// the place back, and this thread looks for a place after it is counted: one of them sees the other.
class WorkerSide::AsleepAtLimit {
 public:
  AsleepAtLimit(WorkerSide* side, uint32_t group) : side_(side) {
    if (!side->full(group)) return;
    side->asleep_at_limit_.fetch_add(1);
    counted_ = true;
  }
  ~AsleepAtLimit() {
    if (counted_) side_->asleep_at_limit_.fetch_sub(1);
  }
  AsleepAtLimit(const AsleepAtLimit&) = delete;
  AsleepAtLimit& operator=(const AsleepAtLimit&) = delete;
  bool counted() const { return counted_; }

 private:
  WorkerSide* side_;
  bool counted_ = false;
};

Status WorkerSide::next(int64_t timeout_ns, Execution** out, uint32_t group) {
  int64_t start = 0, spin = 0, crowded_spin = -1;
  bool slept = false;
  for (;;) {
    Execution* e = nullptr;
    if (leaving()) return error(RAY_CANCELLED, "this worker is to end");
    if (__builtin_expect(leaves_ && !retiring_, 0) && outstanding_ == 0) {
      depart();
      continue;
    }
    Status read;
    const bool was_read = take_read(&e, &read, group);
    if (was_read || claim_any(&e, group)) {
      if (start && !slept) (crowded_spin < 0 ? idle_spin_ : crowded_spin_).answered();
      bool begins = !e->cancelled;
      *out = was_read ? ready(e, read) : this->start(e, timeout_ns != 0);
      if (!*out) continue;
      if (begins && !e->cancelled) return Status();
      fail(e, "the task was cancelled before it started", nullptr);
      (void)finish(e, RAY_CANCELLED);
      continue;
    }
    const bool crowded = runtime_->wakes().crowded();
    if (!crowded) ring_unrung();
    if (unwanted_ && outstanding_ == 0 && !has_work()) {
      RAY_TRY(exit_actor("the last handle of the actor is gone"));
      continue;
    }
    if (timeout_ns == 0) {
      ring_unrung();
      const Fd& event = has_groups_ ? groups_[group]->event : event_;
      uint64_t drain;
      // What came between the look at the rings and this read would be announced to nobody.
      if (event.valid() && ::read(event.get(), &drain, sizeof drain) > 0 && anything_for(group))
        continue;
      return Status(RAY_TIMED_OUT);
    }
    int64_t now = steady_ns();
    if (!start) {
      start = now;
      spin = idle_spin_.ns();
    }
    if (timeout_ns > 0 && now - start >= timeout_ns) return Status(RAY_TIMED_OUT);
    if (crowded && crowded_spin < 0) crowded_spin = std::min(spin, crowded_spin_.ns());
    if (now - start < (crowded ? crowded_spin : spin)) {
      for (int i = 0; i < (crowded ? 4 : 20); ++i) cpu_relax();
      continue;
    }
    if (!slept) (crowded ? crowded_spin_ : idle_spin_).slept();
    slept = true;
    auto* word = runtime_->bells().own();
    const uint32_t how = arm(word);
    // Several calls may be behind one mark: then all threads look, as after a ring.
    if (runtime_->wakes().settle() && (max_concurrency_ > 1 || has_groups_)) ray::ring(word);
    const AsleepAtLimit asleep(this, group);
    if (anything_for(group) || about_to_leave()) continue;
    if (!asleep.counted() && full(group)) continue;  // since a moment ago
    // A client that waits for many results looks by itself; who passes nothing on wakes it.
    if (!runtime_->wakes().pass_on()) ring_unrung();
    int64_t left = timeout_ns < 0 ? 1000000000 : timeout_ns - (now - start);
    sleep_armed(word, how, std::min<int64_t>(left, 1000000000));
  }
}

int WorkerSide::event_fd(uint32_t group) {
  std::lock_guard lock(run_mutex_);
  if (has_groups_ && group >= groups_.size()) return -1;
  Fd& event = has_groups_ ? groups_[group]->event : event_;
  if (!event.valid()) {
    event = Fd(::eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK));
    event_used_ = true;  // from now on the pulse thread watches for tasks
    runtime_->bells().poke();
  }
  return event.get();
}

// Makes an execution ready for user code; nullptr = it could not be and was finished, or its arguments have to be read
// from disk and the caller may not wait for that.
Execution* WorkerSide::start(Execution* e, bool may_block) {
  const wire::TaskHeader& h = e->header;
  running_changed();
  e->context.id = h.task;
  e->context.parent = h.parent;
  e->context.actor = h.actor;
  e->context.origin = origin_of(h.task);
  e->context.attempt = h.attempt;
  e->context.next_submit = 1;
  e->context.next_put = 1;
  e->context.cancelled = &e->cancelled;
  e->start_stamp = stamp_ns();
  e->start_wall = wall_of(e->start_stamp);
  if (!e->handle) e->handle = HandleTable::instance().insert(kHandleTask, e);
  const bool named = read_names(e);  // an interrupt hook may ask for them from now on
  {
    std::lock_guard lock(run_mutex_);
    running_.push_back(e);
    show(e);
  }
  if (e->link && e->link->dead) e->cancelled = true;  // since the claim
  // One that came since the claim was looked for among what runs before this was.
  if (e->link && __builtin_expect(e->link->any_cancelled.load(std::memory_order_relaxed), 0)) {
    std::lock_guard lock(e->link->mutex);
    if (was_cancelled(e->link.get(), e->end)) e->cancelled = true;
  }
  e->results.resize(h.n_returns);
  if (h.kind == RAY_KIND_ACTOR_CREATE) class_key_ = h.function;
  if (e->cancelled) return ready(e, Status());  // its arguments are not needed
  if (may_block) runtime_->set_context(&e->context);  // its cancellation ends a wait for them
  Status s = named ? read_args(e, may_block) : error(RAY_INTERNAL, "task record is damaged");
  if (may_block || s.code() != RAY_TIMED_OUT) return ready(e, s);
  read_later(e);
  return nullptr;
}

// The calling thread is about to run it, its arguments having been read with this outcome.
Execution* WorkerSide::ready(Execution* e, const Status& read) {
  runtime_->set_context(&e->context);
  if (read.ok()) return e;
  Status s = read;
  if (auto store = runtime_->objects().store(); store && store->disconnected() && !runtime_->daemon_gone()) {
    // This process lost the store, by what its tasks did to its memory or descriptors: another worker has it.
    log(kLogError, "worker", "store-lost", "the connection to the object store is broken: this worker ends");
    stop_ = true;
    s = error(RAY_WORKER_CRASHED, "the worker has lost its connection to the object store");
  }
  fail(e, "argument cannot be read: " + s.message(), nullptr);
  (void)finish(e, s.code() == RAY_OK ? RAY_INTERNAL : s.code());
  return nullptr;
}

void WorkerSide::drop_args(Execution* e) {
  for (auto& a : e->args)
    if (a.release) a.release(&a);
  if (e->args_pinned) runtime_->objects().unpin(&e->args_pin);
  e->args_pinned = false;
  e->args.clear();
}

void WorkerSide::read_later(Execution* e) {
  drop_args(e);
  std::lock_guard lock(reader_mutex_);
  to_read_.push_back(e);
  if (!reader_.joinable() && !reader_ends_) {
    if (Status s = start_thread(&reader_, "a thread of libray that reads arguments", [this] { read_aside(); }); !s.ok()) {
      to_read_.pop_back();
      read_.push_back({e, s});
      ++n_read_;
      return;
    }
  }
  reader_wakes_.notify_one();
}

void WorkerSide::read_aside() {
  std::unique_lock lock(reader_mutex_);
  for (;;) {
    reader_wakes_.wait(lock, [this] { return reader_ends_ || !to_read_.empty(); });
    if (reader_ends_) return;
    Execution* e = to_read_.front();
    to_read_.pop_front();
    lock.unlock();
    runtime_->set_context(&e->context);
    Status s = e->cancelled ? Status() : read_args(e, true);
    runtime_->set_context(nullptr);
    lock.lock();
    read_.push_back({e, s});
    ++n_read_;
    lock.unlock();
    runtime_->bells().ring_own();
    ring_events(true, true);
    lock.lock();
  }
}

bool WorkerSide::take_read(Execution** out, Status* s, uint32_t group) {
  if (__builtin_expect(n_read_.load(std::memory_order_acquire) == 0, 1)) return false;
  std::lock_guard lock(reader_mutex_);
  auto it = std::find_if(read_.begin(), read_.end(), [&](const Read& r) { return r.e->group == group; });
  if (it == read_.end()) return false;
  *out = it->e;
  *s = it->status;
  read_.erase(it);
  --n_read_;
  return true;
}

bool WorkerSide::any_read(uint32_t group) {
  if (__builtin_expect(n_read_.load(std::memory_order_acquire) == 0, 1)) return false;
  std::lock_guard lock(reader_mutex_);
  return std::any_of(read_.begin(), read_.end(), [&](const Read& r) { return r.e->group == group; });
}

// Of the task and its method, which stand before its arguments. False: they do not fit into the record.
// What follows the head, of which there is a copy since the task was claimed.
static bool behind_head(const Execution* e, std::string_view* name, std::string_view* method, std::string_view* args) {
  const wire::TaskHeader& h = e->header;
  wire::Parts parts(e->record + sizeof h, e->record_size - sizeof h);
  if (!parts.padded(h.name_size, name) || !parts.padded(h.method_size, method)) return false;
  *args = parts.rest();
  return true;
}

bool WorkerSide::read_names(Execution* e) {
  std::string_view name, method, args;
  if ((e->header.name_size | e->header.method_size) == 0) return true;  // they were cleared
  if (!behind_head(e, &name, &method, &args)) return false;
  e->name = name;
  e->method = method;
  return true;
}

// RAY_TIMED_OUT: some of it is on disk, and it may not block.
Status WorkerSide::read_args(Execution* e, bool may_block) {
  const wire::TaskHeader& h = e->header;
  auto damaged = [] { return error(RAY_INTERNAL, "task record is damaged"); };
  std::string_view name, method, bytes;
  if (!behind_head(e, &name, &method, &bytes)) return damaged();
  if (h.flags & wire::kArgsInStore) {
    wire::StoreRef r;
    if (!wire::read_head(bytes, &r)) return damaged();
    store::Interruptible scope(runtime_->objects().stop_waiting());
    std::shared_ptr<store::Client> store;
    RAY_TRY(runtime_->objects().open_store(&store));
    RAY_TRY(store->pin(r.id, r.location, may_block ? Objects::kStoreTimeoutNs : 0, &e->args_pin));
    e->args_pinned = true;
    bytes = wire::bytes_of(e->args_pin.data, e->args_pin.size);
  }
  if (h.n_args > bytes.size() / sizeof(wire::ArgHeader)) return damaged();
  wire::Parts parts(bytes);
  for (uint32_t i = 0; i < h.n_args; ++i) {
    wire::Value v;
    if (!wire::read(&parts, &v)) return damaged();
    e->args.push_back(RAY_BUFFER_INIT);
    RAY_TRY(read_arg(v, may_block, &e->args.back()));
  }
  return Status();
}

// Plain bytes are handed out in the ring itself: valid until the task is finished.
Status WorkerSide::read_arg(const wire::Value& v, bool may_block, ray_buffer* out) {
  const wire::ArgHeader& h = v.head;
  if (h.where == wire::kPlain || h.where == wire::kNone) {
    out->data = v.bytes;
    out->size = h.size;
    out->format = h.format;
    return Status();
  }
  auto view = std::make_unique<BufferView>();
  view->runtime = runtime_;
  if (h.where == wire::kPacked) {
    RAY_TRY(view->align(v.bytes, h.size, {}));
  } else {
    if (h.where != wire::kStore) return error(RAY_INTERNAL, "task record is damaged");
    const wire::StoreRef r = v.ref();
    RAY_TRY(runtime_->objects().open_store(&view->store));
    store::Interruptible scope(runtime_->objects().stop_waiting());
    RAY_TRY(view->store->pin(r.id, r.location, may_block ? Objects::kStoreTimeoutNs : 0, &view->pin));
    view->pinned = true;
    if (!wire::unpack(view->pin.data, view->pin.size, &view->packed)) {
      runtime_->objects().unpin(&view->pin);
      return error(RAY_INTERNAL, "object %s is damaged", r.id.hex().c_str());
    }
  }
  buffer_from_view(view.release(), out);
  return Status();
}

Status WorkerSide::take_arg(Execution* e, size_t index, ray_buffer* out) {
  if (index >= e->args.size())
    return error(RAY_INVALID_ARGUMENT, "argument %zu of %zu does not exist", index, e->args.size());
  ray_buffer& a = e->args[index];
  if (!a.data && !a.release && a.size == 0 && a.private_data == e)
    return error(RAY_WRONG_STATE, "argument %zu was taken already", index);
  auto* view = static_cast<BufferView*>(a.private_data);
  bool in_ring = !view || !view->pinned;
  if (in_ring && (!view || !view->aligned)) {
    // Its bytes end with the task: give the taker a copy.
    ray_value v = ray_plain(a.data, a.size, a.format);
    std::vector<ray_bytes> oob(a.oob, a.oob + a.n_oob);
    auto copy = std::make_unique<BufferView>();
    copy->runtime = runtime_;
    const uint8_t* image = nullptr;
    uint64_t size = 0;
    std::string packed;
    if (view) {
      image = view->packed.refs - sizeof(wire::PackedHeader) - 8 * view->packed.oob.size();
      size = static_cast<uint64_t>(view->packed.data + view->packed.size - image);
      for (auto& b : view->packed.oob)
        size = static_cast<uint64_t>(static_cast<const uint8_t*>(b.data) + b.size - image);
    } else {
      RAY_TRY(runtime_->objects().pack_inline(v, &packed));
      image = reinterpret_cast<const uint8_t*>(packed.data());
      size = packed.size();
    }
    copy->aligned.reset(new (std::align_val_t{wire::kOobAlign}) uint8_t[size]);
    std::memcpy(copy->aligned.get(), image, size);
    if (!wire::unpack(copy->aligned.get(), size, &copy->packed))
      return error(RAY_INTERNAL, "argument %zu is damaged", index);
    RAY_TRY(runtime_->objects().hold_contained(copy.get()));
    buffer_from_view(copy.release(), out);
    ray_buffer_release(&a);
  } else {
    RAY_TRY(runtime_->objects().hold_contained(view));
    *out = a;
  }
  a = RAY_BUFFER_INIT;
  a.private_data = e;  // marks it as taken
  return Status();
}

Status WorkerSide::definition(Execution* e) {
  if (e->definition_known && e->definition_key == e->header.function) return Status();
  FunctionDefinition d;
  RAY_TRY(runtime_->functions().definition(e->header.function, &d));
  std::lock_guard lock(run_mutex_);  // an interrupt hook may look at it
  e->definition = std::move(d);
  e->definition_known = true;
  e->definition_key = e->header.function;
  return Status();
}

const JobId& WorkerSide::job() const { return runtime_->job(); }

// Of a method: its class. Nobody is asked inside of the interrupt hook: the answer might have to come through the thread
// that runs it.
const std::string& WorkerSide::function_name(Execution* e) {
  if (e->header.kind == RAY_KIND_ACTOR_CALL) return class_name_;
  static const std::string unknown;
  if (t_interrupts) {
    if (e->definition_known && e->definition_key == e->header.function) return e->definition.name;
    const std::string* registered = Registry::instance().name_of(e->header.function);
    return registered ? *registered : unknown;
  }
  if (!definition(e).ok()) return unknown;
  if (e->header.kind == RAY_KIND_ACTOR_CREATE) class_name_ = e->definition.name;
  return e->definition.name;
}

// ---- telling the client
// ---------------------------------------------------------------------------------------------

void WorkerSide::fail(Execution* e, const std::string& message, const ray_value* payload) {
  e->error_image = error_image(RAY_TASK_FAILED, message, payload);
}

// Room for one result record. Waits while the client has not read what is there; nullptr when the
// client is gone. *lock holds the link's mutex on return.
void* WorkerSide::result_room(ServeLink* link, std::unique_lock<SpinLock>* lock, uint16_t type,
                              uint32_t size) {
  *lock = std::unique_lock(link->mutex);
  for (int i = 0;; ++i) {
    if (link->dead || runtime_->node_dead()) return nullptr;
    if (void* at = link->results.reserve(type, size)) return at;
    lock->unlock();
    runtime_->bells().ring_both(link->client);
    if (i > 20) {
      timespec ts{0, 50000};
      nanosleep(&ts, nullptr);
    } else {
      sched_yield();
    }
    lock->lock();
  }
}

void WorkerSide::publish(ServeLink* link) {
  link->results.publish();
  runtime_->bells().ring(link->client);
}

// A client that waits for many results is woken when there are no more tasks.
void WorkerSide::publish_lazily(ServeLink* link) {
  link->results.publish();
  if (!ring_unless_lazy(runtime_->bells().of(link->client))) return;
  link->unrung.store(true, std::memory_order_relaxed);
  unrung_.store(true, std::memory_order_relaxed);
}

void WorkerSide::ring_unrung() {
  if (!unrung_.load(std::memory_order_relaxed) || !unrung_.exchange(false, std::memory_order_relaxed)) return;
  std::lock_guard lock(links_mutex_);
  for (auto& l : links_)
    if (l->unrung.exchange(false, std::memory_order_relaxed)) runtime_->bells().ring(l->client);
}

// Frees the ring space of finished records, in order. link->mutex held.
void WorkerSide::complete_claim(ServeLink* link, uint64_t end) {
  for (Claim& c : link->claims)
    if (c.end == end) {
      c.done = true;
      break;
    }
  uint64_t free_to = 0;
  while (!link->claims.empty() && link->claims.front().done) {
    free_to = link->claims.front().end;
    link->claims.pop_front();
  }
  if (free_to) link->tasks.release_to(free_to);
}

// Nothing of a broken link runs any more, and every answer is in its ring: the node tells the client, which sends what it
// has no answer to through another link. No lock held but groups_mutex_.
void WorkerSide::give_up(ServeLink* link) {
  {
    std::lock_guard lock(links_mutex_);
    auto it = std::find_if(links_.begin(), links_.end(), [&](const auto& l) { return l.get() == link; });
    if (it == links_.end()) return;  // the client is gone, or another thread was here
    links_.erase(it);
  }
  runtime_->daemon().up(wire::kUpLinkLost, wire::UpLinkLost{link->client, 1, wire::kLinkCorrupt, 0});
}

// What is too much for one record goes ahead of it.
void WorkerSide::write_error_parts(Execution* e) {
  ServeLink* link = e->link.get();
  size_t at = 0;
  for (; e->error_image.size() - at > wire::kErrorPart; at += wire::kErrorPart) {
    std::unique_lock<SpinLock> lock;
    const uint64_t tag = e->header.tag;
    auto* room = static_cast<uint8_t*>(
        result_room(link, &lock, wire::kLinkPart, static_cast<uint32_t>(sizeof tag + wire::kErrorPart)));
    if (!room) return;
    wire::put_padded(wire::put_head(room, tag), e->error_image.data() + at, wire::kErrorPart);
    publish(link);
  }
  e->error_image.erase(0, at);
}

void WorkerSide::write_done(Execution* e, ray_code code) {
  ServeLink* link = e->link.get();
  bool ok = code == RAY_OK;
  if (__builtin_expect(e->error_image.size() > wire::kErrorPart, 0)) write_error_parts(e);
  uint64_t size = sizeof(wire::DoneHeader);
  if (ok)
    for (auto& r : e->results) size += wire::value_size(r.given ? r.bytes.size() : 0);
  else
    size += wire::value_size(e->error_image.size());
  std::unique_lock<SpinLock> lock;
  auto* at =
      static_cast<uint8_t*>(result_room(link, &lock, wire::kLinkDone, static_cast<uint32_t>(size)));
  if (at) {
    uint32_t n_results =
        ok ? static_cast<uint32_t>(e->results.size()) : 1 | (e->no_retry ? wire::kDoneNoRetry : 0) | e->done_bits;
    wire::DoneHeader d{e->header.tag, code, n_results,
                       static_cast<uint64_t>(e->end_stamp - e->start_stamp)};
    at = wire::put_head(at, d);
    auto add = [&](wire::ArgHeader h, const std::string& bytes) {
      h.size = bytes.size();
      at = wire::put_value(at, h, bytes.data());
    };
    static const std::string none;
    if (!ok)
      add({wire::kFmtError, wire::kPacked, 0, 0}, e->error_image);
    else
      for (auto& r : e->results)
        add(r.given ? r.header : wire::ArgHeader{RAY_FMT_MSGPACK, wire::kNone, 0, 0},
            r.given ? r.bytes : none);
    ok ? publish_lazily(link) : publish(link);
  } else {
    lock.unlock();
    discard_results(e);
    lock.lock();
  }
  complete_claim(link, e->end);
  const bool last = given_up(link);
  lock.unlock();
  if (__builtin_expect(last, 0)) give_up(link);
}

// ---- generators
// ---------------------------------------------------------------------------------------------

Status WorkerSide::limit_streams(uint32_t items) {
  if (!is_actor_ || actor_ready_)
    return error(RAY_WRONG_STATE, "the limit of an actor's generators is set in its constructor");
  if (items == 0) return error(RAY_INVALID_ARGUMENT, "a limit of 0 items lets no generator begin");
  stream_limit_ = items;
  return Status();
}

// The client counts what it took in the record of the task.
static std::atomic_ref<uint32_t> taken(const Execution* e) {
  auto* word = const_cast<uint8_t*>(e->record) + offsetof(wire::TaskHeader, stream_ack);
  return std::atomic_ref(*reinterpret_cast<uint32_t*>(word));
}

// A client of a task that runs again may have taken more than this execution has made.
uint32_t WorkerSide::unconsumed(const Execution* e) {
  const uint32_t made = e->yielded.load(std::memory_order_relaxed), took = taken(e).load(std::memory_order_acquire);
  return took > made ? 0 : made - took;
}

// A place for the next item under the limit of the whole actor. It is taken before the item is made, so that several
// generators do not make one each for the same place. True: it has one.
bool WorkerSide::reserve_item(Execution* e) {
  if (stream_limit_ == 0) return true;
  std::lock_guard lock(streams_mutex_);
  if (e->reserved) return true;
  if (!e->listed) {
    e->listed = true;
    streams_.push_back(e);
  }
  uint64_t used = n_reserved_;
  for (const Execution* s : streams_) used += unconsumed(s);
  if (used >= stream_limit_) return false;
  e->reserved = true;
  ++n_reserved_;
  return true;
}

void WorkerSide::count_item(Execution* e) {
  if (stream_limit_ == 0) {
    e->yielded.fetch_add(1, std::memory_order_relaxed);
    return;
  }
  std::lock_guard lock(streams_mutex_);
  e->yielded.fetch_add(1, std::memory_order_relaxed);
  n_reserved_ -= std::exchange(e->reserved, false);
}

// It has ended: what nobody took of it counts no more, and others may go on.
void WorkerSide::leave_streams(Execution* e) {
  if (!e->listed) return;
  {
    std::lock_guard lock(streams_mutex_);
    std::erase(streams_, e);
    n_reserved_ -= std::exchange(e->reserved, false);
    e->listed = false;
  }
  runtime_->bells().ring_own();
}

Status WorkerSide::await_room(Execution* e, int64_t timeout_ns) {
  if (!e->header.stream_window || !e->link)
    return error(RAY_WRONG_STATE, "this task is not a generator: it was not submitted as a stream");
  if (__builtin_expect(e->yielded >= kStreamEndIndex, 0))  // ids of what follows are those of other objects
    return error(RAY_INVALID_ARGUMENT, "a generator has at most %u items", kStreamEndIndex);
  ServeLink* link = e->link.get();
  auto room = [&] {
    return e->cancelled || link->dead || (unconsumed(e) < e->header.stream_window && reserve_item(e));
  };
  if (!room() && !runtime_->wait_until(room, timeout_ns))
    return unconsumed(e) < e->header.stream_window
               ? error(RAY_TIMED_OUT, "the actor's generators have %u items that nobody took", stream_limit_)
               : error(RAY_TIMED_OUT, "the window of %u items is full", e->header.stream_window);
  if (e->cancelled || link->dead) return error(RAY_CANCELLED, "nobody wants more items");
  return Status();
}

Status WorkerSide::yield(Execution* e, const ray_value& v, int64_t timeout_ns) {
  RAY_TRY(await_room(e, timeout_ns));
  ServeLink* link = e->link.get();
  Execution::Out out;
  const uint32_t index = e->yielded.load(std::memory_order_relaxed);
  RAY_TRY(encode_result(e, index, v, &out));
  RAY_FAULT("worker.yield");
  std::unique_lock<SpinLock> lock;
  uint32_t size =
      static_cast<uint32_t>(sizeof(wire::ItemHeader) + wire::value_size(out.bytes.size()));
  auto* at = static_cast<uint8_t*>(result_room(link, &lock, wire::kLinkItem, size));
  if (!at) {
    lock.unlock();
    discard_result(e, index, &out);
    return error(RAY_CANCELLED, "nobody wants more items");
  }
  wire::ItemHeader h{e->header.tag, index, 0};
  count_item(e);  // before its client can have taken it
  out.header.size = out.bytes.size();
  wire::put_value(wire::put_head(at, h), out.header, out.bytes.data());
  publish(link);
  return Status();
}

// ---- finish
// -----------------------------------------------------------------------------------------------

Status WorkerSide::finish(Execution* e, ray_code code) {
  if (runtime_->context() == &e->context) runtime_->set_context(nullptr);
  bool ends = code == RAY_ACTOR_DIED && is_actor_;
  if (ends) RAY_TRY(exit_actor("it has ended by its own will"));
  if (ends && e->error_image.empty()) code = RAY_OK;
  if (code == RAY_OK && !e->error_image.empty()) code = RAY_TASK_FAILED;  // what ray_task_fail said stands
  if (code == RAY_OK)
    if (Status s = fit_results(e); !s.ok()) {
      fail(e, s.message(), nullptr);
      code = RAY_TASK_FAILED;
    }
  if (code != RAY_OK) {
    ray_code inner = RAY_INTERNAL;
    uint32_t format = 0;
    std::string message = code == RAY_CANCELLED
                              ? "it was cancelled"
                              : "the function returned " + std::string(ray_code_name(code));
    std::string payload;
    wire::unpack_error(e->error_image.data(), e->error_image.size(), &inner, &message, &format,
                       &payload);
    ray_code reported = e->cancelled && code == RAY_TASK_FAILED ? RAY_CANCELLED : code;
    bool foreign = reported < RAY_TASK_FAILED && reported != RAY_CANCELLED && reported != RAY_OUT_OF_MEMORY;
    if (foreign || reported == RAY_STREAM_END || reported > RAY_UNKNOWN_FUNCTION) reported = RAY_TASK_FAILED;
    e->error_image = wire::pack_error(reported, message, format, payload);
    code = reported;
  }
  // A failure of the node is not a failure of the task: its clients learn it from the node's end.
  if (code != RAY_OK && e->link && runtime_->daemon_gone()) e->link->dead = true;
  if (code != RAY_OK) discard_results(e);
  RAY_FAULT("worker.before_result");
  e->end_stamp = std::max(stamp_ns(), e->start_stamp);  // it may end on another thread
  write_lineage(e, code);
  leave_streams(e);  // its record, where its client counts, is the client's once it has the answer
  if (e->link) write_done(e, code);
  RAY_FAULT("worker.after_result");
  if (!e->link && !ends) finish_creation(e, code);
  recycle(e);
  return Status();
}

// An actor whose constructor failed is of no use: the daemon reports it and this process ends.
void WorkerSide::finish_creation(Execution* e, ray_code code) {
  std::string& image = e->error_image;
  bool ok = code == RAY_OK;
  if (!ok && image.size() > wire::kActorErrorMax) {  // the message must do
    ray_code inner;
    uint32_t format;
    std::string message, payload;
    wire::unpack_error(image.data(), image.size(), &inner, &message, &format, &payload);
    image = wire::pack_error(inner, message, 0, {});
  }
  RAY_FAULT("worker.actor.constructed");
  wire::UpActor u{actor_, incarnation_, code, 0, ok ? 0 : static_cast<uint32_t>(image.size())};
  runtime_->daemon().up_bytes(wire::kUpActorReady, &u, sizeof u, image.data(), u.size);
  if (ok)
    actor_ready_ = true;
  else
    exiting_ = true;
}

void WorkerSide::recycle(Execution* e) {
  e->context.turn.store(e->context.turn.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
  CallGroup* group = nullptr;
  if (has_groups_.load(std::memory_order_relaxed) && e->header.kind == RAY_KIND_ACTOR_CALL)
    group = groups_[e->group].get();
  std::shared_ptr<ServeLink> link;
  {
    std::lock_guard lock(run_mutex_);
    std::erase(running_, e);
    hide(e);
    // From here on nobody cancels it, or tells a binding of its handle, which becomes stale.
    link.swap(e->link);
    e->cancelled = false;
    e->number = e->cancel_how = e->done_bits = 0;
    e->handle = HandleTable::instance().renew(e->handle);
  }
  drop_args(e);
  for (auto& r : e->results) r.given = false, r.bytes.clear();
  e->results.clear();
  e->error_image.clear();
  e->name.clear();
  e->method.clear();
  e->record_copy.clear();
  e->yielded = 0;
  // The next task here is most likely of the same function. Large definitions are not kept once per execution.
  if (e->definition.definition.size() > 4096) e->definition_known = false;
  e->no_retry = e->registered = false;
  Execution* none = nullptr;
  if (!spare_.compare_exchange_strong(none, e, std::memory_order_release, std::memory_order_relaxed)) {
    std::lock_guard lock(run_mutex_);
    pool_.push_back(e);
  }
  give_place(group);
}

// ---- giving back, cancelling
// -----------------------------------------------------------------------------

void WorkerSide::set_interrupt(ray_interrupt_fn fn, void* user) {
  std::lock_guard lock(run_mutex_);
  interrupt_ = fn;
  interrupt_user_ = user;
  has_interrupt_ = fn != nullptr;
}

bool WorkerSide::on_pulse() {
  std::vector<std::shared_ptr<ServeLink>> links;
  {
    std::lock_guard lock(links_mutex_);
    links = links_;
  }
  bool work = have_creation_;
  for (auto& l : links) {
    scan_cancels(l);
    uint32_t asked = l->header->give_back.load(std::memory_order_acquire);
    if (stand_in_ && asked != l->give_back_seen) stand_in_->give_back();
    std::lock_guard lock(l->mutex);
    if ((asked != l->give_back_seen || retiring_) && give_back(l.get(), retiring_)) l->give_back_seen = asked;
    work |= l->takes() && !l->tasks.empty();
  }
  if (__builtin_expect(leaves_ && retiring_, 0)) depart();
  ring_events(leaving() || unwanted_ || (leaves_ && !retiring_), work);
  return work;
}

}  // namespace ray
