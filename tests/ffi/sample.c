/* What a user's library looks like: one function per C type that a signature can name. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

int ffi_sample_variable = 7;

bool same_bool(bool v) { return v; }
int8_t same_i8(int8_t v) { return v; }
uint8_t same_u8(uint8_t v) { return v; }
int16_t same_i16(int16_t v) { return v; }
uint16_t same_u16(uint16_t v) { return v; }
int32_t same_i32(int32_t v) { return v; }
uint32_t same_u32(uint32_t v) { return v; }
int64_t same_i64(int64_t v) { return v; }
uint64_t same_u64(uint64_t v) { return v; }
float same_f32(float v) { return v; }
double same_f64(double v) { return v; }
const char *same_str(const char *v) { return v; }
const char *no_str(void) { return NULL; }
const char *latin1(void) { return "\xe4"; }

static int calls;
void count_call(void) { ++calls; }
int32_t call_count(void) { return calls; }

bool is_null(const void *p) { return p == NULL; }
uint64_t sum_bytes(const uint8_t *p, size_t n) {
  uint64_t sum = 0;
  for (size_t i = 0; i < n; ++i) sum += p[i];
  return sum;
}
double sum_doubles(const double *p, size_t n) {
  double sum = 0;
  for (size_t i = 0; i < n / sizeof *p; ++i) sum += p[i];
  return sum;
}
bool is_aligned(const void *p) { return (uintptr_t)p % 64 == 0; }
uint64_t scribble(char *p, size_t n) {
  memset(p, 0xff, n);
  return n;
}
/* More arguments than registers, of every class. */
double mix(int8_t a, double b, uint64_t c, float d, int32_t e, const char *f, uint16_t g, double h, int64_t i,
           const uint8_t *p, size_t n, double j, float k, double l, double m, double o, double q) {
  return a + b + (double)c + d + e + (double)strlen(f) + g + h + (double)i + (n ? p[n - 1] : 0) + j + k + l + m + o + q;
}
