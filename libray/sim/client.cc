// Clients of the simulated node; see world.h. The rules are the real ones, of libray/task: this file tells them what happens
// and carries out what they say, as libray/runtime does. A client's own calls go to one process only; what it tells others is
// on its way for a while, but for what lies in a ring, which both see at once.
#include <algorithm>
#include <utility>

#include "libray/sim/node.h"

namespace ray::sim {
namespace {

constexpr int64_t kTick = 5 * kMs;
constexpr uint32_t kCheckEvery = 8;  // ticks: the rules' own checks look at everything

uint64_t record_size(uint64_t task) { return 1 + task % 3; }

}  // namespace

int64_t Kit::run_ns(const Pending* t) { return t->in->run_ns; }
void Kit::forget_run_ns(Pending* t) { t->in->run_ns = -1; }
uint64_t Kit::record_begin(const Pending* t) { return t->ring_end - record_size(t->id); }

// ---- messages

void World::local(uint64_t number, std::function<void(Process*)> what) {
  Process* p = process(number);
  if (!p || !p->alive) return;
  if (!p->stopped) return what(p);
  p->held_back.push_back([this, number, what = std::move(what)] { local(number, what); });
}

void World::later(Process* p, int64_t ns, std::function<void(Process*)> what) {
  clock_.after(ns, [this, number = p->number, what = std::move(what)] { local(number, what); });
}

// Into its ring, which the daemon reads a while later, and before its death.
void World::up(Process* p, std::function<void(Process*)> what) {
  if (!p->alive) return;
  int64_t delay = random_.one_in(20) ? random_.between(1, 30) * kMs : random_.between(10, 900) * kUs;
  p->up_at = std::max(p->up_at, clock_.now() + delay);
  p->unread.push_back({++p->written, std::move(what)});
  clock_.at(p->up_at, [this, number = p->number, upto = p->written] { read_ring(number, upto); });
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

// ---- tasks

void World::define(Process* p, uint32_t number, Shape shape) {
  shape.number = number;
  p->shapes[number] = std::move(shape);
  up(p, [this, number](Process* q) {
    Shape& s = q->shapes.at(number);
    history_.note(clock_.now(), "process %u: shape %u is {%s}", q->index, number, s.need.to_string().c_str());
    tell(node::event::Shape{q->index, number, 0, packed(s.need, s.pool, s.where)});
  });
}

Pending* World::pending(Process* p, const Task& task) {
  auto made = std::make_unique<Pending>();
  Pending* t = made.get();
  static_cast<Task&>(*t) = task;
  task::enter<Kit>(t, task::State::kWaiting);
  t->tag = t->submitted = task.id;
  t->retries_left = task.retries;
  t->retry_on_error = task.on_error;
  tasks_.terms(task.id, {task.retries, task.handle, task.seq, task.handle != 0 && !task.any_order});
  p->tasks[task.id] = std::move(made);
  keep_ticking(p);
  return t;
}

void World::submit(Process* p, Task task) {
  Shape& s = p->shapes.at(task.shape);
  task.of_run = p->runs;
  Pending* t = pending(p, task);
  t->in = &s;
  t->est_ns = s.run_ns < 0 ? Policy::kUnknownNs : s.run_ns;
  p->policy.submitted(&s, t->est_ns);
  if (random_.one_in(12)) {  // an argument is missing
    ++s.parked;
    return later(p, random_.between(1, 30) * kMs, [this, id = task.id](Process* q) { ready(q, id); });
  }
  task::Lease<Kit>* l = s.backlog.empty() && !s.gone ? p->policy.choose(&s, s.run_ns) : nullptr;
  t->lease = l;
  if (!l || !push(p, l->link, t)) {
    t->lease = nullptr;
    return queue(p, t);
  }
  wake(l->link);
  if (p->policy.raise_want(&s)) tell_want(p, s.number, s.want_sent);
}

// An argument is there; some go to the store first.
void World::ready(Process* p, uint64_t task) {
  auto found = p->tasks.find(task);
  if (found == p->tasks.end()) return;
  Pending* t = found->second.get();
  if (t->state != task::State::kWaiting) return;
  if (!t->shrinking && random_.one_in(4)) {
    t->shrinking = true;
    return later(p, random_.between(1, 10) * kMs, [this, task](Process* q) { ready(q, task); });
  }
  t->shrinking = false;
  if (t->cancelled) return fail_waiting(p, t, "cancelled");
  if (t->actor) {
    if (t->actor->state == wire::kActorDead) return fail_waiting(p, t, "its actor died");
    t->actor->complete(t);
    return pump_calls(p, t->actor);
  }
  --t->in->parked;
  queue(p, t);
}

void World::queue(Process* p, Pending* t) {
  task::enter<Kit>(t, task::State::kQueued);
  t->in->backlog.push_back(t);
  pump(p, t->in);
}

void World::pump(Process* p, Shape* s) {
  if (s->gone) {
    while (Pending* t = s->backlog.head) fail_waiting(p, t, "unplaceable");
    return;
  }
  std::vector<Ring*> written;
  p->policy.pump(s, [&](Pending* t, task::Lease<Kit>* l) {
    t->lease = l;
    if (push(p, l->link, t)) {
      if (std::find(written.begin(), written.end(), l->link) == written.end()) written.push_back(l->link);
      return true;
    }
    t->lease = nullptr;
    return false;
  });
  for (Ring* r : written) wake(r);
  if (p->policy.raise_want(s)) tell_want(p, s->number, s->want_sent);
}

// ---- rings

Ring* World::ring(Process* p, uint64_t worker) {
  std::unique_ptr<Ring>& r = p->rings[worker];
  if (!r) {
    r = std::make_unique<Ring>();
    r->client = p->number;
    r->worker = worker;
  }
  return r.get();
}

bool World::push(Process* p, Ring* ring, Pending* t) {
  const uint64_t size = record_size(t->id);
  if (ring->tail + size > ring->head + Ring::kRoom)
    ring->head = std::min(ring->freed, task::needed_from<Kit>(*ring, ring->tail));
  if (ring->tail + size > ring->head + Ring::kRoom) return false;
  const uint64_t begin = ring->tail;
  ring->tail += size;
  std::erase_if(ring->records, [&](const auto& r) { return r.first + Ring::kRoom < ring->tail; });  // written over
  ring->records[begin] = {*t, ring->tail};
  task::enter<Kit>(t, task::State::kPushed);
  tasks_.sent(t->id);
  t->link = ring;
  t->ring_end = ring->tail;
  if (ring->inflight.empty()) ring->last_result_ns = clock_.now();
  ring->inflight.push_back(t);
  if (t->lease) Policy::pushed(t->lease, t->est_ns);
  if (t->lease && planted(Fault::kEarlyReturn)) {
    Process* w = process(ring->worker);
    up(p, [this, lease = t->lease->lease, index = w ? w->index : 0](Process* q) {
      tell(node::event::Return{q->index, index, lease});
    });
  }
  return true;
}

void World::wake(Ring* ring) {
  link(ring->worker, [this](Process* w) { work(w); });
}

void World::unlink(Pending* t) {
  t->link->inflight.remove(t);
  if (t->lease) Policy::left(t->lease, t);
  t->link = nullptr;
  t->lease = nullptr;
}

// From a ring back to the queue. The copy that lies there is what is sent again.
void World::requeue(Process* p, Pending* t, bool begun) {
  auto record = t->link->records.find(Kit::record_begin(t));
  const bool intact = record != t->link->records.end() && record->second.task.id == t->id;
  unlink(t);
  if (!intact) return ended(p, t, "overwritten");
  tasks_.came_back(t->id);
  if (t->actor) return t->actor->give_back(t);
  task::enter<Kit>(t, task::State::kQueued);
  begun ? t->in->backlog.push_back(t) : t->in->backlog.give_back(t);
  if (p->policy.raise_want(t->in)) tell_want(p, t->in->number, t->in->want_sent);
}

// ---- what the rules have decided

void World::tell_want(Process* p, uint32_t shape, uint32_t want) {
  for (int times = random_.one_in(30) ? 2 : 1; times > 0; --times)  // said twice it does no harm
    up(p, [this, shape, want](Process* q) {
      q->shapes.at(shape).want = want;
      tell(node::event::Want{q->index, shape, want, Id{}});
    });
}

void World::carry_out_todo(Process* p) {
  for (const Policy::Action& a : std::exchange(p->todo, {})) {
    if (a.kind == Policy::Action::kWant) {
      tell_want(p, a.shape->number, a.number);
    } else if (a.kind == Policy::Action::kAskBack) {
      ++a.link->give_back;
      wake(a.link);
    } else if (!planted(Fault::kLostReturn)) {
      return_lease(p, a.link->worker, a.number);
    }
  }
}

void World::return_lease(Process* p, uint64_t worker, uint32_t lease) {
  up(p, [this, worker, lease](Process* q) {
    Process* w = process(worker);
    if (!w || w->buried) return;
    history_.note(clock_.now(), "process %u gives lease %u of worker %u back", q->index, lease, w->index);
    if (leases_.erase(lease) && w->alive) ledger_.ended(worker);
    tell(node::event::Return{q->index, w->index, lease});
  });
}

void World::keep_ticking(Process* p) {
  if (!std::exchange(p->ticks, true)) later(p, kTick, [this](Process* q) { tick(q); });
}

// As Runtime::tick().
void World::tick(Process* p) {
  progress(p);
  p->cancels.press_on(
      clock_.now(),
      [p](uint64_t tag) {
        auto t = p->tasks.find(tag);
        return t == p->tasks.end() ? nullptr : t->second.get();
      },
      [](const Pending* t) { return t->ring_end <= t->link->started; },
      [this, p](const Pending* t) { kill_for(p, t->link->worker, t->lease->lease, t->id); }, &p->todo);
  carry_out_todo(p);
  for (size_t at = 0; at < p->policy.active().size();) {
    Shape* s = p->policy.active()[at];
    const Policy::Seen seen = p->policy.look(s, clock_.now(), &p->todo);
    carry_out_todo(p);
    if (seen.pump) pump(p, s);
    at += p->policy.settle(at, seen, &p->todo);
    carry_out_todo(p);
  }
  std::string wrong = std::exchange(Kit::wrong, {});
  if (++p->ticked % kCheckEvery == 0) {
    if (wrong.empty()) wrong = p->policy.check();
    for (auto& [id, c] : p->callers)
      if (wrong.empty()) wrong = c.check();
  }
  if (!wrong.empty()) complain("own: of a client's rules: " + wrong);
  p->ticks = false;
  if (!p->tasks.empty() || !p->policy.active().empty()) keep_ticking(p);
}

// One that was cancelled by force runs on.
void World::kill_for(Process* p, uint64_t worker, uint32_t lease, uint64_t task) {
  up(p, [this, worker, lease, task](Process* q) {
    Process* w = process(worker);
    if (!w || w->buried || !s_.holds(q->index, w->index, lease)) return;
    w->ends_for = task;
    tell(node::event::KillAsked{q->index, w->index, lease});
  });
}

// ---- results

void World::progress(Process* p) {
  for (auto& [worker, r] : p->rings) drain(p, r.get());
}

void World::drain(Process* p, Ring* ring) {
  if (ring->results.empty()) return;
  while (!ring->results.empty()) {
    const Ring::Result r = ring->results.front();
    ring->results.pop_front();
    on_result(p, ring, r);
  }
  ring->last_result_ns = clock_.now();
  if (task::Lease<Kit>* l = ring->lease) {
    Shape* s = l->shape;
    Policy::heard(l);
    if (ring->inflight.empty()) p->policy.idle(l, clock_.now(), &p->todo);
    carry_out_todo(p);
    if (!s->backlog.empty()) pump(p, s);
  }
  if (ring->actor && !ring->actor->queue.empty()) pump_calls(p, ring->actor);
}

void World::on_result(Process* p, Ring* ring, const Ring::Result& r) {
  auto found = p->tasks.find(r.task);
  Pending* t = found == p->tasks.end() ? nullptr : found->second.get();
  if (!t || t->state != task::State::kPushed || t->link != ring) return;
  ring->give_back_asked = false;
  if (r.kind == Ring::Result::kReturned) {
    if (r.blocked && t->lease) t->lease->shut |= task::kBlocked;
    if (task::fate_of<Kit>(t, task::Stop::kReturned, false) == task::Fate::kSame) return requeue(p, t, false);
    unlink(t);
    return ended(p, t, "cancelled");
  }
  if (Shape* s = t->in) s->run_ns = s->run_ns < 0 ? r.run_ns : (s->run_ns * 7 + r.run_ns) / 8;
  if (t->lease) Policy::answered(t->lease);
  const task::Stop how = r.kind == Ring::Result::kFailed ? task::Stop::kFailed : task::Stop::kFailedForGood;
  if (r.kind != Ring::Result::kDone && task::fate_of<Kit>(t, how, t->actor != nullptr) == task::Fate::kAgain)
    return requeue(p, t, true);
  unlink(t);
  const uint64_t id = t->id;
  ended(p, t, r.kind == Ring::Result::kDone ? "done" : r.kind == Ring::Result::kFailed ? "failed" : "cancelled");
  if (planted(Fault::kTwice)) tasks_.ended(id, "done");
}

// Its entry is gone afterwards. What follows from it comes a moment later, when whoever found out is through.
void World::ended(Process* p, Pending* t, const char* how) {
  const Task task = *t;
  tasks_.ended(task.id, how);
  if (t->in) p->policy.ended(t->in, t->est_ns);
  auto who = waiters_.find(task.id);
  if (who != waiters_.end()) {
    for (auto [worker, runs] : who->second)
      link(worker, [this, runs = runs](Process* w) {
        if (w->runs == runs) go_on_after_children(w);
      });
    waiters_.erase(who);
  }
  const bool next = p->driver && task.again && t->in && !t->in->gone && !t->cancelled;
  task::enter<Kit>(t, task::State::kFree);
  p->tasks.erase(task.id);
  if (next) {
    later(p, kUs, [this, task](Process* q) {
      Task another = task;
      another.id = calm_ ? 0 : tasks_.submitted();
      if (!calm_) submit(q, another);
    });
  }
  if (p->driver || task.of_run != p->runs || p->open_children == 0 || --p->open_children > 0) return;
  later(p, kUs, [this, runs = p->runs](Process* w) {
    if (w->runs == runs) go_on_after_children(w);
  });
}

void World::fail_waiting(Process* p, Pending* t, const char* how) {
  Caller* c = t->actor;
  bool others_go_on = false;
  if (c) others_go_on = c->remove(t);
  else if (t->state == task::State::kWaiting) --t->in->parked;
  else t->in->backlog.remove(t);
  ended(p, t, how);
  if (others_go_on) pump_calls(p, c);
}

// ---- what the daemon says

void World::granted(Process* p, uint32_t shape, uint32_t lease, uint64_t worker) {
  progress(p);
  Shape& s = p->shapes.at(shape);
  if (!p->policy.granted(&s, ring(p, worker), lease, clock_.now())) return return_lease(p, worker, lease);
  keep_ticking(p);
  pump(p, &s);
}

void World::reclaimed(Process* p, uint32_t lease) {
  progress(p);
  for (auto& [worker, r] : p->rings)
    if (r->lease && r->lease->lease == lease) p->policy.reclaimed(r->lease, &p->todo);
  carry_out_todo(p);
}

void World::peer_died(Process* p, uint64_t worker) {
  progress(p);
  auto found = p->rings.find(worker);
  if (found == p->rings.end()) return;
  Ring* ring = found->second.get();
  ring->dead = true;
  Shape* s = ring->lease ? ring->lease->shape : nullptr;
  if (s) {
    for (Pending* t = ring->inflight.head; t; t = t->next) t->lease = nullptr;
    p->policy.lost(ring->lease, &p->todo);
    carry_out_todo(p);
  }
  Caller* c = ring->actor;
  while (Pending* t = ring->inflight.head) {
    const bool ran = t->ring_end <= ring->started;
    if (c) {
      unlink(t);
      c->lose(t, ran);
      continue;
    }
    const task::Fate fate = task::fate_of<Kit>(t, ran ? task::Stop::kDied : task::Stop::kUnbegun, false);
    if (fate == task::Fate::kSame || fate == task::Fate::kAgain) {
      requeue(p, t, ran);
      continue;
    }
    unlink(t);
    ended(p, t, fate == task::Fate::kCancel ? "cancelled" : "crashed");
  }
  if (c) c->ring = nullptr;
  p->rings.erase(found);
  if (c && c->state == wire::kActorDead) fail_calls(p, c);
  if (s) pump(p, s);
}

// Its group was removed.
void World::unplaceable(Process* p, uint32_t shape) {
  Shape& s = p->shapes.at(shape);
  p->policy.unplaceable(&s, &p->todo);
  carry_out_todo(p);
  keep_ticking(p);
  pump(p, &s);
}

// ---- cancelling

// All of a shape that no worker has yet.
void World::cancel(Process* p, uint32_t shape) {
  std::vector<Pending*> waiting;
  for (auto& [id, t] : p->tasks)
    if (t->in && t->in->number == shape && t->state != task::State::kPushed) waiting.push_back(t.get());
  for (Pending* t : waiting) cancel(p, t, false);
}

void World::cancel(Process* p, Pending* t, bool force) {
  tasks_.cancelled(t->id);
  const bool begun = t->state == task::State::kPushed && t->ring_end <= t->link->started;
  Ring* ring = t->link;
  Shape* s = t->in;
  const task::CancelStep step = p->cancels.cancel(t, force, begun, clock_.now());
  if (step == task::CancelStep::kLater) return;
  if (step == task::CancelStep::kEnd) {
    fail_waiting(p, t, "cancelled");
    if (s) p->policy.withdraw_want(s, &p->todo);
    return carry_out_todo(p);
  }
  ring->cancels.push_back({t->ring_end, force});
  wake(ring);
  if (step == task::CancelStep::kAskBack) Policy::ask_back(ring, &p->todo);
  carry_out_todo(p);
}

void World::cancel_some() {
  Process* p = some_driver();
  if (!p || p->stopped) return;
  for (uint32_t n = 1 + random_.below(4); n > 0 && !p->tasks.empty(); --n) {
    auto t = p->tasks.begin();
    std::advance(t, random_.below(static_cast<uint32_t>(p->tasks.size())));
    cancel(p, t->second.get(), !t->second->actor && random_.one_in(3));
  }
}

// Nobody is left who could have its tasks' results.
void World::orphan(Process* p) {
  for (auto& [id, t] : p->tasks) tasks_.ended(id, "orphaned");
  p->policy = Policy();
  p->callers.clear();
  p->rings.clear();
  p->tasks.clear();
  for (auto& [number, s] : p->shapes) static_cast<task::Shape<Kit>&>(s) = {};
}

}  // namespace ray::sim
