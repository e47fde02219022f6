// Shared memory: memfds, mappings and passing descriptors over a unix socket. Nothing here lives in
// a file system, so the size of /dev/shm does not matter and nothing is left behind by a kill -9.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "libray/base/status.h"

namespace ray {

// A descriptor that closes itself.
class Fd {
 public:
  Fd() = default;
  explicit Fd(int fd) : fd_(fd) {}
  Fd(Fd&& o) noexcept : fd_(o.release()) {}
  Fd& operator=(Fd&& o) noexcept {
    if (this != &o) {
      reset();
      fd_ = o.release();
    }
    return *this;
  }
  ~Fd() { reset(); }
  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }
  int release() {
    int fd = fd_;
    fd_ = -1;
    return fd;
  }
  void reset();

 private:
  int fd_ = -1;
};

// A mapping that unmaps itself.
class Mapping {
 public:
  Mapping() = default;
  Mapping(void* data, size_t size) : data_(data), size_(size) {}
  Mapping(Mapping&& o) noexcept : data_(o.data_), size_(o.size_) { o.data_ = nullptr; }
  Mapping& operator=(Mapping&& o) noexcept;
  ~Mapping() { reset(); }
  uint8_t* data() const { return static_cast<uint8_t*>(data_); }
  size_t size() const { return size_; }
  explicit operator bool() const { return data_ != nullptr; }
  void reset();
  // A forked child does not get it: an access there ends the child, instead of changing what is its parent's.
  void keep_from_children();
  // Puts private zero pages in its place: the shared memory is let go, but a thread that still looks
  // there does no harm. The address range stays taken.
  void detach();

 private:
  void* data_ = nullptr;
  size_t size_ = 0;
};

// A close-on-exec, sealable memfd of `size` bytes (sparse). `name` shows in /proc/PID/maps.
Result<Fd> create_memfd(const char* name, size_t size);
Result<Mapping> map_shared(int fd, size_t size, bool writable, size_t offset = 0);

// Blocking or not as the socket is. Sends one datagram/segment with up to 8 descriptors.
Status send_with_fds(int socket, const void* data, size_t size, const int* fds, size_t n_fds);
// Received bytes; 0 = peer closed. Descriptors arrive close-on-exec. RAY_TIMED_OUT when the socket
// would block. A segment larger than `size` is RAY_INVALID_ARGUMENT.
// With `lost`, a message whose descriptors this process has no room for is no error: it is told there.
Result<size_t> recv_with_fds(int socket, void* data, size_t size, std::vector<Fd>* fds,
                             bool* lost = nullptr);

// The same descriptor under a high number: programs that close what is not theirs, and open again, do not hit it by
// accident. The same as given when there is none.
Fd out_of_the_way(Fd fd);
int pidfd_open(int pid);

}  // namespace ray
