// What the tests of the relay share: a relay process with its control socket, and the other side of a session, by hand.
#pragma once
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <condition_variable>
#include <deque>
#include <mutex>

#include "../node/cluster.h"
#include "libray/base/sha256.h"
#include "libray/net/transport.h"
#include "libray/node/worker_command.h"
#include "libray/relay/messages.h"
#include "libray/wire/packed.h"
#include "libray/wire/relay_control.h"

namespace ray::test {

inline constexpr char kToken[] = "a token of sixteen characters, or more";
inline std::string program(const char* name) { return session::own_folder() + "/../bin/" + name; }
inline std::string relay_worker() { return session::own_folder() + "/relay_test_worker"; }

// A node of its own whose session has the cluster's token, with an id that is known.
struct Place : Cluster {
  NodeId id;
  explicit Place(double cpus = 2, uint64_t store_bytes = 64 << 20) : Cluster(cpus, ::getpid(), "", {}, store_bytes) {
    std::ofstream(session.dir + "/cluster.token") << kToken << "\n";
    auto c = std::make_unique<RawClient>();
    EXPECT_EQ(c->hello(session.dir, session.token, RAY_MODE_DRIVER, RAY_LANG_JAVA, 0, RawClient::driver_body({})), RAY_OK);
    id = c->welcome.node;
  }
};

// libray-relay of a node, as its daemon would run it.
class RelayProcess {
 public:
  RelayProcess(const Place& place, uint32_t index) : log_(place.session.dir + "/logs/relay.log") {
    int fds[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds), 0);
    control_ = Fd(fds[0]);
    pid_ = ::fork();
    if (pid_ == 0) {
      const int log = ::open(log_.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
      ::dup2(log, 2);
      ::dup2(fds[1], relay::kControlFd);
      const std::string path = program("libray-relay");
      ::execl(path.c_str(), path.c_str(), nullptr);
      ::_exit(127);
    }
    ::close(fds[1]);
    relay::ControlMessage m;
    m.type = relay::Control::kConfigure;
    m.peer.index = index;
    m.peer.id = place.id;
    m.session = place.session.dir;
    m.listen = "tcp://127.0.0.1:0";
    say(m);
    relay::ControlMessage listening;
    EXPECT_TRUE(hear(&listening) && listening.type == relay::Control::kListening) << log();
    peer = m.peer;
    peer.relay = listening.text;
  }
  ~RelayProcess() { end(); }
  // In order, as when the daemon closes its end. The exit status.
  int end() {
    control_.reset();
    int status = -1;
    if (pid_ > 0) ::waitpid(pid_, &status, 0);
    pid_ = -1;
    return status;
  }
  void kill() {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }
  void say(const relay::ControlMessage& m) {
    const std::string bytes = relay::encode(m);
    EXPECT_EQ(::send(control_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL), static_cast<ssize_t>(bytes.size()));
  }
  bool hear(relay::ControlMessage* out, int timeout_ms = 30000) {
    pollfd p{control_.get(), POLLIN, 0};
    if (::poll(&p, 1, timeout_ms) <= 0) return false;
    std::string bytes(relay::kMaxControl, '\0');
    const ssize_t n = ::recv(control_.get(), bytes.data(), bytes.size(), 0);
    if (n <= 0) return false;
    bytes.resize(static_cast<size_t>(n));
    return relay::decode(bytes, out).ok();
  }
  // The next kFailed of that stand-in; other words are dropped.
  std::string failure(uint64_t spawn) {
    relay::ControlMessage m;
    while (hear(&m))
      if (m.type == relay::Control::kFailed && m.spawn == spawn) return m.text;
    return "(nothing)";
  }
  void meet(const relay::Peer& other) {
    relay::ControlMessage m;
    m.type = relay::Control::kPeer;
    m.peer = other;
    say(m);
  }
  std::string log() const {
    auto text = session::read_file(log_);
    return text.ok() ? *text : "";
  }
  int pid() const { return pid_; }
  relay::Peer peer;  // this one, as others know it

