// The store daemon: one thread that accepts clients, watches them die, polls their rings while
// there is dense traffic, dozes while there is some, and sleeps otherwise. The rules are in core.h;
// here are sockets and sleep.
//
// Threads: the store thread runs loop(); drop and the like, stats and list_msgpack come from any thread and hand
// their wish over under mu_. Napping: the thread says so in daemon_nap, looks at every ring once
// more and only then waits in epoll; whoever commits something and sees a nap that it should end
// (layout.h: Nap) sends one wake-up for that nap.
#include "store/daemon.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <condition_variable>
#include <mutex>
#include <thread>

#include "libray/base/clock.h"
#include "libray/base/log.h"
#include "libray/base/thread.h"
#include "libray/base/trust.h"
#include "store/core.h"

namespace ray::store {

namespace {
constexpr int64_t kSpinNs = 15000;        // polls on for this long after records were read
constexpr int64_t kSpinAskedNs = 150000;  // and after a question: more are likely to follow
constexpr int64_t kDozeNs = 20000000;     // then dozes, a millisecond at a time, for this long
constexpr int kRestPauses = 40;           // about 2 us
constexpr int64_t kIdleNs = 1000000000;   // then naps this long before it gives memory back
constexpr int64_t kHelloNs = 5000000000;  // a connection must say hello within this time
constexpr size_t kMaxStrangers = 64;      // connections without a valid hello
constexpr size_t kMaxHeirs = 1024;        // dead clients whose children are read for
}  // namespace

class Server final : public Daemon {
 public:
  explicit Server(const DaemonOptions& options) : options_(options) {}
  ~Server() override;
  Status start();
  void drop(const ObjectId& id, const Location& hint) override {
    give({Command::kDrop, id, hint.segment ? copy_name(hint) : 0, 0, 0});
  }
  void keep(const ObjectId& id, const Location& hint) override {
    give({Command::kKeep, id, copy_name(hint), 0, 0});
  }
  void discard(const ObjectId& id, uint32_t owner, uint32_t attempt) override {
    give({Command::kDiscard, id, 0, owner, attempt});
  }
  void process_died(uint32_t process) override { give({Command::kDied, {}, 0, process, 0}); }
  DaemonStats stats() override;
  std::string list_msgpack(uint32_t limit) override;

 private:
  struct Connection {
    Fd socket, pidfd;
    int pid = 0;
    uint32_t peer = 0;  // 0: a stranger
    bool heirs = false;  // the client died, children of it read on: see on_death
    int64_t since_ns = 0;
  };
  // What an event is of: with the number of a connection, not of its descriptor, which may be another one's by the
  // time the event is looked at.
  enum Tag : uint64_t { kTagListen = 1, kTagEvent = 2, kTagSocket = 3, kTagPid = 4 };
  static constexpr int kTagShift = 56;

  Status listen();
  void loop();
  bool take_commands();
  void answer_questions();
  void nap(int64_t idle_since);
  static void rest();
  void handle_events(int timeout_ms);
  void accept_clients();
  void on_socket(uint64_t number);
  bool on_message(uint64_t number, Connection* c, const char* data, size_t size);
  bool on_hello(uint64_t number, Connection* c, const char* data, size_t size);
  void on_segment(Connection* c, const SegmentMessage& m);
  bool send_apart(uint32_t peer, uint64_t request, int fd);
  void close_connection(uint64_t number);
  void on_death(uint64_t number);
  void close_peer(uint32_t peer);
  void drop_strangers(int64_t now);
  void watch(int fd, Tag t, uint64_t number = 0);
  void wake_peer(uint32_t peer);
  void wake_self(bool urgent);

  const DaemonOptions options_;
  Fd listen_, epoll_, event_, spare_;
  std::unique_ptr<Core> core_;
  std::unordered_map<uint64_t, Connection> connections_;  // by number
  uint64_t next_connection_ = 1;
  std::unordered_map<uint32_t, uint64_t> connection_of_peer_;
  size_t strangers_ = 0, heirs_ = 0;

