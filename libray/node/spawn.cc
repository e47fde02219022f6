// See spawn.h.
#include "libray/node/spawn.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "libray/base/fault.h"
#include "libray/base/proc.h"
#include "libray/base/thread.h"
#include "libray/session/session.h"

extern char** environ;

namespace ray::node {
namespace {

std::string find_program(const std::string& name) {
  if (name.find('/') != std::string::npos) return name;
  const char* path = std::getenv("PATH");
  std::string rest = path && *path ? path : "/usr/local/bin:/usr/bin:/bin";
  while (true) {
    size_t colon = rest.find(':');
    std::string dir = rest.substr(0, colon);
    std::string candidate = (dir.empty() ? "." : dir) + "/" + name;
    if (is_program(candidate.c_str())) return candidate;
    if (colon == std::string::npos) return "";
    rest.erase(0, colon + 1);
  }
}

std::vector<std::string> build_env(const std::map<std::string, std::string>& extra) {
  std::vector<std::string> out;
  for (char** e = environ; *e; ++e) {
    const char* eq = std::strchr(*e, '=');
    const std::string name(*e, eq ? static_cast<size_t>(eq - *e) : 0);
    if (eq && (name == session::kTokenVariable || extra.count(name))) continue;
    out.emplace_back(*e);
  }
  for (const auto& [key, value] : extra) out.push_back(key + "=" + value);
  return out;
}

std::vector<char*> pointers(std::vector<std::string>& v) {
  std::vector<char*> out;
  for (std::string& s : v) out.push_back(s.data());
  out.push_back(nullptr);
  return out;
}

// The limit of open files as it was given to this process: children get it back.
rlimit g_files;
bool g_raised = false;

struct ChildPlan {
  const char* program;
  char** argv;
  char** envp;
  const char* cwd;
  int out_fd, err_fd, pass_fd, pass_as, death_signal, parent;
  bool new_group, hold_signals;
  volatile int failed_errno;
};

// Runs in the child, in the parent's memory: system calls only, and nothing is written but the plan.
[[noreturn]] void child(ChildPlan* plan) {
  if (g_raised) ::setrlimit(RLIMIT_NOFILE, &g_files);
  sigset_t mask;
  sigemptyset(&mask);
  if (plan->hold_signals)
    for (int signal : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&mask, signal);
  sigprocmask(SIG_SETMASK, &mask, nullptr);
  ::signal(SIGPIPE, SIG_DFL);
  ::signal(SIGXFSZ, SIG_DFL);
  if (plan->new_group) ::setpgid(0, 0);
  ::prctl(PR_SET_PDEATHSIG, plan->death_signal);
  if (::getppid() != plan->parent) ::_exit(127);  // the parent died before the signal was asked for
  if (plan->cwd && ::chdir(plan->cwd) != 0) {
    // A worker without its job's folder still serves tasks that do not need it.
  }
  if (plan->out_fd >= 0) ::dup2(plan->out_fd, 1);
  if (plan->err_fd >= 0) ::dup2(plan->err_fd, 2);
  if (plan->pass_as >= 0 && plan->pass_as != plan->pass_fd) ::dup2(plan->pass_fd, plan->pass_as);
  else if (plan->pass_fd >= 0) ::fcntl(plan->pass_fd, F_SETFD, 0);
  ::execve(plan->program, plan->argv, plan->envp);
  plan->failed_errno = errno;
  ::_exit(127);
}

// vfork: a fork would copy the page tables of everything that is mapped here.
__attribute__((noinline)) int vfork_child(ChildPlan* plan) {
  int pid = ::vfork();
  if (pid == 0) child(plan);
  return pid;
}

}  // namespace

Result<Spawned> spawn(const SpawnOptions& o) {
  if (o.argv.empty()) return error(RAY_INVALID_ARGUMENT, "empty command");
  std::string program = find_program(o.argv[0]);
  if (program.empty())
    return error(RAY_NOT_FOUND, "no program '%s' in PATH", o.argv[0].c_str());
  std::vector<std::string> argv = o.argv, env = build_env(o.env);
  std::vector<char*> argv_p = pointers(argv), env_p = pointers(env);
  ChildPlan plan{program.c_str(), argv_p.data(), env_p.data(), o.cwd.empty() ? nullptr : o.cwd.c_str(),
                 o.out_fd, o.err_fd, o.pass_fd, o.pass_as, o.death_signal, ::getpid(), o.new_group, o.hold_signals, 0};
  int pid = RAY_FAULT_FAILS("node.fork") ? (errno = EAGAIN, -1) : vfork_child(&plan);
  if (pid < 0) return no_process_error(errno, strprintf("'%s'", program.c_str()).c_str());
  if (plan.failed_errno) {
    ::waitpid(pid, nullptr, 0);
    return error(RAY_UNAVAILABLE, "cannot run '%s': %s", program.c_str(),
                 std::strerror(plan.failed_errno));
  }
  Spawned s;
  s.pid = pid;
  s.pidfd = Fd(pidfd_open(pid));
  if (!s.pidfd.valid()) {
    Status status = errno_error(RAY_UNAVAILABLE, "cannot watch process %d", pid);
    ::kill(pid, SIGKILL);  // not waited for yet: the number is its own
    ::waitpid(pid, nullptr, 0);
    return status;
  }
  return s;
}

Result<Fd> open_log(const std::string& path) {
  Fd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
  if (!fd.valid()) return errno_error(RAY_UNAVAILABLE, "cannot open log '%s'", path.c_str());
  return fd;
}

void raise_file_limit() {
  if (::getrlimit(RLIMIT_NOFILE, &g_files) != 0 || g_files.rlim_cur >= g_files.rlim_max) return;
  rlimit all{g_files.rlim_max, g_files.rlim_max};
  g_raised = ::setrlimit(RLIMIT_NOFILE, &all) == 0;
}

int64_t oom_kills() {
  Fd fd(::open("/proc/vmstat", O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return -1;
  std::string text;
  char buf[4096];
  ssize_t n;
  while ((n = ::read(fd.get(), buf, sizeof buf)) > 0) text.append(buf, static_cast<size_t>(n));
  size_t at = text.find("\noom_kill ");
  return at == std::string::npos ? -1 : std::atoll(text.c_str() + at + 10);
}

}  // namespace ray::node
