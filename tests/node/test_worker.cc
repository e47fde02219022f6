// A worker that speaks the protocol by hand; with LIBRAY_ZYGOTE_FD a zygote of such workers. What a task does is its `function`:
//   1 answer at once · 2 say "blocked", answer when a file "go" appears in the session directory ·
//   3 crash · 4 write garbage into the up ring · 5 never answer · 6 exit(7)
#include <sys/prctl.h>
#include <sys/signalfd.h>

#include <cstdlib>
#include <filesystem>

#include "libray/session/session.h"
#include "raw_client.h"

using namespace ray;

namespace {

struct Worker {
  test::RawClient c;
  std::string session;
  ActorId actor;

  void done(test::Link* link, uint64_t tag) {
    wire::DoneHeader d{tag, RAY_OK, 0, 1000};
    void* at;
    while (!(at = link->results_out.reserve(wire::kLinkDone, sizeof d))) ::usleep(100);
    std::memcpy(at, &d, sizeof d);
    link->results_out.publish();
    ring(&c.page->bells[link->peer].armed);
  }

  void run(test::Link* link, const wire::TaskHeader& h) {
    switch (h.function) {
      case 1: return done(link, h.tag);
      case 2:
        c.up(wire::kUpBlocked, wire::UpBlocked{1, 0});
        while (!std::filesystem::exists(session + "/go")) ::usleep(500);
        c.up(wire::kUpBlocked, wire::UpBlocked{0, 0});
        return done(link, h.tag);
      case 3: std::abort();
      case 4:
        c.up_bytes(999, "nonsense");
        for (;;) ::pause();
      case 5:
        for (;;) ::pause();
      case 6: ::_exit(7);
    }
  }

  void leave() {
    c.up_bytes(wire::kUpGoodbye, "");
    std::exit(0);
  }

  void handle(const test::Record& r) {
    switch (r.type) {
      case wire::kDnExit:
      case wire::kDnShutdown: leave(); break;
      case wire::kDnActorInit: {
        auto init = r.as<wire::DnActorInit>();
        actor = init.id;
        std::string record = r.tail<wire::DnActorInit>();
        wire::UpActor u{init.id, init.incarnation, RAY_OK, 0, 0};
        if (record == "fail") {
          std::string why = "constructor failed";
          u.code = RAY_TASK_FAILED;
          u.size = static_cast<uint32_t>(why.size());
          c.up(wire::kUpActorReady, u, why);
          break;
        }
        c.up(wire::kUpActorReady, u);
        break;
      }
      case wire::kDnActorWanted:
        c.up(wire::kUpActorExit, wire::UpActor{actor, 0, RAY_OK, 0, 0});
        leave();
    }
  }

  void loop() {
    for (;;) {
      test::Record r;
      while (c.wait([](const test::Record&) { return true; }, &r, 1)) handle(r);
      if (c.closed()) ::_exit(0);
      for (auto& [id, link] : c.serving) {
        RecordView v;
        while (link->tasks_in.next(&v) == RingConsumer::Next::kRecord) {
          wire::TaskHeader h;
          std::memcpy(&h, v.data, sizeof h);
          link->tasks_in.release();
          run(link.get(), h);
        }
      }
    }
  }
};

}  // namespace

namespace {

int serve() {
  const char* number = std::getenv(wire::kEnvWorker);
  const char* dir = std::getenv(wire::kEnvSession);
  if (!number || !dir) return 2;
  if (std::filesystem::exists(std::string(dir) + "/crash-at-start")) std::abort();
  Worker w;
  w.session = dir;
  auto token = session::read_file(w.session + "/token");
  if (!token.ok()) return 3;
  if (w.c.hello(dir, *token, RAY_MODE_WORKER, RAY_LANG_NATIVE, std::strtoull(number, nullptr, 10),
                "\x80") != RAY_OK)
    return 4;
  w.loop();
  return 0;
}

void say(int fd, const std::string& line) { (void)!::send(fd, line.data(), line.size(), MSG_NOSIGNAL); }

// libray/node/zygote.h, the other side.
int zygote(int fd) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGCHLD);
  ::sigprocmask(SIG_BLOCK, &set, nullptr);
  int signals = ::signalfd(-1, &set, SFD_CLOEXEC);
  say(fd, "ready\n");
  int parent = ::getpid();
  for (;;) {
    pollfd p[2] = {{fd, POLLIN, 0}, {signals, POLLIN, 0}};
    ::poll(p, 2, -1);
    if (p[1].revents) {
      signalfd_siginfo info;
      (void)!::read(signals, &info, sizeof info);
      int status, pid;
      while ((pid = ::waitpid(-1, &status, WNOHANG)) > 0)
        say(fd, "exit " + std::to_string(pid) + " " + std::to_string(status) + "\n");
    }
    if (!p[0].revents) continue;
    char line[128] = {};
    std::vector<Fd> fds;
    auto n = recv_with_fds(fd, line, sizeof line - 1, &fds);
    unsigned long long spawn;
    if (!n.ok() || *n == 0) return 0;
    if (std::sscanf(line, "fork %llu", &spawn) != 1 || fds.size() != 2) return 5;
    int pid = ::fork();
    if (pid == 0) {
      ::setpgid(0, 0);
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      if (::getppid() != parent) ::_exit(1);
      ::dup2(fds[0].get(), 1);
      ::dup2(fds[1].get(), 2);
      ::close(fd);
      ::sigprocmask(SIG_UNBLOCK, &set, nullptr);
      ::setenv(wire::kEnvWorker, std::to_string(spawn).c_str(), 1);
      ::unsetenv("LIBRAY_ZYGOTE_FD");
      ::_exit(serve());
    }
    // What the number means by the time that the daemon reads it: a test can say.
    const char* other = std::getenv("LIBRAY_TEST_NUMBER_NOW");
    std::string text = "pid " + std::to_string(spawn) + " " + (other ? other : std::to_string(pid)) + "\n";
    Fd pidfd(pidfd_open(pid));
    int sent[1] = {pidfd.get()};
    (void)send_with_fds(fd, text.data(), text.size(), sent, 1);
  }
}

}  // namespace

int main() {
  const char* fd = std::getenv("LIBRAY_ZYGOTE_FD");
  return fd ? zygote(std::atoi(fd)) : serve();
}
