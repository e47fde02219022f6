// See member.h.
#include "libray/cluster/member.h"

#include <algorithm>
#include <iterator>

namespace ray::cluster {

Member::Member(About self, std::string head, const MemberOptions& options, int64_t now)
    : self_(std::move(self)), address_(std::move(head)), options_(options), join_by_(now + options.join_ns),
      ticked_at_(now) {
  load_.available = self_.resources;
}

void Member::send_now(const Message& m, MemberActions* out) {
  MemberAction a{MemberAction::kSend};
  a.urgent = m.kind != Kind::kRequest && m.kind != Kind::kAnswer;
  a.text = encode(m);
  out->push_back(std::move(a));
}

void Member::end(int32_t code, std::string why, MemberActions* out) {
  if (phase_ == Phase::kEnded) return;
  phase_ = Phase::kEnded;
  MemberAction a{MemberAction::kEnd};
  a.code = code;
  a.text = std::move(why);
  out->push_back(std::move(a));
}

// ---- of the transport

void Member::on_up(Peer peer, const NodeId& who, int64_t, MemberActions* out) {
  if (phase_ == Phase::kEnded) return;
  if (phase_ == Phase::kJoined && who != head_)
    return end(RAY_NODE_DIED, strprintf("the head of the cluster is gone: another one answers at %s", address_.c_str()), out);
  head_ = who;
  peer_ = peer;
  up_ = true;
  if (phase_ == Phase::kJoined) return;  // the session goes on
  early_.clear();
  Message m;
  m.kind = Kind::kJoin;
  m.about = self_;
  send_now(m, out);
}

void Member::on_down(Peer peer, int64_t now, MemberActions*) {
  if (peer != peer_ || !up_) return;
  up_ = false;
  down_at_ = now;
}

// Nobody has proved that he is the head, so only a node that has not joined believes it.
void Member::on_refused(const std::string& why, int64_t, MemberActions* out) {
  if (phase_ == Phase::kJoining)
    end(RAY_INVALID_ARGUMENT, strprintf("%s refused this node: %s", address_.c_str(), why.c_str()), out);
}

void Member::on_message(Peer peer, Message m, int64_t now, MemberActions* out) {
  if (phase_ == Phase::kEnded || peer != peer_) return;
  MemberAction a{MemberAction::kLog};
  switch (m.kind) {
    case Kind::kWelcome: return welcome(std::move(m), now, out);
    case Kind::kTable:
      if (joined()) take(std::move(m.rows), out);
      else early_.insert(early_.end(), std::make_move_iterator(m.rows.begin()), std::make_move_iterator(m.rows.end()));
      return;
    case Kind::kRefused:
      return end(m.code, strprintf("the head at %s refused this node: %s", address_.c_str(), m.text.c_str()), out);
    case Kind::kFenced:
      return end(RAY_NODE_DIED,
                 strprintf("this node (index %u, epoch %u) was declared dead by the head at %s: %s. Nothing that it does "
                           "counts any more; start it again", index_, m.epoch, address_.c_str(), m.text.c_str()), out);
    case Kind::kEnding:
      return end(RAY_NODE_DIED, strprintf("the head at %s ended the cluster: %s", address_.c_str(), m.text.c_str()), out);
    case Kind::kRequest:
    case Kind::kAnswer:
      // An answer in the name of a dead node is the head's, who says that it is dead: the call ends now.
      if (!joined() || m.to != index_ || (m.kind == Kind::kRequest && is_dead(m.from))) return;
      a.kind = m.kind == Kind::kRequest ? MemberAction::kServe : MemberAction::kAnswer;
      a.message = std::move(m);
      out->push_back(std::move(a));
      return;
    case Kind::kJoin: {
      Message no;
      no.kind = Kind::kRefused;
      no.code = RAY_WRONG_STATE;
      no.text = "this node is not the head of a cluster";
      return send_now(no, out);
    }
    default: return;
  }
}

bool Member::is_dead(NodeIndex node) const {
  auto it = rows_.find(node);
  return it != rows_.end() && it->second.state == State::kDead;
}

void Member::welcome(Message m, int64_t now, MemberActions* out) {
  if (joined()) return;
  phase_ = Phase::kJoined;
  index_ = m.index;
  epoch_ = m.epoch;
  cluster_ = m.cluster;
  beat_at_ = now;
  MemberAction a{MemberAction::kJoined};
  out->push_back(std::move(a));
  early_.insert(early_.end(), std::make_move_iterator(m.rows.begin()), std::make_move_iterator(m.rows.end()));
  take(std::move(early_), out);
  early_ = {};
}

void Member::take(std::vector<Row> rows, MemberActions* out) {
  bool dead = false;
  for (Row& row : rows) {
    dead |= row.state == State::kDead;
    MemberAction a{MemberAction::kRow};
    a.row = row;
    out->push_back(std::move(a));
    rows_[row.index] = std::move(row);
  }
  if (dead) trim_dead(&rows_, options_.max_dead);
}

// ---- of this node

// Sessions lose nothing, so it is said once.
void Member::set_relay(const std::string& address, MemberActions* out) {
  if (!joined()) return;
  Message m;
  m.kind = Kind::kRelay;
  m.index = index_, m.epoch = epoch_, m.text = address;
  send_now(m, out);
}

void Member::leave(const std::string& why, MemberActions* out) {
  if (!joined()) return;
  Message m;
  m.kind = Kind::kLeave;
  m.index = index_, m.epoch = epoch_, m.text = why;
  send_now(m, out);
  phase_ = Phase::kEnded;
}

void Member::pass(Message m, MemberActions* out) {
  m.from = index_;
  if (m.to != index_) return send_now(m, out);
  MemberAction a{m.kind == Kind::kRequest ? MemberAction::kServe : MemberAction::kAnswer};
  a.message = std::move(m);
  out->push_back(std::move(a));
}

void Member::tick(int64_t now, MemberActions* out) {
  if (phase_ == Phase::kEnded) return;
  const bool paused = now - ticked_at_ > options_.pause_ns;
  ticked_at_ = now;
  if (paused) down_at_ = now;
  if (!joined() && now >= join_by_)
    return end(RAY_UNAVAILABLE, strprintf("no head of a cluster answered at %s within %.0f s", address_.c_str(),
                                          static_cast<double>(options_.join_ns) / 1e9), out);
  if (!up_ && joined() && now - down_at_ >= options_.lost_ns)
    return end(RAY_NODE_DIED, strprintf("the head of the cluster at %s is gone: no connection to it for %.1f s",
                                        address_.c_str(), static_cast<double>(options_.lost_ns) / 1e9), out);
  if (!joined() || now < beat_at_) return;
  beat_at_ = now + options_.beat_ns;
  if (!up_) return;
  Message m;
  m.kind = Kind::kBeat;
  m.index = index_, m.epoch = epoch_, m.number = ++beats_, m.load = load_;
  send_now(m, out);
}

int64_t Member::deadline() const {
  if (phase_ == Phase::kEnded) return INT64_MAX;
  int64_t at = ticked_at_ + options_.pause_ns / 2;  // a late tick shows a pause
  if (joined()) at = std::min(at, beat_at_);
  if (!joined()) at = std::min(at, join_by_);
  else if (!up_) at = std::min(at, down_at_ + options_.lost_ns);
  return at;
}

}  // namespace ray::cluster
