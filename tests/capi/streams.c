/* streams.c -- generator tasks: order, end, errors, the window, cancellation, notifications. */
#include <pthread.h>

#include "kit.h"

/* Yields 0..n-1; leaves the number of items made so far in the file args[1] by its size. */
static ray_code count_up(ray_task* task, void* user) {
  int64_t n = kit_arg_i64(task, 0), i;
  ray_value value;
  ray_code code;
  char path[512];
  FILE* file = fopen(kit_arg_text(task, 1, path, sizeof path), "a");
  (void)user;
  CHECK(file != NULL);
  for (i = 0; i < n; i++) {
    value = ray_plain(&i, sizeof i, RAY_FMT_RAW);
    code = ray_task_yield(task, &value, -1, NULL);
    if (code != RAY_OK) {
      fclose(file);
      return code; /* nobody wants more */
    }
    fputc('.', file);
    fflush(file);
  }
  fclose(file);
  return RAY_OK;
}

static ray_code fail_after(ray_task* task, void* user) {
  int64_t n = kit_arg_i64(task, 0), i;
  ray_value value;
  (void)user;
  for (i = 0; i < n; i++) {
    value = ray_plain(&i, sizeof i, RAY_FMT_RAW);
    ray_task_yield(task, &value, -1, NULL);
  }
  ray_task_fail(task, ray_cstr("ran dry"), NULL);
  return RAY_TASK_FAILED;
}

static ray_code large_items(ray_task* task, void* user) {
  int64_t n = kit_arg_i64(task, 0), i;
  size_t size = 1 << 20;
  uint8_t* data = malloc(size);
  ray_value value = ray_plain(data, size, RAY_FMT_RAW);
  ray_code code = RAY_OK;
  (void)user;
  for (i = 0; i < n && code == RAY_OK; i++) {
    memset(data, (int)i, size);
    code = ray_task_yield(task, &value, -1, NULL);
  }
  free(data);
  return code;
}

/* Yields without waiting; returns how many items fitted in the window by failing with the number as
 * message. */
static ray_code try_to_overrun(ray_task* task, void* user) {
  ray_value value = ray_plain("x", 1, RAY_FMT_RAW);
  char text[64], path[512];
  int fitted = 0;
  ray_code code;
  (void)user;
  while ((code = ray_task_yield(task, &value, 0, NULL)) == RAY_OK) fitted++;
  snprintf(text, sizeof text, "fitted %d, then %s", fitted, ray_code_name(code));
  ray_task_fail(task, ray_cstr(text), NULL);
  kit_touch(kit_arg_text(task, 1, path, sizeof path));
  return RAY_TASK_FAILED;
}

/* Makes an item only when there is room for it; leaves the number in the file args[1]. */
static ray_code patient(ray_task* task, void* user) {
  int64_t n = kit_arg_i64(task, 0), i;
  char path[512];
  ray_code code;
  (void)user;
  kit_arg_text(task, 1, path, sizeof path);
  for (i = 0; i < n; i++) {
    ray_value value = ray_plain(&i, sizeof i, RAY_FMT_RAW);
    FILE* file;
    code = ray_task_await_room(task, -1, &err);
    if (code != RAY_OK) return code;
    file = fopen(path, "a");
    CHECK(file != NULL);
    fputc('.', file);
    fclose(file);
    CHECK_OK(ray_task_yield(task, &value, 0, &err));
  }
  return RAY_OK;
}

/* Yields 0..2 once the file args[0] is there, and ends when the file args[1] is. */
static ray_code three_when_told(ray_task* task, void* user) {
  char path[512];
  int64_t i;
  (void)user;
  kit_await(kit_arg_text(task, 0, path, sizeof path));
  for (i = 0; i < 3; i++) {
    ray_value value = ray_plain(&i, sizeof i, RAY_FMT_RAW);
    if (ray_task_yield(task, &value, -1, NULL) != RAY_OK) return RAY_OK;
  }
  kit_await(kit_arg_text(task, 1, path, sizeof path));
  return RAY_OK;
}

