/* kit.c -- see kit.h. POSIX besides C99: fork, waitpid, alarm. */
#define _POSIX_C_SOURCE 200809L
#include "kit.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { kSkipped = 77, kSecondsPerTest = 120 };

ray_error* err;
ray_runtime* rt;
static char g_directory[256];
static long g_pids[16];
static int g_n_pids;

/* ---- running ---- */

static int run_worker(int (*worker)(ray_runtime*)) {
  ray_code code;
  ray_runtime_options options = RAY_RUNTIME_OPTIONS_INIT;
  const char* language = getenv("KIT_LANGUAGE"); /* it stands for a worker of that one, see languages.c */
  if (language) options.language = atoi(language);
  CHECK_OK(ray_init(&options, &rt, &err));
  if (ray_runtime_mode(rt) != RAY_MODE_WORKER)
    kit_fail(__FILE__, __LINE__, "a worker that is none");
  if (worker != NULL) return worker(rt);
  code = ray_worker_run(rt, NULL);
  ray_runtime_release(rt);
  return code == RAY_OK || code == RAY_CANCELLED ? 0 : 1;
}

static void run_child(const kit_test* test, void (*register_all)(void)) {
  const char* scale = getenv("LIBRAY_TEST_SLOW"); /* sanitizers: everything takes longer */
  alarm((unsigned)(kSecondsPerTest * (scale ? atoi(scale) : 1)));
  if (register_all) register_all();
  test->run();
  if (rt) kit_shutdown();
  kit_clear();
  exit(0);
}

static void remove_directory(const char* path) {
  pid_t pid = fork();
  if (pid == 0) {
    execlp("rm", "rm", "-rf", path, (char*)NULL);
    _exit(1);
  }
  waitpid(pid, NULL, 0);
}

static int run_one(const kit_test* test, void (*register_all)(void)) {
  const char* parent = getenv("LIBRAY_TMPDIR");
  int status = 0;
  pid_t pid;
  snprintf(g_directory, sizeof g_directory, "%s/t%ld-XXXXXX", parent ? parent : "/tmp",
           (long)getpid());
  if (!mkdtemp(g_directory))
    kit_fail(__FILE__, __LINE__, "mkdtemp %s: %s", g_directory, strerror(errno));
  printf("  %s\n", test->name);
  fflush(stdout);
  pid = fork();
  if (pid == 0) run_child(test, register_all);
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) continue;
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) remove_directory(g_directory);
  if (WIFSIGNALED(status))
    printf("  %s ended by signal %d%s\n", test->name, WTERMSIG(status),
           WTERMSIG(status) == SIGALRM ? " (it took too long)" : "");
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

static bool is_chosen(int argc, char** argv, const char* name) {
  int i;
  for (i = 1; i < argc; i++)
    if (strcmp(argv[i], name) == 0) return true;
  return argc < 2;
}

int kit_main(int argc, char** argv, const kit_test* tests, size_t n, void (*register_all)(void),
             int (*worker)(ray_runtime*)) {
  int passed = 0, failed = 0, skipped = 0, status;
  size_t i;
  if (getenv("LIBRAY_WORKER")) {
    if (register_all) register_all();
    return run_worker(worker);
  }
  for (i = 0; i < n; i++) {
    if (!is_chosen(argc, argv, tests[i].name)) continue;
    status = run_one(&tests[i], register_all);
    if (status == 0)
      passed++;
    else if (status == kSkipped)
      skipped++;
    else
      failed++;
    if (status != 0) printf("  %s %s\n", status == kSkipped ? "SKIPPED" : "FAILED", tests[i].name);
  }
  printf("%d passed, %d failed, %d skipped\n", passed, failed, skipped);
  return failed || passed + skipped == 0;
}

/* ---- checks ---- */

void kit_kill_at_exit(long pid) {
  if (g_n_pids < 16) g_pids[g_n_pids++] = pid;
}

void kit_fail(const char* file, int line, const char* format, ...) {
  va_list args;
  va_start(args, format);
  fprintf(stderr, "%s:%d: ", file, line);
  vfprintf(stderr, format, args);
  fprintf(stderr, "\n");
  va_end(args);
  fflush(NULL);
  while (g_n_pids > 0) kill((pid_t)g_pids[--g_n_pids], SIGKILL);
  _exit(1);
}

void kit_skip(const char* why) {
  printf("  skipped: %s\n", why);
  fflush(NULL);
  if (rt) kit_shutdown();
  _exit(kSkipped);
}

