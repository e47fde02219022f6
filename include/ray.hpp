// ray.hpp -- C++ over ray.h: tasks, actors, streams and values with types. Header-only; C++20, or C++17 without coroutines and
// std::span. Needs libray.so and, unless exceptions are off, the headers of the msgpack library (msgpack-cxx).
//
//   #include <ray.hpp>
//   int64_t square(int64_t x) { return x * x; }
//   RAY_REMOTE(square);
//
//   int main() {
//     ray::session session;                     // a node of its own; in workers this line runs tasks and exits
//     ray::ref<int64_t> r = ray::task(square)(12);
//     std::cout << r.get() << "\n";             // 144
//   }
//
//   c++ -std=c++20 square.cc -lray
//
// The parts, in the order in which they build on each other; each begins with what it is:
//   base.hpp       time limits, ids                   functions.hpp  RAY_REMOTE, what runs a function
//   packing.hpp    MessagePack of plain things        streams.hpp    streams, generators, arrays in shared memory
//   error.hpp      ray::error and ray::result         remote.hpp     ray::task, arguments
//   values.hpp     values, arrays.hpp arrays          actors.hpp     RAY_ACTOR, ray::actor
//   runtime.hpp    init, key-value, groups, the log   async.hpp      co_await, then, event loops
//   refs.hpp       ray::ref, put, get, wait
//
// Ownership: objects release what they hold; a copy of a ref, a stream, a handle or an array is one more count. Every call that
// fails throws a ray::error; its twin `..._result` returns a ray::result instead. Built with -fno-exceptions, a call without
// a twin prints what failed and ends the program. Threads: any, unless a comment says otherwise.
#ifndef RAY_HPP
#define RAY_HPP

#include "ray/async.hpp"

#endif