  std::mutex mu_;
  std::condition_variable answered_;
  struct Command {
    enum Kind : uint32_t { kDrop, kKeep, kDiscard, kDied } kind;
    ObjectId id;
    CopyName copy;
    uint32_t process, attempt;
  };
  std::vector<Command> commands_;
  void give(const Command& c);
  struct Question {
    bool list = false, done = false;
    uint32_t limit = 0;
    DaemonStats stats;
    std::string rows;
  };
  std::vector<Question*> questions_, asked_;
  int questions_age_ = 0;
  std::atomic<bool> has_commands_{false}, stop_{false};
  std::atomic<uint32_t> nap_{kAwake};  // as in the directory, for this process's other threads
  uint32_t naps_ = 0;
  void ask(Question* q);
  std::thread thread_;
};

Result<std::unique_ptr<Daemon>> Daemon::start(const DaemonOptions& options) {
  auto server = std::make_unique<Server>(options);
  Status s = server->start();
  if (!s.ok()) return s;
  return std::unique_ptr<Daemon>(std::move(server));
}

Status Server::start() {
  if (options_.token.size() > kTokenMax)
    return error(RAY_INVALID_ARGUMENT, "the store's token is longer than %u bytes", kTokenMax);
  event_ = Fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  epoll_ = Fd(::epoll_create1(EPOLL_CLOEXEC));
  spare_ = Fd(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  if (!event_.valid() || !epoll_.valid())
    return errno_error(RAY_OUT_OF_MEMORY, "cannot start the object store");
  core_ = std::make_unique<Core>(
      options_, [this](uint32_t p) { wake_peer(p); }, [this] { wake_self(true); },
      [this](uint32_t p, uint64_t request, int fd) { return send_apart(p, request, fd); });
  RAY_TRY(core_->init());
  RAY_TRY(listen());
  watch(listen_.get(), kTagListen);
  watch(event_.get(), kTagEvent);
  // Signals go to the program's other threads.
  sigset_t all, old;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, &old);
  Status s = start_thread(&thread_, "the object store's thread", [this] { loop(); });
  pthread_sigmask(SIG_SETMASK, &old, nullptr);
  return s;
}

Server::~Server() {
  if (thread_.joinable()) {
    stop_.store(true);
    uint64_t one = 1;
    (void)!::write(event_.get(), &one, sizeof one);
    thread_.join();
  }
  if (listen_.valid()) ::unlink(options_.socket_path.c_str());
  core_.reset();  // its jobs wake this object: they end first
}

Status Server::listen() {
  sockaddr_un addr{};
  addr.sun_family = AF_UNIX;
  if (options_.socket_path.size() >= sizeof addr.sun_path)
    return error(RAY_INVALID_ARGUMENT, "socket path '%s' is longer than %zu bytes",
                 options_.socket_path.c_str(), sizeof addr.sun_path - 1);
  std::memcpy(addr.sun_path, options_.socket_path.c_str(), options_.socket_path.size());
  Fd fd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd.valid()) return errno_error(RAY_UNAVAILABLE, "cannot make the store's socket");
  ::unlink(options_.socket_path.c_str());
  ::fchmod(fd.get(), 0600);  // the inode takes the socket's mode: never open to others
  if (::bind(fd.get(), reinterpret_cast<sockaddr*>(&addr), sizeof addr) != 0)
    return errno_error(RAY_UNAVAILABLE, "cannot bind '%s'", options_.socket_path.c_str());
  ::chmod(options_.socket_path.c_str(), 0600);
  if (::listen(fd.get(), 256) != 0)
    return errno_error(RAY_UNAVAILABLE, "cannot listen on '%s'", options_.socket_path.c_str());
  listen_ = std::move(fd);
  return Status();
}

void Server::watch(int fd, Tag t, uint64_t number) {
  epoll_event ev{};
  ev.events = EPOLLIN;
  ev.data.u64 = t << kTagShift | number;
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &ev);
}

// ---- calls from other threads ------------------------------------------------------------------

void Server::wake_self(bool urgent) {
  has_commands_.store(true, std::memory_order_seq_cst);
  uint32_t nap = nap_.load(std::memory_order_seq_cst);
  if (nap == kAwake || (nap == kDozing && !urgent)) return;
  uint64_t one = 1;
  (void)!::write(event_.get(), &one, sizeof one);
}

void Server::give(const Command& c) {
  {
    std::lock_guard lock(mu_);
    commands_.push_back(c);
  }
  wake_self(false);
}

void Server::ask(Question* q) {
  std::unique_lock lock(mu_);
  questions_.push_back(q);
  wake_self(true);
  answered_.wait(lock, [q] { return q->done; });
}

