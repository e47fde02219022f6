// Records on their way to one process: packed into few datagrams, sent when the socket takes them. Main
// thread of the node daemon only. Bounded: a process that does not read is cut off by its owner.
#pragma once
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "libray/base/shm.h"

namespace ray::node {

class Outbox {
 public:
  // One record: `head` then `tail`, with at most one descriptor. Returns what it takes.
  size_t add(uint16_t type, const void* head, size_t head_size, const void* tail = nullptr,
             size_t tail_size = 0, uint16_t flags = 0, std::shared_ptr<Fd> fd = nullptr);
  // The same, of an answer that the process has asked for.
  void add_answer(uint16_t type, const void* head, size_t head_size, const void* tail, size_t tail_size, uint16_t flags);
  enum class Sent { kAll, kSocketFull, kBroken };
  Sent flush(int socket);
  bool empty() const { return queue_.empty(); }
  size_t bytes() const { return bytes_; }
  size_t answers() const { return answers_; }  // bytes of them

 private:
  struct Datagram {
    std::string bytes;
    size_t answers = 0;
    std::vector<std::shared_ptr<Fd>> fds;
  };
  std::deque<Datagram> queue_;
  size_t bytes_ = 0, answers_ = 0;
};

}  // namespace ray::node
