/* values.c -- put, get, writers, out-of-band buffers, references inside values, export and import.
 */
#define _POSIX_C_SOURCE 200809L
#include <errno.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kit.h"
#include "remote.h"

/* Sums the int64 behind every reference inside args[0]. */
static ray_code sum_inside(ray_task* task, void* user) {
  const ray_buffer* args;
  int64_t sum = 0;
  uint32_t i;
  ray_ref* ref;
  (void)user;
  CHECK_EQ(ray_task_args(task, &args), 1);
  for (i = 0; i < args[0].n_refs; i++) {
    CHECK_OK(ray_buffer_ref(&args[0], i, &ref, &err));
    sum += kit_take_i64(ref);
  }
  return kit_return_i64(task, 0, (int64_t)sum);
}

/* Makes n objects and returns a value that contains them. */
static ray_code make_inside(ray_task* task, void* user) {
  int64_t n = kit_arg_i64(task, 0), i;
  ray_value value = ray_plain("box", 3, RAY_FMT_RAW), one;
  ray_ref* refs[100];
  ray_code code;
  (void)user;
  CHECK(n <= 100);
  for (i = 0; i < n; i++) {
    one = ray_plain(&i, sizeof i, RAY_FMT_RAW);
    CHECK_OK(ray_put(rt, &one, &refs[i], &err));
  }
  value.refs = refs;
  value.n_refs = (uint32_t)n;
  code = ray_task_return(task, 0, &value, NULL);
  for (i = 0; i < n; i++) ray_ref_release(refs[i]);
  return code;
}

/* Takes args[0] away, and leaves its checksum: the buffer is readable after the task's arguments
 * are gone. */
static ray_code checksum(ray_task* task, void* user) {
  ray_buffer buffer = RAY_BUFFER_INIT;
  const uint8_t* data;
  uint64_t sum = 0, i; /* it wraps */
  (void)user;
  CHECK_OK(ray_task_take_arg(task, 0, &buffer, &err));
  data = (const uint8_t*)(buffer.n_oob ? buffer.oob[0].data : buffer.data);
  for (i = 0; i < (buffer.n_oob ? buffer.oob[0].size : buffer.size); i++) sum = sum * 31 + data[i];
  ray_buffer_release(&buffer);
  return kit_return_i64(task, 0, sum);
}

/* Keeps args[0] in a buffer that outlives the task. */
static ray_buffer kept;
static ray_code keep(ray_task* task, void* user) {
  (void)user;
  CHECK_OK(ray_task_take_arg(task, 0, &kept, &err));
  return RAY_OK;
}

/* The number that its index-th reference stands for; the last one lets it go. */
static ray_code read_kept(ray_task* task, void* user) {
  const int64_t index = kit_arg_i64(task, 0);
  ray_ref* ref;
  int64_t value;
  (void)user;
  CHECK_OK(ray_buffer_ref(&kept, (uint32_t)index, &ref, &err));
  value = kit_take_i64(ref);
  if (index + 1 == kept.n_refs) ray_buffer_release(&kept);
  return kit_return_i64(task, 0, value);
}

static ray_code keeper(ray_task* task, void* user) {
  (void)task, (void)user;
  return RAY_OK;
}

static void register_all(void) {
  CHECK_OK(ray_register_actor(ray_cstr("Keeper"), keeper, NULL, NULL, &err));
  CHECK_OK(ray_register_method(ray_cstr("Keeper"), ray_cstr("keep"), keep, NULL, &err));
  CHECK_OK(ray_register_method(ray_cstr("Keeper"), ray_cstr("read"), read_kept, NULL, &err));
  CHECK_OK(ray_register_function(ray_cstr("add"), add, NULL, &err));
  CHECK_OK(ray_register_function(ray_cstr("await_file"), await_file, NULL, &err));
  CHECK_OK(ray_register_function(ray_cstr("sum_inside"), sum_inside, NULL, &err));
  CHECK_OK(ray_register_function(ray_cstr("make_inside"), make_inside, NULL, &err));
  CHECK_OK(ray_register_function(ray_cstr("checksum"), checksum, NULL, &err));
}

