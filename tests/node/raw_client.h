// A process that speaks the node-local protocol by hand, without the runtime: for tests of rayd and for
// the workers that those tests start.
#pragma once
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "libray/base/clock.h"
#include "libray/base/doorbell.h"
#include "libray/base/ring.h"
#include "libray/base/shm.h"
#include "libray/node/core/demands.h"
#include "libray/wire/cursor.h"
#include "libray/wire/protocol.h"
#include "ray.h"

namespace ray::test {

struct GivenMemory {
  Fd page, channel;
};

inline int connect_to(const std::string& path) {
  int fd = ::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  sockaddr_un a{};
  a.sun_family = AF_UNIX;
  std::snprintf(a.sun_path, sizeof a.sun_path, "%s", path.c_str());
  if (::connect(fd, reinterpret_cast<sockaddr*>(&a), sizeof a) == 0) return fd;
  ::close(fd);
  return -1;
}

struct Record {
  uint16_t type = 0, flags = 0;
  std::string payload;
  int fd = -1;
  template <class T>
  T as() const {
    T t{};
    std::memcpy(&t, payload.data(), std::min(sizeof t, payload.size()));
    return t;
  }
  template <class T>
  std::string tail() const {
    return payload.size() > sizeof(T) ? payload.substr(sizeof(T)) : "";
  }
};

struct Link {
  uint32_t id = 0, peer = 0;
  Mapping map;
  wire::LinkHeader* header = nullptr;
  RingProducer tasks_out, results_out;
  RingConsumer tasks_in, results_in;
};

class RawClient {
 public:
  GivenMemory memory;  // as it came with the welcome
  ~RawClient() {
    for (const Record& r : inbox_)
      if (r.fd >= 0) ::close(r.fd);
  }

  // Says hello. The welcome's code; RAY_NODE_DIED when the socket cannot be reached.
  int32_t hello(const std::string& session, const std::string& token, int32_t mode, int32_t language,
                uint64_t spawn, const std::string& body) {
    socket_ = Fd(connect_to(session + "/" + wire::kNodeSocket));
    if (!socket_.valid()) return RAY_NODE_DIED;
    wire::Hello h{};
    h.magic = wire::kMagic;
    h.version = wire::kProtocolVersion;
    std::memcpy(h.token, token.data(), std::min(token.size(), sizeof h.token));
    h.pid = static_cast<uint32_t>(::getpid());
    h.language = language;
    h.mode = mode;
    h.spawn = spawn;
    h.size = static_cast<uint32_t>(body.size());
    std::string datagram(reinterpret_cast<const char*>(&h), sizeof h);
    datagram += body;
    if (!send_with_fds(socket_.get(), datagram.data(), datagram.size(), nullptr, 0).ok())
      return RAY_NODE_DIED;
    std::string answer(wire::kDatagramMax, 0);
    std::vector<Fd> fds;
    auto n = recv_with_fds(socket_.get(), answer.data(), answer.size(), &fds);
    if (!n.ok() || *n < sizeof welcome) return RAY_NODE_DIED;
    std::memcpy(&welcome, answer.data(), sizeof welcome);
    text = answer.substr(sizeof welcome, *n - sizeof welcome);
    if (welcome.code != RAY_OK) return welcome.code;
    if (fds.size() != 3) return RAY_INTERNAL;
    page_map_ = std::move(*map_shared(fds[0].get(), sizeof(wire::NodePage), true));
    page = reinterpret_cast<wire::NodePage*>(page_map_.data());
    channel_ = std::move(*map_shared(fds[1].get(), wire::kChannelBytes, true));
    header = reinterpret_cast<wire::ChannelHeader*>(channel_.data());
    up_ = RingProducer(&header->up, channel_.data() + wire::kUpOffset, wire::kUpRingBytes);
    lineage_ =
        RingProducer(&header->lineage, channel_.data() + wire::kLineageOffset, wire::kLineageRingBytes);
    doorbell_ = std::move(fds[2]);
    memory = {std::move(fds[0]), std::move(fds[1])};
    return RAY_OK;
  }

