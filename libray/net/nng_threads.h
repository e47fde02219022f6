// Threads that are there before NNG asks for them. NNG 1.5.2 makes all its threads at its first
// use, and when the system refuses one it waits for itself for ever: it cleans up after a thread
// that never ran, and then takes a lock that it holds. So the threads are made first, where a
// refusal is an error, and NNG is given those.
//
// Called by nng_start.cc; by NNG itself through the copy of its library that CMakeLists.txt makes.
// Any thread.
#pragma once
#include "libray/base/status.h"

namespace ray::net {

// Makes as many threads as NNG's start takes; none is left when one is refused, and the error names
// the limit.
Status park_nng_threads();
// Ends those that NNG has not taken.
void end_parked_threads();

}  // namespace ray::net
