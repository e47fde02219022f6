// The tool on synthetic sessions: every subcommand, its filters, its JSON, its errors and exit
// codes, on a dead session, a living node, a stopped node and an empty folder.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "libray/base/clock.h"
#include "libray/base/shm.h"
#include "libray/cli/output.h"
#include "libray/cli/session_files.h"
#include "store/client.h"
#include "store/daemon.h"
#include "tests/cli/session_builder.h"

namespace ray::cli::test {
namespace {

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

class Tool : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    base_ = new TempDir;
    session_ = new SyntheticSession(build_session(base_->path()));
    write_node_file(session_->dir, kNoSuchPid, wall_ns() - 3600 * 1000000000ll);
  }
  static void TearDownTestSuite() {
    delete session_;
    delete base_;
  }
  static Output run(const std::vector<std::string>& args) { return run_tool(base_->path(), args); }
  // Runs and expects success.
  static std::string ok(const std::vector<std::string>& args) {
    Output o = run(args);
    EXPECT_EQ(o.code, 0) << o.err;
    EXPECT_EQ(o.err, "");
    return o.out;
  }
  static std::string fails(const std::vector<std::string>& args, int code = 1) {
    Output o = run(args);
    EXPECT_EQ(o.code, code) << o.out;
    EXPECT_GE(lines(o.err), 1u);
    return o.err;
  }
  static constexpr int kNoSuchPid = 0x3ffffff;
  static TempDir* base_;
  static SyntheticSession* session_;
};
TempDir* Tool::base_;
SyntheticSession* Tool::session_;

TEST_F(Tool, HelpAndUsage) {
  for (const char* command :
       {"status", "tasks", "actors", "objects", "errors", "events", "functions", "jobs", "kv",
        "store", "graph", "timeline", "logs", "sessions", "stop", "version"}) {
    EXPECT_TRUE(has(ok({"--help"}), command)) << command;
    EXPECT_GT(ok({command, "--help"}).size(), 60u) << command;
  }
  EXPECT_EQ(ok({"version"}), "libray 0.3.0\n");
  EXPECT_EQ(ok({"--version"}), "libray 0.3.0\n");
  fails({}, 2);
  fails({"nonsense"}, 2);
  fails({"tasks", "--no-such-option"}, 2);
  fails({"tasks", "--limit", "x"}, 2);
  fails({"tasks", "--state", "sleepy"}, 2);
}

TEST_F(Tool, TasksTableAndFilters) {
  std::string all = ok({"tasks"});
  EXPECT_EQ(lines(all), 1 + 31u);
  EXPECT_TRUE(has(all, "Counter.add"));
  EXPECT_TRUE(has(all, short_id(session_->task(5).hex())));
  EXPECT_EQ(lines(ok({"tasks", "--state", "failed"})), 2u);
  EXPECT_TRUE(has(ok({"tasks", "--state", "failed"}), "ValueError: no good"));
  EXPECT_EQ(lines(ok({"tasks", "--state", "failed", "--state", "submitted"})), 3u);
  EXPECT_EQ(lines(ok({"tasks", "--function", "square"})), 1 + 21u);
  EXPECT_EQ(lines(ok({"tasks", "--function", "Counter.*"})), 4u);
  EXPECT_EQ(lines(ok({"tasks", "--actor", session_->actor().hex()})), 1 + 4u);
  EXPECT_EQ(ok({"tasks", "--function", "nothing"}), "no tasks\n");
  std::string cut = ok({"tasks", "--limit", "5"});
  EXPECT_EQ(lines(cut), 7u);
  EXPECT_TRUE(has(cut, "--limit 0"));
  // Newest first: the children of task 0 were submitted last.
  EXPECT_TRUE(has(cut.substr(0, 400), "leaf"));
}

