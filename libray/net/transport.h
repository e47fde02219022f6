// Sessions with other nodes over NNG's byte streams: the endpoint (core/endpoint.h) with a thread, a clock and sockets.
//
// Who: a node's daemon. Threads: one of its own runs the endpoint and calls the user; NNG's hand over and return; every
// function may be called from any thread, also from the user's calls, and does not wait.
#pragma once
#include <functional>
#include <memory>
#include <string>

#include "libray/net/core/endpoint.h"

namespace ray::net {

// PEM files. A node has a certificate; whom it trusts is who shows one that `ca` signed. Both directions are checked.
struct TlsFiles {
  std::string certificate_and_key, ca;
};

struct TransportOptions {
  Identity self;
  std::string token;
  // tcp://127.0.0.1:0, tls+tcp://…, ipc:///path; empty: only dials.
  std::string listen;
  TlsFiles tls;
  EndpointOptions endpoint;
};

class Transport {
 public:
  // Called on the transport's thread, one at a time: hand over and return.
  class User {
   public:
    virtual ~User() = default;
    // consumed() when it is done with, from wherever.
    virtual void on_message(Peer peer, Lane lane, std::string message) = 0;
    virtual void on_up(Peer peer, const Identity& who, uint32_t channel) = 0;
    virtual void on_down(Peer peer) = 0;
    // Another daemon of that node answers: what was not acknowledged is lost.
    virtual void on_reset(Peer peer) = 0;
    virtual void on_writable(Peer peer, Lane lane) = 0;
    // Nobody will be reached there before something is changed; it is tried all the same, seldom.
    virtual void on_refused(Target target, const std::string& why) = 0;
  };
  // `user` outlives it. RAY_INVALID_ARGUMENT: an address or a certificate that cannot be; RAY_UNAVAILABLE: the address is
  // taken, or the system has no thread or memory.
  static Result<std::unique_ptr<Transport>> start(TransportOptions options, User* user);
  virtual ~Transport() = default;
  // What others dial, with the port that was given; empty if it does not listen.
  virtual const std::string& address() const = 0;
  virtual void dial(Target target, std::string address, uint32_t channel) = 0;
  virtual void hang_up(Target target) = 0;
  // Kept in order per lane. Who sends without end waits for on_writable after more than the lane's window.
  // RAY_INVALID_ARGUMENT: longer than kMaxMessage, which no peer would take.
  virtual Status enqueue(Peer peer, Lane lane, Message message) = 0;
  virtual void consumed(Peer peer, Lane lane, uint64_t bytes) = 0;
  virtual void fence(const NodeId& node, uint32_t epoch) = 0;
};

}  // namespace ray::net
