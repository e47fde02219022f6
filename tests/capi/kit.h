/* kit.h -- what the C tests share: a tiny assert kit, and shorthands over ray.h.
 *
 * A test program lists its tests in a table and hands it to kit_main. Every test runs in a process
 * of its own (forked before anything of libray was touched), with a time limit, so one that crashes
 * or hangs fails alone. Started again by libray as a worker, the same program runs the functions
 * that it registered. The closing line holds the counts.
 */
#ifndef TESTS_CAPI_KIT_H
#define TESTS_CAPI_KIT_H

#define RAY_ALLOW_UNSTABLE
#include <ray.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct kit_test {
  const char* name;
  void (*run)(void);
} kit_test;
#define KIT_TEST(fn) \
  { #fn, fn }

/* Runs the tests whose names were given as arguments, or all. `register_all` (may be NULL)
 * registers the functions of the program; `worker` (may be NULL) replaces ray_worker_run in worker
 * mode. Returns the exit status of main. */
int kit_main(int argc, char** argv, const kit_test* tests, size_t n, void (*register_all)(void),
             int (*worker)(ray_runtime* rt));
#define KIT_MAIN(tests, register_all)                                                           \
  int main(int argc, char** argv) {                                                             \
    return kit_main(argc, argv, tests, sizeof(tests) / sizeof((tests)[0]), register_all, NULL); \
  }

/* ---- checks: the first that fails ends the test ---- */
extern ray_error* err; /* of the last call, for CHECK_OK and CHECK_CODE */
void kit_fail(const char* file, int line, const char* format, ...);
void kit_expect(const char* file, int line, const char* what, ray_code expected, ray_code code);
void kit_skip(const char* why); /* ends the test; it counts as skipped */
#define CHECK(condition)                                              \
  do {                                                                \
    if (!(condition)) kit_fail(__FILE__, __LINE__, "%s", #condition); \
  } while (0)
#define CHECK_EQ(a, b)                                                              \
  do {                                                                              \
    long long kit_a = (long long)(a), kit_b = (long long)(b);                       \
    if (kit_a != kit_b)                                                             \
      kit_fail(__FILE__, __LINE__, "%s is %lld, %s is %lld", #a, kit_a, #b, kit_b); \
  } while (0)
/* The call ends with `&err`. On RAY_OK no error may have been made. */
#define CHECK_OK(call) (kit_clear(), kit_expect(__FILE__, __LINE__, #call, RAY_OK, (call)))
/* The code, and an error with the same code and a message of one line; stays in `err` until the
 * next check. */
#define CHECK_CODE(expected, call) \
  (kit_clear(), kit_expect(__FILE__, __LINE__, #call, (expected), (call)))
void kit_clear(void); /* releases err */
/* Whether the message of `err` holds the text. */
#define CHECK_MESSAGE(text)                                                                 \
  do {                                                                                      \
    if (!kit_message_holds(text))                                                           \
      kit_fail(__FILE__, __LINE__, "no \"%s\" in the message \"%s\"", text, kit_message()); \
  } while (0)
bool kit_message_holds(const char* text);
const char* kit_message(void);

/* ---- a runtime ---- */
extern ray_runtime* rt;      /* the test's; made by kit_init */
ray_runtime* kit_init(void); /* two processors, a store of 64 MB */
ray_runtime_options kit_options(void);
void kit_shutdown(void);         /* shuts down and releases rt */
long kit_daemon_pid(void);       /* of the node of rt */
void kit_kill_at_exit(long pid); /* should the test fail, this process ends too */

/* ---- values: int64 and text travel as RAY_FMT_RAW ---- */
ray_arg kit_i64(const int64_t* value); /* points at *value */
ray_arg kit_text(const char* text);
ray_arg kit_ref(ray_ref* ref);
ray_ref* kit_submit(const char* function, const ray_arg* args, size_t n,
                    const ray_task_options* options);
ray_ref* kit_submit_i64(const char* function, int64_t a, int64_t b); /* function(a, b) */
int64_t kit_get_i64(ray_ref* ref);                                   /* checks the get */
ray_code kit_get_code(ray_ref* ref); /* of a get; the error stays in err */
/* ray_queue_poll that finds something; how many. */
size_t kit_poll(ray_queue* queue, ray_completion* out, size_t max);
void kit_get_text(ray_ref* ref, char* out, size_t capacity);
int64_t kit_take_i64(ray_ref* ref); /* get and release */
int64_t kit_call_i64(ray_actor* actor, const char* method, int64_t a);
ray_ref* kit_call(ray_actor* actor, const char* method, const ray_arg* args, size_t n);
ray_actor* kit_actor(const char* klass, const ray_actor_options* options);
/* inside tasks */
int64_t kit_arg_i64(ray_task* task, size_t index);
const char* kit_arg_text(ray_task* task, size_t index, char* out, size_t capacity);
ray_code kit_return_i64(ray_task* task, uint32_t index, int64_t value);
ray_code kit_return_text(ray_task* task, const char* text);

/* ---- events: files in the session's parent directory; no test sleeps to hope ---- */
const char* kit_path(const char* name); /* in a directory of this test; good for 16 calls */
void kit_touch(const char* path);
bool kit_exists(const char* path);
void kit_await(const char* path); /* waits until the file is there */
void kit_await_gone(long pid);    /* waits until the process is gone */
bool kit_until(bool (*condition)(void*), void* user,
               int seconds); /* polls; false = never came true */
#define CHECK_UNTIL(condition, user)                                                            \
  do {                                                                                          \
    if (!kit_until(condition, user, 30)) kit_fail(__FILE__, __LINE__, "never: %s", #condition); \
  } while (0)
void kit_pause(void); /* a millisecond, inside loops that poll */

/* ---- MessagePack, as much as tests need ---- */
typedef struct mp {
  const uint8_t *at, *end;
} mp;
enum { MP_NIL, MP_BOOL, MP_INT, MP_FLOAT, MP_STR, MP_BIN, MP_ARRAY, MP_MAP, MP_EXT, MP_BAD };
typedef struct mp_item {
  int type;
  int64_t i;
  double f;
  const char* data; /* str, bin, ext */
  size_t size;      /* bytes, elements or pairs */
  int ext;
} mp_item;
mp mp_of(const void* data, size_t size);
mp_item mp_next(mp* in);                       /* an array or map: its elements follow */
void mp_skip(mp* in);                          /* a whole value */
bool mp_find(mp in, const char* key, mp* out); /* value of a key in the map at `in` */
double mp_number(mp in);
bool mp_is_text(mp in, const char* text);
/* {"name": number, ...} from pairs that end with NULL; returns a view into `buffer`. */
ray_bytes mp_map(uint8_t* buffer, size_t capacity, ...);
size_t mp_put_str(uint8_t* out, const char* text);
size_t mp_put_f64(uint8_t* out, double value);
size_t mp_put_u64(uint8_t* out, uint64_t value);
/* Array of maps: the number of rows, or those in which map[key] is `text`. */
size_t mp_rows(mp in);
size_t mp_rows_with(mp in, const char* key, const char* text);

#endif
