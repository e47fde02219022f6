// The yardstick of growth_rings: as many processes, each with a bare ring each way, that get a batch in turns.
// One wakes the next when its ring is empty and sleeps: one switch per process and batch, the fewest that
// more processes than processors can do with. One at a time, so two processors are not used at once. Called
// by limits.cc, on the main thread, before there are others: it forks.
#include "bare_chain.h"

#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <new>
#include <vector>

#include "libray/base/clock.h"
#include "libray/base/doorbell.h"
#include "libray/base/ring.h"

namespace {

constexpr uint64_t kBytes = 512 << 10;
struct Link {
  alignas(64) std::atomic<uint32_t> bell;
  ray::RingWords there, back;
  alignas(64) uint8_t there_data[kBytes], back_data[kBytes];
};

void wake(std::atomic<uint32_t>* bell) {
  while (bell->load(std::memory_order_acquire) == ray::kAwake) sched_yield();  // it is about to sleep
  ray::ring(bell);
}

void serve(Link* links, size_t n, size_t me, std::atomic<uint32_t>* last) {
  Link& l = links[me];
  std::atomic<uint32_t>* next = me + 1 < n ? &links[me + 1].bell : last;
  ray::RingConsumer in(&l.there, l.there_data, kBytes);
  ray::RingProducer out(&l.back, l.back_data, kBytes);
  ray::RecordView v;
  for (;;) {
    ray::sleep_armed(&l.bell, ray::arm(&l.bell), -1);
    while (in.next(&v) == ray::RingConsumer::Next::kRecord) {
      std::memcpy(out.reserve(1, 56), v.data, 8);
      in.release();
      out.publish();
    }
    wake(next);
  }
}

void read_results(ray::RingConsumer* in) {
  ray::RecordView v;
  while (in->next(&v) == ray::RingConsumer::Next::kRecord) continue;
  in->release();
}

}  // namespace

double bare_chain_ns(size_t n, size_t batch, size_t rounds) {
  const size_t size = sizeof(std::atomic<uint32_t>) * 16 + n * sizeof(Link);
  void* memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) _Exit(1);
  auto* bell = new (memory) std::atomic<uint32_t>(0);
  auto* links = reinterpret_cast<Link*>(static_cast<uint8_t*>(memory) + 64);
  std::vector<pid_t> children;
  for (size_t i = 0; i < n; ++i) {
    children.push_back(fork());
    if (children.back() == 0) serve(links, n, i, bell);
  }
  std::vector<ray::RingProducer> out;
  std::vector<ray::RingConsumer> in;
  for (size_t i = 0; i < n; ++i) {
    out.emplace_back(&links[i].there, links[i].there_data, kBytes);
    in.emplace_back(&links[i].back, links[i].back_data, kBytes);
    while (links[i].bell == ray::kAwake) usleep(100);
  }
  int64_t began = 0;
  for (size_t round = 0; round < rounds + rounds / 2; ++round) {
    if (round == rounds / 2) began = ray::steady_ns();
    for (size_t i = 0; i < batch; ++i) {
      std::memcpy(out[i % n].reserve(1, 56), &i, sizeof i);
      out[i % n].publish();
    }
    const uint32_t how = ray::arm(bell);
    wake(&links[0].bell);
    while (*bell != ray::kAwake) ray::sleep_armed(bell, how, -1);
    for (auto& results : in) read_results(&results);
  }
  double ns = static_cast<double>(ray::steady_ns() - began) / static_cast<double>(rounds * batch);
  for (pid_t child : children) {
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
  }
  munmap(memory, size);
  return ns;
}
