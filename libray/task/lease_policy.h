// Which leased worker a task goes to, how many leases a client wants, and when one goes back: the rules of a client's side
// of leases (docs/node.md, "Leases", has the node's).
//
// Who drives it: libray/runtime with its mutex held, and libray/sim. It is told what happened and says what is to be done;
// time is passed in. Pure: no ring, lock, clock or call of the system. What every task passes is inline and allocates
// nothing; the rest puts its decisions into a list that its caller keeps.
//
// How many tasks may wait in one worker's ring follows the measured run time: as many as fill a window. A lease that is
// *shut* takes nothing now, for it runs for long, waits itself, or is to go or to end. It counts for nothing when leases
// are asked for: what waits may be what its task waits for, a child of its own.
//
// K, the kit, names the driver's types: Task, Link (derived from task::Link<K>), Shape (from task::Shape<K>), and says
// run_ns(t), the measured run time of the task's function (< 0: not known), forget_run_ns(t), record_begin(t), where its record
// begins in its ring, and flaw(f), see flaw.h.
//
// Invariants (check()):
//  - A shape's `pending` is all of its tasks that have not ended; `parked` those of them that wait for arguments; the
//    others stand in its backlog, in a ring of one of its leases, or in one whose lease is gone already.
//  - A lease's `est_ns` is that of the tasks in its ring, and the link of a lease points to it.
//  - A shape that has tasks, leases or a want stands among the active ones: nothing is kept for ever that nobody looks at.
//  - Where nothing is to run, nothing more than the leases that are there is wanted once it was looked at.
#pragma once
#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "libray/task/flaw.h"
#include "libray/task/list.h"

namespace ray::task {

enum Shut : uint8_t {
  kReclaimed = 1,  // the daemon wants it back
  kBlocked = 2,    // its task waits in get: nothing more until that is done
  kSlow = 4,       // no result came for long: nothing more until one does
  kEnding = 8,     // its task was cancelled by force, and its worker may end with it
};

template <class K>
struct Lease {
  uint32_t lease = 0;
  uint32_t forced = 0;  // tasks in its ring that were cancelled by force
  uint8_t shut = 0;  // of Shut
  typename K::Link* link = nullptr;
  typename K::Shape* shape = nullptr;
  int64_t est_ns = 0;      // of what is in flight
  int64_t idle_since = 0;  // 0 = busy
};

// What the rules know of a link to a worker.
template <class K>
struct Link {
  List<typename K::Task> inflight;
  bool dead = false, give_back_asked = false;
  Lease<K>* lease = nullptr;
  int64_t last_result_ns = 0;
};

// Where the first record begins whose room may not be used again, although its worker has given it back: what the answer
// asks for (another run, the task back) is made from it, so it is kept until the answer was read. `tail`: there is none.
template <class K>
uint64_t needed_from(const Link<K>& link, uint64_t tail) {
  if (K::flaw(Flaw::kReusesRecord) || link.inflight.empty()) return tail;
  return K::record_begin(link.inflight.head);
}

// What a worker must offer: resources and language.
template <class K>
struct Shape {
  Backlog<typename K::Task> backlog;
  std::vector<std::unique_ptr<Lease<K>>> leases;
  uint64_t pending = 0;  // backlog + in flight + parked
  uint64_t parked = 0;   // that wait for arguments: no lease is of use to them yet
  bool active = false;   // stands among the active ones
  bool gone = false;     // nothing of it can be placed any more
  int64_t est_ns = 0;    // of all pending
  uint32_t want_sent = 0;
};

// What is to be told: the daemon, or the worker of a link.
template <class K>
struct LeaseAction {
  enum Kind : uint8_t { kWant, kReturn, kAskBack } kind;
  uint32_t number;  // kWant: of leases; kReturn: of the lease
  typename K::Shape* shape = nullptr;
  typename K::Link* link = nullptr;
};
template <class K>
using LeaseActions = std::vector<LeaseAction<K>>;

template <class K>
class LeasePolicy {
 public:
  using Task = typename K::Task;
  using Link = typename K::Link;
  using Shape = typename K::Shape;
  using Lease = task::Lease<K>;
  using Action = LeaseAction<K>;
  using Actions = LeaseActions<K>;

