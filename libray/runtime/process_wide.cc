// See process_wide.h. Any thread.
#include "libray/runtime/process_wide.h"

#include <mutex>
#include <vector>

#include "libray/base/fork.h"
#include "libray/base/log.h"
#include "libray/runtime/handle.h"
#include "libray/runtime/object.h"
#include "libray/runtime/registry.h"
#include "libray/runtime/runtime.h"

namespace ray {

namespace {

struct Buried {
  std::mutex mutex;
  std::vector<Runtime*> list;
  Buried() { held_over_forks(&mutex); }
};
Buried& buried() {
  static auto* b = new Buried;
  return *b;
}

}  // namespace

void make_process_wide() {
  (void)HandleTable::instance();
  (void)Registry::instance();
  (void)object_slab();
  (void)task_slab();
  (void)buried();
  (void)log_lines_lost();
}

// Threads of the program may still be in its calls.
void Runtime::bury(Runtime* rt) {
  std::lock_guard lock(buried().mutex);
  buried().list.push_back(rt);
}

}  // namespace ray
