// See shm.h.
#include "libray/base/shm.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace ray {

void Fd::reset() {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

Mapping& Mapping::operator=(Mapping&& o) noexcept {
  if (this != &o) {
    reset();
    data_ = o.data_;
    size_ = o.size_;
    o.data_ = nullptr;
  }
  return *this;
}

void Mapping::reset() {
  if (data_) ::munmap(data_, size_);
  data_ = nullptr;
}

void Mapping::keep_from_children() {
  if (data_) ::madvise(data_, size_, MADV_DONTFORK);
}

void Mapping::detach() {
  if (data_)
    ::mmap(data_, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE,
           -1, 0);
}

Result<Fd> create_memfd(const char* name, size_t size) {
  Fd fd(::memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd.valid()) return errno_error(RAY_OUT_OF_MEMORY, "cannot create shared memory '%s'", name);
  if (::ftruncate(fd.get(), static_cast<off_t>(size)) != 0)
    return errno_error(RAY_OUT_OF_MEMORY, "cannot size shared memory '%s' to %zu bytes", name, size);
  // Nobody who is given it can cut it under those that have it mapped, which would be their end (SIGBUS).
  if (size > 0 && ::fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) != 0)
    return errno_error(RAY_INTERNAL, "cannot fix the size of shared memory '%s'", name);
  return fd;
}

Result<Mapping> map_shared(int fd, size_t size, bool writable, size_t offset) {
  int prot = writable ? PROT_READ | PROT_WRITE : PROT_READ;
  void* p = ::mmap(nullptr, size, prot, MAP_SHARED, fd, static_cast<off_t>(offset));
  if (p == MAP_FAILED) return errno_error(RAY_OUT_OF_MEMORY, "cannot map %zu shared bytes", size);
  return Mapping(p, size);
}

Status send_with_fds(int socket, const void* data, size_t size, const int* fds, size_t n_fds) {
  iovec iov{const_cast<void*>(data), size};
  msghdr msg{};
  msg.msg_iov = &iov;
  msg.msg_iovlen = 1;
  alignas(cmsghdr) char control[CMSG_SPACE(8 * sizeof(int))];
  if (n_fds > 8) return error(RAY_INVALID_ARGUMENT, "at most 8 descriptors in one message");
  if (n_fds > 0) {
    std::memset(control, 0, sizeof control);
    msg.msg_control = control;
    msg.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
    cmsghdr* c = CMSG_FIRSTHDR(&msg);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
    std::memcpy(CMSG_DATA(c), fds, n_fds * sizeof(int));
  }
  for (;;) {
    ssize_t n = ::sendmsg(socket, &msg, MSG_NOSIGNAL);
    if (n == static_cast<ssize_t>(size)) return Status();
    if (n >= 0)  // cannot happen on sockets that keep message boundaries
      return error(RAY_UNAVAILABLE, "sent %zd of %zu bytes to peer", n, size);
    if (errno == EINTR) continue;
    if (errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS)
      return Status(RAY_TIMED_OUT, "socket is full");
    return errno_error(RAY_UNAVAILABLE, "cannot send %zu bytes to peer", size);
  }
}

Result<size_t> recv_with_fds(int socket, void* data, size_t size, std::vector<Fd>* fds,
                             bool* lost) {
  iovec iov{data, size};
  msghdr msg{};
  msg.msg_iov = &iov;
  msg.msg_iovlen = 1;
  alignas(cmsghdr) char control[CMSG_SPACE(8 * sizeof(int))];
  msg.msg_control = control;
  msg.msg_controllen = sizeof control;
  ssize_t n;
  do n = ::recvmsg(socket, &msg, MSG_CMSG_CLOEXEC);
  while (n < 0 && errno == EINTR);
  if (n < 0) {
    if (errno == EAGAIN || errno == EWOULDBLOCK) return Status(RAY_TIMED_OUT, "nothing to receive");
    if (errno == ECONNRESET) return size_t{0};
    return errno_error(RAY_UNAVAILABLE, "cannot receive from peer");
  }
  std::vector<Fd> received;
  for (cmsghdr* c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
    size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int fd;
      std::memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof fd);
      received.emplace_back(fd);
    }
  }
  if (msg.msg_flags & MSG_TRUNC)
    return error(RAY_INVALID_ARGUMENT, "message of a peer is larger than %zu bytes", size);
  // Also when this process may open no more descriptors.
  bool truncated = (msg.msg_flags & MSG_CTRUNC) != 0;
  if (truncated && !lost)
    return error(RAY_INVALID_ARGUMENT,
                 "descriptors of a peer's message were lost: is this process's limit of open files reached "
                 "(`ulimit -n`)?");
  if (lost) *lost = truncated;
  if (fds) *fds = std::move(received);
  return static_cast<size_t>(n);
}

Fd out_of_the_way(Fd fd) {
  rlimit limit{};
  if (!fd.valid() || ::getrlimit(RLIMIT_NOFILE, &limit) != 0) return fd;
  int from = static_cast<int>(std::min<rlim_t>(limit.rlim_cur / 2, 512));
  Fd high(::fcntl(fd.get(), F_DUPFD_CLOEXEC, from));
  return high.valid() ? std::move(high) : std::move(fd);
}

int pidfd_open(int pid) { return static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)); }

}  // namespace ray
