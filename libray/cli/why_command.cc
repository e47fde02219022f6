// why: what the scheduler of a cluster thought when it last decided about a task. The one command that asks a living daemon,
// which asks the head: decisions are kept nowhere else.
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "libray/base/trust.h"
#include "libray/cli/commands.h"
#include "libray/cli/session_files.h"
#include "libray/node/session.h"
#include "libray/wire/msgpack.h"
#include "libray/wire/protocol.h"

namespace ray::cli {
namespace {

constexpr int kAnswerMs = 5000;

Result<std::string> ask_daemon(const std::string& session, const std::string& what, const std::string& filter) {
  auto token = node::read_file(session + "/" + wire::kTokenFile);
  if (!token.ok()) return token.status();
  auto socket = connect_own(session + "/" + wire::kNodeSocket, SOCK_SEQPACKET);
  if (!socket.ok()) return socket.status();
  wire::Packer body;
  body.array(2).str(what).raw(filter);
  wire::Hello h{};
  h.magic = wire::kMagic;
  h.version = wire::kProtocolVersion;
  h.pid = static_cast<uint32_t>(::getpid());
  h.mode = wire::kModeTool;
  h.size = static_cast<uint32_t>(body.bytes().size());
  std::memcpy(h.token, token->data(), std::min(sizeof h.token, token->size()));
  std::string message(reinterpret_cast<const char*>(&h), sizeof h);
  message += body.bytes();
  const Status sent = send_with_fds(socket->get(), message.data(), message.size(), nullptr, 0);
  pollfd answer{socket->get(), POLLIN, 0};
  int n;
  do n = ::poll(&answer, 1, kAnswerMs);
  while (n < 0 && errno == EINTR);
  if (n == 0) return error(RAY_TIMED_OUT, "the node daemon of %s does not answer", session.c_str());
  std::string bytes(wire::kDatagramMax, '\0');
  std::vector<Fd> none;
  auto got = recv_with_fds(socket->get(), bytes.data(), bytes.size(), &none);
  if (!got.ok()) return got.status();
  wire::Welcome w;
  if (*got < sizeof w) return sent.ok() ? error(RAY_UNAVAILABLE, "the node daemon of %s is ending", session.c_str()) : sent;
  std::memcpy(&w, bytes.data(), sizeof w);
  if (w.magic != wire::kMagic || w.version != wire::kProtocolVersion)
    return error(RAY_UNSUPPORTED, "the node daemon of %s is of another version of libray", session.c_str());
  std::string text = bytes.substr(sizeof w, std::min<size_t>(w.size, *got - sizeof w));
  return w.code == RAY_OK ? Result<std::string>(std::move(text)) : Status(static_cast<ray_code>(w.code), std::move(text));
}

}  // namespace

Status show_why(const Common& common, const std::string& id) {
  auto session = find_living_session(common.session);
  if (!session.ok()) return session.status();
  auto task = find_task(*session, id);
  if (!task.ok()) return task.status();
  if (node_state(*session, read_node_file(*session)) == NodeState::kDead)
    return error(RAY_NODE_DIED, "node of '%s' is dead, and decisions are remembered by the head alone: ask another node of "
                 "the cluster with --session", session->c_str());
  wire::Packer filter;
  filter.map(1).str("task").str(*task);
  auto value = ask_daemon(*session, "why", filter.bytes());
  if (!value.ok()) return value.status();
  std::string_view text;
  if (!wire::Reader(*value).str(&text)) return error(RAY_UNSUPPORTED, "the node daemon's answer is not understood");
  if (common.json) {
    std::printf("{\"task\": %s, \"why\": %s}\n", wire::json_quote(*task).c_str(), wire::json_quote(text).c_str());
    return Status();
  }
  if (text.empty())
    return error(RAY_NOT_FOUND, "the cluster's scheduler was not asked about task %s, or not lately: it ran on the node that "
                 "submitted it, or one of the tasks that ask for the same was named in its place", task->c_str());
  std::printf("%.*s", static_cast<int>(text.size()), text.data());
  return Status();
}

}  // namespace ray::cli
