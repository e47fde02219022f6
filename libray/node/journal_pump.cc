// See journal_pump.h.
#include "libray/node/journal_pump.h"

#include <malloc.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>

#include "libray/base/clock.h"
#include "libray/base/log.h"
#include "libray/base/thread.h"
#include "libray/lineage/record.h"

namespace ray::node {
namespace {

constexpr auto kNap = std::chrono::milliseconds(15);      // between drains: lets batches grow
constexpr auto kCoolDown = std::chrono::milliseconds(200);  // idle this long: give pages back
constexpr int64_t kRetryNs = 100'000'000;
constexpr size_t kDrainBytes = 1 << 20;                   // of one ring before the next has its turn

}  // namespace

struct JournalPump::Shared {
  std::mutex mutex;
  std::condition_variable wake;
  bool stop = false, poked = false, progress = false;
  std::atomic<bool> asleep{false};
  std::vector<std::shared_ptr<Channel>> attach;
  std::vector<uint32_t> detach;
  std::vector<std::pair<uint16_t, std::string>> own;  // records of the daemon itself
  std::vector<std::function<void()>> flush;
  std::vector<Shard> shards;
  size_t stash = 0;
  Stats stats;
};

JournalPump::JournalPump(gcs::Client* gcs, wire::NodePage* page,
                         std::function<void(uint32_t)> on_corrupt)
    : gcs_(gcs), page_(page), on_corrupt_(std::move(on_corrupt)), shared_(std::make_shared<Shared>()) {
  shared_->shards.resize(gcs->shards());
  started_ = start_thread(&thread_, "the thread of the journal", [this] { run(); });
}

JournalPump::~JournalPump() {
  {
    std::lock_guard lock(shared_->mutex);
    shared_->stop = true;
  }
  shared_->wake.notify_all();
  if (thread_.joinable()) thread_.join();
}

void JournalPump::attach(std::shared_ptr<Channel> channel) {
  std::lock_guard lock(shared_->mutex);
  shared_->attach.push_back(std::move(channel));
  shared_->poked = true;
  shared_->wake.notify_all();
}

void JournalPump::detach(uint32_t process) {
  std::lock_guard lock(shared_->mutex);
  shared_->detach.push_back(process);
  shared_->poked = true;
  shared_->wake.notify_all();
}

void JournalPump::add(uint16_t type, uint32_t process, const std::string& map) {
  lineage::EventRecord e{wall_ns(), process, static_cast<uint32_t>(map.size())};
  std::string record(reinterpret_cast<const char*>(&e), sizeof e);
  record += map;
  std::lock_guard lock(shared_->mutex);
  shared_->own.emplace_back(type, std::move(record));
  shared_->poked = true;
  shared_->wake.notify_all();
}

void JournalPump::flush(std::function<void()> done) {
  std::lock_guard lock(shared_->mutex);
  shared_->flush.push_back(std::move(done));
  shared_->poked = true;
  shared_->wake.notify_all();
}

void JournalPump::poke_if_wanted() {
  if (page_->lineage_armed.load(std::memory_order_acquire) != 0) return;
  if (!shared_->asleep.load(std::memory_order_acquire)) return;
  std::lock_guard lock(shared_->mutex);
  shared_->poked = true;
  shared_->wake.notify_all();
}

JournalPump::Stats JournalPump::stats() {
  std::lock_guard lock(shared_->mutex);
  Stats s = shared_->stats;
  s.stash = shared_->stash;
  return s;
}

uint32_t JournalPump::shard_for(uint16_t type, const uint8_t* data, uint32_t size) const {
  if ((type == lineage::kSubmit && size >= sizeof(lineage::SubmitRecord)) ||
      (type == lineage::kExec && size >= sizeof(lineage::ExecRecord))) {
    TaskId task;
    std::memcpy(task.b, data, sizeof task.b);  // the first field of both
    return gcs_->shard_of_slot(gcs_slot(task));
  }
  if ((type == lineage::kEvent || type == lineage::kError) && size >= sizeof(lineage::EventRecord)) {
    lineage::EventRecord e;
    std::memcpy(&e, data, sizeof e);
    return e.process % gcs_->shards();
  }
  return UINT32_MAX;
}

// Pump thread, mutex held.
void JournalPump::append(uint32_t shard, uint16_t type, const uint8_t* data, uint32_t size) {
  Shard& s = shared_->shards[shard];
  if (s.batches.empty() || s.batches.back()->sent || s.batches.back()->coder.raw_size() >= kBatchBytes)
    s.batches.push_back(std::make_shared<Batch>());
  s.batches.back()->coder.add(type, data, size);
  const uint64_t raw = sizeof(RecordHeader) + pad8(size);
  shared_->stash += raw;
  ++shared_->stats.records;
  shared_->stats.bytes += raw;
}

// Pump thread, mutex held. Returns the number of records taken.
size_t JournalPump::drain(Source* s) {
  RingConsumer& ring = s->channel->lineage;
  size_t taken = 0;
  uint64_t start = ring.position();
  RecordView r;
  while (shared_->stash < kMaxStash && (s->leaving || ring.position() - start < kDrainBytes)) {
    auto next = ring.next(&r);
    if (next == RingConsumer::Next::kEmpty) break;
    if (next == RingConsumer::Next::kCorrupt || !s->mirror.restore(&r.type, &r.data, &r.size)) {
      if (!s->leaving) on_corrupt_(s->channel->process);
      s->channel = nullptr;
      return taken;
    }
    uint32_t shard = shard_for(r.type, r.data, r.size);
    if (shard == UINT32_MAX)
      ++shared_->stats.dropped;
    else
      append(shard, r.type, r.data, r.size);
    ++taken;
  }
  if (ring.position() != start) {
    ring.release();
    s->touched = true;
  }
  return taken;
}

// Pump thread, mutex held (released around the calls: the client may answer at once).
void JournalPump::send(std::unique_lock<std::mutex>* lock) {
  int64_t now = steady_ns();
  for (uint32_t i = 0; i < shared_->shards.size(); ++i) {
    for (size_t at = 0; at < shared_->shards[i].batches.size();) {
      Shard& s = shared_->shards[i];
      std::shared_ptr<Batch> b = s.batches[at];
      if (s.in_flight >= kInFlight) break;
      if (b->sent || b->acked || b->retry_at > now) {
        ++at;
        continue;
      }
      b->sent = true;
      ++s.in_flight;
      ++shared_->stats.batches;
      std::string coded = b->coder.bytes();  // kept for another try
      lock->unlock();
      gcs_->append_coded(i, std::move(coded), b->coder.raw_size(), b->coder.records(),
                         [shared = shared_, b, i](Status st, uint64_t) {
        std::lock_guard guard(shared->mutex);
        Shard& shard = shared->shards[i];
        --shard.in_flight;
        if (st.ok()) {
          b->acked = true;
          shared->stash -= b->coder.raw_size();
          b->coder.take();
        } else {
          log(kLogWarning, "node", "journal-retry", "shard %u did not take a batch: %s", i,
              st.message().c_str());
          b->sent = false;
          b->retry_at = steady_ns() + kRetryNs;
        }
        while (!shard.batches.empty() && shard.batches.front()->acked) {
          shard.batches.pop_front();
          ++shard.first;
        }
        shared->progress = true;
        shared->wake.notify_all();
      });
      lock->lock();
      at = 0;
    }
  }
}

static uint64_t lineage_tail(const Channel& c) {
  return reinterpret_cast<const wire::ChannelHeader*>(c.map.data())->lineage.tail.load(
      std::memory_order_acquire);
}

// Pump thread, mutex held: what is in the rings now belongs to these flushes.
void JournalPump::begin_flushes() {
  for (auto& done : shared_->flush) {
    Flush f{std::move(done), false, {}, {}};
    for (auto& [process, s] : sources_)
      if (s.channel) f.tails[process] = lineage_tail(*s.channel);
    flushes_.push_back(std::move(f));
  }
  shared_->flush.clear();
}

void JournalPump::mark_drained() {
  for (Flush& f : flushes_) {
    if (f.drained) continue;
    bool drained = true;
    for (auto& [process, tail] : f.tails) {
      auto it = sources_.find(process);
      if (it != sources_.end() && it->second.channel)
        drained &= it->second.channel->lineage.position() >= tail;
    }
    if (!drained) continue;
    f.drained = true;
    for (const Shard& shard : shared_->shards) f.upto.push_back(shard.first + shard.batches.size());
  }
}

void JournalPump::finish_flushes(std::unique_lock<std::mutex>* lock) {
  while (!flushes_.empty()) {
    Flush& f = flushes_.front();
    if (!f.drained) return;
    for (size_t i = 0; i < f.upto.size(); ++i)
      if (shared_->shards[i].first < f.upto[i]) return;
    auto done = std::move(f.done);
    flushes_.pop_front();
    lock->unlock();
    done();
    lock->lock();
  }
}

bool JournalPump::rings_empty() {
  for (auto& [process, s] : sources_)
    if (s.channel && !s.channel->lineage.empty()) return false;
  return true;
}

// Pump thread, mutex held.
void JournalPump::sleep(std::unique_lock<std::mutex>* lock, bool drained) {
  Shared& s = *shared_;
  bool full = s.stash >= kMaxStash;
  auto hurried = [&s] { return s.stop || !s.flush.empty(); };
  auto woken = [&s] { return s.stop || s.poked || s.progress; };
  if (drained && !full) {
    s.wake.wait_for(*lock, kNap, hurried);
    return;
  }
  // Before the word that asks to be woken: whoever rings must find it set.
  s.asleep.store(true);
  if (!full) {
    page_->lineage_armed.store(1, std::memory_order_relaxed);
    std::atomic_thread_fence(std::memory_order_seq_cst);
  }
  if (full || rings_empty()) {
    // Writers look at the word without a fence, so a record may have slipped in unseen: look once more.
    bool quiet = s.wake.wait_for(*lock, kCoolDown, woken) == false && (full || rings_empty());
    bool idle = flushes_.empty();
    for (const Shard& shard : s.shards) idle &= shard.batches.empty();
    if (quiet && idle) {
      for (auto& [process, source] : sources_) {
        if (source.touched && source.channel) source.channel->forget_pages();
        source.touched = false;
      }
      if (s.stats.bytes != trimmed_at_) {  // what batches left behind in the heap
        trimmed_at_ = s.stats.bytes;
        lock->unlock();
        ::malloc_trim(0);
        lock->lock();
      }
      s.wake.wait(*lock, woken);
    }
    // Nobody waits for the commit, so let a batch grow before the first drain.
    if (s.poked && !s.progress && s.detach.empty()) s.wake.wait_for(*lock, kNap, hurried);
  }
  s.asleep.store(false);
  page_->lineage_armed.store(0, std::memory_order_relaxed);
}

void JournalPump::run() {
  ::setpriority(PRIO_PROCESS, static_cast<id_t>(::syscall(SYS_gettid)), 10);
  std::unique_lock lock(shared_->mutex);
  Shared& s = *shared_;
  while (!s.stop) {
    s.poked = s.progress = false;
    for (auto& c : s.attach) sources_[c->process].channel = c;
    s.attach.clear();
    for (uint32_t process : s.detach)
      if (auto it = sources_.find(process); it != sources_.end()) it->second.leaving = true;
    s.detach.clear();
    begin_flushes();
    size_t taken = s.own.size();
    for (auto& [type, record] : s.own) {
      auto* data = reinterpret_cast<const uint8_t*>(record.data());
      auto size = static_cast<uint32_t>(record.size());
      append(shard_for(type, data, size), type, data, size);
    }
    s.own.clear();
    for (auto it = sources_.begin(); it != sources_.end();) {
      if (it->second.channel) taken += drain(&it->second);
      bool gone = !it->second.channel || (it->second.leaving && it->second.channel->lineage.empty());
      it = gone ? sources_.erase(it) : std::next(it);
    }
    mark_drained();
    send(&lock);
    finish_flushes(&lock);
    if (!s.stop) sleep(&lock, taken > 0);
  }
  page_->lineage_armed.store(0, std::memory_order_relaxed);
  for (auto& f : s.flush) flushes_.push_back({std::move(f), true, {}, {}});
  s.flush.clear();
  std::deque<Flush> rest = std::move(flushes_);
  lock.unlock();
  for (Flush& f : rest) f.done();
}

}  // namespace ray::node