static ray_ref* put_i64(int64_t number) {
  ray_value value = ray_plain(&number, sizeof number, RAY_FMT_RAW);
  ray_ref* ref;
  CHECK_OK(ray_put(rt, &value, &ref, &err));
  return ref;
}

static void put_and_get(void) {
  ray_value value = ray_plain("hello", 5, RAY_FMT_USER + 1);
  ray_buffer one = RAY_BUFFER_INIT, two = RAY_BUFFER_INIT;
  ray_ref *ref, *same;
  ray_id id, other;
  kit_init();
  CHECK_OK(ray_put(rt, &value, &ref, &err));
  same = ray_ref_retain(ref);
  CHECK(same != NULL);
  id = ray_ref_id(ref);
  other = ray_ref_id(same);
  CHECK(memcmp(&id, &other, sizeof id) == 0);
  CHECK_OK(ray_try_get(ref, &one, &err));
  CHECK_OK(ray_get(rt, &ref, 1, 0, &two, &err));
  ray_ref_release(ref);
  ray_ref_release(same);
  CHECK_EQ(one.size, 5);
  CHECK_EQ(one.format, RAY_FMT_USER + 1);
  CHECK(memcmp(one.data, "hello", 5) == 0 && memcmp(two.data, "hello", 5) == 0);
  ray_buffer_release(&one); /* after the last reference */
  CHECK(one.release == NULL);
  ray_buffer_release(&one);       /* released: nothing happens */
  memcpy(&one, &two, sizeof two); /* a buffer may be moved */
  ray_buffer_release(&one);
}

static void empty_value(void) {
  ray_value value = ray_plain(NULL, 0, RAY_FMT_RAW);
  ray_buffer buffer = RAY_BUFFER_INIT;
  ray_ref* ref;
  kit_init();
  CHECK_OK(ray_put(rt, &value, &ref, &err));
  CHECK_OK(ray_get(rt, &ref, 1, -1, &buffer, &err));
  CHECK_EQ(buffer.size, 0);
  ray_buffer_release(&buffer);
  ray_ref_release(ref);
}

static void get_many_in_order(void) {
  ray_ref* refs[5];
  ray_buffer out[6];
  int64_t number;
  int i;
  kit_init();
  for (i = 0; i < 5; i++) refs[i] = put_i64(i);
  {
    ray_ref* order[6];
    for (i = 0; i < 5; i++) order[i] = refs[4 - i];
    order[5] = refs[2]; /* duplicates are allowed */
    CHECK_OK(ray_get(rt, order, 6, -1, out, &err));
  }
  for (i = 0; i < 6; i++) {
    memcpy(&number, out[i].data, 8);
    CHECK_EQ(number, i < 5 ? 4 - i : 2);
    ray_buffer_release(&out[i]);
  }
  for (i = 0; i < 5; i++) ray_ref_release(refs[i]);
}

