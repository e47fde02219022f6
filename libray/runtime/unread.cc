// What this process itself knows and tells those who ask with ray_cluster_query: errors whose last
// reference went without anybody having seen them ("unread"), and its references, counted by who holds
// them ("references"). See runtime.h.
//
// An error is noted on whatever thread frees its object, and told on the pulse thread: a line of the log
// named "unread-error", which a binding may take as the sign to ask for the errors themselves. None of it
// costs a result that is no error anything. In an interactive session results may be kept for ever: there
// "neglected" also tells those that nobody saw for five seconds.
#include <unordered_map>
#include <unordered_set>

#include "libray/base/clock.h"
#include "libray/base/log.h"
#include "libray/runtime/runtime.h"
#include "libray/wire/msgpack.h"
#include "store/usage.h"

namespace ray {

// A get of many tells of one failure: the others are not missed either.
void Runtime::excuse(Object* const* objects, size_t n) {
  std::lock_guard lock(mutex_);
  for (size_t i = 0; i < n; ++i) {
    objects[i]->excused = true;
    if (objects[i]->state.load(std::memory_order_relaxed) == ObjState::kError)
      objects[i]->error->seen.store(true, std::memory_order_relaxed);
  }
}

// Whoever is told that an object is ready may find out that it failed.
void Runtime::saw(Object* const* objects, const uint8_t* ready, size_t n) {
  for (size_t i = 0; i < n; ++i)
    if (ready[i] && objects[i]->state.load(std::memory_order_acquire) == ObjState::kError)
      objects[i]->error->seen.store(true, std::memory_order_relaxed);
}

// Failures of the user's code and of its process are told; a task that was cancelled, or an actor that
// ended, is what somebody wanted. Nor is one that another process is to look at.
static bool is_missed(const Object* o) {
  const ray_code code = o->error->code;
  return (code == RAY_TASK_FAILED || code == RAY_WORKER_CRASHED) && !o->borrowed && !o->excused &&
         !o->error->seen.load(std::memory_order_relaxed);
}

// The error of an object that is being freed.
void Runtime::drop_error(Object* o) {
  constexpr size_t kMost = 1000;  // when nobody asks for them
  ErrorBox* e = o->error;
  if (stopping_ || !is_missed(o)) return e->release();
  e->seen.store(true, std::memory_order_relaxed);
  if (unread_.size() == kMost) {
    unread_.front()->release();
    unread_.pop_front();
  }
  unread_.push_back(e->retain());
  callbacks_.push_back([e] {
    log(kLogError, "runtime", "unread-error", "nobody looked at this error: %s", e->message.c_str());
    e->release();
  });
  ring_all(process_);
}

// How full the node's store is. The figures lie in memory that this process maps: it costs nobody anything to ask often.
static void tell_usage(const store::Client* client, std::string* answer) {
  const store::Usage u = client ? store::usage_of(*client) : store::Usage();
  wire::Writer(answer).map(3).str("capacity").uint64(u.capacity).str("used").uint64(u.used).str("waiting").uint64(u.waiting);
}

bool Runtime::local_query(const std::string& what, std::string* answer) {
  if (what == "neglected") find_neglected();
  if (what == "unread" || what == "neglected") take_unread(answer);
  else if (what == "references") list_references(answer);
  else if (what == "process") count_tables(answer);
  else if (what == "store_usage") tell_usage(store().get(), answer);
  else return false;
  return true;
}

// How much this process remembers of what its program does, by table.
void Runtime::count_tables(std::string* answer) {
  std::lock_guard lock(mutex_);
  wire::Writer(answer).map(4).str("functions").uint64(functions_.size()).str("actors").uint64(actors_.size())
      .str("shapes").uint64(shape_list_.size()).str("tasks").uint64(n_pending_);
}

void Runtime::find_neglected() {
  constexpr int64_t kPatienceNs = 5000000000;
  std::lock_guard lock(mutex_);
  std::lock_guard steady(object_slab().mutex());
  const uint64_t looked = n_errors_;
  if (looked == neglect_looked_) return;
  bool later = false;
  Object* o;
  for (uint64_t i = 0; (o = object_slab().at(i)); ++i) {
    if (o->refs() == 0 || o->runtime != this) continue;
    if (o->state.load(std::memory_order_acquire) != ObjState::kError || !is_missed(o)) continue;
    if (steady_ns() - o->error->since_ns < kPatienceNs) {
      later = true;
      continue;
    }
    o->error->seen.store(true, std::memory_order_relaxed);
    unread_.push_back(o->error->retain());
  }
  if (!later) neglect_looked_ = looked;
}

void Runtime::take_unread(std::string* answer) {
  std::deque<ErrorBox*> list;
  {
    std::lock_guard lock(mutex_);
    list.swap(unread_);
  }
  wire::Writer w(answer);
  w.array(static_cast<uint32_t>(list.size()));
  for (ErrorBox* e : list) {
    w.map(4).str("code").int64(e->code).str("message").bin(e->message);
    w.str("format").uint64(e->payload_format).str("payload").bin(e->payload);
    e->release();
  }
}

namespace {

struct Counts {
  uint32_t tasks = 0, results = 0, values = 0;
};
using CountsOf = std::unordered_map<const Object*, Counts>;

void count(const PendingTask* t, CountsOf* counts) {
  if (!t->shrinking)  // else what it holds changes without the lock
    for (Object* o : t->held) ++(*counts)[o].tasks;
  if (t->prepared && !t->shrinking) {
    for (const PreparedArg& a : t->prepared->args)
      if (a.ref) ++(*counts)[a.ref].tasks;
    for (Object* o : t->prepared->held) ++(*counts)[o].tasks;
  }
  for (uint32_t i = 0; i < t->n_returns; ++i) ++(*counts)[t->result(i)].results;
}

void count(const TaskList& list, CountsOf* counts) {
  for (const PendingTask* t = list.head; t; t = t->next) count(t, counts);
}

}  // namespace

// One row per object that this process refers to; those that stand for actors are left out. Tasks are
// looked for in the queues that they stand in: one that is just being made is not complete.
void Runtime::list_references(std::string* answer) {
  CountsOf counts;
  std::unordered_set<const Object*> actors;
  std::lock_guard lock(mutex_);
  count(waiting_tasks_, &counts);
  for (auto& [id, link] : links_) count(link->inflight, &counts);
  for (const Shape* s : shape_list_) count(s->backlog, &counts);
  for (auto& [id, a] : actors_) {
    if (a->ref) actors.insert(a->ref);
    count(a->queue, &counts);
    count(a->aside, &counts);
    count(a->lost, &counts);
  }
  std::vector<const Object*> found;
  Object* o;
  std::lock_guard steady(object_slab().mutex());  // nothing comes or goes meanwhile
  for (uint64_t i = 0; (o = object_slab().at(i)); ++i) {
    if (o->refs() == 0 || o->runtime != this || actors.count(o)) continue;
    found.push_back(o);
    if (o->done() && o->contained)
      for (const Object* inside : *o->contained) ++counts[inside].values;
  }
  wire::Writer w(answer);
  w.array(static_cast<uint32_t>(found.size()));
  for (const Object* each : found) {
    const Counts& c = counts[each];
    const bool ready = each->state.load(std::memory_order_acquire) == ObjState::kReady;
    w.map(6).str("object").id(each->id).str("count").uint64(each->refs());
    w.str("by_tasks").uint64(c.tasks).str("by_results").uint64(c.results);
    w.str("by_values").uint64(c.values).str("size");
    ready ? w.uint64(each->size) : w.nil();
  }
}

}  // namespace ray
