// Limits of what work may ask of a node. Checked where a call is made, so that its maker gets the
// error, and again by the daemon, which cuts off whoever breaks them.
#pragma once

#include <cstddef>

namespace ray::wire {

// Amounts include bytes of memory; their sums in units of 1/10000 stay within 63 bits.
inline constexpr double kMaxResourceAmount = 1e13;
inline constexpr size_t kMaxResourceName = 255;
inline constexpr size_t kMaxResourceBytes = 64 << 10;           // of a packed map of them: it travels in one record
inline constexpr size_t kMaxNodeResources = kMaxResourceBytes;
inline constexpr size_t kMaxRequest = 104u << 20;               // bytes of a request to the daemon
inline constexpr size_t kMaxDefinition = 100u << 20;            // of a function: it fits one
inline constexpr size_t kMaxShapes = 65536;                     // different demands of one process

}  // namespace ray::wire