const char* kit_message(void) {
  static char text[1024];
  ray_str message = ray_error_message(err);
  size_t n = message.size < sizeof text - 1 ? message.size : sizeof text - 1;
  if (err == NULL) return "";
  memcpy(text, message.data, n);
  text[n] = 0;
  return text;
}

bool kit_message_holds(const char* text) { return strstr(kit_message(), text) != NULL; }

void kit_clear(void) {
  ray_error_release(err);
  err = NULL;
}

/* Every check of a call comes here, so the shape of errors is checked everywhere. */
void kit_expect(const char* file, int line, const char* what, ray_code expected, ray_code code) {
  if (code != expected)
    kit_fail(file, line, "%s is %s, not %s: %s", what, ray_code_name(code), ray_code_name(expected),
             kit_message());
  if (code == RAY_OK) {
    if (err != NULL)
      kit_fail(file, line, "%s succeeded and made an error: %s", what, kit_message());
  } else if (code == RAY_STREAM_END) {
    return; /* no error, so no message */
  } else {
    const char* text = kit_message();
    if (err == NULL) kit_fail(file, line, "%s is %s without an error", what, ray_code_name(code));
    if (ray_error_code(err) != code)
      kit_fail(file, line, "%s is %s, its error %s", what, ray_code_name(code),
               ray_code_name(ray_error_code(err)));
    if (text[0] == 0) kit_fail(file, line, "%s is %s without a message", what, ray_code_name(code));
    if (strchr(text, '\n')) kit_fail(file, line, "%s: a message of several lines: %s", what, text);
  }
}

/* ---- a runtime ---- */

ray_runtime_options kit_options(void) {
  ray_runtime_options options = RAY_RUNTIME_OPTIONS_INIT;
  options.num_cpus = 2;
  options.store_bytes = 64u << 20;
  options.session_dir = ray_cstr(g_directory);
  return options;
}

ray_runtime* kit_init(void) {
  ray_runtime_options options = kit_options();
  CHECK_OK(ray_init(&options, &rt, &err));
  return rt;
}

long kit_daemon_pid(void) {
  char path[1024], text[256] = "";
  ray_str dir = ray_runtime_session_dir(rt);
  FILE* file;
  snprintf(path, sizeof path, "%.*s/session.json", (int)dir.size, dir.data);
  file = fopen(path, "r");
  CHECK(file != NULL && fgets(text, sizeof text, file) != NULL);
  fclose(file);
  CHECK(strncmp(text, "{\"pid\": ", 8) == 0);
  return atol(text + 8);
}

void kit_shutdown(void) {
  CHECK_OK(ray_shutdown(rt, 10000000000ll, &err));
  ray_runtime_release(rt);
  rt = NULL;
}

/* ---- values ---- */

ray_arg kit_i64(const int64_t* value) {
  ray_arg arg;
  arg.ref = NULL;
  arg.value = ray_plain(value, sizeof *value, RAY_FMT_RAW);
  return arg;
}

ray_arg kit_text(const char* text) {
  ray_arg arg;
  arg.ref = NULL;
  arg.value = ray_plain(text, strlen(text), RAY_FMT_RAW);
  return arg;
}

ray_arg kit_ref(ray_ref* ref) {
  ray_arg arg;
  arg.ref = ref;
  arg.value = ray_plain(NULL, 0, RAY_FMT_RAW);
  return arg;
}

ray_ref* kit_submit(const char* function, const ray_arg* args, size_t n,
                    const ray_task_options* options) {
  ray_function* handle = NULL;
  ray_ref* ref = NULL;
  CHECK_OK(ray_function_get(rt, ray_cstr(function), &handle, &err));
  CHECK_OK(ray_submit(rt, handle, args, n, options, &ref, &err));
  ray_function_release(handle);
  return ref;
}

ray_ref* kit_submit_i64(const char* function, int64_t a, int64_t b) {
  ray_arg args[2];
  args[0] = kit_i64(&a);
  args[1] = kit_i64(&b);
  return kit_submit(function, args, 2, NULL);
}

int64_t kit_get_i64(ray_ref* ref) {
  ray_buffer buffer = RAY_BUFFER_INIT;
  int64_t value;
  CHECK_OK(ray_get(rt, &ref, 1, -1, &buffer, &err));
  CHECK_EQ(buffer.size, sizeof value);
  CHECK_EQ(buffer.format, RAY_FMT_RAW);
  memcpy(&value, buffer.data, sizeof value);
  ray_buffer_release(&buffer);
  return value;
}

