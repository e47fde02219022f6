// See jobs.h.
#include "store/jobs.h"

#include <pthread.h>
#include <signal.h>

#include "libray/base/thread.h"

namespace ray::store {

JobPool::JobPool(uint32_t threads, std::function<void()> wake)
    : max_threads_(threads), wake_(std::move(wake)) {}

JobPool::~JobPool() {
  {
    std::lock_guard lock(mu_);
    stop_ = true;
  }
  cv_.notify_all();
  for (auto& t : threads_) t.join();
}

void JobPool::run(Job job) {
  {
    std::lock_guard lock(mu_);
    ++in_flight_;
    queue_.push_back(std::move(job));
    if (idle_ < queue_.size() && threads_.size() < max_threads_) {
      std::thread t;
      if (start_thread(&t, "a disk thread of the object store", [this] { loop(); }).ok())
        threads_.push_back(std::move(t));
    }
    cv_.notify_one();
    if (!threads_.empty()) return;
    job = std::move(queue_.front());
    queue_.pop_front();
  }
  // No thread is to be had: better here and now, with everybody waiting, than never.
  Done done = job();
  {
    std::lock_guard lock(mu_);
    done_.push_back(std::move(done));
  }
  wake_();
}

bool JobPool::finish() {
  std::vector<Done> done;
  {
    std::lock_guard lock(mu_);
    done.swap(done_);
    in_flight_ -= static_cast<uint32_t>(done.size());
  }
  for (auto& d : done)
    if (d) d();
  return !done.empty();
}

uint32_t JobPool::in_flight() const {
  std::lock_guard lock(mu_);
  return in_flight_;
}

void JobPool::loop() {
  // Signals belong to the program's own threads; a file-size limit must be an error, not SIGXFSZ.
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, nullptr);
  std::unique_lock lock(mu_);
  for (;;) {
    ++idle_;
    cv_.wait(lock, [this] { return stop_ || !queue_.empty(); });
    --idle_;
    if (queue_.empty()) return;
    Job job = std::move(queue_.front());
    queue_.pop_front();
    lock.unlock();
    Done done = job();
    job = nullptr;
    lock.lock();
    done_.push_back(std::move(done));
    lock.unlock();
    wake_();
    lock.lock();
  }
}

}  // namespace ray::store
