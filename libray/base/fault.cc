// See fault.h.
#include "libray/base/fault.h"

#include <fcntl.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include <cstdlib>
#include <map>
#include <mutex>

namespace ray {

std::atomic<bool> g_faults_armed{false};

namespace {

struct Fault {
  enum Kind { kKill, kStop, kDelay, kFail } kind;
  long delay_us = 0;
  long nth = 1;
  long passed = 0;
};
std::mutex g_mutex;
std::string* g_once = nullptr;  // directory of LIBRAY_FAULT_ONCE
std::map<std::string, Fault>& faults() {
  static auto* m = new std::map<std::string, Fault>;
  return *m;
}

bool parse(const std::string& text, Fault* f) {
  std::string action = text;
  if (auto at = action.find('@'); at != std::string::npos) {
    char* end = nullptr;
    f->nth = std::strtol(action.c_str() + at + 1, &end, 10);
    if (end == action.c_str() + at + 1 || *end || f->nth < 0) return false;
    action.resize(at);
  }
  if (action == "kill") f->kind = Fault::kKill;
  else if (action == "stop") f->kind = Fault::kStop;
  else if (action == "fail") f->kind = Fault::kFail;
  else if (action.rfind("delay:", 0) == 0) {
    char* end = nullptr;
    double n = std::strtod(action.c_str() + 6, &end);
    std::string unit = end;
    double scale = unit == "us" ? 1 : unit == "ms" ? 1000 : unit == "s" ? 1e6 : 0;
    if (end == action.c_str() + 6 || scale == 0 || !(n >= 0 && n * scale <= 3.6e9)) return false;
    f->kind = Fault::kDelay;
    f->delay_us = static_cast<long>(n * scale);
  } else return false;
  return true;
}

// Whether this process is the first of all that share the directory to act at the point. The file that
// says so holds the pid, for whoever wants to know which process was hit.
bool claim(const std::string& once, const char* point) {
  int fd = ::open((once + "/" + point).c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd < 0) return false;
  std::string pid = std::to_string(::getpid());
  (void)!::write(fd, pid.data(), pid.size());
  ::close(fd);
  return true;
}

}  // namespace

bool set_fault(const std::string& point, const std::string& action) {
  std::lock_guard lock(g_mutex);
  if (action.empty()) {
    faults().erase(point);
  } else {
    Fault f{};
    if (point.empty() || !parse(action, &f)) return false;
    faults()[point] = f;
  }
  g_faults_armed.store(!faults().empty(), std::memory_order_relaxed);
  return true;
}

void load_faults_from_environment() {
  const char* env = std::getenv("LIBRAY_FAULTS");
  if (!env) return;
  if (const char* once = std::getenv("LIBRAY_FAULT_ONCE")) {
    std::lock_guard lock(g_mutex);
    if (!g_once) g_once = new std::string(once);
  }
  std::string all = env;
  for (size_t at = 0; at < all.size();) {
    size_t end = all.find(';', at);
    if (end == std::string::npos) end = all.size();
    std::string one = all.substr(at, end - at);
    if (auto eq = one.find('='); eq != std::string::npos) set_fault(one.substr(0, eq), one.substr(eq + 1));
    at = end + 1;
  }
}

bool fault_hit(const char* point) {
  Fault f;
  {
    std::lock_guard lock(g_mutex);
    auto it = faults().find(point);
    if (it == faults().end()) return false;
    ++it->second.passed;
    if (it->second.nth != 0 && it->second.passed != it->second.nth) return false;
    f = it->second;
    if (g_once && !claim(*g_once, point)) return false;
  }
  switch (f.kind) {
    case Fault::kKill: ::kill(::getpid(), SIGKILL); break;
    case Fault::kStop: ::kill(::getpid(), SIGSTOP); break;
    case Fault::kDelay: {
      timespec ts{f.delay_us / 1000000, (f.delay_us % 1000000) * 1000};
      ::nanosleep(&ts, nullptr);
      break;
    }
    case Fault::kFail: return true;
  }
  return false;
}

}  // namespace ray
