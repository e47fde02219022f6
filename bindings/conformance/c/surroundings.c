/* surroundings.c -- instructions about what is around a task: options, groups, key-value, threads, processes. */
#include "machine.h"

#include <sys/wait.h>
#include <unistd.h>

long number(const char* text) { return strtol(text, NULL, 10); }

/* ---- MessagePack, as much as options need ---------------------------------------------------- */

static size_t put_text(uint8_t* out, const char* text, size_t n) {
  out[0] = (uint8_t)(0xa0 | (n & 31));
  memcpy(out + 1, text, n & 31);
  return 1 + (n & 31);
}

static size_t put_double(uint8_t* out, double value) {
  uint64_t bits;
  int i;
  memcpy(&bits, &value, 8);
  out[0] = 0xcb;
  for (i = 0; i < 8; i++) out[1 + i] = (uint8_t)(bits >> (56 - 8 * i));
  return 9;
}

/* "CPU:1,disk:0.5" as a map; returns its size. */
size_t put_amounts(uint8_t* out, size_t capacity, const char* text) {
  size_t at = 1, entries = 0;
  while (*text && at + 48 < capacity && entries < 15) {
    const char* colon = strchr(text, ':');
    char* end;
    double amount;
    if (colon == NULL) break;
    amount = strtod(colon + 1, &end);
    at += put_text(out + at, text, (size_t)(colon - text));
    at += put_double(out + at, amount);
    entries++;
    text = *end == ',' ? end + 1 : end;
  }
  out[0] = (uint8_t)(0x80 | entries);
  return at;
}

void submit_options(machine* m, words* w, size_t from, ray_task_options* options, ray_placement* placement,
                    uint8_t* resources) {
  ray_placement fresh = RAY_PLACEMENT_INIT;
  size_t i;
  *placement = fresh;
  for (i = from; i < w->n - 1; i++) {
    const char *word = w->at[i], *equals = strchr(word, '=');
    size_t n = equals ? (size_t)(equals - word) : 0;
    if (n == 0) continue;
    if (strncmp(word, "retries", n) == 0) options->max_retries = (int32_t)number(equals + 1);
    if (strncmp(word, "roe", n) == 0) options->flags |= RAY_TASK_RETRY_ON_ERROR;
    if (strncmp(word, "window", n) == 0) options->stream_window = (uint32_t)number(equals + 1);
    if (strncmp(word, "res", n) == 0) {
      options->resources_msgpack.data = resources;
      options->resources_msgpack.size = put_amounts(resources, 256, equals + 1);
    }
    if (strncmp(word, "bundle", n) == 0) placement->bundle = (int32_t)number(equals + 1);
    if (strncmp(word, "group", n) == 0) {
      int slot = slot_number(equals + 1, 'g');
      if (slot >= 0) placement->group = m->groups[slot];
      options->placement = placement;
    }
  }
}

/* ---- placement groups ------------------------------------------------------------------------ */

static void op_group(machine* m, words* w) { /* group gD STRATEGY CPU:1,x:2/CPU:1 */
  ray_group_options options = RAY_GROUP_OPTIONS_INIT;
  uint8_t bundles[1024];
  size_t at = 1, n = 0;
  int slot = slot_number(w->n > 3 ? w->at[1] : NULL, 'g');
  ray_error* err = NULL;
  ray_code code;
  char* part;
  if (slot < 0) return answer_code(m, RAY_NOT_FOUND, NULL);
  for (part = w->at[3]; part && n < 15; n++) {
    char* next = strchr(part, '/');
    if (next) *next++ = 0;
    at += put_amounts(bundles + at, 256, part);
    part = at + 256 < sizeof bundles ? next : NULL;
  }
  bundles[0] = (uint8_t)(0x90 | n);
  options.bundles_msgpack.data = bundles;
  options.bundles_msgpack.size = at;
  options.strategy = (int32_t)number(w->at[2]);
  code = ray_group_create(rt, &options, &m->groups[slot], &err);
  m->has_group[slot] = code == RAY_OK;
  answer_code(m, code, err);
}

static void op_gwait(machine* m, words* w) { /* gwait gS MS */
  int slot = slot_number(w->n > 2 ? w->at[1] : NULL, 'g');
  ray_error* err = NULL;
  ray_code code;
  if (slot < 0 || !m->has_group[slot]) return answer_code(m, RAY_NOT_FOUND, NULL);
  code = ray_group_wait(rt, &m->groups[slot], number(w->at[2]) * 1000000ll, &err);
  answer_code(m, code, err);
}

