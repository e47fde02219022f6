// A node's side of membership, of one that is not the head: it joins, says how it is, hears who belongs to the cluster,
// and ends when it no longer does. Pure: events in, actions out; driven by libray/node/membership and by the tests' world.
//
// It ends when the head refuses it, says that it is dead for the cluster or that the head itself ends, when another head
// answers, or when there is no connection to the head for a while: by then the head has declared it dead. It is the last
// of these that makes a node end which was cut off and hears nothing. When this process itself did not run for a while it
// first listens again: its death may be the first word that it hears.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "libray/cluster/messages.h"

namespace ray::cluster {

using Peer = uint32_t;

struct MemberOptions {
  int64_t beat_ns = 200'000'000;
  int64_t join_ns = 10'000'000'000;  // for the first answer
  int64_t lost_ns = 3'000'000'000;   // without a connection: the head is gone. Longer than its grace
  int64_t pause_ns = 1'000'000'000;  // a tick that is so late means that this process did not run
  size_t max_dead = kMaxDead;        // rows of the dead that are kept
};

struct MemberAction {
  enum Kind {
    kSend,    // text, urgent; to the head
    kJoined,  // index, epoch
    kRow,     // row: new or changed
    kServe,   // message: a request for this node
    kAnswer,  // message: an answer to a request of this node
    kEnd,     // code, text: this node is to end. The last action
    kLog,     // text
  } kind;
  bool urgent = true;
  std::string text;
  int32_t code = RAY_OK;
  Row row;
  Message message;
};
using MemberActions = std::vector<MemberAction>;

class Member {
 public:
  // `head`: its address, for people.
  Member(About self, std::string head, const MemberOptions& options, int64_t now);
  // ---- of the transport.
  void on_up(Peer peer, const NodeId& who, int64_t now, MemberActions* out);
  void on_down(Peer peer, int64_t now, MemberActions* out);
  void on_refused(const std::string& why, int64_t now, MemberActions* out);
  void on_message(Peer peer, Message m, int64_t now, MemberActions* out);
  // ---- of this node
  void set_load(Load load) { load_ = std::move(load); }
  void set_relay(const std::string& address, MemberActions* out);  // it has joined
  void leave(const std::string& why, MemberActions* out);
  void pass(Message m, MemberActions* out);
  void tick(int64_t now, MemberActions* out);
  int64_t deadline() const;

  bool joined() const { return phase_ == Phase::kJoined; }
  bool ended() const { return phase_ == Phase::kEnded; }
  NodeIndex index() const { return index_; }
  uint32_t epoch() const { return epoch_; }
  const Id& cluster() const { return cluster_; }
  const std::map<NodeIndex, Row>& rows() const { return rows_; }

 private:
  enum class Phase { kJoining, kJoined, kEnded };
  void end(int32_t code, std::string why, MemberActions* out);
  bool is_dead(NodeIndex node) const;
  void welcome(Message m, int64_t now, MemberActions* out);
  void take(std::vector<Row> rows, MemberActions* out);
  static void send_now(const Message& m, MemberActions* out);

  const About self_;
  const std::string address_;
  const MemberOptions options_;
  Phase phase_ = Phase::kJoining;
  NodeId head_;
  Peer peer_ = 0;
  bool up_ = false;
  int64_t join_by_, down_at_ = 0, beat_at_ = 0, ticked_at_;
  uint64_t beats_ = 0;
  NodeIndex index_ = kNoNode;
  uint32_t epoch_ = 0;
  Id cluster_;
  Load load_;
  std::map<NodeIndex, Row> rows_;
  std::vector<Row> early_;  // of the parts before the welcome
};

}  // namespace ray::cluster
