// See node.h. The node as a part of a cluster: what cluster_side.h needs of it.
#include <unistd.h>

#include <climits>

#include "gcs/ops.h"
#include "libray/base/log.h"
#include "libray/node/node.h"
#include "libray/wire/cursor.h"

namespace ray::node {

Status Node::join_cluster() {
  cluster::About about;
  about.id = id_;
  about.session = session_.dir;
  about.pid = ::getpid();
  about.start_ns = started_at_;
  about.resources = core_.scheduler().total();
  char host[HOST_NAME_MAX + 1] = {};
  if (::gethostname(host, sizeof host - 1) == 0) about.host = host;
  start_relay();
  about.relay = relay_address();
  ClusterSide::Hooks hooks;
  hooks.query = [this](const std::string& what) { return pump_ ? query_local(what) : std::string(); };
  hooks.load = [this] {
    cluster::Load load;
    load.available = core_.scheduler().available(unused_leases());
    load.held = core_.scheduler().held_for_good();
    load.queued = core_.scheduler().queued();
    for (uint32_t index : live_) {
      const Process& p = *processes_[index];
      load.running += !p.driver && !p.foreign && p.channel && runs_something(p);
    }
    load.waiting = core_.scheduler().counts().waiting;
    return load;
  };
  hooks.put_row = [this](const std::string& row) {
    if (!gcs_) return;
    for (uint32_t i = 0; i < gcs_->shards(); ++i)
      gcs_->call(i, gcs::kNodePut, row, [](Status s, std::string) {
        if (!s.ok()) log(kLogWarning, "node", "node-row", "%s", s.message().c_str());
      });
  };
  hooks.row = [this](const cluster::Row& row) { node_changed(row); };
  hooks.end = [this](const Status& why) { begin_shutdown(why.message(), true); };
  auto side = ClusterSide::start(options_.cluster, session_.dir, std::move(about), mailbox_, std::move(hooks));
  if (!side.ok()) return side.status();
  cluster_ = std::move(*side);
  auto may_fit = [this](const sched::Resources& needs) {
    wire::Resources amounts;
    for (const auto& [name, a] : needs.items()) amounts[name] = static_cast<double>(a) / sched::kUnit;
    return cluster_->may_fit_elsewhere(amounts);
  };
  if (relay_) core_.join(cluster_->self().index, may_fit);
  mailbox_->run();  // the first rows are there: whoever is told that the node is ready finds them in its files
  return Status();
}

bool Node::query_cluster(uint32_t index, uint64_t req_id, const std::string& what, const std::string& filter) {
  return cluster_->query(what, filter, [this, index, req_id](const Status& s, const std::string& value) {
    wire::Packer w;
    w.array(1).raw(value);
    reply(index, req_id, s.code(), s.ok() ? w.bytes() : s.message());
  });
}

// Whoever asks may be gone before the answer is there: then it is for nobody.
void Node::tool_asks(Fd socket, const std::string& body) {
  auto asker = std::make_shared<Fd>(std::move(socket));
  auto answer = [asker](const Status& s, const std::string& value) {
    answer_hello(asker->get(), s, s.ok() ? value : s.message());
  };
  wire::Cursor r(body);
  r.array_of(2);
  const std::string what = r.text(), filter(r.value());
  if (!r.done() || what != "why") return answer(error(RAY_INVALID_ARGUMENT, "a question that this node does not know"), "");
  if (!cluster_) return answer(error(RAY_UNSUPPORTED, "this node is in no cluster: what runs on it was placed by nobody"), "");
  cluster_->query(what, filter, answer);
}

}  // namespace ray::node