TEST_F(Tool, OneTaskInFull) {
  std::string id = session_->task(3).hex();
  for (const std::string& text : {id, id.substr(0, 40), short_id(id)}) {
    std::string out = ok({"tasks", text});
    EXPECT_TRUE(has(out, "task         " + id)) << out;
    EXPECT_TRUE(has(out, "result       9\n"));
    EXPECT_TRUE(has(out, "needs arg 1  " + return_object(session_->task(1), 0).hex())) << out;
    EXPECT_TRUE(has(out, "needs arg 2  " + return_object(session_->task(2), 0).hex()));
  }
  std::string failed = ok({"tasks", session_->task(20).hex()});
  EXPECT_TRUE(has(failed, "  Traceback (most recent call last):\n    ValueError: no good\n"));
  EXPECT_TRUE(has(fails({"tasks", std::string(48, 'f')}), "no task"));
  EXPECT_TRUE(has(fails({"tasks", "xyz"}), "not an id"));
  EXPECT_TRUE(has(fails({"tasks", "12..zz"}), "not an id"));
}

TEST_F(Tool, TasksAsJson) {
  std::string out = ok({"tasks", "--json", "--limit", "0"});
  EXPECT_EQ(json(out, "$[30].name"), "square");
  EXPECT_EQ(json(out, "$[31]"), "");
  EXPECT_EQ(json(out, "$[30].task"), session_->task(0).hex());
  std::string retried = ok({"tasks", "--json", session_->task(22).hex()});
  EXPECT_EQ(json(retried, "$[0].attempt"), "1");
  EXPECT_EQ(json(retried, "$[0].state"), "FINISHED");
}

TEST_F(Tool, OtherTables) {
  std::string actors = ok({"actors"});
  EXPECT_EQ(lines(actors), 2u);
  EXPECT_TRUE(has(actors, "main/counter") && has(actors, "DEAD") &&
              has(actors, "killed by ray_actor_kill"))
      << actors;
  EXPECT_EQ(ok({"actors", "--state", "alive"}), "no actors\n");
  EXPECT_EQ(json(ok({"actors", "--json"}), "$[0].info.class"), "Counter");

  std::string objects = ok({"objects", "--store"});
  EXPECT_EQ(lines(objects), 2u);
  EXPECT_TRUE(has(objects, "4.77 MiB") &&
              has(objects, short_id(return_object(session_->task(23), 0).hex())))
      << objects;
  EXPECT_EQ(lines(ok({"objects", "--state", "pending"})), 2u);
  EXPECT_EQ(lines(ok({"objects", "--state", "error"})), 2u);
  EXPECT_EQ(json(ok({"objects", "--json"}), "$[0].size"), "5000000");

  std::string errors = ok({"errors"});
  EXPECT_EQ(lines(errors), 3u);
  EXPECT_TRUE(has(errors, "broke the protocol") && has(errors, "ValueError: no good")) << errors;
  EXPECT_EQ(json(ok({"errors", "--json"}), "$[0].kind"), "protocol");
  EXPECT_TRUE(has(ok({"events"}), "was killed by signal 9"));
  EXPECT_TRUE(has(ok({"events"}), "actor=" + short_id(session_->actor().hex()) + " state=DEAD"))
      << ok({"events"});
  EXPECT_EQ(json(ok({"events", "--json"}), "$[0].info.kind"), "worker-died");

  std::string functions = ok({"functions"});
  EXPECT_TRUE(has(functions, "square") && has(functions, "PYTHON") && has(functions, "250 us"))
      << functions;
  EXPECT_EQ(json(ok({"functions", "--json"}), "$[0].tasks"), "27");
  EXPECT_EQ(json(ok({"functions", "--json"}), "$[0].failed"), "1");

  std::string jobs = ok({"jobs"});
  EXPECT_EQ(lines(jobs), 2u) << "every shard has a copy";
  EXPECT_TRUE(has(jobs, "training") && has(jobs, "RUNNING"));
}

