// The daemon's side of one process's channel memfd: the up ring is read by the main thread, the lineage
// ring by the journal pump; neither touches the other's. Kept by shared_ptr: the pump may still drain a
// process that is dead.
#pragma once
#include <algorithm>
#include <memory>

#include "libray/base/ring.h"
#include "libray/base/shm.h"
#include "libray/wire/protocol.h"

namespace ray::node {

struct Channel {
  Fd memfd;
  Mapping map;
  uint32_t process = 0;
  RingConsumer up, lineage;

  // Where the up ring ends now. The word is its writer's, so it is no further than a ring can be.
  uint64_t up_end() const {
    const auto* h = reinterpret_cast<const wire::ChannelHeader*>(map.data());
    return std::min(h->up.tail.load(std::memory_order_acquire), up.position() + wire::kUpRingBytes);
  }

  static Result<std::shared_ptr<Channel>> create(uint32_t process, int pid);
  // Gives the pages back to the kernel's care: the memfd keeps their content.
  void forget_pages();
};

}  // namespace ray::node
