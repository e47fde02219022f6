// The crash proof: a client is single-stepped through put, put, get and release while the daemon
// stands still, and the shared memory is audited after every machine instruction; then clients are
// killed at random instructions and the daemon must find exactly what was committed. A mutant
// client that commits before it copied the payload must be reported.
#include <sys/ptrace.h>
#include <sys/stat.h>

#include <random>
#include <set>

#include "libray/base/shm.h"
#include "store/directory.h"
#include "store/inspect.h"
#include "tests/base/single_step.h"
#include "tests/store/crash_plan.h"
#include "tests/store/memory_image.h"
#include "tests/store/process.h"

namespace ray::store {
namespace {

using test::can_step;

class Stepped {  // a traced crash_client, stopped at its first SIGSTOP
 public:
  Stepped(const char* program, const DaemonProcess& d, uint64_t first) {
    std::string id = std::to_string(first);
    pid_ = ::fork();
    if (pid_ == 0) {
      ::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
      ::setenv("LD_BIND_NOW", "1", 1);
      ::execl(program, program, d.socket.c_str(), d.token.c_str(), id.c_str(), nullptr);
      ::_exit(127);
    }
    alive_ = ::waitpid(pid_, &status_, 0) == pid_ && WIFSTOPPED(status_);  // exec's SIGTRAP
    while (alive_) {
      ::ptrace(PTRACE_CONT, pid_, nullptr, nullptr);
      if (!wait() || WSTOPSIG(status_) == SIGSTOP) break;
    }
  }
  ~Stepped() { kill(); }
  bool at_start() const { return alive_; }
  // One machine instruction; false = the second SIGSTOP or the end.
  bool step() {
    ::ptrace(PTRACE_SINGLESTEP, pid_, nullptr, nullptr);
    return wait() && WSTOPSIG(status_) == SIGTRAP;
  }
  // Lets it run to its end; its exit code.
  int finish() {
    ::ptrace(PTRACE_CONT, pid_, nullptr, nullptr);
    ::waitpid(pid_, &status_, 0);
    alive_ = false;
    return WIFEXITED(status_) ? WEXITSTATUS(status_) : -1;
  }
  void kill() {
    if (!alive_) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, &status_, 0);
    alive_ = false;
  }

