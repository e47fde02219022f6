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
constexpr int64_t kSayAgainNs = 10'000'000'000;
constexpr int64_t kLookAtLogsNs = 1'000'000'000;
constexpr uint64_t kNoRoom = 32 << 10, kRoomAgain = 256 << 10;
constexpr uint32_t kBadStarts = 3;  // workers in a row that died before they joined: nobody's bad luck any more
}  // namespace

// Said to the log, the error table and all drivers, each kind at most every ten seconds.
void Node::note_shortage(const std::string& kind, const std::string& text) {
  int64_t now = steady_ns();
  int64_t& said = shortage_said_[kind];
  if (said && now - said < kSayAgainNs) return;
  said = now;
  log(kLogError, "node", kind.c_str(), "%s", text.c_str());
  report(lineage::kError, 0, {{"kind", kind}, {"message", text}});
  for (uint32_t index : live_)
    if (processes_[index]->driver)
      send(processes_[index].get(), wire::kDnNotice, nullptr, 0, text.data(), text.size());
}

// A worker never came to be; `why` is empty when it died of its own doing.
void Node::start_failed(const std::string& why, const std::string& how) {
  if (!again_at_) again_at_ = steady_ns() + kAgainNs;  // the scheduler waits longer, but has to be asked
  if (!why.empty())
    return note_shortage("worker-start", "no worker can be started, and what needs one waits: " + why);
  if (++bad_starts_ >= kBadStarts)
    note_shortage("worker-start", strprintf("the last %u workers died before they had joined the node, and what "
                                            "needs one waits: %s; see %s/logs",
                                            bad_starts_, how.c_str(), session_.dir.c_str()));
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
  listen_paused_ = true;
  if (!again_at_) again_at_ = steady_ns() + kAgainNs;
}

// No ring between these two could be made or mapped: tried again in a moment.
void Node::link_later(uint32_t client, uint32_t worker) {
  relink_.insert({client, worker});
  if (!again_at_) again_at_ = steady_ns() + kAgainNs;
}

// A process could not take its end of a link, or an actor found garbage among its calls. The other end forgets it too; of
// what went over it all that was begun is answered. A worker that can serve nobody is of no use, unless it is an actor.
Status Node::up_link_lost(Process* p, const std::string& payload) {
  wire::UpLinkLost l;
  if (payload.size() < sizeof l) return error(RAY_INVALID_ARGUMENT, "it wrote a malformed link record");
  std::memcpy(&l, payload.data(), sizeof l);
  Process* other = process(l.peer);
  Process *client = l.as_worker ? other : p, *worker = l.as_worker ? p : other;
  if (!other || !client->as_client.count(worker->index)) return Status();
  const char* who = p->driver ? "the driver" : "worker";
  if (l.why == wire::kLinkCorrupt)
    note_shortage("corrupt-ring", strprintf("%s pid %d found garbage in the ring in which pid %d sends it calls: code in one "
                                            "of the two has overwritten memory that is not its own; what was not begun "
                                            "is sent again", who, p->pid, other->pid));
  else
    note_shortage("no-link", strprintf("%s pid %d cannot map a ring that it shares with pid %d: its limit of open files or "
                                       "of memory is reached (`ulimit -n`, `ulimit -v`)", who, p->pid, other->pid));
  client->as_client.erase(worker->index);
  worker->as_worker.erase(client->index);
  const int32_t you_serve = l.as_worker ? 0 : 1;  // there may be another link, the other way around
  wire::DnPeerDied gone{p->index, static_cast<uint32_t>(p->pid), you_serve, wire::kDeathUnlinked};
  send(other, wire::kDnPeerDied, &gone, sizeof gone);
  link_later(client->index, worker->index);  // also so that workers that all fail are not replaced in a storm
  if (l.as_worker && !actors_.of_worker(worker->index)) kill_worker(worker->index, wire::kDeathForced);
  return Status();
}

void Node::relink(int64_t now) {
  if (!again_at_ || now < again_at_) return;
  again_at_ = 0;
  scheduling_needed_ = true;
  if (listen_paused_ && listen_.valid()) listen_paused_ = !watch(listen_.get(), kListen, 0, EPOLLIN).ok();
  std::set<std::pair<uint32_t, uint32_t>> pairs;
  pairs.swap(relink_);
  std::vector<std::pair<ActorId, uint32_t>> told;
  for (auto [client, worker] : pairs)
    if (const actor::Actor* a = actors_.of_worker(worker); a && a->state == wire::kActorAlive)
      told.push_back({a->spec.id, client});
  for (const auto& [id, client] : told) tell_actor(id, client);
}

// A client without room for a link gets no lease for a moment: else it would be given and returned in a circle.
bool Node::short_of_links(uint32_t client) const {
  auto it = relink_.lower_bound({client, 0});
  return it != relink_.end() && it->first == client;
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
  shortage_said_.erase("logs-full");
  note_shortage("logs-full", strprintf("the disk of %s is full: tasks go on, but what workers print and this node logs "
                                       "is lost until there is room (free some, or use LIBRAY_TMPDIR next time)",
                                       folder.c_str()));
}

}  // namespace ray::node
