/* mp.c -- a MessagePack reader and writer of a hundred lines, so that the C tests depend on ray.h
 * alone. */
#include <math.h>
#include <stdarg.h>

#include "kit.h"

mp mp_of(const void* data, size_t size) {
  mp in;
  in.at = (const uint8_t*)data;
  in.end = in.at + size;
  return in;
}

static uint64_t big_endian(mp* in, int bytes) {
  uint64_t v = 0;
  int i;
  for (i = 0; i < bytes && in->at < in->end; i++) v = v << 8 | *in->at++;
  return v;
}

static mp_item with_bytes(mp* in, int type, uint64_t size, int has_ext) {
  mp_item item;
  memset(&item, 0, sizeof item);
  item.type = type;
  if (has_ext) item.ext = (int8_t)big_endian(in, 1);
  item.data = (const char*)in->at;
  item.size = (size_t)size;
  if (size > (uint64_t)(in->end - in->at)) {
    item.type = MP_BAD;
    in->at = in->end;
  } else {
    in->at += size;
  }
  return item;
}

static mp_item number(int64_t i) {
  mp_item item;
  memset(&item, 0, sizeof item);
  item.type = MP_INT;
  item.i = i;
  item.f = (double)i;
  return item;
}

static mp_item floating(mp* in, int bytes) {
  mp_item item;
  uint64_t bits = big_endian(in, bytes);
  memset(&item, 0, sizeof item);
  item.type = MP_FLOAT;
  if (bytes == 4) {
    uint32_t half = (uint32_t)bits;
    float f;
    memcpy(&f, &half, 4);
    item.f = f;
  } else {
    memcpy(&item.f, &bits, 8);
  }
  item.i = (int64_t)item.f;
  return item;
}

static mp_item container(int type, uint64_t size) {
  mp_item item;
  memset(&item, 0, sizeof item);
  item.type = type;
  item.size = (size_t)size;
  return item;
}

static mp_item tagged(mp* in, uint8_t b) {
  static const int sizes[] = {1, 2, 4, 8, 16};
  switch (b) {
    case 0xc0: return container(MP_NIL, 0);
    case 0xc2:
    case 0xc3: {
      mp_item item = number(b & 1);
      item.type = MP_BOOL;
      return item;
    }
    case 0xc4:
    case 0xc5:
    case 0xc6: return with_bytes(in, MP_BIN, big_endian(in, 1 << (b - 0xc4)), 0);
    case 0xc7:
    case 0xc8:
    case 0xc9: return with_bytes(in, MP_EXT, big_endian(in, 1 << (b - 0xc7)), 1);
    case 0xca: return floating(in, 4);
    case 0xcb: return floating(in, 8);
    case 0xcc:
    case 0xcd:
    case 0xce:
    case 0xcf: return number((int64_t)big_endian(in, 1 << (b - 0xcc)));
    case 0xd0: return number((int8_t)big_endian(in, 1));
    case 0xd1: return number((int16_t)big_endian(in, 2));
    case 0xd2: return number((int32_t)big_endian(in, 4));
    case 0xd3: return number((int64_t)big_endian(in, 8));
    case 0xd4:
    case 0xd5:
    case 0xd6:
    case 0xd7:
    case 0xd8: return with_bytes(in, MP_EXT, (uint64_t)sizes[b - 0xd4], 1);
    case 0xd9:
    case 0xda:
    case 0xdb: return with_bytes(in, MP_STR, big_endian(in, 1 << (b - 0xd9)), 0);
    case 0xdc:
    case 0xdd: return container(MP_ARRAY, big_endian(in, 2 << (b - 0xdc)));
    case 0xde:
    case 0xdf: return container(MP_MAP, big_endian(in, 2 << (b - 0xde)));
    default: return container(MP_BAD, 0);
  }
}

mp_item mp_next(mp* in) {
  uint8_t b;
  if (in->at >= in->end) return container(MP_BAD, 0);
  b = *in->at++;
  if (b < 0x80) return number(b);
  if (b >= 0xe0) return number((int8_t)b);
  if (b < 0x90) return container(MP_MAP, b & 15);
  if (b < 0xa0) return container(MP_ARRAY, b & 15);
  if (b < 0xc0) return with_bytes(in, MP_STR, b & 31, 0);
  return tagged(in, b);
}

void mp_skip(mp* in) {
  mp_item item = mp_next(in);
  size_t n = item.type == MP_MAP ? 2 * item.size : item.type == MP_ARRAY ? item.size : 0;
  while (n-- && in->at < in->end) mp_skip(in);
}

bool mp_find(mp in, const char* key, mp* out) {
  mp_item map = mp_next(&in);
  size_t i;
  if (map.type != MP_MAP) return false;
  for (i = 0; i < map.size; i++) {
    mp_item name = mp_next(&in);
    if (name.type == MP_STR && name.size == strlen(key) && memcmp(name.data, key, name.size) == 0) {
      *out = in;
      return true;
    }
    mp_skip(&in);
  }
  return false;
}

double mp_number(mp in) {
  mp_item item = mp_next(&in);
  return item.type == MP_INT || item.type == MP_FLOAT ? item.f : NAN;
}

bool mp_is_text(mp in, const char* text) {
  mp_item item = mp_next(&in);
  return (item.type == MP_STR || item.type == MP_BIN) && item.size == strlen(text) &&
         memcmp(item.data, text, item.size) == 0;
}

size_t mp_put_str(uint8_t* out, const char* text) {
  size_t n = strlen(text);
  CHECK(n < 256);
  out[0] = 0xd9;
  out[1] = (uint8_t)n;
  memcpy(out + 2, text, n);
  return n + 2;
}

size_t mp_put_u64(uint8_t* out, uint64_t value) {
  int i;
  out[0] = 0xcf;
  for (i = 0; i < 8; i++) out[1 + i] = (uint8_t)(value >> (56 - 8 * i));
  return 9;
}

size_t mp_put_f64(uint8_t* out, double value) {
  uint64_t bits;
  memcpy(&bits, &value, 8);
  mp_put_u64(out, bits);
  out[0] = 0xcb;
  return 9;
}

ray_bytes mp_map(uint8_t* buffer, size_t capacity, ...) {
  ray_bytes view;
  size_t at = 1, n = 0;
  const char* name;
  va_list pairs;
  va_start(pairs, capacity);
  while ((name = va_arg(pairs, const char*)) != NULL) {
    CHECK(at + strlen(name) + 12 < capacity);
    at += mp_put_str(buffer + at, name);
    at += mp_put_f64(buffer + at, va_arg(pairs, double));
    n++;
  }
  va_end(pairs);
  buffer[0] = (uint8_t)(0x80 | n);
  view.data = buffer;
  view.size = at;
  return view;
}

size_t mp_rows(mp in) {
  mp_item rows = mp_next(&in);
  return rows.type == MP_ARRAY ? rows.size : 0;
}

size_t mp_rows_with(mp in, const char* key, const char* text) {
  mp_item rows = mp_next(&in);
  size_t i, n = 0;
  mp value;
  for (i = 0; rows.type == MP_ARRAY && i < rows.size; i++) {
    if (mp_find(in, key, &value) && mp_is_text(value, text)) n++;
    mp_skip(&in);
  }
  return n;
}
