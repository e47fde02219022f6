// Some nodes' endpoints and the network between them, all of one seed: connections with delays, bytes that arrive in
// pieces, cuts that both sides notice, cuts that nobody notices, nodes that stop for a while or start again.
//
// Every message says who sent it, to which incarnation, and its number; the world checks as they arrive that each comes
// once and in order, and at the end that none is missing.
#pragma once
#include <deque>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "libray/net/core/endpoint.h"

namespace ray::net {

class World {
 public:
  struct Options {
    uint32_t nodes = 2;
    bool both_dial = false;
    bool cuts = false, silent_cuts = false, pauses = false, restarts = false;
    bool slow_consumers = false;
    EndpointOptions endpoint;
  };
  World(uint64_t seed, const Options& options);
  void run(int64_t ns);   // with whatever the options say goes wrong
  void calm(int64_t ns);  // nothing more goes wrong, and no new message
  // Empty, or what is wrong.
  std::string verdict();
  uint64_t delivered() const { return delivered_; }
  uint64_t reconnects() const { return ups_; }
  uint64_t logged() const { return logged_; }

 private:
  struct Node {
    Identity who;
    std::unique_ptr<Endpoint> endpoint;
    int64_t paused_until = 0;
    std::map<Peer, std::map<int, bool>> full;  // by lane
  };
  struct Wire {  // one direction of a connection
    std::deque<std::pair<int64_t, std::string>> flying;
    bool end = false;
    int64_t end_at = 0;
  };
  struct Pipe {
    Conn conn[2];
    uint32_t node[2];
    uint64_t incarnation[2];
    Wire wire[2];  // from 0, from 1
    bool closed[2] = {false, false};
    bool silent = false;
  };
  struct Flow {  // of one lane, from one incarnation to another
    uint64_t sent = 0, received = 0;
    uint64_t waiting = 0;  // bytes delivered and not consumed
  };
  using FlowKey = std::tuple<uint64_t, uint64_t, int>;
  struct Later {  // something that is consumed later
    int64_t at;
    uint32_t node;
    uint64_t incarnation;
    Peer peer;
    Lane lane;
    size_t bytes;
    FlowKey flow;
  };

  uint64_t random(uint64_t below) { return rng_() % below; }
  void boot(uint32_t node);
  void dial(uint32_t node);
  void apply(uint32_t node, Actions& actions);
  void deliver(uint32_t node, const Action& a);
  void write(uint32_t node, const Action& a);
  void connect(uint32_t node, const Action& a);
  void shut(uint32_t node, Conn conn);
  void step();
  void move(Pipe& p);
  void talk();
  void harm();
  void fail(std::string what) {
    if (wrong_.empty()) wrong_ = std::move(what);
  }

  const Options options_;
  std::mt19937_64 rng_;
  int64_t now_ = 1'000'000'000;
  bool harmful_ = true;
  std::vector<Node> nodes_;
  std::vector<std::unique_ptr<Pipe>> pipes_;
  std::map<FlowKey, Flow> flows_;
  std::vector<Later> later_;
  Conn next_conn_ = 1;
  uint64_t next_incarnation_ = 1, delivered_ = 0, ups_ = 0, logged_ = 0;
  std::string wrong_;
};

}  // namespace ray::net