 private:
  const std::string log_;
  Fd control_;
  int pid_ = -1;
};

// What a job says of itself to another node.
inline std::string job_body(const JobId& job, const std::vector<std::string>& worker) {
  wire::Packer w;
  node::WorkerCommands commands;
  if (!worker.empty()) commands[RAY_LANG_NATIVE].argv = worker;
  w.map(7).str("language").int64(RAY_LANG_NATIVE).str("commands");
  node::pack_commands(commands, &w);
  w.str("cwd").str("/").str("env").map(0).str("job_name").str("far").str("ns").str("far").str("job").id(job);
  return w.bytes();
}

inline uint64_t function_key(const std::string& name) { return sha256_key("native:" + name); }

inline std::string one_cpu(double n = 1) {
  wire::Packer w;
  w.map(1).str("CPU").float64(n);
  return w.bytes();
}

// The relay of a node that has tasks, by hand: opens lanes at another relay, sends tasks, keeps what comes back.
class Opener : private net::Transport::User {
 public:
  struct Answer {
    relay::Kind kind = relay::Kind::kDone;
    int32_t code = 0;
    uint32_t flags = 0;
    uint64_t run_ns = 0;
    std::string message;                            // of an error
    std::string payload;
    std::vector<std::string> values;                // data, then each buffer
    std::vector<std::vector<std::string>> buffers;  // of the values
    std::vector<bool> given, is_error;
  };

  explicit Opener(const std::string& address, const char* token = kToken) {
    net::TransportOptions o;
    o.self.node = node = random_id();
    o.self.epoch = 1;
    o.self.incarnation = static_cast<uint64_t>(steady_ns());
    o.token = token;
    auto t = net::Transport::start(std::move(o), this);
    EXPECT_TRUE(t.ok()) << t.status().message();
    transport_ = std::move(*t);
    transport_->dial(1, address, 0);
  }
  ~Opener() override { transport_.reset(); }

