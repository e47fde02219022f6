// See thread.h.
#include "libray/base/thread.h"

#include <sys/resource.h>

#include <cstring>

namespace ray {

Status no_process_error(int error_number, const char* what) {
  std::string s = strprintf("cannot start %s: %s", what, std::strerror(error_number));
  rlimit limit{};
  if (error_number == EAGAIN && ::getrlimit(RLIMIT_NPROC, &limit) == 0)
    s += limit.rlim_cur == RLIM_INFINITY
             ? std::string(" (the limit of processes and threads is reached: end some, or raise pids.max of the container)")
             : strprintf(" (all processes of this user together may have %llu processes and threads: end some, or raise "
                         "`ulimit -u`, or pids.max of the container)",
                         static_cast<unsigned long long>(limit.rlim_cur));
  return Status(RAY_UNAVAILABLE, std::move(s));
}

}  // namespace ray
