// A rayd of its own for a test, and what tests of rayd share.
#pragma once
#include <dirent.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>

#include <filesystem>
#include <fstream>
#include <set>
#include <thread>

#include "libray/session/session.h"
#include "libray/wire/packed.h"
#include "raw_client.h"

namespace ray::test {

inline std::string worker_program() { return session::own_folder() + "/node_test_worker"; }

// Waits for something to become true; the limit only ends a test that has failed.
inline bool eventually(const std::function<bool()>& what, int limit_ms = 20000) {
  int64_t end = steady_ns() + limit_ms * 1000000ll;
  while (!what()) {
    if (steady_ns() > end) return false;
    ::usleep(2000);
  }
  return true;
}

inline bool running(int pid) {
  std::ifstream f("/proc/" + std::to_string(pid) + "/stat");
  std::string text;
  std::getline(f, text);
  size_t paren = text.rfind(')');
  return paren != std::string::npos && text.size() > paren + 2 && text[paren + 2] != 'Z';
}

// Processes of a session: those with its path in their environment or command line.
inline std::set<int> processes_of(const std::string& session) {
  std::set<int> out;
  DIR* d = ::opendir("/proc");
  while (dirent* e = ::readdir(d)) {
    int pid = std::atoi(e->d_name);
    if (pid <= 0 || pid == ::getpid()) continue;
    for (const char* file : {"/environ", "/cmdline"}) {
      std::ifstream f("/proc/" + std::to_string(pid) + file, std::ios::binary);
      std::string text((std::istreambuf_iterator<char>(f)), {});
      if (text.find(session) != std::string::npos && running(pid)) out.insert(pid);
    }
  }
  ::closedir(d);
  return out;
}

struct Cluster {
  session::Session session;
  int pid = -1;
  std::string ready;

