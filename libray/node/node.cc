// See node.h. The loop: sockets, timers, passes over the up rings, the end.
#include "libray/node/node.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <new>
#include <thread>
#include <utility>

#include "libray/base/checks.h"
#include "libray/base/clock.h"
#include "libray/base/log.h"
#include "libray/base/proc.h"
#include "libray/lineage/record.h"
#include "libray/node/core/demands.h"
#include "libray/wire/cursor.h"

namespace ray::node {
namespace {

constexpr uint32_t kRecordsPerPass = 8192;     // of one ring before the next has its turn
constexpr int kNapMs = 1;                      // between passes under steady traffic that is not urgent
constexpr uint32_t kLazyTraffic = 16;          // records in an iteration that make it steady
constexpr int64_t kUrgentWindowNs = 2'000'000;
constexpr int64_t kKillGraceNs = 3'000'000'000;
constexpr int64_t kFlushGraceNs = 10'000'000'000;
constexpr int64_t kShardGraceNs = 5'000'000'000;
constexpr int64_t kSpillNs = 10'000'000;  // what waits for so long may go to another node

}  // namespace

Mailbox::Mailbox() : event_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}

void Mailbox::post(std::function<void()> work) {
  std::lock_guard lock(mutex_);
  if (closed_) return;
  queue_.push_back(std::move(work));
  uint64_t one = 1;
  if (queue_.size() == 1) (void)!::write(event_.get(), &one, sizeof one);
}

void Mailbox::run() {
  std::vector<std::function<void()>> work;
  {
    std::lock_guard lock(mutex_);
    uint64_t count;
    (void)!::read(event_.get(), &count, sizeof count);
    work.swap(queue_);
  }
  for (auto& f : work) f();
}

void Mailbox::close() {
  std::lock_guard lock(mutex_);
  closed_ = true;
  queue_.clear();
}

static sched::SchedulerOptions scheduler_options(const NodeOptions& o) {
  sched::SchedulerOptions s;
  s.max_workers = o.max_workers;
  s.checks = wants_checks();
  if (!o.cluster.role.empty()) s.spill_ns = kSpillNs;
  s.instanced.assign(std::begin(wire::kAccelerators), std::end(wire::kAccelerators));
  (void)s.total.add("CPU", o.num_cpus);
  std::map<std::string, double> more;
  if (read_resources(o.resources_msgpack, &more).ok())
    for (const auto& [name, amount] : more) (void)s.total.add(name, amount);
  return s;
}

static int64_t stopped_worker_ns() {
  const char* text = std::getenv("LIBRAY_STOPPED_WORKER_SECONDS");
  double seconds = text && *text ? std::strtod(text, nullptr) : 10;
  return seconds >= 0 && seconds < 1e9 ? static_cast<int64_t>(seconds * 1e9) : 10'000'000'000;
}

static CoreOptions core_options(const NodeOptions& o, const NodeId& id) {
  CoreOptions c;
  c.id = id;
  c.scheduler = scheduler_options(o);
  c.logs = o.session_dir + "/logs";
  c.stopped_worker_ns = stopped_worker_ns();
  // Counts below zero are a client's doing: looked for where all clients are to be trusted.
  const char* level = std::getenv("LIBRAY_CHECKS");
  c.watch_counts = c.scheduler.checks && level && *level == '2';
  return c;
}

Node::Node(NodeOptions options)
    : options_(std::move(options)),
      id_(random_id()),
      started_at_(wall_ns()),
      mailbox_(std::make_shared<Mailbox>()),
      core_(core_options(options_, id_)),
      checks_(wants_checks()) {
  processes_.resize(wire::kMaxProcesses);
  for (uint32_t i = 1; i < wire::kMaxProcesses; ++i) free_indexes_.push_back(i);  // 0 stays free: "none"
}

Node::~Node() {
  mailbox_->close();
  cluster_.reset();
  pump_.reset();
  gcs_.reset();
  store_.reset();
}

Status Node::watch(int fd, Source source, uint32_t index, uint32_t events) {
  epoll_event e{};
  e.events = events;
  e.data.u64 = (static_cast<uint64_t>(source) << 32) | index;
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &e) == 0) return Status();
  if (errno == EEXIST && ::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, fd, &e) == 0) return Status();
  return errno_error(RAY_INTERNAL, "cannot watch a descriptor");
}

