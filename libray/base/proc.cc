// See proc.h.
#include "libray/base/proc.h"

#include <fcntl.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>

#include "libray/base/shm.h"

namespace ray {

bool is_stopped(int pid) {
  char path[32], text[1024];
  std::snprintf(path, sizeof path, "/proc/%d/status", pid);
  Fd fd(::open(path, O_RDONLY | O_CLOEXEC));
  ssize_t n = fd.valid() ? ::read(fd.get(), text, sizeof text - 1) : -1;
  if (n <= 0) return false;
  text[n] = 0;
  const char* state = std::strstr(text, "\nState:\t");
  const char* tracer = std::strstr(text, "\nTracerPid:\t");
  return state && tracer && state[8] == 'T' && tracer[12] == '0';
}

bool is_program(const char* path) { return ::faccessat(AT_FDCWD, path, X_OK, AT_EACCESS) == 0; }

}  // namespace ray