  explicit Cluster(double cpus = 2, int parent = ::getpid(), const std::string& resources = "",
                   std::vector<std::string> more = {}, uint64_t store_bytes = 64 << 20,
                   const std::string& cluster_token = "") {
    auto base = session::session_base(std::filesystem::temp_directory_path() / "libray-rayd-test");
    auto s = session::create_session(*base);
    EXPECT_TRUE(s.ok()) << s.status().message();
    session = std::move(*s);
    if (!cluster_token.empty()) {
      EXPECT_TRUE(session::write_file(session.dir + "/cluster.token", cluster_token).ok());
    }
    auto rayd = session::find_rayd();
    EXPECT_TRUE(rayd.ok()) << rayd.status().message();
    int fds[2];
    EXPECT_EQ(::pipe2(fds, O_CLOEXEC), 0);
    std::vector<std::string> argv = {*rayd, "node", "--session", session.dir,
                                     "--parent-pid", std::to_string(parent),
                                     "--ready-fd", "9", "--num-cpus", std::to_string(cpus),
                                     "--store-bytes", std::to_string(store_bytes), "--gcs-shards", "2",
                                     "--log", session.dir + "/logs/rayd.log"};
    if (!resources.empty()) argv.insert(argv.end(), {"--resources-msgpack", resources});
    argv.insert(argv.end(), more.begin(), more.end());
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
    char buf[512];
    ssize_t n;
    while ((n = ::read(fds[0], buf, sizeof buf)) > 0) ready.append(buf, static_cast<size_t>(n));
    ::close(fds[0]);
    EXPECT_EQ(ready, "ready\n");
  }
  ~Cluster() {
    if (pid > 0) {
      ::kill(pid, SIGTERM);
      ::waitpid(pid, nullptr, 0);
    }
    EXPECT_TRUE(eventually([this] { return processes_of(session.dir).empty(); }));
    if (::testing::Test::HasFailure()) return;
    std::filesystem::remove_all(session.dir);
  }
  int wait() {
    int status = -1;
    ::waitpid(pid, &status, 0);
    pid = -1;
    return status;
  }
  std::unique_ptr<RawClient> driver(int32_t language = RAY_LANG_NATIVE) {
    auto c = std::make_unique<RawClient>();
    int32_t code = c->hello(session.dir, session.token, RAY_MODE_DRIVER, language, 0,
                            RawClient::driver_body({worker_program()}));
    EXPECT_EQ(code, RAY_OK) << c->text;
    return c;
  }
  // How much the daemon remembers, by table.
  std::map<std::string, uint64_t> tables(RawClient* c) {
    wire::Packer w;
    w.array(2).str("tables").map(0);
    int32_t code = -1;
    std::string body;
    EXPECT_TRUE(c->answer(c->request(wire::kOpQuery, w.bytes()), &code, &body));
    EXPECT_EQ(code, RAY_OK) << body;
    std::map<std::string, uint64_t> out;
    wire::Cursor r(body);
    r.array();
    for (uint32_t n = r.map(); n > 0 && r.ok(); --n) {
      std::string name = r.text();
      out[name] = r.uint64();
    }
    return out;
  }
  bool has_sockets() {
    for (auto& e : std::filesystem::directory_iterator(session.dir))
      if (e.is_socket()) return true;
    return false;
  }
  std::vector<int> shard_pids() {
    std::vector<int> out;
    for (int p : processes_of(session.dir)) {
      std::ifstream f("/proc/" + std::to_string(p) + "/cmdline", std::ios::binary);
      std::string text((std::istreambuf_iterator<char>(f)), {});
      if (text.find(std::string("gcs\0--session", 13)) != std::string::npos) out.push_back(p);
    }
    return out;
  }
  std::string log() {
    auto text = session::read_file(session.dir + "/logs/rayd.log");
    return text.ok() ? *text : "";
  }
};

inline wire::DnLease grant(RawClient* c) {
  Record r;
  EXPECT_TRUE(c->wait_type(wire::kDnLeaseGrant, &r));
  return r.as<wire::DnLease>();
}

inline void want(RawClient* c, uint32_t shape, uint32_t n) {
  c->up(wire::kUpLeaseWant, wire::UpLeaseWant{shape, n, child_task(origin_of(c->welcome.root), 1)});
}

inline bool announce(RawClient* c, const ActorId& id, const wire::ActorFacts& facts = {}) {
  return c->up(wire::kUpActorConnect, wire::UpActor{id, 0, RAY_OK, 1, sizeof facts},
               std::string(reinterpret_cast<const char*>(&facts), sizeof facts));
}

// Pid of the process with that index, as the link said.
inline int pid_of(RawClient* c, uint32_t worker) {
  Record r;
  EXPECT_TRUE(c->wait([&](const Record& x) {
    return x.type == wire::kDnLink && x.as<wire::DnLink>().peer == worker;
  }, &r));
  return static_cast<int>(r.as<wire::DnLink>().peer_pid);
}

// A parent of its own, so that killing it kills the "driver that started the node".
inline int fake_parent() {
  int pid = ::fork();
  if (pid == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (;;) ::pause();
  }
  return pid;
}

struct ActorMaker {
  RawClient* d;
  uint32_t next = 1;
  ActorId create(const std::string& name, const std::string& record, int32_t max_restarts,
                 uint64_t req_id = 0, uint32_t flags = 0, int32_t lifetime = 0) {
    return create_as(actor_of(child_task(origin_of(d->welcome.root), next++)), name, record, max_restarts, req_id, flags,
                     lifetime);
  }
  ActorId create_as(const ActorId& id, const std::string& name, const std::string& record, int32_t max_restarts,
                    uint64_t req_id, uint32_t flags, int32_t lifetime) {
    wire::UpActorCreate c{};
    c.id = id;
    c.req_id = req_id;
    c.max_restarts = max_restarts;
    c.max_concurrency = 1;
    c.flags = flags;
    c.lifetime = lifetime;
    c.name_size = static_cast<uint32_t>(name.size());
    c.record_size = static_cast<uint32_t>(record.size());
    d->up(wire::kUpObjShare, wire::UpObj{id, {}, wire::kObjPending, 0, 0, 0});
    d->up(wire::kUpActorCreate, c, name + record);
    d->up(wire::kUpActorConnect, wire::UpActor{id, 0, 0, 0, 0});
    return id;
  }
  // The next state of this actor that is `state`.
  bool wait(const ActorId& id, uint32_t state, wire::DnActorState* out, std::string* cause = nullptr) {
    Record r;
    if (!d->wait([&](const Record& x) {
          return x.type == wire::kDnActorState && x.as<wire::DnActorState>().id == id &&
                 x.as<wire::DnActorState>().state == state;
        }, &r))
      return false;
    *out = r.as<wire::DnActorState>();
    if (cause) *cause = r.tail<wire::DnActorState>();
    return true;
  }
};

}  // namespace ray::test
