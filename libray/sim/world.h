// A node without processes: the real scheduler, and around it what the daemon, its clients and its workers do, on a
// seeded clock. Drivers submit tasks that submit tasks; workers start late, die while they start, while they run and
// while they do nothing; clients die, are stopped and go on; actors, groups, GPUs, environments that fail. What one side
// tells the other is on its way for a while, in order for each process, so that everything may cross everything.
//
//   mischief          submits, kills, stops, cancels, makes and removes groups … at random times
//   client            asks for leases, writes its tasks into rings, tries again, cancels, calls actors: the real rules of
//                     libray/task, told what happens as libray/runtime tells them
//   calls             an actor's state as its callers are told of it, and their calls in order
//   worker            runs what lies in its rings; a task that waits for its own has lent its CPU and gives back the rest
//   daemon            what libray/node does with events and actions
//   checkers.h        what must hold
//
// A run has three parts: mischief; then nothing new, and all that waits must come to its end; then everybody leaves, and
// nothing may be left. The same seed gives the same run. One thread; used by main.cc and by tests/sim.
#pragma once
#include <cstdint>
#include <string>

namespace ray::sim {

// A fault that the world makes between the scheduler and everybody else, so that a checker can be seen to complain.
enum class Fault {
  kNone,
  kEarlyReturn,  // a lease is given back while its task runs
  kFalseBlock,   // the scheduler hears that a worker waits, and it does not
  kTwice,        // a result comes twice
  kLostReturn,   // a lease that was given back is not
  kLostDeath,    // nobody hears of a death
  kRestless,     // the scheduler wants to be asked again at once, for ever
  // And rules of a client that are left out: task::Flaw.
  kShutWorks,
  kKeepsWants,
  kKeepsLeases,
  kReusesRecord,
  kRunsAgain,
  kUnbegunFails,
  kHoldsUp,
  kOutOfOrder,
};

struct WorldOptions {
  uint64_t seed = 1;
  Fault fault = Fault::kNone;
  size_t lines = 0;  // of the history that are kept
};

struct Outcome {
  std::string broken;   // "" or "CHECKER: what"
  std::string history;  // the last lines
  uint64_t digest = 0;  // of all of them
  uint64_t decisions = 0, tasks = 0, grants = 0, deaths = 0;
  double closest = 0;   // that anybody came to the bound of his wait
  int64_t simulated_ns = 0;
};

Outcome run(const WorldOptions& options);

}  // namespace ray::sim
