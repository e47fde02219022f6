// The first frames of a connection: both sides say who they are, and each proves that it knows the cluster's token
// without sending it. Pure: one object per connection, used by the endpoint.
//
//   dialer                      listener
//   Hello ──────────────────▶                 it has said nothing before: a port scan learns nothing
//                 ◀────────── Hello
//   Proof ──────────────────▶                 checked before the listener proves anything
//                 ◀────────── Proof
//
// A proof is an HMAC-SHA256, keyed with the token, over its sender's role, both Hellos (each with 16 fresh random bytes,
// so that none can be used twice) and how far its sender has received the session.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

#include "libray/base/ids.h"
#include "libray/net/core/frame.h"

namespace ray::net {

inline constexpr uint32_t kNetVersion = 1;

// A node's daemon from its start to its end. Who starts again with the same node id has a higher epoch.
struct Identity {
  NodeId node;
  uint32_t epoch = 0;
  uint64_t incarnation = 0;  // random: tells two daemons with one id apart
};

struct Greeting {
  uint32_t version = kNetVersion;
  Identity who;
  uint32_t channel = 0;  // of several sessions between the same two nodes
  std::string nonce;     // 16 random bytes
};

// How far one side of a session has come, by lane.
struct Resume {
  struct {
    uint64_t received = 0;  // messages
    uint64_t granted = 0;   // bytes that the other side may have sent in all
  } lane[kLanes];
};

class Handshake {
 public:
  Handshake(bool dialer, std::string_view token, Greeting own);
  const std::string& hello() const { return hello_; }  // a whole frame
  Status on_hello(std::string_view body);
  bool greeted() const { return !peer_hello_.empty(); }
  const Greeting& peer() const { return peer_; }
  // After on_hello. A whole frame.
  std::string proof(const Resume& own) const;
  // RAY_INVALID_ARGUMENT: the other side does not know the token.
  Status on_proof(std::string_view body, Resume* peer) const;

 private:
  std::string mac(bool by_dialer, std::string_view resume) const;
  const bool dialer_;
  const std::string token_;
  std::string hello_;       // frame
  std::string own_hello_;   // its body
  std::string peer_hello_;  // body
  Greeting peer_;
};

}  // namespace ray::net
