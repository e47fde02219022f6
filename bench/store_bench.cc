// What the object store costs: a daemon in a process of its own, one client here.
//   store_bench [--json]
// Small: create + copy + seal + pin + read + unpin + drop, median and p99 of single cycles. Large: put
// throughput against memcpy into warm memory.
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "libray/base/clock.h"
#include "store/client.h"
#include "store/daemon.h"

using namespace ray;
using namespace ray::store;

namespace {

ObjectId make_id(uint64_t n) {
  ObjectId id;
  std::memset(id.b, 0x5a, sizeof id.b);
  std::memcpy(id.b, &n, sizeof n);
  return id;
}

void check(const Status& s) {
  if (s.ok()) return;
  std::fprintf(stderr, "store_bench: %s\n", s.message().c_str());
  std::exit(1);
}

bool g_json = false;
void report(const char* name, double value, const char* unit) {
  if (g_json)
    std::printf("{\"name\": \"%s\", \"language\": \"c++\", \"value\": %.3f, \"unit\": \"%s\"}\n",
                name, value, unit);
  else
    std::printf("%-48s %12.3f %s\n", name, value, unit);
  std::fflush(stdout);
}

uint64_t g_next = 1;

void small(Client* c, uint64_t size) {
  std::vector<uint8_t> source(size, 7);
  auto cycle = [&] {
    ObjectId id = make_id(g_next++);
    Building b;
    Location at;
    check(c->create(id, size, -1, &b));
    std::memcpy(b.data, source.data(), size);
    check(c->seal(&b, &at));
    Pin p;
    check(c->pin(id, at, -1, &p));
    volatile uint8_t sum = static_cast<uint8_t>(p.data[0] + p.data[size - 1]);
    (void)sum;
    c->unpin(&p);
    c->drop(id, at);
  };
  for (int i = 0; i < 100000; ++i) cycle();
  constexpr int kRounds = 400000;
  std::vector<uint32_t> ns(kRounds);
  int64_t start = steady_ns();
  for (auto& x : ns) {
    int64_t t = steady_ns();
    cycle();
    x = static_cast<uint32_t>(steady_ns() - t);
  }
  double total = static_cast<double>(steady_ns() - start);
  std::sort(ns.begin(), ns.end());
  std::string name = "store.small." + std::to_string(size) + "B";
  report((name + ".p50").c_str(), ns[kRounds / 2], "ns");
  report((name + ".p99").c_str(), ns[kRounds / 100 * 99], "ns");
  report((name + ".rate").c_str(), kRounds / total * 1e3, "M/s");
}

double copy_speed(uint64_t size) {
  std::vector<uint8_t> from(size, 1), to(size, 2);
  std::memcpy(to.data(), from.data(), size);
  int rounds = static_cast<int>(std::max<uint64_t>(3, (uint64_t{1} << 30) / size));
  int64_t t = steady_ns();
  for (int i = 0; i < rounds; ++i) {
    std::memcpy(to.data(), from.data(), size);
    asm volatile("" ::: "memory");
  }
  return static_cast<double>(size) * rounds / static_cast<double>(steady_ns() - t);
}

void large(Client* c, uint64_t size) {
  std::vector<uint8_t> source(size, 7);
  int rounds = static_cast<int>(std::max<uint64_t>(8, (uint64_t{1} << 31) / size));
  double first = 0;
  auto put = [&] {
    ObjectId id = make_id(g_next++);
    Building b;
    Location at;
    check(c->create(id, size, -1, &b));
    std::memcpy(b.data, source.data(), size);
    check(c->seal(&b, &at));
    c->drop(id, at);
  };
  int64_t t = steady_ns();
  put();
  first = static_cast<double>(size) / static_cast<double>(steady_ns() - t);
  for (int i = 0; i < 4; ++i) put();
  t = steady_ns();
  for (int i = 0; i < rounds; ++i) put();
  double speed = static_cast<double>(size) * rounds / static_cast<double>(steady_ns() - t);
  double copy = copy_speed(size);
  std::string name = "store.large." + std::to_string(size >> 20) + "MiB";
  report((name + ".first_put").c_str(), first, "GB/s");
  report((name + ".put").c_str(), speed, "GB/s");
  report((name + ".memcpy").c_str(), copy, "GB/s");
  report((name + ".ratio").c_str(), speed / copy, "");
}

}  // namespace

int main(int argc, char** argv) {
  g_json = argc > 1 && std::strcmp(argv[1], "--json") == 0;
  char dir[] = "/tmp/store-bench-XXXXXX";
  if (!::mkdtemp(dir)) return 1;
  std::string socket = std::string(dir) + "/store.sock", token = "bench";
  int ready[2];
  if (::pipe(ready) != 0) return 1;
  pid_t pid = ::fork();
  if (pid == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    DaemonOptions o;
    o.socket_path = socket;
    o.token = token;
    o.capacity_bytes = uint64_t{2} << 30;
    auto d = Daemon::start(o);
    (void)!::write(ready[1], d.ok() ? "y" : "n", 1);
    for (;;) ::pause();
  }
  char c = 'n';
  if (::read(ready[0], &c, 1) != 1 || c != 'y') return 1;
  {
    auto client = Client::connect(socket, token);
    check(client.ok() ? Status() : client.status());
    for (uint64_t size : {8, 100, 1024, 4096}) small(client->get(), size);
    for (uint64_t size : {1 << 20, 16 << 20, 256 << 20}) large(client->get(), size);
  }
  ::kill(pid, SIGKILL);
  ::waitpid(pid, nullptr, 0);
  ::unlink(socket.c_str());
  ::rmdir(dir);
  return 0;
}
