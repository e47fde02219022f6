// Simple exponential averages, avg <- a*x + (1-a)*avg, and a bounded table of them by function. Pure.
#pragma once
#include <algorithm>
#include <cstdint>
#include <list>
#include <unordered_map>
#include <utility>

namespace ray::global {

class Average {
 public:
  // `x` is the mean of n samples: it weighs as much as n samples of that value one after another.
  void add(double alpha, double x, uint32_t n = 1) {
    if (n == 0) return;
    if (!known_) {
      known_ = true;
      value_ = x;
      return;
    }
    double stays = 1;
    for (uint32_t i = 0, most = std::min(n, 64u); i < most; ++i) stays *= 1 - alpha;
    value_ = stays * value_ + (1 - stays) * x;
  }
  bool known() const { return known_; }
  double value() const { return value_; }
  double or_else(double x) const { return known_ ? value_ : x; }

 private:
  double value_ = 0;
  bool known_ = false;
};

// Run times by function; whatever was not heard of for longest goes when there are too many.
class FunctionTimes {
 public:
  explicit FunctionTimes(size_t most) : most_(most) {}
  void add(double alpha, uint64_t function, double ns, uint32_t n) {
    auto [it, fresh] = table_.try_emplace(function);
    if (fresh) {
      order_.push_front(function);
      it->second.place = order_.begin();
    } else {
      order_.splice(order_.begin(), order_, it->second.place);
    }
    it->second.average.add(alpha, ns, n);
    if (table_.size() > most_) {
      table_.erase(order_.back());
      order_.pop_back();
    }
  }
  const Average* find(uint64_t function) const {
    auto it = table_.find(function);
    return it == table_.end() ? nullptr : &it->second.average;
  }
  size_t size() const { return table_.size(); }

 private:
  struct Entry {
    Average average;
    std::list<uint64_t>::iterator place;
  };
  const size_t most_;
  std::unordered_map<uint64_t, Entry> table_;  // looked up, never walked
  std::list<uint64_t> order_;
};

}  // namespace ray::global
