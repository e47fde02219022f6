// stack: what every thread of a session's processes does now. Python processes are asked with a
// signal for which they have a handler (bindings/python/src/stack.cc); it works while their code
// hangs. Of all threads the kernel's view is shown, and with --native what gdb or eu-stack says.
//
// Who may ask: whoever may send a signal to the process and look into its descriptors, which is its
// own user and root; the kernel decides. The signal goes to a thread of the runtime, so that no
// system call of the user's code ends early, and only to a process that has a handler for it.
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "libray/base/clock.h"
#include "libray/base/proc.h"
#include "libray/base/shm.h"
#include "libray/cli/commands.h"
#include "libray/cli/session_files.h"
#include "libray/wire/msgpack.h"

namespace ray::cli {
namespace {

constexpr char kFileName[] = "/memfd:libray-stack";
constexpr int64_t kAnswerNs = 5'000'000'000;
constexpr char kReceiver[] = "ray-receiver";  // a thread of the runtime (libray/runtime/runtime.cc)

int stack_signal() { return SIGRTMIN + 7; }

std::string proc(int pid) { return "/proc/" + std::to_string(pid); }

std::vector<std::string> entries(const std::string& dir) {
  std::vector<std::string> out;
  DIR* d = ::opendir(dir.c_str());
  if (!d) return out;
  while (dirent* e = ::readdir(d))
    if (e->d_name[0] != '.') out.push_back(e->d_name);
  ::closedir(d);
  return out;
}

// The file that the process's handler writes to; empty = it has none.
std::string answer_file(int pid) {
  std::string dir = proc(pid) + "/fd";
  char target[PATH_MAX];
  for (const std::string& name : entries(dir)) {
    std::string path = dir + "/" + name;
    ssize_t n = ::readlink(path.c_str(), target, sizeof target);
    if (n > 0 && std::string_view(target, static_cast<size_t>(n)).rfind(kFileName, 0) == 0)
      return path;
  }
  return "";
}

// Whether the signal would be handled: it kills who does not expect it.
bool expects_signal(int pid) {
  std::string status = read_proc(proc(pid) + "/status");
  size_t at = status.find("\nSigCgt:");
  if (at == status.npos) return false;
  uint64_t caught = std::strtoull(status.c_str() + at + 8, nullptr, 16);
  return caught >> (stack_signal() - 1) & 1;
}

void pause_ns(int64_t ns) {
  timespec t{0, static_cast<long>(ns)};
  ::nanosleep(&t, nullptr);
}

struct Thread {
  int tid = 0;
  std::string name, state, in_kernel;
};

// What a thread waits for: the kernel's function where the kernel tells, else the system call.
std::string in_kernel(const std::string& dir) {
  static constexpr std::pair<long, const char*> kCalls[] = {
#ifdef SYS_poll  // newer architectures have only their successors
      {SYS_poll, "poll"},
      {SYS_select, "select"},
      {SYS_epoll_wait, "epoll_wait"},
      {SYS_pause, "pause"},
#endif
      {SYS_futex, "futex"},
      {SYS_ppoll, "poll"},
      {SYS_epoll_pwait, "epoll_wait"},
      {SYS_pselect6, "select"},
      {SYS_read, "read"},
      {SYS_write, "write"},
      {SYS_recvmsg, "recvmsg"},
      {SYS_recvfrom, "recvfrom"},
      {SYS_sendmsg, "sendmsg"},
      {SYS_nanosleep, "nanosleep"},
      {SYS_clock_nanosleep, "nanosleep"},
      {SYS_accept4, "accept"},
      {SYS_wait4, "wait"},
      {SYS_waitid, "wait"},
      {SYS_fsync, "fsync"},
      {SYS_fdatasync, "fsync"},
      {SYS_connect, "connect"},
      {SYS_flock, "flock"},
      {SYS_openat, "openat"},
      {SYS_rt_sigtimedwait, "sigwait"}};
  std::string where = read_proc(dir + "/wchan");
  if (!where.empty() && where != "0") return where;
  std::string call = read_proc(dir + "/syscall");
  if (call.empty() || call[0] < '0' || call[0] > '9') return "";
  long number = std::strtol(call.c_str(), nullptr, 10);
  for (const auto& [n, name] : kCalls)
    if (n == number) return name;
  return "system call " + std::to_string(number);
}

std::vector<Thread> threads_of(int pid) {
  std::vector<Thread> out;
  for (const std::string& tid : entries(proc(pid) + "/task")) {
    std::string dir = proc(pid) + "/task/" + tid, stat = read_proc(dir + "/stat");
    size_t close = stat.rfind(')');
    Thread t{static_cast<int>(std::strtol(tid.c_str(), nullptr, 10)), read_proc(dir + "/comm"), "",
             in_kernel(dir)};
    while (!t.name.empty() && t.name.back() == '\n') t.name.pop_back();
    if (close != stat.npos && close + 2 < stat.size()) t.state = stat.substr(close + 2, 1);
    out.push_back(std::move(t));
  }
  std::sort(out.begin(), out.end(), [](const Thread& a, const Thread& b) { return a.tid < b.tid; });
  return out;
}

// The thread that is to take the signal: one of the runtime's, else any. `pidfd` is of the process, and older than the look
// at whether it expects the signal: a number could mean another one by now, which the signal would kill.
bool send_request(int pidfd, const std::vector<Thread>& threads) {
#ifndef PIDFD_THREAD
  constexpr unsigned PIDFD_THREAD = O_EXCL;  // Linux 6.9
#endif
  for (const Thread& t : threads) {
    if (t.name != kReceiver) continue;
    Fd thread(static_cast<int>(::syscall(SYS_pidfd_open, t.tid, PIDFD_THREAD)));
    // While the process lives its thread has this number, for the runtime keeps it to the end.
    pollfd ended{pidfd, POLLIN, 0};
    if (thread.valid() && ::poll(&ended, 1, 0) == 0 && pidfd_signal(thread.get(), stack_signal())) return true;
  }
  return pidfd_signal(pidfd, stack_signal());
}

// What the process answers; empty with *why set when it does not.
std::string python_stack(const ProcessInfo& p, const std::vector<Thread>& threads,
                         std::string* why) {
  if (p.state == 'T' || p.state == 't') {
    *why = strprintf("stopped by a signal or a debugger, it cannot answer: kill -CONT %d", p.pid);
    return "";
  }
  Fd pidfd(pidfd_open(p.pid));
  std::string path = pidfd.valid() ? answer_file(p.pid) : "";
  if (path.empty() || !expects_signal(p.pid)) {
    *why =
        "no Python stack: not a Python process of libray, still at its start, or its descriptors "
        "were closed";
    return "";
  }
  Fd file(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  // Two askers share the file: the later one waits for the earlier one's answer.
  for (int i = 0; file.valid() && ::flock(file.get(), LOCK_EX | LOCK_NB) != 0 && i < 200; ++i)
    pause_ns(10'000'000);
  if (!file.valid() || ::ftruncate(file.get(), 0) != 0 || !send_request(pidfd.get(), threads)) {
    *why = std::string("cannot ask it: ") + std::strerror(errno);
    return "";
  }
  std::string text;
  for (int64_t deadline = steady_ns() + kAnswerNs; steady_ns() < deadline;) {
    pause_ns(2'000'000);
    struct stat st;
    if (::fstat(file.get(), &st) != 0 || st.st_size == 0) continue;
    text.resize(static_cast<size_t>(st.st_size));
    ssize_t n = ::pread(file.get(), text.data(), text.size(), 0);
    text.resize(n > 0 ? static_cast<size_t>(n) : 0);
    if (text.empty() || text.back() != '\0') continue;  // there is more to come
    text.pop_back();
    return text;
  }
  *why =
      "it did not answer within 5 s: the thread that should is inside the kernel, or gets no CPU";
  return "";
}

std::string native_stack(int pid) {
  std::string id = std::to_string(pid);
  const std::string commands[] = {
      "gdb -p " + id + " -batch -nx -ex 'thread apply all bt' 2>/dev/null",
      "eu-stack -p " + id + " 2>/dev/null"};
  for (const std::string& command : commands) {
    FILE* out = ::popen(command.c_str(), "r");
    if (!out) continue;
    std::string text;
    char block[4096];
    for (size_t n; (n = std::fread(block, 1, sizeof block, out)) > 0;) text.append(block, n);
    if (::pclose(out) == 0 && !text.empty()) return text;
  }
  return "";
}

const char* state_word(const std::string& state) {
  switch (state.empty() ? '?' : state[0]) {
    case 'R': return "running";
    case 'S': return "sleeping";
    case 'D': return "waiting for a device";
    case 'T': return "stopped";
    case 't': return "held by a debugger";
    case 'I': return "idle";
    default: return "ending";
  }
}

void print_text(const std::string& text) {
  for (size_t at = 0; at < text.size();) {
    size_t end = std::min(text.find('\n', at), text.size());
    if (end > at) std::printf("  %s\n", printable(text.substr(at, end - at)).c_str());
    at = end + 1;
  }
}

struct Stack {
  std::string python, why, native;
  std::vector<Thread> threads;
};

void print_stack(const ProcessInfo& p, const Stack& s, bool native) {
  std::printf("%s %d  %s\n", p.role.c_str(), p.pid, printable(p.command).c_str());
  print_text(s.python);
  if (s.python.empty() && !s.why.empty()) std::printf("  %s\n", s.why.c_str());
  if (native && s.native.empty())
    std::printf("  no native stack: gdb or eu-stack is needed, and the right to attach\n");
  print_text(s.native);
  for (const Thread& t : s.threads)
    std::printf("  thread %d %s: %s%s%s\n", t.tid, printable(t.name).c_str(), state_word(t.state),
                t.in_kernel.empty() ? "" : " in ", t.in_kernel.c_str());
  std::printf("\n");
}

std::string stack_json(const ProcessInfo& p, const Stack& s) {
  std::string threads;
  for (const Thread& t : s.threads)
    threads += (threads.empty() ? "" : ", ") +
               strprintf("{\"tid\": %d, \"name\": %s, \"state\": %s, \"wchan\": %s}", t.tid,
                         wire::json_quote(t.name).c_str(), wire::json_quote(t.state).c_str(),
                         wire::json_quote(t.in_kernel).c_str());
  return strprintf(
      "{\"pid\": %d, \"role\": %s, \"python\": %s, \"native\": %s, \"reason\": %s, \"threads\": "
      "[%s]}",
      p.pid, wire::json_quote(p.role).c_str(), wire::json_quote(s.python).c_str(),
      wire::json_quote(s.native).c_str(), wire::json_quote(s.why).c_str(), threads.c_str());
}

}  // namespace

Status show_stacks(const Common& common, int pid, bool native) {
  auto session = find_living_session(common.session);
  if (!session.ok()) return session.status();
  auto all = session_processes(*session, read_node_file(*session));
  std::string json;
  bool found = false;
  for (const ProcessInfo& p : all) {
    if (pid ? p.pid != pid : p.role == "zygote") continue;
    found = true;
    Stack s;
    s.threads = threads_of(p.pid);
    if (p.role == "worker" || p.role == "driver") s.python = python_stack(p, s.threads, &s.why);
    if (native) s.native = native_stack(p.pid);
    if (common.json)
      json += (json.empty() ? "\n  " : ",\n  ") + stack_json(p, s);
    else
      print_stack(p, s, native);
  }
  if (!found && pid)
    return error(RAY_NOT_FOUND,
                 "process %d does not belong to session '%s': libray status lists them", pid,
                 session->c_str());
  if (!found)
    return error(
        RAY_NOT_FOUND,
        "session '%s' is over: none of its processes lives (libray status, tasks, errors and logs "
        "tell what it did)",
        session->c_str());
  if (common.json) std::printf("[%s\n]\n", json.c_str());
  return Status();
}

}  // namespace ray::cli