/* Out-of-band buffers come back whole, 64-byte aligned, from here and from a task. */
static void out_of_band(void) {
  enum { kBig = 3 << 20 };
  uint8_t* big = malloc(kBig);
  ray_bytes oob[3];
  ray_value value = ray_plain("head", 4, RAY_FMT_USER);
  ray_buffer buffer = RAY_BUFFER_INIT;
  int64_t expected = 0;
  ray_ref* ref;
  ray_arg arg;
  size_t i;
  kit_init();
  for (i = 0; i < kBig; i++) big[i] = (uint8_t)(i >> 8 ^ i);
  for (i = 0; i < kBig; i++) expected = (int64_t)((uint64_t)expected * 31 + big[i]);
  oob[0].data = big;
  oob[0].size = kBig;
  oob[1].data = NULL;
  oob[1].size = 0;
  oob[2].data = "tail";
  oob[2].size = 4;
  value.oob = oob;
  value.n_oob = 3;
  CHECK_OK(ray_put(rt, &value, &ref, &err));
  CHECK_OK(ray_get(rt, &ref, 1, -1, &buffer, &err));
  CHECK_EQ(buffer.n_oob, 3);
  CHECK_EQ(buffer.oob[0].size, kBig);
  CHECK_EQ(buffer.oob[1].size, 0);
  CHECK(memcmp(buffer.data, "head", 4) == 0);
  CHECK(memcmp(buffer.oob[0].data, big, kBig) == 0);
  CHECK(memcmp(buffer.oob[2].data, "tail", 4) == 0);
  CHECK_EQ((uintptr_t)buffer.oob[0].data % 64, 0);
  CHECK_EQ((uintptr_t)buffer.oob[2].data % 64, 0);
  arg = kit_ref(ref);
  CHECK_EQ(kit_take_i64(kit_submit("checksum", &arg, 1, NULL)), expected);
  ray_buffer_release(&buffer);
  ray_ref_release(ref);
  free(big);
}

/* What a reader gets cannot be written to: the kernel says no. */
static void values_are_read_only(void) {
  enum { kBig = 1 << 20 };
  char* big = calloc(1, kBig);
  ray_value value = ray_plain(big, kBig, RAY_FMT_RAW);
  ray_buffer buffer = RAY_BUFFER_INIT;
  ray_ref* ref;
  int status = 0;
  pid_t pid;
  kit_init();
  CHECK_OK(ray_put(rt, &value, &ref, &err));
  CHECK_OK(ray_get(rt, &ref, 1, -1, &buffer, &err));
  pid = fork();
  if (pid == 0) {
    *(volatile char*)(uintptr_t)buffer.data = 1;
    _exit(0);
  }
  CHECK(waitpid(pid, &status, 0) == pid);
  CHECK(status != 0);
  ray_buffer_release(&buffer);
  ray_ref_release(ref);
  free(big);
}

static void writer(void) {
  ray_bytes oob[1] = {{NULL, 1 << 20}};
  ray_value shape = ray_plain(NULL, 16, RAY_FMT_USER);
  ray_buffer buffer = RAY_BUFFER_INIT;
  ray_layout layout;
  ray_writer* writer;
  ray_ref *ref, *inner = NULL, *found;
  size_t i;
  kit_init();
  inner = put_i64(99);
  shape.oob = oob;
  shape.n_oob = 1;
  shape.refs = &inner;
  shape.n_refs = 1;
  CHECK_OK(ray_writer_open(rt, &shape, &writer, &layout, &err));
  CHECK_EQ((uintptr_t)layout.oob[0] % 64, 0);
  memset(layout.data, 'd', 16);
  for (i = 0; i < 1 << 20; i++) ((uint8_t*)layout.oob[0])[i] = (uint8_t)i;
  CHECK_OK(ray_writer_seal(writer, &ref, &err));
  CHECK_CODE(RAY_INVALID_ARGUMENT, ray_writer_seal(writer, &found, &err)); /* consumed */
  CHECK_EQ(ray_writer_abort(writer), RAY_INVALID_ARGUMENT);
  ray_ref_release(inner);
  CHECK_OK(ray_get(rt, &ref, 1, -1, &buffer, &err));
  CHECK_EQ(buffer.size, 16);
  CHECK_EQ(((const char*)buffer.data)[15], 'd');
  CHECK_EQ(((const uint8_t*)buffer.oob[0].data)[70000], 70000 & 255);
  CHECK_EQ(buffer.n_refs, 1);
  CHECK_OK(ray_buffer_ref(&buffer, 0, &found, &err));
  CHECK_EQ(kit_take_i64(found), 99);
  CHECK_CODE(RAY_INVALID_ARGUMENT, ray_buffer_ref(&buffer, 1, &found, &err));
  ray_buffer_release(&buffer);
  ray_ref_release(ref);
  shape.n_refs = 0;
  CHECK_OK(ray_writer_open(rt, &shape, &writer, &layout, &err));
  CHECK_OK(ray_writer_abort(writer));
  CHECK_EQ(ray_writer_abort(writer), RAY_INVALID_ARGUMENT);
}

