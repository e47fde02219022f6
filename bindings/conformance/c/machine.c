/* machine.c -- text, values, slots and the loop of a machine. */
#include "machine.h"

#include <stdarg.h>
#include <unistd.h>

/* ---- text ----------------------------------------------------------------------------------- */

static char* end_of_body(char* at) { /* at: behind '['; to its ']' */
  int depth = 1;
  for (; *at; at++) {
    if (*at == '[') depth++;
    if (*at == ']' && --depth == 0) break;
  }
  return at;
}

bool next_instruction(char** text, words* out) {
  char* at = *text;
  out->n = 0;
  for (;;) {
    while (*at == ' ' || *at == '\n' || (*at == ';' && out->n == 0)) at++;
    if (*at == 0 || *at == ';') break;
    if (out->n == kTokens) break;
    if (*at == '[') {
      out->at[out->n++] = at + 1;
      at = end_of_body(at + 1);
    } else {
      out->at[out->n++] = at;
      while (*at && *at != ' ' && *at != '\n' && *at != ';') at++;
    }
    if (*at == ';') {
      *at++ = 0;
      *text = at;
      return true;
    }
    if (*at) *at++ = 0;
  }
  *text = at;
  return out->n > 0;
}

/* ---- values --------------------------------------------------------------------------------- */

static const uint64_t kStep = 0x9e3779b97f4a7c15ull;

uint64_t mix(uint64_t acc, uint64_t x) { return acc * 6364136223846793005ull + x + 1; }

uint64_t pattern_word(uint64_t tag, uint64_t i) { return (tag + i) * kStep; }

static void fill(uint64_t* words_, size_t n, uint64_t tag) {
  size_t i;
  for (i = 0; i < n; i++) words_[i] = pattern_word(tag, i);
  if (n && tag % 7 == 0 && planted("value")) words_[n - 1] = 7;
}

static bool add_reference(machine* m, const char* word, made* out) {
  ray_ref* ref = NULL;
  if (word[0] == 'a') {
    ray_actor** actor = slot_actor(m, word);
    if (actor == NULL || *actor == NULL || ray_actor_to_ref(*actor, &ref, NULL) != RAY_OK) return false;
    out->owned[out->n_owned++] = ref;
  } else {
    ray_ref** slot = slot_ref(m, word);
    if (slot == NULL || *slot == NULL) return false;
    ref = *slot;
  }
  out->refs[out->value.n_refs++] = ref;
  return true;
}

/* A header of 16 bytes and the pattern; of every third tag the pattern lies out of band. */
bool make_value(machine* m, const char* text, const uint64_t* mixed, made* out) {
  char copy[512], *rest = NULL, *part, *colon;
  uint64_t tag, size, handles = 0;
  size_t n;
  memset(out, 0, sizeof *out);
  snprintf(copy, sizeof copy, "%s", text);
  tag = strtoull(copy, &rest, 10);
  if (*rest != ':') return false;
  size = strtoull(rest + 1, &rest, 10);
  if (mixed) tag = *mixed;
  for (colon = *rest == ':' ? rest + 1 : NULL; colon && *colon; colon = part) {
    part = strchr(colon, ',');
    if (part) *part++ = 0;
    if (colon[0] == 'a') handles |= 1ull << out->value.n_refs;
    if (out->value.n_refs == kSlots || !add_reference(m, colon, out)) {
      free_value(out);
      return false;
    }
  }
  if (out->value.n_refs && tag % 7 == 0 && planted("lost")) out->value.n_refs--;
  n = size / 8;
  out->data = malloc(16 + 8 * n);
  if (out->data == NULL) abort_driver("out of memory");
  memcpy(out->data, &tag, 8);
  memcpy((char*)out->data + 8, &size, 8);
  out->value.data = out->data;
  out->value.format = RAY_FMT_RAW;
  out->value.size = 16 + 8 * n;
  fill((uint64_t*)out->data + 2, n, tag);
  if (is_cross()) {
    make_cross(out, tag, size, (uint64_t*)out->data + 2, n, handles);
  } else if (tag % 3 == 0 && n > 64) {
    out->oob.data = (uint64_t*)out->data + 2;
    out->oob.size = 8 * n;
    out->value.oob = &out->oob;
    out->value.n_oob = 1;
    out->value.size = 16;
  }
  out->value.refs = out->refs;
  return true;
}

