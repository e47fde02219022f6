// Start, join and stop of a runtime; its two threads; what it tells the daemon. See runtime.h.
#include "libray/runtime/runtime.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <utility>

#include "libray/base/clock.h"
#include "libray/base/doorbell.h"
#include "libray/base/fault.h"
#include "libray/base/fork.h"
#include "libray/base/log.h"
#include "libray/base/proc.h"
#include "libray/base/thread.h"
#include "libray/base/trust.h"
#include "libray/session/session.h"
#include "libray/runtime/process_wide.h"
#include "libray/runtime/registry.h"
#include "libray/runtime/runtime_inl.h"
#include "libray/runtime/worker.h"
#include "libray/wire/limits.h"
#include "libray/wire/msgpack.h"

extern char** environ;

namespace ray {
namespace {

std::string view(ray_str s) {
  if (!s.data) return {};
  return s.size == RAY_NUL ? std::string(s.data) : std::string(s.data, s.size);
}

std::string to_hex(const void* data, size_t size) {
  static const char digits[] = "0123456789abcdef";
  const uint8_t* p = static_cast<const uint8_t*>(data);
  std::string s;
  for (size_t i = 0; i < size; ++i) {
    s += digits[p[i] >> 4];
    s += digits[p[i] & 15];
  }
  return s;
}

double usable_cpus() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
  return CPU_COUNT(&set);
}

uint64_t default_store_bytes() {
  uint64_t ram = static_cast<uint64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGESIZE);
  return ram * 3 / 10;
}

// Starts `rayd` with its output in the session's log; fd 3 of the child is the ready pipe.
Status spawn_daemon(const std::vector<std::string>& args, const std::string& log, int ready_fd,
                    int* pid) {
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, 1, log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
  posix_spawn_file_actions_adddup2(&actions, 1, 2);
  posix_spawn_file_actions_adddup2(&actions, ready_fd, 3);
  posix_spawnattr_t attr;
  posix_spawnattr_init(&attr);
  // Its own process group: the terminal's Ctrl-C is for the driver, which then ends it in order.
  posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK);
  posix_spawnattr_setpgroup(&attr, 0);
  sigset_t none;
  sigemptyset(&none);
  posix_spawnattr_setsigmask(&attr, &none);
  std::vector<char*> argv;
  for (auto& a : args) argv.push_back(const_cast<char*>(a.c_str()));
  argv.push_back(nullptr);
  std::vector<char*> env;
  const std::string secret = std::string(session::kTokenVariable) + "=";
  for (char** e = environ; *e; ++e)
    if (std::string_view(*e).substr(0, secret.size()) != secret) env.push_back(*e);
  env.push_back(nullptr);
  int rc = posix_spawn(pid, argv[0], &actions, &attr, argv.data(), env.data());
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attr);
  if (rc == 0) return Status();
  if (rc == EAGAIN) return no_process_error(rc, "the node daemon");
  if (rc == E2BIG)
    return error(RAY_INVALID_ARGUMENT,
                 "no program can be started with this environment, not even the node daemon: Linux allows 128 KiB for "
                 "one variable, and a quarter of the stack's limit (`ulimit -s`) for all; unset or shorten some");
  errno = rc;
  return errno_error(RAY_UNAVAILABLE, "cannot start the node daemon %s", argv[0]);
}

// When the kernel has no memory left it ends a worker, whose work can be done again, and not the driver
// or the daemon. Processes that the worker starts inherit it.
void offer_to_oom_killer() {
  Fd fd(::open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC));
  if (fd.valid()) (void)!::write(fd.get(), "1000", 4);
}

// One line from the daemon: "ready", or "error: ...".
Status await_ready(int fd, int pidfd, const std::string& log) {
  std::string line;
  int64_t deadline = steady_ns() + 30000000000;
  for (;;) {
    pollfd p{fd, POLLIN, 0};
    int ms = static_cast<int>((deadline - steady_ns()) / 1000000);
    if (ms <= 0) {
      (void)pidfd_signal(pidfd, SIGKILL);
      return error(RAY_UNAVAILABLE, "the node daemon did not start within 30 s; see %s", log.c_str());
    }
    const int there = poll(&p, 1, ms);
    if (there == 0 || (there < 0 && errno == EINTR)) continue;  // a read would wait for ever
    if (there < 0) break;
    char buffer[512];
    ssize_t n = ::read(fd, buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    line.append(buffer, static_cast<size_t>(n));
    if (line.find('\n') != std::string::npos) break;
  }
  if (line.rfind("ready", 0) == 0) return Status();
  while (!line.empty() && line.back() == '\n') line.pop_back();
  if (line.empty())
    return error(RAY_UNAVAILABLE, "the node daemon ended while starting; see %s", log.c_str());
  return error(RAY_UNAVAILABLE, "the node daemon did not start: %s; see %s", line.c_str(),
               log.c_str());
}

}  // namespace

