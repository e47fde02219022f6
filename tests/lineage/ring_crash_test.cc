// The crash proof of rings and of the records that are coded in them: a writer is single-stepped through
// 150 records, alone and several to a publish, over the ring's end more than once, and after every
// machine instruction a reader takes what is committed. Killed at any of them, a writer thus leaves
// whole records, in order, and nothing else. A mutant that commits before it copies must be caught.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <string>

#include "libray/base/ring.h"
#include "libray/base/shm.h"
#include "libray/lineage/delta.h"
#include "libray/lineage/record.h"
#include "tests/base/single_step.h"

namespace ray::lineage {
namespace {

using test::can_step;

constexpr uint64_t kRing = 4096, kMapped = 8192;
constexpr uint32_t kRecords = 150;

struct Shared {
  RingWords words;
  uint8_t data[kRing];
};
static_assert(sizeof(Shared) <= kMapped);

// Record number i: submissions, executions and events in turns, of sizes that change now and then.
struct Expected {
  uint16_t type;
  uint32_t size;
  uint8_t bytes[512];
};
void make(uint32_t i, Expected* out) {
  std::memset(out->bytes, 0, sizeof out->bytes);
  out->type = i % 7 == 6 ? kEvent : i % 2 ? kExec : kSubmit;
  out->size = out->type == kEvent ? 200 + i % 160 : i % 50 < 40 ? 136 : 144;
  for (uint32_t k = 0; k < out->size; k += 8) {
    uint64_t w = k % 24 == 0 ? i * 1000003ull + k : 0x5A5A5A5A00000000ull + k;
    std::memcpy(out->bytes + k, &w, std::min<uint32_t>(8, out->size - k));
  }
}

// As DaemonChannel::lineage writes them; `early` is the mutant.
void write_all(Shared* shared, bool early) {
  static DeltaCoder coder;
  static Expected record;
  RingProducer ring(&shared->words, shared->data, kRing);
  for (uint32_t i = 0; i < kRecords; ++i) {
    make(i, &record);
    uint8_t coded[DeltaCoder::kMaxCoded];
    const uint8_t* bytes = coded;
    uint16_t type = kCoded;
    uint32_t size = coder.code(record.type, record.bytes, record.size, coded);
    if (!size) type = record.type, size = record.size, bytes = coder.whole(type, record.bytes, size);
    void* at;
    while (!(at = ring.reserve(type, size))) ring.publish();
    if (early) ring.publish();
    std::memcpy(at, bytes, size);
    if (i % 3 != 1) ring.publish();  // every third is committed with the one after it
  }
  ring.publish();
}

struct Stepped {
  uint64_t instructions = 0, violations = 0;
  uint32_t records = 0;
  uint64_t rounds = 0;  // over the ring's end
  std::string first;
};

// Reads all that is committed; what is wrong with it is counted.
class Reader {
 public:
  explicit Reader(Shared* s) : ring_(&s->words, s->data, kRing) {}
  void look(Stepped* r) {
    RecordView v;
    while (!broken_) {
      auto next = ring_.next(&v);
      if (next == RingConsumer::Next::kEmpty) break;
      make(r->records, &expected_);
      if (next == RingConsumer::Next::kCorrupt || !mirror_.restore(&v.type, &v.data, &v.size))
        wrong(r, "unreadable");
      else if (v.type != expected_.type || v.size != expected_.size ||
               std::memcmp(v.data, expected_.bytes, v.size) != 0)
        wrong(r, "not what was written");
      else
        ++r->records;
    }
    ring_.release();
    r->rounds = ring_.position() / kRing;
  }

 private:
  void wrong(Stepped* r, const char* how) {
    ++r->violations;
    broken_ = true;  // what follows would count on it
    r->first = "record " + std::to_string(r->records) + " is " + how;
  }
  RingConsumer ring_;
  DeltaMirror mirror_;
  Expected expected_;
  bool broken_ = false;
};

Stepped step_through(bool early) {
  Stepped r;
  auto memfd = create_memfd("ring-crash", kMapped);
  auto map = map_shared(memfd->get(), kMapped, true);
  auto* shared = reinterpret_cast<Shared*>(map->data());
  pid_t pid = ::fork();
  if (pid == 0) {
    ::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
    ::raise(SIGSTOP);
    write_all(shared, early);
    ::_exit(0);
  }
  Reader reader(shared);
  int status = 0;
  while (::waitpid(pid, &status, 0) == pid && WIFSTOPPED(status)) {
    ++r.instructions;
    reader.look(&r);
    if (r.violations) ::kill(pid, SIGKILL);
    else ::ptrace(PTRACE_SINGLESTEP, pid, nullptr, nullptr);
  }
  return r;
}

TEST(RingCrash, EveryInstructionLeavesWholeRecordsInOrder) {
  if (!can_step()) GTEST_SKIP() << "single-stepping is done without sanitizers";
  Stepped r = step_through(false);
  std::printf("%llu instructions, %u records, %llu times around\n", static_cast<unsigned long long>(r.instructions),
              r.records, static_cast<unsigned long long>(r.rounds));
  EXPECT_EQ(r.violations, 0u) << r.first;
  EXPECT_EQ(r.records, kRecords);
  EXPECT_GT(r.instructions, 10000u);
  EXPECT_GE(r.rounds, 2u);
}

TEST(RingCrash, ACommitBeforeTheCopyIsCaught) {
  if (!can_step()) GTEST_SKIP() << "single-stepping is done without sanitizers";
  Stepped r = step_through(true);
  std::printf("caught after %llu instructions: %s\n", static_cast<unsigned long long>(r.instructions), r.first.c_str());
  EXPECT_EQ(r.violations, 1u);
}

}  // namespace
}  // namespace ray::lineage
