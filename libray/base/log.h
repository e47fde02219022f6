// Log: one line per event, quiet by default (warnings and above), to stderr or to the handler that
// the program set with ray_set_log_handler. Any thread. Daemons send it to their log file.
#pragma once
#include <cstdint>

namespace ray {

enum LogLevel : int32_t { kLogError = 1, kLogWarning = 2, kLogInfo = 3, kLogDebug = 4 };

// module: "node", "store", "gcs", "runtime"...; msg_id: a stable short name for this message, e.g.
// "worker-died", so that a handler can count or drop it.
void log(LogLevel level, const char* module, const char* msg_id, const char* format, ...)
    __attribute__((format(printf, 4, 5)));

using LogFn = void (*)(int32_t level, const char* module, const char* msg_id, const char* text,
                       void* user);
// nullptr restores stderr. The level that applies: LIBRAY_LOG=error|warning|info|debug, else this.
void set_log_handler(LogFn fn, int32_t max_level, void* user);
// Daemons: prefix for stderr lines ("node", "gcs-0") and level.
void set_log_identity(const char* name);
// Lines for stderr that a full disk did not take. The next one that it takes says how many, and 0 follows.
uint64_t log_lines_lost();

}  // namespace ray
