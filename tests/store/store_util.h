// Shared by the store's tests: a daemon in a directory of its own, ids, payloads, children.
#pragma once
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "libray/base/clock.h"
#include "store/client.h"
#include "store/daemon.h"

namespace ray::store {

inline constexpr int64_t kWait = 20000000000;  // generous: only a failing test waits that long

inline ObjectId make_id(uint64_t n) {
  ObjectId id;
  std::memset(id.b, 0x5a, sizeof id.b);
  std::memcpy(id.b, &n, sizeof n);
  id.set_object_index(0x80000001u);
  return id;
}
// Word k of object n: different for every object and position.
inline uint64_t pattern(uint64_t n, uint64_t k) {
  uint64_t w = (n + 1) * 0x9E3779B97F4A7C15ull ^ (k + 1) * 0xC2B2AE3D27D4EB4Full;
  return w ^ w >> 29;
}
inline void fill(uint8_t* data, uint64_t size, uint64_t n) {
  for (uint64_t i = 0; i < size; i += 8) {
    uint64_t w = pattern(n, i / 8);
    std::memcpy(data + i, &w, size - i < 8 ? size - i : 8);
  }
}
inline bool matches(const uint8_t* data, uint64_t size, uint64_t n) {
  for (uint64_t i = 0; i < size; i += 8) {
    uint64_t w = pattern(n, i / 8);
    if (std::memcmp(data + i, &w, size - i < 8 ? size - i : 8) != 0) return false;
  }
  return true;
}

class TempDir {
 public:
  TempDir() {
    const char* base = std::getenv("TMPDIR");
    std::string name = std::string(base ? base : "/tmp") + "/ray-store-XXXXXX";
    path_ = ::mkdtemp(name.data()) ? name : "";
  }
  ~TempDir() {
    std::string rm = "rm -rf '" + path_ + "'";
    if (!path_.empty()) (void)!std::system(rm.c_str());
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

struct TestStore {
  TempDir dir;
  DaemonOptions options;
  std::unique_ptr<Daemon> daemon;
  explicit TestStore(uint64_t capacity = 64 << 20, bool spill = true) {
    options.socket_path = dir.path() + "/store.sock";
    options.token = "0123456789abcdef0123456789abcdef";
    options.capacity_bytes = capacity;
    if (spill) options.spill_dir = dir.path() + "/spill";
  }
  void start() {
    auto d = Daemon::start(options);
    ASSERT_TRUE(d.ok()) << d.status().message();
    daemon = std::move(*d);
  }
  std::unique_ptr<Client> connect(uint32_t process = 0) const {
    auto c = Client::connect(options.socket_path, options.token, process);
    EXPECT_TRUE(c.ok()) << c.status().message();
    return c.ok() ? std::move(*c) : nullptr;
  }
};

// Runs fn in a child process; returns waitpid's status.
inline int in_child(const std::function<void()>& fn) {
  pid_t pid = ::fork();
  if (pid == 0) {
    fn();
    ::_exit(::testing::Test::HasFailure() ? 1 : 0);
  }
  int status = -1;
  ::waitpid(pid, &status, 0);
  return status;
}

inline Status put(Client* c, uint64_t n, uint64_t size, Location* at, int64_t timeout = kWait) {
  Building b;
  RAY_TRY(c->create(make_id(n), size, timeout, &b));
  fill(b.data, size, n);
  return c->seal(&b, at);
}
// A copy of object n with other bytes than put() writes, for `owner`.
inline Status put_other(Client* c, uint64_t n, uint64_t size, uint64_t bytes, uint32_t owner,
                        uint32_t attempt, Location* at) {
  Building b;
  RAY_TRY(c->create(make_id(n), size, kWait, &b));
  fill(b.data, size, bytes);
  b.owner = owner;
  b.attempt = attempt;
  return c->seal(&b, at);
}
inline bool reads(Client* c, uint64_t n, const Location& at, uint64_t bytes) {
  Pin p;
  if (!c->pin(make_id(n), at, kWait, &p).ok()) return false;
  bool same = matches(p.data, p.size, bytes);
  c->unpin(&p);
  return same;
}
// Pins, compares every byte, unpins.
inline ::testing::AssertionResult holds(Client* c, uint64_t n, uint64_t size,
                                        const Location& hint) {
  Pin p;
  Status s = c->pin(make_id(n), hint, kWait, &p);
  if (!s.ok())
    return ::testing::AssertionFailure()
           << "pin of " << n << ": " << s.code() << " " << s.message();
  bool same = p.size == size && matches(p.data, size, n);
  c->unpin(&p);
  return same ? ::testing::AssertionSuccess()
              : ::testing::AssertionFailure() << "object " << n << " has other bytes";
}

}  // namespace ray::store
