// header.cc -- ray.h alone, as C++17 with -pedantic -Werror.
#include "header_inits.h"

#include <type_traits>

static_assert(std::is_trivially_copyable_v<ray_buffer>, "buffers are moved by memcpy");
static_assert(std::is_standard_layout_v<ray_task_options>);

extern "C" int kit_header_cxx(void);
extern "C" int kit_header_cxx(void) { return header_inits(); }
