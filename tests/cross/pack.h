/* pack.h -- what the cross-language tests in C need of MessagePack, and where memory comes from. */
#ifndef TESTS_CROSS_PACK_H
#define TESTS_CROSS_PACK_H
#include "kit.h"

/* A value under construction: MessagePack bytes, and the parts that ray_value names. Bounded, as tests are. */
typedef struct pack {
  uint8_t bytes[4096];
  size_t size;
  ray_ref* refs[8];
  uint32_t n_refs;
  ray_bytes oob[4];
  size_t n_oob;
} pack;
void pack_init(pack* p);
void pack_nil(pack* p);
void pack_int(pack* p, int64_t v);
void pack_f64(pack* p, double v);
void pack_str(pack* p, const char* text);
void pack_array(pack* p, uint32_t n); /* n values follow; n < 65536 */
void pack_map(pack* p, uint32_t n);
void pack_ref(pack* p, ray_ref* ref);                                 /* takes no count */
void pack_actor(pack* p, ray_ref* ref);                               /* of ray_actor_to_ref */
void pack_f64_tensor(pack* p, const double* data, const uint32_t* shape, uint32_t n_dims);
void pack_keywords(pack* p, const char* name); /* the last argument is called so; alone in its value */
ray_value pack_value(const pack* p);
ray_arg pack_arg(const pack* p);

/* The values in place of a call: arg_int(7). They live in static memory, 16 at a time. */
ray_arg arg_int(int64_t v);
ray_arg arg_str(const char* text);

/* Reading. The first value in a buffer. */
mp of_buffer(const ray_buffer* buffer);
int64_t int_in(const ray_buffer* buffer);
double f64_in(const ray_buffer* buffer);
/* The text of a map's key; "" when it is not there. */
const char* text_at(mp map, const char* key, char* out, size_t capacity);

/* Which bytes of which file lie at an address: equal in two processes only if they are the same memory. */
typedef struct place {
  uint64_t inode, offset;
} place;
place place_of(const void* address);
#endif
