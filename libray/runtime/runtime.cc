// Start, join and stop of a runtime; its two threads; what it tells the daemon. See runtime.h.
#include "libray/runtime/runtime.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "libray/base/checks.h"
#include "libray/base/clock.h"
#include "libray/base/doorbell.h"
#include "libray/base/fault.h"
#include "libray/base/fork.h"
#include "libray/base/log.h"
#include "libray/base/thread.h"
#include "libray/session/session.h"
#include "libray/runtime/process_wide.h"
#include "libray/runtime/registry.h"
#include "libray/runtime/runtime_inl.h"
#include "libray/runtime/worker.h"
#include "libray/wire/msgpack.h"

extern char** environ;

namespace ray {
namespace {

// When the kernel has no memory left it ends a worker, whose work can be done again, and not the driver
// or the daemon. Processes that the worker starts inherit it.
void offer_to_oom_killer() {
  Fd fd(::open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC));
  if (fd.valid()) (void)!::write(fd.get(), "1000", 4);
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
  // The store is a part of the daemon, but a dying process closes one socket after the other.
  const auto client = objects_.store();
  return daemon_.hung_up(client && client->disconnected() ? 1000 : 0);
}

Status Runtime::store_lost(Status s) {
  if (!daemon_gone()) return s;
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
  rt->checks_ = wants_checks();
  Status s = rt->connect(options, as);
  if (!s.ok()) {
    if (rt->own_node_.started()) rt->own_node_.end();
    return s;
  }
  *out = rt.release();
  return Status();
}

Status Runtime::connect(const ray_runtime_options& options, const StartAs* as) {
  const char* worker_session = std::getenv(wire::kEnvSession);
  const char* spawn = std::getenv(wire::kEnvWorker);
  std::string address = view_string(options.address);
  if (address.empty() && std::getenv("LIBRAY_ADDRESS")) address = std::getenv("LIBRAY_ADDRESS");
  language_ = options.language;
  functions_.add_language(language_);
  actors_.set_language(language_);
  functions_.add_language(RAY_LANG_NATIVE);
  const char* lineage = std::getenv("LIBRAY_LINEAGE");
  daemon_.set_journaled(!lineage || std::strcmp(lineage, "0") != 0);
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
  auto store = store::Client::connect(session_dir_ + "/" + wire::kStoreSocket, token_, process());
  if (!store.ok()) return store.status();
  objects_.set_store(std::move(*store));
  if (mode_ == RAY_MODE_WORKER) worker_ = std::make_unique<WorkerSide>(this);
  if (as && as->stand_in) worker_->stand_in_for(as->stand_in, as->window);
  on_wait(nullptr);
  log(kLogDebug, "runtime", "started", "%s %u of node %s joined session %s",
      mode_ == RAY_MODE_WORKER ? "worker" : "driver", process(), node_.hex().c_str(),
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
    if (!when_joined()) return;
    pthread_setname_np(pthread_self(), "ray-receiver");
    Callbacks::enter(&callbacks_);  // it calls log handlers and what interrupts tasks
    daemon_.receive();
  }));
  return start_thread(&pulse_, "a thread of libray", [this, when_joined] {
    if (when_joined()) pulse_loop();
    pulse_ended_.store(true, std::memory_order_release);
  });
}

