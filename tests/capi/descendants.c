/* descendants.c -- processes that tasks in C start: a forked child that comes back from the function, a program that uses
 * libray itself, and what is still there when the worker ends. */
#define _POSIX_C_SOURCE 200809L
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kit.h"
#include "remote.h"

/* ---- the remote side ---- */

/* The child leaves the function with args[0]; the parent's result is the child's exit status. */
static ray_code fork_and_return(ray_task* task, void* user) {
  ray_code code = (ray_code)kit_arg_i64(task, 0);
  int status = -1;
  pid_t pid = fork();
  (void)user;
  if (pid == 0) return code;
  while (waitpid(pid, &status, 0) != pid) continue;
  return kit_return_i64(task, 0, WIFEXITED(status) ? WEXITSTATUS(status) : -1);
}

/* This program again, as a program that runs a test: its exit status. */
static ray_code run_program(ray_task* task, void* user) {
  int status = -1;
  pid_t pid = fork();
  (void)user;
  if (pid == 0) {
    execl("/proc/self/exe", "program", "a_task", (char*)NULL);
    _exit(99);
  }
  while (waitpid(pid, &status, 0) != pid) continue;
  return kit_return_i64(task, 0, WIFEXITED(status) ? WEXITSTATUS(status) : -1);
}

/* Starts a daemon by the book, of a session of its own and nobody's child; its pid. */
static ray_code start_daemon(ray_task* task, void* user) {
  int fds[2];
  int64_t daemon = -1;
  (void)user;
  if (pipe(fds) != 0) return RAY_INTERNAL;
  if (fork() == 0) {
    setsid();
    daemon = fork();
    if (daemon == 0)
      for (;;) pause();
    _exit(write(fds[1], &daemon, sizeof daemon) != sizeof daemon);
  }
  if (read(fds[0], &daemon, sizeof daemon) != sizeof daemon) return RAY_INTERNAL;
  return kit_return_i64(task, 0, daemon);
}

static void register_all(void) {
  CHECK_OK(ray_register_function(ray_cstr("add"), add, NULL, &err));
  CHECK_OK(ray_register_function(ray_cstr("fork_and_return"), fork_and_return, NULL, &err));
  CHECK_OK(ray_register_function(ray_cstr("run_program"), run_program, NULL, &err));
  CHECK_OK(ray_register_function(ray_cstr("start_daemon"), start_daemon, NULL, &err));
}

/* ---- tests ---- */

static void a_task(void) {
  kit_init();
  CHECK_EQ(kit_take_i64(kit_submit_i64("add", 40, 2)), 42);
}

static void child_that_returns(void) {
  int i;
  kit_init();
  CHECK_EQ(kit_take_i64(kit_submit_i64("fork_and_return", RAY_OK, 0)), 0);
  CHECK_EQ(kit_take_i64(kit_submit_i64("fork_and_return", RAY_TASK_FAILED, 0)), 1);
  for (i = 0; i < 200; i++) CHECK_EQ(kit_take_i64(kit_submit_i64("add", i, 2)), i + 2);
}

static void program_with_a_cluster_of_its_own(void) {
  kit_init();
  CHECK_EQ(kit_take_i64(kit_submit_i64("run_program", 0, 0)), 0);
}

static void daemon_ends_with_the_worker(void) {
  int64_t pid;
  kit_init();
  pid = kit_take_i64(kit_submit_i64("start_daemon", 0, 0));
  CHECK(pid > 1);
  CHECK_EQ(kill((pid_t)pid, 0), 0);
  kit_kill_at_exit((long)pid);
  kit_shutdown();
  kit_await_gone((long)pid);
}

static const kit_test tests[] = {KIT_TEST(a_task), KIT_TEST(child_that_returns),
                                 KIT_TEST(program_with_a_cluster_of_its_own),
                                 KIT_TEST(daemon_ends_with_the_worker)};
KIT_MAIN(tests, register_all)
