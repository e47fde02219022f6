// See space.h.
#include "store/space.h"

#include <algorithm>

namespace ray::store {

Space::Space(uint64_t bytes) { insert(cold_, cold_sizes_, {0, bytes}); }

void Space::insert(Map& map, BySize& sizes, Run run) {
  auto next = map.lower_bound(run.offset);
  if (next != map.begin()) {
    auto prev = std::prev(next);
    if (prev->first + prev->second == run.offset) {
      run = {prev->first, prev->second + run.size};
      sizes.erase({prev->second, prev->first});
      map.erase(prev);
    }
  }
  if (next != map.end() && run.offset + run.size == next->first) {
    run.size += next->second;
    sizes.erase({next->second, next->first});
    map.erase(next);
  }
  map.emplace(run.offset, run.size);
  sizes.emplace(run.size, run.offset);
}

std::optional<Space::Run> Space::take(Map& map, BySize& sizes, uint64_t size, bool lowest) {
  auto it = sizes.lower_bound({size, 0});
  if (it == sizes.end()) return std::nullopt;
  uint64_t offset = it->second;
  if (lowest) {  // first fit keeps the arena dense; few cold runs exist
    for (auto& [at, bytes] : map)
      if (bytes >= size) {
        offset = at;
        break;
      }
  }
  auto at = map.find(offset);
  uint64_t have = at->second;
  sizes.erase({have, offset});
  map.erase(at);
  if (have > size) {
    map.emplace(offset + size, have - size);
    sizes.emplace(have - size, offset + size);
  }
  return Run{offset, size};
}

void Space::flush_recent() {
  for (auto& [size, stack] : recent_)
    for (uint64_t offset : stack) insert(warm_, warm_sizes_, {offset, size});
  recent_.clear();
}

std::optional<Space::Run> Space::take_warm(uint64_t size) {
  if (warm_bytes_ < size) return std::nullopt;
  std::optional<Run> run;
  if (auto it = recent_.find(size); it != recent_.end() && !it->second.empty()) {
    run = Run{it->second.back(), size};
    it->second.pop_back();
  } else {
    run = take(warm_, warm_sizes_, size, false);
    if (!run && !recent_.empty()) {
      flush_recent();
      run = take(warm_, warm_sizes_, size, false);
    }
  }
  if (run) warm_bytes_ -= size;
  return run;
}

std::optional<Space::Run> Space::take_cold(uint64_t size) {
  return take(cold_, cold_sizes_, size, true);
}

void Space::give(Run run, bool warm) {
  if (!warm) return insert(cold_, cold_sizes_, run);
  warm_bytes_ += run.size;
  recent_[run.size].push_back(run.offset);
}

std::optional<Space::Run> Space::take_to_cool(uint64_t limit) {
  if (warm_bytes_ == 0) return std::nullopt;
  flush_recent();
  uint64_t have = warm_sizes_.rbegin()->first;
  auto run = take(warm_, warm_sizes_, std::min(have, limit), false);
  if (run) warm_bytes_ -= run->size;
  return run;
}

}  // namespace ray::store
