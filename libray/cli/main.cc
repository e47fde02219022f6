// The `libray` tool: looks into sessions, ends them and removes dead ones. Everything else but `why` only reads files and
// /proc, so it works on dead sessions and hung nodes. Exit codes: 0 done, 1 it failed (one line on
// stderr says why), 2 the command line is wrong.
#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdio>
#include <exception>

#include "libray/cli/commands.h"
#include "libray/node/session.h"
#include "ray.h"

namespace ray::cli {
namespace {

constexpr char kFooter[] =
    "Without --session the newest session of this user is meant, or where a living node is asked (nodes, stop, kv, stack, "
    "store, why) the newest whose node lives; sessions lie in $LIBRAY_TMPDIR, "
    "else\n"
    "/tmp/libray-UID. Ids may be shortened to their beginning, or written as the tables show them: "
    "1cdf5a68..2a\n"
    "is the task with index 0x2a among those that start with 1cdf5a68; :r0 is its first result.";

class Tool {
 public:
  Tool() : app_("libray: looks into tasks, actors, objects and logs of a session") {
    app_.footer(kFooter);
    app_.require_subcommand(1);
    app_.fallthrough();
    app_.option_defaults()->always_capture_default(false);
    app_.set_version_flag("--version", version());
    app_.add_option("-s,--session", common_.session, "session: a directory, or a part of its name")
        ->type_name("DIR");
    add_start();
    add_session_commands();
    add_record_commands();
    add_kv();
    add_views();
  }

  int run(int argc, char** argv) {
    try {
      app_.parse(argc, argv);
    } catch (const CLI::ParseError& e) {
      int code = app_.exit(e);
      return code == 0 ? 0 : 2;
    }
    Status s = action_();
    std::fflush(stdout);
    if (s.ok()) return 0;
    std::fprintf(stderr, "libray: %s\n",
                 s.message().empty() ? code_name(s.code()) : s.message().c_str());
    return 1;
  }

 private:
  static std::string version() {
    return strprintf("libray %d.%d.%d", RAY_API_VERSION >> 16, RAY_API_VERSION >> 8 & 255,
                     RAY_API_VERSION & 255);
  }
  enum Options { kPlain = 0, kJson = 1, kFull = 2, kLimit = 4, kRows = 7 };

  CLI::App* add(CLI::App* to, const char* name, const char* help, int options,
                std::function<Status()> action) {
    CLI::App* c = to->add_subcommand(name, help);
    if (options & kJson)
      c->add_flag("--json", common_.json, "machine-readable: JSON with every column");
    if (options & kFull)
      c->add_flag("--full", common_.full, "whole ids, nothing cut to the terminal");
    if (options & kLimit)
      c->add_option("-n,--limit", common_.limit, "at most so many rows; 0 = all (default 100)")
          ->type_name("N");
    c->callback([this, action] { action_ = action; });
    return c;
  }

