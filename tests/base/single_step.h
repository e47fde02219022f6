// What tests need that run another process instruction by instruction (ptrace). Any thread.
#pragma once

namespace ray::test {

// Sanitizers multiply the instructions and run threads of their own.
inline constexpr bool can_step() {
#ifdef LIBRAY_SANITIZED
  return false;
#else
  return true;
#endif
}

}  // namespace ray::test
