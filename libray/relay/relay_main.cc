// libray-relay: the process of a node that takes its tasks to other nodes, and theirs to this one. Started by rayd only, with
// a socket to it as descriptor 3 (wire/relay_control.h).
#include <malloc.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>

#include "libray/base/fault.h"
#include "libray/base/log.h"
#include "libray/relay/relay.h"

namespace {

bool is_control() {
  int type = 0;
  socklen_t size = sizeof type;
  return ::getsockopt(ray::relay::kControlFd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 && type == SOCK_SEQPACKET;
}

// Each stand-in and each gateway is a process for the daemon, with sockets of its own.
void raise_file_limit() {
  rlimit files{};
  if (::getrlimit(RLIMIT_NOFILE, &files) != 0) return;
  files.rlim_cur = files.rlim_max;
  (void)::setrlimit(RLIMIT_NOFILE, &files);
}

}  // namespace

int main() {
  if (!is_control()) {
    std::fprintf(stderr, "libray-relay is started by rayd, not by people\n");
    return 2;
  }
  ::signal(SIGPIPE, SIG_IGN);
  ::mallopt(M_ARENA_MAX, 4);
  raise_file_limit();
  ray::load_faults_from_environment();
  ray::set_log_identity("relay");
  ray::set_log_handler(nullptr, ray::kLogInfo, nullptr);
  ray::relay::Relay relay{ray::Fd(ray::relay::kControlFd)};
  const int rc = relay.run();
  if (rc != 0) ::_exit(rc);  // something of it hangs: the kernel ends it
  return rc;
}
