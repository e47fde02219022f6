// KeptBuffers: what a get that ran out of time had got already. Whoever waits in slices asks again at once: what was brought
// back from disk already stays pinned until then, or for a moment, so that several objects that hardly fit do not push each
// other out for ever, and copies of what does not fit add up.
//
// Who: Runtime::get on callers' threads, the pulse thread when the moment is over. Lock: its own, a leaf.
#pragma once
#include <atomic>
#include <mutex>
#include <vector>

#include "libray/base/clock.h"
#include "libray/base/status.h"

namespace ray {

class KeptBuffers {
 public:
  bool any() const { return any_.load(std::memory_order_relaxed); }
  bool old(int64_t now) const { return any() && now - since_ns_ > kKeptNs; }
  void keep(ray_buffer* buffers, size_t n) {
    if (n == 0) return;
    std::lock_guard lock(mutex_);
    for (size_t i = 0; i < n; ++i) {
      list_.push_back(buffers[i]);
      buffers[i].release = nullptr;
    }
    since_ns_ = steady_ns();
    any_ = true;
  }
  void take(std::vector<ray_buffer>* out) {
    std::lock_guard lock(mutex_);
    out->swap(list_);
    any_ = false;
  }
  void release() {
    std::vector<ray_buffer> gone;
    take(&gone);
    for (ray_buffer& b : gone)
      if (b.release) b.release(&b);
  }

 private:
  static constexpr int64_t kKeptNs = 200000000;
  std::mutex mutex_;
  std::vector<ray_buffer> list_;
  std::atomic<bool> any_{false};
  std::atomic<int64_t> since_ns_{0};
};

}  // namespace ray
