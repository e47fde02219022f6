// See books.h.
#include "libray/sim/books.h"

namespace ray::sim {
namespace {

std::string number(uint64_t n) { return std::to_string(n); }

}  // namespace

// ---- holds

void Holds::said(const Id& object, uint64_t process, int64_t more) {
  if (dead_.count(process)) return;
  Object& o = objects_[object];
  int64_t& n = o.holders[process];
  n += more;
  if (n == 0) o.holders.erase(process);
}

void Holds::died(uint64_t process) {
  dead_.insert(process);
  for (auto& [id, o] : objects_) o.holders.erase(process);
}

void Holds::freed(const Id& object) {
  auto o = objects_.find(object);
  if (o == objects_.end()) return;
  if (!o->second.holders.empty() && broken_->empty())
    *broken_ = "holds: object " + number(number_of(object)) + " is freed, which process " +
               number(o->second.holders.begin()->first) + " holds";
  o->second.freed = true;
}

void Holds::at_rest() const {
  for (const auto& [id, o] : objects_)
    if (o.holders.empty() && !o.freed && broken_->empty())
      *broken_ = "holds: object " + number(number_of(id)) + " is held by nobody, and is not freed";
}

// ---- actors

void Fates::died(uint64_t process) {
  for (auto& [id, who] : asked_) who.erase(process);
}

void Fates::became(const Id& actor, uint32_t state, int64_t now) {
  truth_[actor].state = state;
  truth_[actor].since = now;
}

void Fates::runs(const Id& actor, uint64_t worker, uint32_t incarnation, int64_t now) {
  Told& t = truth_[actor];
  if (worker && t.any && incarnation <= t.incarnation && t.worker != worker) complain("an incarnation of an actor began twice");
  t.any = true;
  t.since = now;
  t.worker = worker;
  t.incarnation = incarnation;
}

bool Fates::dead(const Id& actor) const {
  auto t = truth_.find(actor);
  return t != truth_.end() && t->second.state == wire::kActorDead;
}

void Fates::told(const Id& actor, uint64_t process, const Told& what) {
  auto a = asked_.find(actor);
  if (a == asked_.end() || !a->second.count(process)) return;
  Told& last = a->second.at(process);
  const std::string who = "process " + number(process) + " was told of actor " + number(number_of(actor));
  if (what.state == wire::kActorDead && !dead(actor)) complain(who + " that it is dead, and it is not");
  if (last.any && last.state == wire::kActorDead && what.state != wire::kActorDead) complain(who + " after its death");
  if (last.any && what.state != wire::kActorDead && what.incarnation < last.incarnation) complain(who + " out of order");
  const int64_t since = last.since;
  last = what;
  last.any = true;
  last.since = since;
}

void Fates::look(int64_t before) const {
  for (const auto& [id, who] : asked_) {
    auto t = truth_.find(id);
    if (t == truth_.end() || t->second.since > before) continue;
    for (const auto& [process, last] : who) {
      if (last.since > before) continue;
      const Told& truth = t->second;
      const bool same = last.worker == truth.worker && last.incarnation == truth.incarnation;
      const bool right = last.any && last.state == truth.state && (truth.state != wire::kActorAlive || same);
      if (!right) complain("process " + number(process) + " was not told what became of actor " + number(number_of(id)));
    }
  }
}

// ---- requests

void Requests::answered(uint64_t request) {
  if (request == 0) return;
  open_.erase(request);
  if (!done_.insert(request).second && broken_->empty()) *broken_ = "told: a request was answered twice";
}

void Requests::at_rest() const {
  if (!open_.empty() && broken_->empty())
    *broken_ = "told: request " + number(open_.begin()->first) + " of process " + number(open_.begin()->second) +
               " was never answered";
}

}  // namespace ray::sim
