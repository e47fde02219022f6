// See node.h. Running short of what the system gives: descriptors, processes, memory for rings. Whatever could
// not be made is tried again; whoever waits for it is told why, and the log and the error table have a line.
// Main thread.
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "libray/base/clock.h"
#include "libray/base/log.h"
#include "libray/lineage/record.h"
#include "libray/node/node.h"

namespace ray::node {
namespace {
constexpr int64_t kAgainNs = 250'000'000;
constexpr int64_t kLookAtLogsNs = 1'000'000'000;
constexpr uint64_t kNoRoom = 32 << 10, kRoomAgain = 256 << 10;
}  // namespace

void Node::note_shortage(const std::string& kind, const std::string& text, bool anew) {
  step(event::Shortage{kind, text, anew});
}

// The waiting connection could not even be refused without a descriptor, and epoll would report it for ever:
// the spare one is for that.
void Node::refuse_without_descriptors() {
  Status why = errno_error(RAY_UNAVAILABLE, "the node daemon cannot accept a process");
  spare_.reset();
  Fd fd(::accept4(listen_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (fd.valid()) refuse(fd.get(), why);
  bool accepted = fd.valid();
  fd.reset();
  spare_ = Fd(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  note_shortage("no-descriptors", why.message());
  if (accepted) return;
  unwatch(listen_.get());  // somebody else took the spare one: no look at the socket for a moment
  listen_at_ = steady_ns() + kAgainNs;
}

void Node::listen_again(int64_t now) {
  if (!listen_at_ || now < listen_at_) return;
  const bool watched = !listen_.valid() || watch(listen_.get(), kListen, 0, EPOLLIN).ok();
  listen_at_ = watched ? 0 : now + kAgainNs;
}

// ---- room for logs

void Node::note_no_log(const std::string& why) {
  note_shortage("no-log", "what new workers print is lost: " + why + "; free some room");
}

// Said once when the disk fills up, and again after it had room. Workers and this log go on: their lines are
// dropped, and whoever dropped some says how many where they would be (base/log.cc, worker/output.py).
void Node::watch_logs(int64_t now) {
  if (now < logs_at_) return;
  logs_at_ = now + kLookAtLogsNs;
  std::string folder = session_.dir + "/logs";
  uint64_t room = room_below(folder);
  bool losing = log_lines_lost() > 0;  // by a quota or a limit of file sizes, whatever the disk has
  if (room >= kRoomAgain && !losing && logs_full_) {
    logs_full_ = false;
    log(kLogInfo, "node", "logs-full", "there is room for logs again");
  }
  if (logs_full_ || (room >= kNoRoom && !losing)) return;
  logs_full_ = true;
  note_shortage("logs-full", strprintf("the disk of %s is full: tasks go on, but what workers print and this node logs "
                                       "is lost until there is room (free some, or use LIBRAY_TMPDIR next time)",
                                       folder.c_str()), true);
}

}  // namespace ray::node
