// What becomes of a task that is cancelled, wherever it is: in a queue it ends, in a ring its worker is told; and of one that
// is cancelled by force, whose worker ends with it.
//
// Who drives it: libray/runtime with its mutex held, and libray/sim. Pure; time is passed in.
//
// By force. The worker ends itself if, and only if, it runs that very task. So that nothing else ends with it, its ring is
// shut from then on and what stands in it is asked back; open() is when the task is out of it. A worker that does not end
// itself in time is killed through the daemon, but only once the task is alone in its ring: then it has nothing else that
// it could have begun meanwhile, and since its lease is ours, nobody else's. One that gives nothing back for long hangs, or a
// debugger has it: it is killed while the task is the last that it has begun.
//
// Invariants: a cancelled task ends once, and is not tried again; nobody else's task ends with it.
#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

#include "libray/task/lease_policy.h"
#include "libray/task/pending.h"

namespace ray::task {

enum class CancelStep : uint8_t {
  kLater,    // its arguments are being stored, without the lock: whoever does that sees it
  kEnd,      // it stands in a queue, and ends now
  kTell,     // its worker is to be told
  kAskBack,  // and asked for what it has not begun: the end of that need not wait for what runs
};

template <class K>
class Cancellation {
 public:
  using Task = typename K::Task;
  using Actions = LeaseActions<K>;
  static constexpr int64_t kPatienceNs = 1'000'000'000;   // of one that is told to end by force
  static constexpr int64_t kSilentNs = 15'000'000'000;    // of one that does not even give back what waits behind it

  // `begun`: of one in a ring, whether its worker has begun it.
  CancelStep cancel(Task* t, bool force, bool begun, int64_t now) {
    t->cancelled = true;
    t->retries_left = 0;
    t->retry_on_error = false;
    if (t->shrinking) return CancelStep::kLater;
    if (t->state != State::kPushed) return CancelStep::kEnd;
    if (!t->lease) return CancelStep::kTell;  // calls of an actor have an order, and stay
    if (force) {
      if (!t->forced) ++t->lease->forced;
      t->forced = true;
      t->lease->shut |= kEnding;
      forced_.push_back({t->tag, now});
    }
    return begun && !(force && t->lease->link->inflight.size > 1) ? CancelStep::kTell : CancelStep::kAskBack;
  }
  // Asks again, or has killed, where a worker does not end by itself. find(tag): the task, null when it has ended;
  // begun(task); kill(task).
  template <class Find, class Begun, class Kill>
  void press_on(int64_t now, Find&& find, Begun&& begun, Kill&& kill, Actions* out) {
    std::erase_if(forced_, [&](const Forced& f) {
      Task* t = find(f.tag);
      if (!t || t->state != State::kPushed || !t->lease) return true;
      if (now - f.since < kPatienceNs) return false;
      if (t->lease->link->inflight.size > 1) {
        LeasePolicy<K>::ask_back(t->lease->link, out);
        // Whoever gives nothing back hangs, and nobody else would end what it runs.
        if (now - f.since < kSilentNs || (t->next && begun(t->next))) return false;
      }
      if (!begun(t)) return false;
      t->lease->shut |= kReclaimed;  // whatever becomes of the task: its worker takes nothing more
      kill(t);
      return true;
    });
  }
  bool presses() const { return !forced_.empty(); }

 private:
  struct Forced {
    uint64_t tag;
    int64_t since;
  };
  std::vector<Forced> forced_;  // cancelled by force, and their workers may be running them
};

}  // namespace ray::task
