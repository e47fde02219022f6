/* cross.c -- the form of values in programs of two languages (../SPEC.md, "Two languages"), which is MessagePack: a tag,
 * a size, bytes, an array and what is inside; and names of functions of other languages. */
#include "machine.h"

bool is_cross(void) {
  static int known = -1;
  if (known < 0) known = getenv("CONFORMANCE_CROSS") != NULL;
  return known == 1;
}

bool planted(const char* kind) { /* KIND, or KIND@LANGUAGE */
  const char* plant = getenv("CONFORMANCE_PLANT");
  const size_t n = strlen(kind);
  return plant && strncmp(plant, kind, n) == 0 && (plant[n] == 0 || strcmp(plant + n, "@c") == 0);
}

/* ---- writing -------------------------------------------------------------------------------- */

static uint8_t* put_big(uint8_t* at, uint8_t mark, uint64_t value, int n) {
  *at++ = mark;
  for (n -= 1; n >= 0; n--) *at++ = (uint8_t)(value >> (8 * n));
  return at;
}

static uint8_t* put_index(uint8_t* at, uint8_t extension, uint32_t index) { /* -1: nil */
  if (extension == 0) {
    *at++ = 0xc0;
    return at;
  }
  *at++ = 0xd6;
  return put_big(at, extension, index, 4);
}

/* The value that make_value has laid out: n words of the pattern, and references in out->refs, of which bit i of
 * `handles` says which are actors. Array or bytes, as the tag says. */
void make_cross(made* out, uint64_t tag, uint64_t size, const uint64_t* pattern, size_t n, uint64_t handles) {
  const bool is_array = tag % 3 == 0;
  const size_t n_bytes = is_array ? 0 : 8 * n;
  uint32_t i;
  uint8_t* const begin = malloc(80 + n_bytes + 8 * (size_t)out->value.n_refs);
  uint8_t* at = begin;
  if (begin == NULL) abort_driver("out of memory");
  *at++ = 0x95;
  at = put_big(at, 0xcf, tag, 8);
  at = put_big(at, 0xcf, size, 8);
  at = put_big(at, 0xc6, n_bytes, 4);
  if (n_bytes) memcpy(at, pattern, n_bytes);
  at += n_bytes;
  memcpy(at, "\xd8\x03\x93\xa3<i8\x91", 8);
  at = put_big(at + 8, 0xcf, is_array ? n : 0, 8);
  *at++ = 0;
  at = put_big(at, 0xdd, out->value.n_refs, 4);
  for (i = 0; i < out->value.n_refs; i++) {
    const bool is_handle = handles >> i & 1;
    *at++ = 0x92;
    at = put_index(at, is_handle ? 0 : 1, i);
    at = put_index(at, is_handle ? 2 : 0, i);
  }
  out->oob.data = pattern;
  out->oob.size = is_array ? 8 * n : 0;
  out->value.oob = &out->oob;
  out->value.n_oob = 1;
  out->value.format = RAY_FMT_MSGPACK;
  out->value.data = out->body = begin;
  out->value.size = (size_t)(at - begin);
}

/* ---- reading -------------------------------------------------------------------------------- */

typedef struct reader {
  const uint8_t *at, *end;
} reader;
typedef struct item {
  char kind; /* 'i' number, 'b' bytes or text, 'a' array, 'x' extension, '0' nil, '?' anything else */
  uint8_t extension;
  uint64_t n; /* the number, or a size; of bytes and extensions `body` is where they lie */
  const uint8_t* body;
} item;

static uint64_t big(reader* r, int n) {
  uint64_t value = 0;
  for (; n > 0 && r->at < r->end; n--) value = value << 8 | *r->at++;
  return value;
}

static item of_body(reader* r, char kind, uint64_t n) {
  item it = {kind, 0, n, NULL};
  if (kind == 'x') it.extension = (uint8_t)big(r, 1);
  it.body = r->at;
  if (n > (uint64_t)(r->end - r->at)) it.kind = '?';
  else r->at += n;
  return it;
}

