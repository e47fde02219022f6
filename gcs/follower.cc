// See follower.h.
#include "gcs/follower.h"

#include <malloc.h>
#include <pthread.h>

#include <chrono>

#include "libray/base/clock.h"
#include "libray/base/log.h"
#include "libray/base/thread.h"

namespace ray::gcs {

namespace {
constexpr auto kGather = std::chrono::milliseconds(60);
constexpr uint64_t kTrimRecords = 20000;
constexpr auto kRetry = std::chrono::milliseconds(500);
constexpr auto kLook = std::chrono::milliseconds(10);      // for spare time, while there is none
}  // namespace

Follower::Follower(std::unique_ptr<Materialiser> materialiser, std::function<void()> progress, int64_t patience_ns)
    : m_(std::move(materialiser)), progress_(std::move(progress)), patience_ns_(patience_ns) {
  target_ = m_->watermark();
  started_ = start_thread(&thread_, "a thread of the control store", [this] { run(); });
  if (started_.ok()) pthread_setname_np(thread_.native_handle(), "gcs:materialise");
}

std::unique_ptr<Materialiser> Follower::end() {
  if (!thread_.joinable()) return std::move(m_);
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
    set_hurry();
  }
  wake_.notify_all();
  thread_.join();
  return std::move(m_);
}

// Under the lock.
void Follower::set_hurry() {
  const bool hurry = hurry_ || waiting_ > 0 || stop_;
  if (hurry == spare_.hurried()) return;
  spare_.hurry(hurry);
  wake_.notify_all();
}

void Follower::follow(uint64_t sn, std::vector<JournalFile> segments, bool hurry) {
  bool asleep;
  {
    std::lock_guard lock(mutex_);
    asleep = target_ <= m_->watermark();
    target_ = sn;
    segments_ = std::move(segments);
    hurry_ = hurry;
    set_hurry();
  }
  if (asleep) wake_.notify_all();
}

bool Follower::wait(uint64_t sn, int64_t timeout_ns) {
  std::unique_lock lock(mutex_);
  if (m_->watermark() >= sn) return true;
  if (no_waits_) return false;
  ++waiting_;
  set_hurry();
  bool there = done_.wait_for(lock, std::chrono::nanoseconds(timeout_ns),
                              [&] { return m_->watermark() >= sn || stop_ || no_waits_; });
  --waiting_;
  set_hurry();
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
    settled_at_ = steady_ns();
    wake_.wait_for(lock, kGather, [&] { return spare_.hurried(); });
    while (!stop_ && target_ > m_->watermark()) {
      const bool spare = await_spare_time(&lock);
      if (stop_) break;
      lock.unlock();
      work(spare);
      lock.lock();
    }
    // What a burst took from the system goes back to it.
    if (!stop_ && m_->stats().records - trimmed_at_ > kTrimRecords) {
      trimmed_at_ = m_->stats().records;
      lock.unlock();
      malloc_trim(0);
      lock.lock();
    }
  }
}

// False: the next transaction is to be done without.
bool Follower::await_spare_time(std::unique_lock<std::mutex>* lock) {
  while (!spare_.hurried() && steady_ns() - settled_at_ < patience_ns_) {
    if (spare_.is_there()) return true;
    wake_.wait_for(*lock, kLook, [&] { return spare_.hurried(); });
  }
  return false;
}

// One transaction, without the lock. A spare thread touches nothing but the materialiser: it may stand still with what it
// holds.
void Follower::work(bool in_spare) {
  uint64_t target;
  std::vector<JournalFile> segments;
  {
    std::lock_guard lock(mutex_);
    target = target_;
    segments = segments_;
  }
  Status s;
  std::thread last;
  auto in_spare_time = [&] {
    pthread_setname_np(pthread_self(), "gcs:spare");
    SpareTime::take_turns_last();
    s = m_->advance(segments, target, &spare_);
  };
  if (in_spare && start_thread(&last, "a thread of the control store", in_spare_time).ok()) last.join();
  else s = m_->advance(segments, target);
  settle(s);
}

void Follower::settle(const Status& s) {
  if (s.ok()) progress_();
  if (s.ok() && !m_->prune_left()) settled_at_ = steady_ns();
  std::unique_lock lock(mutex_);
  done_.notify_all();
  if (s.ok()) failures_ = 0;
  if (s.ok() || s.code() == RAY_CANCELLED) return;
  if (failures_++ % 120 == 0)  // once a minute
    log(kLogError, "gcs", "materialise-failed", "%s; trying again", s.message().c_str());
  wake_.wait_for(lock, kRetry, [&] { return stop_; });
}

}  // namespace ray::gcs
