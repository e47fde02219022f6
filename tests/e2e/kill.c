/* kill.c -- kill -9 of a worker, an actor, the driver, the daemon and a shard of the control store,
 * all under load: every get is answered by the right value or a clear error, and nothing is left
 * behind. */
#define _POSIX_C_SOURCE 200809L
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kit.h"
#include "processes.h"

/* ---- the load ---- */

static ray_code add(ray_task* task, void* user) {
  (void)user;
  return kit_return_i64(task, 0, kit_arg_i64(task, 0) + kit_arg_i64(task, 1));
}

static ray_code fill(ray_task* task, void* user) { /* a large value, every byte args[0] */
  size_t size = 300000;
  uint8_t* data = malloc(size);
  ray_value value = ray_plain(data, size, RAY_FMT_RAW);
  ray_code code;
  (void)user;
  memset(data, (int)kit_arg_i64(task, 0), size);
  code = ray_task_return(task, 0, &value, NULL);
  free(data);
  return code;
}

static ray_code who(ray_task* task, void* user) {
  (void)user;
  return kit_return_i64(task, 0, (int64_t)getpid());
}

static ray_code forever(ray_task* task, void* user) {
  char path[512];
  (void)user;
  kit_touch(kit_arg_text(task, 0, path, sizeof path));
  while (!ray_task_is_cancelled(task)) kit_pause();
  return RAY_CANCELLED;
}

static int64_t g_total;
static ray_code total_create(ray_task* task, void* user) {
  (void)user;
  return ray_task_set_self(task, &g_total, NULL);
}
static ray_code total_add(ray_task* task, void* user) {
  (void)user;
  g_total += kit_arg_i64(task, 0);
  return kit_return_i64(task, 0, g_total);
}

static void register_all(void) {
  CHECK_OK(ray_register_function(ray_cstr("add"), add, NULL, &err));
  CHECK_OK(ray_register_function(ray_cstr("fill"), fill, NULL, &err));
  CHECK_OK(ray_register_function(ray_cstr("who"), who, NULL, &err));
  CHECK_OK(ray_register_function(ray_cstr("forever"), forever, NULL, &err));
  CHECK_OK(ray_register_actor(ray_cstr("Total"), total_create, NULL, NULL, &err));
  CHECK_OK(ray_register_method(ray_cstr("Total"), ray_cstr("add"), total_add, NULL, &err));
}

static char g_session[512];
static const char* g_mark;

static void start(void) {
  ray_str dir;
  if (g_mark == NULL) g_mark = proc_mark();
  kit_init();
  dir = ray_runtime_session_dir(rt);
  snprintf(g_session, sizeof g_session, "%.*s", (int)dir.size, dir.data);
}

static void nothing_is_left(void) {
  if (!kit_until(proc_none_left, (void*)g_mark, 30)) {
    proc_print(g_mark);
    kit_fail(__FILE__, __LINE__, "processes are left");
  }
  CHECK_EQ(files_of_type(g_session, 's'), 0);
}

/* After the runtime is released this process holds nothing of it. */
static void this_process_is_clean(void) {
  CHECK_EQ(proc_memfds((long)getpid()), 0);
  CHECK_EQ(proc_threads((long)getpid()), 1);
}

typedef struct load {
  ray_ref *small[500], *large[20];
} load;

static void submit_load(load* l) {
  int64_t i, seven = 7;
  ray_arg arg;
  for (i = 0; i < 500; i++) l->small[i] = kit_submit_i64("add", i, seven);
  for (i = 0; i < 20; i++) {
    arg = kit_i64(&i);
    l->large[i] = kit_submit("fill", &arg, 1, NULL);
  }
}

