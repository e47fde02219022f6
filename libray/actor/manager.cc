// See manager.h.
#include "libray/actor/manager.h"

#include <algorithm>

namespace ray::actor {
namespace {

// Dead actors that are remembered in full, so that late callers are told why.
constexpr size_t kMaxDead = 4096;
constexpr size_t kMaxDeadBytes = 16u << 20;

size_t bytes_of(const Actor& a) {
  return a.spec.name.size() + a.spec.ns.size() + a.spec.klass.size() + a.spec.metadata.size() + a.cause.size();
}

Action make(Action::Kind kind, const ActorId& id, uint32_t process = 0, uint32_t incarnation = 0) {
  Action a{kind};
  a.id = id;
  a.process = process;
  a.incarnation = incarnation;
  return a;
}

Action reply(const Spec& s, int32_t code, const ActorId& id, std::string text = "") {
  Action a{Action::kReply};
  a.id = id;
  a.process = s.creator;
  a.req_id = s.req_id;
  a.code = code;
  a.text = std::move(text);
  return a;
}

}  // namespace

const Actor* Manager::find(const ActorId& id) const {
  auto it = actors_.find(id);
  return it == actors_.end() ? nullptr : &it->second;
}

const Actor* Manager::find(const std::string& name, const std::string& ns) const {
  auto it = by_name_.find({ns, name});
  if (it == by_name_.end()) return nullptr;
  const Actor* a = find(it->second);
  bool usable = a && a->named && a->state != wire::kActorDead && !a->ending && !a->kill_for_good &&
                (!a->unreferenced || a->spec.lifetime == RAY_LIFETIME_DETACHED);
  return usable ? a : nullptr;
}

const Actor* Manager::of_worker(uint32_t worker) const {
  auto it = by_worker_.find(worker);
  return it == by_worker_.end() ? nullptr : find(it->second);
}

// ---- creation --------------------------------------------------------------------------------------

// A creator that runs again makes it anew, under the same id.
void Manager::forget_given_up(const ActorId& id) {
  auto it = actors_.find(id);
  if (it == actors_.end() || !it->second.given_up) return;
  std::erase(dead_, id);
  dead_bytes_ -= bytes_of(it->second);
  erase(id);
}

void Manager::announce(const ActorId& id, uint32_t creator, uint32_t job, const wire::ActorFacts& facts) {
  forget_given_up(id);
  auto [it, fresh] = actors_.try_emplace(id);
  if (!fresh) return;
  Actor& a = it->second;
  a.announced = true;
  announced_.insert(id);
  living_[job].insert(id);
  a.spec.id = id;
  a.spec.creator = creator;
  a.spec.job = job;
  a.spec.max_restarts = facts.max_restarts;
  a.spec.max_task_retries = facts.max_task_retries;
  a.spec.flags = facts.flags;
  a.spec.max_pending_calls = facts.max_pending_calls;
}

void Manager::create(Spec spec, Actions* out) {
  forget_given_up(spec.id);
  auto known = actors_.find(spec.id);
  const bool open = known != actors_.end() && known->second.announced && known->second.state != wire::kActorDead;
  if (open && known->second.spec.creator == spec.creator) {
    known->second.announced = false;
    announced_.erase(spec.id);
  } else if (known != actors_.end()) {
    // A creator that runs again. While the name is being claimed the answer comes with the claim, and it is the new
    // process that waits for it.
    if (known->second.naming) {
      known->second.spec.creator = spec.creator;
      known->second.spec.req_id = spec.req_id;
    } else if (spec.req_id) {
      out->push_back(reply(spec, RAY_OK, spec.id));
    }
    return;
  }
  Actor& a = actors_[spec.id];
  a.spec = std::move(spec);
  living_[a.spec.job].insert(a.spec.id);
  if (a.spec.lifetime == RAY_LIFETIME_DETACHED) ++detached_[a.spec.job];
  out->push_back(make(Action::kHold, a.spec.id));
  if (!a.spec.name.empty()) {
    a.naming = true;
    naming_.insert(a.spec.id);
    out->push_back(make(Action::kClaimName, a.spec.id));
    return;
  }
  if (a.spec.req_id) out->push_back(reply(a.spec, RAY_OK, a.spec.id));
  change(&a, wire::kActorPending, out);
  start(&a, out);
}

void Manager::name_claimed(const ActorId& id, int32_t code, const ActorId& winner,
                           const std::string& text, Actions* out) {
  auto it = actors_.find(id);
  if (it == actors_.end() || !it->second.naming) return;
  Actor& a = it->second;
  a.naming = false;
  naming_.erase(id);
  if (code == RAY_OK && winner == id) {
    a.named = true;
    by_name_[{a.spec.ns, a.spec.name}] = id;
    if (a.state == wire::kActorDead) {  // its creator died meanwhile
      a.named = false;
      by_name_.erase({a.spec.ns, a.spec.name});
      out->push_back(make(Action::kReleaseName, id));
      if (a.spec.req_id) out->push_back(reply(a.spec, RAY_ACTOR_DIED, id, "the actor died before it had its name"));
      return;
    }
    if (a.spec.req_id) out->push_back(reply(a.spec, RAY_OK, id));
    change(&a, wire::kActorPending, out);
    start(&a, out);
    return;
  }
  bool get = code == RAY_OK && (a.spec.flags & RAY_ACTOR_GET_IF_EXISTS);
  if (a.spec.req_id) {
    if (get) {
      out->push_back(reply(a.spec, RAY_OK, winner));
      out->back().other = true;
    } else if (code == RAY_OK)
      out->push_back(reply(a.spec, RAY_ALREADY_EXISTS, winner,
                           "an actor named '" + a.spec.name + "' exists in namespace '" + a.spec.ns +
                               "': use another name or get_if_exists"));
    else
      out->push_back(reply(a.spec, code, id, text));
  }
  if (a.state == wire::kActorDead) return;  // meanwhile, and is remembered as such
  // It never was: nobody can have called it but its creator, who has just been told.
  out->push_back(make(Action::kDrop, id));
  end(a);
  erase(id);
}

void Manager::start(Actor* a, Actions* out) {
  if (a->unreferenced && a->spec.lifetime != RAY_LIFETIME_DETACHED)
    return die(a, RAY_ACTOR_DIED, "the last handle of the actor is gone", out);
  a->waiting = true;
  out->push_back(make(Action::kWantWorker, a->spec.id));
}

void Manager::worker_assigned(const ActorId& id, uint32_t worker, Actions* out) {
  auto it = actors_.find(id);
  if (it == actors_.end() || !it->second.waiting) {
    out->push_back(make(Action::kKill, id, worker));  // nobody wants it any more
    return;
  }
  Actor& a = it->second;
  a.waiting = false;
  a.worker = worker;
  by_worker_[worker] = id;
  out->push_back(make(Action::kInit, id, worker, a.incarnation));
}

void Manager::constructed(uint32_t worker, const ActorId& id, uint32_t incarnation, int32_t code,
                          const std::string& error, Actions* out) {
  auto it = actors_.find(id);
  if (it == actors_.end() || worker == kNoProcess) return;
  Actor& a = it->second;
  if (a.announced) {  // its creator has given up
    if (a.spec.creator == worker && a.state != wire::kActorDead) {
      a.given_up = true;
      die(&a, code ? code : RAY_ACTOR_DIED, error, out);
    }
    return;
  }
  if (a.worker != worker || a.incarnation != incarnation) return;
  if (a.state == wire::kActorAlive || a.state == wire::kActorDead) return;
  if (code != RAY_OK) {
    out->push_back(make(Action::kKill, id, worker));
    die(&a, code, error, out);
    return;
  }
  change(&a, wire::kActorAlive, out);
  if (a.unreferenced && a.spec.lifetime != RAY_LIFETIME_DETACHED)
    out->push_back(make(Action::kWanted, id, worker));
}

// ---- the end ---------------------------------------------------------------------------------------

void Manager::exiting(uint32_t worker, const ActorId& id, const std::string& why, Actions* out) {
  auto it = actors_.find(id);
  if (it == actors_.end() || it->second.worker != worker) return;
  it->second.ending = true;  // told to others when the process is gone: its last results count
  if (it->second.why.empty()) it->second.why = why;
  give_up_name(&it->second, out);
}

void Manager::kill(const ActorId& id, bool may_restart, Actions* out) {
  auto it = actors_.find(id);
  if (it == actors_.end() || it->second.state == wire::kActorDead) return;
  Actor& a = it->second;
  if (!may_restart) {
    a.kill_for_good = true;
    give_up_name(&a, out);
  }
  if (a.worker != kNoProcess) {
    out->push_back(make(Action::kKill, id, a.worker));  // what follows comes with its death
    return;
  }
  // It has no process yet. As if it had just got one: with a restart left it goes on waiting for its next.
  if (may_restart && this->may_restart(a)) {
    ++a.restarts;
    return;
  }
  die(&a, RAY_ACTOR_DIED, "it was killed by `ray.kill`; it never ran, for it was killed before it started", out);
}

void Manager::fail(const ActorId& id, int32_t code, const std::string& text, Actions* out) {
  auto it = actors_.find(id);
  if (it == actors_.end() || it->second.state == wire::kActorDead) return;
  Actor& a = it->second;
  a.kill_for_good = true;
  if (a.worker != kNoProcess) out->push_back(make(Action::kKill, id, a.worker));
  die(&a, code, text, out);
}

void Manager::unreferenced(const ActorId& id, Actions* out) {
  auto it = actors_.find(id);
  if (it == actors_.end() || it->second.state == wire::kActorDead) return;
  Actor& a = it->second;
  a.unreferenced = true;
  if (a.spec.lifetime == RAY_LIFETIME_DETACHED || a.naming || a.announced) return;
  give_up_name(&a, out);  // for good: who asks for it by its name does not find it from now on
  if (a.worker == kNoProcess)
    die(&a, RAY_ACTOR_DIED, "the last handle of the actor is gone", out);
  else if (a.state == wire::kActorAlive)
    out->push_back(make(Action::kWanted, id, a.worker));
  // Else it is in its constructor: told when that is done.
}

bool Manager::may_restart(const Actor& a) const {
  if (a.ending || a.kill_for_good) return false;
  if (a.unreferenced && a.spec.lifetime != RAY_LIFETIME_DETACHED) return false;
  return a.spec.max_restarts < 0 || a.restarts < a.spec.max_restarts;
}

void Manager::process_died(uint32_t process, const std::string& how, Actions* out) {
  if (auto s = by_subscriber_.find(process); s != by_subscriber_.end()) {
    for (const ActorId& id : s->second) actors_.at(id).subscribers.erase(process);
    by_subscriber_.erase(s);
  }
  for (const ActorId& id : naming_)  // nobody waits for that answer, and the next of this number waits for others
    if (Spec& spec = actors_.at(id).spec; spec.creator == process) spec.req_id = 0;
  std::vector<Actor*> orphans;
  for (const ActorId& id : announced_)
    if (Actor& a = actors_.at(id); a.spec.creator == process && a.state != wire::kActorDead) orphans.push_back(&a);
  for (Actor* a : orphans) {
    a->given_up = true;
    die(a, RAY_ACTOR_DIED, "its creator has died before the arguments of its constructor were there", out);
  }
  auto w = by_worker_.find(process);
  if (w == by_worker_.end()) return;
  Actor& a = actors_.at(w->second);
  by_worker_.erase(w);
  a.worker = kNoProcess;
  if (a.state == wire::kActorDead) return;
  if (may_restart(a)) {
    ++a.restarts;
    ++a.incarnation;
    change(&a, wire::kActorRestarting, out);
    start(&a, out);
    return;
  }
  std::string text;
  if (a.kill_for_good) text = "it was killed by `ray.kill`";
  else if (a.ending) text = a.why.empty() ? "it has ended by its own will" : a.why;
  else if (a.unreferenced) text = "the last handle of the actor is gone";
  if (text.empty()) {
    text = "its worker process has died: " + how;
    if (a.spec.max_restarts != 0)
      text += "; it had been restarted " + std::to_string(a.restarts) + " times (max_restarts)";
  }
  die(&a, RAY_ACTOR_DIED, text, out);
}

void Manager::job_ended(uint32_t job, const std::set<uint32_t>& spared, Actions* out) {
  std::vector<ActorId> ids;
  if (auto living = living_.find(job); living != living_.end())
    for (const ActorId& id : living->second)
      if (const Spec& s = actors_.at(id).spec; s.lifetime != RAY_LIFETIME_DETACHED && !spared.count(s.creator))
        ids.push_back(id);
  for (const ActorId& id : ids) {
    Actor& a = actors_.at(id);
    a.kill_for_good = true;
    if (a.worker != kNoProcess) out->push_back(make(Action::kKill, id, a.worker));
    die(&a, RAY_ACTOR_DIED, "the job of the actor has ended", out);
  }
}

// From the moment that it cannot be found any more another may have its name.
void Manager::give_up_name(Actor* a, Actions* out) {
  if (!a->named) return;
  by_name_.erase({a->spec.ns, a->spec.name});
  a->named = false;
  out->push_back(make(Action::kReleaseName, a->spec.id));
}

void Manager::die(Actor* a, int32_t code, const std::string& cause, Actions* out) {
  ActorId id = a->spec.id;
  if (a->waiting) out->push_back(make(Action::kCancelWorker, id));
  a->waiting = false;
  a->code = code;
  a->cause = cause;
  give_up_name(a, out);
  out->push_back(make(Action::kDrop, id));
  end(*a);
  change(a, wire::kActorDead, out);
  std::string().swap(a->spec.record);
  std::string().swap(a->spec.resources);
  std::vector<ObjectId>().swap(a->spec.dependencies);
  dead_.push_back(id);
  dead_bytes_ += bytes_of(*a);
  forget_old_dead();
}

// Its job does not count it any more.
void Manager::end(const Actor& a) {
  uint32_t job = a.spec.job;
  if (auto living = living_.find(job); living != living_.end()) {
    living->second.erase(a.spec.id);
    if (living->second.empty()) living_.erase(living);
  }
  if (a.spec.lifetime == RAY_LIFETIME_DETACHED && --detached_[job] == 0) detached_.erase(job);
}

bool Manager::keeps_job(uint32_t job) const { return detached_.count(job) > 0; }

void Manager::erase(const ActorId& id) {
  auto it = actors_.find(id);
  for (uint32_t process : it->second.subscribers)
    if (auto s = by_subscriber_.find(process); s != by_subscriber_.end()) s->second.erase(id);
  naming_.erase(id);
  announced_.erase(id);
  actors_.erase(it);
}

// One whose process is not gone yet, or whose claim is not answered, is looked at again when it is the oldest next.
void Manager::forget_old_dead() {
  for (size_t n = dead_.size(); n > 0 && (dead_.size() > kMaxDead || dead_bytes_ > kMaxDeadBytes); --n) {
    ActorId id = dead_.front();
    dead_.pop_front();
    const Actor& a = actors_.at(id);
    if (a.worker != kNoProcess || a.naming) {
      dead_.push_back(id);
      continue;
    }
    dead_bytes_ -= bytes_of(a);
    erase(id);
  }
}

// ---- telling ---------------------------------------------------------------------------------------

void Manager::change(Actor* a, uint32_t state, Actions* out) {
  a->state = state;
  out->push_back(make(Action::kChanged, a->spec.id, 0, a->incarnation));
  for (uint32_t process : a->subscribers)
    out->push_back(make(Action::kTell, a->spec.id, process, a->incarnation));
}

void Manager::connect(const ActorId& id, uint32_t process, Actions* out) {
  auto it = actors_.find(id);
  if (it != actors_.end()) {
    it->second.subscribers.insert(process);
    by_subscriber_[process].insert(id);
  }
  // Who has announced it knows all that there is to say of it.
  if (it != actors_.end() && it->second.announced && it->second.spec.creator == process &&
      it->second.state != wire::kActorDead)
    return;
  out->push_back(make(Action::kTell, id, process));  // unknown: state_of() says dead
}

std::string Manager::check() const {
  for (const auto& [worker, id] : by_worker_) {
    const Actor* a = find(id);
    if (!a || a->worker != worker) return "a worker of an actor that has another";
  }
  std::map<uint32_t, uint32_t> detached;
  size_t living = 0, listed = 0, bytes = 0, naming = 0, subscribed = 0, indexed = 0;
  for (const auto& [id, a] : actors_) {
    naming += a.naming;
    subscribed += a.subscribers.size();
    if (a.state == wire::kActorDead) bytes += bytes_of(a);
    if (a.worker != kNoProcess && !by_worker_.count(a.worker)) return "a worker that is not indexed";
    if (a.waiting && a.worker != kNoProcess) return "an actor with a worker waits for one";
    if (a.waiting && a.state == wire::kActorDead) return "a dead actor waits for a worker";
    if (a.state == wire::kActorAlive && a.worker == kNoProcess) return "alive without a worker";
    if (a.named && !by_name_.count({a.spec.ns, a.spec.name})) return "a name that is not indexed";
    if (a.state == wire::kActorDead) continue;
    ++living;
    if (a.spec.lifetime == RAY_LIFETIME_DETACHED) ++detached[a.spec.job];
  }
  for (const auto& [job, ids] : living_) listed += ids.size();
  for (const auto& [process, ids] : by_subscriber_) indexed += ids.size();
  if (living != listed) return "the lists of living actors are wrong";
  if (detached != detached_) return "the counts of detached actors are wrong";
  if (bytes != dead_bytes_) return "the bytes of dead actors are wrong";
  if (naming != naming_.size()) return "the list of actors that claim a name is wrong";
  if (subscribed != indexed) return "a subscriber is not indexed";
  return "";
}

}  // namespace ray::actor
