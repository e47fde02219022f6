// See cluster_side.h.
#include "libray/node/cluster_side.h"

#include <algorithm>

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
constexpr int64_t kAgainNs = 100'000'000;  // what has no place now is asked again
constexpr int64_t kSayAgainNs = 10'000'000'000;
constexpr size_t kMinToken = 16;

Result<std::string> read_token(const std::string& session_dir) {
  auto text = session::read_file(session_dir + "/" + kClusterTokenFile);
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
  std::shared_ptr<ClusterSide> side(new ClusterSide(session_dir, std::move(box), std::move(hooks), about.resources));
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
  post([](ClusterSide* side) { side->membership_->set_load(side->load_now()); });
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
  const Status s = session::write_file(session_dir_ + "/" + kClusterFile, wire::to_json(w.bytes()) + "\n");
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
  } else if (what == "why") {
    why(filter, std::move(replied));
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

// ---- where demands should go

cluster::Load ClusterSide::load_now() {
  cluster::Load load = hooks_.load();
  placing_.subtract_open(&load.queued, steady_ns());
  return load;
}

void ClusterSide::place(const TaskId& id, uint32_t attempt, const wire::Resources& needs, bool actor,
                        std::function<void(const Placed&)> placed) {
  if (!ended_.empty()) return placed({.again_ns = kAgainNs, .text = ended_});
  cluster::Question q{.task = id, .attempt = attempt, .actor = actor, .needs = needs};
  if (placing_.ask(std::move(q), std::move(placed), steady_ns())) post([](ClusterSide* side) { side->ask_where(); });
}

bool ClusterSide::may_fit_elsewhere(const wire::Resources& needs) const {
  return std::any_of(rows_.begin(), rows_.end(), [&](const auto& r) {
    return r.first != self().index && r.second.state == State::kAlive && cluster::enough(r.second.about.resources, needs);
  });
}

void ClusterSide::ask_where() {
  cluster::Questions q;
  q.load = load_now();
  for (auto& batch : placing_.take()) {
    q.questions.clear();
    for (const Placing::Asked& a : batch) q.questions.push_back(a.question);
    auto asked = std::make_shared<std::vector<Placing::Asked>>(std::move(batch));
    membership_->ask(cluster::kHead, static_cast<uint32_t>(NodeOp::kPlace), cluster::encode(q), kAskNs,
                     [weak = self_, box = box_, asked](int32_t code, std::string body) {
      box->post([weak, asked, code, body = std::move(body)] {
        if (auto side = weak.lock()) side->take_places(*asked, code, body);
      });
    });
  }
}

// A head that does not answer, or not well, is one that has no place now.
void ClusterSide::take_places(const std::vector<Placing::Asked>& asked, int32_t code, const std::string& body) {
  std::vector<cluster::Verdict> verdicts;
  std::string wrong = code == RAY_OK ? cluster::decode(body, &verdicts).message() : body;
  if (wrong.empty() && verdicts.size() != asked.size()) wrong = "the head did not answer all that it was asked";
  if (!wrong.empty() && (said_no_place_ == 0 || steady_ns() - said_no_place_ > kSayAgainNs)) {
    said_no_place_ = steady_ns();
    log(kLogWarning, "cluster", "no-place", "what waits here stays for now: %s", wrong.c_str());
  }
  for (size_t i = 0; i < asked.size(); ++i) {
    const Placed p = wrong.empty() ? checked(std::move(verdicts[i])) : Placed{.again_ns = kAgainNs, .text = wrong};
    placing_.answered(asked[i], p.node == cluster::kNoNode, steady_ns());
    asked[i].placed(p);
  }
}

// The own table may be ahead of the head's answer, or behind it: then it is asked again when that has changed.
Placed ClusterSide::checked(cluster::Verdict v) const {
  Placed p{v.node, v.epoch, v.again_ns, v.infeasible, std::move(v.text)};
  if (p.node == self().index && p.epoch == self().epoch) return p;
  if (p.node == cluster::kNoNode) {
    if (p.again_ns == 0) p.again_ns = kAgainNs;
    return p;
  }
  auto row = rows_.find(p.node);
  const bool known = row != rows_.end() && row->second.epoch == p.epoch;
  const bool alive = known && row->second.state == State::kAlive;
  if (alive && !row->second.about.relay.empty()) return p;
  const char* why = !known ? "is not known here yet" : alive ? "has no relay now" : "takes nothing new";
  return {.again_ns = kAgainNs, .text = strprintf("node %u %s", v.node, why)};
}

void ClusterSide::why(const std::string& filter, Replied replied) {
  TaskId task;
  wire::Cursor f(filter);
  for (uint32_t n = f.map(); n > 0 && f.ok(); --n) {
    const bool it = f.text() == "task";
    const std::string_view value = f.value();
    if (it && !TaskId::from_hex(wire::Cursor(value).text(), &task)) f.fail();
  }
  if (!f.ok() || task.is_nil())
    return replied(error(RAY_INVALID_ARGUMENT, "the query 'why' needs {\"task\": the id of a task in hexadecimal digits}"), "");
  wire::Packer body;
  body.array(1).id(task);
  membership_->ask(cluster::kHead, static_cast<uint32_t>(NodeOp::kWhy), body.bytes(), kAskNs,
                   [weak = self_, box = box_, replied](int32_t code, std::string answer) {
    box->post([weak, replied, code, answer] {
      if (!weak.lock()) return;
      wire::Cursor r(answer);
      if (code == RAY_OK) r.array_of(1);
      const std::string text = code == RAY_OK ? r.text() : answer;
      wire::Packer w;
      w.str(text);
      replied(code == RAY_OK ? Status() : Status(static_cast<ray_code>(code), text), w.bytes());
    });
  });
}

void ClusterSide::leave(const std::string& why) {
  if (ended_.empty()) ended_ = why;
  membership_->leave(why);
  write_file();
}

}  // namespace ray::node
