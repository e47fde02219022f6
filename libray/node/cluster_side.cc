// See cluster_side.h.
#include "libray/node/cluster_side.h"

#include "libray/base/clock.h"
#include "libray/base/log.h"
#include "libray/base/trust.h"
#include "libray/node/node.h"
#include "libray/wire/cursor.h"

namespace ray::node {

using cluster::Row;
using cluster::State;

namespace {

constexpr int64_t kAskNs = 1'000'000'000;  // a living node answers in milliseconds
constexpr int64_t kSayAgainNs = 10'000'000'000;
constexpr size_t kMinToken = 16;

Result<std::string> read_token(const std::string& session_dir) {
  auto text = read_file(session_dir + "/" + kClusterTokenFile);
  if (!text.ok()) return text.status();
  while (!text->empty() && (text->back() == '\n' || text->back() == ' ')) text->pop_back();
  if (text->size() < kMinToken)
    return error(RAY_INVALID_ARGUMENT, "the token of the cluster has %zu characters; at least %zu are needed",
                 text->size(), kMinToken);
  return text;
}

Status read_labels(const std::string& bytes, std::map<std::string, std::string>* out) {
  if (bytes.empty()) return Status();
  wire::Cursor r(bytes);
  for (uint32_t n = r.map(); n > 0 && r.ok(); --n) {
    std::string name = r.text();
    (*out)[std::move(name)] = r.text();
  }
  return r.done() ? Status() : error(RAY_INVALID_ARGUMENT, "the labels are malformed");
}

wire::Resources amounts(std::string_view bytes) {
  auto parsed = wire::parse_resources(bytes);
  return parsed.ok() ? *parsed : wire::Resources{};
}

}  // namespace

Result<std::shared_ptr<ClusterSide>> ClusterSide::start(const ClusterOptions& o, const std::string& session_dir,
                                                        cluster::About about, std::shared_ptr<Mailbox> box, Hooks hooks) {
  std::shared_ptr<ClusterSide> side(new ClusterSide(session_dir, std::move(box), std::move(hooks)));
  side->self_ = side;
  side->head_ = o.role == "head";
  MembershipOptions m;
  auto token = read_token(session_dir);
  if (!token.ok()) return token.status();
  m.token = *token;
  m.head = side->head_;
  m.listen = o.listen;
  m.head_address = o.head;
  m.tls = {o.tls_certificate, o.tls_ca};
  m.about = std::move(about);
  m.about.address = o.address;
  RAY_TRY(read_labels(o.labels_msgpack, &m.about.labels));
  auto membership = Membership::start(std::move(m), side.get());
  if (!membership.ok()) return membership.status();
  side->membership_ = std::move(*membership);
  side->write_file();
  return side;
}

// ---- on membership's thread

// An object that is gone hears nothing: the mailbox may outlive it.
void ClusterSide::post(std::function<void(ClusterSide*)> work) {
  box_->post([weak = self_, work = std::move(work)] {
    if (auto side = weak.lock()) work(side.get());
  });
}

void ClusterSide::on_rows(std::vector<Row> rows) {
  post([rows = std::move(rows)](ClusterSide* side) { side->take(rows); });
}

void ClusterSide::want_load() {
  post([](ClusterSide* side) { side->membership_->set_load(side->hooks_.load()); });
}

void ClusterSide::on_request(cluster::NodeIndex from, uint64_t number, uint32_t op, std::string body) {
  post([from, number, op, body = std::move(body)](ClusterSide* side) {
    wire::Cursor r(body);
    const bool query = op == static_cast<uint32_t>(NodeOp::kQuery) && r.array() == 1;
    const std::string what = r.text();
    const std::string rows = query && r.done() ? side->hooks_.query(what) : "";
    if (rows.empty()) side->membership_->answer(from, number, RAY_UNSUPPORTED, "this node does not know what is asked");
    else side->membership_->answer(from, number, RAY_OK, rows);
  });
}

void ClusterSide::on_end(const Status& why) {
  post([why](ClusterSide* side) {
    side->ended_ = why.message();
    side->write_file();
    side->hooks_.end(why);
  });
}

// ---- on the main thread

void ClusterSide::take(const std::vector<Row>& rows) {
  for (const Row& row : rows) {
    rows_[row.index] = row;
    if (row.state == State::kDead && row.index != membership_->place().index)
      log(kLogWarning, "cluster", "node-died", "node %u (%s on %s) is dead: %s", row.index, row.about.address.c_str(),
          row.about.host.c_str(), row.cause.c_str());
    if (row.state == State::kDead) said_.erase(row.index);
    if (hooks_.row) hooks_.row(row);
    if (!head_) continue;
    wire::Packer w;
    w.array(2).id(row.about.id);
    cluster::pack_row(row, &w);
    hooks_.put_row(w.bytes());
  }
  cluster::trim_dead(&rows_);
  write_file();
}

// For the tool, which reads files: so it shows the cluster of a node that hangs, and why a dead one ended.
void ClusterSide::write_file() const {
  const Membership::Place& place = membership_->place();
  wire::Packer w;
  w.map(7).str("role").str(head_ ? "head" : "node").str("head").str(place.head).str("index").uint64(place.index);
  w.str("epoch").uint64(place.epoch).str("cluster").hex(place.cluster).str("ended").str(ended_);
  w.str("nodes").array(static_cast<uint32_t>(rows_.size()));
  for (const auto& [index, row] : rows_) cluster::pack_row(row, &w);
  const Status s = node::write_file(session_dir_ + "/" + kClusterFile, wire::to_json(w.bytes()) + "\n");
  if (!s.ok()) log(kLogWarning, "cluster", "cluster-file", "%s", s.message().c_str());
}

std::string ClusterSide::nodes_msgpack(const std::string& filter) const {
  uint64_t limit = UINT64_MAX;
  std::vector<std::pair<std::string, std::string>> wanted;
  wire::Cursor f(filter);
  for (uint32_t n = f.map(); n > 0 && f.ok(); --n) {
    std::string column = f.text();
    const std::string_view value = f.value();
    if (column == "limit") limit = wire::Cursor(value).uint64();
    else wanted.emplace_back(std::move(column), value);
  }
  std::string found;
  uint32_t n = 0;
  for (const auto& [index, row] : rows_) {
    wire::Packer w;
    cluster::pack_row(row, &w);
    bool match = n < limit;
    for (const auto& [column, value] : wanted) {
      wire::Cursor r(w.bytes());
      bool same = false;
      for (uint32_t k = r.map(); k > 0; --k) {
        const bool it = r.text() == column;
        same |= r.value() == value && it;
      }
      match &= same;
    }
    if (!match) continue;
    found += w.bytes();
    ++n;
  }
  wire::Packer out;
  out.array(n).raw(found);
  return out.bytes();
}

bool ClusterSide::query(const std::string& what, const std::string& filter, Replied replied) {
  if (what == "nodes") {
    replied(Status(), nodes_msgpack(filter));
  } else if (what == "resources") {
    wire::Resources sum;
    for (const auto& [index, row] : rows_)
      if (row.state != State::kDead)
        for (const auto& [name, amount] : row.about.resources) sum[name] += amount;
    replied(Status(), wire::pack_resources(sum));
  } else if (what == "available") {
    sum_available(std::move(replied));
  } else {
    return false;
  }
  return true;
}

// Every node is asked, this one too; one that does not answer in time is named, and what it has is not counted.
void ClusterSide::sum_available(Replied replied) {
  struct Sum {
    wire::Resources amounts;
    size_t missing = 0;
    Replied replied;
  };
  auto sum = std::make_shared<Sum>();
  sum->replied = std::move(replied);
  sum->amounts = amounts(hooks_.query("available"));
  std::vector<cluster::NodeIndex> others;
  for (const auto& [index, row] : rows_)
    if (row.state != State::kDead && index != membership_->place().index) others.push_back(index);
  sum->missing = others.size();
  if (others.empty()) return sum->replied(Status(), wire::pack_resources(sum->amounts));
  wire::Packer body;
  body.array(1).str("available");
  for (cluster::NodeIndex index : others)
    membership_->ask(index, static_cast<uint32_t>(NodeOp::kQuery), body.bytes(), kAskNs,
                     [weak = self_, box = box_, sum, index](int32_t code, std::string text) {
      box->post([weak, sum, index, code, text] {
        auto side = weak.lock();
        if (!side) return;
        if (code == RAY_OK)
          for (const auto& [name, amount] : amounts(text)) sum->amounts[name] += amount;
        else side->note_silent(index, text);
        if (--sum->missing == 0) sum->replied(Status(), wire::pack_resources(sum->amounts));
      });
    });
}

void ClusterSide::note_silent(cluster::NodeIndex index, const std::string& why) {
  auto row = rows_.find(index);
  if (row == rows_.end() || row->second.state == State::kDead) return;  // its death is in the log
  int64_t& said = said_[index];
  if (said != 0 && steady_ns() - said <= kSayAgainNs) return;
  said = steady_ns();
  log(kLogWarning, "cluster", "no-answer", "what node %u has free is not counted: %s", index, why.c_str());
}

void ClusterSide::leave(const std::string& why) {
  if (ended_.empty()) ended_ = why;
  membership_->leave(why);
  write_file();
}

}  // namespace ray::node