DaemonStats Server::stats() {
  Question q;
  ask(&q);
  return q.stats;
}

std::string Server::list_msgpack(uint32_t limit) {
  Question q;
  q.list = true;
  q.limit = limit;
  ask(&q);
  return std::move(q.rows);
}

bool Server::take_commands() {
  if (!has_commands_.exchange(false, std::memory_order_seq_cst)) return false;
  std::vector<Command> commands;
  {
    std::lock_guard lock(mu_);
    commands.swap(commands_);
    asked_.insert(asked_.end(), questions_.begin(), questions_.end());
    questions_.clear();
  }
  for (const Command& c : commands) {
    switch (c.kind) {
      case Command::kDrop: core_->drop(c.id, c.copy); break;
      case Command::kKeep: core_->keep(c.id, c.copy); break;
      case Command::kDiscard: core_->discard(c.id, c.process, c.attempt); break;
      case Command::kDied: core_->process_died(c.process); break;
    }
  }
  questions_age_ = 0;
  return true;
}

// After two passes over the rings, so that what the asker saw committed is counted and freed.
void Server::answer_questions() {
  if (asked_.empty() || ++questions_age_ < 3) return;
  for (Question* q : asked_) {
    if (q->list)
      q->rows = core_->list_msgpack(q->limit);
    else
      q->stats = core_->stats();
  }
  std::lock_guard lock(mu_);
  for (Question* q : asked_) q->done = true;
  asked_.clear();
  answered_.notify_all();
}

// ---- the store thread --------------------------------------------------------------------------

void Server::loop() {
  pthread_setname_np(pthread_self(), "ray-store");
  int64_t last_work = steady_ns(), spin_until = 0;
  uint64_t questions = 0;
  for (uint32_t round = 0; !stop_.load(std::memory_order_relaxed); ++round) {
    int64_t now = steady_ns();
    bool worked = take_commands();
    std::vector<uint32_t> bad;
    worked |= core_->drain_all(&bad);
    for (uint32_t p : bad) {
      log(kLogWarning, "store", "bad-client", "client %u broke the store's protocol: disconnected",
          p);
      close_peer(p);
    }
    worked |= core_->tick(now);
    answer_questions();
    worked |= !asked_.empty();
    if (round % 64 == 0) handle_events(0);
    if (worked) {
      last_work = now;
      bool asked = core_->questions() != questions;
      questions = core_->questions();
      spin_until = std::max(spin_until, now + (asked ? kSpinAskedNs : kSpinNs));
      rest();
    } else if (now < spin_until) {
      for (int i = 0; i < 8; ++i) cpu_relax();
    } else {
      nap(last_work);
    }
  }
  std::lock_guard lock(mu_);
  for (auto* list : {&questions_, &asked_})
    for (Question* q : *list) q->done = true;
  answered_.notify_all();
}

// Lets a batch gather. Looking at a ring after every single record would pull its cache line away
// from the client each time; nobody waits for what this delays but requests for memory.
void Server::rest() {
  for (int i = 0; i < kRestPauses; ++i) cpu_relax();
}

void Server::nap(int64_t idle_since) {
  int64_t now = steady_ns(), idle = now - idle_since;
  uint32_t depth = idle < kDozeNs ? kDozing : kAsleep;
  auto& word = core_->header()->daemon_nap;
  word.store(++naps_ * 4 + depth, std::memory_order_seq_cst);
  nap_.store(depth, std::memory_order_seq_cst);
  bool busy = has_commands_.load(std::memory_order_seq_cst) || stop_.load();
  for (auto& [number, p] : core_->peers())
    busy |= p->segment->control()->publish.tail.load(std::memory_order_seq_cst) !=
            p->publish.position();
  if (!busy) {
    int64_t until = core_->next_deadline();
    auto by = [&](int64_t at) { until = until ? std::min(until, at) : at; };
    if (depth == kDozing)
      by(now + 1000000);
    else if (idle < kIdleNs)
      by(idle_since + kIdleNs);
    else
      core_->before_sleep();
    if (strangers_ > 0) by(now + kHelloNs);
    int64_t ms = (until - now + 999999) / 1000000;
    handle_events(until == 0 ? -1 : static_cast<int>(std::clamp<int64_t>(ms, 0, 60000)));
  }
  nap_.store(kAwake, std::memory_order_seq_cst);
  word.store(naps_ * 4 + kAwake, std::memory_order_seq_cst);
}

