// Copying large values. Pure; any thread.
#pragma once
#include <cstddef>
#include <cstring>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace ray {

inline constexpr size_t kLargeCopy = 1 << 20;

// As memcpy. Where source and target do not lie alike within their pages, which is the rule for values
// behind a header, glibc's way of copying more than the cache holds runs at a quarter of the memory's
// speed; the processor's own string instruction does not mind.
inline void copy_large(void* to, const void* from, size_t size) {
#if defined(__x86_64__)
  static const bool fast_strings = [] {
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & (1u << 9));
  }();
  if (size >= kLargeCopy && fast_strings) {
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(size)::"memory");
    return;
  }
#endif
  if (size) std::memcpy(to, from, size);
}

}  // namespace ray
