// What `ps` and `top` show of a worker: the title of its process. See title.cc.
#pragma once
#include "common.h"

namespace libray_py {
void prepare_title(const char* begin, const char* end);
void title_task(const ray_task_info& info);  // this process runs it now
void title_idle();                           // it waits
// What the user's code wants to see until the running task ends, and what is seen now.
PyObject* title_set(PyObject*, PyObject* title);
PyObject* title_get(PyObject*, PyObject*);
}  // namespace libray_py
