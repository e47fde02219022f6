// What happened in a run, line by line: for people when a checker complains, and as a number that two runs of one seed
// must have in common. One thread.
#pragma once
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <deque>
#include <string>

namespace ray::sim {

class History {
 public:
  explicit History(size_t most) : most_(most) {}
  __attribute__((format(printf, 3, 4))) void note(int64_t now, const char* format, ...) {
    char text[240];
    int n = std::snprintf(text, sizeof text, "%10.4f ", static_cast<double>(now) / 1e9);
    va_list list;
    va_start(list, format);
    std::vsnprintf(text + n, sizeof text - static_cast<size_t>(n), format, list);
    va_end(list);
    for (const char* c = text; *c; ++c) digest_ = (digest_ ^ static_cast<uint8_t>(*c)) * 0x100000001B3u;
    if (most_ == 0) return;
    lines_.emplace_back(text);
    if (lines_.size() > most_) lines_.pop_front();
  }
  uint64_t digest() const { return digest_; }
  std::string text() const {
    std::string all;
    for (const std::string& line : lines_) all += line + "\n";
    return all;
  }

 private:
  size_t most_;
  std::deque<std::string> lines_;
  uint64_t digest_ = 0xCBF29CE484222325u;
};

}  // namespace ray::sim
