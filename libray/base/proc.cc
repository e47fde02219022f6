// See proc.h.
#include "libray/base/proc.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "libray/base/shm.h"

namespace ray {

std::string read_proc(const std::string& path) {
  std::string text;
  char part[4096];
  Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  ssize_t n = -1;
  while (fd.valid() && (n = ::read(fd.get(), part, sizeof part)) > 0) text.append(part, static_cast<size_t>(n));
  return text;
}

namespace {

int pid_of(const dirent& e) { return static_cast<int>(std::strtol(e.d_name, nullptr, 10)); }

// What is behind the name in /proc/PID/stat, which may hold anything: state, parent...
bool read_stat(int pid, char* state, int* parent) {
  char path[32];
  std::snprintf(path, sizeof path, "/proc/%d/stat", pid);
  std::string text = read_proc(path);
  size_t at = text.rfind(')');
  return at != std::string::npos && std::sscanf(text.c_str() + at + 1, " %c %d", state, parent) == 2;
}

}  // namespace

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

std::vector<int> own_children() {
  std::vector<int> out;
  const int self = ::getpid();
  char path[48];
  std::snprintf(path, sizeof path, "/proc/self/task/%d/children", self);
  if (::access(path, R_OK) == 0) {
    std::string text = read_proc(path);
    for (const char* at = text.c_str(); *at;) {
      char* end;
      long pid = std::strtol(at, &end, 10);
      if (end == at) break;
      out.push_back(static_cast<int>(pid));
      at = *end ? end + 1 : end;
    }
    return out;
  }
  DIR* d = ::opendir("/proc");  // a kernel without that file
  while (dirent* e = d ? ::readdir(d) : nullptr) {
    int pid = pid_of(*e), parent = 0;
    char state;
    if (pid > 0 && read_stat(pid, &state, &parent) && parent == self) out.push_back(pid);
  }
  if (d) ::closedir(d);
  return out;
}

bool is_zombie(int pid) {
  char state;
  int parent;
  return read_stat(pid, &state, &parent) && state == 'Z';
}

void kill_with_environment(const std::string& entry, const std::string& later) {
  constexpr int kRounds = 300, kSpared = 200;
  const std::string wanted = '\0' + entry + '\0', spared = '\0' + later + '=';
  for (int round = 0; round < kRounds; ++round) {
    bool found = false;
    DIR* d = ::opendir("/proc");
    while (dirent* e = d ? ::readdir(d) : nullptr) {
      int pid = pid_of(*e);
      struct stat st;
      if (pid <= 0 || pid == ::getpid() || ::fstatat(::dirfd(d), e->d_name, &st, 0) != 0 || st.st_uid != ::geteuid())
        continue;
      Fd pidfd(pidfd_open(pid));  // before the look at what it is
      if (!pidfd.valid()) continue;
      std::string environment = '\0' + read_proc(("/proc/" + std::string(e->d_name) + "/environ").c_str());
      if (environment.find(wanted) == std::string::npos) continue;
      if (round < kSpared && environment.find(spared) != std::string::npos) found = true;
      else found |= pidfd_signal(pidfd.get(), SIGKILL);
    }
    if (d) ::closedir(d);
    if (!found) return;
    ::usleep(10000);
  }
}

bool pidfd_signal(int pidfd, int signal) {
  return ::syscall(SYS_pidfd_send_signal, pidfd, signal, nullptr, 0) == 0;
}

bool is_program(const char* path) { return ::faccessat(AT_FDCWD, path, X_OK, AT_EACCESS) == 0; }

}  // namespace ray
