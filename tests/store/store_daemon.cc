// A store daemon as a process of its own, for tests that stop, kill or inspect it.
//   store_daemon SOCKET TOKEN CAPACITY [SPILL_DIR]     prints "ready" on stdout
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include "libray/base/fault.h"
#include "store/daemon.h"

int main(int argc, char** argv) {
  if (argc < 4) return 2;
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  ray::load_faults_from_environment();
  ray::store::DaemonOptions o;
  o.socket_path = argv[1];
  o.token = argv[2];
  o.capacity_bytes = std::strtoull(argv[3], nullptr, 10);
  if (argc > 4) o.spill_dir = argv[4];
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigprocmask(SIG_BLOCK, &set, nullptr);
  auto d = ray::store::Daemon::start(o);
  if (!d.ok()) {
    std::fprintf(stderr, "%s\n", d.status().message().c_str());
    return 1;
  }
  (void)!::write(1, "ready\n", 6);
  int sig;
  sigwait(&set, &sig);
  return 0;
}