Status Runtime::why_unusable() const {
  if (foreign())
    return error(RAY_WRONG_STATE, "a runtime does not survive fork(): call ray_init in the child");
  if (stopping_.load(std::memory_order_relaxed))
    return error(RAY_WRONG_STATE, "this runtime was shut down");
  if (node_dead()) return error(RAY_NODE_DIED, "%s", death_.c_str());
  return Status();
}

bool Runtime::daemon_gone() const {
  if (node_dead()) return true;
  pollfd p{socket_.get(), POLLRDHUP, 0};
  // The store is a part of the daemon, but a dying process closes one socket after the other.
  const auto client = store();
  int patience_ms = client && client->disconnected() ? 1000 : 0;
  return ::poll(&p, 1, patience_ms) > 0 && (p.revents & (POLLHUP | POLLRDHUP | POLLERR));
}

Status Runtime::of_store(Status s) const {
  if (s.code() != RAY_UNAVAILABLE || !daemon_gone()) return s;
  return error(RAY_NODE_DIED, "%s", node_dead() ? death_.c_str() : death_text(kDaemonDied).c_str());
}

std::string Runtime::death_text(const char* why) const {
  return std::string(why) + " (session " + session_dir_ + ")";
}

Status Runtime::start(const ray_runtime_options& options, const StartAs* as, Runtime** out) {
  make_process_wide();
  watch_forks();
  load_faults_from_environment();
  std::unique_ptr<Runtime> rt(new Runtime);
  rt->fork_generation_ = fork_generation();
  Status s = rt->connect(options, as);
  if (!s.ok()) {
    if (rt->own_node_) rt->end_daemon();
    return s;
  }
  *out = rt.release();
  return Status();
}

Status Runtime::connect(const ray_runtime_options& options, const StartAs* as) {
  const char* worker_session = std::getenv(wire::kEnvSession);
  const char* spawn = std::getenv(wire::kEnvWorker);
  std::string address = view(options.address);
  if (address.empty() && std::getenv("LIBRAY_ADDRESS")) address = std::getenv("LIBRAY_ADDRESS");
  language_ = options.language;
  const char* lineage = std::getenv("LIBRAY_LINEAGE");
  journaled_ = !lineage || std::strcmp(lineage, "0") != 0;
  if (as) {
    of_relay_ = true;
    mode_ = as->stand_in ? RAY_MODE_WORKER : RAY_MODE_DRIVER;
    address = as->session;
    spawn_ = as->spawn;
  } else if (worker_session && spawn) {
    mode_ = RAY_MODE_WORKER;
    address = worker_session;
    spawn_ = std::strtoull(spawn, nullptr, 10);
    // A program that a task starts is no worker: it starts a node, or joins one, like any other.
    ::unsetenv(wire::kEnvWorker);
    offer_to_oom_killer();
    ::prctl(PR_SET_CHILD_SUBREAPER, 1);  // what its children leave behind stays below it, and ends with it
  }
  RAY_TRY(start_threads());
  if (address.empty()) {
    RAY_TRY(start_node(options));
  } else {
    auto session = session::open_session(address);
    if (!session.ok()) return session.status();
    session_dir_ = session->dir;
    token_ = session->token;
    session_lock_ = out_of_the_way(std::move(session->lock));
  }
  RAY_TRY(hello(options, as));
  RAY_FAULT("client.admitted");
  auto store = store::Client::connect(session_dir_ + "/" + wire::kStoreSocket, token_, process_);
  if (!store.ok()) return store.status();
  store_ = std::move(*store);
  if (mode_ == RAY_MODE_WORKER) worker_ = std::make_unique<WorkerSide>(this);
  if (as && as->stand_in) worker_->stand_in_for(as->stand_in, as->window);
  on_wait(nullptr);
  log(kLogDebug, "runtime", "started", "%s %u of node %s joined session %s",
      mode_ == RAY_MODE_WORKER ? "worker" : "driver", process_, node_.hex().c_str(),
      session_dir_.c_str());
  threads_go_.store(kGo);
  threads_go_.notify_all();
  return Status();
}

// Before the node knows of this process: one that cannot have them has begun nothing, and another
// is tried.
Status Runtime::start_threads() {
  auto when_joined = [this] {
    threads_go_.wait(kWait);
    return threads_go_.load() == kGo;
  };
  RAY_TRY(start_thread(&receiver_, "a thread of libray", [this, when_joined] {
    if (when_joined()) receive_loop();
  }));
  return start_thread(&pulse_, "a thread of libray", [this, when_joined] {
    if (when_joined()) pulse_loop();
    pulse_ended_.store(true, std::memory_order_release);
  });
}

