// Placement groups, for module.cc. See groups.cc.
#pragma once
#include <pybind11/pybind11.h>

#include "common.h"

namespace libray_py {
void define_groups(pybind11::module_& m);
}  // namespace libray_py