  void send(std::string message) {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(changed_.wait_for(lock, std::chrono::seconds(30), [this] { return peer_ != 0; })) << "no session";
    EXPECT_TRUE(transport_->enqueue(peer_, net::kNormal, std::make_shared<const std::string>(std::move(message))).ok());
  }
  void send(const relay::Record& r) {
    std::string message;
    relay::encode(r, &message);
    send(std::move(message));
  }
  void tell_job(const JobId& job, const std::string& body) {
    relay::Record r;
    r.kind = relay::Kind::kJob;
    r.job = job;
    const size_t half = body.size() / 2;  // in two parts
    r.more = true;
    r.bytes = std::string_view(body).substr(0, half);
    send(r);
    r.more = false;
    r.bytes = std::string_view(body).substr(half);
    send(r);
  }
  // RAY_OK: it is open.
  int32_t open_lane(const JobId& job, uint64_t lane, const std::string& resources = one_cpu(), std::string* why = nullptr) {
    relay::Record r;
    r.kind = relay::Kind::kLane;
    r.lane = lane;
    r.job = job;
    r.bytes = resources;
    send(r);
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(changed_.wait_for(lock, std::chrono::seconds(60), [&] { return lanes_.count(lane) > 0; })) << "no answer";
    if (why) *why = lanes_[lane].second;
    return lanes_[lane].first;
  }
  void define(const JobId& job, const std::string& name) {
    relay::Record r;
    r.kind = relay::Kind::kFunction;
    r.job = job;
    r.key = function_key(name);
    r.name = name;
    send(r);
  }
  relay::Task task(const std::string& name, std::vector<std::string> args, uint32_t n_returns = 1) {
    relay::Task t;
    t.number = ++number_;
    t.id = child_task(origin_of(node), static_cast<uint32_t>(t.number));
    t.parent = node;
    t.function = function_key(name);
    names_.push_back(std::make_unique<std::string>(name));
    t.name = *names_.back();
    t.n_returns = n_returns;
    for (std::string& a : args) {
      names_.push_back(std::make_unique<std::string>(std::move(a)));
      relay::Value v;
      v.given = true;
      v.data = *names_.back();
      t.args.push_back(v);
    }
    return t;
  }
  void send_task(uint64_t lane, const relay::Task& t) {
    relay::Record r;
    r.kind = relay::Kind::kTask;
    r.lane = lane;
    r.task = t;
    counted(lane, r);
  }
  void send_number(relay::Kind kind, uint64_t lane, uint64_t number = 0, uint32_t flags = 0) {
    relay::Record r;
    r.kind = kind;
    r.lane = lane;
    r.number = number;
    r.flags = flags;
    send(r);
  }
  uint64_t run(uint64_t lane, const std::string& name, std::vector<std::string> args, uint32_t n_returns = 1) {
    const relay::Task t = task(name, std::move(args), n_returns);
    send_task(lane, t);
    return t.number;
  }
  // An argument in parts, as a stand-in sends it, with as much under way as it may; `buffers` behind the data.
  void send_argument(uint64_t lane, uint64_t number, uint32_t index, const std::string& data,
                     const std::vector<std::string>& buffers = {}, uint64_t announced_more = 0) {
    relay::Record r;
    r.kind = relay::Kind::kArgument;
    r.lane = lane;
    r.number = number;
    r.index = index;
    r.value.given = r.value.apart = true;
    r.value.size = data.size() + announced_more;
    for (const auto& b : buffers) r.value.oob_sizes.push_back(b.size());
    counted(lane, r);
    std::string all = data;
    for (const auto& b : buffers) all += b;
    r.kind = relay::Kind::kArgumentPart;
    r.value = {};
    for (size_t at = 0; at < all.size(); at += relay::kPart) {
      r.bytes = std::string_view(all).substr(at, relay::kPart);
      counted(lane, r);
    }
  }
  Answer answer(uint64_t number, int seconds = 60) {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(changed_.wait_for(lock, std::chrono::seconds(seconds), [&] { return answers_.count(number) > 0; }))
        << "no answer to task " << number;
    return answers_[number];
  }
  bool answered(uint64_t number) {
    std::lock_guard lock(mutex_);
    return answers_.count(number) > 0;
  }
  std::string over(uint64_t lane) {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(changed_.wait_for(lock, std::chrono::seconds(60), [&] { return overs_.count(lane) > 0; })) << "it is not over";
    return overs_[lane];
  }
  // The value of a call that goes well.
  std::string call(uint64_t lane, const std::string& name, std::vector<std::string> args) {
    const Answer a = answer(run(lane, name, std::move(args)));
    EXPECT_EQ(a.code, RAY_OK) << a.message;
    return a.values.empty() ? "" : a.values[0];
  }
  uint64_t most_under_way() {
    std::lock_guard lock(mutex_);
    return most_under_way_;
  }
  void grant_results(bool yes) {
    std::lock_guard lock(mutex_);
    grants_ = yes;
  }
  uint64_t results_under_way() {
    std::lock_guard lock(mutex_);
    return results_under_way_;
  }
  // Whatever was kept back of results.
  void grant_all(uint64_t lane) {
    relay::Record r;
    r.kind = relay::Kind::kResultRoom;
    r.lane = lane;
    {
      std::lock_guard lock(mutex_);
      grants_ = true;
      r.bytes_done = std::exchange(results_under_way_, 0);
    }
    send(r);
  }
  NodeId node;

