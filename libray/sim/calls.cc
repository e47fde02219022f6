// Calls of actors in the simulated node; see world.h: a client's handles, whose order the real rules keep (libray/task,
// CallQueue), and what the daemon tells it of the actors.
#include <utility>

#include "libray/sim/node.h"

namespace ray::sim {
namespace {

constexpr int64_t kWatch = 5 * kMs;
constexpr int64_t kAtOnce = 20 * kMs;

}  // namespace

void World::call_some() {
  Process* p = some_driver();
  if (!p || p->stopped) return;
  std::vector<Caller*> mine;
  for (auto& [id, c] : p->callers)
    if (c.state != wire::kActorDead && p->refs.count(id)) mine.push_back(&c);
  if (mine.empty()) return;
  Caller& c = *mine[random_.below(static_cast<uint32_t>(mine.size()))];
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
  if (c->state == wire::kActorRestarting && task.retries == 0) return fail_waiting(p, t, "its actor restarts");
  pump_calls(p, c);
}

void World::pump_calls(Process* p, Caller* c) {
  if (c->state == wire::kActorDead) return fail_calls(p, c);
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

// A call whose arguments are there, with nothing before it, goes.
void World::watch_calls() {
  if (over() || leaving_) return;
  for (auto& [index, number] : indexes_) {
    Process& p = processes_.at(number);
    for (auto& [id, c] : p.callers) {
      const bool could = c.queue.head && p.alive && !p.stopped && c.state == wire::kActorAlive && c.ring &&
                         c.queue.head->state == task::State::kQueued && c.ring->inflight.empty();
      if (!could) c.could_since = 0;
      else if (!c.could_since) c.could_since = clock_.now();
      else if (clock_.now() - c.could_since > kAtOnce)
        complain("held: call " + std::to_string(c.queue.head->seq) + " of handle " + std::to_string(c.handle) +
                 " could go on, and does not");
    }
  }
  clock_.after(kWatch, [this] { watch_calls(); });
}

// As Runtime::actor_state().
void World::actor_state(Process* p, const Id& id, const Fates::Told& told) {
  progress(p);
  auto found = p->callers.find(id);
  if (found == p->callers.end()) return;
  Caller& c = found->second;
  if (c.state == wire::kActorDead || told.incarnation < c.incarnation) return;
  const bool restarted = told.incarnation > c.incarnation || told.state == wire::kActorRestarting;
  c.incarnation = told.incarnation;
  c.state = told.state;
  if (told.state == wire::kActorDead) return fail_calls(p, &c);
  if (restarted || told.state == wire::kActorAlive)
    for (const Pending* t = c.lost.head; t; t = t->next) tasks_.came_back(t->id);
  if (restarted)
    c.settle_lost([&](Pending* t) { ended(p, t, t->cancelled ? "cancelled" : "crashed"); }, [](Pending*) {});
  if (told.state != wire::kActorAlive) return;
  c.resume_lost([&](Pending* t) { ended(p, t, "cancelled"); });
  c.ring = ring(p, told.worker);
  c.ring->actor = &c;
  pump_calls(p, &c);
}

}  // namespace ray::sim
