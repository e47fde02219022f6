// The time that the processors have to spare: for work that is to wait while others want them. Between short steps, when
// it holds no lock of others, such work asks whether a processor is free for it.
//
// It runs at normal priority. At the lowest (SCHED_IDLE) a thread gets a processor every ten seconds or so when the
// machine is busy; whoever wants the lock that it holds then, be it one inside malloc or SQLite, waits as long; so does
// whoever waits for the end of its process, for a thread needs a processor also to die. And only a privileged process
// gets a thread back from there.
//
// Threads: await() by one, hurry() by any. Neither takes a lock.
#pragma once
#include <atomic>
#include <cstdint>

#include "libray/base/shm.h"

namespace ray::gcs {

class SpareTime {
 public:
  SpareTime();
  // Returns when a processor has nothing else to do, at the latest after 50 ms; at once as long as it is hurried.
  void await();
  void hurry(bool on);

 private:
  bool is_there() const;

  Fd load_;  // /proc/loadavg
  long processors_;
  std::atomic<uint32_t> hurried_{0};
};

}  // namespace ray::gcs
