// The connection itself: hello, the rings up, what comes down, a daemon that is stopped. See daemon_channel.h.
#include "libray/runtime/daemon_channel.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "libray/base/clock.h"
#include "libray/base/fault.h"
#include "libray/base/log.h"
#include "libray/base/proc.h"
#include "libray/base/trust.h"
#include "libray/wire/limits.h"

namespace ray {
namespace {

constexpr size_t kHelloDatagram = 64 << 10;  // larger ones travel in a memfd: sockets have their own limits

Result<Fd> memfd_of(const char* name, const std::string& content) {
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

Status await_welcome(int socket, const std::string& path) {
  constexpr int kWelcomeMs = 60000;
  pollfd answer{socket, POLLIN, 0};
  int n;
  do n = ::poll(&answer, 1, kWelcomeMs);
  while (n < 0 && errno == EINTR);
  if (n != 0) return Status();
  return error(RAY_UNAVAILABLE, "the node daemon at %s does not answer: is it stopped (`kill -CONT`)?", path.c_str());
}

// The daemon knows a caller by its number, which a dead process may have had: an answer to that one is nobody's here.
uint64_t first_call() {
  const Id random = random_id();
  uint64_t first;
  std::memcpy(&first, random.b, sizeof first);
  return (first >> 1) + 1;
}

}  // namespace

// ---- start

Status DaemonChannel::connect(const std::string& session_dir, const wire::Hello& hello, const std::string& extra,
                              wire::Welcome* out, std::string* text) {
  path_ = session_dir + "/" + wire::kNodeSocket;
  auto socket = connect_own(path_, SOCK_SEQPACKET);
  if (!socket.ok()) return error(socket.status().code(), "the node daemon: %s", socket.status().message().c_str());
  socket_ = out_of_the_way(std::move(*socket));
  std::string message(reinterpret_cast<const char*>(&hello), sizeof hello);
  Fd file;  // of what a datagram has no room for
  if (message.size() + extra.size() <= kHelloDatagram) {
    message += extra;
  } else {
    auto made = memfd_of("ray-hello", extra);
    if (!made.ok()) return made.status();
    file = std::move(*made);
  }
  const int fds_sent[1] = {file.get()};
  // A daemon that refused us at once has closed its end: its reason can be read all the same.
  Status sent = send_with_fds(socket_.get(), message.data(), message.size(), fds_sent, file.valid() ? 1 : 0);
  std::vector<uint8_t> buffer(wire::kDatagramMax);
  std::vector<Fd> fds;
  RAY_TRY(await_welcome(socket_.get(), path_));
  auto got = recv_with_fds(socket_.get(), buffer.data(), buffer.size(), &fds);
  if (!got.ok()) return got.status();
  wire::Welcome& w = *out;
  if (*got < sizeof w && !sent.ok()) return sent;
  if (*got < sizeof w) return error(RAY_UNAVAILABLE, "the node daemon at %s refused us", path_.c_str());
  std::memcpy(&w, buffer.data(), sizeof w);
  text->assign(reinterpret_cast<char*>(buffer.data()) + sizeof w, std::min<size_t>(w.size, *got - sizeof w));
  if (w.magic != wire::kMagic || w.version != wire::kProtocolVersion)
    return error(RAY_UNSUPPORTED, "the node daemon speaks another version of the protocol");
  if (w.code != RAY_OK) return Status(w.code, *text);
  return take_welcome(w, &fds);
}

// What came with it: the page of the node, our channel, the daemon's doorbell.
Status DaemonChannel::take_welcome(const wire::Welcome& w, std::vector<Fd>* fds_of) {
  std::vector<Fd>& fds = *fds_of;
  if (fds.size() < 3) return error(RAY_UNAVAILABLE, "the node daemon sent no shared memory");
  auto page = map_shared(fds[0].get(), sizeof(wire::NodePage), true);
  if (!page.ok()) return page.status();
  auto channel = map_shared(fds[1].get(), wire::kChannelBytes, true);
  if (!channel.ok()) return channel.status();
  page_map_ = std::move(*page);
  channel_map_ = std::move(*channel);
  page_map_.keep_from_children();
  channel_map_.keep_from_children();
  daemon_event_ = out_of_the_way(std::move(fds[2]));
  daemon_pid_ = w.daemon_pid;
  next_call_ = first_call();
  page_ = reinterpret_cast<wire::NodePage*>(page_map_.data());
  channel_ = reinterpret_cast<wire::ChannelHeader*>(channel_map_.data());
  up_ring_ = RingProducer(&channel_->up, channel_map_.data() + wire::kUpOffset, wire::kUpRingBytes);
  lineage_ring_ = RingProducer(&channel_->lineage, channel_map_.data() + wire::kLineageOffset, wire::kLineageRingBytes);
  return Status();
}

// ---- up

void DaemonChannel::wake_daemon(std::atomic<uint32_t>* armed) {
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (__builtin_expect(armed->load(std::memory_order_relaxed) == 0, 1)) return;
  armed->store(0, std::memory_order_relaxed);
  ring_daemon();
}

void DaemonChannel::await_room(std::atomic<uint32_t>* armed, uint32_t naps) {
  armed->store(1, std::memory_order_relaxed);  // make sure that it is woken
  wake_daemon(armed);
  timespec ts{0, 50000};
  nanosleep(&ts, nullptr);
  if (naps % 16384 == 0) warn_if_stopped();  // after a second or two
}

bool DaemonChannel::write_up(uint16_t type, const void* a, size_t a_size, const void* b, size_t b_size, uint16_t flags) {
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
void DaemonChannel::up_bytes(uint16_t type, const void* a, size_t a_size, const void* b, size_t b_size, uint16_t flags) {
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
void DaemonChannel::too_large(const char* whom, size_t size) {
  log(kLogError, "runtime", "record-too-large",
      "a record of %zu bytes for %s is dropped: names and other texts of a task "
      "or an actor are too long",
      size, whom);
}

// Whether to give up waiting for room in a ring. Whoever waits may have the runtime's mutex, and so keep the receiver or a
// shutdown from going on, or be the receiver: so the socket is looked at, and what they know counts before they have the
// mutex. What a process that leaves has to say is of no more use once a stopped daemon has had the time that the shutdown
// gave it.
bool DaemonChannel::nobody_reads(uint32_t naps) {
  constexpr uint32_t kLook = 16, kLookStopped = 1024;  // every few milliseconds; a few times a second
  if (no_reader_.load(std::memory_order_acquire) || stopped_.load(std::memory_order_relaxed)) return true;
  if (naps % kLook != 0) return false;
  pollfd p{socket_.get(), POLLRDHUP, 0};
  bool nobody = ::poll(&p, 1, 0) > 0 && (p.revents & (POLLHUP | POLLRDHUP | POLLERR | POLLNVAL));
  if (naps % kLookStopped == 0 && steady_ns() >= leave_at_ns_.load(std::memory_order_relaxed))
    nobody |= is_stopped(daemon_pid_);
  if (nobody) no_reader_.store(true, std::memory_order_release);
  return nobody;
}

// ---- down

void DaemonChannel::receive() {
  std::vector<uint8_t> buffer(wire::kDatagramMax);
  for (;;) {
    std::vector<Fd> fds;
    bool lost = false;  // the User sees what is missing
    auto got = recv_with_fds(socket_.get(), buffer.data(), buffer.size(), &fds, &lost);
    if (stopped_) return;
    if (!got.ok() && got.status().code() == RAY_TIMED_OUT) continue;
    if (!got.ok() || *got == 0) {
      bool closed = !got.ok() && ::fcntl(socket_.get(), F_GETFD) < 0;
      RAY_FAULT("client.node_lost");  // known to whoever asks the daemon, not yet told to all
      // Also while it shuts down: the daemon's answer to that would be waited for in vain.
      no_reader_.store(true, std::memory_order_release);  // who has the runtime's mutex may wait for the daemon to read
      return user_->lost(closed);
    }
    on_datagram(buffer.data(), *got, &fds);
  }
}

void DaemonChannel::on_datagram(const uint8_t* data, size_t size, std::vector<Fd>* fds) {
  size_t next_fd = 0;
  for (size_t at = 0; at + sizeof(RecordHeader) <= size;) {
    RecordHeader h;
    std::memcpy(&h, data + at, sizeof h);
    if (h.size < sizeof h || h.size > size - at) break;
    const uint8_t* p = data + at + sizeof h;
    const size_t n = h.size - sizeof h;
    wire::DnReply reply;
    std::string_view answer;
    if (h.type != wire::kDnReply)
      user_->received(h.type, h.flags, p, n, fds, &next_fd);
    else if (wire::read_head(wire::bytes_of(p, n), &reply, &answer))
      on_reply(reply, h.flags, answer);
    at += pad8(h.size);
  }
  user_->received_all();
}

// ---- a daemon that does not go on

bool DaemonChannel::look_unread() {
  uint64_t used, unread_to;
  {
    std::lock_guard lock(up_mutex_);
    used = up_ring_.used(), unread_to = up_ring_.tail() - used;
  }
  const bool stands = used > 0 && unread_to == up_head_seen_;
  up_head_seen_ = unread_to;
  if (stands) ring_daemon();  // whoever was to wake it may have failed: a process whose memory or descriptors are spoilt
  return stands;
}

// Any thread, with or without locks.
void DaemonChannel::warn_if_stopped() {
  constexpr int64_t kAgainNs = 30000000000;
  int64_t now = steady_ns(), last = warned_ns_.load(std::memory_order_relaxed);
  if (last && now - last < kAgainNs) return;
  if (!is_stopped(daemon_pid_) || !warned_ns_.compare_exchange_strong(last, now)) return;
  log(kLogWarning, "runtime", "daemon-stopped",
      "the node daemon (pid %d) is stopped by a signal: no new workers, actors or large objects until it goes "
      "on; `kill -CONT %d` resumes it",
      daemon_pid_, daemon_pid_);
}

bool DaemonChannel::hung_up(int patience_ms) const {
  pollfd p{socket_.get(), POLLRDHUP, 0};
  return ::poll(&p, 1, patience_ms) > 0 && (p.revents & (POLLHUP | POLLRDHUP | POLLERR));
}

void DaemonChannel::ring_daemon() {
  uint64_t one = 1;
  if (__builtin_expect(::write(daemon_event_.get(), &one, sizeof one) < 0 && errno == EBADF, 0)) knock();
}

// Somebody in this process has closed our descriptors (os.closerange). The daemon sleeps, and everybody relies on
// us to wake it, since whoever clears the word `armed` is the one who rings: it does wake for a connection.
void DaemonChannel::knock() {
  user_->descriptors_closed(!knocked_.exchange(true));
  sockaddr_un addr{};
  addr.sun_family = AF_UNIX;
  if (path_.size() >= sizeof addr.sun_path) return;
  std::memcpy(addr.sun_path, path_.c_str(), path_.size() + 1);
  Fd fd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (fd.valid()) (void)::connect(fd.get(), reinterpret_cast<sockaddr*>(&addr), sizeof addr);
}

// ---- end

void DaemonChannel::stop() {
  stopped_ = true;
  ::shutdown(socket_.get(), SHUT_RDWR);
  wake_calls();
}

void DaemonChannel::detach() {
  page_map_.detach();
  channel_map_.detach();
}

void DaemonChannel::close() {
  socket_.reset();
  daemon_event_.reset();
}

}  // namespace ray
