// See log.h.
#include "libray/base/log.h"

#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <mutex>

#include "libray/base/fork.h"

namespace ray {
namespace {

struct Sink {
  std::mutex mutex;
  LogFn fn = nullptr;
  void* user = nullptr;
  std::atomic<int32_t> level{kLogWarning};  // read without the mutex by every call
  char identity[32] = "";
  std::atomic<uint64_t> lost{0};  // lines that could not be written, and nobody was told yet
  Sink() {
    held_over_forks(&mutex);
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

// All of it or nothing that matters: a line that a full disk cut counts as lost.
bool write_line(const char* data, size_t size) {
  while (size > 0) {
    ssize_t n = ::write(2, data, size);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    data += n;
    size -= static_cast<size_t>(n);
  }
  return true;
}

// Nobody is told about a descriptor that is closed, or a pipe that nobody reads: only about a file without room.
bool is_full(int e) { return e == ENOSPC || e == EDQUOT || e == EFBIG || e == EIO; }

void write_or_count(Sink& s, const char* line, size_t size) {
  if (uint64_t n = s.lost.exchange(0, std::memory_order_relaxed)) {
    char text[96];
    int m = std::snprintf(text, sizeof text, "\n[libray: %llu lines of this log are lost: there was no room]\n",
                          static_cast<unsigned long long>(n));
    if (!write_line(text, static_cast<size_t>(m))) s.lost.fetch_add(n, std::memory_order_relaxed);
  }
  if (!write_line(line, size) && is_full(errno)) s.lost.fetch_add(1, std::memory_order_relaxed);
}

}  // namespace

uint64_t log_lines_lost() { return sink().lost.load(std::memory_order_relaxed); }

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
  if (level > s.level.load(std::memory_order_relaxed)) return;
  int saved_errno = errno;  // callers log between a failure and its report
  char text[2048];
  va_list ap;
  va_start(ap, format);
  std::vsnprintf(text, sizeof text, format, ap);
  va_end(ap);
  for (char* c = text; *c; ++c)  // one line per event, whatever a peer or a user put into it
    if (static_cast<unsigned char>(*c) < 0x20 || *c == 0x7f) *c = ' ';
  LogFn fn;
  void* user;
  char identity[sizeof s.identity];
  {
    std::lock_guard lock(s.mutex);
    fn = s.fn;
    user = s.user;
    std::memcpy(identity, s.identity, sizeof identity);
  }
  if (fn) {
    fn(level, module, msg_id, text, user);
    errno = saved_errno;
    return;
  }
  static const char tags[] = "?EWID";
  char tag = level >= kLogError && level <= kLogDebug ? tags[level] : '?';
  timespec ts;
  clock_gettime(CLOCK_REALTIME, &ts);
  tm t;
  localtime_r(&ts.tv_sec, &t);
  char line[2300];
  int n = std::snprintf(line, sizeof line, "%02d:%02d:%02d.%03ld %c libray %s[%d] %s: %s\n",
                        t.tm_hour, t.tm_min, t.tm_sec, ts.tv_nsec / 1000000, tag,
                        identity[0] ? identity : module, getpid(), msg_id, text);
  if (n > 0) {
    size_t size = static_cast<size_t>(n) < sizeof line ? static_cast<size_t>(n) : sizeof line - 1;
    line[size - 1] = '\n';
    write_or_count(s, line, size);
  }
  errno = saved_errno;
}

}  // namespace ray
