/* operations.c -- instructions that a driver and a body share: values, waiting, tasks, streams, actors. */
#include "machine.h"

#include <time.h>

int64_t g_bound_ns = 20000000000ll; /* how long a driver waits for what has to come */

static int64_t bound_of(const machine* m) { return m->is_driver ? g_bound_ns : -1; }

static void empty(machine* m) {
  if (m->is_driver)
    answer(m, "empty");
  else
    answer_code(m, RAY_NOT_FOUND, NULL);
}

static void tell_value(machine* m, ray_buffer* buffer) {
  seen s = look(buffer);
  m->acc = mix(m->acc, s.whole ? s.tag + s.size : 1);
  if (s.whole)
    answer(m, "v %llu %llu %u", (unsigned long long)s.tag, (unsigned long long)s.size, s.n_refs);
  else if (buffer->size <= 1)
    answer(m, "nil");
  else
    answer(m, "damaged %llu %llu %zu", (unsigned long long)s.tag, (unsigned long long)s.size, (size_t)buffer->size);
}

/* ---- values --------------------------------------------------------------------------------- */

static void op_put(machine* m, words* w) { /* put rD VALUE */
  made v;
  ray_ref* ref = NULL;
  ray_error* err = NULL;
  ray_code code;
  if (w->n < 3 || !make_value(m, w->at[2], NULL, &v)) return empty(m);
  if (strtoull(w->at[2], NULL, 10) % 5 == 4) { /* these are written in place */
    ray_writer* writer = NULL;
    ray_layout layout = {NULL, NULL};
    code = ray_writer_open(rt, &v.value, &writer, &layout, &err);
    if (code == RAY_OK) {
      memcpy(layout.data, v.value.data, v.value.size);
      if (v.value.n_oob) memcpy(layout.oob[0], v.oob.data, v.oob.size);
      code = ray_writer_seal(writer, &ref, &err);
    }
  } else {
    code = ray_put(rt, &v.value, &ref, &err);
  }
  free_value(&v);
  if (code == RAY_OK) set_ref(m, w->at[1], ref);
  answer_code(m, code, err);
}

static void op_get(machine* m, words* w) { /* get rS... */
  ray_ref* refs[kTokens];
  ray_buffer buffers[kTokens];
  ray_error* err = NULL;
  ray_code code;
  size_t i, n = w->n - 1;
  for (i = 0; i < n; i++) {
    ray_ref** slot = slot_ref(m, w->at[i + 1]);
    if (slot == NULL || *slot == NULL) return empty(m);
    refs[i] = *slot;
  }
  memset(buffers, 0, sizeof buffers);
  code = ray_get(rt, refs, n, bound_of(m), buffers, &err);
  if (code == RAY_TIMED_OUT) give_up(m);
  if (code != RAY_OK) return answer_code(m, code, err);
  if (n != 1) answer(m, "values %zu", n);
  if (n > 1 && planted("order")) {
    ray_buffer first = buffers[0];
    buffers[0] = buffers[1];
    buffers[1] = first;
  }
  for (i = 0; i < n; i++) {
    tell_value(m, &buffers[i]);
    ray_buffer_release(&buffers[i]);
  }
}

static void op_try(machine* m, words* w) { /* try rS */
  ray_ref** slot = slot_ref(m, w->n > 1 ? w->at[1] : NULL);
  ray_buffer buffer = RAY_BUFFER_INIT;
  ray_error* err = NULL;
  ray_code code;
  if (slot == NULL || *slot == NULL) return empty(m);
  code = ray_try_get(*slot, &buffer, &err);
  if (code != RAY_OK) {
    if (!m->is_driver && code == RAY_TIMED_OUT) return ray_error_release(err);
    return answer_code(m, code, err);
  }
  tell_value(m, &buffer);
  ray_buffer_release(&buffer);
}

