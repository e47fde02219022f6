// See wake_chain.h.
#include "libray/runtime/wake_chain.h"

#include <algorithm>
#include <bit>

#include "libray/base/doorbell.h"

namespace ray {

void WakeChain::attach(wire::NodePage* page, uint32_t process, uint32_t processors) {
  page_ = page;
  process_ = process;
  n_places_ = std::clamp<uint32_t>(processors, 2, wire::kMaxPlaces);
}

bool WakeChain::awake(uint32_t process) {
  return process != 0 && process < wire::kMaxProcesses &&
         bell(process)->load(std::memory_order_relaxed) == kAwake;
}

// Among the first n; kNone when every holder is awake. Begins behind the last one that was found, so that
// with many places the look does not go over those that were just taken.
uint32_t WakeChain::free_place(uint32_t n) {
  std::atomic_ref<uint32_t> found(found_);
  for (uint32_t k = 0, i = found.load(std::memory_order_relaxed); k < n; ++k) {
    i = i + 1 < n ? i + 1 : 0;
    if (awake(page_->wakes.places[i].load(std::memory_order_relaxed))) continue;
    found.store(i, std::memory_order_relaxed);
    return i;
  }
  return kNone;
}

bool WakeChain::marked(uint32_t peer) const {
  return page_->wakes.waiting[peer / 64].load(std::memory_order_relaxed) >> (peer % 64) & 1;
}

// True: it was marked, and the caller alone has taken the mark away.
bool WakeChain::unmark(uint32_t peer) {
  if (!marked(peer)) return false;
  const uint64_t bit = uint64_t{1} << (peer % 64);
  return page_->wakes.waiting[peer / 64].fetch_and(~bit) & bit;
}

bool WakeChain::wake(uint32_t peer) {
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (__builtin_expect(awake(peer), 1)) return false;
  wire::WakePage& w = page_->wakes;
  const uint64_t bit = uint64_t{1} << (peer % 64), word = uint64_t{1} << (peer / 64);
  // The caller is awake itself, whatever its bell says: one place is not for workers meanwhile.
  const uint32_t n = n_places_ - 1;
  std::atomic<uint32_t>& mine = w.places[n];
  if (mine.load(std::memory_order_relaxed) != process_)
    mine.store(process_, std::memory_order_relaxed);
  if (marked(peer)) return true;  // whoever takes the mark finds this too
  if (uint32_t place = free_place(n); place != kNone) {
    w.places[place].store(peer, std::memory_order_relaxed);
    ring(bell(peer));
    return false;
  }
  w.waiting[peer / 64].fetch_or(bit);
  if (!(w.summary.load(std::memory_order_relaxed) & word)) w.summary.fetch_or(word);
  std::atomic_thread_fence(std::memory_order_seq_cst);
  uint32_t place = free_place(n);
  if (place == kNone) return true;
  if (!unmark(peer)) return false;  // somebody has it in hand
  w.places[place].store(peer, std::memory_order_relaxed);
  ring(bell(peer));
  return false;
}

void WakeChain::settle() { (void)unmark(process_); }

// The marked process that comes after the last one that was taken, so that all have their turn; 0:
// there is none. Its mark is gone.
uint32_t WakeChain::take_marked() {
  wire::WakePage& w = page_->wakes;
  const uint32_t last = w.cursor.load(std::memory_order_relaxed) % wire::kMaxProcesses;
  auto take = [&](uint32_t word, uint64_t among) -> uint32_t {
    for (uint64_t bits; (bits = w.waiting[word].load(std::memory_order_acquire) & among) != 0;) {
      uint32_t found = word * 64 + static_cast<uint32_t>(std::countr_zero(bits));
      if (!unmark(found)) continue;
      w.cursor.store(found, std::memory_order_relaxed);
      return found;
    }
    return 0;
  };
  if (uint32_t found = take(last / 64, ~uint64_t{1} << (last % 64))) return found;
  for (uint64_t words; (words = w.summary.load(std::memory_order_acquire)) != 0;) {
    const uint32_t behind = last / 64 + 1;
    const auto turn =
        static_cast<uint32_t>(std::countr_zero(std::rotr(words, static_cast<int>(behind % 64))));
    const uint32_t word = (behind + turn) % 64;
    if (uint32_t found = take(word, ~uint64_t{0})) return found;
    w.summary.fetch_and(~(uint64_t{1} << word));
    if (w.waiting[word].load() != 0) w.summary.fetch_or(uint64_t{1} << word);
  }
  return 0;
}

bool WakeChain::pass_on() {
  if (!crowded()) return false;
  const uint32_t place = free_place(n_places_);
  if (place == kNone) return false;  // they will
  while (uint32_t next = take_marked()) {
    if (awake(next)) continue;  // woken for another reason: it looks for itself
    page_->wakes.places[place].store(next, std::memory_order_relaxed);
    page_->wakes.passed.fetch_add(1, std::memory_order_relaxed);
    ring(bell(next));
    return true;
  }
  return false;
}

void WakeChain::wake_now(uint32_t peer) {
  (void)unmark(peer);
  ring(bell(peer));
}

}  // namespace ray