TEST_F(Tool, KeysAndValues) {
  EXPECT_EQ(lines(ok({"kv", "list"})), 5u);
  EXPECT_EQ(lines(ok({"kv", "list", "--ns", "cfg"})), 4u);
  EXPECT_EQ(lines(ok({"kv", "list", "--ns", "cfg", "alp"})), 3u);
  EXPECT_EQ(ok({"kv", "list", "zzz"}), "no keys\n");
  EXPECT_EQ(ok({"kv", "get", "--ns", "cfg", "alpha"}), "one\n");
  EXPECT_EQ(ok({"kv", "get", "--ns", "cfg", "beta"}), std::string("\x00\xff\n", 3));
  EXPECT_EQ(ok({"kv", "get", "state", "--text"}), "{\"epoch\": 7}\n");
  EXPECT_EQ(json(ok({"kv", "get", "--ns", "cfg", "alpha", "--json"}), "$.value"), "one\n");
  EXPECT_TRUE(has(fails({"kv", "get", "alpha"}), "no key 'alpha' in namespace ''"));
  fails({"kv"}, 2);
  fails({"kv", "get"}, 2);
}

TEST_F(Tool, Timeline) {
  std::string out = ok({"timeline", "-o", "-"});
  EXPECT_NE(json(out, "$.traceEvents"), "<malformed>");
  size_t spans = 0, arrows = 0;
  for (size_t at = 0; (at = out.find("\"ph\":\"X\"", at)) != out.npos; ++at) ++spans;
  for (size_t at = 0; (at = out.find("\"ph\":\"s\"", at)) != out.npos; ++at) ++arrows;
  EXPECT_EQ(spans, 31u);  // 30 finished tasks, one of them twice
  EXPECT_EQ(arrows, 30u);
  EXPECT_TRUE(has(out, "\"dur\":250.000"));
  EXPECT_TRUE(has(out, "RAY_WORKER_CRASHED"));
  std::string file = base_->path() + "/trace.json";
  EXPECT_TRUE(has(ok({"timeline", "-o", file}), "31 executions"));
  EXPECT_GT(std::filesystem::file_size(file), 1000u);
  EXPECT_TRUE(has(fails({"timeline", "-o", "/no/such/folder/x"}), "cannot write"));
}

TEST_F(Tool, Graph) {
  std::string text = ok({"graph"});
  EXPECT_TRUE(has(text, "31 tasks, 30 finished; edges: 31 control, 2 data, 3 stateful\n")) << text;
  EXPECT_TRUE(has(text, "driver " + short_id(session_->root.hex())));
  std::string inputs = "  <- " + short_id(return_object(session_->task(1), 0).hex()) + ", " +
                       short_id(return_object(session_->task(2), 0).hex());
  EXPECT_TRUE(has(text, inputs)) << text;
  EXPECT_TRUE(has(text, "after " + short_id(session_->task(26).hex())));
  EXPECT_TRUE(has(text, "│ └ leaf"));
  EXPECT_TRUE(has(ok({"graph", "-n", "4"}), "(the first 4 tasks"));
  EXPECT_EQ(lines(ok({"graph", session_->task(0).hex()})), 1 + 4u);

  std::string all = ok({"graph", "--json"});
  EXPECT_EQ(json(all, "$.tasks[30].task").size(), 48u);
  EXPECT_EQ(json(all, "$.data[0][0]"), session_->task(1).hex());
  EXPECT_EQ(json(all, "$.data[1][1]"), session_->task(3).hex());
  EXPECT_EQ(json(all, "$.stateful[0][0]"), session_->task(24).hex());
  std::string part = ok({"graph", "--format", "json", short_id(session_->task(3).hex())});
  EXPECT_EQ(json(part, "$.tasks[2].task").size(), 48u);
  EXPECT_EQ(json(part, "$.tasks[3]"), "");
  std::string dot = ok({"graph", "--format", "dot"});
  EXPECT_EQ(dot.substr(0, 13), "digraph tasks");
  EXPECT_TRUE(has(fails({"graph", "ffffffff"}), "no task"));
  EXPECT_TRUE(has(fails({"graph", session_->root.hex().substr(0, 1)}), "task"));
  fails({"graph", "--format", "png"}, 2);
}