Status Runtime::start_node(const ray_runtime_options& o) {
  auto base = session::session_base(view(o.session_dir));
  if (!base.ok()) return base.status();
  auto session = session::create_session(*base);
  if (!session.ok()) return session.status();
  session_dir_ = session->dir;
  token_ = session->token;
  session_lock_ = out_of_the_way(std::move(session->lock));
  auto rayd = session::find_rayd();
  if (!rayd.ok()) return rayd.status();
  int pipe_fds[2];
  if (::pipe2(pipe_fds, O_CLOEXEC) != 0) return errno_error(RAY_OUT_OF_MEMORY, "cannot make a pipe");
  // A program without standard descriptors: theirs are the child's log.
  Fd read_end = out_of_the_way(Fd(pipe_fds[0])), write_end = out_of_the_way(Fd(pipe_fds[1]));
  std::string log = session_dir_ + "/logs/rayd.log";
  double cpus = o.num_cpus > 0 ? o.num_cpus : usable_cpus();
  uint64_t store_bytes = o.store_bytes ? o.store_bytes : default_store_bytes();
  std::vector<std::string> args = {*rayd,
                                   "node",
                                   "--session",
                                   session_dir_,
                                   "--parent-pid",
                                   std::to_string(getpid()),
                                   "--ready-fd",
                                   "3",
                                   "--num-cpus",
                                   strprintf("%.4f", cpus),
                                   "--resources-msgpack",
                                   to_hex(o.resources_msgpack.data, o.resources_msgpack.size),
                                   "--store-bytes",
                                   std::to_string(store_bytes),
                                   "--spill-bytes",
                                   std::to_string(o.spill_bytes),
                                   "--gcs-shards",
                                   std::to_string(o.gcs_shards ? o.gcs_shards : 2),
                                   "--log",
                                   log};
  RAY_TRY(spawn_daemon(args, log, write_end.get(), &daemon_pid_));
  daemon_pidfd_ = out_of_the_way(Fd(pidfd_open(daemon_pid_)));
  write_end.reset();
  own_node_ = true;
  return await_ready(read_end.get(), daemon_pidfd_.get(), log);
}

static std::string hello_options(const ray_runtime_options& o, bool worker) {
  std::string s;
  wire::Writer w(&s);
  if (worker) {
    w.map(0);
    return s;
  }
  std::vector<std::string> argv;
  if (o.worker_argv) {
    for (auto p = o.worker_argv; *p; ++p) argv.push_back(*p);
  } else if (Registry::instance().used()) {
    char exe[4096];
    ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
    if (n > 0) argv.push_back(std::string(exe, static_cast<size_t>(n)));
  }
  char cwd[4096];
  if (!getcwd(cwd, sizeof cwd)) cwd[0] = 0;
  w.map(5).str("worker_argv").array(static_cast<uint32_t>(argv.size()));
  for (auto& a : argv) w.str(a);
  w.str("cwd").str(cwd).str("job_name").str(view(o.job_name)).str("ns").str(view(o.ns));
  uint32_t n_env = 0;
  std::string env;
  wire::Writer we(&env);
  for (char** e = environ; *e; ++e) {
    std::string_view entry(*e);
    size_t eq = entry.find('=');
    if (eq == std::string_view::npos || entry.substr(0, eq) == session::kTokenVariable) continue;
    we.str(entry.substr(0, eq)).str(entry.substr(eq + 1));
    ++n_env;
  }
  w.str("env").map(n_env);
  s += env;
  return s;
}

constexpr size_t kHelloDatagram = 64 << 10;  // larger ones travel in a memfd: sockets have their own limits

static Result<Fd> memfd_of(const char* name, const std::string& content) {
  if (content.size() > wire::kHelloMax)
    return error(RAY_INVALID_ARGUMENT, "the environment and the command for workers have %zu bytes; %u are possible",
                 content.size(), wire::kHelloMax);
  auto fd = create_memfd(name, 0);
  if (!fd.ok()) return fd.status();
  for (size_t done = 0; done < content.size();) {
    ssize_t n = ::write(fd->get(), content.data() + done, content.size() - done);
    if (n <= 0) return errno_error(RAY_OUT_OF_MEMORY, "cannot write %zu bytes of shared memory", content.size());
    done += static_cast<size_t>(n);
  }
  return fd;
}

static Status await_welcome(int socket, const std::string& path) {
  constexpr int kWelcomeMs = 60000;
  pollfd answer{socket, POLLIN, 0};
  int n;
  do n = ::poll(&answer, 1, kWelcomeMs);
  while (n < 0 && errno == EINTR);
  if (n != 0) return Status();
  return error(RAY_UNAVAILABLE, "the node daemon at %s does not answer: is it stopped (`kill -CONT`)?", path.c_str());
}

// The daemon knows a caller by its number, which a dead process may have had: an answer to that one is nobody's here.
static uint64_t first_call() {
  const Id random = random_id();
  uint64_t first;
  std::memcpy(&first, random.b, sizeof first);
  return (first >> 1) + 1;
}

