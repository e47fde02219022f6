// See journal_pump.h.
#include "libray/node/journal_pump.h"

#include <malloc.h>
#include <sched.h>
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
constexpr auto kShortNap = std::chrono::microseconds(300);  // while much waits
constexpr auto kCoolDown = std::chrono::milliseconds(200);  // idle this long: give pages back
constexpr int64_t kRetryNs = 100'000'000;
constexpr int64_t kMarkNs = 1'000'000'000;
constexpr size_t kDrainBytes = 1 << 20;                   // of one ring before the next has its turn; of the patient
constexpr size_t kPatientBytes = 256 << 10;               // thread
// A thread does not get a lower weight back, so there are two of them. A driver and a worker that both spin for each other
// lose a tenth of their rate to a pump of the higher weight, and wait for room in their rings beside one of the lower.
constexpr int kPatientNice = 10, kHastyNice = 3;
constexpr uint64_t kHasteAbove = 2 << 20, kHasteBelow = 256 << 10;  // of the fullest ring
static_assert(kHasteAbove < wire::kLineageRingBytes / 2);

// It takes no processor from a task when it wakes.
void stay_behind(int nice) {
  ::setpriority(PRIO_PROCESS, static_cast<id_t>(::syscall(SYS_gettid)), nice);
  const sched_param none{};
  (void)::sched_setscheduler(0, SCHED_BATCH, &none);
}

}  // namespace

struct JournalPump::Shared {
  std::mutex mutex;
  std::condition_variable wake;
  std::condition_variable turn;  // `haste` was changed
  bool stop = false, poked = false, progress = false;
  bool haste = false;  // whose turn it is: the hasty thread's, or the patient one's
  std::atomic<bool> asleep{false};
  struct Change {
    std::shared_ptr<Channel> attach;  // none: the process leaves
    uint32_t process;
    int64_t time_ns = 0;  // of leaving
  };
  std::vector<Change> changes;  // in order: an index is used again
  std::vector<std::pair<uint16_t, std::string>> own;  // records of the daemon itself
  std::vector<std::function<void()>> flush;
  std::vector<Shard> shards;
  std::vector<std::pair<uint64_t, uint64_t>> freed;  // of the spool: where, how much
  size_t stash = 0;
  Stats stats;

  void answered(uint32_t index, Batch* b, const Status& s);
};

// The mutex is held. On a thread of the client.
void JournalPump::Shared::answered(uint32_t index, Batch* b, const Status& s) {
  Shard& shard = shards[index];
  --shard.in_flight;
  // Malformed, or of an epoch that is over: it is not taken at the next try either.
  const bool lost = s.code() == RAY_INVALID_ARGUMENT || s.code() == RAY_CONFLICT;
  if (s.ok() || lost) {
    b->acked = true;
    if (b->spooled) freed.emplace_back(b->spool_at, b->spool_size);
    else stash -= b->coder.take().size();
    if (lost) stats.dropped += b->coder.records();
    if (lost)
      log(kLogError, "node", "journal-lost", "shard %u refused %u records of lineage: %s", index, b->coder.records(),
          s.message().c_str());
  } else {
    log(kLogWarning, "node", "journal-retry", "shard %u did not take a batch: %s", index, s.message().c_str());
    b->sent = false;
    b->retry_at = steady_ns() + kRetryNs;
  }
  while (!shard.batches.empty() && shard.batches.front()->acked) {
    shard.batches.pop_front();
    ++shard.first;
  }
  progress = true;
  wake.notify_all();
}

JournalPump::JournalPump(gcs::Client* gcs, wire::NodePage* page,
                         std::function<void(uint32_t)> on_corrupt, const std::string& spool_dir,
                         uint64_t spool_bytes)
    : gcs_(gcs), page_(page), on_corrupt_(std::move(on_corrupt)), shared_(std::make_shared<Shared>()),
      spool_(spool_dir, spool_dir.empty() ? 0 : spool_bytes) {
  shared_->shards.resize(gcs->shards());
  started_ = start_thread(&patient_, "the thread of the journal", [this] { run(false); });
  if (started_.ok()) started_ = start_thread(&hasty_, "the thread of the journal", [this] { run(true); });
}

JournalPump::~JournalPump() {
  {
    std::lock_guard lock(shared_->mutex);
    shared_->stop = true;
  }
  shared_->wake.notify_all();
  shared_->turn.notify_all();
  for (std::thread* t : {&patient_, &hasty_})
    if (t->joinable()) t->join();
  end();
}

void JournalPump::attach(std::shared_ptr<Channel> channel) {
  std::lock_guard lock(shared_->mutex);
  const uint32_t process = channel->process;
  shared_->changes.push_back({std::move(channel), process});
  shared_->poked = true;
  shared_->wake.notify_all();
}