TEST_F(Tool, Logs) {
  std::string list = ok({"logs"});
  EXPECT_TRUE(has(list, "node.log") && has(list, "worker-7.err"));
  EXPECT_EQ(ok({"logs", "node.log"}), "first line\nsecond line\nthird line\n");
  EXPECT_EQ(ok({"logs", "node", "--tail", "2"}), "second line\nthird line\n");
  EXPECT_EQ(ok({"logs", "node", "--tail", "99", "--follow"}),
            "first line\nsecond line\nthird line\n");
  EXPECT_EQ(ok({"logs", "worker"}), "boom");
  EXPECT_TRUE(has(fails({"logs", "absent"}), "no log 'absent'"));
  EXPECT_TRUE(has(fails({"logs", "o"}), "fits 2 logs"));
  EXPECT_EQ(json(ok({"logs", "--json"}), "$[0].bytes"), "34");
}

TEST_F(Tool, DeadSession) {
  std::string status = ok({"status"});
  EXPECT_TRUE(has(status, "node       dead (was pid ")) << status;
  EXPECT_TRUE(has(status, "29 finished, 1 failed, 0 running, 1 waiting")) << status;
  EXPECT_TRUE(has(status, "processes  none"));
  EXPECT_EQ(json(ok({"status", "--json"}), "$.node"), "dead");
  EXPECT_EQ(json(ok({"status", "--json"}), "$.resources.GPU"), "0.5");
  EXPECT_TRUE(has(fails({"store"}), "is dead"));
  EXPECT_TRUE(has(ok({"stop"}), "is not running"));
  std::string sessions = ok({"sessions"});
  EXPECT_TRUE(has(sessions, session_->dir.substr(session_->dir.rfind('/') + 1)) &&
              has(sessions, "dead"));
}

TEST_F(Tool, SessionsAreFoundByPathPartOrTime) {
  std::string name = session_->dir.substr(session_->dir.rfind('/') + 1);
  EXPECT_EQ(lines(ok({"-s", session_->dir, "tasks"})), 32u);
  EXPECT_EQ(lines(ok({"tasks", "--session", name})), 32u);
  EXPECT_EQ(lines(ok({"tasks", "--session", name.substr(name.size() - 6)})), 32u);
  EXPECT_TRUE(has(fails({"tasks", "-s", "absent"}), "no session 'absent'"));
  TempDir empty;
  Output o = run_tool(empty.path(), {"tasks"});
  EXPECT_EQ(o.code, 1);
  EXPECT_TRUE(has(o.err, "no session in")) << o.err;
  EXPECT_TRUE(has(run_tool(empty.path(), {"sessions"}).out, "no sessions in"));
  std::filesystem::create_directory(empty.path() + "/session-1");
  o = run_tool(empty.path(), {"tasks"});
  EXPECT_EQ(o.code, 1);
  EXPECT_TRUE(has(o.err, "no control-store files")) << o.err;
  o = run_tool(empty.path(), {"status"});
  EXPECT_EQ(o.code, 0);
  EXPECT_TRUE(has(o.out, "never ready")) << o.out;
}

