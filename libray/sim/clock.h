// The simulator's time: events in the order of their times, those of one time in the order in which they were asked
// for. Nothing else moves the clock. One thread.
#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <utility>

namespace ray::sim {

inline constexpr int64_t kUs = 1'000, kMs = 1'000'000, kSecond = 1'000'000'000;

class Clock {
 public:
  int64_t now() const { return now_; }
  void at(int64_t when, std::function<void()> what) {
    events_.emplace(std::pair(when < now_ ? now_ : when, next_++), std::move(what));
  }
  void after(int64_t ns, std::function<void()> what) { at(now_ + ns, std::move(what)); }
  bool step() {  // false: nothing will ever happen again
    if (events_.empty()) return false;
    auto first = events_.extract(events_.begin());
    now_ = first.key().first;
    first.mapped()();
    return true;
  }

 private:
  std::map<std::pair<int64_t, uint64_t>, std::function<void()>> events_;
  uint64_t next_ = 0;
  int64_t now_ = kSecond;
};

}  // namespace ray::sim
