// Zygotes: one warm process per (job, language) from which workers are forked, because an interpreter
// takes 100 ms to start and a fork takes 2. rayd starts `worker_argv` of the job's Hello once and speaks
// with it over a socketpair; the language binding writes the other side.
//
// What a zygote is given: LIBRAY_ZYGOTE_FD = number of its end of a SOCK_SEQPACKET socketpair,
// LIBRAY_SESSION = path of the session directory, the job's environment and working directory, log files
// as descriptors 1 and 2, a process group of its own, SIGKILL when rayd dies (which it may take back, see below).
//
//   rayd -> zygote  "fork SPAWN\n"            with two descriptors: the worker's stdout and stderr; behind
//                                             the line the worker's runtime environment, a packed map, if any
//   zygote -> rayd  "ready\n"                 optional, once: imports are done (forks may be sent before)
//   zygote -> rayd  "pid SPAWN PID\n"         after the fork, with a pidfd of the child, made before it is waited for;
//                                             "pid SPAWN -ERRNO\n" when it failed
//   zygote -> rayd  "exit PID WAIT_STATUS\n"  after waitpid gave WAIT_STATUS (as an int, decimal)
//
// One text line per message. Numbers are decimal. EOF on the socket: the zygote ends; rayd kills it
// anyway. A zygote may be a subreaper: then it kills what a dead worker leaves behind, and at EOF, which is also what it
// sees when rayd was killed, its workers and what these leave, until there is none. Else rayd is given it, if it lives.
// The zygote waits for its children with SIGCHLD or pidfds and reports every one of them.
//
// In the child, before anything else: setpgid(0, 0); prctl(PR_SET_PDEATHSIG, SIGKILL) and exit when
// getppid() is not the zygote; dup2 of the two descriptors to 1 and 2; close of the zygote's socket; then
// LIBRAY_WORKER = SPAWN in the environment (also of the C library: os.environ does it), unset of
// LIBRAY_ZYGOTE_FD, and ray_init + the worker loop. The zygote itself never calls ray_init and starts no
// thread, so that a fork is safe.
//
// Only RAY_LANG_PYTHON uses zygotes. For other languages rayd starts the command once per worker, with
// LIBRAY_WORKER set.
#pragma once
#include <cstdint>
#include <string>

#include "libray/node/spawn.h"

namespace ray::node {

inline constexpr char kEnvZygoteFd[] = "LIBRAY_ZYGOTE_FD";

class Zygote {
 public:
  // `spawn.env` and so on are completed with the socket.
  static Result<Zygote> start(SpawnOptions spawn);
  Status fork(uint64_t spawn, std::string_view env, int out_fd, int err_fd);
  struct Message {
    enum Kind { kNone, kReady, kPid, kExit, kClosed, kGarbage } kind = kNone;
    uint64_t spawn = 0;
    int pid = -1;
    int wait_status = -1;
    Fd pidfd;
  };
  Message receive();  // kNone: nothing there now
  int socket() const { return socket_.get(); }
  int pid() const { return process_.pid; }
  int pidfd() const { return process_.pidfd.get(); }
  StopWatch stop;

 private:
  Spawned process_;
  Fd socket_;
};

}  // namespace ray::node