static void op_wait(machine* m, words* w) { /* wait WANT MS rS... */
  ray_ref* refs[kTokens];
  uint8_t ready[kTokens] = {0};
  char mask[kTokens + 1] = "";
  ray_error* err = NULL;
  ray_code code;
  size_t i, n = w->n > 3 ? w->n - 3 : 0, count = 0;
  long ms = n ? number(w->at[2]) : 0;
  for (i = 0; i < n; i++) {
    ray_ref** slot = slot_ref(m, w->at[i + 3]);
    if (slot == NULL || *slot == NULL) return empty(m);
    refs[i] = *slot;
  }
  if (n == 0) return empty(m);
  code = ray_wait(rt, refs, n, (size_t)number(w->at[1]), ms < 0 ? bound_of(m) : ms * 1000000ll, ready, &count, &err);
  if (code != RAY_OK) return answer_code(m, code, err);
  if (ms < 0 && count < (size_t)number(w->at[1])) give_up(m);
  for (i = 0; i < n; i++) mask[i] = ready[i] ? '1' : '0';
  answer(m, "w %zu %s", count, mask);
}

static void op_told(machine* m, words* w) { /* told rS...: by a completion queue */
  ray_queue* queue = NULL;
  ray_completion done[kTokens];
  ray_code codes[kTokens], code;
  char text[800] = "";
  ray_error* err = NULL;
  size_t i, n = w->n - 1, count = 0, more = 0;
  for (i = 0; i < n; i++)
    if (slot_ref(m, w->at[i + 1]) == NULL || *slot_ref(m, w->at[i + 1]) == NULL) return empty(m);
  code = ray_queue_create(rt, &queue, &err);
  for (i = 0; i < n && code == RAY_OK; i++) {
    ray_notify notify = RAY_NOTIFY_INIT;
    notify.queue = queue;
    notify.tag = i;
    code = ray_on_ready(*slot_ref(m, w->at[i + 1]), &notify, NULL, &err);
  }
  for (; code == RAY_OK && count < n; count += more) {
    code = ray_queue_poll(queue, done, n, bound_of(m), &more, &err);
    for (i = 0; code == RAY_OK && i < more; i++) {
      codes[done[i].tag % kTokens] = done[i].code;
      ray_ref_release(done[i].ref);
      ray_error_release(done[i].error);
    }
  }
  ray_queue_release(queue);
  if (code == RAY_TIMED_OUT) give_up(m);
  if (code != RAY_OK) return answer_code(m, code, err);
  for (i = 0; i < n; i++) {
    strncat(text, " ", sizeof text - strlen(text) - 1);
    strncat(text, ray_code_name(codes[i]) + 4, sizeof text - strlen(text) - 1);
  }
  answer(m, "told%s", text);
}

static void op_elem(machine* m, words* w) { /* elem rS I XD */
  ray_ref **slot = slot_ref(m, w->n > 3 ? w->at[1] : NULL), *ref = NULL;
  ray_buffer buffer = RAY_BUFFER_INIT;
  ray_error* err = NULL;
  ray_actor* actor = NULL;
  ray_code code;
  if (slot == NULL || *slot == NULL) return empty(m);
  code = ray_get(rt, slot, 1, bound_of(m), &buffer, &err);
  if (code == RAY_TIMED_OUT) give_up(m);
  if (code != RAY_OK) return answer_code(m, code, err);
  code = ray_buffer_ref(&buffer, inside_index(&buffer, (uint32_t)number(w->at[2])), &ref, &err);
  if (code == RAY_OK && w->at[3][0] == 'a') {
    code = ray_actor_from_ref(ref, &actor, &err);
    ray_ref_release(ref);
    if (code == RAY_OK) set_actor(m, w->at[3], actor);
  } else if (code == RAY_OK) {
    set_ref(m, w->at[3], ref);
  }
  ray_buffer_release(&buffer);
  answer_code(m, code, err);
}