void free_value(made* v) {
  uint32_t i;
  for (i = 0; i < v->n_owned; i++) ray_ref_release(v->owned[i]);
  free(v->data);
  free(v->body);
  memset(v, 0, sizeof *v);
}

seen look(const ray_buffer* buffer) {
  seen s = {0, 0, buffer->n_refs, false};
  const uint8_t* at;
  size_t n, i;
  if (is_cross()) return look_cross(buffer);
  if (buffer->size == 0 && buffer->format == RAY_FMT_MSGPACK) return s;
  if (buffer->size < 16) return s;
  memcpy(&s.tag, buffer->data, 8);
  memcpy(&s.size, (const char*)buffer->data + 8, 8);
  n = s.size / 8;
  at = (const uint8_t*)buffer->data + 16;
  if (s.tag % 3 == 0 && n > 64) {
    if (buffer->size != 16 || buffer->n_oob != 1 || buffer->oob[0].size != 8 * n) return s;
    at = buffer->oob[0].data;
  } else if (buffer->size != 16 + 8 * n) {
    return s;
  }
  for (i = 0; i < n; i++) {
    uint64_t word;
    memcpy(&word, at + 8 * i, 8);
    if (word != (s.tag + i) * kStep) return s;
  }
  s.whole = true;
  return s;
}

/* ---- slots ---------------------------------------------------------------------------------- */

int slot_number(const char* word, char kind) {
  long n;
  char* end;
  if (word == NULL || word[0] != kind) return -1;
  n = strtol(word + 1, &end, 10);
  return *end == 0 && n >= 0 && n < kSlots ? (int)n : -1;
}

ray_ref** slot_ref(machine* m, const char* word) {
  int n = slot_number(word, 'r');
  return n < 0 ? NULL : &m->refs[n];
}
ray_actor** slot_actor(machine* m, const char* word) {
  int n = slot_number(word, 'a');
  return n < 0 ? NULL : &m->actors[n];
}
ray_stream** slot_stream(machine* m, const char* word) {
  int n = slot_number(word, 's');
  return n < 0 ? NULL : &m->streams[n];
}

void set_ref(machine* m, const char* word, ray_ref* ref) {
  ray_ref **slot = slot_ref(m, word), *old;
  if (slot == NULL) {
    ray_ref_release(ref);
    return;
  }
  old = *slot;
  *slot = ref;
  ray_ref_release(old);
}
void set_actor(machine* m, const char* word, ray_actor* actor) {
  ray_actor **slot = slot_actor(m, word), *old;
  if (slot == NULL) {
    ray_actor_release(actor);
    return;
  }
  old = *slot;
  *slot = actor;
  ray_actor_release(old);
}
void set_stream(machine* m, const char* word, ray_stream* stream) {
  ray_stream **slot = slot_stream(m, word), *old;
  if (slot == NULL) {
    ray_stream_release(stream);
    return;
  }
  old = *slot;
  *slot = stream;
  ray_stream_release(old);
}

void end_machine(machine* m) {
  int i;
  for (i = 0; i < kThreads; i++)
    if (m->threads[i].running) pthread_join(m->threads[i].thread, NULL);
  for (i = 0; i < kSlots; i++) {
    ray_ref_release(m->refs[i]);
    ray_actor_release(m->actors[i]);
    ray_stream_release(m->streams[i]);
    if (m->has_group[i]) ray_group_remove(rt, &m->groups[i], NULL); /* of one that gave up */
  }
  memset(m, 0, sizeof *m);
}

/* ---- answers -------------------------------------------------------------------------------- */

static pthread_mutex_t g_output = PTHREAD_MUTEX_INITIALIZER;

