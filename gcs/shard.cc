// See shard.h.
#include "gcs/shard.h"

#include <malloc.h>
#include <poll.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "gcs/service.h"
#include "libray/base/fault.h"
#include "libray/base/log.h"
#include "libray/base/shm.h"

namespace ray::gcs {
namespace {

sigset_t end_signals() {
  sigset_t set;
  sigemptyset(&set);
  for (int sig : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&set, sig);
  return set;
}

// Returns at a signal or when the parent is gone.
void wait_for_end(const sigset_t& signals, int parent_pid) {
  Fd signal_fd(::signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK));
  Fd parent;
  if (parent_pid > 0) {
    parent = Fd(pidfd_open(parent_pid));
    // Dead already, or the number belongs to another process by now.
    if (!parent.valid() || ::getppid() != parent_pid) return;
  }
  pollfd fds[2] = {{signal_fd.get(), POLLIN, 0}, {parent.get(), POLLIN, 0}};
  while (::poll(fds, parent.valid() ? 2 : 1, -1) <= 0) {
  }
}

}  // namespace

int gcs_main(const ShardOptions& options) {
  // Few arenas and early trimming: a shard is small most of the time.
  mallopt(M_ARENA_MAX, 2);
  mallopt(M_TRIM_THRESHOLD, 256 << 10);
  mallopt(M_MMAP_THRESHOLD, 256 << 10);
  set_log_identity(strprintf("gcs-%u", options.index).c_str());
  load_faults_from_environment();
  signal(SIGPIPE, SIG_IGN);
  signal(SIGXFSZ, SIG_IGN);  // a file size limit is a full disk: an error, not a death
  sigset_t signals = end_signals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  auto service = Service::start(options);
  if (!service.ok()) {
    log(kLogError, "gcs", "start-failed", "%s", service.status().message().c_str());
    return 1;
  }
  if (options.ready_fd >= 0) {
    (void)!::write(options.ready_fd, "r", 1);
    ::close(options.ready_fd);
  }
  wait_for_end(signals, options.parent_pid);
  *service = nullptr;
  return 0;
}

}  // namespace ray::gcs
