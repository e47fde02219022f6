// See own_node.h.
#include "libray/runtime/own_node.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string_view>
#include <utility>
#include <vector>

#include "libray/base/clock.h"
#include "libray/base/log.h"
#include "libray/base/proc.h"
#include "libray/base/thread.h"
#include "libray/node/session.h"

extern char** environ;

namespace ray {
namespace {

std::string to_hex(const void* data, size_t size) {
  static const char digits[] = "0123456789abcdef";
  const uint8_t* p = static_cast<const uint8_t*>(data);
  std::string s;
  for (size_t i = 0; i < size; ++i) {
    s += digits[p[i] >> 4];
    s += digits[p[i] & 15];
  }
  return s;
}

double usable_cpus() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
  return CPU_COUNT(&set);
}

uint64_t default_store_bytes() {
  uint64_t ram = static_cast<uint64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGESIZE);
  return ram * 3 / 10;
}

// Starts `rayd` with its output in the session's log; fd 3 of the child is the ready pipe.
Status spawn_daemon(const std::vector<std::string>& args, const std::string& log, int ready_fd,
                    int* pid) {
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, 1, log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
  posix_spawn_file_actions_adddup2(&actions, 1, 2);
  posix_spawn_file_actions_adddup2(&actions, ready_fd, 3);
  posix_spawnattr_t attr;
  posix_spawnattr_init(&attr);
  // Its own process group: the terminal's Ctrl-C is for the driver, which then ends it in order.
  posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK);
  posix_spawnattr_setpgroup(&attr, 0);
  sigset_t none;
  sigemptyset(&none);
  posix_spawnattr_setsigmask(&attr, &none);
  std::vector<char*> argv;
  for (auto& a : args) argv.push_back(const_cast<char*>(a.c_str()));
  argv.push_back(nullptr);
  std::vector<char*> env;
  const std::string secret = std::string(node::kTokenVariable) + "=";
  for (char** e = environ; *e; ++e)
    if (std::string_view(*e).substr(0, secret.size()) != secret) env.push_back(*e);
  env.push_back(nullptr);
  int rc = posix_spawn(pid, argv[0], &actions, &attr, argv.data(), env.data());
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attr);
  if (rc == 0) return Status();
  if (rc == EAGAIN) return no_process_error(rc, "the node daemon");
  if (rc == E2BIG)
    return error(RAY_INVALID_ARGUMENT,
                 "no program can be started with this environment, not even the node daemon: Linux allows 128 KiB for "
                 "one variable, and a quarter of the stack's limit (`ulimit -s`) for all; unset or shorten some");
  errno = rc;
  return errno_error(RAY_UNAVAILABLE, "cannot start the node daemon %s", argv[0]);
}

// One line from the daemon: "ready", or "error: ...".
Status await_ready(int fd, int pidfd, const std::string& log) {
  std::string line;
  int64_t deadline = steady_ns() + 30000000000;
  for (;;) {
    pollfd p{fd, POLLIN, 0};
    int ms = static_cast<int>((deadline - steady_ns()) / 1000000);
    if (ms <= 0) {
      (void)pidfd_signal(pidfd, SIGKILL);
      return error(RAY_UNAVAILABLE, "the node daemon did not start within 30 s; see %s", log.c_str());
    }
    const int there = poll(&p, 1, ms);
    if (there == 0 || (there < 0 && errno == EINTR)) continue;  // a read would wait for ever
    if (there < 0) break;
    char buffer[512];
    ssize_t n = ::read(fd, buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    line.append(buffer, static_cast<size_t>(n));
    if (line.find('\n') != std::string::npos) break;
  }
  if (line.rfind("ready", 0) == 0) return Status();
  while (!line.empty() && line.back() == '\n') line.pop_back();
  if (line.empty())
    return error(RAY_UNAVAILABLE, "the node daemon ended while starting; see %s", log.c_str());
  return error(RAY_UNAVAILABLE, "the node daemon did not start: %s; see %s", line.c_str(),
               log.c_str());
}

}  // namespace

Status OwnNode::start(const ray_runtime_options& o, const std::string& session_dir) {
  session_dir_ = session_dir;
  auto rayd = node::find_rayd();
  if (!rayd.ok()) return rayd.status();
  int pipe_fds[2];
  if (::pipe2(pipe_fds, O_CLOEXEC) != 0) return errno_error(RAY_OUT_OF_MEMORY, "cannot make a pipe");
  // A program without standard descriptors: theirs are the child's log.
  Fd read_end = out_of_the_way(Fd(pipe_fds[0])), write_end = out_of_the_way(Fd(pipe_fds[1]));
  std::string log = session_dir_ + "/logs/rayd.log";
  double cpus = o.num_cpus > 0 ? o.num_cpus : usable_cpus();
  uint64_t store_bytes = o.store_bytes ? o.store_bytes : default_store_bytes();
  std::vector<std::string> args = {*rayd,
                                   "node",
                                   "--session",
                                   session_dir_,
                                   "--parent-pid",
                                   std::to_string(getpid()),
                                   "--ready-fd",
                                   "3",
                                   "--num-cpus",
                                   strprintf("%.4f", cpus),
                                   "--resources-msgpack",
                                   to_hex(o.resources_msgpack.data, o.resources_msgpack.size),
                                   "--store-bytes",
                                   std::to_string(store_bytes),
                                   "--spill-bytes",
                                   std::to_string(o.spill_bytes),
                                   "--gcs-shards",
                                   std::to_string(o.gcs_shards ? o.gcs_shards : 2),
                                   "--log",
                                   log};
  RAY_TRY(spawn_daemon(args, log, write_end.get(), &pid_));
  pidfd_ = out_of_the_way(Fd(pidfd_open(pid_)));
  write_end.reset();
  started_ = true;
  return await_ready(read_end.get(), pidfd_.get(), log);
}

void OwnNode::end() {
  int status;
  if (waitpid(pid_, &status, WNOHANG) == 0) {
    (void)pidfd_signal(pidfd_.get(), SIGTERM);
    reap(2000000000);
  } else {
    node::remove_sockets(session_dir_);
  }
}

void OwnNode::reap(int64_t patience_ns) {
  // It ends by itself after the journal is written; if it hangs, it must not outlive us.
  int64_t deadline = steady_ns() + patience_ns;
  for (int64_t pause = 200000;; pause = std::min<int64_t>(pause * 2, 10000000)) {
    int status;
    int rc = waitpid(pid_, &status, WNOHANG);
    if (rc == pid_ || (rc < 0 && errno == ECHILD)) break;
    if (steady_ns() > deadline) {
      (void)pidfd_signal(pidfd_.get(), SIGKILL);
      waitpid(pid_, &status, 0);
      break;
    }
    timespec ts{0, static_cast<long>(pause)};
    nanosleep(&ts, nullptr);
  }
  node::remove_sockets(session_dir_);
}

bool OwnNode::kill_if_stopped() {
  constexpr int kMoments = 20;
  for (int i = 0; is_stopped(pid_); ++i) {
    if (i == kMoments) {
      log(kLogWarning, "runtime", "daemon-stopped",
          "the node daemon (pid %d) is stopped by a signal and is killed: what it had not journaled is lost",
          pid_);
      (void)pidfd_signal(pidfd_.get(), SIGKILL);
      return true;
    }
    timespec ts{0, 100000000};
    nanosleep(&ts, nullptr);
  }
  return false;
}

}  // namespace ray