static ray_code tape_create(ray_task* task, void* user) {
  (void)task, (void)user;
  return RAY_OK;
}

/* Waits for the file args[1] before its only item, unless it is cancelled. */
static ray_code item_after(ray_task* task, void* user) {
  ray_value value = ray_plain("x", 1, RAY_FMT_RAW);
  char path[512];
  (void)user;
  kit_arg_text(task, 1, path, sizeof path);
  while (!kit_exists(path)) {
    if (ray_task_is_cancelled(task)) return RAY_CANCELLED;
    kit_pause();
  }
  return ray_task_yield(task, &value, -1, NULL);
}

/* Touches args[0] when it begins, and args[1] when it has been cancelled. */
static ray_code until_cancelled(ray_task* task, void* user) {
  char path[512];
  (void)user;
  kit_touch(kit_arg_text(task, 0, path, sizeof path));
  while (!ray_task_is_cancelled(task)) kit_pause();
  kit_touch(kit_arg_text(task, 1, path, sizeof path));
  return RAY_CANCELLED;
}

static void register_all(void) {
  CHECK_OK(ray_register_function(ray_cstr("until_cancelled"), until_cancelled, NULL, &err));
  CHECK_OK(ray_register_function(ray_cstr("count_up"), count_up, NULL, &err));
  CHECK_OK(ray_register_function(ray_cstr("fail_after"), fail_after, NULL, &err));
  CHECK_OK(ray_register_function(ray_cstr("large_items"), large_items, NULL, &err));
  CHECK_OK(ray_register_function(ray_cstr("try_to_overrun"), try_to_overrun, NULL, &err));
  CHECK_OK(ray_register_function(ray_cstr("patient"), patient, NULL, &err));
  CHECK_OK(ray_register_function(ray_cstr("item_after"), item_after, NULL, &err));
  CHECK_OK(ray_register_function(ray_cstr("three_when_told"), three_when_told, NULL, &err));
  CHECK_OK(ray_register_actor(ray_cstr("Tape"), tape_create, NULL, NULL, &err));
  CHECK_OK(ray_register_method(ray_cstr("Tape"), ray_cstr("play"), count_up, NULL, &err));
}

static ray_stream* stream_of(const char* function, int64_t n, uint32_t window) {
  ray_task_options options = RAY_TASK_OPTIONS_INIT;
  ray_stream* stream = NULL;
  ray_function* fn;
  ray_arg args[2];
  args[0] = kit_i64(&n);
  args[1] = kit_text(kit_path("made"));
  options.stream_window = window;
  CHECK_OK(ray_function_get(rt, ray_cstr(function), &fn, &err));
  CHECK_OK(ray_submit_stream(rt, fn, args, 2, &options, &stream, &err));
  ray_function_release(fn);
  return stream;
}

static long made(void) {
  FILE* file = fopen(kit_path("made"), "r");
  long n;
  if (!file) return 0;
  fseek(file, 0, SEEK_END);
  n = ftell(file);
  fclose(file);
  return n;
}

static bool made_as_many(void* n) { return made() >= *(long*)n; }

static void expect_numbers(ray_stream* stream, int64_t from, int64_t to) {
  ray_ref* item;
  for (; from < to; from++) {
    CHECK_OK(ray_stream_next(stream, -1, &item, &err));
    CHECK_EQ(kit_take_i64(item), from);
  }
}

static void in_order_to_the_end(void) {
  ray_stream* stream;
  ray_ref* item = NULL;
  ray_id id, zero;
  kit_init();
  stream = stream_of("count_up", 1000, 0);
  id = ray_stream_id(stream);
  memset(&zero, 0, sizeof zero);
  CHECK(memcmp(&id, &zero, sizeof id) != 0);
  expect_numbers(stream, 0, 1000);
  CHECK_CODE(RAY_STREAM_END, ray_stream_next(stream, -1, &item, &err));
  CHECK_CODE(RAY_STREAM_END, ray_stream_next(stream, 0, &item, &err)); /* and stays so */
  CHECK(item == NULL);
  ray_stream_release(stream);
}

