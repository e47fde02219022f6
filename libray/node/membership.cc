// See membership.h.
#include "libray/node/membership.h"

#include <sys/random.h>

#include <condition_variable>
#include <cstring>
#include <mutex>
#include <thread>

#include "libray/base/clock.h"
#include "libray/base/log.h"
#include "libray/base/thread.h"
#include "libray/node/global_side.h"
#include "libray/wire/cursor.h"

namespace ray::node {

namespace {

using cluster::CallAction;
using cluster::HeadAction;
using cluster::MemberAction;
using cluster::Message;
using cluster::NodeIndex;

constexpr net::Target kToHead = 1;
constexpr int64_t kLoadPatienceNs = 2'000'000'000;  // then the load is asked for again
constexpr int64_t kRowsNs = 200'000'000;  // so often rows are handed over: each time costs a file and writes of the store
constexpr size_t kMaxAnswer = net::kMaxMessage - 1024;
// Every daemon has a fresh id, so its first epoch for the transport is its only one.
constexpr uint32_t kNetEpoch = 1;

std::string without_scheme(const std::string& url) {
  const size_t at = url.find("://");
  return at == std::string::npos ? url : url.substr(at + 3);
}

class MembershipImpl final : public Membership, private net::Transport::User {
 public:
  MembershipImpl(MembershipOptions options, Membership::User* user) : options_(std::move(options)), user_(user) {}
  ~MembershipImpl() override;
  Status open();

  const Place& place() const override { return place_; }
  void set_load(cluster::Load load) override {
    post([this, load = std::move(load)] {
      load_asked_at_ = 0;
      cluster::HeadActions out;
      if (head_) head_->set_load(load, &out);
      else member_->set_load(load);
      apply(out);
    });
  }
  void set_relay(std::string address) override {
    post([this, address = std::move(address)] {
      cluster::HeadActions of_head;
      cluster::MemberActions of_member;
      if (ended_) return;
      if (head_) head_->set_relay(address, &of_head);
      else member_->set_relay(address, &of_member);
      apply(of_head);
      apply(of_member);
    });
  }
  void ask(NodeIndex to, uint32_t op, std::string body, int64_t timeout_ns, Answered answered) override {
    post([this, to, op, body = std::move(body), timeout_ns, answered = std::move(answered)] {
      cluster::CallActions out;
      asked_[calls_.call(to, op, body, steady_ns() + timeout_ns, &out)] = answered;
      apply(out);
    });
  }
  void answer(NodeIndex to, uint64_t number, int32_t code, std::string body) override {
    if (body.size() > kMaxAnswer) {
      body = strprintf("the answer has %zu bytes, more than travel between nodes at once", body.size());
      code = RAY_UNSUPPORTED;
    }
    post([this, to, number, code, body = std::move(body)] {
      cluster::CallActions out;
      calls_.answer(to, number, code, body, &out);
      apply(out);
    });
  }
  void leave(std::string why) override {
    post([this, why = std::move(why)] {
      ended_ = true;  // what follows is no news
      cluster::HeadActions of_head;
      cluster::MemberActions of_member;
      if (head_) head_->end(why, &of_head);
      else member_->leave(why, &of_member);
      apply(of_head);
      apply(of_member);
    });
  }

 private:
  void post(std::function<void()> work) {
    std::lock_guard lock(mutex_);
    queue_.push_back(std::move(work));
    if (queue_.size() == 1) wake_.notify_one();
  }
  Status await_joined();
  void make_core();
  void loop();
  void tick();
  int64_t deadline() const;
  bool joined() const { return head_ || member_->joined(); }
  void take(net::Peer peer, const std::string& bytes);
  void apply(cluster::HeadActions& actions);
  void apply(cluster::MemberActions& actions);
  void apply(cluster::CallActions& actions);
  void send(net::Peer peer, bool urgent, std::string text);
  void row(const cluster::Row& row);
  void serve(Message m);
  bool serve_here(const Message& m);
  void answered(const Message& m);
  void end(const Status& why);
  void hand_over();
  void told(const Status& how);

