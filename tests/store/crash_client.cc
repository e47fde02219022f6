// The client that crash_test.cc single-steps and kills: put, put, get, release between two
// SIGSTOPs.
//   crash_client SOCKET TOKEN FIRST_ID
// Linked twice: with the store's client, and with the mutant that commits before the payload is
// copied.
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cstdlib>

#include "tests/store/crash_plan.h"

using namespace ray;
using namespace ray::store;

namespace {

// Eight bytes at a time, so that the audit sees every half-copied state.
__attribute__((noinline)) void copy(uint8_t* to, const uint8_t* from, uint64_t size) {
  for (uint64_t i = 0; i + 8 <= size; i += 8) {
    uint64_t w;
    __builtin_memcpy(&w, from + i, 8);
    *reinterpret_cast<volatile uint64_t*>(to + i) = w;
  }
}

bool put(Client* c, uint64_t n, const uint8_t* from, uint64_t size, Location* at) {
  Building b;
  if (!c->create(crash_id(n), size, -1, &b).ok()) return false;
  copy(b.data, from, size);
  return c->seal(&b, at).ok();
}

bool get(Client* c, uint64_t n, const Location& at) {
  Pin p;
  if (!c->pin(crash_id(n), at, -1, &p).ok()) return false;
  volatile uint8_t first = p.data[0];
  bool same = first == crash_byte(n, 0);
  c->unpin(&p);
  return same;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) return 2;
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  auto client = Client::connect(argv[1], argv[2]);
  if (!client.ok()) return 3;
  uint64_t first = std::strtoull(argv[3], nullptr, 10);
  static uint8_t bytes[3][kCrashSizes[1]];
  for (uint64_t k = 0; k < 3; ++k)
    for (uint64_t i = 0; i < sizeof bytes[k]; ++i) bytes[k][i] = crash_byte(first + k, i);
  // Leases the extent and touches every path once.
  Location warm, a, b;
  if (!put(client->get(), first + 2, bytes[2], 64, &warm) || !get(client->get(), first + 2, warm))
    return 4;
  ::raise(SIGSTOP);
  bool ok = put(client->get(), first, bytes[0], kCrashSizes[0], &a) &&
            put(client->get(), first + 1, bytes[1], kCrashSizes[1], &b) &&
            get(client->get(), first, a);
  ::raise(SIGSTOP);
  ::_exit(ok ? 0 : 5);
}
