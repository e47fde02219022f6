// See node_core.h. Objects: what processes say of holds and values, and what the directory decides.
#include "libray/node/core/node_core.h"

namespace ray::node {

void NodeCore::on(const event::Share& e) {
  object::Actions actions;
  const wire::UpObj& o = e.object;
  directory_.share(e.process, o.id, o.state, o.code, o.location, e.contained, o.n_contained, &actions);
  apply(actions);
}

void NodeCore::on(const event::Ready& e) {
  object::Actions actions;
  const wire::UpObj& o = e.object;
  directory_.ready(o.id, o.state, o.code, o.location, e.contained, o.n_contained, &actions, e.process);
  apply(actions);
}

void NodeCore::on(const event::Registered& e) {
  const wire::UpObjResult& r = e.result;
  directory_.result(r.id, r.holder, may_hold(r.holder), r.attempt, e.contained, r.n_contained);
}

void NodeCore::on(const event::Discarded& e) {
  directory_.discard(e.result.id, e.result.holder, e.result.attempt);
  if (e.result.stored) put(action::DiscardObject{e.result.id, e.result.holder, e.result.attempt});
}

void NodeCore::on(const event::Hold& e) {
  if (may_hold(e.count.process)) directory_.hold(e.count.id, e.count.process, e.count.count);
}

void NodeCore::on(const event::Release& e) { directory_.release(e.count.id, e.process, e.count.count); }

// Whoever asks may have got the reference from a process that makes the object again, and that says so in a ring that
// this pass has gone by already: the older value is not what is asked for.
void NodeCore::on(const event::Resolve& e) {
  if (directory_.settled(e.id)) return late_.add({.kind = Late::kResolve, .process = e.process, .id = e.id});
  object::Actions actions;
  directory_.resolve(e.id, e.process, &actions);
  apply(actions);
}

void NodeCore::on(const event::CancelTask& e) {
  object::Actions actions;
  directory_.cancel(e.cancel.id, e.cancel.flags, &actions);
  apply(actions);
}

void NodeCore::apply(object::Actions& actions) {
  using object::Action;
  for (Action& a : actions) {
    switch (a.kind) {
      case Action::kFree: put(action::FreeObject{a.id, a.location}); break;
      case Action::kKeep: put(action::KeepObject{a.id, a.location}); break;
      case Action::kTell: put(action::TellObject{a.process, {a.id, a.location, a.state, a.code}}); break;
      case Action::kCancel: put(action::AskToCancel{a.process, {a.id, a.flags, 0}}); break;
      case Action::kActorUnreferenced: {
        actor::Actions more;
        actors_.unreferenced(a.id, &more);
        apply(more);
        break;
      }
    }
  }
}

}  // namespace ray::node
