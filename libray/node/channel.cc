// See channel.h.
#include "libray/node/channel.h"

#include <sys/mman.h>

#include <new>

namespace ray::node {

Result<std::shared_ptr<Channel>> Channel::create(uint32_t process, int pid) {
  auto fd = create_memfd("ray-channel", wire::kChannelBytes);
  if (!fd.ok()) return fd.status();
  auto map = map_shared(fd->get(), wire::kChannelBytes, true);
  if (!map.ok()) return map.status();
  auto c = std::make_shared<Channel>();
  c->memfd = std::move(*fd);
  c->map = std::move(*map);
  c->process = process;
  uint8_t* base = c->map.data();
  auto* h = new (base) wire::ChannelHeader{};
  h->magic = wire::kMagic;
  h->version = wire::kProtocolVersion;
  h->process = process;
  h->pid = static_cast<uint32_t>(pid);
  c->up = RingConsumer(&h->up, base + wire::kUpOffset, wire::kUpRingBytes);
  c->lineage = RingConsumer(&h->lineage, base + wire::kLineageOffset, wire::kLineageRingBytes);
  return c;
}

void Channel::forget_pages() {
  ::madvise(map.data() + wire::kUpOffset, wire::kChannelBytes - wire::kUpOffset, MADV_DONTNEED);
}

}  // namespace ray::node