static void empty_stream(void) {
  ray_stream* stream;
  ray_ref* item = NULL;
  kit_init();
  stream = stream_of("count_up", 0, 0);
  CHECK_CODE(RAY_STREAM_END, ray_stream_next(stream, -1, &item, &err));
  ray_stream_release(stream);
}

/* The producer stays at most a window ahead of the consumer. */
static void back_pressure(void) {
  ray_stream* stream;
  ray_ref* item;
  long ahead = 4;
  kit_init();
  stream = stream_of("count_up", 100, 4);
  CHECK_UNTIL(made_as_many, &ahead);
  CHECK_OK(ray_stream_next(stream, -1, &item, &err));
  CHECK_EQ(kit_take_i64(item), 0);
  ahead = 5;
  CHECK_UNTIL(made_as_many, &ahead);
  CHECK(made() <= 6); /* one consumed, four in the window, one being made */
  expect_numbers(stream, 1, 100);
  CHECK_CODE(RAY_STREAM_END, ray_stream_next(stream, -1, &item, &err));
  ray_stream_release(stream);
}

static void full_window_without_waiting(void) {
  ray_stream* stream;
  ray_ref* item;
  int i;
  kit_init();
  stream = stream_of("try_to_overrun", 0, 8);
  kit_await(kit_path("made")); /* nothing is consumed until it has met the end of the window */
  for (i = 0; i < 8; i++) {
    CHECK_OK(ray_stream_next(stream, -1, &item, &err));
    ray_ref_release(item);
  }
  CHECK_OK(ray_stream_next(stream, -1, &item, &err));
  CHECK_CODE(RAY_TASK_FAILED, kit_get_code(item));
  CHECK_MESSAGE("fitted 8, then RAY_TIMED_OUT");
  ray_ref_release(item);
  ray_stream_release(stream);
}

static void error_is_the_last_item(void) {
  ray_stream* stream;
  ray_ref* item;
  kit_init();
  stream = stream_of("fail_after", 3, 0);
  expect_numbers(stream, 0, 3);
  CHECK_OK(ray_stream_next(stream, -1, &item, &err));
  CHECK_CODE(RAY_TASK_FAILED, kit_get_code(item));
  CHECK_MESSAGE("ran dry");
  ray_ref_release(item);
  CHECK_CODE(RAY_STREAM_END, ray_stream_next(stream, -1, &item, &err));
  ray_stream_release(stream);
}

static void large(void) {
  ray_stream* stream;
  ray_buffer buffer = RAY_BUFFER_INIT;
  ray_ref* item;
  int i;
  kit_init();
  stream = stream_of("large_items", 100, 4);
  for (i = 0; i < 100; i++) {
    CHECK_OK(ray_stream_next(stream, -1, &item, &err));
    CHECK_OK(ray_get(rt, &item, 1, -1, &buffer, &err));
    CHECK_EQ(buffer.size, 1 << 20);
    CHECK_EQ(((const uint8_t*)buffer.data)[12345], i);
    ray_buffer_release(&buffer);
    ray_ref_release(item);
  }
  ray_stream_release(stream);
}

static void items_outlive_the_stream(void) {
  ray_stream *stream, *same;
  ray_ref *item, *later;
  kit_init();
  stream = stream_of("count_up", 1000000, 2);
  same = ray_stream_retain(stream);
  CHECK(same != NULL);
  CHECK_OK(ray_stream_next(stream, -1, &item, &err));
  ray_stream_release(stream);
  CHECK_OK(ray_stream_next(same, -1, &later, &err));
  ray_stream_release(same); /* the last: cancels the producer */
  CHECK_EQ(kit_take_i64(item), 0);
  CHECK_EQ(kit_take_i64(later), 1);
  stream = stream_of("count_up", 3, 0); /* its worker is free again */
  expect_numbers(stream, 0, 3);
  ray_stream_release(stream);
}

