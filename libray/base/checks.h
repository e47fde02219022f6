// Whether parts are to look at their own invariants while they run: in builds with sanitizers or assertions, and where
// LIBRAY_CHECKS says so, which the test runner sets. Who: a runtime and the daemon, once when they start. Any thread.
#pragma once
#include <cstdlib>

namespace ray {

inline bool wants_checks() {
#if defined(LIBRAY_SANITIZED) || !defined(NDEBUG)
  return true;
#else
  const char* text = std::getenv("LIBRAY_CHECKS");
  return text && *text && *text != '0';
#endif
}

}  // namespace ray