/* Right value, or one of the codes that say what died. Returns how many values came. */
static int check_load(load* l, const ray_code* allowed, size_t n_allowed) {
  int values = 0;
  size_t i, k;
  for (i = 0; i < 520; i++) {
    ray_ref* ref = i < 500 ? l->small[i] : l->large[i - 500];
    ray_buffer buffer = RAY_BUFFER_INIT;
    ray_code code;
    kit_clear();
    code = ray_get(rt, &ref, 1, -1, &buffer, &err);
    if (code == RAY_OK && i < 500) {
      int64_t value;
      memcpy(&value, buffer.data, sizeof value);
      CHECK_EQ(value, (int64_t)i + 7);
    } else if (code == RAY_OK) {
      CHECK_EQ(buffer.size, 300000);
      CHECK_EQ(((const uint8_t*)buffer.data)[299999], i - 500);
    } else {
      for (k = 0; k < n_allowed && allowed[k] != code; k++) continue;
      if (k == n_allowed)
        kit_fail(__FILE__, __LINE__, "a get says %s: %s", ray_code_name(code), kit_message());
      CHECK(kit_message()[0] != 0);
    }
    values += code == RAY_OK;
    ray_buffer_release(&buffer);
    ray_ref_release(ref);
  }
  return values;
}

/* ---- tests ---- */

/* Workers die twenty times; tasks are retried, so every single value comes. */
static void workers_under_load(void) {
  static load l;
  int round;
  start();
  for (round = 0; round < 20; round++) {
    int64_t pid = kit_take_i64(kit_submit("who", NULL, 0, NULL));
    submit_load(&l);
    CHECK_EQ(kill((pid_t)pid, SIGKILL), 0);
    CHECK_EQ(check_load(&l, NULL, 0), 520);
  }
  kit_shutdown();
  nothing_is_left();
  this_process_is_clean();
}

static void worker_without_retries(void) {
  static const ray_code crashed[] = {RAY_WORKER_CRASHED};
  ray_task_options options = RAY_TASK_OPTIONS_INIT;
  static load l;
  int64_t i, pid;
  start();
  options.max_retries = 0;
  pid = kit_take_i64(kit_submit("who", NULL, 0, NULL));
  for (i = 0; i < 520; i++) {
    int64_t seven = 7, k = i < 500 ? i : i - 500;
    ray_arg args[2];
    args[0] = kit_i64(&k);
    args[1] = kit_i64(&seven);
    *(i < 500 ? &l.small[i] : &l.large[i - 500]) =
        i < 500 ? kit_submit("add", args, 2, &options) : kit_submit("fill", args, 1, &options);
  }
  CHECK_EQ(kill((pid_t)pid, SIGKILL), 0);
  /* Tasks that had not started are not lost with their worker: at most the running one is. */
  CHECK(check_load(&l, crashed, 1) >= 519);
  kit_shutdown();
  nothing_is_left();
  this_process_is_clean();
}

/* The actor answers again; calls that it may have missed while it restarted say so, and are made again. */
static bool answers_again(void* actor) {
  int64_t one = 1, total;
  ray_arg arg = kit_i64(&one);
  ray_ref* ref = kit_call((ray_actor*)actor, "add", &arg, 1);
  ray_code code = kit_get_code(ref);
  if (code == RAY_OK) {
    total = kit_get_i64(ref);
    CHECK(total >= 1);
  } else {
    CHECK_EQ(code, RAY_ACTOR_RESTARTING);
  }
  ray_ref_release(ref);
  return code == RAY_OK;
}

static void actor_under_load(void) {
  ray_actor_options options = RAY_ACTOR_OPTIONS_INIT;
  ray_actor* actor;
  ray_ref* refs[200];
  long pids[16];
  int64_t one = 1, value, last = 0;
  ray_arg arg = kit_i64(&one);
  int i, failed = 0, restarted = 0;
  start();
  options.max_restarts = RAY_RETRIES_INFINITE;
  actor = kit_actor("Total", &options);
  CHECK_EQ(kit_call_i64(actor, "add", 1), 1);
  CHECK(proc_find(g_mark, "e2e_kill", pids, 16) >= 1);
  for (i = 0; i < 200; i++) refs[i] = kit_call(actor, "add", &arg, 1);
  for (i = 0; i < 16 && (size_t)i < proc_find(g_mark, "e2e_kill", pids, 16); i++)
    kill((pid_t)pids[i], SIGKILL); /* the actor is one of them */
  for (i = 0; i < 200; i++) {
    ray_code code = kit_get_code(refs[i]);
    if (code != RAY_OK) {
      CHECK(code == RAY_ACTOR_RESTARTING);
      failed++;
    } else {
      value = kit_get_i64(refs[i]);
      if (value <= last) restarted++;
      last = value;
    }
    ray_ref_release(refs[i]);
  }
  CHECK(restarted <= 1); /* calls that were not lost run in order, on the old state or the new */
  kit_clear();
  CHECK_UNTIL(answers_again, actor);
  ray_actor_release(actor);
  kit_shutdown();
  nothing_is_left();
  this_process_is_clean();
}

