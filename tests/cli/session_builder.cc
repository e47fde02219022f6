// See session_builder.h.
#include "tests/cli/session_builder.h"

#include <fcntl.h>
#include <sqlite3.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <future>
#include <optional>

#include "gcs/client.h"
#include "gcs/ops.h"
#include "gcs/service.h"
#include "libray/base/clock.h"
#include "libray/lineage/reader.h"
#include "libray/session/session.h"
#include "libray/wire/msgpack.h"

namespace ray::cli::test {
namespace {

using wire::Writer;

constexpr uint64_t kSquare = 0x1234, kCounter = 0x5678;
constexpr char kSpecialBytes[] = "\x00\xff\n";

[[noreturn]] void die(const std::string& what) {
  std::fprintf(stderr, "session builder: %s\n", what.c_str());
  std::abort();
}

std::string_view bytes_of(const Id& id) { return {reinterpret_cast<const char*>(id.b), kIdSize}; }

class Builder {
 public:
  explicit Builder(const std::string& base) {
    auto session = session::create_session(base);
    if (!session.ok()) die(session.status().message());
    s_.dir = session->dir;
    std::memset(s_.job.b, 1, kIdSize);
    std::memset(s_.node.b, 2, kIdSize);
    s_.root = root_task(s_.job);
    gcs::ClientOptions o;
    for (uint32_t i = 0; i < 2; ++i) {
      gcs::ShardOptions shard;
      shard.index = i;
      shard.dir = s_.dir;
      shard.url = "ipc://" + s_.dir + "/gcs-" + std::to_string(i) + ".sock";
      shard.token = session->token;
      auto service = gcs::Service::start(shard);
      if (!service.ok()) die(service.status().message());
      shards_.push_back(std::move(*service));
      o.urls.push_back(shard.url);
    }
    o.token = session->token;
    o.node = s_.node;
    auto client = gcs::Client::connect(o);
    if (!client.ok()) die(client.status().message());
    client_ = std::move(*client);
    now_ = wall_ns() - 60 * 1000000000ll;
  }

  SyntheticSession finish() {
    client_.reset();
    shards_.clear();
    return s_;
  }

  void tasks() {
    for (uint32_t i = 0; i < 20; ++i) {
      std::vector<ObjectId> refs;
      if (i == 3) refs = {return_object(s_.task(1), 0), return_object(s_.task(2), 0)};
      // Some have no name of their own: the function table knows theirs.
      submit(s_.task(i), s_.root, 0, i % 2 ? "" : "square", "", i, refs);
      exec(s_.task(i), 0, RAY_OK, int64_t{i} * i, "");
    }
    submit(s_.task(20), s_.root, 0, "fails", "", 20, {});
    exec(s_.task(20), 0, RAY_TASK_FAILED, {},
         "Traceback (most recent call last):\n  ValueError: no good");
    submit(s_.task(21), s_.root, 0, "square", "", 21, {});
    submit(s_.task(22), s_.root, 0, "retried", "", 22, {});
    exec(s_.task(22), 0, RAY_WORKER_CRASHED, {}, "worker died");
    exec(s_.task(22), 1, RAY_OK, 22, "");
    submit(s_.task(23), s_.root, 0, "large", "", 23, {});
    exec(s_.task(23), 0, RAY_OK, -1, "", true);
    submit(s_.task(24), s_.root, 1, "Counter", "", 24, {});
    exec(s_.task(24), 0, RAY_OK, {}, "");
    for (uint32_t i = 25; i < 28; ++i) {
      submit(s_.task(i), s_.root, 2, "", "add", i, {});
      exec(s_.task(i), 0, RAY_OK, i - 24, "", false, i - 24);
    }
    for (uint32_t i = 0; i < 3; ++i) {
      submit(s_.child(i), s_.task(0), 0, "leaf", "", i, {});
      exec(s_.child(i), 0, RAY_OK, i, "");
    }
    for (uint32_t shard = 0; shard < 2; ++shard) append(shard, &batch_[shard], count_[shard]);
  }

