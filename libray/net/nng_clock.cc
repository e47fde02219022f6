// The clock of NNG: the monotonic one. As it is delivered, NNG computes its deadlines (reconnecting, resending, sleeping)
// from the wall clock, so that a clock that is set back by an hour stops them for an hour. CMakeLists.txt links a copy
// of its static library in which these two functions stand for the C library's.
#include <pthread.h>
#include <time.h>

extern "C" {

int ray_nng_clock_gettime(clockid_t, timespec* out) { return ::clock_gettime(CLOCK_MONOTONIC, out); }

int ray_nng_cond_timedwait(pthread_cond_t* cond, pthread_mutex_t* mutex, const timespec* until) {
  return ::pthread_cond_clockwait(cond, mutex, CLOCK_MONOTONIC, until);
}

}
