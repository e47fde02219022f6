// A task from its submission to its end, as its client knows it: its states and the ways between them, and what becomes of
// it when an execution comes to nothing. Actor calls go by the same rules; their order is in call_queue.h.
//
//   kFree -> kWaiting           it was submitted; arguments are missing, or its record is not complete
//   kWaiting -> kQueued         its record is complete: it stands in a backlog, or in the queue of its actor
//   kWaiting, kQueued -> kPushed   its record lies in a worker's ring
//   kPushed -> kQueued          it came back: not begun, or to be tried again
//   kPushed -> kLost            a call whose actor's process died: the actor's next state decides
//   kLost -> kQueued            it goes to the next one
//   any -> kFree                it has ended
//
// Who drives it: libray/runtime with its mutex held, and libray/sim. Pure. T has the members that are named here.
//
// Invariants: a task ends once; one that has begun is not run again unless it has a retry for that; one that has not begun
// does not fail for its worker's death, and uses up no retry, the last one included. Only a call that may not be tried
// again at all ends with the process of its actor, begun or not: nobody said that it should outlive a restart.
#pragma once
#include <cstdint>

#include "libray/task/flaw.h"

namespace ray::task {

enum class State : uint8_t { kFree, kWaiting, kQueued, kPushed, kLost };

constexpr bool allowed(State from, State to) {
  switch (to) {
    case State::kFree: return from != State::kFree;
    case State::kWaiting: return from == State::kFree;
    case State::kQueued: return from != State::kFree && from != State::kQueued;
    case State::kPushed: return from == State::kWaiting || from == State::kQueued;
    case State::kLost: return from == State::kPushed;
  }
  return false;
}

// K::checked() is a constant of the product's plain builds, in which this is a store.
template <class K, class T>
inline void enter(T* t, State to) {
  if (K::checked() && !allowed(t->state, to)) K::broken("a task went from one state to another that does not follow");
  t->state = to;
}

// How an execution came to nothing.
enum class Stop : uint8_t {
  kReturned,      // its worker gave it back before it began
  kUnbegun,       // its worker died, and had not begun it
  kDied,          // while it ran
  kFailed,        // it failed, and might not another time
  kFailedForGood  // no other attempt would help
};

enum class Fate : uint8_t {
  kSame,    // it waits again, as it was
  kAgain,   // another attempt: `attempt` and `retries_left` are those of that one
  kEnds,    // with the error of this attempt
  kCancel,  // as cancelled
};

// A retry is taken, if there is one; fewer than none: as many as it takes.
template <class T>
inline bool take_retry(T* t) {
  if (t->retries_left == 0) return false;
  if (t->retries_left > 0) --t->retries_left;
  ++t->attempt;
  return true;
}

// `call`: of an actor. Whoever takes the last retry has had one: `attempt` counts.
template <class K, class T>
inline Fate fate_of(T* t, Stop how, bool call) {
  if (K::flaw(Flaw::kUnbegunFails) && how == Stop::kUnbegun) how = Stop::kDied;
  if (K::flaw(Flaw::kRunsAgain) && how == Stop::kDied) how = Stop::kUnbegun;
  switch (how) {
    case Stop::kReturned: return t->cancelled ? Fate::kCancel : Fate::kSame;
    case Stop::kUnbegun:
      if (t->cancelled) return Fate::kCancel;
      return call && t->retries_left == 0 && t->attempt == 0 ? Fate::kEnds : Fate::kSame;
    case Stop::kDied:
      if (t->cancelled) return Fate::kCancel;
      return take_retry(t) ? Fate::kAgain : Fate::kEnds;
    case Stop::kFailed:
      // A cancelled one has no retries left: its own error tells what it made of that.
      return t->retry_on_error && take_retry(t) ? Fate::kAgain : Fate::kEnds;
    case Stop::kFailedForGood: return Fate::kEnds;
  }
  return Fate::kEnds;
}

}  // namespace ray::task