  void tables() {
    for (auto [key, name] : {std::pair(kSquare, "square"), std::pair(kCounter, "Counter")}) {
      std::string args;
      Writer(&args).array(5).uint64(key).int64(RAY_LANG_PYTHON).int64(1).str(name).bin("code");
      call(client_->shard_of_slot(gcs::slot_of_function(key)), gcs::kFunctionDefine, args);
    }
    for (auto [key, value] : {std::pair<std::string, std::string>("alpha", "one\n"),
                              {"alps", "high"},
                              {"beta", std::string(kSpecialBytes, 3)}})
      put("cfg", key, value);
    std::string packed;
    Writer(&packed).map(1).str("epoch").int64(7);
    put("", "state", packed);
    std::string job;
    Writer(&job)
        .array(2)
        .bin(bytes_of(s_.job))
        .map(2)
        .str("name")
        .str("training")
        .str("state")
        .str("RUNNING");
    for (uint32_t shard = 0; shard < 2; ++shard) call(shard, gcs::kJobPut, job);
    gcs::ActorSpec spec;
    spec.actor = s_.actor();
    spec.name = "counter";
    spec.ns = "main";
    spec.class_name = "Counter";
    spec.function = kCounter;
    spec.job = s_.job;
    spec.node = s_.node;
    wait([&](auto done) { gcs::register_actor(client_.get(), spec, done); });
    gcs::ActorChange change;
    change.actor = s_.actor();
    change.state = "DEAD";
    change.node = s_.node;
    change.pid = 4242;
    change.code = RAY_ACTOR_DIED;
    change.cause = "killed by ray_actor_kill";
    wait([&](auto done) { gcs::update_actor(client_.get(), change, done); });
    std::string events;
    std::string map;
    Writer(&map)
        .map(2)
        .str("kind")
        .str("worker-died")
        .str("message")
        .str("worker 3 (pid 77) was killed by signal 9");
    lineage::append_event(&events, lineage::kEvent, now_, 1, map);
    map.clear();
    Writer(&map)
        .map(3)
        .str("kind")
        .str("actor")
        .str("actor")
        .str(s_.actor().hex())
        .str("state")
        .str("DEAD");
    lineage::append_event(&events, lineage::kEvent, now_ - 1, 1, map);
    map.clear();
    Writer(&map)
        .map(2)
        .str("kind")
        .str("protocol")
        .str("message")
        .str("process 9 broke the protocol");
    lineage::append_event(&events, lineage::kError, now_ + 1, 9, map);
    append(0, &events, 3);
  }

 private:
  void submit(const TaskId& task, const TaskId& parent, uint32_t kind, const char* name,
              const char* method, uint32_t number, const std::vector<ObjectId>& refs) {
    std::string value;
    Writer(&value).int64(number);
    std::vector<lineage::ArgIn> args{{false, RAY_FMT_MSGPACK, value}};
    for (const ObjectId& r : refs) args.push_back({true, 0, bytes_of(r)});
    lineage::SubmitIn in;
    in.fixed.task = task;
    in.fixed.parent = parent;
    in.fixed.function = kind ? kCounter : kSquare;
    if (kind) in.fixed.actor = s_.actor();
    in.fixed.submit_ns = now_ += 1000000;
    in.fixed.kind = kind;
    in.fixed.n_returns = 1;
    in.fixed.process = parent == s_.root ? 0 : 2;
    in.name = name;
    in.method = method;
    in.args = args.data();
    in.n_args = static_cast<uint32_t>(args.size());
    add(task, in);
  }
  void exec(const TaskId& task, uint32_t execution, ray_code code, std::optional<int64_t> result,
            const char* error, bool in_store = false, uint64_t actor_pos = 0) {
    std::string value;
    if (result) Writer(&value).int64(*result);
    lineage::ResultIn r;
    r.format = RAY_FMT_MSGPACK;
    r.size = in_store ? 5000000 : value.size();
    r.in_store = in_store;
    if (!in_store) r.bytes = value;
    lineage::ExecIn in;
    in.fixed.task = task;
    in.fixed.execution = execution;
    in.fixed.start_ns = now_ + 100000;
    in.fixed.end_ns = now_ + 350000;
    in.fixed.process = 2;
    in.fixed.pid = 4242;
    in.fixed.code = code;
    if (actor_pos) {
      in.fixed.actor = s_.actor();
      in.fixed.actor_pos = actor_pos;
      in.fixed.kind = 2;
    }
    in.results = &r;
    in.n_results = result ? 1 : 0;
    in.error = error;
    add(task, in);
  }
  template <class In>
  void add(const TaskId& task, const In& in) {
    uint32_t shard = client_->shard_of_slot(gcs_slot(task));
    lineage::append(&batch_[shard], in);
    ++count_[shard];
  }
  void append(uint32_t shard, std::string* records, uint32_t n) {
    if (n == 0) return;
    std::promise<Status> p;
    client_->append_lineage(shard, std::move(*records), n,
                            [&](Status s, uint64_t) { p.set_value(s); });
    Status s = p.get_future().get();
    if (!s.ok()) die(s.message());
  }
  template <class F>
  void wait(F start) {
    std::promise<Status> p;
    start([&](Status s, std::string) { p.set_value(s); });
    Status s = p.get_future().get();
    if (!s.ok()) die(s.message());
  }
  void call(uint32_t shard, uint32_t op, const std::string& args) {
    wait([&](auto done) { client_->call(shard, op, args, done); });
  }
  void put(const std::string& ns, const std::string& key, const std::string& value) {
    std::string args;
    Writer(&args).array(4).str(ns).bin(key).bin(value).uint64(UINT64_MAX);
    call(client_->shard_of_slot(gcs::slot_of_kv(ns, key)), gcs::kKvPut, args);
  }