static void cancel(void) {
  ray_stream* stream;
  ray_ref* item;
  ray_code code;
  kit_init();
  stream = stream_of("count_up", 1000000, 2);
  expect_numbers(stream, 0, 2);
  CHECK_OK(ray_stream_cancel(stream, 0, &err));
  for (;;) { /* what was made before is still delivered, then the cancellation, then the end */
    kit_clear();
    code = ray_stream_next(stream, -1, &item, &err);
    if (code != RAY_OK) break;
    code = kit_get_code(item);
    ray_ref_release(item);
    if (code != RAY_OK) break;
  }
  CHECK(code == RAY_CANCELLED || code == RAY_STREAM_END);
  CHECK_CODE(RAY_STREAM_END, ray_stream_next(stream, -1, &item, &err));
  ray_stream_release(stream);
}

static void timeout(void) {
  ray_stream* stream;
  ray_ref* item = NULL;
  kit_init();
  stream = stream_of("count_up", 1, 0);
  expect_numbers(stream, 0, 1);
  CHECK_CODE(RAY_STREAM_END, ray_stream_next(stream, -1, &item, &err));
  ray_stream_release(stream);
  stream = stream_of("no_such_generator", 1, 0);
  CHECK_OK(ray_stream_next(stream, -1, &item, &err));
  CHECK(kit_get_code(item) != RAY_OK);
  CHECK_MESSAGE("no_such_generator");
  ray_ref_release(item);
  ray_stream_release(stream);
}

static void notifications(void) {
  ray_ref* item;
  ray_notify notify = RAY_NOTIFY_INIT;
  ray_completion got;
  ray_stream* stream;
  ray_queue* queue;
  int64_t i;
  kit_init();
  CHECK_OK(ray_queue_create(rt, &queue, &err));
  stream = stream_of("count_up", 50, 4);
  notify.queue = queue;
  for (i = 0;; i++) {
    notify.tag = (uint64_t)(1000 + i);
    CHECK_OK(ray_stream_on_next(stream, &notify, NULL, &err));
    CHECK_EQ(kit_poll(queue, &got, 1), 1);
    CHECK_EQ(got.tag, 1000 + i);
    CHECK(got.ref == NULL && got.error == NULL);
    if (got.kind == RAY_COMPLETION_STREAM_END) break;
    CHECK_EQ(got.kind, RAY_COMPLETION_STREAM_ITEM);
    CHECK_EQ(got.code, RAY_OK);
    CHECK_OK(ray_stream_next(stream, 0, &item, &err));
    CHECK_EQ(kit_take_i64(item), i);
  }
  CHECK_EQ(got.code, RAY_STREAM_END);
  CHECK_EQ(i, 50);
  ray_stream_release(stream);
  ray_queue_release(queue);
}

/* Several wait for one stream, and one has given up: items stay in order, and all of them arrive. */
static void notifications_take_nothing(void) {
  ray_notify notify = RAY_NOTIFY_INIT;
  ray_function* function = NULL;
  ray_stream* stream = NULL;
  ray_completion got[4];
  ray_queue* queue;
  uint64_t token, given_up;
  ray_arg args[2];
  ray_ref* item;
  uint8_t ready = 0;
  size_t n = 0;
  int64_t i;
  kit_init();
  args[0] = kit_text(kit_path("go"));
  args[1] = kit_text(kit_path("end"));
  CHECK_OK(ray_queue_create(rt, &queue, &err));
  CHECK_OK(ray_function_get(rt, ray_cstr("three_when_told"), &function, &err));
  CHECK_OK(ray_submit_stream(rt, function, args, 2, NULL, &stream, &err));
  ray_function_release(function);
  notify.queue = queue;
  for (i = 0; i < 3; i++) {
    notify.tag = (uint64_t)i;
    CHECK_OK(ray_stream_on_next(stream, &notify, i == 1 ? &given_up : &token, &err));
  }
  CHECK_OK(ray_cancel_notify(rt, given_up, &err));
  CHECK_CODE(RAY_NOT_FOUND, ray_cancel_notify(rt, given_up, &err));
  kit_touch(kit_path("go"));
  while (n < 2) n += kit_poll(queue, got + n, 4 - n);
  CHECK_EQ(got[0].tag + got[1].tag, 0 + 2);
  for (i = 0; i < 2; i++) CHECK_EQ(got[i].kind, RAY_COMPLETION_STREAM_ITEM);
  for (i = 0; i < 3; i++) {
    CHECK_OK(ray_wait_any(rt, NULL, 0, &stream, 1, 1, -1, NULL, &ready, &err));
    CHECK_EQ(ready, 1);
    CHECK_OK(ray_stream_next(stream, 0, &item, &err));
    CHECK_EQ(kit_take_i64(item), i);
  }
  CHECK_CODE(RAY_TIMED_OUT, ray_stream_next(stream, 0, &item, &err));
  CHECK_OK(ray_stream_on_next(stream, &notify, NULL, &err));
  kit_touch(kit_path("end"));
  CHECK_EQ(kit_poll(queue, got, 1), 1);
  CHECK_EQ(got[0].kind, RAY_COMPLETION_STREAM_END);
  ray_stream_release(stream);
  ray_queue_release(queue);
}