 private:
  void counted(uint64_t lane, const relay::Record& r) {
    std::string message;
    const uint64_t n = relay::encode(r, &message);
    {
      std::unique_lock lock(mutex_);
      EXPECT_TRUE(changed_.wait_for(lock, std::chrono::seconds(60), [&] { return under_way_[lane] < relay::kWindowBytes; }))
          << "no room for more";
      under_way_[lane] += n;
      most_under_way_ = std::max(most_under_way_, under_way_[lane]);
    }
    send(std::move(message));
  }
  void on_message(net::Peer peer, net::Lane lane, std::string message) override {
    relay::RecordReader reader(message);
    relay::Record r;
    while (reader.next(&r)) take(peer, r);
    EXPECT_TRUE(reader.status().ok());
    transport_->consumed(peer, lane, message.size());
    changed_.notify_all();
  }
  void take(net::Peer peer, const relay::Record& r) {
    std::lock_guard lock(mutex_);
    switch (r.kind) {
      case relay::Kind::kLaneOpen: lanes_[r.lane] = {RAY_OK, ""}; break;
      case relay::Kind::kLaneOver:
        lanes_.try_emplace(r.lane, r.code, std::string(r.bytes));
        overs_[r.lane] = r.bytes;
        break;
      case relay::Kind::kTaskRoom: under_way_[r.lane] -= r.bytes_done; break;
      case relay::Kind::kResult: filling_ = {r.number, r.index}, announced_[filling_] = r.value, parts_[filling_].clear(); break;
      case relay::Kind::kResultPart: parts_[filling_] += r.bytes; break;
      case relay::Kind::kReturned: answers_[r.number].kind = r.kind, answers_[r.number].flags = r.flags; break;
      case relay::Kind::kDone: done(r.done); break;
      default: ADD_FAILURE() << "kind " << static_cast<int>(r.kind);
    }
    if (!relay::is_counted(r.kind)) return;
    results_under_way_ += r.size;
    if (!grants_) return;
    relay::Record room;
    room.kind = relay::Kind::kResultRoom;
    room.lane = r.lane;
    room.bytes_done = std::exchange(results_under_way_, 0);
    std::string message;
    relay::encode(room, &message);
    (void)transport_->enqueue(peer, net::kNormal, std::make_shared<const std::string>(std::move(message)));
  }
  void done(const relay::Done& d) {
    EXPECT_EQ(answers_.count(d.number), 0u) << "it is answered twice";
    Answer& a = answers_[d.number];
    a.code = d.code, a.flags = d.flags, a.run_ns = d.run_ns;
    for (uint32_t i = 0; i < d.results.size(); ++i) {
      const relay::Value& v = d.results[i];
      std::string data(v.data);
      std::vector<std::string> buffers(v.oob.begin(), v.oob.end());
      if (v.apart) {
        const std::string& all = parts_[{d.number, i}];
        const relay::Value& sizes = announced_[{d.number, i}];
        EXPECT_EQ(all.size(), sizes.bytes());
        data = all.substr(0, sizes.size);
        size_t at = sizes.size;
        for (uint64_t n : sizes.oob_sizes) buffers.push_back(all.substr(at, n)), at += n;
      }
      a.given.push_back(v.given);
      a.is_error.push_back(v.format == wire::kFmtError);
      if (v.format == wire::kFmtError) {
        ray_code code;
        uint32_t format;
        EXPECT_TRUE(wire::unpack_error(data.data(), data.size(), &code, &a.message, &format, &a.payload));
      }
      a.values.push_back(std::move(data));
      a.buffers.push_back(std::move(buffers));
    }
  }
  void on_up(net::Peer peer, const net::Identity&, uint32_t) override {
    std::lock_guard lock(mutex_);
    peer_ = peer;
    changed_.notify_all();
  }
  void on_down(net::Peer) override {}
  void on_reset(net::Peer) override {}
  void on_writable(net::Peer, net::Lane) override {}
  void on_refused(net::Target, const std::string&) override {}

  std::mutex mutex_;
  std::condition_variable changed_;
  net::Peer peer_ = 0;
  std::map<uint64_t, std::pair<int32_t, std::string>> lanes_;
  std::map<uint64_t, std::string> overs_;
  std::map<uint64_t, Answer> answers_;
  std::map<std::pair<uint64_t, uint32_t>, std::string> parts_;
  std::map<std::pair<uint64_t, uint32_t>, relay::Value> announced_;
  std::pair<uint64_t, uint32_t> filling_;
  std::map<uint64_t, uint64_t> under_way_;
  uint64_t most_under_way_ = 0, results_under_way_ = 0, number_ = 0;
  bool grants_ = true;
  std::deque<std::unique_ptr<std::string>> names_;
  std::unique_ptr<net::Transport> transport_;
};

}  // namespace ray::test
