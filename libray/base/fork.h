// What a fork leaves to the child. A runtime, its rings and its connections stay the parent's: the child knows
// by the generation that they are not its own. Locks of the whole process must not stay locked in the child by a
// thread that does not exist there: those that are named here are held by the forking thread over the fork.
// Any thread.
#pragma once
#include <atomic>
#include <cstdint>
#include <mutex>

#include "libray/base/spin.h"

namespace ray {

extern std::atomic<uint32_t> g_fork_generation;
// Differs from the value that was read before a fork, in the child.
inline uint32_t fork_generation() { return g_fork_generation.load(std::memory_order_relaxed); }

// From now on forks are noticed. Before anything is made that a child could inherit.
void watch_forks();

// For locks that live as long as the process and are held for moments. A thread that has an outer one may take an
// inner one, no other two nest: the fork takes them in that order too, or both would wait for ever.
enum class ForkLock { kOuter, kInner };
void held_over_forks(std::mutex* m, ForkLock order = ForkLock::kInner);
void held_over_forks(SpinLock* m);

}  // namespace ray
