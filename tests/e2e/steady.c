/* steady.c -- nothing grows: memory and descriptors over a million tasks, leaks after a hundred
 * thousand, an idle node. */
#define _POSIX_C_SOURCE 200809L
#include <time.h>
#include <unistd.h>

#include "kit.h"
#include "processes.h"

static ray_code noop(ray_task* task, void* user) {
  (void)task, (void)user;
  return RAY_OK;
}

static ray_code add(ray_task* task, void* user) {
  (void)user;
  return kit_return_i64(task, 0, kit_arg_i64(task, 0) + kit_arg_i64(task, 1));
}

static void register_all(void) {
  CHECK_OK(ray_register_function(ray_cstr("noop"), noop, NULL, &err));
  CHECK_OK(ray_register_function(ray_cstr("add"), add, NULL, &err));
}

enum { kBatch = 1000 };

static void run_tasks(long n) {
  static ray_ref* refs[kBatch];
  static ray_buffer out[kBatch];
  ray_function* fn;
  long done;
  int i;
  CHECK_OK(ray_function_get(rt, ray_cstr("noop"), &fn, &err));
  for (done = 0; done < n; done += kBatch) {
    for (i = 0; i < kBatch; i++) CHECK_OK(ray_submit(rt, fn, NULL, 0, NULL, &refs[i], &err));
    CHECK_OK(ray_get(rt, refs, kBatch, -1, out, &err));
    for (i = 0; i < kBatch; i++) {
      ray_buffer_release(&out[i]);
      ray_ref_release(refs[i]);
    }
  }
  ray_function_release(fn);
}

/* Under AddressSanitizer the end of this process and of its daemons tells of every leak. */
static void hundred_thousand_tasks(void) {
  kit_init();
  run_tasks(100000);
  CHECK_EQ(kit_take_i64(kit_submit_i64("add", 1, 2)), 3);
}

#ifndef LIBRAY_SANITIZED
typedef struct footprint {
  long own_kb, shared_kb; /* resident; shared: rings, whose pages come as they are first used */
  size_t descriptors, processes;
} footprint;

static footprint measure(const char* mark, const char* which) {
  footprint f = {0, 0, 0, 0};
  long pids[64];
  size_t i;
  f.processes = proc_find(mark, which, pids, 64);
  for (i = 0; i < f.processes && i < 64; i++) {
    f.shared_kb += proc_shared_kb(pids[i]);
    f.own_kb += proc_rss_kb(pids[i]) - proc_shared_kb(pids[i]);
    f.descriptors += proc_descriptors(pids[i]);
  }
  return f;
}

/* Rings have a size: the journal's is 8 MiB a client, and fills once when the daemon is behind. */
enum { kRingsKb = 10 << 10 };

/* `clients`: whose rings it maps. */
static void flat(const char* what, footprint before, footprint after, size_t clients, long slack_kb) {
  printf("    %-10s %8ld kB -> %8ld kB own, %ld -> %ld kB shared, %zu -> %zu descriptors, %zu -> %zu processes\n",
         what, before.own_kb, after.own_kb, before.shared_kb, after.shared_kb, before.descriptors,
         after.descriptors, before.processes, after.processes);
  if (after.own_kb > before.own_kb + slack_kb)
    kit_fail(__FILE__, __LINE__, "%s grew by %ld kB", what, after.own_kb - before.own_kb);
  if (after.shared_kb > before.shared_kb + kRingsKb * (long)clients)
    kit_fail(__FILE__, __LINE__, "%s: shared memory grew by %ld kB", what,
             after.shared_kb - before.shared_kb);
  if (after.descriptors > before.descriptors + 4)
    kit_fail(__FILE__, __LINE__, "%s holds more descriptors", what);
}

/* The daemon holds what the control store has not committed yet, within bounds, and gives it back.
 */
static long g_daemon_kb;
static bool daemon_is_small(void* mark) {
  return measure((const char*)mark, "rayd node").own_kb < g_daemon_kb;
}

/* After a first quarter of a million, which fills whatever is filled once, another million changes
 * nothing. */
