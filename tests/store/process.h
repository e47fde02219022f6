// Processes of the store's tests: a daemon of its own, found and stopped by pid.
#pragma once
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "tests/store/store_util.h"

namespace ray::store {

struct DaemonProcess {
  TempDir dir;
  std::string socket = dir.path() + "/store.sock";
  std::string token = "0123456789abcdef";
  pid_t pid = -1;

  bool start(uint64_t capacity, bool spill = false, const std::vector<std::string>& env = {}) {
    int out[2];
    if (::pipe(out) != 0) return false;
    std::string cap = std::to_string(capacity), spill_dir = dir.path() + "/spill";
    pid = ::fork();
    if (pid == 0) {
      ::dup2(out[1], 1);
      ::close(out[0]);
      for (auto& e : env) ::putenv(const_cast<char*>(e.c_str()));
      ::execl(STORE_DAEMON, STORE_DAEMON, socket.c_str(), token.c_str(), cap.c_str(),
              spill ? spill_dir.c_str() : nullptr, nullptr);
      ::_exit(127);
    }
    ::close(out[1]);
    char c = 0;
    bool ready = ::read(out[0], &c, 1) == 1;
    ::close(out[0]);
    return ready;
  }
  std::unique_ptr<Client> connect() const {
    auto c = Client::connect(socket, token);
    EXPECT_TRUE(c.ok()) << c.status().message();
    return c.ok() ? std::move(*c) : nullptr;
  }
  // Returns when every thread of it stands still.
  void stop() const {
    ::kill(pid, SIGSTOP);
    int status;
    ::waitpid(pid, &status, WUNTRACED);
  }
  void go_on() const { ::kill(pid, SIGCONT); }
  ~DaemonProcess() {
    if (pid <= 0) return;
    ::kill(pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
  }
};

}  // namespace ray::store
