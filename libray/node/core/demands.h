// What a task or actor asks of a node, read from the resource map that it brings. Pure.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "libray/base/ids.h"
#include "libray/base/status.h"

namespace ray::node {

// {name: amount}; empty bytes = nothing. `env`: the packed map of the entry "runtime_env", if any.
Status read_resources(std::string_view bytes, std::map<std::string, double>* out,
                      std::string* env = nullptr);

// The entry "placement" of resources: where a task or actor may run.
struct Placement {
  Id group, node;       // zero: any
  int32_t bundle = -1;  // -1: any
  bool soft = false;    // another node will do
  std::string never;    // why no node will do, for now
  bool here = false;    // what is asked of the node holds for this one, and another was not looked at
};
Status read_placement(std::string_view resources, Placement* out);

}  // namespace ray::node