  static constexpr int64_t kWindowNs = 500'000;       // work that may wait in one worker's ring
  static constexpr int64_t kUnknownNs = 1'000'000;    // run time of a function never seen
  static constexpr int64_t kStallNs = 5'000'000;      // no result for that long: others may help
  static constexpr int64_t kIdleNs = 200'000'000;     // an idle lease is kept that long
  static constexpr int64_t kSpareNs = 20'000'000;     // and others may have it after that
  static constexpr size_t kMostInRing = 4096;
  static constexpr uint64_t kMostWanted = 4096;

  // ---- what every task passes

  void submitted(Shape* s, int64_t est_ns) {
    if (s->pending++ == 0) activate(s);
    s->est_ns += est_ns;
  }
  void ended(Shape* s, int64_t est_ns) {
    --s->pending;
    s->est_ns -= est_ns;
  }
  // Short tasks fill one worker's window before the next worker gets any: fewer workers compete for cores. Long or
  // unknown ones go one to a worker.
  Lease* choose(const Shape* s, int64_t run) const {
    const bool is_short = run >= 0 && run < kWindowNs / 4;
    Lease* room = nullptr;
    for (auto& p : s->leases) {
      Lease* l = p.get();
      if (l->shut | l->link->dead) continue;
      const size_t n = l->link->inflight.size;
      if (n == 0 && !(is_short && room)) {
        if (!is_short) return l;
        room = l;
        break;
      }
      if (!room && run >= 0 && l->est_ns + run <= kWindowNs && n < kMostInRing) {
        room = l;
        if (is_short) break;
      }
    }
    return room;
  }
  static void pushed(Lease* l, int64_t est_ns) {
    l->est_ns += est_ns;
    l->idle_since = 0;
  }
  // It is out of the ring already.
  static void left(Lease* l, const Task* t) {
    l->est_ns -= t->est_ns;
    // With the last that was cancelled by force, if the worker is there still, it takes tasks again.
    if (__builtin_expect(t->forced, 0) && --l->forced == 0) l->shut &= static_cast<uint8_t>(~kEnding);
  }
  // More work waits. True: the daemon is to hear of want_sent. Sent only when it grows by half.
  bool raise_want(Shape* s) const {
    if (s->pending == s->parked) return false;
    const uint64_t wanted = desired(s);
    if (wanted <= s->want_sent) return false;
    s->want_sent = power_of_two(wanted);
    return true;
  }
  // Moves the backlog into rings as far as there is room; push(task, lease) writes one, or says that there is none.
  template <class Push>
  void pump(Shape* s, Push&& push) {
    while (Task* t = s->backlog.head) {
      Lease* l = choose(s, K::run_ns(t));
      if (!l) return;
      s->backlog.remove(t);
      if (push(t, l)) continue;
      return s->backlog.push_front(t);
    }
  }

  // ---- leases come and go

