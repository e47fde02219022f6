// Two transports over real byte streams: tcp, ipc and tls; who is refused; what a cut costs.
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "libray/base/log.h"
#include "libray/net/transport.h"

namespace ray::net {
namespace {

class Mate : public Transport::User {
 public:
  void on_message(Peer from, Lane lane, std::string message) override {
    if (transport) transport->consumed(from, lane, message.size());
    note([&] { messages.push_back(std::move(message)); });
  }
  void on_up(Peer p, const Identity&, uint32_t) override { note([&] { peer = p, ++ups; }); }
  void on_down(Peer) override { note([&] { ++downs; }); }
  void on_reset(Peer) override { note([&] { ++resets; }); }
  void on_writable(Peer, Lane) override {}
  void on_refused(Target, const std::string& why) override { note([&] { refused.push_back(why); }); }
  template <class F>
  ::testing::AssertionResult until(F there) {
    std::unique_lock lock(mutex);
    if (cv.wait_for(lock, std::chrono::seconds(60), there)) return ::testing::AssertionSuccess();
    return ::testing::AssertionFailure() << "not within a minute";
  }
  Transport* transport = nullptr;
  std::mutex mutex;
  std::condition_variable cv;
  std::vector<std::string> messages, refused;
  Peer peer = 0;
  int ups = 0, downs = 0, resets = 0;

