/* header.c -- ray.h alone, as C99 with -pedantic -Werror: it compiles, every INIT macro
 * initialises, and the sizes that bindings mirror are what they say. */
#include "header_inits.h"
#include "kit.h"

int kit_header_cxx(void); /* header.cc */

static void init_macros(void) {
  ray_buffer buffer = RAY_BUFFER_INIT;
  CHECK_EQ(header_inits(), 0);
  CHECK_EQ(kit_header_cxx(), 0);
  ray_buffer_release(&buffer); /* a zeroed buffer may be released */
}

static void sizes(void) {
  CHECK_EQ(sizeof(ray_id), RAY_ID_SIZE);
  CHECK_EQ(sizeof(ray_str), sizeof(void*) + sizeof(size_t));
  CHECK_EQ(sizeof(ray_code), 4);
  CHECK_EQ(sizeof(ray_value), 64);
  CHECK_EQ(sizeof(ray_arg), 72);
  CHECK_EQ(sizeof(ray_buffer), 72);
  CHECK_EQ(sizeof(ray_completion), 48);
}

static void views(void) {
  ray_str nothing = ray_cstr(NULL), text = ray_cstr("abc");
  ray_value value = ray_plain("xyz", 3, RAY_FMT_USER);
  CHECK(nothing.data == NULL && nothing.size == 0);
  CHECK(text.size == RAY_NUL && strcmp(text.data, "abc") == 0);
  CHECK_EQ(value.size, 3);
  CHECK_EQ(value.format, RAY_FMT_USER);
  CHECK_EQ(value.n_refs + value.n_oob, 0);
}

static void version(void) {
  CHECK_EQ(ray_api_version(), RAY_API_VERSION);
  CHECK(strlen(ray_build_info()) > 0);
  CHECK(ray_build_info() == ray_build_info());
}

static void codes(void) {
  static const struct {
    ray_code code;
    const char* name;
    bool retryable;
  } all[] = {{RAY_OK, "RAY_OK", false},
             {RAY_CANCELLED, "RAY_CANCELLED", false},
             {RAY_INVALID_ARGUMENT, "RAY_INVALID_ARGUMENT", false},
             {RAY_TIMED_OUT, "RAY_TIMED_OUT", true},
             {RAY_NOT_FOUND, "RAY_NOT_FOUND", false},
             {RAY_ALREADY_EXISTS, "RAY_ALREADY_EXISTS", false},
             {RAY_OUT_OF_MEMORY, "RAY_OUT_OF_MEMORY", false},
             {RAY_UNAVAILABLE, "RAY_UNAVAILABLE", true},
             {RAY_WRONG_STATE, "RAY_WRONG_STATE", false},
             {RAY_UNSUPPORTED, "RAY_UNSUPPORTED", false},
             {RAY_INTERNAL, "RAY_INTERNAL", false},
             {RAY_CONFLICT, "RAY_CONFLICT", true},
             {RAY_TASK_FAILED, "RAY_TASK_FAILED", false},
             {RAY_WORKER_CRASHED, "RAY_WORKER_CRASHED", false},
             {RAY_OBJECT_LOST, "RAY_OBJECT_LOST", false},
             {RAY_UNSCHEDULABLE, "RAY_UNSCHEDULABLE", false},
             {RAY_ACTOR_DIED, "RAY_ACTOR_DIED", false},
             {RAY_ACTOR_RESTARTING, "RAY_ACTOR_RESTARTING", true},
             {RAY_STREAM_END, "RAY_STREAM_END", false},
             {RAY_STORE_FULL, "RAY_STORE_FULL", false},
             {RAY_NODE_DIED, "RAY_NODE_DIED", false},
             {RAY_GROUP_REMOVED, "RAY_GROUP_REMOVED", false},
             {RAY_UNKNOWN_FUNCTION, "RAY_UNKNOWN_FUNCTION", false}};
  size_t i;
  for (i = 0; i < sizeof all / sizeof all[0]; i++) {
    if (strcmp(ray_code_name(all[i].code), all[i].name) != 0)
      kit_fail(__FILE__, __LINE__, "code %d is called %s", (int)all[i].code,
               ray_code_name(all[i].code));
    /* Whether a full store is worth a retry is the library's to say; the others are in the header.
     */
    if (all[i].code != RAY_STORE_FULL && all[i].code != RAY_OUT_OF_MEMORY)
      CHECK_EQ(ray_code_is_retryable(all[i].code), all[i].retryable);
  }
  CHECK(strcmp(ray_code_name(99), "RAY_UNKNOWN") == 0);
  CHECK(strcmp(ray_code_name(-1), "RAY_UNKNOWN") == 0);
  CHECK(!ray_code_is_retryable(99));
}

static void ids(void) {
  ray_id id;
  char hex[2 * RAY_ID_SIZE + 1];
  size_t i;
  for (i = 0; i < RAY_ID_SIZE; i++) id.b[i] = (uint8_t)(i * 11);
  memset(hex, 'x', sizeof hex);
  ray_id_to_hex(&id, hex);
  CHECK_EQ(strlen(hex), 48);
  CHECK(strncmp(hex, "000b16212c37424d", 16) == 0);
}

static const kit_test tests[] = {KIT_TEST(init_macros), KIT_TEST(sizes), KIT_TEST(views),
                                 KIT_TEST(version),     KIT_TEST(codes), KIT_TEST(ids)};
KIT_MAIN(tests, NULL)