/* The driver is a child here; when it is killed, everything that it started goes, and the sockets
 * too. */
static void driver_under_load(void) {
  char path[512], mark[32];
  int status, round;
  pid_t pid;
  FILE* file;
  for (round = 0; round < 5; round++) {
    snprintf(path, sizeof path, "%s.%d", kit_path("session"), round);
    pid = fork();
    if (pid == 0) {
      static load l;
      ray_arg arg = kit_text(kit_path("runs"));
      prctl(PR_SET_PDEATHSIG, SIGKILL); /* should the test fail, it goes with it */
      g_mark = NULL;                    /* a cluster of its own */
      start();
      CHECK_EQ(kit_take_i64(kit_submit_i64("add", 1, 2)), 3);
      kit_submit("forever", &arg, 1, NULL);
      file = fopen(path, "w");
      CHECK(file != NULL);
      fprintf(file, "%s", g_session);
      fclose(file);
      rename(path, kit_path("ready"));
      for (;;) {
        submit_load(&l);
        check_load(&l, NULL, 0);
      }
    }
    snprintf(mark, sizeof mark, "%ld", (long)pid); /* what start() marks its processes with */
    g_mark = mark;
    kit_kill_at_exit((long)pid);
    kit_await(kit_path("ready"));
    kit_await(kit_path("runs"));
    file = fopen(kit_path("ready"), "r");
    CHECK(file != NULL && fgets(g_session, sizeof g_session, file) != NULL);
    fclose(file);
    CHECK_EQ(kill(pid, SIGKILL), 0);
    CHECK(waitpid(pid, &status, 0) == pid);
    nothing_is_left();
    remove(kit_path("ready"));
    remove(kit_path("runs"));
  }
  this_process_is_clean();
}

static long daemon_pid(const char* role) {
  long pids[8];
  size_t n = proc_find(g_mark, role, pids, 8);
  if (n == 0) {
    proc_print(g_mark);
    kit_fail(__FILE__, __LINE__, "no process called %s", role);
  }
  return pids[0];
}

static void daemon_under_load(void) {
  static const ray_code allowed[] = {RAY_NODE_DIED, RAY_WORKER_CRASHED, RAY_OBJECT_LOST,
                                     RAY_CANCELLED};
  ray_value value = ray_plain("abc", 3, RAY_FMT_RAW);
  static load l;
  ray_ref* ref = NULL;
  ray_function* fn;
  ray_code code;
  start();
  CHECK_EQ(kit_take_i64(kit_submit_i64("add", 1, 2)), 3);
  CHECK_OK(ray_function_get(rt, ray_cstr("forever"), &fn, &err));
  submit_load(&l);
  CHECK_EQ(kill((pid_t)daemon_pid("rayd node"), SIGKILL), 0);
  check_load(&l, allowed, 4); /* returns: no get hangs */
  {
    ray_arg arg = kit_text(kit_path("never"));
    kit_clear();
    code = ray_submit(rt, fn, &arg, 1, NULL, &ref, &err);
    if (code == RAY_OK) { /* taken before the death was known: its get tells */
      CHECK_CODE(RAY_NODE_DIED, kit_get_code(ref));
      ray_ref_release(ref);
    } else {
      CHECK_EQ(code, RAY_NODE_DIED);
    }
  }
  kit_clear();
  code = ray_put(rt, &value, &ref, &err);
  CHECK(code == RAY_OK || code == RAY_NODE_DIED);
  if (code == RAY_OK) ray_ref_release(ref);
  ray_function_release(fn);
  kit_clear();
  code = ray_shutdown(rt, 1000000000, &err);
  CHECK(code == RAY_OK || code == RAY_NODE_DIED);
  ray_runtime_release(rt);
  rt = NULL;
  nothing_is_left();
  this_process_is_clean();
  kit_init(); /* and the program can go on with a new cluster */
  CHECK_EQ(kit_take_i64(kit_submit_i64("add", 4, 5)), 9);
}

