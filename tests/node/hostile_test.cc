// A node under processes that write nonsense: records of every kind with plausible and absurd
// fields, wrong sizes, random bytes, broken rings. Whatever they do, the daemon lives, cuts off who
// breaks the protocol, and serves an honest driver. One fixed row of random numbers;
// LIBRAY_HOSTILE_SEED asks for another.
#include <dirent.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <filesystem>
#include <fstream>
#include <random>

#include "libray/session/session.h"
#include "raw_client.h"

namespace ray {
namespace {

using test::RawClient;
using test::Record;

class Hostile {
 public:
  // rude: also breaks the protocol's form, and is soon cut off; else its records are well-formed
  // and only what they say makes no sense, which reaches deeper.
  Hostile(RawClient* c, std::mt19937_64* random, bool rude) : c_(c), random_(*random), rude_(rude) {
    for (uint32_t i = 0; i < 4; ++i) {
      TaskId t = child_task(origin_of(c->welcome.root), i);
      for (const Id& id : {t, return_object(t, 0), put_object(t, i), actor_of(t)})
        ids_.push_back(id);
    }
    if (!rude)
      for (uint32_t i = 0; i < 6; ++i) c_->shape(i, {{i % 2 ? "CPU" : "GPU", i * 0.5}});
    // Objects and actors of other processes: the same for all hostile drivers.
    TaskId foreign = child_task(origin_of(root_task(Id{})), 1);
    for (const Id& id : {foreign, return_object(foreign, 0), actor_of(foreign), Id{}})
      ids_.push_back(id);
  }

  void record() {
    switch (random_() % 16) {
      case 0: return rude_ ? garbage() : object();
      case 1:
      case 2: return request();
      case 3: return shape();
      case 4:
        return put(wire::kUpLeaseWant,
                   wire::UpLeaseWant{small(), !rude_ || small() % 4 ? small() : u32(), id()});
      case 5:
        return put(pick({wire::kUpLeaseReturn, wire::kUpKillWorker}),
                   wire::UpLeaseReturn{small(), small()});
      case 6: return put(wire::kUpBlocked, wire::UpBlocked{small(), 0});
      case 7:
      case 8:
      case 9: return object();
      case 10:
        return put(pick({wire::kUpObjHold, wire::kUpObjRelease}),
                   wire::UpObjCount{id(), !rude_ || small() % 8 ? small() : u32(),
                                    !rude_ || small() % 8 ? small() : u32()});
      case 11: return actor_create();
      case 12:
      case 13:
        return put(pick({wire::kUpActorConnect, wire::kUpActorKill, wire::kUpActorReady,
                         wire::kUpActorExit}),
                   wire::UpActor{id(), small(), static_cast<int32_t>(small()), small(), size()});
      case 14: return lineage();
      default: return put_bytes(wire::kUpError, rude_ ? bytes(random_() % 40) : "\x81\xa4kind\x01");
    }
  }
  std::vector<ActorId> detached;  // that it asked for: they may stay when it is gone
  // The words of the rings themselves.
  void break_ring() {
    auto& words = random_() % 2 ? c_->header->up : c_->header->lineage;
    words.tail.store(random_() % 2 ? random_() : words.tail.load() + random_() % 4096);
    c_->knock();
  }

 private:
  uint32_t u32() { return static_cast<uint32_t>(random_()); }
  uint32_t small() { return static_cast<uint32_t>(random_() % 6); }
  uint32_t size() {
    return !rude_ ? 0 : random_() % 4 ? static_cast<uint32_t>(random_() % 32) : u32();
  }
  Id id() {
    if (random_() % 16) return ids_[random_() % ids_.size()];
    Id x;
    for (auto& b : x.b) b = static_cast<uint8_t>(random_());
    return x;
  }
  uint16_t pick(std::initializer_list<uint16_t> types) {
    return types.begin()[random_() % types.size()];
  }
  std::string bytes(size_t n) {
    std::string s(n, '\0');
    for (char& b : s) b = static_cast<char>(random_());
    return s;
  }
  template <class T>
  void put(uint16_t type, const T& head, const std::string& tail = "") {
    std::string s(reinterpret_cast<const char*>(&head), sizeof head);
    s += tail;
    if (rude_ && random_() % 32 == 0) s.resize(random_() % (s.size() + 1));
    put_bytes(type, s);
  }
  void put_bytes(uint16_t type, const std::string& s) {
    c_->up_bytes(type, s, static_cast<uint16_t>(!rude_ || random_() % 16 ? 0 : random_() % 4));
  }
  void garbage() { put_bytes(static_cast<uint16_t>(random_() % 24), bytes(random_() % 200)); }