 private:
  template <class F>
  void note(F change) {
    std::lock_guard lock(mutex);
    change();
    cv.notify_all();
  }
};

TransportOptions options(uint8_t number, std::string listen, std::string token = "token") {
  TransportOptions o;
  o.self.node.b[0] = number;
  o.self.epoch = 1;
  o.self.incarnation = number;
  o.token = std::move(token);
  o.listen = std::move(listen);
  return o;
}

TlsFiles files(const char* of) {
  const std::string folder = std::string(LIBRAY_SOURCE) + "/tests/net/certificates/";
  return {folder + "node-of-" + of + ".pem", folder + "ca.pem"};
}

std::string socket_path(const char* name) {
  return std::string("ipc://") + ::testing::TempDir() + name + std::to_string(::getpid());
}

Message text(std::string s) { return std::make_shared<std::string>(std::move(s)); }

void talk(TransportOptions first, TransportOptions second) {
  Mate a, b;
  auto ta = Transport::start(first, &a), tb = Transport::start(second, &b);
  ASSERT_TRUE(ta.ok()) << ta.status().message();
  ASSERT_TRUE(tb.ok()) << tb.status().message();
  {
    std::lock_guard la(a.mutex), lb(b.mutex);
    a.transport = ta->get();
    b.transport = tb->get();
  }
  (*ta)->dial(7, (*tb)->address(), 0);
  ASSERT_TRUE(a.until([&] { return a.ups == 1; }));
  ASSERT_TRUE(b.until([&] { return b.ups == 1; }));
  // 64 MB one way, several times any window, and small ones the other way.
  const std::string large(1 << 20, 'x');
  for (int i = 0; i < 64; ++i) ASSERT_TRUE((*ta)->enqueue(a.peer, kNormal, text(large + std::to_string(i))).ok());
  for (int i = 0; i < 1000; ++i) ASSERT_TRUE((*tb)->enqueue(b.peer, kUrgent, text(std::to_string(i))).ok());
  ASSERT_TRUE(b.until([&] { return b.messages.size() == 64; }));
  ASSERT_TRUE(a.until([&] { return a.messages.size() == 1000; }));
  for (int i = 0; i < 64; ++i) ASSERT_TRUE(b.messages[i] == large + std::to_string(i)) << i;
  for (int i = 0; i < 1000; ++i) ASSERT_EQ(a.messages[i], std::to_string(i));
  EXPECT_EQ(a.ups, 1);
  (*ta)->hang_up(7);
  EXPECT_TRUE(b.until([&] { return b.downs == 1; }));
}

TEST(NetTransport, Tcp) { talk(options(1, ""), options(2, "tcp://127.0.0.1:0")); }
TEST(NetTransport, Ipc) { talk(options(1, ""), options(2, socket_path("net"))); }
TEST(NetTransport, Tls) {
  TransportOptions a = options(1, ""), b = options(2, "tls+tcp://127.0.0.1:0");
  a.tls = b.tls = files("ca");
  talk(a, b);
}

TEST(NetTransport, TheLastWordArrives) {
  for (int round = 0; round < 20; ++round) {
    Mate a, b;
    auto ta = Transport::start(options(1, ""), &a), tb = Transport::start(options(2, "tcp://127.0.0.1:0"), &b);
    ASSERT_TRUE(ta.ok() && tb.ok());
    (*ta)->dial(7, (*tb)->address(), 0);
    ASSERT_TRUE(a.until([&] { return a.ups == 1; }) && b.until([&] { return b.ups == 1; }));
    ASSERT_TRUE((*ta)->enqueue(a.peer, kUrgent, text("it left")).ok());
    ta->reset();
    ASSERT_TRUE(b.until([&] { return b.downs == 1; }));
    EXPECT_EQ(b.messages, std::vector<std::string>{"it left"}) << round;
  }
}

TEST(NetTransport, ACertificateOfAnotherAuthorityIsRefused) {
  struct Said {
    std::atomic<int> lines{0};
    Mate* wake = nullptr;
    Said() { set_log_handler(count, kLogWarning, this); }
    ~Said() { set_log_handler(nullptr, kLogWarning, nullptr); }
    static void count(int32_t, const char*, const char*, const char*, void* self) {
      auto* said = static_cast<Said*>(self);
      ++said->lines;
      std::lock_guard lock(said->wake->mutex);
      said->wake->cv.notify_all();
    }
  };
  Mate a, b;
  Said said;
  said.wake = &a;
  TransportOptions oa = options(1, ""), ob = options(2, "tls+tcp://127.0.0.1:0");
  oa.tls = files("other");
  ob.tls = files("ca");
  auto ta = Transport::start(oa, &a), tb = Transport::start(ob, &b);
  ASSERT_TRUE(ta.ok() && tb.ok());
  (*ta)->dial(1, (*tb)->address(), 0);
  ASSERT_TRUE(a.until([&] { return said.lines.load() > 0; }));  // why it was closed
  std::lock_guard la(a.mutex), lb(b.mutex);
  EXPECT_EQ(a.ups + b.ups, 0);
}

TEST(NetTransport, AnotherTokenIsRefusedWithOneAnswer) {
  Mate a, b;
  auto ta = Transport::start(options(1, "", "wrong"), &a), tb = Transport::start(options(2, "tcp://127.0.0.1:0"), &b);
  ASSERT_TRUE(ta.ok() && tb.ok());
  (*ta)->dial(1, (*tb)->address(), 0);
  ASSERT_TRUE(a.until([&] { return !a.refused.empty(); }));
  EXPECT_NE(a.refused[0].find("another token"), std::string::npos) << a.refused[0];
  EXPECT_EQ(a.ups + b.ups, 0);
}

TEST(NetTransport, AMessageThatIsTooLongIsRefused) {
  Mate a;
  auto t = Transport::start(options(1, ""), &a);
  ASSERT_TRUE(t.ok());
  EXPECT_EQ((*t)->enqueue(1, kNormal, text(std::string(kMaxMessage + 1, 'x'))).code(), RAY_INVALID_ARGUMENT);
  EXPECT_EQ((*t)->enqueue(1, kNormal, nullptr).code(), RAY_INVALID_ARGUMENT);
  EXPECT_TRUE((*t)->enqueue(1, kNormal, text(std::string(kMaxMessage, 'x'))).ok());  // to nobody
}

TEST(NetTransport, AnAddressThatIsTakenOrCannotBeIsAnError) {
  Mate a;
  auto first = Transport::start(options(1, "tcp://127.0.0.1:0"), &a);
  ASSERT_TRUE(first.ok());
  auto second = Transport::start(options(2, (*first)->address()), &a);
  ASSERT_FALSE(second.ok());
  EXPECT_NE(second.status().message().find((*first)->address()), std::string::npos) << second.status().message();
  EXPECT_FALSE(Transport::start(options(2, "nonsense://x"), &a).ok());
  EXPECT_FALSE(Transport::start(options(2, "tls+tcp://127.0.0.1:0"), &a).ok());
}

// A relay that can be cut: the session goes on over the next connection, and nothing is lost or comes twice.
class Relay {
 public:
  explicit Relay(uint16_t to) : to_(to) {
    listener_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in a = address(0);
    socklen_t size = sizeof a;
    EXPECT_EQ(::bind(listener_, reinterpret_cast<sockaddr*>(&a), size), 0);
    EXPECT_EQ(::listen(listener_, 10), 0);
    ::getsockname(listener_, reinterpret_cast<sockaddr*>(&a), &size);
    port_ = ntohs(a.sin_port);
    threads_.emplace_back([this] { accept_all(); });
  }
  ~Relay() {
    ::shutdown(listener_, SHUT_RDWR);
    cut();
    std::vector<std::thread> all;
    threads_[0].join();
    for (size_t i = 1; i < threads_.size(); ++i) threads_[i].join();
    for (int fd : fds_) ::close(fd);
    ::close(listener_);
  }
  uint16_t port() const { return port_; }
  void cut() {
    std::lock_guard lock(mutex_);
    for (int fd : fds_) ::shutdown(fd, SHUT_RDWR);
  }

