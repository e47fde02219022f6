/* pole.c -- learns to balance a pole on a cart, then serves what it has learnt. samples/pole has the same program in
 * C++, Java, Python and Rust; all print the same lines: ./dev run --lang c
 *
 * Tasks simulate (play), an actor serves (Server), the driver learns: of 16 policies around the present one the mean of
 * the four best is the next. Only + - * / on doubles, so that every language comes to the same numbers. Built as a
 * shared library (cc -shared), its `play` is what all.py calls through libffi. */
#include <ray.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { kCandidates = 16, kBest = 4, kEpisodes = 4, kSteps = 500, kSolved = 47500 };
typedef struct {
  double n[4]; /* a policy; or a state: the cart's place and speed, the pole's angle and speed */
} numbers;

/* SplitMix64: numbers in [-1, 1) that depend on the seed alone. */
static double next(uint64_t* seed) {
  uint64_t z = *seed += 0x9E3779B97F4A7C15u;
  z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
  z = (z ^ z >> 27) * 0x94D049BB133111EBu;
  return (double)((z ^ z >> 31) >> 11) / 4503599627370496.0 - 1;
}

static numbers begin(uint64_t seed) {
  numbers state;
  for (int i = 0; i < 4; i++) state.n[i] = 0.05 * next(&seed);
  return state;
}

/* The state 20 ms after a push of 10 N; small angles, so that short polynomials are its sine and cosine. */
static numbers push(numbers state, int right) {
  double v = state.n[1], a = state.n[2], w = state.n[3];
  double sine = a * (1 - a * a / 6 * (1 - a * a / 20)), cosine = 1 - a * a / 2 * (1 - a * a / 12);
  double force = ((right ? 10.0 : -10.0) + 0.05 * w * w * sine) / 1.1;
  double turn = (9.8 * sine - cosine * force) / (0.5 * (4.0 / 3 - 0.1 * cosine * cosine / 1.1));
  state.n[0] += 0.02 * v;
  state.n[1] += 0.02 * (force - 0.05 * turn * cosine / 1.1);
  state.n[2] += 0.02 * w;
  state.n[3] += 0.02 * turn;
  return state;
}

static int stands(numbers state) {
  return -2.4 < state.n[0] && state.n[0] < 2.4 && -0.2095 < state.n[2] && state.n[2] < 0.2095;
}

static int is_right(const double* policy, const double* state) {
  return policy[0] * state[0] + policy[1] * state[1] + policy[2] * state[2] + policy[3] * state[3] > 0;
}

/* How many steps the pole stood, in so many episodes from this one on. */
int64_t play(const double* policy, uint64_t first, int32_t episodes) {
  int64_t steps = 0;
  for (int32_t episode = 0; episode < episodes; episode++) {
    numbers state = begin(first + (uint64_t)episode);
    for (int step = 0; step < kSteps && stands(state); step++, steps++)
      state = push(state, is_right(policy, state.n));
  }
  return steps;
}

/* ---- what runs elsewhere: play as a task, and an actor; arguments and results are the bytes of C types ---- */
static ray_error* err;
/* Ends the program with the error's message unless the call went well. */
static void check(ray_code code) {
  if (code == RAY_OK) return;
  ray_str why = ray_error_message(err);
  fprintf(stderr, "%s: %.*s\n", ray_code_name(code), (int)why.size, why.data);
  exit(1);
}

typedef struct {
  numbers policy;
  uint64_t first;
  int32_t episodes;
} game;

static ray_code give(ray_task* task, int64_t number) {
  ray_value value = ray_plain(&number, sizeof number, RAY_FMT_RAW);
  return ray_task_return(task, 0, &value, NULL);
}

/* Copies the one argument, as bytes, to where it is aligned. */
static void take(ray_task* task, void* out, size_t size) {
  const ray_buffer* args;
  ray_task_args(task, &args);
  memcpy(out, args[0].data, size);
}

static ray_code play_task(ray_task* task, void* user) {
  game g;
  take(task, &g, sizeof g);
  return give(task, play(g.policy.n, g.first, g.episodes));
}

static ray_code server_create(ray_task* task, void* user) {
  numbers* policy = malloc(sizeof *policy);
  take(task, policy, sizeof *policy);
  return ray_task_set_self(task, policy, NULL);
}

static ray_code server_is_right(ray_task* task, void* user) {
  numbers state;
  take(task, &state, sizeof state);
  return give(task, is_right(((numbers*)ray_task_self(task))->n, state.n));
}

static void server_destroy(void* self, void* user) { free(self); }

/* ---- the driver ---- */
static ray_runtime* rt;

