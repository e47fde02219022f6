// See relay_link.h.
#include "libray/node/relay_link.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>

#include "libray/base/clock.h"
#include "libray/base/log.h"
#include "libray/base/proc.h"
#include "libray/session/session.h"
#include "libray/node/worker_logs.h"
#include "libray/wire/protocol.h"

namespace ray::node {
namespace {

constexpr size_t kMostWaiting = 64u << 20;
constexpr int64_t kRestartNs = 100'000'000;    // after a first end; twice as long after each further one, up to
constexpr uint32_t kMaxRestartShift = 7;       // so many times
constexpr int64_t kWellNs = 30'000'000'000;    // one that ran for so long is started again at once

}  // namespace

RelayLink::~RelayLink() {
  kill();
  if (running()) ::waitpid(process_.pid, nullptr, 0);
}

std::string RelayLink::program() {
  const char* given = std::getenv(kEnvRelayProgram);
  const std::string path = given && *given ? given : session::own_folder() + "/libray-relay";
  return is_program(path.c_str()) ? path : "";
}

Status RelayLink::start(int64_t now) {
  restart_at_ = now + (kRestartNs << std::min(failures_, kMaxRestartShift));  // if this fails
  ++failures_;
  int pair[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0)
    return errno_error(RAY_UNAVAILABLE, "cannot make a socket for the relay");
  Fd mine(pair[0]), its(pair[1]);
  ::fcntl(mine.get(), F_SETFL, O_NONBLOCK);
  const int bytes = 2 * static_cast<int>(relay::kMaxControl);
  for (int fd : pair) (void)::setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
  std::string full;
  auto log_file = open_log_or_null(options_.session + "/logs/relay.log", &full);
  if (!log_file.ok()) return log_file.status();
  SpawnOptions o;
  o.argv = {options_.program};
  o.env[wire::kEnvSession] = options_.session;
  if (incarnation_ > 0) o.env[relay::kEnvRelayAgain] = "1";
  o.out_fd = o.err_fd = log_file->get();
  o.pass_fd = its.get();
  o.pass_as = relay::kControlFd;
  auto process = spawn(o);
  if (!process.ok()) return process.status();
  process_ = std::move(*process);
  socket_ = std::move(mine);
  out_.clear();
  out_bytes_ = 0;
  kept_.clear();
  over_ = false;
  restart_at_ = 0;
  started_at_ = now;
  ++incarnation_;
  relay::ControlMessage m;
  m.type = relay::Control::kConfigure;
  m.peer = options_.self;
  m.session = options_.session;
  m.listen = address_.empty() ? options_.listen : address_;  // others know where
  m.certificate = options_.certificate;
  m.ca = options_.ca;
  send(m);
  (void)flush();
  return Status();
}

bool RelayLink::await_listening(int64_t limit_ns) {
  const int64_t end = steady_ns() + limit_ns;
  std::deque<relay::ControlMessage> others;
  bool listens = false;
  while (!listens && !over_) {
    const int64_t left = end - steady_ns();
    if (left <= 0) break;
    pollfd p{socket_.get(), POLLIN, 0};
    (void)::poll(&p, 1, static_cast<int>(left / 1'000'000 + 1));
    relay::ControlMessage m;
    while (!listens && receive(&m)) {
      listens = m.type == relay::Control::kListening;
      if (listens) address_ = m.text;
      else others.push_back(m);
    }
  }
  kept_ = std::move(others);
  return listens;
}

void RelayLink::send(const relay::ControlMessage& m) {
  if (over_ || !socket_.valid()) return;
  out_.push_back(relay::encode(m));
  out_bytes_ += out_.back().size();
  if (out_bytes_ <= kMostWaiting) return;
  log(kLogError, "node", "relay", "the relay does not read what it is sent: it is ended");
  kill();
}

bool RelayLink::flush() {
  while (!out_.empty() && !over_) {
    const std::string& next = out_.front();
    const ssize_t n = ::send(socket_.get(), next.data(), next.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == ENOBUFS)) return false;
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {  // its end is seen by whoever reads
      out_.clear();
      out_bytes_ = 0;
      return true;
    }
    out_bytes_ -= next.size();
    out_.pop_front();
  }
  return true;
}

bool RelayLink::receive(relay::ControlMessage* out) {
  if (!kept_.empty()) {
    *out = std::move(kept_.front());
    kept_.pop_front();
    return true;
  }
  if (over_ || !socket_.valid()) return false;
  std::string bytes(relay::kMaxControl, '\0');
  ssize_t n;
  do {
    n = ::recv(socket_.get(), bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_TRUNC);
  } while (n < 0 && errno == EINTR);
  if (n < 0 && errno == EAGAIN) return false;
  Status s = n <= 0 ? error(RAY_UNAVAILABLE, "closed") : Status();
  if (s.ok() && static_cast<size_t>(n) > bytes.size()) s = error(RAY_INVALID_ARGUMENT, "a message of %zd bytes", n);
  if (s.ok()) {
    bytes.resize(static_cast<size_t>(n));
    *out = {};
    s = relay::decode(bytes, out);
  }
  if (s.ok() && out->type < relay::Control::kListening) s = error(RAY_INVALID_ARGUMENT, "a message that only the daemon sends");
  if (s.ok()) return true;
  over_ = true;
  if (n > 0) {
    log(kLogError, "node", "relay", "the relay said what nobody understands, and is ended: %s", s.message().c_str());
    kill();
  }
  return false;
}

void RelayLink::kill() {
  if (running()) (void)pidfd_signal(process_.pidfd.get(), SIGKILL);
}

int RelayLink::reap(int64_t now) {
  int status = -1;
  if (running()) {
    kill();
    ::waitpid(process_.pid, &status, 0);
  }
  process_ = {};
  socket_.reset();
  over_ = true;
  if (now - started_at_ > kWellNs) failures_ = 0;
  restart_at_ = now + (failures_ ? kRestartNs << std::min(failures_ - 1, kMaxRestartShift) : 0);
  stop = {};
  return status;
}

}  // namespace ray::node