Status Runtime::hello(const ray_runtime_options& options, const StartAs* as) {
  RAY_FAULT("client.hello");
  std::string path = session_dir_ + "/" + wire::kNodeSocket;
  auto socket = connect_own(path, SOCK_SEQPACKET);
  if (!socket.ok()) return error(socket.status().code(), "the node daemon: %s", socket.status().message().c_str());
  socket_ = out_of_the_way(std::move(*socket));
  bool worker = mode_ == RAY_MODE_WORKER;
  std::string extra = as && !worker ? as->hello : hello_options(options, worker);
  wire::Hello h{wire::kMagic,
                wire::kProtocolVersion,
                {},
                static_cast<uint32_t>(getpid()),
                language_,
                mode_,
                static_cast<uint32_t>(extra.size()),
                0};
  std::memcpy(h.token, token_.data(), std::min(sizeof h.token, token_.size()));
  h.spawn = spawn_;
  std::string message(reinterpret_cast<char*>(&h), sizeof h);
  Fd file;  // of what a datagram has no room for
  if (message.size() + extra.size() <= kHelloDatagram) {
    message += extra;
  } else {
    auto made = memfd_of("ray-hello", extra);
    if (!made.ok()) return made.status();
    file = std::move(*made);
  }
  int fds_sent[1] = {file.get()};
  // A daemon that refused us at once has closed its end: its reason can be read all the same.
  Status sent = send_with_fds(socket_.get(), message.data(), message.size(), fds_sent, file.valid() ? 1 : 0);
  std::vector<uint8_t> buffer(wire::kDatagramMax);
  std::vector<Fd> fds;
  RAY_TRY(await_welcome(socket_.get(), path));
  auto got = recv_with_fds(socket_.get(), buffer.data(), buffer.size(), &fds);
  if (!got.ok()) return got.status();
  wire::Welcome w;
  if (*got < sizeof w && !sent.ok()) return sent;
  if (*got < sizeof w)
    return error(RAY_UNAVAILABLE, "the node daemon at %s refused us", path.c_str());
  std::memcpy(&w, buffer.data(), sizeof w);
  std::string text(reinterpret_cast<char*>(buffer.data()) + sizeof w,
                   std::min<size_t>(w.size, *got - sizeof w));
  if (w.magic != wire::kMagic || w.version != wire::kProtocolVersion)
    return error(RAY_UNSUPPORTED, "the node daemon speaks another version of the protocol");
  if (w.code != RAY_OK) return Status(w.code, text);
  if (fds.size() < 3) return error(RAY_UNAVAILABLE, "the node daemon sent no shared memory");
  process_ = w.process;
  next_call_ = first_call();
  node_ = w.node;
  job_ = w.job;
  ns_ = text;
  daemon_pid_ = w.daemon_pid;
  root_.id = w.root;
  root_.origin = origin_of(root_.id);
  return map_memory(&fds);
}

// What came with the welcome: the page of the node, our channel, the daemon's doorbell.
Status Runtime::map_memory(std::vector<Fd>* of_welcome) {
  std::vector<Fd>& fds = *of_welcome;
  auto page = map_shared(fds[0].get(), sizeof(wire::NodePage), true);
  if (!page.ok()) return page.status();
  auto channel = map_shared(fds[1].get(), wire::kChannelBytes, true);
  if (!channel.ok()) return channel.status();
  page_map_ = std::move(*page);
  channel_map_ = std::move(*channel);
  page_map_.keep_from_children();
  channel_map_.keep_from_children();
  daemon_event_ = out_of_the_way(std::move(fds[2]));
  page_ = reinterpret_cast<wire::NodePage*>(page_map_.data());
  wakes_.attach(page_, process_);
  channel_ = reinterpret_cast<wire::ChannelHeader*>(channel_map_.data());
  up_ring_ = RingProducer(&channel_->up, channel_map_.data() + wire::kUpOffset, wire::kUpRingBytes);
  lineage_ring_ = RingProducer(&channel_->lineage, channel_map_.data() + wire::kLineageOffset,
                               wire::kLineageRingBytes);
  return Status();
}

// ---- up ring
// ---------------------------------------------------------------------------

void Runtime::wake_daemon(std::atomic<uint32_t>* armed) {
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (__builtin_expect(armed->load(std::memory_order_relaxed) == 0, 1)) return;
  armed->store(0, std::memory_order_relaxed);
  ring_daemon();
}

void Runtime::await_room(std::atomic<uint32_t>* armed, uint32_t naps) {
  armed->store(1, std::memory_order_relaxed);  // make sure that it is woken
  wake_daemon(armed);
  timespec ts{0, 50000};
  nanosleep(&ts, nullptr);
  if (naps % 16384 == 0) warn_stopped_daemon();  // after a second or two
}

bool Runtime::write_up(uint16_t type, const void* a, size_t a_size, const void* b, size_t b_size, uint16_t flags) {
  std::lock_guard lock(up_mutex_);
  void* at = up_ring_.reserve(type, static_cast<uint32_t>(a_size + b_size), flags);
  if (!at) return false;
  if (a_size) std::memcpy(at, a, a_size);
  if (b_size) std::memcpy(static_cast<uint8_t*>(at) + a_size, b, b_size);
  up_ring_.publish();
  return true;
}

