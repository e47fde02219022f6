// The answer of a Python process to `libray stack` (libray/cli/stack_command.cc): a signal makes it
// write the Python stacks of all its threads into a file in memory that the tool finds among the
// process's descriptors, by its name. Works while Python code hangs, holds the GIL or sleeps in C.
//
// The tool sends the signal to a thread of the runtime, so that no system call of the user's code
// is interrupted. faulthandler's C code walks the frames; it does so without the GIL, and what it
// reads may change under it. That is why it runs in a copy of the process: a fork in which no other
// thread goes on and whose crash hurts nobody. Called by init and by a worker's start; the handler
// runs on any thread, and uses only what a signal handler may.
#include "stack.h"

#include <fcntl.h>
#include <pybind11/pybind11.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

namespace py = pybind11;

namespace libray_py {
namespace {

constexpr char kName[] = "libray-stack";  // of the file; the tool knows it
constexpr int kOffset = 7;                // the signal is SIGRTMIN + 7: what programs rarely use

int g_file = -1;
struct stat g_file_is;         // the user's code may close the descriptor and open another
struct sigaction g_dump = {};  // faulthandler's handler

void say(const char* text, size_t size) {
  ssize_t ignored = ::write(g_file, text, size);
  (void)ignored;
}

// In the copy. A crash is silent, and a loop that never ends is ended.
[[noreturn]] void dump(int sig, siginfo_t* info, void* context) {
  struct sigaction plain = {};
  plain.sa_handler = SIG_DFL;
  for (int fatal : {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT}) ::sigaction(fatal, &plain, nullptr);
  const rlimit no_core{0, 0}, short_time{1, 1};
  ::setrlimit(RLIMIT_CORE, &no_core);
  ::setrlimit(RLIMIT_CPU, &short_time);
  if (g_dump.sa_flags & SA_SIGINFO)
    g_dump.sa_sigaction(sig, info, context);
  else
    g_dump.sa_handler(sig);
  ::_exit(0);
}

void on_request(int sig, siginfo_t* info, void* context) {
  const int saved = errno;
  struct stat now;
  if (::fstat(g_file, &now) == 0 && now.st_ino == g_file_is.st_ino &&
      now.st_dev == g_file_is.st_dev) {
    // As fork, without what libraries want done at forks; no signal tells of its end, so that no
    // wait() of the user's code meets it.
    const long copy = ::syscall(SYS_clone, 0, 0, 0, 0, 0);
    if (copy == 0) dump(sig, info, context);
    if (copy > 0) {
      int status = 0;
      while (::waitpid(static_cast<pid_t>(copy), &status, __WALL) < 0 && errno == EINTR) {
      }
      constexpr char kBroken[] = "(the stacks changed too fast to be read whole: ask again)\n";
      if (!WIFEXITED(status)) say(kBroken, sizeof kBroken - 1);
    } else {
      constexpr char kNone[] =
          "(no process or memory left for a copy of this process to be looked at)\n";
      say(kNone, sizeof kNone - 1);
    }
    say("", 1);  // a zero byte: the answer is complete
  }
  errno = saved;
}

}  // namespace

void answer_stack_requests() {
  const int sig = SIGRTMIN + kOffset;
  struct sigaction old;
  if (g_file >= 0 || ::sigaction(sig, nullptr, &old) != 0 || (old.sa_flags & SA_SIGINFO) ||
      old.sa_handler != SIG_DFL)
    return;
  const int fd = ::memfd_create(kName, MFD_CLOEXEC);
  if (fd < 0) return;
  // Appends: the tool empties the file before it asks.
  if (::fcntl(fd, F_SETFL, O_RDWR | O_APPEND) != 0 || ::fstat(fd, &g_file_is) != 0) {
    ::close(fd);
    return;
  }
  try {
    py::module_::import("faulthandler")
        .attr("register")(sig, py::arg("file") = fd, py::arg("all_threads") = true);
  } catch (py::error_already_set&) {
    ::close(fd);
    return;
  }
  struct sigaction ours = {};
  ours.sa_sigaction = on_request;
  ours.sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK;
  sigfillset(&ours.sa_mask);
  g_file = fd;
  ::sigaction(sig, &ours, &g_dump);
}

}  // namespace libray_py