/* Values with references inside, both ways through a task, while nobody else holds them. */
static void refs_inside_values(void) {
  ray_value value = ray_plain("list", 4, RAY_FMT_RAW);
  ray_buffer buffer = RAY_BUFFER_INIT;
  ray_ref *refs[4], *some[8], *box, *found;
  ray_arg arg;
  int64_t n = 10;
  uint32_t i;
  kit_init();
  for (i = 0; i < 3; i++) refs[i] = put_i64(i + 1);
  refs[3] = kit_submit_i64("add", 30, 4); /* a result that may not exist yet */
  value.refs = refs;
  value.n_refs = 4;
  CHECK_OK(ray_put(rt, &value, &box, &err));
  for (i = 0; i < 4; i++) ray_ref_release(refs[i]);
  arg = kit_ref(box);
  CHECK_EQ(kit_take_i64(kit_submit("sum_inside", &arg, 1, NULL)), 40);
  ray_ref_release(box);
  arg = kit_i64(&n);
  box = kit_submit("make_inside", &arg, 1, NULL);
  CHECK_OK(ray_get(rt, &box, 1, -1, &buffer, &err));
  CHECK_EQ(buffer.n_refs, 10);
  ray_ref_release(box);
  for (i = 0; i < 10; i++) {
    CHECK_OK(ray_buffer_ref(&buffer, i, &found, &err));
    CHECK_EQ(kit_take_i64(found), i);
  }
  CHECK_OK(ray_buffer_refs(&buffer, 2, 8, some, &err));
  CHECK_CODE(RAY_INVALID_ARGUMENT, ray_buffer_refs(&buffer, 3, 8, some, &err));
  CHECK_OK(ray_buffer_refs(&buffer, 10, 0, some, &err));
  for (i = 0; i < 8; i++) CHECK_EQ(kit_take_i64(some[i]), i + 2);
  CHECK_OK(ray_buffer_ref(&buffer, 7, &found, &err));
  ray_buffer_release(&buffer);
  CHECK_EQ(kit_take_i64(found), 7); /* a reference of its own outlives the buffer */
  n = 20;                           /* a box by value in an argument, straight from task to task */
  arg = kit_i64(&n);
  box = kit_submit("make_inside", &arg, 1, NULL);
  arg = kit_ref(box);
  found = kit_submit("sum_inside", &arg, 1, NULL);
  ray_ref_release(box);
  CHECK_EQ(kit_take_i64(found), 190);
}

/* A box in a box in a box; the outermost alone keeps everything. */
static void nested_boxes(void) {
  ray_ref *ref, *inner;
  ray_buffer buffer = RAY_BUFFER_INIT;
  ray_value value = ray_plain("box", 3, RAY_FMT_RAW);
  int depth;
  kit_init();
  ref = put_i64(77);
  for (depth = 0; depth < 20; depth++) {
    value.refs = &ref;
    value.n_refs = 1;
    CHECK_OK(ray_put(rt, &value, &inner, &err));
    ray_ref_release(ref);
    ref = inner;
  }
  for (depth = 0; depth < 20; depth++) {
    CHECK_OK(ray_get(rt, &ref, 1, -1, &buffer, &err));
    ray_ref_release(ref);
    CHECK_OK(ray_buffer_ref(&buffer, 0, &ref, &err));
    ray_buffer_release(&buffer);
  }
  CHECK_EQ(kit_take_i64(ref), 77);
}

static void reference_counts(void) {
  uint64_t count = 99;
  ray_ref *ref, *again;
  kit_init();
  ref = put_i64(1);
  CHECK_OK(ray_test_ref_count(ref, &count, &err));
  CHECK_EQ(count, 1);
  again = ray_ref_retain(ref);
  CHECK_OK(ray_test_ref_count(ref, &count, &err));
  CHECK_EQ(count, 2);
  ray_ref_release(again);
  CHECK_OK(ray_test_ref_count(ref, &count, &err));
  CHECK_EQ(count, 1);
  ray_ref_release(ref);
}

