// The subcommands of the tool. main.cc fills the options from the command line and turns a failed
// Status into one line on stderr and exit code 1. One thread; output goes to stdout.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "libray/base/status.h"

namespace ray::cli {

struct Common {
  std::string session;  // as given; empty = newest
  bool json = false;
  bool full = false;   // whole ids, nothing cut
  size_t limit = 100;  // rows; 0 = all
};

struct TaskFilter {
  std::string id;  // whole, a beginning of it, or the short form
  std::vector<std::string> states;
  std::string function;  // name or glob
  std::string actor;
};
Status show_tasks(const Common& common, const TaskFilter& filter);
// The whole id, in hexadecimal digits: 48 of them are taken as they are, others are looked for in the records.
Result<std::string> find_task(const std::string& session, const std::string& text);
Status show_actors(const Common& common, const std::string& state);
Status show_objects(const Common& common, const std::string& state, bool only_store);
Status show_errors(const Common& common);
Status show_events(const Common& common);
Status show_functions(const Common& common);
Status show_jobs(const Common& common);
Status kv_list(const Common& common, const std::string& ns, const std::string& prefix);
Status kv_get(const Common& common, const std::string& ns, const std::string& key, bool as_text);

struct StartOptions {
  bool head = false, block = false;
  std::string address, host, token_file, tls_certificate, tls_ca, session_dir;
  int port = 0, with_pid = 0;
  double cpus = -1, gpus = 0;  // -1: as many as there are
  std::string resources, labels;  // JSON, or NAME=VALUE,NAME=VALUE
  uint64_t store_bytes = 0, spill_bytes = 0;
};
Status start_node(const Common& common, const StartOptions& options);
Status show_nodes(const Common& common);
Status show_why(const Common& common, const std::string& id);

Status show_sessions(const Common& common);
Status clean_sessions(const Common& common, size_t keep);
Status show_status(const Common& common);
struct StopOptions {
  double timeout_s = 10;
  bool force = false;
};
Status stop_session(const Common& common, const StopOptions& options);
struct LogOptions {
  std::string name;  // of a file, or a part of it; empty = list them
  size_t tail = 0;   // last lines only; 0 = all
  bool follow = false;
};
Status show_logs(const Common& common, const LogOptions& options);

// Of all processes but zygotes, or of one.
Status show_stacks(const Common& common, int pid, bool native);
Status show_store(const Common& common, int pid);
Status show_graph(const Common& common, const std::string& format, const std::string& top);
Status write_timeline(const Common& common, const std::string& file);

}  // namespace ray::cli
