// The runtime environments that are in use on a node, by number. Pure.
//
// A number is counted: by the shapes of processes, by actors that wait for a worker, and by workers. The last to drop
// it frees the packed map; numbers are not used again. What is in use takes a bounded number of bytes.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <unordered_map>

namespace ray::node {

class Environments {
 public:
  static constexpr size_t kMaxBytes = 64u << 20;
  static constexpr size_t kEach = 128;  // what one costs besides its bytes

  explicit Environments(size_t max_bytes = kMaxBytes) : max_bytes_(max_bytes) {}

  // The number of this one, counted once more; 0: there is no room for it.
  uint32_t take(std::string_view packed) {
    auto known = numbers_.find(std::string(packed));
    if (known == numbers_.end()) {
      if (bytes_ + packed.size() + kEach > max_bytes_) return 0;
      bytes_ += packed.size() + kEach;
      known = numbers_.emplace(packed, next_++).first;
      rows_[known->second] = {&known->first, 0};
    }
    ++rows_[known->second].uses;
    return known->second;
  }
  // 0 is the job's own environment, which needs no count.
  void keep(uint32_t number) {
    if (auto it = rows_.find(number); it != rows_.end()) ++it->second.uses;
  }
  // True: that was the last.
  bool drop(uint32_t number) {
    auto it = rows_.find(number);
    if (it == rows_.end() || --it->second.uses > 0) return false;
    bytes_ -= it->second.packed->size() + kEach;
    numbers_.erase(numbers_.find(*it->second.packed));
    rows_.erase(it);
    return true;
  }
  bool known(uint32_t number) const { return number == 0 || rows_.count(number) > 0; }
  std::string_view packed(uint32_t number) const {
    auto it = rows_.find(number);
    return it == rows_.end() ? std::string_view() : std::string_view(*it->second.packed);
  }
  size_t size() const { return rows_.size(); }
  std::map<uint32_t, uint32_t> uses() const {  // by number
    std::map<uint32_t, uint32_t> out;
    for (const auto& [number, row] : rows_) out[number] = row.uses;
    return out;
  }
  size_t bytes() const { return bytes_; }

 private:
  struct Row {
    const std::string* packed = nullptr;  // the key in numbers_
    uint32_t uses = 0;
  };
  size_t max_bytes_, bytes_ = 0;
  uint32_t next_ = 1;
  std::map<std::string, uint32_t> numbers_;
  std::unordered_map<uint32_t, Row> rows_;
};

}  // namespace ray::node