  // net::Transport::User, on its thread
  void on_message(net::Peer peer, net::Lane lane, std::string message) override {
    post([this, peer, lane, message = std::move(message)] {
      transport_->consumed(peer, lane, message.size());
      take(peer, message);
    });
  }
  void on_up(net::Peer peer, const net::Identity& who, uint32_t) override {
    post([this, peer, id = who.node] {
      cluster::HeadActions of_head;
      cluster::MemberActions of_member;
      if (!head_) head_peer_ = peer;
      if (head_) head_->on_up(peer, id, steady_ns(), &of_head);
      else member_->on_up(peer, id, steady_ns(), &of_member);
      apply(of_head);
      apply(of_member);
    });
  }
  void on_down(net::Peer peer) override {
    post([this, peer] {
      cluster::HeadActions of_head;
      cluster::MemberActions of_member;
      if (head_) head_->on_down(peer, steady_ns(), &of_head);
      else member_->on_down(peer, steady_ns(), &of_member);
      apply(of_head);
      apply(of_member);
    });
  }
  void on_reset(net::Peer) override {}  // an id is one daemon's for ever
  void on_writable(net::Peer, net::Lane) override {}
  void on_refused(net::Target, const std::string& why) override {
    post([this, why] {
      cluster::MemberActions out;
      if (member_) member_->on_refused(why, steady_ns(), &out);
      apply(out);
    });
  }

  const MembershipOptions options_;
  Membership::User* const user_;
  Place place_;  // written before start() returns
  std::unique_ptr<net::Transport> transport_;

  // The thread's own.
  std::unique_ptr<cluster::Head> head_;
  std::unique_ptr<cluster::Member> member_;
  std::unique_ptr<GlobalSide> global_;  // of the head
  cluster::Calls calls_;
  std::map<uint64_t, Answered> asked_;
  std::map<NodeIndex, cluster::Row> rows_;  // to be handed over
  int64_t handed_at_ = 0;
  net::Peer head_peer_ = 0;
  int64_t load_at_ = 0, load_asked_at_ = 0;
  bool ended_ = false;

