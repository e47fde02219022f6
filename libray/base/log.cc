// See log.h.
#include "libray/base/log.h"

#include <unistd.h>

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <mutex>

namespace ray {
namespace {

struct Sink {
  std::mutex mutex;
  LogFn fn = nullptr;
  void* user = nullptr;
  int32_t level = kLogWarning;
  char identity[32] = "";
  Sink() {
    const char* env = std::getenv("LIBRAY_LOG");
    if (!env) return;
    static const char* names[] = {"", "error", "warning", "info", "debug"};
    for (int32_t i = 1; i <= 4; ++i)
      if (!std::strcmp(env, names[i])) level = i;
  }
};

Sink& sink() {
  static Sink* s = new Sink;  // never destroyed: threads may log during exit
  return *s;
}

}  // namespace

void set_log_handler(LogFn fn, int32_t max_level, void* user) {
  std::lock_guard lock(sink().mutex);
  sink().fn = fn;
  sink().user = user;
  if (max_level > 0 && !std::getenv("LIBRAY_LOG")) sink().level = max_level;
}

void set_log_identity(const char* name) {
  std::lock_guard lock(sink().mutex);
  std::snprintf(sink().identity, sizeof sink().identity, "%s", name);
}

void log(LogLevel level, const char* module, const char* msg_id, const char* format, ...) {
  Sink& s = sink();
  if (level > s.level) return;
  char text[2048];
  va_list ap;
  va_start(ap, format);
  std::vsnprintf(text, sizeof text, format, ap);
  va_end(ap);
  LogFn fn;
  void* user;
  {
    std::lock_guard lock(s.mutex);
    fn = s.fn;
    user = s.user;
  }
  if (fn) return fn(level, module, msg_id, text, user);
  static const char tags[] = "?EWID";
  timespec ts;
  clock_gettime(CLOCK_REALTIME, &ts);
  tm t;
  localtime_r(&ts.tv_sec, &t);
  char line[2300];
  int n = std::snprintf(line, sizeof line, "%02d:%02d:%02d.%03ld %c libray %s[%d] %s: %s\n",
                        t.tm_hour, t.tm_min, t.tm_sec, ts.tv_nsec / 1000000, tags[level],
                        s.identity[0] ? s.identity : module, getpid(), msg_id, text);
  if (n > 0) (void)!::write(2, line, static_cast<size_t>(n) < sizeof line ? n : sizeof line - 1);
}

}  // namespace ray
