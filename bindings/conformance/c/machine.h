/* machine.h -- the C driver of the conformance programs (../SPEC.md): one machine runs one list of instructions, in the
 * driver, in a task, in an actor's call or in a thread of any of them. */
#ifndef CONFORMANCE_MACHINE_H
#define CONFORMANCE_MACHINE_H

#define _GNU_SOURCE
#include <pthread.h>
#include <ray.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { kSlots = 64, kTokens = 48, kThreads = 8 };

/* What an actor keeps between its calls. */
typedef struct state {
  pthread_mutex_t mutex;
  uint64_t sum;
  ray_ref* kept[8];
} state;

typedef struct machine machine;
typedef struct child_thread {
  pthread_t thread;
  machine* at;
  char* text;
  char path[64];
  bool running;
} child_thread;

struct machine {
  ray_task* task;                     /* NULL in a driver and in threads */
  state* self;                        /* of the actor; NULL elsewhere */
  bool is_driver;                     /* answers are printed */
  uint64_t acc;                       /* what the body has seen so far */
  uint32_t attempt;
  const ray_buffer* args;
  size_t n_args;
  bool failed;                        /* the body ends with `code` */
  ray_code code;
  char why[400];
  char path[64];                      /* of the instruction that runs */
  ray_ref* refs[kSlots];
  ray_actor* actors[kSlots];
  ray_stream* streams[kSlots];
  ray_id groups[kSlots];
  bool has_group[kSlots];
  uint64_t versions[16];              /* of keys, as last seen */
  child_thread threads[kThreads];
};

extern ray_runtime* rt;
extern const char* g_program; /* path of this binary */

/* ---- text ---- */
typedef struct words { /* one instruction: its words, bodies without their brackets */
  char* at[kTokens];
  size_t n;
} words;
/* Cuts the next instruction out of *text (which it changes) and moves *text behind it; false at the end. */
bool next_instruction(char** text, words* out);

/* ---- values: a tag, a size and a pattern that follows from both ---- */
typedef struct made {
  ray_value value;
  ray_bytes oob;
  void *data, *body;
  ray_ref* refs[kSlots];
  uint32_t n_owned;
  ray_ref* owned[kSlots];
} made;
/* "TAG:SIZE[:r1,a2]" with `mixed` instead of the tag if mixed != NULL. False: a slot is empty or the text is wrong. */
bool make_value(machine* m, const char* text, const uint64_t* mixed, made* out);
void free_value(made* v);
typedef struct seen {
  uint64_t tag, size;
  uint32_t n_refs;
  bool whole;
} seen;
seen look(const ray_buffer* buffer);
uint64_t mix(uint64_t acc, uint64_t x);
uint64_t pattern_word(uint64_t tag, uint64_t i);

/* ---- two languages: cross.c ---- */
bool is_cross(void);                 /* CONFORMANCE_CROSS: values have the form that all drivers share */
bool planted(const char* kind);      /* CONFORMANCE_PLANT: a fault that the tester has to find */
void make_cross(made* out, uint64_t tag, uint64_t size, const uint64_t* pattern, size_t n, uint64_t handles);
seen look_cross(const ray_buffer* buffer);
uint32_t inside_index(const ray_buffer* buffer, uint32_t j);
char* cross_text(const char* body, uint32_t results, size_t* size);
char* text_of(const ray_buffer* buffer);
ray_code function_for(const char* language, const char* name, ray_function** out, ray_error** err);
const char* name_for(bool is_stream, uint32_t results);

/* ---- running ---- */
void run_text(machine* m, char* text, const char* prefix);
void end_machine(machine* m);
/* One line of answer; in a body a failure (code != RAY_OK) ends it. */
void answer(machine* m, const char* format, ...) __attribute__((format(printf, 2, 3)));
void answer_code(machine* m, ray_code code, ray_error* err); /* consumes err */
void answer_ok(machine* m);
/* What had to come did not within the bound: nothing of the program is run any more. */
void give_up(machine* m);
void abort_driver(const char* why);
void say(const char* format, ...) __attribute__((format(printf, 1, 2)));
bool ask_tester(const char* kind, long n);

typedef void (*operation)(machine* m, words* w);
typedef struct entry {
  const char* name;
  operation run;
} entry;
extern const entry kTaskOperations[], kSurroundings[], kBodyOperations[];
void submit_options(machine* m, words* w, size_t from, ray_task_options* options, ray_placement* placement,
                    uint8_t* resources);
int join_main(int argc, char** argv);
void register_all(void);
long number(const char* text);
size_t put_amounts(uint8_t* out, size_t capacity, const char* text); /* "CPU:1,x:2" as a MessagePack map */
void say_long(const char* head, const char* text);

ray_ref** slot_ref(machine* m, const char* word);
ray_actor** slot_actor(machine* m, const char* word);
ray_stream** slot_stream(machine* m, const char* word);
int slot_number(const char* word, char kind);
void set_ref(machine* m, const char* word, ray_ref* ref);
void set_actor(machine* m, const char* word, ray_actor* actor);
void set_stream(machine* m, const char* word, ray_stream* stream);

#endif
