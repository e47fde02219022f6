// Callbacks: what is to run without any lock, on the pulse thread: the program's own functions, lines of the log whose
// handler may call us, work that has to wait for a lock. In the order in which it was added.
//
// Who: every part of a runtime. Threads: any adds, with or without Runtime's mutex; run() is the pulse thread's, and at the
// end that of whoever shuts down. Lock: its own, a leaf. Invariant: each runs once, or never when the runtime ends before.
#pragma once
#include <deque>
#include <functional>
#include <mutex>
#include <string>

#include "libray/base/log.h"
#include "libray/runtime/bells.h"

namespace ray {

class Callbacks {
 public:
  explicit Callbacks(Bells& bells) : bells_(bells) {}
  // Without ringing: the pulse thread is here, or is rung afterwards.
  void add(std::function<void()> f);
  void add_and_ring(std::function<void()> f);
  void log_later(LogLevel level, const char* id, std::string text);
  void run();
  bool empty();

  // The calling thread is a runtime's own, or runs one of its callbacks: of `of`, null: of none. Whose it was before.
  static const Callbacks* enter(const Callbacks* of);
  bool here() const;  // whether it is this one's

 private:
  void run_each();
  Bells& bells_;
  std::mutex mutex_;
  std::deque<std::function<void()>> list_;
};

}  // namespace ray
