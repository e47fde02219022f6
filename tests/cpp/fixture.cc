// main of the tests of ray.hpp, see fixture.h. In a worker ray::init does not return.
#include "fixture.h"

int main(int argc, char** argv) {
  ray::init({.num_cpus = 2, .resources = {{"slot", 1}}, .store_bytes = 128 << 20});
  testing::InitGoogleTest(&argc, argv);
  const int failed = RUN_ALL_TESTS();
  ray::shutdown();
  return failed;
}
