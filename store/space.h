// Which part of a segment's address space is leased, warm (free, its pages are there) or cold
// (free, no pages). Pure: no I/O. Used by the daemon, one per segment; warm space is handed out
// first, the most recently freed exact fit before any other, so that a put finds pages in the
// caches.
#pragma once
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <unordered_map>
#include <utility>
#include <vector>

namespace ray::store {

class Space {
 public:
  struct Run {
    uint64_t offset, size;
  };
  explicit Space(uint64_t bytes);
  // Both take `size` bytes (a multiple of the unit) from the lowest or best place; nullopt: no such
  // run.
  std::optional<Run> take_warm(uint64_t size);
  std::optional<Run> take_cold(uint64_t size);
  // Gives a run back. Neighbours of the same temperature merge.
  void give(Run run, bool warm);
  // Takes the largest warm run, at most `limit` bytes of it, to return its pages to the system;
  // afterwards give(run, false).
  std::optional<Run> take_to_cool(uint64_t limit);
  uint64_t warm_bytes() const { return warm_bytes_; }

 private:
  using Map = std::map<uint64_t, uint64_t>;                // offset -> size
  using BySize = std::set<std::pair<uint64_t, uint64_t>>;  // size, offset
  std::optional<Run> take(Map& map, BySize& sizes, uint64_t size, bool lowest);
  void insert(Map& map, BySize& sizes, Run run);
  Map warm_, cold_;
  BySize warm_sizes_, cold_sizes_;
  // Exact-size runs as a stack per size: the last freed is the first reused. Not merged.
  std::unordered_map<uint64_t, std::vector<uint64_t>> recent_;
  void flush_recent();
  uint64_t warm_bytes_ = 0;
};

}  // namespace ray::store