static void million_tasks(void) {
  footprint node, worker, self, node2, worker2, self2;
  const char* mark = proc_mark();
  kit_init();
  run_tasks(250000);
  g_daemon_kb = 40 << 10;
  CHECK_UNTIL(daemon_is_small, (void*)mark);
  node = measure(mark, "rayd node");
  worker = measure(mark, "e2e_steady");
  self.shared_kb = proc_shared_kb((long)getpid());
  self.own_kb = proc_rss_kb((long)getpid()) - self.shared_kb;
  self.descriptors = proc_descriptors((long)getpid());
  self.processes = 1;
  run_tasks(1000000);
  g_daemon_kb = node.own_kb + (4 << 10);
  CHECK_UNTIL(daemon_is_small, (void*)mark);
  node2 = measure(mark, "rayd node");
  worker2 = measure(mark, "e2e_steady");
  self2.shared_kb = proc_shared_kb((long)getpid());
  self2.own_kb = proc_rss_kb((long)getpid()) - self2.shared_kb;
  self2.descriptors = proc_descriptors((long)getpid());
  self2.processes = 1;
  flat("driver", self, self2, 1, 4 << 10);
  flat("workers", worker, worker2, worker2.processes, 4 << 10);
  flat("daemon", node, node2, 1 + worker2.processes, 4 << 10);
}

#endif

/* One runtime after the other in the same process: everything is given back each time. */
static void many_runtimes(void) {
  size_t descriptors = 0, threads = 0;
  long rss = 0;
  int i;
  (void)rss;
  for (i = 0; i < 30; i++) {
    kit_init();
    CHECK_EQ(kit_take_i64(kit_submit_i64("add", i, 1)), i + 1);
    kit_shutdown();
    if (i == 5) {
      descriptors = proc_descriptors((long)getpid());
      threads = proc_threads((long)getpid());
      rss = proc_rss_kb((long)getpid());
    }
  }
  CHECK_EQ(proc_descriptors((long)getpid()), descriptors);
  CHECK_EQ(proc_threads((long)getpid()), threads);
#ifndef LIBRAY_SANITIZED /* which keeps freed memory for a while */
  CHECK(proc_rss_kb((long)getpid()) < rss + (8 << 10));
#endif
  CHECK_EQ(proc_memfds((long)getpid()), 0);
}

#ifndef LIBRAY_SANITIZED
static double cpu_seconds(long pid) {
  char path[64], line[1024], *at;
  unsigned long user = 0, system = 0;
  FILE* file;
  snprintf(path, sizeof path, "/proc/%ld/stat", pid);
  file = fopen(path, "r");
  if (!file || !fgets(line, sizeof line, file)) return 0;
  fclose(file);
  at = strrchr(line, ')');
  sscanf(at + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system);
  return (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
}

/* Reports what an idle node takes; asserts no time, only that the daemon's memory is of the right
 * order. */
static void idle(void) {
  struct timespec two_seconds = {2, 0};
  const char* mark = proc_mark();
  long pids[64];
  double before;
  kit_init();
  CHECK_EQ(kit_take_i64(kit_submit_i64("add", 1, 2)), 3);
  CHECK_EQ(proc_find(mark, "rayd node", pids, 64), 1);
  nanosleep(&two_seconds, NULL); /* this is what idling is */
  before = cpu_seconds(pids[0]);
  nanosleep(&two_seconds, NULL);
  printf("    rayd: %ld kB, %.2f s of processor in 2 s\n", proc_rss_kb(pids[0]),
         cpu_seconds(pids[0]) - before);
  CHECK(proc_rss_kb(pids[0]) < 100 << 10);
}

#endif

static const kit_test tests[] = {KIT_TEST(hundred_thousand_tasks), KIT_TEST(many_runtimes),
#ifndef LIBRAY_SANITIZED /* sanitizers keep freed memory: growth says nothing then */
                                 KIT_TEST(million_tasks), KIT_TEST(idle)
#endif
};
KIT_MAIN(tests, register_all)