  void request() {
    wire::Packer w;
    uint32_t op = static_cast<uint32_t>(random_() %
                                        wire::kOpShutdown);  // ending the node is a driver's right
    if (rude_ && random_() % 16 == 0) op = wire::kOpShutdown + 1 + small();
    switch (random_() % 6) {
      case 0: w.array(0); break;
      case 1: w.array(1).id(id()); break;
      case 2: w.array(2).str("ns").bin(bytes(random_() % 8)); break;
      case 3:
        w.array(4)
            .str("ns")
            .bin("key")
            .bin(bytes(random_() % 100))
            .uint64(random_() % 2 ? UINT64_MAX : small());
        break;
      case 4:
        w.array(2).str(random_() % 2 ? "tasks" : "actors").map(1).str("limit").uint64(small());
        break;
      default:
        w.array(5).uint64(small()).uint64(small()).uint64(small()).str("f").bin(bytes(random_() % 50));
    }
    std::string args = !rude_ || random_() % 8 ? w.bytes() : bytes(random_() % 60);
    put(wire::kUpRequest, wire::UpRequest{random_() % 4, op, 0}, args);
  }
  void shape() {
    wire::Packer w;
    static const double amounts[] = {0, 1, 0.5, 3, 2, 1e-5, -1, 1e300};
    uint32_t n = small() % 3;
    w.map(n);
    for (uint32_t i = 0; i < n; ++i)
      w.str(i ? "GPU" : "CPU").float64(amounts[random_() % (rude_ ? std::size(amounts) : 5)]);
    put(wire::kUpShape, wire::UpShape{small(), static_cast<int32_t>(small()) - 1},
        random_() % 8 ? w.bytes() : bytes(9));
  }
  void object() {
    wire::UpObj o{};
    o.id = id();
    o.location = {small(), small(), random_() % 4 * 4096, random_() % 4 * 100};
    o.state = rude_ ? small() : small() % 4;
    o.code = static_cast<int32_t>(small());
    o.n_contained = !rude_ || random_() % 16 ? small() : u32();
    std::string tail;
    for (uint32_t i = 0; i < std::min(o.n_contained, 6u); ++i) {
      Id x = id();
      tail.append(reinterpret_cast<const char*>(x.b), kIdSize);
    }
    put(pick({wire::kUpObjShare, wire::kUpObjReady, wire::kUpObjResolve}), o, tail);
  }
  void actor_create() {
    wire::UpActorCreate a{};
    a.id = id();
    a.req_id = small();
    a.language = rude_ ? static_cast<int32_t>(small()) : 0;
    a.max_restarts = static_cast<int32_t>(small()) - 1;
    a.lifetime = static_cast<int32_t>(small() % 3);
    if (a.lifetime == RAY_LIFETIME_DETACHED) detached.push_back(a.id);
    a.max_concurrency = small();
    a.flags = small();
    std::string parts[6];
    for (auto& p : parts) p = bytes(random_() % 12);
    if (random_() % 2) parts[0] = "name", parts[1] = "ns";
    if (!rude_ || random_() % 4) parts[4] = std::string("\x81\xa3") + "CPU\x01";
    a.name_size = static_cast<uint32_t>(parts[0].size());
    a.ns_size = static_cast<uint32_t>(parts[1].size());
    a.class_size = static_cast<uint32_t>(parts[2].size());
    a.metadata_size = static_cast<uint32_t>(parts[3].size());
    a.resources_size = static_cast<uint32_t>(parts[4].size());
    a.record_size = static_cast<uint32_t>(parts[5].size());
    a.n_dependencies = !rude_ || random_() % 8 ? small() % 3 : u32();
    if (rude_ && random_() % 16 == 0) a.record_size = u32();
    std::string tail;
    for (auto& p : parts) tail += p;
    for (uint32_t i = 0; i < std::min(a.n_dependencies, 3u); ++i) {
      Id x = id();
      tail.append(reinterpret_cast<const char*>(x.b), kIdSize);
    }
    put(wire::kUpActorCreate, a, tail);
  }
  void lineage() { c_->lineage(static_cast<uint16_t>(random_() % 6), bytes(random_() % 300)); }

