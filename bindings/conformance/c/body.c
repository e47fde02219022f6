/* body.c -- instructions of tasks and calls alone, and the functions that run them. */
#include "machine.h"

#include <signal.h>
#include <time.h>
#include <unistd.h>

static const ray_buffer* argument(machine* m, const char* word) {
  size_t i = (size_t)number(word) + 1;
  return i < m->n_args ? &m->args[i] : NULL;
}

static void wrong(machine* m) { answer_code(m, RAY_INVALID_ARGUMENT, NULL); }

static void op_arg(machine* m, words* w) { /* arg I */
  const ray_buffer* buffer = w->n > 1 ? argument(m, w->at[1]) : NULL;
  seen s;
  if (buffer == NULL) return wrong(m);
  s = look(buffer);
  m->acc = mix(m->acc, s.whole ? s.tag + s.size : 1);
}

static void op_argx(machine* m, words* w) { /* argx I J XD */
  const ray_buffer* buffer = w->n > 3 ? argument(m, w->at[1]) : NULL;
  ray_ref* ref = NULL;
  ray_actor* actor = NULL;
  ray_error* err = NULL;
  ray_code code;
  if (buffer == NULL) return wrong(m);
  code = ray_buffer_ref(buffer, inside_index(buffer, (uint32_t)number(w->at[2])), &ref, &err);
  if (code == RAY_OK && w->at[3][0] == 'a') {
    code = ray_actor_from_ref(ref, &actor, &err);
    ray_ref_release(ref);
    if (code == RAY_OK) set_actor(m, w->at[3], actor);
  } else if (code == RAY_OK) {
    set_ref(m, w->at[3], ref);
  }
  answer_code(m, code, err);
}

/* The tag of a returned value tells what the body saw, and with "a" also which attempt it was. */
static uint64_t mixed_tag(machine* m, words* w, size_t at) {
  uint64_t tag = mix(m->acc, strtoull(w->at[at], NULL, 10));
  return w->n > at + 1 && w->at[at + 1][0] == 'a' ? mix(tag, 1000 + m->attempt) : tag;
}

static void op_ret(machine* m, words* w) { /* ret I VALUE [a] */
  uint64_t tag;
  made v;
  ray_error* err = NULL;
  ray_code code;
  if (m->task == NULL || w->n < 3) return wrong(m);
  tag = mixed_tag(m, w, 2);
  if (!make_value(m, w->at[2], &tag, &v)) return wrong(m);
  code = ray_task_return(m->task, (uint32_t)number(w->at[1]), &v.value, &err);
  free_value(&v);
  answer_code(m, code, err);
}

static void op_rets(machine* m, words* w) { /* rets I: the actor's sum */
  char text[64];
  made v;
  uint64_t sum;
  ray_error* err = NULL;
  ray_code code;
  if (m->task == NULL || m->self == NULL || w->n < 2) return wrong(m);
  pthread_mutex_lock(&m->self->mutex);
  sum = m->self->sum;
  pthread_mutex_unlock(&m->self->mutex);
  snprintf(text, sizeof text, "%llu:0", (unsigned long long)sum);
  if (!make_value(m, text, NULL, &v)) return wrong(m);
  code = ray_task_return(m->task, (uint32_t)number(w->at[1]), &v.value, &err);
  free_value(&v);
  answer_code(m, code, err);
}

static void op_reterr(machine* m, words* w) { /* reterr I */
  ray_error* err = NULL;
  ray_code code;
  if (m->task == NULL || w->n < 2) return wrong(m);
  code = ray_task_return_error(m->task, (uint32_t)number(w->at[1]), RAY_TASK_FAILED, ray_cstr("on purpose"), NULL, &err);
  answer_code(m, code, err);
}

static void op_yield(machine* m, words* w) { /* yield VALUE [a] */
  uint64_t tag;
  made v;
  ray_error* err = NULL;
  ray_code code;
  if (m->task == NULL || w->n < 2) return wrong(m);
  tag = mixed_tag(m, w, 1);
  if (!make_value(m, w->at[1], &tag, &v)) return wrong(m);
  code = ray_task_yield(m->task, &v.value, -1, &err);
  free_value(&v);
  if (code == RAY_CANCELLED && !m->failed) {
    m->failed = true;
    m->code = RAY_CANCELLED;
    ray_error_release(err);
    return;
  }
  answer_code(m, code, err);
}

static void op_fail(machine* m, words* w) { /* fail [N]: in the attempts below N, or in all */
  if (w->n > 1 && m->attempt >= (uint32_t)number(w->at[1])) return;
  if (m->failed) return;
  m->failed = true;
  m->code = RAY_TASK_FAILED;
  snprintf(m->why, sizeof m->why, "on purpose");
}

static void op_crash(machine* m, words* w) { /* crash [N] */
  if (w->n > 1 && m->attempt >= (uint32_t)number(w->at[1])) return;
  kill(getpid(), SIGKILL);
}

static void op_exit(machine* m, words* w) { /* exit: the actor ends after this call */
  (void)w;
  m->failed = true;
  m->code = RAY_ACTOR_DIED;
}

