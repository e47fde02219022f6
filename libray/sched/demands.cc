// See demands.h.
#include "libray/sched/demands.h"

#include "libray/wire/limits.h"

namespace ray::sched {
namespace {

constexpr size_t kLook = 32;  // requests of one line that a round looks at, twice: in order, and as they fit
constexpr size_t kClients = 64;  // clients that a round looks at, twice: in order, and in turn

Amount cpu_of(const Request& r) { return r.group ? 0 : r.need.cpu(); }

}  // namespace

// ---- what is asked for

Status Demands::fill(Request* r, const Resources& resources, const Pool& pool, const Placement& where) {
  RAY_TRY(groups_->place(r, where));
  r->never = where.never;
  r->need = table_->need_of(resources, &r->never);
  r->pool = pool;
  r->text = resources.to_string();
  r->travels = spill_ns_ && !where.here && where.never.empty() && where.group.is_nil() && !pool.env && !resources.empty();
  if (r->travels) r->asks = resources;
  return Status();
}

std::string Demands::infeasible(const Request& r) const {
  if (!r.never.empty()) return r.never;
  if (r.group) return groups_->infeasible(r);
  for (const auto& [entry, a] : r.need.items) {
    const Amount total = table_->total(entry);
    const std::string& name = table_->name(entry);
    if (a <= total) continue;
    if (total == 0) return strprintf("needs {%s}, but the node has no resource '%s'", r.text.c_str(), name.c_str());
    return strprintf("needs {%s}, but the node has only %s of '%s'", r.text.c_str(), amount_text(total).c_str(),
                     name.c_str());
  }
  if (r.kind == Request::kGroup && !fits(r, table_->empty()))
    return strprintf("needs {%s}, but the node's GPUs cannot be divided like that", r.text.c_str());
  return "";
}

bool Demands::fits(const Request& r, const View& free) const {
  if (r.kind == Request::kGroup) return groups_->fits(static_cast<const Group&>(r), free);
  return table_->fits(r.wants(), free);
}

bool Demands::wants_more(const Request& r) const {
  if (r.kind == Request::kActor) return true;
  if (r.kind == Request::kGroup) {
    const auto& g = static_cast<const Group&>(r);
    return !g.ready && !g.removed;
  }
  const auto& d = static_cast<const Demand&>(r);
  return d.want > d.have + d.foreign && !d.gone && !clients_.at(d.client).paused;
}

bool Demands::zero_room(const Demand& d) const {
  if (!d.need.items.empty()) return true;
  return d.have - d.blocked + planned(d) < table_->processors();
}

uint32_t Demands::leases_of(const Request& r) const {
  return r.kind == Request::kDemand ? leases_->count(static_cast<const Demand&>(r).client) : 0;
}

// ---- lines

Line* Demands::line_of(Request* r) {
  if (r->kind == Request::kActor) return &actor_line_;
  if (r->kind == Request::kGroup) return &group_line_;
  return &clients_.at(static_cast<Demand*>(r)->client).line;
}

// To be called whenever something changed that decides whether it waits.
void Demands::settle(Request* r) {
  if (!wants_more(*r)) return r->line ? leave(r) : spills_no_more(r);
  const bool placed_in = r->group && r->kind != Request::kGroup;
  if (r->line || (placed_in && !r->group->ready)) return;  // a group that gets ready settles what waits for it
  if (infeasible(*r).empty()) return enter(r);
  if (!r->spills.request) may_spill(r, 0);
  if (std::exchange(r->reported, true)) return;
  hopeless_.push_back(r);
}

void Demands::enter(Request* r) {
  r->line = line_of(r);
  r->seq = next_seq_++;
  r->since = r->due = 0;
  r->line->by_seq[r->seq] = r;
  r->line->by_cpu.insert({cpu_of(*r), r->seq});
  r->line->fresh.insert(r->seq);
  due_.insert({0, r->seq, r});
  if (r->kind != Request::kDemand) return;
  const uint32_t client = static_cast<Demand*>(r)->client;
  fresh_.insert(client);
  deepest_look_.again = true;
  list(client, &clients_.at(client));
}

void Demands::leave(Request* r) {
  if (!r->line) return;
  r->line->by_seq.erase(r->seq);
  r->line->by_cpu.erase({cpu_of(*r), r->seq});
  r->line->fresh.erase(r->seq);
  due_.erase({r->due, r->seq, r});
  spills_no_more(r);
  r->line = nullptr;
  if (r->kind == Request::kDemand) list(static_cast<Demand*>(r)->client, &clients_.at(static_cast<Demand*>(r)->client));
  end_turn_of(r);  // it stands in nobody's way any more
}

// Gives a client its places among those who wait. To be called whenever they may have changed.
void Demands::list(uint32_t index, Client* c) {
  if (c->listed) {
    in_order_.erase({c->leases, c->first, index});
    deepest_.erase({UINT32_MAX - c->listed_level, c->leases, index});
  }
  c->listed = !c->line.by_seq.empty();
  if (!c->listed) {
    waiting_clients_.erase(index);
    fresh_.erase(index);
    unfinished_.erase(index);
    return;
  }
  c->leases = leases_->count(index);
  c->first = c->line.by_seq.begin()->first;
  c->listed_level = c->level;
  waiting_clients_.insert(index);
  in_order_.insert({c->leases, c->first, index});
  deepest_.insert({UINT32_MAX - c->level, c->leases, index});
}

void Demands::set_level(uint32_t client, uint32_t level) {
  auto c = clients_.find(client);
  if (c == clients_.end() || c->second.level == level) return;
  c->second.level = level;
  list(client, &c->second);
}

void Demands::end_turn_of(Request* r) {
  if (std::exchange(r->turn_ends, 0)) stir();
}

void Demands::set_due(Request* r, int64_t at) {
  due_.erase({r->due, r->seq, r});
  r->due = at;
  due_.insert({at, r->seq, r});
}

void Demands::wait_anew(Request* r, int64_t now) {
  r->since = now;
  set_due(r, now + patience(*r));
  may_spill(r, now);
}

// Who has leases can wait the longer the more they are.
int64_t Demands::patience(const Request& r) const {
  uint32_t have = r.kind == Request::kDemand ? static_cast<const Demand&>(r).have : 0;
  return age_ns_ << std::min(have, 6u);
}

// It is about to be erased or defined anew.
void Demands::forget(Request* r) {
  leave(r);
  spills_no_more(r);
  std::erase(hopeless_, r);
  if (!r->group) return;
  if (r->kind == Request::kDemand) {
    auto* d = static_cast<Demand*>(r);
    r->group->shapes.erase({d->client, d->shape});
  } else if (r->kind == Request::kActor) {
    r->group->actors.erase(static_cast<ActorDemand*>(r)->actor);
  }
}

void Demands::begin_round(int64_t now) {
  ++round_;
  while (!due_.empty() && due_.begin()->at == 0) wait_anew(due_.begin()->request, now);
}

void Demands::each_due(int64_t now, size_t most, const std::function<void(Request*)>& f) {
  size_t looks = 0;
  for (auto it = due_.begin(); it != due_.end() && it->at <= now && looks < most; ++looks) f((it++)->request);
}

int64_t Demands::next_due(int64_t after) const {
  if (!due_.empty() && due_.begin()->at == 0) return 1;  // it has not been looked at
  auto due = due_.lower_bound({after + 1, 0, nullptr});
  return due == due_.end() ? 0 : due->at;
}

// Those of a line that this round looks at: the first, the new, and some more that may fit as far as the node's CPUs
// go; the next round goes on where this one stops, until nothing has been freed since the look began.
void Demands::candidates(Line* line, std::vector<Request*>* out, bool* again) {
  auto add = [this, out](Request* q) {
    ++looks_;
    if (std::exchange(q->listed, round_) != round_) out->push_back(q);
  };
  size_t n = 0;
  for (auto it = line->by_seq.begin(); it != line->by_seq.end() && n < kLook; ++it, ++n) add(it->second);
  for (uint64_t seq : line->fresh) add(line->by_seq.at(seq));
  line->fresh.clear();
  if (line->by_seq.size() <= kLook) return;
  if (!line->look.goes_on(stirs_)) return;
  n = 0;
  for (auto it = line->by_cpu.lower_bound(line->look.at); it != line->by_cpu.end(); ++it) {
    if (it->first > 0 && it->first > table_->free(kCpu)) break;
    if (n++ == kLook) {
      line->look.at = *it;
      *again = true;
      return;
    }
    add(line->by_seq.at(it->second));
  }
  line->look.done = true;
  if (line->look.again) *again = true;
}

// Those that go first, those with something new, and in turn some of those whose own line is not looked through, and some
// of the others.
std::vector<uint32_t> Demands::clients_to_look_at(bool* again) {
  if (waiting_clients_.size() <= kClients) {
    fresh_.clear();
    return {waiting_clients_.begin(), waiting_clients_.end()};
  }
  std::set<uint32_t> out = std::exchange(fresh_, {});
  size_t n = 0;
  for (auto it = in_order_.begin(); n < kClients; ++it, ++n) out.insert(std::get<2>(*it));
  n = 0;
  auto next = unfinished_.lower_bound(unfinished_at_);
  for (; next != unfinished_.end() && n < kClients; ++next, ++n) out.insert(*next);
  unfinished_at_ = next == unfinished_.end() ? 0 : *next;
  if (!look_.goes_on(stirs_)) return {out.begin(), out.end()};
  n = 0;
  auto it = waiting_clients_.lower_bound(look_.at);
  for (; it != waiting_clients_.end() && n < kClients; ++it, ++n) out.insert(*it);
  if (it != waiting_clients_.end()) look_.at = *it;
  else look_.done = true;
  *again |= !look_.done || look_.again;
  return {out.begin(), out.end()};
}

std::vector<Demands::Walk> Demands::walks(bool* again) {
  std::vector<Walk> walks;
  auto add = [&](Line* line, uint32_t leases) {
    bool more = false;
    walks.push_back({leases, {}});
    candidates(line, &walks.back().todo, &more);
    *again |= more;
    return more;
  };
  if (!group_line_.by_seq.empty()) add(&group_line_, 0);
  if (!actor_line_.by_seq.empty()) add(&actor_line_, 0);
  for (uint32_t index : clients_to_look_at(again)) {
    if (add(&clients_.at(index).line, leases_->count(index))) unfinished_.insert(index);
    else unfinished_.erase(index);
  }
  *again |= !unfinished_.empty();
  return walks;
}

bool Demands::first_of(const Line& line, uint32_t leases, const std::function<bool(uint32_t, Request*)>& f) {
  size_t n = 0;
  for (auto it = line.by_seq.begin(); it != line.by_seq.end() && n < kLook; ++n) {
    Request* q = (it++)->second;
    ++looks_;
    if (q->kind == Request::kDemand && !zero_room(*static_cast<Demand*>(q))) continue;
    if (f(leases, q)) return true;
  }
  return false;
}

Demands::Deepest Demands::deepest() {
  Deepest out;
  auto it = deepest_.begin();
  auto add = [&] {
    for (size_t n = 0; it != deepest_.end() && n < kClients; ++it, ++n) out.clients.push_back(std::get<2>(*it));
  };
  add();
  if (it == deepest_.end() || !deepest_look_.goes_on(stirs_)) return out;
  it = deepest_.lower_bound(std::max(*it, deepest_look_.at));
  add();
  out.in_turn = true;
  out.last = it == deepest_.end();
  if (!out.last) out.next = *it;
  return out;
}

bool Demands::pass(const Deepest& clients) {
  if (!clients.in_turn) return false;
  deepest_look_.done = clients.last;
  if (!clients.last) deepest_look_.at = clients.next;
  return !deepest_look_.done || deepest_look_.again;
}

bool Demands::deepest_first(const Deepest& clients, const std::function<bool(uint32_t, Request*)>& f) {
  for (uint32_t client : clients.clients)
    if (const Client& c = clients_.at(client); first_of(c.line, c.leases, f)) return true;
  return clients.last && first_of(actor_line_, 0, f);
}

// ---- clients

// To be called whenever what it wants or has changes.
void Demands::count(Demand* d) {
  Client& c = clients_.at(d->client);
  leases_->set_surplus(d->client, d->shape, d->have > 0 && (d->want < d->have || c.paused));
  bool open = d->want > 0 || d->have + d->foreign > 0;
  if (open == d->open) return;
  d->open = open;
  c.open += open ? 1u : -1u;
}

Status Demands::define(uint32_t client, uint32_t shape, const Resources& resources, const Pool& pool,
                       const Placement& where) {
  Client& c = clients_[client];
  auto old = c.demands.find(shape);
  if (old == c.demands.end() && c.demands.size() >= wire::kMaxShapes)
    return error(RAY_INVALID_ARGUMENT, "process %u uses more than %zu resource shapes", client, wire::kMaxShapes);
  if (old != c.demands.end()) {
    if (old->second.have + old->second.foreign > 0)
      return error(RAY_INVALID_ARGUMENT, "shape %u is redefined while in use", shape);
    old->second.want = 0;
    count(&old->second);
    forget(&old->second);
    c.demands.erase(old);
  }
  Demand& d = c.demands[shape];
  d.client = client;
  d.shape = shape;
  Status s = fill(&d, resources, pool, where);
  d.gone = !s.ok();
  if (d.group) d.group->shapes.insert({client, shape});
  return s;
}

Demand* Demands::find(uint32_t client, uint32_t shape) {
  auto c = clients_.find(client);
  if (c == clients_.end()) return nullptr;
  auto d = c->second.demands.find(shape);
  return d == c->second.demands.end() ? nullptr : &d->second;
}

Status Demands::want(uint32_t client, uint32_t shape, uint32_t want, const TaskId& example) {
  Demand* d = find(client, shape);
  if (!d)
    return error(RAY_INVALID_ARGUMENT, "process %u wants leases of shape %u, which it never defined", client, shape);
  d->want = want;
  d->example = example;
  count(d);
  settle(d);
  return Status();
}

void Demands::pause(uint32_t client, bool paused) {
  auto c = clients_.find(client);
  if (c == clients_.end()) return;
  c->second.paused = paused;
  for (auto& [shape, d] : c->second.demands) count(&d), settle(&d);
}

void Demands::forget(uint32_t client) {
  auto c = clients_.find(client);
  if (c == clients_.end()) return;
  for (auto& [shape, d] : c->second.demands) forget(&d);
  fresh_.erase(client);
  clients_.erase(c);
}

bool Demands::wants_or_has(uint32_t client) const {
  auto c = clients_.find(client);
  return c != clients_.end() && c->second.open > 0;
}

// To the end of its line, if it wants more.
void Demands::granted(Demand* d, int64_t now) {
  ++d->have;
  count(d);
  leave(d);
  d->turns = 0;
  settle(d);
  if (d->line) wait_anew(d, now);
  list(d->client, &clients_.at(d->client));
}

void Demands::returned(Demand* d, bool blocked, int64_t now) {
  --d->have;
  if (blocked) --d->blocked;
  count(d);
  settle(d);
  if (d->line && !d->turn_ends) wait_anew(d, now);
  list(d->client, &clients_.at(d->client));
}

void Demands::foreign(Demand* d, int by) {
  d->foreign += static_cast<uint32_t>(by);
  count(d);
  settle(d);
}

// ---- actors and groups

void Demands::want_actor(const ActorId& actor, const Resources& resources, const Pool& pool, const Placement& where) {
  cancel_actor(actor);
  ActorDemand& a = actors_[actor];
  a.kind = Request::kActor;
  a.actor = actor;
  if (!fill(&a, resources, pool, where).ok()) {
    actors_.erase(actor);
    return;
  }
  if (a.group) a.group->actors.insert(actor);
  settle(&a);
}

void Demands::cancel_actor(const ActorId& actor) {
  auto it = actors_.find(actor);
  if (it == actors_.end()) return;
  forget(&it->second);
  actors_.erase(it);
}

void Demands::reserved(Group* g) {
  leave(g);
  for (auto [client, shape] : g->shapes) settle(find(client, shape));
  for (const ActorId& actor : g->actors) settle(&actors_.at(actor));
}

Demands::LeftBehind Demands::removed(Group* g) {
  LeftBehind out;
  auto left_behind = [this](Request* r) {
    leave(r);
    std::erase(hopeless_, r);  // it is told that its group is gone, not that it never fits
    r->group = nullptr;
    r->placed = Need{};
    r->gone = true;
  };
  leave(g);
  for (auto [client, shape] : std::exchange(g->shapes, {})) {
    left_behind(find(client, shape));
    out.shapes.emplace_back(client, shape);
  }
  for (const ActorId& actor : std::exchange(g->actors, {})) {
    left_behind(&actors_.at(actor));
    cancel_actor(actor);
    out.actors.push_back(actor);
  }
  return out;
}

// ---- for queries and tests

size_t Demands::shapes() const {
  size_t n = 0;
  for (const auto& [index, c] : clients_) n += c.demands.size();
  return n;
}

uint32_t Demands::waiting() const {
  auto n = static_cast<uint32_t>(actors_.size());
  for (const auto& [index, c] : clients_)
    for (const auto& [shape, d] : c.demands) n += d.want > d.have + d.foreign && !d.gone;
  return n;
}

void Demands::each_turn(const std::function<void(const Request&)>& f) const {
  for (const Due& due : due_)
    if (due.request->turn_ends) f(*due.request);
}

std::string Demands::check_line(const Request& q, size_t* lined) const {
  bool parked = q.group && q.kind != Request::kGroup && !q.group->ready;
  bool waits = wants_more(q) && !parked && !q.reported;
  if (std::string broken = check_spills(q); !broken.empty()) return broken;
  if (waits != (q.line != nullptr)) return waits ? "who waits stands in no line" : "who does not wait stands in a line";
  if (!q.line) return "";
  ++*lined;
  auto it = q.line->by_seq.find(q.seq);
  if (it == q.line->by_seq.end() || it->second != &q) return "a place in a line is somebody else's";
  if (!due_.count({q.due, q.seq, const_cast<Request*>(&q)})) return "who waits is never due";
  if (q.line->by_cpu.size() != q.line->by_seq.size()) return "the two orders of a line differ";
  return "";
}

std::string Demands::check_order(uint32_t index, const Client& c) const {
  const bool waits = !c.line.by_seq.empty();
  if (waiting_clients_.count(index) != waits || c.listed != waits) return "a client's line is not looked at";
  if (!waits) return fresh_.count(index) || unfinished_.count(index) ? "a client that does not wait has something new" : "";
  if (c.leases != leases_->count(index) || c.first != c.line.by_seq.begin()->first || c.listed_level != c.level)
    return "a client's place among those who wait is an old one";
  if (!in_order_.count({c.leases, c.first, index})) return "a client stands in no order";
  if (!deepest_.count({UINT32_MAX - c.level, c.leases, index})) return "a client stands at no level";
  if (!c.line.fresh.empty() && !fresh_.count(index)) return "what is new is not looked at";
  return "";
}

std::string Demands::check(const std::map<uint32_t, Foreign>& foreign) const {
  std::map<std::pair<uint32_t, uint32_t>, std::pair<uint32_t, uint32_t>> of_shape;  // have, blocked
  std::map<std::pair<uint32_t, uint32_t>, uint32_t> stand_ins;
  for (const auto& [worker, f] : foreign) stand_ins[{f.client, f.shape}] += f.state == Foreign::kLeased;
  for (const auto& [id, l] : leases_->all()) {
    auto& [have, blocked] = of_shape[{l.client, l.shape}];
    ++have;
    blocked += l.waits;
  }
  size_t lined = 0;
  std::string broken;
  auto look = [&](const Request& q) {
    if (broken.empty()) broken = check_line(q, &lined);
  };
  for (const auto& [index, c] : clients_) {
    uint32_t open = 0;
    for (const auto& [shape, d] : c.demands) {
      if (std::pair(d.have, d.blocked) != of_shape[{index, shape}]) return "a demand's counts of leases are wrong";
      if (d.foreign != stand_ins[{index, shape}]) return "a demand's count of stand-ins is wrong";
      open += d.want > 0 || d.have + d.foreign > 0;
      look(d);
    }
    if (open != c.open) return "a client's count of open demands is wrong";
    if (broken.empty()) broken = check_order(index, c);
  }
  size_t listed = 0;
  auto count = [&listed](const Request& q) { listed += q.spills.request != nullptr; };
  for (const auto& [index, c] : clients_)
    for (const auto& [shape, d] : c.demands) count(d);
  for (const auto& [id, a] : actors_) count(a);
  if (listed != spills_.size()) return "something is spilled that is not there";
  for (const auto& [id, a] : actors_) look(a);
  for (const auto& [id, g] : groups_->all()) look(g);
  if (broken.empty() && lined != due_.size()) broken = "something is due that does not wait";
  if (broken.empty() && (in_order_.size() != waiting_clients_.size() || deepest_.size() != waiting_clients_.size()))
    broken = "the orders of those who wait differ";
  return broken;
}

}  // namespace ray::sched