static void op_gremove(machine* m, words* w) { /* gremove gS */
  int slot = slot_number(w->n > 1 ? w->at[1] : NULL, 'g');
  ray_error* err = NULL;
  ray_code code;
  if (slot < 0 || !m->has_group[slot]) return answer_code(m, RAY_NOT_FOUND, NULL);
  code = ray_group_remove(rt, &m->groups[slot], &err);
  m->has_group[slot] = false;
  answer_code(m, code, err);
}

/* ---- key-value ------------------------------------------------------------------------------- */

static ray_bytes key_of(const char* text) {
  ray_bytes b;
  b.data = text;
  b.size = strlen(text);
  return b;
}
static uint64_t* version_of(machine* m, const char* key) { return &m->versions[(unsigned char)key[strlen(key) - 1] % 16]; }
static uint64_t expected(machine* m, words* w, size_t at) { /* any | none | last */
  if (w->n <= at || w->at[at][0] == 'a') return RAY_KV_ANY;
  return w->at[at][0] == 'n' ? 0 : *version_of(m, w->at[1]);
}

static void op_kvput(machine* m, words* w) { /* kvput KEY TAG EXPECTED */
  uint64_t tag, version = 0;
  ray_bytes value;
  ray_error* err = NULL;
  ray_code code;
  if (w->n < 4) return answer_code(m, RAY_NOT_FOUND, NULL);
  tag = strtoull(w->at[2], NULL, 10);
  value.data = &tag;
  value.size = 8;
  code = ray_kv_put(rt, ray_cstr("model"), key_of(w->at[1]), value, expected(m, w, 3), &version, &err);
  if (code != RAY_OK) return answer_code(m, code, err);
  *version_of(m, w->at[1]) = version;
  answer(m, "k %llu %llu", (unsigned long long)tag, (unsigned long long)version);
}

static void op_kvget(machine* m, words* w) { /* kvget KEY */
  uint64_t tag = 0, version = 0;
  ray_buffer buffer = RAY_BUFFER_INIT;
  ray_error* err = NULL;
  ray_code code;
  if (w->n < 2) return answer_code(m, RAY_NOT_FOUND, NULL);
  code = ray_kv_get(rt, ray_cstr("model"), key_of(w->at[1]), &buffer, &version, &err);
  if (code != RAY_OK) return answer_code(m, code, err);
  if (buffer.size == 8) memcpy(&tag, buffer.data, 8);
  ray_buffer_release(&buffer);
  *version_of(m, w->at[1]) = version;
  m->acc = mix(m->acc, tag);
  answer(m, "k %llu %llu", (unsigned long long)tag, (unsigned long long)version);
}

static void op_kvdel(machine* m, words* w) { /* kvdel KEY EXPECTED */
  ray_error* err = NULL;
  ray_code code;
  if (w->n < 3) return answer_code(m, RAY_NOT_FOUND, NULL);
  code = ray_kv_delete(rt, ray_cstr("model"), key_of(w->at[1]), expected(m, w, 2), &err);
  answer_code(m, code, err);
}

/* ---- threads --------------------------------------------------------------------------------- */

typedef struct within {
  machine* m;
  char* text;
  char path[64];
} within;

static void* in_thread(void* user) {
  within* in = user;
  run_text(in->m, in->text, in->path);
  return NULL;
}

static void op_thread(machine* m, words* w) { /* thread [BODY]: in a new thread, until it has ended */
  within in = {m, w->n > 1 ? w->at[1] : NULL, ""};
  pthread_t thread;
  if (in.text == NULL) return;
  snprintf(in.path, sizeof in.path, "%.50s.", m->path);
  if (pthread_create(&thread, NULL, in_thread, &in) != 0) abort_driver("no thread");
  pthread_join(thread, NULL);
}

static void* beside(void* user) {
  child_thread* c = user;
  run_text(c->at, c->text, c->path);
  return NULL;
}