static void op_copy(machine* m, words* w) { /* copy XD XS */
  ray_ref** ref = slot_ref(m, w->n > 2 ? w->at[2] : NULL);
  ray_actor** actor = slot_actor(m, w->n > 2 ? w->at[2] : NULL);
  ray_stream** stream = slot_stream(m, w->n > 2 ? w->at[2] : NULL);
  if (ref && *ref)
    set_ref(m, w->at[1], ray_ref_retain(*ref));
  else if (actor && *actor)
    set_actor(m, w->at[1], ray_actor_retain(*actor));
  else if (stream && *stream)
    set_stream(m, w->at[1], ray_stream_retain(*stream));
  else
    return empty(m);
  answer_ok(m);
}

static void op_drop(machine* m, words* w) { /* drop X... */
  size_t i;
  for (i = 1; i < w->n; i++) {
    set_ref(m, w->at[i], NULL);
    set_actor(m, w->at[i], NULL);
    set_stream(m, w->at[i], NULL);
  }
  answer_ok(m);
}

/* ---- submitting ----------------------------------------------------------------------------- */

typedef struct submission {
  ray_task_options options;
  ray_placement placement;
  uint8_t resources[256];
  ray_arg args[kTokens];
  made values[kTokens];
  size_t n_args, n_values;
  const char* outs[kTokens];
  ray_ref* refs[kTokens];
  uint32_t n_outs;
  char* text; /* of the body, in programs of two languages */
  bool right;
} submission;

static void split_outs(submission* s, char* list) { /* "r1,r2" or "-" */
  char* part;
  if (strcmp(list, "-") == 0) return;
  for (; list && *list && s->n_outs < kTokens; list = part) {
    part = strchr(list, ',');
    if (part) *part++ = 0;
    s->outs[s->n_outs++] = list;
  }
}

static void add_argument(machine* m, submission* s, char* word) {
  ray_ref** slot = slot_ref(m, word);
  ray_arg* arg = &s->args[s->n_args];
  memset(arg, 0, sizeof *arg);
  if (slot) {
    arg->ref = *slot;
    s->right = s->right && *slot != NULL;
  } else if (word[0] == 'v') {
    if (!make_value(m, word + 1, NULL, &s->values[s->n_values])) {
      s->right = false;
      return;
    }
    arg->value = s->values[s->n_values].value;
    if (arg->value.n_oob) arg->value.oob = &s->values[s->n_values].oob;
    arg->value.refs = s->values[s->n_values].refs;
    s->n_values++;
  } else {
    s->right = false;
  }
  s->n_args++;
}

static uint32_t count_outs(const char* list) {
  uint32_t n = strcmp(list, "-") != 0;
  for (; *list; list++) n += *list == ',';
  return n;
}

/* The words from `from` on: options (with '='), arguments, and last the body. Argument 0 is the body. */
static void read_submission(machine* m, words* w, size_t from, submission* s) {
  ray_task_options options = RAY_TASK_OPTIONS_INIT;
  size_t i, last = w->n - 1;
  memset(&s->n_args, 0, sizeof *s - offsetof(submission, n_args));
  s->options = options;
  s->options.name = ray_cstr(w->at[1]);
  s->right = true;
  submit_options(m, w, from, &s->options, &s->placement, s->resources);
  memset(&s->args[0], 0, sizeof s->args[0]);
  s->args[0].value = ray_plain(w->at[last], strlen(w->at[last]), RAY_FMT_RAW);
  if (is_cross()) {
    size_t size;
    s->text = cross_text(w->at[last], w->at[0][0] == 'a' ? 1 : count_outs(w->at[from - 1]), &size);
    s->args[0].value = ray_plain(s->text, size, RAY_FMT_MSGPACK);
  }
  s->n_args = 1;
  for (i = from; i < last; i++)
    if (strchr(w->at[i], '=') == NULL) add_argument(m, s, w->at[i]);
}

