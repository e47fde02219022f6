// See shard_process.h.
#include "tests/gcs/shard_process.h"

#include <dirent.h>
#include <poll.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <future>

namespace ray::gcs::test {

TempDir::TempDir() {
  const char* base = std::getenv("TMPDIR");
  path_ = std::string(base ? base : "/tmp") + "/gcs-test-XXXXXX";
  if (!mkdtemp(path_.data())) std::abort();
}
TempDir::~TempDir() {
  std::error_code e;
  std::filesystem::remove_all(path_, e);
}

ShardProcess::ShardProcess(std::string dir, uint32_t index, std::vector<std::string> options)
    : dir_(std::move(dir)), index_(index), options_(std::move(options)) {
  url_ = "ipc://" + dir_ + "/gcs-" + std::to_string(index_) + ".sock";
}

bool ShardProcess::start(const std::string& faults) {
  int ready[2];
  if (::pipe(ready) != 0) return false;
  std::vector<std::string> args = {GCS_SHARD_BINARY, dir_, std::to_string(index_), url_, kToken,
                                   "ready=" + std::to_string(ready[1]),
                                   "parent=" + std::to_string(::getpid())};
  args.insert(args.end(), options_.begin(), options_.end());
  std::vector<char*> argv;
  for (auto& a : args) argv.push_back(a.data());
  argv.push_back(nullptr);
  std::string fault_env = "LIBRAY_FAULTS=" + faults;
  std::vector<char*> env;
  for (char** e = environ; *e; ++e)
    if (std::string(*e).rfind("LIBRAY_FAULTS=", 0) != 0) env.push_back(*e);
  env.push_back(fault_env.data());
  env.push_back(nullptr);
  int read_end = ready[0];
  pid_ = ::vfork();
  if (pid_ == 0) {
    ::close(read_end);
    ::execve(argv[0], argv.data(), env.data());
    ::_exit(127);
  }
  ::close(ready[1]);
  char byte = 0;
  bool up = ::read(ready[0], &byte, 1) == 1;
  ::close(ready[0]);
  if (!up) stop();
  return up;
}

void ShardProcess::kill9() {
  if (pid_ <= 0) return;
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
  pid_ = -1;
}

int ShardProcess::stop() {
  if (pid_ <= 0) return -1;
  ::kill(pid_, SIGINT);
  int status = 0;
  ::waitpid(pid_, &status, 0);
  pid_ = -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

int ShardProcess::wait_dead() {
  int status = 0;
  ::waitpid(pid_, &status, 0);
  pid_ = -1;
  return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

int ShardProcess::drive_until_dead(Client* c) {
  for (;;) {
    auto done = std::make_shared<std::promise<void>>();
    auto answered = done->get_future();
    std::string args;
    wire::Writer(&args).array(4).str("drive").bin("k").bin("v").uint64(UINT64_MAX);
    c->call(0, kKvPut, args, [done](Status, std::string) { done->set_value(); });
    while (answered.wait_for(std::chrono::milliseconds(2)) != std::future_status::ready) {
      int status = 0;
      if (::waitpid(pid_, &status, WNOHANG) != pid_) continue;
      pid_ = -1;
      return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    }
  }
}

std::string ShardProcess::database() const { return dir_ + "/gcs-" + std::to_string(index_) + ".db"; }

static uint64_t status_field(int pid, const std::string& name) {
  std::ifstream f("/proc/" + std::to_string(pid) + "/status");
  std::string line;
  while (std::getline(f, line))
    if (line.rfind(name, 0) == 0) return std::strtoull(line.c_str() + name.size(), nullptr, 10);
  return 0;
}
uint64_t ShardProcess::rss_kib() const { return status_field(pid_, "VmRSS:"); }
int ShardProcess::threads() const { return static_cast<int>(status_field(pid_, "Threads:")); }

uint64_t ShardProcess::cpu_ticks() const {
  std::ifstream f("/proc/" + std::to_string(pid_) + "/stat");
  std::string all((std::istreambuf_iterator<char>(f)), {});
  std::string rest = all.substr(all.rfind(')') + 2);
  unsigned long long user = 0, system = 0;
  std::sscanf(rest.c_str(), "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu", &user, &system);
  return user + system;
}

std::unique_ptr<Client> connect(const std::vector<std::string>& urls, const NodeId& node, uint32_t epoch,
                                const std::string& token, int64_t timeout_ns) {
  ClientOptions o;
  o.urls = urls;
  o.token = token;
  o.node = node;
  o.node_epoch = epoch;
  o.timeout_ns = timeout_ns;
  auto c = Client::connect(o);
  if (!c.ok()) {
    std::fprintf(stderr, "%s\n", c.status().message().c_str());
    std::abort();
  }
  return std::move(*c);
}

Got call(Client* c, uint32_t shard, uint32_t op, const std::string& args) {
  std::promise<Got> p;
  c->call(shard, op, args, [&](Status s, std::string answer) {
    p.set_value({s.code(), s.message(), std::move(answer)});
  });
  return p.get_future().get();
}

Got kv_put(Client* c, uint32_t shard, std::string_view ns, std::string_view key, std::string_view value,
           uint64_t expected) {
  std::string args;
  wire::Writer(&args).array(4).str(ns).bin(key).bin(value).uint64(expected);
  return call(c, shard, kKvPut, args);
}

Got kv_get(Client* c, uint32_t shard, std::string_view ns, std::string_view key) {
  std::string args;
  wire::Writer(&args).array(2).str(ns).bin(key);
  return call(c, shard, kKvGet, args);
}

uint64_t first_u(const Got& g) {
  wire::Cursor r(g.answer);
  if (r.array() == 0) return UINT64_MAX;
  uint64_t v = r.uint64();
  return r.ok() ? v : UINT64_MAX;
}

uint64_t stat(Client* c, uint32_t shard, std::string_view name) {
  std::string args;
  wire::Writer(&args).array(0);
  Got g = call(c, shard, kStats, args);
  wire::Cursor r(g.answer);
  r.array();
  for (size_t n = r.map(); n > 0; --n) {
    bool hit = r.bytes() == name;
    uint64_t v = r.uint64();
    if (hit) return v;
  }
  return UINT64_MAX;
}

uint64_t append(Client* c, uint32_t shard, std::string records, uint32_t n) {
  std::promise<uint64_t> p;
  c->append_lineage(shard, std::move(records), n, [&](Status s, uint64_t committed) {
    p.set_value(s.ok() ? committed : 0);
  });
  return p.get_future().get();
}

Got query(Client* c, uint32_t shard, std::string_view what, const std::string& filter) {
  std::string args;
  wire::Writer w(&args);
  w.array(2).str(what);
  if (filter.empty()) w.nil();
  else w.raw(filter);
  return call(c, shard, kQuery, args);
}

void add_task(std::string* batch, const TaskId& task, const TaskId& parent, int64_t time_ns,
              const std::vector<ObjectId>& refs, uint32_t n_returns) {
  using namespace lineage;
  std::vector<ArgIn> args;
  std::string seven = "\x07";
  args.push_back({false, RAY_FMT_MSGPACK, seven});
  for (const ObjectId& r : refs)
    args.push_back({true, 0, {reinterpret_cast<const char*>(r.b), kIdSize}});
  SubmitIn s;
  s.fixed.task = task;
  s.fixed.parent = parent;
  s.fixed.function = 0x1234;
  s.fixed.submit_ns = time_ns;
  s.fixed.n_returns = n_returns;
  s.fixed.process = 1;
  s.name = "noop";
  s.args = args.data();
  s.n_args = static_cast<uint32_t>(args.size());
  append(batch, s);
  std::vector<ResultIn> results;
  for (uint32_t k = 0; k < n_returns; ++k) results.push_back({k, RAY_FMT_MSGPACK, 1, false, seven});
  ExecIn e;
  e.fixed.task = task;
  e.fixed.start_ns = time_ns + 1000;
  e.fixed.end_ns = time_ns + 2000;
  e.fixed.process = 2;
  e.fixed.pid = 4711;
  e.results = results.data();
  e.n_results = n_returns;
  append(batch, e);
}

NodeId node_of(uint8_t n) {
  NodeId id;
  id.b[0] = n;
  id.b[23] = 1;
  return id;
}

std::vector<std::string> sql(const std::string& database, const std::string& query) {
  std::vector<std::string> rows;
  sqlite3* db = nullptr;
  sqlite3_stmt* s = nullptr;
  if (sqlite3_open_v2(database.c_str(), &db, SQLITE_OPEN_READWRITE, nullptr) != SQLITE_OK ||
      sqlite3_prepare_v2(db, query.c_str(), -1, &s, nullptr) != SQLITE_OK) {
    rows.push_back(std::string("error: ") + (db ? sqlite3_errmsg(db) : "no memory"));
  } else {
    sqlite3_busy_timeout(db, 10000);
    while (sqlite3_step(s) == SQLITE_ROW) {
      std::string row;
      for (int c = 0; c < sqlite3_column_count(s); ++c) {
        if (c) row += "|";
        const unsigned char* text = sqlite3_column_text(s, c);
        row += text ? reinterpret_cast<const char*>(text) : "NULL";
      }
      rows.push_back(row);
    }
  }
  sqlite3_finalize(s);
  sqlite3_close(db);
  return rows;
}

}  // namespace ray::gcs::test
