// See node.h. Processes of the node: hello, up rings, links, death.
#include <fcntl.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "libray/base/clock.h"
#include "libray/base/doorbell.h"
#include "libray/base/fault.h"
#include "libray/base/log.h"
#include "libray/base/proc.h"
#include "libray/base/trust.h"
#include "libray/lineage/record.h"
#include "libray/node/demands.h"
#include "libray/wire/cursor.h"
#include "libray/node/node.h"
#include "libray/wire/msgpack.h"

namespace ray::node {
namespace {

constexpr size_t kMaxPending = 256;       // connections that have not said hello
constexpr size_t kMaxOutbox = 64u << 20;  // of one process before it is cut off, besides what it asked for
constexpr int64_t kExitGraceNs = 3'000'000'000;

template <class T>
bool read_record(const std::string& payload, T* out) {
  if (payload.size() < sizeof(T)) return false;
  std::memcpy(out, payload.data(), sizeof(T));
  return true;
}

Status malformed(const char* what) {
  return error(RAY_INVALID_ARGUMENT, "it wrote a malformed %s record", what);
}

// Compares without telling by its time how much was right.
bool same_token(const std::string& a, const char* b) {
  unsigned char diff = 0;
  for (size_t i = 0; i < a.size(); ++i) diff |= static_cast<unsigned char>(a[i] ^ b[i]);
  return diff == 0;
}

}  // namespace

Node::Process* Node::process(uint32_t index) {
  return index < processes_.size() ? processes_[index].get() : nullptr;
}

// A dead process holds nothing, and of one that is being buried the counts are dropped: what other processes' rings, which
// are read meanwhile, still say of it came too late. Until then it counts, however close to its end: what it gives back was held.
bool Node::may_hold(uint32_t index) {
  const Process* p = process(index);
  return p && !p->buried;
}

void Node::send(Process* p, uint16_t type, const void* head, size_t size, const void* tail,
                size_t tail_size, uint16_t flags, std::shared_ptr<Fd> fd) {
  if (!p || p->closing) return;
  p->out.add(type, head, size, tail, tail_size, flags, std::move(fd));
  dirty_.insert(p->index);
  if (p->out.bytes() - p->out.answers() > kMaxOutbox) cut_off(p, "it does not read what it is sent");
}

// A process that may have been about to be woken by one that died: its words may say that it was.
void Node::wake_process(uint32_t index) {
  if (!page_ || index >= wire::kMaxProcesses) return;
  for (auto* word : {&page_->bells[index].armed, &page_->bells[index].urgent}) {
    word->store(kAwake);
    futex(word, FUTEX_WAKE, INT_MAX, nullptr);
  }
}

// ---- hello
// -----------------------------------------------------------------------------------------

void Node::accept_all() {
  while (listen_.valid()) {
    Fd fd(::accept4(listen_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!fd.valid()) {
      if (errno == EMFILE || errno == ENFILE) refuse_without_descriptors();
      return;
    }
    ucred peer;
    if (!is_same_user(fd.get(), &peer)) {  // before it is read from
      Status s = error(RAY_INVALID_ARGUMENT, "user %u is not the user of this session", peer.uid);
      refuse(fd.get(), s);
      log(kLogWarning, "node", "refused", "process %d was refused: %s", peer.pid, s.message().c_str());
      continue;
    }
    if (pending_.size() >= kMaxPending) pending_.erase(pending_.begin());
    uint64_t id = next_pending_++;
    if (next_pending_ > 0xFFFFFFFFu) next_pending_ = 1;
    if (!watch(fd.get(), kPendingSocket, static_cast<uint32_t>(id), EPOLLIN).ok()) continue;
    pending_[id] = {id, std::move(fd)};
  }
}

void Node::on_hello(uint64_t pending) {
  auto it = pending_.find(pending);
  if (it == pending_.end()) return;
  std::string datagram(wire::kDatagramMax, '\0');
  std::vector<Fd> fds;
  auto n = recv_with_fds(it->second.socket.get(), datagram.data(), datagram.size(), &fds);
  if (!n.ok() && n.status().code() == RAY_TIMED_OUT) return;
  Fd socket = std::move(it->second.socket);
  pending_.erase(it);
  unwatch(socket.get());
  if (!n.ok() || *n == 0) return;
  datagram.resize(*n);
  Status s = admit(std::move(socket), datagram, fds);
  if (s.ok()) return;
  log(kLogWarning, "node", "refused", "a process was refused: %s", s.message().c_str());
}

void Node::refuse(int fd, const Status& s) { answer_hello(fd, s, s.message()); }

void Node::answer_hello(int fd, const Status& s, const std::string& text) {
  wire::Welcome w{};
  w.magic = wire::kMagic;
  w.version = wire::kProtocolVersion;
  w.code = s.code();
  w.size = static_cast<uint32_t>(text.size());
  std::string datagram(reinterpret_cast<const char*>(&w), sizeof w);
  datagram += text;
  (void)send_with_fds(fd, datagram.data(), datagram.size(), nullptr, 0);
}

// What follows the hello: in the datagram, or, where it is larger (a long environment), in a memfd that came with it. No
// file of another kind is read from: that could wait.
static Status hello_body(const wire::Hello& hello, const std::string& datagram, const std::vector<Fd>& fds,
                         std::string* out) {
  *out = datagram.substr(sizeof hello);
  if (fds.empty() && hello.size == out->size()) return Status();
  if (fds.size() != 1 || !out->empty() || hello.size > wire::kHelloMax || ::fcntl(fds[0].get(), F_GET_SEALS) < 0)
    return error(RAY_INVALID_ARGUMENT, "its hello is malformed");
  out->resize(hello.size);
  for (size_t done = 0; done < out->size();) {
    ssize_t n = ::pread(fds[0].get(), out->data() + done, out->size() - done, static_cast<off_t>(done));
    if (n <= 0) return error(RAY_INVALID_ARGUMENT, "its hello is shorter than it says");
    done += static_cast<size_t>(n);
  }
  return Status();
}

Status Node::admit(Fd socket, const std::string& datagram, const std::vector<Fd>& fds) {
  auto refused = [&socket](Status s) {
    refuse(socket.get(), s);
    return s;
  };
  wire::Hello hello;
  if (!read_record(datagram, &hello) || hello.magic != wire::kMagic)
    return refused(error(RAY_INVALID_ARGUMENT, "its hello is malformed"));
  ucred peer;
  if (!is_same_user(socket.get(), &peer))
    return refused(
        error(RAY_INVALID_ARGUMENT, "user %u is not the user of this session", peer.uid));
  if (!same_token(session_.token, hello.token))
    return refused(
        error(RAY_INVALID_ARGUMENT, "the token of process %d is not this session's", peer.pid));
  if (hello.version != wire::kProtocolVersion)
    return refused(error(RAY_UNSUPPORTED,
                         "process %d speaks protocol %u, this node speaks %u: install "
                         "the same version of libray",
                         peer.pid, hello.version, wire::kProtocolVersion));
  if (phase_ != Phase::kRunning) return refused(error(RAY_UNAVAILABLE, "the node is ending"));
  std::string body;
  if (Status s = hello_body(hello, datagram, fds, &body); !s.ok()) return refused(s);
  if (hello.mode == wire::kModeTool) return tool_asks(std::move(socket), body), Status();
  auto index = new_index();
  if (!index.ok()) return refused(index.status());
  auto p = std::make_unique<Process>();
  p->index = *index;
  p->pid = peer.pid;
  p->language = hello.language;
  auto channel = Channel::create(p->index, p->pid);
  Status s = channel.ok() ? Status() : channel.status();
  if (s.ok()) p->channel = *channel;
  if (s.ok()) {
    Fd pidfd = peer_pidfd(socket.get(), peer.pid);
    s = hello.mode == RAY_MODE_WORKER ? admit_worker(hello, std::move(pidfd), p.get())
                                      : admit_driver(hello, body, std::move(pidfd), p.get());
  }
  if (!s.ok()) {
    free_indexes_.push_front(p->index);
    return refused(s);
  }
  p->socket = std::move(socket);
  uint32_t i = p->index;
  processes_[i] = std::move(p);
  live_.insert(i);
  Process* admitted = processes_[i].get();
  RAY_FAULT("node.admit");
  // A reused index: nobody who rang its last owner is to be heard by the new one.
  wire::Doorbell& bell = page_->bells[i];
  for (auto* word : {&bell.armed, &bell.urgent, &bell.place, &bell.waking}) word->store(0, std::memory_order_relaxed);
  page_->wakes.waiting[i / 64].fetch_and(~(uint64_t{1} << (i % 64)));
  bell.alive.store(1);
  welcome(admitted);
  pump_->attach(admitted->channel);
  (void)watch(admitted->socket.get(), kSocket, i, EPOLLIN);
  if (admitted->pidfd.valid()) (void)watch(admitted->pidfd.get(), kPidFd, i, EPOLLIN);
  was_admitted(*admitted);
  return Status();
}

void Node::was_admitted(const Process& p) {
  if (p.driver) {
    const Job& job = job_of(p);
    // A driver without a command of its own (a tool, say) may never run a task.
    if (job.commands.count(job.language) && !job.gateway)
      scheduler_.prestart({job.language, job.index},
                          static_cast<uint32_t>(std::max(1.0, options_.num_cpus)));
  } else if (Spawn* stand_in = foreign_of(p.index)) {
    foreign_came(stand_in);
  } else {
    scheduler_.worker_ready(p.index, spawns_[p.spawn].pool, steady_ns());
  }
  scheduling_needed_ = true;
}

Result<uint32_t> Node::new_index() {
  if (free_indexes_.empty())
    return error(RAY_UNAVAILABLE, "the node has %u processes, which is its limit",
                 wire::kMaxProcesses);
  uint32_t index = free_indexes_.front();
  free_indexes_.pop_front();
  return index;
}

Status Node::admit_worker(const wire::Hello& hello, Fd pidfd, Process* p) {
  const int pid = p->pid;
  auto it = spawns_.find(hello.spawn);
  if (it != spawns_.end() && it->second.foreign) return admit_foreign(&it->second, p);
  if (it == spawns_.end() || it->second.process != kNone || !it->second.counted)
    return error(RAY_INVALID_ARGUMENT, "process %d says it is worker %llu, which nobody waits for",
                 pid, static_cast<unsigned long long>(hello.spawn));
  Spawn& s = it->second;
  auto job = jobs_.find(s.pool.job);
  if (job == jobs_.end() || job_over(s.pool.job))
    return error(RAY_UNAVAILABLE, "its job has ended");
  if (s.pid <= 0 && s.by_zygote) {  // its zygote's message is still on the way
    s.pid = pid;
    logs_.started(s.number, pid);
    s.pidfd = std::move(pidfd);
    if (s.pidfd.valid())
      (void)watch(s.pidfd.get(), kSpawnFd, static_cast<uint32_t>(s.number), EPOLLIN);
  }
  s.process = p->index;
  s.counted = false;
  bad_starts_ = 0;
  s.give_up_at = 0;
  p->spawn = s.number;
  p->job = s.pool.job;
  return Status();
}

// One that came from another node keeps its id: its gateway (libray/relay) says it.
Status Node::give_job_id(Job* job) const {
  if (job->id.is_nil()) job->id = random_id();
  for (const auto& [index, other] : jobs_)
    if (other.id == job->id && !job_over(index))
      return error(RAY_ALREADY_EXISTS, "job %s is on this node already", job->id.hex().c_str());
  return Status();
}

Status Node::admit_driver(const wire::Hello& hello, const std::string& body, Fd pidfd, Process* p) {
  Job job;
  job.gateway = is_relay(p->pid);
  wire::Cursor r(body);
  uint32_t n = r.map();
  for (uint32_t i = 0; i < n && r.ok(); ++i) {
    std::string key = r.text();
    if (key == "worker_argv") {
      uint32_t m = r.array();
      for (uint32_t k = 0; k < m && r.ok(); ++k) job.commands[hello.language].argv.push_back(r.text());
    } else if (key == "commands") {
      read_commands(&r, &job.commands);
    } else if (key == "job") {
      job.id = r.id();
    } else if (key == "env") {
      uint32_t m = r.map();
      for (uint32_t k = 0; k < m && r.ok(); ++k) {
        std::string name = r.text();
        job.env[name] = r.text();
      }
    } else if (key == "cwd") {
      job.cwd = r.text();
    } else if (key == "job_name") {
      job.name = r.text();
    } else if (key == "ns") {
      job.ns = r.text();
    } else {
      r.skip();
    }
  }
  if (!r.done()) return error(RAY_INVALID_ARGUMENT, "the hello of driver %d is malformed", p->pid);
  p->pidfd = std::move(pidfd);
  if (!p->pidfd.valid()) return errno_error(RAY_UNAVAILABLE, "cannot watch driver %d", p->pid);
  RAY_TRY(give_job_id(&job));
  job.index = next_job_++;
  job.driver = p->index;
  job.language = hello.language;
  if (job.ns.empty()) job.ns = "job-" + job.id.hex().substr(0, 16);
  p->driver = true;
  p->job = job.index;
  jobs_[job.index] = std::move(job);
  register_job(jobs_[p->job], "RUNNING");
  return Status();
}

void Node::welcome(Process* p) {
  const Job& job = job_of(*p);
  wire::Welcome w{};
  w.magic = wire::kMagic;
  w.version = wire::kProtocolVersion;
  w.code = RAY_OK;
  w.process = p->index;
  w.node = id_;
  w.job = job.id;
  w.root = p->driver ? root_task(job.id) : worker_root(job.id, p->spawn);
  w.daemon_pid = ::getpid();
  w.size = static_cast<uint32_t>(job.ns.size());
  std::string datagram(reinterpret_cast<const char*>(&w), sizeof w);
  datagram += job.ns;
  int fds[3] = {page_fd_.get(), p->channel->memfd.get(), doorbell_.get()};
  Status s = send_with_fds(p->socket.get(), datagram.data(), datagram.size(), fds, 3);
  if (!s.ok()) cut_off(p, "it could not be welcomed: " + s.message());
}

// ---- up rings
// --------------------------------------------------------------------------------------

// Reads at most `limit` records, of those that are there now: whoever goes on writing keeps nobody here.
void Node::drain_up(Process* p, uint32_t limit) {
  if (p->closing) return;
  RingConsumer& ring = p->channel->up;
  if (ring.empty()) return;
  const uint64_t end = p->channel->up_end();
  RecordView view;
  std::string payload;
  uint32_t count = 0;
  while (count < limit && !p->closing) {
    auto next = ring.next(&view);
    if (next == RingConsumer::Next::kEmpty) break;
    if (next == RingConsumer::Next::kCorrupt) return cut_off(p, "its up ring is broken");
    payload.assign(reinterpret_cast<const char*>(view.data), view.size);
    uint16_t type = view.type, flags = view.flags;
    ++count;
    Status s = handle_up(p, type, flags, payload);
    if (!s.ok()) cut_off(p, s.message());
    if (ring.position() >= end) break;
  }
  ring.release();
}

Status Node::handle_up(Process* p, uint16_t type, uint16_t flags, const std::string& payload) {
  if (!gcs_) return Status();  // the node is closing: there is nobody left to serve
  bool lazy = type == wire::kUpObjShare || type == wire::kUpObjHold || type == wire::kUpObjRelease ||
              type == wire::kUpObjResult || type == wire::kUpObjDiscard;
  ++(lazy ? lazy_records_ : urgent_records_);
  switch (type) {
    case wire::kUpObjShare:
    case wire::kUpObjReady:
    case wire::kUpObjHold:
    case wire::kUpObjRelease:
    case wire::kUpObjResult:
    case wire::kUpObjDiscard:
    case wire::kUpFunctionDrop:
    case wire::kUpObjResolve:
    case wire::kUpObjCancel: return up_reference(p, type, payload);
    case wire::kUpRequest: return up_request(p, flags, payload);
    case wire::kUpActorCreate: return up_actor_create(p, payload);
    case wire::kUpActorConnect:
    case wire::kUpActorKill:
    case wire::kUpActorReady:
    case wire::kUpActorExit: return up_actor(p, type, payload);
    case wire::kUpGoodbye: p->goodbye = true; return Status();
    case wire::kUpError: {
      wire::Cursor r(payload);
      r.map();
      if (!r.ok()) return malformed("error");
      pump_->add(lineage::kError, p->index, payload);
      return Status();
    }
    default: break;
  }
  scheduling_needed_ = true;
  switch (type) {
    case wire::kUpShape: return up_shape(p, payload);
    case wire::kUpLeaseWant: {
      wire::UpLeaseWant w;
      if (!read_record(payload, &w)) return malformed("lease");
      return scheduler_.want(p->index, w.shape, w.want, w.example);
    }
    case wire::kUpLeaseReturn: {
      wire::UpLeaseReturn l;
      if (!read_record(payload, &l)) return malformed("lease");
      return scheduler_.return_lease(p->index, l.worker, l.lease, steady_ns());
    }
    case wire::kUpBlocked: {
      wire::UpBlocked b;
      if (!read_record(payload, &b)) return malformed("blocked");
      if (!p->driver) scheduler_.worker_blocked(p->index, b.blocked != 0);
      return Status();
    }
    case wire::kUpRetire:
      if (p->driver) return Status();
      scheduler_.worker_gone(p->index, steady_ns());
      if (auto s = spawns_.find(p->spawn); s != spawns_.end()) s->second.give_up_at = 0;  // it ends in its own time
      return Status();
    case wire::kUpKillWorker: return up_kill_worker(p, payload);
    case wire::kUpStopped: return up_stopped(p, payload);
    case wire::kUpLinkLost: return up_link_lost(p, payload);
    default: return error(RAY_INVALID_ARGUMENT, "it wrote a record of unknown type %u", type);
  }
}

Status Node::up_reference(Process* p, uint16_t type, const std::string& payload) {
  switch (type) {
    case wire::kUpObjShare:
    case wire::kUpObjReady: return up_object(p, type, payload);
    case wire::kUpObjHold:
    case wire::kUpObjRelease: return up_count(p, type, payload);
    case wire::kUpObjResult: return up_result(payload);
    case wire::kUpFunctionDrop: {
      wire::UpFunctionDrop d;
      if (!read_record(payload, &d)) return malformed("function");
      if (function_users_.drop(p->index, d.key, d.count)) forget_function(d.key);
      return Status();
    }
    case wire::kUpObjDiscard: {
      wire::UpObjDiscard d;
      if (!read_record(payload, &d)) return malformed("discarded result");
      directory_.discard(d.id, d.holder, d.attempt);
      if (d.stored && store_) store_->discard(d.id, d.holder, d.attempt);
      return Status();
    }
    case wire::kUpObjResolve: {
      wire::UpObj o;
      if (payload.size() < kIdSize) return malformed("resolve");
      std::memcpy(o.id.b, payload.data(), kIdSize);
      if (directory_.settled(o.id)) {
        deferred_.push_back([this, id = o.id, index = p->index] { resolve_late(id, index); });
        return Status();
      }
      object::Actions actions;
      directory_.resolve(o.id, p->index, &actions);
      apply(actions);
      return Status();
    }
    case wire::kUpObjCancel: {
      wire::ObjCancel c;
      if (!read_record(payload, &c)) return malformed("cancel");
      object::Actions actions;
      directory_.cancel(c.id, c.flags, &actions);
      apply(actions);
      return Status();
    }
    default: return malformed("object");
  }
}

// Whoever asks may have got the reference from a process that makes the object again, and that says so in a ring that
// this pass has gone by already: the older value is not what is asked for.
void Node::resolve_late(const ObjectId& id, uint32_t index) {
  read_all_rings();
  object::Actions actions;
  if (may_hold(index)) directory_.resolve(id, index, &actions);
  apply(actions);
}

Status Node::up_object(Process* p, uint16_t type, const std::string& payload) {
  wire::UpObj o;
  if (!read_record(payload, &o) || o.state > wire::kObjLost ||
      payload.size() < sizeof o + uint64_t{o.n_contained} * kIdSize)
    return malformed("object");
  std::vector<ObjectId> contained(o.n_contained);
  if (o.n_contained)
    std::memcpy(contained.data(), payload.data() + sizeof o, o.n_contained * kIdSize);
  object::Actions actions;
  if (type == wire::kUpObjShare)
    directory_.share(p->index, o.id, o.state, o.code, o.location, contained.data(),
                     contained.size(), &actions);
  else
    directory_.ready(o.id, o.state, o.code, o.location, contained.data(), contained.size(),
                     &actions, p->index);
  apply(actions);
  return Status();
}

Status Node::up_result(const std::string& payload) {
  wire::UpObjResult r;
  if (!read_record(payload, &r) || payload.size() < sizeof r + uint64_t{r.n_contained} * kIdSize)
    return malformed("result");
  std::vector<ObjectId> contained(r.n_contained);
  if (r.n_contained) std::memcpy(contained.data(), payload.data() + sizeof r, r.n_contained * kIdSize);
  directory_.result(r.id, r.holder, may_hold(r.holder), r.attempt, contained.data(), contained.size());
  return Status();
}

Status Node::up_count(Process* p, uint16_t type, const std::string& payload) {
  wire::UpObjCount c;
  if (!read_record(payload, &c)) return malformed("count");
  if (type == wire::kUpObjRelease) {
    directory_.release(c.id, p->index, c.count);
  } else if (may_hold(c.process)) {
    directory_.hold(c.id, c.process, c.count);
  }
  return Status();
}

Status Node::up_shape(Process* p, const std::string& payload) {
  wire::UpShape s;
  if (!read_record(payload, &s)) return malformed("shape");
  std::map<std::string, double> amounts;
  sched::Pool pool{s.language, p->job};
  Status place = read_needs(std::string_view(payload).substr(sizeof s), &amounts, &pool);
  if (auto old = p->envs.find(s.shape); old != p->envs.end()) {
    drop_env(old->second);
    p->envs.erase(old);
  }
  if (pool.env) p->envs[s.shape] = pool.env;
  if (!place.ok() && place.code() != RAY_UNSCHEDULABLE) return place;
  sched::Resources resources;
  for (const auto& [name, amount] : amounts) RAY_TRY(resources.add(name, amount));
  sched::Placement placement;
  if (place.ok()) place = find_place(std::string_view(payload).substr(sizeof s), &placement);
  if (place.ok()) place = stays_possible(p->job, amounts, placement);
  if (!place.ok()) placement = {};
  placement.here |= job_of(*p).gateway;  // what came from another node is not sent on
  if (spills_) spills_->forget({p->index, s.shape, {}});
  RAY_TRY(scheduler_.define_shape(p->index, s.shape, resources, pool, placement));
  if (!place.ok()) unplaceable(p, s.shape, place);
  return Status();
}

// Units of accelerators that are assigned to what runs in the worker, as they travel.
std::vector<uint32_t> Node::accelerators_of(uint32_t worker) const {
  std::vector<uint32_t> out;
  for (uint32_t kind = 0; kind < std::size(wire::kAccelerators); ++kind)
    for (uint32_t unit : scheduler_.instances(worker, wire::kAccelerators[kind]))
      out.push_back(kind << wire::kAcceleratorShift | unit);
  return out;
}

// What a task or actor asks of its worker: amounts, and a pool by its accelerators and its runtime environment, which
// is counted once more.
Status Node::read_needs(std::string_view bytes, std::map<std::string, double>* amounts,
                        sched::Pool* pool) {
  std::string env;
  RAY_TRY(read_resources(bytes, amounts, &env));
  for (const char* name : wire::kAccelerators) pool->gpus |= amounts->count(name) > 0;
  if (env.empty()) return Status();
  if (env.size() > wire::kRuntimeEnvMax) return malformed("runtime environment");
  pool->env = envs_.take(env);
  if (pool->env) return Status();
  return error(RAY_UNSCHEDULABLE,
               "cannot run: the %zu different runtime environments that are in use on this node take %zu bytes, and "
               "there is no room for more; give what differs from task to task as an argument",
               envs_.size(), envs_.bytes());
}

void Node::drop_env(uint32_t env) {
  if (env && envs_.drop(env)) scheduler_.env_gone(env);
}

Status Node::up_kill_worker(Process* p, const std::string& payload) {
  wire::UpLeaseReturn l;
  if (!read_record(payload, &l)) return malformed("kill");
  // Only who holds the lease may, and the worker itself; a stale one means that it is somebody else's by now.
  if (l.worker == p->index || scheduler_.holds(p->index, l.worker, l.lease)) kill_worker(l.worker, wire::kDeathForced);
  return Status();
}

// For deferred work: no record that was written before it was asked for is unread, whatever the order of the rings.
void Node::read_all_rings() {
  if (std::exchange(rings_read_, true)) return;
  std::vector<uint32_t> indexes(live_.begin(), live_.end());
  for (uint32_t index : indexes)
    if (Process* p = process(index)) drain_up(p, UINT32_MAX);
}

// ---- links
// -----------------------------------------------------------------------------------------

uint32_t Node::connect_link(uint32_t client, uint32_t worker) {
  Process *c = process(client), *w = process(worker);
  if (!c || !w || c->closing || w->closing) return 0;
  auto known = c->as_client.find(worker);
  if (known != c->as_client.end()) return known->second.id;
  if (short_of_links(client)) {
    link_later(client, worker);
    return 0;
  }
  auto memfd = create_memfd("ray-link", wire::kLinkBytes);
  if (!memfd.ok()) {
    note_shortage("no-link", "a worker cannot be linked to its caller, which waits: " + memfd.status().message());
    link_later(client, worker);
    return 0;
  }
  // A fresh memfd is all zero: only the first words have to be written, so it is not mapped here.
  uint32_t words[4] = {wire::kMagic, wire::kProtocolVersion, client, worker};
  if (RAY_FAULT_FAILS("node.link") || ::pwrite(memfd->get(), words, sizeof words, 0) != sizeof words) {
    note_shortage("no-link", "a worker cannot be linked to its caller, which waits: there is no memory for the link");
    link_later(client, worker);
    return 0;
  }
  uint32_t id = next_link_++;
  auto fd = std::make_shared<Fd>(std::move(*memfd));
  wire::DnLink to_client{id, worker, 0, static_cast<uint32_t>(w->pid)};
  wire::DnLink to_worker{id, client, 1, static_cast<uint32_t>(c->pid)};
  send(w, wire::kDnLink, &to_worker, sizeof to_worker, nullptr, 0, 0, fd);
  send(c, wire::kDnLink, &to_client, sizeof to_client, nullptr, 0, 0, fd);
  c->as_client[worker] = {id};
  w->as_worker.insert(client);
  return id;
}

// ---- death
// -----------------------------------------------------------------------------------------

void Node::on_socket(uint32_t index, uint32_t events) {
  Process* p = process(index);
  if (!p) return;
  if (events & EPOLLOUT) dirty_.insert(index);
  if (!(events & (EPOLLIN | EPOLLHUP | EPOLLERR))) return;
  char byte;
  ssize_t n = ::recv(p->socket.get(), &byte, 1, MSG_DONTWAIT);
  if (n < 0 && (errno == EAGAIN || errno == EINTR) && !(events & EPOLLHUP)) return;
  if (n > 0) return cut_off(p, "it wrote to its socket after hello");
  unwatch(p->socket.get());
  if (p->driver) return process_gone(index, 0, wire::kDeathExit);
  if (p->foreign) {
    drain_up(p, UINT32_MAX);
    return foreign_over(index);
  }
  // A worker is buried when its process is gone, so that its exit status is known.
  drain_up(p, UINT32_MAX);
  p->closing = true;
  expect_exit(p, kExitGraceNs);
}

// Its worker said, or was told, that it ends: killed when it does not.
void Node::expect_exit(Process* p, int64_t grace_ns) {
  auto s = p ? spawns_.find(p->spawn) : spawns_.end();
  if (s != spawns_.end() && !s->second.give_up_at) s->second.give_up_at = steady_ns() + grace_ns;
}

void Node::cut_off(Process* p, const std::string& why) {
  if (p->closing) return;
  p->closing = true;
  log(kLogError, "node", "cut-off", "%s %d (process %u) is cut off: %s",
      p->driver ? "driver" : "worker", p->pid, p->index, why.c_str());
  report(lineage::kError, p->index, {{"kind", "protocol"}, {"message", why}});
  uint32_t index = p->index;
  if (p->driver)
    deferred_.push_back([this, index] { process_gone(index, -1, wire::kDeathCrash); });
  else
    kill_worker(index, wire::kDeathCrash);
}

void Node::process_gone(uint32_t index, int wait_status, uint32_t cause, const std::string& why) {
  Process* p = process(index);
  if (!p) return;
  RAY_FAULT("node.bury");
  drain_up(p, UINT32_MAX);
  p->closing = true;
  int64_t now = steady_ns();
  scheduling_needed_ = true;
  live_.erase(index);
  dirty_.erase(index);
  if (pump_) pump_->detach(index);
  // Its children's results have nowhere to go, and its retry will start them again.
  for (uint32_t worker : scheduler_.client_gone(index, now))
    kill_worker(worker, wire::kDeathForced);
  close_foreign_of(index);
  scheduler_.worker_gone(index, now);
  for (const auto& [shape, env] : p->envs) drop_env(env);
  wire::DnPeerDied died{index, static_cast<uint32_t>(p->pid), wait_status, cause};
  std::set<uint32_t> peers = p->as_worker;
  for (const auto& [worker, link] : p->as_client) peers.insert(worker);
  peers.erase(index);
  for (uint32_t peer : peers) {
    Process* other = process(peer);
    if (!other) continue;
    other->as_client.erase(index);
    other->as_worker.erase(index);
    send(other, wire::kDnPeerDied, &died, sizeof died, why.data(), why.size());
  }
  RAY_FAULT("node.bury.told");  // peers are told, its references not dropped
  p->buried = true;
  object::Actions objects;
  directory_.process_died(index, &objects);
  apply(objects);
  if (store_) store_->process_died(index);
  for (uint64_t key : function_users_.process_gone(index))
    if (phase_ == Phase::kRunning) forget_function(key);
  drop_group_waiters(index);  // its index is another one's soon
  actor::Actions actors;
  actors_.process_died(index, why.empty() ? death_text(wait_status, cause) : why, &actors);
  apply(actors);
  // Whoever slept on a word that the dead process was about to wake.
  flush_outboxes();
  for (uint32_t peer : peers) wake_process(peer);
  if (page_) {
    page_->bells[index].alive.store(0);
    if (uint32_t sleeper = page_->bells[index].waking.load()) wake_process(sleeper);
  }
  uint32_t job = p->job;
  bool driver = p->driver;
  if (p->socket.valid()) unwatch(p->socket.get());
  if (p->pidfd.valid()) unwatch(p->pidfd.get());
  processes_[index].reset();
  free_indexes_.push_back(index);
  if (driver) end_job(job);
}

void Node::end_job(uint32_t index) {
  auto it = jobs_.find(index);
  if (it == jobs_.end() || it->second.ended) return;
  Job& job = it->second;
  job.ended = true;
  register_job(job, "FINISHED");
  scheduler_.job_ended(index);
  remove_groups_of(index);
  end_rest(index, true);
  close_job(index);
}

// Processes of a job that outlive its driver: the workers of detached actors, and what works for those, the workers that
// they have leased and the actors that they have created, and so on.
std::set<uint32_t> Node::spared_of(uint32_t job) const {
  std::set<uint32_t> spared;
  std::vector<uint32_t> next;
  std::multimap<uint32_t, uint32_t> created;  // by creator
  for (const auto& [id, a] : actors_.all()) {
    if (a.spec.job != job || a.state == wire::kActorDead || a.worker == actor::kNoProcess) continue;
    if (a.spec.lifetime == RAY_LIFETIME_DETACHED) next.push_back(a.worker);
    else created.emplace(a.spec.creator, a.worker);
  }
  while (!next.empty()) {
    const uint32_t index = next.back();
    next.pop_back();
    if (!spared.insert(index).second) continue;
    for (uint32_t worker : scheduler_.workers_of(index)) next.push_back(worker);
    for (auto [at, end] = created.equal_range(index); at != end; ++at) next.push_back(at->second);
  }
  return spared;
}

// Of a job without a driver: what no detached actor needs.
void Node::end_rest(uint32_t index, bool with_starting) {
  const std::set<uint32_t> spared = spared_of(index);
  actor::Actions actions;
  actors_.job_ended(index, spared, &actions);
  apply(actions);
  std::vector<uint64_t> elsewhere;
  for (auto& [number, s] : spawns_) {
    if (s.pool.job != index || (s.process == kNone ? !with_starting : spared.count(s.process) > 0)) continue;
    s.cause = wire::kDeathForced;
    if (s.foreign) elsewhere.push_back(number);
    else (void)pidfd_signal(s.pidfd.get(), SIGKILL);
  }
  for (uint64_t number : elsewhere)
    if (auto s = spawns_.find(number); s != spawns_.end()) close_foreign(&s->second, true);
}

// With a detached actor ends what only it needed, if the driver has left.
void Node::actor_ended(uint32_t index, bool detached) {
  if (auto it = jobs_.find(index); detached && it != jobs_.end() && it->second.ended) end_rest(index, job_over(index));
  close_job(index);
}

// An ended job keeps its zygote and may start workers as long as a detached actor of it lives.
bool Node::job_over(uint32_t index) const {
  auto it = jobs_.find(index);
  if (it == jobs_.end()) return true;
  return it->second.ended && !actors_.keeps_job(index);
}

void Node::close_job(uint32_t index) {
  auto it = jobs_.find(index);
  if (it == jobs_.end() || !it->second.ended || !job_over(index)) return;
  job_over_elsewhere(&it->second);
  it->second.env.clear();
  for (auto& [language, z] : it->second.zygotes)
    (void)pidfd_signal(z->pidfd(), SIGKILL);  // and with it what it forked
  forget_job(index);
}

// Nobody is left who could ask for it.
void Node::forget_job(uint32_t index) {
  auto it = jobs_.find(index);
  if (it == jobs_.end() || !job_over(index) || it->second.spawns > 0 || !it->second.zygotes.empty()) return;
  scheduler_.job_ended(index);
  jobs_.erase(it);
}

const Node::Job& Node::job_of(const Process& p) const {
  static const Job none;
  auto it = jobs_.find(p.job);
  return it == jobs_.end() ? none : it->second;
}

// An event or error for the journal: a map of strings.
void Node::report(uint16_t type, uint32_t process, std::map<std::string, std::string> fields) {
  wire::Packer w;
  w.map(static_cast<uint32_t>(fields.size()));
  for (const auto& [key, value] : fields) w.str(key).str(value);
  if (pump_) pump_->add(type, process, w.bytes());
}

}  // namespace ray::node
