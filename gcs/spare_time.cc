// See spare_time.h.
#include "gcs/spare_time.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "libray/base/doorbell.h"

namespace ray::gcs {
namespace {
constexpr int kLooks = 20;
constexpr timespec kBetween{0, 2'500'000};
}  // namespace

SpareTime::SpareTime()
    : load_(::open("/proc/loadavg", O_RDONLY | O_CLOEXEC)), processors_(std::max(1l, ::sysconf(_SC_NPROCESSORS_ONLN))) {}

// "0.52 0.58 0.59 3/467 12345": of 467 threads 3 are running or ready, this one among them. When that cannot be read, the
// machine is not known to be busy.
bool SpareTime::is_there() const {
  char text[128] = "";
  if (::pread(load_.get(), text, sizeof text - 1, 0) <= 0) return true;
  const char* slash = std::strchr(text, '/');
  if (!slash) return true;
  while (slash > text && slash[-1] != ' ') --slash;
  return std::strtol(slash, nullptr, 10) <= processors_;
}

void SpareTime::await() {
  for (int k = 0; k < kLooks && !hurried_.load() && !is_there(); ++k) futex(&hurried_, FUTEX_WAIT, 0, &kBetween);
}

void SpareTime::hurry(bool on) {
  if (hurried_.exchange(on) != on && on) futex(&hurried_, FUTEX_WAKE, 1, nullptr);
}

}  // namespace ray::gcs