// Whoever finds no room waits without the spin lock, and who comes meanwhile waits behind: a long record would never
// find enough room if short ones took what there is.
void Runtime::up_bytes(uint16_t type, const void* a, size_t a_size, const void* b, size_t b_size, uint16_t flags) {
  if (__builtin_expect(room_waits_.load(std::memory_order_relaxed) != 0, 0) ||
      !write_up(type, a, a_size, b, b_size, flags)) {
    room_waits_.fetch_add(1, std::memory_order_relaxed);
    std::lock_guard turn(room_mutex_);
    for (uint32_t naps = 0; !write_up(type, a, a_size, b, b_size, flags);) {
      const bool never = a_size + b_size > up_ring_.max_payload();
      if (never) too_large("the node daemon", a_size + b_size);
      if (never || nobody_reads(++naps)) break;
      await_room(&page_->daemon_armed, naps);
    }
    room_waits_.fetch_sub(1, std::memory_order_relaxed);
  }
  wake_daemon(&page_->daemon_armed);
}

// A wait for room in the ring would never end.
void Runtime::too_large(const char* whom, size_t size) {
  log(kLogError, "runtime", "record-too-large",
      "a record of %zu bytes for %s is dropped: names and other texts of a task "
      "or an actor are too long",
      size, whom);
}

// ---- threads
// ----------------------------------------------------------------------------------------

void Runtime::receive_loop() {
  pthread_setname_np(pthread_self(), "ray-receiver");
  enter_callback(this);  // it calls log handlers and what interrupts tasks
  std::vector<uint8_t> buffer(wire::kDatagramMax);
  for (;;) {
    std::vector<Fd> fds;
    bool lost = false;  // on_down sees what is missing
    auto got = recv_with_fds(socket_.get(), buffer.data(), buffer.size(), &fds, &lost);
    if (stopped_) return;
    if (!got.ok() && got.status().code() == RAY_TIMED_OUT) continue;
    if (!got.ok() || *got == 0) {
      bool closed = !got.ok() && ::fcntl(socket_.get(), F_GETFD) < 0;
      RAY_FAULT("client.node_lost");  // known to whoever asks the daemon, not yet told to all
      // Also while it shuts down: the daemon's answer to that would be waited for in vain.
      node_lost(closed ? "this process closed libray's connection to the node daemon" : kDaemonDied);
      return;
    }
    on_datagram(buffer.data(), *got, &fds);
  }
}

// Steps in where no caller waits. See runtime.h.
void Runtime::pulse_loop() {
  pthread_setname_np(pthread_self(), "ray-pulse");
  enter_callback(this);
  auto* bell_word = bell(process_);
  auto* urgent = urgent_bell(process_);
  uint64_t seen = 0;
  bool feeds = false;  // tasks wait for room in rings, and nobody but this thread drains any
  while (!stopped_) {
    bool on_bell;
    int64_t nap;
    {
      std::lock_guard lock(mutex_);
      on_bell = needs_pulse_ > 0 || (worker_ && worker_->wants_event());
    }
    const bool lazily = feeds && !on_bell;
    auto* word = on_bell || lazily ? bell_word : urgent;
    pulse_on_bell_.store(on_bell, std::memory_order_relaxed);
    const uint32_t how = lazily ? arm_lazily(word) : arm(word);
    if (!on_bell && worker_ && worker_->wants_event()) continue;  // since the look above
    {
      std::lock_guard lock(mutex_);
      // Callers that drain make our turn superfluous, unless somebody depends on us alone.
      const bool alone = progress_count_ == seen;
      if (on_bell || urgent_work_.exchange(false) || alone) progress();
      seen = progress_count_;
      tick();
      feeds = feeding_ && alone && sleepers_ == 0;
      nap = left_marked_ ? kMarkedNs : ticking() ? 5000000 : 1000000000;
    }
    after_unlock(0);  // what has to wait for room waits beside the rest
    run_callbacks();
    const bool work = worker_ && worker_->on_pulse();
    if (worker_ && !of_relay_) reap_strays();
    if (stopped_) return;
    if (!callbacks_empty()) continue;
    if (feeds && !lazily && !on_bell) continue;
    if (on_bell && !work) wakes_.pass_on();  // a loop that has work keeps the place
    sleep_armed(word, how, lazily ? std::min(nap, kLazySleepNs) : nap);
    if (word->load(std::memory_order_relaxed) == 0) urgent_work_ = true;
  }
}

bool Runtime::ticking() const { return n_pending_ > 0 || held_leases_ > 0 || !later_.empty(); }

// There is work for the worker of this link: now, or when it is its turn. mutex_ held.
void Runtime::wake(ClientLink* link) {
  if (!wakes_.wake(link->peer)) return;
  ++marks_;
  if (left_marked_) return;
  left_marked_ = true;
  marked_look_ns_ = steady_ns() + kMarkedNs;
  passed_seen_ = wakes_.passed();
  ring_all(process_);  // pulse takes short naps from now on
}

