/* pack.c -- see pack.h. */
#define _POSIX_C_SOURCE 200809L
#include "pack.h"

#include <inttypes.h>

void pack_init(pack* p) {
  p->size = 0;
  p->n_refs = 0;
  p->n_oob = 0;
}

static uint8_t* room(pack* p, size_t n) {
  uint8_t* at = p->bytes + p->size;
  CHECK(p->size + n <= sizeof p->bytes);
  p->size += n;
  return at;
}

static void put_be(uint8_t* at, uint64_t v, int bytes) {
  int i;
  for (i = 0; i < bytes; i++) at[i] = (uint8_t)(v >> (8 * (bytes - 1 - i)));
}

static void head16(pack* p, uint8_t code, uint32_t n) {
  uint8_t* at = room(p, 3);
  at[0] = code;
  put_be(at + 1, n, 2);
}

void pack_nil(pack* p) { *room(p, 1) = 0xc0; }

void pack_int(pack* p, int64_t v) {
  uint8_t* at = room(p, 9);
  at[0] = 0xd3;
  put_be(at + 1, (uint64_t)v, 8);
}

void pack_f64(pack* p, double v) { mp_put_f64(room(p, 9), v); }

void pack_str(pack* p, const char* text) {
  size_t n = strlen(text);
  head16(p, 0xda, (uint32_t)n);
  memcpy(room(p, n), text, n);
}

void pack_array(pack* p, uint32_t n) { head16(p, 0xdc, n); }
void pack_map(pack* p, uint32_t n) { head16(p, 0xde, n); }

static void index_ext(pack* p, uint8_t type, ray_ref* ref) {
  uint8_t* at = room(p, 6);
  at[0] = 0xd6;
  at[1] = type;
  put_be(at + 2, p->n_refs, 4);
  CHECK(p->n_refs < 8);
  p->refs[p->n_refs++] = ref;
}
void pack_ref(pack* p, ray_ref* ref) { index_ext(p, 1, ref); }
void pack_actor(pack* p, ray_ref* ref) { index_ext(p, 2, ref); }

void pack_f64_tensor(pack* p, const double* data, const uint32_t* shape, uint32_t n_dims) {
  size_t begin = p->size, n = 1;
  uint32_t i;
  uint8_t* at = room(p, 6);
  pack_array(p, 3);
  pack_str(p, "<f8");
  pack_array(p, n_dims);
  for (i = 0; i < n_dims; i++) {
    pack_int(p, shape[i]);
    n *= shape[i];
  }
  pack_int(p, (int64_t)p->n_oob);
  at[0] = 0xc9;
  put_be(at + 1, p->size - begin - 6, 4);
  at[5] = 3;
  p->oob[p->n_oob].data = data;
  p->oob[p->n_oob++].size = n * sizeof *data;
}

void pack_keywords(pack* p, const char* name) {
  size_t begin = p->size;
  uint8_t* at = room(p, 6);
  pack_array(p, 1);
  pack_str(p, name);
  at[0] = 0xc9;
  put_be(at + 1, p->size - begin - 6, 4);
  at[5] = 17;
}

ray_value pack_value(const pack* p) {
  ray_value v = ray_plain(p->bytes, p->size, RAY_FMT_MSGPACK);
  v.refs = p->refs;
  v.n_refs = p->n_refs;
  v.oob = p->oob;
  v.n_oob = p->n_oob;
  return v;
}

ray_arg pack_arg(const pack* p) {
  ray_arg arg = RAY_ARG_INIT;
  arg.value = pack_value(p);
  return arg;
}

static pack* next_pack(void) {
  static pack packs[16];
  static int next;
  pack* p = &packs[next++ % 16];
  pack_init(p);
  return p;
}

ray_arg arg_int(int64_t v) {
  pack* p = next_pack();
  pack_int(p, v);
  return pack_arg(p);
}

ray_arg arg_str(const char* text) {
  pack* p = next_pack();
  pack_str(p, text);
  return pack_arg(p);
}

mp of_buffer(const ray_buffer* buffer) { return mp_of(buffer->data, (size_t)buffer->size); }

int64_t int_in(const ray_buffer* buffer) {
  mp in = of_buffer(buffer);
  mp_item item;
  CHECK_EQ(buffer->format, RAY_FMT_MSGPACK);
  item = mp_next(&in);
  CHECK_EQ(item.type, MP_INT);
  return item.i;
}

double f64_in(const ray_buffer* buffer) {
  CHECK_EQ(buffer->format, RAY_FMT_MSGPACK);
  return mp_number(of_buffer(buffer));
}

const char* text_at(mp map, const char* key, char* out, size_t capacity) {
  mp found;
  mp_item item;
  out[0] = 0;
  if (!mp_find(map, key, &found)) return out;
  item = mp_next(&found);
  if (item.type != MP_STR) return out;
  if (item.size >= capacity) item.size = capacity - 1;
  memcpy(out, item.data, item.size);
  out[item.size] = 0;
  return out;
}

place place_of(const void* address) {
  place found = {0, 0};
  char line[1024];
  FILE* maps = fopen("/proc/self/maps", "r");
  if (!maps) return found;
  while (fgets(line, sizeof line, maps)) {
    uint64_t from, to, offset, inode;
    if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %*s %" SCNx64 " %*s %" SCNu64, &from, &to, &offset, &inode) != 4) continue;
    if ((uintptr_t)address < from || (uintptr_t)address >= to) continue;
    found.inode = inode;
    found.offset = offset + ((uintptr_t)address - from);
    break;
  }
  fclose(maps);
  return found;
}
