// What the relay process (libray/relay) needs of a runtime beyond ray.h: many runtimes in one process, as a worker that only
// stands for one of another node or as the driver of another node's job; tasks that keep the ids they have; and their ends.
//
// Who: libray/relay alone; nothing of it is reached by a program. Threads: said at each call.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "libray/base/ids.h"

namespace ray {

struct ErrorBox;
struct Execution;

// Of a stand-in: what the clients of its node ask for. Called with a lock held: hand over and return.
class StandInUser {
 public:
  virtual ~StandInUser() = default;
  virtual void cancel(uint64_t number, uint32_t flags) = 0;  // RAY_CANCEL_*; of a task that was given this number
  virtual void give_back() = 0;                              // a client wants back what has not begun
};

// Instead of what a process takes from its environment and its options.
struct StartAs {
  std::string session;
  StandInUser* stand_in = nullptr;  // a worker; else a driver
  uint64_t spawn = 0;               // of the worker
  uint32_t window = 1;              // tasks that a stand-in takes ahead
  std::string hello;                // body of the driver's hello
};

// A task that another node's program submitted. It is not retried here: that node does it.
struct RelayedTask {
  uint64_t number = 0;  // the user's; in its RelayedEnd
  TaskId id, parent;
  uint32_t attempt = 0;
  int32_t caller = 0;  // language of who submitted it
};

struct RelayedEnd {
  uint64_t number = 0;
  ErrorBox* error = nullptr;  // retained for the receiver; null: its results are there, or about to be
  bool returned = false;      // it was recalled before it began
  bool died = false;          // the error is the death of the worker that ran it
  bool final = false;         // no retry would help
  uint64_t run_ns = 0;
};

class RelayedUser {
 public:
  virtual ~RelayedUser() = default;
  // On the runtime's own thread, without a lock. Each task once.
  virtual void ended(std::vector<RelayedEnd> ends) = 0;
};

// What a pending task keeps of all this.
struct Relayed {
  RelayedTask task;
  RelayedEnd end;
  uint64_t* tag = nullptr;  // for whoever submits it; good until the call returns
  bool recalled = false;
};

}  // namespace ray