// Workers that were left asleep are woken by those that run dry; but these may run for long, or block. Where
// few places are passed on, waking costs little beside the tasks. mutex_ held.
void Runtime::look_after_marked(int64_t now) {
  if (!left_marked_ || now < marked_look_ns_) return;
  marked_look_ns_ = now + kMarkedNs;
  const uint32_t passed = wakes_.passed();
  const bool stuck = passed - passed_seen_ < 4 * wakes_.n_places();
  passed_seen_ = passed;
  if (std::exchange(marks_, 0) == 0) wakes_.step_aside();
  bool any = false;
  for (ClientLink* link : busy_links_) {
    if (!wakes_.marked(link->peer)) continue;
    if (stuck)
      wakes_.wake_now(link->peer);
    else
      any = true;
  }
  left_marked_ = any;
}

// Every few milliseconds while there is work: give back idle leases, unstick stalled ones.
void Runtime::tick() {
  int64_t now = steady_ns();
  look_after_marked(now);
  if (n_pending_) look_for_stopped(now);
  if (!later_.empty() && now >= later_at_ns_) callbacks_.push_back([this] { do_later(); });
  if (have_kept_ && now - kept_ns_ > kKeptNs) callbacks_.push_back([this] { release_kept(); });
  if (std::exchange(cancels_wait_, false))
    for (auto& [id, link] : links_)
      if (!link->cancels.empty()) flush_cancels(link.get());
  if (!forced_.empty()) press_on(now);
  feeding_ = std::any_of(busy_links_.begin(), busy_links_.end(),
                         [](ClientLink* l) { return l->actor && !l->actor->queue.empty(); });
  for (size_t at = 0; at < active_shapes_.size();) {
    Shape* s = active_shapes_[at];
    bool stalled = false, spare = s->pending == 0 && s->want_sent > 0 && !s->leases.empty();
    for (size_t i = 0; i < s->leases.size();) {
      Lease* l = s->leases[i].get();
      bool idle = l->link->inflight.empty();
      if (idle && s->backlog.empty() && l->idle_since && now - l->idle_since > kLeaseIdleNs) {
        return_lease(l);  // removes it from s->leases
        continue;
      }
      spare &= idle && l->idle_since && now - l->idle_since > kLeaseSpareNs;
      l->slow = !idle && now - l->link->last_result_ns > kStallNs;
      if (l->slow && l->link->inflight.size >= 2) {
        stalled = true;
        for (PendingTask* t = l->link->inflight.head; t; t = t->next) t->function->run_ns = -1;
        ask_give_back(l->link);
      }
      ++i;
    }
    if (stalled || !s->backlog.empty()) pump(s);
    feeding_ |= !s->backlog.empty() && !s->leases.empty();
    withdraw_want(s);
    if (spare && s->want_sent > 0) send_want(s, 0);  // kept for a next task, unless somebody waits for it
    s->active = s->pending > 0 || !s->leases.empty() || s->want_sent > 0;
    if (s->active) {
      ++at;
    } else {
      active_shapes_[at] = active_shapes_.back();
      active_shapes_.pop_back();
    }
  }
}

// A task waits for room in a ring. Whoever waits for results makes it; if nobody does, pulse: without a caller in
// get, tasks would trickle. mutex_ held.
void Runtime::feed() {
  if (feeding_) return;
  feeding_ = true;
  ray::ring(urgent_bell(process_));
}

// The caller has just made a reason for pulse to sleep on the doorbell (an atomic, not needs_pulse_).
void Runtime::watch_bell() {
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (!pulse_on_bell_.load(std::memory_order_relaxed)) ray::ring(urgent_bell(process_));
}

void Runtime::poke() {
  ray::ring(bell(process_));
  ray::ring(urgent_bell(process_));
}

void Runtime::wake_calls() {
  std::lock_guard lock(calls_mutex_);
  calls_cv_.notify_all();
}

// A task was cancelled: whoever waits looks whether it was his.
void Runtime::wake_waiters() {
  poke();
  wake_calls();
  std::lock_guard lock(mutex_);
  for (Queue* q : queues_) q->wake_pollers();
}

namespace {
thread_local const Runtime* t_calls_back = nullptr;  // whose thread this is, or whose callback runs on it
}

bool Runtime::in_callback() const { return t_calls_back == this; }
const Runtime* Runtime::enter_callback(const Runtime* rt) { return std::exchange(t_calls_back, rt); }

void Runtime::run_callbacks() {
  const Runtime* outer = enter_callback(this);
  run_each_callback();
  enter_callback(outer);
}

// A line of the log whose handler may call us. mutex_ held.
void Runtime::log_later(LogLevel level, const char* id, std::string text) {
  callbacks_.push_back([level, id, text = std::move(text)] { log(level, "runtime", id, "%s", text.c_str()); });
  ring_all(process_);
}

void Runtime::run_each_callback() {
  for (;;) {
    std::function<void()> f;
    {
      std::lock_guard lock(mutex_);
      if (callbacks_.empty()) return;
      f = std::move(callbacks_.front());
      callbacks_.pop_front();
    }
    f();
  }
}

