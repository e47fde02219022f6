// The daemon's part of a cluster: carries membership's news to the main thread, keeps the table of nodes for queries and
// for the tool (SESSION/cluster.json), answers what other nodes ask, asks them for what spans all, and asks
// the head where demands that wait here should go.
//
// Who: class Node, which has one when it was started as a head or with the address of one, else none. Threads: the main
// one, but for the calls of Membership, which post. Invariant: what tasks do costs nothing here; a node that is not in a
// cluster has none of this.
#pragma once
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "libray/node/membership.h"
#include "libray/node/placing.h"

namespace ray::node {

class Mailbox;

// As given on the command line. The token lies in the session (kClusterTokenFile).
struct ClusterOptions {
  std::string role;  // "head", "node"; empty: in no cluster
  std::string listen, head, address;
  std::string tls_certificate, tls_ca;
  std::string labels_msgpack;
};
inline constexpr char kClusterTokenFile[] = "cluster.token";
inline constexpr char kClusterFile[] = "cluster.json";

class ClusterSide : private Membership::User {
 public:
  struct Hooks {  // of the daemon, on its main thread
    std::function<std::string(const std::string& what)> query;  // empty: no such query
    std::function<cluster::Load()> load;
    std::function<void(const std::string& row)> put_row;        // [id, columns] of another node: for the control store
    std::function<void(const Status& why)> end;
    std::function<void(const cluster::Row& row)> row;           // new or changed; may be empty
  };
  using Replied = std::function<void(const Status& s, const std::string& value)>;  // MessagePack

  // What this node says of itself; its address may be empty.
  static Result<std::shared_ptr<ClusterSide>> start(const ClusterOptions& options, const std::string& session_dir,
                                                    cluster::About about, std::shared_ptr<Mailbox> box, Hooks hooks);
  // Whether it is one of the queries that span the cluster; then `replied` is called, on the main thread.
  bool query(const std::string& what, const std::string& filter, Replied replied);
  // Where a demand that waits here should go. `placed` is called once, unless this node ends first: perhaps at once. What is
  // asked in one iteration of the main loop travels together. Each call is a question of its own, also about the same
  // (id, attempt), but for the one that was answered *nowhere now* a moment before: see placing.h. A node that is named
  // lives, as far as this one knows, and has a relay; it may be this one: the demand stays.
  void place(const TaskId& id, uint32_t attempt, const wire::Resources& needs, bool actor,
             std::function<void(const Placed&)> placed);
  // By the table: the totals of some other living node are enough.
  bool may_fit_elsewhere(const wire::Resources& needs) const;
  // Where this node's relay listens now, for all to know; empty: nowhere.
  void set_relay(const std::string& address) { membership_->set_relay(address); }
  const Membership::Place& self() const { return membership_->place(); }
  const std::map<cluster::NodeIndex, cluster::Row>& rows() const { return rows_; }
  // Before the daemon ends; news are none any more.
  void leave(const std::string& why);

 private:
  ClusterSide(std::string session_dir, std::shared_ptr<Mailbox> box, Hooks hooks, wire::Resources own)
      : session_dir_(std::move(session_dir)), box_(std::move(box)), hooks_(std::move(hooks)), placing_(std::move(own)) {}
  void on_rows(std::vector<cluster::Row> rows) override;
  void want_load() override;
  void on_request(cluster::NodeIndex from, uint64_t number, uint32_t op, std::string body) override;
  void on_end(const Status& why) override;
  void post(std::function<void(ClusterSide*)> work);
  void take(const std::vector<cluster::Row>& rows);
  void write_file() const;
  std::string nodes_msgpack(const std::string& filter) const;
  void sum_available(Replied replied);
  cluster::Load load_now();
  void ask_where();
  void take_places(const std::vector<Placing::Asked>& asked, int32_t code, const std::string& body);
  Placed checked(cluster::Verdict v) const;
  void why(const std::string& filter, Replied replied);
  void note_silent(cluster::NodeIndex index, const std::string& why);

  const std::string session_dir_;
  const std::shared_ptr<Mailbox> box_;
  const Hooks hooks_;
  std::weak_ptr<ClusterSide> self_;
  std::unique_ptr<Membership> membership_;
  bool head_ = false;
  std::map<cluster::NodeIndex, cluster::Row> rows_;
  std::map<cluster::NodeIndex, int64_t> said_;  // of the living: when the log was told last that it does not answer
  std::string ended_;                           // why
  Placing placing_;
  int64_t said_no_place_ = 0;  // when the log was told last that the head does not say where demands may go
};

}  // namespace ray::node
