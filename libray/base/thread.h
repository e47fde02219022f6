// Starting threads, which the system may refuse as it may refuse a fork. Any thread; callers get an error that
// names the limit instead of an exception that nobody catches.
#pragma once
#include <cerrno>
#include <system_error>
#include <thread>
#include <utility>

#include "libray/base/fault.h"
#include "libray/base/status.h"

namespace ray {

// Why the system makes no further process or thread, with the remedy. `error_number`: as errno of fork or of
// pthread_create.
Status no_process_error(int error_number, const char* what);

// `what`: whose thread it is, for people.
template <class F>
Status start_thread(std::thread* out, const char* what, F run) {
  if (RAY_FAULT_FAILS("thread.start")) return no_process_error(EAGAIN, what);
  try {
    *out = std::thread(std::move(run));
    return Status();
  } catch (const std::system_error& e) {
    return no_process_error(e.code().value(), what);
  }
}

}  // namespace ray