 private:
  static sockaddr_in address(uint16_t port) {
    sockaddr_in a{};
    a.sin_family = AF_INET;
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    a.sin_port = htons(port);
    return a;
  }
  void accept_all() {
    for (int in; (in = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC)) >= 0;) {
      const int out = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
      sockaddr_in a = address(to_);
      std::lock_guard lock(mutex_);
      fds_.push_back(in);
      fds_.push_back(out);
      if (::connect(out, reinterpret_cast<sockaddr*>(&a), sizeof a) != 0) continue;
      threads_.emplace_back([in, out] { pass(in, out); });
      threads_.emplace_back([in, out] { pass(out, in); });
    }
  }
  static void pass(int from, int to) {
    char bytes[65536];
    for (ssize_t n; (n = ::read(from, bytes, sizeof bytes)) > 0;)
      for (ssize_t at = 0, m; at < n; at += m)
        if ((m = ::send(to, bytes + at, static_cast<size_t>(n - at), MSG_NOSIGNAL)) <= 0) return;
    ::shutdown(to, SHUT_RDWR);
  }
  const uint16_t to_;
  uint16_t port_ = 0;
  int listener_;
  std::mutex mutex_;
  std::vector<int> fds_;
  std::vector<std::thread> threads_;
};

TEST(NetTransport, ACutLosesNothing) {
  Mate a, b;
  auto ta = Transport::start(options(1, ""), &a), tb = Transport::start(options(2, "tcp://127.0.0.1:0"), &b);
  ASSERT_TRUE(ta.ok() && tb.ok());
  {
    std::lock_guard lock(b.mutex);
    b.transport = tb->get();
  }
  const std::string& address = (*tb)->address();
  Relay relay(static_cast<uint16_t>(std::stoi(address.substr(address.rfind(':') + 1))));
  (*ta)->dial(1, "tcp://127.0.0.1:" + std::to_string(relay.port()), 0);
  ASSERT_TRUE(a.until([&] { return a.ups == 1; }));
  constexpr int kMessages = 20000;
  for (int i = 0; i < kMessages; ++i) {
    ASSERT_TRUE((*ta)->enqueue(a.peer, kNormal, text(std::to_string(i) + std::string(i % 3000, '.'))).ok());
    if (i % 4000 == 2000) {
      const int ups = a.ups;
      relay.cut();
      ASSERT_TRUE(a.until([&] { return a.ups > ups; }));
    }
  }
  ASSERT_TRUE(b.until([&] { return b.messages.size() >= kMessages; }));
  ASSERT_EQ(b.messages.size(), static_cast<size_t>(kMessages));
  for (int i = 0; i < kMessages; ++i) ASSERT_EQ(std::stoi(b.messages[i]), i);
  EXPECT_EQ(b.resets, 0);
}

}  // namespace
}  // namespace ray::net
