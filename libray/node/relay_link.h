// The daemon's relay process and the socket to it: starts it, speaks libray/wire/relay_control.h with it, starts it again
// when it ends.
//
// Who: class Node, of a node in a cluster (node_foreign.cc), on its main thread. Nothing here waits but await_listening().
// Invariants: at most one process at a time, which ends with this one (by the kernel); what it says is decoded before
// anything is done with it, and a relay that says what nobody knows is ended; what waits for it is bounded, and a relay that
// does not read is ended too. Each start is another *incarnation*: it knows nothing of what the one before was told.
#pragma once
#include <cstdint>
#include <deque>
#include <string>

#include "libray/base/shm.h"
#include "libray/base/status.h"
#include "libray/node/spawn.h"
#include "libray/wire/relay_control.h"

namespace ray::node {

// The program; a test may name another in this variable of the daemon's environment.
inline constexpr char kEnvRelayProgram[] = "LIBRAY_RELAY_PROGRAM";

struct RelayOptions {
  std::string program, session;
  relay::Peer self;
  std::string listen;  // tcp://HOST:0
  std::string certificate, ca;
};

class RelayLink {
 public:
  explicit RelayLink(RelayOptions options) : options_(std::move(options)) {}
  ~RelayLink();
  RelayLink(const RelayLink&) = delete;
  RelayLink& operator=(const RelayLink&) = delete;

  static std::string program();  // that there is; empty: none
  Status start(int64_t now);
  // Until it has said where it listens; what else it says meanwhile is kept for receive().
  bool await_listening(int64_t limit_ns);
  void send(const relay::ControlMessage& m);
  bool flush();  // false: some of it waits until the socket takes more
  bool receive(relay::ControlMessage* out);  // false: nothing there, or it is over
  void kill();
  // It ended, or is over: waits for it, and says how it ended. Started again at restart_at().
  int reap(int64_t now);

  bool running() const { return process_.pid > 0; }
  bool over() const { return over_; }  // its socket is closed, or it said what nobody knows
  int pid() const { return process_.pid; }
  int pidfd() const { return process_.pidfd.get(); }
  int socket() const { return socket_.get(); }
  uint32_t incarnation() const { return incarnation_; }
  int64_t restart_at() const { return restart_at_; }
  const std::string& address() const { return address_; }  // where it listens; kept for the next one
  void listens(const std::string& address) { address_ = address; }
  StopWatch stop;

 private:
  RelayOptions options_;
  Spawned process_;
  Fd socket_;
  std::deque<std::string> out_;
  size_t out_bytes_ = 0;
  std::deque<relay::ControlMessage> kept_;
  std::string address_;
  bool over_ = false;
  uint32_t incarnation_ = 0, failures_ = 0;
  int64_t started_at_ = 0, restart_at_ = 0;
};

}  // namespace ray::node
