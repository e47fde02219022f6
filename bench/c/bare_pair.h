// Two processes with a bare ring each way and nothing else: no ids, no counts, no journal, both sides looking all the time.
// The yardstick of limits.cc (the far end does nothing) and of bench/python/bare_ring.cc (it calls a Python function).
// One thread in each of the two; the rings lie in memory that both map.
#pragma once
#include <signal.h>
#include <sys/wait.h>

#include <cstdint>
#include <cstring>

#include "libray/base/clock.h"
#include "libray/base/ring.h"

namespace bare {

constexpr uint64_t kRingBytes = 1 << 20;
constexpr uint32_t kPayload = 56;  // a record is a cache line
struct Rings {
  ray::RingWords there, back;
  alignas(64) uint8_t there_data[kRingBytes], back_data[kRingBytes];
};

inline void* room(ray::RingProducer& out) {
  void* at;
  while (!(at = out.reserve(1, kPayload))) ray::cpu_relax();
  return at;
}

// The far end: a record for a record, filled by `call(in, out)`, until that returns false.
template <class Call>
void answer(Rings* r, Call&& call) {
  ray::RingConsumer in(&r->there, r->there_data, kRingBytes);
  ray::RingProducer out(&r->back, r->back_data, kRingBytes);
  ray::RecordView v;
  for (;;) {
    if (in.next(&v) != ray::RingConsumer::Next::kRecord) {
      ray::cpu_relax();
      continue;
    }
    if (!call(v.data, room(out))) return;
    in.release();
    out.publish();
  }
}

// The near end; `child` is the far one's process. At most some thousand records under way: neither ring is ever full.
class Driver {
 public:
  Driver(Rings* r, pid_t child)
      : out_(&r->there, r->there_data, kRingBytes), in_(&r->back, r->back_data, kRingBytes), child_(child) {}
  void send(uint64_t what) {
    std::memcpy(room(out_), &what, sizeof what);
    out_.publish();
  }
  // The next answer, spinning; its bytes stay until the ring has gone round once. nullptr: the far end is gone.
  const uint8_t* receive() {
    ray::RecordView v;
    for (uint32_t looks = 1;; ++looks) {
      if (in_.next(&v) == ray::RingConsumer::Next::kRecord) {
        in_.release();
        return v.data;
      }
      ray::cpu_relax();
      if (looks % (1 << 20) == 0 && has_ended()) return nullptr;
    }
  }
  bool batch(int n) {
    for (int i = 0; i < n; ++i) send(static_cast<uint64_t>(i));
    for (int i = 0; i < n; ++i)
      if (!receive()) return false;
    return true;
  }

 private:
  bool has_ended() const {  // whoever forked collects it
    siginfo_t info{};
    return waitid(P_PID, static_cast<id_t>(child_), &info, WEXITED | WNOHANG | WNOWAIT) != 0 || info.si_pid != 0;
  }
  ray::RingProducer out_;
  ray::RingConsumer in_;
  pid_t child_;
};

}  // namespace bare