void abort_driver(const char* why) {
  fprintf(stderr, "conformance driver: %s\n", why);
  _exit(3);
}

/* One line in one write: other drivers share the descriptor. */
void say(const char* format, ...) {
  char line[4096];
  va_list list;
  int n;
  size_t done = 0;
  va_start(list, format);
  n = vsnprintf(line, sizeof line - 1, format, list);
  va_end(list);
  if (n < 0) return;
  if ((size_t)n > sizeof line - 2) n = sizeof line - 2;
  line[n++] = '\n';
  pthread_mutex_lock(&g_output);
  while (done < (size_t)n) {
    ssize_t w = write(1, line + done, (size_t)n - done);
    if (w <= 0) _exit(3);
    done += (size_t)w;
  }
  pthread_mutex_unlock(&g_output);
}

void say_long(const char* head, const char* text) {
  pthread_mutex_lock(&g_output);
  if (dprintf(1, "%s%s\n", head, text) < 0) _exit(3);
  pthread_mutex_unlock(&g_output);
}

bool ask_tester(const char* kind, long n) {
  static pthread_mutex_t asking = PTHREAD_MUTEX_INITIALIZER;
  char reply[64] = "";
  pthread_mutex_lock(&asking);
  say("f %s %ld", kind, n);
  if (fgets(reply, sizeof reply, stdin) == NULL) _exit(3);
  pthread_mutex_unlock(&asking);
  return strncmp(reply, "ok", 2) == 0;
}

void answer(machine* m, const char* format, ...) {
  char text[1024];
  va_list list;
  va_start(list, format);
  vsnprintf(text, sizeof text, format, list);
  va_end(list);
  if (m->is_driver) say("a %s %s", m->path, text);
}

void answer_ok(machine* m) { answer(m, "ok"); }

void give_up(machine* m) {
  if (m->is_driver) m->failed = true;
}

static const char* one_line(ray_error* err, char* out, size_t capacity) {
  ray_str text = {"", 0};
  char* at;
  if (err) text = ray_error_message(err);
  snprintf(out, capacity, "%.*s", (int)(text.size > 400 ? 400 : text.size), text.data ? text.data : "");
  for (at = out; *at; at++)
    if (*at == '\n') *at = ' ';
  return out;
}

void answer_code(machine* m, ray_code code, ray_error* err) {
  char text[500];
  one_line(err, text, sizeof text);
  ray_error_release(err);
  if (code == RAY_OK) {
    answer_ok(m);
  } else if (m->is_driver && code == RAY_TIMED_OUT) {
    answer(m, "t");
  } else if (m->is_driver) {
    answer(m, "e %s # %s", ray_code_name(code) + 4, text);
  } else if (!m->failed) {
    m->failed = true;
    m->code = m->task && ray_task_is_cancelled(m->task) ? RAY_CANCELLED : RAY_TASK_FAILED;
    snprintf(m->why, sizeof m->why, "body %s: %s %.200s", m->path, ray_code_name(code), text);
  }
}

/* ---- the loop ------------------------------------------------------------------------------- */

static operation find(const entry* table, const char* name) {
  for (; table->name; table++)
    if (strcmp(table->name, name) == 0) return table->run;
  return NULL;
}

void run_text(machine* m, char* text, const char* prefix) {
  words w;
  unsigned index;
  for (index = 0; !m->failed && next_instruction(&text, &w); index++) {
    operation run;
    if (w.at[0][0] >= '0' && w.at[0][0] <= '9') continue; /* how many results the body has */
    run = find(kTaskOperations, w.at[0]);
    if (run == NULL) run = find(kSurroundings, w.at[0]);
    if (run == NULL) run = find(kBodyOperations, w.at[0]);
    snprintf(m->path, sizeof m->path, "%s%u", prefix, index);
    if (run == NULL) {
      answer(m, "unknown %s", w.at[0]);
      if (!m->is_driver) answer_code(m, RAY_UNSUPPORTED, NULL);
      continue;
    }
    run(m, &w);
  }
}