static uint64_t objects_in_store(void) {
  ray_buffer buffer = RAY_BUFFER_INIT;
  uint64_t rows;
  CHECK_OK(ray_cluster_query(rt, ray_cstr("store"), (ray_bytes){NULL, 0}, &buffer, &err));
  rows = mp_rows(mp_of(buffer.data, (size_t)buffer.size));
  ray_buffer_release(&buffer);
  return rows;
}

static bool store_is_empty(void* user) {
  (void)user;
  return objects_in_store() == 0;
}

/* When the last reference in the last process goes, the object goes, boxes included. */
static void freed_when_unreferenced(void) {
  enum { kBig = 1 << 20 };
  char* big = calloc(1, kBig);
  ray_value value = ray_plain(big, kBig, RAY_FMT_RAW), box = ray_plain("b", 1, RAY_FMT_RAW);
  ray_ref *ref, *outer;
  ray_arg arg;
  kit_init();
  CHECK_OK(ray_put(rt, &value, &ref, &err));
  CHECK(objects_in_store() >= 1);
  box.refs = &ref;
  box.n_refs = 1;
  CHECK_OK(ray_put(rt, &box, &outer, &err));
  arg = kit_ref(ref);
  kit_take_i64(kit_submit("checksum", &arg, 1, NULL));
  ray_ref_release(ref);
  CHECK(objects_in_store() >= 1);
  ray_ref_release(outer);
  CHECK_UNTIL(store_is_empty, NULL);
  free(big);
}

static void export_and_import(void) {
  char bytes[256];
  size_t n = 0;
  ray_bytes view;
  ray_ref *ref, *other = NULL;
  ray_id id, same;
  kit_init();
  ref = kit_submit_i64("add", 20, 3);
  CHECK_OK(ray_ref_export(ref, NULL, &n, &err));
  CHECK(n > 0 && n <= sizeof bytes);
  CHECK_OK(ray_ref_export(ref, bytes, &n, &err));
  id = ray_ref_id(ref);
  CHECK_EQ(kit_get_i64(ref), 23);
  ray_ref_release(ref); /* the export keeps it alive */
  view.data = bytes;
  view.size = n;
  CHECK_OK(ray_ref_import(rt, view, &other, &err));
  same = ray_ref_id(other);
  CHECK(memcmp(&id, &same, sizeof id) == 0);
  CHECK_EQ(kit_take_i64(other), 23);
  view.size = n - 1;
  CHECK_CODE(RAY_INVALID_ARGUMENT, ray_ref_import(rt, view, &other, &err));
  view.size = n;
  bytes[0] ^= 0x55;
  CHECK_CODE(RAY_INVALID_ARGUMENT, ray_ref_import(rt, view, &other, &err));
}

/* A store of 64 MB survives a workload of 1 GB: what is in use is spilled and comes back whole. */
static void more_than_the_store(void) {
  enum { kBig = 4 << 20, kKept = 40, kRounds = 216 };
  static ray_ref* kept[kKept];
  uint8_t* big = calloc(1, kBig);
  ray_value value = ray_plain(big, kBig, RAY_FMT_RAW);
  ray_buffer buffer = RAY_BUFFER_INIT;
  ray_ref* ref;
  int i;
  kit_init();
  for (i = 0; i < kKept; i++) { /* 160 MB that stay referenced */
    memset(big, i, kBig);
    CHECK_OK(ray_put(rt, &value, &kept[i], &err));
  }
  for (i = 0; i < kRounds; i++) { /* 864 MB that come and go */
    memset(big, 200 + i % 50, kBig);
    CHECK_OK(ray_put(rt, &value, &ref, &err));
    CHECK_OK(ray_get(rt, &ref, 1, -1, &buffer, &err));
    CHECK_EQ(((const uint8_t*)buffer.data)[i * 1000], 200 + i % 50);
    ray_buffer_release(&buffer);
    ray_ref_release(ref);
  }
  for (i = 0; i < kKept; i++) {
    CHECK_OK(ray_get(rt, &kept[i], 1, -1, &buffer, &err));
    CHECK_EQ(((const uint8_t*)buffer.data)[0], i);
    CHECK_EQ(((const uint8_t*)buffer.data)[kBig - 1], i);
    ray_buffer_release(&buffer);
    ray_ref_release(kept[i]);
  }
  free(big);
}

