// Errors that nobody looked at before their last reference went: the runtime says so in its log, with a
// line named "unread-error". That line is not printed here but makes a thread of its own, which lives as
// long as it takes, ask the Python half to fetch and to show them (core/unread.py). The runtime's thread, on
// which the line comes, never waits for the GIL.
#include "unread.h"

#include <pthread.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstring>
#include <ctime>

#include "common.h"

namespace libray_py {
namespace {

std::atomic<bool> g_asked{false};  // a thread is on its way

bool is_finalizing() {
#if PY_VERSION_HEX >= 0x030d0000
  return Py_IsFinalizing() != 0;
#else
  return _Py_IsFinalizing() != 0;
#endif
}

void* show_them(void*) {
  if (is_finalizing()) return nullptr;
  const PyGILState_STATE state = PyGILState_Ensure();
  g_asked.store(false);  // what comes from here on needs another thread
  if (g_process.runtime != nullptr && g_hooks.show_unread != nullptr) {
    PyObject* done = PyObject_CallObject(g_hooks.show_unread, nullptr);
    if (done == nullptr) PyErr_Clear();
    Py_XDECREF(done);
  }
  PyGILState_Release(state);
  return nullptr;
}

void ask() {
  if (g_asked.exchange(true)) return;
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  pthread_t thread;
  if (pthread_create(&thread, &attributes, show_them, nullptr) != 0) g_asked.store(false);
  pthread_attr_destroy(&attributes);
}

size_t length(ray_str s) { return s.size == RAY_NUL ? strlen(s.data) : s.size; }

// Every other line goes where it goes without a handler.
void on_log(int32_t level, ray_str module, ray_str msg_id, ray_str text, void*) {
  static const char kOurs[] = "unread-error";
  if (length(msg_id) == sizeof kOurs - 1 && memcmp(msg_id.data, kOurs, sizeof kOurs - 1) == 0)
    return ask();
  static const char tags[] = "?EWID";
  timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  tm local;
  localtime_r(&now.tv_sec, &local);
  char line[2300];
  int n = snprintf(line, sizeof line, "%02d:%02d:%02d.%03ld %c libray %.*s[%d] %.*s: %.*s\n",
                   local.tm_hour, local.tm_min, local.tm_sec, now.tv_nsec / 1000000,
                   tags[level >= 1 && level <= 4 ? level : 0], static_cast<int>(length(module)),
                   module.data, getpid(), static_cast<int>(length(msg_id)), msg_id.data,
                   static_cast<int>(length(text)), text.data);
  if (n >= static_cast<int>(sizeof line)) {
    n = sizeof line - 1;
    line[n - 1] = '\n';
  }
  const ssize_t ignored = n > 0 ? ::write(2, line, static_cast<size_t>(n)) : 0;
  (void)ignored;
}

}  // namespace

void watch_unread_errors() { ray_set_log_handler(on_log, 0, nullptr); }

void forget_unread_errors() { g_asked.store(false); }

}  // namespace libray_py