Status Runtime::start_node(const ray_runtime_options& o) {
  auto base = session::session_base(view_string(o.session_dir));
  if (!base.ok()) return base.status();
  auto session = session::create_session(*base);
  if (!session.ok()) return session.status();
  session_dir_ = session->dir;
  token_ = session->token;
  session_lock_ = out_of_the_way(std::move(session->lock));
  return own_node_.start(o, session_dir_);
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
  w.str("cwd").str(cwd).str("job_name").str(view_string(o.job_name)).str("ns").str(view_string(o.ns));
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

Status Runtime::hello(const ray_runtime_options& options, const StartAs* as) {
  RAY_FAULT("client.hello");
  const bool worker = mode_ == RAY_MODE_WORKER;
  const std::string extra = as && !worker ? as->hello : hello_options(options, worker);
  wire::Hello h{wire::kMagic,
                wire::kProtocolVersion,
                {},
                static_cast<uint32_t>(getpid()),
                language_,
                mode_,
                static_cast<uint32_t>(extra.size()),
                spawn_};
  std::memcpy(h.token, token_.data(), std::min(sizeof h.token, token_.size()));
  wire::Welcome w;
  RAY_TRY(daemon_.connect(session_dir_, h, extra, &w, &ns_));
  bells_.attach(daemon_.page(), w.process);
  wakes_.attach(daemon_.page(), w.process);
  node_ = w.node;
  job_ = w.job;
  root_.id = w.root;
  root_.origin = origin_of(root_.id);
  return Status();
}

// ---- threads
// ----------------------------------------------------------------------------------------

// Steps in where no caller waits. See runtime.h.
void Runtime::pulse_loop() {
  pthread_setname_np(pthread_self(), "ray-pulse");
  Callbacks::enter(&callbacks_);
  auto* bell_word = bells_.own();
  auto* urgent = bells_.own_urgent();
  uint64_t seen = 0;
  bool feeds = false;  // tasks wait for room in rings, and nobody but this thread drains any
  while (!stopped_) {
    bool on_bell;
    int64_t nap;
    {
      std::lock_guard lock(mutex_);
      on_bell = pulse_needed() || (worker_ && worker_->wants_event());
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
    callbacks_.run();
    const bool work = worker_ && worker_->on_pulse();
    if (worker_ && !of_relay_) reap_strays();
    if (stopped_) return;
    if (!callbacks_.empty()) continue;
    if (feeds && !lazily && !on_bell) continue;
    if (on_bell && !work) wakes_.pass_on();  // a loop that has work keeps the place
    sleep_armed(word, how, lazily ? std::min(nap, kLazySleepNs) : nap);
    if (word->load(std::memory_order_relaxed) == 0) urgent_work_ = true;
  }
}

bool Runtime::ticking() const { return n_pending_ > 0 || leases_.held() > 0 || !later_.empty(); }

// There is work for the worker of this link: now, or when it is its turn. mutex_ held.
void Runtime::wake(ClientLink* link) {
  if (!wakes_.wake(link->peer)) return;
  ++marks_;
  if (left_marked_) return;
  left_marked_ = true;
  marked_look_ns_ = steady_ns() + kMarkedNs;
  passed_seen_ = wakes_.passed();
  bells_.poke();  // pulse takes short naps from now on
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
  if (__builtin_expect(checks_, 0) && now >= check_at_) check_parts(now);
  look_after_marked(now);
  if (n_pending_) look_for_stopped(now);
  if (!later_.empty() && now >= later_at_ns_) callbacks_.add([this] { do_later(); });
  if (kept_.old(now)) callbacks_.add([this] { kept_.release(); });
  if (std::exchange(cancels_wait_, false))
    for (auto& [id, link] : links_)
      if (!link->cancels.empty()) flush_cancels(link.get());
  if (cancels_.presses()) press_on(now);
  feeding_ = std::any_of(busy_links_.begin(), busy_links_.end(),
                         [](ClientLink* l) { return l->actor && !l->actor->queue.empty(); });
  look_after_leases(now);
}

// A task waits for room in a ring. Whoever waits for results makes it; if nobody does, pulse: without a caller in
// get, tasks would trickle. mutex_ held.
void Runtime::feed() {
  if (feeding_) return;
  feeding_ = true;
  bells_.ring_pulse();
}

// The caller has just made a reason for pulse to sleep on the doorbell (an atomic, not needs_pulse_).
void Runtime::watch_bell() {
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (!pulse_on_bell_.load(std::memory_order_relaxed)) bells_.ring_pulse();
}

// A task was cancelled: whoever waits looks whether it was his.
void Runtime::wake_waiters() {
  bells_.poke();
  daemon_.wake_calls();
  std::lock_guard lock(mutex_);
  notifications_.wake_pollers();
}

void Runtime::function_release(Function* f) {
  if (foreign()) return;
  std::lock_guard lock(mutex_);
  functions_.drop(f);
}

bool Runtime::in_callback() const { return callbacks_.here(); }

// ---- the end

void Runtime::lost(bool closed_here) {
  const char* why = closed_here ? "this process closed libray's connection to the node daemon" : kDaemonDied;
  {
    std::lock_guard lock(mutex_);
    if (node_dead_) return;
    death_ = death_text(ended_for_.empty() ? why : ("the node ended: " + ended_for_).c_str());
    progress();  // results that are in the rings still count
    node_dead_.store(true, std::memory_order_release);
    fail_everything(RAY_NODE_DIED, death_);
  }
  daemon_.wake_calls();
  if (own_node_.started()) session::remove_sockets(session_dir_);
  if (worker_) worker_->stop();
  after_unlock();
  bells_.poke();
}

ErrorBox* Runtime::over() { return __builtin_expect(closed_ || node_dead(), 0) ? over_error() : nullptr; }

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
  for (auto& [id, a] : actors_.all()) fail_actor_tasks(a.get(), code, e);
  std::vector<Object*> open;
  objects_.for_each_known([&open](Object* o) {
    if (!o->done() && try_retain(o)) open.push_back(o);
  });
  notifications_.for_each([&open](const Notification& n) {
    if (n.object && !n.object->done()) open.push_back(retain(n.object));
  });
  for (Object* o : open) {
    if (!o->done()) complete_error(o, e);
    objects_.release_later(o);
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
  return n_pending_ == 0 && objects_.all_published() && later_.empty();
}

// And no actor is there by our handles alone. mutex_ held.
bool Runtime::may_leave() { return drained() && actors_.none_lives_by_us(); }

// What drained() or may_leave() say may have changed: whoever waits for the end looks now.
void Runtime::nearer_to_end() {
  if (stopping_ || (worker_ && worker_->departs())) bells_.poke();
}

// In builds and runs for tests: what the parts say of themselves, for a tenth of the time at most. mutex_ held.
void Runtime::check_parts(int64_t now) {
  std::string broken = functions_.check();
  if (broken.empty()) broken = notifications_.check();
  if (broken.empty()) broken = unread_errors_.check();
  if (broken.empty()) broken = objects_.check();
  if (broken.empty()) broken = actors_.check();
  if (broken.empty()) broken = leases_.check();
  check_at_ = steady_ns() + std::max<int64_t>(10 * (steady_ns() - now), 100'000'000);
  if (!broken.empty()) TaskKit::broken(broken.c_str());
}

Status Runtime::shutdown(int64_t drain_timeout_ns) {
  if (foreign())
    return error(RAY_WRONG_STATE, "this runtime belongs to the parent process");
  if (!stopping_ && in_callback())
    return error(RAY_WRONG_STATE, "a callback cannot shut its runtime down, which would wait for the callback's end");
  if (!stopping_ && worker_ && worker_->runs(context()))
    return error(RAY_WRONG_STATE, "a task cannot shut down the runtime that it runs in");
  if (stopping_.exchange(true)) return Status();
  unread_errors_.stop();
  const int64_t now = steady_ns();
  if (drain_timeout_ns >= 0) daemon_.leave_at(drain_timeout_ns > INT64_MAX - now ? INT64_MAX : now + drain_timeout_ns);
  if (worker_ && drain_timeout_ns != 0) worker_->retire();
  if (!node_dead() && drain_timeout_ns != 0)
    wait_until([this] { return drained(); }, drain_timeout_ns);
  {
    std::lock_guard lock(mutex_);
    if (!node_dead()) progress();
    if (checks_) check_parts(now);
    closed_ = true;
    fail_everything(RAY_CANCELLED, kWasShutDown);
  }
  after_unlock();
  callbacks_.run();
  {
    std::lock_guard lock(mutex_);
    notifications_.close_queues();
  }
  kept_.release();
  if (!node_dead()) {
    if (own_node_.started() && !own_node_.kill_if_stopped()) {
      Status s = daemon_.request(wire::kOpShutdown, std::string("\x90", 1), nullptr, 20000000000);
      if (!s.ok()) log(kLogDebug, "runtime", "shutdown", "%s", s.message().c_str());
    }
    daemon_.up_bytes(wire::kUpGoodbye, nullptr, 0, nullptr, 0);
  }
  stop_threads();
  do_later();  // what the pulse thread left
  callbacks_.run();
  log(kLogDebug, "runtime", "stopped", "left session %s", session_dir_.c_str());
  if (own_node_.started()) own_node_.reap(20000000000);
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
    store = objects_.take_store();
    daemon_.detach();
    for (auto& [id, link] : links_) link->map.detach();
  }
  if (worker_) worker_->let_go();
  store.reset();
  daemon_.close();
  session_lock_.reset();
  own_node_.close();
}

void Runtime::stop_threads() {
  stopped_ = true;
  objects_.stop();
  if (worker_) worker_->stop_reader();
  daemon_.stop();
  bells_.poke();
  if (receiver_.joinable()) receiver_.join();
  if (!pulse_.joinable()) return;
  while (!pulse_ended_.load(std::memory_order_acquire)) {  // it may be about to sleep: ring until it is gone
    bells_.poke();
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
  out->worker = process();
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