bool Runtime::callbacks_empty() {
  std::lock_guard lock(mutex_);
  return callbacks_.empty();
}

// ---- the end
// ----------------------------------------------------------------------------------------

void Runtime::node_lost(const char* why) {
  no_reader_.store(true, std::memory_order_release);  // who has mutex_ may wait for the daemon to read
  {
    std::lock_guard lock(mutex_);
    if (node_dead_) return;
    death_ = death_text(ended_for_.empty() ? why : ("the node ended: " + ended_for_).c_str());
    progress();  // results that are in the rings still count
    node_dead_.store(true, std::memory_order_release);
    fail_everything(RAY_NODE_DIED, death_);
  }
  wake_calls();
  if (own_node_) session::remove_sockets(session_dir_);
  if (worker_) worker_->stop();
  after_unlock();
  poke();
}

// Of what begins after everything has failed. mutex_ held.
ErrorBox* Runtime::over_error() const {
  return node_dead() ? make_error(RAY_NODE_DIED, death_) : make_error(RAY_CANCELLED, kWasShutDown);
}

void Runtime::fail_everything(ray_code code, const std::string& why) {
  ErrorBox* e = make_error(code, why);
  for (auto& [id, link] : links_)
    while (link->inflight.head) {
      PendingTask* t = link->inflight.head;
      unlink(t);
      fail_task(t, e);
    }
  for (Shape* s : shape_list_)
    while (s->backlog.head) {
      PendingTask* t = s->backlog.head;
      s->backlog.remove(t);
      fail_task(t, e);
    }
  for (auto& [id, a] : actors_) fail_actor_tasks(a.get(), code, e);
  std::vector<Object*> open;
  table_.for_each([&open](Object* o) {
    if (!o->done() && try_retain(o)) open.push_back(o);
  });
  for (auto& [token, n] : notifications_)
    if (n.object && !n.object->done()) open.push_back(retain(n.object));
  for (Object* o : open) {
    if (!o->done()) complete_error(o, e);
    deferred_release_.push_back(o);
  }
  std::vector<PendingTask*> waiting;
  for (PendingTask* t = waiting_tasks_.head; t; t = t->next)
    if (!t->shrinking) waiting.push_back(t);
  for (PendingTask* t : waiting) {
    detach(t);
    fail_task(t, e);
  }
  e->release();
}

// Nothing runs, and what others wait for has been told to the daemon. mutex_ held.
bool Runtime::drained() {
  return n_pending_ == 0 && to_publish_.empty() && publishing_ == 0 && later_.empty();
}

// And no actor that was made here lives by a handle from here: others may call it by its name. Handles that came from
// elsewhere do not count, or workers that keep one would become ever more. mutex_ held.
bool Runtime::may_leave() {
  return drained() && std::none_of(actors_.begin(), actors_.end(), [](const auto& a) {
    return a.second->made_here && a.second->handles > 0 && a.second->state != wire::kActorDead;
  });
}

// What drained() or may_leave() say may have changed: whoever waits for the end looks now.
void Runtime::nearer_to_end() {
  if (stopping_ || (worker_ && worker_->departs())) poke();
}

Status Runtime::shutdown(int64_t drain_timeout_ns) {
  if (foreign())
    return error(RAY_WRONG_STATE, "this runtime belongs to the parent process");
  if (!stopping_ && in_callback())
    return error(RAY_WRONG_STATE, "a callback cannot shut its runtime down, which would wait for the callback's end");
  if (!stopping_ && worker_ && worker_->runs(context()))
    return error(RAY_WRONG_STATE, "a task cannot shut down the runtime that it runs in");
  if (stopping_.exchange(true)) return Status();
  const int64_t now = steady_ns();
  if (drain_timeout_ns >= 0) leave_at_ns_ = drain_timeout_ns > INT64_MAX - now ? INT64_MAX : now + drain_timeout_ns;
  if (worker_ && drain_timeout_ns != 0) worker_->retire();
  if (!node_dead() && drain_timeout_ns != 0)
    wait_until([this] { return drained(); }, drain_timeout_ns);
  {
    std::lock_guard lock(mutex_);
    if (!node_dead()) progress();
    closed_ = true;
    fail_everything(RAY_CANCELLED, kWasShutDown);
  }
  after_unlock();
  run_callbacks();
  close_queues();
  release_kept();
  if (!node_dead()) {
    if (own_node_ && !kill_stopped_daemon()) {
      Status s = request(wire::kOpShutdown, std::string("\x90", 1), nullptr, 20000000000);
      if (!s.ok()) log(kLogDebug, "runtime", "shutdown", "%s", s.message().c_str());
    }
    up_bytes(wire::kUpGoodbye, nullptr, 0, nullptr, 0);
  }
  stop_threads();
  do_later();  // what the pulse thread left
  run_callbacks();
  log(kLogDebug, "runtime", "stopped", "left session %s", session_dir_.c_str());
  if (own_node_) reap_daemon(20000000000);
  let_go();
  return Status();
}

