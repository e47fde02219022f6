// The relay of a node: it listens to the node's daemon and to other nodes' relays, and keeps stand-ins and gateways.
//
// Who: relay_main.cc, one per process. Threads: the main one runs run() and joins what has ended; the transport's calls the
// User half; stand-ins and gateways call the Host half from theirs. Lock: mutex_, over tables alone; stand-ins and gateways
// are called without it, and have locks that are taken before it.
//
// Invariants: what another node says is decoded before anything is done with it, and concerns that node's own lanes alone;
// what is kept for a node that is not connected yet is of lanes that are being opened, which has a limit of time; a node
// that is dead, or whose relay was started anew, has no stand-in and no gateway's lane afterwards.
#pragma once
#include <cstdlib>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "libray/base/shm.h"
#include "libray/net/transport.h"
#include "libray/relay/gateway.h"
#include "libray/relay/host.h"
#include "libray/relay/stand_in.h"
#include "libray/wire/relay_control.h"

namespace ray::relay {

class Relay final : public Host, private net::Transport::User {
 public:
  explicit Relay(Fd control) : control_(std::move(control)) {}
  // Until the daemon closes its end; an exit status.
  int run();

  // ---- Host
  void send(const NodeId& to, std::string message) override;
  bool has_function(const NodeId& to, const JobId& job, uint64_t key) override;
  void tell_function(const NodeId& to, const JobId& job, uint64_t key, const FunctionDefinition& d) override;
  void lost_function(const NodeId& to, const JobId& job, uint64_t key) override;
  std::string name_of(const NodeId& node) override;
  void stand_in_over(uint64_t spawn, const std::string& text) override;
  void gateway_over(Gateway* gateway) override;

 private:
  // What that node was told of a job of ours. Of functions the last ones: it forgets the others. Should it have lost more
  // than that, it says so.
  struct Told {
    bool job = false;
    std::list<uint64_t> order;  // used last at the end
    std::unordered_map<uint64_t, std::list<uint64_t>::iterator> functions;
  };
  struct Node {
    Peer row;
    net::Peer peer = 0;                // once a session was up
    std::string dialled;               // the address,
    net::Target target = 0;            // and under which number: a new one each time, for the last dial may be under way
    std::vector<std::string> waiting;  // for the session
    std::map<JobId, Told> told;
  };
  struct Served {
    std::shared_ptr<Gateway> gateway;
    std::set<NodeId> nodes;  // that send tasks of the job
  };
  using LaneKey = std::pair<NodeId, uint64_t>;

  // net::Transport::User
  void on_message(net::Peer peer, net::Lane lane, std::string message) override;
  void on_up(net::Peer peer, const net::Identity& who, uint32_t channel) override;
  void on_down(net::Peer) override {}
  void on_reset(net::Peer peer) override;
  void on_writable(net::Peer, net::Lane) override {}
  void on_refused(net::Target target, const std::string& why) override;

  // ---- main thread
  bool read_control();
  void handle(ControlMessage m);
  void configure(const ControlMessage& m);
  void on_peer(Peer row);
  void open(const ControlMessage& m);
  void close(const ControlMessage& m);
  void job_over(const JobId& job);
  void reap();
  void look_after_opening();
  void tell_daemon(const ControlMessage& m);
  void failed(uint64_t spawn, const std::string& text);

  void dispatch(const NodeId& from, const Record& r, const std::shared_ptr<const std::string>& message);
  void answered(const NodeId& from, const Record& r, const std::shared_ptr<const std::string>& message);
  void take_job(const NodeId& from, const Record& r);
  void take_lane(const NodeId& from, const Record& r, const std::shared_ptr<const std::string>& message);
  void end_of(const NodeId& node, const std::string& why);
  void refuse_lanes_of(const NodeId& node, const std::string& why);
  void no_more_of(const NodeId& node, const JobId& job);
  bool is_over(const Gateway& g) const;
  void send_locked(Node* node, std::string message);
  void dial(Node* node);
  void hang_up(Node* node);
  std::string name_of_locked(const NodeId& node);
  template <class Fits>
  std::vector<std::shared_ptr<StandIn>> stand_ins(Fits fits);

  Fd control_, event_;
  const bool again_ = std::getenv(kEnvRelayAgain) != nullptr;  // what the last one left elsewhere ends when we say hello
  Peer self_;
  std::string session_;
  std::map<uint64_t, int64_t> opening_;  // stand-ins whose lane is not open: until when. Main thread
  std::mutex control_mutex_;             // of who writes

  std::mutex mutex_;
  std::map<NodeId, Node> nodes_;
  std::map<uint32_t, NodeId> by_index_;
  std::map<net::Peer, NodeId> by_peer_;
  std::map<net::Target, NodeId> by_target_;
  net::Target next_target_ = 1;
  std::map<JobId, std::string> jobs_;                                // of this node: what they say of themselves
  std::map<std::pair<NodeId, JobId>, std::string> coming_jobs_;      // of others, parts
  std::map<uint64_t, std::shared_ptr<StandIn>> stand_ins_;           // by spawn
  std::map<JobId, Served> gateways_;
  std::map<LaneKey, std::shared_ptr<Gateway>> lanes_;
  std::vector<std::pair<uint64_t, std::string>> over_stand_ins_;
  std::vector<Gateway*> over_gateways_;
  std::vector<std::shared_ptr<Gateway>> ending_;  // another one has their job already

  // The last: its end joins the thread that calls the User half, which needs all of this, and this pointer.
  std::unique_ptr<net::Transport> transport_;
};

}  // namespace ray::relay
