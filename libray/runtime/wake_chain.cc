// See wake_chain.h.
#include "libray/runtime/wake_chain.h"

#include <algorithm>
#include <bit>

#include "libray/base/doorbell.h"

namespace ray {

void WakeChain::attach(wire::NodePage* page, uint32_t process) {
  page_ = page;
  process_ = process;
  n_places_ = std::clamp<uint32_t>(page->wakes.n_places.load(std::memory_order_relaxed), 2, wire::kMaxPlaces);
}

bool WakeChain::alive(uint32_t process) {
  return process != 0 && process < wire::kMaxProcesses &&
         page_->bells[process].alive.load(std::memory_order_relaxed) != 0;
}

bool WakeChain::awake(uint32_t process) {
  return alive(process) && bell(process)->load(std::memory_order_relaxed) == kAwake;
}

// Among the first n; kNone when every holder is awake. Begins behind the last one that was found, so that
// with many places the look does not go over those that were just taken.
uint32_t WakeChain::free_place(uint32_t n) {
  std::atomic_ref<uint32_t> found(found_);
  for (uint32_t k = 0, i = found.load(std::memory_order_relaxed); k < n; ++k) {
    i = i + 1 < n ? i + 1 : 0;
    const uint32_t holder = page_->wakes.places[i].load(std::memory_order_relaxed);
    // Who took another place since then has left this one.
    if (awake(holder) && page_->bells[holder].place.load(std::memory_order_relaxed) == i + 1) continue;
    found.store(i, std::memory_order_relaxed);
    return i;
  }
  return kNone;
}

void WakeChain::take_place(uint32_t place, uint32_t process) {
  page_->bells[process].place.store(place + 1, std::memory_order_relaxed);
  page_->wakes.places[place].store(process, std::memory_order_relaxed);
}

bool WakeChain::marked(uint32_t peer) const {
  return page_->wakes.waiting[peer / 64].load(std::memory_order_relaxed) >> (peer % 64) & 1;
}

// True: it was marked, and the caller alone has taken the mark away.
bool WakeChain::unmark(uint32_t peer) {
  if (!marked(peer)) return false;
  const uint64_t bit = uint64_t{1} << (peer % 64);
  const bool mine = page_->wakes.waiting[peer / 64].fetch_and(~bit) & bit;
  std::atomic_thread_fence(std::memory_order_seq_cst);  // what was published before the mark is seen after it
  return mine;
}

void WakeChain::summarise(uint32_t word) {
  std::atomic<uint64_t>& summary = page_->wakes.summary;
  const uint64_t bit = uint64_t{1} << word;
  if (!(summary.load() & bit)) summary.fetch_or(bit);
}

bool WakeChain::wake(uint32_t peer) {
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (__builtin_expect(awake(peer), 1)) return false;
  if (!alive(peer)) return false;  // whoever waits for it hears of its death
  // The caller is awake itself, whatever its bell says: one place is not for workers meanwhile.
  const uint32_t n = n_places_ - 1;
  if (page_->bells[process_].place.load(std::memory_order_relaxed) != n + 1 ||
      page_->wakes.places[n].load(std::memory_order_relaxed) != process_)
    take_place(n, process_);
  if (marked(peer)) {  // whoever takes the mark finds this too
    summarise(peer / 64);
    return true;
  }
  if (uint32_t place = free_place(n); place != kNone) {
    take_place(place, peer);
    ring(bell(peer));
    return false;
  }
  page_->wakes.waiting[peer / 64].fetch_or(uint64_t{1} << (peer % 64));
  summarise(peer / 64);
  std::atomic_thread_fence(std::memory_order_seq_cst);
  uint32_t place = free_place(n);
  if (place == kNone) return true;
  if (!unmark(peer)) return false;  // somebody has it in hand
  take_place(place, peer);
  ring(bell(peer));
  return false;
}

bool WakeChain::settle() { return unmark(process_); }

// The marked process that comes after the last one that was taken, so that all have their turn; 0: there
// is none. Its mark is gone.
uint32_t WakeChain::take_marked() {
  wire::WakePage& w = page_->wakes;
  const uint32_t last = w.cursor.load(std::memory_order_relaxed) % wire::kMaxProcesses;
  std::atomic<uint32_t>& waking = page_->bells[process_].waking;
  auto take = [&](uint32_t word, uint64_t among) -> uint32_t {
    for (uint64_t bits; (bits = w.waiting[word].load(std::memory_order_acquire) & among) != 0;) {
      uint32_t found = word * 64 + static_cast<uint32_t>(std::countr_zero(bits));
      waking.store(found);  // should this process die before it has rung
      if (!unmark(found)) continue;
      w.cursor.store(found, std::memory_order_relaxed);
      return found;
    }
    return 0;
  };
  if (uint32_t found = take(last / 64, ~uint64_t{1} << (last % 64))) return found;
  for (uint64_t words; (words = w.summary.load(std::memory_order_acquire)) != 0;) {
    const uint32_t behind = last / 64 + 1;
    const auto turn = static_cast<uint32_t>(std::countr_zero(std::rotr(words, static_cast<int>(behind % 64))));
    const uint32_t word = (behind + turn) % 64;
    if (uint32_t found = take(word, ~uint64_t{0})) return found;
    w.summary.fetch_and(~(uint64_t{1} << word));
    if (w.waiting[word].load() != 0) w.summary.fetch_or(uint64_t{1} << word);
  }
  return 0;
}

bool WakeChain::pass_on() {
  bool any = false;
  for (uint32_t turns = 0; crowded() && turns < wire::kMaxProcesses; ++turns) {
    const uint32_t place = free_place(n_places_);
    if (place == kNone) break;  // the holders will
    const uint32_t next = take_marked();
    if (next == 0) break;
    if (alive(next) && !awake(next)) {  // else it looks for itself, or never again
      take_place(place, next);
      page_->wakes.passed.fetch_add(1, std::memory_order_relaxed);
      ring(bell(next));
      any = true;
    }
  }
  if (page_->bells[process_].waking.load(std::memory_order_relaxed)) page_->bells[process_].waking.store(0);
  return any;
}

void WakeChain::step_aside() {
  page_->bells[process_].place.store(0, std::memory_order_relaxed);
  pass_on();
}

void WakeChain::wake_now(uint32_t peer) {
  (void)unmark(peer);
  ring(bell(peer));
}

}  // namespace ray
