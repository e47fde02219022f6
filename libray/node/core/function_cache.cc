// See function_cache.h.
#include "libray/node/core/function_cache.h"

#include <iterator>

namespace ray::node {

const std::string* FunctionCache::find(uint64_t key) {
  auto it = rows_.find(key);
  if (it == rows_.end()) return nullptr;
  order_.splice(order_.begin(), order_, it->second);
  return &it->second->definition;
}

bool FunctionCache::add(uint64_t key, std::string definition) {
  if (rows_.count(key)) return true;
  if (bytes_ + definition.size() > kMaxBytes) return false;
  bytes_ += definition.size();
  order_.push_front({key, std::move(definition), false});
  rows_[key] = order_.begin();
  trim();
  return true;
}

void FunctionCache::erase(uint64_t key) {
  auto it = rows_.find(key);
  if (it == rows_.end()) return;
  bytes_ -= it->second->definition.size();
  order_.erase(it->second);
  rows_.erase(it);
}

void FunctionCache::stored(uint64_t key) {
  auto it = rows_.find(key);
  if (it == rows_.end()) return;
  it->second->stored = true;
  trim();
}

void FunctionCache::trim() {
  for (auto it = order_.end(); bytes_ > kBytes && it != order_.begin();) {
    --it;
    if (!it->stored || it == order_.begin()) continue;  // the latest stays, however large it is
    bytes_ -= it->definition.size();
    rows_.erase(it->key);
    it = order_.erase(it);
  }
}

}  // namespace ray::node