TEST_F(Tool, PruneRemovesDeadSessionsOldestFirstAndNoLivingOne) {
  TempDir base;
  auto path = [&](int i) { return base.path() + "/session-20260101-00000" + std::to_string(i) + "-1-aaaaaa"; };
  auto there = [&] {
    std::string found;
    for (int i = 0; i < 6; ++i)
      if (std::filesystem::exists(path(i))) found += std::to_string(i);
    return found;
  };
  for (int i = 0; i < 6; ++i) {
    ASSERT_EQ(::mkdir(path(i).c_str(), 0700), 0);
    ASSERT_EQ(::mkdir((path(i) + "/spill").c_str(), 0700), 0);
    std::ofstream(path(i) + "/token") << "0123456789abcdef0123456789abcdef";
    std::ofstream(path(i) + "/lock");
    std::ofstream(path(i) + "/gcs-0.db") << std::string(1 << 20, 'x');
    std::ofstream(path(i) + "/spill/object") << std::string(3 << 20, 'y');
  }
  std::ofstream(base.path() + "/not a session") << "x";
  Fd living(::open((path(0) + "/lock").c_str(), O_RDWR | O_CLOEXEC));  // the oldest, and in use
  ASSERT_EQ(::flock(living.get(), LOCK_SH), 0);
  auto prune = [&](std::vector<std::string> more) {
    more.insert(more.begin(), {"sessions", "--prune"});
    const Output o = run_tool(base.path(), more);
    EXPECT_EQ(o.code, 0) << o.err;
    return o.out;
  };
  EXPECT_TRUE(has(prune({}), "removed 0 dead sessions (0 B) in " + base.path() + "; 5 are kept"));
  EXPECT_EQ(there(), "012345");
  EXPECT_FALSE(std::filesystem::exists(path(3) + "/spill/object"));  // of no use to anybody
  EXPECT_TRUE(std::filesystem::exists(path(0) + "/spill/object"));
  const std::string done = prune({"--keep", "3", "--json"});
  EXPECT_EQ(json(done, "$.removed"), "2");
  EXPECT_EQ(json(done, "$.kept"), "3");
  EXPECT_GE(std::stoull(json(done, "$.removed_bytes")), 2u << 20);
  EXPECT_EQ(there(), "0345");
  ::setenv("LIBRAY_SESSION_BYTES", "1500000", 1);
  EXPECT_TRUE(has(prune({}), "removed 2 dead sessions"));
  ::unsetenv("LIBRAY_SESSION_BYTES");
  EXPECT_EQ(there(), "05");
  prune({"--keep", "0"});
  EXPECT_EQ(there(), "0");
  living = Fd();
  prune({"--keep", "0"});
  EXPECT_EQ(there(), "");
  EXPECT_TRUE(std::filesystem::exists(base.path() + "/not a session"));
  Output o = run_tool(base.path(), {"sessions", "--keep", "1"});
  EXPECT_EQ(o.code, 2);
  EXPECT_TRUE(has(o.err, "--prune")) << o.err;
}

TEST_F(Tool, DamagedFilesGiveAMessage) {
  TempDir other;
  std::string dir = other.path() + "/session-1";
  std::filesystem::create_directories(dir);
  std::ofstream(dir + "/gcs-0.db") << std::string(8192, 'x');
  std::ofstream(dir + "/session.json") << "{\"pid\": \"many\"";
  for (const char* command : {"tasks", "actors", "errors", "timeline"}) {
    Output o = run_tool(other.path(), {command});
    EXPECT_EQ(o.code, 1) << command;
    EXPECT_TRUE(has(o.err, "gcs-0.db")) << o.err;
    EXPECT_FALSE(has(o.err, "terminate")) << o.err;
  }
  EXPECT_EQ(run_tool(other.path(), {"status"}).code, 0);
}

// A process that stands for the daemon: it holds the session's lock and runs its object store.
class LiveNode {
 public:
  LiveNode(const std::string& session, const std::string& token, bool ignore_term = false) {
    int ready[2];
    EXPECT_EQ(::pipe(ready), 0);
    pid_ = ::fork();
    if (pid_ == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      if (ignore_term) ::signal(SIGTERM, SIG_IGN);
      int lock = ::open((session + "/lock").c_str(), O_RDWR | O_CREAT, 0600);
      ::flock(lock, LOCK_SH);
      store::DaemonOptions o;
      o.socket_path = session + "/store.sock";
      o.token = token;
      o.capacity_bytes = 64 << 20;
      auto daemon = store::Daemon::start(o);
      if (!daemon.ok() || ::write(ready[1], "r", 1) != 1) ::_exit(1);
      for (;;) ::pause();
    }
    ::close(ready[1]);
    char c = 0;
    EXPECT_EQ(::read(ready[0], &c, 1), 1);
    ::close(ready[0]);
    write_node_file(session, pid_, wall_ns());
  }
  ~LiveNode() {
    ::kill(pid_, SIGKILL);
    wait();
  }
  int pid() const { return pid_; }
  void stop() {
    ::kill(pid_, SIGSTOP);
    int status;
    ::waitpid(pid_, &status, WUNTRACED);
    EXPECT_TRUE(WIFSTOPPED(status));
  }
  int wait() {
    int status = 0;
    return ::waitpid(pid_, &status, 0) == pid_ ? status : -1;
  }

 private:
  int pid_ = -1;
};

