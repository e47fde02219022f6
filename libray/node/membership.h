// The membership cores (libray/cluster) with a thread, a clock and sessions (libray/net): this node as the head of a
// cluster, or as a member of one.
//
// Who: the node daemon, through cluster_side.h; the tests of it. Threads: one of its own runs the cores and calls the
// user; the transport's hands over; every function may be called from any thread and, but for start(), does not wait.
// Heartbeats leave from that thread, so a main loop that is busy for seconds is not taken for a dead node. On the head the
// global scheduler is there too (global_side.h), and answers without the main loop.
// Invariants: no socket listens unless this is the head; what a peer says is decoded before anything is done with it.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "libray/cluster/calls.h"
#include "libray/cluster/head.h"
#include "libray/cluster/member.h"
#include "libray/net/transport.h"

namespace ray::node {

// What one node asks another. kPlace and kWhy are for the head alone, and answered on membership's thread (global_side.h).
enum class NodeOp : uint32_t {
  kQuery = 1,  // [what] -> rows: what a node knows of itself
  kPlace,      // cluster::Questions -> cluster::Verdicts: where demands that wait there should go
  kWhy,        // [task] -> [text]: the last decision about it; empty when none is remembered
};

struct MembershipOptions {
  bool head = false;
  std::string listen;        // of the head: tcp://127.0.0.1:0
  std::string head_address;  // of a member: tcp://127.0.0.1:6379
  std::string token;
  net::TlsFiles tls;
  cluster::About about;      // of the head: its address is filled in
};

class Membership {
 public:
  // Called on its thread, one at a time: hand over and return.
  class User {
   public:
    virtual ~User() = default;
    virtual void on_rows(std::vector<cluster::Row> rows) = 0;  // new or changed
    virtual void want_load() = 0;                              // set_load() answers, some time
    virtual void on_request(cluster::NodeIndex from, uint64_t number, uint32_t op, std::string body) = 0;
    virtual void on_end(const Status& why) = 0;                // this node no longer belongs to the cluster. The last call
  };
  struct Place {
    cluster::NodeIndex index = cluster::kNoNode;
    uint32_t epoch = 0;
    Id cluster;
    std::string head;  // HOST:PORT
  };
  // A member waits until it has joined, or cannot. `user` outlives it.
  static Result<std::unique_ptr<Membership>> start(MembershipOptions options, User* user);
  virtual ~Membership() = default;
  virtual const Place& place() const = 0;
  virtual void set_load(cluster::Load load) = 0;
  // Where this node's relay listens now; empty: nowhere. Every node hears of it.
  virtual void set_relay(std::string address) = 0;
  // On its thread, exactly once unless this object ends first: the answer, or an error that names the node.
  using Answered = std::function<void(int32_t code, std::string text)>;
  virtual void ask(cluster::NodeIndex to, uint32_t op, std::string body, int64_t timeout_ns, Answered answered) = 0;
  virtual void answer(cluster::NodeIndex to, uint64_t number, int32_t code, std::string body) = 0;
  // The others are told that this node ends in order; of the head, that the cluster ends.
  virtual void leave(std::string why) = 0;
};

}  // namespace ray::node
