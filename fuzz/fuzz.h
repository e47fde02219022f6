// Frame of the fuzz targets: each parses bytes that nobody vouches for. Built twice: by clang with
// libFuzzer (LIBRAY_FUZZ, `tools/fuzz.sh`), and into the test fuzz_test, which replays the corpus
// with a fixed set of mutations on every run.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string_view>

namespace ray::fuzz {

using Target = void (*)(std::string_view input);
struct Registration {
  Registration(const char* name, Target target);
};

inline std::string_view view(const uint8_t* data, size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

}  // namespace ray::fuzz

// FUZZ_TARGET(name) { ... uses `input` ... }
#ifdef LIBRAY_FUZZ_REPLAY
#define FUZZ_TARGET(name)                                                   \
  static void fuzz_##name(std::string_view input);                          \
  static ::ray::fuzz::Registration registration_##name(#name, fuzz_##name); \
  static void fuzz_##name([[maybe_unused]] std::string_view input)
#else
#define FUZZ_TARGET(name)                                                   \
  static void fuzz_##name(std::string_view input);                          \
  extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) { \
    fuzz_##name(::ray::fuzz::view(data, size));                             \
    return 0;                                                               \
  }                                                                         \
  static void fuzz_##name([[maybe_unused]] std::string_view input)
#endif

#define FUZZ_CHECK(condition)                                                        \
  do {                                                                               \
    if (!(condition)) {                                                              \
      std::fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition); \
      std::abort();                                                                  \
    }                                                                                \
  } while (0)
