// See fork.h.
#include "libray/base/fork.h"

#include <pthread.h>

#include <vector>

namespace ray {

std::atomic<uint32_t> g_fork_generation{0};

namespace {

struct Locks {
  std::mutex mutex;  // of the lists
  std::vector<std::mutex*> mutexes[2];  // by ForkLock
  std::vector<SpinLock*> spins;
};
Locks& locks() {
  static auto* l = new Locks;
  return *l;
}

void before() {
  Locks& l = locks();
  l.mutex.lock();
  for (auto& order : l.mutexes)
    for (auto* m : order) m->lock();
  for (auto* m : l.spins) m->lock();
}

void after() {
  Locks& l = locks();
  for (auto* m : l.spins) m->unlock();
  for (auto& order : l.mutexes)
    for (auto* m : order) m->unlock();
  l.mutex.unlock();
}

void in_child() {
  g_fork_generation.fetch_add(1, std::memory_order_relaxed);
  after();
}

}  // namespace

void watch_forks() {
  static std::once_flag once;
  std::call_once(once, [] { ::pthread_atfork(before, after, in_child); });
}

void held_over_forks(std::mutex* m, ForkLock order) {
  std::lock_guard lock(locks().mutex);
  locks().mutexes[static_cast<int>(order)].push_back(m);
}

void held_over_forks(SpinLock* m) {
  std::lock_guard lock(locks().mutex);
  locks().spins.push_back(m);
}

}  // namespace ray
