// See zygote.h.
#include "libray/node/zygote.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>

namespace ray::node {

Result<Zygote> Zygote::start(SpawnOptions spawn_options) {
  int pair[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0)
    return errno_error(RAY_UNAVAILABLE, "cannot make a socket for the zygote");
  Fd mine(pair[0]), its(pair[1]);
  ::fcntl(mine.get(), F_SETFL, O_NONBLOCK);
  spawn_options.env[kEnvZygoteFd] = std::to_string(its.get());
  spawn_options.pass_fd = its.get();
  auto process = spawn(spawn_options);
  if (!process.ok()) return process.status();
  Zygote z;
  z.process_ = std::move(*process);
  z.socket_ = std::move(mine);
  return z;
}

Status Zygote::fork(uint64_t spawn, std::string_view env, int out_fd, int err_fd) {
  std::string line = "fork " + std::to_string(spawn) + "\n";
  line += env;
  int fds[2] = {out_fd, err_fd};
  return send_with_fds(socket_.get(), line.data(), line.size(), fds, 2);
}

Zygote::Message Zygote::receive() {
  char line[128];
  Message m;
  std::vector<Fd> fds;
  bool lost = false;
  auto n = recv_with_fds(socket_.get(), line, sizeof line - 1, &fds, &lost);
  if (!n.ok()) {
    m.kind = n.status().code() == RAY_TIMED_OUT ? Message::kNone : Message::kGarbage;
    return m;
  }
  if (*n == 0) {
    m.kind = Message::kClosed;
    return m;
  }
  line[*n] = 0;
  unsigned long long spawn = 0;
  m.kind = Message::kGarbage;
  if (std::strcmp(line, "ready\n") == 0) {
    m.kind = Message::kReady;
  } else if (std::sscanf(line, "pid %llu %d\n", &spawn, &m.pid) == 2) {
    m.kind = Message::kPid;
    m.spawn = spawn;
    if (!fds.empty()) m.pidfd = std::move(fds[0]);
  } else if (std::sscanf(line, "exit %d %d\n", &m.pid, &m.wait_status) == 2) {
    m.kind = Message::kExit;
  }
  return m;
}

}  // namespace ray::node