void JournalPump::detach(uint32_t process) {
  std::lock_guard lock(shared_->mutex);
  shared_->changes.push_back({nullptr, process, wall_ns()});
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
      (type == lineage::kExec && size >= sizeof(lineage::ExecRecord)) ||
      (type == lineage::kAgain && size == sizeof(lineage::AgainRecord)) ||
      (type == lineage::kEnd && size >= sizeof(lineage::EndRecord))) {
    TaskId task;
    std::memcpy(task.b, data, sizeof task.b);  // the first field of all
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
  lineage::DeltaEncoder& coder = s.batches.back()->coder;
  const size_t before = coder.bytes().size();
  coder.add(type, data, size);
  shared_->stash += coder.bytes().size() - before;
  ++shared_->stats.records;
  shared_->stats.bytes += sizeof(RecordHeader) + pad8(size);
}

void JournalPump::append_to_all(uint16_t type, const void* record, uint32_t size) {
  for (uint32_t i = 0; i < shared_->shards.size(); ++i) append(i, type, static_cast<const uint8_t*>(record), size);
}

// Pump thread, mutex held: all that the process wrote has been read.
void JournalPump::append_left(uint32_t process, int64_t time_ns) {
  const lineage::LeftRecord r{time_ns, process, 0};
  append_to_all(lineage::kLeft, &r, sizeof r);
  ++unmarked_;
}

// Pump thread, mutex held.
void JournalPump::make_changes() {
  for (Shared::Change& c : shared_->changes) {
    if (c.attach) {
      sources_[next_source_++].channel = std::move(c.attach);
      continue;
    }
    bool found = false;
    for (auto& [number, s] : sources_) {
      if (!s.channel || s.leaving || s.channel->process != c.process) continue;
      found = s.leaving = true;
      s.process = c.process;
      s.left_ns = c.time_ns;
    }
    if (!found) append_left(c.process, c.time_ns);  // its ring was broken
  }
  shared_->changes.clear();
}

// Pump thread, mutex held. Returns the number of records taken. Those that are gone come first: what others write because
// they are gone, or with their index, was written after make_changes() heard of it.
size_t JournalPump::drain_all() {
  size_t taken = 0;
  for (const bool leaving : {true, false})
    for (auto it = sources_.begin(); it != sources_.end();) {
      Source& s = it->second;
      if (s.leaving == leaving && s.channel) taken += drain(&s);
      const bool gone = !s.channel || (s.leaving && s.channel->lineage.empty());
      if (gone && s.leaving) append_left(s.process, s.left_ns);
      it = gone ? sources_.erase(it) : std::next(it);
    }
  return taken;
}

// Pump thread, mutex held. Returns the number of records taken.
size_t JournalPump::drain(Source* s) {
  RingConsumer& ring = s->channel->lineage;
  size_t taken = 0;
  uint64_t start = ring.position();
  RecordView r;
  const size_t most = shared_->haste ? kDrainBytes : kPatientBytes;
  while (shared_->stash < kMaxStash && (s->leaving || ring.position() - start < most)) {
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
      std::string coded;  // a copy: it is kept for another try
      if (!b->spooled) coded = b->coder.bytes();
      lock->unlock();
      if (b->spooled && !spool_.get(b->spool_at, b->spool_size, &coded)) {
        lock->lock();
        shared_->answered(i, b.get(), error(RAY_CONFLICT, "they cannot be read back from disk"));
      } else {
        gcs_->append_coded(i, std::move(coded), b->coder.raw_size(), b->coder.records(),
                           [shared = shared_, b, i](Status st, uint64_t) {
                             std::lock_guard guard(shared->mutex);
                             shared->answered(i, b.get(), st);
                           });
        lock->lock();
      }
      at = 0;
    }
  }
}

// Pump thread, mutex held (released while the disk works). The latest batch that is whole and not under way: the
// oldest are the next to be sent. False: there is none, or it cannot be written.
bool JournalPump::spool_one(std::unique_lock<std::mutex>* lock) {
  std::shared_ptr<Batch> found;
  size_t depth = 0;  // of the longest queue there is
  for (Shard& s : shared_->shards)
    for (size_t at = s.batches.size(); at-- > 0;) {
      Batch& b = *s.batches[at];
      if (b.sent || b.acked || b.spooled || b.coder.raw_size() < kBatchBytes) continue;
      if (!found || s.batches.size() > depth) {
        found = s.batches[at];
        depth = s.batches.size();
      }
      break;
    }
  if (!found) return false;
  lock->unlock();  // nobody else touches a batch that is not under way
  const std::string& bytes = found->coder.bytes();
  const bool written = spool_.put(bytes, &found->spool_at);
  lock->lock();
  if (!written) return false;
  found->spooled = true;
  found->spool_size = bytes.size();
  shared_->stash -= found->spool_size;
  found->coder.take();
  return true;
}

void JournalPump::spool(std::unique_lock<std::mutex>* lock) {
  for (auto& [at, size] : shared_->freed) spool_.drop(at, size);
  shared_->freed.clear();
  if (shared_->stash > kSpoolAbove)
    while (shared_->stash > kSpoolAbove / 2 && spool_one(lock)) {
    }
  shared_->stats.spooled = spool_.bytes();
}

static uint64_t lineage_tail(const Channel& c) {
  return reinterpret_cast<const wire::ChannelHeader*>(c.map.data())->lineage.tail.load(
      std::memory_order_acquire);
}

