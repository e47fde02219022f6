// See node.h. Processes of the node: hello, up rings, their ends.
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
#include "libray/wire/cursor.h"
#include "libray/node/node.h"
#include "libray/wire/records.h"
#include "libray/wire/msgpack.h"

namespace ray::node {
namespace {

constexpr size_t kMaxPending = 256;       // connections that have not said hello
constexpr size_t kMaxOutbox = 64u << 20;  // of one process before it is cut off, besides what it asked for

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
  if (!wire::read_head(datagram, &hello) || hello.magic != wire::kMagic)
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
  Job job;  // of a driver
  p->index = *index;
  p->pid = peer.pid;
  p->language = hello.language;
  auto channel = Channel::create(p->index, p->pid);
  Status s = channel.ok() ? Status() : channel.status();
  if (s.ok()) p->channel = *channel;
  if (s.ok()) {
    Fd pidfd = peer_pidfd(socket.get(), peer.pid);
    s = hello.mode == RAY_MODE_WORKER ? admit_worker(hello, std::move(pidfd), p.get())
                                      : admit_driver(hello, body, std::move(pidfd), p.get(), &job);
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
  came(admitted, std::move(job));
  pump_->attach(admitted->channel);
  (void)watch(admitted->socket.get(), kSocket, i, EPOLLIN);
  if (admitted->pidfd.valid()) (void)watch(admitted->pidfd.get(), kPidFd, i, EPOLLIN);
  return Status();
}

// It is the core's from now on, which welcomes it.
void Node::came(Process* p, Job job) {
  if (!p->driver) return step(event::WorkerCame{p->index, p->pid, p->spawn});
  event::DriverCame e{p->index, p->pid, job.language, job.id, job.ns, is_relay(p->pid), 0};
  // A driver without a command of its own (a tool, say) may never run a task.
  if (job.commands.count(job.language)) e.prestart = static_cast<uint32_t>(std::max(1.0, options_.num_cpus));
  step(std::move(e));
  job.index = p->job;
  job.driver = p->index;
  job.ns = jobs_[p->job].ns;
  register_job(jobs_[p->job] = std::move(job), "RUNNING");
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
  RAY_TRY(core_.may_join(event::WorkerCame{p->index, p->pid, hello.spawn}, is_relay(p->pid)));
  p->spawn = hello.spawn;
  p->foreign = core_.is_foreign(hello.spawn);
  if (p->foreign) return Status();
  Spawn& s = spawns_.at(hello.spawn);
  if (s.pid <= 0 && s.by_zygote) {  // its zygote's message is still on the way
    s.pid = p->pid;
    logs_.started(s.number, s.pid);
    s.pidfd = std::move(pidfd);
    if (s.pidfd.valid())
      (void)watch(s.pidfd.get(), kSpawnFd, static_cast<uint32_t>(s.number), EPOLLIN);
  }
  s.process = p->index;
  return Status();
}

Status Node::admit_driver(const wire::Hello& hello, const std::string& body, Fd pidfd, Process* p, Job* out) {
  Job& job = *out;
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
  if (job.id.is_nil()) job.id = random_id();
  RAY_TRY(core_.may_join(job.id));
  job.language = hello.language;
  p->driver = true;
  return Status();
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

// No record that was written before is unread, whatever the order of the rings.
void Node::read_all_rings() {
  std::vector<uint32_t> indexes(live_.begin(), live_.end());
  for (uint32_t index : indexes)
    if (Process* p = process(index)) drain_up(p, UINT32_MAX);
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
  if (p->driver) return driver_gone(index, 0, wire::kDeathExit);
  drain_up(p, UINT32_MAX);
  if (p->foreign) {
    read_relay();  // what it said of the end, which may be buried after that
    if (!process(index)) return;
    p->closing = true;
    return step(event::StandInClosed{index});
  }
  // A worker is buried when its process is gone, so that its exit status is known.
  p->closing = true;
  step(event::SocketClosed{index});
}

void Node::cut_off(Process* p, const std::string& why) {
  if (p->closing) return;
  p->closing = true;
  if (p->driver) gone_later_.push_back(p->index);
  step(event::CutOff{p->index, why});
}

void Node::driver_gone(uint32_t index, int wait_status, uint32_t cause) {
  Process* p = process(index);
  if (!p) return;
  RAY_FAULT("node.bury");
  drain_up(p, UINT32_MAX);
  p->closing = true;
  step(event::DriverDied{index, wait_status, cause});
}

const Node::Job& Node::job_of(const Process& p) const {
  static const Job none;
  auto it = jobs_.find(p.job);
  return it == jobs_.end() ? none : it->second;
}

}  // namespace ray::node
