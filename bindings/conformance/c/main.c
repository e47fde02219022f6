/* main.c -- the C driver: reads programs from standard input, one line each, and answers on standard output. */
#include "machine.h"

#include <dirent.h>
#include <signal.h>
#include <unistd.h>

ray_runtime* rt;
const char* g_program;
extern int64_t g_bound_ns;

/* init cpus=2 store=BYTES resources=HEX bound=MS */
static bool start(char* line) {
  ray_runtime_options options = RAY_RUNTIME_OPTIONS_INIT;
  static uint8_t resources[256];
  ray_error* err = NULL;
  char *word, *rest = line;
  ray_str dir;
  while ((word = strtok_r(rest, " \n", &rest))) {
    char* value = strchr(word, '=');
    if (value == NULL) continue;
    *value++ = 0;
    if (strcmp(word, "cpus") == 0) options.num_cpus = strtod(value, NULL);
    if (strcmp(word, "store") == 0) options.store_bytes = strtoull(value, NULL, 10);
    if (strcmp(word, "spill") == 0) options.spill_bytes = strtoull(value, NULL, 10);
    if (strcmp(word, "bound") == 0) g_bound_ns = number(value) * 1000000ll;
    if (strcmp(word, "resources") == 0) {
      options.resources_msgpack.data = resources;
      options.resources_msgpack.size = put_amounts(resources, sizeof resources, value);
    }
  }
  options.ns = ray_cstr("model"); /* all drivers share it */
  if (ray_init(&options, &rt, &err) != RAY_OK) {
    say("failed %s %.*s", ray_code_name(ray_error_code(err)), (int)ray_error_message(err).size, ray_error_message(err).data);
    return false;
  }
  dir = ray_runtime_session_dir(rt);
  say("started %d %.*s", (int)getpid(), (int)dir.size, dir.data);
  return true;
}

static void run_program(char* text) {
  machine* m = calloc(1, sizeof *m);
  if (m == NULL) abort_driver("out of memory");
  m->is_driver = true;
  run_text(m, text, "");
  end_machine(m);
  free(m);
  say("done");
}

static void query(const char* what) {
  ray_buffer buffer = RAY_BUFFER_INIT;
  ray_bytes none = {NULL, 0};
  char* hex;
  size_t i;
  if (ray_cluster_query(rt, ray_cstr(what), none, &buffer, NULL) != RAY_OK) return say("q");
  hex = malloc(2 * buffer.size + 2);
  if (hex == NULL) abort_driver("out of memory");
  for (i = 0; i < buffer.size; i++) snprintf(hex + 2 * i, 3, "%02x", ((const uint8_t*)buffer.data)[i]);
  hex[2 * buffer.size] = 0;
  say_long("q ", hex);
  free(hex);
  ray_buffer_release(&buffer);
}

/* Descriptors and threads of this process. */
static void count(void) {
  static const char* const folders[] = {"/proc/self/fd", "/proc/self/task"};
  int n[2] = {0, 0}, i;
  for (i = 0; i < 2; i++) {
    DIR* dir = opendir(folders[i]);
    while (dir && readdir(dir)) n[i]++;
    if (dir) closedir(dir);
  }
  say("n %d %d", n[0] - 3, n[1] - 2);
}

static void serve(void) {
  char* line = NULL;
  size_t capacity = 0;
  ssize_t n;
  while ((n = getline(&line, &capacity, stdin)) > 0) {
    if (line[n - 1] == '\n') line[n - 1] = 0;
    if (strncmp(line, "init", 4) == 0) {
      if (!start(line + 4)) break;
    } else if (strncmp(line, "run ", 4) == 0) {
      run_program(line + 4);
    } else if (strncmp(line, "query ", 6) == 0) {
      query(line + 6);
    } else if (strcmp(line, "count") == 0) {
      count();
    } else if (strcmp(line, "end") == 0) {
      ray_code code = ray_shutdown(rt, 5000000000ll, NULL);
      ray_runtime_release(rt);
      say("bye %s", ray_code_name(code));
      break;
    }
  }
  free(line);
}

/* In a program of C and C++, which are one language: the other driver is this one's worker. */
static void run_other_worker(void) {
  const char* other = getenv("CONFORMANCE_WORKER");
  if (other == NULL || getenv("LIBRAY_WORKER") == NULL || strcmp(other, g_program) == 0) return;
  execl(other, other, (char*)NULL);
  abort_driver("the other worker cannot be run");
}

int main(int argc, char** argv) {
  static char self[512];
  ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
  if (n < 0) abort_driver("no /proc");
  g_program = self;
  setvbuf(stdin, NULL, _IONBF, 0);
  run_other_worker();
  register_all();
  if (getenv("LIBRAY_WORKER")) {
    if (ray_init(NULL, &rt, NULL) != RAY_OK) return 1;
    ray_worker_run(rt, NULL);
    return 0;
  }
  if (argc > 1 && strcmp(argv[1], "--join") == 0) return join_main(argc, argv);
  signal(SIGPIPE, SIG_IGN);
  serve();
  return 0;
}