/* Threads that take from one stream: each item goes to one of them, and nobody is told of an end before it. */
enum { kConsumers = 4, kItems = 2000 };
static ray_stream* g_shared;
static unsigned char g_taken[kItems];
static void* consume(void* user) {
  int64_t value, before = -1;
  (void)user;
  for (;;) {
    ray_buffer buffer = RAY_BUFFER_INIT;
    ray_ref* item = NULL;
    ray_code code = ray_stream_next(g_shared, -1, &item, NULL);
    if (code == RAY_STREAM_END) return NULL;
    CHECK_EQ(code, RAY_OK);
    CHECK_EQ(ray_try_get(item, &buffer, NULL), RAY_OK);
    memcpy(&value, buffer.data, sizeof value);
    ray_buffer_release(&buffer);
    ray_ref_release(item);
    CHECK(value > before && value < kItems);
    before = value;
    g_taken[value]++; /* the check below would see two */
  }
}
static void several_consumers(void) {
  pthread_t threads[kConsumers];
  int i;
  kit_init();
  g_shared = stream_of("count_up", kItems, 8);
  for (i = 0; i < kConsumers; i++) CHECK(pthread_create(&threads[i], NULL, consume, NULL) == 0);
  for (i = 0; i < kConsumers; i++) CHECK(pthread_join(threads[i], NULL) == 0);
  for (i = 0; i < kItems; i++) CHECK_EQ(g_taken[i], 1);
  ray_stream_release(g_shared);
}

/* An item that there is no memory for is not left out: the stream ends with that, also when there is none to say so. */
static void no_memory_for_an_item(void) {
  ray_stream* stream;
  ray_ref* item;
  kit_init();
  stream = stream_of("count_up", 5, 2);
  CHECK_OK(ray_test_fault(ray_cstr("client.item"), ray_cstr("fail@2"), &err));
  CHECK_OK(ray_stream_next(stream, -1, &item, &err));
  CHECK_EQ(kit_take_i64(item), 0);
  CHECK_OK(ray_stream_next(stream, -1, &item, &err));
  CHECK_CODE(RAY_OUT_OF_MEMORY, kit_get_code(item));
  CHECK_MESSAGE("no memory for an item");
  ray_ref_release(item);
  CHECK_CODE(RAY_STREAM_END, ray_stream_next(stream, -1, &item, &err));
  ray_stream_release(stream);
  CHECK_OK(ray_test_fault(ray_cstr("client.item"), ray_cstr("fail@0"), &err));
  stream = stream_of("count_up", 5, 2);
  CHECK_CODE(RAY_OUT_OF_MEMORY, ray_stream_next(stream, -1, &item, &err));
  ray_stream_release(stream);
}