void Server::handle_events(int timeout_ms) {
  epoll_event events[64];
  int n = ::epoll_wait(epoll_.get(), events, 64, timeout_ms);
  for (int i = 0; i < n; ++i) {
    const uint64_t number = events[i].data.u64 & ((uint64_t{1} << kTagShift) - 1);
    switch (events[i].data.u64 >> kTagShift) {
      case kTagListen: accept_clients(); break;
      case kTagEvent: {
        uint64_t v;
        (void)!::read(event_.get(), &v, sizeof v);
        break;
      }
      case kTagSocket: on_socket(number); break;
      case kTagPid: on_death(number); break;
    }
  }
  if (strangers_ > 0) drop_strangers(steady_ns());
}

void Server::accept_clients() {
  for (int i = 0; i < 16; ++i) {
    Fd fd(::accept4(listen_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!fd.valid() && (errno == EMFILE || errno == ENFILE)) {
      // Without a descriptor the waiting connection could not even be refused, and epoll would
      // report it for ever: use the spare one for that.
      spare_.reset();
      fd = Fd(::accept4(listen_.get(), nullptr, nullptr, SOCK_CLOEXEC));
      fd.reset();
      spare_ = Fd(::open("/dev/null", O_RDONLY | O_CLOEXEC));
      log(kLogWarning, "store", "no-descriptors",
          "a client was refused: this process has no file descriptor left");
      return;
    }
    if (!fd.valid()) return;
    if (strangers_ >= kMaxStrangers) continue;  // closes it
    Connection c;
    c.since_ns = steady_ns();
    int s = fd.get();
    c.socket = std::move(fd);
    ucred cred;
    if (!is_same_user(s, &cred)) {  // before it is read from
      log(kLogWarning, "store", "refused", "a process of user %u was refused", cred.uid);
      continue;
    }
    c.pid = cred.pid;
    ++strangers_;
    watch(s, kTagSocket, next_connection_);
    connections_[next_connection_++] = std::move(c);
  }
}

void Server::drop_strangers(int64_t now) {
  std::vector<uint64_t> late;
  for (auto& [number, c] : connections_)
    if (c.peer == 0 && now - c.since_ns > kHelloNs) late.push_back(number);
  for (uint64_t number : late) close_connection(number);
}

void Server::close_peer(uint32_t peer) {
  if (auto it = connection_of_peer_.find(peer); it != connection_of_peer_.end())
    close_connection(it->second);
}

void Server::close_connection(uint64_t number) {
  auto it = connections_.find(number);
  if (it == connections_.end()) return;
  Connection c = std::move(it->second);
  connections_.erase(it);
  if (c.peer == 0) {
    --strangers_;
    return;
  }
  if (c.heirs) {
    --heirs_;
    core_->heirs_ended(c.peer);
    return;
  }
  connection_of_peer_.erase(c.peer);
  core_->bury(c.peer, false);
}

// A forked child that reads what was pinned at the fork keeps its copy of the socket open: the socket's end tells when
// none is left. Until then the dead client's pins stay.
void Server::on_death(uint64_t number) {
  auto it = connections_.find(number);
  if (it == connections_.end()) return;
  Connection& c = it->second;
  pollfd p{c.socket.get(), POLLRDHUP, 0};
  if (c.peer == 0 || heirs_ >= kMaxHeirs || ::poll(&p, 1, 0) != 0) return close_connection(number);
  connection_of_peer_.erase(c.peer);
  if (!core_->bury(c.peer, true)) {
    connections_.erase(it);
    return;
  }
  ++heirs_;
  c.heirs = true;
  c.pidfd.reset();
  epoll_event ev{};
  ev.events = EPOLLRDHUP;  // they have nothing to say
  ev.data.u64 = kTagSocket << kTagShift | number;
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, c.socket.get(), &ev);
}

void Server::on_socket(uint64_t number) {
  for (int i = 0; i < 16; ++i) {
    auto it = connections_.find(number);
    if (it == connections_.end()) return;
    if (it->second.heirs) {
      pollfd p{it->second.socket.get(), POLLRDHUP, 0};
      if (::poll(&p, 1, 0) != 0) close_connection(number);
      return;
    }
    char buffer[kMessageMax];
    std::vector<Fd> fds;  // a client has none to send; whatever comes is closed
    auto n = recv_with_fds(it->second.socket.get(), buffer, sizeof buffer, &fds);
    if (!n.ok() && n.status().code() == RAY_TIMED_OUT) return;
    if (!n.ok() || *n == 0 || !on_message(number, &it->second, buffer, *n)) {
      close_connection(number);
      return;
    }
  }
}

