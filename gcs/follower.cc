// See follower.h.
#include "gcs/follower.h"

#include <malloc.h>
#include <pthread.h>

#include <chrono>

#include "libray/base/log.h"
#include "libray/base/thread.h"

namespace ray::gcs {

namespace {
constexpr auto kGather = std::chrono::milliseconds(60);
constexpr uint64_t kTrimRecords = 20000;
constexpr auto kRetry = std::chrono::milliseconds(500);
}  // namespace

Follower::Follower(std::unique_ptr<Materialiser> materialiser, std::function<void()> progress)
    : m_(std::move(materialiser)), progress_(std::move(progress)) {
  target_ = m_->watermark();
  m_->use_spare_time(&spare_);
  started_ = start_thread(&thread_, "a thread of the control store", [this] { run(); });
  if (started_.ok()) pthread_setname_np(thread_.native_handle(), "gcs:materialise");
}

std::unique_ptr<Materialiser> Follower::end() {
  if (!thread_.joinable()) return std::move(m_);
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
    spare_.hurry(true);
  }
  wake_.notify_all();
  thread_.join();
  m_->use_spare_time(nullptr);
  return std::move(m_);
}

void Follower::follow(uint64_t sn, std::vector<JournalFile> segments, bool hurry) {
  bool asleep;
  {
    std::lock_guard lock(mutex_);
    asleep = target_ <= m_->watermark();
    target_ = sn;
    segments_ = std::move(segments);
    hurry_ = hurry;
    spare_.hurry(hurry_ || waiting_ > 0);
  }
  if (asleep || hurry) wake_.notify_one();
}

bool Follower::wait(uint64_t sn, int64_t timeout_ns) {
  std::unique_lock lock(mutex_);
  if (m_->watermark() >= sn) return true;
  if (no_waits_) return false;
  ++waiting_;
  spare_.hurry(true);
  wake_.notify_one();
  bool there = done_.wait_for(lock, std::chrono::nanoseconds(timeout_ns),
                              [&] { return m_->watermark() >= sn || stop_ || no_waits_; });
  --waiting_;
  spare_.hurry(hurry_ || waiting_ > 0);
  return there && m_->watermark() >= sn;
}

void Follower::end_waits() {
  std::lock_guard lock(mutex_);
  no_waits_ = true;
  done_.notify_all();
}

// The last thing that is asked of it: as much as can be done in this time.
bool Follower::finish(uint64_t sn, std::vector<JournalFile> segments, int64_t timeout_ns) {
  {
    std::lock_guard lock(mutex_);
    no_waits_ = false;
  }
  follow(sn, std::move(segments), true);
  return wait(sn, timeout_ns);
}

void Follower::run() {
  std::unique_lock lock(mutex_);
  while (!stop_) {
    wake_.wait(lock, [&] { return stop_ || target_ > m_->watermark(); });
    if (!stop_ && waiting_ == 0 && !hurry_)
      wake_.wait_for(lock, kGather, [&] { return stop_ || waiting_ > 0 || hurry_; });
    while (!stop_ && target_ > m_->watermark()) {
      uint64_t target = target_;
      auto segments = segments_;
      lock.unlock();
      Status s = m_->advance(segments, target);
      if (s.ok()) progress_();
      lock.lock();
      done_.notify_all();
      if (s.ok()) {
        failures_ = 0;
        continue;
      }
      if (failures_++ % 120 == 0)  // once a minute
        log(kLogError, "gcs", "materialise-failed", "%s; trying again", s.message().c_str());
      wake_.wait_for(lock, kRetry, [&] { return stop_; });
    }
    // What a burst took from the system goes back to it.
    if (!stop_ && m_->stats().records - trimmed_at_ > kTrimRecords) {
      trimmed_at_ = m_->stats().records;
      lock.unlock();
      spare_.await();
      malloc_trim(0);
      lock.lock();
    }
  }
}

}  // namespace ray::gcs