/* Between the daemon's death and the news of it, a get and a put that need the store meet its closed
 * socket: what they tell is the death of the node all the same. */
static void daemon_dies_before_the_news(void) {
  static const ray_code allowed[] = {RAY_NODE_DIED};
  static uint8_t bytes[300000];
  ray_value value = ray_plain(bytes, sizeof bytes, RAY_FMT_RAW);
  static load l;
  ray_ref* ref = NULL;
  uint8_t ready[20];
  size_t n_ready;
  siginfo_t dead;
  pid_t daemon;
  start();
  submit_load(&l);
  CHECK_OK(ray_wait(rt, l.large, 20, 20, -1, ready, &n_ready, &err)); /* and nobody has read them */
  CHECK_OK(ray_test_fault(ray_cstr("client.node_lost"), ray_cstr("delay:2000ms"), &err));
  daemon = (pid_t)daemon_pid("rayd node");
  CHECK_EQ(kill(daemon, SIGKILL), 0);
  CHECK_EQ(waitid(P_PID, (id_t)daemon, &dead, WEXITED | WNOWAIT), 0);
  check_load(&l, allowed, 1);
  CHECK_CODE(RAY_NODE_DIED, ray_put(rt, &value, &ref, &err));
  CHECK_MESSAGE("the node daemon died");
  CHECK_OK(ray_test_fault(ray_cstr("client.node_lost"), ray_cstr(""), NULL));
  (void)ray_shutdown(rt, 1000000000, NULL);
  ray_runtime_release(rt);
  rt = NULL;
  nothing_is_left();
}

/* Tasks do not notice the death of a shard; what was committed is still there afterwards. */
static void shard_under_load(void) {
  ray_bytes key = {"k", 1}, one = {"1", 1};
  ray_buffer buffer = RAY_BUFFER_INIT;
  uint64_t version = 0;
  static load l;
  long pids[8];
  size_t n, i;
  int round;
  start();
  CHECK_OK(ray_kv_put(rt, ray_cstr("e2e"), key, one, 0, &version, &err));
  for (round = 0; round < 3; round++) {
    submit_load(&l);
    n = proc_find(g_mark, "rayd gcs", pids, 8);
    CHECK(n >= 1);
    for (i = 0; i < n && i < 8; i++) CHECK_EQ(kill((pid_t)pids[i], SIGKILL), 0);
    CHECK_EQ(check_load(&l, NULL, 0), 520);
    CHECK_OK(ray_kv_get(rt, ray_cstr("e2e"), key, &buffer, &version, &err));
    CHECK_EQ(version, 1);
    CHECK(buffer.size == 1 && memcmp(buffer.data, "1", 1) == 0);
    ray_buffer_release(&buffer);
  }
  kit_shutdown();
  nothing_is_left();
  this_process_is_clean();
}

/* Stopped, not dead: a worker that hangs is no reason for others to hang. */
static void stopped_worker(void) {
  int64_t pid;
  int i;
  start();
  pid = kit_take_i64(kit_submit("who", NULL, 0, NULL));
  CHECK_EQ(kill((pid_t)pid, SIGSTOP), 0);
  CHECK_EQ(kill((pid_t)pid, SIGCONT), 0);
  for (i = 0; i < 100; i++) CHECK_EQ(kit_take_i64(kit_submit_i64("add", i, 1)), i + 1);
  CHECK_EQ(kill((pid_t)pid, SIGSTOP), 0);
  kit_shutdown(); /* ends it all the same */
  nothing_is_left();
}

static void graceful_end(void) {
  static load l;
  start();
  submit_load(&l);
  CHECK_EQ(check_load(&l, NULL, 0), 520);
  kit_shutdown();
  nothing_is_left();
  this_process_is_clean();
}

static const kit_test tests[] = {KIT_TEST(graceful_end),           KIT_TEST(workers_under_load),
                                 KIT_TEST(worker_without_retries), KIT_TEST(actor_under_load),
                                 KIT_TEST(driver_under_load),      KIT_TEST(daemon_under_load),
                                 KIT_TEST(daemon_dies_before_the_news),
                                 KIT_TEST(shard_under_load),       KIT_TEST(stopped_worker)};
KIT_MAIN(tests, register_all)