  RawClient* c_;
  std::mt19937_64& random_;
  bool rude_;
  std::vector<Id> ids_;
};

class HostileNode : public testing::Test {
 protected:
  void SetUp() override {
    auto base = session::session_base(std::filesystem::temp_directory_path() / "libray-hostile-test");
    auto s = session::create_session(*base);
    ASSERT_TRUE(s.ok()) << s.status().message();
    session = std::move(*s);
    auto rayd = session::find_rayd();
    ASSERT_TRUE(rayd.ok()) << rayd.status().message();
    int fds[2];
    ASSERT_EQ(::pipe2(fds, O_CLOEXEC), 0);
    std::vector<std::string> argv = {*rayd,           "node",
                                     "--session",     session.dir,
                                     "--parent-pid",  std::to_string(::getpid()),
                                     "--ready-fd",    "9",
                                     "--num-cpus",    "2",
                                     "--store-bytes", "16777216",
                                     "--gcs-shards",  "1",
                                     "--log",         session.dir + "/logs/rayd.log"};
    pid = ::fork();
    if (pid == 0) {
      ::dup2(fds[1], 9);
      std::vector<char*> p;
      for (auto& a : argv) p.push_back(a.data());
      p.push_back(nullptr);
      ::execv(p[0], p.data());
      ::_exit(127);
    }
    ::close(fds[1]);
    char c[16];
    ASSERT_GT(::read(fds[0], c, sizeof c), 0);
    ::close(fds[0]);
  }
  void TearDown() override {
    if (pid <= 0) return;
    ::kill(pid, SIGTERM);
    int status = -1;
    EXPECT_EQ(::waitpid(pid, &status, 0), pid);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << "status " << status << "\n"
                                                               << log();
    if (!HasFailure()) std::filesystem::remove_all(session.dir);
  }
  std::string log() {
    auto text = session::read_file(session.dir + "/logs/rayd.log");
    return text.ok() ? text->substr(text->size() > 3000 ? text->size() - 3000 : 0) : "";
  }
  bool running() {  // its status stays for TearDown
    siginfo_t ended{};
    return ::waitid(P_PID, static_cast<id_t>(pid), &ended, WEXITED | WNOHANG | WNOWAIT) == 0 &&
           ended.si_pid == 0;
  }
  std::unique_ptr<RawClient> driver(const std::string& program) {
    auto c = std::make_unique<RawClient>();
    if (c->hello(session.dir, session.token, RAY_MODE_DRIVER, RAY_LANG_NATIVE, 0,
                 RawClient::driver_body({program})) != RAY_OK)
      return nullptr;
    return c;
  }
  static std::string worker_program() { return session::own_folder() + "/node_test_worker"; }
  // Asks for a lease, runs one task on the worker, gives the lease back.
  void serve_honest_driver() {
    auto good = driver(worker_program());
    ASSERT_NE(good, nullptr) << log();
    good->shape(0, {{"CPU", 1}});
    good->up(wire::kUpLeaseWant,
             wire::UpLeaseWant{0, 1, child_task(origin_of(good->welcome.root), 1)});
    Record r;
    ASSERT_TRUE(good->wait_type(wire::kDnLeaseGrant, &r)) << log();
    auto lease = r.as<wire::DnLease>();
    ASSERT_TRUE(good->push(lease.link, 7, 1)) << log();
    wire::DoneHeader done{};
    ASSERT_TRUE(good->result(lease.link, &done)) << log();
    EXPECT_EQ(done.tag, 7u);
    good->up(wire::kUpLeaseReturn, wire::UpLeaseReturn{lease.worker, lease.lease});
    good->up_bytes(wire::kUpGoodbye, "");
  }
  // Detached actors outlive their drivers on purpose, and keep the processors that they hold:
  // whoever knows them may end them.
  void end_detached(std::vector<ActorId>* ids) {
    auto reaper = driver(worker_program());
    ASSERT_NE(reaper, nullptr) << log();
    for (const ActorId& id : *ids) reaper->up(wire::kUpActorKill, wire::UpActor{id, 0, 0, 0, 0});
    reaper->up_bytes(wire::kUpGoodbye, "");
    ids->clear();
  }
  size_t open_descriptors() {
    size_t n = 0;
    std::error_code ec;
    for ([[maybe_unused]] const auto& e :
         std::filesystem::directory_iterator("/proc/" + std::to_string(pid) + "/fd", ec))
      ++n;
    return n;
  }