// For who cannot wait: a callback gave up the last handle of the runtime.
Status Runtime::shutdown_aside() {
  std::thread thread;
  RAY_TRY(start_thread(&thread, "a thread of libray", [this] { (void)shutdown(0); }));
  thread.detach();
  return Status();
}

// Nothing shared stays mapped or open; late calls on child handles find zeroes.
void Runtime::let_go() {
  std::shared_ptr<store::Client> store;  // ends here, unless somebody is still inside
  {
    std::lock_guard lock(mutex_);
    std::lock_guard last(store_mutex_);
    store.swap(store_);
    page_map_.detach();
    channel_map_.detach();
    for (auto& [id, link] : links_) link->map.detach();
  }
  if (worker_) worker_->let_go();
  store.reset();
  socket_.reset();
  daemon_event_.reset();
  session_lock_.reset();
  daemon_pidfd_.reset();
}

// The node is of no use without the driver that could not join it.
void Runtime::end_daemon() {
  int status;
  if (waitpid(daemon_pid_, &status, WNOHANG) == 0) {
    (void)pidfd_signal(daemon_pidfd_.get(), SIGTERM);
    reap_daemon(2000000000);
  } else {
    session::remove_sockets(session_dir_);
  }
}

void Runtime::reap_daemon(int64_t patience_ns) {
  // It ends by itself after the journal is written; if it hangs, it must not outlive us.
  int64_t deadline = steady_ns() + patience_ns;
  for (int64_t pause = 200000;; pause = std::min<int64_t>(pause * 2, 10000000)) {
    int status;
    int rc = waitpid(daemon_pid_, &status, WNOHANG);
    if (rc == daemon_pid_ || (rc < 0 && errno == ECHILD)) break;
    if (steady_ns() > deadline) {
      (void)pidfd_signal(daemon_pidfd_.get(), SIGKILL);
      waitpid(daemon_pid_, &status, 0);
      break;
    }
    timespec ts{0, static_cast<long>(pause)};
    nanosleep(&ts, nullptr);
  }
  session::remove_sockets(session_dir_);
}

void Runtime::stop_threads() {
  stopped_ = true;
  if (worker_) worker_->stop_reader();
  ::shutdown(socket_.get(), SHUT_RDWR);
  poke();
  wake_calls();
  if (receiver_.joinable()) receiver_.join();
  if (!pulse_.joinable()) return;
  while (!pulse_ended_.load(std::memory_order_acquire)) {  // it may be about to sleep: ring until it is gone
    poke();
    timespec ts{0, 100000};
    nanosleep(&ts, nullptr);
  }
  pulse_.join();
}

void Runtime::fill_context(ray_context* out) const {
  TaskContext* c = const_cast<Runtime*>(this)->context();
  std::memcpy(out->job.b, job_.b, kIdSize);
  std::memcpy(out->node.b, node_.b, kIdSize);
  const bool outside = c == outside_.load(std::memory_order_relaxed) && mode_ == RAY_MODE_WORKER;
  const TaskId task = outside ? TaskId{} : c->id;  // a worker's root is no task
  std::memcpy(out->task.b, task.b, kIdSize);
  std::memcpy(out->actor.b, c->actor.b, kIdSize);
  out->pid = static_cast<uint32_t>(getpid());
  out->worker = process_;
}

namespace {
struct ThreadContext {
  const Runtime* runtime = nullptr;
  TaskContext* context = nullptr;
  uint32_t turn = 0;
};
thread_local ThreadContext t_context;
}  // namespace

bool Runtime::cancelled_here() {
  TaskContext* c = worker_ ? context() : nullptr;
  return c && c->cancelled && c->cancelled->load(std::memory_order_relaxed) && !worker_->has_interrupt();
}

Status Runtime::waiter_cancelled() const {
  return error(RAY_CANCELLED, "the task that waits was cancelled");
}

TaskContext* Runtime::context() {
  // A call that ended on another thread leaves this one outside.
  TaskContext* c = t_context.context;
  if (t_context.runtime == this && c && c->turn.load(std::memory_order_relaxed) == t_context.turn) return c;
  return outside_.load(std::memory_order_acquire);
}

void Runtime::set_context(TaskContext* c) {
  t_context = {this, c, c ? c->turn.load(std::memory_order_relaxed) : 0};
}

void Runtime::become_actor(const ActorId& actor, uint32_t incarnation) {
  actor_root_.id = actor_root(actor, incarnation);
  actor_root_.origin = origin_of(actor_root_.id);
  actor_root_.actor = actor;
  outside_.store(&actor_root_, std::memory_order_release);
}

Runtime::~Runtime() {
  if (threads_go_.load() == kGo) {
    if (receiver_.joinable() || pulse_.joinable()) stop_threads();
    return;
  }
  threads_go_.store(kNever);
  threads_go_.notify_all();
  if (receiver_.joinable()) receiver_.join();
  if (pulse_.joinable()) pulse_.join();
}

}  // namespace ray