static bool stop_third(void* user) {
  return ++*(int*)user == 3;
}

static double store_usage(const char* name) {
  ray_buffer buffer = RAY_BUFFER_INIT;
  double n = -1;
  mp at;
  CHECK_OK(ray_cluster_query(rt, ray_cstr("store_usage"), (ray_bytes){NULL, 0}, &buffer, &err));
  if (mp_find(mp_of(buffer.data, (size_t)buffer.size), name, &at)) n = mp_number(at);
  ray_buffer_release(&buffer);
  return n;
}

/* As a binding may do that has something to let go of. */
static bool sees_a_full_store(void* user) {
  CHECK_EQ(store_usage("capacity"), 32u << 20);
  CHECK(store_usage("used") > (32u << 20) / 2 && store_usage("used") <= (32u << 20));
  return store_usage("waiting") == 1 && ++*(int*)user == 1;
}

/* With nothing left to spill to, a put says that the store is full, and what holds the memory. */
static void store_full(void) {
  enum { kBig = 4 << 20 };
  static ray_ref* kept[64];
  static ray_buffer pins[64];
  uint8_t* big = calloc(1, kBig);
  ray_value value = ray_plain(big, kBig, RAY_FMT_RAW);
  ray_runtime_options options = kit_options();
  ray_code code = RAY_OK;
  int n = 0, asked = 0;
  options.store_bytes = 32u << 20;
  options.spill_bytes = 8u << 20;
  CHECK_OK(ray_init(&options, &rt, &err));
  while (n < 64) { /* everything pinned: nothing can be spilled */
    kit_clear();
    code = ray_put(rt, &value, &kept[n], &err);
    if (code != RAY_OK) break;
    CHECK_OK(ray_get(rt, &kept[n], 1, -1, &pins[n], &err));
    n++;
  }
  CHECK_CODE(RAY_STORE_FULL, code != RAY_OK ? ray_put(rt, &value, &kept[n], &err) : RAY_OK);
  CHECK(n >= 4 && n <= 8);
  CHECK_OK(ray_on_wait(rt, stop_third, &asked, &err));
  CHECK_CODE(RAY_CANCELLED, ray_put(rt, &value, &kept[n], &err));
  CHECK_EQ(asked, 3);
  asked = 0;
  CHECK_OK(ray_on_wait(rt, sees_a_full_store, &asked, &err));
  CHECK_CODE(RAY_CANCELLED, ray_put(rt, &value, &kept[n], &err));
  CHECK_OK(ray_on_wait(rt, NULL, NULL, &err));
  while (n > 0) {
    ray_buffer_release(&pins[--n]);
    ray_ref_release(kept[n]);
  }
  CHECK_OK(ray_put(rt, &value, &kept[0], &err)); /* there is room again */
  ray_ref_release(kept[0]);
  free(big);
}

/* Pins so much of the store that not even a small object finds room. */
typedef struct fill {
  ray_ref* kept[200];
  ray_buffer pins[200];
  int n, asked;
} fill;

