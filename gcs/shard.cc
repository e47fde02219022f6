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
#include "libray/base/proc.h"
#include "libray/base/shm.h"
#include "libray/wire/protocol.h"

namespace ray::gcs {
namespace {

sigset_t end_signals() {
  sigset_t set;
  sigemptyset(&set);
  for (int sig : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&set, sig);
  return set;
}

// The node's driver is gone and the node is to end, but a signal has stopped it: killed after a moment, so that
// nothing stays behind. Its workers die with it. False as long as it is not stopped.
bool kill_stopped(int parent_pid, int pidfd) {
  constexpr int kSeconds = 2;
  for (int i = 0; i < kSeconds * 10; ++i) {
    if (::getppid() != parent_pid || !is_stopped(parent_pid)) return false;
    ::usleep(100000);
  }
  if (::getppid() != parent_pid) return false;
  log(kLogWarning, "gcs", "node-stopped", "the node daemon (pid %d) is stopped and its driver gone: killing it",
      parent_pid);
  return pidfd_signal(pidfd, SIGKILL);
}

// Why it is to end. The parent says so by SIGINT. SIGTERM may be the kernel's word that it dies, which comes as soon as the
// first of its threads is gone: the last one may take a moment.
bool ended_with(int signal_fd, int parent) {
  signalfd_siginfo info{};
  (void)!::read(signal_fd, &info, sizeof info);
  pollfd gone{parent, POLLIN, 0};
  return ::poll(&gone, 1, info.ssi_signo == SIGTERM ? 1000 : 0) > 0;
}

// Returns at a signal or when the parent is gone; whether it is.
bool wait_for_end(const sigset_t& signals, int parent_pid, int driver_pid) {
  Fd signal_fd(::signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK));
  Fd parent;
  if (parent_pid > 0) {
    parent = Fd(pidfd_open(parent_pid));
    // Dead already, or the number belongs to another process by now.
    if (!parent.valid() || ::getppid() != parent_pid) return true;
  }
  Fd driver(parent.valid() && driver_pid > 0 ? pidfd_open(driver_pid) : -1);
  pollfd fds[3] = {{signal_fd.get(), POLLIN, 0}, {parent.get(), POLLIN, 0}, {driver.get(), POLLIN, 0}};
  bool orphaned = driver_pid > 0 && parent.valid() && !driver.valid();
  for (;;) {
    int n = ::poll(fds, 3, orphaned ? 1000 : -1);  // descriptors below zero are passed over
    if (n > 0 && (fds[0].revents || fds[1].revents)) return parent_pid > 0 && ended_with(signal_fd.get(), parent.get());
    if (n > 0 && fds[2].revents) {
      orphaned = true;
      fds[2].fd = -1;
    }
    if (orphaned) (void)kill_stopped(parent_pid, parent.get());
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
  // A node that was killed could not end what its workers had started in sessions of their own. Zygotes end what theirs
  // did, and are given time for that: they find also what has no such environment.
  if (wait_for_end(signals, options.parent_pid, options.driver_pid))
    kill_with_environment(std::string(wire::kEnvSession) + "=" + options.dir, "LIBRAY_ZYGOTE_FD");
  *service = nullptr;
  return 0;
}

}  // namespace ray::gcs