  void add_start() {
    CLI::App* start = add(&app_, "start", "start a node that stays: the head of a cluster, one that joins it, or one alone",
                          kJson, [this] { return start_node(common_, start_); });
    CLI::Option* head = start->add_flag("--head", start_.head, "the first node of a new cluster; it listens for others");
    start->add_option("--address", start_.address, "join the cluster whose head listens there")
        ->type_name("HOST:PORT")
        ->excludes(head);
    start->add_option("--host", start_.host, "of a head: where it listens (default 127.0.0.1: this machine alone). Of "
                                             "another node: its address, for people")->type_name("HOST");
    start->add_option("--port", start_.port, "of a head; 0 = one that is free (default)")->check(CLI::Range(0, 65535));
    start->add_option("--token-file", start_.token_file, "file with the cluster's token, which only its owner can read; "
                                                         "else LIBRAY_TOKEN. A head without either makes a token")
        ->type_name("FILE");
    start->add_option("--tls-certificate", start_.tls_certificate, "PEM file with this node's certificate and key: TLS on "
                                                                   "every connection")->type_name("FILE");
    start->add_option("--tls-ca", start_.tls_ca, "PEM file with whose certificates are trusted")->type_name("FILE");
    start->add_option("--num-cpus", start_.cpus, "default: as many as there are")->check(CLI::Range(0.0, 1e6));
    start->add_option("--num-gpus", start_.gpus, "default: none")->check(CLI::Range(0.0, 1e6));
    start->add_option("--resources", start_.resources, "further ones: {\"name\": 2} or name=2,other=1");
    start->add_option("--labels", start_.labels, "{\"zone\": \"a\"} or zone=a,rack=7");
    start->add_option("--store-bytes", start_.store_bytes, "memory for objects (default: 30 % of the machine's)");
    start->add_option("--spill-bytes", start_.spill_bytes, "of objects on disk at most (default: what the disk has)");
    start->add_flag("--block", start_.block, "wait until the node ends; Ctrl-C ends it");
    start->add_option("--with-pid", start_.with_pid, "the node ends when this process ends")->type_name("PID");
    start->add_option("--dir", start_.session_dir, "where its session goes, instead of $LIBRAY_TMPDIR")->type_name("DIR");
    add(&app_, "nodes", "the nodes of the cluster as this one knows them", kJson | kFull,
        [this] { return show_nodes(common_); });
    CLI::App* why = add(&app_, "why", "where the cluster's scheduler placed a task last, and why", kJson,
                        [this] { return show_why(common_, top_); });
    why->add_option("task", top_, "its id, its beginning or its short form")->required();
  }

  void add_session_commands() {
    CLI::App* sessions =
        add(&app_, "sessions", "list the sessions of this user, or remove dead ones", kJson | kLimit,
            [this] { return prune_ ? clean_sessions(common_, keep_) : show_sessions(common_); });
    CLI::Option* prune =
        sessions->add_flag("--prune", prune_, "remove dead sessions, oldest first: all but the ten newest, "
                                              "and what is over LIBRAY_SESSION_BYTES (1 GiB)");
    sessions->add_option("--keep", keep_, "with --prune: so many at most; 0 = none")->type_name("N")->needs(prune);
    add(&app_, "status", "one session: is its node alive, its processes, resources, disk, tasks",
        kJson | kFull, [this] { return show_status(common_); });
    CLI::App* logs = add(&app_, "logs", "list the logs of a session, or print one", kJson,
                         [this] { return show_logs(common_, logs_); });
    logs->add_option("name", logs_.name, "log to print: its name or a part of it");
    logs->add_option("-t,--tail", logs_.tail, "only the last N lines")->type_name("N");
    logs->add_flag("-f,--follow", logs_.follow, "go on printing while the session lives");
    CLI::App* stack = add(&app_, "stack", "what every thread of the workers and drivers does now",
                          kJson, [this] { return show_stacks(common_, pid_, native_); });
    stack->add_option("pid", pid_, "only this process")->type_name("PID");
    stack->add_flag("--native", native_, "also stacks of C and C++ code, by gdb or eu-stack");
    CLI::App* stop = add(&app_, "stop", "end the node of a session and all its processes", kPlain,
                         [this] { return stop_session(common_, stop_); });
    stop->add_option("--timeout", stop_.timeout_s,
                     "seconds to wait for an orderly end (default 10)")
        ->type_name("S")
        ->check(CLI::Range(0.0, 1e6));
    stop->add_flag("--force", stop_.force, "kill it when it does not end in time");
    add(&app_, "version", "print the version", kPlain, [] {
      std::printf("%s\n", version().c_str());
      return Status();
    });
  }

