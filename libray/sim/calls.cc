// Calls of actors in the simulated node; see world.h: a client's handles, whose order the real rules keep (libray/task,
// CallQueue), and what the daemon tells of the actors.
#include <utility>

#include "libray/sim/node.h"

namespace ray::sim {
namespace {

constexpr int64_t kWatch = 3 * kMs;

}  // namespace

void World::call_some() {
  Process* p = some_driver();
  if (!p || p->stopped) return;
  std::vector<Id> mine;
  for (const auto& [id, a] : actors_)
    if (a.job == p->job && (a.waits || a.worker)) mine.push_back(id);
  if (mine.empty()) return;
  const Id id = mine[random_.below(static_cast<uint32_t>(mine.size()))];
  Caller& c = p->callers[id];
  if (c.handle == 0) {
    c.handle = next_handle_++;
    c.id = id;
    c.any_order = random_.one_in(3);
  }
  if (!std::exchange(watches_, true)) watch_actors();
  for (uint32_t n = 1 + random_.below(12); n > 0; --n) {
    Task t = some_task(0, 0);
    t.length = random_.between(20, 40'000) * kUs;
    t.children = 0;
    t.handle = c.handle;
    t.any_order = c.any_order;
    call(p, &c, t, random_.one_in(8));
  }
}

void World::call(Process* p, Caller* c, Task task, bool waits) {
  task.seq = c->next_seq++;
  Pending* t = pending(p, task);
  t->actor = c;
  if (waits) {
    c->park(t, c->any_order);
    if (random_.one_in(4)) {  // those behind it are not to wait for it
      later(p, random_.between(1, 20) * kMs, [this, id = task.id](Process* q) {
        auto waiting = q->tasks.find(id);
        if (waiting != q->tasks.end()) cancel(q, waiting->second.get(), false);
      });
    }
    return later(p, random_.between(1, 60) * kMs, [this, id = task.id](Process* q) { ready(q, id); });
  }
  task::enter<Kit>(t, task::State::kQueued);
  c->queue.push_back(t);
  // One that was made while the actor restarts, and has no retries, is not kept.
  if (c->state == Caller::kRestarting && task.retries == 0) return fail_waiting(p, t, "its actor restarts");
  pump_calls(p, c);
}

void World::pump_calls(Process* p, Caller* c) {
  if (c->state == Caller::kDead) return fail_calls(p, c);
  if (c->ring && c->pump([&](Pending* t) { return push(p, c->ring, t); })) wake(c->ring);
}

void World::fail_calls(Process* p, Caller* c) {
  while (Pending* t = c->lost.pop_front()) ended(p, t, "its actor died");
  for (task::List<Pending>* list : {&c->queue, &c->aside})
    for (Pending *t = list->head, *next; t; t = next) {
      next = t->next;
      if (t->shrinking) continue;  // comes back here when it is stored
      list->remove(t);
      t->aside = false;
      ended(p, t, "its actor died");
    }
}

// What the daemon does when an actor's state changes: all that have a handle are told.
void World::watch_actors() {
  if (over() || leaving_) return;
  for (auto& [number, p] : processes_) {
    if (!p.alive) continue;
    for (auto& [id, c] : p.callers) {
      const Actor& a = actors_.at(id);
      Process* w = process(a.worker);
      Caller::State now = Caller::kDead;
      if (w && !w->buried) now = Caller::kAlive;
      else if (a.waits) now = c.told ? Caller::kRestarting : Caller::kPending;
      if (now == c.told_state && (now != Caller::kAlive || c.told == a.worker)) continue;
      c.told_state = now;
      if (now == Caller::kAlive) {
        c.told = a.worker;
        w->clients.insert(number);
      }
      down(&p, [this, id = id, now, worker = a.worker](Process* q) { actor_state(q, id, now, worker); });
    }
  }
  look_at_calls();
  clock_.after(kWatch, [this] { watch_actors(); });
}

// A call whose arguments are there, with nothing before it, goes.
void World::look_at_calls() {
  for (auto& [number, p] : processes_)
    for (auto& [id, c] : p.callers) {
      const bool could = p.alive && !p.stopped && c.state == Caller::kAlive && c.ring && c.queue.head &&
                         c.queue.head->state == task::State::kQueued && c.ring->inflight.empty();
      if (!could) c.could_since = 0;
      else if (!c.could_since) c.could_since = clock_.now();
      else if (clock_.now() - c.could_since > 20 * kMs)
        complain("held: call " + std::to_string(c.queue.head->seq) + " of handle " + std::to_string(c.handle) +
                 " could go on, and does not");
    }
}

// As Runtime::take_state().
void World::actor_state(Process* p, const Id& id, Caller::State state, uint64_t worker) {
  progress(p);
  Caller& c = p->callers.at(id);
  if (c.state == Caller::kDead) return;
  const bool restarted = state == Caller::kRestarting || (state == Caller::kAlive && worker != c.worker);
  c.state = state;
  if (state == Caller::kDead) return fail_calls(p, &c);
  if (restarted)
    for (const Pending* t = c.lost.head; t; t = t->next) tasks_.came_back(t->id);
  if (restarted)
    c.settle_lost([&](Pending* t) { ended(p, t, t->cancelled ? "cancelled" : "crashed"); }, [](Pending*) {});
  if (state != Caller::kAlive) return;
  c.worker = worker;
  c.ring = ring(p, worker);
  c.ring->actor = &c;
  pump_calls(p, &c);
}

}  // namespace ray::sim
