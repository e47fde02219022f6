// Threads for what may block: disk reads and writes, allocating and clearing pages. Started with
// the first job, so an idle store has none. A job runs on a job thread; what it returns runs on the
// store thread (JobPool::finish), so jobs need no lock on the store's state.
#pragma once
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace ray::store {

class JobPool {
 public:
  using Done = std::function<void()>;
  using Job = std::function<Done()>;
  // `wake` is called on a job thread whenever finish() has something to do.
  JobPool(uint32_t threads, std::function<void()> wake);
  ~JobPool();  // runs what is queued, drops completions
  void run(Job job);
  bool finish();               // store thread; false = nothing was done
  uint32_t in_flight() const;  // started or queued, not yet finished

 private:
  void loop();
  const uint32_t max_threads_;
  const std::function<void()> wake_;
  mutable std::mutex mu_;
  std::condition_variable cv_;
  std::deque<Job> queue_;
  std::vector<Done> done_;
  std::vector<std::thread> threads_;
  uint32_t idle_ = 0, in_flight_ = 0;
  bool stop_ = false;
};

}  // namespace ray::store