  // Null: its shape is gone, which crossed the grant; it is to be given back at once.
  Lease* granted(Shape* s, Link* link, uint32_t number, int64_t now) {
    if (s->gone) return nullptr;
    auto l = std::make_unique<Lease>();
    l->lease = number;
    l->link = link;
    l->shape = s;
    l->idle_since = now;
    link->lease = l.get();
    s->leases.push_back(std::move(l));
    ++held_;
    activate(s);
    return link->lease;
  }
  // The daemon wants it back: when its task is done. What waits behind that goes elsewhere.
  void reclaimed(Lease* l, Actions* out) {
    l->shut |= kReclaimed;
    if (l->link->inflight.empty()) return give_back(l, out);
    if (l->link->inflight.size > 1) ask_back(l->link, out);
  }
  // A task is done.
  static void answered(Lease* l) { l->shut &= static_cast<uint8_t>(~kBlocked); }
  // Results came.
  static void heard(Lease* l) { l->shut &= static_cast<uint8_t>(~kSlow); }
  // The last task of a lease is done.
  void idle(Lease* l, int64_t now, Actions* out) {
    l->idle_since = now;
    l->est_ns = 0;
    if (l->shut & kReclaimed) return give_back(l, out);
    Shape* s = l->shape;
    if (!s->backlog.empty()) return;
    if (another_waits(s)) return give_back(l, out);  // what it holds may be what that needs
    // Nothing left for it: take over what waits behind a long task elsewhere.
    for (auto& other : s->leases)
      if (other->link->inflight.size >= 2 && other->est_ns > kWindowNs / 2) ask_back(other->link, out);
  }
  // Its worker is to return what it has not begun.
  static void ask_back(Link* link, Actions* out) {
    if (link->dead || link->give_back_asked) return;
    link->give_back_asked = true;
    out->push_back({Action::kAskBack, 0, nullptr, link});
  }
  // Before somebody asks what is available: what is kept for a next task that may never come does not count.
  void give_back_idle(Actions* out) {
    for (Shape* s : active_)
      for (size_t i = s->leases.size(); i-- > 0;)
        if (s->leases[i]->link->inflight.empty() && s->backlog.empty()) give_back(s->leases[i].get(), out);
  }
  // Its worker died. What still waits asks again, or the daemon would replace the worker for ever.
  void lost(Lease* l, Actions* out) {
    Shape* s = l->shape;
    drop(l);
    lower_want(s, out);
  }
  // Nothing of this shape can be placed any more; its workers are being killed.
  void unplaceable(Shape* s, Actions* out) {
    s->gone = true;
    for (auto& l : s->leases) l->shut |= kReclaimed;
    want(s, 0, out);
  }

  // ---- wants

  // What it asked for and does not need any more: others would wait for it, and it would be granted for nothing.
  void withdraw_want(Shape* s, Actions* out) {
    if (s->want_sent <= s->leases.size() || K::flaw(Flaw::kKeepsWants)) return;
    if (s->pending == s->parked) return lower_want(s, out);
    const uint32_t less = std::max(power_of_two(desired(s)), static_cast<uint32_t>(s->leases.size()));
    if (less <= s->want_sent / 2) want(s, less, out);
  }

  // ---- now and then, for every active shape: look, pump when it says so, settle

  struct Seen {
    bool pump = false;   // what waits may go elsewhere
    bool spare = false;  // its leases are kept for a next task, unless somebody waits for them
  };
  Seen look(Shape* s, int64_t now, Actions* out) {
    Seen seen;
    seen.spare = s->pending == 0 && s->want_sent > 0 && !s->leases.empty();
    for (size_t i = 0; i < s->leases.size();) {
      Lease* l = s->leases[i].get();
      const bool idle = l->link->inflight.empty();
      if (idle && s->backlog.empty() && l->idle_since && now - l->idle_since > kIdleNs && !K::flaw(Flaw::kKeepsLeases)) {
        give_back(l, out);  // removes it from s->leases
        continue;
      }
      seen.spare &= idle && l->idle_since && now - l->idle_since > kSpareNs;
      const bool slow = !idle && now - l->link->last_result_ns > kStallNs;
      l->shut = static_cast<uint8_t>(slow ? l->shut | kSlow : l->shut & ~kSlow);
      if (slow && l->link->inflight.size >= 2) {
        seen.pump = true;
        for (Task* t = l->link->inflight.head; t; t = t->next) K::forget_run_ns(t);
        ask_back(l->link, out);
      }
      ++i;
    }
    seen.pump |= !s->backlog.empty();
    return seen;
  }
  // False: it was taken out of the active ones, the last of which has its place.
  bool settle(size_t at, const Seen& seen, Actions* out) {
    Shape* s = active_[at];
    withdraw_want(s, out);
    if (seen.spare && s->want_sent > 0 && !K::flaw(Flaw::kKeepsWants)) want(s, 0, out);
    s->active = s->pending > 0 || !s->leases.empty() || s->want_sent > 0;
    if (s->active) return true;
    active_[at] = active_.back();
    active_.pop_back();
    return false;
  }
  const std::vector<Shape*>& active() const { return active_; }
  uint64_t held() const { return held_; }

