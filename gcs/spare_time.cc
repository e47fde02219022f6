// See spare_time.h.
#include "gcs/spare_time.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "libray/base/doorbell.h"

namespace ray::gcs {
namespace {
constexpr int kLooks = 20;
constexpr timespec kBetween{0, 2'500'000};
constexpr int kLast = 19;              // nice
constexpr uint64_t kTurnNs = 100'000;  // the shortest turn that the kernel grants

// Of the kernel's interface; the C library has no name for it.
struct SchedAttr {
  uint32_t size, policy;
  uint64_t flags;
  int32_t nice;
  uint32_t priority;
  uint64_t runtime, deadline, period;
};
}  // namespace

// The lowest policy only where the kernel takes the length of turns, from 6.12 on: with the usual length such a thread
// waits for a second and more for each one that is ahead of it.
void SpareTime::take_turns_last() {
  SchedAttr attr{}, now{};
  attr.size = sizeof attr;
  attr.nice = kLast;
  attr.runtime = kTurnNs;
  if (::syscall(SYS_sched_setattr, 0, &attr, 0) != 0)
    ::setpriority(PRIO_PROCESS, static_cast<id_t>(::syscall(SYS_gettid)), kLast);
  if (::syscall(SYS_sched_getattr, 0, &now, sizeof now, 0) != 0 || now.runtime != kTurnNs) return;
  const sched_param none{};
  (void)::sched_setscheduler(0, SCHED_IDLE, &none);
}

SpareTime::SpareTime()
    : load_(::open("/proc/loadavg", O_RDONLY | O_CLOEXEC)), processors_(std::max(1l, ::sysconf(_SC_NPROCESSORS_ONLN))) {}

// By more than two threads for each processor, beside this one and one that is about to sleep.
// "0.52 0.58 0.59 3/467 12345": of 467 threads 3 are running or ready, this one among them. When that cannot be read, the
// machine is not known to be busy.
bool SpareTime::crowded() const {
  char text[128] = "";
  if (::pread(load_.get(), text, sizeof text - 1, 0) <= 0) return false;
  const char* slash = std::strchr(text, '/');
  if (!slash) return false;
  while (slash > text && slash[-1] != ' ') --slash;
  return std::strtol(slash, nullptr, 10) > 2 * processors_ + 2;
}

bool SpareTime::goes_on() {
  for (int k = 0; k < kLooks && !hurried(); ++k) {
    if (!crowded()) return true;
    futex(&hurried_, FUTEX_WAIT, 0, &kBetween);
  }
  return false;
}

void SpareTime::hurry(bool on) {
  if (hurried_.exchange(on) != on && on) futex(&hurried_, FUTEX_WAKE, 1, nullptr);
}

}  // namespace ray::gcs