static void stream_of_an_actor(void) {
  ray_task_options options = RAY_TASK_OPTIONS_INIT;
  ray_stream* stream = NULL;
  ray_actor* actor;
  ray_arg args[2];
  ray_ref* item;
  int64_t n = 20;
  kit_init();
  actor = kit_actor("Tape", NULL);
  args[0] = kit_i64(&n);
  args[1] = kit_text(kit_path("made"));
  options.stream_window = 3;
  CHECK_OK(ray_actor_call_stream(actor, ray_cstr("play"), args, 2, &options, &stream, &err));
  expect_numbers(stream, 0, 20);
  CHECK_CODE(RAY_STREAM_END, ray_stream_next(stream, -1, &item, &err));
  ray_stream_release(stream);
  ray_actor_release(actor);
}

static void several_streams(void) {
  ray_stream* streams[3];
  ray_ref* item;
  int64_t i;
  int s;
  kit_init();
  for (s = 0; s < 3; s++) streams[s] = stream_of("count_up", 100, 2);
  for (i = 0; i < 100; i++) { /* three producers on two processors, two of them at a time */
    for (s = 0; s < 2; s++) {
      CHECK_OK(ray_stream_next(streams[s], -1, &item, &err));
      CHECK_EQ(kit_take_i64(item), i);
    }
  }
  ray_stream_release(streams[0]);
  ray_stream_release(streams[1]);
  expect_numbers(streams[2], 0, 100);
  ray_stream_release(streams[2]);
}

/* With ray_task_await_room no more items are made than the window holds. */
static void room(void) {
  ray_stream* stream;
  ray_ref* item;
  long two = 2;
  int i;
  kit_init();
  stream = stream_of("patient", 5, 2);
  CHECK_UNTIL(made_as_many, &two);
  for (i = 0; i < 20; i++) {
    CHECK_EQ(made(), 2);
    kit_pause();
  }
  expect_numbers(stream, 0, 5);
  CHECK_EQ(made(), 5);
  CHECK_CODE(RAY_STREAM_END, ray_stream_next(stream, -1, &item, &err));
  ray_stream_release(stream);
}

/* References and streams waited for together; nothing is taken from a stream. */
static void wait_for_any(void) {
  ray_stream *streams[2], *twice[2];
  uint8_t ready_ref[1], ready_streams[2];
  ray_value value = ray_plain("x", 1, RAY_FMT_RAW);
  ray_ref *ref, *item;
  kit_init();
  CHECK_OK(ray_put(rt, &value, &ref, &err));
  streams[0] = stream_of("count_up", 1, 0);
  streams[1] = stream_of("count_up", 0, 0); /* its end counts too */
  CHECK_OK(ray_wait_any(rt, &ref, 1, streams, 2, 3, -1, ready_ref, ready_streams, &err));
  CHECK(ready_ref[0] && ready_streams[0] && ready_streams[1]);
  expect_numbers(streams[0], 0, 1);
  CHECK_OK(ray_wait_any(rt, NULL, 0, streams, 1, 1, -1, NULL, ready_streams, &err));
  CHECK_CODE(RAY_STREAM_END, ray_stream_next(streams[0], 0, &item, &err));
  twice[0] = twice[1] = streams[0];
  CHECK_CODE(RAY_INVALID_ARGUMENT,
             ray_wait_any(rt, NULL, 0, twice, 2, 1, 0, NULL, ready_streams, &err));
  CHECK_CODE(RAY_INVALID_ARGUMENT,
             ray_wait_any(rt, NULL, 0, streams, 1, 2, 0, NULL, ready_streams, &err));
  ray_stream_release(streams[0]);
  ray_stream_release(streams[1]);
  ray_ref_release(ref);
}

