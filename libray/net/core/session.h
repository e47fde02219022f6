// A session between two nodes: messages in order, each exactly once, however often the connection below breaks. Pure:
// driven by the endpoint, and by the simulator.
//
// Who sends keeps a message until the other side has said that it was received; after a reconnect both say how far they
// are, and the rest is sent again. Who receives grants bytes in advance and grants more as its user consumes them, so a
// slow consumer on one node stops the producer on the other, and memory is bounded from end to end. A connection is
// given up when nothing was heard on it for a while; a session is never given up here: whether a node is dead is decided
// by the control store.
//
// Invariants: the numbers of a lane's messages are dense from 1; acknowledged <= transmitted <= sent; messages are
// delivered in order; no message begins beyond the granted bytes. A peer that breaks one loses the connection.
#pragma once
#include <algorithm>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <string_view>

#include "libray/net/core/frame.h"
#include "libray/net/core/handshake.h"

namespace ray::net {

using Message = std::shared_ptr<const std::string>;

struct SessionOptions {
  uint64_t window[kLanes] = {1u << 20, 8u << 20};  // bytes that may be under way or waiting for their consumer
  uint32_t ack_every = 32;                         // messages
  int64_t ack_ns = 5'000'000;                      // an acknowledgement waits so long for something to travel with
  int64_t ping_ns = 500'000'000;                   // after so long without a word of ours
  int64_t silent_ns = 3'000'000'000;               // without a word of theirs the connection is given up
};

// A part of what is to be written: a head and the body that follows it, without a copy.
struct Piece {
  std::string head;
  Message body;  // or null
};

class Session {
 public:
  explicit Session(const SessionOptions& options = {});

  // ---- the user
  // Always taken; longer than kMaxMessage is the caller's error. False: more is queued than the peer grants at a time,
  // so stop until became_writable() says so.
  bool enqueue(Lane lane, Message message);
  // The user is done with messages of so many bytes in all; `n` messages.
  void consumed(Lane lane, uint64_t bytes, uint64_t n = 1);
  bool became_writable(Lane lane);

  // ---- the connection
  Resume resume() const;
  // A proven connection, on whose way the peer was told the one and said the other. An error says what cannot be: this
  // is not the session that the peer means.
  Status attach(int64_t now, const Resume& told, const Resume& peer);
  void detach();
  bool attached() const { return attached_; }
  // What to write next; false = nothing now.
  bool next(int64_t now, Piece* out);
  // A frame of an attached connection. *delivered: the body is a message for the user. An error breaks the connection.
  Status on_frame(int64_t now, const Head& head, std::string_view body, bool* delivered);
  Status tick(int64_t now);  // an error: silent for too long
  // This process did not run for a while: the peer has as long again to be heard.
  void pardon(int64_t now) { heard_ = std::max(heard_, now); }
  int64_t deadline() const;  // when tick() or next() has something to do by itself

  bool owes(Lane lane) const { return !out_[lane].kept.empty(); }  // the peer has not said that it has all
  uint64_t unacknowledged() const { return out_[kUrgent].kept_bytes + out_[kNormal].kept_bytes; }

 private:
  struct Sent {
    uint64_t seq, end;  // end: bytes of the lane up to its end, since the session began
    Message message;
  };
  struct Out {
    std::deque<Sent> kept;        // not acknowledged
    size_t transmitted = 0;       // of kept, on this connection
    uint64_t next_seq = 1, end = 0, acknowledged = 0, granted = 0;
    uint64_t kept_bytes = 0;
    bool full = false;
  };
  struct In {
    uint64_t received = 0;        // messages
    uint64_t arrived = 0, done = 0;  // bytes
    uint64_t granted = 0;         // told on this connection
    uint32_t unsaid = 0;          // messages received since the last acknowledgement
    bool hurry = false;           // do not wait for a message to travel with
  };
  Status acknowledge(uint32_t lane, uint64_t ack, uint64_t granted);
  Status receive(const Head& head, size_t size, int64_t now, bool* fresh);
  Head head_for(uint32_t lane);
  bool ack_is_due(const In& in, int64_t now) const;
  bool may_transmit(const Out& o) const;
  bool next_of(uint32_t lane, int64_t now, Head* head, Message* body);
  uint64_t grant(uint32_t lane) const { return in_[lane].done + options_.window[lane]; }

  const SessionOptions options_;
  Out out_[kLanes];
  In in_[kLanes];
  bool attached_ = false, pong_ = false;
  int64_t heard_ = 0, said_ = 0, ack_at_ = INT64_MAX;
};

}  // namespace ray::net