void Node::unwatch(int fd) {
  if (fd >= 0) ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
}

Status Node::open_node_page() {
  auto fd = create_memfd("ray-node", sizeof(wire::NodePage));
  if (!fd.ok()) return fd.status();
  auto map = map_shared(fd->get(), sizeof(wire::NodePage), true);
  if (!map.ok()) return map.status();
  page_fd_ = std::move(*fd);
  page_map_ = std::move(*map);
  page_ = new (page_map_.data()) wire::NodePage;  // a fresh memfd is all zero
  page_->magic = wire::kMagic;
  page_->version = wire::kProtocolVersion;
  page_->wakes.n_places = std::clamp<uint32_t>(std::thread::hardware_concurrency(), 2, wire::kMaxPlaces);
  return Status();
}

Status Node::listen() {
  std::string path = session_.dir + "/" + wire::kNodeSocket;
  sockaddr_un a{};
  a.sun_family = AF_UNIX;
  if (path.size() >= sizeof a.sun_path)
    return error(RAY_INVALID_ARGUMENT, "socket path '%s' is too long", path.c_str());
  std::memcpy(a.sun_path, path.c_str(), path.size() + 1);
  listen_ = Fd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!listen_.valid()) return errno_error(RAY_UNAVAILABLE, "cannot make a socket");
  ::unlink(path.c_str());
  mode_t old = ::umask(0177);
  int rc = ::bind(listen_.get(), reinterpret_cast<sockaddr*>(&a), sizeof a);
  ::umask(old);
  if (rc != 0) return errno_error(RAY_UNAVAILABLE, "cannot bind '%s'", path.c_str());
  if (::listen(listen_.get(), 256) != 0)
    return errno_error(RAY_UNAVAILABLE, "cannot listen on '%s'", path.c_str());
  return watch(listen_.get(), kListen, 0, EPOLLIN);
}