  void add_record_commands() {
    CLI::App* tasks =
        add(&app_, "tasks", "tasks, newest first; with an id everything about that task", kRows,
            [this] { return show_tasks(common_, tasks_); });
    tasks->add_option("id", tasks_.id, "a task's id, its beginning or its short form");
    tasks
        ->add_option("--state", tasks_.states,
                     "submitted, running, finished, failed, cancelled (may be repeated)")
        ->type_name("STATE")
        ->check(CLI::IsMember({"submitted", "running", "finished", "failed", "cancelled"}, CLI::ignore_case));
    tasks
        ->add_option("--function", tasks_.function,
                     "name or pattern (* and ?) of the function, or Class.method")
        ->type_name("NAME");
    tasks->add_option("--actor", tasks_.actor, "calls of this actor")->type_name("ID");
    CLI::App* actors = add(&app_, "actors", "actors, newest first", kRows,
                           [this] { return show_actors(common_, state_); });
    actors->add_option("--state", state_, "pending, alive, restarting or dead")
        ->type_name("STATE")
        ->check(CLI::IsMember({"pending", "alive", "restarting", "dead"}, CLI::ignore_case));
    CLI::App* objects = add(&app_, "objects", "results of tasks, largest first", kRows,
                            [this] { return show_objects(common_, state_, only_store_); });
    objects->add_option("--state", state_, "pending, ready or error")
        ->type_name("STATE")
        ->check(CLI::IsMember({"pending", "ready", "error"}, CLI::ignore_case));
    objects->add_flag("--store", only_store_, "only those that went through the object store");
    add(&app_, "errors", "failed tasks and reported errors, newest first", kRows,
        [this] { return show_errors(common_); });
    add(&app_, "events", "what happened to workers and the node, newest first", kRows,
        [this] { return show_events(common_); });
    add(&app_, "functions", "functions with the number of their tasks, most used first", kRows,
        [this] { return show_functions(common_); });
    add(&app_, "jobs", "jobs, newest first", kRows, [this] { return show_jobs(common_); });
  }

  void add_kv() {
    CLI::App* kv = app_.add_subcommand("kv", "the key-value table");
    kv->require_subcommand(1);
    kv->fallthrough();
    CLI::App* list = add(kv, "list", "keys", kRows, [this] { return kv_list(common_, ns_, key_); });
    list->add_option("prefix", key_, "only keys that begin with this");
    list->add_option("--ns", ns_, "only of this namespace")->type_name("NAME");
    CLI::App* get = add(kv, "get", "the bytes of one value", kJson,
                        [this] { return kv_get(common_, ns_, key_, as_text_); });
    get->add_option("key", key_, "the key")->required();
    get->add_option("--ns", ns_, "its namespace (default: the empty one)")->type_name("NAME");
    get->add_flag("--text", as_text_, "the value is MessagePack: print it readably");
  }

  void add_views() {
    CLI::App* store =
        add(&app_, "store", "what is in the node's object store; also when the node hangs", kRows,
            [this] { return show_store(common_, pid_); });
    store->add_option("--pid", pid_, "the process that runs the store, instead of a session's node")
        ->type_name("PID");
    CLI::App* graph = add(&app_, "graph",
                          "tasks with their data, control and stateful edges, from the files alone",
                          kFull | kLimit, [this] { return show_graph(common_, format_, top_); });
    graph->add_option("task", top_, "only this task, what it submitted and their inputs");
    graph->add_option("--format", format_, "text (default), dot for Graphviz, or json")
        ->check(CLI::IsMember({"text", "dot", "json"}));
    graph->add_flag_callback(
        "--json", [this] { format_ = "json"; }, "the same as --format json");
    CLI::App* timeline =
        add(&app_, "timeline", "write a trace of all executions for Perfetto or chrome://tracing",
            kPlain, [this] { return write_timeline(common_, file_); });
    timeline
        ->add_option("-o,--output", file_, "file to write, - for stdout (default timeline.json)")
        ->type_name("FILE");
  }

  CLI::App app_;
  Common common_;
  TaskFilter tasks_;
  LogOptions logs_;
  StopOptions stop_;
  StartOptions start_;
  std::string state_, ns_, key_, top_, format_ = "text", file_ = "timeline.json";
  bool only_store_ = false, as_text_ = false, native_ = false, prune_ = false;
  size_t keep_ = node::SessionLimits{}.count;
  int pid_ = 0;
  std::function<Status()> action_;
};

}  // namespace
}  // namespace ray::cli

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_DFL);  // `libray tasks | head` ends quietly
  try {
    return ray::cli::Tool().run(argc, argv);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "libray: internal error: %s\n", e.what());
    return 1;
  }
}