static void end_submission(machine* m, submission* s, ray_code code, ray_error* err) {
  size_t i;
  for (i = 0; i < s->n_values; i++) free_value(&s->values[i]);
  free(s->text);
  for (i = 0; i < s->n_outs && code == RAY_OK; i++) set_ref(m, s->outs[i], s->refs[i]);
  if (s->right)
    answer_code(m, code, err);
  else
    empty(m);
}

static const char* option(words* w, const char* name) {
  size_t i, n = strlen(name);
  for (i = 1; i < w->n; i++)
    if (strncmp(w->at[i], name, n) == 0 && w->at[i][n] == '=') return w->at[i] + n + 1;
  return NULL;
}

static void op_task(machine* m, words* w) { /* task LABEL rD,.. OPTIONS ARGS [BODY] */
  submission s;
  ray_function* function = NULL;
  ray_error* err = NULL;
  ray_code code = RAY_OK;
  if (w->n < 4) return empty(m);
  read_submission(m, w, 3, &s);
  split_outs(&s, w->at[2]);
  s.options.num_returns = s.n_outs;
  if (s.right) {
    code = function_for(option(w, "lang"), option(w, "twin") ? "twin" : name_for(false, s.n_outs), &function, &err);
    if (code == RAY_OK) code = ray_submit(rt, function, s.args, s.n_args, &s.options, s.refs, &err);
    ray_function_release(function);
  }
  end_submission(m, &s, s.right ? code : RAY_NOT_FOUND, err);
}

static void op_stream(machine* m, words* w) { /* stream LABEL sD OPTIONS ARGS [BODY] */
  submission s;
  ray_function* function = NULL;
  ray_stream* stream = NULL;
  ray_error* err = NULL;
  ray_code code = RAY_OK;
  if (w->n < 4) return empty(m);
  read_submission(m, w, 3, &s);
  if (s.right) {
    code = function_for(option(w, "lang"), name_for(true, 1), &function, &err);
    if (code == RAY_OK) code = ray_submit_stream(rt, function, s.args, s.n_args, &s.options, &stream, &err);
    ray_function_release(function);
    if (code == RAY_OK) set_stream(m, w->at[2], stream);
  }
  end_submission(m, &s, s.right ? code : RAY_NOT_FOUND, err);
}

static void op_call(machine* m, words* w) { /* call LABEL aS rD,.. OPTIONS ARGS [BODY] */
  ray_actor** actor = slot_actor(m, w->n > 4 ? w->at[2] : NULL);
  submission s;
  ray_error* err = NULL;
  ray_code code = RAY_OK;
  if (actor == NULL || *actor == NULL) return empty(m);
  read_submission(m, w, 4, &s);
  split_outs(&s, w->at[3]);
  s.options.num_returns = s.n_outs;
  if (s.right) code = ray_actor_call(*actor, ray_cstr(name_for(false, s.n_outs)), s.args, s.n_args, &s.options, s.refs, &err);
  end_submission(m, &s, s.right ? code : RAY_NOT_FOUND, err);
}

static void op_callstream(machine* m, words* w) { /* callstream LABEL aS sD OPTIONS ARGS [BODY] */
  ray_actor** actor = slot_actor(m, w->n > 4 ? w->at[2] : NULL);
  ray_stream* stream = NULL;
  submission s;
  ray_error* err = NULL;
  ray_code code = RAY_OK;
  if (actor == NULL || *actor == NULL) return empty(m);
  read_submission(m, w, 4, &s);
  if (s.right) code = ray_actor_call_stream(*actor, ray_cstr(name_for(true, 1)), s.args, s.n_args, &s.options, &stream, &err);
  if (s.right && code == RAY_OK) set_stream(m, w->at[3], stream);
  end_submission(m, &s, s.right ? code : RAY_NOT_FOUND, err);
}

