// Amounts of resources by name, as tasks, actors and groups ask for them and as a node has them. Values; any thread.
#pragma once
#include <cstdint>
#include <map>
#include <string>

#include "libray/base/status.h"

namespace ray::sched {

using Amount = int64_t;  // fixed point: 1e-4 of a unit
inline constexpr Amount kUnit = 10000;

std::string amount_text(Amount a);  // "1.5"

// Name -> amount; names sorted, no zeros.
class Resources {
 public:
  // Refuses names that are empty or longer than 64 bytes, and amounts that are negative, not
  // finite, above a million, or not zero but below 0.0001.
  Status add(const std::string& name, double amount);
  Amount get(const std::string& name) const;
  const std::map<std::string, Amount>& items() const { return items_; }
  bool empty() const { return items_.empty(); }
  std::string to_string() const;  // "CPU: 1, GPU: 0.5"

 private:
  std::map<std::string, Amount> items_;
};

}  // namespace ray::sched