  static std::string driver_body(const std::vector<std::string>& worker_argv) {
    wire::Packer w;
    w.map(4).str("worker_argv").array(static_cast<uint32_t>(worker_argv.size()));
    for (const auto& a : worker_argv) w.str(a);
    w.str("cwd").str("/").str("job_name").str("test").str("ns").str("");
    return w.bytes();
  }

  bool up_bytes(uint16_t type, const std::string& payload, uint16_t flags = 0) {
    void* at;
    while (!(at = up_.reserve(type, static_cast<uint32_t>(payload.size()), flags))) {
      if (!alive()) return false;
      ::usleep(200);
    }
    std::memcpy(at, payload.data(), payload.size());
    up_.publish();
    wake(&page->daemon_armed);
    return true;
  }
  template <class T>
  bool up(uint16_t type, const T& head, const std::string& tail = "", uint16_t flags = 0) {
    return up_bytes(type, std::string(reinterpret_cast<const char*>(&head), sizeof head) + tail, flags);
  }
  bool lineage(uint16_t type, const std::string& payload) {
    void* at = lineage_.reserve(type, static_cast<uint32_t>(payload.size()));
    if (!at) return false;
    std::memcpy(at, payload.data(), payload.size());
    lineage_.publish();
    wake(&page->lineage_armed);
    return true;
  }
  void wake(std::atomic<uint32_t>* armed) {
    std::atomic_thread_fence(std::memory_order_seq_cst);
    if (armed->load() == 0) return;
    armed->store(0);
    knock();
  }
  void knock() {
    uint64_t one = 1;
    (void)!::write(doorbell_.get(), &one, sizeof one);
  }
  uint64_t request(uint32_t op, const std::string& args) {
    uint64_t id = ++next_request_;
    up(wire::kUpRequest, wire::UpRequest{id, op, 0}, args);
    return id;
  }
  // The whole answer of a request.
  bool answer(uint64_t id, int32_t* code, std::string* body, int timeout_ms = 20000) {
    body->clear();
    for (;;) {
      Record r;
      if (!wait([&](const Record& x) {
            return x.type == wire::kDnReply && x.as<wire::DnReply>().req_id == id;
          }, &r, timeout_ms))
        return false;
      *code = r.as<wire::DnReply>().code;
      *body += r.tail<wire::DnReply>();
      if (!(r.flags & wire::kMore)) return true;
    }
  }

  void shape(uint32_t index, const std::map<std::string, double>& resources, int32_t language = 0) {
    wire::Packer w;
    w.map(static_cast<uint32_t>(resources.size()));
    for (const auto& [name, amount] : resources) w.str(name).float64(amount);
    up(wire::kUpShape, wire::UpShape{index, language}, w.bytes());
  }