static void fill_store(fill* f) {
  const size_t most = 4u << 20;
  uint8_t* big = calloc(1, most);
  ray_runtime_options options = kit_options();
  size_t size;
  options.store_bytes = 32u << 20;
  options.spill_bytes = 1;
  CHECK_OK(ray_init(&options, &rt, &err));
  CHECK_OK(ray_on_wait(rt, stop_third, &f->asked, &err));
  for (size = most; size >= 9000; size /= 2) {
    const ray_value value = ray_plain(big, size, RAY_FMT_RAW);
    f->asked = 0;
    while (f->n < 200 && ray_put(rt, &value, &f->kept[f->n], NULL) == RAY_OK) {
      CHECK_OK(ray_get(rt, &f->kept[f->n], 1, -1, &f->pins[f->n], &err));
      f->n++;
    }
  }
  CHECK(f->n < 200);
  free(big);
}

static void empty_store(fill* f) {
  while (f->n > 0) {
    ray_buffer_release(&f->pins[--f->n]);
    ray_ref_release(f->kept[f->n]);
  }
}

/* A submit whose references have no room to be shared says so, and the next one that finds room is as if that had not
 * been. */
static void no_room_to_share(void) {
  static fill f;
  ray_function* sum;
  ray_arg arg = RAY_ARG_INIT;
  ray_ref *number, *result;
  fill_store(&f);
  number = put_i64(7);
  CHECK_OK(ray_function_get(rt, ray_cstr("sum_inside"), &sum, &err));
  arg.value = ray_plain("x", 1, RAY_FMT_RAW);
  arg.value.refs = &number;
  arg.value.n_refs = 1;
  f.asked = 0;
  CHECK_CODE(RAY_CANCELLED, ray_submit(rt, sum, &arg, 1, NULL, &result, &err));
  CHECK_MESSAGE("cannot be shared");
  CHECK_EQ(f.asked, 3);
  empty_store(&f);
  CHECK_EQ(kit_take_i64(kit_submit("sum_inside", &arg, 1, NULL)), 7);
  ray_ref_release(number);
  ray_function_release(sum);
}

static void count_call(const ray_completion* completion, void* user) {
  ++*(volatile int*)user;
  ray_ref_release(completion->ref);
  ray_error_release(completion->error);
}

static bool was_called(void* user) {
  return *(volatile int*)user == 1;
}

/* Results that others are to have, and that find no room, do not keep this process from what else there is to do. */
static void no_room_for_results(void) {
  enum { kMany = 16 };
  static fill f;
  static volatile int called;
  ray_ref *results[kMany], *sums[kMany], *last;
  ray_notify notify = RAY_NOTIFY_INIT;
  int i;
  fill_store(&f);
  for (i = 0; i < kMany; i++) {
    ray_arg arg = RAY_ARG_INIT;
    results[i] = waiting_for("go");
    arg.value = ray_plain("x", 1, RAY_FMT_RAW);
    arg.value.refs = &results[i];
    arg.value.n_refs = 1;
    sums[i] = kit_submit("sum_inside", &arg, 1, NULL);
  }
  last = waiting_for("go");
  notify.fn = count_call;
  notify.user = (void*)&called;
  kit_touch(kit_path("go"));
  CHECK_OK(ray_on_ready(last, &notify, NULL, &err));
  CHECK_UNTIL(was_called, (void*)&called);
  empty_store(&f);
  for (i = 0; i < kMany; i++) {
    CHECK_EQ(kit_take_i64(sums[i]), 7);
    ray_ref_release(results[i]);
  }
  ray_ref_release(last);
}

/* What a result is to be copied to for others may be pinned by the very get that brings it: it fails nobody, and waits. */
static void no_room_but_what_the_getter_pins(void) {
  static fill f;
  ray_arg arg = RAY_ARG_INIT;
  ray_ref *result, *sum;
  fill_store(&f);
  CHECK_OK(ray_on_wait(rt, NULL, NULL, &err));
  result = waiting_for("go");
  arg.value = ray_plain("x", 1, RAY_FMT_RAW);
  arg.value.refs = &result;
  arg.value.n_refs = 1;
  sum = kit_submit("sum_inside", &arg, 1, NULL);
  kit_touch(kit_path("go"));
  CHECK_EQ(kit_get_i64(result), 7);
  empty_store(&f);
  CHECK_EQ(kit_take_i64(sum), 7);
  ray_ref_release(result);
}