 private:
  bool wait() {
    alive_ = ::waitpid(pid_, &status_, 0) == pid_ && WIFSTOPPED(status_);
    return alive_;
  }
  pid_t pid_ = -1;
  int status_ = 0;
  bool alive_ = false;
};

// Waits until the daemon has read everything, then stops it.
std::unique_ptr<MemoryImage> freeze(const DaemonProcess& d) {
  auto image = MemoryImage::open(d.pid);
  if (!image) return nullptr;
  int64_t until = steady_ns() + kWait;
  while (!image->drained() && steady_ns() < until) ::usleep(200);
  d.stop();
  return image->drained() ? std::move(image) : nullptr;
}

struct StepResult {
  uint64_t instructions = 0, violations = 0, half_built = 0, pinned = 0;
  std::set<size_t> committed;  // numbers of committed objects that were seen
  std::string first;
  int exit_code = -1;
};

StepResult step_through(const char* program) {
  StepResult r;
  DaemonProcess d;
  if (!d.start(16 << 20)) return r;
  Stepped client(program, d, 1);
  auto image = client.at_start() ? freeze(d) : nullptr;
  EXPECT_TRUE(image);
  if (!image) return r;
  image->remember_foreign_words();
  do {
    AuditResult a = image->audit();
    ++r.instructions;
    r.half_built += a.building > 0;
    r.pinned += a.holds > 0;
    r.committed.insert(a.committed.size());
    if (!a.violation.empty() && r.violations++ == 0) r.first = a.violation;
  } while (client.step());
  d.go_on();
  r.exit_code = client.finish();
  return r;
}

TEST(StoreCrash, EveryInstructionOfPutPutGetReleaseIsConsistent) {
  if (!can_step()) GTEST_SKIP() << "single-stepping is done without sanitizers";
  StepResult r = step_through(CRASH_CLIENT);
  std::printf("%llu instructions, half built at %llu, pinned at %llu\n",
              static_cast<unsigned long long>(r.instructions),
              static_cast<unsigned long long>(r.half_built),
              static_cast<unsigned long long>(r.pinned));
  EXPECT_EQ(r.exit_code, 0);
  EXPECT_EQ(r.violations, 0u) << r.first;
  EXPECT_GT(r.instructions, 500u);
  EXPECT_GT(r.half_built, 50u);
  EXPECT_GT(r.pinned, 5u);
  EXPECT_EQ(r.committed, (std::set<size_t>{0, 1, 2}));
}

TEST(StoreCrash, TheAuditCatchesACommitBeforeTheCopy) {
  if (!can_step()) GTEST_SKIP() << "single-stepping is done without sanitizers";
  StepResult r = step_through(CRASH_CLIENT_MUTANT);
  std::printf("%llu instructions, %llu violations, first: %s\n",
              static_cast<unsigned long long>(r.instructions),
              static_cast<unsigned long long>(r.violations), r.first.c_str());
  EXPECT_GT(r.violations, 50u);
}

// Kills at a random instruction, lets the daemon bury the dead, and compares with the image.
TEST(StoreCrash, ThreeHundredKillsAtRandomInstructions) {
  if (!can_step()) GTEST_SKIP() << "single-stepping is done without sanitizers";
  constexpr uint64_t kKills = 300;
  uint64_t length = step_through(CRASH_CLIENT).instructions;
  ASSERT_GT(length, 500u);
  DaemonProcess d;
  ASSERT_TRUE(d.start(32 << 20));
  auto survivor = d.connect();
  ASSERT_TRUE(survivor);
  std::mt19937_64 random(20260101);
  uint64_t found[3] = {};
  for (uint64_t k = 0; k < kKills; ++k) {
    uint64_t first = 1000 + k * 10;
    std::vector<uint64_t> committed;
    {
      Stepped client(CRASH_CLIENT, d, first);
      ASSERT_TRUE(client.at_start());
      auto image = freeze(d);
      ASSERT_TRUE(image) << k;
      uint64_t steps = random() % length;
      for (uint64_t i = 0; i < steps && client.step(); ++i) {
      }
      AuditResult a = image->audit();
      ASSERT_EQ(a.violation, "") << "kill " << k << " after " << steps << " instructions";
      committed = a.committed;
      client.kill();
      d.go_on();
    }
    ASSERT_LE(committed.size(), 2u);
    ++found[committed.size()];
    for (uint64_t n = 0; n < 2; ++n) {
      bool expected = n < committed.size();
      Pin p;
      Status s = survivor->pin(crash_id(first + n), {}, kWait, &p);
      ASSERT_EQ(s.code(), expected ? RAY_OK : RAY_NOT_FOUND) << "kill " << k << ": " << s.message();
      if (!expected) continue;
      ASSERT_EQ(p.size, kCrashSizes[n]);
      for (uint64_t i = 0; i < p.size; ++i) ASSERT_EQ(p.data[i], crash_byte(first + n, i));
      survivor->unpin(&p);
    }
    for (uint64_t n = 0; n < 3; ++n) survivor->drop(crash_id(first + n), {});
  }
  std::printf("recovered 0/1/2 objects %llu/%llu/%llu times\n",
              static_cast<unsigned long long>(found[0]), static_cast<unsigned long long>(found[1]),
              static_cast<unsigned long long>(found[2]));
  // Nothing is left: no object, no pin, no client, no memory but the survivor's.
  int64_t until = steady_ns() + kWait;
  auto left = [&] {
    auto i = inspect(d.pid, 1000);
    return i.ok() ? i->stats : DaemonStats{};
  };
  while ((left().objects > 0 || left().clients != 1) && steady_ns() < until) ::usleep(1000);
  DaemonStats s = left();
  EXPECT_EQ(s.objects, 0u);
  EXPECT_EQ(s.clients, 1u);
  EXPECT_EQ(s.pinned, 0u);
  while (left().used > (1 << 20) && steady_ns() < until) ::usleep(1000);
  EXPECT_LE(left().used, 1u << 20);
}

}  // namespace
}  // namespace ray::store
