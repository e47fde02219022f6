// One node's side of all its sessions: who dials whom, which connection carries which session, who is refused. Pure:
// events in, actions out; driven by the transport (NNG byte streams) and by the simulator.
//
// A peer is (node, channel): two nodes may have several sessions, so that one's bytes never wait behind another's. The
// number of a peer is given by this endpoint at its first handshake and stays. A target is an address that is to be
// dialled for as long as no session with whoever answers there is up.
//
// Invariants: a session has at most one connection; when both sides dialled, both keep the one that the smaller node id
// dialled. An identity with a lower epoch than one that was seen or fenced is refused, once it has proved itself: others are
// told nothing about nodes. Before its proof was checked a
// connection may cost no more than a small fixed amount of memory and time, and there are never more than some dozens
// of those.
#pragma once
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "libray/net/core/session.h"

namespace ray::net {

using Conn = uint64_t;    // numbers of the driver, never used twice
using Target = uint32_t;  // of the user
using Peer = uint32_t;

struct Action {
  enum Kind {
    kDial,      // target, text: the address; answered by dialled() or dial_failed()
    kWrite,     // conn, pieces; answered by written() when the bytes were taken
    kClose,     // conn; no answer
    kDeliver,   // peer, lane, text: a message; consumed() when it is done with
    kUp,        // peer: its session has a connection
    kDown,      // peer: it has none
    kReset,     // peer: another daemon of that node answers; what was not acknowledged is lost. Before its kUp
    kWritable,  // peer, lane: enqueue() may go on
    kRefused,   // target, text: dialling will not help before something is changed
    kLog,       // text: a line for the log, as a warning
  } kind;
  Conn conn = 0;
  Target target = 0;
  Peer peer = 0;
  Lane lane = kNormal;
  std::string text;
  std::vector<Piece> pieces;
};
using Actions = std::vector<Action>;

struct EndpointOptions {
  SessionOptions session;
  int64_t handshake_ns = 5'000'000'000;
  uint32_t max_strangers = 64;  // connections that have proved nothing; of one address a quarter
  size_t max_fenced = 16384;    // nodes that are remembered as dead
  int64_t redial_ns = 50'000'000, max_redial_ns = 2'000'000'000;
  size_t write_bytes = 256 << 10;  // given to the system at a time: so long an urgent message may wait
};

class Endpoint {
 public:
  // `random`: 64 bits that nobody can guess, or of a seed in the simulator.
  using Random = std::function<uint64_t()>;
  Endpoint(const Identity& self, std::string token, Random random, const EndpointOptions& options = {});

  // ---- the user
  // To be connected until hang_up(). Several targets may lead to one peer.
  void dial(Target target, std::string address, uint32_t channel, int64_t now, Actions* out);
  void hang_up(Target target, Actions* out);
  // False: too much is queued, wait for kWritable; the message is taken all the same. A peer that was forgotten takes
  // nothing.
  bool enqueue(Peer peer, Lane lane, Message message, int64_t now, Actions* out);
  void consumed(Peer peer, Lane lane, uint64_t bytes, int64_t now, Actions* out);
  // This node is dead for the cluster: whatever says it is it, up to that epoch, is refused from now on.
  void fence(const NodeId& node, uint32_t epoch, Actions* out);
  const Identity* find(Peer peer) const;  // null: never known, or fenced
  uint32_t channel_of(Peer peer) const;
  bool is_up(Peer peer) const;
  bool is_proven(Conn conn) const;  // who is there has proved itself
  // Whether a peer that has a connection lacks urgent messages, or has not said that it has them.
  bool owes_urgent() const;

  // ---- the driver
  void dialled(Target target, Conn conn, int64_t now, Actions* out);
  void dial_failed(Target target, const std::string& why, int64_t now, Actions* out);
  void accepted(Conn conn, std::string from, int64_t now, Actions* out);
  void received(Conn conn, std::string_view bytes, int64_t now, Actions* out);
  void written(Conn conn, int64_t now, Actions* out);
  void closed(Conn conn, const std::string& why, int64_t now, Actions* out);
  void tick(int64_t now, Actions* out);
  int64_t deadline() const;  // of the next tick

 private:
  struct Connection {
    Conn number = 0;
    bool dialler = false;
    Target target = 0;  // of a dialler
    uint32_t channel = 0;
    std::string from;  // its address, for people
    std::string host;  // without the port
    int64_t give_up_at = 0;
    bool writing = false, closing = false;
    std::vector<Piece> greetings;  // to be written before anything else
    FrameReader reader{kMaxGreeting};
    std::unique_ptr<Handshake> handshake;
    Resume told;       // with the own proof
    Peer peer = 0;     // once proven
  };
  struct Known {  // a peer
    Peer number = 0;
    Identity who;
    uint32_t channel = 0;
    std::unique_ptr<Session> session;
    Conn conn = 0;  // that carries it
  };
  struct Called {  // a target
    std::string address;
    uint32_t channel = 0;
    Conn conn = 0;
    bool dialling = false;
    int64_t at = 0, wait = 0;  // of the next attempt
    Peer peer = 0;             // who answered last
    std::string said;          // the last failure, logged once
  };

  std::string fresh(size_t bytes);
  Connection* connection(Conn conn);
  Connection* add(Conn conn, std::string from, int64_t now);
  bool is_stranger(const Connection& c) const { return c.peer == 0 && !c.dialler; }
  Connection* to_make_room(const std::string& host);
  void broken(Connection* c, const Status& why, int64_t now, Actions* out);
  void end(Connection* c, int64_t now, Actions* out);
  void forget(Conn conn, int64_t now, Actions* out);
  Status on_frame(Connection* c, const Head& head, std::string_view body, int64_t now, Actions* out);
  Status on_hello(Connection* c, std::string_view body);
  Status on_proof(Connection* c, std::string_view body, int64_t now, Actions* out);
  Status on_session_frame(Connection* c, const Head& head, std::string_view body, int64_t now, Actions* out);
  Status welcome(const Identity& who, uint32_t channel) const;
  Known* find(const Identity& who, uint32_t channel) const;
  Resume resume_for(const Greeting& peer) const;
  Known* know(const Greeting& peer, Actions* out);
  bool keep_other(const Connection& c, const Known& p);
  void pump(Connection* c, int64_t now, Actions* out);
  void redial(Called* t, int64_t now);
  void dial_targets(int64_t now, Actions* out);
  void say(std::string text, int64_t now, Actions* out);

  const Identity self_;
  const std::string token_;
  const Random random_;
  const EndpointOptions options_;
  std::map<Conn, std::unique_ptr<Connection>> connections_;
  std::map<Target, Called> targets_;
  std::map<Peer, std::unique_ptr<Known>> peers_;
  std::map<std::pair<NodeId, uint32_t>, Peer> by_name_;
  std::map<NodeId, uint32_t> fenced_;  // epochs
  std::deque<NodeId> fenced_order_;    // oldest first
  Peer next_peer_ = 1;
  int64_t ticked_at_ = 0;
  int64_t said_since_ = 0;  // lines for the log, of the running minute
  uint32_t said_ = 0, unsaid_ = 0;
};

}  // namespace ray::net