static item plain(char kind, uint64_t n) {
  item it = {kind, 0, n, NULL};
  return it;
}

static item next_item(reader* r) {
  const uint8_t c = (uint8_t)big(r, 1);
  if (c < 0x80) return plain('i', c);
  if (c >= 0xe0) return plain('i', (uint64_t)(int64_t)(int8_t)c);
  if (c >= 0x90 && c <= 0x9f) return plain('a', c & 15);
  if (c >= 0xa0 && c <= 0xbf) return of_body(r, 'b', c & 31);
  switch (c) {
    case 0xc0: return plain('0', 0);
    case 0xc4: case 0xd9: return of_body(r, 'b', big(r, 1));
    case 0xc5: case 0xda: return of_body(r, 'b', big(r, 2));
    case 0xc6: case 0xdb: return of_body(r, 'b', big(r, 4));
    case 0xc7: return of_body(r, 'x', big(r, 1));
    case 0xc8: return of_body(r, 'x', big(r, 2));
    case 0xc9: return of_body(r, 'x', big(r, 4));
    case 0xcc: return plain('i', big(r, 1));
    case 0xcd: return plain('i', big(r, 2));
    case 0xce: return plain('i', big(r, 4));
    case 0xcf: case 0xd3: return plain('i', big(r, 8));
    case 0xd0: return plain('i', (uint64_t)(int64_t)(int8_t)big(r, 1));
    case 0xd1: return plain('i', (uint64_t)(int64_t)(int16_t)big(r, 2));
    case 0xd2: return plain('i', (uint64_t)(int64_t)(int32_t)big(r, 4));
    case 0xd4: case 0xd5: case 0xd6: case 0xd7: case 0xd8: return of_body(r, 'x', 1u << (c - 0xd4));
    case 0xdc: return plain('a', big(r, 2));
    case 0xdd: return plain('a', big(r, 4));
    default: return plain('?', 0);
  }
}

/* Of an array: [dtype "<i8", [length], index of its buffer]; the words, or NULL. */
static const uint8_t* array_of(const ray_buffer* buffer, item tensor, uint64_t* length) {
  reader r;
  item all, dtype, shape, index;
  if (tensor.kind != 'x' || tensor.extension != 3) return NULL;
  r.at = tensor.body;
  r.end = tensor.body + tensor.n;
  all = next_item(&r);
  dtype = next_item(&r);
  shape = next_item(&r);
  if (all.n != 3 || dtype.n != 3 || memcmp(dtype.body, "<i8", 3) != 0 || shape.kind != 'a' || shape.n != 1) return NULL;
  *length = next_item(&r).n;
  index = next_item(&r);
  if (index.kind != 'i' || index.n >= buffer->n_oob || buffer->oob[index.n].size != 8 * *length) return NULL;
  return *length ? buffer->oob[index.n].data : tensor.body;
}

/* Reads the pairs of what is inside: their number, and which reference of the buffer the one at `wanted` is. False: they
 * are not right. A reference that is there twice may be one of the buffer. */
static bool read_inside(reader* r, uint32_t n_refs, uint32_t wanted, uint32_t* number, uint32_t* index) {
  item all = next_item(r);
  uint32_t i;
  if (all.kind != 'a') return false;
  for (i = 0; i < all.n; i++) {
    item pair = next_item(r), ref = next_item(r), handle = next_item(r), *one = ref.kind == 'x' ? &ref : &handle;
    reader body = {one->body, one->body + one->n};
    uint32_t at;
    if (pair.kind != 'a' || pair.n != 2 || (ref.kind == '0') == (handle.kind == '0')) return false;
    if (one->kind != 'x' || one->extension != (one == &ref ? 1 : 2) || one->n != 4) return false;
    at = (uint32_t)big(&body, 4);
    if (at >= n_refs) return false;
    if (i == wanted) *index = at;
  }
  *number = (uint32_t)all.n;
  return r->at == r->end;
}