  session::Session session;
  int pid = -1;
};

TEST_F(HostileNode, LivesAndServesTheHonest) {
  const char* env = std::getenv("LIBRAY_HOSTILE_SEED");
  std::mt19937_64 random(env ? std::strtoull(env, nullptr, 10) : 1);
  ASSERT_NO_FATAL_FAILURE(serve_honest_driver());
  size_t descriptors = open_descriptors();
  constexpr int kRounds = 60;
  int survived = 0;
  std::vector<ActorId> detached;
  size_t n_detached = 0;
  for (int round = 0; round < kRounds && !HasFatalFailure(); ++round) {
    auto bad = driver(random() % 4 ? worker_program() : "/bin/false");
    ASSERT_NE(bad, nullptr) << "round " << round << "\n" << log();
    Hostile hostile(bad.get(), &random, random() % 2);
    size_t records = random() % 300;
    for (size_t i = 0; i < records && bad->alive(); ++i) hostile.record();
    if (random() % 4 == 0) hostile.break_ring();
    survived += bad->alive();
    bad->receive(0);
    detached.insert(detached.end(), hostile.detached.begin(), hostile.detached.end());
    if (random() % 2) bad->up_bytes(wire::kUpGoodbye, "");
    bad.reset();
    ASSERT_TRUE(running()) << "round " << round << "\n" << log();
    if (round % 10 == 9) {
      n_detached += detached.size();
      ASSERT_NO_FATAL_FAILURE(end_detached(&detached));
      ASSERT_NO_FATAL_FAILURE(serve_honest_driver()) << "round " << round;
    }
  }
  EXPECT_GT(survived, kRounds / 6);  // some were let in to the end
  ASSERT_TRUE(running()) << log();
  serve_honest_driver();
  // What the hostile left is buried: descriptors come back to about what they were.
  EXPECT_GT(n_detached, kRounds / 6u);
  int64_t end = steady_ns() + 30 * 1000000000ll;
  while (open_descriptors() > descriptors + 16 && steady_ns() < end) ::usleep(10000);
  EXPECT_LE(open_descriptors(), descriptors + 16) << log();
}

// Told to end while several of them write: it ends in order (TearDown checks its status).
TEST_F(HostileNode, EndsInOrderUnderFire) {
  std::mt19937_64 random(3);
  std::vector<std::unique_ptr<RawClient>> all;
  std::vector<std::unique_ptr<Hostile>> hostile;
  for (int i = 0; i < 6; ++i) {
    all.push_back(driver(worker_program()));
    ASSERT_NE(all.back(), nullptr) << log();
    hostile.push_back(std::make_unique<Hostile>(all.back().get(), &random, false));
  }
  for (int i = 0; i < 3000; ++i) hostile[i % 6]->record();
  ::kill(pid, SIGTERM);
  for (int i = 0; i < 200000 && running(); ++i)
    if (all[i % 6]->alive()) hostile[i % 6]->record();
}

TEST_F(HostileNode, RandomHellosAreRefused) {
  std::mt19937_64 random(2);
  for (int round = 0; round < 200; ++round) {
    Fd s(test::connect_to(session.dir + "/" + wire::kNodeSocket));
    ASSERT_TRUE(s.valid()) << log();
    wire::Hello h{};
    h.magic = random() % 4 ? wire::kMagic : static_cast<uint32_t>(random());
    h.version = random() % 4 ? wire::kProtocolVersion : static_cast<uint32_t>(random());
    if (random() % 2) std::memcpy(h.token, session.token.data(), sizeof h.token);
    h.mode = static_cast<int32_t>(random() % 4);
    h.language = static_cast<int32_t>(random() % 6) - 1;
    h.pid = static_cast<uint32_t>(random() % 2 ? ::getpid() : random());
    h.size = static_cast<uint32_t>(random() % 2 ? 20 : random());
    h.spawn = random() % 3;
    std::string d(reinterpret_cast<const char*>(&h), sizeof h);
    for (int i = 0; i < 20; ++i) d.push_back(static_cast<char>(random()));
    d.resize(random() % (d.size() + 1));
    int fds[] = {0, 1};
    (void)!send_with_fds(s.get(), d.data(), d.size(), fds, random() % 3).ok();
    if (random() % 2) continue;  // gone before the answer
    char answer[4096];
    std::vector<Fd> got;
    (void)!recv_with_fds(s.get(), answer, sizeof answer, &got).ok();
  }
  ASSERT_TRUE(running()) << log();
  serve_honest_driver();
}

}  // namespace
}  // namespace ray
