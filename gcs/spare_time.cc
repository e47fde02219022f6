// See spare_time.h.
#include "gcs/spare_time.h"

#include <pthread.h>
#include <sched.h>

#include "libray/base/doorbell.h"
#include "libray/base/thread.h"

namespace ray::gcs {

SpareTime::SpareTime() {
  started_ = start_thread(&thread_, "a thread of the control store", [this] { give(); });
  if (!started_.ok()) return;
  pthread_setname_np(thread_.native_handle(), "gcs:spare");
  sched_param none{};
  pthread_setschedparam(thread_.native_handle(), SCHED_IDLE, &none);
}

SpareTime::~SpareTime() {
  if (!thread_.joinable()) return;
  over_.store(true);
  asked_.store(1);
  futex(&asked_, FUTEX_WAKE, 1, nullptr);
  thread_.join();
}

// The thread at the lowest priority. An answer that comes when nobody waits any more lets one step too many go.
void SpareTime::give() {
  while (!over_.load()) {
    if (asked_.exchange(0) == 0) {
      futex(&asked_, FUTEX_WAIT, 0, nullptr);
      continue;
    }
    given_.fetch_add(1);
    futex(&given_, FUTEX_WAKE, 1, nullptr);
  }
}

void SpareTime::await() {
  if (hurried_.load()) return;
  const uint32_t before = given_.load();
  asked_.store(1);
  futex(&asked_, FUTEX_WAKE, 1, nullptr);
  while (given_.load() == before && !hurried_.load()) futex(&given_, FUTEX_WAIT, before, nullptr);
}

void SpareTime::hurry(bool on) {
  if (hurried_.exchange(on) == on || !on) return;
  given_.fetch_add(1);
  futex(&given_, FUTEX_WAKE, 1, nullptr);
}

}  // namespace ray::gcs