  SyntheticSession s_;
  std::vector<std::unique_ptr<gcs::Service>> shards_;
  std::unique_ptr<gcs::Client> client_;
  std::string batch_[2];
  uint32_t count_[2] = {};
  int64_t now_ = 0;
};

}  // namespace

TempDir::TempDir() {
  char path[] = "/tmp/libray-cli-XXXXXX";
  if (!::mkdtemp(path)) die("cannot make a folder");
  path_ = path;
}
TempDir::~TempDir() {
  std::error_code ec;
  std::filesystem::remove_all(path_, ec);
}

SyntheticSession build_session(const std::string& base) {
  Builder b(base);
  b.tasks();
  b.tables();
  SyntheticSession s = b.finish();
  std::ofstream(s.dir + "/logs/node.log") << "first line\nsecond line\nthird line\n";
  std::ofstream(s.dir + "/logs/worker-7.err") << "boom";
  return s;
}

void write_node_file(const std::string& dir, int pid, int64_t started_ns) {
  std::ofstream(dir + "/session.json")
      << "{\"pid\": " << pid << ", \"parent_pid\": 1, \"started_ns\": " << started_ns
      << ", \"node\": \"0202\", \"store_bytes\": 67108864, \"gcs_shards\": 2, \"gcs_pids\": [11, "
         "12], "
         "\"resources\": {\"CPU\": 2, \"GPU\": 0.5}}\n";
}

Output run_tool(const std::string& base, const std::vector<std::string>& args) {
  std::string out_file = base + "/out.txt", err_file = base + "/err.txt";
  int pid = ::fork();
  if (pid == 0) {
    ::setenv("LIBRAY_TMPDIR", base.c_str(), 1);
    ::setenv("TZ", "UTC", 1);
    int out = ::open(out_file.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    int err = ::open(err_file.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    ::dup2(out, 1);
    ::dup2(err, 2);
    std::vector<char*> argv{const_cast<char*>("libray")};
    for (const auto& a : args) argv.push_back(const_cast<char*>(a.c_str()));
    argv.push_back(nullptr);
    ::execv(LIBRAY_TOOL, argv.data());
    ::_exit(127);
  }
  int status = 0;
  ::waitpid(pid, &status, 0);
  auto slurp = [](const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(in), {});
  };
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status), slurp(out_file),
          slurp(err_file)};
}

std::string json(const std::string& text, const std::string& path) {
  sqlite3* db = nullptr;
  sqlite3_open(":memory:", &db);
  sqlite3_stmt* s = nullptr;
  sqlite3_prepare_v2(
      db, "SELECT CASE WHEN json_valid(?1) THEN json_extract(?1,?2) ELSE '<malformed>' END", -1, &s,
      nullptr);
  sqlite3_bind_text(s, 1, text.data(), static_cast<int>(text.size()), SQLITE_TRANSIENT);
  sqlite3_bind_text(s, 2, path.c_str(), -1, SQLITE_TRANSIENT);
  std::string out;
  if (sqlite3_step(s) == SQLITE_ROW && sqlite3_column_text(s, 0))
    out = reinterpret_cast<const char*>(sqlite3_column_text(s, 0));
  sqlite3_finalize(s);
  sqlite3_close(db);
  return out;
}

size_t lines(const std::string& text) {
  return static_cast<size_t>(std::count(text.begin(), text.end(), '\n'));
}

}  // namespace ray::cli::test