// Pump thread, mutex held. Begins a mark, or ends one when all that was in the rings then has been read. all_read:
// the rings are empty and about to stay so.
void JournalPump::mark(bool all_read) {
  if (mark_ns_ == 0 && unmarked_ > 0 && (all_read || steady_ns() - marked_at_ >= kMarkNs)) {
    marked_at_ = steady_ns();
    mark_ns_ = wall_ns();
    unmarked_ = 0;
    mark_tails_.clear();
    for (auto& [number, s] : sources_)
      if (s.channel) mark_tails_[number] = lineage_tail(*s.channel);
  }
  if (mark_ns_ == 0) return;
  for (auto& [number, tail] : mark_tails_) {
    auto it = sources_.find(number);
    if (it != sources_.end() && it->second.channel && it->second.channel->lineage.position() < tail) return;
  }
  const lineage::MarkRecord m{mark_ns_};
  append_to_all(lineage::kMark, &m, sizeof m);
  mark_ns_ = 0;
}

// Pump thread, mutex held: what is in the rings now belongs to these flushes.
void JournalPump::begin_flushes() {
  for (auto& done : shared_->flush) {
    Flush f{std::move(done), false, {}, {}};
    for (auto& [number, s] : sources_)
      if (s.channel) f.tails[number] = lineage_tail(*s.channel);
    flushes_.push_back(std::move(f));
  }
  shared_->flush.clear();
}

void JournalPump::mark_drained() {
  for (Flush& f : flushes_) {
    if (f.drained) continue;
    bool drained = true;
    for (auto& [number, tail] : f.tails) {
      auto it = sources_.find(number);
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
  for (auto& [number, s] : sources_)
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
      for (auto& [number, source] : sources_) {
        if (source.touched && source.channel) source.channel->forget_pages();
        source.touched = false;
      }
      if (unmarked_ > 0) {
        mark(true);
        s.poked = true;  // it is sent before the long sleep
      } else if (s.stats.bytes != trimmed_at_) {  // what batches left behind in the heap
        trimmed_at_ = s.stats.bytes;
        lock->unlock();
        ::malloc_trim(0);
        lock->lock();
      }
      s.wake.wait(*lock, woken);
    }
    // Nobody waits for the commit, so let a batch grow before the first drain.
    if (s.poked && !s.progress && s.changes.empty()) s.wake.wait_for(*lock, kNap, hurried);
  }
  s.asleep.store(false);
  page_->lineage_armed.store(0, std::memory_order_relaxed);
}

// How much waits in the fullest ring.
uint64_t JournalPump::fullest() {
  uint64_t most = 0;
  for (auto& [number, s] : sources_) {
    if (!s.channel) continue;
    const uint64_t n = lineage_tail(*s.channel) - s.channel->lineage.position();
    if (n <= wire::kLineageRingBytes) most = std::max(most, n);  // else the next look at the ring finds it broken
  }
  return most;
}

// Pump thread, mutex held. Whether there was anything.
bool JournalPump::round(std::unique_lock<std::mutex>* lock) {
  Shared& s = *shared_;
  s.poked = s.progress = false;
  make_changes();
  begin_flushes();
  size_t taken = s.own.size();
  for (auto& [type, record] : s.own) {
    auto* data = reinterpret_cast<const uint8_t*>(record.data());
    auto size = static_cast<uint32_t>(record.size());
    append(shard_for(type, data, size), type, data, size);
  }
  s.own.clear();
  taken += drain_all();
  unmarked_ += taken;
  mark(false);
  mark_drained();
  send(lock);
  spool(lock);
  finish_flushes(lock);
  return taken > 0;
}

// One of the two threads has the turn; only it changes whose it is, between two rounds. Without room for what it reads
// nobody is in haste.
void JournalPump::run(bool hasty) {
  stay_behind(hasty ? kHastyNice : kPatientNice);
  std::unique_lock lock(shared_->mutex);
  Shared& s = *shared_;
  while (true) {
    s.turn.wait(lock, [&s, hasty] { return s.stop || s.haste == hasty; });
    if (s.stop) return;
    const bool some = round(&lock);
    s.stats.hasty_rounds += hasty;
    if (s.stop) return;
    const bool full = s.stash >= kMaxStash;
    const uint64_t waits = full ? 0 : fullest();
    const bool haste = waits > (hasty ? kHasteBelow : kHasteAbove);
    if (haste != hasty) {
      s.haste = haste;
      s.turn.notify_all();
    } else if (!hasty && waits < kPatientBytes) {
      sleep(&lock, some);
    } else {
      s.wake.wait_for(lock, kShortNap);  // others want the mutex, too
    }
  }
}

// Both threads have ended.
void JournalPump::end() {
  page_->lineage_armed.store(0, std::memory_order_relaxed);
  for (auto& f : shared_->flush) flushes_.push_back({std::move(f), true, {}, {}});
  shared_->flush.clear();
  std::deque<Flush> rest = std::move(flushes_);
  for (Flush& f : rest) f.done();
}

}  // namespace ray::node
