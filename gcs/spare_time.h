// The time that the processors have to spare: for work that is to wait while others want them.
//
// A thread that calls take_turns_last() has the lowest weight, with short turns: the kernel runs it whenever a processor
// would be idle, and takes it off at once for others. That alone would do on a machine with little to do. Where many
// threads want a processor, such a one gets it rarely, asleep or awake; whoever wants a lock that it holds then, be it one
// inside malloc or SQLite, waits as long, and so does whoever waits for the end of its process, for a thread needs a
// processor also to die. So such a thread asks between short steps, when it holds no lock of others, whether the time is
// over, and ends when it is. Only a privileged one would get its weight back.
//
// Threads: any. None takes a lock.
#pragma once
#include <atomic>
#include <cstdint>

#include "libray/base/shm.h"

namespace ray::gcs {

class SpareTime {
 public:
  SpareTime();
  // From now on the calling thread is one of the last.
  static void take_turns_last();
  // The machine is not crowded, and nothing is urgent.
  bool is_there() const { return !hurried() && !crowded(); }
  // The same for work that is under way: a crowd that goes within 50 ms is waited for.
  bool goes_on();
  // The work is urgent.
  void hurry(bool on);
  bool hurried() const { return hurried_.load() != 0; }

 private:
  bool crowded() const;

  Fd load_;  // /proc/loadavg
  long processors_;
  std::atomic<uint32_t> hurried_{0};
};

}  // namespace ray::gcs