  std::mutex mutex_;
  std::condition_variable wake_, known_;
  std::vector<std::function<void()>> queue_;
  bool over_ = false, told_ = false;
  Status how_;  // start() is told
  std::thread thread_;
};

// The transport goes first, and calls nobody any more; its thread may have posted what nobody needs.
MembershipImpl::~MembershipImpl() {
  {
    std::lock_guard lock(mutex_);
    over_ = true;
    wake_.notify_one();
  }
  if (thread_.joinable()) thread_.join();
  transport_.reset();
}

Status MembershipImpl::open() {
  if (const size_t size = cluster::encoded_size(options_.about); size > cluster::kMaxAbout)
    return error(RAY_INVALID_ARGUMENT, "what this node says of itself (resources, labels, names) has %zu bytes, and %zu are "
                 "the most", size, cluster::kMaxAbout);
  net::TransportOptions o;
  o.self.node = options_.about.id;
  o.self.epoch = kNetEpoch;
  if (::getrandom(&o.self.incarnation, sizeof o.self.incarnation, 0) != sizeof o.self.incarnation)
    return errno_error(RAY_UNAVAILABLE, "the system has no random numbers");
  o.token = options_.token;
  o.tls = options_.tls;
  if (options_.head) o.listen = options_.listen;
  o.endpoint.session.silent_ns = cluster::HeadOptions{}.dead_ns;  // silence is the core's to judge
  // Its calls wait in the queue until the thread below takes them.
  auto transport = net::Transport::start(o, this);
  if (!transport.ok()) return transport.status();
  transport_ = std::move(*transport);
  make_core();
  RAY_TRY(start_thread(&thread_, "the thread of the cluster", [this] { loop(); }));
  return await_joined();
}

void MembershipImpl::make_core() {
  const int64_t now = steady_ns();
  cluster::About about = options_.about;
  if (options_.head) {
    if (about.address.empty()) about.address = without_scheme(transport_->address());
    else about.address += transport_->address().substr(transport_->address().rfind(':'));
    cluster::HeadOptions o;
    o.wall_offset_ns = wall_ns() - now;
    place_.index = cluster::kHead;
    place_.epoch = 1;
    place_.head = about.address;
    if (::getrandom(place_.cluster.b, kIdSize, 0) != kIdSize) __builtin_trap();
    cluster::HeadActions out;
    uint64_t seed;
    std::memcpy(&seed, place_.cluster.b, sizeof seed);
    global_ = std::make_unique<GlobalSide>(seed);
    head_ = std::make_unique<cluster::Head>(std::move(about), place_.cluster, o, now, &out);
    post([this, out]() mutable { apply(out); });
  } else {
    place_.head = without_scheme(options_.head_address);
    member_ = std::make_unique<cluster::Member>(std::move(about), place_.head, cluster::MemberOptions{}, now);
    transport_->dial(kToHead, options_.head_address, 0);
  }
}

Status MembershipImpl::await_joined() {
  std::unique_lock lock(mutex_);
  known_.wait(lock, [this] { return told_; });  // the core ends the wait in any case
  return how_;
}

void MembershipImpl::told(const Status& how) {
  std::lock_guard lock(mutex_);
  if (told_) return;
  told_ = true;
  how_ = how;
  known_.notify_all();
}

// ---- the thread

int64_t MembershipImpl::deadline() const {
  const int64_t core = ended_ ? INT64_MAX : head_ ? head_->deadline() : member_->deadline();
  int64_t at = std::min({core, calls_.deadline(), rows_.empty() ? INT64_MAX : handed_at_ + kRowsNs});
  if (global_ && !ended_) at = std::min(at, global_->deadline());
  return joined() && !ended_ ? std::min(at, load_at_) : at;
}

void MembershipImpl::loop() {
  std::vector<std::function<void()>> work;
  for (;;) {
    const int64_t at = deadline();
    {
      std::unique_lock lock(mutex_);
      const auto there = [this] { return over_ || !queue_.empty(); };
      if (at == INT64_MAX) wake_.wait(lock, there);
      else wake_.wait_for(lock, std::chrono::nanoseconds(std::max<int64_t>(0, at - steady_ns())), there);
      if (queue_.empty() && over_) return;  // what was said at the end still goes out
      work.swap(queue_);
    }
    for (auto& w : work) w();
    work.clear();
    if (steady_ns() >= deadline()) tick();
    if (!rows_.empty() && steady_ns() - handed_at_ >= kRowsNs) hand_over();
  }
}

void MembershipImpl::hand_over() {
  std::vector<cluster::Row> rows;
  for (auto& [index, row] : rows_) rows.push_back(std::move(row));
  rows_.clear();
  handed_at_ = steady_ns();
  user_->on_rows(std::move(rows));
  told(Status());  // who is told has the first rows: the own one, or all
}

void MembershipImpl::tick() {
  const int64_t now = steady_ns();
  cluster::CallActions calls;
  calls_.tick(now, &calls);
  apply(calls);
  if (ended_) return;
  cluster::HeadActions of_head;
  cluster::MemberActions of_member;
  if (head_) head_->tick(now, &of_head);
  else member_->tick(now, &of_member);
  apply(of_head);
  apply(of_member);
  if (global_ && now >= global_->deadline()) global_->tick(now);
  if (now < load_at_ || !joined()) return;
  load_at_ = now + cluster::MemberOptions{}.beat_ns;
  if (global_) global_->load(cluster::kHead, *head_->load(cluster::kHead), now);  // it lives, however busy its main loop is
  if (load_asked_at_ && now - load_asked_at_ < kLoadPatienceNs) return;
  load_asked_at_ = now;
  user_->want_load();
}

void MembershipImpl::take(net::Peer peer, const std::string& bytes) {
  Message m;
  const Status s = cluster::decode(bytes, &m);
  if (!s.ok()) return log(kLogWarning, "cluster", "bad-message", "%s", s.message().c_str());
  cluster::HeadActions of_head;
  cluster::MemberActions of_member;
  if (head_) head_->on_message(peer, std::move(m), steady_ns(), &of_head);
  else member_->on_message(peer, std::move(m), steady_ns(), &of_member);
  apply(of_head);
  apply(of_member);
}

void MembershipImpl::send(net::Peer peer, bool urgent, std::string text) {
  const Status s = transport_->enqueue(peer, urgent ? net::kUrgent : net::kNormal,
                                       std::make_shared<std::string>(std::move(text)));
  if (!s.ok()) log(kLogWarning, "cluster", "unsent", "%s", s.message().c_str());
}

void MembershipImpl::row(const cluster::Row& row) {
  rows_[row.index] = row;
  if (global_) global_->row(row, steady_ns());
  if (row.state != cluster::State::kDead) return;
  cluster::CallActions out;
  calls_.on_dead(row, &out);
  apply(out);
}

void MembershipImpl::serve(Message m) {
  cluster::CallActions out;
  calls_.on_request(std::move(m), &out);
  apply(out);
}

// What is asked of the head's scheduler. False: it is for the daemon.
bool MembershipImpl::serve_here(const Message& m) {
  const auto op = static_cast<NodeOp>(m.op);
  if (!global_ || (op != NodeOp::kPlace && op != NodeOp::kWhy)) return false;
  Status s;
  std::string body;
  if (op == NodeOp::kPlace) {
    auto verdicts = global_->place(m.from, m.text, steady_ns());
    if (verdicts.ok()) body = std::move(*verdicts);
    else s = verdicts.status();
  } else {
    wire::Cursor r(m.text);
    r.array_of(1);
    const TaskId task = r.id();
    if (r.done()) wire::Writer(&body).array(1).str(global_->why(task));
    else s = error(RAY_INVALID_ARGUMENT, "a damaged question about a task");
  }
  cluster::CallActions out;
  calls_.answer(m.from, m.number, s.code(), s.ok() ? std::move(body) : s.message(), &out);
  apply(out);
  return true;
}

void MembershipImpl::answered(const Message& m) {
  cluster::CallActions out;
  calls_.on_answer(m, &out);
  apply(out);
}

void MembershipImpl::end(const Status& why) {
  told(why);
  if (ended_) return;
  if (!rows_.empty()) hand_over();
  ended_ = true;
  log(kLogError, "cluster", "ended", "%s", why.message().c_str());
  transport_->hang_up(kToHead);
  user_->on_end(why);
}

void MembershipImpl::apply(cluster::HeadActions& actions) {
  for (HeadAction& a : actions) switch (a.kind) {
      case HeadAction::kSend: send(a.peer, a.urgent, std::move(a.text)); break;
      case HeadAction::kRow: row(a.row); break;
      case HeadAction::kForget: transport_->fence(a.id, kNetEpoch); break;
      case HeadAction::kServe: serve(std::move(a.message)); break;
      case HeadAction::kAnswer: answered(a.message); break;
      case HeadAction::kLoad:
        if (const cluster::Load* load = head_->load(a.node)) global_->load(a.node, *load, steady_ns());
        break;
      case HeadAction::kLog: log(kLogInfo, "cluster", "member", "%s", a.text.c_str()); break;
    }
}

void MembershipImpl::apply(cluster::MemberActions& actions) {
  for (MemberAction& a : actions) switch (a.kind) {
      case MemberAction::kSend: send(head_peer_, a.urgent, std::move(a.text)); break;
      case MemberAction::kJoined:
        place_.index = member_->index();
        place_.epoch = member_->epoch();
        place_.cluster = member_->cluster();
        break;
      case MemberAction::kRow: row(a.row); break;
      case MemberAction::kServe: serve(std::move(a.message)); break;
      case MemberAction::kAnswer: answered(a.message); break;
      case MemberAction::kEnd: end(Status(static_cast<ray_code>(a.code), a.text)); break;
      case MemberAction::kLog: log(kLogInfo, "cluster", "member", "%s", a.text.c_str()); break;
    }
}

void MembershipImpl::apply(cluster::CallActions& actions) {
  for (CallAction& a : actions) switch (a.kind) {
      case CallAction::kSend: {
        cluster::HeadActions of_head;
        cluster::MemberActions of_member;
        a.message.from = place_.index;
        if (head_) head_->pass(std::move(a.message), &of_head);
        else member_->pass(std::move(a.message), &of_member);
        apply(of_head);
        apply(of_member);
        break;
      }
      case CallAction::kServe:
        if (serve_here(a.message)) break;
        user_->on_request(a.message.from, a.message.number, a.message.op, std::move(a.message.text));
        break;
      case CallAction::kDone: {
        auto it = asked_.find(a.number);
        if (it == asked_.end()) break;
        const Answered done = std::move(it->second);
        asked_.erase(it);
        done(a.code, std::move(a.text));
        break;
      }
    }
}

}  // namespace

Result<std::unique_ptr<Membership>> Membership::start(MembershipOptions options, User* user) {
  auto m = std::make_unique<MembershipImpl>(std::move(options), user);
  RAY_TRY(m->open());
  return std::unique_ptr<Membership>(std::move(m));
}

}  // namespace ray::node