/* An entry that stood for another object before says nothing of that one. */
static void an_entry_that_is_used_again(void) {
  const ray_value pickle = ray_plain("p", 1, RAY_FMT_PICKLE5);
  ray_buffer box = RAY_BUFFER_INIT;
  int64_t one = 1;
  ray_arg arg = kit_i64(&one), args[2];
  ray_ref *boxed, *ref, *zero;
  kit_init();
  boxed = kit_submit("make_inside", &arg, 1, NULL);
  CHECK_OK(ray_get(rt, &boxed, 1, -1, &box, &err));
  CHECK_OK(ray_put(rt, &pickle, &ref, &err));
  ray_ref_release(ref);
  CHECK_OK(ray_buffer_ref(&box, 0, &zero, &err));
  args[0] = args[1] = kit_ref(zero);
  CHECK_EQ(kit_take_i64(kit_submit("add", args, 2, NULL)), 0);
  ray_ref_release(zero);
  ray_buffer_release(&box);
  ray_ref_release(boxed);
}

static bool few_in_store(void* n) { return objects_in_store() <= *(size_t*)n; }

/* Of an argument that is kept the references stay alive, whether its value lies in the task's record or in the store, and
 * no longer. */
static void references_of_an_argument_that_is_kept(void) {
  static char large[1 << 20];
  const int64_t indices[2] = {0, 1};
  size_t kept_ones = 3;
  ray_value value;
  ray_actor* actor;
  ray_ref *refs[2], *boxed, *done, *other;
  ray_buffer buffer;
  ray_arg arg;
  int in_store, i;
  kit_init();
  actor = kit_actor("Keeper", NULL);
  for (in_store = 0; in_store < 2; in_store++) {
    for (i = 0; i < 2; i++) refs[i] = put_i64(40 + i);
    value = ray_plain(large, in_store ? sizeof large : 1, RAY_FMT_RAW);
    value.refs = refs;
    value.n_refs = 2;
    CHECK_OK(ray_put(rt, &value, &boxed, &err));
    arg.ref = NULL;
    arg.value = value;
    if (in_store) arg = kit_ref(boxed);
    done = kit_call(actor, "keep", &arg, 1);
    CHECK_OK(ray_get(rt, &done, 1, -1, &buffer, &err));
    ray_buffer_release(&buffer);
    for (i = 0; i < 2; i++) ray_ref_release(refs[i]);
    ray_ref_release(boxed);
    ray_ref_release(done);
    value = ray_plain(large, sizeof large, RAY_FMT_RAW); /* when this is freed, so is what was released before */
    CHECK_OK(ray_put(rt, &value, &other, &err));
    ray_ref_release(other);
    CHECK_UNTIL(few_in_store, &kept_ones);
    for (i = 0; i < 2; i++) CHECK_EQ(kit_call_i64(actor, "read", indices[i]), 40 + i);
    CHECK_UNTIL(store_is_empty, NULL);
  }
  ray_actor_release(actor);
}

static const kit_test tests[] = {KIT_TEST(put_and_get),
                                 KIT_TEST(no_room_to_share),
                                 KIT_TEST(no_room_for_results),
                                 KIT_TEST(no_room_but_what_the_getter_pins),
                                 KIT_TEST(an_entry_that_is_used_again),
                                 KIT_TEST(empty_value),
                                 KIT_TEST(get_many_in_order),
                                 KIT_TEST(out_of_band),
                                 KIT_TEST(values_are_read_only),
                                 KIT_TEST(writer),
                                 KIT_TEST(refs_inside_values),
                                 KIT_TEST(nested_boxes),
                                 KIT_TEST(reference_counts),
                                 KIT_TEST(freed_when_unreferenced),
                                 KIT_TEST(export_and_import),
                                 KIT_TEST(more_than_the_store),
                                 KIT_TEST(store_full),
                                 KIT_TEST(references_of_an_argument_that_is_kept)};
KIT_MAIN(tests, register_all)
