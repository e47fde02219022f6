// Limits of what work may ask of a node. Checked where a call is made, so that its maker gets the
// error, and again by the daemon, which cuts off whoever breaks them.
#pragma once

#include <cstddef>

namespace ray::wire {

// Amounts include bytes of memory; their sums in units of 1/10000 stay within 63 bits.
inline constexpr double kMaxResourceAmount = 1e13;
inline constexpr size_t kMaxResourceName = 255;
// Bytes of a function's definition, and of the resources of a node: far above any use, far below what an allocator refuses.
inline constexpr size_t kMaxDefinition = size_t{1} << 30;
inline constexpr size_t kMaxNodeResources = size_t{1} << 20;
inline constexpr size_t kMaxShapes = 65536;  // different demands of one process
inline constexpr size_t kMaxResourceBytes = 64 << 10;  // of the packed map: it travels in one record
inline constexpr size_t kMaxRequest = 104u << 20;      // bytes of a request to the daemon: a definition of 100 MB fits

}  // namespace ray::wire