  // "" or what does not hold.
  std::string check() const {
    uint64_t held = 0;
    for (const Shape* s : active_) {
      if (!s->active) return "a shape among the active ones is not active";
      held += s->leases.size();
      if (std::string wrong = check(s); !wrong.empty()) return wrong;
    }
    return held == held_ ? "" : "a lease of a shape that is not active";
  }

 private:
  static uint32_t power_of_two(uint64_t at_least) {
    uint32_t n = 1;
    while (n < at_least) n *= 2;
    return n;
  }
  // As many workers as the estimated work fills for one window each. Besides those as many as there are that take nothing
  // now: what waits may be what they wait for, or they may run for long. No more than there are tasks for.
  static uint64_t desired(const Shape* s) {
    uint64_t wanted = static_cast<uint64_t>(std::max<int64_t>(s->est_ns, 0) / kWindowNs) + 1;
    uint64_t most = s->pending - s->parked;
    for (auto& l : s->leases) {
      if (!l->shut || K::flaw(Flaw::kShutWorks)) continue;
      ++wanted;
      most += l->link->inflight.empty();
    }
    return std::min<uint64_t>({wanted, most, kMostWanted});
  }
  void want(Shape* s, uint32_t n, Actions* out) {
    s->want_sent = n;
    out->push_back({Action::kWant, n, s, nullptr});
  }
  // No more than the leases that are there.
  void lower_want(Shape* s, Actions* out) {
    if (s->leases.size() < s->want_sent) want(s, static_cast<uint32_t>(s->leases.size()), out);
  }
  // The want goes down first, or the daemon may grant another in between.
  void give_back(Lease* l, Actions* out) {
    Shape* s = l->shape;
    const Action back{Action::kReturn, l->lease, nullptr, l->link};
    drop(l);
    withdraw_want(s, out);
    out->push_back(back);
  }
  void drop(Lease* l) {
    Shape* s = l->shape;
    l->link->lease = nullptr;
    --held_;
    for (size_t i = 0; i < s->leases.size(); ++i)
      if (s->leases[i].get() == l) {
        s->leases.erase(s->leases.begin() + static_cast<long>(i));
        return;
      }
  }
  bool another_waits(const Shape* s) const {
    return std::any_of(active_.begin(), active_.end(), [s](const Shape* other) {
      return other != s && !other->backlog.empty() && other->leases.empty();
    });
  }
  void activate(Shape* s) {
    if (std::exchange(s->active, true)) return;
    active_.push_back(s);
  }
  static std::string check(const Shape* s) {
    if (!s->backlog.check()) return "a backlog is broken";
    uint64_t tasks = s->backlog.size + s->parked;
    for (auto& l : s->leases) {
      int64_t est_ns = 0;
      uint32_t forced = 0;
      for (const Task* t = l->link->inflight.head; t; t = t->next) est_ns += t->est_ns, forced += t->forced;
      if (l->shape != s || l->link->lease != l.get()) return "a lease of another shape, or a link that has another";
      if (!l->link->inflight.check()) return "what is in a link is broken";
      if (forced != l->forced || (forced > 0) != ((l->shut & kEnding) != 0))
        return "a lease takes nothing for a task that is not in its ring, or the other way round";
      if (est_ns != l->est_ns) return "a lease does not know how much work its ring holds";
      tasks += l->link->inflight.size;
    }
    return tasks <= s->pending ? "" : "a shape has more tasks than it knows of";
  }

  std::vector<Shape*> active_;  // that have tasks or leases, or want some
  uint64_t held_ = 0;           // leases
};

}  // namespace ray::task