static void op_actor(machine* m, words* w) { /* actor LABEL aD OPTIONS ARGS [BODY] */
  ray_actor_options options = RAY_ACTOR_OPTIONS_INIT;
  submission s;
  ray_function* klass = NULL;
  ray_actor* actor = NULL;
  ray_error* err = NULL;
  ray_code code = RAY_OK;
  const char* text;
  if (w->n < 4) return empty(m);
  read_submission(m, w, 3, &s);
  options.resources_msgpack = s.options.resources_msgpack;
  options.placement = s.options.placement;
  if ((text = option(w, "restarts"))) options.max_restarts = (int32_t)number(text);
  if ((text = option(w, "again"))) options.max_task_retries = (int32_t)number(text);
  if ((text = option(w, "conc"))) options.max_concurrency = (uint32_t)number(text);
  if ((text = option(w, "pending"))) options.max_pending_calls = (uint32_t)number(text);
  if ((text = option(w, "name"))) options.name = ray_cstr(text);
  if (option(w, "detached")) options.lifetime = RAY_LIFETIME_DETACHED;
  if (option(w, "ooo")) options.flags |= RAY_ACTOR_OUT_OF_ORDER;
  if (option(w, "gie")) options.flags |= RAY_ACTOR_GET_IF_EXISTS;
  if (s.right) {
    code = function_for(option(w, "lang"), "Box", &klass, &err);
    if (code == RAY_OK) code = ray_actor_create(rt, klass, s.args, s.n_args, &options, &actor, &err);
    ray_function_release(klass);
    if (code == RAY_OK) set_actor(m, w->at[2], actor);
  }
  end_submission(m, &s, s.right ? code : RAY_NOT_FOUND, err);
}

/* ---- streams, cancelling, actors ------------------------------------------------------------ */

static void op_next(machine* m, words* w) { /* next sS rD MS */
  ray_stream** stream = slot_stream(m, w->n > 3 ? w->at[1] : NULL);
  ray_ref* ref = NULL;
  ray_error* err = NULL;
  ray_code code;
  long ms = stream ? number(w->at[3]) : 0;
  if (stream == NULL || *stream == NULL) return empty(m);
  code = ray_stream_next(*stream, ms < 0 ? bound_of(m) : ms * 1000000ll, &ref, &err);
  if (code == RAY_STREAM_END) {
    ray_error_release(err);
    m->acc = mix(m->acc, 7);
    set_ref(m, w->at[2], NULL);
    answer(m, "end");
    return;
  }
  if (code == RAY_OK) set_ref(m, w->at[2], ref);
  if (code == RAY_TIMED_OUT && ms < 0) give_up(m);
  answer_code(m, code, err);
}

static uint32_t cancel_flags(const char* text) {
  return (strchr(text, 'f') ? (uint32_t)RAY_CANCEL_FORCE : 0u) | (strchr(text, 'r') ? (uint32_t)RAY_CANCEL_RECURSIVE : 0u);
}

static void op_scancel(machine* m, words* w) { /* scancel sS FLAGS */
  ray_stream** stream = slot_stream(m, w->n > 2 ? w->at[1] : NULL);
  ray_error* err = NULL;
  ray_code code;
  if (stream == NULL || *stream == NULL) return empty(m);
  code = ray_stream_cancel(*stream, cancel_flags(w->at[2]), &err);
  answer_code(m, code, err);
}

static void op_sdone(machine* m, words* w) { /* sdone sS rD */
  ray_stream** stream = slot_stream(m, w->n > 2 ? w->at[1] : NULL);
  ray_ref* ref = NULL;
  ray_error* err = NULL;
  ray_code code;
  if (stream == NULL || *stream == NULL) return empty(m);
  code = ray_stream_completed(*stream, &ref, &err);
  if (code == RAY_OK) set_ref(m, w->at[2], ref);
  answer_code(m, code, err);
}

static void op_cancel(machine* m, words* w) { /* cancel rS FLAGS */
  ray_ref** slot = slot_ref(m, w->n > 2 ? w->at[1] : NULL);
  ray_error* err = NULL;
  ray_code code;
  if (slot == NULL || *slot == NULL) return empty(m);
  code = ray_cancel(*slot, cancel_flags(w->at[2]), &err);
  answer_code(m, code, err);
}

