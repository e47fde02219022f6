// Clients and workers of the simulated node; see world.h. A client's own calls go to one process only; what it tells
// others is on its way for a while.
#include <algorithm>
#include <utility>

#include "libray/sim/node.h"

namespace ray::sim {
namespace {

constexpr uint32_t kMostWanted = 50;

}  // namespace

// ---- messages

void World::local(uint64_t number, std::function<void(Process*)> what) {
  Process* p = process(number);
  if (!p || !p->alive) return;
  if (!p->stopped) return what(p);
  p->held_back.push_back([this, number, what = std::move(what)] { local(number, what); });
}

// To the daemon; what was said before a death is heard before it.
void World::up(Process* p, std::function<void(Process*)> what) {
  if (!p->alive) return;
  int64_t delay = random_.one_in(20) ? random_.between(1, 30) * kMs : random_.between(10, 900) * kUs;
  p->up_at = std::max(p->up_at, clock_.now() + delay);
  clock_.at(p->up_at, [this, number = p->number, what = std::move(what)] {
    Process* sender = process(number);
    if (!sender || sender->buried) return;
    what(sender);
    need_decision();
  });
}

void World::down(Process* p, std::function<void(Process*)> what) {
  if (!p) return;
  p->down_at = std::max(p->down_at, clock_.now() + random_.between(10, 900) * kUs);
  clock_.at(p->down_at, [this, number = p->number, what = std::move(what)] { local(number, what); });
}

// From process to process.
void World::link(uint64_t to, std::function<void(Process*)> what) {
  clock_.after(random_.between(5, 300) * kUs, [this, to, what = std::move(what)] { local(to, what); });
}

// ---- a client

void World::define(Process* p, uint32_t number, Shape shape) {
  p->shapes[number] = shape;
  up(p, [this, number](Process* q) {
    Shape& s = q->shapes.at(number);
    sched::Placement place{s.where.group, s.where.bundle, ""};
    Status told = s_.define_shape(q->index, number, s.need, s.pool, place);
    history_.note(clock_.now(), "process %u: shape %u is {%s}%s", q->index, number, s.need.to_string().c_str(),
                  told.ok() ? "" : ", which is refused");
    if (!told.ok()) down(q, [this, number](Process* c) { unplaceable(c, number); });
  });
}

void World::submit(Process* p, Task task) {
  uint32_t shape = task.shape;
  if (p->shapes.at(shape).gone) return ended(p, task, "unplaceable");
  p->shapes.at(shape).pending.push_back(task);
  feed(p, shape);
}

// Leases that rest get what has come.
void World::feed(Process* p, uint32_t shape) {
  for (auto& [id, h] : p->leases)
    if (h.shape == shape && !h.task && !h.reclaimed && !p->shapes.at(shape).pending.empty()) run_next(p, &h);
  tell_want(p, shape);
}

void World::tell_want(Process* p, uint32_t shape) {
  Shape& s = p->shapes.at(shape);
  auto want = std::min<uint32_t>(static_cast<uint32_t>(s.pending.size()) + s.running, kMostWanted);
  if (s.gone || (want == s.told && !random_.one_in(30))) return;
  s.told = want;
  up(p, [this, shape, want](Process* q) {
    Shape& told = q->shapes.at(shape);
    told.want = want;
    (void)s_.want(q->index, shape, want, Id{});
  });
}

void World::run_next(Process* p, Held* h) {
  Shape& s = p->shapes.at(h->shape);
  ++h->lingers;
  h->task = std::make_unique<Task>(s.pending.front());
  s.pending.pop_front();
  ++s.running;
  link(h->worker, [this, client = p->number, lease = h->lease, task = *h->task](Process* w) {
    begin(w, client, lease, task);
  });
  if (planted(Fault::kEarlyReturn)) {
    Process* w = process(h->worker);
    up(p, [this, lease = h->lease, index = w ? w->index : 0](Process* q) {
      (void)s_.return_lease(q->index, index, lease, clock_.now());
    });
  }
}

void World::rest_or_return(Process* p, uint32_t lease) {
  Held& h = p->leases.at(lease);
  Shape& s = p->shapes.at(h.shape);
  if (h.reclaimed || s.gone) return give_back(p, lease);
  if (!s.pending.empty()) {
    run_next(p, &h);
    return tell_want(p, h.shape);
  }
  tell_want(p, h.shape);
  uint64_t since = ++h.lingers;
  clock_.after(random_.between(1, 60) * kMs, [this, number = p->number, lease, since] {
    local(number, [this, lease, since](Process* q) {
      auto held = q->leases.find(lease);
      if (held != q->leases.end() && held->second.lingers == since && !held->second.task) give_back(q, lease);
    });
  });
}

void World::give_back(Process* p, uint32_t lease) {
  auto h = p->leases.find(lease);
  uint64_t worker = h->second.worker;
  uint32_t shape = h->second.shape;
  p->leases.erase(h);
  if (planted(Fault::kLostReturn)) return;
  up(p, [this, worker, lease](Process* q) {
    Process* w = process(worker);
    if (!w || w->buried) return;
    history_.note(clock_.now(), "process %u gives lease %u of worker %u back", q->index, lease, w->index);
    if (leases_.erase(lease) && w->alive) ledger_.ended(worker);
    (void)s_.return_lease(q->index, w->index, lease, clock_.now());
  });
  tell_want(p, shape);
}

void World::granted(Process* p, uint32_t shape, uint32_t lease, uint64_t worker) {
  Held& h = p->leases[lease];
  h.shape = shape;
  h.lease = lease;
  h.worker = worker;
  rest_or_return(p, lease);
}

void World::reclaimed(Process* p, uint32_t lease) {
  auto h = p->leases.find(lease);
  if (h == p->leases.end()) return;
  h->second.reclaimed = true;
  if (!h->second.task) give_back(p, lease);
}

void World::result(Process* p, uint32_t lease, uint64_t task) {
  auto h = p->leases.find(lease);
  if (h == p->leases.end() || !h->second.task || h->second.task->id != task) return;  // its worker's death was first
  Task done = *h->second.task;
  h->second.task.reset();
  --p->shapes.at(done.shape).running;
  rest_or_return(p, lease);
  ended(p, done, "done");
  if (planted(Fault::kTwice)) ended(p, done, "done");
}

void World::ended(Process* p, const Task& task, const char* how) {
  tasks_.ended(task.id, how);
  if (p->driver && task.again && !calm_ && !p->shapes.at(task.shape).gone) {
    Task next = task;
    next.id = tasks_.submitted();
    submit(p, next);
  }
  if (p->driver || p->open_children == 0 || --p->open_children > 0) return;
  up(p, [this](Process* q) {
    ledger_.blocked(q->number, false);
    s_.worker_blocked(q->index, false);
  });
  clock_.after(random_.between(1, 20) * kMs, [this, number = p->number, runs = p->runs] {
    local(number, [this, runs](Process* w) { finish(w, runs); });
  });
}

void World::peer_died(Process* p, uint64_t worker) {
  Process* w = process(worker);
  std::vector<Held> lost;
  for (auto it = p->leases.begin(); it != p->leases.end();) {
    if (it->second.worker != worker) {
      ++it;
      continue;
    }
    lost.push_back(std::move(it->second));
    it = p->leases.erase(it);
  }
  for (Held& h : lost) {
    Shape& s = p->shapes.at(h.shape);
    if (h.task) {
      --s.running;
      bool done = w && w->done == h.task->id;  // the result lies in the ring
      if (!done && h.task->retries > 0 && !s.gone) {
        --h.task->retries;
        s.pending.push_front(*h.task);
        tasks_.is_open(h.task->id) ? void() : complain("once: a task that ended is tried again");
      } else {
        ended(p, *h.task, done ? "done" : "crashed");
      }
    }
    feed(p, h.shape);
  }
}

// Its group was removed.
void World::unplaceable(Process* p, uint32_t shape) {
  Shape& s = p->shapes.at(shape);
  s.gone = true;
  cancel(p, shape);
  for (auto it = p->leases.begin(); it != p->leases.end();) {
    uint32_t lease = it->first;
    bool rests = it->second.shape == shape && !it->second.task;
    ++it;
    if (rests) give_back(p, lease);
  }
}

void World::cancel(Process* p, uint32_t shape) {
  std::deque<Task> pending = std::exchange(p->shapes.at(shape).pending, {});
  for (Task& task : pending) {
    task.again = false;
    ended(p, task, "cancelled");
  }
  tell_want(p, shape);
}

// ---- a worker

void World::begin(Process* w, uint64_t client, uint32_t lease, const Task& task) {
  w->client = client;
  w->lease = lease;
  w->task = task;
  ++w->runs;
  ledger_.began(w->number, clock_.now());
  if (task.length < 0 && !calm_) return;  // see drain()
  clock_.after(std::max(task.length, kMs), [this, number = w->number, runs = w->runs] {
    local(number, [this, runs](Process* p) {
      if (p->runs != runs) return;
      p->task.children > 0 ? wait_for_children(p) : finish(p, runs);
    });
  });
}

void World::wait_for_children(Process* w) {
  w->open_children = w->task.children;
  Shape shape;
  (void)shape.need.add("CPU", random_.one_in(3) ? 0.5 : 1);
  shape.pool = w->pool;
  uint32_t number = static_cast<uint32_t>(w->shapes.size());
  if (number > 3) number = 0;
  else define(w, number, shape);
  up(w, [this](Process* q) {
    ledger_.blocked(q->number, true);
    s_.worker_blocked(q->index, true);
  });
  uint32_t depth = w->task.depth;
  for (uint32_t i = w->task.children; i > 0; --i) {
    Task task = some_task(number, depth - 1);
    task.length = std::max<int64_t>(task.length, kMs);
    submit(w, task);
  }
}

void World::finish(Process* w, uint64_t runs) {
  if (w->runs != runs) return;
  uint64_t task = w->task.id;
  ++w->runs;
  w->done = task;
  link(std::exchange(w->client, 0), [this, lease = w->lease, task](Process* c) { result(c, lease, task); });
  if (planted(Fault::kFalseBlock)) up(w, [this](Process* q) { s_.worker_blocked(q->index, true); });
  if (w->ending) die(w);
}

}  // namespace ray::sim
