// What the daemon says: parses datagrams of records on the receiver thread. See runtime.h.
#include <cerrno>

#include "libray/base/fault.h"
#include "libray/base/log.h"
#include "libray/runtime/runtime.h"
#include "libray/runtime/runtime_inl.h"
#include "libray/runtime/worker.h"
#include "libray/wire/msgpack.h"

namespace ray {
namespace {

template <class T>
bool read(const uint8_t* p, size_t n, T* out) {
  if (n < sizeof(T)) return false;
  std::memcpy(out, p, sizeof(T));
  return true;
}

}  // namespace

void Runtime::received_all() {
  after_unlock(0);  // the next message may be what makes room
  bells_.poke();
}

void Runtime::received(uint16_t type, uint16_t, const uint8_t* p, size_t n, std::vector<Fd>* fds, size_t* next_fd) {
  switch (type) {
    case wire::kDnLink: {
      wire::DnLink l;
      if (read(p, n, &l)) on_link(l, *next_fd < fds->size() ? std::move((*fds)[(*next_fd)++]) : Fd());
      return;
    }
    case wire::kDnActorInit: {
      wire::ActorInitRecord r;
      if (worker_ && wire::read(wire::bytes_of(p, n), &r)) worker_->become_actor(r);
      return;
    }
    case wire::kDnNotice:
      log(kLogWarning, "runtime", "node", "%.*s", static_cast<int>(n), reinterpret_cast<const char*>(p));
      return;
    case wire::kDnPeerDied: served_died(p, n); break;
    case wire::kDnActorWanted: return worker_ ? worker_->unwanted() : void();
    case wire::kDnExit: return worker_ ? worker_->leave() : void();
    case wire::kDnShutdown:
      if (n > 0) ended_for_.assign(reinterpret_cast<const char*>(p), n);
      if (worker_) worker_->stop();
      return;
    default: break;
  }
  std::lock_guard lock(mutex_);
  progress();  // results published before this message come first
  wire::DnLease lease;
  wire::DnPeerDied died;
  wire::DnObjState object;
  wire::DnActorState actor;
  wire::ObjCancel cancelled;
  switch (type) {
    case wire::kDnLeaseGrant:
      if (read(p, n, &lease)) on_grant(lease, p + sizeof lease, (n - sizeof lease) / sizeof(uint32_t));
      break;
    case wire::kDnLeaseReclaim:
      if (read(p, n, &lease)) on_reclaim(lease);
      break;
    case wire::kDnInfeasible:
      if (read(p, n, &lease))
        on_infeasible(lease, {reinterpret_cast<const char*>(p) + sizeof lease, n - sizeof lease});
      break;
    case wire::kDnUnplaceable: {
      wire::DnUnplaceable u;
      if (read(p, n, &u)) on_unplaceable(u, {reinterpret_cast<const char*>(p) + sizeof u, n - sizeof u});
      break;
    }
    case wire::kDnPeerDied:
      if (read(p, n, &died)) on_peer_died(died, {reinterpret_cast<const char*>(p) + sizeof died, n - sizeof died});
      break;
    case wire::kDnObjState:
      if (read(p, n, &object)) objects_.on_state(object);
      break;
    case wire::kDnObjCancel:
      if (read(p, n, &cancelled)) on_obj_cancel(cancelled);
      break;
    case wire::kDnActorText: on_actor_text(p, n); break;
    case wire::kDnActorState:
      if (read(p, n, &actor) && actor.size <= n - sizeof actor) actor_state(actor, p + sizeof actor);
      break;
    default: callbacks_.log_later(kLogDebug, "unknown-record", strprintf("record of type %u from the daemon", type));
  }
}

// mutex_ held.
void Runtime::on_actor_text(const uint8_t* p, size_t n) {
  ActorId id;
  if (n < kIdSize) return;
  std::memcpy(id.b, p, kIdSize);
  actors_.add_text(id, {reinterpret_cast<const char*>(p) + kIdSize, n - kIdSize});
}

void Runtime::on_link(const wire::DnLink& l, Fd fd) {
  if (!fd.valid()) {
    errno = EMFILE;
    return link_lost(l, errno_error(RAY_UNAVAILABLE, "no descriptor is left for it").message());
  }
  auto map = map_shared(fd.get(), wire::kLinkBytes, true);
  if (RAY_FAULT_FAILS("client.map_link")) map = error(RAY_OUT_OF_MEMORY, "cannot map a link (fault point)");
  if (!map.ok()) return link_lost(l, map.status().message());
  if (l.as_worker) {
    if (worker_) worker_->add_link(l, std::move(*map));
    return;
  }
  auto link = std::make_unique<ClientLink>();
  link->id = l.link;
  link->peer = l.peer;
  link->peer_pid = l.peer_pid;
  link->map = std::move(*map);
  uint8_t* base = link->map.data();
  link->header = reinterpret_cast<wire::LinkHeader*>(base);
  link->tasks =
      RingProducer(&link->header->tasks, base + wire::kLinkTasksOffset, wire::kLinkRingBytes);
  link->tasks.reuse_by_hand();  // Runtime::task_room
  link->results =
      RingConsumer(&link->header->results, base + wire::kLinkResultsOffset, wire::kLinkRingBytes);
  log(kLogDebug, "runtime", "link", "linked to worker %u, pid %u", l.peer, l.peer_pid);
  std::lock_guard lock(mutex_);
  link_of_peer_[l.peer] = link.get();
  links_[l.link] = std::move(link);
}

// The daemon sees to it that the other end does not wait, and tries again.
void Runtime::link_lost(const wire::DnLink& l, const std::string& why) {
  log(kLogError, "runtime", "link-failed", "a ring shared with process %u cannot be used: %s", l.peer_pid,
      why.c_str());
  daemon_.up(wire::kUpLinkLost, wire::UpLinkLost{l.peer, l.as_worker, wire::kLinkNotMapped, 0});
}

void Runtime::on_infeasible(const wire::DnLease& l, std::string_view text) {
  if (l.shape >= shape_list_.size() || shape_list_[l.shape]->warned) return;
  Shape* s = shape_list_[l.shape];
  s->warned = true;
  PendingTask* t = s->backlog.head;
  if (s->bound) {  // it may fit another node, and cannot go there
    s->gone = true;
    s->gone_code = RAY_UNSUPPORTED;
    s->gone_text = "cannot run on another node, for references, actors and generators do not travel yet: give it plain values, "
                   "or its own node what it asks for (" + std::string(text) + ")";
    return pump(s);
  }
  std::string name = t ? (t->name.empty() ? t->function->name : t->name) : "a task";
  callbacks_.log_later(kLogWarning, "infeasible", name.append(" waits: ").append(text));
}

// What waits for this shape fails, and so does all that is submitted or retried from now on.
void Runtime::on_unplaceable(const wire::DnUnplaceable& u, std::string_view text) {
  if (u.shape >= shape_list_.size() || shape_list_[u.shape]->gone_code != RAY_OK) return;
  Shape* s = shape_list_[u.shape];
  s->gone_code = u.code;
  s->gone_text = text;
  leases_.unplaceable(s, &todo_);
  carry_out();
  pump(s);
}

// Without the lock: a binding's interrupt hook may run.
void Runtime::served_died(const uint8_t* p, size_t n) {
  wire::DnPeerDied d;
  if (worker_ && read(p, n, &d) && (d.cause != wire::kDeathUnlinked || d.wait_status == 1))
    worker_->client_died(d.process);
}

void Runtime::on_peer_died(const wire::DnPeerDied& d, std::string_view why) {
  if (d.cause == wire::kDeathUnlinked && d.wait_status == 1) return;  // what we serve there, not whom we call
  auto it = link_of_peer_.find(d.process);
  if (it != link_of_peer_.end()) link_died(it->second, d, why);
}

// Its worker is gone. What it had made of the results and not handed over, if anything, is known to the node
// and the store alone. mutex_ held.
void Runtime::discard_attempt(const PendingTask* t) {
  const uint32_t making = making_of(t->tag, t->attempt);
  auto gone = [&](uint32_t index) {
    daemon_.up(wire::kUpObjDiscard, wire::UpObjDiscard{return_object(t->id, index), process(), making, 1, 0});
  };
  for (uint32_t i = 0; i < t->n_returns; ++i) gone(i);
  if (t->stream) gone(t->stream->from_attempt);  // of the others it is known
}

}  // namespace ray
