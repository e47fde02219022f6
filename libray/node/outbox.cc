// See outbox.h.
#include "libray/node/outbox.h"

#include "libray/base/ring.h"
#include "libray/wire/protocol.h"

namespace ray::node {
namespace {
constexpr size_t kMaxFds = 8;
constexpr size_t kBatch = 32 << 10;  // a larger record travels alone
}  // namespace

size_t Outbox::add(uint16_t type, const void* head, size_t head_size, const void* tail,
                   size_t tail_size, uint16_t flags, std::shared_ptr<Fd> fd) {
  size_t size = sizeof(RecordHeader) + head_size + tail_size, padded = pad8(size);
  bool fits = !queue_.empty() && queue_.back().bytes.size() + padded <= kBatch &&
              (!fd || queue_.back().fds.size() < kMaxFds);
  if (!fits) queue_.emplace_back();
  Datagram& d = queue_.back();
  RecordHeader h{static_cast<uint32_t>(size), type, flags};
  d.bytes.append(reinterpret_cast<const char*>(&h), sizeof h);
  if (head_size) d.bytes.append(static_cast<const char*>(head), head_size);
  if (tail_size) d.bytes.append(static_cast<const char*>(tail), tail_size);
  d.bytes.append(padded - size, '\0');
  if (fd) d.fds.push_back(std::move(fd));
  bytes_ += padded;
  return padded;
}

void Outbox::add_answer(uint16_t type, const void* head, size_t head_size, const void* tail, size_t tail_size,
                        uint16_t flags) {
  const size_t n = add(type, head, head_size, tail, tail_size, flags);
  queue_.back().answers += n;
  answers_ += n;
}

Outbox::Sent Outbox::flush(int socket) {
  while (!queue_.empty()) {
    Datagram& d = queue_.front();
    int fds[kMaxFds];
    for (size_t i = 0; i < d.fds.size(); ++i) fds[i] = d.fds[i]->get();
    Status s = send_with_fds(socket, d.bytes.data(), d.bytes.size(), fds, d.fds.size());
    if (s.code() == RAY_TIMED_OUT) return Sent::kSocketFull;
    if (!s.ok()) return Sent::kBroken;
    bytes_ -= d.bytes.size();
    answers_ -= d.answers;
    queue_.pop_front();
  }
  return Sent::kAll;
}

}  // namespace ray::node
