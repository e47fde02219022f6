// What the Python half is told of a task that has more around it than its arguments: a placement
// group, GPUs. See surroundings.cc.
#pragma once
#include "common.h"

namespace libray_py {
bool enter_group(PyObject* note);  // false: with an exception set
void leave_group();
void enter_gpus(ray_task* task);
void leave_gpus();
}  // namespace libray_py