/* Which reference of a value's buffer is the j-th inside; too many: there is none. */
uint32_t inside_index(const ray_buffer* buffer, uint32_t j) {
  reader r;
  uint32_t number, index = UINT32_MAX;
  int i;
  if (!is_cross()) return j;
  r.at = buffer->data;
  r.end = r.at + buffer->size;
  for (i = 0; i < 5; i++) next_item(&r); /* the list, tag, size, bytes, array */
  return read_inside(&r, buffer->n_refs, j, &number, &index) ? index : UINT32_MAX;
}

seen look_cross(const ray_buffer* buffer) {
  seen s = {0, 0, buffer->n_refs, false};
  reader r;
  item head, bytes, array;
  const uint8_t* words_;
  uint64_t length = 0, i, n;
  uint32_t index;
  r.at = buffer->data;
  r.end = r.at + buffer->size;
  if (buffer->format != RAY_FMT_MSGPACK || buffer->size < 5) return s;
  head = next_item(&r);
  if (head.kind != 'a' || head.n != 5) return s;
  s.tag = next_item(&r).n;
  s.size = next_item(&r).n;
  bytes = next_item(&r);
  array = next_item(&r);
  words_ = array_of(buffer, array, &length);
  n = s.size / 8;
  if (bytes.kind != 'b' || words_ == NULL || !read_inside(&r, buffer->n_refs, 0, &s.n_refs, &index)) return s;
  if (s.tag % 3 == 0 ? bytes.n != 0 || length != n : bytes.n != 8 * n || length != 0) return s;
  if (s.tag % 3 != 0) words_ = bytes.body;
  for (i = 0; i < n; i++) {
    uint64_t word;
    memcpy(&word, words_ + 8 * i, 8);
    if (word != pattern_word(s.tag, i)) return s;
  }
  s.whole = true;
  return s;
}

/* ---- bodies and names ----------------------------------------------------------------------- */

/* The text of a body as argument 0: text in MessagePack, begun with the number of results if those are several. */
char* cross_text(const char* body, uint32_t results, size_t* size) {
  char* out = malloc(strlen(body) + 32);
  int n;
  if (out == NULL) abort_driver("out of memory");
  n = results > 1 ? sprintf(out + 5, "%u;%s", results, body) : sprintf(out + 5, "%s", body);
  put_big((uint8_t*)out, 0xdb, (uint64_t)n, 4);
  *size = (size_t)n + 5;
  return out;
}

/* What argument 0 says, in either form; to be freed. */
char* text_of(const ray_buffer* buffer) {
  reader r;
  item text;
  if (buffer->format == RAY_FMT_RAW) return strndup(buffer->data, buffer->size);
  r.at = buffer->data;
  r.end = r.at + buffer->size;
  text = next_item(&r);
  return text.kind == 'b' ? strndup((const char*)text.body, text.n) : strdup("");
}

/* The function or class that a submission is for: its own, or in programs of two languages one by its name. */
ray_code function_for(const char* language, const char* name, ray_function** out, ray_error** err) {
  const bool is_class = strcmp(name, "Box") == 0;
  if (language == NULL || !is_cross()) return ray_function_get(rt, ray_cstr(name), out, err);
  if (strcmp(language, "python") == 0)
    return ray_function_named(rt, RAY_LANG_PYTHON, ray_cstr("machine"), ray_cstr(name), out, err);
  if (strcmp(language, "java") == 0)
    return ray_function_named(rt, RAY_LANG_JAVA, ray_cstr(is_class ? "Bodies$Box" : "Bodies"),
                              ray_cstr(is_class ? "" : name), out, err);
  return ray_function_named(rt, strcmp(language, "rust") == 0 ? RAY_LANG_RUST : RAY_LANG_NATIVE, ray_cstr(""),
                            ray_cstr(name), out, err);
}

const char* name_for(bool is_stream, uint32_t results) {
  if (!is_cross()) return "run";
  return is_stream ? "run_stream" : results > 1 ? "run_several" : "run";
}