TEST_F(Tool, LivingNodeAndItsStoreAlsoWhenStopped) {
  TempDir base;
  SyntheticSession s = build_session(base.path());
  std::string token = "0123456789abcdef0123456789abcdef";
  LiveNode node(s.dir, token);
  auto client = store::Client::connect(s.dir + "/store.sock", token);
  ASSERT_TRUE(client.ok()) << client.status().message();
  ObjectId large = return_object(s.task(23), 0), small = put_object(s.root, 0);
  for (auto [id, size] : {std::pair(large, 5000000u), std::pair(small, 100u)}) {
    store::Building b;
    wire::Location at;
    ASSERT_TRUE((*client)->create(id, size, -1, &b).ok());
    ASSERT_TRUE((*client)->seal(&b, &at).ok());
  }
  for (bool stopped : {false, true}) {
    if (stopped) node.stop();
    Output o = run_tool(base.path(), {"store"});
    ASSERT_EQ(o.code, 0) << o.err;
    EXPECT_TRUE(has(o.out, short_id(large.hex())) && has(o.out, short_id(small.hex()))) << o.out;
    EXPECT_TRUE(has(o.out, "4.77 MiB") && has(o.out, "64.0 MiB")) << o.out;
    EXPECT_EQ(has(o.out, ", stopped)"), stopped);
    o = run_tool(base.path(), {"store", "--json"});
    EXPECT_EQ(json(o.out, "$.capacity"), std::to_string(64 << 20)) << o.out;
    EXPECT_EQ(json(o.out, "$.list[1].object").size(), 48u);
    o = run_tool(base.path(), {"status"});
    EXPECT_TRUE(has(o.out, stopped ? "node       stopped, pid " : "node       alive, pid "))
        << o.out;
    EXPECT_TRUE(has(o.out, std::to_string(node.pid())));
    EXPECT_TRUE(has(run_tool(base.path(), {"sessions"}).out, stopped ? "stopped" : "alive"));
    EXPECT_EQ(lines(run_tool(base.path(), {"tasks"}).out), 32u);
  }
  Output o = run_tool(base.path(), {"stop"});
  EXPECT_EQ(o.code, 1);
  EXPECT_TRUE(has(o.err, "is stopped by a signal")) << o.err;
  o = run_tool(base.path(), {"stop", "--force"});
  EXPECT_EQ(o.code, 0) << o.err;
  EXPECT_TRUE(has(o.out, "killed"));
  int status = node.wait();
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

TEST_F(Tool, StopEndsInOrderOrSaysWhatToDo) {
  TempDir base;
  SyntheticSession s = build_session(base.path());
  {
    LiveNode node(s.dir, "0123456789abcdef0123456789abcdef");
    Output o = run_tool(base.path(), {"stop"});
    EXPECT_EQ(o.code, 0) << o.err;
    EXPECT_TRUE(has(o.out, "stopped " + s.dir));
    int status = node.wait();
    EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
  }
  {
    LiveNode stubborn(s.dir, "0123456789abcdef0123456789abcdef", true);
    Output o = run_tool(base.path(), {"stop", "--timeout", "0.05"});
    EXPECT_EQ(o.code, 1);
    EXPECT_TRUE(has(o.err, "did not end within 0.05 s") && has(o.err, "--force")) << o.err;
    o = run_tool(base.path(), {"stop", "--timeout", "0.05", "--force"});
    EXPECT_EQ(o.code, 0) << o.err;
  }
  // The number of a dead node now belongs to somebody else: never signalled.
  int bystander = ::fork();
  if (bystander == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (;;) ::pause();
  }
  write_node_file(s.dir, bystander, wall_ns());
  Output o = run_tool(base.path(), {"stop", "--force"});
  EXPECT_EQ(o.code, 0);
  EXPECT_TRUE(has(o.out, "is not running")) << o.out;
  EXPECT_EQ(::kill(bystander, 0), 0);
  EXPECT_EQ(::waitpid(bystander, nullptr, WNOHANG), 0);
  ::kill(bystander, SIGKILL);
  ::waitpid(bystander, nullptr, 0);
}

}  // namespace
}  // namespace ray::cli::test
