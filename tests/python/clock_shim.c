/* clock_shim.c -- preloaded into a program and its cluster, it shifts the wall clock by what the file named in
 * CLOCK_SHIM says (nanoseconds in native order, mapped: the test changes it while they run). The steady clock and the
 * kernel's idea of deadlines stay: whoever computes a deadline from the wall clock waits an hour too long or not at
 * all. See test_clock_jump.py. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile const int64_t *offset;

__attribute__((constructor)) static void map_offset(void) {
  const char *path = getenv("CLOCK_SHIM");
  int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
  void *at = fd >= 0 ? mmap(NULL, sizeof *offset, PROT_READ, MAP_SHARED, fd, 0) : MAP_FAILED;
  if (at != MAP_FAILED) offset = (volatile const int64_t *)at;
  if (fd >= 0) close(fd);
}

int clock_gettime(clockid_t id, struct timespec *ts) {
  int rc = (int)syscall(SYS_clock_gettime, id, ts);
  if (rc == 0 && offset && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) {
    int64_t ns = ts->tv_sec * 1000000000ll + ts->tv_nsec + *offset;
    ts->tv_sec = ns / 1000000000ll;
    ts->tv_nsec = ns % 1000000000ll;
  }
  return rc;
}

int gettimeofday(struct timeval *restrict tv, void *restrict zone) {
  struct timespec ts;
  (void)zone;
  clock_gettime(CLOCK_REALTIME, &ts);
  tv->tv_sec = ts.tv_sec;
  tv->tv_usec = ts.tv_nsec / 1000;
  return 0;
}

time_t time(time_t *out) {
  struct timespec ts;
  clock_gettime(CLOCK_REALTIME, &ts);
  if (out) *out = ts.tv_sec;
  return ts.tv_sec;
}
