// main of the tests of ray.hpp, see fixture.h. In a worker ray::init does not return.
#include "fixture.h"

int main(int argc, char** argv) {
  // The package that ./dev builds, for calls of Python (not with the sanitized libraries, which its
  // interpreter does not load).
  const char* root = std::getenv("LIBRAY_ROOT");
  const std::string python = std::string(root ? root : "") + "/build/venv/bin/python";
#if !defined(LIBRAY_SANITIZED)
  if (root && access(python.c_str(), X_OK) == 0) setenv("LIBRAY_PYTHON", python.c_str(), 0);
#endif
  ray::init({.num_cpus = 2, .resources = {{"slot", 1}}, .store_bytes = 128 << 20});
  testing::InitGoogleTest(&argc, argv);
  const int failed = RUN_ALL_TESTS();
  ray::shutdown();
  return failed;
}
