// Actors of the simulated node, as the processes see them that create, call and run them; see world.h. What they write may
// cross everything: a handle is with others before the record that creates the actor has been read.
#include <algorithm>
#include <utility>

#include "libray/sim/node.h"

namespace ray::sim {
namespace {

constexpr uint32_t kNames = 4;

uint32_t state_of(const std::string& name) {
  if (name == "PENDING") return wire::kActorPending;
  if (name == "ALIVE") return wire::kActorAlive;
  return name == "RESTARTING" ? wire::kActorRestarting : wire::kActorDead;
}

}  // namespace

// ---- who creates one

void World::create_actor(Process* p) {
  Id id = id_of(next_id_++);
  id.set_object_index(kActorIndex);
  Actor& a = actors_[id];
  actor_of_hex_[id.hex()] = id;
  a.id = id;
  a.creator = p->number;
  a.job = p->job;
  a.need = some_need();
  a.pool = some_pool(p->job);
  a.pool.gpus = a.need.get(kToldApart) > 0;
  if (random_.one_in(4)) a.where = some_place(p->job);
  a.restarts = static_cast<int32_t>(random_.below(3));
  if (random_.one_in(3)) a.name = std::string(1, static_cast<char>('A' + random_.below(kNames)));
  a.detached = random_.one_in(5);
  a.get_if_exists = random_.one_in(3);
  ++p->refs[id];
  // Its creator may tell of it before the arguments of its constructor are there.
  if (!a.name.empty() || random_.one_in(2)) return write_creation(p, id, false);
  connect(p, id, true);
  spread(p, id);
  clock_.after(random_.between(1, 40) * kMs, [this, number = p->number, id] {
    local(number, [this, id](Process* q) { write_creation(q, id, true); });
  });
}

void World::write_creation(Process* p, const Id& id, bool announced) {
  Actor& a = actors_.at(id);
  const bool named = !a.name.empty();
  const uint64_t request = named || random_.one_in(3) ? new_request(p->number) : 0;
  if (named)
    on_reply_[request] = [this, id](Process* q, int32_t code, const std::string& body) { named_creation(q, id, code, body); };
  a.function = 1 + random_.below(5);
  for (const auto& [ref, n] : p->refs)
    if (!actors_.count(ref)) a.holds = ref;
  up(p, [this, id, request](Process* q) {
    const Actor& made = actors_.at(id);
    history_.note(clock_.now(), "process %u creates actor %u%s%s", q->index, number_of(id), made.name.empty() ? "" : " named ",
                  made.name.c_str());
    node::event::ActorCreate e;
    e.spec.id = id;
    e.spec.creator = q->index;
    e.spec.req_id = request;
    e.spec.max_restarts = made.restarts;
    e.spec.lifetime = made.detached ? RAY_LIFETIME_DETACHED : 0;
    e.spec.flags = made.get_if_exists ? RAY_ACTOR_GET_IF_EXISTS : 0;
    e.spec.name = made.name;
    e.spec.ns = "all";
    e.spec.function = made.function;
    e.spec.resources = packed(made.need, made.pool, made.where);
    e.spec.record = "arguments";
    if (!made.holds.is_nil()) e.spec.dependencies.push_back(made.holds);
    tell(std::move(e));
  });
  if (named) return;
  if (!announced) connect(p, id, false);
  spread(p, id);
}

// Who wants a name learns whether it has it, or who has.
void World::named_creation(Process* p, const Id& id, int32_t code, const std::string& body) {
  Actor& a = actors_.at(id);
  wire::Cursor r(body);
  Id winner;
  if (code == RAY_OK && r.array() == 1 && r.id(&winner) && winner == id) {
    for (const auto& [other, b] : actors_)
      if (other != id && b.owns && b.name == a.name && !a.gave_back)
        complain("names: two actors have the name " + a.name);
    a.owns = !a.gave_back;
    connect(p, id, false);
    return spread(p, id);
  }
  let_go(p, id);
  if (code != RAY_OK) return;
  ++p->refs[winner];
  connect(p, winner, false);
}

void World::connect(Process* p, const Id& id, bool announces) {
  fates_.asked(id, p->number, clock_.now());
  if (auto [c, fresh] = p->callers.try_emplace(id); fresh) {
    c->second.handle = next_handle_++;
    c->second.any_order = random_.one_in(3);
  }
  up(p, [this, id, announces](Process* q) {
    const wire::ActorFacts facts{actors_.at(id).restarts, 0, 0, 0};
    tell(node::event::ActorConnect{q->index, id, announces ? &facts : nullptr});
  });
}

// Others get a handle, and do something with it, perhaps at once.
void World::spread(Process* p, const Id& id) {
  for (uint32_t n = random_.below(3); n > 0; --n) {
    Process* q = somebody();
    if (!q || q == p || !q->alive) continue;
    const bool kills = random_.one_in(6), drops = random_.one_in(2);
    pass_on(p, id, q->number, [this, id, kills, drops](Process* o) {
      connect(o, id, false);
      if (kills) kill_actor(o, id);
      if (drops) let_go(o, id);
    });
  }
}

void World::kill_actor(Process* p, const Id& id) {
  const bool may_restart = random_.one_in(3);
  up(p, [this, id, may_restart](Process*) { tell(node::event::ActorKill{id, may_restart}); });
}

void World::find_one(Process* p) {
  const std::string name(1, static_cast<char>('A' + random_.below(kNames)));
  const uint64_t request = new_request(p->number);
  finds_.insert(request);
  on_reply_[request] = [this](Process* q, int32_t code, const std::string& body) {
    wire::Cursor r(body);
    Id id;
    if (code != RAY_OK || r.array() != 1 || !r.id(&id)) return;
    ++q->refs[id];
    connect(q, id, false);
  };
  up(p, [this, name, request](Process* q) { tell(node::event::ActorFind{q->index, request, name, "all"}); });
}

// ---- what they are told

uint64_t World::new_request(uint64_t process) { return requests_.asked(process); }

void World::carry_out(const node::action::Reply& a) {
  requests_.answered(a.req_id);
  auto then = on_reply_.extract(a.req_id);
  if (then.empty()) return;
  wire::Cursor r(a.body);
  Id id;
  if (finds_.erase(a.req_id) && a.code == RAY_OK && r.array() == 1 && r.id(&id) && actors_.count(id) && fates_.dead(id))
    complain("names: an actor is found that is dead");
  down(by_index(a.process), [then = std::move(then.mapped()), code = a.code, body = a.body](Process* p) { then(p, code, body); });
}

void World::carry_out(const node::action::TellActor& a) {
  const wire::DnActorState& s = a.state;
  if (a.new_link && random_.one_in(50)) {
    lost_links_.insert(s.link);
    return tell(node::event::LinkFailed{a.process, s.worker, 0, "no memory"});
  }
  if (lost_links_.count(s.link) || planted(Fault::kLostTell)) return;
  Process *p = by_index(a.process), *w = s.state == wire::kActorAlive ? by_index(s.worker) : nullptr;
  if (p && w) w->clients.insert(p->number);
  const Fates::Told told{true, s.state, s.incarnation, w ? w->number : 0};
  down(p, [this, id = s.id, told](Process* q) {
    fates_.told(id, q->number, told);
    actor_state(q, id, told);
  });
}

// As the journal has it.
void World::actor_became(const std::string& hex, const std::string& state) {
  const Id id = actor_of_hex_.at(hex);
  Actor& a = actors_.at(id);
  history_.note(clock_.now(), "actor %u is %s", number_of(id), state.c_str());
  fates_.became(id, state_of(state), clock_.now());
  a.waits = state == "PENDING" || state == "RESTARTING";
}

// ---- its worker

void World::carry_out(const node::action::InitActor& a) {
  Process* w = by_index(a.process);
  Actor& actor = actors_.at(a.init.id);
  if (!w || !actor.waits) return complain("own: an actor that does not wait, or a worker that is not there");
  history_.note(clock_.now(), "worker %u for actor %u", a.process, number_of(actor.id));
  actor.waits = false;
  actor.worker = w->number;
  w->actor = actor.id;
  fates_.runs(actor.id, w->number, a.init.incarnation, clock_.now());
  ledger_.granted(w->number, {actor.need, actor.where, units(a.process), clock_.now(), false, true});
  if (!w->alive) ledger_.ended(w->number);
  const bool fails = random_.one_in(12);
  down(w, [this, incarnation = a.init.incarnation, fails](Process* p) {
    clock_.after(random_.between(1, 40) * kMs, [this, number = p->number, incarnation, fails] {
      local(number, [this, incarnation, fails](Process* q) {
        up(q, [this, id = q->actor, incarnation, fails](Process* o) {
          tell(node::event::ActorReady{o->index, id, incarnation, fails ? RAY_TASK_FAILED : RAY_OK, fails ? "it fails" : ""});
        });
      });
    });
  });
}

void World::carry_out(const node::action::ActorWanted& a) {
  down(by_index(a.process), [this](Process* w) { leave_as_actor(w); });
}

// It says that it ends, and ends.
void World::leave_as_actor(Process* w) {
  up(w, [this, id = w->actor](Process* q) { tell(node::event::ActorExit{q->index, id, "", true}); });
  clock_.after(random_.between(1, 30) * kMs, [this, number = w->number] {
    if (Process* p = process(number)) die(p);
  });
}

// ---- what happens for no reason

void World::actor_mischief() {
  Process* p = some_driver();
  if (!p || p->stopped) return;
  std::vector<Id> living;
  for (const auto& [id, a] : actors_)
    if (!fates_.dead(id) && (a.waits || a.worker)) living.push_back(id);
  if (random_.one_in(4)) return find_one(p);
  if (living.empty() || (living.size() < 4 && random_.one_in(2))) return create_actor(p);
  const Id id = living[random_.below(static_cast<uint32_t>(living.size()))];
  Process* w = process(actors_.at(id).worker);
  if (!w || !w->alive || w->actor != id || random_.one_in(2)) return kill_actor(p, id);
  if (random_.one_in(2)) return leave_as_actor(w);
  if (deadly_) die(w);
}

void World::function_mischief() {
  Process* p = some_driver();
  if (!p || p->stopped) return;
  const uint64_t key = 1 + random_.below(5);
  if (p->functions.count(key)) {
    p->functions.erase(key);
    return up(p, [this, key](Process* q) { tell(node::event::FunctionDrop{q->index, key, 1}); });
  }
  p->functions.insert(key);
  up(p, [this, key, request = new_request(p->number)](Process* q) {
    tell(node::event::FunctionDefine{q->index, request, key, "function " + std::to_string(key), "definition"});
  });
}

}  // namespace ray::sim
