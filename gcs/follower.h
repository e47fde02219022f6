// The thread that follows the journal with the materialiser.
//
// It sleeps without a timer when there is nothing to do, and gathers for a moment before it starts, so that the two halves
// of a task (submission, execution) meet in one transaction. Then it works in the time that the processors have to spare,
// so that it takes only what tasks leave: with a thread of the lowest weight, which ends as soon as that time is over, for
// such a thread on a crowded machine keeps others waiting (spare_time.h). When somebody waits, or the journal that is not
// read yet grows, or such time was not enough for a transaction for long, it works itself: on a machine that is crowded
// again and again each one that is begun in spare time may be left.
//
// Invariant: the materialiser is used by this thread while no spare one lives, else by that one.
#pragma once
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "gcs/materialise.h"
#include "gcs/spare_time.h"
#include "libray/base/status.h"

namespace ray::gcs {

class Follower {
 public:
  static constexpr int64_t kPatienceNs = 5'000'000'000;
  // progress: called after each transaction. patience: how long one may take, with the prune that it makes due, in spare
  // time; and how long such time is waited for.
  Follower(std::unique_ptr<Materialiser> materialiser, std::function<void()> progress, int64_t patience_ns = kPatienceNs);
  Status started() const { return started_; }  // an error: it has no thread
  ~Follower() { end(); }
  // Stops after the transaction that runs and what tidies up behind it. Nothing else may be asked then.
  std::unique_ptr<Materialiser> end();
  // The journal is committed up to sn. hurry: it grew large, catch up at once.
  void follow(uint64_t sn, std::vector<JournalFile> segments, bool hurry);
  // Waits until everything up to sn is materialised, which does not wait for spare time. False = time is over.
  bool wait(uint64_t sn, int64_t timeout_ns);
  bool finish(uint64_t sn, std::vector<JournalFile> segments, int64_t timeout_ns);
  // Ends all waits, now and later: the shard is about to end.
  void end_waits();
  uint64_t watermark() const { return m_->watermark(); }
  Materialiser& materialiser() { return *m_; }

 private:
  void run();
  void work(bool in_spare);
  void settle(const Status& s);
  bool await_spare_time(std::unique_lock<std::mutex>* lock);
  void set_hurry();

  SpareTime spare_;
  std::unique_ptr<Materialiser> m_;
  std::function<void()> progress_;
  int64_t patience_ns_;
  int64_t settled_at_ = 0;  // when a transaction was done last, or began to be wanted; of the invariant
  std::mutex mutex_;
  std::condition_variable wake_, done_;
  uint64_t target_ = 0;
  std::vector<JournalFile> segments_;
  uint64_t trimmed_at_ = 0, failures_ = 0;
  int waiting_ = 0;
  bool hurry_ = false, stop_ = false, no_waits_ = false;
  std::thread thread_;
  Status started_;
};

}  // namespace ray::gcs