static void op_spawn(machine* m, words* w) { /* spawn N [BODY]: beside this one, with copies of the slots */
  child_thread* c = &m->threads[(w->n > 2 ? (size_t)number(w->at[1]) : 0) % kThreads];
  int i;
  if (w->n < 3 || c->running) return answer(m, "empty");
  c->at = calloc(1, sizeof *c->at);
  if (c->at == NULL) abort_driver("out of memory");
  c->text = strdup(w->at[2]);
  c->at->is_driver = m->is_driver;
  snprintf(c->path, sizeof c->path, "%.50s.", m->path);
  for (i = 0; i < kSlots; i++) {
    c->at->refs[i] = ray_ref_retain(m->refs[i]);
    c->at->actors[i] = ray_actor_retain(m->actors[i]);
  }
  if (pthread_create(&c->thread, NULL, beside, c) != 0) abort_driver("no thread");
  c->running = true;
  answer_ok(m);
}

static void op_join(machine* m, words* w) { /* join N */
  child_thread* c = &m->threads[(w->n > 1 ? (size_t)number(w->at[1]) : 0) % kThreads];
  bool failed;
  if (!c->running) return answer(m, "empty");
  pthread_join(c->thread, NULL);
  c->running = false;
  failed = c->at->failed;
  end_machine(c->at);
  free(c->at);
  free(c->text);
  if (failed && !m->is_driver) return answer_code(m, RAY_TASK_FAILED, NULL);
  answer_ok(m);
}

/* ---- processes ------------------------------------------------------------------------------- */

static int wait_for(pid_t pid) {
  int status = 0;
  while (waitpid(pid, &status, 0) < 0) continue;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

static void op_fork(machine* m, words* w) { /* fork [BODY]: in a child that then ends without a word */
  pid_t pid = fork();
  if (pid == 0) {
    char path[80];
    snprintf(path, sizeof path, "%.50s.", m->path);
    alarm(30);
    if (w->n > 1) run_text(m, w->at[1], path);
    _exit(m->failed && !m->is_driver ? 1 : 0);
  }
  answer(m, "x %d", pid < 0 ? -1 : wait_for(pid));
}

static void op_driver(machine* m, words* w) { /* driver clean|leave|die [BODY]: another driver, until it has ended */
  ray_str dir = ray_runtime_session_dir(rt);
  char session[512], path[80];
  pid_t pid;
  if (w->n < 3) return answer(m, "empty");
  snprintf(session, sizeof session, "%.*s", (int)dir.size, dir.data);
  snprintf(path, sizeof path, "%.50s.", m->path);
  pid = fork();
  if (pid == 0) {
    execl(g_program, g_program, "--join", session, w->at[1], path, w->at[2], (char*)NULL);
    _exit(4);
  }
  answer(m, "x %d", pid < 0 ? -1 : wait_for(pid));
}

int join_main(int argc, char** argv) { /* --join SESSION MODE PATH TEXT */
  ray_runtime_options options = RAY_RUNTIME_OPTIONS_INIT;
  ray_error* err = NULL;
  machine m;
  char* text;
  if (argc < 6) return 2;
  options.address = ray_cstr(argv[2]);
  options.ns = ray_cstr("model");
  memset(&m, 0, sizeof m);
  m.is_driver = true;
  snprintf(m.path, sizeof m.path, "%.50sjoin", argv[4]);
  if (ray_init(&options, &rt, &err) != RAY_OK) {
    answer_code(&m, ray_error_code(err), err);
    return 5;
  }
  text = strdup(argv[5]);
  run_text(&m, text, argv[4]);
  if (strcmp(argv[3], "die") == 0) kill(getpid(), SIGKILL);
  if (strcmp(argv[3], "leave") == 0) _exit(0);
  end_machine(&m);
  free(text);
  ray_runtime_release(rt);
  return 0;
}

static void op_fault(machine* m, words* w) { /* fault KIND N */
  if (!m->is_driver || w->n < 3) return;
  answer(m, ask_tester(w->at[1], number(w->at[2])) ? "ok" : "no");
}

const entry kSurroundings[] = {
    {"group", op_group}, {"gwait", op_gwait},   {"gremove", op_gremove}, {"kvput", op_kvput}, {"kvget", op_kvget},
    {"kvdel", op_kvdel}, {"thread", op_thread}, {"spawn", op_spawn},     {"join", op_join},   {"fork", op_fork},
    {"driver", op_driver}, {"fault", op_fault}, {NULL, NULL},
};