static ray_ref* start(ray_function* fn, numbers policy, uint64_t first, int32_t episodes) {
  game g;
  memset(&g, 0, sizeof g);
  g.policy = policy, g.first = first, g.episodes = episodes;
  ray_arg arg = {NULL, ray_plain(&g, sizeof g, RAY_FMT_RAW)};
  ray_ref* ref;
  check(ray_submit(rt, fn, &arg, 1, NULL, &ref, &err));
  return ref;
}

/* The number behind a reference, which ends here. */
static int64_t number_of(ray_ref* ref) {
  ray_buffer buffer;
  int64_t number;
  check(ray_get(rt, &ref, 1, -1, &buffer, &err));
  memcpy(&number, buffer.data, sizeof number);
  ray_buffer_release(&buffer);
  ray_ref_release(ref);
  return number;
}

/* Makes *policy the mean of the best candidates around it; how long the best one kept the pole up. */
static int64_t learn(ray_function* fn, numbers* policy, uint64_t generation) {
  numbers candidates[kCandidates], mean = {{0}};
  ray_ref* played[kCandidates];
  int64_t steps[kCandidates], longest = 0;
  for (int i = 0; i < kCandidates; i++) {
    uint64_t seed = 1000 * generation + (uint64_t)i;
    for (int k = 0; k < 4; k++) candidates[i].n[k] = policy->n[k] + next(&seed);
    played[i] = start(fn, candidates[i], 1000 * generation, kEpisodes);
  }
  for (int i = 0; i < kCandidates; i++) steps[i] = number_of(played[i]);
  for (int b = 0; b < kBest; b++) { /* of equal ones the first */
    int best = 0;
    for (int i = 1; i < kCandidates; i++)
      if (steps[i] > steps[best]) best = i;
    for (int k = 0; k < 4; k++) mean.n[k] += candidates[best].n[k];
    if (b == 0) longest = steps[best];
    steps[best] = -1;
  }
  for (int k = 0; k < 4; k++) policy->n[k] = mean.n[k] / kBest;
  return longest;
}

/* How long the pole stands in 100 episodes that learning never saw. */
static int64_t judge(ray_function* fn, numbers policy) {
  ray_ref* played[10];
  int64_t steps = 0;
  for (uint64_t i = 0; i < 10; i++) played[i] = start(fn, policy, 1000000 + 10 * i, 10);
  for (int i = 0; i < 10; i++) steps += number_of(played[i]);
  return steps;
}

static void serve(numbers policy) {
  ray_function* klass;
  ray_actor* server;
  check(ray_function_get(rt, ray_cstr("Server"), &klass, &err));
  ray_arg arg = {NULL, ray_plain(&policy, sizeof policy, RAY_FMT_RAW)};
  check(ray_actor_create(rt, klass, &arg, 1, NULL, &server, &err));
  numbers state = begin(7);
  int step = 0, rights = 0;
  for (; step < kSteps && stands(state); step++) {
    ray_arg now = {NULL, ray_plain(&state, sizeof state, RAY_FMT_RAW)};
    ray_ref* ref;
    check(ray_actor_call(server, ray_cstr("is_right"), &now, 1, NULL, &ref, &err));
    int right = (int)number_of(ref);
    state = push(state, right);
    rights += right;
  }
  printf("served %d pushes, %d to the right: the pole %s\n", step, rights, stands(state) ? "stands" : "fell");
  ray_actor_release(server), ray_function_release(klass);
}

int main(void) {
  check(ray_register_function(ray_cstr("play"), play_task, NULL, &err));
  check(ray_register_actor(ray_cstr("Server"), server_create, server_destroy, NULL, &err));
  check(ray_register_method(ray_cstr("Server"), ray_cstr("is_right"), server_is_right, NULL, &err));
  check(ray_init(NULL, &rt, &err));
  if (ray_runtime_mode(rt) == RAY_MODE_WORKER) return ray_worker_run(rt, NULL) != RAY_OK;

  ray_function* fn;
  check(ray_function_get(rt, ray_cstr("play"), &fn, &err));
  numbers policy = {{0}};
  int64_t judged = 0;
  for (uint64_t generation = 1; judged < kSolved; generation++) {
    int64_t best = learn(fn, &policy, generation);
    judged = judge(fn, policy);
    printf("generation %d: the best of 16 kept the pole up %lld of 2000 steps, their mean %lld of 50000\n",
           (int)generation, (long long)best, (long long)judged);
  }
  serve(policy);
  ray_function_release(fn);
  ray_runtime_release(rt); /* ends the cluster that this program started */
}
