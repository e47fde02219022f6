// The time that the processors have to spare: for work that is to wait while anybody else wants a processor, though it
// takes locks that others wait for.
//
// A thread at the lowest priority (SCHED_IDLE) does nothing but say that it got a processor. Whoever works runs at normal
// priority and asks for that between short steps, when it holds no lock of others. Were the work itself done at that
// priority, it would stand still for ten seconds and more when the machine is busy, and all who want the lock that it
// holds at that moment, be it one inside malloc or SQLite, with it; nor could it be raised: only a privileged
// process may leave SCHED_IDLE.
//
// Threads: await() by one thread, hurry() by any. Neither takes a lock.
#pragma once
#include <atomic>
#include <cstdint>
#include <thread>

#include "libray/base/status.h"

namespace ray::gcs {

class SpareTime {
 public:
  SpareTime();
  ~SpareTime();
  Status started() const { return started_; }  // an error: it has no thread
  // Returns when a processor has nothing else to do, or at once as long as it is hurried.
  void await();
  void hurry(bool on);

 private:
  void give();

  std::atomic<uint32_t> asked_{0};  // 1: await() waits
  std::atomic<uint32_t> given_{0};  // counts the answers
  std::atomic<bool> hurried_{false}, over_{false};
  std::thread thread_;
  Status started_;
};

}  // namespace ray::gcs
