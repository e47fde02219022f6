// The control store of the simulated node, and the store of objects; see world.h. Everything is answered late, and requests
// may overtake each other.
#include <utility>

#include "libray/sim/node.h"

namespace ray::sim {

// On the way there, and back.
void World::ask_control(std::function<void()> there, std::function<void()> back) {
  auto delay = [this] { return random_.one_in(15) ? random_.between(50, 600) * kMs : random_.between(50, 4000) * kUs; };
  clock_.after(delay(), [this, delay, there = std::move(there), back = std::move(back)] {
    there();
    clock_.after(delay(), [this, back] {
      back();
      need_decision();
    });
  });
}

// ---- names

void World::carry_out(const node::action::ClaimName& a) {
  auto answer = std::make_shared<node::event::NameClaimed>(node::event::NameClaimed{a.id, RAY_OK, a.id, ""});
  ask_control(
      [this, answer, key = std::pair(a.ns, a.name), id = a.id] {
        const Id& owner = control_.names.try_emplace(key, id).first->second;
        history_.note(clock_.now(), "actor %u claims the name %s, which is that of %u", number_of(id), key.second.c_str(),
                      number_of(owner));
        if (planted(Fault::kTwoOwners)) control_.names[key] = id;
        answer->winner = owner;
      },
      [this, answer] { tell(std::move(*answer)); });
}

void World::carry_out(const node::action::ReleaseName& a) {
  actors_.at(a.id).owns = false;
  actors_.at(a.id).gave_back = true;
  ask_control(
      [this, key = std::pair(a.ns, a.name), id = a.id] {
        auto owner = control_.names.find(key);
        if (owner != control_.names.end() && owner->second == id && !planted(Fault::kKeptName)) control_.names.erase(owner);
      },
      [this, ns = a.ns, name = a.name] { tell(node::event::NameReleased{ns, name}); });
}

// ---- rows and functions

void World::carry_out(const node::action::WriteRow& a) {
  const Id id = a.row->id;
  if (!control_.writing.insert(id).second) complain("own: two rows of an actor are under way");
  ask_control([this, row = a.row] { control_.rows[row->id] = row->state; },
        [this, id] {
          control_.writing.erase(id);
          tell(node::event::RowWritten{id});
        });
}

void World::carry_out(const node::action::StoreFunction& a) {
  if (control_.forgetting.count(a.key)) complain("own: a definition is stored while it is being forgotten");
  ++control_.storing[a.key];
  ask_control([this, key = a.key] { control_.functions.insert(key); },
        [this, key = a.key, process = a.process, request = a.req_id] {
          if (--control_.storing[key] == 0) control_.storing.erase(key);
          tell(node::event::FunctionStored{key, process, request, RAY_OK, ""});
        });
}

void World::carry_out(const node::action::ForgetFunction& a) {
  if (control_.storing.count(a.key) || !control_.forgetting.insert(a.key).second)
    complain("own: a definition is forgotten while it is being stored");
  ask_control([this, key = a.key] { control_.functions.erase(key); },
        [this, key = a.key] {
          control_.forgetting.erase(key);
          tell(node::event::FunctionForgotten{key});
        });
}

void World::carry_out(const node::action::AskFunction& a) {
  ask_control([] {}, [this, request = a.req_id] { requests_.answered(request); });
}

// Nothing of those who were there is left in it.
void World::check_control_store() {
  for (const auto& [name, owner] : control_.names) complain("names: " + name.second + " is the name of an actor that is dead");
  if (!control_.functions.empty()) complain("zero: the control store keeps a definition that nobody needs");
  for (const auto& [id, state] : control_.rows)
    if (std::string_view(state) != "DEAD") complain("zero: the control store has an actor as " + std::string(state));
}

// ---- objects

void World::carry_out(const node::action::FreeObject& a) { holds_.freed(a.id); }

void World::share_some() {
  Process* p = some_driver();
  if (!p || p->stopped) return;
  const Id id = id_of(next_id_++);
  holds_.said(id, p->number, 1);
  ++p->refs[id];
  up(p, [this, id](Process* q) {
    wire::UpObj o{};
    o.id = id;
    o.state = wire::kObjReady;
    o.location.size = 8;
    tell(node::event::Share{q->index, o, nullptr});
  });
}

// What is passed on is held for the other one before that can know of it.
void World::pass_on(Process* p, const Id& id, uint64_t to, std::function<void(Process*)> then) {
  if (!actors_.count(id)) holds_.said(id, to, 1);
  up(p, [this, id, to](Process* q) {
    (void)q;
    Process* other = process(to);
    if (other->buried || always(Fault::kLostHold)) return;
    wire::UpObjCount c{};
    c.id = id;
    c.process = other->index;
    c.count = 1;
    tell(node::event::Hold{c});
  });
  link(to, [id, then = std::move(then)](Process* q) {
    ++q->refs[id];
    then(q);
  });
}

void World::let_go(Process* p, const Id& id) {
  auto r = p->refs.find(id);
  if (r == p->refs.end()) return;
  if (--r->second == 0) p->refs.erase(r);
  if (!actors_.count(id)) holds_.said(id, p->number, -1);
  up(p, [this, id](Process* q) {
    wire::UpObjCount c{};
    c.id = id;
    c.process = q->index;
    c.count = 1;
    tell(node::event::Release{q->index, c});
  });
}

Process* World::somebody() {
  if (random_.one_in(2)) return some_driver();
  return process(some_worker());
}

void World::object_mischief() {
  Process *p = somebody(), *q = somebody();
  if (!p || !p->alive || p->stopped || p->refs.empty() || random_.one_in(3)) return share_some();
  auto r = p->refs.begin();
  std::advance(r, random_.below(static_cast<uint32_t>(p->refs.size())));
  const Id id = r->first;
  if (!q || q == p || random_.one_in(2)) return let_go(p, id);
  pass_on(p, id, q->number, [](Process*) {});
}

}  // namespace ray::sim
