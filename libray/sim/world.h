// A node without processes: the real rules of a node (libray/node/core: scheduler, directory, actors, jobs, groups) and of its
// clients (libray/task: leases, rings, tries, calls, cancels), and around them what processes do, on a seeded clock. Drivers
// submit tasks that submit tasks; workers start late, die while they start, while they run and while they do nothing; clients
// die, are stopped and go on; actors, groups, GPUs, environments that fail. What one side tells the other is on its way for a
// while, in order for each process, so that everything may cross everything.
//
//   mischief          submits, kills, stops, cancels, makes and removes groups … at random times
//   client            asks for leases, writes its tasks into rings, tries again, cancels, calls actors: the real rules of
//                     libray/task, told what happens as libray/runtime tells them
//   calls             the calls of actors in their order, and an actor's state as its callers are told of it
//   worker            runs what lies in its rings; a task that waits for its own has lent its CPU and gives back the rest
//   daemon            what libray/node does with events and actions; rings are read in passes
//   control           the control store and the store of objects, which answer late
//   actors            who creates, names, kills and runs actors, and passes them on
//   checkers.h, books.h  what must hold
//
// A run has three parts: mischief; then nothing new, and all that waits must come to its end; then everybody leaves, and
// nothing may be left. The same seed gives the same run. One thread; used by main.cc and by tests/sim.
#pragma once
#include <cstdint>
#include <string>

namespace ray::sim {

// A fault that the world makes between the rules and everybody else, so that a checker can be seen to complain.
enum class Fault {
  kNone,
  kEarlyReturn,  // a lease is given back while its task runs
  kFalseBlock,   // the scheduler hears that a worker waits, and it does not
  kTwice,        // a result comes twice
  kLostReturn,   // a lease that was given back is not
  kLostDeath,    // nobody hears of a death
  kRestless,     // the scheduler wants to be asked again at once, for ever
  kHasty,        // rings are said to be read to their tails, and are not
  kLostHold,     // a hold is not heard of
  kLostTell,     // what becomes of an actor is not told
  kTwoOwners,    // the control store gives a name to two actors
  kKeptName,     // it does not take a name back
  kSpared,       // a worker that is to be killed is not
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
