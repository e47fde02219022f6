// Workers of the simulated node; see world.h: one takes a record at a time from the rings of its clients, runs it, answers; it
// gives back what it has not begun when it is asked to, or waits itself; it ends itself for a task that is cancelled by force,
// if it runs that very task.
#include <algorithm>
#include <utility>

#include "libray/sim/node.h"

namespace ray::sim {

std::vector<Ring*> World::rings_of(Process* w) {
  std::vector<Ring*> all;
  for (uint64_t client : w->clients) {
    Process* c = process(client);
    auto r = c->rings.find(w->number);
    if (r != c->rings.end()) all.push_back(r->second.get());
  }
  return all;
}

// Somebody woke it, or it is done with something.
void World::work(Process* w) {
  for (Ring* r : rings_of(w)) look_at_cancels(w, r);
  for (Ring* r : rings_of(w)) {
    if (w->waits) give_back(w, r, true);
    else if (std::exchange(r->give_back_seen, r->give_back) != r->give_back) give_back(w, r, false);
  }
  while (w->alive && !w->client && !w->ending && !w->ends_for) {
    Ring* oldest = nullptr;
    for (Ring* r : rings_of(w))
      if (r->next < r->tail && (!oldest || r->records.at(r->next).task.id < oldest->records.at(oldest->next).task.id)) oldest = r;
    if (!oldest) return;
    take(w, oldest);
  }
}

void World::take(Process* w, Ring* ring) {
  const Ring::Record r = ring->records.at(ring->next);
  ring->next = ring->started = r.end;
  ring->claims[r.end] = false;
  if (!ring->cancelled.erase(r.end)) return begin(w, ring, r);
  tasks_.passed(r.task.id);
  answer(ring, r.end, {Ring::Result::kCancelled, r.task.id, false, 0});
}

void World::begin(Process* w, Ring* ring, const Ring::Record& r) {
  w->client = ring->client;
  w->task = r.task;
  w->end = r.end;
  w->began = clock_.now();
  ++w->runs;
  tasks_.began(r.task.id);
  if (w->ends_for) complain("force: task " + std::to_string(r.task.id) + " began where another is to end by force");
  if (w->actor.is_nil()) ledger_.began(w->number, clock_.now());
  if (r.task.length < 0 && !calm_) return;  // see drain()
  clock_.after(std::max(r.task.length, kUs), [this, number = w->number, runs = w->runs] {
    local(number, [this, runs](Process* p) {
      if (p->runs != runs) return;
      if (p->task.children > 0) wait_for_children(p);
      else if (p->task.needs && tasks_.is_open(p->task.needs)) wait_for_other(p);
      else finish(p, runs);
    });
  });
}

void World::answer(Ring* ring, uint64_t end, Ring::Result r) {
  ring->results.push_back(r);
  ring->claims.at(end) = true;
  while (!ring->claims.empty() && ring->claims.begin()->second) {
    ring->freed = ring->claims.begin()->first;
    ring->claims.erase(ring->claims.begin());
  }
  if (random_.one_in(3)) return;  // nobody waits there: its next tick finds it
  link(ring->client, [this, worker = ring->worker](Process* c) {
    auto there = c->rings.find(worker);
    if (there != c->rings.end()) drain(c, there->second.get());
  });
}

// Calls of an actor stay: they have an order.
void World::give_back(Process* w, Ring* ring, bool blocked) {
  while (w->actor.is_nil() && ring->next < ring->tail) {
    const Ring::Record r = ring->records.at(ring->next);
    ring->next = r.end;
    ring->claims[r.end] = false;
    ring->cancelled.erase(r.end);  // its client knows
    answer(ring, r.end, {Ring::Result::kReturned, r.task.id, blocked, 0});
  }
}

void World::look_at_cancels(Process* w, Ring* ring) {
  for (const Ring::Cancel& c : std::exchange(ring->cancels, {})) {
    if (c.end > ring->next) {
      ring->cancelled.insert(c.end);
    } else if (w->client == ring->client && w->end == c.end && !w->ends_for) {
      if (c.force && !random_.one_in(4)) {
        w->ends_for = w->task.id;
        up(w, [this](Process* q) { tell(node::event::KillAsked{q->index, q->index, 0}); });
      } else if (!c.force && random_.one_in(2)) {  // some go on all the same
        finish(w, w->runs, true);
        return;
      }
    }
  }
}

// Waits in get, and has lent its CPU; or goes on.
void World::block(Process* w, bool yes) {
  w->waits = yes;
  up(w, [this, yes](Process* q) {
    ledger_.blocked(q->number, yes);
    tell(node::event::Blocked{q->index, yes});
  });
}

void World::wait_for_other(Process* w) {
  waiters_[w->task.needs].emplace_back(w->number, w->runs);
  block(w, true);
  work(w);
}

void World::wait_for_children(Process* w) {
  w->open_children = w->task.children;
  Shape shape;
  (void)shape.need.add("CPU", random_.one_in(3) ? 0.5 : 1);
  shape.pool = w->pool;
  uint32_t number = static_cast<uint32_t>(w->shapes.size());
  if (number > 3) number = 0;
  else define(w, number, std::move(shape));
  block(w, true);
  uint32_t depth = w->task.depth;
  for (uint32_t i = w->task.children; i > 0; --i) {
    Task task = some_task(number, depth - 1);
    task.length = std::max<int64_t>(task.length, kMs);
    submit(w, task);
  }
  work(w);  // what waits behind it goes elsewhere
}

void World::go_on_after_children(Process* w) {
  block(w, false);
  later(w, random_.between(1, 20) * kMs, [this, runs = w->runs](Process* p) { finish(p, runs); });
}

void World::finish(Process* w, uint64_t runs, bool cancelled) {
  if (w->runs != runs || w->ends_for || !w->client) return;
  ++w->runs;
  if (w->waits) block(w, false);
  Process* c = process(std::exchange(w->client, 0));
  tasks_.passed(w->task.id);
  Ring::Result r{Ring::Result::kDone, w->task.id, false, clock_.now() - w->began};
  if (cancelled) r.kind = Ring::Result::kCancelled;
  else if (w->task.fails && random_.one_in(2)) r.kind = Ring::Result::kFailed;
  auto ring = c->rings.find(w->number);
  if (ring != c->rings.end()) answer(ring->second.get(), w->end, r);
  if (planted(Fault::kFalseBlock)) up(w, [this](Process* q) { tell(node::event::Blocked{q->index, true}); });
  w->ending ? die(w) : work(w);
}

}  // namespace ray::sim
