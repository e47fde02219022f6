// The calls of one client on one actor: in the order in which they were made, whatever happens to them. Those that wait for
// arguments hold up what was called after them, unless the actor takes its calls in any order; one that fails or is
// cancelled holds up nobody.
//
// Who drives it: libray/runtime with its mutex held, and libray/sim. Pure.
//
// Invariants (check()): `queue` is in the order in which the calls were made, what came back included; of an actor that takes
// calls in any order those that wait stand `aside`. `lost` holds, as they lay there, calls that were in the ring of a process
// that died. Whoever takes out the first of the queue pumps it.
#pragma once
#include <string>
#include <utility>

#include "libray/task/flaw.h"
#include "libray/task/list.h"
#include "libray/task/pending.h"

namespace ray::task {

template <class K>
struct CallQueue {
  using Task = typename K::Task;
  List<Task> queue;  // calls that wait for the actor, or for room
  List<Task> aside;  // out of order: calls that wait for arguments, and stop nobody
  List<Task> lost;   // in flight when it died; the next state decides

  // An argument is missing.
  void park(Task* t, bool out_of_order) {
    t->aside = out_of_order;
    (t->aside ? aside : queue).push_back(t);
  }
  // Its arguments are there.
  void complete(Task* t) {
    enter<K>(t, State::kQueued);
    if (t->aside) go_in(t);
  }
  // What is known of the actor now: those that wait stop nobody.
  void free_order() {
    for (Task *t = queue.head, *next; t; t = next) {
      next = t->next;
      if (t->state != State::kWaiting) continue;
      queue.remove(t);
      aside.push_back(t);
      t->aside = true;
    }
  }
  // From its ring, or that of a process that died: before calls that were made after it, for one of them may wait for its
  // result.
  void give_back(Task* t) {
    enter<K>(t, State::kQueued);
    Task* later = K::flaw(Flaw::kOutOfOrder) ? nullptr : queue.head;
    while (later && later->seq < t->seq) later = later->next;
    queue.insert_before(later, t);
  }
  // In the ring of a process that died, in the order of the ring.
  void lose(Task* t, bool began) {
    enter<K>(t, State::kLost);
    t->started = began;
    lost.push_back(t);
  }
  // What becomes of the calls that were lost now that the actor is restarted: end(t) is called for those that end,
  // begin_again(t) for those that are another attempt. They come back from the last, so the place of each is at the front.
  template <class End, class Again>
  void settle_lost(End&& end, Again&& begin_again) {
    List<Task> all = std::exchange(lost, {});  // an end may lead to anything
    while (Task* t = all.tail) {
      all.remove(t);
      const Fate fate = fate_of<K>(t, t->started ? Stop::kDied : Stop::kUnbegun, true);
      if (fate == Fate::kEnds || fate == Fate::kCancel) {
        end(t);
        continue;
      }
      if (fate == Fate::kAgain) begin_again(t);
      give_back(t);
    }
  }
  // The same incarnation, another link: nothing of what the last one held was begun. end(t): it was cancelled.
  template <class End>
  void resume_lost(End&& end) {
    List<Task> all = std::exchange(lost, {});
    while (Task* t = all.tail) {
      all.remove(t);
      fate_of<K>(t, Stop::kReturned, true) == Fate::kCancel ? end(t) : give_back(t);
    }
  }
  // Takes out one that is in no ring. True: what stands behind it may go on.
  bool remove(Task* t) {
    if (t->state == State::kLost) {
      lost.remove(t);
      return false;
    }
    const bool first = !t->aside && queue.head == t;
    (t->aside ? aside : queue).remove(t);
    t->aside = false;
    return first && !K::flaw(Flaw::kHoldsUp);
  }
  // In order, as far as there is room; push(t) writes one, or says that there is none. True: it has written some.
  template <class Push>
  bool pump(Push&& push) {
    bool any = false;
    while (Task* t = queue.head) {
      if (t->state != State::kQueued) break;  // an argument is missing: later calls wait too
      queue.remove(t);
      if (!push(t)) {
        queue.push_front(t);
        break;
      }
      any = true;
    }
    return any;
  }
  std::string check() const {
    if (!queue.check() || !aside.check() || !lost.check()) return "the calls of an actor stand in a broken list";
    for (const Task* t = queue.head; t; t = t->next) {
      if (t->aside || (t->state != State::kWaiting && t->state != State::kQueued)) return "a call is in a queue by mistake";
    }
    for (const Task* t = aside.head; t; t = t->next)
      if (!t->aside || t->state != State::kWaiting) return "a call stands aside by mistake";
    for (const Task* t = lost.head; t; t = t->next)
      if (t->state != State::kLost) return "a call is lost by mistake";
    return "";
  }

 private:
  void go_in(Task* t) {
    aside.remove(t);
    t->aside = false;
    queue.push_back(t);
  }
};

}  // namespace ray::task