/* The end of a generator as a reference: nil, or what the generator failed with. */
static void completed(void) {
  ray_buffer buffer = RAY_BUFFER_INIT;
  ray_stream *good, *bad;
  ray_ref *end, *again, *item;
  ray_id a, b;
  kit_init();
  good = stream_of("count_up", 3, 0);
  CHECK_OK(ray_stream_completed(good, &end, &err));
  CHECK_OK(ray_get(rt, &end, 1, -1, &buffer, &err));
  ray_buffer_release(&buffer);
  CHECK_OK(ray_stream_completed(good, &again, &err));
  a = ray_ref_id(end);
  b = ray_ref_id(again);
  CHECK(memcmp(&a, &b, sizeof a) == 0);
  ray_ref_release(again);
  ray_ref_release(end);
  expect_numbers(good, 0, 3); /* the items are still there */
  ray_stream_release(good);
  bad = stream_of("fail_after", 1, 0);
  expect_numbers(bad, 0, 1);
  CHECK_OK(ray_stream_next(bad, -1, &item, &err));
  ray_ref_release(item);
  CHECK_OK(ray_stream_completed(bad, &end, &err)); /* asked for after the end */
  ray_stream_release(bad);
  CHECK_CODE(RAY_TASK_FAILED, kit_get_code(end));
  CHECK_MESSAGE("ran dry");
  ray_ref_release(end);
}

/* Who has the reference of its end wants a generator to get there; when that one goes too, nobody does. */
static void nobody_waits_for_the_end(void) {
  const char *runs = kit_path("runs"), *over = kit_path("over");
  ray_arg args[2];
  ray_function* function;
  ray_stream* stream;
  ray_ref* end;
  int i;
  kit_init();
  args[0] = kit_text(runs);
  args[1] = kit_text(over);
  CHECK_OK(ray_function_get(rt, ray_cstr("until_cancelled"), &function, &err));
  CHECK_OK(ray_submit_stream(rt, function, args, 2, NULL, &stream, &err));
  CHECK_OK(ray_stream_completed(stream, &end, &err));
  kit_await(runs);
  ray_stream_release(stream);
  for (i = 0; i < 50; i++) kit_pause();
  CHECK(!kit_exists(over));
  ray_ref_release(end);
  kit_await(over);
  ray_function_release(function);
}

static void* wait_for_an_item(void* stream) {
  ray_ref* ref = NULL;
  ray_code code = ray_stream_next((ray_stream*)stream, -1, &ref, NULL);
  CHECK(code != RAY_OK && ref == NULL);
  return NULL;
}
static void* any_of_it(void* stream) {
  ray_stream* one = (ray_stream*)stream;
  uint8_t ready = 0;
  (void)ray_wait_any(rt, NULL, 0, &one, 1, 1, -1, NULL, &ready, NULL);
  return NULL;
}

/* The last handle goes while threads wait with it: they come back, and nothing of it is used any more. */
static void released_while_threads_wait(void) {
  enum { kRounds = 20, kThreads = 4 };
  int round, i;
  kit_init();
  for (round = 0; round < kRounds; round++) {
    ray_stream* stream = stream_of("item_after", 1, 4);
    pthread_t threads[kThreads];
    for (i = 0; i < kThreads; i++)
      CHECK_EQ(pthread_create(&threads[i], NULL, i % 2 ? any_of_it : wait_for_an_item, stream), 0);
    for (i = 0; i < round % 4; i++) kit_pause();
    ray_stream_release(stream);
    for (i = 0; i < kThreads; i++) pthread_join(threads[i], NULL);
  }
}

static const kit_test tests[] = {KIT_TEST(released_while_threads_wait),
                                 KIT_TEST(room),
                                 KIT_TEST(wait_for_any),
                                 KIT_TEST(completed),
                                 KIT_TEST(nobody_waits_for_the_end),
                                 KIT_TEST(in_order_to_the_end),
                                 KIT_TEST(empty_stream),
                                 KIT_TEST(back_pressure),
                                 KIT_TEST(full_window_without_waiting),
                                 KIT_TEST(error_is_the_last_item),
                                 KIT_TEST(large),
                                 KIT_TEST(items_outlive_the_stream),
                                 KIT_TEST(cancel),
                                 KIT_TEST(timeout),
                                 KIT_TEST(notifications),
                                 KIT_TEST(notifications_take_nothing),
                                 KIT_TEST(several_consumers),
                                 KIT_TEST(no_memory_for_an_item),
                                 KIT_TEST(stream_of_an_actor),
                                 KIT_TEST(several_streams)};
KIT_MAIN(tests, register_all)