int64_t kit_take_i64(ray_ref* ref) {
  int64_t value = kit_get_i64(ref);
  ray_ref_release(ref);
  return value;
}

ray_code kit_get_code(ray_ref* ref) {
  ray_buffer buffer = RAY_BUFFER_INIT;
  ray_code code;
  kit_clear();
  code = ray_get(rt, &ref, 1, -1, &buffer, &err);
  if (code == RAY_OK) ray_buffer_release(&buffer);
  return code;
}

size_t kit_poll(ray_queue* queue, ray_completion* out, size_t max) {
  size_t n = 0;
  CHECK_OK(ray_queue_poll(queue, out, max, -1, &n, &err));
  return n;
}

void kit_get_text(ray_ref* ref, char* out, size_t capacity) {
  ray_buffer buffer = RAY_BUFFER_INIT;
  CHECK_OK(ray_get(rt, &ref, 1, -1, &buffer, &err));
  CHECK(buffer.size < capacity);
  if (buffer.size) memcpy(out, buffer.data, (size_t)buffer.size);
  out[buffer.size] = 0;
  ray_buffer_release(&buffer);
}

ray_actor* kit_actor(const char* klass, const ray_actor_options* options) {
  ray_function* handle = NULL;
  ray_actor* actor = NULL;
  CHECK_OK(ray_function_get(rt, ray_cstr(klass), &handle, &err));
  CHECK_OK(ray_actor_create(rt, handle, NULL, 0, options, &actor, &err));
  ray_function_release(handle);
  return actor;
}

ray_ref* kit_call(ray_actor* actor, const char* method, const ray_arg* args, size_t n) {
  ray_ref* ref = NULL;
  CHECK_OK(ray_actor_call(actor, ray_cstr(method), args, n, NULL, &ref, &err));
  return ref;
}

int64_t kit_call_i64(ray_actor* actor, const char* method, int64_t a) {
  ray_arg arg = kit_i64(&a);
  return kit_take_i64(kit_call(actor, method, &arg, 1));
}

int64_t kit_arg_i64(ray_task* task, size_t index) {
  const ray_buffer* args = NULL;
  size_t n = ray_task_args(task, &args);
  int64_t value;
  CHECK(index < n);
  CHECK_EQ(args[index].size, sizeof value);
  memcpy(&value, args[index].data, sizeof value);
  return value;
}

const char* kit_arg_text(ray_task* task, size_t index, char* out, size_t capacity) {
  const ray_buffer* args = NULL;
  size_t n = ray_task_args(task, &args);
  CHECK(index < n);
  CHECK(args[index].size < capacity);
  memcpy(out, args[index].data, (size_t)args[index].size);
  out[args[index].size] = 0;
  return out;
}

ray_code kit_return_i64(ray_task* task, uint32_t index, int64_t value) {
  ray_value v = ray_plain(&value, sizeof value, RAY_FMT_RAW);
  return ray_task_return(task, index, &v, NULL);
}

ray_code kit_return_text(ray_task* task, const char* text) {
  ray_value v = ray_plain(text, strlen(text), RAY_FMT_RAW);
  return ray_task_return(task, 0, &v, NULL);
}

/* ---- events ---- */

const char* kit_path(const char* name) {
  static char paths[16][512];
  static int next;
  char* path = paths[next++ % 16];
  snprintf(path, sizeof paths[0], "%s/%s", g_directory, name);
  return path;
}

void kit_touch(const char* path) {
  FILE* file = fopen(path, "a");
  if (!file) kit_fail(__FILE__, __LINE__, "%s: %s", path, strerror(errno));
  fclose(file);
}

bool kit_exists(const char* path) { return access(path, F_OK) == 0; }

void kit_pause(void) {
  struct timespec millisecond = {0, 1000000};
  nanosleep(&millisecond, NULL);
}

void kit_await(const char* path) {
  while (!kit_exists(path)) kit_pause(); /* the test's alarm ends a wait in vain */
}

void kit_await_gone(long pid) {
  while (kill((pid_t)pid, 0) == 0) kit_pause();
}

bool kit_until(bool (*condition)(void*), void* user, int seconds) {
  int i;
  for (i = 0; i < seconds * 1000; i++) {
    if (condition(user)) return true;
    kit_pause();
  }
  return false;
}