  // The first record that fits, out of order; false after the time or when the node is gone. Links that
  // come meanwhile are opened.
  bool wait(const std::function<bool(const Record&)>& fits, Record* out, int timeout_ms = 20000) {
    int64_t end = steady_ns() + timeout_ms * 1000000ll;
    for (;;) {
      for (auto it = inbox_.begin(); it != inbox_.end(); ++it) {
        if (!fits(*it)) continue;
        *out = *it;
        inbox_.erase(it);
        return true;
      }
      int64_t left = (end - steady_ns() + 999999) / 1000000;
      if (left <= 0 || !receive(static_cast<int>(left))) return false;
    }
  }
  bool wait_type(uint16_t type, Record* out, int timeout_ms = 20000) {
    return wait([type](const Record& r) { return r.type == type; }, out, timeout_ms);
  }
  // Waits for the node to close the connection.
  bool wait_closed(int timeout_ms = 20000) {
    int64_t end = steady_ns() + timeout_ms * 1000000ll;
    while (!closed_) {
      int64_t left = (end - steady_ns() + 999999) / 1000000;
      if (left <= 0) return false;
      receive(static_cast<int>(left));
    }
    return true;
  }
  // Reads one datagram. False: nothing came in time, or the connection is closed.
  bool receive(int timeout_ms) {
    if (closed_) return false;
    pollfd p{socket_.get(), POLLIN, 0};
    if (::poll(&p, 1, timeout_ms) <= 0) return false;
    std::string d(wire::kDatagramMax, 0);
    std::vector<Fd> fds;
    auto n = recv_with_fds(socket_.get(), d.data(), d.size(), &fds);
    if (!n.ok() || *n == 0) {
      closed_ = true;
      return false;
    }
    size_t next_fd = 0;
    for (size_t at = 0; at + sizeof(RecordHeader) <= *n;) {
      RecordHeader h;
      std::memcpy(&h, d.data() + at, sizeof h);
      if (h.size < sizeof h || at + h.size > *n) break;
      Record r{h.type, h.flags, d.substr(at + sizeof h, h.size - sizeof h), -1};
      at += pad8(h.size);
      if (r.type == wire::kDnLink && next_fd < fds.size())
        open_link(r.as<wire::DnLink>(), std::move(fds[next_fd++]));
      inbox_.push_back(std::move(r));
    }
    return true;
  }
  void open_link(const wire::DnLink& l, Fd fd) {
    auto link = std::make_unique<Link>();
    link->id = l.link;
    link->peer = l.peer;
    link->map = std::move(*map_shared(fd.get(), wire::kLinkBytes, true));
    uint8_t* base = link->map.data();
    link->header = reinterpret_cast<wire::LinkHeader*>(base);
    if (l.as_worker) {
      link->tasks_in =
          RingConsumer(&link->header->tasks, base + wire::kLinkTasksOffset, wire::kLinkRingBytes);
      link->results_out =
          RingProducer(&link->header->results, base + wire::kLinkResultsOffset, wire::kLinkRingBytes);
      serving[l.link] = std::move(link);
    } else {
      link->tasks_out =
          RingProducer(&link->header->tasks, base + wire::kLinkTasksOffset, wire::kLinkRingBytes);
      link->results_in =
          RingConsumer(&link->header->results, base + wire::kLinkResultsOffset, wire::kLinkRingBytes);
      using_[l.link] = std::move(link);
    }
  }

  // Client side of a link: sends a task without arguments; `function` tells the test worker what to do.
  bool push(uint32_t link, uint64_t tag, uint64_t function, uint32_t kind = RAY_KIND_TASK) {
    auto it = using_.find(link);
    if (it == using_.end()) return false;
    wire::TaskHeader h{};
    h.tag = tag;
    h.function = function;
    h.kind = kind;
    void* at = it->second->tasks_out.reserve(wire::kLinkTask, sizeof h);
    if (!at) return false;
    std::memcpy(at, &h, sizeof h);
    it->second->tasks_out.publish();
    ring(&page->bells[it->second->peer].armed);
    return true;
  }
  bool result(uint32_t link, wire::DoneHeader* out, int timeout_ms = 20000) {
    auto it = using_.find(link);
    if (it == using_.end()) return false;
    int64_t end = steady_ns() + timeout_ms * 1000000ll;
    RecordView r;
    while (it->second->results_in.next(&r) != RingConsumer::Next::kRecord) {
      if (steady_ns() > end) return false;
      ::usleep(200);
    }
    std::memcpy(out, r.data, sizeof *out);
    it->second->results_in.release();
    return true;
  }

  bool alive() {
    pollfd p{socket_.get(), POLLIN, 0};
    if (::poll(&p, 1, 0) > 0 && (p.revents & POLLHUP)) return false;
    return !closed_;
  }
  bool closed() const { return closed_; }
  void close() {
    socket_.reset();
    closed_ = true;
  }
  int socket() const { return socket_.get(); }
  uint32_t process() const { return welcome.process; }
  RingProducer* up_ring() { return &up_; }

  wire::Welcome welcome{};
  std::string text;
  wire::NodePage* page = nullptr;
  wire::ChannelHeader* header = nullptr;
  std::map<uint32_t, std::unique_ptr<Link>> using_, serving;

 private:
  Fd socket_, doorbell_;
  Mapping page_map_, channel_;
  RingProducer up_, lineage_;
  std::deque<Record> inbox_;
  uint64_t next_request_ = 0;
  bool closed_ = false;
};

}  // namespace ray::test