static void op_hold(machine* m, words* w) { /* hold US: until it is cancelled, but no longer */
  long left = w->n > 1 ? number(w->at[1]) : 0;
  struct timespec t = {0, 500000};
  for (; left > 0 && m->task && !ray_task_is_cancelled(m->task); left -= 500) nanosleep(&t, NULL);
  if (m->task && ray_task_is_cancelled(m->task) && !m->failed) {
    m->failed = true;
    m->code = RAY_CANCELLED;
  }
}

static void op_add(machine* m, words* w) { /* add N: to the actor's sum, which the body then has seen */
  if (m->self == NULL || w->n < 2) return wrong(m);
  pthread_mutex_lock(&m->self->mutex);
  m->self->sum += strtoull(w->at[1], NULL, 10);
  m->acc = mix(m->acc, m->self->sum);
  pthread_mutex_unlock(&m->self->mutex);
}

static void op_keep(machine* m, words* w) { /* keep I rS: the actor holds it from now on */
  ray_ref **slot = slot_ref(m, w->n > 2 ? w->at[2] : NULL), *old;
  if (m->self == NULL || slot == NULL || *slot == NULL) return wrong(m);
  pthread_mutex_lock(&m->self->mutex);
  old = m->self->kept[number(w->at[1]) & 7];
  m->self->kept[number(w->at[1]) & 7] = ray_ref_retain(*slot);
  pthread_mutex_unlock(&m->self->mutex);
  ray_ref_release(old);
}

static void op_kept(machine* m, words* w) { /* kept I rD */
  ray_ref* ref;
  if (m->self == NULL || w->n < 3) return wrong(m);
  pthread_mutex_lock(&m->self->mutex);
  ref = ray_ref_retain(m->self->kept[number(w->at[1]) & 7]);
  pthread_mutex_unlock(&m->self->mutex);
  if (ref == NULL) return wrong(m);
  set_ref(m, w->at[2], ref);
}

const entry kBodyOperations[] = {
    {"arg", op_arg},     {"argx", op_argx}, {"ret", op_ret},   {"rets", op_rets}, {"reterr", op_reterr},
    {"yield", op_yield}, {"fail", op_fail}, {"crash", op_crash}, {"exit", op_exit}, {"hold", op_hold},
    {"add", op_add},     {"keep", op_keep}, {"kept", op_kept}, {NULL, NULL},
};

/* ---- what workers run ------------------------------------------------------------------------ */

static ray_code run_body(ray_task* task, state* self) {
  machine* m = calloc(1, sizeof *m);
  ray_task_info info = RAY_TASK_INFO_INIT;
  ray_code code = RAY_OK;
  char* text;
  if (m == NULL) abort_driver("out of memory");
  ray_task_get_info(task, &info);
  m->task = task;
  m->self = self;
  m->attempt = info.attempt - 1; /* it counts from 1 */
  m->n_args = ray_task_args(task, &m->args);
  text = m->n_args ? text_of(&m->args[0]) : strdup("");
  run_text(m, text, "");
  if (m->failed) code = m->code;
  if (code == RAY_TASK_FAILED) ray_task_fail(task, ray_cstr(m->why), NULL);
  end_machine(m);
  free(m);
  free(text);
  return code;
}

static ray_code run_function(ray_task* task, void* user) {
  (void)user;
  return run_body(task, NULL);
}

static ray_code run_method(ray_task* task, void* user) {
  (void)user;
  return run_body(task, ray_task_self(task));
}

static ray_code create(ray_task* task, void* user) {
  state* self = calloc(1, sizeof *self);
  ray_code code;
  (void)user;
  if (self == NULL) abort_driver("out of memory");
  pthread_mutex_init(&self->mutex, NULL);
  code = run_body(task, self);
  return code == RAY_OK ? ray_task_set_self(task, self, NULL) : code;
}

static void destroy(void* self, void* user) {
  state* s = self;
  int i;
  (void)user;
  for (i = 0; s && i < 8; i++) ray_ref_release(s->kept[i]);
  free(s);
}

void register_all(void) {
  if (ray_register_function(ray_cstr("run_several"), run_function, NULL, NULL) != RAY_OK ||
      ray_register_function(ray_cstr("run_stream"), run_function, NULL, NULL) != RAY_OK ||
      ray_register_function(ray_cstr("run"), run_function, NULL, NULL) != RAY_OK ||
      ray_register_function(ray_cstr("twin"), run_function, NULL, NULL) != RAY_OK ||
      ray_register_actor(ray_cstr("Box"), create, destroy, NULL, NULL) != RAY_OK ||
      ray_register_method(ray_cstr("Box"), ray_cstr("run"), run_method, NULL, NULL) != RAY_OK ||
      ray_register_method(ray_cstr("Box"), ray_cstr("run_several"), run_method, NULL, NULL) != RAY_OK ||
      ray_register_method(ray_cstr("Box"), ray_cstr("run_stream"), run_method, NULL, NULL) != RAY_OK)
    abort_driver("cannot register");
}