Status Node::start() {
  auto session = session::open_session(options_.session_dir);
  if (!session.ok()) return session.status();
  session_ = std::move(*session);
  logs_.configure(session_.dir + "/logs");
  epoll_ = Fd(::epoll_create1(EPOLL_CLOEXEC));
  doorbell_ = Fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  sigset_t set;
  sigemptyset(&set);
  for (int s : {SIGTERM, SIGINT, SIGHUP, SIGCHLD}) sigaddset(&set, s);
  ::sigprocmask(SIG_BLOCK, &set, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
  ::signal(SIGXFSZ, SIG_IGN);  // a file size limit is a full disk: an error, not a death
  signal_ = Fd(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  RAY_TRY(watch(doorbell_.get(), kDoorbell, 0, EPOLLIN));
  RAY_TRY(watch(mailbox_->fd(), kMailbox, 0, EPOLLIN));
  RAY_TRY(watch(signal_.get(), kSignal, 0, EPOLLIN));
  if (options_.parent_pid > 0) {
    parent_ = Fd(pidfd_open(options_.parent_pid));
    if (!parent_.valid()) return error(RAY_UNAVAILABLE, "the driver %d is gone", options_.parent_pid);
    RAY_TRY(watch(parent_.get(), kParent, 0, EPOLLIN));
  }
  ::prctl(PR_SET_CHILD_SUBREAPER, 1);  // what workers leave behind becomes ours: end_orphans
  oom_seen_ = oom_kills();
  start_memory_monitor();
  raise_file_limit();
  spare_ = Fd(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  RAY_TRY(start_shards());
  store::DaemonOptions so;
  so.socket_path = session_.dir + "/" + wire::kStoreSocket;
  so.token = session_.token;
  so.spill_dir = session_.dir + "/spill";
  so.capacity_bytes = options_.store_bytes;
  so.spill_bytes = options_.spill_bytes;
  auto store = store::Daemon::start(so);
  if (!store.ok()) return store.status();
  store_ = std::move(*store);
  RAY_TRY(open_node_page());
  RAY_TRY(listen());
  RAY_TRY(connect_shards());
  auto on_corrupt = [this, box = mailbox_](uint32_t index) {
    box->post([this, index] {
      if (Process* p = process(index)) cut_off(p, "its lineage ring is broken");
    });
  };
  pump_ = std::make_unique<JournalPump>(gcs_.get(), page_, on_corrupt, session_.dir, Spool::limit_from_environment());
  RAY_TRY(pump_->started());
  RAY_TRY(write_session_file());
  register_node("ALIVE");
  return options_.cluster.role.empty() ? Status() : join_cluster();
}

Status Node::write_session_file() {
  wire::Packer w;
  std::string json = strprintf(
      "{\"pid\": %d, \"parent_pid\": %d, \"started_ns\": %lld, \"node\": \"%s\", \"store_bytes\": %llu, "
      "\"gcs_shards\": %u, \"gcs_pids\": [",
      ::getpid(), options_.parent_pid, static_cast<long long>(started_at_), id_.hex().c_str(),
      static_cast<unsigned long long>(options_.store_bytes), options_.gcs_shards);
  for (size_t i = 0; i < shards_.size(); ++i)
    json += (i ? ", " : "") + std::to_string(shards_[i].process.pid);
  json += "], \"resources\": {";
  bool first = true;
  for (const auto& [name, amount] : core_.scheduler().total()) {
    json += strprintf("%s%s: %g", first ? "" : ", ", wire::json_quote(name).c_str(), amount);
    first = false;
  }
  json += "}}\n";
  return session::write_file(session_.dir + "/session.json", json);
}

void Node::write_ready(const std::string& line) {
  if (options_.ready_fd < 0) return;
  std::string text = line + "\n";
  (void)!::write(options_.ready_fd, text.data(), text.size());
  ::close(options_.ready_fd);
  options_.ready_fd = -1;
}

int Node::run() {
  Status s = start();
  if (!s.ok()) {
    write_ready("error: " + s.message());
    log(kLogError, "node", "start-failed", "%s", s.message().c_str());
    for (Shard& shard : shards_) (void)pidfd_signal(shard.process.pidfd.get(), SIGKILL);
    if (!session_.dir.empty()) session::remove_sockets(session_.dir);
    return 1;
  }
  write_ready("ready");
  log(kLogInfo, "node", "started", "session %s", session_.dir.c_str());
  epoll_event events[64];
  bool armed = false;
  while (phase_ != Phase::kDone) {
    int timeout = next_timeout(&armed);
    int n = ::epoll_wait(epoll_.get(), events, 64, timeout);
    if (armed) page_->daemon_armed.store(0, std::memory_order_relaxed);
    lazy_records_ = urgent_records_ = 0;
    lost_links_.clear();
    loop_now_ = steady_ns();
    for (int i = 0; i < n; ++i) handle(events[i].data.u64, events[i].events);
    pass();
    int64_t now = steady_ns();
    timers(now);
    if (urgent_records_) urgent_at_ = now;
    decide();
    if (core_.wants_spill(now)) step(event::Spill{}, now);
    flush_outboxes();
    flush_relay();
    if (phase_ != Phase::kRunning) advance_shutdown();
  }
  return 0;
}

// One look at every up ring. A pass, for the directory's rule, is complete when all that was in any ring at its
// beginning has been read: it may take several looks, but no longer because more is written meanwhile.
void Node::pass() {
  if (!passing_) {
    step(event::PassBegins{}, loop_now_);
    passing_ = true;
    for (uint32_t index : live_) processes_[index]->pass_to = processes_[index]->channel->up_end();
  }
  std::vector<uint32_t> indexes(live_.begin(), live_.end());
  for (uint32_t index : indexes)
    if (Process* p = process(index)) drain_up(p, kRecordsPerPass);
  for (uint32_t index : live_) {
    Process& p = *processes_[index];
    if (!p.closing && p.channel->up.position() < p.pass_to && !p.channel->up.empty()) return;
  }
  passing_ = false;
  step(event::PassEnds{}, loop_now_);
}

int Node::next_timeout(bool* armed) {
  *armed = false;
  if (core_.wants_pass() || core_.has_late_work() || !gone_later_.empty() || !broken_.empty() || session_changed_) return 0;
  int64_t now = steady_ns(), at = core_.next_deadline(now);
  auto earlier = [&at](int64_t t) {
    if (t && (!at || t < at)) at = t;
  };
  for (const Shard& s : shards_) earlier(s.restart_at);
  for (const auto& [number, s] : spawns_)
    if (s.by_zygote && s.pid <= 0) earlier(servants_at_);
  if (core_.has_paused()) earlier(clients_at_);
  if (relay_ && !relay_->running() && phase_ == Phase::kRunning) earlier(relay_->restart_at());
  if (phase_ != Phase::kRunning) earlier(phase_deadline_);
  else if (core_.scheduler().busy()) earlier(memory_at_), earlier(servants_at_), earlier(logs_at_), earlier(clients_at_);
  earlier(logs_.next_deadline());
  earlier(listen_at_);
  int timeout = -1;
  if (at) timeout = at <= now ? 0 : static_cast<int>(std::min<int64_t>((at - now) / 1000000 + 1, 60000));
  if (timeout == 0) return 0;
  // Steady traffic that nobody waits for is better read in batches than record by record.
  if (lazy_records_ >= kLazyTraffic && now - urgent_at_ > kUrgentWindowNs) return kNapMs;
  page_->daemon_armed.store(1, std::memory_order_relaxed);
  std::atomic_thread_fence(std::memory_order_seq_cst);
  *armed = true;
  for (uint32_t index : live_) {
    if (processes_[index]->closing || processes_[index]->channel->up.empty()) continue;
    page_->daemon_armed.store(0, std::memory_order_relaxed);
    *armed = false;
    return 0;
  }
  return timeout;
}

void Node::handle(uint64_t tag, uint32_t events) {
  auto source = static_cast<Source>(tag >> 32);
  uint32_t index = static_cast<uint32_t>(tag);
  uint64_t count;
  switch (source) {
    case kListen: return accept_all();
    case kDoorbell:
      (void)!::read(doorbell_.get(), &count, sizeof count);
      if (pump_) pump_->poke_if_wanted();
      return;
    case kMailbox: return mailbox_->run();
    case kSignal: return on_signal();
    case kParent:
      unwatch(parent_.get());
      return begin_shutdown("the driver that started the node is gone");
    case kPendingSocket: return on_hello(index);
    case kSocket: return on_socket(index, events);
    case kPidFd:
      // Workers are buried through their spawn record; this is a driver that is gone.
      if (Process* p = process(index); p && p->driver) driver_gone(index, -1, wire::kDeathCrash);
      return;
    case kSpawnFd: return on_spawn_exit(index);
    case kZygoteFd: return on_zygote(index);
    case kShardFd: return on_shard_exit(index);
    case kShardReadyFd: return on_shard_ready(index);
    case kRelayFd: return on_relay(events);
    case kRelayExit: return relay_gone();
  }
}

void Node::on_signal() {
  signalfd_siginfo info;
  bool end = false;
  while (::read(signal_.get(), &info, sizeof info) == sizeof info)
    end |= info.ssi_signo != SIGCHLD;
  end_orphans();
  if (end) begin_shutdown("the node was told to end by a signal");
}

void Node::decide() {
  int64_t now = steady_ns();
  if (!core_.wants_decision(now)) return;
  step(event::Decide{}, now);
  if (checks_) check_invariants(now);
}

// In builds and runs for tests: what the core says of itself is looked at after every decision, but for a tenth
// of the time at most.
void Node::check_invariants(int64_t now) {
  if (now < check_at_) return;
  std::string broken = core_.check();
  check_at_ = now + 10 * (steady_ns() - now);
  if (broken.empty()) return;
  log(kLogError, "node", "invariant", "an invariant does not hold any more: %s", broken.c_str());
  (void)::raise(SIGABRT);  // with a core, for whoever looks for the reason
}

void Node::timers(int64_t now) {
  logs_.trim(now);
  for (Shard& s : shards_) {
    if (!s.restart_at || s.restart_at > now || phase_ != Phase::kRunning) continue;
    s.restart_at = 0;
    Status status = start_shard(&s);
    if (!status.ok()) {
      shard_missing(s, status.message());
      s.restart_at = now + 1'000'000'000;
    }
  }
  if (relay_ && !relay_->running() && relay_->restart_at() <= now && phase_ == Phase::kRunning) (void)restart_relay(now);
  step(event::Timer{}, now);
  watch_memory(now);
  watch_servants(now);
  watch_clients(now);
  watch_logs(now);
  listen_again(now);
  for (uint32_t index : std::exchange(broken_, {}))
    if (Process* p = process(index); p && !p->closing) on_socket(index, EPOLLHUP);
  for (uint32_t index : std::exchange(gone_later_, {})) driver_gone(index, -1, wire::kDeathCrash);
  if (std::exchange(session_changed_, false)) (void)write_session_file();
  if (!core_.has_late_work()) return;
  step(event::RingsTurn{}, now);
  read_all_rings();
  step(event::RingsRead{}, now);
}

void Node::flush_outboxes() {
  std::set<uint32_t> dirty;
  dirty.swap(dirty_);
  for (uint32_t index : dirty) {
    Process* p = process(index);
    if (!p || p->closing) continue;
    Outbox::Sent sent = p->out.flush(p->socket.get());
    if (sent == Outbox::Sent::kBroken) {
      broken_.insert(index);
    } else if (sent == Outbox::Sent::kSocketFull) {
      dirty_.insert(index);
      if (!p->want_write) (void)watch(p->socket.get(), kSocket, index, EPOLLIN | EPOLLOUT);
      p->want_write = true;
    } else if (p->want_write) {
      (void)watch(p->socket.get(), kSocket, index, EPOLLIN);
      p->want_write = false;
    }
  }
}

// ---- the end ---------------------------------------------------------------------------------------

void Node::begin_shutdown(const std::string& why, bool tell) {
  if (phase_ != Phase::kRunning) return;
  log(kLogInfo, "node", "shutdown", "%s", why.c_str());
  if (cluster_) cluster_->leave(why);
  phase_ = Phase::kKilling;
  phase_deadline_ = steady_ns() + kKillGraceNs;
  listen_.reset();
  ::unlink((session_.dir + "/" + wire::kNodeSocket).c_str());
  pending_.clear();
  for (uint32_t index : live_) send(processes_[index].get(), wire::kDnShutdown, why.data(), tell ? why.size() : 0);
  flush_outboxes();
  if (relay_) relay_->kill();
  step(event::Ending{});
  for (auto& [number, s] : spawns_) (void)pidfd_signal(s.pidfd.get(), SIGKILL);
  for (auto& [index, job] : jobs_)
    for (auto& [language, z] : job.zygotes) {
      (void)pidfd_signal(z->pidfd(), SIGKILL);
      ::waitpid(z->pid(), nullptr, 0);
    }
}

// Killing: until the last worker is buried (its rings are drained then). Flushing: until the journal is
// committed. Closing: shards write what they have and end.
void Node::advance_shutdown() {
  int64_t now = steady_ns();
  if (phase_ == Phase::kKilling) {
    bool waiting = end_orphans() > 0;
    for (auto& [number, s] : spawns_) waiting |= s.pid > 0;
    waiting |= relay_ && relay_->running();
    if (waiting && now < phase_deadline_) return;
    phase_ = Phase::kFlushing;
    phase_deadline_ = now + kFlushGraceNs;
    pump_->flush([this, box = mailbox_] { box->post([this] { flushed_ = true; }); });
    register_node("DEAD");
    for (Shard& s : shards_)  // one that was to be tried again later
      if (s.process.pid <= 0) (void)start_shard(&s);
  }
  if (phase_ == Phase::kFlushing) {
    if ((!flushed_ || !core_.rows_written()) && now < phase_deadline_ && !shard_lost()) return;
    if (!flushed_)
      log(kLogError, "node", "journal-unflushed", "the journal could not be written%s",
          shard_lost() ? ": a shard of the control store does not start" : " in time");
    phase_ = Phase::kClosing;
    phase_deadline_ = now + kShardGraceNs;
    core_.leave();
    cluster_.reset();
    pump_.reset();
    gcs_.reset();
    for (Shard& s : shards_)
      (void)pidfd_signal(s.process.pidfd.get(), SIGINT);  // SIGTERM would be this process's death
  }
  if (phase_ == Phase::kClosing) {
    bool waiting = false;
    for (Shard& s : shards_) waiting |= s.process.pid > 0;
    if (waiting && now < phase_deadline_) return;
    for (Shard& s : shards_) {
      if (s.process.pid <= 0) continue;
      log(kLogError, "node", "shard-hangs", "shard %u did not end in time", s.index);
      (void)pidfd_signal(s.process.pidfd.get(), SIGKILL);
    }
    store_.reset();
    session::remove_sockets(session_.dir);
    for (auto& [index, req] : shutdown_replies_) reply(index, req, RAY_OK, wire::empty_array());
    flush_outboxes();
    phase_ = Phase::kDone;
  }
}

}  // namespace ray::node
