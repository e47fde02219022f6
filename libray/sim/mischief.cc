// What happens in the simulated node for no reason of its own; see world.h.
#include <algorithm>
#include <utility>

#include "libray/sim/node.h"

namespace ray::sim {
// ---- dice

Resources World::some_need() {
  Resources r;
  auto add = [&r](const char* name, double amount) { (void)r.add(name, amount); };
  uint32_t cpus = static_cast<uint32_t>(limits_.total.get("CPU") / sched::kUnit);
  if (random_.one_in(15)) return r;
  if (random_.one_in(60)) add(random_.one_in(2) ? "CPU" : "moon", 1000);
  if (!random_.one_in(8)) add("CPU", random_.one_in(4) ? 0.5 : random_.one_in(3) ? 1 + random_.below(cpus) : 1);
  if (limits_.total.get(kToldApart) > 0 && random_.one_in(5))
    add(kToldApart, random_.one_in(2) ? 0.25 * (1 + random_.below(3))
                                      : 1 + random_.below(static_cast<uint32_t>(limits_.total.get(kToldApart) /
                                                                                sched::kUnit)));
  if (limits_.total.get("disk") > 0 && random_.one_in(5)) add("disk", 1 + random_.below(2));
  return r;
}

Pool World::some_pool(uint32_t job) { return {0, job, random_.one_in(5) ? 1 + random_.below(2) : 0, false}; }

Where World::some_place(uint32_t job) {
  Where where;
  for (const auto& [id, g] : groups_) {
    if (g.job != job || g.removed || random_.one_in(3)) continue;
    where.group = id;
    where.bundle = random_.one_in(3) ? -1 : static_cast<int32_t>(random_.below(static_cast<uint32_t>(g.bundles.size())));
  }
  return where;
}

Process* World::some_driver() {
  std::vector<Process*> all;
  for (auto& [index, number] : indexes_)
    if (Process& p = processes_.at(number); p.driver && p.alive) all.push_back(&p);
  return all.empty() ? nullptr : all[random_.below(static_cast<uint32_t>(all.size()))];
}

uint64_t World::some_worker() {
  std::vector<uint64_t> all;
  for (auto& [index, number] : indexes_)
    if (Process& p = processes_.at(number); !p.driver && p.alive) all.push_back(number);
  return all.empty() ? 0 : all[random_.below(static_cast<uint32_t>(all.size()))];
}

uint32_t World::new_shape(Process* p) {
  uint32_t number = static_cast<uint32_t>(p->shapes.size());
  Shape s;
  s.need = some_need();
  s.pool = some_pool(p->job);
  if (random_.one_in(5)) s.where = some_place(p->job);
  s.pool.gpus = s.need.get(kToldApart) > 0;
  define(p, number, std::move(s));
  return number;
}

Task World::some_task(uint32_t shape, uint32_t depth) {
  Task t;
  t.id = tasks_.submitted();
  t.shape = shape;
  t.length = random_.one_in(3) ? random_.between(80, 400) * kMs : random_.between(1, 80) * kMs;
  if (long_tasks_ && random_.one_in(25)) t.length = random_.between(400, 5000) * kMs;
  t.retries = static_cast<int32_t>(random_.below(3));
  t.fails = random_.one_in(8);
  t.on_error = random_.one_in(2);
  t.depth = depth;
  // With few workers, tasks that wait for others may have all of them: not in every world.
  if (depth > 0 && (limits_.max_workers > 200 || crowded_) && random_.one_in(5)) t.children = 1 + random_.below(3);
  longest_ = std::max(longest_, t.length);
  return t;
}

// ---- what happens

void World::mischief() {
  if (calm_ || over()) return;
  do_mischief();
  need_decision();
  int64_t pause = random_.one_in(10) ? random_.between(100, 800) * kMs : random_.between(1, 120) * kMs;
  clock_.after(pause, [this] { mischief(); });
}

void World::do_mischief() {
  switch (random_.below(22)) {
    case 0:
    case 1: return process_mischief();
    case 2: return group_mischief();
    case 3:
    case 4: return actor_mischief();
    case 5: return random_.one_in(2) ? odd_messages() : function_mischief();
    case 6: return streams_ ? start_stream() : submit_some();
    case 7:
    case 8: return cancel_some();
    case 9:
    case 10: return call_some();
    case 11:
    case 12: return short_tasks_ ? submit_short() : submit_some();
    case 13:
    case 14: return object_mischief();
    default: return submit_some();
  }
}

void World::new_driver() {
  Process& p = processes_[next_process_];
  p.number = next_process_++;
  p.index = take_index();
  p.driver = true;
  indexes_[p.index] = p.number;
  tell(node::event::DriverCame{p.index, static_cast<int>(p.number), 0, id_of(next_id_++), "", false,
                               random_.one_in(2) ? 1 + random_.below(4) : 0});
  history_.note(clock_.now(), "driver %u comes with job %u", p.index, p.job);
}

void World::submit_some() {
  Process* p = some_driver();
  if (!p || p->stopped) return;
  uint32_t shape = p->shapes.empty() || (p->shapes.size() < 6 && random_.one_in(3))
                       ? new_shape(p)
                       : random_.below(static_cast<uint32_t>(p->shapes.size()));
  const Resources& need = p->shapes.at(shape).need;
  bool plain = need.items().size() == 1 && need.get("CPU") > 0 && p->shapes.at(shape).where.group.is_nil();
  uint32_t n = random_.one_in(8) ? 10 + random_.below(40) : 1 + random_.below(4);
  for (uint32_t i = 0; i < n; ++i) {
    Task t = some_task(shape, plain ? 2 : 0);
    if (long_tasks_ && random_.one_in(80)) t.length = -1, t.children = 0;
    submit(p, t);
  }
}

// So many tasks, so short, that they wait in rings until those are full; and some that wait for one that their client submits
// after them, when it has no other lease.
void World::submit_short() {
  Process* p = some_driver();
  if (!p || p->stopped) return;
  if (p->shape_of_short < 0) {
    Shape made;
    (void)made.need.add("CPU", random_.one_in(2) ? 0.5 : 1);
    made.pool = some_pool(p->job);
    p->shape_of_short = static_cast<int32_t>(p->shapes.size());
    define(p, static_cast<uint32_t>(p->shape_of_short), std::move(made));
  }
  const int64_t longest = (random_.one_in(2) ? 60 : 300) * kUs;
  int64_t at = 0;
  auto submit_at = [&](bool pair) {
    later(p, at, [this, longest, pair](Process* q) {
      if (!calm_) submit_a_short_one(q, longest, pair);
    });
  };
  for (uint32_t n = 4 + random_.below(random_.one_in(4) ? 250 : 60); n > 0; --n) {
    at += random_.one_in(2) ? random_.between(1, 60) * kUs : 0;
    submit_at(false);
  }
  at += random_.between(1, 500) * kMs;
  submit_at(limits_.max_workers > 200 && random_.one_in(3));  // or those that wait have all there is
}

void World::submit_a_short_one(Process* p, int64_t longest, bool pair) {
  Task tasks[2];
  for (Task& t : tasks) {
    if (&t != tasks && !pair) break;
    t = some_task(static_cast<uint32_t>(p->shape_of_short), 0);
    t.length = random_.one_in(1000) ? random_.between(5, 60) * kMs : random_.between(1, longest);
    t.fails = t.on_error = random_.one_in(3);
  }
  tasks[0].needs = tasks[1].id;
  submit(p, tasks[0]);
  if (pair) submit(p, tasks[1]);
}

void World::start_stream() {
  Process* p = some_driver();
  if (!p || p->stopped || p->shapes.size() > 8) return;
  uint32_t shape = new_shape(p);
  int64_t length = random_.between(20, 300) * kMs;
  for (uint32_t i = 1 + random_.below(8); i > 0; --i) {
    Task t = some_task(shape, 0);
    t.length = length;
    t.children = 0;
    t.again = true;
    submit(p, t);
  }
}

void World::process_mischief() {
  if (random_.one_in(12)) {  // an environment breaks, or is mended
    uint32_t env = 1 + random_.below(2);
    if (!failing_envs_.erase(env)) failing_envs_.insert(env);
    return;
  }
  Process* p = some_driver();
  if (!p || (random_.one_in(10) && jobs_.size() < 4)) return new_driver();
  if (random_.one_in(6)) return stop(p);
  if (!deadly_) return;
  if (random_.one_in(15)) return die(p);
  Process* w = process(some_worker());
  if (!w) return;
  random_.one_in(4) ? kill(w->number) : die(w);  // by the daemon, or by itself
}

void World::stop(Process* p) {
  if (p->stopped) return;
  p->stopped = true;
  last_trouble_ = clock_.now();
  history_.note(clock_.now(), "driver %u is stopped", p->index);
  clock_.after(random_.between(100, 8000) * kMs, [this, number = p->number] { go_on(number); });
}

void World::go_on(uint64_t number) {
  Process* p = process(number);
  if (!p || !p->stopped) return;
  p->stopped = false;
  last_trouble_ = clock_.now();
  history_.note(clock_.now(), "driver %u goes on", p->index);
  for (auto& what : std::exchange(p->held_back, {})) what();
}

void World::group_mischief() {
  std::vector<Id> living;
  for (const auto& [id, g] : groups_)
    if (!g.removed) living.push_back(id);
  if (!living.empty() && (living.size() > 2 || random_.one_in(2)))
    return remove_group(living[random_.below(static_cast<uint32_t>(living.size()))]);
  Process* p = some_driver();
  if (!p) return;
  Group g;
  g.id = id_of(next_id_++);
  g.job = p->job;
  for (uint32_t i = 1 + random_.below(3); i > 0; --i) {
    Resources b = some_need();
    if (!b.empty()) g.bundles.push_back(b);
  }
  if (!g.bundles.empty()) create_group(p, std::move(g));
}

// What a process may say without being asked: almost all of it is without effect.
void World::odd_messages() {
  Process* p = some_driver();
  if (!p || p->stopped) return;
  if (!p->shapes.empty() && random_.one_in(2)) return cancel(p, random_.below(static_cast<uint32_t>(p->shapes.size())));
  uint32_t lease = random_.below(1000), worker = random_.below(40), what = random_.below(3);
  up(p, [this, lease, worker, what](Process* q) {
    if (what == 0 && !s_.holds(q->index, worker, lease)) tell(node::event::Return{q->index, worker, lease});
    if (what == 1 && deadly_ && lease < 100) tell(node::event::Want{q->index, 70000, 3, Id{}});  // it is cut off
    if (what == 2) tell(node::event::ActorKill{id_of(1'000'000 + lease), false});
  });
}

}  // namespace ray::sim