static void op_find(machine* m, words* w) { /* find NAME aD */
  ray_actor* actor = NULL;
  ray_error* err = NULL;
  ray_code code;
  if (w->n < 3) return empty(m);
  code = ray_actor_find(rt, ray_cstr(w->at[1]), ray_cstr(NULL), &actor, &err);
  set_actor(m, w->at[2], code == RAY_OK ? actor : NULL);
  answer_code(m, code, err);
}

static void op_kill(machine* m, words* w) { /* kill aS MAY_RESTART */
  ray_actor** actor = slot_actor(m, w->n > 2 ? w->at[1] : NULL);
  ray_error* err = NULL;
  ray_code code;
  if (actor == NULL || *actor == NULL) return empty(m);
  code = ray_actor_kill(*actor, w->at[2][0] == '1', &err);
  answer_code(m, code, err);
}

/* ---- time ----------------------------------------------------------------------------------- */

static int64_t now_us(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000ll + t.tv_nsec / 1000;
}

static void op_sleep(machine* m, words* w) { /* sleep US */
  long us = w->n > 1 ? number(w->at[1]) : 0;
  struct timespec t;
  t.tv_sec = us / 1000000;
  t.tv_nsec = us % 1000000 * 1000;
  nanosleep(&t, NULL);
  answer_ok(m);
}

static void op_spin(machine* m, words* w) { /* spin US */
  int64_t end = now_us() + (w->n > 1 ? number(w->at[1]) : 0);
  while (now_us() < end) continue;
  answer_ok(m);
}

static void op_pump(machine* m, words* w) { /* pump LABEL rS MS W OPTIONS [BODY] */
  ray_ref **slot = slot_ref(m, w->n > 5 ? w->at[2] : NULL), *window[32] = {NULL};
  ray_function* function = NULL;
  submission s;
  int64_t end;
  size_t width, i;
  uint8_t ready = 0;
  size_t n_ready = 0;
  if (slot == NULL || *slot == NULL) return empty(m);
  end = now_us() + 1000 * number(w->at[3]);
  width = (size_t)number(w->at[4]) % 32;
  read_submission(m, w, 5, &s);
  if (function_for(option(w, "lang"), "run", &function, NULL) != RAY_OK) return empty(m);
  for (i = 0; now_us() < end && n_ready == 0; i++) {
    ray_ref** place = &window[i % width];
    ray_buffer buffer = RAY_BUFFER_INIT;
    if (*place && ray_get(rt, place, 1, g_bound_ns, &buffer, NULL) == RAY_OK) ray_buffer_release(&buffer);
    ray_ref_release(*place);
    *place = NULL;
    if (ray_submit(rt, function, s.args, s.n_args, &s.options, place, NULL) != RAY_OK) break;
    if (ray_wait(rt, slot, 1, 1, 0, &ready, &n_ready, NULL) != RAY_OK) break;
  }
  ray_function_release(function);
  for (i = 0; i < width; i++) ray_ref_release(window[i]);
  free(s.text);
  answer(m, n_ready ? "y" : "n");
}

const entry kTaskOperations[] = {
    {"put", op_put},       {"get", op_get},           {"try", op_try},         {"wait", op_wait},
    {"elem", op_elem},     {"copy", op_copy},         {"drop", op_drop},       {"task", op_task},
    {"stream", op_stream}, {"next", op_next},         {"scancel", op_scancel}, {"sdone", op_sdone},
    {"cancel", op_cancel}, {"actor", op_actor},       {"call", op_call},       {"callstream", op_callstream},
    {"find", op_find},     {"kill", op_kill},         {"sleep", op_sleep},     {"spin", op_spin},
    {"pump", op_pump},     {"told", op_told},         {NULL, NULL},
};
