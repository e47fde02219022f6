// See function_users.h.
#include "libray/node/core/function_users.h"

namespace ray::node {

bool FunctionUsers::release(uint64_t key) {
  auto it = users_.find(key);
  if (it == users_.end() || --it->second > 0) return false;
  users_.erase(it);
  return true;
}

bool FunctionUsers::drop(uint32_t process, uint64_t key, uint64_t count) {
  auto mine = of_process_.find(process);
  if (mine == of_process_.end()) return false;
  auto it = mine->second.find(key);
  if (it == mine->second.end()) return false;
  if (it->second > count) {
    it->second -= count;
    return false;
  }
  mine->second.erase(it);
  if (mine->second.empty()) of_process_.erase(mine);
  return release(key);
}

std::vector<uint64_t> FunctionUsers::process_gone(uint32_t process) {
  std::vector<uint64_t> unused;
  auto mine = of_process_.find(process);
  if (mine == of_process_.end()) return unused;
  for (const auto& [key, count] : mine->second)
    if (release(key)) unused.push_back(key);
  of_process_.erase(mine);
  return unused;
}

}  // namespace ray::node
