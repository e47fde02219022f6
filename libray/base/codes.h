// The codes of ray.h and their names, once for all that shows them: code_name(), ray_code_name(), and the views of the
// control store, which are SQL text. gcs_schema_test compares the list with the header's enum.
#pragma once
#include "ray.h"

// X(code without RAY_, its number): the number is part of SQL text, which a constant cannot be pasted into.
#define RAY_FOR_EACH_CODE(X)                                                                                       \
  X(OK, 0) X(CANCELLED, 1) X(INVALID_ARGUMENT, 2) X(TIMED_OUT, 3) X(NOT_FOUND, 4) X(ALREADY_EXISTS, 5)             \
  X(OUT_OF_MEMORY, 6) X(UNAVAILABLE, 7) X(WRONG_STATE, 8) X(UNSUPPORTED, 9) X(INTERNAL, 10) X(CONFLICT, 11)        \
  X(TASK_FAILED, 100) X(WORKER_CRASHED, 101) X(OBJECT_LOST, 102) X(UNSCHEDULABLE, 103) X(ACTOR_DIED, 104)          \
  X(ACTOR_RESTARTING, 105) X(STREAM_END, 106) X(STORE_FULL, 107) X(NODE_DIED, 108) X(GROUP_REMOVED, 109)           \
  X(UNKNOWN_FUNCTION, 110)

#define RAY_CODE_IS(name, number) static_assert(RAY_##name == number);
RAY_FOR_EACH_CODE(RAY_CODE_IS)
#undef RAY_CODE_IS
