// Who is woken when there are more processes with work than processors. Waking a process whose turn on
// a processor has not come gains nothing and costs the waker a system call; a hundred workers that get
// one call each and sleep again cost a hundred of them and as many switches.
//
// A node has one place for each processor, one of them its callers'. Whoever is woken through a chain
// takes a place whose holder sleeps. While all holders are awake a caller only marks whom it has work
// for, and goes on; a holder that finds nothing more to do passes its place on to one of the marked
// before it sleeps. So a worker finds all that was sent to it meanwhile.
//
// Everything lies in the node page (wire::WakePage), written by all with single atomic steps; nothing
// there is trusted. Invariants: (1) whoever marks looks at the places once more afterwards, and whoever
// rests looks at the marks after its bell is armed: one of the two sees the other; (2) a process holds at
// most one place, and none while it sleeps or once the daemon knows that it is dead; (3) holders that
// are awake but do not rest, because their tasks take long or block, are none of the chain's concern:
// the caller's own `pulse` thread sees that little is passed on, and rings all whom it left marked
// (Runtime::look_after_marked).
// Any thread; no locks.
#pragma once
#include <atomic>
#include <cstdint>

#include "libray/wire/protocol.h"

namespace ray {

class WakeChain {
 public:
  void attach(wire::NodePage* page, uint32_t process);

  // After publishing for `peer`, at once or at its turn. True: it was left marked.
  bool wake(uint32_t peer);
  // Somebody with work waits for a place: who looks for work in vain rests now.
  bool crowded() const { return page_->wakes.summary.load(std::memory_order_relaxed) != 0; }
  // Between arming the own bell and the last look for tasks: from here on a mark is news. Only for who
  // takes tasks. True: there was a mark, on which another thread of this process may rely.
  bool settle();
  // Before sleeping, after that look: the marked take all places that are free now. False: nobody did.
  bool pass_on();
  // The caller has not called for a while, though its bell may say that it is awake: its place is free.
  void step_aside();

  // For who left others marked: a number that moves while places are passed on; how many places there
  // are; whether this one still waits; waking it now.
  uint32_t passed() const { return page_->wakes.passed.load(std::memory_order_relaxed); }
  uint32_t n_places() const { return n_places_; }
  bool marked(uint32_t peer) const;
  void wake_now(uint32_t peer);

 private:
  std::atomic<uint32_t>* bell(uint32_t process) { return &page_->bells[process].armed; }
  bool alive(uint32_t process);
  bool awake(uint32_t process);
  uint32_t free_place(uint32_t n);
  void take_place(uint32_t place, uint32_t process);
  bool unmark(uint32_t peer);
  void summarise(uint32_t word);
  uint32_t take_marked();
  static constexpr uint32_t kNone = UINT32_MAX;
  wire::NodePage* page_ = nullptr;
  uint32_t process_ = 0;
  uint32_t n_places_ = 2;  // the last one is the callers'
  uint32_t found_ = 0;     // by free_place()
};

}  // namespace ray
