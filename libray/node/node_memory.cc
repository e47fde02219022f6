// See node.h. Memory: how much of it there is, who holds it, ending whoever costs least before the kernel
// ends whom it likes. Main thread; the decision is sched/memory_monitor.h's.
//
// Environment (of the program that starts the node): LIBRAY_MEMORY_USAGE_THRESHOLD = part of the machine's, or
// its cgroup's, memory that may be used (0.95); LIBRAY_MEMORY_LIMIT_BYTES = what all workers together may hold,
// instead; LIBRAY_MEMORY_MONITOR_REFRESH_MS = time between two looks (250; 0 = never looks).
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "libray/base/clock.h"
#include "libray/base/log.h"
#include "libray/lineage/record.h"
#include "libray/node/node.h"

namespace ray::node {
namespace {

constexpr uint64_t kMb = 1 << 20;

// A small file of /proc or /sys; empty when it is not there.
std::string small_file(const char* path) {
  char text[4096];
  Fd fd(::open(path, O_RDONLY | O_CLOEXEC));
  ssize_t n = fd.valid() ? ::read(fd.get(), text, sizeof text) : -1;
  return n > 0 ? std::string(text, static_cast<size_t>(n)) : std::string();
}

uint64_t number_after(const std::string& text, const char* key) {
  size_t at = text.find(key);
  return at == std::string::npos ? 0 : std::strtoull(text.c_str() + at + std::strlen(key), nullptr, 10);
}

// Private memory: what comes back when the process is gone. The store's is shared, and stays.
uint64_t private_bytes(int pid) {
  std::string text = small_file(("/proc/" + std::to_string(pid) + "/statm").c_str());
  unsigned long long size = 0, resident = 0, shared = 0;
  if (std::sscanf(text.c_str(), "%llu %llu %llu", &size, &resident, &shared) != 3 || resident < shared)
    return 0;
  return (resident - shared) * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
}

// The cgroup's limit and use, page cache that can be dropped left out; limit 0: it has none.
sched::MemoryState cgroup_memory() {
  sched::MemoryState s;
  std::string max = small_file("/sys/fs/cgroup/memory.max"), now, stat;
  if (!max.empty()) {
    now = small_file("/sys/fs/cgroup/memory.current");
    stat = small_file("/sys/fs/cgroup/memory.stat");
  } else {
    max = small_file("/sys/fs/cgroup/memory/memory.limit_in_bytes");
    now = small_file("/sys/fs/cgroup/memory/memory.usage_in_bytes");
    stat = small_file("/sys/fs/cgroup/memory/memory.stat");
  }
  if (max.empty() || now.empty() || max[0] == 'm') return s;
  s.limit = std::strtoull(max.c_str(), nullptr, 10);
  if (s.limit >= uint64_t{1} << 60) s.limit = 0;  // the first version's "none"
  s.used = std::strtoull(now.c_str(), nullptr, 10);
  s.used -= std::min(s.used, number_after(stat, "inactive_file "));
  return s;
}

double environment(const char* name, double otherwise) {
  const char* text = std::getenv(name);
  char* end = nullptr;
  double value = text && *text ? std::strtod(text, &end) : otherwise;
  return end && *end ? otherwise : value;
}

}  // namespace

void Node::start_memory_monitor() {
  memory_period_ns_ = static_cast<int64_t>(environment("LIBRAY_MEMORY_MONITOR_REFRESH_MS", 250) * 1e6);
  memory_part_ = std::clamp(environment("LIBRAY_MEMORY_USAGE_THRESHOLD", 0.95), 0.0, 1.0);
  memory_limit_ = static_cast<uint64_t>(std::max(0.0, environment("LIBRAY_MEMORY_LIMIT_BYTES", 0)));
}

// The tighter of the machine's and the cgroup's; or the workers' alone, when they have a limit.
sched::MemoryState Node::memory_now() const {
  sched::MemoryState s;
  if (memory_limit_) {
    s.limit = memory_limit_;
    for (const auto& [number, spawn] : spawns_)
      if (spawn.pid > 0) s.used += private_bytes(spawn.pid);
    return s;
  }
  std::string text = small_file("/proc/meminfo");
  uint64_t total = number_after(text, "MemTotal:") * 1024, left = number_after(text, "MemAvailable:") * 1024;
  s.used = total - std::min(total, left);
  s.limit = static_cast<uint64_t>(static_cast<double>(total) * memory_part_);
  sched::MemoryState group = cgroup_memory();
  group.limit = static_cast<uint64_t>(static_cast<double>(group.limit) * memory_part_);
  if (group.limit && group.limit < s.limit) return group;
  return s;
}

void Node::watch_memory(int64_t now) {
  if (memory_period_ns_ <= 0 || now < memory_at_ || phase_ != Phase::kRunning) return;
  memory_at_ = now + memory_period_ns_;
  std::vector<sched::MemoryUser> users;
  for (uint32_t index : live_) {
    const Process& p = *processes_[index];
    int64_t since = core_.scheduler().busy_since(index);
    if (p.driver || p.foreign || since < 0) continue;  // what a stand-in's task takes, it takes elsewhere
    const actor::Actor* a = core_.actors().of_worker(index);
    auto cost = !a ? sched::MemoryUser::kTask
                   : a->spec.max_restarts != 0 ? sched::MemoryUser::kRestartableActor
                                               : sched::MemoryUser::kActor;
    users.push_back({index, cost, since, 0});
  }
  if (users.empty()) return;
  sched::MemoryState state = memory_now();
  bool near = state.used > state.limit / 10 * 7;
  if (!near) memory_at_ = now + memory_period_ns_ * 4;
  if (state.limit == 0 || state.used <= state.limit) return;
  for (sched::MemoryUser& u : users) u.bytes = private_bytes(processes_[u.worker]->pid);
  uint32_t victim = memory_monitor_.step(state, users, now);
  Process* p = process(victim);
  if (!p) return;
  uint64_t held = private_bytes(p->pid);
  std::string text = strprintf("worker %u (pid %d) is ended: it holds %llu MiB, and %llu of at most %llu MiB are in use",
                               victim, p->pid, static_cast<unsigned long long>(held / kMb),
                               static_cast<unsigned long long>(state.used / kMb),
                               static_cast<unsigned long long>(state.limit / kMb));
  log(kLogWarning, "node", "memory", "%s", text.c_str());
  report(lineage::kError, victim, {{"kind", "out-of-memory"}, {"message", text}});
  step(event::KillWorker{victim, wire::kDeathMemory, static_cast<uint32_t>(std::clamp<uint64_t>(held / kMb, 1, 0x7FFF))});
}

}  // namespace ray::node
