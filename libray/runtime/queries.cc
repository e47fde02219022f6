// What this process itself knows and tells those who ask with ray_cluster_query: errors that nobody has seen, its references,
// counted by who holds them ("references"), how much it remembers ("process"), how full the store is. See runtime.h.
//
// Threads: callers. It looks at every part of the runtime and changes none.
#include <unordered_map>
#include <unordered_set>

#include "libray/base/clock.h"
#include "libray/runtime/runtime.h"
#include "libray/wire/msgpack.h"
#include "store/usage.h"

namespace ray {

// How full the node's store is. The figures lie in memory that this process maps: it costs nobody anything to ask often.
static void tell_usage(const store::Client* client, std::string* answer) {
  const store::Usage u = client ? store::usage_of(*client) : store::Usage();
  wire::Writer(answer).map(3).str("capacity").uint64(u.capacity).str("used").uint64(u.used).str("waiting").uint64(u.waiting);
}

bool Runtime::local_query(const std::string& what, std::string* answer) {
  if (what == "neglected") {
    std::lock_guard lock(mutex_);
    unread_errors_.find_neglected(this, n_errors_);
  }
  if (what == "unread" || what == "neglected") unread_errors_.take(answer);
  else if (what == "references") list_references(answer);
  else if (what == "process") count_tables(answer);
  else if (what == "store_usage") tell_usage(objects_.store().get(), answer);
  else return false;
  return true;
}

// How much this process remembers of what its program does, by table.
void Runtime::count_tables(std::string* answer) {
  std::lock_guard lock(mutex_);
  wire::Writer(answer).map(4).str("functions").uint64(functions_.size()).str("actors").uint64(actors_.all().size())
      .str("shapes").uint64(shape_list_.size()).str("tasks").uint64(n_pending_);
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
  for (auto& [id, a] : actors_.all()) {
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