bool Server::on_message(uint64_t number, Connection* c, const char* data, size_t size) {
  if (c->peer == 0) return on_hello(number, c, data, size);
  PlainMessage m;
  if (size < sizeof m) return false;
  std::memcpy(&m, data, sizeof m);
  switch (m.type) {
    case kMsgWake: return true;
    case kMsgMapped:
      if (auto it = core_->peers().find(c->peer); it != core_->peers().end())
        it->second->segment->seal_control();
      return true;
    case kMsgSegment: {
      SegmentMessage s;
      if (size != sizeof s) return false;
      std::memcpy(&s, data, sizeof s);
      on_segment(c, s);
      return true;
    }
    default: return false;
  }
}

bool Server::on_hello(uint64_t number, Connection* c, const char* data, size_t size) {
  StoreHello h;
  if (size != sizeof h) return false;
  std::memcpy(&h, data, sizeof h);
  StoreWelcome w{};
  w.type = kMsgWelcome;
  auto refuse = [&](ray_code code, const std::string& text) {
    w.code = code;
    std::snprintf(w.text, sizeof w.text, "%s", text.c_str());
    (void)send_with_fds(c->socket.get(), &w, sizeof w, nullptr, 0);
    return false;
  };
  if (h.magic != kStoreMagic || h.version != kStoreVersion)
    return refuse(RAY_UNSUPPORTED, strprintf("the store speaks version %u", kStoreVersion));
  uint32_t differ = h.token_size != options_.token.size();
  for (size_t i = 0; i < options_.token.size(); ++i)
    differ |= static_cast<uint8_t>(h.token[i] ^ options_.token[i]);
  if (differ) return refuse(RAY_INVALID_ARGUMENT, "the store's token is wrong");
  c->pidfd = peer_pidfd(c->socket.get(), c->pid);
  if (!c->pidfd.valid()) return false;  // it died meanwhile
  if (h.process >= wire::kMaxProcesses) return refuse(RAY_INVALID_ARGUMENT, "there is no such process");
  auto p = core_->attach(c->pid, h.process);
  if (!p.ok()) return refuse(p.status().code(), p.status().message());
  c->peer = (*p)->number;
  --strangers_;
  connection_of_peer_[c->peer] = number;
  watch(c->pidfd.get(), kTagPid, number);
  w.segment = c->peer;
  int fds[3] = {(*p)->segment->control_fd(), (*p)->segment->data_fd(),
                core_->directory().readonly_fd()};
  return send_with_fds(c->socket.get(), &w, sizeof w, fds, 3).ok();
}

void Server::on_segment(Connection* c, const SegmentMessage& m) {
  SegmentMessage out = m;
  auto readonly = core_->segment_fd(m.segment);
  out.code = readonly.ok() ? RAY_OK : readonly.status().code();
  int fd = readonly.ok() ? readonly->get() : -1;
  Status sent = send_with_fds(c->socket.get(), &out, sizeof out, &fd, readonly.ok() ? 1 : 0);
  if (sent.code() == RAY_TIMED_OUT)
    log(kLogWarning, "store", "slow-client", "client %u does not read its socket", c->peer);
}

// False: the client does not read its socket, or is gone.
bool Server::send_apart(uint32_t peer, uint64_t request, int fd) {
  auto it = connection_of_peer_.find(peer);
  if (it == connection_of_peer_.end()) return false;
  SegmentMessage m{kMsgApart, 0, request, RAY_OK, 0};
  return send_with_fds(connections_.at(it->second).socket.get(), &m, sizeof m, &fd, 1).ok();
}

void Server::wake_peer(uint32_t peer) {
  auto it = connection_of_peer_.find(peer);
  if (it == connection_of_peer_.end()) return;
  PlainMessage m{kMsgWake};
  (void)send_with_fds(connections_.at(it->second).socket.get(), &m, sizeof m, nullptr, 0);  // full = it has wake-ups to read
}

}  // namespace ray::store
