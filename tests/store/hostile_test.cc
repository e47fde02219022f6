// A client that lies: bad hellos, bad socket messages, bad ring records, bad memory. The daemon
// must disconnect it (or ignore it) and go on serving the others; readers must not crash or hang.
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <random>
#include <thread>

#include "libray/base/log.h"
#include "libray/base/shm.h"
#include "store/layout.h"
#include "tests/store/store_util.h"

namespace ray::store {
namespace {

// Speaks the protocol by hand, so that it can break it anywhere.
class Hostile {
 public:
  explicit Hostile(const TestStore& t) : options_(t.options) {
    sockaddr_un addr{};
    addr.sun_family = AF_UNIX;
    std::memcpy(addr.sun_path, options_.socket_path.c_str(), options_.socket_path.size());
    socket_ = Fd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
    EXPECT_EQ(::connect(socket_.get(), reinterpret_cast<sockaddr*>(&addr), sizeof addr), 0);
    timeval tv{20, 0};
    ::setsockopt(socket_.get(), SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
  }
  void send(const void* data, size_t size) {
    (void)send_with_fds(socket_.get(), data, size, nullptr, 0);
  }
  StoreHello good_hello() const {
    StoreHello h{};
    h.magic = kStoreMagic;
    h.version = kStoreVersion;
    h.token_size = static_cast<uint32_t>(options_.token.size());
    std::memcpy(h.token, options_.token.data(), options_.token.size());
    return h;
  }
  bool join() {
    StoreHello h = good_hello();
    send(&h, sizeof h);
    std::vector<Fd> fds;
    StoreWelcome w{};
    auto n = recv_with_fds(socket_.get(), &w, sizeof w, &fds);
    if (!n.ok() || *n != sizeof w || w.code != RAY_OK || fds.size() != 3) return false;
    segment = w.segment;
    control_ = std::move(*map_shared(fds[0].get(), kControlBytes, true));
    auto dir = map_shared(fds[2].get(), sizeof(uint64_t) * 512, false);
    geometry.arena_bytes = reinterpret_cast<const uint64_t*>(dir->data())[3];
    arena_ = std::move(*map_shared(fds[1].get(), geometry.arena_bytes, true, geometry.arena_at()));
    data_fd = std::move(fds[1]);
    directory_fd = std::move(fds[2]);
    page = reinterpret_cast<ControlHeader*>(control_.data());
    ring = RingProducer(&page->publish, control_.data() + kPublishAt, kPublishBytes);
    return true;
  }
  void record(uint16_t type, const void* data, uint32_t size) {
    if (void* at = ring.reserve(type, size)) std::memcpy(at, data, size);
    ring.publish();
    wake();
  }
  void wake() {
    PlainMessage m{kMsgWake};
    send(&m, sizeof m);
  }
  // An extent, as an honest client would get it.
  GrantRecord lease() {
    LeaseRecord l{7777, 0, 1000000000, kLeaseSmall, 0};
    record(kLease, &l, sizeof l);
    RingConsumer c(&page->returns, control_.data() + kReturnsAt, kReturnsBytes);
    RecordView v{};
    int64_t until = steady_ns() + kWait;
    while (c.next(&v) != RingConsumer::Next::kRecord && steady_ns() < until)
      std::this_thread::yield();
    GrantRecord g{};
    EXPECT_EQ(v.type, kGrant);
    if (v.type == kGrant) std::memcpy(&g, v.data, sizeof g);
    c.release();
    return g;
  }
  // Whether the daemon hangs up (waits for it).
  bool is_thrown_out() {
    for (;;) {
      char b[kMessageMax];
      auto n = recv_with_fds(socket_.get(), b, sizeof b, nullptr);
      if (!n.ok()) return n.status().code() == RAY_UNAVAILABLE;
      if (*n == 0) return true;
    }
  }
  uint8_t* control() { return control_.data(); }
  uint8_t* arena() { return arena_.data(); }
  Fd data_fd, directory_fd;
  DataGeometry geometry;
  uint32_t segment = 0;
  ControlHeader* page = nullptr;
  RingProducer ring;

 private:
  DaemonOptions options_;
  Fd socket_;
  Mapping control_, arena_;
};

class StoreHostile : public ::testing::Test {
 protected:
  void SetUp() override {
    set_log_handler([](int32_t, const char*, const char*, const char*, void*) {}, kLogError,
                    nullptr);
    store_.start();
    honest_ = store_.connect();
  }
  // The store still works for everybody else.
  void TearDown() override {
    Location at;
    ASSERT_TRUE(put(honest_.get(), 99, 1000, &at).ok());
    EXPECT_TRUE(holds(honest_.get(), 99, 1000, at));
    auto fresh = store_.connect();
    ASSERT_TRUE(fresh);
    EXPECT_TRUE(holds(fresh.get(), 99, 1000, {}));
    set_log_handler(nullptr, kLogWarning, nullptr);
  }
  TestStore store_{16 << 20};
  std::unique_ptr<Client> honest_;
};

TEST_F(StoreHostile, BadHellos) {
  auto refused = [&](std::function<void(Hostile*, StoreHello*)> spoil) {
    Hostile h(store_);
    StoreHello hello = h.good_hello();
    spoil(&h, &hello);
    return h.is_thrown_out();
  };
  EXPECT_TRUE(refused([](Hostile* h, StoreHello* x) { x->magic = 1, h->send(x, sizeof *x); }));
  EXPECT_TRUE(refused([](Hostile* h, StoreHello* x) { x->version = 99, h->send(x, sizeof *x); }));
  EXPECT_TRUE(refused([](Hostile* h, StoreHello* x) { x->token[3] ^= 1, h->send(x, sizeof *x); }));
  EXPECT_TRUE(refused(
      [](Hostile* h, StoreHello* x) { x->token_size = 0xFFFFFFFF, h->send(x, sizeof *x); }));
  EXPECT_TRUE(refused([](Hostile* h, StoreHello* x) { h->send(x, 5); }));
  EXPECT_TRUE(refused([](Hostile* h, StoreHello*) {
    std::vector<char> big(4096, 'x');
    h->send(big.data(), big.size());
  }));
  auto c = Client::connect(store_.options.socket_path, "wrong");
  ASSERT_FALSE(c.ok());
  EXPECT_EQ(c.status().code(), RAY_INVALID_ARGUMENT) << c.status().message();
}

TEST_F(StoreHostile, BadSocketMessagesAfterHello) {
  for (size_t size : {1u, 4u, 100u, 511u}) {
    Hostile h(store_);
    ASSERT_TRUE(h.join());
    std::vector<char> junk(size, 0x77);
    h.send(junk.data(), junk.size());
    EXPECT_TRUE(h.is_thrown_out()) << size;
  }
  Hostile h(store_);  // a segment that does not exist is only an error
  ASSERT_TRUE(h.join());
  SegmentMessage m{kMsgSegment, 123456, 1, 0, 0};
  h.send(&m, sizeof m);
  m = {kMsgSegment, 0, 1, 0, 1};
  h.send(&m, 7);
  EXPECT_TRUE(h.is_thrown_out());
}

TEST_F(StoreHostile, BadPublishRecords) {
  auto thrown_out = [&](std::function<void(PublishRecord*, const GrantRecord&)> spoil) {
    Hostile h(store_);
    EXPECT_TRUE(h.join());
    GrantRecord g = h.lease();
    PublishRecord r{make_id(5), g.offset, 64, g.extent, 0};
    spoil(&r, g);
    h.record(kPublish, &r, sizeof r);
    return h.is_thrown_out();
  };
  EXPECT_TRUE(thrown_out([](PublishRecord* r, const GrantRecord&) { r->extent = 0xFFFFFFFF; }));
  EXPECT_TRUE(thrown_out([](PublishRecord* r, const GrantRecord& g) { r->extent = g.extent + 1; }));
  EXPECT_TRUE(
      thrown_out([](PublishRecord* r, const GrantRecord& g) { r->offset = g.offset + g.bytes; }));
  EXPECT_TRUE(thrown_out([](PublishRecord* r, const GrantRecord&) { r->offset += 8; }));
  EXPECT_TRUE(thrown_out([](PublishRecord* r, const GrantRecord&) { r->offset = 0ull - 64; }));
  EXPECT_TRUE(thrown_out([](PublishRecord* r, const GrantRecord& g) { r->size = g.bytes; }));
  EXPECT_TRUE(thrown_out([](PublishRecord* r, const GrantRecord&) { r->size = UINT64_MAX; }));
  EXPECT_TRUE(thrown_out([](PublishRecord* r, const GrantRecord&) { r->size = UINT64_MAX - 127; }));
  EXPECT_TRUE(thrown_out([](PublishRecord* r, const GrantRecord&) { r->id = ObjectId{}; }));
}

TEST_F(StoreHostile, BadRingWords) {
  for (uint64_t tail : {UINT64_MAX, uint64_t{kPublishBytes} * 2, uint64_t{13}}) {
    Hostile h(store_);
    ASSERT_TRUE(h.join());
    h.page->publish.tail.store(tail);
    h.wake();
    EXPECT_TRUE(h.is_thrown_out()) << tail;
  }
  for (uint32_t size : {0u, 7u, 0xFFFFFFFFu, 1u << 20}) {
    Hostile h(store_);
    ASSERT_TRUE(h.join());
    RecordHeader bad{size, kPublish, 0};
    std::memcpy(h.control() + kPublishAt, &bad, sizeof bad);
    h.page->publish.tail.store(64);
    h.wake();
    EXPECT_TRUE(h.is_thrown_out()) << size;
  }
  Hostile h(store_);  // an unknown type, a wrong size
  ASSERT_TRUE(h.join());
  h.record(200, "x", 1);
  EXPECT_TRUE(h.is_thrown_out());
}

// A pass reads all that stood in a ring when it began, however many records that are: a drop that was read before the
// object's own record is looked at again after one pass, and then never.
TEST_F(StoreHostile, WhatStandsBehindManySmallRecordsIsPartOfThePass) {
  Hostile owner(store_), other(store_);
  ASSERT_TRUE(owner.join());
  ASSERT_TRUE(other.join());
  GrantRecord g = owner.lease();
  auto sealed = [&](uint64_t n, uint64_t offset) {
    auto* h = reinterpret_cast<ObjectHeader*>(owner.arena() + offset);
    h->size = 64;
    h->id = make_id(n);
    h->state.store(state_word(g.generation, kSealed));
    return PublishRecord{make_id(n), offset, 64, g.extent, 0, 0, 0, 0};
  };
  auto reserve = [](Hostile* h, uint16_t type, const void* data, uint32_t size) {
    void* at = h->ring.reserve(type, size);
    ASSERT_NE(at, nullptr);
    if (size) std::memcpy(at, data, size);
  };
  for (int i = 0; i < 12000; ++i) reserve(&owner, kUnpinned, nullptr, 0);
  PublishRecord first = sealed(9, g.offset);
  reserve(&owner, kPublish, &first, sizeof first);
  DropRecord drop{make_id(9), {owner.segment, g.generation, g.offset, 64}};
  reserve(&other, kDrop, &drop, sizeof drop);
  owner.ring.publish();
  other.ring.publish();
  other.wake();
  PublishRecord second = sealed(10, g.offset + footprint(64));
  owner.record(kPublish, &second, sizeof second);
  auto reader = store_.connect();
  Pin pin;
  const int64_t until = steady_ns() + kWait;
  while (!reader->pin(make_id(10), {}, kWait, &pin).ok() && steady_ns() < until) std::this_thread::yield();
  EXPECT_EQ(store_.daemon->stats().objects, 1u);
  reader->unpin(&pin);
}

// Times are a client's numbers too.
TEST_F(StoreHostile, WhoWaitsForCenturiesKeepsNobodyAwake) {
  Hostile h(store_);
  ASSERT_TRUE(h.join());
  Building b;
  auto honest = store_.connect();
  ASSERT_TRUE(honest->create(make_id(1), store_.options.capacity_bytes / 4 * 3, kWait, &b).ok());
  LeaseRecord l{1, store_.options.capacity_bytes / 2, INT64_MAX - 1, 0, 0};
  h.record(kLease, &l, sizeof l);
  EXPECT_EQ(store_.daemon->stats().waiting_creates, 1u);
  honest->abort(&b);
  const int64_t until = steady_ns() + kWait;
  while (store_.daemon->stats().waiting_creates > 0 && steady_ns() < until) std::this_thread::yield();
  EXPECT_EQ(store_.daemon->stats().waiting_creates, 0u);
}

TEST_F(StoreHostile, BadRequests) {
  Hostile h(store_);
  ASSERT_TRUE(h.join());
  for (uint64_t bytes : {UINT64_MAX, UINT64_MAX - 63, uint64_t{1} << 60}) {
    LeaseRecord l{1, bytes, 0, 0, 0};
    h.record(kLease, &l, sizeof l);
  }
  AckRecord a{42};
  h.record(kAck, &a, sizeof a);
  LocateRecord l{1, make_id(4242), 0, -1};
  h.record(kLocate, &l, sizeof l);
  CloseRecord c{12345, 0};
  h.record(kClose, &c, sizeof c);
  EXPECT_TRUE(h.is_thrown_out());
  // Thousands of questions whose answers are never read: thrown out, not piled up.
  Hostile flood(store_);
  ASSERT_TRUE(flood.join());
  for (uint64_t i = 0; i < 20000; ++i) {
    LocateRecord q{i + 1, make_id(i), 0, -1};
    flood.record(kLocate, &q, sizeof q);
    if (i % 1000 == 0) std::this_thread::yield();
  }
  EXPECT_TRUE(flood.is_thrown_out());
}

// What the daemon keeps for a client is bounded: rows of one place, places that it never acknowledges.
TEST_F(StoreHostile, WhoNeverStopsIsThrownOut) {
  Hostile h(store_);
  ASSERT_TRUE(h.join());
  GrantRecord g = h.lease();
  for (uint64_t i = 0; i <= g.bytes / footprint(64); ++i) {
    PublishRecord r{make_id(1000 + i), g.offset, 64, g.extent, 0, 0, 0, 0};
    h.record(kPublish, &r, sizeof r);
    if (i % 256 == 0) (void)store_.daemon->stats();  // it has read them
  }
  EXPECT_TRUE(h.is_thrown_out());
  Location at;
  ASSERT_TRUE(put(honest_.get(), 5, 1000, &at).ok());
  Hostile asks(store_);
  ASSERT_TRUE(asks.join());
  RingConsumer answers(&asks.page->returns, asks.control() + kReturnsAt, kReturnsBytes);
  for (uint64_t i = 0; i < 5000; ++i) {
    LocateRecord q{i + 1, make_id(5), 0, -1};
    asks.record(kLocate, &q, sizeof q);
    if (i % 256 != 0) continue;
    (void)store_.daemon->stats();
    RecordView v{};
    while (answers.next(&v) == RingConsumer::Next::kRecord) answers.release();
  }
  EXPECT_TRUE(asks.is_thrown_out());
}

TEST_F(StoreHostile, GarbageInTheHoldTableHurtsNobody) {
  Hostile h(store_);
  ASSERT_TRUE(h.join());
  auto* words = reinterpret_cast<std::atomic<uint64_t>*>(h.control() + kHoldsAt);
  std::mt19937_64 random(1);
  for (uint32_t i = 0; i < 1000; ++i) words[i].store(random());
  h.page->hold_limit.store(UINT32_MAX);
  h.page->recent_count.store(UINT64_MAX / 2);
  for (uint64_t n = 0; n < 1000; ++n) {
    Location at;
    ASSERT_TRUE(put(honest_.get(), 1000 + n, 30000, &at).ok());
    if (n >= 100) honest_->drop(make_id(900 + n), {});
  }
  EXPECT_LE(store_.daemon->stats().used, store_.daemon->stats().capacity);
}

// The record is right, the memory is not: readers get an error, the spiller and the daemon survive.
TEST_F(StoreHostile, BrokenHeadersAreAnErrorForReaders) {
  Hostile h(store_);
  ASSERT_TRUE(h.join());
  GrantRecord g = h.lease();
  auto publish = [&](uint64_t n, uint64_t offset, uint64_t size, uint64_t state,
                     uint64_t header_size) {
    auto* head = reinterpret_cast<ObjectHeader*>(h.arena() + offset);
    head->size = header_size;
    head->id = make_id(n);
    head->state.store(state);
    PublishRecord r{make_id(n), offset, size, g.extent, 0};
    h.record(kPublish, &r, sizeof r);
  };
  publish(11, g.offset, 64, state_word(g.generation, kBuilding), 64);
  publish(12, g.offset + 256, 64, state_word(g.generation + 1, kSealed), 64);
  publish(13, g.offset + 512, 64, state_word(g.generation, kSealed), UINT64_MAX);
  publish(14, g.offset + 768, 64, state_word(g.generation, kSealed), uint64_t{1} << 50);
  Pin p;
  for (uint64_t n = 11; n <= 14; ++n) {
    EXPECT_EQ(honest_->pin(make_id(n), {}, kWait, &p).code(), RAY_OBJECT_LOST) << n;
    Location hint{h.segment, g.generation, g.offset + (n - 11) * 256, 64};
    EXPECT_EQ(honest_->pin(make_id(n), hint, kWait, &p).code(), RAY_OBJECT_LOST) << n;
  }
  publish(15, g.offset + 1024, 64, state_word(g.generation, kSealed), 64);
  EXPECT_TRUE(honest_->pin(make_id(15), {}, kWait, &p).ok());
  honest_->unpin(&p);
}

TEST_F(StoreHostile, BadHintsAreMisses) {
  Location at;
  ASSERT_TRUE(put(honest_.get(), 1, 500, &at).ok());
  std::mt19937_64 random(7);
  auto other = store_.connect();
  for (int i = 0; i < 3000; ++i) {
    Location bad = at;
    switch (random() % 4) {
      case 0: bad.offset = random(); break;
      case 1: bad.generation = static_cast<uint32_t>(random()); break;
      case 2: bad.segment = static_cast<uint32_t>(random() % 1000); break;
      case 3: bad.offset = at.offset + random() % (1 << 20) / 64 * 64; break;
    }
    bad.size = random();
    const bool same = bad.generation == at.generation && bad.offset == at.offset;
    ASSERT_EQ(static_cast<bool>(holds(other.get(), 1, 500, bad)), same) << i << ' ' << bad.segment << ' ' << bad.offset;
  }
  EXPECT_TRUE(holds(other.get(), 1, 500, {}));
}

TEST_F(StoreHostile, RandomRingBytesNeverStopTheDaemon) {
  std::mt19937_64 random(20260102);
  for (int round = 0; round < 300; ++round) {
    Hostile h(store_);
    ASSERT_TRUE(h.join());
    GrantRecord g = h.lease();
    for (int i = 0; i < 40; ++i) {
      uint64_t words[8];
      for (auto& w : words) {
        switch (random() % 4) {
          case 0: w = random(); break;
          case 1: w = g.offset + random() % 4096 * 64; break;
          case 2: w = random() % 64; break;
          default: w = g.extent | random() % 2 << 32; break;
        }
      }
      static const uint32_t sizes[9] = {8, 48, 48, 8, 32, 40, 8, 0, 17};
      uint16_t type = static_cast<uint16_t>(random() % 9);
      h.record(type, words, sizes[type]);
    }
    if (round % 3 == 0) h.page->publish.tail.fetch_add(random() % 4096);
    h.wake();
  }
}

// No descriptors left in the daemon's process: connections are refused, nothing spins, and it
// recovers.
TEST_F(StoreHostile, OutOfDescriptors) {
  rlimit old{};
  ::getrlimit(RLIMIT_NOFILE, &old);
  Fd next(::dup(2));
  rlimit low{static_cast<rlim_t>(next.get()) + 24, old.rlim_max};
  ::setrlimit(RLIMIT_NOFILE, &low);
  std::vector<std::unique_ptr<Client>> clients;
  Status failed;
  for (int i = 0; i < 40 && failed.ok(); ++i) {
    auto c = Client::connect(store_.options.socket_path, store_.options.token);
    if (c.ok())
      clients.push_back(std::move(*c));
    else
      failed = c.status();
  }
  EXPECT_FALSE(failed.ok());
  EXPECT_FALSE(failed.message().empty());
  clients.clear();
  ::setrlimit(RLIMIT_NOFILE, &old);
}

// A segment that another process may map is read-only for it, whatever it tries.
TEST_F(StoreHostile, ReadersCannotMapWritable) {
  Hostile h(store_);
  ASSERT_TRUE(h.join());
  // The directory's descriptor, as every client gets it.
  EXPECT_EQ(::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, h.directory_fd.get(), 0),
            MAP_FAILED);
  void* r = ::mmap(nullptr, 4096, PROT_READ, MAP_SHARED, h.directory_fd.get(), 0);
  ASSERT_NE(r, MAP_FAILED);
  EXPECT_NE(::mprotect(r, 4096, PROT_READ | PROT_WRITE), 0);
  ::munmap(r, 4096);
  EXPECT_NE(::ftruncate(h.directory_fd.get(), 0), 0);
  // Its own data memfd can be written by the owner, but never cut.
  EXPECT_NE(::ftruncate(h.data_fd.get(), 4096), 0);
}

}  // namespace
}  // namespace ray::store
