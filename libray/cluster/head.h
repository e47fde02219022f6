// The head's side of membership: who joins, who is heard of, who is dead. Pure: events in, actions out, deadline() says
// when tick() is due; driven by libray/node/membership and by the tests' world.
//
// A node that sends a join gets an index and an epoch, and the whole table; every change of a row goes to all living
// nodes. A node dies when its connection is gone and does not come back within a moment, when nothing is heard of it for
// longer, or when it says that it leaves. From then on nothing that it says counts: whatever it says, it is told that it
// is dead. When this process itself did not run for a while, everybody has as long again.
//
// Invariants: an index is given once; views are dense and only grow; a dead row never lives again and changes no more.
#pragma once
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "libray/cluster/messages.h"

namespace ray::cluster {

using Peer = uint32_t;  // of the transport: a node's session

struct HeadOptions {
  int64_t quiet_ns = 1'000'000'000;   // without a heartbeat: shown as one that does not answer
  int64_t dead_ns = 5'000'000'000;    // without a heartbeat: dead
  int64_t grace_ns = 1'000'000'000;   // without a connection: dead
  int64_t pause_ns = 1'000'000'000;   // a tick that is so late means that this process did not run
  int64_t forget_ns = 60'000'000'000; // a dead node that comes back is answered for so long, then refused unheard
  uint32_t max_nodes = 4096;          // that are alive
  size_t max_dead = kMaxDead;         // rows of the dead that are kept
  int64_t wall_offset_ns = 0;         // what makes a wall clock of `now`
};

struct HeadAction {
  enum Kind {
    kSend,    // peer, text, urgent
    kRow,     // row: changed; for the control store and the own view
    kForget,  // id: the transport refuses it from now on
    kServe,   // message: a request for this node
    kAnswer,  // message: an answer to a request of this node
    kLoad,    // node: find() and load() say how it is now
    kLog,     // text
  } kind;
  Peer peer = 0;
  bool urgent = true;
  std::string text;
  Row row;
  NodeIndex node = kNoNode;
  NodeId id;
  Message message;
};
using HeadActions = std::vector<HeadAction>;

class Head {
 public:
  Head(About self, const Id& cluster, const HeadOptions& options, int64_t now, HeadActions* out);
  // ---- of the transport
  void on_up(Peer peer, const NodeId& who, int64_t now, HeadActions* out);
  void on_down(Peer peer, int64_t now, HeadActions* out);
  void on_message(Peer peer, Message m, int64_t now, HeadActions* out);
  // ---- of this node
  void set_load(Load load, HeadActions* out);
  void set_relay(const std::string& address, HeadActions* out);
  void drain(NodeIndex node, int64_t now, HeadActions* out);
  void end(const std::string& why, HeadActions* out);
  // A request or answer of this node: to another one, or to itself.
  void pass(Message m, HeadActions* out);
  void tick(int64_t now, HeadActions* out);
  int64_t deadline() const;

  const Row* find(NodeIndex node) const;
  const Load* load(NodeIndex node) const;
  std::vector<Row> rows() const;
  uint32_t view() const { return view_; }

 private:
  struct Known {
    Row row;
    Peer peer = 0;
    bool up = false;
    int64_t heard = 0, down_at = 0, forget_at = 0;
    uint64_t beat = 0;
    Load load;
  };
  Known* known(const NodeId& id);
  void join(Peer peer, const NodeId& who, About about, int64_t now, HeadActions* out);
  void beat(Known* k, const Message& m, int64_t now, HeadActions* out);
  void take_load(Known* k, Load load, HeadActions* out);
  void relay(Known* k, const std::string& address, HeadActions* out);
  void route(Known* k, Message m, HeadActions* out);
  void die(Known* k, const std::string& cause, int64_t now, HeadActions* out);
  void say_fenced(const Known& k, Peer peer, HeadActions* out);
  void changed(const Known& k, HeadActions* out);
  void publish(HeadActions* out);
  void look(Known* k, int64_t now, HeadActions* out);
  void trim_dead();
  void send_table(const std::vector<Peer>& to, const std::vector<Row>& rows, Message last, HeadActions* out) const;
  static void send_to(Peer peer, const Message& m, HeadActions* out);

  const Id cluster_;
  const HeadOptions options_;
  std::map<NodeIndex, Known> nodes_;
  std::map<NodeId, NodeIndex> by_id_;
  std::map<Peer, NodeId> peers_;  // sessions that are up
  std::set<NodeIndex> living_;    // without the head
  std::map<uint32_t, NodeIndex> dead_;  // of nodes_, by their deaths
  std::set<NodeIndex> dying_;     // dead ones that are still answered
  std::set<NodeIndex> changed_;   // rows that the others have not been told of
  NodeIndex next_ = 0;
  uint32_t view_ = 0;
  int64_t ticked_at_ = 0;
  bool ended_ = false;
};

}  // namespace ray::cluster
